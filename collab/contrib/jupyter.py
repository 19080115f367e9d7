"""A store for jupyter-collaboration: what people write in notebooks goes into our log (docs/jupyter.md).

    c.YDocExtension.ystore_class = "collab.contrib.jupyter.CollabYStore"

Strategy: Jupyter's own server goes on as it is, and makes a ``BaseYStore`` for each document. All of one process share
one log: a SQLite file, or a PostgreSQL database. An update is in the journal before ``write`` awaits anything, so a
room that ends takes none with it; ``write`` returns after the commit. Now and then the log is compacted and
pruned as on a server of ours, so it does not grow with every keystroke for ever, and snapshots hold what they replace.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pycrdt
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from pycrdt.store import BaseYStore, YDocNotFound
from traitlets import Float, Int, Unicode
from traitlets.config import LoggingConfigurable

from collab.adapters import make_store
from collab.errors import CollabError, DocumentNotFound, StoreRefused, StoreUnavailable
from collab.hub.hub import DAY
from collab.hub.loading import load_document
from collab.protocol.sync import EMPTY_UPDATE
from collab.storage import migrate
from collab.storage.checksums import row_checksum, seal_snapshot
from collab.storage.journal import Journal
from collab.storage.lock import ServerLock, lock_database
from collab.storage.records import Append, Appended, AppendOutcome, NewRow, Snapshot
from collab.storage.store import Store
from collab.storage.urls import DatabaseUrl, parse_database_url
from collab.telemetry import get_logger, shown_name
from collab.update.compact import compact
from collab.update.merge import merge_updates
from collab.update.reader import Update, read_update
from collab.update.state_vector import encode_state_vector

_log = get_logger("jupyter")

_BACKLOG_BYTES = 64 << 20

# A Jupyter server that is restarted waits for the one before it; another one at the same time is told soon.
_LOCK_SECONDS = 5.0

_PAGE = 500
_PRUNED = 1_000

# The tail must also be this part of the snapshot: then compaction costs each edit the same, however large the document.
_COMPACT_RATIO = 0.5


@dataclass(slots=True)
class _Tail:
    """What this process knows of a document's log: its id, its newest row, and the rows behind its snapshot."""

    document_id: int | None = None
    seq: int = 0
    rows: int = 0
    nbytes: int = 0
    snapshot_bytes: int = 0


class SharedLog:
    """The log of one database, for all documents of this process; get it by ``SharedLog.of``."""

    _open: ClassVar[dict[tuple[str, asyncio.AbstractEventLoop], asyncio.Task[SharedLog]]] = {}

    def __init__(self, store: Store, lock: ServerLock | None) -> None:
        self.store = store
        self.tails: dict[str, _Tail] = {}
        self._lock = lock
        self._journal = Journal(store, backlog_bytes=_BACKLOG_BYTES)
        self._compacting: set[asyncio.Task[None]] = set()

    @classmethod
    async def of(cls, url: DatabaseUrl) -> SharedLog:
        """Give the log of a database, opened and migrated.

        Raises:
            StoreUnavailable: it cannot be opened; for a SQLite file, because another process has it, say.
            SchemaError: it is of a newer release.
        """
        key = (url.dsn, asyncio.get_running_loop())
        opening = cls._open.get(key)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = cls._open[key] = asyncio.create_task(cls._opened(url), name="the log of Jupyter")
        # Shielded: a room that ends meanwhile must not take the log from the others.
        return await asyncio.shield(opening)

    @classmethod
    async def _opened(cls, url: DatabaseUrl) -> SharedLog:
        lock = None
        if url.path is not None:
            try:
                lock = await lock_database(url.path, _LOCK_SECONDS)
            except StoreUnavailable as error:
                advice = "give each Jupyter server a file (db_path), or all of them one PostgreSQL (database_url)"
                raise StoreUnavailable(f"{error}. With Jupyter: {advice}") from None
        try:
            await asyncio.to_thread(migrate.upgrade, url)
            store = make_store(url)
            await store.open()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        made = cls(store, lock)
        await made._journal.start()
        return made

    @classmethod
    async def close_all(cls) -> None:
        """Write what is left and close all logs of this loop; a process that ends without it has lost nothing."""
        loop = asyncio.get_running_loop()
        for key in [key for key in cls._open if key[1] is loop]:
            opening = cls._open.pop(key)
            with contextlib.suppress(CollabError):
                await (await opening)._close()

    async def _close(self) -> None:
        if self._compacting:
            await asyncio.wait(self._compacting)
        unsaved = await self._journal.close(10.0)
        for name in unsaved:
            _log.error("not everything of the document %s could be stored", shown_name(name))
        await self.store.close()
        if self._lock is not None:
            self._lock.release()

    def append(self, name: str, data: bytes, policy: Policy) -> asyncio.Future[None]:
        """Take an update at once; what is returned is done when it is committed, or fails as the store says.

        Raises:
            StoreUnavailable: the database has failed for so long that no more is kept in memory.
        """
        if self._journal.full:
            raise StoreUnavailable("the database has failed for long, and what waits for it fills the memory for that")
        at = time.time()
        tail = self.tails.setdefault(name, _Tail())
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(outcome: AppendOutcome) -> None:
            error = None if isinstance(outcome, Appended) else outcome
            if isinstance(outcome, Appended):
                self._note(name, tail, outcome, len(data), policy)
            if committed.done():
                return
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)

        row = NewRow(data, at, checksum=row_checksum(data, None))
        self._journal.append(Append(name, tail.document_id, (row,)), done)
        return committed

    def _note(self, name: str, tail: _Tail, outcome: Appended, nbytes: int, policy: Policy) -> None:
        if tail.document_id is not None and outcome.first_seq != tail.seq + 1:
            _log.warning(
                "another server writes the document %s too: everything is kept, but each of them shows what the other "
                "has written only when the document was closed and opened again",
                shown_name(name),
            )
        tail.document_id, tail.seq = outcome.document_id, outcome.last_seq
        tail.rows += 1
        tail.nbytes += nbytes
        if tail.rows >= policy.rows and tail.nbytes >= _COMPACT_RATIO * tail.snapshot_bytes:
            tail.rows = 0  # else the next row would ask for it too
            task = asyncio.create_task(self._compact(name, tail, policy))
            self._compacting.add(task)
            task.add_done_callback(self._compacting.discard)

    async def load(self, name: str) -> bytes | None:
        """Read all of a document as one update; None if there is none.

        Raises:
            DamagedDocument: what is stored of it is damaged.
            DocumentDeleted: an operator has deleted it.
            StoreUnavailable: the database does not answer.
        """
        await self.until_committed(name)
        try:
            loaded, document = await load_document(self.store, name)
        except DocumentNotFound:
            return None
        snapshot, rows = loaded.snapshot, loaded.rows
        tail = self.tails.setdefault(name, _Tail())
        if tail.document_id != loaded.document.id or tail.seq <= loaded.document.head_seq:
            tail.document_id, tail.seq = loaded.document.id, loaded.document.head_seq
            tail.rows, tail.nbytes = len(rows), sum([len(row.data) for row in rows])
            tail.snapshot_bytes = 0 if snapshot is None else len(snapshot.data)
        if not document.waiting:
            return document.encode_state_as_update()
        # Rows that refer to what is not there: the library keeps them until it comes.
        parts = [*([] if snapshot is None else [snapshot.data]), *[row.data for row in rows]]
        return await asyncio.to_thread(merge_updates, parts)

    async def until_committed(self, name: str) -> None:
        """Return when nothing of a document waits for its commit."""
        await self._journal.until_answered(name)

    async def history(self, name: str) -> AsyncIterator[tuple[bytes, float]]:
        """Yield what is kept of a document, oldest first: a snapshot if rows before it were pruned, and the rows."""
        await self.until_committed(name)
        loaded = await self.store.load(name)
        if loaded is None:
            return
        document_id, seq = loaded.document.id, 0
        first = next(iter(await self.store.rows_after(document_id, 0, 1)), None)
        if first is None or first.seq > 1:
            kept = None if first is None else await self.store.load_at(document_id, first.seq)
            snapshot = loaded.snapshot if kept is None else kept[0]
            if snapshot is not None:
                seq = snapshot.seq
                yield snapshot.data, snapshot.at
        while rows := await self.store.rows_after(document_id, seq, _PAGE):
            for row in rows:
                yield row.data, row.at
            seq = rows[-1].seq

    async def _compact(self, name: str, tail: _Tail, policy: Policy) -> None:
        """Write a snapshot of all that is committed, and remove what is older than the history that is kept."""
        try:
            loaded, document = await load_document(self.store, name)
            if document.waiting:
                return
            at, whole, vector = time.time(), document.encode_state_as_update(), document.encode_state_vector()
            compacted = await asyncio.to_thread(compact, whole)
            unsealed = Snapshot(loaded.document.head_seq, compacted.data, compacted.index, vector, at)
            await self.store.write_snapshot(loaded.document.id, await asyncio.to_thread(seal_snapshot, unsealed))
            tail.snapshot_bytes = len(compacted.data)
            tail.nbytes = 0
            while await self.store.prune(before=at - policy.history, limit=_PRUNED):
                pass
        except CollabError as error:
            _log.warning("the document %s is not compacted now: %s", shown_name(name), error)
        except Exception:
            _log.exception("the document %s is not compacted", shown_name(name))


@dataclass(frozen=True, slots=True)
class Policy:
    """When a document is compacted, and for how long what was replaced is kept.

    Attributes:
        rows: updates after which a snapshot is considered.
        history: seconds.
    """

    rows: int
    history: float


class _Meta(type(LoggingConfigurable), type(BaseYStore)):  # type: ignore[misc]
    """Both base classes have a metaclass of their own."""


class CollabYStore(LoggingConfigurable, BaseYStore, metaclass=_Meta):
    """The updates of one document of jupyter-collaboration, in a log that several share.

    Args:
        path: names the document; Jupyter makes it from the file's ID.
        metadata_callback: is not asked. The log has its own times, and Jupyter reads nothing else.
        log: for traitlets.

    ``write`` returns after the commit. Errors of the log (``collab.errors.StoreError`` and those below it) pass to
    Jupyter, which ends the room and logs them.
    """

    db_path = Unicode(
        ".jupyter_collab.db",
        config=True,
        help="The SQLite file, for one Jupyter server at a time. A relative path begins in the directory where the "
        "server was started.",
    )
    database_url = Unicode(
        None,
        allow_none=True,
        config=True,
        help="Instead of a file: postgresql://user:password@host/database.",
    )
    history_days = Float(
        30.0, config=True, help="Days for which every state of a document can be rebuilt, for Jupyter's timeline."
    )
    compact_rows = Int(500, config=True, help="Updates of a document after which a snapshot is considered.")

    def __init__(
        self,
        path: str,
        metadata_callback: Callable[[], Awaitable[bytes] | bytes] | None = None,
        log: Logger | None = None,
        **options: Any,
    ) -> None:
        # What is no trait goes on to the other base class.
        super().__init__(path=path, **({} if log is None else {"log": log}), **options)
        self.path = path
        self.metadata_callback = metadata_callback
        self._document: pycrdt.Doc[Any] | None = None
        self._known: dict[int, int] = {}  # the state vector of what was written and read
        self._shared: SharedLog | None = None

    async def start(
        self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED, from_context_manager: bool = False
    ) -> None:
        """Run until `stop`, or until the room ends that has started it; see ``BaseYStore``."""
        try:
            await super().start(task_status=task_status, from_context_manager=from_context_manager)
        finally:
            if not from_context_manager:
                self._keep_the_rest()

    async def stop(self) -> None:
        """Stop, after all that was written is committed."""
        self._keep_the_rest()
        if self._shared is not None:
            await self._shared.until_committed(self.path)
        await super().stop()

    async def write(self, data: bytes) -> None:
        """Append an update (Yjs, v1) to the log; return when it is committed.

        Raises:
            UpdateError: it is no update, or one that no client could read.
            DocumentDeleted: an operator has deleted the document.
            StoreUnavailable, StoreRefused: it cannot be stored.
        """
        read = read_update(data, stored=True)
        if data == EMPTY_UPDATE:
            return
        log = self._shared or await self._log()
        committed = log.append(self.path, data, self._policy())
        self._note(read)
        try:
            await asyncio.shield(committed)
        except asyncio.CancelledError:
            committed.add_done_callback(_retrieve)  # it is on its way all the same
            raise

    async def read(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """Yield (update, metadata, unix seconds) of all that is kept, oldest first.

        Where the history was pruned, the first one is the state before what is left. Metadata is always empty.

        Raises:
            YDocNotFound: nothing was ever written.
            DocumentDeleted, StoreUnavailable: it cannot be read.
        """
        log, found = await self._log(), False
        async for data, at in log.history(self.path):
            found = True
            yield data, b"", at
        if not found:
            raise YDocNotFound

    async def apply_updates(self, ydoc: pycrdt.Doc[Any]) -> None:
        """Apply all that is stored to a document, as one update.

        Raises:
            YDocNotFound: nothing was ever written.
            DamagedDocument, DocumentDeleted, StoreUnavailable: it cannot be read.
        """
        self._document = ydoc
        loaded = await (await self._log()).load(self.path)
        if loaded is None:
            raise YDocNotFound
        ydoc.apply_update(loaded)
        self._note(read_update(loaded, stored=True))

    async def encode_state_as_update(self, ydoc: pycrdt.Doc[Any]) -> None:
        """Write what the log lacks of a document, and not all of it again; raises as `write`."""
        self._document = ydoc
        await self.write(ydoc.get_update(encode_state_vector(self._known)))

    async def _log(self) -> SharedLog:
        self._shared = await SharedLog.of(self._url())
        return self._shared

    def _url(self) -> DatabaseUrl:
        if self.database_url:
            return parse_database_url(self.database_url)
        return parse_database_url(f"sqlite:///{quote(str(Path(self.db_path).expanduser().absolute()))}")

    def _note(self, read: Update) -> None:
        """Take what an update holds into the state vector of what is stored."""
        for section in read.sections:
            known = self._known.get(section.client, 0)
            if section.count and section.clock <= known < section.end:
                self._known[section.client] = section.end

    def _policy(self) -> Policy:
        return Policy(max(1, self.compact_rows), self.history_days * DAY)

    def _keep_the_rest(self) -> None:
        """Put what the document has more than the log into the journal: the room ends, with writes not begun yet."""
        document, self._document = self._document, None
        if document is None or self._shared is None:
            return
        try:
            rest = document.get_update(encode_state_vector(self._known))
            if read_update(rest, stored=True).sections:
                self._shared.append(self.path, rest, self._policy()).add_done_callback(_retrieve)
        except (CollabError, RuntimeError, ValueError) as error:
            _log.error("the last edits of %s may not be stored: %s", shown_name(self.path), error)


def _retrieve(committed: asyncio.Future[None]) -> None:
    """Log what became of a row that nobody waits for."""
    if not committed.cancelled() and isinstance(error := committed.exception(), StoreRefused | CollabError):
        _log.error("the last edits of a document are not stored: %s", error)
