"""One transaction on a database, however long it takes: for commands that read or write all of it.

Strategy: stores bound the time of each call, because a server waits for it. Here a person does, with a progress bar.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from collab.errors import CollabError
from collab.storage import postgresql, sqlite
from collab.storage.connecting import DRIVER_ERRORS, secrets_of
from collab.storage.urls import DatabaseUrl

_Result = TypeVar("_Result")


def run_once(url: DatabaseUrl, work: Callable[[Connection], _Result], *, write: bool) -> _Result:
    """Run ``work`` in one transaction on a connection of its own; one that reads sees one instant throughout.

    Blocks, and must not be called on a running event loop. Errors of :mod:`collab.errors` pass, after a rollback; those
    of the database come as ``StoreError``.
    """
    if url.backend == "sqlite":
        return _transact_on_sqlite(url, work, write=write)
    return asyncio.run(_transact_on_postgresql(url, work, write=write))


def _transact_on_sqlite(url: DatabaseUrl, work: Callable[[Connection], _Result], *, write: bool) -> _Result:
    assert url.path is not None
    engine = sqlite.make_engine(partial(sqlite.connect, url.path))
    try:
        with engine.connect().execution_options(write=write) as connection, connection.begin():
            return work(connection)
    except CollabError:
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise sqlite.translate(error) from error
    finally:
        engine.dispose()


async def _transact_on_postgresql(url: DatabaseUrl, work: Callable[[Connection], _Result], *, write: bool) -> _Result:
    engine = postgresql.make_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            level = "READ COMMITTED" if write else "REPEATABLE READ"
            await connection.execution_options(isolation_level=level)
            async with connection.begin():
                await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                return await connection.run_sync(work)
    except CollabError:
        raise
    except (SQLAlchemyError, *DRIVER_ERRORS) as error:
        raise postgresql.translate(error, secrets_of(url)) from error
    finally:
        await engine.dispose()
