"""One server a SQLite file: a lock of the operating system on a file beside it.

Strategy: ``flock`` on ``FILE.lock``. The system drops it when the process ends, however it ends. The database itself
is no place for it: SQLite holds POSIX locks on that, which a process loses when it closes any descriptor of the file.
The lock's file stays for ever; removing it would let two servers hold locks on two files of one name.

A server that starts while another one stops (a Kubernetes Deployment with ``Recreate``, a restart by systemd) waits a
while. Commands take no lock: SQLite's own locks are enough for what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol, cast

from collab.errors import StoreUnavailable
from collab.telemetry import get_logger

LOCK_SECONDS = 30.0
"""How long a server waits for the one before it: twice what a drain takes by default, and less than what
orchestrators give a container to become ready."""

_LOOK_SECONDS = 0.1

# The file system does not have locks, or its server for them is not running.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

_LOG = get_logger("store")


class _Flock(Protocol):
    LOCK_EX: int
    LOCK_NB: int

    def flock(self, fd: int, operation: int) -> None: ...


def _flock() -> _Flock | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return cast(_Flock, fcntl)


class ServerLock:
    """The right to serve a SQLite file; see :func:`lock_database`."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next server in; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


async def lock_database(path: Path, seconds: float = LOCK_SECONDS) -> ServerLock:
    """Take the right to serve the SQLite file ``path``, which need not exist; wait up to ``seconds`` for it.

    Raises:
        StoreUnavailable: another server has it all the time; the text says what to do.
    """
    system = _flock()
    if system is None:
        _LOG.warning("this system has no flock: make sure yourself that one server alone uses %s", path)
        return ServerLock(None)
    name = _name(path)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    waits = False
    while True:
        descriptor = await asyncio.to_thread(_try, system, name, path)
        if not isinstance(descriptor, str):
            if waits:
                _LOG.info("the other server has left %s", path)
            return ServerLock(descriptor)
        if loop.time() >= deadline:
            raise StoreUnavailable(
                f"another server ({descriptor}) uses the database {path}, and on SQLite there can be only one: stop "
                "it, or give this one another --data-dir. If you start several worker processes (uvicorn --workers, "
                "gunicorn --workers, WEB_CONCURRENCY) or replicas: use one, or PostgreSQL"
            )
        if not waits:
            waits = True
            _LOG.warning("another server (%s) uses %s: waiting up to %.0f s for its end", descriptor, path, seconds)
        await asyncio.sleep(min(_LOOK_SECONDS, max(deadline - loop.time(), 0.0)))


def _name(path: Path) -> Path:
    return Path(f"{os.path.realpath(path)}.lock")  # two names of one database have one lock


def _try(system: _Flock, name: Path, path: Path) -> int | str | None:
    """Give the descriptor that holds the lock, None where there are no locks, or who holds it."""
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreUnavailable(f"cannot open {name}: {error.strerror or error}") from None
    try:
        system.flock(descriptor, system.LOCK_EX | system.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            os.close(descriptor)
            _LOG.warning(
                "the file system of %s has no locks (%s): make sure yourself that one server alone uses it",
                path,
                error.strerror,
            )
            return None
        holder = _read(descriptor)
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise StoreUnavailable(f"cannot lock {name}: {error.strerror or error}") from None
        return holder
    # Removed or replaced between opening and locking: then the lock is on a file that nobody else finds.
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), os.stat(name)):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
            return descriptor
    os.close(descriptor)
    return _try(system, name, path)


def _read(descriptor: int) -> str:
    """Give what the holder has written about itself."""
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, 100, 0).decode("ascii", "replace").strip()
        if text.startswith("process ") and text[8:].isdecimal():
            return text
    return "its process is not known"
