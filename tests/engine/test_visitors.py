"""Visitors: whose the ID of a client is that posts, what sessions and other nodes may do with it, and where it goes.

Strategy: clients with a socket are those of ``test_comebacks``, which keep clocks as y-protocols does; two tables stand
for two nodes.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from collab.engine.agents import FIRST_ID
from collab.engine.awareness import AwarenessStates
from collab.engine.comebacks import DistantClaim
from collab.engine.departed import Departed
from collab.engine.room import Probe
from collab.engine.visitors import AnothersClient, Somebody, Visitor
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


class Tables:
    """The tables of some nodes, each with a visitor of its own for one client, and what they tell each other."""

    def __init__(self, count: int, author: str | None = "ada") -> None:
        self.rooms = [states() for _ in range(count)]
        self.visitors = [visitor(author) for _ in range(count)]
        self.nodes = [Owner() for _ in range(count)]
        self.unheard: list[tuple[int, bytes, Mapping[int, Somebody]]] = []

    def post(self, at: int, clock: int, state: str) -> None:
        """Post at one node, which is to tell the others."""
        assert posts(self.rooms[at], self.visitors[at], clock, state) is None
        _, own = self.rooms[at].flush()
        if own is not None:
            self.unheard.append((at, own, self.rooms[at].take_told()))

    def hear(self) -> None:
        """Let all nodes hear what was told; the last node hears of the last one first."""
        unheard, self.unheard = self.unheard, []
        for to, room in enumerate(self.rooms):
            order = unheard if to < len(self.rooms) - 1 else sorted(unheard, key=lambda said: -said[0])
            for at, own, people in order:
                if at != to:
                    room.apply(self.nodes[at], own, people)

    def shown(self) -> list[list[Entry]]:
        return [decoded(room.everything()) for room in self.rooms]


@pytest.mark.parametrize("author", ["ada", None])
def test_its_requests_may_come_to_another_node_each_time(author: str | None) -> None:
    tables = Tables(3, author)
    for clock, at in enumerate((0, 1, 0, 0, 1, 2, 1), 1):
        tables.post(at, clock, str(clock))
        tables.hear()
        assert tables.shown() == [[Entry(5, clock, str(clock).encode())]] * 3
        assert [who.shown for who in tables.visitors] == [node == at for node in range(3)]
        told = [flushed(room) for node, room in enumerate(tables.rooms) if node != at]
        assert told == [[Entry(5, clock, str(clock).encode())]] * 2, "nobody has seen it leave"
    # Its end, too, may be told to a node that does not show it.
    tables.post(0, 8, "null")
    tables.hear()
    assert tables.shown() == [[]] * 3 and not any(who.shown for who in tables.visitors)


@pytest.mark.parametrize("author", ["ada", None])
@pytest.mark.parametrize("way", [(0, 1), (0, 1, 0), (0, 1, 2), (0, 1, 0, 1, 2, 0), (2, 1, 0)])
def test_its_requests_may_overtake_what_nodes_tell_each_other(way: tuple[int, ...], author: str | None) -> None:
    for ends in (False, True):
        tables = Tables(3, author)
        for clock, at in enumerate(way, 1):
            tables.post(at, clock, str(clock))
        if ends:
            tables.post(1, len(way) + 1, "null")
        tables.hear()
        last = [] if ends else [Entry(5, len(way), str(len(way)).encode())]
        assert tables.shown() == [last] * 3
        assert sum(who.shown for who in tables.visitors) == (not ends)


def test_an_end_that_comes_before_all_else_is_known() -> None:
    room, node, ada = states(), Owner(), Somebody("ada", HOME)
    end = Entry(5, 3, b"null")
    assert room.note_end(end, ada) and not room.note_end(end, ada), "once"
    room.apply(node, update((5, 2, "{}")), {5: ada})
    assert room.flush() == (None, None), "it was overtaken"
    assert not room.note_end(Entry(5, 9, b"null"), Somebody("eve", HOME)), "the ID is a user's"
    assert not room.note_end(Entry(6, 2**52, b"null"), ada) and not room.note_end(Entry(FIRST_ID, 1, b"null"), ada)
    room.apply(node, update((5, 4, "{}")), {5: ada})
    assert flushed(room) == [Entry(5, 4, b"{}")]
    assert not room.note_end(Entry(5, 9, b"null"), ada), "it is shown"
    assert room.note_end(Entry(8, 1, b"null"), ada) and room.note_end(Entry(8, 2, b"null"), ada), "a later end"
    assert not room.note_end(Entry(8, 3, b"null"), Somebody("eve", HOME)), "it was of ada"
    # The same from another node.
    room.apply(node, update((7, 3, "null")), {7: ada})
    room.apply(Owner(), update((7, 2, "{}")), {7: ada})
    assert 7 not in room


def test_who_is_ended_by_its_own_node_alone_goes_on_elsewhere() -> None:
    """Its time there was over because its requests came to another node."""
    tables = Tables(2)
    tables.post(0, 1, "1")
    tables.post(1, 2, "2")
    tables.rooms[0].leave(tables.visitors[0])
    _, own = tables.rooms[0].flush()
    assert own is not None and tables.rooms[0].take_told() == {}
    tables.rooms[1].apply(tables.nodes[0], own, {})
    tables.unheard = tables.unheard[1:]
    tables.hear()
    assert tables.shown() == [[Entry(5, 2, b"2")]] * 2


def test_another_person_has_it_on_no_node() -> None:
    room, ada, node = states(), visitor(), Owner()
    posts(room, ada, 1)
    room.flush()
    for person in (Somebody("eve", HOME), Somebody(None, HOME)):
        room.apply(node, update((5, 9, '"mine"')), {5: person})
        room.apply(node, update((5, 9, "null")), {5: person})
        assert ada.shown and room.flush() == (None, None)
    # Nor on one that has heard of both.
    room, one, two = states(), Owner(), Owner()
    room.apply(one, update((5, 1, "{}")), {5: Somebody("ada", HOME)})
    room.flush()
    room.apply(two, update((5, 9, '"mine"')), {5: Somebody("eve", HOME)})
    assert room.flush() == (None, None)
    assert room.is_known_to_be(5, ada) and not room.is_known_to_be(5, visitor("eve"))


def test_what_waits_for_an_end_is_known_to_be_somebodys() -> None:
    """A session of the node before has shown it: nobody says that both are one person, so it waits for its end."""
    room, one, two, ada = states(), Owner(), Owner(), Somebody("ada", HOME)
    room.apply(one, update((5, 1, "{}")))
    room.apply(two, update((5, 2, '"moved"')), {5: ada})
    assert flushed(room) == [Entry(5, 1, b"{}")]
    room.apply(one, update((5, 1, "null")))
    assert flushed(room) == [Entry(5, 2, b'"moved"')] and room.is_known_to_be(5, ada)
    room.apply(two, update((5, 3, '"a socket"')))
    assert not room.is_known_to_be(5, ada), "it has a socket there now"


def test_without_the_word_whose_it_is_the_new_state_waits_for_its_end() -> None:
    a, there = states(), Owner()
    ada = visitor()
    posts(a, ada, 1)
    a.flush()
    assert a.apply(there, update((5, 2, '"b"'))).contested == [ada]
    assert ada.shown and a.flush() == (None, None)
    a.leave(ada)
    assert flushed(a) == [Entry(5, 2, b'"b"')]


def test_a_session_is_not_given_away_because_a_node_says_so() -> None:
    room, ann, node = states(), user("ann"), Owner()
    room.apply(ann, update((5, 1, "{}")))
    room.flush()
    for author in ("eve", None):
        room.apply(node, update((5, 2, '"theirs"')), {5: Somebody(author, HOME)})
        assert ann.awareness and room.flush() == (None, None)
    room.apply(node, update((5, 3, '"hers"')), {5: Somebody("ann", HOME)})
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


def test_a_room_has_a_turn_where_a_visitor_has_changed_something() -> None:
    room, ada, ann, node = make_room(), Somebody("ada", HOME), user("ann"), Owner()
    assert room.note_end(Entry(9, 3, b"null"), ada) and not room.pending
    assert room.may_give(claim()) == (False, ()) and not room.pending
    room.awareness.apply(ann, update((5, 1, "{}")))
    room.end_turn()
    assert room.may_give(claim("eve", 2)) == (False, (Probe(ann),)) and not room.pending
    assert room.may_give(claim("ann", 2)) == (True, ()) and room.pending, "it is given away"
    room.end_turn()
    room.awareness.apply(node, update((6, 1, "{}")))
    assert room.awareness.may_be_elsewhere(6) and not room.awareness.may_be_elsewhere(5)


def test_whose_the_visitors_are_is_told_with_their_states() -> None:
    room = states()
    assert room.list_visitors() == (None, {}) and room.take_told() == {}
    posts(room, visitor(), 1)
    room.apply(user("ann"), update((6, 1, "{}")))
    room.flush()
    told, people = room.list_visitors()
    assert decoded(told) == [Entry(5, 1, b"{}")] and people == {5: Somebody("ada", HOME)}
    assert room.take_told() == people and room.take_told() == {}
