"""The lib0 primitives: golden bytes, round trips, and no truncation that passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.lib0 import (
    MAX_SAFE_INTEGER,
    encode_var_bytes,
    encode_var_string,
    encode_var_uint,
    read_var_bytes,
    read_var_string,
    read_var_uint,
)

NUMBERS = st.integers(0, MAX_SAFE_INTEGER)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16384, "808001"), (2**32, "8080808010"), (2**53 - 1, "ffffffffffffff0f")],
)
def test_numbers_are_written_as_lib0_writes_them(value: int, encoded: str) -> None:
    assert encode_var_uint(value).hex() == encoded
    assert read_var_uint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize(
    "encoded", ["", "80", "ffffff", "8000", "ff00", "ffffffffffffff10", "ffffffffffffffff01", "ffffffffffffffff"]
)
def test_numbers_that_no_encoder_writes_are_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        read_var_uint(bytes.fromhex(encoded), 0)


def test_an_endless_number_is_refused_after_eight_bytes() -> None:
    with pytest.raises(DecodeError, match="above"):
        read_var_uint(b"\xff" * 10_000_000 + b"\x01", 0)


@pytest.mark.parametrize("value", [-1, 2**53])
def test_a_number_of_our_own_out_of_range_is_a_value_error(value: int) -> None:
    with pytest.raises(ValueError, match="not a varUint"):
        encode_var_uint(value)


@given(NUMBERS, st.binary(max_size=3))
def test_numbers_round_trip_before_whatever_follows(value: int, rest: bytes) -> None:
    encoded = encode_var_uint(value)
    assert read_var_uint(rest + encoded + rest, len(rest)) == (value, len(rest) + len(encoded))


@given(st.binary(max_size=300))
def test_bytes_round_trip(value: bytes) -> None:
    encoded = encode_var_bytes(value)
    assert read_var_bytes(encoded, 0) == (value, len(encoded))


@given(st.text(max_size=200))
def test_strings_round_trip(value: str) -> None:
    encoded = encode_var_string(value)
    assert read_var_string(encoded, 0) == (value, len(encoded))


def test_a_string_counts_utf8_bytes() -> None:
    assert encode_var_string("a😀").hex() == "0561f09f9880"


def test_a_lone_surrogate_is_written_as_the_replacement_character() -> None:
    assert encode_var_string("a\ud83d") == b"\x04a\xef\xbf\xbd"
    assert encode_var_string("\ude00") == b"\x03\xef\xbf\xbd"


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\xbd", b"\xf0\x9f\x98"])
def test_a_string_that_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="UTF-8"):
        read_var_string(encode_var_bytes(raw), 0)


@pytest.mark.parametrize("read", [read_var_bytes, read_var_string])
@given(value=st.text(min_size=1, max_size=200))
def test_every_truncation_is_refused(read: Callable[[bytes, int], Any], value: str) -> None:
    encoded = encode_var_string(value)
    for length in range(len(encoded)):
        with pytest.raises(DecodeError):
            read(encoded[:length], 0)


@given(st.binary(max_size=64), st.integers(0, 70))
def test_random_bytes_raise_nothing_but_decode_errors(data: bytes, pos: int) -> None:
    for read in (read_var_uint, read_var_bytes, read_var_string):
        try:
            _, after = read(data, pos)
        except DecodeError:
            continue
        assert pos < after <= len(data)
