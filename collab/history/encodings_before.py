"""Encodings of attributions that were written before the one of today (``collab.history.encoding``).

Strategy: what is kept outlives the rows that it was made of, so it is read for ever; nothing writes it any more. Both
have columns of varints. The first one is one stream. The second one has nine of them, each packed for itself:

==============================  ==================================================================================
stream                          what
==============================  ==================================================================================
1                               the number of the row, the texts, and of the marks five columns
2, 6 (inserted, deleted)        of each client: the gap to the one before, its ranges, and its table of marks
3, 7                            the clocks between ranges
4, 8                            the lengths, less one
5, 9                            which mark: 0 the next of the table, 1 the last one that has come, and so on
==============================  ==================================================================================

The first one has all of this client by client, and instead of tables the changes of marks from range to range.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from collab.history.attribution import Attribution, Mark, Who
from collab.history.columns import unpack, unzigzag
from collab.history.ranges import RangeMap, places
from collab.protocol.lib0 import read_var_uint

_FIRST: Final = b"CHA\x01"
_SECOND: Final = b"CHA\x02"

VERSIONS: Final = (_FIRST, _SECOND)
"""The first bytes of each."""

_STREAMS: Final = 9


def decode(version: bytes, body: bytes, most: int) -> Attribution:
    """Decode what stands behind the version and the checksum, ``most`` bytes when it is unpacked.

    Raises:
        ValueError, IndexError, DecodeError, zlib.error: it is damaged.
    """
    if version == _FIRST:
        return _decode_first(unpack(body, zlib.MAX_WBITS, most))
    streams: list[bytes] = []
    pos = 0
    for _ in range(_STREAMS):
        size, pos = read_var_uint(body, pos)
        stream = unpack(body[pos : pos + size], -zlib.MAX_WBITS, most) if size else b""
        streams.append(stream)
        pos, most = pos + size, most - len(stream)
    if pos != len(body):
        raise ValueError("bytes behind its end")
    seq, marks, end = _decode_head(streams[0])
    if end != len(streams[0]):
        raise ValueError("bytes behind the marks")
    return Attribution(seq, marks, _decode_ranges(streams[1:5], len(marks)), _decode_ranges(streams[5:9], len(marks)))


def _decode_first(body: bytes) -> Attribution:
    seq, marks, pos = _decode_head(body)
    found: list[RangeMap] = []
    for _ in range(2):
        ranges = RangeMap()
        clients, pos = read_var_uint(body, pos)
        for _ in range(clients):
            client, pos = read_var_uint(body, pos)
            count, pos = read_var_uint(body, pos)
            gaps, pos = _decode_column(body, pos, count)
            lengths, pos = _decode_column(body, pos, count)
            steps, pos = _decode_column(body, pos, count)
            ranges.put(client, *places(gaps, lengths), _marks(steps, len(marks)))
        found.append(ranges)
    if pos != len(body):
        raise ValueError("bytes behind its end")
    return Attribution(seq, marks, *found)


def _decode_head(body: bytes) -> tuple[int, list[Mark], int]:
    """Return the number of the row, the marks, and where they end."""
    seq, pos = read_var_uint(body, 0)
    count, pos = read_var_uint(body, pos)
    texts: list[str | None] = [None]
    for _ in range(count):
        size, pos = read_var_uint(body, pos)
        texts.append(body[pos : pos + size].decode("utf-8", "surrogatepass"))
        pos += size
    count, pos = read_var_uint(body, pos)
    columns: list[list[int]] = []
    for _ in range(5):
        column, pos = _decode_column(body, pos, count)
        columns.append(column)
    marks: list[Mark] = []
    first = 0
    for author, on_behalf_of, label, step, seconds in zip(*columns, strict=True):
        first += unzigzag(step)
        marks.append(Mark(Who(texts[author], texts[on_behalf_of], texts[label]), first, first + seconds))
    return seq, marks, pos


def _decode_ranges(streams: Sequence[bytes], marks: int) -> RangeMap:
    ranges = RangeMap()
    heads, *columns = streams
    ends = [0, 0, 0]
    clients, pos = read_var_uint(heads, 0)
    client = 0
    for _ in range(clients):
        gap, pos = read_var_uint(heads, pos)
        client += gap
        count, pos = read_var_uint(heads, pos)
        known, pos = read_var_uint(heads, pos)
        steps, pos = _decode_column(heads, pos, known)
        table = _marks(steps, marks)
        if count and not known:
            raise ValueError("ranges without a mark")
        gaps, ends[0] = _decode_column(columns[0], ends[0], count)
        lengths, ends[1] = _decode_column(columns[1], ends[1], count)
        if known > 1:
            which, ends[2] = _decode_column(columns[2], ends[2], count)
            numbers: list[int] = []
            seen = 0
            for back in which:
                if back > seen:
                    raise ValueError("a mark before the first one")
                numbers.append(table[seen - back])
                if not back:
                    seen += 1
        else:
            numbers = table * count
        ranges.put(client, *places(gaps, lengths), numbers)
    if pos != len(heads) or ends != [len(column) for column in columns]:
        raise ValueError("bytes behind the ranges")
    return ranges


def _marks(steps: Sequence[int], count: int) -> list[int]:
    """Return numbers of marks, of which each is told by its difference from the one before."""
    numbers = list(accumulate(map(unzigzag, steps)))
    if numbers and not 0 <= min(numbers) <= max(numbers) < count:
        raise ValueError("a mark that is not there")
    return numbers


def _decode_column(body: bytes, pos: int, count: int) -> tuple[list[int], int]:
    if count > len(body) - pos:
        raise ValueError("more values than bytes")
    found = list(body[pos : pos + count])
    if not found or max(found) < 128:
        return found, pos + count
    values: list[int] = []
    for _ in range(count):
        value = body[pos]
        pos += 1
        if value > 127:
            value, pos = read_var_uint(body, pos - 1)
        values.append(value)
    return values, pos
