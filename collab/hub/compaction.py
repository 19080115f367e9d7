"""When a snapshot is made of a live document, and how.

Strategy: a snapshot costs time in proportion to the document, so it waits for a tail in proportion to
the last snapshot: then its cost for each edit stays constant however large the document grows. The
work is done on bytes in a sandbox process; the room goes on meanwhile, and takes the compacted form
in place of its own when it comes back, because joined runs of typing are a tenth of the size.

The snapshot holds exactly the rows up to its number. Where this node alone has the document open, it is encoded from
memory between two turns, and its number is the one that the journal gives to the last of them. Where others have it
open, their rows come in between. So the snapshot is made of what the log holds up to a number that is in memory here:
the newest snapshot and the rows after that. A claim in the store sees to it that one node does the work. The others
take what it has made, put it under the document in their memory and go on counting from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from collab.errors import DamagedDocument, DecodeError, DocumentBusy, DocumentError, SandboxError, StoreError
from collab.hub.counts import HubCounts
from collab.hub.loading import read_document
from collab.hub.persistence import Persistence
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.sandbox.port import Sandbox
from collab.storage.checksums import beside_the_loop, seal_snapshot
from collab.storage.records import LoadedDocument, Snapshot
from collab.storage.spacing import most_rows
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name
from collab.telemetry.tracing import span

_log = get_logger("compaction")

# 1,000 pieces are put together in 3 ms; a document of 50,000 clients is compacted every 2,500.
_TAIL_CLIENTS = 1_000
_TAIL_CLIENTS_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """How long a tail may grow.

    Attributes:
        rows: rows behind the snapshot before one is considered.
        nbytes: or bytes behind it.
        ratio: the tail must also be this part of the snapshot's bytes.
    """

    rows: int
    nbytes: int
    ratio: float


class Compactor:
    """Makes snapshots of live rooms, and counts them."""

    def __init__(
        self,
        store: Store,
        sandbox: Sandbox,
        policy: CompactionPolicy,
        clock: Callable[[], float],
        healing: Callable[[], bool] = lambda: False,
        counts: HubCounts | None = None,
    ) -> None:
        self._counts = HubCounts() if counts is None else counts
        self._healing = healing
        self._store = store
        self._sandbox = sandbox
        self._policy = policy
        self._clock = clock

    def due(self, live: LiveRoom) -> bool:
        """Tell whether the tail is long enough, also in proportion to the snapshot.

        Or whether many clients have a part in it: a joiner's SyncStep2 is put together from a piece for each
        of them, in one go. Every page load is a new client ID, so this is about what joins cost anyhow.
        """
        document, log = live.room.document, live.persistence
        if document.waiting:
            return False  # a snapshot would not hold these rows, and nobody would read them any more
        if 2 * document.garbage > document.size:
            return True
        if document.tail_clients >= max(_TAIL_CLIENTS, _TAIL_CLIENTS_SHARE * document.clients):
            return True
        if log.tail_rows >= most_rows(log.snapshot_bytes):
            return True  # else states of the history would take long to rebuild
        if log.tail_rows < self._policy.rows and log.tail_bytes < self._policy.nbytes:
            return False
        return log.tail_bytes >= self._policy.ratio * log.snapshot_bytes

    def worth_it_when_idle(self, live: LiveRoom) -> bool:
        """Tell whether a document that leaves memory should get a snapshot first.

        A tenth of what a busy document waits for: opening is then always quick, and a visit that
        changes one letter of a large document does not rewrite it.
        """
        log = live.persistence
        return (log.tail_rows > 0 and not live.room.document.waiting) and (
            log.snapshot_bytes == 0 or log.tail_bytes >= 0.1 * self._policy.ratio * log.snapshot_bytes
        )

    def worth_it_when_leaving(self, live: LiveRoom) -> bool:
        """Tell whether a document that is live when the server stops should get a snapshot.

        Whoever opens it next waits for its tail to be read: below these bounds that is a few milliseconds,
        and the stop of a server with many small documents is not held up.
        """
        log = live.persistence
        return (log.tail_rows >= 500 or log.tail_bytes >= 32 * 1024) and self.worth_it_when_idle(live)

    async def measure(self, live: LiveRoom, update: bytes) -> int:
        """Tell how many bytes a document would have with an update, compacted.

        Raises:
            UpdateError: the update is malformed.
            DocumentBusy: the sandbox cannot tell now.
        """
        document, log = live.room.document, live.persistence
        tried = document.copy()
        await in_slices(tried.apply_update_in_slices(update))
        try:
            if log.gc is None and log.document_id is not None:
                log.note_gc((await self._store.describe(live.name)).document.gc)
            compacted = await self._sandbox.compact(tried.encode_state_as_update(), log.gc is not False)
        except (SandboxError, StoreError, DocumentError) as error:
            public = "how large the document is cannot be told now, come back later"
            raise DocumentBusy(f"not compacted: {error}", public=public) from None
        return len(compacted.data)

    async def compact(self, live: LiveRoom, *, shared: bool = False) -> bool:
        """Make a snapshot of a room whose turn has just ended, or take the one that another node has made.

        ``shared``: another node may have the document open. Returns False if there is none now and this is to be tried
        again a little later, because another node is making one or has come in between, or nothing new is committed.

        Raises:
            StoreUnavailable, DocumentDeleted, SandboxError: there is none this time; nothing has changed.
        """
        with span("make snapshot", {"collab.document": live.name}, alone=True):
            return await self._compact(live, shared=shared)

    async def _compact(self, live: LiveRoom, *, shared: bool) -> bool:
        log, epoch = live.persistence, live.persistence.epoch
        if live.room.document.waiting:
            return True
        if not shared and await self._compact_memory(live):
            return True
        # What is not committed yet is in no log.
        if self._is_stale(live, epoch) or log.document_id is None or log.seq <= log.snapshot_seq:
            return False
        async with self._store.claim_snapshot(log.document_id) as mine:
            return mine and await self._compact_log(live)

    async def _compact_memory(self, live: LiveRoom) -> bool:
        """Make a snapshot of what memory holds; return False if rows of another node came in between.

        Or if there are edits that are not on their way into the log yet: what was awaited before is not known here.
        """
        document, log, epoch = live.room.document, live.persistence, live.persistence.epoch
        if document.in_turn:
            return False
        data, state_vector, at = document.encode_state_as_update(), document.encode_state_vector(), self._clock()
        document.note_end()
        seq = await log.durable()
        if seq is None or log.document_id is None:
            return False
        tail = _Tail.of(log)
        if log.gc is None:
            log.note_gc((await self._store.describe(live.name)).document.gc)
        return await self._make(live, epoch, _Whole(seq, data, state_vector, at), tail)

    async def _compact_log(self, live: LiveRoom) -> bool:
        """Make a snapshot of what the log holds up to what is in memory, from the newest one there.

        If that is enough because another node has made it meanwhile, it is taken as it is.
        """
        log, epoch, document_id, at = (
            live.persistence,
            live.persistence.epoch,
            live.persistence.document_id,
            self._clock(),
        )
        assert document_id is not None
        tail = _Tail.of(log)
        # Another node may have marked the document since it was opened here.
        stored = (await self._store.describe(live.name)).document
        found = await self._store.load_at(document_id, tail.seq)
        if self._is_stale(live, epoch) or stored.id != document_id:
            return False
        log.note_gc(stored.gc)
        if found is None:
            return await self._compact_memory(live)  # the log has a gap
        snapshot, rows = found
        left = _Tail(tail.seq, len(rows), sum([len(row.data) for row in rows]))
        if snapshot is not None and snapshot.seq > log.snapshot_seq and self._take(live, snapshot, tail, left):
            if not self.due(live):
                return True
            tail = left
        try:
            loaded = LoadedDocument(replace(stored, head_seq=tail.seq), snapshot, rows)
            document = await in_slices(read_document(live.name, loaded))
        except DamagedDocument as error:
            _log.warning("the snapshot of %s is made of what is in memory: %s", shown_name(live.name), error)
            return await self._compact_memory(live)
        if document.waiting:
            return await self._compact_memory(live)  # rows were removed by hand
        whole = _Whole(tail.seq, document.encode_state_as_update(), document.encode_state_vector(), at)
        return await self._make(live, epoch, whole, tail)

    def _take(self, live: LiveRoom, snapshot: Snapshot, tail: _Tail, left: _Tail) -> bool:
        """Take what another node has made; return False if it cannot be put under the document."""
        try:
            _put_under(live, snapshot, tail, left)
        except (ValueError, DecodeError):
            return False  # its index is of another release
        self._counts.snapshots_of_others += 1
        return True

    async def _make(self, live: LiveRoom, epoch: int, whole: _Whole, tail: _Tail) -> bool:
        """Compact what is encoded, store it and put it under the document; return False if it is not to be."""
        log = live.persistence
        started = time.perf_counter()
        compacted = await self._sandbox.compact(whole.data, log.gc is not False)
        unsealed = Snapshot(whole.seq, compacted.data, compacted.index, whole.state_vector, whole.at)
        snapshot = await beside_the_loop(len(compacted.data), lambda: seal_snapshot(unsealed))
        # The numbers of a log that went back say nothing of the one that is there, and under the id may be another
        # document. A call that began before is refused by the store.
        if self._is_stale(live, epoch) or log.document_id is None:
            return False
        if not await self._store.write_snapshot(log.document_id, snapshot) or log.epoch != epoch:
            return False
        _put_under(live, snapshot, tail, _Tail(whole.seq))
        log.gapped = False
        seconds = time.perf_counter() - started
        self._counts.compactions.observe(seconds)
        _log.debug(
            "snapshot of %s at %d: %d bytes from %d, %.0f ms",
            shown_name(live.name),
            whole.seq,
            len(compacted.data),
            len(whole.data),
            seconds * 1000,
        )
        return True

    def _is_stale(self, live: LiveRoom, epoch: int) -> bool:
        return live.persistence.epoch != epoch or self._healing()


class _Whole(NamedTuple):
    """A document after row ``seq``, encoded at the time ``at``, with its state vector."""

    seq: int
    data: bytes
    state_vector: bytes
    at: float


class _Tail(NamedTuple):
    """How long the tail of a room was at one moment, up to row ``seq``."""

    seq: int
    rows: int = 0
    nbytes: int = 0

    @classmethod
    def of(cls, log: Persistence) -> _Tail:
        """Look at the tail now."""
        return cls(log.seq, log.tail_rows, log.tail_bytes)


def _put_under(live: LiveRoom, snapshot: Snapshot, tail: _Tail, left: _Tail) -> None:
    """Put a snapshot under a document; of its ``tail``, as it was, ``left`` lies behind the snapshot."""
    log = live.persistence
    live.room.document.rebase(snapshot.data, snapshot.index, snapshot.state_vector)
    # What has come since then goes on to count.
    log.tail_rows += left.rows - tail.rows
    log.tail_bytes += left.nbytes - tail.nbytes
    log.snapshot_bytes = len(snapshot.data)
    log.snapshot_seq = snapshot.seq
