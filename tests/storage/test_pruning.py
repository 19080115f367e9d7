"""Pruning by two nodes at a time on a real PostgreSQL, and one of them that dies in the middle.

Strategy: a portion of one node is held within its transaction, after it has removed rows and before it commits; then
the other one does what it does. A killed session stands for a node that dies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection
from sqlalchemy.util import await_

from collab.errors import StoreUnavailable
from collab.storage.postgresql import PostgresBackend
from collab.storage.pruning import remove
from collab.storage.sql import SqlStore
from collab.storage.sql_maintenance import SqlMaintenance
from collab.storage.urls import parse_database_url
from collab.testing.storage import put, snapshot

pytestmark = pytest.mark.postgres

ROWS = 10


class Held:
    """A portion of pruning that has removed rows and is not committed until it is let go."""

    def __init__(self, store: SqlStore, document_id: int, base: int | None, budget: int) -> None:
        self._removed = asyncio.Event()
        self._go = asyncio.Event()
        portion = remove(store._backend, document_id, base, budget)

        def write(connection: Connection) -> int:
            removed = portion(connection)
            self._removed.set()
            await_(self._go.wait())
            return removed

        self._task = asyncio.ensure_future(store._backend.run(write, "write"))

    async def begin(self) -> Held:
        await asyncio.wait([self._task, asyncio.ensure_future(self._removed.wait())], return_when="FIRST_COMPLETED")
        assert not self._task.done()
        return self

    async def end(self) -> int:
        self._go.set()
        return await self._task


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[tuple[SqlMaintenance, SqlMaintenance]]:
    url = parse_database_url(postgres_url)
    one, two = [SqlMaintenance(PostgresBackend(url)) for _ in range(2)]
    for store in (one, two):
        await store.open()
    yield one, two
    for store in (one, two):
        await store.close()


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def old_document(store: SqlStore, name: str = "d") -> int:
    """Make a document of which all rows but the last two may be pruned."""
    document_id = (await put(store, name, *(b"%d" % number for number in range(ROWS)), at=1.0)).document_id
    for seq in (3, ROWS - 2, ROWS):
        assert await store.write_snapshot(document_id, snapshot(seq))
    return document_id


async def kept(database: Any, document_id: int) -> tuple[list[int], list[int]]:
    """Give the numbers of the rows and of the snapshots that are there."""
    found = []
    for table in ("log", "snapshots"):
        query = f"SELECT seq FROM {table} WHERE document_id = $1 ORDER BY seq"
        found.append([row["seq"] for row in await database.fetch(query, document_id)])
    return found[0], found[1]


async def kill_idle_transaction(database: Any) -> None:
    """Kill the one session that is within a transaction and does nothing."""
    killed = await database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE state = 'idle in transaction' AND datname = current_database()"
    )
    assert len(killed) == 1


AFTER = ([ROWS - 1, ROWS], [ROWS - 2, ROWS])
"""What is left of such a document."""


async def prune_all(store: SqlStore) -> None:
    while await store.prune(before=1e9, limit=3):
        pass


async def test_two_that_prune_one_document_do_not_meet(stores: tuple[SqlStore, SqlStore], database: Any) -> None:
    one, two = stores
    document_id = await old_document(one)
    held = await Held(one, document_id, ROWS - 2, 4).begin()
    async with asyncio.timeout(10):
        assert await two.prune(before=1e9, limit=100) == 0, "it neither waits nor removes what lies behind"
        assert (await put(two, "d", b"new", document_id=document_id, at=1e10)).first_seq == ROWS + 1
    assert await held.end() == 4
    assert await kept(database, document_id) == (list(range(5, ROWS + 2)), [3, ROWS - 2, ROWS])
    await prune_all(two)
    assert await kept(database, document_id) == ([*AFTER[0], ROWS + 1], AFTER[1])


async def test_one_that_dies_in_the_middle_leaves_all_to_the_other(
    stores: tuple[SqlStore, SqlStore], database: Any
) -> None:
    one, two = stores
    document_id = await old_document(one)
    before = await kept(database, document_id)
    held = await Held(one, document_id, ROWS - 2, 4).begin()
    await kill_idle_transaction(database)
    with pytest.raises(StoreUnavailable):
        await held.end()
    assert await kept(database, document_id) == before
    await prune_all(two)
    assert await kept(database, document_id) == AFTER


async def test_a_deleted_document_goes_whole_when_two_remove_it(
    stores: tuple[SqlStore, SqlStore], database: Any
) -> None:
    one, two = stores
    document_id = await old_document(one)
    await one.delete("d", 2.0)
    await one.create("d")  # its tombstone has no name any more, and goes at the end
    held = await Held(one, document_id, None, 4).begin()
    assert await two.prune(before=0.0, limit=100) == 0
    assert await held.end() == 4
    assert await database.fetchval("SELECT count(*) FROM documents WHERE id = $1", document_id) == 1
    while await two.prune(before=0.0, limit=4):
        pass
    assert await kept(database, document_id) == ([], [])
    assert await database.fetchval("SELECT count(*) FROM documents WHERE id = $1", document_id) == 0


async def test_nothing_goes_once_damage_is_noted(stores: tuple[SqlStore, SqlStore], database: Any) -> None:
    one, two = stores
    document_id = await old_document(one)
    held = await Held(one, document_id, ROWS - 2, 4).begin()
    noting = asyncio.ensure_future(two.note_damage(document_id, snapshots=[ROWS]))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(10):
        while not await database.fetchval(waiting):
            assert not noting.done()
            await asyncio.sleep(0.01)
    assert await held.end() == 4
    await noting
    left = await kept(database, document_id)
    assert left[0] == list(range(5, ROWS + 1))
    # What was planned before is not done any more.
    assert await one._backend.run(remove(one._backend, document_id, ROWS - 2, 100), "write") == 0
    assert await one.prune(before=1e9, limit=100) == 0
    assert await kept(database, document_id) == left


async def test_nothing_goes_when_a_snapshot_was_removed_in_between(
    stores: tuple[SqlMaintenance, SqlMaintenance], database: Any
) -> None:
    one, two = stores
    document_id = await old_document(one)
    newest = await two.kept_snapshot(document_id, ROWS)
    assert newest is not None
    assert await two.replace_snapshot(document_id, newest, None)
    assert await one._backend.run(remove(one._backend, document_id, ROWS - 2, 100), "write") == 0
    assert (await kept(database, document_id))[0] == list(range(1, ROWS + 1))
    await prune_all(one)
    assert await kept(database, document_id) == (list(range(4, ROWS + 1)), [3, ROWS - 2]), "two stay all the same"


async def test_many_documents_pruned_by_two_at_once_end_as_by_one(
    stores: tuple[SqlStore, SqlStore], database: Any
) -> None:
    one, two = stores
    ids = [await old_document(one, f"d{number}") for number in range(20)]
    for number in range(0, 20, 5):
        await one.delete(f"d{number}", 2.0)
        await one.create(f"d{number}")

    async def prune(store: SqlStore, seed: int) -> None:
        dice = random.Random(seed)
        empty = 0
        while empty < 3:  # nothing may be there to remove because the other one is at it
            empty = empty + 1 if not await store.prune(before=1e9, limit=dice.randrange(1, 6)) else 0

    async with asyncio.timeout(60):
        await asyncio.gather(prune(one, 1), prune(two, 2), prune(one, 3))
        await prune_all(two)
    for number, document_id in enumerate(ids):
        assert await kept(database, document_id) == (AFTER if number % 5 else ([], []))
    there = {row["id"] for row in await database.fetch("SELECT id FROM documents")}
    assert there.isdisjoint(ids[::5]) and there.issuperset(set(ids) - set(ids[::5]))


async def test_the_claim_of_a_node_that_dies_ends_with_it(stores: tuple[SqlStore, SqlStore], database: Any) -> None:
    one, two = stores
    document_id = await old_document(one)
    async with one.claim_snapshot(document_id) as mine:
        assert mine
        async with two.claim_snapshot(document_id) as theirs:
            assert not theirs
        await kill_idle_transaction(database)
        async with asyncio.timeout(10):
            while True:
                async with two.claim_snapshot(document_id) as theirs:
                    if theirs:
                        break
                await asyncio.sleep(0.01)
        # Its owner learns nothing of that, and goes on: what it writes is compared with what is there.
        assert not await one.write_snapshot(document_id, snapshot(ROWS))
    async with one.claim_snapshot(document_id) as mine:
        assert mine


async def test_claims_leave_connections_for_everything_else(stores: tuple[SqlStore, SqlStore]) -> None:
    one, _ = stores
    ids = [await old_document(one, f"d{number}") for number in range(8)]
    busy = asyncio.Event()

    async def work(document_id: int) -> None:
        async with one.claim_snapshot(document_id) as mine:
            assert mine
            await one.load_at(document_id, ROWS)
            await busy.wait()

    working = [asyncio.ensure_future(work(document_id)) for document_id in ids]
    async with asyncio.timeout(30):
        await asyncio.gather(*(one.load(f"d{number}") for number in range(8)))
        busy.set()
        await asyncio.gather(*working)
