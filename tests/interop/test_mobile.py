"""Published clients on phones: frozen while the others go on, and on another network than a moment before.

Strategy: a process that is stopped by its system stands for an application in the background. A page of a browser is
frozen in `tests/browser/test_mobile.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.interop.agent import VERSIONS, Agent, DocumentClient, NodeAgent
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, until_saved
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = pytest.mark.slow

# Some pings without an answer, and a message for every watchdog, take about a second.
OPTIONS = ("--ping-seconds", "0.5", "--keepalive-seconds", "0.3")

# Milliseconds without a message after which the providers of these tests take a socket for dead; 30 s by themselves.
WATCHDOG = 1_500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), *OPTIONS) as started:
        yield started


def has(grace: LiveClient, *words: str) -> Callable[[], bool]:
    return lambda: all(word in str(grace.text()) for word in words)


async def shows(ada: DocumentClient, *words: str) -> bool:
    text = "".join(run["insert"] for run in (await ada.state())["text"])
    return all(word in text for word in words)


async def frozen(agent: NodeAgent, ada: DocumentClient, line: SlowLine, grace: LiveClient) -> None:
    """Freeze a client that is connected until its server has given it up, and see what comes of it."""
    await ada.edit("type", text="before ")
    await grace.until(has(grace, "before"), "what was written before")
    before, sent = line.connections, line.ended
    agent.freeze()
    try:
        await happens(lambda: line.ended > sent, "the server to give up a client that is frozen")
        grace.text().insert(0, "meanwhile ")
    finally:
        agent.thaw()
    await ada.edit("type", text="after ")
    await grace.until(has(grace, "before", "meanwhile", "after"), "what was written after the thaw")
    await eventually(lambda: shows(ada, "before", "meanwhile", "after"), "everything at the client that was frozen")
    assert line.connections == before + 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_frozen_y_websocket_client_comes_back_with_everything(
    server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    with SlowLine(server.port) as line:
        ada = await agent.open("ada", version, f"ws://127.0.0.1:{line.port}/ws", name)
        async with LiveClient(server.document_url(name), keep=True) as grace:
            await ada.until(synced=True)
            await frozen(agent, ada, line, grace)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_frozen_hocuspocus_client_comes_back_with_everything(
    server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    with SlowLine(server.port) as line:
        ada = await hocuspocus.open("ada", version, f"ws://127.0.0.1:{line.port}/hocuspocus", name)
        async with LiveClient(server.document_url(name), keep=True) as grace:
            await until_saved(ada)
            await frozen(hocuspocus, ada, line, grace)
            await until_saved(ada)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_client_that_changes_network_comes_back_from_its_new_address(
    server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    with SlowLine(server.port) as line:
        url = f"ws://127.0.0.1:{line.port}/hocuspocus"
        socket = await hocuspocus.socket(version, url, messageReconnectTimeout=WATCHDOG)
        ada = await socket.open("ada", name)
        async with LiveClient(server.document_url(name), keep=True) as grace:
            await until_saved(ada)
            await ada.edit("type", text="before ")
            await grace.until(has(grace, "before"), "what was written before")
            line.hang()
            line.source = "127.0.0.2"
            await ada.edit("type", text="train ")
            grace.text().insert(0, "meanwhile ")
            await grace.until(has(grace, "before", "train", "meanwhile"), "what was written on the way")
            await until_saved(ada)
            await eventually(lambda: shows(ada, "before", "train", "meanwhile"), "everything at the one that moved")
            assert line.connections >= 2
