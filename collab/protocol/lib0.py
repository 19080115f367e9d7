"""The lib0 primitives under every Yjs byte: varUint, varString, varUint8Array.

Strategy: plain functions on ``bytes`` and a position, each returning the value and the position
behind it; no reader object, for most callers read two or three fields and are done. Nothing is
believed: a number has at most eight bytes and is at most 2^53-1 (what a JavaScript number holds
exactly), a length never passes the data, so no input costs more than its own size (pycrdt's own
reader is quadratic on ``ff ff ff ...``). Numbers in more bytes than they need are refused too: no
encoder writes them, and one value with one encoding lets updates be compared as bytes.
"""

from __future__ import annotations

from collab.errors import DecodeError

# Number.MAX_SAFE_INTEGER: lib0's readVarUint throws "Integer out of Range" above it.
MAX_SAFE_INTEGER = (1 << 53) - 1
# 53 bits in groups of 7.
_MAX_VAR_UINT_BYTES = 8

_SMALL = tuple(bytes((n,)) for n in range(128))


def read_var_uint(data: bytes, pos: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number at ``pos``; return it and the position behind it.

    Raises DecodeError when the data ends inside the number, when it is above 2^53-1, or when it is
    written in more bytes than it needs (lib0 ``readVarUint``).
    """
    end = len(data)
    if pos < end:
        byte = data[pos]
        pos += 1
        if byte < 128:
            return byte, pos
        value = byte & 127
        shift = 7
        limit = pos + _MAX_VAR_UINT_BYTES - 1
        if limit > end:
            limit = end
        while pos < limit:
            byte = data[pos]
            pos += 1
            if byte < 128:
                if byte == 0:
                    raise DecodeError("a varUint is written in more bytes than it needs")
                value |= byte << shift
                if value > MAX_SAFE_INTEGER:
                    break
                return value, pos
            value |= (byte & 127) << shift
            shift += 7
        if pos < end:
            raise DecodeError("a varUint is above 2^53-1")
    raise DecodeError("the data ends inside a varUint")


def encode_var_uint(value: int) -> bytes:
    """Encode ``value`` (0 to 2^53-1) as unsigned LEB128.

    Raises ValueError outside of that range: it is the caller's number, not a peer's.
    """
    if 0 <= value < 128:
        return _SMALL[value]
    if not 0 <= value <= MAX_SAFE_INTEGER:
        raise ValueError(f"{value} is not a varUint")
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_var_bytes(data: bytes, pos: int) -> tuple[bytes, int]:
    """Read a varUint8Array (length, then that many bytes) at ``pos``; return it and the position behind it.

    Raises DecodeError when the length passes the data.
    """
    length, pos = read_var_uint(data, pos)
    stop = pos + length
    if stop > len(data):
        raise DecodeError("a length passes the end of the data")
    return data[pos:stop], stop


def encode_var_bytes(value: bytes) -> bytes:
    """Encode ``value`` as a varUint8Array."""
    return encode_var_uint(len(value)) + value


def read_var_string(data: bytes, pos: int) -> tuple[str, int]:
    """Read a varString (length in UTF-8 bytes, then those) at ``pos``; return it and the position behind it.

    Raises DecodeError when the length passes the data or the bytes are not strict UTF-8; encoded
    surrogates count as not, as in a JavaScript ``TextDecoder`` with ``fatal``.
    """
    raw, pos = read_var_bytes(data, pos)
    try:
        return raw.decode(), pos
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8") from None


def encode_var_string(value: str) -> bytes:
    """Encode ``value`` as a varString.

    A lone surrogate becomes U+FFFD, as JavaScript's ``TextEncoder`` writes it.
    """
    try:
        return encode_var_bytes(value.encode())
    except UnicodeEncodeError:
        return encode_var_bytes(value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode())
