"""What is seen of each fault, and the table that is made of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.faults.faults import FAULTS, SLOW, Fault
from tests.faults.stage import ALONE, Readiness, Stage, template_of
from tests.faults.watch import window
from tests.support.waiting import eventually

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
START = "<!-- faults: written by python -m tests.support.faults_table -->"
END = "<!-- end of faults -->"

HEAD = ("fault", "alerts", "`/readyz`", "page", "log, from WARNING on", "what people notice")

OF_A_BUSY_MACHINE: Final = frozenset(
    {
        "CollabBusLosesMessages",
        "CollabEditsOfOtherNodesAreLate",
        "CollabLoopIsLate",
        "CollabOthersSeeEditsLate",
        "CollabSavedIsLate",
    }
)
"""Alerts that a machine with too much to do fires, whatever else is wrong: the tests share theirs with others."""

BY_CHANCE: Final = frozenset(
    {
        "the event loop stood still for %.1f s and goes on",
        "the event loop has stood still for %.1f s in %s; what it does stands below%s",
        "no snapshot of %s for now: %s",
        "who wrote what in %s is not up to date: %s",
        SLOW,
    }
)
"""Lines of which the same is true, or of work that may be under way, on its own account, when anything begins."""

# Seconds for which what the table has is waited for, and for which all has to be well afterwards.
PATIENCE = 45.0

# Seconds from which on it counts as late that an edit was saved.
LATE = 1.0


class Row(NamedTuple):
    """One row of the table; each part is what stands in a cell, between line breaks."""

    alerts: tuple[str, ...]
    readiness: tuple[str, ...]
    page: tuple[str, ...]
    lines: tuple[str, ...]
    people: tuple[str, ...]


async def watch(stage: Stage, fault: Fault, written: Row | None) -> Row:
    """Let a fault happen, and give the row that tells what was seen.

    ``written`` is the row that the handbook has: what it says is waited for. What comes in some runs only, or on a busy
    machine, is left out.

    Raises:
        AssertionError: something was lost, not all is well when it is over, or a node is harmed that should not be.
    """
    alerts: set[str] = set()
    wanted = fault.late & OF_A_BUSY_MACHINE | set(written.alerts if written else ())
    await until_well(stage)
    before = {name: len(stage.log(name)) for name in fault.nodes}
    figures = {name: await stage.page(name) for name in fault.nodes}
    async with fault.trouble(stage):
        begun = time.monotonic()
        stage.forget()
        while True:
            await asyncio.sleep(0.5)
            stage.check()
            firing = await stage.alerts.firing()
            alerts |= {alert for alert, node in firing if node in fault.nodes}
            strangers = {alert for alert, node in firing if node not in fault.nodes} - OF_A_BUSY_MACHINE
            assert not strangers, f"{strangers} of a node that has nothing to do with it"
            readiness = tuple(dict.fromkeys([_shown(await stage.readiness(name)) for name in fault.nodes]))
            page = tuple(
                sorted({part for name in fault.nodes async for part in _page(stage, fault, name, figures[name])})
            )
            people = tuple(_people(stage, fault, begun)) or ("nothing",)
            passed = time.monotonic() - begun
            as_written = alerts >= wanted and (
                written is None or (readiness, page, people) == (written.readiness, written.page, written.people)
            )
            if passed > fault.seconds and (as_written or passed > fault.seconds + PATIENCE):
                break
    await until_well(stage, alerts)
    lines: set[str] = set()
    for name in fault.nodes:
        await stage.nothing_is_lost(name)
        lines |= {template_of(line) for line in stage.log(name)[before[name] :] if not _is_count(line["message"])}
    return Row(
        tuple(sorted(alerts - fault.sometimes - (OF_A_BUSY_MACHINE - fault.late))),
        readiness,
        page or ("nothing",),
        tuple(sorted(lines - fault.sometimes - (BY_CHANCE - fault.late))),
        people,
    )


async def until_well(stage: Stage, patient: Iterable[str] = ()) -> None:
    """Wait until ``/readyz`` of each node says that all is well, and no alert fires.

    ``patient`` are alerts that have fired: some look back for an hour.
    """
    longest = max([window(alert) for alert in patient], default=0.0)

    async def well() -> bool:
        firing = {alert for alert, _ in await stage.alerts.firing()} - OF_A_BUSY_MACHINE
        return not firing and all([(await stage.readiness(name)).well for name in stage.servers])

    await eventually(well, "the end of all alerts, and /readyz", seconds=PATIENCE + longest)


def _is_count(message: str) -> bool:
    return re.fullmatch(r".*: \d+ more like it not shown( \(.*)?", message) is not None


def _shown(readiness: Readiness) -> str:
    state = f"{readiness.status}{', degraded' if readiness.degraded else ''}"
    reasons = _reasons(readiness.reasons)
    return f"{state}: {'; '.join(reasons)}" if reasons else state


async def _page(stage: Stage, fault: Fault, name: str, before: dict[str, Any] | None) -> AsyncIterator[str]:
    """Say what the page for operators shows of a node that is not as ever."""
    assert before is not None
    figures, readiness = await stage.page(name), await stage.readiness(name)
    if figures is None:
        yield "no answer"
        return
    if figures["reasons"]:
        alike = _reasons(figures["reasons"]) == _reasons(readiness.reasons)
        yield "the reasons of `/readyz`" if alike else f"other reasons: {figures['reasons']}"
    for kind in ("limits", "refusals"):
        known = {one["reason"]: one["total"] for one in before[kind]}
        more = [one["reason"] for one in figures[kind] if one["total"] > known.get(one["reason"], 0)]
        for reason in more:
            yield f"{kind}: {reason}"
    if figures["documents"]["damaged"]:
        yield "damaged documents"
    if figures["slow_members"] > 5:
        yield "slow clients"
    if figures["sandbox"]["failed"] > before["sandbox"]["failed"] + 1:
        yield "failed jobs of the sandbox"
    if "CollabSavedIsLate" in fault.late and (figures["acknowledgement"]["p99"] or 0.0) > LATE:
        yield "late acknowledgements"


def _reasons(reasons: Iterable[str]) -> list[str]:
    return [re.sub(r"\d+", "N", reason) for reason in reasons]


def _people(stage: Stage, fault: Fault, since: float) -> Iterator[str]:
    """Say how people fare, where it is not as ever."""
    alone = fault.nodes == (ALONE,)
    if not stage.passes(*(("ivy", "joe") if alone else ("ada", "bob")), since):
        yield "edits do not pass"
    if not alone and not (stage.passes("ada", "eve", since) and stage.passes("eve", "ada", since)):
        yield "edits reach people on other nodes late"
    waited = stage.waited(fault.nodes, since)
    if waited is None:
        yield "nothing is called saved"
    elif waited > LATE:
        yield "edits are called saved late"
    if (met := _usual(stage.met, fault)) != "served":
        yield f"opening a document: {_end(met)}"
    if (answered := _usual(stage.answered, fault)) != "200":
        yield f"HTTP API: {'no answer' if answered == '0' else answered}"
    for who, codes in stage.codes.items():
        yield f"{who}: {_end(codes.most_common(1)[0][0])}"


def _usual(counted: dict[str, Counter[str]], fault: Fault) -> str:
    together = sum([counted[name] for name in fault.nodes], Counter[str]())
    return together.most_common(1)[0][0] if together else "waits"


def _end(how: str) -> str:
    return how if not how.isdigit() or how in ("200", "503") else f"closed with {how}"


def render(rows: dict[str, Row]) -> str:
    """Give the table as Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for fault in FAULTS:
        row = rows[fault.name]
        cells = (
            f"**{fault.name}**: {fault.how}",
            _cell([f"`{alert}`" for alert in row.alerts]),
            _cell(row.readiness),
            _cell(row.page),
            _cell([f"`{line}`" for line in row.lines]),
            _cell(row.people),
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def read_table() -> dict[str, Row]:
    """Read the rows that the handbook has, by the names of the faults; none where there is no such table yet."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    rows = {}
    for line in text.splitlines():
        if found := re.match(r"\| \*\*(.+?)\*\*: ", line):
            cells = [
                cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().removesuffix("|"))[2:]
            ]
            parts = [() if cell == "none" else tuple(cell.split("<br>")) for cell in cells]
            alerts, readiness, page, lines, people = parts
            rows[found[1]] = Row(_plain(alerts), readiness, page, _plain(lines), people)
    return rows


def _plain(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip("`") for part in parts)


def _cell(parts: Sequence[str]) -> str:
    return "<br>".join(parts) or "none"
