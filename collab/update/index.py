"""The index of a stored update: where each client's section, and each stretch of it, begins.

Strategy: a snapshot is opened far more often than it is made, so whoever makes it writes down what a
reader would find out: clients and the ends of their sections, the size of each, a mark every four
kilobytes of a section and every 128 ranges of a delete set. Opening is then a few array copies, and
no struct is read; a diff reads the one stretch in which it must cut. The arrays hold sizes and
steps rather than offsets, because those compress: an index is about 1 % of a document of few clients, and a
quarter of one that is nothing but clients.

Layout: one byte 1 (the format), then zlib of: five 64-bit numbers (bytes of the update, clients, marks,
clients of the delete set, marks of the delete set), then little-endian arrays: 64-bit clients, 32-bit
ends, sizes; 32-bit offsets, clocks and ordinals of marks; the same for the delete set without ends.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.ranges import BLOCK
from collab.update.reader import Update, read_update
from collab.update.region import Region

_FORMAT: Final = b"\x01"
_HEAD: Final = struct.Struct("<5Q")
_SLICE: Final = 1000


class IndexedUpdate:
    """A stored update of a whole document, opened by its index.

    Each section begins at clock 0 and holds every clock up to its end; clients descend in ``sections``, ``deletes`` and
    ``vector``, which is the state vector without its count. ``ends`` is parallel to ``sections.clients``.
    ``marks`` and ``delete_marks`` are three parallel arrays: offset in ``data``, clock, ordinal in the section.
    """

    __slots__ = ("data", "delete_marks", "deletes", "ends", "marks", "sections", "vector")

    def __init__(
        self,
        data: bytes,
        sections: Region,
        deletes: Region,
        ends: array[int],
        marks: tuple[array[int], array[int], array[int]],
        delete_marks: tuple[array[int], array[int], array[int]],
    ) -> None:
        self.data = data
        self.sections = sections
        self.deletes = deletes
        self.ends = ends
        self.marks = marks
        self.delete_marks = delete_marks
        self.vector = Region()

    def read_vector(self) -> Iterator[None]:
        """Fill ``vector``, yielding about every millisecond."""
        entries: list[bytes] = []
        for at, (client, end) in enumerate(zip(self.sections.clients, self.ends, strict=True)):
            entries.append(encode_var_uint(client) + encode_var_uint(end))
            if at % _SLICE == _SLICE - 1:
                yield
        self.vector = Region(b"".join(entries), self.sections.clients, 0, map(len, entries))

    def end(self, client: int) -> int:
        """Return the clock behind the client's section, 0 if it has none."""
        at = self.sections.find(client)
        return 0 if at < 0 else self.ends[at]

    def body(self, client: int) -> tuple[int, int, int]:
        """Return count, start and stop of the client's structs in ``data``; three zeros if it has none."""
        at = self.sections.find(client)
        if at < 0:
            return 0, 0, 0
        count, pos = read_var_uint(self.data, self.sections.offsets[at])
        _, pos = read_var_uint(self.data, pos)
        _, pos = read_var_uint(self.data, pos)
        return count, pos, self.sections.offsets[at + 1]

    def mark(self, start: int, stop: int, clock: int) -> tuple[int, int, int]:
        """Return offset, clock and ordinal of the last mark at or before ``clock`` in the body ``data[start:stop]``."""
        offsets, clocks, ordinals = self.marks
        low = bisect_left(offsets, start)
        at = bisect_right(clocks, clock, low, bisect_left(offsets, stop, low)) - 1
        return (start, 0, 0) if at < low else (offsets[at], clocks[at], ordinals[at])


def encode_index(data: bytes) -> bytes:
    """Make the index of an update that holds a whole document.

    Returns b"" when the update is not written as `IndexedUpdate` needs it (clients descending, whole from
    clock 0, a canonical delete set): it has to be read each time then. Raises UpdateError when it is no update.
    """
    return index_update(read_update(data, stored=True))


def index_update(update: Update) -> bytes:
    """Make the index of an update that has been read; see `encode_index`."""
    offsets, clocks, ordinals = array("I"), array("I"), array("I")
    clients, ends, sizes = array("Q"), array("I"), array("I")
    deleted, entry_sizes = array("Q"), array("I")
    firsts = (array("I"), array("I"), array("I"))
    if len(update.data) >= 1 << 32:
        return b""
    previous = 1 << 64
    begin = len(encode_var_uint(len(update.sections)))
    for section in update.sections:
        if section.client >= previous or section.clock or not section.count:
            return b""
        previous = section.client
        clients.append(section.client)
        ends.append(section.end)
        sizes.append(section.stop - begin)
        begin = section.stop
        offsets.extend(section.marks[1::3])
        clocks.extend(section.marks[0::3])
        ordinals.extend(section.marks[2::3])
    previous = 1 << 64
    begin = update.deletes_start + len(encode_var_uint(len(update.deletes)))
    for deletes in update.deletes:
        ranges = deletes.ranges
        if deletes.client >= previous or deletes.start != begin:
            return b""
        begin = deletes.stop
        previous = deletes.client
        deleted.append(deletes.client)
        entry_sizes.append(deletes.stop - deletes.start)
        high = -1
        pos = deletes.start + len(encode_var_uint(deletes.client)) + len(encode_var_uint(len(ranges) // 2))
        for at in range(0, len(ranges), 2):
            clock, length = ranges[at], ranges[at + 1]
            if clock <= high:
                return b""
            high = clock + length
            if at and at % (2 * BLOCK) == 0:
                firsts[0].append(pos)
                firsts[1].append(clock)
                firsts[2].append(at // 2)
            pos += max(1, (clock.bit_length() + 6) // 7) + max(1, (length.bit_length() + 6) // 7)
        if pos != deletes.stop:
            return b""
    if begin != len(update.data):
        return b""
    head = _HEAD.pack(len(update.data), len(clients), len(offsets), len(deleted), len(firsts[0]))
    arrays = (clients, ends, sizes, offsets, clocks, ordinals, deleted, entry_sizes, *firsts)
    # Level 1: three times faster than the default and, on these arrays, 5 % larger.
    return _FORMAT + zlib.compress(head + b"".join(map(_little_endian, arrays)), 1)


def open_index(data: bytes, index: bytes) -> IndexedUpdate | None:
    """Open a stored update by its index; None when the index is of another format or empty.

    `IndexedUpdate.read_vector` has to be run then. Raises DecodeError when the index does not fit ``data``.
    """
    if index[:1] != _FORMAT:
        return None
    try:
        packed = zlib.decompress(index[1:])
        size, sections, marks, deletes, firsts = _HEAD.unpack_from(packed)
    except (zlib.error, struct.error) as error:
        raise DecodeError(f"a stored index is damaged: {error}") from None
    if size != len(data) or len(packed) != _HEAD.size + sections * 16 + marks * 12 + deletes * 12 + firsts * 12:
        raise DecodeError("a stored index does not belong to its snapshot")
    pos = _HEAD.size

    def take(code: str, count: int) -> array[int]:
        nonlocal pos
        values: array[int] = array(code)
        stop = pos + count * values.itemsize
        values.frombytes(packed[pos:stop])
        pos = stop
        if sys.byteorder == "big":
            values.byteswap()
        return values

    clients, ends, sizes = take("Q", sections), take("I", sections), take("I", sections)
    section_marks = take("I", marks), take("I", marks), take("I", marks)
    deleted, entry_sizes = take("Q", deletes), take("I", deletes)
    delete_marks = take("I", firsts), take("I", firsts), take("I", firsts)
    body = Region(data, clients, len(encode_var_uint(sections)), sizes)
    tail = Region(data, deleted, body.offsets[-1] + len(encode_var_uint(deletes)), entry_sizes)
    if tail.offsets[-1] != len(data):
        raise DecodeError("a stored index does not belong to its snapshot")
    return IndexedUpdate(data, body, tail, ends, section_marks, delete_marks)


def _little_endian(values: array[int]) -> bytes:
    """Return the bytes of an array as they are stored."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
