"""Nodes on a real PostgreSQL and either bus, each behind lines of its own that can be cut.

Strategy: a node reaches its store by one line and its bus by another, also where both lead to the same PostgreSQL, so
each can be taken from it alone. Clients speak with the nodes directly.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.chaos.messages import HarmfulLine
from tests.crash.stored import PostgresLog, StoredLog
from tests.support.postgres import PostgresServer, as_somebody_else, find_binaries
from tests.support.server import SERVE, ServerProcess
from tests.support.throttle import SlowLine
from tests.support.valkey import Valkey, free_port

Bus = Literal["postgresql", "redis"]
BUSES: tuple[Bus, ...] = ("postgresql", "redis")

NODES = ("one", "two", "three")

_DATABASE = "postgres"

# Snapshots are made under load too.
_OPTIONS = ("--compact-rows", "200", "--compact-ratio", "0.5")


@dataclass
class Node:
    """One node, and its lines."""

    name: str
    server: ServerProcess
    store: SlowLine
    bus: HarmfulLine

    def freeze(self) -> None:
        """Stop the node and all its processes where they are."""
        os.killpg(self.server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.server.pid, signal.SIGCONT)


class Cluster:
    """PostgreSQL, the bus and the nodes; use as an async context manager.

    Args:
        seed: for the choice of messages that are harmed.
        postgres: further options of PostgreSQL.
        names: of the nodes.
        options, environment: of all nodes.
        programs: what Python runs as a node in the place of ``-m collab serve``, by the name of the node.

    Attributes:
        postgres: the server that all nodes use now; :meth:`fail_over` puts another one in its place.
        valkey: that of the bus; None where PostgreSQL is the bus.
        nodes: the nodes.
    """

    def __init__(
        self,
        directory: Path,
        bus: Bus,
        *,
        seed: int = 1,
        postgres: tuple[str, ...] = (),
        names: Sequence[str] = NODES,
        options: Sequence[str] = _OPTIONS,
        environment: Mapping[str, str] | None = None,
        programs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.bus = bus
        self.nodes: list[Node] = []
        self.valkey = Valkey() if bus == "redis" else None
        self.postgres = _make_postgres(postgres)
        self._copy: PostgresServer | None = None
        self._directory = directory
        self._seed = seed
        self._names = names
        self._options = ("--migrate", *options)
        self._environment = environment
        self._programs = programs or {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._stack.callback(self._close_servers)
            await asyncio.to_thread(self.postgres.start)
            if self.valkey is not None:
                await asyncio.to_thread(self.valkey.start)
            self.nodes = [self._make(name, number) for number, name in enumerate(self._names)]
            await self.nodes[0].server.astart()  # alone, for it makes the tables
            await asyncio.gather(*[node.server.astart() for node in self.nodes[1:]])
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            for node in self.nodes:
                error.add_note(f"node {node.name}:\n{node.server.report(40)}")
        await self._stack.aclose()

    def _make(self, name: str, number: int) -> Node:
        store = self._stack.enter_context(SlowLine(self.postgres.port))
        bus = self._stack.enter_context(HarmfulLine(self.bus_port, self.bus, self._seed * 10 + number))
        address = "postgresql://postgres@127.0.0.1:%d/" + _DATABASE + "?sslmode=disable"
        if self.valkey is None:
            way = ("--listen-url", address % bus.port)
        else:
            way = ("--redis-url", f"redis://127.0.0.1:{bus.port}")
        directory = self._directory / name
        directory.mkdir(parents=True, exist_ok=True)
        server = ServerProcess(
            directory,
            *self._options,
            *way,
            database_url=address % store.port,
            environment=self._environment,
            program=self._programs.get(name, SERVE),
        )
        self._stack.callback(server.close)
        return Node(name, server, store, bus)

    @property
    def bus_port(self) -> int:
        """Where the server of the bus listens."""
        return self.postgres.port if self.valkey is None else self.valkey.port

    @property
    def log(self) -> StoredLog:
        """The log as it lies in the database."""
        return PostgresLog(self.postgres, _DATABASE)

    def sql(self, statement: str) -> str:
        """Ask the database, beside all nodes."""
        return self.postgres.sql(statement, _DATABASE)

    def take_copy(self) -> None:
        """Copy the database as it is now to where another server can take over; blocks."""
        self._copy = copy = _make_postgres()
        done = subprocess.run(
            [
                *as_somebody_else(),
                str(find_binaries() / "pg_basebackup"),
                "-D",
                str(copy.directory / "data"),
                "-h",
                str(self.postgres.directory),
                "-p",
                str(self.postgres.port),
                "-U",
                "postgres",
                "-X",
                "fetch",
                "-c",
                "fast",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr

    def fail_over(self) -> None:
        """Kill the server, and let that on the copy take its place; blocks."""
        assert self._copy is not None
        old, self.postgres, self._copy = self.postgres, self._copy, None
        old.close()
        self.postgres.start()
        for node in self.nodes:
            node.store.target = self.postgres.port
            if self.valkey is None:
                node.bus.target = self.postgres.port

    def _close_servers(self) -> None:
        for server in (self.postgres, self._copy, self.valkey):
            if server is not None:
                server.close()


def _make_postgres(options: tuple[str, ...] = ()) -> PostgresServer:
    return PostgresServer(options=("-h", "127.0.0.1", *options), port=free_port())
