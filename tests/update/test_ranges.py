"""Many deletes at once: near linear, made ready in slices, and joined in one short step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.update.delete_set import DeleteSet
from collab.update.index import encode_index, open_index
from collab.update.ranges import BLOCK, Ranges, encode_ranges, merge_ranges
from tests.support.build import lines
from tests.support.needs import size

MANY = 20_000


def comb(start: int, step: int, count: int) -> list[tuple[int, int]]:
    return [(at, at + 1) for at in range(start, start + step * count, step)]


def of(ranges: list[tuple[int, int]]) -> Ranges:
    made = Ranges()
    for start, end in ranges:
        made.add(start, end)
    return made


PIECES = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 60)), max_size=40)
COMBS = st.lists(st.tuples(st.integers(0, 3_000), st.integers(2, 4), st.integers(1, 800)), max_size=3)


def drawn(pieces: list[tuple[int, int]], combs: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return merge_ranges(
        [(start, start + length) for start, length in pieces] + [r for one in combs for r in comb(*one)]
    )


@settings(deadline=None, max_examples=size(150, small=40))
@given(PIECES, COMBS, PIECES, COMBS)
def test_a_union_is_what_adding_one_by_one_gives(
    first: list[tuple[int, int]],
    first_combs: list[tuple[int, int, int]],
    more: list[tuple[int, int]],
    more_combs: list[tuple[int, int, int]],
) -> None:
    there, added = drawn(first, first_combs), drawn(more, more_combs)
    one, other = of(there), of(there)
    untouched = one.copy()
    for start, end in added:
        one.add(start, end)
    other.union(added)
    expected = merge_ranges(there + added)
    for made in (one, other):
        assert list(made.within(0, 1 << 32)) == expected
        assert made.nbytes == len(encode_ranges(expected)) == sum(block.nbytes for block in made.blocks)
        assert b"".join(block.encoded() for block in made.blocks) == encode_ranges(expected)
        assert made.firsts == [block.decoded()[0][0] for block in made.blocks]
        assert all(0 < block.count == len(block.decoded()[0]) <= 2 * BLOCK for block in made.blocks)
    assert list(untouched.within(0, 1 << 32)) == there, "a copy is not changed by what the other gets"


@pytest.mark.parametrize("shape", ["behind", "between", "same"])
def test_the_cost_of_many_is_near_linear(shape: str) -> None:
    def cost(count: int) -> int:
        there = Ranges()
        there.union(comb(0, 4, count))
        added = {"behind": comb(4 * count + 2, 2, count), "between": comb(2, 4, count), "same": comb(0, 4, count)}
        return lines(lambda: there.union(added[shape]))

    few, many = cost(MANY // 10), cost(MANY)
    assert many < 12 * few
    assert many < 40 * MANY


def test_one_range_over_many_holes_is_deleted_as_it_is() -> None:
    """Eight bytes of a client; what it leaves is not cut at each of the holes."""
    made = DeleteSet()
    additions = made.additions()
    for at in range(0, MANY, 500):
        additions.add(5, comb(4 * at, 4, 500))
    made.commit(additions)
    assert lines(lambda: made.missing(5, 0, 4 * MANY)) < 100
    assert made.missing(5, 0, 4 * MANY) == [(0, 4 * MANY)]
    assert lines(lambda: made.add(5, 0, 4 * MANY)) < 2_000
    assert made.ranges(5) == [(0, 4 * MANY)] and made.missing(5, 0, 4 * MANY) == []
    assert made.grown == len(made.encode()) - 1


def test_what_is_ready_joins_in_a_short_step() -> None:
    made = DeleteSet()
    for start, end in comb(0, 4, 1_000):
        made.add(5, start, end)
    additions = made.additions()
    for at in range(0, MANY, 500):
        additions.add(5, comb(2 + 4 * at, 4, 500))
    for _ in additions.prepare():
        pass
    assert lines(lambda: made.commit(additions)) < 200
    assert made.ranges(5) == merge_ranges(comb(0, 4, 1_000) + comb(2, 4, MANY))


@pytest.mark.parametrize("seed", range(size(4, small=2)))
def test_what_others_delete_meanwhile_is_kept(seed: int) -> None:
    """By one and by many, before anything is ready, between the slices and after them, and under a new snapshot."""
    choose = random.Random(seed)
    made = DeleteSet()
    model: dict[int, list[tuple[int, int]]] = {}

    def delete(client: int, ranges: list[tuple[int, int]]) -> None:
        model.setdefault(client, []).extend(ranges)

    def others() -> None:
        client = choose.choice((5, 6, 7, 9))
        start = choose.randrange(40_000)
        if not made.add_new(client, start, start + 3):
            made.add(client, start, start + 3)
        delete(client, [(start, start + 3)])
        if choose.random() < 0.2:
            bulk, ranges = made.additions(), comb(choose.randrange(20_000), 3, 700)
            bulk.add(client, ranges)
            made.commit(bulk)
            delete(client, ranges)
        if choose.random() < 0.1:
            data = b"\0" + made.encode()
            snapshot = open_index(data, encode_index(data))
            assert snapshot is not None
            made.add(client, 50_000, 50_001)
            delete(client, [(50_000, 50_001)])
            made.rebase(snapshot.deletes, snapshot.delete_marks)

    others()
    additions = made.additions()
    for client in (5, 6, 8):
        for at in range(0, 9_000, 900):
            additions.add(client, comb(at * 4, 4, 900))
            others()
        delete(client, comb(0, 4, 9_000))
    for client in range(100, 2_000):
        additions.add(client, [(0, 1)])
        delete(client, [(0, 1)])
    slices = 0
    for _ in additions.prepare():
        slices += 1
        if slices < 50:
            others()
    others()
    made.commit(additions)
    assert slices > 5
    for client, ranges in model.items():
        assert made.ranges(client) == merge_ranges(ranges), client
    assert made.clients() == sorted(model, reverse=True)
    assert made.encode() == encoded(model)


def encoded(model: dict[int, list[tuple[int, int]]]) -> bytes:
    made = DeleteSet()
    for client, ranges in model.items():
        for start, end in ranges:
            made.add(client, start, end)
    return made.encode()


def test_a_few_deletes_of_a_client_with_many_cost_no_copy_of_its_blocks() -> None:
    made = DeleteSet()
    additions = made.additions()
    for at in range(0, MANY, 500):
        additions.add(5, comb(4 * at, 4, 500))
    made.commit(additions)
    few = made.additions()
    few.add(5, [(2, 3), (40_002, 40_003)])
    for _ in few.prepare():
        pass
    assert not few.made
    made.commit(few)
    assert made.covers(5, 2, 3) and made.covers(5, 40_002, 40_003) and made.covers(5, 0, 1)
