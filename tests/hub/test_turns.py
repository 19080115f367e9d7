"""When turns end: at once after quiet, then after the room's window; all rooms share one sweep and one timer."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from collab.engine.window import Window
from collab.hub.shares import Shares
from collab.hub.turns import Turns
from collab.protocol.sync import SyncUpdate
from tests.hub.conftest import StartNode
from tests.support.author import Author


class Told(Window):
    """A window that is told a load once, and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.looks: list[tuple[float, float]] = []

    def measure(self, now: float, worked: float, ending: float) -> None:
        self.looks.append((worked, ending))
        self.measure_at = float("inf")


async def test_edits_within_the_window_of_a_busy_room_travel_together(start_node: StartNode) -> None:
    node = await start_node(batch_window=0.2)
    node.keep_busy()
    live, a, _ = await node.join("d")
    boxes = [(await node.join("d"))[2] for _ in range(19)]
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("1")))
    await boxes[0].until(lambda: boxes[0].updates(), "the first edit after quiet is not delayed")
    first = live.flushed_at
    for letter in "2345":
        live.receive(a, SyncUpdate(author.type(letter)))
        await asyncio.sleep(0)
    await boxes[0].until(lambda: len(boxes[0].updates()) > 1, "the others follow")
    assert boxes[0].text() == "12345"
    assert len(boxes[0].updates()) == 2
    assert live.flushed_at - first >= 0.19
    await live.persistence.durable()
    assert len((await node.stored("d")).rows) == 2


async def test_a_node_with_time_to_spare_lets_nobody_wait(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    live, a, box = await node.join("d")
    for _ in range(19):
        await node.join("d")
    node.hub._turns.window.measure_at = float("inf")  # no load was measured yet

    def goes(count: int) -> bool:
        return len(box.updates()) == count

    author = Author(1)
    for count, letter in enumerate("12345", 1):
        live.receive(a, SyncUpdate(author.type(letter)))
        await box.until(partial(goes, count), "each edit goes by itself")


async def test_the_load_is_what_the_loop_has_worked(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    live, a, box = await node.join("d")
    work = iter([0.0])
    turns = Turns(10.0, lambda: next(work))
    turns.window = told = Told()
    node.hub.touch = turns.touch
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("1")))
    await box.until(lambda: box.text() == "1", "its turn has ended")
    assert told.looks == [(0.0, turns._ending)] and turns._ending > 0
    live.receive(a, SyncUpdate(author.type("2")))
    await box.until(lambda: box.text() == "12", "its turn has ended")
    assert len(told.looks) == 1, "it is asked for no more often than the window wants it"


async def test_a_turn_counts_from_its_first_message_to_the_last_write(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    node.keep_busy()
    live, a, box = await node.join("d")
    for _ in range(19):
        await node.join("d")
    author, counts = Author(1), node.hub.counts
    live.receive(a, SyncUpdate(author.type("1")))
    await box.until(lambda: box.text() == "1", "the first turn")
    counts.fold()
    assert counts.propagations.count == counts.turn_bytes.count == 1
    first = counts.turn_bytes.sum
    live.receive(a, SyncUpdate(author.type("2")))
    assert live.touched_at is not None
    live.touched_at -= 3.0
    live.receive(a, SyncUpdate(author.type("3")))
    live.end_turn(node.hub.now())
    assert box.text() == "123"
    counts.fold()
    assert counts.propagations.count == counts.turn_bytes.count == 2, "two edits, one turn"
    assert 3.0 <= counts.propagations.sum < 13.0 and counts.turn_bytes.sum > 1.5 * first
    assert live.touched_at is None
    await node.write(live)
    assert node.hub.journal.counts.answered.sum >= 3.0, "people wait for their commit from when they have typed"


async def test_rooms_with_other_windows_do_not_wait_for_each_other(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    node.keep_busy()
    crowd, a, _ = await node.join("crowd")
    for _ in range(19):
        await node.join("crowd")
    pair, b, box = await node.join("pair")
    ann, bob = Author(1), Author(2)
    for live, member, author in ((crowd, a, ann), (pair, b, bob)):
        live.receive(member, SyncUpdate(author.type("1")))
    await box.until(lambda: not (crowd.dirty or pair.dirty), "both go at once")
    crowd.receive(a, SyncUpdate(ann.type("2")))
    await asyncio.sleep(0.01)  # the timer is for the crowd now
    pair.flushed_at -= 10.0
    pair.receive(b, SyncUpdate(bob.type("2")))
    await box.until(lambda: box.text() == "12", "the pair is not held up")
    assert crowd.dirty
    node.hub._turns.end_all(node.hub.now())
    assert not crowd.dirty and len(crowd.room.document.encode_state_as_update()) > 2
    assert crowd.persistence.uncommitted


async def test_the_timer_plans_no_second_sweep_while_a_tenant_waits_for_its_time(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fired timer once left a sweep more that planned itself again: hundreds of them in a turn of the loop."""
    node = await start_node()
    live, member, box = await node.join("storm")
    live.share = share = Shares().share()
    share.ahead, share.spent_on_turns = True, 1.0
    turns = node.hub._turns
    sweeps = 0
    sweep = turns._sweep

    def counted() -> None:
        nonlocal sweeps
        sweeps += 1
        sweep()

    monkeypatch.setattr(turns, "_sweep", counted)
    live.receive(member, SyncUpdate(Author(1).type("x")))
    for _ in range(10):
        turns._timer_fired()
    sweeps = 0
    for _ in range(10):
        await asyncio.sleep(0)
    assert 9 <= sweeps <= 11, "one in each turn of the loop"
    share.spent_on_turns = 0.0
    await box.until(lambda: box.text() == "x", "its turn has ended")


async def test_an_earlier_turn_brings_the_timer_forward(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    node.keep_busy()
    crowd, a, _ = await node.join("crowd")
    for _ in range(19):
        await node.join("crowd")
    pair, b, box = await node.join("pair")
    now = node.hub.now()
    crowd.flushed_at, pair.flushed_at = now, now - 0.4  # the windows are 10 s and half a second
    crowd.receive(a, SyncUpdate(Author(1).type("1")))
    await asyncio.sleep(0.01)
    later = node.hub._turns._timer_due
    pair.receive(b, SyncUpdate(Author(2).type("1")))
    await asyncio.sleep(0.01)
    assert node.hub._turns._timer_due < later
    await box.until(lambda: box.text() == "1", "its window is over")
    assert crowd.dirty and node.hub._turns._timer is not None
    node.hub._turns.close()
    assert node.hub._turns._timer is None
    node.hub._turns.close()


async def test_a_room_that_is_touched_twice_ends_its_turn_once(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("1")))
    node.hub.touch(live)
    live.receive(a, SyncUpdate(author.type("2")))
    assert node.hub._turns._dirty == [live]
    await box.until(lambda: box.text() == "12", "one turn")
    assert len(box.updates()) == 1
