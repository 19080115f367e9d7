"""The catalogue in SQL: functions for one connection each.

Strategy: as in :mod:`collab.storage.sql`, which runs them. A listing first chooses a page of documents, and only of
these it reads sizes: so a page costs the same however many documents there are, as long as an index gives its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from collab.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    DocumentRenamed,
    StoreRefused,
)
from collab.storage import sql_calls
from collab.storage.batch import encode_author, encode_name, encode_note
from collab.storage.metadata import decode_metadata, encode_metadata, merge_metadata
from collab.storage.records import (
    KEEP,
    MAX_ROW_BYTES,
    CallKey,
    DocumentSummary,
    Keep,
    NewRow,
    Scalar,
    StoredDocument,
)
from collab.storage.schema import documents, log, snapshots, trash

# Made once: to put a statement together takes longer than to run it.
_FIND = select(documents).where(documents.c.name == bindparam("wanted"))
_FIND_LOCKED = _FIND.with_for_update()

LIVES = exists().where(documents.c.id == bindparam("document"), documents.c.deleted_at.is_(None))
"""That the document with the id ``document``, a parameter, is not deleted."""


def read_document_row(row: Row[Any]) -> StoredDocument:
    """Make the record of a row of the table of documents."""
    return StoredDocument(
        id=row.id,
        # With what was never written here one damaged name would hide all others from a listing.
        name=row.name.decode(errors="backslashreplace"),
        head_seq=row.head_seq,
        gc=row.gc,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        title=None if row.title is None else row.title.decode(errors="backslashreplace"),
        renamed_to=row.renamed_to,
        metadata=decode_metadata(row.metadata),
    )


def find(connection: Connection, name: bytes, *, locked: bool = False) -> StoredDocument | None:
    """Read a document by its name, or its tombstone; ``locked`` against all others who change it."""
    row = connection.execute(_FIND_LOCKED if locked else _FIND, {"wanted": name}).first()
    return None if row is None else read_document_row(row)


def require_living(document: StoredDocument) -> None:
    """Raise ``DocumentDeleted`` on a tombstone."""
    if document.renamed_to is not None:
        raise DocumentRenamed(f"document {document.name!r} was renamed")
    if document.deleted_at is not None:
        raise DocumentDeleted(f"document {document.name!r} is deleted")


def create(
    connection: Connection,
    name: str,
    *,
    gc: bool,
    rows: Sequence[NewRow],
    title: str | None,
    metadata: Mapping[str, Scalar],
    over_tombstone: bool,
    call: CallKey | None,
    now: float,
) -> StoredDocument:
    """Insert a document with its rows, moving a tombstone out of its name."""
    encoded = encode_name(name)
    found = find(connection, encoded, locked=True)
    if found is not None:
        if found.deleted_at is None:
            raise DocumentExists(f"document {name!r} exists")
        if not over_tombstone:
            require_living(found)
        connection.execute(update(documents).where(documents.c.id == found.id).values(name=None))
    values = {
        "name": encoded,
        "head_seq": len(rows),
        "gc": gc,
        "created_at": rows[0].at if rows else now,
        "updated_at": max((row.at for row in rows), default=now),
        "title": None if title is None else title.encode(),
        "metadata": encode_metadata(metadata),
    }
    try:
        with connection.begin_nested():
            created = connection.execute(insert(documents).values(values).returning(documents)).one()
    except IntegrityError:
        raise DocumentExists(f"document {name!r} exists") from None
    if rows:
        connection.execute(
            insert(log),
            [
                {
                    "document_id": created.id,
                    "seq": seq,
                    "at": round(row.at * 1e6) / 1e6,
                    "author": encode_author(row.author),
                    "data": row.data,
                    "checksum": row.checksum,
                    **dict(zip(("on_behalf_of", "label"), encode_note(row.note), strict=True)),
                }
                for seq, row in enumerate(rows, 1)
            ],
        )
    if call is not None:
        sql_calls.note_created(connection, call, created.id)
    return read_document_row(created)


def check_size(rows: Sequence[NewRow]) -> None:
    """Raise ``StoreRefused`` if a new document has more than a store takes at once."""
    size = sum(len(row.data) for row in rows)
    if size > MAX_ROW_BYTES:
        raise StoreRefused(f"{size} bytes at once are more than the store takes ({MAX_ROW_BYTES})")


def mark_deleted(connection: Connection, name: str, at: float) -> int:
    """Set the tombstone, and put the document into the trash; give its id."""
    encoded = encode_name(name)
    statement = (
        update(documents)
        .where(documents.c.name == encoded, documents.c.deleted_at.is_(None))
        .values(deleted_at=at)
        .returning(documents.c.id)
    )
    document_id: int | None = connection.execute(statement).scalar_one_or_none()
    if document_id is None:
        raise DocumentNotFound(f"there is no document {name!r}")
    # One that an older release has left, if its document was restored by nobody: then it is the same.
    connection.execute(delete(trash).where(trash.c.document_id == document_id))
    connection.execute(insert(trash).values(document_id=document_id, name=encoded, deleted_at=at))
    return document_id


def change(connection: Connection, name: str, title: str | None | Keep, metadata: Mapping[str, object]) -> None:
    """Set the title and merge own keys, where something differs."""
    found = find(connection, encode_name(name), locked=True)
    if found is None:
        raise DocumentNotFound(f"there is no document {name!r}")
    require_living(found)
    values: dict[str, bytes | None] = {}
    if title is not KEEP and title != found.title:
        assert not isinstance(title, Keep)
        values["title"] = None if title is None else title.encode()
    merged = merge_metadata(found.metadata, metadata)
    if merged != found.metadata:
        values["metadata"] = encode_metadata(merged)
    if values:
        connection.execute(update(documents).where(documents.c.id == found.id).values(values))


def under(column: ColumnElement[bytes], prefix: str) -> list[ColumnElement[bool]]:
    """Give the conditions that a name begins with ``prefix``, for which an index on it serves."""
    if not prefix:
        return []
    encoded = encode_name(prefix)
    # The bytes of UTF-8 end below 0xFF, so the last one can be counted up: the first name behind the prefix.
    return [column >= encoded, column < encoded[:-1] + bytes([encoded[-1] + 1])]


_LIVING = (documents.c.name.is_not(None), documents.c.deleted_at.is_(None))


def list_by_name(connection: Connection, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
    """List living documents by the bytes of their names."""
    chosen = select(documents).where(*_behind(after, prefix))
    return summaries(connection, chosen, limit, (documents.c.name, False))


def count(connection: Connection, after: str | None, prefix: str) -> int:
    """Count those that ``list_by_name`` lists."""
    query = select(func.count()).select_from(documents).where(*_behind(after, prefix))
    return connection.execute(query).scalar_one()


def _behind(after: str | None, prefix: str) -> list[ColumnElement[bool]]:
    """Give the conditions for living documents under a prefix, behind a name."""
    conditions = [*_LIVING, *under(documents.c.name, prefix)]
    return conditions if after is None else [*conditions, documents.c.name > encode_name(after)]


def list_by_time(
    connection: Connection, after: tuple[float, str] | None, prefix: str, limit: int
) -> list[DocumentSummary]:
    """List living documents by the time of their last edit, the newest first.

    All documents under the prefix are looked at for that, in the table of documents alone.
    """
    conditions = [*_LIVING, *under(documents.c.name, prefix)]
    if after is not None:
        at, name = after
        same = and_(documents.c.updated_at == at, documents.c.name > encode_name(name))
        conditions.append(or_(documents.c.updated_at < at, same))
    chosen = select(documents).where(*conditions)
    return summaries(connection, chosen, limit, (documents.c.updated_at, True), (documents.c.name, False))


def describe(connection: Connection, key: bytes | int, what: str) -> DocumentSummary:
    """Summarise the document with a name, encoded, or with an id; ``what`` names it where there is none.

    A nameless tombstone has given its name to another one.
    """
    found = _read_summaries(connection, _OF_NAME if isinstance(key, bytes) else _OF_ID, key=key)
    if not found:
        raise DocumentNotFound(f"there is no document {what}")
    require_living(found[0].document)
    return found[0]


def summaries(
    connection: Connection, chosen: Select[Any], limit: int, *order: tuple[ColumnElement[Any], bool]
) -> list[DocumentSummary]:
    """Summarise the first documents of those that ``chosen`` gives with all columns.

    ``order`` has columns of ``chosen``, each with whether the largest comes first.
    """
    return _read_summaries(connection, _summarising(chosen, limit, *order))


def _summarising(chosen: Select[Any], limit: int, *order: tuple[ColumnElement[Any], bool]) -> Select[Any]:

    def ordered(columns: Sequence[ColumnElement[Any]]) -> list[Any]:
        return [column.desc() if down else column for column, (_, down) in zip(columns, order, strict=True)]

    page = chosen.order_by(*ordered([column for column, _ in order])).limit(limit).cte("page")

    def of(column: Any, table: Table, *conditions: ColumnElement[bool]) -> Any:
        query = select(column).where(table.c.document_id == page.c.id, *conditions)
        return query.correlate(page, snapshots).scalar_subquery()

    newest = select(func.max(snapshots.c.seq)).where(snapshots.c.document_id == page.c.id)
    covered = func.coalesce(snapshots.c.seq, 0)
    return (
        select(
            page,
            covered.label("snapshot_seq"),
            func.coalesce(func.length(snapshots.c.data), 0).label("snapshot_bytes"),
            snapshots.c.at.label("snapshot_at"),
            of(func.coalesce(func.sum(func.length(log.c.data)), 0), log, log.c.seq > covered).label("tail_bytes"),
            of(func.min(log.c.seq), log).label("oldest"),
        )
        .select_from(
            page.outerjoin(
                snapshots,
                and_(
                    snapshots.c.document_id == page.c.id,
                    snapshots.c.seq == newest.correlate(page).scalar_subquery(),
                ),
            )
        )
        .order_by(*ordered([_of_page(page, column) for column, _ in order]))
    )


def _read_summaries(connection: Connection, query: Select[Any], **values: object) -> list[DocumentSummary]:
    return [
        DocumentSummary(
            document=read_document_row(row),
            snapshot_seq=row.snapshot_seq,
            snapshot_bytes=row.snapshot_bytes,
            snapshot_at=row.snapshot_at,
            tail_rows=row.head_seq - row.snapshot_seq,
            tail_bytes=int(row.tail_bytes),
            log_rows=0 if row.oldest is None else row.head_seq - row.oldest + 1,
        )
        for row in connection.execute(query, values)
    ]


def _of_page(page: CTE, column: ColumnElement[Any]) -> ColumnElement[Any]:
    found: ColumnElement[Any] | None = page.corresponding_column(column)  # type: ignore[arg-type]
    assert found is not None
    return found


def _describing(column: ColumnElement[Any]) -> Select[Any]:
    chosen = select(documents).where(column == bindparam("key"), documents.c.name.is_not(None))
    return _summarising(chosen, 1, (documents.c.id, False))


# Made once: to put such a statement together takes four times as long as to run it, in a thread beside the loop.
_OF_NAME, _OF_ID = _describing(documents.c.name), _describing(documents.c.id)
