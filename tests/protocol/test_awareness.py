from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.awareness import (
    EMPTY_AWARENESS_UPDATE,
    Entry,
    check_state,
    decode_awareness,
    encode_awareness,
    is_newer,
)

numbers = st.integers(0, 2**53 - 1)
entries = st.lists(st.builds(Entry, numbers, numbers, st.binary(max_size=40)), max_size=5)


def test_the_bytes_are_those_of_y_protocols() -> None:
    assert encode_awareness([Entry(1, 2, b"{}")]) == b"\x01\x01\x02\x02{}"
    assert encode_awareness([]) == EMPTY_AWARENESS_UPDATE


@given(entries)
def test_round_trip(update: list[Entry]) -> None:
    assert decode_awareness(encode_awareness(update)) == update


@given(entries)
def test_every_truncation_and_every_extra_byte_is_refused(update: list[Entry]) -> None:
    data = encode_awareness(update)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode_awareness(data[:end])
    with pytest.raises(DecodeError):
        decode_awareness(data + b"\x00")


def test_a_count_beyond_the_bytes_is_refused_before_anything_is_built() -> None:
    with pytest.raises(DecodeError, match="declared"):
        decode_awareness(b"\xff\xff\xff\xff\x0f")


@pytest.mark.parametrize(
    ("known_clock", "state_known", "entry", "newer"),
    [
        (0, False, Entry(1, 0, b"{}"), False),  # the first {} at clock 0 is ignored by all
        (0, False, Entry(1, 1, b"{}"), True),
        (3, True, Entry(1, 3, b"{}"), False),
        (3, True, Entry(1, 2, b"{}"), False),
        (3, True, Entry(1, 3, b"null"), True),  # disconnect() says null at an equal clock
        (3, False, Entry(1, 3, b"null"), False),
        (3, True, Entry(1, 2, b"null"), False),
        (3, True, Entry(1, 4, b"null"), True),
    ],
)
def test_clock_rules(known_clock: int, state_known: bool, entry: Entry, newer: bool) -> None:
    assert is_newer(known_clock, state_known, entry) is newer


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_json_is_taken(value: object) -> None:
    check_state(json.dumps(value).encode())
    check_state(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nul", b"NaN", b"[Infinity]", b"-Infinity", b"{'a':1}", b'"\xff"', b'"\n"', b"1 2", b"[" * 60_000],
)
def test_what_json_parse_throws_on_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        check_state(text)


def test_a_number_of_any_length_is_no_work() -> None:
    check_state(b"1" * 60_000)
    check_state(b"1" + b"0" * 30_000 + b".5e99999")
