"""Agents, messages and connections over HTTP, with the published clients of both protocols on two nodes.

Strategy: two servers on one PostgreSQL, a y-websocket client on one and a Hocuspocus provider on the other. What they
show of each other is read from the clients; what is asked is asked of the node on which nothing of it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import jwt
import pytest

from collab.engine.agents import agent_id
from tests.interop.agent import Agent, Client
from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.interop.test_comebacks import ADA, BOB, SECRET, shows, token
from tests.support.api import told
from tests.support.server import ServerProcess
from tests.support.valkey import Valkey, running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.timeout(240)]

AgentOf = Callable[[str], Awaitable[Agent]]

NAME = "team/d"
BOT = agent_id(NAME, "app", "bot")


def stamped(turn: int) -> dict[str, Any]:
    """What people see of the agent: the server writes who its user is."""
    return {"user": {"name": "app", "sub": "app"}, "turn": turn}


class Cluster(NamedTuple):
    """Two nodes, with one client on each."""

    one: ServerProcess
    two: ServerProcess
    http: aiohttp.ClientSession
    ada: Client
    bob: Provider

    async def ask(self, node: ServerProcess, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Ask a node as the application; give what it answers."""
        async with self.http.request(method, f"{node.url}/api/v1/{path}", json=body, params=query) as answer:
            assert answer.status < 300, (answer.status, await answer.text())
            return await told(answer)

    async def show(self, node: ServerProcess, turn: int = 0, seconds: float = 600) -> Any:
        return await self.ask(
            node, "PUT", f"presence/{NAME}", {"state": {"turn": turn}, "seconds": seconds}, agent="bot"
        )

    async def until_seen(self, state: Any, *clients: Client | Provider) -> None:
        """Wait until the clients see the agent as this; None stands for gone."""

        async def look() -> bool:
            states = [(await client.state())["states"].get(str(BOT)) for client in clients or (self.ada, self.bob)]
            return all(shown == state for shown in states)

        await eventually(look, f"the agent as {state}")


@pytest.fixture(params=["postgresql", pytest.param("redis", marks=pytest.mark.valkey)])
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, agent_of: AgentOf, hocuspocus: HocuspocusAgent
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        bus: tuple[str, ...] = ()
        if request.param == "redis":
            valkey = Valkey()
            stack.enter_context(running(valkey))
            bus = ("--redis-url", valkey.url)
        one, two = [
            await stack.enter_async_context(
                ServerProcess(
                    tmp_path / name, *bus, database_url=postgres_url, environment={"COLLAB_JWT_SECRET": SECRET}
                )
            )
            for name in ("one", "two")
        ]
        app = {"sub": "app", "documents": {"*": "admin"}, "exp": int(time.time()) + 3_600}
        headers = {"Authorization": f"Bearer {jwt.encode(app, SECRET, algorithm='HS256')}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        agent = await agent_of("3.1")
        ada = await agent.open("ada", "3.1", one.ws_url, NAME, clientID=ADA, params={"token": token("ada")})
        socket = await hocuspocus.socket("4", two.hocuspocus_url)
        bob = await socket.open("bob", NAME, token("bob"), clientID=BOB)
        await ada.edit("type", text="hello")
        for client, name in ((ada, "Ada"), (bob, "Bob")):
            await client.until(synced=True, text=[{"insert": "hello"}])
            await client.present(shows(name))
        yield Cluster(one, two, http, ada, bob)


async def test_an_agent_is_seen_on_all_nodes_until_it_ends(cluster: Cluster, agent_of: AgentOf) -> None:
    one, two = cluster.one, cluster.two
    shown = await cluster.show(one)
    assert shown["client"] == BOT and shown["state"] == stamped(0)
    await cluster.until_seen(stamped(0))
    # Its caller comes to another node each time.
    for turn, node in enumerate((two, one, one, two), 1):
        await cluster.show(node, turn)
        await cluster.until_seen(stamped(turn))
    # A newcomer sees it, and so does one who comes back.
    agent = await agent_of("3.1")
    late = await agent.open("late", "3.1", one.ws_url, NAME, params={"token": token("late")})
    await cluster.until_seen(stamped(4), late)
    await cluster.ada.disconnect()
    await cluster.until_seen(None, cluster.ada)
    await cluster.ada.connect()
    await cluster.until_seen(stamped(4), cluster.ada)
    # Its end is told to a node that does not show it.
    assert await cluster.ask(one, "DELETE", f"presence/{NAME}", agent="bot") == {"ended": True, "silent": []}
    await cluster.until_seen(None, late, cluster.ada, cluster.bob)
    # A lifetime ends by itself.
    await cluster.show(one, 5, seconds=2)
    await cluster.until_seen(stamped(5))
    await cluster.until_seen(None)


async def test_an_agent_goes_with_its_node_and_may_come_back_by_another(cluster: Cluster) -> None:
    await cluster.show(cluster.one, 1)
    await cluster.until_seen(stamped(1))
    await cluster.one.akill()
    await cluster.until_seen(None, cluster.bob)
    await cluster.show(cluster.two, 2)
    await cluster.until_seen(stamped(2), cluster.bob)
    await cluster.one.astart()
    await cluster.until_seen(stamped(2), cluster.ada, cluster.bob)
    # Its clocks rise over the start, too.
    await cluster.show(cluster.one, 3)
    await cluster.until_seen(stamped(3))
    for node in (cluster.two, cluster.one):  # and when every node is started again
        await node.arestart()
    await cluster.show(cluster.one, 4)
    await cluster.until_seen(stamped(4))


@pytest.mark.slow
async def test_clients_do_not_take_an_agent_for_gone(cluster: Cluster) -> None:
    """They drop whoever says nothing for 30 seconds."""
    await cluster.show(cluster.one)
    await cluster.until_seen(stamped(0))
    until = time.monotonic() + 40
    while time.monotonic() < until:
        await asyncio.sleep(1)
        for client in (cluster.ada, cluster.bob):
            assert (await client.state())["states"].get(str(BOT)) == stamped(0)


async def test_who_is_there_is_told_by_every_node(cluster: Cluster) -> None:
    one, two = cluster.one, cluster.two
    await cluster.show(two)
    await cluster.until_seen(stamped(0))

    async def complete() -> Any:
        found = await cluster.ask(one, "GET", f"presence/{NAME}")
        return found if len(found["states"]) == 3 else None

    found = await eventually(complete, "three states")
    assert (await cluster.ask(two, "GET", f"presence/{NAME}"))["silent"] == found["silent"] == []
    people = {person["user"]: person for person in found["participants"]}
    assert {user: (person["name"], person["protocol"], person["clients"]) for user, person in people.items()} == {
        "ada": ("ada", "y-websocket", [ADA]),
        "bob": ("bob", "hocuspocus", [BOB]),
        "app": ("app", "agent", [BOT]),
    }
    assert people["ada"]["node"] != people["bob"]["node"] == people["app"]["node"]
    page = await cluster.ask(two, "GET", "presence", prefix="team/")
    assert [document["name"] for document in page["documents"]] == [NAME] and page["silent"] == []
    assert page["documents"][0]["sessions"] == 3
    for node in (one, two):
        listed = await cluster.ask(node, "GET", "connections")
        assert listed["silent"] == [] and sorted(each["users"] for each in listed["connections"]) == [["ada"], ["bob"]]
    # The node where somebody is, is not the one that is told to end that.
    await cluster.ask(two, "POST", "control", {"action": "kick", "connection": people["ada"]["connection"]})

    async def back() -> bool:
        state = await cluster.ada.state()
        return state["closes"] == [4503] and bool(state["opens"] == 2 and state["synced"])

    await eventually(back, "it was ended, and is back")
    assert (await cluster.bob.state())["closes"] == []
    # A node that has died is named until its heartbeats are missed.
    await cluster.one.akill()
    found = await cluster.ask(two, "GET", f"presence/{NAME}")
    assert [person["user"] for person in found["participants"] if person["agent"] is None] == ["bob"]
    assert found["silent"] == [people["ada"]["node"]]


async def test_a_message_reaches_providers_on_every_node(cluster: Cluster, hocuspocus: HocuspocusAgent) -> None:
    here = await hocuspocus.open("here", "2", cluster.one.hocuspocus_url, NAME, token=token("here"))
    await here.until(synced=True)
    other = await hocuspocus.open("other", "4", cluster.one.hocuspocus_url, "other", token=token("here"))
    await other.until(synced=True)
    for node, text in ((cluster.one, "first ä"), (cluster.two, "second")):
        await cluster.ask(node, "POST", f"messages/{quote(NAME, safe='')}", {"payload": text})
        for provider in (here, cluster.bob):

            async def came(provider: Provider = provider, text: str = text) -> bool:
                return text in (await provider.state())["stateless"]

            await eventually(came, f"{text} has come")
    assert (await other.state())["stateless"] == []
    assert (await cluster.bob.state())["stateless"] == ["first ä", "second"]
