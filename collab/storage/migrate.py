"""Bring a database to the schema of this release, and see whether it is there.

Strategy: Alembic's migrations travel in the wheel. They run in one transaction that first takes a lock, so
that several nodes may start upgrading at once: the first does the work, the others find it done. Whether the
schema is current is asked with one query and a constant, so a serving process never imports Alembic.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from collab.errors import CollabError, SchemaError
from collab.storage import postgresql, sqlite
from collab.storage.schema import SCHEMA_REVISION
from collab.storage.urls import DatabaseUrl
from collab.telemetry import get_logger

ADVISORY_LOCK = 0x636F6C6C6162
"""The key of the PostgreSQL lock that an upgrade holds: "collab" in ASCII."""

_LOG = get_logger("store")


def upgrade(url: DatabaseUrl) -> bool:
    """Bring the database to the newest schema; return whether anything had to be done.

    Blocks, and must not be called on a running event loop: use ``asyncio.to_thread``. Creates the SQLite file and its
    directory, never a PostgreSQL database. Safe beside other processes that do the same. Raises ``SchemaError``
    when the database is on a schema that this release does not know, ``StoreUnavailable`` when it does not answer.
    """
    if url.path is not None:
        url.path.parent.mkdir(parents=True, exist_ok=True)
    return run_exclusively(url, _upgrade)


def run_exclusively(url: DatabaseUrl, function: Callable[[Connection], bool | None]) -> bool:
    """Run ``function`` in one transaction that no other migration can overlap."""
    if url.backend == "sqlite":
        return _run_on_sqlite(url, function)
    return asyncio.run(_run_on_postgresql(url, function))


def current_revision(connection: Connection) -> str | None:
    """Give the revision that the database is on; None when no migration has ever run."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def check_schema(connection: Connection, url: DatabaseUrl) -> None:
    """Raise ``SchemaError`` with the line to run unless the database is on the schema of this release."""
    found = current_revision(connection)
    if found == SCHEMA_REVISION:
        return
    raise missing_schema(found, url)


def missing_schema(found: str | None, url: DatabaseUrl) -> SchemaError:
    """Make the error for a database that is on the revision ``found``."""
    state = "has no tables of collab yet" if found is None else f"is on schema {found}"
    return SchemaError(
        f"the database {state}, this release needs schema {SCHEMA_REVISION}; run: collab migrate --database-url '{url}'"
    )


def _upgrade(connection: Connection) -> bool:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # Alembic reads option values with %-interpolation.
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    found = current_revision(connection)
    if found == SCHEMA_REVISION:
        return False
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(
            f"the database is on schema {found}, which this release ({SCHEMA_REVISION}) does not know: "
            "a newer release has migrated it"
        )
    command.upgrade(config, "head")
    _LOG.info("migrated the database from schema %s to %s", found or "nothing", SCHEMA_REVISION)
    return True


def scripts() -> Path:
    """Give the directory of the migrations: inside the installed package, or beside it in a checkout."""
    installed = Path(str(files("collab") / "_migrations"))
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "migrations"


def _run_on_sqlite(url: DatabaseUrl, function: Callable[[Connection], bool | None]) -> bool:
    engine = sqlite.make_engine(url)
    try:
        # BEGIN IMMEDIATE: the file's own lock keeps a second process out.
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            return bool(function(connection))
    except CollabError:
        raise
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise sqlite.translate(error) from error
    finally:
        engine.dispose()


async def _run_on_postgresql(url: DatabaseUrl, function: Callable[[Connection], bool | None]) -> bool:
    engine = postgresql.make_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            return bool(await connection.run_sync(function))
    except CollabError:
        raise
    except (SQLAlchemyError, *postgresql.DRIVER_ERRORS) as error:
        raise postgresql.translate(error, postgresql.secrets_of(url)) from error
    finally:
        await engine.dispose()
