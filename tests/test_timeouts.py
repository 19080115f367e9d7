"""A test that waits for a fact that never comes is ended, and says where it waited."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.loop import TimedLoop

ROOT = Path(__file__).resolve().parents[1]

CONFTEST = """
from tests.support.loop import TimedLoop

def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": TimedLoop}
"""

TESTS = """
import asyncio
import time
import pytest
import pytest_asyncio

@pytest_asyncio.fixture
async def slow_to_leave():
    yield
    await asyncio.Event().wait()

@pytest.mark.timeout(1)
async def test_waits():
    await asyncio.Event().wait()  # here it waits

@pytest.mark.timeout(1)
async def test_is_busy_in_callbacks():
    loop = asyncio.get_running_loop()

    def again():
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        loop.call_soon(again)

    again()
    await asyncio.Event().wait()

@pytest.mark.timeout(1)
async def test_leaves_a_fixture(slow_to_leave):
    pass

async def test_of_the_next():
    await asyncio.sleep(0)
"""

DEAF = """
import asyncio
import pytest

@pytest.mark.timeout(1)
async def test_is_deaf():
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            pass
"""


def run_in(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (folder / "test_it.py").write_text(tests, encoding="utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"),
            *("-o", "asyncio_default_fixture_loop_scope=function", *options),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_these_tests_run_on_such_a_loop() -> None:
    assert isinstance(asyncio.get_running_loop(), TimedLoop)


@pytest.mark.slow
def test_what_waits_for_ever_is_ended_with_the_place(tmp_path: Path) -> None:
    done = run_in(tmp_path, TESTS)
    assert "2 failed, 2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "await asyncio.Event().wait()  # here it waits" in done.stdout
    assert done.stdout.count("Timeout (>1.0s) from pytest-timeout") >= 3


@pytest.mark.slow
def test_what_hears_no_alarm_is_ended_with_its_process(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("faulthandler_exit_on_timeout") is True
    assert float(pytestconfig.getini("faulthandler_timeout")) > 300
    done = run_in(tmp_path, DEAF, "-o", "faulthandler_timeout=4", "-o", "faulthandler_exit_on_timeout=true")
    assert done.returncode == 1
    assert "Timeout (0:00:04)!" in done.stderr
