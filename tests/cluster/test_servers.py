"""Two servers on one PostgreSQL, over each bus: what is done at one of them is seen at the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.support import hocuspocus, wsclient
from tests.support.author import Author
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess, collab_command
from tests.support.valkey import Valkey, running
from tests.support.waiting import eventually
from tests.support.wsclient import AWARENESS, LiveClient, RawClient, awareness_entries, converge

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey]


class Nodes:
    """Two servers and the way between them."""

    def __init__(self, tmp_path: Path, database_url: str, valkey: Valkey | None) -> None:
        bus = () if valkey is None else ("--redis-url", valkey.url)
        self.bus = bus
        self.valkey = valkey
        self.database_url = database_url
        self.one, self.two = [
            ServerProcess(tmp_path / name, *bus, database_url=database_url) for name in ("one", "two")
        ]


@pytest.fixture(params=["postgresql", "redis"])
def way(request: pytest.FixtureRequest) -> Iterator[Valkey | None]:
    with ExitStack() as stack:
        valkey = None
        if request.param == "redis":
            valkey = Valkey()
            stack.enter_context(running(valkey))
        yield valkey


@pytest.fixture
async def nodes(tmp_path: Path, postgres_url: str, way: Valkey | None) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path, postgres_url, way)
    async with nodes.one, nodes.two:
        yield nodes


def text_of(client: LiveClient) -> str:
    return str(client.text())


def states(client: RawClient) -> dict[int, tuple[int, str]]:
    """Give the newest awareness entries that a client was sent."""
    found: dict[int, tuple[int, str]] = {}
    for data in client.frames:
        frame = wsclient.parse(data)
        if frame.type == AWARENESS:
            for number, clock, state in awareness_entries(frame.payload):
                found[number] = (clock, state)
    return found


async def test_edits_travel_both_ways(nodes: Nodes) -> None:
    clients = [LiveClient(server.document_url("d")) for server in (nodes.one, nodes.two) for _ in range(2)]
    for client in clients:
        await client.connect()
        await client.until_synced()
    for number in range(30):
        for client in clients:
            client.text().insert(0, f"{number % 10}")
        await asyncio.sleep(0.01)
    await converge(clients, lambda client: len(text_of(client)), 120)
    await converge(clients, text_of, text_of(clients[0]))
    # One that comes later, on either node, has everything.
    for server in (nodes.one, nodes.two):
        async with LiveClient(server.document_url("d")) as late:
            await converge([late], text_of, text_of(clients[0]))
    for client in clients:
        await client.close()


async def test_a_large_edit_travels(nodes: Nodes) -> None:
    writer, reader = LiveClient(nodes.one.document_url("d")), LiveClient(nodes.two.document_url("d"))
    for client in (writer, reader):
        await client.connect()
        await client.until_synced()
    for size in (3_000, 10_000, 100_000, 1_000_000):
        writer.text().insert(0, "x" * size)
        await converge([reader], lambda client: len(text_of(client)), len(text_of(writer)))
    for client in (writer, reader):
        await client.close()


async def test_presence_is_complete_on_both_and_goes_with_its_client(nodes: Nodes) -> None:
    ada = await RawClient(nodes.one.document_url("d")).connect()
    await ada.send(wsclient.awareness((1, 1, '{"name":"Ada"}')))
    await ada.barrier()
    bob = await RawClient(nodes.two.document_url("d")).connect()
    await bob.until(lambda: states(bob) == {1: (1, '{"name":"Ada"}')}, "who was there before")
    await bob.send(wsclient.awareness((2, 1, '{"name":"Bob"}')))
    await ada.until(lambda: states(ada).get(2) == (1, '{"name":"Bob"}'), "who comes")
    for clock in range(2, 50):
        await ada.send(wsclient.awareness((1, clock, json.dumps({"x": clock}))))
    await bob.until(lambda: states(bob)[1] == (49, '{"x": 49}'), "the last of many moves")
    carol = await RawClient(nodes.one.document_url("d")).connect()
    await carol.until(lambda: set(states(carol)) == {1, 2}, "those of both nodes")
    await bob.close()
    await ada.until(lambda: states(ada)[2][1] == "null", "who leaves")
    await carol.until(lambda: states(carol)[2][1] == "null", "who leaves")
    for client in (ada, carol):
        await client.close()


async def test_presence_of_a_node_that_dies_goes_and_comes_back_with_it(nodes: Nodes) -> None:
    ada = await RawClient(nodes.one.document_url("d")).connect()
    bob = await RawClient(nodes.two.document_url("d")).connect()
    await bob.send(wsclient.awareness((2, 1, '{"name":"Bob"}')))
    await ada.until(lambda: states(ada).get(2) == (1, '{"name":"Bob"}'), "he is there")
    nodes.two.kill()
    await ada.until(lambda: states(ada)[2][1] == "null", "he has gone", seconds=30)
    await bob.close()
    await asyncio.to_thread(nodes.two.start)
    bob = await RawClient(nodes.two.document_url("d")).connect()
    await bob.send(wsclient.awareness((2, 2, '{"name":"Bob"}')))
    await ada.until(lambda: states(ada)[2] == (2, '{"name":"Bob"}'), "he is back")
    for client in (ada, bob):
        await client.close()


async def test_stateless_messages_reach_all_nodes(nodes: Nodes) -> None:
    one, two = RawHocuspocus(nodes.one.hocuspocus_url), RawHocuspocus(nodes.two.hocuspocus_url)
    for client in (one, two):
        await client.connect()
        await client.join("d")
    # At most once: a message that is sent before the nodes know of each other's subscription is lost.
    await one.send(hocuspocus.awareness("d", (1, 1, '{"name":"Ada"}')))
    await two.until(lambda: any(b"Ada" in data for data in two.frames), "the nodes know each other")
    await one.send(hocuspocus.stateless("d", "hello"))
    await two.until(lambda: any(b"hello" in data for data in two.frames), "the message")
    for client in (one, two):
        await client.close()


@pytest.mark.parametrize("by", ["the other node", "a command"])
async def test_a_document_that_is_deleted_ends_everywhere(nodes: Nodes, by: str) -> None:
    writer = await LiveClient(nodes.one.document_url("d")).connect()
    await writer.until_synced()
    writer.text().insert(0, "x")
    reader = RawClient(nodes.two.document_url("d"))
    await reader.connect()
    await reader.send(wsclient.step1())
    await reader.until(lambda: any(b"x" in data for data in reader.frames), "it is there")
    if by == "a command":
        options = ("--database-url", nodes.database_url, *nodes.bus)
        done = await asyncio.to_thread(collab_command, "documents", "delete", "d", *options)
        assert done.returncode == 0, done.stderr
    else:
        async with aiohttp.ClientSession() as http, http.delete(f"{nodes.one.url}/api/v1/documents/d") as answer:
            assert answer.status == 204
    assert await reader.expect_close() == 4404
    await reader.close()
    await writer.close()


@pytest.mark.parametrize("way", ["redis"], indirect=True)
async def test_without_the_bus_edits_arrive_a_little_later(nodes: Nodes) -> None:
    assert nodes.valkey is not None
    clients = [await LiveClient(server.document_url("d")).connect() for server in (nodes.one, nodes.two)]
    for client in clients:
        await client.until_synced()
    clients[0].text().insert(0, "before ")
    await converge(clients, text_of, "before ")
    nodes.valkey.kill()
    for number, client in enumerate(clients):
        client.text().insert(0, f"{number} ")
        await converge(clients, text_of, text_of(client))
    for server in (nodes.one, nodes.two):
        await asyncio.to_thread(server.wait_for_log, lambda line: "the bus on Redis is down" in line)
    nodes.valkey.start()
    for server in (nodes.one, nodes.two):
        await asyncio.to_thread(server.wait_for_log, lambda line: "the bus on Redis is up" in line)
    clients[1].text().insert(0, "after ")
    await converge(clients, text_of, text_of(clients[1]))
    for client in clients:
        await client.close()


async def test_clients_of_a_node_that_stops_go_on_at_the_other(nodes: Nodes) -> None:
    writer = await LiveClient(nodes.one.document_url("d")).connect()
    await writer.until_synced()
    for number in range(20):
        writer.text().insert(0, f"{number}.")
    client = RawClient(nodes.one.document_url("d"))
    await client.connect()
    author = Author(77)
    await client.send(wsclient.update(author.type("last")))
    await client.barrier()

    async def there() -> bool:
        async with LiveClient(nodes.two.document_url("d")) as reader:
            await reader.until_synced()
            return text_of(reader) == text_of(writer)

    await eventually(there, "all of it on the other node")
    assert await nodes.one.aterminate() == 0
    async with LiveClient(nodes.two.document_url("d")) as reader:
        await converge([reader], text_of, text_of(writer))
    await client.close()
    await writer.close()
