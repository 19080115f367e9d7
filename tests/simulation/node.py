"""One node of the simulated cluster: the whole application as ``create_app`` makes it, in a process that may die."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any, Final

from aiohttp import web

from collab.app import DRAIN, HUB, UNSAVED, create_app
from collab.hub.hub import Hub
from collab.sandbox.inline import InlineSandbox
from collab.settings import Settings
from tests.simulation.bus import BusNetwork, SimulatedBus
from tests.simulation.loop import SimulatedLoop
from tests.simulation.sockets import Link
from tests.simulation.store import WatchedStorage, Way, new_store

EPOCH: Final = 1_700_000_000.0


def make_settings(random: Random) -> Settings:
    """Choose options that bring everything about within seconds, and in small documents."""
    return _DEFAULTS.model_copy(
        update={
            "outbox_bytes": random.choice((1024, 2048, 1 << 20)),
            "backlog_bytes": random.choice((64 * 1024, 64 << 20)),
            "compact_rows": random.choice((4, 10, 40, 500)),
            "compact_bytes": random.choice((200, 2000, 1 << 18)),
            "compact_ratio": random.choice((0.0, 0.5)),
            "idle_seconds": random.choice((0.3, 1.0, 2.0)),
            "batch_window_ms": random.choice((0.0, 4.0, 50.0)),
            "gather_ms": random.choice((0.0, 4.0, 50.0)),
            "history_days": random.choice((0.0, 30.0)),
        }
    )


_DEFAULTS: Final = Settings(
    insecure=True,
    data_dir=Path("/nonexistent"),
    database_url=None,
    memory_mark_bytes=0,
    memory_limit_bytes=0,
    ping_seconds=2.0,
    keepalive_seconds=4.0,
    slow_seconds=10.0,
    drain_seconds=6.0,
    drain_delay_seconds=0.0,
)


class SlowSandbox(InlineSandbox):
    """Jobs take their time, as in a process of their own."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def _turn(self) -> None:
        await asyncio.sleep(self._random.choice((0.0, 0.01, 0.3)) * self._random.random())
        await super()._turn()


class Node:
    """One life of a node.

    Args:
        loop, network, storage: what it shares with the others.
        label: its name, with the number of its life.
        settings: its options.
        random: its own.

    Attributes:
        process: where it runs.
        way: its way to the storage.
        bus: its end of the bus.
        links: its connections with clients.
        up: whether it takes connections.
        failed: why it did not start, or has ended.
        stopping: it was asked to stop.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        network: BusNetwork,
        storage: WatchedStorage,
        label: str,
        settings: Settings,
        random: Random,
    ) -> None:
        self.loop = loop
        self.label = label
        self.settings = settings
        self.process = loop.new_process(label)
        self.way = Way(random)
        self.bus = SimulatedBus(network, self.process, label, random)
        self.links: list[Link] = []
        self.up = self.stopping = False
        self.failed: str | None = None
        self._network = network
        skew = random.uniform(-2.0, 2.0)  # clocks of machines differ
        self._clock = lambda: EPOCH + loop.time() + skew
        self._store = new_store(storage, self.way, self._clock)
        self._random = random
        self.app: web.Application | None = None
        self._runner: web.AppRunner | None = None
        self.unsaved: list[str] = []
        network.ends.append(self.bus)

    @property
    def hub(self) -> Hub:
        """Its rooms."""
        assert self.app is not None
        return self.app[HUB]

    def start(self) -> None:
        """Begin to start."""
        self.process.context.run(self.loop.create_task, self._start())

    async def _start(self) -> None:
        try:
            self.app = create_app(
                self.settings,
                store=self._store,
                bus=self.bus,
                sandbox=SlowSandbox(self._random),
                clock=self._clock,
                monotonic=self.loop.time,
                worked=self.loop.time,
                random=self._random,
            )
            self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=1.0)
            await self._runner.setup()
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            return
        self.up = True

    def accept(self, link: Link) -> None:
        """Take a connection."""
        assert self._runner is not None and self._runner.server is not None
        self.links = [each for each in self.links if not each.over]
        self.links.append(link)
        protocol: Any = self.process.context.run(self._runner.server)
        link.begin(protocol)

    def stop(self) -> None:
        """Begin to stop as upon SIGTERM."""
        self.up, self.stopping = False, True
        self.process.context.run(self.loop.create_task, self._stop())

    async def _stop(self) -> None:
        assert self.app is not None and self._runner is not None
        await self.app[DRAIN]()
        await self._runner.cleanup()
        self.unsaved = list(self.app[UNSAVED])
        self.failed = "stopped"

    def die(self) -> None:
        """End at once; what it had in memory is lost."""
        self.up = False
        self.failed = self.failed or "killed"
        self.loop.kill(self.process)
        if self.bus in self._network.ends:
            self._network.ends.remove(self.bus)
        for link in self.links:
            link.die()
