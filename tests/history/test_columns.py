"""Columns of numbers: what is written is read, and what is damaged is refused within bounds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.history.columns import ColumnReader, ColumnWriter, unzigzag, zigzag

_number = st.integers(0, 300) | st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bits: 1 << bits)
_column = st.lists(_number, max_size=40)
_of_cases = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=400)


@given(st.lists(_column | st.binary(max_size=300) | _of_cases, max_size=6))
def test_columns_are_read_as_they_were_written(columns: list[list[int] | bytes | list[tuple[int, int]]]) -> None:
    writer = ColumnWriter()
    for column in columns:
        if isinstance(column, bytes):
            writer.write_bytes(column)
        elif column and isinstance(column[0], tuple):
            writer.write_by_case([number for number, _ in column], [case for _, case in column], 3)
        else:
            writer.write(column)
    data = writer.data()
    reader = ColumnReader(data, 1 << 20)
    for column in columns:
        if isinstance(column, bytes):
            assert reader.read_bytes() == column
        elif column and isinstance(column[0], tuple):
            cases = [case for _, case in column]
            assert reader.read_by_case(len(column), lambda cases=cases: cases, 3) == [number for number, _ in column]
        else:
            assert reader.read(len(column)) == column
    reader.end()


@given(st.integers(-(2**62), 2**62))
def test_zigzag_goes_back(number: int) -> None:
    assert zigzag(number) >= 0 and unzigzag(zigzag(number)) == number


def test_a_column_is_split_where_that_is_shorter() -> None:
    """Numbers that follow from the case cost next to nothing when it is known."""
    choose = random.Random(1)
    cases = [choose.randrange(3) for _ in range(3_000)]
    together, split = ColumnWriter(), ColumnWriter()
    together.write([2 * case for case in cases])
    split.write_by_case([2 * case for case in cases], cases, 3)
    assert len(split.data()) < len(together.data()) // 5
    reader = ColumnReader(split.data(), 1 << 20)
    assert reader.read_by_case(3_000, lambda: cases, 3) == [2 * case for case in cases]


def test_damaged_columns_are_refused() -> None:
    choose = random.Random(1)
    cases = [choose.randrange(2) for _ in range(400)]
    numbers = [(5, 900)[case] for case in cases]
    writer = ColumnWriter()
    writer.write_by_case(numbers, cases, 2)
    data = writer.data()
    assert ColumnReader(data, 700).read_by_case(400, lambda: cases, 2) == numbers
    for wrong in ([0] * 400, [1] * 400, cases[:-1] + [1 - cases[-1]]):
        with pytest.raises(ValueError, match="cut off"):
            ColumnReader(data, 700).read_by_case(400, lambda wrong=wrong: wrong, 2)
    with pytest.raises(ValueError, match="too long"):
        ColumnReader(data, 399).read_by_case(400, lambda: cases, 2)
    with pytest.raises(ValueError, match="too long"):
        ColumnReader(data, 700).read_by_case(401, lambda: cases, 2)
    with pytest.raises(ValueError, match="symbol"):
        ColumnReader(b"\0\2\xfc", 10).read(1)
    with pytest.raises(ValueError, match="low bits"):
        ColumnReader(b"\0\2\x08", 10).read(1)
    with pytest.raises(ValueError, match="behind"):
        ColumnReader(b"\0\2\0\0", 10).end()
    with pytest.raises(DecodeError):
        ColumnReader(b"", 10)


def test_a_stream_is_never_unpacked_beyond_its_bound() -> None:
    writer = ColumnWriter()
    writer.write_bytes(bytes(10_000_000))
    data = writer.data()
    assert len(data) < 20_000
    with pytest.raises(ValueError, match="too long"):
        ColumnReader(data, 1_000_000).read_bytes()
