"""The scenarios of several nodes on three real ones, and the part of a page that another command writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from collab.bench.connection import Target
from collab.bench.nodes import Processes, acknowledged, edits_across, presence_across, rooms_on_nodes
from collab.bench.report import ASGI, NODES, keep_sections, put_section, section_of
from collab.bench.run import Bench
from collab.bench.wire import WireName, choose_wire
from tests.support.server import ServerProcess


@pytest.fixture
async def servers(tmp_path: Path, postgres_url: str) -> AsyncIterator[list[ServerProcess]]:
    async with AsyncExitStack() as stack:
        found = [ServerProcess(tmp_path / name, database_url=postgres_url) for name in ("one", "two")]
        for server in found:
            await stack.enter_async_context(server)
        yield found


def bench_of(servers: list[ServerProcess], wire: WireName) -> tuple[Bench, list[Target]]:
    urls = [one.ws_url if wire is WireName.Y_WEBSOCKET else one.hocuspocus_url for one in servers]
    targets = [Target(url, choose_wire(wire)) for url in urls]
    return Bench(targets[0], Processes([one.pid for one in servers]), 1.0), targets


@pytest.mark.server
async def test_what_goes_from_node_to_node_is_measured(servers: list[ServerProcess]) -> None:
    bench, targets = bench_of(servers, WireName.HOCUSPOCUS)
    for scenario in (edits_across, presence_across):
        figures = await scenario(bench, targets, rooms=3)
        assert figures["right"] and figures["lost"] == 0, figures
        assert figures["sent"] == 15 and figures["far_p50_ms"] > figures["near_p50_ms"] > 0
        assert figures["beyond_p50_ms"] == figures["far_p50_ms"] - figures["near_p50_ms"]
    for spread in (True, False):
        figures = await rooms_on_nodes(bench, targets, rooms=4, rate=5.0, spread=spread)
        assert figures["right"] and figures["sent"] == 4 * 3 * 5, figures
        assert figures["cpu_us_per_edit"] > 0
    assert figures["saved_per_s"] > 0
    figures = await acknowledged(bench, targets[1], edits=5)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


@pytest.mark.server
async def test_what_does_not_arrive_on_the_other_node_is_lost(
    servers: list[ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.bench.nodes._PATIENCE", 0.2)
    # The other one is a node of another deployment.
    async with ServerProcess(tmp_path / "alone") as alone:
        bench, targets = bench_of([servers[0], alone], WireName.Y_WEBSOCKET)
        for scenario in (edits_across, presence_across):
            figures = await scenario(bench, targets, rooms=2)
            assert not figures["right"] and figures["lost"] > 0
            assert figures["beyond_p50_ms"] is None
        figures = await rooms_on_nodes(bench, targets, rooms=2)
        assert not figures["right"] and figures["lost"] > 0


def test_a_section_is_put_between_its_marks_and_kept() -> None:
    page = "# Figures\n\nText.\n"
    assert section_of(page, NODES) is None
    first = put_section(page, "## Nodes\n\nOne.\n", NODES)
    assert first == f"# Figures\n\nText.\n\n{NODES.begin}\n\n## Nodes\n\nOne.\n\n{NODES.end}\n"
    assert section_of(first, NODES) == "## Nodes\n\nOne."
    assert put_section(first, "Two.", NODES) == f"# Figures\n\nText.\n\n{NODES.begin}\n\nTwo.\n\n{NODES.end}\n"
    assert put_section(first + "\nBehind.\n", "Two.", NODES).endswith(f"{NODES.end}\n\nBehind.\n")
    both = put_section(first, "Three.", ASGI)
    assert keep_sections(both, "New.\n") == put_section(
        put_section("New.\n", "## Nodes\n\nOne.", NODES), "Three.", ASGI
    )
    assert keep_sections("", "New.\n") == "New.\n"
