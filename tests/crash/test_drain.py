"""Stopping in the order that proxies and clients need: not ready, then no new connections, sockets, the journal."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp

from tests.crash.stored import SqliteLog, read
from tests.crash.test_outage import FileLimit, until_readiness
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import STEP1, LiveClient, RawClient, converge

# Longer than what happens within it takes on a busy machine; a test that hurries does not wait for it.
DELAY = 60.0
OPTIONS = ("--drain-seconds", str(2 * DELAY))


def delayed(tmp_path: Path, *options: str) -> ServerProcess:
    return ServerProcess(tmp_path, *(options or OPTIONS), drain_delay=DELAY)


async def until_draining(server: ServerProcess) -> None:
    answer = await until_readiness(server, 503)
    assert answer["checks"]["server"] == "draining" and answer["reasons"] == ["server: draining"]


async def refused(server: ServerProcess) -> bool:
    """Tell whether the listener is closed."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


async def test_not_ready_comes_first_and_all_goes_on_until_proxies_have_noticed(tmp_path: Path) -> None:
    async with delayed(tmp_path) as server, LiveClient(server.document_url("d")) as client:
        await client.until_synced()
        stopping = asyncio.create_task(server.aterminate(60.0))
        await until_draining(server)
        # A proxy that has not noticed sends somebody here: he is served, and so is everybody else.
        async with LiveClient(server.document_url("d")) as late:
            await late.until_synced()
            late.text().insert(0, "late ")
            client.text().insert(0, "early ")
            await converge([client, late], lambda client: len(str(client.text())), 11)
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/healthz") as response:
                assert response.status == 200
            assert client.open and late.open and not stopping.done()
            # The second signal ends the wait.
            os.kill(server.pid, signal.SIGTERM)
            assert await client.expect_close() == 1012
            assert await late.expect_close() == 1012
        assert await stopping == 0
        stored = b"".join(data for _, data in (await read(SqliteLog(tmp_path / "collab.db")))["d"])
        assert b"late " in stored and b"early " in stored


async def test_the_delay_ends_by_itself_and_has_half_of_the_time_at_most(tmp_path: Path) -> None:
    async with delayed(tmp_path, "--drain-seconds", "4") as server, RawClient(server.document_url("d")) as client:
        await client.expect_sync(STEP1)
        begun = time.monotonic()
        stopping = asyncio.create_task(server.aterminate(60.0))
        assert await client.expect_close() == 1012
        assert time.monotonic() - begun >= 2.0
        assert await stopping == 0
        assert any("closed to new connections in 2 s" in line for line in server.log_lines)


async def test_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    async with delayed(tmp_path) as server, RawClient(server.document_url("d")) as client:
        await client.expect_sync(STEP1)
        assert await server.aterminate(DELAY / 2, by=signal.SIGINT) == 0
        assert await client.expect_close() == 1012


async def test_sockets_are_closed_in_groups_behind_the_listener_and_before_the_journal(tmp_path: Path) -> None:
    """Who waits for his turn still edits, and what he has edited is stored."""
    async with ServerProcess(tmp_path, *OPTIONS) as server:
        first = [await RawClient(server.document_url("others")).connect() for _ in range(300)]
        for client in first:
            await client.expect_sync(STEP1)
        async with LiveClient(server.document_url("d")) as last:
            await last.until_synced()
            stopping = asyncio.create_task(server.aterminate(60.0))
            assert await first[0].expect_close() == 1012
            assert await refused(server)
            assert last.open, "his turn has not come"
            typed = 0
            while last.open:
                last.text().insert(0, "x")
                typed += 1
                await asyncio.sleep(0.005)
            assert await last.expect_close() == 1012
            for client in first:
                assert await client.expect_close() == 1012
                await client.close()
            assert await stopping == 0
        rows = await read(SqliteLog(tmp_path / "collab.db"))
        assert typed and rows.get("d"), "edits between the first close and the last are stored"


async def test_a_store_that_is_away_keeps_nobody_waiting_and_the_time_holds(tmp_path: Path) -> None:
    disk = FileLimit(tmp_path, "--drain-seconds", "4")
    async with disk.server as server, LiveClient(server.document_url("d")) as client:
        await client.until_synced()
        client.text().insert(0, "stored ")

        async def has() -> bool:
            return bool((await read(SqliteLog(tmp_path / "collab.db"))).get("d"))

        await eventually(has, "the first row")
        disk.fill()
        client.text().insert(0, "not ")
        await until_readiness(server, 503)
        begun = time.monotonic()
        stopping = asyncio.create_task(server.aterminate(60.0))
        assert await client.expect_close() == 1012
        to_close = time.monotonic() - begun
        assert await stopping == 1
        assert to_close < time.monotonic() - begun, "the client is away before the journal has given up"
        # What the process needs to end is no matter of the server's, and this machine may be busy.
        assert time.monotonic() - begun < 4.0 + 4.0
