"""Rebuild what a document held: after a number of its log, or as a version of it.

Strategy: a state is put together from bytes, of the nearest snapshot and the rows behind it, as a document is opened;
no CRDT library takes part, so it is exact. A few are rebuilt at a time, for each is in memory as a whole.

Many rows are put together by the database and read by a sandbox process: rooms notice nothing of it. Few rows, large
documents, and whatever that process does not do, are read here, in slices, beside the rooms. Work that needs the
sandbox anyhow waits for it, however few the rows are. So a state can be read whatever becomes of the process, and what
is wrong with stored bytes is found out in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Final, Protocol

from collab.engine.document import Document
from collab.errors import HistoryGone, SandboxError
from collab.history.packed import PackedRows
from collab.hub.loading import damaged, read_document
from collab.hub.slices import apart, in_slices
from collab.protocol.sync import EMPTY_UPDATE
from collab.sandbox.port import MAX_REBUILT_BYTES
from collab.storage.checksums import beside_the_loop, is_damaged_snapshot
from collab.storage.records import LoadedDocument, LogRow, Snapshot, StoredDocument
from collab.storage.store import Packing, Store
from collab.storage.versions import Version
from collab.telemetry import get_logger, shown_name
from collab.update.compact import Compacted

_log = get_logger("rebuilding")

# States that are rebuilt at the same time.
_AT_A_TIME: Final = 4

# Rows that are freed between two yields: half a millisecond.
_FREED: Final = 2_000

LEAST_ROWS: Final = 500
"""Rows from which on a process reads them: some milliseconds of this one."""


class RebuildsElsewhere(Protocol):
    """What this needs of the sandbox."""

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        """See ``Sandbox.rebuild``."""
        ...


class Rebuilding:
    """Rebuilds states of documents.

    Args:
        store: where snapshots, rows and versions are.
        sandbox: rebuilds them if there are many rows; None: that is done here as well.
    """

    def __init__(self, store: Store, sandbox: RebuildsElsewhere | None = None) -> None:
        self._store = store
        self._sandbox = sandbox
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
            document = await self._elsewhere(name, document_id, number)
            return await self._here(name, document_id, number) if document is None else document

    async def encoded(self, name: str, document_id: int, number: int) -> bytes:
        """Return a document after row ``number`` as a v1 update, for work that needs the sandbox anyhow and can wait.

        However few rows there are, the sandbox puts them together if it can. Raises as ``at``.
        """
        if number == 0:
            return EMPTY_UPDATE
        async with self._room:
            made = await self._computed(name, document_id, number, least=1, patient=True)
            return await encode(await self._here(name, document_id, number)) if made is None else made.data

    async def _here(self, name: str, document_id: int, number: int) -> Document:
        """Rebuild a state beside the rooms."""
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
            version = await self._store.version(document_id, version_id)
            document = None if version.pinned else await self._elsewhere(name, document_id, version.seq)
            if document is not None:
                return version, document
            version, (snapshot, rows) = await self._store.load_version(document_id, version_id)
            if version.pinned and snapshot is not None:
                state = snapshot
                if await beside_the_loop(len(state.data), lambda: is_damaged_snapshot(state)):
                    raise damaged(name, why=f"the state of version {version.id} is damaged")
            rows = list(rows)
            return version, await _rebuild(name, version.seq, snapshot, rows)

    async def _elsewhere(self, name: str, document_id: int, number: int) -> Document | None:
        """Rebuild a state of many rows in the sandbox; None if it is to be done here."""
        made = await self._computed(name, document_id, number, least=LEAST_ROWS, patient=False)
        return None if made is None else await in_slices(Document.load(made.data, made.index, ()))

    async def _computed(
        self, name: str, document_id: int, number: int, *, least: int, patient: bool
    ) -> Compacted | None:
        """Have the sandbox put ``least`` rows or more together; None if it does not, or cannot."""
        if self._sandbox is None or number < least or not isinstance(self._store, Packing):
            return None
        found = await self._store.load_packed(document_id, number, least=least, most=MAX_REBUILT_BYTES)
        if found is None:
            return None
        snapshot, rows = found
        data, index = (None, None) if snapshot is None else (snapshot.data, snapshot.index)
        del found, snapshot
        try:
            return await self._sandbox.rebuild(data, index, rows, patient=patient)
        except SandboxError as error:
            _log.info("%s is rebuilt beside its room: %s", shown_name(name), error)
            return None


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
