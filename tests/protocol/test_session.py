"""The table that both wire protocols drive, row by row."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InternalError, InvalidTransition, ProtocolError
from collab.protocol import events
from collab.protocol.session import TRANSITIONS, Access, Event, Owner, Session, State

ROWS = sorted(TRANSITIONS.items(), key=str)
IN = (State.LIVE, State.LAGGING, State.RECEIVING)
NO_ROWS = [pair for pair in itertools.product(State, Event) if pair not in TRANSITIONS]


def ident(value: object) -> str:
    return value.value if isinstance(value, (State, Event)) else str(value)


def way_to(state: State) -> list[Event]:
    """The shortest way from where a session begins."""
    ways = {State.ARRIVED: list[Event]()}
    while state not in ways:
        for (before, event), after in ROWS:
            if before in ways:
                ways.setdefault(after, [*ways[before], event])
    return ways[state]


def session_in(state: State) -> Session:
    session = Session()
    for event in way_to(state):
        session.on(event)
    assert session.state is state
    return session


@pytest.mark.parametrize(
    ("row", "after"), ROWS, ids=lambda value: "-".join(map(ident, value)) if isinstance(value, tuple) else ident(value)
)
def test_a_row_leads_where_it_says(row: tuple[State, Event], after: State) -> None:
    session = session_in(row[0])
    session.on(row[1])
    assert session.state is after


@pytest.mark.parametrize(("state", "event"), NO_ROWS, ids=ident)
def test_without_a_row_nothing_happens(state: State, event: Event) -> None:
    session = session_in(state)
    with pytest.raises(InvalidTransition) as caught:
        session.on(event)
    assert session.state is state
    assert state.value in str(caught.value) and event.value in str(caught.value)


def test_a_session_begins_where_it_has_shown_nothing() -> None:
    session = Session()
    assert session.state is State.ARRIVED
    assert session.author is None


def test_every_state_is_reached_and_ends() -> None:
    assert set(TRANSITIONS.values()) | {State.ARRIVED} == set(State)
    assert {state for state, event in TRANSITIONS if event is Event.ENDED} == set(State) - {State.CLOSED}


def test_a_closed_session_stays_closed() -> None:
    assert not any(state is State.CLOSED for state, _ in TRANSITIONS)


def test_nobody_gets_to_a_document_but_by_a_token_that_was_found_good() -> None:
    """Every way into a room passes GRANTED, and every way out of DENIED passes another token."""
    assert {event for (_, event), after in ROWS if after is State.JOINING} == {Event.GRANTED}
    assert {before for (before, _), after in ROWS if after in IN} == {State.JOINING, *IN}
    assert {event for (before, event), _ in ROWS if before is State.DENIED} == {Event.PRESENTED, Event.ENDED}
    # A session that is in is not put out by the table's DENIED: it is ended.
    assert {before for before, event in TRANSITIONS if event is Event.DENIED} == {State.AUTHENTICATING, State.JOINING}


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_whatever_happens_a_session_is_where_the_table_leads(events: list[Event]) -> None:
    session = Session()
    expected = State.ARRIVED
    for event in events:
        after = TRANSITIONS.get((expected, event))
        if after is None:
            with pytest.raises(InvalidTransition):
                session.on(event)
        else:
            session.on(event)
            expected = after
        assert session.state is expected


def test_a_grant_counts_only_while_a_token_is_looked_at() -> None:
    for state in set(State) - {State.AUTHENTICATING}:
        session = session_in(state)
        with pytest.raises(InvalidTransition):
            session.grant(Access.READ, "mallory")
        assert (session.state, session.access, session.author) == (state, Access.WRITE, None)


def test_questions_without_an_answer_are_counted() -> None:
    session = Session()
    session.asked, session.answered = 3, 1
    assert session.unanswered == 2


def test_an_event_without_a_row_is_a_defect_of_ours_and_not_the_peers_fault() -> None:
    with pytest.raises(InvalidTransition, match="a session that is arrived cannot be opened") as caught:
        Session().on(Event.OPENED)
    assert isinstance(caught.value, InternalError)
    assert not isinstance(caught.value, ProtocolError)
    assert caught.value.retryable and caught.value.public == "internal error, come back"
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "a KeyError would say nothing"


def test_states_may_be_owned_by_a_session_or_by_a_node() -> None:
    node, session = Owner(), Session()
    assert isinstance(session, Owner)
    for owner in (node, session):
        assert owner.awareness is None, "made when needed"
        assert owner.user is None
    owners = {node, session, Owner()}
    assert len(owners) == 3, "each is itself, whatever it owns"


def test_a_session_begins_with_nothing_asked_and_nothing_held_back() -> None:
    session = Session()
    assert (session.asked, session.answered, session.unanswered) == (0, 0, 0)
    assert session.blocked is None and session.held is None
    assert session.access is Access.WRITE
    assert not session.acknowledges and not session.stateless


@pytest.mark.parametrize("state", State)
def test_a_channel_has_joined_while_its_session_is_on_the_document(state: State) -> None:
    class Channel(events.Channel):
        def new_session(self) -> Session:
            return Session()

    channel = Channel()
    assert channel.session.state is State.ARRIVED
    channel.session = session_in(state)
    assert channel.joined is (state in IN)
