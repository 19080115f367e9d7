"""How late the event loop is: what everything else that waits on this loop waits in addition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from collab.telemetry.counters import Histogram

PAUSE = 0.1
"""Seconds between two looks: a stall is seen by at most one of them, and ten a second cost nothing."""


class LoopLag:
    """Measure the lag.

    Args:
        clock: monotonic seconds; the loop's own clock has milliseconds.

    Attributes:
        seconds: how much later than planned each look came.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = Histogram()
        self._clock = clock

    async def watch(self) -> None:
        """Look again and again; run it supervised."""
        while True:
            before = self._clock()
            await asyncio.sleep(PAUSE)
            # A timer of whole milliseconds may come a little early.
            self.seconds.observe(max(0.0, self._clock() - before - PAUSE))
