"""``collab bench``: measure a deployment, or this server beside those that it replaces.

Strategy: commands are thin. A scenario returns a dictionary of figures; here it becomes a table for a
person or a line of JSON for a machine. What a run could not do right (lost updates, a document that is not
what was typed) is an exit code of 1, whatever its speed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from collab.bench.connection import Target, close_all, connect
from collab.bench.ledger import Ledger
from collab.bench.process import ServerProcess, pin, raise_file_limit
from collab.bench.report import keep_sections
from collab.bench.run import Bench, Figures
from collab.bench.scenarios import SCENARIOS, run_scenario
from collab.bench.wire import WireName, choose_wire
from collab.errors import CollabError, ConfigurationError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    help="Measure a deployment under load with real Yjs updates from many clients.",
)

# Sockets of the largest scenario, with what the process has open besides.
_FILES = 6_000

_UNITS = {
    "cpu_ms_per_1000": "server CPU for 1,000 deliveries, ms",
    "p50_ms": "latency p50, ms",
    "p95_ms": "latency p95, ms",
    "p99_ms": "latency p99, ms",
    "max_ms": "latency max, ms",
    "sent": "updates sent",
    "sent_per_s": "updates sent a second",
    "delivered": "deliveries",
    "lost": "deliveries lost",
    "superseded": "states replaced by a newer one before they left",
    "updates_per_s": "updates a second, p99 under 100 ms",
    "deliveries_per_s": "deliveries a second",
    "memory_kib": "server memory for each connection, KiB",
    "connects_per_s": "connects a second",
    "first_ms": "first client in sync, ms",
    "last_ms": "last client in sync, ms",
    "server_cpu_s": "server CPU, s",
    "others_p99_ms": "other rooms' p99 meanwhile, ms",
    "calm_p99_ms": "latency p99 before, ms",
    "flood_p99_ms": "latency p99 during the flood, ms",
    "flood_ratio": "latency p99 during the flood, to before",
    "flood_sent": "messages of the flood that were sent",
    "flood_taken": "and that the server took",
    "echoes": "awareness updates that clients sent back",
    "echoes_per_s": "and a second",
    "core_share": "part of a core that the server used",
    "costly_p99_ms": "latency p99 beside costly updates, ms",
    "costly_ratio": "latency p99 beside costly updates, to before",
    "costly_sent": "costly updates that were sent",
    "silent_p99_ms": "latency p99 beside silent readers, ms",
    "silent_ratio": "latency p99 beside silent readers, to before",
    "asked_p99_ms": "latency p99 beside questions, ms",
    "asked_ratio": "latency p99 beside questions, to before",
    "questions": "questions that were asked",
    "readers": "readers that read nothing",
    "memory_before_mib": "server memory before, MiB",
    "memory_most_mib": "server memory, the most, MiB",
    "memory_ratio": "server memory, the most to before",
    "memory_after_mib": "server memory after, MiB",
    "generator_share": "generator's own share of a core",
    "generator_waited": "part of the time the generator waited for its core",
    "documents_equal": "documents that hold exactly what was sent",
    "right": "right",
}


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(help="Where clients connect, without the document name.")
    ] = "ws://127.0.0.1:1234/ws",
    scenario: Annotated[
        list[str] | None, typer.Option(help=f"What to play, several times for several: {', '.join(SCENARIOS)}.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="How long each scenario types.")] = 5.0,
    size: Annotated[
        list[str] | None, typer.Option(help="A size of the scenario, as NAME=NUMBER; a wrong name lists them.")
    ] = None,
    protocol: Annotated[WireName, typer.Option(help="What the server speaks.")] = WireName.Y_WEBSOCKET,
    token: Annotated[str, typer.Option(help="Token for the Hocuspocus protocol.")] = "",
    server_pid: Annotated[
        int | None, typer.Option(help="The server's process on this machine, for CPU and memory.")
    ] = None,
    restart_command: Annotated[
        str | None,
        typer.Option(help="Shell command that restarts the server, for cold-join; without it the join is warm."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each scenario, and nothing else.")
    ] = False,
) -> None:
    """Play scenarios against a server and report what arrived, how fast, and whether it was right."""
    if context.invoked_subcommand is not None:
        return

    async def play(show: Callable[[float, str], None]) -> bool:
        server = None if server_pid is None else ServerProcess(server_pid)
        sizes = dict(_read_size(text) for text in size or ())
        right = True
        for name in scenario or ["everybody"]:
            target = Target(url, choose_wire(protocol, token))
            restart = None if restart_command is None else partial(_restart, restart_command, target)
            run = Bench(target, server, seconds, show, restart, url=url, wire=protocol.value, token=token)
            figures = await run_scenario(name, run, sizes)
            right = right and bool(figures["right"])
            if as_json:
                print(json.dumps(figures), flush=True)
            else:
                _console.print(as_table(figures))
        return right

    raise typer.Exit(_run(play, quiet=as_json))


async def _restart(command: str, target: Target) -> tuple[Target, None]:
    """Run the user's command and wait until the server takes clients again, a minute at most."""
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise ConfigurationError(f"--restart-command ended with {process.returncode}: {command}")
    last: Exception | None = None
    for _ in range(120):
        try:
            await close_all([await connect(target, f"bench-restarted-{secrets.token_hex(4)}", Ledger(), within=10)])
            return target, None  # another process now: its CPU is not known
        except (CollabError, OSError) as error:
            last = error
            await asyncio.sleep(0.5)
    raise ConfigurationError(f"the server did not come back after --restart-command: {last}")


@app.command()
def ceiling(
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="How long each step types.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each load, and nothing else.")] = False,
) -> None:
    """Find the generator's own limit, against a sink that does nothing but fan out."""

    async def play(show: Callable[[float, str], None]) -> bool:
        apart = (os.cpu_count() or 1) > 1  # a core each, as in the comparison
        sink = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "collab.bench.sink",
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=partial(pin, {0}) if apart else None,
        )
        if apart:
            pin({1})
        assert sink.stdout is not None
        try:
            url = (await sink.stdout.readline()).decode().split()[-1]
            run = Bench(Target(url, choose_wire(WireName.Y_WEBSOCKET)), None, seconds, show, url=url, verify=False)
            for name in ("max-one-room", "max-many-rooms"):
                figures = await run_scenario(name, run)
                if as_json:
                    print(json.dumps(figures), flush=True)
                else:
                    _console.print(as_table(figures))
        finally:
            sink.terminate()
            await sink.wait()
        return True

    raise typer.Exit(_run(play, quiet=as_json))


@app.command()
def peers(
    quick: Annotated[bool, typer.Option(help="One short repetition of everything; not for publishing.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="These scenarios alone; the report is printed, not written.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Where the report is written.")] = Path("docs/benchmarks.md"),
) -> None:
    """Measure this server beside those that it replaces, on one core each in turn, and write docs/benchmarks.md."""
    from collab.bench.peers import compare

    async def play(show: Callable[[float, str], None]) -> bool:
        found = await compare(quick=quick, only=only or [], show=show)
        if only or quick:
            print(found.report)
        else:
            text = found.report
            # Other commands have measured several nodes and ASGI servers, and this one has not.
            before = report.read_text(encoding="utf-8") if report.exists() else ""
            report.write_text(keep_sections(before, text), encoding="utf-8")
            for name, picture in found.pictures.items():
                report.with_name(name).write_text(picture, encoding="utf-8")
            _console.print(f"written to {report}")
        return found.right

    raise typer.Exit(_run(play, quiet=False))


_console = Console(stderr=False)


def as_table(figures: Figures) -> Table:
    """Lay figures out for a person: what has a name first and in order, steps of a search last."""
    table = Table(title=str(figures.get("scenario", "")), show_header=False, title_justify="left")
    for key, meaning in _UNITS.items():
        if figures.get(key) is not None:
            table.add_row(meaning, _shown(figures[key]))
    for key, value in figures.items():
        if key not in _UNITS and key not in ("scenario", "steps") and value is not None:
            table.add_row(key.replace("_", " "), _shown(value))
    return table


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _read_size(text: str) -> tuple[str, float]:
    name, equals, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ConfigurationError(f"--size takes NAME=NUMBER, not {text!r}") from None


def _run(play: Callable[[Callable[[float, str], None]], Coroutine[Any, Any, bool]], *, quiet: bool) -> int:
    """Run to the end under a progress bar on standard error; give the exit code."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    try:
        raise_file_limit(_FILES)
        with progress:
            task = progress.add_task("connecting", total=1.0)
            right = _loop(play(lambda done, what: progress.update(task, completed=done, description=what)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (CollabError, OSError, ValueError) as error:
        print(f"collab bench: {error}", file=sys.stderr)
        return 1
    return 0 if right else 1


def _loop(work: Coroutine[Any, Any, bool]) -> bool:
    try:
        import uvloop
    except ImportError:  # no uvloop for this system
        return asyncio.run(work)
    result: bool = uvloop.run(work)
    return result
