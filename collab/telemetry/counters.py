"""Plain objects in which every layer counts what it does; nothing here reads or exports them.

Strategy: a number is an attribute, and whoever does the work adds to it. So counting costs an addition, needs no lock
(all of it happens on the loop) and no library. What is counted for each of several reasons is a ``Counter`` whose keys
are constants of our code or names of our classes, never anything that a client has sent. The transports export it all
(``collab.transports.http.metrics``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds for times: from a commit on a fast disk to what people have long given up on."""

SHORT_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS[:-2])
"""Bounds for times in which nothing waits for a disk or a network."""

SIZES = tuple([float(4**power) for power in range(3, 13)])
"""Bounds for bytes: from one keystroke (64) to a large paste (16 MiB)."""

ENTRIES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Bounds for how many things went together, up to what may."""


class Histogram:
    """Count how often a value lies between bounds.

    Args:
        bounds: in ascending order.

    Attributes:
        bounds: as given.
        counts: how many values were at most each bound and above the one before; the last has all that are larger.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, or so many of it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def fold(self) -> None:
        """Count what was only noted so far; nothing here."""


class NotedHistogram(Histogram):
    """Note values where each edit passes, and count them later: to note one costs a tenth of counting it.

    Call ``fold`` now and then, and before the counts are read: until then ``noted`` grows.

    Attributes:
        note: takes a value.
        noted: what waits to be counted.
    """

    __slots__ = ("note", "noted")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        super().__init__(bounds)
        self.noted: list[float] = []
        self.note: Callable[[float], None] = self.noted.append

    def fold(self) -> None:
        """Count what was noted: sorted, so that each bound is looked for once and not each value."""
        noted = self.noted
        if not noted:
            return
        noted.sort()
        before = 0
        for place, bound in enumerate(self.bounds):
            upto = bisect_right(noted, bound, before)
            self.counts[place] += upto - before
            before = upto
        self.counts[-1] += len(noted) - before
        self.sum += sum(noted)
        noted.clear()


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Estimate the value below which a share (0 to 1) of what a histogram has counted lies; None if that is nothing.

    Within a bucket values are taken to be spread evenly, as ``histogram_quantile`` of Prometheus does it; of those
    above the last bound only that bound is known. ``bounds`` and ``counts`` are as of ``Histogram``.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for place, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            lower = bounds[place - 1] if place else 0.0
            return lower + (bounds[place] - lower) * max(0.0, wanted - below) / count
        below += count
    return bounds[-1]
