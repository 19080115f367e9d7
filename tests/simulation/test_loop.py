"""The loop of the simulation: virtual time, processes that stand still and die, choices by the seed."""

from __future__ import annotations

import asyncio
import time
from random import Random

from tests.simulation.loop import Process, SimulatedLoop


async def count(found: list[tuple[str, float]], name: str, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        found.append((name, asyncio.get_running_loop().time()))


def start(loop: SimulatedLoop, process: Process, found: list[tuple[str, float]], seconds: float) -> None:
    process.context.run(loop.create_task, count(found, process.name, seconds))


def test_hours_pass_in_a_moment() -> None:
    loop, found = SimulatedLoop(Random(1)), list[tuple[str, float]]()
    start(loop, loop.world, found, 60.0)
    began, virtual = time.perf_counter(), loop.time()
    loop.run_until(virtual + 7_200.5)
    assert loop.time() == virtual + 7_200.5 and 115 <= len(found) <= 120
    assert time.perf_counter() - began < 60
    loop.clear()


def test_a_process_that_stands_still_goes_on_with_all_that_came_due() -> None:
    loop, found = SimulatedLoop(Random(1)), list[tuple[str, float]]()
    still, other = loop.new_process("still"), loop.new_process("other")
    start(loop, still, found, 1.0)
    start(loop, other, found, 1.0)
    loop.run_until(loop.time() + 0.5)
    began = loop.time()
    loop.stall(still, 5.0)
    loop.run_until(began + 10.0)
    assert min(at for name, at in found if name == "still") >= began + 5.0
    assert sum(name == "other" for name, _ in found) >= 9
    loop.clear()


def test_a_process_that_was_killed_runs_no_more_and_is_cleared_away_in_the_end() -> None:
    loop, found = SimulatedLoop(Random(1)), list[tuple[str, float]]()
    dead = loop.new_process("dead")
    start(loop, dead, found, 1.0)
    loop.run_until(loop.time() + 2.5)
    loop.kill(dead)
    seen = len(found)
    loop.run_until(loop.time() + 5.0)
    assert len(found) == seen == 2
    loop.clear()
    assert not dead.tasks and len(found) == seen


def test_what_is_given_to_a_thread_is_done_and_arrives_later() -> None:
    loop = SimulatedLoop(Random(1))

    async def work() -> tuple[int, float]:
        began = loop.time()
        result = await asyncio.to_thread(lambda: 7)
        return result, loop.time() - began

    result, seconds = loop.run_until_complete(work())
    assert result == 7 and 0 < seconds < 0.1
    loop.clear()


def test_the_seed_decides_who_goes_first() -> None:
    def order(seed: int) -> list[str]:
        loop, found = SimulatedLoop(Random(seed)), list[str]()
        for name in "abcdef":
            process = loop.new_process(name)
            process.context.run(loop.call_soon, found.append, name)
        loop.run_until(loop.time() + 0.1)
        return found

    assert order(1) == order(1) and sorted(order(1)) == list("abcdef")
    assert len({tuple(order(seed)) for seed in range(20)}) > 10


def test_an_exception_that_nobody_takes_is_noted() -> None:
    loop = SimulatedLoop(Random(1))
    loop.world.context.run(loop.call_soon, lambda: 1 // 0)
    loop.run_until(loop.time() + 1.0)
    assert len(loop.errors) == 1 and "ZeroDivisionError" in loop.errors[0]
