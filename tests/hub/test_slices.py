"""Work in slices: one slice in a turn of the loop, and whoever has used least of the time goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from collab.hub import slices as slices_module
from collab.hub.slices import Usage, apart, in_slices, own_turn


class Clock:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(slices_module, "perf_counter", clock)
    return clock


def work(name: str, steps: int, done: list[str], clock: Clock, seconds: float = 0.001) -> Generator[None, None, str]:
    for _ in range(steps):
        clock.now += seconds
        done.append(name)
        yield
    return name


async def test_the_loop_goes_on_between_slices(clock: Clock) -> None:
    done: list[str] = []
    running = asyncio.ensure_future(in_slices(work("a", 5, done, clock)))
    turns = 0
    while not running.done():
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) <= before + 1
        turns += 1
    assert await running == "a" and turns > 5


async def test_work_apart_begins_in_a_turn_of_its_own(clock: Clock) -> None:
    done: list[str] = []

    async def both(second: Generator[None, None, str]) -> None:
        await in_slices(work("a", 0, done, clock))
        done.append("a")
        await in_slices(second)

    for second, turns in ((work("b", 1, done, clock), 0), (apart(work("b", 1, done, clock)), 1)):
        done.clear()
        running = asyncio.ensure_future(both(second))
        while not running.done():
            await asyncio.sleep(0)
            done.append("turn")
        await running
        assert done[done.index("a") + 1 : done.index("b")] == ["turn"] * turns


async def test_however_many_have_work_there_is_one_slice_in_a_turn_of_the_loop(clock: Clock) -> None:
    done: list[str] = []
    running = [asyncio.ensure_future(in_slices(work(str(n), 20, done, clock))) for n in range(30)]
    for _ in range(3):
        await asyncio.sleep(0)  # those that were there before anybody waited have had their first
    while not all(one.done() for one in running):
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) <= before + 2  # one that was alone, and one whose turn it is
    assert [await one for one in running] == [str(n) for n in range(30)]
    assert all(done.count(str(n)) == 20 for n in range(30))


async def test_who_has_used_little_goes_before_who_has_used_much(clock: Clock) -> None:
    done: list[str] = []
    heavy = Usage()
    heavy.charge(0.5, clock.now)
    running = [asyncio.ensure_future(in_slices(work("much", 50, done, clock), heavy)) for _ in range(3)]
    await asyncio.sleep(0)
    light = Usage()
    running.append(asyncio.ensure_future(in_slices(work("little", 30, done, clock), light)))
    await asyncio.wait(running)
    assert done.index("little") < 5
    last = len(done) - done[::-1].index("little")
    assert last - 30 < 10, "it has waited for few slices of the others"
    assert light.seconds == pytest.approx(0.03, abs=0.02) and heavy.seconds > 0.5


async def test_nobody_waits_for_ever(clock: Clock) -> None:
    """Others begin all the time, each with nothing used; who has used much has its turn after a second."""
    done: list[str] = []
    heavy = Usage()
    heavy.charge(1_000.0, clock.now)
    began = clock.now
    running = [asyncio.ensure_future(in_slices(work("much", 1, done, clock), heavy))]
    while not running[0].done():
        running.append(asyncio.ensure_future(in_slices(work("new", 2, done, clock, 0.01))))
        await asyncio.sleep(0)
    assert 1.0 <= clock.now - began < 10.0
    await asyncio.wait(running)


async def test_one_that_is_alone_does_not_wait(clock: Clock) -> None:
    heavy = Usage()
    heavy.charge(1_000.0, clock.now)
    assert heavy.heavy
    await own_turn(heavy)
    assert clock.now == 100.0


def test_what_was_used_is_forgiven(clock: Clock) -> None:
    usage = Usage()
    assert not usage.heavy
    usage.charge(0.04, clock.now)
    assert not usage.heavy
    usage.charge(0.04, clock.now)
    assert usage.heavy
    clock.now += 0.4
    assert not usage.heavy and usage.seconds == pytest.approx(0.04)
    clock.now += 10
    usage.charge(0.01, clock.now)
    assert usage.seconds == pytest.approx(0.01)


async def test_one_that_is_cancelled_holds_up_nobody(clock: Clock) -> None:
    done: list[str] = []
    running = [asyncio.ensure_future(in_slices(work(str(n), 5, done, clock))) for n in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for one in running[:3]:
        one.cancel()
    assert await running[3] == "3" and done.count("3") == 5


async def test_what_work_raises_is_raised_and_charged(clock: Clock) -> None:
    def fails() -> Generator[None, None, None]:
        clock.now += 0.01
        raise ValueError("a defect")
        yield

    usage = Usage()
    with pytest.raises(ValueError, match="a defect"):
        await in_slices(fails(), usage)
    assert usage.seconds == pytest.approx(0.01)
