"""The Python of docs/hooks.md, run with real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from collab.app import create_app
from collab.auth.access import AccessRequest, Grant
from collab.hooks import Hooks
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from tests.docs.test_python import modules, run
from tests.support.hocuspocus import AUTH, STATELESS, RawHocuspocus, auth, stateless
from tests.support.snippets import snippet
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient

__all__ = ["modules"]

Serve = Callable[[Hooks], AbstractAsyncContextManager[str]]


async def by_name(request: AccessRequest) -> Grant:
    """Let everybody do everything; the token is the user's name."""
    return Grant(Access.ADMIN, request.token)


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serve(hooks: Hooks) -> AsyncIterator[str]:
        app = create_app(Settings(hook_interval_seconds=0.01), by_name, hooks=[hooks], store=MemoryStore())
        async with TestServer(app) as server:
            yield f"ws://127.0.0.1:{server.port}"

    return serve


async def test_a_first_hook(modules: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("collab.settings.Settings", partial(Settings, hook_interval_seconds=0.01))
    search = run(snippet("docs/hooks.md", "A first hook", "python"))
    modules("search", **search)
    app = run(snippet("docs/hooks.md", "A first hook", "python", 2))["app"]
    async with TestServer(app) as server, LiveClient(f"ws://127.0.0.1:{server.port}/collab/ws/notes") as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await happens(lambda: search["index"].get("notes") == "hello", "it is in the index")


async def test_refusing(serve: Serve) -> None:
    rules = run(snippet("docs/hooks.md", "Refusing", "python"))["Rules"]()
    async with serve(rules) as url:
        async with LiveClient(f"{url}/ws/bob/plan?token=ada") as ada:
            assert await ada.expect_close() == 4403
            assert ada.close_reason == "create documents under your own name"
        async with LiveClient(f"{url}/ws/ada/plan?token=ada") as ada:
            await ada.until_synced()
        client = await RawHocuspocus(f"{url}/hocuspocus").connect()
        await client.send(auth("bob/plan", "ada"))
        assert await client.denied("bob/plan") == "create documents under your own name"
        await client.close()


async def test_stateless_messages(serve: Serve) -> None:
    chat = run(snippet("docs/hooks.md", "Stateless messages", "python"))["Chat"]()
    async with serve(chat) as url:
        ada, bob = [await RawHocuspocus(f"{url}/hocuspocus").connect() for _ in range(2)]
        for client, user in ((ada, "ada"), (bob, "bob")):
            await client.send(auth("d", user))
            await client.find_type("d", AUTH)
        for text in ("ping", "my password is x", "bye"):
            await ada.send(stateless("d", text))
        await bob.find(lambda one: one.fields == ("bye",), "the last message")
        assert [one.fields for one in bob.got("d", STATELESS)] == [("my *** is x",), ("bye",)]
        assert [one.fields for one in ada.got("d", STATELESS)] == [("pong",)]
        await ada.close()
        await bob.close()
