"""State vectors: golden bytes, round trips, and no count that is believed."""

from __future__ import annotations

import tracemalloc

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.lib0 import MAX_SAFE_INTEGER, encode_var_uint
from collab.update.slices import at_once
from collab.update.state_vector import (
    decode_in_slices,
    decode_pairs,
    decode_state_vector,
    encode_in_slices,
    encode_state_vector,
    list_pairs,
    split_pairs,
)
from tests.support.build import lines, reader_of, session
from tests.support.needs import size

NUMBERS = st.integers(0, MAX_SAFE_INTEGER) | st.sampled_from((0, 127, 128, 2**14 - 1, 2**14, 2**49 - 1, 2**49))
VECTORS = st.dictionaries(NUMBERS, NUMBERS, max_size=8)


def test_clients_descend_as_yjs_writes_them() -> None:
    assert encode_state_vector({5: 1, 300: 128, 6: 0}).hex() == "03" + "ac028001" + "0600" + "0501"
    assert encode_state_vector({}) == b"\0"


@given(VECTORS)
def test_round_trip(vector: dict[int, int]) -> None:
    encoded = encode_state_vector(vector)
    assert decode_state_vector(encoded) == vector
    assert list_pairs(encoded) == [
        encode_var_uint(client) + encode_var_uint(vector[client]) for client in sorted(vector, reverse=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_pycrdt_writes(seed: int) -> None:
    """In whatever order of clients."""
    log = session(seed)
    vector = decode_state_vector(reader_of(*log).doc.get_state())
    assert len(vector) > 1
    # And it reads ours: past this vector there is no struct.
    full = reader_of(*log).doc
    assert full.get_update(encode_state_vector(vector))[0] == 0
    assert decode_state_vector(pycrdt.get_state(full.get_update())) == vector


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("", id="nothing"),
        pytest.param("01", id="a count alone"),
        pytest.param("0105", id="a client without clock"),
        pytest.param("000501", id="a pair more than declared"),
        pytest.param("0105010601", id="a pair more than one"),
        pytest.param("020501", id="a pair less than declared"),
        pytest.param("01050100", id="a byte behind"),
        pytest.param("0205010501", id="a client twice"),
        pytest.param("0205010502", id="a client twice with other clocks"),
        pytest.param("01850001", id="a client in more bytes than it needs"),
        pytest.param("01058100", id="a clock in more bytes than it needs"),
        pytest.param("0105ffffffffffffff10", id="a clock past 2^53"),
        pytest.param("01ffffffffffffffff0101", id="a client past 2^53"),
        pytest.param("8100" + "0501", id="a count in more bytes than it needs"),
        pytest.param("010580", id="a clock that does not end"),
        pytest.param("02" + "05ff" + "0601", id="a number that runs into the next pair"),
    ],
)
def test_other_bytes_are_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        decode_state_vector(bytes.fromhex(encoded))
    with pytest.raises(DecodeError):
        pairs = [client + clock for block in split_pairs(bytes.fromhex(encoded)) for client, clock in block]
        decode_pairs(pairs)  # finds a client that is there twice


@given(VECTORS.filter(bool), st.data())
def test_no_truncation_and_no_addition_passes(vector: dict[int, int], draw: st.DataObject) -> None:
    encoded = encode_state_vector(vector)
    with pytest.raises(DecodeError):
        decode_state_vector(encoded[: draw.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(DecodeError):
        decode_state_vector(encoded + draw.draw(st.binary(min_size=1, max_size=4)))


@settings(max_examples=size(300, small=50))
@given(st.binary(max_size=20))
def test_noise_raises_nothing_but_decode_errors(data: bytes) -> None:
    try:
        vector = decode_state_vector(data)
    except DecodeError:
        return
    # What passes says exactly one thing in exactly one spelling, up to the order of clients.
    assert len(encode_state_vector(vector)) == len(data)


@pytest.mark.parametrize("count", [2**24, 2**26, 2**29, 2**53 - 1])
@pytest.mark.parametrize("rest", [b"", b"\0", b"\5\1", b"\xff" * 1_000_000])
def test_a_count_allocates_nothing(count: int, rest: bytes) -> None:
    """C8 in docs/decisions/0002: 4 bytes took a gigabyte in yrs."""
    data = encode_var_uint(count) + rest
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode_state_vector(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_endless_numbers_are_not_read_twice() -> None:
    """C6: quadratic reading of this would not end."""
    many = size(5_000_000, small=1_000_000)
    for data in (b"\xff" * many + b"\1", b"\1" + b"\xff" * many + b"\1", b"\1\5" + b"\x80" * many):
        with pytest.raises(DecodeError):
            decode_state_vector(data)


def test_in_blocks_the_pairs_are_the_same() -> None:
    encoded = encode_state_vector({client: client % 300 for client in range(1_200)})
    blocks = list(split_pairs(encoded))
    assert [len(block) for block in blocks] == [500, 500, 200]
    assert [client + clock for block in blocks for client, clock in block] == list_pairs(encoded)
    assert list(split_pairs(b"\0")) == []


def test_50_000_clients_are_split_without_a_loop() -> None:
    encoded = encode_state_vector({client: client & 127 for client in range(50_000)})
    assert lines(lambda: list_pairs(encoded)) < 100
    assert len(list_pairs(encoded)) == 50_000


@given(VECTORS)
def test_in_slices_it_is_the_same(vector: dict[int, int]) -> None:
    encoded = encode_state_vector(vector)
    assert at_once(encode_in_slices(vector)) == encoded
    assert at_once(decode_in_slices(encoded)) == vector


def test_many_clients_are_decoded_and_encoded_in_slices_and_none_may_be_there_twice() -> None:
    vector = {client * 7_919 % 100_003: client for client in range(1, 5_000)}
    encoded = encode_state_vector(vector)
    assert at_once(encode_in_slices(vector)) == encoded and at_once(decode_in_slices(encoded)) == vector
    assert len(list(decode_in_slices(encoded))) >= 10 and len(list(encode_in_slices(vector))) >= 9
    count, pairs = encode_var_uint(len(vector) + 1), encoded[len(encode_var_uint(len(vector))) :]
    for again in (pairs[:2], encode_var_uint(max(vector)) + b"\x7f"):
        with pytest.raises(DecodeError):
            at_once(decode_in_slices(count + pairs + again))
    with pytest.raises(DecodeError, match="as many clients"):
        at_once(decode_in_slices(encoded[:-1]))
