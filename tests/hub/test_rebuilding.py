"""Old states of many rows: rebuilt in the sandbox, and beside the rooms where that does not do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.errors import DamagedDocument, HistoryGone, SandboxBusy, SandboxCrashed, SandboxTimeout
from collab.history.packed import PackedRows
from collab.hub import rebuilding as rebuilding_module
from collab.hub.rebuilding import Rebuilding
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.pool import ProcessSandbox
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.memory import MemoryStore
from collab.storage.records import Append, NewRow, Snapshot
from collab.storage.store import Store
from collab.storage.versions import NewVersion
from collab.update.compact import Compacted, compact
from collab.update.merge import merge_updates
from tests.support.author import Author, content
from tests.support.sqlite import migrated

ROWS = 40


class Recorded:
    """A sandbox that tells how many rows it was given; it raises ``error`` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.given: list[int] = []
        self.patient: list[bool] = []
        self.error = error
        self._inner = InlineSandbox()

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        self.given.append(rows.total)
        self.patient.append(patient)
        if self.error is not None:
            raise self.error
        return await self._inner.rebuild(snapshot, index, rows, patient=patient)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding_module, "LEAST_ROWS", 10)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = make_store(migrated(tmp_path))
    await store.open()
    yield store
    await store.close()


def typed() -> list[bytes]:
    author = Author(7)
    for number in range(ROWS):
        author.type(f"{number} ")
    return author.updates


def sealed(updates: list[bytes]) -> list[NewRow]:
    return [seal_row(data, 1.0, "ann") for data in updates]


async def write(store: Store, rows: list[NewRow], snapshot: int | None = None) -> int:
    """Write a document ``d``, with a snapshot after a row; return its id."""
    await store.append([Append("d", None, tuple(rows))])
    document_id = (await store.describe("d")).document.id
    if snapshot is not None:
        made = compact(merge_updates([row.data for row in rows[:snapshot]]))
        assert await store.write_snapshot(
            document_id, seal_snapshot(Snapshot(snapshot, made.data, made.index, b"", 1.0))
        )
    return document_id


async def test_many_rows_are_read_by_the_sandbox_and_few_are_not(store: Store) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates), snapshot=20)
    sandbox = Recorded()
    rebuilding, here = Rebuilding(store, sandbox), Rebuilding(store)
    for number in (0, 1, 9, 10, 19, 20, 29, 30, ROWS):
        document, wanted = await rebuilding.at("d", document_id, number), await here.at("d", document_id, number)
        data = document.encode_state_as_update()
        assert data == wanted.encode_state_as_update()
        assert document.encode_state_vector() == wanted.encode_state_vector()
        assert content(data) == (content(merge_updates(updates[:number])) if number else "")
    assert sandbox.given == [10, 19, 10, 20]


async def test_work_that_needs_the_sandbox_anyhow_waits_for_it_however_few_rows_there_are(store: Store) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates), snapshot=20)
    sandbox = Recorded()
    rebuilding, here = Rebuilding(store, sandbox), Rebuilding(store)
    for number in (0, 1, 19, 20, 21, ROWS):
        data = await rebuilding.encoded("d", document_id, number)
        assert data == await here.encoded("d", document_id, number)
        assert data == (await here.at("d", document_id, number)).encode_state_as_update()
    assert sandbox.given == [1, 19, 1, 20] and all(sandbox.patient)
    sandbox.error = SandboxCrashed("died")
    assert content(await rebuilding.encoded("d", document_id, ROWS)) == content(merge_updates(updates))
    with pytest.raises(HistoryGone):
        await rebuilding.encoded("d", document_id, ROWS + 1)


async def test_a_version_is_read_by_the_sandbox_until_it_is_pinned(store: Store) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates))
    made = await store.make_version(document_id, 30, NewVersion("v", None, None, 1.0))
    sandbox = Recorded()
    rebuilding = Rebuilding(store, sandbox)
    for _ in range(2):
        version, document = await rebuilding.version("d", document_id, made.id)
        assert content(document.encode_state_as_update()) == content(merge_updates(updates[:30]))
        compacted = compact(document.encode_state_as_update())
        pinned = seal_snapshot(Snapshot(30, compacted.data, compacted.index, document.encode_state_vector(), 1.0))
        await store.pin_version(document_id, made.id, pinned)
    assert version.pinned and sandbox.given == [30]


@pytest.mark.parametrize("error", [SandboxBusy("full"), SandboxCrashed("died"), SandboxTimeout("late")])
async def test_whatever_becomes_of_the_sandbox_the_state_is_read(store: Store, error: Exception) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates))
    sandbox = Recorded(error)
    document = await Rebuilding(store, sandbox).at("d", document_id, ROWS)
    assert content(document.encode_state_as_update()) == content(merge_updates(updates))
    assert sandbox.given == [ROWS]


async def test_what_is_damaged_is_told_as_if_it_was_read_here(store: Store) -> None:
    rows = sealed(typed())
    rows[24] = rows[24]._replace(data=rows[23].data)
    document_id = await write(store, rows)
    rebuilding = Rebuilding(store, Recorded())
    with pytest.raises(DamagedDocument, match="row 25 of its log"):
        await rebuilding.at("d", document_id, 30)
    assert content((await rebuilding.at("d", document_id, 24)).encode_state_as_update()).endswith("22 23 ")
    with pytest.raises(HistoryGone):
        await rebuilding.at("d", document_id, ROWS + 1)


async def test_a_damaged_snapshot_is_passed_over(store: Store) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates), snapshot=15)
    await store.write_snapshot(document_id, Snapshot(20, b"other bytes", b"", b"", 1.0, 7))
    sandbox = Recorded()
    document = await Rebuilding(store, sandbox).at("d", document_id, ROWS)
    assert content(document.encode_state_as_update()) == content(merge_updates(updates))
    assert sandbox.given == []


async def test_a_store_that_does_not_pack_is_read_as_ever() -> None:
    store = MemoryStore()
    await store.open()
    updates = typed()
    document_id = await write(store, sealed(updates))
    sandbox = Recorded()
    document = await Rebuilding(store, sandbox).at("d", document_id, ROWS)
    assert content(document.encode_state_as_update()) == content(merge_updates(updates))
    assert sandbox.given == []


async def test_a_process_does_it_once_it_has_started(store: Store) -> None:
    updates = typed()
    document_id = await write(store, sealed(updates))
    sandbox = ProcessSandbox(1, 30.0, 1 << 30)
    rebuilding = Rebuilding(store, sandbox)
    try:
        wanted = await rebuilding.at("d", document_id, ROWS)  # here: nobody waits for a process that starts
        assert sandbox._starting is not None
        await sandbox._starting
        made = await rebuilding.at("d", document_id, ROWS)
        assert made.encode_state_as_update() == wanted.encode_state_as_update()
        # Read from one update by its index, not row by row.
        assert (made.tail_clients, wanted.tail_clients) == (0, 1)
    finally:
        await sandbox.close()
