"""A whole cluster on this machine: PostgreSQL, Valkey, three nodes and a load balancer, thrown away in the end.

Run ``make cluster``: it prints the one address, opens the demo on it, and ends all of it with Ctrl-C. Strategy: the
parts are those of the tests, and the load balancer has the block of ``docs/scaling.md``. Each part is closed in the
reverse order, whatever happens, and everything that is written lies in directories that go with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tests.support.postgres import PostgresFailed, PostgresServer
from tests.support.proxies import BALANCERS, Kind, Proxy, ProxyFailed, find_proxy
from tests.support.server import ServerFailed, ServerProcess
from tests.support.valkey import Valkey, ValkeyFailed

NODES = 3
"""As many as the blocks of the load balancers name."""

BUSES = ("redis", "postgresql")


class Cluster:
    """Three nodes behind a load balancer; use as a context manager, which starts and ends all of it.

    Args:
        kind: of the load balancer, of ``proxies.BALANCERS``.
        bus: one of ``BUSES``.
        options: of every node.
        port: where the load balancer listens; None for a free one.
        environment: of every node.
        drain_delay: of every node, in seconds; None leaves the option out.
    """

    def __init__(
        self,
        kind: Kind,
        *options: str,
        bus: str = "redis",
        port: int | None = None,
        environment: dict[str, str] | None = None,
        drain_delay: float | None = 0.0,
    ) -> None:
        self.kind = kind
        self._bus = bus
        self._port = port
        self._options = options
        self._environment = environment
        self._drain_delay = drain_delay
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="collab-cluster-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.postgres = PostgresServer()
            stack.callback(self.postgres.close)
            self.postgres.start()
            self.database = self.postgres.create_database()
            options = ["--migrate", *self._options]
            self.valkey = None
            if self._bus == "redis":
                self.valkey = Valkey()
                stack.callback(self.valkey.close)
                self.valkey.start()
                options += ["--redis-url", self.valkey.url]
            self.nodes = [
                ServerProcess(
                    self.directory / f"node-{number}",
                    *options,
                    database_url=self.postgres.url(self.database),
                    environment=self._environment,
                    drain_delay=self._drain_delay,
                )
                for number in range(1, NODES + 1)
            ]
            for node in self.nodes:
                stack.callback(node.close)
                node.start()
            (self.directory / "proxy").mkdir()
            ports = [node.port for node in self.nodes]
            self.proxy = Proxy(self.kind, self.directory / "proxy", ports, port=self._port)
            stack.callback(self.proxy.kill)
            self.proxy.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            for node in self.nodes:
                error.add_note(node.report(20))
        self._stack.close()


class _Ended(BaseException):
    """A signal has come: what was begun is closed on the way out."""


def _end(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
    raise _Ended


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def find_balancer(name: str | None = None) -> Kind:
    """Give the load balancer of this name; without one, that which is installed.

    Raises ProxyFailed with what to install.
    """
    for candidate in ("haproxy", "nginx") if name is None else (name,):
        with contextlib.suppress(ProxyFailed):
            find_proxy(BALANCERS[candidate])
            return BALANCERS[candidate]
    missing = name or "haproxy"
    raise ProxyFailed(f"a load balancer is missing; install it with: apt install {missing}")


def run(kind: Kind, bus: str, port: int | None, *, show: bool) -> None:
    """Run a cluster until this process is told to end."""
    try:
        for number in _SIGNALS:
            signal.signal(number, _end)
        with Cluster(kind, bus=bus, port=port) as cluster:
            if cluster.valkey is not None:
                print(f"Valkey      {cluster.valkey.url}")
            print(f"PostgreSQL  {cluster.postgres.url(cluster.database)}")
            for number, node in enumerate(cluster.nodes, 1):
                print(f"node {number}      {node.url}  (process {node.pid})")
            print(f"logs        {cluster.directory}")
            print(f"collab cluster on {cluster.proxy.url}, through {kind.program}; Ctrl-C ends it", flush=True)
            if show:
                webbrowser.open(f"{cluster.proxy.url}/split")
            written = [0] * NODES
            while True:
                for number, node in enumerate(cluster.nodes):
                    new = node.stderr[written[number] :]
                    written[number] += len(new)
                    with (cluster.directory / f"node-{number + 1}.log").open("a", encoding="utf-8") as log:
                        log.write(new)
                time.sleep(1)
    except _Ended:
        print("collab cluster has ended", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run a cluster; return the exit code."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, help="where the load balancer listens (a free port)")
    parser.add_argument("--bus", choices=BUSES, default=BUSES[0], help="how the nodes hear of each other (redis)")
    parser.add_argument("--proxy", choices=[*BALANCERS], help="the load balancer (the first that is installed)")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    given = parser.parse_args(arguments)
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        run(find_balancer(given.proxy), given.bus, given.port, show=not given.no_open)
    except (PostgresFailed, ProxyFailed, ServerFailed, ValkeyFailed, OSError) as error:
        print(f"make cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
