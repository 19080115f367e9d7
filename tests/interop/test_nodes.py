"""Published clients that come back by another node: what they and the others see of each other's presence.

Strategy: a line to one of two servers stands for a balancer, which may choose the other one each time. The crowds never
renew their states, and the old socket of a line that hangs is not found out for minutes: so what is seen in time was
brought about by the servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.interop.agent import VERSIONS, Agent, DocumentClient
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.interop.test_comebacks import ADA, SECRET, shows, token, until_seen
from tests.support.crowd import Crowd
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import happens

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.slow]

AgentOf = Callable[[str], Awaitable[Agent]]

OPTIONS = ("--no-stamp-users", "--ping-seconds", "300")


class Nodes(NamedTuple):
    """Two servers on one database, and a line that leads to the first one until it is turned."""

    one: ServerProcess
    two: ServerProcess
    line: SlowLine

    def of_line(self, url: str) -> str:
        return url.replace(str(self.one.port), str(self.line.port))


@pytest_asyncio.fixture
async def nodes(tmp_path: Path, postgres_url: str) -> AsyncIterator[Nodes]:
    one, two = [
        ServerProcess(tmp_path / name, *OPTIONS, database_url=postgres_url, environment={"COLLAB_JWT_SECRET": SECRET})
        for name in ("one", "two")
    ]
    async with one, two:
        with SlowLine(one.port) as line:
            yield Nodes(one, two, line)


async def settle(client: DocumentClient, *crowds: Crowd) -> None:
    """Let a client show itself and wait until everybody sees everybody."""
    await client.until(synced=True)
    await client.present(shows("Ada"))
    for crowd in crowds:
        await crowd.until_complete()
    await until_seen(client, {ADA: shows("Ada")} | crowds[0].shown | crowds[1].shown)
    await all_heard(*crowds)


async def all_heard(*crowds: Crowd) -> None:
    """Wait until nothing is under way between the nodes: what a client knows, the other node knows as well."""
    await happens(lambda: all(one.has_heard(of) for one in crowds for of in crowds), "all is said", 60.0)


async def come_back(nodes: Nodes, client: DocumentClient, cut: Callable[[], Awaitable[None]], *crowds: Crowd) -> None:
    """Let a client lose its node and come back by the other one, while the others say nothing.

    Then let its line hang, and the client come back by the first one: it is seen to move at once.
    """
    everybody = {ADA: shows("Ada")} | crowds[0].shown | crowds[1].shown
    await settle(client, *crowds)
    nodes.line.target = nodes.two.port
    await cut()
    await until_seen(client, everybody)
    for crowd in crowds:
        await crowd.until_complete()
    await all_heard(*crowds)
    nodes.line.hang()
    nodes.line.target = nodes.one.port
    await cut()
    await until_seen(client, everybody)
    await client.present(shows("Ada moves"))
    await until_seen(client, everybody | {ADA: shows("Ada moves")})
    for crowd in crowds:
        await crowd.until_sees(ADA, shows("Ada moves"))


# One version for each protocol: what a client does is the same on one node, where every version is tried.
async def test_who_comes_back_by_another_node_over_y_websocket(nodes: Nodes, agent_of: AgentOf, name: str) -> None:
    agent = await agent_of(VERSIONS[-1])
    params = {"token": token("ada")}
    url = nodes.of_line(nodes.one.ws_url)
    client = await agent.open("ada", VERSIONS[-1], url, name, clientID=ADA, params=params)

    async def cut() -> None:
        await client.vanish()
        await client.until(connected=False)
        await client.connect()
        await client.until(synced=True)

    await beside_crowds(nodes, name, client, cut)


async def test_who_comes_back_by_another_node_over_hocuspocus(
    nodes: Nodes, hocuspocus: HocuspocusAgent, name: str
) -> None:
    socket = await hocuspocus.socket(PROVIDERS[-1], nodes.of_line(nodes.one.hocuspocus_url))
    client = await socket.open("ada", name, token("ada"), clientID=ADA)

    async def cut() -> None:
        opens = (await client.state())["opens"]
        await client.socket.cut()
        await client.until(opens=opens + 1, synced=True)

    await beside_crowds(nodes, name, client, cut)


async def beside_crowds(nodes: Nodes, name: str, client: DocumentClient, cut: Callable[[], Awaitable[None]]) -> None:
    """Do it beside five people on each node."""
    access = f"?token={token('crowd')}"
    async with (
        Crowd(nodes.one.document_url(name) + access, 5, more=6) as here,
        Crowd(nodes.two.document_url(name) + access, 5, more=6, first=2_000_000) as there,
    ):
        await asyncio.wait_for(come_back(nodes, client, cut, here, there), 110)
