"""The agent improves a paragraph while people have the document open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.examples.conftest import run_example
from tests.interop.agent import Agent
from tests.interop.hocuspocus import HocuspocusAgent
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = [pytest.mark.node, pytest.mark.server]

ARTICLE = "# News\n\nthis is is  a sentence\n\nThis one is good.\n"


async def test_people_see_it_and_its_edit(
    shared_server: ServerProcess, agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    address = f"{shared_server.url}/api/v1/content/{name}?root=xml"
    async with aiohttp.ClientSession() as http:
        async with http.put(address, data=ARTICLE, headers={"Content-Type": "text/markdown"}) as answer:
            assert answer.status == 200, await answer.text()
        ada = await (await agent_of("3.1")).open("ada", "3.1", shared_server.ws_url, name)
        bob = await hocuspocus.open("bob", "4", shared_server.hocuspocus_url, name)
        await ada.until(synced=True)
        await bob.until(synced=True)
        program = asyncio.create_task(
            run_example("agent/agent.py", shared_server.url, name, "--root", "xml", "--stay", "1")
        )
        seen: list[dict[str, Any]] = []

        async def with_cursor() -> bool:
            for client in (ada, bob):
                states = (await client.state())["states"]
                found = [one for one in states.values() if "Copy editor" in str(one) and "item" in str(one)]
                if not found:
                    return False
                seen.extend(found)
            return True

        await eventually(with_cursor, "the agent with its cursor, for both")
        assert await program == "saved: This is a sentence.\n"
        for client in (ada, bob):
            state = await client.state()
            assert "This is a sentence." in state["xml"] and "This one is good." in state["xml"]

            async def gone(client: Any = client) -> bool:
                return "Copy editor" not in str((await client.state())["states"])

            await eventually(gone, "the agent has left")
        again = await run_example("agent/agent.py", shared_server.url, name, "--root", "xml")
        assert again == "every paragraph is good\n"
    assert seen[0]["cursor"]["anchor"]["item"]["clock"] >= 0
