"""Documents as streams: reading their logs by number, following them live, and taking what is posted.

Strategy: a reader is told the rows of the log as they are, by their numbers, and nothing that is not committed. Who
begins at the beginning gets the newest snapshot as the first update, for it says the same as the rows before it. What
cannot be read on without a gap is refused (``OffsetExpired``): rows that are gone, the log of another document that had
the name, and an offset that does not fit the row before it, because the database went back.

What is posted takes the way of an edit over HTTP (``hub.editing``), but for what is not whole: that is kept beside the
document, since the stock client cannot send what is missing. Each update is taken, whatever the numbers of its producer
say. It is in the document once however often it comes, and the stock client begins to count anew when it reconnects.
So no update is ever dropped that is not there; the numbers only say what the answer is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from collab.errors import (
    CollabError,
    DocumentDeleted,
    DocumentNotFound,
    OffsetExpired,
    StoreUnavailable,
    is_refusal,
)
from collab.hub.admission import Admission
from collab.hub.editing import Editing, until_stored
from collab.hub.hub import Hub
from collab.hub.loading import check_rows, damaged, load_document
from collab.hub.orders import Sender
from collab.hub.readers import Sink
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.tail import Tail
from collab.protocol.streams import (
    Batch,
    Begin,
    Numbers,
    Offset,
    Producer,
    SnapshotOffset,
    Verdict,
    encode_frame,
    encode_frames,
    encode_offset,
    judge,
)
from collab.storage.checksums import beside_the_loop
from collab.storage.producers import NewProducer
from collab.storage.records import Head, LogRow

# Rows that are read at once, and bytes of them past which fewer are read the next time.
_ROWS: Final = 500
_FIRST_ROWS: Final = 64
_PAGE_BYTES: Final = 512 * 1024

# Bytes of a batch that readers are handed in the step in which it comes; more they read by themselves, in portions.
_HANDED: Final = 256 * 1024

# Seconds of work after which the loop gets its turn.
_SLICE: Final = 0.002

# Seconds for which a post waits while too much waits for the store: the stock client sends none twice.
_BACKLOG_SECONDS: Final = 20.0
_BACKLOG_LOOK: Final = 0.05


class Posted(NamedTuple):
    """What became of a post.

    Attributes:
        offset: the text of the position behind it.
        verdict: what its producer's numbers say; with STALE nothing was taken. None without a producer.
        numbers: the highest ones of the producer that are known now.
    """

    offset: str
    verdict: Verdict | None = None
    numbers: Numbers | None = None


class Streaming:
    """Documents as streams, by their names.

    Args:
        hub: the rooms.
        admission: the way into documents.
        editing: takes edits.
    """

    def __init__(self, hub: Hub, admission: Admission, editing: Editing) -> None:
        self._hub = hub
        self._store = hub.store
        self._admission = admission
        self._editing = editing
        self._beginnings: WeakValueDictionary[SnapshotOffset, Batch] = WeakValueDictionary()

    # Reading what is there

    async def find(self, name: str) -> Head:
        """Tell where the log of a document stands.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            DocumentBusy: it is closed for a while.
            StoreUnavailable: the store cannot be read now.
        """
        self._hub.check_closed(name)
        # A document that was begun a moment ago is stored in a moment.
        await self._hub.until_stored(name)
        head = (await self._store.heads([name])).get(name)
        if head is None:
            raise DocumentNotFound(f"there is no document {name!r}")
        if head.deleted:
            raise DocumentDeleted(f"document {name!r} is deleted")
        return head

    async def find_snapshot(self, name: str) -> SnapshotOffset | None:
        """Tell which snapshot of a document is the newest one; None if there is none.

        Raises: as ``find``.
        """
        self._hub.check_closed(name)
        await self._hub.until_stored(name)
        summary = await self._store.describe(name)
        return SnapshotOffset(summary.document.id, summary.snapshot_seq) if summary.snapshot_seq else None

    async def read_snapshot(self, name: str, wanted: SnapshotOffset) -> bytes | None:
        """Read a snapshot as a v1 update; None if it is not the newest one (any more).

        One that is damaged is made anew, of the one before it and the rows after that.

        Raises: as ``find``, and ``DamagedDocument``.
        """
        if await self.find_snapshot(name) != wanted:
            return None
        return await self._load_snapshot(name, wanted)

    async def _load_snapshot(self, name: str, wanted: SnapshotOffset) -> bytes | None:
        found = await self._store.load_at(*wanted)
        if found is None:
            return None
        snapshot, rows = found
        if snapshot is not None and snapshot.seq == wanted.seq:
            return snapshot.data
        # Of all that is there: more than up to the row of the snapshot says the same to a CRDT.
        loaded, document = await load_document(self._store, name)
        if loaded.document.id != wanted.document_id:
            return None
        return await beside_the_loop(document.size, document.encode_state_as_update)

    async def read(self, name: str, start: Offset | Begin) -> Batch:
        """Read what follows on a position, as much as one answer holds.

        Raises: as ``find``, and
            OffsetExpired: there would be a gap.
            DamagedDocument: it cannot be read.
        """
        head = await self.find(name)
        if start is Begin.BEGINNING:
            begun = await self.read_beginning(name)
            if begun is not None:
                return begun[0]
            start = Offset(head.document_id, 1)
        if isinstance(start, Begin):
            return Batch(b"", encode_offset(Offset(head.document_id, head.seq + 1)), up_to_date=True)
        check_position(start, head.document_id, head.seq)
        rows = await self.read_rows(name, head.document_id, start.seq - 1, start.check, _ROWS)
        if not rows:
            return Batch(b"", encode_offset(start), up_to_date=start.seq > head.seq)
        return make_batch(head.document_id, rows, head.seq)

    async def read_beginning(self, name: str) -> tuple[Batch, SnapshotOffset] | None:
        """Read what stands for the first rows, the newest snapshot as one update; None if there is none.

        All that read it at the same time have the same bytes.

        Raises: as ``find``, and ``DamagedDocument``.
        """
        tried: SnapshotOffset | None = None
        while True:
            snapshot = await self.find_snapshot(name)
            if snapshot is None:
                return None
            if snapshot == tried:
                raise damaged(name, snapshots=(snapshot.seq,))
            tried = snapshot
            batch = self._beginnings.get(snapshot)
            if batch is None:
                data = await self._load_snapshot(name, snapshot)
                if data is None:
                    continue  # a newer one has taken its place
                offset = encode_offset(Offset(snapshot.document_id, snapshot.seq + 1))
                batch = self._beginnings.get(snapshot) or Batch(encode_frame(data), offset, up_to_date=False)
                self._beginnings[snapshot] = batch
            return batch, snapshot

    async def read_rows(self, name: str, document_id: int, after: int, check: int | None, limit: int) -> list[LogRow]:
        """Read rows that follow on row ``after`` without a gap; none at the end.

        ``check`` is the checksum of that row, as its reader knows it; None if that is not known.

        Raises:
            OffsetExpired: the row is another one, or rows behind it are gone.
            DamagedDocument, StoreUnavailable.
        """
        before = after if check is None or not after else after - 1
        rows = await self._store.rows_after(document_id, before, limit + after - before)
        if before < after and rows and rows[0].seq == after:
            row = rows.pop(0)
            if row.checksum is not None and row.checksum != check:
                raise OffsetExpired(f"row {after} of {name!r} is another one than its reader had")
        if rows and rows[0].seq != after + 1:
            raise OffsetExpired(f"rows {after + 1} to {rows[0].seq - 1} of {name!r} are gone")
        for at, row in enumerate(rows):
            if row.seq != after + 1 + at:
                rows = rows[:at]
                break
        await in_slices(check_rows(name, rows))
        return rows

    # Following

    @contextlib.asynccontextmanager
    async def follow(self, name: str, start: Offset | Begin) -> AsyncIterator[tuple[LiveRoom, DocumentCursor]]:
        """Open a document for a live reader, who stands at ``start``; it stays in memory within the block.

        Raises:
            DocumentNotFound, and what ``Admission.open`` raises.
        """
        async with self._visited(name) as (live, tail):
            yield live, DocumentCursor(self, self._hub, live, tail, start)

    @contextlib.asynccontextmanager
    async def _visited(self, name: str) -> AsyncIterator[tuple[LiveRoom, Tail]]:
        live = await self._admission.open(name)
        with live.visited():
            if live.ended is not None:
                raise _ended(live)
            if live.persistence.document_id is None and live.exists:
                await self._hub.until_stored(name)
            tail = live.open_tail()
            if tail is None:
                raise DocumentNotFound(f"there is no document {name!r}")
            yield live, tail

    # Posting

    async def post(
        self, name: str, updates: Sequence[bytes], sender: Sender, producer: Producer | None, own: int | None
    ) -> Posted:
        """Take v1 updates, each for itself, and return after their commit.

        Args:
            name: of the document, which is there.
            updates: what refers to something that the document lacks is kept beside it.
            sender: who may write the document.
            producer: the numbers of the request.
            own: the client ID of its sender, where that is known.

        Raises:
            UpdateError, UpdateIncomplete, DocumentTooLarge, and all else that refuses an edit: an update was not taken;
                the others were, and are committed.
            OutcomeUnknown: they were taken, and nobody knows whether they are or will be stored.
            DocumentNotFound, and what ``Admission.open`` raises: nothing was taken.
        """
        async with self._visited(name) as (live, tail):
            key = b"" if producer is None else _producer_key(producer, sender)
            known = None if producer is None else await self._known(tail, key)
            verdict = None if producer is None else judge(producer, known)
            if verdict is Verdict.STALE:
                return Posted(encode_offset(tail.offset), verdict, known)
            await self._until_room()
            refused: CollabError | None = None
            began = perf_counter()
            for update in updates:
                if perf_counter() - began > _SLICE:
                    await asyncio.sleep(0)
                    began = perf_counter()
                try:
                    await self._editing.take_posted(live, update, sender, own)
                except CollabError as error:
                    if not is_refusal(error):
                        raise
                    refused = refused or error
            if producer is not None and verdict is Verdict.NEW and refused is None:
                live.note_producer(NewProducer(key, producer.epoch, producer.seq, self._hub.clock(), known is None))
            await until_stored(name, live.when_stored())
            if refused is not None:
                raise refused
            if producer is not None and verdict is Verdict.NEW:
                known = Numbers(producer.epoch, producer.seq)
                tail.note_producer(key, known)
            return Posted(encode_offset(tail.offset), verdict, known)

    async def _known(self, tail: Tail, key: bytes) -> Numbers | None:
        """Give the highest numbers of a producer; on several nodes another one may have seen higher ones."""
        known = tail.producers.get(key)
        if (known is not None and not self._hub.bus.others) or tail.document_id is None:
            return known
        stored = await self._store.producer(tail.document_id, key)
        if stored is not None:
            tail.note_producer(key, Numbers(*stored))
        return tail.producers.get(key)

    async def _until_room(self) -> None:
        """Wait while too much waits for the store: whoever posts sends none of it again."""
        journal = self._hub.journal
        if not journal.full:
            return
        try:
            async with asyncio.timeout(_BACKLOG_SECONDS):
                while journal.full:  # noqa: ASYNC110 - it says when it fails and when it goes on, and not how full it is
                    await asyncio.sleep(_BACKLOG_LOOK)
        except TimeoutError:
            raise StoreUnavailable("the backlog of edits that wait for the store is full") from None


class DocumentCursor:
    """Where a live reader stands in the log of a document; a ``hub.readers.Cursor``."""

    def __init__(self, streaming: Streaming, hub: Hub, live: LiveRoom, tail: Tail, start: Offset | Begin) -> None:
        self._streaming = streaming
        self._hub = hub
        self._live = live
        self._tail = tail
        self._start: Offset | Begin | None = start
        self._epoch = tail.epoch
        self._seq = 0
        self._limit = _FIRST_ROWS
        self._sink: Sink | None = None

    async def read(self) -> Batch:
        """See ``Cursor``."""
        tail = self._tail
        if tail.document_id is None or tail is not self._live.tail:
            raise StoreUnavailable(f"the log of {self._live.name!r} has gone")
        if self._epoch != tail.epoch:
            self._start = Begin.BEGINNING  # the log is another one: all of it says what its reader lacks
        start, self._start = self._start, None
        if start is Begin.BEGINNING:
            begun = await self._begin_anew()
            if begun is not None:
                return begun
        check = None
        if start is Begin.NOW:
            self._seq = tail.seq
        elif isinstance(start, Offset):
            check = await self._begin(start)
        if self._seq > tail.seq:
            await self._hub.until_read(self._live, self._seq)
        batch = None if check is not None else tail.since(self._seq)
        if batch is not None:
            self._seq = tail.seq
            return batch
        head = tail.seq
        rows = await self._streaming.read_rows(self._live.name, tail.document_id, self._seq, check, self._limit)
        if not rows and self._seq < head:
            raise StoreUnavailable(f"rows of {self._live.name!r} are gone from the log")
        if not rows:
            offset = Offset(tail.document_id, self._seq + 1, check)
            return Batch(b"", encode_offset(offset), up_to_date=self._seq >= tail.seq)
        nbytes = sum([len(row.data) for row in rows])
        self._limit = min(_ROWS, 2 * self._limit) if nbytes < _PAGE_BYTES else max(1, self._limit // 2)
        self._seq = rows[-1].seq
        return make_batch(tail.document_id, rows, tail.seq)

    async def _begin(self, start: Offset) -> int | None:
        """Stand where the reader says; give what has to be compared with the row before, None if nothing has to."""
        tail, seq = self._tail, start.seq - 1
        assert tail.document_id is not None
        if start.document_id == tail.document_id and seq > tail.seq:
            # It may have come from another node, of which this one hears in a moment.
            head = await self._streaming.find(self._live.name)
            check_position(start, head.document_id, head.seq)
            await self._hub.until_read(self._live, seq)
        check_position(start, tail.document_id, tail.seq)
        self._seq = seq
        if seq == tail.seq and start.check is not None and start.check == tail.check:
            return None
        return start.check

    async def _begin_anew(self) -> Batch | None:
        """Stand at the beginning, behind what stands for the first rows, which is given; None without that."""
        self._epoch, self._seq = self._tail.epoch, 0
        begun = await self._streaming.read_beginning(self._live.name)
        if begun is None:
            return None
        batch, snapshot = begun
        if snapshot.document_id != self._tail.document_id:
            raise OffsetExpired("the document was created anew")
        self._seq = snapshot.seq
        return batch

    def attach(self, sink: Sink) -> bool:
        """See ``Cursor``."""
        tail = self._tail
        if self._epoch != tail.epoch or self._seq != tail.seq:
            return False
        self._sink = sink
        tail.level.attach(self)
        return True

    def detach(self) -> None:
        """See ``Cursor``."""
        self._tail.level.detach(self)
        self._sink = None

    # What the tail says

    def push(self, batch: Batch) -> bool:
        """Hand a batch to the reader, who is level with it then."""
        if self._sink is None:
            return False
        if len(batch.payload) > _HANDED:
            self._sink.wake()
            return False
        if not self._sink.push(batch):
            return False
        self._seq = self._tail.seq
        return True

    def wake(self) -> None:
        """Tell the reader to read on."""
        if self._sink is not None:
            self._sink.wake()


def _producer_key(producer: Producer, sender: Sender) -> bytes:
    """Make the key of a producer, which is its user's: nobody counts for somebody else."""
    user = "" if sender.author is None else f"{len(sender.author)}:{sender.author}"
    return blake2b(f"{user}/{producer.id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def check_position(offset: Offset, document_id: int, seq: int) -> None:
    """Refuse an offset of another document, or above the end; raises ``OffsetExpired``."""
    if offset.document_id != document_id:
        raise OffsetExpired("the offset is of another document that had the name")
    if offset.seq > seq + 1:
        raise OffsetExpired(f"an offset of row {offset.seq}, and the log ends with {seq}")


def make_batch(document_id: int, rows: Sequence[LogRow], head: int) -> Batch:
    """Make what a reader is told of rows, who is up to date with row ``head``."""
    last = rows[-1]
    offset = Offset(document_id, last.seq + 1, last.checksum)
    return Batch(encode_frames([row.data for row in rows]), encode_offset(offset), up_to_date=last.seq >= head)


def _ended(live: LiveRoom) -> CollabError:
    """Say why a room that has ended cannot be read."""
    error = live.ended
    return error if error is not None and is_refusal(error) else StoreUnavailable("the room has ended")
