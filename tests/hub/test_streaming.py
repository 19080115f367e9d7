"""Documents as streams: what readers are told by number, whatever happens to the log, and what becomes of posts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from collab.auth.access import Grant, OpenAccess
from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessUnavailable,
    CollabError,
    DocumentDeleted,
    DocumentNotFound,
    Forbidden,
    KeptOut,
    OffsetExpired,
    ServerStopping,
    StoreUnavailable,
    UpdateError,
    UpdateIncomplete,
)
from collab.hub import streaming as streaming_module
from collab.hub import tail as tail_module
from collab.hub.admission import Admission
from collab.hub.compaction import CompactionPolicy
from collab.hub.documents import Documents
from collab.hub.editing import Editing
from collab.hub.member import Checked
from collab.hub.orders import Sender
from collab.hub.readers import Reader
from collab.hub.room import LiveRoom
from collab.hub.streaming import DocumentCursor, Posted, Streaming
from collab.limits.limits import Bounds, Limits
from collab.net import Peer
from collab.protocol.session import Access, State
from collab.protocol.streams import (
    Batch,
    Begin,
    Numbers,
    Offset,
    Producer,
    SnapshotOffset,
    Verdict,
    decode_frames,
    decode_offset,
)
from collab.protocol.sync import SyncUpdate
from tests.hub.conftest import Acknowledged, Node, StartNode
from tests.hub.test_healing import Backup, backup
from tests.support.author import Author
from tests.support.waiting import happens

__all__ = ["backup"]

PEER = Peer("203.0.113.7", "203.0.113.7", True, False, True, "collab.example")
ANN = Sender(PEER, Grant(Access.WRITE, "ann"))

COMPACTING = {"compaction": CompactionPolicy(rows=1, nbytes=1, ratio=0.0)}


def frames(batch: Batch) -> list[bytes]:
    return decode_frames(batch.payload) if batch.payload else []


def position(batch: Batch) -> Offset:
    offset = decode_offset(batch.offset)
    assert isinstance(offset, Offset)
    return offset


class Streams:
    """A node with its documents as streams."""

    def __init__(self, node: Node) -> None:
        self.node = node
        admission = Admission(node.hub, OpenAccess(), Limits(Bounds()))
        self.streaming = Streaming(node.hub, admission, Editing(node.hub, admission, node.sandbox))
        self.documents = Documents(node.store, node.hub)

    async def post(self, *updates: bytes, name: str = "d", sender: Sender = ANN, **said: Any) -> Posted:
        return await self.streaming.post(name, updates, sender, said.get("producer"), said.get("own"))

    async def read(self, start: Offset | Begin = Begin.BEGINNING, name: str = "d") -> Batch:
        return await self.streaming.read(name, start)

    async def text(self, name: str = "d") -> str:
        author, start = Author(0), Begin.BEGINNING
        while True:
            batch = await self.read(start, name)
            for update in frames(batch):
                author.read(update)
            if batch.up_to_date:
                return str(author.text)
            start = position(batch)

    @contextlib.asynccontextmanager
    async def listen(self, start: Offset | Begin = Begin.BEGINNING, name: str = "d") -> AsyncIterator[Listener]:
        async with self.streaming.follow(name, start) as (live, cursor):
            listener = Listener(live, cursor)
            with live.read_by(listener.reader):
                task = asyncio.create_task(listener.run())
                try:
                    yield listener
                finally:
                    task.cancel()
                    await asyncio.wait([task])


class Listener:
    """A live reader, as a transport has it; it takes nothing at once while it is ``slow``."""

    def __init__(self, live: LiveRoom, cursor: DocumentCursor) -> None:
        async def ask() -> Grant:
            return Grant(Access.READ)

        self.live, self.cursor = live, cursor
        self.reader = Reader(7, live.name, "192.0.2.1", Grant(Access.READ, "rea"), ask)
        self.reader.on_end(self.wake)
        self._fast = asyncio.Event()
        self._fast.set()
        self.batches: list[Batch] = []
        self.pushed = 0
        self.failed: CollabError | None = None
        self.author = Author(0)
        self._woken = asyncio.Event()

    def push(self, batch: Batch) -> bool:
        if self.slow:
            self._woken.set()
            return False
        self.pushed += 1
        self._take(batch)
        return True

    def wake(self) -> None:
        self._woken.set()

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        for update in frames(batch):
            self.author.read(update)

    async def run(self) -> None:
        try:
            while self.reader.ended is None:
                batch = await self.cursor.read()
                self._take(batch)
                if batch.up_to_date and self.cursor.attach(self):
                    await self._woken.wait()
                    self._woken.clear()
                    self.cursor.detach()
                await self._fast.wait()
        except CollabError as error:
            self.failed = error

    @property
    def slow(self) -> bool:
        return not self._fast.is_set()

    @slow.setter
    def slow(self, slow: bool) -> None:
        (self._fast.clear if slow else self._fast.set)()

    @property
    def text(self) -> str:
        return str(self.author.text)

    @property
    def updates(self) -> list[bytes]:
        return [update for batch in self.batches for update in frames(batch)]


@pytest.fixture
async def streams(start_node: StartNode) -> Streams:
    made = Streams(await start_node())
    await made.documents.create("d")
    return made


async def rows(streams: Streams) -> list[bytes]:
    head = (await streams.node.store.heads(["d"]))["d"]
    return [row.data for row in await streams.node.store.rows_after(head.document_id, 0, 9_999)]


# Reading


async def test_a_new_document_is_an_empty_stream(streams: Streams) -> None:
    batch = await streams.read()
    assert not batch.payload and batch.up_to_date
    assert position(batch).seq == 1
    again = await streams.read(position(batch))
    assert (again.payload, again.offset, again.up_to_date) == (b"", batch.offset, True)


async def test_what_was_posted_is_read_from_any_position(streams: Streams) -> None:
    author = Author(1)
    offsets = [position(await streams.read())]
    for letter in "abcde":
        posted = await streams.post(author.type(letter))
        offsets.append(decode_offset(posted.offset))  # type: ignore[arg-type]
    assert [offset.seq for offset in offsets] == [1, 2, 3, 4, 5, 6]
    for at, offset in enumerate(offsets):
        batch = await streams.read(offset)
        assert frames(batch) == author.updates[at:] and batch.up_to_date
        assert position(batch) == offsets[-1]
    assert await streams.text() == "abcde"


async def test_now_is_the_end(streams: Streams) -> None:
    author = Author(1)
    await streams.post(author.type("a"))
    now = await streams.read(Begin.NOW)
    assert (now.payload, now.up_to_date, position(now).seq) == (b"", True, 2)
    await streams.post(author.type("b"))
    assert frames(await streams.read(position(now))) == author.updates[1:]


async def test_a_long_log_is_read_in_pages(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "_ROWS", 3)
    author = Author(1)
    for letter in "abcdefgh":
        await streams.post(author.type(letter))
    start, found, sizes = position(await streams.read(Begin.NOW))._replace(seq=1, check=None), [], []
    while True:
        batch = await streams.read(start)
        found += frames(batch)
        sizes.append((len(frames(batch)), batch.up_to_date))
        if batch.up_to_date:
            break
        start = position(batch)
    assert found == author.updates
    assert sizes == [(3, False), (3, False), (2, True)]


async def test_a_document_that_is_not_there_has_no_stream(streams: Streams) -> None:
    for start in (Begin.BEGINNING, Begin.NOW, Offset(1, 1)):
        with pytest.raises(DocumentNotFound):
            await streams.read(start, name="nobody")
    with pytest.raises(DocumentNotFound):
        await streams.post(Author(1).type("a"), name="nobody")
    with pytest.raises(DocumentNotFound):
        async with streams.streaming.follow("nobody", Begin.NOW):
            pass
    await streams.documents.delete("d")
    for call in (streams.read(), streams.post(Author(1).type("a")), streams.streaming.find_snapshot("d")):
        with pytest.raises(DocumentDeleted):
            await call


async def test_an_edit_on_a_socket_that_has_just_created_a_document_is_read(streams: Streams) -> None:
    live, member, _ = await streams.node.join("new")
    live.receive(member, SyncUpdate(Author(1).type("hello")))
    assert await streams.text("new") == "hello"


# Snapshots


async def snapshotted(start_node: StartNode, text: str = "abcdef") -> tuple[Streams, Author, SnapshotOffset]:
    streams = Streams(await start_node(**COMPACTING))
    await streams.documents.create("d")
    author = Author(1)
    for letter in text:
        await streams.post(author.type(letter))
    live = streams.node.hub.rooms["d"]
    await happens(lambda: not live.compacting and live.persistence.snapshot_seq == len(text), "a snapshot")
    snapshot = await streams.streaming.find_snapshot("d")
    assert snapshot is not None and snapshot.seq == len(text)
    return streams, author, snapshot


async def test_the_newest_snapshot_is_read_and_gone_on_from(start_node: StartNode) -> None:
    streams, author, snapshot = await snapshotted(start_node)
    data = await streams.streaming.read_snapshot("d", snapshot)
    assert data is not None
    reader = Author(0)
    reader.read(data)
    following = Offset(snapshot.document_id, snapshot.seq + 1)
    assert (await streams.read(following)).up_to_date
    await streams.post(author.type("g"))
    for update in frames(await streams.read(following)):
        reader.read(update)
    assert str(reader.text) == "abcdefg"


async def test_who_begins_at_the_beginning_gets_the_newest_snapshot(start_node: StartNode) -> None:
    streams, _, _ = await snapshotted(start_node)
    assert len(frames(await streams.read())) == 1
    assert await streams.text() == "abcdef"


async def test_only_the_newest_snapshot_is_there(start_node: StartNode) -> None:
    streams, author, snapshot = await snapshotted(start_node)
    await streams.post(author.type("g"))
    await happens(lambda: streams.node.hub.rooms["d"].persistence.snapshot_seq == 7, "another snapshot")
    for gone in (snapshot, snapshot._replace(seq=99), SnapshotOffset(snapshot.document_id + 1, 7)):
        assert await streams.streaming.read_snapshot("d", gone) is None


async def test_a_document_without_a_snapshot_has_none(streams: Streams) -> None:
    assert await streams.streaming.find_snapshot("d") is None
    assert await streams.streaming.read_snapshot("d", SnapshotOffset(1, 0)) is None


async def test_a_snapshot_that_is_damaged_is_made_anew(start_node: StartNode, backup: Backup) -> None:
    streams, _, snapshot = await snapshotted(start_node)
    backup.run(f"UPDATE snapshots SET data = x'0000' WHERE seq = {snapshot.seq}")
    data = await streams.streaming.read_snapshot("d", snapshot)
    assert data is not None and Author(0).read(data) == "abcdef"


# What cannot be read on


async def test_rows_that_were_pruned_are_not_jumped_over(start_node: StartNode) -> None:
    streams, author, snapshot = await snapshotted(start_node)
    await streams.post(author.type("g"))
    await happens(lambda: streams.node.hub.rooms["d"].persistence.snapshot_seq == 7, "another snapshot")
    while await streams.node.store.prune(before=float("inf"), limit=100):
        pass
    oldest = await streams.node.store.rows_after(snapshot.document_id, 0, 1)
    assert oldest and oldest[0].seq > 1
    with pytest.raises(OffsetExpired):
        await streams.read(Offset(snapshot.document_id, 1))
    async with streams.listen(Offset(snapshot.document_id, 2)) as listener:
        await happens(lambda: listener.failed, "a refusal")
    assert isinstance(listener.failed, OffsetExpired)
    # The row before it is gone, and with it what could be compared.
    assert len(frames(await streams.read(Offset(snapshot.document_id, oldest[0].seq, 1)))) == 1
    assert await streams.text() == "abcdefg"


async def test_an_offset_of_another_document_of_the_name_is_refused(streams: Streams) -> None:
    await streams.post(Author(1).type("old"))
    old = position(await streams.read())
    await streams.documents.delete("d")
    await streams.documents.create("d")
    await streams.post(Author(2).type("new"))
    for start in (old, old._replace(check=None), old._replace(seq=1)):
        with pytest.raises(OffsetExpired):
            await streams.read(start)
        async with streams.listen(start) as listener:
            await happens(lambda listener=listener: listener.failed, "a refusal")
        assert isinstance(listener.failed, OffsetExpired)


async def test_an_offset_above_the_end_is_refused(streams: Streams) -> None:
    await streams.post(Author(1).type("a"))
    end = position(await streams.read())
    with pytest.raises(OffsetExpired):
        await streams.read(end._replace(seq=end.seq + 1, check=None))
    async with streams.listen(end._replace(seq=end.seq + 1, check=None)) as listener:
        await happens(lambda: listener.failed, "a refusal")
    assert isinstance(listener.failed, OffsetExpired)


async def test_after_a_backup_was_put_back_an_offset_that_is_not_of_this_log_is_refused(
    start_node: StartNode, backup: Backup
) -> None:
    streams = Streams(node := await start_node())
    await streams.documents.create("d")
    author = Author(1)
    await streams.post(author.type("kept "))
    kept = position(await streams.read())
    await node.stop()
    backup.keep()
    streams = Streams(node := await start_node())
    await streams.post(author.type("lost"))
    lost = position(await streams.read())
    await node.stop()
    backup.restore()
    streams = Streams(await start_node())
    await streams.post(Author(2).type("other"))
    # The log is as long as it was: only the row before the offset is another one.
    assert position(await streams.read()).seq == lost.seq
    for start in (lost, lost._replace(seq=lost.seq)):
        with pytest.raises(OffsetExpired):
            await streams.read(start)
        async with streams.listen(start) as listener:
            await happens(lambda listener=listener: listener.failed, "a refusal")
        assert isinstance(listener.failed, OffsetExpired)
    assert len(frames(await streams.read(kept))) == 1


# Live readers


async def test_a_live_reader_hears_of_all_that_is_committed_in_order(streams: Streams) -> None:
    author, typist = Author(1), Author(2)
    live, member, _ = await streams.node.join("d", kind=Acknowledged)
    async with streams.listen() as listener:
        for letter in "abc":
            await streams.post(author.type(letter))
            live.receive(member, SyncUpdate(typist.type(letter.upper())))
        await happens(lambda: len(listener.text) == 6, "all six letters")
        assert sorted(listener.text) == sorted("abcABC")
    assert listener.updates == await rows(streams)
    assert [position(batch).seq for batch in listener.batches] == sorted(
        position(batch).seq for batch in listener.batches
    )


async def test_what_is_not_committed_is_told_to_no_reader(streams: Streams) -> None:
    live, member, _ = await streams.node.join("d", kind=Acknowledged)
    _, other, box = await streams.node.join("d", kind=Acknowledged)
    async with streams.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        streams.node.store.full = True
        live.receive(member, SyncUpdate(Author(1).type("a")))
        await box.until(lambda: box.text() == "a", "the edit on another socket")
        assert listener.text == ""
        streams.node.store.full = False
        await happens(lambda: listener.text == "a", "the edit")
    assert other.state is State.LIVE


async def test_readers_that_are_level_are_handed_the_same_batch(streams: Streams) -> None:
    async with streams.listen() as one, streams.listen() as other, streams.listen(Begin.NOW) as third:
        await happens(lambda: one.batches and other.batches and third.batches, "the beginning")
        await asyncio.sleep(0)
        await streams.post(Author(1).type("a"))
        await happens(lambda: one.text == other.text == third.text == "a", "the edit")
        assert one.batches[-1] is other.batches[-1] is third.batches[-1]
        assert one.pushed == other.pushed == third.pushed == 1


@pytest.mark.parametrize("kept", [1, 1_000_000])
async def test_a_slow_reader_reads_on_and_misses_nothing(
    streams: Streams, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(tail_module, "_BYTES", kept)  # in memory, or from the log
    monkeypatch.setattr(streaming_module, "_FIRST_ROWS", 2)
    author = Author(1)
    async with streams.listen() as slow, streams.listen() as fast:
        await happens(lambda: slow.batches and fast.batches, "the beginning")
        await asyncio.sleep(0)
        slow.slow = True
        for letter in "abcdefgh":
            await streams.post(author.type(letter))
        await happens(lambda: fast.text == "abcdefgh", "all at the fast one")
        assert slow.text == ""
        slow.slow = False
        await happens(lambda: slow.text == "abcdefgh", "all at the slow one")
        await streams.post(author.type("i"))
        await happens(lambda: slow.text == fast.text == "abcdefghi", "what came then")
    assert slow.updates == fast.updates == author.updates


async def test_a_reader_that_was_cut_goes_on_where_it_was(streams: Streams) -> None:
    author, found, start = Author(1), [], Begin.BEGINNING
    for letters in ("ab", "c", "def"):
        async with streams.listen(start) as listener:
            for letter in letters:
                await streams.post(author.type(letter))
            await happens(lambda listener=listener, sent=letters: len(listener.updates) == len(sent), "the letters")
        found += listener.updates
        start = position(listener.batches[-1])
        await streams.post(author.type("-"))  # while nobody reads
        async with streams.listen(start) as listener:
            await happens(lambda listener=listener: len(listener.updates) == 1, "what came meanwhile")
        found += listener.updates
        start = position(listener.batches[-1])
    assert found == author.updates


async def test_a_reader_keeps_its_room_in_memory(start_node: StartNode) -> None:
    streams = Streams(await start_node(idle_seconds=0.0))
    await streams.documents.create("d")
    async with streams.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        live = streams.node.hub.rooms["d"]
        assert live.occupied and list(live.readers) == [listener.reader]
    assert not live.readers
    await happens(lambda: "d" not in streams.node.hub.rooms, "the end of the room")


async def test_a_reader_ends_with_its_room(streams: Streams) -> None:
    async with streams.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        await streams.documents.delete("d")
        await happens(lambda: listener.reader.ended, "its end")
    assert isinstance(listener.reader.ended, DocumentDeleted) and listener.reader.state is State.CLOSED
    await streams.documents.create("d")
    async with streams.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        await streams.node.stop()
    assert isinstance(listener.reader.ended, ServerStopping)


async def test_a_reader_that_cannot_be_written_to_costs_the_others_nothing(
    streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def push(self, batch: Batch) -> bool:
            raise RuntimeError("for the test")

        def wake(self) -> None:
            pass

    async with streams.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        tail = streams.node.hub.rooms["d"].tail
        assert tail is not None
        tail.level.attach(Broken())
        await streams.post(Author(1).type("a"))
        await happens(lambda: listener.text == "a", "the edit")
    assert "for the test" in caplog.text


async def test_a_reader_hears_what_another_node_writes(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one, two = [Streams(await start_node(bus=LocalBus(exchange))) for _ in range(2)]
    await one.documents.create("d")
    writers = [(streams, Author(at + 1)) for at, streams in enumerate((one, two))]
    async with one.listen() as here, two.listen() as there:
        await happens(lambda: here.batches and there.batches, "the beginning")
        chosen = random.Random(3)
        for _ in range(30):
            streams, author = chosen.choice(writers)
            await streams.post(author.type("x"))
        await happens(lambda: len(here.text) == len(there.text) == 30, "all letters on both")
    # Each is told all rows, by number, whoever wrote them; none twice.
    assert here.updates == there.updates == await rows(one)


async def test_an_offset_of_another_node_that_is_ahead_is_waited_for(start_node: StartNode) -> None:
    one, two = [Streams(await start_node()) for _ in range(2)]  # without a bus: each looks for itself
    await one.documents.create("d")
    two.node.store.blind = True
    async with two.listen() as listener:
        await happens(lambda: listener.batches, "the beginning")
        posted = await one.post(Author(1).type("a"))
        start = decode_offset(posted.offset)
        assert isinstance(start, Offset)
        two.node.store.blind = False
        async with two.listen(start) as other:
            await happens(lambda: other.batches or other.failed, "an answer")
        assert other.failed is None and not other.updates
        assert position(other.batches[0]).seq == 2


async def test_a_reader_is_told_all_of_a_log_that_has_become_another_one(start_node: StartNode, backup: Backup) -> None:
    streams = Streams(await start_node())
    await streams.documents.create("d")
    author = Author(1)
    await streams.post(author.type("kept "))
    backup.keep()
    async with streams.listen() as listener:
        await streams.post(author.type("and lost "))
        await happens(lambda: listener.text == "kept and lost ", "both")
        backup.restore()
        await happens(lambda: streams.node.hub.generation, "the server has seen it")
        await happens(lambda: not streams.node.hub.healing.running, "the end of that")
        await streams.post(author.type("again"))
        await happens(lambda: listener.text == "kept and lost again", "what came then")
        assert listener.failed is None
    assert await streams.text() == "kept and lost again"
    # And it can go on from there.
    assert (await streams.read(position(listener.batches[-1]))).up_to_date


# Posts


async def test_a_post_is_committed_when_it_was_answered(streams: Streams) -> None:
    author = Author(1)
    await streams.post(author.type("a"), author.type("b"))
    head = (await streams.node.store.heads(["d"]))["d"]
    assert head.seq >= 1 and await streams.text() == "ab"
    assert [row.author for row in await streams.node.store.rows_after(head.document_id, 0, 9)] == ["ann"] * head.seq


async def test_what_refers_to_what_the_document_lacks_is_kept_beside_it(start_node: StartNode) -> None:
    streams = Streams(node := await start_node())
    await streams.documents.create("d")
    author = Author(1)
    lost, later = author.type("a"), author.type("b")
    await streams.post(later)
    assert await streams.text() == "" and len((await node.stored("d")).pending) == 1
    await node.stop()
    streams = Streams(node := await start_node())
    async with streams.listen() as listener:
        await streams.post(lost)
        await happens(lambda: listener.text == "ab", "both")
    await happens(lambda: not node.hub.rooms["d"].persistence.uncommitted, "the end of the turn")
    assert not (await node.stored("d")).pending and await streams.text() == "ab"


async def test_where_there_is_no_room_to_keep_a_post_is_refused(start_node: StartNode) -> None:
    streams = Streams(await start_node(max_pending_bytes=10))
    await streams.documents.create("d")
    author = Author(1)
    author.type("lost")
    with pytest.raises(UpdateIncomplete):
        await streams.post(Author(2).type("whole"), author.type("waits"))
    assert await streams.text() == "whole"


async def test_of_a_post_with_a_bad_update_the_others_are_taken(streams: Streams) -> None:
    author = Author(1)
    first, bad, last = author.type("a"), b"\x01\x02\x03", author.type("b")
    with pytest.raises(UpdateError):
        await streams.post(first, bad, last, producer=Producer("p", 0, 0))
    assert await streams.text() == "ab"
    posted = await streams.post(author.type("c"), producer=Producer("p", 0, 0))
    assert posted.verdict is Verdict.NEW, "what was refused is not counted"


async def test_a_producer_that_repeats_itself_is_told_so_and_its_update_is_there_once(
    start_node: StartNode,
) -> None:
    streams = Streams(node := await start_node())
    await streams.documents.create("d")
    author = Author(1)
    updates = [author.type(letter) for letter in "abc"]
    for seq, update in enumerate(updates):
        posted = await streams.post(update, producer=Producer("p", 0, seq))
        assert (posted.verdict, posted.numbers) == (Verdict.NEW, Numbers(0, seq))
    await node.stop()  # the numbers are in the store
    streams = Streams(await start_node())
    posted = await streams.post(updates[1], producer=Producer("p", 0, 1))
    assert (posted.verdict, posted.numbers) == (Verdict.REPEATED, Numbers(0, 2))
    assert await streams.text() == "abc" and len(await rows(streams)) == 3


async def test_a_producer_that_counts_anew_loses_nothing(streams: Streams) -> None:
    # As the stock client does when it reconnects: the same name and epoch, from 0.
    author = Author(1)
    for seq in range(5):
        await streams.post(author.type("a"), producer=Producer("d-1", 0, seq))
    posted = await streams.post(author.type("b"), producer=Producer("d-1", 0, 0))
    assert posted.verdict is Verdict.REPEATED
    assert await streams.text() == "aaaaab"
    # What left numbers out, or came out of order, is taken too.
    for seq in (9, 7):
        await streams.post(author.type("c"), producer=Producer("d-1", 0, seq))
    assert await streams.text() == "aaaaabcc"


async def test_an_older_life_of_a_producer_is_fenced_off(streams: Streams) -> None:
    author = Author(1)
    await streams.post(author.type("a"), producer=Producer("p", 3, 0))
    posted = await streams.post(author.type("b"), producer=Producer("p", 2, 9))
    assert (posted.verdict, posted.numbers) == (Verdict.STALE, Numbers(3, 0))
    assert await streams.text() == "a"
    # Those of another user are its own.
    other = Sender(PEER, Grant(Access.WRITE, "bob"))
    posted = await streams.post(author.updates[-1], producer=Producer("p", 0, 0), sender=other)
    assert posted.verdict is Verdict.NEW and await streams.text() == "ab"


async def test_numbers_that_another_node_has_seen_count(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one, two = [Streams(await start_node(bus=LocalBus(exchange))) for _ in range(2)]
    await one.documents.create("d")
    author = Author(1)
    first = author.type("a")
    await one.post(first, producer=Producer("p", 0, 0))
    assert (await two.post(first, producer=Producer("p", 0, 0))).verdict is Verdict.REPEATED
    await two.post(author.type("b"), producer=Producer("p", 1, 0))
    assert (await one.post(author.type("c"), producer=Producer("p", 0, 1))).verdict is Verdict.STALE


async def test_who_may_only_read_posts_nothing(streams: Streams) -> None:
    with pytest.raises(Forbidden):
        await streams.post(Author(1).type("a"), sender=Sender(PEER, Grant(Access.READ, "rea")))
    with pytest.raises(AccessExpired):
        await streams.post(Author(1).type("a"), sender=Sender(PEER, Grant(Access.WRITE, "ann", expires_at=1.0)))
    assert not await rows(streams)


async def test_a_post_waits_while_too_much_waits_for_the_store(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams(node := await start_node(backlog_bytes=1))
    await streams.documents.create("d")
    live, member, _ = await node.join("d", kind=Acknowledged)
    node.store.full = True
    live.receive(member, SyncUpdate(Author(1).type("a")))
    await happens(lambda: node.journal.full, "a full backlog")
    waiting = asyncio.create_task(streams.post(Author(2).type("b")))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    node.store.full = False
    await waiting
    assert sorted(await streams.text()) == ["a", "b"]
    node.store.full = True
    live.receive(member, SyncUpdate(Author(3).type("c")))
    await happens(lambda: node.journal.full, "a full backlog")
    monkeypatch.setattr(streaming_module, "_BACKLOG_SECONDS", 0.05)
    with pytest.raises(StoreUnavailable):
        await streams.post(Author(4).type("d"))
    node.store.full = False


async def test_the_client_id_of_the_one_who_posts_is_its_user(streams: Streams) -> None:
    ann, bob = Author(11), Author(22)
    await streams.post(ann.type("a"), own=11)
    # What somebody else has written stays without an owner, and an owner stays.
    await streams.post(bob.type("b"), own=11)
    await streams.post(ann.type("c"), own=11, sender=Sender(PEER, Grant(Access.WRITE, "eve")))
    await streams.post(Author(33).type("d"), own=33, sender=Sender(PEER, Grant(Access.WRITE)))
    head = (await streams.node.store.heads(["d"]))["d"]
    owners = await streams.node.store.client_owners(head.document_id, -1, 9)
    assert [(owner.client, owner.author, owner.seq) for owner in owners] == [(11, "ann", 1)]


async def test_a_client_id_that_another_user_shows_is_not_taken_over(streams: Streams) -> None:
    live, member, _ = await streams.node.join("d", kind=Acknowledged)
    member.identify("bob")
    live.room.awareness._owners[11] = member
    await streams.post(Author(11).type("a"), own=11)
    head = (await streams.node.store.heads(["d"]))["d"]
    assert await streams.node.store.client_owners(head.document_id, -1, 9) == []
    del live.room.awareness._owners[11]


# Readers as connections


async def test_a_reader_is_asked_about_again() -> None:
    answers: list[Grant | CollabError] = []

    async def ask() -> Grant:
        answer = answers.pop(0)
        if isinstance(answer, CollabError):
            raise answer
        return answer

    def made() -> Reader:
        return Reader(1, "d", "192.0.2.1", Grant(Access.READ, "rea"), ask)

    reader = made()
    told: list[Grant] = []
    reader.on_grant(told.append)
    answers += [Grant(Access.READ, "rea"), Grant(Access.WRITE, "rea"), AccessUnavailable("")]
    assert [await reader.check_access() for _ in range(3)] == [Checked.SAME, Checked.CHANGED, Checked.UNDECIDED]
    assert reader.access is Access.WRITE and len(told) == 2 and reader.ended is None
    for error in (AccessDenied(""), AccessExpired(""), KeptOut("")):
        reader, ended = made(), []
        reader.on_end(lambda ended=ended: ended.append(1))
        answers.append(error)
        assert await reader.check_access() is Checked.ENDED
        assert reader.ended is error and reader.state is State.CLOSED and ended == [1]
        reader.end(ServerStopping())
        assert reader.ended is error and ended == [1] and reader.facts().members == []
    answers.append(Grant(Access.READ))
    assert await reader.check_access() is Checked.ENDED
