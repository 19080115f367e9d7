"""Traces: a real server sends them to a collector that reads OTLP, and each span is a part of the right one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pycrdt import Text

from collab.client import connect
from tests.support.server import ServerFailed, ServerProcess
from tests.support.webhooks import SECRET, Receiver

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
WORD = "confidential-word"


class Span:
    """One span that came."""

    def __init__(self, span: Any) -> None:
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.failed: bool = span.status.code == 2
        self.attributes = {
            pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes
        }


class Collector:
    """Takes spans, as the collector of OpenTelemetry does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.bytes = b""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/traces", self._take)
        self._server = TestServer(app)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/v1/traces"))

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bytes += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in group.resource.attributes})
            self.spans += [Span(span) for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def tracing(directory: Path, collector: Collector, *options: str, **more: Any) -> ServerProcess:
    # By default the library waits for five seconds before it sends.
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "100", **more.pop("environment", {})}
    wanted = ("--trace-url", collector.url, "--trace-ratio", "1", *options)
    return ServerProcess(directory, *wanted, environment=environment, **more)


async def edit(server: ServerProcess, name: str) -> None:
    async with connect(server.url.replace("http", "ws"), name) as document:
        text = document.doc.get("t", type=Text)
        text += WORD
        await document.wait_saved()


async def test_a_connection_has_what_it_caused_and_a_commit_stands_alone(tmp_path: Path) -> None:
    async with Collector() as collector:
        async with tracing(tmp_path, collector) as server:
            await edit(server, "plan")
            # What is left is sent at the end.
            assert await server.aterminate() == 0
        [connection] = collector.named("connection")
        [load] = [span for span in collector.named("load document") if span.parent == connection.id]
        assert load.trace == connection.trace and load.attributes == {"collab.document": "plan", "collab.rows": 0}
        assert connection.attributes == {"network.protocol.name": "hocuspocus", "collab.close_code": 1000}
        commits = collector.named("commit")
        assert sum(span.attributes["collab.rows"] for span in commits) == 1
        assert all(not span.parent and span.trace != connection.trace for span in commits)
        [described] = {tuple(sorted(resource.items())) for resource in collector.resources}
        assert dict(described)["service.name"] == "collab" and dict(described)["service.instance.id"]
        assert WORD.encode() not in collector.bytes


async def test_a_call_goes_on_in_the_trace_of_its_sender(tmp_path: Path) -> None:
    async with Collector() as collector:
        async with tracing(tmp_path, collector) as server, aiohttp.ClientSession() as http:
            await edit(server, "plan")
            sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            address = f"{server.url}/api/v1/content/plan"
            async with http.get(address, headers=sent | {"Accept": "text/plain"}, params={"root": "t"}) as answer:
                assert await answer.text() == WORD
            async with http.get(f"{server.url}/api/v1/content/none", headers=sent) as answer:
                assert answer.status == 404
            # What no W3C header is begins a trace of its own.
            async with http.get(address, headers={"traceparent": "00-" + "z" * 500}) as answer:
                assert answer.status == 200
            assert await server.aterminate() == 0
        good, bad, own = collector.named("GET /api/v1/content/{name}")
        for span in (good, bad):
            assert (span.trace, span.parent, span.failed) == (TRACE, PARENT, False)
        assert good.attributes["http.response.status_code"] == 200 and bad.attributes["error.type"]
        assert own.trace != TRACE and not own.parent
        jobs = [span for span in collector.named("sandbox job") if span.trace == TRACE]
        assert {job.parent for job in jobs} == {good.id} and [list(job.attributes) for job in jobs] == [
            ["collab.job"]
        ] * 2


async def test_a_log_line_names_its_trace(tmp_path: Path) -> None:
    async with Collector() as collector:
        async with tracing(tmp_path, collector, "--log-format", "json") as server, aiohttp.ClientSession() as http:
            sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            async with http.put(f"{server.url}/api/v1/documents/plan", json={}, headers=sent) as answer:
                assert answer.status == 201
            assert await server.aterminate() == 0
        [line] = [json.loads(line) for line in server.log_lines if "created" in line]
        [call] = collector.named("PUT /api/v1/documents/{name}")
        assert (line["trace.id"], line["span.id"]) == (TRACE, call.id)


async def test_receivers_of_webhooks_are_told_of_the_span(tmp_path: Path) -> None:
    async with Collector() as collector, Receiver() as receiver:
        told = ("--webhook-url", receiver.url, "--webhook-interval-seconds", "1")
        environment = {"COLLAB_WEBHOOK_SECRETS": SECRET}
        async with tracing(tmp_path, collector, *told, environment=environment) as server:
            await edit(server, "plan")
            await receiver.until(lambda: receiver.taken, "a message has come")
            assert await server.aterminate() == 0
        message = receiver.taken[0]
        version, trace, span, _ = message.headers["traceparent"].split("-")
        assert version == "00"
        [sent] = [found for found in collector.named("deliver webhook") if found.id == span]
        assert sent.trace == trace and sent.attributes["http.response.status_code"] == 200


async def test_a_share_of_the_traces_is_sent_and_a_sender_decides_for_its_own(tmp_path: Path) -> None:
    async with Collector() as collector:
        async with tracing(tmp_path, collector, "--trace-ratio", "0") as server, aiohttp.ClientSession() as http:
            await edit(server, "plan")
            for flag in ("00", "01"):
                sent = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"}
                async with http.get(f"{server.url}/api/v1/content/plan", headers=sent) as answer:
                    assert answer.status == 200
            assert await server.aterminate() == 0
        assert {span.trace for span in collector.spans} == {TRACE} and len(collector.named("commit")) == 0
        assert len(collector.named("GET /api/v1/content/{name}")) == 1


async def test_a_collector_that_is_away_costs_spans_alone(tmp_path: Path) -> None:
    async with Collector() as collector:
        away = collector.url
    async with ServerProcess(tmp_path, "--trace-url", away, "--trace-ratio", "1") as server:
        for number in range(3):
            await edit(server, f"d{number}")
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/readyz") as answer:
            assert answer.status == 200
        assert await server.aterminate() == 0
    assert server.stderr.count("Traceback") == 0


async def test_without_an_address_nothing_is_sent(tmp_path: Path) -> None:
    async with Collector() as collector, ServerProcess(tmp_path) as server:
        await edit(server, "plan")
        assert await server.aterminate() == 0
        assert collector.spans == []


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None; "
        "from collab.cli import main; main(['serve', '--port', '0', '--trace-url', 'http://127.0.0.1:9/v1/traces'])"
    )
    server = ServerProcess(tmp_path, program=("-c", code))
    with pytest.raises(ServerFailed, match=r"collab-server\[tracing\]"):
        await asyncio.to_thread(server.start)
