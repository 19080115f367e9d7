"""A damaged document and published clients: it is held or closed, others go on, and who still holds it heals it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.stored import SqliteLog
from tests.interop.agent import VERSIONS, Agent
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually

AgentOf = Callable[[str], Awaitable[Agent]]

TEXT = [{"insert": "still held by its author"}]
MORE = [{"insert": "others go on"}]


@pytest.fixture
def server(tmp_path: Path) -> Any:
    # Nothing leaves memory, so nothing is covered by a snapshot.
    with ServerProcess(tmp_path, "--idle-seconds", "600", "--keepalive-seconds", "2") as server:
        yield server


async def until_rows(server: ServerProcess, *names: str) -> None:
    async def look() -> bool:
        rows = SqliteLog(server.data_dir / "collab.db").rows()
        return all(name in rows for name in names)

    await eventually(look, "the rows in the log")


def damage(server: ServerProcess, name: str) -> None:
    connection = sqlite3.connect(server.data_dir / "collab.db")
    changed = "UPDATE log SET data = CAST(substr(data, 1, 6) || X'ff' AS BLOB) WHERE document_id = "
    cursor = connection.execute(changed + "(SELECT id FROM documents WHERE name = ?)", (name.encode(),))
    assert cursor.rowcount == 1
    connection.commit()
    connection.close()


async def command(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(collab_command, "documents", *arguments, "--data-dir", str(server.data_dir))
    return done.returncode, done.stdout + done.stderr


async def damaged_while_down(server: ServerProcess, name: str, *others: str) -> None:
    await until_rows(server, name, *others)
    assert await server.aterminate() == 0
    damage(server, name)
    await asyncio.to_thread(server.start)


async def told_and_repaired(server: ServerProcess, name: str) -> None:
    """What the operator sees and does."""
    line = await asyncio.to_thread(server.wait_for_log, lambda line: "ERROR" in line and f"'{name}'" in line)
    assert "row 1 of its log is damaged" in line and f"collab documents repair {name}" in line
    code, said = await command(server, "verify")
    assert code == 1 and f"{name}: row 1 is damaged" in said
    code, said = await command(server, "repair", name)
    assert code == 0, said


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_damaged_document_over_y_websocket(server: ServerProcess, agent_of: AgentOf, version: str) -> None:
    agent = await agent_of(version)
    author = await agent.open("author", version, server.ws_url, "d")
    other = await agent.open("other", version, server.ws_url, "other")
    await author.edit("type", text=TEXT[0]["insert"])
    await other.edit("type", text="others")
    await damaged_while_down(server, "d", "other")
    await other.until(connected=True, synced=True)
    await other.edit("type", text=" go on")
    joiner = await agent.open("joiner", version, server.ws_url, "other")
    await joiner.until(synced=True, text=MORE)
    await told_and_repaired(server, "d")
    await author.until(connected=True, synced=True, text=TEXT)
    codes = set((await author.state())["closes"])
    assert 1013 in codes and codes <= {1012, 1013, 1006}, "never told that it is at fault, nor that it should stop"
    late = await agent.open("late", version, server.ws_url, "d")
    await late.until(synced=True, text=TEXT)
    await other.until(synced=True, text=MORE)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_damaged_document_over_hocuspocus(
    server: ServerProcess, hocuspocus: HocuspocusAgent, version: str
) -> None:
    socket = await hocuspocus.socket(version, server.hocuspocus_url)
    author = await socket.open("author", "d")
    other = await socket.open("other", "other")
    await author.edit("type", text=TEXT[0]["insert"])
    await other.edit("type", text="others")
    await damaged_while_down(server, "d", "other")
    await other.until(synced=True, unsynced=0)
    await other.edit("type", text=" go on")
    joiner = await hocuspocus.open("joiner", version, server.hocuspocus_url, "other")
    await joiner.until(synced=True, text=MORE)
    await told_and_repaired(server, "d")
    state = await author.until(synced=True, unsynced=0, text=TEXT)
    assert not state["events"].get("authenticationFailed"), "which no provider tries again"
    late = await hocuspocus.open("late", version, server.hocuspocus_url, "d")
    await late.until(synced=True, text=TEXT)
    await other.until(synced=True, unsynced=0, text=MORE)
