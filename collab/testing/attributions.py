"""The tests of kept attributions: the newest one of each document, beside its snapshots."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import StoreRefused
from collab.storage.attributions import MAX_ATTRIBUTION_BYTES, KeptAttribution
from collab.storage.store import Store
from collab.testing.storage import AT, OnStorage, OpenStore, pruned, put, snapshot

MADE = bytes(range(256)) * 300


class AttributionsConformance(OnStorage):
    """The promise of :mod:`collab.storage.attributions`. Run it as a part of ``StoreConformance``."""

    async def test_the_newest_attribution_of_a_document_is_kept(self, store: Store, open_store: OpenStore) -> None:
        document_id = (await put(store, "d", b"1", b"2", b"3")).document_id
        other_id = (await put(store, "other", b"1")).document_id
        assert await store.attribution(document_id) is None
        assert await store.keep_attribution(document_id, KeptAttribution(1, MADE))
        assert await store.keep_attribution(other_id, KeptAttribution(1, b"other"))
        async with open_store() as another:
            assert await another.attribution(document_id) == KeptAttribution(1, MADE)
            assert await another.keep_attribution(document_id, KeptAttribution(3, b"newest"))
        for late in (KeptAttribution(2, b"late"), KeptAttribution(3, b"again"), KeptAttribution(4, b"no such row")):
            assert not await store.keep_attribution(document_id, late)
        assert not await store.keep_attribution(other_id + 1_000, KeptAttribution(1, b"nobody"))
        assert await store.attribution(other_id + 1_000) is None
        assert await store.attribution(document_id) == KeptAttribution(3, b"newest")
        assert await store.attribution(other_id) == KeptAttribution(1, b"other")

    async def test_of_two_stores_that_keep_an_attribution_at_once_the_newest_stays(
        self, store: Store, open_store: OpenStore
    ) -> None:
        async with open_store() as another:
            for round_ in range(8):
                document_id = (await put(store, f"d{round_}", b"1", b"2", b"3", b"4")).document_id
                kept = [KeptAttribution(seq, b"%d" % seq) for seq in (1, 4, 2, 3)]
                stores = (store, another, store, another)
                done = await asyncio.gather(
                    *(each.keep_attribution(document_id, one) for each, one in zip(stores, kept, strict=True))
                )
                assert done[1]
                assert await store.attribution(document_id) == kept[1]

    async def test_an_attribution_outlives_rows_snapshots_and_names(self, store: Store) -> None:
        document_id = (await put(store, "d", *[b"x"] * 6)).document_id
        assert await store.keep_attribution(document_id, KeptAttribution(5, MADE))
        for seq in (4, 6):
            await store.write_snapshot(document_id, snapshot(seq))
        assert await pruned(store, before=AT + 9, limit=3) > 0
        await store.rename("d", "renamed", AT)
        assert await store.attribution(document_id) == KeptAttribution(5, MADE)

    async def test_an_attribution_goes_with_its_document(self, store: Store) -> None:
        document_id = (await put(store, "d", b"1")).document_id
        await store.keep_attribution(document_id, KeptAttribution(1, MADE))
        await store.delete("d", AT)
        assert await store.attribution(document_id) is None
        assert not await store.keep_attribution(document_id, KeptAttribution(1, MADE))
        await store.restore(document_id, at=AT)
        assert await store.attribution(document_id) == KeptAttribution(1, MADE)
        await store.delete("d", AT)
        await pruned(store, before=0.0, limit=9)
        assert await store.attribution(document_id) is None

    async def test_an_attribution_may_be_too_long(self, store: Store) -> None:
        document_id = (await put(store, "d", b"1")).document_id
        with pytest.raises(StoreRefused):
            await store.keep_attribution(document_id, KeptAttribution(1, bytes(MAX_ATTRIBUTION_BYTES + 1)))
        assert await store.attribution(document_id) is None
