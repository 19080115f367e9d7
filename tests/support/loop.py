"""uvloop as the server runs it, that ends a test when pytest-timeout's alarm rings.

An exception that a signal handler raises while uvloop waits for the kernel does not leave uvloop, and the test goes
on waiting. So the loop takes the alarm itself, cancels what it runs, and only then lets pytest-timeout speak: the
traceback shows where the test waited.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import TypeVar

import uvloop

_T = TypeVar("_T")


class TimedLoop(uvloop.Loop):
    """A uvloop that obeys SIGALRM, if somebody has set a handler for it."""

    def run_until_complete(self, future: Awaitable[_T]) -> _T:  # type: ignore[override]
        """Run ``future``.

        Raises: whatever the handler of SIGALRM raises, if the alarm rang; else what ``future`` raises.
        """
        handler = signal.getsignal(signal.SIGALRM)
        if not callable(handler):
            return super().run_until_complete(future)
        task = asyncio.ensure_future(future, loop=self)
        rung = False

        def ring() -> None:
            nonlocal rung
            rung = True
            task.cancel()

        self.add_signal_handler(signal.SIGALRM, ring)
        try:
            return super().run_until_complete(task)
        finally:
            self.remove_signal_handler(signal.SIGALRM)
            signal.signal(signal.SIGALRM, handler)
            if rung:
                handler(signal.SIGALRM, None)
