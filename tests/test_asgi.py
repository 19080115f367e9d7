"""When the ASGI application starts and stops, and how it is mounted, below real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from litestar import Litestar, get
from quart import Quart
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from collab.asgi import AsgiApplication, Collab, beside, create_app
from collab.contrib.starlette import mount
from collab.errors import ConfigurationError, StoreUnavailable
from collab.settings import Settings
from collab.storage.lock import lock_database
from collab.storage.memory import MemoryStore
from collab.transports.http.streams.routes import PATH as STREAMS
from tests.support.asgi import AsgiServer
from tests.support.django import configure
from tests.support.sqlite import migrated
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient


@contextlib.asynccontextmanager
async def served(app: Any, name: str = "uvicorn", **options: Any) -> AsyncIterator[str]:
    """Serve an application and give its address."""
    server = AsgiServer(name, app, **options)
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()


async def get_text(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def edit(url: str, text: str = "hello") -> None:
    """Let two people share a document."""
    async with LiveClient(url) as one, LiveClient(url) as two:
        one.text().insert(0, text)
        await two.until(lambda: str(two.text()) == text, "what the other has typed")


def from_memory() -> Collab:
    return create_app(Settings(), store=MemoryStore())


def in_starlette(collab: Collab) -> AsgiApplication:
    async def home(request: Any) -> PlainTextResponse:
        return PlainTextResponse("home")

    app = Starlette(routes=[Route("/", home)])
    mount(app, "/collab", collab)
    return app


def in_litestar(collab: Collab) -> AsgiApplication:
    @get("/")
    async def home() -> str:
        return "home"

    return beside("/collab", collab, Litestar([home], openapi_config=None))  # type: ignore[arg-type]


def in_quart(collab: Collab) -> AsgiApplication:
    app = Quart(__name__)

    @app.route("/")
    async def home() -> str:
        return "home"

    return beside("/collab", collab, app)  # type: ignore[arg-type]


def in_django(collab: Collab) -> AsgiApplication:
    from django.core.asgi import get_asgi_application

    configure()
    return beside("/collab", collab, get_asgi_application())


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
@pytest.mark.parametrize("host", [in_starlette, in_litestar, in_quart, in_django])
async def test_it_is_mounted_in_frameworks(host: Any, server: str) -> None:
    collab = from_memory()
    async with served(host(collab), server) as address:
        assert await get_text(f"http://{address}/") == (200, "home")
        assert (await get_text(f"http://{address}/collab/healthz"))[0] == 200
        await edit(f"ws://{address}/collab/ws/a%2Fb")
        new = f"http://{address}/collab{STREAMS}new"
        async with aiohttp.ClientSession() as session, session.put(new) as response:
            assert response.status == 201
            assert response.headers["Location"] == f"/collab{STREAMS}new"
        status, text = await get_text(f"http://{address}/collab/api/v1/documents/a%2Fb")
        assert status == 200 and '"a/b"' in text


async def test_the_server_of_the_application_starts_and_stops_it(tmp_path: Path) -> None:
    migrated(tmp_path)
    for text in ("first", "second"):
        async with served(create_app(Settings(data_dir=tmp_path))) as address:
            url = f"ws://{address}/ws/d"
            async with LiveClient(url) as client:
                await client.until_synced()
                assert str(client.text()) in ("", "first")
                client.text().insert(len(str(client.text())), text)
                await client.barrier()
    async with served(create_app(Settings(data_dir=tmp_path))) as address, LiveClient(f"ws://{address}/ws/d") as client:
        await client.until(lambda: str(client.text()) == "firstsecond", "what was stored")


async def test_a_request_starts_it_where_nobody_else_does(caplog: pytest.LogCaptureFixture) -> None:
    collab = from_memory()

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        await collab(scope, receive, send)

    async with served(without_lifespan, lifespan="off") as address:
        await asyncio.gather(*(edit(f"ws://{address}/ws/{n}") for n in range(3)))
        assert [record.message for record in caplog.records if "started by a request" in record.message]
        async with collab.lifespan():
            await edit(f"ws://{address}/ws/d")
        status, text = await get_text(f"http://{address}/healthz")
        assert status == 503 and "has stopped" in text
        with pytest.raises(ConfigurationError, match="make another one"):
            async with collab.lifespan():
                raise AssertionError("it has started twice")


async def test_what_cannot_start_is_tried_again_by_later_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.asgi._PAUSE", 0.05)
    monkeypatch.setattr("collab.app.lock_database", partial(lock_database, seconds=0.05))
    migrated(tmp_path)
    another = await lock_database(tmp_path / "collab.db")
    collab = create_app(Settings(data_dir=tmp_path))

    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        await collab(scope, receive, send)

    async with served(without_lifespan, lifespan="off") as address:
        assert (await get_text(f"http://{address}/healthz"))[0] == 503
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"ws://{address}/ws/d")
            assert refused.value.status == 503
        another.release()

        async def ready() -> bool:
            return (await get_text(f"http://{address}/healthz"))[0] == 200

        await eventually(ready, "the start")
        await edit(f"ws://{address}/ws/d")
        async with collab.lifespan():
            pass


class Away(MemoryStore):
    """A store that cannot be opened."""

    async def open(self) -> None:
        raise StoreUnavailable("the database is away")


async def test_a_start_that_fails_is_told_to_the_server() -> None:
    sent: list[Any] = []
    messages: asyncio.Queue[Any] = asyncio.Queue()
    await messages.put({"type": "lifespan.startup"})

    async def send(message: Any) -> None:
        sent.append(message)

    collab = create_app(Settings(), store=Away())
    await collab({"type": "lifespan"}, messages.get, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": "collab: the database is away"}]
    # A store of somebody's own is not opened twice.
    sent.clear()
    await collab({"type": "http"}, messages.get, send)
    assert sent[0]["status"] == 503


@pytest.mark.parametrize("prefix", ["", "collab", "/collab/"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        beside(prefix, from_memory(), from_memory())


ROOT = Path(__file__).resolve().parents[1]

APP = """
from collab.asgi import create_app
from collab.settings import Settings
app = create_app(Settings(data_dir={data!r}))
"""


@contextlib.asynccontextmanager
async def program(folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "served_app.py").write_text(APP.format(data=str(folder / "data")))
    migrated(folder / "data")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # To the end of what it has printed: the pipe closes then, and else outlives the loop.
        await process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", "served_app:app", "--port"),
        ("hypercorn", "served_app:app", "--bind"),
        ("granian", "served_app:app", "--interface", "asgi", "--port"),
    ],
    ids=lambda command: command[0],
)
async def test_servers_run_it_by_their_commands(tmp_path: Path, command: tuple[str, ...]) -> None:
    port = free_port()
    where = f"127.0.0.1:{port}" if command[-1] == "--bind" else str(port)
    async with program(tmp_path, *command, where):

        async def ready() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                return (await get_text(f"http://127.0.0.1:{port}/healthz"))[0] == 200
            return False

        await eventually(ready, "the server")
        await edit(f"ws://127.0.0.1:{port}/ws/d")
        # Reading content needs the sandbox, and so processes of this process.
        status, text = await get_text(f"http://127.0.0.1:{port}/api/v1/content/d")
        assert status == 200 and "hello" in text
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"ws://127.0.0.1:{port}/nowhere")
            assert refused.value.status in (403, 404)


@pytest.mark.server
@pytest.mark.slow
async def test_several_workers_on_sqlite_are_told_what_to_do(tmp_path: Path) -> None:
    async with program(tmp_path, "uvicorn", "served_app:app", "--port", str(free_port()), "--workers", "2") as process:
        assert process.stdout is not None
        told = b""
        async with asyncio.timeout(120):
            while b"use one, or PostgreSQL" not in told:
                line = await process.stdout.readline()
                assert line, told.decode()
                told += line
        assert b"uvicorn --workers" in told and b"--data-dir" in told
