"""The tests of the catalogue: names, deleting and creating, titles, own keys, listing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from typing import Any

import pytest

from collab.errors import (
    CollabError,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocumentName,
    InvalidMetadata,
    StoreRefused,
)
from collab.storage.records import (
    MAX_ROW_BYTES,
    Append,
    Appended,
    NewRow,
    PendingChange,
    PendingUpdate,
    Scalar,
    StoredDocument,
)
from collab.storage.store import Store
from collab.testing.storage import AT, OnStorage, OpenStore, data_of, pruned, put, rows, snapshot, written


class CatalogueConformance(OnStorage):
    """The promise of :class:`collab.storage.catalogue.Catalogue`. Run it as a part of ``StoreConformance``."""

    async def test_an_open_store_answers(self, store: Store) -> None:
        await store.ping()

    # Names.

    async def test_names_are_told_apart_by_their_bytes(self, store: Store) -> None:
        names = [
            "a",
            "A",
            "ä",
            "a\u0308",
            "a ",
            " a",
            "a\x00",
            "a\x00b",
            "notes/ä b",
            "%61",
            "\U0001f98a",
            "\uff5e",
            "x" * 512,
        ]
        outcomes = await store.append([Append(name, None, rows(name.encode())) for name in names])
        assert len({outcome.document_id for outcome in outcomes if isinstance(outcome, Appended)}) == len(names)
        for name in names:
            loaded = await store.load(name)
            assert loaded is not None and loaded.rows[0].data == name.encode() and loaded.document.name == name

    async def test_listing_is_in_the_order_of_the_bytes(self, store: Store) -> None:
        # A collation puts "a" beside "A" and "ä"; UTF-16 puts the fox before the tilde.
        names = ["b", "a", "B", "A", "ä", "z", "a\u0308", "\U0001f98a", "\uff5e", "a b", "a-b", "aB", "~", "a\x00"]
        for name in names:
            await put(store, name, b"1")
        assert [summary.document.name for summary in await store.list_documents()] == sorted(names, key=str.encode)
        paged: list[str] = []
        while page := await store.list_documents(after=paged[-1] if paged else None, limit=3):
            paged += [summary.document.name for summary in page]
            assert len(paged) <= len(names)
        assert paged == sorted(names, key=str.encode)

    async def test_name_that_is_not_unicode_is_no_name(self, store: Store) -> None:
        bad = "a\ud83d"
        calls: list[Awaitable[object]] = [
            store.load(bad),
            store.create(bad),
            store.delete(bad, 1.0),
            store.set_title(bad, "title"),
            store.change(bad, metadata={"a": 1}),
            store.list_trash(name=bad),
            store.skeleton(bad),
            store.replace_skeleton(bad, None, b""),
            store.describe(bad),
            store.heads([bad]),
        ]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, InvalidDocumentName), result

    # Deleting and creating.

    async def test_append_meets_the_tombstone(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"1")
        async with open_store() as other:
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

    async def test_deleting_what_is_not_there(self, store: Store) -> None:
        with pytest.raises(DocumentNotFound):
            await store.delete("never", 1.0)
        await put(store, "d", b"1")
        await store.delete("d", 1.0)
        with pytest.raises(DocumentNotFound):
            await store.delete("d", 2.0)
        with pytest.raises(DocumentNotFound):
            await store.describe("never")

    async def test_created_anew_the_old_id_stays_dead(self, store: Store, open_store: OpenStore) -> None:
        old = await put(store, "d", b"old")
        await store.write_snapshot(old.document_id, snapshot(1))
        await store.set_title("d", "old")
        await store.delete("d", 2.0)
        async with open_store() as command_line:
            new = await command_line.create("d", gc=False, rows=rows(b"new 1", b"new 2"))
        assert new.id != old.document_id and new.head_seq == 2 and not new.gc and new.title is None
        by_old_id, by_name = await store.append(
            [Append("d", old.document_id, rows(b"ghost")), Append("d", None, rows(b"new 3"))]
        )
        assert isinstance(by_old_id, DocumentDeleted)
        assert by_name == Appended(new.id, 3, 3)
        loaded = await store.load("d")
        assert loaded is not None and loaded.snapshot is None
        assert [row.data for row in loaded.rows] == [b"new 1", b"new 2", b"new 3"]
        assert loaded.document.id == new.id and not loaded.document.gc and loaded.document.title is None

    async def test_an_append_may_ask_to_keep_deleted_content(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "known", b"1")
        await put(store, "other", b"1")
        batch = [
            Append("known", first.document_id, rows(b"2")),
            Append("known", first.document_id, rows(b"3"), gc=False),
            Append("fresh", None, rows(b"1"), gc=False),
            Append("other", None, rows(b"2")),
        ]
        assert all(isinstance(outcome, Appended) for outcome in await written(store, batch))
        # It stays so, whatever later appends say.
        await put(store, "known", b"4", document_id=first.document_id)
        only_pending = Append(
            "pending", None, (), PendingChange((PendingUpdate(b"key", b"data", AT, None),), ()), gc=False
        )
        await written(store, [only_pending])
        async with open_store() as later:
            kept = {name: (await later.describe(name)).document.gc for name in ("known", "fresh", "other", "pending")}
        assert kept == {"known": False, "fresh": False, "other": True, "pending": False}

    async def test_ids_are_never_given_twice(self, store: Store) -> None:
        old = await put(store, "d", b"1")
        await store.delete("d", 1.0)
        middle = await store.create("d")
        await store.delete("d", 2.0)
        await pruned(store, before=100.0, limit=10)
        new = await store.create("d")
        assert len({old.document_id, middle.id, new.id}) == 3

    async def test_creating_what_lives_is_refused(self, store: Store, open_store: OpenStore) -> None:
        await store.create("d")
        with pytest.raises(DocumentExists):
            await store.create("d")
        await put(store, "appended", b"1")
        with pytest.raises(DocumentExists):
            await store.create("appended", rows=rows(b"2"))
        assert await data_of(store, "appended") == [b"1"]
        async with open_store() as other:
            results = await asyncio.gather(
                *(each.create("race") for each in (store, other, store, other)), return_exceptions=True
            )
        assert sum(isinstance(result, DocumentExists) for result in results) == 3, results

    async def test_created_document_without_rows(self, store: Store) -> None:
        created = await store.create("empty")
        assert created.gc and created.head_seq == 0 and created.deleted_at is None and created.name == "empty"
        loaded = await store.load("empty")
        assert loaded is not None and loaded.document == created and loaded.snapshot is None and loaded.rows == []
        summary = await store.describe("empty")
        assert (summary.log_rows, summary.tail_rows, summary.tail_bytes) == (0, 0, 0)
        assert (await put(store, "empty", b"1"))[:] == (created.id, 1, 1)

    async def test_creating_with_more_than_a_store_takes_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreRefused):
            await store.create("d", rows=rows(bytes(MAX_ROW_BYTES + 1)))
        assert await store.load("d") is None

    async def test_deleting_while_others_append_leaves_nothing_behind_the_tombstone(
        self, store: Store, open_store: OpenStore
    ) -> None:
        async def write(name: str, document_id: int) -> int:
            """Append until the document is gone; give the number of the last row that was acknowledged."""
            last = 1
            while True:
                too_late = name in deleted
                (outcome,) = await written(store, [Append(name, document_id, rows(b"x"))])
                if isinstance(outcome, DocumentDeleted):
                    return last
                assert isinstance(outcome, Appended)
                assert not too_late, "an append that began after the deletion has succeeded"
                last = outcome.last_seq
                if last == 5:
                    under_way.set()

        deleted: set[str] = set()
        async with open_store() as other:
            for turns in range(12):
                name = f"d{turns}"
                under_way = asyncio.Event()
                writing = asyncio.create_task(write(name, (await put(store, name, b"0")).document_id))
                await under_way.wait()
                # Each time at another point of the append that is under way.
                for _ in range(turns):
                    await asyncio.sleep(0)
                await other.delete(name, 1.0)
                deleted.add(name)
                removed = await pruned(other, before=0.0, limit=1_000)
                assert removed == await writing
                assert await other.prune(before=0.0, limit=1_000) == 0, "a row came after the deletion"

    async def test_a_document_is_created_with_title_and_metadata(self, store: Store, open_store: OpenStore) -> None:
        metadata: dict[str, Scalar] = {
            "kind": "note",
            "\x00ä": "\U0001f98a\x00",
            "n": 1.5,
            "big": 2**53 - 1,
            "yes": True,
            "no": False,
        }
        created = await store.create("d", rows=rows(b"1"), title="Title", metadata=metadata)
        assert (created.title, created.metadata) == ("Title", metadata)
        async with open_store() as other:
            assert (await other.describe("d")).document == created
        bad: list[dict[str, Any]] = [
            {"nested": {}},
            {"": 1},
            {"k" * 65: 1},
            {"n": float("nan")},
            {"n": 2**53},
            {"k": "x" * 4_096},
        ]
        for wrong in bad:
            with pytest.raises(InvalidMetadata):
                await store.create("e", metadata=wrong)
        with pytest.raises(DocumentNotFound):
            await store.describe("e")

    async def test_creating_may_respect_a_tombstone(self, store: Store) -> None:
        await put(store, "d", b"1")
        await store.delete("d", 1.0)
        with pytest.raises(DocumentDeleted):
            await store.create("d", rows=rows(b"2"), over_tombstone=False)
        assert [each.document.name for each in await store.list_trash()] == ["d"]
        assert (await store.create("e", rows=rows(b"2"), over_tombstone=False)).head_seq == 1

    # Titles, own keys and listing.

    async def test_a_title_is_listed_and_changes_nothing_else(self, store: Store) -> None:
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

    async def test_own_keys_are_merged_and_change_nothing_else(self, store: Store, open_store: OpenStore) -> None:
        await put(store, "a", b"123", at=5.0)
        before = (await store.describe("a")).document
        await store.change("a", metadata={"kind": "note", "rank": 1, "gone": None})
        await store.change("a", title="Title", metadata={"rank": None, "open": True})
        after = (await store.describe("a")).document
        assert (after.title, after.metadata) == ("Title", {"kind": "note", "open": True})
        assert dataclasses.replace(after, title=None, metadata={}) == before
        many_keys: dict[str, object] = {f"k{n}": n for n in range(32)}
        bad: list[dict[str, object]] = [{"list": []}, {"k": "x" * 4_096}, many_keys, {"half": "\ud83d"}]
        for wrong in bad:
            with pytest.raises(InvalidMetadata):
                await store.change("a", title="Not this", metadata=wrong)
        assert (await store.describe("a")).document == after
        async with open_store() as other:
            many = [each.change("a", metadata={f"k{n}": n}) for n in range(12) for each in (store, other)]
            await asyncio.gather(*many)
        assert (await store.describe("a")).document.metadata == {**after.metadata, **{f"k{n}": n for n in range(12)}}
        (listed,) = await store.list_documents()
        assert listed.document.metadata["k7"] == 7
        await store.change("a", metadata=dict.fromkeys(listed.document.metadata))
        assert (await store.describe("a")).document == dataclasses.replace(before, title="Title")
        with pytest.raises(DocumentNotFound):
            await store.change("none", metadata={"a": 1})
        await store.delete("a", 9.0)
        with pytest.raises(DocumentDeleted):
            await store.change("a", metadata={"a": 1})

    async def test_listing_by_time_is_newest_first(self, store: Store) -> None:
        times = {"b/1": 3.0, "a": 5.0, "b/2": 5.0, "B": 5.0, "c": 1.0, "b/\U0001f98a": 4.0, "gone": 6.0}
        for name, at in times.items():
            await put(store, name, b"12", b"345", at=at)
        await store.delete("gone", 7.0)
        names = ["B", "a", "b/2", "b/\U0001f98a", "b/1", "c"]
        found = await store.list_recent()
        assert [each.document.name for each in found] == names
        assert [each.tail_bytes for each in found] == [5] * 6
        paged: list[str] = []
        after = None
        while page := await store.list_recent(after=after, limit=2):
            paged += [each.document.name for each in page]
            after = (page[-1].document.updated_at, page[-1].document.name)
            assert len(paged) <= len(names)
        assert paged == names
        assert [each.document.name for each in await store.list_recent(prefix="b/")] == names[2:5]
        assert [each.document.name for each in await store.list_recent(prefix="b/", after=(5.0, "b/2"))] == names[3:5]
        await put(store, "c", b"6", at=9.0)
        assert (await store.list_recent(limit=1))[0].document.name == "c"

    async def test_a_document_is_described_by_its_id(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        await store.rename("d", "e", 1.0)
        assert await store.describe_id(first.document_id) == await store.describe("e")
        with pytest.raises(DocumentNotFound):
            await store.describe_id(first.document_id + 1_000)
        await store.delete("e", 2.0)
        with pytest.raises(DocumentDeleted):
            await store.describe_id(first.document_id)

    async def test_listing_pages_and_sizes(self, store: Store) -> None:
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
        assert await store.list_documents(prefix="none/") == []
        plain, covered = under_b[0], under_b[1]
        assert (plain.snapshot_seq, plain.snapshot_bytes, plain.snapshot_at) == (0, 0, None)
        assert (plain.tail_rows, plain.tail_bytes, plain.log_rows) == (2, 8, 2)
        assert (covered.snapshot_seq, covered.snapshot_bytes, covered.snapshot_at) == (1, len(b"state 1"), 9.0)
        assert (covered.tail_rows, covered.tail_bytes, covered.log_rows) == (1, 5, 2)
        assert await store.describe("b/2") == covered
        # A page may begin behind a name that is not there any more.
        await store.delete("b/2", 10.0)
        found = await store.list_documents(after="b/2", limit=2)
        assert [summary.document.name for summary in found] == ["b/\U0001f98a", "b0"]

    async def test_counting_counts_what_is_listed(self, store: Store) -> None:
        for name in ("a", "b/1", "b/2", "b/3", "b0", "b/gone"):
            await put(store, name, b"1")
        await store.delete("b/gone", 10.0)
        assert await store.count_documents() == 5
        assert await store.count_documents(prefix="b/") == 3
        assert await store.count_documents(prefix="b/", after="b/1") == 2
        assert await store.count_documents(after="b/gone") == 1
        assert await store.count_documents(prefix="none/") == 0

    async def test_many_that_are_created_at_once_are_created_each_for_itself(self, store: Store) -> None:
        await put(store, "there", b"kept")
        await put(store, "gone", b"1")
        await store.delete("gone", 2.0)

        async def create(name: str) -> StoredDocument | CollabError:
            try:
                return await store.create(name, rows=[NewRow(name.encode(), 1.0, None)], over_tombstone=False)
            except CollabError as error:
                return error

        names = [f"d/{number:03}" for number in range(100)]
        there, gone, *created = await asyncio.gather(*map(create, ("there", "gone", *names, "d/000")))
        assert isinstance(there, DocumentExists) and isinstance(gone, DocumentDeleted)
        assert sum(isinstance(each, DocumentExists) for each in created) == 1, "of two with one name"
        made = [each for each in created if isinstance(each, StoredDocument)]
        assert sorted(each.name for each in made) == names and len({each.id for each in made}) == 100
        for name, data in (("d/000", b"d/000"), ("d/099", b"d/099"), ("there", b"kept")):
            loaded = await store.load(name)
            assert loaded is not None and [row.data for row in loaded.rows] == [data]

    async def test_a_prefix_is_no_pattern(self, store: Store) -> None:
        for name in ("100%", "100x", "a_b", "axb", "s*", "sx", "[q]", "q", "c\\", "c/", "Case", "case", "ä", "a\u0308"):
            await put(store, name, b"1")
        for prefix, expected in [
            ("100%", ["100%"]),
            ("a_", ["a_b"]),
            ("s*", ["s*"]),
            ("[q]", ["[q]"]),
            ("c\\", ["c\\"]),
            ("C", ["Case"]),
            ("ä", ["ä"]),
        ]:
            found = [summary.document.name for summary in await store.list_documents(prefix=prefix)]
            assert found == expected, prefix
