"""The port of maintenance: all that is kept of a document as it lies there, damaged or not, and putting it in order.

Strategy: apart from the store, because no server needs it to serve; verifying and repairing do, and what operators
are shown of one document, on the databases of collab. A change names the bytes that it replaces, so it does nothing
where somebody else was quicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from collab.storage.attributions import KeptAttribution
from collab.storage.records import ClientOwner, LogRow, NewRow, PendingUpdate, Snapshot, StoredDocument
from collab.storage.store import Store

Checksums = Sequence[tuple[int, int]]
"""Numbers of rows or snapshots, each with its checksum."""


class KeptSnapshot(NamedTuple):
    """A snapshot without what it holds: its number, the bytes that it has, and its time in Unix seconds."""

    seq: int
    nbytes: int
    at: float


class KeptEntry(NamedTuple):
    """An entry of a timeline as it lies there; see :class:`collab.storage.timeline.Entry`."""

    first: int
    last: int
    started_at: float
    ended_at: float
    nbytes: int
    data: bytes


@runtime_checkable
class Maintenance(Store, Protocol):
    """A store that shows everything that it keeps."""

    async def count(self) -> int:
        """Count the living documents, and those in the trash."""

    async def documents_after(self, document_id: int, limit: int) -> list[StoredDocument]:
        """Read living documents, and those in the trash, with ids above ``document_id``, in the order of their ids."""

    async def kept_rows(self, document_id: int, after: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``after``; numbers that are not there are passed over."""

    async def kept_snapshots(self, document_id: int) -> list[KeptSnapshot]:
        """List the snapshots, the one with the lowest number first."""

    async def kept_snapshot(self, document_id: int, seq: int) -> Snapshot | None:
        """Read one snapshot."""

    async def replace_row(self, document_id: int, was: LogRow, by: NewRow) -> bool:
        """Put another row in the place of ``was``; return False if that is not there any more."""

    async def replace_snapshot(self, document_id: int, was: Snapshot, by: Snapshot | None) -> bool:
        """Put another snapshot in the place of ``was``, or none; return False if that is not there any more."""

    async def remove_pending(self, document_id: int, was: PendingUpdate) -> bool:
        """Remove a pending update; return False if that is not there any more."""

    async def pinned_versions(self, document_id: int) -> list[int]:
        """Give the ids of versions whose state is kept beside the log."""

    async def kept_state(self, version_id: int) -> Snapshot | None:
        """Read the state of a pinned version; None if it is missing."""

    async def kept_number(self, version_id: int) -> int | None:
        """Give the number of the log whose state a version is, 0 for an imported one; None if there is no version."""

    async def replace_state(self, document_id: int, version_id: int, was: Snapshot | None, by: Snapshot) -> bool:
        """Put another state of a pinned version in the place of ``was`` (None: it is missing).

        Returns False if it is another one by now, or the version is gone.
        """

    async def remove_owner(self, document_id: int, was: ClientOwner) -> bool:
        """Remove the owner of a client ID; return False if it is another one by now."""

    async def kept_entries(self, document_id: int, after: int, limit: int) -> list[KeptEntry]:
        """Read entries of the timeline whose first number is above ``after``, in their order."""

    async def remove_entry(self, document_id: int, was: KeptEntry) -> bool:
        """Remove an entry of the timeline; return False if it is another one by now."""

    async def add_entries(self, document_id: int, entries: Sequence[KeptEntry]) -> bool:
        """Add entries of the timeline, all or none; return False if there are some with the same numbers."""

    async def kept_cursor(self, document_id: int) -> int | None:
        """Give up to which row receivers of webhooks were told of a document; None if they were told of nothing."""

    async def replace_cursor(self, document_id: int, was: int, by: int) -> bool:
        """Put another number in the place of ``was``; return False if that is not there any more."""

    async def kept_mark(self, document_id: int) -> float | None:
        """Give since when receivers of webhooks have to be told of a document, in Unix seconds; None: they need not."""

    async def remove_mark(self, document_id: int, was: float) -> bool:
        """Remove a mark; return False if it is another one by now."""

    async def kept_skeletons(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Read names behind ``after``, in UTF-8, each with its skeleton, in their order."""

    async def kept_attribution(self, document_id: int) -> KeptAttribution | None:
        """Read the attribution of a document, deleted ones too."""

    async def remove_attribution(self, document_id: int, was: KeptAttribution) -> bool:
        """Remove an attribution; return False if it is another one by now."""

    async def damage_noted(self, document_id: int) -> bool:
        """Tell whether damage of a document is noted."""

    async def forget_damage(self, document_id: int) -> None:
        """Take the notes away: what was damaged is repaired."""

    async def find_troubles(self) -> list[str]:
        """Say what is wrong with the tables and indexes of the database, a sentence each."""

    async def make_indexes(self) -> list[str]:
        """Make indexes that are missing or not sound; say which. What is written meanwhile waits."""

    async def filled_to(self) -> int:
        """Give the id of the document behind which filling in checksums has to go on."""

    async def fill(self, document_id: int, rows: Checksums, snapshots: Checksums, *, note: bool) -> None:
        """Give checksums to rows and snapshots that have none; with ``note`` note that this document is done."""

    async def filled(self) -> None:
        """Note that all documents are done, so that the next filling begins anew."""
