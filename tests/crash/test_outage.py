"""The store goes away under load and comes back: live editing goes on, and everything is written, once."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.crash.load import Load, array
from tests.crash.stored import PostgresLog, SqliteLog, read
from tests.crash.test_kill import until_stored
from tests.interop.agent import Agent
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient, RawClient, converge, text_update, update

NAMES = ("outage 0", "outage 1")


async def readiness(server: ServerProcess) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(server.url + "/readyz") as response:
        return response.status, await response.json()


async def until_readiness(server: ServerProcess, status: int) -> dict[str, Any]:

    async def reached() -> dict[str, Any] | None:
        got, answer = await readiness(server)
        return answer if got == status else None

    return await eventually(reached, f"/readyz with {status}")


async def until_degraded(server: ServerProcess, part: str) -> dict[str, Any]:
    """Wait until a server says that something is wrong with a part of it, and that it is ready all the same."""

    async def reached() -> dict[str, Any] | None:
        got, answer = await readiness(server)
        assert got == 200 and answer["ready"] is True, "no other node would do better"
        return answer if answer["degraded"] and answer["checks"][part] != "ok" else None

    return await eventually(reached, f"/readyz with a word on the {part}")


async def until_well(server: ServerProcess) -> None:
    """Wait until a server says that nothing is wrong."""

    async def reached() -> bool:
        got, answer = await readiness(server)
        return got == 200 and not answer["degraded"] and answer["reasons"] == []

    await eventually(reached, "/readyz with nothing wrong")


async def edits_pass(load: Load) -> None:
    """Wait until every client has seen edits of others that were made from now on."""
    marks = {name: len(made) for name, made in load.made.items()}
    await load.until_made(10)
    for name, clients in load.clients.items():
        fresh = set(load.made[name][marks[name] :])
        for i, client in enumerate(clients):
            foreign = {token for token in fresh if not token.startswith(f"{i}:")}
            await client.until(
                lambda client=client, foreign=foreign: foreign & set(array(client)),  # type: ignore[misc]
                "an edit of another client",
            )


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
async def test_postgresql_away_under_load(tmp_path: Path, private_postgres: PostgresServer, crash: bool) -> None:
    server = ServerProcess(tmp_path, "--migrate", database_url=private_postgres.url())
    log = PostgresLog(private_postgres, "postgres")
    async with server, Load(server, NAMES, clients=3, seed=5) as load:
        for _ in range(2):
            await load.until_made(30)
            await until_well(server)
            await asyncio.to_thread(private_postgres.kill if crash else private_postgres.stop)
            await until_degraded(server, "store")
            await until_degraded(server, "journal")
            await edits_pass(load)
            async with aiohttp.ClientSession() as session, session.get(server.url + "/healthz") as response:
                assert response.status == 200
            await asyncio.to_thread(private_postgres.start)
            await until_well(server)
        await load.stop()
        await load.converged()
        assert all(client.connects == 1 for clients in load.clients.values() for client in clients)
        await until_stored(log, load)
        rows = await read(log)
        for name in NAMES:
            assert [seq for seq, _ in rows[name]] == list(range(1, len(rows[name]) + 1))
            assert len({data for _, data in rows[name]}) == len(rows[name]), "a row was written twice"


@pytest.mark.parametrize("kind", ["full", "limit"])
async def test_sqlite_that_cannot_write_under_load(tmp_path: Path, kind: str) -> None:
    """A full disk (ENOSPC) and a file that may not grow (EFBIG): two different errors of SQLite."""
    disk = Disk(tmp_path) if kind == "full" else FileLimit(tmp_path)
    async with disk.server, Load(disk.server, NAMES, clients=2, seed=6) as load:
        await load.until_made(30)
        await until_readiness(disk.server, 200)
        disk.fill()
        await until_readiness(disk.server, 503)
        await edits_pass(load)
        disk.free()
        await until_readiness(disk.server, 200)
        await load.stop()
        await load.converged()
        await until_stored(disk, load)
        assert await disk.server.aterminate() == 0


class FileLimit:
    """A server whose files may not grow while it is full; the log is what its database holds."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.server = ServerProcess(data_dir, *options)

    def rows(self) -> dict[str, list[tuple[int, bytes]]]:
        return SqliteLog(self.data_dir / "collab.db").rows()

    def fill(self) -> None:
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Disk:
    """A server on a disk of ``mb`` MB of its own, in a mount namespace, so that nobody needs to be root for it."""

    def __init__(
        self, directory: Path, *options: str, mb: int = 4, environment: Mapping[str, str] | None = None
    ) -> None:
        inside = directory / "disk"
        inside.mkdir()
        unshare = shutil.which("unshare")
        assert unshare is not None, "these tests need unshare; install it with: apt-get install util-linux"
        wrapper = (
            unshare,
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'mount -t tmpfs -o size={mb}m tmpfs "$0" && exec "$@"',
            str(inside),
        )
        check = subprocess.run([*wrapper, "true"], capture_output=True, text=True)
        assert check.returncode == 0, f"these tests need user namespaces (sysctl user.max_user_namespaces): {check}"
        self._inside = inside
        self._copies = directory / "copies"
        self.server = ServerProcess(inside, *options, wrapper=wrapper, environment=environment)

    def rows(self) -> dict[str, list[tuple[int, bytes]]]:
        # SQLite would resolve the path to what lies there outside of the namespace, so it gets a copy.
        shutil.copytree(self._outside, self._copies, dirs_exist_ok=True)
        return SqliteLog(self._copies / "collab.db").rows()

    @property
    def _outside(self) -> Path:
        """The disk as it is seen from outside of the namespace."""
        return Path(f"/proc/{self.server.pid}/root{self._inside}")

    def fill(self) -> None:
        with open(self._outside / "ballast", "wb") as ballast:
            try:
                while True:
                    os.write(ballast.fileno(), bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        os.unlink(self._outside / "ballast")


async def test_a_full_backlog_turns_writers_away_with_1013_until_the_store_is_back(tmp_path: Path) -> None:
    disk = FileLimit(tmp_path, "--backlog-bytes", "65536")
    async with disk.server as server, Agent("yjs13") as agent:
        stock = await agent.open("stock", "3.1", server.ws_url, "full")
        await stock.edit("type", text="before ")
        await stock.until(synced=True)
        async with LiveClient(server.document_url("full")) as reader:
            await converge([reader], lambda client: str(client.text()), "before ")
            disk.fill()
            for client in range(20):
                async with RawClient(server.document_url("full")) as filler:
                    await filler.send(update(text_update(100 + client, "x" * 8_000, root="ballast")))
                    await filler.barrier_or_close()
                    if filler.close_code is not None:
                        break
            assert filler.close_code == 1013
            answer = await until_readiness(server, 503)
            assert answer["ready"] is False
            # A reader who sends nothing new stays.
            assert reader.open
            await stock.edit("type", text="kept by the client")
            await stock.until(closes=[1013])
            disk.free()
            await until_readiness(server, 200)
            await stock.until(synced=True)
            await converge([reader], lambda client: str(client.text()), "before kept by the client")
        assert await server.aterminate() == 0
    stored = LiveClient("")
    for _, data in (await read(disk))["full"]:
        stored.doc.apply_update(data)
    assert str(stored.text()) == "before kept by the client"
