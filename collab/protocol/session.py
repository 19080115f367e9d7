"""The life of one client on one document.

Strategy: every transition is a row of TRANSITIONS. An event with no row in the current state is
a programming error, so nothing here decides by ``if``. The table knows no bytes, sockets or time;
both wire protocols drive the same one. Beside its state a session counts the questions that the
server has put to the client (SyncStep1) and the answers (SyncStep2), because rule 4 of asking back
(``Room``) turns on whether one is open.
"""

from __future__ import annotations

from enum import Enum

from collab.errors import ProtocolError


class State(Enum):
    """Where a session stands."""

    JOINING = "joining"  # the document is being opened; nothing is read from the client yet
    LIVE = "live"  # gets every frame of the room
    LAGGING = "lagging"  # reads too slowly: gets no live frames until one catch-up brings it level
    CLOSED = "closed"


class Event(Enum):
    """What can happen to a session."""

    OPENED = "opened"
    LAGGED = "lagged"
    CAUGHT_UP = "caught up"
    ENDED = "ended"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.JOINING, Event.OPENED): State.LIVE,
    (State.JOINING, Event.ENDED): State.CLOSED,
    (State.LIVE, Event.LAGGED): State.LAGGING,
    (State.LIVE, Event.ENDED): State.CLOSED,
    (State.LAGGING, Event.CAUGHT_UP): State.LIVE,
    (State.LAGGING, Event.ENDED): State.CLOSED,
}


class Session:
    """One client on one document.

    Attributes:
        state: where it stands; change it only through ``on``.
        author: who the client is, as the journal records it; None while nobody has said.
        acknowledges: whether its wire protocol has a message that says "saved".
        asked, answered: SyncStep1 sent to the client, SyncStep2 received from it.
        blocked: the (client, clock) that a SyncStep2 referred to and the room still lacks.
        awareness: the awareness states it owns, by client ID, with their size in bytes.
    """

    __slots__ = ("acknowledges", "answered", "asked", "author", "awareness", "blocked", "state")

    def __init__(self, author: str | None = None, *, acknowledges: bool = False) -> None:
        self.state = State.JOINING
        self.author = author
        self.acknowledges = acknowledges
        self.asked = 0
        self.answered = 0
        self.blocked: tuple[int, int] | None = None
        self.awareness: dict[int, int] | None = None  # made when needed: most of a crowd only reads

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
