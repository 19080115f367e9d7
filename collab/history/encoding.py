"""The bytes that say who has inserted and who has deleted what.

Strategy: they outlive the rows that they were made of, so they have to be small beside the document. Numbers stand in
columns of varints, those of all clients one behind the other, and each column is packed for itself: what is alike
stands together. Few people write with one client ID, and few delete what it has written. So each client has a table of
its marks, in the order of their first ranges, and a range says which of the last ones it is: 0 the next of the table, 1
the last one that has come. With one mark it says nothing.

    "CHA", version, checksum, then for each stream its length and its bytes, packed

==============================  ==================================================================================
stream                          what
==============================  ==================================================================================
1                               the number of the row, the texts, and of the marks five columns
2, 6 (inserted, deleted)        of each client: the gap to the one before, its ranges, and its table
3, 7                            the clocks between ranges
4, 8                            the lengths, less one
5, 9                            which mark
==============================  ==================================================================================

The version before had all of this in one stream, with the changes of marks from range to range. It is read, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from collab.errors import DecodeError
from collab.history.attribution import Attribution, Mark, Who
from collab.history.ranges import RangeMap
from collab.protocol.lib0 import encode_var_uint, read_var_uint

MAX_BYTES: Final = 256 << 20
"""Bytes of an attribution when it is unpacked: what is kept was made by this code, so more is damage."""

_MAGIC: Final = b"CHA\x02"
"""The first bytes; the last of them is the version of the encoding."""
_BEFORE: Final = b"CHA\x01"

_STREAMS: Final = 9

# Without the header and the checksum of zlib: there is one for all streams.
_RAW: Final = -15


def encode_attribution(attribution: Attribution) -> bytes:
    """Encode an attribution: four bytes with the version, a checksum of what follows, and that, packed."""
    streams = [_encode_head(attribution)]
    for ranges in (attribution.insertions, attribution.deletions):
        streams += _encode_ranges(ranges)
    body = bytearray()
    for stream in streams:
        packed = _pack(stream) if stream else b""
        body += encode_var_uint(len(packed)) + packed
    return _MAGIC + zlib.crc32(body).to_bytes(4) + body


def decode_attribution(data: bytes) -> Attribution:
    """Decode what `encode_attribution` gave, of this version or of the one before.

    Raises:
        DecodeError: it is damaged, or of another release.
    """
    if data[:4] not in (_MAGIC, _BEFORE):
        raise DecodeError("an attribution is in an encoding that this release does not know")
    body = data[8:]
    if zlib.crc32(body).to_bytes(4) != data[4:8]:
        raise DecodeError("an attribution is damaged")
    try:
        if data[:4] == _BEFORE:
            return _decode_before(_unpack(body, zlib.MAX_WBITS, MAX_BYTES))
        streams: list[bytes] = []
        pos, left = 0, MAX_BYTES
        for _ in range(_STREAMS):
            size, pos = read_var_uint(body, pos)
            stream = _unpack(body[pos : pos + size], _RAW, left) if size else b""
            streams.append(stream)
            pos, left = pos + size, left - len(stream)
        if pos != len(body):
            raise ValueError("bytes behind its end")
        seq, marks, end = _decode_head(streams[0])
        if end != len(streams[0]):
            raise ValueError("bytes behind the marks")
        return Attribution(
            seq, marks, _decode_ranges(streams[1:5], len(marks)), _decode_ranges(streams[5:9], len(marks))
        )
    except (zlib.error, IndexError, ValueError) as error:
        raise DecodeError(f"an attribution cannot be read: {error}") from None


def _pack(stream: bytes) -> bytes:
    """Pack a stream in the way that makes it shortest: many have frequent values, and nothing else that repeats."""
    found: list[bytes] = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE):
        packing = zlib.compressobj(9, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, strategy)
        found.append(packing.compress(stream) + packing.flush())
    return min(found, key=len)


def _unpack(packed: bytes, bits: int, most: int) -> bytes:
    unpacking = zlib.decompressobj(bits)
    body = unpacking.decompress(packed, most + 1)
    if len(body) > most or unpacking.unconsumed_tail or unpacking.unused_data or not unpacking.eof:
        raise ValueError("it is too long, or cut off")
    return body


def _encode_head(attribution: Attribution) -> bytes:
    """Encode the number of the row, and the marks: three texts, how the first time changes, and the seconds of it."""
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
    return b"".join(parts)


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
    for author, on_behalf_of, label, delta, seconds in zip(*columns, strict=True):
        first += _unzigzag(delta)
        marks.append(Mark(Who(texts[author], texts[on_behalf_of], texts[label]), first, first + seconds))
    return seq, marks, pos


def _encode_ranges(ranges: RangeMap) -> list[bytes]:
    clients = ranges.clients
    heads = [len(clients)]
    gaps: list[int] = []
    lengths: list[int] = []
    which: list[int] = []
    last = 0
    for client in clients:
        starts, ends, numbers = ranges.columns(client)
        gaps += [start - end for start, end in zip(starts, [0, *ends[:-1]], strict=True)]
        lengths += [end - start - 1 for start, end in zip(starts, ends, strict=True)]
        table = list(dict.fromkeys(numbers))
        heads += (client - last, len(starts), len(table))
        heads += [_zigzag(number - before) for number, before in zip(table, [0, *table[:-1]], strict=True)]
        last = client
        if len(table) > 1:
            places = {number: place for place, number in enumerate(table)}
            seen = 0
            for number in numbers:
                place = places[number]
                which.append(seen - place)
                if place == seen:
                    seen += 1
    return [_encode_column(column) for column in (heads, gaps, lengths, which)]


def _decode_ranges(streams: Sequence[bytes], marks: int) -> RangeMap:
    ranges = RangeMap()
    heads, *columns = streams
    places = [0, 0, 0]
    clients, pos = read_var_uint(heads, 0)
    client = 0
    for _ in range(clients):
        gap, pos = read_var_uint(heads, pos)
        client += gap
        count, pos = read_var_uint(heads, pos)
        known, pos = read_var_uint(heads, pos)
        changes, pos = _decode_column(heads, pos, known)
        table: list[int] = []
        number = 0
        for change in changes:
            number += _unzigzag(change)
            table.append(number)
        if table and not 0 <= min(table) <= max(table) < marks:
            raise ValueError("a mark that is not there")
        if count and not known:
            raise ValueError("ranges without a mark")
        gaps, places[0] = _decode_column(columns[0], places[0], count)
        lengths, places[1] = _decode_column(columns[1], places[1], count)
        if known > 1:
            which, places[2] = _decode_column(columns[2], places[2], count)
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
        starts, ends = _places(gaps, lengths)
        ranges.put(client, starts, ends, numbers)
    if pos != len(heads) or places != [len(column) for column in columns]:
        raise ValueError("bytes behind the ranges")
    return ranges


def _places(gaps: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the first clocks of ranges, and those behind their last ones."""
    starts: list[int] = []
    ends: list[int] = []
    clock = 0
    for gap, length in zip(gaps, lengths, strict=True):
        clock += gap
        starts.append(clock)
        clock += length + 1
        ends.append(clock)
    return starts, ends


def _decode_before(body: bytes) -> Attribution:
    """Decode the version before."""
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
            changes, pos = _decode_column(body, pos, count)
            numbers: list[int] = []
            number = 0
            for change in changes:
                number += _unzigzag(change)
                numbers.append(number)
            if numbers and not 0 <= min(numbers) <= max(numbers) < len(marks):
                raise ValueError("a mark that is not there")
            ranges.put(client, *_places(gaps, lengths), numbers)
        found.append(ranges)
    if pos != len(body):
        raise ValueError("bytes behind its end")
    return Attribution(seq, marks, *found)


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
