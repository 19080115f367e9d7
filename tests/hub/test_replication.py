"""What other nodes write and say: two or three hubs on one real store, and the bus of one process between them.

Strategy: while a store is ``blind`` nothing is found by looking at the log, so what arrives was heard on the bus; nodes
without a bus in common find everything by looking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from collab.cluster.bus import BusMessage
from collab.cluster.local import LocalBus, LocalExchange
from collab.cluster.messages import (
    ALL_NODES,
    QUESTIONS,
    Awareness,
    Committed,
    Deleted,
    Held,
    Look,
    NodeMessage,
    Row,
    Rows,
    answers_topic,
    decode_node_message,
    encode_node_message,
)
from collab.errors import DocumentDeleted, StoreUnavailable
from collab.hub import hub as hub_module
from collab.hub import replication as replication_module
from collab.hub.documents import Documents
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, decode_awareness, encode_awareness
from collab.protocol.messages import Stateless
from collab.protocol.session import State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.telemetry import RateLimited, get_logger
from tests.hub.conftest import SWEEP, Acknowledged, Box, Node, StartNode
from tests.support.author import Author, content
from tests.support.waiting import happens

Joined = tuple[LiveRoom, Member, Box]


@pytest.fixture(autouse=True)
def a_budget_of_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test the lines that a flood is allowed: the budget is one for the process."""
    monkeypatch.setattr(replication_module, "_limited", RateLimited(get_logger("bus")))


class Nodes:
    """Nodes of one cluster."""

    def __init__(self, start_node: StartNode) -> None:
        self.exchange = LocalExchange()
        self._start_node = start_node

    async def start(self, *, blind: bool = True, bus: type[LocalBus] = LocalBus, **options: Any) -> Node:
        """Start one more node; ``blind`` leaves it the bus alone."""
        node: Node = await self._start_node(bus=bus(self.exchange), **options)
        node.store.blind = blind
        return node


@pytest.fixture
def nodes(start_node: StartNode) -> Nodes:
    return Nodes(start_node)


class Hints(LocalBus):
    """A bus that carries no rows: it says where to look."""

    row_bytes = -1


class Steady(LocalBus):
    """A bus that says that it loses nothing."""

    steady = True


class Slow(LocalBus):
    """A bus on which each message is dear."""

    presence_seconds = 0.05


class Stranger:
    """A node without rooms, which says what it likes and keeps what it hears."""

    def __init__(self, exchange: LocalExchange) -> None:
        self.bus = LocalBus(exchange)
        self.heard: list[bytes] = []
        self.met: list[str] = []

    async def start(self, topic: str) -> None:
        await self.bus.start(self)
        self.bus.subscribe(topic)

    def say(self, message: NodeMessage) -> None:
        self.bus.publish("d", encode_node_message(message))

    def receive(self, message: BusMessage) -> None:
        self.heard.append(message.payload)

    def joined(self, topic: str, node: str) -> None:
        self.met.append(node)

    def left(self, topic: str, node: str) -> None:
        pass

    def gone(self, node: str) -> None:
        pass

    def missed(self) -> None:
        pass


@pytest.fixture
async def stranger(nodes: Nodes) -> AsyncIterator[Stranger]:
    stranger = Stranger(nodes.exchange)
    await stranger.start("d")
    yield stranger
    await stranger.bus.close()


def awareness(client: int, clock: int, state: str) -> AwarenessUpdate:
    return AwarenessUpdate(encode_awareness([Entry(client, clock, state.encode())]))


# Rows


async def test_rows_of_another_node_are_found_at_the_next_commit_and_relayed(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    here, there = Author(1), Author(2)
    live_1.receive(a, SyncUpdate(here.type("one")))
    await box_1.until(lambda: live_1.persistence.seq == 1, "stored by the first node")
    live_2.receive(b, SyncUpdate(there.type("two")))
    await box_2.until(lambda: live_2.persistence.seq == 2, "the second node reads what it missed")
    await box_2.until(lambda: sorted(box_2.text()) == sorted("onetwo"), "and relays it")
    live_1.receive(a, SyncUpdate(here.type("!")))
    await box_1.until(lambda: live_1.persistence.seq == 3, "and the other way round")
    await box_1.until(lambda: sorted(box_1.text()) == sorted("onetwo!"), "relayed")
    assert [row.seq for row in (await one.stored("d")).rows] == [1, 2, 3], "what was read is not stored again"


async def test_an_edit_on_one_node_is_heard_of_on_the_other(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    here, there = Author(1), Author(2)
    for n in range(20):
        live_1.receive(a, SyncUpdate(here.type(f"a{n}.")))
        live_2.receive(b, SyncUpdate(there.type(f"b{n}.")))
        for box in (box_1, box_2):
            await box.until(lambda n=n, box=box: f"a{n}." in box.text() and f"b{n}." in box.text(), "both arrive")
    await box_1.until(lambda: live_1.persistence.seq == live_2.persistence.seq == 40, "all is read")
    stored = await one.stored("d")
    assert [row.seq for row in stored.rows] == list(range(1, 41)), "what was read is not stored again"
    for live in (live_1, live_2):
        log = live.persistence
        assert (log.tail_rows, log.tail_bytes) == (40, sum(len(row.data) for row in stored.rows))


async def test_a_document_is_heard_of_that_was_opened_before_it_was_created(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_2, b, box_2 = await two.join("d")
    live_1, a, _ = await one.join("d")
    assert not live_2.exists
    live_1.receive(a, SyncUpdate(Author(1).type("new")))
    await box_2.until(lambda: box_2.text() == "new", "the first edit arrives")
    assert live_2.exists and live_2.persistence.document_id == live_1.persistence.document_id
    live_2.receive(b, SyncUpdate(Author(2).type("!")))
    await box_2.until(lambda: live_2.persistence.seq == 2, "stored behind it")


@pytest.mark.parametrize("bus", [LocalBus, Hints])
async def test_rows_that_follow_on_what_is_held_come_with_the_message(nodes: Nodes, bus: type[LocalBus]) -> None:
    one, two = [await nodes.start(bus=bus) for _ in range(2)]
    live_1, a, _ = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("0.")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "a document that it did not know has to be looked up")
    before = two.store.readings
    for n in range(1, 20):
        live_1.receive(a, SyncUpdate(author.type(f"{n}.")))
        await box_2.until(lambda n=n: f"{n}." in box_2.text(), "it arrives")
    assert live_2.persistence.seq == 20 and live_2.persistence.tail_rows == 20
    assert (two.store.readings == before) is (bus is LocalBus)
    # As much as the log holds, with the authors and times of its rows.
    assert content(live_2.room.document.encode_state_as_update()) == "".join(f"{n}." for n in range(20))


async def test_rows_that_do_not_follow_are_read_from_the_log(nodes: Nodes, stranger: Stranger) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("a")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "the first")
    number = live_1.persistence.document_id
    assert number is not None
    bus = two.hub.bus
    assert isinstance(bus, LocalBus)
    bus.unsubscribe("d")  # the second is lost
    live_1.receive(a, SyncUpdate(author.type("b")))
    await one.write(live_1)
    bus.subscribe("d")
    await box_2.until(lambda: live_2.persistence.seq == 2, "who comes back is told how far the log is")
    rows = tuple([Row(row.data, row.at, row.author) for row in (await one.stored("d")).rows])
    await box_2.until(lambda: not two.hub._replication._reading, "the end of it")
    before = two.store.readings
    stranger.say(Rows(number, 1, rows[:1]))  # known
    stranger.say(Rows(number + 1, 3, rows[1:]))  # of another document
    await asyncio.sleep(0.02)
    assert live_2.persistence.seq == 2 and two.store.readings == before
    bus._topics.remove("d")  # the third is lost, and nobody knows
    live_1.receive(a, SyncUpdate(author.type("c")))
    await one.write(live_1)
    bus._topics.add("d")
    live_1.receive(a, SyncUpdate(author.type("!")))
    await box_2.until(lambda: box_2.text() == "abc!", "what does not follow tells of it")
    assert live_2.persistence.seq == 4 and two.store.readings > before
    # Some are known, the others follow.
    for n, letter in enumerate("def", 5):
        live_1.receive(a, SyncUpdate(author.type(letter)))
        await box_2.until(lambda n=n: live_2.persistence.seq == n, "one by one")
    stranger.say(
        Rows(number, 2, tuple([Row(row.data, row.at, row.author) for row in (await one.stored("d")).rows[1:]]))
    )
    live_1.receive(a, SyncUpdate(author.type(".")))
    await box_2.until(lambda: box_2.text() == "abc!def.", "nothing came twice")
    assert live_2.persistence.seq == 8


async def test_rows_that_are_damaged_on_the_bus_are_read_from_the_log(
    nodes: Nodes, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("a")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "the first")
    number = live_1.persistence.document_id
    assert number is not None
    before = two.store.readings
    with caplog.at_level(logging.WARNING):
        stranger.say(Rows(number, 2, (Row(b"\xff\xff", 1.0, None),)))
        await box_2.until(lambda: two.store.readings > before, "it looks")
    assert any("is left out" in record.getMessage() for record in caplog.records)
    assert live_2.ended is None and live_2.persistence.seq == 1
    live_1.receive(a, SyncUpdate(author.type("b")))
    await box_2.until(lambda: box_2.text() == "ab", "the room goes on")


async def test_what_may_have_been_missed_is_looked_for_at_once(nodes: Nodes) -> None:
    one = await nodes.start(blind=False)
    live_1, a, _ = await one.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("a")))
    await one.write(live_1)
    two = await nodes.start(blind=False, bus=Steady)
    live_2, _, box_2 = await two.join("d")
    await asyncio.sleep(SWEEP / 2)  # the look that follows on an opening
    looks = two.store.looks
    end = two.hub.bus
    assert isinstance(end, LocalBus)
    end.unsubscribe("d")  # from now on everything is lost
    live_1.receive(a, SyncUpdate(author.type("b")))
    await one.write(live_1)
    await asyncio.sleep(SWEEP / 2)
    assert two.store.looks == looks, "a bus that is steady needs no looks"
    two.hub._replication.missed()
    await box_2.until(lambda: live_2.persistence.seq == 2, "found")


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.slow
async def test_without_a_bus_rows_are_found_within_about_a_second(
    start_node: StartNode, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_SWEEP", SWEEP)
    one, two = await start_node(), await start_node()
    author = Author(1)
    live_1, a, _ = await one.join("d")
    if opened == "after":
        live_1.receive(a, SyncUpdate(author.type("there ")))
        await one.write(live_1)
    live_2, b, box_2 = await two.join("d")
    live_2.receive(b, SyncStep1(b"\0"))
    began = asyncio.get_running_loop().time()
    live_1.receive(a, SyncUpdate(author.type("new")))
    await box_2.until(lambda: box_2.text().endswith("new"), "found by looking at the log")
    # A machine that is busy takes longer than the second.
    assert asyncio.get_running_loop().time() - began < 10
    assert box_2.text() == ("new" if opened == "before" else "there new")


async def test_a_room_that_everybody_has_left_is_looked_at_too(start_node: StartNode) -> None:
    """Else the next one who comes is given an old document."""
    one, two = await start_node(), await start_node()
    live_1, a, box = await one.join("d")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("old, ")))
    await one.write(live_1)
    live_2, b, _ = await two.join("d")
    live_2.leave(b)
    live_1.receive(a, SyncUpdate(author.type("new")))
    await box.until(lambda: live_2.persistence.seq == 2, "found")
    live, c, box = await two.join("d")
    assert live is live_2
    live.receive(c, SyncStep1(b"\0"))
    assert box.text() == "old, new"


class Looks:
    """The looks at the heads that a node takes, by the names that they ask for."""

    def __init__(self, node: Node) -> None:
        self.names: list[list[str]] = []
        self._heads = node.store.heads
        node.store.heads = self.heads

    async def heads(self, names: list[str]) -> dict[str, Any]:
        self.names.append(list(names))
        return dict(await self._heads(names))


async def polls(node: Node, count: int = 3) -> None:
    for _ in range(count):
        await node.hub._replication.poll()


async def test_on_sqlite_nobody_looks_while_nobody_else_writes(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    live, a, box = await one.join("d")
    await two.join("d")
    author = Author(1)
    await polls(one)
    looks = Looks(one)
    for n in range(3):
        live.receive(a, SyncUpdate(author.type(f"{n}")))
        await one.write(live)
        await polls(one)
    assert looks.names == [], "what it writes itself is no reason to look"
    await Documents(two.store).create("other")
    await box.until(lambda: looks.names, "somebody else has written")
    assert looks.names == [["d"]]
    await polls(one)
    assert len(looks.names) == 1


async def test_a_look_that_fails_or_leaves_a_room_out_is_taken_again(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    live, a, box = await two.join("d")
    await polls(two)
    two.store.blind = True
    there, b, _ = await one.join("d")
    author = Author(1)
    there.receive(b, SyncUpdate(author.type("1")))
    await one.write(there)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await polls(two)
    two.store.blind = False
    await box.until(lambda: box.text() == "1", "found, although nothing has changed since")
    await box.until(lambda: not two.hub._replication._reading, "all is read")
    # A room that is busy is left out: its own commit is about to tell. If that does not come, the next look does.
    live.persistence.uncommitted += 1
    there.receive(b, SyncUpdate(author.type("2")))
    await one.write(there)
    await polls(two)
    assert box.text() == "1"
    live.persistence.uncommitted -= 1
    await box.until(lambda: box.text() == "12", "found")


async def test_what_is_written_while_a_document_is_opened_is_found(start_node: StartNode) -> None:
    """The look at the log that it was the reason for did not know of the room yet."""
    one, two = await start_node(), await start_node()
    there, b, _ = await one.join("d")
    author = Author(1)
    there.receive(b, SyncUpdate(author.type("1")))
    await one.write(there)
    load = two.store.load

    async def slow(name: str) -> Any:
        loaded = await load(name)
        there.receive(b, SyncUpdate(author.type("2")))
        await one.write(there)
        await polls(two)
        return loaded

    two.store.load = slow
    live, _, box = await two.join("d")
    await box.until(lambda: live.persistence.seq == 2, "found")


async def test_another_server_on_the_database_is_warned_of_once(
    start_node: StartNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication_module, "_rarely", RateLimited(get_logger("room"), per_second=1 / 600, burst=1))
    node = await start_node()
    with caplog.at_level(logging.INFO, "collab.room"):
        for others in (0, 1, 1, 2, 0, 0):
            node.hub._replication.note_others(others)
    lines = [record.getMessage() for record in caplog.records if "heard" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("1 other server writes to the same database and cannot be heard")
    assert lines[1] == "no server writes to the database any more that cannot be heard"


async def test_servers_that_share_a_bus_are_not_warned_of(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    one, _ = await nodes.start(), await nodes.start()
    one.hub._replication.note_others(1)
    assert "other server" not in caplog.text


async def test_the_heads_of_many_documents_and_many_rows_are_looked_at_in_portions(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication_module, "_HEADS", 2)
    monkeypatch.setattr(replication_module, "_ROWS", 3)
    one, two = await start_node(), await start_node()
    names = [f"d{number}" for number in range(5)]
    boxes = [(await two.join(name))[2] for name in names]
    for number, name in enumerate(names):
        live, a, _ = await one.join(name)
        author = Author(number + 1)
        for letter in "abcdefgh":
            live.receive(a, SyncUpdate(author.type(letter)))
            await one.write(live)
    for box in boxes:
        await box.until(lambda box=box: box.text() == "abcdefgh", "found")


async def test_what_is_written_while_rows_are_read_is_read_too(nodes: Nodes) -> None:
    """Else a hint that comes a moment too early is lost, and the row waits for the next look at the log."""
    one, two = await nodes.start(), await nodes.start()
    live_1, a, box_1 = await one.join("d")
    _, _, box_2 = await two.join("d")
    author, readings = Author(1), 0

    async def write_once_more() -> None:
        nonlocal readings
        readings += 1
        if readings == 1:  # there was nothing more, and that is on its way to the room
            live_1.receive(a, SyncUpdate(author.type("two")))
            await box_1.until(lambda: live_1.persistence.seq == 2, "written, and the hint published")
            await asyncio.sleep(0.02)

    two.store.between = write_once_more
    live_1.receive(a, SyncUpdate(author.type("one ")))
    await box_2.until(lambda: box_2.text() == "one two", "both")
    assert readings >= 2
    await box_2.until(lambda: not two.hub._replication._reading, "the end of it")


async def test_what_is_written_while_a_new_document_is_looked_for_is_read_too(nodes: Nodes, stranger: Stranger) -> None:
    one, two = await nodes.start(), await nodes.start()
    _, _, box_2 = await two.join("d")
    load, created = two.store.load, False

    async def load_too_early(name: str) -> Any:
        nonlocal created
        loaded = await load(name)
        if not created:
            created = True
            live_1, a, box_1 = await one.join(name)
            live_1.receive(a, SyncUpdate(Author(1).type("new")))
            await box_1.until(lambda: live_1.persistence.seq == 1, "written, and the hint published")
            await asyncio.sleep(0.02)
        return loaded

    two.store.load = load_too_early
    stranger.say(Committed(1, 1))
    await box_2.until(lambda: box_2.text() == "new", "the first edit arrives")


async def test_our_own_rows_that_are_read_back_are_passed_over(nodes: Nodes, stranger: Stranger) -> None:
    node = await nodes.start()
    live, a, box = await node.join("d")
    author = Author(1)
    for n in range(30):
        live.receive(a, SyncUpdate(author.type(f"{n}.")))
        live.end_turn(node.hub.now())
        stranger.say(Committed(1, n + 1_000))
        await asyncio.sleep(0)
    await node.write(live)
    await box.until(lambda: live.persistence.seq == 30 and not node.hub._replication._reading, "all is known")
    assert live.persistence.tail_rows == len((await node.stored("d")).rows) == 30
    assert box.text() == str(author.text)


async def test_rows_that_were_pruned_before_they_were_read_are_found_in_the_snapshot(nodes: Nodes) -> None:
    """A node that could not reach the store for longer than the history is kept, which may be no time at all."""
    one, two = [await nodes.start(blind=False, bus=Hints) for _ in range(2)]
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    here, there = Author(1), Author(2)
    live_1.receive(a, SyncUpdate(here.type("first ")))
    reading = two.hub._replication._reading
    await box_2.until(lambda: live_2.persistence.seq == 1 and not reading, "read")
    two.store.down = True
    live_2.receive(b, SyncUpdate(there.type("there ")))
    await box_2.until(lambda: two.journal.failing, "it is missed")
    for word in ("second ", "third "):
        live_1.receive(a, SyncUpdate(here.type(word)))
        await one.write(live_1)
        await one.hub._compactor.compact(live_1)
    while await one.store.prune(before=1e12, limit=100):
        pass
    assert live_1.persistence.document_id is not None
    left = await one.store.rows_after(live_1.persistence.document_id, 0, 9)
    assert [row.seq for row in left] == [3], "the snapshots hold all"
    live_1.receive(a, SyncUpdate(here.type("fourth ")))
    await one.write(live_1)
    two.store.down = False
    words = sorted(["first", "second", "third", "fourth", "there"])
    for box in (box_1, box_2):
        await box.until(lambda box=box: sorted(box.text().split()) == words, "both have everything")
    await box_2.until(lambda: live_2.persistence.seq == live_1.persistence.seq == 5, "all is read")
    assert live_2.persistence.tail_rows <= 2 and live_2.persistence.snapshot_bytes
    await box_2.until(lambda: not reading, "the end of it")
    assert sorted(content(live_2.room.document.encode_state_as_update()).split()) == words


async def test_a_store_that_is_away_is_asked_again(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    author = Author(1)
    two.store.down = True
    for n in range(50):
        live_1.receive(a, SyncUpdate(author.type(f"{n}.")))
        await box_2.until(lambda n=n: two.store.loads >= n + 2, "tried")
    lines = [record for record in caplog.records if "wait for the store" in record.message]
    assert 1 <= len(lines) <= 10, "a line for each would be a flood"
    assert live_2.persistence.seq == 0
    two.store.down = two.store.blind = False
    await box_2.until(lambda: box_2.text() == str(author.text), "found by looking at the log")


async def test_a_row_that_an_answer_waited_for_has_its_client_asked(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, b, box_2 = await two.join("d", answer=False)
    here, there = Author(1), Author(2)
    first = here.type("first ")
    there.read(first)
    live_2.receive(b, SyncStep2(there.type("second")))
    assert not b.unanswered
    live_1.receive(a, SyncUpdate(first))
    await box_2.until(lambda: b.unanswered, "asked")
    live_2.receive(b, SyncStep2(there.doc.get_update()))
    await box_2.until(lambda: box_2.text() == "first second", "whole")


async def test_an_echo_that_waits_goes_out_before_what_another_node_has_written(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, b, box_2 = await two.join("d", kind=Acknowledged)
    await box_2.until(box_2.verdicts, "the verdict on the empty SyncStep2")
    # The journal does not know yet that the store takes nothing.
    two.store.full = True
    own, foreign = Author(2).type("own"), Author(1).type("foreign")
    live_2.receive(b, SyncUpdate(own))
    live_2.end_turn(two.hub.now())
    assert own not in box_2.updates()
    live_1.receive(a, SyncUpdate(foreign))
    await box_2.until(lambda: foreign in box_2.updates(), "the row of the other node")
    assert box_2.updates()[-2:] == [own, foreign] and len(box_2.verdicts()) == 1
    two.store.full = False
    await box_2.until(lambda: box_2.verdicts() == [True, True], "saved")
    assert box_2.updates()[-2:] == [own, foreign]


# Awareness


async def test_awareness_states_appear_on_the_other_node_change_and_go_with_their_session(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    for clock, state in ((1, '{"x":1}'), (2, '{"x":2}')):
        live_1.receive(a, awareness(7, clock, state))
        await box_2.until(lambda clock=clock, state=state: box_2.awareness() == {7: (clock, state)}, "shown")
    late = (await two.join("d"))[2]
    assert late.awareness() == {7: (2, '{"x":2}')}, "a new arrival is told"
    live_1.leave(a)
    await box_2.until(lambda: box_2.awareness() == {7: (2, "null")}, "gone")
    assert len(live_2.room.awareness) == 0


async def test_awareness_states_go_with_their_node(nodes: Nodes) -> None:
    one, two, three = await nodes.start(), await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, b, _ = await two.join("d")
    live_3, _, box_3 = await three.join("d")
    live_1.receive(a, awareness(7, 1, "{}"))
    live_2.receive(b, awareness(8, 1, "{}"))
    await box_3.until(lambda: box_3.awareness() == {7: (1, "{}"), 8: (1, "{}")}, "both are shown")
    await one.stop()
    await box_3.until(lambda: box_3.awareness() == {7: (1, "null"), 8: (1, "{}")}, "one has gone")
    assert len(live_3.room.awareness) == 1
    assert all(len(known) == 1 for known in three.hub._replication._nodes.values())


async def test_awareness_states_of_a_node_that_dies_go_too(nodes: Nodes) -> None:
    """It says nothing more: the bus tells that it is gone."""
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    _, _, box_2 = await two.join("d")
    live_1.receive(a, awareness(7, 1, "{}"))
    await box_2.until(lambda: box_2.awareness() == {7: (1, "{}")}, "shown")
    await one.hub._replication.close()
    await box_2.until(lambda: box_2.awareness() == {7: (1, "null")}, "gone")


async def test_awareness_states_go_with_a_node_that_has_the_document_open_no_more(
    nodes: Nodes, stranger: Stranger
) -> None:
    """What it has said of each of them at the end may be lost."""
    one = await nodes.start()
    live, _, box = await one.join("d")
    stranger.say(Awareness(awareness(7, 1, "{}").payload))
    await box.until(lambda: box.awareness() == {7: (1, "{}")}, "shown")
    stranger.bus.unsubscribe("d")
    await box.until(lambda: box.awareness() == {7: (1, "null")}, "gone")
    assert len(live.room.awareness) == 0 and not one.hub._replication._nodes[live]


async def test_a_node_that_opens_the_room_later_is_told_who_is_there(nodes: Nodes, stranger: Stranger) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_1.receive(a, awareness(7, 3, "{}"))
    live_2, _, box_2 = await two.join("d")
    await box_2.until(lambda: box_2.awareness() == {7: (3, "{}")}, "asked and told")
    stranger.heard.clear()
    stranger.bus.unsubscribe("d")
    stranger.bus.subscribe("d")
    await box_2.until(lambda: len(stranger.heard) == 2, "answers")
    await asyncio.sleep(0.02)
    assert stranger.heard == [
        encode_node_message(Held(None, 0, awareness(7, 3, "{}").payload)),
        encode_node_message(Held(None, 0, b"\0")),
    ], "each tells its own"
    live_2.receive((await two.join("d"))[1], awareness(8, 1, "{}"))
    await box_2.until(lambda: len(stranger.heard) == 3, "told")
    assert stranger.heard[2] == encode_node_message(Awareness(awareness(8, 1, "{}").payload))


async def test_what_a_node_shows_no_more_goes_when_it_says_all_that_it_shows(nodes: Nodes, stranger: Stranger) -> None:
    """What was lost on the bus may have been a removal."""
    two = await nodes.start()
    _, _, box = await two.join("d")
    both = encode_awareness([Entry(7, 3, b"{}"), Entry(8, 1, b"{}")])
    stranger.say(Held(None, 0, both))
    await box.until(lambda: box.awareness() == {7: (3, "{}"), 8: (1, "{}")}, "shown")
    stranger.say(Held(None, 0, encode_awareness([Entry(8, 2, b'{"a":1}')])))
    await box.until(lambda: box.awareness() == {7: (3, "null"), 8: (2, '{"a":1}')}, "one has left, one has moved")
    stranger.say(Held(None, 0, both))
    await box.until(lambda: box.awareness()[7][1] == "null", "a state that is older than its end says nothing")
    stranger.say(Held(None, 0, b"\0"))
    await box.until(lambda: box.awareness()[8] == (2, "null"), "nobody is there")


async def test_presence_is_gathered_where_each_message_is_dear(nodes: Nodes, stranger: Stranger) -> None:
    one = await nodes.start(bus=Slow)
    live, a, box = await one.join("d")
    other, b, _ = await one.join("d")
    await box.until(lambda: len(stranger.heard) == 1, "it has introduced itself")
    stranger.heard.clear()
    for clock in range(1, 40):
        live.receive(a, awareness(7, clock, f'{{"x":{clock}}}'))
        other.receive(b, awareness(8, clock, f'{{"x":{clock}}}'))
        await asyncio.sleep(0.005)
    live.receive(a, awareness(7, 40, "null"))

    def shown() -> dict[int, tuple[int, str]]:
        found = {}
        for payload in stranger.heard:
            message = decode_node_message(payload)
            assert isinstance(message, Awareness)
            found.update(
                {entry.client: (entry.clock, entry.state.decode()) for entry in decode_awareness(message.update)}
            )
        return found

    await box.until(lambda: shown() == {7: (40, "null"), 8: (39, '{"x":39}')}, "the newest of each")
    assert len(stranger.heard) <= 10
    # What is gathered when it stops is said.
    live.receive(a, awareness(7, 41, "{}"))
    await box.until(lambda: box.awareness()[7] == (41, "{}"), "taken")
    await one.hub._replication.close()
    await asyncio.sleep(0)
    assert shown()[7] == (41, "{}")


async def test_one_that_comes_from_another_node_is_made_to_announce_itself_again(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    live_1.receive(a, awareness(7, 3, "{}"))
    await box_2.until(lambda: box_2.awareness() == {7: (3, "{}")}, "shown")
    live_1.leave(a)
    await box_2.until(lambda: box_2.awareness() == {7: (3, "null")}, "gone")
    before = len(box_2.messages)
    live_2.receive(b, awareness(7, 3, "{}"))
    assert box_2.messages[before:] == [awareness(7, 3, "null")]
    live_2.receive(b, awareness(7, 4, "{}"))
    await box_2.until(lambda: box_2.awareness() == {7: (4, "{}")}, "shown again")
    box_1 = (await one.join("d"))[2]
    await box_1.until(lambda: box_1.awareness().get(7) == (4, "{}"), "there too")


async def test_states_of_other_nodes_leave_memory_with_the_room(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start(idle_seconds=0.0)
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    live_1.receive(a, awareness(7, 1, "{}"))
    await box_2.until(lambda: box_2.awareness(), "shown")
    live_2.leave(b)
    await box_2.until(lambda: "d" not in two.hub.rooms, "the room leaves memory")
    assert not two.hub._replication._nodes
    await one.stop()  # nobody there whom it would concern
    assert box_1.ended is not None
    _, _, box = await two.join("d")
    assert box.awareness() == {}


# Stateless messages


async def test_stateless_messages_reach_the_members_of_other_nodes_whose_protocol_has_them(nodes: Nodes) -> None:
    one, two, three = await nodes.start(), await nodes.start(), await nodes.start()
    live_1, sender, box = await one.join("d", kind=Acknowledged)
    _, _, beside = await one.join("d", kind=Acknowledged)
    _, _, silent = await two.join("d")
    there = [(await node.join("d", kind=Acknowledged))[2] for node in (two, two, three)]
    for payload in (b"first", b"second"):
        live_1.receive(sender, Stateless(payload))
    for other in (beside, *there):
        await other.until(lambda other=other: len(other.stateless()) == 2, "relayed")
    await asyncio.sleep(0.02)
    for other in (beside, *there):
        assert other.stateless() == [b"first", b"second"]
    assert box.stateless() == silent.stateless() == []


# Deleting


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "found"])
async def test_deleting_on_one_node_ends_the_members_on_the_other(nodes: Nodes, heard: bool) -> None:
    one, two = await nodes.start(blind=heard), await nodes.start(blind=heard)
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    _, _, stays = await two.join("other")
    author = Author(1)
    live_1.receive(a, SyncUpdate(author.type("x")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "both have it")
    # Without rooms, as a command line does it.
    await Documents(one.store, one.hub if heard else None).delete("d")
    for box in (box_1, box_2):
        await box.until(lambda box=box: box.ended, "the members are ended")
        assert isinstance(box.ended, DocumentDeleted)
    assert b.state is State.CLOSED and stays.ended is None
    for node in (one, two):
        assert "d" not in node.hub.rooms
        with pytest.raises(DocumentDeleted):
            await node.hub.open("d")


async def test_deleting_what_is_not_stored_on_the_other_node_yet_is_found(start_node: StartNode) -> None:
    """It has the name open, and nothing has told it of the document: neither of its beginning nor of its end."""
    one, two = await start_node(), await start_node()
    _, _, box_2 = await two.join("d")
    documents = Documents(one.store, one.hub)
    await documents.create("d")
    await documents.delete("d")
    await box_2.until(lambda: box_2.ended, "found by looking at the log")
    assert isinstance(box_2.ended, DocumentDeleted)


@pytest.mark.parametrize("heard", [True, False], ids=["heard", "found"])
async def test_a_document_that_was_deleted_and_created_anew_is_another_one(nodes: Nodes, heard: bool) -> None:
    one, two = await nodes.start(blind=heard), await nodes.start(blind=heard)
    live_2, b, box_2 = await two.join("d")
    live_2.receive(b, SyncUpdate(Author(2).type("old")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "stored")
    documents = Documents(one.store, one.hub if heard else None)
    await documents.delete("d")
    await documents.create("d", update=Author(3).type("new"))
    await box_2.until(lambda: box_2.ended, "the old one is over")
    assert isinstance(box_2.ended, DocumentDeleted)
    again, c, box = await two.join("d")
    again.receive(c, SyncStep1(b"\0"))
    assert box.text() == "new"
    again.receive(c, SyncUpdate(Author(4).type("!")))
    await box.until(lambda: again.persistence.seq == 2, "stored")
    # What is late about the old one does not concern the new one.
    assert live_2.persistence.document_id is not None
    two.hub.deleted("d", live_2.persistence.document_id)
    await asyncio.sleep(0.02)
    assert box.ended is None and again.ended is None


async def test_late_news_of_an_older_document_does_not_concern_the_newer_one(
    nodes: Nodes, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    node = await nodes.start()
    await node.store.create("d")
    await node.store.delete("d", 1.0)
    await node.store.create("d")
    live, a, box = await node.join("d", kind=Acknowledged)
    number = live.persistence.document_id
    assert number is not None
    stranger.say(Deleted(number - 1))
    stranger.say(Committed(number - 1, 99))
    stranger.say(Committed(number, 0))
    stranger.say(Awareness(awareness(7, 1, "{}").payload))
    await box.until(lambda: box.awareness(), "what came behind it")
    assert box.ended is None and not node.hub._replication._reading
    stranger.say(Deleted(number))
    await box.until(lambda: box.ended, "this one")


async def test_a_look_at_the_log_that_is_late_does_not_end_a_newer_room(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d")
    live.receive(a, SyncUpdate(Author(1).type("old")))
    await box.until(lambda: live.persistence.seq == 1, "stored")
    heads = node.store.heads
    rooms: list[LiveRoom] = []

    async def late(names: list[str]) -> Any:
        """The document is deleted and created anew while an answer that was true is on its way."""
        if rooms:
            return await heads(names)
        documents = Documents(node.store, node.hub)
        await documents.delete("d")
        old = await heads(names)
        await documents.create("d")
        rooms.append((await node.join("d"))[0])
        return old

    node.store.heads = late
    _, _, box = await node.join("other")
    await box.until(lambda: rooms, "the late answer")
    await asyncio.sleep(0.05)
    assert rooms[0].ended is None and node.hub.rooms["d"] is rooms[0]


# What a bus may do


async def test_what_is_malformed_or_unknown_harms_nothing_and_is_logged_at_a_bounded_rate(
    nodes: Nodes, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, _ = await one.join("d")
    _, _, box_2 = await two.join("d")
    bad = [
        b"",
        b"\x80",
        b"\x00",
        encode_node_message(Committed(1, 1)) + b"\0",
        encode_node_message(Awareness(b"\x01\x07")),
        encode_node_message(Awareness(awareness(7, 1, "{").payload)),
        b"\x01\x05ab",
    ]
    with caplog.at_level(logging.WARNING):
        for payload in bad * 50:
            stranger.bus.publish("d", payload)
        stranger.bus.publish("d", b"\x63 of a later release")
        stranger.say(Awareness(awareness(8, 1, "{}").payload))
        await box_2.until(lambda: box_2.awareness() == {8: (1, "{}")}, "what came behind it")
    lines = [record for record in caplog.records if record.name == "collab.bus"]
    assert 1 <= len(lines) <= 2 * 6, "each of the two nodes has heard 350 of them"
    assert all("is left out" in record.getMessage() and stranger.bus.node in record.getMessage() for record in lines)
    live_1.receive(a, SyncUpdate(Author(1).type("on")))
    await box_2.until(lambda: box_2.text() == "on", "the rooms go on")


async def test_a_defect_in_what_is_done_with_a_message_is_logged_and_harms_nothing_else(
    nodes: Nodes, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    node = await nodes.start()
    live, _, box = await node.join("d", kind=Acknowledged)

    class Broken:
        stateless = True

        def encode(self, message: object) -> bytes:
            raise RuntimeError("a defect")

    members = live.members._groups
    (encoder,) = members
    members[Broken()] = members.pop(encoder)
    stranger.bus.publish("d", b"\x03\x02hi")
    await box.until(lambda: any("failed" in record.message for record in caplog.records), "logged")
    members[encoder] = members.popitem()[1]
    (record,) = [record for record in caplog.records if record.name == "collab.bus"]
    assert record.exc_info is not None and "a defect" in str(record.exc_info[1])
    stranger.bus.publish("d", b"\x03\x02on")
    await box.until(lambda: box.stateless() == [b"on"], "the next one")


class Careless(LocalBus):
    """A bus that hands over what came before the end of a subscription a little later, as it may."""

    def unsubscribe(self, topic: str) -> None:
        pass


async def test_messages_for_rooms_that_are_not_live_are_ignored(
    nodes: Nodes, stranger: Stranger, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Careless(nodes.exchange)
    node = await start_node(bus=bus, idle_seconds=0.0)
    live, a, box = await node.join("d")
    live.leave(a)
    await box.until(lambda: not node.hub.rooms, "unloaded")
    for message in (
        Committed(1, 1),
        Awareness(awareness(7, 1, "{}").payload),
        Held(1, 1, awareness(7, 1, "{}").payload),
        Rows(1, 1, (Row(Author(1).type("x"), 1.0, None),)),
        Look(),
        Deleted(1),
    ):
        stranger.say(message)
    stranger.bus.publish("d", b"\xff")
    stranger.heard.clear()
    await asyncio.sleep(0.05)
    assert not node.hub.rooms and not stranger.heard and node.store.loads == 1
    assert not node.hub._replication._nodes and not node.hub._replication._reading
    assert not [record for record in caplog.records if record.name == "collab.bus"]


async def test_a_document_that_nobody_has_open_is_not_listened_to(nodes: Nodes) -> None:
    node = await nodes.start(idle_seconds=0.0)
    bus = next(iter(nodes.exchange.nodes.values()))
    live, a, box = await node.join("d")
    of_all = {ALL_NODES, QUESTIONS, answers_topic(bus.node)}
    assert bus._topics == {"d"} | of_all
    live.leave(a)
    await box.until(lambda: not node.hub.rooms, "unloaded")
    assert bus._topics == of_all


async def test_a_document_that_is_opened_again_is_listened_to(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    live_1, a, box_1 = await one.join("d")
    live_2, _, box_2 = await two.join("d")
    two.hub.evict(live_2, DocumentDeleted("for the test"))
    assert box_2.ended
    _, _, again = await two.join("d")
    two.hub.evict(live_2, DocumentDeleted("once more, late"))
    live_1.receive(a, SyncUpdate(Author(1).type("heard")))
    await again.until(lambda: again.text() == "heard", "the edit arrives")


class Noting(LocalBus):
    """A bus that notes the kinds of what it is given."""

    def __init__(self, exchange: LocalExchange) -> None:
        super().__init__(exchange)
        self.published: list[str] = []

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append(type(decode_node_message(payload)).__name__)
        super().publish(topic, payload)


async def test_nothing_is_published_while_a_node_is_alone(nodes: Nodes, start_node: StartNode) -> None:
    bus = Noting(nodes.exchange)
    node = await start_node(bus=bus)

    async def live_a_little(name: str) -> None:
        live, member, box = await node.join(name, kind=Acknowledged)
        live.receive(member, SyncUpdate(Author(1).type("x")))
        live.receive(member, awareness(7, 1, "{}"))
        live.receive(member, Stateless(b"hello"))
        await box.until(lambda: len(box.verdicts()) == 2 and box.awareness(), "all is done")
        await Documents(node.store, node.hub).delete(name)
        await box.until(lambda: box.ended and not live.dirty, "deleted")

    await live_a_little("alone")
    assert not bus.published
    other = await nodes.start()
    await live_a_little("in company, which has it not open")
    assert not bus.published
    await other.join("in company")
    await live_a_little("in company")
    # A state and its end may go as one; what both hold is told when they have heard of each other.
    kinds = {"Awareness", "Deleted", "Rows", "Stateless"}
    await happens(lambda: kinds <= set(bus.published), "all of it is told")
    assert set(bus.published) <= {*kinds, "Held"}
    await other.stop()
    told = len(bus.published)
    await live_a_little("alone again")
    assert len(bus.published) == told
