"""SQLite when the disk is full, the file read-only or locked by another process, and its settings."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collab.errors import StoreError, StoreRefused, StoreUnavailable
from collab.storage import journal as journals
from collab.storage import sqlite
from collab.storage.journal import Journal
from collab.storage.migrate import upgrade
from collab.storage.sql import SqlStore
from collab.storage.store import Append, Appended, AppendOutcome, NewRow
from collab.storage.urls import DatabaseUrl, parse_database_url


@pytest.fixture
def url(tmp_path: Path) -> DatabaseUrl:
    made = parse_database_url(None, tmp_path)
    upgrade(made)
    return made


@pytest.fixture
async def store(url: DatabaseUrl) -> AsyncIterator[SqlStore]:
    made = SqlStore(url)
    await made.open()
    yield made
    await made.close()


def row(data: bytes) -> tuple[NewRow, ...]:
    return (NewRow(data, 1.0),)


def limit_pages(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """Give SQLite a disk that is full at so many pages: its own limit raises the very error of a full disk."""
    configure = sqlite.configure

    def limited(connection: sqlite3.Connection) -> None:
        configure(connection)
        connection.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(sqlite, "configure", limited)


async def test_every_connection_writes_ahead_and_syncs_fully(store: SqlStore) -> None:
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    await store.append([Append("d", None, row(b"1"))])
    raw = backend._raw
    assert raw is not None

    def settings(execute: Any) -> list[Any]:
        return [execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "busy_timeout")]

    expected = ["wal", 2, sqlite.BUSY_SECONDS * 1000]  # 2 is FULL
    assert settings(raw.execute) == expected
    assert await backend.run(lambda connection: settings(connection.exec_driver_sql), "write") == expected


async def test_full_disk_is_unavailable_and_space_brings_it_back(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    with monkeypatch.context() as full:
        limit_pages(full, 1)  # SQLite rounds up to the pages that the file has
        await backend._writing.call(backend._forget)
        batch = [Append("d", first.document_id, row(b"x" * 1_000_000))]
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="SQLITE_FULL"):
                await store.append(batch)
        await store.ping()  # reading goes on
    assert await store.append(batch) == [Appended(first.document_id, 2, 2)]
    loaded = await store.load("d")
    assert loaded is not None and [len(each.data) for each in loaded.rows] == [1, 1_000_000]


async def test_file_that_may_not_grow_is_unavailable(url: DatabaseUrl) -> None:
    # The kernel's own limit, in a process of its own: like a full disk, met in the middle of a write.
    program = """
import asyncio, resource, signal, sys
from collab.errors import StoreUnavailable
from collab.storage.sql import SqlStore
from collab.storage.store import Append, NewRow
from collab.storage.urls import parse_database_url

async def main():
    store = SqlStore(parse_database_url(sys.argv[1]))
    await store.open()
    await store.append([Append("before", None, (NewRow(b"1", 1.0),))])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    batch = [Append("d", None, (NewRow(b"x" * 2_000_000, 1.0),))]
    for _ in range(2):
        try:
            await store.append(batch)
        except StoreUnavailable as error:
            print("unavailable", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print((await store.append(batch))[0])
    print(len((await store.load("d")).rows))
    await store.close()

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, f"sqlite:///{url.path}"], capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 4, done.stdout + done.stderr
    assert lines[0].startswith("unavailable SQLite: ") and lines[1].startswith("unavailable SQLite: ")
    assert lines[2] == "Appended(document_id=2, first_seq=1, last_seq=1)"
    assert lines[3] == "1"


async def test_read_only_file_is_unavailable_until_it_can_be_written(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not stop root, so the connection itself is opened as the file would be: for reading.
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    batch = [Append("d", None, row(b"1"))]
    connect = sqlite3.connect
    with monkeypatch.context() as read_only:
        read_only.setattr(
            sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options)
        )
        with pytest.raises(StoreUnavailable, match="SQLITE_READONLY"):
            await store.append(batch)
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended) and outcome.first_seq == 1


async def test_full_disk_under_load_loses_nothing_acknowledged_and_writes_the_rest_once(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "FIRST_RETRY", 0.005)
    monkeypatch.setattr(journals, "LONGEST_RETRY", 0.01)
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    full = asyncio.Event()
    empty = asyncio.Event()
    acknowledged: list[bytes] = []

    def on_state(error: StoreUnavailable | None) -> None:
        (empty if error is None else full).set()

    journal = Journal(store, backlog_bytes=1 << 30, on_state=on_state)
    await journal.start()
    sent = 0

    def send() -> None:
        nonlocal sent
        data = b"%d " % sent + b"x" * 20_000
        sent += 1

        def done(outcome: AppendOutcome) -> None:
            assert isinstance(outcome, Appended)
            acknowledged.append(data)

        journal.append(Append("d", None, (NewRow(data, 1.0),)), done)

    with monkeypatch.context() as limited:
        limit_pages(limited, 300)
        while not full.is_set():
            send()
            await asyncio.sleep(0.001)
        before = len(acknowledged)
        for _ in range(50):
            send()
        loaded = await store.load("d")
        assert loaded is not None and [each.data for each in loaded.rows] == acknowledged
    await empty.wait()
    assert await journal.close(30.0) == []
    assert len(acknowledged) == sent > before > 0
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == acknowledged


async def test_other_process_that_holds_the_lock_is_waited_for(store: SqlStore, url: DatabaseUrl) -> None:
    other = sqlite3.connect(str(url.path), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.append([Append("d", None, row(b"1"))]))
    await store.ping()  # readers do not wait
    assert not writing.done()
    other.execute("COMMIT")
    (outcome,) = await writing
    assert isinstance(outcome, Appended)
    other.close()


async def test_lock_that_is_held_too_long_is_unavailable(
    store: SqlStore, url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(str(url.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = [Append("d", None, row(b"1"))]
    with pytest.raises(StoreUnavailable, match="SQLITE_BUSY"):
        await store.append(batch)
    other.execute("ROLLBACK")
    other.close()
    assert isinstance((await store.append(batch))[0], Appended)


async def test_damaged_file_is_unavailable_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(b"this is not a database at all" * 1000)
    store = SqlStore(parse_database_url(f"sqlite:///{path}"))
    with pytest.raises(StoreUnavailable, match="SQLITE_NOTADB"):
        await store.open()
    await store.close()


def test_only_errors_about_values_are_refusals() -> None:
    def error(name: str) -> StoreError:
        made = sqlite3.OperationalError("text")
        made.sqlite_errorcode = getattr(sqlite3, name)
        made.sqlite_errorname = name
        return sqlite.translate(made)

    for name in ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_CANTOPEN"):
        assert isinstance(error(name), StoreUnavailable), name
    for name in ("SQLITE_TOOBIG", "SQLITE_CONSTRAINT_NOTNULL", "SQLITE_CONSTRAINT_TRIGGER", "SQLITE_MISMATCH"):
        assert isinstance(error(name), StoreRefused), name
