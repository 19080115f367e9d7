"""The port of data about people: everything that names a user in a database, and putting another name in its place.

Strategy: apart from the store, because no server needs it; ``collab people export`` and ``erase`` do. Nothing is
indexed by user, since that would cost each edit something, so a document is looked through as a whole. Each call reads
or changes portions of a bounded size, each in a transaction of its own: servers go on writing meanwhile. A change names
what it replaces, so it does nothing where somebody else was quicker. So look once more at the end.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from collab.storage.maintenance import Maintenance
from collab.storage.records import LogRow

PORTION_ROWS: Final = 500
"""Rows that one transaction changes: some milliseconds in which SQLite writes nothing else."""

PORTION_BYTES: Final = 4 << 20
"""Bytes of updates that are read for that, because the checksum of a row covers its author too."""


class Place(NamedTuple):
    """A document: its id, its name (None: it is deleted, and nobody knows), and whether it is deleted."""

    id: int
    name: str | None
    deleted: bool


class Trace(NamedTuple):
    """One place where a user is named.

    Attributes:
        kind: "waiting" (an update that waits for others), "client_id", "version", "sitting" (an entry of the timeline),
            "attribution" (marks of who wrote what), "guest_name" (what a guest is called, who is the user or has the
            user's link) or "delivery" (what a receiver of webhooks is told).
        facts: what is stored there, to be written as JSON; times are unix seconds.
    """

    kind: str
    facts: dict[str, Any]


class People(Maintenance, Protocol):
    """A store that shows, and changes, where it names a user."""

    async def places_after(self, document_id: int, limit: int) -> list[Place]:
        """Read documents with ids above ``document_id`` in their order, deleted ones too."""

    async def edits_of(self, document_id: int, user: str, after: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows above ``after`` that a user has sent, or that were made on the user's behalf."""

    async def traces_of(self, document_id: int, user: str) -> list[Trace]:
        """Give everything else of a document that names a user."""

    async def deliveries_of(self, user: str, after: int, limit: int) -> tuple[list[Trace], int | None]:
        """Look at up to ``limit`` deliveries behind ``after``; also give the last one, None at the end."""

    async def rename_in(self, document_id: int, user: str, to: str) -> dict[str, int]:
        """Put another name in the place of a user in all of a document; count what was changed, by kind.

        Rows have the kind "edit"; the others are those of ``Trace``. A checksum stays what it was: right or wrong.
        Names of guests are forgotten, those of guests whom the user has invited too: the user's own name is in them.
        """

    async def rename_in_deliveries(self, user: str, to: str) -> int:
        """Do the same in what receivers are to be told, and were told; return how many were changed."""
