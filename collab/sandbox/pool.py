"""The sandbox: jobs in kept processes with limits.

Strategy: a job is given to a process of its own pool of one (pebble), so a process that dies with a lock or
half a message in its hands can only spoil its own pool, which is then replaced. Processes are
spawned, never forked: the server has threads and an event loop. They start with the first job and stay; one that
hung was killed and one that failed in a way that its own code did not choose (a panic, no memory) is
replaced, because what the library left behind is not to be trusted. What blocks (starting, stopping)
happens in threads, never on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from collab.content.edits import Format
from collab.errors import CollabError, SandboxCrashed, SandboxError, SandboxTimeout
from collab.sandbox import jobs
from collab.update.compact import Compacted

_Result = TypeVar("_Result")

# Each waiting job holds a copy of its document, so this bounds memory; compaction comes again by itself.
MAX_WAITING = 64
# Beyond the job's own limit: starting a process, and handing over and back what may be 256 MiB.
# Only a pool whose channel was broken by a dying process gets there.
GRACE_SECONDS = 20.0


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

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document and make its index."""
        return await self.run(jobs.compact, data, gc)

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return a document's content as values that JSON can hold."""
        return await self.run(jobs.content, data, format, root)

    async def run(self, job: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function of an importable module in a sandbox process; it and its arguments are pickled.

        Raises what the function raises if that is a CollabError; SandboxTimeout, SandboxCrashed (any other
        exception too), and SandboxError when too many jobs wait or the sandbox is closed.
        """
        if self._waiting >= MAX_WAITING:
            raise SandboxError(f"{self._waiting} jobs wait for the sandbox already")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            return await self._run(job, arguments)
        finally:
            self._free.release()

    async def _run(self, job: Callable[..., _Result], arguments: tuple[Any, ...]) -> _Result:
        """Run a job on an idle pool; keep the pool only if it ended as jobs should."""
        pool = self._idle.pop() or self._new_pool()
        self._running[pool] = None
        keep = False
        try:
            # Starting the process and pebble's threads blocks for some milliseconds.
            limit = self._seconds + GRACE_SECONDS
            future = await asyncio.to_thread(
                pool.schedule, jobs.limited, args=(limit, job, *arguments), timeout=self._seconds
            )
            if self._closed:
                raise SandboxError("the sandbox was closed")
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
            raise SandboxTimeout(f"a {job.__name__} job took longer than {self._seconds:g} seconds") from None
        except ProcessExpired as error:
            raise SandboxCrashed(f"the process of a {job.__name__} job died: {_cause(error.exitcode)}") from None
        except (CancelledError, asyncio.CancelledError):
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise SandboxError("the sandbox was closed") from None
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if self._closed:
                raise SandboxError("the sandbox was closed") from None
            raise SandboxCrashed(f"a {job.__name__} job failed: {type(error).__name__}: {error}") from error
        finally:
            self._running.pop(pool, None)
            self._idle.append(pool if keep and not self._closed else None)
            if not keep and not self._closed:
                # In a thread and not waited for: the next job starts a process of its own.
                stopping = asyncio.get_running_loop().run_in_executor(None, _stop, pool)
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)

    def _new_pool(self) -> ProcessPool:
        """Make a pool of one process, which starts with its first job."""
        context = multiprocessing.get_context("spawn")
        return ProcessPool(
            max_workers=1, context=context, initializer=jobs.prepare_process, initargs=(self._memory_bytes,)
        )

    async def close(self) -> None:
        """Stop all processes; jobs that run end with SandboxError."""
        self._closed = True
        pools = [pool for pool in self._idle if pool is not None]
        pools += self._running
        # A stopped pool does not always tell those who wait for its job.
        for result in self._running.values():
            if result is not None:
                result.cancel()
        self._idle = [None] * len(self._idle)
        await asyncio.gather(*self._stopping, *(asyncio.to_thread(_stop, pool) for pool in pools))


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
