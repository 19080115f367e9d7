"""What one tenant notices of another one's storm.

::

    python -m tests.bench.tenants --seconds 30               # tenants by names, and once more without
    python -m tests.bench.tenants --rooms 60 --members 6     # a larger storm

In each of a few rooms two people of one tenant type in turn. Each stroke is timed until the other one has it: first
while they are alone, then beside a storm of the other tenant, many rooms in which everybody types as fast as one
connection may, from a process of its own. Both are measured with one server after the other in the same minute, so the
ratio of the two p99 says more than either. The storm has the lowest priority: on a machine of two cores it must not
take one from the server, nor from those who measure. These have the highest one, if that is allowed. What the storm
cannot send then it leaves out; how busy the server is says how much that was.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.bench.history import give_way, typed
from tests.support.server import ServerProcess
from tests.support.wsclient import EMPTY_UPDATE, STEP1, UPDATE, RawClient, step1, step2, update

# Rooms with two people each, strokes a second of such two, and of each client of the storm: what a connection may send
# is above both.
_PAIRS: Final = 4
_STROKES: Final = 20.0
_STORM_STROKES: Final = 80.0


class Times(NamedTuple):
    """What passes from a stroke until the other one has it.

    Attributes:
        wall: milliseconds, each.
        work: milliseconds of CPU that the server has worked meanwhile, each: other programs have no part in it.
        busy: the server's CPU in all the time, as a share of it.
    """

    wall: list[float]
    work: list[float]
    busy: float


def p99(values: list[float]) -> float:
    """Give the 99th of 100 parts."""
    return statistics.quantiles(values, n=100)[98]


def cpu(pid: int) -> float:
    """Give the milliseconds of CPU that a process has used, to the microsecond (Linux: ``clock_getcpuclockid``)."""
    return time.clock_gettime((~pid << 3) | 2) * 1_000


class Stormer(asyncio.Protocol):
    """One client of the storm, which reads nothing of what comes."""

    def __init__(self, host: str, path: str) -> None:
        self._host, self._path = host, path
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the document."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.send(step2(EMPTY_UPDATE))

    def send(self, message: bytes) -> None:
        """Send a short message, masked with zeros."""
        assert self.transport is not None and len(message) < 126
        self.transport.write(bytes((0x82, 0x80 | len(message))) + bytes(4) + message)


async def storm(url: str, rooms: int, members: int) -> None:
    """Type in many rooms of a tenant until this process is ended, with the lowest priority."""
    give_way()
    split = urlsplit(url)
    loop = asyncio.get_running_loop()
    clients: list[tuple[Stormer, int]] = []
    for number in range(rooms * members):
        path = f"/ws/storm/{number % rooms}"
        _, client = await loop.create_connection(
            lambda path=path: Stormer(split.netloc, path), split.hostname, split.port
        )
        clients.append((client, 1_000_000 + number))
        if not number % 20:
            await asyncio.sleep(0.3)  # what may come anew in a second has a bound, too
    print("storm", flush=True)
    clock, due = 0, loop.time()
    while True:
        for client, client_id in clients:
            if client.transport is not None and client.transport.get_write_buffer_size() < 4_096:
                client.send(update(typed(client_id, clock, "x")))
        clock += 1
        due = max(due + 1 / _STORM_STROKES, loop.time() - 0.1)
        await asyncio.sleep(max(0.0, due - loop.time()))


def run_at_once() -> None:
    """Let this process run at once when something comes, if it may (``CAP_SYS_NICE``).

    People type on machines of their own. Here whoever measures would often wait for up to 4 ms, a tick of the
    scheduler, until the core that the server keeps busy is given up.
    """
    with contextlib.suppress(PermissionError, AttributeError):  # the latter where there is no such priority
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


async def type_in_turn(server: ServerProcess, name: str, seconds: float) -> Times:
    """Type in all rooms for so many seconds; the pairs strike one after the other, never at the same time."""
    first, started = cpu(server.pid), time.perf_counter()
    pairs = [type_in_room(server, f"{name}-{number}", seconds, number / _STROKES / _PAIRS) for number in range(_PAIRS)]
    strokes = [stroke for typed_there in await asyncio.gather(*pairs) for stroke in typed_there]
    busy = (cpu(server.pid) - first) / (time.perf_counter() - started) / 1_000
    return Times([wall for wall, _ in strokes], [work for _, work in strokes], busy)


async def type_in_room(server: ServerProcess, name: str, seconds: float, wait: float) -> list[tuple[float, float]]:
    """Type in one room; leave out the first tenth, in which everything is opened."""
    path = f"{server.ws_url}/calm/{name}"
    async with RawClient(path) as one, RawClient(path) as other:
        for client in (one, other):
            await client.send(step1(), step2(EMPTY_UPDATE))
            await client.expect_sync(STEP1)
        await asyncio.sleep(wait)
        strokes: list[tuple[float, float]] = []
        until, clock, due = time.monotonic() + seconds, 0, time.monotonic()
        while time.monotonic() < until:
            by, to = (one, other) if clock % 2 else (other, one)
            data = typed(1 + clock % 2, clock // 2, "y")
            seen = len(to.frames)
            began, worked = time.perf_counter(), cpu(server.pid)
            await by.send(update(data))
            await to.expect(lambda frame, data=data: frame.kind == UPDATE and data in frame.payload, "it", after=seen)
            used = cpu(server.pid) - worked
            strokes.append(((time.perf_counter() - began) * 1_000, used))
            clock += 1
            due += 1 / _STROKES
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    return strokes[len(strokes) // 10 :]


async def measure(tenants: str, seconds: float, rooms: int, members: int) -> float:
    """Measure one server; give the ratio of the two p99."""
    run_at_once()
    with tempfile.TemporaryDirectory() as directory:
        options = ["--tenants", tenants, "--max-connections-per-address", "0", "--max-new-documents-per-minute", "0"]
        with ServerProcess(Path(directory), *options) as server:
            await type_in_turn(server, "warm", min(5.0, seconds))
            alone = await type_in_turn(server, "alone", seconds)
            command = [sys.executable, "-m", "tests.bench.tenants", "--storm", server.url]
            stormer = await asyncio.create_subprocess_exec(
                *command, "--rooms", str(rooms), "--members", str(members), stdout=asyncio.subprocess.PIPE
            )
            try:
                assert stormer.stdout is not None
                await stormer.stdout.readline()
                beside = await type_in_turn(server, "beside", seconds)
            finally:
                stormer.kill()
                await stormer.wait()
    ratio = p99(beside.work) / p99(alone.work)
    for what, times in (("alone", alone), ("beside the storm", beside)):
        print(
            f"--tenants {tenants}, {what}: p50 {statistics.median(times.wall):.2f} ms, p99 {p99(times.wall):.2f} ms; "
            f"work p50 {statistics.median(times.work):.2f} ms, p99 {p99(times.work):.2f} ms; "
            f"{len(times.wall)} strokes, server {times.busy:.0%} busy"
        )
    print(f"  ratio of the p99: {p99(beside.wall) / p99(alone.wall):.2f}, of the work {ratio:.2f}", flush=True)
    return ratio


async def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rooms", type=int, default=30)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--tenants", nargs="*", default=["off", "name"])
    parser.add_argument("--storm", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.storm is not None:
        await storm(given.storm, given.rooms, given.members)
    for tenants in given.tenants:
        await measure(tenants, given.seconds, given.rooms, given.members)


if __name__ == "__main__":
    asyncio.run(main())
