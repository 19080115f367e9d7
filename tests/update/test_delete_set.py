"""The delete set against a plain set of clocks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.update.delete_set import DeleteSet, encode_delete_set
from collab.update.index import encode_index, open_index
from collab.update.parts import join
from collab.update.ranges import BLOCK, merge_ranges
from collab.update.reader import read_update
from collab.update.region import Region
from tests.support.build import deletes, lines, lines_of_slices, session
from tests.support.needs import size

CLIENTS = (1, 300, 2**53 - 1)
LIMIT = 3_000

RANGES = st.tuples(st.sampled_from(CLIENTS), st.integers(0, LIMIT), st.integers(1, 40))
# Many holes at once, so that blocks are split and melted.
COMBS = st.tuples(st.sampled_from(CLIENTS), st.integers(0, 1_500), st.integers(2, 5), st.integers(1, 600))


class Model:
    """Deleted clocks, one by one."""

    def __init__(self) -> None:
        self.clocks: dict[int, set[int]] = {}

    def add(self, client: int, start: int, end: int) -> None:
        self.clocks.setdefault(client, set()).update(range(start, end))

    def of(self, client: int) -> set[int]:
        return self.clocks.get(client, set())

    def ranges(self, client: int) -> list[tuple[int, int]]:
        clocks = sorted(self.of(client))
        starts = [clock for clock in clocks if clock - 1 not in self.of(client)]
        ends = [clock + 1 for clock in clocks if clock + 1 not in self.of(client)]
        return list(zip(starts, ends, strict=True))

    def encode(self) -> bytes:
        clients = sorted(self.clocks, reverse=True)
        return deletes({client: [(start, end - start) for start, end in self.ranges(client)] for client in clients})


def stored(data: bytes) -> DeleteSet:
    """Open an encoded delete set as that of a stored document."""
    opened = open_index(b"\0" + data, encode_index(b"\0" + data))
    assert opened is not None
    return DeleteSet(opened.deletes, opened.delete_marks)


def check(made: DeleteSet, model: Model, choose: random.Random) -> None:
    assert made.encode() == model.encode()
    assert made.encode() is made.encode()
    about = len(made.encode()) - 1
    assert abs(made.nbytes - about) <= 2 * len(model.clocks) and made.copy().nbytes == made.nbytes
    assert made.clients() == sorted(model.clocks, reverse=True)
    for client in (*CLIENTS, 7):
        assert (client in made) == (client in model.clocks)
        assert made.ranges(client) == model.ranges(client)
        for _ in range(30):
            start = choose.randint(0, LIMIT)
            end = start + choose.choice((1, 2, 5, 300))
            span = set(range(start, end))
            assert made.covers(client, start, end) == (span <= model.of(client))
            missing = made.missing(client, start, end)
            if missing == [(start, end)] and span & model.of(client):
                # With holes that lie in several blocks; something of it is new.
                assert not span <= model.of(client)
                assert len([1 for low, high in model.ranges(client) if low < end and start < high]) > 2
                continue
            assert [clock for low, high in missing for clock in range(low, high)] == sorted(span - model.of(client))
            assert all(low < high for low, high in missing)
            assert all(one[1] < other[0] for one, other in zip(missing, missing[1:], strict=False))


def fill(made: DeleteSet, model: Model, draw: st.DataObject) -> None:
    for client, start, step, count in draw.draw(st.lists(COMBS, max_size=2)):
        for at in range(count):
            clock = start + at * step
            made.add(client, clock, clock + 1)
            model.add(client, clock, clock + 1)
    for client, start, length in draw.draw(st.lists(RANGES, max_size=20)):
        made.add(client, start, start + length)
        model.add(client, start, start + length)
    for client, start, length in draw.draw(st.lists(RANGES, max_size=2)):
        made.add(client, start, start + 20 * length)
        model.add(client, start, start + 20 * length)


@settings(deadline=None, max_examples=size(50, small=10))
@given(st.data())
def test_a_delete_set_is_its_clocks(draw: st.DataObject) -> None:
    """Made by adding, stored and opened, added to, absorbed and put over a newer stored one."""
    choose = random.Random(1)
    made, model = DeleteSet(), Model()
    fill(made, model, draw)
    check(made, model, choose)

    opened = stored(made.encode())
    check(opened, model, choose)
    older = made.encode()
    fill(opened, model, draw)
    check(opened, model, choose)

    # What was added to the opened one comes from the side too.
    beside, added = DeleteSet(), Model()
    fill(beside, added, draw)
    for client in added.clocks:
        for start, end in added.ranges(client):
            model.add(client, start, end)
    added_to = opened.additions()
    for client in added.clocks:
        added_to.add(client, added.ranges(client))
    opened.commit(added_to)
    check(opened, model, choose)

    # A snapshot made before that is put under it.
    data = b"\0" + older
    snapshot = open_index(data, encode_index(data))
    assert snapshot is not None
    opened.rebase(snapshot.deletes, snapshot.delete_marks)
    check(opened, model, choose)


@settings(deadline=None, max_examples=size(60, small=10))
@given(st.data())
def test_an_entry_is_known_by_its_bytes(draw: st.DataObject) -> None:
    made, model = DeleteSet(), Model()
    fill(made, model, draw)
    read = read_update(b"\0" + made.encode())
    for one in (made, stored(made.encode())):
        for entry in read.deletes:
            encoded = read.data[entry.start : entry.stop]
            assert one.has_entry(entry.client, encoded)
            assert not one.has_entry(entry.client + 1, encoded)
            assert not one.has_entry(entry.client, encoded[:-1] + bytes((encoded[-1] + 1 & 127,)))
            one.add(entry.client, LIMIT * 2, LIMIT * 2 + 1)
            assert not one.has_entry(entry.client, encoded)


@settings(deadline=None, max_examples=size(100, small=25))
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=25))
def test_ranges_are_merged(ranges: list[tuple[int, int]]) -> None:
    found = [(start, start + length) for start, length in ranges]
    model = Model()
    for start, end in found:
        model.add(1, start, end)
    assert merge_ranges(found) == model.ranges(1)
    assert encode_delete_set({1: found} if found else {}) == model.encode()


def test_what_a_newly_stored_set_holds_is_not_kept_twice() -> None:
    opened = stored(deletes({5: [(0, 1)]}))
    opened.add(5, 4, 6)
    opened.add(9, 1, 2)
    assert opened.grown > 0
    data = b"\0" + deletes({9: [(1, 1)], 5: [(0, 1), (4, 2)]})
    snapshot = open_index(data, encode_index(data))
    assert snapshot is not None
    opened.rebase(snapshot.deletes, snapshot.delete_marks)
    assert opened.grown == 0
    assert opened.encode() == data[1:]


def test_a_newly_stored_set_may_hold_more_than_was_known() -> None:
    """Another node has written it."""
    opened = stored(deletes({5: [(0, 1)]}))
    opened.add(5, 4, 6)
    data = b"\0" + deletes({5: [(0, 1), (8, 1)]})
    snapshot = open_index(data, encode_index(data))
    assert snapshot is not None
    opened.rebase(snapshot.deletes, snapshot.delete_marks)
    assert opened.encode() == deletes({5: [(0, 1), (4, 2), (8, 1)]})


def test_an_entry_that_does_not_fit_its_index_is_refused() -> None:
    data = deletes({5: [(0, 1), (3, 1)]})
    opened = open_index(b"\0" + data, encode_index(b"\0" + data))
    assert opened is not None
    damaged = DeleteSet(Region(data + b"\7", (5,), 1, (len(data),)), opened.delete_marks)
    with pytest.raises(DecodeError, match="does not fit"):
        damaged.ranges(5)


def test_what_is_deleted_while_additions_are_made_ready_is_kept() -> None:
    """Additions are copies of what there was: the set tells them of each new range, by whichever way it comes."""
    for opened in (DeleteSet(), stored(deletes({5: [(0, 1)]}))):
        before = opened.ranges(5)
        added = opened.additions()
        added.add(5, [(10, 11)])
        for _ in added.prepare():
            pass
        assert opened.add_new(5, 20, 21)
        assert not opened.add_new(5, 19, 22)
        opened.add(5, 30, 31)
        assert opened.ranges(5) == [*before, (20, 21), (30, 31)]
        opened.commit(added)
        assert opened.ranges(5) == [*before, (10, 11), (20, 21), (30, 31)]


def test_encoding_is_canonical_and_golden() -> None:
    made = DeleteSet()
    for client, start, end in ((5, 1, 2), (300, 4, 5), (5, 200, 201), (5, 2, 4)):
        made.add(client, start, end)
    assert made.encode().hex() == "02" + "ac0201" + "0401" + "0502" + "0103" + "c80101"
    assert DeleteSet().encode() == b"\0"


def test_real_delete_sets_round_trip() -> None:
    seen = 0
    for seed in range(6):
        made = DeleteSet()
        model = Model()
        for data in session(seed, edits=40):
            for entry in read_update(data).deletes:
                for clock, length in zip(entry.ranges[::2], entry.ranges[1::2], strict=True):
                    made.add(entry.client, clock, clock + length)
                    model.add(entry.client, clock, clock + length)
                    seen += 1
        assert made.encode() == model.encode()
        assert stored(made.encode()).encode() == made.encode()
    assert seen > 30


def test_one_delete_among_many_is_little_work() -> None:
    many = size(100_000, small=20_000)
    data = deletes({5: [(at * 3, 1) for at in range(many)]})
    made = stored(data)
    made.add(5, many // 2 * 3 + 1, many // 2 * 3 + 2)
    made.encode()

    def delete() -> None:
        made.add(5, many // 5 * 3 + 1, many // 5 * 3 + 2)

    # One block is decoded.
    assert lines(delete) < 50 * BLOCK
    # One block is encoded anew, and each of the others is looked at.
    assert lines(lambda: made.encode()) < 10 * BLOCK + 10 * many / BLOCK
    assert len(made.ranges(5)) == many


def test_what_has_changed_everywhere_is_encoded_in_slices() -> None:
    """Also that of one client: each of its blocks has another range than when it was encoded."""
    many = 20_000
    made = stored(deletes({5: [(at * 3, 1) for at in range(many)]}))
    for at in range(0, many, BLOCK):
        made.add(5, at * 3 + 1, at * 3 + 2)
    steps, pieces = lines_of_slices(made.pieces())
    assert join(pieces) == made.encode()
    assert len(steps) > 5 and max(steps) < sum(steps) / 4


def test_an_opened_set_is_not_read_before_it_is_asked() -> None:
    many = size(50_000, small=10_000)
    made = stored(deletes({client: [(0, 1)] for client in range(many, 0, -1)}))
    assert lines(lambda: made.covers(many // 2, 0, 1)) < 200
    assert lines(lambda: made.add(7, 4, 5)) < 200
    assert lines(lambda: made.encode()) < 200
