"""The network between nodes: it loses, doubles, swaps, damages and delays frames, and cuts nodes off.

Strategy: a node's end is a real ``NetworkBus``, so its connection, its beats, its numbers and its holes are those of
the adapters for PostgreSQL and Redis; only the three methods that touch a network are simulated.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from collab.cluster.network import BusDown, NetworkBus
from collab.cluster.peers import Outgoing
from tests.simulation.loop import Process, SimulatedLoop

FRAME_BYTES: Final = 1_500
"""Small, so that messages are cut."""


class Faults:
    """How bad the network is now: chances of one frame for one node."""

    def __init__(self) -> None:
        self.lose = self.double = self.damage = self.delay = 0.0


class BusNetwork:
    """Carries frames between the nodes.

    Args:
        loop, random: what it runs on.
        streams: whether each topic has a channel of its own, as on Redis.
        ordered: whether these have one order, so that much is said on the common one; a Redis Cluster has none.

    Attributes:
        faults: how bad it is now.
        down: whether no node is connected.
        cut: pairs of names of nodes, of which the first does not reach the second.
    """

    def __init__(self, loop: SimulatedLoop, random: Random, *, streams: bool, ordered: bool) -> None:
        self._loop = loop
        self._random = random
        self.streams = streams
        self.ordered = ordered
        self.ends: list[SimulatedBus] = []
        self.faults = Faults()
        self.down = False
        self.cut: set[tuple[str, str]] = set()
        self.carried = 0

    def carry(self, sender: SimulatedBus, frame: Outgoing) -> None:
        """Take one frame to everybody who listens, its sender too."""
        faults, chance = self.faults, self._random.random
        for end in self.ends:
            if (sender.label, end.label) in self.cut or not end.listens(frame.stream):
                continue
            data = frame.data
            if end is not sender:
                if chance() < faults.lose:
                    continue
                if chance() < faults.damage:
                    at = int(chance() * len(data))
                    data = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
            self._send(end, data)
            if chance() < faults.double:
                self._send(end, data)

    def _send(self, end: SimulatedBus, data: bytes) -> None:
        self.carried += 1
        chance = self._random.random
        wait = 0.0005 + chance() * 0.001
        if chance() < self.faults.delay:
            wait += chance() ** 4 * 3.0  # which overtakes nothing, or swaps it
            when = self._loop.time() + wait
        else:
            when = max(end.arrives_at, self._loop.time() + wait)
            end.arrives_at = when
        self._loop.call_at(when, end.arrive, data, end.connection, context=end.process.context)

    def break_down(self) -> None:
        """End all connections; none is to be had until ``down`` is False again."""
        self.down = True
        for end in self.ends:
            end.break_off()


class SimulatedBus(NetworkBus):
    """One node's end.

    Args:
        network: what carries its frames.
        process: whose it is.
        label: the name of its node in the simulation.
        random: of this node.

    Attributes:
        connection: the number of its connection, so that nothing arrives on the one before.
        arrives_at: when the last frame in order arrives.
    """

    def __init__(self, network: BusNetwork, process: Process, label: str, random: Random) -> None:
        super().__init__(FRAME_BYTES, streams=network.streams, what="the simulated bus", random=random)
        self._peers.ordered = network.ordered
        self.presence_seconds = 0.0 if network.streams else 0.1
        self.row_bytes = 600  # small, so that larger rows are read from the log
        self.process = process
        self.label = label
        self._network = network
        self._up = False
        self._streams: set[bytes] = set()
        self.connection = 0
        self.arrives_at = 0.0

    presence_seconds: float
    row_bytes: int

    def listens(self, stream: bytes) -> bool:
        """Tell whether frames of a stream reach it now."""
        return self._up and self.process.alive and (stream == bytes(8) or stream in self._streams)

    def arrive(self, data: bytes, connection: int) -> None:
        """Take one frame."""
        if self._up and connection == self.connection:
            self._heard(data)

    def break_off(self) -> None:
        """End the connection, as its server does."""
        if self._up:
            self._up = False
            self.process.context.run(self._fail, "the connection has ended")

    async def _connect(self) -> None:
        await asyncio.sleep(0.003)
        if self._network.down:
            raise BusDown("connection refused")
        self._up = True
        self.connection += 1
        self.arrives_at = 0.0

    async def _send(self, frames: list[Outgoing]) -> None:
        await asyncio.sleep(0.0005)
        for frame in frames:
            if not self._up:
                raise BusDown("the connection has ended")
            self._network.carry(self, frame)

    async def _disconnect(self) -> None:
        self._up = False

    def _follow(self, stream: bytes) -> None:
        self._streams.add(stream)

    def _leave(self, stream: bytes) -> None:
        self._streams.discard(stream)
