"""Pauses in the long work of a thread, so that the event loop goes on beside it.

Strategy: an interpreter runs one thread at a time. While a thread makes objects of a thousand rows, the loop gets the
interpreter for one callback at a time, and has to wait for it again before the next one: what takes it a millisecond
takes five. So a thread works in slices, and sleeps after each one during which it had to wait itself, because then
somebody else has work to do. Where nobody has, it never sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SLICE_ROWS: Final = 64
"""Rows of a slice: less than a millisecond of work."""

_CROWDED: Final = 1.25
"""How much longer than its work a slice takes when others want the interpreter, or a core."""

_LONGEST: Final = 0.002
"""Seconds of a pause, at most: what a slice waits for may also be a disk."""


class Pauses:
    """The pauses of one piece of work; call it between two slices, in the thread that works.

    Args:
        clock: gives seconds.
        worked: gives the seconds of CPU that the thread has used.
        sleep: sleeps.
    """

    __slots__ = ("_at", "_clock", "_sleep", "_work", "_worked")

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        worked: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock, self._worked, self._sleep = clock, worked, sleep
        self._at, self._work = clock(), worked()

    def __call__(self) -> None:
        """Sleep for as long as the slice has taken, if others had work to do meanwhile."""
        took = self._clock() - self._at
        if took > _CROWDED * (self._worked() - self._work):
            self._sleep(min(took, _LONGEST))
        self._at, self._work = self._clock(), self._worked()
