"""A rolling restart of three nodes behind a load balancer, under clients of both protocols that type all the time.

    python -m tests.crash.rolling --clients 300 [--bus postgresql] [--delay 5]

Strategy: the nodes are stopped with SIGTERM and started again, one after the other, as in a deploy; the next one only
when the load balancer has asked the one before whether it is ready. The clients are the published ones with the
times that they have by themselves. Looked at: what a Hocuspocus provider was told to be saved is in the database at
the end of each node, when that node can bring nothing any more (an edit that refers to one which its new node has not
heard of yet waits beside the log for a moment); no client is interrupted more than once by one
restart; at the end all clients of a document and the database hold every edit, once. Printed: for how long clients
were interrupted, from the end of the connection until they are in sync again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.crash.stored import PostgresLog, read, tokens
from tests.support.cluster import BUSES, Cluster, find_balancer
from tests.support.node_process import NodeProcess
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

# Clients on one document.
ROOM = 12


class Typists(NodeProcess):
    """The clients, in one Node process; use as an async context manager."""

    def __init__(self, url: str, names: Sequence[str], clients: int, pause: float) -> None:
        ws = url.replace("http", "ws", 1)
        given = {"ws": f"{ws}/ws", "hocuspocus": f"{ws}/hocuspocus", "names": [*names], "clients": clients}
        super().__init__("rolling.mjs", json.dumps({**given, "pause": pause * 1000}))
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    async def ask(self, line: str, seconds: float = 120.0) -> Any:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(self._answers.get(), seconds)
        assert not isinstance(answer, EOFError), f"the Node process ended:\n{self.stderr}"
        return answer

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._answers.put_nowait(json.loads(line))
        self._answers.put_nowait(EOFError())


@dataclass
class Outcome:
    """What a rolling restart has done.

    Attributes:
        milliseconds: of each interruption, by protocol (``y``, ``h``).
        counts: interruptions of each client in all.
        made, saved: edits, and those of them that a provider was told to be saved before the last node had ended.
        restarts: seconds from the signal to the end of each node.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {"y": [], "h": []})
    counts: list[int] = field(default_factory=list)
    made: int = 0
    saved: int = 0
    restarts: list[float] = field(default_factory=list)


def check_saved(saved: dict[str, list[str]], rows: dict[str, list[tuple[int, bytes]]]) -> int:
    """Assert that what was told to be saved is in the database; return how much it is."""
    for name, said in saved.items():
        missing = set(said) - set(tokens(data for _, data in rows.get(name, [])))
        assert not missing, f"{name}: acknowledged and not stored: {sorted(missing)[:10]}"
    return sum(map(len, saved.values()))


async def asked_by_the_balancer(node: ServerProcess) -> None:
    """Wait until somebody else than this function has had answers of a node that has just started."""

    def answers() -> float:
        with urllib.request.urlopen(f"{node.url}/metrics", timeout=30) as response:
            text = response.read().decode()
        found = re.findall(r"^collab_http_answers_total\{([^}]*)\} (\S+)", text, re.MULTILINE)
        return sum([float(count) for labels, count in found if 'route="/metrics"' not in labels and '"2xx"' in labels])

    async def asked() -> bool:
        return await asyncio.to_thread(answers) >= 2

    await eventually(asked, "the load balancer asks the node")


async def roll(cluster: Cluster, clients: int, pause: float) -> Outcome:
    """Restart each node once under so many clients, each of which types every ``pause`` seconds on average."""
    names = [f"rolling {number}" for number in range(max(1, clients // ROOM))]
    log = PostgresLog(cluster.postgres, cluster.database)
    outcome = Outcome()
    async with Typists(cluster.proxy.url, names, clients, pause) as typists:
        assert await typists.ask("ready") == clients
        state = await typists.ask("state")
        for number, node in enumerate(cluster.nodes, 1):
            before = {one["key"]: len(one["interruptions"]) for one in state["clients"]}
            begun = time.monotonic()
            assert await node.aterminate(60.0) == 0, node.report()
            outcome.restarts.append(time.monotonic() - begun)
            # First what was said, then what is stored; the node can bring nothing any more, and others need not.
            said = (await typists.ask("state"))["saved"]
            stored = await asyncio.to_thread(log.everything)
            await node.astart()
            if cluster.kind.program == "haproxy":  # nginx asks nobody, and tries it again after some seconds
                await asked_by_the_balancer(node)
            assert await typists.ask("ready") == clients
            check_saved(said, stored)  # now, because it takes the time of those who come back
            state = await typists.ask("state")
            for one in state["clients"]:
                more = len(one["interruptions"]) - before[one["key"]]
                assert more <= 1, f"{one['key']} was interrupted {more} times by the restart of node {number}: {one}"
        await typists.ask("stop")
        shown = await converged(typists, state["made"])
        state = await typists.ask("state")
        rows = await read(log)
    outcome.saved = check_saved(state["saved"], rows)
    outcome.made = sum(state["made"].values())
    for name, count in state["made"].items():
        assert len(tokens(data for _, data in rows[name])) == count == shown[name]
    for one in state["clients"]:
        outcome.milliseconds[one["key"][0]] += one["interruptions"]
        outcome.counts.append(len(one["interruptions"]))
    return outcome


async def converged(typists: Typists, made: dict[str, int]) -> dict[str, int]:
    """Wait until all clients of each document hold the same, and everything; return how much that is."""

    async def equal() -> dict[str, int] | None:
        nonlocal made
        made = (await typists.ask("state"))["made"]
        seen: dict[str, set[tuple[int, str]]] = {name: set() for name in made}
        unsaved = False
        for one in await typists.ask("tokens"):
            assert one["distinct"] == one["count"], f"{one['key']} sees an edit twice"
            seen[one["name"]].add((one["count"], one["digest"]))
            unsaved |= one["unsaved"]
        counts = {name: found.pop()[0] for name, found in seen.items() if len(found) == 1}
        return counts if counts == made and not unsaved else None

    return await eventually(equal, "all clients hold every edit", seconds=120)


def shares(milliseconds: Sequence[float]) -> str:
    """Give the median, the 99th percentile and the largest of some times."""
    if len(milliseconds) < 2:
        return f"{len(milliseconds)} interruptions"
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, at most {max(milliseconds):.0f} ms ({len(milliseconds)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--bus", choices=BUSES, default=BUSES[0])
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two edits of a client (3)")
    parser.add_argument("--delay", type=float, default=5.0, help="--drain-delay-seconds of the nodes (5)")
    given = parser.parse_args(arguments)
    with Cluster(find_balancer("haproxy"), bus=given.bus, drain_delay=given.delay) as cluster:
        outcome = asyncio.run(roll(cluster, given.clients, given.pause))
    print(f"{outcome.made} edits, {outcome.saved} told to be saved, none lost; bus {given.bus}")
    print("nodes ended after " + ", ".join(f"{seconds:.1f} s" for seconds in outcome.restarts))
    print(
        "interruptions of a client: " + ", ".join(f"{n}: {outcome.counts.count(n)}" for n in sorted({*outcome.counts}))
    )
    for protocol, kind in (("y", "y-websocket"), ("h", "Hocuspocus")):
        print(f"{kind:12} {shares(outcome.milliseconds[protocol])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
