"""Rebuild what a document held: after a number of its log, or as a version of it.

Strategy: a state is put together from bytes, of the nearest snapshot and the rows behind it, as a document is opened;
no CRDT library takes part, so it is exact. That is done in slices, beside the rooms. A few are rebuilt at a time, for
each is in memory as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Final

from collab.engine.document import Document
from collab.errors import HistoryGone
from collab.hub.loading import damaged, read_document
from collab.hub.slices import apart, in_slices
from collab.storage.checksums import beside_the_loop, is_damaged_snapshot
from collab.storage.records import LoadedDocument, LogRow, Snapshot, StoredDocument
from collab.storage.store import Store
from collab.storage.versions import Version

# States that are rebuilt at the same time.
_AT_A_TIME: Final = 4

# Rows that are freed between two yields: half a millisecond.
_FREED: Final = 2_000


class Rebuilding:
    """Rebuilds states of documents.

    Args:
        store: where snapshots, rows and versions are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = asyncio.Semaphore(_AT_A_TIME)

    async def at(self, name: str, document_id: int, number: int) -> Document:
        """Return a document after row ``number``; 0 is before the first one.

        Raises:
            HistoryGone: there is no such row, or what it was made of is pruned.
            DamagedDocument, StoreUnavailable: it cannot be read.
        """
        if number == 0:
            return Document()
        async with self._room:
            found = await self._store.load_at(document_id, number) if number > 0 else None
            if found is None:
                raise HistoryGone(f"{name!r} has no number {number}, or its rows up to there are pruned")
            snapshot, rows = found[0], list(found[1])
            del found
            return await _rebuild(name, number, snapshot, rows)

    async def version(self, name: str, document_id: int, version_id: int) -> tuple[Version, Document]:
        """Return a version of a document, and what the document held then.

        Raises:
            DocumentNotFound, NoSuchVersion: there is no such document or version.
            HistoryGone: it is an automatic one, and its rows are pruned.
            DamagedDocument, StoreUnavailable: it cannot be read.
        """
        async with self._room:
            version, (snapshot, rows) = await self._store.load_version(document_id, version_id)
            if version.pinned and snapshot is not None:
                state = snapshot
                if await beside_the_loop(len(state.data), lambda: is_damaged_snapshot(state)):
                    raise damaged(name, why=f"the state of version {version.id} is damaged")
            rows = list(rows)
            return version, await _rebuild(name, version.seq, snapshot, rows)


async def encode(document: Document) -> bytes:
    """Encode a document that nobody changes as a v1 update, beside the loop if it is large."""
    return await beside_the_loop(document.size, document.encode_state_as_update)


async def _rebuild(name: str, number: int, snapshot: Snapshot | None, rows: list[LogRow]) -> Document:
    """Make the document of a snapshot and rows, the only list of them: it is empty then."""
    stored = StoredDocument(0, name, number, True, 0.0, 0.0)
    document = await in_slices(read_document(name, LoadedDocument(stored, snapshot, rows)))
    await in_slices(apart(_let_go(rows)))
    if document.waiting:
        raise damaged(name, why="its log has a gap")
    return document


def _let_go(rows: list[LogRow]) -> Generator[None, None, None]:
    """Take rows out of a list, in slices: to free all of them at once holds up the loop for some milliseconds."""
    while rows:
        del rows[-_FREED:]
        yield
