"""Compare what two checkouts spend on the same work.

Strategy: the server of each checkout runs as a process of its own, under ``valgrind --tool=callgrind``, which counts
instructions: they do not depend on what else the machine does. The client stays outside of it. It waits for each
message to have had its effect before it sends the next, so that both servers do the same number of turns, and the
counters are read when the server has come to rest. The processes of the sandbox are not counted. What a server does
by the clock, whether or not anybody asks it for anything, is counted while it rests and taken off: under valgrind, and
on a busy machine, an edit takes long enough for some of that. Both servers run at the same time and several times over;
the median counts, and how far the runs lie apart stands beside it.

Without valgrind, or with ``--seconds``, the seconds of CPU are compared instead: runs of the two checkouts in pairs,
a sign test over the pairs, and much more of the same work in each run.

    python -m tests.support.compare BASE NEW [--runs N] [--only WHAT]... [--seconds]

BASE and NEW are folders of two checkouts. Both run under this Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import comb
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import psutil

from tests.support import hocuspocus, wsclient
from tests.support.author import Author
from tests.support.hocuspocus import RawHocuspocus
from tests.support.wsclient import EMPTY_UPDATE, STEP1, STEP2, RawClient

_READY = re.compile(rb"^collab listening on http://\S+:(\d+)\s*$", re.MULTILINE)
_START_SECONDS = 300.0
# A server under valgrind takes some fifty times as long.
_PATIENCE = 300.0

# For these a server is watched while it rests.
_REST_SECONDS = 20.0

READERS = 20
ROOMS = 100


class Server(ABC):
    """The server of a checkout as a process, and a counter of what it spends; use as an async context manager."""

    scale: int
    """How many times the work is done; what is counted too finely needs less of it."""

    unit: str

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._checkout = checkout
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wrapper(self) -> list[str]:
        """Return what stands before the command."""
        return []

    @abstractmethod
    async def begin(self) -> None:
        """Begin to count."""

    @abstractmethod
    async def spent(self) -> float:
        """Return what was spent since ``begin``."""

    async def rest(self) -> None:
        """Wait until the server does nothing but wait, looking at the time of CPU that it has used."""
        process = psutil.Process(self.pid)
        still = 0
        before = -1.0
        while still < 3:
            await asyncio.sleep(0.2)
            now = sum(process.cpu_times()[:2])
            still = still + 1 if now - before < 0.015 else 0
            before = now

    async def __aenter__(self) -> Server:
        command = [
            *self.wrapper(),
            sys.executable,
            "-m",
            "collab",
            "serve",
            "--port",
            "0",
            "--data-dir",
            str(self.folder / "data"),
            "--log-level",
            "error",
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COLLAB_")}
        environment |= {"PYTHONPATH": str(self._checkout), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._checkout,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.folder / "errors").open("wb"),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            while not (found := _READY.match(line := await self._process.stdout.readline())):
                if not line:
                    raise SystemExit(f"compare: no server in {self._checkout}:\n{self._errors()}")
        self._port = int(found[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _errors(self) -> str:
        return (self.folder / "errors").read_text(errors="replace")[-3000:]


class Instructions(Server):
    """Counts the instructions of the process, in thousands."""

    scale = 1
    unit = "thousand instructions"

    _dumps = 0
    _began = 0.0
    _at_rest = 0.0  # in a second

    def wrapper(self) -> list[str]:
        # Not while it starts: that takes the longest and is not compared.
        return [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={self.folder / 'callgrind'}",
        ]

    async def _control(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "callgrind_control",
            *arguments,
            str(self.pid),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode or b"OK" not in output:
            raise SystemExit(f"compare: callgrind_control {' '.join(arguments)}: {output.decode()}")

    async def begin(self) -> None:
        if not self._at_rest:
            await self._count()
            await asyncio.sleep(_REST_SECONDS)
            self._at_rest = await self._counted() / (time.monotonic() - self._began)
        await self._count()

    async def spent(self) -> float:
        seconds = time.monotonic() - self._began
        return await self._counted() - seconds * self._at_rest

    async def _count(self) -> None:
        await self._control("--instr=on")
        await self._control("--zero")
        self._began = time.monotonic()

    async def _counted(self) -> float:
        await self._control("--dump")
        self._dumps += 1
        written = (self.folder / f"callgrind.{self._dumps}").read_text(errors="replace")
        found = re.search(r"^totals: (\d+)", written, re.MULTILINE)
        assert found is not None, written[-500:]
        await self._control("--instr=off")
        return int(found[1]) / 1000


class Seconds(Server):
    """Counts the seconds of CPU of the process, in microseconds."""

    scale = 5
    unit = "µs of CPU"

    _began = 0.0

    async def begin(self) -> None:
        self._began = self._now()

    async def spent(self) -> float:
        return (self._now() - self._began) * 1e6

    def _now(self) -> float:
        # In nanoseconds, where psutil has hundredths of a second: all threads of the process.
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


# What is done. Each function prepares, then counts, and returns what one operation has cost.


async def _open(stack: contextlib.AsyncExitStack, client: RawClient) -> None:
    await client.connect()
    stack.push_async_callback(client.close)


async def _member(server: Server, stack: contextlib.AsyncExitStack, name: str) -> RawClient:
    client = RawClient(f"{server.ws}/ws/{name}")
    await _open(stack, client)
    await client.send(wsclient.step1())
    await _has(client, lambda frame: frame[:2] == b"\0\1")
    await client.send(wsclient.step2(EMPTY_UPDATE))
    return client


async def _provider(server: Server, stack: contextlib.AsyncExitStack, name: str) -> RawHocuspocus:
    client = RawHocuspocus(f"{server.ws}/hocuspocus")
    await _open(stack, client)
    await _enter(client, name)
    return client


async def _enter(client: RawHocuspocus, name: str) -> None:
    """Open a document as a provider does, until its SyncStep2 is acknowledged."""
    await client.send(hocuspocus.auth(name, "", "4.0.0"), hocuspocus.step1(name))
    for kind in (STEP1, STEP2):
        begin = hocuspocus.frame(name, hocuspocus.SYNC, bytes((kind,)))
        await _has(client, lambda frame, begin=begin: frame.startswith(begin))  # type: ignore[misc]
    await client.send(hocuspocus.step2(name, EMPTY_UPDATE))
    saved = hocuspocus.frame(name, hocuspocus.SYNC_STATUS, b"\1")
    await _has(client, lambda frame: frame == saved)


async def _has(client: RawClient, accept: Callable[[bytes], object]) -> None:
    await client.until(lambda: any(accept(frame) for frame in client.frames), "a frame", _PATIENCE)


async def _counted(server: Server, times: int, step: Callable[[], Awaitable[object]], *, warm_up: int = 5) -> float:
    for _ in range(warm_up):
        await step()
    await server.rest()
    await server.begin()
    for _ in range(times * server.scale):
        await step()
    await server.rest()
    return await server.spent() / (times * server.scale)


def _forget(clients: Sequence[RawClient]) -> None:
    for client in clients:
        client.frames.clear()


async def edits(server: Server) -> float:
    """One y-websocket client writes, 20 read."""
    author = Author(1)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await _member(server, stack, "edits") for _ in range(READERS + 1)]

        async def step() -> None:
            _forget(clients)
            data = author.type("x")
            await clients[0].send(wsclient.update(data))
            for client in clients:
                await _has(client, lambda frame: data in frame)

        return await _counted(server, 600, step)


async def hocuspocus_edits(server: Server) -> float:
    """One Hocuspocus client writes and is told that it is saved, 20 read."""
    author = Author(1)
    name = "hocuspocus edits"
    saved = hocuspocus.frame(name, hocuspocus.SYNC_STATUS, b"\1")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await _provider(server, stack, name) for _ in range(READERS + 1)]

        async def step() -> None:
            _forget(clients)
            data = author.type("x")
            await clients[0].send(hocuspocus.update(name, data))
            for client in clients:
                await _has(client, lambda frame: data in frame)
            await _has(clients[0], lambda frame: frame == saved)

        return await _counted(server, 600, step)


async def rooms(server: Server) -> float:
    """In 100 documents of two clients each, one writes; all at the same time."""
    authors = [Author(1) for _ in range(ROOMS)]
    async with contextlib.AsyncExitStack() as stack:
        pairs = [[await _member(server, stack, f"room {number}") for _ in range(2)] for number in range(ROOMS)]

        async def step() -> None:
            for author, clients in zip(authors, pairs, strict=True):
                _forget(clients)
                await clients[0].send(wsclient.update(author.type("x")))
            for author, clients in zip(authors, pairs, strict=True):
                data = author.updates[-1]
                for client in clients:
                    await _has(client, lambda frame, data=data: data in frame)  # type: ignore[misc]

        return await _counted(server, 24, step, warm_up=1) / ROOMS


async def awareness(server: Server) -> float:
    """One of 20 y-websocket clients moves its cursor."""
    clock = 0
    async with contextlib.AsyncExitStack() as stack:
        clients = [await _member(server, stack, "awareness") for _ in range(READERS)]

        async def step() -> None:
            nonlocal clock
            clock += 1
            _forget(clients)
            state = f'{{"cursor":{clock}}}'
            await clients[0].send(wsclient.awareness((1, clock, state)))
            for client in clients:
                await _has(client, lambda frame: state.encode() in frame)

        return await _counted(server, 600, step)


async def joins(server: Server) -> float:
    """A y-websocket client connects, syncs and leaves."""
    async with contextlib.AsyncExitStack() as stack:
        await (await _member(server, stack, "joins")).send(wsclient.update(Author(1).type("made")))

        async def step() -> None:
            async with contextlib.AsyncExitStack() as own:
                await _member(server, own, "joins")

        return await _counted(server, 120, step)


async def hocuspocus_joins(server: Server) -> float:
    """A Hocuspocus client connects, syncs and leaves."""
    async with contextlib.AsyncExitStack() as stack:
        await (await _member(server, stack, "joins")).send(wsclient.update(Author(1).type("made")))

        async def step() -> None:
            async with contextlib.AsyncExitStack() as own:
                await _provider(server, own, "joins")

        return await _counted(server, 120, step)


async def reads(server: Server) -> float:
    """An HTTP client asks for a document."""
    async with contextlib.AsyncExitStack() as stack:
        await (await _member(server, stack, "read")).send(wsclient.update(Author(1).type("made")))
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def step() -> None:
            async with http.get(f"{server.http}/api/v1/documents/read") as response:
                assert response.status == 200
                await response.read()

        await server.rest()
        return await _counted(server, 120, step)


WORK: dict[str, Callable[[Server], Awaitable[float]]] = {
    "edit, 20 readers, y-websocket": edits,
    "edit, 20 readers, Hocuspocus": hocuspocus_edits,
    "edit in each of 100 rooms": rooms,
    "awareness change, 20 clients": awareness,
    "join, y-websocket": joins,
    "join, Hocuspocus": hocuspocus_joins,
    "HTTP read": reads,
}

Figures = dict[str, float]


@asynccontextmanager
async def _running(kind: type[Server], checkout: Path) -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory(prefix="collab-compare-") as folder:
        async with kind(checkout, Path(folder)) as server:
            yield server


async def run(kind: type[Server], checkout: Path, wanted: Sequence[str]) -> Figures:
    """Start the server of a checkout and let it do all the work once."""
    async with _running(kind, checkout) as server:
        return {name: await WORK[name](server) for name in wanted}


def sign_test(base: Sequence[float], new: Sequence[float]) -> float:
    """Return how likely so uneven a split of the pairs is if neither checkout spends more (two-sided)."""
    more = sum(b > a for a, b in zip(base, new, strict=True))
    pairs = sum(a != b for a, b in zip(base, new, strict=True))
    least = min(more, pairs - more)
    return min(1.0, 2 * sum(comb(pairs, k) for k in range(least + 1)) / 2**pairs)


def spread(values: Sequence[float]) -> float:
    """Return how far the values lie apart, in percent of their median."""
    return 100 * (max(values) - min(values)) / median(values)


async def compare(kind: type[Server], base: Path, new: Path, runs: int, wanted: Sequence[str]) -> None:
    """Run and print."""
    of_base: list[Figures] = []
    of_new: list[Figures] = []
    for number in range(runs):
        if kind is Instructions:
            one, other = await asyncio.gather(run(kind, base, wanted), run(kind, new, wanted))
        elif number % 2:
            other, one = await run(kind, new, wanted), await run(kind, base, wanted)
        else:
            one, other = await run(kind, base, wanted), await run(kind, new, wanted)
        of_base.append(one)
        of_new.append(other)
        print(f"run {number + 1} of {runs}", file=sys.stderr, flush=True)
    print(f"{kind.unit + ', median of ' + str(runs):32s} {'base':>9s} {'new':>9s}  ratio  spread    p")
    for name in wanted:
        first, second = [one[name] for one in of_base], [one[name] for one in of_new]
        print(
            f"{name:32s} {median(first):9.1f} {median(second):9.1f}  {median(second) / median(first):5.3f}"
            f"  {max(spread(first), spread(second)):4.1f} %  {sign_test(first, second):5.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.compare", description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--runs", type=int, help="3 if instructions are counted, else 10")
    parser.add_argument("--only", action="append", choices=list(WORK), metavar="WHAT", help=", ".join(WORK))
    parser.add_argument("--seconds", action="store_true", help="compare seconds of CPU in pairs of runs")
    options: Any = parser.parse_args()
    kind: type[Server] = Seconds if options.seconds or not shutil.which("callgrind_control") else Instructions
    runs = options.runs or (3 if kind is Instructions else 10)
    asyncio.run(compare(kind, options.base.resolve(), options.new.resolve(), runs, options.only or list(WORK)))


if __name__ == "__main__":
    main()
