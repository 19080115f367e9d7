"""SQLite: one thread that writes, a few that read, one file in WAL mode.

Strategy: SQLite has one writer at a time, so ours is a thread, and every writing call of the store goes
through it in order; no two of our own calls ever wait for each other's lock. Another process (the command
line beside a running server) is waited for by the busy time-out. ``synchronous=FULL`` makes COMMIT return
after the log of the WAL is synced: that is the promise of the port.

The append gives SQLite many rows in one statement. Not for SQLite's sake: Python's ``sqlite3`` releases the
interpreter's lock in every step of a statement and must win it back from the event loop, which may take
milliseconds each time while the loop is busy; with a statement a row, a batch of 500 documents would wait
a thousand times.

SQLite does not notice when its files are removed or replaced. So each call ends with a look at their names
(:mod:`collab.storage.sqlite_files`), after the COMMIT and before anybody hears of it: nothing is called stored that
went into a file without a name. From then on calls fail until the same files are back, which are used as they are, or
another database is in their place, which is opened anew. The look is taken on the loop: in a thread each ``os.stat``
would have to win the interpreter's lock back once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import ColumnElement, Connection, Engine, create_engine, event, literal, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from collab.errors import CollabError, StoreDamaged, StoreError, StoreRefused, StoreUnavailable, StoreWentBack
from collab.loop import persistently
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
from collab.storage.pauses import Pauses
from collab.storage.producers import MAX_PRODUCERS, USED_SECONDS
from collab.storage.records import Append, AppendOutcome, PendingChange
from collab.storage.sqlite_files import Files, Place
from collab.storage.urls import DatabaseUrl
from collab.telemetry import get_logger

BUSY_SECONDS = 5.0
"""How long to wait for another process's transaction; the command line's longest, an import, is shorter."""

READERS = 2
"""Threads that read. Loading is memory-bound under the interpreter's lock; two let a small load pass a large one."""

SCRUB_SECONDS = 10.0
SCRUB_BUSY_MS = 100
SCRUB_PAUSE = 0.1
"""How long erasing waits for those who read an older state of the database. It tries again and again, each time for so
many milliseconds, in which nobody writes, with a pause of so many seconds in between."""

VACUUM_BYTES = 256 * 1024 * 1024
"""The largest database that erasing writes anew: nobody else writes meanwhile, about a second for each 50 MB."""

WRITER_CACHE_KIB = 32 * 1024
"""SQLite's page cache of the appending connection. Each document has its own page at the end of its part of the
index; the default of 2 MB holds those of 500 documents only just."""

FILES_GONE = "the database file was removed or replaced, try again later"
"""What clients and ``/readyz`` are told while another file, or none, is under the database's name."""

_LOG = get_logger("store")

# Values no database of ours will ever take: only these end a document. All else (disk full, read-only, locked,
# damaged ...) is the operator's to repair, and the rows wait for it.
_REFUSED = frozenset({sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# The writer's row, too: a statement more would have to win the interpreter's lock back once more.
_HEADS = """
SELECT group_concat(id || ':' || head_seq), (SELECT batch FROM writers WHERE id = ?) FROM documents
WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""
_CHUNKS = (64, 16, 4, 1)
"""Rows of one statement: few sizes, so that Python keeps all of them prepared; 512 variables at most."""

_ADVANCE = {
    size: f"""
UPDATE documents SET head_seq = j.column2, updated_at = max(updated_at, j.column3)
FROM (VALUES {", ".join(["(?, ?, ?)"] * size)}) AS j WHERE documents.id = j.column1
"""
    for size in _CHUNKS
}
_INSERT = {
    size: "INSERT INTO log (document_id, seq, at, author, data, checksum) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * size)
    for size in _CHUNKS
}
_INSERT_NOTED = {
    size: "INSERT INTO log (document_id, seq, at, author, data, checksum, on_behalf_of, label) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * size)
    for size in _CHUNKS
}
_OWN = {
    size: "INSERT INTO client_owners (document_id, client, author, at, seq, clock) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * size)
    + " ON CONFLICT DO NOTHING"
    for size in _CHUNKS
}
_CALL = {
    size: "INSERT INTO guests (document_id, author, name, invited_by, seq) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?)"] * size)
    + " ON CONFLICT DO NOTHING"
    for size in _CHUNKS
}
_NUMBER = {
    size: "INSERT INTO producers (document_id, key, epoch, seq, at) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?)"] * size)
    + " ON CONFLICT (document_id, key) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, "
    f"at = CASE WHEN excluded.at > producers.at + {USED_SECONDS} THEN excluded.at ELSE producers.at END "
    "WHERE (excluded.epoch, excluded.seq) > (producers.epoch, producers.seq)"
    for size in _CHUNKS
}
_FORGET = f"""
DELETE FROM producers WHERE document_id = ? AND key IN (
  SELECT key FROM producers WHERE document_id = ? ORDER BY at DESC, key LIMIT -1 OFFSET {MAX_PRODUCERS}
)
"""
_KEEP = """
INSERT INTO pending (document_id, key, at, author, data) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_SETTLE = "DELETE FROM pending WHERE document_id = ? AND key = ?"
_CREATE = """
INSERT INTO documents (name, head_seq, gc, created_at, updated_at) VALUES (?, 0, 1, ?, ?)
ON CONFLICT (name) DO NOTHING
"""
_KEEP_DELETED = "UPDATE documents SET gc = 0 WHERE id = ? AND gc"
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
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    # What is deleted is overwritten: else all that pruning ever removed would stay in the file until its page is used.
    connection.execute("PRAGMA secure_delete = ON")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode.

    The busy time-out does not hold for this: of several connections that change a new file at once, SQLite tells
    all but one at once that it is locked, because each would wait for the others.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open a connection, in the state that :func:`configure` gives it.

    Without ``create`` there must be a file: an empty one in the place of one that was removed would only hide that.
    """
    # Before SQLite reads it into a database that is not its own.
    _tell_kept(Place(str(path)).set_aside_noted())
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}", uri=True, check_same_thread=False
    )
    try:
        configure(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _tell_kept(aside: str | None) -> None:
    if aside is not None:
        _LOG.warning("the log of the database that was replaced is kept as %s", aside)


def make_engine(opened: Callable[[], sqlite3.Connection]) -> Engine:
    """Make an engine whose transactions are explicit; with the option ``write`` they take the lock at their BEGIN.

    ``opened`` opens a connection.
    """
    engine = create_engine("sqlite+pysqlite://", creator=opened, poolclass=QueuePool, hide_parameters=True)

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
    result: StoreError = StoreRefused(text) if refused else StoreUnavailable(text)
    if code is not None and code & 0xFF in _DAMAGED:
        result = StoreDamaged(text)
    result.__cause__ = error
    return result


# See ``Backend.packed``.
_PACKED = text(
    "SELECT group_concat("
    "seq || ' ' || hex(data) || ' ' || CASE WHEN author IS NULL THEN '-' ELSE 'x' || hex(author) END"
    " || ' ' || coalesce(checksum, '-'), ',')"
    " FROM log WHERE document_id = :document AND seq > :after AND seq <= :until"
)

# Of all stores of this process, by the file: which documents they make snapshots of.
_CLAIMS: set[tuple[str, int]] = set()


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
                persistently(loop.call_soon_threadsafe, _deliver, future, result, error)
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

    def __init__(self, url: DatabaseUrl) -> None:
        assert url.path is not None
        self.url = url
        self._path = url.path
        self._name = os.path.realpath(url.path)  # two names of one file are one
        self.writer = Writer()
        self.packed = _PACKED
        self.shared = False
        self._writing = _Writer("collab-sqlite-write")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="collab-sqlite-read")
        self._engine = make_engine(self._connect)
        self._raw: sqlite3.Connection | None = None  # the writing thread's own
        self._version: int | None = None  # what SQLite counts on it when others write, at the last look
        # The files that all connections are on, and one that keeps them: SQLite removes the log with the last one.
        self._files: Files | None = None
        self._place = Place(str(url.path))
        self._keeper: sqlite3.Connection | None = None
        self._lost = False
        self._scrubbing = asyncio.Lock()
        self._scrubs_asked = self._scrubs_done = 0
        # Calls under way in the threads; connections are closed and opened anew between calls only.
        self._gate = threading.Condition()
        self._calls = 0

    def now(self) -> ColumnElement[float]:
        """See :class:`~collab.storage.backend.Backend`: it has the clock of this machine."""
        return literal(time.time())

    def check_whole(self, connection: Connection) -> None:
        """Do nothing: a restore of SQLite's is one transaction, or another file."""

    def pauses(self) -> Callable[[], None]:
        """See :class:`~collab.storage.backend.Backend`: the function runs in a thread."""
        return Pauses()

    def lock(self, connection: Connection, what: str, *, wait: bool = True) -> bool:
        """Give True: one transaction writes at a time."""
        return True

    async def run(self, function: Callable[[Connection], Result], mode: Mode) -> Result:
        """See :class:`~collab.storage.backend.Backend`."""

        def transact() -> tuple[Result, Files]:
            try:
                files = self._enter()
                try:
                    with (
                        self._engine.connect().execution_options(write=mode == "write") as connection,
                        connection.begin(),
                    ):
                        return function(connection), files
                finally:
                    self._leave()
            except CollabError:
                raise
            except (SQLAlchemyError, sqlite3.Error, OverflowError, OSError) as error:
                raise translate(error) from error

        if mode == "write":
            return await self._checked(self._writing.call(transact))
        return await self._checked(asyncio.get_running_loop().run_in_executor(self._reading, transact))

    async def append(self, batch: Sequence[Append], number: int, repeat: bool) -> list[AppendOutcome]:
        """See :class:`~collab.storage.backend.Backend`."""
        return await self._checked(self._writing.call(self._append, batch, number, repeat))

    @contextlib.asynccontextmanager
    async def claim(self, document_id: int) -> AsyncIterator[bool]:
        """See :class:`~collab.storage.backend.Backend`: one process serves a file, so its memory has the claims."""
        claim = (self._name, document_id)
        got = claim not in _CLAIMS
        if got:
            _CLAIMS.add(claim)
        try:
            yield got
        finally:
            if got:
                _CLAIMS.discard(claim)

    async def scrub(self) -> None:
        """See :class:`~collab.storage.backend.Backend`.

        Deleted bytes were overwritten in their pages (``secure_delete``), but SQLite also leaves copies of rows behind
        when it moves them from page to page. So the database is written anew, unless that takes too long. Then all
        pages go from the log into the database, and the log, which has older ones, is made empty. That waits for all
        who read an older state. One time is enough for all who have asked before it began.
        """
        self._scrubs_asked += 1
        mine = self._scrubs_asked
        async with self._scrubbing:
            if self._scrubs_done >= mine:
                return
            asked = self._scrubs_asked
            await self._scrub_all()
            self._scrubs_done = asked

    async def _scrub_all(self) -> None:
        if not await self._checked(self._writing.call(self._write_anew)):
            _LOG.warning(
                "the database is too large to be written anew at once: parts of what was erased may be left between "
                "its rows until you stop the server and run: sqlite3 %s VACUUM",
                self._path,
            )
        deadline = time.monotonic() + SCRUB_SECONDS
        while not await self._checked(self._writing.call(self._scrub)):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    "SQLite: somebody reads an older state of the database (a backup, maybe), so what was erased is "
                    "still in its log; erase it again"
                )
            await asyncio.sleep(SCRUB_PAUSE)

    async def changed(self) -> bool:
        """See :class:`~collab.storage.backend.Backend`."""
        return await self._checked(self._writing.call(self._changed))

    async def close(self) -> None:
        """See :class:`~collab.storage.backend.Backend`. Waits for what is being written."""

        await asyncio.to_thread(self._writing.stop)
        await asyncio.to_thread(self._reading.shutdown)
        self._close_connections()

    # The files.

    async def _checked(self, call: Awaitable[tuple[Result, Files]]) -> Result:
        """Give what a call has given, unless the files that it has worked on are under their names no more."""
        try:
            result, files = await call
        except StoreUnavailable as error:
            if self._files is not None and self._place.look() != self._files:
                raise self._note_lost(self._files) from error
            raise
        if not self._place.holds(files):
            raise self._note_lost(files)
        return result

    def _note_lost(self, files: Files) -> StoreUnavailable:
        """Let nothing go on before the files are back; give the error."""
        if files == self._files and not self._lost:
            self._lost = True
            _LOG.error(
                "the database file %s, or the log beside it, was removed or replaced while it is in use: nothing is "
                "called saved until it is back, or a backup is in its place",
                self._path,
            )
        return self._gone()

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(f"SQLite: {self._path} was removed or replaced while it is in use", public=FILES_GONE)

    def _enter(self) -> Files:
        """Begin a call in a thread, and give the files that it works on; :meth:`_leave` ends it."""
        with self._gate:
            if self._lost or self._files is None:
                while self._lost and self._calls:
                    self._gate.wait()
                if self._lost:
                    self._regain()
                if self._files is None:
                    self._open()
            self._calls += 1
            assert self._files is not None
            return self._files

    def _leave(self) -> None:
        with self._gate:
            self._calls -= 1
            if self._lost:  # else nobody waits
                self._gate.notify_all()

    def _open(self) -> None:
        self._place = Place(str(self._path))
        before = self._place.look()
        keeper = connect(self._path)
        try:
            keeper.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # opens the log, too
            files = self._place.look()
            if files.database != before.database or None in files:
                raise self._gone()
        except BaseException:
            keeper.close()
            raise
        self._keeper, self._files = keeper, files
        self._place.note(files)

    def _regain(self) -> None:
        """Go on with the files that are under the names now; raises ``StoreUnavailable`` if that cannot be."""
        found, files = self._place.look(), self._files
        if found.database is None:
            raise self._gone()
        if files is not None and found != files:
            if found.database == files.database:
                # Only the log was taken away. What it holds goes into the database, while it is open here.
                assert self._keeper is not None
                (busy, _, _) = self._keeper.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if busy:
                    raise self._gone()
            self._close_connections()
        if self._files is None:
            self._open()
        self._lost = False
        _LOG.warning("the database file %s is there again, and is used", self._path)

    def _close_connections(self) -> None:
        """Close all; no call is under way."""
        files, self._files = self._files, None
        self._forget()
        self._engine.dispose()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if files is not None and self._place.look().database not in (None, files.database):
            # SQLite leaves the log of a database that has moved where it is.
            _tell_kept(self._place.set_aside(files))
        if files is not None:
            self._place.drop_note()

    def _connect(self) -> sqlite3.Connection:
        """Open one more connection on the files that are in use."""
        if self._place.look() != self._files:
            raise self._gone()
        return connect(self._path)

    # In the writing thread.

    def _append(self, batch: Sequence[Append], number: int, repeat: bool) -> tuple[list[AppendOutcome], Files]:
        try:
            files = self._enter()
            try:
                raw = self._connection()
                try:
                    raw.execute("BEGIN IMMEDIATE")
                    if repeat:
                        known = self._recall(raw, batch, number)
                        if known is not None:
                            raw.execute("ROLLBACK")
                            return known, files
                    plan, heads = self._write(raw, batch)
                    raw.execute(_REMEMBER, (self.writer.id, number, encode_heads(heads), time.time()))
                    raw.execute("COMMIT")
                except BaseException:
                    # Whatever state a failed COMMIT leaves: closing rolls back what is not committed, and the
                    # repeat asks the file itself.
                    self._forget()
                    raise
            finally:
                self._leave()
        except CollabError:
            raise
        except (sqlite3.Error, OverflowError, MemoryError, OSError) as error:
            translated = translate(error)
            # What one document causes was met in its savepoint. A refusal of the transaction itself is not about
            # any row, so it must not cost one.
            raise StoreUnavailable(str(translated)) from error
        return outcomes(plan, heads), files

    def _write_anew(self) -> tuple[bool, Files]:
        """Write the whole database anew; False if it is too large for that."""
        try:
            files = self._enter()
            try:
                raw = self._connection()
                (pages,), (size,) = [raw.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size")]
                if pages * size > VACUUM_BYTES:
                    return False, files
                raw.execute("VACUUM")
            finally:
                self._leave()
        except sqlite3.Error as error:
            raise translate(error) from error
        return True, files

    def _scrub(self) -> tuple[bool, Files]:
        """Empty the log; False if somebody reads it."""
        try:
            files = self._enter()
            try:
                raw = self._connection()
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # nobody waits for most of it
                raw.execute(f"PRAGMA busy_timeout = {SCRUB_BUSY_MS}")
                try:
                    (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                finally:
                    raw.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
            finally:
                self._leave()
        except sqlite3.Error as error:
            raise translate(error) from error
        return not busy, files

    def _changed(self) -> tuple[bool, Files]:
        try:
            files = self._enter()
            if self._place.look() != files:
                self._note_lost(files)
            try:
                (version,) = self._connection().execute("PRAGMA data_version").fetchone()
            finally:
                self._leave()
        except sqlite3.Error as error:
            raise translate(error) from error
        before, self._version = self._version, version
        return version != before, files

    def _connection(self) -> sqlite3.Connection:
        if self._raw is None:
            raw = self._connect()
            try:
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
            self._version = None  # each connection counts from a number of its own

    def _recall(self, raw: sqlite3.Connection, batch: Sequence[Append], number: int) -> list[AppendOutcome] | None:
        """Give the outcomes of an attempt that had committed; None if it had not."""
        row = raw.execute(_RECALL, (self.writer.id,)).fetchone()
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
        found, batch_number = raw.execute(_HEADS, (self.writer.id, json.dumps(list(plan.documents)))).fetchone()
        if self.writer.went_back(batch_number):
            raise StoreWentBack(f"SQLite: {WENT_BACK}")
        heads = decode_heads(found)
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
        noted: list[Any] = []
        owners: list[Any] = []
        guests: list[Any] = []
        numbers: list[Any] = []
        fuller: dict[int, None] = {}  # documents with a producer that may be one too many
        advances: list[Any] = []
        changes: list[tuple[int, PendingChange]] = []
        batch = plan.batch
        for document_id, positions in plan.documents.items():
            seq = heads.get(document_id)
            if seq is None:
                continue
            newest = 0.0
            before = seq
            owned = visited = numbered = False
            for position in positions:
                entry = batch[position]
                if entry.owners:
                    owned = True
                if entry.guests:
                    visited = True
                if entry.producers:
                    numbered = True
                if entry.pending is not None:
                    changes.append((document_id, entry.pending))
                for data, at, author, checksum, note in entry.rows:
                    seq += 1
                    at = round(at * 1e6) / 1e6
                    if at > newest:
                        newest = at
                    by = None if author is None else encode_author(author)
                    if note is None:
                        rows += (document_id, seq, at, by, data, checksum)
                    else:
                        noted += (document_id, seq, at, by, data, checksum, *encode_note(note))
            advances += (document_id, seq, newest)
            for place, owner in plan.owners(document_id) if owned else ():
                at = round(owner.at * 1e6) / 1e6
                owners += (document_id, owner.client, encode_author(owner.author), at, before + place, owner.clock)
            for place, guest in plan.guests(document_id) if visited else ():
                guests += (document_id, *encode_guest(guest), before + place)
            for key, epoch, number, at, first in plan.producers(document_id) if numbered else ():
                numbers += (document_id, key, epoch, number, round(at * 1e6) / 1e6)
                if first:
                    fuller[document_id] = None
            if plan.keeps_deleted(document_id):
                raw.execute(_KEEP_DELETED, (document_id,))
        _execute_many(raw, _ADVANCE, advances, 3)
        _execute_many(raw, _INSERT, rows, 6)
        _execute_many(raw, _INSERT_NOTED, noted, 8)
        _execute_many(raw, _OWN, owners, 6)
        _execute_many(raw, _CALL, guests, 5)
        _execute_many(raw, _NUMBER, numbers, 5)
        for document_id in fuller:
            raw.execute(_FORGET, (document_id, document_id))
        for document_id, (added, settled) in changes:
            for key in settled:
                raw.execute(_SETTLE, (document_id, key))
            for key, data, at, author, _ in added:
                raw.execute(_KEEP, (document_id, key, round(at * 1e6) / 1e6, encode_author(author), data))

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
