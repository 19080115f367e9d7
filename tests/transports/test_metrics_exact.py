"""``/metrics`` has the exact numbers of a load that is known to the last frame, whatever way the server runs.

Strategy: real clients follow a script, each edit when all have the one before. So it is known how many turns, rows and
frames there are. What the server says is compared with what the script has done and with what the clients were sent.
Some processes may serve: their numbers are added up.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collab import asgi
from collab.sandbox.counted import OUTCOMES
from collab.settings import Settings
from collab.transports.http.metrics_list import word
from tests.support.asgi import AsgiServer
from tests.support.hocuspocus import RawHocuspocus
from tests.support.hocuspocus import update as hocuspocus_update
from tests.support.server import ServerProcess
from tests.support.sqlite import migrated
from tests.support.waiting import eventually
from tests.support.wsclient import UPDATE, LiveClient, RawClient, converge, text_update, update

pytestmark = [pytest.mark.server, pytest.mark.slow]

Numbers = dict[str, float]

EDITS = 12
"""Of each client that types."""


class Server:
    """Where a server is, and where it tells its numbers."""

    def __init__(self, address: str, metrics: list[str]) -> None:
        self.url = f"http://{address}"
        self.socket = f"ws://{address}"
        self._metrics = metrics

    @property
    def processes(self) -> int:
        """How many serve."""
        return len(self._metrics)

    async def scrape(self) -> Numbers:
        """Add up the numbers of all processes."""
        found: Numbers = {}
        async with aiohttp.ClientSession() as session:
            for url in self._metrics:
                async with session.get(url) as answer:
                    assert answer.status == 200
                    text = await answer.text()
                for family in parse_text(text):
                    for sample in family.samples:
                        labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                        series = f"{sample.name}{{{labels}}}" if labels else sample.name
                        found[series] = found.get(series, 0.0) + sample.value
        return found


async def _alone(directory: Path, database: str | None, stack: contextlib.AsyncExitStack) -> Server:
    process = await stack.enter_async_context(ServerProcess(directory, "--metrics-port", "0"))
    return await _of_process(process, 1)


async def _workers(directory: Path, database: str | None, stack: contextlib.AsyncExitStack) -> Server:
    options = ("--workers", "2", "--metrics-port", "0")
    process = ServerProcess(directory, *options, database_url=database)
    return await _of_process(await stack.enter_async_context(process), 2)


async def _of_process(process: ServerProcess, count: int) -> Server:
    def urls() -> list[str]:
        return re.findall(r"^collab metrics on (\S+)$", process.stdout, re.MULTILINE)

    await eventually(_later(lambda: len(urls()) == count), "the addresses of metrics")
    return Server(f"{process.host}:{process.port}", urls())


async def _below_asgi(directory: Path, database: str | None, stack: contextlib.AsyncExitStack) -> Server:
    migrated(directory)
    server = AsgiServer("uvicorn", asgi.create_app(Settings(data_dir=directory)))
    await server.start_server()
    stack.push_async_callback(server.close)
    address = f"127.0.0.1:{server.port}"
    return Server(address, [f"http://{address}/metrics"])


def _later(fact: Callable[[], object]) -> Callable[[], Any]:
    async def ask() -> object:
        return fact()

    return ask


WAYS = {"alone": _alone, "workers": _workers, "asgi": _below_asgi}


@pytest.fixture(params=["alone", pytest.param("workers", marks=pytest.mark.postgres), "asgi"])
def way(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """Give the name of a way to serve, and the address of the database that it needs."""
    return request.param, request.getfixturevalue("postgres_url") if request.param == "workers" else None


@pytest.fixture
async def server(way: tuple[str, str | None], tmp_path: Path) -> AsyncIterator[Server]:
    async with contextlib.AsyncExitStack() as stack:
        yield await WAYS[way[0]](tmp_path, way[1], stack)


class Load:
    """The script.

    Attributes:
        frames: frames that the clients were sent while they typed.
        nbytes: bytes of the updates that they have sent.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stack = contextlib.AsyncExitStack()
        self.typists: list[LiveClient] = []
        self.frames = self.nbytes = 0

    async def open(self) -> None:
        """Open four sockets on two documents, and a fifth that reads one of them and another one."""
        for name in ("a", "a", "a", "b"):
            client = await self._stack.enter_async_context(LiveClient(f"{self._server.socket}/ws/{name}"))
            await client.until_synced()
            await client.barrier()  # it has answered the server's question
            self.typists.append(client)
        self.reader = await self._stack.enter_async_context(RawHocuspocus(f"{self._server.socket}/hocuspocus"))
        for name in ("a", "c"):
            await self.reader.join(name)

    async def type(self) -> None:
        """Let each client type, one after the other; end when all that is sent has come."""
        before = [len(client.frames) for client in (*self.typists, self.reader)]
        mates = {id(client): [each for each in self.typists if each.url == client.url] for client in self.typists}
        for number in range(EDITS):
            for client in self.typists:
                state = client.doc.get_state()
                own = len(client.frames)
                client.text().insert(0, f"{number} ")
                self.nbytes += len(client.doc.get_update(state))
                seen = len(self.reader.frames)
                await converge(mates[id(client)], lambda each: str(each.text()), str(client.text()))
                if client.url.endswith("/a"):
                    await self.reader.until(lambda seen=seen: len(self.reader.frames) > seen, "the edit")
                await client.expect_sync(UPDATE, after=own)  # it gets its own, too
        self.frames = sum([len(client.frames) for client in (*self.typists, self.reader)]) - sum(before)

    async def close(self) -> None:
        """Close all sockets."""
        await self._stack.aclose()


def grown(before: Numbers, after: Numbers, series: str) -> float:
    """Give by how much a number has grown."""
    return after.get(series, 0.0) - before.get(series, 0.0)


async def reached(server: Server, before: Numbers, expected: Numbers) -> Numbers:
    """Wait until the numbers have grown by what is expected, and return all; it fails with those that differ."""
    found: Numbers = {}

    async def look() -> bool:
        found.clear()
        found.update(await server.scrape())
        return all(grown(before, found, series) == more for series, more in expected.items())

    try:
        await eventually(look, "the exact numbers", 20.0)
    except AssertionError:
        assert {series: grown(before, found, series) for series in expected} == expected
    return found


async def test_the_numbers_of_a_load_are_exact(server: Server) -> None:
    load, start = Load(server), await server.scrape()
    try:
        await load.open()
        opened = await reached(
            server,
            start,
            {
                'collab_connections{protocol="y-websocket"}': 4,
                'collab_connections{protocol="hocuspocus"}': 1,
                'collab_connections_opened_total{protocol="y-websocket"}': 4,
                'collab_connections_opened_total{protocol="hocuspocus"}': 1,
                "collab_sessions": 6,
                "collab_joins_total": 6,
                "collab_returns_total": 0,
                "collab_updates_total": 0,
            },
        )
        assert opened["collab_cold_load_seconds_count"] == opened["collab_rooms"] >= 3
        edits = EDITS * len(load.typists)
        of_a = EDITS * 3
        await load.type()
        # Three clients and the reader have "a", the author of an edit included; one has "b".
        assert load.frames == of_a * 4 + EDITS
        typed = await reached(
            server,
            opened,
            {
                "collab_updates_total": edits,
                "collab_turns_total": edits,
                "collab_turn_bytes_count": edits,
                "collab_turn_bytes_sum": load.nbytes,
                "collab_update_bytes_total": load.nbytes,
                "collab_propagation_seconds_count": edits,
                "collab_deliveries_total": load.frames,
                "collab_journal_entries_total": edits,
                "collab_journal_batch_entries_sum": edits,
                "collab_acknowledgement_seconds_count": edits,
                "collab_journal_queue_entries": 0,
                "collab_journal_retries_total": 0,
                "collab_refused_updates_total": 0,
                "collab_slow_members_held_back_total": 0,
                'collab_received_messages_total{protocol="y-websocket"}': edits,
            },
        )
        for of in ("collab_journal_batch_entries", "collab_journal_commit_seconds"):
            assert 0 < grown(opened, typed, f"{of}_count") <= edits
        assert grown(opened, typed, "collab_node_propagation_seconds_count") == grown(
            opened, typed, "collab_rows_of_others_total"
        )
        await _of_http(server, typed)
        await _of_refusals(server, load)
    finally:
        await load.close()
    await reached(
        server, start, {"collab_sessions": 0, **{f'collab_connections{{protocol="{name}"}}': 0 for name in PROTOCOLS}}
    )


PROTOCOLS = ("y-websocket", "hocuspocus")


async def _of_http(server: Server, before: Numbers) -> None:
    content = "/api/v1/content"
    async with aiohttp.ClientSession() as session:
        for path, status in (("b", 200), ("b", 200), ("nothing", 404)):
            async with session.get(f"{server.url}{content}/{path}") as answer:
                assert answer.status == status
        async with session.post(f"{server.url}/healthz") as answer:
            assert answer.status == 405
        async with session.request("PROPFIND", f"{server.url}/b") as answer:
            assert answer.status == 404
    route = "/api/v1/content/{name}"

    def answers(route: str, method: str, status: str) -> str:
        return f'collab_http_answers_total{{method="{method}",route="{route}",status="{status}"}}'

    after = await reached(
        server,
        before,
        {
            answers(route, "GET", "2xx"): 2,
            answers(route, "GET", "4xx"): 1,
            answers("none", "POST", "4xx"): 1,
            answers("none", "none", "4xx"): 1,
        },
    )
    # The document is loaded to stay in each process that was asked, and read there.
    reads, loads = (jobs(before, after, kind) for kind in ("edits", "load"))
    assert reads == {"done": 2} and {"done"} == loads.keys() and loads["done"] <= server.processes


def jobs(before: Numbers, after: Numbers, kind: str) -> Numbers:
    """Give how many jobs of the sandbox of a kind have ended, by outcome."""
    series = {name: f'collab_sandbox_jobs_total{{kind="{kind}",outcome="{word(name)}"}}' for name in OUTCOMES}
    return {name: more for name, one in series.items() if (more := grown(before, after, one))}


async def _of_refusals(server: Server, load: Load) -> None:
    before = await server.scrape()
    async with RawClient(f"{server.socket}/ws/b") as malformed:
        await malformed.send(update(b"\xff"))
        assert await malformed.expect_close() == 1007
    await load.reader.send(hocuspocus_update("c", b"\xff"))
    assert await load.reader.statuses("c", 1) == [0]
    (typist,) = [client for client in load.typists if client.url.endswith("/b")]
    async with LiveClient(typist.url) as returned:
        await returned.until_synced()
        await returned.close()
        await returned.connect()
        await returned.until_synced()
    async with aiohttp.ClientSession() as session, session.delete(f"{server.url}/api/v1/documents/b") as answer:
        assert answer.status == 204
    assert await typist.expect_close() == 4404
    await load.reader.send(hocuspocus_update("c", text_update(7, "x")))
    assert await load.reader.statuses("c", 2) == [0, 1]
    after = await reached(
        server,
        before,
        {
            'collab_refusals_total{reason="update_error"}': 1,
            "collab_refused_updates_total": 1,
            "collab_joins_total": 3,
            "collab_returns_total": 1,
            "collab_updates_total": 1,
            'collab_connections{protocol="y-websocket"}': -1,
        },
    )
    # Each process that had it in memory has closed it.
    evictions = grown(before, after, 'collab_evictions_total{reason="document_deleted"}')
    assert 1 <= evictions <= server.processes
