"""Background tasks that are owned by somebody.

Strategy: a task that nobody awaits loses its exception and may be collected in mid-flight. Here each
one is kept until it ends, its failure is logged, and ``close`` cancels and awaits what is left. What must run as long
as the server does, or to its end, is supervised: when it fails it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from collab.telemetry import get_logger

_log = get_logger()

Result = TypeVar("Result")


def retrieve(task: asyncio.Task[Any]) -> BaseException | None:
    """Return what a task that is done has raised; None if it was cancelled.

    A cancelled task keeps its CancelledError until somebody asks, and that error's frames (of
    ``asyncio.timeout``, say) hold the task: a cycle.
    """
    try:
        return task.exception()
    except asyncio.CancelledError:
        return None


# Seconds until work that has failed is started again: the first time, and at most when it fails again and again.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 15.0


class Tasks:
    """A set of running tasks with one end.

    Attributes:
        failing: supervised work that has failed and not run well since, with the name of the error.
    """

    def __init__(self) -> None:
        self.failing: dict[str, str] = {}
        self._running: dict[asyncio.Task[Any], None] = {}  # in the order of their start, in which they are cancelled

    def spawn(self, work: Coroutine[Any, Any, Result], name: str, *, awaited: bool = False) -> asyncio.Task[Result]:
        """Start ``work`` on the running loop.

        Args:
            work: what to run.
            name: under which an exception of it is logged.
            awaited: somebody awaits the task and so gets its exception; it is not logged here.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running[task] = None
        task.add_done_callback(self._done if awaited else self._log_failure)
        return task

    def supervise(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run ``work`` to its end, which may never come, as a task; when it fails, log that and start it again.

        It is started again after a second, and after twice as long each time (up to 15 seconds) if it fails again soon.
        Until it has ended, or run well for as long, ``failing`` names it.
        """
        self.spawn(self._run_again(work, name), name)

    async def _run_again(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                lived = await self._run_once(work, name, pause)
                if lived is None:
                    return
                pause = _FIRST_PAUSE if lived > _LONGEST_PAUSE else pause
                await asyncio.sleep(pause)
            except MemoryError:  # none to start it, to say that it has failed, or to wait: it has to go on all the same
                with contextlib.suppress(MemoryError):
                    await asyncio.sleep(0)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run_once(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, pause: float) -> float | None:
        """Run ``work``; return the seconds after which it has failed, None if it has ended."""
        loop = asyncio.get_running_loop()
        # It has to run for as long as it had to wait, before it counts as well.
        well = loop.call_later(pause, self.failing.pop, name, None)
        started = loop.time()
        try:
            await work()
            self.failing.pop(name, None)
            return None
        except Exception as error:
            lived = loop.time() - started
            pause = _FIRST_PAUSE if lived > _LONGEST_PAUSE else pause
            self.failing[name] = type(error).__name__
            _log.error("the task %s has failed and starts again in %.0f s", name, pause, exc_info=error)
            return lived
        finally:
            well.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        retrieve(task)  # in case everybody who awaited it has gone

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        self._running.pop(task, None)
        if (error := retrieve(task)) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
