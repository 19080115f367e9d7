"""Awareness states, and whose they are: a session's, or another node's.

Strategy: what ``flush`` gives is decoded and compared; the second half of it is what this node has to tell others.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from collab.engine.awareness import _MOVED, AwarenessStates
from collab.engine.awareness import LARGE as SLICED
from collab.engine.departed import MINUTES, Departed, Unloaded
from collab.engine.document import at_once
from collab.errors import CollabError, DecodeError, LimitExceeded
from collab.protocol.awareness import Entry, User, decode_awareness, encode_awareness
from collab.protocol.session import Owner, Session, State
from tests.support.build import lines, lines_of_slices
from tests.support.needs import size

MAX = 2**53 - 1


def states() -> AwarenessStates:
    return AwarenessStates(max_bytes=1_000, max_ids=3)


def update(*entries: tuple[int, int, str]) -> bytes:
    return encode_awareness(Entry(client, clock, state.encode()) for client, clock, state in entries)


def taken(room: AwarenessStates, owner: Owner, *entries: tuple[int, int, str]) -> CollabError | None:
    """Apply an update; give why a state in it was refused."""
    return room.apply(owner, update(*entries)).refused


def decoded(payload: bytes | None) -> list[Entry]:
    return [] if payload is None else decode_awareness(payload)


def flushed(room: AwarenessStates) -> list[Entry]:
    return decoded(room.flush()[0])


def forget(room: AwarenessStates) -> None:
    """Let so many minutes pass that the IDs of clients which have left are free."""
    for _ in range(MINUTES):
        room.forget()


def user(name: str | None) -> Session:
    """Make a session of a user."""
    session = Session()
    session.author = name
    return session


def heard(name: str | None = None) -> Session:
    """Make a session that has answered what it was sent, so that what it sends may be an echo."""
    session = user(name)
    session.answered = 1
    return session


def test_a_turn_has_the_newest_state_of_each_client_once() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 1, '{"x":1}')))
    room.apply(a, update((1, 2, '{"x":2}')))
    room.apply(b, update((2, 5, "{}")))
    assert flushed(room) == [Entry(1, 2, b'{"x":2}'), Entry(2, 5, b"{}")]
    assert room.flush() == (None, None)


def test_everything_is_what_is_there_now() -> None:
    room, a = states(), Session()
    assert room.everything() is None
    room.apply(a, update((1, 1, "{}"), (2, 1, "{}")))
    room.apply(a, update((2, 1, "null")))
    payload = room.everything()
    assert payload is not None
    assert decode_awareness(payload) == [Entry(1, 1, b"{}")]


def test_who_was_away_is_told_who_has_left_since_and_nobody_from_before() -> None:
    room, a, b, c = states(), Session(), Session(), Session()
    for session, client in ((a, 1), (b, 2), (c, 3)):
        room.apply(session, update((client, 1, "{}")))
    room.flush()
    room.leave(a)
    for clock in range(2, 6):
        room.flush()
        room.apply(c, update((3, clock, "{}")))
    away = room.comebacks.turn
    assert decoded(room.everything_since(away)) == decoded(room.everything()), "the first one left long before"
    room.leave(b)
    room.flush()
    assert decoded(room.everything_since(away)) == [Entry(3, 5, b"{}"), Entry(2, 1, b"null")]


def test_stale_clocks_are_dropped_before_their_json_is_parsed() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 5, "{}")))
    room.flush()
    assert room.apply(a, update((1, 5, "not json"), (1, 4, "nor this")))[:3] == ([], [], None)
    assert room.flush() == (None, None)


def test_null_at_an_equal_clock_removes_and_is_told() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 5, "{}")))
    room.flush()
    room.apply(a, update((1, 5, "null")))
    assert flushed(room) == [Entry(1, 5, b"null")]
    assert len(room) == 0


def test_null_for_an_id_that_nobody_owns_goes_nowhere() -> None:
    room, a, b = states(), Session(), Session()
    assert room.apply(a, update((1, 5, "null"), (2, 2**31, "null"), (3, MAX, "null")))[:3] == ([], [], None)
    assert room.flush() == (None, None)
    assert (len(room), len(room.departed), a.awareness) == (0, 0, None)
    assert taken(room, b, (1, 1, "{}")) is None, "it says nothing of the clock either"
    assert flushed(room) == [Entry(1, 1, b"{}")]
    room.leave(b)
    room.flush()
    assert room.apply(a, update((1, 9, "null")))[:3] == ([], [], None), "nor does one for an ID whose client has left"
    assert room.flush() == (None, None)


def test_only_the_latest_broadcasts_are_remembered_as_echoes() -> None:
    room, a = states(), Session()
    for clock in range(1, 40):
        room.apply(a, update((1, clock, "{}")))
        room.flush()
    assert list(room._recent) == [update((1, clock, "{}")) for clock in range(8, 40)]


def test_an_echo_of_what_was_broadcast_changes_nothing() -> None:
    room, a, b = states(), Session(), heard()
    room.apply(a, update((1, 1, "{}")))
    payload, _ = room.flush()
    assert payload is not None
    room.apply(b, payload)
    assert room.flush() == (None, None)
    assert b.awareness is None


def test_a_live_owners_state_is_neither_changed_nor_removed_by_another() -> None:
    room, owner, other = states(), Session(), Session()
    room.apply(owner, update((1, 1, '"mine"')))
    room.flush()
    assert room.apply(other, update((1, 9, '"stolen"')))[:3] == ([], [owner], None)
    assert room.apply(other, update((1, 9, "null")))[:3] == ([], [], None)
    assert room.flush() == (None, None)
    room.apply(owner, update((1, 2, '"still mine"')))
    assert flushed(room) == [Entry(1, 2, b'"still mine"')]


def test_states_go_with_the_connection_that_owns_them() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 3, "{}"), (2, 4, "{}")))
    room.apply(b, update((3, 1, "{}")))
    room.flush()
    room.leave(a)
    assert flushed(room) == [Entry(1, 3, b"null"), Entry(2, 4, b"null")]
    assert len(room) == 1


def test_who_comes_back_with_its_old_clock_is_made_to_announce_itself_again() -> None:
    room, before, after = states(), Session(), Session()
    room.apply(before, update((1, 3, "{}")))
    room.flush()
    room.leave(before)
    room.flush()
    assert room.apply(after, update((1, 3, "{}")))[:3] == ([Entry(1, 3, b"null")], [], None)
    assert room.flush() == (None, None), "nobody else hears of it"
    room.apply(after, update((1, 4, "{}")))  # what y-protocols answers to that null
    assert flushed(room) == [Entry(1, 4, b"{}")]


def test_a_ghost_cannot_be_brought_back_by_an_old_echo() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 3, "{}")))
    room.flush()
    room.leave(a)
    room.flush()
    room.apply(b, update((1, 2, "{}")))
    assert len(room) == 0


def test_forgetting_frees_the_ids_of_those_who_left_some_minutes_ago() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 3, "{}"), (2, 3, "{}")))
    room.apply(a, update((1, 3, "null")))
    forget(room)
    assert flushed(room) == [Entry(1, 3, b"null"), Entry(2, 3, b"{}")], "what is still to be told is told"
    room.apply(a, update((1, 1, "{}")))
    assert flushed(room) == [Entry(1, 1, b"{}")]
    room.apply(a, update((1, 1, "null")))
    for _ in range(MINUTES - 1):
        room.forget()
    assert room.apply(a, update((1, 1, "{}"))).back == [Entry(1, 1, b"null")], "not a minute sooner"


def test_bounds_for_one_connection() -> None:
    room, a, b = states(), Session(), Session()
    assert taken(room, a, (1, 1, "{}"), (2, 1, "{}"), (3, 1, "{}")) is None
    assert str(taken(room, a, (4, 1, "{}"))) == "awareness: more than 3 client IDs on one connection"
    assert taken(room, a, (3, 1, "null")) is None
    assert taken(room, a, (4, 1, "{}")) is None
    assert str(taken(room, b, (9, 1, LARGE))) == "awareness: more than 1000 bytes of state on one connection"
    assert {entry.client for entry in flushed(room)} == {1, 2, 3, 4}


LARGE = '"' + "x" * 1_000 + '"'


@pytest.mark.parametrize("state", [LARGE, "{", '{"user":NaN}', "\xff"], ids=["too large", "cut", "NaN", "not JSON"])
@pytest.mark.parametrize("user", [None, User("u7", "Ann")], ids=["anybody", "a user"])
def test_a_state_that_is_refused_takes_its_place_away_and_nothing_else(state: str, user: User | None) -> None:
    room, a = states(), Session()
    a.user = user
    room.apply(a, update((1, 1, "1"), (2, 1, "2")))
    room.flush()
    assert taken(room, a, (1, 2, state), (2, 2, "22")) is not None
    assert flushed(room) == [Entry(1, 2, b"null"), Entry(2, 2, b"22")], (
        "the others do not see what is not true any more"
    )
    assert a.awareness == {2: 2}
    # Nothing is left to be told, however often it comes, and nobody is told to announce itself again.
    assert room.apply(a, update((1, 3, state)))[:2] == ([], [])
    assert room.flush() == (None, None)
    assert taken(room, a, (1, 4, "4")) is None
    assert flushed(room) == [Entry(1, 4, b"4")]


def test_a_state_that_is_refused_is_not_removed_from_its_owner() -> None:
    room, owner, other = states(), Session(), Session()
    room.apply(owner, update((1, 1, '"mine"')))
    room.flush()
    assert room.apply(other, update((1, 9, LARGE), (1, 10, "{")))[:3] == ([], [owner], None)
    assert not room.changed


def test_a_client_twice_in_one_update_gains_nothing_by_a_state_that_is_refused() -> None:
    room, a = states(), Session()
    half = '"' + "x" * 600 + '"'
    refused = taken(room, a, *((1, clock, LARGE if clock == 2 else half) for clock in (1, 2)))
    assert refused is not None
    assert len(room) == 0 and not a.awareness
    assert taken(room, a, (3, 1, half), (3, 2, "{}"), (4, 1, "{}")) is None
    assert a.awareness == {3: 2, 4: 2}


def test_an_update_of_bad_states_is_not_read_to_its_end() -> None:
    room, a, b = states(), Session(), Session()
    bad = [(client, 1, "{") for client in range(1, 5)]
    assert taken(room, a, *bad[:2], (9, 1, "{}")) is not None
    assert a.awareness == {9: 2}
    room.apply(b, update((10, 1, "{}")))
    assert taken(room, a, *bad, (9, 2, "null")) is not None
    assert a.awareness == {9: 2}
    refused = taken(room, a, *bad)
    assert refused is not None and refused.__traceback__ is None, "else it would stay until the collector comes"


def test_a_malformed_update_is_refused_whole() -> None:
    room, a = states(), Session()
    with pytest.raises(DecodeError):
        room.apply(a, update((1, 1, "{}"), (2, 1, "{}"))[:-1])
    assert room.flush() == (None, None)
    assert len(room) == 0


def test_a_session_whose_user_is_known_cannot_pose_as_another() -> None:
    room, mallory = states(), Session()
    mallory.user = User("u7", "Mallory")
    room.apply(mallory, update((1, 1, '{"cursor":{"x":1.50},"user":{"name":"Ann","color":"#c00"}}')))
    room.apply(mallory, update((2, 1, '{"user":{"name":"x"},"\\u0075ser":{"sub":"u1","name":"Ann"}}')))
    room.apply(mallory, update((3, 1, "[]")))
    assert flushed(room) == [
        Entry(1, 1, b'{"cursor":{"x":1.50},"user":{"name":"Mallory","color":"#c00","sub":"u7"}}'),
        Entry(2, 1, b'{"user":{"sub":"u7","name":"Mallory"}}'),
        Entry(3, 1, b"[]"),
    ]
    room.apply(mallory, update((1, 2, "null")))
    assert flushed(room) == [Entry(1, 2, b"null")]
    assert isinstance(taken(room, mallory, (1, 3, '{"user":}')), DecodeError)


def test_the_bounds_themselves_are_allowed() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 1, '"' + "x" * 997 + '"'), (2, 1, "1")))
    assert a.awareness == {1: 999, 2: 1}
    assert isinstance(taken(room, a, (2, 2, "12")), LimitExceeded)
    assert a.awareness == {1: 999}
    assert taken(room, a, (2, 3, "1")) is None
    room.apply(b, update((11, 1, "{}"), (12, 1, "{}"), (13, 1, "{}")))
    room.apply(b, update((11, 2, "{}")))
    assert len(room) == 5


def test_a_state_counts_no_more_when_it_is_gone() -> None:
    room, a = states(), Session()
    for clock in range(1, 8, 2):
        room.apply(a, update((1, clock, '"' + "x" * 900 + '"')))
        room.apply(a, update((1, clock + 1, "null")))
    assert a.awareness == {}
    room.apply(a, update((9, 1, "null")))
    assert len(room) == 0


def test_a_state_that_is_removed_is_owned_by_nobody() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 3, "{}")))
    room.apply(a, update((1, 3, "null")))
    assert flushed(room) == [Entry(1, 3, b"null")]
    assert a.awareness == {}
    assert room.apply(b, update((1, 4, "{}")))[:3] == ([], [], None)
    assert flushed(room) == [Entry(1, 4, b"{}")]


def test_one_that_comes_back_with_its_old_clock_is_told_only_for_a_state_and_only_while_the_clock_is_kept() -> None:
    room, before, after, other = states(), Session(), Session(), heard()
    room.apply(before, update((1, 3, "{}"), (2, 3, "{}")))
    room.leave(before)
    room.flush()
    assert room.apply(after, update((1, 3, "null")))[:3] == ([], [], None), "it says goodbye once more"
    assert room.apply(after, update((1, 4, "{}")))[:3] == ([], [], None)
    assert room.apply(other, update((1, 4, "{}")))[:3] == ([], [], None), "an echo of one who is here"
    room.flush()
    forget(room)
    assert room.apply(after, update((2, 3, "{}")))[:3] == ([], [], None)
    assert flushed(room) == [Entry(2, 3, b"{}")]


def test_what_the_room_has_heard_lately_is_not_decoded_again() -> None:
    room, a, b = states(), Session(), heard()
    payloads = []
    for clock in range(1, 40):
        room.apply(a, update((1, clock, "{}")))
        payload, _ = room.flush()
        assert payload is not None
        payloads.append(payload)
    assert list(room._recent) == payloads[-32:]
    room.apply(b, payloads[-1])
    room.forget()
    assert not room._recent
    room.apply(b, payloads[-1])
    assert not room.changed


def test_forgetting_leaves_those_who_are_here() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 3, "{}")))
    room.apply(b, update((2, 3, "{}")))
    room.apply(b, update((2, 4, "null")))
    room.flush()
    forget(room)
    assert room.apply(b, update((1, 2, '"old"')))[:3] == ([], [], None)
    assert not room.changed
    room.leave(a)
    assert flushed(room) == [Entry(1, 3, b"null")]


# Whose an ID is


def test_an_id_stays_its_users_while_its_line_is_down() -> None:
    """Issue 11: a reader claimed the ID of a writer whose socket had dropped, and shut it out."""
    room, writer, reader = states(), user("ann"), user("bob")
    room.apply(writer, update((7, 5, '"ann"')))
    room.flush()
    room.leave(writer)
    room.flush()
    for clock in (6, 7, 2**31, MAX):
        assert "another user's" in str(taken(room, reader, (7, clock, '"bob"')))
    assert taken(room, user(None), (7, 6, '"nobody"')) is not None
    assert room.apply(reader, update((7, 9, "null")))[:3] == ([], [], None)
    assert room.flush() == (None, None) and not reader.awareness
    back = user("ann")
    assert room.apply(back, update((7, 5, '"ann"'))).back == [Entry(7, 5, b"null")]
    assert taken(room, back, (7, 6, '"ann"')) is None
    assert flushed(room) == [Entry(7, 6, b'"ann"')]
    room.leave(back)
    forget(room)
    assert taken(room, reader, (7, 7, '"bob"')) is None, "some minutes later it may be anybody's"


def test_a_clock_that_no_client_has_come_to_is_ignored() -> None:
    room, a, b = states(), Session(), Session()
    for clock in (2**31 + 2**21, 2**32, MAX):
        assert "clock" in str(taken(room, a, (1, clock, "{}")))
    assert not room.changed and not a.awareness
    room.apply(a, update((1, 5, "{}")))
    assert taken(room, a, (1, MAX, '"far"')) is not None
    assert taken(room, a, (1, MAX, "null")) is not None
    assert taken(room, b, (1, MAX, '"theirs"')) is None, "it is a claim, and changes nothing"
    assert flushed(room) == [Entry(1, 5, b"{}")]
    assert taken(room, a, (1, 6, '"on"')) is None
    assert flushed(room) == [Entry(1, 6, b'"on"')]


def test_a_client_that_is_told_the_largest_clock_may_go_on_from_there() -> None:
    room, stranger, owner = states(), Session(), Session()
    room.apply(stranger, update((1, 2**31, "{}")))
    room.leave(stranger)
    room.flush()
    assert room.apply(owner, update((1, 5, '"mine"'))).back == [Entry(1, 2**31, b"null")]
    assert taken(room, owner, (1, 2**31 + 1, '"mine"')) is None
    assert flushed(room) == [Entry(1, 2**31 + 1, b'"mine"')]


def test_a_user_that_comes_back_on_a_new_socket_has_its_id_at_once() -> None:
    room, before, after = states(), user("ann"), heard("ann")
    room.apply(before, update((7, 5, '"old"'), (8, 1, '"stays"')))
    room.flush()
    assert room.apply(after, update((7, 5, '"new"')))[:3] == ([], [], None), "a clock that is no greater says nothing"
    assert room.apply(after, update((7, 6, '"new"')))[:3] == ([], [before], None)
    assert flushed(room) == [Entry(7, 6, b'"new"')]
    assert (before.awareness, after.awareness) == ({8: 7}, {7: 5})
    room.leave(before)
    assert flushed(room) == [Entry(8, 1, b"null")], "the old socket takes nothing of the new one along"
    # A tab that shows itself already sends on what it hears of others: that is no claim.
    other = user("ann")
    room.apply(other, update((9, 1, "{}")))
    assert room.apply(other, update((7, 7, '"heard"')))[:3] == ([], [after], None)
    assert room.apply(user("bob"), update((7, 7, '"bob"')))[:3] == ([], [after], None)
    assert room.apply(user(None), update((7, 7, '"nobody"')))[:3] == ([], [after], None)
    assert decoded(room.everything()) == [Entry(7, 6, b'"new"'), Entry(9, 1, b"{}")]


def test_a_state_that_is_refused_on_a_new_socket_removes_the_old_one() -> None:
    room, before, after = states(), user("ann"), user("ann")
    room.apply(before, update((7, 5, '"old"')))
    room.flush()
    assert room.apply(after, update((7, 6, "{"))).refused is not None
    assert flushed(room) == [Entry(7, 6, b"null")]
    assert (before.awareness, after.awareness) == ({}, None)


def test_the_ids_of_one_user_push_out_nobody_elses() -> None:
    room, ann, mallory = states(), user("ann"), user("mallory")
    room.apply(ann, update((1, 5, "{}")))
    room.leave(ann)
    for client in range(10, 310):
        room.apply(mallory, update((client, 1, "{}")))
        room.apply(mallory, update((client, 1, "null")))
    assert len(room.departed) == 201
    assert taken(room, mallory, (1, 6, "{}")) is not None
    assert room.departed.get(10) is None and room.departed.get(309) is not None


def test_the_ids_that_are_kept_have_a_bound() -> None:
    departed = Departed()
    for client in range(10_001):
        departed.add(client, 1, None if client % 2 else f"user {client}")
    assert len(departed) == 10_000 and departed.get(0) is None
    departed.remove(0)
    for client in range(1, 10_001):
        departed.remove(client)
    assert len(departed) == 0 and not departed._of_user


def test_the_ids_of_documents_that_are_not_in_memory_have_a_bound_too() -> None:
    unloaded = Unloaded()
    unloaded.put("nobody was there", Departed())
    assert not unloaded and unloaded.take("nobody was there") is None
    departed = []
    for number in range(3):
        departed.append(Departed())
        for client in range(4_000):
            departed[-1].add(client, 1, None)
        unloaded.put(f"document {number}", departed[-1])
    assert unloaded.take("document 0") is None, "it left memory first"
    assert unloaded.take("document 1") is departed[1] and unloaded.take("document 1") is None
    left_soon = Departed()
    unloaded.put("document 2", left_soon, 1)
    left_soon.add(5, 1, None)
    for _ in range(MINUTES - 1):
        unloaded.pass_minute()
    assert len(unloaded) == 1
    unloaded.pass_minute()
    assert not unloaded


# How much work one message is


def test_a_message_with_more_states_than_could_be_of_use_is_not_read() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(b, update((10, 1, "{}"), (11, 1, "{}")))
    room.apply(b, update((11, 2, "null")))
    room.flush()
    assert taken(room, a, *((client, 0, "{}") for client in range(5))) is None, "three of its own, two that are known"
    for state in ("{}", "null", "{"):
        many = update(*((client, 1, state) for client in range(size(100_000, small=20_000))))
        with pytest.raises(LimitExceeded, match="of which 105 could be of use"):
            room.apply(a, many)
        assert lines(partial(refuse, room, a, many)) < 500
    assert not room.changed and not a.awareness


def refuse(room: AwarenessStates, session: Session, payload: bytes) -> None:
    with pytest.raises(LimitExceeded):
        room.apply(session, payload)
    with pytest.raises(LimitExceeded):
        at_once(room.apply_in_slices(session, payload))


def test_no_more_is_read_as_json_than_one_connection_may_show(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def check(state: bytes) -> None:
        read.append(len(state))
        raise DecodeError("no JSON")

    monkeypatch.setattr("collab.engine.bounds.check_state", check)
    room, a = states(), Session()
    taken(room, a, *((client, 1, "[" * 400) for client in range(1, 4)))
    assert sum(read) <= 1_000 and read
    read.clear()
    taken(room, a, *((1, clock, "[" * 900) for clock in range(1, 4)))
    assert read == [900], "of several states of one client the newest"


def crowd(room: AwarenessStates, count: int) -> list[Session]:
    """Let so many sessions show three states each."""
    sessions = [Session() for _ in range(count)]
    for at, session in enumerate(sessions):
        room.apply(session, update(*((3 * at + client, 1, "{}") for client in range(3))))
    room.flush()
    return sessions


def test_a_large_message_is_taken_in_slices_of_bounded_work() -> None:
    room = states()
    crowd(room, 1_000)
    a = heard()
    echo = [(client, 1, '"old"') for client in range(3_000)]
    payload = update(*echo, (9_001, 1, '"mine"'), (9_002, 1, "{"), (5, 2, '"a claim"'))
    assert len(payload) > SLICED
    work = room.apply_in_slices(a, payload)
    counts, taken = lines_of_slices(work)
    assert max(counts) < 20_000 and len(counts) > 10
    assert taken.refused is not None and [type(owner) for owner in taken.contested] == [Session]
    assert flushed(room) == [Entry(9_001, 1, b'"mine"')]
    for at_once_too in (True, False):
        other, b = states(), heard()
        crowd(other, 1_000)
        taken = other.apply(b, payload) if at_once_too else at_once(other.apply_in_slices(b, payload))
        assert taken.refused is not None and len(taken.contested) == 1
        assert flushed(other) == [Entry(9_001, 1, b'"mine"')], "as it is taken at once"


def test_what_is_taken_in_slices_ends_with_its_session() -> None:
    room = states()
    crowd(room, 400)
    a = Session()
    payload = update((9_001, 1, '"mine"'), *((client, 1, "{}") for client in range(1_200)))
    work = room.apply_in_slices(a, payload)
    next(work)
    a.state = State.CLOSED
    assert at_once(work)[:3] == ([], [], None)
    assert not room.changed


def test_an_echo_is_known_by_its_bytes_in_slices_too() -> None:
    room, a, b = states(), Session(), heard()
    room.apply(a, update((1, 1, "{}")))
    payload, _ = room.flush()
    assert payload is not None
    assert at_once(room.apply_in_slices(b, payload))[:3] == ([], [], None)


def test_large_broadcasts_are_not_kept_as_echoes() -> None:
    room = AwarenessStates(max_bytes=1 << 20, max_ids=3)
    room.apply(Session(), update((1, 1, '"' + "x" * 70_000 + '"')))
    room.flush()
    assert not room._recent


def test_what_all_show_together_is_encoded_without_a_look_at_each() -> None:
    room = states()
    crowd(room, 3_000)
    assert lines(room.everything) < 20


@pytest.mark.parametrize("by", ["bytes", "IDs"])
def test_where_too_much_is_shown_everybody_may_still_show_a_little(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = AwarenessStates(max_bytes=10_000, max_ids=10)
    large = '"' + "x" * 9_000 + '"'
    if by == "bytes":
        monkeypatch.setattr("collab.engine.awareness._ROOM_BYTES", 0)
        shown = [Session() for _ in range(5)]
        for at, session in enumerate(shown):
            room.apply(session, update((at, 1, large)))
    else:
        monkeypatch.setattr("collab.engine.awareness._ROOM_IDS", 5)
        shown = [Session()]
        room.apply(shown[0], update(*((client, 1, "{}") for client in range(6))))
    assert room.crowded
    a = Session()
    assert "so much is shown" in str(taken(room, a, (100, 1, large)))
    assert taken(room, a, *((client, 1, "{}") for client in range(101, 105))) is None
    assert taken(room, a, (101, 2, '{"cursor":1}')) is None
    assert "so much is shown" in str(taken(room, a, (105, 1, "{}")))
    for session in shown:
        room.leave(session)
    assert not room.crowded
    assert taken(room, a, (105, 2, large[:-2_000] + '"')) is None


# Other nodes


def test_states_of_a_node_go_with_it() -> None:
    room, node, session = states(), Owner(), Session()
    room.apply(node, update((1, 3, "{}"), (2, 4, "{}")))
    room.apply(session, update((3, 1, "{}")))
    room.flush()
    room.leave(node)
    assert node.awareness is None
    payload, own = room.flush()
    assert decoded(payload) == [Entry(1, 3, b"null"), Entry(2, 4, b"null")]
    assert own is None, "the others hear of it as this node has"
    assert decoded(room.everything()) == [Entry(3, 1, b"{}")]
    room.leave(node)
    assert room.flush() == (None, None)


def test_states_of_a_node_pass_no_limits() -> None:
    room, node, session = states(), Owner(), Session()
    room.apply(node, update(*((client, 1, '"' + "x" * 900 + '"') for client in range(1, 50))))
    assert len(room) == 49
    room.apply(session, update((100, 1, "{}"), (101, 1, "{}"), (102, 1, "{}")))
    assert isinstance(taken(room, session, (103, 1, "{}")), LimitExceeded)


def test_states_of_a_node_stay_as_it_has_sent_them() -> None:
    room, node = states(), Owner()
    room.apply(node, update((1, 1, '{"user":{"sub":"u1","name":"Ann"}}')))
    assert flushed(room) == [Entry(1, 1, b'{"user":{"sub":"u1","name":"Ann"}}')]
    assert isinstance(taken(room, node, (1, 2, "{"), (2, 1, "{}")), DecodeError)
    assert flushed(room) == [Entry(1, 2, b"null"), Entry(2, 1, b"{}")]


def test_what_another_node_has_said_is_not_told_back() -> None:
    room, node, session = states(), Owner(), Session()
    room.apply(node, update((1, 1, "{}")))
    payload, own = room.flush()
    assert decoded(payload) == [Entry(1, 1, b"{}")] and own is None
    room.apply(session, update((2, 1, "{}")))
    room.apply(node, update((1, 2, "{}"), (3, 1, "{}")))
    payload, own = room.flush()
    assert {entry.client for entry in decoded(payload)} == {1, 2, 3}
    assert decoded(own) == [Entry(2, 1, b"{}")]
    room.apply(session, update((2, 2, "{}")))
    payload, own = room.flush()
    assert own is payload and decoded(own) == [Entry(2, 2, b"{}")]


def test_all_states_of_a_node_replace_those_that_it_has_shown() -> None:
    room, node, other, session = states(), Owner(), Owner(), Session()
    taken(room, node, (7, 3, "{}"), (8, 1, "{}"))
    taken(room, other, (9, 1, "{}"))
    taken(room, session, (10, 1, "{}"))
    room.flush()
    assert room.replace(node, update((8, 2, "[1]"), (8, 1, "[0]"), (11, 1, "{}"))).refused is None
    everybody, own = room.flush()
    assert decoded(everybody) == [Entry(7, 3, b"null"), Entry(8, 2, b"[1]"), Entry(11, 1, b"{}")]
    assert own is None, "nothing of it is this node's to tell"
    assert set(node.awareness or ()) == {8, 11}
    # What others show is not touched, and not taken away from them.
    assert room.replace(node, update((8, 2, "[1]"), (9, 1, "{}"), (10, 1, "{}"))).refused is None
    assert flushed(room) == [Entry(11, 1, b"null")]
    assert set(other.awareness or ()) == {9} and set(session.awareness or ()) == {10}
    room.replace(node, update())
    assert flushed(room) == [Entry(8, 2, b"null")]
    room.replace(node, update())
    assert room.flush() == (None, None)
    with pytest.raises(DecodeError):
        room.replace(node, b"\x01\x07")


def test_claims_between_sessions_and_nodes_change_nothing_and_name_the_owner() -> None:
    room, node, other, session = states(), Owner(), Owner(), Session()
    room.apply(node, update((1, 1, '"there"')))
    room.apply(session, update((2, 1, '"here"')))
    room.flush()
    assert room.apply(session, update((1, 2, '"mine"')))[:3] == ([], [node], None)
    assert room.apply(other, update((1, 2, '"mine"')))[:3] == ([], [node], None)
    assert room.apply(node, update((2, 2, '"mine"')))[:3] == ([], [session], None)
    assert room.apply(node, update((2, 2, "null")))[:3] == ([], [], None)
    assert room.flush() == (None, None)
    assert session.awareness == {2: 6} and node.awareness == {1: 7} and other.awareness is None
    assert decoded(room.everything()) == [Entry(1, 1, b'"there"'), Entry(2, 1, b'"here"')]


def test_a_state_that_waits_for_another_nodes_appears_when_that_one_goes() -> None:
    room, dead, new = states(), Owner(), Owner()
    room.apply(dead, update((1, 3, '"old"'), (2, 3, '"old"')))
    room.flush()
    room.apply(new, update((1, 4, '"new"')))
    room.apply(new, update((1, 5, '"newer"'), (2, 4, '"left again"')))
    room.apply(new, update((2, 5, "null")))
    assert room.flush() == (None, None)
    room.leave(dead)
    shown, own = room.flush()
    assert sorted(decoded(shown)) == [Entry(1, 5, b'"newer"'), Entry(2, 3, b"null")] and own is None
    assert new.awareness == {1: 7} and not room._waiting


def test_of_several_nodes_that_wait_for_an_id_the_one_with_the_newest_state_has_it() -> None:
    room, dead, second, third = states(), Owner(), Owner(), Owner()
    room.apply(dead, update((1, 3, '"old"'), (2, 3, '"old"')))
    room.flush()
    room.apply(second, update((1, 5, '"second"'), (2, 4, '"second"')))
    room.apply(third, update((1, 4, '"third"'), (2, 5, '"third"')))
    room.apply(third, update((1, 5, '"third, at one clock"')))
    room.leave(dead)
    assert sorted(flushed(room)) == [Entry(1, 5, b'"second"'), Entry(2, 5, b'"third"')]
    assert (second.awareness, third.awareness) == ({1: 8}, {2: 7})


def test_what_waits_goes_with_its_own_node() -> None:
    room, dead, new = states(), Owner(), Owner()
    room.apply(dead, update((1, 3, '"old"'), (2, 3, '"old"')))
    room.apply(new, update((1, 4, '"new"'), (2, 4, '"new"')))
    room.replace(new, update((2, 4, '"new"')))
    assert list(room._waiting) == [2]
    room.leave(new)
    room.flush()
    room.leave(dead)
    assert sorted(flushed(room)) == [Entry(1, 3, b"null"), Entry(2, 3, b"null")] and len(room) == 0


def test_a_client_that_hides_on_its_new_socket_claims_nothing_any_more() -> None:
    room, old, new = states(), heard("ada"), heard("ada")
    room.apply(old, update((1, 3, "{}")))
    new.awareness = {9: 2}  # it has shown another ID first
    room.apply(new, update((1, 4, "{}")))
    assert room.comebacks.find_claim(1) is not None
    room.apply(new, update((1, 5, "null")))
    assert room.comebacks.find_claim(1) is None
    assert room.leave(old) == [] and flushed(room) == [Entry(1, 3, b"null")]


def test_what_one_shows_is_told_apart_from_what_others_show() -> None:
    room, node, session = states(), Owner(), Session()
    assert room.states_of(session) == room.states_of(node) == []
    room.apply(session, update((3, 1, "{}"), (1, 1, '"x"')))
    room.apply(node, update((2, 7, '"there"')))
    room.apply(session, update((3, 2, '"newest"')))
    assert sorted(room.states_of(session)) == [Entry(1, 1, b'"x"'), Entry(3, 2, b'"newest"')]
    assert room.states_of(node) == [Entry(2, 7, b'"there"')]
    room.apply(session, update((1, 2, "null"), (3, 3, "null")))
    assert room.states_of(session) == []


def test_own_states_are_those_of_this_nodes_sessions() -> None:
    room, node, a, b = states(), Owner(), Session(), Session()
    assert room.own() is None
    room.apply(node, update((1, 1, "{}")))
    assert room.own() is None
    room.apply(a, update((2, 1, "{}")))
    room.apply(b, update((3, 1, "{}")))
    assert decoded(room.own()) == [Entry(2, 1, b"{}"), Entry(3, 1, b"{}")]
    room.leave(a)
    assert decoded(room.own()) == [Entry(3, 1, b"{}")]


def test_one_that_comes_from_another_node_with_its_old_clock_is_made_to_announce_itself_again() -> None:
    """Its old state, as the room has broadcast it for that node, is no echo any more."""
    room, node, session = states(), Owner(), Session()
    room.apply(node, update((7, 3, "{}")))
    room.flush()
    room.apply(node, update((7, 3, "null")))
    room.flush()
    assert room.apply(session, update((7, 3, "{}")))[:3] == ([Entry(7, 3, b"null")], [], None)


def test_one_that_comes_from_another_node_within_a_turn_is_told_to_the_others() -> None:
    room, node, session = states(), Owner(), Session()
    room.apply(node, update((7, 3, "{}")))
    room.flush()
    room.apply(node, update((7, 3, "null")))
    room.apply(session, update((7, 4, "{}")))
    payload, own = room.flush()
    assert decoded(payload) == decoded(own) == [Entry(7, 4, b"{}")]


def test_one_that_goes_to_another_node_within_a_turn_is_taken_back_from_the_others() -> None:
    """They have its state from this node: until it is taken back, what the other node says of it is a claim."""
    room, node, session = states(), Owner(), Session()
    room.apply(session, update((7, 3, "{}"), (8, 1, "{}")))
    room.flush()
    room.leave(session)
    room.apply(node, update((7, 4, "{}")))
    room.apply(node, update((7, 5, "{}")))
    payload, own = room.flush()
    assert decoded(payload) == [Entry(7, 5, b"{}"), Entry(8, 1, b"null")]
    assert decoded(own) == [Entry(8, 1, b"null"), Entry(7, 3, b"null")]
    room.leave(node)
    payload, own = room.flush()
    assert decoded(payload) == [Entry(7, 5, b"null")] and own is None


class LongWay(AwarenessStates):
    """Takes each update as any other, the usual ones too."""

    __slots__ = ()

    def _move(self, session: Session, payload: bytes) -> bool:
        return False


def _facts(room: AwarenessStates, owners: list[Session]) -> object:
    clocks = {client: room.clock_of(client) for client in range(1, 5)}
    return room.everything(), room._nbytes, clocks, [owner.awareness for owner in owners], room.changes_since(0)


@pytest.mark.parametrize("seed", range(size(100, small=20)))
def test_the_short_way_of_the_usual_update_leads_to_the_same(seed: int) -> None:
    random = Random(seed)
    people = [None, User("ada", "Ada"), None]
    rooms = []
    for kind in (AwarenessStates, LongWay):
        owners = [heard(), heard(None if seed % 2 else "ada"), user(None)]
        for owner, who in zip(owners, people, strict=True):
            owner.user = who
        rooms.append((kind(max_bytes=60, max_ids=2), owners))
    good = ["{}", '{"x":1}', '{"user":{"name":"me"}}', "3"]
    other = ["null", "nul", '{"a":', '"' + "x" * 70 + '"', "NaN", "\ufeff{}"]
    clock = 1
    moved = 0
    for _ in range(120):
        at, client = random.randrange(3), random.choice((1, 2, 3, 3, 4))
        client = at + 1 if random.random() < 0.95 else client
        clock += random.choice((0, 1, 1, 2, -1))
        text = random.choice(good if random.random() < 0.85 else other)
        payload = update((client, max(clock, 0) if random.random() < 0.98 else 2**40, text))
        payload = random.choice((payload,) * 8 + (payload + b" ", payload[:-1], payload[:3]))
        outcomes = []
        for room, owners in rooms:
            try:
                taken = room.apply(owners[at], payload)
                outcomes.append((taken.back, str(taken.refused), len(taken.contested)))
                moved += taken is _MOVED
            except (DecodeError, LimitExceeded) as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1]
        assert _facts(*rooms[0]) == _facts(*rooms[1])
        if random.random() < 0.3:
            assert rooms[0][0].flush() == rooms[1][0].flush()
        if random.random() < 0.03:
            for room, owners in rooms:
                room.leave(owners[at])
    assert moved, "none of them went that way"
