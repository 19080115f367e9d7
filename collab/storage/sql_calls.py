"""Calls that are done once, in SQL: functions for one connection each; see :mod:`collab.storage.calls`.

Strategy: as in :mod:`collab.storage.sql`, which runs them. Times are the database's own.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from collab.errors import KeyBusy, KeyReused
from collab.storage.calls import ERASED, KEPT_SECONDS, MAX_CALLS, RUNNING_SECONDS
from collab.storage.records import CallKey, CallState
from collab.storage.schema import calls


def begin(connection: Connection, call: CallKey, request: bytes, now: ColumnElement[float]) -> CallState:
    """Insert the call, or read what became of it."""
    at: float = connection.execute(select(now)).scalar_one()
    connection.execute(delete(calls).where(calls.c.at <= at - KEPT_SECONDS))
    row = connection.execute(select(calls).where(calls.c.key == call.key).with_for_update()).first()
    if row is None:
        if connection.execute(select(func.count()).select_from(calls)).scalar_one() >= MAX_CALLS:
            raise KeyBusy(f"{MAX_CALLS} calls of the last day are kept already")
        values = {"key": call.key, "request": request, "token": call.token, "at": at}
        try:
            with connection.begin_nested():
                connection.execute(insert(calls).values(values))
        except IntegrityError:
            return CallState()  # somebody else was quicker, and is at it
        return CallState(mine=True)
    if row.request is None:
        return CallState(status=ERASED)
    if row.request != request:
        raise KeyReused("the key belongs to an earlier request")
    if row.status is not None:
        return CallState(status=row.status, answer=row.answer)
    if row.token is not None and row.at > at - RUNNING_SECONDS:
        return CallState()
    connection.execute(update(calls).where(calls.c.key == call.key).values(token=call.token, at=at))
    return CallState(mine=True, document_id=row.document_id)


def note_created(connection: Connection, call: CallKey, document_id: int) -> None:
    """Note the document that a call has created, in the same transaction; ``KeyBusy`` if it is another attempt's."""
    mine = (calls.c.key == call.key, calls.c.token == call.token, calls.c.status.is_(None))
    if connection.execute(update(calls).where(*mine).values(document_id=document_id)).rowcount == 0:
        raise KeyBusy("another attempt has taken up the call")


def finish(connection: Connection, call: CallKey, status: int, answer: bytes) -> bool:
    """Keep the answer, unless the document was erased meanwhile."""
    mine = (calls.c.key == call.key, calls.c.token == call.token, calls.c.request.is_not(None))
    return connection.execute(update(calls).where(*mine).values(status=status, answer=answer, token=None)).rowcount > 0


def abandon(connection: Connection, call: CallKey) -> None:
    """Remove the call, or leave it to the next attempt if something was created."""
    mine = (calls.c.key == call.key, calls.c.token == call.token, calls.c.status.is_(None))
    connection.execute(delete(calls).where(*mine, calls.c.document_id.is_(None)))
    connection.execute(update(calls).where(*mine).values(token=None))


def erase(connection: Connection, document_id: int) -> None:
    """Forget what calls say of a document; who repeats one is told that it was erased."""
    values = {"request": None, "token": None, "status": ERASED, "answer": None}
    connection.execute(update(calls).where(calls.c.document_id == document_id).values(values))
