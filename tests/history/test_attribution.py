"""The marks of an attribution, and its encoding."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.history.attribution import LONGEST_SECONDS, PAUSE_SECONDS, Attribution, Mark, Marks, Owner, Row, Who
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


OLD = (
    "434841014e02bc41789c5bc3c4c29c9892c89c949fc45c959fca9a9b9f929ac3ccc8c4c0c0ccc0c0c2d07064fe559e056cef45535688303"
    "0b102c5185633315c63616062fc0f01fc8cec0c2c8cac4cccd1ac4041005804152a"
)
"""Of the version before, written by it."""


def test_the_version_before_is_read() -> None:
    expected = Attribution(
        300,
        [
            Mark(ADA, 1_700_000_000, 1_700_000_100),
            Mark(Who("bob", "zoe", "model"), 1_700_000_400, 1_700_003_000),
            Mark(Who(None), 1_699_999_000, 1_699_999_000),
        ],
    )
    for entry in ((5, 0, 300, 0), (5, 300, 301, 1), (5, 301, 900, 0), (2**53 - 1, 7, 8, 2)):
        expected.insertions.add(*entry)
    expected.deletions.add(5, 3, 9, 1)
    expected.deletions.add(5, 100, 101, 0)
    assert decode_attribution(bytes.fromhex(OLD)) == expected
    assert decode_attribution(encode_attribution(expected)) == expected


def test_what_many_have_deleted_here_and_there_costs_little() -> None:
    """Of each client two people have deleted at random: a range costs less than twelve bits."""
    choose = random.Random(3)
    attribution = Attribution(9, [Mark(Who(f"user-{number}"), number, number) for number in range(100)])
    for client in range(20):
        people, clock = choose.sample(range(100), 2), 0
        for _ in range(200):
            clock += choose.randint(1, 20)
            attribution.deletions.add(client, clock, clock + 3, choose.choice(people))
            clock += 3
    data = encode_attribution(attribution)
    assert decode_attribution(data) == attribution
    assert 8 * len(data) < 12 * len(attribution.deletions)


def test_damage_and_other_versions_are_refused() -> None:
    whole = Attribution(3, [Mark(ADA, 1, 2)])
    whole.insertions.add(5, 0, 300, 0)
    data = encode_attribution(whole)
    for at in range(len(data)):
        for wrong in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]):
            with pytest.raises(DecodeError):
                decode_attribution(wrong)
    with pytest.raises(DecodeError, match="not know"):
        decode_attribution(b"CHA\x03" + data[4:])
    wrong_mark = Attribution(3, [], whole.insertions, RangeMap())
    with pytest.raises(DecodeError, match="mark"):
        decode_attribution(encode_attribution(wrong_mark))


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
