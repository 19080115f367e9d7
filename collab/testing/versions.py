"""The tests of versions: names of numbers, and what pruning leaves for them."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import (
    DocumentNotFound,
    HistoryGone,
    LimitExceeded,
    NoSuchVersion,
    StoreRefused,
    TooManyVersions,
)
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import MAX_ROW_BYTES, Append, Snapshot
from collab.storage.store import Store
from collab.storage.versions import (
    MAX_AUTOMATIC,
    MAX_DESCRIPTION_BYTES,
    MAX_NAME_BYTES,
    MAX_NAMED,
    History,
    Kind,
    NewVersion,
    Reason,
    Version,
)
from collab.storage.webhooks import VERSION_MADE, Subscription
from collab.testing.storage import AT, OnStorage, OpenStore, pruned, snapshot, written


def new(name: str = "v", description: str | None = None, author: str | None = "ada", at: float = AT) -> NewVersion:
    """Make a version that is to be kept."""
    return NewVersion(name, description, author, at)


async def edited(store: Store, name: str = "d", count: int = 10) -> int:
    """Make a document of rows, a second apart from each other; give its id."""
    rows = tuple(seal_row(b"row %d" % seq, AT + seq, "ada") for seq in range(1, count + 1))
    await written(store, [Append(name, None, rows)])
    return (await store.describe(name)).document.id


async def names_of(store: Store, document_id: int, kind: Kind | None = None) -> list[str | None]:
    """List the names of versions."""
    return [each.name for each in await store.versions(document_id, kind=kind)]


async def with_snapshots(store: Store, *numbers: int, name: str = "d", count: int = 10) -> int:
    """Make a document with snapshots; give its id."""
    document_id = await edited(store, name, count)
    for seq in numbers:
        assert await store.write_snapshot(document_id, snapshot(seq, AT + seq))
    return document_id


class VersionsConformance(OnStorage):
    """The promise of :class:`collab.storage.versions.Versions`. Run it as a part of ``StoreConformance``."""

    # Making.

    async def test_a_version_keeps_what_is_said_of_it(self, store: Store, open_store: OpenStore) -> None:
        document_id = await edited(store)
        said = NewVersion("Æther \U0001f98a \0", "two\nlines", "b\ud83db", AT + 0.123456)
        made = await store.make_version(document_id, 4, said)
        expected = Version(
            made.id,
            4,
            Kind.NAMED,
            Reason.MADE,
            "Æther \U0001f98a \0",
            "two\nlines",
            "b\ud83db",
            AT + 0.123456,
            pinned=False,
        )
        assert made == expected
        async with open_store() as other:
            assert await other.version(document_id, made.id) == expected
            assert await other.versions(document_id) == [expected]
        bare = await store.make_version(document_id, 4, NewVersion("same number", None, None, AT))
        assert bare.id != made.id and (bare.description, bare.author) == (None, None)

    async def test_a_version_is_of_a_number_that_is_there(self, store: Store) -> None:
        document_id = await edited(store, count=3)
        for seq in (0, -1, 4, 2**40):
            with pytest.raises(HistoryGone):
                await store.make_version(document_id, seq, new())
            assert await store.make_automatic(document_id, seq, Reason.PAUSE, AT, 1.0) is None
        for unknown in (document_id + 1_000, 0):
            with pytest.raises(DocumentNotFound):
                await store.make_version(unknown, 1, new())
        assert await store.versions(document_id) == []

    async def test_a_version_of_what_is_pruned_is_refused(self, store: Store) -> None:
        document_id = await with_snapshots(store, 5, 9)
        assert await pruned(store, before=AT + 99, limit=3) == 5
        for seq in (1, 4):
            with pytest.raises(HistoryGone):
                await store.make_version(document_id, seq, new())
        for seq in (5, 6, 10):
            assert (await store.make_version(document_id, seq, new())).seq == seq

    async def test_named_versions_have_a_bound(self, store: Store) -> None:
        document_id = await edited(store)
        for number in range(MAX_NAMED - 1):
            await store.make_version(document_id, 1 + number % 10, new(f"{number}"))
        state = seal_snapshot(Snapshot(0, b"imported", b"", b"", AT))
        await store.import_version(document_id, new("imported"), state)
        with pytest.raises(TooManyVersions):
            await store.make_version(document_id, 1, new())
        with pytest.raises(TooManyVersions):
            await store.import_version(document_id, new(), state)
        (first, *_) = await store.versions(document_id, limit=1)
        await store.delete_version(document_id, first.id)
        await store.make_version(document_id, 1, new())
        assert len(await store.versions(document_id, limit=MAX_NAMED + 9)) == MAX_NAMED

    async def test_texts_have_a_bound(self, store: Store) -> None:
        document_id = await edited(store)
        longest = NewVersion("n" * MAX_NAME_BYTES, "d" * MAX_DESCRIPTION_BYTES, None, AT)
        made = await store.make_version(document_id, 1, longest)
        with pytest.raises(LimitExceeded):
            await store.change_version(document_id, made.id, name="n" * (MAX_NAME_BYTES + 1))
        with pytest.raises(LimitExceeded):
            await store.change_version(document_id, made.id, description="é" * MAX_DESCRIPTION_BYTES)
        assert await store.version(document_id, made.id) == made
        assert (made.name, made.description) == (longest.name, longest.description)

    async def test_receivers_are_told_of_a_version(self, store: Store) -> None:
        document_id = await edited(store)
        assert await store.claim_delivery("node", 60.0)
        await store.subscribe("node", [Subscription("r", (VERSION_MADE,), "")])
        made = await store.make_version(document_id, 7, new("told"))
        await store.make_automatic(document_id, 8, Reason.PAUSE, AT, 1.0)
        due = await store.due("r", 9, ())
        assert [(each.kind, each.name) for each in due] == [(VERSION_MADE, "d")]
        said = [(each.data["version"], each.data["name"], each.data["number"]) for each in due]
        assert said == [(made.id, "told", 7)]

    # Automatic ones.

    async def test_automatic_versions_keep_a_distance(self, store: Store) -> None:
        document_id = await edited(store)
        first = await store.make_automatic(document_id, 2, Reason.PAUSE, AT + 100, 60.0)
        assert first is not None
        assert first._replace(id=0) == Version(
            0, 2, Kind.AUTOMATIC, Reason.PAUSE, None, None, None, AT + 100, pinned=False
        )
        for at in (AT + 41, AT + 159, AT + 100):
            assert await store.make_automatic(document_id, 3, Reason.AGENT, at, 60.0) is None
        later = await store.make_automatic(document_id, 3, Reason.RESET, AT + 160, 60.0)
        earlier = await store.make_automatic(document_id, 1, Reason.RESTORE, AT + 40, 60.0)
        assert later is not None and earlier is not None
        assert await store.versions(document_id) == [later, first, earlier]
        assert [each.reason for each in (later, earlier)] == [Reason.RESET, Reason.RESTORE]

    async def test_a_number_has_one_automatic_version(self, store: Store, open_store: OpenStore) -> None:
        document_id = await edited(store)
        await store.make_version(document_id, 3, new())
        assert await store.make_automatic(document_id, 3, Reason.PAUSE, AT, 0.0) is None
        async with open_store() as other:
            calls = [each.make_automatic(document_id, 4, Reason.PAUSE, AT, 0.0) for each in (store, other, store)]
            made = [each for each in await asyncio.gather(*calls) if each is not None]
        assert len(made) == 1
        named = await store.make_version(document_id, 4, new("named"))
        assert named.id == made[0].id and named.kind is Kind.NAMED
        assert await names_of(store, document_id) == ["named", "v"]

    async def test_the_oldest_automatic_versions_go_for_newer_ones(self, store: Store) -> None:
        document_id = await edited(store, count=MAX_AUTOMATIC + 3)
        kept = await store.make_version(document_id, 1, new())
        for seq in range(2, MAX_AUTOMATIC + 4):
            assert await store.make_automatic(document_id, seq, Reason.PAUSE, AT + seq, 0.5) is not None
        found = await store.versions(document_id, limit=MAX_AUTOMATIC + 9)
        assert len(found) == MAX_AUTOMATIC + 1 and found[-1] == kept and found[-2].seq == 4

    # Listing, changing, deleting.

    async def test_versions_are_listed_from_the_newest_in_pages(self, store: Store) -> None:
        document_id = await edited(store)
        other = await edited(store, "other")
        await store.make_version(other, 5, new("not this one"))
        state = seal_snapshot(Snapshot(0, b"imported", b"", b"", AT))
        made = [
            await store.import_version(document_id, new(at=AT - 50), state),
            await store.import_version(document_id, new(at=AT - 20), state),
            await store.make_version(document_id, 3, new(at=AT + 3)),
            await store.make_automatic(document_id, 5, Reason.PAUSE, AT + 9, 1.0),
            await store.make_version(document_id, 5, new(at=AT + 90)),
            await store.make_version(document_id, 5, new(at=AT + 80)),
            await store.make_version(document_id, 2, new(at=AT + 99)),
        ]
        ids = [made[each].id for each in (4, 5, 2, 6, 1, 0)]  # type: ignore[union-attr]
        assert [each.id for each in await store.versions(document_id)] == ids
        paged: list[Version] = []
        while page := await store.versions(document_id, after=paged[-1].place if paged else None, limit=2):
            assert len(page) <= 2
            paged += page
        assert [each.id for each in paged] == ids
        between = await store.versions(document_id, between=(3, 5), limit=2)
        assert [each.id for each in between] == ids[:2]
        assert await store.versions(document_id, between=(6, 9)) == []

    async def test_versions_are_listed_by_kind(self, store: Store) -> None:
        document_id = await edited(store)
        named = await store.make_version(document_id, 2, new())
        automatic = await store.make_automatic(document_id, 3, Reason.PAUSE, AT, 1.0)
        assert await store.versions(document_id, kind=Kind.NAMED) == [named]
        assert await store.versions(document_id, kind=Kind.AUTOMATIC) == [automatic]

    async def test_a_version_is_changed_in_part(self, store: Store) -> None:
        document_id = await edited(store)
        made = await store.make_version(document_id, 2, new("one", "said"))
        changed = await store.change_version(document_id, made.id, name="two")
        assert changed == made._replace(name="two") == await store.version(document_id, made.id)
        changed = await store.change_version(document_id, made.id, description=None)
        assert changed == made._replace(name="two", description=None) == await store.version(document_id, made.id)

    async def test_an_automatic_version_that_gets_a_name_is_a_named_one(self, store: Store) -> None:
        document_id = await edited(store)
        made = await store.make_automatic(document_id, 2, Reason.PAUSE, AT, 1.0)
        assert made is not None
        said = await store.change_version(document_id, made.id, description="only said")
        assert said.kind is Kind.AUTOMATIC
        named = await store.change_version(document_id, made.id, name="kept")
        assert named == made._replace(kind=Kind.NAMED, name="kept", description="only said")
        assert await store.versions(document_id, kind=Kind.NAMED) == [named]

    async def test_a_version_is_its_documents_alone(self, store: Store) -> None:
        document_id, other = await edited(store), await edited(store, "other")
        made = await store.make_version(document_id, 2, new())
        for call in (
            lambda: store.version(other, made.id),
            lambda: store.change_version(other, made.id, name="x"),
            lambda: store.delete_version(other, made.id),
            lambda: store.load_version(other, made.id),
            lambda: store.version(document_id, made.id + 1_000),
        ):
            with pytest.raises(NoSuchVersion):
                await call()
        assert await store.version(document_id, made.id) == made
        assert not await store.pin_version(other, made.id, snapshot(2))

    async def test_a_deleted_version_is_gone(self, store: Store, open_store: OpenStore) -> None:
        document_id = await edited(store)
        made, stays = await store.make_version(document_id, 2, new()), await store.make_version(document_id, 2, new())
        assert await store.pin_version(document_id, made.id, snapshot(2))
        async with open_store() as other:
            await other.delete_version(document_id, made.id)
        with pytest.raises(NoSuchVersion):
            await store.load_version(document_id, made.id)
        with pytest.raises(NoSuchVersion):
            await store.delete_version(document_id, made.id)
        assert await store.versions(document_id) == [stays]
        assert (await store.make_version(document_id, 2, new())).id > stays.id

    # What they hold.

    async def test_a_version_is_read_from_the_log(self, store: Store) -> None:
        document_id = await with_snapshots(store, 3, 6)
        for seq in (2, 3, 5, 6, 10):
            made = await store.make_version(document_id, seq, new())
            assert await store.load_version(document_id, made.id) == (made, await store.load_at(document_id, seq))

    async def test_pruning_leaves_what_a_named_version_needs(self, store: Store, open_store: OpenStore) -> None:
        document_id = await with_snapshots(store, 2, 4, 6, 8, 9)
        made = await store.make_version(document_id, 5, new())
        before = await store.load_version(document_id, made.id)
        assert await pruned(store, before=AT + 99, limit=3) == 5  # four rows, and the snapshot before
        assert await store.load_version(document_id, made.id) == before
        async with open_store() as other:
            assert await other.load_version(document_id, made.id) == before
            (found,) = await other.unpinned(before=AT + 99)
            assert (found.document_id, found.document_name, found.version) == (document_id, "d", made)
            assert await other.pin_version(document_id, made.id, snapshot(5, AT + 5))
            assert await other.unpinned(before=AT + 99) == []
        assert await pruned(store, before=AT + 99, limit=3) == 6  # up to the last snapshot but one
        version, state = await store.load_version(document_id, made.id)
        assert version == made._replace(pinned=True) and state == (snapshot(5, AT + 5), [])
        assert await store.load_at(document_id, 5) is None

    async def test_only_what_is_in_the_way_is_to_be_pinned(self, store: Store) -> None:
        document_id, other = await with_snapshots(store, 4, 8, 9), await with_snapshots(store, 4, 8, 9, name="other/d")
        made = [await store.make_version(document_id, seq, new()) for seq in (2, 3, 9, 10)]
        there = await store.make_version(other, 2, new())
        await store.make_automatic(document_id, 1, Reason.PAUSE, AT, 1.0)
        found = [each.version for each in await store.unpinned(before=AT + 99)]
        assert found == [made[0], made[1], there]
        assert [each.version for each in await store.unpinned(before=AT + 99, after=made[0].id, limit=1)] == [made[1]]
        assert await store.unpinned(before=AT + 2.5) == []
        histories = [History("other/*", AT - 1)]
        assert [each.version for each in await store.unpinned(before=AT + 99, histories=histories)] == made[:2]
        await store.delete("d", AT)
        assert [each.version for each in await store.unpinned(before=AT + 99)] == [there]

    async def test_automatic_versions_go_with_their_rows(self, store: Store) -> None:
        document_id = await with_snapshots(store, 4, 8)
        made = [await store.make_automatic(document_id, seq, Reason.PAUSE, AT + seq, 0.5) for seq in (2, 3, 4, 6)]
        await pruned(store, before=AT + 99, limit=2)
        assert await store.versions(document_id) == made[:1:-1]

    async def test_a_version_is_pinned_once(self, store: Store) -> None:
        document_id = await edited(store)
        made = await store.make_version(document_id, 5, new())
        assert not await store.pin_version(document_id, made.id, snapshot(4))
        assert await store.pin_version(document_id, made.id, snapshot(5, 1.0))
        assert not await store.pin_version(document_id, made.id, snapshot(5, 2.0))
        assert not await store.pin_version(document_id, made.id + 1, snapshot(5, 2.0))
        assert (await store.load_version(document_id, made.id))[1] == (snapshot(5, 1.0), [])
        with pytest.raises(StoreRefused):
            await store.pin_version(document_id, made.id, Snapshot(5, bytes(MAX_ROW_BYTES + 1), b"", b"", 1.0))

    async def test_a_version_is_imported_with_its_state(self, store: Store, open_store: OpenStore) -> None:
        document_id = await edited(store)
        state = seal_snapshot(Snapshot(0, b"old content", b"index", b"vector", AT - 100))
        made = await store.import_version(document_id, new("before", "said", "bob", AT - 100), state)
        expected = Version(made.id, 0, Kind.NAMED, Reason.IMPORTED, "before", "said", "bob", AT - 100, pinned=True)
        assert made == expected
        async with open_store() as other:
            assert await other.load_version(document_id, made.id) == (expected, (state, []))
        with pytest.raises(StoreRefused):
            await store.import_version(document_id, new(), Snapshot(0, bytes(MAX_ROW_BYTES + 1), b"", b"", 1.0))
        with pytest.raises(DocumentNotFound):
            await store.import_version(document_id + 1_000, new(), state)

    # With their document.

    async def test_versions_outlive_names_and_the_trash(self, store: Store) -> None:
        document_id = await with_snapshots(store, 5)
        made = await store.make_version(document_id, 3, new())
        held = await store.load_version(document_id, made.id)
        await store.rename("d", "e", AT)
        assert await store.load_version(document_id, made.id) == held
        await store.delete("e", AT)
        assert await store.versions(document_id) == []
        with pytest.raises(DocumentNotFound):
            await store.load_version(document_id, made.id)
        with pytest.raises(DocumentNotFound):
            await store.make_version(document_id, 3, new())
        await store.restore(document_id, at=AT)
        assert await store.load_version(document_id, made.id) == held

    async def test_versions_go_with_their_document(self, store: Store) -> None:
        document_id = await edited(store)
        made = await store.make_version(document_id, 3, new())
        assert await store.pin_version(document_id, made.id, snapshot(3))
        await store.delete("d", AT)
        await store.erase(document_id)
        created = await store.create("d")
        assert await store.versions(created.id) == [] and await store.versions(document_id) == []
        assert await store.unpinned(before=AT + 99) == []
        with pytest.raises((NoSuchVersion, DocumentNotFound)):
            await store.load_version(document_id, made.id)

    # How long history is kept.

    async def test_documents_have_histories_of_their_own(self, store: Store) -> None:
        ids = [await with_snapshots(store, 4, 8, 9, name=name) for name in ("law/a", "law", "d", "lax")]
        histories = [History("law", AT + 5.5), History("law/*", AT - 1), History("*", AT + 9.5), History("d", AT - 1)]
        while await store.prune(before=AT - 99, limit=3, histories=histories):
            pass
        oldest = [(await store.rows_after(document_id, 0, 1))[0].seq for document_id in ids]
        assert oldest == [1, 5, 9, 9]

    async def test_snapshots_that_nobody_misses_go(self, store: Store) -> None:
        document_id = await with_snapshots(store, 1, 2, 3, 5, 7, 9)
        few = await with_snapshots(store, 1, 5, 9, name="few")
        states = [await store.load_at(document_id, seq) for seq in (1, 7, 9, 10)]
        assert await store.thin_snapshots(limit=2, spare=[document_id]) == 0
        assert await store.thin_snapshots(limit=2) == 2
        assert await store.thin_snapshots(limit=9) == 1
        assert await store.thin_snapshots(limit=9) == 0
        assert [await store.load_at(document_id, seq) for seq in (1, 7, 9, 10)] == states
        found = [await store.load_at(document_id, seq) for seq in range(1, 11)]
        bases = [each[0].seq for each in found if each is not None and each[0] is not None]
        assert bases == [1] * 6 + [7] * 2 + [9] * 2
        third = await store.load_at(few, 5)
        assert third is not None and third[0] is not None and third[0].seq == 5

    async def test_snapshots_stay_where_much_lies_between(self, store: Store) -> None:
        rows = tuple(seal_row(bytes(1_500_000), AT + seq, None) for seq in range(1, 9))
        await written(store, [Append("d", None, rows)])
        document_id = (await store.describe("d")).document.id
        for seq in (1, 2, 3, 6, 7, 8):
            assert await store.write_snapshot(document_id, snapshot(seq, AT))
        assert await store.thin_snapshots(limit=9) == 1
        found = [await store.load_at(document_id, seq) for seq in range(1, 9)]
        assert [each[0].seq for each in found if each is not None and each[0] is not None] == [1, 1, 3, 3, 3, 6, 7, 8]

    async def test_snapshots_of_damaged_documents_stay(self, store: Store) -> None:
        document_id = await with_snapshots(store, 1, 2, 3, 5, 7)
        unverified = await edited(store, "older")
        for seq in (1, 2, 3, 5, 7):
            await store.write_snapshot(unverified, Snapshot(seq, b"x", b"", b"", AT))
        await store.note_damage(document_id, rows=[4])
        assert await store.thin_snapshots(limit=9) == 0
