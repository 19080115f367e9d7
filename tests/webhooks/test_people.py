"""Who has come and left: sessions of one user count as one, and a short absence as none."""

from __future__ import annotations

from typing import Any, cast

from collab.hub.member import Member
from collab.protocol.awareness import User
from collab.storage.webhooks import Happened
from collab.webhooks import people as module
from collab.webhooks.people import LEFT_SECONDS, People


class Session:
    """What People looks at."""

    def __init__(self, author: str | None, name: str | None = None) -> None:
        self.author = author
        self.user = None if name is None or author is None else User(author, name)


def member(author: str | None, name: str | None = None) -> Member:
    return cast(Member, Session(author, name))


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def shown(events: list[Happened]) -> list[tuple[str, str, Any]]:
    return [(event.kind, event.names[0], event.data["user"]) for event in events]


def test_the_first_session_is_told_and_the_end_of_the_last_one_after_a_while() -> None:
    clock = Clock()
    people = People("node-1", clock)
    tabs = [member("ada", "Ada") for _ in range(3)]
    for tab in tabs:
        people.joined("d", 7, tab)
    (event,) = people.take()
    assert event == Happened("user.joined", 7, ("d",), {"user": "ada", "name": "Ada", "node": "node-1"})
    assert people.take() == []
    for tab in tabs:
        people.left("d", 7, tab)
    clock.time += LEFT_SECONDS - 0.1
    assert people.take() == []
    clock.time += 0.2
    (event,) = people.take()
    assert event == Happened("user.left", 7, ("d",), {"user": "ada", "name": "Ada", "node": "node-1"})
    assert people.take(over=True) == []


def test_who_comes_back_has_not_left() -> None:
    clock = Clock()
    people = People("node-1", clock)
    first, second, bob = member("ada"), member("ada"), member("bob")
    people.joined("d", None, first)
    people.joined("d", None, bob)
    people.left("d", None, first)
    people.left("d", None, bob)
    clock.time += LEFT_SECONDS / 2
    people.joined("d", None, second)
    clock.time += LEFT_SECONDS
    assert shown(people.take()) == [("user.joined", "d", "ada"), ("user.joined", "d", "bob"), ("user.left", "d", "bob")]
    people.left("d", None, second)
    assert shown(people.take(over=True)) == [("user.left", "d", "ada")]


def test_documents_and_users_are_told_apart_also_when_a_session_becomes_another_users() -> None:
    people = People("node-1", Clock())
    session, other, nobody = member("ada"), member("ada"), member(None)
    people.joined("d", 1, session)
    people.joined("e", 2, other)
    people.joined("d", 1, nobody)
    session.author = "bob"  # it has shown another token
    people.left("d", 1, session)
    people.left("d", 1, member("never joined"))
    assert shown(people.take(over=True)) == [
        ("user.joined", "d", "ada"),
        ("user.joined", "e", "ada"),
        ("user.joined", "d", None),
        ("user.left", "d", "ada"),
    ]


def test_what_waits_for_the_store_has_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 3)
    people = People("node-1", Clock())
    for number in range(4):
        people.joined("d", None, member(f"user {number}"))
    assert people.dropped == 1
    events = people.take()
    assert len(events) == 3
    people.joined("d", None, member("late"))
    people.put_back(events)
    assert people.dropped == 2 and people.take() == events
