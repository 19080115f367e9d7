"""``/healthz`` and ``/readyz``: is the process alive, and should it get traffic.

Strategy: liveness says nothing of the store, so that an orchestrator does not restart a server that
holds edits for a store which is away. Readiness asks the store each time, with a time limit, and fails
where whoever comes now would be refused: past the second mark of the memory, but not past the first, for
then most still get what they come for, and sending all of them elsewhere would only fill the next server.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from collab.errors import StoreError
from collab.hub.hub import Hub
from collab.transports.memory import Memory

_PING_SECONDS = 2.0

_NO_STORE = {"Cache-Control": "no-store"}


async def healthz(request: web.Request) -> web.Response:
    """Answer 200 while the process can answer at all."""
    return web.json_response({"status": "ok"}, headers=_NO_STORE)


class Readiness:
    """Answer 200 while the store answers, the journal writes and new connections are taken."""

    def __init__(self, hub: Hub, memory: Memory) -> None:
        self._hub = hub
        self._memory = memory

    async def handle(self, request: web.Request) -> web.Response:
        """Answer with JSON: ``ready``, and for each part ``ok`` or what is wrong with it.

        ``memory`` may be wrong while the server is ready.
        """
        checks = {"server": "draining" if self._hub.stopping else "ok", "store": await self._store()}
        failing = self._hub.journal.failing
        if self._hub.journal.full:
            checks["journal"] = f"backlog full: {self._hub.journal.backlog} bytes wait for the store"
        elif failing is not None:
            checks["journal"] = f"retrying: {self._hub.journal.backlog} bytes wait for the store"
        else:
            checks["journal"] = "ok"
        ready = all(check == "ok" for check in checks.values()) and not self._memory.past_limit
        checks["memory"] = self._memory_in_use()
        return web.json_response({"ready": ready, "checks": checks}, status=200 if ready else 503, headers=_NO_STORE)

    def _memory_in_use(self) -> str:
        shortage = self._memory.shortage
        if shortage is None:
            return "ok"
        passed = "memory_limit_bytes" if self._memory.past_limit else "memory_mark_bytes"
        return f"past {passed}, {self._memory.used >> 20} MiB in use: {shortage}"

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._hub.store.ping()
        except TimeoutError:
            return f"no answer within {_PING_SECONDS:.0f} s"
        except StoreError as error:
            return error.public
        return "ok"
