"""Ranges of clocks of each client, each with a number that says something of it.

Strategy: the ranges of a client are three lists side by side, ascending and without overlap; neighbours with the same
number are one. What was there first stays: of two who are said to have written a clock, the first row has it. What is
added usually follows on what is there; the rest is sorted and put between, many at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

Range = tuple[int, int, int]
"""The first clock, the clock behind the last one, and the number."""

_by_start = itemgetter(0)


class RangeMap:
    """Numbers of ranges of clocks, client by client."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[int, tuple[list[int], list[int], list[int]]] = {}

    def __len__(self) -> int:
        """Return how many ranges there are."""
        return sum(len(starts) for starts, _, _ in self._of.values())

    def __contains__(self, client: int) -> bool:
        """Tell whether there are ranges of a client."""
        return client in self._of

    def __eq__(self, other: object) -> bool:
        """Tell whether two say the same."""
        return isinstance(other, RangeMap) and self._of == other._of

    __hash__ = None  # type: ignore[assignment]

    @property
    def clients(self) -> list[int]:
        """The clients of which there are ranges, ascending."""
        return sorted(self._of)

    def of(self, client: int) -> list[Range]:
        """Return the ranges of a client, ascending."""
        found = self._of.get(client)
        return [] if found is None else list(zip(*found, strict=True))

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """Give all ranges: client, start, end, number; clients and clocks ascending."""
        for client in self.clients:
            for start, end, number in zip(*self._of[client], strict=True):
                yield client, start, end, number

    def columns(self, client: int) -> tuple[list[int], list[int], list[int]]:
        """Return starts, ends and numbers of a client, which nobody may change; empty if there are none."""
        return self._of.get(client, ([], [], []))

    def put(self, client: int, starts: list[int], ends: list[int], numbers: list[int]) -> None:
        """Take the ranges of a client that has none yet: ascending, without overlap and not empty."""
        if starts:
            self._of[client] = (starts, ends, numbers)

    def add(self, client: int, start: int, end: int, number: int) -> None:
        """Give [start, end) a number, as far as it has none."""
        found = self._of.get(client)
        if found is not None and found[1][-1] == start and found[2][-1] == number:
            found[1][-1] = end
        else:
            self.add_all([(client, start, end, number)])

    def add_all(self, entries: Iterable[tuple[int, int, int, int]]) -> None:
        """Give ranges (client, start, end, number) their numbers, in order, as far as they have none."""
        late: dict[int, list[Range]] = {}
        for client, start, end, number in entries:
            if client in late:
                late[client].append((start, end, number))
                continue
            found = self._of.get(client)
            if found is None:
                self._of[client] = ([start], [end], [number])
                continue
            starts, ends, numbers = found
            last = ends[-1]
            if start > last or (start == last and number != numbers[-1]):
                starts.append(start)
                ends.append(end)
                numbers.append(number)
            elif start == last:
                ends[-1] = end
            else:
                late[client] = [(start, end, number)]
        for client, ranges in late.items():
            self._put_between(client, ranges)

    def _put_between(self, client: int, new: list[Range]) -> None:
        """Add ranges that lie before the last one of their client."""
        ordered = sorted(new, key=_by_start)
        if any(one[1] > other[0] for one, other in zip(ordered, ordered[1:], strict=False)):
            first = RangeMap()
            for start, end, number in new:
                free = first.missing(client, start, end)
                first._merge(client, [(low, high, number) for low, high in free])
            ordered = first.of(client)
        fresh: list[Range] = []
        for start, end, number in ordered:
            fresh += [(low, high, number) for low, high in self.missing(client, start, end)]
        self._merge(client, fresh)

    def _merge(self, client: int, fresh: list[Range]) -> None:
        """Put ranges between those that are there, none of which they touch."""
        if not fresh:
            return
        starts: list[int] = []
        ends: list[int] = []
        numbers: list[int] = []
        for start, end, number in sorted([*self.of(client), *fresh], key=_by_start):
            if ends and ends[-1] == start and numbers[-1] == number:
                ends[-1] = end
            else:
                starts.append(start)
                ends.append(end)
                numbers.append(number)
        self._of[client] = (starts, ends, numbers)

    def within(self, client: int, start: int, end: int) -> list[Range]:
        """Return what is known of [start, end): ranges cut to it, ascending."""
        found = self._of.get(client)
        if found is None:
            return []
        starts, ends, numbers = found
        at = bisect_right(ends, start)
        result: list[Range] = []
        while at < len(starts) and starts[at] < end:
            result.append((max(start, starts[at]), min(end, ends[at]), numbers[at]))
            at += 1
        return result

    def missing(self, client: int, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) of which nothing is known."""
        result: list[tuple[int, int]] = []
        for low, high, _ in self.within(client, start, end):
            if low > start:
                result.append((start, low))
            start = high
        if start < end:
            result.append((start, end))
        return result

    def find(self, client: int, clock: int) -> int | None:
        """Return the number of a clock; None if it has none."""
        found = self.within(client, clock, clock + 1)
        return found[0][2] if found else None

    def choose(self, accept: Callable[[int], bool]) -> RangeMap:
        """Return the ranges whose numbers are accepted."""
        chosen = RangeMap()
        chosen.add_all(entry for entry in self if accept(entry[3]))
        return chosen

    def common(self, other: RangeMap) -> RangeMap:
        """Return what is in both, with the numbers of this one."""
        both = RangeMap()
        for client in self._of.keys() & other._of.keys():
            for start, end, number in self.of(client):
                both.add_all((client, low, high, number) for low, high, _ in other.within(client, start, end))
        return both

    def pairs(self) -> dict[int, list[tuple[int, int]]]:
        """Return (start, end) ranges of each client, ascending and merged, without their numbers."""
        result: dict[int, list[tuple[int, int]]] = {}
        for client, start, end, _ in self:
            ranges = result.setdefault(client, [])
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
        return result


def from_pairs(ranges: dict[int, list[tuple[int, int]]], number: int = 0) -> RangeMap:
    """Make a map in which all ranges have one number; they may come in any order and overlap."""
    made = RangeMap()
    made.add_all((client, start, end, number) for client, found in ranges.items() for start, end in found)
    return made


def places(gaps: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return starts and ends of ranges, of which the gaps before them and the lengths, less one, are told."""
    starts: list[int] = []
    ends: list[int] = []
    clock = 0
    for gap, length in zip(gaps, lengths, strict=True):
        clock += gap
        starts.append(clock)
        clock += length + 1
        ends.append(clock)
    return starts, ends
