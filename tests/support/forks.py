"""Processes that run a Python program, forked from one process that has imported the server already.

Strategy: to import the server takes a second of processor time, and a whole run of the tests starts a great
many. One process of each pytest worker imports it once (run as ``python -m tests.support.forks FD``), and forks for
each start. It has no thread and no event loop, so a fork of it is a fresh interpreter with modules in it: the child
leads a session of its own, has its own environment, directory, arguments and pipes, and runs its program as
``__main__``, as ``python`` does. `Forked` is what `subprocess.Popen` gives, as far as tests use it: signals go to a
pidfd, and the exit code comes through a pipe, because the child is the other process's.

What is asked for goes over a socket as one message: JSON, and the ends of three pipes (standard output, standard error,
exit code). `available` says where this works; elsewhere tests start Python anew.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NoReturn

# Some import the others. Those of other packages are imported by what needs them alone.
_USED_BY_MANY = (
    "alembic.command",
    "collab.app",
    "collab.cluster.redis",
    "collab.sandbox.pool",
    "collab.storage.migrate",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "uvloop",
)

MAX_REQUEST = 1 << 20
"""Bytes of one request; arguments and environment of a test are far below."""


def available() -> bool:
    """Say whether this system can do it: Linux has the signals that cannot reach another process by mistake."""
    return hasattr(os, "pidfd_open")


# -- the side of the tests ------------------------------------------------------------------------------------------


class Forked:
    """A process that `start` has started; the names are those of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: int, stderr: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)
        self._ended = ended
        self._reading = threading.Lock()
        self.stdout: IO[str] = os.fdopen(stdout, encoding="utf-8", errors="replace")
        self.stderr: IO[str] = os.fdopen(stderr, encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        """Give the exit code (negative: the signal that ended it), or None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give the exit code; raises `subprocess.TimeoutExpired` after ``timeout`` seconds."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"the process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended already."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read all that it prints, wait for its end, and give what came on standard output and standard error."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                said = [read.result(None if deadline is None else deadline - time.monotonic()) for read in reading]
            except TimeoutError:
                self.kill()  # else the readers would not end
                raise subprocess.TimeoutExpired(f"the process {self.pid}", timeout or 0.0) from None
        self.wait(30)
        return said[0], said[1]

    def _look(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._reading.acquire(timeout=-1 if left is None else left):
                try:
                    if self.returncode is None and select.select([self._ended], [], [], left)[0]:
                        self._take(os.read(self._ended, 64))
                finally:
                    self._reading.release()
            if self.returncode is None and deadline is not None and time.monotonic() >= deadline:
                return None
        return self.returncode

    def _take(self, code: bytes) -> None:
        if not code:
            raise RuntimeError("the process that forks has ended, and with it the exit codes of its children")
        os.close(self._ended)
        os.close(self._handle)
        self.returncode = int(code)


class _Forks:
    """The process that has imported the server, started with the first request of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._owner = 0

    def start(self, program: Sequence[str], environment: Mapping[str, str], directory: Path) -> Forked:
        request = json.dumps(
            {"program": list(program), "environment": dict(environment), "directory": str(directory)}
        ).encode()
        pipes = [os.pipe() for _ in range(3)]
        given = array.array("i", [end for _, end in pipes])
        try:
            with self._lock:
                there = self._running()
                there.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
                answer = there.recv(64)
        except BaseException:
            for end, _ in pipes:
                os.close(end)
            raise
        finally:
            for _, end in pipes:
                os.close(end)
        if not answer:
            raise RuntimeError("the process that forks for tests has ended; its reason is on standard error")
        return Forked(int(answer), *(end for end, _ in pipes))

    def _running(self) -> socket.socket:
        # A process that was forked from this one must not talk on the socket of its parent.
        if self._socket is None or self._owner != os.getpid():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.forks", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    cwd=Path(__file__).parents[2],
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                ).returncode = 0  # It ends with the socket; nobody waits for it.
            self._socket, self._owner = ours, os.getpid()
            atexit.register(ours.close)
        return self._socket


_forks = _Forks()


def start(program: Sequence[str], *, environment: Mapping[str, str], directory: Path) -> Forked:
    """Run ``python program...`` (``-m MODULE`` or a file, then arguments) in a new session, with this environment."""
    return _forks.start(program, environment, directory)


# -- the process that forks -----------------------------------------------------------------------------------------


def serve(requests: socket.socket) -> None:
    """Fork for each request, tell exit codes, and return when the tests have ended; in a child, run its program."""
    _warm_up()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(children)
        if requests in ready:
            data, ends = _received(requests)
            if not data:
                return
            if (pid := os.fork()) == 0:
                for held in (woken, wake, requests.detach(), *children.values()):
                    os.close(held)
                _become(json.loads(data), ends)
            children[pid] = ends[2]
            os.close(ends[0])
            os.close(ends[1])
            requests.send(str(pid).encode())


def _warm_up() -> None:
    """Do once what each server or command would do at its start: imports, the parser of the command line."""
    for module in _USED_BY_MANY:
        importlib.import_module(module)
    from collab.cli.commands import program

    program()
    # A server goes through all objects when it is ready, and so would copy every page of this process.
    gc.collect()
    gc.freeze()


def _received(requests: socket.socket) -> tuple[bytes, list[int]]:
    room = array.array("i", [0, 0, 0])
    data, control, _, _ = requests.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(3 * room.itemsize))
    ends: list[int] = []
    for _, _, packed in control:
        got = array.array("i")
        got.frombytes(packed)
        ends.extend(got)
    return data, ends


def _tell_ends(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        end = children.pop(pid)
        # Nobody may wait for it any more.
        with contextlib.suppress(BrokenPipeError):
            os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(end)


def _become(request: Mapping[str, Any], ends: Sequence[int]) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(ends[0], 1)
    os.dup2(ends[1], 2)
    for end in ends:
        os.close(end)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    # Unbuffered, as with PYTHONUNBUFFERED.
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), "utf-8", "backslashreplace", write_through=True)
    first, *rest = request["program"]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = request["program"]
        runpy.run_path(first, run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
