"""The presence of one room as a stream that readers pull.

Strategy: presence is state, so a reader holds one number, the turn up to which it was told everything, and gets the
newest state of each client that has changed since. A reader that is slow gets fewer states and never an older one, and
nothing waits for it. All who are at the end are handed the same batch.

Turns are counted by the room, so a position is good for this room in this memory. It is told with an epoch. A reader
with any other one, of another node or from before a restart, is told all states once more and the removals that are
remembered. Clients take that: a clock that they know says nothing.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

from collab.engine.awareness import AwarenessStates
from collab.errors import DecodeError
from collab.hub.readers import LevelReaders, Sink
from collab.protocol.streams import Batch, Begin, encode_frame

# Batches that are kept, until a turn ends, for readers that have the same position.
_KEPT: Final = 8

# Stand for turns, which are counted from 1: of a reader that begins, and of one whose position is of another memory.
_BEGINNING: Final = 0
_ELSEWHERE: Final = -1

_FINE: Final = 1_000

_POSITION = re.compile(r"([0-9]{20})_([0-9]{16})", re.ASCII)


class Position(NamedTuple):
    """A place in a stream of presence: the memory that it is of, and the number of what comes next."""

    epoch: int
    number: int


PresenceStart = Position | Begin


def new_epoch(at: float) -> int:
    """Make the epoch of a memory that begins at a time, in Unix seconds; no other one has it, and later ones rise."""
    return int(at * 1_000_000) * _FINE + secrets.randbelow(_FINE)


def encode_position(position: Position) -> str:
    """Encode a position as an offset; those of one memory are ordered like their numbers."""
    return f"{position.epoch:020d}_{position.number:016d}"


def decode_position(text: str) -> PresenceStart:
    """Decode what a client gives as its offset in a stream of presence, which has no snapshots.

    Raises:
        DecodeError: it is none.
    """
    if found := _POSITION.fullmatch(text):
        return Position(int(found[1]), int(found[2]))
    if text in (Begin.BEGINNING.value, Begin.NOW.value):
        return Begin(text)
    error = DecodeError("no offset of a stream of presence")
    error.public = "the offset is none that this server has given"
    raise error


class PresenceTail:
    """The presence of one room, for readers.

    Args:
        awareness: the room's.
        at: the time in Unix seconds.

    Attributes:
        level: the readers that are level.
    """

    __slots__ = ("_awareness", "_batches", "_epoch", "level")

    def __init__(self, awareness: AwarenessStates, at: float) -> None:
        self._awareness = awareness
        self._epoch = new_epoch(at)
        self._batches: dict[int, Batch] = {}
        self.level = LevelReaders()

    @property
    def end(self) -> Position:
        """The position of a reader that has been told everything."""
        return Position(self._epoch, self._awareness.comebacks.turn)

    @property
    def beginning(self) -> Position:
        """The position of a reader that has been told nothing yet."""
        return Position(self._epoch, _BEGINNING)

    def publish(self, update: bytes) -> None:
        """Hand on what a turn has brought, which has just ended."""
        batch = self._make(update)
        self._batches = {self.end.number - 1: batch}
        self.level.push(batch)

    def _make(self, update: bytes | None) -> Batch:
        payload = b"" if update is None else encode_frame(update)
        return Batch(payload, encode_position(self.end), up_to_date=True)

    def read(self, since: PresenceStart) -> Batch:
        """Give what has changed since a position; all states where that is none of this memory."""
        end = self.end
        if isinstance(since, Begin):
            turn = _BEGINNING
        elif since.epoch != end.epoch or since.number > end.number:
            turn = _ELSEWHERE
        elif since.number == end.number:
            return self._make(None)
        else:
            turn = since.number
        batch = self._batches.get(turn)
        if batch is None:
            batch = self._make(self._collect(turn))
            if len(self._batches) < _KEPT:
                self._batches[turn] = batch
        return batch

    def _collect(self, turn: int) -> bytes | None:
        if turn == _BEGINNING:
            return self._awareness.everything()
        if turn == _ELSEWHERE:
            return self._awareness.everything_since(0)  # of removals only those hear who have read before
        return self._awareness.changes_since(turn)


class PresenceCursor:
    """Where a reader stands in the presence of a room (``readers.Cursor``).

    Args:
        tail: the room's.
        start: where it begins; from either end of the stream with all states that there are.
    """

    __slots__ = ("_sink", "_since", "_tail")

    def __init__(self, tail: PresenceTail, start: PresenceStart) -> None:
        self._tail = tail
        self._since = start
        self._sink: Sink | None = None

    async def read(self) -> Batch:
        """Give what has changed, and move on."""
        batch = self._tail.read(self._since)
        self._since = self._tail.end
        return batch

    def attach(self, sink: Sink) -> bool:
        """Hand what comes from now on to ``sink``; False if there is more to be read."""
        if self._since != self._tail.end:
            return False
        self._sink = sink
        self._tail.level.attach(self)
        return True

    def detach(self) -> None:
        """Hand it nothing more; a second call does nothing."""
        self._tail.level.detach(self)
        self._sink = None

    def push(self, batch: Batch) -> bool:
        """Hand a batch on, up to the end; False if its reader cannot take it now."""
        if self._sink is None or not self._sink.push(batch):
            return False
        self._since = self._tail.end
        return True

    def wake(self) -> None:
        """Let the reader read on."""
        if self._sink is not None:
            self._sink.wake()
