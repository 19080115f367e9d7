"""How late the event loop is: what everything else that waits on this loop waits in addition; and what it does then.

Strategy: the loop looks at the clock ten times a second, which measures the lag and is its sign of life. A thread looks
at that sign. When it stays away, the thread writes what the loop's thread is doing into the log, because the loop
cannot. Past a limit it ends the process, for whoever has started it to start it again: no edit that was called saved is
lost by that, and clients hold the others. A stall is counted in looks of the thread and not measured: after a pause of
the whole machine, or of the process, nobody has missed anything. Code that holds the interpreter's lock stops the
thread too: such a stall is told when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from collab.telemetry.counters import Histogram
from collab.telemetry.logs import RateLimited, get_logger

_log = get_logger("loop")

PAUSE = 0.1
"""Seconds between two looks: a stall is seen by at most one of them, and ten a second cost nothing."""

STALL_SECONDS: Final = 1.0
"""A loop that is later than this stands still: everybody who edits notices. Nothing that we do takes a tenth of it."""

EXIT_CODE: Final = 70
"""Of a process that was ended for its stall (EX_SOFTWARE of sysexits.h)."""

# Seconds between two looks of the thread.
_LOOK = 0.25

# Seconds until the stack is written again, of one stall (and twice as many each time) and of two.
_AGAIN = 10.0

# Seconds that writing a line may take: what stalls the loop may be the log itself.
_WRITE_SECONDS = 2.0


class LoopLag:
    """Measure the lag.

    Args:
        clock: monotonic seconds; the loop's own clock has milliseconds.

    Attributes:
        seconds: how much later than planned each look came.
        looks: how many there were; None while nobody looks.
        stalls: how often the loop was late by ``STALL_SECONDS`` or more.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = Histogram()
        self.looks: int | None = None
        self.stalls = 0
        self._clock = clock
        self._limited = RateLimited(_log, per_second=0.1)

    async def watch(self) -> None:
        """Look again and again; run it supervised."""
        looks = 0
        try:
            while True:
                self.looks = looks = looks + 1
                before = self._clock()
                await asyncio.sleep(PAUSE)
                # A timer of whole milliseconds may come a little early.
                late = max(0.0, self._clock() - before - PAUSE)
                self.seconds.observe(late)
                if late >= STALL_SECONDS:
                    self.stalls += 1
                    self._limited.warning("stall", "the event loop stood still for %.1f s and goes on", late)
        finally:
            self.looks = None


class Watchdog:
    """Watch over the event loop from a thread of its own.

    Args:
        lag: what looks on the loop.
        limit: seconds of a stall after which the process ends; 0: never.
        end: ends the process with an exit code, at once.
        look: seconds between two looks.
    """

    def __init__(
        self, lag: LoopLag, limit: float = 0.0, *, end: Callable[[int], object] = os._exit, look: float = _LOOK
    ) -> None:
        self._lag = lag
        self._limit = limit
        self._end = end
        self._look = look
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0
        self._next = 0.0
        self._left_out = 0
        self._writing: threading.Thread | None = None

    def start(self) -> None:
        """Begin; call it on the loop."""
        self._loop, self._watched = asyncio.get_running_loop(), threading.get_ident()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """End within a look; nobody has to wait for it."""
        self._stop.set()

    def _watch(self) -> None:
        seen, stood, told = self._lag.looks, 0.0, 0.0
        while not self._stop.wait(self._look):
            if (looks := self._lag.looks) is None or looks != seen:
                seen, stood, told = looks, 0.0, 0.0
                continue
            stood += self._look
            if self._limit and stood >= self._limit:
                self._write(
                    logging.CRITICAL,
                    "the event loop has stood still for %.0f s: the process ends with exit code %d",
                    stood,
                    EXIT_CODE,
                )
                self._end(EXIT_CODE)
                return
            if stood >= max(told, STALL_SECONDS + PAUSE + self._look):  # then the loop counts it too
                told = max(_AGAIN, 2 * stood)
                self._tell(stood)

    def _tell(self, stood: float) -> None:
        now = time.monotonic()
        if now < self._next and stood < _AGAIN:
            self._left_out += 1
            return
        self._next = now + _AGAIN
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} more like it not shown)" if left_out else ""
        self._write(
            logging.ERROR,
            "the event loop has stood still for %.1f s in %s; what it does stands below%s",
            stood,
            self._task(),
            more,
        )

    def _task(self) -> str:
        """Name the task that holds the loop; often that says for which document."""
        try:
            task = asyncio.current_task(self._loop)
        except RuntimeError:
            task = None
        return "a callback" if task is None else f"the task {task.get_name()!r}"

    def _write(self, level: int, message: str, *args: object) -> None:
        """Write a line with the stack of the loop's thread, by another thread: it may have to wait for the log."""
        if self._writing is not None and self._writing.is_alive():
            return
        record = _log.makeRecord(_log.name, level, __file__, 0, message, args, None)
        frame = sys._current_frames().get(self._watched)
        if frame is not None:
            record.stack_info = "".join(traceback.format_stack(frame)).rstrip("\n")
        if _log.isEnabledFor(record.levelno):
            self._writing = threading.Thread(target=_log.handle, args=(record,), name="watchdog's line", daemon=True)
            self._writing.start()
            self._writing.join(_WRITE_SECONDS)
