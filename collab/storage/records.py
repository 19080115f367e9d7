"""The records that pass through the store's ports: rows, snapshots, documents, and what became of an append."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from collab.authorship import Note
from collab.errors import DocumentDeleted, StoreRefused
from collab.storage.producers import NewProducer

MAX_ROW_BYTES = 512 * 1024 * 1024
"""The largest row and the largest snapshot a store takes. PostgreSQL and SQLite both end a little below
1 GB a value, and PostgreSQL needs the value and its message at once below that; half of it is safe."""

_OWNER_BYTES = 100
"""About what one of the owners, guests or producers costs in memory, beside the text."""


Scalar = str | int | float | bool | None
"""A value of a document's own keys (:mod:`collab.storage.metadata`)."""


class Keep(Enum):
    """Stands for "as it is" where None means "none"."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


class NewRow(NamedTuple):
    """A row that is to be appended: ``data`` is a Yjs v1 update, ``at`` unix seconds (kept to the microsecond).

    The store keeps ``checksum`` as it is given and does not look at it (``collab.storage.checksums`` makes it).
    ``note`` is what an edit over HTTP says of itself beside its author; None, as for nearly all rows, costs nothing.
    """

    data: bytes
    at: float
    author: str | None = None
    checksum: int | None = None
    note: Note | None = None


class LogRow(NamedTuple):
    """A row of the log. ``seq`` counts from 1 within its document; ``at`` is in unix seconds.

    ``checksum`` None says that nobody knows whether ``data`` is what was written. ``note`` is as in :class:`NewRow`;
    the checksum does not cover it.
    """

    seq: int
    data: bytes
    at: float
    author: str | None
    checksum: int | None = None
    note: Note | None = None


class NewOwner(NamedTuple):
    """Whose a client ID of a document is from now on, unless the store knows already: the first one stays.

    ``author`` is the user whose Update used the ID first, None for an ID of the server's own, under which it makes the
    edits of several; ``clock`` is the first clock of the client in that Update, ``at`` unix seconds, ``row`` the place
    of the row that holds it among those of its :class:`Append`, from 0.
    """

    client: int
    author: str | None
    at: float
    clock: int
    row: int = 0


class ClientOwner(NamedTuple):
    """Whose a client ID of a document is, as kept: as in :class:`NewOwner`; ``seq`` is the number of the row."""

    client: int
    author: str | None
    at: float
    clock: int
    seq: int


class NewGuest(NamedTuple):
    """What a guest on a document is called from now on, unless the store knows already: the first name stays.

    ``author`` is the user of the link, ``name`` what the others are shown, ``invited_by`` the user who has made the
    link (None: not known). ``row`` is the place of the guest's row among those of its :class:`Append`, from 0.
    """

    author: str
    name: str
    invited_by: str | None = None
    row: int = 0


class PendingUpdate(NamedTuple):
    """An update that waits for what its document lacks, kept beside the log: ``data`` is a Yjs v1 update.

    ``key`` (16 bytes) is made of ``data`` by the caller and names it within its document; ``at`` is unix seconds.
    ``number`` is given by the store, is never 0 there, and no other update of the storage ever has it.
    """

    key: bytes
    data: bytes
    at: float
    author: str | None = None
    number: int = 0


class PendingChange(NamedTuple):
    """Pending updates that are to be kept from now on, and the keys of those that are not."""

    added: tuple[PendingUpdate, ...]
    settled: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The document after row ``seq``.

    ``data`` is a Yjs v1 update that says what rows 1 to ``seq`` say, ``index`` the table of contents
    made with it (opaque here), ``state_vector`` the encoded state vector, ``at`` unix seconds. ``checksum`` is as
    in a row.
    """

    seq: int
    data: bytes
    index: bytes
    state_vector: bytes
    at: float
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as stored. ``head_seq`` is the number of its newest row, 0 when it has none; times in unix seconds.

    ``gc`` False asks that compaction keeps deleted content. ``deleted_at`` is set on a tombstone only; ``renamed_to``
    on that which a document has left that was given another name: its id. ``title`` is what listings show, None if
    nobody has set one.
    """

    id: int
    name: str
    head_seq: int
    gc: bool
    created_at: float
    updated_at: float
    deleted_at: float | None = None
    title: str | None = None
    renamed_to: int | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict, hash=False)


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

    @property
    def stored_bytes(self) -> int:
        """The bytes that are read to open it: the newest snapshot and the tail."""
        return self.snapshot_bytes + self.tail_bytes


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """What opening a document needs: the newest snapshot and the rows after it, in order, all of one instant.

    ``passed_over`` has the numbers of newer snapshots that are damaged. Rows are given as they are; whoever reads them
    compares their checksums. ``pending`` are the pending updates, of the same instant, in the order of their numbers.
    """

    document: StoredDocument
    snapshot: Snapshot | None
    rows: list[LogRow]
    passed_over: tuple[int, ...] = ()
    pending: tuple[PendingUpdate, ...] = ()


@dataclass(frozen=True, slots=True)
class Append:
    """Rows for one document, in their order, and what changes among its pending updates.

    ``document_id`` None says that the document was unknown when it was opened: the append creates it, or
    finds it made by another node meanwhile, or meets its tombstone. With an id the append reaches that very
    document or none: one that was deleted, or replaced by a newer one of the same name, is met as deleted.
    There may be no rows, if ``pending`` is not None. ``gc`` False asks that compaction keeps deleted content of this
    document from now on, whether or not the append creates it; True leaves that as it is. ``owners`` are written with
    the rows; those of a client ID whose owner is known change nothing. So are ``guests``, of whom those who have a name
    keep it, and the numbers of ``producers``, which never become lower.
    """

    name: str
    document_id: int | None
    rows: tuple[NewRow, ...]
    pending: PendingChange | None = None
    gc: bool = True
    owners: tuple[NewOwner, ...] = ()
    producers: tuple[NewProducer, ...] = ()
    guests: tuple[NewGuest, ...] = ()

    @property
    def begun_at(self) -> float:
        """When a document that this append creates was created, in unix seconds."""
        if self.rows:
            return self.rows[0].at
        return self.pending.added[0].at if self.pending is not None and self.pending.added else 0.0

    @property
    def nbytes(self) -> int:
        """The bytes of data that it carries."""
        size = 0
        for row in self.rows:
            size += len(row.data)
        if self.pending is not None:
            size += sum([len(update.data) for update in self.pending.added])
        if self.owners:
            size += sum([_OWNER_BYTES + len(owner.author or "") for owner in self.owners])
        if self.producers:
            size += _OWNER_BYTES * len(self.producers)
        if self.guests:
            size += sum([_OWNER_BYTES + len(guest.author) + len(guest.name) for guest in self.guests])
        return size


class Head(NamedTuple):
    """Where the log of a document stands: the number ``seq`` of its newest row; ``deleted`` is True for a tombstone.

    ``pending`` is the sum of the numbers of its pending updates: another one says that they have changed.
    ``renamed_to`` is the id of the document that had this name before it was given another one, on the tombstone that
    it has left; else None.
    """

    document_id: int
    seq: int
    deleted: bool
    pending: int = 0
    renamed_to: int | None = None


class CallKey(NamedTuple):
    """The key of a call that is to be done once, and who is doing it: see :mod:`collab.storage.calls`.

    ``key`` has 32 bytes and names the call for everybody, ``token`` 32 characters that name one attempt at it.
    """

    key: bytes
    token: str


class CallState(NamedTuple):
    """How far a call has come that was begun with a key.

    ``mine`` says that the caller is to do it now. ``document_id`` is then the document that an attempt before has
    created without coming to its end. Otherwise ``status`` and ``answer`` are those of the call that was done, or
    ``status`` is None: somebody else is at it. ``answer`` None beside a status: its document was erased.
    """

    mine: bool = False
    document_id: int | None = None
    status: int | None = None
    answer: bytes | None = None


class Appended(NamedTuple):
    """The consecutive numbers ``first_seq`` to ``last_seq`` that the rows of one :class:`Append` were given.

    Without rows ``last_seq`` is the number of the newest row (0: there is none) and ``first_seq`` the next one.
    """

    document_id: int
    first_seq: int
    last_seq: int


AppendOutcome = Appended | DocumentDeleted | StoreRefused
"""What became of one :class:`Append`; the errors are values here, because the other documents were written."""


class Kind(Enum):
    """What an operator can tell all nodes to do."""

    KICK = "kick"  # end sessions; their clients may come back at once, or after some time
    CHECK = "check"  # ask again what the sessions may do, with the tokens that they have shown
    RELOAD = "reload"  # drop the room, and read the document from the store again
    QUARANTINE = "quarantine"  # close a document for some time
    RELEASE = "release"  # let a document be opened again that is closed
    LOG = "log"  # write more or less into the log, for some time
    LIST = "connections"  # say which connections there are, by an answer that is kept beside the report


@dataclass(frozen=True, slots=True)
class Instruction:
    """What an operator tells all nodes to do, with the sessions that it is about.

    Attributes:
        kind: what is to be done.
        document: only sessions on the document of this name; None: on any.
        user: only sessions of this user, as its token names it; None: of anybody.
        connection: only sessions of this connection, ``NODE-NUMBER``; None: of any.
        seconds: for so long the user is kept out, the document stays closed, or a log level counts; 0: not at all.
        logger: whose level is changed.
        level: from which on it writes, or ``default``.
    """

    kind: Kind
    document: str | None = None
    user: str | None = None
    connection: str | None = None
    seconds: float = 0.0
    logger: str | None = None
    level: str | None = None


class StoredInstruction(NamedTuple):
    """An instruction as kept: ``number`` grows, ``age`` and ``left`` are the seconds since it came and until it lapses.

    Both are by the clock of the storage, so nodes need not agree on the time. ``instruction`` is None for one that this
    release does not know.
    """

    number: int
    age: float
    left: float
    instruction: Instruction | None


class NodeReport(NamedTuple):
    """What one node has done: ``ended`` sessions, ``changed`` the access of others, and some could not be decided on.

    ``done`` False says that it has heard of the instruction and is at it.
    """

    node: str
    ended: int = 0
    changed: int = 0
    undecided: int = 0
    done: bool = True


class Reports(NamedTuple):
    """What the nodes say of an instruction; ``silent`` are those that are known to live and have said nothing."""

    reports: tuple[NodeReport, ...]
    silent: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every node that is known has done it."""
        return bool(self.reports) and not self.silent and all(report.done for report in self.reports)

    def facts(self) -> dict[str, Any]:
        """Give them as the HTTP API and ``--json`` show them."""
        return {"nodes": [report._asdict() for report in self.reports], "silent": list(self.silent)}
