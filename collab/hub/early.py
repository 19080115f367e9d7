"""Rows that have come before those which they follow on, kept for a moment until these come too.

Strategy: when several nodes write one document, what they say of it crosses. A row with the next number but one is no
sign of a loss then: the one before it is most likely under way. To read the log for each of them would cost several
times what the message has saved. So they wait here, with this node's own rows that were given a later number, until all
before them are in memory; the caller reads the log if that takes too long. Bounded for each room: what does not fit is
read.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collab.hub.room import LiveRoom
from collab.storage.records import LogRow

MAX_ROWS: Final = 200
MAX_BYTES: Final = 64 * 1024
"""Rows of one room that wait, and their bytes."""


class _Log(NamedTuple):
    """Which log numbers belong to: they mean nothing in another one."""

    document_id: int | None
    epoch: int


class _Waiting:
    """What waits of one room."""

    __slots__ = ("log", "nbytes", "rows")

    def __init__(self, log: _Log) -> None:
        self.log = log
        self.rows: dict[int, LogRow] = {}
        self.nbytes = 0


class EarlyRows:
    """Keeps rows for rooms that lack what comes before them."""

    def __init__(self) -> None:
        self._rooms: dict[LiveRoom, _Waiting] = {}

    def __contains__(self, live: LiveRoom) -> bool:
        return live in self._rooms

    def keep(self, live: LiveRoom, rows: list[LogRow]) -> bool:
        """Keep rows; return False if there is no room for them, and nothing of this room is kept any more."""
        log = _log_of(live)
        waiting = self._rooms.get(live)
        if waiting is None or waiting.log != log:
            waiting = self._rooms[live] = _Waiting(log)
        for row in rows:
            if row.seq not in waiting.rows:
                waiting.rows[row.seq] = row
                waiting.nbytes += len(row.data)
        if len(waiting.rows) > MAX_ROWS or waiting.nbytes > MAX_BYTES:
            del self._rooms[live]
            return False
        return True

    def take(self, live: LiveRoom) -> list[LogRow]:
        """Take those rows that follow on what a room holds now, in order; those that it holds by now are forgotten."""
        waiting = self._rooms.get(live)
        if waiting is None:
            return []
        found: list[LogRow] = []
        if waiting.log == _log_of(live):
            after = live.persistence.seq
            while (row := waiting.rows.get(after + len(found) + 1)) is not None:
                found.append(row)
            last = after + len(found)
            waiting.rows = {seq: row for seq, row in waiting.rows.items() if seq > last}
            waiting.nbytes = sum([len(row.data) for row in waiting.rows.values()])
            if waiting.rows:
                return found
        del self._rooms[live]
        return found

    def drop(self, live: LiveRoom) -> None:
        """Forget what waits of a room."""
        self._rooms.pop(live, None)


def _log_of(live: LiveRoom) -> _Log:
    return _Log(live.persistence.document_id, live.persistence.epoch)
