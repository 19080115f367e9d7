"""Every fault of the table on each bus, in a cluster of real parts; and the campaign's command, for a short time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.chaos.__main__ import main
from tests.chaos.campaign import Campaign
from tests.chaos.cluster import BUSES, Bus, Cluster, Node
from tests.chaos.faults import EVERY_HARM, FAULTS, NOTHING, Fault, kill_node, nothing

pytestmark = [pytest.mark.node, pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey, pytest.mark.timeout(300)]


@pytest.mark.parametrize("bus", BUSES)
async def test_every_fault(tmp_path: Path, bus: Bus) -> None:
    known = (NOTHING, EVERY_HARM)
    faults = [(fault, fault.seconds[0]) for fault in FAULTS if bus in fault.buses and fault not in known]
    async with Cluster(tmp_path, bus) as cluster:
        count = await Campaign(cluster, seed=1).run(faults)
        # Whoever is harmed by nothing has shown nothing.
        for node in cluster.nodes:
            assert all(node.bus.done.values()), node.bus.done
    print("\n".join(count.table()))
    assert count.rounds == len(faults) and count.acknowledged > 10 * len(faults)
    assert not count.lost and not count.faults, count


def test_the_command_for_a_short_time(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--minutes", "0.01", "--seed", "3", "--bus", "redis"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "bus redis, seed 3" in said and "round 1: " in said and " 0 lost, 0 other faults" in said


async def remove_the_log(cluster: Cluster, node: Node, random: Random) -> None:
    """Remove what was acknowledged while no node can write it again."""
    for one in cluster.nodes:
        one.freeze()
    await asyncio.to_thread(cluster.sql, "DELETE FROM log")


async def test_what_is_lost_and_who_is_missing_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    async with Cluster(tmp_path, "postgresql") as cluster:
        campaign = Campaign(cluster, seed=1, say=said.append)
        never_back = Fault("a node stays away", kill_node, nothing, converged=2.0, complete=2.0)
        count = await campaign.run([(never_back, 0.5)])
        assert not count.lost and len(count.faults) == 1
        [fault] = count.faults
        assert "after a node stays away" in fault and "has unsynced changes" in fault and "misses ['" in fault
        for node in cluster.nodes:
            await node.server.arestart()
        rows_gone = Fault("rows are removed", nothing, remove_the_log)
        try:
            count = await campaign.run([(rows_gone, 0.5)])
        finally:
            for node in cluster.nodes:
                node.thaw()
    assert {token.rpartition(" ")[0].startswith("era 2 ") for token in count.lost} == {True}
    assert any(line.startswith("LOST after rows are removed") for line in said)
