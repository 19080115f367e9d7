"""PostgreSQL stopped, killed and restarted under load, connections cut at the worst moment, and its errors."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from collab.authorship import Note
from collab.errors import StoreRefused, StoreUnavailable
from collab.storage import journal as journals
from collab.storage import postgresql
from collab.storage.connecting import secrets_of
from collab.storage.journal import Journal
from collab.storage.migrate import upgrade
from collab.storage.postgresql import PostgresBackend
from collab.storage.records import Append, Appended, AppendOutcome, NewOwner, NewRow
from collab.storage.sql import SqlStore
from collab.storage.urls import parse_database_url
from tests.support.postgres import PostgresServer

DOCUMENTS = 12
NODES = 2


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlStore]:
    made = SqlStore(PostgresBackend(parse_database_url(postgres_url)))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def admin(postgres_url: str) -> AsyncIterator[Any]:
    """A connection of the test's own to the same database."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def watcher(postgres_url: str) -> AsyncIterator[Any]:
    """One more: within a transaction PostgreSQL shows the sessions as they were at its beginning."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


def row(data: bytes) -> tuple[NewRow, ...]:
    return (NewRow(data, 1.0),)


class Load:
    """Edits on shared documents through one node's journal, and what was acknowledged of them."""

    def __init__(self, node: int, store: SqlStore) -> None:
        self.node = node
        self.sent: dict[str, list[bytes]] = {f"d{number}": [] for number in range(DOCUMENTS)}
        self.acknowledged: dict[str, dict[int, bytes]] = {name: {} for name in self.sent}
        self.news = asyncio.Event()
        self.journal = Journal(store, backlog_bytes=1 << 30, gather=0.001)

    def send(self, name: str) -> None:
        data = b"%d:%d" % (self.node, len(self.sent[name]))
        self.sent[name].append(data)

        def done(outcome: AppendOutcome) -> None:
            assert isinstance(outcome, Appended), outcome
            self.acknowledged[name][outcome.first_seq] = data
            self.news.set()

        self.journal.append(Append(name, None, row(data)), done)

    async def run(self, until: Callable[[], bool]) -> None:
        names = list(self.sent)
        choose = random.Random(self.node)
        while not until():
            for _ in range(5):
                self.send(choose.choice(names))
            await asyncio.sleep(0.002)

    async def some_acknowledged(self) -> None:
        """Wait until an edit sent from now on was acknowledged."""
        waiting = {name: len(sent) for name, sent in self.sent.items()}
        while not any(len(self.acknowledged[name]) > count for name, count in waiting.items()):
            self.news.clear()
            await self.news.wait()


@pytest.mark.timeout(240)
async def test_postgresql_killed_and_stopped_under_load(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "FIRST_RETRY", 0.02)
    monkeypatch.setattr(journals, "LONGEST_RETRY", 0.05)
    url = parse_database_url(private_postgres.url())
    await asyncio.to_thread(upgrade, url)
    stores = [SqlStore(PostgresBackend(url)) for _ in range(NODES)]
    loads = [Load(node, store) for node, store in enumerate(stores)]
    for store, load in zip(stores, loads, strict=True):
        await store.open()
        await load.journal.start()
    over = False
    running = [asyncio.create_task(load.run(lambda: over)) for load in loads]
    chance = random.Random(7)
    for turn in range(6):
        for load in loads:
            await load.some_acknowledged()
        await asyncio.sleep(chance.random() * 0.05)  # to meet another moment of the transaction each time
        if turn % 3 == 2:
            await asyncio.to_thread(private_postgres.stop)
        else:
            await asyncio.to_thread(private_postgres.kill)
        await asyncio.to_thread(private_postgres.start)
    for load in loads:
        await load.some_acknowledged()
    over = True
    await asyncio.gather(*running)
    for load in loads:
        assert await load.journal.close(60.0) == []
    for name in loads[0].sent:
        stored = await stores[0].load(name)
        assert stored is not None
        numbered = {each.seq: each.data for each in stored.rows}
        assert list(numbered) == list(range(1, stored.document.head_seq + 1))
        # Every acknowledgement was true, number included, and nothing is there that was not acknowledged.
        assert numbered == loads[0].acknowledged[name] | loads[1].acknowledged[name]
        for load in loads:
            mine = [data for data in numbered.values() if data.startswith(b"%d:" % load.node)]
            assert mine == load.sent[name], "each edit once, in the order in which it was sent"
    for store in stores:
        await store.close()


async def test_sessions_cut_at_random_moments_write_once(store: SqlStore, admin: Any) -> None:
    cuts = 0
    chance = random.Random(3)
    for number in range(150):
        batch = [Append("d", None, row(b"%d" % number)), Append(f"other {number}", None, row(b"x"))]
        appending = asyncio.create_task(_until_written(store, batch))
        if number % 3 == 0:
            await asyncio.sleep(chance.random() * 0.003)
            cuts += await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        (outcome, _), _ = await appending
        assert isinstance(outcome, Appended) and outcome.first_seq == number + 1
    assert cuts >= 40
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == [b"%d" % number for number in range(150)]


async def _until_written(store: SqlStore, batch: list[Append]) -> tuple[list[AppendOutcome], int]:
    tries = 1
    while True:
        try:
            return await store.append(batch), tries
        except StoreUnavailable:
            tries += 1


async def test_repeat_waits_for_an_attempt_that_is_still_under_way(store: SqlStore, admin: Any, watcher: Any) -> None:
    """The first attempt hangs behind a lock, its node gives up the connection, the server does not know it yet."""
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    lock = admin.transaction()
    await lock.start()
    await admin.execute("SELECT 1 FROM documents FOR UPDATE")
    batch = [Append("d", first.document_id, row(b"2"))]
    hanging = asyncio.create_task(store.append(batch))
    await _wait_for_lock(watcher, 1)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    repeat = asyncio.create_task(store.append(batch))
    # The abandoned session waits for the document, the repeat for the abandoned session.
    await _wait_for_lock(watcher, 2)
    await lock.rollback()
    assert await repeat == [Appended(first.document_id, 2, 2)]
    loaded = await store.load("d")
    assert loaded is not None and [each.data for each in loaded.rows] == [b"1", b"2"]


async def _wait_for_lock(watcher: Any, sessions: int) -> None:
    while (  # noqa: ASYNC110 - PostgreSQL tells nobody when a session begins to wait
        await watcher.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN "
            "(SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
        )
        != sessions
    ):
        await asyncio.sleep(0.005)


async def test_server_that_does_not_answer_is_unavailable(
    store: SqlStore, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append([Append("d", None, row(b"1"))])
    monkeypatch.setattr(postgresql, "STATEMENT_SECONDS", 0.05)
    async with admin.transaction():
        await admin.execute("SELECT 1 FROM documents FOR UPDATE")
        batch = [Append("d", None, row(b"2"))]
        with pytest.raises(StoreUnavailable, match="no answer from .* in time"):
            await store.append(batch)
    monkeypatch.undo()
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended) and outcome.first_seq == 2


async def test_writer_whose_row_was_pruned_goes_on(store: SqlStore, admin: Any) -> None:
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    await admin.execute("DELETE FROM writers")
    outcomes, tries = await _until_written(store, [Append("d", first.document_id, row(b"2"))])
    assert outcomes == [Appended(first.document_id, 2, 2)] and tries == 2


async def test_append_of_known_documents_is_one_statement(store: SqlStore) -> None:
    (first,) = await store.append([Append("d", None, row(b"1"))])
    assert isinstance(first, Appended)
    backend = store._backend
    assert isinstance(backend, PostgresBackend)
    calls: list[tuple[str, str]] = []

    class Watched:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def __getattr__(self, name: str) -> Any:
            found = getattr(self.connection, name)
            if not inspect.iscoroutinefunction(found):
                return found

            def call(statement: str, *values: Any) -> Any:
                calls.append((name, statement))
                return found(statement, *values)

            return call

    backend._raw = Watched(backend._raw)
    await store.append([Append("d", first.document_id, row(b"%d" % number)) for number in range(50)])
    assert calls == [("fetchval", postgresql._APPEND[False])]
    calls.clear()
    owner, note = NewOwner(1, "ann", 1.0, 0), Note(None, "model")
    more = [Append("d", first.document_id, row(b"x"), owners=(owner,)), Append("d", first.document_id, row(b"y"))]
    await store.append(more)
    await store.append([Append("d", first.document_id, (NewRow(b"z", 1.0, note=note),))])
    assert calls == [("fetchval", postgresql._APPEND[True])] * 2, "and so are those with owners or notes"


def test_only_errors_about_values_are_refusals() -> None:
    def translated(error: type[asyncpg.PostgresError]) -> Exception:
        return postgresql.translate(error("text"))

    for unavailable in (
        asyncpg.DiskFullError,
        asyncpg.TooManyConnectionsError,
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.DeadlockDetectedError,
        asyncpg.InvalidPasswordError,
        asyncpg.UndefinedTableError,
        asyncpg.InternalServerError,
    ):
        assert isinstance(translated(unavailable), StoreUnavailable), unavailable
    for refused in (asyncpg.CheckViolationError, asyncpg.ProgramLimitExceededError, asyncpg.RaiseError):
        assert isinstance(translated(refused), StoreRefused), refused


def test_messages_hold_neither_passwords_nor_rows() -> None:
    error = asyncpg.CheckViolationError("violates check constraint")
    error.detail = "Failing row contains (1, content of the document)."
    assert "content" not in str(postgresql.translate(error))
    url = parse_database_url("postgresql://u:s3c%21ret@h/d?sslpassword=0ther")
    shown = str(postgresql.translate(OSError("no way to s3c%21ret s3c!ret 0ther"), secrets_of(url)))
    assert "ret" not in shown and "0ther" not in shown
