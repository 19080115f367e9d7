"""The one SQL store, for SQLite and PostgreSQL.

Strategy: every method but the append is a plain function on a synchronous SQLAlchemy connection, written once;
the backend decides where it runs (:mod:`collab.storage.backend`). Here is what both databases share: which
rows make a document, what may be pruned, and the number of a batch, which makes its repeat exact.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, StoreRefused
from collab.storage.backend import Backend
from collab.storage.batch import decode_author, encode_author, encode_name
from collab.storage.migrate import check_schema, missing_schema
from collab.storage.postgresql import PostgresBackend
from collab.storage.schema import documents, log, snapshots, writers
from collab.storage.sqlite import SqliteBackend
from collab.storage.store import (
    MAX_ROW_BYTES,
    Append,
    AppendOutcome,
    DocumentSummary,
    LoadedDocument,
    LogRow,
    NewRow,
    Snapshot,
    StoredDocument,
)
from collab.storage.urls import DatabaseUrl

PAGE_ROWS = 1_000
"""Rows read at once: on PostgreSQL they are decoded on the loop, a thousand in two to four milliseconds."""

PRUNE_PAGE = 500
"""Documents looked at in one query for something to prune."""

WRITER_SECONDS = 30 * 86_400.0
"""After this the row of a writer that wrote nothing more is removed; no attempt of it can still be under way."""

_Result = TypeVar("_Result")


def open_store(url: DatabaseUrl) -> SqlStore:
    """Make the store for a URL; call its ``open`` next."""
    return SqlStore(url)


class SqlStore:
    """The :class:`~collab.storage.store.Store` in SQLite and PostgreSQL; each method is described there."""

    def __init__(self, url: DatabaseUrl) -> None:
        self._url = url
        writer = uuid.uuid4().hex
        backend: Callable[[DatabaseUrl, str], Backend] = SqliteBackend if url.backend == "sqlite" else PostgresBackend
        self._backend = backend(url, writer)
        self._number = 0
        # The batch whose fate is unknown, and its number; the list itself, so that its identity stays taken.
        self._doubt: tuple[Sequence[Append], int] | None = None
        self._appending = asyncio.Lock()
        self._pruned_to = 0

    async def open(self) -> None:
        """Check the schema."""
        if self._url.path is not None and not await asyncio.to_thread(self._url.path.exists):
            raise missing_schema(None, self._url)
        await self._backend.run(lambda connection: check_schema(connection, self._url), "read")

    async def close(self) -> None:
        """Release all connections."""
        await self._backend.close()

    async def ping(self) -> None:
        """Read one row, so that the file or server is really asked."""
        await self._backend.run(lambda connection: connection.execute(select(documents.c.id).limit(1)).all(), "read")

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write a batch in one transaction."""
        if not batch:
            return []
        async with self._appending:
            repeat = self._doubt is not None and self._doubt[0] is batch
            if not repeat:
                self._number += 1
                self._doubt = (batch, self._number)
            outcomes = await self._backend.append(batch, self._number, repeat)
            self._doubt = None
            return outcomes

    async def load(self, name: str) -> LoadedDocument | None:
        """Read the newest snapshot and the rows after it."""

        def read(connection: Connection) -> LoadedDocument | None:
            document = _find(connection, encoded)
            if document is None:
                return None
            _require_living(document)
            snapshot = _newest_snapshot(connection, document.id, document.head_seq)
            rows = list(_rows(connection, document.id, snapshot.seq if snapshot else 0, document.head_seq))
            return LoadedDocument(document, snapshot, rows)

        encoded = encode_name(name)
        return await self._backend.run(read, "read")

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``seq``."""

        def read(connection: Connection) -> list[LogRow]:
            living = connection.execute(
                select(documents.c.id).where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
            ).first()
            # Numbers have no gaps, so the limit is a number too; only pruned rows make the answer shorter.
            return list(_rows(connection, document_id, seq, None, limit)) if living else []

        return await self._backend.run(read, "read")

    async def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Read what rebuilds the state after row ``seq``."""

        def read(connection: Connection) -> tuple[Snapshot | None, list[LogRow]] | None:
            snapshot = _newest_snapshot(connection, document_id, seq)
            base = snapshot.seq if snapshot else 0
            rows = list(_rows(connection, document_id, base, seq))
            return (snapshot, rows) if len(rows) == seq - base else None

        return await self._backend.run(read, "read")

    async def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        """Insert a snapshot unless one as new is there."""
        if max(len(snapshot.data), len(snapshot.index), len(snapshot.state_vector)) > MAX_ROW_BYTES:
            raise StoreRefused(f"a snapshot of {len(snapshot.data)} bytes is more than the store takes")

        def write(connection: Connection) -> bool:
            living = exists().where(
                documents.c.id == document_id, documents.c.deleted_at.is_(None), documents.c.head_seq >= snapshot.seq
            )
            as_new = exists().where(snapshots.c.document_id == document_id, snapshots.c.seq >= snapshot.seq)
            values = {
                "document_id": literal(document_id, snapshots.c.document_id.type),
                "seq": literal(snapshot.seq, snapshots.c.seq.type),
                "at": literal(snapshot.at, snapshots.c.at.type),
                "state_vector": literal(snapshot.state_vector, LargeBinary()),
                "index_data": literal(snapshot.index, LargeBinary()),
                "data": literal(snapshot.data, LargeBinary()),
            }
            statement = insert(snapshots).from_select(
                list(values), select(*values.values()).where(and_(living, not_(as_new)))
            )
            return connection.execute(statement).rowcount > 0

        def write_or_see(connection: Connection) -> bool:
            try:
                with connection.begin_nested():
                    return write(connection)
            except IntegrityError:
                # Another node wrote the same number between our look and our insert.
                return False

        return await self._backend.run(write_or_see, "write")

    async def create(self, name: str, *, gc: bool = True, rows: Sequence[NewRow] = ()) -> StoredDocument:
        """Insert a document, moving a tombstone out of its name."""
        size = sum(len(row.data) for row in rows)
        if size > MAX_ROW_BYTES:
            raise StoreRefused(f"{size} bytes at once are more than the store takes ({MAX_ROW_BYTES})")
        encoded = encode_name(name)
        now = time.time()
        created_at = rows[0].at if rows else now
        updated_at = max((row.at for row in rows), default=now)

        def write(connection: Connection) -> StoredDocument:
            found = connection.execute(
                select(documents.c.id, documents.c.deleted_at).where(documents.c.name == encoded).with_for_update()
            ).first()
            if found is not None:
                if found.deleted_at is None:
                    raise DocumentExists(f"document {name!r} exists")
                connection.execute(update(documents).where(documents.c.id == found.id).values(name=None))
            try:
                with connection.begin_nested():
                    document_id: int = connection.execute(
                        insert(documents)
                        .values(name=encoded, head_seq=len(rows), gc=gc, created_at=created_at, updated_at=updated_at)
                        .returning(documents.c.id)
                    ).scalar_one()
            except IntegrityError:
                raise DocumentExists(f"document {name!r} exists") from None
            if rows:
                values = [
                    {
                        "document_id": document_id,
                        "seq": seq,
                        "at": round(row.at * 1e6) / 1e6,
                        "author": encode_author(row.author),
                        "data": row.data,
                    }
                    for seq, row in enumerate(rows, 1)
                ]
                connection.execute(insert(log), values)
            return StoredDocument(document_id, name, len(rows), gc, created_at, updated_at)

        return await self._backend.run(write, "write")

    async def delete(self, name: str, at: float) -> None:
        """Set the tombstone."""
        encoded = encode_name(name)

        def write(connection: Connection) -> None:
            statement = (
                update(documents)
                .where(documents.c.name == encoded, documents.c.deleted_at.is_(None))
                .values(deleted_at=at)
            )
            if connection.execute(statement).rowcount == 0:
                raise DocumentNotFound(f"there is no document {name!r}")

        await self._backend.run(write, "write")

    async def set_title(self, name: str, title: str | None) -> None:
        """Set the title where it differs, so that pages may say it as often as they like."""
        encoded = encode_name(name)
        value = None if title is None else title.encode()

        def write(connection: Connection) -> None:
            found = _find(connection, encoded)
            if found is None:
                raise DocumentNotFound(f"there is no document {name!r}")
            _require_living(found)
            if found.title != title:
                connection.execute(update(documents).where(documents.c.id == found.id).values(title=value))

        await self._backend.run(write, "write")

    async def list_documents(
        self, *, after: str | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents by the bytes of their names."""
        conditions: list[ColumnElement[bool]] = [documents.c.name.is_not(None), documents.c.deleted_at.is_(None)]
        if after is not None:
            conditions.append(documents.c.name > encode_name(after))
        if prefix:
            encoded = encode_name(prefix)
            # The bytes of UTF-8 end below 0xFF, so the last one can be counted up: the first name behind the prefix.
            conditions += [documents.c.name >= encoded, documents.c.name < encoded[:-1] + bytes([encoded[-1] + 1])]
        return await self._backend.run(lambda connection: _summaries(connection, conditions, limit), "read")

    async def describe(self, name: str) -> DocumentSummary:
        """Summarise one document."""
        encoded = encode_name(name)

        def read(connection: Connection) -> DocumentSummary:
            found = _summaries(connection, [documents.c.name == encoded], 1)
            if not found:
                raise DocumentNotFound(f"there is no document {name!r}")
            _require_living(found[0].document)
            return found[0]

        return await self._backend.run(read, "read")

    async def prune(self, *, before: float, limit: int) -> int:
        """Remove what no state since ``before`` needs, going on with the document where the last call stopped."""
        removed = 0
        start = position = self._pruned_to
        wrapped = start == 0
        while True:
            work, last = await self._backend.run(_prunable(position, before), "read")
            for document_id, base in work:
                removed += await self._backend.run(_remove(document_id, base, limit - removed), "write")
                if removed >= limit:
                    self._pruned_to = document_id - 1  # it may have more
                    return removed
            if last is None:
                if wrapped:
                    break
                wrapped, position = True, 0
            elif wrapped and 0 < start <= last:
                break
            else:
                position = last
        self._pruned_to = 0
        await self._backend.run(_remove_writers(time.time() - WRITER_SECONDS), "write")
        return removed


def _document(row: Row[Any]) -> StoredDocument:
    return StoredDocument(
        id=row.id,
        name=row.name.decode(),
        head_seq=row.head_seq,
        gc=row.gc,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        title=None if row.title is None else row.title.decode(),
    )


def _find(connection: Connection, name: bytes) -> StoredDocument | None:
    row = connection.execute(select(documents).where(documents.c.name == name)).first()
    return None if row is None else _document(row)


def _require_living(document: StoredDocument) -> None:
    if document.deleted_at is not None:
        raise DocumentDeleted(f"document {document.name!r} is deleted")


def _newest_snapshot(connection: Connection, document_id: int, up_to: int) -> Snapshot | None:
    row = connection.execute(
        select(snapshots)
        .where(snapshots.c.document_id == document_id, snapshots.c.seq <= up_to)
        .order_by(snapshots.c.seq.desc())
        .limit(1)
    ).first()
    return None if row is None else Snapshot(row.seq, row.data, row.index_data, row.state_vector, row.at)


def _rows(
    connection: Connection, document_id: int, after: int, up_to: int | None, limit: int | None = None
) -> Iterator[LogRow]:
    """Read rows in pages, so that a long tail does not hold up the loop that decodes it."""
    left = limit
    while left is None or left > 0:
        size = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
        query = select(log.c.seq, log.c.data, log.c.at, log.c.author).where(
            log.c.document_id == document_id, log.c.seq > after
        )
        if up_to is not None:
            query = query.where(log.c.seq <= up_to)
        page = connection.execute(query.order_by(log.c.seq).limit(size)).all()
        for seq, data, at, author in page:
            yield LogRow(seq, data, at, decode_author(author))
        if len(page) < size:
            return
        after = page[-1].seq
        if left is not None:
            left -= len(page)


def _summaries(connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[DocumentSummary]:
    newest = (
        select(func.max(snapshots.c.seq))
        .where(snapshots.c.document_id == documents.c.id)
        .correlate(documents)
        .scalar_subquery()
    )
    covered = func.coalesce(snapshots.c.seq, 0)
    tail_bytes = (
        select(func.coalesce(func.sum(func.length(log.c.data)), 0))
        .where(log.c.document_id == documents.c.id, log.c.seq > covered)
        .correlate(documents, snapshots)
        .scalar_subquery()
    )
    oldest = (
        select(func.min(log.c.seq)).where(log.c.document_id == documents.c.id).correlate(documents).scalar_subquery()
    )
    query = (
        select(
            documents,
            covered.label("snapshot_seq"),
            func.coalesce(func.length(snapshots.c.data), 0).label("snapshot_bytes"),
            snapshots.c.at.label("snapshot_at"),
            tail_bytes.label("tail_bytes"),
            oldest.label("oldest"),
        )
        .select_from(
            documents.outerjoin(snapshots, and_(snapshots.c.document_id == documents.c.id, snapshots.c.seq == newest))
        )
        .where(*conditions)
        .order_by(documents.c.name)
        .limit(limit)
    )
    return [
        DocumentSummary(
            document=_document(row),
            snapshot_seq=row.snapshot_seq,
            snapshot_bytes=row.snapshot_bytes,
            snapshot_at=row.snapshot_at,
            tail_rows=row.head_seq - row.snapshot_seq,
            tail_bytes=int(row.tail_bytes),
            log_rows=0 if row.oldest is None else row.head_seq - row.oldest + 1,
        )
        for row in connection.execute(query)
    ]


_Prunable = tuple[list[tuple[int, int | None]], int | None]


def _prunable(after: int, before: float) -> Callable[[Connection], _Prunable]:
    """Look at a page of documents for what may go.

    Gives the documents with something to remove, each with the number of the snapshot that its history is to begin
    with (None: deleted, all may go), and the last id that was looked at (None: there are no more documents).
    """

    def read(connection: Connection) -> _Prunable:
        first_kept = (
            select(log.c.seq)
            .where(log.c.document_id == documents.c.id, log.c.at >= before)
            .order_by(log.c.seq)
            .limit(1)
            .correlate(documents)
            .scalar_subquery()
        )
        page = (
            select(
                documents.c.id,
                documents.c.name,
                documents.c.deleted_at,
                func.coalesce(first_kept - 1, documents.c.head_seq).label("last_old"),
            )
            .where(documents.c.id > after)
            .order_by(documents.c.id)
            .limit(PRUNE_PAGE)
            .cte("page")
        )

        def edge(of: Any, table: Table, *conditions: ColumnElement[bool]) -> Any:
            chosen = select(of(table.c.seq)).where(table.c.document_id == page.c.id, *conditions)
            return chosen.correlate(page).scalar_subquery()

        query = select(
            page.c.id,
            page.c.name,
            page.c.deleted_at,
            edge(func.max, snapshots, snapshots.c.seq <= page.c.last_old).label("base"),
            edge(func.min, snapshots).label("oldest_snapshot"),
            edge(func.min, log).label("oldest_row"),
        ).order_by(page.c.id)
        work: list[tuple[int, int | None]] = []
        last = None
        for row in connection.execute(query):
            last = row.id
            if row.deleted_at is not None:
                if row.name is None or row.oldest_row is not None or row.oldest_snapshot is not None:
                    work.append((row.id, None))
            elif row.base is not None and (
                row.oldest_snapshot < row.base or (row.oldest_row is not None and row.oldest_row <= row.base)
            ):
                work.append((row.id, row.base))
        return work, last

    return read


def _remove(document_id: int, base: int | None, budget: int) -> Callable[[Connection], int]:
    """Remove at most ``budget`` rows and snapshots of one document, up to ``base`` or, when deleted, all."""

    def remove(connection: Connection, table: Table, left: int, *conditions: ColumnElement[bool]) -> int:
        if left <= 0:
            return 0
        mine = table.c.document_id == document_id
        oldest = select(table.c.seq).where(mine, *conditions).order_by(table.c.seq).limit(left).subquery()
        return connection.execute(delete(table).where(mine, table.c.seq.in_(select(oldest.c.seq)))).rowcount

    def write(connection: Connection) -> int:
        # Rows before snapshots: rows that lost the snapshot before them would rebuild nothing.
        if base is not None:
            removed = remove(connection, log, budget, log.c.seq <= base)
            return removed + remove(connection, snapshots, budget - removed, snapshots.c.seq < base)
        removed = remove(connection, log, budget)
        removed += remove(connection, snapshots, budget - removed)
        if removed < budget:
            # A tombstone whose name was given away has done its work when its content is gone.
            connection.execute(delete(documents).where(documents.c.id == document_id, documents.c.name.is_(None)))
        return removed

    return write


def _remove_writers(before: float) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(delete(writers).where(writers.c.at < before))

    return write
