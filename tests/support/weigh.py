"""Measure what each test costs, and write down those that ``make check`` has no time for.

Strategy: one rule in one place, and no marker by hand. Every test that needs nothing else runs at its small size. Its
cost is the seconds of CPU that it takes, its fixtures and the processes that it starts among them; that of a function
is the sum of its cases. There is no place in ``make check`` for one that takes more than `MOST_CPU`, or waits for
longer than `MOST_WAIT`. The tests of the folders `WHOLE` are not asked: the gate of coverage, the mutants and the
simulation need them. ``make test`` runs every test.

    python -m tests.support.weigh [FOLDER]...
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.needs import FAST, LIST, LONG, NEEDS, WHOLE, function_of, long_tests

MOST_CPU = 0.04
"""Seconds of CPU that a function may take."""

MOST_WAIT = 1.0
"""Seconds that may pass beside them."""

_TESTS = Path(__file__).resolve().parents[1]
_OUTPUT = "COLLAB_WEIGHTS"
_HEAD = "# The tests that make check has no time for, as python -m tests.support.weigh has measured and written them.\n"


class Cost(NamedTuple):
    """What a function has taken, all its cases together, in seconds."""

    cpu: float = 0.0
    wait: float = 0.0

    def is_long(self) -> bool:
        return self.cpu > MOST_CPU or self.wait > MOST_WAIT


def _used() -> float:
    """Return the seconds of CPU of this process, and of those of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Scales:
    """Notes what each function takes, as a plugin of pytest."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        used, began = _used(), time.monotonic()
        try:
            return (yield)
        finally:
            cpu, seconds = _used() - used, time.monotonic() - began
            name = function_of(item.nodeid)
            before = self.costs.get(name, Cost())
            self.costs[name] = Cost(before.cpu + cpu, before.wait + max(0.0, seconds - cpu))

    def pytest_unconfigure(self) -> None:
        Path(os.environ[_OUTPUT]).write_text(json.dumps(self.costs))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Scales())


def weigh(folders: Iterable[str]) -> dict[str, Cost]:
    """Run the tests of these folders or files of ``tests/`` that need nothing else; return what each function costs."""
    others = " or ".join(need for need in NEEDS if need != LONG)
    command = [sys.executable, "-m", "pytest", "-q", "--small", "-p", "tests.support.weigh"]
    with tempfile.TemporaryDirectory(prefix="collab-weigh-") as folder:
        output = Path(folder) / "costs.json"
        subprocess.run(
            [*command, "-m", f"{FAST} or ({LONG} and not ({others}))", *(str(_TESTS / name) for name in folders)],
            cwd=_TESTS.parent,
            env={**os.environ, _OUTPUT: str(output)},
        )
        return {name: Cost(*cost) for name, cost in json.loads(output.read_text()).items()}


def write(names: Iterable[str]) -> None:
    """Write the list."""
    LIST.write_text(_HEAD + "".join(f"{name}\n" for name in sorted(names)))


def main(arguments: list[str]) -> None:
    """Weigh the tests of these folders, or of all but `WHOLE`, and bring the list up to date."""
    folders = arguments or sorted(
        one.name
        for one in _TESTS.iterdir()
        if one.name not in WHOLE and (one.name.startswith("test_") or any(one.rglob("test_*.py")))
    )
    costs = weigh(folders)
    rest = {name for name in long_tests() if not name.startswith(tuple(f"{folder.rstrip('/')}/" for folder in folders))}
    rest = {name for name in rest if name.partition("::")[0] not in folders}
    write(rest | {name for name, cost in costs.items() if cost.is_long()})
    kept = [cost for cost in costs.values() if not cost.is_long()]
    print(f"{len(kept)} of {len(costs)} functions have a place, and take {sum(cost.cpu for cost in kept):.1f} s of CPU")


if __name__ == "__main__":
    main(sys.argv[1:])
