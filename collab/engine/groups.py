"""Rows of the log, joined into updates for one client that lacks them: each leads to a state that existed.

Strategy: a client that has the state after row n, or anything that holds it, is given the rows behind n in their order,
many joined in one update. Each update ends where a turn ended, so what the client shows after it is what the room has
shown: no transaction is ever seen in part. All deletions of the rows go along, also those of rows whose structs the
client has, because a state vector says nothing of deletions.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from collab.errors import UpdateError
from collab.update.delete_set import DeleteSet
from collab.update.merge import Run, cut_section, encode_runs
from collab.update.reader import Update, UpdateReader, read_update
from collab.update.state_vector import StateVector

# Rows of this size are read in slices: 4 KB are 0.3 ms.
_LARGE: Final = 4096

# Structs, ranges between two yields: about a millisecond.
_WORK: Final = 500


class LogGap(UpdateError):
    """A row refers to what neither the client nor the rows before it hold."""


class RowGroup:
    """Rows that are joined for one client.

    Args:
        known: what the client has; not changed.
        deletes: what was deleted in the state after the row before the first.

    Attributes:
        size: about how many bytes `take` will give.
        empty: nothing was kept yet.
    """

    __slots__ = ("_ahead", "_deletes", "_known", "_runs", "_turn", "empty", "size")

    def __init__(self, known: Mapping[int, int], deletes: DeleteSet | None = None) -> None:
        self._known = known
        self._ahead: StateVector = {}  # of the clients in the rows that were kept
        self._runs: dict[int, list[Run]] = {}
        self._deletes = DeleteSet() if deletes is None else deletes
        self._turn: list[Update] = []
        self.size = 0
        self.empty = True

    def add(self, row: bytes) -> Generator[None, None, None]:
        """Add a row to the turn that is being gathered; yields about every millisecond.

        Raises:
            UpdateError: it is damaged.
        """
        if len(row) < _LARGE:
            self._turn.append(read_update(row, stored=True))
            return
        reader = UpdateReader(row, stored=True)
        while not reader.step():
            yield
        self._turn.append(reader.result)

    def turn_size(self) -> int:
        """Return about how many bytes of the gathered turn the client lacks."""
        size = 0
        ahead: StateVector = {}
        for update in self._turn:
            for section in update.sections:
                known = ahead.get(section.client, self._clock(section.client))
                if section.count and section.end > known:
                    ahead[section.client] = section.end
                    size += (section.stop - section.start) * (section.end - known) // (section.end - section.clock)
            size += len(update.data) - update.deletes_start
        return size

    def keep(self) -> Generator[None, None, None]:
        """End the gathered turn: what it holds goes into the group; yields about every millisecond.

        Raises:
            LogGap: it does not follow on what the client has.
        """
        self.size += self.turn_size()
        self.empty = False
        work = 0
        turn, self._turn = self._turn, []
        for update in turn:
            for section in update.sections:
                work += 1 + (section.stop - section.start >> 10)
                if work >= _WORK:
                    work = 0
                    yield
                client = section.client
                known = self._clock(client)
                if not section.count or section.end <= known:
                    continue
                if section.clock > known:
                    raise LogGap(f"clock {known} of client {client} is in no row")
                self._runs.setdefault(client, []).append(cut_section(update.data, section, known, section.end))
                self._ahead[client] = section.end
            for entry in update.deletes:
                for at in range(0, len(entry.ranges), 2):
                    self._deletes.add(entry.client, entry.ranges[at], entry.ranges[at] + entry.ranges[at + 1])
                    work += 1
                    if work >= _WORK:
                        work = 0
                        yield

    def _clock(self, client: int) -> int:
        clock = self._ahead.get(client)
        return self._known.get(client, 0) if clock is None else clock

    def take(self) -> tuple[bytes, StateVector]:
        """Return the update, and what the client has with it."""
        return encode_runs(self._runs, self._deletes.encode()), {**self._known, **self._ahead}
