from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from collab.app import GUARD, HUB
from collab.errors import CollabError, DocumentDeleted, StoreRefused, StoreUnavailable
from collab.hub import hub as hub_module
from collab.limits import disks
from collab.limits.memory import Memory
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.records import NewRow
from collab.transports.http import health
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.wsclient import RawClient
from tests.transports.conftest import Serve, Served


async def test_alive_and_ready(serve: Serve) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}/healthz") as response:
            assert response.status == 200
        async with session.get(f"{served.url}/readyz") as response:
            assert response.status == 200
            assert await response.json() == {
                "ready": True,
                "degraded": False,
                "reasons": [],
                "checks": {
                    "server": "ok",
                    "store": "ok",
                    "schema": "ok",
                    "disk": "ok",
                    "audit disk": "ok",
                    "journal": "ok",
                    "memory": "ok",
                    "documents": "ok",
                    "tasks": "ok",
                    "bus": "ok",
                    "clock": "ok",
                },
            }


async def readiness_of(served: Served) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/readyz") as response:
        return response.status, await response.json()


async def test_not_ready_says_what_is_wrong_and_is_alive_all_the_same(serve: Serve) -> None:
    served = await serve()
    hub = served.app[HUB]
    hub.draining = True
    hub.journal.failing = StoreUnavailable("postgresql://user:secret@db is away")
    status, answer = await readiness_of(served)
    assert (status, answer["ready"], answer["degraded"]) == (503, False, False)
    assert answer["checks"]["server"] == "draining"
    assert answer["checks"]["journal"].startswith("retrying")
    assert "secret" not in str(answer)
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/healthz") as response:
        assert response.status == 200


class Shared(MemoryStore):
    """A store that other nodes have too; what a ping does can be chosen."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error


async def test_a_fault_of_a_shared_store_is_told_and_takes_no_node_out(serve: Serve) -> None:
    store = Shared()
    served = await serve(store=store)
    store.error = StoreUnavailable("postgresql://user:secret@db is away")
    status, answer = await readiness_of(served)
    assert (status, answer["ready"], answer["degraded"]) == (200, True, True)
    assert answer["reasons"] == ["store: the store is not available, try again later"]
    served.app[HUB].journal.failing = store.error
    status, answer = await readiness_of(served)
    assert (status, answer["degraded"]) == (200, True)
    assert [reason.partition(":")[0] for reason in answer["reasons"]] == ["store", "journal"]
    store.error = served.app[HUB].journal.failing = None
    assert (await readiness_of(served))[1]["reasons"] == []


async def test_a_fault_of_the_own_store_is_one_of_the_node(serve: Serve) -> None:
    served = await serve()
    served.app[HUB].journal.failing = StoreUnavailable("disk full")
    status, answer = await readiness_of(served)
    assert (status, answer["ready"], answer["degraded"]) == (503, False, False)
    assert answer["reasons"] == ["journal: retrying: 0 bytes wait for the store"]


async def test_a_disk_that_is_nearly_full_is_told_before_it_is(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve()
    monkeypatch.setattr(disks, "LITTLE_DISK", 1 << 62)  # the disk is a real one
    status, answer = await readiness_of(served)
    assert (status, answer["degraded"]) == (200, True)
    assert re.fullmatch(r"disk: \d+ MiB are free", answer["reasons"][0]) and len(answer["reasons"]) == 1


async def test_a_schema_that_is_for_later_releases_only_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SCHEMA_SECONDS", 0.0)
    served = await serve()
    assert (await readiness_of(served))[1]["reasons"] == []
    store = served.app[HUB].store
    path = store._backend.url.path  # type: ignore[attr-defined]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO compatibility (schema, oldest_schema, oldest_release, at) "
                           "VALUES (999, 999, '9.0.0', 0)")  # fmt: skip
    status, answer = await readiness_of(served)
    assert (status, answer["degraded"]) == (200, True)
    assert answer["reasons"] == ["schema: not one that this release can use: collab doctor says which"]


async def test_a_store_that_hangs_keeps_no_probe_waiting(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PING_SECONDS", 1.2)
    store = Shared()
    served = await serve(store=store)
    assert (await readiness_of(served))[1]["reasons"] == []
    store.answers.clear()
    loop = asyncio.get_running_loop()

    async def told() -> bool:
        begun = loop.time()
        statuses = await asyncio.gather(*(readiness_of(served) for _ in range(5)))
        assert loop.time() - begun < 1.0, "Kubernetes gives up after a second"
        assert {status for status, _ in statuses} == {200}
        return statuses[0][1]["reasons"] == ["store: no answer within 1 s"]

    await eventually(told, "a word on the store")
    assert store.pings <= 4, "the probes share one question"
    store.answers.set()
    await eventually(lambda: well(served), "the store answers again")


async def well(served: Served) -> bool:
    return (await readiness_of(served))[1]["reasons"] == []


async def test_a_journal_that_has_failed_is_no_matter_of_the_store(serve: Serve) -> None:
    served = await serve(store=Shared())
    served.app[HUB].journal.broken = True
    status, answer = await readiness_of(served)
    assert (status, answer["reasons"]) == (503, ["journal: has failed by a defect and tries again, see the log"])


async def test_a_commit_that_takes_too_long_and_work_that_has_failed_are_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(store=Shared())
    hub = served.app[HUB]
    hub.tasks.failing["prune"] = "OSError"
    monkeypatch.setattr(Memory, "_read", lambda memory: None)
    served.app[GUARD].limits.memory.unread = "OSError"
    monkeypatch.setattr(type(hub.journal), "stalled", 7.0)
    status, answer = await readiness_of(served)
    assert (status, answer["degraded"]) == (200, True)
    assert answer["reasons"] == [
        "journal: stalled: one commit has been under way for 7 s, 0 bytes wait",
        "memory: cannot be read: OSError",
        "tasks: prune has failed (OSError)",
    ]


async def test_a_document_that_cannot_be_opened_is_counted_and_not_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_DAMAGED_PAUSE", 0.0)  # what is damaged is looked at again at once
    store = Shared()
    served = await serve(store=store)
    hub = served.app[HUB]
    await store.create("private name", rows=[NewRow(b"no update", 1.0)])
    with pytest.raises(CollabError):
        await hub.open("private name")
    status, answer = await readiness_of(served)
    assert (status, answer["ready"], answer["degraded"]) == (200, True, True)
    assert answer["reasons"] == ["documents: 1 cannot be served, see the log"]
    assert "private" not in str(answer)
    await store.delete("private name", 1.0)
    with pytest.raises(DocumentDeleted):
        await hub.open("private name")
    assert await well(served)
    # What the store would not take, until the document is opened again.
    live = await hub.open("other")
    hub.evict(live, StoreRefused("no"))
    assert (await readiness_of(served))[1]["checks"]["documents"] == "1 cannot be served, see the log"
    await hub.open("other")
    assert await well(served)
    monkeypatch.setattr("collab.hub.hub.MAX_TROUBLED", 3)
    monkeypatch.setattr(health, "MAX_TROUBLED", 3)
    for number in range(5):
        hub.evict(await hub.open(f"d{number}"), StoreRefused("no"))
    assert (await readiness_of(served))[1]["checks"]["documents"] == "3 or more cannot be served, see the log"


async def test_a_store_that_is_away_troubles_no_document(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shared()
    served = await serve(store=store)

    async def load(name: str) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "load", load)
    with pytest.raises(StoreUnavailable):
        await served.app[HUB].open("d")
    assert (await readiness_of(served))[1]["checks"]["documents"] == "ok"


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
@pytest.mark.server
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
        assert answer["degraded"] is ready
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

        memory.limit = 1  # any process has more
        await happens(lambda: memory.past_limit, "the look at the memory")
        assert await readiness() == (503, "past memory_limit_bytes")
        memory.limit, memory.mark = 0, 1
        assert await readiness() == (200, "past memory_mark_bytes")
        memory.mark = 0
        assert await readiness() == (200, "ok")
