"""A real PgBouncer in front of the tests' PostgreSQL.

Strategy: one process for each way of pooling, for the whole run of a worker, on a Unix socket. In transaction mode it
hands out the sessions of the server in turn, so that what is left in one is never met again by luck.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Literal

import pytest

from tests.support.needs import demand
from tests.support.postgres import START_SECONDS, TEMPLATE, PostgresServer, as_somebody_else, find_binaries
from tests.support.scratch import short_directory

Mode = Literal["session", "transaction"]

PORT = 6432
"""Only a part of the socket's name: PgBouncer listens on no TCP port here."""


class PgBouncerFailed(AssertionError):
    """PgBouncer is missing or did not start; says what to do or shows what it printed."""


def find_pgbouncer() -> str:
    """Give the path of the program."""
    demand("postgres")
    found = shutil.which(
        "pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    )
    if found is None:
        raise PgBouncerFailed("these tests need PgBouncer; install it with: apt install pgbouncer")
    return found


class PgBouncer:
    """One process; it can be killed and started again. ``options`` are further lines of its file."""

    def __init__(self, server: PostgresServer, mode: Mode, options: Mapping[str, object] | None = None) -> None:
        self.mode = mode
        self.directory = short_directory("collab-pgb-")
        self.directory.chmod(0o777)  # its process may be another user's
        self._program = find_pgbouncer()
        self._process: subprocess.Popen[bytes] | None = None
        # Fewer sessions than a store has connections, where they are shared.
        pool = 3 if mode == "transaction" else 60
        usual: dict[str, object] = {
            "pool_mode": mode,
            "unix_socket_dir": self.directory,
            "listen_port": PORT,
            "auth_type": "any",
            "admin_users": "postgres",
            "default_pool_size": pool,
            "max_client_conn": 500,
            "server_round_robin": 1,
            "logfile": self.directory / "log",
        }
        self.port = int(str({**usual, **(options or {})}["listen_port"]))
        self.aim(server)
        (self.directory / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"%include {self.directory}/databases\n"
            "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in {**usual, **(options or {})}.items())
        )

    def aim(self, server: PostgresServer) -> None:
        """Choose the server, for a process that is started or told to ``RELOAD`` afterwards."""
        (self.directory / "databases").write_text(f"* = host={server.directory} port=5432 user=postgres\n")

    def url(self, database: str) -> str:
        """Give the URL of a database through this process."""
        return f"postgresql://postgres@/{database}?host={self.directory}&port={self.port}"

    def start(self) -> None:
        """Start the process and return when it listens."""
        self._process = subprocess.Popen(
            [*as_somebody_else(), self._program, "-q", str(self.directory / "pgbouncer.ini")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not (self.directory / f".s.PGSQL.{self.port}").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                raise PgBouncerFailed(f"PgBouncer did not start:\n{log.read_text() if log.exists() else ''}")
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        """Tell whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def command(self, text: str) -> None:
        """Give a command to its console."""
        subprocess.run(
            [
                "psql",
                "-X",
                "-q",
                "-h",
                str(self.directory),
                "-p",
                str(self.port),
                "-U",
                "postgres",
                "pgbouncer",
                "-c",
                text,
            ],
            env={**os.environ, "PATH": f"{find_binaries()}{os.pathsep}{os.environ.get('PATH', '')}"},
            check=True,
            capture_output=True,
        )

    def kill(self) -> None:
        """End the process at once, with all connections through it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        (self.directory / f".s.PGSQL.{self.port}").unlink(missing_ok=True)

    def close(self) -> None:
        """End the process and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def running(server: PostgresServer, mode: Mode, options: Mapping[str, object] | None = None) -> Iterator[PgBouncer]:
    """Run a process while the block lasts."""
    bouncer = PgBouncer(server, mode, options)
    try:
        bouncer.start()
        yield bouncer
    finally:
        bouncer.close()


@pytest.fixture(scope="session", params=["session", "transaction"])
def pgbouncer(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer before the run's shared server, in each mode."""
    with running(postgres_server, request.param) as bouncer:
        yield bouncer


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, postgres_server: PostgresServer) -> Iterator[str]:
    """The URL, through PgBouncer, of a database of this test's own, on the newest schema."""
    name = postgres_server.create_database(template=TEMPLATE)
    yield pgbouncer.url(name)
    postgres_server.drop_database(name)
