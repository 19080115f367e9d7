"""``/healthz`` and ``/readyz``: is the process alive, and should it get traffic.

Strategy: liveness says nothing of the store, so that an orchestrator does not restart a server that holds edits for a
store which is away. Readiness fails only where another node would do better: this one is stopping, is past the second
mark of its memory, its journal has failed, or its own disk fails. A store that all nodes share is away for all of them.
If that failed, an orchestrator would take every node out at once, and clients that reconnect would reach nothing,
though rooms in memory work. So it is told as ``degraded``, as is what concerns one document.

The store is asked beside the answers, one question at a time: a probe gets its answer soon, however long the store
takes, and probes cannot use up the store's connections.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, runtime_checkable

from aiohttp import web

from collab.errors import SchemaError, StoreError
from collab.hub.hub import MAX_TROUBLED, Hub
from collab.hub.tasks import Tasks
from collab.limits.disks import AUDIT, DATABASE, Disks
from collab.limits.memory import Memory

# Seconds after which a store that has not answered counts as away.
_PING_SECONDS = 5.0

# Seconds for which an answer waits for the store: a probe of Kubernetes gives up after one by default, and then a store
# that is only slow would take out all nodes.
_ANSWER_SECONDS = 0.5

# Seconds for which it is known whether the schema is this release's: it changes with migrations and restored backups.
_SCHEMA_SECONDS = 10.0

_NO_STORE = {"Cache-Control": "no-store"}


async def healthz(request: web.Request) -> web.Response:
    """Answer 200 while the process can answer at all."""
    return web.json_response({"status": "ok"}, headers=_NO_STORE)


@runtime_checkable
class HasSchema(Protocol):
    """A store on a schema that releases may know or not."""

    async def check_schema(self) -> None:
        """Raise ``SchemaError`` unless this release may use it."""


class Readiness:
    """Answer 200 while new clients are as well off here as on another node.

    Args:
        hub: this node.
        memory: what it uses.
        own_store: the store is this node's alone, as a file is.
        sockets: what runs beside the sockets.
        disks: those that this server writes to.
    """

    def __init__(
        self, hub: Hub, memory: Memory, sockets: Tasks, *, own_store: bool, disks: Disks | None = None
    ) -> None:
        self._hub = hub
        self._memory = memory
        self._background = (hub.tasks, sockets)
        self._own_store = own_store
        self._asking: asyncio.Task[None] | None = None
        self._disks = Disks({}) if disks is None else disks
        self._schema_asked = float("-inf")
        self._schema_state = "ok"
        self._store_state = "ok"  # as it was when it was asked last; it has been opened before anybody asks

    async def handle(self, request: web.Request) -> web.Response:
        """Answer with JSON; see ``look``."""
        answer = await self.look()
        return web.json_response(answer, status=200 if answer["ready"] else 503, headers=_NO_STORE)

    async def look(self) -> dict[str, Any]:
        """Say how this node is.

        ``ready`` goes with the status; ``degraded`` says that it serves, and that something is wrong all the same;
        ``reasons`` are what is wrong, and ``checks`` has for each part ``ok`` or the same text.
        """
        journal = self._hub.journal
        checks = {
            "server": "draining" if self._hub.draining or self._hub.stopping else "ok",
            "store": await self._store(),
            "schema": self._schema_state,
            "disk": self._disks.state(DATABASE),
            "audit disk": self._disks.state(AUDIT),
            "journal": self._journal(),
            "memory": self._memory_in_use(),
            "documents": self._documents(),
            "tasks": self._tasks(),
            "bus": self._hub.bus.trouble or "ok",
            "clock": self._hub.membership.clock_is_wrong or "ok",
        }
        failing = self._own_store and not checks["store"] == checks["journal"] == "ok"
        ready = not (checks["server"] != "ok" or journal.broken or self._memory.past_limit or failing)
        reasons = [f"{part}: {state}" for part, state in checks.items() if state != "ok"]
        healing = self._hub.healing
        if healing.times:  # over, and nothing to be mended: no reason
            checks["database"] = f"went back {healing.times} times, {healing.documents} documents were written again"
        return {"ready": ready, "degraded": ready and bool(reasons), "reasons": reasons, "checks": checks}

    def _journal(self) -> str:
        journal = self._hub.journal
        if journal.broken:
            return "has failed by a defect and tries again, see the log"
        if journal.full:
            return f"backlog full: {journal.backlog} bytes wait for the store"
        if journal.failing is not None:
            return f"retrying: {journal.backlog} bytes wait for the store"
        if (seconds := journal.stalled) is not None:
            return f"stalled: one commit has been under way for {seconds:.0f} s, {journal.backlog} bytes wait"
        return "ok"

    def _tasks(self) -> str:
        """Say which background work has failed and starts again; it names no document."""
        failing = {name: error for tasks in self._background for name, error in tasks.failing.items()}
        return ", ".join(f"{name} has failed ({error})" for name, error in failing.items()) or "ok"

    def _memory_in_use(self) -> str:
        shortage = self._memory.shortage
        if shortage is None:
            return "ok" if self._memory.unread is None else f"cannot be read: {self._memory.unread}"
        passed = "memory_limit_bytes" if self._memory.past_limit else "memory_mark_bytes"
        return f"past {passed}, {self._memory.used >> 20} MiB in use: {shortage}"

    def _documents(self) -> str:
        # No names: anybody may ask.
        number = len(self._hub.troubled)
        if not number:
            return "ok"
        return f"{number}{' or more' if number >= MAX_TROUBLED else ''} cannot be served, see the log"

    async def _store(self) -> str:
        if self._hub.stopping:
            return self._store_state
        if self._asking is None:
            self._asking = self._hub.tasks.spawn(self._ask(), "asking the store")
        # The answer may be of a question that another probe has asked.
        await asyncio.wait({self._asking}, timeout=_ANSWER_SECONDS)
        return self._store_state

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._disks.look()
                await self._hub.store.ping()
                await self._look_at_schema()
        except TimeoutError:
            self._store_state = f"no answer within {_PING_SECONDS:.0f} s"
        except StoreError as error:
            self._store_state = error.public
        else:
            self._store_state = "ok"
        finally:
            self._asking = None

    async def _look_at_schema(self) -> None:
        store, now = self._hub.store, self._hub.now()
        if not isinstance(store, HasSchema) or now - self._schema_asked < _SCHEMA_SECONDS:
            return
        try:
            await store.check_schema()
        except SchemaError:
            # Its text names the database, and anybody may ask.
            self._schema_state = "not one that this release can use: collab doctor says which"
        else:
            self._schema_state = "ok"
        self._schema_asked = now
