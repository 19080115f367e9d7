"""One piece of work for all who want the same at the same time.

Strategy: the work runs in a task of its own, which outlives each of those who wait for it: the client
who asked first may go away without failing the others. The tasks are kept here until they end, and
``close`` ends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from collab.errors import AccessUnavailable, is_refusal
from collab.telemetry import get_logger

_log = get_logger("auth")

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


class Flights(Generic[_Key, _Result]):
    """Work under way, by what it is for; at most ``limit`` at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: dict[_Key, asyncio.Task[_Result]] = {}
        self._waiting: dict[asyncio.Task[_Result], int] = {}  # for how many each is under way
        self._closed = False

    def launch(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> asyncio.Task[_Result]:
        """Start ``work`` unless it is under way, and give its task, which is not to be cancelled.

        What it raises reaches those who ``join``. If nobody waits, the work itself must have said so, but for a
        defect of ours, which is logged here with its traceback.

        Raises:
            AccessUnavailable: too much is under way, or this is closed.
        """
        task = self._tasks.get(key)
        if task is None:
            if self._closed:
                raise AccessUnavailable("access is no longer decided: closing")
            if len(self._tasks) >= self._limit:
                raise AccessUnavailable(f"{self._limit} questions wait for an answer already")
            task = asyncio.get_running_loop().create_task(work())
            self._tasks[key] = task
            task.add_done_callback(partial(self._landed, key))
        return task

    async def join(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Start ``work`` unless it is under way, and wait for what it gives or raises.

        Raises:
            AccessUnavailable: as ``launch``, and when this is closed meanwhile.
        """
        task = self.launch(key, work)
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if task.cancelled() and waiter is not None and not waiter.cancelling():
                raise AccessUnavailable("access is no longer decided: closing") from None
            raise
        finally:
            if self._waiting[task] == 1:
                del self._waiting[task]
            else:
                self._waiting[task] -= 1
            del task  # it holds what it has raised, whose frames hold this one

    def __contains__(self, key: _Key) -> bool:
        """Tell whether work for ``key`` is under way."""
        return key in self._tasks

    async def close(self) -> None:
        """End what is under way and take nothing more."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: _Key, task: asyncio.Task[_Result]) -> None:
        del self._tasks[key]
        if task.cancelled():
            return
        error = task.exception()  # seen: those who wait raise it, and asyncio need not report it at exit
        if error is not None and task not in self._waiting and not is_refusal(error):
            _log.error("a question about access failed", exc_info=error)
