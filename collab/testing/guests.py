"""The tests of names of guests: kept with the first row of each, beside snapshots and rows."""

from __future__ import annotations

from collab.errors import DocumentDeleted
from collab.storage.records import Append, Appended, NewGuest
from collab.storage.store import Store
from collab.testing.storage import AT, OnStorage, OpenStore, pruned, put, rows, snapshot, written

ADA, BOB = NewGuest("guest:a", "Guest of Ada", "17"), NewGuest("guest:b", "Guest of B\u00f6b \U0001f98a", None, 1)
NAMES = {guest.author: guest.name for guest in (ADA, BOB)}


def visit(name: str, document_id: int | None, *guests: NewGuest, data: tuple[bytes, ...] = (b"x", b"y")) -> Append:
    """Make an entry with rows and the guests who have sent them."""
    return Append(name, document_id, rows(*data), guests=guests)


class GuestsConformance(OnStorage):
    """The promise of :class:`collab.storage.log.Log` for guests. Run it as a part of ``StoreConformance``."""

    async def test_names_of_guests_are_kept_for_each_document(self, store: Store, open_store: OpenStore) -> None:
        first, other = await written(store, [visit("d", None, ADA, BOB), visit("other", None, ADA)])
        assert isinstance(first, Appended)
        assert isinstance(other, Appended)
        async with open_store() as second:
            for one in (store, second):
                assert await one.guest_names(first.document_id) == NAMES
                assert await one.guest_names(other.document_id) == {ADA.author: ADA.name}
                assert await one.guest_names(first.document_id, [BOB.author, "guest:c"]) == {BOB.author: BOB.name}
                assert await one.guest_names(first.document_id, []) == {}
                assert await one.guest_names(first.document_id + 1_000_000) == {}

    async def test_first_name_of_a_guest_stays(self, store: Store, open_store: OpenStore) -> None:
        later = ADA._replace(name="Guest of Eve", invited_by="66")
        plain = await put(store, "d", b"first")
        await store.keep_guest(plain.document_id, ADA)
        await store.keep_guest(plain.document_id, later)
        await store.keep_guest(plain.document_id + 1_000_000, ADA)
        await written(store, [visit("d", None, BOB, BOB._replace(name="Guest of Eve")), visit("d", None, later)])
        async with open_store() as other:
            (outcome,) = await written(other, [visit("d", plain.document_id, later)])
            assert outcome == Appended(plain.document_id, 6, 7), "the rows are written all the same"
        assert await store.guest_names(plain.document_id) == NAMES

    async def test_many_guests_in_one_batch(self, store: Store) -> None:
        guests = [NewGuest(f"guest:{number}", f"Guest {number}", row=number % 2) for number in range(1_201)]
        outcomes = await written(store, [visit(f"d {count}", None, *guests[:count]) for count in (1, 21, len(guests))])
        for count, outcome in zip((1, 21, len(guests)), outcomes, strict=True):
            assert isinstance(outcome, Appended)
            expected = {guest.author: guest.name for guest in guests[:count]}
            assert await store.guest_names(outcome.document_id) == expected
            assert await store.guest_names(outcome.document_id, [guest.author for guest in guests]) == expected

    async def test_names_of_guests_outlive_rows_and_go_with_their_document(self, store: Store) -> None:
        (first,) = await written(store, [visit("d", None, ADA, BOB, data=(b"1", b"2", b"3"))])
        assert isinstance(first, Appended)
        number = first.document_id
        for seq in (2, 3):
            await store.write_snapshot(number, snapshot(seq))
        assert await pruned(store, before=AT + 1, limit=1) > 0
        await store.rename("d", "e", AT)
        assert await store.guest_names(number) == NAMES
        await store.delete("e", AT)
        assert await store.guest_names(number) == {}, "of a document that is in the trash nothing is told"
        await store.restore(number, at=AT)
        assert await store.guest_names(number) == NAMES
        await store.delete("e", AT)
        await store.erase(number)
        (lost,) = await written(store, [visit("e", number, ADA)])
        assert isinstance(lost, DocumentDeleted)
        await store.keep_guest(number, ADA)
        again = await store.create("e", rows=rows(b"new"))
        assert await store.guest_names(number) == await store.guest_names(again.id) == {}
