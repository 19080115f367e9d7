"""How this node is now and was in the last hour: figures for operators, of the counters that ``/metrics`` shows.

Strategy: what is counted is looked at every few seconds, in one go, as an answer of ``/metrics`` does; nothing is added
where the work is done. A rate is the difference between a look some seconds ago and now, and a quantile is estimated
from what a histogram has counted in between. Every second look leaves one sample of the last hour, of which so many are
kept. What pages ask for each second is put together once a second, however many ask.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from collab.hub.hub import Hub
from collab.hub.membership import NodeFacts
from collab.hub.questions import Facts
from collab.limits.memory import Memory
from collab.sandbox.counted import DONE
from collab.telemetry.counters import Histogram, quantile
from collab.transports.http.metrics_list import METRICS, Reading, Sources, word

LOOK_SECONDS: Final = 5.0
"""Seconds between two looks: rates are of the last one to two of these."""

SAMPLE_SECONDS: Final = 2 * LOOK_SECONDS
"""Seconds between two samples of the last hour."""

SAMPLES: Final = 360
"""Samples that are kept: an hour."""

NOW, LAST_HOUR = "figures", "figures of the last hour"
"""The kinds of questions that this answers (``collab.hub.questions``)."""

# Seconds for which what was put together last is given again.
_FRESH: Final = 1.0

_METRICS: Final = {metric.name: metric for metric in METRICS}

RATES: Final[Mapping[str, str]] = {
    "edits": "collab_updates",
    "turns": "collab_turns",
    "received_messages": "collab_received_messages",
    "received_bytes": "collab_received_bytes",
    "delivered_frames": "collab_deliveries",
    "delivered_bytes": "collab_delivered_bytes",
    "stored_bytes": "collab_update_bytes",
    "http_answers": "collab_http_answers",
    "refusals": "collab_refusals",
    "limits": "collab_limits",
    "bus_messages": "collab_bus_messages",
    "sandbox_jobs": "collab_sandbox_jobs",
    "cpu": "process_cpu_seconds",
}
"""What is shown a second, and the counter that it is of; with labels, of all of them."""

QUANTILES: Final[Mapping[str, str]] = {
    "acknowledgement": "collab_acknowledgement_seconds",
    "propagation": "collab_propagation_seconds",
    "loop_lag": "collab_loop_lag_seconds",
}
"""Of what quantiles are shown, and the histogram."""

SERIES: Final = (
    "connections",
    "y_websocket",
    "hocuspocus",
    "streams",
    "rooms",
    "sessions",
    "slow_members",
    "edits",
    "received_messages",
    "received_bytes",
    "delivered_bytes",
    "acknowledgement_p50",
    "acknowledgement_p99",
    "loop_lag_p99",
    "memory",
    "journal_entries",
    "journal_bytes",
    "refusals",
    "limits",
    "bus_messages",
    "sandbox_jobs",
    "http_answers",
    "cpu",
)
"""The series of the last hour."""

_LISTED: Final = 40
"""Reasons that are listed of refusals, and of limits."""


class _Look(NamedTuple):
    """What was counted at one moment, ``at`` by the loop; of histograms the bounds and the counts of buckets."""

    at: float
    totals: dict[str, float]
    buckets: dict[str, tuple[Sequence[float], list[int]]]


class _Sample(NamedTuple):
    """One sample: ``at`` in Unix seconds, the values of ``SERIES``, and what was refused until then, by reason."""

    at: float
    values: tuple[float | None, ...]
    refusals: dict[str, int]
    limits: dict[str, int]


class Figures:
    """The figures of this node.

    Args:
        sources: where it is counted.
        node: what the node says of itself.
        memory: its marks.
        ready: says whether it is ready; see ``Readiness.look``.
        beside: looked at as often as this; it must not take long in one go.
    """

    def __init__(
        self,
        sources: Sources,
        node: NodeFacts,
        memory: Memory,
        ready: Callable[[], Awaitable[Facts]],
        beside: Callable[[], Awaitable[None]],
    ) -> None:
        self._sources = sources
        self._hub: Hub = sources.hub
        self._node = node
        self._memory = memory
        self._ready = ready
        self._beside = beside
        self._looks: deque[_Look] = deque(maxlen=2)
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self._made: tuple[float, Facts] | None = None
        self._making = asyncio.Lock()

    async def watch(self) -> None:
        """Look again and again; run it supervised."""
        count = 0
        while True:
            reading = Reading(self._sources)
            look = self._look(reading)
            if count % 2 == 0 and self._looks:
                self._samples.append(self._sample(reading, look))
            self._looks.append(look)
            count += 1
            await self._beside()
            await asyncio.sleep(LOOK_SECONDS)

    async def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of this node, or of another one; None to one that is for somebody else."""
        if asked.get("kind") == NOW:
            return await self.now()
        if asked.get("kind") == LAST_HOUR:
            node, since = asked.get("node"), asked.get("since")
            if node is not None and node != self._hub.membership.name:
                return {"at": [], "series": {}}
            return self.last_hour(float(since) if isinstance(since, int | float) else 0.0)
        return None

    async def now(self) -> Facts:
        """Give the figures as they are now, at most a second old."""
        async with self._making:
            if self._made is None or self._hub.now() - self._made[0] >= _FRESH:
                ready = await self._ready()
                self._made = self._hub.now(), self._put_together(ready)
            return self._made[1]

    def last_hour(self, since: float) -> Facts:
        """Give the samples behind a time, in Unix seconds of this node."""
        chosen = [sample for sample in self._samples if sample.at > since]
        return {
            "at": [sample.at for sample in chosen],
            "series": {name: [sample.values[place] for sample in chosen] for place, name in enumerate(SERIES)},
        }

    # Looking

    def _look(self, reading: Reading) -> _Look:
        buckets: dict[str, tuple[Sequence[float], list[int]]] = {}
        for name, metric in QUANTILES.items():
            value = _METRICS[metric].read(reading)
            assert isinstance(value, Histogram)
            value.fold()
            buckets[name] = (value.bounds, list(value.counts))
        return _Look(self._hub.now(), {name: _total(reading, metric) for name, metric in RATES.items()}, buckets)

    def _rates(self, look: _Look) -> dict[str, float]:
        """Give what has happened a second since the look before the last one, or since the start."""
        before = self._looks[0] if self._looks else look
        seconds = look.at - before.at
        if seconds <= 0:
            return dict.fromkeys(RATES, 0.0)
        # What a look has of a socket that ends meanwhile may be a little less than before.
        return {name: max(0.0, total - before.totals[name]) / seconds for name, total in look.totals.items()}

    def _quantile(self, look: _Look, name: str, share: float) -> float | None:
        bounds, counts = look.buckets[name]
        if self._looks:
            counts = [now - then for now, then in zip(counts, self._looks[0].buckets[name][1], strict=True)]
        return quantile(bounds, counts, share)

    def _sample(self, reading: Reading, look: _Look) -> _Sample:
        connections = self._connections(reading)
        values: dict[str, float | None] = {
            "connections": sum(connections.values()),
            "y_websocket": connections.get("y-websocket", 0),
            "hocuspocus": connections.get("hocuspocus", 0),
            "streams": connections["streams"],
            "rooms": len(self._hub.rooms),
            "sessions": reading.sessions,
            "slow_members": self._hub.slow_members,
            "acknowledgement_p50": self._quantile(look, "acknowledgement", 0.5),
            "acknowledgement_p99": self._quantile(look, "acknowledgement", 0.99),
            "loop_lag_p99": self._quantile(look, "loop_lag", 0.99),
            "memory": self._memory.used,
            "journal_entries": reading.journal.waiting,
            "journal_bytes": reading.journal.backlog,
            **self._rates(look),
        }
        audit = reading.audit
        last = self._samples[-1] if self._samples else None
        return _Sample(
            round(time.time(), 1),
            tuple([_short(values[name]) for name in SERIES]),
            _same(last and last.refusals, audit.refusals),
            _same(last and last.limits, audit.limits),
        )

    # Now

    def _connections(self, reading: Reading) -> dict[str, int]:
        return {**reading.by_protocol(lambda counts: counts.open), "streams": len(reading.readers)}

    def _put_together(self, ready: Facts) -> Facts:
        reading = Reading(self._sources)
        look, hub, webhooks = self._look(reading), self._hub, reading.webhooks
        bus, journal, memory = hub.bus, reading.journal, self._memory
        failed = sum([count for (_, outcome), count in reading.sandbox.jobs.items() if outcome != DONE])
        return {
            "name": hub.membership.name,
            "address": self._node.address,
            "version": self._node.version,
            "started_at": _total(reading, "process_start_time_seconds"),
            "at": time.time(),
            **ready,
            "connections": self._connections(reading),
            "rooms": len(hub.rooms),
            "sessions": reading.sessions,
            "slow_members": hub.slow_members,
            "rates": {name: _short(rate) for name, rate in self._rates(look).items()},
            **{
                name: {"p50": _short(self._quantile(look, name, 0.5)), "p99": _short(self._quantile(look, name, 0.99))}
                for name in QUANTILES
            },
            "loop_stalls": reading.lag.stalls,
            "memory": {
                "used": memory.used,
                "mark": memory.mark,
                "limit": memory.limit,
                "past": memory.past_mark + memory.past_limit,
                "parts": reading.parts,
            },
            "journal": {
                "entries": journal.waiting,
                "bytes": journal.backlog,
                "failing": journal.failing is not None,
                "stalled_seconds": journal.stalled or 0.0,
                "retries": journal.counts.retries,
            },
            "bus": {
                "kind": self._node.bus,
                "trouble": bus.trouble,
                "others": bus.others,
                "lost": {
                    "dropped": bus.counts.dropped,
                    "damaged": bus.counts.damaged,
                    "missing": bus.counts.holes,
                },
                "reconnects": bus.counts.reconnects,
            },
            "sandbox": {
                "under_way": reading.sandbox.under_way,
                "stays": reading.sandbox.staying,
                "stay_bytes": reading.sandbox.staying_bytes,
                "failed": failed,
            },
            "webhooks": {
                "delivering": webhooks.delivering,
                "pending": webhooks.pending,
                "oldest_seconds": _short(webhooks.oldest_seconds),
                "disabled": webhooks.disabled,
            },
            "refusals": self._reasons(reading.audit.refusals, lambda sample: sample.refusals),
            "limits": self._reasons(reading.audit.limits, lambda sample: sample.limits),
            "documents": {
                "damaged": len(hub.damaged),
                "troubled": len(hub.troubled),
                "closed": hub.closed_documents,
            },
            "store_bytes": reading.counts.store_bytes,
        }

    def _reasons(self, counted: Mapping[str, int], of: Callable[[_Sample], Mapping[str, int]]) -> list[Facts]:
        """List what was refused, by reason: those of the last hour first."""
        full = len(self._samples) == SAMPLES  # else all of it is of the last hour
        before = of(self._samples[0]) if full else {}
        found = [(total - before.get(name, 0), total, word(name)) for name, total in counted.items() if total]
        found.sort(key=lambda each: (-each[0], -each[1], each[2]))
        return [{"reason": reason, "total": total, "hour": hour} for hour, total, reason in found[:_LISTED]]


def _total(reading: Reading, metric: str) -> float:
    value = _METRICS[metric].read(reading)
    if isinstance(value, Mapping):
        return float(sum(value.values()))
    assert not isinstance(value, Histogram)
    return float(value)


def _same(before: dict[str, int] | None, counted: Mapping[str, int]) -> dict[str, int]:
    """Copy what was counted; an hour in which nothing is refused keeps one copy."""
    return before if before is not None and before == counted else dict(counted)


def _short(value: float | None) -> float | None:
    """Round to four digits, which is what anybody reads, so that an hour of many nodes stays short."""
    if value is None or isinstance(value, int) or value == 0 or not math.isfinite(value):
        return value
    return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))
