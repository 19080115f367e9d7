"""Presence between the published clients of all three protocols, one of which has plain HTTP alone, on two nodes.

Strategy: two servers on one PostgreSQL, which hear each other by it or by Valkey. What clients show of each other is
read from them; that nobody was seen to leave is read from what a socket was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.agent import Agent, Client, DocumentClient
from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.interop.streams import StreamsAgent
from tests.interop.test_comebacks import ADA, BOB, SECRET, shows, token, told
from tests.support.server import ServerProcess
from tests.support.valkey import Valkey, running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey, pytest.mark.timeout(240)]

AgentOf = Callable[[str], Awaitable[Agent]]

NAME = "team/d"
CYD, DAN, EVE = 13, 14, 15


class Cluster(NamedTuple):
    """Two nodes, a y-websocket client on the first and a Hocuspocus provider on the second."""

    one: ServerProcess
    two: ServerProcess
    ada: Client
    bob: Provider


@pytest.fixture
async def streams() -> AsyncIterator[StreamsAgent]:
    async with StreamsAgent() as agent:
        yield agent


@pytest.fixture(params=["postgresql", "redis"])
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, agent_of: AgentOf, hocuspocus: HocuspocusAgent
) -> AsyncIterator[Cluster]:
    """The nodes hear each other on the bus that the parameter names."""
    async with AsyncExitStack() as stack:
        bus: tuple[str, ...] = ()
        if request.param == "redis":
            valkey = Valkey()
            stack.enter_context(running(valkey))
            bus = ("--redis-url", valkey.url)
        one, two = [
            await stack.enter_async_context(
                ServerProcess(
                    tmp_path / name,
                    "--no-stamp-users",
                    *bus,
                    database_url=postgres_url,
                    environment={"COLLAB_JWT_SECRET": SECRET},
                )
            )
            for name in ("one", "two")
        ]
        agent = await agent_of("3.1")
        ada = await agent.open("ada", "3.1", one.ws_url, NAME, clientID=ADA, params={"token": token("ada")})
        socket = await hocuspocus.socket("4", two.hocuspocus_url)
        bob = await socket.open("bob", NAME, token("bob"), clientID=BOB)
        await ada.edit("type", text="hello")
        for client, name in ((ada, "Ada"), (bob, "Bob")):
            await client.until(synced=True, text=[{"insert": "hello"}])
            await client.present(shows(name))
        yield Cluster(one, two, ada, bob)


# Seconds in which everybody sees what changes: less than the 15 s after which clients renew their states.
SOON = 10.0


async def until_seen(states: dict[int, Any], *clients: DocumentClient) -> None:
    """Wait until all these clients see these states and no others, which no heartbeat of a client has helped."""
    expected = {str(client): state for client, state in states.items()}

    async def look() -> bool:
        return all([(await client.state())["states"] == expected for client in clients])

    await eventually(look, f"all see {expected}", SOON)


async def test_clients_of_all_protocols_see_each_other(cluster: Cluster, streams: StreamsAgent) -> None:
    one, two, ada, bob = cluster
    cyd = await streams.open("cyd", one.url, NAME, token=token("cyd"), clientID=CYD, presence=True)
    dan = await streams.open("dan", two.url, NAME, token=token("dan", "read"), clientID=DAN, presence=True)
    for newcomer, name in ((cyd, "Cyd"), (dan, "Dan")):
        await newcomer.until(connected=True)
        await newcomer.present(shows(name))
    everybody: tuple[DocumentClient, ...] = (ada, bob, cyd, dan)
    states = {ADA: shows("Ada"), BOB: shows("Bob"), CYD: shows("Cyd"), DAN: shows("Dan")}
    await until_seen(states, *everybody)
    # All of them move.
    for client, who in zip(everybody, states, strict=True):
        states[who] = states[who] | {"cursor": who}
        await client.present(states[who])
    await until_seen(states, *everybody)
    # One leaves, and comes back.
    await cyd.disconnect()
    del states[CYD]
    await until_seen(states, ada, bob, dan)
    await cyd.connect()
    await cyd.present(shows("Cyd again"))
    states[CYD] = shows("Cyd again")
    await until_seen(states, *everybody)
    # Those with a socket leave.
    await ada.disconnect()
    del states[ADA]
    await until_seen(states, bob, cyd, dan)
    for client in (cyd, dan):
        assert (await client.state())["errors"] == []
        await client.close()
    # Requests of one client may go to either node.
    eve = await streams.open("eve", one.url, NAME, [two.url], token=token("eve"), clientID=EVE, presence=True)
    await eve.until(connected=True)
    states = {BOB: states[BOB]}
    for turn in range(8):
        states[EVE] = shows("Eve") | {"turn": turn}
        await eve.present(states[EVE])
        await until_seen(states, bob, eve)
    assert [entry for entry in await told(bob) if entry[0] == EVE and entry[2] == "null"] == [], "it was never gone"
    state = await eve.state()
    assert state["errors"] == [] and state["requests"]["POST presence 204"] >= 8
    assert not any(refused in text for text in state["requests"] for refused in (" 4", " 5"))
    await eve.close()
    del states[EVE]
    await until_seen(states, bob)


@pytest.mark.parametrize("cluster", ["postgresql"], indirect=True)
async def test_a_client_goes_from_requests_to_a_socket_and_back(
    cluster: Cluster, streams: StreamsAgent, agent_of: AgentOf
) -> None:
    """With the same client ID, as a page does that finds out whether its network lets sockets pass."""
    one, two, ada, bob = cluster
    states = {ADA: shows("Ada"), BOB: shows("Bob"), CYD: shows("by HTTP")}
    cyd = await streams.open("cyd", one.url, NAME, token=token("cyd"), clientID=CYD, presence=True)
    await cyd.until(connected=True)
    await cyd.present(shows("by HTTP"))
    await until_seen(states, ada, bob, cyd)
    await cyd.disconnect()
    agent = await agent_of("3.1")
    again = await agent.open("again", "3.1", two.ws_url, NAME, clientID=CYD, params={"token": token("cyd")})
    await again.until(synced=True)
    states[CYD] = shows("by a socket")

    async def comes_to_be_seen() -> bool:
        await again.present(shows("by a socket"))  # with the next clock, until that is above the one of its removal
        await asyncio.sleep(0.05)
        return bool((await ada.state())["states"].get(str(CYD)) == shows("by a socket"))

    await eventually(comes_to_be_seen, "it is seen")
    await until_seen(states, ada, bob)
    await again.disconnect()
    del states[CYD]
    await until_seen(states, ada, bob)
    await cyd.connect()
    await cyd.until(connected=True)
    states[CYD] = shows("by HTTP again")
    for _ in range(9):  # its clocks stand behind those of the socket's client
        await cyd.present(states[CYD])
    await until_seen(states, ada, bob)
