"""SQLite when the disk is full, the file read-only or locked by another process, and its settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from collab.adapters import make_store
from collab.errors import StoreError, StoreRefused, StoreUnavailable
from collab.storage import journal as journals
from collab.storage import sqlite
from collab.storage.journal import Journal
from collab.storage.migrate import upgrade
from collab.storage.records import Append, Appended, AppendOutcome, LoadedDocument, NewRow, Snapshot
from collab.storage.sql import SqlStore
from collab.storage.sqlite import SqliteBackend
from collab.storage.urls import DatabaseUrl, parse_database_url
from tests.support.sqlite import migrated


@pytest.fixture
def url(tmp_path: Path) -> DatabaseUrl:
    return migrated(tmp_path)


@pytest.fixture
async def store(url: DatabaseUrl) -> AsyncIterator[SqlStore]:
    made = SqlStore(SqliteBackend(url))
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


def test_connections_that_meet_on_a_new_file_all_get_it(tmp_path: Path) -> None:
    # Without waiting, one round in six failed.
    def meet(path: Path, start: threading.Barrier) -> None:
        connection = sqlite3.connect(path)
        start.wait()
        sqlite.configure(connection)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()

    with ThreadPoolExecutor(4) as threads:
        for turn in range(40):
            start = threading.Barrier(4)
            for met in [threads.submit(meet, tmp_path / f"{turn}.db", start) for _ in range(4)]:
                met.result()


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
from collab.adapters import make_store
from collab.storage.records import Append, NewRow
from collab.storage.urls import parse_database_url

async def main():
    store = make_store(parse_database_url(sys.argv[1]))
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
            sqlite3, "connect", lambda path, **options: connect(path.replace("mode=rw", "mode=ro"), **options)
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


# Files that are removed or replaced under the store


GONE = "removed or replaced"


def files_of(url: DatabaseUrl) -> list[Path]:
    assert url.path is not None
    return [path for suffix in ("", "-wal", "-shm") if (path := Path(f"{url.path}{suffix}")).exists()]


def move(paths: list[Path], to: Path) -> list[Path]:
    to.mkdir(exist_ok=True)
    return [path.rename(to / path.name) for path in paths]


def texts(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "collab.store" and r.levelno == level]


def kept_aside(directory: Path) -> list[Path]:
    return list(directory.glob("*-wal.replaced-*"))


def note_of(url: DatabaseUrl) -> Path:
    return Path(f"{url.path}.files")


def stored(path: Path, name: str = "d") -> list[bytes]:
    """What another process finds in the file."""
    connection = sqlite3.connect(path)
    query = "SELECT data FROM log JOIN documents ON id = document_id WHERE CAST(name AS TEXT) = ? ORDER BY seq"
    found = [data for (data,) in connection.execute(query, (name,))]
    connection.close()
    return found


@pytest.mark.parametrize("which", ["all", "database", "wal", "shm"])
async def test_nothing_is_called_stored_while_the_files_are_away_and_the_same_files_go_on(
    store: SqlStore, url: DatabaseUrl, tmp_path: Path, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert url.path is not None
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    files = files_of(url)
    assert len(files) == 3
    away = move({"all": files, "database": files[:1], "wal": files[1:2], "shm": files[2:]}[which], tmp_path / "away")
    batch = [Append("d", first.document_id, row(b"2"))]
    if which in ("all", "database"):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=GONE) as caught:
                await store.append(batch)
            assert str(url.path) in str(caught.value) and str(url.path) not in caught.value.public
        for call in (store.ping, lambda: store.load("d"), lambda: store.create("e"), lambda: store.delete("d", 1.0)):
            with pytest.raises(StoreUnavailable, match=GONE):
                await call()
        assert not url.path.exists(), "no empty file hides it"
        assert len(texts(caplog, logging.ERROR)) == 1
        move(away, tmp_path)
        assert files_of(url) == files
    else:
        if which == "wal":
            with pytest.raises(StoreUnavailable, match=GONE):
                await store.append(batch)
        else:
            await store.changed()  # the index holds nothing of its own: the look once a second is early enough
            assert len(texts(caplog, logging.ERROR)) == 1
    assert await store.append(batch) == [Appended(first.document_id, 2, 2)]
    assert len(texts(caplog, logging.WARNING)) == 1
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == [b"1", b"2"]
    assert stored(url.path) == [b"1", b"2"]
    await store.append([Append("d", first.document_id, row(b"3"))])
    await store.close()
    assert files_of(url) == files[:1], "SQLite has put everything into the database"
    assert stored(url.path) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("call", ["create", "delete", "title", "snapshot", "load", "prune"])
async def test_no_other_call_takes_effect_in_a_file_without_a_name(
    store: SqlStore, url: DatabaseUrl, call: str
) -> None:
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    for path in files_of(url):
        path.unlink()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: store.create("e"),
        "delete": lambda: store.delete("d", 1.0),
        "title": lambda: store.set_title("d", "title"),
        "snapshot": lambda: store.write_snapshot(first.document_id, Snapshot(1, b"", b"", b"", 1.0)),
        "load": lambda: store.load("d"),
        "prune": lambda: store.prune(before=1.0, limit=1),
    }
    with pytest.raises(StoreUnavailable, match=GONE):
        await calls[call]()


async def test_a_backup_in_the_place_of_the_file_is_opened_without_the_log_of_the_old_one(
    store: SqlStore, url: DatabaseUrl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert url.path is not None
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    with contextlib.closing(sqlite3.connect(url.path)) as original, sqlite3.connect(tmp_path / "backup.db") as copy:
        original.backup(copy)
    copy.close()
    for n in range(2, 40):
        await store.append([Append("d", first.document_id, row(b"%d" % n))])
    # As people do it: the log of the old database stays where it is, and SQLite would read it into the new one.
    (tmp_path / "backup.db").rename(url.path)
    reading = [asyncio.create_task(store.load("d")) for _ in range(8)]
    batch = [Append("d", first.document_id, row(b"new"))]
    with pytest.raises(StoreUnavailable, match=GONE):
        await store.append(batch)
    for result in await asyncio.gather(*reading, return_exceptions=True):
        assert isinstance(result, StoreUnavailable) or (isinstance(result, LoadedDocument) and len(result.rows) == 1)
    assert await store.append(batch) == [Appended(first.document_id, 2, 2)]
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == [b"1", b"new"]
    await store.close()
    assert stored(url.path) == [b"1", b"new"]
    with contextlib.closing(sqlite3.connect(url.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (aside,) = kept_aside(tmp_path)
    assert aside.stat().st_size > 0 and str(aside) in "".join(texts(caplog, logging.WARNING))


async def test_a_store_that_closes_leaves_no_old_log_beside_a_new_file(url: DatabaseUrl, tmp_path: Path) -> None:
    assert url.path is not None
    upgrade(other := parse_database_url(f"sqlite:///{tmp_path / 'other.db'}"))
    assert other.path is not None
    store = make_store(url)
    await store.open()
    await store.append([Append("d", None, row(b"1"))])
    other.path.rename(url.path)
    await store.close()
    assert files_of(url) == [url.path]
    assert stored(url.path) == []
    assert len(kept_aside(tmp_path)) == 1


_WRITES_AND_IS_KILLED = """
import asyncio, os, signal, sys
from collab.adapters import make_store
from collab.storage.records import Append, NewRow
from collab.storage.urls import parse_database_url

async def main():
    store = make_store(parse_database_url(sys.argv[1]))
    await store.open()
    found = await store.load("d")
    known = None if found is None else found.document.id
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        (outcome,) = await store.append([Append("d", known, (NewRow(b"%d" % number * 500, 1.0),))])
        known = outcome.document_id
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def write_and_be_killed(url: DatabaseUrl, first: int, last: int) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITES_AND_IS_KILLED, url.shown, str(first), str(last)], timeout=60)
    assert done.returncode == -signal.SIGKILL


async def test_the_log_of_a_server_that_was_killed_is_not_read_into_a_backup(
    url: DatabaseUrl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert url.path is not None
    write_and_be_killed(url, 0, 20)
    with contextlib.closing(sqlite3.connect(url.path)) as original, sqlite3.connect(tmp_path / "backup.db") as copy:
        original.backup(copy)
    copy.close()
    write_and_be_killed(url, 20, 400)  # SQLite writes some of that into the database, and begins the log anew
    assert len(files_of(url)) == 3, "its log lies beside the database"
    (tmp_path / "backup.db").rename(url.path)
    upgrade(url)  # what a server does first
    store = make_store(url)
    await store.open()
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == [b"%d" % n * 500 for n in range(20)]
    await store.close()
    (aside,) = kept_aside(tmp_path)
    assert aside.stat().st_size > 0 and str(aside) in "".join(texts(caplog, logging.WARNING))
    assert not note_of(url).exists(), "nothing is left to be mistaken"
    with contextlib.closing(sqlite3.connect(url.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_the_log_of_a_server_that_was_killed_is_read_into_its_own_database(url: DatabaseUrl) -> None:
    assert url.path is not None
    write_and_be_killed(url, 0, 20)
    store = make_store(url)
    await store.open()
    loaded = await store.load("d")
    assert loaded is not None and len(loaded.rows) == 20
    await store.close()
    assert files_of(url) == [url.path] and not kept_aside(url.path.parent)


@pytest.mark.parametrize("note", [b"", b"[", b"7", b"[[1], 2, 3]", b'[["a", 1], null, null]', b"\xff" * 2000, b"[1,2]"])
async def test_a_note_of_the_files_that_cannot_be_read_is_none(url: DatabaseUrl, note: bytes) -> None:
    assert url.path is not None
    write_and_be_killed(url, 0, 2)
    note_of(url).write_bytes(note)
    store = make_store(url)
    await store.open()
    loaded = await store.load("d")
    assert loaded is not None and len(loaded.rows) == 2
    await store.close()


async def test_a_link_that_is_turned_to_another_file_is_noticed(tmp_path: Path) -> None:
    urls = [parse_database_url(f"sqlite:///{tmp_path / name}") for name in ("one.db", "two.db")]
    for each in urls:
        upgrade(each)
    link = tmp_path / "link.db"
    link.symlink_to("one.db")
    store = make_store(parse_database_url(f"sqlite:///{link}"))
    await store.open()
    await store.append([Append("d", None, row(b"1"))])
    link.unlink()
    link.symlink_to("two.db")
    batch = [Append("d", None, row(b"2"))]
    with pytest.raises(StoreUnavailable, match=GONE):
        await store.append(batch)
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended) and outcome.first_seq == 1
    await store.close()
    assert stored(tmp_path / "one.db")[0] == b"1" and stored(tmp_path / "two.db") == [b"2"]


async def test_damaged_file_is_unavailable_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(b"this is not a database at all" * 1000)
    store = make_store(parse_database_url(f"sqlite:///{path}"))
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
