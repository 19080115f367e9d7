"""The Hocuspocus protocol: many documents on one socket, one addressed message in one binary frame.

Strategy: a frame is ``varstring(address) varuint(type)`` and a body; the bodies of Sync and Awareness
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

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from collab.errors import (
    AccessExpired,
    AccessUnavailable,
    AddressError,
    DecodeError,
    InvalidDocumentName,
    LimitExceeded,
    Overloaded,
    PeerTooSlow,
    ServerStopping,
    StoreUnavailable,
)
from collab.protocol.awareness import EMPTY_AWARENESS_UPDATE, AwarenessUpdate, QueryAwareness
from collab.protocol.lib0 import encode_var_bytes, encode_var_string, encode_var_uint, read_var_bytes, read_var_uint
from collab.protocol.session import Access
from collab.protocol.sync import STEP1, STEP2, SyncUpdate, decode_sync, encode_sync
from collab.protocol.wire import (
    CloseCode,
    Message,
    PermissionDenied,
    Stateless,
    SyncStatus,
    check_document_name,
    close_reason,
)

(SYNC, AWARENESS, AUTH, QUERY_AWARENESS, SYNC_REPLY, STATELESS, BROADCAST_STATELESS, CLOSE, SYNC_STATUS) = range(9)
PING, PONG = b"\x09", b"\x0a"

_TOKEN, _DENIED, _AUTHENTICATED = 0, 1, 2

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
CLOSE_EXPIRED = CloseCode(4501, AccessExpired.public)
CLOSE_FAILED = CloseCode(4500, "internal error, come back")

# The first class of an error's ancestry that stands here says how the socket is closed so that the
# provider comes back. An error without a class here is one document's affair: PermissionDenied.
CLOSE_CODES: dict[type[BaseException], int] = {
    AddressError: 4401,
    Overloaded: 1013,
    PeerTooSlow: 4508,
    ServerStopping: 1012,
    StoreUnavailable: 1013,
    AccessUnavailable: 1013,
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


def close_code(error: BaseException) -> CloseCode | None:
    """Return the close code for an error that ends the whole socket; None if it ends one session only."""
    code = next((CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in CLOSE_CODES), None)
    return None if code is None else CloseCode(code, close_reason(error))


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
        InvalidDocumentName: empty, blank, longer than 512 bytes; also a session part without a name.
    """
    name = address.decode().partition("\0")[0]
    if not name.strip():
        raise InvalidDocumentName("blank document name")
    check_document_name(name)
    return name


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


def decode(frame: bytes, pos: int) -> ClientMessage | None:
    """Decode the message behind the address; None for a type that this server does not know or need.

    Raises:
        DecodeError: a truncated or overlong body, or a text that is not UTF-8.
    """
    kind, pos = read_var_uint(frame, pos)
    if kind in (SYNC, SYNC_REPLY):
        return decode_sync(frame, pos)
    if kind == AWARENESS:
        return decode_awareness(frame, pos)
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


def decode_awareness(frame: bytes, pos: int) -> AwarenessUpdate:
    """Decode the body of an Awareness message, which fills the frame from ``pos`` on.

    Raises:
        DecodeError: the declared length is not the length of what follows.
    """
    payload, pos = read_var_bytes(frame, pos)
    _check_end(frame, pos)
    return AwarenessUpdate(payload)


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
    """Encode what follows the prefix of a frame to a client.

    Never put two messages into one frame: providers read only the first.
    """
    if type(message) is SyncUpdate:  # the usual one
        return b"\x00" + encode_sync(message)
    if isinstance(message, AwarenessUpdate):
        return b"\x01%b%b" % (encode_var_uint(len(message.payload)), message.payload)
    if isinstance(message, SyncStatus):
        return b"\x08\x01" if message.saved else b"\x08\x00"
    if isinstance(message, Stateless):
        return b"\x05" + encode_var_bytes(message.payload)
    if isinstance(message, PermissionDenied):
        return b"\x02\x01" + encode_var_string(message.reason)
    if isinstance(message, QueryAwareness):
        return b"\x03"
    return b"\x00" + encode_sync(message)


def encode_authenticated(access: Access) -> bytes:
    """Encode "you are in" with the scope; sent again, it tells a live provider that its scope has changed."""
    return b"\x02\x02" + encode_var_string("readonly" if access is Access.READ else "read-write")


TOKEN_REQUEST = b"\x02\x00"
"""Ask a provider for a fresh token; known since 3.3, and ignored by those before."""

# A provider takes CLOSE from a server as the silent end of its document: it neither comes back nor
# says anything. So it is sent only to one that has asked for it, and for what only a broken client does.
CLOSED_BY_CLIENT = bytes((CLOSE,)) + encode_var_string("provider_initiated")
CLOSED_FOR_BROADCAST = bytes((CLOSE,)) + encode_var_string("Reset Connection")

# Behind any address of the socket: every version accepts it in silence, and it feeds the watchdog
# (30 s without a message) that WebSocket pings do not.
KEEPALIVE = b"\x01" + encode_var_bytes(EMPTY_AWARENESS_UPDATE)


class WaitingFrames:
    """The frames of one socket that wait until their address may be served.

    What a provider sends before it has been let in is kept in order for each address, within bounds
    for the whole socket (by default those of Hocuspocus itself).

    Args:
        max_bytes: how much may wait.

    Attributes:
        frames, nbytes: how much waits in all.
    """

    __slots__ = ("_max_bytes", "_queues", "frames", "nbytes")

    MAX_BYTES = 5 * 1024 * 1024
    MAX_FRAMES = 1_000
    MAX_ADDRESSES = 100

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[bytes, deque[bytes]] = {}
        self.frames = 0
        self.nbytes = 0

    @property
    def full(self) -> bool:
        """Whether more waits than a socket may have waiting."""
        return self.nbytes > self._max_bytes or self.frames > self.MAX_FRAMES

    def put(self, address: bytes, frame: bytes) -> None:
        """Let a frame wait behind the others of its address."""
        queue = self._queues.get(address)
        if queue is None:
            queue = self._queues[address] = deque()
        queue.append(frame)
        self.frames += 1
        self.nbytes += len(frame)

    def take(self, address: bytes) -> bytes | None:
        """Remove and return the first frame of an address; None if none waits."""
        queue = self._queues.get(address)
        if queue is None:
            return None
        frame = queue.popleft()
        if not queue:
            del self._queues[address]
        self.frames -= 1
        self.nbytes -= len(frame)
        return frame

    def of(self, address: bytes) -> Iterable[bytes]:
        """Give what waits for an address, in order."""
        return self._queues.get(address, ())

    def take_all(self, address: bytes) -> list[bytes]:
        """Remove and return all frames of an address, in order."""
        frames = list(self._queues.pop(address, ()))
        self.frames -= len(frames)
        self.nbytes -= sum(map(len, frames))
        return frames
