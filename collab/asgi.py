"""The server as an ASGI application, to be mounted in somebody else's, or served by an ASGI server as it is.

    from collab.asgi import create_app

    app = create_app(Settings(data_dir="data"), authenticator=...)

Strategy: the application of `collab.app` does everything; this says when it starts and stops, and hands it requests
(``collab.transports.asgi``). It starts by the first of three: the ASGI server says so (lifespan), the host opens
``async with app.lifespan()``, or a request comes. Whoever has started it stops it; after a start by a request nobody
does, so the process just ends: what was acknowledged is stored, and clients send the rest again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web

from collab.app import DRAIN, GUARD, UNSAVED
from collab.app import create_app as create_aiohttp_app
from collab.auth.access import Authenticator
from collab.auth.hook import Hook
from collab.cluster.bus import Bus
from collab.errors import CollabError, ConfigurationError, InternalError
from collab.hooks import Hooks
from collab.sandbox.port import Sandbox
from collab.settings import Settings
from collab.storage.store import Store
from collab.telemetry import get_logger
from collab.transports.asgi.exchange import (
    hear_of_lost,
    refuse_http,
    refuse_websocket,
    serve_http,
    serve_websocket,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["AsgiApplication", "Collab", "beside", "create_app"]

_log = get_logger("asgi")

# Seconds between tries to start by requests: each opens the store, and a failure is logged.
_PAUSE: Final = 1.0

# Of the time for stopping, what requests under way may have behind the journal (as `collab.app` has it).
_END_SECONDS: Final = 2.0


def create_app(
    settings: Settings,
    authenticator: Authenticator | Hook | None = None,
    *,
    hooks: Sequence[Hooks] = (),
    store: Store | None = None,
    bus: Bus | None = None,
    sandbox: Sandbox | None = None,
) -> Collab:
    """Build the server as an ASGI application; see `collab.app.create_app` for the arguments.

    The settings of listening (host, port, TLS, workers, times for heads and idle connections) are the ASGI server's
    business, and do nothing here.

    Raises:
        ConfigurationError: something in the settings cannot be used.
    """
    make = partial(create_aiohttp_app, settings, authenticator, hooks=hooks, store=store, bus=bus, sandbox=sandbox)
    # What the caller has given is closed by a start that fails, and need not open twice.
    return Collab(make, settings.drain_seconds, once=not (store is None and bus is None and sandbox is None))


class Collab:
    """An ASGI application (version 3); ``create_app`` makes it.

    It belongs to one event loop, and starts and stops once.

    Args:
        make: builds the aiohttp application; called again for each try to start.
        drain_seconds: how long stopping may take.
        once: a start that has failed is not tried again.

    Attributes:
        app: the aiohttp application that serves, or would.
    """

    def __init__(self, make: Callable[[], web.Application], drain_seconds: float, *, once: bool = False) -> None:
        self._make = make
        self._once = once
        self._drain_seconds = drain_seconds
        self.app = make()  # now, so that what cannot be used is told where it is written
        self._tried = False
        self._runner: web.AppRunner | None = None
        self._server: web.Server | None = None
        self._holders = 0
        self._stopped = False
        self._starting = asyncio.Lock()
        self._failed: CollabError | None = None
        self._failed_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._serve_lifespan(receive, send)
        elif kind == "http":
            server = self._server or await self._begun()
            if server is None:
                await refuse_http(send, 503, self._why_not, (("retry-after", "1"),))
            else:
                await serve_http(server, scope, receive, send)
        elif kind == "websocket":
            server = self._server or await self._begun()
            if server is None:
                if (await receive())["type"] == "websocket.connect":
                    await refuse_websocket(scope, send, 503, self._why_not)
            else:
                await serve_websocket(server, scope, receive, send)
        else:
            raise InternalError(f"the ASGI server asks for {kind!r}, which is neither http, websocket nor lifespan")

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Serve within this context: start at its beginning, store everything and close the sockets at its end.

        For a host that gives its lifespan to no mounted application (Starlette, FastAPI). Contexts may lie within each
        other; the last one stops.

        Raises:
            CollabError: it cannot start; the text says why.
        """
        await self._start()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                await self._stop()

    # Starting and stopping

    @property
    def _why_not(self) -> str:
        return "the server has stopped" if self._stopped else "the server cannot start now"

    async def _begun(self) -> web.Server | None:
        """Give what serves, and start it if nobody has; None if it cannot be started now."""
        loop_time = asyncio.get_running_loop().time
        if self._stopped or (self._failed is not None and (self._once or loop_time() - self._failed_at < _PAUSE)):
            return None
        try:
            async with self._starting:
                if self._server is None and not self._stopped:
                    if self._failed is None:
                        _log.warning(
                            "started by a request: give the lifespan of the host to the application, or nobody stops "
                            "it in order (docs/asgi.md, Start and stop)"
                        )
                    await self._start_now()
        except CollabError as error:
            _log.error("cannot start: %s", error)
            return None
        return self._server

    async def _start(self) -> None:
        async with self._starting:
            if self._stopped:
                raise ConfigurationError("this application has been stopped, and starts once: make another one")
            if self._server is None:
                await self._start_now()

    async def _start_now(self) -> None:
        if self._tried:
            self.app = self._make()
        self._tried = True
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=min(_END_SECONDS, self._drain_seconds))
        try:
            await runner.setup()
        except BaseException as error:
            self._failed = error if isinstance(error, CollabError) else InternalError("starting has failed")
            self._failed_at = asyncio.get_running_loop().time()
            await runner.cleanup()
            raise
        self._failed = None
        self.app[GUARD].on_stream = hear_of_lost
        self._runner, self._server = runner, runner.server

    async def _stop(self) -> None:
        runner, self._runner, self._server = self._runner, None, None
        self._stopped = True
        if runner is not None:
            await self.app[DRAIN]()
            await runner.cleanup()
            for name in self.app[UNSAVED]:
                _log.error("not everything of the document %r could be stored", name)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    try:
                        await stack.enter_async_context(self.lifespan())
                    except CollabError as error:
                        await send({"type": "lifespan.startup.failed", "message": f"collab: {error}"})
                        return
                    await send({"type": "lifespan.startup.complete"})
                elif message["type"] == "lifespan.shutdown":
                    break
        await send({"type": "lifespan.shutdown.complete"})


def beside(prefix: str, collab: Collab, other: AsgiApplication) -> AsgiApplication:
    """Mount ``collab`` below ``prefix`` and leave everything else to ``other``, which need not know lifespan (Django).

    Args:
        prefix: such as ``"/collab"``, without a slash at its end.
        collab: started and stopped with the ASGI server; ``other`` too, if it wants to be.
        other: an ASGI application.

    Raises:
        ConfigurationError: the prefix does not begin with a slash, or ends with one.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ConfigurationError(f"a prefix begins with a slash and does not end with one: {prefix!r}")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with _Both(other, scope) as host:
                await host.serve(collab, receive, send)
            return
        root_path = str(scope.get("root_path") or "").rstrip("/")
        path = str(scope["path"])
        below = path.removeprefix(root_path) if root_path and path.startswith(f"{root_path}/") else path
        if below == prefix or below.startswith(f"{prefix}/"):
            await collab({**scope, "root_path": root_path + prefix}, receive, send)
        else:
            await other(scope, receive, send)

    return application


class _Both:
    """The lifespan of an application that may know none, within that of the ASGI server."""

    def __init__(self, other: AsgiApplication, scope: Scope) -> None:
        self._asked: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._other = other
        self._scope = scope

    async def __aenter__(self) -> _Both:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        try:
            await self._other(self._scope, self._asked.get, self._told.put)
        except Exception as error:
            # ASGI: an application that knows no lifespan raises, and is served all the same.
            _log.info("the application beside knows no lifespan: %r", error)

    async def _ask(self, kind: str) -> Message:
        """Ask the other one; if it says nothing and ends, it knows no lifespan."""
        await self._asked.put({"type": kind})
        told = asyncio.create_task(self._told.get())
        try:
            await asyncio.wait((told, self._task), return_when=asyncio.FIRST_COMPLETED)
            return told.result() if told.done() else {"type": f"{kind}.complete"}
        finally:
            told.cancel()

    async def serve(self, collab: Collab, receive: Receive, send: Send) -> None:
        """Start the other one, then ours; stop them the other way round."""

        async def next_message() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                answer = await self._ask("lifespan.startup")
                if answer["type"] != "lifespan.startup.complete":
                    await send(answer)
                    raise _NotStarted
            return message

        async def tell(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.startup.failed"):
                answer = await self._ask("lifespan.shutdown")
                if message["type"] == "lifespan.shutdown.complete":
                    message = answer
            await send(message)

        with contextlib.suppress(_NotStarted):
            await collab(self._scope, next_message, tell)


class _NotStarted(Exception):
    """The application beside has not started, and has said so."""
