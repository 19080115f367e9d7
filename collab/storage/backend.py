"""What the one SQL store needs of a database, and no more.

Strategy: everything but the append is written once, as plain functions on a synchronous SQLAlchemy
connection (:mod:`collab.storage.sql`); a backend runs such a function off the loop (SQLite, in a thread) or
on it (PostgreSQL, in a greenlet whose queries suspend). The append is each backend's own, because it is the
hot path and the two databases are fast in different ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, TextClause

from collab.storage.records import Append, AppendOutcome
from collab.storage.urls import DatabaseUrl

Result = TypeVar("Result")
Mode = Literal["read", "write"]


WENT_BACK = "an older state of the database is there: it lacks what this server has committed"


@dataclass(slots=True)
class Writer:
    """What a store knows of its own row in the table of writers.

    Attributes:
        id: the row's; another one after the database went back, so that no old attempt can write under it.
        batch: the number of the last batch that was answered; the row has at least this.
        attends: whether the row is known to be there, because a server has asked for it. A row that is missing or
            has a lower number then says that an older state of the database is there.
    """

    id: str = field(default_factory=lambda: uuid4().hex)
    batch: int = 0
    attends: bool = False

    @property
    def least(self) -> int:
        """The number below which the row cannot be."""
        return self.batch if self.attends else 0

    def went_back(self, found: int | None) -> bool:
        """Tell whether the number ``found`` in the row (None: no row) says that the database went back."""
        return self.attends and (found is None or found < self.batch)


class Backend(Protocol):
    """Run functions in transactions, and append. All failures come as ``StoreUnavailable`` or ``StoreRefused``."""

    url: DatabaseUrl
    """The database, for what is said about its schema."""
    writer: Writer
    """This store's row; the backend compares it in each append, and changes nothing of it."""
    packed: TextClause
    """Gives rows in one text, as ``collab.history.packed`` has them: of ``document``, above ``after`` to ``until``."""
    shared: bool
    """Whether several servers may write to the database."""

    def now(self) -> ColumnElement[float]:
        """Give the expression for the time in Unix seconds, by the clock of the database."""

    def check_whole(self, connection: Connection) -> None:
        """Raise ``StoreUnavailable`` if the tables are not all there yet, as in the middle of a restore."""

    def lock(self, connection: Connection, what: str, *, wait: bool = True) -> bool:
        """Lock ``what`` against other transactions that lock the same, until this one ends; ``wait`` for them.

        For transactions that write; returns False if it is locked and ``wait`` is False. It hinders nothing else.
        """

    async def run(self, function: Callable[[Connection], Result], mode: Mode) -> Result:
        """Run ``function`` in one transaction: ``read`` sees one instant throughout, ``write`` commits at the end.

        Errors of :mod:`collab.errors` that ``function`` raises pass, after a rollback.
        """

    def pauses(self) -> Callable[[], None]:
        """Give what a function calls between two slices of its own work, so that the loop can go on in between."""

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """Write a batch as :meth:`collab.storage.log.Log.append` says.

        ``number`` grows with every batch of this backend. ``repeat`` says that an earlier attempt with this number
        may have committed. Raises ``StoreWentBack``, and writes nothing, if ``writer`` says so.
        """

    def claim(self, document_id: int) -> AbstractAsyncContextManager[bool]:
        """Claim a document as :meth:`collab.storage.log.Log.claim_snapshot` says."""

    async def scrub(self) -> None:
        """Overwrite what was deleted where it may still lie beside the tables, as far as the database can do that.

        Raises ``StoreUnavailable`` if somebody reads an older state for so long that it cannot be done now.
        """

    async def changed(self) -> bool:
        """Tell whether another connection may have written since the last call; True if that is not known."""

    async def close(self) -> None:
        """Release everything; may be called twice."""
