"""Behind PgBouncer, in both of its modes: nothing is left in a session, and what is cut is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from collab.storage.connecting import Connector, is_pooled
from collab.storage.migrate import upgrade
from collab.storage.postgresql import PostgresBackend
from collab.storage.records import Append, Appended, NewRow
from collab.storage.sql import SqlStore
from collab.storage.urls import parse_database_url
from tests.storage import test_postgresql as direct
from tests.support.pgbouncer import Mode, PgBouncer, running
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient, converge


@pytest.fixture
async def store(pooled_url: str) -> AsyncIterator[SqlStore]:
    made = SqlStore(PostgresBackend(parse_database_url(pooled_url)))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def admin(pooled_url: str, postgres_server: PostgresServer) -> AsyncIterator[Any]:
    """A connection to the same database that goes around PgBouncer."""
    address = parse_database_url(pooled_url).address
    assert address is not None
    connection = await asyncpg.connect(postgres_server.url(address.parameters["database"]))
    yield connection
    await connection.close()


async def test_a_pooler_is_found_out(pooled_url: str, postgres_url: str) -> None:
    for url, pooled in ((pooled_url, True), (postgres_url, False), (f"{postgres_url}&pgbouncer=true", True)):
        raw = await Connector(parse_database_url(url)).connect()
        assert is_pooled(raw) is pooled
        await raw.close()


async def test_transactions_are_bounded_and_nothing_is_left_in_a_session(store: SqlStore, admin: Any) -> None:
    backend = store._backend
    assert isinstance(backend, PostgresBackend)
    (first,) = await store.append([Append("d", None, direct.row(b"1"))])
    assert isinstance(first, Appended)
    await store.append([Append("d", first.document_id, direct.row(b"2"))])
    await asyncio.gather(*(store.load("d") for _ in range(10)))
    raw = backend._raw
    async with raw.transaction():
        assert await raw.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    usual = await admin.fetchval("SELECT reset_val FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'")
    for _ in range(5):  # the sessions in turn
        assert await raw.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        assert (
            await raw.execute(f"SELECT WHERE current_setting('idle_in_transaction_session_timeout') = '{usual}'")
            == "SELECT 1"
        )


async def test_sessions_cut_at_random_moments_write_once(store: SqlStore, admin: Any) -> None:
    await direct.test_sessions_cut_at_random_moments_write_once(store, admin)


async def test_a_writer_whose_row_was_pruned_goes_on(store: SqlStore, admin: Any) -> None:
    await direct.test_writer_whose_row_was_pruned_goes_on(store, admin)


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_pgbouncer_killed_under_load(postgres_server: PostgresServer, postgres_url: str, mode: Mode) -> None:
    address = parse_database_url(postgres_url).address
    assert address is not None
    with running(postgres_server, mode) as bouncer:
        url = bouncer.url(address.parameters["database"])
        store = SqlStore(PostgresBackend(parse_database_url(url)))
        await store.open()
        for number in range(30):
            batch = [Append("d", None, direct.row(b"%d" % number))]
            writing = asyncio.create_task(patiently(store, batch))
            if number % 10 == 5:
                await asyncio.to_thread(restart, bouncer)
            assert await writing == [Appended(1, number + 1, number + 1)]
        loaded = await store.load("d")
        assert loaded is not None and [row.data for row in loaded.rows] == [b"%d" % number for number in range(30)]
        await store.close()


def restart(bouncer: PgBouncer) -> None:
    bouncer.kill()
    bouncer.start()


async def patiently(store: SqlStore, batch: list[Append]) -> object:
    while True:
        try:
            return await store.append(batch)
        except direct.StoreUnavailable:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_calls_that_are_given_up_do_not_end_it(postgres_server: PostgresServer, mode: Mode) -> None:
    with running(postgres_server, mode) as bouncer:
        url = parse_database_url(bouncer.url("postgres"))
        connector = Connector(url)
        await (await connector.connect()).close()

        async def give_up(times: int) -> None:
            raw = await connector.connect()
            for number in range(times):
                if raw.is_closed():
                    raw = await connector.connect()
                call = asyncio.ensure_future(raw.execute("SELECT pg_sleep(0.001)"))
                await asyncio.sleep(0.0002 * (number % 10))
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            await raw.close()

        # PgBouncer 1.18 ended itself after 200 to 1,800 requests to cancel.
        await asyncio.gather(*(give_up(150) for _ in range(20)))
        assert bouncer.running
        raw = await connector.connect()
        assert await raw.fetchval("SELECT 1") == 1
        await raw.close()
        said = (bouncer.directory / "log").read_text()
        assert "closing because" in said and "cancel" not in said.lower()


async def test_migrating_through_it(pgbouncer: PgBouncer, postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    url = parse_database_url(pgbouncer.url(name))
    # As nodes that start together.
    done = await asyncio.gather(*(asyncio.to_thread(upgrade, url) for _ in range(4)))
    assert any(done), "each migration is done once, by any of them"
    store = SqlStore(PostgresBackend(url))
    await store.open()
    await store.create("d", rows=[NewRow(b"1", 1.0)])
    await store.close()
    postgres_server.drop_database(name)


@pytest.mark.server
async def test_a_server_behind_it(pgbouncer: PgBouncer, postgres_server: PostgresServer, tmp_path: Path) -> None:
    name = postgres_server.create_database()
    async with ServerProcess(tmp_path, "--migrate", database_url=pgbouncer.url(name)) as server:
        async with LiveClient(server.document_url("d")) as a, LiveClient(server.document_url("d")) as b:
            await a.until_synced()
            await b.until_synced()
            a.text().insert(0, "behind ")
            b.text().insert(0, "PgBouncer ")
            await converge([a, b], lambda client: len(str(client.text())), 17)
        assert await server.aterminate() == 0
        await server.astart()
        async with LiveClient(server.document_url("d")) as again:
            await converge([again], lambda client: len(str(client.text())), 17)
        assert await server.aterminate() == 0
        assert "a pooler stands before" in server.stderr and "ERROR" not in server.stderr
    postgres_server.drop_database(name)
