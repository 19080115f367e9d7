"""The room's rules with bytes in and effects out; updates are made by a real CRDT.

Strategy: a rule for updates is tested once and holds for both ways in: ``feed`` is ``receive`` in one run, and
``receive_in_slices`` to its end in the other. What may happen between two slices has tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import pytest
from pycrdt import Doc, Text

from collab.engine.document import Document, Row, at_once
from collab.engine.kept import KeptUpdate, make_key
from collab.engine.room import (
    READ_ONLY,
    Ack,
    Answer,
    Claim,
    Effect,
    Probe,
    Refused,
    Relay,
    Room,
    Send,
    TurnEnd,
    Unkept,
    Unseen,
    read_only_notice,
)
from collab.errors import DecodeError, DocumentTooLarge, LimitExceeded, StoreUnavailable, UpdateError
from collab.protocol.awareness import AwarenessUpdate, Entry, QueryAwareness, decode_awareness, encode_awareness
from collab.protocol.messages import LocalVersion, PermissionDenied, Stateless, SyncStatus
from collab.protocol.session import Access, Owner, Session, State
from collab.protocol.sync import EMPTY_STATE_VECTOR, EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.update.compact import compact
from collab.update.merge import merge_updates
from tests.support.author import Author, content
from tests.support.sessions import admit

Update = SyncUpdate | SyncStep2
Slices = Generator[None, None, Sequence[Effect]]


class Feed(Protocol):
    """One of the two ways into the room for an update."""

    def __call__(
        self, room: Room, session: Session, message: Update, *, backlog_full: bool = False
    ) -> Sequence[Effect]: ...


def whole(room: Room, session: Session, message: Update, *, backlog_full: bool = False) -> Sequence[Effect]:
    return room.receive(session, message, backlog_full=backlog_full)


def in_slices(room: Room, session: Session, message: Update, *, backlog_full: bool = False) -> Sequence[Effect]:
    return at_once(room.receive_in_slices(session, message, backlog_full=backlog_full))


@pytest.fixture(params=[whole, in_slices], ids=["whole", "in slices"])
def feed(request: pytest.FixtureRequest) -> Feed:
    chosen: Feed = request.param
    return chosen


def make_room(max_document_bytes: int = 1 << 20, **limits: int) -> Room:
    limits = {"max_awareness_bytes": 1_000, "max_awareness_ids": 3, **limits}
    return Room(Document(), max_document_bytes=max_document_bytes, **limits)


class Acknowledged(Session):
    """A session whose protocol says "saved" and knows stateless messages."""

    acknowledges = True
    stateless = True


class Quiet(Acknowledged):
    """A session whose client says only when it is asked that it has taken another clock."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.quiet = True


def arrived(kind: type[Session] = Session, access: Access = Access.WRITE) -> Session:
    session = kind()
    admit(session, access)
    return session


def joined(
    room: Room, *, answered: bool = True, kind: type[Session] = Session, access: Access = Access.WRITE
) -> Session:
    session = arrived(kind, access)
    room.join(session)
    if answered:
        room.receive(session, SyncStep2(EMPTY_UPDATE))
        room.end_turn()
    return session


def answered(room: Room, effects: Sequence[Effect]) -> bytes:
    """Give the update that answers a SyncStep1, for which the room asks the one that performs its effects."""
    (effect,) = effects
    assert isinstance(effect, Answer) and effect.question is None
    return room.document.encode_state_as_update(effect.state_vector)


def asked(effects: Sequence[Effect]) -> bool:
    return [type(e.message) if isinstance(e, Send) else e for e in effects] == [SyncStep1]


def said(room: Room, session: Session) -> list[bool]:
    """End the turn and give the acks for one session."""
    return [ack.saved for ack in room.end_turn().acks if ack.session is session]


def held(room: Room) -> str:
    """Give what the document holds."""
    return content(room.document.encode_state_as_update())


def test_a_turn_has_something_to_end_until_it_is_ended() -> None:
    room = make_room()
    session = joined(room, kind=Acknowledged)
    assert not room.gathered
    edit = SyncUpdate(Author(1).type("abc"))
    for message in (edit, AwarenessUpdate(b"\1\7\1\2{}"), edit):
        room.receive(session, message)
        assert room.gathered, "the last one has its acknowledgement alone"
        room.end_turn()
        assert not room.gathered


# Joining, and what is asked


def test_a_joining_client_is_asked_for_what_the_room_lacks() -> None:
    room = make_room()
    session = arrived()
    (effect,) = room.join(session)
    assert effect == Send(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert type(effect) is Send and type(effect.message) is SyncStep1
    assert session.state is State.LIVE
    assert session.unanswered == 1
    assert list(room.sessions) == [session]


def test_a_client_that_may_write_by_now_is_asked_again_unless_its_answer_is_to_come() -> None:
    room = make_room()
    session = joined(room, answered=False)
    assert room.ask_again(session) == ()
    room.receive(session, SyncStep2(EMPTY_UPDATE))
    assert room.ask_again(session) == (Send(session, SyncStep1(EMPTY_STATE_VECTOR)),)
    assert session.unanswered == 1 and room.ask_again(session) == ()


def test_step_1_is_answered_to_its_sender_alone_with_only_what_it_lacks() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    first = a.type("a")
    room.receive(session, SyncUpdate(first))
    state_vector = a.doc.get_state()
    room.receive(session, SyncUpdate(a.type("b")))
    answer = answered(room, room.receive(session, SyncStep1(EMPTY_STATE_VECTOR)))
    assert content(answer) == "ab", "the tail belongs inside step 2, broadcast or not"
    answer = answered(room, room.receive(session, SyncStep1(state_vector)))
    other: Doc[Text] = Doc()
    text = other.get("t", type=Text)
    other.apply_update(first)
    other.apply_update(answer)
    assert str(text) == "ab"
    assert len(answer) < len(a.doc.get_update())


def test_one_that_acknowledges_and_syncs_again_is_asked_again() -> None:
    room = make_room()
    session = joined(room, kind=Acknowledged, answered=False)
    (first,) = room.receive(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert first == Answer(session, EMPTY_STATE_VECTOR, None), "it was asked when it joined"
    room.receive(session, SyncStep2(EMPTY_UPDATE))
    (second,) = room.receive(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert second == Answer(session, EMPTY_STATE_VECTOR, SyncStep1(EMPTY_STATE_VECTOR))
    (third,) = room.receive(joined(room), SyncStep1(EMPTY_STATE_VECTOR))
    assert isinstance(third, Answer) and third.question is None, "the protocol of this one does not acknowledge"
    assert session.unanswered == 1


@pytest.mark.parametrize("vector", [b"", b"\x01", b"\x02\x01\x01", b"\xff\xff\xff\xff\x0f", b"\x00\x00"])
def test_a_malformed_state_vector_is_refused(vector: bytes) -> None:
    room = make_room()
    with pytest.raises(DecodeError):
        answered(room, room.receive(joined(room), SyncStep1(vector)))


def test_a_lying_state_vector_gets_the_little_that_is_above_it() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    room.receive(session, SyncUpdate(a.type("abc")))
    assert answered(room, room.receive(session, SyncStep1(b"\x02\x01\xff\x7f\x63\x05"))) == EMPTY_UPDATE


# Updates and turns


def test_one_update_travels_as_the_very_bytes_that_came(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("hello")
    assert feed(room, session, SyncUpdate(update)) == ()
    assert room.pending
    end = room.end_turn()
    assert end.delta is update
    assert [row.data for row in end.rows] == [update]
    assert not room.pending


@pytest.mark.parametrize("access", [Access.WRITE, Access.ADMIN])
@pytest.mark.parametrize("kind", [Session, Acknowledged])
@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
def test_what_is_new_is_for_everybody(
    feed: Feed, access: Access, kind: type[Session], message: Callable[[bytes], Update]
) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, kind=kind, access=access, answered=False)
    assert feed(room, session, message(a.type("new"))) == ()
    assert session.unanswered == (0 if message is SyncStep2 else 1)
    assert room.pending
    end = room.end_turn()
    assert end.delta is not None and content(end.delta) == held(room) == "new"
    assert end.acks == ([Ack(session, True)] if kind is Acknowledged else [])
    assert end.author is session


def test_the_updates_of_a_turn_travel_as_one_delta(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    session, other = joined(room), joined(room)
    for letter in "abc":
        feed(room, session, SyncUpdate(a.type(letter)))
    feed(room, other, SyncUpdate(b.type("x")))
    end = room.end_turn()
    assert end.delta is not None
    assert sorted(content(end.delta)) == ["a", "b", "c", "x"]
    assert room.end_turn().delta is None


def test_rows_are_cut_where_the_author_changes(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    ann, bob = arrived(), arrived()
    ann.author, bob.author = "ann", "bob"
    room.join(ann)
    room.join(bob)
    feed(room, ann, SyncUpdate(a.type("1")))
    feed(room, ann, SyncUpdate(a.type("2")))
    feed(room, bob, SyncUpdate(b.type("3")))
    feed(room, ann, SyncUpdate(a.type("4")))
    assert [row.author for row in room.end_turn().rows] == ["ann", "bob", "ann"]


def test_what_says_nothing_new_is_neither_relayed_nor_stored(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("a")
    feed(room, session, SyncUpdate(update))
    room.end_turn()
    feed(room, session, SyncUpdate(update))
    feed(room, session, SyncStep2(a.doc.get_update()))
    feed(room, session, SyncUpdate(EMPTY_UPDATE))
    assert not room.pending
    end = room.end_turn()
    assert end.delta is None
    assert end.rows == ()
    assert end.author is None


def test_a_turn_names_its_author_if_there_is_only_one(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    one, two = joined(room), joined(room, kind=Acknowledged)
    assert room.end_turn().author is None
    for _ in range(2):
        feed(room, one, SyncUpdate(a.type("a")))
        feed(room, one, SyncUpdate(a.type("b")))
        feed(room, two, SyncUpdate(a.doc.get_update()))  # says nothing new
        assert room.end_turn().author is one
        feed(room, one, SyncUpdate(a.type("c")))
        feed(room, two, SyncStep2(b.type("x")))
        feed(room, one, SyncUpdate(a.type("d")))
        assert room.end_turn().author is None
        feed(room, one, SyncStep2(a.type("e")))
        feed(room, one, SyncStep2(a.type("f")))
        assert room.end_turn().author is one
        feed(room, one, SyncUpdate(a.type("g")))
        feed(room, two, SyncUpdate(b.type("y")))
        assert room.end_turn().author is None


def test_a_malformed_update_is_refused_and_changes_nothing(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("abc")
    for bad in (update[:-1], update + b"\x00", b"\x01\x00\x05\x00\x00", b"\xff" * 20, b""):
        with pytest.raises(UpdateError):
            feed(room, session, SyncUpdate(bad))
        with pytest.raises(UpdateError):
            feed(room, session, SyncStep2(bad))
    assert not room.pending
    assert room.document.encode_state_as_update() == EMPTY_UPDATE


# The bound of a document, and the backlog


def test_a_document_grows_up_to_its_bound_and_its_clients_can_still_resync(feed: Feed) -> None:
    room, a = make_room(max_document_bytes=200), Author(1)
    session = joined(room)
    update = a.type("x" * 100)
    feed(room, session, SyncUpdate(update))
    with pytest.raises(DocumentTooLarge):
        feed(room, session, SyncUpdate(a.type("y" * 100)))
    feed(room, session, SyncStep2(update))
    delta = room.end_turn().delta
    assert delta is not None and content(delta) == "x" * 100


def test_what_is_known_to_fit_is_taken_and_what_it_overwrites_does_not_count() -> None:
    room, a = make_room(max_document_bytes=200), Author(1)
    session = joined(room)
    at_once(room.receive_in_slices(session, SyncUpdate(a.type("x" * 100))))
    update = SyncUpdate(a.replace("y" * 100))
    assert room.is_full(update.update)
    at_once(room.receive_in_slices(session, update, size=140))
    assert held(room) == "y" * 100
    assert room.document.size - room.document.garbage == 140
    small = a.type("z" * 10)
    assert not room.is_full(small)
    at_once(room.receive_in_slices(session, SyncUpdate(small)))
    # A snapshot leaves the garbage out.
    compacted = compact(room.document.encode_state_as_update())
    room.document.rebase(compacted.data, compacted.index, room.document.encode_state_vector())
    assert room.document.garbage == 0 and room.document.size < 200


@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
def test_the_bound_itself_is_allowed(feed: Feed, message: Callable[[bytes], Update]) -> None:
    update = Author(1).type("x" * 100)
    size = Document().size + len(update)
    room = make_room(size - 1)
    with pytest.raises(DocumentTooLarge):
        feed(room, joined(room), message(update))
    assert held(room) == ""
    room = make_room(size)
    feed(room, joined(room), message(update))
    assert held(room) == "x" * 100


@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_with_a_full_backlog_only_what_is_new_is_put_off(
    feed: Feed, kind: type[Session], message: Callable[[bytes], Update]
) -> None:
    room, a = make_room(), Author(1)
    known = a.type("known")
    room.receive(joined(room), SyncUpdate(known))
    room.end_turn()
    session = joined(room, kind=kind)
    assert feed(room, session, message(known), backlog_full=True) == ()
    assert room.pending is (kind is Acknowledged)
    assert said(room, session) == ([True] if kind is Acknowledged else []), "one that only comes back is not sent away"
    a.type(" and new")
    with pytest.raises(StoreUnavailable):
        feed(room, session, message(a.doc.get_update()), backlog_full=True)
    assert room.end_turn() == TurnEnd(None, (), [], None, None, (), None)
    assert held(room) == "known"
    assert feed(room, session, message(a.doc.get_update())) == ()
    assert held(room) == "known and new", "later, as it was told"


def test_with_a_full_backlog_malformed_updates_and_readers_are_refused_all_the_same(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    writer, speaks = joined(room), joined(room, kind=Acknowledged)
    with pytest.raises(UpdateError):
        feed(room, writer, SyncUpdate(b"\xff"), backlog_full=True)
    assert feed(room, speaks, SyncUpdate(b"\xff"), backlog_full=True) == ()
    assert said(room, speaks) == [False]
    reader, viewer = joined(room, kind=Acknowledged, access=Access.READ), joined(room, access=Access.READ)
    update = SyncUpdate(a.type("new"))
    assert feed(room, reader, update, backlog_full=True) == (Refused(reader, "an edit"),)
    assert said(room, reader) == [False]
    assert Refused(viewer, "an edit") in feed(room, viewer, update, backlog_full=True)
    assert held(room) == ""


def test_too_large_is_not_said_while_the_backlog_is_full(feed: Feed) -> None:
    """A refusal for good must be one: what is too large now may be known when the backlog is not full."""
    room, a = make_room(max_document_bytes=40), Author(1)
    with pytest.raises(StoreUnavailable):
        feed(room, joined(room, kind=Acknowledged), SyncUpdate(a.type("x" * 60)), backlog_full=True)


# Acknowledgements


def test_acks_are_one_an_update_in_order_and_only_for_who_understands_them(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    speaks, silent = joined(room, kind=Acknowledged), joined(room)
    update = a.type("a")
    feed(room, speaks, SyncUpdate(update))
    feed(room, silent, SyncUpdate(b.type("x")))
    feed(room, speaks, SyncUpdate(b"\xff"))
    feed(room, speaks, SyncUpdate(a.type("b")))
    feed(room, speaks, SyncUpdate(update))
    feed(room, speaks, SyncStep2(update))
    acks = room.end_turn().acks
    assert {ack.session for ack in acks} == {speaks}
    assert [ack.saved for ack in acks] == [True, False, True, True, True]
    assert room.end_turn().acks == []


def test_an_ack_alone_makes_the_turn_pending(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session, update = joined(room, kind=Acknowledged), a.type("a")
    feed(room, session, SyncUpdate(update))
    room.end_turn()
    for message in (SyncUpdate(update), SyncStep2(update), SyncUpdate(b"\xff")):
        feed(room, session, message)
        assert room.pending, message
        assert room.end_turn().delta is None


def test_a_refusal_is_an_ack_for_who_understands_it_and_an_error_for_others(feed: Feed) -> None:
    room = make_room()
    speaks, silent = joined(room, kind=Acknowledged, answered=False), joined(room)
    update = b"\x07garbage"
    assert feed(room, speaks, SyncUpdate(update)) == ()
    assert speaks.unanswered == 1, "an update is no answer"
    assert feed(room, speaks, SyncStep2(update)) == ()
    assert said(room, speaks) == [False, False]
    with pytest.raises(UpdateError):
        feed(room, silent, SyncUpdate(update))
    assert not speaks.unanswered, "a refused SyncStep2 is an answer all the same"
    assert held(room) == ""


@pytest.mark.parametrize("kind", [Session, Acknowledged])
@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
def test_what_makes_the_document_too_large_is_an_error_for_everybody(
    feed: Feed, kind: type[Session], message: Callable[[bytes], Update]
) -> None:
    room = make_room(max_document_bytes=40)
    session = joined(room, kind=kind)
    with pytest.raises(DocumentTooLarge):
        feed(room, session, message(Author(1).type("x" * 60)))
    assert held(room) == ""


@pytest.mark.parametrize("answer", [True, False])
def test_an_edit_of_a_reader_that_was_not_read_is_refused_as_any_other(answer: bool) -> None:
    room = make_room()
    speaks, silent = joined(room, kind=Acknowledged, answered=False), joined(room, answered=False)
    for session in (speaks, silent):
        session.access = Access.READ
    assert room.refuse_unread(speaks, answer=answer) == (Refused(speaks, "an edit"),)
    assert said(room, speaks) == [False]
    told = Send(silent, PermissionDenied(READ_ONLY))
    assert room.refuse_unread(silent, answer=answer) == (Refused(silent, "an edit"), told)
    assert speaks.unanswered == silent.unanswered == (0 if answer else 1)


def test_an_update_that_is_not_whole_is_kept_and_acknowledged_with_what_comes_behind_it(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, kind=Acknowledged)
    a.type("lost")
    assert asked(feed(room, session, SyncUpdate(a.type("b"))))
    feed(room, session, SyncUpdate(b"\xff"))
    feed(room, session, SyncUpdate(Author(2).type("whole")))
    end = room.end_turn()
    assert [ack.saved for ack in end.acks] == [True, False, True]
    assert end.kept is not None and len(end.kept.added) == 1, "to be stored with the rows, before anybody is told"
    assert held(room) == "whole"
    feed(room, session, SyncStep2(a.doc.get_update()))
    assert room.pending
    assert said(room, session) == [True]


def test_for_an_answer_that_cannot_be_kept_the_answer_is_no_and_nothing_waits_behind_it(feed: Feed) -> None:
    room, a = make_room(max_kept_bytes=0), Author(1)
    session = joined(room, kind=Acknowledged)
    a.type("lost")
    rest = a.type("b")
    assert list(feed(room, session, SyncStep2(rest))) == [Unkept(session, len(rest))]
    feed(room, session, SyncUpdate(Author(2).type("whole")))
    end = room.end_turn()
    assert [ack.saved for ack in end.acks] == [False, True] and end.kept is None


@pytest.mark.parametrize("early", [False, True], ids=["while it syncs", "later"])
def test_an_update_that_cannot_be_kept_is_acknowledged_by_the_answer_that_holds_it(feed: Feed, early: bool) -> None:
    room, a = make_room(max_kept_bytes=0), Author(1)
    session = joined(room, kind=Acknowledged, answered=not early)
    a.type("offline")
    effects = feed(room, session, SyncUpdate(a.type("a large one")))
    assert list(effects) == [] if early else asked(effects)
    feed(room, session, SyncUpdate(b"\xff"))
    feed(room, session, SyncUpdate(Author(2).type("whole")))
    assert said(room, session) == [], "in the order in which they came"
    feed(room, session, SyncStep2(a.doc.get_update()))
    assert said(room, session) == [True, False, True, True]


def test_an_answer_without_what_could_not_be_kept_tells_that(feed: Feed) -> None:
    room, a = make_room(max_kept_bytes=0), Author(1)
    session = joined(room, kind=Acknowledged)
    a.type("lost")
    feed(room, session, SyncUpdate(a.type("b")))
    feed(room, session, SyncStep2(EMPTY_UPDATE))
    assert said(room, session) == [False, True]
    feed(room, session, SyncUpdate(a.type("c")))
    rest = a.type("d")
    effects = feed(room, session, SyncStep2(rest))
    assert Unkept(session, len(rest)) in effects
    assert said(room, session) == [False, False]


def test_an_answer_that_is_kept_saves_what_could_not_be_kept_before(feed: Feed) -> None:
    room, a, gone = make_room(max_kept_bytes=2_000), Author(1), Author(2)
    session = joined(room, kind=Acknowledged)
    gone.type("nobody has this")
    small = gone.type("!")
    a.type("offline")
    feed(room, session, SyncUpdate(a.type("x" * 2_000)))
    assert said(room, session) == []
    with_pending = merge_updates([a.doc.get_update(), small])
    feed(room, session, SyncStep2(with_pending))
    end = room.end_turn()
    assert [ack.saved for ack in end.acks] == [True, True] and end.kept is not None


def test_updates_that_nobody_has_read_are_acknowledged_by_the_answer_that_holds_them(feed: Feed) -> None:
    room, stranger = make_room(), Author(2)
    stranger.type("nobody has this")
    session = joined(room, kind=Acknowledged, answered=False)
    session.held = [True, True]
    feed(room, session, SyncUpdate(Author(3).type("x")))
    assert said(room, session) == [], "in the order in which they came"
    feed(room, session, SyncStep2(stranger.type("!")))
    assert said(room, session) == [True, True, True, True], "its own edits are in it, what it lacks is another's"
    session.held = [True]
    feed(room, session, SyncStep2(EMPTY_UPDATE))
    assert said(room, session) == [], "what nobody has asked for may not hold them"


def test_acknowledgements_that_wait_for_an_answer_are_bounded(feed: Feed) -> None:
    room = make_room()
    session = joined(room, kind=Acknowledged, answered=False)
    session.held = [True] * 9_999
    update = SyncUpdate(Author(1).type("b"))
    feed(room, session, update)
    with pytest.raises(LimitExceeded, match="no answer"):
        feed(room, session, update)


# Updates that are kept


def taken(room: Room) -> list[bool]:
    """Take what may wait no more, as the hub does."""
    found = []
    while (update := room.find_kept()) is not None:
        found.append(at_once(room.receive_kept(update)))
    return found


def test_what_waits_is_taken_when_the_rest_comes_with_its_author(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    holder, author = joined(room), joined(room)
    holder.author, author.author = "holder", "author"
    missing = a.type("first")
    b.read(missing)
    feed(room, holder, SyncStep2(b.type("second")))
    room.leave(holder)
    end = room.end_turn()
    assert end.delta is None and end.kept is not None
    (kept,) = end.kept.added
    assert (kept.author, kept.missing, end.kept.settled) == ("holder", {1: 4}, ())
    assert taken(room) == []
    feed(room, author, SyncUpdate(missing))
    assert room.end_turn().kept is None
    assert taken(room) == [True] and room.pending
    end = room.end_turn()
    assert end.rows == (Row(kept.data, "holder"),) and end.kept == ((), (kept.key,)) and end.author is None
    assert held(room) == "firstsecond" and room.kept is not None and not len(room.kept)


def test_deletions_wait_too(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session, other = joined(room, answered=False), joined(room)
    missing = a.type("abc")
    del a.text[1:2]
    gone = a.updates[-1]
    feed(room, session, SyncStep2(gone))
    room.end_turn()
    assert taken(room) == []
    feed(room, other, SyncUpdate(missing))
    room.end_turn()
    assert taken(room) == [True]
    assert held(room) == "ac"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_what_waits_for_several_is_tried_when_any_of_them_comes(feed: Feed, order: tuple[int, int, int]) -> None:
    room, authors = make_room(), [Author(number) for number in (1, 2, 3)]
    session, other = joined(room, answered=False), joined(room)
    missing = [author.type(f"{at}") for at, author in enumerate(authors)]
    feed(room, session, SyncStep2(merge_updates([author.type("+") for author in authors])))
    room.end_turn()
    for count, at in enumerate(order, 1):
        feed(room, other, SyncUpdate(missing[at]))
        room.end_turn()
        assert taken(room) == [count == 3]
        room.end_turn()
        assert len(held(room)) == 2 * count, "what builds on it, though others are missing"


def test_what_is_kept_is_cut_to_what_the_document_lacks(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    session = joined(room, answered=False)
    missing = a.type("known")
    b.read(missing)
    rest = b.type("?")
    own = Author(3)
    feed(room, session, SyncStep2(merge_updates([own.type("mine"), rest])))
    end = room.end_turn()
    assert end.kept is not None and end.delta is not None and content(end.delta) == "mine"
    assert [update.data for update in end.kept.added] == [rest]


def test_what_became_known_in_another_way_is_kept_no_longer(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, answered=False)
    missing, rest = a.type("a"), a.type("b")
    feed(room, session, SyncUpdate(rest))
    room.end_turn()
    feed(room, session, SyncStep2(a.doc.get_update()))
    assert room.end_turn().kept is None and taken(room) == [True]
    end = room.end_turn()
    assert end.delta is None and end.kept == ((), (make_key(rest),))
    assert held(room) == "ab" and missing


def test_a_row_of_another_node_may_be_what_was_waited_for(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, answered=False)
    missing, rest = a.type("a"), a.type("b")
    feed(room, session, SyncStep2(rest))
    room.end_turn()
    room.receive_stored(missing, None)
    room.end_turn()
    assert taken(room) == [True] and held(room) == "ab"


def test_what_the_store_keeps_is_tried_at_once_and_malformed_it_is_left_out() -> None:
    room, a = make_room(), Author(1)
    missing, rest = a.type("a"), a.type("b")
    room.receive_stored(missing, None)
    room.end_turn()
    bad = b"\xff"
    room.load_kept([KeptUpdate.stored(make_key(data), data, None) for data in (bad, rest)])
    update = room.find_kept()
    assert update is not None
    with pytest.raises(UpdateError):
        at_once(room.receive_kept(update))
    assert taken(room) == [True]
    end = room.end_turn()
    assert end.kept == ((), (make_key(rest),)) and held(room) == "ab"
    room.forget_kept()
    make_room().forget_kept()


# Readers


def test_a_reader_changes_nothing_and_is_told_so_in_its_own_way(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    first = a.type("a")
    room.receive(joined(room), SyncUpdate(first))
    room.end_turn()
    reader = joined(room, kind=Acknowledged, access=Access.READ, answered=False)
    viewer = joined(room, access=Access.READ, answered=False)
    more = a.type("b")
    for message, saved, told in (
        (SyncStep2(first), True, 0),
        (SyncUpdate(first), False, 0),
        (SyncUpdate(more), False, 1),
        (SyncStep2(more), False, 1),
    ):
        assert feed(room, reader, message) == (() if saved else (Refused(reader, "an edit"),))
        assert said(room, reader) == [saved], message
        effects = feed(room, viewer, message)
        assert effects == ((Refused(viewer, "an edit"), Send(viewer, PermissionDenied(READ_ONLY))) if told else ())
    assert feed(room, reader, SyncUpdate(b"\xff")) == () and said(room, reader) == [False]
    with pytest.raises(UpdateError):
        feed(room, viewer, SyncUpdate(b"\xff"))
    assert not reader.unanswered and not viewer.unanswered
    assert held(room) == "a"
    assert content(answered(room, room.receive(viewer, SyncStep1(EMPTY_STATE_VECTOR)))) == "a"


@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_a_readers_update_is_no_answer(feed: Feed, kind: type[Session]) -> None:
    room = make_room()
    reader = joined(room, kind=kind, access=Access.READ, answered=False)
    feed(room, reader, SyncUpdate(Author(1).type("x")))
    assert reader.unanswered == 1
    feed(room, reader, SyncStep2(EMPTY_UPDATE))
    assert reader.unanswered == 0


def test_access_may_change_while_the_session_lives(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, access=Access.READ)
    feed(room, session, SyncUpdate(a.type("a")))
    assert held(room) == ""
    session.access = Access.WRITE
    feed(room, session, SyncUpdate(a.doc.get_update()))
    assert held(room) == "a"
    session.access = Access.READ
    feed(room, session, SyncUpdate(a.type("b")))
    assert held(room) == "a"


# Asking back


def test_an_update_with_a_gap_is_asked_for_once(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    a.type("lost")
    later = [a.type("b"), a.type("c")]
    assert asked(feed(room, session, SyncUpdate(later[0])))
    assert feed(room, session, SyncUpdate(later[1])) == (), "its answer to the open question holds this one too"
    assert room.end_turn().delta is None, "never relayed before it is whole"
    feed(room, session, SyncStep2(a.doc.get_update()))
    end = room.end_turn()
    assert end.delta is not None
    assert content(end.delta) == "lostbc"


def test_nothing_is_asked_while_the_first_question_is_open(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room, answered=False)
    a.type("offline")
    assert feed(room, session, SyncUpdate(a.type("x"))) == ()
    feed(room, session, SyncStep2(a.doc.get_update()))
    delta = room.end_turn().delta
    assert delta is not None and content(delta) == "offlinex"


def test_an_answer_to_no_question_is_not_counted(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    for _ in range(3):
        feed(room, session, SyncStep2(EMPTY_UPDATE))
    assert session.unanswered == 0
    a.type("lost")
    assert asked(feed(room, session, SyncUpdate(a.type("b")))), "no question is open"


def test_an_answer_that_is_not_whole_is_asked_for_again_only_when_the_room_passes_the_gap(feed: Feed) -> None:
    room, a, b, c = make_room(), Author(1), Author(2), Author(3)
    author, holder = joined(room), joined(room, answered=False)
    missing = a.type("first")
    b.read(missing)
    pending = b.type("second")  # its origin is in what the room lacks
    assert feed(room, holder, SyncStep2(pending)) == (), "asking at once would never end"
    assert not room.end_turn().effects
    feed(room, author, SyncUpdate(c.type("another")))
    assert not room.end_turn().effects, "this is not what it waits for"
    feed(room, author, SyncUpdate(missing))
    end = room.end_turn()
    assert asked(end.effects)
    assert end.effects[0].session is holder
    feed(room, holder, SyncStep2(b.doc.get_update()))
    delta = room.end_turn().delta
    assert delta is not None
    assert not room.end_turn().effects
    feed(room, author, SyncUpdate(c.type("!")))
    assert not room.end_turn().effects, "it was asked for once"


def test_one_that_is_asked_already_is_not_asked_again_when_the_room_passes_the_gap(feed: Feed) -> None:
    room, a, b, c = make_room(), Author(1), Author(2), Author(3)
    author, holder = joined(room), joined(room, answered=False)
    missing = a.type("first")
    b.read(missing)
    feed(room, holder, SyncStep2(b.type("second")))
    c.type("lost")
    assert asked(feed(room, holder, SyncUpdate(c.type("x"))))
    feed(room, author, SyncUpdate(missing))
    assert not room.end_turn().effects, "the coming answer holds all of it"
    feed(room, holder, SyncStep2(EMPTY_UPDATE))
    feed(room, author, SyncUpdate(a.type("!")))
    assert not room.end_turn().effects


def test_one_that_has_left_is_asked_for_nothing(feed: Feed) -> None:
    room, a, b = make_room(), Author(1), Author(2)
    author, holder = joined(room), joined(room, answered=False)
    missing = a.type("first")
    b.read(missing)
    feed(room, holder, SyncStep2(b.type("second")))
    room.leave(holder)
    assert room.end_turn().delta is None and list(room.sessions) == [author]
    feed(room, author, SyncUpdate(missing))
    assert not room.end_turn().effects


# Between two slices


def type_backwards(author: Author) -> None:
    """Make 2,000 structs, which are read in several slices."""
    for n in range(2_000):
        author.text.insert(0, f"{n % 10}")


def large_update(client: int) -> bytes:
    author = Author(client)
    type_backwards(author)
    return author.doc.get_update()


LARGE, OTHER = large_update(77), large_update(78)
TEXT = content(LARGE)


def begun(room: Room, session: Session, message: Update, *, backlog_full: bool = False) -> Slices:
    """Begin to read a large update, and stop after the second slice."""
    work = room.receive_in_slices(session, message, backlog_full=backlog_full)
    next(work)
    next(work)
    assert not room.pending
    return work


def test_a_large_update_joins_the_turn_in_which_it_ends() -> None:
    room, a = make_room(), Author(1)
    session, other = joined(room), joined(room)
    work = begun(room, session, SyncUpdate(LARGE))
    room.receive(other, SyncUpdate(a.type("between")))
    end = room.end_turn()
    assert end.delta is not None and content(end.delta) == "between" and end.author is other
    assert at_once(work) == ()
    assert room.pending
    end = room.end_turn()
    assert end.delta is LARGE and end.author is session and not end.acks


def test_a_large_update_beside_a_small_one_of_the_same_turn_has_several_authors() -> None:
    room, a = make_room(), Author(1)
    session, other = joined(room, kind=Acknowledged), joined(room, kind=Acknowledged)
    work = begun(room, session, SyncUpdate(LARGE))
    room.receive(other, SyncUpdate(a.type("between")))
    at_once(work)
    end = room.end_turn()
    assert end.author is None
    assert end.acks == [Ack(other, True), Ack(session, True)]


def test_what_has_come_between_the_slices_is_not_taken_twice() -> None:
    room = make_room()
    session, other = joined(room, kind=Acknowledged), joined(room)
    work = begun(room, session, SyncUpdate(LARGE))
    at_once(room.receive_in_slices(other, SyncUpdate(LARGE)))
    assert room.end_turn().delta is LARGE
    at_once(work)
    end = room.end_turn()
    assert end.delta is None and end.acks == [Ack(session, True)]


@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_a_session_that_ends_between_the_slices_is_told_nothing_and_what_it_sent_is_kept(
    kind: type[Session], message: Callable[[bytes], Update]
) -> None:
    room = make_room()
    session, other = joined(room, kind=kind, answered=False), joined(room)
    work = begun(room, session, message(LARGE))
    room.leave(session)
    assert at_once(work) == ()
    assert session.unanswered == 1, "it is no more"
    assert room.pending
    end = room.end_turn()
    assert end.delta is LARGE and end.acks == []
    room.receive(other, SyncUpdate(Author(1).type("on")))
    assert not room.end_turn().effects


@pytest.mark.parametrize("message", [SyncUpdate, SyncStep2])
@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_a_session_that_ends_between_the_slices_of_what_is_not_whole_is_not_asked(
    kind: type[Session], message: Callable[[bytes], Update]
) -> None:
    room, author = make_room(), Author(9)
    missing = author.type("x")
    before = author.doc.get_state()
    type_backwards(author)
    session, other = joined(room, kind=kind), joined(room)
    work = begun(room, session, message(author.doc.get_update(before)))
    room.leave(session)
    assert at_once(work) == ()
    assert session.held is None and session.blocked is None
    assert room.end_turn().acks == []
    room.receive(other, SyncUpdate(missing))
    assert not room.end_turn().effects


@pytest.mark.parametrize(
    ("access", "backlog_full", "bound", "update"),
    [
        (Access.WRITE, False, 1 << 20, LARGE[:-1]),
        (Access.READ, False, 1 << 20, LARGE),
        (Access.READ, False, 1 << 20, LARGE[:-1]),
        (Access.WRITE, True, 1 << 20, LARGE),
        (Access.WRITE, False, 1_000, LARGE),
    ],
    ids=["malformed", "reader", "malformed reader", "backlog", "too large"],
)
@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_a_session_that_ends_between_the_slices_of_what_is_refused_is_told_nothing(
    kind: type[Session], access: Access, backlog_full: bool, bound: int, update: bytes
) -> None:
    room = make_room(bound)
    session = joined(room, kind=kind, access=access, answered=False)
    work = begun(room, session, SyncStep2(update), backlog_full=backlog_full)
    room.leave(session)
    assert at_once(work) == ()
    assert not room.pending and held(room) == "" and session.unanswered == 1


def test_the_access_counts_that_the_session_had_when_its_reading_began() -> None:
    room = make_room()
    session, reader = joined(room), joined(room, access=Access.READ)
    work = begun(room, session, SyncUpdate(LARGE))
    session.access = Access.READ
    assert at_once(work) == ()
    assert held(room) == TEXT
    room.end_turn()
    work = begun(room, reader, SyncUpdate(OTHER))
    reader.access = Access.WRITE
    assert at_once(work) == (Refused(reader, "an edit"), Send(reader, PermissionDenied(READ_ONLY)))
    assert held(room) == TEXT


def test_what_becomes_known_between_the_slices_is_not_put_off() -> None:
    room = make_room()
    session, other = joined(room, kind=Acknowledged), joined(room)
    work = begun(room, session, SyncUpdate(LARGE), backlog_full=True)
    at_once(room.receive_in_slices(other, SyncUpdate(LARGE)))
    at_once(work)
    assert said(room, session) == [True]


def test_questions_put_between_the_slices_count() -> None:
    room, a = make_room(), Author(1)
    session = joined(room, kind=Acknowledged)
    work = begun(room, session, SyncStep2(LARGE))
    a.type("lost")
    assert asked(room.receive(session, SyncUpdate(a.type("b"))))
    session.held = [True]
    at_once(work)
    assert said(room, session) == [True, True, True], "frames are in order, so this answer came after the question"


# Stateless messages, awareness, and what is for clients only


def test_stateless_messages_go_to_the_others_whose_protocol_has_them() -> None:
    room = make_room()
    message = Stateless(b"hello")
    for access in (Access.WRITE, Access.ADMIN):
        sender = joined(room, kind=Acknowledged, access=access)
        assert list(room.receive(sender, message)) == [Relay(sender, message)]
    assert not room.pending
    reader = joined(room, kind=Acknowledged, access=Access.READ)
    assert list(room.receive(reader, message)) == [Refused(reader, "a stateless message")]


def test_messages_that_are_only_for_clients_do_nothing() -> None:
    room = make_room()
    session = joined(room, kind=Acknowledged)
    assert room.receive(session, SyncStatus(True)) == ()
    assert room.receive(session, PermissionDenied("no")) == ()
    assert not room.pending


def awareness(client: int, clock: int, state: str) -> AwarenessUpdate:
    return AwarenessUpdate(encode_awareness([Entry(client, clock, state.encode())]))


def test_a_new_arrival_gets_all_awareness_states_and_its_leaving_is_told_at_once() -> None:
    room = make_room()
    first = joined(room)
    assert room.receive(first, QueryAwareness()) == (), "nobody shows itself"
    assert room.receive(first, awareness(7, 1, "{}")) == []
    assert room.pending
    told = room.end_turn().awareness
    assert told == awareness(7, 1, "{}").payload
    second = arrived()
    effects = room.join(second)
    assert effects[-1] == Send(second, AwarenessUpdate(told))
    assert room.receive(second, QueryAwareness()) == (Send(second, AwarenessUpdate(told)),)
    room.leave(first)
    assert room.pending
    assert room.end_turn().awareness == awareness(7, 1, "null").payload


@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_a_readers_edit_larger_than_the_document_is_refused_unread(kind: type[Session]) -> None:
    room = make_room()
    writer, reader = joined(room), joined(room, kind=kind, access=Access.READ)
    author = Author(1)
    room.receive(writer, SyncUpdate(author.type("x")))
    room.end_turn()
    noise = b"\xff" * 100_000
    effects = room.receive(reader, SyncStep2(noise))
    assert Refused(reader, "an edit") in effects, "else it would be found to be malformed"
    larger = room.receive(reader, SyncStep2(b"\xff" * 1_000)) if kind is Acknowledged else ()
    assert not larger, "what could be a copy is read"
    room.receive(reader, SyncStep2(author.updates[0]))
    assert [ack.saved for ack in room.end_turn().acks] == ([False, False, True] if kind is Acknowledged else [])


def test_an_echo_is_no_presence_that_is_shown_again() -> None:
    room = make_room()
    session, other = joined(room), joined(room)
    room.receive(other, awareness(8, 1, "{}"))
    echo = room.end_turn().awareness
    assert echo is not None
    assert len(room.receive(session, awareness(7, 1, "{"))) == 2
    for message in (AwarenessUpdate(echo), awareness(9, 1, "null")):
        assert room.receive(session, message) == []
        assert not room.receive(session, awareness(7, 2, "{")), "it was told already"
    assert room.receive(session, awareness(7, 3, "{}")) == []
    assert len(room.receive(session, awareness(7, 4, "{"))) == 2


def test_a_large_awareness_update_is_taken_as_any_other() -> None:
    room = make_room()
    session, claimant = joined(room), joined(room)
    assert at_once(room.receive_awareness_in_slices(session, awareness(7, 1, '"x"'))) == []
    assert room.pending and room.end_turn().awareness == awareness(7, 1, '"x"').payload
    assert at_once(room.receive_awareness_in_slices(claimant, awareness(7, 2, '"y"'))) == [Probe(session)]
    many = AwarenessUpdate(encode_awareness(Entry(client, 1, b"1") for client in range(1_000)))
    unseen, told = at_once(room.receive_awareness_in_slices(session, many))
    assert isinstance(unseen, Unseen) and isinstance(told, Send)
    assert at_once(room.receive_awareness_in_slices(session, AwarenessUpdate(b"\x01\x07"))) == (), "told once"
    for message in (awareness(7, 3, '"z"'), many):
        other = joined(room)
        work = room.receive_awareness_in_slices(other, message)
        room.leave(other)
        assert at_once(work) == ()
    assert not room.awareness.changed


def test_awareness_that_changes_nothing_makes_no_turn() -> None:
    room = make_room()
    session = joined(room)
    room.receive(session, awareness(7, 2, "{}"))
    room.end_turn()
    assert room.receive(session, awareness(7, 1, "{}")) == []
    assert not room.pending
    assert room.end_turn().awareness is None


@pytest.mark.parametrize("kind", [Session, Acknowledged])
def test_trouble_with_awareness_costs_presence_only_and_is_told_once(kind: type[Session]) -> None:
    room = make_room()
    session = joined(room, kind=kind)
    room.receive(session, awareness(7, 1, "{}"))
    room.end_turn()
    large = awareness(7, 2, '"' + "x" * 1_000 + '"')
    unseen, told = room.receive(session, large)
    reason = "awareness: more than 1000 bytes of state on one connection"
    assert isinstance(unseen, Unseen) and unseen.session is session and str(unseen.error) == reason
    said = Stateless(b'{"type": "presence not shown", "reason": "%b"}' % reason.encode())
    assert told == Send(session, said if kind is Acknowledged else PermissionDenied(f"presence not shown: {reason}"))
    assert room.end_turn().awareness == awareness(7, 2, "null").payload, "the others see it no more"
    # Whatever else is wrong is not told until its presence has been shown again.
    larger = awareness(7, 3, '"' + "x" * 2_000 + '"')
    for bad in (larger, larger, AwarenessUpdate(b"\x01\x07"), awareness(7, 4, "{")):
        assert list(room.receive(session, bad)) == []
    assert not room.pending
    assert room.receive(session, awareness(7, 5, "{}")) == []
    unseen, told = room.receive(session, AwarenessUpdate(b"\x01\x07"))
    assert isinstance(unseen, Unseen) and isinstance(unseen.error, DecodeError)
    # What it edits is taken.
    room.receive(session, SyncUpdate(Author(1).type("goes on")))
    assert room.end_turn().delta is not None


def test_a_claim_on_another_live_clients_state_has_its_owner_probed() -> None:
    room = make_room()
    owner, claimant = joined(room), joined(room)
    room.receive(owner, awareness(7, 1, "{}"))
    assert room.receive(claimant, awareness(7, 2, '"x"')) == [Probe(owner)]


@pytest.mark.parametrize("kind", [Session, Acknowledged, Quiet])
def test_one_that_comes_back_with_its_old_clock_is_told_to_take_another(kind: type[Session]) -> None:
    room = make_room()
    before = joined(room)
    room.receive(before, awareness(7, 3, "{}"))
    room.leave(before)
    room.end_turn()
    after = joined(room, kind=kind)
    told: list[Effect] = [Send(after, awareness(7, 3, "null"))]
    if kind is Quiet:
        told.append(Send(after, QueryAwareness()))  # else it takes the next clock and says nothing of it
    effects = room.receive(after, awareness(7, 3, "{}"))
    assert effects == told
    assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [
        type(effect.message) for effect in told if isinstance(effect, Send)
    ]
    assert not room.pending


# Other nodes


def test_a_row_of_another_node_is_relayed_and_no_sessions_work() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("there")
    assert room.receive_stored(update, "ann") is True
    assert room.pending
    end = room.end_turn()
    assert end.delta is update and end.author is None and end.acks == []
    assert [row.author for row in end.rows] == ["ann"]
    room.receive(session, SyncUpdate(a.type("!")))
    assert room.end_turn().author is session
    room.receive(session, SyncUpdate(a.type("?")))
    room.receive_stored(Author(2).type("x"), None)
    assert room.end_turn().author is None


def test_a_row_that_is_known_is_no_news() -> None:
    room, a = make_room(), Author(1)
    session, update = joined(room), a.type("here")
    room.receive(session, SyncUpdate(update))
    assert room.end_turn().author is session
    assert room.receive_stored(update, None) is False
    assert not room.pending
    room.receive(session, SyncUpdate(a.type("!")))
    assert room.receive_stored(update, None) is False
    assert room.end_turn().author is session


def test_a_row_of_another_node_may_be_what_an_answer_waited_for() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    holder = joined(room, answered=False)
    missing = a.type("first")
    b.read(missing)
    room.receive(holder, SyncStep2(b.type("second")))
    room.receive_stored(missing, None)
    assert asked(room.end_turn().effects)


def test_a_row_of_another_node_that_is_not_whole_waits_for_the_rest() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    first, second = a.type("a"), a.type("b")
    assert room.receive_stored(second, None) is False and not room.pending
    assert not room.receive_waiting() and not room.pending
    room.receive(session, SyncUpdate(first))
    assert room.end_turn().author is session
    assert room.receive_waiting() and room.pending
    end = room.end_turn()
    assert end.delta == second and end.author is None
    assert room.document.waiting == []


def test_awareness_states_of_another_node_are_shown_here_and_not_told_back() -> None:
    room, node = make_room(), Owner()
    session = joined(room)
    room.receive_awareness_of(node, awareness(7, 1, "{}").payload)
    assert room.pending
    end = room.end_turn()
    assert end.awareness == awareness(7, 1, "{}").payload and end.own_awareness is None
    room.receive_awareness_of(node, awareness(7, 1, "{}").payload)
    assert not room.pending
    room.receive(session, awareness(8, 1, "{}"))
    room.receive_awareness_of(node, awareness(7, 2, "{}").payload)
    end = room.end_turn()
    assert end.awareness is not None and end.own_awareness == awareness(8, 1, "{}").payload
    assert {entry.client for entry in decode_awareness(end.awareness)} == {7, 8}
    room.receive(session, awareness(8, 2, "{}"))
    end = room.end_turn()
    assert end.own_awareness is end.awareness, "the usual case costs nothing"
    room.leave_awareness(node)
    assert room.pending
    end = room.end_turn()
    assert end.awareness == awareness(7, 2, "null").payload and end.own_awareness is None
    room.leave_awareness(node)
    assert not room.pending


def test_what_a_node_shows_is_claimed_there_and_nobody_is_probed() -> None:
    room, node = make_room(), Owner()
    session = joined(room)
    room.receive_awareness_of(node, awareness(7, 1, "{}").payload)
    room.end_turn()
    assert room.receive(session, awareness(7, 2, '"mine"')) == [Claim(session, 7, 2, first=True)]
    assert not room.pending
    room.receive(session, awareness(8, 1, "{}"))
    room.end_turn()
    room.receive_awareness_of(node, awareness(8, 2, '"theirs"').payload)
    assert not room.pending
    assert room.awareness.own() == awareness(8, 1, "{}").payload


def test_only_the_id_of_its_own_client_is_claimed_on_another_node() -> None:
    """What a session sends on of others is told to nobody: their sessions claim it themselves."""
    room, node = make_room(), Owner()
    session = joined(room)
    room.receive(session, awareness(8, 1, "{}"))
    room.receive_awareness_of(node, awareness(7, 1, "{}").payload)
    room.end_turn()
    assert room.receive(session, awareness(7, 2, '"mine"')) == []
    assert not room.pending and session.awareness == {8: 2}


def test_malformed_awareness_of_another_node_is_refused() -> None:
    room = make_room()
    with pytest.raises(DecodeError):
        room.receive_awareness_of(Owner(), b"\x01\x07")
    assert not room.pending
    effects, refused = room.receive_awareness_of(Owner(), encode_awareness([Entry(7, 1, b"{}"), Entry(8, 1, b"{")]))
    assert isinstance(refused, DecodeError) and not effects
    assert room.end_turn().awareness == awareness(7, 1, "{}").payload, "its good states are shown"


def test_one_that_is_sent_a_document_in_pieces_is_strange_once_it_repeats_what_it_has_not_told(feed: Feed) -> None:
    room, a = make_room(), Author(1)
    a.type("all")
    session, other = Session(), Session()
    for one in (session, other):
        admit(one, Access.WRITE)
        room.join(one)
        feed(room, one, SyncStep2(EMPTY_UPDATE))
    feed(room, other, SyncUpdate(a.doc.get_update()))
    session.known = {}
    own = Author(2)
    feed(room, session, SyncUpdate(own.type("own")))
    feed(room, session, SyncStep2(own.doc.get_update()))
    assert not session.strange and session.known == {2: 3}, "its own, twice"
    feed(room, session, SyncUpdate(a.doc.get_update()))
    assert session.strange
    session.known = None
    with pytest.raises(UpdateError):
        feed(room, session, SyncUpdate(b"\x01"))


def test_after_a_defect_what_was_taken_whole_goes_on_and_a_part_of_an_update_does_not() -> None:
    room, a = make_room(), Author(1)
    room.document.apply_update(a.type("whole"))
    assert not room.pending
    assert room.recover() and room.pending
    assert room.end_turn().delta is not None
    room.document.torn = True
    assert not room.recover()


def test_a_reader_says_no_more_in_a_question_than_a_copy_of_the_document_can() -> None:
    room = make_room()
    reader, writer = joined(room, access=Access.READ), joined(room)
    long = SyncStep1(bytes(300_000))
    with pytest.raises(LimitExceeded):
        room.check_question(reader, long)
    room.check_question(reader, SyncStep1(bytes(200_000)))
    room.check_question(writer, long)  # it may hold edits of any number of clients


# Clients that count their own edits


def versions_told(room: Room, session: Session) -> list[int | None]:
    """End the turn and give the versions that a session is told once the turn is durable."""
    return [ack.version for ack in room.end_turn().acks if ack.session is session]


def test_a_version_is_told_with_the_turn_of_what_came_before_it(feed: Feed) -> None:
    room = make_room()
    session = joined(room)
    feed(room, session, SyncUpdate(Author(1).type("a")))
    assert room.receive(session, LocalVersion(1)) == ()
    end = room.end_turn()
    assert end.delta is not None and end.acks == [Ack(session, True, 1)]
    assert room.receive(session, LocalVersion(1)) == () and not room.pending, "its commit is awaited"
    session.versions.settle(1, told=True)  # type: ignore[union-attr]
    assert room.receive(session, LocalVersion(1)) == (Send(session, LocalVersion(1)),)
    room.receive(session, LocalVersion(1))
    assert not room.pending


def test_a_version_that_is_asked_about_before_the_answer_to_the_servers_question_waits_for_it(feed: Feed) -> None:
    room, author = make_room(), Author(1)
    session = joined(room, answered=False)
    room.receive(session, LocalVersion(3))
    assert not room.pending
    feed(room, session, SyncStep2(author.type("offline")))
    assert versions_told(room, session) == [3]


def test_no_version_of_a_reader_that_has_changed_something_is_saved(feed: Feed) -> None:
    room, author = make_room(), Author(1)
    reader = joined(room, answered=False, access=Access.READ)
    room.receive(reader, LocalVersion(0))
    feed(room, reader, SyncStep2(EMPTY_UPDATE))
    assert versions_told(room, reader) == [0]
    reader.versions.settle(0, told=True)  # type: ignore[union-attr]
    feed(room, reader, SyncUpdate(author.type("x")))
    assert room.receive(reader, LocalVersion(1)) == ()
    assert room.receive(reader, LocalVersion(1)) == (Send(reader, LocalVersion(0)),)
    feed(room, reader, SyncUpdate(EMPTY_UPDATE))
    assert versions_told(room, reader) == []


def test_no_version_is_saved_when_something_of_it_could_not_be_kept(feed: Feed) -> None:
    room, author = make_room(max_kept_bytes=0), Author(1)
    author.type("lost")
    sessions = [joined(room), joined(room)]
    room.receive(sessions[0], LocalVersion(0))
    assert versions_told(room, sessions[0]) == [0]
    rest = author.type("b")
    for session in sessions:
        feed(room, session, SyncUpdate(rest))
        assert Unkept(session, len(rest)) in feed(room, session, SyncStep2(rest))
    room.receive(sessions[0], LocalVersion(1))
    assert versions_told(room, sessions[0]) == []


def test_who_may_only_read_now_is_told_in_the_words_of_its_protocol() -> None:
    assert read_only_notice(Session(), "the day is over") == PermissionDenied("the day is over")
    told = read_only_notice(Acknowledged(), "the day is over")
    assert isinstance(told, Stateless) and b"the day is over" in told.payload
