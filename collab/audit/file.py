"""A file that only grows, which several processes write into, and which others rename: the audit's own.

Strategy: all processes (workers, commands) open it for appending, and each writes whole lines while it holds a lock of
the operating system (``flock``). So no line is torn: what could not be written whole (a full disk) is cut off again,
and what a process that was killed has left without its end gets one. Before each write it is seen whether another file
has the name, as after ``logrotate``; then that one is opened, or made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where one process writes
    fcntl = None  # type: ignore[assignment]

MODE = 0o600
"""Of a new file: it has users and addresses. What an operator has given an old one stays."""

LOCK_SECONDS = 5.0
"""How long the lock is waited for: the others hold it for one write, unless somebody has stopped their process."""

_LOCK_PAUSE = 0.01

# A pipe without a reader must not be waited for.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class AuditFile:
    """The file of one process. No two threads use it at a time; each method may block on the disk.

    Args:
        path: where it is; its directory is there.
    """

    def __init__(self, path: Path) -> None:
        # Whoever changes the directory of the process does not move the file.
        self.path = Path(os.path.abspath(path))
        self._descriptor: int | None = None

    def open(self) -> None:
        """Open the file, or make it; what was open is closed. Raises OSError."""
        descriptor = os.open(self.path, _FLAGS, MODE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor = descriptor

    def append(self, lines: bytes) -> None:
        """Write whole lines behind all others. Raises OSError: then nothing of them is in the file."""
        if self._descriptor is None or self._replaced():
            self.open()
        descriptor = self._descriptor
        assert descriptor is not None
        with _locked(descriptor):
            size = os.fstat(descriptor).st_size
            if size and os.lseek(descriptor, -1, os.SEEK_END) >= 0 and os.read(descriptor, 1) != b"\n":
                lines = b"\n" + lines
            try:
                left = memoryview(lines)
                while left:
                    left = left[os.write(descriptor, left) :]
            except OSError:
                with contextlib.suppress(OSError):  # a file that may only grow: the next writer ends the line
                    os.ftruncate(descriptor, size)
                raise

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _replaced(self) -> bool:
        assert self._descriptor is not None
        ours = os.fstat(self._descriptor)
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return True
        return (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep other processes from writing meanwhile, where the file system has locks. Raises OSError."""
    locked = _lock(descriptor)
    try:
        yield
    finally:
        if locked:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise OSError(errno.EAGAIN, "another process has locked it, and does not go on") from None
            time.sleep(_LOCK_PAUSE)
        except OSError:
            return False  # the file system has no locks
        else:
            return True
