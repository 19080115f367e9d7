"""Nothing that a protocol or a room can ask for is forgotten by the one that performs it.

Strategy: mypy says so of every ``match`` that ends with ``assert_never`` (shown in tests/protocol/test_messages.py).
Here the cases of the two performers are read from their source and compared with the unions, and a kind that neither
knows is a defect that is raised, never a message of another kind.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest

from collab.engine.room import Effect
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.events import Event
from collab.transports.sockets.connection import Connection


class Unknown(NamedTuple):
    """A kind that was added and forgotten."""

    session: Any = None


def names_of(union: object) -> set[str]:
    """The classes of a union by name, whatever they are generic in."""
    return {(typing.get_origin(kind) or kind).__name__ for kind in typing.get_args(union)}


def cases_of(performer: Callable[..., object]) -> set[str]:
    """The classes that the one ``match`` of a function tells apart; its last case refuses all others."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(performer)))
    (match,) = (node for node in ast.walk(tree) if isinstance(node, ast.Match))
    *cases, last = match.cases
    assert isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
    assert [ast.unparse(statement) for statement in last.body] == [f"assert_never({ast.unparse(match.subject)})"]
    patterns = [pattern for case in cases for pattern in ast.walk(case.pattern)]
    return {ast.unparse(pattern.cls) for pattern in patterns if isinstance(pattern, ast.MatchClass)}


def test_every_event_of_a_protocol_is_performed() -> None:
    assert cases_of(Connection._perform) == names_of(Event)


def test_every_effect_of_a_room_is_performed() -> None:
    assert cases_of(LiveRoom.perform) == names_of(Effect)


NOTHING: Any = None


def test_an_event_that_nobody_knows_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="Unknown"):
        Connection._perform(NOTHING, cast(Event[Any], Unknown()))


def test_an_effect_that_nobody_knows_is_a_defect() -> None:
    member = Member(NOTHING, NOTHING, NOTHING)
    with pytest.raises(AssertionError, match="Unknown"):
        LiveRoom.perform(NOTHING, [cast(Effect, Unknown(member))])
