"""This server beside the Node servers: the same load, the same core, in turn.

Strategy: each candidate is a process started for one repetition and pinned to one core, the generator
to another. Repetitions are interleaved (ours, theirs, theirs, ours, ...), so a machine whose speed drifts
drifts for all; figures are medians, and what is judged are ratios of one run. The Node servers keep
everything in memory, as their packages do by default; this one commits every edit to SQLite with
``synchronous=FULL`` meanwhile. Only where a restart is the point do they keep files through their hooks.

What authentication costs is too little to be seen between runs. There two of our servers, one with and one
without, share the core and get the same load at the same time, so that whatever slows one slows the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

from joserfc import jwt
from joserfc.jwk import OctKey

from collab.bench.connection import Target
from collab.bench.load import gathered
from collab.bench.process import ServerProcess, pin
from collab.bench.scenarios import Bench, Figures, run_scenario
from collab.bench.wire import WireName, choose_wire
from collab.errors import ConfigurationError

_CHECKOUT = Path(__file__).resolve().parents[2]
_READY = re.compile(r"(?:ws|http)://127\.0\.0\.1:(\d+)")
_SERVER_CORE, _GENERATOR_CORE = 0, 1
_START_SECONDS = 60.0
_SECRET = secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server that can be started: ``folder`` of a Node peer below tests/peers, None for this server.

    With ``users`` it wants tokens, and its clients are so many people in turn.
    """

    name: str
    folder: str | None
    wire: WireName
    path: str
    users: int = 0

    def target(self, url: str) -> Target:
        """Give what its clients connect to."""
        return Target(url, choose_wire(self.wire), cycle(_tokens(self.users)) if self.users else None)


OURS = Candidate("collab", None, WireName.Y_WEBSOCKET, "/ws")
OURS_HOCUSPOCUS = Candidate("collab, Hocuspocus protocol", None, WireName.HOCUSPOCUS, "/hocuspocus")
# As many people as the scenarios have clients, because what each has written is kept apart.
OURS_SIGNED_IN = Candidate("collab, with tokens", None, WireName.Y_WEBSOCKET, "/ws", users=100)
Y_WEBSOCKET = Candidate("@y/websocket-server", "y-websocket", WireName.Y_WEBSOCKET, "")
HOCUSPOCUS = Candidate("@hocuspocus/server", "hocuspocus", WireName.HOCUSPOCUS, "")
CANDIDATES = (OURS, OURS_HOCUSPOCUS, OURS_SIGNED_IN, Y_WEBSOCKET, HOCUSPOCUS)
_BOTH_PROTOCOLS = (OURS, OURS_HOCUSPOCUS, Y_WEBSOCKET, HOCUSPOCUS)
_ONE_PROTOCOL = (OURS, Y_WEBSOCKET, HOCUSPOCUS)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure, and what it should be: at most (or least) ``factor`` of the best peer's, or a bound of its own.

    ``against`` names the peers that count; empty, ``factor`` is absolute. ``of`` is who has to reach it. Without
    a ``factor`` the figure is only shown.
    """

    key: str
    meaning: str
    factor: float | None
    against: tuple[Candidate, ...] = ()
    higher: bool = False
    of: Candidate = OURS


PEERS = (Y_WEBSOCKET, HOCUSPOCUS)
_CPU = "server CPU for 1,000 deliveries, ms"
_P99 = Goal("p99_ms", "p99 latency, ms", 1.0, PEERS)
# What a client that is told "saved" may cost more than one that is not.
_BOTH = Goal("cpu_to_beside", "server CPU, Hocuspocus to y-websocket protocol", 1.15, of=OURS_HOCUSPOCUS)

# With tokens people are told apart in the journal, their states are stamped and their messages counted.
_SIGNED_IN = Goal("cpu_to_beside", "CPU of the serving process, with tokens to without", 1.05, of=OURS_SIGNED_IN)


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario of the comparison."""

    scenario: str
    title: str
    goals: tuple[Goal, ...]
    repetitions: int = 3
    peer_repetitions: int = 3  # fewer where a peer takes half a minute and is far from the bound
    candidates: tuple[Candidate, ...] = _BOTH_PROTOCOLS
    keeps: bool = False  # the peers keep files, because the server is restarted
    quick: Mapping[str, float] = field(default_factory=dict, hash=False)  # sizes for --quick
    seconds: float = 3.0
    beside: Candidate | None = None  # gets the same load on the same core at the same time
    serving_alone: bool = False  # without the processes that make snapshots, which may fall due or not meanwhile


Runs = dict[tuple[Plan, Candidate], list[Figures]]


PLANS = (
    Plan(
        "one-writer", "One writer at 50 edits/s, 100 readers",
        (Goal("cpu_ms_per_1000", _CPU, 0.9, (Y_WEBSOCKET,)), _P99),
    ),
    Plan(
        "one-writer", "One writer at 50 edits/s, 100 readers, in both protocols",
        (_BOTH,), candidates=(OURS_HOCUSPOCUS,), beside=OURS,
    ),
    Plan(
        "everybody", "100 clients in one room, 5 edits/s each",
        (Goal("cpu_ms_per_1000", _CPU, 0.6, PEERS), _P99),
    ),
    Plan(
        "everybody", "100 clients in one room, 5 edits/s each, in both protocols",
        (_BOTH,), candidates=(OURS_HOCUSPOCUS,), beside=OURS,
    ),
    Plan(
        "everybody", "100 signed-in clients in one room, 5 edits/s each",
        (_SIGNED_IN,), repetitions=4, candidates=(OURS_SIGNED_IN,), beside=OURS, serving_alone=True, seconds=6.0,
    ),
    Plan(
        "many-rooms", "500 rooms of 2 clients, 1 edit/s each",
        (
            Goal("cpu_ms_per_1000", f"{_CPU}, against @y/websocket-server", 1.1, (Y_WEBSOCKET,)),
            Goal("cpu_ms_per_1000", f"{_CPU}, against @hocuspocus/server", 0.75, (HOCUSPOCUS,)),
            _P99,
        ),
    ),
    Plan(
        "many-rooms", "500 rooms of 2 clients, 1 edit/s each, in both protocols",
        (_BOTH,), candidates=(OURS_HOCUSPOCUS,), beside=OURS, seconds=5.0,
    ),
    Plan(
        "presence", "Presence: 100 clients moving 10 times a second",
        (Goal("cpu_ms_per_1000", _CPU, 0.4, PEERS), _P99),
    ),
    Plan(
        "presence", "Presence: 100 clients moving 10 times a second, in both protocols",
        (_BOTH,), candidates=(OURS_HOCUSPOCUS,), beside=OURS,
    ),
    Plan(
        "presence", "Presence: 100 signed-in clients moving 10 times a second",
        (_SIGNED_IN,), repetitions=5, candidates=(OURS_SIGNED_IN,), beside=OURS, serving_alone=True, seconds=5.0,
    ),
    Plan(
        "flood", "20 people in a room, and one more in it who sends 50 times what is allowed",
        (
            Goal("calm_p99_ms", "p99 latency before, ms", None, of=OURS_SIGNED_IN),
            Goal("flood_p99_ms", "p99 latency meanwhile, ms", None, of=OURS_SIGNED_IN),
            Goal("flood_ratio", "p99 latency, meanwhile to before", 3.0, of=OURS_SIGNED_IN),
        ),
        repetitions=2, candidates=(OURS_SIGNED_IN,),
    ),
    Plan(
        "max-one-room", "Highest rate with p99 under 100 ms: 1 room of 20",
        (Goal("updates_per_s", "updates/s", 3.0, PEERS, higher=True),), repetitions=2, peer_repetitions=1,
    ),
    Plan(
        "max-many-rooms", "Highest rate with p99 under 100 ms: 50 rooms of 4",
        (Goal("updates_per_s", "updates/s", 3.0, PEERS, higher=True),), repetitions=2, peer_repetitions=1,
    ),
    Plan(
        "idle", "5,000 idle connections",
        (
            Goal("memory_kib", "memory for each connection, KiB", 15.0),
            Goal("connects_per_s", "connects/s", 1.0, (Y_WEBSOCKET,), higher=True),
        ),
        repetitions=2, peer_repetitions=2, candidates=_ONE_PROTOCOL, quick={"connections": 2_000},
    ),
    Plan(
        "cold-join", "A stored document of 100,000 single-character edits, after a restart",
        (Goal("first_ms", "first client in sync, ms", 40.0), Goal("last_ms", "last of 50 at once, ms", 150.0)),
        peer_repetitions=1, candidates=_ONE_PROTOCOL, keeps=True, quick={"edits": 20_000},
    ),
    Plan(
        "big-join", "A 20 MB document, 150 clients joining at once",
        (
            Goal("server_cpu_s", "server CPU in all, s", 2.0),
            Goal("others_p99_ms", "other rooms' p99 meanwhile, ms", 50.0),
        ),
        peer_repetitions=1, candidates=_ONE_PROTOCOL, quick={"megabytes": 5, "clients": 50},
    ),
    Plan(
        "many-ids", "A document of 50,000 client IDs and 1,000,000 edits, beside a fresh one",
        (
            Goal("edit_ratio", "cost of an edit, aged to fresh", 1.25),
            Goal("join_ratio", "cost of a join, aged to fresh of the same size", 1.25),
        ),
        candidates=(OURS,), quick={"ids": 5_000, "edits": 100_000},
    ),
)  # fmt: skip


async def compare(*, quick: bool, only: list[str], show: Callable[[float, str], None]) -> tuple[str, bool]:
    """Run the comparison; return the report in Markdown and whether every run was right.

    Raises ConfigurationError when this is no checkout, or Node or its packages cannot be had.
    """
    await _install()
    pin({_GENERATOR_CORE})
    plans = [plan for plan in PLANS if not only or plan.scenario in only]
    if not plans:
        raise ConfigurationError(f"no such scenario; there are {', '.join(plan.scenario for plan in PLANS)}")
    steps = [
        (plan, candidate)
        for plan in plans
        for turn in range(1 if quick else plan.repetitions)
        for candidate in plan.candidates
        if turn == 0 or candidate.folder is None or turn < plan.peer_repetitions
    ]
    runs: Runs = {}
    for at, (plan, candidate) in enumerate(steps):
        label = f"{plan.scenario}, {candidate.name}"

        def part(done: float, what: str, at: int = at, label: str = label) -> None:
            show((at + done) / len(steps), f"{label}: {what}")

        part(0.0, "starting")
        figures = await _measure(plan, candidate, quick, part)
        runs.setdefault((plan, candidate), []).append(figures)
    ours = (many for (_, candidate), many in runs.items() if candidate.folder is None)
    right = all(figures["right"] for many in ours for figures in many)
    return _report(plans, runs, quick), right


async def _measure(plan: Plan, candidate: Candidate, quick: bool, show: Callable[[float, str], None]) -> Figures:
    async with contextlib.AsyncExitStack() as stack:
        benches: list[Bench] = []
        for one in (candidate, *((plan.beside,) if plan.beside else ())):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collab-bench-")))
            restart, (url, server) = await stack.enter_async_context(_running(one, folder, plan.keeps))
            seconds = 2.0 if quick and not plan.beside else plan.seconds
            if plan.serving_alone:
                server = ServerProcess(server.pid, children=False)
            benches.append(Bench(one.target(url), server, seconds, show, restart, url=url, wire=one.wire.value))

        def warm(bench: Bench) -> Awaitable[Figures]:
            alike = Bench(bench.target, None, 1.0, url=bench.url, wire=bench.wire, verify=False)
            return run_scenario("everybody", alike, {"clients": 20, "rate": 20})

        sizes = dict(plan.quick) if quick else None
        try:
            if not plan.keeps:
                # Node compiles what runs often: its first second is not what it does all day.
                await gathered([partial(warm, bench) for bench in benches])
            figures, *beside = await gathered([partial(run_scenario, plan.scenario, bench, sizes) for bench in benches])
        except Exception as error:
            # A peer that cannot do it at all is a result; ours failing is seen by `right`.
            return {"right": False, "error": f"{type(error).__name__}: {error}"}
        for other in beside:
            figures["cpu_to_beside"] = figures["server_cpu_s"] / other["server_cpu_s"]
            figures["right"] = figures["right"] and other["right"]
        return figures


Restart = Callable[[], Awaitable[tuple[Target, ServerProcess]]]


@contextlib.asynccontextmanager
async def _running(
    candidate: Candidate, folder: Path, keeps: bool
) -> AsyncIterator[tuple[Restart, tuple[str, ServerProcess]]]:
    """Run a candidate on its core while the block lasts; it can be stopped and started again on the same files."""
    running: list[asyncio.subprocess.Process] = []
    readers: list[asyncio.Task[None]] = []

    async def discard(stream: asyncio.StreamReader) -> None:
        # What a server prints while it runs must not fill the pipe and stop it.
        while await stream.read(1 << 16):
            pass

    async def start() -> tuple[str, ServerProcess]:
        process = await _start(candidate, folder, keeps)
        running.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            while (found := _READY.search(line := (await process.stdout.readline()).decode())) is None:
                if not line:
                    raise ConfigurationError(f"{candidate.name} did not start")
        readers.append(asyncio.create_task(discard(process.stdout)))
        return f"ws://127.0.0.1:{found[1]}{candidate.path}", ServerProcess(process.pid)

    async def stop() -> None:
        while running:
            process = running.pop()
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
                await process.wait()
        while readers:
            await readers.pop()

    async def restart() -> tuple[Target, ServerProcess]:
        await stop()
        url, server = await start()
        return candidate.target(url), server

    try:
        yield restart, await start()
    finally:
        await stop()


async def _start(candidate: Candidate, folder: Path, keeps: bool) -> asyncio.subprocess.Process:
    def on_its_core() -> None:
        pin({_SERVER_CORE})

    if candidate.folder is None:
        command = [sys.executable, "-m", "collab", "serve", "--port", "0", "--data-dir", str(folder)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COLLAB_")}
        environment["COLLAB_LOG_LEVEL"] = "warning"
        if candidate.users:
            environment["COLLAB_JWT_SECRET"] = _SECRET
        cwd = _CHECKOUT
    else:
        command = [_program("node"), "server.js"]
        environment = {**os.environ, "PORT": "0", **({"DATA_DIR": str(folder)} if keeps else {})}
        cwd = _CHECKOUT / "tests" / "peers" / candidate.folder
    return await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, preexec_fn=on_its_core
    )


def _tokens(users: int) -> list[str]:
    """Make a token for each of so many people, good for a day."""
    key = OctKey.import_key(_SECRET)
    claims = {"documents": {"*": "write"}, "exp": int(time.time()) + 86_400}
    return [
        jwt.encode({"alg": "HS256"}, {"sub": f"u-{number}", "name": f"Person {number}", **claims}, key)
        for number in range(users)
    ]


async def _install() -> None:
    """Install the peers' packages where they are missing."""
    for candidate in CANDIDATES:
        if candidate.folder is None:
            continue
        folder = _CHECKOUT / "tests" / "peers" / candidate.folder
        if not (folder / "package-lock.json").is_file():
            raise ConfigurationError("the comparison runs in a checkout, where tests/peers stands")
        if (folder / "node_modules").is_dir():
            continue
        install = await asyncio.create_subprocess_exec(
            _program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder
        )
        if await install.wait():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            raise ConfigurationError(f"npm could not install {candidate.name}")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigurationError(f"no {name} on the PATH; `make bench` installs Node where it is missing")
    return path


# The report

_YES, _NO = "yes", "**no**"


def _value(runs: Runs, plan: Plan, candidate: Candidate, key: str) -> float | None:
    values = [figures[key] for figures in runs.get((plan, candidate), []) if figures.get(key) is not None]
    return float(median(values)) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _verdict(goal: Goal, ours: float | None, best: float | None) -> tuple[str, str, str]:
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


def _report(plans: list[Plan], runs: Runs, quick: bool) -> str:
    lines = [
        "# Benchmarks",
        "",
        "This server beside the Node servers that it replaces: the same load generator, the same core, in turn. The",
        "Node servers keep everything in memory; this one commits every edit to SQLite with `synchronous=FULL`",
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
            wanted, reached, good = _verdict(goal, values[goal.of], best)
            cells = " | ".join(_number(values[candidate]) if candidate in values else "" for candidate in CANDIDATES)
            lines.append(f"| {title} | {goal.meaning} | {cells} | {wanted} | {reached} | {good} |")
            title = ""
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


def _largest_share(many: list[Figures]) -> str:
    shares = [float(figures["generator_share"]) for figures in many if figures.get("generator_share") is not None]
    return f"{max(shares):.0%}" if shares else ""


def _why(many: list[Figures]) -> str:
    for figures in many:
        if not figures["right"]:
            return str(figures.get("error") or f"lost {figures.get('lost')}, or the document was not what was sent")
    return ""
