"""The port of the durable log: what a store promises, and the records that pass through it.

Strategy: a document is a log of rows with numbers 1, 2, 3 ... without gaps, and now and then a
snapshot that says the same as all rows up to its number. The log is the truth; the memory of every
node is a copy of it. One call writes, :meth:`Store.append`, and it carries the whole promise; all
else reads, or tidies up what the log already says. Names are compared by the bytes of their UTF-8,
so that no database's collation decides which documents are the same.

Deleting keeps the row of the document as a *tombstone* under its name. Every append looks at it in the
transaction that writes, so neither a node that still has the document in memory nor a client that
returns with an old copy can bring it back. :meth:`Store.create` is the one way to free the name; the
new document has a new id, and appends that carry the old id keep meeting the tombstone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from collab.errors import DocumentDeleted, StoreRefused

MAX_ROW_BYTES = 512 * 1024 * 1024
"""The largest row and the largest snapshot a store takes. PostgreSQL and SQLite both end a little below
1 GB a value, and PostgreSQL needs the value and its message at once below that; half of it is safe."""


class NewRow(NamedTuple):
    """A row that is to be appended: ``data`` is a Yjs v1 update, ``at`` unix seconds (kept to the microsecond)."""

    data: bytes
    at: float
    author: str | None = None


class LogRow(NamedTuple):
    """A row of the log. ``seq`` counts from 1 within its document; ``at`` is in unix seconds."""

    seq: int
    data: bytes
    at: float
    author: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The document after row ``seq``.

    ``data`` is a Yjs v1 update that says what rows 1 to ``seq`` say, ``index`` the table of contents
    made with it (opaque here), ``state_vector`` the encoded state vector, ``at`` unix seconds.
    """

    seq: int
    data: bytes
    index: bytes
    state_vector: bytes
    at: float


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as stored. ``head_seq`` is the number of its newest row, 0 when it has none; times in unix seconds.

    ``gc`` False asks that compaction keeps deleted content. ``deleted_at`` is set on a tombstone only. ``title`` is
    what listings show, None if nobody has set one.
    """

    id: int
    name: str
    head_seq: int
    gc: bool
    created_at: float
    updated_at: float
    deleted_at: float | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentSummary:
    """A document and its sizes, for listings.

    ``snapshot_seq`` 0 means that there is no snapshot. The tail is the rows after the newest snapshot, which
    every opening reads; ``log_rows`` counts all rows kept, history included. Sizes in bytes.
    """

    document: StoredDocument
    snapshot_seq: int
    snapshot_bytes: int
    snapshot_at: float | None
    tail_rows: int
    tail_bytes: int
    log_rows: int


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """What opening a document needs: the newest snapshot and the rows after it, in order, all of one instant."""

    document: StoredDocument
    snapshot: Snapshot | None
    rows: list[LogRow]


@dataclass(frozen=True, slots=True)
class Append:
    """Rows for one document, in their order.

    ``document_id`` None says that the document was unknown when it was opened: the append creates it, or
    finds it made by another node meanwhile, or meets its tombstone. With an id the append reaches that very
    document or none: one that was deleted, or replaced by a newer one of the same name, is met as deleted.
    """

    name: str
    document_id: int | None
    rows: tuple[NewRow, ...]


class Appended(NamedTuple):
    """The consecutive numbers ``first_seq`` to ``last_seq`` that the rows of one :class:`Append` were given."""

    document_id: int
    first_seq: int
    last_seq: int


AppendOutcome = Appended | DocumentDeleted | StoreRefused
"""What became of one :class:`Append`; the errors are values here, because the other documents were written."""


class Store(Protocol):
    """Keep documents durably.

    **Durable when.** Rows are durable when the :meth:`append` that carried them returns: their transaction
    has committed with the database's strictest setting (SQLite: ``synchronous=FULL``; PostgreSQL: the
    ``synchronous_commit`` that its operator chose, ``on`` by default). They then survive the death of every
    process, and of the machine as far as its disk keeps what it has synced. The same holds for the other
    writing methods.

    **What may be lost.** Nothing that was returned for. Rows whose ``append`` raised, or never returned because the
    process died, may be there or not, each batch whole or not at all.

    **What may be reordered.** Nothing within a document: numbers follow the order in a batch and the order of
    the batches. Several nodes may append to one document at once; their rows interleave batch by batch, the
    numbers stay consecutive, and a row with number n is never visible before all rows below n are.

    **What may be repeated.** Nothing, if the rule of the ambiguous commit is kept: when the connection fails while a
    COMMIT is under way, nobody can know whether it took place. :meth:`append` then raises ``StoreUnavailable``, and
    giving the *same batch object* again writes it exactly once, and returns the numbers of the first time if that
    had succeeded. An attempt that a dead connection left behind in the database can never write after the
    repeat. Giving another batch instead gives the former one up: it was then written once or not at all.

    Errors: ``StoreUnavailable`` from any method means that the same call may succeed later (no connection, locked,
    disk full, read-only, database stopped); other methods than ``append`` may have taken effect nevertheless.
    No message holds a password or the content of a document. All methods may be called concurrently from
    one event loop, ``append`` by one writer only. Nothing here blocks that loop.
    """

    async def open(self) -> None:
        """Connect and check the schema; call once, before all else.

        Raises ``SchemaError``, whose text ends with the line to run, when the database is not on the schema of
        this release, and ``StoreUnavailable`` when it does not answer.
        """

    async def close(self) -> None:
        """Release all connections; a batch under way is finished or given up, and nothing may be called after."""

    async def ping(self) -> None:
        """Return when the store can be read, for the readiness of a node; raise ``StoreUnavailable`` otherwise."""

    async def load(self, name: str) -> LoadedDocument | None:
        """Read what opening the document needs; None if no document of that name was ever stored.

        Raises ``DocumentDeleted`` on a tombstone.
        """

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write all rows of the batch in one transaction and give each :class:`Append` its outcome, in order.

        A document may occur more than once in a batch; its rows keep their order. What is deleted, or refused for
        good (larger than ``MAX_ROW_BYTES``, or against a rule of the database), is left out and does not hinder the
        rest. When an :class:`Append` is refused, all others of the batch for the same document are refused with it:
        what follows a lost row must not be written. Raises ``StoreUnavailable`` as the class says.
        """

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``seq``, in order.

        Rows that were pruned are missing at the beginning: compare the first number. A tombstone or an unknown id
        has none.
        """

    async def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Read what rebuilds the state after row ``seq``: the newest snapshot up to it, and the rows from there to it.

        Gives None when pruning has made that state impossible to rebuild, or when the row does not exist (yet).
        """

    async def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        """Keep a snapshot if it is newer than the newest one there; return whether it was.

        False as well when the document was deleted. Older snapshots stay until :meth:`prune`. Writing the same one
        twice is harmless. Raises ``StoreRefused`` if it is larger than the store can hold.
        """

    async def create(self, name: str, *, gc: bool = True, rows: Sequence[NewRow] = ()) -> StoredDocument:
        """Create a document on purpose, with its first rows; over a tombstone too, which frees the name.

        Raises ``DocumentExists`` if it lives, ``StoreRefused`` if a row is. After ``StoreUnavailable`` a repeat may
        find the document created by the first try, and raises ``DocumentExists`` then.
        """

    async def delete(self, name: str, at: float) -> None:
        """Delete a document and leave a tombstone with the time ``at``, unix seconds.

        From its return on no append succeeds, on any node. The content goes with :meth:`prune`. Raises
        ``DocumentNotFound`` if there is none, or only a tombstone.
        """

    async def set_title(self, name: str, title: str | None) -> None:
        """Set what listings show for a document; its content and dates stay as they are.

        Writes nothing if it is the title already. Raises ``DocumentNotFound``, or ``DocumentDeleted`` on a tombstone.
        """

    async def list_documents(
        self, *, after: str | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents whose name begins with ``prefix``, ordered by the bytes of the name, at most ``limit``.

        ``after`` is the last name of the page before.
        """

    async def describe(self, name: str) -> DocumentSummary:
        """Give one document's sizes and dates; ``DocumentNotFound``, or ``DocumentDeleted`` on a tombstone."""

    async def prune(self, *, before: float, limit: int) -> int:
        """Remove what is not needed to rebuild any state since ``before`` (unix seconds), at most ``limit`` rows.

        Per document: let c be the last row before the first one of ``before`` or later. The state after c is the
        oldest to be kept, so the newest snapshot up to c stays with all rows after it; rows up to that snapshot's
        number and older snapshots go, oldest first. The newest snapshot and the rows after it always stay. Content of
        deleted documents goes whatever its age; the tombstones stay. Returns how many rows and snapshots went; 0 says
        that nothing is left to prune now.
        """
