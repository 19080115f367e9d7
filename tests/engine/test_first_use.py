"""Whose client IDs are: messages in, and what the rows of the turns decide out.

Strategy: a table. Each case is a story of messages on one room; ``decided`` is all that its rows decide, in order, as
(client, first clock, user). Each story is told twice, with updates taken whole and in slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from collab.authorship import FirstUse, Note
from collab.engine import room as rooms
from collab.engine.document import Document, Row, at_once
from collab.engine.room import Room
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, Event, Owner, Session
from collab.protocol.sync import EMPTY_UPDATE, SyncStep2, SyncUpdate
from collab.update.reset import RESERVED
from tests.support.build import section, text, update
from tests.support.sessions import admit

ANN, BOB, EVE = 1, 2, 3  # client IDs
FAR = RESERVED - 1


def typed(client: int, clock: int, string: str = "a") -> bytes:
    """Make an update with text of one client."""
    return update(section(client, clock, text(string)))


class Shows(NamedTuple):
    """Awareness of a session: the state of a client, with its clock."""

    who: str
    client: int
    clock: int = 1
    state: str = "{}"


class Types(NamedTuple):
    """An Update of a session."""

    who: str
    update: bytes


class Heals(NamedTuple):
    """A SyncStep2 of a session."""

    who: str
    update: bytes


class Leaves(NamedTuple):
    who: str


class Comes(NamedTuple):
    """One more session of a user, under the name of the session."""

    who: str
    user: str | None


class SignsIn(NamedTuple):
    """A session shows another token."""

    who: str
    user: str | None


class Elsewhere(NamedTuple):
    """Another node has written a row, or shows a client ID."""

    update: bytes = b""
    shows: int | None = None


class Served(NamedTuple):
    """An edit of the server's own, for a user."""

    user: str
    client: int
    update: bytes


class TurnEnds(NamedTuple):
    pass


Step = Shows | Types | Heals | Leaves | Comes | SignsIn | Elsewhere | Served | TurnEnds


class Story:
    """A room with the sessions that are in it, by their names. A session comes with its first step."""

    def __init__(self, feed: Callable[[Room, Session, SyncUpdate | SyncStep2], object]) -> None:
        self.room = Room(Document(), max_document_bytes=1 << 20, max_awareness_bytes=1_000, max_awareness_ids=3)
        self.sessions: dict[str, Session] = {}
        self.rows: list[Row] = []
        self._feed = feed
        self._node = Owner()

    def tell(self, steps: Sequence[Step]) -> list[tuple[int, int, str | None]]:
        """Take the steps, with a turn at the end; give what was decided."""
        for step in (*steps, TurnEnds()):
            self._take(step)
        return [tuple(use) for row in self.rows for use in row.first_uses]

    def session(self, name: str, user: str | None = None) -> Session:
        if name not in self.sessions:
            session = self.sessions[name] = Session()
            admit(session, Access.WRITE, user)
            self.room.join(session)
        return self.sessions[name]

    def _take(self, step: Step) -> None:
        room = self.room
        match step:
            case Comes(who, user):
                self.session(who, user)
            case Shows(who, client, clock, state):
                payload = encode_awareness([Entry(client, clock, state.encode())])
                room.receive(self.session(who, who), AwarenessUpdate(payload))
            case Types(who, data):
                self._feed(room, self.session(who, who), SyncUpdate(data))
            case Heals(who, data):
                self._feed(room, self.session(who, who), SyncStep2(data))
            case Leaves(who):
                room.leave(self.sessions.pop(who))
            case SignsIn(who, user):
                self.session(who, who).identify(user)
            case Elsewhere(data, shows):
                if data:
                    room.receive_stored(data, "zoe")
                if shows is not None:
                    room.receive_awareness_of(self._node, encode_awareness([Entry(shows, 1, b"{}")]))
            case Served(user, client, data):
                assert room.document.apply_update(data, user, Note(None, "model")).new
                room.note_server_client(client)
                room.pending = True
            case TurnEnds():
                self.rows += room.end_turn().rows
                while (kept := room.find_kept()) is not None:
                    at_once(room.receive_kept(kept))
                    self.rows += room.end_turn().rows


def whole(room: Room, session: Session, message: SyncUpdate | SyncStep2) -> None:
    room.receive(session, message)


def in_slices(room: Room, session: Session, message: SyncUpdate | SyncStep2) -> None:
    at_once(room.receive_in_slices(session, message))


Decided = list[tuple[int, int, str | None]]

STORIES: dict[str, tuple[Sequence[Step], Decided]] = {
    # The usual ways.
    "an id is its first user's": ([Shows("ann", ANN), Types("ann", typed(ANN, 0))], [(ANN, 0, "ann")]),
    "the client shows nothing": ([Types("ann", typed(ANN, 0))], [(ANN, 0, "ann")]),
    "the largest id": ([Types("ann", typed(FAR, 0))], [(FAR, 0, "ann")]),
    "once alone, however much is typed": (
        [Shows("ann", ANN), *[step for clock in range(3) for step in (Types("ann", typed(ANN, clock)), TurnEnds())]],
        [(ANN, 0, "ann")],
    ),
    "two type in one turn": (
        [Types("ann", typed(ANN, 0)), Types("bob", typed(BOB, 0)), Types("ann", typed(ANN, 1))],
        [(ANN, 0, "ann"), (BOB, 0, "bob")],
    ),
    "two tabs of one user": (
        [Comes("tab", "ann"), Types("ann", typed(ANN, 0)), Types("tab", typed(BOB, 0))],
        [(ANN, 0, "ann"), (BOB, 0, "ann")],
    ),
    "what only deletes decides nothing, the text after it does": (
        [
            Heals("ann", typed(BOB, 0, "abc")),
            Shows("ann", ANN),
            Types("ann", update(gone={BOB: [(0, 1)]})),
            TurnEnds(),
            Types("ann", typed(ANN, 0)),
        ],
        [(ANN, 0, "ann")],
    ),
    "an update of text that deletes, too": (
        [
            Heals("ann", typed(BOB, 0, "abc")),
            Types("ann", update(section(ANN, 0, text("x")), gone={BOB: [(0, 1), (2, 1)]})),
        ],
        [(ANN, 0, "ann")],
    ),
    # What says nothing of who has written it.
    "a step 2 decides nothing": ([Shows("ann", ANN), Heals("ann", typed(ANN, 0))], []),
    "a step 2 heals what another one has written": (
        [Shows("ann", ANN), Heals("ann", typed(BOB, 0)), Types("ann", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    "offline edits come by a step 2, and then it types on": (
        [Shows("ann", ANN), Heals("ann", typed(ANN, 0, "offline")), TurnEnds(), Types("ann", typed(ANN, 7))],
        [(ANN, 7, "ann")],
    ),
    "the same of a client that shows nothing": (
        [Heals("ann", typed(ANN, 0, "offline")), Types("ann", typed(ANN, 7))],
        [(ANN, 7, "ann")],
    ),
    "an update with nothing new": ([Elsewhere(typed(ANN, 0)), Shows("ann", ANN), Types("ann", typed(ANN, 0))], []),
    "another node's row": ([Elsewhere(typed(ANN, 0))], []),
    "another node's row, and then it types here": (
        [Elsewhere(typed(ANN, 0)), Types("ann", typed(ANN, 1))],
        [(ANN, 1, "ann")],
    ),
    "nobody knows the user": ([Comes("x", None), Shows("x", ANN), Types("x", typed(ANN, 0))], []),
    "the user is known later": (
        [Comes("x", None), Types("x", typed(ANN, 0)), SignsIn("x", "ann"), Types("x", typed(ANN, 1))],
        [(ANN, 1, "ann")],
    ),
    # What waits.
    "an update that is not whole, and what was kept of it": (
        [
            Shows("ann", ANN),
            Types("ann", update(section(ANN, 0, text("a"), text("b", origin=(BOB, 0))))),
            TurnEnds(),
            Heals("bob", typed(BOB, 0)),
            TurnEnds(),
        ],
        [],
    ),
    "its next one is whole": (
        [
            Shows("ann", ANN),
            Types("ann", update(section(ANN, 0, text("a"), text("b", origin=(BOB, 0))))),
            TurnEnds(),
            Heals("bob", typed(BOB, 0)),
            TurnEnds(),
            Types("ann", typed(ANN, 2)),
        ],
        [(ANN, 2, "ann")],
    ),
    # Updates with what others have written.
    "a client announces its id and shows nothing": (
        [Shows("ann", ANN, clock=0), Types("ann", typed(BOB, 0)), TurnEnds(), Types("ann", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    "it announces its id after it has relayed something": (
        [Types("ann", typed(BOB, 0)), Shows("ann", ANN, clock=0), Types("ann", typed(ANN, 0))],
        [(BOB, 0, "ann"), (ANN, 0, "ann")],
    ),
    "what it says of others after that is not its own": (
        [Shows("ann", ANN, clock=0), Shows("ann", BOB, clock=0), Types("ann", typed(BOB, 0))],
        [],
    ),
    "it takes another one away first": (
        [Shows("ann", BOB, clock=0, state="null"), Types("ann", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    "a client relays another one's text with its own": (
        [Shows("ann", ANN), Types("ann", update(section(BOB, 0, text("b")), section(ANN, 0, text("a"))))],
        [(ANN, 0, "ann")],
    ),
    "a client relays another one's text alone": ([Shows("ann", ANN), Types("ann", typed(BOB, 0))], []),
    "it relays, and types then": (
        [Shows("ann", ANN), Types("ann", typed(BOB, 0)), Types("ann", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    "several clients of a client that shows nothing": (
        [Types("ann", update(section(BOB, 0, text("b")), section(ANN, 0, text("a"))))],
        [],
    ),
    "it types alone then": (
        [
            Types("ann", update(section(BOB, 0, text("b")), section(ANN, 0, text("a")))),
            TurnEnds(),
            Types("ann", typed(ANN, 1)),
        ],
        [(ANN, 1, "ann")],
    ),
    "a client that shows nothing has one id": (
        [Types("ann", typed(ANN, 0)), Types("ann", typed(BOB, 0))],
        [(ANN, 0, "ann")],
    ),
    "it shows another one then": (
        [Types("ann", typed(BOB, 0)), Shows("ann", ANN), Types("ann", typed(ANN, 0))],
        [(BOB, 0, "ann"), (ANN, 0, "ann")],
    ),
    "a client relays text of one who is shown": (
        [Shows("bob", BOB), Types("ann", typed(BOB, 0)), Types("bob", typed(BOB, 1))],
        [(BOB, 1, "bob")],
    ),
    "of one whom another node shows": ([Elsewhere(shows=BOB), Types("ann", typed(BOB, 0))], []),
    "of one who was shown until lately": (
        [Shows("bob", BOB), Leaves("bob"), Types("ann", typed(BOB, 0))],
        [],
    ),
    # Forgery.
    "the id of somebody who has typed": (
        [Shows("ann", ANN), Types("ann", typed(ANN, 0)), TurnEnds(), Types("eve", typed(ANN, 1))],
        [(ANN, 0, "ann")],
    ),
    "the id of somebody who is shown and has not typed": (
        [Shows("ann", ANN), Shows("eve", ANN, 2), Types("eve", typed(ANN, 0)), TurnEnds(), Types("ann", typed(ANN, 1))],
        [(ANN, 1, "ann")],
    ),
    "the id of somebody else, and then its own": (
        [Shows("ann", ANN), Shows("eve", EVE), Types("eve", typed(ANN, 0)), Types("eve", typed(EVE, 0))],
        [(EVE, 0, "eve")],
    ),
    # Clients that come back.
    "on another socket": (
        [
            Shows("ann", ANN),
            Types("ann", typed(ANN, 0)),
            TurnEnds(),
            Leaves("ann"),
            Comes("again", "ann"),
            Shows("again", ANN, 2),
            Types("again", typed(ANN, 1)),
        ],
        [(ANN, 0, "ann")],
    ),
    "while the old socket seems to live": (
        [Shows("ann", ANN), Comes("again", "ann"), Shows("again", ANN), Types("again", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    "while the old socket has the id still": (
        [Shows("ann", ANN), Comes("again", "ann"), Shows("again", ANN, clock=0), Types("again", typed(ANN, 0))],
        [(ANN, 0, "ann")],
    ),
    # Edits over HTTP.
    "the server's own id is nobody's": (
        [Served("ann", 9, typed(9, 0)), TurnEnds(), Served("bob", 9, typed(9, 1)), Types("eve", typed(9, 2))],
        [(9, 0, None)],
    ),
}


@pytest.mark.parametrize("feed", [whole, in_slices])
@pytest.mark.parametrize("name", STORIES)
def test_whose_a_client_id_is(name: str, feed: Callable[[Room, Session, SyncUpdate | SyncStep2], object]) -> None:
    steps, decided = STORIES[name]
    assert Story(feed).tell(steps) == decided


def test_what_is_decided_goes_with_its_own_row() -> None:
    story = Story(whole)
    story.tell(
        [
            Types("ann", typed(ANN, 0)),
            Comes("tab", "ann"),
            Types("tab", typed(EVE, 0)),
            Types("bob", typed(BOB, 0)),
            Types("ann", typed(ANN, 1)),
            Served("ann", 9, typed(9, 0)),
        ]
    )
    assert [(row.author, row.note, row.first_uses) for row in story.rows] == [
        ("ann", None, (FirstUse(ANN, 0, "ann"), FirstUse(EVE, 0, "ann"))),
        ("bob", None, (FirstUse(BOB, 0, "bob"),)),
        ("ann", None, ()),
        ("ann", Note(None, "model"), (FirstUse(9, 0, None),)),
    ]


def test_a_session_whose_id_is_known_is_not_looked_at_again() -> None:
    story = Story(whole)
    story.tell([Shows("ann", ANN)])
    ann = story.sessions["ann"]
    assert ann.introduces
    story.tell([Types("ann", typed(ANN, 0))])
    assert not ann.introduces and ann.uses == ANN
    ann.identify("ann")  # with each token that it shows
    assert not ann.introduces
    ann.identify(None)
    assert not ann.introduces
    story.tell([Comes("x", None)])
    assert not story.sessions["x"].introduces


def test_a_room_remembers_so_many_ids_and_the_newest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 100  # each session costs as much as there are
    monkeypatch.setattr(rooms, "_MOST_FIRST_USES", most)
    story = Story(whole)
    room = story.room
    for client in range(most + 2):
        session = Session()
        admit(session, Access.WRITE, "ann")
        room.join(session)
        room.receive(session, SyncUpdate(typed(client, 0)))
        session.on(Event.ENDED)
        room.sessions.pop(session)
    room.end_turn()
    found = room.first_uses()
    assert [use.client for use in found] == list(range(2, most + 2))


def test_a_document_without_a_turn_has_used_nothing() -> None:
    room = Story(whole).room
    session = Session()
    admit(session, Access.WRITE, "ann")
    room.join(session)
    room.receive(session, SyncUpdate(EMPTY_UPDATE))
    assert session.introduces and room.first_uses() == []
