"""A rolling restart of three nodes behind a load balancer; ``python -m tests.crash.rolling`` is the large one."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.rolling import Typists, check_saved, roll, shares
from tests.support.cluster import BUSES, Cluster, find_balancer

pytestmark = [pytest.mark.postgres, pytest.mark.valkey, pytest.mark.proxy, pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 24


@pytest.mark.parametrize(
    ("balancer", "bus", "delay"),
    # nginx does not ask who is ready: the listener is closed at once, as docs/scaling.md says.
    [*(("haproxy", bus, 3.0) for bus in BUSES), ("nginx", BUSES[0], 0.0)],
)
async def test_nothing_is_lost_and_each_node_interrupts_a_client_once(balancer: str, bus: str, delay: float) -> None:
    cluster = Cluster(find_balancer(balancer), bus=bus, drain_delay=delay)
    await asyncio.to_thread(cluster.__enter__)
    try:
        outcome = await roll(cluster, CLIENTS, 1.0)
    finally:
        await asyncio.to_thread(cluster.__exit__, None, None, None)
    assert len(outcome.counts) == CLIENTS and all(1 <= count <= 3 for count in outcome.counts)
    assert outcome.made > CLIENTS and 0 < outcome.saved < outcome.made
    assert all(len(found) >= CLIENTS / 2 for found in outcome.milliseconds.values())


def test_what_was_lost_is_named() -> None:
    assert check_saved({"d": []}, {}) == 0
    with pytest.raises(AssertionError, match="acknowledged and not stored: .'lost'"):
        check_saved({"d": ["lost"]}, {"d": []})


def test_times_are_told_by_their_shares() -> None:
    assert shares([float(n) for n in range(1, 101)]) == "p50 50 ms, p99 99 ms, at most 100 ms (100)"
    assert shares([1.0]) == "1 interruptions"
    assert Typists("http://127.0.0.1:1", ["d"], 1, 1.0)._command[0] == "rolling.mjs"
