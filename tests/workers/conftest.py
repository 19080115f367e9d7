"""A server with workers, and what a test asks of its processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.server import ServerProcess


class Workers(ServerProcess):
    """A server with ``count`` workers; `pid` is their parent."""

    def __init__(self, data_dir: Path, database_url: str, count: int, *options: str, **more: object) -> None:
        super().__init__(data_dir, "--workers", str(count), *options, database_url=database_url, **more)  # type: ignore[arg-type]
        self.count = count

    def workers(self) -> dict[int, psutil.Process]:
        """Give the processes that serve now, by number."""
        found = {}
        for child in psutil.Process(self.pid).children():
            try:
                command = child.cmdline()
            except psutil.Error:  # it has just died
                continue
            if "collab.workers" in command:
                found[int(command[-1])] = child
        return found

    def connections(self) -> Counter[int]:
        """Count the connections of clients that each worker has, by number."""
        counted: Counter[int] = Counter()
        for number, process in self.workers().items():
            try:
                for found in process.net_connections("tcp"):
                    counted[number] += found.status == psutil.CONN_ESTABLISHED and found.laddr.port == self.port
            except psutil.Error:
                continue
        return counted


@pytest.fixture
def two_workers(tmp_path: Path, postgres_url: str) -> Workers:
    """A server with two workers that nobody has started yet."""
    return Workers(tmp_path, postgres_url, 2)
