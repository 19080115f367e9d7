"""Many documents out of a store and into one: each as one whole update, one after the other.

Strategy: nothing is opened for it. What is read is what is committed, so a copy of a busy document is as old as its
last commit, and rooms that are live go on undisturbed. What is written is a document that begins with one row, as an
import by the command line does; one that is there already is left as it is, so that a transfer that broke off is
simply done again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import Final, NamedTuple

from collab.engine.document import Document
from collab.errors import (
    CollabError,
    DamagedDocument,
    DocumentDeleted,
    DocumentNotFound,
    DocumentTooLarge,
    UpdateError,
)
from collab.hub.documents import Documents, NewDocument
from collab.hub.loading import load_document
from collab.hub.slices import in_slices
from collab.protocol.names import check_document_name
from collab.protocol.sync import EMPTY_UPDATE
from collab.storage.records import Scalar, StoredDocument
from collab.storage.store import Store

# Names that are read from the store at once.
_PAGE: Final = 200


class Exported(NamedTuple):
    """A document as it is committed: ``update`` is a v1 update with all of it; deleted content as far as it is kept."""

    document: StoredDocument
    update: bytes


class Transfer:
    """Reads and writes whole documents.

    Args:
        store: where they are kept.
        documents: creates them.
        max_document_bytes: how large one may be.
    """

    def __init__(self, store: Store, documents: Documents, max_document_bytes: int) -> None:
        self._store = store
        self._documents = documents
        self._max_document_bytes = max_document_bytes

    async def count(self, *, after: str | None, prefix: str) -> int:
        """Count what ``names`` lists on all pages, as it stands now."""
        return await self._store.count_documents(after=after, prefix=prefix)

    async def names(self, *, after: str | None, prefix: str, limit: int) -> list[str]:
        """List the names of documents by their bytes, from behind ``after``."""
        found = await self._documents.list(after=after, prefix=prefix, limit=limit)
        return [summary.document.name for summary in found]

    async def read(self, name: str) -> Exported:
        """Read what is committed of a document.

        Raises:
            DocumentNotFound, DocumentDeleted: there is none.
            DamagedDocument: what is stored of it cannot be read.
            StoreUnavailable.
        """
        loaded, document = await load_document(self._store, name)
        return Exported(loaded.document, document.encode_state_as_update())

    async def prepare(
        self,
        name: str,
        update: bytes,
        *,
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        gc: bool = True,
    ) -> NewDocument:
        """Read a document that is to be written.

        Raises:
            InvalidDocumentName: the name is none.
            UpdateError: the update is none, or builds on what is not in it.
            DocumentTooLarge: it is larger than a document may be.
        """
        check_document_name(name)
        if len(update) > self._max_document_bytes:
            raise DocumentTooLarge(f"{len(update)} bytes to be imported into {name!r}")
        whole = await in_slices(whole_update(update))
        return NewDocument(name, None if whole == EMPTY_UPDATE else whole, title, metadata, gc)

    async def write(self, wanted: Sequence[NewDocument]) -> Sequence[bool | CollabError]:
        """Create documents; tell of each whether it was created. One that is there already is left as it is.

        What hinders one is given in its place. Raises: as ``Documents.create_many``.
        """
        return await self._documents.create_many(wanted)


class Failed(NamedTuple):
    """A document that cannot be read."""

    name: str
    error: DamagedDocument


class Export:
    """Reads many documents, in the order of their names.

    Args:
        transfer: reads.
        prefix: only names that begin with this.
        after: only names behind this one.

    Attributes:
        done: documents that were given.
        failed: those that could not be read.
    """

    def __init__(self, transfer: Transfer, *, prefix: str = "", after: str | None = None) -> None:
        self._transfer = transfer
        self._prefix = prefix
        self._after = after
        self.done = self.failed = 0

    async def count(self) -> int:
        """Count those that there are now; raises ``StoreUnavailable``."""
        return await self._transfer.count(after=self._after, prefix=self._prefix)

    async def documents(self) -> AsyncIterator[Exported | Failed]:
        """Read one after the other; one that is deleted meanwhile is left out. Raises ``StoreUnavailable``."""
        after = self._after
        while names := await self._transfer.names(after=after, prefix=self._prefix, limit=_PAGE):
            for name in names:
                found: Exported | Failed
                try:
                    found = await self._transfer.read(name)
                    self.done += 1
                except (DocumentNotFound, DocumentDeleted):
                    continue  # since it was listed
                except DamagedDocument as error:
                    found = Failed(name, error)
                    self.failed += 1
                yield found
            after = names[-1]


def whole_update(data: bytes) -> Generator[None, None, bytes]:
    """Give the document that a v1 update holds, as one update; a generator that yields about every millisecond.

    Raises:
        UpdateError: it is no update, or builds on what is not in it.
    """
    document = Document()
    try:
        taken = yield from document.apply_update_in_slices(data)
    except UpdateError as error:
        raise UpdateError(f"it is not a Yjs v1 update: {error}") from None
    if taken.missing is not None:
        client, clock = taken.missing
        reason = f"it is not a whole document: it builds on clock {clock} of client {client}, which is not in it"
        raise UpdateError(reason, public=reason)
    return document.encode_state_as_update()
