"""The recipes of ``docs/operations.md``, Incidents: each in such trouble, with the lines that it has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import jwt
import psycopg
import pytest

from tests.crash.load import through
from tests.crash.test_outage import FileLimit, until_readiness
from tests.docs.test_shell import Shell
from tests.support.handshake import upgrade
from tests.support.postgres import TEMPLATE, PostgresServer
from tests.support.server import ServerProcess
from tests.support.snippets import snippet
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient, RawClient, converge, text_update, update

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.slow]

SECRET = "a secret of the tests, long enough for HS256"
PEOPLE = 12


def token(user: str, access: str = "write") -> str:
    return jwt.encode({"sub": user, "documents": {"*": access}, "exp": int(time.time()) + 3_600}, SECRET)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[list[ServerProcess]]:
    """Two nodes on one database, with bounds that a few clients pass."""
    url = postgres_server.url(postgres_server.create_database(template=TEMPLATE))
    options = (
        *("--metrics-port", "0", "--max-messages-per-second", "20", "--flood-seconds", "2"),
        *("--outbox-bytes", "65536", "--max-connections-per-document", str(PEOPLE)),
    )
    environment = {"COLLAB_JWT_SECRET": SECRET}
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                ServerProcess(tmp_path_factory.mktemp(name), *options, database_url=url, environment=environment)
            )
            for name in ("one", "two")
        ]


def address(server: ServerProcess, name: str, user: str) -> str:
    return f"{server.document_url(name)}?token={token(user)}"


def shell_of(directory: Path, server: ServerProcess, **replaced: str) -> Shell:
    shell = Shell(directory, **replaced)
    assert server.database_url is not None
    shell.environment |= {"COLLAB_DATABASE_URL": server.database_url, "COLLAB_JWT_SECRET": SECRET}
    shell.environment["TOKEN"] = token("operator", "admin")
    return shell


async def run(shell: Shell, lines: str) -> list[str]:
    """Run the lines of a recipe beside what goes on here."""
    return await asyncio.to_thread(shell.run, lines)


@contextlib.asynccontextmanager
async def stalled(url: str) -> AsyncIterator[None]:
    """Be a client who reads nothing, behind the smallest buffer there is."""
    parts = urlsplit(url)
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(end, (parts.hostname, parts.port))
        await loop.sock_sendall(end, upgrade(f"{parts.path}?{parts.query}"))
        yield


async def test_a_document_is_slow_and_memory_grows(tmp_path: Path, pair: list[ServerProcess]) -> None:
    one, _ = pair
    found = re.search(r"collab metrics on http://(\S+)/metrics", one.stdout)
    assert found is not None
    shell = shell_of(tmp_path, one, **{"127.0.0.1:9464": found[1]})
    async with contextlib.AsyncExitStack() as stack:
        people = [LiveClient(address(one, "notes/plan", f"user {number}")) for number in range(PEOPLE - 1)]
        for client in people:
            await stack.enter_async_context(client)
            await client.until_synced()
        await stack.enter_async_context(stalled(address(one, "notes/plan", "sleeper")))
        late = await stack.enter_async_context(RawClient(address(one, "notes/plan", "late")))
        assert await late.expect_close() == 1013

        async def lags() -> bool:
            people[0].text().insert(0, random.randbytes(50_000).hex())
            await people[0].barrier()
            headers = {"Authorization": f"Bearer {token('operator', 'admin')}"}
            async with aiohttp.request("GET", f"{one.url}/api/v1/connections?user=sleeper", headers=headers) as answer:
                (told,) = (await answer.json())["connections"]
            return bool(told["documents"][0]["lagging"])

        await eventually(lags, "somebody who reads too slowly")
        connected, shown, listed = await run(shell, snippet("docs/operations.md", "A document is slow", "sh"))
        head, *rows = connected.splitlines()
        assert len(rows) == PEOPLE
        (slow,) = [row for row in rows if "slow" in row]
        assert "sleeper" in slow and int(slow[head.index("WAITING") - 4 : head.index("WAITING") + 7]) > 0
        assert "after it" in shown and "notes/plan" in listed
        metrics, _, _ = await run(shell, snippet("docs/operations.md", "Memory grows", "sh"))
        figures = dict(line.rsplit(" ", 1) for line in metrics.splitlines())
        assert float(figures["collab_slow_members"]) == 1 and float(figures['collab_memory_bytes{part="outboxes"}']) > 0
        assert {"collab_memory_used_bytes", "collab_rooms", "collab_sessions"} <= figures.keys()
        waiting = {
            each["users"][0]: each["waiting_bytes"]
            for each in json.loads((tmp_path / "connections.json").read_text())["connections"]
        }
        assert max(waiting, key=lambda user: int(waiting[user])) == "sleeper", waiting


async def test_people_see_different_content(tmp_path: Path, pair: list[ServerProcess]) -> None:
    one, two = pair
    shell = shell_of(tmp_path, one, **{"10.0.0.5:1234": f"127.0.0.1:{one.port}"})
    (tmp_path / "other").mkdir()
    other = shell_of(tmp_path / "other", two, **{"10.0.0.5:1234": f"127.0.0.1:{two.port}"})
    with SlowLine(two.port) as line:
        ada = LiveClient(address(one, "notes/plan", "ada"), keep=True)
        bob = LiveClient(through(line, address(two, "notes/plan", "bob")), keep=True)
        async with ada, bob:
            await ada.until_synced()
            await bob.until_synced()
            line.down = line.up = 0
            ada.text().insert(0, "news ")
            await ada.barrier()
            assert str(bob.text()) != str(ada.text()), "people see different content"
            lines = snippet("docs/operations.md", "People see different content", "sh")
            nodes, connected, etag, verified, reloaded = await run(shell, lines)
            assert nodes.count("alive") == 2 and "ada" in connected and "bob" in connected
            (there,) = await run(other, [each for each in lines.splitlines() if "curl" in each][0])
            assert etag == there and etag.lower().startswith("etag: "), "the nodes are at one: it is the line of bob"
            assert verified == "", "nothing is damaged"
            assert "sessions ended" in reloaded or "reload" in reloaded or "closed" in reloaded, reloaded
            line.down = line.up = None
            await converge([bob], lambda client: str(client.text()), str(ada.text()))
            await happens(lambda: ada.connects > 1 and bob.connects > 1, "both have come back")


async def test_the_database_is_full(tmp_path: Path, postgres_server: PostgresServer) -> None:
    disk = FileLimit(tmp_path / "data")
    (tmp_path / "shell").mkdir()
    shell = Shell(tmp_path / "shell", **{"/var/lib/collab": str(tmp_path / "data")})
    shell.environment["COLLAB_DATA_DIR"] = str(tmp_path / "data")
    async with disk.server as server, LiveClient(server.document_url("notes/plan")) as client:
        await client.until_synced()
        client.text().insert(0, "before ")
        await happens(lambda: disk.rows(), "the first row")
        disk.fill()
        client.text().insert(0, "while it was full ")
        await until_readiness(server, 503)
        free, used, listed, trash = await run(shell, snippet("docs/operations.md", "The database is full", "sh"))
        assert "%" in free and "collab.db-wal" in used and "notes/plan" in listed and trash is not None
        disk.free()
        await until_readiness(server, 200)
        assert len(disk.rows()["notes/plan"]) > 1, "what waited is written"
    for statement in snippet("docs/operations.md", "The database is full", "sql").split(";\n"):
        if statement:
            postgres_server.sql(statement, TEMPLATE)


async def test_edits_are_not_saved(pair: list[ServerProcess], postgres_server: PostgresServer) -> None:
    one, _ = pair
    assert one.database_url is not None
    database = urlsplit(one.database_url).path.removeprefix("/")
    locker = await asyncio.to_thread(psycopg.connect, one.database_url)
    try:
        await asyncio.to_thread(locker.execute, "LOCK TABLE log IN ACCESS EXCLUSIVE MODE")
        async with LiveClient(address(one, "locked", "ada")) as client:
            await client.until_synced()
            client.text().insert(0, "words")
            await asyncio.to_thread(one.wait_for_log, lambda line: "has not answered a commit" in line)
            told = postgres_server.sql(snippet("docs/operations.md", "Edits are not saved", "sql"), database)
            blockers = {each for row in told.splitlines() for each in row.split("|")[1].strip("{}").split(",") if each}
            (pid,) = blockers
            assert int(pid) == locker.info.backend_pid
            postgres_server.sql(f"SELECT pg_terminate_backend({pid})", database)
            await asyncio.to_thread(one.wait_for_log, lambda line: "the store has answered a commit after" in line)
    finally:
        locker.close()


async def test_somebody_floods(tmp_path: Path, pair: list[ServerProcess]) -> None:
    one, _ = pair
    shell = shell_of(tmp_path, one)
    frame = update(text_update(77, "the same again"))
    async with LiveClient(address(one, "honest", "ada")) as honest:
        await honest.until_synced()
        async with RawClient(address(one, "flooded", "mallory")) as client:
            while client.open:
                await client.send(*[frame] * 20)
                await asyncio.sleep(0.05)
            assert await client.expect_close() == 1013
        async with RawClient(address(one, "flooded", "mallory")) as client:
            await client.expect_sync(0)
            (tmp_path / "collab.log").write_text(one.stderr)
            told, connected, kicked = await run(shell, snippet("docs/operations.md", "Somebody floods", "sh"))
            assert "a flood of messages" in told and "user='mallory'" in told
            assert "mallory" in connected and ": 1 sessions ended" in kicked
            assert await client.expect_close() == 4503
        async with RawClient(address(one, "flooded", "mallory")) as client:
            assert await client.expect_close() == 1013, "kept out"
        honest.text().insert(0, "still here")
        await honest.barrier()
        assert honest.open and honest.connects == 1
