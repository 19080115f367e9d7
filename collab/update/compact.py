"""Compact a stored document: empty what is deleted, join what belongs together, lose nothing else.

Strategy: what a client would hold in memory after loading the document is written down as it would write
it, without integrating anything. Two rewritings do that, both local to one client's structs and both
undone by yjs when an edit refers into their middle (``splitItem``), so later edits meet the same list:

- a struct that the delete set covers keeps its clocks, origins and parent, and its content becomes
  ContentDeleted (yjs ``Item.gc``); one that it covers in part is cut first, a halved surrogate pair leaving
  U+FFFD on both sides as in yjs ``ContentString.splice``;
- neighbours are joined under the conditions of yjs ``Item.mergeWith``: same kind of content, next clock, origin
  the last id of the former, same right origin, both deleted or both not. Being neighbours in the
  list is not asked for, as the joined struct is split again where something lies between.

The values of a key are never joined, and one that is deleted in part is not cut: a value that yjs puts behind another
one of the same key deletes that. The info byte of a struct says whether it lies under a key. But where there is an
origin, yjs does not look at that, and takes parent and key from the origin. So what the bytes say is compared with
what they refer to. If one of them lies, which no client does, the keys are looked up from origin to origin
(`_find_keyed`).

Values of a key that were set at once with the one that is left are deleted too, although no delete set says so
(`overwritten.py`). Else only what the delete set covers is emptied: a struct below a deleted parent is deleted by
whoever integrates it. In a document that was reset nearly all lies below deleted parents, and becomes GC first
(`reset.bury`). Works for every document that the reader takes, subdocuments, BigInts and hooks included, in
one pass beside the reading, and another where there are keys. docs/decisions/0006 says why no CRDT library does it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.delete_set import encode_delete_set
from collab.update.index import encode_index
from collab.update.merge import pairs
from collab.update.overwritten import find_overwritten
from collab.update.ranges import merge_ranges
from collab.update.reader import (
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
    Update,
    read_update,
    skip_any,
)
from collab.update.reset import bury, is_marker
from collab.update.structs import utf16_length, walk

_ALL: Final = 1 << 62
_NEVER: Final = 1 << 62
# The info byte's flags: origin, right origin, key.
_FLAGS: Final = 224
_NONE: Final[Mapping[int, list[int]]] = MappingProxyType({})
_JOINABLE: Final = frozenset((STRING, DELETED, ANY, JSON))


@dataclass(frozen=True, slots=True)
class Compacted:
    """A compacted document: ``data``, one v1 update, and its ``index`` for `Document.load`."""

    data: bytes
    index: bytes


def compact(data: bytes, *, gc: bool = True) -> Compacted:
    """Compact the v1 update of a whole document (`Document.encode_state_as_update`).

    With ``gc`` off deleted content is kept and only runs are joined (applications that use yjs
    snapshots). State vector and delete set stay the same, byte for byte, but for values of keys of which the delete set
    did not say that they are overwritten (`find_overwritten`). Store ``index`` beside ``data``.
    Raises UpdateError when ``data`` is no update.
    """
    update = read_update(data, stored=True)
    if gc and any(is_marker(section.client) for section in update.sections):
        update = read_update(bury(data), stored=True)
    joiners = _join(update, gc, None)
    data = update.data
    deletes = data[update.deletes_start :]
    if _lies(joiners):
        joiners = _join(update, gc, _find_keyed(update))
    elif gc and any(joiner.keyed for joiner in joiners) and (overwritten := find_overwritten(update)):
        joiners = _join(update, gc, None, overwritten)
        ranges = {entry.client: list(pairs(entry.ranges)) for entry in update.deletes}
        for client, clocks in overwritten.items():
            ranges.setdefault(client, []).extend((clock, clock + 1) for clock in clocks)
        deletes = encode_delete_set(ranges)
    pieces = [encode_var_uint(len(joiners))]
    for joiner in joiners:
        pieces += joiner.encode()
    pieces.append(deletes)
    compacted = b"".join(pieces)
    # The index is made by reading the result again, so a result that clients would refuse raises here.
    return Compacted(compacted, encode_index(compacted))


def _join(
    update: Update, gc: bool, keyed: dict[int, list[int]] | None, overwritten: Mapping[int, list[int]] = _NONE
) -> list[_Joiner]:
    """Rewrite all struct lists; ``keyed`` are the clocks under a key, ranges of each client, if the info bytes lie.

    ``overwritten`` are clocks, ascending, that are deleted too.
    """
    deletes = {entry.client: entry for entry in update.deletes}
    joiners: list[_Joiner] = []
    for section in update.sections:
        if not joiners or joiners[-1].client != section.client:
            entry = deletes.get(section.client)
            under = None if keyed is None else keyed.get(section.client, [])
            joiners.append(
                _Joiner(update.data, section, _ranges(entry, overwritten.get(section.client, ())), gc, under)
            )
        joiners[-1].add(section)
    return joiners


def _lies(joiners: list[_Joiner]) -> bool:
    """Tell whether a struct does not say that it lies under a key, although what it refers to does."""
    keyed = {joiner.client: joiner.keyed for joiner in joiners if joiner.keyed}
    if not keyed:
        return False
    for joiner in joiners:
        if joiner.lies:
            return True
        for client, clock in joiner.references:
            ranges = keyed.get(client)
            if ranges and bisect_right(ranges, clock) & 1:
                return True
    return False


def _find_keyed(update: Update) -> dict[int, list[int]]:
    """Find what lies under a key as yjs does: at its parent a struct says so itself, else what it refers to does.

    Returns ranges of clocks of each client: start, end, start, end ..., merged. Its time is linear in the structs, for
    a document in which somebody lied may hold nothing but lies.
    """
    starts: dict[int, list[int]] = {}
    # Of each struct: whether it lies under a key, or the id that says it.
    says: dict[int, list[bool | tuple[int, int]]] = {}
    for section in update.sections:
        begins = starts.setdefault(section.client, [])
        found = says.setdefault(section.client, [])
        for struct in walk(update.data, section.start, section.stop, section.clock):
            begins.append(struct.clock)
            found.append(struct.origin or struct.right or struct.info & 32 > 0)
    keyed: dict[int, list[int]] = {}
    for client, found in says.items():
        ranges = keyed[client] = []
        for at, said in enumerate(found):
            passed: list[tuple[list[bool | tuple[int, int]], int]] = []
            there, behind = found, at
            while not isinstance(said, bool):
                # Until it is known: two that wait for each other lie under nothing.
                there[behind] = False
                passed.append((there, behind))
                other, clock = said
                behind = bisect_right(starts.get(other, []), clock) - 1
                if behind < 0:
                    said = False  # it is not there: the update is no whole document
                else:
                    there = says[other]
                    said = there[behind]
            for there, behind in passed:
                there[behind] = said
            if said:
                start = starts[client][at]
                end = starts[client][at + 1] if at + 1 < len(found) else _NEVER
                if ranges and ranges[-1] == start:
                    ranges[-1] = end
                else:
                    ranges += (start, end)
    return keyed


def _ranges(entry: Deletes | None, more: Sequence[int]) -> list[tuple[int, int]]:
    """Return a client's deleted ranges as (start, end), ascending and merged, with a last one that is never reached.

    ``more`` are single clocks that are deleted too.
    """
    merged = merge_ranges([*(pairs(entry.ranges) if entry is not None else ()), *((at, at + 1) for at in more)])
    merged.append((_NEVER, _NEVER))
    return merged


class _Joiner:
    """One client's struct list, being rewritten.

    The open struct is the last one, to which the next may be joined: ``_head`` is its info byte, origins and
    parent, ``_right`` its right origin as written, ``_parts`` its content behind the count or size, ``_length`` its
    clocks (the sum, where the content is nothing else).

    ``keyed`` are the ranges of clocks whose structs say that they lie under a key. ``references`` are the ids to which
    those refer that do not say so; ``lies`` tells that one of these goes on where one under a key ends. `_lies` looks
    at them. If there is ``_under``, ranges of clocks, it is these that lie under a key, whatever the structs say.
    """

    __slots__ = (
        "_count",
        "_data",
        "_gc",
        "_head",
        "_kind",
        "_length",
        "_out",
        "_own",
        "_parts",
        "_ranges",
        "_right",
        "_start",
        "_under",
        "client",
        "keyed",
        "lies",
        "references",
    )

    def __init__(
        self, data: bytes, section: Section, ranges: list[tuple[int, int]], gc: bool, under: list[int] | None
    ) -> None:
        self.client = section.client
        self._data = data
        self._gc = gc
        self._own = encode_var_uint(section.client)
        self._start = section.clock
        self._ranges = ranges
        self._under = under
        self.keyed: list[int] = []
        self.lies = False
        self.references: list[tuple[int, int]] = []
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
        was_keyed = False  # the struct before this one
        under = self._under
        keyed_ranges = self.keyed
        references = self.references
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
                was_keyed = False
                continue
            follows = False
            keyed = info & 32 > 0
            if info & 128:
                if data.startswith(own, pos):
                    pos += own_size
                    value = data[pos]
                    pos += 1
                    if value > 127:
                        value, pos = read_var_uint(data, pos - 1)
                    follows = value == clock - 1
                    if not keyed and not follows:
                        references.append((self.client, value))
                else:
                    other, pos = read_var_uint(data, pos)
                    value, pos = read_var_uint(data, pos)
                    if not keyed:
                        references.append((other, value))
            elif info & 64 and not keyed:
                other, value = read_var_uint(data, pos)
                references.append((other, read_var_uint(data, value)[0]))
            if was_keyed and follows and not keyed:
                self.lies = True
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
            if under is not None:
                keyed = bisect_right(under, clock) & 1 > 0
            elif keyed:
                if keyed_ranges and keyed_ranges[-1] == clock:
                    keyed_ranges[-1] = end
                else:
                    keyed_ranges += (clock, end)
            was_keyed = keyed

            while gone_to <= clock:
                gone_from, gone_to = next(ranges)
            deleted = gone_from <= clock
            if deleted and end <= gone_to and gc:
                kind = DELETED
                values = pos
            elif gc and gone_from < end and kind != DELETED and not keyed:
                # Covered in part, and a string or a list of values, as the others have one clock.
                self._split(info, kind, clock, length, content, right_from, right_to, begin, values, pos)
                clock = end
                continue

            if kind in _JOINABLE and (kind == DELETED or not keyed):
                if (
                    follows
                    and kind == self._kind
                    and data[right_from:right_to] == self._right
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
            if follows and piece_kind == self._kind and right == self._right:
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
