"""Resets as the engine sees them: which numbers it takes, what no longer counts, and which copies are old.

Strategy: an update that resets is made by ``reset_update``, or put together where it has to be odd. All else is bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collab.engine.document import Applied, Document, at_once
from collab.engine.room import Room
from collab.errors import UpdateError
from collab.protocol.session import Access, Copy, Session
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.update.compact import compact
from collab.update.reset import RESERVED, marker_id, reset_update
from tests.support.build import gc, lines_of_slices, section, text, update
from tests.support.sessions import admit

ANN, BOB, CLEO, DAN = 5, 6, 7, 8
TYPED = update(section(ANN, 0, text("abc")))


def whole(document: Document, data: bytes) -> Applied:
    return document.apply_update(data)


def in_slices(document: Document, data: bytes) -> Applied:
    return at_once(document.apply_update_in_slices(data))


def document_of(*updates: bytes) -> Document:
    document = Document()
    for data in updates:
        assert document.apply_update(data).missing is None
    document.flush()
    return document


def reset(document: Document, *, strict: bool = False, content: bytes | None = None) -> Document:
    """Reset a document."""
    data = reset_update(document.encode_state_as_update(), strict=strict, content=content)
    assert document.apply_update(data).new
    document.flush()
    return document


def markers(*numbers: int, strict: bool = False) -> bytes:
    """Make an update of the markers of resets."""
    return update(*(section(marker_id(number, strict=strict), 0, gc(1)) for number in numbers))


# Numbers


@pytest.mark.parametrize("take", [whole, in_slices])
@pytest.mark.parametrize("numbers", [(1,), (2, 1), (1, 2), (3, 1, 2)])
def test_numbers_are_taken_in_order(take: Callable[[Document, bytes], Applied], numbers: tuple[int, ...]) -> None:
    document = document_of(TYPED)
    assert take(document, markers(*numbers)).new
    assert document.resets == max(numbers)
    take(document, update(section(RESERVED + 4 * (max(numbers) + 1), 0, text("content"))))
    assert document.resets == max(numbers) + 1, "content has a number, too"


@pytest.mark.parametrize("take", [whole, in_slices])
@pytest.mark.parametrize(("numbers", "said"), [((2,), "reset 2, and 0"), ((3, 1), "reset 3, and 1"), ((9,), "reset 9")])
def test_a_number_that_leaves_out_others_is_refused(
    take: Callable[[Document, bytes], Applied], numbers: tuple[int, ...], said: str
) -> None:
    """Else the last one could be taken by one update, and the document never be reset."""
    document = document_of(TYPED)
    for data in (markers(*numbers), update(section(RESERVED + 4 * max(numbers), 0, text("content")))):
        with pytest.raises(UpdateError, match=said if data == markers(*numbers) else "is reserved for"):
            take(document, data)
        assert document.encode_state_as_update() == TYPED and document.resets == 0
        assert not document.in_turn and not document.torn
    assert take(document, markers(1)).new


def test_the_log_is_taken_as_it_is() -> None:
    """A backup may lack resets, and what is in the log must stay readable."""
    assert document_of(TYPED).apply_stored(markers(7)).new
    loaded = at_once(Document.load(None, None, [TYPED, markers(7)]))
    assert loaded.resets == 7
    assert loaded.apply_update(markers(8)).new
    with pytest.raises(UpdateError, match="reset 10, and 8"):
        loaded.apply_update(markers(10))
    assert loaded.apply_update(update(section(RESERVED + 4 * 3, 0, text("x")))).new, "one that was left out"
    assert loaded.resets == 8
    assert loaded.apply_update(markers(4, 9)).new and loaded.resets == 9


def test_a_reset_that_waits_has_not_been_seen() -> None:
    document = document_of(TYPED)
    marker = marker_id(1, strict=True)
    waits = update(section(marker, 0, text("x", origin=(BOB, 0))))
    assert document.apply_update(waits).missing == (BOB, 0)
    assert (document.resets, document.strict, document.garbage) == (0, None, 0)
    document.apply_update(update(section(BOB, 0, text("b"))))
    assert document.apply_update(waits).new and (document.resets, document.strict) == (1, marker)


def test_a_document_knows_its_resets_however_it_was_opened() -> None:
    document = reset(reset(document_of(TYPED), strict=True, content=TYPED))
    told = (2, marker_id(1, strict=True))
    assert (document.resets, document.strict) == told, "the second one is not strict"
    data = document.encode_state_as_update()
    snapshot = compact(data)
    for opened in (
        document.copy(),
        document_of(markers(1), data),
        at_once(Document.load(snapshot.data, snapshot.index, [])),
        at_once(Document.load(snapshot.data, None, [])),
        at_once(Document.load(None, None, [data])),
    ):
        assert (opened.resets, opened.strict) == told


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
def test_the_newest_strict_reset_counts(numbers: tuple[int, ...]) -> None:
    document = document_of(markers(*numbers, strict=True))
    assert document.strict == marker_id(2, strict=True)
    later = document_of(markers(2, 1), markers(3))
    later.apply_stored(markers(1, strict=True))
    assert later.strict == marker_id(1, strict=True)


# What a reset leaves of the size


def test_what_a_reset_has_replaced_does_not_count() -> None:
    document = document_of(update(section(ANN, 0, text("x" * 1_000))))
    before = document.size
    reset(document, content=update(section(1, 0, text("new"))))
    assert document.garbage == before > 1_000
    assert document.size - document.garbage < 200


def test_content_without_a_marker_replaces_nothing() -> None:
    document = document_of(TYPED)
    document.apply_update(update(section(RESERVED + 4, 0, text("content"))))
    assert document.resets == 1 and document.garbage == 0


def test_a_reset_that_is_known_replaces_nothing_once_more() -> None:
    document = reset(document_of(TYPED), content=update(section(1, 0, text("new"))))
    garbage = document.garbage
    document.apply_update(update(section(BOB, 0, text("x" * 1_000))))
    client = document_of(document.encode_state_as_update(), update(section(CLEO, 0, text("c"))))
    assert document.apply_update(client.encode_state_as_update()).new
    assert document.garbage == garbage


# Old copies


def after_a_strict_reset() -> Document:
    """A document that Ann has typed before a strict reset; Bob has typed and deleted since, Cleo typed."""
    document = reset(document_of(TYPED), strict=True, content=update(section(1, 0, text("new"))))
    document.apply_update(update(section(BOB, 0, text("bob")), section(CLEO, 0, text("cleo"))))
    document.apply_update(update(gone={RESERVED + 4: [(0, 3)]}))
    document.flush()
    return document


STRICT = section(marker_id(1, strict=True), 0, gc(1))

COPIES: dict[str, tuple[bytes, bool]] = {
    "structs that were replaced": (TYPED, True),
    "with more than was seen": (update(section(ANN, 0, text("abc"), text("d", origin=(ANN, 2)))), True),
    "behind those of others": (update(section(DAN, 0, text("d")), section(ANN, 0, text("abc"))), True),
    "before those of others": (update(section(ANN, 0, text("abc")), section(DAN, 0, text("d"))), True),
    "what goes on after them": (update(section(ANN, 3, text("d", origin=(ANN, 2)))), False),
    "a client that nobody knows": (update(section(DAN, 0, text("d"))), False),
    "one that is not deleted": (update(section(CLEO, 0, text("cleo"))), False),
    "content of the reset that is deleted since": (update(section(RESERVED + 4, 0, text("new"))), False),
    "deletes alone": (update(gone={ANN: [(0, 3)]}), False),
    "nothing": (EMPTY_UPDATE, False),
    "the marker, and what was replaced": (update(STRICT, section(ANN, 0, text("abc"))), False),
    "what was replaced, and the marker": (update(section(ANN, 0, text("abc")), STRICT), False),
    "a marker that is not strict": (
        update(section(marker_id(1), 0, gc(1)), section(ANN, 0, text("abc"))),
        True,
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_an_old_copy_begins_again_what_was_replaced_and_lacks_the_marker(name: str) -> None:
    data, repeats = COPIES[name]
    document = after_a_strict_reset()
    before = document.encode_state_as_update()
    assert at_once(document.repeats_replaced(data)) == repeats
    assert document.encode_state_as_update() == before and not document.in_turn


def test_an_old_copy_of_many_clients_is_looked_for_in_slices_and_a_malformed_one_refused() -> None:
    document = after_a_strict_reset()
    data = update(*(section(client, 0, text("a")) for client in range(5_100, 100, -1)), section(ANN, 0, text("abc")))
    slices, repeats = lines_of_slices(document.repeats_replaced(data))
    assert repeats and len(slices) > 10 and max(slices) < 20_000
    assert at_once(document.repeats_replaced(data))
    with pytest.raises(UpdateError):
        at_once(document.repeats_replaced(b"\x07garbage"))


def come(room: Room, vector: bytes, access: Access = Access.WRITE) -> Session:
    """Let a client join and say what it has."""
    session = Session()
    admit(session, access)
    room.join(session)
    room.receive(session, SyncStep1(vector))
    return session


def room_of(document: Document) -> Room:
    return Room(document, max_document_bytes=1 << 20, max_awareness_bytes=1_000, max_awareness_ids=3)


def dated(room: Room, session: Session, data: bytes) -> bool:
    return at_once(room.is_dated(session, data))


NEXT = update(section(DAN, 0, text("d")))


def test_no_copy_is_old_where_no_reset_was_strict() -> None:
    for document in (document_of(TYPED), reset(document_of(TYPED))):
        session = come(room := room_of(document), b"\0")
        assert session.copy is Copy.CURRENT and not dated(room, session, TYPED)


def test_a_client_that_lacks_the_marker_has_an_old_copy_until_it_has_answered() -> None:
    room = room_of(after_a_strict_reset())
    session = come(room, document_of(TYPED).encode_state_vector())
    assert session.copy is Copy.OLD
    assert dated(room, session, TYPED) and dated(room, session, NEXT), "its first answer holds what was never seen"
    room.receive(session, SyncStep2(EMPTY_UPDATE))
    assert session.copy is Copy.LATE
    assert dated(room, session, TYPED), "read from a disk late"
    assert not dated(room, session, NEXT), "what it types now is new"
    room.receive(session, SyncUpdate(NEXT))
    assert room.end_turn().delta == NEXT and session.copy is Copy.LATE


def test_a_client_that_has_the_marker_brings_anything() -> None:
    room = room_of(after_a_strict_reset())
    session = come(room, room.document.encode_state_vector())
    assert session.copy is Copy.CURRENT and not dated(room, session, TYPED)
    room.receive(session, SyncStep2(EMPTY_UPDATE))
    assert session.copy is Copy.CURRENT and not dated(room, session, TYPED)
    late = come(room, b"\0")
    room.receive(late, SyncStep2(EMPTY_UPDATE))
    room.receive(late, SyncStep1(room.document.encode_state_vector()))
    assert late.copy is Copy.CURRENT, "it has said since that it has it"


def test_what_a_reader_sends_is_refused_anyhow_and_not_looked_at() -> None:
    room = room_of(after_a_strict_reset())
    session = come(room, b"\0", Access.READ)
    assert session.copy is Copy.OLD and not dated(room, session, TYPED)
