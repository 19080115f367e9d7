"""The delete set: for each client, the ranges of clocks that are deleted.

Strategy: canonical at any time: clients descending, ranges ascending and merged, as yjs sorts and
merges its own, so that two equal sets are equal bytes. A client's ranges lie in blocks of at
most 256, each with its cached encoding (a range is written with absolute clocks, so blocks can be put behind
each other); one delete among 100,000 encodes one block anew. What came from a stored document stays
encoded, in its `Region`, until somebody asks for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.protocol.update.region import Buffer, Region

# Ranges in a block when it is made; it is split at twice as many. Decoding one costs about 50 us.
BLOCK: Final = 128


class _Block:
    """Neighbouring ranges of one client; decoded when ``starts`` is there, encoded when ``raw`` is."""

    __slots__ = ("count", "ends", "raw", "starts")

    def __init__(self, starts: array[int] | None, ends: array[int] | None, count: int, raw: bytes | None) -> None:
        self.starts = starts
        self.ends = ends
        self.count = count
        self.raw = raw

    def decoded(self) -> tuple[array[int], array[int]]:
        """Return the starts and the ends (exclusive), which the caller may change if it clears ``raw``."""
        if self.starts is None or self.ends is None:
            self.starts, self.ends = _decode(self.raw or b"", 0, self.count)
        return self.starts, self.ends

    def encoded(self) -> bytes:
        """Return the ranges as clock, length, clock, length ..."""
        if self.raw is None:
            starts, ends = self.decoded()
            self.raw = encode_ranges(zip(starts, ends, strict=True))
        return self.raw


class _Ranges:
    """All ranges of one client: blocks and the first clock of each.

    ``grown`` is by how many bytes `add` has made their encoding longer.
    """

    __slots__ = ("blocks", "firsts", "grown")

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.firsts: list[int] = []
        self.grown = 0

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
            firsts.append(start)
            blocks.append(_Block(array("I", (start,)), array("I", (end,)), 1, None))
            self.grown += _range_size(start, end)
            return
        at = max(0, bisect_right(firsts, start) - 1)
        # The blocks behind that begin inside the range (or where it ends) melt into it.
        stop = bisect_right(firsts, end, at + 1)
        if stop > at + 1:
            starts, ends = blocks[stop - 1].decoded()
            melted = bisect_right(starts, end)
            end = max(end, ends[melted - 1])
            if melted < len(starts):
                self.grown -= sum(map(_range_size, starts[:melted], ends[:melted]))
                del starts[:melted], ends[:melted]
                block = blocks[stop - 1]
                block.raw = None
                block.count = len(starts)
                firsts[stop - 1] = starts[0]
                stop -= 1
            self.grown -= sum(len(block.encoded()) for block in blocks[at + 1 : stop])
            del firsts[at + 1 : stop], blocks[at + 1 : stop]
        block = blocks[at]
        starts, ends = block.decoded()
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        if low == high:
            starts.insert(low, start)
            ends.insert(low, end)
            self.grown += _range_size(start, end)
        else:
            self.grown -= sum(map(_range_size, starts[low:high], ends[low:high]))
            if starts[low] > start:
                starts[low] = start
            ends[low] = max(end, ends[high - 1])
            self.grown += _range_size(starts[low], ends[low])
            del starts[low + 1 : high], ends[low + 1 : high]
        firsts[at] = starts[0]
        block.raw = None
        block.count = len(starts)
        if block.count > 2 * BLOCK:
            blocks.insert(at + 1, _Block(starts[BLOCK:], ends[BLOCK:], block.count - BLOCK, None))
            firsts.insert(at + 1, starts[BLOCK])
            del starts[BLOCK:], ends[BLOCK:]
            block.count = BLOCK

    def entry(self, client: int) -> list[Buffer]:
        """Encode the client's entry of a delete set."""
        count = 0
        for block in self.blocks:
            count += block.count
        pieces: list[Buffer] = [encode_var_uint(client) + encode_var_uint(count)]
        pieces += [block.encoded() for block in self.blocks]
        return pieces


class DeleteSet:
    """The deleted clocks of a document, client by client.

    Created empty, or over the ``region`` of a stored delete set whose ``marks`` (offset, first clock, ordinal,
    ...) say where each further block of a client with many ranges begins. ``grown`` is by how many bytes, about, the
    encoding is longer than that of the region.
    """

    __slots__ = ("_changed", "_encoded", "_marks", "_region", "grown")

    def __init__(self, region: Region | None = None, marks: Sequence[array[int]] | None = None) -> None:
        self._region = region or Region()
        self._marks = marks or (array("I"), array("I"), array("I"))
        self._changed: dict[int, _Ranges] = {}
        self._encoded: bytes | None = None
        self.grown = 0

    def __contains__(self, client: int) -> bool:
        """Tell whether anything of the client is deleted."""
        return client in self._changed or self._region.find(client) >= 0

    def clients(self) -> list[int]:
        """Return the clients of which something is deleted, descending."""
        return sorted({*self._changed, *self._region.clients}, reverse=True)

    def _ranges(self, client: int) -> _Ranges | None:
        """Return the client's ranges, fetched from the region if need be."""
        ranges = self._changed.get(client)
        if ranges is None:
            at = self._region.find(client)
            if at < 0:
                return None
            ranges = self._changed[client] = self._fetch(at)
        return ranges

    def _fetch(self, at: int) -> _Ranges:
        """Cut an entry of the region into blocks, none of them decoded."""
        data, offsets = self._region.data, self._region.offsets
        stop = offsets[at + 1]
        _, pos = read_var_uint(data, offsets[at])
        left, pos = read_var_uint(data, pos)
        first, _ = read_var_uint(data, pos)
        ranges = _Ranges()
        mark_offsets, mark_firsts, mark_ordinals = self._marks
        done = 0
        for i in range(bisect_left(mark_offsets, pos), bisect_left(mark_offsets, stop)):
            ranges.firsts.append(first)
            ranges.blocks.append(_Block(None, None, mark_ordinals[i] - done, data[pos : mark_offsets[i]]))
            pos, first, done = mark_offsets[i], mark_firsts[i], mark_ordinals[i]
        ranges.firsts.append(first)
        ranges.blocks.append(_Block(None, None, left - done, data[pos:stop]))
        return ranges

    def covers(self, client: int, start: int, end: int) -> bool:
        """Tell whether all clocks of [start, end) are deleted."""
        ranges = self._changed.get(client) or self._ranges(client)
        return ranges is not None and ranges.covers(start, end)

    def ranges(self, client: int) -> list[tuple[int, int]]:
        """Return the client's ranges as (start, end), ascending and merged."""
        ranges = self._ranges(client)
        return [] if ranges is None else list(ranges.within(0, 1 << 32))

    def missing(self, client: int, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that are not deleted."""
        ranges = self._ranges(client)
        if ranges is None:
            return [(start, end)]
        parts = []
        for first, last in ranges.within(start, end):
            if first > start:
                parts.append((start, first))
            start = last
        if start < end:
            parts.append((start, end))
        return parts

    def add(self, client: int, start: int, end: int) -> None:
        """Delete the clocks of [start, end) too."""
        ranges = self._changed.get(client) or self._ranges(client)
        if ranges is None:
            ranges = self._changed[client] = _Ranges()
            self.grown += _entry_size(client)
        before = ranges.grown
        ranges.add(start, end)
        self.grown += ranges.grown - before
        self._encoded = None

    def add_new(self, client: int, start: int, end: int) -> bool:
        """Delete [start, end) unless some of it is deleted already; tell whether it was done."""
        ranges = self._changed.get(client) or self._ranges(client)
        if ranges is None:
            ranges = self._changed[client] = _Ranges()
            self.grown += _entry_size(client)
        elif not ranges.is_free(start, end):
            return False
        before = ranges.grown
        ranges.add(start, end)
        self.grown += ranges.grown - before
        self._encoded = None
        return True

    def absorb(self, other: DeleteSet) -> None:
        """Take over what ``other``, which must not be used afterwards, has deleted.

        ``other`` must be made by `add`. Costs a look-up for each client, and an insertion for each range
        of a client that both have.
        """
        changed = self._changed
        for client, ranges in other._changed.items():
            if client in changed or (len(self._region.clients) and self._region.find(client) >= 0):
                for start, end in ranges.within(0, 1 << 32):
                    self.add(client, start, end)
            else:
                changed[client] = ranges
                self.grown += _entry_size(client) + ranges.grown
        self._encoded = None

    def has_entry(self, client: int, entry: bytes) -> bool:
        """Tell whether ``entry``, a client's part of an encoded delete set, is byte for byte the own one."""
        ranges = self._changed.get(client)
        if ranges is None:
            return self._region.entry(client) == entry
        return b"".join(ranges.entry(client)) == entry

    def was_encoded_as(self, data: bytes, start: int) -> bool:
        """Tell whether ``data[start:]`` is what `encode` returned last and would return again.

        Never encodes for this: an unequal answer may be wrong, and costs nothing.
        """
        encoded = self._encoded
        return encoded is not None and len(encoded) == len(data) - start and data.endswith(encoded)

    def rebase(self, region: Region, marks: Sequence[array[int]]) -> None:
        """Put a newly stored delete set, which lacks nothing but what was added since, under this one."""
        old = self._changed
        self._region, self._marks, self._changed = region, marks, {}
        self.grown = 0
        for client, ranges in old.items():
            if self.has_entry(client, b"".join(ranges.entry(client))):
                continue
            stored = self._ranges(client)
            if stored is not None:
                for start, end in stored.within(0, 1 << 32):
                    if not ranges.covers(start, end):
                        ranges.add(start, end)
            self._changed[client] = ranges
            self.grown += sum(map(len, ranges.entry(client))) - len(region.entry(client) or b"")
        self._encoded = None

    def encode(self) -> bytes:
        """Encode the delete set of a v1 update, canonically; the bytes are kept until something is added."""
        if self._encoded is None:
            count, pieces = self._region.patched(
                {client: ranges.entry(client) for client, ranges in self._changed.items()}
            )
            self._encoded = encode_var_uint(count) + b"".join(pieces)
        return self._encoded


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


def encode_deletes(deletes: Mapping[int, list[tuple[int, int]]]) -> bytes:
    """Encode the (start, end) ranges of each client, in any order and overlapping, as a canonical delete set."""
    if not deletes:
        return b"\0"
    parts = [encode_var_uint(len(deletes))]
    for client in sorted(deletes, reverse=True):
        ranges = deletes[client]
        if len(ranges) > 1:
            ranges = merge_ranges(ranges)
        parts += (encode_var_uint(client), encode_var_uint(len(ranges)), encode_ranges(ranges))
    return b"".join(parts)


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


def _entry_size(client: int) -> int:
    """Return how many bytes a client's entry has besides its ranges, up to 127 of them."""
    return len(encode_var_uint(client)) + 1


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
