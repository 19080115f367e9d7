"""What was sent when, and what arrived: the books of one run.

Strategy: a send is one float in its client's list, at its clock; an arrival looks it up. What a frame
carries is read once and remembered by the frame's bytes (every receiver in a room gets the same ones),
with equal send times gathered, so that a receiver's share is a lookup, a clock comparison and one
addition for each distinct send time. Latencies go into buckets of 50 microseconds: memory stays
constant however long the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from collab.bench.updates import Range, percentile

BUCKETS_PER_SECOND = 20_000
# Frames are remembered until there are so many of them, then all are forgotten: those still under
# way are read once more, which costs time only.
_REMEMBERED_FRAMES = 1 << 14

Moments = tuple[tuple[float, int], ...]
"""(send time in perf_counter seconds, how many of the frame's updates were sent then)."""


@dataclass(slots=True)
class Arrival:
    """What one frame carries: update ranges, or (for awareness) states with their clocks as (client, clock, clock).

    ``entries`` has the bytes of each of the states, when somebody has asked for them.
    """

    awareness: bool
    ranges: tuple[Range, ...]
    moments: Moments
    count: int
    entries: tuple[bytes, ...] | None = None


class Ledger:
    """The books of one run; connections write into it directly."""

    __slots__ = (
        "acks",
        "arrivals",
        "buckets",
        "delivered",
        "echoes",
        "frames",
        "gaps",
        "received_bytes",
        "sent",
        "sent_at",
        "step2_ranges",
    )

    def __init__(self) -> None:
        self.sent_at: dict[int, list[float]] = {}
        self.sent = 0
        self.delivered = 0
        self.frames = 0
        self.echoes = 0
        self.received_bytes = 0
        self.acks = 0
        self.gaps = 0
        self.buckets: dict[int, int] = {}
        self.arrivals: dict[bytes, Arrival | None] = {}
        self.step2_ranges: dict[bytes, list[Range]] = {}

    def remember(self, payload: bytes, arrival: Arrival | None) -> None:
        """Keep what a frame carries for the other clients that get the same bytes (None: nothing to count)."""
        if len(self.arrivals) >= _REMEMBERED_FRAMES:
            self.arrivals.clear()
        self.arrivals[payload] = arrival

    def moments(self, ranges: tuple[Range, ...] | list[Range]) -> Moments:
        """Return the send times of the updates in ``ranges``; those of other generators are left out."""
        weights: dict[float, int] = {}
        for client, start, end in ranges:
            times = self.sent_at.get(client)
            if times is not None:
                for moment in times[start:end]:
                    weights[moment] = weights.get(moment, 0) + 1
        return tuple(weights.items())

    def record(self, moments: Moments, now: float) -> None:
        """Add one delivery for each of ``moments``, received at ``now`` (perf_counter seconds)."""
        buckets = self.buckets
        for moment, weight in moments:
            bucket = int((now - moment) * BUCKETS_PER_SECOND)
            buckets[bucket] = buckets.get(bucket, 0) + weight

    def latency_ms(self, share: float) -> float | None:
        """Return the latency in milliseconds under which ``share`` (0 to 1) of the deliveries lie, None without any."""
        bucket = percentile(self.buckets, share)
        return None if bucket < 0 else (bucket + 1) * 1000 / BUCKETS_PER_SECOND

    def latencies(self) -> dict[str, float | None]:
        """Return p50, p95, p99 and the maximum in milliseconds, to 0.05."""
        return {
            "p50_ms": self.latency_ms(0.50),
            "p95_ms": self.latency_ms(0.95),
            "p99_ms": self.latency_ms(0.99),
            "max_ms": self.latency_ms(1.0),
        }
