"""Old copies of published clients that come back to a document that was reset, or deleted and created again.

On two nodes and PostgreSQL: test_reset_nodes.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.interop.agent import VERSIONS, Agent, Client, DocumentClient, NodeAgent, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

AgentOf = Callable[[str], Awaitable[Agent]]

# Another generation of Yjs shows some values in its own way: see test_content.
VISIBLE = ("text", "map", "array", "xml")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@dataclass
class Clients:
    """How clients of one version of a provider are made, and made to go."""

    agent: NodeAgent
    connect: Callable[..., Awaitable[DocumentClient]]

    async def go(self, client: DocumentClient) -> None:
        await (client.disconnect() if isinstance(client, Client) else _socket(client).disconnect())

    async def come(self, client: DocumentClient) -> None:
        await (client.connect() if isinstance(client, Client) else _socket(client).connect())


def _socket(client: DocumentClient) -> Any:
    assert isinstance(client, Provider)
    return client.socket


@pytest.fixture(params=[*(f"y-websocket {v}" for v in VERSIONS), *(f"hocuspocus {v}" for v in PROVIDERS)])
async def clients(
    request: pytest.FixtureRequest,
    shared_server: ServerProcess,
    agent_of: AgentOf,
    hocuspocus: HocuspocusAgent,
    name: str,
) -> Clients:
    protocol, version = request.param.split()
    if protocol == "y-websocket":
        agent = await agent_of(version)

        async def open_client(key: str, **more: Any) -> DocumentClient:
            return await agent.open(key, version, shared_server.ws_url, name, **more)

        return Clients(agent, open_client)

    async def open_provider(key: str, **more: Any) -> DocumentClient:
        return await hocuspocus.open(key, version, shared_server.hocuspocus_url, name, **more)

    return Clients(hocuspocus, open_provider)


async def call(session: aiohttp.ClientSession, method: str, url: str, **body: Any) -> None:
    async with session.request(method, url, json=body or None) as response:
        assert response.status in (200, 201, 204), (url, response.status, await response.text())


async def five_go_offline(clients: Clients) -> list[tuple[DocumentClient, str]]:
    """Let five clients see a document and go; two of them edit offline. Give each with its local copy."""
    old = []
    for number in range(5):
        client = await clients.connect(f"old {number}")
        await client.until(synced=True)
        old.append(client)
        await client.edit("tagged", word="seen")
    await converge(old)
    found = []
    for number, client in enumerate(old):
        await clients.go(client)
        if number in (1, 3):
            await client.edit("tagged", word="lost")
            await client.edit("type", text="lost", at=0)
        found.append((client, await client.encode()))
    return found


async def come_back(clients: Clients, old: list[tuple[DocumentClient, str]]) -> list[DocumentClient]:
    """Let them return: two in the tabs that they had, two from their disk, and one whose disk is read late."""
    back = []
    for number, (client, copy) in enumerate(old):
        if number < 2:
            await clients.come(client)
            back.append(client)
        elif number < 4:
            back.append(await clients.connect(f"new {number}", copy=copy))
        else:
            late = await clients.connect(f"new {number}")
            await late.until(synced=True)
            await late.apply(base64.b64decode(copy))
            back.append(late)
    for client in back:
        await client.until(synced=True)
    return back


def shown(state: dict[str, Any]) -> str:
    return repr([state[part] for part in VISIBLE])


async def until_quiet(clients: Clients, one: DocumentClient, everybody: list[DocumentClient]) -> str:
    """Wait until all show the same, and go on doing so when one of them edits; return that."""
    await converge(everybody)
    await one.edit("type", text="typed ", at=0)
    state = await converge(everybody)
    seen = [await each.state() for each in everybody]
    again = [await each.state() for each in everybody]
    assert [each.get("opens") for each in seen] == [each.get("opens") for each in again]
    return shown(state)


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
async def test_old_copies_that_come_back_after_a_reset(
    shared_server: ServerProcess,
    clients: Clients,
    session: aiohttp.ClientSession,
    name: str,
    agent_of: AgentOf,
    strict: bool,
) -> None:
    online = [await clients.connect(f"online {number}") for number in range(2)]
    for client in online:
        await client.until(synced=True)
        await client.edit("tagged", word="seen")
    old = await five_go_offline(clients)
    await converge(online)
    maker = await (await agent_of("3.1")).open("maker", content=[["tagged", {"word": "fresh"}]])
    content = await maker.encode()
    await call(session, "POST", f"{shared_server.url}/api/v1/reset/{name}", update=content, strict=strict)

    async def is_fresh() -> bool:
        states = [await client.state() for client in online]
        return all("fresh" in shown(state) and "seen" not in shown(state) for state in states)

    await eventually(is_fresh, "the new content")
    await online[0].edit("tagged", word="late")
    back = await come_back(clients, old)
    newcomer = await clients.connect("newcomer")
    await newcomer.until(synced=True)
    found = await until_quiet(clients, online[1], [*online, *back, newcomer])
    assert "seen" not in found and "fresh" in found and "late" in found and "typed" in found
    assert ("lost" in found) == (not strict)


async def test_old_copies_that_come_back_after_a_new_creation(
    shared_server: ServerProcess, clients: Clients, session: aiohttp.ClientSession, name: str, agent_of: AgentOf
) -> None:
    old = await five_go_offline(clients)
    maker = await (await agent_of("3.1")).open("maker", content=[["tagged", {"word": "fresh"}]])
    for _ in range(2):
        await call(session, "DELETE", f"{shared_server.url}/api/v1/documents/{name}")
        await call(session, "POST", f"{shared_server.url}/api/v1/documents", name=name)
        await call(session, "POST", f"{shared_server.url}/api/v1/reset/{name}", update=await maker.encode())
    back = await come_back(clients, old)
    newcomer = await clients.connect("newcomer")
    await newcomer.until(synced=True)
    found = await until_quiet(clients, newcomer, [*back, newcomer])
    assert "seen" not in found and "fresh" in found and "typed" in found
