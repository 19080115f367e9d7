"""Group commit: the rows of all documents of this node, written by one writer in few transactions.

Strategy: :meth:`Journal.append` only puts the entry into a list. One task takes what the list holds,
gives it to the store as one batch, and calls back everybody in it after the COMMIT; while it waits, the
next batch gathers. So a commit costs the same for one keystroke and for a thousand, order is the order
of the list, and nothing is awaited on the path of an edit. After quiet a batch starts at the end of the
loop's turn; under load its first entry waits for ``gather`` seconds, so that trickling edits share commits.

When the store is not available the same batch is offered again and again, the same object, which the
store's promise turns into exactly once; what comes meanwhile waits behind it, up to ``backlog_bytes``.

When an older state of the storage is there, nothing may be written before somebody has compared it with memory: the
journal is held then, what waits is sorted by documents, and can be taken out and put in anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heapreplace
from random import Random

from collab.errors import StoreRefused, StoreUnavailable, StoreWentBack
from collab.storage.counts import JournalCounts
from collab.storage.log import Log
from collab.storage.records import Append, Appended, AppendOutcome
from collab.telemetry import RateLimited, get_logger
from collab.telemetry.tracing import span

MAX_BATCH_ENTRIES = 1_000
"""Most entries of one transaction."""

REPORT_ENTRIES = 32
"""Entries that are called back before the loop has its turn, a fifth of a millisecond: a thousand of them would take it
some milliseconds."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Rows of one transaction, unless a single entry is larger: bounds how long one commit takes (some ten
milliseconds) and so how long the acknowledgements of small rows wait for a large one. A batch this
large does not wait to gather more."""

FAIR_ENTRIES = 4 * MAX_BATCH_ENTRIES
"""Entries among which tenants get equal parts of a transaction: looking at them takes a millisecond or two."""

ENTRY_OVERHEAD = 400
"""Bytes of memory that an entry costs besides its rows' data (the record, its rows, the callback): without
counting them, a backlog of keystrokes would take ten times the memory it is allowed."""

LARGE_ENTRY_BYTES = 1024 * 1024
LARGE_SHARE = 4
"""An entry from this size on is one large message: a paste, or all that somebody has written offline. While the store
works, it is committed within seconds, and these need not count in the backlog, up to so many times its mark: else one
message larger than the mark would have the edits of everybody refused for as long as its commit takes."""

HURRIED_GATHER = 0.004
"""Seconds for which edits gather at most where somebody waits for the commit who does nothing else meanwhile: a program
that edits over HTTP makes its calls one after the other. Who types waits for nothing."""

SHARED_GATHER = 0.008
"""Seconds for which edits gather on an idle node where other nodes have a document of theirs open: people there see
them after the commit. It grows with the load of the node to ``gather``: each commit costs the node and the database."""

FIRST_RETRY = 0.1
LONGEST_RETRY = 5.0
"""Seconds between offers to a store that fails. A restarted PostgreSQL is back within about a second; the
longest pause bounds how stale "failing" can be without many nodes pressing on a database that starts."""

STALLED_SECONDS = 2.0
"""After so long a commit that is under way counts as stalled: people who have typed wait for their "saved"."""

SLOW_SECONDS = 1.0
"""A commit that took longer is told in the log: people notice that "saved" is late."""

LONG_SECONDS = 10.0
"""A commit that is under way for so long is told, however many were told of before."""

# Commits that are noted before they are counted.
_MOST_NOTED = 1_000

_LOG = get_logger("journal")

Done = Callable[[AppendOutcome], None]

_Waiting = tuple[Append, Done, int]
"""An entry, whom to call, and the bytes it counts for in the backlog."""


class _Held(Exception):
    """The journal is held: the batch waits again."""


class Journal:
    """Write entries in order, durably, without ever blocking the caller.

    ``backlog_bytes`` is the mark past which :attr:`full` asks the callers to refuse new edits; it is theirs to look
    at it, :meth:`append` always takes. ``gather`` is in seconds. ``clock`` gives monotonic seconds. ``on_state`` is
    called with the error when the store begins to fail, and with None when it works again. ``random`` spreads the
    offers of many nodes.
    Set ``tenant`` to what tells whose a document is: while more waits than one transaction may hold, each tenant gets
    an equal part of it. None: first come, first served.

    Entries of one document are written and called back in the order of :meth:`append`. When the store refuses an
    entry for good, those of the same document that already wait behind it are refused with it, since they may
    build on what is lost; what is appended after the callback is a new beginning.

    Attributes: ``counts``, what it has done so far; ``backlog``, the bytes of memory that uncommitted entries hold;
    ``failing``, the error of the last attempt to write, None while the store works; ``broken``, whether a defect of our
    own is why; ``on_back``, called when an append meets an older state of the storage, whereupon nothing is written
    until :meth:`release` (None: that is tried again as any other failure).
    """

    def __init__(
        self,
        store: Log,
        *,
        backlog_bytes: int,
        gather: float = 0.004,
        clock: Callable[[], float] = time.monotonic,
        on_state: Callable[[StoreUnavailable | None], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self.tenant: Callable[[str], object] | None = None
        self.counts = JournalCounts()
        self.backlog = 0
        self.failing: StoreUnavailable | None = None
        self.broken = False
        self.on_back: Callable[[StoreWentBack], None] | None = None
        self._store = store
        self._backlog_bytes = backlog_bytes
        self._gather = gather
        self._clock = clock
        self._on_state = on_state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._nudge = asyncio.Event()  # ends the pause before the next offer
        self._go = asyncio.Event()
        self._go.set()
        self._still = asyncio.Event()  # no batch is under way
        self._still.set()
        self._held: dict[str, list[_Waiting]] | None = None  # what waits, by documents, while the journal is held
        self._limited = RateLimited(_LOG)
        self._rarely = RateLimited(_LOG, per_second=1 / 60)  # a store that is slow is so for each commit
        self._stall: asyncio.TimerHandle | None = None
        self._stall_told = False
        self._random = Random() if random is None else random

        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._large = 0  # of the backlog, what large entries have
        self._first_came = 0.0
        self._most = gather  # seconds for which what waits may gather
        self._batch: list[_Waiting] = []
        self._committing_since: float | None = None  # while the store is asked
        # Of the batch, whose first entries are gone when they have been called back; None until it is committed.
        self._outcomes: Sequence[AppendOutcome] | None = None
        self._at_once = False  # they are all called back in one go
        self._oldest_came = self._batch_came = (
            0.0  # as ``_first_came``, but what has waited before stays as old as it is
        )
        self._batch_bytes = 0
        self._offered_at = self._last_commit = float("-inf")
        # What a commit has taught about documents with entries that wait already: the id of one that was
        # created, the error of one that was refused. Holds for the first ``_lessons_for`` entries that wait.
        self._lessons: dict[str, int | StoreRefused] = {}
        self._lessons_for = 0
        self._watchers: list[asyncio.Future[None]] = []  # until the writer has done its next round
        # Exists while the writer is idle; the timer while its waking is planned.
        self._waker: asyncio.Future[None] | None = None
        self._timer: asyncio.Handle | None = None

    @property
    def full(self) -> bool:
        """Whether the backlog has passed its mark, so that new edits must be refused."""
        mark, backlog = self._backlog_bytes, self.backlog
        if backlog < mark:
            return False
        return self.failing is not None or backlog - min(self._large, LARGE_SHARE * mark) >= mark

    @property
    def stalled(self) -> float | None:
        """For how many seconds one commit has been under way, if that is too long to count as well; else None.

        A table that somebody has locked makes the store wait, and nothing fails for half a minute.
        """
        since = self._committing_since
        seconds = 0.0 if since is None else self._clock() - since
        return seconds if seconds > STALLED_SECONDS else None

    @property
    def progress(self) -> object:
        """What changes whenever the writer does something; None while it has nothing to do, or may not, or cannot."""
        if not self.waiting or self.failing is not None or not self._go.is_set():
            return None
        return self.counts.entries, self.counts.retries

    @property
    def waiting(self) -> int:
        """How many entries are not committed yet."""
        held = sum(map(len, self._held.values())) if self._held else 0
        return held + len(self._waiting) + len(self._batch)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called, so that nothing more is taken."""
        return self._closing.is_set()

    async def start(self) -> None:
        """Start the writer on the running loop. Entries appended before are written now."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._write_forever(), name="journal")

    async def _write_forever(self) -> None:
        """Write until the journal is closed; a defect of ours is logged, and what it has left waiting is written."""
        pause = FIRST_RETRY
        while True:
            try:
                await self._write()
                return
            except Exception as error:
                self.broken = True
                self.failing = StoreUnavailable("the journal has failed")
                _LOG.critical("the journal has failed and goes on in %.1f s", pause, exc_info=error)
                self._waker = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY)

    def append(self, entry: Append, done: Done, received: float | None = None) -> None:
        """Take an entry; call on the loop.

        ``received`` is when the oldest edit in it has come, in seconds of the journal's clock; None: now.
        ``done`` is called on the loop, after the COMMIT with the numbers given, or with the error when the document
        is deleted or the entry refused for good; never before this method has returned, and not at all for what
        :meth:`close` had to give up. It should be short, and must not raise once it has begun: a call that raises
        (there is no memory for it, say) is made once more. Raises ``RuntimeError`` after :meth:`close`; whatever else
        it raises, the entry may be written: :meth:`until_answered` tells when that is known.
        """
        if self._closing.is_set():
            raise RuntimeError("the journal is closed")
        size = ENTRY_OVERHEAD + entry.nbytes
        waiting = self._waiting if self._held is None else self._held.setdefault(entry.name, [])
        if not waiting:
            self._first_came = self._clock()
            if self._held is None or len(self._held) == 1:  # nothing else waits
                self._oldest_came = self._first_came
        if received is not None and received < self._oldest_came:
            self._oldest_came = received
        waiting.append((entry, done, size))
        # Counted at once, without a call, which might fail: whatever becomes of it is counted back.
        self.backlog += size
        if size >= LARGE_ENTRY_BYTES:
            self._large += size
        if self._held is not None:
            return
        self._waiting_bytes += size
        if self._waker is not None and (self._timer is None or self._is_large()):
            self._plan()

    def hurry(self) -> None:
        """Let what waits gather for a few milliseconds only: somebody waits for its commit and does nothing else."""
        self._gather_for(HURRIED_GATHER)

    def hurry_shared(self, load: float) -> None:
        """Let what waits gather for less where other nodes wait for its commit; ``load`` of this node is 0 to 1."""
        self._gather_for(SHARED_GATHER + (self._gather - SHARED_GATHER) * load)

    def _gather_for(self, seconds: float) -> None:
        if self._waiting and seconds < self._most:
            self._most = seconds
            if self._waker is not None:
                self._plan()

    def holds(self, name: str) -> bool:
        """Tell whether an entry of a document waits or is being written."""
        return name in (self._held or ()) or any(entry.name == name for entry, _, _ in (*self._batch, *self._waiting))

    async def until_answered(self, name: str) -> None:
        """Return when no entry of a document waits any more, whatever became of them."""
        assert self._loop is not None
        self._wake()  # should planning the batch be what has failed
        while self.holds(name):
            answered = self._loop.create_future()
            self._watchers.append(answered)
            await answered

    async def close(self, timeout: float) -> list[str]:  # noqa: ASYNC109 - the wait must name what is left
        """Write what is left, for at most ``timeout`` seconds; give the names of documents with unsaved rows, sorted.

        A batch that is under way at the deadline counts as unsaved, though it may yet be committed.
        """
        self._closing.set()
        self._nudge.set()
        self._wake()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=max(timeout, 0.0))
            if late:
                self._task.cancel()
                await asyncio.wait({self._task})
        unsaved = {entry.name for entry, _, _ in self._batch} | {entry.name for entry, _, _ in self._waiting}
        return sorted(unsaved.union(self._held or ()))

    # Holding it, while somebody compares the storage with memory.

    def pause(self) -> None:
        """Begin no batch from now on."""
        self._go.clear()
        self._nudge.set()
        self._wake()

    async def hold(self) -> None:
        """Return when no batch is under way; from then on nothing is written until :meth:`release`.

        A batch that was not answered is given up and waits again: offer nothing of it before the storage says that it
        can never be written (``Log.attend``). A second call does nothing.
        """
        self.pause()
        await self._still.wait()
        if self._held is None:
            self._held = {}
            for waiting in self._waiting:
                self._held.setdefault(waiting[0].name, []).append(waiting)
            self._waiting, self._waiting_bytes = [], 0
            self._lessons.clear()
            self._lessons_for = 0

    def held_names(self) -> list[str]:
        """Give the names of the documents that have entries waiting, while the journal is held."""
        return list(self._held or ())

    def take(self, name: str) -> list[Done]:
        """Take all entries of a document out, while the journal is held; give whom to call, in order."""
        assert self._held is not None
        taken = self._held.pop(name, [])
        for _, _, size in taken:
            self._count(-size)
        return [done for _, done, _ in taken]

    def put_first(self, entry: Append, done: Done) -> None:
        """Put an entry before those of its document that wait, while the journal is held."""
        assert self._held is not None
        size = ENTRY_OVERHEAD + entry.nbytes
        self._count(size)
        self._held.setdefault(entry.name, []).insert(0, (entry, done, size))

    def readdress(self, name: str, document_id: int | None) -> None:
        """Give the entries of a document that wait another id of it, while the journal is held."""
        assert self._held is not None
        waiting = self._held.get(name)
        if waiting is not None:
            waiting[:] = [(replace(entry, document_id=document_id), done, size) for entry, done, size in waiting]

    def release(self) -> None:
        """Go on writing."""
        held, self._held = self._held or {}, None
        self._waiting = [waiting for entries in held.values() for waiting in entries]
        self._waiting_bytes = sum([size for _, _, size in self._waiting])
        self._first_came = self._clock()
        if not self._closing.is_set():
            self._nudge.clear()
        self._go.set()
        self._wake()

    # When to start a batch.

    def _is_large(self) -> bool:
        return self._waiting_bytes >= MAX_BATCH_BYTES or len(self._waiting) >= MAX_BATCH_ENTRIES

    def _plan(self) -> None:
        """Plan the start of the next batch, while the writer is idle and something waits."""
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        since_commit = self._first_came - self._last_commit
        pause = self._first_came + self._most - self._clock()
        if since_commit >= self._most or pause <= 0 or self._is_large() or self._closing.is_set():
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
            if not (self._batch or self._closing.is_set() or self._is_large()):
                self._waker = waker = self._loop.create_future()
                if self._waiting:
                    self._plan()
                await waker
            await self._go.wait()
            if not self._batch:  # else a defect has come between
                self._outcomes = None
                self._begin_batch()
            if self._batch:
                self._still.clear()
                try:
                    if self._outcomes is None:
                        self._outcomes = await self._commit([entry for entry, _, _ in self._batch])
                        self._last_commit = self._clock()
                        self._note_commit(self._outcomes)
                    while self._report(self._outcomes):  # noqa: ASYNC110 - it works, and waits for nothing
                        await asyncio.sleep(0)
                except _Held:
                    self._waiting, self._batch = self._batch + self._waiting, []
                    self._oldest_came = self._batch_came
                    self._waiting_bytes = sum([size for _, _, size in self._waiting])
                    continue
                finally:
                    self._still.set()
            elif self._closing.is_set() and not self._waiting:
                return
            watchers, self._watchers = self._watchers, []
            for answered in watchers:
                if not answered.done():
                    answered.set_result(None)

    def _begin_batch(self) -> None:
        """Move what one transaction may hold from ``_waiting`` to ``_batch``."""
        if self._is_large():
            chosen = _first(self._waiting) if self.tenant is None else _fair(self._waiting, self.tenant)
            taken = [self._waiting[position] for position in chosen]
            taught = bisect_left(chosen, self._lessons_for)
            gone = set(chosen)
            left = [self._waiting[position] for position in range(chosen[-1] + 1) if position not in gone]
            self._waiting[: chosen[-1] + 1] = left
            size = sum([entry_size for _, _, entry_size in taken])
            self._waiting_bytes -= size
            self._first_came = self._clock()
        else:
            size, taken, self._waiting, self._waiting_bytes = self._waiting_bytes, self._waiting, [], 0
            taught = min(len(taken), self._lessons_for)
            self._most = self._gather
        self._batch_came, self._batch_bytes = self._oldest_came, size
        if self._lessons:
            taken = self._apply_lessons(taken, taught)
        self._batch = taken

    def _apply_lessons(self, taken: list[_Waiting], taught: int) -> list[_Waiting]:
        """Go by what commits have taught about the first ``taught`` of these entries."""
        kept = []
        for position, (entry, done, size) in enumerate(taken):
            lesson = self._lessons.get(entry.name) if position < taught else None
            if isinstance(lesson, StoreRefused):
                self._count(-size)
                self._batch_bytes -= size
                self._call_back(done, lesson)
                continue
            if lesson is not None and entry.document_id is None:
                # Queued before its room learned the id. Found by name again, it could get into a document
                # that was deleted and created anew meanwhile.
                entry = replace(entry, document_id=lesson)
            kept.append((entry, done, size))
        self._lessons_for -= taught
        if self._lessons_for <= 0:
            self._lessons.clear()
        return kept

    async def _commit(self, batch: Sequence[Append]) -> Sequence[AppendOutcome]:
        """Offer the batch, the same object each time, until the store has answered."""
        longest = FIRST_RETRY
        while True:
            try:
                outcomes = await self._offer(batch)
            except (StoreUnavailable, MemoryError) as error:
                # Without memory nothing is known of the entry: it is offered again, too.
                self.counts.retries += 1
                away = error if isinstance(error, StoreUnavailable) else StoreUnavailable("no memory to write with")
                self._set_state(away)
                if isinstance(error, StoreWentBack) and self.on_back is not None:
                    self._go.clear()
                    self.on_back(error)
                if not self._go.is_set():
                    raise _Held from None
                # Half of it at random: nodes that lost the same database must not return to it in step.
                pause = longest * (0.5 + 0.5 * self._random.random())
                if self._closing.is_set():
                    await asyncio.sleep(min(pause, FIRST_RETRY))
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._nudge.wait(), pause)
                if not self._go.is_set():
                    raise _Held from None
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

    async def _offer(self, batch: Sequence[Append]) -> Sequence[AppendOutcome]:
        assert self._loop is not None
        self._committing_since = self._offered_at = self._clock()
        self._stall_told = False
        self._stall = self._loop.call_later(STALLED_SECONDS, self._tell_stall, STALLED_SECONDS)
        try:
            with span("commit", {"collab.documents": len(batch)}, alone=True) as current:
                outcomes = await self._store.append(batch)
                if current.is_recording():  # nearly none is
                    current.set_attribute("collab.rows", sum(len(entry.rows) for entry in batch))
        finally:
            self._committing_since = None
            self._stall.cancel()
        self._tell_answer(self._clock() - self._offered_at)
        if len(outcomes) != len(batch):
            raise AssertionError("the store gave another number of outcomes than entries")
        return outcomes

    def _tell_stall(self, seconds: float) -> None:
        """Tell that a commit has been under way for so long; a long one is always told."""
        assert self._loop is not None
        line = "the store has not answered a commit for %.0f s: edits wait in memory and are not called saved"
        if seconds < LONG_SECONDS:
            self._stall_told = self._rarely.error("stalled", line, seconds)
            self._stall = self._loop.call_later(LONG_SECONDS - seconds, self._tell_stall, LONG_SECONDS)
        else:
            self._stall_told = True
            _LOG.error(line, seconds)

    def _tell_answer(self, seconds: float) -> None:
        if self._stall_told:
            _LOG.warning(
                "the store has answered a commit after %.1f s; %d bytes of edits are waiting", seconds, self.backlog
            )
        elif seconds > SLOW_SECONDS:
            self._rarely.warning(
                "slow",
                "the store is slow: a commit took %.1f s, and people wait as long until their edits are saved",
                seconds,
            )

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

    def _note_commit(self, outcomes: Sequence[AppendOutcome]) -> None:
        """Look at what became of the batch, whatever fails."""
        batch = self._batch
        try:
            self._count_batch(batch)
            self._at_once = self._closing.is_set() or any(
                [
                    entry.document_id is None or type(outcome) is not Appended
                    for (entry, _, _), outcome in zip(batch, outcomes, strict=True)
                ]
            )
            if self._at_once:
                self._learn(batch, outcomes)
            elif not self._waiting:
                self._lessons.clear()
        except Exception:
            self._at_once = True
            _LOG.exception("the journal could not look at what became of a batch")

    def _report(self, outcomes: Sequence[AppendOutcome]) -> bool:
        """Call back those in the batch, which is committed, whatever else fails; tell whether some are left.

        Many are called back in portions, and the loop has its turn in between. But where a document was created, or an
        entry refused, all are at once: their rooms must hear of it before they append anything more.
        """
        batch = self._batch
        first = len(outcomes) - len(batch)
        for outcome in outcomes[first:] if self._at_once else outcomes[first : first + REPORT_ENTRIES]:
            _, done, size = batch[0]
            del batch[0]
            self.backlog -= size  # without a call, which might fail
            if size >= LARGE_ENTRY_BYTES:
                self._large -= size
            try:
                done(outcome)
            except Exception:
                self._call_back(done, outcome)
        return bool(batch)

    def _learn(self, batch: Sequence[_Waiting], outcomes: Sequence[AppendOutcome]) -> None:
        """Note what became of a batch for the entries of its documents that wait already."""
        for (entry, _, _), outcome in zip(batch, outcomes, strict=True):
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

    def _count_batch(self, batch: Sequence[_Waiting]) -> None:
        """Count a batch that was answered; one look at it and not one for each entry, which would cost too much."""
        counts, now = self.counts, self._last_commit
        counts.entries += len(batch)
        counts.nbytes += self._batch_bytes - ENTRY_OVERHEAD * len(batch)
        if len(counts.batches.noted) >= _MOST_NOTED:
            counts.fold()
        counts.batches.note(len(batch))
        counts.commits.note(now - self._offered_at)
        counts.answered.observe(now - self._batch_came, len(batch))

    def _count(self, size: int) -> None:
        """Count an entry of so many bytes in the backlog; no longer, if ``size`` is negative."""
        self.backlog += size
        if abs(size) >= LARGE_ENTRY_BYTES:
            self._large += size

    def _call_back(self, done: Done, outcome: AppendOutcome) -> None:
        try:
            done(outcome)
        except Exception:  # the others in the batch are committed too and must hear of it
            _LOG.exception("a callback of the journal failed")

    def _set_state(self, error: StoreUnavailable | None) -> None:
        before, self.failing = self.failing, error
        self.broken = False
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


def _first(waiting: Sequence[_Waiting]) -> list[int]:
    """Choose what one transaction may hold: the first entries, one at least; give their positions."""
    count = size = 0
    for _, _, entry_size in waiting[:MAX_BATCH_ENTRIES]:
        if count and size + entry_size > MAX_BATCH_BYTES:
            break
        count += 1
        size += entry_size
    return list(range(count))


def _fair(waiting: Sequence[_Waiting], tenant: Callable[[str], object]) -> list[int]:
    """Choose what one transaction may hold: of each tenant the first entries, as many bytes as of every other one.

    Only the first ``FAIR_ENTRIES`` are looked at. The positions are in order, and no entry of a document comes before
    one that waits in front of it.
    """
    rows: dict[object, deque[int]] = {}
    for position, (entry, _, _) in enumerate(waiting[:FAIR_ENTRIES]):
        rows.setdefault(tenant(entry.name), deque()).append(position)
    order = [(0, number, row) for number, row in enumerate(rows.values())]  # by the bytes that each has got
    chosen: list[int] = []
    size = 0
    while order and len(chosen) < MAX_BATCH_ENTRIES:
        used, number, row = order[0]
        entry_size = waiting[row[0]][2]
        if chosen and size + entry_size > MAX_BATCH_BYTES:
            break
        chosen.append(row.popleft())
        size += entry_size
        if row:
            heapreplace(order, (used + entry_size, number, row))
        else:
            heappop(order)
    return sorted(chosen)
