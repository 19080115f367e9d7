"""The Python client in one document with the published clients of both protocols, all versions of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from pycrdt import Array, Map, Text

from collab.client import Backoff, Connection
from tests.interop.agent import VERSIONS, Agent, DocumentClient, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.support.server import ServerProcess
from tests.support.waiting import happens

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = pytest.mark.server


async def open_all(
    server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> list[DocumentClient]:
    clients: list[DocumentClient] = []
    for version in VERSIONS:
        agent = await agent_of(version)
        clients.append(await agent.open(f"y{version}", version, server.ws_url, name))
    for version in PROVIDERS:
        clients.append(await hocuspocus.open(f"h{version}", version, server.hocuspocus_url, name))
    for client in clients:
        await client.until(synced=True)
    return clients


async def test_all_write_at_the_same_time_and_everybody_has_everything(
    shared_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients = await open_all(shared_server, agent_of, hocuspocus, name)
    async with Connection(shared_server.hocuspocus_url) as connection:
        document = await connection.open(name)
        text, words = document.doc.get("text", type=Text), document.doc.get("array", type=Array)
        settings = document.doc.get("map", type=Map)

        async def type_here() -> None:
            for number in range(20):
                text.insert(0, f"python {number} ä😀 ")
                words.append(f"python {number}")
                settings[f"python {number % 3}"] = {"n": number}
                await asyncio.sleep(0.005)

        async def type_there(client: DocumentClient) -> None:
            for number in range(5):
                await client.edit("push", values=[f"{client.key} {number}"])
                await client.edit("keystrokes", text=f" {client.key}")
            await client.edit("formats")

        await asyncio.gather(type_here(), *map(type_there, clients))
        await document.wait_saved()
        state = await converge(clients)
        shown = "".join(run["insert"] if isinstance(run["insert"], str) else "\ufffc" for run in state["text"])
        wanted = {f"python {number}" for number in range(20)}
        wanted |= {f"{client.key} {number}" for client in clients for number in range(5)}
        assert set(state["array"]) == wanted and len(state["array"]) == len(wanted)
        await happens(lambda: len(words) == len(wanted), "all of it in Python")
        await happens(lambda: len(str(text)) >= len(shown) - len(clients) * 2, "the text in Python")
        assert document.read_json("array") == state["array"]
        assert document.read_json("map") == state["map"]
        # What a library shows of embeds differs; the server's own reading of the text is the judge.
        async with (
            aiohttp.ClientSession() as http,
            http.get(
                f"{shared_server.url}/api/v1/content/{name}?root=text", headers={"Accept": "text/plain"}
            ) as answer,
        ):
            assert await answer.text() == document.read_text("text")


async def test_presence_and_stateless_messages(
    shared_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients = await open_all(shared_server, agent_of, hocuspocus, name)
    async with Connection(shared_server.hocuspocus_url) as connection:
        document = await connection.open(name)
        heard: list[str] = []
        document.on("stateless", heard.append)
        document.awareness.set({"user": {"name": "Python", "color": "#3776ab"}})
        for client in clients:
            await client.present({"name": client.key})
        names = {"Python", *(client.key for client in clients)}

        def shown(states: object) -> set[str]:
            values = states.values() if isinstance(states, dict) else []
            return {str(one.get("name") or one.get("user", {}).get("name")) for one in values if isinstance(one, dict)}

        await happens(lambda: shown(dict(document.awareness.states)) == names, "everybody in Python")
        provider = await hocuspocus.open("speaker", "4", shared_server.hocuspocus_url, name)
        await provider.until(synced=True)
        await provider.send_stateless("from node")
        await happens(lambda: heard == ["from node"], "the message")
        await document.send_stateless("from python")
        await provider.until(stateless=["from python"])


async def test_offline_edits_of_both_sides_meet(
    own_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients = await open_all(own_server, agent_of, hocuspocus, name)
    async with Connection(own_server.hocuspocus_url, backoff=Backoff(first=0.05, last=0.5)) as connection:
        document = await connection.open(name)
        await own_server.akill()
        words = document.doc.get("array", type=Array)
        words.append("python")
        for client in clients:
            await client.edit("push", values=[client.key])
        await own_server.astart()
        await document.wait_saved()
        state = await converge(clients)
        assert set(state["array"]) == {"python", *(client.key for client in clients)}
        await happens(lambda: document.read_json("array") == state["array"], "all of it in Python")


async def test_a_reset_reaches_the_client_and_its_old_copies(
    own_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    provider = await hocuspocus.open("h4", "4", own_server.hocuspocus_url, name)
    await provider.until(synced=True)
    await provider.edit("type", text="old ")
    async with Connection(own_server.hocuspocus_url, backoff=Backoff(first=0.05, last=0.5)) as connection:
        document = await connection.open(name)
        text = document.doc.get("text", type=Text)
        text.insert(len(str(text).encode()), "content")
        await document.wait_saved()
        async with Connection(own_server.hocuspocus_url) as other:
            copy = (await other.open(name)).doc
            # It is not in sync any more, and edits on.
        copy.get("text", type=Text).insert(0, "offline ")
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{own_server.url}/api/v1/reset/{name}", json={}) as answer,
        ):
            assert answer.status < 300, await answer.text()
        await provider.until(text=[])
        await happens(lambda: str(text) == "", "nothing of the old content")
        async with Connection(own_server.hocuspocus_url) as other:
            back = await other.open(name, doc=copy)
            await back.wait_saved()
        state = await converge([provider])
        await happens(lambda: document.read_text("text") == back.read_text("text"), "both copies show the same")
        assert "content" not in document.read_text("text")
        assert "".join(run["insert"] for run in state["text"]) == document.read_text("text")
