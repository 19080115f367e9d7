"""The simulation of the cluster: it finds nothing in the server, everything that is planted, and always the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects import DEFECTS, FOUND_BY
from tests.simulation.run import first_seed, run_seed
from tests.support.needs import size

_ROOT = Path(__file__).parents[2]

# In portions, so that they are spread over the processes of pytest.
_PORTIONS = 8
_SEEDS = size(10, small=1)

# Seeds that are tried for a defect beside the one that has found it: every change of the server lets a seed go another
# way.
_TRIES = 250

# Seeds whose events are compared between processes.
_COMPARED = (3, 5, 8)


@pytest.mark.parametrize("portion", range(_PORTIONS))
@pytest.mark.timeout(300)
def test_nothing_is_found(portion: int) -> None:
    first = 1 + portion * _SEEDS
    found = [outcome for outcome in map(run_seed, range(first, first + _SEEDS)) if outcome.why is not None]
    assert not found, f"replay: python -m tests.simulation.run --seed {found[0].seed} --trace"


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.timeout(300)
def test_a_defect_is_found(name: str) -> None:
    assert first_seed(name, (FOUND_BY[name], *range(1, 1 + _TRIES))) is not None


def test_a_seed_gives_the_same_events_whatever_the_hashes_of_strings_are() -> None:
    program = f"from tests.simulation.run import run_seed\nfor seed in {_COMPARED}: print(run_seed(seed))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": value, "PYTHONPATH": str(_ROOT)},
            cwd=_ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=240,
        ).stdout
        for value in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert printed[0].count("why=None") == len(_COMPARED)
    assert printed[0] == "".join(f"{run_seed(seed)}\n" for seed in _COMPARED), "nor does it matter what ran before"


def test_two_seeds_give_different_events() -> None:
    assert run_seed(3).digest != run_seed(5).digest
