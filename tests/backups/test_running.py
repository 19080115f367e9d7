"""Backups beside running servers: what was acknowledged is in them, and open documents are not hurt."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from pycrdt import Text

from collab.backups.database import SAVED
from collab.cli import run
from collab.client import Document, connect, read_text
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """The database of the servers; None is the file in their directory."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else None  # type: ignore[no-any-return]


async def command(*arguments: str | Path, database_url: str | None, directory: Path) -> int:
    """Run a command beside the servers, in a thread: it blocks."""
    where = ["--data-dir", str(directory)] if database_url is None else ["--database-url", database_url]
    return await asyncio.to_thread(run, [*map(str, arguments), *where])


@contextlib.asynccontextmanager
async def writing(document: Document, saved: list[int]) -> AsyncIterator[None]:
    """Write numbers, one after the other, and note those that are saved."""
    text = document.doc.get("t", type=Text)
    end = asyncio.Event()

    async def write() -> None:
        number = 0
        while not end.is_set():
            text.insert(len(text), f"{number},")
            await document.wait_saved()
            saved.append(number)
            number += 1

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        end.set()
        await writer


async def test_every_edit_that_was_acknowledged_before_is_in_it(tmp_path: Path, database_url: str | None) -> None:
    data = tmp_path / "data"
    key = tmp_path / "key"
    key.write_bytes(b"k" * 40)
    async with ServerProcess(data, database_url=database_url) as server, contextlib.AsyncExitStack() as stack:
        saved: list[list[int]] = [[], [], []]
        for number, each in enumerate(saved):
            document = await stack.enter_async_context(connect(server.url.replace("http", "ws"), f"d{number}"))
            await stack.enter_async_context(writing(document, each))
        known: list[tuple[Path, list[int]]] = []
        for number in range(4):
            for each in saved:
                await happens(lambda each=each, least=10 * (number + 1): len(each) >= least, "edits are saved")
            before = [each[-1] for each in saved]
            file = tmp_path / f"{number}.bak"
            assert await command("backup", file, "--key-file", key, database_url=database_url, directory=data) == 0
            known.append((file, before))
    for file, before in known:
        # The file says nothing to others, and can be restored anywhere.
        assert file.stat().st_mode & 0o077 == 0
        where = tmp_path / f"from {file.stem}"
        assert await command("restore", file, "--key-file", key, database_url=None, directory=where) == 0
        assert await command("documents", "verify", database_url=None, directory=where) == 0
        async with ServerProcess(where) as restored:
            for number, last in enumerate(before):
                text = await read_text(restored.url.replace("http", "ws"), f"d{number}", "t")
                numbers = [int(part) for part in text.split(",")[:-1]]
                assert numbers == list(range(len(numbers))) and len(numbers) > last


async def test_a_restore_beside_servers_takes_nothing_from_people(tmp_path: Path, database_url: str | None) -> None:
    """The whole database is replaced by an older one: what people have open is written again."""
    data, file = tmp_path / "data", tmp_path / "b.bak"

    async def add(url: str, name: str, word: str) -> None:
        async with connect(url, name) as document:
            text = document.doc.get("t", type=Text)
            text += word

    async with ServerProcess(data, database_url=database_url) as server:
        url = server.url.replace("http", "ws")
        for name in ("open", "closed"):
            await add(url, name, "one ")
        assert await command("backup", file, database_url=database_url, directory=data) == 0
        for name in ("open", "closed"):
            await add(url, name, "two ")
    # One that has never had the other document in memory.
    async with (
        ServerProcess(data, database_url=database_url) as server,
        connect(server.url.replace("http", "ws"), "open") as document,
    ):
        text = document.doc.get("t", type=Text)
        assert await command("restore", file, "--replace", database_url=database_url, directory=data) == 0
        text += "three "
        await document.wait_saved()
    # After a start anew: nothing is in memory then.
    async with ServerProcess(data, database_url=database_url) as server:
        url = server.url.replace("http", "ws")
        assert await read_text(url, "open", "t") == "one two three "
        assert await read_text(url, "closed", "t") == "one "


async def test_documents_come_back_beside_those_that_are_open(
    tmp_path: Path, database_url: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "b.bak"
    async with ServerProcess(data, database_url=database_url) as server:
        url = server.url.replace("http", "ws")
        for name in ("team/open", "team/deleted", "other"):
            async with connect(url, name) as document:
                document.doc["t"] = Text("as it was")
        assert await command("backup", file, database_url=database_url, directory=data) == 0
        assert await command("documents", "delete", "team/deleted", database_url=database_url, directory=data) == 0
        async with connect(url, "team/open") as document:
            text = document.doc.get("t", type=Text)
            text.clear()
            text += "as it is"
            await document.wait_saved()
            wanted = ("restore", file, "--prefix", "team/")
            assert await command(*wanted, database_url=database_url, directory=data) == 0
            assert "1 documents created, 1 got a version, 0 failed" in capfd.readouterr().out
            # Who has it open sees nothing of it, until somebody restores the version.
            assert await read_text(url, "team/open", "t") == "as it is" == str(text)
            assert await read_text(url, "team/deleted", "t") == "as it was"
            assert (
                await command("versions", "list", "team/open", "--json", database_url=database_url, directory=data) == 0
            )
            assert "Backup of 20" in capfd.readouterr().out


@pytest.mark.postgres
async def test_a_restore_that_meets_others_in_a_deadlock_tries_again(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "b.bak"
    assert await command("backup", file, database_url=postgres_url, directory=tmp_path) == 0
    waits = (
        "SELECT 1 FROM pg_locks JOIN pg_database ON oid = database AND datname = current_database()"
        " WHERE NOT granted AND relation = $1::regclass AND mode = 'AccessExclusiveLock'"
    )
    one, other = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = await other.fetchval(deadlocks)
    # Each looks for a deadlock once, so long after it has begun to wait: the restore does when both wait, and is ended.
    database = await other.fetchval("SELECT current_database()")
    await other.execute(f"ALTER DATABASE \"{database}\" SET deadlock_timeout = '5s'")
    await one.execute("SET deadlock_timeout = '200s'")
    async with one.transaction():
        await one.execute(f"SELECT 1 FROM {SAVED[-1].name}")
        restoring = asyncio.create_task(
            command("restore", file, "--replace", database_url=postgres_url, directory=tmp_path)
        )
        await eventually(lambda: other.fetchval(waits, SAVED[-1].name), "the restore waits")
        await one.execute(f"SELECT 1 FROM {SAVED[0].name}")
        await eventually(lambda: other.fetchval(waits, SAVED[0].name), "it tries again")
    assert await restoring == 0
    await one.close()
    await eventually(lambda: other.fetchval(f"{deadlocks} AND deadlocks > $1", before), "the deadlock was counted")
    await other.close()
