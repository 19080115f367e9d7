"""Versions outlive ``kill -9`` at any moment of making, pinning, pruning and thinning: a short run on each store."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest

from collab.storage.urls import parse_database_url
from tests.crash.history import check
from tests.support.snippets import ROOT
from tests.support.sqlite import migrated

KILLS = 3


async def killed(url: str, told: dict[int, int], choose: random.Random) -> int:
    """Run the process until it has pruned, and kill it some lines later; give how often it has pruned."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.history", url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pruned, left = 0, choose.randint(0, 8)
    try:
        async with asyncio.timeout(120):
            while left >= 0:
                what, *numbers = (await process.stdout.readline()).decode().split()
                pruned += what == "pruned"
                left -= pruned > 0
                if numbers:
                    told[int(numbers[0])] = int(numbers[1])
            # Not at a line, but within what comes next.
            await asyncio.sleep(choose.random() * 0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        rest = (await process.stdout.read()).decode().splitlines()
        await process.wait()
    for line in rest:
        if line.startswith("version ") and len(line.split()) == 3:
            told[int(line.split()[1])] = int(line.split()[2])
    return pruned


async def campaign(url: str) -> None:
    told: dict[int, int] = {}
    choose = random.Random(17)
    pruned = 0
    for _ in range(KILLS):
        pruned += await killed(url, told, choose)
        assert await check(parse_database_url(url), told) >= len(told) > 0
    assert pruned >= KILLS


async def test_versions_outlive_kills_on_sqlite(tmp_path: Path) -> None:
    url = migrated(tmp_path)
    await campaign(f"sqlite:///{url.path}")


@pytest.mark.postgres
async def test_versions_outlive_kills_on_postgresql(postgres_url: str) -> None:
    await campaign(postgres_url)
