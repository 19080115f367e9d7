"""Published clients on slow lines: large documents arrive, once, and nothing is shown that never was.

Strategy: everything is scaled down by three: a watchdog of 10 s instead of 30 (``tests/node/hasty.mjs``), and a server
that takes a third for large (``tests/support/hasty_server.py``). A client that were sent these documents in one message
would close its socket before they could have arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pycrdt import Doc, Text

from tests.interop.agent import GENERATION, VERSIONS, Agent, DocumentClient
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.support import hasty_server, wsclient
from tests.support.node import PACKAGES
from tests.support.server import ServerProcess, collab_command
from tests.support.throttle import SlowLine

# Bytes a second of the line; 22 s for the documents.
RATE = 60_000
EDIT = 20_000
EDITS = 65

# One at a time: two dozen clients in real time are as much as two cores hold.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("slow lines")]


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.setenv("NODE_OPTIONS", f"--import {PACKAGES / 'hasty.mjs'}")
    script = hasty_server.__file__
    with ServerProcess(tmp_path, "--keepalive-seconds", "2", program=(script,)) as server:
        yield server


class Writer:
    """A client on a fast line, which types into the root text ``text``."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.back: Doc[Any] = Doc()
        """What has come back: in one message, or in pieces where the machine was busy and the line counted as slow."""
        self.updates: list[bytes] = []
        self.doc.observe(lambda event: self.updates.append(event.update))

    async def type(self, edits: int, size: int = EDIT) -> None:
        """Make so many edits and wait until each has come back."""
        async with self._session.ws_connect(self._url, max_msg_size=0) as socket:
            await socket.send_bytes(wsclient.step2(wsclient.EMPTY_UPDATE))
            for _ in range(edits):
                self.text += f"{len(self.text):09} " + "lorem ipsum " * (size // 12)
                await socket.send_bytes(wsclient.update(self.updates.pop()))
                while str(self.back.get("text", type=Text)) != str(self.text):
                    frame = wsclient.parse((await socket.receive(30)).data)
                    if frame.type == wsclient.SYNC and frame.kind != wsclient.STEP1:
                        self.back.apply_update(frame.payload)


async def watch(client: DocumentClient, shown: set[int]) -> None:
    """Look at what a client shows until it is in sync."""
    async with asyncio.timeout(90):
        while True:
            progress = await client.progress()
            shown.add(progress["length"])
            if progress["synced"]:
                assert progress["opens"] == 1, client.key
                return
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def clients(line: SlowLine, *names: str) -> Any:
    """Connect a client of every version to each of the documents."""
    async with contextlib.AsyncExitStack() as stack:
        agents = {one: await stack.enter_async_context(Agent(one)) for one in sorted(set(GENERATION.values()))}
        hocuspocus = await stack.enter_async_context(HocuspocusAgent())
        opened: dict[str, list[DocumentClient]] = {name: [] for name in names}
        for name in names:
            for version in VERSIONS:
                url = f"ws://127.0.0.1:{line.port}/ws"
                opened[name].append(await agents[GENERATION[version]].open(f"{version} {name}", version, url, name))
            for version in PROVIDERS:
                url = f"ws://127.0.0.1:{line.port}/hocuspocus"
                opened[name].append(await hocuspocus.open(f"h{version} {name}", version, url, name))
        yield opened


async def test_a_large_document_arrives_at_every_version_from_the_log_and_from_a_snapshot(
    hasty: ServerProcess, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        writer = Writer(session, hasty.document_url("log"))
        await writer.type(EDITS)
        file = tmp_path / "update"
        file.write_bytes(writer.doc.get_update())
        imported = collab_command("documents", "import", "snapshot", str(file), "--data-dir", str(hasty.data_dir))
        assert imported.returncode == 0, imported.stderr
        edit = len(str(writer.text)) // EDITS
        with SlowLine(hasty.port, down=RATE) as line:
            async with clients(line, "log", "snapshot") as opened:
                shown = {name: [set[int]() for _ in opened[name]] for name in opened}
                await asyncio.gather(
                    *[watch(*one) for name in opened for one in zip(opened[name], shown[name], strict=True)]
                )
        for states in shown["log"]:
            assert max(states) == edit * EDITS and len(states) > 3
            assert all(length % edit == 0 for length in states)
        for states in shown["snapshot"]:
            assert states == {0, edit * EDITS}


async def test_every_version_reads_what_is_compressed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--compression", "large") as server:
        async with aiohttp.ClientSession() as session:
            writer = Writer(session, server.document_url("d"))
            await writer.type(EDITS)
        with SlowLine(server.port) as line:
            async with clients(line, "d") as opened:
                shown = [set[int]() for _ in opened["d"]]
                await asyncio.gather(*[watch(*one) for one in zip(opened["d"], shown, strict=True)])
            assert all(max(states) == len(str(writer.text)) for states in shown)
            assert line.passed_down < len(shown) * EDIT * EDITS / 2


async def test_a_large_edit_reaches_every_version_while_they_are_connected(hasty: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session:
        writer = Writer(session, hasty.document_url("live"))
        await writer.type(1, 100)
        first = len(str(writer.text))
        with SlowLine(hasty.port, down=RATE) as line:
            async with clients(line, "live") as opened:
                shown = [set[int]() for _ in opened["live"]]
                await asyncio.gather(*[watch(*one) for one in zip(opened["live"], shown, strict=True)])
                await writer.type(1, EDIT * EDITS // 2)
                length = len(str(writer.text))

                async def arrives(client: DocumentClient, states: set[int]) -> None:
                    async with asyncio.timeout(90):
                        while length not in states:
                            progress = await client.progress()
                            states.add(progress["length"])
                            assert progress["opens"] == 1, client.key
                            await asyncio.sleep(1)

                await asyncio.gather(*[arrives(*one) for one in zip(opened["live"], shown, strict=True)])
        assert all(states - {0} == {first, length} for states in shown)
