"""``/healthz`` and ``/readyz``: is the process alive, and should it get traffic.

Strategy: liveness says nothing of the store, so that an orchestrator does not restart a server that
holds edits for a store which is away. Readiness asks the store each time, with a time limit.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from collab.errors import StoreError
from collab.hub.hub import Hub

_PING_SECONDS = 2.0

_NO_STORE = {"Cache-Control": "no-store"}


async def healthz(request: web.Request) -> web.Response:
    """Answer 200 while the process can answer at all."""
    return web.json_response({"status": "ok"}, headers=_NO_STORE)


class Readiness:
    """Answer 200 while the store answers, the journal writes and the server is not draining."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def handle(self, request: web.Request) -> web.Response:
        """Answer with JSON: ``ready``, and for each part ``ok`` or what is wrong with it."""
        checks = {"server": "draining" if self._hub.stopping else "ok", "store": await self._store()}
        failing = self._hub.journal.failing
        if self._hub.journal.full:
            checks["journal"] = f"backlog full: {self._hub.journal.backlog} bytes wait for the store"
        elif failing is not None:
            checks["journal"] = f"retrying: {self._hub.journal.backlog} bytes wait for the store"
        else:
            checks["journal"] = "ok"
        ready = all(check == "ok" for check in checks.values())
        return web.json_response({"ready": ready, "checks": checks}, status=200 if ready else 503, headers=_NO_STORE)

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._hub.store.ping()
        except TimeoutError:
            return f"no answer within {_PING_SECONDS:.0f} s"
        except StoreError as error:
            return error.public
        return "ok"
