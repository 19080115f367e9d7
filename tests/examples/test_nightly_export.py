"""The export, of documents that npm clients have made and have open."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.examples.conftest import run_example
from tests.interop.agent import Agent
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = [pytest.mark.node, pytest.mark.server]


async def test_what_people_have_open_is_written(tmp_path: Path, agent_of: AgentOf) -> None:
    async with ServerProcess(tmp_path / "server") as server:
        agent = await agent_of("3.1")
        for number in range(3):
            client = await agent.open(f"client {number}", "3.1", server.ws_url, f"notes/ä.{number}")
            await client.until(synced=True)
            await client.edit("set", key="number", value=number)
        async with (
            aiohttp.ClientSession() as http,
            http.put(
                f"{server.url}/api/v1/content/article?root=default",
                data="# Hello\n\nworld\n",
                headers={"Content-Type": "text/markdown"},
            ) as answer,
        ):
            assert answer.status == 200
        target = tmp_path / "backup"
        assert await run_example("nightly-export/export.py", server.url, str(target)) == (
            "4 written, 0 as before, 0 failed\n"
        )
        assert (target / "article.md").read_text(encoding="utf-8").strip() == "# Hello\n\nworld"
        for number in range(3):
            file = target / f"notes%2F%C3%A4%2E{number}.json"
            assert json.loads(file.read_text(encoding="utf-8"))["map"] == {"number": number}
        await client.edit("set", key="number", value=17)

        async def arrived() -> bool:
            address = f"{server.url}/api/v1/content/notes%2F%C3%A4.2?root=map"
            headers = {"Accept": "application/json"}
            async with aiohttp.ClientSession() as http, http.get(address, headers=headers) as answer:
                return answer.status == 200 and await answer.json() == {"number": 17}

        await eventually(arrived, "the edit, at the server")
        assert await run_example("nightly-export/export.py", server.url, str(target)) == (
            "1 written, 3 as before, 0 failed\n"
        )
