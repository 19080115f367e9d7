"""The life of one client on one document.

Strategy: every transition is a row of TRANSITIONS. An event with no row in the current state is
a programming error, so nothing here decides by ``if``. The table knows no bytes, sockets or time;
both wire protocols drive the same one: y-websocket shows its token while it connects, so it passes
through the first states at once; a Hocuspocus client sends it as a message, may be denied, and may
show another one on the same socket. Beside its state a session counts the questions that the
server has put to the client (SyncStep1) and the answers (SyncStep2), because rule 4 of asking back
(``Room``) turns on whether one is open.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from collab.errors import ProtocolError
from collab.protocol.awareness import User


class State(Enum):
    """Where a session stands."""

    ARRIVED = "arrived"  # has shown no token yet; what it sends waits
    AUTHENTICATING = "authenticating"  # its token is being looked at
    DENIED = "denied"  # may show another token
    JOINING = "joining"  # the document is being opened; nothing is read from the client yet
    LIVE = "live"  # gets every frame of the room
    LAGGING = "lagging"  # reads too slowly: gets no live frames until one catch-up brings it level
    CLOSED = "closed"


class Event(Enum):
    """What can happen to a session."""

    PRESENTED = "presented"
    GRANTED = "granted"
    DENIED = "denied"
    OPENED = "opened"
    LAGGED = "lagged"
    CAUGHT_UP = "caught up"
    ENDED = "ended"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.ARRIVED, Event.PRESENTED): State.AUTHENTICATING,
    (State.ARRIVED, Event.ENDED): State.CLOSED,
    (State.AUTHENTICATING, Event.GRANTED): State.JOINING,
    (State.AUTHENTICATING, Event.DENIED): State.DENIED,
    (State.AUTHENTICATING, Event.ENDED): State.CLOSED,
    (State.DENIED, Event.PRESENTED): State.AUTHENTICATING,
    (State.DENIED, Event.ENDED): State.CLOSED,
    (State.JOINING, Event.OPENED): State.LIVE,
    (State.JOINING, Event.DENIED): State.DENIED,
    (State.JOINING, Event.ENDED): State.CLOSED,
    (State.LIVE, Event.LAGGED): State.LAGGING,
    (State.LIVE, Event.ENDED): State.CLOSED,
    (State.LAGGING, Event.CAUGHT_UP): State.LIVE,
    (State.LAGGING, Event.ENDED): State.CLOSED,
}


class Access(Enum):
    """What a client may do with a document."""

    READ = "read"  # sees everything, shows itself in awareness, changes nothing
    WRITE = "write"
    ADMIN = "admin"  # writes, and manages the document over HTTP; so ask "is READ", never "is WRITE"


class Session:
    """One client on one document.

    Attributes:
        acknowledges: whether its wire protocol has a message that says "saved".
        stateless: whether its wire protocol has stateless messages.
        state: where it stands; change it only through ``on``.
        access: what its client may do; it may change while the session lives.
        author: who the client is, as the journal records it; None while nobody has said.
        user: who its awareness states say it is; None leaves that to the client.
        asked, answered: SyncStep1 sent to the client, SyncStep2 received from it.
        blocked: the (client, clock) that a SyncStep2 referred to and the room still lacks.
        held: what became of its updates from the first on that is not whole yet; None while there is none.
        awareness: the awareness states it owns, by client ID, with their size in bytes.
    """

    acknowledges: ClassVar[bool] = False
    stateless: ClassVar[bool] = False

    __slots__ = ("access", "answered", "asked", "author", "awareness", "blocked", "held", "state", "user")

    def __init__(self) -> None:
        self.state = State.ARRIVED
        self.access = Access.WRITE
        self.author: str | None = None
        self.user: User | None = None
        self.asked = 0
        self.answered = 0
        self.blocked: tuple[int, int] | None = None
        self.held: list[bool] | None = None
        self.awareness: dict[int, int] | None = None  # made when needed: most of a crowd only reads

    def admit(self, access: Access, author: str | None) -> None:
        """Go from ``ARRIVED`` or ``DENIED`` to ``JOINING``: its token was looked at before and is good."""
        self.on(Event.PRESENTED)
        self.grant(access, author)

    def grant(self, access: Access, author: str | None) -> None:
        """Note what the client may do, now that its token is found good."""
        self.on(Event.GRANTED)
        self.access = access
        self.author = author

    @property
    def unanswered(self) -> int:
        """How many SyncStep1 of the server the client has still to answer."""
        return self.asked - self.answered

    def on(self, event: Event) -> None:
        """Go where TRANSITIONS leads.

        Raises:
            ProtocolError: the event has no row in this state.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise ProtocolError(f"a session that is {self.state.value} cannot be {event.value}") from None
