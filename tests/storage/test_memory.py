"""The memory store beyond the conformance suite: its turns of the loop, its faults, its clock, several nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from collab.errors import StoreUnavailable
from collab.storage.journal import Journal
from collab.storage.memory import MemoryStorage, MemoryStore, one_turn
from collab.storage.records import Append, Appended, AppendOutcome, NewRow
from collab.testing.storage import data_of, put, rows, snapshot


def turns(call: Coroutine[Any, Any, Any]) -> int:
    """Drive a call by hand; give how often it lets the loop run."""
    count = 0
    while True:
        try:
            call.send(None)
        except StopIteration:
            return count
        count += 1


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.open(),
        lambda store: store.ping(),
        lambda store: store.append([Append("new", None, rows(b"1"))]),
        lambda store: store.load("d"),
        lambda store: store.rows_after(1, 0, 9),
        lambda store: store.load_at(1, 1),
        lambda store: store.write_snapshot(1, snapshot(1)),
        lambda store: store.prune(before=0.0, limit=1),
        lambda store: store.create("new"),
        lambda store: store.set_title("d", "title"),
        lambda store: store.list_documents(),
        lambda store: store.describe("d"),
        lambda store: store.delete("d", 1.0),
    ],
)
def test_no_call_ends_within_the_step_that_makes_it(call: Callable[[MemoryStore], Coroutine[Any, Any, Any]]) -> None:
    store = MemoryStore()
    assert turns(store.append([Append("d", None, rows(b"1"))])) == 2
    assert turns(call(store)) == 2


class Way:
    """The way to the storage and back, which the test can cut."""

    def __init__(self) -> None:
        self.cut = 0
        self.passed = 0

    async def __call__(self) -> None:
        await one_turn()
        self.passed += 1
        if self.passed == self.cut:
            raise StoreUnavailable("the test cut the way")


@pytest.mark.parametrize(("cut", "there"), [(1, []), (2, [b"1", b"2"])])
async def test_way_that_is_cut_leaves_the_doubt_and_the_repeat_writes_once(cut: int, there: list[bytes]) -> None:
    way = Way()
    storage = MemoryStorage()
    store = MemoryStore(storage, travel=way)
    batch = [Append("d", None, rows(b"1", b"2"))]
    way.cut = cut
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    assert await data_of(MemoryStore(storage), "d") == there
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended) and outcome[1:] == (1, 2)
    assert await data_of(store, "d") == [b"1", b"2"]
    # A batch that was answered is no repeat.
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended) and outcome[1:] == (3, 4)


async def test_journal_writes_everything_once_over_a_way_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.storage.journal.FIRST_RETRY", 0.0)
    monkeypatch.setattr("collab.storage.journal.LONGEST_RETRY", 0.0)

    async def travel() -> None:
        nonlocal ways
        await one_turn()
        ways += 1
        # Of three attempts the first is lost on the way there, the second on the way back.
        if ways % 5 in (1, 3):
            raise StoreUnavailable("the test cut the way")

    ways = 0
    storage = MemoryStorage()
    journal = Journal(MemoryStore(storage, travel=travel), backlog_bytes=1 << 20)
    await journal.start()
    heard: list[AppendOutcome] = []
    for number in range(50):
        journal.append(Append("d", None, (NewRow(b"%d" % number, 1.0),)), heard.append)
        await asyncio.sleep(0)
    assert await journal.close(30.0) == []
    assert [outcome.first_seq for outcome in heard if isinstance(outcome, Appended)] == list(range(1, 51))
    assert await data_of(MemoryStore(storage), "d") == [b"%d" % number for number in range(50)]


async def test_documents_outlive_the_node_that_wrote_them() -> None:
    storage = MemoryStorage()
    first = await put(MemoryStore(storage), "d", b"1")  # and is never closed
    store = MemoryStore(storage)
    assert await data_of(store, "d") == [b"1"]
    assert (await put(store, "d", b"2")) == Appended(first.document_id, 2, 2)
    assert await data_of(MemoryStore(), "d") == [], "a storage of its own"


async def test_time_is_the_clocks() -> None:
    store = MemoryStore(clock=lambda: 12.5)
    created = await store.create("d")
    assert (created.created_at, created.updated_at) == (12.5, 12.5)
    created = await store.create("with rows", rows=rows(b"1", at=7.0))
    assert (created.created_at, created.updated_at) == (7.0, 7.0)


async def test_closed_store_takes_no_calls_and_finishes_those_under_way() -> None:
    storage = MemoryStorage()
    store = MemoryStore(storage)
    appending = asyncio.create_task(store.append([Append("d", None, rows(b"1"))]))
    await asyncio.sleep(0)
    await store.close()
    (outcome,) = await appending
    assert isinstance(outcome, Appended)
    with pytest.raises(RuntimeError):
        await store.ping()


async def test_batch_with_a_mistake_is_not_written_at_all() -> None:
    store = MemoryStore()
    with pytest.raises(TypeError):
        await store.append([Append("good", None, rows(b"1")), Append("bad", None, (NewRow(None, 1.0),))])  # type: ignore[arg-type]
    assert await store.list_documents() == []


async def test_rows_cannot_be_changed_from_outside() -> None:
    data = bytearray(b"1")
    store = MemoryStore()
    await store.append([Append("d", None, (NewRow(data, 1.0),))])  # type: ignore[arg-type]
    data[0] = 0
    loaded = await store.load("d")
    assert loaded is not None
    loaded.rows.clear()
    assert await data_of(store, "d") == [b"1"]
