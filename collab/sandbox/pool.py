"""The sandbox: jobs in kept processes with limits.

Strategy: a job is given to a process of its own pool of one (pebble), so a process that dies with a lock or
half a message in its hands can only spoil its own pool, which is then replaced. Processes are
spawned, never forked: the server has threads and an event loop. They start with the first job and stay; one that
hung was killed and one that failed in a way that its own code did not choose (a panic, no memory) is
replaced, because what the library left behind is not to be trusted. What blocks (starting, stopping)
happens in threads, never on the loop.

Documents that stay loaded are all in one process of their own, so that each job finds its document there. One job
runs there at a time. When that process goes, so do all stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from collab.content.edits import Edit, Format
from collab.errors import CollabError, DocumentTooLarge, SandboxBusy, SandboxCrashed, SandboxTimeout
from collab.history.packed import PackedRows
from collab.history.tasks import Question, Shown
from collab.history.tasks import Task as HistoryTask
from collab.sandbox import jobs, stays
from collab.sandbox.port import MAX_REBUILT_BYTES, Ending, Outcome, Task
from collab.update.compact import Compacted

_Result = TypeVar("_Result")
_Task = TypeVar("_Task", HistoryTask, Question)

# Each waiting job holds a copy of its document, so this bounds memory; compaction comes again by itself.
MAX_WAITING = 64
# Beyond the job's own limit: starting a process, and handing over and back what may be 256 MiB.
# Only a pool whose channel was broken by a dying process gets there.
GRACE_SECONDS = 20.0

REBUILD_WAIT_SECONDS = 0.2
"""Seconds that rebuilding waits for a free process, so that an old state is there soon."""

MAX_STAYS = 64
"""Documents that stay loaded."""
STAY_SHARE = 64
"""Of the memory of a process, what the documents that stay in it may have together, encoded, is one part of so many.
The library takes 10 to 24 times the encoded size, and twice that, for edits are checked on a second replica. One
document that is larger alone stays all the same."""
LARGEST_SHARE = 32
"""A document that is larger than this part of the memory of a process is not loaded: it would end all stays."""
STAY_IDLE_SECONDS = 300.0
"""Seconds after which a document that nobody has used does not stay any longer."""
STAY_JOB_SECONDS = 15.0
"""Seconds for a job on a document that stays, at most: the others wait meanwhile."""


class ProcessSandbox:
    """The sandbox of a server (``collab.sandbox.port.Sandbox``): jobs run in processes of their own.

    There are ``workers`` processes, each job takes at most ``seconds``, each process has ``memory_bytes``.

    ``memory_bytes`` bounds the address space, which is some 150 MB before the first job. Call `close` in the end.
    """

    def __init__(self, workers: int, seconds: float, memory_bytes: int) -> None:
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._idle: list[ProcessPool | None] = [None] * workers
        self._free = asyncio.Semaphore(workers)
        self._waiting = 0
        self._running: dict[ProcessPool, asyncio.Future[Any] | None] = {}
        self._stopping: set[asyncio.Future[None]] = set()
        self._closed = False
        self._starting: asyncio.Future[None] | None = None
        self._numbers = 0
        self._stays: dict[int, ProcessStay] = {}  # the one that was used last comes last
        self._stays_ended: list[int] = []  # the process does not know yet
        self._stay_slot = _Slot(None)
        self._stay_turn = asyncio.Lock()
        self._stay_waiting = 0
        self._stay_timer: asyncio.TimerHandle | None = None

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document and make its index."""
        return await self.run(jobs.compact, data, gc)

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return a document's content as values that JSON can hold."""
        return await self.run(jobs.content, data, format, root)

    async def show(self, data: bytes, format: Format, root: str | None = None) -> bytes:
        """Return a document's content, encoded."""
        return await self.run(jobs.show, data, format, root)

    async def make(self, edit: Edit, client_id: int) -> bytes:
        """Make a document of content."""
        return await self.run(jobs.make, edit, client_id)

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """Make the update that resets a document."""
        return await self.run(jobs.reset, documents, content, strict, known)

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """Take the content out of documents."""
        return await self.run(jobs.skeleton, documents, known)

    async def find_hazard(self, data: bytes) -> str | None:
        """Look for what yjs throws on."""
        return await self.run(jobs.find_hazard, data)

    async def show_history(self, question: Question) -> Shown:
        """Answer what is asked of the history of a document."""
        return await self._look_back(jobs.show_history, question)

    async def look_back(self, task: HistoryTask) -> bytes:
        """Make something of the history of a document."""
        return await self._look_back(jobs.look_back, task)

    async def _look_back(self, job: Callable[[_Task], _Result], task: _Task) -> _Result:
        if task.nbytes > self._memory_bytes // LARGEST_SHARE:
            public = "the document, or what has changed since, is too large for that: take a shorter interval"
            raise DocumentTooLarge(f"{task.nbytes} bytes of history are too many", public=public)
        return await self.run(job, task)

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        """Rebuild what a document held; for who is not patient in a process that has started, if one is free soon."""
        nbytes = len(snapshot or b"") + rows.nbytes
        if nbytes > MAX_REBUILT_BYTES:
            raise SandboxBusy(f"{nbytes} bytes are rebuilt by who asks for them")
        if not patient and self._idle and self._idle[-1] is None:
            self._start()
            raise SandboxBusy("the process of the sandbox has not started yet")
        return await self._run_when_free(
            None if patient else REBUILD_WAIT_SECONDS, jobs.rebuild, (snapshot, index, rows)
        )

    def _start(self) -> None:
        """Start a process for the jobs that come; nobody waits for it."""
        if self._starting is None or self._starting.done():
            self._starting = asyncio.ensure_future(self._started())

    async def _started(self) -> None:
        with contextlib.suppress(CollabError):  # the next job tells its caller
            await self.run(jobs.ready)

    async def run(self, job: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function of an importable module in a sandbox process; it and its arguments are pickled.

        Raises what the function raises if that is a CollabError; SandboxTimeout, SandboxCrashed (any other
        exception too), and SandboxBusy when too many jobs wait or the sandbox is closed.
        """
        return await self._run_when_free(None, job, arguments)

    async def _run_when_free(
        self, patience: float | None, job: Callable[..., _Result], arguments: tuple[Any, ...]
    ) -> _Result:
        """Run a job when a process is free; raises SandboxBusy if that takes longer than ``patience`` seconds."""
        if self._waiting >= MAX_WAITING:
            raise SandboxBusy(f"{self._waiting} jobs wait for the sandbox already")
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            raise SandboxBusy(f"no process was free within {patience} seconds") from None
        finally:
            self._waiting -= 1
        try:
            if self._closed:
                raise SandboxBusy("the sandbox is closed")
            return await self._run(job, arguments)
        finally:
            self._free.release()

    async def _run(self, job: Callable[..., _Result], arguments: tuple[Any, ...]) -> _Result:
        """Run a job on an idle pool; keep the pool only if it ended as jobs should."""
        slot = _Slot(self._idle.pop())
        try:
            return await self._work(slot, self._seconds, job, arguments)
        finally:
            self._idle.append(None if self._closed else slot.pool)

    async def _work(
        self, slot: _Slot, seconds: float, job: Callable[..., _Result], arguments: tuple[Any, ...]
    ) -> _Result:
        """Run a job on a slot's pool, made if there is none; take the pool away unless it ended as jobs should."""
        pool = slot.pool = slot.pool or self._new_pool(stays=slot is self._stay_slot)
        self._running[pool] = None
        keep = False
        try:
            # Starting the process and pebble's threads blocks for some milliseconds.
            limit = seconds + GRACE_SECONDS
            future = await asyncio.to_thread(
                pool.schedule, jobs.limited, args=(limit, job, *arguments), timeout=seconds
            )
            if self._closed:
                raise SandboxBusy("the sandbox was closed")
            result_future = self._running[pool] = asyncio.wrap_future(future)
            # Pebble measures the job from its start in the process; this is for what never starts.
            async with asyncio.timeout(limit):
                result: _Result = await result_future
            keep = True
            return result
        except CollabError:
            keep = True
            raise
        except TimeoutError:
            raise SandboxTimeout(f"a {job.__name__} job took longer than {seconds:g} seconds") from None
        except ProcessExpired as error:
            raise SandboxCrashed(f"the process of a {job.__name__} job died: {_cause(error.exitcode)}") from None
        except (CancelledError, asyncio.CancelledError):
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise SandboxBusy("the sandbox was closed") from None
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if self._closed:
                raise SandboxBusy("the sandbox was closed") from None
            raise SandboxCrashed(f"a {job.__name__} job failed: {type(error).__name__}: {error}") from error
        finally:
            self._running.pop(pool, None)
            if not keep:
                slot.pool = None
                self._discard(pool)

    def _discard(self, pool: ProcessPool) -> None:
        """Stop a pool, in a thread and not waited for: the next job starts a process of its own."""
        if not self._closed:
            stopping = asyncio.get_running_loop().run_in_executor(None, _stop, pool)
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    # Documents that stay

    async def stay(self, data: bytes, client_id: int) -> ProcessStay:
        """Load a document, so that it stays, in the one process in which all of them do."""
        if len(data) > self._memory_bytes // LARGEST_SHARE:
            public = "the document is too large to be read or changed in part"
            raise DocumentTooLarge(f"{len(data)} bytes are too many to be loaded", public=public)
        self._numbers += 1
        stay = ProcessStay(self, self._numbers, client_id)
        await self._stay_job(stay, len(data), stays.load, (data, client_id))
        return stay

    async def run_stay(self, stay: ProcessStay, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """Bring the document of a stay up to date there and do tasks."""
        return await self._stay_job(stay, sum(map(len, updates)), stays.run, (updates, tasks))

    async def _stay_job(
        self, stay: ProcessStay, nbytes: int, job: Callable[..., _Result], arguments: tuple[Any, ...]
    ) -> _Result:
        """Run a job in the process of the stays; when that goes, all of them are over."""
        if self._stay_waiting >= MAX_WAITING:
            raise SandboxBusy(f"{self._stay_waiting} jobs wait for the sandbox already")
        self._stay_waiting += 1
        try:
            await self._stay_turn.acquire()
        finally:
            self._stay_waiting -= 1
        try:
            if self._closed:
                raise SandboxBusy("the sandbox is closed")
            if stay.over:
                raise SandboxBusy("the stay is over")
            self._make_stay_room(stay, nbytes)
            ended, self._stays_ended = tuple(self._stays_ended), []
            seconds = min(self._seconds, STAY_JOB_SECONDS)
            try:
                return await self._work(self._stay_slot, seconds, job, (stay.number, *arguments, ended))
            except BaseException:
                stay.end(Ending.FAILED)  # what the job has done is not known
                raise
            finally:
                if self._stay_slot.pool is None:
                    self._end_stays(Ending.PROCESS)
        finally:
            self._stay_turn.release()

    def _make_stay_room(self, stay: ProcessStay, nbytes: int) -> None:
        """Count a stay as the one that was used last; those that were used longest ago go if there are too many."""
        loop = asyncio.get_running_loop()
        stay.nbytes += nbytes
        stay.used_at = loop.time()
        self._stays.pop(stay.number, None)
        self._stays[stay.number] = stay
        total = sum(each.nbytes for each in self._stays.values())
        for each in list(self._stays.values())[:-1]:
            if len(self._stays) <= MAX_STAYS and total <= self._memory_bytes // STAY_SHARE:
                break
            total -= each.nbytes
            each.end(Ending.ROOM)
        if self._stay_timer is None:
            self._stay_timer = loop.call_later(STAY_IDLE_SECONDS, self._end_idle_stays)

    def ended(self, stay: ProcessStay) -> None:
        """Note that a stay is over; its process forgets the document with its next job."""
        if self._stays.pop(stay.number, None) is not None:
            self._stays_ended.append(stay.number)

    def _end_stays(self, ending: Ending) -> None:
        for stay in list(self._stays.values()):
            stay.end(ending)
        self._stays_ended.clear()

    def _end_idle_stays(self) -> None:
        """End the stays that nobody has used for long; without any the process goes too, and gives back its memory."""
        self._stay_timer = None
        loop = asyncio.get_running_loop()
        before = loop.time() - STAY_IDLE_SECONDS
        for stay in list(self._stays.values()):
            if stay.used_at > before or self._stay_turn.locked():
                self._stay_timer = loop.call_at(
                    max(stay.used_at + STAY_IDLE_SECONDS, loop.time() + 1.0), self._end_idle_stays
                )
                return
            stay.end(Ending.IDLE)
        pool, self._stay_slot.pool = self._stay_slot.pool, None
        if pool is not None:
            self._discard(pool)
        self._stays_ended.clear()

    def _new_pool(self, *, stays: bool) -> ProcessPool:
        """Make a pool of one process, which starts with its first job."""
        process = multiprocessing.current_process()
        if process.daemon:
            # A worker of hypercorn. What the mark forbids is left-over processes, and these end with their pipes.
            process.daemon = False
        context = multiprocessing.get_context("spawn")
        return ProcessPool(
            max_workers=1, context=context, initializer=jobs.prepare_process, initargs=(self._memory_bytes, stays)
        )

    async def close(self) -> None:
        """Stop all processes; jobs that run end with SandboxBusy."""
        self._closed = True
        pools = [pool for pool in self._idle if pool is not None]
        pools += self._running
        if self._stay_slot.pool is not None and self._stay_slot.pool not in self._running:
            pools.append(self._stay_slot.pool)
            self._stay_slot.pool = None
        if self._stay_timer is not None:
            self._stay_timer.cancel()
            self._stay_timer = None
        self._end_stays(Ending.CLOSED)
        if self._starting is not None:
            self._starting.cancel()
        # A stopped pool does not always tell those who wait for its job.
        for result in self._running.values():
            if result is not None:
                result.cancel()
        self._idle = [None] * len(self._idle)
        await asyncio.gather(*self._stopping, *(asyncio.to_thread(_stop, pool) for pool in pools))
        if self._starting is not None:
            await asyncio.wait([self._starting])


class _Slot:
    """The place of a pool, which may be gone."""

    __slots__ = ("pool",)

    def __init__(self, pool: ProcessPool | None) -> None:
        self.pool = pool


class ProcessStay:
    """A document that stays in the sandbox's process for that (``collab.sandbox.port.Stay``).

    Attributes:
        number: of the stay; no other has it.
        nbytes: how large the document is, encoded, at most.
        used_at: when it was used last, in the loop's seconds.
    """

    __slots__ = ("_sandbox", "client_id", "ending", "nbytes", "number", "used_at")

    def __init__(self, sandbox: ProcessSandbox, number: int, client_id: int) -> None:
        self._sandbox = sandbox
        self.number = number
        self.client_id = client_id
        self.ending: Ending | None = None
        self.nbytes = 0
        self.used_at = 0.0

    @property
    def over(self) -> bool:
        """Whether the stay has ended."""
        return self.ending is not None

    async def run(self, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """Bring the document up to date and do tasks."""
        return await self._sandbox.run_stay(self, updates, tasks)

    def end(self, ending: Ending = Ending.RELEASED) -> None:
        """End the stay."""
        if self.ending is None:
            self.ending = ending
            self._sandbox.ended(self)


def _stop(pool: ProcessPool) -> None:
    """Kill a pool's process and end its threads; blocks."""
    with contextlib.suppress(RuntimeError):
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _cause(exit_code: int | None) -> str:
    """Say how a process ended."""
    if exit_code is not None and exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"
