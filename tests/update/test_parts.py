"""Parts against plain bytes: read in portions of any size they give what was put in, and long runs are not copied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.update.parts import SHORT, Cursor, Parts, Piece, Span, join, size_of, span

SOURCES = (bytes(range(256)) * 300, bytes(range(255, -1, -1)) * 2)


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    found: list[Piece] = []
    for _ in range(draw(st.integers(0, 12))):
        data = draw(st.sampled_from(SOURCES))
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from((0, 1, SHORT - 1, SHORT, 300, 70_000))))
        found += draw(st.sampled_from(([Span(data, start, stop)], [data[start:stop]], [span(data, start, stop)])))
        if draw(st.booleans()):
            found.append(span(data, stop, len(data)))  # goes on where the last one ended
    return found


def plain(some: list[Piece]) -> bytes:
    return b"".join(one if isinstance(one, bytes) else one.data[one.start : one.stop] for one in some)


@given(
    pieces(), st.lists(st.integers(1, 5_000) | st.just(100_000), min_size=1), st.sampled_from((b"", b"head", b"x" * 90))
)
def test_what_is_read_is_what_was_put_in(some: list[Piece], portions: list[int], head: bytes) -> None:
    parts = Parts(some[:3])
    parts.add(some[3:])
    expected = plain(some)
    assert join(some) == parts.join() == expected
    assert parts.nbytes == size_of(some) == len(expected)
    cursor = Cursor(parts, head)
    read = b""
    while cursor.left:
        for most in portions:
            if not cursor.left:
                break
            before = cursor.left
            buffers = cursor.take(most)
            size = sum(map(len, buffers))
            assert 0 < size <= most and cursor.left == before - size
            read += b"".join(buffers)
    assert read == head + expected
    assert cursor.take(10) == []


def test_long_runs_are_handed_out_as_they_are_and_cost_next_to_nothing() -> None:
    data = bytes(1_000_000)
    parts = Parts([b"head", Span(data, 5, 900_000), b"between", Span(data, 900_001, 1_000_000)])
    cursor = Cursor(parts)
    buffers = cursor.take(1_000_000)
    assert [buffer.obj is data if isinstance(buffer, memoryview) else bytes(buffer) for buffer in buffers] == [
        b"head",
        True,
        b"between",
        True,
    ]
    assert parts.held == cursor.held < 100


def test_what_goes_on_is_one_run_and_what_is_short_is_copied() -> None:
    data = bytes(range(250)) * 4
    assert len(Parts([Span(data, at, at + 100) for at in range(0, 1_000, 100)])._runs) == 1
    assert len(Parts([span(data, at, at + 100) for at in range(0, 1_000, 200)])._runs) == 5
    assert span(data, 3, 3 + SHORT - 1) == data[3 : 3 + SHORT - 1]
    short = Parts([data[at : at + SHORT - 1] for at in range(500)])
    assert not short._runs and short.held == 500 * (SHORT - 1)


@pytest.mark.parametrize("size", [SHORT, 200])
def test_one_step_follows_a_bounded_number_of_references(size: int) -> None:
    data = bytes(range(256)) * 10
    parts = Parts([span(data, number % 2, size + number % 2) for number in range(5_000)])
    cursor, steps = Cursor(parts), 0
    read = b""
    while cursor.left:
        buffers = cursor.take(1 << 30)
        assert sum(map(len, buffers)) <= 500 * size
        read += b"".join(buffers)
        steps += 1
    assert steps == 10 and read == parts.join()
