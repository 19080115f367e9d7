"""SQLite: one thread that writes, a few that read, one file in WAL mode.

Strategy: SQLite has one writer at a time, so ours is a thread, and every writing call of the store goes
through it in order; no two of our own calls ever wait for each other's lock. Another process (the command
line beside a running server) is waited for by the busy time-out. ``synchronous=FULL`` makes COMMIT return
after the log of the WAL is synced: that is the promise of the port.

The append gives SQLite many rows in one statement. Not for SQLite's sake: Python's ``sqlite3`` releases the
interpreter's lock in every step of a statement and must win it back from the event loop, which may take
milliseconds each time while the loop is busy; with a statement a row, a batch of 500 documents would wait
a thousand times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

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

BUSY_SECONDS = 5.0
"""How long to wait for another process's transaction; the command line's longest, an import, is shorter."""

READERS = 2
"""Threads that read. Loading is memory-bound under the interpreter's lock; two let a small load pass a large one."""

WRITER_CACHE_KIB = 32 * 1024
"""SQLite's page cache of the appending connection. Each document has its own page at the end of its part of the
index; the default of 2 MB holds those of 500 documents only just."""

# Values no database of ours will ever take: only these end a document. All else (disk full, read-only, locked,
# damaged ...) is the operator's to repair, and the rows wait for it.
_REFUSED = frozenset({sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})

_HEADS = """
SELECT group_concat(id || ':' || head_seq) FROM documents
WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""
_CHUNKS = (64, 16, 4, 1)
"""Rows of one statement: few sizes, so that Python keeps all of them prepared; 320 variables at most."""

_ADVANCE = {
    size: f"""
UPDATE documents SET head_seq = j.column2, updated_at = max(updated_at, j.column3)
FROM (VALUES {", ".join(["(?, ?, ?)"] * size)}) AS j WHERE documents.id = j.column1
"""
    for size in _CHUNKS
}
_INSERT = {
    size: f"INSERT INTO log (document_id, seq, at, author, data) VALUES {', '.join(['(?, ?, ?, ?, ?)'] * size)}"
    for size in _CHUNKS
}
_CREATE = """
INSERT INTO documents (name, head_seq, gc, created_at, updated_at) VALUES (?, 0, 1, ?, ?)
ON CONFLICT (name) DO NOTHING
"""
_FIND = "SELECT id FROM documents WHERE name = ? AND deleted_at IS NULL"
_REMEMBER = """
INSERT INTO writers (id, batch, heads, at) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, heads = excluded.heads, at = excluded.at
"""
_RECALL = "SELECT batch, heads FROM writers WHERE id = ?"


def configure(connection: sqlite3.Connection) -> None:
    """Put a connection into the state that the promise needs."""
    connection.isolation_level = None  # BEGIN and COMMIT are ours, not Python's guess
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def make_engine(url: DatabaseUrl) -> Engine:
    """Make an engine whose transactions are explicit; with the option ``write`` they take the lock at their BEGIN."""
    engine = create_engine(f"sqlite+pysqlite:///{url.path}", hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        configure(connection)

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        # A reading transaction that writes later fails at once when another has written: so lock first.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def translate(error: BaseException) -> StoreError:
    """Give the error of the port for one of SQLite's, without the statement and its values."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    text = f"SQLite: {error} ({name})" if isinstance(error, sqlite3.Error) else f"SQLite: {name}"
    refused = isinstance(error, OverflowError | sqlite3.DataError | MemoryError) or (
        code is not None and code & 0xFF in _REFUSED
    )
    result = StoreRefused(text) if refused else StoreUnavailable(text)
    result.__cause__ = error
    return result


class _Writer:
    """A thread that calls one function after the other and gives the results to the event loop.

    An executor of the standard library does the same for twice the CPU (230 against 120 microseconds for a call, from
    loop to loop), and the journal makes hundreds of calls a second.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        # A daemon: a process that ends without closing must not hang; SQLite rolls back what is not committed.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call ``function`` in the thread. When the caller is cancelled, the call goes on to its end all the same."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._calls.put((loop, future, function, arguments))
        return await future

    def stop(self) -> None:
        """Return when all calls so far are done and the thread has ended; blocks."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            loop, future, function, arguments = call
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*arguments)
            except BaseException as caught:  # it belongs to the caller, whatever it is
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, future, result, error)
            # What was written must not live on here until the next call.
            del call, function, arguments, future, result, error


_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class SqliteBackend:
    """The :class:`~collab.storage.backend.Backend` on a SQLite file."""

    def __init__(self, url: DatabaseUrl, writer: str) -> None:
        assert url.path is not None
        self._path = url.path
        self._writer_id = writer
        self._engine = make_engine(url)
        self._writing = _Writer("collab-sqlite-write")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="collab-sqlite-read")
        self._raw: sqlite3.Connection | None = None  # the writing thread's own

    async def run(self, function: Callable[[Connection], Result], mode: Mode) -> Result:
        """See :class:`~collab.storage.backend.Backend`."""

        def transact() -> Result:
            try:
                with self._engine.connect().execution_options(write=mode == "write") as connection, connection.begin():
                    return function(connection)
            except CollabError:
                raise
            except (SQLAlchemyError, sqlite3.Error, OverflowError, OSError) as error:
                raise translate(error) from error

        if mode == "write":
            return await self._writing.call(transact)
        return await asyncio.get_running_loop().run_in_executor(self._reading, transact)

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """See :class:`~collab.storage.backend.Backend`."""
        return await self._writing.call(self._append, batch, number, repeat)

    async def close(self) -> None:
        """See :class:`~collab.storage.backend.Backend`. Waits for what is being written."""

        await asyncio.to_thread(self._writing.stop)
        await asyncio.to_thread(self._reading.shutdown)
        self._forget()
        self._engine.dispose()

    # In the writing thread.

    def _append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        try:
            raw = self._connection()
            try:
                raw.execute("BEGIN IMMEDIATE")
                if repeat:
                    known = self._recall(raw, batch, number)
                    if known is not None:
                        raw.execute("ROLLBACK")
                        return known
                plan, heads = self._write(raw, batch)
                raw.execute(_REMEMBER, (self._writer_id, number, encode_heads(heads), time.time()))
                raw.execute("COMMIT")
            except BaseException:
                # Whatever state a failed COMMIT leaves: closing rolls back what is not committed, and the
                # repeat asks the file itself.
                self._forget()
                raise
        except CollabError:
            raise
        except (sqlite3.Error, OverflowError, MemoryError, OSError) as error:
            translated = translate(error)
            # What one document causes was met in its savepoint. A refusal of the transaction itself is not about
            # any row, so it must not cost one.
            raise StoreUnavailable(str(translated)) from error
        return outcomes(plan, heads)

    def _connection(self) -> sqlite3.Connection:
        if self._raw is None:
            raw = sqlite3.connect(self._path, check_same_thread=False)
            try:
                configure(raw)
                raw.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
            except BaseException:
                raw.close()
                raise
            self._raw = raw
        return self._raw

    def _forget(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def _recall(self, raw: sqlite3.Connection, batch: Sequence[Append], number: int) -> list[AppendOutcome] | None:
        """Give the outcomes of an attempt that had committed; None if it had not."""
        row = raw.execute(_RECALL, (self._writer_id,)).fetchone()
        if row is None or row[0] != number:
            return None
        heads = decode_heads(row[1])
        plan = make_plan(batch, self._find(raw, unknown_names(batch)))
        for document_id, positions in plan.documents.items():
            if document_id not in heads:
                living = raw.execute(
                    "SELECT 1 FROM documents WHERE id = ? AND deleted_at IS NULL", (document_id,)
                ).fetchone()
                if living:
                    refuse(plan, positions, StoreRefused("SQLite refused a row of this document"))
        return outcomes(plan, heads)

    def _find(self, raw: sqlite3.Connection, names: Iterable[bytes]) -> dict[bytes, int]:
        ids = {}
        for name in names:
            row = raw.execute(_FIND, (name,)).fetchone()
            if row is not None:
                ids[name] = row[0]
        return ids

    def _write(self, raw: sqlite3.Connection, batch: Sequence[Append]) -> tuple[Plan, dict[int, int]]:
        names = unknown_names(batch)
        if names:
            raw.executemany(_CREATE, [(name, at, at) for name, at in names.items()])
        plan = make_plan(batch, self._find(raw, names))
        heads = decode_heads(raw.execute(_HEADS, (json.dumps(list(plan.documents)),)).fetchone()[0])
        if plan.size < LARGE_BATCH_BYTES:
            raw.execute("SAVEPOINT batch")
            try:
                self._write_together(raw, plan, heads)
            except (sqlite3.Error, OverflowError) as error:
                if not isinstance(translate(error), StoreRefused):
                    raise
                raw.execute("ROLLBACK TO batch")
            else:
                return plan, _advanced(plan, heads)
        return plan, self._write_apart(raw, plan, heads)

    def _write_together(self, raw: sqlite3.Connection, plan: Plan, heads: dict[int, int]) -> None:
        rows: list[Any] = []
        advances: list[Any] = []
        batch = plan.batch
        for document_id, positions in plan.documents.items():
            seq = heads.get(document_id)
            if seq is None:
                continue
            newest = 0.0
            for position in positions:
                for data, at, author in batch[position].rows:
                    seq += 1
                    at = round(at * 1e6) / 1e6
                    if at > newest:
                        newest = at
                    rows += (document_id, seq, at, None if author is None else encode_author(author), data)
            advances += (document_id, seq, newest)
        _execute_many(raw, _ADVANCE, advances, 3)
        _execute_many(raw, _INSERT, rows, 5)

    def _write_apart(self, raw: sqlite3.Connection, plan: Plan, heads: dict[int, int]) -> dict[int, int]:
        """Write each document in a savepoint of its own, so that the one that is refused costs no other."""
        written: dict[int, int] = {}
        for document_id, head in heads.items():
            alone = Plan(plan.batch, {document_id: plan.documents[document_id]})
            raw.execute("SAVEPOINT document")
            try:
                self._write_together(raw, alone, {document_id: head})
                written |= _advanced(alone, {document_id: head})
            except (sqlite3.Error, OverflowError) as error:
                refusal = translate(error)
                if not isinstance(refusal, StoreRefused):
                    raise
                raw.execute("ROLLBACK TO document")
                refuse(plan, plan.documents[document_id], refusal)
            raw.execute("RELEASE document")
        return written


def _execute_many(raw: sqlite3.Connection, statements: dict[int, str], values: list[Any], width: int) -> None:
    """Run a statement for groups of ``width`` values, as many groups at once as there is a statement for."""
    begin, left = 0, len(values) // width
    for size in _CHUNKS:
        while left >= size:
            end = begin + size * width
            raw.execute(statements[size], values[begin:end])
            begin, left = end, left - size


def _advanced(plan: Plan, heads: dict[int, int]) -> dict[int, int]:
    """Give the heads after the rows of ``plan``, from those before."""
    batch = plan.batch
    return {
        document_id: head + sum([len(batch[position].rows) for position in plan.documents[document_id]])
        for document_id, head in heads.items()
    }
