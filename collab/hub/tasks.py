"""Background tasks that are owned by somebody.

Strategy: a task that nobody awaits loses its exception and may be collected in mid-flight. Here each
one is kept until it ends, its failure is logged, and ``close`` cancels and awaits what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from collab.telemetry import get_logger

_log = get_logger()

Result = TypeVar("Result")


class Tasks:
    """A set of running tasks with one end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Result], name: str, *, awaited: bool = False) -> asyncio.Task[Result]:
        """Start ``work`` on the running loop.

        Args:
            work: what to run.
            name: under which an exception of it is logged.
            awaited: somebody awaits the task and so gets its exception; it is not logged here.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done if awaited else self._log_failure)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case everybody who awaited it has gone

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
