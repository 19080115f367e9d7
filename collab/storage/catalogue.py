"""The port of the catalogue: which documents there are, with their names, titles, own keys and sizes.

Strategy: a document is created by its first append or by :meth:`Catalogue.create`. Names are compared by
the bytes of their UTF-8, so that no database's collation decides which documents are the same.

Deleting keeps the row of the document as a *tombstone* under its name. Every append looks at it in the
transaction that writes, so neither a node that still has the document in memory nor a client that
returns with an old copy can bring it back. :meth:`Catalogue.create` frees the name; the new document has a new id,
and appends that carry the old id keep meeting the tombstone. So does :meth:`Catalogue.rename`, for the name that a
document is given; it leaves a tombstone under the one that it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from collab.storage.records import KEEP, CallKey, DocumentSummary, Keep, NewRow, Scalar, StoredDocument


class Catalogue(Protocol):
    """Say which documents there are.

    **Durable when.** The change is durable when the method that made it returns, as a row is after an append
    (:class:`collab.storage.log.Log`). Every store on the same storage sees it from then on.

    **What may be lost or repeated.** A method that raised ``StoreUnavailable``, or was cancelled, may have taken effect
    nevertheless. Nothing remembers attempts here: a repeat finds what the first one did.

    An id is given to one document only, for ever.
    """

    async def create(
        self,
        name: str,
        *,
        gc: bool = True,
        rows: Sequence[NewRow] = (),
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        over_tombstone: bool = True,
        call: CallKey | None = None,
    ) -> StoredDocument:
        """Create a document on purpose, with its first rows, title and own keys, in one transaction.

        Over a tombstone too, which frees the name; ``over_tombstone`` False raises ``DocumentDeleted`` there. With
        ``call`` the same transaction notes the document with the call that was begun
        (:mod:`collab.storage.calls`); ``KeyBusy`` if somebody else is at that by now.

        Raises ``DocumentExists`` if it lives, ``StoreRefused`` if a row is, ``InvalidMetadata``. After
        ``StoreUnavailable`` a repeat may find the document created by the first try, and raises ``DocumentExists``
        then. Of several who create one at the same time one succeeds, and the others get ``DocumentExists``.
        """

    async def delete(self, name: str, at: float) -> int:
        """Delete a document and leave a tombstone with the time ``at``, unix seconds; return the document's id.

        From its return on no append succeeds, on any node. The document is in the trash then
        (:mod:`collab.storage.trash`), and its content goes with :meth:`prune`. Raises ``DocumentNotFound`` if there is
        none, or only a tombstone.
        """

    async def rename(self, name: str, new_name: str, at: float) -> int:
        """Give a document another name, in one transaction; return its id, which stays with all numbers and content.

        A tombstone with the time ``at`` stays under the old name, so a name is left as by :meth:`delete`: no old copy
        brings the document back there, and :meth:`create` (or a document that is renamed to it) frees it. Appends that
        carry the id reach the document under its new name; those that carry none meet the tombstone, if they are not
        committed before. The new name may have a tombstone, which gives way.

        Raises ``DocumentNotFound`` if there is none, ``DocumentDeleted`` on a tombstone, ``DocumentExists`` if a
        document of the new name lives, itself included. After ``StoreUnavailable`` a repeat may find it done.
        """

    async def set_title(self, name: str, title: str | None) -> None:
        """Set what listings show for a document; its content and dates stay as they are.

        Writes nothing if it is the title already. Raises ``DocumentNotFound``, or ``DocumentDeleted`` on a tombstone.
        """

    async def change(
        self, name: str, *, title: str | None | Keep = KEEP, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Set the title, and merge ``metadata`` into the document's own keys, in one transaction.

        A key with the value None is taken away; keys that are not named stay, so of several who change different ones
        at once none undoes another. Content and dates stay as they are. Raises as :meth:`set_title`, and
        ``InvalidMetadata`` (then nothing has changed).
        """

    async def list_documents(
        self, *, after: str | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents whose name begins with ``prefix``, ordered by the bytes of the name, at most ``limit``.

        ``after`` is the last name of the page before.
        """

    async def count_documents(self, *, after: str | None = None, prefix: str = "") -> int:
        """Count what :meth:`list_documents` lists on all pages behind ``after``, as they stand now."""

    async def describe(self, name: str) -> DocumentSummary:
        """Give one document's sizes and dates; ``DocumentNotFound``, or ``DocumentDeleted`` on a tombstone."""

    async def list_recent(
        self, *, after: tuple[float, str] | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents whose name begins with ``prefix``, those that were edited last first.

        Of two with the same ``updated_at`` the one whose name has lower bytes comes first. ``after`` are the time and
        the name of the last document of the page before; one that is edited meanwhile moves to the front.
        """

    async def describe_id(self, document_id: int) -> DocumentSummary:
        """Do the same as :meth:`describe` for the document with this id, whatever its name is now."""
