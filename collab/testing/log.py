"""The tests of the log: numbers, order, the ambiguous commit, refusals, snapshots, pruning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from collab.errors import DocumentDeleted, StoreRefused
from collab.storage.checksums import damaged_rows, seal_row
from collab.storage.membership import Node
from collab.storage.records import (
    MAX_ROW_BYTES,
    Append,
    Appended,
    AppendOutcome,
    CallKey,
    Head,
    LogRow,
    NewRow,
    Snapshot,
)
from collab.storage.store import Store
from collab.testing.storage import (
    AT,
    SECONDS,
    Moments,
    OnStorage,
    OpenStore,
    data_of,
    pruned,
    put,
    rows,
    snapshot,
    written,
)


class LogConformance(OnStorage):
    """The promise of :class:`collab.storage.log.Log`. Run it as a part of ``StoreConformance``."""

    # A row behind a known one.

    async def test_a_row_is_written_behind_a_known_one_alone(self, store: Store, open_store: OpenStore) -> None:
        document_id = (await put(store, "d", b"a")).document_id
        made = NewRow(b"b", AT + 5, "Ærin", 7)
        assert not await store.append_next(document_id, 0, made)
        assert not await store.append_next(document_id, 2, made)
        assert not await store.append_next(document_id + 1000, 1, made)
        assert await store.append_next(document_id, 1, made)
        assert not await store.append_next(document_id, 1, made)
        async with open_store() as other:
            assert (await put(other, "d", b"c", document_id=document_id))[1:] == (3, 3)
        loaded = await store.load("d")
        assert loaded is not None and loaded.document.head_seq == 3
        assert loaded.rows[1] == LogRow(2, b"b", AT + 5, "Ærin", 7)
        assert (await store.heads(["d"]))["d"].seq == 3
        await store.delete("d", AT + 9)
        assert not await store.append_next(document_id, 3, made)

    async def test_the_time_of_a_row_behind_a_known_one_counts(self, store: Store) -> None:
        document_id = (await put(store, "d", b"a")).document_id
        before = (await store.describe("d")).document.updated_at
        assert await store.append_next(document_id, 1, NewRow(b"b", before - 10))
        assert (await store.describe("d")).document.updated_at == before
        assert await store.append_next(document_id, 2, NewRow(b"c", before + 10))
        assert (await store.describe("d")).document.updated_at == before + 10

    async def test_of_those_who_write_behind_one_row_one_does(self, store: Store, open_store: OpenStore) -> None:
        document_id = (await put(store, "d", b"a")).document_id
        async with open_store() as other, open_store() as third:
            for seq in range(1, 6):
                rows_of_all = [(one, NewRow(b"%d" % at, AT)) for at, one in enumerate((store, other, third))]
                tries = [one.append_next(document_id, seq, row) for one, row in rows_of_all]
                assert sorted(await asyncio.gather(*tries)) == [False, False, True]
        assert [row.seq for row in await store.rows_after(document_id, 0, 100)] == list(range(1, 7))

    async def test_a_row_behind_a_known_one_may_be_too_large(self, store: Store) -> None:
        document_id = (await put(store, "d", b"a")).document_id
        with pytest.raises(StoreRefused):
            await store.append_next(document_id, 1, NewRow(bytes(MAX_ROW_BYTES + 1), AT))
        assert (await store.heads(["d"]))["d"].seq == 1

    # Appending.

    async def test_first_append_creates_the_document_and_numbers_from_one(self, store: Store) -> None:
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

    async def test_rows_keep_bytes_time_and_author(self, store: Store) -> None:
        made = (
            NewRow(bytes(range(256)), 1_763_900_000.123456, "Ærin \U0001f98a"),
            NewRow(b"\x00\x00", 1_763_900_001.654321, None),
            NewRow(b"\xff", 1_763_900_002.0, ""),
            NewRow(b"\x00", 1_763_900_003.000001, "nul \x00 and \ud83d alone"),
        )
        await store.append([Append("exact", None, made)])
        loaded = await store.load("exact")
        assert loaded is not None
        assert loaded.rows == [LogRow(seq, *row) for seq, row in enumerate(made, 1)]
        assert loaded.document.created_at == made[0].at
        assert loaded.document.updated_at == made[3].at
        assert await store.rows_after(loaded.document.id, 0, 9) == loaded.rows
        assert await store.load_at(loaded.document.id, 4) == (None, loaded.rows)

    async def test_entries_of_one_document_in_a_batch_keep_their_order(self, store: Store) -> None:
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
        assert _numbers(outcomes) == [(2, 3), (1, 1), (4, 4), (5, 5), (2, 2)]
        assert await data_of(store, "d") == [b"1", b"2", b"3", b"4", b"5"]
        assert await data_of(store, "other") == [b"x", b"y"]

    async def test_batch_of_many_documents(self, store: Store) -> None:
        # More than a round number, for stores that write so and so many with one statement.
        names = [f"document {number}" for number in range(347)]
        created = await store.append([Append(name, None, rows(name.encode())) for name in names])
        assert _numbers(created) == [(1, 1)] * len(names)
        ids = [outcome.document_id for outcome in created if isinstance(outcome, Appended)]
        assert len(set(ids)) == len(names)
        again = await store.append(
            [Append(name, i, rows(b"second", b"third")) for name, i in zip(names, ids, strict=True)]
        )
        assert again == [Appended(i, 2, 3) for i in ids]
        for name in names:
            assert await data_of(store, name) == [name.encode(), b"second", b"third"]

    async def test_empty_batch_writes_nothing(self, store: Store) -> None:
        assert await store.append([]) == []
        assert await store.list_documents() == []

    async def test_an_id_that_no_document_has_is_met_as_deleted(self, store: Store) -> None:
        known = await put(store, "known", b"1")
        lost, kept = await store.append(
            [
                Append("unknown", known.document_id + 1_000_000, rows(b"1")),
                Append("known", known.document_id, rows(b"2")),
            ]
        )
        assert isinstance(lost, DocumentDeleted)
        assert kept == Appended(known.document_id, 2, 2)
        assert await store.load("unknown") is None
        assert await store.rows_after(known.document_id + 1_000_000, 0, 9) == []
        assert await store.load_at(known.document_id + 1_000_000, 1) is None

    async def test_rows_are_read_from_a_number_on(self, store: Store) -> None:
        first = await put(store, "d", b"1", b"2", b"3", b"4", b"5")
        found = [await store.rows_after(first.document_id, seq, limit) for seq, limit in [(0, 2), (2, 9), (4, 1)]]
        assert [[row.seq for row in each] for each in found] == [[1, 2], [3, 4, 5], [5]]
        assert await store.rows_after(first.document_id, 5, 9) == []
        assert await store.rows_after(first.document_id, 77, 9) == []

    async def test_heads_tell_where_logs_stand(self, store: Store, open_store: OpenStore) -> None:
        first, gone = await put(store, "ä", b"1", b"2"), await put(store, "gone", b"1")
        empty = await store.create("empty")
        assert await store.heads([]) == {}
        async with open_store() as other:
            await put(other, "ä", b"3", document_id=first.document_id)
            assert await other.delete("gone", 1.0) == gone.document_id
        assert await store.heads(["gone", "never", "ä", "empty"]) == {
            "ä": Head(first.document_id, 3, False),
            "gone": Head(gone.document_id, 1, True),
            "empty": Head(empty.id, 0, False),
        }
        again = await store.create("gone", rows=rows(b"new"))
        assert await store.heads(["gone"]) == {"gone": Head(again.id, 1, False)}

    async def test_heads_of_many_documents_in_one_look(self, store: Store) -> None:
        names = [f"document {number}" for number in range(700)]
        await store.append([Append(name, None, rows(name.encode())) for name in names])
        heads = await store.heads(names)
        assert set(heads) == set(names)
        assert {head.seq for head in heads.values()} == {1} and not any(head.deleted for head in heads.values())

    async def test_attending_takes_nothing_from_an_append(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        for number in range(2, 5):
            await store.attend()
            assert (await put(store, "d", b"%d" % number, document_id=first.document_id))[1:] == (number, number)
        assert await store.heads(["d"]) == {"d": Head(first.document_id, 4, False)}
        assert await data_of(store, "d") == [b"1", b"2", b"3", b"4"]

    async def test_a_change_by_another_store_is_worth_a_look(self, store: Store, open_store: OpenStore) -> None:
        await store.attend()
        first = await put(store, "d", b"1")
        async with open_store() as other:
            await store.changed()
            await put(other, "d", b"2", document_id=first.document_id)
            assert await store.changed()
            await other.delete("d", 1.0)
            assert await store.changed()

    async def test_a_log_that_nobody_has_touched_has_no_gap(self, store: Store) -> None:
        first = await put(store, "d", *[b"%d" % number for number in range(20)], at=AT)
        empty = await store.create("empty")
        ids = [first.document_id, empty.id, first.document_id + 1_000]
        assert await store.find_gaps(ids) == set() == await store.find_gaps([])
        await store.write_snapshot(first.document_id, snapshot(12))
        assert await store.find_gaps(ids) == set()
        await store.write_snapshot(first.document_id, snapshot(16))
        assert await pruned(store, before=AT + 1, limit=100) > 0
        assert await store.find_gaps(ids) == set()

    async def test_pruning_spares_documents_that_are_named(self, store: Store) -> None:
        first, other = [await put(store, name, b"1", b"2", b"3", at=AT) for name in ("d", "other")]
        for outcome in (first, other):
            await store.write_snapshot(outcome.document_id, snapshot(2))
            await store.write_snapshot(outcome.document_id, snapshot(3))
        while await store.prune(before=AT + 1, limit=10, spare={first.document_id}):
            pass
        assert len(await store.rows_after(first.document_id, 0, 9)) == 3
        assert [row.seq for row in await store.rows_after(other.document_id, 0, 9)] == [3]
        assert await pruned(store, before=AT + 1, limit=10) == 2

    async def test_long_tail_is_read_whole_and_in_order(self, store: Store) -> None:
        data = [b"%d" % number for number in range(2_345)]
        first = await put(store, "d", *data)
        assert await data_of(store, "d") == data
        found = await store.rows_after(first.document_id, 3, 1_500)
        assert [(row.seq, row.data) for row in found] == [(seq, data[seq - 1]) for seq in range(4, 1_504)]
        assert [row.seq for row in await store.rows_after(first.document_id, 2_344, 15)] == [2_345]

    async def test_large_row_comes_back_exactly(self, store: Store) -> None:
        large = bytes(range(256)) * 80_000  # 20 MB
        outcome = await put(store, "large", large)
        await put(store, "large", b"small", document_id=outcome.document_id)
        assert await store.write_snapshot(outcome.document_id, Snapshot(1, large, b"", b"", 0.0))
        loaded = await store.load("large")
        assert loaded is not None and loaded.snapshot is not None
        # Compared first: nobody reads twenty megabytes of difference.
        same = loaded.snapshot.data == large
        assert same
        found = await store.rows_after(outcome.document_id, 0, 9)
        same = [row.data for row in found] == [large, b"small"]
        assert same

    # Durable, and the same for every store on the storage.

    async def test_what_was_returned_for_is_there_for_a_store_that_is_opened_later(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            first = await put(store, "d", b"1", b"2")
            await put(store, "d", b"3", document_id=first.document_id)
            await store.write_snapshot(first.document_id, snapshot(2))
            await put(store, "gone", b"1")
            await store.delete("gone", 1.0)
            await store.set_title("d", "title")
            created = await store.create("created", gc=False)
        async with open_store() as store:
            loaded = await store.load("d")
            assert loaded is not None and loaded.snapshot == snapshot(2)
            assert [(row.seq, row.data) for row in loaded.rows] == [(3, b"3")]
            assert loaded.document.title == "title"
            with pytest.raises(DocumentDeleted):
                await store.load("gone")
            assert (await store.describe("created")).document == created
            assert (await put(store, "d", b"4"))[:] == (first.document_id, 4, 4)

    async def test_what_one_store_was_told_another_one_reads(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as other:
            for number in range(20):
                await put(store if number % 2 else other, "d", b"%d" % number)
                reader = other if number % 2 else store
                assert await data_of(reader, "d") == [b"%d" % each for each in range(number + 1)]

    async def test_two_stores_writing_at_once_leave_no_gap(self, store: Store, open_store: OpenStore) -> None:
        names = [f"shared {number}" for number in range(7)]

        async def write(writer: Store, mark: bytes, order: int) -> dict[str, list[tuple[int, bytes]]]:
            given: dict[str, list[tuple[int, bytes]]] = {name: [] for name in names}
            ids: dict[str, int] = {}
            for turn in range(40):
                batch = [
                    Append(name, ids.get(name), rows(*(mark + b"%d.%d" % (turn, each) for each in range(1 + turn % 3))))
                    for name in names[::order]
                ]
                for entry, outcome in zip(batch, await written(writer, batch), strict=True):
                    assert isinstance(outcome, Appended)
                    ids[entry.name] = outcome.document_id
                    numbers = range(outcome.first_seq, outcome.last_seq + 1)
                    given[entry.name] += zip(numbers, (row.data for row in entry.rows), strict=True)
            return given

        async with open_store() as other, asyncio.timeout(SECONDS):
            # In opposite orders, in which writers that lock as they go wait for each other.
            first, second = await asyncio.gather(write(store, b"A", 1), write(other, b"B", -1))
        for name in names:
            loaded = await store.load(name)
            assert loaded is not None
            assert [(row.seq, row.data) for row in loaded.rows] == sorted(first[name] + second[name])
            assert [row.seq for row in loaded.rows] == list(range(1, loaded.document.head_seq + 1))
            # Both really wrote at once, not one after the other.
            assert {row.data[:1] for row in loaded.rows[:-1]} == {b"A", b"B"}

    async def test_numbers_become_visible_in_order(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "seen", b"0")
        done = asyncio.Event()

        async def read(reader: Store) -> int:
            looks = 0
            while not done.is_set():
                found = [row.seq for row in await reader.rows_after(first.document_id, 0, 10_000)]
                assert found == list(range(1, len(found) + 1))
                looks += 1
            return looks

        async def write() -> None:
            try:
                async with open_store() as other:
                    for turn in range(30):
                        await asyncio.gather(
                            put(store, "seen", b"%d" % turn, document_id=first.document_id),
                            put(other, "seen", b"%d" % turn, document_id=first.document_id),
                        )
            finally:
                done.set()

        async with open_store() as reader:
            looks, _ = await asyncio.gather(read(reader), write())
        assert looks > 0

    async def test_loading_sees_one_instant(self, store: Store, open_store: OpenStore) -> None:
        document_id = (await put(store, "d", b"0", at=1.0)).document_id
        done = asyncio.Event()

        async def read(reader: Store) -> int:
            looks = 0
            while not done.is_set():
                loaded = await reader.load("d")
                assert loaded is not None
                base = loaded.snapshot.seq if loaded.snapshot else 0
                assert [row.seq for row in loaded.rows] == list(range(base + 1, loaded.document.head_seq + 1))
                looks += 1
            return looks

        async def write() -> None:
            try:
                for number in range(2, 40):
                    await put(store, "d", b"%d" % number, document_id=document_id, at=1.0)
                    if number % 3 == 0:
                        assert await store.write_snapshot(document_id, snapshot(number, at=1.0))
                        await store.prune(before=2.0, limit=2)
            finally:
                done.set()

        async with open_store() as reader:
            looks, _ = await asyncio.gather(read(reader), write())
        assert looks > 0

    # The ambiguous commit.

    async def test_repeat_of_an_append_that_was_cut_off_writes_once(self, store: Store) -> None:
        moments = await Moments.measure(store)
        known = await put(store, "known", b"first")
        cut = 0
        for number in range(len(moments)):
            batch = [
                Append("known", known.document_id, rows(b"%d" % number)),
                Append(f"fresh {number}", None, rows(b"1", b"2")),
            ]
            outcomes = await moments.cut_off(store, batch, number)
            if outcomes is None:
                cut += 1
                outcomes = await written(store, batch)
            assert _numbers(outcomes) == [(number + 2, number + 2), (1, 2)]
        assert cut > 0
        assert await data_of(store, "known") == [b"first", *(b"%d" % number for number in range(len(moments)))]
        for number in range(len(moments)):
            assert await data_of(store, f"fresh {number}") == [b"1", b"2"]

    async def test_repeat_gives_the_outcomes_of_the_first_time(self, store: Store, open_store: OpenStore) -> None:
        moments = await Moments.measure(store)
        known = await put(store, "known", b"first")
        gone = await put(store, "gone", b"1")
        await store.delete("gone", 5.0)
        async with open_store() as other:
            for number in range(len(moments)):
                data = b"%d" % number
                batch = [
                    Append("known", known.document_id, rows(data + b" a", data + b" b")),
                    Append("gone", gone.document_id, rows(b"2")),
                    Append("\ud83d", None, rows(b"no name")),
                    Append("known", None, rows(data + b" c")),
                ]
                outcomes = await moments.cut_off(store, batch, number)
                # Another node writes before the repeat: the numbers must be those of the rows all the same.
                await put(other, "known", b"between", document_id=known.document_id)
                if outcomes is None:
                    outcomes = await written(store, batch)
                first, deleted, refused, second = outcomes
                assert isinstance(deleted, DocumentDeleted) and isinstance(refused, StoreRefused)
                assert isinstance(first, Appended) and isinstance(second, Appended)
                assert (first.last_seq, second.last_seq) == (first.first_seq + 1, second.first_seq)
                found = await store.rows_after(known.document_id, first.first_seq - 1, 3)
                assert [row.data for row in found] == [data + b" a", data + b" b", data + b" c"]
                assert [row.seq for row in found] == [first.first_seq, first.last_seq, second.first_seq]
        assert len(await data_of(store, "known")) == 1 + 4 * len(moments)

    async def test_append_that_is_given_up_was_written_once_or_not_at_all(self, store: Store) -> None:
        moments = await Moments.measure(store)
        one = await put(store, "one", b"first")
        two = await put(store, "two", b"first")
        answered: list[bool] = []
        for number in range(len(moments)):
            data = b"%d" % number
            batch = [
                Append("one", one.document_id, rows(data + b" a")),
                Append("two", two.document_id, rows(data + b" b", data + b" c")),
                Append("one", one.document_id, rows(data + b" d")),
            ]
            answered.append(await moments.cut_off(store, batch, number) is not None)
            await put(store, "one", data + b" next", document_id=one.document_id)
        # What was left behind would come now at the latest.
        await moments.wait(len(moments) - 1)
        of_one, of_two = await data_of(store, "one"), await data_of(store, "two")
        expected_of_one, expected_of_two = [b"first"], [b"first"]
        for number, must_be_there in enumerate(answered):
            data = b"%d" % number
            if must_be_there or data + b" b" in of_two:
                expected_of_one += [data + b" a", data + b" d"]
                expected_of_two += [data + b" b", data + b" c"]
            expected_of_one.append(data + b" next")
        assert (of_one, of_two) == (expected_of_one, expected_of_two)

    async def test_equal_batch_that_is_another_object_is_written_again(self, store: Store) -> None:
        moments = await Moments.measure(store)
        count = 0
        for number in range(len(moments)):
            outcomes = await moments.cut_off(store, [Append("d", None, rows(b"same"))], number)
            await written(store, [Append("d", None, rows(b"same"))])
            found = len(await data_of(store, "d")) - count
            assert found == 2 if outcomes is not None else found in (1, 2)
            count += found

    async def test_any_call_may_be_cancelled(self, store: Store) -> None:
        moments = await Moments.measure(store)
        first = await put(store, "d", b"1", b"2", b"3", at=1.0)
        for number in range(len(moments)):
            calls: list[Callable[[], Awaitable[object]]] = [
                store.ping,
                lambda: store.load("d"),
                lambda: store.rows_after(first.document_id, 0, 9),
                lambda: store.load_at(first.document_id, 2),
                lambda: store.write_snapshot(first.document_id, snapshot(2)),
                lambda number=number: store.create(f"created {number}"),  # type: ignore[misc]
                lambda: store.list_documents(),
                lambda: store.describe("d"),
                lambda: store.set_title("d", "title"),
                lambda: store.prune(before=0.0, limit=1),
                store.list_trash,
                lambda number=number: store.begin_call(CallKey(bytes([number]) * 32, "t" * 32), b"r" * 32),  # type: ignore[misc]
                lambda: store.replace_skeleton("d", None, b"s"),
                lambda: store.beat(Node("node", "", "1", "process", "{}", 0, 0, 5.0)),
                store.list_nodes,
                lambda: store.note_damage(first.document_id + 1_000_000, rows=[1]),
            ]
            running = [asyncio.ensure_future(call()) for call in calls]
            await moments.wait(number)
            for task in running:
                task.cancel()
            for result in await asyncio.gather(*running, return_exceptions=True):
                assert result is None or not isinstance(result, Exception), result
        async with asyncio.timeout(SECONDS):
            await store.ping()
            assert (await put(store, "d", b"4")).first_seq == 4
            assert [row.data for row in await store.rows_after(first.document_id, 2, 9)] == [b"3", b"4"]

    # Rows refused for good.

    async def test_row_larger_than_a_store_takes_costs_only_its_document(self, store: Store) -> None:
        healthy = await put(store, "healthy", b"1")
        sick = await put(store, "sick", b"1")
        # Zeros that nobody reads take no memory.
        outcomes = await store.append(
            [
                Append("healthy", healthy.document_id, rows(b"2")),
                Append("sick", sick.document_id, rows(b"2")),
                Append("sick", sick.document_id, rows(b"3", bytes(MAX_ROW_BYTES + 1))),
                Append("sick", sick.document_id, rows(b"4")),
                Append("newcomer", None, rows(b"1")),
            ]
        )
        assert outcomes[0] == Appended(healthy.document_id, 2, 2)
        assert all(isinstance(outcome, StoreRefused) for outcome in outcomes[1:4]), outcomes[1:4]
        assert isinstance(outcomes[4], Appended)
        # No gap is left where the refused rows would have been.
        assert (await put(store, "sick", b"5", document_id=sick.document_id)).first_seq == 2
        assert (await put(store, "healthy", b"3", document_id=healthy.document_id)).first_seq == 3
        assert await data_of(store, "sick") == [b"1", b"5"]

    async def test_name_that_is_not_unicode_is_refused_alone(self, store: Store) -> None:
        bad, good = await store.append([Append("\ud83d", None, rows(b"1")), Append("good", None, rows(b"1"))])
        assert isinstance(bad, StoreRefused) and isinstance(good, Appended)

    # Snapshots.

    async def test_snapshot_is_kept_only_if_newer(self, store: Store) -> None:
        first = await put(store, "d", *[b"%d" % number for number in range(1, 11)])
        assert await store.write_snapshot(first.document_id, snapshot(4))
        assert not await store.write_snapshot(first.document_id, snapshot(4))
        assert not await store.write_snapshot(first.document_id, snapshot(3))
        assert await store.write_snapshot(first.document_id, snapshot(8, at=123.5))
        assert not await store.write_snapshot(first.document_id, snapshot(11)), "there is no row 11"
        assert not await store.write_snapshot(first.document_id + 1_000_000, snapshot(1))
        loaded = await store.load("d")
        assert loaded is not None
        assert loaded.snapshot == snapshot(8, at=123.5)
        assert [row.seq for row in loaded.rows] == [9, 10]

    async def test_snapshot_keeps_its_bytes(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        every_byte = bytes(range(256))
        exact = Snapshot(1, every_byte, every_byte[::-1], b"\x00", 1_763_900_000.25)
        assert await store.write_snapshot(first.document_id, exact)
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot == exact and loaded.rows == []
        assert await store.load_at(first.document_id, 1) == (exact, [])

    async def test_snapshots_written_at_once_by_two_nodes(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"1", b"2", b"3")
        async with open_store() as other:
            kept = await asyncio.gather(
                *(each.write_snapshot(first.document_id, snapshot(3)) for each in (store, other, store, other))
            )
        assert sum(kept) == 1

    async def test_one_store_at_a_time_claims_a_snapshot(self, store: Store, open_store: OpenStore) -> None:
        first, second = await put(store, "d", b"1"), await put(store, "other", b"1")
        async with asyncio.timeout(SECONDS), open_store() as other:
            async with store.claim_snapshot(first.document_id) as mine:
                assert mine
                async with other.claim_snapshot(first.document_id) as theirs:
                    assert not theirs
                async with other.claim_snapshot(second.document_id) as theirs:
                    assert theirs
                # It hinders nobody.
                assert (await put(other, "d", b"2")).first_seq == 2
                assert await other.write_snapshot(first.document_id, snapshot(1))
            async with other.claim_snapshot(first.document_id) as theirs:
                assert theirs

    async def test_a_claim_ends_with_its_block_however_that_ends(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"1")

        async def work(began: asyncio.Event) -> None:
            async with store.claim_snapshot(first.document_id) as mine:
                assert mine
                began.set()
                await asyncio.sleep(SECONDS)

        async with asyncio.timeout(SECONDS), open_store() as other:
            with pytest.raises(ZeroDivisionError):
                async with store.claim_snapshot(first.document_id):
                    raise ZeroDivisionError
            began = asyncio.Event()
            working = asyncio.ensure_future(work(began))
            waiting = asyncio.ensure_future(began.wait())
            await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if working.done():
                await working  # nobody has the claim, and it was refused
            working.cancel()
            await asyncio.wait([working])
            async with other.claim_snapshot(first.document_id) as theirs:
                assert theirs

    async def test_snapshot_larger_than_a_store_takes_is_refused(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        with pytest.raises(StoreRefused):
            await store.write_snapshot(first.document_id, Snapshot(1, bytes(MAX_ROW_BYTES + 1), b"", b"", 0.0))
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot is None

    # Checksums.

    async def test_checksums_are_kept_as_they_are_given(self, store: Store) -> None:
        made = (
            NewRow(b"1", 1.0, "author", 0),
            NewRow(b"2", 2.0, None, None),
            NewRow(b"3", 3.0, None, 2**32 - 1),
            NewRow(b"4", 4.0, None, 2**62),
        )
        first = await put(store, "d", b"0")
        (outcome,) = await store.append([Append("d", first.document_id, made)])
        assert outcome == Appended(first.document_id, 2, 5)
        created = await store.create("created", rows=made)
        for document_id, seq in ((first.document_id, 1), (created.id, 0)):
            assert [row.checksum for row in await store.rows_after(document_id, seq, 9)] == [0, None, 2**32 - 1, 2**62]
        # Reading fills nothing: that would certify what is there, damaged or not.
        loaded = await store.load("created")
        assert loaded is not None and [row.checksum for row in loaded.rows] == [0, None, 2**32 - 1, 2**62]
        found = await store.load_at(created.id, 2)
        assert found is not None and found[1] == loaded.rows[:2]
        unverified = Snapshot(1, b"state", b"index", b"vector", 1.0)
        assert await store.write_snapshot(created.id, unverified)
        loaded = await store.load("created")
        assert loaded is not None and loaded.snapshot == unverified and loaded.passed_over == ()

    async def test_row_that_is_damaged_is_given_as_it_is(self, store: Store) -> None:
        damaged = seal_row(b"2", 1.0, "somebody")._replace(data=b"!")
        await store.append([Append("d", None, (*rows(b"1"), damaged, *rows(b"3")))])
        loaded = await store.load("d")
        assert loaded is not None and [row.data for row in loaded.rows] == [b"1", b"!", b"3"]
        assert damaged_rows(loaded.rows) == [2]
        assert damaged_rows(await store.rows_after(loaded.document.id, 1, 9)) == [2]

    async def test_damaged_snapshot_is_passed_over(self, store: Store) -> None:
        first = await put(store, "d", *[b"%d" % number for number in range(1, 8)])
        for seq in (2, 4, 6):
            written = snapshot(seq) if seq == 2 else replace(snapshot(seq), data=b"state X")
            assert await store.write_snapshot(first.document_id, written)
        loaded = await store.load("d")
        assert loaded is not None
        assert loaded.snapshot == snapshot(2) and loaded.passed_over == (6, 4)
        assert [row.seq for row in loaded.rows] == [3, 4, 5, 6, 7]
        found = await store.load_at(first.document_id, 5)
        assert found is not None and found[0] == snapshot(2) and [row.seq for row in found[1]] == [3, 4, 5]
        # A newer one that is whole is read again.
        assert await store.write_snapshot(first.document_id, snapshot(7))
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot == snapshot(7) and loaded.passed_over == ()

    async def test_snapshots_that_are_all_damaged_leave_the_rows(self, store: Store) -> None:
        first = await put(store, "d", b"1", b"2", b"3")
        assert await store.write_snapshot(first.document_id, replace(snapshot(2), at=9.0, index=b""))
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot is None and loaded.passed_over == (2,)
        assert [row.seq for row in loaded.rows] == [1, 2, 3]
        assert await store.load_at(first.document_id, 3) == (None, loaded.rows)

    # Pruning.

    async def test_pruning_keeps_every_state_within_history(self, store: Store) -> None:
        document_id = (await put(store, "d", b"1", at=1.0)).document_id
        for number in range(2, 41):
            await put(store, "d", b"%d" % number, document_id=document_id, at=float(number))
        for number in (5, 12, 20, 31):
            assert await store.write_snapshot(document_id, snapshot(number, at=float(number)))

        async def rebuilt(seq: int) -> bool:
            found = await store.load_at(document_id, seq)
            if found is None:
                return False
            base, tail = found
            assert base is None or base == snapshot(base.seq, at=float(base.seq))
            assert [row.seq for row in tail] == list(range((base.seq if base else 0) + 1, seq + 1))
            assert [row.data for row in tail] == [b"%d" % row.seq for row in tail]
            return True

        assert [await rebuilt(seq) for seq in range(1, 42)] == [True] * 40 + [False]
        # Row 24 is the last before 25.0: its state needs snapshot 20 and rows 21 and on.
        assert await pruned(store, before=15.0, limit=6) == 12 + 1
        assert [seq for seq in range(1, 41) if await rebuilt(seq)] == list(range(12, 41))
        assert await pruned(store, before=25.0, limit=6) == 8 + 1
        assert [seq for seq in range(1, 41) if await rebuilt(seq)] == list(range(20, 41))
        assert await store.prune(before=25.0, limit=6) == 0
        assert (await store.rows_after(document_id, 0, 1))[0].seq == 21
        summary = await store.describe("d")
        assert (summary.log_rows, summary.tail_rows, summary.snapshot_seq) == (20, 9, 31)
        # Everything is old: what opening needs stays, and the snapshot before with all rows after it.
        assert await pruned(store, before=1e9, limit=1000) == 0
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot == snapshot(31, at=31.0)
        assert [row.seq for row in loaded.rows] == list(range(32, 41))

    async def test_a_row_that_is_older_than_the_one_before_it_does_not_hide_that_one(self, store: Store) -> None:
        # Two nodes' clocks: what counts is the first row of ``before`` or later, in the order of numbers.
        document_id = (await put(store, "d", b"1", at=1.0)).document_id
        for number, at in ((2, 50.0), (3, 2.0), (4, 60.0)):
            await put(store, "d", b"%d" % number, document_id=document_id, at=at)
        for number in (1, 3):
            assert await store.write_snapshot(document_id, snapshot(number))
        assert await pruned(store, before=40.0, limit=10) == 1
        assert [await store.load_at(document_id, seq) is not None for seq in (1, 2, 3, 4)] == [True] * 4

    async def test_pruning_leaves_a_document_without_snapshot_alone(self, store: Store) -> None:
        await put(store, "d", b"1", b"2", at=1.0)
        assert await store.prune(before=1e9, limit=100) == 0
        assert await data_of(store, "d") == [b"1", b"2"]

    async def test_pruning_goes_round_many_documents(self, store: Store) -> None:
        for number in range(10):
            outcome = await put(store, f"d{number}", b"1", b"2", b"3", at=1.0)
            for seq in (2, 3):
                assert await store.write_snapshot(outcome.document_id, snapshot(seq))
        assert await pruned(store, before=1e9, limit=7) == 20
        # The end was reached: documents at the beginning are looked at again.
        outcome = await put(store, "d0", b"4", at=1.0)
        await store.write_snapshot(outcome.document_id, snapshot(4))
        assert await pruned(store, before=1e9, limit=7) == 2

    async def test_pruning_keeps_two_snapshots_that_are_whole(self, store: Store) -> None:
        # Three of four count for nothing: one has no checksum, one is damaged, one is alone.
        for name, others in {
            "unverified": [Snapshot(4, b"state 4", b"index 4", b"vector 4", 0.0)],
            "damaged": [replace(snapshot(4), data=b"state 5")],
            "vector": [replace(snapshot(4), state_vector=b"vector 5")],
            "index": [replace(snapshot(4), index=b"index 5")],
            "alone": [],
        }.items():
            document_id = (await put(store, name, *[b"%d" % number for number in range(1, 7)], at=1.0)).document_id
            assert await store.write_snapshot(document_id, snapshot(2))
            for other in others:
                assert await store.write_snapshot(document_id, other)
            assert await pruned(store, before=1e9, limit=10) == 0, name
            assert (await store.rows_after(document_id, 0, 1))[0].seq == 1
            if name != "alone":
                continue
            assert await store.write_snapshot(document_id, snapshot(6))
            assert await pruned(store, before=1e9, limit=10) == 2
            assert [row.seq for row in await store.rows_after(document_id, 0, 9)] == [3, 4, 5, 6]

    async def test_pruning_leaves_a_damaged_document_alone(self, store: Store, open_store: OpenStore) -> None:
        ids = {}
        for name in ("row", "snapshot", "whole"):
            ids[name] = (await put(store, name, b"1", b"2", b"3", at=1.0)).document_id
            for seq in (2, 3):
                assert await store.write_snapshot(ids[name], snapshot(seq))
        for _ in range(2):
            await store.note_damage(ids["row"], rows=[3, 1])
            await store.note_damage(ids["snapshot"], snapshots=[3])
        await store.note_damage(ids["whole"] + 1_000_000, rows=[1])
        async with open_store() as other:
            assert await pruned(other, before=1e9, limit=10) == 2
        assert await pruned(store, before=1e9, limit=10) == 0
        counts = {name: (await store.describe(name)).log_rows for name in ids}
        assert counts == {"row": 3, "snapshot": 3, "whole": 1}
        # What is deleted goes nevertheless.
        await store.delete("row", 2.0)
        assert await pruned(store, before=0.0, limit=10) == 5

    async def test_pruning_removes_the_content_of_deleted_documents(self, store: Store) -> None:
        first = await put(store, "d", b"1", b"2", b"3", at=1e12)
        await store.write_snapshot(first.document_id, snapshot(2, at=1e12))
        await store.delete("d", 1e12)
        assert await store.prune(before=0.0, limit=2) == 2
        assert await pruned(store, before=0.0, limit=10) == 2
        # The tombstone stays.
        with pytest.raises(DocumentDeleted):
            await store.load("d")
        by_id, by_name = await store.append([Append("d", first.document_id, rows(b"4")), Append("d", None, rows(b"4"))])
        assert isinstance(by_id, DocumentDeleted) and isinstance(by_name, DocumentDeleted)
        # Also when its name was given away.
        new = await store.create("d", rows=rows(b"new"))
        assert await pruned(store, before=0.0, limit=10) == 0
        by_id, by_name = await store.append([Append("d", first.document_id, rows(b"4")), Append("d", None, rows(b"2"))])
        assert isinstance(by_id, DocumentDeleted) and by_name == Appended(new.id, 2, 2)


def _numbers(outcomes: list[AppendOutcome]) -> list[tuple[int, int]]:
    """Give the numbers of all outcomes, which must all be good."""
    numbers = []
    for outcome in outcomes:
        assert isinstance(outcome, Appended), outcome
        numbers.append((outcome.first_seq, outcome.last_seq))
    return numbers
