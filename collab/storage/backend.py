"""What the one SQL store needs of a database, and no more.

Strategy: everything but the append is written once, as plain functions on a synchronous SQLAlchemy
connection (:mod:`collab.storage.sql`); a backend runs such a function off the loop (SQLite, in a thread) or
on it (PostgreSQL, in a greenlet whose queries suspend). The append is each backend's own, because it is the
hot path and the two databases are fast in different ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

from sqlalchemy import Connection

from collab.storage.store import Append, AppendOutcome

Result = TypeVar("Result")
Mode = Literal["read", "write"]


class Backend(Protocol):
    """Run functions in transactions, and append. All failures come as ``StoreUnavailable`` or ``StoreRefused``."""

    async def run(self, function: Callable[[Connection], Result], mode: Mode) -> Result:
        """Run ``function`` in one transaction: ``read`` sees one instant throughout, ``write`` commits at the end.

        Errors of :mod:`collab.errors` that ``function`` raises pass, after a rollback.
        """

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """Write a batch as :meth:`collab.storage.store.Store.append` says.

        ``number`` grows with every batch of this backend. ``repeat`` says that an earlier attempt with this number
        may have committed.
        """

    async def close(self) -> None:
        """Release everything; may be called twice."""
