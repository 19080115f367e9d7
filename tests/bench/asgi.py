"""Figures of the server below ASGI servers, beside ``collab serve``, for docs/benchmarks.md.

    python -m tests.bench.asgi --write

Strategy: all servers run at the same time, each with a database of its own, on one core; the generator has the other
one. Each scenario is played on one after the other, and all of it some times over, so that a change of the machine's
speed meets all of them. What counts are ratios to ``collab serve``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from collab.bench.connection import Target
from collab.bench.process import ServerProcess, pin, raise_file_limit
from collab.bench.report import ASGI, put_section
from collab.bench.run import Bench, Figures
from collab.bench.scenarios import run_scenario
from collab.bench.wire import WireName, choose_wire
from tests.bench.nodes import GENERATOR_CORE, on_core
from tests.support.sqlite import migrated
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

OURS = "collab serve"

COMMANDS = {
    OURS: ("collab", "serve", "--port", "{port}"),
    "uvicorn": ("uvicorn", "bench_app:app", "--port", "{port}", "--no-access-log", "--log-level", "warning"),
    "hypercorn": ("hypercorn", "bench_app:app", "--bind", "127.0.0.1:{port}", "--worker-class", "uvloop"),
    "granian": ("granian", "bench_app:app", "--interface", "asgi", "--port", "{port}", "--loop", "uvloop"),
}

_APP = """
import os
from collab.asgi import create_app
from collab.settings import Settings
app = create_app(Settings(data_dir=os.environ["COLLAB_DATA_DIR"]))
"""

_FIRST_PORT = 18_700
_FILES = 5_000


class Play(NamedTuple):
    """A scenario, its sizes, and what a reader is told of it."""

    scenario: str
    sizes: dict[str, float]
    meaning: str
    figures: tuple[str, ...]


PLAYS = (
    Play("idle", {"connections": 1000}, "1,000 connections that do nothing", ("memory_kib", "cpu_ms_per_1000")),
    Play("one-writer", {}, "one writer at 50 edits/s, 100 readers", ("cpu_ms_per_1000", "p50_ms", "p99_ms")),
    Play(
        "many-rooms", {"rooms": 100}, "100 rooms of 2 clients, 1 edit/s each", ("cpu_ms_per_1000", "p50_ms", "p99_ms")
    ),
)

_MEANINGS = {
    "cpu_ms_per_1000": "CPU for 1,000 deliveries, ms",
    "memory_kib": "memory for each, KiB",
    "p50_ms": "latency p50, ms",
    "p99_ms": "latency p99, ms",
}
_OF_IDLE = {"cpu_ms_per_1000": "CPU for 1,000 of them to connect, ms"}


class Running(NamedTuple):
    """A server that runs."""

    target: Target
    process: ServerProcess


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Running]]:
    """Start all of them."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder, "bench_app.py").write_text(_APP)
        running = {}
        for number, (name, command) in enumerate(COMMANDS.items()):
            port, data = _FIRST_PORT + number, Path(folder, f"data{number}")
            migrated(data)
            environment = {
                **os.environ,
                "COLLAB_DATA_DIR": str(data),
                "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            }
            process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=port) for part in command)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(_end, process)
            asyncio.run(eventually(partial(asyncio.to_thread, _answers, port), name, 120))
            on_core(process.pid)
            target = Target(f"ws://127.0.0.1:{port}/ws", choose_wire(WireName.Y_WEBSOCKET, ""))
            running[name] = Running(target, ServerProcess(process.pid))
        yield running


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


Found = dict[tuple[str, str], list[Figures]]


async def measure(running: Mapping[str, Running], seconds: float, found: Found) -> None:
    """Play everything on all servers, once; note it in ``found``."""
    for play in PLAYS:
        for name, server in running.items():
            bench = Bench(server.target, server.process, seconds)
            figures = await run_scenario(play.scenario, bench, play.sizes)
            found.setdefault((play.scenario, name), []).append(figures)
            told = {key: figures.get(key) for key in (*play.figures, "right")}
            print(f"{play.scenario}, {name}: {told}", file=sys.stderr, flush=True)


def value(found: Found, scenario: str, name: str, figure: str) -> float | None:
    """Give the median of a figure; None where a run was not right."""
    runs = found.get((scenario, name), [])
    values = [run[figure] for run in runs if run.get("right") and run.get(figure) is not None]
    return float(median(values)) if values and len(values) == len(runs) else None


def _shown(number: float | None, base: float | None) -> str:
    if number is None:
        return "failed"
    text = f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return text if base is None or base == 0 else f"{text} ({number / base:.1f} x)"


def table(found: Found, seconds: float, turns: int) -> str:
    """Write the section of docs/benchmarks.md."""
    lines = [
        "## Below ASGI servers",
        "",
        "The same application by `collab serve`, and as `collab.asgi` below ASGI servers. In brackets stands how many",
        "times the figure of `collab serve` that is. All have one core, beside other work on the machine: trust ratios",
        "of CPU and of memory, and of latencies only large differences.",
        f"Medians of {turns} runs of {seconds:g} s each.",
        "",
        "```sh",
        "python -m tests.bench.asgi --write",
        "```",
        "",
        f"| scenario | figure | {' | '.join(COMMANDS)} |",
        f"|---|---|{'---:|' * len(COMMANDS)}",
    ]
    for play in PLAYS:
        for at, figure in enumerate(play.figures):
            base = value(found, play.scenario, OURS, figure)
            cells = [
                _shown(value(found, play.scenario, name, figure), None if name == OURS else base) for name in COMMANDS
            ]
            meaning = (_OF_IDLE if play.scenario == "idle" else {}).get(figure, _MEANINGS[figure])
            lines.append(f"| {'' if at else play.meaning} | {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.bench.asgi", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each scenario types")
    parser.add_argument("--turns", type=int, default=3, help="how often each is played")
    parser.add_argument("--write", action="store_true", help="write it into the documentation")
    chosen = parser.parse_args(arguments)
    raise_file_limit(_FILES)
    if (os.cpu_count() or 1) > 1:
        pin({GENERATOR_CORE})
    found: Found = {}
    for _ in range(chosen.turns):
        with servers() as running:  # fresh ones: memory that was given back once hides what connections take
            asyncio.run(measure(running, chosen.seconds, found))
    section = table(found, chosen.seconds, chosen.turns)
    print(section)
    if chosen.write:
        page = ROOT / "docs" / "benchmarks.md"
        page.write_text(put_section(page.read_text("utf-8"), section, ASGI), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
