"""Deleted documents: listing them, making them live again, and erasing for good.

Strategy: the store keeps a deleted document until its time is over or somebody erases it. Restoring is told to those
who have the name open as a creation is. Erasing first makes sure that nobody can write or read the document any more:
it is deleted, and every node that is there says that it has let go of it. Then its content goes.

Before the content of a document goes, whether by erasing or by age, its skeleton is joined with that of its name
(``hub.resetting``): only IDs, so that old copies of it bring nothing back later.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from collab.errors import DamagedDocument, DocumentNotFound, DocumentRenamed, StoreUnavailable
from collab.hub.documents import Rooms
from collab.hub.loading import read_document
from collab.hub.membership import TRASH_DAYS, read_settings
from collab.hub.resetting import InThread, Resetting
from collab.hub.slices import in_slices
from collab.protocol.names import check_document_name
from collab.storage.records import DocumentSummary, LoadedDocument, Reports, StoredDocument
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("documents")

_PAGE = 100
"""Documents of the trash that are read at once."""


class Erased(NamedTuple):
    """What was erased, by the ids; and the nodes that live and have not said that they have let go of it."""

    ids: list[int]
    holding: tuple[str, ...]


class Trash:
    """Deleted documents.

    Args:
        store: where they are kept.
        keep: gives for how many seconds they can be restored.
        rooms: those that are live on this node; None where there are none, as in a command line.
        forget: lets all nodes drop what they have of a name, and gives what they report; None: there are no nodes.
        clock: wall-clock time in Unix seconds.
        resetting: the hub's own; None where there is no hub.
    """

    def __init__(
        self,
        store: Store,
        keep: Callable[[], float],
        rooms: Rooms | None = None,
        forget: Callable[[str], Awaitable[Reports]] | None = None,
        clock: Callable[[], float] = time.time,
        resetting: Resetting | None = None,
    ) -> None:
        self._store = store
        self._keep = keep
        self._rooms = rooms
        self._forget = forget
        self._clock = clock
        self._resetting = Resetting(store, InThread(), rooms, clock) if resetting is None else resetting

    @property
    def oldest(self) -> float:
        """When a document must have been deleted, at the earliest, to be in the trash still; in Unix seconds."""
        return self._clock() - self._keep()

    async def list(
        self, *, name: str | None = None, prefix: str = "", after: tuple[float, int] | None = None, limit: int = _PAGE
    ) -> list[DocumentSummary]:
        """List what can be restored, what was deleted last first; see ``Store.list_trash``."""
        return await self._store.list_trash(name=name, prefix=prefix, since=self.oldest, after=after, limit=limit)

    async def restore(self, name: str, document_id: int | None = None, new_name: str | None = None) -> DocumentSummary:
        """Make the document live again that had this name and was deleted last, or the one with this id.

        It is the same document: who comes with an old copy of it merges. It gets the name that it had, or ``new_name``
        where another document has that by now.

        Raises:
            DocumentNotFound: there is none in the trash.
            DocumentExists: a document of that name lives.
            InvalidDocumentName: the new name is none.
            StoreUnavailable: a server of an older release is there, which takes deleted content away.
        """
        if new_name is not None:
            check_document_name(new_name)
        found = await self._in_trash(name, self.oldest)
        chosen = next((each for each in found if document_id in (None, each.id)), None)
        if chosen is None:
            raise DocumentNotFound(f"no deleted document {name!r} is in the trash")
        for node in await self._store.list_nodes():
            if node.alive and TRASH_DAYS not in read_settings(node):
                raise StoreUnavailable(
                    f"the server {node.name} is of an older release, which removes the content of what was deleted",
                    public="a server of an older release is running; restore when all are of the same",
                )
        if new_name is not None:
            await self._keep_skeleton(chosen)  # it leaves the name that it had, and lives on
        restored = await self._store.restore(chosen.id, new_name, at=self._clock())
        await self._resetting.take_over(restored.name)
        _log.info("restored %s as %s", shown_name(name), shown_name(restored.name))
        if self._rooms is not None:
            self._rooms.created(restored.name, restored.id)
        return await self._store.describe(restored.name)

    async def erase(
        self, name: str, document_id: int | None = None, *, living: bool = True, user: str | None = None
    ) -> Erased:
        """Erase for good what is kept under a name: the document that lives, if ``living``, and those in the trash.

        With an id only the document with that id, which had this name and was deleted. When this returns nothing that
        the storage or a node answers has any of it; the tombstone stays. ``Erased.holding`` has the nodes that may show
        it still: they find the tombstone when they look, within some seconds, or when they reach the storage again.
        ``user`` is who erases it.

        Raises:
            Refused, HookUnavailable: a hook does not allow that the document is deleted that lives, or none can say.
            DocumentNotFound: there is nothing of that name, or it is erased already.
            DocumentRenamed: the document has another name now.
            StoreUnavailable: some of it may be left: repeat it.
        """
        if living and document_id is None:
            await self._delete(name, user)
        chosen = [each for each in await self._deleted(name) if document_id in (None, each.id)]
        if not chosen:
            raise DocumentNotFound(f"no deleted document {name!r} is kept")
        for document in chosen:
            await self._keep_skeleton(document)
        holding: tuple[str, ...] = ()
        if self._forget is not None:
            reports = await self._forget(name)
            unsure = [each.node for each in reports.reports if each.undecided or not each.done]
            holding = (*reports.silent, *unsure)
        for document in chosen:
            try:
                await self._store.erase(document.id)
            except DocumentNotFound:
                continue  # pruned meanwhile
        ids = [document.id for document in chosen]
        _log.info("erased %s for good (%d documents)", shown_name(name), len(ids))
        return Erased(ids, holding)

    async def _delete(self, name: str, user: str | None) -> None:
        if self._rooms is not None:
            await self._rooms.before_delete(name, user, erase=True)
            await self._rooms.until_stored(name)
        try:
            document_id = await self._store.delete(name, self._clock())
        except DocumentNotFound:
            return
        _log.info("deleted %s", shown_name(name))
        if self._rooms is not None:
            self._rooms.deleted(name, document_id)

    async def _in_trash(self, name: str, since: float | None) -> builtins.list[StoredDocument]:
        found: builtins.list[StoredDocument] = []
        after = None
        while page := await self._store.list_trash(name=name, since=since, after=after, limit=_PAGE):
            found += [each.document for each in page]
            last = found[-1]
            assert last.deleted_at is not None
            after = (last.deleted_at, last.id)
        return found

    async def _deleted(self, name: str) -> builtins.list[StoredDocument]:
        """Give all deleted documents that had a name, those too whose time in the trash is over."""
        found = await self._in_trash(name, None)
        head = (await self._store.heads([name])).get(name)
        if head is not None and head.deleted and head.document_id not in [each.id for each in found]:
            if head.renamed_to is None:
                # Deleted by an older release, or out of the trash: what is left of it may still be there.
                found.append(StoredDocument(head.document_id, name, head.seq, True, 0.0, 0.0))
            elif not found:
                raise DocumentRenamed(f"document {name!r} was renamed")
        return found

    # Skeletons

    async def keep_skeletons(self, before: float) -> None:
        """Keep the skeletons of what was deleted earlier than ``before``; call it before that is pruned.

        Raises:
            StoreUnavailable: the store cannot be read or written now.
        """
        after = None
        while page := await self._store.list_trash(before=before, after=after, limit=_PAGE):
            for each in page:
                await self._keep_skeleton(each.document)
            last = page[-1].document
            assert last.deleted_at is not None
            after = (last.deleted_at, last.id)

    async def _keep_skeleton(self, deleted: StoredDocument) -> None:
        found = await self._store.load_at(deleted.id, deleted.head_seq)
        if found is None:
            return  # some of it is gone already
        snapshot, rows = found
        try:
            document = await in_slices(read_document(deleted.name, LoadedDocument(deleted, snapshot, rows)))
        except DamagedDocument as error:
            _log.warning("no skeleton of %s is kept: %s", shown_name(deleted.name), error)
            return
        await self._resetting.keep(deleted.name, document)
