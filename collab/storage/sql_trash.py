"""The trash in SQL: functions for one connection each; see :mod:`collab.storage.trash`.

Strategy: as in :mod:`collab.storage.sql`, which runs them. A row of the table ``trash`` says that a document can be
restored. It goes first, in the transaction that removes the first part of the content, under the lock of those who
prune: so what is restored is whole.
"""

from __future__ import annotations

import time

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from collab.errors import DocumentExists, DocumentNotFound
from collab.storage import sql_calls, sql_control, sql_webhooks
from collab.storage.backend import Backend
from collab.storage.batch import encode_name
from collab.storage.pruning import pruning_lock
from collab.storage.records import DocumentSummary, StoredDocument
from collab.storage.schema import OF_DOCUMENT, documents, log, skeletons, snapshots, trash
from collab.storage.sql_catalogue import read_document_row, summaries, under


def list_trash(
    connection: Connection,
    name: str | None,
    prefix: str,
    since: float | None,
    before: float | None,
    after: tuple[float, int] | None,
    limit: int,
) -> list[DocumentSummary]:
    """List what is in the trash, what was deleted last first."""
    conditions: list[ColumnElement[bool]] = [documents.c.deleted_at.is_not(None), *under(trash.c.name, prefix)]
    if name is not None:
        conditions.append(trash.c.name == encode_name(name))
    if since is not None:
        conditions.append(trash.c.deleted_at >= since)
    if before is not None:
        conditions.append(trash.c.deleted_at < before)
    if after is not None:
        at, document_id = after
        same = and_(trash.c.deleted_at == at, trash.c.document_id < document_id)
        conditions.append(or_(trash.c.deleted_at < at, same))
    # With the name that it had, and in the order of an index.
    columns = [trash.c[column.name] if column.name in ("name", "deleted_at") else column for column in documents.c]
    chosen = select(*columns).select_from(trash.join(documents, documents.c.id == trash.c.document_id))
    order = ((trash.c.deleted_at, True), (documents.c.id, True))
    return summaries(connection, chosen.where(*conditions), limit, *order)


def restore(
    connection: Connection, backend: Backend, document_id: int, new_name: str | None, at: float
) -> StoredDocument:
    """Take the tombstone away, and free the name of others."""
    gone = DocumentNotFound(f"no document with the id {document_id} is in the trash")
    backend.lock(connection, pruning_lock(document_id))
    had: bytes | None = connection.execute(
        select(trash.c.name).where(trash.c.document_id == document_id)
    ).scalar_one_or_none()
    if had is None:
        raise gone
    name = had.decode() if new_name is None else new_name
    encoded = encode_name(name)
    sql_control.lock_names(connection, backend, had.decode(), name)
    row = connection.execute(select(documents).where(documents.c.id == document_id).with_for_update()).first()
    if row is None or row.deleted_at is None or not _is_whole(connection, document_id, row.head_seq):
        raise gone
    there = connection.execute(
        select(documents.c.id, documents.c.deleted_at).where(documents.c.name == encoded, documents.c.id != document_id)
    ).first()
    if there is not None:
        if there.deleted_at is None:
            raise DocumentExists(f"document {name!r} exists")
        connection.execute(update(documents).where(documents.c.id == there.id).values(name=None))
    mine = documents.c.id == document_id
    try:
        with connection.begin_nested():
            connection.execute(update(documents).where(mine).values(name=encoded, deleted_at=None))
    except IntegrityError:
        raise DocumentExists(f"document {name!r} exists") from None
    connection.execute(delete(trash).where(trash.c.document_id == document_id))
    if row.name is not None and row.name != encoded:
        connection.execute(insert(documents).values(sql_control.tombstone(row.name, document_id, at)))
    return read_document_row(connection.execute(select(documents).where(mine)).one())


def _is_whole(connection: Connection, document_id: int, head_seq: int) -> bool:
    """Tell whether nothing is missing behind the newest snapshot: an older release prunes what is in the trash."""
    mine = snapshots.c.document_id == document_id
    base = connection.execute(select(func.coalesce(func.max(snapshots.c.seq), 0)).where(mine)).scalar_one()
    rows = select(func.count()).where(log.c.document_id == document_id, log.c.seq > base, log.c.seq <= head_seq)
    return bool(connection.execute(rows).scalar_one() == head_seq - base)


def name_of(connection: Connection, document_id: int) -> str | None:
    """Read the name that a document has or had, if it is known still."""
    for table, key in ((trash, trash.c.document_id), (documents, documents.c.id)):
        name: bytes | None = connection.execute(select(table.c.name).where(key == document_id)).scalar()
        if name is not None:
            return name.decode(errors="replace")
    return None


def forget(connection: Connection, backend: Backend, document_id: int) -> None:
    """Remove all of a deleted document but its rows and snapshots, which pruning then takes in portions."""
    backend.lock(connection, pruning_lock(document_id))
    mine = documents.c.id == document_id
    row = connection.execute(select(documents.c.deleted_at).where(mine).with_for_update()).first()
    if row is None:
        raise DocumentNotFound(f"there is no document with the id {document_id}")
    if row.deleted_at is None:
        raise DocumentExists(f"the document with the id {document_id} lives: delete it first")
    connection.execute(update(documents).where(mine).values(title=None, metadata=None))
    for table in (trash, *OF_DOCUMENT):
        connection.execute(delete(table).where(table.c.document_id == document_id))
    sql_calls.erase(connection, document_id)
    sql_webhooks.erase(connection, document_id)


def read_skeleton(connection: Connection, name: str) -> bytes | None:
    """Read the skeleton of a name."""
    query = select(skeletons.c.data).where(skeletons.c.name == encode_name(name))
    data: bytes | None = connection.execute(query).scalar_one_or_none()
    return data


def replace_skeleton(connection: Connection, name: str, was: bytes | None, by: bytes) -> bool:
    """Replace a skeleton if it is the one that is known."""
    encoded, values = encode_name(name), {"data": by, "at": time.time()}
    if was is not None:
        same = (skeletons.c.name == encoded, skeletons.c.data == was)
        return connection.execute(update(skeletons).where(*same).values(values)).rowcount > 0
    try:
        with connection.begin_nested():
            connection.execute(insert(skeletons).values(name=encoded, **values))
    except IntegrityError:
        return False
    return True
