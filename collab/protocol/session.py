"""The life of one client on one document.

Strategy: every transition is a row of TRANSITIONS. An event with no row in the current state is
a defect of ours, so nothing here decides by ``if``. The table knows no bytes, sockets or time;
both wire protocols drive the same one: a y-websocket client shows its token while it connects; a
Hocuspocus client sends it as a message, may be denied, and may show another one on the same socket.
Beside its state a session counts the questions that the server has put to the client (SyncStep1)
and the answers (SyncStep2), because asking back (docs/decisions/0003) turns on whether one is open.
"""

from __future__ import annotations

from array import array
from enum import Enum
from typing import ClassVar

from collab.errors import InvalidTransition
from collab.protocol.awareness import User
from collab.protocol.versions import Versions


class State(Enum):
    """Where a session stands."""

    ARRIVED = "arrived"  # has shown no token yet; what it sends waits
    AUTHENTICATING = "authenticating"  # its token is being looked at
    DENIED = "denied"  # may show another token
    JOINING = "joining"  # the document is being opened; nothing is read from the client yet
    LIVE = "live"  # gets every frame of the room
    LAGGING = "lagging"  # reads too slowly: gets no live frames until one catch-up brings it level
    RECEIVING = (
        "receiving"  # gets what its line cannot take at once, and no updates until it is level; awareness passes
    )
    CLOSED = "closed"

    # Its own hash is of the name, by a function in Python; every step of a session looks into TRANSITIONS.
    __hash__ = object.__hash__


class Event(Enum):
    """What can happen to a session."""

    PRESENTED = "presented"
    GRANTED = "granted"
    DENIED = "denied"
    OPENED = "opened"
    LAGGED = "lagged"
    RECEIVES = "receives"
    CAUGHT_UP = "caught up"
    ENDED = "ended"

    __hash__ = object.__hash__


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
    (State.LIVE, Event.RECEIVES): State.RECEIVING,
    (State.LIVE, Event.ENDED): State.CLOSED,
    (State.LAGGING, Event.CAUGHT_UP): State.LIVE,
    (State.LAGGING, Event.RECEIVES): State.RECEIVING,
    (State.LAGGING, Event.ENDED): State.CLOSED,
    (State.RECEIVING, Event.CAUGHT_UP): State.LIVE,
    (State.RECEIVING, Event.ENDED): State.CLOSED,
}


class Access(Enum):
    """What a client may do with a document."""

    READ = "read"  # sees everything, shows itself in awareness, changes nothing
    WRITE = "write"
    ADMIN = "admin"  # writes, and manages the document over HTTP; so ask "is READ", never "is WRITE"


class Owner:
    """The owner of awareness states in a room: a session or an agent of this node, or another node with all of its own.

    Attributes:
        awareness: the awareness states it owns, by client ID, with their size in bytes.
        user: who its awareness states say it is; None leaves that to the client.
    """

    __slots__ = ("awareness", "user")

    def __init__(self) -> None:
        self.awareness: dict[int, int] | None = None  # made when needed: most of a crowd only reads
        self.user: User | None = None


class Copy(Enum):
    """What is known of a client's copy of the document, once that was reset strictly."""

    CURRENT = "current"
    OLD = "old"  # it was asked what it has, and has not said it yet
    LATE = "late"  # it has said it; but it may read one from its disk that is old


class Session(Owner):
    """One client on one document.

    Attributes:
        acknowledges: whether its wire protocol has a message that says "saved".
        stateless: whether its wire protocol has stateless messages.
        state: where it stands; change it only through ``on``.
        access: what its client may do; it may change while the session lives.
        author: who the client is, as the journal records it; None while nobody has said. Set it by ``identify``.
        introduces: its next Update may be the first that uses a client ID of its user (docs/decisions/0024).
        uses: the client ID that it was found to use in its Updates; None before.
        asked, answered: SyncStep1 sent to the client, SyncStep2 received from it.
        blocked: the (client, clock) that a SyncStep2 referred to and the room still lacks.
        held: what became of its updates from the first on of which its next SyncStep2 has to tell; None while there is
            none. An array has the ranges that are in no row yet and that it has to hold, as kind, client, start, end.
        unseen: it was told that its presence is not shown; until something of it is shown again.
        known: while its client is sent a document in pieces, what that has told that it has, as a state vector: it says
            so by its SyncStep1, and by all that it sends. None at other times.
        versions: what it asks about its own versions; None for the clients that do not.
        strange: it has sent something beyond ``known`` that the room had already, so it has another source.
        address: what its client's address counts as; None for one that many may share.
        own: the client ID that is its client's own: the first one that it has shown, or claimed; None before. Set it by
            ``note_own``.
        announced: the ID that its client has begun with, whether or not anything is shown of it: clients that an
            application sets no state for say it with clock 0, which nobody takes. None before.
        returned: its client was found to have come back.
        quiet: its client takes a new clock when it is told ``null`` for its own ID, and says so only when it is asked.
        refusal: why it may only read, where that is not because of what its client was granted.
        queried: it was asked so, and has not said yet what it shows.
        copy: whether its client has a copy of the document from before a strict reset.
    """

    acknowledges: ClassVar[bool] = False
    stateless: ClassVar[bool] = False

    __slots__ = (
        "access",
        "address",
        "announced",
        "answered",
        "asked",
        "author",
        "blocked",
        "copy",
        "held",
        "introduces",
        "known",
        "own",
        "queried",
        "refusal",
        "quiet",
        "returned",
        "state",
        "strange",
        "unseen",
        "uses",
        "versions",
    )

    def __init__(self) -> None:
        super().__init__()
        self.state = State.ARRIVED
        self.access = Access.WRITE
        self.author: str | None = None
        self.introduces = False
        self.uses: int | None = None
        self.asked = 0
        self.answered = 0
        self.blocked: tuple[int, int] | None = None
        self.held: list[bool | array[int]] | None = None
        self.unseen = False
        self.known: dict[int, int] | None = None
        self.strange = False
        self.versions: Versions | None = None
        self.address: str | None = None
        self.own: int | None = None
        self.refusal: str | None = None
        self.announced: int | None = None
        self.returned = self.quiet = self.queried = False
        self.copy = Copy.CURRENT

    def grant(self, access: Access, author: str | None) -> None:
        """Note what the client may do, now that its token is found good."""
        self.on(Event.GRANTED)
        self.access = access
        self.identify(author)

    def identify(self, author: str | None) -> None:
        """Note who the client is; again with each token that it shows."""
        if author != self.author:
            self.author = author
            self.introduces = author is not None  # of two users of one ID the store keeps the first

    def note_own(self, client: int) -> None:
        """Note the client ID that is its client's own."""
        self.own = client
        self.introduces = self.author is not None and client != self.uses

    def note_announced(self, client: int) -> None:
        """Note the client ID that its client has begun with; the first one counts."""
        if self.announced is None:
            self.announced = client
            self.introduces = self.author is not None and client != self.uses

    @property
    def unanswered(self) -> int:
        """How many SyncStep1 of the server the client has still to answer."""
        return self.asked - self.answered

    def on(self, event: Event) -> None:
        """Go where TRANSITIONS leads.

        Raises:
            InvalidTransition: the event has no row in this state.
        """
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise InvalidTransition(f"a session that is {self.state.value} cannot be {event.value}") from None
