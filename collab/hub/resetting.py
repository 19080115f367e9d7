"""Resetting documents, and what a name keeps of those that are gone, so that no old copy brings anything back.

Strategy: a reset is one row (``update.reset``). It is computed from all that the log holds, in the sandbox, and written
on the condition that nothing came after that. If something came, it stays, as what people type meanwhile, and the same
row is tried behind it; but if that was a reset too, all is computed again. So of two resets at once, on any nodes, each
has a number of its own, and the later one replaces what the earlier one wrote. Rooms read the row from the log.

A name has a *skeleton*: what remains without content of documents that were deleted, or have left the name. It is
written before their content goes, and kept when they are erased; as long as they are in the trash, they are read. A
document that is created under the name begins with a reset of it; one that takes the name, by being renamed or
restored, is reset to its own content, unless it has all of that itself. So copies of those that were there have
nothing that the server does not know to be gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from collab.authorship import Note
from collab.engine.document import Document
from collab.errors import (
    DamagedDocument,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    SandboxError,
    UpdateError,
)
from collab.hub.loading import check_rows, read_document
from collab.hub.slices import in_slices
from collab.protocol.sync import EMPTY_UPDATE
from collab.storage.checksums import beside_the_loop, seal_row
from collab.storage.records import LoadedDocument, LogRow, NewRow, StoredDocument
from collab.storage.store import Store
from collab.storage.timeline import RESET
from collab.telemetry import get_logger, shown_name
from collab.update.reader import UpdateReader
from collab.update.reset import RESERVED, make_reset, make_skeleton

_log = get_logger("documents")

# Tries to write a row behind those that others write meanwhile, and times that a reset is computed.
_TRIES: Final = 200
_COMPUTED: Final = 5
# Rows read at once.
_ROWS: Final = 500
# Documents in the trash that had a name, the last ones: each has what remained of those before it.
_LAST: Final = 20

_Result = TypeVar("_Result")


class Stripping(Protocol):
    """Where a reset is computed: a part of ``collab.sandbox.port.Sandbox``."""

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """See ``Sandbox.reset``."""
        ...

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """See ``Sandbox.skeleton``."""
        ...


class InThread:
    """Computes resets in a thread of this process, for a command line; it is all on bytes, and harms nobody there."""

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """See ``Sandbox.reset``."""
        return await asyncio.to_thread(make_reset, documents, content, strict, known)

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """See ``Sandbox.skeleton``."""
        return await asyncio.to_thread(make_skeleton, documents, known)


class Written(Protocol):
    """The documents that are live on this node, as far as they are told of rows."""

    async def until_stored(self, name: str) -> None:
        """Return when everything that was taken of a document is in the store; at once if it is not live."""
        ...

    async def written(self, name: str, document_id: int, seq: int, author: str | None = None) -> None:
        """Read what was written of a document by a row, if it is live here; others are told to."""
        ...


class Beginning(NamedTuple):
    """What a document that is created begins with.

    Attributes:
        rows: its first rows.
        over: others had its name before.
        skeleton: what the name kept of them then.
    """

    rows: Sequence[NewRow]
    over: bool
    skeleton: bytes | None


class Reset(NamedTuple):
    """A reset that is in the log: its number, which no other reset of the document has, and the number of its row."""

    number: int
    seq: int


class Resetting:
    """Resets of documents by their names, and the skeletons of names.

    Args:
        store: where documents and skeletons are kept.
        sandbox: where resets are computed.
        rooms: those that are live on this node; None where there are none.
        clock: wall-clock time in Unix seconds.

    Attributes:
        before_reset: called with the id and the newest number of a document of which all content is about to go.
    """

    def __init__(self, store: Store, sandbox: Stripping, rooms: Written | None, clock: Callable[[], float]) -> None:
        self._store = store
        self._sandbox = sandbox
        self._rooms = rooms
        self._clock = clock
        self.before_reset: Callable[[int, int], Awaitable[None]] | None = None

    async def reset(
        self, name: str, *, content: bytes | None = None, strict: bool = False, author: str | None = None
    ) -> Reset:
        """Reset a document: all that is stored of it goes, and ``content`` takes its place.

        The document keeps its id, history and title. Who has it open goes on, and sees it change.

        Args:
            name: of the document.
            content: the new content, a v1 update of a whole document, with whatever client IDs; None: it is empty.
            strict: copies from before bring nothing at all, not even edits that were never seen.
            author: who the journal records as the author of the new content.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            UpdateError: the content is malformed, or only a part of a document.
            DocumentBusy: it could not be done now; nothing has changed.
            StoreUnavailable: it may have been done or not. Doing it again does no harm.
            StoreRefused: it is more than the store takes.
        """
        if content is not None:
            await in_slices(_check(content))
        done = await self._write(name, content, strict, author)
        _log.info("reset %s%s", shown_name(name), ", strictly" if strict else "")
        return done

    async def begin(self, name: str, update: bytes | None, author: str | None, at: float) -> Beginning:
        """Give what a document begins with that is created with ``update`` as its content.

        Where others had the name, that is a reset of what remains of these. Call ``finish`` when it is created.

        Raises:
            UpdateError: the content is only a part of a document, and others had the name.
            DocumentBusy, StoreUnavailable.
        """
        used = None
        over = await self._has_tombstone(name)
        if over:
            used = await self._store.skeleton(name)
            gone = await self._gone(name, used)
            if gone is not None:
                job = self._sandbox.reset([gone], update, False, None)
                update = await self._compute(job, "what had this name before cannot be read now")
                await in_slices(_apply(Document(), update))
        if update is None:
            return Beginning((), over, used)
        row = await beside_the_loop(len(update), partial(seal_row, update, at, author))
        return Beginning((row,), over, used)

    async def finish(self, name: str, beginning: Beginning) -> None:
        """Look whether another document has come and gone under a name while one was created."""
        if beginning.over and await self._store.skeleton(name) != beginning.skeleton:
            await self.take_over(name)

    async def remember(self, name: str) -> None:
        """Put what remains of a document into the skeleton of the name that it is about to leave, while it lives on.

        Raises:
            DocumentBusy, StoreUnavailable.
        """
        if self._rooms is not None:
            await self._rooms.until_stored(name)
        loaded = await self._store.load(name)
        if loaded is not None:
            document = await in_slices(read_document(name, loaded))
            await self.keep(name, document)

    async def keep(self, name: str, document: Document) -> None:
        """Join what remains of a document with the skeleton of a name; call it before the content goes.

        Raises:
            DocumentBusy, StoreUnavailable.
        """
        data = document.encode_state_as_update()
        for _ in range(_COMPUTED):
            was = await self._store.skeleton(name)
            made = await self._strip([data] if was is None else [was, data])
            if made == was or await self._store.replace_skeleton(name, was, made):
                return
        raise DocumentBusy(f"others change what remains of {name!r} at the same time")

    async def take_over(self, name: str, held_by: str | None = None) -> None:
        """Reset a document to its own content, if others have had a name that it has, or is about to be given.

        Nothing is done where it has all that they had, or where another one has that name. ``held_by`` is the name that
        it has now, if that is another one.

        Raises: as ``reset``.
        """
        if held_by is not None and not await self._has_tombstone(name):
            return
        gone = await self._gone(name, await self._store.skeleton(name))
        if gone is not None:
            await self._write(held_by or name, None, False, None, gone)

    # How it is done

    async def _write(
        self,
        name: str,
        content: bytes | None,
        strict: bool,
        author: str | None,
        gone: bytes | None = None,
    ) -> Reset:
        """Write the row of a reset; with what is ``gone``, to the document's own content, if it lacks some of that."""
        for _ in range(_COMPUTED):
            if self._rooms is not None:
                await self._rooms.until_stored(name)
            loaded = await self._store.load(name)
            if loaded is None:
                raise DocumentNotFound(f"there is no document {name!r}")
            document = await in_slices(read_document(name, loaded))
            whole, known = document.encode_state_as_update(), document.encode_state_vector()
            if gone is not None:
                tried = document.copy()
                await in_slices(tried.apply_update_in_slices(gone, stored=True))
                if tried.encode_state_vector() == known:
                    return Reset(document.resets, loaded.document.head_seq)  # it has had the name before
                content = whole
            job = self._sandbox.reset([whole] if gone is None else [whole, gone], content, strict, known)
            update = await self._compute(job, "it could not be computed")
            number = await in_slices(_apply(document.copy(), update))
            at, note = self._clock(), Note(label=RESET) if gone is None else None
            row = await beside_the_loop(len(update), partial(seal_row, update, at, author, note))
            if self.before_reset is not None and gone is None:
                await self.before_reset(loaded.document.id, loaded.document.head_seq)
            seq = await self._append(name, loaded.document, row, told=gone is None)
            if seq is not None:
                return Reset(number, seq)
        raise DocumentBusy(f"{name!r} was reset by others again and again", public="others reset it at the same time")

    async def _append(self, name: str, document: StoredDocument, row: NewRow, *, told: bool) -> int | None:
        """Write a row as ``write_behind`` does, and let the rooms read it."""
        seq = await write_behind(self._store, name, document.id, document.head_seq, row, reset=told)
        if seq is not None and self._rooms is not None:
            await self._rooms.written(name, document.id, seq, row.author)
        return seq

    async def _has_tombstone(self, name: str) -> bool:
        """Tell whether a name has had a document, and has none now."""
        try:
            await self._store.describe(name)
        except DocumentDeleted:
            return True
        except DocumentNotFound:
            return False  # one that has ever had a document has a tombstone at least
        return False

    async def _gone(self, name: str, kept: bytes | None) -> bytes | None:
        """Give what remains of all documents that had a name: its skeleton, and of those that are not in it yet."""
        remains, gone = kept, await self._store.list_trash(name=name, limit=_LAST)
        last = [(each.document.id, each.document.head_seq) for each in gone]
        if not last:
            # What an older release has deleted is in no trash.
            head = (await self._store.heads([name])).get(name)
            if head is not None and head.deleted and head.renamed_to is None:
                last.append((head.document_id, head.seq))
        for document_id, seq in last:
            content = await self._read(name, document_id, seq)
            if content is not None:
                remains = await self._strip([content] if remains is None else [remains, content])
        return None if remains == EMPTY_UPDATE else remains

    async def _read(self, name: str, document_id: int, seq: int) -> bytes | None:
        """Read the content of a document that has lost its name; None if it is pruned, or damaged."""
        found = await self._store.load_at(document_id, seq)
        if found is None:
            return None
        snapshot, rows = found
        stored = StoredDocument(document_id, name, seq, True, 0.0, 0.0)
        try:
            document = await in_slices(read_document(name, LoadedDocument(stored, snapshot, rows)))
        except DamagedDocument as error:
            _log.warning("what was under the name %s before cannot be read: %s", shown_name(name), error)
            return None
        return document.encode_state_as_update()

    async def _strip(self, documents: Sequence[bytes]) -> bytes:
        """Take the content out of documents. It must never be impossible: then nothing could be erased."""
        try:
            return await self._sandbox.skeleton(documents, None)
        except SandboxError as error:
            _log.warning("what remains of a document is found in this process: %s", error)
            return await InThread().skeleton(documents, None)

    async def _compute(self, job: Awaitable[_Result], public: str) -> _Result:
        try:
            return await job
        except SandboxError as error:
            raise DocumentBusy(f"not reset: {error}", public=f"{public}, come back later") from None


async def write_behind(
    store: Store, name: str, document_id: int, seq: int, row: NewRow, *, reset: bool = False
) -> int | None:
    """Write a row behind number ``seq`` and those that come meanwhile.

    Returns its number, or None if one of them is a reset: then it may not say any more what it is to. ``reset``: it
    takes content away, so receivers of webhooks are told of a reset.

    Raises:
        DocumentBusy: so much is written that it has found no place.
        StoreUnavailable: it may have been written or not. StoreRefused: it is more than the store takes.
    """
    for _ in range(_TRIES):
        if await store.append_next(document_id, seq, row, reset=reset):
            return seq + 1
        rows = await store.rows_after(document_id, seq, _ROWS)
        if not rows or rows[0].seq != seq + 1:
            return None  # deleted, or pruned meanwhile
        await in_slices(check_rows(name, rows))
        if await in_slices(_has_reset(rows)):
            return None
        seq = rows[-1].seq
    raise DocumentBusy(f"so much is written to {name!r} that a row found no place between it")


def _check(content: bytes) -> Generator[None, None, None]:
    """Read content that is to be new; raises UpdateError for all that a client could not send."""
    reader = UpdateReader(content)
    while not reader.step():
        yield


def _apply(document: Document, update: bytes) -> Generator[None, None, int]:
    """Apply a reset; return its number, or raise UpdateError if it waits for something that is not there."""
    applied = yield from document.apply_update_in_slices(update, stored=True)
    if applied.missing is not None:
        raise UpdateError("the new content is not whole", public="the content is a part of a document")
    return document.resets


def _has_reset(rows: Sequence[LogRow]) -> Generator[None, None, bool]:
    """Tell whether one of the rows has client IDs of resets."""
    for row in rows:
        reader = UpdateReader(row.data, stored=True)
        while not reader.step():
            yield
        if any(section.client >= RESERVED for section in reader.result.sections):
            return True
        yield
    return False
