"""The y-websocket protocol: one document on one socket, one message in one binary frame.

Strategy: a frame is ``varuint(type)`` and a body; the bodies are those of y-protocols. Nothing is
kept between frames, so everything here is a function or a constant. The traps that the published
clients set are written at the constant or function that avoids them.
"""

from __future__ import annotations

from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessUnavailable,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    DocumentTooLarge,
    InvalidDocumentName,
    LimitExceeded,
    Overloaded,
    PeerTooSlow,
    ProtocolError,
    ServerStopping,
    StoreRefused,
    StoreUnavailable,
    Unauthenticated,
)
from collab.protocol.awareness import EMPTY_AWARENESS_UPDATE, AwarenessUpdate, QueryAwareness
from collab.protocol.lib0 import encode_var_string, encode_var_uint, read_var_bytes, read_var_uint
from collab.protocol.sync import decode_sync, encode_sync
from collab.protocol.wire import CloseCode, Message, PermissionDenied, Stateless, SyncStatus, close_reason

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = 0, 1, 2, 3

# y-websocket 3.1 takes 4400 to 4499 as "never again" and everything else as "try again";
# 3.0 and 4.0 ignore the code and always come back. So a code of the 44xx range is only for
# what will not change by waiting.
CLOSE_TEXT = CloseCode(1003, "binary frames only")

# The first class of an error's ancestry that stands here says how its client is told.
CLOSE_CODES: dict[type[BaseException], int] = {
    DecodeError: 1007,
    ProtocolError: 1008,
    LimitExceeded: 1008,
    DocumentTooLarge: 4413,
    DocumentBusy: 1013,
    Overloaded: 1013,
    Unauthenticated: 4401,
    AccessDenied: 4403,
    AccessExpired: 4501,
    AccessUnavailable: 1013,
    PeerTooSlow: 4508,
    ServerStopping: 1012,
    InvalidDocumentName: 4400,
    DocumentNotFound: 4404,
    DocumentDeleted: 4404,
    StoreUnavailable: 1013,
    StoreRefused: 4413,
    BaseException: 4500,
}

# Three bytes that every version of the client accepts in silence.
KEEPALIVE = b"%c%b%b" % (AWARENESS, encode_var_uint(len(EMPTY_AWARENESS_UPDATE)), EMPTY_AWARENESS_UPDATE)


def close_code(error: BaseException) -> CloseCode:
    """Return the close code by which a client learns of ``error``, with its public text and nothing else of it."""
    code = next(CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in CLOSE_CODES)
    return CloseCode(code, close_reason(error))


def decode(frame: bytes) -> Message | None:
    """Decode one frame from a client; ``None`` for a type that this server does not know or need.

    Unknown types are ignored as the reference server does. The Auth type only ever goes to a
    client, so from one it means nothing.

    Raises:
        DecodeError: an empty frame, a truncated or overlong body.
    """
    if frame[:1] == b"\x00":
        return decode_sync(frame, 1)
    if not frame:
        raise DecodeError("empty frame")
    kind, pos = read_var_uint(frame, 0)
    if kind == AWARENESS:
        payload, pos = read_var_bytes(frame, pos)
        if pos != len(frame):
            raise DecodeError(f"awareness message: {len(frame) - pos} bytes behind its end")
        return AwarenessUpdate(payload)
    if kind == SYNC:
        return decode_sync(frame, pos)
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    return None


def encode(message: Message) -> bytes:
    """Encode one message as one frame.

    Never put two messages into one frame: clients 3.x ignore all but the first, and 4.0 answers
    the second with a truncated frame.
    """
    if isinstance(message, AwarenessUpdate):
        return b"\x01%b%b" % (encode_var_uint(len(message.payload)), message.payload)
    if isinstance(message, QueryAwareness):
        return b"\x03"
    if isinstance(message, PermissionDenied):
        return b"\x02\x00" + encode_var_string(message.reason)  # clients print it and go on
    if isinstance(message, Stateless | SyncStatus):
        raise ValueError(f"y-websocket has no {type(message).__name__}")
    return b"\x00" + encode_sync(message)
