"""The largest stored documents, in their order, on every store there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.hub import largest as module
from collab.hub.largest import Largest
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.records import DocumentSummary, Snapshot
from collab.storage.store import Store
from collab.storage.urls import parse_database_url
from collab.testing.storage import put
from tests.support.sqlite import migrated


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    if request.param == "memory":
        return MemoryStore(MemoryStorage())
    if request.param == "sqlite":
        return make_store(migrated(tmp_path))
    return make_store(parse_database_url(request.getfixturevalue("postgres_url")))


@pytest.fixture
async def store(made: Store) -> AsyncIterator[Store]:
    """The same, open."""
    await made.open()
    yield made
    await made.close()


async def fill(store: Store, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        await put(store, name, b"x" * size)


def names(found: list[DocumentSummary]) -> list[str]:
    return [summary.document.name for summary in found]


async def paged(largest: Largest, limit: int, prefix: str = "") -> list[str]:
    """Read all pages."""
    found: list[str] = []
    after: tuple[int, str] | None = None
    while page := await largest.list(after=after, prefix=prefix, limit=limit):
        assert len(page) <= limit
        found += names(page)
        after = (page[-1].stored_bytes, page[-1].document.name)
        assert len(found) < 100, "it ends"
    return found


SIZES = {"a": 5, "b/1": 9, "b/2": 5, "B": 5, "b/\U0001f98a": 5, "c": 1, "b/\uff5e": 5, "gone": 50, "z": 0}
ORDER = ["b/1", "B", "a", "b/2", "b/\uff5e", "b/\U0001f98a", "c"]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("places", [1, 3, 2_000])
async def test_the_largest_come_first_and_equals_by_their_names(
    store: Store, limit: int, places: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PLACES", places)
    await fill(store, SIZES)
    await store.delete("gone", 7.0)
    await store.create("y-empty")
    largest = Largest(store)
    assert await paged(largest, limit) == [*ORDER, "y-empty", "z"]
    assert await paged(largest, limit, "b/") == ["b/1", "b/2", "b/\uff5e", "b/\U0001f98a"]
    assert await paged(largest, limit, "none/") == []


async def test_a_snapshot_takes_the_place_of_the_rows_that_it_covers(store: Store) -> None:
    await put(store, "d", b"x" * 100, b"x" * 10)
    await put(store, "e", b"x" * 50)
    largest = Largest(store)
    assert [summary.stored_bytes for summary in await largest.list()] == [110, 50]
    document = (await store.describe("d")).document
    await store.write_snapshot(document.id, Snapshot(1, b"x" * 30, b"", b"", 9.0))
    found = await largest.list()
    assert (names(found), [summary.stored_bytes for summary in found]) == (["e", "d"], [50, 40])


async def test_pages_stay_right_while_documents_change(store: Store) -> None:
    await fill(store, {"a": 50, "b": 40, "c": 30, "d": 20, "e": 10})
    largest = Largest(store)
    first = await largest.list(limit=2)
    assert names(first) == ["a", "b"]
    await store.delete("b", 7.0)  # the last one of the page
    await put(store, "e", b"x" * 100)  # one that is still to come moves to the front
    await put(store, "new", b"x" * 25)
    assert names(await largest.list(after=(40, "b"), limit=10)) == ["c", "new", "d"]
    assert names(await largest.list(limit=10)) == ["e", "a", "c", "new", "d"]


class Clock:
    """Time that passes with each page of the catalogue."""

    def __init__(self, store: Store, seconds: float) -> None:
        self.now = 0.0
        self.pages = 0
        self._list, self._seconds = store.list_documents, seconds

    async def list_documents(self, *, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        self.pages += 1
        self.now += self._seconds
        return await self._list(after=after, prefix=prefix, limit=limit)


async def test_a_look_that_took_long_is_used_again_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, {"a": 3, "b": 2, "c": 1})
    clock = Clock(store, 1.0)
    monkeypatch.setattr(store, "list_documents", clock.list_documents)
    largest = Largest(store, lambda: clock.now)
    assert names(await largest.list(limit=1)) == ["a"]
    looked, took = clock.pages, clock.now
    await put(store, "d", b"x" * 9)
    assert names(await largest.list(after=(3, "a"), limit=2)) == ["b", "c"] and clock.pages == looked, "the same look"
    assert names(await largest.list(prefix="d")) == ["d"] and clock.pages > looked, "another prefix"
    looked, clock.now = clock.pages, 1_000.0
    assert names(await largest.list()) == ["d", "a", "b", "c"]
    assert clock.pages > looked
    looked, clock.now = clock.pages, clock.now + 9 * took
    assert names(await largest.list(limit=2)) == ["d", "a"] and clock.pages == looked
    clock.now += 10 * took
    await largest.list(limit=2)
    assert clock.pages > looked, "its time is over"


async def test_a_quick_look_is_never_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, {"a": 3})
    clock = Clock(store, 0.01)
    monkeypatch.setattr(store, "list_documents", clock.list_documents)
    largest = Largest(store, lambda: clock.now)
    await largest.list()
    looked = clock.pages
    await put(store, "b", b"x" * 9)
    assert names(await largest.list()) == ["b", "a"] and clock.pages > looked


async def test_those_who_ask_at_the_same_time_wait_for_one_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, {"a": 3, "b": 2})
    clock = Clock(store, 1.0)
    monkeypatch.setattr(store, "list_documents", clock.list_documents)
    largest = Largest(store, lambda: clock.now)
    found = await asyncio.gather(*(largest.list() for _ in range(5)))
    assert [names(each) for each in found] == [["a", "b"]] * 5
    assert clock.pages == 2, "one look at both, and at what is behind them"


async def test_only_the_first_places_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PLACES", 2)
    await fill(store, {name: size for size, name in enumerate("abcdef", 1)})
    clock = Clock(store, 1.0)
    monkeypatch.setattr(store, "list_documents", clock.list_documents)
    largest = Largest(store, lambda: clock.now)
    assert await paged(largest, 2) == ["f", "e", "d", "c", "b", "a"]
    assert clock.pages == 3 * 4, "a look for each two of them"
