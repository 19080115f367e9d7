from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collab.app import GUARD, HUB
from collab.errors import StoreUnavailable
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.wsclient import RawClient
from tests.transports.conftest import Serve


async def test_alive_and_ready(serve: Serve) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/healthz") as response:
            assert response.status == 200
        async with session.get(f"{served.url}/readyz") as response:
            assert response.status == 200
            assert await response.json() == {
                "ready": True,
                "checks": {"server": "ok", "store": "ok", "journal": "ok", "memory": "ok"},
            }


async def test_not_ready_says_what_is_wrong_and_is_alive_all_the_same(serve: Serve) -> None:
    served = await serve()
    hub = served.app[HUB]
    hub.stopping = True
    hub.journal.failing = StoreUnavailable("postgresql://user:secret@db is away")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/readyz") as response:
            assert response.status == 503
            answer = await response.json()
            assert answer["ready"] is False
            assert answer["checks"]["server"] == "draining"
            assert answer["checks"]["journal"].startswith("retrying")
            assert "secret" not in await response.text()
        async with session.get(f"{served.url}/healthz") as response:
            assert response.status == 200


# Any process uses more than a byte, and none here uses a TiB.
PAST, FAR = "1", str(1 << 40)


@pytest.mark.parametrize(
    ("mark", "limit", "status", "passed", "meaning", "ready"),
    [
        (PAST, FAR, 200, "memory_mark_bytes", "documents that are not open already are refused", True),
        (FAR, PAST, 503, "memory_limit_bytes", "new connections are refused, editing goes on", False),
        (PAST, PAST, 503, "memory_limit_bytes", "new connections are refused, editing goes on", False),
    ],
)
async def test_short_of_memory_says_so_and_is_not_ready_once_nobody_is_let_in(
    tmp_path: Path, mark: str, limit: str, status: int, passed: str, meaning: str, ready: bool
) -> None:
    options = ("--memory-mark-bytes", mark, "--memory-limit-bytes", limit)
    async with ServerProcess(tmp_path, *options) as server, aiohttp.ClientSession() as session:

        async def looked() -> tuple[int, Any] | None:
            async with session.get(f"{server.url}/readyz") as response:
                answer = await response.json()
                return None if answer["checks"]["memory"] == "ok" else (response.status, answer)

        found, answer = await eventually(looked, "a look at the memory")
        memory = answer["checks"].pop("memory")
        assert memory.startswith(f"past {passed}, ") and memory.endswith(f" MiB in use: {meaning}")
        assert (found, answer["ready"]) == (status, ready)
        assert set(answer["checks"].values()) == {"ok"}, "nothing else is wrong"
        async with session.get(f"{server.url}/healthz") as response:
            assert response.status == 200
        await asyncio.to_thread(server.wait_for_log, lambda line: meaning in line)
        async with RawClient(server.document_url("d")) as client:
            assert await client.expect_close() == 1013
            assert client.close_reason == "the server is short of memory, come back later"


async def test_ready_again_with_the_memory_back(serve: Serve) -> None:
    served = await serve(memory_mark_bytes=0, memory_limit_bytes=0)
    memory = served.app[GUARD].limits.memory
    async with aiohttp.ClientSession() as session:

        async def readiness() -> tuple[int, str]:
            async with session.get(f"{served.url}/readyz") as response:
                return response.status, (await response.json())["checks"]["memory"].partition(",")[0]

        memory._limit = 1  # any process has more
        await happens(lambda: memory.past_limit, "the look at the memory")
        assert await readiness() == (503, "past memory_limit_bytes")
        memory._limit, memory._mark = 0, 1
        assert await readiness() == (200, "past memory_mark_bytes")
        memory._mark = 0
        assert await readiness() == (200, "ok")
