"""The client's side of one socket of the Hocuspocus protocol: frames in, events out.

Strategy: a channel is one document on one socket, and ends with it; what must outlive a socket (edits, tokens) belongs
to the one who runs this. An edit has a number. The server answers each SyncStep2 and Update by one SyncStatus, in the
order in which they came, so a channel keeps the numbers that are under way. No update may go out before the server has
asked for what it lacks: an update that comes earlier may be dropped, and would be acknowledged all the same once the
document is let in. The answer to that question holds all edits that were made before it.

A document that is opened again on the same socket gets another address, ``name NUL number``. What the server still
says under the old one (an acknowledgement, the answer to CLOSE) can then never count for the new session.

Nothing here waits or knows the time, and nothing is kept but numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from collab.errors import ProtocolError
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.hocuspocus import codec
from collab.protocol.hocuspocus.codec import Authenticated, Closed, TokenRequest
from collab.protocol.messages import PermissionDenied, Stateless, SyncStatus
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate

MAX_UNDER_WAY: Final = 256
"""Updates of one document that may wait for their SyncStatus. Further edits are joined meanwhile, so a store that is
away costs neither the server nor the client more than this many messages."""

# Names that are remembered on one socket. Past them each document gets an address with a number.
_MAX_NAMES: Final = 10_000


class Stage(Enum):
    """How far a channel has come."""

    OPENING = "opening"
    """The token was, or will be, shown; the server has not answered."""
    LET_IN = "let in"
    """Access was granted; the server has not asked yet for what it lacks."""
    LIVE = "live"
    """The server's SyncStep1 has come, so edits may be sent."""
    ENDED = "ended"
    """Refused, closed or left: nothing goes out, and nothing that comes counts."""


class Channel:
    """One document on one socket. The methods return frames, which are sent in the order in which they were made.

    Attributes:
        name: the document's.
        stage: how far it has come.
        access: what the server has granted; None before it has answered.
        vector: the state vector in the server's last SyncStep1 (v1 bytes); None before it has come.
    """

    __slots__ = ("_prefix", "_under_way", "access", "address", "name", "stage", "vector")

    def __init__(self, name: str, address: bytes) -> None:
        self.name = name
        self.address = address
        self.stage = Stage.OPENING
        self.access: Access | None = None
        self.vector: bytes | None = None
        self._prefix = codec.prefix(address)
        self._under_way: deque[int] = deque()

    @property
    def may_edit(self) -> bool:
        """Whether `edit` may be called now."""
        return self.stage is Stage.LIVE and self.access is not Access.READ and len(self._under_way) < MAX_UNDER_WAY

    def token(self, token: str) -> bytes:
        """Show a token, at first or again."""
        return self._prefix + codec.encode_token(token)

    def ask(self, state_vector: bytes) -> bytes:
        """Ask for everything that a state vector (v1) lacks."""
        return self._prefix + codec.encode(SyncStep1(state_vector))

    def answer(self, update: bytes, number: int) -> bytes:
        """Answer the server's SyncStep1 by an update (v1) that holds all edits up to ``number``."""
        self._under_way.append(number)
        return self._prefix + codec.encode(SyncStep2(update))

    def edit(self, update: bytes, number: int) -> bytes:
        """Send an update (v1); with it the server has all edits up to ``number``. Only while `may_edit`."""
        assert self.may_edit
        self._under_way.append(number)
        return self._prefix + codec.encode(SyncUpdate(update))

    def presence(self, update: bytes) -> bytes:
        """Send an awareness update (``collab.protocol.awareness``)."""
        return self._prefix + codec.encode(AwarenessUpdate(update))

    def stateless(self, text: str) -> bytes:
        """Send a text of the application to the other clients of the document."""
        return self._prefix + codec.encode(Stateless(text.encode()))

    def leave(self) -> bytes:
        """Leave the document; the socket stays."""
        self.stage = Stage.ENDED
        return self._prefix + codec.CLOSE_REQUEST

    def settle(self) -> int:
        """Return the number up to which the edits have an answer now; one SyncStatus has come.

        Raises:
            ProtocolError: nothing was under way.
        """
        if not self._under_way:
            raise ProtocolError("a SyncStatus that answers nothing")
        return self._under_way.popleft()


class LetIn(NamedTuple):
    """The server grants access; sent again it is another one now."""

    channel: Channel
    access: Access


class TokenWanted(NamedTuple):
    """Call `Channel.token` with a fresh token: what was granted runs out soon."""

    channel: Channel


class Asked(NamedTuple):
    """Call `Channel.answer`: the server wants what its state vector lacks (`Channel.vector`)."""

    channel: Channel


class Received(NamedTuple):
    """An update (v1). ``synced`` says that with it the document has all that the server had when it was asked."""

    channel: Channel
    update: bytes
    synced: bool


class Presence(NamedTuple):
    """An awareness update of others, not yet decoded."""

    channel: Channel
    update: bytes


class PresenceWanted(NamedTuple):
    """Call `Channel.presence` with the states that are known."""

    channel: Channel


class Said(NamedTuple):
    """A stateless message."""

    channel: Channel
    text: str


class Saved(NamedTuple):
    """All edits up to ``number`` are committed."""

    channel: Channel
    number: int


class NotTaken(NamedTuple):
    """The server has refused the update that held the edits up to ``number``."""

    channel: Channel
    number: int


class Ended(NamedTuple):
    """The server has ended the session: ``reason`` says why. The channel is of no use any more."""

    channel: Channel
    reason: str


class Reply(NamedTuple):
    """Send this frame."""

    frame: bytes


Event = LetIn | TokenWanted | Asked | Received | Presence | PresenceWanted | Said | Saved | NotTaken | Ended | Reply


class ClientSocket:
    """The client's side of one socket, from its opening to its end."""

    __slots__ = ("_channels", "_count", "_last", "_names")

    def __init__(self) -> None:
        self._channels: dict[bytes, Channel] = {}
        self._last: Channel | None = None  # the one that was spoken to last; most sockets have only one
        self._names: set[str] = set()  # documents that were opened here before
        self._count = 0

    def open(self, name: str) -> Channel:
        """Add a document. Send its `Channel.token` and its `Channel.ask` next, in this order.

        Raises:
            InvalidDocumentName: see ``check_document_name``.
        """
        check_document_name(name)
        self._count += 1
        address = name.encode()
        if name in self._names or len(self._names) >= _MAX_NAMES:
            address = b"%b\0%d" % (address, self._count)
        else:
            self._names.add(name)
        channel = self._channels[address] = Channel(name, address)
        return channel

    def forget(self, channel: Channel) -> None:
        """Drop a channel that was left, or of which nothing is to be known any more."""
        channel.stage = Stage.ENDED
        if self._channels.get(channel.address) is channel:
            del self._channels[channel.address]
        if self._last is channel:
            self._last = None

    def receive(self, frame: bytes) -> Sequence[Event]:
        """Take one binary frame.

        Raises:
            DecodeError, AddressError: it cannot be read.
            ProtocolError: it may not come now. After either the socket is to be closed; its documents come back.
        """
        if frame == codec.PING:
            return (Reply(codec.PONG),)
        if frame == codec.PONG:
            return ()
        channel = self._last
        if channel is not None and frame.startswith(channel._prefix):
            pos = len(channel._prefix)
        else:
            address, pos = codec.read_address(frame)
            channel = self._channels.get(address)
            if channel is None:
                return ()  # said before the server knew that it was left
            self._last = channel
        message = codec.decode_from_server(frame, pos)
        return () if message is None else self._take(channel, message)

    def _take(self, channel: Channel, message: codec.ServerMessage) -> Sequence[Event]:
        if isinstance(message, SyncUpdate):
            return (Received(channel, message.update, False),)
        if isinstance(message, AwarenessUpdate):
            return (Presence(channel, message.payload),)
        if isinstance(message, SyncStatus):
            number = channel.settle()
            return (Saved(channel, number) if message.saved else NotTaken(channel, number),)
        if isinstance(message, SyncStep1):
            channel.stage, channel.vector = Stage.LIVE, message.state_vector
            return (Asked(channel),)
        if isinstance(message, SyncStep2):
            return (Received(channel, message.update, True),)
        if isinstance(message, Authenticated):
            channel.access = message.access
            if channel.stage is Stage.OPENING:
                channel.stage = Stage.LET_IN
            return (LetIn(channel, message.access),)
        if isinstance(message, PermissionDenied):
            self.forget(channel)
            return (Ended(channel, message.reason),)
        if isinstance(message, Closed):
            # Not a refusal: it may pass. Stock servers say it after an error of theirs, and on a socket that idles.
            raise ProtocolError(f"the server has closed the document: {message.reason}")
        if isinstance(message, TokenRequest):
            return (TokenWanted(channel),)
        if isinstance(message, QueryAwareness):
            return (PresenceWanted(channel),)
        if isinstance(message, Stateless):
            return (Said(channel, message.payload.decode()),)
        return ()  # a LocalVersion, which this protocol does not have
