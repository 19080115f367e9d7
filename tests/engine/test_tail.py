"""A tail against plain bytes: what was given out never changes, and what is given out again is the same object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.engine import tail as tail_module
from collab.engine.tail import Tail
from collab.update.merge import cut_section
from collab.update.parts import Piece, Span, join
from collab.update.reader import read_update
from collab.update.structs import walk
from tests.support.build import section, text, update

ME = 300


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "_SEALED", 400)
    monkeypatch.setattr(tail_module, "_LARGE", 3_000)


def written(tail: Tail, clock: int, letters: str, times: int) -> int:
    """Append a run of ``times`` structs, as an update brings it; return the clock behind it."""
    data = update(section(ME, clock, *(text(letters, origin=(5, 1)) for _ in range(times))))
    (found,) = read_update(data).sections
    tail.append(clock, found.count, data[found.start : found.stop], found.marks, found.start)
    return found.end


def without_first(data: bytes, start: int, known: int) -> list[tuple[int, int]]:
    """Return clock and end of each struct of ``data`` from ``known`` on."""
    found = []
    for struct in walk(data, 0, len(data), start):
        end = struct.clock + struct.length
        if end > known:
            found.append((max(struct.clock, known), end))
    return found


ASKS = ("", "all", "cut", "noted")


@given(
    st.integers(0, 7),
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(1, 30), st.integers(1, 90), st.sampled_from(("", "all", "cut", "noted"))
        ),
        min_size=1,
        max_size=12,
    ),
    st.data(),
)
def test_what_was_given_out_stays_as_it_was(
    start: int, runs: list[tuple[str, int, int, str]], draw: st.DataObject
) -> None:
    tail, clock, plain = Tail(start), start, b""
    given_out: list[tuple[list[Piece], bytes]] = []
    noted: list[int] = []
    for letter, length, times, asks in runs:
        other = Tail(clock)
        clock = written(tail, clock, letter * length, times)
        written(other, other.clock, letter * length, times)
        plain += join(other.pieces(0))
        assert tail.size == len(plain)
        if asks == "noted":
            tail.note_end(clock)
            noted.append(clock)
        elif asks:
            known = start if asks == "all" else draw.draw(st.integers(start, clock - 1))
            count, head, offset = tail.suffix(ME, known)
            rest = head + join(tail.pieces(offset))
            structs = list(walk(rest, 0, len(rest), known))
            assert len(structs) == count
            assert [(one.clock, one.clock + one.length) for one in structs] == without_first(plain, start, known)
            given_out.append((tail.pieces(offset), plain[offset:]))
            less = tail.without(ME, known)
            assert (less.clock, less.count, join(less.pieces(0))) == (known, count, rest)
            assert join(less.copy().pieces(0)) == rest
    copied = tail.copy()
    written(copied, clock, "x", 2)
    assert join(tail.pieces(0)) == plain
    for pieces, expected in given_out:
        assert join(pieces) == expected
    known = draw.draw(st.sampled_from(noted) if noted else st.integers(start, clock))
    if known < clock:
        whole = update(section(ME, start, *[plain[s.start : s.stop] for s in walk(plain, 0, len(plain), start)]))
        (found,) = read_update(whole).sections
        count, head, offset = tail.suffix(ME, known)
        run = cut_section(whole, found, known, clock)
        assert (count, head + plain[offset:]) == (run.structs, run.data)


def test_what_is_given_out_twice_is_the_same_object() -> None:
    tail = Tail(0)
    clock = written(tail, 0, "a" * 50, 20)
    (first,) = tail.pieces(0)
    clock = written(tail, clock, "b" * 50, 20)
    clock = written(tail, clock, "c" * 50, 1)
    again = tail.pieces(0)
    assert isinstance(first, Span) and isinstance(again[0], Span) and again[0].data is first.data
    assert len(again) == 2
    written(tail, clock, "d", 1)
    assert len(tail.pieces(0)) == 3, "what is too short to be sealed is copied"


def test_short_runs_are_put_together_and_a_long_first_one_is_not_copied() -> None:
    tail, clock = Tail(0), 0
    for _ in range(300):
        clock = written(tail, clock, "a" * 60, 1)
        tail.pieces(0)
    assert len(tail.pieces(0)) <= 300 * 70 / 400 + 1
    long = Tail(0)
    data = update(section(ME, 0, text("x" * 5_000)))
    (found,) = read_update(data).sections
    run = data[found.start : found.stop]
    long.append(0, 1, run, (), found.start)
    written(long, 5_000, "y" * 100, 1)
    piece = long.pieces(0)[0]
    assert isinstance(piece, Span) and piece.data is run
