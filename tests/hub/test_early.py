"""Rows that come before those which they follow on: they wait for these; the log is read if that takes too long."""

from __future__ import annotations

import asyncio

import pytest

from collab.cluster.local import LocalBus
from collab.cluster.messages import Row, Rows
from collab.hub import early as early_module
from collab.hub import replication as replication_module
from collab.hub.counts import GAP, TOLD
from collab.hub.early import EarlyRows
from collab.hub.room import LiveRoom
from collab.protocol.sync import SyncUpdate
from collab.storage.records import LogRow
from tests.hub.conftest import Box, Node, StartNode
from tests.hub.test_replication import Nodes, Steady, Stranger, nodes, stranger
from tests.support.author import Author

__all__ = ["nodes", "stranger"]


class Pair:
    """A node that hears of another one's rows only what the test says."""

    def __init__(self, one: Node, two: Node, stranger: Stranger, live: LiveRoom, box: Box) -> None:
        self.one, self.two, self.stranger = one, two, stranger
        self.live, self.box = live, box  # of the second node
        self.author = Author(1)

    async def store(self, *texts: str) -> None:
        """Let the first node write a row for each text, of which the second one hears nothing."""
        live = self.one.hub.rooms["d"]
        (member,) = live.members
        for text in texts:
            live.receive(member, SyncUpdate(self.author.type(text)))
            await self.one.write(live)

    async def say(self, *numbers: int) -> None:
        """Say rows of the log on the bus, in this order, each in a message of its own."""
        rows = {row.seq: row for row in (await self.one.stored("d")).rows}
        number = self.one.hub.rooms["d"].persistence.document_id
        assert number is not None
        for seq in numbers:
            self.stranger.say(Rows(number, seq, (Row(rows[seq].data, rows[seq].at, rows[seq].author),)))


@pytest.fixture
async def pair(start_node: StartNode, nodes: Nodes, stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(replication_module, "_HOLE", 5.0)
    one, two = await start_node(), await nodes.start(bus=Steady)
    live_1, _, _ = await one.join("d")
    live, _, box = await two.join("d")
    pair = Pair(one, two, stranger, live, box)
    await pair.store("a")
    await pair.say(1)
    await box.until(lambda: live.persistence.seq == 1, "the first row is looked up")
    await box.until(lambda: not two.hub._replication._reading, "to its end")
    return pair


async def test_they_wait_and_nothing_is_read(pair: Pair) -> None:
    before = pair.two.store.readings
    await pair.store("b", "c", "d", "e")
    await pair.say(5, 3, 4)
    await asyncio.sleep(0.05)
    assert pair.box.text() == "a" and pair.live.persistence.seq == 1
    await pair.say(2)
    await pair.box.until(lambda: pair.box.text() == "abcde", "all of them, in order")
    assert pair.live.persistence.seq == 5 and pair.two.store.readings == before
    replication = pair.two.hub._replication
    assert pair.live not in replication._early and not replication._waits, "nothing is left"


async def test_rows_of_ones_own_with_later_numbers_wait_too(pair: Pair) -> None:
    before = pair.two.store.readings
    await pair.store("b", "c")
    (member,) = pair.live.members
    own = Author(2)
    pair.live.receive(member, SyncUpdate(own.type("own")))
    await pair.two.write(pair.live)
    await pair.box.until(lambda: pair.live in pair.two.hub._replication._early, "row 4 is committed, 2 and 3 missing")
    assert pair.live.persistence.seq == 1
    await pair.say(3, 2)
    await pair.box.until(lambda: pair.live.persistence.seq == 4, "and counts as held with those before it")
    assert pair.two.store.readings == before and sorted(pair.box.text()) == sorted("abcown")
    pair.live.receive(member, SyncUpdate(own.type("!")))
    await pair.two.write(pair.live)
    await pair.box.until(lambda: pair.live.persistence.seq == 5, "the next one follows")


async def test_the_log_is_read_when_they_wait_too_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication_module, "_HOLE", 0.05)
    before = pair.two.store.readings
    await pair.store("b", "c")
    await pair.say(3)
    await pair.box.until(lambda: pair.box.text() == "abc", "the second was lost")
    assert pair.two.store.readings > before and pair.live.persistence.seq == 3
    counts = pair.two.hub.counts
    counts.fold()
    assert counts.catch_ups == {TOLD: 1, GAP: 1}, "the first row, of a document that was not stored, and the second"
    assert counts.rows_of_others == counts.node_propagations.count == 3
    await pair.box.until(lambda: not pair.two.hub._replication._reading, "the end of it")
    assert pair.live not in pair.two.hub._replication._early


async def test_the_log_is_read_at_once_when_too_many_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_module, "MAX_ROWS", 2)
    await pair.store("b", "c", "d", "e")
    await pair.say(3, 4, 5)
    await pair.box.until(lambda: pair.box.text() == "abcde", "without a wait of five seconds")


async def test_the_log_is_read_at_once_where_the_bus_may_lose_something(start_node: StartNode, nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start(bus=LocalBus)
    assert not two.hub.bus.steady
    live_1, a, _ = await one.join("d")
    live_2, _, box = await two.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("a")))
    await box.until(lambda: live_2.persistence.seq == 1, "the first")
    bus = two.hub.bus
    assert isinstance(bus, LocalBus)
    bus._topics.remove("d")
    live_1.receive(a, SyncUpdate(author.type("b")))
    await one.write(live_1)
    bus._topics.add("d")
    live_1.receive(a, SyncUpdate(author.type("c")))
    await box.until(lambda: box.text() == "abc", "read")
    assert live_2 not in two.hub._replication._early


async def test_a_room_that_leaves_memory_leaves_nothing_behind(pair: Pair) -> None:
    await pair.store("b", "c")
    await pair.say(3)
    replication = pair.two.hub._replication
    await pair.box.until(lambda: pair.live in replication._early and replication._waits, "it waits")
    pair.two.hub._forget_room(pair.live)
    assert pair.live not in replication._early and not replication._waits


async def test_numbers_of_another_log_mean_nothing(pair: Pair) -> None:
    early = EarlyRows()
    await pair.store("b", "c", "d")
    rows = {row.seq: LogRow(row.seq, row.data, row.at, row.author) for row in (await pair.one.stored("d")).rows}
    assert early.keep(pair.live, [rows[3]]) and early.keep(pair.live, [rows[2]])
    pair.live.persistence.epoch += 1
    assert early.take(pair.live) == [] and pair.live not in early
    assert early.keep(pair.live, [rows[4]])
    pair.live.persistence.epoch += 1
    assert early.keep(pair.live, [rows[2]]), "what was kept of the former one is forgotten"
    assert [row.seq for row in early.take(pair.live)] == [2] and pair.live not in early
