"""Group commit: the rows of all documents of this node, written by one writer in few transactions.

Strategy: :meth:`Journal.append` only puts the entry into a list. One task takes what the list holds,
gives it to the store as one batch, and calls back everybody in it after the COMMIT; while it waits, the
next batch gathers. So a commit costs the same for one keystroke and for a thousand, order is the order
of the list, and nothing is awaited on the path of an edit. After quiet a batch starts at the end of the
loop's turn; under load its first entry waits for ``gather`` seconds, so that trickling edits share commits.

When the store is not available the same batch is offered again and again, the same object, which the
store's promise turns into exactly once; what comes meanwhile waits behind it, up to ``backlog_bytes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from collab.errors import StoreRefused, StoreUnavailable
from collab.storage.store import Append, Appended, AppendOutcome, Store
from collab.telemetry import RateLimited, get_logger

MAX_BATCH_ENTRIES = 1_000
"""Most entries of one transaction: calling a thousand of them back takes the loop a few milliseconds."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Rows of one transaction, unless a single entry is larger: bounds how long one commit takes (some ten
milliseconds) and so how long the acknowledgements of small rows wait for a large one. A batch this
large does not wait to gather more."""

ENTRY_OVERHEAD = 400
"""Bytes of memory that an entry costs besides its rows' data (the record, its rows, the callback): without
counting them, a backlog of keystrokes would take ten times the memory it is allowed."""

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""Seconds between offers to a store that fails. A restarted PostgreSQL is back within about a second; the
longest pause bounds how stale "failing" can be without many nodes pressing on a database that starts."""

_LOG = get_logger("journal")

Done = Callable[[AppendOutcome], None]

_Waiting = tuple[Append, Done, int]
"""An entry, whom to call, and the bytes it counts for in the backlog."""


class Journal:
    """Write entries in order, durably, without ever blocking the caller.

    ``backlog_bytes`` is the mark past which :attr:`full` asks the callers to refuse new edits; it is theirs to look
    at it, :meth:`append` always takes. ``gather`` is in seconds. ``clock`` gives monotonic seconds. ``on_state`` is
    called with the error when the store begins to fail, and with None when it works again.

    Entries of one document are written and called back in the order of :meth:`append`. When the store refuses an
    entry for good, those of the same document that already wait behind it are refused with it, since they may
    build on what is lost; what is appended after the callback is a new beginning.

    Attributes: ``backlog``, the bytes of memory that uncommitted entries hold; ``failing``, the error of the last
    attempt to write, None while the store works.
    """

    def __init__(
        self,
        store: Store,
        *,
        backlog_bytes: int,
        gather: float = 0.004,
        clock: Callable[[], float] = time.monotonic,
        on_state: Callable[[StoreUnavailable | None], None] | None = None,
    ) -> None:
        self.backlog = 0
        self.failing: StoreUnavailable | None = None
        self._store = store
        self._backlog_bytes = backlog_bytes
        self._gather = gather
        self._clock = clock
        self._on_state = on_state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._limited = RateLimited(_LOG)
        self._random = random.Random()

        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._first_came = 0.0
        self._batch: list[_Waiting] = []
        self._last_commit = float("-inf")
        # What a commit has taught about documents with entries that wait already: the id of one that was
        # created, the error of one that was refused. Holds for the first ``_lessons_for`` entries that wait.
        self._lessons: dict[str, int | StoreRefused] = {}
        self._lessons_for = 0
        # Exists while the writer is idle; the timer while its waking is planned.
        self._waker: asyncio.Future[None] | None = None
        self._timer: asyncio.Handle | None = None

    @property
    def full(self) -> bool:
        """Whether the backlog has passed its mark, so that new edits must be refused."""
        return self.backlog >= self._backlog_bytes

    async def start(self) -> None:
        """Start the writer on the running loop. Entries appended before are written now."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._write(), name="journal")

    def append(self, entry: Append, done: Done) -> None:
        """Take an entry; call on the loop.

        ``done`` is called on the loop, after the COMMIT with the numbers given, or with the error when the document
        is deleted or the entry refused for good; never before this method has returned, and not at all for what
        :meth:`close` had to give up. It should be short. Raises ``RuntimeError`` after :meth:`close`.
        """
        if self._closing.is_set():
            raise RuntimeError("the journal is closed")
        size = ENTRY_OVERHEAD
        for row in entry.rows:
            size += len(row.data)
        if not self._waiting:
            self._first_came = self._clock()
        self.backlog += size
        self._waiting_bytes += size
        self._waiting.append((entry, done, size))
        if self._waker is not None and (self._timer is None or self._is_large()):
            self._plan()

    async def close(self, timeout: float) -> list[str]:  # noqa: ASYNC109 - the wait must name what is left
        """Write what is left, for at most ``timeout`` seconds; give the names of documents with unsaved rows, sorted.

        A batch that is under way at the deadline counts as unsaved, though it may yet be committed.
        """
        self._closing.set()
        self._wake()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=max(timeout, 0.0))
            if late:
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        unsaved = {entry.name for entry, _, _ in self._batch} | {entry.name for entry, _, _ in self._waiting}
        return sorted(unsaved)

    # When to start a batch.

    def _is_large(self) -> bool:
        return self._waiting_bytes >= MAX_BATCH_BYTES or len(self._waiting) >= MAX_BATCH_ENTRIES

    def _plan(self) -> None:
        """Plan the start of the next batch, while the writer is idle and something waits."""
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        since_commit = self._first_came - self._last_commit
        pause = self._first_came + self._gather - self._clock()
        if since_commit >= self._gather or pause <= 0 or self._is_large() or self._closing.is_set():
            # Not now: what else comes in this turn of the loop belongs into the same commit.
            self._timer = self._loop.call_soon(self._wake)
        else:
            self._timer = self._loop.call_later(pause, self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)
        self._waker = None

    # The writer.

    async def _write(self) -> None:
        assert self._loop is not None
        while True:
            if not (self._closing.is_set() or self._is_large()):
                self._waker = waker = self._loop.create_future()
                if self._waiting:
                    self._plan()
                await waker
            self._take()
            if self._batch:
                outcomes = await self._commit([entry for entry, _, _ in self._batch])
                self._last_commit = self._clock()
                self._settle(outcomes)
            elif self._closing.is_set() and not self._waiting:
                return

    def _take(self) -> None:
        """Move what one transaction may hold from ``_waiting`` to ``_batch``."""
        if self._is_large():
            count = size = 0
            for _, _, entry_size in self._waiting[:MAX_BATCH_ENTRIES]:
                if count and size + entry_size > MAX_BATCH_BYTES:
                    break
                count += 1
                size += entry_size
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._waiting_bytes -= size
            self._first_came = self._clock()
        else:
            taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if self._lessons:
            taken = self._apply_lessons(taken)
        self._batch = taken

    def _apply_lessons(self, taken: list[_Waiting]) -> list[_Waiting]:
        kept = []
        for position, (entry, done, size) in enumerate(taken):
            lesson = self._lessons.get(entry.name) if position < self._lessons_for else None
            if isinstance(lesson, StoreRefused):
                self.backlog -= size
                self._call(done, lesson)
                continue
            if lesson is not None and entry.document_id is None:
                # Queued before its room learned the id. Found by name again, it could get into a document
                # that was deleted and created anew meanwhile.
                entry = replace(entry, document_id=lesson)
            kept.append((entry, done, size))
        self._lessons_for -= len(taken)
        if self._lessons_for <= 0:
            self._lessons.clear()
        return kept

    async def _commit(self, batch: Sequence[Append]) -> Sequence[AppendOutcome]:
        """Offer the batch, the same object each time, until the store has answered."""
        longest = FIRST_RETRY
        while True:
            try:
                outcomes = await self._store.append(batch)
                if len(outcomes) != len(batch):
                    raise AssertionError("the store gave another number of outcomes than entries")
            except StoreUnavailable as error:
                self._set_state(error)
                # Half of it at random: nodes that lost the same database must not return to it in step.
                pause = longest * (0.5 + 0.5 * self._random.random())
                if self._closing.is_set():
                    await asyncio.sleep(min(pause, FIRST_RETRY))
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), pause)
                longest = min(longest * 2, LONGEST_RETRY)
            except Exception as error:  # one poisoned entry must not stop all documents of the node
                self._set_state(None)
                if len(batch) == 1:
                    _LOG.exception("an entry cannot be written and is refused: document %r", batch[0].name)
                    refusal = StoreRefused(f"writing failed with {type(error).__name__}")
                    refusal.__cause__ = error
                    return [refusal]
                return await self._commit_each(batch)
            else:
                self._set_state(None)
                return outcomes

    async def _commit_each(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write the entries one by one, to find the one that a store cannot take and does not name."""
        outcomes: list[AppendOutcome] = []
        refused: dict[str, StoreRefused] = {}
        for entry in batch:
            outcome: AppendOutcome = refused.get(entry.name) or (await self._commit([entry]))[0]
            if isinstance(outcome, StoreRefused):
                refused[entry.name] = outcome
            outcomes.append(outcome)
        return outcomes

    def _settle(self, outcomes: Sequence[AppendOutcome]) -> None:
        """Call back everybody in the batch, which is committed."""
        batch, self._batch = self._batch, []
        for (entry, _, size), outcome in zip(batch, outcomes, strict=True):
            self.backlog -= size
            if isinstance(outcome, StoreRefused):
                self._lessons[entry.name] = outcome
                self._lessons_for = len(self._waiting)
                self._limited.log(
                    logging.ERROR, "refused", "the store refuses document %r for good: %s", entry.name, outcome
                )
            elif entry.document_id is None and isinstance(outcome, Appended):
                self._lessons[entry.name] = outcome.document_id
                self._lessons_for = len(self._waiting)
        if not self._waiting:
            self._lessons.clear()
        for (_, done, _), outcome in zip(batch, outcomes, strict=True):
            self._call(done, outcome)

    def _call(self, done: Done, outcome: AppendOutcome) -> None:
        try:
            done(outcome)
        except Exception:  # the others in the batch are committed too and must hear of it
            _LOG.exception("a callback of the journal failed")

    def _set_state(self, error: StoreUnavailable | None) -> None:
        before, self.failing = self.failing, error
        if (before is None) == (error is None):
            return
        if error is not None:
            _LOG.error("the store does not take writes, edits are kept in memory until it does: %s", error)
        else:
            _LOG.warning("the store takes writes again; %d bytes of edits are waiting", self.backlog)
        if self._on_state is not None:
            try:
                self._on_state(error)
            except Exception:  # whoever listens must not end the writer
                _LOG.exception("a listener of the journal's state failed")
