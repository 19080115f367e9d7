"""The largest of the stored documents, in their order.

Strategy: no column and no index has the size of a document, because each edit would have to write into them. So all
documents under a prefix are looked at, in pages of the catalogue: of each the newest snapshot and the rows behind it
are measured, never their content, and no other row of the log is touched. Between two pages the database has time for
edits. Only the first places of a ranking are kept in memory. One look goes on at a time. One that took long is used
again for some times as long as it took, so that those who ask cost the database a bounded part of its time; on a
database where that is quick everybody is told what there is now.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from collab.storage.catalogue import Catalogue
from collab.storage.records import DocumentSummary

# Documents that are looked at in one query.
_PAGE: Final = 200

# Places of a ranking that are kept, so that not each page of it costs a look at all documents.
_PLACES: Final = 2_000

# A look that took longer than so many seconds is used again, for so many times as long as it took.
_QUICK: Final = 0.25
_REUSED: Final = 10.0


class Place(NamedTuple):
    """Where a document stands: the larger comes first; of two alike, the one whose name has lower bytes."""

    negative: int
    name: bytes


class _Ranking(NamedTuple):
    """What a look has found: the places behind ``after`` in order, and whether there are more behind them."""

    prefix: str
    after: Place | None
    places: list[Place]
    found: dict[Place, DocumentSummary]
    more: bool
    until: float


class Largest:
    """Ranks stored documents by their bytes.

    Args:
        store: where they are.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, store: Catalogue, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._looking = asyncio.Lock()
        self._kept: _Ranking | None = None

    async def list(
        self, *, after: tuple[int, str] | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents whose name begins with ``prefix``, the largest first.

        ``after`` are the bytes and the name of the last document of the page before. A document that grows meanwhile
        moves to the front; one that stays as it is, is given exactly once, however many are as large.

        Raises:
            StoreUnavailable.
        """
        begin = None if after is None else Place(-after[0], after[1].encode())
        async with self._looking:
            ranking = self._kept
            if ranking is None or not self._serves(ranking, prefix, begin, limit):
                ranking = await self._look(prefix, begin, max(limit, _PLACES))
                self._kept = ranking if ranking.until else None
        first = 0 if begin is None else bisect_right(ranking.places, begin)
        return [ranking.found[place] for place in ranking.places[first : first + limit]]

    def _serves(self, ranking: _Ranking, prefix: str, begin: Place | None, limit: int) -> bool:
        if ranking.prefix != prefix or self._monotonic() > ranking.until:
            return False
        if ranking.after is not None and (begin is None or begin < ranking.after):
            return False
        first = 0 if begin is None else bisect_right(ranking.places, begin)
        return not ranking.more or len(ranking.places) - first >= limit

    async def _look(self, prefix: str, begin: Place | None, most: int) -> _Ranking:
        began = self._monotonic()
        places: list[Place] = []
        found: dict[Place, DocumentSummary] = {}
        more = False
        async for summary in _all(self._store, prefix):
            place = place_of(summary)
            if (begin is not None and place <= begin) or place in found:
                continue
            if len(places) == most:
                more = True
                if place >= places[-1]:
                    continue
                del found[places.pop()]
            insort(places, place)
            found[place] = summary
        ended = self._monotonic()
        took = ended - began
        return _Ranking(prefix, begin, places, found, more, ended + _REUSED * took if took > _QUICK else 0.0)


def place_of(summary: DocumentSummary) -> Place:
    """Give the place of a document among others."""
    return Place(-summary.stored_bytes, summary.document.name.encode())


async def _all(store: Catalogue, prefix: str) -> AsyncIterator[DocumentSummary]:
    after: str | None = None
    while page := await store.list_documents(after=after, prefix=prefix, limit=_PAGE):
        for summary in page:
            yield summary
        last = page[-1].document.name
        if after is not None and last.encode() <= after.encode():
            return  # a name that is no UTF-8, by which no page goes on
        after = last
