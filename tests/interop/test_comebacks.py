"""Published clients that come back: what they and the others see of each other's presence.

Strategy: the crowd (``tests/support/crowd.py``) never renews its states, so what is seen of it was brought about by the
server. Stock clients do renew theirs, after 15 s; that they were asked to before is seen from what they were sent. A
line that hangs stands for a phone that has changed its network: the old socket stays open at the server.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import jwt
import pytest

from tests.interop.agent import VERSIONS, Agent, Client, DocumentClient
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.support import hocuspocus as raw_hocuspocus
from tests.support import wsclient
from tests.support.crowd import Crowd
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient, awareness_entries, step2

AgentOf = Callable[[str], Awaitable[Agent]]
Entry = tuple[int, int, str]

SECRET = "a secret of the tests, long enough for HS256"
MAX = 2**53 - 1
ADA, BOB = 11, 12
CROWD = 294  # and the six published clients


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--no-stamp-users",)  # what people show of themselves is compared
    with ServerProcess(
        tmp_path_factory.mktemp("guarded"), *options, environment={"COLLAB_JWT_SECRET": SECRET}
    ) as server:
        yield server


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without authentication that knows the addresses of its clients."""
    options = ("--insecure", "--behind-proxy", "--trusted-proxies", "127.0.0.1")
    with ServerProcess(tmp_path_factory.mktemp("proxied"), *options) as server:
        yield server


def token(user: str, access: str = "write") -> str:
    claims = {"sub": user, "documents": {"*": access}, "exp": int(time.time()) + 3_600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def shows(name: str) -> dict[str, Any]:
    return {"user": {"name": name}}


async def told(client: DocumentClient) -> list[Entry]:
    """Give all that a client was told of presence, oldest first."""
    entries: list[Entry] = []
    if isinstance(client, Provider):
        for frame in await client.socket.received():
            if frame.type == raw_hocuspocus.AWARENESS:
                assert isinstance(frame.fields[0], bytes)
                entries += awareness_entries(frame.fields[0])
    else:
        assert isinstance(client, Client)
        for data in await client.received():
            plain = wsclient.parse(base64.b64decode(data))
            if plain.type == wsclient.AWARENESS:
                entries += awareness_entries(plain.payload)
    return entries


async def times_asked(client: DocumentClient) -> int:
    """Tell how often a client was made to announce itself anew."""
    own = (await client.state())["clientID"]
    return sum(entry[0] == own and entry[2] == "null" for entry in await told(client))


async def until_seen(client: DocumentClient, states: dict[int, Any]) -> None:
    await client.until(states={str(key): states[key] for key in sorted(states)})


# After a restart


async def test_after_a_restart_everybody_is_complete_for_everybody(
    own_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients: dict[int, DocumentClient] = {}
    for number, version in enumerate(VERSIONS):
        agent = await agent_of(version)
        clients[number] = await agent.open(f"y {number}", version, own_server.ws_url, name, clientID=number + 1)
    for number, version in enumerate(PROVIDERS, len(clients)):
        url = own_server.hocuspocus_url
        clients[number] = await hocuspocus.open(f"h {number}", version, url, name, clientID=number + 1)
    stock = {number + 1: shows(f"stock {number + 1}") for number in clients}
    for number, client in clients.items():
        await client.until(synced=True)
        await client.present(stock[number + 1])
    async with Crowd(own_server.document_url(name), CROWD, more=len(clients)) as crowd:
        # The clients' own clocks have come far enough that the others know them.
        await crowd.until_complete()
        everybody = stock | crowd.shown
        for client in clients.values():
            await until_seen(client, everybody)
        own_server.kill()
        await own_server.astart()
        await crowd.until_complete()
        for client in clients.values():
            await until_seen(client, everybody)
        assert {person.clock for person in crowd.people} == {3}, "asked after the start and after the restart"


# After a line was down


async def come_back(
    leave: Callable[[], Awaitable[None]], back: DocumentClient, idle: DocumentClient, crowd: Crowd
) -> None:
    """Let a client lose its line and come back, while the others say nothing; none of them is shown to flicker."""
    everybody = {ADA: shows("Ada"), BOB: shows("Bob")} | crowd.shown
    for client, name in ((back, "Ada"), (idle, "Bob")):
        await client.until(synced=True)
        await client.present(shows(name))
    await crowd.until_complete()
    for client in (back, idle):
        await until_seen(client, everybody)
    asked = await times_asked(idle)
    heard = {client: len(await told(client)) for client in (back, idle)}
    await leave()
    await until_seen(back, everybody)
    await until_seen(idle, everybody)
    await crowd.until_complete()
    assert await times_asked(idle) == asked + 1, "it has not waited for its own renewal"
    gone = {client for client, _, state in (await told(idle))[heard[idle] :] if state == "null"}
    assert gone <= {ADA, BOB}, "of the others nobody was gone for a moment, and itself it cannot see go"
    assert {person.removed for person in crowd.people} <= {0, 1}


@pytest.mark.parametrize("version", VERSIONS)
async def test_idle_people_are_seen_at_once_by_who_comes_back_over_y_websocket(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    back = await agent.open("ada", version, shared_server.ws_url, name, clientID=ADA)
    idle = await agent.open("bob", version, shared_server.ws_url, name, clientID=BOB)

    async def leave() -> None:
        await back.vanish()
        await back.until(connected=False)
        await until_seen(back, {ADA: shows("Ada")})
        await back.connect()

    async with Crowd(shared_server.document_url(name), 5, more=2) as crowd:
        await come_back(leave, back, idle, crowd)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_idle_people_are_seen_at_once_by_who_comes_back_over_hocuspocus(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    back = await hocuspocus.open("ada", version, url, name, clientID=ADA)
    idle = await hocuspocus.open("bob", version, url, name, clientID=BOB)

    async def leave() -> None:
        opens = (await back.state())["opens"]
        await back.socket.cut()
        await back.until(opens=opens + 1, synced=True)

    async with Crowd(shared_server.document_url(name), 5, more=2) as crowd:
        await come_back(leave, back, idle, crowd)


# After a change of network


async def change_network(
    line: SlowLine, reconnect: Callable[[], Awaitable[None]], back: DocumentClient, idle: DocumentClient
) -> None:
    """Let a client's line hang and the client come on a new one: the other sees it move, and never without it."""
    both = {ADA: shows("Ada"), BOB: shows("Bob")}
    for client, name in ((back, "Ada"), (idle, "Bob")):
        await client.until(synced=True)
        await client.present(shows(name))
    for client in (back, idle):
        await until_seen(client, both)
    heard, asked = len(await told(idle)), await times_asked(idle)
    line.hang()
    await reconnect()
    await until_seen(back, both)
    await back.present(shows("Ada moves"))
    await until_seen(idle, both | {ADA: shows("Ada moves")})
    assert await times_asked(idle) == asked + 1
    assert (ADA, "null") not in {(client, state) for client, _, state in (await told(idle))[heard:]}


def of_line(url: str, server: ServerProcess, line: SlowLine) -> str:
    return url.replace(str(server.port), str(line.port))


@pytest.mark.parametrize("known", [True, False], ids=["with authentication", "by its address"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_change_of_network_freezes_no_cursor_over_y_websocket(
    guarded: ServerProcess, proxied: ServerProcess, agent_of: AgentOf, name: str, version: str, known: bool
) -> None:
    server = guarded if known else proxied
    agent = await agent_of(version)

    def who(user: str, address: str) -> dict[str, Any]:
        return {"params": {"token": token(user)}} if known else {"headers": {"X-Forwarded-For": address}}

    with SlowLine(server.port) as line:
        url = of_line(server.ws_url, server, line)
        back = await agent.open("ada", version, url, name, clientID=ADA, **who("ada", "192.0.2.1"))
        idle = await agent.open("bob", version, server.ws_url, name, clientID=BOB, **who("bob", "192.0.2.2"))

        async def reconnect() -> None:
            await back.vanish()
            await back.until(connected=False)
            await back.connect()
            await back.until(synced=True)

        await change_network(line, reconnect, back, idle)


@pytest.mark.parametrize("known", [True, False], ids=["with authentication", "by its address"])
@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_change_of_network_freezes_no_cursor_over_hocuspocus(
    guarded: ServerProcess, proxied: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str, known: bool
) -> None:
    server = guarded if known else proxied
    with SlowLine(server.port) as line:
        url = of_line(server.hocuspocus_url, server, line)
        clients: list[Provider] = []
        for key, number, address, at in (
            ("ada", ADA, "192.0.2.1", url),
            ("bob", BOB, "192.0.2.2", server.hocuspocus_url),
        ):
            headers = {} if known else {"X-Forwarded-For": address}
            socket = await hocuspocus.socket(version, at, headers=headers)
            clients.append(await socket.open(key, name, token(key) if known else None, clientID=number))
        back, idle = clients

        async def reconnect() -> None:
            opens = (await back.state())["opens"]
            await back.socket.cut()
            await back.until(opens=opens + 1, synced=True)

        await change_network(line, reconnect, back, idle)


# Nobody shuts a published client out


async def shown(watcher: RawClient) -> dict[int, tuple[int, str]]:
    await watcher.barrier()
    return states_of(watcher.frames)


def states_of(frames: Sequence[bytes]) -> dict[int, tuple[int, str]]:
    states: dict[int, tuple[int, str]] = {}
    for frame in map(wsclient.parse, frames):
        if frame.type == wsclient.AWARENESS:
            states |= {client: (clock, state) for client, clock, state in awareness_entries(frame.payload)}
    return states


def all_states(frames: Sequence[bytes]) -> set[str]:
    found = [frame for frame in map(wsclient.parse, frames) if frame.type == wsclient.AWARENESS]
    return {state for frame in found for _, _, state in awareness_entries(frame.payload)}


async def shut_out(
    server: ServerProcess,
    name: str,
    writer: DocumentClient,
    vanish: Callable[[], Awaitable[None]],
    reconnect: Callable[[], Awaitable[None]],
) -> None:
    """Claim a writer's ID, as a reader over both protocols, while its line is down."""
    url = f"{server.document_url(name)}?token="
    guest = token("guest", "read")
    async with RawClient(url + token("watcher")) as watcher:
        await watcher.send(step2(wsclient.EMPTY_UPDATE))
        await writer.until(synced=True)
        await writer.present(shows("writer"))

        async def state_is(part: str) -> bool:
            return part in (await shown(watcher)).get(ADA, (0, ""))[1]

        await eventually(lambda: state_is('"writer"'), "the writer is shown")
        await vanish()
        await eventually(lambda: state_is("null"), "it is gone")
        async with RawClient(url + guest) as reader, RawHocuspocus(server.hocuspocus_url) as other:
            assert await other.join(name, guest) == "readonly"
            for clock in (2**31, MAX):
                await reader.send(wsclient.awareness((ADA, clock, '"guest"')))
                await other.send(raw_hocuspocus.awareness(name, (ADA, clock, '"guest"')))
            await reader.barrier()
            await other.find_type(name, raw_hocuspocus.STATELESS)
            await reconnect()
            await writer.edit("push", values=["edited"])
            await eventually(lambda: state_is('"writer"'), "the writer is shown again")
            # While it is there, too.
            await reader.send(wsclient.awareness((ADA, MAX, '"guest"')), wsclient.awareness((ADA, MAX, "null")))
            await other.send(raw_hocuspocus.awareness(name, (ADA, MAX, '"guest"')))
            await reader.barrier()
            await writer.present({"moves": True})
            await eventually(lambda: state_is('"moves"'), "it goes on")
        await watcher.expect(
            lambda frame: frame.type == wsclient.SYNC and b"edited" in frame.payload, "what it has edited"
        )
        assert not any("guest" in state for state in all_states(watcher.frames))
    state = await writer.state()
    assert 1007 not in state["closes"] and state["opens"] == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_reader_shuts_no_writer_out_over_y_websocket(
    guarded: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    params = {"token": token("writer")}
    writer = await agent.open("writer", version, guarded.ws_url, name, clientID=ADA, params=params)

    async def reconnect() -> None:
        await writer.connect()
        await writer.until(synced=True)

    await shut_out(guarded, name, writer, writer.vanish, reconnect)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_reader_shuts_no_writer_out_over_hocuspocus(
    guarded: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, guarded.hocuspocus_url)
    writer = await socket.open("writer", name, token("writer"), clientID=ADA)

    async def reconnect() -> None:
        await socket.connect()
        await writer.until(synced=True, unsaved=False)

    await shut_out(guarded, name, writer, socket.disconnect, reconnect)
    await writer.until(unsaved=False)
