"""The port of the timeline: what happened to a document, in entries of many rows.

Strategy: nothing is written for it when an edit is stored. Rows are **summarised** later, in portions and in order,
each in a transaction with the entries that come of it. An entry holds rows that follow on each other; how they are
grouped is decided here, for all stores, by ``fold``. The last entry of a document says how far it is summarised, so a
portion that was cut off is done again, and a server that died has lost nothing: a look at the heads finds what is
missing.

Entries stay when their rows are pruned: they say that something was there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from collab.authorship import Note

PAUSE_SECONDS: Final = 300.0
"""After so long without an edit the next one begins another entry, and the number before may become a version."""

HANDOVER_SECONDS: Final = 60.0
"""After so long somebody who has no part in the entry begins another one."""

LONGEST_SECONDS: Final = 3_600.0
"""An entry is no longer than this, however busy a document is."""

MAX_SHARES: Final = 50
"""Authors that one entry names; edits of further ones are counted together."""

MAX_ENTRIES: Final = 20_000
"""Entries of one document; the oldest ones go for newer ones."""

RESTORE: Final = "restore"
RESET: Final = "reset"
"""Labels of rows that stand in an entry of their own, which is marked with them; that of a restore may say more."""

_RESTORE: Final = re.compile(r"restore(?: number=(\d{1,18}))?(?: version=(\d{1,18}))?", re.ASCII)


class Restored(NamedTuple):
    """Which state a document was restored to: after a number of its log, or of a version; None: that is not known."""

    number: int | None
    version: int | None


def restore_label(number: int | None, version: int | None) -> str:
    """Make the label of the row that restores a state."""
    said = [f"{what}={value}" for what, value in (("number", number), ("version", version)) if value is not None]
    return " ".join((RESTORE, *said))


def read_restore_label(label: str | None) -> Restored | None:
    """Reverse ``restore_label``; None for another label."""
    found = None if label is None else _RESTORE.fullmatch(label)
    return None if found is None else Restored(*(None if part is None else int(part) for part in found.groups()))


def mark_of(label: str | None) -> str:
    """Tell with what the entry of a row with this label is marked; empty: with nothing."""
    return RESET if label == RESET else "" if read_restore_label(label) is None else RESTORE


class Share(NamedTuple):
    """How many edits (rows) of an entry are by one author, and for whom they were made, if that was said."""

    user: str | None
    on_behalf_of: str | None
    edits: int


class Entry(NamedTuple):
    """What happened in rows that follow on each other.

    Attributes:
        first, last: their numbers.
        started_at, ended_at: the times of the first and of the last of them, in unix seconds.
        nbytes: bytes of their updates.
        shares: who has made them, the one with the most edits first.
        others: edits of more authors than are named.
        mark: what ``mark_of`` gives; empty for usual edits.
    """

    first: int
    last: int
    started_at: float
    ended_at: float
    nbytes: int
    shares: tuple[Share, ...]
    others: int = 0
    mark: str = ""

    @property
    def edits(self) -> int:
        """How many rows it has."""
        return self.last - self.first + 1


class RowFacts(NamedTuple):
    """What an entry says of one row."""

    seq: int
    at: float
    author: str | None
    nbytes: int
    note: Note | None


class Page(NamedTuple):
    """A part of a timeline.

    Attributes:
        entries: the newest first.
        reaches: the lowest number from which on every state can be rebuilt.
        summarised: the number of the last row that is in an entry; 0: none is.
        head: the number of the newest row.
    """

    entries: list[Entry]
    reaches: int
    summarised: int
    head: int


class Summarised(NamedTuple):
    """What became of one portion.

    Attributes:
        left: rows that are in no entry yet.
        open_until: when a pause after the last row has become a pause, in unix seconds; None: that is so already.
    """

    left: int
    open_until: float | None


class Timelines(Protocol):
    """Keep what happened to documents; it goes with the content of a document that was deleted."""

    async def summarise(
        self, document_id: int, *, now: float, spacing: float | None, limit: int = 1_000
    ) -> Summarised | None:
        """Put up to ``limit`` rows that follow on the last entry into entries, in one transaction.

        The last number before a pause of ``PAUSE_SECONDS`` becomes an automatic version in that transaction, as
        ``Versions.make_automatic`` does it; ``now`` (unix seconds) says whether the last row is before one. With
        ``spacing`` None there are no automatic versions. Rows that were pruned before they were summarised are in no
        entry. Of more than ``MAX_ENTRIES`` the oldest go.

        Returns None if somebody else does this at the moment, or the document does not live.
        """
        ...

    async def timeline(self, document_id: int, *, before: int | None = None, limit: int = 100) -> Page:
        """Read entries whose first number is below ``before``, the newest first.

        It costs a look into an index for each of them, however many rows there are. Raises ``DocumentNotFound`` for a
        tombstone and an unknown id.
        """
        ...

    async def unsummarised(self, after: int, limit: int) -> tuple[list[int], int | None]:
        """Look at up to ``limit`` living documents with ids above ``after`` for rows that are in no entry.

        Gives those that have some, and the last id that was looked at; None if there are no more documents.
        """
        ...


@dataclass(slots=True)
class _Open:
    """The entry that rows are put into."""

    first: int
    last: int
    started_at: float
    ended_at: float
    nbytes: int = 0
    mark: str = ""
    others: int = 0
    shares: dict[tuple[str | None, str | None], int] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Entry) -> _Open:
        """Go on with an entry that is kept."""
        shares = {(share.user, share.on_behalf_of): share.edits for share in entry.shares}
        times = (entry.first, entry.last, entry.started_at, entry.ended_at)
        return cls(*times, entry.nbytes, entry.mark, entry.others, shares)

    def takes(self, row: RowFacts, mark: str) -> bool:
        """Tell whether the next row belongs to it."""
        if mark or self.mark or row.at - self.ended_at >= PAUSE_SECONDS or row.at - self.started_at >= LONGEST_SECONDS:
            return False
        return row.at - self.ended_at < HANDOVER_SECONDS or _who(row) in self.shares

    def add(self, row: RowFacts) -> None:
        """Put a row into it."""
        self.last = row.seq
        self.ended_at = max(self.ended_at, row.at)
        self.nbytes += row.nbytes
        who = _who(row)
        if who in self.shares or len(self.shares) < MAX_SHARES:
            self.shares[who] = self.shares.get(who, 0) + 1
        else:
            self.others += 1

    def entry(self) -> Entry:
        """Give it as it is kept."""
        shares = [Share(*who, edits) for who, edits in self.shares.items()]
        shares.sort(key=lambda share: -share.edits)
        times = (self.first, self.last, self.started_at, self.ended_at)
        return Entry(*times, self.nbytes, tuple(shares), self.others, self.mark)


class Folded(NamedTuple):
    """Entries that rows have come into: the first one may be a longer form of the one that was there."""

    entries: list[Entry]
    pauses: list[tuple[int, float]]
    """Numbers behind which there is a pause, with their times."""


def fold(last: Entry | None, rows: Iterable[RowFacts]) -> Folded:
    """Put rows, in order, behind the last entry there is. Numbers that are missing end an entry."""
    entries: list[Entry] = []
    pauses: list[tuple[int, float]] = []
    current = None if last is None else _Open.of(last)
    for row in rows:
        mark = mark_of(None if row.note is None else row.note.label)
        if current is None or row.seq != current.last + 1 or not current.takes(row, mark):
            if current is not None:
                entries.append(current.entry())
                if row.at - current.ended_at >= PAUSE_SECONDS:
                    pauses.append((current.last, current.ended_at))
            current = _Open(row.seq, row.seq, row.at, row.at, mark=mark)
        current.add(row)
    if current is not None:
        entries.append(current.entry())
    return Folded(entries, pauses)


def _who(row: RowFacts) -> tuple[str | None, str | None]:
    return row.author, None if row.note is None else row.note.on_behalf_of


def encode_said(entry: Entry) -> bytes:
    """Give what an entry says beside its numbers, as it is stored: JSON in ASCII."""
    said: dict[str, Any] = {"by": [list(share) for share in entry.shares]}
    if entry.others:
        said["others"] = entry.others
    if entry.mark:
        said["mark"] = entry.mark
    return json.dumps(said, separators=(",", ":")).encode()


def decode_said(data: bytes) -> tuple[tuple[Share, ...], int, str]:
    """Reverse ``encode_said``; what it has never given says nothing."""
    try:
        said = json.loads(data)
        shares = tuple(Share(*share) for share in said["by"])
        return shares, int(said.get("others", 0)), str(said.get("mark", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return (), 0, ""


def reaching(oldest_row: int | None, snapshots: Sequence[int], head: int) -> int:
    """Give the lowest number from which on every state can be rebuilt: the numbers of the snapshots are ascending."""
    if oldest_row == 1 or head == 0:
        return 1
    first = head + 1 if oldest_row is None else oldest_row
    return next((seq for seq in snapshots if seq >= first - 1), head + 1)


def closing(
    pauses: Sequence[tuple[int, float]], last: Entry | None, left: int, now: float
) -> tuple[list[tuple[int, float]], float | None]:
    """Give all numbers before a pause, also the one that is going on; and when that will be one."""
    if last is None or left:
        return list(pauses), None
    if now - last.ended_at >= PAUSE_SECONDS:
        return [*pauses, (last.last, last.ended_at)], None
    return list(pauses), last.ended_at + PAUSE_SECONDS
