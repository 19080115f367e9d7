"""Server-to-client WebSocket frames as bytes (RFC 6455, section 5.2).

Strategy: a broadcast is framed once, so the framing cannot be left to the library, which frames for
each socket. A frame is never sliced into several writes: a ping of the library could land inside it.
"""

from __future__ import annotations

import struct

from collab.protocol.wire import CloseCode

_FIN_BINARY = 0x82
_FIN_CLOSE = 0x88
_FIN_PING = 0x89
_FIN_PONG = 0x8A


def binary_frame(payload: bytes) -> bytes:
    """Return ``payload`` as one unmasked binary frame."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (_FIN_BINARY, size, payload)
    if size < 65536:
        return struct.pack("!BBH", _FIN_BINARY, 126, size) + payload
    return struct.pack("!BBQ", _FIN_BINARY, 127, size) + payload


PING = bytes((_FIN_PING, 0))


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping; a control frame carries at most 125 bytes."""
    return b"%c%c%b" % (_FIN_PONG, len(payload), payload)


def close_frame(code: CloseCode | None) -> bytes:
    """Return a close frame with its code and reason, or without any."""
    payload = b"" if code is None else code.code.to_bytes(2) + code.reason.encode()
    return b"%c%c%b" % (_FIN_CLOSE, len(payload), payload)
