"""The port of the trash: deleted documents that can be restored, and erasing for good.

Strategy: deleting leaves a tombstone and keeps the content for a while. The trash remembers the name that the document
had, also when another one was created under it since, so a name may have several deleted predecessors, and each is
chosen by its id. Restoring makes that very document live again: its id, its numbers and its history. So a client with
an old copy simply merges. What leaves the trash, by age or by erasing, can never come back.

A **skeleton** belongs to a name: which client IDs and clocks documents of this name have used whose content is gone. It
holds no content, and what is in it is not this port's business.
"""

from __future__ import annotations

from typing import Protocol

from collab.storage.records import DocumentSummary, StoredDocument


class Trash(Protocol):
    """Keep deleted documents until they are restored, erased, or pruned by age.

    Durable as the catalogue is (:class:`collab.storage.catalogue.Catalogue`): when a method returns.
    """

    async def list_trash(
        self,
        *,
        name: str | None = None,
        prefix: str = "",
        since: float | None = None,
        before: float | None = None,
        after: tuple[float, int] | None = None,
        limit: int = 100,
    ) -> list[DocumentSummary]:
        """List what is in the trash, what was deleted last first; of the same time, the larger id first.

        The name of each is that which it had. Only documents of exactly this ``name``, or whose name begins with
        ``prefix``; only those that were deleted at ``since`` or later, and earlier than ``before`` (unix seconds).
        ``after`` are ``deleted_at`` and the id of the last one of the page before.
        """

    async def restore(self, document_id: int, new_name: str | None = None, *, at: float) -> StoredDocument:
        """Make a document of the trash live again, under the name that it had or under ``new_name``.

        It is as it was when it was deleted: id, numbers, content, history, title and own keys. A tombstone of another
        document under that name gives way. If its own tombstone is under another name, one with the time ``at`` stays
        there, as after :meth:`collab.storage.catalogue.Catalogue.rename`.

        Raises ``DocumentNotFound`` if it is not in the trash, or some of its content is gone; ``DocumentExists`` if a
        document of that name lives. Of several who restore it at once one succeeds.
        """

    async def erase(self, document_id: int) -> None:
        """Remove for good all that is kept of a deleted document, whether or not it is in the trash.

        From the return on nothing that the storage answers holds any of it: rows, snapshots, pending updates, title,
        own keys, notes of damage, and the answers of calls that created it. The tombstone stays under its name, with
        its id. What storage of this kind leaves on a disk is overwritten as far as it can be
        (docs/operations.md says what is left).

        Raises ``DocumentExists`` if it lives, and ``DocumentNotFound`` if there is no such document any more. After
        ``StoreUnavailable`` some of it may be gone, and a repeat removes the rest; if it raises ``DocumentNotFound``,
        all is gone.
        """

    async def skeleton(self, name: str) -> bytes | None:
        """Read the skeleton of a name."""

    async def replace_skeleton(self, name: str, was: bytes | None, by: bytes) -> bool:
        """Put ``by`` in the place of the skeleton ``was`` (None: there is none); False if another one is there by now.

        Write it before the content goes from which it was made. Writing the same one twice is harmless.
        """
