"""State vectors: for each client, the next clock that is lacking.

Strategy: a document that many people have opened has tens of thousands of client ids, and each
joiner sends a vector of them; one regular expression splits it into its numbers at C speed, and what
two vectors have in common is compared as bytes, never decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint

StateVector = dict[int, int]

# A varUint as `lib0.read_var_uint` takes it: at most 2^53-1, in no more bytes than needed.
_NUMBER: Final = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,6}[\x01-\x7f]|[\x80-\xff]{7}[\x01-\x0f])"
_PAIR: Final = re.compile(_NUMBER + _NUMBER, re.DOTALL)


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
