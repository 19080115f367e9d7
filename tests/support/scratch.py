"""Where the files of tests are: in memory if there is room, so that no test waits for a disk.

Strategy: thousands of tests make a database each, write it with the strictest settings and remove it. On a disk each
commit and each removed file waits for the journal of the file system; in memory (``/dev/shm``) the same calls return
at once. Nothing is proven less: the tests kill processes, not the machine, and what a process has written stays in
either place. Name a directory in ``TMPDIR`` to have the files there instead.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")

ROOM = 4 << 30
"""Bytes that have to be free, on the file system and in memory. Some hundreds of MiB are used at a time."""

SHORT = 24
"""Characters of a directory in which a Unix socket can still be: its path may have 107 bytes."""


def choose() -> None:
    """Let this process, and those that it starts, put temporary files into memory if the caller has named no place."""
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def short_directory(prefix: str) -> Path:
    """Make a directory of temporary files whose path is short enough for the path of a Unix socket in it."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix=prefix, dir=usual if len(usual) <= SHORT else "/tmp"))


def _has_room(place: Path) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    # Containers often have a small one, from which no program may be run.
    if found.f_flag & os.ST_NOEXEC or not os.access(place, os.W_OK | os.X_OK):
        return False
    return min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available) >= ROOM
