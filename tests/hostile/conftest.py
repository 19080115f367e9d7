"""A server with usual limits, one with small ones, and a document with healthy clients to watch."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.hostile.ward import Ward
from tests.support.server import ServerProcess

MAX_MESSAGE_BYTES = 100_000
MAX_DOCUMENT_BYTES = 5_000

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("hostile"), "--idle-seconds", "0.5") as server:
        yield server


@pytest.fixture(scope="session")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--max-message-bytes", str(MAX_MESSAGE_BYTES), "--max-document-bytes", str(MAX_DOCUMENT_BYTES))
    with ServerProcess(tmp_path_factory.mktemp("narrow"), *options) as server:
        yield server


@pytest_asyncio.fixture
async def ward(server: ServerProcess) -> AsyncIterator[Ward]:
    async with Ward(server, f"ward {next(_numbers)}") as ward:
        yield ward
        await ward.check_unharmed()


@pytest_asyncio.fixture
async def narrow_ward(narrow_server: ServerProcess) -> AsyncIterator[Ward]:
    async with Ward(narrow_server, f"ward {next(_numbers)}") as ward:
        yield ward
        await ward.check_unharmed()
