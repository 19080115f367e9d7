"""Creating, naming, renaming and deleting documents: the one service behind the HTTP API and the command line.

Strategy: the store is told first, and it alone decides; then those who have the document open are told. A command line
has no rooms of its own: servers that run on the same database learn of what it has done from the log, within about a
second (``hub.replication``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from collab.protocol.names import check_document_name, covers
from collab.storage.checksums import seal_row
from collab.storage.records import DocumentSummary, NewRow
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("documents")


class Rooms(Protocol):
    """The documents that are live on this node, as far as this service has something to tell them."""

    async def until_stored(self, name: str) -> None:
        """Return when everything that was taken of a document is in the store; at once if it is not live."""
        ...

    def created(self, name: str) -> None:
        """Let those who have opened a document that was not there see that it is, and what it holds."""
        ...

    def deleted(self, name: str, document_id: int) -> None:
        """Send everybody away from a document that was deleted, here and on other nodes."""
        ...

    def renamed(self, name: str, document_id: int, new_name: str) -> None:
        """Send everybody away from the old name of a document, here and on other nodes."""
        ...


class Documents:
    """Documents by their names.

    Args:
        store: where they are kept.
        rooms: those that are live on this node; None where there are none, as in a command line.
        clock: wall-clock time in Unix seconds.
        keep_deleted: which documents keep their deleted content, whoever creates them; see ``covers``.
    """

    def __init__(
        self,
        store: Store,
        rooms: Rooms | None = None,
        clock: Callable[[], float] = time.time,
        keep_deleted: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._clock = clock
        self._keep_deleted = keep_deleted

    async def list(self, *, after: str | None = None, prefix: str = "", limit: int = 100) -> list[DocumentSummary]:
        """List documents by the bytes of their names; see ``Store.list_documents``."""
        return await self._store.list_documents(after=after, prefix=prefix, limit=limit)

    async def describe(self, name: str) -> DocumentSummary:
        """Give one document's sizes and dates; raises ``DocumentNotFound`` or ``DocumentDeleted``."""
        return await self._store.describe(name)

    async def create(
        self, name: str, *, title: str | None = None, gc: bool = True, update: bytes | None = None
    ) -> DocumentSummary:
        """Create a document, empty or with the content of ``update`` (v1), also in the place of a deleted one.

        Raises:
            InvalidDocumentName: the name is none.
            DocumentExists: there is one.
            StoreRefused: the content is more than the store takes.
        """
        check_document_name(name)
        rows: Sequence[NewRow] = () if update is None else (seal_row(update, self._clock(), None),)
        keeps = any(covers(pattern, name) for pattern in self._keep_deleted)
        await self._store.create(name, gc=gc and not keeps, rows=rows)
        if self._rooms is not None:
            self._rooms.created(name)
        if title is not None:
            await self._store.set_title(name, title)
        _log.info("created %s", shown_name(name))
        return await self._store.describe(name)

    async def set_title(self, name: str, title: str | None) -> DocumentSummary:
        """Set what listings show for a document; raises ``DocumentNotFound`` or ``DocumentDeleted``."""
        if self._rooms is not None:
            # A document that was begun a moment ago is stored in a moment.
            await self._rooms.until_stored(name)
        await self._store.set_title(name, title)
        return await self._store.describe(name)

    async def rename(self, name: str, new_name: str) -> DocumentSummary:
        """Give a document another name: its content, history and numbers stay, and who is in it is told to go.

        The old name is left as by a deletion: nobody brings the document back there by coming with an old copy.

        Raises:
            InvalidDocumentName: the new name is none.
            DocumentNotFound, DocumentDeleted: there is no such document.
            DocumentExists: there is one of the new name.
        """
        check_document_name(new_name)
        if self._rooms is not None:
            await self._rooms.until_stored(name)  # as above
        document_id = await self._store.rename(name, new_name, self._clock())
        _log.info("renamed %s to %s", shown_name(name), shown_name(new_name))
        if self._rooms is not None:
            self._rooms.renamed(name, document_id, new_name)
        return await self._store.describe(new_name)

    async def delete(self, name: str) -> None:
        """Delete a document: who is in it is told, and nobody brings it back by coming with an old copy.

        Raises:
            DocumentNotFound: there is none.
        """
        document_id = await self._store.delete(name, self._clock())
        _log.info("deleted %s", shown_name(name))
        if self._rooms is not None:
            self._rooms.deleted(name, document_id)
