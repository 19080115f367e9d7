"""The memory of the process beside two marks: past one it opens nothing new, past the other it takes nobody new.

Strategy: what is refused is what would need more; those who edit go on. The marks stand well below what
there is, for compaction runs in processes beside this one and a storm of joins needs buffers. What the
machine has is what its container allows, if that is less.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from pathlib import Path

import psutil

from collab.telemetry import RateLimited, get_logger

_log = get_logger()
_limited = RateLimited(_log, per_second=0.1, burst=3)

# Shares of what there is, for marks that nobody has set.
MARK_SHARE = 0.70
LIMIT_SHARE = 0.85

# Seconds between two tries to give memory back to the system while it is past a mark.
_TRIM_SECONDS = 30.0

# What each state means to those who come, for the log and for /readyz.
_PAST_MARK = "documents that are not open already are refused"
_PAST_LIMIT = "new connections are refused, editing goes on"


class Memory:
    """How much memory the process has.

    Args:
        mark: bytes past which no documents are opened that are not open already; 0 for none.
        limit: bytes past which no new connections are taken; 0 for none.

    Attributes:
        mark, limit: as given.
        used: bytes in use, when they could last be read.
        unread: why they cannot be read now; None while they can.
    """

    def __init__(self, mark: int = 0, limit: int = 0) -> None:
        self.used = 0
        self.unread: str | None = None
        self.mark = mark
        self.limit = limit
        self._process = psutil.Process()
        self._told: str | None = None
        self._trimmed = float("-inf")

    @property
    def past_limit(self) -> bool:
        """Whether those who are not connected yet must wait."""
        return 0 < self.limit < self.used

    @property
    def past_mark(self) -> bool:
        """Whether documents that are not open yet must wait."""
        return 0 < self.mark < self.used or self.past_limit

    @property
    def shortage(self) -> str | None:
        """What is refused now, as a clause; None below the marks."""
        return _PAST_LIMIT if self.past_limit else _PAST_MARK if self.past_mark else None

    async def measure(self, now: float) -> None:
        """Look at the process; call it about once a second, ``now`` by the loop."""
        self._read()
        if self.past_mark and now - self._trimmed >= _TRIM_SECONDS:
            # The allocator keeps what was freed, and nobody is to be refused for that.
            self._trimmed = now
            await asyncio.to_thread(_trim)
            self._read()
        shortage = self.shortage
        if shortage != self._told:
            self._told = shortage
            log = _log.warning if shortage else _log.info
            log("memory: %d MiB in use, %s", self.used >> 20, shortage or "below the marks again")

    def _read(self) -> None:
        try:
            self.used = self._process.memory_info().rss
        except (psutil.Error, OSError) as error:  # no file descriptor is left, say
            self.unread = type(error).__name__
            _limited.warning("read", "the memory of the process cannot be read: %s", error)
        else:
            self.unread = None


def machine_memory() -> int:
    """Give the bytes of memory that this machine, or the container around the process, has."""
    total = int(psutil.virtual_memory().total)
    for limit in _container_limits():
        if 0 < limit < total:
            total = limit
    return total


def _container_limits() -> list[int]:
    if sys.platform != "linux":
        return []
    # Version 2 with a namespace of its own, as containers have it, and version 1.
    files = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0" and path != "/":  # version 2 without one, as services have it
                group = Path("/sys/fs/cgroup" + path)
                files += [group / "memory.max", group.parent / "memory.max"]
    except (OSError, ValueError):
        pass
    limits = []
    for file in files:
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # not there, or "max"
    return limits


def _trim() -> None:
    """Give freed memory back to the system; it takes a while, in which other threads run."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return  # another C library; it keeps what it keeps
