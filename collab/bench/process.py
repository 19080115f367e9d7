"""What processes cost: CPU and memory of the server and of the generator, cores, and file descriptors.

Strategy: CPU comes from the kernel's scheduler statistics (nanoseconds) where they exist, for psutil's
clock ticks (10 ms) are too coarse for a run of a few seconds; children count with their parent.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from time import perf_counter, process_time

import psutil

from collab.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used by a server and its children since they started, by thread where known."""

    exact: dict[tuple[int, int], float]
    ticks: dict[int, float]

    def since(self, before: Usage) -> float:
        """Return the CPU seconds between two readings."""
        if self.exact and self.exact.keys() >= before.exact.keys():
            return sum(used - before.exact.get(key, 0.0) for key, used in self.exact.items())
        # A thread has ended in between and took its exact time with it.
        return sum(used - before.ticks.get(pid, 0.0) for pid, used in self.ticks.items())


class ServerProcess:
    """The server's process, and its ``children`` unless they are not asked for, by its process ID."""

    def __init__(self, pid: int, *, children: bool = True) -> None:
        """Raises ConfigurationError when no such process can be read."""
        try:
            self._process = psutil.Process(pid)
            self._process.cpu_times()
        except psutil.Error as error:
            raise ConfigurationError(f"--server-pid {pid}: {error}") from None
        self.pid = pid
        self._children = children

    def _all(self) -> list[psutil.Process]:
        try:
            return [self._process, *(self._process.children(recursive=True) if self._children else ())]
        except psutil.NoSuchProcess:
            return []

    def usage(self) -> Usage:
        """Return the CPU time used so far; a process that has just ended is left out."""
        exact: dict[tuple[int, int], float] = {}
        ticks: dict[int, float] = {}
        for process in self._all():
            try:
                times = process.cpu_times()
                ticks[process.pid] = times.user + times.system
                exact.update(_exact_times(process.pid))
            except (psutil.Error, OSError):
                continue
        return Usage(exact, ticks)

    def rss(self) -> int:
        """Return the resident memory in bytes, children included."""
        total = 0
        for process in self._all():
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total


def _exact_times(pid: int) -> dict[tuple[int, int], float]:
    # /proc/<pid>/task/<tid>/schedstat: nanoseconds on a core, nanoseconds waiting, time slices.
    if sys.platform != "linux":
        return {}
    times: dict[tuple[int, int], float] = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                times[(pid, int(thread))] = int(file.read().split()[0]) / 1e9
        except (OSError, IndexError):
            return {}
    return times


def _waited() -> float | None:
    # The second number of schedstat: nanoseconds ready to run without a core. The generator has one thread.
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return None


class Stopwatch:
    """Wall time and the CPU of generator and server over one stretch."""

    def __init__(self, server: ServerProcess | None) -> None:
        self._server = server
        self._usage = server.usage() if server else None
        self._own = process_time()
        self._waited = _waited()
        self._wall = perf_counter()

    def wall(self) -> float:
        """Return the seconds since the start."""
        return perf_counter() - self._wall

    def generator_share(self) -> float:
        """Return the part of one core that the generator used since the start, 0 to 1."""
        return (process_time() - self._own) / max(self.wall(), 1e-9)

    def generator_waited(self) -> float | None:
        """Return the part of the time, 0 to 1, for which the generator wanted its core and others had it.

        Above a few hundredths the machine does something else and latencies are not the server's. None where the
        system does not say.
        """
        now = _waited()
        if self._waited is None or now is None:
            return None
        return (now - self._waited) / max(self.wall(), 1e-9)

    def server_cpu(self) -> float | None:
        """Return the CPU seconds that the server used since the start, None when its process is not known."""
        if self._server is None or self._usage is None:
            return None
        return self._server.usage().since(self._usage)


def raise_file_limit(needed: int) -> None:
    """Let this process open ``needed`` files; raises ConfigurationError when the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigurationError(
            f"{needed} open files are needed and this process may have {hard}: "
            f"raise the limit (as root: prlimit --nofile={needed}:{needed} --pid $$) or ask for fewer connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def pin(cores: set[int]) -> bool:
    """Keep this process on ``cores``; False where the system cannot do that."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cores)
    return True
