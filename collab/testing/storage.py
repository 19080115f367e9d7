"""What the tests of the store's ports share: stores on storage that is empty at first, and the helpers to fill it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from collab.errors import StoreUnavailable
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, Appended, AppendOutcome, NewRow, Snapshot
from collab.storage.store import Store

MakeStore = Callable[[], Store]
OpenStore = Callable[[], AbstractAsyncContextManager[Store]]

TRIES = 100
"""How often an append is offered to a store that answers ``StoreUnavailable``, before the test gives up."""

SECONDS = 60.0
"""After these a test in which two wait for each other counts as failed."""

AT = 1_700_000_000.25


class OnStorage:
    """The fixtures: derive from a suite and say how a store is made; everything else follows from that."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Give a function that makes one more store, not open yet, on the same storage; empty for each test."""
        raise NotImplementedError("a suite needs a fixture make_store; see docs/adapters.md")

    @pytest.fixture
    def open_store(self, make_store: MakeStore) -> OpenStore:
        """Open one more store on the storage, as another node or the command line does; close it at the end."""
        return lambda: opened(make_store)

    @pytest_asyncio.fixture
    async def store(self, open_store: OpenStore) -> AsyncIterator[Store]:
        """An open store."""
        async with open_store() as store:
            yield store


@contextlib.asynccontextmanager
async def opened(make_store: MakeStore) -> AsyncIterator[Store]:
    """Open a store, and close it at the end."""
    store = make_store()
    try:
        await store.open()
        yield store
    finally:
        await store.close()


def rows(*data: bytes, at: float = AT, author: str | None = None) -> tuple[NewRow, ...]:
    """Make rows."""
    return tuple(seal_row(each, at, author) for each in data)


def snapshot(seq: int, at: float = 0.0) -> Snapshot:
    """Make a snapshot that can be told from those of other numbers."""
    return seal_snapshot(Snapshot(seq, b"state %d" % seq, b"index %d" % seq, b"vector %d" % seq, at))


async def put(store: Store, name: str, *data: bytes, document_id: int | None = None, at: float = AT) -> Appended:
    """Append rows to one document."""
    (outcome,) = await written(store, [Append(name, document_id, rows(*data, at=at))])
    assert isinstance(outcome, Appended), outcome
    return outcome


async def written(store: Store, batch: Sequence[Append]) -> list[AppendOutcome]:
    """Append a batch, the same object as often as the store is not available."""
    for _ in range(TRIES - 1):
        try:
            return await store.append(batch)
        except StoreUnavailable:
            # Two nodes on a busy machine: the other one may have had a lock for too long.
            continue
    return await store.append(batch)


async def data_of(store: Store, name: str) -> list[bytes]:
    """Read the rows that opening a document reads."""
    loaded = await store.load(name)
    return [row.data for row in loaded.rows] if loaded else []


async def pruned(store: Store, *, before: float, limit: int) -> int:
    """Prune until nothing is left to do, in portions of ``limit``; give how much went."""
    removed = 0
    async with asyncio.timeout(SECONDS):
        while portion := await store.prune(before=before, limit=limit):
            assert 0 < portion <= limit
            removed += portion
    return removed


class Moments:
    """Moments at which an append is cut off: before it has begun, within it, and when it is done.

    The first ones count turns of the loop, the others are parts of the time that an append takes here.
    """

    TURNS = 8
    PARTS = 24

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @classmethod
    async def measure(cls, store: Store) -> Moments:
        """Measure an append."""
        loop = asyncio.get_running_loop()
        longest = 0.0
        for number in range(3):
            begin = loop.time()
            await put(store, f"measured {number}", b"x")
            longest = max(longest, loop.time() - begin)
        return cls(longest)

    def __len__(self) -> int:
        return self.TURNS + self.PARTS

    async def wait(self, number: int) -> None:
        """Wait for the moment ``number``."""
        if number < self.TURNS:
            for _ in range(number):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(self._seconds * (number - self.TURNS + 1) * 1.1 / self.PARTS)

    async def cut_off(self, store: Store, batch: Sequence[Append], number: int) -> list[AppendOutcome] | None:
        """Append, and cancel that at the moment ``number``; give the outcomes if they came before, else None."""
        appending = asyncio.ensure_future(store.append(batch))
        await self.wait(number)
        appending.cancel()
        try:
            return await appending
        except (asyncio.CancelledError, StoreUnavailable):
            return None
