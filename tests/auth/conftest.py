"""Somebody else's HTTP server on loopback, which answers as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Elsewhere:
    """A server of somebody else.

    Attributes:
        answer: what it does with a request; replace it.
        asked: what it was asked: the JSON bodies, None for a GET.
        headers, bodies: of each request, as they came.
        arrived: set when a request comes in; clear it to wait for the next.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.arrived = asyncio.Event()
        self._release = asyncio.Event()
        self.answers({})
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/there"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json() if request.method == "POST" else None)
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        self.arrived.set()
        return await self.answer(request)

    def answers(self, body: Any, status: int = 200, **headers: str) -> None:
        """Answer with ``body``: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=data, status=status, headers=headers, content_type="application/json")

        self.answer = answer

    def hangs(self, then: Answer | None = None) -> None:
        """Take requests and keep them waiting until ``release``, then answer as ``then`` or as before."""
        before = then or self.answer

        async def answer(request: web.Request) -> web.StreamResponse:
            await self._release.wait()
            return await before(request)

        self._release = asyncio.Event()
        self.answer = answer

    def release(self) -> None:
        self._release.set()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    made = Elsewhere()
    await made.server.start_server()
    yield made
    made.release()
    await made.server.close()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Give everything that was logged so far, at every level, by anybody."""
    caplog.set_level(logging.DEBUG)
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return lambda: "\n".join(formatter.format(record) for record in caplog.records)
