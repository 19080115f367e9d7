"""Stopping in order under load, and stopping when the store does not let it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.crash.load import Load, array
from tests.crash.stored import SqliteLog, read, tokens
from tests.crash.test_outage import FileLimit, until_readiness
from tests.support.server import ServerFailed, ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import STEP1, LiveClient, RawClient, converge

NAMES = ("stop 0", "stop 1")


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_a_stop_under_load_stores_everything_that_anybody_has_seen(tmp_path: Path, by: signal.Signals) -> None:
    server = ServerProcess(tmp_path)
    async with server, Load(server, NAMES, clients=3, seed=7) as load:
        watchers = {name: LiveClient(server.document_url(name)) for name in NAMES}
        for watcher in watchers.values():
            await watcher.connect()
        await load.until_made(80)
        assert await server.aterminate(by=by) == 0
        for watcher in watchers.values():
            assert await watcher.expect_close() == 1012
        rows = await read(SqliteLog(tmp_path / "collab.db"))
        for name, watcher in watchers.items():
            assert len(array(watcher)) > 40
            assert set(array(watcher)) <= set(tokens(data for _, data in rows[name]))
            await watcher.close()
        await server.astart()
        await load.stop()
        await load.converged()


async def test_no_connection_is_taken_while_the_server_stops(tmp_path: Path) -> None:
    async with FileLimit(tmp_path, "--drain-seconds", "3").server as server:
        disk = FileLimit(tmp_path)
        disk.server = server
        async with LiveClient(server.document_url("last")) as client:
            await client.until_synced()
            client.text().insert(0, "stored ")
            await server_has(tmp_path, "last")
            disk.fill()
            client.text().insert(7, "not stored")
            await until_readiness(server, 503)
            stopping = asyncio.create_task(server.aterminate())
            assert await client.expect_close() == 1012
            with pytest.raises((OSError, AssertionError)):
                late = await RawClient(server.document_url("last")).connect()
                # A connection that the kernel had accepted already is told to come back.
                assert await late.expect_close() == 1012
                raise AssertionError("turned away")
            # Exit 1, with a line for the document whose edits could not be stored.
            assert await stopping == 1
        assert any("last" in line for line in server.log_lines if "stored" in line), server.report()


async def test_a_second_server_on_the_same_port_says_so(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        with pytest.raises(ServerFailed) as failure:
            await ServerProcess(tmp_path / "other", port=server.port).astart()
        assert f"cannot listen on 127.0.0.1 port {server.port}" in str(failure.value)
        async with RawClient(server.document_url("goes on")) as client:
            await client.expect_sync(STEP1)


async def test_what_one_server_wrote_the_next_one_serves(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        async with LiveClient(server.document_url("kept")) as client:
            await client.until_synced()
            client.text().insert(0, "kept")
            await server_has(tmp_path, "kept")
        assert await server.aterminate() == 0
        await server.astart()
        async with LiveClient(server.document_url("kept")) as client:
            await converge([client], lambda client: str(client.text()), "kept")


async def server_has(data_dir: Path, name: str) -> None:
    """Wait until the database has a row of the document."""

    async def has() -> object:
        return (await read(SqliteLog(data_dir / "collab.db"))).get(name)

    await eventually(has, f"a row of {name}")
