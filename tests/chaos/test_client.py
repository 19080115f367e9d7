"""The Python client under faults: of its own line on one node, and of a cluster of three.

All faults are gone through by hand: ``python -m tests.chaos.client``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.client import LINE_FAULTS, Members, run
from tests.chaos.faults import FAULTS
from tests.support.server import ServerProcess

SOME = ("a node is killed", "PostgreSQL fails over to a copy that lacks rows")


@pytest.mark.server
@pytest.mark.timeout(240)
async def test_a_client_of_one_server_gets_over_every_fault_of_its_line(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, Members(seed=1).on([server.port, server.port]) as members:
        for fault in LINE_FAULTS:
            await members.suffer(fault)


@pytest.mark.server
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_clients_of_three_nodes_get_over_faults_of_the_cluster(tmp_path: Path) -> None:
    said: list[str] = []
    faults = [fault for fault in FAULTS if fault.name in SOME]
    assert len(faults) == len(SOME)
    await run("postgresql", tmp_path, 1, faults, said.append, lines=())
    assert len(said) == len(SOME)
