"""Backups of a database and into one: all rows of all tables as of one instant, in one transaction.

Strategy: what is saved are the tables as they are, so nothing is lost on the way: history, authors, versions, what
waits for receivers. Rows are read as of one instant while servers write (WAL on SQLite, REPEATABLE READ on PostgreSQL),
and restored in one transaction, which ends after the file was found to be whole: a restore that breaks off has changed
nothing. A table that a later migration adds is saved as soon as it stands in the schema; ``LEFT_OUT`` has those that
say how servers live, and nothing of documents.

A backup of an older schema goes into the tables of this release: migrations only add what may be empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, insert, literal_column, select, text, update
from sqlalchemy.exc import DBAPIError

from collab.backups.format import BackupError, BackupReader, BackupWriter, Header, new_salt
from collab.backups.moment import Moment, go_back
from collab.errors import StoreRefused
from collab.storage.migrate import check_schema, upgrade
from collab.storage.schema import (
    SCHEMA,
    answers,
    compatibility,
    documents,
    instructions,
    metadata,
    nodes,
    reports,
    tenant_batches,
    tenant_connections,
    webhook_lease,
)
from collab.storage.transaction import run_once
from collab.storage.urls import DatabaseUrl
from collab.telemetry.release import release

LEFT_OUT: Final = frozenset({nodes, compatibility, instructions, reports, answers, tenant_batches, tenant_connections})
"""Tables that a backup has nothing of: servers that live, orders to them, and what the migrations have noted."""

SAVED: Final = tuple(table for table in metadata.sorted_tables if table not in LEFT_OUT)

_PAGE_ROWS: Final = 64
"""Rows that are read at once. One may be as large as a document."""

_BATCH_ROWS: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024
"""What is inserted at once."""

# How often a restore may meet servers that wait for it as it waits for them, and the seconds before it tries again. The
# database finds out after a second.
_DEADLOCKS: Final = 30
_DEADLOCK_PAUSE: Final = 0.2

_Step = Callable[[int], object]


@dataclass(slots=True)
class Restored:
    """What was restored.

    Attributes:
        rows: how many rows of each table the backup had.
        moment: what came of going back to an earlier time, None if that was not wanted.
    """

    rows: dict[str, int] = field(default_factory=dict)
    moment: Moment | None = None


def save(
    url: DatabaseUrl, write: Callable[[bytes], object], key: bytes | None = None, step: _Step = lambda nbytes: None
) -> dict[str, int]:
    """Write a backup of the database; servers may be running on it. Blocks, and must not be called on a running loop.

    Args:
        url: the database.
        write: takes the bytes of the file.
        key: the bytes of a key file, if the backup is to be sealed.
        step: is told of the bytes of each row.

    Returns:
        How many rows of each table were saved.

    Raises:
        SchemaError: this release may not use the database, or it has to be migrated.
        StoreUnavailable: it does not answer.
    """

    def work(connection: Connection) -> dict[str, int]:
        check_schema(connection, url)
        at = connection.execute(select(_now(connection))).scalar_one()
        header = Header(
            release=release(),
            schema=SCHEMA,
            database=url.backend,
            at=float(at),
            tables={table.name: [column.name for column in table.columns] for table in SAVED},
            last_ids={table.name: _last_id(connection, table) for table in SAVED if _numbers_itself(table)},
            salt=None if key is None else new_salt(),
        )
        writer = BackupWriter(header, write, key)
        for table in SAVED:
            rows = select(table).order_by(*table.primary_key.columns)
            for row in connection.execution_options(stream_results=True, yield_per=_PAGE_ROWS).execute(rows):
                step(writer.add(table.name, [bytes(value) if _is_view(value) else value for value in row]))
        writer.close()
        return writer.rows

    return run_once(url, work, write=False)


def check(reader: BackupReader, step: _Step = lambda nbytes: None) -> dict[str, int]:
    """Read a backup to its end; return how many rows of each table it has. Raises ``BackupError``."""
    for _ in reader.records():
        step(reader.nbytes)
    return reader.rows


def restore(
    url: DatabaseUrl,
    reader: BackupReader,
    *,
    at: float | None = None,
    replace: bool = False,
    step: _Step = lambda nbytes: None,
) -> Restored:
    """Fill a database from a backup. Blocks, and must not be called on a running loop.

    Args:
        url: the database; its tables are made or migrated first.
        reader: the backup.
        at: a time in Unix seconds: everything that came later is left out (:mod:`collab.backups.moment`).
        replace: whether to put it in the place of what is there. Servers that run on the database notice that it went
            back, and write again what their open documents hold and it lacks.
        step: is told how many bytes of the file were read.

    Raises:
        BackupError: the file is damaged, not whole, sealed by another key, or made by a newer release.
        StoreRefused: there are documents in the database, and ``replace`` is False.
        StoreUnavailable: it does not answer. Nothing was changed in any of these cases.
    """
    if reader.header.schema > SCHEMA:
        raise BackupError(
            f"the backup is of schema {reader.header.schema}, made by release {reader.header.release}; this release "
            f"knows schema {SCHEMA}: restore it with that release or a newer one"
        )
    if at is not None and at > reader.header.at:
        raise BackupError("the backup was made before the time that --at names")
    upgrade(url)

    def work(connection: Connection) -> Restored:
        if replace:
            _clear(connection)
        elif connection.execute(select(documents.c.id).limit(1)).first() is not None:
            raise StoreRefused("there are documents in the database already: name an empty one, or say --replace")
        else:
            # What servers have noted before the first document.
            _clear(connection)
        _fill(connection, reader, step)
        for table in SAVED:
            if _numbers_itself(table):
                _number_on(connection, table, reader.header.last_ids.get(table.name, 0))
        # Whoever delivers next takes it at once.
        connection.execute(update(webhook_lease).values(until=0.0))
        return Restored(dict(reader.rows), None if at is None else go_back(connection, at))

    return run_once(url, work, write=True)


def _fill(connection: Connection, reader: BackupReader, step: _Step) -> None:
    known = {table.name: table for table in SAVED}
    for name, columns in reader.header.tables.items():
        if name not in known or not set(columns) <= set(known[name].columns.keys()):
            raise BackupError(f"the backup has a table {name} that this release does not know")
    for name, rows in _batches(reader, step):
        columns = reader.header.tables[name]
        connection.execute(insert(known[name]), [dict(zip(columns, row, strict=True)) for row in rows])


def _batches(reader: BackupReader, step: _Step) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """Give rows of one table, not too many at once."""
    current, rows, nbytes = "", list[Sequence[Any]](), 0
    for name, values in reader.records():
        if rows and (name != current or len(rows) >= _BATCH_ROWS or nbytes >= _BATCH_BYTES):
            yield current, rows
            step(reader.nbytes)
            rows, nbytes = [], 0
        current = name
        rows.append(values)
        nbytes += sum(len(value) for value in values if isinstance(value, bytes))
    if rows:
        yield current, rows


def _clear(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        _truncate(connection)
        return
    for table in SAVED:
        connection.execute(delete(table))


def _truncate(connection: Connection) -> None:
    # Instead of a row each. Who reads waits, and then finds the older state.
    truncate = text(f"TRUNCATE {', '.join(table.name for table in SAVED)}")
    # Written in the end: whoever holds it then, and waits for one of the others, would undo all that was filled in.
    lock = text(f"LOCK TABLE {webhook_lease.name} IN EXCLUSIVE MODE")
    for left in range(_DEADLOCKS, -1, -1):
        try:
            with connection.begin_nested():
                connection.execute(truncate)
                connection.execute(lock)
            return
        except DBAPIError as error:
            # Servers lock the tables in other orders. They go on when this lets go of those that it has.
            if getattr(error.orig, "sqlstate", None) != "40P01" or not left:  # deadlock_detected
                raise
            time.sleep(_DEADLOCK_PAUSE)


def _numbers_itself(table: Table) -> bool:
    return table.autoincrement_column is not None and table.autoincrement_column.autoincrement is True


def _last_id(connection: Connection, table: Table) -> int:
    """Give the last number that the table gave to a row; the row may be gone."""
    if connection.dialect.name == "sqlite":
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return connection.execute(query, {"name": table.name}).scalar() or 0
    sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, "id"))).scalar_one()
    query = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")
    return int(connection.execute(query).scalar_one())


def _number_on(connection: Connection, table: Table, last: int) -> None:
    """Let the table give larger numbers than ``last``, than it has, and than it ever gave."""
    newest = connection.execute(select(func.max(table.c.id))).scalar() or 0
    last = max(last, newest, _last_id(connection, table))
    if not last:
        return
    if connection.dialect.name == "sqlite":
        values = {"name": table.name, "last": last}
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"), values)
        return
    connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))


def _now(connection: Connection) -> Any:
    if connection.dialect.name == "sqlite":
        return literal_column("(julianday('now') - 2440587.5) * 86400.0")
    return literal_column("extract(epoch FROM now())::float8")


def _is_view(value: object) -> bool:
    return isinstance(value, memoryview | bytearray)
