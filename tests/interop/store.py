"""A store that takes nothing for a while, under a server that runs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from tests.support.server import ServerProcess


@contextlib.contextmanager
def store_away(server: ServerProcess) -> Iterator[None]:
    """Hold the lock of the database, so that the server can commit nothing."""
    with contextlib.closing(sqlite3.connect(server.data_dir / "collab.db", isolation_level=None)) as held:
        held.execute("PRAGMA busy_timeout = 20000")
        held.execute("BEGIN IMMEDIATE")
        yield
        held.execute("ROLLBACK")
