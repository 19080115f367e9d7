"""Jobs that fill a new column for rows of older releases: in portions, and resumable.

Strategy: a job has a name and a position, a number that only grows (the id of a document, say). Each portion is written
in one transaction with the position behind it, so a job that was interrupted at any moment goes on where it was, and
two processes that run the same job do no harm: a portion says what it writes for rows that are still empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from collab.storage.backend import Backend
from collab.storage.schema import backfills


class Backfill:
    """One job on one database.

    Args:
        backend: the database.
        name: of the job, at most 64 characters; the same name is the same job.
    """

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name

    async def position(self) -> int:
        """Give the position behind which work is left; 0 at the beginning, and again when the job was finished."""

        def read(connection: Connection) -> int:
            query = select(backfills.c.position).where(backfills.c.name == self._name, backfills.c.done_at.is_(None))
            return connection.execute(query).scalar() or 0

        return await self._backend.run(read, "read")

    async def portion(self, position: int, write: Callable[[Connection], None]) -> None:
        """Write one portion, and note in the same transaction that the job has come to ``position``."""

        def both(connection: Connection) -> None:
            write(connection)
            self._note(connection, position, None)

        await self._backend.run(both, "write")

    async def finish(self) -> None:
        """Note that the job is done: the next one begins at 0."""
        await self._backend.run(lambda connection: self._note(connection, 0, time.time()), "write")

    def _note(self, connection: Connection, position: int, done_at: float | None) -> None:
        values = {"position": position, "at": time.time(), "done_at": done_at}
        mine = update(backfills).where(backfills.c.name == self._name).values(values)
        if connection.execute(mine).rowcount == 0:
            connection.execute(insert(backfills).values(name=self._name, **values))
