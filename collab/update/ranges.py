"""The deleted ranges of one client: ascending, merged, and cheap to add to in any order.

Strategy: they lie in blocks of at most 256, each with its cached encoding (a range is written with absolute clocks,
so blocks can be put behind each other); one delete among 100,000 encodes one block anew. A block never
changes, so a copy of all ranges is a copy of the list of blocks: many ranges can be added to a copy in slices, which
takes the place of the original when it is ready.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.parts import Piece

# Ranges in a block when it is made; it is split at twice as many. Decoding one costs about 50 us.
BLOCK: Final = 128
# So few are added one by one, about a microsecond each.
_FEW: Final = 3


class Block:
    """Neighbouring ranges of one client; decoded when ``starts`` is there, encoded when ``raw`` is.

    What it holds never changes, so that two sets can share it. ``count`` is how many ranges there are, ``nbytes`` the
    length of their encoding.
    """

    __slots__ = ("count", "ends", "nbytes", "raw", "starts")

    def __init__(
        self, starts: array[int] | None, ends: array[int] | None, count: int, nbytes: int, raw: bytes | None = None
    ) -> None:
        self.starts = starts
        self.ends = ends
        self.count = count
        self.nbytes = nbytes
        self.raw = raw

    def decoded(self) -> tuple[array[int], array[int]]:
        """Return the starts and the ends (exclusive), which nobody may change."""
        if self.starts is None or self.ends is None:
            self.starts, self.ends = _decode(self.raw or b"", 0, self.count)
        return self.starts, self.ends

    def encoded(self) -> bytes:
        """Return the ranges as clock, length, clock, length ..."""
        if self.raw is None:
            starts, ends = self.decoded()
            self.raw = encode_ranges(zip(starts, ends, strict=True))
        return self.raw


class Ranges:
    """All ranges of one client: blocks and the first clock of each.

    ``nbytes`` is how long their encoding is. A ``copy`` shares the blocks, which cost nothing then.
    """

    __slots__ = ("blocks", "firsts", "nbytes")

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.firsts: list[int] = []
        self.nbytes = 0

    def copy(self) -> Ranges:
        """Return the same ranges, to be added to for themselves."""
        made = Ranges()
        made.blocks, made.firsts, made.nbytes = self.blocks[:], self.firsts[:], self.nbytes
        return made

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all of [start, end) is deleted."""
        at = bisect_right(self.firsts, start) - 1
        if at < 0:
            return False
        starts, ends = self.blocks[at].decoded()
        return end <= ends[bisect_right(starts, start) - 1]

    def is_free(self, start: int, end: int) -> bool:
        """Tell whether nothing of [start, end) is deleted."""
        at = bisect_right(self.firsts, start) - 1
        if at >= 0:
            starts, ends = self.blocks[at].decoded()
            found = bisect_right(ends, start)
            if found < len(starts):
                return starts[found] >= end
        return at + 1 >= len(self.firsts) or self.firsts[at + 1] >= end

    def missing(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of ``ranges`` that are not deleted; one that is free throughout is that very tuple.

        One in which there are blocks of ranges, so many holes, is returned as it is.
        """
        firsts, blocks = self.firsts, self.blocks
        behind = len(firsts) - 1
        decoded = -1
        starts = ends = array("I")
        parts = []
        for one in ranges:
            start, end = one
            at = bisect_right(firsts, start) - 1
            if at >= 0 and at != decoded:
                starts, ends = blocks[at].decoded()
                decoded = at
            found = bisect_right(ends, start) if at >= 0 else 0
            if starts[found] >= end if at >= 0 and found < len(starts) else at == behind or firsts[at + 1] >= end:
                parts.append(one)
                continue
            if at + 2 < len(firsts) and firsts[at + 2] < end:
                # Hundreds of holes: something is new, and all of it costs no more than the parts.
                parts.append(one)
                continue
            for first, last in self.within(start, end):
                if first > start:
                    parts.append((start, first))
                start = last
            if start < end:
                parts.append((start, end))
        return parts

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges, whole, that overlap [start, end)."""
        for at in range(max(0, bisect_right(self.firsts, start) - 1), bisect_left(self.firsts, end)):
            starts, ends = self.blocks[at].decoded()
            for i in range(bisect_right(ends, start), bisect_left(starts, end)):
                yield starts[i], ends[i]

    def add(self, start: int, end: int) -> None:
        """Delete [start, end) too."""
        firsts, blocks = self.firsts, self.blocks
        if not blocks:
            size = _range_size(start, end)
            firsts.append(start)
            blocks.append(Block(array("I", (start,)), array("I", (end,)), 1, size))
            self.nbytes += size
            return
        at = max(0, bisect_right(firsts, start) - 1)
        # The blocks behind that begin inside the range (or where it ends) melt into it.
        stop = bisect_right(firsts, end, at + 1)
        block = last = blocks[at]
        starts, ends = last_starts, last_ends = block.decoded()
        low = bisect_left(ends, start)
        size = block.nbytes
        if stop == at + 1:
            high = bisect_right(starts, end)
            melted = sum(map(_range_size, starts[low:high], ends[low:high]))
            melts = low < high
        else:
            last = blocks[stop - 1]
            last_starts, last_ends = last.decoded()
            high = bisect_right(last_starts, end)
            melted = sum(map(_range_size, starts[low:], ends[low:]))
            melted += sum(map(_range_size, last_starts[:high], last_ends[:high]))
            size += last.nbytes
            melts = low < len(starts)
            self.nbytes -= sum([block.nbytes for block in blocks[at + 1 : stop - 1]])
        if melts:
            start = min(start, starts[low])
        if high and (melts or last is not block):
            end = max(end, last_ends[high - 1])
        grown = _range_size(start, end) - melted
        self.nbytes += grown
        starts = starts[:low] + array("I", (start,)) + last_starts[high:]
        ends = ends[:low] + array("I", (end,)) + last_ends[high:]
        if len(starts) <= 2 * BLOCK:
            firsts[at:stop] = (starts[0],)
            blocks[at:stop] = (Block(starts, ends, len(starts), size + grown),)
            return
        made = list(map(_pack, _portions(list(zip(starts, ends, strict=True)))))
        firsts[at:stop] = starts[::BLOCK]
        blocks[at:stop] = made

    def union(self, ranges: list[tuple[int, int]]) -> None:
        """Delete all of ``ranges`` too, ascending and merged: many cost little more than the bytes of each.

        The blocks that this makes are encoded already.
        """
        firsts, blocks = self.firsts, self.blocks
        at = 0
        while at < len(ranges):
            # The block into which the next one falls, and all others that begin before the block behind it.
            number = max(0, bisect_right(firsts, ranges[at][0]) - 1)
            limit = firsts[number + 1] if number + 1 < len(firsts) else None
            stop = len(ranges) if limit is None else bisect_left(ranges, (limit, 0), at)
            if limit is not None and ranges[stop - 1][1] >= limit:
                stop -= 1  # it melts into the next block
            block = blocks[number] if blocks else _EMPTY
            if stop - at <= _FEW or (stop - at) * 4 < block.count:
                for start, end in ranges[at : max(stop, at + 1)]:
                    self.add(start, end)
                at = max(stop, at + 1)
                continue
            starts, ends = block.decoded()
            first = number
            if block.count >= BLOCK and ranges[at][0] > ends[-1]:
                merged = ranges[at:stop]  # all lie behind that block
                first = number = number + 1
            else:
                merged = merge_ranges([*zip(starts, ends, strict=True), *ranges[at:stop]])
                self.nbytes -= block.nbytes
                number += 1
            made = list(map(_pack, _portions(merged)))
            firsts[first:number] = [portion[0][0] for portion in _portions(merged)]
            blocks[first:number] = made
            self.nbytes += sum([block.nbytes for block in made])
            at = stop

    def entry(self, client: int) -> list[Piece]:
        """Encode the client's entry of a delete set."""
        count = 0
        for block in self.blocks:
            count += block.count
        pieces: list[Piece] = [encode_var_uint(client) + encode_var_uint(count)]
        pieces += [block.encoded() for block in self.blocks]
        return pieces


_EMPTY: Final = Block(array("I"), array("I"), 0, 0, b"")


def _portions(ranges: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cut ranges into portions for a block each."""
    if len(ranges) <= 2 * BLOCK:
        yield ranges
        return
    for at in range(0, len(ranges), BLOCK):
        yield ranges[at : at + BLOCK]


def _pack(ranges: list[tuple[int, int]]) -> Block:
    """Make a block of ranges, encoded."""
    starts = array("I", [start for start, _ in ranges])
    raw = encode_ranges(ranges)
    return Block(starts, array("I", [end for _, end in ranges]), len(ranges), len(raw), raw)


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Encode (start, end) ranges as clock, length, clock, length ..."""
    encoded = bytearray()
    append = encoded.append
    for start, end in ranges:
        length = end - start
        while start > 127:
            append(start & 127 | 128)
            start >>= 7
        append(start)
        while length > 127:
            append(length & 127 | 128)
            length >>= 7
        append(length)
    return bytes(encoded)


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (start, end) ranges ascending, those that overlap or touch merged."""
    merged: list[tuple[int, int]] = []
    low = high = -1
    for start, end in sorted(ranges):
        if start <= high and low >= 0:
            high = max(high, end)
            continue
        if low >= 0:
            merged.append((low, high))
        low, high = start, end
    if low >= 0:
        merged.append((low, high))
    return merged


def _range_size(start: int, end: int) -> int:
    """Return how many bytes the range is encoded in."""
    return (start.bit_length() + 6) // 7 + (not start) + ((end - start).bit_length() + 6) // 7


def _decode(raw: bytes, pos: int, count: int) -> tuple[array[int], array[int]]:
    """Decode ranges that were encoded here."""
    starts, ends = array("I"), array("I")
    for _ in range(count):
        start, pos = read_var_uint(raw, pos)
        length, pos = read_var_uint(raw, pos)
        starts.append(start)
        ends.append(start + length)
    if pos != len(raw):
        raise DecodeError("a stored delete set does not fit its index")
    return starts, ends
