"""``/metrics``: what the server counts, in the formats of OpenMetrics and Prometheus.

Strategy: everything is read when somebody asks (``metrics_list``), in one go on the loop, so that no two numbers of one
answer are of different moments. The address is served in two ways. On the main port it needs a token that gives
``admin`` for ``*``, all documents. On a port of its own (``--metrics-port``) whoever reaches it may read; that port has
its own guard and door, for neither a web page nor a client that never ends its request has anything to do there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from collab.errors import CannotListen, CollabError
from collab.hub.tasks import Tasks
from collab.limits.limits import Bounds, Limits
from collab.net import is_loopback
from collab.protocol.session import Access
from collab.telemetry.counters import Histogram
from collab.transports.guard.door import Door, DoorOptions, Listener
from collab.transports.guard.guard import Guard
from collab.transports.guard.listening import listen, shown
from collab.transports.guard.origins import Origins
from collab.transports.guard.peers import Peers
from collab.transports.http.answers import ALL_DOCUMENTS, Handler, Permission, answering
from collab.transports.http.metrics_list import COUNTER, GAUGE, METRICS, Exported, Reading, Sources, Value

PATH: Final = "/metrics"

# Of the port for metrics. Few read it, and each a few times a minute.
_CONNECTIONS: Final = 50
_REQUESTS_PER_SECOND: Final = 20.0

# Seconds that an answer which is being read has at the end.
_END_SECONDS: Final = 0.5


class Exporter(Collector):
    """Answer with all metrics.

    Args:
        sources: where they are read.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Give the metrics with their values."""
        reading = Reading(self._sources)
        for metric in METRICS:
            family = _family(metric)
            _add(family, metric, metric.read(reading))
            yield family

    async def handle(self, request: web.Request) -> web.Response:
        """Answer in OpenMetrics if the client asks for that, else in the text format of Prometheus."""
        if wants_openmetrics(",".join(request.headers.getall(hdrs.ACCEPT, ()))):
            kind = openmetrics.CONTENT_TYPE_LATEST
            body: bytes = openmetrics.generate_latest(self)  # type: ignore[no-untyped-call]
        else:
            body, kind = exposition.generate_latest(self), exposition.CONTENT_TYPE_PLAIN_0_0_4
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind, hdrs.CACHE_CONTROL: "no-store"})

    def for_admins(self, permission: Permission) -> Handler:
        """Return the handler for the main port: it answers those who are ``admin`` for all documents."""

        async def handle(request: web.Request) -> web.Response:
            await permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
            return await self.handle(request)

        return answering(handle)


def wants_openmetrics(accept: str) -> bool:
    """Tell whether the header ``Accept`` prefers OpenMetrics 1.0 to the text format.

    Not the library's own choice: that fails on some versions, and does not know what a client likes better.
    """
    text = wanted = 0.0
    for part in accept.split(","):
        kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        try:
            quality = float(given.get("q", "1"))
        except ValueError:
            continue
        if kind == "application/openmetrics-text" and given.get("version", "1.0.0") == "1.0.0":
            wanted = max(wanted, quality)
        elif kind in ("text/plain", "text/*"):
            text = max(text, quality)
    return wanted > 0 and wanted >= text


def _family(metric: Exported) -> Metric:
    labels = metric.labels
    unit = "" if metric.unit == "1" else metric.unit  # OpenMetrics has none for plain numbers
    if metric.kind is COUNTER:
        return CounterMetricFamily(metric.name, metric.meaning, labels=labels, unit=unit)
    if metric.kind is GAUGE:
        return GaugeMetricFamily(metric.name, metric.meaning, labels=labels, unit=unit)
    return HistogramMetricFamily(metric.name, metric.meaning, labels=labels, unit=unit)


def _add(family: Metric, metric: Exported, value: Value) -> None:
    if isinstance(value, Histogram):
        value.fold()
        assert isinstance(family, HistogramMetricFamily)
        buckets, total = [], 0
        for bound, count in zip((*value.bounds, math.inf), value.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == math.inf else str(bound), total))
        family.add_metric((), buckets, value.sum)
        return
    assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
    if isinstance(value, Mapping):
        for label, number in value.items():
            family.add_metric(label if isinstance(label, tuple) else (label,), number)
    else:
        family.add_metric((), value)


class MetricsPort:
    """The listener for metrics alone, without authentication and TLS.

    Args:
        exporter: answers.
        host, port: where to listen; port 0 takes a free one.
        head, idle, slow: seconds as in ``DoorOptions``.
    """

    def __init__(self, exporter: Exporter, host: str, port: int, *, head: float, idle: float, slow: float) -> None:
        self._host = host
        self._port = port
        bounds = Bounds(requests=_REQUESTS_PER_SECOND, unauthenticated=_CONNECTIONS)
        self._guard = Guard(
            Peers((), "x-forwarded"), Origins((), loopback=is_loopback(host)), Limits(bounds), own_machine_only=False
        )
        app = web.Application(middlewares=[self._guard.middleware])
        app.on_response_prepare.append(self._guard.on_prepare)
        app.router.add_get(PATH, exporter.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_SECONDS)
        self._door = Door(self._guard, DoorOptions(head, idle, slow, _CONNECTIONS))
        self._tasks = Tasks()

    @property
    def url(self) -> str:
        """The whole address, once it is listened on."""
        return f"http://{shown(self._runner.addresses[0])}{PATH}"

    async def start(self) -> None:
        """Begin to answer.

        Raises:
            CollabError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            sockets = await listen((self._host,), self._port)
        except CannotListen as error:
            raise CollabError(
                f"cannot listen for metrics on {self._host} port {self._port} (--metrics-port): {error.reason}"
            ) from error
        for sock in sockets:
            await Listener(self._runner, self._door, sock).start()
        self._tasks.supervise(self._door.watch, "watch of the door for metrics")
        self._tasks.supervise(self._guard.watch, "watch of the guard for metrics")

    async def close(self) -> None:
        """Answer no more; harmless without ``start``."""
        await self._tasks.close()
        await self._runner.cleanup()
