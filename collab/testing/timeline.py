"""The tests of the timeline: rows are put into entries, once each, and read from the newest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collab.authorship import Note
from collab.errors import DocumentNotFound
from collab.storage.checksums import seal_row
from collab.storage.records import Append
from collab.storage.store import Store
from collab.storage.timeline import MAX_ENTRIES, MAX_SHARES, PAUSE_SECONDS, RESET, RESTORE, Entry, Share
from collab.storage.versions import Kind, Reason
from collab.testing.storage import AT, OnStorage, OpenStore, pruned, put, snapshot, written

LATER = AT + 1e6
"""A time at which every pause is one."""


async def edit(store: Store, *edits: tuple[Any, ...], name: str = "d") -> int:
    """Append rows of 10 bytes, each at so many seconds and by an author; give the id of the document."""
    rows = tuple(seal_row(b"0123456789", AT + at, *said) for at, *said in edits)
    await written(store, [Append(name, None, rows)])
    return (await store.describe(name)).document.id


async def summarise(store: Store, document_id: int, limit: int = 1_000, spacing: float | None = None) -> None:
    """Put all rows into entries."""
    while True:
        done = await store.summarise(document_id, now=LATER, spacing=spacing, limit=limit)
        if done is not None and not done.left:
            return


async def entries_of(store: Store, document_id: int) -> list[Entry]:
    """Read a whole timeline, the oldest entry first."""
    found: list[Entry] = []
    while True:
        page = await store.timeline(document_id, before=found[-1].first if found else None, limit=3)
        if not page.entries:
            return found[::-1]
        found += page.entries


class TimelineConformance(OnStorage):
    """The promise of :class:`collab.storage.timeline.Timelines`. Run it as a part of ``StoreConformance``."""

    async def test_rows_are_grouped_by_pauses_and_authors(self, store: Store) -> None:
        document_id = await edit(
            store,
            *[(0.0, "ada"), (50.0, "bob"), (100.0, "ada"), (350.0, "ada")],
            *[(411.0, "cyd"), (1_000.0, "ada", Note("æ\0\ud83d", "tool")), (1_001.0, None)],
        )
        await summarise(store, document_id)
        assert await entries_of(store, document_id) == [
            Entry(1, 4, AT, AT + 350, 40, (Share("ada", None, 3), Share("bob", None, 1))),
            Entry(5, 5, AT + 411, AT + 411, 10, (Share("cyd", None, 1),)),
            Entry(6, 7, AT + 1_000, AT + 1_001, 20, (Share("ada", "æ\0\ud83d", 1), Share(None, None, 1))),
        ]

    async def test_portions_and_more_rows_give_the_same_entries(self, store: Store, open_store: OpenStore) -> None:
        edits = [(float(at * at * 7 % 911 + at * 40), f"user {at % 3}") for at in range(40)]
        whole = await edit(store, *edits, name="whole")
        await summarise(store, whole)
        document_id = await edit(store, *edits[:17])
        await summarise(store, document_id, limit=3)
        async with open_store() as other:
            await edit(other, *edits[17:])
            await summarise(other, document_id, limit=5)
        assert await entries_of(store, document_id) == await entries_of(store, whole)

    async def test_a_portion_says_how_many_rows_are_left(self, store: Store) -> None:
        document_id = await edit(store, *[(float(at), "ada") for at in range(5)])
        done = [await store.summarise(document_id, now=AT + 4, spacing=None, limit=2) for _ in range(4)]
        assert [each and each.left for each in done] == [3, 1, 0, 0]
        assert [each and each.open_until for each in done[2:]] == [AT + 4 + PAUSE_SECONDS] * 2
        over = await store.summarise(document_id, now=AT + 4 + PAUSE_SECONDS, spacing=None)
        assert over is not None and over.open_until is None

    async def test_those_who_summarise_at_once_do_it_once(self, store: Store, open_store: OpenStore) -> None:
        document_id = await edit(store, *[(400.0 * at, "ada") for at in range(50)])
        async with open_store() as other:
            await asyncio.gather(*[summarise(each, document_id, limit=7) for each in (store, other, store)])
        found = await entries_of(store, document_id)
        assert [(each.first, each.last) for each in found] == [(seq, seq) for seq in range(1, 51)]

    async def test_resets_and_restores_stand_alone(self, store: Store) -> None:
        document_id = await edit(
            store, (0.0, "ada"), (1.0, "bob", Note(None, RESET)), (2.0, "ada"), (3.0, "ada", Note(None, RESTORE))
        )
        await summarise(store, document_id, limit=2)
        marks = [(each.first, each.last, each.mark) for each in await entries_of(store, document_id)]
        assert marks == [(1, 1, ""), (2, 2, RESET), (3, 3, ""), (4, 4, RESTORE)]

    async def test_an_entry_names_so_many_authors(self, store: Store) -> None:
        document_id = await edit(store, *[(float(at), f"user {at:03}") for at in range(MAX_SHARES + 20)])
        await summarise(store, document_id, limit=MAX_SHARES + 5)
        (entry,) = await entries_of(store, document_id)
        assert len(entry.shares) == MAX_SHARES and entry.others == 20 and entry.edits == MAX_SHARES + 20

    async def test_pages_go_on_behind_each_other(self, store: Store) -> None:
        document_id = await edit(store, *[(400.0 * at, "ada") for at in range(7)])
        await summarise(store, document_id)
        first = await store.timeline(document_id, limit=3)
        assert [each.first for each in first.entries] == [7, 6, 5]
        assert [each.first for each in (await store.timeline(document_id, before=5, limit=9)).entries] == [4, 3, 2, 1]
        assert (await store.timeline(document_id, before=1)).entries == []
        assert (first.reaches, first.summarised, first.head) == (1, 7, 7)

    async def test_a_page_says_what_is_not_in_it(self, store: Store) -> None:
        document_id = await edit(store, (0.0, "ada"), (1.0, "ada"))
        page = await store.timeline(document_id)
        assert (page.entries, page.summarised, page.head) == ([], 0, 2)
        with pytest.raises(DocumentNotFound):
            await store.timeline(document_id + 1_000)

    async def test_entries_outlive_their_rows(self, store: Store) -> None:
        document_id = await edit(store, *[(400.0 * at, "ada") for at in range(9)])
        await summarise(store, document_id)
        before = await entries_of(store, document_id)
        for seq in (4, 8):
            await store.write_snapshot(document_id, snapshot(seq))
        await pruned(store, before=LATER, limit=2)
        assert await entries_of(store, document_id) == before
        assert (await store.timeline(document_id)).reaches == 4

    async def test_rows_that_were_pruned_first_are_in_no_entry(self, store: Store) -> None:
        document_id = await edit(store, *[(float(at), "ada") for at in range(9)])
        await summarise(store, document_id, limit=1)
        await edit(store, (10.0, "ada"))
        late = await edit(store, *[(float(at), "ada") for at in range(9)], name="late")
        for each in (document_id, late):
            await store.write_snapshot(each, snapshot(4))
            await store.write_snapshot(each, snapshot(8))
        await pruned(store, before=LATER, limit=9)
        for each in (document_id, late):
            await summarise(store, each)
        assert [(each.first, each.last) for each in await entries_of(store, late)] == [(5, 9)]
        assert (await entries_of(store, document_id))[-1].last == 10

    async def test_pauses_become_automatic_versions(self, store: Store) -> None:
        document_id = await edit(store, (0.0, "ada"), (400.0, "ada"), (800.0, "ada"), (1_000.0, "ada"))
        await summarise(store, document_id, spacing=500.0)
        found = await store.versions(document_id)
        assert [(each.seq, each.at, each.kind, each.reason) for each in found] == [
            (4, AT + 1_000, Kind.AUTOMATIC, Reason.PAUSE),
            (1, AT, Kind.AUTOMATIC, Reason.PAUSE),
        ]
        none = await edit(store, (0.0, "ada"), (400.0, "ada"), name="none")
        await summarise(store, none)
        assert await store.versions(none) == []

    async def test_a_pause_that_goes_on_becomes_a_version_when_it_is_one(self, store: Store) -> None:
        document_id = await edit(store, (0.0, "ada"))
        await store.summarise(document_id, now=AT + PAUSE_SECONDS - 1, spacing=1.0)
        assert await store.versions(document_id) == []
        await store.summarise(document_id, now=AT + PAUSE_SECONDS, spacing=1.0)
        assert [each.seq for each in await store.versions(document_id)] == [1]

    async def test_documents_with_rows_in_no_entry_are_found(self, store: Store) -> None:
        ids = [await edit(store, (0.0, "ada"), name=name) for name in ("a", "b", "c", "d", "e")]
        await summarise(store, ids[1])
        await store.delete("d", AT)
        empty = await store.create("empty")
        found, last = await store.unsummarised(0, 2)
        assert (found, last) == ([ids[0]], ids[1])
        assert await store.unsummarised(ids[1], 9) == ([ids[2], ids[4]], None)
        await edit(store, (1.0, "ada"), name="b")
        found, _ = await store.unsummarised(ids[0], 9)
        assert found[0] == ids[1] and empty.id not in found

    async def test_a_timeline_has_a_bound(self, store: Store) -> None:
        note = Note(None, RESTORE)
        document_id = await edit(store, *[(float(at), "ada", note) for at in range(MAX_ENTRIES + 5)])
        await summarise(store, document_id, limit=7_000)
        page = await store.timeline(document_id, before=9)
        assert [each.first for each in page.entries] == [8, 7, 6]

    async def test_a_timeline_goes_with_its_document(self, store: Store) -> None:
        document_id = await edit(store, (0.0, "ada"))
        await summarise(store, document_id)
        await store.delete("d", AT)
        assert await store.summarise(document_id, now=LATER, spacing=None) is None
        with pytest.raises(DocumentNotFound):
            await store.timeline(document_id)
        await store.restore(document_id, at=AT)
        assert len(await entries_of(store, document_id)) == 1
        await store.delete("d", AT)
        await store.erase(document_id)
        assert (await put(store, "e", b"x")).document_id != document_id
        assert await store.summarise(document_id, now=LATER, spacing=None) is None
