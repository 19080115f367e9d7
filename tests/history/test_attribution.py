"""The marks of an attribution, and its encoding."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.history.attribution import LONGEST_SECONDS, PAUSE_SECONDS, Attribution, Mark, Marks, Owner, Row, Who
from collab.history.columns import ColumnWriter
from collab.history.encoding import decode_attribution, encode_attribution
from collab.history.ranges import RangeMap
from collab.history.tracing import trace
from tests.support.author import Author

ADA, BOB = Who("ada"), Who("bob")


def test_what_somebody_writes_without_a_pause_has_one_mark() -> None:
    marks: list[Mark] = []
    given_ = Marks(marks)
    assert [given_.number(ADA, at) for at in (1_000.9, 1_000 + PAUSE_SECONDS, 998.0)] == [0, 0, 0]
    assert marks == [Mark(ADA, 998, int(1_000 + PAUSE_SECONDS))]
    assert given_.number(BOB, 1_001) == 1
    assert given_.number(ADA, 1_002) == 0  # another one in between is no pause
    assert given_.number(ADA, marks[0].last + PAUSE_SECONDS + 1) == 2
    # Who goes on is remembered with the marks that are kept.
    assert Marks(marks).number(ADA, marks[2].last) == 2


def test_hours_of_typing_have_several_marks() -> None:
    marks: list[Mark] = []
    given_ = Marks(marks)
    for at in range(0, 3 * int(LONGEST_SECONDS), 60):
        given_.number(ADA, at)
    assert len(marks) == 3
    assert all(mark.last - mark.first <= LONGEST_SECONDS for mark in marks)


_texts = st.none() | st.text(max_size=5) | st.just("nul \x00 and \ud83d alone")
_marks = st.lists(
    st.builds(
        lambda who, first, seconds: Mark(Who(*who), first, first + seconds),
        st.tuples(_texts, _texts, _texts),
        st.integers(0, 2**33),
        st.integers(0, 4_000),
    ),
    min_size=1,
    max_size=200,
)
_ranges = st.lists(st.tuples(st.sampled_from([1, 200, 2**53 - 1]), st.integers(0, 2**31), st.integers(1, 500)))


@given(st.integers(0, 2**40), _marks, _ranges, _ranges)
def test_an_attribution_is_read_as_it_was_written(
    seq: int, marks: list[Mark], inserted: list[tuple[int, int, int]], deleted: list[tuple[int, int, int]]
) -> None:
    attribution = Attribution(seq, marks)
    for ranges, entries in ((attribution.insertions, inserted), (attribution.deletions, deleted)):
        ranges.add_all((client, start, start + n, at % len(marks)) for at, (client, start, n) in enumerate(entries))
    data = encode_attribution(attribution)
    assert decode_attribution(data) == attribution
    assert encode_attribution(decode_attribution(data)) == data


FIRST = (
    "434841014e02bc41789c5bc3c4c29c9892c89c949fc45c959fca9a9b9f929ac3ccc8c4c0c0ccc0c0c2d07064fe559e056cef455356883030"
    "b102c5185633315c63616062fc0f01fc8cec0c2c8cac4cccd1ac4041005804152a"
)
SECOND = (
    "43484102c23bd8b72f5bc3c4c29c9892c89c949fc45c959fca9a9b9f929ac3ccc8c4c0c0ccc0c0c2d07064fe559e056cef45535688300000"
    "0f636265666260faf51f0cf81919590006636060600700085bcdc4708d85010005636060020008636465626262040004638e060004636500"
    "000463600000"
)
"""`_example` in the versions before, written by them."""
BEFORE = tuple(map(bytes.fromhex, (FIRST, SECOND)))


def _example() -> Attribution:
    """Return what the encodings before are of."""
    marks = [
        Mark(ADA, 1_700_000_000, 1_700_000_100),
        Mark(Who("bob", "zoe", "model"), 1_700_000_400, 1_700_003_000),
        Mark(Who(None), 1_699_999_000, 1_699_999_000),
    ]
    made = Attribution(300, marks)
    for entry in ((5, 0, 300, 0), (5, 300, 301, 1), (5, 301, 900, 0), (2**53 - 1, 7, 8, 2)):
        made.insertions.add(*entry)
    made.deletions.add(5, 3, 9, 1)
    made.deletions.add(5, 100, 101, 0)
    return made


@pytest.mark.parametrize("before", BEFORE, ids=("first", "second"))
def test_the_versions_before_are_read(before: bytes) -> None:
    assert decode_attribution(before) == _example()


def _deleted_by_many() -> Attribution:
    """Of each client two people have deleted at random."""
    choose = random.Random(3)
    made = Attribution(9, [Mark(Who(f"user-{number}"), number, number) for number in range(100)])
    for client in range(20):
        people, clock = choose.sample(range(100), 2), 0
        for _ in range(200):
            clock += choose.randint(1, 20)
            made.deletions.add(client, clock, clock + 3, choose.choice(people))
            clock += 3
    return made


def test_what_many_have_deleted_here_and_there_costs_little() -> None:
    """A range costs less than eight bits, of which the place takes more than four and the mark one."""
    attribution = _deleted_by_many()
    data = encode_attribution(attribution)
    assert decode_attribution(data) == attribution
    assert 8 * len(data) < 8 * len(attribution.deletions)


def test_what_is_deleted_soon_after_it_was_written_says_nothing_of_its_mark() -> None:
    """Of a client that writes on for weeks, the marks of deletions follow from those of its insertions."""
    attribution = Attribution(9, [Mark(ADA, 90_000 * number, 90_000 * number + 60) for number in range(200)])
    for number in range(200):
        attribution.insertions.add(7, 1_000 * number, 1_000 * (number + 1), number)
        for at in range(0, 1_000, 10):
            attribution.deletions.add(7, 1_000 * number + at, 1_000 * number + at + 2, number)
    data = encode_attribution(attribution)
    assert decode_attribution(data) == attribution
    assert len(attribution.deletions) == 20_000 and len(data) < 1_000


def test_damage_and_other_versions_are_refused() -> None:
    whole = Attribution(3, [Mark(ADA, 1, 2)])
    whole.insertions.add(5, 0, 300, 0)
    data = encode_attribution(whole)
    for at in range(len(data)):
        for wrong in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]):
            with pytest.raises(DecodeError):
                decode_attribution(wrong)
    with pytest.raises(DecodeError, match="not know"):
        decode_attribution(b"CHA\x04" + data[4:])
    wrong_mark = Attribution(3, [], whole.insertions, RangeMap())
    with pytest.raises(DecodeError, match="mark"):
        decode_attribution(encode_attribution(wrong_mark))


_damage = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4)
_WHOLE = (encode_attribution(_example()), encode_attribution(_deleted_by_many()), *BEFORE)


@pytest.mark.parametrize("whole", _WHOLE, ids=("example", "many", "first", "second"))
@given(changed=_damage, cut=st.integers(0, 40), more=st.binary(max_size=3))
def test_damage_with_a_right_checksum_is_refused_or_read_as_something_else(
    whole: bytes, changed: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    body = bytearray(whole[8:])
    for at, value in changed:
        body[at % len(body)] = value
    data = bytes(body[: max(0, len(body) - cut)]) + more
    try:
        found = decode_attribution(whole[:4] + zlib.crc32(data).to_bytes(4) + data)
    except DecodeError:
        return
    for ranges in (found.insertions, found.deletions):
        assert all(start < end and number < len(found.marks) for _, start, end, number in ranges)


def test_counts_that_are_not_there_cost_nothing() -> None:
    """Whoever says that there are 2**60 of something has to bring as many bytes."""
    for counts in ((1, 2**60, 0, 0), (1, 0, 2**60, 0), (1, 0, 0, 2**60)):
        columns = ColumnWriter()
        columns.write(counts)
        for _ in range(20):
            columns.write([])
        body = columns.data()
        with pytest.raises(DecodeError):
            decode_attribution(b"CHA\x03" + zlib.crc32(body).to_bytes(4) + body)


def test_whose_edits_are() -> None:
    """A client ID is its owner's from its first clock on; the server's own IDs are whoever sent the row."""
    author, relayed, server = Author(1), Author(2), Author(3)
    rows = [
        Row(1, author.type("ab"), 100.0, "ada"),
        Row(2, author.type("cd"), 100.0, "bob"),  # somebody else sends what ada has written
        Row(3, relayed.type("xy"), 100.0, "bob"),
        Row(4, server.type("s"), 100.0, "eve", "zoe", "model"),
        Row(5, server.type("t"), 100.0, "eve"),
    ]
    found = trace(b"\0\0", rows, {1: Owner("ada", 1), 3: Owner(None, 0)})

    def who(client: int, clock: int) -> Who:
        number = found.insertions.find(client, clock)
        assert number is not None
        return found.marks[number].who

    assert who(1, 0) == Who(None)  # before ada was known to use it
    assert [who(1, clock) for clock in (1, 2, 3)] == [ADA, ADA, ADA]
    assert who(2, 0) == who(2, 1) == Who(None)
    assert [who(3, 0), who(3, 1)] == [Who("eve", "zoe", "model"), Who("eve")]
    assert found.seq == 5
