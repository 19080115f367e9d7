"""A short form of the campaign with the Python client (:mod:`tests.crash.client`), which is run at length by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.campaign import stores
from tests.crash.client import campaign

ROUNDS = 3


@pytest.mark.timeout(240)
async def test_nothing_is_lost_of_what_the_client_says_is_saved(tmp_path: Path) -> None:
    with stores("sqlite", tmp_path) as (server, backup):
        count = await campaign(server, backup, ROUNDS, seed=7)
    assert not count.lost and not count.faults, count
    assert count.kills == ROUNDS and count.acknowledged > 10 * ROUNDS
