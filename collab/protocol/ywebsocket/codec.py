"""The y-websocket protocol: one document on one socket, one message in one binary frame.

Strategy: a frame is ``varuint(type)`` and a body; the bodies are those of y-protocols. Nothing is
kept between frames, so everything here is a function or a constant. Both directions stand here, so that
the server, clients and the load generator use the same code. The traps that the published clients set are
written at the constant or function that avoids them.

    0 Sync               sync message
    1 Awareness          varbytes(awareness update)
    2 Auth               to the client    00 varstring(reason)    permission denied
    3 QueryAwareness     empty
    102 LocalVersion     varbytes(varuint(version)), of Y-Sweet's client, and back to it
"""

from __future__ import annotations

from typing import assert_never

from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessNotYet,
    AccessUnavailable,
    DamagedDocument,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    DocumentReloaded,
    DocumentTooLarge,
    InvalidDocumentName,
    Kicked,
    LimitExceeded,
    MessageTooLarge,
    Overloaded,
    PeerTooSlow,
    ProtocolError,
    ServerStopping,
    StoreRefused,
    StoreUnavailable,
    Unauthenticated,
)
from collab.protocol.awareness import EMPTY_AWARENESS_UPDATE, AwarenessUpdate, QueryAwareness, read_awareness
from collab.protocol.lib0 import (
    encode_var_string,
    encode_var_uint,
    read_var_string,
    read_var_uint,
)
from collab.protocol.messages import (
    CloseCode,
    LocalVersion,
    Message,
    PermissionDenied,
    Stateless,
    SyncStatus,
    close_reason,
)
from collab.protocol.sync import (
    STEP2,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode_sync,
    describe_sync,
    encode_sync,
    encode_sync_head,
    is_update,
)

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = 0, 1, 2, 3
LOCAL_VERSION = 102

_DENIED = 0

# y-websocket 3.1 takes 4400 to 4499 as "never again" and everything else as "try again";
# 3.0 and 4.0 ignore the code and always come back. So a code of the 44xx range is only for
# what will not change by waiting (docs/decisions/0008).
CLOSE_TEXT = CloseCode(1003, "binary frames only")

# The first class of an error's ancestry that stands here says how its client is told.
CLOSE_CODES: dict[type[BaseException], int] = {
    DecodeError: 1007,
    ProtocolError: 1008,
    LimitExceeded: 1008,
    DocumentTooLarge: 4413,
    MessageTooLarge: 4413,
    DocumentBusy: 1013,
    Overloaded: 1013,
    Unauthenticated: 4401,
    AccessDenied: 4403,
    AccessExpired: 4501,
    AccessNotYet: 1013,
    DocumentReloaded: 4502,
    Kicked: 4503,
    AccessUnavailable: 1013,
    PeerTooSlow: 4508,
    ServerStopping: 1012,
    InvalidDocumentName: 4400,
    DocumentNotFound: 4404,
    DocumentDeleted: 4404,
    DamagedDocument: 1013,
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
    if frame[:1] == b"\x00":  # Sync; no other number begins like this
        return decode_sync(frame, 1)
    if not frame:
        raise DecodeError("empty frame")
    kind, pos = read_var_uint(frame, 0)
    if kind == AWARENESS:
        return read_awareness(frame, pos)
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    if kind == LOCAL_VERSION:
        return _read_local_version(frame, pos)
    return None


def _read_local_version(frame: bytes, pos: int) -> LocalVersion:
    size, pos = read_var_uint(frame, pos)
    version, end = read_var_uint(frame, pos)
    if not end == pos + size == len(frame):
        raise DecodeError("sync status: its version does not end where it should")
    return LocalVersion(version)


def is_edit(head: bytes) -> bool:
    """Tell whether a frame that begins with ``head`` brings an update."""
    return head[:1] == b"\x00" and is_update(head, 1)


def is_awareness(head: bytes) -> bool:
    """Tell whether a frame that begins with ``head`` is an awareness message."""
    return head[:1] == bytes((AWARENESS,))


def is_step2(head: bytes) -> bool:
    """Tell whether a frame that begins with ``head`` is a SyncStep2."""
    return head[:2] == bytes((SYNC, STEP2))


def encode(message: Message) -> bytes:
    """Encode one message as one frame.

    Never put two messages into one frame: clients 3.x ignore all but the first, and 4.0 answers
    the second with a truncated frame.

    Raises:
        ValueError: the protocol has no such message, and no room may want to send it.
    """
    # By how often they are sent.
    if isinstance(message, SyncUpdate):
        return b"\x00" + encode_sync(message)
    if isinstance(message, AwarenessUpdate):
        return b"\x01%b%b" % (encode_var_uint(len(message.payload)), message.payload)
    if isinstance(message, (SyncStep1, SyncStep2)):
        return b"\x00" + encode_sync(message)
    if isinstance(message, QueryAwareness):
        return b"\x03"
    if isinstance(message, PermissionDenied):
        return b"\x02\x00" + encode_var_string(message.reason)  # clients print it and go on
    if isinstance(message, LocalVersion):
        version = encode_var_uint(message.version)
        return b"%c%b%b" % (LOCAL_VERSION, encode_var_uint(len(version)), version)
    if isinstance(message, (Stateless, SyncStatus)):
        raise ValueError(f"y-websocket has no {type(message).__name__}")
    assert_never(message)


def encode_head(kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
    """Encode what stands in a frame of this kind before an update of ``size`` bytes, which ends it."""
    return b"\x00" + encode_sync_head(kind, size)


def describe(frame: bytes) -> str:
    """Name the message in a frame of either direction, for a log; nothing of it is checked."""
    kind = frame[0] if frame else -1
    if kind == SYNC:
        return describe_sync(frame, 1)
    names = {AWARENESS: "Awareness", AUTH: "Auth", QUERY_AWARENESS: "QueryAwareness", LOCAL_VERSION: "LocalVersion"}
    return names.get(kind, f"unknown type {kind}")


# The other side: what a client gets. It sends by ``encode``.


def decode_from_server(frame: bytes) -> Message | None:
    """Decode one frame from a server; ``None`` for a type that a client need not know.

    Raises:
        DecodeError: as ``decode``; also an Auth message that is no refusal, or whose reason is not UTF-8.
    """
    if frame[:1] != bytes((AUTH,)):
        return decode(frame)
    kind, pos = read_var_uint(frame, 1)
    if kind != _DENIED:
        raise DecodeError(f"Auth message of kind {kind} from a server")
    reason, pos = read_var_string(frame, pos)
    if pos != len(frame):
        raise DecodeError(f"Auth message: {len(frame) - pos} bytes behind its end")
    return PermissionDenied(reason)
