"""When a snapshot is made of a live document, and what it holds."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collab.cluster.local import LocalBus, LocalExchange
from collab.hub import hub as hub_module
from collab.hub.compaction import CompactionPolicy, Compactor
from collab.hub.documents import Documents
from collab.hub.loading import read_document
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.protocol.sync import SyncStep1, SyncUpdate
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.pool import ProcessSandbox
from collab.sandbox.port import Sandbox
from collab.storage.checksums import seal_snapshot
from collab.storage.records import LoadedDocument
from collab.update.compact import Compacted
from tests.hub.conftest import OPTIONS, Box, Node, StartNode
from tests.support.author import Author, content


def compactor(node: Node) -> Compactor:
    """Make the hub's own compactor once more, to choose the moment of a snapshot."""
    return Compactor(node.store, node.sandbox, OPTIONS.compaction, time.time)


async def test_compaction_waits_for_a_tail_and_the_room_goes_on_meanwhile(start_node: StartNode) -> None:
    node = await start_node(compaction=CompactionPolicy(rows=50, nbytes=1 << 30, ratio=0.5))
    live, a, box = await node.join("d")
    author = Author(1)
    for n in range(400):
        live.receive(a, SyncUpdate(author.type(str(n % 10))))
        await asyncio.sleep(0.001)
    await box.until(lambda: live.persistence.snapshot_bytes and not live.compacting, "a snapshot is made")
    live.receive(a, SyncUpdate(author.type("end")))
    await live.persistence.durable()
    live.end_turn(0.0)
    await live.persistence.durable()
    text = "".join(str(n % 10) for n in range(400)) + "end"
    assert box.text() == text
    assert content(live.room.document.encode_state_as_update()) == text
    stored = await node.stored("d")
    assert stored.snapshot is not None
    assert stored.snapshot.seq + len(stored.rows) == stored.document.head_seq
    assert live.persistence.tail_rows < 400
    late, member, late_box = await node.join("d")
    late.receive(member, SyncStep1(b"\0"))
    assert late_box.text() == text


@pytest.mark.parametrize("edits", [1, 2])
async def test_a_snapshot_never_takes_the_number_of_a_row_that_it_does_not_hold(
    start_node: StartNode, edits: int
) -> None:
    """Another node's row comes between the encoding of a snapshot and the commit that gives it its number."""
    exchange = LocalExchange()
    one, two = await start_node(bus=LocalBus(exchange)), await start_node(bus=LocalBus(exchange))
    live_1, a, _ = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    here, there = Author(1), Author(2)
    live_1.receive(a, SyncUpdate(here.type("first ")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "both have it")
    two.store.full = True
    for _ in range(edits):
        live_2.receive(b, SyncUpdate(there.type("two ")))
        live_2.end_turn(two.hub.now())
    making = asyncio.ensure_future(compactor(two).compact(live_2))
    await asyncio.sleep(0)
    assert not making.done()
    live_1.receive(a, SyncUpdate(here.type("one ")))
    await box_2.until(lambda: live_2.persistence.seq == 2, "the row of the first node is read meanwhile")
    two.store.full = False
    await making
    live_2.receive(b, SyncUpdate(there.type("last")))
    await box_2.until(lambda: live_2.persistence.seq == 3 + edits, "all is written")
    stored = await one.stored("d")
    if stored.snapshot is not None:
        assert stored.snapshot.seq + len(stored.rows) == stored.document.head_seq
    reader = Author(0)
    for update in ([] if stored.snapshot is None else [stored.snapshot.data]) + [row.data for row in stored.rows]:
        reader.read(update)
    assert sorted(str(reader.text).split()) == sorted(["first", "one", *["two"] * edits, "last"])


async def test_a_snapshot_holds_the_rows_of_another_node_too(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one, two = await start_node(bus=LocalBus(exchange)), await start_node(bus=LocalBus(exchange))
    live_1, a, _ = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    live_1.receive(a, SyncUpdate(Author(1).type("one")))
    await box_2.until(lambda: live_2.persistence.seq == 1, "read")
    live_2.receive(b, SyncUpdate(Author(2).type("two")))
    live_2.end_turn(two.hub.now())
    await compactor(two).compact(live_2)
    stored = await two.stored("d")
    assert stored.snapshot is not None and stored.snapshot.seq == 2 and stored.rows == []
    assert sorted(content(stored.snapshot.data)) == sorted("onetwo")
    assert (live_2.persistence.tail_rows, live_2.persistence.tail_bytes) == (0, 0)


async def test_a_snapshot_holds_nothing_of_the_turn_that_goes_on(start_node: StartNode) -> None:
    node, author = await start_node(), Author(1)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(author.type("stored")))
    await node.write(live)
    live.receive(member, SyncUpdate(author.type(" and not yet")))
    assert live.room.document.in_turn
    assert await compactor(node).compact(live)
    snapshot = (await node.stored("d")).snapshot
    assert snapshot is not None and (snapshot.seq, content(snapshot.data)) == (1, "stored")


async def test_many_clients_in_the_tail_are_worth_a_snapshot(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    due = compactor(node).due
    for client in range(1, 1_001):
        assert not due(live)
        live.receive(a, SyncUpdate(Author(client).type("x")))
    assert due(live), "each of them is a piece of what a joiner gets"


async def test_a_snapshot_that_fails_is_tried_again_later_and_the_room_goes_on(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node(compaction=CompactionPolicy(rows=1, nbytes=1 << 30, ratio=0.0))
    await node.sandbox.close()
    live, a, box = await node.join("d")
    author = Author(1)
    for letter in "abc":
        live.receive(a, SyncUpdate(author.type(letter)))
        await node.write(live)
        await box.until(lambda: live.compact_after and not live.compacting, "it has failed")
    assert [record.getMessage() for record in caplog.records if record.name == "collab.room"] == [
        "no snapshot of 'd' for now: the sandbox is closed"
    ], "once, and not at every edit"
    assert box.text() == "abc"
    assert live.compact_pause == 60
    live.compact_after = 0.0
    await node.hub._compact(live)
    assert live.compact_pause == 120, "one that never succeeds is tried less and less often"
    node.sandbox = node.hub._compactor._sandbox = ProcessSandbox(1, 30.0, 2 << 30)
    live.compact_after = 0.0
    live.receive(a, SyncUpdate(author.type("d")))
    await box.until(lambda: live.persistence.snapshot_bytes, "a snapshot is made")
    await box.until(lambda: not live.compact_pause, "the next one would be the first again")


@pytest.mark.parametrize("before", ["new", "old", "imported"])
async def test_documents_that_the_settings_name_keep_deleted_content_also_when_the_option_goes(
    start_node: StartNode, before: str
) -> None:
    author = Author(1)
    if before != "new":
        node = await start_node()
        update = Author(2).type("imported ")
        await Documents(node.store, keep_deleted=["notes/*"] * (before == "imported")).create("notes/d", update=update)
        assert (await node.store.describe("notes/d")).document.gc is (before == "old")
        await node.stop()

    async def delete(node: Node, word: str) -> None:
        live, a, _ = await node.join("notes/d")
        live.receive(a, SyncUpdate(author.type(word)))
        del author.text[: len(word)]
        live.receive(a, SyncUpdate(author.updates[-1]))
        await node.write(live)
        await compactor(node).compact(live)
        await node.stop()

    keeping = await start_node(keep_deleted=("other", "notes/*"))
    await delete(keeping, "first")
    node = await start_node()
    assert not (await node.store.describe("notes/d")).document.gc
    await delete(node, "second")
    node = await start_node()
    stored = await node.stored("notes/d")
    assert stored.snapshot is not None
    assert b"first" in stored.snapshot.data and b"second" in stored.snapshot.data
    assert content(stored.snapshot.data) == ("" if before == "new" else "imported ")
    live, a, _ = await node.join("letters/d")
    live.receive(a, SyncUpdate(Author(3).type("x")))
    await node.write(live)
    assert (await node.store.describe("letters/d")).document.gc, "not named"


@pytest.mark.parametrize("rows", [True, False])
async def test_a_document_created_by_another_to_keep_deleted_content_keeps_it(
    start_node: StartNode, rows: bool
) -> None:
    """It was not there when it was opened: the room learns its number by its own first commit."""
    node = await start_node()
    node.store.blind = True
    live, a, box = await node.join("d")
    author = Author(1)
    await Documents(node.store).create("d", gc=False, update=Author(2).type("imported ") if rows else None)
    live.receive(a, SyncUpdate(author.type("deleted")))
    del author.text[:7]
    live.receive(a, SyncUpdate(author.updates[-1]))
    await node.write(live)
    await box.until(lambda: live.persistence.seq == 1 + rows, "all is read")
    await compactor(node).compact(live)
    stored = await node.stored("d")
    assert stored.snapshot is not None and b"deleted" in stored.snapshot.data
    assert content(stored.snapshot.data) == ("imported " if rows else "")


# Several nodes


class Slow:
    """A sandbox whose next job waits until it is let go."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.began = asyncio.Event()
        self.go = asyncio.Event()

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        self.began.set()
        await self.go.wait()
        return await self._sandbox.compact(data, gc)

    async def content(self, data: bytes) -> dict[str, Any]:
        return await self._sandbox.content(data)

    async def close(self) -> None:
        await self._sandbox.close()


class Pair:
    """Two nodes that have one document open, with a member on each who types words."""

    def __init__(self, one: Node, two: Node) -> None:
        self.nodes = (one, two)
        self.lives: list[LiveRoom] = []
        self._members: list[Member] = []
        self._authors = (Author(1), Author(2))
        self.boxes: list[Box] = []
        self.words: list[str] = []

    @classmethod
    async def start(cls, start_node: StartNode, name: str = "d", **options: Any) -> Pair:
        exchange = LocalExchange()
        nodes = [await start_node(bus=LocalBus(exchange), sandbox=InlineSandbox(), **options) for _ in range(2)]
        pair = cls(*nodes)
        for node in pair.nodes:
            live, member, box = await node.join(name)
            pair.lives.append(live)
            pair._members.append(member)
            pair.boxes.append(box)
        return pair

    async def type(self, at: int, word: str) -> None:
        """Let the member on one of the nodes type, and wait until both nodes have it."""
        self.words.append(word)
        live, author = self.lives[at], self._authors[at]
        live.receive(self._members[at], SyncUpdate(author.type(f"{word} ")))
        await self.nodes[at].write(live)
        await self.boxes[0].until(
            lambda: self.lives[0].persistence.seq == self.lives[1].persistence.seq, "both have it"
        )

    async def check(self) -> LoadedDocument:
        """Check that the log, its newest snapshot and both memories say the same."""
        stored = await self.nodes[0].stored("d")
        document = await in_slices(read_document("d", stored))
        for data in (document, *(live.room.document for live in self.lives)):
            assert sorted(content(data.encode_state_as_update()).split()) == sorted(self.words)
        return stored

    def counts(self) -> list[tuple[int, int]]:
        """Give how many snapshots each node has made, and taken from the other."""
        return [(node.hub.counts.compactions.count, node.hub.counts.snapshots_of_others) for node in self.nodes]


async def test_a_row_of_another_node_in_between_does_not_throw_the_work_away(start_node: StartNode) -> None:
    pair = await Pair.start(start_node)
    await pair.type(0, "first")
    await pair.type(1, "second")
    slow = Slow(pair.nodes[1].sandbox)
    making = asyncio.ensure_future(
        Compactor(pair.nodes[1].store, slow, OPTIONS.compaction, time.time).compact(pair.lives[1], shared=True)
    )
    await slow.began.wait()
    await pair.type(0, "third")
    await pair.type(1, "fourth")
    slow.go.set()
    assert await making
    assert pair.lives[1].persistence.tail_rows == 2
    stored = await pair.check()
    assert stored.snapshot is not None and stored.snapshot.seq == 2
    assert sorted(content(stored.snapshot.data).split()) == ["first", "second"], "exactly the rows up to its number"


async def test_edits_that_are_not_committed_are_in_no_snapshot_of_the_log(start_node: StartNode) -> None:
    pair = await Pair.start(start_node)
    await pair.type(0, "first")
    node, live = pair.nodes[1], pair.lives[1]
    node.store.full = True
    live.receive(pair._members[1], SyncUpdate(pair._authors[1].type("second ")))
    live.end_turn(node.hub.now())
    assert await compactor(node).compact(live, shared=True)
    assert not await compactor(node).compact(live, shared=True), "there is nothing new in the log"
    stored = await pair.nodes[0].stored("d")
    assert stored.snapshot is not None and stored.snapshot.seq == 1
    assert content(stored.snapshot.data) == "first "
    node.store.full = False
    pair.words.append("second")
    await pair.boxes[0].until(lambda: pair.lives[0].persistence.seq == 2, "it is written")
    await pair.check()


async def test_one_node_makes_a_snapshot_and_the_other_takes_it(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_COMPACTION_LOOK", 0.02)
    pair = await Pair.start(start_node, compaction=CompactionPolicy(rows=20, nbytes=1 << 30, ratio=0.0))
    for number in range(100):
        await pair.type(number % 2, f"{number}")
    for live, box in zip(pair.lives, pair.boxes, strict=True):
        await box.until(lambda live=live: live.persistence.tail_rows <= 21 and not live.compacting, "a short tail")
    (made_1, taken_1), (made_2, taken_2) = pair.counts()
    assert 1 <= made_1 + made_2 <= 6, "100 rows, one for each 20 at most"
    assert taken_1 + taken_2 >= 1
    await pair.check()


async def test_a_node_that_only_reads_takes_what_the_other_makes(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_COMPACTION_LOOK", 0.02)
    pair = await Pair.start(start_node, compaction=CompactionPolicy(rows=20, nbytes=1 << 30, ratio=0.0))
    for number in range(60):
        await pair.type(0, f"{number}")
    await pair.boxes[1].until(lambda: pair.lives[1].persistence.tail_rows <= 21, "its tail is short, too")
    (made_1, taken_1), (made_2, taken_2) = pair.counts()
    assert made_1 + made_2 <= 4 and taken_1 + taken_2 >= 1
    assert pair.lives[1].persistence.snapshot_seq >= 40
    await pair.check()


async def test_a_document_that_another_node_claims_is_looked_at_again(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_COMPACTION_LOOK", 0.02)
    pair = await Pair.start(start_node, compaction=CompactionPolicy(rows=3, nbytes=1 << 30, ratio=0.0))
    await pair.type(0, "first")
    document_id = pair.lives[0].persistence.document_id
    assert document_id is not None
    async with pair.nodes[0].store.claim_snapshot(document_id) as mine:
        assert mine
        for word in ("second", "third", "fourth"):
            await pair.type(1, word)
        looked: set[int] = set()

        def both_have_looked() -> bool:
            looked.update(at for at, live in enumerate(pair.lives) if live.compact_after)
            return len(looked) == 2

        await pair.boxes[0].until(both_have_looked, "both have looked")
        assert (await pair.check()).snapshot is None
    for live, box in zip(pair.lives, pair.boxes, strict=True):
        await box.until(lambda live=live: live.persistence.snapshot_seq == 4, "made by one, taken by the other")
    assert sorted(pair.counts()) == [(0, 1), (1, 0)]


async def test_memory_is_the_source_where_the_log_is_damaged(
    start_node: StartNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = await Pair.start(start_node)
    for word in ("first", "second", "third"):
        await pair.type(0, word)
    with contextlib.closing(sqlite3.connect(tmp_path / "collab.db", timeout=10)) as database, database:
        database.execute("UPDATE log SET data = X'00' || data WHERE seq = 2")
    assert await compactor(pair.nodes[0]).compact(pair.lives[0], shared=True)
    assert "is made of what is in memory" in caplog.text
    stored = await pair.check()
    assert stored.snapshot is not None and stored.snapshot.seq == 3


async def test_memory_is_the_source_where_the_log_has_a_gap(start_node: StartNode, tmp_path: Path) -> None:
    pair = await Pair.start(start_node)
    for word in ("first", "second", "third"):
        await pair.type(0, word)
    with contextlib.closing(sqlite3.connect(tmp_path / "collab.db", timeout=10)) as database, database:
        database.execute("DELETE FROM log WHERE seq = 2")
    assert await compactor(pair.nodes[0]).compact(pair.lives[0], shared=True)
    stored = await pair.check()
    assert stored.snapshot is not None and stored.snapshot.seq == 3


async def test_a_snapshot_whose_index_cannot_be_read_is_not_taken_but_made_anew(
    start_node: StartNode, tmp_path: Path
) -> None:
    pair = await Pair.start(start_node)
    for word in ("first", "second"):
        await pair.type(0, word)
    assert await compactor(pair.nodes[0]).compact(pair.lives[0], shared=True)
    await pair.type(1, "third")
    document_id = pair.lives[1].persistence.document_id
    assert document_id is not None
    snapshot = (await pair.nodes[0].stored("d")).snapshot
    assert snapshot is not None
    other = seal_snapshot(replace(snapshot, index=b"\xff of another release"))
    with contextlib.closing(sqlite3.connect(tmp_path / "collab.db", timeout=10)) as database, database:
        database.execute("UPDATE snapshots SET index_data = ?, checksum = ?", (other.index, other.checksum))
    making = compactor(pair.nodes[1])
    assert await making.compact(pair.lives[1], shared=True)
    assert (making._counts.compactions.count, making._counts.snapshots_of_others) == (1, 0)
    stored = await pair.check()
    assert stored.snapshot is not None and stored.snapshot.seq == 3


async def test_a_document_that_another_node_has_marked_keeps_its_deleted_content(start_node: StartNode) -> None:
    exchange = LocalExchange()
    plain = await start_node(bus=LocalBus(exchange))
    live, a, box = await plain.join("notes/d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("deleted")))
    await plain.write(live)
    await compactor(plain).measure(live, Author(7).type("x"))
    assert live.persistence.gc, "this node has asked already"
    keeping = await start_node(bus=LocalBus(exchange), keep_deleted=("notes/*",))
    other, b, _ = await keeping.join("notes/d")
    other.receive(b, SyncUpdate(Author(2).type("mark")))
    await keeping.write(other)
    del author.text[:7]
    live.receive(a, SyncUpdate(author.updates[-1]))
    await plain.write(live)
    await box.until(lambda: live.persistence.seq == 3, "all is read")
    assert await compactor(plain).compact(live, shared=True)
    stored = await plain.stored("notes/d")
    assert stored.snapshot is not None and b"deleted" in stored.snapshot.data


async def test_what_was_begun_before_the_log_went_back_is_thrown_away(start_node: StartNode) -> None:
    pair = await Pair.start(start_node)
    for word in ("first", "second"):
        await pair.type(0, word)
    live = pair.lives[0]
    slow = Slow(pair.nodes[0].sandbox)
    making = asyncio.ensure_future(
        Compactor(pair.nodes[0].store, slow, OPTIONS.compaction, time.time).compact(live, shared=True)
    )
    await slow.began.wait()
    live.persistence.renumber(await pair.nodes[0].stored("d"))
    slow.go.set()
    assert not await making
    assert (await pair.check()).snapshot is None


async def test_the_last_node_that_leaves_a_document_makes_its_snapshot(start_node: StartNode) -> None:
    pair = await Pair.start(start_node, idle_seconds=0.0)
    for number in range(4):
        await pair.type(number % 2, f"{number}")
    for at in (0, 1):
        node, live = pair.nodes[at], pair.lives[at]
        live.leave(pair._members[at])
        await pair.boxes[at].until(lambda node=node: "d" not in node.hub.rooms, "it has left memory")
        stored = await node.stored("d")
        assert (stored.snapshot is not None) is bool(at)


async def test_a_node_that_stops_leaves_the_snapshot_to_those_that_go_on(start_node: StartNode) -> None:
    pair = await Pair.start(start_node)
    await pair.type(0, "x" * 40_000)
    await pair.nodes[0].hub.drain(5.0)
    assert (await pair.nodes[1].stored("d")).snapshot is None
    await pair.nodes[1].hub.drain(5.0)
    stored = await pair.nodes[1].stored("d")
    assert stored.snapshot is not None and stored.snapshot.seq == 1
