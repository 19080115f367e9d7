"""When the turns of rooms end.

Strategy: the first edit after quiet goes at the end of the loop's own turn, so it is never delayed; edits that follow
within the room's window travel together when it is over. How long that is decides ``engine.window``, which is told
here how busy the loop is. All rooms share one sweep and one timer; those whose window is not over are not looked at
before the first of them is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from time import perf_counter

from collab.engine.window import Window
from collab.hub.room import LiveRoom
from collab.hub.shares import TURNS_SECONDS, Share

# Seconds before its end in which a window counts as over: the timers of uvloop count whole milliseconds, and one for
# less than half of one would fire at once, again and again.
_TICK = 0.0005


class Turns:
    """The rooms whose turn is about to end.

    Args:
        window: seconds of the full window.
        worked: gives the seconds of CPU that the loop's thread has used.
        monotonic: the loop's own time, which uvloop gives in whole milliseconds, more exactly.

    Attributes:
        window: how long rooms wait between two turns.
    """

    def __init__(
        self,
        window: float,
        worked: Callable[[], float] = time.thread_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.window = Window(window)
        self._worked = worked
        self._monotonic = monotonic
        self._ending = 0.0  # seconds that ending turns has taken
        self._dirty: list[LiveRoom] = []
        self._later: list[LiveRoom] = []  # their windows are not over; the first one is at ``_later_due``
        self._later_due = float("inf")
        self._behind: list[LiveRoom] = []  # their windows are over, and they wait for the time of their tenants
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def touched(self) -> int:
        """How many turns have not ended; a room may count twice for a moment."""
        return len(self._dirty) + len(self._later) + len(self._behind)

    def touch(self, live: LiveRoom) -> None:
        """Let the room's turn end soon: it has something for its members."""
        if live.dirty:
            return
        self._dirty.append(live)
        live.dirty = True
        live.touched_at = self._monotonic()
        if not self._scheduled:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._sweep_again()

    def end_now(self, live: LiveRoom) -> None:
        """End the turn of a room now, and not with the loop's own turn, unless its window is not over."""
        now = self._monotonic()
        share = live.share
        if (
            live.dirty
            and share is not None
            and now + _TICK >= live.flushed_at + self.window.of(len(live.room.sessions))
        ):
            _end_turn(live, share, now)
            self._ending += self._monotonic() - now

    def end_all(self, now: float) -> None:
        """End the turn of every touched room now, whatever its window."""
        dirty = self._behind + self._later + self._dirty
        self._dirty, self._later, self._behind = [], [], []
        self._later_due = float("inf")
        for live in dirty:
            live.end_turn(now)  # which raises nothing: a turn that fails ends its own room alone

    def close(self) -> None:
        """Plan no more turns."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        """End the turn of every touched room whose window is over; the rest wait for one timer."""
        assert self._loop is not None  # set by the touch that has planned this
        now = self._monotonic()
        dirty, self._dirty = self._dirty, []
        if now + _TICK >= self._later_due:
            dirty, self._later, self._later_due = self._later + dirty, [], float("inf")
        for live in dirty:
            if not live.dirty:
                continue  # its turn has ended meanwhile
            try:
                due = live.flushed_at + self.window.of(len(live.room.sessions))
                if due > now + _TICK:
                    self._later.append(live)
                    self._later_due = min(self._later_due, due)
                elif live.share is None:
                    live.end_turn(now)
                elif live.share.ahead:
                    self._behind.append(live)
                else:
                    _end_turn(live, live.share, now)
            except Exception as error:
                live.failed(error)  # it would stay dirty for ever; the others have their turns
        if self._behind:
            self._end_behind(now)
        finished = self._monotonic()
        self._ending += finished - now
        if finished >= self.window.measure_at:
            self.window.measure(finished, self._worked(), self._ending)
        if self._later and (self._timer is None or self._timer_due > self._later_due):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = self._later_due
            self._timer = self._loop.call_later(max(0.0, self._later_due - finished), self._timer_fired)

    def _end_behind(self, now: float) -> None:
        """End turns of rooms whose tenants are ahead, as long as these have time in this turn of the loop."""
        behind, self._behind = self._behind, []
        for live in behind:
            share = live.share
            if share is not None and share.ahead and share.spent_on_turns > TURNS_SECONDS:
                self._behind.append(live)
            elif share is None:
                live.end_turn(now)
            elif live.dirty:
                _end_turn(live, share, now)
        if self._behind:
            self._sweep_again()

    def _sweep_again(self) -> None:
        """Sweep once more in the next turn of the loop."""
        assert self._loop is not None
        if not self._scheduled:
            self._loop.call_soon(self._planned_sweep)
            self._scheduled = True

    def _planned_sweep(self) -> None:
        # Not in the sweep itself: the timer sweeps too, and what is planned is still planned then. Else each of its
        # sweeps while somebody waits for time would plan another one, and all of these would go on side by side.
        self._scheduled = False
        self._sweep()

    def _timer_fired(self) -> None:
        self._timer = None
        self._sweep()


def _end_turn(live: LiveRoom, share: Share, now: float) -> None:
    began = perf_counter()
    live.end_turn(now)
    ended = perf_counter()
    share.charge_turn(ended - began, ended)
