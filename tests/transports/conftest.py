"""The whole application on a free port of this process's own loop.

Strategy: below aiohttp's own server, unless a test names others (``on_every_server``): what clients see must be the
same below each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collab import asgi
from collab.app import create_app
from collab.auth.access import Authenticator
from collab.hooks import Hooks
from collab.settings import Settings
from collab.storage.store import Store
from tests.support.asgi import ASGI_SERVERS, AsgiServer
from tests.support.hocuspocus import RawHocuspocus
from tests.support.sqlite import migrated
from tests.support.wsclient import RawClient

Serve = Callable[..., Awaitable["Served"]]

on_every_server = pytest.mark.parametrize("below", ["aiohttp", *ASGI_SERVERS])
"""A test of what stands on the wire, whatever serves."""

on_servers_that_drain = pytest.mark.parametrize("below", ["aiohttp", "uvicorn"])
"""As above, of how a server stops: Hypercorn cuts its connections."""


class Served:
    """A running application."""

    def __init__(self, server: TestServer | AsgiServer, app: web.Application, prefix: str = "") -> None:
        self.server = server
        self.app = app
        self.url = f"http://127.0.0.1:{server.port}{prefix}"

    def ws(self, path: str) -> str:
        return f"{self.url.replace('http', 'ws')}/ws/{path}"

    @property
    def hocuspocus(self) -> str:
        return f"{self.url.replace('http', 'ws')}/hocuspocus"


@pytest.fixture
def below() -> str:
    """What serves, by its name; a parameter of tests ``on_every_server``."""
    return "aiohttp"


@pytest.fixture
async def serve(tmp_path: Path, below: str) -> AsyncIterator[Serve]:
    servers: list[TestServer | AsgiServer] = []

    async def start(
        prefix: str = "",
        authenticator: Authenticator | None = None,
        store: Store | None = None,
        hooks: Sequence[Hooks] = (),
        **options: Any,
    ) -> Served:
        # One server a SQLite file.
        data = tmp_path / f"server {len(servers)}" if servers else tmp_path
        if store is None and "database_url" not in options:
            migrated(data)
        settings = Settings(**{"data_dir": data, **options})
        if below != "aiohttp":
            mounted = asgi.create_app(settings, authenticator, store=store, hooks=hooks)
            outside = AsgiServer(below, asgi.beside(prefix, mounted, nothing) if prefix else mounted)
            await outside.start_server()
            servers.append(outside)
            return Served(outside, mounted.app, prefix)
        root = app = create_app(settings, authenticator, store=store, hooks=hooks)
        if prefix:
            root = web.Application()
            root.add_subapp(prefix, app)
        server = TestServer(root, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        return Served(server, app, prefix)

    yield start
    for server in servers:
        await server.close()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Know neither requests nor lifespan."""
    raise NotImplementedError(scope["type"])


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the HTTP API."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def connect_hocuspocus() -> AsyncIterator[Callable[[str], Awaitable[RawHocuspocus]]]:
    clients: list[RawHocuspocus] = []

    async def open_client(url: str) -> RawHocuspocus:
        client = RawHocuspocus(url)
        await client.connect()
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.close()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Awaitable[RawClient]]]:
    clients: list[RawClient] = []

    async def open_client(url: str) -> RawClient:
        client = await RawClient(url).connect()
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.close()
