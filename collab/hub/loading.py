"""From what the store holds of a document to the document: nothing damaged gets through.

Strategy: checksums are compared before anything is read. What has none (an older release wrote it) and cannot be read
is damaged as well: the reader has taken every update before it was stored. Whatever is wrong here is the store's and
never the fault of the client that asks, which is told to come back; the operator is told which rows and what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Generator, Iterable, Sequence

from collab.engine.document import Document
from collab.engine.kept import make_key
from collab.errors import (
    DamagedDocument,
    DecodeError,
    DocumentDeleted,
    DocumentNotFound,
    DocumentRenamed,
    UpdateError,
)
from collab.hub.slices import in_slices
from collab.storage.checksums import LARGE_BYTES, is_damaged
from collab.storage.records import Head, LoadedDocument, LogRow, PendingUpdate
from collab.storage.store import Store
from collab.telemetry import shown_name
from collab.update.reader import UpdateReader

# Rows whose checksums are compared between two yields: about a millisecond.
_ROWS = 1_000

# Numbers that are written out in one message.
_SHOWN = 20

# Characters of a name that is written into a line to run.
_SHOWN_NAME = 100


def damaged(name: str, *, rows: Sequence[int] = (), snapshots: Sequence[int] = (), why: str = "") -> DamagedDocument:
    """Make the error for a document of which these rows and snapshots are damaged."""
    found = [_numbered("row", rows)] if rows else []
    found += [_numbered("snapshot", snapshots)] if snapshots else []
    what = f"{' and '.join(found)} of its log {'is' if len(rows) + len(snapshots) == 1 else 'are'} damaged"
    given = shlex.quote(name) if name.isprintable() and len(name) <= _SHOWN_NAME else "NAME"
    return DamagedDocument(
        f"{shown_name(name)} cannot be read: {what if found else why}; it stays closed to its clients, who keep their "
        f"edits. Look with: collab documents verify {given}; then: collab documents repair {given}",
        name=name,
        rows=rows,
        snapshots=snapshots,
    )


def _numbered(what: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"{what}{'s' if len(numbers) > 1 else ''} {shown}{more}"


def find_damaged(rows: Sequence[LogRow]) -> Generator[None, None, list[int]]:
    """Compare the checksums of rows, in slices; give the numbers of those that are damaged."""
    found: list[int] = []
    work = 0
    for row in rows:
        if is_damaged(row):
            found.append(row.seq)
        work += 1 + _ROWS * len(row.data) // LARGE_BYTES
        if work >= _ROWS:
            work = 0
            yield
    return found


def find_unreadable(rows: Sequence[LogRow]) -> Generator[None, None, list[int]]:
    """Read each row for itself, in slices; give the numbers of those that are no updates."""
    found: list[int] = []
    for at, row in enumerate(rows):
        try:
            reader = UpdateReader(row.data, stored=True)
            while not reader.step():
                yield
        except DecodeError:
            found.append(row.seq)
        if at % 100 == 99:
            yield
    return found


def is_unreadable(data: bytes) -> Generator[None, None, bool]:
    """Tell whether bytes are no update, in slices."""
    return bool((yield from find_unreadable([LogRow(0, data, 0.0, None)])))


def check_rows(name: str, rows: Sequence[LogRow]) -> Generator[None, None, None]:
    """Raise ``DamagedDocument`` if one of the rows is damaged."""
    found = yield from find_damaged(rows)
    if found:
        raise damaged(name, rows=found)


def is_damaged_pending(update: PendingUpdate) -> bool:
    """Tell whether an update that waits is not what was written: its key is made of its bytes."""
    return make_key(update.data) != update.key


def take_pending(document: Document, updates: Iterable[PendingUpdate]) -> None:
    """Take what is kept beside the log as far as what it waited for has come; what is damaged is left out.

    A server does this when it opens a document. It may have been killed between the commit of what came and that.
    """
    waiting = [update.data for update in updates if not is_damaged_pending(update)]
    new = True
    while new:  # one may have waited for another
        new = False
        for data in waiting:
            with contextlib.suppress(UpdateError):
                new = document.apply_update(data).new or new
    document.flush()


def read_document(name: str, loaded: LoadedDocument | None) -> Generator[None, None, Document]:
    """Make the document of what the store holds; a generator that yields about every millisecond.

    Raises:
        DamagedDocument: something of it is damaged, and nothing else says the same.
    """
    if loaded is None:
        return Document()
    snapshot, rows = loaded.snapshot, loaded.rows
    found = yield from find_damaged(rows)
    base = 0 if snapshot is None else snapshot.seq
    first = rows[0].seq if rows else loaded.document.head_seq + 1
    lost = loaded.passed_over if first > base + 1 else ()
    if found or lost:
        raise damaged(name, rows=found, snapshots=lost)
    data, index = (None, None) if snapshot is None else (snapshot.data, snapshot.index)
    yield
    try:
        return (yield from Document.load(data, index, [row.data for row in rows]))
    except DecodeError as error:
        why = str(error)
    found = yield from find_unreadable(rows)
    if snapshot is not None and ((yield from is_unreadable(snapshot.data)) or not found):
        lost = (snapshot.seq,)
    raise damaged(name, rows=found, snapshots=lost, why=why)


async def find_living(store: Store, name: str) -> Head:
    """Find a document by its name, without looking at how much is stored of it.

    Raises:
        DocumentNotFound, DocumentDeleted: there is no such document.
        StoreUnavailable: the store cannot be read now.
    """
    head = (await store.heads([name])).get(name)
    if head is None:
        raise DocumentNotFound(f"there is no document {name!r}")
    if head.renamed_to is not None:
        raise DocumentRenamed(f"document {name!r} was renamed")
    if head.deleted:
        raise DocumentDeleted(f"document {name!r} is deleted")
    return head


async def load_document(store: Store, name: str) -> tuple[LoadedDocument, Document]:
    """Read all that is committed of a document, beside its room; deleted content as far as it is kept.

    Raises:
        DocumentNotFound, DocumentDeleted: there is no such document.
        DamagedDocument: it cannot be read.
        StoreUnavailable: it cannot be read now.
    """
    loaded = await store.load(name)
    if loaded is None:
        raise DocumentNotFound(f"there is no document {name!r}")
    document = await in_slices(read_document(name, loaded))
    if loaded.pending:
        await asyncio.to_thread(take_pending, document, loaded.pending)
    return loaded, document
