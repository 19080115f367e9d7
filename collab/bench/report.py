"""What the figures of a comparison look like in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from statistics import median
from typing import NamedTuple

from collab.bench.plans import CANDIDATES, OURS, Candidate, Goal, Plan, Runs
from collab.bench.plot import Curve, Point, plot
from collab.bench.run import Figures

CURVES = "benchmarks-load.svg"
"""The picture of the curves of load, beside the report."""


class Marks(NamedTuple):
    """What stands around a part of a page that another command writes."""

    begin: str
    end: str


NODES = Marks("<!-- several nodes: written by `python -m tests.bench.nodes` -->", "<!-- end of several nodes -->")
ASGI = Marks("<!-- ASGI servers: written by `python -m tests.bench.asgi` -->", "<!-- end of ASGI servers -->")

_YES, _NO = "yes", "**no**"


def _value(runs: Runs, plan: Plan, candidate: Candidate, key: str) -> float | None:
    values = [figures[key] for figures in runs.get((plan, candidate), []) if figures.get(key) is not None]
    return float(median(values)) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def section_of(page: str, marks: Marks) -> str | None:
    """Return what stands between the marks on a page, None if there are none."""
    begin, end = page.find(marks.begin), page.find(marks.end)
    return page[begin + len(marks.begin) : end].strip("\n") if 0 <= begin < end else None


def put_section(page: str, section: str, marks: Marks) -> str:
    """Return the page with ``section`` between the marks, which are put at its end if it has none."""
    written = f"{marks.begin}\n\n{section.strip(chr(10))}\n\n{marks.end}"
    if section_of(page, marks) is None:
        return page.rstrip("\n") + f"\n\n{written}\n"
    return page[: page.index(marks.begin)] + written + page[page.index(marks.end) + len(marks.end) :]


def keep_sections(before: str, page: str) -> str:
    """Return ``page`` with the parts that other commands have written into the page ``before`` it."""
    for marks in (NODES, ASGI):
        kept = section_of(before, marks)
        if kept is not None:
            page = put_section(page, kept, marks)
    return page


def verdict(goal: Goal, ours: float | None, best: float | None) -> tuple[str, str, str]:
    """Return what was to be reached, what was, and whether it was."""
    if goal.factor is None:
        return "", "", ""
    wanted = f"{'>=' if goal.higher else '<='} {goal.factor:g}"
    if ours is None:
        return wanted, "failed", _NO
    if not goal.against:
        return wanted, _number(ours), _YES if ours <= goal.factor else _NO
    if best is None:  # no peer could do it at all
        return f"{wanted} x", "no peer", _YES
    ratio = ours / best if best else float("inf")
    good = ratio >= goal.factor if goal.higher else ratio <= goal.factor
    return f"{wanted} x", f"{ratio:.2f} x", _YES if good else _NO


def write_report(plans: list[Plan], runs: Runs, quick: bool) -> str:
    lines = [
        "# Benchmarks",
        "",
        "This server beside the servers that it replaces: the same load generator, the same core, in turn. Those",
        "keep everything in memory; this one commits every edit to SQLite with `synchronous=FULL`",
        "meanwhile. Only in the scenario with a restart do they keep files. Figures are medians of interleaved",
        "repetitions on a shared virtual machine whose speed drifts: trust ratios of one run, not decimals. In the",
        "search for the highest rate a client that types more than 150 times a second hands what it typed within",
        "10 ms to its socket in one write, still a message and a frame each. Over the Hocuspocus protocol this server",
        "acknowledges each edit after its commit, which the y-websocket protocol has no message for. Latency is from",
        "the sending of an edit to its arrival at another client: what its author gets back of it alone is counted as",
        "delivered, but nobody waits for it.",
        "",
        "With tokens every client is somebody: what each has typed is a row of its own in the journal, awareness",
        "states are stamped, and messages are counted against the limits. What that costs, and what the Hocuspocus",
        "protocol costs, is a ratio of two of our servers that get the same load on one core at the same time; in that",
        "of tokens without the process that makes snapshots, which are due sooner where there are more rows.",
        "",
        "```sh",
        "make bench" + (" ARGS=--quick" if quick else ""),
        "```",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python {platform.python_version()}; "
        "the server has one core, the generator another.",
        "",
        "| scenario | figure | " + " | ".join(candidate.name for candidate in CANDIDATES) + " | to reach | reached | |",
        "|---|---|" + "---:|" * len(CANDIDATES) + "---|---|---|",
    ]
    for plan in plans:
        title = plan.title
        for goal in plan.goals:
            values = {candidate: _value(runs, plan, candidate, goal.key) for candidate in plan.candidates}
            rivals = [value for peer in goal.against if (value := values.get(peer)) is not None]
            best = (max(rivals) if goal.higher else min(rivals)) if rivals else None
            wanted, reached, good = verdict(goal, values[goal.of], best)
            cells = " | ".join(_number(values[candidate]) if candidate in values else "" for candidate in CANDIDATES)
            lines.append(f"| {title} | {goal.meaning} | {cells} | {wanted} | {reached} | {good} |")
            title = ""
    lines += _echo_sentence(plans, runs)
    lines += _load_section(plans, runs)
    lines += ["", "## Right or wrong", ""]
    wrong = [
        f"- {plan.scenario}, {candidate.name}: {_why(runs[plan, candidate])}"
        for plan in plans
        for candidate in plan.candidates
        if not all(figures["right"] for figures in runs[plan, candidate])
    ]
    lines += wrong or [
        "In every run everything that was sent arrived everywhere, and the final documents held exactly it."
    ]
    figures_of_all = [figures for many in runs.values() for figures in many]
    waits = sorted(float(f["generator_waited"]) for f in figures_of_all if f.get("generator_waited") is not None)
    bound = [
        f"{plan.scenario}, {candidate.name}"
        for plan in plans
        for candidate in plan.candidates
        if any(figures.get("generator_bound") for figures in runs[plan, candidate])
    ]
    lines += [
        "",
        "## How busy the generator was",
        "",
        "Part of its core that it used, the largest of each server's runs:",
        "",
        "| scenario | " + " | ".join(candidate.name for candidate in CANDIDATES) + " |",
        "|---|" + "---:|" * len(CANDIDATES),
    ]
    for scenario in dict.fromkeys(plan.scenario for plan in plans):
        shares = [
            _largest_share([f for plan in plans if plan.scenario == scenario for f in runs.get((plan, candidate), [])])
            for candidate in CANDIDATES
        ]
        lines.append(f"| {scenario} | " + " | ".join(shares) + " |")
    lines += [
        "",
        "Its own ceiling, against a sink that does nothing but fan out: `collab bench ceiling`. "
        + (
            f"It was at that limit when the search ended for: {'; '.join(bound)}. Those servers can do more than this."
            if bound
            else "No search ended because of it."
        ),
        "",
    ]
    if waits:
        lines += [
            f"For {waits[len(waits) // 2]:.1%} (median) and {waits[-1]:.1%} (worst run) of the time it was ready and",
            "others had its core. Above a few hundredths something else ran on the machine, and latencies and the",
            "highest rates are not the servers' own.",
            "",
        ]
    return "\n".join(lines)


def _echo_sentence(plans: list[Plan], runs: Runs) -> list[str]:
    """Say what an awareness update costs that a client sends back, from two plans that differ in nothing else."""
    crowds = [plan for plan in plans if plan.scenario == "presence" and plan.candidates == (OURS,)]
    without = [plan for plan in crowds if "echo" not in plan.sizes]
    with_echo = [plan for plan in crowds if "echo" in plan.sizes]
    if not (without and with_echo):
        return []
    before = _value(runs, without[0], OURS, "server_cpu_s")
    after = _value(runs, with_echo[0], OURS, "server_cpu_s")
    echoes = _value(runs, with_echo[0], OURS, "echoes")
    if before is None or after is None or not echoes:
        return []
    return [
        "",
        "Clients of y-websocket send back each awareness update that they get, without their own state in it. The",
        f"server knows all that is in it; to read it and drop it costs {(after - before) / echoes * 1e6:,.0f} us each.",
        "Such a crowd takes most of the generator's core (below), so its latencies are partly the generator's own.",
    ]


def _steps(many: list[Figures]) -> list[Figures]:
    """Give the steps of a curve, medians of its repetitions; what is not there in each of them is left out."""
    repeated = zip(*(figures["steps"] for figures in many if "steps" in figures), strict=False)
    return [
        {
            "saturated": any(step["saturated"] for step in same),
            **{
                key: median(values) if len(values := [step[key] for step in same if step[key] is not None]) else None
                for key in ("sent_per_s", "core_share", "p50_ms", "p99_ms")
            },
        }
        for same in repeated
    ]


def _curves(plans: list[Plan], runs: Runs) -> list[tuple[Candidate, list[Figures]]]:
    return [
        (candidate, steps)
        for plan in plans
        if plan.scenario == "load"
        for candidate in plan.candidates
        if (steps := _steps(runs[plan, candidate]))
    ]


def draw_curves(plans: list[Plan], runs: Runs) -> str:
    """Draw CPU and latency from idle until saturated, as an SVG; empty if nobody has measured them."""
    curves = []
    for candidate, steps in _curves(plans, runs):
        points = [
            Point(step["sent_per_s"], step["core_share"] or 0.0, step["p50_ms"], step["p99_ms"])
            for step in steps
            if not step["saturated"]
        ]
        if points:
            curves.append(Curve(candidate.name, points, steps[-1]["saturated"]))
    return plot("100 clients in one room, from idle until saturated", curves) if curves else ""


def _load_section(plans: list[Plan], runs: Runs) -> list[str]:
    curves = _curves(plans, runs)
    if not curves:
        return []
    lines = [
        "",
        "## From idle until saturated",
        "",
        "100 clients type in one room, at rates that double. A room's window is `--batch-window-ms` times the size of",
        "the room times the load of the node ([architecture.md](architecture.md#the-path-of-one-edit)): on an idle",
        "node an edit waits for nothing; on a busy one edits travel together, and a frame carries many of them. In",
        "each cell: part of the server's core, p50 and p99 latency in ms. A cross is the last rate before saturation.",
        "",
        f"![Latency and CPU by edits a second]({CURVES})",
        "",
        "| edits/s | " + " | ".join(candidate.name for candidate, _ in curves) + " |",
        "|---:|" + "---:|" * len(curves),
    ]
    longest = max((steps for _, steps in curves), key=len)
    for at, step in enumerate(longest):
        cells = [_load_cell(steps[at]) if at < len(steps) else "" for _, steps in curves]
        lines.append(f"| {step['sent_per_s']:,.0f} | " + " | ".join(cells) + " |")
    return lines


def _load_cell(step: Figures) -> str:
    if step["saturated"]:
        return "saturated"
    share = "" if step["core_share"] is None else f"{step['core_share']:.0%}, "
    return f"{share}{_number(step['p50_ms'])}, {_number(step['p99_ms'])}"


def _largest_share(many: list[Figures]) -> str:
    shares = [float(figures["generator_share"]) for figures in many if figures.get("generator_share") is not None]
    return f"{max(shares):.0%}" if shares else ""


def _why(many: list[Figures]) -> str:
    for figures in many:
        if not figures["right"]:
            return str(figures.get("error") or f"lost {figures.get('lost')}, or the document was not what was sent")
    return ""
