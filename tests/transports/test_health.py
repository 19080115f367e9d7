from __future__ import annotations

import aiohttp

from collab.app import HUB
from collab.errors import StoreUnavailable
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
                "checks": {"server": "ok", "store": "ok", "journal": "ok"},
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
