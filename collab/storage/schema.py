"""The tables, for SQLite and PostgreSQL alike. They only grow: migrations add tables and nullable columns.

Strategy: rows of the log lie in the order in which they came, and the primary key (``document_id, seq``) is an
index beside them. On SQLite the opposite (WITHOUT ROWID, the rows of a document together) costs half as much
CPU again for each append, because every document's rows are then another page to write. Names and
authors are the bytes of their UTF-8: they compare alike on every database, whatever its collation, and may
hold U+0000, which PostgreSQL's text cannot. Nothing refers to a document by a foreign key: deleting
content is :mod:`~collab.storage.sql`'s pruning in small portions, and a key would cost a look-up a row.

Read a name in SQL with ``convert_from(name, 'UTF8')`` on PostgreSQL and ``CAST(name AS TEXT)`` on SQLite.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = 16
"""The number of the schema that this release works on; a test compares it with the newest migration."""

BASE_REVISION = "0002"
"""Where ``alembic_version`` stays for ever: release 0.1.0 wants to find exactly this there (docs/decisions/0013)."""

BASE_TABLE = "alembic_version"
REVISION_TABLE = "schema_revision"
"""Where Alembic notes the revision from 0002 on."""

VERSION_TABLES = frozenset({BASE_TABLE, REVISION_TABLE})

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Python's sqlite3 and PostgreSQL both count to 2**63; SQLite numbers rows by itself only in INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")

documents = Table(
    "documents",
    metadata,
    # Never given twice (AUTOINCREMENT): an append with the id of a document long gone must not meet another.
    Column("id", _ID, primary_key=True, autoincrement=True),
    # NULL: a tombstone whose name was given to a newer document; its row goes when its content is pruned.
    Column("name", LargeBinary, nullable=True),
    Column("head_seq", BigInteger, nullable=False),
    Column("gc", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("deleted_at", Double, nullable=True),
    # What a listing shows instead of the name; the server reads no documents, so whoever renames one says it.
    Column("title", LargeBinary, nullable=True),
    # On a tombstone that a renamed document has left under its old name: the id of that document.
    Column("renamed_to", BigInteger, nullable=True),
    # The application's own keys: a JSON object, in UTF-8. NULL: none.
    Column("metadata", LargeBinary, nullable=True),
    # There is none on updated_at: each edit would have to write into it, and on PostgreSQL into every other one too.
    Index("uq_documents_name", "name", unique=True),
    sqlite_autoincrement=True,
)

log = Table(
    "log",
    metadata,
    Column("document_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("author", LargeBinary, nullable=True),
    Column("data", LargeBinary, nullable=False),
    # NULL: unverified, written by a release that made none (``collab.storage.checksums``).
    Column("checksum", BigInteger, nullable=True),
    # What edits over HTTP say of themselves (``collab.authorship``). NULL in all other rows: that costs nothing on
    # PostgreSQL and two bytes a row on SQLite, where a table of its own would cost each pruning a statement.
    Column("on_behalf_of", LargeBinary, nullable=True),
    Column("label", LargeBinary, nullable=True),
    PrimaryKeyConstraint("document_id", "seq"),
)

client_owners = Table(
    "client_owners",
    metadata,
    # Whose a client ID is: the first row of a client that comes to stand here stays (docs/decisions/0024).
    Column("document_id", BigInteger, nullable=False),
    Column("client", BigInteger, nullable=False),
    # NULL: made by the server for the edits of several; each row of the log says whose it is.
    Column("author", LargeBinary, nullable=True),
    # Those of the row that holds the Update which has decided it.
    Column("at", Double, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # The first clock of the client in that Update. What lies below came by another way.
    Column("clock", BigInteger, nullable=False),
    PrimaryKeyConstraint("document_id", "client"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("document_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("state_vector", LargeBinary, nullable=False),
    Column("index_data", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    # NULL: unverified, written by a release that made none (``collab.storage.checksums``).
    Column("checksum", BigInteger, nullable=True),
    PrimaryKeyConstraint("document_id", "seq"),
)

pending = Table(
    "pending",
    metadata,
    # Updates that wait for what their document lacks. Ids are never given twice: their sum tells whether anything has
    # changed. The key is made of the data, and tells whether it is what was written.
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("document_id", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    Column("author", LargeBinary, nullable=True),
    Column("data", LargeBinary, nullable=False),
    UniqueConstraint("document_id", "key"),
    sqlite_autoincrement=True,
)

writers = Table(
    "writers",
    metadata,
    # One row for each store that has written: the number of its last batch, and what became of it. It changes
    # in the transaction of the batch, so after an ambiguous COMMIT it tells whether the batch is there; and an
    # attempt with an older number finds it changed and writes nothing.
    Column("id", String(32), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    # "document:last_seq,document:last_seq ...": the head of each document right after the batch.
    Column("heads", Text, nullable=False),
    Column("at", Double, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    # One row for each server that lives, or died a while ago. Times are the database's; ``period`` is the seconds in
    # which the next heartbeat is to come, ``settings`` what should be alike on all of them, as a JSON object.
    Column("name", String(64), primary_key=True),
    Column("address", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("bus", String(64), nullable=False),
    Column("settings", Text, nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("connections", BigInteger, nullable=False),
    Column("period", Double, nullable=False),
    Column("since", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
)

compatibility = Table(
    "compatibility",
    metadata,
    # One row for each migration since 0003; the one with the largest number says how the database stands. Releases
    # whose own number is below ``oldest_schema`` must not use it; ``oldest_release`` is the first that may, for people.
    Column("schema", _ID, primary_key=True, autoincrement=False),
    Column("oldest_schema", BigInteger, nullable=False),
    Column("oldest_release", String(64), nullable=False),
    Column("at", Double, nullable=False),
)

backfills = Table(
    "backfills",
    metadata,
    # How far a job has come that fills a column in portions, so that it goes on there when it is started again.
    Column("name", String(64), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("done_at", Double, nullable=True),
)

damage = Table(
    "damage",
    metadata,
    # What was found to be damaged and is not repaired: while there is any, nothing of its document is pruned.
    Column("document_id", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),  # "row" or "snapshot"
    Column("seq", BigInteger, nullable=False),
    Column("found_at", Double, nullable=False),
    PrimaryKeyConstraint("document_id", "kind", "seq"),
)

instructions = Table(
    "instructions",
    metadata,
    # What operators have told all servers to do (``collab.storage.control``); each server looks, and reports below.
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    # What it is about; NULL chooses everything.
    Column("document_name", LargeBinary, nullable=True),
    Column("user_id", LargeBinary, nullable=True),
    Column("connection", String(64), nullable=True),  # with the kind "log": LOGGER=LEVEL
    Column("seconds", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("lapses_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

reports = Table(
    "instruction_reports",
    metadata,
    Column("instruction_id", BigInteger, nullable=False),
    Column("node", String(64), nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("undecided", BigInteger, nullable=False),
    # False: the server has heard of it, and is at it.
    Column("done", Boolean, nullable=False),
    PrimaryKeyConstraint("instruction_id", "node"),
)

trash = Table(
    "trash",
    metadata,
    # Deleted documents whose content is kept, so that they can be restored. The name is that which a document had: its
    # row in ``documents`` has lost it when another one was created under it.
    Column("document_id", BigInteger, nullable=False),
    Column("name", LargeBinary, nullable=False),
    Column("deleted_at", Double, nullable=False),
    PrimaryKeyConstraint("document_id"),
    Index("ix_trash_deleted_at", "deleted_at", "document_id"),
    Index("ix_trash_name", "name", "document_id"),
)

skeletons = Table(
    "skeletons",
    metadata,
    # Which ranges of client IDs documents of a name have had whose content is gone for good; no content is in it.
    Column("name", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("name"),
)

calls = Table(
    "calls",
    metadata,
    # Requests with a key that are to be done once (``collab.storage.calls``). The key is a hash.
    Column("key", LargeBinary, nullable=False),
    # A hash of what was asked; NULL when the document that came of it was erased.
    Column("request", LargeBinary, nullable=True),
    # Who is at it; NULL: nobody, any more.
    Column("token", String(32), nullable=True),
    Column("document_id", BigInteger, nullable=True),
    # NULL: not done yet.
    Column("status", BigInteger, nullable=True),
    Column("answer", LargeBinary, nullable=True),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("key"),
    Index("ix_calls_at", "at"),
    Index("ix_calls_document_id", "document_id"),
)

producers = Table(
    "producers",
    metadata,
    # The highest numbers of those who post updates (``collab.storage.producers``). The key is a hash of the name.
    Column("document_id", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # When it was used, to the hour: what changes seldom costs its index nothing.
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("document_id", "key"),
    Index("ix_producers_at", "at"),
)

webhook_lease = Table(
    "webhook_lease",
    metadata,
    # One row, "delivery": the server that delivers, and until when. Documents with ids up to ``base_id`` were there
    # when there was a lease for the first time, so nobody is told that they were created.
    Column("name", String(16), nullable=False),
    Column("node", String(64), nullable=False),
    Column("until", Double, nullable=False),
    Column("base_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

webhook_receivers = Table(
    "webhook_receivers",
    metadata,
    # Who is told of what (``collab.storage.webhooks``): kinds with commas between. Addresses and secrets are not here.
    Column("name", String(64), nullable=False),
    Column("kinds", Text, nullable=False),
    Column("prefix", LargeBinary, nullable=False),
    # When a server last delivered to it, or tried; about an hour old at most.
    Column("seen_at", Double, nullable=False),
    Column("failing_since", Double, nullable=True),
    Column("disabled_at", Double, nullable=True),
    Column("dropped", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

webhook_cursors = Table(
    "webhook_cursors",
    metadata,
    # Up to which row receivers were told of a document. No row: of nothing, not even that it was created.
    Column("document_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("document_id"),
)

webhook_marks = Table(
    "webhook_marks",
    metadata,
    # Documents that have most likely rows past their cursor, and since when.
    Column("document_id", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("document_id"),
    Index("ix_webhook_marks_at", "at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    # One row for each event and receiver. Numbers of one lane (a document) are in the order in which things happened.
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("receiver", String(64), nullable=False),
    Column("event", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("lane", BigInteger, nullable=False),
    Column("name", LargeBinary, nullable=False),
    # A JSON object; content of documents is never in it.
    Column("data", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    # When it began to wait: later than ``at`` where it is sent again.
    Column("queued_at", Double, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("due_at", Double, nullable=False),
    # NULL: it waits.
    Column("done_at", Double, nullable=True),
    Column("delivered", Boolean, nullable=False),
    Column("status", BigInteger, nullable=True),
    Column("error", LargeBinary, nullable=True),
    Index("ix_webhook_deliveries_lane", "lane"),
    # What waits comes first in it (NULL), by lanes; and what is done is in the order of its end.
    Index("ix_webhook_deliveries_receiver", "receiver", "done_at", "lane", "id"),
    sqlite_autoincrement=True,
)

versions = Table(
    "versions",
    metadata,
    # Numbers of the log that have a name, and such that were noted by themselves (``collab.storage.versions``).
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("document_id", BigInteger, nullable=False),
    # 0: it was imported, and is no number of this log.
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", String(16), nullable=False),
    Column("name", LargeBinary, nullable=True),
    Column("description", LargeBinary, nullable=True),
    Column("author", LargeBinary, nullable=True),
    Column("at", Double, nullable=False),
    # Whether its state is in the table below, so that it needs nothing of the log any more.
    Column("pinned", Boolean, nullable=False),
    Index("ix_versions_document_id", "document_id", "seq"),
    sqlite_autoincrement=True,
)

version_states = Table(
    "version_states",
    metadata,
    # What pinned versions hold; the columns are those of a snapshot.
    Column("version_id", BigInteger, nullable=False),
    Column("document_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("state_vector", LargeBinary, nullable=False),
    Column("index_data", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("checksum", BigInteger, nullable=True),
    PrimaryKeyConstraint("version_id"),
    Index("ix_version_states_document_id", "document_id"),
)

timeline = Table(
    "timeline",
    metadata,
    # What happened to a document, in entries of many rows (``collab.storage.timeline``). They follow on each other
    # without a gap, so the last one says how far a document is summarised. ``data`` is JSON: the authors, the marks.
    Column("document_id", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double, nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("document_id", "first_seq"),
)

attributions = Table(
    "attributions",
    metadata,
    # Who wrote what in a document after row ``seq`` (``collab.history.attribution``); it outlives the rows.
    Column("document_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("document_id"),
)

guests = Table(
    "guests",
    metadata,
    # What guests were called when they first edited a document; the first name of one stays.
    Column("document_id", BigInteger, nullable=False),
    Column("author", LargeBinary, nullable=False),
    Column("name", LargeBinary, nullable=False),
    # The user who has made the link, whose own name is in the guest's. NULL: not known.
    Column("invited_by", LargeBinary, nullable=True),
    # The row that has brought it; the newest one where it came without.
    Column("seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("document_id", "author"),
)

tenants = Table(
    "tenants",
    metadata,
    # One row for each tenant (``collab.storage.tenants``). ``quota`` is a JSON object; NULL: none of its own.
    Column("tenant", LargeBinary, nullable=False),
    Column("quota", LargeBinary, nullable=True),
    # What its documents took when they were counted last. NULL: they never were.
    Column("documents", BigInteger, nullable=True),
    Column("nbytes", BigInteger, nullable=True),
    Column("measured_at", Double, nullable=True),
    PrimaryKeyConstraint("tenant"),
)

tenant_usage = Table(
    "tenant_usage",
    metadata,
    # What a tenant has used in a month of UTC, by its number: 12 times the year, and the month from 0 to 11.
    Column("tenant", LargeBinary, nullable=False),
    Column("month", BigInteger, nullable=False),
    Column("edits", BigInteger, nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("connection_ms", BigInteger, nullable=False),
    Column("peak", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "month"),
)

tenant_connections = Table(
    "tenant_connections",
    metadata,
    # How many connections a tenant had on a node, and when the node said so. No row: none.
    Column("tenant", LargeBinary, nullable=False),
    Column("node", String(64), nullable=False),
    Column("connections", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("tenant", "node"),
)

tenant_batches = Table(
    "tenant_batches",
    metadata,
    # The number of the last counts that a node has added, so that none are added twice.
    Column("node", String(64), nullable=False),
    Column("batch", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("node"),
)

tenant_documents = Table(
    "tenant_documents",
    metadata,
    # Whose a document is, where a claim says so and not its name; the first tenant stays.
    Column("document_id", BigInteger, nullable=False),
    Column("tenant", LargeBinary, nullable=False),
    PrimaryKeyConstraint("document_id"),
    Index("ix_tenant_documents_tenant", "tenant", "document_id"),
)

OF_DOCUMENT: tuple[Table, ...] = (
    pending,
    damage,
    producers,
    webhook_cursors,
    webhook_marks,
    versions,
    version_states,
    timeline,
    attributions,
    guests,
    tenant_documents,
)
"""Tables beside the log and the snapshots whose rows belong to one document, by their column ``document_id``. They go
with the content of a document that was deleted: a new table with something of it must be added here. Owners of client
IDs do so, too, in portions, since there may be very many (``collab.storage.pruning``)."""
answers = Table(
    "instruction_answers",
    metadata,
    # What servers say where an instruction asks for something.
    Column("instruction_id", BigInteger, nullable=False),
    Column("node", String(64), nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("instruction_id", "node"),
)
