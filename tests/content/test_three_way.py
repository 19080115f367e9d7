"""Two changes of one text, put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.content.three_way import merge_texts

TEXTS = st.text(alphabet="ab \n", max_size=12)


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ("a plan", "a good plan", "a plan", "a good plan"),
        ("a plan", "a plan", "a plan of ours", "a plan of ours"),
        ("a plan", "a good plan", "a plan of ours", "a good plan of ours"),
        ("one\ntwo\n", "two\n", "one\ntwo\nthree\n", "two\nthree\n"),
        # What both have done is done once, so a change that has arrived already changes nothing.
        ("a plan", "a good plan", "a good plan", "a good plan"),
        ("a plan", "a good plan", "a good plan of ours", "a good plan of ours"),
        # Deleted by one, written into by the other: what was written stays.
        ("one two three", "one three", "one two and a half three", "one and a half three"),
        ("", "mine", "theirs", "theirsmine"),
        ("all", "", "all", ""),
        ("all", "", "", ""),
        ("𝄞 one", "𝄞 two", "a 𝄞 one", "a 𝄞 two"),
    ],
)
def test_both_changes_are_there(base: str, mine: str, theirs: str, merged: str) -> None:
    assert merge_texts(base, mine, theirs) == merged


@given(TEXTS, TEXTS, TEXTS)
def test_one_change_alone_is_the_whole_of_it(base: str, mine: str, theirs: str) -> None:
    assert merge_texts(base, mine, base) == mine
    assert merge_texts(base, base, theirs) == theirs
    assert merge_texts(base, mine, mine) == mine


@given(TEXTS, st.text(alphabet="xy", max_size=8), st.integers(0, 12), TEXTS)
def test_nothing_that_one_has_written_is_lost(base: str, written: str, at: int, theirs: str) -> None:
    mine = base[:at] + written + base[at:]
    merged = merge_texts(base, mine, theirs)
    # The letters of the one are those of nobody else.
    assert "".join(letter for letter in merged if letter in "xy") == written
    assert "".join(letter for letter in merged if letter not in "xy") == theirs
