"""Old copies of both protocols that come back by either of two nodes, to a document that was reset or created again.

Strategy: five clients of each protocol have seen the document and are offline, some with edits that the server never
got. Three of five have closed their tab: what they had is on their disk, where the real y-indexeddb has put it. No
client shows itself, and no server asks whether its clients live. So when all show the same, one edit more is one
message to the two servers, and nothing else is sent: a client that loops would be counted.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, Protocol

import aiohttp
import pytest
import pytest_asyncio

from tests.interop.agent import VERSIONS, Agent, DocumentClient, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.interop.test_reset import VISIBLE, call
from tests.support.postgres import TEMPLATE, PostgresServer
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.xdist_group("reset on two nodes")]

AgentOf = Callable[[str], Awaitable[Agent]]

MESSAGES = re.compile(r"^collab_received_messages_total\{[^}]*\} (\d+)", re.MULTILINE)


class Nodes(NamedTuple):
    """Two servers on one database, and a line that leads to the first one until it is turned."""

    one: ServerProcess
    two: ServerProcess
    line: SlowLine

    async def count_messages(self, session: aiohttp.ClientSession) -> int:
        """Count the WebSocket messages that both have got."""
        count = 0
        for server in (self.one, self.two):
            async with session.get(f"{server.url}/metrics") as response:
                count += sum(map(int, MESSAGES.findall(await response.text())))
        return count


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers for all tests here, which have documents of their own."""
    database = postgres_server.create_database(template=TEMPLATE)
    one, two = [
        ServerProcess(
            tmp_path_factory.mktemp(name), "--ping-seconds", "300", database_url=postgres_server.url(database)
        )
        for name in ("one", "two")
    ]
    with one, two:
        yield one, two
    postgres_server.drop_database(database)


@pytest.fixture
def nodes(servers: tuple[ServerProcess, ServerProcess]) -> Iterator[Nodes]:
    one, two = servers
    with SlowLine(one.port) as line:
        yield Nodes(one, two, line)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Clients(Protocol):
    """How clients of a protocol are opened, and go offline and come back."""

    key: str

    async def open(self, key: str, port: int, **more: Any) -> DocumentClient: ...

    async def go(self, client: DocumentClient) -> None: ...

    async def come(self, client: DocumentClient) -> None: ...

    async def close(self, client: DocumentClient) -> None: ...


class YWebsocket:
    """Clients of y-websocket."""

    key = "y-websocket"

    def __init__(self, agent: Agent, name: str) -> None:
        self._agent = agent
        self._name = name

    async def open(self, key: str, port: int, **more: Any) -> DocumentClient:
        key = f"{self.key} {key}"
        return await self._agent.open(
            key, VERSIONS[1], f"ws://127.0.0.1:{port}/ws", self._name, awareness="null", **more
        )

    async def go(self, client: DocumentClient) -> None:
        await self._agent.ask("disconnect", key=client.key)

    async def come(self, client: DocumentClient) -> None:
        await self._agent.ask("connect", key=client.key)

    async def close(self, client: DocumentClient) -> None:
        await self._agent.ask("close", key=client.key)


class Hocuspocus:
    """Providers of Hocuspocus, each with a socket of its own."""

    key = "hocuspocus"

    def __init__(self, agent: HocuspocusAgent, name: str) -> None:
        self._agent = agent
        self._name = name

    async def open(self, key: str, port: int, **more: Any) -> DocumentClient:
        address = f"ws://127.0.0.1:{port}/hocuspocus"
        key = f"{self.key} {key}"
        return await self._agent.open(key, PROVIDERS[-1], address, self._name, awareness="null", **more)

    async def go(self, client: DocumentClient) -> None:
        assert isinstance(client, Provider)
        await client.socket.disconnect()

    async def come(self, client: DocumentClient) -> None:
        assert isinstance(client, Provider)
        await client.socket.connect()

    async def close(self, client: DocumentClient) -> None:
        assert isinstance(client, Provider)
        await client.destroy()
        await client.socket.destroy()


@pytest_asyncio.fixture
async def protocols(agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str) -> list[Clients]:
    return [YWebsocket(await agent_of(VERSIONS[1]), name), Hocuspocus(hocuspocus, name)]


class Old(NamedTuple):
    """A client that has gone: its tab, or None if that is closed, and the name of its disk."""

    clients: Clients
    tab: DocumentClient | None
    disk: str


async def go_offline(nodes: Nodes, protocols: list[Clients]) -> list[Old]:
    """Let five clients of each protocol see a document and go; two of each edit offline, three close their tabs."""
    opened = [
        (clients, number, await clients.open(f"old {number}", nodes.line.port, disk=f"{clients.key} {number}"))
        for clients in protocols
        for number in range(5)
    ]
    everybody = [client for _, _, client in opened]
    for client in everybody:
        await client.until(synced=True)
    for client in (everybody[0], everybody[-1]):
        await client.edit("tagged", word="seen")
        await converge(everybody)
    old = []
    for clients, number, client in opened:
        await clients.go(client)
        if number in (1, 3):
            await client.edit("tagged", word="lost")
            await client.edit("type", text="lost", at=0)
        if number >= 2:
            await clients.close(client)
        old.append(Old(clients, client if number < 2 else None, f"{clients.key} {number}"))
    return old


async def come_back(nodes: Nodes, old: list[Old]) -> list[DocumentClient]:
    """Let all return: open tabs by the other node, closed ones by both; of two protocols one reads its disk late."""
    nodes.line.target = nodes.two.port
    back = []
    for number, (clients, tab, disk) in enumerate(old):
        port = (nodes.one, nodes.two)[number % 2].port
        if tab is not None:
            await clients.come(tab)
        elif disk.endswith("4"):
            # As in a page where y-indexeddb has not read yet when the provider has synced.
            tab = await clients.open("late", port)
            await tab.until(synced=True)
            await tab.keep_on(disk)
        else:
            tab = await clients.open(disk, port, disk=disk)
        back.append(tab)
    for client in back:
        await client.until(synced=True)
    return back


def shown(state: dict[str, Any]) -> str:
    return repr([state[part] for part in VISIBLE])


async def until_quiet(nodes: Nodes, session: aiohttp.ClientSession, everybody: list[DocumentClient]) -> str:
    """Wait until all show the same and are quiet; return what they show.

    Each edit of one of them is one message and no answer, and nobody has connected again.
    """
    await converge(everybody)
    opens = [(await client.state())["opens"] for client in everybody]
    for client in (everybody[0], everybody[-1]):
        before = await nodes.count_messages(session)
        await client.edit("push", values=["typed"])
        state = await converge(everybody)
        assert await nodes.count_messages(session) == before + 1
    assert [(await client.state())["opens"] for client in everybody] == opens
    return shown(state)


async def shown_from_disk(agent: Agent, old: list[Old]) -> set[str]:
    """Tell what the disks of the agent's clients show by now without any server."""
    found = set()
    for disk in [each.disk for each in old if each.disk.startswith(YWebsocket.key)]:
        alone = await agent.open(f"{disk} alone", disk=disk)
        found.add(shown(await alone.state()))
    return found


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
async def test_old_copies_come_back_by_two_nodes_after_a_reset(
    nodes: Nodes, protocols: list[Clients], session: aiohttp.ClientSession, name: str, agent_of: AgentOf, strict: bool
) -> None:
    agent = await agent_of(VERSIONS[1])
    online = [
        await clients.open(f"online {server.port}", server.port)
        for clients in protocols
        for server in (nodes.one, nodes.two)
    ]
    old = await go_offline(nodes, protocols)
    maker = await agent.open("maker", content=[["tagged", {"word": "fresh"}]])
    await call(session, "POST", f"{nodes.one.url}/api/v1/reset/{name}", update=await maker.encode(), strict=strict)

    async def is_fresh() -> bool:
        states = [shown(await client.state()) for client in online]
        return all("fresh" in state and "seen" not in state for state in states)

    await eventually(is_fresh, "the new content, on both nodes")
    await online[1].edit("tagged", word="late")
    back = await come_back(nodes, old)
    newcomer = await protocols[0].open("newcomer", nodes.two.port)
    found = await until_quiet(nodes, session, [*online, *back, newcomer])
    assert "seen" not in found and "fresh" in found and "late" in found and found.count("typed") == 2
    assert ("lost" in found) == (not strict)
    assert await shown_from_disk(agent, old) == {found}


async def test_old_copies_come_back_by_two_nodes_after_a_new_creation(
    nodes: Nodes, protocols: list[Clients], session: aiohttp.ClientSession, name: str, agent_of: AgentOf
) -> None:
    agent = await agent_of(VERSIONS[1])
    old = await go_offline(nodes, protocols)
    maker = await agent.open("maker", content=[["tagged", {"word": "fresh"}]])
    content = await maker.encode()
    for server, other in ((nodes.one, nodes.two), (nodes.two, nodes.one)):
        await call(session, "DELETE", f"{server.url}/api/v1/documents/{name}?erase=true")
        await call(session, "POST", f"{other.url}/api/v1/documents", name=name, update=content)
    back = await come_back(nodes, old)
    newcomer = await protocols[1].open("newcomer", nodes.one.port)
    found = await until_quiet(nodes, session, [*back, newcomer])
    assert "seen" not in found and "fresh" in found and found.count("typed") == 2
    assert await shown_from_disk(agent, old) == {found}
