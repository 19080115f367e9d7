"""The tests of tenants: counters by months, own quotas, what documents take, and whose they are."""

from __future__ import annotations

import asyncio

from collab.storage.store import Store
from collab.storage.tenants import Counted, TenantRecord
from collab.testing.storage import AT, OnStorage, OpenStore, pruned, put

MONTH = 2026 * 12


class TenantsConformance(OnStorage):
    """The promise of :mod:`collab.storage.tenants`. Run it as a part of ``StoreConformance``."""

    async def test_counts_are_added_once_by_months(self, store: Store, open_store: OpenStore) -> None:
        assert await store.tenants(MONTH) == []
        counted = [Counted("b", 2, 100, 1_500, 3, 4), Counted("a", 1, 10, 0, 0, 1)]
        await store.add_usage("n1", 1, MONTH, counted)
        await store.add_usage("n1", 1, MONTH, counted)  # its outcome was not known
        await store.add_usage("n1", 2, MONTH + 1, [Counted("b", 7, 7, 7, 3, 3)])
        async with open_store() as another:
            await another.add_usage("n2", 1, MONTH, [Counted("b", 1, 1, 1, 2, 5)])
            found = await another.tenants_named(MONTH, ["b", "a", "unknown"])
        # 5 at once on the second node, while the first had 3.
        assert found == {
            "a": TenantRecord("a", 1, 10, 0, 1, 0),
            "b": TenantRecord("b", 3, 101, 1_501, 8, 5),
        }
        next_month = await store.tenants_named(MONTH + 1, ["b"])
        assert next_month["b"] == TenantRecord("b", 7, 7, 7, 3, 5)
        await store.add_usage("n1", 3, MONTH, [Counted("b")])
        assert (await store.tenants_named(MONTH, ["b"]))["b"].connections == 2

    async def test_nodes_add_at_once(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as another:
            for batch in range(1, 6):
                counted = [Counted(f"t{number}", 1) for number in range(5)]
                await asyncio.gather(
                    store.add_usage("n1", batch, MONTH, counted),
                    another.add_usage("n2", batch, MONTH, counted[::-1]),
                )
        assert [record.edits for record in await store.tenants(MONTH)] == [10] * 5

    async def test_tenants_are_listed_in_pages(self, store: Store) -> None:
        for name in ("b", "é", "a", "-", "\U0001f600", "￾"):
            await store.set_quota(name, None)
        names, after = [], None
        while page := await store.tenants(MONTH, after=after, limit=2):
            names += [record.tenant for record in page]
            after = names[-1]
        assert names == ["-", "a", "b", "é", "￾", "\U0001f600"]

    async def test_quotas_and_sizes_are_kept_apart_from_counts(self, store: Store) -> None:
        quota = {"documents": 3, "bytes_stored": None}
        await store.set_quota("a", quota)
        await store.note_measured("a", 2, 2**40, AT)
        await store.add_usage("n", 1, MONTH, [Counted("a", 1)])
        expected = TenantRecord("a", 1, documents=2, nbytes=2**40, measured_at=AT, quota=quota)
        assert await store.tenants(MONTH) == [expected]
        await store.set_quota("a", {})
        assert await store.tenants(MONTH) == [expected._replace(quota=None)]

    async def test_a_document_stays_with_its_first_tenant(self, store: Store) -> None:
        ids = [(await put(store, f"d{number}", b"12345")).document_id for number in range(4)]
        assert await store.tenant_of(ids[0]) is None
        await store.give_documents("a", ids[:3])
        await store.give_documents("b", ids)
        assert [await store.tenant_of(each) for each in ids] == ["a", "a", "a", "b"]
        await store.delete("d1", AT)
        first = await store.documents_of("a", 0, 1)
        assert [(each.document.name, each.tail_bytes) for each in first] == [("d0", 5)]
        assert [each.document.name for each in await store.documents_of("a", ids[0], 9)] == ["d2"]
        await pruned(store, before=0.0, limit=9)
        assert await store.tenant_of(ids[1]) is None
        assert [each.document.name for each in await store.documents_of("b", 0, 9)] == ["d3"]
