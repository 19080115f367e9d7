"""What happened to documents: rows are summarised some time after they were written, and read in pages.

Strategy: a commit only counts that its document has new rows. They are put into entries when there are many of them,
after some minutes, or when somebody asks. So an edit pays for nothing, and whoever asks waits for some hundred rows at
most. What this node was never told of (an older release has written it, or a server that died) is found by a look at
all documents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from collab.errors import StoreError
from collab.hub.guests import guest_names
from collab.hub.loading import find_living
from collab.storage.store import Store
from collab.storage.timeline import PAUSE_SECONDS, Page
from collab.telemetry import get_logger

_log = get_logger("timeline")

# Commits after which the rows of a document are summarised without waiting: a few portions.
_COMMITS: Final = 1_000

# Seconds between looks for documents whose time has come, and between looks for those that nobody has told of.
_PAUSE: Final = 10.0
_LOOK: Final = 3_600.0

# Rows of a portion: two milliseconds, in which others can neither write nor have the interpreter. Seconds between two
# portions.
_ROWS: Final = 250
_BREATH: Final = 0.005

# Documents that are looked at in one query.
_DOCUMENTS: Final = 500

# Portions of rows that somebody waits for who asks for a timeline.
_PORTIONS: Final = 16


class _Due(NamedTuple):
    """When the rows of a document are summarised, by the clock, and how many commits there were."""

    at: float
    commits: int


class Asked(NamedTuple):
    """A page of a timeline, with the id of the document that it is of, and what guests in it are called."""

    document_id: int
    page: Page
    guests: Mapping[str, str]


class Timelines:
    """Fills and reads timelines.

    Args:
        store: where they are kept.
        clock: wall-clock time in Unix seconds.
        spacing: seconds between two automatic versions; None: there are none.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time, spacing: float | None = None) -> None:
        self._store = store
        self._clock = clock
        self._spacing = spacing
        self._due: dict[int, _Due] = {}

    def changed(self, document_id: int) -> None:
        """Note that rows of a document were committed."""
        due = self._due.get(document_id)
        if due is None:
            self._due[document_id] = _Due(self._clock() + PAUSE_SECONDS, 1)
        else:
            self._due[document_id] = _Due(0.0 if due.commits >= _COMMITS else due.at, due.commits + 1)

    @property
    def waiting(self) -> int:
        """How many documents have rows that are to be summarised, as far as this node knows."""
        return len(self._due)

    async def page(self, name: str, *, before: int | None = None, limit: int = 100) -> Asked:
        """Read a part of a timeline, the newest entries first; see ``Store.timeline``.

        Rows that are in no entry yet are summarised first, as far as that takes no longer than some tens of
        milliseconds; ``Page.summarised`` says how far it has come.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            StoreUnavailable: the store cannot be read now.
        """
        document_id = (await find_living(self._store, name)).document_id
        page = await self._store.timeline(document_id, before=before, limit=limit)
        if before is not None or page.summarised >= page.head:
            return await self._named(document_id, page)
        for _ in range(_PORTIONS):
            if not await self._portion(document_id):
                break
        else:
            self._due[document_id] = _Due(0.0, _COMMITS)
        return await self._named(document_id, await self._store.timeline(document_id, limit=limit))

    async def _named(self, document_id: int, page: Page) -> Asked:
        users = [share.user for entry in page.entries for share in entry.shares]
        return Asked(document_id, page, await guest_names(self._store, document_id, users))

    async def fill_forever(self) -> None:
        """Summarise what is due, for as long as the server runs."""
        looked = float("-inf")
        while True:
            try:
                if self._clock() - looked >= _LOOK:
                    looked = self._clock()
                    await self._look()
                for document_id, due in list(self._due.items()):
                    if due.at <= self._clock():
                        await self._fill(document_id)
            except StoreError as error:
                _log.debug("timelines are filled later: %s", error)
            await asyncio.sleep(_PAUSE)

    async def _look(self) -> None:
        """Find documents with rows in no entry."""
        after: int | None = 0
        while after is not None:
            found, after = await self._store.unsummarised(after, _DOCUMENTS)
            for document_id in found:
                self._due.setdefault(document_id, _Due(self._clock(), 0))
            await asyncio.sleep(_BREATH)

    async def _fill(self, document_id: int) -> None:
        """Summarise all rows of a document, in portions."""
        self._due.pop(document_id, None)
        more = True
        while more:
            more = await self._portion(document_id)
            await asyncio.sleep(_BREATH)

    async def _portion(self, document_id: int) -> bool:
        """Summarise some rows; tell whether there are more. What is to be done later is noted."""
        now = self._clock()
        done = await self._store.summarise(document_id, now=now, spacing=self._spacing, limit=_ROWS)
        if done is None:
            return False  # somebody else is at it, or it was deleted
        if not done.left and done.open_until is not None and self._spacing is not None:
            # The pause that goes on may become a version.
            self._due[document_id] = _Due(max(done.open_until, now + 1.0), 0)
        return done.left > 0
