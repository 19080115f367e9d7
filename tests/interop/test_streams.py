"""The stock client over plain HTTP: beside the WebSocket clients, through restarts, and where it may not write."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.interop.agent import Agent, converge
from tests.interop.hocuspocus import HocuspocusAgent
from tests.interop.streams import StreamsAgent
from tests.support.node import find_node, installed_packages
from tests.support.server import ServerProcess
from tests.support.snippets import snippet
from tests.support.waiting import eventually

PARTS = ("text", "map", "array")


def text(state: dict[str, Any]) -> str:
    return "".join([part["insert"] for part in state["text"]])


AgentOf = Callable[[str], Awaitable[Agent]]


@pytest_asyncio.fixture
async def streams() -> AsyncIterator[StreamsAgent]:
    async with StreamsAgent() as agent:
        yield agent


@pytest_asyncio.fixture
async def hocuspocus() -> AsyncIterator[HocuspocusAgent]:
    async with HocuspocusAgent() as agent:
        yield agent


async def test_clients_of_all_three_protocols_edit_one_document(
    shared_server: ServerProcess, name: str, streams: StreamsAgent, agent_of: AgentOf, hocuspocus: HocuspocusAgent
) -> None:
    socket = await (await agent_of("3.1")).open("socket", "3.1", shared_server.ws_url, name)
    provider = await hocuspocus.open("provider", "4", shared_server.hocuspocus_url, name)
    await socket.edit("type", text="from a socket ")
    events = await streams.open("events", shared_server.url, name)
    polling = await streams.open("polling", shared_server.url, name, liveMode="long-poll")
    clients = [socket, provider, events, polling]
    for client in (events, polling):
        await client.until(synced=True, connected=True)
    for client in clients:
        await client.edit("type", text=f"{client.key} ")
        await client.edit("set", key=client.key, value=client.key)
    found = await converge(clients, PARTS)
    assert all(f"{client.key} " in text(found) for client in clients) and "from a socket " in text(found)
    for client in (events, polling):
        state = await client.state()
        assert state["errors"] == [] and state["synced"]


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
async def test_a_client_goes_on_after_a_restart(
    own_server: ServerProcess, name: str, streams: StreamsAgent, mode: str
) -> None:
    reader = await streams.open("reader", own_server.url, name, liveMode=mode)
    writer = await streams.open("writer", own_server.url, name, liveMode=mode)
    for client in (reader, writer):
        await client.until(synced=True)
    await writer.edit("type", text="before ")
    await converge([reader, writer], PARTS)
    await own_server.arestart()
    await reader.edit("type", text="after ")
    found = await converge([reader, writer], PARTS)
    assert text(found) in ("before after ", "after before ")


async def test_what_is_typed_after_a_reconnect_is_not_taken_for_a_repeat(
    shared_server: ServerProcess, name: str, streams: StreamsAgent
) -> None:
    # The client's producer begins to count anew, under the same name and epoch.
    writer = await streams.open("writer", shared_server.url, name)
    await writer.until(synced=True)
    for letter in "abc":
        await writer.edit("type", text=letter)
        await writer.flush()
    await writer.disconnect()
    await writer.connect()
    await writer.until(connected=True)
    await writer.edit("type", text="d")
    await writer.flush()
    reader = await streams.open("reader", shared_server.url, name)
    assert sorted(text(await converge([writer, reader], PARTS))) == list("abcd")


async def test_a_client_that_may_only_read_does_not_try_for_ever(
    token_server: ServerProcess, name: str, streams: StreamsAgent
) -> None:
    writer = await streams.open("writer", token_server.url, name, token="write")
    await writer.until(synced=True)
    reader = await streams.open("reader", token_server.url, name, token="read")
    await reader.until(connected=True)
    await reader.edit("type", text="not allowed ")

    async def told() -> bool:
        return bool((await reader.state())["errors"])

    await eventually(told, "the refusal")
    await writer.edit("type", text="allowed ")
    await reader.until(connected=True)

    async def seen() -> bool:
        return "allowed " in text(await reader.state()).replace("not allowed ", "")

    await eventually(seen, "what the writer has typed")
    state = await reader.state()
    assert state["requests"].get("POST 401") == 1 and "POST 403" not in state["requests"]
    assert text(await writer.state()) == "allowed "


async def test_a_client_whose_document_is_deleted_stops(
    shared_server: ServerProcess, name: str, streams: StreamsAgent
) -> None:
    client = await streams.open("client", shared_server.url, name)
    await client.until(synced=True)
    async with aiohttp.ClientSession() as http:
        async with http.delete(f"{shared_server.url}/streams/docs/{name}") as answer:
            assert answer.status == 204
        await client.until(connected=False)
        async with http.head(f"{shared_server.url}/streams/docs/{name}") as answer:
            assert answer.status == 404
    assert (await client.state())["errors"]


def test_the_guide_connects_the_stock_client(shared_server: ServerProcess, name: str, tmp_path: Path) -> None:
    packages = installed_packages()
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    guide = snippet("docs/http-clients.md", "Clients over plain HTTP", "js")
    assert "http://127.0.0.1:1234" in guide and "my-first-document" in guide
    guide = guide.replace("http://127.0.0.1:1234", shared_server.url).replace("my-first-document", name)
    tail = """
provider.once('synced', async () => {
  ydoc.getText('content').insert(0, 'hello')
  await provider.flush()
  process.stdout.write('done', () => process.exit(0))
})
"""
    (tmp_path / "guide.mjs").write_text(guide + tail)
    command = [find_node()[0], "guide.mjs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "done", done.stdout + done.stderr
    with urllib.request.urlopen(f"{shared_server.url}/api/v1/content/{name}?root=content&format=text") as answer:
        assert answer.read() == b"hello"
