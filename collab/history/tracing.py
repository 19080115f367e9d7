"""From the rows of a log to who has inserted and deleted what.

Strategy: what a row inserts has the ID of its author, and the server notes whose client IDs are (docs/decisions/0024).
What it deletes is what its integration deletes: it is charged to who has sent the row. Whatever cannot be known is
unknown, and never guessed: edits that were relayed by others, rows from before owners were noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from collab.history.attribution import UNKNOWN, Attribution, Marks, Owner, Row, Who
from collab.history.items import Items
from collab.history.ranges import RangeMap
from collab.update.reader import read_update

# Deletions that are put between the others in one go: each time costs as much as all of them.
_TOGETHER: Final = 20_000


class Tracer:
    """Follows a log from a state on.

    Args:
        base: the document before the first row, a v1 update.
        owners: whose client IDs are.
        attribution: what is known of the base; it is filled.

    Attributes:
        items: the document after the last row.
        attribution: what is known after the last row.

    Raises:
        UpdateError: the base is malformed, or only a part of a document.
    """

    def __init__(self, base: bytes, owners: Mapping[int, Owner], attribution: Attribution) -> None:
        self._owners = owners
        self.attribution = attribution
        self._marks = Marks(attribution.marks)
        self.items = Items()
        self.items.apply(read_update(base, stored=True))
        self.before = RangeMap()
        self.before.add_all((*ranges, 0) for ranges in self._deleted())
        self._deletions: list[tuple[int, int, int, int]] = []

    def follow(self, rows: Iterable[Row]) -> None:
        """Take in rows, in order.

        Raises:
            UpdateError: a row is malformed, or needs what is not there.
        """
        for row in rows:
            update = read_update(row.data, stored=True)
            known = {section.client: self.items.clock(section.client) for section in update.sections}
            self.items.apply(update)
            sender = Who(row.author, row.on_behalf_of, row.label)
            for client, clock in known.items():
                end = self.items.clock(client)
                if end > clock:
                    self._insert(client, clock, end, row, sender)
            if self.items.deleted:
                number = self._marks.number(sender, row.at)
                self._deletions += [(*ranges, number) for ranges in self._deleted()]
                if len(self._deletions) > _TOGETHER:
                    self._settle()
            self.attribution.seq = row.seq
        self._settle()

    def _insert(self, client: int, start: int, end: int, row: Row, sender: Who) -> None:
        """Say whose new clocks of a client are; what it has used before it was known to be somebody's is unknown."""
        insertions = self.attribution.insertions
        owner = self._owners.get(client)
        if owner is None:
            # An edit over HTTP that says something of itself is nobody's relay.
            noted = sender.on_behalf_of is not None or sender.label is not None
            who = sender if noted else UNKNOWN
            insertions.add(client, start, end, self._marks.number(who, row.at))
            return
        who = sender if owner.author is None else Who(owner.author)
        middle = min(max(start, owner.clock), end)
        if start < middle:
            insertions.add(client, start, middle, self._marks.number(UNKNOWN, row.at))
        if middle < end:
            insertions.add(client, middle, end, self._marks.number(who, row.at))

    def _deleted(self) -> list[tuple[int, int, int]]:
        """Take what was deleted since the last call."""
        deleted, self.items.deleted = self.items.deleted, []
        return deleted

    def _settle(self) -> None:
        """Add deletions to the others, but for those of what was deleted in the base: a row may name it again."""
        before = self.before
        self.attribution.deletions.add_all(
            (client, low, high, number)
            for client, start, end, number in self._deletions
            for low, high in before.missing(client, start, end)
        )
        self._deletions.clear()


def trace(
    base: bytes, rows: Iterable[Row], owners: Mapping[int, Owner], kept: Attribution | None = None
) -> Attribution:
    """Say who has inserted and deleted what, after rows, from what was ``kept`` for the base.

    Raises:
        UpdateError: something is malformed, or the rows do not follow on the base.
    """
    tracer = Tracer(base, owners, Attribution() if kept is None else kept)
    tracer.follow(rows)
    return tracer.attribution
