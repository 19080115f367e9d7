"""Two servers whose clients write one document all the time: each snapshot is made once, and the tail stays short."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.two_writers import BUSES, run, way

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey, pytest.mark.timeout(240)]

ROWS = 50
SECONDS = 15.0

# On a busy machine one node may make all of them for longer.
AT_MOST = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("bus", BUSES)
async def test_each_snapshot_is_made_once_and_the_tail_stays_short(tmp_path: Path, postgres_url: str, bus: str) -> None:
    with way(bus) as options:
        limits = ("--compact-rows", str(ROWS), "--compact-ratio", "0")
        figures = await run(tmp_path, postgres_url, (*options, *limits), SECONDS, AT_MOST)
    shown = str(figures)
    assert figures.rows > 4 * ROWS, shown
    assert not any(figures.failed), shown
    # As many as one node would make, whichever makes them, and half as many more: without a bus it hears of rows and
    # snapshots of the other a second late. If both made each of them it would be twice as many.
    assert figures.rows // (4 * ROWS) <= sum(figures.made) <= figures.rows * 3 // (2 * ROWS) + 2, shown
    # One may have been under way on each node when its counts were read. Without a bus the first ones may be thrown
    # away, until each has seen rows of the other.
    made = sum(figures.made)
    thrown = made // 5 + 2 if bus == "none" else 2
    assert made <= sum(figures.jobs) <= made + thrown and made <= figures.snapshots <= made + 2, shown
    assert sum(figures.taken) >= 1, shown
    # On a busy machine many rows are written while one is made.
    assert max(figures.tails) <= max(6 * ROWS, figures.rows // 2), shown
