"""Alembic's entry: run the migrations on the connection that collab.storage.migrate has opened.

In a checkout, ``alembic revision --autogenerate -m "..."`` works too; it reads ``COLLAB_DATABASE_URL``.
"""

from __future__ import annotations

import os
from typing import Any

from alembic import context
from sqlalchemy import Connection

from collab.storage.schema import REVISION_TABLE, VERSION_TABLES, metadata


def ours(thing: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
    """Leave the tables out in which revisions are noted: they are no part of the models."""
    return not (kind == "table" and name in VERSION_TABLES)


def run(connection: Connection) -> None:
    """Run on an open connection, inside the transaction of whoever has opened it."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=context.config.attributes.get("version_table", REVISION_TABLE),
        include_object=ours,
        # SQLite cannot alter a column: Alembic copies the table instead.
        render_as_batch=connection.dialect.name == "sqlite",
        # Alembic assumes that SQLite's DDL commits by itself; with our explicit BEGIN it does not.
        transactional_ddl=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    from collab.storage.migrate import run_exclusively
    from collab.storage.urls import parse_database_url

    run_exclusively(parse_database_url(os.environ.get("COLLAB_DATABASE_URL")), run)
