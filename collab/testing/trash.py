"""The tests of the trash: restoring, erasing for good, skeletons."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from collab.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    DocumentRenamed,
    InvalidDocumentName,
)
from collab.storage.records import Append, Appended, CallKey, PendingChange, PendingUpdate, StoredDocument
from collab.storage.store import Store
from collab.testing.storage import OnStorage, OpenStore, data_of, pruned, put, rows, snapshot, written

FULL = b"\1" * 32
"""The hash of a request."""


class TrashConformance(OnStorage):
    """The promise of :class:`collab.storage.trash.Trash`. Run it as a part of ``StoreConformance``."""

    # Restoring.

    async def test_a_restored_document_is_the_same(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"1", b"2", at=5.0)
        await store.write_snapshot(first.document_id, snapshot(1))
        waiting = PendingUpdate(b"k" * 16, b"waits", 6.0, "someone")
        await written(store, [Append("d", first.document_id, (), PendingChange((waiting,), ()), gc=False)])
        await store.change("d", title="Title", metadata={"kind": "note", "n": 1})
        before = await store.describe("d")
        kept = await store.load("d")
        await store.delete("d", 7.0)
        async with open_store() as other:
            (found,) = await other.list_trash()
            assert found == replace(before, document=replace(before.document, deleted_at=7.0))
            restored = await other.restore(first.document_id, at=8.0)
        assert restored == before.document
        assert await store.describe("d") == before and await store.load("d") == kept
        assert await store.list_trash() == []
        assert await put(store, "d", b"3", document_id=first.document_id) == Appended(first.document_id, 3, 3)
        assert [row.data for row in await store.rows_after(first.document_id, 0, 9)] == [b"1", b"2", b"3"]
        # And it may be deleted again.
        await store.delete("d", 9.0)
        assert [each.document.deleted_at for each in await store.list_trash()] == [9.0]

    async def test_a_document_is_restored_once(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"1")
        with pytest.raises(DocumentNotFound):
            await store.restore(first.document_id, at=1.0)
        with pytest.raises(DocumentNotFound):
            await store.restore(first.document_id + 1_000, at=1.0)
        await store.delete("d", 1.0)
        with pytest.raises(InvalidDocumentName):
            await store.restore(first.document_id, "a\ud83d", at=1.0)
        async with open_store() as other:
            calls = [each.restore(first.document_id, at=2.0) for each in (store, other, store, other)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, StoredDocument) for result in results) == 1, results
        assert sum(isinstance(result, DocumentNotFound) for result in results) == 3, results
        assert await data_of(store, "d") == [b"1"]

    async def test_predecessors_of_a_name_are_restored_under_other_names(self, store: Store) -> None:
        ids = []
        for number in range(3):
            created = await store.create("d", rows=rows(b"%d" % number), title=f"Title {number}")
            ids.append(created.id)
            await store.delete("d", 10.0 + number)
        new = await store.create("d", rows=rows(b"new"))
        found = await store.list_trash(name="d")
        assert [each.document.id for each in found] == ids[::-1]
        assert [each.document.name for each in found] == ["d"] * 3
        assert [each.document.title for each in found] == ["Title 2", "Title 1", "Title 0"]
        with pytest.raises(DocumentExists):
            await store.restore(ids[1], at=20.0)
        restored = await store.restore(ids[1], "e", at=20.0)
        assert (restored.id, restored.name, restored.title) == (ids[1], "e", "Title 1")
        assert await data_of(store, "e") == [b"1"] and await data_of(store, "d") == [b"new"]
        await store.delete("d", 30.0)
        # The one that was there last gives way to its predecessor, and stays in the trash.
        assert (await store.restore(ids[0], at=31.0)).name == "d"
        assert [each.document.id for each in await store.list_trash()] == [new.id, ids[2]]
        outcomes = await written(store, [Append("d", new.id, rows(b"x")), Append("d", None, rows(b"y"))])
        assert isinstance(outcomes[0], DocumentDeleted) and outcomes[1] == Appended(ids[0], 2, 2)

    async def test_a_document_that_is_restored_under_another_name_leaves_a_tombstone(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        await store.delete("d", 1.0)
        await store.restore(first.document_id, "e", at=2.0)
        (by_name,) = await written(store, [Append("d", None, rows(b"old copy"))])
        assert isinstance(by_name, DocumentDeleted)
        with pytest.raises(DocumentRenamed):
            await store.load("d")
        assert (await store.heads(["d"]))["d"].renamed_to == first.document_id
        assert await put(store, "e", b"2", document_id=first.document_id) == Appended(first.document_id, 2, 2)
        assert [each.document.name for each in await store.list_documents()] == ["e"]
        # A name that a renamed document has left can be taken.
        await store.rename("e", "f", 3.0)
        await store.delete("f", 4.0)
        await store.restore(first.document_id, "e", at=5.0)
        assert await data_of(store, "e") == [b"1", b"2"]

    async def test_the_trash_is_listed_by_the_time_of_deletion(self, store: Store) -> None:
        names = ["a/1", "b", "a/2", "a/\U0001f98a", "A/1", "a"]
        for at, name in enumerate(names):
            await put(store, name, b"123")
            await store.delete(name, float(at // 2))
        found = await store.list_trash()
        assert [each.document.name for each in found] == names[::-1]
        assert found[0].tail_bytes == 3
        paged: list[str] = []
        after = None
        while page := await store.list_trash(after=after, limit=2):
            paged += [each.document.name for each in page]
            assert page[-1].document.deleted_at is not None
            after = (page[-1].document.deleted_at, page[-1].document.id)
            assert len(paged) <= len(names)
        assert paged == names[::-1]

        async def names_of(**given: object) -> list[str]:
            return [each.document.name for each in await store.list_trash(**given)]  # type: ignore[arg-type]

        assert await names_of(prefix="a/") == ["a/\U0001f98a", "a/2", "a/1"]
        assert await names_of(name="a") == ["a"] and await names_of(name="none") == []
        assert await names_of(since=2.0) == ["a", "A/1"] and await names_of(before=1.0) == ["b", "a/1"]
        await put(store, "lives", b"1")
        await store.rename("lives", "moved", 9.0)
        assert await names_of(since=3.0) == []

    async def test_pruning_leaves_what_is_in_the_trash_for_long_enough(self, store: Store) -> None:
        kept = await put(store, "kept", b"1", b"2")
        await store.change("kept", title="Kept")
        gone = await put(store, "gone", b"1", b"2")
        await store.change("gone", title="Gone", metadata={"a": 1})
        empty = await store.create("empty")
        await store.delete("gone", 10.0)
        await store.delete("empty", 10.0)
        await store.delete("kept", 20.0)
        await store.create("kept")
        removed = 0
        while portion := await store.prune(before=1e9, limit=10, trash_before=20.0):
            removed += portion
        assert removed == 2
        assert [each.document.id for each in await store.list_trash()] == [kept.document_id]
        for document_id in (gone.document_id, empty.id):
            with pytest.raises(DocumentNotFound):
                await store.restore(document_id, at=21.0)
        assert (await store.restore(kept.document_id, "back", at=21.0)).title == "Kept"
        assert await data_of(store, "back") == [b"1", b"2"]
        await store.delete("back", 30.0)
        assert await pruned(store, before=1e9, limit=1) == 2
        assert await store.list_trash() == []

    async def test_restoring_while_others_prune_gives_all_or_nothing(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as other:
            for turns in range(8):
                name = f"d{turns}"
                data = [b"%d" % number for number in range(6)]
                first = await put(store, name, *data)
                await store.delete(name, 1.0)

                async def prune() -> None:
                    for _ in range(9):
                        await other.prune(before=0.0, limit=2)

                pruning = asyncio.create_task(prune())
                for _ in range(turns):
                    await asyncio.sleep(0)
                try:
                    await store.restore(first.document_id, at=2.0)
                except DocumentNotFound:
                    with pytest.raises(DocumentDeleted):
                        await store.load(name)
                else:
                    assert await data_of(store, name) == data
                    await pruning
                    assert await data_of(store, name) == data
                await pruning

    # Erasing.

    async def test_what_was_erased_is_gone(self, store: Store, open_store: OpenStore) -> None:
        call = CallKey(b"k" * 32, "t" * 32)
        await store.begin_call(call, FULL)
        created = await store.create("d", rows=rows(b"secret 1", b"secret 2"), title="Secret", call=call)
        await store.finish_call(call, 201, b"secret answer")
        waiting = PendingUpdate(b"k" * 16, b"secret", 6.0, "someone")
        await written(store, [Append("d", created.id, (), PendingChange((waiting,), ()))])
        await store.write_snapshot(created.id, snapshot(1))
        await store.note_damage(created.id, rows=[1])
        await store.change("d", metadata={"secret": "yes"})
        await put(store, "other", b"1")
        with pytest.raises(DocumentExists):
            await store.erase(created.id)
        assert len(await data_of(store, "d")) == 1
        await store.delete("d", 1.0)
        async with open_store() as other:
            await other.erase(created.id)
        assert await store.list_trash() == []
        with pytest.raises(DocumentNotFound):
            await store.restore(created.id, at=2.0)
        assert await store.load_at(created.id, 2) is None and await store.load_at(created.id, 1) is None
        assert await store.rows_after(created.id, 0, 9) == [] and await store.load_pending(created.id) == []
        again = await store.begin_call(CallKey(call.key, "u" * 32), FULL)
        assert (again.mine, again.status, again.answer) == (False, 410, None)
        # The tombstone is met as before.
        assert (await store.heads(["d"]))["d"][:3] == (created.id, 2, True)
        by_id, by_name = await written(store, [Append("d", created.id, rows(b"x")), Append("d", None, rows(b"y"))])
        assert isinstance(by_id, DocumentDeleted) and isinstance(by_name, DocumentDeleted)
        await store.erase(created.id)
        assert await data_of(store, "other") == [b"1"]
        new = await store.create("d")
        assert (new.title, new.metadata) == (None, {})

    async def test_a_predecessor_is_erased_alone(self, store: Store) -> None:
        old = await put(store, "d", b"old")
        await store.delete("d", 1.0)
        middle = await store.create("d", rows=rows(b"middle"))
        await store.delete("d", 2.0)
        new = await store.create("d", rows=rows(b"new"))
        await store.erase(old.document_id)
        assert [each.document.id for each in await store.list_trash()] == [middle.id]
        assert await data_of(store, "d") == [b"new"]
        with pytest.raises(DocumentNotFound):
            await store.erase(old.document_id)  # all is gone, its tombstone too
        (by_id,) = await written(store, [Append("d", old.document_id, rows(b"x"))])
        assert isinstance(by_id, DocumentDeleted)
        assert (await store.describe("d")).document.id == new.id
        with pytest.raises(DocumentNotFound):
            await store.erase(new.id + 1_000)

    # Skeletons.

    async def test_a_skeleton_belongs_to_a_name(self, store: Store, open_store: OpenStore) -> None:
        assert await store.skeleton("d") is None
        async with open_store() as other:
            results = await asyncio.gather(
                *(each.replace_skeleton("d", None, b"\0%d" % at) for at, each in enumerate((store, other, store)))
            )
            assert sum(results) == 1
            kept = await other.skeleton("d")
            assert kept is not None and results[int(kept[1:])]
            assert not await other.replace_skeleton("d", b"not this", b"x")
            assert await other.replace_skeleton("d", kept, b"joined")
        assert await store.skeleton("d") == b"joined" and await store.skeleton("D") is None
        # Whatever becomes of the documents.
        first = await put(store, "d", b"1")
        await store.rename("d", "e", 1.0)
        await store.delete("e", 2.0)
        await store.erase(first.document_id)
        await pruned(store, before=1e9, limit=9)
        assert await store.skeleton("d") == b"joined" and await store.skeleton("e") is None
