"""The tests of renaming, and of the instructions that all nodes follow."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, DocumentRenamed, InvalidDocumentName
from collab.storage.control import KEPT_SECONDS
from collab.storage.records import Append, Appended, Instruction, Kind, NodeReport
from collab.storage.store import Store
from collab.testing.storage import OnStorage, OpenStore, data_of, pruned, put, rows, snapshot, written


class ControlConformance(OnStorage):
    """The promise of :class:`collab.storage.control.Instructions`, and of new names. Run it in ``StoreConformance``."""

    # Renaming.

    async def test_a_renamed_document_keeps_id_numbers_and_content(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "old", b"1", b"2", b"3")
        await store.write_snapshot(first.document_id, snapshot(2))
        await store.set_title("old", "Title")
        before = (await store.describe("old")).document
        async with open_store() as other:
            assert await other.rename("old", "new", 77.0) == first.document_id
        summary = await store.describe("new")
        assert summary.document == dataclasses.replace(before, name="new")
        assert (summary.snapshot_seq, summary.tail_rows, summary.log_rows) == (2, 1, 3)
        loaded = await store.load("new")
        assert loaded is not None and loaded.snapshot is not None and [row.seq for row in loaded.rows] == [3]
        # An append under way with the id goes on where the document is, whatever name it says.
        (outcome,) = await written(store, [Append("old", first.document_id, rows(b"4"))])
        assert outcome == Appended(first.document_id, 4, 4)
        assert [summary.document.name for summary in await store.list_documents()] == ["new"]

    async def test_the_old_name_is_left_as_by_a_deletion(self, store: Store) -> None:
        first = await put(store, "old", b"1")
        await store.rename("old", "new", 77.0)
        with pytest.raises(DocumentRenamed):
            await store.load("old")
        with pytest.raises(DocumentRenamed):
            await store.describe("old")
        head = (await store.heads(["old", "new"]))["old"]
        assert head.deleted and head.renamed_to == first.document_id != head.document_id
        assert (await store.heads(["new"]))["new"] == (first.document_id, 1, False, 0, None)
        # Neither an old copy nor a client that knew no id brings it back.
        (outcome,) = await written(store, [Append("old", None, rows(b"ghost"))])
        assert isinstance(outcome, DocumentDeleted)
        # It is free for those who create it on purpose, and then it is another document.
        created = await store.create("old", rows=rows(b"other"))
        assert created.id != first.document_id
        assert await data_of(store, "old") == [b"other"] and await data_of(store, "new") == [b"1"]
        assert (await store.heads(["old"]))["old"].renamed_to is None

    async def test_renaming_what_is_not_there_or_to_a_name_that_is_taken(self, store: Store) -> None:
        await put(store, "a", b"a")
        await put(store, "b", b"b")
        with pytest.raises(DocumentNotFound):
            await store.rename("never", "c", 1.0)
        for new_name in ("b", "a"):
            with pytest.raises(DocumentExists):
                await store.rename("a", new_name, 1.0)
        assert await data_of(store, "a") == [b"a"] and await data_of(store, "b") == [b"b"]
        await store.delete("b", 2.0)
        with pytest.raises(DocumentDeleted):
            await store.rename("b", "c", 3.0)
        with pytest.raises(InvalidDocumentName):
            await store.rename("a", "a\ud83d", 3.0)
        # A tombstone gives way.
        await store.rename("a", "b", 4.0)
        assert await data_of(store, "b") == [b"a"]

    async def test_a_document_is_renamed_back(self, store: Store) -> None:
        first = await put(store, "a", b"1")
        for name, new_name in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")):
            assert await store.rename(name, new_name, 5.0) == first.document_id
            await put(store, new_name, new_name.encode(), document_id=first.document_id)
        assert await data_of(store, "a") == [b"1", b"b", b"a", b"c", b"a"]
        assert [summary.document.name for summary in await store.list_documents()] == ["a"]
        # What is left under the other names goes with nothing of the document.
        await pruned(store, before=0.0, limit=100)
        assert await data_of(store, "a") == [b"1", b"b", b"a", b"c", b"a"]
        with pytest.raises(DocumentRenamed):
            await store.load("b")

    async def test_one_of_those_who_rename_at_once_succeeds(self, store: Store, open_store: OpenStore) -> None:
        await put(store, "a", b"a")
        await put(store, "b", b"b")
        async with open_store() as other:
            results = await asyncio.gather(
                store.rename("a", "c", 1.0),
                other.rename("b", "c", 1.0),
                other.rename("a", "b", 1.0),
                store.rename("b", "a", 1.0),
                return_exceptions=True,
            )
        refused = (DocumentExists, DocumentDeleted)
        assert all(isinstance(result, (int, *refused)) for result in results), results
        names = [summary.document.name for summary in await store.list_documents()]
        assert len(names) == 2 and "c" in names
        assert sorted([(await data_of(store, name))[0] for name in names]) == [b"a", b"b"]

    async def test_renaming_while_others_append_loses_and_misplaces_nothing(
        self, store: Store, open_store: OpenStore
    ) -> None:
        async def write(document_id: int) -> None:
            for number in range(30):
                (outcome,) = await written(store, [Append("name0", document_id, rows(b"%d" % number))])
                assert outcome == Appended(document_id, number + 2, number + 2)

        document_id = (await put(store, "name0", b"first")).document_id
        async with open_store() as other:
            writing = asyncio.create_task(write(document_id))
            turn = 0
            while not writing.done():
                await other.rename(f"name{turn}", f"name{turn + 1}", 1.0)
                turn += 1
                await asyncio.sleep(0)
            await writing
            assert await data_of(other, f"name{turn}") == [b"first", *[b"%d" % number for number in range(30)]]
            assert len(await other.list_documents()) == 1

    # Instructions.

    async def test_every_store_finds_an_instruction(self, store: Store, open_store: OpenStore) -> None:
        given = [
            Instruction(Kind.KICK, document="d\x00\u00e4", user="u\x00\ud83d", seconds=1.5),
            Instruction(Kind.CHECK),
            Instruction(Kind.RELOAD, document="x"),
            Instruction(Kind.KICK, connection="node-17"),
            Instruction(Kind.LIST, document="d", user="u"),
            Instruction(Kind.LOG, seconds=60.0, logger="collab.journal", level="debug"),
        ]
        async with open_store() as other:
            numbers = [await store.instruct(instruction) for instruction in given]
            assert numbers == sorted(set(numbers)) and numbers[0] > 0
            for each in (store, other):
                found = await each.instructions(0)
                assert [(stored.number, stored.instruction) for stored in found] == list(
                    zip(numbers, given, strict=True)
                )
                assert all(0 <= stored.age < 60 and stored.left > KEPT_SECONDS - 60 for stored in found)
                assert [stored.number for stored in await each.instructions(numbers[1])] == numbers[2:]
                assert await each.instructions(numbers[-1]) == []

    async def test_an_instruction_stays_as_long_as_it_says(self, store: Store) -> None:
        await store.instruct(Instruction(Kind.KICK, user="u", seconds=9 * KEPT_SECONDS))
        (stored,) = await store.instructions(0)
        assert stored.left > 8 * KEPT_SECONDS

    async def test_who_gave_an_instruction_reads_what_each_node_has_done(
        self, store: Store, open_store: OpenStore
    ) -> None:
        first = await store.instruct(Instruction(Kind.CHECK))
        second = await store.instruct(Instruction(Kind.CHECK, user="u"))
        assert (await store.reports(first)).reports == ()
        async with open_store() as other:
            await other.report([first, second], NodeReport("two", done=False))
            await store.report([first], NodeReport("one", 3, 2, 1))
            found = await store.reports(first)
            assert set(found.reports) == {NodeReport("one", 3, 2, 1), NodeReport("two", done=False)}
            assert [report.node for report in found.reports] == ["one", "two"]
            assert not found.complete
            # A later report stands in the place of the one before, and of no other instruction's.
            await other.report([first], NodeReport("two", 5))
            assert set((await other.reports(first)).reports) == {
                NodeReport("one", 3, 2, 1),
                NodeReport("two", 5),
            }
            assert (await other.reports(second)).reports == (NodeReport("two", done=False),)
        # Of what is not there nothing is kept.
        await store.report([second + 1_000], NodeReport("one", 1))
        assert (await store.reports(second + 1_000)).reports == ()

    async def test_who_has_asked_reads_what_each_node_answers(self, store: Store, open_store: OpenStore) -> None:
        first = await store.instruct(Instruction(Kind.LIST))
        second = await store.instruct(Instruction(Kind.LIST, user="u"))
        assert await store.answers(first) == {}
        async with open_store() as other:
            await other.answer(first, "two", bytes(range(256)) * 1_000)
            await store.answer(first, "one", b"")
            await store.answer(second, "one", b"x")
            assert list((await store.answers(first)).items()) == [("one", b""), ("two", bytes(range(256)) * 1_000)]
            await other.answer(first, "two", b"later")
            assert await other.answers(first) == {"one": b"", "two": b"later"}
            assert await other.answers(second) == {"one": b"x"}
        await store.answer(second + 1_000, "one", b"x")
        assert await store.answers(second + 1_000) == {}
