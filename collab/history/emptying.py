"""An update without the content of some ranges, and the snapshots of yjs.

Strategy: a struct whose content goes keeps its clocks, origins and parent, and becomes ContentDeleted, as in
compaction; one that lies only partly in a range is cut. Nothing else of the update changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from collab.history.ranges import RangeMap
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.delete_set import encode_delete_set
from collab.update.merge import Run, encode_runs
from collab.update.reader import ANY, DELETED, GC, JSON, STRING, read_update, skip_any
from collab.update.structs import Struct, cut_struct, walk

_ALL = 1 << 62
_FLAGS = 224


def empty(data: bytes, ranges: RangeMap) -> bytes:
    """Take the content of ``ranges`` out of a v1 update; raises UpdateError when that is malformed."""
    update = read_update(data, stored=True)
    runs: dict[int, list[Run]] = {}
    for section in update.sections:
        if not section.count:
            continue
        body, count = data[section.start : section.stop], section.count
        if ranges.within(section.client, section.clock, section.end):
            parts = [
                part
                for struct in walk(data, section.start, section.stop, section.clock)
                for part in _parts(data, struct, section.client, ranges)
            ]
            body, count = b"".join(parts), len(parts)
        runs.setdefault(section.client, []).append(Run(section.client, section.clock, section.end, count, body, ()))
    return encode_runs(runs, data[update.deletes_start :])


def _parts(data: bytes, struct: Struct, client: int, ranges: RangeMap) -> Iterator[bytes]:
    """Give the structs that take the place of one."""
    end = struct.clock + struct.length
    gone = [] if struct.kind in (GC, DELETED) else ranges.within(client, struct.clock, end)
    if not gone:
        yield data[struct.start : struct.stop]
        return
    at = struct.clock
    for low, high, _ in gone:
        if at < low:
            yield _slice(data, struct, client, at, low)
        yield _head(data, struct, client, low, DELETED) + encode_var_uint(high - low)
        at = high
    if at < end:
        yield _slice(data, struct, client, at, end)


def _head(data: bytes, struct: Struct, client: int, clock: int, kind: int) -> bytes:
    """Encode how the part of a struct begins that has ``clock`` first: info, origins, parent."""
    if clock == struct.clock:
        return bytes((struct.info & _FLAGS | kind,)) + data[struct.references : struct.content]
    head = bytes((struct.info & _FLAGS | 128 | kind,)) + encode_var_uint(client) + encode_var_uint(clock - 1)
    if struct.right is not None:
        head += encode_var_uint(struct.right[0]) + encode_var_uint(struct.right[1])
    return head


def _slice(data: bytes, struct: Struct, client: int, start: int, end: int) -> bytes:
    """Encode the clocks [start, end) of a struct of several; half a surrogate pair becomes U+FFFD as in yjs."""
    if start > struct.clock:
        data = cut_struct(data, struct, client, start - struct.clock)
        struct = next(walk(data, 0, len(data), start))
    if end == struct.clock + struct.length:
        return data[struct.start : struct.stop]
    units = end - struct.clock
    head = data[struct.start : struct.content]
    count, pos = read_var_uint(data, struct.content)
    if struct.kind == STRING:
        text = data[pos : struct.stop].decode().encode("utf-16-le")[: 2 * units].decode("utf-16-le", "replace").encode()
        return head + encode_var_uint(len(text)) + text
    stop = pos
    if struct.kind == ANY:
        stop = skip_any(data, pos, [units], _ALL)
    elif struct.kind == JSON:
        for _ in range(units):
            size, stop = read_var_uint(data, stop)
            stop += size
    return head + encode_var_uint(units) + data[pos:stop]


def encode_snapshot(vector: Mapping[int, int], deleted: RangeMap) -> bytes:
    """Encode a Yjs snapshot (yjs ``encodeSnapshot``, v1): the delete set, then the state vector."""
    parts = [encode_delete_set(deleted.pairs()), encode_var_uint(len(vector))]
    for client in sorted(vector, reverse=True):
        parts += (encode_var_uint(client), encode_var_uint(vector[client]))
    return b"".join(parts)
