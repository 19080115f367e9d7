"""A document is restored while ten published clients of both protocols type in it, on one server and on two."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from tests.interop.agent import VERSIONS, DocumentClient, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.interop.test_editing import AgentOf, servers
from tests.support.server import ServerProcess

__all__ = ["servers"]

pytestmark = [pytest.mark.server, pytest.mark.slow]

CLIENTS = 10


async def test_ten_clients_type_on_while_a_document_is_restored(
    servers: list[ServerProcess], agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients: list[DocumentClient] = []
    for number in range(CLIENTS):
        server = servers[number // 2 % len(servers)]
        if number % 2:
            version = PROVIDERS[number % len(PROVIDERS)]
            clients.append(await hocuspocus.open(f"h{number}", version, server.hocuspocus_url, name))
        else:
            version = VERSIONS[number // 2 % len(VERSIONS)]
            agent = await agent_of(version)
            clients.append(await agent.open(f"y{number}", version, server.ws_url, name))
    await clients[0].edit("type", text="as it was")
    await converge(clients)
    async with aiohttp.ClientSession() as session:

        async def call(method: str, resource: str, server: ServerProcess, **options: Any) -> Any:
            url = f"{server.url}/api/v1/{resource}/{name}"
            async with session.request(method, url, **options) as response:
                body = await response.json()
                assert response.status == 200, body
                return body

        number = (await call("GET", "attribution", servers[0]))["number"]
        await clients[1].edit("erase", at=0, length=5)
        await clients[2].edit("set", key="k", value={"deep": [1]})
        await converge(clients)

        async def type_on(client: DocumentClient, sign: str) -> None:
            for _ in range(5):
                await client.edit("type", text=sign, at=0)

        *_, done = await asyncio.gather(
            *(type_on(client, str(at)) for at, client in enumerate(clients)),
            call("POST", "restore", servers[-1], json={"number": number}),
        )
        assert done["changed"]
        await asyncio.gather(*(client.edit("type", text=f"<{at}>", at=0) for at, client in enumerate(clients)))
        state = await converge(clients)
        text = "".join(run["insert"] for run in state["text"])
        assert all(f"<{at}>" in text for at in range(CLIENTS)), text
        # What was typed meanwhile stands where its writers saw it, so between what has come back.
        assert re.sub("<[0-9]>|[0-9]", "", text) == "as it was"
        assert state["map"] == {}
        for server in servers:
            shown = await call("GET", "content", server)
            assert shown["text"] == text
