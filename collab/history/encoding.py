"""The bytes that say who has inserted and who has deleted what.

Strategy: they outlive the rows that they were made of, so they have to be small beside the document. Numbers stand in
columns, those of all clients one behind the other, each column with what is likely in it (``collab.history.columns``):

- Each client has a table of its marks, ascending, and a range says which of them it has. Nobody deletes what is not
  there yet: so the count begins with the first mark that is not older than that of the insertion, and goes on from the
  beginning of the table. A range that touches the one before often has the mark of the one before that: somebody has
  deleted all around what was deleted already. With one mark a range says nothing.
- The marks of insertions usually come in the order of the table.
- Ranges are cut where others touch them, so lengths are split by that. Old text has been deleted from more often, so
  gaps are split by quarters of a client's ranges.

    "CHA", version, checksum, then the columns

==============================  ==================================================================================
column                          what
==============================  ==================================================================================
counts                          the number of the row; how many texts, marks and clients there are
texts                           the length of each text, and all of them
marks                           author, on behalf of, label; how the first time changes; the seconds
clients                         the gap to the one before, whether it has insertions, and whether deletions
insertions, deletions           of each client the number of its ranges and of its marks; the tables; of all ranges the
                                gaps before them, the lengths, less one, and the marks
==============================  ==================================================================================

Two versions before are read, too (``collab.history.encodings_before``).
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, compress
from typing import Final

from collab.errors import DecodeError
from collab.history import encodings_before
from collab.history.attribution import Attribution, Mark, Who
from collab.history.columns import ColumnReader, ColumnWriter, unzigzag, zigzag
from collab.history.ranges import RangeMap, places

MAX_BYTES: Final = 64 << 20
"""Bytes of an attribution when it is unpacked: what is kept was made by this code, so more is damage."""

_MAGIC: Final = b"CHA\x03"
"""The first bytes; the last of them is the version of the encoding."""

# Into how many cases columns are split.
_QUARTERS: Final = 4
_TOUCHING: Final = 3
_MOST_BITS: Final = 6
_CHOICES: Final = 2 * (_MOST_BITS + 1)


def encode_attribution(attribution: Attribution) -> bytes:
    """Encode an attribution: four bytes with the version, a checksum of what follows, and that."""
    insertions, deletions = attribution.insertions, attribution.deletions
    texts: dict[str, int] = {}
    named = [
        [0 if text is None else texts.setdefault(text, len(texts)) + 1 for text in mark.who]
        for mark in attribution.marks
    ]
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    columns = ColumnWriter()
    clients = sorted({*insertions.clients, *deletions.clients})
    columns.write([attribution.seq, len(texts), len(named), len(clients)])
    columns.write([len(text) for text in encoded])
    columns.write_bytes(b"".join(encoded))
    for place in range(len(Who._fields)):
        columns.write([names[place] for names in named])
    firsts = [mark.first for mark in attribution.marks]
    columns.write([zigzag(first - before) for first, before in zip(firsts, [0, *firsts], strict=False)])
    columns.write([mark.last - mark.first for mark in attribution.marks])
    columns.write([client - before for client, before in zip(clients, [0, *clients], strict=False)])
    for ranges in (insertions, deletions):
        columns.write([int(client in ranges) for client in clients])
    _write_ranges(columns, insertions, None)
    _write_ranges(columns, deletions, insertions)
    body = columns.data()
    return _MAGIC + zlib.crc32(body).to_bytes(4) + body


def decode_attribution(data: bytes) -> Attribution:
    """Decode what `encode_attribution` gave, of this version or of one before.

    Raises:
        DecodeError: it is damaged, or of another release.
    """
    version, body = data[:4], data[8:]
    if version != _MAGIC and version not in encodings_before.VERSIONS:
        raise DecodeError("an attribution is in an encoding that this release does not know")
    if zlib.crc32(body).to_bytes(4) != data[4:8]:
        raise DecodeError("an attribution is damaged")
    try:
        if version != _MAGIC:
            return encodings_before.decode(version, body, MAX_BYTES)
        return _decode(ColumnReader(body, MAX_BYTES))
    except (zlib.error, IndexError, ValueError) as error:
        raise DecodeError(f"an attribution cannot be read: {error}") from None


def _decode(columns: ColumnReader) -> Attribution:
    seq, texts_count, marks_count, clients_count = columns.read(4)
    texts: list[str | None] = [None]
    lengths = columns.read(texts_count)
    together = columns.read_bytes()
    if sum(lengths) != len(together):
        raise ValueError("the texts are cut off")
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        texts.append(together[end - length : end].decode("utf-8", "surrogatepass"))
    named = [columns.read(marks_count) for _ in Who._fields]
    firsts = accumulate(map(unzigzag, columns.read(marks_count)))
    marks = [
        Mark(Who(texts[author], texts[on_behalf_of], texts[label]), first, first + seconds)
        for author, on_behalf_of, label, first, seconds in zip(*named, firsts, columns.read(marks_count), strict=True)
    ]
    clients = list(accumulate(columns.read(clients_count)))
    if any(one >= other for one, other in zip(clients, clients[1:], strict=False)):
        raise ValueError("a client is there twice")
    inserted, deleted = (list(compress(clients, columns.read(clients_count))) for _ in range(2))
    insertions = _read_ranges(columns, inserted, len(marks), None)
    deletions = _read_ranges(columns, deleted, len(marks), insertions)
    columns.end()
    return Attribution(seq, marks, insertions, deletions)


def _write_ranges(columns: ColumnWriter, ranges: RangeMap, insertions: RangeMap | None) -> None:
    """Add ranges of deletions, where insertions are given, or of insertions."""
    sizes: list[int] = []
    steps: list[int] = []
    gaps: list[int] = []
    lengths: list[int] = []
    which: list[int] = []
    cases: list[int] = []
    counts: list[int] = []
    for client in ranges.clients:
        starts, ends, numbers = ranges.columns(client)
        counts.append(len(starts))
        table = sorted(set(numbers))
        sizes.append(len(table))
        steps.append(zigzag(table[0] - _first_mark(insertions, client)))
        steps += [number - before - 1 for number, before in zip(table[1:], table, strict=False)]
        behind = [start - end for start, end in zip(starts, [0, *ends], strict=False)]
        gaps += behind
        lengths += [end - start - 1 for start, end in zip(starts, ends, strict=True)]
        if len(table) > 1:
            nearest = None if insertions is None else _nearest(table, starts, insertions, client)
            which += _choices(table, numbers, behind, nearest)
            cases += _cases(table, behind, nearest)
    columns.write(counts)
    columns.write(sizes)
    columns.write(steps)
    columns.write_by_case(gaps, _quarters(counts), _QUARTERS)
    columns.write_by_case(lengths, _touching(gaps), _TOUCHING)
    columns.write_by_case(which, cases, _CHOICES)


def _read_ranges(columns: ColumnReader, clients: list[int], marks: int, insertions: RangeMap | None) -> RangeMap:
    """Read ranges of clients, with numbers of so many marks; see ``_write_ranges``."""
    counts, sizes = columns.read(len(clients)), columns.read(len(clients))
    if not all(counts) or not all(sizes):
        raise ValueError("a client without ranges, or without marks")
    steps = iter(columns.read(sum(sizes)))
    tables: list[list[int]] = []
    for client, size in zip(clients, sizes, strict=True):
        first = _first_mark(insertions, client) + unzigzag(next(steps))
        table = list(accumulate((next(steps) + 1 for _ in range(size - 1)), initial=first))
        if first < 0 or table[-1] >= marks:
            raise ValueError("a mark that is not there")
        tables.append(table)
    gaps = columns.read_by_case(sum(counts), lambda: _quarters(counts), _QUARTERS)
    lengths = columns.read_by_case(len(gaps), lambda: _touching(gaps), _TOUCHING)
    found: list[tuple[int, list[int], list[int], list[int], list[int], list[int] | None]] = []
    at = 0
    for client, many, table in zip(clients, counts, tables, strict=True):
        behind = gaps[at : at + many]
        starts, ends = places(behind, lengths[at : at + many])
        nearest = None if insertions is None else _nearest(table, starts, insertions, client)
        found.append((client, table, starts, ends, behind, nearest))
        at += many
    split = [(table, behind, nearest) for _, table, _, _, behind, nearest in found if len(table) > 1]
    which = iter(
        columns.read_by_case(
            sum(len(behind) for _, behind, _ in split),
            lambda: list(chain.from_iterable(_cases(*one) for one in split)),
            _CHOICES,
        )
    )
    ranges = RangeMap()
    for client, table, starts, ends, behind, nearest in found:
        numbers = _chosen(table, which, behind, nearest) if len(table) > 1 else table * len(starts)
        ranges.put(client, starts, ends, numbers)
    return ranges


def _first_mark(insertions: RangeMap | None, client: int) -> int:
    """Return the mark of the first clocks of a client that are known; 0 if none are."""
    numbers = [] if insertions is None else insertions.columns(client)[2]
    return numbers[0] if numbers else 0


def _nearest(table: Sequence[int], starts: Sequence[int], insertions: RangeMap, client: int) -> list[int]:
    """Return for each range the place of the first mark in the table that is not older than its insertion."""
    _, ends, numbers = insertions.columns(client)
    if not ends:
        return [0] * len(starts)
    begins = [bisect_left(table, number) for number in numbers]
    found: list[int] = []
    at, last = 0, len(ends) - 1
    for start in starts:
        while at < last and ends[at] <= start:
            at += 1
        found.append(begins[at])
    return found


def _choices(
    table: Sequence[int], numbers: Sequence[int], gaps: Sequence[int], nearest: Sequence[int] | None
) -> list[int]:
    """Say which marks of a table ranges have: 0 that of the range before the last one, else the steps to it plus one.

    The steps begin at the nearest mark; without those, behind the mark of the range before.
    """
    places = {number: place for place, number in enumerate(table)}
    size = len(table)
    which: list[int] = []
    earlier = last = -1
    for at, number in enumerate(numbers):
        place = places[number]
        if place == earlier and not gaps[at]:
            which.append(0)
        else:
            which.append((place - (last + 1 if nearest is None else nearest[at])) % size + 1)
        earlier, last = last, place
    return which


def _chosen(
    table: Sequence[int], which: Iterator[int], gaps: Sequence[int], nearest: Sequence[int] | None
) -> list[int]:
    """Return the marks of which ``_choices`` has told."""
    size = len(table)
    numbers: list[int] = []
    earlier = last = -1
    for at in range(len(gaps)):
        steps = next(which)
        if steps:
            place = ((last + 1 if nearest is None else nearest[at]) + steps - 1) % size
        else:
            place = earlier
            if place < 0:
                raise ValueError("a mark before the first one")
        numbers.append(table[place])
        earlier, last = last, place
    return numbers


def _cases(table: Sequence[int], gaps: Sequence[int], nearest: Sequence[int] | None) -> list[int]:
    """Return which choices are alike: by how many marks are likely, and whether the range touches the one before."""
    if nearest is None:
        return [0] * len(gaps)
    size = len(table)
    return [
        2 * min((size - place).bit_length(), _MOST_BITS) + (not gap) for place, gap in zip(nearest, gaps, strict=True)
    ]


def _quarters(counts: Sequence[int]) -> list[int]:
    """Return in which quarter of the ranges of its client each one is."""
    return [_QUARTERS * at // count for count in counts for at in range(count)]


def _touching(gaps: Sequence[int]) -> list[int]:
    """Return how many ranges each one touches, as far as gaps tell."""
    return [(not gap) + (not behind) for gap, behind in zip(gaps, [*gaps[1:], 1], strict=False)]
