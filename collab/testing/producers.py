"""The tests of producers: the numbers of those who post updates, and retry."""

from __future__ import annotations

import asyncio

from collab.errors import DocumentDeleted
from collab.storage.producers import MAX_PRODUCERS, NewProducer, ProducerNumbers
from collab.storage.records import Append, Appended
from collab.storage.store import Store
from collab.testing.storage import AT, Moments, OnStorage, OpenStore, pruned, put, rows, written

ANN, BOB = b"ann".ljust(16, b"\0"), b"bob".ljust(16, b"\xff")

LARGEST = 2**53 - 1


def posted(name: str, document_id: int | None, *producers: NewProducer, data: bytes = b"x") -> Append:
    """Make an entry with a row and the numbers that come with it."""
    return Append(name, document_id, rows(data), producers=producers)


class ProducersConformance(OnStorage):
    """The promise of :class:`collab.storage.log.Log` for producers. Run it as a part of ``StoreConformance``."""

    async def test_numbers_of_producers_are_kept_with_the_rows(self, store: Store, open_store: OpenStore) -> None:
        (first,) = await written(store, [posted("d", None, NewProducer(ANN, 0, 0, AT, True))])
        assert isinstance(first, Appended)
        await written(
            store,
            [
                posted(
                    "d", first.document_id, NewProducer(ANN, 0, 1, AT), NewProducer(BOB, LARGEST, LARGEST, AT, True)
                ),
                posted("other", None, NewProducer(ANN, 7, 0, AT, True)),
                posted("d", first.document_id, NewProducer(ANN, 0, 2, AT)),
            ],
        )
        async with open_store() as other:
            assert await other.producer(first.document_id, ANN) == ProducerNumbers(0, 2)
            assert await other.producer(first.document_id, BOB) == ProducerNumbers(LARGEST, LARGEST)
            assert await other.producer(first.document_id, b"nobody") is None
            assert await other.producer(first.document_id + 1_000, ANN) is None
            assert (await other.heads(["d"]))["d"].seq == 3

    async def test_numbers_of_a_producer_never_become_lower(self, store: Store, open_store: OpenStore) -> None:
        (first,) = await written(store, [posted("d", None, NewProducer(ANN, 3, 9, AT, True))])
        assert isinstance(first, Appended)
        async with open_store() as other:
            for each, epoch, seq in ((other, 3, 8), (store, 2, 100), (other, 3, 9)):
                await written(each, [posted("d", first.document_id, NewProducer(ANN, epoch, seq, AT + 1))])
                assert await store.producer(first.document_id, ANN) == ProducerNumbers(3, 9)
            await written(other, [posted("d", first.document_id, NewProducer(ANN, 4, 0, AT + 2))])
        assert await store.producer(first.document_id, ANN) == ProducerNumbers(4, 0)

    async def test_of_two_stores_that_count_at_once_the_higher_number_stays(
        self, store: Store, open_store: OpenStore
    ) -> None:
        document_id = (await put(store, "d", b"1")).document_id
        async with open_store() as other:
            for seq in range(0, 20, 2):
                mine, theirs = (posted("d", document_id, NewProducer(ANN, 0, seq + at, AT)) for at in (0, 1))
                await asyncio.gather(written(store, [mine]), written(other, [theirs]))
                assert await store.producer(document_id, ANN) == ProducerNumbers(0, seq + 1)

    async def test_numbers_of_what_was_refused_are_not_kept(self, store: Store) -> None:
        document_id = (await put(store, "gone", b"1")).document_id
        await store.delete("gone", AT)
        refused, kept = await store.append(
            [
                posted("gone", document_id, NewProducer(ANN, 0, 0, AT, True)),
                posted("d", None, NewProducer(ANN, 0, 5, AT, True)),
            ]
        )
        assert isinstance(refused, DocumentDeleted) and isinstance(kept, Appended)
        assert await store.producer(document_id, ANN) is None
        assert await store.producer(kept.document_id, ANN) == ProducerNumbers(0, 5)

    async def test_repeat_of_an_append_that_was_cut_off_keeps_its_numbers(self, store: Store) -> None:
        moments = await Moments.measure(store)
        document_id = (await put(store, "d", b"1")).document_id
        for number in range(len(moments)):
            batch = [posted("d", document_id, NewProducer(ANN, 0, number, AT, number == 0))]
            if await moments.cut_off(store, batch, number) is None:
                await written(store, batch)
            assert await store.producer(document_id, ANN) == ProducerNumbers(0, number)
            assert (await store.heads(["d"]))["d"].seq == number + 2

    async def test_producers_of_a_document_are_bounded_and_those_that_were_used_last_stay(self, store: Store) -> None:
        document_id = (await put(store, "d", b"1")).document_id
        other = (await put(store, "other", b"1")).document_id
        await written(store, [posted("other", other, NewProducer(ANN, 0, 0, AT, True))])
        keys = [number.to_bytes(16) for number in range(MAX_PRODUCERS + 20)]
        for begin in range(0, len(keys), 100):
            portion = enumerate(keys[begin : begin + 100], begin)
            new = [NewProducer(key, 0, 0, AT + 10_000.0 * at, True) for at, key in portion]
            await written(store, [posted("d", document_id, *new)])
        found = [await store.producer(document_id, keys[at]) for at in (0, 10, 19, 20, 21, MAX_PRODUCERS, -1)]
        assert found == [None] * 3 + [ProducerNumbers(0, 0)] * 4
        assert await store.producer(other, ANN) == ProducerNumbers(0, 0)

    async def test_a_producer_that_is_used_stays(self, store: Store) -> None:
        document_id = (await put(store, "d", b"1")).document_id
        keys = [number.to_bytes(16) for number in range(MAX_PRODUCERS)]
        await written(store, [posted("d", document_id, *[NewProducer(key, 0, 0, AT, True) for key in keys])])
        await written(store, [posted("d", document_id, NewProducer(keys[0], 0, 1, AT + 20_000.0))])
        more = [NewProducer(b"more" + key[4:], 0, 0, AT + 10_000.0, True) for key in keys[:5]]
        await written(store, [posted("d", document_id, *more)])
        assert await store.producer(document_id, keys[0]) == ProducerNumbers(0, 1)

    async def test_producers_that_nobody_uses_are_forgotten(self, store: Store) -> None:
        long_ago = 1_000_000_000.0
        (first,) = await written(store, [posted("d", None, NewProducer(ANN, 0, 0, long_ago, True))])
        assert isinstance(first, Appended)
        now = (await store.describe("d")).document.updated_at
        await written(store, [posted("d", first.document_id, NewProducer(BOB, 0, 0, max(now, 4e9), True))])
        await pruned(store, before=0.0, limit=100)
        assert await store.producer(first.document_id, ANN) is None
        assert await store.producer(first.document_id, BOB) == ProducerNumbers(0, 0)

    async def test_producers_go_with_their_document(self, store: Store) -> None:
        (first,) = await written(store, [posted("d", None, NewProducer(ANN, 0, 0, 4e9, True))])
        assert isinstance(first, Appended)
        await store.delete("d", AT)
        assert await store.producer(first.document_id, ANN) is None
        await store.restore(first.document_id, at=AT)
        assert await store.producer(first.document_id, ANN) == ProducerNumbers(0, 0)
        await store.delete("d", AT)
        await store.erase(first.document_id)
        assert await store.producer(first.document_id, ANN) is None
        (again,) = await written(store, [Append("d", None, rows(b"1"))])
        assert isinstance(again, DocumentDeleted)
