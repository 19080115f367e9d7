"""``kill -9`` while a document is restored again and again: it is one of its states then, and no history is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.slow]

NAME = "restored"
STATES = ("first state", "another one", "and a third")


class Api:
    def __init__(self, server: ServerProcess, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def call(self, method: str, resource: str, **options: Any) -> Any:
        async with self._session.request(method, f"{self._server.url}/api/v1/{resource}", **options) as response:
            body = await response.json()
            assert response.status == 200, body
            return body

    async def text(self) -> str:
        shown: dict[str, str] = await self.call("GET", f"content/{NAME}")
        return shown["text"]

    async def attribution(self) -> Any:
        return await self.call("GET", f"attribution/{NAME}")

    async def restore(self, number: int) -> Any:
        return await self.call("POST", f"restore/{NAME}", json={"number": number})


async def restore_on(api: Api, numbers: dict[str, int], choose: random.Random, done: list[int]) -> None:
    """Restore states until the server is gone."""
    while True:
        try:
            done.append((await api.restore(choose.choice([*numbers.values()])))["number"])
        except (aiohttp.ClientError, ConnectionError):
            return


async def kill_while_restoring(server: ServerProcess) -> None:
    """Kill a server while it restores, and look at what is there afterwards."""
    choose = random.Random(1)
    async with server, aiohttp.ClientSession() as session:
        api, numbers = Api(server, session), {}
        async with LiveClient(server.document_url(NAME)) as client:
            await client.until_synced()
            for state in STATES:
                del client.text()[:]
                client.text().insert(0, state)
                await client.barrier()
                numbers[state] = (await api.attribution())["number"]
        before = await api.attribution()
        for _ in range(3):
            done: list[int] = []
            restoring = asyncio.ensure_future(restore_on(api, numbers, choose, done))
            while len(done) < 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
            await asyncio.sleep(choose.uniform(0.0, 0.1))
            await server.akill()
            await restoring
            await server.astart()
            assert await api.text() in STATES, "a restore is there as a whole or not at all"
            found = await api.attribution()
            assert found["number"] >= max(done), "what was answered is there"
            assert {str(one) for one in before["inserted"]} <= {str(one) for one in found["inserted"]}
        for state, number in numbers.items():
            await api.restore(number)
            assert await api.text() == state


@pytest.mark.timeout(240)
async def test_a_kill_while_restoring_leaves_one_of_the_states_and_the_whole_history(tmp_path: Path) -> None:
    await kill_while_restoring(ServerProcess(tmp_path, "--idle-seconds", "0.2"))


@pytest.mark.postgres
@pytest.mark.timeout(240)
async def test_a_kill_while_restoring_loses_nothing_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    await kill_while_restoring(ServerProcess(tmp_path, "--idle-seconds", "0.2", database_url=postgres_url))
