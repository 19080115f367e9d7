"""Run seeds of the simulation (``make simulate SEEDS=1000 FROM=1``), one seed with its trace, or look for defects.

python -m tests.simulation.run --seeds 1000 --from 1 --jobs 2
python -m tests.simulation.run --seed 17 --trace
python -m tests.simulation.run --defects                  # for each the first seed that finds it
python -m tests.simulation.run --seed 17 --defect "skip a row" --trace
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from multiprocessing import get_context
from typing import Final, NamedTuple

from tests.simulation.defects import DEFECTS, planted
from tests.simulation.world import Broken, World

MOST: Final = 1_000
"""Seeds within which a defect must be found."""

_COLLECT: Final = 20
"""Seeds between two collections of garbage."""


class Outcome(NamedTuple):
    """What became of a seed: the hash of its events, and what was broken."""

    seed: int
    digest: str
    why: str | None


def run_seed(seed: int, *, trace: bool = False) -> Outcome:
    """Run one seed."""
    world = World(seed, print if trace else None)
    enabled = gc.isenabled()
    gc.disable()  # it would end things when it likes
    try:
        world.run()
        return Outcome(seed, world.digest, None)
    except Broken as error:
        return Outcome(seed, world.digest, str(error))
    except Exception as error:
        if trace:
            traceback.print_exc()
        return Outcome(seed, world.digest, f"{type(error).__name__}: {error}")
    finally:
        if enabled:
            gc.enable()
        if seed % _COLLECT == 0:
            gc.collect()


def first_seed(name: str, seeds: Iterable[int]) -> Outcome | None:
    """Give the first of some seeds that finds a defect."""
    with planted(name):
        return next((found for found in map(run_seed, seeds) if found.why is not None), None)


def _run_all(seeds: range, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_seed, seeds, chunksize=4)


def _campaign(seeds: range, jobs: int) -> int:
    began, failed = time.perf_counter(), 0
    for count, outcome in enumerate(_run_all(seeds, jobs), 1):
        if outcome.why is not None:
            failed += 1
            print(f"seed {outcome.seed} fails: {outcome.why}")
            print(f"  replay: {sys.executable} -m tests.simulation.run --seed {outcome.seed} --trace", flush=True)
        if count % 500 == 0:
            print(f"{count} seeds, {failed} failed, {count / (time.perf_counter() - began):.1f} seeds/s", flush=True)
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} seeds from {seeds.start}, {failed} failed, {len(seeds) / seconds:.1f} seeds/s")
    return failed


def _look_for_defects(names: list[str], seeds: range) -> int:
    missed = 0
    for name in names:
        found = first_seed(name, seeds)
        missed += found is None
        print(f"| {name} | {DEFECTS[name].what} | {'not found' if found is None else found.seed} |", flush=True)
        if found is not None:
            print(f"    {str(found.why)[:160]}", flush=True)
    return missed


def main() -> int:
    """Run what the command line says; 1 if a seed has failed, or a defect was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--defect", help="plant this one")
    parser.add_argument("--most", type=int, default=MOST, help="seeds to look for each defect in")
    parser.add_argument("--defects", nargs="*", help="look for the first seed that finds each of these, or of all")
    options = parser.parse_args()
    if options.defects is not None:
        return (
            _look_for_defects(options.defects or list(DEFECTS), range(options.first, options.first + options.most)) > 0
        )
    if options.seed is None:
        return _campaign(range(options.first, options.first + options.seeds), options.jobs) > 0
    with planted(options.defect) if options.defect else nullcontext():
        outcome = run_seed(options.seed, trace=options.trace)
    print(f"seed {outcome.seed}: {outcome.why or 'nothing found'} ({outcome.digest})")
    return outcome.why is not None


if __name__ == "__main__":
    sys.exit(main())
