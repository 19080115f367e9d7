"""The Python client under every fault of the chaos suite, on three nodes, and under faults of its own line.

    python -m tests.chaos.client --bus postgresql|redis [--seed N]

Each client has a line of its own, which leads to one of the nodes as a load balancer would choose it. All write into
one document without rest, and book what ``wait_saved`` has said to be saved. After each fault all clients must be
equal, and must have everything that any of them has made, once; and all that was booked must be in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from collab.client import Connection, Document
from tests.chaos.cluster import Bus, Cluster, Node
from tests.chaos.faults import FAULTS, Fault
from tests.crash.client import Books, quick, write
from tests.crash.load import tokens_of
from tests.crash.stored import tokens
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually, happens

NAME = "chaos"

# The line of a client is taken for dead after so many seconds of silence, and half as many more.
HEARTBEAT = 1.0


@dataclass
class Member:
    """One client with its line."""

    line: SlowLine
    connection: Connection
    document: Document


LineFault = tuple[str, Callable[[SlowLine], Awaitable[None]]]


async def _cut(line: SlowLine) -> None:
    for _ in range(5):
        line.cut()
        await asyncio.sleep(0.2)


async def _hang(line: SlowLine) -> None:
    line.hang()
    await asyncio.sleep(2 * HEARTBEAT)


async def _stall(line: SlowLine) -> None:
    line.up = line.down = 0
    await asyncio.sleep(2 * HEARTBEAT)
    line.up = line.down = None


async def _one_way(line: SlowLine) -> None:
    line.up = 0
    await asyncio.sleep(2 * HEARTBEAT)
    line.up = None


async def _closed(line: SlowLine) -> None:
    line.closed = True
    line.cut()
    await asyncio.sleep(1.0)
    line.closed = False


async def _slow(line: SlowLine) -> None:
    line.up = line.down = 20_000
    await asyncio.sleep(2.0)
    line.up = line.down = None


async def _within_a_message(line: SlowLine) -> None:
    for _ in range(5):
        line.left_up = random.randrange(1, 3_000)
        line.left_down = random.randrange(1, 3_000)
        await asyncio.sleep(0.3)
    line.left_up = line.left_down = None


LINE_FAULTS: tuple[LineFault, ...] = (
    ("the line is cut", _cut),
    ("the line stands still for good", _hang),
    ("nothing passes for a while", _stall),
    ("nothing passes to the server", _one_way),
    ("connections are refused", _closed),
    ("the line is slow", _slow),
    ("the line ends within a message", _within_a_message),
)


class Members:
    """Clients that write into one document, and what they have made and saved."""

    def __init__(self, seed: int) -> None:
        self.members: list[Member] = []
        self.books = Books([NAME])
        self._random = random.Random(seed)
        self._writers: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def on(self, ports: Sequence[int]) -> AsyncIterator[Members]:
        """Open a client on each port, and let it write."""
        async with contextlib.AsyncExitStack() as stack:
            for number, port in enumerate(ports):
                line = stack.enter_context(SlowLine(port))
                connection = await stack.enter_async_context(
                    Connection(
                        f"ws://127.0.0.1:{line.port}", heartbeat=HEARTBEAT, backoff=quick(number), close_timeout=60
                    )
                )
                document = await connection.open(NAME)
                self.members.append(Member(line, connection, document))
                writer = write(document, self.books, str(number), self._random)
                self._writers.append(asyncio.create_task(writer))
            yield self
            self.books.stopped.set()
            await asyncio.gather(*self._writers)
            await self.equal(60.0)
            assert self.books.saved[NAME] == set(self.books.made[NAME])

    async def equal(self, seconds: float) -> None:
        """Wait until all have everything that was made up to now, once."""
        wanted = set(self.books.made[NAME])

        def there() -> bool:
            found = [tokens_of(member.document.doc) for member in self.members]
            return all(wanted <= set(one) for one in found) and all(len(one) == len(set(one)) for one in found)

        await happens(there, f"all {len(wanted)} tokens in each client", seconds)

    async def more(self, seconds: float = 60.0) -> None:
        """Wait until more was saved."""
        before = len(self.books.saved[NAME])
        await happens(lambda: len(self.books.saved[NAME]) > before, "something saved", seconds)

    def leave(self, node: Node, others: Sequence[Node]) -> None:
        """Lead the clients of a node to another one, as a load balancer does when a node does not answer."""
        for member in self.members:
            if member.line.target == node.server.port:
                member.line.target = self._random.choice(others).server.port
                member.line.cut()

    def spread(self, nodes: Sequence[Node]) -> None:
        """Lead each client to its own node again; it comes with its next connection."""
        for member, node in zip(self.members, nodes, strict=True):
            member.line.target = node.server.port

    async def suffer(self, fault: LineFault) -> None:
        """Let a fault happen to the first client's line."""
        await fault[1](self.members[0].line)
        await self.more()
        await self.equal(60.0)


async def suffer(cluster: Cluster, members: Members, fault: Fault, number: int, seed: int) -> None:
    """Let a fault happen in the cluster, and look whether everything is as it must be."""
    chance = random.Random(f"{seed} {fault.name}")
    node = cluster.nodes[number % 3]
    await members.more()
    await fault.begin(cluster, node, chance)
    if fault.saves:
        await members.more()
    if not node.server.running or "stands still" in fault.name:
        members.leave(node, [other for other in cluster.nodes if other is not node])
    await asyncio.sleep(fault.seconds[0])
    await fault.end(cluster, node, chance)
    members.spread(cluster.nodes)
    await members.more()
    await members.equal(fault.converged * 3)
    saved = set(members.books.saved[NAME])

    async def stored() -> bool:
        rows = (await asyncio.to_thread(cluster.log.rows)).get(NAME, [])
        return saved <= set(tokens(data for _, data in rows))

    await eventually(stored, f"after {fault.name!r}: all that was saved, in the log")


async def run(
    bus: Bus,
    directory: Path,
    seed: int,
    faults: Sequence[Fault],
    say: Callable[[str], None],
    lines: Sequence[LineFault] = LINE_FAULTS,
) -> None:
    """Go through faults on a cluster of three nodes; raises AssertionError for what is not as it must be."""
    async with Cluster(directory, bus, seed=seed) as cluster:
        members = Members(seed)
        async with members.on([node.server.port for node in cluster.nodes]):
            for fault in lines:
                await members.suffer(fault)
                say(f"{fault[0]}: {len(members.books.saved[NAME])} saved")
            for number, one in enumerate(fault for fault in faults if bus in fault.buses):
                await suffer(cluster, members, one, number, seed)
                say(f"{one.name}: {len(members.books.saved[NAME])} saved")


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.client", description=__doc__.splitlines()[0])
    parser.add_argument("--bus", choices=("postgresql", "redis"), required=True)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="collab-chaos-") as directory:
        asyncio.run(run(chosen.bus, Path(directory), chosen.seed, FAULTS, say))
    return 0


if __name__ == "__main__":
    sys.exit(main())
