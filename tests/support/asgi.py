"""ASGI servers on a free port of this process's own loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from hypercorn.asyncio import serve as serve_by_hypercorn
from hypercorn.config import Config as HypercornConfig

from tests.support.waiting import eventually

ASGI_SERVERS = ("uvicorn", "hypercorn")

_OF_UVICORN = {"lifespan": "on", "log_config": None, "timeout_graceful_shutdown": 5}


class AsgiServer:
    """An ASGI application below a server, by the server's name.

    Args:
        name: one of ``ASGI_SERVERS``.
        app: it has to know lifespan.
        options: of uvicorn.
    """

    def __init__(self, name: str, app: Any, **options: Any) -> None:
        self._name = name
        self._app = app
        self._options = options
        self._stop = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._uvicorn: uvicorn.Server | None = None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    async def start_server(self) -> None:
        """Start, and wait until connections are taken."""
        if self._name == "uvicorn":
            # Before the first look, which would else ask the application itself for a page.
            self._uvicorn = uvicorn.Server(uvicorn.Config(self._app, **{**_OF_UVICORN, **self._options}))
            serving = self._uvicorn._serve([self._socket])  # ``serve`` takes the signals of this process
        else:
            serving = self._serve_by_hypercorn()
        self._task = asyncio.create_task(serving)
        await eventually(self._is_ready, f"{self._name} serves")

    async def _is_ready(self) -> bool:
        assert self._task is not None
        if self._task.done():
            self._task.result()
            raise AssertionError(f"{self._name} has ended")
        if self._uvicorn is not None:
            return self._uvicorn.started
        # The socket listens from the beginning: the first answer comes when the application has started.
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answered = await reader.read()
        writer.close()
        return bool(answered)

    async def _serve_by_hypercorn(self) -> None:
        config = HypercornConfig()
        config.bind = [f"fd://{self._socket.detach()}"]  # it closes it
        config.graceful_timeout = 5
        config.errorlog = logging.getLogger("hypercorn.error")
        await serve_by_hypercorn(self._app, config, shutdown_trigger=self._stop.wait)

    async def close(self) -> None:
        """Stop as a signal would, and wait for the end."""
        self._stop.set()
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
