"""``/metrics``: read by the official parsers, moved by real traffic, and closed to whoever may not read it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import jwt
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collab import app as app_module
from collab.app import GUARD, HUB, READERS
from collab.audit import Act, Audit, Outcome, Who, writer
from collab.audit import Kind as AuditKind
from collab.auth.access import AccessRequest, Grant
from collab.cluster import peers
from collab.cluster.postgresql import PostgresBus
from collab.errors import Forbidden, Overloaded, SandboxCrashed, StoreUnavailable, Unauthenticated, UpdateError
from collab.hooks import Hooks, Rows, Server, Visit
from collab.hub import hooks as hooks_module
from collab.hub import hub as hub_module
from collab.limits import disks as disks_module
from collab.limits.memory import Memory
from collab.protocol.session import Access
from collab.protocol.streams import encode_frames
from collab.sandbox import jobs, stays
from collab.sandbox.inline import InlineSandbox
from collab.storage import journal as journal_module
from collab.storage import webhooks as bounds
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.records import Append, AppendOutcome, Instruction, Kind, NewRow
from collab.transports.http.metrics import wants_openmetrics
from collab.transports.http.metrics_list import COUNTER, GAUGE, METRICS, word
from collab.update.compact import Compacted
from collab.webhooks import service as webhook_service
from tests.auth.makers import SECRET
from tests.support import metrics_table
from tests.support.author import Author
from tests.support.hocuspocus import RawHocuspocus
from tests.support.hocuspocus import auth as hocuspocus_auth
from tests.support.hocuspocus import update as hocuspocus_update
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.webhooks import SECRET as HOOK_SECRET
from tests.support.webhooks import Receiver, cut
from tests.support.wsclient import EMPTY_UPDATE, STEP1, UPDATE, RawClient, awareness, step1, step2, update, varbytes
from tests.transports.conftest import Serve, Served
from tests.transports.test_shares import token

ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"

Samples = dict[str, float]
"""Every sample by how it is written: ``collab_connections{protocol="hocuspocus"}``."""

CONSTANT = ("collab_build_info", "collab_disk_size_bytes", "process_start_time_seconds")
"""What nothing moves while the process lives."""

_shown: set[str] = set(CONSTANT)


def shows(*series: str) -> tuple[str, ...]:
    """Say which series a test moves; ``test_each_metric_is_shown_to_move`` misses those that none does.

    Call it outside of the tests: the worker that runs that test has imported this module, but has not run them all.
    """
    assert sys._getframe(1).f_code.co_name == "<module>", "say it where every worker reads it"
    _shown.update(one.partition("{")[0] for one in series)
    return series


def shown() -> frozenset[str]:
    """Give the names of the series that a test moves, or that nothing can move."""
    return frozenset(_shown)


async def fetch(url: str, **options: Any) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as response:
        return response.status, dict(response.headers), await response.text()


def read(text: str) -> Samples:
    samples: Samples = {}
    for family in parse_openmetrics(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


async def scrape(served: Served) -> Samples:
    status, _, text = await fetch(f"{served.url}/metrics", headers={"Accept": ACCEPT})
    assert status == 200
    return read(text)


def value(samples: Samples, series: str) -> float:
    """Give a sample; of a histogram how many values it has."""
    return samples.get(series, samples.get(f"{series}_count", 0.0))


def still(before: Samples, after: Samples, series: Sequence[str]) -> list[str]:
    """Give those of the series that have not grown."""
    return [one for one in series if not value(after, one) > value(before, one)]


async def moved(served: Served, before: Samples, series: Sequence[str]) -> Samples:
    """Wait until all of the series have grown; give the samples."""
    seen: Samples = {}

    async def look() -> bool:
        seen.clear()
        seen.update(await scrape(served))
        return not still(before, seen, series)

    try:
        await eventually(look, "growth", 30.0)
    except AssertionError:
        assert still(before, seen, series) == []
    return seen


# The formats


async def test_both_formats_are_read_by_the_official_parsers(serve: Serve) -> None:
    served = await serve()
    status, headers, text = await fetch(f"{served.url}/metrics", headers={"Accept": ACCEPT})
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in parse_openmetrics(text)}
    _, headers, text = await fetch(f"{served.url}/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    plain = {family.name: family for family in parse_text(text)}
    assert list(families) == list(plain) == [metric.name for metric in METRICS]
    for metric in METRICS:
        for found in (families[metric.name], plain[metric.name]):
            assert (found.type, found.documentation) == (metric.kind, metric.meaning)
            labels = {name for sample in found.samples for name in sample.labels} - {"le"}
            assert labels <= set(metric.labels), metric.name


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        (ACCEPT, True),
        # As Prometheus 3 asks.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;"
            "version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,"
            "/;q=0.1",
            True,
        ),
        ("text/plain, application/openmetrics-text;q=0.5", False),
        ("text/*;q=0.9, application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=x.1", False),
        ("application/openmetrics-text;q=high, text/plain", False),
        (";;,=;q=,application/openmetrics-text;=", True),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


def test_names_follow_the_rules() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"(collab|process)_[a-z_]+", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
        assert not metric.meaning.endswith("."), metric.name


def test_a_class_or_a_constant_becomes_a_word() -> None:
    words = ["DocumentTooLarge", "no request", "an edit", "UpdateError", "InvalidDocumentName"]
    assert [word(name) for name in words] == [
        "document_too_large",
        "no_request",
        "an_edit",
        "update_error",
        "invalid_document_name",
    ]


# What moves them


PROTOCOLS = ("y-websocket", "hocuspocus")

TRAFFIC = shows(
    *(
        f'{name}{{protocol="{protocol}"}}'
        for protocol in PROTOCOLS
        for name in (
            "collab_connections",
            "collab_connections_opened_total",
            "collab_received_messages_total",
            "collab_received_bytes_total",
        )
    ),
    "collab_rooms",
    "collab_sessions",
    "collab_updates_total",
    "collab_update_bytes_total",
    "collab_turns_total",
    "collab_deliveries_total",
    "collab_delivered_bytes_total",
    "collab_cold_load_seconds",
    "collab_journal_entries_total",
    "collab_journal_commit_seconds",
    "collab_acknowledgement_seconds",
    'collab_memory_bytes{part="documents"}',
    "collab_loop_lag_seconds",
    "process_cpu_seconds_total",
    'collab_http_answers_total{method="GET",route="/metrics",status="2xx"}',
    "collab_joins_total",
    "collab_turn_bytes",
    "collab_propagation_seconds",
    "collab_journal_batch_entries",
)


async def test_traffic_over_both_protocols(serve: Serve, connect: Any, connect_hocuspocus: Any) -> None:
    served = await serve()
    before = await scrape(served)
    y: RawClient = await connect(served.ws("d"))
    h: RawHocuspocus = await connect_hocuspocus(served.hocuspocus)
    await h.join("d")
    await h.join("other")
    author, second = Author(1), Author(2)
    await y.send(update(author.type("a")))
    await h.statuses("d", 0)
    await h.send(hocuspocus_update("d", second.type("b")), hocuspocus_update("d", second.type("c")))
    assert await h.statuses("d", 2) == [1, 1]
    await y.barrier()
    after = await moved(served, before, TRAFFIC)
    assert {name: value(after, f'collab_connections{{protocol="{name}"}}') for name in PROTOCOLS} == {
        "y-websocket": 1,
        "hocuspocus": 1,
    }
    assert (after["collab_rooms"], after["collab_sessions"]) == (2, 3)
    assert after["collab_updates_total"] == 3
    assert after["collab_update_bytes_total"] >= len(author.updates[0]) + 8
    assert after["collab_cold_load_seconds_count"] == 2
    # What has ended is in no gauge, and stays in the counters.
    await y.close()
    await h.close()

    async def ended() -> Samples | None:
        samples = await scrape(served)
        return samples if samples["collab_sessions"] == 0 else None

    last = await eventually(ended, "both have gone")
    for name in PROTOCOLS:
        assert last[f'collab_connections{{protocol="{name}"}}'] == 0
        assert last[f'collab_connections_opened_total{{protocol="{name}"}}'] == 1
    # Every counter only grows.
    for metric in METRICS:
        if metric.kind is COUNTER:
            for series in after:
                if series.partition("{")[0] == metric.series:
                    assert last[series] >= after[series], series


async def test_what_came_is_counted_to_the_byte(serve: Serve, connect: Any) -> None:
    served = await serve()
    before = await scrape(served)
    client: RawClient = await connect(served.ws("d"))
    await client.expect_sync(STEP1)
    frames = [step2(EMPTY_UPDATE), *(update(Author(n).type("x" * 300)) for n in range(1, 40))]
    await client.send(*frames)
    await client.barrier()
    now = await scrape(served)
    messages, size = (
        'collab_received_messages_total{protocol="y-websocket"}',
        'collab_received_bytes_total{protocol="y-websocket"}',
    )
    assert now[messages] - before[messages] == len(frames) + 1, "the barrier is a message as well"
    # A client's frame has a head of 2 bytes, 4 from 126 bytes on, and a mask of 4.
    expected = sum(len(frame) + (8 if len(frame) > 125 else 6) for frame in (*frames, step1()))
    assert now[size] - before[size] == expected
    assert now["collab_updates_total"] == 39
    await client.close()
    closed = await moved(served, now, [messages])
    assert closed[messages] == now[messages] + 1, "nothing is counted twice when a socket ends"
    assert closed[size] == now[size] + 8, "a close frame with its code"


async def test_deliveries_are_what_members_were_sent(serve: Serve, connect: Any) -> None:
    served = await serve()
    clients: list[RawClient] = [await connect(served.ws("d")) for _ in range(3)]
    for client in clients:
        await client.send(step2(EMPTY_UPDATE))
        await client.barrier()
    before, sent = await scrape(served), sum(len(client.frames) for client in clients)
    edit = update(Author(1).type("x"))
    await clients[0].send(edit)
    for client in clients:
        await client.expect_sync(UPDATE)
    after = await scrape(served)
    assert sum(len(client.frames) for client in clients) - sent == 3
    assert after["collab_deliveries_total"] - before["collab_deliveries_total"] == 3
    assert after["collab_delivered_bytes_total"] - before["collab_delivered_bytes_total"] == 3 * (len(edit) + 2)


SLOW = shows(
    "collab_slow_members",
    "collab_slow_members_held_back_total",
    'collab_memory_bytes{part="outboxes"}',
)


async def test_a_client_that_reads_nothing(serve: Serve, connect: Any) -> None:
    served = await serve(outbox_bytes=1024)
    before = await scrape(served)
    slow, writer = await connect(served.ws("d")), await connect(served.ws("d"))
    for client in (slow, writer):
        await client.send(step2(EMPTY_UPDATE))
        await client.barrier()
    slow._ws._conn.transport.pause_reading()
    author = Author(1)
    for _ in range(60):  # more than the kernel takes
        await writer.send(update(author.type("x" * 200_000)))
    await moved(served, before, SLOW)
    slow._ws._conn.transport.resume_reading()

    async def level() -> bool:
        return (await scrape(served))["collab_slow_members"] == 0

    await eventually(level, "it has caught up")


FLOOD = shows(*(f'collab_read_pauses_total{{protocol="{protocol}"}}' for protocol in PROTOCOLS))


async def test_a_client_that_sends_too_much_is_read_more_slowly(
    serve: Serve, connect: Any, connect_hocuspocus: Any
) -> None:
    served = await serve(insecure=True, max_awareness_per_second=30)
    before = await scrape(served)
    y, h = await connect(served.ws("d")), await connect_hocuspocus(served.hocuspocus)
    await h.join("d")
    y.burst(*[awareness((1, clock, "{}")) for clock in range(360)])
    h.burst(
        *[b"\x01d" + awareness((2, clock, "{}"))[:1] + _bytes(awareness((2, clock, "{}"))[1:]) for clock in range(360)]
    )
    await moved(served, before, FLOOD)


def _bytes(data: bytes) -> bytes:
    return bytes([len(data)]) + data


REFUSED = shows(
    'collab_refusals_total{reason="update_error"}',
    'collab_refusals_total{reason="origin"}',
    'collab_limits_total{limit="document_too_large"}',
    "collab_refused_updates_total",
    'collab_http_answers_total{method="GET",route="/api/v1/documents",status="4xx"}',
)


async def test_what_is_refused_is_counted_by_reason(serve: Serve, connect: Any, connect_hocuspocus: Any) -> None:
    served = await serve(max_document_bytes=1024)
    before = await scrape(served)
    malformed: RawClient = await connect(served.ws("d"))
    await malformed.send(update(b"\xff"))
    assert await malformed.expect_close() == 1007
    large: RawClient = await connect(served.ws("d"))
    await large.send(update(Author(1).type("x" * 2000)))
    assert await large.expect_close() == 4413
    h: RawHocuspocus = await connect_hocuspocus(served.hocuspocus)
    await h.join("d")
    await h.send(hocuspocus_update("d", b"\xff"))
    assert await h.statuses("d", 1) == [0]
    status, _, _ = await fetch(f"{served.url}/api/v1/documents", headers={"Origin": "https://evil.example"})
    assert status == 403
    after = await scrape(served)
    assert still(before, after, REFUSED) == []
    assert {one: value(after, one) - value(before, one) for one in REFUSED} == dict.fromkeys(REFUSED, 1)


def test_a_refusal_is_counted_whether_or_not_the_log_has_a_line_for_it(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit()
    for _ in range(100):  # more than the log takes at once
        audit.note(Unauthenticated("no token"), Who(address="203.0.113.7"), "d")
        audit.note(Overloaded("full"), Who(address="203.0.113.7"))
        audit.note(UpdateError("malformed"), Who(address="203.0.113.7"))  # for which it never has one
        audit.write(AuditKind.LIMIT, "requests", "too many requests", Who(address="203.0.113.7"))
        audit.read_only("an edit", Who("17", "203.0.113.7", "hocuspocus"), "d")
    assert audit.refusals == {"Unauthenticated": 100, "UpdateError": 100, "an edit": 100}
    assert audit.limits == {"Overloaded": 100, "requests": 100}
    assert 0 < len(caplog.records) < 200


AUDITED = shows(
    *('collab_audit_entries_total{group="actions"}', 'collab_audit_lost_total{group="actions"}', "collab_audit_waiting")
)


async def test_an_audit_that_cannot_be_written_is_seen(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)
    (tmp_path / "log").mkdir()
    served = await serve(audit_log=tmp_path / "log" / "audit.jsonl")
    audit = served.app[HUB].audit
    await happens(lambda: audit.waiting == 0, "the first entry is written")
    before = await scrape(served)
    (tmp_path / "log").rename(tmp_path / "away")
    for _ in range(5):
        audit.act(Act(AuditKind.DOCUMENT_DELETED), Outcome.SUCCESS)
    assert still(before, await scrape(served), AUDITED) == []


EVICTED = shows('collab_evictions_total{reason="document_deleted"}', 'collab_evictions_total{reason="internal_error"}')


async def test_documents_that_are_closed_to_their_clients(serve: Serve, connect: Any) -> None:
    served = await serve()
    before = await scrape(served)
    assert all(before[one] == 0 for one in EVICTED), "from the start: the first one is an increase"
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x")))
    await client.barrier()
    await served.app[HUB].until_stored("d")
    async with aiohttp.ClientSession() as session, session.delete(f"{served.url}/api/v1/documents/d") as response:
        assert response.status == 204
    assert await client.expect_close() == 4404
    hub = served.app[HUB]
    hub.failed(await hub.open("other"), ZeroDivisionError())
    await moved(served, before, EVICTED)


FOLLOWED = shows(
    'collab_instructions_total{kind="kick"}',
    'collab_instructions_total{kind="check"}',
    'collab_instructions_total{kind="reload"}',
)


async def test_what_operators_have_told_is_counted(serve: Serve) -> None:
    served = await serve()
    before = await scrape(served)
    assert all(before[one] == 0 for one in FOLLOWED), "from the start: the first one is an increase"
    for kind in Kind:
        told = Instruction(kind, document="d")
        if kind is Kind.LOG:
            told = Instruction(kind, logger="collab.test", level="debug", seconds=1.0)
        elif kind is Kind.QUARANTINE:
            told = Instruction(kind, document="d", seconds=1.0)
        await served.app[HUB].control.give(told)
    await moved(served, before, FOLLOWED)


class Failing(MemoryStore):
    """A store that refuses writes, or takes its time for them, for as long as a test says."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def append(self, batch: Sequence[Append]) -> Sequence[AppendOutcome]:
        await self.answers.wait()
        if self.away:
            raise StoreUnavailable("away")
        return await super().append(batch)


WAITING = shows(
    "collab_journal_queue_entries",
    "collab_journal_queue_bytes",
    'collab_memory_bytes{part="journal"}',
    "collab_journal_stalled_seconds",
)
AWAY = shows("collab_journal_retries_total", "collab_journal_failing")


async def test_a_store_that_is_slow_or_away(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "STALLED_SECONDS", 0.0)
    store = Failing()
    served = await serve(store=store)
    before = await scrape(served)
    store.answers.clear()
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x")))
    await moved(served, before, WAITING)
    store.away = True
    store.answers.set()
    await moved(served, before, AWAY)
    store.away = False

    async def well() -> Samples | None:
        samples = await scrape(served)
        return samples if samples["collab_journal_queue_entries"] == 0 else None

    after = await eventually(well, "the edit is stored")
    assert after["collab_journal_failing"] == after["collab_journal_queue_bytes"] == 0
    assert after["collab_acknowledgement_seconds_count"] == 1


COMPACTED = shows(
    "collab_compaction_seconds",
    'collab_sandbox_jobs_total{kind="compaction",outcome="done"}',
    "collab_sandbox_jobs_under_way",
)
NOT_COMPACTED = shows(
    "collab_compactions_failed_total", 'collab_sandbox_jobs_total{kind="compaction",outcome="crashed"}'
)


class Gated:
    """A sandbox that waits until the test lets it go on, and may crash then."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.crash = False

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        await self.go.wait()
        if self.crash:
            raise SandboxCrashed("gone")
        return jobs.compact(data, gc)

    async def content(self, data: bytes) -> dict[str, Any]:
        return jobs.content(data)

    async def close(self) -> None:
        self.go.set()


async def test_snapshots_and_jobs(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gated = Gated()
    monkeypatch.setattr(app_module, "make_sandbox", lambda *limits: gated)
    served = await serve(compact_rows=1, compact_ratio=0)
    before = await scrape(served)
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x")))
    await moved(served, before, COMPACTED[2:])
    gated.go.set()
    middle = await moved(served, before, COMPACTED[:2])
    assert middle["collab_sandbox_jobs_under_way"] == 0
    gated.crash = True
    await client.send(update(Author(2).type("y")))
    await moved(served, before, NOT_COMPACTED)


@pytest.mark.slow
async def test_the_jobs_of_the_real_sandbox(serve: Serve, connect: Any) -> None:
    served = await serve(compact_rows=1, compact_ratio=0)
    before = await scrape(served)
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x")))
    await moved(served, before, COMPACTED[:2])


STAYS = shows(
    "collab_sandbox_stays",
    "collab_sandbox_stay_bytes",
    "collab_sandbox_stays_loaded_total",
    "collab_sandbox_tasks_total",
)
STAYS_ENDED = shows('collab_sandbox_stays_ended_total{reason="failed"}')


async def test_documents_that_stay_in_the_sandbox(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "make_sandbox", lambda *limits: InlineSandbox())
    served = await serve()
    before = await scrape(served)
    edits = {"edits": [{"op": "insert", "root": "t", "at": 0, "text": "word"}]}
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.patch(f"{served.url}/api/v1/content/d", json=edits) as response:
                assert response.status == 200
        during = await moved(served, before, STAYS)
        assert (during["collab_sandbox_stays"], during["collab_sandbox_tasks_total"]) == (1, 2)

        def fail(*of: object) -> None:
            raise RuntimeError("the library is broken")

        monkeypatch.setattr(stays, "do_tasks", fail)
        async with session.patch(f"{served.url}/api/v1/content/d", json=edits) as response:
            assert response.status >= 500
    after = await moved(served, before, STAYS_ENDED)
    assert after["collab_sandbox_stays"] == after["collab_sandbox_stay_bytes"] == 0


UNLOADED = shows("collab_unloads_total")


async def test_documents_that_leave_memory(serve: Serve, connect: Any) -> None:
    served = await serve(idle_seconds=0)
    before = await scrape(served)
    client: RawClient = await connect(served.ws("d"))
    await client.barrier()
    await client.close()
    after = await moved(served, before, UNLOADED)
    assert after["collab_rooms"] == 0


RETURNS = shows("collab_returns_total")


async def test_a_client_that_comes_back(serve: Serve, connect: Any, connect_hocuspocus: Any) -> None:
    served = await serve()
    before = await scrape(served)
    author = Author(1)
    client: RawClient = await connect(served.ws("d"))
    await client.send(step1(), update(author.type("x")))
    await client.barrier()
    assert (await scrape(served))["collab_returns_total"] == before["collab_returns_total"]
    await client.close()
    client = await connect(served.ws("d"))
    for _ in range(2):  # however often it asks
        await client.send(step1(b"\x01\x01\x01"))
        await client.barrier()
    after = await moved(served, before, RETURNS)
    assert (after["collab_joins_total"], after["collab_returns_total"]) == (2, 1)


STORE = shows("collab_store_bytes")


async def test_the_store_says_how_large_it_is(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MEASURE", 0.05)
    served = await serve()
    before = await eventually(lambda: _measured(served), "the first look")
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x" * 500_000)))
    await client.barrier()
    after = await moved(served, before, STORE)
    assert after[STORE[0]] - before[STORE[0]] > 400_000


DISK = shows('collab_disk_free_bytes{kept="database"}')


async def test_what_is_free_on_the_disk_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disks_module, "LOOK_SECONDS", 0.05)

    async def looked() -> Samples | None:
        samples = await scrape(served)
        return samples if DISK[0] in samples else None

    with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        os.posix_fallocate(file.fileno(), 0, 256 << 20)
        served = await serve(audit_log=tmp_path / "audit.jsonl")
        before = await eventually(looked, "the first look")
    usage = shutil.disk_usage(tmp_path)
    assert before['collab_disk_size_bytes{kept="database"}'] == usage.total
    assert 0 < before[DISK[0]] <= usage.total
    await moved(served, before, DISK)
    assert not [sample for sample in before if 'kept="audit log"' in sample], "it is on the same disk"


async def test_a_server_that_writes_to_no_disk_tells_of_none(serve: Serve) -> None:
    served = await serve(store=MemoryStore(MemoryStorage()))
    assert not [sample for sample in await scrape(served) if sample.startswith("collab_disk_")]


async def _measured(served: Served) -> Samples | None:
    samples = await scrape(served)
    return samples if STORE[0] in samples else None


async def test_a_store_that_does_not_say_how_large_it_is(serve: Serve) -> None:
    served = await serve(store=MemoryStore(MemoryStorage()))
    assert STORE[0] not in await scrape(served)


@pytest.mark.postgres
async def test_a_database_for_all_nodes_says_how_large_it_is(serve: Serve, postgres_url: str) -> None:
    served = await serve(database_url=postgres_url)
    found = await eventually(lambda: _measured(served), "the first look")
    database = await asyncpg.connect(postgres_url)
    try:
        exact = await database.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await database.close()
    assert found[STORE[0]] == pytest.approx(exact, rel=0.2)


ROWS = shows(
    "collab_rows_of_others_total",
    "collab_node_propagation_seconds",
    'collab_bus_catch_ups_total{reason="look"}',
)


async def test_rows_of_another_node(serve: Serve, connect: Any) -> None:
    storage = MemoryStorage()
    one, two = await serve(store=MemoryStore(storage)), await serve(store=MemoryStore(storage))
    before = await scrape(one)
    here, there = await connect(one.ws("d")), await connect(two.ws("d"))
    await here.barrier()
    await there.send(update(Author(1).type("x")))
    await here.expect_sync(UPDATE)
    after = await moved(one, before, ROWS)
    assert after["collab_updates_total"] == 0, "no client of this node has sent it"


SNAPSHOTS = shows("collab_snapshots_of_others_total")


@pytest.mark.postgres
async def test_snapshots_of_another_node(
    serve: Serve, connect: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "make_sandbox", lambda *limits: InlineSandbox())
    monkeypatch.setattr(hub_module, "_COMPACTION_LOOK", 0.05)
    # The other one is the first for which it is time.
    one, two = [await serve(database_url=postgres_url, compact_rows=rows, compact_ratio=0) for rows in (4, 1)]
    before = await scrape(one)
    here, there = await connect(one.ws("d")), await connect(two.ws("d"))
    await here.barrier()
    author = Author(1)
    for letter in "abcdef":
        await there.send(update(author.type(letter)))
        await there.barrier()
        await two.app[HUB].until_stored("d")  # so each is a row
    await moved(one, before, SNAPSHOTS)


HEALED = shows("collab_database_went_back_total", "collab_healed_rows_total")


async def test_a_database_that_went_back(serve: Serve, connect: Any, tmp_path: Path) -> None:
    served = await serve()
    before = await scrape(served)
    path, kept = tmp_path / "collab.db", tmp_path / "kept.db"
    author = Author(1)
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(author.type("x")))
    await client.barrier()
    await served.app[HUB].until_stored("d")
    _copy(path, kept)
    await client.send(update(author.type("y")))
    await client.barrier()
    await served.app[HUB].until_stored("d")
    _copy(kept, path)
    await moved(served, before, HEALED)


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


DAMAGED = shows("collab_damaged_documents", "collab_troubled_documents")


async def test_a_document_that_is_damaged(serve: Serve, connect: Any) -> None:
    store = MemoryStore(MemoryStorage())
    served = await serve(store=store)
    before = await scrape(served)
    await store.create("d", rows=[NewRow(b"no update", 1.0)])
    client: RawClient = await connect(served.ws("d"))
    await client.expect_close()
    await moved(served, before, DAMAGED)


PARTS = shows('collab_memory_bytes{part="frames"}', 'collab_memory_bytes{part="arriving"}')


async def test_the_parts_of_memory(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_SWEEP", 3600.0)  # which would forget finished answers
    served = await serve()
    before = await scrape(served)
    assert {name for name in before if name.startswith("collab_memory_bytes")} == {
        f'collab_memory_bytes{{part="{part}"}}'
        for part in ("documents", "frames", "pieces", "journal", "outboxes", "arriving")
    }
    client: RawClient = await connect(served.ws("d"))
    await client.send(update(Author(1).type("x")))
    await client.barrier()
    large, half = b"\x00\x02" + varbytes(bytes(1 << 20)), 1 << 19
    client.cut(b"\x82\xff" + len(large).to_bytes(8, "big") + bytes(4) + large[:half])
    after = await moved(served, before, PARTS)
    assert after[PARTS[1]] <= half
    client.cut(large[half:])  # no update, so that is its end
    assert await client.expect_close() == 1007
    assert (await scrape(served))[PARTS[1]] == 0


BUS = shows(
    "collab_nodes",
    "collab_bus_nodes",
    'collab_bus_messages_total{direction="published"}',
    'collab_bus_messages_total{direction="received"}',
)
(BUS_UP,) = shows("collab_bus_up")
(TOLD, GAP) = shows('collab_bus_catch_ups_total{reason="told"}', 'collab_bus_catch_ups_total{reason="gap"}')
LOST = shows(
    'collab_bus_lost_total{reason="dropped"}',
    'collab_bus_lost_total{reason="damaged"}',
    'collab_bus_lost_total{reason="missing"}',
    "collab_bus_reconnects_total",
)


@pytest.mark.postgres
async def test_other_nodes(serve: Serve, connect: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await serve(database_url=postgres_url)
    before = await scrape(one)
    assert before[BUS_UP] == 1 and before["collab_bus_nodes"] == 0
    two = await serve(database_url=postgres_url)
    clients = [await connect(served.ws("d")) for served in (one, two)]
    for number, client in enumerate(clients):
        await client.send(update(Author(number + 1).type("x")))
        await client.barrier()
    large = update(Author(7).type("".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))))  # no message between nodes
    await clients[1].send(large)
    before = await moved(one, before, [*BUS, TOLD])
    here, there = one.app[HUB].bus, two.app[HUB].bus
    assert isinstance(here, PostgresBus) and isinstance(there, PostgresBus)
    there.publish("d", b"\x63")
    there._peers.take()  # they are never sent
    there.publish("d", b"\x63")
    raw = await asyncpg.connect(postgres_url)
    try:
        await raw.execute("SELECT pg_notify($1, 'rubbish')", here._channel)
        with monkeypatch.context() as patch:
            patch.setattr(peers, "MAX_WAITING", 0)
            here.publish("d", b"\x63")
        await moved(one, before, LOST[:3])
        await raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await raw.close()
    after = await moved(one, before, LOST)
    assert after[BUS_UP] == 1


async def test_a_bus_that_is_down(serve: Serve, postgres_url: str) -> None:
    served = await serve(database_url=postgres_url, redis_url="redis://127.0.0.1:1")
    assert (await scrape(served))[BUS_UP] == 0
    _, _, text = await fetch(f"{served.url}/readyz")
    answer = json.loads(text)
    assert answer["ready"] and answer["degraded"]
    assert answer["checks"]["bus"] == "the bus on Redis is down: edits of other nodes arrive about a second late"


(CLOCK,) = shows("collab_clock_ahead_seconds")


async def test_a_clock_that_is_wrong(serve: Serve) -> None:
    served = await serve()
    assert (await scrape(served))[CLOCK] == 0
    membership = served.app[HUB].membership
    membership._clock = lambda: time.time() + 3_600.0
    await membership.beat()
    assert 3_500.0 < (await scrape(served))[CLOCK] <= 3_600.0
    _, _, text = await fetch(f"{served.url}/readyz")
    answer = json.loads(text)
    assert answer["ready"] and answer["degraded"] and answer["reasons"] == [f"clock: {answer['checks']['clock']}"]
    assert answer["checks"]["clock"].endswith(" s ahead of that of the database")


HOOKS = shows(
    'collab_hook_calls_total{hook="joined"}',
    'collab_hook_failures_total{hook="left"}',
    'collab_hook_timeouts_total{hook="joined"}',
    'collab_hook_dropped_total{hook="stored"}',
    "collab_hook_waiting",
    "collab_hook_seconds",
)


class Troubled(Hooks):
    """Raises, hangs and is called, each in a method of its own."""

    async def joined(self, event: Visit, server: Server) -> None:
        if event.session > 1:
            await asyncio.Event().wait()

    async def left(self, event: Visit, server: Server) -> None:
        raise ValueError

    async def stored(self, event: Rows, server: Server) -> None:
        await asyncio.Event().wait()


async def test_python_hooks(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "MAX_WAITING", 2)
    served = await serve(hooks=[Troubled()], hook_seconds=1.0)
    before = await scrape(served)
    client = await connect(served.ws("first"))
    await client.barrier()
    await client.close()
    client = await connect(served.ws("d0"))
    await client.barrier()
    await moved(served, before, ["collab_hook_waiting"])
    for number in range(1, 4):
        client = await connect(served.ws(f"d{number}"))
        await client.barrier()
        await client.send(update(Author(number + 1).type("x")))
    await moved(served, {**before, "collab_hook_waiting": -1.0}, HOOKS)


WEBHOOKS = shows(
    'collab_webhook_attempts_total{outcome="delivered"}',
    'collab_webhook_attempts_total{outcome="refused"}',
    'collab_webhook_attempts_total{outcome="unanswered"}',
    'collab_webhook_lost_total{reason="given_up"}',
    'collab_webhook_lost_total{reason="dropped"}',
    "collab_webhook_pending",
    "collab_webhook_oldest_seconds",
    "collab_webhook_disabled",
)
(DELIVERING,) = shows("collab_webhook_delivering")


async def test_webhooks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_service, "_EXPIRE", 0.1)
    assert (await scrape(await serve()))[DELIVERING] == 0
    async with Receiver() as receiver:
        served = await serve(webhook_url=receiver.url, webhook_secrets=(HOOK_SECRET,))
        before = await eventually(lambda: _delivering(served), "it delivers")
        store = served.app[HUB].store
        receiver.replies = [200, 500]
        receiver.always = cut
        for name in ("a", "b", "c"):
            await store.create(name)
        before = await moved(served, before, (*WEBHOOKS[:3], *WEBHOOKS[5:7]))
        monkeypatch.setattr(bounds, "MAX_PENDING", 0)
        await store.create("d")
        monkeypatch.setattr(bounds, "GIVE_UP_SECONDS", 0.0)
        await store.settle(served.app[HUB].membership.name, (), ["default"])
        await moved(served, {**before, WEBHOOKS[5]: -1.0, WEBHOOKS[6]: -1.0}, WEBHOOKS[3:])


async def _delivering(served: Served) -> Samples | None:
    samples = await scrape(served)
    return samples if samples[DELIVERING] else None


PROCESS = shows("collab_memory_past_mark", "collab_tasks_failing", "collab_memory_used_bytes")


async def test_the_process(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()
    memory, hub = served.app[GUARD].limits.memory, served.app[HUB]
    await happens(lambda: memory.used, "a look at the memory")
    before = {**await scrape(served), "collab_memory_used_bytes": 0.0}
    assert before["collab_memory_past_mark"] == 0
    memory.mark = memory.limit = 1
    hub.tasks.failing["prune"] = "OSError"
    after = await moved(served, before, PROCESS)
    assert (after["collab_memory_past_mark"], after["collab_tasks_failing"]) == (2, 1)
    assert after["process_start_time_seconds"] > 1.7e9
    assert sum(sample for name, sample in after.items() if name.startswith("collab_build_info")) == 1
    monkeypatch.setattr(Memory, "past_limit", False)
    assert (await scrape(served))["collab_memory_past_mark"] == 1


STREAMS = shows(
    'collab_stream_readers{mode="sse"}',
    'collab_stream_readers_opened_total{mode="sse"}',
    "collab_stream_events_total",
    "collab_stream_behind_total",
    'collab_stream_posts_total{outcome="new"}',
    "collab_stream_updates_total",
)


async def test_what_goes_over_streams(serve: Serve) -> None:
    served = await serve(outbox_bytes=32 * 1024)
    before = await scrape(served)
    author, url = Author(1), f"{served.url}/streams/docs/d"
    async with aiohttp.ClientSession() as session:
        async with session.put(url) as answer:
            assert answer.status == 201
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port, limit=1024)
        writer.write(b"GET /streams/docs/d?offset=now&live=sse HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        await happens(lambda: len(served.app[READERS]), "a reader")
        # It is not read, so after a while it takes nothing more.
        counts = served.app[READERS].counts
        while not counts.behind:
            update = encode_frames([author.type("x" * 200_000)])
            headers = {"Content-Type": "application/octet-stream"}
            async with session.post(url, data=update, headers=headers) as answer:
                assert answer.status == 204
            assert counts.updates < 200
        await moved(served, before, STREAMS)
        writer.close()


HISTORY = shows("collab_versions_pinned_total", "collab_timelines_waiting")


async def test_versions_and_timelines(serve: Serve, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.02)
    served = await serve(history_days=0, compact_rows=1, compact_ratio=0)
    before, hub = await scrape(served), served.app[HUB]
    client: RawClient = await connect(served.ws("d"))
    for number in range(1, 4):
        await client.send(update(Author(number).type("x")))

        async def compacted(number: int = number) -> bool:
            stored = await hub.store.load("d")
            return stored is not None and stored.snapshot is not None and stored.snapshot.seq >= number

        await eventually(compacted, f"snapshot {number}")
        if number == 1:
            await hub.versions.make("d", "kept", number=1)
    await moved(served, before, HISTORY)


TENANTS = shows('collab_tenants{state="ok"}', "collab_quota_refusals_total")


async def test_tenants_and_quotas(serve: Serve, connect: Any) -> None:
    served = await serve(tenants="name", quota_documents=0)
    before = await scrape(served)
    await connect(served.ws("a/d"))
    await moved(served, before, TENANTS)


def test_each_metric_is_shown_to_move() -> None:
    assert sorted({metric.series for metric in METRICS} - _shown) == []
    assert sorted(_shown - {metric.series for metric in METRICS}) == []


STALLS = shows("collab_loop_stalls_total")


async def test_a_loop_that_stands_still_is_counted(serve: Serve) -> None:
    served = await serve()
    before = await scrape(served)
    time.sleep(1.5)  # noqa: ASYNC251 - it stands still
    await moved(served, before, STALLS)


# Nothing that a client has chosen


async def test_no_label_is_of_a_client(serve: Serve, connect: Any, connect_hocuspocus: Any) -> None:
    served = await serve(authenticator=Named())
    first = await fetch(f"{served.url}/metrics?token=admin")
    assert first[0] == 200
    for number in range(30):
        y: RawClient = await connect(served.ws(f"chosen-{number}?token=chosen-{number}"))
        h: RawHocuspocus = await connect_hocuspocus(served.hocuspocus)
        await h.join(f"chosen-h{number}", f"chosen-{number}")
        await y.send(update(Author(1).type("x")), b"\x7f" + f"chosen-{number}".encode())
        await h.send(hocuspocus_auth(f"chosen-x{number}", "refused"))
        await h.denied(f"chosen-x{number}")
        await fetch(f"{served.url}/chosen-{number}", headers={"User-Agent": f"chosen-{number}"})
        async with aiohttp.ClientSession() as session:
            for method, path in (("PROPFIND", f"/chosen-{number}"), ("GET", f"/api/v1/chosen-{number}")):
                async with session.request(method, f"{served.url}{path}") as response:
                    assert response.status >= 400
        await y.close()
        await h.close()
    status, _, text = await fetch(f"{served.url}/metrics?token=admin")
    assert status == 200 and "chosen" not in text.lower() and "127.0.0.1" not in text
    routes = {resource.canonical for resource in served.app.router.resources()} | {"none"}
    for family in parse_text(text):
        for sample in family.samples:
            for name, label in sample.labels.items():
                known = label in routes if name == "route" else re.fullmatch(r"[a-z0-9_.+-]+|[A-Z]+", label)
                assert name == "le" or known, sample
    # So many series whatever comes; some begin with the first event of their kind.
    assert len(text.splitlines()) <= len(first[2].splitlines()) + 12


class Named:
    """Lets everybody write under the name that is the token; "admin" may do everything, "refused" nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request.document_name)
        if request.token == "refused":
            raise Forbidden("no")
        return Grant(Access.ADMIN if request.token == "admin" else Access.WRITE, user=request.token)


# Who may read it


@pytest.mark.parametrize(
    ("documents", "status"),
    [
        ({"*": "admin"}, 200),
        ({"*": "admin", "notes/*": "read"}, 200),
        ({"*": "write"}, 403),
        ({"*": "read", "a": "admin"}, 403),
        ({"notes/*": "admin"}, 403),
    ],
)
async def test_on_the_main_port_for_admins_of_all_documents(
    serve: Serve, documents: dict[str, str], status: int
) -> None:
    served = await serve(jwt_secret=SECRET)
    headers = {"Authorization": f"Bearer {token(documents=documents)}"}
    found, answered, text = await fetch(f"{served.url}/metrics", headers=headers)
    assert found == status
    assert ("collab_rooms" in text) is (status == 200)
    assert answered["Cache-Control"] == "no-store"


async def test_on_the_main_port_without_a_token_it_is_the_usual_refusal(serve: Serve) -> None:
    served = await serve(jwt_secret=SECRET)
    usual = await fetch(f"{served.url}/api/v1/documents/d")
    status, headers, text = await fetch(f"{served.url}/metrics")
    assert (status, text) == (usual[0], usual[2]) and status == 401
    assert headers["WWW-Authenticate"] == "Bearer"
    late = token(documents={"*": "admin"}, seconds=-3600)
    assert (await fetch(f"{served.url}/metrics?token={late}"))[0] == 401
    forged = jwt.encode({"sub": "x", "documents": {"*": "admin"}, "exp": 1 << 33}, "x" * 40, "HS256")
    assert (await fetch(f"{served.url}/metrics?token={forged}"))[0] == 401


async def test_an_applications_own_authenticator_is_asked_about_all_documents(serve: Serve) -> None:
    named = Named()
    served = await serve(authenticator=named)
    assert (await fetch(f"{served.url}/metrics?token=admin"))[0] == 200
    assert (await fetch(f"{served.url}/metrics?token=somebody"))[0] == 403
    assert named.asked == ["*", "*"]


async def test_without_authentication_it_is_for_the_own_machine(serve: Serve) -> None:
    served = await serve()
    assert (await fetch(f"{served.url}/metrics"))[0] == 200
    assert (await fetch(f"{served.url}/metrics", headers={"Host": "evil.example"}))[0] == 403
    assert (await fetch(f"{served.url}/metrics", headers={"Origin": "https://evil.example"}))[0] == 403


async def test_mounted_below_a_path(serve: Serve) -> None:
    served = await serve(prefix="/collab")
    assert "collab_rooms" in (await fetch(f"{served.url}/metrics"))[2]


# A port of its own


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    options = ("--metrics-port", "0", "--log-format", "json", "--drain-delay-seconds", "0")
    async with ServerProcess(tmp_path, *options, "--jwt-secret", SECRET, drain_delay=None) as process:
        yield process


def metrics_url(process: ServerProcess) -> str:
    first, second = process.stdout.splitlines()[:2]
    assert first.startswith("collab listening on ")
    found = re.fullmatch(r"collab metrics on (http://127\.0\.0\.1:\d+/metrics)", second)
    assert found, second
    return found[1]


async def test_a_port_of_its_own_needs_no_token_and_serves_nothing_else(server: ServerProcess) -> None:
    url = await eventually_url(server)
    status, _, text = await fetch(url, headers={"Accept": ACCEPT})
    assert status == 200 and read(text)["collab_rooms"] == 0
    assert (await fetch(f"{server.url}/metrics"))[0] == 401
    for path in ("/", "/readyz", "/api/v1/documents"):
        assert (await fetch(url.removesuffix("/metrics") + path))[0] == 404
    # No page of a browser reads it, under whatever name.
    assert (await fetch(url, headers={"Origin": "https://evil.example"}))[0] == 403
    assert (await fetch(url, headers={"Host": "evil.example"}))[0] == 403


async def eventually_url(process: ServerProcess) -> str:
    await happens(lambda: len(process.stdout.splitlines()) >= 2, "the second line of output")
    return metrics_url(process)


async def test_the_port_for_metrics_is_closed_last(server: ServerProcess) -> None:
    url = await eventually_url(server)
    good = token(documents={"*": "write"})
    client = await RawClient(f"{server.document_url('d')}?token={good}").connect()
    try:
        await client.barrier()
        # It reads nothing, so the server waits for its answer to the close frame.
        assert client._ws is not None and client._ws._conn is not None and client._ws._conn.transport is not None
        client._ws._conn.transport.pause_reading()
        stopping = asyncio.create_task(server.aterminate())

        async def closed() -> bool:
            try:
                await fetch(f"{server.url}/healthz")
            except aiohttp.ClientError:
                return True
            return False

        await eventually(closed, "the main port is closed")
        status, _, text = await fetch(url, headers={"Accept": ACCEPT})
        assert status == 200
        assert read(text)['collab_connections{protocol="y-websocket"}'] == 1, "and shows how the server ends"
        assert await stopping == 0
        with pytest.raises(aiohttp.ClientError):
            await fetch(url)
    finally:
        await client.vanish()


# The documentation


def test_the_table_in_the_documentation_is_current() -> None:
    text = metrics_table.DOCUMENT.read_text(encoding="utf-8")
    written = text.partition(metrics_table.START)[2].partition(metrics_table.END)[0]
    assert written.strip() == metrics_table.render().strip(), "stale: python -m tests.support.metrics_table"


def test_the_documentation_names_no_metric_that_there_is_not() -> None:
    text = metrics_table.DOCUMENT.read_text(encoding="utf-8")
    known = {metric.series for metric in METRICS}
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bcollab_[a-z_]+\b", text)}
    others = {"collab_journal", "collab_store", "collab_pending"}  # a table, a bench, a command of Django
    assert sorted(named - known - others) == []
    # The rules have all that a metric tells of a fault.
    gauges = {metric.series for metric in METRICS if metric.kind is GAUGE}
    assert {"collab_journal_failing", "collab_tasks_failing", "collab_damaged_documents"} <= named & gauges
