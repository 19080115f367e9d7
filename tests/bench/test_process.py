"""What a process costs is read from the kernel; limits are raised or explained."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from collab.bench.process import ServerProcess, Stopwatch, raise_file_limit
from collab.errors import ConfigurationError

_WORK = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
_PARENT = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process whose child uses 0.3 s of CPU, says so and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PARENT, _WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process


def test_the_cpu_and_memory_of_children_count(busy: subprocess.Popen[str]) -> None:
    server = ServerProcess(busy.pid)
    before = server.usage()
    assert busy.stdout is not None
    used = float(busy.stdout.readline())
    after = server.usage()
    # The parent's own start-up may be in the stretch too; the child's work must be.
    assert used * 0.9 <= after.since(before) + sum(before.ticks.values()) + 0.05
    assert server.rss() > 4_000_000
    busy.communicate("\n")
    assert server.rss() == 0


def test_a_process_can_be_looked_at_without_its_children(busy: subprocess.Popen[str]) -> None:
    assert busy.stdout is not None
    busy.stdout.readline()
    whole, alone = ServerProcess(busy.pid), ServerProcess(busy.pid, children=False)
    assert set(alone.usage().ticks) == {busy.pid} < set(whole.usage().ticks)
    assert alone.rss() < whole.rss()
    busy.communicate("\n")


def test_a_process_that_does_not_exist_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="--server-pid"):
        ServerProcess(2**22 + 1)


def test_a_stopwatch_sees_the_generator_and_no_server() -> None:
    watch = Stopwatch(None)
    total = sum(range(3_000_000))
    assert total > 0
    assert 0 < watch.generator_share() <= 1.5
    assert watch.server_cpu() is None
    assert watch.wall() > 0


def test_this_process_can_be_the_server() -> None:
    watch = Stopwatch(ServerProcess(os.getpid()))
    assert sum(range(3_000_000)) > 0
    cpu = watch.server_cpu()
    assert cpu is not None and cpu > 0


def test_the_file_limit_is_raised_or_the_way_to_raise_it_is_said() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        raise_file_limit(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 600
        if hard != resource.RLIM_INFINITY:
            with pytest.raises(ConfigurationError, match="prlimit"):
                raise_file_limit(hard + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
