"""Each fault of the handbook's table is injected; what is seen of it must be what the table says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS, Fault
from tests.faults.stage import Stage
from tests.faults.told import DOCUMENT, END, START, Row, read_table, render, watch
from tests.faults.watch import faster_rules, window

STALE = "not what was seen: python -m tests.support.faults_table"


@pytest.mark.postgres
@pytest.mark.prometheus
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.valkey
@pytest.mark.timeout(410)
@pytest.mark.parametrize("faults", [FAULTS[:5], FAULTS[5:]], ids=["first half", "second half"])
async def test_each_fault_is_told_as_the_handbook_says(tmp_path: Path, faults: Sequence[Fault]) -> None:
    written, seen = read_table(), dict[str, Row]()
    async with Stage(tmp_path) as stage:
        for fault in faults:
            begun = time.monotonic()
            seen[fault.name] = await watch(stage, fault, written.get(fault.name))
            print(f"{fault.name}: {time.monotonic() - begun:.1f} s")
    for name, row in seen.items():
        said = written[name]
        # A line of what falls into the time of the fault by chance, as a sign of life, may stand beside these.
        assert set(row.lines) >= set(said.lines), (STALE, name, set(said.lines) - set(row.lines))
        assert row._replace(lines=()) == said._replace(lines=()), (STALE, name)


def test_the_table_has_each_fault_as_it_is_rendered() -> None:
    rows = read_table()
    assert list(rows) == [fault.name for fault in FAULTS], STALE
    part = DOCUMENT.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    assert part.strip() == render(rows), STALE


def test_no_fault_is_without_an_alert_and_none_is_silent() -> None:
    for name, row in read_table().items():
        assert row.alerts and row.lines, name


def test_a_minute_of_the_rules_becomes_a_second() -> None:
    rules = faster_rules()
    assert "collab_loop_lag_seconds_bucket[5000ms]" in rules and "offset 10080000ms" in rules and "for: 500ms" in rules
    assert window("CollabSandboxFails") == 60.0 and window("CollabBusIsDown") == 0.0
