"""No token in a log line of anybody: access logs, errors and debugging of the servers that applications run us in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.test_utils import unused_port

from collab.app import create_app
from collab.settings import Settings
from collab.telemetry import keep_secrets_out
from tests.support.waiting import eventually, happens

TOKEN = "a-token.of-somebody"
REFERER = f"https://app.example/?page=1&token={TOKEN}"


class Lines(logging.Handler):
    """Keep what handlers of others would write of each record: its line and all that it carries."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = logging.Formatter("%(name)s %(message)s").format(record)
        self.lines.append(f"{line} {vars(record)!r}")

    def of(self, logger: str) -> list[str]:
        return [line for line in self.lines if line.startswith(f"{logger} ")]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Show everything, as an application does that debugs."""
    root, kept = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    yield kept
    root.setLevel(level)
    root.removeHandler(kept)


class OwnAccessLogger(AbstractAccessLogger):
    """Write what an application's own access log may ask a request for."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        said = (request.url, request.rel_url, request.path_qs, request.raw_path, request.headers, request.raw_headers)
        self.logger.info("%r %r", request, said)


async def fail(request: web.Request) -> web.Response:
    raise RuntimeError(f"cannot serve {request.rel_url}")


@asynccontextmanager
async def mounted(tmp_path: Path, *middlewares: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an application that mounts ours, with an access log."""
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/fails", fail)
    app.add_subapp("/collab/", create_app(Settings(data_dir=tmp_path)))
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", unused_port())
        await site.start()
        yield site.name
    finally:
        await runner.cleanup()


async def visit(address: str, paths: dict[str, int]) -> None:
    """Come by a socket and by requests, with the token at each place where one may stand."""
    async with aiohttp.ClientSession(headers={"Referer": REFERER}) as http:
        async with http.ws_connect(f"{address}/collab/ws/notes?a=1&token={TOKEN}") as socket:
            assert (await socket.receive()).type is aiohttp.WSMsgType.BINARY
        for path, status in paths.items():
            async with http.get(f"{address}{path}?token={TOKEN}&a=b") as answer:
                assert answer.status == status


PATHS = {"/collab/healthz": 200, "/collab/nothing-there": 404, "/nothing-there": 404, "/fails": 500}


async def test_middlewares_of_an_application_see_the_whole_request_when_its_socket_has_ended(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str | None]] = []

    @web.middleware
    async def look(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            seen.append((request.path, request.headers["Referer"], request.remote))

    async with mounted(tmp_path, look, access_log=None) as address:
        await visit(address, {})
        await happens(lambda: seen, "the request has ended")
    ((path, referer, remote),) = seen
    assert path == "/collab/ws/notes" and referer.startswith("https://app.example/") and remote == "127.0.0.1"


@pytest.mark.parametrize("own", [logging.getLogger("aiohttp.access"), logging.getLogger("shop.access")])
async def test_the_access_log_of_an_application_has_no_token(tmp_path: Path, lines: Lines, own: logging.Logger) -> None:
    # A logger of a name that nobody knows is told of our own part alone: the rest is the application's.
    paths = PATHS if own.name == "aiohttp.access" else {"/collab/healthz": 200, "/collab/nothing-there": 404}
    async with mounted(tmp_path, access_log=own) as address:
        await visit(address, paths)
        await happens(lambda: len(lines.of(own.name)) == len(paths) + 1, "lines of all requests")
    assert not [line for line in lines.lines if TOKEN in line]
    for line in lines.of(own.name):
        assert "token=***" in line and "?a=1&token=***" in line or "&a=b HTTP" in line, line
        assert '"https://app.example/?page=1&token=***"' in line, line


async def test_an_error_of_the_application_is_logged_without_the_token(tmp_path: Path, lines: Lines) -> None:
    async with mounted(tmp_path, access_log=None) as address, aiohttp.ClientSession() as http:
        assert (await http.get(f"{address}/fails?token={TOKEN}")).status == 500
        await happens(lambda: lines.of("aiohttp.server"), "the line of the error")
    (line,) = lines.of("aiohttp.server")
    assert "RuntimeError: cannot serve /fails?token=***" in line and TOKEN not in line


async def test_an_access_log_of_any_kind_can_ask_the_request_for_everything(tmp_path: Path, lines: Lines) -> None:
    options = {"access_log": logging.getLogger("shop.own"), "access_log_class": OwnAccessLogger}
    async with mounted(tmp_path, **options) as address:
        await visit(address, {"/collab/healthz": 200})
        await happens(lambda: len(lines.of("shop.own")) == 2, "lines of both requests")
    assert not [line for line in lines.lines if TOKEN in line]
    assert all(line.count("token=***") >= 5 for line in lines.of("shop.own")), lines.of("shop.own")


async def test_debugging_of_the_loop_shows_no_token(tmp_path: Path, lines: Lines) -> None:
    keep_secrets_out()
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "a task has failed", "exception": ValueError(f"/ws/notes?token={TOKEN}")})
    (line,) = lines.of("asyncio")
    assert "ValueError: /ws/notes?token=***" in line and TOKEN not in line


# Servers of ASGI applications, whose access logs know of an address only what the scope says


async def application(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Take what comes: a socket is accepted and closed, a request is answered."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def under_uvicorn(port: int) -> AsyncIterator[None]:
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_config=None, log_level="info"))
    serving = asyncio.create_task(server.serve())
    await happens(lambda: server.started, "the server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def under_hypercorn(port: int) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = logging.getLogger("hypercorn.access")
    config.errorlog = logging.getLogger("hypercorn.error")
    config.access_log_format = '%(h)s "%(R)s" %(s)s "%(q)s" "%({referer}i)s"'
    stop = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(application, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        stop.set()
        await serving


@pytest.mark.parametrize(
    ("serve", "logger", "least"),
    [
        (under_uvicorn, "uvicorn.access", 1),
        (under_uvicorn, "uvicorn.error", 1),
        (under_hypercorn, "hypercorn.access", 2),
    ],
)
async def test_access_logs_of_asgi_servers_have_no_token(
    lines: Lines, serve: Callable[[int], Any], logger: str, least: int
) -> None:
    keep_secrets_out()
    port = unused_port()
    async with serve(port):
        async with aiohttp.ClientSession(headers={"Referer": REFERER}) as http:

            async def answers() -> bool:
                try:
                    async with http.get(f"http://127.0.0.1:{port}/docs?token={TOKEN}") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await eventually(answers, "an answer")
            async with http.ws_connect(f"http://127.0.0.1:{port}/ws/notes?token={TOKEN}") as socket:
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await happens(lambda: len([line for line in lines.of(logger) if "token=***" in line]) >= least, "its lines")
    assert not [line for line in lines.lines if TOKEN in line]
