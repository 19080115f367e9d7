"""Timelines in SQL: functions for one connection each; see :mod:`collab.storage.timeline`.

Strategy: as in :mod:`collab.storage.sql`, which runs them. A portion locks the timeline of its document, reads the last
entry and the rows behind it (their sizes, not their bytes), and writes entries: so two nodes never summarise twice.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, LargeBinary, Row, cast, delete, func, insert, select, update

from collab.errors import DocumentNotFound
from collab.storage import sql_versions
from collab.storage.backend import Backend
from collab.storage.batch import decode_author, decode_note
from collab.storage.pruning import pruning_lock
from collab.storage.schema import documents, log, snapshots, timeline
from collab.storage.timeline import (
    MAX_ENTRIES,
    Entry,
    Page,
    RowFacts,
    Summarised,
    closing,
    decode_said,
    encode_said,
    fold,
    reaching,
)
from collab.storage.versions import Reason


def summarise(
    connection: Connection, backend: Backend, document_id: int, now: float, spacing: float | None, limit: int
) -> Summarised | None:
    """Put the next rows into entries."""
    # The lock of automatic versions first, in the order in which all others take the two.
    if not backend.lock(connection, pruning_lock(document_id), wait=False):
        return None
    mine = (documents.c.id == document_id, documents.c.deleted_at.is_(None))
    head: int | None = connection.execute(select(documents.c.head_seq).where(*mine)).scalar()
    if head is None:
        return None
    last = _last(connection, document_id)
    rows = _read_rows(connection, document_id, 0 if last is None else last.last, head, limit)
    folded = fold(last, rows)
    if rows:
        _write(connection, document_id, last, folded.entries)
    left = head - rows[-1].seq if rows else 0
    pauses, open_until = closing(folded.pauses, folded.entries[-1] if folded.entries else None, left, now)
    for seq, at in pauses if spacing is not None else ():
        sql_versions.make_automatic(connection, backend, document_id, seq, Reason.PAUSE, at, spacing or 0.0)
    return Summarised(left, open_until)


def read_page(connection: Connection, document_id: int, before: int | None, limit: int) -> Page:
    """Read entries, the newest first."""
    mine = (documents.c.id == document_id, documents.c.deleted_at.is_(None))
    head: int | None = connection.execute(select(documents.c.head_seq).where(*mine)).scalar()
    if head is None:
        raise DocumentNotFound(f"there is no document with the id {document_id}")
    query = select(timeline).where(timeline.c.document_id == document_id)
    if before is not None:
        query = query.where(timeline.c.first_seq < before)
    entries = [_entry(row) for row in connection.execute(query.order_by(timeline.c.first_seq.desc()).limit(limit))]
    last = _last(connection, document_id)
    oldest = connection.execute(select(func.min(log.c.seq)).where(log.c.document_id == document_id)).scalar()
    of_snapshots = select(snapshots.c.seq).where(snapshots.c.document_id == document_id)
    numbers = connection.execute(of_snapshots.order_by(snapshots.c.seq)).scalars().all()
    return Page(entries, reaching(oldest, numbers, head), 0 if last is None else last.last, head)


def find_unsummarised(connection: Connection, after: int, limit: int) -> tuple[list[int], int | None]:
    """Look at a page of documents for rows in no entry."""
    newest = (
        select(timeline.c.last_seq)
        .where(timeline.c.document_id == documents.c.id)
        .order_by(timeline.c.first_seq.desc())
        .limit(1)
        .correlate(documents)
        .scalar_subquery()
    )
    query = select(documents.c.id, documents.c.head_seq, func.coalesce(newest, 0).label("summarised"))
    living = query.where(documents.c.id > after, documents.c.deleted_at.is_(None))
    page = connection.execute(living.order_by(documents.c.id).limit(limit)).all()
    found = [row.id for row in page if row.summarised < row.head_seq]
    return found, page[-1].id if len(page) == limit else None


def _last(connection: Connection, document_id: int) -> Entry | None:
    query = select(timeline).where(timeline.c.document_id == document_id).order_by(timeline.c.first_seq.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _entry(row)


def _read_rows(connection: Connection, document_id: int, after: int, head: int, limit: int) -> list[RowFacts]:
    part = log.c
    texts = [cast(column, LargeBinary) for column in (part.author, part.on_behalf_of, part.label)]
    query = select(part.seq, part.at, func.length(part.data), *texts).where(
        part.document_id == document_id, part.seq > after, part.seq <= head
    )
    return [
        RowFacts(seq, at, decode_author(author), nbytes, decode_note(on_behalf_of, label))
        for seq, at, nbytes, author, on_behalf_of, label in connection.execute(query.order_by(part.seq).limit(limit))
    ]


def _write(connection: Connection, document_id: int, last: Entry | None, entries: list[Entry]) -> None:
    first, *others = entries
    if last is not None and first.first == last.first:
        mine = (timeline.c.document_id == document_id, timeline.c.first_seq == first.first)
        connection.execute(update(timeline).where(*mine).values(_values(document_id, first)))
    else:
        others = entries
    if not others:
        return
    connection.execute(insert(timeline), [_values(document_id, entry) for entry in others])
    numbers = select(timeline.c.first_seq).where(timeline.c.document_id == document_id)
    oldest = numbers.order_by(timeline.c.first_seq.desc()).limit(1).offset(MAX_ENTRIES)
    bound = connection.execute(oldest).scalar()
    if bound is not None:
        connection.execute(delete(timeline).where(timeline.c.document_id == document_id, timeline.c.first_seq <= bound))


def _values(document_id: int, entry: Entry) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "first_seq": entry.first,
        "last_seq": entry.last,
        "started_at": entry.started_at,
        "ended_at": entry.ended_at,
        "nbytes": entry.nbytes,
        "data": encode_said(entry),
    }


def _entry(row: Row[Any]) -> Entry:
    shares, others, mark = decode_said(row.data)
    times = (row.first_seq, row.last_seq, row.started_at, row.ended_at)
    return Entry(*times, row.nbytes, shares, others, mark)
