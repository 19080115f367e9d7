"""``kill -9`` right after a call was answered: what was said to be committed is there afterwards."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.author import Author
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.slow]

NAME = "edited"


class Calls:
    """Callers that edit one document, each with words of its own, until the server is gone."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self.numbers = iter(range(1_000_000))
        self.answered: set[str] = set()
        self.tried: set[str] = set()

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._call(session, kind) for kind in ("edit", "edit", "update", "put")))

    async def _call(self, session: aiohttp.ClientSession, kind: str) -> None:
        author = Author(self._random.getrandbits(31))
        while True:
            word = f"<{next(self.numbers)}>"
            self.tried.add(word)
            options: dict[str, Any] = {"headers": {"Content-Type": "application/octet-stream"}}
            if kind == "edit":
                edits = [{"op": "insert", "root": "edits", "at": 0, "text": word}]
                method, resource, options = "PATCH", f"content/{NAME}", {"json": {"edits": edits}}
            elif kind == "update":
                method, resource, options["data"] = "POST", f"updates/{NAME}", author.type(word)
            else:
                method, resource = "PUT", f"content/{NAME}?root={word[1:-1]}"
                options = {"data": word, "headers": {"Content-Type": "text/plain"}}
            try:
                async with session.request(method, f"{self._server.url}/api/v1/{resource}", **options) as response:
                    said = await response.json()
                    assert response.status == 200 and said["committed"], said
                    self.answered.add(word)
            except (aiohttp.ClientError, ConnectionError):
                return


async def stored_words(server: ServerProcess) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/api/v1/content/{NAME}") as response:
        shown: dict[str, str] = await response.json()
        assert response.status == 200, shown
    return [f"<{word}" for value in shown.values() for word in str(value).split("<")[1:]]


async def run(server: ServerProcess, *, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    calls = Calls(server, seed)
    async with server, LiveClient(server.document_url(NAME), keep=True) as typist:
        await typist.until_synced()
        for _ in range(kills):
            before = len(calls.answered)
            calling = asyncio.ensure_future(calls.run())
            while len(calls.answered) < before + 3:  # noqa: ASYNC110 - the callers tell nobody
                typist.text().insert(0, "x")
                await asyncio.sleep(0.005)
            await asyncio.sleep(moments.uniform(0.0, 0.2))
            await server.akill()
            await calling
            await server.astart()
            words = await stored_words(server)
            assert calls.answered <= set(words) <= calls.tried, "what was answered is there, and nothing else"
            assert len(words) == len(set(words)), "and once"


@pytest.mark.timeout(240)
async def test_what_was_answered_survives_a_kill_on_sqlite(tmp_path: Path) -> None:
    await run(ServerProcess(tmp_path, "--idle-seconds", "0.2"), kills=5, seed=1)


@pytest.mark.postgres
@pytest.mark.timeout(240)
async def test_what_was_answered_survives_a_kill_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    await run(ServerProcess(tmp_path, "--idle-seconds", "0.2", database_url=postgres_url), kills=3, seed=2)
