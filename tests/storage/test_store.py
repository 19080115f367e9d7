"""The conformance suite of the store port: every promise of ``collab.storage.store``, on every database."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import text

from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, StoreRefused, StoreUnavailable
from collab.storage import batch as batches
from collab.storage.sql import SqlStore
from collab.storage.store import Append, Appended, LogRow, NewRow, Snapshot
from tests.storage.conftest import OpenStore


def rows(*data: bytes, at: float = 1_700_000_000.25, author: str | None = None) -> tuple[NewRow, ...]:
    return tuple(NewRow(each, at, author) for each in data)


def snapshot(seq: int, at: float = 0.0) -> Snapshot:
    return Snapshot(seq, b"state %d" % seq, b"index %d" % seq, b"vector %d" % seq, at)


async def put(store: SqlStore, name: str, *data: bytes, document_id: int | None = None, at: float = 1.0) -> Appended:
    (outcome,) = await store.append([Append(name, document_id, rows(*data, at=at))])
    assert isinstance(outcome, Appended), outcome
    return outcome


async def run(store: SqlStore, statement: str) -> Any:
    """Run a statement of the test's own on the store's database."""

    def execute(connection: Any) -> Any:
        result = connection.execute(text(statement))
        return result.all() if result.returns_rows else None

    return await store._backend.run(execute, "write")


# Appending.


async def test_first_append_creates_the_document_and_numbers_from_one(store: SqlStore) -> None:
    assert await store.load("new") is None
    outcome = await put(store, "new", b"a", b"b")
    assert outcome[1:] == (1, 2)
    assert (await put(store, "new", b"c", document_id=outcome.document_id))[1:] == (3, 3)
    assert (await put(store, "new", b"d"))[:] == (outcome.document_id, 4, 4)
    loaded = await store.load("new")
    assert loaded is not None
    assert loaded.document.head_seq == 4
    assert [row.data for row in loaded.rows] == [b"a", b"b", b"c", b"d"]
    assert [row.seq for row in loaded.rows] == [1, 2, 3, 4]


async def test_rows_keep_bytes_time_and_author(store: SqlStore) -> None:
    every_byte = bytes(range(256))
    written = (
        NewRow(every_byte, 1_763_900_000.123456, "Ærin \U0001f98a"),
        NewRow(b"\x00\x00", 1_763_900_001.654321, None),
        NewRow(b"\xff", 1_763_900_002.0, ""),
        NewRow(b"\x00", 1_763_900_003.000001, "nul \x00 and \ud83d alone"),
    )
    await store.append([Append("exact", None, written)])
    loaded = await store.load("exact")
    assert loaded is not None
    assert loaded.rows == [LogRow(seq, *row) for seq, row in enumerate(written, 1)]
    assert loaded.document.created_at == written[0].at
    assert loaded.document.updated_at == written[3].at


async def test_names_are_told_apart_by_their_bytes(store: SqlStore) -> None:
    names = ["a", "A", "ä", "a\u0308", "a ", " a", "a\x00", "a\x00b", "notes/ä b", "%61", "\U0001f98a", "x" * 512]
    outcomes = await store.append([Append(name, None, rows(name.encode())) for name in names])
    assert len({outcome.document_id for outcome in outcomes if isinstance(outcome, Appended)}) == len(names)
    for name in names:
        loaded = await store.load(name)
        assert loaded is not None and loaded.rows[0].data == name.encode() and loaded.document.name == name
    listed = [summary.document.name for summary in await store.list_documents()]
    assert listed == sorted(names, key=str.encode)


async def test_entries_of_one_document_in_a_batch_keep_their_order(store: SqlStore) -> None:
    first = await put(store, "d", b"1")
    outcomes = await store.append(
        [
            Append("d", first.document_id, rows(b"2", b"3")),
            Append("other", None, rows(b"x")),
            Append("d", None, rows(b"4")),
            Append("d", first.document_id, rows(b"5")),
            Append("other", None, rows(b"y")),
        ]
    )
    assert [outcome[1:] for outcome in outcomes if isinstance(outcome, Appended)] == [
        (2, 3), (1, 1), (4, 4), (5, 5), (2, 2),
    ]  # fmt: skip
    assert [row.data for row in await store.rows_after(first.document_id, 0, 9)] == [b"1", b"2", b"3", b"4", b"5"]


async def test_batch_of_many_documents(store: SqlStore) -> None:
    # More than any one statement of the SQLite append holds, and not a round number of them.
    names = [f"document {number}" for number in range(347)]
    created = await store.append([Append(name, None, rows(name.encode())) for name in names])
    ids = [outcome.document_id for outcome in created if isinstance(outcome, Appended)]
    again = await store.append([Append(name, i, rows(b"second", b"third")) for name, i in zip(names, ids, strict=True)])
    assert again == [Appended(i, 2, 3) for i in ids]
    counted = await run(store, "SELECT count(*), count(DISTINCT document_id), max(seq) FROM log")
    assert tuple(counted[0]) == (347 * 3, 347, 3)


async def test_empty_batch_writes_nothing(store: SqlStore) -> None:
    assert await store.append([]) == []


async def test_two_stores_writing_at_once_leave_no_gap(store: SqlStore, open_another: OpenStore) -> None:
    names = [f"shared {number}" for number in range(7)]

    async def write(writer: SqlStore, mark: bytes, order: int) -> dict[str, list[tuple[int, bytes]]]:
        given: dict[str, list[tuple[int, bytes]]] = {name: [] for name in names}
        ids: dict[str, int] = {}
        for turn in range(40):
            batch = [
                Append(name, ids.get(name), rows(*(mark + b"%d.%d" % (turn, each) for each in range(1 + turn % 3))))
                for name in names[::order]
            ]
            while True:
                try:
                    outcomes = await writer.append(batch)
                    break
                except StoreUnavailable:  # SQLite: the other one had the lock too long on a busy machine
                    continue
            for entry, outcome in zip(batch, outcomes, strict=True):
                assert isinstance(outcome, Appended)
                ids[entry.name] = outcome.document_id
                numbers = range(outcome.first_seq, outcome.last_seq + 1)
                given[entry.name] += zip(numbers, (row.data for row in entry.rows), strict=True)
        return given

    async with open_another() as other:
        # In opposite orders, which would deadlock writers that lock as they go.
        first, second = await asyncio.gather(write(store, b"A", 1), write(other, b"B", -1))
    for name in names:
        loaded = await store.load(name)
        assert loaded is not None
        assert [(row.seq, row.data) for row in loaded.rows] == sorted(first[name] + second[name])
        assert [row.seq for row in loaded.rows] == list(range(1, loaded.document.head_seq + 1))
        # Both really wrote at once, not one after the other.
        assert {row.data[:1] for row in loaded.rows[:-1]} == {b"A", b"B"}


async def test_numbers_become_visible_in_order(store: SqlStore, open_another: OpenStore) -> None:
    first = await put(store, "seen", b"0")
    done = asyncio.Event()

    async def read(reader: SqlStore) -> int:
        looks = 0
        while not done.is_set():
            found = [row.seq for row in await reader.rows_after(first.document_id, 0, 10_000)]
            assert found == list(range(1, len(found) + 1))
            looks += 1
        return looks

    async def write() -> None:
        async with open_another() as other:
            for turn in range(30):
                await asyncio.gather(
                    put(store, "seen", b"%d" % turn, document_id=first.document_id),
                    put(other, "seen", b"%d" % turn, document_id=first.document_id),
                )
        done.set()

    async with open_another() as reader:
        looks, _ = await asyncio.gather(read(reader), write())
    assert looks > 0


# The ambiguous commit.


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


# Rows refused for good.


async def refuse_rows_with_poison(store: SqlStore) -> None:
    """Make the database itself refuse some rows."""
    if store._url.backend == "sqlite":
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
    assert "poison" not in str(outcomes[1]) or store._url.backend == "sqlite"  # there it is the trigger's own text
    # No gap is left where the refused rows would have been.
    assert (await put(store, "sick", b"5", document_id=sick.document_id)).first_seq == 2
    assert (await put(store, "healthy", b"3", document_id=first.document_id)).first_seq == 3


async def test_more_bytes_than_the_store_takes_are_refused(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr("collab.storage.sql.MAX_ROW_BYTES", 1000)
    good, bad = await store.append([Append("good", None, rows(b"x" * 1000)), Append("bad", None, rows(b"x" * 1001))])
    assert isinstance(good, Appended)
    assert isinstance(bad, StoreRefused) and "1001" in str(bad)
    with pytest.raises(StoreRefused):
        await store.create("bad 2", rows=rows(b"x" * 600, b"x" * 600))
    with pytest.raises(StoreRefused):
        await store.write_snapshot(good.document_id, Snapshot(1, b"x" * 1001, b"", b"", 0.0))


async def test_large_batch_is_written_document_by_document(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"collab.storage.{store._url.backend}.LARGE_BATCH_BYTES", 100)
    first = await put(store, "a", b"1")
    batch = [Append("a", first.document_id, rows(b"x" * 90)), Append("b", None, rows(b"y" * 90, b"z"))]
    one, two = await store.append(batch)
    assert one == Appended(first.document_id, 2, 2)
    assert isinstance(two, Appended) and two[1:] == (1, 2)
    assert [row.data for row in await store.rows_after(two.document_id, 0, 9)] == [b"y" * 90, b"z"]


async def test_large_row_comes_back_exactly(store: SqlStore) -> None:
    large = bytes(range(256)) * 80_000  # 20 MB
    outcome = await put(store, "large", large)
    await put(store, "large", b"small", document_id=outcome.document_id)
    assert await store.write_snapshot(outcome.document_id, Snapshot(1, large, b"", b"", 0.0))
    loaded = await store.load("large")
    assert loaded is not None and loaded.snapshot is not None
    assert loaded.snapshot.data == large
    assert [row.data for row in await store.rows_after(outcome.document_id, 0, 9)] == [large, b"small"]


async def test_name_that_is_not_unicode_is_refused_alone(store: SqlStore) -> None:
    bad, good = await store.append([Append("\ud83d", None, rows(b"1")), Append("good", None, rows(b"1"))])
    assert isinstance(bad, StoreRefused) and isinstance(good, Appended)


# Deleting and creating.


async def test_append_meets_the_tombstone(store: SqlStore, open_another: OpenStore) -> None:
    first = await put(store, "d", b"1")
    async with open_another() as other:
        await other.delete("d", 77.0)
    with_id, by_name, bystander = await store.append(
        [
            Append("d", first.document_id, rows(b"2")),
            Append("d", None, rows(b"3")),
            Append("bystander", None, rows(b"1")),
        ]
    )
    assert isinstance(with_id, DocumentDeleted) and isinstance(by_name, DocumentDeleted)
    assert isinstance(bystander, Appended)
    with pytest.raises(DocumentDeleted):
        await store.load("d")
    with pytest.raises(DocumentDeleted):
        await store.describe("d")
    assert await store.rows_after(first.document_id, 0, 9) == []
    assert [summary.document.name for summary in await store.list_documents()] == ["bystander"]
    assert not await store.write_snapshot(first.document_id, snapshot(1))


async def test_deleting_what_is_not_there(store: SqlStore) -> None:
    with pytest.raises(DocumentNotFound):
        await store.delete("never", 1.0)
    await put(store, "d", b"1")
    await store.delete("d", 1.0)
    with pytest.raises(DocumentNotFound):
        await store.delete("d", 2.0)
    with pytest.raises(DocumentNotFound):
        await store.describe("never")


async def test_created_anew_the_old_id_stays_dead(store: SqlStore, open_another: OpenStore) -> None:
    old = await put(store, "d", b"old")
    await store.delete("d", 2.0)
    async with open_another() as command_line:
        new = await command_line.create("d", gc=False, rows=rows(b"new 1", b"new 2"))
    assert new.id != old.document_id and new.head_seq == 2 and not new.gc
    by_old_id, by_name = await store.append(
        [Append("d", old.document_id, rows(b"ghost")), Append("d", None, rows(b"new 3"))]
    )
    assert isinstance(by_old_id, DocumentDeleted)
    assert by_name == Appended(new.id, 3, 3)
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"new 1", b"new 2", b"new 3"]
    assert not loaded.document.gc


async def test_ids_are_never_given_twice(store: SqlStore) -> None:
    old = await put(store, "d", b"1")
    await store.delete("d", 1.0)
    middle = await store.create("d")
    await store.delete("d", 2.0)
    while await store.prune(before=100.0, limit=10):
        pass
    new = await store.create("d")
    assert len({old.document_id, middle.id, new.id}) == 3
    assert new.id > middle.id > old.document_id


async def test_creating_what_lives_is_refused(store: SqlStore, open_another: OpenStore) -> None:
    await store.create("d")
    with pytest.raises(DocumentExists):
        await store.create("d")
    async with open_another() as other:
        results = await asyncio.gather(
            *(each.create("race") for each in (store, other, store, other)), return_exceptions=True
        )
    assert sum(isinstance(result, DocumentExists) for result in results) == 3


async def test_deleting_while_others_append_leaves_nothing_behind_the_tombstone(
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


# Snapshots.


async def test_snapshot_is_kept_only_if_newer(store: SqlStore) -> None:
    first = await put(store, "d", *[b"%d" % number for number in range(1, 11)])
    assert await store.write_snapshot(first.document_id, snapshot(4))
    assert not await store.write_snapshot(first.document_id, snapshot(4))
    assert not await store.write_snapshot(first.document_id, snapshot(3))
    assert await store.write_snapshot(first.document_id, snapshot(8, at=123.5))
    assert not await store.write_snapshot(first.document_id, snapshot(11)), "there is no row 11"
    loaded = await store.load("d")
    assert loaded is not None
    assert loaded.snapshot == snapshot(8, at=123.5)
    assert [row.seq for row in loaded.rows] == [9, 10]


async def test_snapshots_written_at_once_by_two_nodes(store: SqlStore, open_another: OpenStore) -> None:
    first = await put(store, "d", b"1", b"2", b"3")
    async with open_another() as other:
        kept = await asyncio.gather(
            *(each.write_snapshot(first.document_id, snapshot(3)) for each in (store, other, store, other))
        )
    assert sum(kept) == 1


async def test_long_tail_is_read_whole_and_in_order(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.storage.sql.PAGE_ROWS", 7)
    data = [b"%d" % number for number in range(50)]
    first = await put(store, "d", *data)
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == data
    assert [row.seq for row in await store.rows_after(first.document_id, 3, 15)] == list(range(4, 19))
    assert [row.seq for row in await store.rows_after(first.document_id, 49, 15)] == [50]


# Pruning.


async def test_pruning_keeps_every_state_within_history(store: SqlStore) -> None:
    first = await put(store, "d", b"1", at=1.0)
    document_id = first.document_id
    for number in range(2, 41):
        await put(store, "d", b"%d" % number, document_id=document_id, at=float(number))
    for number in (5, 12, 20, 31):
        assert await store.write_snapshot(document_id, snapshot(number, at=float(number)))

    async def rebuilt(seq: int) -> bool:
        found = await store.load_at(document_id, seq)
        if found is None:
            return False
        base, tail = found
        assert [row.seq for row in tail] == list(range((base.seq if base else 0) + 1, seq + 1))
        assert [row.data for row in tail] == [b"%d" % row.seq for row in tail]
        return True

    assert [await rebuilt(seq) for seq in range(1, 42)] == [True] * 40 + [False]
    # Row 24 is the last before 25.0: its state needs snapshot 20 and rows 21 and on.
    removed = 0
    while portion := await store.prune(before=25.0, limit=6):
        assert portion <= 6
        removed += portion
    assert removed == 20 + 2
    assert [seq for seq in range(1, 41) if await rebuilt(seq)] == list(range(20, 41))
    assert await store.prune(before=25.0, limit=6) == 0
    summary = await store.describe("d")
    assert (summary.log_rows, summary.tail_rows, summary.snapshot_seq) == (20, 9, 31)
    # Everything is old: what opening needs stays.
    while await store.prune(before=1e9, limit=1000):
        pass
    loaded = await store.load("d")
    assert loaded is not None and loaded.snapshot == snapshot(31, at=31.0)
    assert [row.seq for row in loaded.rows] == list(range(32, 41))


async def test_pruning_leaves_a_document_without_snapshot_alone(store: SqlStore) -> None:
    await put(store, "d", b"1", b"2", at=1.0)
    assert await store.prune(before=1e9, limit=100) == 0
    loaded = await store.load("d")
    assert loaded is not None and len(loaded.rows) == 2


async def test_pruning_goes_round_many_documents(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.storage.sql.PRUNE_PAGE", 3)
    for number in range(10):
        outcome = await put(store, f"d{number}", b"1", b"2", b"3", at=1.0)
        await store.write_snapshot(outcome.document_id, snapshot(2))
    portions = []
    while portion := await store.prune(before=1e9, limit=7):
        portions.append(portion)
    assert portions == [7, 7, 6]
    # The end was reached: documents at the beginning are looked at again.
    outcome = await put(store, "d0", b"4", at=1.0)
    await store.write_snapshot(outcome.document_id, snapshot(4))
    assert await store.prune(before=1e9, limit=7) == 3


async def test_pruning_removes_the_content_of_deleted_documents(store: SqlStore) -> None:
    first = await put(store, "d", b"1", b"2", b"3", at=1e12)
    await store.write_snapshot(first.document_id, snapshot(2, at=1e12))
    await store.delete("d", 1e12)
    assert await store.prune(before=0.0, limit=2) == 2
    assert await store.prune(before=0.0, limit=10) == 2
    assert await store.prune(before=0.0, limit=10) == 0
    assert tuple((await run(store, "SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM snapshots)"))[0]) == (0, 0)
    with pytest.raises(DocumentDeleted):
        await store.load("d")
    # A tombstone that gave its name away goes with its content.
    await store.create("d")
    await store.prune(before=0.0, limit=10)
    assert len(await run(store, "SELECT id FROM documents")) == 1


# Listing.


async def test_a_title_is_listed_and_changes_nothing_else(store: SqlStore) -> None:
    await put(store, "a", b"123", at=5.0)
    before = (await store.describe("a")).document
    await store.set_title("a", "Ærin \U0001f98a")
    after = (await store.describe("a")).document
    assert after.title == "Ærin \U0001f98a"
    assert dataclasses.replace(after, title=None) == before
    await store.set_title("a", None)
    assert [summary.document for summary in await store.list_documents()] == [before]
    with pytest.raises(DocumentNotFound):
        await store.set_title("none", "x")
    await store.delete("a", 9.0)
    with pytest.raises(DocumentDeleted):
        await store.set_title("a", "x")


async def test_listing_pages_prefixes_and_sizes(store: SqlStore) -> None:
    for name in ("a", "b/1", "b/2", "b/\U0001f98a", "b0", "c"):
        await put(store, name, b"123", b"45678")
    two = (await store.describe("b/2")).document
    await store.write_snapshot(two.id, snapshot(1, at=9.0))
    first = await store.list_documents(limit=4)
    assert [summary.document.name for summary in first] == ["a", "b/1", "b/2", "b/\U0001f98a"]
    rest = await store.list_documents(after=first[-1].document.name, limit=4)
    assert [summary.document.name for summary in rest] == ["b0", "c"]
    under_b = await store.list_documents(prefix="b/")
    assert [summary.document.name for summary in under_b] == ["b/1", "b/2", "b/\U0001f98a"]
    assert await store.list_documents(prefix="b/", after="b/\U0001f98a") == []
    plain, covered = under_b[0], under_b[1]
    assert (plain.snapshot_seq, plain.snapshot_bytes, plain.tail_rows, plain.tail_bytes, plain.log_rows) == (
        0,
        0,
        2,
        8,
        2,
    )
    assert plain.snapshot_at is None
    assert (covered.snapshot_seq, covered.snapshot_bytes, covered.snapshot_at) == (1, len(b"state 1"), 9.0)
    assert (covered.tail_rows, covered.tail_bytes, covered.log_rows) == (1, 5, 2)
    assert await store.describe("b/2") == covered


async def test_created_document_without_rows(store: SqlStore) -> None:
    created = await store.create("empty")
    loaded = await store.load("empty")
    assert loaded is not None and loaded.document == created and loaded.snapshot is None and loaded.rows == []
    summary = await store.describe("empty")
    assert (summary.log_rows, summary.tail_rows, summary.tail_bytes) == (0, 0, 0)
    await store.ping()
