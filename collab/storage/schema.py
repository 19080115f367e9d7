"""The tables, for SQLite and PostgreSQL alike.

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
)

SCHEMA_REVISION = "0002"
"""The Alembic revision that this release works on; a test compares it with the newest migration."""

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
    PrimaryKeyConstraint("document_id", "seq"),
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
    PrimaryKeyConstraint("document_id", "seq"),
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
