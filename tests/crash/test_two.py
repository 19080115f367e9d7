"""Two servers on one database, by accident or in a rolling restart, and commands beside a server that serves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import STEP2, LiveClient, RawClient, converge, step1

WORKER = """
import sys
from aiohttp import web
from collab.app import create_app
from collab.settings import Settings
from collab.storage import lock

lock.lock_database.__defaults__ = (0.5,)
web.run_app(create_app(Settings(data_dir=sys.argv[1])), host="127.0.0.1", port=0, print=None)
"""


def text_of(client: LiveClient) -> str:
    return str(client.text())


async def reaches(server: ServerProcess, name: str, text: bytes) -> None:
    """Wait until the server has an edit, which a client may still have to send."""

    async def there() -> bool:
        return text in await served(server, name)

    await eventually(there, f"{text!r} on the server")


async def served(server: ServerProcess, name: str) -> bytes:
    async with RawClient(server.document_url(name)) as newcomer:
        await newcomer.send(step1())
        return await newcomer.expect_sync(STEP2)


@pytest.mark.postgres
async def test_two_servers_on_postgresql_show_each_others_edits(tmp_path: Path, postgres_url: str) -> None:
    one = ServerProcess(tmp_path / "one", database_url=postgres_url)
    two = ServerProcess(tmp_path / "two", database_url=postgres_url)
    async with one, two:
        # A document that both know, one that was begun on the second one before anybody wrote it, and one that
        # nobody has open there while it changes.
        names = ("known", "begun", "left")
        async with LiveClient(one.document_url("known")) as writer:
            writer.text().insert(0, "first ")
            await reaches(one, "known", b"first ")
        readers = [LiveClient(two.document_url(name)) for name in names]
        for reader in readers:
            await reader.connect()
            await reader.until_synced()
        await readers[2].close()
        writers = [LiveClient(one.document_url(name)) for name in names]
        for writer in writers:
            await writer.connect()
            await writer.until_synced()
        for n in range(5):
            for writer in writers:
                writer.text().insert(0, f"{n}")
        await converge([readers[0]], text_of, "43210first ")
        await converge([readers[1]], text_of, "43210")
        await readers[2].connect()
        await converge([readers[2]], text_of, "43210")
        # What is said to be stored just before a server ends is found on the other one.
        for writer in writers:
            writer.text().insert(0, "last ")
        for name in names:
            await reaches(one, name, b"last ")
        assert await one.aterminate() == 0
        for reader, end in zip(readers, ("first ", "", ""), strict=True):
            await converge([reader], text_of, "last 43210" + end)
        for server in (one, two):
            assert not [line for line in server.log_lines if "cannot be heard" in line]
        for client in (*readers, *writers):
            await client.close()


@pytest.mark.postgres
async def test_servers_that_cannot_hear_each_other_say_so(tmp_path: Path, postgres_url: str) -> None:
    one = ServerProcess(tmp_path / "one", database_url=postgres_url)
    # Its bus is another one, which is not there.
    two = ServerProcess(tmp_path / "two", "--redis-url", "redis://127.0.0.1:1", database_url=postgres_url)

    def warns(line: str) -> bool:
        return " WARNING " in line and "1 other server writes to the same database and cannot be heard" in line

    async with one:
        (tmp_path / "update").write_bytes(b"\0\0")
        for command in (["list"], ["import", "d", str(tmp_path / "update")], ["show", "d"], ["delete", "d"]):
            done = await asyncio.to_thread(collab_command, "documents", *command, "--database-url", postgres_url)
            assert done.returncode == 0, done.stderr
        async with two:
            await asyncio.gather(*(asyncio.to_thread(each.wait_for_log, warns) for each in (one, two)))
            assert await two.aterminate() == 0
        await asyncio.to_thread(one.wait_for_log, lambda line: "no server writes to the database any more" in line)
        assert len([line for line in one.log_lines if warns(line)]) == 1


async def test_a_server_on_sqlite_waits_for_the_end_of_the_one_before(tmp_path: Path) -> None:
    one, two = ServerProcess(tmp_path), ServerProcess(tmp_path)
    async with one, LiveClient(one.document_url("d")) as writer:
        await writer.until_synced()
        starting = asyncio.create_task(two.astart())
        try:
            line = await asyncio.to_thread(two.wait_for_log, lambda line: "waiting up to 30 s" in line)
            assert f"process {one.pid}" in line and "collab.db" in line
            writer.text().insert(0, "the last word")
            await reaches(one, "d", b"the last word")
            assert not two.stdout
            assert await one.aterminate() == 0
            await starting
            assert b"the last word" in await served(two, "d")
        finally:
            await asyncio.to_thread(two.close)


async def test_a_second_server_on_sqlite_is_refused_and_workers_are_named(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", WORKER, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0
        for word in ("StoreUnavailable", f"process {server.pid}", "uvicorn --workers", "gunicorn", "PostgreSQL"):
            assert word in done.stderr
        async with LiveClient(server.document_url("d")) as client:
            await client.until_synced()
        # One that was killed has left nothing behind that keeps the next one out.
        await server.akill()
        await server.astart()
        assert not [line for line in server.log_lines if "waiting up to" in line]


async def test_commands_beside_a_server_on_sqlite(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, LiveClient(server.document_url("d")) as client:
        await client.until_synced()
        client.text().insert(0, "text")
        await reaches(server, "d", b"text")

        async def command(*arguments: str) -> str:
            done = await asyncio.to_thread(collab_command, "documents", *arguments, "--data-dir", str(tmp_path))
            assert done.returncode == 0, done.stderr
            return done.stdout

        async with LiveClient(server.document_url("other")) as waiting:
            await waiting.until_synced()
            await command("export", "d", str(tmp_path / "update"))
            await command("import", "other", str(tmp_path / "update"))
            await converge([waiting], text_of, "text")
            assert '"other"' in await command("list", "--json")
            await command("delete", "d")
            assert await client.expect_close() == 4404, "nobody has written since"
            await command("delete", "other")
            assert await waiting.expect_close() == 4404
