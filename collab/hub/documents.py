"""Creating, copying, naming and deleting documents: the one service behind the HTTP API and the command line.

Strategy: the store is told first, and it alone decides; then those who have the document open are told. A command line
has no rooms of its own: servers that run on the same database learn of what it has done from the log, within about a
second (``hub.replication``). What becomes of a deleted document is in ``hub.trash``.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from collab.engine.document import Document
from collab.errors import CollabError, DocumentDeleted, DocumentExists
from collab.hub.idempotency import Call
from collab.hub.largest import Largest
from collab.hub.loading import damaged, load_document
from collab.hub.resetting import InThread, Resetting
from collab.protocol.names import check_document_name, covers
from collab.protocol.sync import EMPTY_UPDATE
from collab.storage.checksums import beside_the_loop, seal_row
from collab.storage.records import KEEP, DocumentSummary, Keep, NewGuest, NewRow, Scalar, StoredDocument
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("documents")


class Rooms(Protocol):
    """The documents that are live on this node, as far as this service has something to tell them."""

    async def until_stored(self, name: str) -> None:
        """Return when everything that was taken of a document is in the store; at once if it is not live."""
        ...

    async def may_create(self, name: str, user: str | None) -> None:
        """Ask the hooks whether a user may create a document; raises ``Refused`` and ``HookUnavailable``."""
        ...

    async def before_delete(self, name: str, user: str | None, *, erase: bool) -> None:
        """Ask the hooks whether a user may delete a document that is there; raises as ``may_create``."""
        ...

    def created(self, name: str, document_id: int, rows: Sequence[NewRow] = ()) -> None:
        """Let those who have opened a document that was not there see that it is; here and on other nodes.

        ``rows`` are those that it has begun with.
        """
        ...

    def deleted(self, name: str, document_id: int) -> None:
        """Send everybody away from a document that was deleted, here and on other nodes."""
        ...

    def renamed(self, name: str, document_id: int, new_name: str) -> None:
        """Send everybody away from the old name of a document, here and on other nodes."""
        ...

    async def written(self, name: str, document_id: int, seq: int, author: str | None = None) -> None:
        """Read what was written of a document by a row, if it is live here; others are told to."""
        ...


class Ensured(NamedTuple):
    """A document that is there, and whether it was created for that."""

    summary: DocumentSummary
    created: bool


class NewDocument(NamedTuple):
    """A document that is to be created; ``update`` (v1) is all of its content, None for an empty one."""

    name: str
    update: bytes | None = None
    title: str | None = None
    metadata: Mapping[str, Scalar] | None = None
    gc: bool = True


class Documents:
    """Documents by their names.

    Args:
        store: where they are kept.
        rooms: those that are live on this node; None where there are none, as in a command line.
        clock: wall-clock time in Unix seconds.
        keep_deleted: which documents keep their deleted content, whoever creates them; see ``covers``.
        resetting: the hub's own; None where there is no hub.

    Attributes:
        resetting: resets of documents, and what remains of those that are gone.
        largest: ranks documents by their bytes.
    """

    def __init__(
        self,
        store: Store,
        rooms: Rooms | None = None,
        clock: Callable[[], float] = time.time,
        keep_deleted: Sequence[str] = (),
        resetting: Resetting | None = None,
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._clock = clock
        self._keep_deleted = keep_deleted
        self.resetting = Resetting(store, InThread(), rooms, clock) if resetting is None else resetting
        self.largest = Largest(store)

    async def recent(
        self, *, after: tuple[float, str] | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List documents, those that were edited last first; see ``Store.list_recent``."""
        return await self._store.list_recent(after=after, prefix=prefix, limit=limit)

    async def list(self, *, after: str | None = None, prefix: str = "", limit: int = 100) -> list[DocumentSummary]:
        """List documents by the bytes of their names; see ``Store.list_documents``."""
        return await self._store.list_documents(after=after, prefix=prefix, limit=limit)

    async def describe(self, name: str) -> DocumentSummary:
        """Give one document's sizes and dates; raises ``DocumentNotFound`` or ``DocumentDeleted``."""
        return await self._store.describe(name)

    async def create(
        self,
        name: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        gc: bool = True,
        update: bytes | None = None,
        author: str | None = None,
        call: Call | None = None,
    ) -> DocumentSummary:
        """Create a document, empty or with the content of ``update`` (v1), also in the place of a deleted one.

        Content, title and own keys are there in one transaction, or none of them. With ``call`` the document of an
        attempt that was cut off is given in the place of a new one (``hub.idempotency``).

        Raises:
            InvalidDocumentName: the name is none.
            InvalidMetadata: the own keys cannot be kept.
            DocumentExists: there is one.
            StoreRefused: the content is more than the store takes.
            KeyBusy: another attempt at the call is at it.
            Refused, HookUnavailable: a hook does not allow it, or none can say.
        """
        if call is not None and call.created is not None:
            return await self._store.describe_id(call.created)
        await self._create(name, title, metadata, gc, update, author, call, over_tombstone=True)
        return await self._store.describe(name)

    async def ensure(
        self,
        name: str,
        update: bytes | None = None,
        *,
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        gc: bool = True,
        author: str | None = None,
    ) -> Ensured:
        """Create a document if there is none; one that is there stays as it is, whatever it holds.

        However many do this at the same time, on whatever nodes, the content is there once.

        Raises:
            DocumentDeleted: it was deleted, and is created anew only on purpose, by ``create``.
            InvalidDocumentName, InvalidMetadata, StoreRefused, Refused, HookUnavailable: as ``create``.
        """
        try:
            await self._create(name, title, metadata, gc, update, author, None, over_tombstone=False)
        except DocumentExists:
            return Ensured(await self._store.describe(name), created=False)
        return Ensured(await self._store.describe(name), created=True)

    async def name_guest(self, document_id: int, guest: NewGuest | None) -> None:
        """Keep what the guest is called who has created a document with content; None: it was nobody like that."""
        if guest is not None:
            await self._store.keep_guest(document_id, guest)

    async def create_many(self, wanted: Sequence[NewDocument]) -> Sequence[bool | CollabError]:
        """Create documents, also in the place of deleted ones; tell of each whether it was created.

        One that is there is left as it is. Those whose names nobody has had are created together, as far as the store
        does that. What hinders one is given in its place, as ``create`` raises it.

        Raises:
            InvalidDocumentName: a name is none.
            StoreUnavailable: nothing was created.
        """
        for each in wanted:
            check_document_name(each.name)
        heads = await self._store.heads([each.name for each in wanted])

        async def create(each: NewDocument) -> bool:
            head = heads.get(each.name)
            if head is not None and not head.deleted:
                return False
            if head is None:
                with contextlib.suppress(DocumentDeleted):  # a moment ago
                    return await self._insert(each)
            try:
                await self._create(
                    each.name, each.title, each.metadata, each.gc, each.update, None, None, over_tombstone=True
                )
            except DocumentExists:
                return False
            return True

        # None is left to run when another one fails.
        outcomes: builtins.list[bool | CollabError] = []
        for outcome in await asyncio.gather(*map(create, wanted), return_exceptions=True):
            if not isinstance(outcome, CollabError | bool):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def _insert(self, new: NewDocument) -> bool:
        """Create a document under a name that nobody has had; False if somebody has been faster."""
        if self._rooms is not None:
            await self._rooms.may_create(new.name, None)
        rows: list[NewRow] = []
        if new.update is not None:
            rows.append(await beside_the_loop(len(new.update), partial(seal_row, new.update, self._clock(), None)))
        keeps = any(covers(pattern, new.name) for pattern in self._keep_deleted)
        try:
            created = await self._store.create(
                new.name,
                gc=new.gc and not keeps,
                rows=rows,
                title=new.title,
                metadata=new.metadata,
                over_tombstone=False,
            )
        except DocumentExists:
            return False
        if self._rooms is not None:
            self._rooms.created(new.name, created.id, rows)
        _log.debug("created %s", shown_name(new.name))
        return True

    async def copy(
        self,
        name: str,
        new_name: str,
        *,
        author: str | None = None,
        call: Call | None = None,
        read: Callable[[], Awaitable[tuple[StoredDocument, Document]]] | None = None,
    ) -> DocumentSummary:
        """Create a document with what another one holds now, and with its title and own keys.

        ``read`` gives another state of it, with the document as it is stored.

        It holds what is committed: struct by struct the same, with the client IDs of the original, so that both can be
        merged later. Its history begins anew. What the original keeps of deleted content (``gc``) is kept here too.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            DamagedDocument: it cannot be read, or lacks a part of its log.
            InvalidDocumentName, DocumentExists, StoreRefused, KeyBusy, Refused, HookUnavailable: as ``create``.
        """
        if call is not None and call.created is not None:
            return await self._store.describe_id(call.created)
        check_document_name(new_name)
        stored, document = await (self._read_now(name) if read is None else read())
        if document.waiting:
            raise damaged(name, why="its log has a gap")
        update = await beside_the_loop(document.size, document.encode_state_as_update)
        await self._create(
            new_name,
            stored.title,
            stored.metadata,
            stored.gc,
            update if len(update) > len(EMPTY_UPDATE) else None,
            author,
            call,
            over_tombstone=True,
        )
        return await self._store.describe(new_name)

    async def _read_now(self, name: str) -> tuple[StoredDocument, Document]:
        if self._rooms is not None:
            await self._rooms.until_stored(name)
        loaded, document = await load_document(self._store, name)
        return loaded.document, document

    async def _create(
        self,
        name: str,
        title: str | None,
        metadata: Mapping[str, Scalar] | None,
        gc: bool,
        update: bytes | None,
        author: str | None,
        call: Call | None,
        *,
        over_tombstone: bool,
    ) -> None:
        check_document_name(name)
        if self._rooms is not None:
            await self._rooms.may_create(name, author)
        keeps = any(covers(pattern, name) for pattern in self._keep_deleted)
        while True:
            beginning = await self.resetting.begin(name, update, author, self._clock())
            try:
                created = await self._store.create(
                    name,
                    gc=gc and not keeps,
                    rows=beginning.rows,
                    title=title,
                    metadata=metadata,
                    over_tombstone=over_tombstone and beginning.over,
                    call=None if call is None else call.key,
                )
            except DocumentDeleted:
                if not over_tombstone or beginning.over:
                    raise
                continue  # another one has come and gone a moment ago
            break
        await self.resetting.finish(name, beginning)
        if self._rooms is not None:
            self._rooms.created(name, created.id, beginning.rows)
        _log.info("created %s", shown_name(name))

    async def change(
        self, name: str, *, title: str | None | Keep = KEEP, metadata: Mapping[str, object] | None = None
    ) -> DocumentSummary:
        """Set the title, and merge own keys (RFC 7396: None takes one away), in one transaction.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            InvalidMetadata: what would be kept then breaks a rule; nothing has changed.
        """
        if self._rooms is not None:
            # A document that was begun a moment ago is stored in a moment.
            await self._rooms.until_stored(name)
        await self._store.change(name, title=title, metadata=metadata)
        return await self._store.describe(name)

    async def set_title(self, name: str, title: str | None) -> DocumentSummary:
        """Set what listings show for a document; raises ``DocumentNotFound`` or ``DocumentDeleted``."""
        return await self.change(name, title=title)

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
            await self._rooms.until_stored(name)  # as for a change
        await self.resetting.take_over(new_name, name)
        await self.resetting.remember(name)
        document_id = await self._store.rename(name, new_name, self._clock())
        _log.info("renamed %s to %s", shown_name(name), shown_name(new_name))
        if self._rooms is not None:
            self._rooms.renamed(name, document_id, new_name)
        return await self._store.describe(new_name)

    async def delete(self, name: str, *, user: str | None = None) -> None:
        """Delete a document: who is in it is told, and nobody brings it back by coming with an old copy.

        It is in the trash then (``hub.trash``). ``user`` is who deletes it.

        Raises:
            DocumentNotFound: there is none.
            Refused, HookUnavailable: a hook does not allow it, or none can say.
        """
        if self._rooms is not None:
            await self._rooms.before_delete(name, user, erase=False)
            # What its clients were sent is in the store then, and remembered as gone.
            await self._rooms.until_stored(name)
        document_id = await self._store.delete(name, self._clock())
        _log.info("deleted %s", shown_name(name))
        if self._rooms is not None:
            self._rooms.deleted(name, document_id)
