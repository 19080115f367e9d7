"""What ``JSON.parse`` takes and what it does not, by both ways of checking."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.errors import UpdateError
from collab.update.json_text import MAX_DEPTH, check_json, check_short_json, is_short_json
from tests.support.build import lines
from tests.support.needs import size

# Each answer is that of JSON.parse in Node.
GOOD = [
    "null",
    "true",
    " false\t\n\r",
    "0",
    "-0",
    "-0.0",
    "12.5e-3",
    "1E+400",
    "9" * 5_000,
    '""',
    '"ü😀"',
    '"\\ud83d"',
    '"\\u00fF\\/\\b"',
    '"\u2028\x7f"',
    "[]",
    "[ ]",
    "{}",
    "{ }",
    '{"a":1}',
    '{"a":1,"a":2}',
    '{"__proto__":[1, {}]}',
    '[[],[[]],{"":{}}]',
    '["[[[{{{"]',
]
BAD = [
    "",
    " ",
    "undefined",
    "NaN",
    "Infinity",
    "-Infinity",
    "[NaN]",
    "-",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "1e",
    "0x1",
    "1_0",
    "nul",
    "True",
    "nulll",
    "true false",
    '"',
    '"a',
    "'a'",
    '"\\x41"',
    '"\\u12g4"',
    '"\\u123"',
    '"\\',
    '"\n"',
    '"\t"',
    '"\0"',
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1]]",
    "[}",
    "{",
    "}",
    "{]",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{,"a":1}',
    "{a:1}",
    "{1:2}",
    '{"a" 1}',
    '{"a":1 "b":2}',
    '{"a":1:2}',
    "[1:2]",
    "1,2",
    ":",
    ",",
    "\ufeff1",
    "1\xa0",
    "\v1",
    "١",
    "[1]x",
    '{"a":1}{',
    "[01]",
    '["a""b"]',
    "[[]",
    "/**/1",
    "[1\u20282]",
]


def short(text: str) -> bool:
    assert is_short_json(text)
    try:
        check_short_json(text)
    except UpdateError:
        return False
    return True


def sliced(text: str) -> bool:
    try:
        for _ in check_json(text):
            pass
    except UpdateError:
        return False
    return True


@pytest.mark.parametrize("text", GOOD, ids=lambda text: ascii(text)[:30])
def test_json_is_taken(text: str) -> None:
    assert sliced(text)
    assert sliced(" " * 5_000 + text + "\n" * 5_000)
    if len(text) < 4_000:
        assert short(text)


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_what_is_no_json_is_refused(text: str) -> None:
    assert not short(text)
    assert not sliced(text)
    assert not sliced(f"[{text}]") or text in ("", " ", "1,2")


TOKENS = st.sampled_from(
    ("[", "]", "{", "}", ":", ",", '"a"', '"', "1", "-", "0", ".5", "e3", "true", "null", "NaN", " ", "\n", "\\u00e9")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=size(1000, small=100))
@given(st.lists(TOKENS, max_size=9).map("".join))
def test_both_ways_agree(text: str) -> None:
    assert sliced(text) == short(text)


@settings(deadline=None, max_examples=size(80, small=10))
@given(VALUES, st.sampled_from((None, 1)), st.booleans())
def test_all_that_an_encoder_writes_is_taken_and_no_piece_of_it(value: object, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert sliced(text)
    if isinstance(value, (list, dict, str)):
        assert not any(sliced(text[:stop]) for stop in range(len(text)))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_exactly(opening: str, closing: str) -> None:
    deepest = opening * MAX_DEPTH + "0" + closing * MAX_DEPTH
    assert sliced(deepest) and short(deepest)
    deeper = opening + deepest + closing
    assert not is_short_json(deeper)
    assert not sliced(deeper)


def test_a_million_levels_need_no_stack() -> None:
    assert not sliced("[" * 1_000_000)
    assert not sliced('{"a":' * 1_000_000)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("[" + "[]," * 50_000 + "0]", True),
        ("[" * 3 + "1," * 50_000, False),
        ('"' + "a\\n" * 1_000_000 + '"', True),
        ('"' + "\\" * 2_000_001 + '"', False),
        ("9" * 1_000_000, True),
        (" " * 2_000_000, False),
        ("1" + "\n" * 2_000_000 + "1", False),
    ],
    ids=["lists", "unclosed", "string", "unclosed string", "number", "blanks", "blanks behind"],
)
def test_large_texts_cost_their_length(text: str, good: bool) -> None:
    """Backtracking or reading the number would not come to an end here."""
    assert sliced(text) is good


def test_slices_are_short() -> None:
    checking = check_json("[" + "[]," * 20_000 + "0]")
    counts: list[int] = []
    while not counts or counts[-1] > 3:
        counts.append(lines(lambda: next(checking, None)))
    assert len(counts) > 30
    assert max(counts) < 40_000


def test_a_long_string_of_escapes_is_checked_in_slices() -> None:
    """One escape costs as much as 25 characters, and a string may be nothing else."""
    assert len(list(check_json('"' + "\\n" * 200_000 + '"'))) >= 19
    with pytest.raises(UpdateError):
        list(check_json('"' + "\\n" * 200_000 + '\\x"'))


def test_only_short_flat_texts_go_to_the_recursive_parser() -> None:
    assert is_short_json("[" * MAX_DEPTH)
    assert not is_short_json("[" * 40 + "{" * 40)
    assert not is_short_json(" " * 5_000)
