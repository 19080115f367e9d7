"""Rounds of trouble in a cluster of three nodes: in each, a fault begins and ends while clients edit.

Strategy: everybody edits while the fault is there; then nobody does, the fault ends, and the clocks run until all
clients hold the same and see each other. The log is read beside all nodes: before the end of the fault, when only what
was really written is there, and when all is quiet. A document and its clients live for some rounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from tests.chaos.clients import Clients, Seen
from tests.chaos.cluster import Cluster
from tests.chaos.faults import EVERY_HARM, FAULTS, Fault

# Rounds with one document and its clients: documents grow, and so does what each look at them costs.
ERA = 8

# Seconds after which it is said what is still missing, again and again.
SLOW_SECONDS = 4.0

# What was acknowledged and is kept beside the log has joined it within these seconds. Where nobody types any more, a
# node notices that the database has gone back when it next gives a sign of life, which it does every five seconds.
KEPT_SECONDS = 12.0


@dataclass
class Count:
    """What was done and what was wrong: ``lost`` names tokens, ``faults`` whatever else."""

    rounds: int = 0
    acknowledged: int = 0
    lost: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    converged: dict[str, list[float]] = field(default_factory=dict)
    complete: dict[str, list[float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.acknowledged} acknowledged, {len(self.lost)} lost, "
            f"{len(self.faults)} other faults"
        )

    def table(self) -> Iterator[str]:
        """Give a line for each fault: how long it took until all was well, at most and on average."""
        for name, times in self.converged.items():
            shown = ", ".join(
                f"{what} {sum(found) / len(found):.1f} s on average and {max(found):.1f} s at most"
                for what, found in (("equal", times), ("presence whole", self.complete[name]))
            )
            yield f"{name} ({len(times)} times): {shown}"


class Campaign:
    """Rounds on one cluster, which runs.

    Args:
        seed: for all that is chosen.
        say: is given a line for each round.
        also: how probable it is that messages of the bus are harmed as well while a fault lasts.
    """

    def __init__(self, cluster: Cluster, seed: int, say: Callable[[str], None] = print, *, also: float = 0.0) -> None:
        self.count = Count()
        self._cluster = cluster
        self._random = Random(seed)
        self._say = say
        self._also = also
        self._eras = 0

    def choose(self) -> Iterator[tuple[Fault, float]]:
        """Choose faults, and how long each lasts, for ever."""
        fitting = [fault for fault in FAULTS if self._cluster.bus in fault.buses]
        while True:
            # Each comes before any comes again.
            for fault in self._random.sample(fitting, len(fitting)):
                low, high = fault.seconds
                yield fault, low + (high - low) * self._random.random() ** 2

    async def run(self, rounds: Iterable[tuple[Fault, float]]) -> Count:
        """Go through these faults, each with the seconds that it lasts."""
        left = iter(rounds)
        while era := list(islice(left, ERA)):
            self._eras += 1
            async with Clients(self._cluster.nodes, f"era {self._eras}") as clients:
                before = self.count.acknowledged
                for fault, seconds in era:
                    await self._round(clients, fault, seconds)
                    self.count.acknowledged = before + len(clients.saved)
        return self.count

    async def _round(self, clients: Clients, fault: Fault, seconds: float) -> None:
        cluster, node = self._cluster, self._random.choice(self._cluster.nodes)
        clients.more()
        await clients.until_saved(1)
        also = EVERY_HARM if self._random.random() < self._also else None
        if also is not None:
            await also.begin(cluster, node, self._random)
        await fault.begin(cluster, node, self._random)
        begun = time.monotonic()
        # One goes and one comes while it lasts: to a node that is not in trouble, so it is known who is there.
        await clients.change_visitor(self._random.choice([one for one in cluster.nodes if one is not node]))
        if fault.saves:
            await clients.until_saved(fault.saves)
        await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
        await clients.rest()
        if fault.stores and not fault.saves:
            await self._look_in_log(clients, f"while {fault.name}")
        if also is not None:
            await also.end(cluster, node, self._random)
        await fault.end(cluster, node, self._random)
        ended = time.monotonic()
        where = f"{node.name}, messages harmed" if also is not None else node.name
        await self._until_well(clients, fault, ended, f"{fault.name} ({where})")
        await self._look_in_log(clients, f"after {fault.name}")
        stored = time.monotonic() - ended
        self.count.rounds += 1
        equal, complete = self.count.converged[fault.name][-1], self.count.complete[fault.name][-1]
        self._say(
            f"round {self.count.rounds}: {fault.name} ({where}) for {ended - begun:.1f} s; all equal after "
            f"{equal:.2f} s, presence whole after {complete:.2f} s, all in the log by {stored:.2f} s; "
            f"{len(clients.saved)} acknowledged in this document, {len(self.count.lost)} lost, "
            f"{len(self.count.faults)} other faults"
        )

    async def _until_well(self, clients: Clients, fault: Fault, ended: float, what: str) -> None:
        """Wait until all clients hold the same and see each other, and note how long that took."""
        equal = complete = None
        slow = SLOW_SECONDS
        while True:
            seen = await clients.look()
            took = time.monotonic() - ended
            if equal is None and not seen.lacking:
                equal = took
            if complete is None and not seen.strangers:
                complete = took
            if not (seen.lacking or seen.strangers):
                break
            if took > slow:
                slow += SLOW_SECONDS
                self._say(f"still, {took:.1f} s after {what}: {seen}")
            if took > max(fault.converged, fault.complete):
                self._fault(what, seen)
                break
            await asyncio.sleep(0.05)
        for times, found, most, fact in (
            (self.count.converged, equal, fault.converged, "all equal"),
            (self.count.complete, complete, fault.complete, "presence whole"),
        ):
            times.setdefault(fault.name, []).append(took if found is None else found)
            if found is not None and found > most:
                self._fault(what, Seen([f"{fact} only after {found:.1f} s, {most:g} s were allowed"]))

    def _fault(self, what: str, seen: Seen) -> None:
        said = f"after {what}: {seen}"
        self.count.faults.append(said)
        self._say(f"FAULT {said}")
        for node in self._cluster.nodes:
            self._say(f"node {node.name}:\n{node.server.report(30)}")

    async def _look_in_log(self, clients: Clients, when: str) -> None:
        lost: set[str] = set()
        for _ in range(int(KEPT_SECONDS * 10)):
            # Of those that were missed first: what is acknowledged meanwhile is for the next look.
            found = await clients.unstored(self._cluster.log)
            lost = found if not lost else lost & found
            if not lost:
                return
            await asyncio.sleep(0.1)
        self.count.lost |= {f"{clients.name} {token}" for token in lost}
        self._say(f"LOST {when}: {sorted(lost)} of {clients.name}")
