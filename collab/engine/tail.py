"""The structs of one client that came since the snapshot, as the bytes in which they came.

Strategy: behind each other, with a mark every four kilobytes from which a clock can be found again. What somebody may
still have to be sent is sealed: from then on it is bytes that never change, and what comes next is put behind it. So an
answer that leaves slowly refers to it, and a thousand answers cost it once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from collab.update.parts import SHORT, Piece, join, span
from collab.update.reader import MARK_BYTES
from collab.update.structs import suffix

# Bytes from which what was sealed is not joined to what comes next; and from which a first run is not copied, to be
# appended to.
_SEALED: Final = 16 * 1024
_LARGE: Final = 64 * 1024

# Bytes behind a mark that are walked so quickly that they need no further one: 10 us of keystrokes.
_WALKED: Final = 128


class Tail:
    """One client's structs since the snapshot: ``count`` of them in ``size`` bytes, the first at ``clock``."""

    # `_open` is what is appended to, bytes until there is a second run; `_sealed` lies before it, in `_before` bytes.
    # `_marks` is clock, offset, ordinal, clock, ...; `_marked` the offset of the last mark.
    __slots__ = ("_before", "_marked", "_marks", "_open", "_sealed", "clock", "count")

    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.count = 0
        self._sealed: list[bytes] | tuple[()] = ()
        self._before = 0
        self._open: bytes | bytearray = b""
        self._marks: list[int] | tuple[()] = ()
        self._marked = 0

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._before + len(self._open)

    def append(self, clock: int, count: int, run: bytes, marks: Sequence[int], start: int) -> None:
        """Put a run of ``count`` structs from ``clock`` on behind the others.

        ``marks`` are those of the run, with offsets from ``start``.
        """
        data = self._open
        size = self._before + len(data)
        if size and size - self._marked >= MARK_BYTES:
            self._mark(clock, size, self.count)
        if not data:
            self._open = run
        else:
            if type(data) is bytes:
                if len(data) < _LARGE:
                    self._open = bytearray(data)
                else:
                    self._seal()
                    self._open = b""
            self._open += run
        for at in range(0, len(marks), 3):
            self._mark(marks[at], marks[at + 1] - start + size, marks[at + 2] + self.count)
        self.count += count

    def note_end(self, clock: int) -> None:
        """Note that the next struct will have ``clock``: what is left from there on is found at once."""
        size = self.size
        if size - self._marked >= _WALKED:
            self._mark(clock, size, self.count)

    def copy(self) -> Tail:
        """Return the same structs, to be appended to."""
        made = Tail(self.clock)
        made.count = self.count
        made._sealed = self._sealed[:]
        made._before = self._before
        made._open = self._open if type(self._open) is bytes else bytearray(self._open)
        made._marks = self._marks[:]
        made._marked = self._marked
        return made

    def _mark(self, clock: int, offset: int, ordinal: int) -> None:
        if not self._marks:
            self._marks = []
        self._marks += (clock, offset, ordinal)
        self._marked = offset

    def _seal(self) -> None:
        """Change what is here no more; what is short is put together."""
        data = bytes(self._open)
        if not self._sealed:
            self._sealed = [data]
        elif len(self._sealed[-1]) < _SEALED:
            self._sealed[-1] += data
        else:
            self._sealed.append(data)
        self._before += len(data)
        self._open = b""

    def pieces(self, start: int) -> list[Piece]:
        """Return the bytes from offset ``start`` on."""
        if len(self._open) >= SHORT:
            self._seal()
        found: list[Piece] = []
        left = start
        if left < self._before:
            for data in self._sealed:
                size = len(data)
                if left < size:
                    found.append(span(data, left, size))
                    left = size
                left -= size
        else:
            left -= self._before
        if self._open:
            found.append(bytes(self._open[left:]))
        return found

    def _find(self, start: int, stop: int) -> tuple[bytes, int]:
        """Return bytes that hold ``[start, stop)`` of this, and where in them that is; long ones are not copied."""
        pos = 0
        for data in self._sealed:
            if pos <= start and stop <= pos + len(data):
                return data, start - pos
            pos += len(data)
        found: list[Piece] = []
        pos = 0
        for part in (*self._sealed, self._open):
            if start < pos + len(part) and pos < stop:
                found.append(bytes(part[max(0, start - pos) : stop - pos]))
            pos += len(part)
        return join(found), 0

    def suffix(self, client: int, known: int) -> tuple[int, bytes, int]:
        """Return how many structs are left from clock ``known`` on, how a cut one begins, the offset of the rest."""
        if known <= self.clock:
            return self.count, b"", 0
        marks = self._marks
        at = bisect_right(marks[0::3], known) * 3 - 3
        clock, offset, ordinal = (self.clock, 0, 0) if at < 0 else marks[at : at + 3]
        # At most up to the next mark, so that nothing large is copied for walking.
        stop = marks[at + 4] if at + 4 < len(marks) else self.size
        if at < 0 and marks:
            stop = marks[1]
        data, start = self._find(offset, stop)
        passed, head, begin = suffix(data, start, start + stop - offset, clock, client, known)
        return self.count - ordinal - passed + (1 if head else 0), head, offset + begin - start

    def without(self, client: int, known: int) -> Tail:
        """Return what is left from clock ``known`` on."""
        count, head, offset = self.suffix(client, known)
        tail = Tail(known)
        tail.count = count
        tail._open = join([head, *self.pieces(offset)])
        passed = self.count - count
        shift = offset - len(head)
        marks = self._marks
        for at in range(0, len(marks), 3):
            if marks[at] > known and marks[at + 1] > offset:
                tail._mark(marks[at], marks[at + 1] - shift, marks[at + 2] - passed)
        return tail
