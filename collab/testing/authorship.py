"""The tests of authorship: what edits over HTTP say of themselves, and whose the client IDs of a document are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from collab.authorship import MAX_NOTE_BYTES, Note
from collab.errors import DocumentDeleted
from collab.storage.checksums import seal_row
from collab.storage.records import Append, Appended, ClientOwner, LogRow, NewOwner
from collab.storage.store import Store
from collab.testing.storage import AT, Moments, OnStorage, OpenStore, pruned, put, rows, snapshot, written

NOTES = (
    Note("ada", "model \U0001f98a"),
    None,
    Note("", None),
    Note(None, ""),
    Note("nul \x00 and \ud83d alone", "x" * MAX_NOTE_BYTES),
)

# The largest client ID that an update can hold, one above 32 bits, and the smallest.
LARGEST, LARGE, SMALLEST = 2**53 - 1, 2**32 + 5, 0


def own(name: str, document_id: int | None, data: Sequence[bytes], *owners: NewOwner) -> Append:
    """Make an entry with rows and whose client IDs they decide."""
    return Append(name, document_id, rows(*data), owners=owners)


async def owners_of(store: Store, document_id: int) -> list[ClientOwner]:
    """Read whose the client IDs of a document are, a page at a time."""
    found: list[ClientOwner] = []
    while page := await store.client_owners(document_id, found[-1].client if found else -1, 2):
        assert len(page) <= 2
        found += page
    return found


class AuthorshipConformance(OnStorage):
    """The promise of :class:`collab.storage.log.Log` for authorship. Run it as a part of ``StoreConformance``."""

    # Notes.

    async def test_rows_keep_their_notes(self, store: Store) -> None:
        made = tuple(seal_row(b"%d" % at, AT + at, "robot", note) for at, note in enumerate(NOTES))
        plain, noted = Append("plain", None, made[1:2]), Append("noted", None, made)
        first = await written(store, [plain, noted])
        assert all(isinstance(outcome, Appended) for outcome in first)
        # Where both are known, and once more together with a document that is not.
        for batch in ([plain, noted], [noted, Append("new", None, made[:1])]):
            await written(store, batch)
        created = await store.create("created", rows=made)
        for name, expected in (("noted", made * 3), ("plain", made[1:2] * 2), ("new", made[:1]), ("created", made)):
            loaded = await store.load(name)
            assert loaded is not None
            assert loaded.rows == [LogRow(seq, *row) for seq, row in enumerate(expected, 1)]
            assert await store.rows_after(loaded.document.id, 0, 99) == loaded.rows
        assert await store.load_at(created.id, 2) == (None, [LogRow(seq, *made[seq - 1]) for seq in (1, 2)])

    # Whose client IDs are.

    async def test_owners_are_kept_with_the_numbers_of_their_rows(self, store: Store) -> None:
        exotic, none = NewOwner(LARGE, "\u00c6rin \x00 \ud83d", 1_763_900_000.123456, 7, 1), NewOwner(5, None, AT, 0)
        (first,) = await written(store, [own("d", None, [b"1"], NewOwner(LARGEST, "ann", AT, 2**40))])
        assert isinstance(first, Appended)
        await written(
            store,
            [
                own("d", first.document_id, [b"2", b"3"], exotic),
                own("other", None, [b"1"], NewOwner(SMALLEST, "another", AT, 0)),
                own("d", None, [b"4"], NewOwner(SMALLEST, "bob", AT, 3), none),
                own("d", first.document_id, [], NewOwner(9, "healed", AT, 1)),
            ],
        )
        expected = [
            ClientOwner(SMALLEST, "bob", AT, 3, 4),
            ClientOwner(5, None, AT, 0, 4),
            ClientOwner(9, "healed", AT, 1, 4),
            ClientOwner(LARGE, exotic.author, exotic.at, 7, 3),
            ClientOwner(LARGEST, "ann", AT, 2**40, 1),
        ]
        assert await owners_of(store, first.document_id) == expected
        assert await store.client_owners(first.document_id, LARGE, 9) == expected[-1:]
        assert await store.client_owners(first.document_id + 1_000_000, -1, 9) == []
        assert (await store.describe("d")).document.head_seq == 4

    async def test_many_owners_of_many_documents_in_one_batch(self, store: Store) -> None:
        batch = [
            own(f"d {at}", None, [b"1"], *[NewOwner(client, f"user {client}", AT, at) for client in range(at)])
            for at in range(41)
        ]
        outcomes = await written(store, batch)
        for at, outcome in enumerate(outcomes):
            assert isinstance(outcome, Appended)
            found = await store.client_owners(outcome.document_id, -1, 99)
            assert found == [ClientOwner(client, f"user {client}", AT, at, 1) for client in range(at)]

    async def test_first_owner_of_a_client_id_stays(self, store: Store, open_store: OpenStore) -> None:
        bob, eve = NewOwner(1, "bob", AT, 0), NewOwner(1, "eve", AT, 0)
        (first,) = await written(store, [own("d", None, [b"1"], NewOwner(2, None, AT, 0))])
        assert isinstance(first, Appended)
        # Within one entry and one batch, by another store, and for an ID that belongs to nobody in particular.
        await written(store, [own("d", None, [b"2", b"3"], bob, eve._replace(row=1)), own("d", None, [b"4"], eve)])
        async with open_store() as other:
            (outcome,) = await written(other, [own("d", first.document_id, [b"5"], eve, eve._replace(client=2))])
            assert outcome == Appended(first.document_id, 5, 5), "the rows are written all the same"
            for one in (store, other):
                found = await owners_of(one, first.document_id)
                assert found == [ClientOwner(1, "bob", AT, 0, 2), ClientOwner(2, None, AT, 0, 1)]

    async def test_of_two_stores_at_once_the_first_commit_decides(self, store: Store, open_store: OpenStore) -> None:
        first = await put(store, "d", b"first")
        async with open_store() as other:
            for client in range(40):
                await asyncio.gather(
                    *[
                        written(one, [own("d", first.document_id, [b"x"], NewOwner(client, author, AT, place))])
                        for place, (one, author) in enumerate(((store, "ann"), (other, "bob")))
                    ]
                )
                (found,) = await store.client_owners(first.document_id, client - 1, 1)
                assert [found] == await other.client_owners(first.document_id, client - 1, 1)
                # Of the two rows of this round it is the one with the lower number, with all that belongs to it.
                assert found.seq == 2 * client + 2
                assert (found.author, found.clock) in (("ann", 0), ("bob", 1))

    async def test_repeat_of_an_append_that_was_cut_off_keeps_its_owners(
        self, store: Store, open_store: OpenStore
    ) -> None:
        moments = await Moments.measure(store)
        known = await put(store, "known", b"first")
        async with open_store() as other:
            for number in range(len(moments)):
                batch = [own("known", known.document_id, [b"x", b"y"], NewOwner(number, "ann", AT, 0, 1))]
                outcomes = await moments.cut_off(store, batch, number)
                if outcomes is None:
                    outcomes = await written(store, batch)
                (outcome,) = outcomes
                assert isinstance(outcome, Appended)
                await written(other, [own("known", known.document_id, [b"z"], NewOwner(number, "eve", AT, 0))])
                found = await store.client_owners(known.document_id, number - 1, 1)
                assert found == [ClientOwner(number, "ann", AT, 0, outcome.last_seq)]

    async def test_owners_outlive_rows_snapshots_and_names(self, store: Store) -> None:
        (first,) = await written(store, [own("d", None, [b"1", b"2", b"3"], NewOwner(1, "ann", 1.0, 0))])
        assert isinstance(first, Appended)
        for seq in (2, 3):
            await store.write_snapshot(first.document_id, snapshot(seq))
        assert await pruned(store, before=AT + 1, limit=1) > 0
        assert (await store.describe("d")).log_rows == 1
        await store.rename("d", "e", AT)
        assert await owners_of(store, first.document_id) == [ClientOwner(1, "ann", 1.0, 0, 1)]

    async def test_owners_go_with_their_document(self, store: Store) -> None:
        owners = [NewOwner(client, "ann", AT, 0) for client in range(7)]
        (first,) = await written(store, [own("d", None, [b"1"], *owners)])
        assert isinstance(first, Appended)
        await store.delete("d", AT)
        assert await store.client_owners(first.document_id, -1, 99) == []
        (lost,) = await written(store, [own("d", first.document_id, [b"2"], NewOwner(9, "eve", AT, 0))])
        assert isinstance(lost, DocumentDeleted)
        assert await pruned(store, before=0.0, limit=3) == 8
        again = await store.create("d", rows=rows(b"new"))
        assert await store.client_owners(again.id, -1, 99) == []
        assert await pruned(store, before=0.0, limit=3) == 0

    async def test_owners_come_back_with_a_document_that_is_restored(self, store: Store) -> None:
        (first,) = await written(store, [own("d", None, [b"1"], NewOwner(1, "ann", AT, 0))])
        assert isinstance(first, Appended)
        await store.delete("d", AT)
        await store.restore(first.document_id, at=AT)
        assert await owners_of(store, first.document_id) == [ClientOwner(1, "ann", AT, 0, 1)]

    async def test_nothing_is_left_to_prune_of_a_document_with_owners_that_was_erased(self, store: Store) -> None:
        (first,) = await written(store, [own("d", None, [b"1"], *[NewOwner(each, "ann", AT, 0) for each in range(9)])])
        assert isinstance(first, Appended)
        await store.delete("d", AT)
        await store.erase(first.document_id)
        assert await store.prune(before=0.0, limit=100) == 0
