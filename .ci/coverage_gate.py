"""Print the coverage of each package of collab, and fail where one falls below its floor.

Strategy: the figures come from the JSON report of coverage.py, the floors from ``coverage-floors.json`` beside
this file: percent of lines and of branches. Floors only rise: ``--raise`` writes the present figures, rounded down
to a tenth, wherever they are higher, and nothing here ever lowers one.

    python .ci/coverage_gate.py REPORT.json [--raise]
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLOORS = Path(__file__).with_name("coverage-floors.json")
KINDS = ("lines", "branches")


@dataclass
class Package:
    """What was run of one package; ``missing`` says where something was not, a line for each file."""

    covered: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    total: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    missing: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, file: str, report: dict[str, Any]) -> None:
        summary = report["summary"]
        self.covered["lines"] += summary["covered_lines"]
        self.total["lines"] += summary["num_statements"]
        self.covered["branches"] += summary["covered_branches"]
        self.total["branches"] += summary["num_branches"]
        if report["missing_lines"]:
            self.missing["lines"].append(f"{file}: {', '.join(map(str, report['missing_lines']))}")
        if report["missing_branches"]:
            ways = (f"{at}->{to if to > 0 else 'exit'}" for at, to in report["missing_branches"])
            self.missing["branches"].append(f"{file}: {', '.join(ways)}")

    def percent(self, kind: str) -> float:
        return 100.0 * self.covered[kind] / self.total[kind] if self.total[kind] else 100.0


def read(report: Path) -> dict[str, Package]:
    """Return the packages of collab by name; a module beside them counts as one."""
    packages: dict[str, Package] = defaultdict(Package)
    for file, figures in json.loads(report.read_text())["files"].items():
        parts = Path(file).parts
        if parts[0] == "collab" and figures["summary"]["num_statements"]:
            packages[parts[1]].add(file, figures)
    return dict(packages)


def main(arguments: list[str]) -> int:
    """Print the table and return 1 if a figure is below its floor."""
    raising = "--raise" in arguments
    [report] = [argument for argument in arguments if argument != "--raise"]
    packages = read(Path(report))
    floors: dict[str, dict[str, float]] = json.loads(FLOORS.read_text())

    print("coverage, % of     lines   branches")
    for name, package in sorted(packages.items()):
        print(f"  {name:14s} {package.percent('lines'):7.1f} {package.percent('branches'):10.1f}")

    failed = False
    for name, floor in floors.items():
        package = packages.get(name, Package())
        for kind in KINDS:
            figure = package.percent(kind) if package.total[kind] else 0.0
            if figure < floor[kind]:
                failed = True
                print(f"{name}: {figure:.2f} % of {kind} were run, the floor is {floor[kind]} %. Not run:")
                print("\n".join(f"  {line}" for line in package.missing[kind]))
            higher = math.floor(figure * 10) / 10
            if higher > floor[kind]:
                if raising:
                    floor[kind] = higher
                else:
                    print(f"{name}: the floor of {kind} may rise from {floor[kind]} to {higher} %: add --raise")
    if raising:
        FLOORS.write_text(json.dumps(floors, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
