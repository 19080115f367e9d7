"""Y-Sweet's client: its sign of local changes goes out when they are committed, and no sooner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop.agent import GENERATION, Agent, converge
from tests.interop.hocuspocus import HocuspocusAgent
from tests.interop.store import store_away
from tests.interop.ysweet import YSweetAgent, YSweetClient
from tests.support import token_server
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

PARTS = ("text",)
QUIET = ("--keepalive-seconds", "25")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that says nothing of itself, so that the client asks whether it lives."""
    with ServerProcess(tmp_path, *QUIET) as server:
        yield server


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[ServerProcess]:
    """The same with tokens; see tests/support/token_server.py."""
    with ServerProcess(tmp_path, *QUIET, program=(token_server.__file__,)) as server:
        yield server


@pytest_asyncio.fixture
async def ysweet() -> AsyncIterator[YSweetAgent]:
    async with YSweetAgent() as agent:
        yield agent


async def until_heartbeats(client: YSweetClient, count: int) -> None:
    """Wait until the client, which says nothing else, has asked so often again and was answered."""
    before = await client.state()

    async def beaten() -> bool:
        now = await client.state()
        return bool(min(now["asked"] - before["asked"], now["answered"] - before["answered"]) >= count)

    await eventually(beaten, "questions of a client that is idle, and answers")


async def test_the_sign_goes_out_after_the_commit(own_server: ServerProcess, ysweet: YSweetAgent) -> None:
    client = await ysweet.open("a", own_server.ws_url, "plan")
    other = await ysweet.open("b", own_server.ws_url, "plan")
    for one in (client, other):
        await one.until(synced=True, localChanges=False)
    with store_away(own_server):
        await client.edit("type", text="kept")
        await other.until(text=(await client.state())["text"])
        # Longer than the client waits before it takes a server that says nothing for dead.
        await until_heartbeats(client, 2)
        state = await client.state()
        assert (state["localChanges"], state["status"], state["opens"]) == (True, "connected", 1)
        assert not (await other.state())["localChanges"], "it has changed nothing"
    state = await client.until(localChanges=False)
    assert state["signs"][-2:] == [True, False] and state["opens"] == 1
    own_server.restart()  # by SIGKILL
    late = await ysweet.open("c", own_server.ws_url, "plan")
    await late.until(text=state["text"])


async def test_edits_made_before_the_connection_are_saved_with_the_answer_to_the_servers_question(
    own_server: ServerProcess, ysweet: YSweetAgent
) -> None:
    """The client asks about them before it has sent them."""
    first = await ysweet.open("first", own_server.ws_url, "plan")
    await first.until(synced=True)
    client = await ysweet.open("a", own_server.ws_url, "plan", connect=False, content=[["type", {"text": "offline"}]])
    assert (await client.state())["localChanges"]
    with store_away(own_server):
        await client.connect()
        await first.until(text=(await client.state())["text"])
        state = await client.until(synced=True)
        assert state["localChanges"] and state["answered"] == 0
    state = await client.until(localChanges=False)
    assert state["opens"] == 1


async def test_it_edits_with_the_clients_of_the_other_protocols(own_server: ServerProcess, ysweet: YSweetAgent) -> None:
    name = "notes/ä b"
    async with Agent(GENERATION["3.1"]) as agent, HocuspocusAgent() as providers:
        plain = await agent.open("plain", "3.1", own_server.ws_url, name)
        provider = await providers.open("provider", "4", own_server.hocuspocus_url, name)
        client = await ysweet.open("sweet", own_server.ws_url, name)
        clients = [plain, provider, client]
        for one in clients:
            await one.until(synced=True)
            await one.edit("type", text=f"by {one.key} ")
        text = (await converge(clients, PARTS))["text"]
        await client.present({"user": "ada"})
        shown = str((await client.state())["clientID"])

        async def seen() -> bool:
            return (await plain.state())["states"].get(shown) == {"user": "ada"}

        await eventually(seen, "its presence is shown")
        assert (await client.until(localChanges=False))["text"] == text


async def test_what_a_reader_types_is_never_called_saved(readers: ServerProcess, ysweet: YSweetAgent) -> None:
    client = await ysweet.open("a", readers.ws_url, "readers/of this", token="read")
    await client.until(synced=True, localChanges=False)
    await client.edit("type", text="for nobody")
    await until_heartbeats(client, 2)
    state = await client.state()
    assert (state["localChanges"], state["status"], state["opens"]) == (True, "connected", 1)
