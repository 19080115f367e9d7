"""Edits that no session has sent: all of one is taken or nothing, in the step in which its last check was made.

Strategy: bytes in, and what the turn gives out. ``Checked`` is the check; it notes what the document held when it ran.
"""

from __future__ import annotations

import pytest

from collab.authorship import FirstUse, Note
from collab.engine.document import Document, Row, at_once
from collab.engine.room import Room
from collab.errors import CollabError, DocumentTooLarge, Forbidden, UpdateError, UpdateIncomplete
from collab.protocol.session import Access, Session
from collab.protocol.sync import SyncUpdate
from tests.support.author import Author, content
from tests.support.build import section, text, update
from tests.support.sessions import admit

ABC = update(section(5, 0, text("abc")))


class Checked:
    """A check that lets edits pass, or raises ``error``; it notes the state vectors of the room at its calls."""

    def __init__(self, room: Room, error: CollabError | None = None) -> None:
        self.room = room
        self.error = error
        self.calls: list[bytes] = []

    def __call__(self) -> None:
        self.calls.append(self.room.document.encode_state_as_update())
        if self.error is not None:
            raise self.error


def make_room(*updates: bytes, max_document_bytes: int = 1 << 20) -> Room:
    """Make a room with a document that holds these updates."""
    document = at_once(Document.load(None, None, updates))
    return Room(document, max_document_bytes=max_document_bytes, max_awareness_bytes=1_000, max_awareness_ids=3)


def joined(room: Room, user: str) -> Session:
    session = Session()
    admit(session, Access.WRITE, user)
    room.join(session)
    return session


def unchanged(room: Room, before: bytes) -> bool:
    """Tell whether nothing of an edit is in a room, beside it, or in its turn."""
    return room.document.encode_state_as_update() == before and room.kept is None and not room.pending


def test_an_edit_is_a_row_of_its_author_with_its_note_and_goes_to_everybody() -> None:
    room = make_room()
    check, note = Checked(room), Note("bob", "model")
    assert at_once(room.receive_edit_in_slices(ABC, "ann", check, note=note))
    assert room.pending and check.calls == [b"\0\0"], "it was checked before, and once"
    end = room.end_turn()
    assert end.delta == ABC and end.rows == (Row(ABC, "ann", note),)
    assert end.author is None and end.acks == [] and not end.effects


def test_a_turn_of_a_session_and_an_edit_is_of_several() -> None:
    room = make_room()
    session = joined(room, "ann")
    room.receive(session, SyncUpdate(ABC))
    at_once(room.receive_edit_in_slices(update(section(6, 0, text("x"))), "ann", Checked(room)))
    end = room.end_turn()
    assert end.author is None, "the session has to be sent what it has not written"
    room.receive(session, SyncUpdate(update(section(5, 3, text("d", origin=(5, 2))))))
    assert room.end_turn().author is session


def test_the_client_id_of_the_server_is_noted_with_the_first_edit_under_it() -> None:
    room, rows = make_room(), list[Row]()
    for clock, author in enumerate(("ann", "bob")):
        data = update(section(9, clock, text("x")))
        assert at_once(room.receive_edit_in_slices(data, author, Checked(room), server_client=9))
        rows += room.end_turn().rows
    assert at_once(room.receive_edit_in_slices(ABC, "ann", Checked(room)))
    rows += room.end_turn().rows
    assert [row.first_uses for row in rows] == [(FirstUse(9, 0, None),), (), ()], "whose 5 is, is not known"
    assert room.first_uses() == [FirstUse(9, 0, None)]


NEW: dict[str, bytes] = {
    "a client that nobody knows": update(section(6, 0, text("x"))),
    "a client that goes on": update(section(5, 3, text("d", origin=(5, 2)))),
    "a client that is known in part": update(section(5, 0, text("abc"), text("d", origin=(5, 2)))),
    "a delete": update(gone={5: [(1, 1)]}),
    "a delete that is known in part": update(gone={5: [(0, 2)]}),
}


@pytest.mark.parametrize("name", NEW)
def test_whatever_is_new_is_checked(name: str) -> None:
    room = make_room(ABC, update(gone={5: [(0, 1)]}))
    before = room.document.encode_state_as_update()
    check = Checked(room, Forbidden("no"))
    with pytest.raises(Forbidden):
        at_once(room.receive_edit_in_slices(NEW[name], "ann", check))
    assert len(check.calls) == 1 and unchanged(room, before) and room.recover(), "nothing of it is there"
    room.end_turn()
    check.error = None
    assert at_once(room.receive_edit_in_slices(NEW[name], "ann", check))
    assert check.calls == [before, before] and room.document.encode_state_as_update() != before


@pytest.mark.parametrize(
    "known", [ABC, update(), update(gone={5: [(0, 1)]}), update(section(5, 1, text("bc", origin=(5, 0))))]
)
def test_what_is_known_changes_nothing_and_is_not_checked(known: bytes) -> None:
    room = make_room(ABC, update(gone={5: [(0, 1)]}), max_document_bytes=1)
    before = room.document.encode_state_as_update()
    check = Checked(room, Forbidden("no"))
    assert not at_once(room.receive_edit_in_slices(known, "ann", check, server_client=5, size=1))
    assert not check.calls and unchanged(room, before) and room.document.garbage == 0
    assert room.end_turn().delta is None and room.first_uses() == []


NOT_WHOLE: dict[str, tuple[bytes, tuple[int, int]]] = {
    "all of it waits": (update(section(6, 0, text("x", origin=(7, 4)))), (7, 4)),
    "a gap": (update(section(5, 5, text("x", origin=(5, 4)))), (5, 3)),
    "a part could be taken": (update(section(6, 0, text("x"), text("y", origin=(5, 3)))), (5, 3)),
    "a delete of what nobody knows": (update(section(6, 0, text("x")), gone={5: [(2, 3)]}), (5, 3)),
}


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_what_is_not_whole_is_refused_and_its_sender_told_what_is_missing(name: str) -> None:
    data, missing = NOT_WHOLE[name]
    room = make_room(ABC)
    before = room.document.encode_state_as_update()
    check = Checked(room)
    with pytest.raises(UpdateIncomplete) as raised:
        at_once(room.receive_edit_in_slices(data, "ann", check))
    assert raised.value.missing == missing and not check.calls and unchanged(room, before)
    assert room.end_turn().delta is None


def test_a_malformed_edit_changes_nothing() -> None:
    room = make_room(ABC)
    check = Checked(room)
    with pytest.raises(UpdateError):
        at_once(room.receive_edit_in_slices(b"\x07garbage", "ann", check))
    assert not check.calls and unchanged(room, ABC)


def test_a_document_that_is_full_takes_only_what_is_known_to_fit() -> None:
    author = Author(1)
    room = make_room(author.type("x" * 100), max_document_bytes=200)
    before = room.document.encode_state_as_update()
    data, check = author.replace("y" * 100), Checked(room)
    with pytest.raises(DocumentTooLarge, match=f"document of {room.document.size} bytes, update of {len(data)} bytes"):
        at_once(room.receive_edit_in_slices(data, "ann", check))
    assert not check.calls and unchanged(room, before)
    assert at_once(room.receive_edit_in_slices(data, "ann", check, size=140))
    assert len(check.calls) == 1 and content(room.document.encode_state_as_update()) == "y" * 100
    assert room.document.size - room.document.garbage == 140, "what was overwritten does not count"
    assert at_once(room.receive_edit_in_slices(author.type("z" * 10), "ann", check))
    assert room.document.size - room.document.garbage > 140


def test_what_others_take_between_the_slices_counts_and_nothing_happens_after_the_check() -> None:
    room = make_room()
    data = update(*(section(client, 0, text("a")) for client in range(3_000, 0, -1)))
    check = Checked(room)
    work = room.receive_edit_in_slices(data, "ann", check)
    next(work)
    session = joined(room, "bob")
    room.receive(session, SyncUpdate(update(section(9_999, 0, text("b")))))
    room.receive(session, SyncUpdate(update(section(7, 0, text("a")))))
    others = room.document.encode_state_as_update()
    steps = 0
    while not check.calls:
        steps += 1
        try:
            next(work)
        except StopIteration as stop:
            assert stop.value
    assert check.calls == [others] and steps > 1
    assert room.document.clock(3_000) == 1, "it was taken in the step in which it was checked"
    assert [row.author for row in room.end_turn().rows] == ["bob", "ann"]
