"""Long encoded bytes that are put together only as they are read.

Strategy: what a document is made of never changes: its snapshot, the runs of structs behind it, the blocks of its
delete set. So an answer is a list of references into those and of the few bytes that are its own, such as a section's
head. Its size is known before its first byte is made. Until it is read it costs some 20 bytes for each reference; what
it refers to is shared with the document, and kept alive by it where the document has put something else in its place.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final, NamedTuple

SHORT: Final = 64
"""Bytes below which a copy costs less than a reference."""

# Bytes from which a run is handed out as it is; shorter ones are joined to what lies beside them.
_LONG: Final = 8 * 1024

# References that are followed in one step: some 0.3 ms.
_STEP: Final = 500

# Bytes of a reference in `Parts`: three numbers and a pointer.
_REFERENCE: Final = 20


class Span(NamedTuple):
    """``data[start:stop]``, not copied; nobody changes ``data``."""

    data: bytes
    start: int
    stop: int


_new = tuple.__new__  # half of what a call of the class costs

Piece = bytes | Span
"""Some bytes of an encoding, or where they are."""


def span(data: bytes, start: int, stop: int) -> Piece:
    """Refer to ``data[start:stop]``, or copy it if that is cheaper."""
    return data[start:stop] if stop - start < SHORT else _new(Span, (data, start, stop))


def join(pieces: Iterable[Piece]) -> bytes:
    """Put pieces behind each other."""
    return b"".join([piece if isinstance(piece, bytes) else _buffer(piece) for piece in pieces])


def _buffer(piece: Span) -> bytes | memoryview:
    # By position, and no view of what is copied as fast: usual joins are made of these.
    size = piece[2] - piece[1]
    return piece[0][piece[1] : piece[2]] if size < _LONG else memoryview(piece[0])[piece[1] : piece[2]]


def size_of(pieces: Iterable[Piece]) -> int:
    """Return how many bytes pieces have together."""
    return sum([len(piece) if isinstance(piece, bytes) else piece.stop - piece.start for piece in pieces])


class Parts:
    """Pieces behind each other, packed; read with a `Cursor` when the last one was added.

    Attributes:
        nbytes: how many bytes they have together.
    """

    __slots__ = ("__weakref__", "_before", "_between", "_own", "_runs", "_sizes", "_starts", "nbytes")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._own = bytearray()
        # Of each run: how many own bytes stand before it, where it lies, and how long it is.
        self._before, self._starts, self._sizes = array("I"), array("I"), array("I")
        self._runs: list[bytes] = []
        self._between = 0  # own bytes behind the last run
        self.nbytes = 0
        self.add(pieces)

    def add(self, pieces: Iterable[Piece]) -> None:
        """Put pieces behind the others."""
        own, runs, sizes = self._own, self._runs, self._sizes
        between, nbytes = self._between, self.nbytes
        for piece in pieces:
            if isinstance(piece, bytes):
                size = len(piece)
                nbytes += size
                if size < SHORT:
                    own += piece
                    between += size
                    continue
                data, start = piece, 0
            else:
                data, start = piece.data, piece.start
                size = piece.stop - start
                if not size:
                    continue
                nbytes += size
                if not between and runs and runs[-1] is data and self._starts[-1] + sizes[-1] == start:
                    sizes[-1] += size
                    continue
            self._before.append(between)
            self._starts.append(start)
            sizes.append(size)
            runs.append(data)
            between = 0
        self._between, self.nbytes = between, nbytes

    @property
    def held(self) -> int:
        """How many bytes this takes, without what it refers to."""
        return len(self._own) + _REFERENCE * len(self._runs)

    def join(self) -> bytes:
        """Return all of it."""
        cursor = Cursor(self)
        buffers: list[bytes | memoryview] = []
        while cursor.left:
            buffers += cursor.take(cursor.left)
        return b"".join(buffers)


class Cursor:
    """Reads parts once, from the first byte to the last.

    Args:
        parts: what is read.
        head: bytes that come before.

    Attributes:
        left: how many bytes are still to be read.
    """

    __slots__ = ("_at", "_before", "_head", "_own", "_parts", "_taken", "left")

    def __init__(self, parts: Parts, head: bytes = b"") -> None:
        self._parts = parts
        self._head = head
        self._own = 0  # where the next own byte is
        self._at = self._taken = 0  # the next run, and how much of it was read
        self._before = self._before_run()
        self.left = len(head) + parts.nbytes

    @property
    def held(self) -> int:
        """How many bytes are kept for what is still to be read, without what that refers to."""
        return len(self._head) + self._parts.held

    def _before_run(self) -> int:
        parts = self._parts
        return parts._before[self._at] if self._at < len(parts._runs) else parts._between

    def take(self, most: int) -> list[bytes | memoryview]:
        """Return the next bytes, ``most`` of them at most and at least one if any are left.

        They are in order, in several buffers, so that long runs are not copied. A call is less than a millisecond's
        work, so it may return less than there is.
        """
        parts = self._parts
        buffers: list[bytes | memoryview] = []
        short: list[bytes | bytearray] = []
        room = most
        if self._head:
            short.append(self._head[:room])
            self._head = self._head[room:]
            room -= len(short[0])
        for _ in range(_STEP):
            if self._before and room:
                size = min(self._before, room)
                short.append(parts._own[self._own : self._own + size])
                self._own += size
                self._before -= size
                room -= size
            if self._at == len(parts._runs) or not room:
                break
            run, start = parts._runs[self._at], parts._starts[self._at] + self._taken
            size = min(parts._sizes[self._at] - self._taken, room)
            if size < _LONG:
                short.append(run[start : start + size])
            else:
                if short:
                    buffers.append(b"".join(short))
                    short.clear()
                buffers.append(memoryview(run)[start : start + size])
            room -= size
            self._taken += size
            if self._taken == parts._sizes[self._at]:
                self._at += 1
                self._taken = 0
                self._before = self._before_run()
        if short:
            buffers.append(b"".join(short))
        self.left -= most - room
        return buffers
