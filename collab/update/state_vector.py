"""State vectors: for each client, the next clock that is lacking.

Strategy: a document that many people have opened has tens of thousands of client ids, and each
joiner sends a vector of them; one regular expression splits it into its numbers at C speed, and what
two vectors have in common is compared as bytes, never decoded.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.region import descending

StateVector = dict[int, int]

# A varUint as `lib0.read_var_uint` takes it: at most 2^53-1, in no more bytes than needed.
_NUMBER: Final = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,6}[\x01-\x7f]|[\x80-\xff]{7}[\x01-\x0f])"
_PAIR: Final = re.compile(_NUMBER + _NUMBER, re.DOTALL)
_SPLIT: Final = re.compile(b"(%b)(%b)" % (_NUMBER, _NUMBER), re.DOTALL)
_BLOCK: Final = re.compile(b"(?:%b%b){1,500}" % (_NUMBER, _NUMBER), re.DOTALL)

# Clients that are encoded between two yields.
_SLICE: Final = 500


def list_pairs(data: bytes) -> list[bytes]:
    """Split a v1 state vector into its encoded pairs of client and clock.

    Raises DecodeError when the bytes are not exactly the pairs that their count declares, or a pair is there
    twice. A client with two clocks is left to the caller: `decode_pairs` finds it.
    """
    count, pos = read_var_uint(data, 0)
    if count * 2 > len(data) - pos:
        raise DecodeError("the state vector declares more clients than it has bytes for")
    pairs: list[bytes] = _PAIR.findall(data, pos)
    if len(pairs) != count or len(set(pairs)) != count:
        raise DecodeError("the state vector does not hold as many clients as it declares")
    if sum(map(len, pairs)) != len(data) - pos:
        raise DecodeError("the state vector holds more than its pairs")
    return pairs


def split_pairs(data: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """Split a v1 state vector into its encoded clients and clocks, up to 500 of them at a time.

    Raises DecodeError, at the latest behind the last of them, when the bytes are not exactly the pairs that their count
    declares. A client that is there twice is left to the caller.
    """
    left, pos = read_var_uint(data, 0)
    if left * 2 > len(data) - pos:
        raise DecodeError("the state vector declares more clients than it has bytes for")
    while pos < len(data):
        block = _BLOCK.match(data, pos)
        if block is None:
            raise DecodeError("the state vector does not hold as many clients as it declares")
        pairs: list[tuple[bytes, bytes]] = _SPLIT.findall(block.group())
        left -= len(pairs)
        if left < 0:
            break
        yield pairs
        pos = block.end()
    if left:
        raise DecodeError("the state vector does not hold as many clients as it declares")


def decode_pairs(pairs: Iterable[bytes]) -> StateVector:
    """Decode encoded pairs of client and clock.

    Raises DecodeError when a client is named twice.
    """
    vector: StateVector = {}
    for pair in pairs:
        client, pos = read_var_uint(pair, 0)
        if client in vector:
            raise DecodeError(f"the state vector names client {client} twice")
        vector[client], _ = read_var_uint(pair, pos)
    return vector


def decode_state_vector(data: bytes) -> StateVector:
    """Decode a v1 state vector (yjs ``decodeStateVector``).

    Raises DecodeError as `list_pairs` and `decode_pairs` do.
    """
    return decode_pairs(list_pairs(data))


def encode_state_vector(vector: Mapping[int, int]) -> bytes:
    """Encode a state vector, clients descending as yjs writes them."""
    parts = [encode_var_uint(len(vector))]
    for client in sorted(vector, reverse=True):
        parts.append(encode_var_uint(client))
        parts.append(encode_var_uint(vector[client]))
    return b"".join(parts)


def decode_in_slices(data: bytes) -> Generator[None, None, StateVector]:
    """Decode a v1 state vector in a generator that yields about every millisecond.

    Raises DecodeError as `split_pairs`, and when a client is named twice.
    """
    vector: StateVector = {}
    named = 0
    for pairs in split_pairs(data):
        for client, clock in pairs:
            vector[read_var_uint(client, 0)[0]] = read_var_uint(clock, 0)[0]
        named += len(pairs)
        if len(vector) < named:
            raise DecodeError("the state vector names a client twice")
        yield
    return vector


def encode_in_slices(vector: Mapping[int, int]) -> Generator[None, None, bytes]:
    """Encode a state vector, clients descending, in a generator that yields about every millisecond."""
    parts = [encode_var_uint(len(vector))]
    order = yield from descending(vector)
    for number, client in enumerate(order, 1):
        parts += (encode_var_uint(client), encode_var_uint(vector[client]))
        if number % _SLICE == 0:
            yield
    return b"".join(parts)
