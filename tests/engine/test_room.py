"""The room's rules with bytes in and effects out; updates are made by a real CRDT."""

from __future__ import annotations

import pytest
from pycrdt import Doc, Text

from collab.engine.document import Document
from collab.engine.room import Probe, Refused, Room, Send
from collab.errors import DecodeError, DocumentTooLarge, Forbidden, LimitExceeded, UpdateError
from collab.protocol.awareness import AwarenessUpdate, Entry, QueryAwareness, encode_awareness
from collab.protocol.session import Access, Session, State
from collab.protocol.sync import EMPTY_STATE_VECTOR, EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.wire import PermissionDenied, Stateless
from tests.support.author import Author, content


def make_room(max_document_bytes: int = 1 << 20) -> Room:
    return Room(Document(), max_document_bytes=max_document_bytes, max_awareness_bytes=1_000, max_awareness_ids=3)


class Acknowledged(Session):
    """A session whose protocol says "saved" and knows stateless messages."""

    acknowledges = True
    stateless = True


def arrived(kind: type[Session] = Session, access: Access = Access.WRITE) -> Session:
    session = kind()
    session.admit(access, None)
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


def test_a_joining_client_is_asked_for_what_the_room_lacks() -> None:
    room = make_room()
    session = arrived()
    (effect,) = room.join(session)
    assert effect == Send(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert type(effect) is Send and type(effect.message) is SyncStep1
    assert session.state is State.LIVE
    assert session.unanswered == 1


def test_step_1_is_answered_to_its_sender_alone_with_only_what_it_lacks() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    first = a.type("a")
    room.receive(session, SyncUpdate(first))
    state_vector = a.doc.get_state()
    room.receive(session, SyncUpdate(a.type("b")))
    (effect,) = room.receive(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert isinstance(effect, Send) and type(effect.message) is SyncStep2
    assert content(effect.message.update) == "ab", "the tail belongs inside step 2, broadcast or not"
    (effect,) = room.receive(session, SyncStep1(state_vector))
    assert isinstance(effect, Send) and type(effect.message) is SyncStep2
    other: Doc[Text] = Doc()
    text = other.get("t", type=Text)
    other.apply_update(first)
    other.apply_update(effect.message.update)
    assert str(text) == "ab"
    assert len(effect.message.update) < len(a.doc.get_update())


def test_one_update_travels_as_the_very_bytes_that_came() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("hello")
    assert room.receive(session, SyncUpdate(update)) == ()
    assert room.pending
    end = room.end_turn()
    assert end.delta is update
    assert [row.data for row in end.rows] == [update]
    assert not room.pending


def test_the_updates_of_a_turn_travel_as_one_delta() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    session, other = joined(room), joined(room)
    for letter in "abc":
        room.receive(session, SyncUpdate(a.type(letter)))
    room.receive(other, SyncUpdate(b.type("x")))
    end = room.end_turn()
    assert end.delta is not None
    assert sorted(content(end.delta)) == ["a", "b", "c", "x"]
    assert room.end_turn().delta is None


def test_rows_are_cut_where_the_author_changes() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    ann, bob = arrived(), arrived()
    ann.author, bob.author = "ann", "bob"
    room.join(ann)
    room.join(bob)
    room.receive(ann, SyncUpdate(a.type("1")))
    room.receive(ann, SyncUpdate(a.type("2")))
    room.receive(bob, SyncUpdate(b.type("3")))
    room.receive(ann, SyncUpdate(a.type("4")))
    assert [row.author for row in room.end_turn().rows] == ["ann", "bob", "ann"]


def test_what_says_nothing_new_is_neither_relayed_nor_stored() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("a")
    room.receive(session, SyncUpdate(update))
    room.end_turn()
    room.receive(session, SyncUpdate(update))
    room.receive(session, SyncStep2(a.doc.get_update()))
    room.receive(session, SyncUpdate(EMPTY_UPDATE))
    end = room.end_turn()
    assert end.delta is None
    assert end.rows == ()


def said(room: Room, session: Session) -> list[bool]:
    """End the turn and give the verdicts for one session."""
    return [verdict.saved for verdict in room.end_turn().verdicts if verdict.session is session]


def test_verdicts_are_one_an_update_in_order_and_only_for_who_understands_them() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    speaks, silent = joined(room, kind=Acknowledged), joined(room)
    update = a.type("a")
    room.receive(speaks, SyncUpdate(update))
    room.receive(silent, SyncUpdate(b.type("x")))
    room.receive(speaks, SyncUpdate(b"\xff"))
    room.receive(speaks, SyncUpdate(a.type("b")))
    room.receive(speaks, SyncUpdate(update))
    room.receive(speaks, SyncStep2(update))
    verdicts = room.end_turn().verdicts
    assert {verdict.session for verdict in verdicts} == {speaks}
    assert [verdict.saved for verdict in verdicts] == [True, False, True, True, True]


def test_a_turn_names_its_author_if_there_is_only_one() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    one, two = joined(room), joined(room, kind=Acknowledged)
    assert room.end_turn().author is None
    for _ in range(2):
        room.receive(one, SyncUpdate(a.type("a")))
        room.receive(one, SyncUpdate(a.type("b")))
        room.receive(two, SyncUpdate(a.doc.get_update()))  # says nothing new
        assert room.end_turn().author is one
        room.receive(one, SyncUpdate(a.type("c")))
        room.receive(two, SyncStep2(b.type("x")))
        room.receive(one, SyncUpdate(a.type("d")))
        assert room.end_turn().author is None


def test_a_refusal_is_a_verdict_for_who_understands_it_and_an_error_for_others() -> None:
    room = make_room(max_document_bytes=40)
    speaks, silent = joined(room, kind=Acknowledged, answered=False), joined(room)
    for update in (b"\x07garbage", Author(1).type("x" * 60)):
        assert room.receive(speaks, SyncUpdate(update)) == ()
        assert room.receive(speaks, SyncStep2(update)) == ()
        assert said(room, speaks) == [False, False]
        with pytest.raises((UpdateError, DocumentTooLarge)):
            room.receive(silent, SyncUpdate(update))
    assert not speaks.unanswered, "a refused SyncStep2 is an answer all the same"
    assert content(room.document.encode()) == ""


def test_an_update_that_is_not_whole_is_acknowledged_when_it_is_and_so_are_those_behind_it() -> None:
    room, a = make_room(), Author(1)
    session = joined(room, kind=Acknowledged)
    a.type("lost")
    assert asked(room.receive(session, SyncUpdate(a.type("b"))))
    room.receive(session, SyncUpdate(b"\xff"))
    room.receive(session, SyncUpdate(Author(2).type("whole")))
    assert said(room, session) == []
    room.receive(session, SyncStep2(a.doc.get_update()))
    assert said(room, session) == [True, False, True, True]
    room.receive(session, SyncUpdate(a.type("c")))
    assert said(room, session) == [True]


def test_a_step_2_that_is_not_whole_is_acknowledged_unless_an_update_waits() -> None:
    room, a, stranger = make_room(), Author(1), Author(2)
    session = joined(room, kind=Acknowledged, answered=False)
    stranger.type("nobody has this")
    pending = stranger.type("!")
    room.receive(session, SyncStep2(pending))
    assert said(room, session) == [True], "the client's own edits are in it, what it lacks is another's"
    a.type("lost")
    room.receive(session, SyncUpdate(a.type("b")))
    room.receive(session, SyncStep2(pending))
    assert said(room, session) == []


def test_verdicts_behind_an_update_that_never_becomes_whole_are_bounded() -> None:
    room, a = make_room(), Author(1)
    session = joined(room, kind=Acknowledged)
    a.type("lost")
    blocked = SyncUpdate(a.type("b"))
    with pytest.raises(LimitExceeded):
        for _ in range(20_000):
            room.receive(session, blocked)


def test_a_reader_changes_nothing_and_is_told_so_in_its_own_way() -> None:
    room, a = make_room(), Author(1)
    first = a.type("a")
    room.receive(joined(room), SyncUpdate(first))
    room.end_turn()
    reader = joined(room, kind=Acknowledged, access=Access.READ, answered=False)
    viewer = joined(room, access=Access.READ, answered=False)
    more = a.type("b")
    for message, verdict, told in (
        (SyncStep2(first), True, 0),
        (SyncUpdate(first), False, 0),
        (SyncUpdate(more), False, 1),
        (SyncStep2(more), False, 1),
    ):
        assert room.receive(reader, message) == (() if verdict else (Refused(reader),))
        assert said(room, reader) == [verdict], message
        effects = room.receive(viewer, message)
        assert (Refused(viewer) in effects) == bool(told)
        assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [PermissionDenied] * told
    assert room.receive(reader, SyncUpdate(b"\xff")) == () and said(room, reader) == [False]
    with pytest.raises(UpdateError):
        room.receive(viewer, SyncUpdate(b"\xff"))
    assert not reader.unanswered and not viewer.unanswered
    assert content(room.document.encode()) == "a"
    (effect,) = room.receive(viewer, SyncStep1(EMPTY_STATE_VECTOR))
    assert isinstance(effect, Send) and type(effect.message) is SyncStep2


def test_one_that_acknowledges_and_syncs_again_is_asked_again() -> None:
    room = make_room()
    session = joined(room, kind=Acknowledged, answered=False)
    (first,) = room.receive(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert isinstance(first, Send) and type(first.message) is SyncStep2, "it was asked when it joined"
    room.receive(session, SyncStep2(EMPTY_UPDATE))
    question, answer = room.receive(session, SyncStep1(EMPTY_STATE_VECTOR))
    assert isinstance(question, Send) and type(question.message) is SyncStep1
    assert isinstance(answer, Send) and type(answer.message) is SyncStep2
    assert session.unanswered == 1


def test_stateless_messages_go_to_the_others_whose_protocol_has_them() -> None:
    room = make_room()
    sender, other, plain = joined(room, kind=Acknowledged), joined(room, kind=Acknowledged), joined(room)
    message = Stateless(b"hello")
    assert list(room.receive(sender, message)) == [Send(other, message)]
    assert plain in room.sessions and not room.pending
    reader = joined(room, kind=Acknowledged, access=Access.READ)
    with pytest.raises(Forbidden):
        room.receive(reader, message)


def asked(effects: object) -> bool:
    return [type(e.message) if isinstance(e, Send) else e for e in effects] == [SyncStep1]  # type: ignore[attr-defined]


def test_an_update_with_a_gap_is_asked_for_once() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    a.type("lost")
    later = [a.type("b"), a.type("c")]
    assert asked(room.receive(session, SyncUpdate(later[0])))
    assert room.receive(session, SyncUpdate(later[1])) == (), "its answer to the open question holds this one too"
    assert room.end_turn().delta is None, "never relayed before it is whole"
    room.receive(session, SyncStep2(a.doc.get_update()))
    end = room.end_turn()
    assert end.delta is not None
    assert content(end.delta) == "lostbc"


def test_nothing_is_asked_while_the_first_question_is_open() -> None:
    room, a = make_room(), Author(1)
    session = joined(room, answered=False)
    a.type("offline")
    assert room.receive(session, SyncUpdate(a.type("x"))) == ()
    room.receive(session, SyncStep2(a.doc.get_update()))
    delta = room.end_turn().delta
    assert delta is not None and content(delta) == "offlinex"


def test_an_answer_that_is_not_whole_is_asked_for_again_only_when_the_room_passes_the_gap() -> None:
    room, a, b = make_room(), Author(1), Author(2)
    author, holder = joined(room), joined(room, answered=False)
    missing = a.type("first")
    b.read(missing)
    pending = b.type("second")  # its origin is in what the room lacks
    assert room.receive(holder, SyncStep2(pending)) == (), "asking at once would never end"
    assert room.end_turn().effects == ()
    room.receive(author, SyncUpdate(missing))
    end = room.end_turn()
    assert asked(end.effects)
    assert end.effects[0].session is holder
    room.receive(holder, SyncStep2(b.doc.get_update()))
    delta = room.end_turn().delta
    assert delta is not None
    assert room.end_turn().effects == ()


def test_a_malformed_update_is_refused_and_changes_nothing() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    update = a.type("abc")
    for bad in (update[:-1], update + b"\x00", b"\x01\x00\x05\x00\x00", b"\xff" * 20, b""):
        with pytest.raises(UpdateError):
            room.receive(session, SyncUpdate(bad))
        with pytest.raises(UpdateError):
            room.receive(session, SyncStep2(bad))
    assert not room.pending
    assert room.document.encode() == EMPTY_UPDATE


@pytest.mark.parametrize("vector", [b"", b"\x01", b"\x02\x01\x01", b"\xff\xff\xff\xff\x0f", b"\x00\x00"])
def test_a_malformed_state_vector_is_refused(vector: bytes) -> None:
    room = make_room()
    with pytest.raises(DecodeError):
        room.receive(joined(room), SyncStep1(vector))


def test_a_lying_state_vector_gets_the_little_that_is_above_it() -> None:
    room, a = make_room(), Author(1)
    session = joined(room)
    room.receive(session, SyncUpdate(a.type("abc")))
    (effect,) = room.receive(session, SyncStep1(b"\x02\x01\xff\x7f\x63\x05"))
    assert effect == Send(session, SyncStep2(EMPTY_UPDATE))


def test_a_document_grows_up_to_its_bound_and_its_clients_can_still_resync() -> None:
    room, a = make_room(max_document_bytes=200), Author(1)
    session = joined(room)
    update = a.type("x" * 100)
    room.receive(session, SyncUpdate(update))
    with pytest.raises(DocumentTooLarge):
        room.receive(session, SyncUpdate(a.type("y" * 100)))
    room.receive(session, SyncStep2(update))
    delta = room.end_turn().delta
    assert delta is not None and content(delta) == "x" * 100


def awareness(client: int, clock: int, state: str) -> AwarenessUpdate:
    return AwarenessUpdate(encode_awareness([Entry(client, clock, state.encode())]))


def test_a_new_arrival_gets_all_awareness_states_and_its_leaving_is_told_at_once() -> None:
    room = make_room()
    first = joined(room)
    room.receive(first, awareness(7, 1, "{}"))
    told = room.end_turn().awareness
    assert told == awareness(7, 1, "{}").payload
    second = arrived()
    effects = room.join(second)
    assert effects[-1] == Send(second, AwarenessUpdate(told))
    assert room.receive(second, QueryAwareness()) == (Send(second, AwarenessUpdate(told)),)
    room.leave(first)
    assert room.pending
    assert room.end_turn().awareness == awareness(7, 1, "null").payload


def test_a_claim_on_another_live_clients_state_has_its_owner_probed() -> None:
    room = make_room()
    owner, claimant = joined(room), joined(room)
    room.receive(owner, awareness(7, 1, "{}"))
    assert room.receive(claimant, awareness(7, 2, '"x"')) == [Probe(owner)]
