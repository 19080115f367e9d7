"""What is left on a disk of what was erased, and what a release that knows no trash does beside one that does."""

from __future__ import annotations

import asyncio
import sqlite3
from random import Random
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from collab.errors import DocumentNotFound, StoreUnavailable
from collab.storage import sqlite
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, Appended, CallKey, NewOwner, PendingChange, PendingUpdate, Snapshot
from collab.storage.schema import OF_DOCUMENT, calls, client_owners, documents, log, metadata, snapshots, trash
from collab.storage.sql import SqlStore
from collab.testing.storage import data_of, put, rows, written
from tests.support.stores import OpenStore

NEEDLE = b"needle in a haystack"


def bytes_of(store: SqlStore) -> dict[str, bytes]:
    """Read the files of a database as they lie there."""
    path = store._backend.url.path
    assert path is not None
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.name.startswith(path.name)}


async def written_down(store: SqlStore, name: str = "d", needle: bytes = NEEDLE) -> int:
    """Make a document whose every part has the needle: in rows of all sizes, snapshots, beside it, and in an answer."""
    text = needle.decode()
    call = CallKey(name.encode().ljust(32), "t" * 32)
    await store.begin_call(call, b"r" * 32)
    created = await store.create(name, rows=rows(needle), title=text, metadata={"key": text}, call=call)
    await store.finish_call(call, 201, needle)
    for size in (1, 40, 200, 1_900, 5_000, 100_000):
        row = seal_row(bytes(size) + needle + bytes(size), 1.0, None)
        await written(store, [Append(name, created.id, (row,) * 12)])
    head = (await store.heads([name]))[name].seq
    for seq in (3, head - 2, head):
        data = needle * (seq * 100)
        assert await store.write_snapshot(created.id, seal_snapshot(Snapshot(seq, data, needle, needle, 1.0)))
    waiting = PendingUpdate(b"k" * 16, needle, 6.0, text)
    await written(store, [Append(name, created.id, (), PendingChange((waiting,), ()))])
    # Parts that were removed before, by compaction and by change, lie in pages that are free.
    while await store.prune(before=1e9, limit=7):
        pass
    await store.change(name, title=text + " too", metadata={"key": None, "other": text})
    settled = PendingUpdate(b"l" * 16, needle * 9, 6.0, None)
    await written(store, [Append(name, created.id, (), PendingChange((settled,), ()))])
    await written(store, [Append(name, created.id, (), PendingChange((), (settled.key,)))])
    return created.id


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_no_file_holds_what_was_erased(store: SqlStore, open_another: OpenStore) -> None:
    for number in range(40):
        await put(store, f"bystander {number}", b"x" * 50 * number)
    document_id = await written_down(store)
    found = bytes_of(store)
    assert {name.rpartition(".db")[2] for name in found} >= {"", "-wal", "-shm"}
    assert any(NEEDLE in data for data in found.values())
    await store.delete("d", 1.0)
    await store.erase(document_id)
    for name, data in bytes_of(store).items():
        assert NEEDLE not in data and b"needle" not in data, f"{name} at {data.find(b'needle')} of {len(data)}"
    assert await data_of(store, "bystander 39") == [b"x" * 50 * 39]
    # Beside others who have the database open and go on, too.
    async with open_another() as other:
        await data_of(other, "bystander 1")
        document_id = await written_down(store, "e")
        await data_of(other, "e")
        await store.delete("e", 1.0)
        await other.erase(document_id)
        assert [name for name, data in bytes_of(store).items() if b"needle" in data] == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seed", [23, 24, 26])
async def test_no_file_holds_copies_of_rows_that_were_moved_between_pages(store: SqlStore, seed: int) -> None:
    """With these seeds SQLite leaves copies behind although it overwrites what is deleted."""
    random = Random(seed)
    ids: dict[str, int | None] = {}
    for _ in range(random.randint(30, 150)):
        name = f"d{random.randint(0, 4)}"
        text = NEEDLE if name == "d0" else b"x" * len(NEEDLE)
        size = random.choice([0, 10, 50, 200, 900, 1_500, 3_000, 4_000, 9_000]) + random.randint(0, 40)
        row = seal_row(text * (1 + size // len(text)), 1.0, None)
        batch = [Append(name, ids.get(name), (row,) * random.randint(1, 6))]
        (outcome,) = await written(store, batch)
        assert isinstance(outcome, Appended)
        ids[name] = outcome.document_id
        if random.random() < 0.2:
            title = (text * random.randint(1, 8)).decode()
            await store.change(name, title=title, metadata={f"k{random.randint(0, 9)}": title[:300]})
        if random.random() < 0.1:
            other = f"d{random.randint(1, 4)}"
            if (document_id := ids.get(other)) is not None:
                await store.delete(other, 1.0)
                await store.erase(document_id)
                ids[other] = (await store.create(other)).id
    document_id = ids["d0"]
    assert document_id is not None
    await store.delete("d0", 1.0)
    await store.erase(document_id)
    assert [name for name, data in bytes_of(store).items() if b"needle" in data] == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_large_database_is_not_written_anew_and_that_is_said(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "VACUUM_BYTES", 0)
    document_id = await written_down(store)
    await store.delete("d", 1.0)
    await store.erase(document_id)
    assert "VACUUM" in caplog.text


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_many_who_erase_at_once_write_the_database_anew_a_few_times(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    times = 0
    write_anew = backend._write_anew

    def counted() -> Any:
        nonlocal times
        times += 1
        return write_anew()

    monkeypatch.setattr(backend, "_write_anew", counted)
    ids = []
    for number in range(12):
        ids.append(await written_down(store, f"d{number}"))
        await store.delete(f"d{number}", 1.0)
    await asyncio.gather(*(store.erase(document_id) for document_id in ids))
    assert 1 <= times < 12
    assert [name for name, data in bytes_of(store).items() if b"needle" in data] == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_erasing_waits_for_those_who_read_an_older_state(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCRUB_SECONDS", 0.3)
    document_id = await written_down(store)
    path = store._backend.url.path
    assert path is not None
    reader = sqlite3.connect(path, isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchall()
        await store.delete("d", 1.0)
        with pytest.raises(StoreUnavailable, match="erase it again"):
            await store.erase(document_id)
        assert await store.load_at(document_id, 1) is None
        assert await put(store, "other", b"1"), "others go on meanwhile"
    finally:
        reader.close()
    await store.erase(document_id)
    assert [name for name, data in bytes_of(store).items() if b"needle" in data] == []


async def test_no_table_holds_what_was_erased(store: SqlStore) -> None:
    document_id = await written_down(store)
    await put(store, "other", b"1")
    owner = NewOwner(7, NEEDLE.decode(), 1.0, 0)
    await written(store, [Append("d", document_id, rows(b"by somebody"), owners=(owner,))])
    assert len(await store.client_owners(document_id, 0, 9)) == 1
    await store.note_damage(document_id, rows=[1])
    await store.delete("d", 1.0)
    await store.erase(document_id)

    def look(connection: object) -> dict[str, list[tuple[object, ...]]]:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table))]  # type: ignore[attr-defined]
            for table in metadata.sorted_tables
        }

    found = await store._backend.run(look, "read")
    assert NEEDLE.decode() not in repr(found)
    of_it = [
        (table.name, row)
        for table in (log, snapshots, client_owners, trash, *OF_DOCUMENT)
        for row in found[table.name]
        if row[list(table.c).index(table.c.document_id)] == document_id
    ]
    assert of_it == []


def test_every_table_with_rows_of_a_document_is_known() -> None:
    """A new table must be said to go with the content, or be looked at here."""
    known = {table.name for table in (log, snapshots, client_owners, trash, calls, *OF_DOCUMENT)}
    assert {table.name for table in metadata.sorted_tables if "document_id" in table.c} == known


# A release that knows no trash, on the same database


async def test_what_an_older_release_has_pruned_is_not_restored(store: SqlStore) -> None:
    first = await put(store, "d", b"1", b"2", b"3")
    await store.delete("d", 1.0)

    def prune_some(connection: object) -> None:
        connection.execute(delete(log).where(log.c.document_id == first.document_id, log.c.seq <= 2))  # type: ignore[attr-defined]

    await store._backend.run(prune_some, "write")
    with pytest.raises(DocumentNotFound):
        await store.restore(first.document_id, at=2.0)

    def forget(connection: object) -> None:
        connection.execute(delete(documents).where(documents.c.id == first.document_id))  # type: ignore[attr-defined]

    await store._backend.run(forget, "write")
    assert await store.list_trash() == []
    await store.prune(before=0.0, limit=1, trash_before=0.0)
    rows_left = await store._backend.run(
        lambda connection: connection.execute(select(func.count()).select_from(trash)).scalar_one(), "read"
    )
    assert rows_left == 0


async def test_what_an_older_release_has_deleted_goes_as_ever(store: SqlStore) -> None:
    first = await put(store, "d", b"1")

    def remove(connection: object) -> None:
        statement = update(documents).where(documents.c.id == first.document_id)
        connection.execute(statement.values(deleted_at=1e9))  # type: ignore[attr-defined]

    await store._backend.run(remove, "write")
    assert await store.list_trash() == []
    assert await store.prune(before=0.0, limit=9, trash_before=0.0) == 1
