"""Who has inserted and who has deleted which clocks of a document, and the bytes that say so.

Strategy: both are maps of ranges to the numbers of marks. A mark says who, with what note, and from when to when. What
one person writes without a long pause has one mark, so that hours of typing cost some bytes. The bytes are columns of
varints, packed by zlib, and small beside the document: they outlive the rows that they were made of.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from collab.errors import DecodeError
from collab.history.ranges import RangeMap
from collab.protocol.lib0 import encode_var_uint, read_var_uint

PAUSE_SECONDS: Final = 300.0
"""What somebody writes after a longer pause has a mark of its own."""
LONGEST_SECONDS: Final = 3_600.0
"""So long is the time of one mark at most: who asks when something was written is told the hour."""

MAX_BYTES: Final = 256 << 20
"""Bytes of an attribution when it is unpacked: what is kept was made by this code, so more is damage."""

_MAGIC: Final = b"CHA\x01"
"""The first bytes; the last of them is the version of the encoding."""


class Row(NamedTuple):
    """A row of the log for the history: ``data`` is a v1 update, ``at`` unix seconds, ``author`` who has sent it."""

    seq: int
    data: bytes
    at: float
    author: str | None = None
    on_behalf_of: str | None = None
    label: str | None = None


class Owner(NamedTuple):
    """Whose a client ID is from ``clock`` on (docs/decisions/0024); ``author`` None: each row says it."""

    author: str | None
    clock: int


class Who(NamedTuple):
    """Who has made an edit; ``author`` None is unknown."""

    author: str | None
    on_behalf_of: str | None = None
    label: str | None = None


UNKNOWN: Final = Who(None)


@dataclass(slots=True)
class Mark:
    """Who has made edits, and when: the first and the last of them, in unix seconds, to the second.

    It is the same object while more of them come.
    """

    who: Who
    first: int
    last: int


@dataclass(slots=True)
class Attribution:
    """Who has inserted and who has deleted what, after row ``seq``; the numbers in the maps are places in ``marks``.

    Clocks that are in none of the maps were inserted, or deleted, by rows that nobody has looked at.
    """

    seq: int = 0
    marks: list[Mark] = field(default_factory=list)
    insertions: RangeMap = field(default_factory=RangeMap)
    deletions: RangeMap = field(default_factory=RangeMap)


class Marks:
    """Gives marks to edits that come in the order of their rows.

    Args:
        marks: those that are there, to which others are added.
    """

    def __init__(self, marks: list[Mark]) -> None:
        self._marks = marks
        self._last = {mark.who: number for number, mark in enumerate(marks)}

    def number(self, who: Who, at: float) -> int:
        """Return the number of the mark for an edit; clocks of nodes differ, so the time may go back a little."""
        second = int(at)
        number = self._last.get(who)
        if number is not None:
            mark = self._marks[number]
            close = mark.first - PAUSE_SECONDS <= second <= mark.last + PAUSE_SECONDS
            if close and second - mark.first <= LONGEST_SECONDS:
                if second > mark.last:
                    mark.last = second
                elif second < mark.first:
                    mark.first = second
                return number
        number = self._last[who] = len(self._marks)
        self._marks.append(Mark(who, second, second))
        return number


def encode_attribution(attribution: Attribution) -> bytes:
    """Encode an attribution: four bytes with the version, a checksum of what follows, and that, packed."""
    texts: dict[str, int] = {}
    columns: list[list[int]] = [[], [], [], [], []]
    before = 0
    for mark in attribution.marks:
        for column, text in zip(columns, mark.who, strict=False):
            column.append(0 if text is None else texts.setdefault(text, len(texts)) + 1)
        columns[3].append(_zigzag(mark.first - before))
        columns[4].append(mark.last - mark.first)
        before = mark.first
    parts = [encode_var_uint(attribution.seq), encode_var_uint(len(texts))]
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        parts += (encode_var_uint(len(data)), data)
    parts.append(encode_var_uint(len(attribution.marks)))
    parts += map(_encode_column, columns)
    for ranges in (attribution.insertions, attribution.deletions):
        parts += _encode_ranges(ranges)
    packed = zlib.compress(b"".join(parts), 6)
    return _MAGIC + zlib.crc32(packed).to_bytes(4) + packed


def decode_attribution(data: bytes) -> Attribution:
    """Decode what `encode_attribution` gave.

    Raises:
        DecodeError: it is damaged, or of another release.
    """
    if data[:4] != _MAGIC:
        raise DecodeError("an attribution is in an encoding that this release does not know")
    packed = data[8:]
    if zlib.crc32(packed).to_bytes(4) != data[4:8]:
        raise DecodeError("an attribution is damaged")
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(packed, MAX_BYTES)
        if unpacking.unconsumed_tail or not unpacking.eof:
            raise DecodeError("an attribution is too long, or cut off")
        return _decode(body)
    except (zlib.error, IndexError, ValueError) as error:
        raise DecodeError(f"an attribution cannot be read: {error}") from None


def _decode(body: bytes) -> Attribution:
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
    for author, on_behalf_of, label, delta, seconds in zip(*columns, strict=True):
        first += _unzigzag(delta)
        marks.append(Mark(Who(texts[author], texts[on_behalf_of], texts[label]), first, first + seconds))
    insertions, pos = _decode_ranges(body, pos, count)
    deletions, pos = _decode_ranges(body, pos, count)
    if pos != len(body):
        raise ValueError("bytes behind its end")
    return Attribution(seq, marks, insertions, deletions)


def _encode_ranges(ranges: RangeMap) -> Iterable[bytes]:
    """Encode ranges: of each client the gaps before them, their lengths less one, and how their numbers change."""
    clients = ranges.clients
    yield encode_var_uint(len(clients))
    for client in clients:
        starts, ends, numbers = ranges.columns(client)
        yield encode_var_uint(client)
        yield encode_var_uint(len(starts))
        yield _encode_column([start - end for start, end in zip(starts, [0, *ends[:-1]], strict=True)])
        yield _encode_column([end - start - 1 for start, end in zip(starts, ends, strict=True)])
        yield _encode_column(
            [_zigzag(number - before) for number, before in zip(numbers, [0, *numbers[:-1]], strict=True)]
        )


def _decode_ranges(body: bytes, pos: int, marks: int) -> tuple[RangeMap, int]:
    ranges = RangeMap()
    clients, pos = read_var_uint(body, pos)
    for _ in range(clients):
        client, pos = read_var_uint(body, pos)
        count, pos = read_var_uint(body, pos)
        gaps, pos = _decode_column(body, pos, count)
        lengths, pos = _decode_column(body, pos, count)
        changes, pos = _decode_column(body, pos, count)
        starts: list[int] = []
        ends: list[int] = []
        numbers: list[int] = []
        clock = number = 0
        for gap, length, change in zip(gaps, lengths, changes, strict=True):
            clock += gap
            starts.append(clock)
            clock += length + 1
            ends.append(clock)
            number += (change >> 1) ^ -(change & 1)
            numbers.append(number)
        if numbers and not 0 <= min(numbers) <= max(numbers) < marks:
            raise ValueError("a mark that is not there")
        ranges.put(client, starts, ends, numbers)
    return ranges, pos


def _encode_column(values: Sequence[int]) -> bytes:
    if not values or max(values) < 128:
        return bytes(values)
    return b"".join(map(encode_var_uint, values))


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


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
