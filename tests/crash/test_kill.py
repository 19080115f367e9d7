"""``kill -9`` under load at random moments: what was committed is there afterwards, and everybody converges.

y-websocket has no acknowledgement, so what was committed is known in two ways: from the rows that another
connection to the database sees before the kill, and from the server's own report ("committed NAME 3..5").
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crash.load import Load
from tests.crash.stored import PostgresLog, SqliteLog, StoredLog, read, reported, tokens
from tests.interop.agent import Agent, Client
from tests.interop.agent import converge as agents_converge
from tests.support.gone import Gone
from tests.support.hocuspocus import RawHocuspocus
from tests.support.hocuspocus import step2 as step2_of
from tests.support.hocuspocus import update as update_of
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import STEP2, LiveClient, RawClient, converge, step1, text_update, update

# Small, so that snapshots are made, documents unloaded and batches gathered at the moment of many kills.
OPTIONS = ("--log-level", "debug", "--compact-rows", "40", "--compact-ratio", "0.2", "--idle-seconds", "0.2")

DOCUMENTS = ("crash 0", "crash 1", "crash 2")


async def kill_and_check(server: ServerProcess, log: StoredLog, moment: float) -> None:
    """Kill the server after ``moment`` seconds of load, start it again and look for all that was committed."""
    await asyncio.sleep(moment)
    seen = await read(log)
    await server.akill()
    said = reported(server.log_lines)
    left = await read(log)
    for name, rows in seen.items():
        assert left[name][: len(rows)] == rows, f"{name}: rows that were seen committed have changed"
    for name, last in said.items():
        assert left[name][-1][0] >= last, f"{name}: row {last} was reported as committed"
    for name, rows in left.items():
        assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1)), f"{name}: numbers with a gap"
    await server.astart()
    for name in left:
        async with RawClient(server.document_url(name)) as joiner:
            await joiner.send(step1())
            served = tokens([await joiner.expect_sync(STEP2)])
        assert set(served) >= set(tokens(data for _, data in left[name]))


async def run(server: ServerProcess, log: StoredLog, *, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    async with server, Load(server, DOCUMENTS, clients=2, seed=seed) as load:
        for _ in range(kills):
            await load.until_made(5)
            await kill_and_check(server, log, moments.uniform(0.0, 0.35))
        assert server.starts == kills + 1
        await load.stop()
        await load.converged()
        # Once more, with nobody left to send anything again: all of it must have been stored.
        await until_stored(log, load)
        await server.akill()
        await server.astart()
        await load.converged()
        for name in DOCUMENTS:
            async with RawClient(server.document_url(name)) as joiner:
                await joiner.send(step1())
                assert sorted(tokens([await joiner.expect_sync(STEP2)])) == sorted(load.made[name])


async def until_stored(log: StoredLog, load: Load) -> None:
    """Wait until the rows hold every token that was made; each must be there once."""

    async def all_stored() -> dict[str, list[str]] | None:
        rows = await read(log)
        stored = {name: sorted(tokens(data for _, data in rows.get(name, []))) for name in load.names}
        return stored if all(len(stored[name]) >= len(load.made[name]) for name in load.names) else None

    stored = await eventually(all_stored, "every edit in the log")
    assert stored == {name: sorted(made) for name, made in load.made.items()}


@pytest.mark.timeout(240)
async def test_kill_under_load_on_sqlite(tmp_path: Path) -> None:
    await run(ServerProcess(tmp_path, *OPTIONS), SqliteLog(tmp_path / "collab.db"), kills=11, seed=11)


@pytest.mark.timeout(240)
async def test_kill_under_load_on_postgresql(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = urlsplit(postgres_url).path.lstrip("/")
    server = ServerProcess(tmp_path, *OPTIONS, database_url=postgres_url)
    await run(server, PostgresLog(postgres_server, database), kills=10, seed=12)


async def kill_what_waits(server: ServerProcess, kills: int) -> None:
    """Kill the server at the moment in which it has called saved what waits; then send what was waited for."""
    documents = [(f"waits/{number}", Gone(100 + 2 * number, root="text")) for number in range(kills)]
    async with server:
        for name, gone in documents:
            async with RawHocuspocus(server.hocuspocus_url) as holder:
                await holder.join(name)
                await holder.send(step2_of(name, gone.rest))
                await holder.send(update_of(name, text_update(1, "mine")))
                assert await holder.statuses(name, 2) == [1, 1]
                await server.akill()
            await server.astart()
        for name, gone in documents:
            async with RawClient(server.document_url(name)) as other, LiveClient(server.document_url(name)) as reader:
                await reader.until_synced()
                assert str(reader.text()) == "mine"
                await other.send(update(gone.missing))
                await converge([reader], lambda client: sorted(str(client.text())), sorted("mine" + gone.whole))


async def test_what_waits_outlives_kills_on_sqlite(tmp_path: Path) -> None:
    await kill_what_waits(ServerProcess(tmp_path, *OPTIONS), 4)


async def test_what_waits_outlives_kills_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    await kill_what_waits(ServerProcess(tmp_path, *OPTIONS, database_url=postgres_url), 4)


async def test_stock_clients_come_back_from_a_kill_with_every_edit(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, *OPTIONS) as server, Agent("yjs13") as agent:
        clients: list[Client] = [
            await agent.open(f"c{i}", version, server.ws_url, "stock") for i, version in enumerate(("3.0", "3.1"))
        ]
        made = []
        for round in range(3):
            for n in range(60):
                for i, client in enumerate(clients):
                    made.append(f"{i}:{round}:{n}")
                    await client.edit("push", values=[made[-1]])
                if n == 20 + 7 * round:
                    await server.akill()
                if n == 40 + 7 * round:
                    await server.astart()
        shared = await agents_converge(clients)
        assert sorted(shared["array"]) == sorted(made)


async def test_a_kill_leaves_no_process_behind(tmp_path: Path) -> None:
    """Sandbox processes must end when the server they work for is gone."""
    import psutil

    options = (*OPTIONS, "--compact-ratio", "0", "--compact-rows", "1")
    async with ServerProcess(tmp_path, *options) as server, Load(server, ("one",), clients=2, seed=1) as load:
        parent = psutil.Process(server.pid)
        children: list[psutil.Process] = []
        while not children:
            await load.until_made(20)
            children = parent.children(recursive=True)
        await server.akill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, children, 20)
        assert alive == []
        assert gone
