"""A database that was restored, taken back to a time: everything that came later is left out.

Strategy: rows of a document have times that never run backwards, so what it was at a time are its rows up to a number.
Whatever belongs to later rows goes with them. A document that was created later goes, one that was deleted or renamed
later is there again under the name that it had.

Three things cannot be taken back, and are told instead. A document that was renamed later keeps its new name if the old
one was given to another document since. A document whose rows of that time were pruned stays as the backup has it: an
older state than people know of is better than none. One that was deleted later and whose content is gone from the
backup, too, stays deleted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select, update

from collab.protocol.names import MAX_NAME_BYTES
from collab.storage.schema import (
    OF_DOCUMENT,
    attributions,
    calls,
    client_owners,
    damage,
    documents,
    guests,
    log,
    pending,
    producers,
    snapshots,
    timeline,
    trash,
    version_states,
    versions,
    webhook_cursors,
    webhook_deliveries,
)

_PAGE: Final = 500
"""Documents that are looked at at once."""


@dataclass(slots=True)
class Moment:
    """What came of going back.

    Attributes:
        cut: how many documents have lost later rows.
        removed: how many were created later.
        returned: the names of those that were deleted later and are there again.
        renamed: the names of those that were renamed later and keep that name, as nothing says which one they had.
        kept: the names of those whose rows of that time were pruned: they are as the backup has them.
        lost: how many were deleted later, and had nothing left in the backup.
    """

    cut: int = 0
    removed: int = 0
    returned: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    lost: int = 0


def go_back(connection: Connection, at: float) -> Moment:
    """Leave out what came after a time, in Unix seconds; in the transaction of ``connection``."""
    moment = Moment()
    unnamed = _rename_back(connection, at)
    last = 0
    while True:
        query = select(documents).where(documents.c.id > last).order_by(documents.c.id).limit(_PAGE)
        page = connection.execute(query).all()
        if not page:
            break
        for document in page:
            _take_back(connection, document, at, moment)
        last = page[-1].id
    _return_names(connection, at, moment)
    for row in connection.execute(select(documents).where(documents.c.deleted_at.is_(None))):
        if row.id in unnamed:
            moment.renamed.append(row.name.decode(errors="replace"))
    connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.at > at))
    connection.execute(delete(calls).where(calls.c.at > at))
    return moment


def _rename_back(connection: Connection, at: float) -> set[int]:
    """Give documents that were renamed later the names that they had, the newest renaming first.

    Returns the ids of those whose names are not known.
    """
    unknown: set[int] = set()
    left = documents.c.renamed_to.is_not(None), documents.c.deleted_at > at
    for row in connection.execute(
        select(documents).where(*left).order_by(documents.c.deleted_at.desc(), documents.c.id.desc())
    ).all():
        target = documents.c.id == row.renamed_to
        connection.execute(delete(documents).where(documents.c.id == row.id))
        if row.name is None:  # it went on to a newer document, and nothing says what it was
            unknown.add(row.renamed_to)
        else:
            unknown.discard(row.renamed_to)
            connection.execute(update(documents).where(target).values(name=row.name))
            connection.execute(update(trash).where(trash.c.document_id == row.renamed_to).values(name=row.name))
    return unknown


def _take_back(connection: Connection, document: Row[Any], at: float, moment: Moment) -> None:
    mine = documents.c.id == document.id
    if document.created_at > at:
        for table in (log, snapshots, client_owners, trash, *OF_DOCUMENT):
            connection.execute(delete(table).where(table.c.document_id == document.id))
        connection.execute(delete(documents).where(mine))
        moment.removed += document.deleted_at is None
        return
    later = select(func.min(log.c.seq)).where(log.c.document_id == document.id, log.c.at > at)
    first_later = connection.execute(later).scalar()
    head = document.head_seq if first_later is None else first_later - 1
    if not _was_then(connection, document.id, head, at) or not _can_be_built(connection, document.id, head):
        if document.deleted_at is None:
            moment.kept.append(document.name.decode(errors="replace"))
        return
    if first_later is None:
        return
    _cut(connection, document.id, head, at)
    newest = select(func.max(log.c.at)).where(log.c.document_id == document.id)
    updated = connection.execute(newest).scalar() or document.created_at
    connection.execute(update(documents).where(mine).values(head_seq=head, updated_at=updated))
    moment.cut += 1


def _was_then(connection: Connection, document_id: int, head: int, at: float) -> bool:
    """Tell whether ``head`` is known to be no later than the time; of pruned rows only a snapshot says that."""
    if head == 0:
        return True
    for table in (log, snapshots):
        time = select(table.c.at).where(table.c.document_id == document_id, table.c.seq == head)
        found = connection.execute(time).scalar()
        if found is not None and found <= at:
            return True
    return False


def _can_be_built(connection: Connection, document_id: int, head: int) -> bool:
    """Tell whether the rows up to ``head`` are there: all of them, or those behind a snapshot that is not newer."""
    base = select(func.max(snapshots.c.seq)).where(snapshots.c.document_id == document_id, snapshots.c.seq <= head)
    behind = connection.execute(base).scalar() or 0
    rows = select(func.count()).where(log.c.document_id == document_id, log.c.seq > behind, log.c.seq <= head)
    return bool(connection.execute(rows).scalar_one() == head - behind)


def _cut(connection: Connection, document_id: int, head: int, at: float) -> None:
    """Remove what belongs to rows behind ``head``."""
    for table, column in (
        (log, log.c.seq),
        (snapshots, snapshots.c.seq),
        (client_owners, client_owners.c.seq),
        (guests, guests.c.seq),
        (damage, damage.c.seq),
        (attributions, attributions.c.seq),
        (timeline, timeline.c.last_seq),  # the rows of an entry that is cut in two are summarised anew
    ):
        connection.execute(delete(table).where(table.c.document_id == document_id, column > head))
    # Versions that were imported have the number 0, and times of their own: they stay.
    later = versions.c.document_id == document_id, versions.c.seq > head
    gone = select(versions.c.id).where(*later)
    connection.execute(delete(version_states).where(version_states.c.version_id.in_(gone)))
    connection.execute(delete(versions).where(*later))
    connection.execute(delete(pending).where(pending.c.document_id == document_id, pending.c.at > at))
    # What was posted after the time may be posted again; their numbers do not say which of it that was.
    connection.execute(delete(producers).where(producers.c.document_id == document_id))
    mine = webhook_cursors.c.document_id == document_id, webhook_cursors.c.seq > head
    connection.execute(update(webhook_cursors).where(*mine).values(seq=head))


def _return_names(connection: Connection, at: float, moment: Moment) -> None:
    """Bring back what was deleted later, now that what was created later has given its names back."""
    query = (
        select(documents.c.id, documents.c.name, trash.c.name.label("had"))
        .select_from(documents.outerjoin(trash, trash.c.document_id == documents.c.id))
        .where(documents.c.deleted_at > at, documents.c.renamed_to.is_(None))
        .order_by(documents.c.deleted_at)
    )
    for row in connection.execute(query).all():
        name = row.had if row.had is not None else row.name
        if name is None or not _has_content(connection, row.id):
            moment.lost += 1
            continue
        name = _freed(connection, row.id, name)
        values = {"name": name, "deleted_at": None}
        connection.execute(update(documents).where(documents.c.id == row.id).values(values))
        connection.execute(delete(trash).where(trash.c.document_id == row.id))
        moment.returned.append(name.decode(errors="replace"))


def _freed(connection: Connection, document_id: int, name: bytes) -> bytes:
    """Give a name that a document can have: ``name``, or where another document has that, one with a number."""
    room = MAX_NAME_BYTES - 12
    for number in itertools.count(1):
        tried = name if number == 1 else name[:room].decode(errors="ignore").encode() + f" ({number})".encode()
        taken = documents.c.name == tried, documents.c.id != document_id
        other = connection.execute(select(documents.c.id, documents.c.deleted_at).where(*taken)).first()
        if other is None:
            return tried
        if other.deleted_at is not None:
            connection.execute(update(documents).where(documents.c.id == other.id).values(name=None))
            return tried
    raise AssertionError("unreachable")


def _has_content(connection: Connection, document_id: int) -> bool:
    head = select(documents.c.head_seq).where(documents.c.id == document_id)
    return _can_be_built(connection, document_id, connection.execute(head).scalar_one())
