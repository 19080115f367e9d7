"""Agents: their client IDs and clocks, what sessions and other nodes may do with them, and who sees them again.

Strategy: clients are those of ``test_comebacks``, which keep clocks as y-protocols does; two rooms stand for two nodes.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.engine.agents import FIRST_ID, Agent, agent_id, next_clock
from collab.engine.awareness import AwarenessStates
from collab.engine.departed import Departed
from collab.errors import DecodeError, LimitExceeded
from collab.protocol.awareness import MAX_CLOCK, Entry, User, decode_awareness
from collab.protocol.lib0 import MAX_SAFE_INTEGER
from collab.protocol.session import Owner
from tests.engine.test_awareness import decoded, flushed, heard, update, user
from tests.engine.test_comebacks import Yjs, make_room

NOW = 1_790_000_000.0  # in 2026
STATE = b'{"user":{"name":"Bot"}}'


def states(departed: Departed | None = None) -> AwarenessStates:
    return AwarenessStates(max_bytes=1_000, max_ids=3, departed=departed)


def bot(author: str | None = "ada", ident: str = "bot", stamp: User | None = None) -> Agent:
    return Agent("d", author, ident, stamp)


@given(st.text(max_size=5), st.none() | st.text(max_size=5), st.text(max_size=5))
def test_a_client_id_is_always_the_same_and_none_that_a_client_draws(name: str, author: str | None, ident: str) -> None:
    client = agent_id(name, author, ident)
    assert client == agent_id(name, author, ident)
    assert FIRST_ID <= client <= MAX_SAFE_INTEGER


def test_client_ids_differ_by_document_user_and_name() -> None:
    told = [("d", "a", "b"), ("da", "", "b"), ("d", "ab", ""), ("d", None, "b"), ("d", "", "b"), ("e", "a", "b")]
    assert len({agent_id(*each) for each in told}) == len(told)
    assert agent_id("d", "\ud800", "b") != agent_id("d", "\ud801", "b"), "an author as the store keeps it"
    assert agent_id("d", "ada", "bot") == 6_122_580_090_796_134, "releases agree"


def test_clocks_are_the_time_and_rise_in_any_case() -> None:
    assert next_clock(0, NOW) == next_clock(7, NOW) == int((NOW - 1_767_225_600) * 4)
    assert next_clock(0, NOW + 0.25) == next_clock(0, NOW) + 1
    assert next_clock(next_clock(0, NOW), NOW) == next_clock(0, NOW) + 1, "twice in a quarter of a second"
    assert next_clock(next_clock(0, NOW), NOW - 100) == next_clock(0, NOW) + 1, "the time went back"
    assert next_clock(0, 0.0) == 1 and next_clock(0, 2_300_000_000.0) < MAX_CLOCK, "until 2042"


def test_an_agent_is_told_like_a_session_of_this_node() -> None:
    room, agent = states(), bot()
    room.show_agent(agent, STATE, NOW)
    told, own = room.flush()
    entry = Entry(agent.client, next_clock(0, NOW), STATE)
    assert decoded(told) == decoded(own) == decoded(room.own()) == decoded(room.everything()) == [entry]
    assert agent.shown and agent.state == STATE
    room.renew_agent(agent, NOW + 12)
    assert flushed(room) == [Entry(agent.client, next_clock(0, NOW + 12), STATE)]
    assert room.leave(agent) == [] and not agent.shown
    told, own = room.flush()
    assert decoded(told) == decoded(own) == [Entry(agent.client, next_clock(0, NOW + 12), b"null")]
    assert room.own() is None
    room.show_agent(agent, STATE, NOW + 12)
    assert flushed(room)[0].clock == next_clock(0, NOW + 12) + 1, "the clock of its removal is known"
    assert room.clock_of(agent.client) == next_clock(0, NOW + 12) + 1


def test_the_server_writes_who_it_is() -> None:
    room, agent = states(), bot(stamp=User("ada", "Ada"))
    room.show_agent(agent, b'{"user":{"name":"Mallory","color":"#123"}}', NOW)
    assert flushed(room)[0].state == b'{"user":{"name":"Ada","color":"#123","sub":"ada"}}'
    room.renew_agent(agent, NOW + 12)
    assert flushed(room)[0].state == b'{"user":{"name":"Ada","color":"#123","sub":"ada"}}'


@pytest.mark.parametrize(
    ("state", "error"),
    [(b"x", DecodeError), (b"\xff", DecodeError), (b'"' + b"x" * 1_000 + b'"', LimitExceeded), (b"NaN", DecodeError)],
)
def test_a_state_that_no_client_could_read_changes_nothing(state: bytes, error: type[Exception]) -> None:
    room, agent = states(), bot()
    with pytest.raises(error):
        room.show_agent(agent, state, NOW)
    assert len(room) == 0 and not agent.shown and not room.changed
    room.show_agent(agent, STATE, NOW)
    before = decoded(room.everything())
    with pytest.raises(error):
        room.show_agent(agent, state, NOW + 1)
    assert decoded(room.everything()) == before and agent.state == STATE


def test_no_session_takes_its_id_not_even_one_of_its_user() -> None:
    room, agent = states(), bot()
    client, far = agent.client, next_clock(0, NOW) + 1_000
    room.show_agent(agent, STATE, NOW)
    room.flush()
    for session in (user("ada"), user("eve"), heard("ada"), heard(None)):
        taken = room.apply(session, update((client, far, '"mine"')))
        assert (taken.back, taken.contested) == ([], [])
        assert (taken.refused is None) == bool(session.answered), "who shows it as its own is told; an echo is not"
        room.apply(session, update((client, far, "null")))
        assert not session.awareness and session.own is None
    assert room.flush() == (None, None) and agent.shown
    room.leave(agent)
    room.flush()
    for session in (user("ada"), heard("ada")):
        room.apply(session, update((client, far, '"mine"')))
    assert len(room) == 0


def test_who_still_shows_an_agent_that_has_gone_is_told() -> None:
    room, agent, late = states(), bot(), heard()
    room.show_agent(agent, STATE, NOW)
    room.flush()
    clock = room.clock_of(agent.client)
    room.leave(agent)
    room.flush()
    room._recent = {}
    taken = room.apply(late, update((agent.client, clock, STATE.decode())))
    assert taken.back == [Entry(agent.client, clock, b"null")] and taken.refused is None and len(room) == 0


def test_a_client_keeps_its_id_from_agents() -> None:
    """An agent has the one ID that is made for it; what it shows says nothing of IDs."""
    room, session, agent = states(), user("ada"), bot()
    room.apply(session, update((5, 1, "{}")))
    room.show_agent(agent, STATE, NOW)
    assert session.awareness == {5: 2} and agent.awareness == {agent.client: len(STATE)}


def test_of_two_nodes_the_one_that_shows_it_later_has_it() -> None:
    a, b, c = states(), states(), states()
    on_a, on_b = bot(), bot()
    nodes = {room: Owner() for room in (a, b)}
    a.show_agent(on_a, STATE, NOW)
    first = a.flush()[1]
    assert first is not None
    for room in (b, c):
        room.apply(nodes[a], first)
        room.flush()
    b.show_agent(on_b, b"{}", NOW - 5)  # the time differs there
    told, second = b.flush()
    assert second is not None and told == second
    assert on_b.shown and not nodes[a].awareness
    for room in (a, c):
        room.apply(nodes[b], second)
        shown, own = room.flush()
        assert decoded(shown) == [Entry(on_b.client, next_clock(0, NOW) + 1, b"{}")] and own is None
        assert decoded(room.everything()) == decoded(shown)
    assert not on_a.shown and a.own() is None
    # What its first node says late means nothing, and its end is the second one's.
    c.apply(nodes[a], update((on_a.client, next_clock(0, NOW), "null")))
    c.apply(nodes[a], first)
    assert c.flush() == (None, None)
    a.leave(on_a)
    assert a.flush() == (None, None)
    b.leave(on_b)
    last = b.flush()[1]
    assert last is not None
    for room in (a, c):
        room.apply(nodes[b], last)
        assert decoded(room.flush()[0]) == [Entry(on_b.client, next_clock(0, NOW) + 1, b"null")]


def test_it_goes_with_its_node() -> None:
    here, there, agent = states(), Owner(), bot()
    here.apply(there, update((agent.client, 100, "{}"), (5, 1, "{}")))
    here.flush()
    here.leave(there)
    assert sorted(flushed(here)) == [Entry(5, 1, b"null"), Entry(agent.client, 100, b"null")]
    mine = bot()
    here.show_agent(mine, STATE, 0.0, known=150)
    assert flushed(here)[0].clock == 151, "what other nodes know counts"


def test_another_node_asks_for_those_that_its_clients_do_not_see() -> None:
    room, agent = make_room(), bot()
    room.show_agent(agent, STATE, NOW)
    room.end_turn()
    clock = room.awareness.clock_of(agent.client)
    room.receive_asked(update((agent.client, clock - 1, "null")))
    assert not room.asked, "it has said something since"
    room.receive_asked(update((agent.client, clock, "null")))
    assert room.asked
    assert list(room.begin_round_for_others().here) == [], "an agent has no socket"


def test_who_comes_back_sees_it_when_it_is_renewed() -> None:
    room, agent = make_room(), bot()
    ann = Yjs(room, 1, user="ann")
    ann.connect()
    room.show_agent(agent, STATE, NOW)
    turn = room.end_turn()
    assert turn.awareness is not None
    ann.take(turn.awareness)
    assert ann.seen[agent.client] == STATE.decode()
    room.leave(ann.session)
    ann.drop()
    room.end_turn()
    effects = ann.connect()
    assert agent.client not in ann.seen, "y-protocols knows this clock"
    ann.read(effects)
    assert room.lacking
    room.begin_round()
    room.renew_agent(agent, NOW)
    turn = room.end_turn()
    assert turn.awareness is not None
    ann.take(turn.awareness)
    assert ann.seen[agent.client] == STATE.decode()


def test_it_counts_among_what_a_room_shows() -> None:
    room = AwarenessStates(max_bytes=8_000_000, max_ids=3)
    session = user("ada")
    large = b'"' + b"x" * 7_000_000 + b'"'
    for ident in range(5):
        room.show_agent(bot(ident=str(ident)), large, NOW)
    assert room.crowded
    with pytest.raises(LimitExceeded, match="so much is shown here"):
        room.show_agent(bot(ident="more"), large, NOW)
    room.apply(session, update((1, 1, "{}")))
    assert 1 in [entry.client for entry in decode_awareness(room.everything() or b"\0")]
