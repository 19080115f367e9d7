"""The tests of pending updates: kept beside the log, changed in the transaction of the rows, in no state."""

from __future__ import annotations

from collab.errors import DocumentDeleted
from collab.storage.records import Append, Appended, Head, PendingChange, PendingUpdate
from collab.storage.store import Store
from collab.testing.storage import AT, OnStorage, OpenStore, data_of, pruned, put, rows, snapshot, written

ONE = PendingUpdate(b"\x01" * 16, bytes(range(256)), AT, "Ærin \x00 \ud83d")
TWO = PendingUpdate(b"\x00\xff" * 8, b"two", 1_763_900_000.123456, None)


def adding(*updates: PendingUpdate) -> PendingChange:
    """Make a change that keeps updates."""
    return PendingChange(updates, ())


async def kept(store: Store, name: str) -> list[PendingUpdate]:
    """Read the pending updates of a document, by both ways, without their numbers."""
    loaded = await store.load(name)
    assert loaded is not None
    assert list(loaded.pending) == await store.load_pending(loaded.document.id)
    numbers = [update.number for update in loaded.pending]
    assert numbers == sorted(set(numbers)) and 0 not in numbers
    heads = await store.heads([name])
    assert heads[name] == Head(loaded.document.id, loaded.document.head_seq, False, sum(numbers))
    return [update._replace(number=0) for update in loaded.pending]


class PendingConformance(OnStorage):
    """The promise of :class:`collab.storage.log.Log` for pending updates. Run it as a part of ``StoreConformance``."""

    async def test_pending_updates_are_kept_as_they_came_beside_the_rows(self, store: Store) -> None:
        (outcome,) = await written(store, [Append("d", None, rows(b"1"), adding(ONE, TWO))])
        assert isinstance(outcome, Appended) and outcome[1:] == (1, 1)
        assert await kept(store, "d") == [ONE, TWO]
        assert await data_of(store, "d") == [b"1"]
        assert await store.load_at(outcome.document_id, 1) == (
            None,
            (await store.rows_after(outcome.document_id, 0, 9)),
        )
        assert (await store.describe("d")).log_rows == 1
        assert await store.load_pending(outcome.document_id + 1_000_000) == []

    async def test_pending_updates_alone_create_a_document_and_move_no_number(self, store: Store) -> None:
        created, again = await written(store, [Append("d", None, (), adding(ONE)), Append("d", None, (), adding(TWO))])
        assert isinstance(created, Appended) and created[1:] == (1, 0) and again == created
        assert (await store.describe("d")).document.created_at == AT
        row, late = await written(
            store,
            [
                Append("d", created.document_id, rows(b"1")),
                Append("d", created.document_id, (), PendingChange((), (ONE.key,))),
            ],
        )
        assert row == Appended(created.document_id, 1, 1) and late == Appended(created.document_id, 2, 1)
        assert await kept(store, "d") == [TWO]
        assert await data_of(store, "d") == [b"1"]

    async def test_what_is_there_is_not_added_twice_and_what_is_not_there_is_settled(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        other = await put(store, "other", b"1")
        for document_id, name in ((first.document_id, "d"), (other.document_id, "other")):
            await written(store, [Append(name, document_id, (), adding(ONE))])
        before = await store.load_pending(first.document_id)
        change = PendingChange((ONE._replace(author="another"), TWO), (b"unknown",))
        await written(store, [Append("d", first.document_id, (), change)])
        assert await kept(store, "d") == [ONE, TWO]
        assert (await store.load_pending(first.document_id))[:1] == before
        await written(store, [Append("d", first.document_id, rows(b"2"), PendingChange((ONE,), (ONE.key, TWO.key)))])
        assert await kept(store, "d") == [ONE], "what is settled goes first"
        assert await kept(store, "other") == [ONE], "a key names an update of its own document"

    async def test_numbers_of_pending_updates_are_never_given_again(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        seen: set[int] = set()
        for _ in range(3):
            await written(store, [Append("d", first.document_id, (), adding(ONE, TWO))])
            numbers = {update.number for update in await store.load_pending(first.document_id)}
            assert len(numbers) == 2 and not numbers & seen
            seen |= numbers
            await written(store, [Append("d", first.document_id, (), PendingChange((), (ONE.key, TWO.key)))])
            assert (await store.heads(["d"]))["d"].pending == 0

    async def test_pending_updates_are_there_for_a_store_that_is_opened_later(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            first = await put(store, "d", b"1", b"2")
            await written(store, [Append("d", first.document_id, (), adding(ONE))])
        async with open_store() as store:
            assert await kept(store, "d") == [ONE]

    async def test_snapshots_and_pruning_leave_pending_updates_alone(self, store: Store) -> None:
        first = await put(store, "d", b"1", b"2", b"3", at=AT)
        await written(store, [Append("d", first.document_id, (), adding(ONE._replace(at=1.0)))])
        for seq in (2, 3):
            await store.write_snapshot(first.document_id, snapshot(seq))
        assert await pruned(store, before=AT + 1, limit=100) > 0
        assert await kept(store, "d") == [ONE._replace(at=1.0)]

    async def test_pending_updates_go_with_their_document(self, store: Store) -> None:
        first = await put(store, "d", b"1")
        await written(store, [Append("d", first.document_id, (), adding(ONE))])
        (empty,) = await written(store, [Append("empty", None, (), adding(ONE))])
        assert isinstance(empty, Appended)
        for name in ("d", "empty"):
            await store.delete(name, AT)
        lost = await written(
            store, [Append("d", first.document_id, (), adding(TWO)), Append("d", None, (), adding(TWO))]
        )
        assert all(isinstance(outcome, DocumentDeleted) for outcome in lost)
        assert await store.load_pending(first.document_id) == [] == await store.load_pending(empty.document_id)
        await pruned(store, before=0.0, limit=100)
        for name in ("d", "empty"):
            await store.create(name)
            assert await kept(store, name) == []
