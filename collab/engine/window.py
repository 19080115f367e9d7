"""How long a room waits between two turns: next to nothing on an idle node, longer the more there is to do.

Strategy: sending is the cost (about 5 us a frame and socket), and edits that travel together are sent once. While a
node has time to spare, people should not wait for that; when it has none, waiting is what gives everybody a turn. So
the window of a room is a product of two: what a room of its size would wait at the most, and how busy the node is.
Nothing here reads a clock: the times come from the caller.

- Size: a quarter of the full window at five members, all of it from twenty on, half as much again for a hundred.
- Load: the part of its time for which the loop works, smoothed over a quarter of a second. From three quarters on
  the windows are whole.
- When ending turns takes most of the time even so, all windows stretch, to 25 ms at the most.
"""

from __future__ import annotations

# Members at which a room's window is the full one, and how much longer it is for a crowd, from how many on.
_FULL_WINDOW_MEMBERS = 20
_CROWD = 0.5
_CROWD_MEMBERS = 100

# The load from which windows are whole, and the seconds over which it is smoothed. A node that is a quarter busy
# with a hundred people who type in one room waits 2 ms there: half of what they type waits for less than 0.7 ms.
_BUSY = 0.75
_SMOOTH = 0.25

# Seconds between two measurements, the share of the time spent on ending turns above which windows stretch, and how
# far. Twice the window is nearly half the sending; what a crowd loses in latency, it would lose many times over in a
# queue.
_MEASURE = 0.05
_SENDING = 0.4
_LONGEST_STRETCH = 32.0
_LONGEST_WINDOW = 0.025


class Window:
    """How long the rooms of one node wait between two turns.

    Args:
        full: seconds that a room of twenty waits on a busy node.

    Attributes:
        load: the part of its time for which the loop works, 0 to 1, smoothed.
        measure_at: before this time ``measure`` has nothing to say; seconds of the caller's clock.
    """

    __slots__ = ("_ending", "_full", "_measured_at", "_stretch", "_worked", "load", "measure_at")

    def __init__(self, full: float) -> None:
        self._full = full
        self._stretch = 1.0
        self._measured_at: float | None = None
        self._worked = self._ending = 0.0
        self.load = 0.0
        self.measure_at = float("-inf")

    def of(self, members: int) -> float:
        """Return the seconds from the end of a turn of a room with so many members to the end of its next one."""
        whole = self._full * min(members / _FULL_WINDOW_MEMBERS, 1.0 + min(_CROWD, members / _CROWD_MEMBERS * _CROWD))
        window = whole * self.busy
        return window if self._stretch == 1.0 else max(window, min(window * self._stretch, _LONGEST_WINDOW))

    @property
    def busy(self) -> float:
        """How much of its windows the node uses, 0 to 1: all of them from three quarters of the load on."""
        return 1.0 if self.load >= _BUSY else self.load / _BUSY

    def measure(self, now: float, worked: float, ending: float) -> None:
        """Learn how busy the node is.

        Args:
            now: the time in seconds; any clock that never goes back.
            worked: seconds of CPU that the loop has used in all so far.
            ending: seconds that ending turns has taken in all so far. On a machine that has other work, too, a part of
                it may be waiting for a core, which is as good a reason to send less.
        """
        if self._measured_at is not None:
            elapsed = max(now - self._measured_at, 1e-9)
            sending = (ending - self._ending) / elapsed
            busy = min(1.0, max((worked - self._worked) / elapsed, sending))
            self.load += (busy - self.load) * min(1.0, elapsed / _SMOOTH)
            if sending > _SENDING:
                self._stretch = min(self._stretch * 2, _LONGEST_STRETCH)
            elif sending < _SENDING / 2 and self._stretch > 1.0:
                self._stretch /= 2
        self._measured_at, self._worked, self._ending = now, worked, ending
        self.measure_at = now + _MEASURE
