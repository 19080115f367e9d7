"""The real server as a process of its own, for tests that kill it.

Strategy: the process runs what a user starts (``python -m collab serve``), forked from one that has imported it
already (`tests.support.forks`), and is
ready when it prints the line that the outside relies on, ``collab listening on http://HOST:PORT``;
nothing here talks to it otherwise. Two threads collect what it prints, so that a failed assertion can
show it and a full pipe can never stop the server. A new server finds its SQLite file
migrated, which saves each test a third of a second; the tests of the migration and of the
command line start without one. The process leads its own process group: what it
starts (sandbox processes) is ended with it, however the test ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from tests.support import forks
from tests.support.needs import demand
from tests.support.sqlite import migrated

READY = re.compile(r"^collab listening on (https?)://(\S+):(\d+)\s*$")

# Generous: a machine with two busy cores starts Python, SQLAlchemy and the migrations in some seconds.
START_SECONDS = 60.0

SERVE = ("-m", "collab", "serve")
"""What Python runs."""

_ENVIRONMENT_PREFIX = "COLLAB_"


class ServerFailed(AssertionError):
    """The server did not start, or ended otherwise than the test asked; shows what it printed."""


class ServerProcess:
    """Run ``collab serve`` in a child process; use as a context manager, or call :meth:`start` and :meth:`close`.

    ``options`` are further command line options (``"--idle-seconds", "1"``); ``database_url`` defaults to the
    SQLite file in ``data_dir``. ``port`` 0 takes a free one, which :meth:`restart` keeps. ``wrapper`` is put before
    the command, for namespaces and limits. ``program`` is what Python runs and takes the options, in
    ``working_directory`` if there is one. ``drain_delay`` is in
    seconds: no proxy has to notice that a test's server stops; None leaves the option out.
    All methods are blocking and short; the ``a...`` twins run them in a thread, for tests whose own clients share
    the event loop.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        database_url: str | None = None,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = SERVE,
        drain_delay: float | None = 0.0,
        working_directory: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._working_directory = working_directory
        self.database_url = database_url
        self.options = list(options)
        self.port = port
        self.host = "127.0.0.1"
        self.scheme = "http"
        self.starts = 0
        self._environment = dict(environment or {})
        if drain_delay is not None:
            self._environment.setdefault("COLLAB_DRAIN_DELAY_SECONDS", str(drain_delay))
        self._wrapper = list(wrapper)
        self._program = list(program)
        self._process: subprocess.Popen[str] | forks.Forked | None = None
        self._readers: list[threading.Thread] = []
        self._grown = threading.Condition()
        self._stdout: list[str] = []
        self._stderr: list[str] = []
        self._groups: list[int] = []

    # -- what a test asks ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The HTTP address, without a slash at its end."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The address that y-websocket takes as its server URL; the document name follows behind a slash."""
        return f"{self.url.replace('http', 'ws', 1)}/ws"

    @property
    def hocuspocus_url(self) -> str:
        """The address that Hocuspocus providers take; document names follow in the messages."""
        return f"{self.url.replace('http', 'ws', 1)}/hocuspocus"

    def document_url(self, name: str) -> str:
        """Give the WebSocket address of a document; slashes stay, the rest is percent-encoded as clients do."""
        return f"{self.ws_url}/{quote(name, safe='/')}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """What the process has ended with; None while it runs, and before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def stdout(self) -> str:
        """Everything printed to standard output since the first start."""
        with self._grown:
            return "".join(self._stdout)

    @property
    def stderr(self) -> str:
        """Everything printed to standard error (the log) since the first start."""
        with self._grown:
            return "".join(self._stderr)

    @property
    def log_lines(self) -> list[str]:
        return self.stderr.splitlines()

    def wait_for_log(self, accept: Callable[[str], bool], timeout: float = 20.0) -> str:
        """Wait until the log holds a line that ``accept`` takes, and give it."""
        seen = 0
        deadline = time.monotonic() + timeout
        with self._grown:
            while True:
                lines = "".join(self._stderr).splitlines()
                for line in lines[seen:]:
                    if accept(line):
                        return line
                seen = max(0, len(lines) - 1)
                left = deadline - time.monotonic()
                if left <= 0 or not self._grown.wait(left):
                    raise ServerFailed(f"no such log line within {timeout} s; the log:\n{''.join(self._stderr)}")

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start the process and return once it accepts connections."""
        demand("server")
        if self.running:
            raise AssertionError("the server runs already")
        if self.starts == 0 and self.database_url is None and "--database-url" not in self.options:
            migrated(self.data_dir)
        command = [
            *self._wrapper,
            sys.executable,
            *self._program,
            "--port",
            str(self.port),
            "--data-dir",
            str(self.data_dir),
        ]
        if self.database_url is not None:
            command += ["--database-url", self.database_url]
        command += self.options
        # Options of the developer's own environment must not reach the server under test.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_ENVIRONMENT_PREFIX)}
        environment["PYTHONUNBUFFERED"] = "1"
        environment.update(self._environment)
        # What a wrapper sets up, and what Python and its C library read when they begin, needs a start of Python. So
        # does a script: it has an application of its own (with Django, edits that waited were not sent after a fork).
        fork = (
            self._program[0] == "-m"
            and not self._wrapper
            and all(key.startswith(_ENVIRONMENT_PREFIX) for key in self._environment)
        )
        directory = self._working_directory or Path.cwd()
        process = self._process = _run(command, environment, directory, fork=fork)
        self._groups.append(process.pid)
        self.starts += 1
        assert process.stdout is not None and process.stderr is not None
        with self._grown:
            first = len(self._stdout)
        self._readers = [self._collect(process.stdout, self._stdout), self._collect(process.stderr, self._stderr)]
        deadline = time.monotonic() + START_SECONDS
        with self._grown:
            while True:
                for line in self._stdout[first:]:
                    if match := READY.match(line):
                        self.scheme, self.host, self.port = match[1], match[2], int(match[3])
                        return self
                if process.poll() is not None:
                    reason = f"ended with {process.returncode} before it was ready"
                    break
                if time.monotonic() > deadline:
                    reason = f"was not ready within {START_SECONDS} s"
                    break
                self._grown.wait(0.2)
        self.kill()
        raise ServerFailed(f"the server {reason}: {' '.join(command)}\n{self.report()}")

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would, and reap it; no error when it has ended already."""
        if self._process is None:
            return
        self._process.kill()
        self._reap(30.0)

    def terminate(self, timeout: float = 30.0, *, by: int = signal.SIGTERM) -> int:
        """Ask the process to stop and return its exit code; raises :class:`ServerFailed` when it does not obey."""
        process = self._running()
        process.send_signal(by)
        try:
            return self._reap(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"the server did not stop within {timeout} s\n{self.report()}") from None

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until the process has ended by itself and return its exit code."""
        return self._reap(timeout)

    def restart(self) -> Self:
        """Start again on the same port, after :meth:`kill` or :meth:`terminate`; ends a running one by SIGKILL."""
        self.kill()
        return self.start()

    def close(self) -> None:
        """End the process and everything that any of its lives has started."""
        self.kill()
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._groups.clear()

    def report(self, lines: int = 60) -> str:
        """Give the end of what the server printed, for an assertion's message."""
        return (
            "--- stdout\n"
            + "\n".join(self.stdout.splitlines()[-10:])
            + "\n--- stderr\n"
            + "\n".join(self.log_lines[-lines:])
        )

    async def astart(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def akill(self) -> None:
        await asyncio.to_thread(self.kill)

    async def aterminate(self, seconds: float = 30.0, *, by: int = signal.SIGTERM) -> int:
        return await asyncio.to_thread(lambda: self.terminate(seconds, by=by))

    async def arestart(self) -> Self:
        await asyncio.to_thread(self.restart)
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, Exception):
            error.add_note(self.report())
        self.close()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    # -- inside -------------------------------------------------------------------------------------------------

    def _running(self) -> subprocess.Popen[str] | forks.Forked:
        if self._process is None:
            raise AssertionError("the server was not started")
        return self._process

    def _reap(self, timeout: float) -> int:
        code = self._running().wait(timeout)
        for reader in self._readers:
            # Orphaned children may hold the pipes open for a moment; the process itself is gone.
            reader.join(1.0)
        return code

    def _collect(self, stream: IO[str], into: list[str]) -> threading.Thread:
        def read() -> None:
            with stream:
                for line in stream:
                    with self._grown:
                        into.append(line)
                        self._grown.notify_all()
            with self._grown:
                self._grown.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


def collab_command(
    *arguments: str, timeout: float = 60.0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m collab ARGUMENTS`` to its end and return what it printed and its exit code.

    ``environment`` is added to that of the test, from which ``COLLAB_*`` is taken away.
    """
    demand("server")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_ENVIRONMENT_PREFIX)}
    command = [sys.executable, "-m", "collab", *arguments]
    process = _run(command, {**inherited, **(environment or {})}, Path.cwd(), fork=True)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.wait(), stdout, stderr)


def _run(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, *, fork: bool
) -> subprocess.Popen[str] | forks.Forked:
    """Start Python in a session of its own with pipes for what it prints; by a fork if that can be and is right."""
    if fork and forks.available():
        return forks.start(command[1:], environment=environment, directory=directory)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        cwd=directory,
        start_new_session=True,
    )
