"""The tests of authorship: what edits over HTTP say of themselves, and whose the client IDs of a document are."""

from __future__ import annotations

from collab.authorship import MAX_NOTE_BYTES, Note
from collab.storage.checksums import seal_row
from collab.storage.records import Append, Appended, LogRow
from collab.storage.store import Store
from collab.testing.storage import AT, OnStorage, written

NOTES = (
    Note("ada", "model \U0001f98a"),
    None,
    Note("", None),
    Note(None, ""),
    Note("nul \x00 and \ud83d alone", "x" * MAX_NOTE_BYTES),
)


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
