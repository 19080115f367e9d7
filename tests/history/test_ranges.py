"""Ranges of clocks with numbers, compared with a dictionary of clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collab.history.ranges import RangeMap, from_pairs

_entry = st.tuples(st.integers(1, 3), st.integers(0, 60), st.integers(1, 12), st.integers(0, 3))


def _clocks(ranges: RangeMap) -> dict[tuple[int, int], int]:
    return {(client, clock): number for client, start, end, number in ranges for clock in range(start, end)}


@given(st.lists(st.lists(_entry, max_size=12), max_size=4))
def test_what_was_first_stays_in_whatever_order_ranges_come(batches: list[list[tuple[int, int, int, int]]]) -> None:
    ranges, expected = RangeMap(), {}
    for batch in batches:
        ranges.add_all((client, start, start + length, number) for client, start, length, number in batch)
        for client, start, length, number in batch:
            for clock in range(start, start + length):
                expected.setdefault((client, clock), number)
    assert _clocks(ranges) == expected
    for client in ranges.clients:
        found = ranges.of(client)
        assert all(start < end for start, end, _ in found)
        # Ascending, and neighbours of one number are one range.
        assert all(a[1] < b[0] or (a[1] == b[0] and a[2] != b[2]) for a, b in zip(found, found[1:], strict=False))
    for client in range(4):
        for clock in range(80):
            assert ranges.find(client, clock) == expected.get((client, clock))
    free = {clock for start, end in ranges.missing(1, 5, 50) for clock in range(start, end)}
    assert free == {clock for clock in range(5, 50) if (1, clock) not in expected}


@given(st.lists(_entry, max_size=12), st.lists(_entry, max_size=12))
def test_what_two_have_in_common(one: list[tuple[int, int, int, int]], other: list[tuple[int, int, int, int]]) -> None:
    maps = []
    for entries in (one, other):
        made = RangeMap()
        made.add_all((client, start, start + length, number) for client, start, length, number in entries)
        maps.append(made)
    first, second = (_clocks(each) for each in maps)
    assert _clocks(maps[0].common(maps[1])) == {each: first[each] for each in first.keys() & second.keys()}
    assert _clocks(maps[0].choose(lambda number: number > 1)) == {k: v for k, v in first.items() if v > 1}
    assert _clocks(from_pairs(maps[0].pairs())) == dict.fromkeys(first, 0)
