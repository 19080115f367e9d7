"""Who wrote what in documents, as the store keeps it, and what is read of the log for that.

Strategy: an attribution is made of rows that come after the one that is kept, in portions, each of which is kept as
soon as it is made. So the work goes on where it ended, whoever has ended it, and each portion is bounded. A document
gets its own after each of its snapshots: the rows are still there then, and go only with the next snapshot but one.
When somebody asks for it, what is lacking is made first. Rows that are gone before anybody has looked at them leave
ranges of which nothing is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final, Protocol

from collab.errors import (
    CollabError,
    DamagedDocument,
    DecodeError,
    DocumentTooLarge,
    HistoryGone,
    is_refusal,
)
from collab.history.attribution import Owner, Row
from collab.history.rows import Rows, encode_line
from collab.history.tasks import Advance, Task
from collab.hub.guests import guest_names
from collab.hub.loading import check_rows, find_living
from collab.hub.rebuilding import Rebuilding
from collab.hub.slices import in_slices
from collab.storage.attributions import KeptAttribution
from collab.storage.checksums import beside_the_loop
from collab.storage.records import LogRow
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("attribution")

# Rows that are read at once, rows that are checked or pickled at once, and rows and bytes of a portion: about two
# seconds of a sandbox process. The document before the portion is read anew for each, so a large one has larger
# portions.
_PAGE: Final = 500
_AT_ONCE: Final = 125
_ROWS: Final = 5_000
_MOST_ROWS: Final = 50_000
_BYTES: Final = 8 * 1024 * 1024
_BYTES_FOR_ROW: Final = 100

MAX_INTERVAL_ROWS: Final = 200_000
"""Rows of an interval that is looked at as a whole."""
MAX_INTERVAL_BYTES: Final = 64 * 1024 * 1024
"""Bytes of such rows."""

_OWNERS: Final = 1_000

# Documents that may wait after their snapshots; one more is looked at after its next.
_MOST_DUE: Final = 10_000

MAX_PORTION_ROWS: Final = 2_000
"""Rows that are given in one answer; a client asks for those behind them."""
MAX_PORTION_BYTES: Final = 1024 * 1024
"""Bytes of such rows. A row that is longer is given alone."""
# Rows that are read at once for such an answer: each may be as long as a message.
_LINES: Final = 250


class LookingBack(Protocol):
    """What this needs of the sandbox."""

    async def look_back(self, task: Task) -> bytes:
        """See ``Sandbox.look_back``."""
        ...


class Attributing:
    """Keeps who wrote what.

    Args:
        store: where rows and attributions are.
        sandbox: where they are made.
        rebuilding: rebuilds states.
    """

    def __init__(self, store: Store, sandbox: LookingBack, rebuilding: Rebuilding) -> None:
        self._store = store
        self._rebuilding = rebuilding
        self._sandbox = sandbox
        self._working: dict[int, asyncio.Lock] = {}
        self._due: dict[str, None] = {}  # documents that have a new snapshot, in order
        self._busy = False

    async def rebuild(self, name: str, document_id: int, number: int) -> bytes:
        """Return a document after row ``number``, a v1 update. Raises as ``Rebuilding.at``."""
        return await self._rebuilding.encoded(name, document_id, number)

    async def rows(self, name: str, document_id: int, after: int, until: int) -> Rows:
        """Read the rows of an interval, (after, until].

        Raises:
            HistoryGone: some of them are pruned, or were never there.
            DocumentTooLarge: they are too many to be looked at as a whole.
            DamagedDocument, StoreUnavailable.
        """
        found = Rows()
        while after < until:
            page = await self._page(name, document_id, after, min(_PAGE, until - after))
            await _add(found, page)
            after = page[-1].seq
            if found.count > MAX_INTERVAL_ROWS or found.nbytes > MAX_INTERVAL_BYTES:
                public = f"too much has changed: an interval has up to {MAX_INTERVAL_ROWS} numbers"
                raise DocumentTooLarge(f"{found.count} rows of {name!r} are too many", public=public)
        return found

    async def lines(self, name: str, document_id: int, after: int, until: int) -> bytes:
        """Read the first rows of an interval, (after, until], as lines of JSON; see ``encode_line``.

        Raises:
            HistoryGone: some of them are pruned, or were never there.
            DamagedDocument, StoreUnavailable.
        """
        found: list[bytes] = []
        nbytes = 0
        while after < until and len(found) < MAX_PORTION_ROWS and nbytes < MAX_PORTION_BYTES:
            page = await self._page(name, document_id, after, min(_LINES, until - after))
            names = await guest_names(self._store, document_id, [row.author for row in page])
            for row in page:
                nbytes += len(row.data)
                if found and nbytes > MAX_PORTION_BYTES:
                    break
                found.append(await beside_the_loop(len(row.data), partial(encode_line, _as_row(row), names)))
            after = page[-1].seq
        return b"".join(found)

    async def owners(self, document_id: int) -> dict[int, Owner]:
        """Read whose the client IDs of a document are."""
        owners: dict[int, Owner] = {}
        after = -1
        while page := await self._store.client_owners(document_id, after, _OWNERS):
            owners.update((owner.client, Owner(owner.author, owner.clock)) for owner in page)
            after = page[-1].client
        return owners

    async def guests(self, document_id: int) -> dict[str, str]:
        """Read what the guests on a document are called."""
        return await self._store.guest_names(document_id)

    async def bring_up(self, name: str, document_id: int, until: int) -> KeptAttribution | None:
        """Make what is lacking up to row ``until``, keep it and return it; None for a document without rows.

        Raises:
            SandboxError: a portion could not be made; those before it are kept.
            DamagedDocument, StoreUnavailable, HistoryGone: rows cannot be read.
        """
        lock = self._working.setdefault(document_id, asyncio.Lock())
        try:
            async with lock:
                return await self._bring_up(name, document_id, until)
        finally:
            if not lock.locked():
                self._working.pop(document_id, None)

    async def after_snapshot(self, name: str) -> None:
        """Make what is lacking of a document that has a new snapshot; what cannot be done is done the next time.

        One document at a time, whoever calls: a node that unloads many must leave the sandbox to those who wait for it.
        """
        if len(self._due) < _MOST_DUE:
            self._due[name] = None
        if self._busy:
            return
        self._busy = True
        try:
            while self._due:
                name = next(iter(self._due))
                del self._due[name]
                await self._follow(name)
        finally:
            self._busy = False

    async def _follow(self, name: str) -> None:
        try:
            head = await find_living(self._store, name)
            await self.bring_up(name, head.document_id, head.seq)
        except CollabError as error:
            if not is_refusal(error):
                raise
            _log.warning("who wrote what in %s is not up to date: %s", shown_name(name), error)

    async def _bring_up(self, name: str, document_id: int, until: int) -> KeptAttribution | None:
        kept = await self._store.attribution(document_id)
        owners: Mapping[int, Owner] | None = None
        while kept is None or kept.seq < until:
            try:
                base = None if kept is None else await self.rebuild(name, document_id, kept.seq)
            except HistoryGone:
                kept, base = None, None  # it is so old that what follows on it is pruned
            after = 0 if kept is None else kept.seq
            if base is None:
                after = await self.first_row(document_id) - 1
                if after >= until:
                    return None
                base = await self.rebuild(name, document_id, after)
            count = min(max(_ROWS, len(base) // _BYTES_FOR_ROW), _MOST_ROWS)
            rows = await self._portion(name, document_id, after, min(until, after + count))
            if owners is None:
                owners = await self.owners(document_id)
            try:
                made = await self._sandbox.look_back(Advance(None if kept is None else kept.data, base, rows, owners))
            except DecodeError as error:
                if kept is None:
                    raise DamagedDocument(f"a row of {name!r} cannot be followed: {error}", name=name) from None
                _log.warning("who wrote what in %s begins anew: %s", shown_name(name), error)
                kept = None
                continue
            kept = KeptAttribution(after + rows.count, made)
            await self._store.keep_attribution(document_id, kept)
        return kept

    async def first_row(self, document_id: int) -> int:
        """Return the number of the oldest row that is kept; that of none yet if there is none."""
        rows = await self._store.rows_after(document_id, 0, 1)
        return rows[0].seq if rows else 1 << 62

    async def _portion(self, name: str, document_id: int, after: int, until: int) -> Rows:
        """Read rows up to ``until``, or fewer if they are long."""
        found = Rows()
        while after < until and found.nbytes < _BYTES:
            page = await self._page(name, document_id, after, min(_PAGE, until - after))
            await _add(found, page)
            after = page[-1].seq
        return found

    async def _page(self, name: str, document_id: int, after: int, most: int) -> list[LogRow]:
        """Read up to ``most`` rows behind ``after`` that are whole; there must be some, without a gap before them."""
        page = await self._store.rows_after(document_id, after, most)
        if not page or page[0].seq != after + 1:
            raise HistoryGone("the history of that time is not kept any more")
        for begin in range(0, len(page), _AT_ONCE):
            await in_slices(check_rows(name, page[begin : begin + _AT_ONCE]))
            await asyncio.sleep(0)
        return page


async def _add(found: Rows, page: list[LogRow]) -> None:
    """Put rows behind the others, and let the loop go on in between."""
    for begin in range(0, len(page), _AT_ONCE):
        found.add(list(map(_as_row, page[begin : begin + _AT_ONCE])))
        await asyncio.sleep(0)


def _as_row(row: LogRow) -> Row:
    note = row.note
    if note is None:
        return Row(row.seq, row.data, row.at, row.author)
    return Row(row.seq, row.data, row.at, row.author, note.on_behalf_of, note.label)
