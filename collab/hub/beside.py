"""What is kept of a document beside its log: looked at, and made anew from the log where that can be done.

Strategy: none of it is needed to serve a document, so none has a checksum of its own but the states of versions. It is
unsound where it says what cannot be: an owner of a client ID by a row that never was, entries of the timeline that
overlap, or leave out rows that are kept, a receiver that was told of rows that nobody has written. ``collab.hub.
maintenance`` does the looking and the repairing; what is replaced is kept in files there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from collab.errors import CollabError
from collab.hub.loading import is_unreadable
from collab.hub.rebuilding import Rebuilding, encode
from collab.hub.slices import in_slices
from collab.storage.checksums import beside_the_loop, seal_snapshot
from collab.storage.maintenance import KeptEntry, Maintenance
from collab.storage.records import ClientOwner, LogRow, Snapshot, StoredDocument
from collab.storage.timeline import MAX_ENTRIES, RowFacts, decode_said, encode_said, fold
from collab.update.compact import compact

_PAGE: Final = 1_000

_MOST: Final = 1 << 53
"""Above all client IDs and clocks."""

_AHEAD: Final = 86_400.0
"""Seconds that clocks may differ by."""

_LOWEST: Final = -(1 << 63)
"""Below every number that a database keeps."""


class Span(NamedTuple):
    """Rows that follow on each other."""

    first: int
    last: int


async def _head(store: Maintenance, document: StoredDocument) -> int:
    """Give the number of the newest row now: a server may have written since the document was read."""
    head = (await store.heads([document.name])).get(document.name)
    return document.head_seq if head is None or head.document_id != document.id else head.seq


# Owners of client IDs


async def find_unsound_owners(store: Maintenance, document: StoredDocument) -> list[int]:
    """Give client IDs whose owner cannot be: by a row that never was, an ID or a clock that no client has."""
    late: list[ClientOwner] = []
    found: list[int] = []
    async for owner in _owners(store, document.id):
        if not (0 <= owner.client < _MOST and 0 <= owner.clock < _MOST and owner.seq >= 1):
            found.append(owner.client)
        elif owner.seq > document.head_seq:
            late.append(owner)
    head = await _head(store, document) if late else 0
    return sorted([*found, *(owner.client for owner in late if owner.seq > head)])


async def owners_of(store: Maintenance, document_id: int, clients: Sequence[int]) -> list[ClientOwner]:
    """Read the owners of some client IDs."""
    wanted = set(clients)
    return [owner async for owner in _owners(store, document_id) if owner.client in wanted]


async def _owners(store: Maintenance, document_id: int) -> AsyncIterator[ClientOwner]:
    after = _LOWEST
    while page := await store.client_owners(document_id, after, _PAGE):
        for owner in page:
            yield owner
        after = page[-1].client


# The timeline


class Timeline(NamedTuple):
    """What is wrong with the timeline of a document: entries that cannot be, and kept rows that are in none."""

    unsound: list[KeptEntry]
    gaps: list[Span]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.unsound or self.gaps)


async def look_at_timeline(store: Maintenance, document: StoredDocument, kept: Sequence[Span]) -> Timeline:
    """Look at the entries of a document. ``kept`` are the rows of the log that are there, in order.

    Rows behind the last entry are in none yet. Those before the first one may have been dropped, where there are as
    many entries as there may be.
    """
    unsound: list[KeptEntry] = []
    gaps: list[Span] = []
    reached, count, after = 0, 0, _LOWEST
    while page := await store.kept_entries(document.id, after, _PAGE):
        for entry in page:
            count += 1
            sound = (
                reached < entry.first <= entry.last
                and (entry.last <= document.head_seq or entry.last <= await _head(store, document))
                and entry.started_at <= entry.ended_at
                and entry.nbytes >= 0
                and _rows_said(entry) == entry.last - entry.first + 1
            )
            if not sound:
                unsound.append(entry)
                continue
            if entry.first > reached + 1:
                gaps.append(Span(reached + 1, entry.first - 1))
            reached = entry.last
        after = page[-1].first
    # What is behind the last sound entry is summarised anew, once what is unsound is gone.
    if count >= MAX_ENTRIES - 1 and gaps and gaps[0].first == 1:
        del gaps[0]
    return Timeline(unsound, [part for gap in gaps for part in _shared(gap, kept)])


def _rows_said(entry: KeptEntry) -> int:
    """Count the rows of those who are said to have made the rows of an entry."""
    shares, others, _ = decode_said(entry.data)
    try:
        return sum(share.edits for share in shares) + others
    except TypeError:
        return 0  # that is no number


def _shared(gap: Span, kept: Sequence[Span]) -> list[Span]:
    found = [Span(max(gap.first, span.first), min(gap.last, span.last)) for span in kept]
    return [span for span in found if span.first <= span.last]


async def entries_for(store: Maintenance, document: StoredDocument, gap: Span) -> list[KeptEntry]:
    """Make the entries for rows that are kept."""
    facts: list[RowFacts] = []
    after = gap.first - 1
    while after < gap.last and (page := await store.kept_rows(document.id, after, _PAGE)):
        facts += [_facts(row) for row in page if row.seq <= gap.last]
        after = page[-1].seq
    return [
        KeptEntry(entry.first, entry.last, entry.started_at, entry.ended_at, entry.nbytes, encode_said(entry))
        for entry in fold(None, facts).entries
    ]


def _facts(row: LogRow) -> RowFacts:
    return RowFacts(row.seq, row.at, row.author, len(row.data), row.note)


# Webhooks


async def find_unsound_cursor(store: Maintenance, document: StoredDocument) -> int | None:
    """Give up to which row receivers of webhooks were told, if there is no such row; None if all is well.

    Nobody would be told of any edit up to that number.
    """
    cursor = await store.kept_cursor(document.id)
    if cursor is None or 0 <= cursor <= document.head_seq or 0 <= cursor <= await _head(store, document):
        return None
    return cursor


async def find_unsound_mark(store: Maintenance, document: StoredDocument, now: float) -> float | None:
    """Give since when receivers of webhooks have to be told, if that is days ahead; None if all is well.

    Until then they would be told of nothing. A mark that is missing is found by servers themselves.
    """
    mark = await store.kept_mark(document.id)
    return None if mark is None or mark < now + _AHEAD else mark


# Skeletons

UNSOUND_SKELETON: Final = "what is remembered of documents that had the name %s and are gone is damaged"


async def find_unsound_skeletons(store: Maintenance) -> list[tuple[str, bytes]]:
    """Give names whose skeleton cannot be read, each with its bytes."""
    found: list[tuple[str, bytes]] = []
    after = b""
    while page := await store.kept_skeletons(after, _PAGE):
        for name, data in page:
            if await in_slices(is_unreadable(data)):
                found.append((name.decode(errors="backslashreplace"), data))
        after = page[-1][0]
    return found


# States of versions


class Remade(NamedTuple):
    """The state of a version, made anew; None where that cannot be done, with the reason."""

    state: Snapshot | None
    why: str


async def remake_state(store: Maintenance, document: StoredDocument, version_id: int) -> Remade:
    """Make the state of a version anew from the rows and snapshots that are kept.

    It is taken only if it is what was written: its checksum is that of the damaged one. Where nothing is left of that,
    there is nothing to compare with, and the rows alone say what it is, each by its own checksum.
    """
    number = await store.kept_number(version_id)
    if number is None:
        return Remade(None, "there is no such version any more")
    if number == 0:
        return Remade(None, "it was imported, and is nowhere else")
    was = await store.kept_state(version_id)
    try:
        rebuilt = await Rebuilding(store).at(document.name, document.id, number)
        data = await encode(rebuilt)
        for gc in (document.gc, not document.gc):
            made = await asyncio.to_thread(partial(compact, data, gc=gc))
            at = 0.0 if was is None else was.at
            unsealed = Snapshot(number, made.data, made.index, rebuilt.encode_state_vector(), at)
            state = await beside_the_loop(len(made.data), partial(seal_snapshot, unsealed))
            if was is None or was.checksum is None or was.checksum == state.checksum:
                return Remade(state, "")
    except CollabError as error:
        return Remade(None, f"the rows and snapshots that are kept do not give it: {error}")
    return Remade(None, "the rows and snapshots that are kept give another one")
