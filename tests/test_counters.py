"""What is counted in plain objects: exact at its bounds."""

from __future__ import annotations

import asyncio
import bisect
import math
from random import Random

import pytest

from collab.telemetry.counters import SECONDS, Histogram, NotedHistogram, quantile
from collab.telemetry.loop_lag import PAUSE, LoopLag
from tests.support.waiting import happens


def test_a_histogram_counts_each_value_once_and_a_bound_belongs_to_what_is_below() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1, 100.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert (histogram.count, histogram.sum) == (6, pytest.approx(106.6))


def test_a_histogram_takes_the_same_value_many_times() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.5, 10)
    histogram.observe(2.0, 0)
    assert (histogram.counts, histogram.sum) == ([10, 0], 5.0)


def test_what_was_noted_is_counted_as_what_was_observed() -> None:
    values = [0.0, 1.0, 1.5, 2.0, 2.1, 100.0, 1.0]
    noted, observed = NotedHistogram((1.0, 2.0)), Histogram((1.0, 2.0))
    for value in values:
        noted.note(value)
        observed.observe(value)
    assert (noted.count, noted.sum) == (0, 0.0), "not yet"
    for _ in range(2):
        noted.fold()
        assert noted.counts == observed.counts == [3, 2, 2] and noted.sum == pytest.approx(observed.sum)
    noted.note(2.0)
    noted.fold()
    assert noted.counts == [3, 3, 2] and not noted.noted


def test_histograms_share_nothing() -> None:
    one, two = Histogram(), Histogram()
    one.observe(0.5)
    assert (one.count, two.count) == (1, 0)
    assert list(SECONDS) == sorted(SECONDS)


async def test_the_lag_of_the_loop_is_what_a_look_comes_too_late() -> None:
    now = 0.0

    def clock() -> float:
        """Say that each pause takes half a second more than it should; one is even too short."""
        nonlocal now
        now += lates.pop(0) if lates else 0.0
        return now

    # In turn the clock before a pause and behind it.
    lates = [0.0, PAUSE + 0.5, 0.0, PAUSE - 0.01]
    lag = LoopLag(clock)
    task = asyncio.create_task(lag.watch())
    try:
        await happens(lambda: lag.seconds.count >= 2, "two looks")
    finally:
        task.cancel()
    assert lag.seconds.sum == pytest.approx(0.5)
    assert lag.seconds.counts[0] >= 1, "never less than none"


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(seed: int) -> None:
    random = Random(seed)
    values = sorted(random.expovariate(20.0) for _ in range(random.randrange(1, 500)))
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    bounds = (0.0, *histogram.bounds)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(0, math.ceil(share * len(values)) - 1)]
        found = quantile(histogram.bounds, histogram.counts, share)
        assert found is not None
        above = bisect.bisect_left(bounds, exact)
        assert bounds[above - 1] <= found <= bounds[min(above, len(bounds) - 1)], (share, exact, found)


def test_of_nothing_there_is_no_quantile_and_above_the_last_bound_there_is_that() -> None:
    assert quantile((1.0, 2.0), [0, 0, 0], 0.5) is None
    assert quantile((1.0, 2.0), [0, 0, 7], 0.5) == 2.0
