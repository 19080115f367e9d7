"""One server for the tests that never stop it, and Node agents for each test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop.agent import GENERATION, Agent
from tests.interop.hocuspocus import HocuspocusAgent
from tests.support import token_server as token_server_script
from tests.support.server import ServerProcess

# Short enough that the keepalive and the unloading of idle documents happen within a test.
OPTIONS = ("--keepalive-seconds", "2", "--idle-seconds", "1")

# What provider 3 throws without any server's fault: when a socket was closed before its first frame, two of
# its retries run side by side, and one closes the other's socket.
_THROWN_BY_3 = "WebSocket was closed before the connection was established"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("interop"), *OPTIONS) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that the test may stop and start."""
    with ServerProcess(tmp_path, *OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose tokens say how their bearer is treated; see tests/support/token_server.py."""
    script = token_server_script.__file__
    with ServerProcess(tmp_path_factory.mktemp("tokens"), *OPTIONS, program=(script,)) as server:
        yield server


@pytest.fixture
def name() -> str:
    """A document name that no other test uses."""
    return f"interop/{next(_numbers)}"


@pytest_asyncio.fixture
async def agent_of() -> AsyncIterator[Callable[[str], Awaitable[Agent]]]:
    """Give the agent for a client version; the two versions of one generation share one."""
    async with contextlib.AsyncExitStack() as stack:
        agents: dict[str, Agent] = {}

        async def give(version: str) -> Agent:
            generation = GENERATION[version]
            if generation not in agents:
                agents[generation] = await stack.enter_async_context(Agent(generation))
            return agents[generation]

        yield give


@pytest_asyncio.fixture
async def hocuspocus() -> AsyncIterator[HocuspocusAgent]:
    """Give the agent for Hocuspocus providers; none of them may throw what the test has not asked for."""
    async with HocuspocusAgent() as agent:
        yield agent
        assert [error for error in await agent.thrown() if error != _THROWN_BY_3] == []
