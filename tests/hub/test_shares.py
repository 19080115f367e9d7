"""Fair shares of the loop: who has used more than its part waits, and only while somebody else is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collab.hub import shares as shares_module
from collab.hub import turns as turns_module
from collab.hub.persistence import Persistence
from collab.hub.shares import MESSAGES_SECONDS, TURNS_SECONDS, Share, Shares
from collab.protocol.sync import SyncUpdate
from tests.hub.conftest import StartNode
from tests.support.author import Author
from tests.support.waiting import happens


def used(share: Share, seconds: float, now: float) -> None:
    """Let a share have used so much in the tenth of a second before ``now``."""
    for step in range(1, 11):
        share.charge(seconds / 10, now - 0.1 + step / 100)


async def test_one_is_ahead_that_has_used_more_than_its_part_while_others_are_there() -> None:
    shares = Shares()
    storm, calm = shares.share(), shares.share()
    storm.count(50)
    used(storm, 0.08, 1.0)
    assert not storm.ahead  # nobody else is there
    calm.count(1)
    used(storm, 0.02, 1.2)
    used(calm, 0.001, 1.3)
    assert storm.ahead and not calm.ahead
    calm.count(0)
    calm.fade(20.0)
    used(storm, 0.09, 20.0)
    assert not storm.ahead


async def test_on_a_loop_with_little_to_do_nobody_is_ahead() -> None:
    shares = Shares()
    one, other = shares.share(), shares.share()
    one.count(1)
    other.count(1)
    used(one, 0.01, 1.0)
    assert not one.ahead and not one.waits


def waiting() -> Share:
    """Give the share of a tenant that is ahead of another one, and waits."""
    shares = Shares()
    storm, calm = shares.share(), shares.share()
    for share in (storm, calm):
        share.count(1)
    used(calm, 0.000_1, 0.9)
    used(storm, 0.1, 1.0)
    used(storm, 0.01, 1.1)
    assert storm.waits
    return storm


class Time:
    """A clock that goes on when somebody works."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(shares_module, "perf_counter", time)
    return time


async def test_what_waits_has_its_turn_in_order_and_so_much_time_in_each_turn_of_the_loop(time: Time) -> None:
    storm = waiting()
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        time.now += MESSAGES_SECONDS * 0.4
        storm.charge(MESSAGES_SECONDS * 0.4, 1.1)

    places = [storm.wait(lambda number=number: work(number)) for number in range(9)]  # type: ignore[misc]
    places[1].cancel()
    rounds = [0]
    while storm.waiting:
        await asyncio.sleep(0)
        rounds.append(len(done))
    assert done == [0, 2, 3, 4, 5, 6, 7, 8]
    assert max(after - before for before, after in zip(rounds, rounds[1:], strict=False)) == 3
    await asyncio.sleep(0)
    assert not storm.waits


async def test_what_is_not_charged_takes_time_too(time: Time) -> None:
    storm = waiting()
    done = 0

    def read() -> None:
        nonlocal done
        done += 1
        time.now += MESSAGES_SECONDS * 0.4

    for _ in range(5):
        storm.wait(read)
    await asyncio.sleep(0)
    assert (done, storm.waiting) == (3, 2)
    await asyncio.sleep(0)
    assert (done, storm.waiting) == (5, 0)


async def test_rooms_of_a_tenant_that_is_ahead_have_their_turns_behind_the_others(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    now = 100.0
    monkeypatch.setattr(turns_module, "perf_counter", lambda: now)
    shares = Shares()
    storm, calm = shares.share(), shares.share()
    order: list[str] = []
    rooms = []
    for name in ("s1", "s2", "s3", "s4", "calm"):
        live, member, _ = await node.join(name)
        live.share = calm if name == "calm" else storm
        rooms.append((live, member))
    names = {live.persistence: live.name for live, _ in rooms}
    end = Persistence.store

    def store(persistence: Persistence, *given: Any) -> None:
        nonlocal now
        order.append(names[persistence])
        now += TURNS_SECONDS * 0.6
        end(persistence, *given)

    monkeypatch.setattr(Persistence, "store", store)
    storm.ahead = True
    for number, (live, member) in enumerate(rooms):
        live.receive(member, SyncUpdate(Author(number + 1).type("x")))
    shares._next_look = 1e9
    await asyncio.sleep(0)
    assert order == ["calm", "s1", "s2"]
    await happens(lambda: len(order) == 5, "the others have their turns")
    assert order[3:] == ["s3", "s4"]


async def test_the_first_edit_of_who_is_not_ahead_ends_the_turn_at_once_while_others_are(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    shares = Shares()
    storm, calm = shares.share(), shares.share()
    assert not calm.first
    storm.count(50)
    calm.count(2)
    used(storm, 0.1, 1.0)
    used(calm, 0.001, 1.2)
    assert storm.ahead and calm.first and not storm.first
    live, member, _ = await node.join("calm")
    live.share = calm
    ended: list[int] = []
    store = Persistence.store

    def note(persistence: Persistence, *given: Any) -> None:
        ended.append(len(ended))
        store(persistence, *given)

    monkeypatch.setattr(Persistence, "store", note)
    author = Author(1)
    live.receive(member, SyncUpdate(author.type("x")))
    node.hub.end_turn_now(live)
    assert len(ended) == 1 and not live.dirty
    node.hub.end_turn_now(live)
    assert len(ended) == 1
    # What follows within the window of the room waits for it.
    live.flushed_at += 10.0
    live.receive(member, SyncUpdate(author.type("y")))
    node.hub.end_turn_now(live)
    assert len(ended) == 1 and live.dirty
    live.flushed_at -= 10.0
    await happens(lambda: len(ended) == 2, "it ends with the turn of the loop")
