"""Bring a database to the schema of this release, and see whether this release may use it.

Strategy: migrations travel in the wheel and only add tables and nullable columns, so servers of the release before go
on beside them (docs/decisions/0013). Each runs in a transaction of its own that first takes a lock, so that several
nodes may start upgrading at once: one does it, the others find it done. The same transaction notes the number of the
schema, and the oldest one whose releases may use the database; a server compares these with its own number. That is
one query, so a serving process never imports Alembic.

An index on a table with many rows is declared, not created, by its migration (``concurrent_indexes``): PostgreSQL
builds it outside of a transaction while servers write, and the migration counts as done when all its indexes are whole.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from collab.errors import CollabError, SchemaError, StoreUnavailable
from collab.storage import postgresql, sqlite
from collab.storage.connecting import DRIVER_ERRORS, secrets_of
from collab.storage.schema import BASE_REVISION, BASE_TABLE, REVISION_TABLE, SCHEMA, compatibility
from collab.storage.urls import DatabaseUrl
from collab.telemetry import get_logger

ADVISORY_LOCK = 0x636F6C6C6162
"""The key of the PostgreSQL lock that a migration's transaction holds: "collab" in ASCII."""

BUILD_LOCK = ADVISORY_LOCK + 1
"""The key of the lock that is held while indexes are built. Another one, because a process that waits for the first one
in a query (release 0.1.0 does) would be waited for by the build."""

_BUILD_PAUSE = 0.2
"""Seconds between two looks whether somebody else has ended building."""

LOCK_SECONDS = 2.0
"""How long a migration waits for the lock of a table. Whoever reads or writes the table queues behind it, so a long
backup (pg_dump holds its locks to its end) must not stop the servers: they go on in the pauses in between."""

LOCK_PAUSE = 2.0
LOCK_TRIES = 150
"""Seconds between two tries, and how many there are: about ten minutes."""

BUSY_TRIES = 6
"""How often a SQLite file is waited for, each time for its own time-out of 5 s. Several processes that migrate one file
take turns, and SQLite gives no turn to who has waited longest."""

_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass{}"
"""No row: there is no such index. False: it is being built, or was left behind by a build that was interrupted."""

_LOG = get_logger("store")

_Result = TypeVar("_Result")


class Index(NamedTuple):
    """An index that is built while servers write; all names are plain identifiers."""

    name: str
    table: str
    columns: tuple[str, ...]


class Schema(NamedTuple):
    """How a database stands.

    ``number`` is the newest migration that was done. Releases whose own number is below ``oldest`` must not use it;
    ``release`` is the first that may.
    """

    number: int
    oldest: int
    release: str


_BASE = Schema(int(BASE_REVISION), int(BASE_REVISION), "0.1.0")

_Step = Callable[[Connection], Any] | Sequence[Index]
"""What has to be done next: a function in an exclusive transaction, or indexes to be built outside of one."""


def upgrade(url: DatabaseUrl, directory: Path | None = None) -> bool:
    """Bring the database to the newest schema; return whether anything had to be done.

    Blocks, and must not be called on a running event loop: use ``asyncio.to_thread``. Creates the SQLite file and its
    directory, never a PostgreSQL database. Safe beside other processes that do the same, and beside running servers;
    when it was interrupted, it goes on where it was. ``directory`` is where the migrations are. Raises ``SchemaError``
    when this release may not use the database, ``StoreUnavailable`` when it does not answer.
    """
    if url.path is not None:
        url.path.parent.mkdir(parents=True, exist_ok=True)
    return _perform(url, _upgrading(directory))


def run_exclusively(url: DatabaseUrl, function: Callable[[Connection], _Result]) -> _Result:
    """Run ``function`` in one transaction that no migration can overlap."""

    def steps() -> Generator[_Step, Any, _Result]:
        result: _Result = yield function
        return result

    return _perform(url, steps())


def find_schema(connection: Connection) -> Schema | None:
    """Find how the database stands; None when it has no tables of ours.

    Raises ``SchemaError`` when it is on a revision that no release of ours has left behind.
    """
    tables = inspect(connection)
    if not tables.has_table(BASE_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {BASE_TABLE}")).scalar()
    if tables.has_table(compatibility.name):
        query = select(compatibility.c.schema, compatibility.c.oldest_schema, compatibility.c.oldest_release)
        row = connection.execute(query.order_by(compatibility.c.schema.desc()).limit(1)).first()
        if row is not None:
            return Schema(*row)
    if revision is None:
        return None
    if not str(revision).isdecimal() or not 0 < int(revision) <= _BASE.number:
        raise SchemaError(f"the database is on schema {revision}, which no release of collab has")
    return _BASE._replace(number=int(revision))


def check_schema(connection: Connection, url: DatabaseUrl) -> None:
    """Raise ``SchemaError``, with what is to be done, unless this release may use the database."""
    found = find_schema(connection)
    if found is None or found.number < SCHEMA:
        raise missing_schema(found, url)
    require_usable(found)


def missing_schema(found: Schema | None, url: DatabaseUrl) -> SchemaError:
    """Make the error for a database that has to be migrated."""
    state = "has no tables of collab yet" if found is None else f"is on schema {found.number}"
    return SchemaError(
        f"the database {state}, this release needs schema {SCHEMA}; run: collab migrate --database-url '{url}'"
    )


def require_usable(found: Schema) -> None:
    """Raise ``SchemaError`` if the database is for newer releases only."""
    if found.oldest > SCHEMA:
        raise SchemaError(
            f"the database is on schema {found.number}, which only releases from {found.release} on can use; this "
            f"release knows schema {SCHEMA}: start {found.release} or a newer release"
        )


def _upgrading(directory: Path | None) -> Generator[_Step, Any, bool]:
    """Say step by step what has to be done, and hear what came of it."""
    if directory is None:
        # Most starts end here. Alembic's imports are a quarter of what a start costs.
        if (yield _is_on_the_newest):
            return False
        directory = scripts()
    from alembic import command  # noqa: F401  (not to be spent under the lock)

    changed = False
    while True:
        step = yield lambda connection: _next_migration(connection, directory)
        if isinstance(step, bool):
            if not step:
                return changed
        else:
            yield step
        changed = True


def _is_on_the_newest(connection: Connection) -> bool:
    """Tell whether there is nothing to do for this release; ``SchemaError`` when it may not use the database."""
    found = find_schema(connection)
    if found is None or found.number < SCHEMA:
        return False
    require_usable(found)
    _note_newer(found, SCHEMA)
    return True


def _note_newer(found: Schema, newest: int) -> None:
    if found.number > newest:
        line = "the database is on schema %d, newer than this release's (%d), which may use it"
        _LOG.info(line, found.number, newest)


def _next_migration(connection: Connection, directory: Path) -> bool | list[Index]:
    """Do the next migration, or say which indexes have to be built before; False when there is none left."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # Alembic reads option values with %-interpolation.
    config.set_main_option("script_location", str(directory).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    found = find_schema(connection)
    if found is None or found.number < _BASE.number:
        config.attributes["version_table"] = BASE_TABLE
        command.upgrade(config, BASE_REVISION)
        _LOG.info("migrated the database from schema %s to %d", found.number if found else "nothing", _BASE.number)
        return True
    require_usable(found)
    config.attributes["version_table"] = REVISION_TABLE
    if not inspect(connection).has_table(REVISION_TABLE):
        command.stamp(config, BASE_REVISION)
    known = list(ScriptDirectory.from_config(config).walk_revisions())
    later = [script for script in known if int(script.revision) > found.number]
    if not later:
        _note_newer(found, max(int(script.revision) for script in known))
        return False
    script = min(later, key=lambda script: int(script.revision))
    indexes: list[Index] = [Index(*index) for index in getattr(script.module, "concurrent_indexes", ())]
    if connection.dialect.name == "sqlite":
        # Its one writer waits for the build in any case.
        for index in indexes:
            connection.exec_driver_sql(_create(index))
    elif waiting := [index for index in indexes if not _is_whole(connection, index)]:
        return waiting
    command.upgrade(config, script.revision)
    values = {
        "schema": int(script.revision),
        "oldest_schema": script.module.oldest_schema,
        "oldest_release": script.module.oldest_release,
        "at": time.time(),
    }
    connection.execute(compatibility.insert().values(values))
    _LOG.info("migrated the database from schema %d to %s", found.number, int(script.revision))
    return True


def _create(index: Index, how: str = "") -> str:
    return f"CREATE INDEX {how}{index.name} ON {index.table} ({', '.join(index.columns)})"


def _is_whole(connection: Connection, index: Index) -> bool:
    """Tell whether an index of PostgreSQL was built to its end."""
    return connection.execute(text(_VALID.format("(:name)")), {"name": index.name}).scalar() is True


def scripts() -> Path:
    """Give the directory of the migrations: inside the installed package, or beside it in a checkout."""
    installed = Path(str(files("collab") / "_migrations"))
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "migrations"


# Performing the steps on each database.


def _perform(url: DatabaseUrl, steps: Generator[_Step, Any, _Result]) -> _Result:
    if url.backend == "sqlite":
        return _perform_on_sqlite(url, steps)
    return asyncio.run(_perform_on_postgresql(url, steps))


def _perform_on_sqlite(url: DatabaseUrl, steps: Generator[_Step, Any, _Result]) -> _Result:
    assert url.path is not None
    engine = sqlite.make_engine(partial(sqlite.connect, url.path, create=True))
    try:
        result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                done: _Result = end.value
                return done
            assert callable(step)
            result = _take_turns(engine, step)
    except CollabError:
        raise
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise sqlite.translate(error) from error
    finally:
        engine.dispose()


def _take_turns(engine: Engine, step: Callable[[Connection], Any]) -> Any:
    """Run a step in a transaction of its own; again while others have the file for longer than its time-out."""
    for left in range(BUSY_TRIES - 1, -1, -1):
        try:
            # BEGIN IMMEDIATE: the file's own lock keeps a second process out.
            with engine.connect().execution_options(write=True) as connection, connection.begin():
                return step(connection)
        except DBAPIError as error:
            if not left or getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
    raise AssertionError("unreachable")


async def _perform_on_postgresql(url: DatabaseUrl, steps: Generator[_Step, Any, _Result]) -> _Result:
    engine = postgresql.make_engine(url, poolclass=NullPool)
    try:
        result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                done: _Result = end.value
                return done
            if callable(step):
                result = await _patiently(engine, step)
            else:
                await _build(url, step)
                result = None
    except CollabError:
        raise
    except (SQLAlchemyError, *DRIVER_ERRORS) as error:
        raise postgresql.translate(error, secrets_of(url)) from error
    finally:
        await engine.dispose()


async def _patiently(engine: AsyncEngine, step: Callable[[Connection], Any]) -> Any:
    """Run a step in a transaction of its own; again and again while somebody holds what it needs."""
    for left in range(LOCK_TRIES - 1, -1, -1):
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{int(LOCK_SECONDS * 1000)}ms'"))
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                return await connection.run_sync(step)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            if not left:
                raise StoreUnavailable(
                    "PostgreSQL: a table has been locked for long, by a backup or another migration; nothing has "
                    "changed since the last line above: run it again later"
                ) from error
            _LOG.info("somebody holds a lock that the migration needs, a backup maybe: trying again")
            await asyncio.sleep(LOCK_PAUSE)
    raise AssertionError("unreachable")


async def _build(url: DatabaseUrl, indexes: Sequence[Index]) -> None:
    """Build indexes while servers write. What an interrupted build has left behind is removed first.

    One connection holds the lock, in a transaction that sees nothing, so that the build need not wait for it; the
    other one builds, outside of a transaction. Who waits for the lock looks now and then: a query that waits would be
    waited for by the build.
    """
    lock, raw = await postgresql.connect(url), None
    try:
        while True:
            transaction = lock.transaction()
            await transaction.start()
            # For as long as the build takes nothing comes on this connection.
            await lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            if await lock.fetchval(f"SELECT pg_try_advisory_xact_lock({BUILD_LOCK})"):
                # Closes the portal of the query before, whose snapshot the build would wait for.
                await lock.execute("SELECT 1")
                break
            await transaction.rollback()
            await asyncio.sleep(_BUILD_PAUSE)
        raw = await postgresql.connect(url)
        for index in indexes:
            valid = await raw.fetchval(_VALID.format("($1)"), index.name)
            if valid:
                continue  # somebody else's build has ended meanwhile
            if valid is False:
                _LOG.info("removing what is left of an interrupted build of the index %s", index.name)
                await raw.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
            _LOG.info("building the index %s while servers go on", index.name)
            await raw.execute(_create(index, "CONCURRENTLY "))
    finally:
        lock.terminate()
        if raw is not None:
            raw.terminate()
