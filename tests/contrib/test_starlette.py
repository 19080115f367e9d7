"""FastAPI applications whose own function decides on access, below a real server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.contrib.starlette import Authorize, _Authenticator, create_app, mount
from collab.errors import AccessUnavailable, ConfigurationError
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from tests.support.asgi import AsgiServer
from tests.support.waiting import happens
from tests.support.wsclient import RawClient, step1, text_update, update


@contextlib.asynccontextmanager
async def application(authorize: Authorize, **more: Any) -> AsyncIterator[tuple[str, Any]]:
    """Serve a FastAPI application; give the address of the server in it, and the server."""
    app = FastAPI(**more)
    collab = create_app(Settings(), authorize, store=MemoryStore())
    mount(app, "/collab", collab)
    server = AsgiServer("uvicorn", app)
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}/collab", collab
    finally:
        await server.close()


async def by_cookie(connection: HTTPConnection, document: str) -> Any:
    user = connection.cookies.get("user")
    if user is None:
        raise HTTPException(401, "sign in first")
    if user == "busy":
        raise HTTPException(503, "later")
    if user == "broken":
        raise RuntimeError("secret of the application")
    return {"ada": "write", "bob": Access.READ, "root": Grant(Access.ADMIN, "root", "Root")}.get(user)


async def status_of(address: str, user: str | None, method: str = "GET", **more: Any) -> tuple[int, str]:
    headers = {} if user is None else {"Cookie": f"user={user}"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{address}/api/v1/documents/d", headers=headers, **more) as response,
    ):
        return response.status, await response.text()


async def test_the_function_decides_for_sockets_and_requests() -> None:
    async with application(by_cookie) as (address, collab):
        ada = RawClient(f"ws://{address}/ws/d")
        bob = RawClient(f"ws://{address}/ws/d")
        await ada.connect({"Cookie": "user=ada"})
        await bob.connect({"Cookie": "user=bob"})
        await ada.send(update(text_update(1, "hello")))
        await bob.send(step1())
        await ada.barrier()
        await bob.barrier()
        assert {session.access for session in collab.app[HUB].rooms["d"].room.sessions} == {Access.WRITE, Access.READ}
        for user, code, reason in (
            (None, 4401, "sign in first"),
            ("cy", 4403, ""),
            ("busy", 1013, ""),
            ("broken", 1013, ""),
        ):
            refused = RawClient(f"ws://{address}/ws/d")
            await refused.connect({} if user is None else {"Cookie": f"user={user}"})
            assert await refused.expect_close() == code, user
            assert reason in (refused.close_reason or "") and "secret" not in (refused.close_reason or "")
            await refused.close()
        for user, status in ((None, 401), ("ada", 200), ("bob", 200), ("cy", 403), ("busy", 503), ("broken", 503)):
            assert (await status_of(address, user))[0] == status, user
        assert (await status_of(address, "ada", "DELETE"))[0] == 403
        assert (await status_of(address, "root", "DELETE"))[0] == 204
        await ada.close()
        await bob.close()


async def test_a_session_is_asked_about_again_by_its_own_connection() -> None:
    members = {"ada"}

    async def authorize(connection: HTTPConnection, document: str) -> str | None:
        return "write" if connection.cookies.get("user") in members else None

    async with application(authorize) as (address, collab):
        client = RawClient(f"ws://{address}/ws/d")
        await client.connect({"Cookie": "user=ada"})
        await client.send(step1())
        await client.barrier()
        members.clear()
        live = collab.app[HUB].rooms["d"]
        (session,) = live.room.sessions
        await session.client.check_access(session)
        assert await client.expect_close() == 4403
        await client.close()


async def test_a_plain_function_runs_in_a_thread() -> None:
    threads = set()

    def authorize(connection: HTTPConnection, document: str) -> str:
        threads.add(threading.current_thread())
        assert connection.state.collab_token == "shown"
        return "read"

    async with application(authorize) as (address, _), RawClient(f"ws://{address}/ws/d?token=shown") as client:
        await client.send(step1())
        await client.barrier()
    assert threading.main_thread() not in threads and threads


async def test_a_lifespan_of_the_application_stays_within() -> None:
    heard: list[str] = []

    @contextlib.asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, Any]]:
        heard.append("start")
        yield {"kept": True}
        heard.append("stop")

    def authorize(connection: HTTPConnection, document: str) -> str:
        assert connection.state.kept, "what the lifespan gives is there"
        return "write"

    async with application(authorize, lifespan=own) as (address, collab):
        assert heard == ["start"]
        async with RawClient(f"ws://{address}/ws/d") as client:
            await client.send(step1())
            await client.barrier()
    assert heard == ["start", "stop"]
    await happens(lambda: collab._stopped, "the end")


async def test_pages_of_other_origins_cannot_use_cookies() -> None:
    with pytest.raises(ConfigurationError, match="cookies"):
        create_app(Settings(allowed_origins=["*"]), by_cookie, store=MemoryStore())
    async with application(by_cookie) as (address, _):
        client = RawClient(f"ws://{address}/ws/d")
        await client.connect({"Cookie": "user=ada", "Origin": "https://elsewhere.example"})
        assert await client.expect_close() == 4403
        await client.close()


async def test_without_a_connection_nothing_is_decided() -> None:
    with pytest.raises(AccessUnavailable):
        await _Authenticator(by_cookie).authenticate(AccessRequest("", "d", "127.0.0.1"))
    await asyncio.sleep(0)
