"""The delete set: for each client, the ranges of clocks that are deleted.

Strategy: canonical at any time: clients descending, ranges ascending and merged, as yjs sorts and
merges its own, so that two equal sets are equal bytes. Of clients whose ranges have changed they are in blocks
(`Ranges`); what came from a stored document stays encoded, in its `Region`, until somebody asks for it.

Many deletes at once are made ready beside the set (`Additions`), while others go on to change it, and join it in one
short step.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Mapping, Sequence
from typing import Final
from weakref import WeakSet

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.parts import Piece, join, size_of
from collab.update.ranges import BLOCK, Block, Ranges, encode_ranges, merge_ranges
from collab.update.region import Region
from collab.update.slices import at_once

# Blocks of a client above which a few ranges are added one by one: copying its list of blocks would cost more.
_MANY: Final = 64
# Ranges between two yields: about half a millisecond.
_WORK: Final = 500
# Ranges that are encoded in the time of one of those.
_ENCODED: Final = 4
# Bytes up to which what was encoded is kept as it is: an answer that leaves slowly would keep it too.
_KEPT: Final = 16 * 1024


class DeleteSet:
    """The deleted clocks of a document, client by client.

    Created empty, or over the ``region`` of a stored delete set whose ``marks`` (offset, first clock, ordinal,
    ...) say where each further block of a client with many ranges begins. ``grown`` is by how many bytes, about, the
    encoding is longer than that of the region.
    """

    __slots__ = ("_changed", "_encoded", "_making", "_marks", "_open", "_pieces", "_region", "grown")

    def __init__(self, region: Region | None = None, marks: Sequence[array[int]] | None = None) -> None:
        self._region = region or Region()
        self._marks = marks or (array("I"), array("I"), array("I"))
        self._changed: dict[int, Ranges] = {}
        self._encoded: bytes | None = None
        self._pieces: tuple[int, list[Piece]] | None = None  # of the same, and how many bytes they have
        self._making: object | None = None  # who gathers them, as long as nothing is added meanwhile
        self._open: WeakSet[Additions] | None = None
        self.grown = 0

    def __contains__(self, client: int) -> bool:
        """Tell whether anything of the client is deleted."""
        return client in self._changed or self._region.find(client) >= 0

    def clients(self) -> list[int]:
        """Return the clients of which something is deleted, descending."""
        return sorted({*self._changed, *self._region.clients}, reverse=True)

    def of(self, client: int) -> Ranges | None:
        """Return the client's ranges, which only this set may change; fetched from the region if need be."""
        ranges = self._changed.get(client)
        if ranges is None:
            at = self._region.find(client)
            if at < 0:
                return None
            ranges = self._changed[client] = self._fetch(at)
        return ranges

    def _fetch(self, at: int) -> Ranges:
        """Cut an entry of the region into blocks, none of them decoded."""
        data, offsets = self._region.data, self._region.offsets
        stop = offsets[at + 1]
        _, pos = read_var_uint(data, offsets[at])
        left, pos = read_var_uint(data, pos)
        first, _ = read_var_uint(data, pos)
        ranges = Ranges()
        ranges.nbytes = stop - pos
        mark_offsets, mark_firsts, mark_ordinals = self._marks
        done = 0
        for i in range(bisect_left(mark_offsets, pos), bisect_left(mark_offsets, stop)):
            ranges.firsts.append(first)
            ranges.blocks.append(_stored(data[pos : mark_offsets[i]], mark_ordinals[i] - done))
            pos, first, done = mark_offsets[i], mark_firsts[i], mark_ordinals[i]
        ranges.firsts.append(first)
        ranges.blocks.append(_stored(data[pos:stop], left - done))
        return ranges

    def covers(self, client: int, start: int, end: int) -> bool:
        """Tell whether all clocks of [start, end) are deleted."""
        ranges = self._changed.get(client) or self.of(client)
        return ranges is not None and ranges.covers(start, end)

    def ranges(self, client: int) -> list[tuple[int, int]]:
        """Return the client's ranges as (start, end), ascending and merged."""
        ranges = self.of(client)
        return [] if ranges is None else list(ranges.within(0, 1 << 32))

    def missing(self, client: int, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that are not deleted; see `missing_of`."""
        return self.missing_of(client, [(start, end)])

    def missing_of(self, client: int, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the parts of (start, end) ``ranges`` that are not deleted; ``ranges`` themselves if that is all.

        A range with many holes in what is not deleted yet is returned as it is: cutting it up would cost more.
        """
        found = self.of(client)
        return ranges if found is None else found.missing(ranges)

    def add(self, client: int, start: int, end: int) -> None:
        """Delete the clocks of [start, end) too."""
        ranges = self._changed.get(client) or self.of(client)
        if ranges is None:
            ranges = self._changed[client] = Ranges()
            self.grown += _entry_size(client)
        before = ranges.nbytes
        ranges.add(start, end)
        self.grown += ranges.nbytes - before
        self._encoded = self._pieces = self._making = None
        if self._open:
            self._note(client)

    def add_new(self, client: int, start: int, end: int) -> bool:
        """Delete [start, end) unless some of it is deleted already; tell whether it was done."""
        ranges = self._changed.get(client) or self.of(client)
        if ranges is None:
            ranges = self._changed[client] = Ranges()
            self.grown += _entry_size(client)
        elif not ranges.is_free(start, end):
            return False
        before = ranges.nbytes
        ranges.add(start, end)
        self.grown += ranges.nbytes - before
        self._encoded = self._pieces = self._making = None
        if self._open:
            self._note(client)
        return True

    @property
    def nbytes(self) -> int:
        """About how many bytes it has, encoded."""
        return self._region.offsets[-1] - self._region.offsets[0] + self.grown

    def additions(self) -> Additions:
        """Begin to make ready what is to be deleted too."""
        additions = Additions(self)
        if self._open is None:
            self._open = WeakSet()
        self._open.add(additions)
        return additions

    def copy(self) -> DeleteSet:
        """Return the same delete set, to be added to; blocks and what is stored are shared."""
        made = DeleteSet(self._region, self._marks)
        made._changed = {client: ranges.copy() for client, ranges in self._changed.items()}
        made.grown = self.grown
        return made

    def commit(self, additions: Additions) -> None:
        """Delete what ``additions`` hold, which are of no use afterwards.

        When they have been prepared, and nothing was deleted since, this costs an insertion for each of the few ranges
        of clients with many blocks.
        """
        for _ in additions.prepare():
            pass
        assert self._open is not None
        self._open.discard(additions)
        self.grown += additions.grown
        self._changed.update(additions.made)
        for others in self._open:
            others.touched.update(additions.made)
        for client, ranges in additions.few.items():
            for start, end in ranges:
                self.add(client, start, end)
        self._encoded = self._pieces = self._making = None

    def _note(self, client: int) -> None:
        """Tell all additions that something of a client was deleted."""
        for additions in self._open or ():
            additions.touched.add(client)

    def has_entry(self, client: int, entry: bytes) -> bool:
        """Tell whether ``entry``, a client's part of an encoded delete set, is byte for byte the own one."""
        ranges = self._changed.get(client)
        if ranges is None:
            return self._region.entry(client) == entry
        return join(ranges.entry(client)) == entry

    def was_encoded_as(self, data: bytes, start: int) -> bool:
        """Tell whether ``data[start:]`` is what `encode` or `pieces` returned last and would return again.

        Never encodes for this: an unequal answer may be wrong, and costs nothing.
        """
        encoded = self._encoded
        if encoded is not None:
            return len(encoded) == len(data) - start and data.endswith(encoded)
        if self._pieces is None or self._pieces[0] != len(data) - start:
            return False
        for piece in self._pieces[1]:
            same = piece if isinstance(piece, bytes) else piece.data[piece.start : piece.stop]
            if not data.startswith(same, start):
                return False
            start += len(same)
        return True

    def rebase(self, region: Region, marks: Sequence[array[int]]) -> None:
        """Put a newly stored delete set, which lacks nothing but what was added since, under this one."""
        old = self._changed
        self._region, self._marks, self._changed = region, marks, {}
        self.grown = 0
        for client, ranges in old.items():
            if self.has_entry(client, join(ranges.entry(client))):
                continue
            stored = self.of(client)
            if stored is not None:
                ranges.union(ranges.missing(stored.within(0, 1 << 32)))
            self._changed[client] = ranges
            self.grown += size_of(ranges.entry(client)) - len(region.entry(client) or b"")
        for additions in self._open or ():
            additions.touched.update(additions.made)
        self._encoded = self._pieces = self._making = None

    def encode(self) -> bytes:
        """Encode the delete set of a v1 update, canonically; what is not long is kept until something is added."""
        if self._encoded is not None:
            return self._encoded
        encoded = join(at_once(self.pieces()))
        if len(encoded) <= _KEPT:
            self._encoded = encoded
        return encoded

    def pieces(self) -> Generator[None, None, list[Piece]]:
        """Give the pieces of what `encode` returns, in a generator that yields about every millisecond.

        They are kept until something is added, and what has not changed is shared with those that were given before.
        What is added between the slices may be in them.
        """
        if self._encoded is not None:
            return [self._encoded]
        if self._pieces is not None:
            return self._pieces[1]
        making = self._making = object()
        region = self._region
        changed: dict[int, list[Piece]] = {}
        work = 0
        for client, ranges in list(self._changed.items()):
            for block in [block for block in ranges.blocks if block.raw is None]:
                block.encoded()
                work += 1 + block.count // _ENCODED
                if work >= _WORK:
                    work = 0
                    yield
            entry = changed[client] = ranges.entry(client)
            work += 2 + len(entry)
            if work >= _WORK:
                work = 0
                yield
        count, pieces = yield from region.patched_in_slices(changed)
        pieces.insert(0, encode_var_uint(count))
        if self._making is making:
            self._pieces, self._making = (size_of(pieces), pieces), None
        return pieces


class Additions:
    """What is to be deleted too, made ready beside a delete set that others go on to change; see `DeleteSet.commit`.

    Args:
        base: the delete set, which is not changed.

    Attributes:
        made: of clients that were made ready, all that is to be deleted then.
        few: what is to be added to clients with many blocks, for few ranges are not worth copying those.
        grown: by how many bytes, about, what is made ready is longer than what the base has of these clients.
        touched: the clients of which something was deleted in the base since they were made ready.
    """

    __slots__ = ("__weakref__", "_base", "_seen", "few", "grown", "made", "touched")

    def __init__(self, base: DeleteSet) -> None:
        self._base = base
        self._seen: dict[int, tuple[list[Block], int]] = {}  # blocks of the base that are in, and their bytes
        self.made: dict[int, Ranges] = {}
        self.few: dict[int, list[tuple[int, int]]] = {}
        self.grown = 0
        self.touched: set[int] = set()

    def add(self, client: int, ranges: list[tuple[int, int]]) -> None:
        """Delete (start, end) ranges too, in any order; more than some hundred at a time are a long step."""
        few = self.few.setdefault(client, [])
        few += ranges
        if len(few) >= BLOCK:
            self._make(client)

    def prepare(self) -> Generator[None, None, None]:
        """Make all ready that can be, with what is deleted in the base meanwhile.

        A generator that yields about every millisecond. Nothing that was added before its end is left to be done then.
        """
        work = 0
        for client, few in list(self.few.items()):
            ranges = self._base.of(client)
            if client in self.made or ranges is None or len(ranges.blocks) < _MANY:
                work += 4 + len(few) // 2
                self._make(client)
                if work >= _WORK:
                    work = 0
                    yield
        while touched := self.touched & self.made.keys():
            self.touched.clear()
            for client in touched:
                made = self.made[client]
                for block in self._lacking(client):
                    self.grown -= made.nbytes
                    made.union(list(zip(*block.decoded(), strict=True)))
                    self.grown += made.nbytes
                    work += BLOCK
                    if work >= _WORK:
                        work = 0
                        yield

    def _lacking(self, client: int) -> list[Block]:
        """Give the blocks of the base that are not in what was made ready, and count them as if they were."""
        ranges = self._base.of(client)
        if ranges is None:
            return []
        if client in self._seen:
            blocks, nbytes = self._seen[client]
        else:
            blocks, nbytes = [], 0
            self.grown -= _entry_size(client)
        known = set(map(id, blocks))
        self._seen[client] = ranges.blocks[:], ranges.nbytes
        self.grown -= ranges.nbytes - nbytes
        return [block for block in ranges.blocks if id(block) not in known]

    def _make(self, client: int) -> None:
        made = self.made.get(client)
        if made is None:
            ranges = self._base.of(client)
            self.touched.discard(client)
            if ranges is None:
                made = Ranges()
                self.grown += _entry_size(client)
            else:
                made = ranges.copy()
                self._seen[client] = ranges.blocks[:], ranges.nbytes
            self.made[client] = made
        self.grown -= made.nbytes
        few = self.few.pop(client)
        if len(few) == 1:
            made.add(*few[0])
        else:
            made.union(merge_ranges(few))
        self.grown += made.nbytes


def encode_delete_set(deletes: Mapping[int, list[tuple[int, int]]]) -> bytes:
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


def _entry_size(client: int) -> int:
    """Return how many bytes a client's entry has besides its ranges, up to 127 of them."""
    return len(encode_var_uint(client)) + 1


def _stored(raw: bytes, count: int) -> Block:
    """Return a block of a stored delete set, not decoded."""
    return Block(None, None, count, len(raw), raw)
