"""PostgreSQL: one connection of asyncpg's for the append, SQLAlchemy's pool for the rest.

Strategy: a batch of known documents is one statement and so one round trip: it locks the documents in the
order of their ids (several nodes cannot deadlock), advances their heads if no tombstone stands, inserts all
rows from one ``unnest``, and notes the heads in the writer's row. Documents that must be created first,
rows that are refused and very large batches take an explicit transaction with the same steps.

The writer's row is also a fence. Every attempt first locks it and goes on only if no later batch is noted
there: an attempt whose connection died before its COMMIT was answered is either noted (then the repeat reads
what came of it), or still under way (then the repeat waits for its lock), or comes to the lock after the
repeat and finds itself too late. It can never write a second time. A row that has a lower number than the last
answered batch, or is missing although a server has made it, says that an older state of the database is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import asyncpg
from sqlalchemy import ColumnElement, Connection, Double, ExceptionContext, event, literal_column, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_

from collab.authorship import Note
from collab.errors import CollabError, StoreDamaged, StoreError, StoreRefused, StoreUnavailable, StoreWentBack
from collab.storage.backend import WENT_BACK, Mode, Result, Writer
from collab.storage.batch import (
    LARGE_BATCH_BYTES,
    Plan,
    decode_heads,
    encode_author,
    encode_guest,
    encode_heads,
    encode_note,
    make_plan,
    outcomes,
    refuse,
    unknown_names,
)
from collab.storage.connecting import (
    DRIVER_ERRORS,
    Connector,
    explain_lost,
    first_line,
    is_pooled,
    is_read_only,
    masked,
    secrets_of,
)
from collab.storage.producers import MAX_PRODUCERS, USED_SECONDS
from collab.storage.records import Append, AppendOutcome
from collab.storage.urls import DatabaseUrl

STATEMENT_SECONDS = 30.0
"""After these a server that does not answer counts as not available. A commit of the largest batch takes some
seconds on a slow disk; a network that swallows packets would otherwise hold the journal for many minutes."""

SECONDS_FOR_BYTE = 1 / (1024 * 1024)
"""Seconds more for each byte of a commit, as much as a line of one MiB a second needs: a large row that never gets
through would hold up all that comes behind it, for ever."""

CALL_SECONDS = 120.0
"""The same for all other calls, which may carry the largest snapshot."""

POOL = 5
"""Connections besides the append's: openings of documents, snapshots, pruning, the API."""

CLAIMS = 2
"""Documents that are claimed at a time: each takes a connection of the pool for as long as its snapshot is made."""

# Classes of SQLSTATE about the values themselves: data exception, integrity violation, check option, a program
# limit, an error raised by a trigger. Nothing else ends a document: not the connection (08), resources and full
# disks (53), the operator (57), rights (28, 42), a standby (25006) nor the server's own faults (58, XX): those are
# repaired, and the rows wait.
_REFUSED = frozenset({"22", "23", "44", "54", "P0"})

# data_corrupted, index_corrupted: a page that does not fit its checksum, an index that points nowhere.
_DAMAGED = frozenset({"XX001", "XX002"})

_CTE = """
locked AS (
  SELECT id FROM documents WHERE id = ANY({ids}) AND deleted_at IS NULL{guard} ORDER BY id FOR UPDATE
), heads AS (
  UPDATE documents SET head_seq = documents.head_seq + b.count, updated_at = greatest(documents.updated_at, b.at)
  FROM locked, unnest({ids}::bigint[], {counts}::bigint[], {times}::float8[]) AS b(id, count, at)
  WHERE documents.id = locked.id AND documents.id = b.id
  RETURNING documents.id, documents.head_seq, b.count
), rows AS (
  INSERT INTO log (document_id, seq, at, author, data, checksum{note_columns})
  SELECT heads.id, heads.head_seq - heads.count + r.position, r.at, r.author, r.data, r.checksum{note_values}
  FROM unnest({documents}::bigint[], {positions}::bigint[], {row_times}::float8[], {authors}::bytea[], {data}::bytea[],
    {checksums}::bigint[]{note_arrays}) AS r(id, position, at, author, data, checksum{note_columns})
  JOIN heads ON heads.id = r.id
){owners}{guests}{numbers}
"""
_OWN = """, owners AS (
  INSERT INTO client_owners (document_id, client, author, at, seq, clock)
  SELECT heads.id, o.client, o.author, o.at, heads.head_seq - heads.count + o.position, o.clock
  FROM unnest(${0}::bigint[], ${1}::bigint[], ${2}::bytea[], ${3}::float8[], ${4}::bigint[], ${5}::bigint[])
    AS o(id, client, author, at, position, clock) JOIN heads ON heads.id = o.id
  ON CONFLICT DO NOTHING
)"""
_CALL = """, named AS (
  INSERT INTO guests (document_id, author, name, invited_by, seq)
  SELECT heads.id, g.author, g.name, g.invited_by, heads.head_seq - heads.count + g.position
  FROM unnest(${0}::bigint[], ${1}::bytea[], ${2}::bytea[], ${3}::bytea[], ${4}::bigint[])
    AS g(id, author, name, invited_by, position) JOIN heads ON heads.id = g.id
  ON CONFLICT DO NOTHING
)"""
_NUMBER = """, numbers AS (
  INSERT INTO producers (document_id, key, epoch, seq, at)
  SELECT heads.id, p.key, p.epoch, p.seq, p.at
  FROM unnest(${0}::bigint[], ${1}::bytea[], ${2}::bigint[], ${3}::bigint[], ${4}::float8[])
    AS p(id, key, epoch, seq, at) JOIN heads ON heads.id = p.id
  ON CONFLICT (document_id, key) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq,
    at = CASE WHEN excluded.at > producers.at + {5} THEN excluded.at ELSE producers.at END
  WHERE (excluded.epoch, excluded.seq) > (producers.epoch, producers.seq)
)"""
_ROWS = "coalesce((SELECT string_agg(id || ':' || head_seq, ',') FROM heads), '')"


def _cte(first: int, *, guard: str, more: bool) -> str:
    """Give the steps of a write; its parameters, which ``_columns`` gives, have the numbers from ``first`` on.

    There are two statements for each use: one with ``more`` writes notes, owners, guests and producers, too. Nearly all
    batches have none, and pay nothing for them.
    """
    names = ("ids", "counts", "times", "documents", "positions", "row_times", "authors", "data", "checksums")
    places = {name: f"${at}" for at, name in enumerate(names, first)}
    last = first + len(names)
    return _CTE.format(
        **places,
        guard=guard,
        note_columns=", on_behalf_of, label" if more else "",
        note_values=", r.on_behalf_of, r.label" if more else "",
        note_arrays=f", ${last}::bytea[], ${last + 1}::bytea[]" if more else "",
        owners=_OWN.format(*range(last + 2, last + 8)) if more else "",
        guests=_CALL.format(*range(last + 8, last + 13)) if more else "",
        numbers=_NUMBER.format(*range(last + 13, last + 18), USED_SECONDS) if more else "",
    )


_APPEND = {
    more: "WITH writer AS (SELECT id FROM writers WHERE id = $1 AND batch < $2 AND batch >= $3 FOR UPDATE), "
    + _cte(4, guard=" AND EXISTS (SELECT FROM writer)", more=more)
    + f"UPDATE writers SET batch = $2, at = extract(epoch FROM now()), heads = {_ROWS} "
    "WHERE id = $1 AND EXISTS (SELECT FROM writer) RETURNING heads"
    for more in (False, True)
}
_WRITE = {more: "WITH " + _cte(1, guard="", more=more) + f"SELECT {_ROWS}" for more in (False, True)}
_PLAIN = 9
"""How many columns ``_columns`` gives where there are no notes, owners, guests and producers."""

_KEEP = """
INSERT INTO pending (document_id, key, at, author, data) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
"""
_SETTLE = "DELETE FROM pending WHERE document_id = $1 AND key = ANY($2::bytea[])"
_FORGET = f"""
DELETE FROM producers WHERE document_id = $1 AND key IN (
  SELECT key FROM producers WHERE document_id = $1 ORDER BY at DESC, key OFFSET {MAX_PRODUCERS}
)
"""
_INDEXES = ("pk_documents", "pk_log", "pk_snapshots", "pk_writers", "uq_documents_name")
"""Keys and indexes of the tables that every release knows."""
_REGISTER = (
    "INSERT INTO writers (id, batch, heads, at) VALUES ($1, 0, '', extract(epoch FROM now())) ON CONFLICT DO NOTHING"
)
_FENCE = "SELECT 1 FROM writers WHERE id = $1 AND batch < $2 AND batch >= $3 FOR UPDATE"
_REMEMBER = "UPDATE writers SET batch = $2, heads = $3, at = extract(epoch FROM now()) WHERE id = $1"
_RECALL = "SELECT batch, heads FROM writers WHERE id = $1"
_CREATE = """
INSERT INTO documents (name, head_seq, gc, created_at, updated_at)
SELECT name, 0, TRUE, at, at FROM unnest($1::bytea[], $2::float8[]) AS n(name, at) ORDER BY name
ON CONFLICT (name) DO NOTHING
"""
# Hashed with the schema: other deployments, and other applications, may lock numbers in this database too.
_KEY = "hashtextextended('collab ' || current_schema() || ' ' || CAST(:what AS text), 0)"
_LOCK = text(f"SELECT pg_advisory_xact_lock({_KEY})")
_TRY_LOCK = text(f"SELECT pg_try_advisory_xact_lock({_KEY})")
_KEEP_DELETED = "UPDATE documents SET gc = FALSE WHERE id = $1 AND gc"
_FIND = "SELECT name, id FROM documents WHERE name = ANY($1::bytea[]) AND deleted_at IS NULL"
_LIVING = "SELECT id FROM documents WHERE id = ANY($1::bigint[]) AND deleted_at IS NULL"


def translate(error: BaseException, secrets: Sequence[str] = (), place: str = "the server") -> StoreError:
    """Give the error of the port for one of the driver's, without statements, values and ``secrets``.

    ``place`` is the server, for what is said about it.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    code = getattr(error, "sqlstate", None)
    said = explain_lost(error, place)
    if said is None:
        # Only the first line: the detail of a violated constraint repeats the row.
        said = f"{first_line(error) or 'no answer'} ({type(error).__name__})"
    said = f"PostgreSQL: {masked(said, tuple(secrets))}"
    # The driver's own refusal of a value (a number out of range, say) is a DataError of class 22 too.
    refused = isinstance(error, asyncpg.PostgresError | asyncpg.DataError) and str(code or "22")[:2] in _REFUSED
    result: StoreError = StoreRefused(said) if refused else StoreUnavailable(said)
    if str(code) in _DAMAGED:
        result = StoreDamaged(said)
    result.__cause__ = error
    return result


async def connect(url: DatabaseUrl) -> Any:
    """Open a connection of asyncpg's; see :class:`~collab.storage.connecting.Connector`."""
    return await Connector(url).connect()


def make_engine(url: DatabaseUrl, connector: Connector | None = None, **options: Any) -> AsyncEngine:
    """Make an engine on a connector, which may be one that others use too."""
    connector = Connector(url) if connector is None else connector

    def creator() -> Any:
        raw = await_(connector.connect_in_turn())
        pooled = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        return engine.dialect.dbapi.connect(  # type: ignore[union-attr]
            async_creator_fn=partial(_given, raw), **(pooled if is_pooled(raw) else {})
        )

    def ping(connection: Any) -> bool:
        # One round trip, where SQLAlchemy's own takes three. False: the pool opens another one.
        try:
            return await_(connector.usable(connection.driver_connection))
        except DRIVER_ERRORS:
            return False

    engine = create_async_engine("postgresql+asyncpg://", creator=creator, hide_parameters=True, **options)
    engine.dialect.do_ping = ping  # type: ignore[method-assign, assignment]

    @event.listens_for(engine.sync_engine, "handle_error")
    def _(context: ExceptionContext) -> None:
        if is_read_only(context.original_exception):
            connector.met_standby()
            context.is_disconnect = True

    return engine


async def _given(raw: Any) -> Any:
    return raw


def _let_the_loop_go_on() -> None:
    await_(asyncio.sleep(0))


async def _end(connection: AsyncConnection) -> None:
    """End the transaction of a claim; it may have ended long ago, with its connection."""
    with contextlib.suppress(SQLAlchemyError, *DRIVER_ERRORS):
        await connection.close()


class _TooLate(Exception):
    """The fence is closed: this batch is noted in the writer's row, or the row is not as it was left."""


# See ``Backend.packed``.
_PACKED = text(
    "SELECT string_agg(seq || ' ' || encode(data, 'hex') || ' ' || coalesce('x' || encode(author, 'hex'), '-')"
    " || ' ' || coalesce(CAST(checksum AS text), '-'), ',')"
    " FROM log WHERE document_id = :document AND seq > :after AND seq <= :until"
)


class PostgresBackend:
    """The :class:`~collab.storage.backend.Backend` on PostgreSQL."""

    def __init__(self, url: DatabaseUrl) -> None:
        self.url = url
        self._secrets = secrets_of(url)
        self.writer = Writer()
        self.packed = _PACKED
        self.shared = True
        self._connector = Connector(url)
        # Pinged when taken: after a restart of the server the pool's connections are all dead.
        self._engine = make_engine(url, self._connector, pool_size=POOL, max_overflow=0, pool_pre_ping=True)
        self._raw: Any = None  # the append's own connection
        self._claiming = asyncio.Semaphore(CLAIMS)

    def now(self) -> ColumnElement[float]:
        """See :class:`~collab.storage.backend.Backend`."""
        return literal_column("extract(epoch FROM now())::float8", Double())

    def check_whole(self, connection: Connection) -> None:
        """See :class:`~collab.storage.backend.Backend`.

        ``pg_restore`` fills the tables first and makes the keys and indexes last. A row of ours that came between
        would make them impossible.
        """
        for name in _INDEXES:
            if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is None:
                raise StoreUnavailable(f"PostgreSQL: the index {name} is missing; a restore may be under way")

    def pauses(self) -> Callable[[], None]:
        """See :class:`~collab.storage.backend.Backend`: the function runs on the loop."""
        return _let_the_loop_go_on

    def lock(self, connection: Connection, what: str, *, wait: bool = True) -> bool:
        """See :class:`~collab.storage.backend.Backend`."""
        if wait:
            connection.execute(_LOCK, {"what": what})
            return True
        return bool(connection.execute(_TRY_LOCK, {"what": what}).scalar())

    async def run(self, function: Callable[[Connection], Result], mode: Mode) -> Result:
        """See :class:`~collab.storage.backend.Backend`."""
        level = "REPEATABLE READ" if mode == "read" else "READ COMMITTED"
        try:
            async with asyncio.timeout(CALL_SECONDS), self._engine.connect() as connection:
                await connection.execution_options(isolation_level=level)
                async with connection.begin():
                    return await connection.run_sync(function)
        except CollabError:
            raise
        except (SQLAlchemyError, *DRIVER_ERRORS) as error:
            raise self._translated(error) from error

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """See :class:`~collab.storage.backend.Backend`."""
        try:
            nbytes = sum(entry.nbytes for entry in batch)
            async with asyncio.timeout(STATEMENT_SECONDS + nbytes * SECONDS_FOR_BYTE):
                raw = await self._connection()
                try:
                    return await self._append(raw, batch, number)
                except _TooLate:
                    return await self._recall(raw, batch, number)
        except CollabError:
            raise
        except DRIVER_ERRORS as error:
            self._forget()
            if is_read_only(error):
                self._connector.met_standby()
            # What one document causes was met in its savepoint; a refusal of the whole must not cost a row.
            raise StoreUnavailable(str(self._translated(error))) from error
        except BaseException:
            # Cancelled, or a mistake of ours: the connection's state is not known.
            self._forget()
            raise

    @contextlib.asynccontextmanager
    async def claim(self, document_id: int) -> AsyncIterator[bool]:
        """See :class:`~collab.storage.backend.Backend`.

        A lock of a transaction, which a pooler keeps on one session, and which ends with the connection however that
        ends. A server that vanishes without a word loses it after ``idle_in_transaction_session_timeout``.
        """
        async with self._claiming, contextlib.AsyncExitStack() as stack:
            got, connection = False, None
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    connection = await self._engine.connect()
                    stack.push_async_callback(_end, connection)
                    got = bool((await connection.execute(_TRY_LOCK, {"what": f"snapshot {document_id}"})).scalar())
            except (SQLAlchemyError, *DRIVER_ERRORS) as error:
                raise self._translated(error) from error
            if not got:
                await stack.aclose()  # nothing is held, so the connection is for others
            yield got

    async def scrub(self) -> None:
        """See :class:`~collab.storage.backend.Backend`. Freed pages, the WAL and backups are its operator's."""

    async def changed(self) -> bool:
        """See :class:`~collab.storage.backend.Backend`. Nothing tells it for less than looking."""
        return True

    async def close(self) -> None:
        """See :class:`~collab.storage.backend.Backend`."""
        self._forget()
        await self._engine.dispose()

    async def _connection(self) -> Any:
        if self._raw is None or self._raw.is_closed():
            self._forget()
            raw = await self._connector.connect()
            self._raw = raw
            if not self.writer.attends:  # else it is there, and must not be made anew if it is not
                await raw.execute(_REGISTER, self.writer.id)
        return self._raw

    def _translated(self, error: BaseException) -> StoreError:
        return translate(error, self._secrets, self._connector.place)

    def _forget(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.terminate()

    async def _append(self, raw: Any, batch: Sequence[Append], number: int) -> list[AppendOutcome]:
        names = unknown_names(batch)
        if not names:
            plan = make_plan(batch, {})
            if (
                plan.documents
                and plan.size < LARGE_BATCH_BYTES
                and all(entry.pending is None and entry.gc and not _has_first(entry) for entry in batch)
            ):
                columns = _columns(plan, plan.documents)
                try:
                    heads = await raw.fetchval(
                        _APPEND[len(columns) > _PLAIN], self.writer.id, number, self.writer.least, *columns
                    )
                except asyncpg.PostgresError as error:
                    if not isinstance(translate(error), StoreRefused):
                        raise
                else:
                    if heads is None:
                        raise _TooLate
                    return outcomes(plan, decode_heads(heads))
        async with raw.transaction():
            if await raw.fetchval(_FENCE, self.writer.id, number, self.writer.least) is None:
                raise _TooLate
            ids: dict[bytes, int] = {}
            if names:
                await raw.execute(_CREATE, list(names), list(names.values()))
                ids = await self._find(raw, names)
            plan = make_plan(batch, ids)
            heads = await self._write(raw, plan)
            await raw.execute(_REMEMBER, self.writer.id, number, encode_heads(heads))
        return outcomes(plan, heads)

    async def _find(self, raw: Any, names: Iterable[bytes]) -> dict[bytes, int]:
        return {row[0]: row[1] for row in await raw.fetch(_FIND, list(names))}

    async def _write(self, raw: Any, plan: Plan) -> dict[int, int]:
        if not plan.documents:
            return {}
        if plan.size < LARGE_BATCH_BYTES:
            try:
                async with raw.transaction():
                    return await self._write_chosen(raw, plan, list(plan.documents))
            except asyncpg.PostgresError as error:
                if not isinstance(translate(error), StoreRefused):
                    raise
        heads: dict[int, int] = {}
        # Each document in a savepoint of its own, so that the one that is refused costs no other. In the order of
        # their ids as above: the locks are taken one after the other here.
        for document_id in plan.documents:
            try:
                async with raw.transaction():
                    heads |= await self._write_chosen(raw, plan, [document_id])
            except asyncpg.PostgresError as error:
                refusal = translate(error)
                if not isinstance(refusal, StoreRefused):
                    raise
                refuse(plan, plan.documents[document_id], refusal)
        return heads

    async def _write_chosen(self, raw: Any, plan: Plan, chosen: Sequence[int]) -> dict[int, int]:
        """Write the entries of these documents; give the heads of those that live."""
        columns = _columns(plan, chosen)
        heads = decode_heads(await raw.fetchval(_WRITE[len(columns) > _PLAIN], *columns))
        for document_id in chosen:
            if document_id in heads and plan.keeps_deleted(document_id):
                await raw.execute(_KEEP_DELETED, document_id)
            if document_id in heads and any(_has_first(plan.batch[at]) for at in plan.documents[document_id]):
                await raw.execute(_FORGET, document_id)
            for position in plan.documents[document_id] if document_id in heads else ():
                change = plan.batch[position].pending
                if change is None:
                    continue
                if change.settled:
                    await raw.execute(_SETTLE, document_id, change.settled)
                if change.added:
                    values = [
                        (document_id, key, round(at * 1e6) / 1e6, encode_author(author), data)
                        for key, data, at, author, _ in change.added
                    ]
                    await raw.executemany(_KEEP, values)
        return heads

    async def _recall(self, raw: Any, batch: Sequence[Append], number: int) -> list[AppendOutcome]:
        """Give the outcomes of an attempt that had committed."""
        row = await raw.fetchrow(_RECALL, self.writer.id)
        if self.writer.went_back(None if row is None else row[0]):
            raise StoreWentBack(f"PostgreSQL: {WENT_BACK}")
        if row is None:
            # Pruned, after a month without a write: nothing of ours can be under way.
            self._forget()
            raise StoreUnavailable("PostgreSQL: the writer's row is gone; it is made anew")
        if row[0] != number:
            raise RuntimeError("two batches at once: Log.append is for one writer")
        heads = decode_heads(row[1])
        plan = make_plan(batch, await self._find(raw, unknown_names(batch)))
        missing = [document_id for document_id in plan.documents if document_id not in heads]
        for living in await raw.fetch(_LIVING, missing):
            refuse(plan, plan.documents[living[0]], StoreRefused("PostgreSQL refused a row of this document"))
        return outcomes(plan, heads)


def _has_first(entry: Append) -> bool:
    """Tell whether an entry has a producer that may be one too many."""
    return bool(entry.producers) and any(producer.first for producer in entry.producers)


def _columns(plan: Plan, chosen: Iterable[int]) -> tuple[list[Any], ...]:
    """Give the columns of the two ``unnest``: documents with their counts and times, then all their rows.

    There are ``_PLAIN`` of them. If there are notes, owners, guests or producers, those of all four follow.
    """
    ids: list[int] = []
    counts: list[int] = []
    times: list[float] = []
    documents: list[int] = []
    positions: list[int] = []
    row_times: list[float] = []
    authors: list[bytes | None] = []
    data: list[bytes] = []
    checksums: list[int | None] = []
    notes: dict[int, Note] = {}
    owners: list[tuple[int, int, bytes | None, float, int, int]] = []
    guests: list[tuple[object, ...]] = []
    numbers: list[tuple[int, bytes, int, int, float]] = []
    batch = plan.batch
    for document_id in chosen:
        count = 0
        newest = 0.0
        owned = visited = numbered = False
        for entry in plan.documents[document_id]:
            if batch[entry].owners:
                owned = True
            if batch[entry].guests:
                visited = True
            if batch[entry].producers:
                numbered = True
            for row_data, at, author, checksum, note in batch[entry].rows:
                count += 1
                if note is not None:
                    notes[len(data)] = note
                at = round(at * 1e6) / 1e6
                if at > newest:
                    newest = at
                documents.append(document_id)
                positions.append(count)
                row_times.append(at)
                authors.append(encode_author(author))
                data.append(row_data)
                checksums.append(checksum)
        ids.append(document_id)
        counts.append(count)
        times.append(newest)
        for place, (client, author, at, clock, _) in plan.owners(document_id) if owned else ():
            owners.append((document_id, client, encode_author(author), round(at * 1e6) / 1e6, place, clock))
        for place, guest in plan.guests(document_id) if visited else ():
            guests.append((document_id, *encode_guest(guest), place))
        for key, epoch, seq, at, _ in plan.producers(document_id) if numbered else ():
            numbers.append((document_id, key, epoch, seq, round(at * 1e6) / 1e6))
    columns = (ids, counts, times, documents, positions, row_times, authors, data, checksums)
    if not notes and not owners and not guests and not numbers:
        return columns
    texts = [encode_note(notes.get(at)) for at in range(len(data))]
    of_owners = ([owner[at] for owner in owners] for at in range(6))
    of_guests = ([guest[at] for guest in guests] for at in range(5))
    of_producers = ([each[at] for each in numbers] for at in range(5))
    return (*columns, [text[0] for text in texts], [text[1] for text in texts], *of_owners, *of_guests, *of_producers)
