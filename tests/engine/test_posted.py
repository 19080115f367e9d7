"""Updates that a client posts once: as edits of a user, but what has to wait is kept beside the document.

Strategy: bytes in, and what the turn gives out. The document holds ABC of the client 5; 6 is the one who posts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collab.authorship import FirstUse
from collab.engine.document import Document, Row, at_once
from collab.engine.room import Room
from collab.engine.visitors import Visitor
from collab.errors import DocumentTooLarge, Forbidden, UpdateError, UpdateIncomplete
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, Owner, Session
from collab.protocol.sync import SyncUpdate
from tests.support.author import Author, content
from tests.support.build import section, text, update
from tests.support.sessions import admit

ABC = update(section(5, 0, text("abc")))
X = update(section(6, 0, text("x")))
LATE = update(section(6, 0, text("x", origin=(7, 0))))
"""Waits for the first letter of 7."""
HALF = update(section(6, 0, text("x"), text("y", origin=(7, 0))))
"""The first letter is there, the second waits."""
SEVEN = update(section(7, 0, text("7")))


def make_room(*updates: bytes, max_document_bytes: int = 1 << 20, max_kept_bytes: int = 1 << 20) -> Room:
    """Make a room with a document that holds these updates."""
    return Room(
        at_once(Document.load(None, None, updates)),
        max_document_bytes=max_document_bytes,
        max_kept_bytes=max_kept_bytes,
        max_awareness_bytes=1_000,
        max_awareness_ids=3,
    )


def passes() -> None:
    """Let everything in."""


def post(
    room: Room,
    data: bytes,
    author: str | None = "ann",
    admit: Callable[[], object] = passes,
    *,
    own: int | None = None,
    size: int | None = None,
) -> bool:
    return at_once(room.receive_posted_in_slices(data, author, admit, own=own, size=size))


def joined(room: Room, user: str | None) -> Session:
    session = Session()
    admit(session, Access.WRITE, user)
    room.join(session)
    return session


def held(room: Room) -> str:
    return content(room.document.encode_state_as_update())


def test_what_is_posted_is_a_row_of_its_author_and_goes_to_everybody() -> None:
    room = make_room(ABC)
    assert post(room, X) and room.pending
    end = room.end_turn()
    assert end.delta == X and end.rows == (Row(X, "ann"),) and end.author is None
    assert not post(room, X) and not room.pending, "it is known"


def test_what_waits_is_kept_and_comes_in_when_the_rest_is_there() -> None:
    room = make_room()
    assert post(room, LATE) and room.pending
    assert room.kept is not None and len(room.kept) == 1 and room.document.encode_state_as_update() == b"\0\0"
    room.end_turn()
    assert not post(room, LATE) and not room.pending, "it is kept already"
    assert post(room, SEVEN) and room.end_turn().delta == SEVEN
    kept = room.find_kept()
    assert kept is not None and (kept.author, kept.data) == ("ann", LATE)
    at_once(room.receive_kept(kept))
    assert held(room) == "7x" and len(room.kept) == 0


def test_of_what_is_whole_in_part_the_part_is_taken() -> None:
    room = make_room()
    assert post(room, HALF, own=6)
    end = room.end_turn()
    assert [row.data for row in end.rows] == [X]
    assert end.rows[0].first_uses == (), "others of it may have gone before in the turn"
    assert room.kept is not None and len(room.kept) == 1


def test_without_room_for_the_rest_its_sender_hears_what_is_missing() -> None:
    room = make_room(max_kept_bytes=1)
    with pytest.raises(UpdateIncomplete, match="no room to keep") as raised:
        post(room, HALF)
    assert raised.value.missing == (7, 0)
    assert room.pending and [row.data for row in room.end_turn().rows] == [X], "the part stays"


def test_what_may_not_come_in_is_refused_whole() -> None:
    def refuse() -> None:
        raise Forbidden("no")

    room = make_room(ABC)
    with pytest.raises(Forbidden):
        post(room, X, admit=refuse)
    with pytest.raises(UpdateError):
        post(room, b"\x07garbage")
    assert room.document.encode_state_as_update() == ABC and not room.pending and room.kept is None


def test_a_document_that_is_full_takes_only_what_is_known_to_fit() -> None:
    author = Author(1)
    room = make_room(author.type("x" * 100), max_document_bytes=200)
    data = author.replace("y" * 100)
    with pytest.raises(DocumentTooLarge, match=f"document of {room.document.size} bytes, update of {len(data)} bytes"):
        post(room, data)
    assert not room.pending
    assert post(room, data, size=140) and held(room) == "y" * 100
    assert room.document.garbage == room.document.size - 140
    assert post(room, X, size=1 << 20) and room.document.garbage == 0


def test_a_turn_of_a_session_and_what_is_posted_is_of_several() -> None:
    room = make_room()
    session = joined(room, "ann")
    room.receive(session, SyncUpdate(ABC))
    post(room, X)
    assert room.end_turn().author is None, "the session has to be sent what it has not written"


def shows(room: Room, owner: str | None) -> None:
    session = joined(room, owner)
    room.receive(session, AwarenessUpdate(encode_awareness([Entry(6, 1, b"{}")])))


def shown_by_eve(room: Room) -> None:
    shows(room, "eve")


def shown_by_ann(room: Room) -> None:
    shows(room, "ann")


def shown_by_somebody(room: Room) -> None:
    shows(room, None)


def shown_by_a_node(room: Room) -> None:
    room.receive_awareness_of(Owner(), encode_awareness([Entry(6, 1, b"{}")]))


def visited_by_ann(room: Room) -> None:
    room.awareness.visit(Visitor(6, "ann", None), Entry(6, 1, b"{}"), moved=False)


def left_by(user: str | None) -> Callable[[Room], None]:
    def left(room: Room) -> None:
        room.awareness.departed.add(6, 1, user)

    return left


OTHERS: dict[str, tuple[Callable[[Room], None], bool]] = {
    "nobody": (lambda room: None, True),
    "herself, on a socket": (shown_by_ann, True),
    "herself, a visitor": (visited_by_ann, True),
    "another": (shown_by_eve, False),
    "one without a name": (shown_by_somebody, False),
    "one of another node": (shown_by_a_node, False),
    "herself until lately": (left_by("ann"), True),
    "one without a name until lately": (left_by(None), True),
    "another until lately": (left_by("eve"), False),
}


@pytest.mark.parametrize("who", OTHERS)
def test_the_client_id_of_the_one_who_posts_is_hers_unless_it_is_anothers(who: str) -> None:
    before, hers = OTHERS[who]
    room = make_room(ABC)
    before(room)
    room.end_turn()
    assert post(room, X, own=6)
    (row,) = room.end_turn().rows
    assert row.first_uses == ((FirstUse(6, 0, "ann"),) if hers else ())
    assert post(room, update(section(6, 1, text("y", origin=(6, 0)))), own=6)
    (row,) = room.end_turn().rows
    assert row.first_uses == (), "once, and for what it is first used"


@pytest.mark.parametrize(
    ("author", "own", "data"),
    [(None, 6, X), ("ann", None, X), ("ann", 7, X), ("ann", 6, update(gone={5: [(0, 1)]}))],
    ids=["nobody knows the user", "nobody knows the ID", "the ID is not in it", "deletes alone"],
)
def test_otherwise_nothing_is_said_of_a_client_id(author: str | None, own: int | None, data: bytes) -> None:
    room = make_room(ABC)
    assert post(room, data, author, own=own)
    (row,) = room.end_turn().rows
    assert row.first_uses == () and room.first_uses() == []


def test_the_client_id_of_the_server_stays_its_own() -> None:
    room = make_room()
    at_once(room.receive_edit_in_slices(X, "bob", passes, server_client=6))
    assert post(room, update(section(6, 1, text("y", origin=(6, 0)))), own=6)
    room.end_turn()
    assert room.first_uses() == [FirstUse(6, 0, None)]


def test_what_has_waited_says_nothing_of_its_client_id() -> None:
    room = make_room()
    post(room, LATE, own=6)
    post(room, SEVEN, own=7)
    room.end_turn()
    kept = room.find_kept()
    assert kept is not None
    at_once(room.receive_kept(kept))
    assert room.first_uses() == [FirstUse(7, 0, "ann")]
