"""This server beside those it replaces: the same load, the same core, in turn.

Strategy: each candidate is a process started for one repetition and pinned to one core, the generator
to another. Repetitions are interleaved (ours, theirs, theirs, ours, ...), so a machine whose speed drifts
drifts for all; figures are medians, and what is judged are ratios of one run. The others
keep everything in memory, as their packages do by default; this one commits every edit to SQLite with
``synchronous=FULL`` meanwhile. Only where a restart is the point do they keep files through their hooks.

What authentication costs is too little to be seen between runs. There two of our servers, one with and one
without, share the core and get the same load at the same time, so that whatever slows one slows the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from collab.bench.connection import Target
from collab.bench.load import gathered
from collab.bench.plans import CANDIDATES, PLANS, SECRET, Candidate, Plan, Runs
from collab.bench.process import ServerProcess, pin
from collab.bench.report import CURVES, draw_curves, write_report
from collab.bench.run import Bench, Figures
from collab.bench.scenarios import run_scenario
from collab.errors import ConfigurationError

_CHECKOUT = Path(__file__).resolve().parents[2]
_PEERS = _CHECKOUT / "tests" / "peers"
_BUN = "bun"  # the folder of its package
_READY = re.compile(r"(?:ws|http)://127\.0\.0\.1:(\d+)")
_SERVER_CORE, _GENERATOR_CORE = 0, 1
_START_SECONDS = 60.0


class Comparison(NamedTuple):
    """What a comparison gives: the report in Markdown, the pictures in it by name, and whether every run was right."""

    report: str
    pictures: dict[str, str]
    right: bool


async def compare(*, quick: bool, only: list[str], show: Callable[[float, str], None]) -> Comparison:
    """Run the comparison.

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
    curves = draw_curves(plans, runs)
    return Comparison(write_report(plans, runs, quick), {CURVES: curves} if curves else {}, right)


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

        sizes = {**plan.sizes, **(plan.quick if quick else {})}
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
        environment["COLLAB_DRAIN_DELAY_SECONDS"] = "0"  # there is no proxy that has to notice
        if candidate.users:
            environment["COLLAB_JWT_SECRET"] = SECRET
        cwd = _CHECKOUT
    else:
        command = [_bun() if candidate.on_bun else _program("node"), "server.js"]
        environment = {**os.environ, "PORT": "0", **({"DATA_DIR": str(folder)} if keeps else {})}
        cwd = _PEERS / candidate.folder
    return await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, preexec_fn=on_its_core
    )


async def _install() -> None:
    """Install the peers' packages, and Bun, where they are missing."""
    folders = {candidate.folder: candidate.name for candidate in CANDIDATES if candidate.folder is not None}
    for name, what in {**folders, _BUN: "Bun"}.items():
        folder = _PEERS / name
        if not (folder / "package-lock.json").is_file():
            raise ConfigurationError("the comparison runs in a checkout, where tests/peers stands")
        if (folder / "node_modules").is_dir():
            continue
        install = await asyncio.create_subprocess_exec(
            _program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder
        )
        if await install.wait():
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            raise ConfigurationError(f"npm could not install {what}")


def _bun() -> str:
    """Return the program of Bun: its npm package has one for each system, and its script would choose among them."""
    found = sorted((_PEERS / _BUN / "node_modules" / "@oven").glob("bun-*/bin/bun"))
    if not found:
        raise ConfigurationError("npm has no Bun for this system")
    return str(found[0])


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigurationError(f"no {name} on the PATH; `make bench` installs Node where it is missing")
    return path
