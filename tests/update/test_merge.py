"""Joining and diffing: whoever applies the result has what the parts hold, unit by unit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.errors import UpdateError
from collab.protocol.lib0 import read_var_uint
from collab.update.merge import diff_update, merge_updates
from collab.update.reader import STRING, read_update
from collab.update.state_vector import decode_state_vector
from collab.update.structs import walk
from tests.support.build import deletes, gc, reader_of, section, session, skip, text, update
from tests.support.needs import size

SEEDS = range(8)

Units = dict[tuple[int, int], object]


def units(data: bytes) -> Units:
    """Expand an update: each clock and what is there, the unit of a text or the struct as written."""
    found: Units = {}
    read = read_update(data)
    for part in read.sections:
        if not part.count:
            continue
        for struct in walk(data, part.start, part.stop, part.clock):
            if struct.kind == STRING:
                size, pos = read_var_uint(data, struct.content)
                utf16 = data[pos : pos + size].decode().encode("utf-16-le")
                contents: list[object] = [utf16[at : at + 2] for at in range(0, len(utf16), 2)]
            else:
                contents = [struct.kind] * struct.length
            for at, unit in enumerate(contents):
                key = (part.client, struct.clock + at)
                assert key not in found
                found[key] = unit
    return found


def deleted(data: bytes) -> set[tuple[int, int]]:
    return {
        (entry.client, clock)
        for entry in read_update(data).deletes
        for start, length in zip(entry.ranges[::2], entry.ranges[1::2], strict=True)
        for clock in range(start, start + length)
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_joining_a_log_equals_applying_it(seed: int) -> None:
    log = session(seed)
    joined = merge_updates(log)
    all_applied, of_joined = reader_of(*log), reader_of(joined)
    assert of_joined.view() == all_applied.view()
    vectors = [decode_state_vector(one.doc.get_state()) for one in (of_joined, all_applied)]
    assert vectors[0] == vectors[1]
    # By parts, and parts of parts, the bytes are the same.
    choose = random.Random(seed)
    cuts = sorted(choose.sample(range(1, len(log)), 3))
    parts = [merge_updates(log[low:high]) for low, high in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    assert merge_updates(parts) == joined
    assert merge_updates([merge_updates(parts[:2]), *parts[2:]]) == joined


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_and_overlaps_join_to_the_same(seed: int) -> None:
    log = session(seed)
    choose = random.Random(seed)
    parts = [*log, *choose.choices(log, k=5), merge_updates(log[:20]), reader_of(*log[:30]).doc.get_update()]
    choose.shuffle(parts)
    joined = merge_updates(parts)
    assert units(joined).keys() == units(merge_updates(log)).keys()
    assert deleted(joined) == deleted(merge_updates(log)) | deleted(parts[-1]) | deleted(joined)
    assert reader_of(joined).view() == reader_of(*log).view()


def test_bytes_of_a_join() -> None:
    one = update(section(5, 0, text("ab")), gone={5: [(0, 1)]})
    two = update(section(6, 0, text("x", origin=(5, 0))), section(5, 2, text("c", origin=(5, 1))), gone={5: [(1, 1)]})
    assert merge_updates([one, two]) == update(
        section(6, 0, text("x", origin=(5, 0))),
        section(5, 0, text("ab"), text("c", origin=(5, 1))),
        gone={5: [(0, 2)]},
    )


def test_one_part_is_returned_as_it_is_and_none_is_the_empty_update() -> None:
    part = b"any bytes"
    assert merge_updates([part]) is part
    assert merge_updates([]) == b"\0\0"


def test_a_hole_between_parts_becomes_a_skip() -> None:
    one, two = update(section(5, 0, text("ab"))), update(section(5, 5, text("c", origin=(5, 4))))
    expected = update(section(5, 0, text("ab"), skip(3), text("c", origin=(5, 4))))
    assert merge_updates([one, two]) == merge_updates([two, one]) == expected
    # Which is filled by whoever has it.
    filler = update(section(5, 1, text("bcde", origin=(5, 0))))
    assert units(merge_updates([expected, filler])) == units(update(section(5, 0, text("abcdec"))))


def test_overlapping_parts_are_cut() -> None:
    one, two = update(section(5, 0, text("a😀"))), update(section(5, 0, text("a😀b")))
    assert merge_updates([one, two]) == update(section(5, 0, text("a😀"), text("b", origin=(5, 2))))
    inside = update(section(5, 0, text("ab")))
    assert merge_updates([inside, two]) == update(section(5, 0, text("ab"), text("\ufffdb", origin=(5, 1))))
    assert merge_updates([two, inside]) == two


def test_skips_of_the_parts_do_not_hide_what_others_hold() -> None:
    gap = update(section(5, 0, text("a"), skip(2), text("d", origin=(5, 2))))
    whole = update(section(5, 0, gc(4)))
    assert sorted(units(merge_updates([gap, whole]))) == [(5, clock) for clock in range(4)]


def test_delete_sets_are_merged_and_canonical() -> None:
    parts = [b"\0" + deletes({5: [(4, 2), (0, 1)], 9: [(1, 1)]}), b"\0" + deletes({9: [(2, 1)], 5: [(1, 3)], 7: []})]
    assert merge_updates(parts) == b"\0" + deletes({9: [(1, 2)], 5: [(0, 6)]})


@pytest.mark.parametrize("bad", [b"", b"\0", b"\0\0\0", bytes.fromhex("0100050000")])
def test_a_malformed_part_is_refused(bad: bytes) -> None:
    with pytest.raises(UpdateError):
        merge_updates([update(section(5, 0, text("a"))), bad])
    with pytest.raises(UpdateError):
        diff_update(bad, {})


@settings(deadline=None, max_examples=size(100, small=20))
@given(st.sampled_from([merge_updates(session(seed)) for seed in SEEDS]), st.data())
def test_a_diff_holds_exactly_what_lies_past_the_vector(whole: bytes, draw: st.DataObject) -> None:
    before = units(whole)
    ends: dict[int, int] = {}
    for client, clock in before:
        ends[client] = max(ends.get(client, 0), clock + 1)
    vector = {client: draw.draw(st.integers(0, end + 2)) for client, end in ends.items() if draw.draw(st.booleans())}
    diff = diff_update(whole, vector)
    after = units(diff)
    assert after.keys() == {key for key in before if key[1] >= vector.get(key[0], 0)}
    for (client, clock), unit in after.items():
        # The low half of a pair that the vector splits is U+FFFD.
        halved = clock == vector.get(client, 0) and unit == "\ufffd".encode("utf-16-le")
        assert unit == before[client, clock] or halved
    assert diff[read_update(diff).deletes_start :] == whole[read_update(whole).deletes_start :]
    assert {part.client for part in read_update(diff).sections} == {client for client, _ in after}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_converges_by_the_diff_past_its_vector(seed: int) -> None:
    log = session(seed)
    whole = merge_updates(log)
    for known in range(0, len(log), 7):
        client = reader_of(*log[:known])
        client.read(diff_update(whole, decode_state_vector(client.doc.get_state())))
        assert client.view() == reader_of(whole).view()


def test_a_diff_past_everything_and_past_nothing() -> None:
    data = update(section(6, 0, text("ab")), section(5, 2, text("x", origin=(6, 0))), gone={6: [(0, 1)]})
    assert diff_update(data, {}) == data
    assert diff_update(data, {5: 3, 6: 2, 7: 9}) == b"\0" + deletes({6: [(0, 1)]})
    assert diff_update(data, {6: 1, 5: 9}) == update(section(6, 1, text("b", origin=(6, 0))), gone={6: [(0, 1)]})
