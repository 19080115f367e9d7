"""When a snapshot is made of a live document, and how.

Strategy: a snapshot costs time in proportion to the document, so it waits for a tail in proportion to
the last snapshot: then its cost for each edit stays constant however large the document grows. The
work is done on bytes in a sandbox process; the room goes on meanwhile, and takes the collected form
in place of its own when it comes back, because joined runs of typing are a tenth of the size.

The snapshot holds exactly the rows up to its number: the document is encoded between two turns, and
its number is the one that the journal gives to the last of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from collab.hub.live import LiveRoom
from collab.sandbox.pool import Sandbox
from collab.storage.store import Snapshot, Store
from collab.telemetry import get_logger, shown_name

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
    """Makes snapshots of live rooms."""

    def __init__(self, store: Store, sandbox: Sandbox, policy: CompactionPolicy, clock: Callable[[], float]) -> None:
        self._store = store
        self._sandbox = sandbox
        self._policy = policy
        self._clock = clock

    def due(self, live: LiveRoom) -> bool:
        """Tell whether the tail is long enough, also in proportion to the snapshot.

        Or whether many clients have a part in it: a joiner's SyncStep2 is put together from a piece for each
        of them, in one go. Every page load is a new client ID, so this is about what joins cost anyhow.
        """
        document = live.room.document
        if document.tail_clients >= max(_TAIL_CLIENTS, _TAIL_CLIENTS_SHARE * document.clients):
            return True
        if live.tail_rows < self._policy.rows and live.tail_bytes < self._policy.nbytes:
            return False
        return live.tail_bytes >= self._policy.ratio * live.snapshot_bytes

    def worth_it_when_idle(self, live: LiveRoom) -> bool:
        """Tell whether a document that leaves memory should get a snapshot first.

        A tenth of what a busy document waits for: opening is then always quick, and a visit that
        changes one letter of a large document does not rewrite it.
        """
        return live.tail_rows > 0 and (
            live.snapshot_bytes == 0 or live.tail_bytes >= 0.1 * self._policy.ratio * live.snapshot_bytes
        )

    def worth_it_when_leaving(self, live: LiveRoom) -> bool:
        """Tell whether a document that is live when the server stops should get a snapshot.

        Whoever opens it next waits for its tail to be read: below these bounds that is a few milliseconds,
        and the stop of a server with many small documents is not held up.
        """
        return (live.tail_rows >= 500 or live.tail_bytes >= 32 * 1024) and self.worth_it_when_idle(live)

    async def compact(self, live: LiveRoom) -> None:
        """Make a snapshot of a room whose turn has just ended.

        Raises:
            StoreUnavailable, SandboxError: there is none this time; nothing has changed.
        """
        document = live.room.document
        data, state_vector, at = document.encode(), document.state_vector(), self._clock()
        seq = await live.settled()
        if seq is None or live.document_id is None:
            return  # another node has written in between; the next commit considers it again
        rows, nbytes = live.tail_rows, live.tail_bytes
        started = time.perf_counter()
        collected = await self._sandbox.collect(data, live.gc)
        snapshot = Snapshot(seq=seq, data=collected.data, index=collected.index, state_vector=state_vector, at=at)
        if not await self._store.write_snapshot(live.document_id, snapshot):
            return
        live.tail_rows -= rows
        live.tail_bytes -= nbytes
        live.snapshot_bytes = len(collected.data)
        document.rebase(collected.data, collected.index, state_vector)
        _log.debug(
            "snapshot of %s at %d: %d bytes from %d, %.0f ms",
            shown_name(live.name),
            seq,
            len(collected.data),
            len(data),
            (time.perf_counter() - started) * 1000,
        )
