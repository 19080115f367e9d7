"""Documents that are created at the same time share transactions, and no failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from collab.errors import CollabError, StoreRefused, StoreUnavailable
from collab.storage import creations
from collab.storage.records import NewRow
from collab.storage.sql import SqlStore


class Transactions:
    """Watches the transactions that write, and has some of them fail.

    Attributes:
        count: how many there were.
        fails: gives the error of a transaction that has created these documents, which is undone then.
    """

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.fails: Callable[[list[str]], Exception | None] = lambda names: None
        real = store._backend.run

        async def run(function: Callable[[Connection], Any], mode: Any) -> Any:
            def counted(connection: Connection) -> Any:
                result = function(connection)
                if mode == "write":
                    self.count += 1
                    error = self.fails([each.name for each in result if not isinstance(each, CollabError)])
                    if error is not None:
                        raise error
                return result

            return await real(counted, mode)

        monkeypatch.setattr(store._backend, "run", run)


@pytest.fixture
def transactions(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Transactions:
    return Transactions(store, monkeypatch)


async def create(store: SqlStore, *names: str, size: int = 1) -> list[Any]:
    rows = [NewRow(b"x" * size, 1.0, None)]
    each = [store.create(name, rows=rows, over_tombstone=False) for name in names]
    return await asyncio.gather(*each, return_exceptions=True)


def names_from(number: int, count: int) -> list[str]:
    return [f"d/{each:03}" for each in range(number, number + count)]


async def test_what_comes_together_is_written_together(store: SqlStore, transactions: Transactions) -> None:
    names = names_from(0, 3 * creations.MOST)
    made = await create(store, *names)
    assert [each.name for each in made] == names
    assert transactions.count <= 4, "the first one is not waited for"
    assert [each.document.name for each in await store.list_documents(limit=200)] == names


async def test_large_ones_do_not_fill_one_transaction(
    store: SqlStore, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creations, "MOST_BYTES", 2_000)
    assert all(not isinstance(each, Exception) for each in await create(store, *names_from(0, 10), size=900))
    assert transactions.count == 5
    transactions.count = 0
    await create(store, *names_from(10, 3), size=5_000)
    assert transactions.count == 3, "one is taken whatever its size"


async def test_what_the_database_refuses_of_one_hinders_no_other(store: SqlStore, transactions: Transactions) -> None:
    transactions.fails = lambda names: StoreRefused("too much") if "d/005" in names else None
    made = await create(store, *names_from(0, 10))
    assert [type(each).__name__ for each in made] == [
        "StoreRefused" if at == 5 else "StoredDocument" for at in range(10)
    ]
    assert len(await store.list_documents()) == 9


async def test_a_store_that_is_away_is_told_to_each(store: SqlStore, transactions: Transactions) -> None:
    transactions.fails = lambda names: StoreUnavailable("away")
    made = await create(store, *names_from(0, 3))
    assert [str(each) for each in made] == ["away"] * 3 and len(set(map(id, made))) == 3
    assert await store.list_documents() == []
    transactions.fails = lambda names: None
    assert all(not isinstance(each, Exception) for each in await create(store, *names_from(0, 3)))


async def test_whoever_does_not_wait_any_more_hinders_nobody(store: SqlStore) -> None:
    waiting = [asyncio.create_task(store.create(name, over_tombstone=False)) for name in names_from(0, 3)]
    await asyncio.sleep(0)  # all are asked for, and nothing has begun
    waiting[1].cancel()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    # It was cancelled before anything of it was done.
    assert [each.document.name for each in await store.list_documents()] == ["d/000", "d/002"]


async def test_closing_waits_for_what_is_under_way_alone(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creations, "MOST", 1)
    waiting = [asyncio.create_task(store.create(name, over_tombstone=False)) for name in names_from(0, 3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store._creations.close()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(each, StoreUnavailable) for each in done] == [False, True, True]
