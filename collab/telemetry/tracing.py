"""Spans of OpenTelemetry: how long what took, and what it was a part of.

Strategy: the code names its spans by the API of OpenTelemetry, which does nothing until a provider is there: that of an
application which has the server in it, or the one that ``start_tracing`` makes for a process of its own (an extra
brings what it needs). There is a span for a connection, a document that is loaded, a commit, a job of the sandbox, a
snapshot, a call of the HTTP API, and a request to somebody else; never one for a message, because one that is thrown
away costs as much as relaying that message. A name of a document may stand in a span, as in a log line; content and
tokens never do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from collab.errors import CollabError, ConfigurationError
from collab.telemetry.release import release

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ATTRIBUTE_CHARACTERS: Final = 256
"""Of a text in a span: names of documents and addresses are shorter."""

EXPORT_SECONDS: Final = 3.0
"""For one request to the collector, and for all that is left at the end of the server."""

_TRACER: Final = trace.get_tracer("collab", release())

# W3C trace context alone: what else a sender lets travel with a request (baggage) is not passed on.
_PROPAGATOR: Final = TraceContextTextMapPropagator()

Attribute = str | int | float | bool


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, Attribute] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    alone: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Span]:
    """Time what is inside, as a part of the span around it.

    Args:
        name: what is done; few different ones, so no names of documents.
        attributes: what is known of it now; ``Span.set_attribute`` adds to it.
        kind: SERVER for what somebody has asked of us, CLIENT for what we ask of others.
        alone: nothing is around it: it is done for many, whoever has caused it.
        headers: of a request, which may name the span of its sender (``traceparent``).

    An exception that ends it is noted by its type.
    """
    parent = Context() if alone else None if headers is None else _PROPAGATOR.extract(headers)
    with _TRACER.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except asyncio.CancelledError:
            raise
        except Exception as error:
            current.set_attribute("error.type", type(error).__name__)
            # What is refused to somebody who asked is no failure of ours.
            if kind is not SpanKind.SERVER or not isinstance(error, CollabError):
                current.set_status(Status(StatusCode.ERROR))
            raise


def begin_task(name: str, attributes: Mapping[str, Attribute], headers: Mapping[str, str]) -> Span | None:
    """Begin the span of all that the running task does from now on; whoever gets it ends it. None if it is not kept.

    For what lives long: where nothing is kept, nothing of it stays in memory.
    """
    # As the tracer finds out too, after it has read the headers and made a span. The name is private, and not needed.
    if getattr(trace, "_TRACER_PROVIDER", trace) is None:
        return None
    begun = _TRACER.start_span(name, _PROPAGATOR.extract(headers), SpanKind.SERVER, attributes)
    if not begun.is_recording():
        return None
    # The context is the task's own, and ends with it.
    context.attach(trace.set_span_in_context(begun))
    return begun


def ids() -> tuple[str, str] | None:
    """Give the trace and the span that the running code belongs to, in hexadecimal; None where there is none."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return trace.format_trace_id(current.trace_id), trace.format_span_id(current.span_id)


def passed_on() -> dict[str, str]:
    """Give the header that tells somebody whom we ask of the span we are in; none where it is not sent anywhere."""
    headers: dict[str, str] = {}
    if trace.get_current_span().is_recording():
        _PROPAGATOR.inject(headers)
    return headers


def start_tracing(url: str, ratio: float, attributes: Mapping[str, Attribute]) -> Callable[[], None]:
    """Send the spans of this process to a collector; return what sends the rest and ends it, which blocks for seconds.

    Args:
        url: where the collector takes OTLP over HTTP, as in ``http://127.0.0.1:4318/v1/traces``.
        ratio: which share of the traces is sent. A sender whose own span is sampled has its trace sampled here, too.
        attributes: of this server, beside those in the variable ``OTEL_RESOURCE_ATTRIBUTES``.

    Raises:
        ConfigurationError: what sends them is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigurationError("--trace-url needs libraries: pip install 'collab-server[tracing]'") from None
    described = {"service.name": "collab", "service.version": release(), **attributes}
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(ratio)),
        resource=Resource.create(described),
        span_limits=SpanLimits(max_span_attribute_length=ATTRIBUTE_CHARACTERS),
        shutdown_on_exit=False,
    )
    # A bounded queue, sent by a thread: a collector that is away costs spans, and nothing else.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)))
    trace.set_tracer_provider(provider)
    return partial(_end, provider)


def _end(provider: TracerProvider) -> None:
    # A collector that is away must not hold up the end: the library would wait for half a minute.
    thread = threading.Thread(target=provider.shutdown, daemon=True)
    thread.start()
    thread.join(EXPORT_SECONDS)
