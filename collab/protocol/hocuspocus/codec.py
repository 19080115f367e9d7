"""The Hocuspocus protocol: many documents on one socket, one addressed message in one binary frame.

Strategy: both directions stand here, so that the server, clients and the load generator use the same code.
A frame is ``varstring(address) varuint(type)`` and a body; the bodies of Sync and Awareness
are those of y-protocols. An address is a document's name or, from a provider with ``sessionAwareness``,
``name NUL session``; everything to a client goes under the address under which it came. Ping and Pong
are the exception: one byte, no address.

    0 Sync                 sync message
    1 Awareness            varbytes(awareness update)
    2 Auth                 to the server    00 varstring(token) [varstring(provider version)]
                           to the client    01 varstring(reason)     permission denied
                                            02 varstring(scope)      authenticated
                                            00                       send your token again
    3 QueryAwareness       empty
    4 SyncReply            as Sync; between servers, but taken from a client too
    5 Stateless            varstring(payload)
    6 BroadcastStateless   between servers only
    7 CLOSE                to the server    empty;   to the client    varstring(reason)
    8 SyncStatus           varuint(1) saved, varuint(0) refused

The traps that the published clients set are written at the constant or function that avoids them.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

from collab.errors import (
    AccessExpired,
    AccessNotYet,
    AccessUnavailable,
    AddressError,
    CollabError,
    DamagedDocument,
    DecodeError,
    DocumentBusy,
    DocumentReloaded,
    InternalError,
    Kicked,
    LimitExceeded,
    Overloaded,
    PeerTooSlow,
    ServerStopping,
    StoreUnavailable,
)
from collab.protocol.awareness import EMPTY_AWARENESS_UPDATE, AwarenessUpdate, QueryAwareness, read_awareness
from collab.protocol.lib0 import encode_var_bytes, encode_var_string, encode_var_uint, read_var_bytes, read_var_uint
from collab.protocol.messages import (
    CloseCode,
    LocalVersion,
    Message,
    PermissionDenied,
    Stateless,
    SyncStatus,
    close_reason,
)
from collab.protocol.names import decode_document_name
from collab.protocol.session import Access
from collab.protocol.sync import (
    STEP1,
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

(SYNC, AWARENESS, AUTH, QUERY_AWARENESS, SYNC_REPLY, STATELESS, BROADCAST_STATELESS, CLOSE, SYNC_STATUS) = range(9)
PING, PONG = b"\x09", b"\x0a"

_TOKEN, _DENIED, _AUTHENTICATED = 0, 1, 2
_READ_ONLY = "readonly"

# A name has at most 512 bytes and a session ID a dozen. Within this bound a client is told what is
# wrong with its address, under that address; past it nothing is sent back that it chose itself.
MAX_ADDRESS_BYTES = 1024
MAX_TOKEN_BYTES = 64 * 1024
_MAX_VERSION_BYTES = 64

# Providers 3 and 4 come back after every close, whatever its code; 2.15 stays away after 4401 and 1009
# and, unless it is quiet, after 4403. So these codes are 4401 only where coming back is no use, and what
# a client may not have is refused by PermissionDenied under its address, with the socket left open.
CLOSE_UNREADABLE = CloseCode(4401, "unreadable message: binary frames that begin with a document name")
CLOSE_UNAUTHENTICATED = CloseCode(4408, "nothing was authenticated in time")
CLOSE_RESET = CloseCode(4205, "too much was sent before authentication")
CLOSE_FAILED = CloseCode(4500, "internal error, come back")

# The first class of an error's ancestry that stands here says how the socket is closed so that the
# provider comes back: every error that is ``retryable`` has one, for providers never ask again after PermissionDenied.
# An error without a class here is one document's affair, and final: PermissionDenied.
CLOSE_CODES: dict[type[BaseException], int] = {
    AddressError: 4401,
    InternalError: 4500,
    Overloaded: 1013,
    PeerTooSlow: 4508,
    ServerStopping: 1012,
    StoreUnavailable: 1013,
    DamagedDocument: 1013,
    AccessUnavailable: 1013,
    AccessNotYet: 1013,
    DocumentReloaded: 4502,
    Kicked: 4503,
    AccessExpired: 4501,
    DocumentBusy: 1013,
}


class Token(NamedTuple):
    """Show who one is; ``version`` is the provider's, sent since 4.0."""

    token: str
    version: str | None


class Close(NamedTuple):
    """Leave one document; the socket stays."""


class BroadcastStateless(NamedTuple):
    """A message that only servers send each other; from a client it ends the session."""


ClientMessage = Message | Token | Close | BroadcastStateless


# Whatever passes by waiting: a refusal would be final.
_LATER = 1013


def close_code(error: BaseException) -> CloseCode | None:
    """Return the close code for an error that ends the whole socket; None if it ends one session only."""
    code = next((CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in CLOSE_CODES), None)
    if code is None and isinstance(error, CollabError) and error.retryable:
        code = _LATER
    return None if code is None else CloseCode(code, close_reason(error))


def socket_close_code(error: BaseException) -> CloseCode:
    """Return the close code for an error that is not about one session, whatever its class."""
    return close_code(error) or (CLOSE_RESET if isinstance(error, LimitExceeded) else CLOSE_FAILED)


def read_address(frame: bytes) -> tuple[bytes, int]:
    """Return the address of a frame as UTF-8 bytes, and the position of the type behind it.

    Raises:
        AddressError: no address, not UTF-8, or longer than 1,024 bytes; there is nothing to answer under.
    """
    try:
        length, pos = read_var_uint(frame, 0)
        end = pos + length
        if end > len(frame) or length > MAX_ADDRESS_BYTES:
            raise AddressError(f"address of {length} bytes in a frame of {len(frame)}")
        address = frame[pos:end]
        address.decode()
    except (DecodeError, UnicodeDecodeError) as error:
        raise AddressError(f"address: {error}") from None
    return address, end


def document_name(address: bytes) -> str:
    """Return the document name in an address: all of it, or what stands before its NUL.

    Raises:
        InvalidDocumentName: see ``check_document_name``; also a session part without a name.
    """
    return decode_document_name(address.partition(b"\0")[0])


def message_type(frame: bytes, pos: int) -> int:
    """Return the type that stands at ``pos``, behind the address.

    Raises:
        DecodeError: the number is malformed.
    """
    return read_var_uint(frame, pos)[0]


def is_step1(frame: bytes, pos: int) -> bool:
    """Tell whether the message behind the address is a SyncStep1.

    Providers 2 without a token never send Auth, and later ones leave it out when their token function
    fails: a SyncStep1 before any Auth counts as an empty token. Else Auth comes before it, though other
    messages may come before both, while a token is fetched.
    """
    return frame[pos : pos + 2] == bytes((SYNC, STEP1))


def is_step2(frame: bytes, pos: int) -> bool:
    """Tell whether the message behind the address is a SyncStep2."""
    return frame[pos : pos + 2] == bytes((SYNC, STEP2))


def is_awareness(head: bytes, pos: int) -> bool:
    """Tell whether the message behind the address is an awareness message."""
    return head[pos : pos + 1] == bytes((AWARENESS,))


def is_edit(head: bytes, pos: int) -> bool:
    """Tell whether the message behind the address brings an update."""
    return head[pos : pos + 1] in (b"\x00", b"\x04") and is_update(head, pos + 1)


def decode(frame: bytes, pos: int) -> ClientMessage | None:
    """Decode the message behind the address; None for a type that this server does not know or need.

    Raises:
        DecodeError: a truncated or overlong body, or a text that is not UTF-8.
    """
    kind, pos = read_var_uint(frame, pos)
    if kind in (SYNC, SYNC_REPLY):
        return decode_sync(frame, pos)
    if kind == AWARENESS:
        return read_awareness(frame, pos)
    if kind == AUTH:
        return _decode_token(frame, pos)
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    if kind == STATELESS:
        payload, pos = read_var_bytes(frame, pos)
        _check_end(frame, pos)
        _text(payload)
        return Stateless(payload)
    if kind == BROADCAST_STATELESS:
        return BroadcastStateless()
    if kind == CLOSE:
        return Close()
    return None


def _decode_token(frame: bytes, pos: int) -> Token:
    kind, pos = read_var_uint(frame, pos)
    if kind != _TOKEN:
        raise DecodeError(f"Auth message of kind {kind} from a client")
    token, pos = read_var_bytes(frame, pos)
    if len(token) > MAX_TOKEN_BYTES:
        raise LimitExceeded(f"token of {len(token)} bytes", public=f"a token has at most {MAX_TOKEN_BYTES} bytes")
    if pos == len(frame):
        return Token(_text(token), None)
    version, pos = read_var_bytes(frame, pos)
    _check_end(frame, pos)
    return Token(_text(token), version[:_MAX_VERSION_BYTES].decode(errors="ignore"))


def _check_end(frame: bytes, pos: int) -> None:
    if pos != len(frame):
        raise DecodeError(f"{len(frame) - pos} bytes behind the end of a message")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("a text that is not UTF-8") from None


def prefix(address: bytes) -> bytes:
    """Return what every frame under ``address`` begins with."""
    return encode_var_bytes(address)


def encode(message: Message) -> bytes:
    """Encode what follows the prefix of a frame, in either direction.

    Never put two messages into one frame: providers read only the first.
    """
    # By how often they are sent.
    if isinstance(message, SyncUpdate):
        return b"\x00" + encode_sync(message)
    if isinstance(message, AwarenessUpdate):
        return b"\x01%b%b" % (encode_var_uint(len(message.payload)), message.payload)
    if isinstance(message, SyncStatus):
        return b"\x08\x01" if message.saved else b"\x08\x00"
    if isinstance(message, (SyncStep1, SyncStep2)):
        return b"\x00" + encode_sync(message)
    if isinstance(message, QueryAwareness):
        return b"\x03"
    if isinstance(message, Stateless):
        return b"\x05" + encode_var_bytes(message.payload)
    if isinstance(message, PermissionDenied):
        return b"\x02\x01" + encode_var_string(message.reason)
    if isinstance(message, LocalVersion):
        raise ValueError("Hocuspocus has no LocalVersion")
    assert_never(message)


def encode_head(kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
    """Encode what stands in a frame of this kind before an update of ``size`` bytes, which ends it."""
    return b"\x00" + encode_sync_head(kind, size)


def encode_authenticated(access: Access) -> bytes:
    """Encode "you are in" with the scope; sent again, it tells a live provider that its scope has changed."""
    return b"\x02\x02" + encode_var_string(_READ_ONLY if access is Access.READ else "read-write")


TOKEN_REQUEST = b"\x02\x00"
"""Ask a provider for a fresh token; known since 3.3, and ignored by those before."""

# A provider takes CLOSE from a server as the silent end of its document: it neither comes back nor
# says anything. So it is sent only to one that has asked for it, and for what only a broken client does.
CLOSED_BY_CLIENT = bytes((CLOSE,)) + encode_var_string("provider_initiated")
CLOSED_FOR_BROADCAST = bytes((CLOSE,)) + encode_var_string("Reset Connection")

# Behind any address of the socket: every version accepts it in silence, and it feeds the watchdog
# (30 s without a message) that WebSocket pings do not.
KEEPALIVE = b"\x01" + encode_var_bytes(EMPTY_AWARENESS_UPDATE)


_TYPE_NAMES = {
    AWARENESS: "Awareness",
    AUTH: "Auth",
    QUERY_AWARENESS: "QueryAwareness",
    STATELESS: "Stateless",
    BROADCAST_STATELESS: "BroadcastStateless",
    CLOSE: "CLOSE",
    SYNC_STATUS: "SyncStatus",
}


def describe(frame: bytes, pos: int) -> str:
    """Name the message behind the address of a frame of either direction, for a log; nothing of it is checked."""
    kind = frame[pos] if pos < len(frame) else -1
    if kind in (SYNC, SYNC_REPLY):
        return describe_sync(frame, pos + 1)
    return _TYPE_NAMES.get(kind, f"unknown type {kind}")


# The other side: what a client sends, and what it gets.


class Authenticated(NamedTuple):
    """To a client: it is let in, and may do this (READ, or WRITE for all that writes)."""

    access: Access


class TokenRequest(NamedTuple):
    """To a client: send your token again."""


class Closed(NamedTuple):
    """To a client: its document was closed on this socket."""

    reason: str


ServerMessage = Message | Authenticated | TokenRequest | Closed


def encode_token(token: str, version: str | None = None) -> bytes:
    """Encode what a client shows, behind its address; providers since 4.0 say their ``version``."""
    return b"\x02\x00" + encode_var_string(token) + (b"" if version is None else encode_var_string(version))


CLOSE_REQUEST = bytes((CLOSE,))
"""Leave the document under this address."""


def decode_from_server(frame: bytes, pos: int) -> ServerMessage | None:
    """Decode what a server has sent, behind its address; None for a type that a client need not know.

    Raises:
        DecodeError: a truncated or overlong body, or a text that is not UTF-8.
    """
    kind = message_type(frame, pos)
    if kind == AUTH:
        return _decode_auth_answer(frame, pos + 1)
    if kind == CLOSE:
        return Closed(_decode_text(frame, pos + 1))
    if kind == SYNC_STATUS:
        saved, end = read_var_uint(frame, pos + 1)
        _check_end(frame, end)
        return SyncStatus(saved == 1)  # as providers read it
    message = decode(frame, pos)
    assert not isinstance(message, Token | Close)  # the types above
    return None if isinstance(message, BroadcastStateless) else message


def _decode_auth_answer(frame: bytes, pos: int) -> ServerMessage:
    kind, pos = read_var_uint(frame, pos)
    if kind == _TOKEN:
        _check_end(frame, pos)
        return TokenRequest()
    if kind == _DENIED:
        return PermissionDenied(_decode_text(frame, pos))
    if kind != _AUTHENTICATED:
        raise DecodeError(f"Auth message of kind {kind} from a server")
    return Authenticated(Access.READ if _decode_text(frame, pos) == _READ_ONLY else Access.WRITE)


def _decode_text(frame: bytes, pos: int) -> str:
    data, pos = read_var_bytes(frame, pos)
    _check_end(frame, pos)
    return _text(data)
