"""Databases and stores for tests: each test that asks for one runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.storage.sql import SqlStore
from collab.storage.urls import DatabaseUrl, parse_database_url
from tests.support.sqlite import migrated

OpenStore = Callable[[], AbstractAsyncContextManager[SqlStore]]


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """The database under test."""
    name: str = request.param
    return name


@pytest.fixture
def database(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> DatabaseUrl:
    """A database on the newest schema, of this test's own."""
    if backend == "postgresql":
        return parse_database_url(request.getfixturevalue("postgres_url"))
    return migrated(tmp_path)


@pytest.fixture
def open_another(database: DatabaseUrl) -> OpenStore:
    """Open one more store on the database, as another node or the command line would."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[SqlStore]:
        store = make_store(database)
        assert isinstance(store, SqlStore)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture
async def store(open_another: OpenStore) -> AsyncIterator[SqlStore]:
    """An open store."""
    async with open_another() as opened:
        yield opened
