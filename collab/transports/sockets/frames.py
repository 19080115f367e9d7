"""Server-to-client WebSocket frames as bytes (RFC 6455, section 5.2).

Strategy: a broadcast is framed once, so the framing cannot be left to the library, which frames for
each socket. A frame is never sliced into several writes: a ping of the library could land inside it.
"""

from __future__ import annotations

import struct

from collab.protocol.messages import CloseCode

_FIN_BINARY = 0x82
_COMPRESSED = 0x40  # RSV1 (RFC 7692, section 6)
_FIN_CLOSE = 0x88
_FIN_PING = 0x89
_FIN_PONG = 0x8A


def binary_frame(payload: bytes) -> bytes:
    """Return ``payload`` as one unmasked binary frame."""
    size = len(payload)
    if size < 126:  # nearly all, and so without a call
        return b"%c%c%b" % (_FIN_BINARY, size, payload)
    return binary_head(size) + payload


def binary_head(size: int, *, compressed: bool = False) -> bytes:
    """Return what stands before ``size`` bytes of payload in one unmasked binary frame."""
    first = _FIN_BINARY | _COMPRESSED if compressed else _FIN_BINARY
    if size < 126:
        return bytes((first, size))
    return struct.pack("!BBH", first, 126, size) if size < 65536 else struct.pack("!BBQ", first, 127, size)


def payload_of(frame: bytes) -> memoryview:
    """Return the payload of an unmasked frame."""
    return memoryview(frame)[{126: 4, 127: 10}.get(frame[1], 2) :]


def is_one_binary_frame(data: bytes) -> bool:
    """Tell whether ``data`` is one binary frame that is not compressed, and no more; it begins with a whole frame."""
    size = data[1]
    if size > 125:
        size = int.from_bytes(data[2:4] if size == 126 else data[2:10])
    return data[0] == _FIN_BINARY and len(payload_of(data)) == size


PING = bytes((_FIN_PING, 0))


def ping_frame(payload: bytes) -> bytes:
    """Return a ping whose pong brings ``payload`` back; a control frame carries at most 125 bytes."""
    return b"%c%c%b" % (_FIN_PING, len(payload), payload)


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping; a control frame carries at most 125 bytes."""
    return b"%c%c%b" % (_FIN_PONG, len(payload), payload)


def close_frame(code: CloseCode | None) -> bytes:
    """Return a close frame with its code and reason, or without any."""
    payload = b"" if code is None else code.code.to_bytes(2) + code.reason.encode()
    return b"%c%c%b" % (_FIN_CLOSE, len(payload), payload)
