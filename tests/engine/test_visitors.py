"""Visitors: whose the ID of a client is that posts, what sessions and other nodes may do with it, and where it goes.

Strategy: clients with a socket are those of ``test_comebacks``, which keep clocks as y-protocols does; two tables stand
for two nodes.
"""

from __future__ import annotations

import pytest

from collab.engine.agents import FIRST_ID
from collab.engine.awareness import AwarenessStates
from collab.engine.comebacks import DistantClaim
from collab.engine.departed import Departed
from collab.engine.room import Probe
from collab.engine.visitors import AnothersClient, Visitor
from collab.errors import CollabError, DecodeError, LimitExceeded
from collab.protocol.awareness import Entry, User
from collab.protocol.session import Owner
from tests.engine.test_awareness import decoded, flushed, heard, update, user
from tests.engine.test_comebacks import Yjs, make_room, settle

HOME = "192.0.2.1"
AWAY = "192.0.2.2"


def states(departed: Departed | None = None) -> AwarenessStates:
    return AwarenessStates(max_bytes=1_000, max_ids=3, departed=departed)


def visitor(author: str | None = "ada", client: int = 5, address: str | None = HOME) -> Visitor:
    return Visitor(client, author, address)


def posts(
    room: AwarenessStates, who: Visitor, clock: int, state: str = "{}", *, moved: bool = False
) -> CollabError | None:
    """Post a state; give why it is not shown."""
    return room.visit(who, Entry(who.client, clock, state.encode()), moved=moved).refused


def claim(
    author: str | None = "ada", clock: int = 1, address: str | None = HOME, *, first: bool = True
) -> DistantClaim:
    return DistantClaim(5, clock, first, author, address)


def test_what_is_posted_is_told_like_what_a_session_shows() -> None:
    room, ada = states(), visitor()
    assert posts(room, ada, 1, '{"x":1}') is None and ada.shown
    told, own = room.flush()
    assert decoded(told) == decoded(own) == decoded(room.own()) == [Entry(5, 1, b'{"x":1}')]
    assert posts(room, ada, 1, '{"x":1}') is None and posts(room, ada, 0, '{"x":0}') is None
    assert room.flush() == (None, None), "a clock that is known says nothing"
    posts(room, ada, 2, '{"x":2}')
    assert flushed(room) == [Entry(5, 2, b'{"x":2}')]
    posts(room, ada, 3, "null")
    assert flushed(room) == [Entry(5, 3, b"null")] and not ada.shown and room.own() is None
    posts(room, ada, 3, '{"x":3}')
    assert not ada.shown, "y-protocols would not take it either"
    posts(room, ada, 4, '{"x":4}')
    assert ada.shown


def test_who_says_nothing_any_more_is_removed_with_the_clock_that_others_know() -> None:
    room, ada = states(), visitor()
    posts(room, ada, 7)
    room.flush()
    assert room.leave(ada) == [] and not ada.shown
    assert flushed(room) == [Entry(5, 7, b"null")]


def test_the_server_writes_who_it_is() -> None:
    room, ada = states(), visitor()
    ada.user = User("ada", "Ada")
    posts(room, ada, 1, '{"user":{"name":"Mallory","color":"#123"}}')
    assert flushed(room)[0].state == b'{"user":{"name":"Ada","color":"#123","sub":"ada"}}'


@pytest.mark.parametrize(
    ("state", "error"), [("x", DecodeError), ("NaN", DecodeError), ('"' + "x" * 1_000 + '"', LimitExceeded)]
)
def test_a_state_that_cannot_be_shown_is_refused_and_ends_the_one_before(state: str, error: type[CollabError]) -> None:
    room, ada = states(), visitor()
    assert isinstance(posts(room, ada, 1, state), error) and len(room) == 0
    posts(room, ada, 2)
    room.flush()
    assert isinstance(posts(room, ada, 3, state), error) and not ada.shown
    assert flushed(room) == [Entry(5, 3, b"null")]


def test_nobody_else_changes_or_ends_it() -> None:
    room, ada = states(), visitor()
    posts(room, ada, 1)
    room.flush()
    for stranger in (visitor("eve"), visitor(None), visitor(None, address=None)):
        assert isinstance(posts(room, stranger, 9, '"mine"'), AnothersClient)
        assert posts(room, stranger, 9, "null") is None
        assert not stranger.shown
    for session in (user("eve"), user(None), heard("ada"), heard("eve")):
        room.apply(session, update((5, 1, "{}")))
        room.apply(session, update((5, 9, "null")))
        assert not session.awareness
    assert room.flush() == (None, None) and ada.shown


def test_no_visitor_takes_an_agents_id_or_a_clock_that_no_client_has_come_to() -> None:
    room = states()
    assert isinstance(posts(room, visitor(client=FIRST_ID), 1), AnothersClient)
    assert isinstance(posts(room, visitor(), 2**52), LimitExceeded)
    assert len(room) == 0


def test_an_id_stays_its_users_after_the_end() -> None:
    room, ada = states(), visitor()
    posts(room, ada, 1)
    room.leave(ada)
    assert isinstance(posts(room, visitor("eve"), 5), AnothersClient)
    assert isinstance(posts(room, visitor(None), 5), AnothersClient)
    assert posts(room, visitor("ada", address=AWAY), 5) is None and len(room) == 1


def test_a_client_goes_from_requests_to_a_socket_at_once() -> None:
    for author in ("ada", None):
        room = make_room()
        room.visit(visitor(author), Entry(5, 4, b"{}"))
        room.end_turn()
        ada = Yjs(room, 5, clock=4, user=author, address=HOME)
        settle(room, ada, effects=ada.connect())
        assert ada.session.awareness, "the clock that is known is enough"
        assert room.awareness.clock_of(5) > 4, "it was told to announce itself, for others know this clock"


def test_a_session_of_somebody_else_waits_for_the_end_of_a_visitor() -> None:
    room, ada = states(), visitor(None)
    posts(room, ada, 4)
    room.flush()
    late = user(None)
    late.address = AWAY
    room.apply(late, update((5, 5, '"moved"')))
    assert ada.shown and not late.awareness
    ask = room.leave(ada)
    assert ask == [(late, Entry(5, 5, b"null"))], "nobody knows users here: it may be its client from another network"


def test_a_client_goes_from_a_socket_to_requests() -> None:
    room, ada = states(), user("ada")
    room.apply(ada, update((5, 4, "{}")))
    room.flush()
    posted = visitor("ada", address=AWAY)
    assert posts(room, posted, 5, '"posted"') is None
    assert flushed(room) == [Entry(5, 5, b'"posted"')] and not ada.awareness, "and nobody sees it leave"
    room.leave(ada)
    assert room.flush() == (None, None)


def test_where_nobody_knows_users_its_socket_is_probed_first() -> None:
    room = make_room()
    ann = Yjs(room, 5, address=HOME)
    ann.connect()
    room.end_turn()
    effects, refused = room.visit(visitor(None), Entry(5, 9, b"{}"))
    assert list(effects) == [Probe(ann.session)] and isinstance(refused, AnothersClient)
    room.leave(ann.session)
    _, refused = room.visit(visitor(None), Entry(5, 9, b"{}"))
    assert refused is None and 5 in room.awareness


def test_one_that_comes_back_lets_the_others_announce_themselves() -> None:
    room = make_room()
    bob = Yjs(room, 9, user="bob")
    settle(room, bob, effects=bob.connect())
    ada = visitor()
    room.visit(ada, Entry(5, 1, b"{}"))
    room.end_turn()
    assert not room.lacking
    room.leave_awareness(ada)
    room.end_turn()
    room.visit(visitor(), Entry(5, 2, b"{}"))
    assert room.lacking, "y-protocols drops others after 30 s, and keeps their clocks"
    clock = bob.clock
    settle(room, bob, effects=room.begin_round().here)
    assert bob.clock > clock


def test_its_requests_may_come_to_another_node_each_time() -> None:
    a, b, c = states(), states(), states()
    on_a, on_b = visitor(), visitor()
    nodes = {room: Owner() for room in (a, b)}
    rooms = {a: on_a, b: on_b}

    def told(sender: AwarenessStates, *others: AwarenessStates) -> None:
        own = sender.flush()[1]
        assert own is not None
        for room in others:
            room.apply(nodes[sender], own)

    posts(a, on_a, 1)
    told(a, b, c)
    b.flush(), c.flush()
    for clock, here in enumerate((b, a, a, b), 2):
        there = b if here is a else a
        moves = here.may_be_elsewhere(5)
        assert posts(here, rooms[here], clock, str(clock), moved=True) is None
        assert rooms[here].shown
        if moves:
            for room in (there, c):
                room.note_moved(5, "ada", nodes[here])
        told(here, there, c)
        for room in (there, c):
            assert flushed(room) == [Entry(5, clock, str(clock).encode())], "it never leaves"
        assert not rooms[there].shown and there.own() is None
    # Its end, too, may be told to a node that does not show it.
    posts(a, on_a, 6, "null", moved=True)
    for room in (b, c):
        room.note_moved(5, "ada", nodes[a])
    told(a, b, c)
    for room in (b, c):
        assert flushed(room) == [Entry(5, 6, b"null")] and 5 not in room
    assert not on_a.shown and not on_b.shown


def test_without_the_word_that_it_has_moved_the_new_state_waits_for_its_end() -> None:
    """The bus may lose that; the visitor's time on the node before ends some time later."""
    a, b, there = states(), states(), Owner()
    ada = visitor()
    posts(a, ada, 1)
    a.flush()
    assert a.apply(there, update((5, 2, '"b"'))).contested == [ada]
    assert ada.shown and a.flush() == (None, None)
    a.leave(ada)
    assert flushed(a) == [Entry(5, 2, b'"b"')]
    b.note_moved(5, "ada", there)
    assert b.apply(there, update((5, 3, '"b"'))).refused is None, "nobody has shown it here"


def test_a_session_is_not_given_away_because_a_node_says_so() -> None:
    room, ann, node = states(), user("ann"), Owner()
    room.apply(ann, update((5, 1, "{}")))
    room.flush()
    for author in ("eve", None):
        room.note_moved(5, author, node)
        room.apply(node, update((5, 2, '"theirs"')))
        assert ann.awareness and room.flush() == (None, None)
    room.note_moved(5, "ann", node)
    room.apply(node, update((5, 3, '"hers"')))
    assert not ann.awareness and flushed(room) == [Entry(5, 3, b'"hers"')]


def test_a_node_is_told_whose_an_id_is() -> None:
    room, ada = states(), visitor()
    assert room.may_give(claim()) == (False, None), "nobody shows it"
    posts(room, ada, 1)
    room.flush()
    assert room.may_give(claim("ada")) == (True, None)
    assert room.may_give(claim("eve")) == (False, None) and room.may_give(claim(None)) == (False, None)
    assert ada.shown, "it is given when the node says that it has it"
    room = states()
    posts(room, visitor(None), 1)
    assert room.may_give(claim(None)) == (True, None) and room.may_give(claim(None, address=AWAY)) == (False, None)
    room, ann = states(), user("ann")
    room.apply(ann, update((5, 1, "{}")))
    room.flush()
    assert room.may_give(claim("eve", 2)) == (False, ann)
    assert room.may_give(claim("ann", 2)) == (True, None) and flushed(room) == [Entry(5, 1, b"null")]
    room.apply(Owner(), update((6, 1, "{}")))
    assert room.may_give(DistantClaim(6, 2, True, "ann", None)) == (False, None), "another node knows"


def test_a_session_of_another_node_has_the_id_of_a_visitor_who_is_the_same() -> None:
    room, ada = states(), visitor()
    posts(room, ada, 3)
    room.flush()
    for other in (claim("eve", 3), claim("ada", 2), claim("ada", 3, first=False)):
        assert room.judge_distant(other) is None and ada.shown
    assert room.judge_distant(claim("ada", 3)) is None
    assert flushed(room) == [Entry(5, 3, b"null")] and not ada.shown


def test_what_has_changed_since_a_turn_is_the_newest_of_each() -> None:
    room, ada, bob = states(), visitor("ada", 5), visitor("bob", 6)
    begin = room.comebacks.turn
    posts(room, ada, 1)
    room.flush()
    second = room.comebacks.turn
    posts(room, bob, 1)
    posts(room, ada, 2, '"new"')
    room.flush()
    third = room.comebacks.turn
    assert sorted(decoded(room.changes_since(begin))) == sorted(decoded(room.everything()))
    assert sorted(decoded(room.changes_since(second))) == [Entry(5, 2, b'"new"'), Entry(6, 1, b"{}")]
    assert room.changes_since(third) is None
    posts(room, bob, 2, "null")
    room.flush()
    assert decoded(room.changes_since(third)) == [Entry(6, 2, b"null")]
    assert sorted(decoded(room.changes_since(second))) == [Entry(5, 2, b'"new"'), Entry(6, 2, b"null")]
    assert room.changes_since(room.comebacks.turn) is None
