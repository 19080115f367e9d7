"""The one SQL store, for SQLite and PostgreSQL.

Strategy: every method but the append is a plain function on a synchronous SQLAlchemy connection, written once;
the backend decides where it runs (:mod:`collab.storage.backend`). Here is what both databases share: which
rows make a document, what may be pruned, and the number of a batch, which makes its repeat exact.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Label,
    LargeBinary,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from collab.errors import (
    DocumentNotFound,
    HistoryGone,
    StoreRefused,
    StoreUnavailable,
    StoreWentBack,
)
from collab.history.packed import PackedRows
from collab.storage import (
    sql_attributions,
    sql_calls,
    sql_catalogue,
    sql_control,
    sql_guests,
    sql_tenants,
    sql_timeline,
    sql_trash,
    sql_versions,
    sql_webhooks,
)
from collab.storage.attributions import KeptAttribution, check_size
from collab.storage.backend import WENT_BACK, Backend, Mode, Writer
from collab.storage.batch import decode_author, decode_note, encode_author, encode_name, encode_note
from collab.storage.calls import check_answer
from collab.storage.checksums import beside_the_loop, is_damaged_snapshot
from collab.storage.creations import Creations
from collab.storage.membership import Heartbeat, Node
from collab.storage.metadata import merge_metadata
from collab.storage.migrate import check_schema, missing_schema
from collab.storage.nodes import note_beat, read_nodes
from collab.storage.pauses import SLICE_ROWS
from collab.storage.producers import PRODUCER_SECONDS, ProducerNumbers
from collab.storage.pruning import (
    find_prunable,
    find_thinnable,
    pruning_lock,
    remove,
    remove_leftovers,
    remove_owners_left,
    thin,
)
from collab.storage.records import (
    KEEP,
    MAX_ROW_BYTES,
    Append,
    AppendOutcome,
    CallKey,
    CallState,
    ClientOwner,
    DocumentSummary,
    Head,
    Instruction,
    Keep,
    LoadedDocument,
    LogRow,
    NewGuest,
    NewRow,
    NodeReport,
    PendingUpdate,
    Reports,
    Scalar,
    Snapshot,
    StoredDocument,
    StoredInstruction,
)
from collab.storage.schema import client_owners, damage, documents, log, nodes, pending, producers, snapshots, writers
from collab.storage.sql_catalogue import find, require_living
from collab.storage.tenants import Counted, Quota, TenantRecord
from collab.storage.timeline import Page, Summarised
from collab.storage.versions import History, Kind, NewVersion, Reason, Unpinned, Version
from collab.storage.webhooks import (
    DELETED,
    ERASED,
    RENAMED,
    RESET,
    RESTORED,
    VERSION_MADE,
    Attempt,
    Delivery,
    Expired,
    Happened,
    Looked,
    ReceiverState,
    Subscription,
)
from collab.telemetry import get_logger

PAGE_ROWS = 1_000
"""Rows read at once: on PostgreSQL they are decoded on the loop, a thousand in two to four milliseconds."""

# Rows that are put together in one text: half a megabyte of letters, which is taken over in a tenth of a millisecond.
PACKED_ROWS = 4_096

WRITER_SECONDS = 30 * 86_400.0
"""After this the row of a writer that wrote nothing more is removed; no attempt of it can still be under way."""

COMPARED = 10_000
"""Documents of which pruning remembers that it has compared their snapshots, so that it does not for each portion."""

ERASED_ROWS = 500
"""Rows and snapshots that erasing removes in one transaction, so that no append waits for long."""

BEAT_SECONDS = 5.0
"""Between two heartbeats of a server on a database that others may use too."""

LONE_BEAT_SECONDS = 60.0
"""The same on SQLite, where there is one server, and each write makes a disk work that may be asleep."""

# What asks for the bytes of the whole database, by its dialect.
_SIZE = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    "postgresql": "SELECT pg_database_size(current_database())",
}

WRITERS = 100
"""Most writers that are looked at for signs of life, those with the latest ones first."""

_LOG = get_logger("store")

_Result = TypeVar("_Result")


def _bytes(column: Column[bytes]) -> Label[bytes]:
    """Read a column as bytes, whatever somebody has written into it: SQLite gives text where text was written."""
    return cast(column, LargeBinary).label(column.name)


def _reading_heads() -> Select[Any]:
    part = documents.c
    waiting = (
        select(func.coalesce(func.sum(pending.c.id), 0))
        .where(pending.c.document_id == part.id)
        .correlate(documents)
        .scalar_subquery()
    )
    columns = (part.name, part.id, part.head_seq, part.deleted_at, waiting, part.renamed_to)
    return select(*columns).where(part.name.in_(bindparam("names", expanding=True)))


def _reading_rows() -> Select[Any]:
    part = log.c
    columns = (part.seq, _bytes(part.data), part.at, _bytes(part.author), part.checksum)
    query = select(*columns, _bytes(part.on_behalf_of), _bytes(part.label))
    here = (part.document_id == bindparam("document"), part.seq > bindparam("after"), part.seq <= bindparam("until"))
    return query.where(*here).order_by(part.seq).limit(bindparam("most", type_=BigInteger))


# Made once: to put a statement together takes longer than to run it. These are what a server asks most often.
_BATCH = select(writers.c.batch).where(writers.c.id == bindparam("writer"))
_HEADS = _reading_heads()
_PAGE = _reading_rows()
_LIVING = select(documents.c.id).where(documents.c.id == bindparam("document"), documents.c.deleted_at.is_(None))
_PING = select(documents.c.id).limit(1)

# Above the number of any row.
_NO_END = (1 << 63) - 1


class SqlStore:
    """The :class:`~collab.storage.store.Store` in a database; each method is described in its ports.

    ``backend`` says which database; the store closes it.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._number = 0
        # The batch whose fate is unknown, and its number; the list itself, so that its identity stays taken.
        self._doubt: tuple[Sequence[Append], int] | None = None
        self._appending = asyncio.Lock()
        self._pruned_to = self._owners_seen = 0
        self._thinned: dict[
            int, int
        ] = {}  # documents with the newest snapshot for which nothing more was to be thinned
        self._compared: dict[int, int] = {}  # documents with the snapshot at which pruning has found two whole ones
        self._seen: dict[str, float] = {}  # when other writers have last shown that they live
        self._creations = Creations(lambda write: self._run(write, "write"))

    async def open(self) -> None:
        """Check the schema."""
        url = self._backend.url
        if url.path is not None and not await asyncio.to_thread(url.path.exists):
            raise missing_schema(None, url)
        await self.check_schema()

    async def check_schema(self) -> None:
        """Raise ``SchemaError`` unless this release may use the database as it is now."""
        url = self._backend.url
        await self._backend.run(lambda connection: check_schema(connection, url), "read")

    async def close(self) -> None:
        """Release all connections."""
        await self._creations.close()
        await self._backend.close()

    async def ping(self) -> None:
        """Read one row, so that the file or server is really asked."""
        await self._run(lambda connection: connection.execute(_PING).all(), "read")

    async def nbytes(self) -> int:
        """Ask the database how large it is: of SQLite the file without its log, of PostgreSQL all files."""

        def read(connection: Connection) -> int:
            return int(connection.execute(text(_SIZE[connection.dialect.name])).scalar_one())

        return await self._run(read, "read")

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
            self._backend.writer.batch = self._number
            return outcomes

    async def append_next(self, document_id: int, seq: int, row: NewRow, *, reset: bool = False) -> bool:
        """Advance the head from ``seq``, which locks it, and insert the row."""
        if len(row.data) > MAX_ROW_BYTES:
            raise StoreRefused(f"{len(row.data)} bytes at once are more than the store takes ({MAX_ROW_BYTES})")
        mine = (documents.c.id == document_id, documents.c.head_seq == seq, documents.c.deleted_at.is_(None))
        newest = case((documents.c.updated_at < row.at, row.at), else_=documents.c.updated_at)

        def write(connection: Connection) -> bool:
            advanced = update(documents).where(*mine).values(head_seq=seq + 1, updated_at=newest)
            if not connection.execute(advanced).rowcount:
                return False
            values = {
                "document_id": document_id,
                "seq": seq + 1,
                "at": round(row.at * 1e6) / 1e6,
                "author": encode_author(row.author),
                "data": row.data,
                "checksum": row.checksum,
                **dict(zip(("on_behalf_of", "label"), encode_note(row.note), strict=True)),
            }
            connection.execute(insert(log).values(values))
            if reset:
                self._note(connection, RESET, document_id, {"seq": seq + 1}, changed=True)
            return True

        return await self._run(write, "write")

    async def attend(self) -> None:
        """Note this store's row as a server's; after the database went back, a new one in the place of the old."""
        async with self._appending:
            old = self._backend.writer
            new = Writer(attends=True) if old.attends else Writer(old.id, old.batch, attends=True)

            def write(connection: Connection) -> None:
                self._backend.check_whole(connection)
                if new.id != old.id:
                    # An attempt that a dead connection has left behind finds no row, and writes nothing.
                    connection.execute(delete(writers).where(writers.c.id == old.id))
                elif connection.execute(select(writers.c.id).where(writers.c.id == old.id)).first() is not None:
                    return
                at = sql_control.read_time(connection, self._backend.now())
                connection.execute(insert(writers).values(id=new.id, batch=new.batch, heads="", at=at))

            await self._backend.run(write, "write")
            self._backend.writer = new
            self._doubt = None

    async def changed(self) -> bool:
        """Ask the backend, which knows what is cheap."""
        return await self._backend.changed()

    @property
    def beat_seconds(self) -> float:
        """How often :meth:`beat` is to be called."""
        return BEAT_SECONDS if self._backend.shared else LONE_BEAT_SECONDS

    async def beat(self, node: Node) -> Heartbeat:
        """Note the heartbeat in a transaction of its own, so that no append waits for it."""
        others = await self._move() if self._backend.shared else 0

        def write(connection: Connection) -> list[Node]:
            note_beat(connection, self._backend.now(), node)
            return read_nodes(connection, self._backend.now())

        return Heartbeat(others, await self._run(write, "write"))

    async def _move(self) -> int:
        """Move this store's row on, as by an empty batch, and count the rows that have moved since the last call.

        So a server that only reads notices a database that goes back, too.
        """

        def write(connection: Connection) -> dict[str, float]:
            now = sql_control.read_time(connection, self._backend.now())
            connection.execute(update(writers).where(writers.c.id == writer.id).values(at=now, **moved))
            query = select(writers.c.id, writers.c.at).where(writers.c.id != writer.id)
            return {row.id: row.at for row in connection.execute(query.order_by(writers.c.at.desc()).limit(WRITERS))}

        async with self._appending:
            writer = self._backend.writer
            moved = {}
            if self._doubt is None:  # else the number tells what became of it
                self._number += 1
                moved["batch"] = self._number
            found = await self._run(write, "write")
            writer.batch = moved.get("batch", writer.batch)
        before, self._seen = self._seen, found
        # By whether it moves, not by how late it is: clocks differ, and a server that has ended leaves its last time.
        return sum(id in before and before[id] != at for id, at in found.items())

    async def leave(self, name: str) -> None:
        """Remove the row of a server."""
        statement = delete(nodes).where(nodes.c.name == name)

        def write(connection: Connection) -> None:
            connection.execute(statement)

        await self._run(write, "write")

    async def list_nodes(self) -> list[Node]:
        """List the servers."""
        return await self._run(lambda connection: read_nodes(connection, self._backend.now()), "read")

    async def _run(self, function: Callable[[Connection], _Result], mode: Mode) -> _Result:
        """Run ``function`` as the backend does, after a look at this store's row; raises ``StoreWentBack``."""
        writer, last = self._backend.writer, self._backend.writer.batch
        if not writer.attends:
            return await self._backend.run(function, mode)

        def checked(connection: Connection) -> _Result:
            found = connection.execute(_BATCH, {"writer": writer.id}).scalar()
            if found is None or found < last:
                # A call that began under the old row meets this while the storage is taken as it is.
                raise StoreWentBack(WENT_BACK) if writer is self._backend.writer else StoreUnavailable(WENT_BACK)
            return function(connection)

        return await self._backend.run(checked, mode)

    def _rows(
        self, connection: Connection, document_id: int, after: int, up_to: int | None, limit: int | None = None
    ) -> list[LogRow]:
        """Read rows in pages, with pauses between slices of them, so that a long tail does not hold up the loop."""
        pause = self._backend.pauses()
        asked = {"document": document_id, "until": _NO_END if up_to is None else up_to}
        found: list[LogRow] = []
        while limit is None or len(found) < limit:
            before = len(found)
            size = PAGE_ROWS if limit is None else min(limit - before, PAGE_ROWS)
            page = connection.execute(_PAGE, {**asked, "after": after, "most": size})
            for rows in page.partitions(SLICE_ROWS):
                if found:
                    pause()
                found += [
                    LogRow(seq, data, at, decode_author(author), checksum, decode_note(on_behalf_of, label))
                    for seq, data, at, author, checksum, on_behalf_of, label in rows
                ]
            if len(found) - before < size:
                break
            after = found[-1].seq
        return found

    async def load(self, name: str) -> LoadedDocument | None:
        """Read the newest snapshot and the rows after it."""

        def read(connection: Connection) -> LoadedDocument | None:
            document = find(connection, encoded)
            if document is None:
                return None
            require_living(document)
            snapshot = _newest_snapshot(connection, document.id, document.head_seq, passed_over)
            rows = self._rows(connection, document.id, snapshot.seq if snapshot else 0, document.head_seq)
            waiting = read_pending(connection, document.id)
            return LoadedDocument(document, snapshot, rows, tuple(passed_over), tuple(waiting))

        encoded = encode_name(name)
        passed_over: list[int] = []
        while True:
            loaded = await self._run(read, "read")
            if loaded is None or loaded.snapshot is None or await self._is_whole(loaded.snapshot):
                return loaded
            passed_over.append(loaded.snapshot.seq)

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``seq``."""

        def read(connection: Connection) -> list[LogRow]:
            living = connection.execute(_LIVING, {"document": document_id}).first()
            # Numbers have no gaps, so the limit is a number too; only pruned rows make the answer shorter.
            return self._rows(connection, document_id, seq, None, limit) if living else []

        return await self._run(read, "read")

    async def heads(self, names: Sequence[str]) -> dict[str, Head]:
        """Read where the logs of documents stand."""

        def read(connection: Connection) -> dict[str, Head]:
            rows = connection.execute(_HEADS, {"names": [encode_name(name) for name in names]})
            return {
                name.decode(): Head(document_id, head_seq, deleted_at is not None, int(numbers), renamed_to)
                for name, document_id, head_seq, deleted_at, numbers, renamed_to in rows
            }

        return await self._run(read, "read") if names else {}

    async def load_pending(self, document_id: int) -> list[PendingUpdate]:
        """Read the pending updates of a document."""

        def read(connection: Connection) -> list[PendingUpdate]:
            living = connection.execute(_LIVING, {"document": document_id}).first()
            return read_pending(connection, document_id) if living else []

        return await self._run(read, "read")

    async def client_owners(self, document_id: int, after: int, limit: int) -> list[ClientOwner]:
        """Read whose client IDs are."""

        def read(connection: Connection) -> list[ClientOwner]:
            part = client_owners.c
            living = exists().where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
            query = select(part.client, _bytes(part.author), part.at, part.clock, part.seq).where(
                part.document_id == document_id, part.client > after, living
            )
            return [
                ClientOwner(client, decode_author(author), at, clock, seq)
                for client, author, at, clock, seq in connection.execute(query.order_by(part.client).limit(limit))
            ]

        return await self._run(read, "read")

    async def guest_names(self, document_id: int, authors: Collection[str] | None = None) -> dict[str, str]:
        """Read what guests are called."""
        return await self._run(lambda connection: sql_guests.read(connection, document_id, authors), "read")

    async def keep_guest(self, document_id: int, guest: NewGuest) -> None:
        """Keep the name of a guest."""
        await self._run(lambda connection: sql_guests.keep(connection, document_id, guest), "write")

    async def producer(self, document_id: int, key: bytes) -> ProducerNumbers | None:
        """Read the numbers of a producer."""

        def read(connection: Connection) -> ProducerNumbers | None:
            part = producers.c
            living = exists().where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
            query = select(part.epoch, part.seq).where(part.document_id == document_id, part.key == key, living)
            row = connection.execute(query).first()
            return None if row is None else ProducerNumbers(row.epoch, row.seq)

        return await self._run(read, "read")

    async def find_gaps(self, document_ids: Sequence[int]) -> set[int]:
        """Count the rows after the newest snapshots."""

        def read(connection: Connection) -> set[int]:
            newest = (
                select(func.coalesce(func.max(snapshots.c.seq), 0))
                .where(snapshots.c.document_id == documents.c.id)
                .correlate(documents)
                .scalar_subquery()
            )
            found = (
                select(documents.c.id, documents.c.head_seq, newest.label("newest"))
                .where(documents.c.id.in_(document_ids), documents.c.deleted_at.is_(None))
                .cte("found")
            )
            there = (
                select(func.count())
                .where(log.c.document_id == found.c.id, log.c.seq > found.c.newest, log.c.seq <= found.c.head_seq)
                .correlate(found)
                .scalar_subquery()
            )
            return set(
                connection.execute(select(found.c.id).where(there < found.c.head_seq - found.c.newest)).scalars()
            )

        return await self._run(read, "read") if document_ids else set()

    async def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Read what rebuilds the state after row ``seq``."""

        def read(connection: Connection) -> tuple[Snapshot | None, list[LogRow]] | None:
            snapshot = _newest_snapshot(connection, document_id, seq, passed_over)
            base = snapshot.seq if snapshot else 0
            rows = self._rows(connection, document_id, base, seq)
            return (snapshot, rows) if len(rows) == seq - base else None

        passed_over: list[int] = []
        while True:
            found = await self._run(read, "read")
            if found is None or found[0] is None or await self._is_whole(found[0]):
                return found
            passed_over.append(found[0].seq)

    async def load_packed(
        self, document_id: int, seq: int, *, least: int, most: int
    ) -> tuple[Snapshot | None, PackedRows] | None:
        """Read what rebuilds the state after row ``seq``, with rows that the database puts together."""

        def read(connection: Connection) -> tuple[Snapshot | None, PackedRows] | None:
            query = select(snapshots.c.seq, func.length(snapshots.c.data)).where(
                snapshots.c.document_id == document_id, snapshots.c.seq <= seq
            )
            newest = connection.execute(query.order_by(snapshots.c.seq.desc()).limit(1)).first()
            base, size = (0, 0) if newest is None else newest
            if seq - base < least or size > most:
                return None
            between = (log.c.document_id == document_id, log.c.seq > base, log.c.seq <= seq)
            count, nbytes = connection.execute(
                select(func.count(), func.coalesce(func.sum(func.length(log.c.data)), 0)).where(*between)
            ).one()
            if count != seq - base or size + nbytes > most:
                return None
            pages = [
                connection.execute(
                    self._backend.packed,
                    {"document": document_id, "after": after, "until": min(seq, after + PACKED_ROWS)},
                ).scalar_one()
                for after in range(base, seq, PACKED_ROWS)
            ]
            snapshot = None if newest is None else _newest_snapshot(connection, document_id, seq, ())
            return snapshot, PackedRows(count, int(nbytes), tuple(pages))

        found = await self._run(read, "read")
        return found if found is None or found[0] is None or await self._is_whole(found[0]) else None

    async def _is_whole(self, snapshot: Snapshot) -> bool:
        return not await beside_the_loop(len(snapshot.data), lambda: is_damaged_snapshot(snapshot))

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
                "checksum": literal(snapshot.checksum, snapshots.c.checksum.type),
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

        return await self._run(write_or_see, "write")

    def claim_snapshot(self, document_id: int) -> AbstractAsyncContextManager[bool]:
        """Claim the work on the next snapshot."""
        return self._backend.claim(document_id)

    async def create(
        self,
        name: str,
        *,
        gc: bool = True,
        rows: Sequence[NewRow] = (),
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        over_tombstone: bool = True,
        call: CallKey | None = None,
    ) -> StoredDocument:
        """Insert a document, moving a tombstone out of its name."""
        sql_catalogue.check_size(rows)
        encoded = encode_name(name)
        merged = merge_metadata({}, metadata or {})

        def write(connection: Connection) -> StoredDocument:
            created = sql_catalogue.create(
                connection,
                name,
                gc=gc,
                rows=rows,
                title=title,
                metadata=merged,
                over_tombstone=over_tombstone,
                call=call,
                now=time.time(),
            )
            sql_webhooks.note_created(connection, self._backend.now(), created)
            return created

        if over_tombstone or call is not None:
            # It may lock rows of others: not in one transaction with further ones, which an append could wait for.
            return await self._run(write, "write")
        return await self._creations.create(encoded, sum(len(row.data) for row in rows), write)

    async def delete(self, name: str, at: float) -> int:
        """Set the tombstone."""
        encode_name(name)

        def write(connection: Connection) -> int:
            document_id = sql_catalogue.mark_deleted(connection, name, at)
            self._note(connection, DELETED, document_id)
            return document_id

        return await self._run(write, "write")

    async def rename(self, name: str, new_name: str, at: float) -> int:
        """Move the name, and leave a tombstone."""
        encoded = encode_name(name)
        encode_name(new_name)

        def write(connection: Connection) -> int:
            sql_control.lock_names(connection, self._backend, name, new_name)
            found = find(connection, encoded)
            if found is not None:
                require_living(found)
            document_id = sql_control.rename(connection, found, name, new_name, at)
            self._note(connection, RENAMED, document_id, {"previous": name}, before=(name,))
            return document_id

        return await self._run(write, "write")

    async def set_title(self, name: str, title: str | None) -> None:
        """Set the title where it differs, so that pages may say it as often as they like."""
        await self.change(name, title=title)

    async def change(
        self, name: str, *, title: str | None | Keep = KEEP, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Set the title and merge own keys."""
        encode_name(name)
        await self._run(lambda connection: sql_catalogue.change(connection, name, title, metadata or {}), "write")

    async def list_documents(
        self, *, after: str | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents by the bytes of their names."""
        return await self._run(lambda connection: sql_catalogue.list_by_name(connection, after, prefix, limit), "read")

    async def list_recent(
        self, *, after: tuple[float, str] | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents by the time of their last edit."""
        return await self._run(lambda connection: sql_catalogue.list_by_time(connection, after, prefix, limit), "read")

    async def count_documents(self, *, after: str | None = None, prefix: str = "") -> int:
        """Count living documents."""
        return await self._run(lambda connection: sql_catalogue.count(connection, after, prefix), "read")

    async def describe(self, name: str) -> DocumentSummary:
        """Summarise one document."""
        key = encode_name(name)
        return await self._run(lambda connection: sql_catalogue.describe(connection, key, repr(name)), "read")

    async def describe_id(self, document_id: int) -> DocumentSummary:
        """Summarise the document with an id."""
        what = f"with the id {document_id}"
        return await self._run(lambda connection: sql_catalogue.describe(connection, document_id, what), "read")

    async def list_trash(
        self,
        *,
        name: str | None = None,
        prefix: str = "",
        since: float | None = None,
        before: float | None = None,
        after: tuple[float, int] | None = None,
        limit: int = 100,
    ) -> list[DocumentSummary]:
        """List deleted documents that can be restored."""
        return await self._run(
            lambda connection: sql_trash.list_trash(connection, name, prefix, since, before, after, limit), "read"
        )

    async def restore(self, document_id: int, new_name: str | None = None, *, at: float) -> StoredDocument:
        """Take the tombstone away."""
        if new_name is not None:
            encode_name(new_name)

        def write(connection: Connection) -> StoredDocument:
            restored = sql_trash.restore(connection, self._backend, document_id, new_name, at)
            self._note(connection, RESTORED, document_id, changed=True)
            return restored

        return await self._run(write, "write")

    async def erase(self, document_id: int) -> None:
        """Remove what is small in one transaction, and rows and snapshots in portions."""
        portion = remove(self._backend, document_id, None, ERASED_ROWS, wait=True)

        def forget(connection: Connection) -> None:
            name = sql_trash.name_of(connection, document_id)
            sql_trash.forget(connection, self._backend, document_id)
            if name is not None:
                happened = Happened(ERASED, document_id, (name,), {})
                sql_webhooks.note_end(connection, self._backend.now(), happened)

        try:
            await self._run(forget, "write")
            while await self._run(portion, "write"):
                pass
        except DocumentNotFound:
            await self._backend.scrub()  # an earlier try may have come as far as this
            raise
        await self._backend.scrub()

    async def skeleton(self, name: str) -> bytes | None:
        """Read the skeleton of a name."""
        return await self._run(lambda connection: sql_trash.read_skeleton(connection, name), "read")

    async def replace_skeleton(self, name: str, was: bytes | None, by: bytes) -> bool:
        """Replace the skeleton of a name."""
        return await self._run(lambda connection: sql_trash.replace_skeleton(connection, name, was, by), "write")

    def _note(
        self,
        connection: Connection,
        kind: str,
        document_id: int,
        data: Mapping[str, Any] | None = None,
        *,
        before: tuple[str, ...] = (),
        changed: bool = False,
    ) -> None:
        """Let receivers of webhooks be told what the transaction does; ``before`` are names that the document had."""
        query = select(documents.c.name, documents.c.head_seq).where(documents.c.id == document_id)
        row = connection.execute(query).one()
        names = (row.name.decode(errors="replace"), *before)
        happened = Happened(kind, document_id, names, {"seq": row.head_seq} | dict(data or {}))
        sql_webhooks.note(connection, self._backend.now(), happened, changed=changed)

    async def claim_delivery(self, node: str, seconds: float) -> bool:
        """Take or renew the lease."""
        now, shared = self._backend.now(), self._backend.shared
        return await self._run(
            lambda connection: sql_webhooks.claim(connection, now, node, seconds, shared=shared), "write"
        )

    async def release_delivery(self, node: str) -> None:
        """End the lease."""
        await self._run(lambda connection: sql_webhooks.release(connection, node), "write")

    async def subscribe(self, node: str, subscriptions: Sequence[Subscription]) -> bool:
        """Write the receivers."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_webhooks.subscribe(connection, now, node, subscriptions), "write")

    async def mark_changed(self, document_ids: Collection[int]) -> None:
        """Mark documents."""
        now = self._backend.now()
        if document_ids:
            await self._run(lambda connection: sql_webhooks.mark(connection, now, document_ids), "write")

    async def mark_missed(self, node: str, after: int, limit: int) -> Looked | None:
        """Look first, in a transaction that hinders nobody: most often there is nothing to write."""
        found = await self._run(lambda connection: sql_webhooks.find_missed(connection, after, limit), "read")
        if found is None:
            return Looked(None, 0)
        if not found.work:
            return Looked(found.last, 0)
        now = self._backend.now()
        marked = await self._run(
            lambda connection: sql_webhooks.mark_missed(connection, now, node, after, found.last, found.past), "write"
        )
        return None if marked is None else Looked(found.last, marked)

    async def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int]) -> int | None:
        """Look first, as above."""
        now = self._backend.now()
        if not await self._run(lambda connection: sql_webhooks.has_marks(connection, now, seconds), "read"):
            return 0
        return await self._run(
            lambda connection: sql_webhooks.tell_changed(connection, now, node, seconds, limit, busy), "write"
        )

    async def tell_people(self, events: Sequence[Happened]) -> None:
        """Write deliveries."""
        now = self._backend.now()
        await self._run(lambda connection: sql_webhooks.tell_people(connection, now, events), "write")

    async def due(self, receiver: str, limit: int, busy: Collection[int]) -> list[Delivery]:
        """Read deliveries that are to be made."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_webhooks.due(connection, now, receiver, limit, busy), "read")

    async def settle(self, node: str, attempts: Sequence[Attempt], disable: Collection[str] = ()) -> bool:
        """Note what became of attempts."""
        now = self._backend.now()
        return await self._run(
            lambda connection: sql_webhooks.settle(connection, now, node, attempts, disable), "write"
        )

    async def expire(self, node: str, disable_after: float) -> Expired | None:
        """Do what time does."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_webhooks.expire(connection, now, node, disable_after), "write")

    async def receivers(self) -> list[ReceiverState]:
        """Read how receivers stand."""
        return await self._run(sql_webhooks.receivers, "read")

    async def deliveries(
        self, *, receiver: str | None = None, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """List deliveries."""
        return await self._run(
            lambda connection: sql_webhooks.list_deliveries(connection, receiver, state, before, limit), "read"
        )

    async def resend(self, number: int) -> Delivery:
        """Let one delivery wait again."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_webhooks.resend(connection, now, number), "write")

    async def resend_failed(self, receiver: str, since: float) -> int:
        """Let deliveries wait again."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_webhooks.resend_failed(connection, now, receiver, since), "write")

    async def enable_receiver(self, receiver: str) -> None:
        """Enable a receiver."""
        now = self._backend.now()
        await self._run(lambda connection: sql_webhooks.enable(connection, now, receiver), "write")

    async def make_version(self, document_id: int, seq: int, new: NewVersion) -> Version:
        """Insert a version, or give an automatic one a name."""

        def write(connection: Connection) -> Version:
            version = sql_versions.make(connection, self._backend, document_id, seq, new)
            data = {"version": version.id, "name": version.name, "number": version.seq, "author": version.author}
            self._note(connection, VERSION_MADE, document_id, data)
            return version

        return await self._run(write, "write")

    async def make_automatic(
        self, document_id: int, seq: int, reason: Reason, at: float, spacing: float
    ) -> Version | None:
        """Insert an automatic version."""
        return await self._run(
            lambda connection: sql_versions.make_automatic(
                connection, self._backend, document_id, seq, reason, at, spacing
            ),
            "write",
        )

    async def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        """Insert a version with its state."""
        sql_versions.check_size(state)
        return await self._run(
            lambda connection: sql_versions.import_version(connection, self._backend, document_id, new, state), "write"
        )

    async def versions(
        self,
        document_id: int,
        *,
        kind: Kind | None = None,
        after: tuple[int, float, int] | None = None,
        between: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[Version]:
        """List versions."""
        return await self._run(
            lambda connection: sql_versions.list_versions(connection, document_id, kind, after, between, limit), "read"
        )

    async def version(self, document_id: int, version_id: int) -> Version:
        """Read one version."""
        return await self._run(
            lambda connection: sql_versions.read_of_living(connection, document_id, version_id), "read"
        )

    async def change_version(
        self,
        document_id: int,
        version_id: int,
        *,
        name: str | Keep = KEEP,
        description: str | None | Keep = KEEP,
    ) -> Version:
        """Update the texts of a version."""
        return await self._run(
            lambda connection: sql_versions.change(
                connection, self._backend, document_id, version_id, name, description
            ),
            "write",
        )

    async def delete_version(self, document_id: int, version_id: int) -> None:
        """Remove a version."""
        await self._run(lambda connection: sql_versions.remove(connection, document_id, version_id), "write")

    async def load_version(
        self, document_id: int, version_id: int
    ) -> tuple[Version, tuple[Snapshot | None, list[LogRow]]]:
        """Read the state of a version, or what rebuilds it; it may be pinned between the two."""
        while True:
            version = await self.version(document_id, version_id)
            if version.pinned:
                state = await self._run(lambda connection: sql_versions.read_state(connection, version_id), "read")
                if state is not None:
                    return version, (state, [])
                continue  # deleted a moment ago
            found = await self.load_at(document_id, version.seq)
            if found is not None:
                return version, found
            if not (await self.version(document_id, version_id)).pinned:
                raise HistoryGone(f"the state after row {version.seq} is gone")

    async def unpinned(
        self, *, before: float, histories: Sequence[History] = (), after: int = 0, limit: int = 100
    ) -> list[Unpinned]:
        """List versions that hold up pruning."""
        return await self._run(
            lambda connection: sql_versions.unpinned(connection, before, histories, after, limit), "read"
        )

    async def pin_version(self, document_id: int, version_id: int, state: Snapshot) -> bool:
        """Insert the state of a version."""
        sql_versions.check_size(state)
        return await self._run(
            lambda connection: sql_versions.pin(connection, self._backend, document_id, version_id, state), "write"
        )

    async def summarise(
        self, document_id: int, *, now: float, spacing: float | None, limit: int = PAGE_ROWS
    ) -> Summarised | None:
        """Put the next rows into entries."""
        return await self._run(
            lambda connection: sql_timeline.summarise(connection, self._backend, document_id, now, spacing, limit),
            "write",
        )

    async def timeline(self, document_id: int, *, before: int | None = None, limit: int = 100) -> Page:
        """Read entries."""
        return await self._run(
            lambda connection: sql_timeline.read_page(connection, document_id, before, limit), "read"
        )

    async def unsummarised(self, after: int, limit: int) -> tuple[list[int], int | None]:
        """Find documents with rows in no entry."""
        return await self._run(lambda connection: sql_timeline.find_unsummarised(connection, after, limit), "read")

    async def attribution(self, document_id: int) -> KeptAttribution | None:
        """Read who wrote what in a document."""
        return await self._run(lambda connection: sql_attributions.read(connection, document_id), "read")

    async def add_usage(self, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        """Add what a node has counted, by the clock of the database."""

        def write(connection: Connection) -> None:
            now = sql_control.read_time(connection, self._backend.now())
            sql_tenants.add_usage(connection, now, node, batch, month, counted)

        await self._run(write, "write")

    async def tenants(self, month: int, *, after: str | None = None, limit: int = 100) -> list[TenantRecord]:
        """Read a page of tenants."""

        def read(connection: Connection) -> list[TenantRecord]:
            now = sql_control.read_time(connection, self._backend.now())
            return sql_tenants.read(connection, now, month, after=after, limit=limit)

        return await self._run(read, "read")

    async def tenants_named(self, month: int, names: Sequence[str]) -> dict[str, TenantRecord]:
        """Read some tenants."""

        def read(connection: Connection) -> dict[str, TenantRecord]:
            now = sql_control.read_time(connection, self._backend.now())
            found = sql_tenants.read(connection, now, month, names=names)
            return {record.tenant: record for record in found}

        return await self._run(read, "read")

    async def set_quota(self, tenant: str, quota: Quota | None) -> None:
        """Replace a tenant's own quotas."""
        await self._run(lambda connection: sql_tenants.set_quota(connection, tenant, quota), "write")

    async def note_measured(self, tenant: str, documents: int, nbytes: int, at: float) -> None:
        """Note what a tenant's documents take."""
        await self._run(
            lambda connection: sql_tenants.note_measured(connection, tenant, documents, nbytes, at), "write"
        )

    async def give_documents(self, tenant: str, document_ids: Sequence[int]) -> None:
        """Note whose documents are."""
        await self._run(lambda connection: sql_tenants.give_documents(connection, tenant, document_ids), "write")

    async def tenant_of(self, document_id: int) -> str | None:
        """Tell whose a document is."""
        return await self._run(lambda connection: sql_tenants.tenant_of(connection, document_id), "read")

    async def documents_of(self, tenant: str, after: int, limit: int) -> list[DocumentSummary]:
        """List documents that were given to a tenant."""
        return await self._run(lambda connection: sql_tenants.documents_of(connection, tenant, after, limit), "read")

    async def keep_attribution(self, document_id: int, kept: KeptAttribution) -> bool:
        """Keep who wrote what in a document."""
        check_size(kept)
        return await self._run(lambda connection: sql_attributions.keep(connection, document_id, kept), "write")

    async def begin_call(self, call: CallKey, request: bytes) -> CallState:
        """Begin a call, or read what became of it."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_calls.begin(connection, call, request, now), "write")

    async def finish_call(self, call: CallKey, status: int, answer: bytes) -> bool:
        """Keep the answer of a call."""
        check_answer(answer)
        return await self._run(lambda connection: sql_calls.finish(connection, call, status, answer), "write")

    async def abandon_call(self, call: CallKey) -> None:
        """End an attempt."""
        await self._run(lambda connection: sql_calls.abandon(connection, call), "write")

    async def instruct(self, instruction: Instruction) -> int:
        """Insert an instruction."""
        return await self._run(
            lambda connection: sql_control.instruct(connection, instruction, self._backend.now()), "write"
        )

    async def instructions(self, after: int) -> list[StoredInstruction]:
        """Read what has not lapsed."""
        return await self._run(
            lambda connection: sql_control.read_instructions(connection, after, self._backend.now()), "read"
        )

    async def report(self, numbers: Sequence[int], report: NodeReport) -> None:
        """Write what a node has done."""
        await self._run(lambda connection: sql_control.write_report(connection, numbers, report), "write")

    async def answer(self, number: int, node: str, data: bytes) -> None:
        """Write what a node answers."""
        await self._run(lambda connection: sql_control.write_answer(connection, number, node, data), "write")

    async def answers(self, number: int) -> dict[str, bytes]:
        """Read what the nodes have answered."""
        return await self._run(lambda connection: sql_control.read_answers(connection, number), "read")

    async def reports(self, number: int) -> Reports:
        """Read what the nodes have done."""
        now = self._backend.now()
        return await self._run(lambda connection: sql_control.read_reports(connection, number, now), "read")

    async def prune(
        self,
        *,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        """Remove what no state since ``before`` needs, going on with the document where the last call stopped."""
        removed = 0
        start = position = self._pruned_to
        wrapped = start == 0
        while True:
            work, last = await self._run(find_prunable(position, before, trash_before, histories), "read")
            for document_id, base in work:
                if document_id in spare or (base is not None and not await self._two_are_whole(document_id, base)):
                    continue
                portion = remove(self._backend, document_id, base, limit - removed, trash_before)
                removed += await self._run(portion, "write")
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
        now = time.time()
        leftovers = remove_leftovers(
            now - WRITER_SECONDS, now - PRODUCER_SECONDS, self._backend.writer.id, self._backend.now()
        )
        await self._run(leftovers, "write")
        self._owners_seen = await self._run(remove_owners_left(self._owners_seen), "write")
        return removed

    async def thin_snapshots(self, *, limit: int, spare: Collection[int] = ()) -> int:
        """Look at documents with many snapshots, those that have a new one since the last look."""
        removed, after = 0, 0
        while page := await self._run(find_thinnable(after), "read"):
            for document_id, newest in page:
                if document_id in spare or self._thinned.get(document_id) == newest:
                    continue
                removed += await self._run(thin(self._backend, document_id, limit - removed), "write")
                if removed >= limit:
                    return removed  # it may have more
                self._thinned[document_id] = newest
                if len(self._thinned) > COMPARED:
                    del self._thinned[next(iter(self._thinned))]
            after = page[-1][0]
        return removed

    async def note_damage(self, document_id: int, *, rows: Sequence[int] = (), snapshots: Sequence[int] = ()) -> None:
        """Insert what is not noted yet."""
        found = [("row", seq) for seq in rows] + [("snapshot", seq) for seq in snapshots]

        def write(connection: Connection) -> None:
            self._backend.lock(connection, pruning_lock(document_id))
            mine = damage.c.document_id == document_id
            known = {(kind, seq) for kind, seq in connection.execute(select(damage.c.kind, damage.c.seq).where(mine))}
            for kind, seq in found:
                if (kind, seq) not in known:
                    values = {"document_id": document_id, "kind": kind, "seq": seq, "found_at": time.time()}
                    try:
                        with connection.begin_nested():
                            connection.execute(insert(damage).values(values))
                    except IntegrityError:
                        continue  # another node has found it too

        if found:
            await self._run(write, "write")

    async def _two_are_whole(self, document_id: int, base: int) -> bool:
        """Compare the checksums of the snapshot from which the history is to begin and of the one after it.

        Rows that a snapshot covers are the only other copy of what it says, so nothing goes on trust.
        """

        def read(connection: Connection) -> Snapshot | None:
            query = _select_snapshot(document_id).where(snapshots.c.seq >= seq, snapshots.c.checksum.is_not(None))
            return _snapshot(connection.execute(query.order_by(snapshots.c.seq).limit(1)).first())

        if self._compared.get(document_id) == base:
            return True
        seq = base
        for _ in range(2):
            snapshot = await self._run(read, "read")
            if snapshot is None:
                return False  # somebody else has pruned meanwhile
            if not await self._is_whole(snapshot):
                line = "snapshot %d of document number %d is damaged, and nothing of it is pruned; run: %s"
                _LOG.error(line, snapshot.seq, document_id, "collab documents verify")
                await self.note_damage(document_id, snapshots=[snapshot.seq])
                return False
            seq = snapshot.seq + 1
        self._compared[document_id] = base
        if len(self._compared) > COMPARED:
            del self._compared[next(iter(self._compared))]
        return True


def _select_snapshot(document_id: int) -> Select[Any]:
    part = snapshots.c
    columns = (part.seq, _bytes(part.data), _bytes(part.index_data), _bytes(part.state_vector), part.at, part.checksum)
    return select(*columns).where(part.document_id == document_id)


def _snapshot(row: Row[Any] | None) -> Snapshot | None:
    if row is None:
        return None
    return Snapshot(row.seq, row.data, row.index_data, row.state_vector, row.at, row.checksum)


def read_snapshot(connection: Connection, document_id: int, seq: int) -> Snapshot | None:
    """Read one snapshot."""
    return _snapshot(connection.execute(_select_snapshot(document_id).where(snapshots.c.seq == seq)).first())


def _newest_snapshot(
    connection: Connection, document_id: int, up_to: int, passed_over: Sequence[int]
) -> Snapshot | None:
    query = _select_snapshot(document_id).where(snapshots.c.seq <= up_to)
    if passed_over:
        query = query.where(snapshots.c.seq < passed_over[-1])
    return _snapshot(connection.execute(query.order_by(snapshots.c.seq.desc()).limit(1)).first())


def read_pending(connection: Connection, document_id: int) -> list[PendingUpdate]:
    """Read the pending updates of a document, in the order of their numbers."""
    part = pending.c
    columns = (part.id, _bytes(part.key), _bytes(part.data), part.at, _bytes(part.author))
    query = select(*columns).where(part.document_id == document_id).order_by(part.id)
    return [
        PendingUpdate(key, data, at, decode_author(author), number)
        for number, key, data, at, author in connection.execute(query)
    ]
