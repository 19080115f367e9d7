"""One server for the tests that never stop it, and Node agents for each test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop.agent import GENERATION, Agent
from tests.support.server import ServerProcess

# Short enough that the keepalive and the unloading of idle documents happen within a test.
OPTIONS = ("--keepalive-seconds", "2", "--idle-seconds", "1")

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
