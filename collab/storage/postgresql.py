"""PostgreSQL: one connection of asyncpg's for the append, SQLAlchemy's pool for the rest.

Strategy: a batch of known documents is one statement and so one round trip: it locks the documents in the
order of their ids (several nodes cannot deadlock), advances their heads if no tombstone stands, inserts all
rows from one ``unnest``, and notes the heads in the writer's row. Documents that must be created first,
rows that are refused and very large batches take an explicit transaction with the same steps.

The writer's row is also a fence. Every attempt first locks it and goes on only if no later batch is noted
there: an attempt whose connection died before its COMMIT was answered is either noted (then the repeat reads
what came of it), or still under way (then the repeat waits for its lock), or comes to the lock after the
repeat and finds itself too late. It can never write a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from collab.errors import CollabError, StoreError, StoreRefused, StoreUnavailable
from collab.storage.backend import Mode, Result
from collab.storage.batch import (
    LARGE_BATCH_BYTES,
    Plan,
    decode_heads,
    encode_author,
    encode_heads,
    make_plan,
    outcomes,
    refuse,
    unknown_names,
)
from collab.storage.store import Append, AppendOutcome
from collab.storage.urls import DatabaseUrl
from collab.telemetry import mask_secrets

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
"""After these a server that does not answer counts as not available. A commit of the largest batch takes some
seconds on a slow disk; a network that swallows packets would otherwise hold the journal for many minutes."""

CALL_SECONDS = 120.0
"""The same for all other calls, which may carry the largest snapshot."""

POOL = 5
"""Connections besides the append's: openings of documents, snapshots, pruning, the API."""

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # "cannot switch to state ...": a connection that is cut between two messages; it is an Exception only.
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)
"""What asyncpg raises when it is not our mistake."""

_SETTINGS = {
    "application_name": "collab",
    # A node that vanished in the middle of a transaction must not hold its documents' locks for hours.
    "idle_in_transaction_session_timeout": "60000",
}

# Classes of SQLSTATE about the values themselves: data exception, integrity violation, check option, a program
# limit, an error raised by a trigger. Nothing else ends a document: not the connection (08), resources and full
# disks (53), the operator (57), rights (28, 42), a standby (25006) nor the server's own faults (58, XX): those are
# repaired, and the rows wait.
_REFUSED = frozenset({"22", "23", "44", "54", "P0"})

_CTE = """
locked AS (
  SELECT id FROM documents WHERE id = ANY({ids}) AND deleted_at IS NULL{guard} ORDER BY id FOR UPDATE
), heads AS (
  UPDATE documents SET head_seq = documents.head_seq + b.count, updated_at = greatest(documents.updated_at, b.at)
  FROM locked, unnest({ids}::bigint[], {counts}::bigint[], {times}::float8[]) AS b(id, count, at)
  WHERE documents.id = locked.id AND documents.id = b.id
  RETURNING documents.id, documents.head_seq, b.count
), rows AS (
  INSERT INTO log (document_id, seq, at, author, data)
  SELECT heads.id, heads.head_seq - heads.count + r.position, r.at, r.author, r.data
  FROM unnest({documents}::bigint[], {positions}::bigint[], {row_times}::float8[], {authors}::bytea[], {data}::bytea[])
    AS r(id, position, at, author, data) JOIN heads ON heads.id = r.id
)
"""
_ROWS = "coalesce((SELECT string_agg(id || ':' || head_seq, ',') FROM heads), '')"
_APPEND = (
    "WITH writer AS (SELECT id FROM writers WHERE id = $1 AND batch < $2 FOR UPDATE), "
    + _CTE.format(
        ids="$3",
        counts="$4",
        times="$5",
        documents="$6",
        positions="$7",
        row_times="$8",
        authors="$9",
        data="$10",
        guard=" AND EXISTS (SELECT FROM writer)",
    )  # fmt: skip
    + f"UPDATE writers SET batch = $2, at = extract(epoch FROM now()), heads = {_ROWS} "
    "WHERE id = $1 AND EXISTS (SELECT FROM writer) RETURNING heads"
)
_WRITE = (
    "WITH "
    + _CTE.format(
        ids="$1",
        counts="$2",
        times="$3",
        documents="$4",
        positions="$5",
        row_times="$6",
        authors="$7",
        data="$8",
        guard="",
    )  # fmt: skip
    + f"SELECT {_ROWS}"
)
_REGISTER = (
    "INSERT INTO writers (id, batch, heads, at) VALUES ($1, 0, '', extract(epoch FROM now())) ON CONFLICT DO NOTHING"
)
_FENCE = "SELECT 1 FROM writers WHERE id = $1 AND batch < $2 FOR UPDATE"
_REMEMBER = "UPDATE writers SET batch = $2, heads = $3, at = extract(epoch FROM now()) WHERE id = $1"
_RECALL = "SELECT batch, heads FROM writers WHERE id = $1"
_CREATE = """
INSERT INTO documents (name, head_seq, gc, created_at, updated_at)
SELECT name, 0, TRUE, at, at FROM unnest($1::bytea[], $2::float8[]) AS n(name, at) ORDER BY name
ON CONFLICT (name) DO NOTHING
"""
_FIND = "SELECT name, id FROM documents WHERE name = ANY($1::bytea[]) AND deleted_at IS NULL"
_LIVING = "SELECT id FROM documents WHERE id = ANY($1::bigint[]) AND deleted_at IS NULL"


def translate(error: BaseException, secrets: Iterable[str] = ()) -> StoreError:
    """Give the error of the port for one of the driver's, without statements, values and ``secrets``."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    code = getattr(error, "sqlstate", None)
    # Only the first line: the detail of a violated constraint repeats the row.
    text = str(error.args[0] if error.args else "").split("\n")[0] or "no answer"
    for secret in secrets:
        text = text.replace(secret, "***")
    text = f"PostgreSQL: {mask_secrets(text)} ({type(error).__name__})"
    # The driver's own refusal of a value (a number out of range, say) is a DataError of class 22 too.
    refused = isinstance(error, asyncpg.PostgresError | asyncpg.DataError) and str(code or "22")[:2] in _REFUSED
    result = StoreRefused(text) if refused else StoreUnavailable(text)
    result.__cause__ = error
    return result


def secrets_of(url: DatabaseUrl) -> tuple[str, ...]:
    """Give the passwords in a URL, as written and decoded, so that they can be taken out of messages."""
    parts = urlsplit(url.dsn)
    found = {parts.password or "", unquote(parts.password or "")}
    for key, values in parse_qs(parts.query).items():
        if "password" in key.lower():
            found.update(values)
    return tuple(secret for secret in found if secret)


async def connect(url: DatabaseUrl) -> Any:
    """Open a connection of asyncpg's; it reads the whole URL itself, as libpq would."""
    return await asyncpg.connect(url.dsn, timeout=CONNECT_SECONDS, server_settings=_SETTINGS)


def make_engine(url: DatabaseUrl, **options: Any) -> AsyncEngine:
    """Make an engine on :func:`connect`."""
    return create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url), hide_parameters=True, **options
    )


class _TooLate(Exception):
    """The fence is closed: this batch, or a later one, is noted in the writer's row."""


class PostgresBackend:
    """The :class:`~collab.storage.backend.Backend` on PostgreSQL."""

    def __init__(self, url: DatabaseUrl, writer: str) -> None:
        self._url = url
        self._secrets = secrets_of(url)
        self._writer_id = writer
        # Pinged when taken: after a restart of the server the pool's connections are all dead.
        self._engine = make_engine(url, pool_size=POOL, max_overflow=0, pool_pre_ping=True)
        self._raw: Any = None  # the append's own connection

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
            raise translate(error, self._secrets) from error

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """See :class:`~collab.storage.backend.Backend`."""
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                raw = await self._connection()
                try:
                    return await self._append(raw, batch, number)
                except _TooLate:
                    return await self._recall(raw, batch, number)
        except CollabError:
            raise
        except DRIVER_ERRORS as error:
            self._forget()
            # What one document causes was met in its savepoint; a refusal of the whole must not cost a row.
            raise StoreUnavailable(str(translate(error, self._secrets))) from error
        except BaseException:
            # Cancelled, or a mistake of ours: the connection's state is not known.
            self._forget()
            raise

    async def close(self) -> None:
        """See :class:`~collab.storage.backend.Backend`."""
        self._forget()
        await self._engine.dispose()

    async def _connection(self) -> Any:
        if self._raw is None or self._raw.is_closed():
            self._forget()
            raw = await connect(self._url)
            self._raw = raw
            await raw.execute(_REGISTER, self._writer_id)
        return self._raw

    def _forget(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.terminate()

    async def _append(self, raw: Any, batch: Sequence[Append], number: int) -> list[AppendOutcome]:
        names = unknown_names(batch)
        if not names:
            plan = make_plan(batch, {})
            if plan.documents and plan.size < LARGE_BATCH_BYTES:
                try:
                    text = await raw.fetchval(_APPEND, self._writer_id, number, *_columns(plan, plan.documents))
                except asyncpg.PostgresError as error:
                    if not isinstance(translate(error), StoreRefused):
                        raise
                else:
                    if text is None:
                        raise _TooLate
                    return outcomes(plan, decode_heads(text))
        async with raw.transaction():
            if await raw.fetchval(_FENCE, self._writer_id, number) is None:
                raise _TooLate
            ids: dict[bytes, int] = {}
            if names:
                await raw.execute(_CREATE, list(names), list(names.values()))
                ids = await self._find(raw, names)
            plan = make_plan(batch, ids)
            heads = await self._write(raw, plan)
            await raw.execute(_REMEMBER, self._writer_id, number, encode_heads(heads))
        return outcomes(plan, heads)

    async def _find(self, raw: Any, names: Iterable[bytes]) -> dict[bytes, int]:
        return {row[0]: row[1] for row in await raw.fetch(_FIND, list(names))}

    async def _write(self, raw: Any, plan: Plan) -> dict[int, int]:
        if not plan.documents:
            return {}
        if plan.size < LARGE_BATCH_BYTES:
            try:
                async with raw.transaction():
                    return decode_heads(await raw.fetchval(_WRITE, *_columns(plan, plan.documents)))
            except asyncpg.PostgresError as error:
                if not isinstance(translate(error), StoreRefused):
                    raise
        heads: dict[int, int] = {}
        # Each document in a savepoint of its own, so that the one that is refused costs no other. In the order of
        # their ids as above: the locks are taken one after the other here.
        for document_id in plan.documents:
            try:
                async with raw.transaction():
                    heads |= decode_heads(await raw.fetchval(_WRITE, *_columns(plan, [document_id])))
            except asyncpg.PostgresError as error:
                refusal = translate(error)
                if not isinstance(refusal, StoreRefused):
                    raise
                refuse(plan, plan.documents[document_id], refusal)
        return heads

    async def _recall(self, raw: Any, batch: Sequence[Append], number: int) -> list[AppendOutcome]:
        """Give the outcomes of an attempt that had committed."""
        row = await raw.fetchrow(_RECALL, self._writer_id)
        if row is None:
            # Pruned, after a month without a write: nothing of ours can be under way.
            self._forget()
            raise StoreUnavailable("PostgreSQL: the writer's row is gone; it is made anew")
        if row[0] != number:
            raise RuntimeError("two batches at once: Store.append is for one writer")
        heads = decode_heads(row[1])
        plan = make_plan(batch, await self._find(raw, unknown_names(batch)))
        missing = [document_id for document_id in plan.documents if document_id not in heads]
        for living in await raw.fetch(_LIVING, missing):
            refuse(plan, plan.documents[living[0]], StoreRefused("PostgreSQL refused a row of this document"))
        return outcomes(plan, heads)


def _columns(plan: Plan, chosen: Iterable[int]) -> tuple[list[Any], ...]:
    """Give the columns of the two ``unnest``: documents with their counts and times, then all their rows."""
    ids: list[int] = []
    counts: list[int] = []
    times: list[float] = []
    documents: list[int] = []
    positions: list[int] = []
    row_times: list[float] = []
    authors: list[bytes | None] = []
    data: list[bytes] = []
    batch = plan.batch
    for document_id in chosen:
        count = 0
        newest = 0.0
        for entry in plan.documents[document_id]:
            for row_data, at, author in batch[entry].rows:
                count += 1
                at = round(at * 1e6) / 1e6
                if at > newest:
                    newest = at
                documents.append(document_id)
                positions.append(count)
                row_times.append(at)
                authors.append(encode_author(author))
                data.append(row_data)
        ids.append(document_id)
        counts.append(count)
        times.append(newest)
    return ids, counts, times, documents, positions, row_times, authors, data
