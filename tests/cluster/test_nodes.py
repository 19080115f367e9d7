"""The servers on one PostgreSQL as the command line lists them, and what they compare of each other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cluster.two_writers import metrics
from tests.support.server import ServerFailed, ServerProcess, collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.timeout(240)]

SECRET = {"COLLAB_JWT_SECRET": "a secret of thirty-two characters"}


async def listed(database_url: str) -> list[dict[str, Any]]:
    done = await asyncio.to_thread(collab_command, "nodes", "--json", "--database-url", database_url)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_servers_are_listed_until_they_end(tmp_path: Path, postgres_url: str) -> None:
    one = ServerProcess(tmp_path / "one", database_url=postgres_url)
    two = ServerProcess(tmp_path / "two", "--max-document-bytes", "1048576", database_url=postgres_url)
    async with one, two, LiveClient(one.document_url("d")) as client:
        await client.until_synced()
        client.text().insert(0, "x")

        async def shown() -> list[dict[str, Any]] | None:
            nodes = await listed(postgres_url)
            complete = [node for node in nodes if node["address"] in (one.url, two.url)]
            return nodes if len(complete) == 2 and nodes[0]["connections"] == 1 else None

        first, second = await eventually(shown, "both, with what they have open")
        assert (first["address"], first["documents"], first["connections"]) == (one.url, 1, 1)
        assert (second["address"], second["documents"], second["connections"]) == (two.url, 0, 0)
        for node in (first, second):
            assert node["alive"] and node["bus"] == "postgresql" and node["version"] and node["silent_seconds"] < 20
        done = await asyncio.to_thread(collab_command, "nodes", "--database-url", postgres_url)
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["STATE", "alive", "alive"]

        async def counted() -> bool:
            return (await metrics(one))["collab_nodes"] == 2

        await eventually(counted, "the metric")
        # Both say what differs, with both values.
        for server, here, there in ((one, "268435456", "1048576"), (two, "1048576", "268435456")):
            said = f"max_document_bytes is {here} here and {there} on the node"
            await asyncio.to_thread(server.wait_for_log, lambda line, said=said: " WARNING " in line and said in line)
        assert await two.aterminate() == 0
        assert [node["address"] for node in await listed(postgres_url)] == [one.url], "a clean stop is a goodbye"
        await one.akill()
        assert [node["address"] for node in await listed(postgres_url)] == [one.url]
        database = await asyncpg.connect(postgres_url)
        await database.execute("UPDATE nodes SET beat_at = beat_at - 30")
        await database.close()
        (gone,) = await listed(postgres_url)
        assert not gone["alive"] and gone["silent_seconds"] > 20


async def test_a_server_that_would_let_everybody_in_does_not_start_beside_one_that_does_not(
    tmp_path: Path, postgres_url: str
) -> None:
    closed = ServerProcess(tmp_path / "one", database_url=postgres_url, environment=SECRET)
    opened = ServerProcess(tmp_path / "two", database_url=postgres_url)
    async with closed:
        with pytest.raises(ServerFailed) as caught:
            await opened.astart()
        assert "on the same database asks clients who they are (tokens)" in str(caught.value)
        assert "set the same authentication here" in str(caught.value)
        assert "Traceback" not in str(caught.value)
        (left,) = await listed(postgres_url)
        assert left["alive"]
        assert await closed.aterminate() == 0
    # When all have stopped it may be given up. On the way back nobody has to stop.
    async with opened, closed:
        await asyncio.to_thread(
            opened.wait_for_log, lambda line: "authentication is none here and tokens on the node" in line
        )
