from __future__ import annotations

import pytest

from collab.engine.awareness import AwarenessStates
from collab.errors import DecodeError, LimitExceeded
from collab.protocol.awareness import Entry, User, decode_awareness, encode_awareness
from collab.protocol.session import Session


def states() -> AwarenessStates:
    return AwarenessStates(max_bytes=1_000, max_ids=3)


def update(*entries: tuple[int, int, str]) -> bytes:
    return encode_awareness(Entry(client, clock, state.encode()) for client, clock, state in entries)


def flushed(room: AwarenessStates) -> list[Entry]:
    payload = room.flush()
    return [] if payload is None else decode_awareness(payload)


def test_a_turn_has_the_newest_state_of_each_client_once() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 1, '{"x":1}')))
    room.apply(a, update((1, 2, '{"x":2}')))
    room.apply(b, update((2, 5, "{}")))
    assert flushed(room) == [Entry(1, 2, b'{"x":2}'), Entry(2, 5, b"{}")]
    assert room.flush() is None


def test_everything_is_what_is_there_now() -> None:
    room, a = states(), Session()
    assert room.everything() is None
    room.apply(a, update((1, 1, "{}"), (2, 1, "{}")))
    room.apply(a, update((2, 1, "null")))
    payload = room.everything()
    assert payload is not None
    assert decode_awareness(payload) == [Entry(1, 1, b"{}")]


def test_stale_clocks_are_dropped_before_their_json_is_parsed() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 5, "{}")))
    room.flush()
    assert room.apply(a, update((1, 5, "not json"), (1, 4, "nor this"))) == ([], [])
    assert room.flush() is None


def test_null_at_an_equal_clock_removes_and_is_told() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 5, "{}")))
    room.flush()
    room.apply(a, update((1, 5, "null")))
    assert flushed(room) == [Entry(1, 5, b"null")]
    assert len(room) == 0


def test_an_echo_of_what_was_broadcast_changes_nothing() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 1, "{}")))
    payload = room.flush()
    assert payload is not None
    room.apply(b, payload)
    assert room.flush() is None
    assert b.awareness is None


def test_a_live_owners_state_is_neither_changed_nor_removed_by_another() -> None:
    room, owner, other = states(), Session(), Session()
    room.apply(owner, update((1, 1, '"mine"')))
    room.flush()
    assert room.apply(other, update((1, 9, '"stolen"'))) == ([], [owner])
    assert room.apply(other, update((1, 9, "null"))) == ([], [])
    assert room.flush() is None
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
    assert room.apply(after, update((1, 3, "{}"))) == ([Entry(1, 3, b"null")], [])
    assert room.flush() is None, "nobody else hears of it"
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


def test_forgetting_frees_the_clocks_of_those_who_left() -> None:
    room, a = states(), Session()
    room.apply(a, update((1, 3, "{}"), (2, 3, "{}")))
    room.apply(a, update((1, 3, "null")))
    room.forget()
    assert flushed(room) == [Entry(1, 3, b"null"), Entry(2, 3, b"{}")], "what is still to be told is kept"
    room.forget()
    room.apply(a, update((1, 1, "{}")))
    assert flushed(room) == [Entry(1, 1, b"{}")]


def test_bounds_for_one_connection() -> None:
    room, a, b = states(), Session(), Session()
    room.apply(a, update((1, 1, "{}"), (2, 1, "{}"), (3, 1, "{}")))
    with pytest.raises(LimitExceeded, match="client IDs"):
        room.apply(a, update((4, 1, "{}")))
    room.apply(a, update((3, 1, "null")))
    room.apply(a, update((4, 1, "{}")))
    with pytest.raises(LimitExceeded, match="bytes"):
        room.apply(b, update((9, 1, '"' + "x" * 1_000 + '"')))
    assert {entry.client for entry in flushed(room)} == {1, 2, 3, 4}


def test_a_bad_state_takes_nothing_of_its_update() -> None:
    room, a = states(), Session()
    with pytest.raises(DecodeError):
        room.apply(a, update((1, 1, "{}"), (2, 1, "{")))
    assert room.flush() is None
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
    with pytest.raises(DecodeError):
        room.apply(mallory, update((1, 3, '{"user":}')))
