"""Differences: they give the new sequence, they are short, and they end in time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collab.content.difference import MAX_HUNKS, Hunk, Work, compare, compare_texts

LETTERS = st.text(alphabet="ab c😀\n", max_size=60)


def check(old: Sequence[Any], new: Sequence[Any], hunks: list[Hunk]) -> None:
    """Check that everything beside the hunks is equal, and that they follow each other."""
    at = new_at = 0
    for hunk in hunks:
        assert at <= hunk.start <= hunk.stop and new_at <= hunk.new_start <= hunk.new_stop
        assert hunk.stop > hunk.start or hunk.new_stop > hunk.new_start
        assert old[at : hunk.start] == new[new_at : hunk.new_start]
        at, new_at = hunk.stop, hunk.new_stop
    assert old[at:] == new[new_at:]


def longest_common(old: Sequence[Any], new: Sequence[Any]) -> int:
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, one in enumerate(old):
        for j, other in enumerate(new):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(st.integers(0, 3), max_size=14), st.lists(st.integers(0, 3), max_size=14))
def test_sequences_keep_as_much_as_can_be(old: list[int], new: list[int]) -> None:
    hunks = compare(old, new)
    check(old, new, hunks)
    assert len(old) - sum(hunk.stop - hunk.start for hunk in hunks) == longest_common(old, new)


@given(LETTERS, LETTERS, st.integers(0, 200))
def test_texts_are_right_however_little_work_there_is(old: str, new: str, work: int) -> None:
    check(old, new, compare_texts(old, new, Work(work)))
    check(old * 20, new * 20, compare_texts(old * 20, new * 20, Work(work)))


def test_an_edit_in_a_long_text_is_found_exactly() -> None:
    text = " ".join(f"word{number}" for number in range(20_000))
    changed = text.replace("word5000 ", "").replace("word15000", "word15000 and more")
    hunks = compare_texts(text, changed)
    check(text, changed, hunks)
    assert sum(hunk.stop - hunk.start for hunk in hunks) == len("word5000 ")
    assert sum(hunk.new_stop - hunk.new_start for hunk in hunks) == len(" and more")


def test_lines_that_move_leave_the_others_alone() -> None:
    lines = [f"line {number}: {number * 7919 % 1000}\n" for number in range(5_000)]
    moved = [*lines[1_000:1_500], *lines[:1_000], *lines[1_500:]]
    hunks = compare_texts("".join(lines), "".join(moved))
    check("".join(lines), "".join(moved), hunks)
    assert sum(hunk.stop - hunk.start for hunk in hunks) <= len("".join(lines[1_000:1_500])) + 100


def test_texts_that_have_nothing_in_common_end_in_time() -> None:
    source = random.Random(1)
    old = "".join(source.choice("abcdefgh \n") for _ in range(1_000_000))
    for new in ("".join(source.sample(old, len(old))), old[500_000:] + old[:500_000], old.replace("a", "A")):
        began = time.process_time()
        hunks = compare_texts(old, new)
        assert time.process_time() - began < 10
        assert len(hunks) <= MAX_HUNKS
        check(old, new, hunks)


def test_two_words_that_share_a_few_letters_are_two_words() -> None:
    assert compare_texts("alphabetical", "kqxhvtzl") == [Hunk(0, 11, 0, 7)]
    assert compare_texts("colour", "color") == [Hunk(4, 5, 4, 4)]
