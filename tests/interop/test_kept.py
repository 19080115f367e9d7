"""Published clients whose document holds pending structs of an author who is gone: saved, kept, and taken in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.interop.agent import VERSIONS, Agent
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, until_saved
from tests.support.gone import Gone
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient, update

AgentOf = Callable[[str], Awaitable[Agent]]


async def send(server: ServerProcess, name: str, data: bytes) -> None:
    """Send an update, and wait until the server has taken it."""
    async with RawClient(server.document_url(name)) as client:
        await client.send(update(data))
        await client.barrier()


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_provider_with_pending_structs_is_told_that_its_edits_are_saved(
    own_server: ServerProcess, hocuspocus: HocuspocusAgent, version: str
) -> None:
    gone = Gone(root="text")
    holder = await hocuspocus.open("holder", version, own_server.hocuspocus_url, "d")
    await until_saved(holder)
    await holder.apply(gone.rest)
    await holder.edit("type", text="a")
    await until_saved(holder)
    for letter in "bc":
        # When it comes back, its answer to the server's question holds what is pending, too.
        opens = (await holder.state())["opens"]
        await holder.socket.cut()
        await holder.edit("type", text=letter)
        await holder.until(opens=opens + 1)
        state = await until_saved(holder)
        assert state["failures"] == []
    await holder.socket.destroy()
    await asyncio.to_thread(own_server.kill)
    await asyncio.to_thread(own_server.start)
    reader = await hocuspocus.open("reader", version, own_server.hocuspocus_url, "d")
    state = await until_saved(reader)
    await reader.until(text=[{"insert": "abc"}])
    await reader.edit("push", values=["mine"])
    await until_saved(reader)
    await send(own_server, "d", gone.missing)

    async def shown() -> bool:
        text = "".join(part["insert"] for part in (await reader.state())["text"])
        return gone.whole in text and "abc" in text

    await eventually(shown, "what was kept is there", 20.0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_a_y_websocket_client_held_is_there_when_the_rest_comes(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    gone = Gone(root="text")
    agent = await agent_of(version)
    holder = await agent.open(f"holder {name}", version, shared_server.ws_url, name)
    await holder.until(synced=True)
    await holder.disconnect()
    await holder.apply(gone.rest)
    await holder.edit("push", values=["mine"])
    await holder.connect()
    reader = await agent.open(f"reader {name}", version, shared_server.ws_url, name)
    await reader.until(array=["mine"], text=[])
    await holder.close()
    await send(shared_server, name, gone.missing)
    await reader.until(array=["mine"], text=[{"insert": gone.whole}])
