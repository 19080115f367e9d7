from __future__ import annotations

import itertools

import pytest

from collab.errors import ProtocolError
from collab.protocol.session import TRANSITIONS, Event, Session, State


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_only_what_the_table_says(state: State, event: Event) -> None:
    session = Session()
    session.state = state
    if (state, event) in TRANSITIONS:
        session.on(event)
        assert session.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(ProtocolError):
            session.on(event)
        assert session.state is state


def test_a_closed_session_stays_closed() -> None:
    assert not any(state is State.CLOSED for state, _ in TRANSITIONS)


def test_every_state_is_reached_and_ends() -> None:
    assert set(TRANSITIONS.values()) | {State.JOINING} == set(State)
    assert {state for state, event in TRANSITIONS if event is Event.ENDED} == set(State) - {State.CLOSED}
