"""What the SQL store does inside, which the conformance suite cannot see: on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from collab.authorship import Note
from collab.errors import DocumentDeleted, StoreRefused, StoreUnavailable, StoreWentBack
from collab.history.packed import PackedRow, unpack
from collab.storage import batch as batches
from collab.storage import sql
from collab.storage.checksums import damaged_rows, seal_row
from collab.storage.records import Append, Appended, Head, NewOwner, NewRow, Snapshot
from collab.storage.sql import SqlStore
from collab.testing.membership import ONE as NODE
from collab.testing.storage import put, rows, snapshot
from tests.support.stores import OpenStore


async def run(store: SqlStore, statement: str) -> Any:
    """Run a statement of the test's own on the store's database."""

    def execute(connection: Any) -> Any:
        result = connection.execute(text(statement))
        return result.all() if result.returns_rows else None

    return await store._backend.run(execute, "write")


# The ambiguous commit, at its two worst moments.


class AmbiguousCommit:
    """Lose the answer of the next append, or the append itself."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.real = store._backend.append

    def lose_answer(self) -> None:
        async def append(batch: Any, number: int, repeat: bool) -> Any:
            self.store._backend.append = self.real  # type: ignore[method-assign]
            await self.real(batch, number, repeat)
            raise StoreUnavailable("the connection died while COMMIT was under way")

        self.store._backend.append = append  # type: ignore[method-assign]

    def lose_question(self) -> None:
        async def append(batch: Any, number: int, repeat: bool) -> Any:
            self.store._backend.append = self.real  # type: ignore[method-assign]
            raise StoreUnavailable("the connection died before the batch arrived")

        self.store._backend.append = append  # type: ignore[method-assign]


async def test_repeat_after_a_commit_without_answer_writes_once(store: SqlStore, open_another: OpenStore) -> None:
    known = await put(store, "known", b"1")
    gone = await put(store, "gone", b"1")
    await store.delete("gone", 5.0)
    batch = [
        Append("known", known.document_id, rows(b"2", b"3")),
        Append("fresh", None, rows(b"x")),
        Append("gone", gone.document_id, rows(b"2")),
        Append("known", None, rows(b"4")),
    ]
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    # Another node writes before the repeat: the numbers must be those of the first time.
    async with open_another() as other:
        assert (await put(other, "known", b"5", document_id=known.document_id)).first_seq == 5
    outcomes = await store.append(batch)
    assert outcomes[0] == Appended(known.document_id, 2, 3)
    assert isinstance(outcomes[1], Appended) and outcomes[1][1:] == (1, 1)
    assert isinstance(outcomes[2], DocumentDeleted)
    assert outcomes[3] == Appended(known.document_id, 4, 4)
    loaded = await store.load("known")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"1", b"2", b"3", b"4", b"5"]
    assert (await store.describe("fresh")).document.head_seq == 1


async def test_repeat_after_a_commit_that_did_not_take_place_writes_once(store: SqlStore) -> None:
    batch = [Append("d", None, rows(b"1"))]
    AmbiguousCommit(store).lose_question()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    assert (await store.append(batch))[0][1:] == (1, 1)  # type: ignore[index]
    assert (await put(store, "d", b"2")).first_seq == 2


async def test_equal_batch_that_is_another_object_is_written_again(store: SqlStore) -> None:
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append([Append("d", None, rows(b"1"))])
    assert (await put(store, "d", b"1")).first_seq == 2


async def test_attempt_left_behind_by_a_dead_connection_never_writes_after_the_repeat(store: SqlStore) -> None:
    batch = [Append("d", None, rows(b"1"))]
    AmbiguousCommit(store).lose_question()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    number = store._number
    assert (await store.append(batch))[0][1:] == (1, 1)  # type: ignore[index]
    # What the dead connection had carried arrives now, after all.
    assert (await store._backend.append(batch, number, True))[0][1:] == (1, 1)  # type: ignore[index]
    assert (await store.describe("d")).document.head_seq == 1


async def test_repeat_remembers_what_was_refused(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await refuse_rows_with_poison(store)
    batch = [Append("good", None, rows(b"1")), Append("bad", None, rows(b"poison"))]
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    good, bad = await store.append(batch)
    assert isinstance(good, Appended) and isinstance(bad, StoreRefused)


# Rows refused for good by the database itself.


async def refuse_rows_with_poison(store: SqlStore) -> None:
    """Make the database itself refuse some rows."""
    if store._backend.url.backend == "sqlite":
        await run(
            store,
            "CREATE TRIGGER poison BEFORE INSERT ON log WHEN new.data = CAST('poison' AS BLOB) "
            "BEGIN SELECT RAISE(ABORT, 'poison'); END",
        )
    else:
        await run(store, "ALTER TABLE log ADD CHECK (data <> 'poison'::bytea)")


async def test_row_refused_for_good_costs_only_its_document(store: SqlStore) -> None:
    first = await put(store, "healthy", b"1")
    sick = await put(store, "sick", b"1")
    await refuse_rows_with_poison(store)
    outcomes = await store.append(
        [
            Append("healthy", first.document_id, rows(b"2")),
            Append("sick", sick.document_id, rows(b"2")),
            Append("sick", sick.document_id, rows(b"3", b"poison")),
            Append("sick", sick.document_id, rows(b"4")),
            Append("newcomer", None, rows(b"1")),
        ]
    )
    assert outcomes[0] == Appended(first.document_id, 2, 2)
    assert all(isinstance(outcome, StoreRefused) for outcome in outcomes[1:4])
    assert isinstance(outcomes[4], Appended)
    # On SQLite it is the trigger's own text.
    assert "poison" not in str(outcomes[1]) or store._backend.url.backend == "sqlite"
    # No gap is left where the refused rows would have been.
    assert (await put(store, "sick", b"5", document_id=sick.document_id)).first_seq == 2
    assert (await put(store, "healthy", b"3", document_id=first.document_id)).first_seq == 3


async def test_more_bytes_than_the_store_takes_are_refused(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("collab.storage.sql.MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("collab.storage.sql_catalogue.MAX_ROW_BYTES", 1000)
    good, bad = await store.append([Append("good", None, rows(b"x" * 1000)), Append("bad", None, rows(b"x" * 1001))])
    assert isinstance(good, Appended)
    assert isinstance(bad, StoreRefused) and "1001" in str(bad)
    with pytest.raises(StoreRefused):
        await store.create("bad 2", rows=rows(b"x" * 600, b"x" * 600))
    with pytest.raises(StoreRefused):
        await store.write_snapshot(good.document_id, Snapshot(1, b"x" * 1001, b"", b"", 0.0))


async def test_large_batch_is_written_document_by_document(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"collab.storage.{store._backend.url.backend}.LARGE_BATCH_BYTES", 100)
    first = await put(store, "a", b"1")
    batch = [Append("a", first.document_id, rows(b"x" * 90)), Append("b", None, rows(b"y" * 90, b"z"))]
    one, two = await store.append(batch)
    assert one == Appended(first.document_id, 2, 2)
    assert isinstance(two, Appended) and two[1:] == (1, 2)
    assert [row.data for row in await store.rows_after(two.document_id, 0, 9)] == [b"y" * 90, b"z"]


# Bytes that somebody has changed in the database.


async def damage(store: SqlStore, table: str, values: str, seq: int) -> None:
    await run(store, f"UPDATE {table} SET {values} WHERE seq = {seq}")


CHANGES = {
    "data": ("data = {two}", "data = ''"),
    "author": ("author = {ff}", "author = NULL"),
    "checksum": ("checksum = checksum + 1", "checksum = 0"),
}


@pytest.mark.parametrize("column", CHANGES)
async def test_row_that_was_changed_is_found(store: SqlStore, column: str) -> None:
    sqlite = store._backend.url.backend == "sqlite"
    for change in CHANGES[column]:
        name = f"d {change}"
        batch = [Append(name, None, tuple(seal_row(b"%d" % number, 1.0, "somebody") for number in range(1, 4)))]
        await store.append(batch)
        # On SQLite text, which a hand has written there instead of bytes.
        said = change.format(two="'two'" if sqlite else "'two'::bytea", ff="X'ff'" if sqlite else r"'\xff'::bytea")
        await run(store, f"UPDATE log SET {said} WHERE seq = 2 AND document_id = (SELECT max(id) FROM documents)")
        loaded = await store.load(name)
        assert loaded is not None and damaged_rows(loaded.rows) == [2]
        assert damaged_rows(await store.rows_after(loaded.document.id, 0, 9)) == [2]


@pytest.mark.parametrize("column", ["data", "index_data", "state_vector", "seq"])
async def test_snapshot_that_was_changed_is_passed_over_and_found_by_pruning(store: SqlStore, column: str) -> None:
    first = await put(store, "d", b"1", b"2", b"3", b"4", b"5", b"6", at=1.0)
    for seq in (2, 5):
        assert await store.write_snapshot(first.document_id, snapshot(seq))
    value = "4" if column == "seq" else "'x'" if store._backend.url.backend == "sqlite" else "'x'::bytea"
    await run(store, f"UPDATE snapshots SET {column} = {value} WHERE seq = 5")
    loaded = await store.load("d")
    assert loaded is not None and loaded.snapshot == snapshot(2)
    assert loaded.passed_over == ((4,) if column == "seq" else (5,))
    assert [row.seq for row in loaded.rows] == [3, 4, 5, 6]
    assert await store.prune(before=1e9, limit=10) == 0
    assert len(await run(store, "SELECT seq FROM damage")) == 1
    assert await store.write_snapshot(first.document_id, snapshot(6))
    assert await store.prune(before=1e9, limit=10) == 0, "until it is repaired"
    await run(store, "DELETE FROM damage")
    # From two that are whole the damaged one does not keep it.
    await run(store, "DELETE FROM snapshots WHERE seq IN (4, 5)")
    assert await store.prune(before=1e9, limit=10) == 2


async def test_pruning_reads_snapshots_once_and_not_for_each_portion(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await put(store, "d", *[b"1"] * 40, at=1.0)
    for seq in (30, 40):
        assert await store.write_snapshot(first.document_id, snapshot(seq))
    looks = []
    monkeypatch.setattr("collab.storage.sql.is_damaged_snapshot", lambda snapshot: looks.append(snapshot.seq))
    for _ in range(6):
        assert await store.prune(before=1e9, limit=5) == 5
    assert looks == [30, 40]


async def test_a_damaged_name_hides_no_other(store: SqlStore) -> None:
    for name in ("a", "b", "c"):
        await put(store, name, b"1")
        await store.set_title(name, name)
    ff = "X'ff'" if store._backend.url.backend == "sqlite" else r"'\xff'::bytea"
    await run(store, f"UPDATE documents SET name = {ff}, title = {ff} WHERE id = (SELECT min(id) FROM documents)")
    found = await store.list_documents()
    assert [(each.document.name, each.document.title) for each in found] == [
        ("b", "b"),
        ("c", "c"),
        ("\\xff", "\\xff"),
    ]


# Pages and tables.


async def test_batch_of_many_documents_fills_the_log(store: SqlStore) -> None:
    # More than any one statement of the SQLite append holds, and not a round number of them.
    names = [f"document {number}" for number in range(347)]
    await store.append([Append(name, None, rows(b"first", b"second", b"third")) for name in names])
    counted = await run(store, "SELECT count(*), count(DISTINCT document_id), max(seq) FROM log")
    assert tuple(counted[0]) == (347 * 3, 347, 3)


async def test_long_tail_is_read_in_pages(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.storage.sql.PAGE_ROWS", 7)
    data = [b"%d" % number for number in range(50)]
    first = await put(store, "d", *data)
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == data
    assert [row.seq for row in await store.rows_after(first.document_id, 3, 15)] == list(range(4, 19))
    assert [row.seq for row in await store.rows_after(first.document_id, 49, 15)] == [50]


async def test_rows_that_are_packed_are_those_that_are_read(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "PACKED_ROWS", 4)
    made = (
        NewRow(b"", 1.0, None, None),
        NewRow(bytes(range(256)), 2.0, "\U0001f600, or - ", 2**62),
        NewRow(b"3", 3.0, "", 0),
        *(seal_row(b"%d" % number, 5.0, "somebody") for number in range(4, 16)),
    )
    created = await store.create("d", rows=made)
    for base in (None, snapshot(2), snapshot(9)):
        if base is not None:
            assert await store.write_snapshot(created.id, base)
        for seq in (1, 2, 3, 4, 5, 12, 15):
            found = await store.load_at(created.id, seq)
            packed = await store.load_packed(created.id, seq, least=0, most=1 << 30)
            assert found is not None and packed is not None and packed[0] == found[0]
            assert list(unpack(packed[1])) == [
                PackedRow(row.seq, row.data, None if row.author is None else row.author.encode(), row.checksum)
                for row in found[1]
            ]
            assert packed[1].total == len(found[1])
            assert packed[1].nbytes == sum(len(row.data) for row in found[1])


async def test_rows_are_packed_within_bounds_and_only_where_nothing_lacks(store: SqlStore) -> None:
    first = await put(store, "d", *[b"%d" % number for number in range(1, 8)])

    async def packs(seq: int, least: int, most: int) -> bool:
        return await store.load_packed(first.document_id, seq, least=least, most=most) is not None

    assert await packs(7, 7, 7)
    assert not await packs(7, 8, 7)
    assert not await packs(7, 7, 6)
    assert not await packs(8, 0, 100), "there is no such row"
    assert await store.load_packed(first.document_id + 1_000_000, 1, least=0, most=100) is None
    await run(store, "DELETE FROM log WHERE seq = 2")
    assert not await packs(7, 0, 100), "a row is lacking"
    assert await store.write_snapshot(first.document_id, snapshot(4))
    assert await packs(7, 3, 100)
    assert not await packs(7, 3, 3), "the snapshot counts, too"
    await run(store, "UPDATE snapshots SET data = index_data")
    assert not await packs(7, 0, 100), "the snapshot is damaged"


async def test_pruning_goes_round_pages_of_documents(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.storage.pruning.PRUNE_PAGE", 3)
    for number in range(10):
        outcome = await put(store, f"d{number}", b"1", b"2", b"3", at=1.0)
        for seq in (2, 3):
            await store.write_snapshot(outcome.document_id, snapshot(seq))
    portions = []
    while portion := await store.prune(before=1e9, limit=7):
        portions.append(portion)
    assert portions == [7, 7, 6]
    # The end was reached: documents at the beginning are looked at again.
    outcome = await put(store, "d0", b"4", at=1.0)
    await store.write_snapshot(outcome.document_id, snapshot(4))
    assert await store.prune(before=1e9, limit=7) == 2


async def test_owners_that_an_older_release_has_left_go_page_by_page(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.storage.pruning.PRUNE_PAGE", 3)
    ids = []
    for number in range(8):
        owners = tuple(NewOwner(client, "ann", 1.0, 0) for client in range(5))
        (outcome,) = await store.append([Append(f"d{number}", None, rows(b"1"), owners=owners)])
        assert isinstance(outcome, Appended)
        ids.append(outcome.document_id)
    # It removes the rest of a document whose name was given away, and does not know this table.
    for gone in (0, 4, 7):
        for table, column in (("documents", "id"), ("log", "document_id")):
            await run(store, f"DELETE FROM {table} WHERE {column} = {ids[gone]}")
    query = "SELECT document_id, count(*) FROM client_owners GROUP BY document_id ORDER BY document_id"
    found = []
    for _ in range(4):
        assert await store.prune(before=0.0, limit=10) == 0
        found.append([ids.index(row[0]) for row in await run(store, query)])
    assert found == [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 5, 6, 7], [1, 2, 3, 5, 6], [1, 2, 3, 5, 6]]
    assert {row[1] for row in await run(store, query)} == {5}
    await run(store, f"DELETE FROM documents WHERE id = {ids[1]}")
    for _ in range(3):
        assert await store.prune(before=0.0, limit=10) == 0
    assert [ids.index(row[0]) for row in await run(store, query)] == [2, 3, 5, 6], "it begins anew"


async def test_owners_of_a_document_that_is_refused_are_not_written(store: SqlStore) -> None:
    await refuse_rows_with_poison(store)
    owner = NewOwner(1, "ann", 1.0, 0)
    good, bad = await store.append(
        [Append("good", None, rows(b"1"), owners=(owner,)), Append("bad", None, rows(b"poison"), owners=(owner,))]
    )
    assert isinstance(good, Appended) and isinstance(bad, StoreRefused)
    assert [row[0] for row in await run(store, "SELECT document_id FROM client_owners")] == [good.document_id]


async def test_notes_that_were_changed_by_hand_hide_no_row(store: SqlStore) -> None:
    first = await put(store, "d", b"1", b"2")
    long = "x" * 300
    blob = f"CAST('{long}' AS TEXT)" if store._backend.url.backend == "sqlite" else f"'{long}'::bytea"
    await run(store, f"UPDATE log SET label = {blob} WHERE seq = 1")
    ff = "X'ff'" if store._backend.url.backend == "sqlite" else r"'\xff'::bytea"
    await run(store, f"UPDATE log SET on_behalf_of = {ff} WHERE seq = 2")
    one, two = await store.rows_after(first.document_id, 0, 9)
    assert one.note is not None and one.note.label is not None and set(one.note.label) == {"x"}
    assert two.note == Note("\N{REPLACEMENT CHARACTER}", None)
    assert damaged_rows([one, two]) == []


async def test_pruning_empties_the_tables_of_deleted_documents(store: SqlStore) -> None:
    first = await put(store, "d", b"1", b"2", b"3", at=1e12)
    await store.write_snapshot(first.document_id, snapshot(2, at=1e12))
    await store.delete("d", 1e12)
    assert await store.prune(before=0.0, limit=10) == 4
    assert tuple((await run(store, "SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM snapshots)"))[0]) == (0, 0)
    with pytest.raises(DocumentDeleted):
        await store.load("d")
    # A tombstone that gave its name away goes with its content.
    await store.create("d")
    await store.prune(before=0.0, limit=10)
    assert len(await run(store, "SELECT id FROM documents")) == 1


async def test_ids_grow(store: SqlStore) -> None:
    # Documents are locked in the order of their ids, and the newest is the last to be pruned.
    old = await put(store, "d", b"1")
    await store.delete("d", 1.0)
    middle = await store.create("d")
    await store.delete("d", 2.0)
    while await store.prune(before=100.0, limit=10):
        pass
    assert (await store.create("d")).id > middle.id > old.document_id


async def test_deleting_while_others_append_leaves_no_row_behind_the_tombstone(
    store: SqlStore, open_another: OpenStore
) -> None:
    first = await put(store, "d", b"0")
    acknowledged = 1

    async def write() -> None:
        nonlocal acknowledged
        while True:
            (outcome,) = await store.append([Append("d", first.document_id, rows(b"x"))])
            if isinstance(outcome, DocumentDeleted):
                return
            assert isinstance(outcome, Appended)
            acknowledged = outcome.last_seq
            if acknowledged == 5:
                under_way.set()

    under_way = asyncio.Event()
    async with open_another() as other:
        writing = asyncio.create_task(write())
        await under_way.wait()
        await other.delete("d", 1.0)
        await writing
    ((stored,),) = await run(store, "SELECT max(seq) FROM log")
    assert stored == acknowledged


# A database that goes back: an older state of it is put in its place.


async def keep(store: SqlStore) -> None:
    """Keep a copy of all tables as they are now, as a backup does."""
    for table in ("documents", "log", "writers"):
        await run(store, f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")


async def go_back(store: SqlStore) -> None:
    """Put the copy in the place of the tables."""
    for table in ("documents", "log", "writers"):
        await run(store, f"DELETE FROM {table}")
        await run(store, f"INSERT INTO {table} SELECT * FROM kept_{table}")


async def test_a_database_that_goes_back_is_recognised_by_every_method(
    store: SqlStore, open_another: OpenStore
) -> None:
    async with open_another() as other:
        await store.attend()
        first = await put(store, "d", b"1")
        await keep(other)
        await put(store, "d", b"2", document_id=first.document_id)
        await store.ping()
        await go_back(other)
        # Somebody else fills the numbers again: they prove nothing.
        await put(other, "d", b"of another", document_id=first.document_id)
        await store.changed()
        for call in (
            store.ping(),
            store.heads(["d"]),
            store.load("d"),
            store.rows_after(first.document_id, 0, 9),
            store.load_at(first.document_id, 1),
            store.write_snapshot(first.document_id, snapshot(2)),
            store.prune(before=0.0, limit=9),
            store.create("e"),
            store.delete("d", 1.0),
            store.set_title("d", "t"),
            store.list_documents(),
            store.describe("d"),
            store.beat(NODE),
            store.list_nodes(),
            store.leave("one"),
        ):
            with pytest.raises(StoreWentBack):
                await call
        batches = [Append("d", first.document_id, rows(b"3"))], [Append("new", None, rows(b"1"))]
        for batch in batches:
            for _ in range(2):
                with pytest.raises(StoreWentBack):
                    await store.append(batch)
        # The command line, and a server that has committed nothing, go on all the time.
        loaded = await other.load("d")
        assert loaded is not None and [row.data for row in loaded.rows] == [b"1", b"of another"]
        assert await other.load("new") is None
        await store.attend()
        assert (await put(store, "d", b"3", document_id=first.document_id))[1:] == (3, 3)
        assert await store.heads(["d"]) == {"d": Head(first.document_id, 3, False)}


@pytest.mark.parametrize("removed", ["all writers", "the number"])
async def test_a_server_that_has_written_nothing_recognises_it_too(store: SqlStore, removed: str) -> None:
    await store.attend()
    if removed == "the number":
        await put(store, "d", b"1")
        await run(store, "UPDATE writers SET batch = 0")
    else:
        await run(store, "DELETE FROM writers")
    with pytest.raises(StoreWentBack):
        await store.ping()
    with pytest.raises(StoreWentBack):
        await store.append([Append("d", None, rows(b"2"))])
    await store.attend()
    await store.ping()
    assert len(await run(store, "SELECT id FROM writers")) == 1, "the old row is gone"


async def test_a_server_that_only_reads_recognises_it_by_its_signs_of_life(store: SqlStore, backend: str) -> None:
    await store.attend()
    await keep(store)
    await store.beat(NODE)
    await go_back(store)
    if backend == "sqlite":
        await store.ping()  # nobody else can have written
        return
    with pytest.raises(StoreWentBack):
        await store.beat(NODE)
    await store.attend()
    await store.beat(NODE)


async def test_a_sign_of_life_says_nothing_of_a_batch_in_doubt(store: SqlStore) -> None:
    await store.attend()
    batch = [Append("d", None, rows(b"1"))]
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    await store.beat(NODE)
    (outcome,) = await store.append(batch)
    assert isinstance(outcome, Appended)
    await store.beat(NODE)
    await put(store, "d", b"2")
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"1", b"2"]


async def test_the_first_note_in_the_storage_loses_no_attempt(store: SqlStore) -> None:
    """A server that could not attend at its start does it later, between two attempts perhaps."""
    await put(store, "d", b"0")
    batch = [Append("d", None, rows(b"1"))]
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    await store.attend()
    (outcome,) = await store.append([Append("d", None, rows(b"2"))])
    assert isinstance(outcome, Appended)
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"0", b"1", b"2"]


async def test_a_repeat_that_meets_an_older_database_is_given_up_and_never_written(store: SqlStore) -> None:
    await store.attend()
    await put(store, "d", b"1")
    await keep(store)
    await put(store, "d", b"2")
    batch = [Append("d", None, rows(b"3"))]
    AmbiguousCommit(store).lose_answer()
    with pytest.raises(StoreUnavailable):
        await store.append(batch)
    old = store._backend.writer
    await go_back(store)
    with pytest.raises(StoreWentBack):
        await store.append(batch)
    await store.attend()
    # What a dead connection may have left behind in the server: an attempt under the old row.
    new, store._backend.writer = store._backend.writer, old
    with pytest.raises(StoreUnavailable):
        await store._backend.append(batch, old.batch + 1, False)
    store._backend.writer = new
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"1"]


async def test_a_call_that_began_before_the_database_was_taken_up_anew_is_only_late(store: SqlStore) -> None:
    await store.attend()
    real = store._backend.run

    async def late(function: Any, mode: Any) -> Any:
        store._backend.run = real  # type: ignore[method-assign]
        await run(store, "DELETE FROM writers")
        await store.attend()
        return await real(function, mode)

    store._backend.run = late  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable) as caught:
        await store.ping()
    assert not isinstance(caught.value, StoreWentBack)
    await store.ping()


async def test_the_row_of_a_server_that_writes_nothing_for_long_stays(store: SqlStore) -> None:
    await store.attend()
    await run(store, "UPDATE writers SET at = 1")
    await run(store, "INSERT INTO writers (id, batch, heads, at) VALUES ('gone', 1, '', 1)")
    await store.prune(before=0.0, limit=9)
    assert await run(store, "SELECT id FROM writers") == [(store._backend.writer.id,)]
    await store.ping()


async def test_servers_on_one_database_see_each_other(store: SqlStore, open_another: OpenStore, backend: str) -> None:
    shared = backend == "postgresql"
    async with open_another() as other, open_another() as command:
        await store.attend()
        await other.attend()
        await command.list_documents()
        await run(store, "INSERT INTO writers (id, batch, heads, at) VALUES ('killed', 7, '', 9e9)")
        assert [(await store.beat(NODE)).others, (await other.beat(NODE)).others] == [0, 0], "seen for the first time"
        assert [(await store.beat(NODE)).others, (await other.beat(NODE)).others] == [int(shared)] * 2
        await put(other, "d", b"1")
        assert (await store.beat(NODE)).others == int(shared), "a batch is a sign of life"
        assert (await store.beat(NODE)).others == 0, "nothing since"
