"""What a wire protocol asks of the one who runs it: one vocabulary for both protocols.

Strategy: a protocol's ``Connection`` takes what a client sends and gives events; it runs nothing, waits for nothing
and knows no time. The transport performs the events in their order, and feeds what came of them back in
(``granted``, ``denied``, ``opened``). So every rule of a protocol can be tested with bytes in and bytes out, and the
code that is tested is the code that is served.

A ``Channel`` is one document on one socket. The transport makes them, as a class of its own that holds what it needs
for one (the room, tasks, timers); the protocols look at nothing but what stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from collab.errors import CollabError
from collab.protocol.messages import CloseCode, Message
from collab.protocol.session import Access, Session, State


class Channel(ABC):
    """One document on one socket.

    Attributes:
        session: its session; a new one after each end that leaves the channel.
    """

    __slots__ = ("session",)

    def __init__(self) -> None:
        self.session: Session = self.new_session()

    @abstractmethod
    def new_session(self) -> Session:
        """Return a session that has shown no token yet."""

    @property
    def joined(self) -> bool:
        """Whether its session is on the document."""
        return self.session.state in (State.LIVE, State.LAGGING, State.RECEIVING)


AnyChannel = TypeVar("AnyChannel", bound=Channel)


class Deliver(NamedTuple, Generic[AnyChannel]):
    """Give a message of a session that has joined to its room; ``size`` is that of the frame in bytes.

    If the room refuses it, feed that back in by ``failed``.
    """

    channel: AnyChannel
    message: Message
    size: int


class Authenticate(NamedTuple, Generic[AnyChannel]):
    """Ask what ``token`` may do with the document ``name``; answer with ``granted`` or ``denied``."""

    channel: AnyChannel
    session: Session
    token: str
    name: str


class Open(NamedTuple, Generic[AnyChannel]):
    """Open the channel's document; answer with ``opened`` or ``denied``."""

    channel: AnyChannel
    session: Session


class Retry(NamedTuple):
    """Try the last step again, after ``seconds`` at most and half of them at least; ``exact``: after all of them."""

    seconds: float
    exact: bool = False


class Join(NamedTuple, Generic[AnyChannel]):
    """Let the session join the room of its document."""

    channel: AnyChannel
    session: Session


class Leave(NamedTuple, Generic[AnyChannel]):
    """Give up what is held for a session that has ended: its place in the room, tasks and timers."""

    channel: AnyChannel
    session: Session


class Renew(NamedTuple, Generic[AnyChannel]):
    """Look at a token that the client of a live session has sent; answer with ``renewed`` or ``renewal_denied``."""

    channel: AnyChannel
    session: Session
    token: str


class Send(NamedTuple):
    """Send a message, the payload of one binary frame."""

    payload: bytes


class Control(NamedTuple):
    """Send a message that is not missed: it is left out while more waits for the client than it reads."""

    payload: bytes


class Drain(NamedTuple):
    """Perform what follows only when the client has read most of what waits for it.

    It stands before answers that a client can ask for as often as it likes: one that reads nothing is not read any
    further either.
    """


class Close(NamedTuple):
    """Close the socket with this code; ``error`` is the reason for the log, None if there is none to tell.

    ``refused`` says that the client asked for something that it will not get by asking again at once.
    """

    code: CloseCode
    error: CollabError | None = None
    refused: bool = False


class RefuseUnread(NamedTuple, Generic[AnyChannel]):
    """Have the room refuse an edit of a client that may only read, which was not read because of its size.

    ``answer`` says that it was a SyncStep2.
    """

    channel: AnyChannel
    answer: bool


class Note(NamedTuple, Generic[AnyChannel]):
    """Write into the log that something was refused; the channel is None where it is about the whole socket."""

    channel: AnyChannel | None
    error: CollabError


class Ignored(NamedTuple, Generic[AnyChannel]):
    """Note that a message has a type that this server does not know or need."""

    channel: AnyChannel


class ConfirmClose(NamedTuple):
    """Call ``confirm_close`` with this address after ``seconds``, instead of what was planned for it before."""

    address: bytes
    seconds: float


Event = (
    Deliver[AnyChannel]
    | Authenticate[AnyChannel]
    | Open[AnyChannel]
    | Retry
    | Join[AnyChannel]
    | Leave[AnyChannel]
    | Renew[AnyChannel]
    | Send
    | Control
    | Drain
    | Close
    | RefuseUnread[AnyChannel]
    | Note[AnyChannel]
    | Ignored[AnyChannel]
    | ConfirmClose
)


class WireProtocol(ABC, Generic[AnyChannel]):
    """One socket of a wire protocol as a state machine; what only one of them needs does nothing in the other."""

    __slots__ = ()

    @property
    @abstractmethod
    def channels_open(self) -> Iterable[AnyChannel]:
        """The channels of this socket."""

    # What the client sends

    @abstractmethod
    def receive(self, frame: bytes) -> Sequence[Event[AnyChannel]]:
        """Take one binary frame; while ``full`` is true afterwards, none may follow."""

    @abstractmethod
    def receive_live(self, frame: bytes) -> Deliver[AnyChannel] | None:
        """Take a usual message of a session that has joined; None leaves any other frame to ``receive``, untouched."""

    @abstractmethod
    def may_send(self, head: bytes) -> bool | None:
        """Tell whether a large message that begins with ``head`` may come: an edit of a client that may write.

        None while its document is being opened. Others are bounded as what nobody has authenticated.
        """

    @abstractmethod
    def unread(self, head: bytes, size: int) -> Sequence[Event[AnyChannel]]:
        """Go on after a message was not read: it begins with ``head`` and has more bytes than its client may send."""

    @property
    def full(self) -> bool:
        """Whether more waits for documents that are being opened than may: no frame is to be given in."""
        return False

    def relieve(self) -> Sequence[Event[AnyChannel]]:
        """Make room among what waits, when an admission has gone on, or end the socket."""
        return ()

    # What became of an admission

    @abstractmethod
    def granted(
        self, channel: AnyChannel, session: Session, access: Access, author: str | None
    ) -> Sequence[Event[AnyChannel]]:
        """Go on with a session whose token is good; nothing if it is over."""

    @abstractmethod
    def opened(self, channel: AnyChannel, session: Session) -> Sequence[Event[AnyChannel]]:
        """Go on with a session whose document is open and may be joined; then call ``next_waiting`` until it is None.

        The room must be joined at once: an empty one may leave memory at any time.
        """

    @abstractmethod
    def denied(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[Event[AnyChannel]]:
        """Go on after a step of an admission has failed; a ``Retry`` says that it is to be tried again."""

    def next_waiting(self, channel: AnyChannel, session: Session) -> Sequence[Event[AnyChannel]] | None:
        """Take the first of what has waited for a channel that has joined; None when nothing waits any more."""
        return None

    # What becomes of a session

    @abstractmethod
    def failed(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[Event[AnyChannel]]:
        """Go on after the room has refused a message that was delivered."""

    @abstractmethod
    def ended(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[Event[AnyChannel]]:
        """Go on after the room has ended a session."""

    @abstractmethod
    def expiring(self, channel: AnyChannel) -> Sequence[Event[AnyChannel]]:
        """Go on some time before what was granted runs out."""

    @abstractmethod
    def expired(self, channel: AnyChannel) -> Sequence[Event[AnyChannel]]:
        """Go on when what was granted has run out."""

    def renewed(self, channel: AnyChannel, session: Session, access: Access) -> Sequence[Event[AnyChannel]]:
        """Go on after the token of a live client was found good: another one that it has sent, or the same again."""
        return ()

    def renewal_denied(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[Event[AnyChannel]]:
        """Go on after the token of a live client was refused."""
        return ()

    # What becomes of the socket

    @abstractmethod
    def close_code(self, error: BaseException) -> CloseCode:
        """Return how the whole socket is closed because of ``error``."""

    @abstractmethod
    def close(self) -> Sequence[Event[AnyChannel]]:
        """Leave all documents: the socket has ended."""

    @abstractmethod
    def keepalive(self) -> bytes | None:
        """Return a message that feeds the client's watchdog and does nothing else."""

    def overdue(self) -> Sequence[Event[AnyChannel]]:
        """Close a socket whose client was let in nowhere in the time that it had."""
        return ()

    def confirm_close(self, address: bytes) -> Sequence[Event[AnyChannel]]:
        """Do what ``ConfirmClose`` has asked for."""
        return ()
