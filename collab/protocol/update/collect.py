"""Collect a stored document: empty what is deleted, join what belongs together, lose nothing else.

Strategy: what a client would hold in memory after loading the document is written down as it would write
it, without integrating anything. Two rewritings do that, both local to one client's structs and both
undone by yjs when an edit refers into their middle (``splitItem``), so later edits meet the same list:

- a struct that the delete set covers keeps its clocks, origins and parent, and its content becomes
  ContentDeleted (yjs ``Item.gc``); one that it covers in part is cut first, a halved surrogate pair leaving
  U+FFFD on both sides as in yjs ``ContentString.splice``;
- neighbours are joined under the conditions of yjs ``Item.mergeWith``: same kind of content, next clock, origin
  the last id of the former, same right origin, both deleted or both not. Being neighbours in the
  list is not asked for, as the joined struct is split again where something lies between.

What is no item's deletion by the delete set stays as it is: a struct below a deleted parent is deleted by
whoever integrates it. Works for every document that the reader takes, subdocuments, BigInts and hooks included, in
one pass beside the reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.protocol.update.index import encode_index
from collab.protocol.update.reader import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    JSON,
    STRING,
    TYPE,
    Deletes,
    Section,
    read_update,
    skip_any,
)
from collab.protocol.update.structs import utf16_length

_ALL: Final = 1 << 62
_NEVER: Final = 1 << 62
# The info byte's flags: origin, right origin, key.
_FLAGS: Final = 224
_JOINABLE: Final = frozenset((STRING, DELETED, ANY, JSON))


@dataclass(frozen=True, slots=True)
class Collected:
    """A collected document: ``data``, one v1 update, and its ``index`` for `Document.load`."""

    data: bytes
    index: bytes


def collect(data: bytes, *, gc: bool = True) -> Collected:
    """Collect the v1 update of a whole document (`Document.encode`).

    With ``gc`` off deleted content is kept and only runs are joined (applications that use yjs
    snapshots). State vector and delete set stay the same, byte for byte. Store ``index`` beside ``data``.
    Raises UpdateError when ``data`` is no update.
    """
    update = read_update(data)
    deletes = {entry.client: entry for entry in update.deletes}
    joiners: list[_Joiner] = []
    for section in update.sections:
        if not joiners or joiners[-1].client != section.client:
            entry = deletes.get(section.client)
            joiners.append(_Joiner(data, section, _ranges(entry), gc))
        joiners[-1].add(section)
    pieces = [encode_var_uint(len(joiners))]
    for joiner in joiners:
        pieces += joiner.encode()
    pieces.append(data[update.deletes_start :])
    collected = b"".join(pieces)
    # The index is made by reading the result again, so a result that clients would refuse raises here.
    return Collected(collected, encode_index(collected))


def _ranges(entry: Deletes | None) -> list[tuple[int, int]]:
    """Return a client's deleted ranges as (start, end), ascending and merged, with a last one that is never reached."""
    merged: list[tuple[int, int]] = []
    if entry is not None:
        ranges = entry.ranges
        for start, length in sorted(zip(ranges[::2], ranges[1::2], strict=True)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], start + length))
            else:
                merged.append((start, start + length))
    merged.append((_NEVER, _NEVER))
    return merged


class _Joiner:
    """One client's struct list, being rewritten.

    The open struct is the last one, to which the next may be joined: ``_head`` is its info byte, origins and
    parent, ``_right`` its right origin as written, ``_parts`` its content behind the count or size, ``_length`` its
    clocks (the sum, where the content is nothing else).
    """

    __slots__ = (
        "_count", "_data", "_gc", "_head", "_kind", "_length", "_out", "_own", "_parts", "_ranges", "_right", "_start",
        "client",
    )  # fmt: skip

    def __init__(self, data: bytes, section: Section, ranges: list[tuple[int, int]], gc: bool) -> None:
        self.client = section.client
        self._data = data
        self._gc = gc
        self._own = encode_var_uint(section.client)
        self._start = section.clock
        self._ranges = ranges
        self._out: list[bytes] = []
        self._count = 0
        self._kind = -1
        self._head = b""
        self._right = b""
        self._length = 0
        self._parts: list[bytes] = []

    def encode(self) -> Sequence[bytes]:
        """Return the section: count, client, clock, structs."""
        self._close()
        return encode_var_uint(self._count), self._own, encode_var_uint(self._start), *self._out

    def _close(self) -> None:
        """Write the open struct."""
        kind = self._kind
        if kind < 0:
            return
        parts = self._parts
        self._out.append(self._head)
        if kind == STRING:
            text = parts[0] if len(parts) == 1 else b"".join(parts)
            self._out.append(encode_var_uint(len(text)))
            self._out.append(text)
        else:
            self._out.append(encode_var_uint(self._length))
            self._out += parts
        self._count += 1
        self._kind = -1

    def _open(self, kind: int, head: bytes, right: bytes, length: int, part: bytes) -> None:
        """Begin a struct to which others may be joined."""
        self._close()
        self._kind = kind
        self._head = head
        self._right = right
        self._length = length
        self._parts = [part] if part else []

    def add(self, section: Section) -> None:
        """Rewrite the structs of a section behind those that are there."""
        data = self._data
        if not section.count:
            # A gap: the structs behind it are no neighbours of those before.
            self._close()
            self._out.append(data[section.start : section.stop])
            self._count += 1
            return
        gc = self._gc
        own = self._own
        own_size = len(own)
        pos = section.start
        clock = section.clock
        ranges = iter(self._ranges)
        gone_from, gone_to = next(ranges)
        was_deleted = False  # the clock before this struct; only asked with gc off
        for _ in range(section.count):
            begin = pos
            info = data[pos]
            pos += 1
            kind = info & 31
            if kind == GC:
                length = data[pos]
                pos += 1
                if length > 127:
                    length, pos = read_var_uint(data, pos - 1)
                if self._kind == GC:
                    self._length += length
                else:
                    self._open(GC, b"\0", b"", length, b"")
                clock += length
                was_deleted = True
                continue
            follows = False
            if info & 128:
                if data.startswith(own, pos):
                    pos += own_size
                    value = data[pos]
                    pos += 1
                    if value > 127:
                        value, pos = read_var_uint(data, pos - 1)
                    follows = value == clock - 1
                else:
                    _, pos = read_var_uint(data, pos)
                    _, pos = read_var_uint(data, pos)
            right_from = pos
            if info & 64:
                if data.startswith(own, pos):
                    pos += own_size
                else:
                    _, pos = read_var_uint(data, pos)
                while data[pos] > 127:
                    pos += 1
                pos += 1
            right_to = pos
            if not info & 192:
                named = data[pos]
                pos += 1
                if named:
                    pos = _behind(data, pos)
                else:
                    _, pos = read_var_uint(data, pos)
                    _, pos = read_var_uint(data, pos)
                if info & 32:
                    pos = _behind(data, pos)
            content = pos
            length = 1
            if kind == STRING:
                size = data[pos]
                pos += 1
                if size > 127:
                    size, pos = read_var_uint(data, pos - 1)
                values = pos
                pos += size
                length = utf16_length(data[values:pos])
            elif kind == DELETED:
                length, pos = read_var_uint(data, pos)
                values = pos
            elif kind == ANY:
                length, values = read_var_uint(data, pos)
                pos = skip_any(data, values, [length], _ALL)
            elif kind == JSON:
                length, pos = read_var_uint(data, pos)
                values = pos
                for _ in range(length):
                    pos = _behind(data, pos)
            else:
                values = pos
                pos = _behind_single(data, pos, kind)
            end = clock + length

            while gone_to <= clock:
                gone_from, gone_to = next(ranges)
            deleted = gone_from <= clock
            if deleted and end <= gone_to and gc:
                kind = DELETED
                values = pos
            elif gc and gone_from < end and kind != DELETED:
                # Covered in part, and a string or a list of values, as the others have one clock.
                self._split(info, kind, clock, length, content, right_from, right_to, begin, values, pos)
                clock = end
                continue

            if kind in _JOINABLE:
                # A key's values replace each other: two of them that live are never one (yjs deletes the former).
                if (
                    follows
                    and kind == self._kind
                    and data[right_from:right_to] == self._right
                    and (kind == DELETED or not info & 32)
                    and (gc or deleted == was_deleted)
                ):
                    self._length += length
                    if pos > values:
                        self._parts.append(data[values:pos])
                else:
                    head = bytes((info & _FLAGS | kind,)) + data[begin + 1 : content]
                    self._open(kind, head, data[right_from:right_to], length, data[values:pos])
            else:
                self._close()
                self._out.append(data[begin:pos])
                self._count += 1
            clock = end
            if not gc:
                while gone_to < clock:
                    gone_from, gone_to = next(ranges)
                was_deleted = gone_from < clock

    def _split(
        self,
        info: int,
        kind: int,
        clock: int,
        length: int,
        content: int,
        right_from: int,
        right_to: int,
        begin: int,
        values: int,
        stop: int,
    ) -> None:
        """Rewrite a struct that is deleted in part: its pieces in turn, deleted or not."""
        data = self._data
        right = data[right_from:right_to]
        text = data[values:stop].decode().encode("utf-16-le") if kind == STRING else b""
        at = 0
        while at < length:
            gone, until = self._piece(clock + at, clock + length)
            until -= clock
            if at:
                head = self._own + encode_var_uint(clock + at - 1) + right
                flags = info & _FLAGS | 128
                follows = True
            else:
                head = data[begin + 1 : content]
                flags = info & _FLAGS
                follows = clock > 0 and info & 128 > 0 and head.startswith(self._own + encode_var_uint(clock - 1))
            if gone:
                part = b""
                piece_kind = DELETED
            else:
                piece_kind = kind
                if kind == STRING:
                    part = text[2 * at : 2 * until].decode("utf-16-le", "replace").encode()
                else:
                    part, values = self._values(kind, values, until - at)
            if gone and kind != STRING:
                _, values = self._values(kind, values, until - at)
            if (
                follows
                and piece_kind == self._kind
                and right == self._right
                and (piece_kind == DELETED or not info & 32)
            ):
                self._length += until - at
                if part:
                    self._parts.append(part)
            else:
                self._open(piece_kind, bytes((flags | piece_kind,)) + head, right, until - at, part)
            at = until

    def _piece(self, start: int, end: int) -> tuple[bool, int]:
        """Tell whether ``start`` is deleted, and up to where, at most ``end``, the same holds."""
        ranges = self._ranges
        low, high = 0, len(ranges)
        while low < high:
            middle = (low + high) // 2
            if ranges[middle][1] <= start:
                low = middle + 1
            else:
                high = middle
        gone_from, gone_to = ranges[low]
        if gone_from <= start:
            return True, min(gone_to, end)
        return False, min(gone_from, end)

    def _values(self, kind: int, pos: int, count: int) -> tuple[bytes, int]:
        """Return ``count`` values of an Any or JSON content as written, and the offset behind them."""
        start = pos
        if kind == ANY:
            pos = skip_any(self._data, pos, [count], _ALL)
        else:
            for _ in range(count):
                pos = _behind(self._data, pos)
        return self._data[start:pos], pos


def _behind(data: bytes, pos: int) -> int:
    """Return the position behind a varString or varUint8Array."""
    length, pos = read_var_uint(data, pos)
    return pos + length


def _behind_single(data: bytes, pos: int, kind: int) -> int:
    """Return the position behind a content that has one clock."""
    if kind == FORMAT:
        return _behind(data, _behind(data, pos))
    if kind in (EMBED, BINARY):
        return _behind(data, pos)
    if kind == TYPE:
        ref, pos = read_var_uint(data, pos)
        return _behind(data, pos) if ref in (3, 5) else pos
    assert kind == DOC
    return skip_any(data, _behind(data, pos), [1], _ALL)
