"""Code that blocks, run in threads beside the server's loop, with Django's connections as in a request.

Strategy: a pool of its own for each purpose, so that receivers that hang do not keep anybody from being asked about. A
call that its caller has given up on goes on in its thread: nothing can end it. So the pool bounds how many there are,
and `Threads.busy` says whether one is left when the process ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
Result = TypeVar("Result")


class Threads:
    """Runs functions in threads, ``size`` at a time; the others wait."""

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=f"collab-{name}")
        self._lock = threading.Lock()
        self._running = 0

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._running > 0

    async def run(self, function: Callable[P, Result], *args: P.args, **given: P.kwargs) -> Result:
        """Call a function in a thread and give what it gives; a call that is cancelled before it began is not made."""

        def call() -> Result:
            with self._lock:
                self._running += 1
            try:
                close_old_connections()
                return function(*args, **given)
            finally:
                close_old_connections()
                with self._lock:
                    self._running -= 1

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
