"""Figures of several nodes, beside ``@hocuspocus/server`` with its Redis extension, for docs/benchmarks.md.

    python -m tests.bench.nodes [--quick] [--write]         # the table of several nodes
    python -m tests.bench.nodes --regions [--write]         # two regions, for docs/scaling.md

Strategy: a throw-away PostgreSQL (which flushes as one in production does) and a Valkey serve all; each measurement
has nodes and a database of its own, and the repetitions of all candidates are interleaved. All servers have one core
together, the generator another. Latencies are also measured on the author's own node, in the same run, so what the
way between nodes adds is a difference of figures that were taken at one time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from collab.bench.connection import Target
from collab.bench.nodes import Processes, acknowledged, edits_across, presence_across, rooms_on_nodes
from collab.bench.process import pin
from collab.bench.report import NODES, put_section
from collab.bench.run import Bench, Figures
from collab.bench.wire import WireName, choose_wire
from tests.support.node import find_node, installed_packages
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.valkey import Valkey, free_port

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / "tests" / "peers" / "hocuspocus"
SERVER_CORE, GENERATOR_CORE = 0, 1

# Seconds that light takes between the two regions and back, in all that a node has with database and bus.
REGION_SECONDS = 0.08

_PRODUCTION = ("-h", "127.0.0.1", "-c", "fsync=on", "-c", "full_page_writes=on", "-c", "shared_buffers=128MB")
_READY = re.compile(r"ws://127\.0\.0\.1:(\d+)")


@dataclass
class Parts:
    """What all nodes use."""

    postgres: PostgresServer
    valkey: Valkey


@dataclass
class Nodes:
    """Nodes that run."""

    targets: list[Target]
    pids: list[int]


@contextlib.contextmanager
def parts() -> Iterator[Parts]:
    postgres = PostgresServer(options=_PRODUCTION, port=free_port())
    valkey = Valkey()
    try:
        postgres.start()
        valkey.start()
        for pid in (postgres.pid, valkey.pid):
            on_core(pid)
        yield Parts(postgres, valkey)
    finally:
        valkey.close()
        postgres.close()


def on_core(pid: int | None) -> None:
    """Keep a server on the core of servers; what it starts later stays there too."""
    if (os.cpu_count() or 1) > 1:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.cpu_affinity([SERVER_CORE])


@contextlib.asynccontextmanager
async def ours(
    shared: Parts,
    bus: str,
    count: int,
    wire: WireName = WireName.HOCUSPOCUS,
    *,
    far: bool = False,
    workers: int = 0,
) -> AsyncIterator[Nodes]:
    """Run so many nodes on an empty database; ``bus`` is postgresql, valkey or none.

    With ``far`` the second node reaches database and bus over a line of ``REGION_SECONDS``. With ``workers`` each
    node is so many processes behind one address.
    """
    name = shared.postgres.create_database()
    with contextlib.ExitStack() as stack:
        stack.callback(shared.postgres.drop_database, name)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collab-nodes-")))
        servers = []
        for number in range(count):
            ports = {"store": shared.postgres.port, "bus": shared.valkey.port}
            if far and number == 1:
                for what, port in ports.items():
                    ports[what] = stack.enter_context(SlowLine(port, delay=REGION_SECONDS / 2)).port
            url = f"postgresql://postgres@127.0.0.1:{ports['store']}/{name}?sslmode=disable"
            way = {
                "postgresql": (),
                "valkey": ("--redis-url", f"redis://127.0.0.1:{ports['bus']}"),
                "none": ("--redis-url", "redis://127.0.0.1:1"),
            }[bus]
            data = directory / str(number)
            data.mkdir()
            options = ("--migrate", "--log-level", "error", *way, *(("--workers", str(workers)) if workers else ()))
            server = ServerProcess(data, *options, database_url=url)
            stack.callback(server.close)
            await server.astart()
            on_core(server.pid)  # and its workers, which are there by now
            servers.append(server)
        urls = [one.hocuspocus_url if wire is WireName.HOCUSPOCUS else one.ws_url for one in servers]
        await asyncio.sleep(3.0)  # they know each other, and what was started is over
        yield Nodes([Target(url, choose_wire(wire)) for url in urls], [one.pid for one in servers])


@contextlib.asynccontextmanager
async def theirs(shared: Parts, count: int) -> AsyncIterator[Nodes]:
    """Run so many servers of Hocuspocus with its Redis extension."""
    installed_packages(PEER)
    environment = {**os.environ, "PORT": "0", "REDIS_PORT": str(shared.valkey.port)}
    with contextlib.ExitStack() as stack:
        ports, pids = [], []
        for _ in range(count):
            process = await asyncio.to_thread(
                subprocess.Popen,
                [find_node()[0], "server.js"],
                cwd=PEER,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout is not None
            found = _READY.search(await asyncio.to_thread(process.stdout.readline))
            assert found is not None, "@hocuspocus/server did not start"
            on_core(process.pid)
            ports.append(found[1])
            pids.append(process.pid)
        await asyncio.sleep(2.0)
        yield Nodes([Target(f"ws://127.0.0.1:{port}", choose_wire(WireName.HOCUSPOCUS)) for port in ports], pids)


Make = Callable[[Parts], Any]
Play = Callable[[Bench, Nodes], Any]


@dataclass(frozen=True)
class Measurement:
    """One thing that is measured on one candidate; ``key`` names it in the rows."""

    key: str
    make: Make
    play: Play
    seconds: float = 5.0


def across(what: Callable[..., Any]) -> Play:
    async def play(bench: Bench, nodes: Nodes) -> Figures:
        await what(Bench(nodes.targets[0], None, 1.0, name=f"{bench.name}-warm"), nodes.targets)
        figures: Figures = await what(bench, nodes.targets)
        return figures

    return play


def rooms(**sizes: Any) -> Play:
    async def play(bench: Bench, nodes: Nodes) -> Figures:
        await rooms_on_nodes(Bench(nodes.targets[0], None, 1.0, name=f"{bench.name}-warm"), nodes.targets, **sizes)
        return await rooms_on_nodes(bench, nodes.targets, **sizes)

    return play


def _measurements(quick: bool) -> list[Measurement]:
    def node(bus: str, count: int, workers: int = 0) -> Make:
        return lambda shared: ours(shared, bus, count, workers=workers)

    candidates: dict[str, Make] = {bus: node(bus, 2) for bus in _BUSES}
    candidates["hocuspocus"] = lambda shared: theirs(shared, 2)
    found = [
        Measurement(f"{what.__name__} {name}", make, across(what))
        for what in (edits_across, presence_across)
        for name, make in candidates.items()
    ]
    many = 200 if quick else 1_000
    for bus in ("postgresql", "valkey"):
        for members, rate in _CPU:
            sizes = {"rooms": 100, "members": members, "rate": rate}
            found += [
                Measurement(f"cpu one of {members} {bus}", node(bus, 1), rooms(spread=False, **sizes)),
                Measurement(f"cpu spread of {members} {bus}", node(bus, 3), rooms(spread=True, **sizes)),
                Measurement(f"cpu apart of {members} {bus}", node(bus, 3), rooms(spread=False, **sizes)),
            ]
        crowd = rooms(rooms=1, members=300, writers=30, rate=1.0)
        found.append(Measurement(f"crowd {bus}", node(bus, 3), crowd))
        for rate in (2.0, 10.0):
            load = rooms(rooms=many // 2, members=2, rate=rate, verify=False)
            found += [
                Measurement(f"{what} for {rate:g} {bus}", node(bus, 1, workers), load)
                for what, workers in (("one node", 0), ("workers", 2))
            ]
    for bus in ("none", "postgresql", "valkey"):
        load = rooms(rooms=many, members=1, rate=5.0, spread=False, verify=False)
        found.append(Measurement(f"commits {bus}", node(bus, 3), load))
    return found


@dataclass
class Runs:
    """All figures, by measurement."""

    found: dict[str, list[Figures]] = field(default_factory=dict)

    def value(self, key: str, figure: str) -> float | None:
        values = [one[figure] for one in self.found.get(key, ()) if one.get(figure) is not None]
        return float(median(values)) if values else None

    def ratio(self, key: str, to: str, figure: str) -> float | None:
        """Give the median of the ratios of runs that were made one after the other."""
        pairs = zip(self.found.get(key, ()), self.found.get(to, ()), strict=False)
        values = [one[figure] / other[figure] for one, other in pairs if one.get(figure) and other.get(figure)]
        return float(median(values)) if values else None


def show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def measure(shared: Parts, *, quick: bool, only: Sequence[str]) -> Runs:
    runs = Runs()
    chosen = [one for one in _measurements(quick) if not only or any(word in one.key for word in only)]
    for turn in range(1 if quick else 5):
        for one in chosen:
            began = time.monotonic()
            try:
                async with one.make(shared) as nodes:
                    bench = Bench(nodes.targets[0], Processes(nodes.pids), 2.0 if quick else one.seconds)
                    figures = await one.play(bench, nodes)
            except Exception as error:
                figures = {"right": False, "error": f"{type(error).__name__}: {error}"}
            runs.found.setdefault(one.key, []).append(figures)
            shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()}
            show(f"{turn + 1}: {one.key}: {shown} ({time.monotonic() - began:.0f} s)")
    return runs


def _shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:.1f}{unit}" if unit else f"{value:.2f}"


def _pair(runs: Runs, key: str, figure: str) -> str:
    return ", ".join(_shown(runs.value(key, f"{figure}_{share}_ms"), " ms") for share in ("p50", "p99"))


def table(runs: Runs, quick: bool) -> str:
    """Write the section of docs/benchmarks.md."""
    rows = [
        (
            "edit on one node to a client on another, beyond the same edit on its own: p50, p99",
            *[_pair(runs, f"edits_across {name}", "beyond") for name in ("postgresql", "valkey", "hocuspocus")],
            "<= 15, <= 60 ms; Valkey <= 8, <= 30 ms and not above Hocuspocus",
        ),
        (
            "the whole way of that edit: p50, p99",
            *[_pair(runs, f"edits_across {name}", "far") for name in ("postgresql", "valkey", "hocuspocus")],
            "",
        ),
        (
            "presence on one node to a client on another: p50, p99",
            *[_pair(runs, f"presence_across {name}", "far") for name in ("postgresql", "valkey", "hocuspocus")],
            "p99 <= 250 ms; Valkey <= 30 ms",
        ),
        *[
            (
                f"CPU an edit on three nodes, to one node: 100 rooms of {members}, {rate:g} edits/s of each, {where}",
                *[
                    _shown(
                        runs.ratio(f"cpu {how} of {members} {bus}", f"cpu one of {members} {bus}", "cpu_us_per_edit")
                    )
                    for bus in _BUSES
                ],
                "",
                bound,
            )
            for members, rate in _CPU
            for how, where, bound in (
                ("spread", "each open on all three", "<= 1.5"),
                ("apart", "each open on one", "<= 1.05"),
            )
        ],
        (
            "one document, 300 clients on three nodes, 30 edits/s: p99",
            *[_shown(runs.value(f"crowd {bus}", "p99_ms"), " ms") for bus in _BUSES],
            "",
            "<= 100 ms",
        ),
        (
            "edits that three nodes and one PostgreSQL commit in a second, 1,000 rooms",
            *[_shown(runs.value(f"commits {bus}", "saved_per_s")) for bus in _BUSES],
            "",
            "",
        ),
        (
            "the same, to three nodes without a bus",
            *[_shown(runs.ratio(f"commits {bus}", "commits none", "saved_per_s")) for bus in _BUSES],
            "",
            "0.95 to 1.05",
        ),
        *[
            (
                f"CPU an edit with `--workers 2`, to one node: 500 rooms of 2, {1000 * rate:,.0f} edits/s",
                *[
                    _shown(runs.ratio(f"workers for {rate:g} {bus}", f"one node for {rate:g} {bus}", "cpu_us_per_edit"))
                    for bus in _BUSES
                ],
                "",
                "<= 1.15",
            )
            for rate in (2, 10)
        ],
    ]
    wrong = [key for key, found in runs.found.items() if not all(one["right"] for one in found)]
    return "\n".join(
        [
            "## Several nodes",
            "",
            "Nodes, PostgreSQL and Valkey share one core, the generator has another; all clients speak the Hocuspocus",
            "protocol. Medians of "
            + ("one short run, not for publishing" if quick else "five interleaved repetitions")
            + ". `@hocuspocus/server` keeps everything in memory. Written by `make bench-nodes`.",
            "",
            "| figure | bus on PostgreSQL | bus on Valkey | `@hocuspocus/server`, Redis extension | wanted |",
            "|---|---:|---:|---:|---|",
            *[f"| {' | '.join(row)} |" for row in rows],
            "",
            "Something was lost or not as it was typed: " + ", ".join(wrong) + "."
            if wrong
            else "In every run everything arrived everywhere, and the documents held exactly what was typed.",
            "",
        ]
    )


_BUSES = ("postgresql", "valkey")

# People in a room, and edits a second of each, for the CPU that an edit costs.
_CPU = ((3, 4.0), (12, 1.0))


async def regions(shared: Parts, *, quick: bool) -> str:
    """Measure two regions: the second node is far from database and bus, its clients are near it."""
    lines = [
        "| | bus on PostgreSQL | bus on Valkey |",
        "|---|---:|---:|",
    ]
    rows: dict[str, list[str]] = {}
    for bus in _BUSES:
        async with ours(shared, bus, 2, far=True) as nodes:
            near, far = nodes.targets
            seconds = 3.0 if quick else 20.0
            for where, pair in (("near", [near, far]), ("far", [far, near])):
                await _one_way(Bench(near, None, 1.0, name=f"warm-{bus}-{where}"), pair, edits_across)
                edits = await _one_way(Bench(near, None, seconds, name=f"edit-{bus}-{where}"), pair, edits_across)
                cursors = await _one_way(Bench(near, None, seconds, name=f"move-{bus}-{where}"), pair, presence_across)
                acks = await acknowledged(Bench(near, name=f"ack-{bus}-{where}"), pair[0], edits=20 if quick else 100)
                other = "far" if where == "near" else "near"
                for what, figures, name in (
                    (f"edit at the {where} node, to a client of the same node", edits, "near"),
                    (f"edit at the {where} node, to a client of the {other} node", edits, "far"),
                    (f"edit at the {where} node, to its acknowledgement", acks, ""),
                    (f"cursor at the {where} node, to a client of the {other} node", cursors, "far"),
                ):
                    prefix = f"{name}_" if name else ""
                    shown = [_shown(figures[f"{prefix}{share}_ms"], " ms") for share in ("p50", "p99")]
                    rows.setdefault(what, []).append(", ".join(shown))
                    show(f"{bus}: {what}: {shown}, right: {figures['right']}")
    return "\n".join([*lines, *[f"| {what}: p50, p99 | {' | '.join(found)} |" for what, found in rows.items()], ""])


async def _one_way(bench: Bench, pair: list[Target], what: Callable[..., Any]) -> Figures:
    """Let all authors be on the first node of a pair, and the other readers on the second one."""
    figures: Figures = await what(bench, pair, rooms=5, rate=2.0, authors_on_first=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nodes", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short repetition; not for publishing")
    parser.add_argument("--only", nargs="*", default=(), help="measurements whose name has one of these words")
    parser.add_argument("--regions", action="store_true", help="two regions, instead of the table of several nodes")
    parser.add_argument("--write", action="store_true", help="write it into the documentation")
    chosen = parser.parse_args(arguments)
    if (os.cpu_count() or 1) > 1:
        pin({GENERATOR_CORE})
    with parts() as shared:
        if chosen.regions:
            section, file = asyncio.run(regions(shared, quick=chosen.quick)), ROOT / "docs" / "scaling.md"
        else:
            runs = asyncio.run(measure(shared, quick=chosen.quick, only=chosen.only))
            section, file = table(runs, chosen.quick), ROOT / "docs" / "benchmarks.md"
    print(section)
    if chosen.write:
        file.write_text(put_section(file.read_text("utf-8"), section, NODES), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
