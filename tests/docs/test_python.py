"""The Python that the documents show, run with the frameworks that it names."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collab.app import create_app
from collab.auth.access import AccessRequest
from collab.auth.factory import AuthOptions, make_authenticator
from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import Forbidden, Unauthenticated
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from tests.auth.makers import SECRET
from tests.docs.asgi import as_aiohttp, ask
from tests.support.django import configure
from tests.support.snippets import snippet
from tests.support.wsclient import LiveClient

ADA = SimpleNamespace(id="17", name="Ada", teams=["team-a"])


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that puts a module of the reader's own where the snippet imports it."""

    def put(name: str, **values: Any) -> None:
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def run(text: str, **given: Any) -> dict[str, Any]:
    """Run a snippet as a module and give what it has defined; ``given`` stands above it on the reader's page."""
    values: dict[str, Any] = {"__name__": "snippet", **given}
    exec(compile(text, "a snippet", "exec"), values)
    return values


def tokens(modules: Any) -> None:
    """Put the module in place that all routes share."""
    modules("collab_tokens", **run(snippet("docs/security.md", "2. A route that issues tokens", "python")))


async def grant_of(token: str, document: str) -> Any:
    made = make_authenticator(AuthOptions(secret=SECRET))
    assert made is not None
    return await made.authenticate(AccessRequest(token, document, "127.0.0.1"))


async def test_a_server_is_embedded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_app: list[tuple[web.Application, dict[str, Any]]] = []
    monkeypatch.setattr(web, "run_app", lambda app, **options: run_app.append((app, options)))
    run(snippet("docs/quickstart.md", "In an aiohttp application of your own", "python"))
    ((app, options),) = run_app
    assert options == {"access_log": None}
    async with (
        TestServer(app) as server,
        LiveClient(f"ws://127.0.0.1:{server.port}/collab/ws/notes") as ada,
        LiveClient(f"ws://127.0.0.1:{server.port}/collab/ws/notes") as grace,
    ):
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await grace.until(lambda: str(grace.text()) == "hello", "the edit")
    assert (tmp_path / "data" / "collab.db").exists()


async def test_adapters_are_handed_in(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[str] = []

    class MyStore(MemoryStore):
        def __init__(self, where: str) -> None:
            super().__init__()
            made.append(where)

    values = run(snippet("docs/adapters.md", "A store", "python"), MyStore=MyStore)
    async with TestServer(values["app"]) as server, aiohttp.ClientSession() as http:
        assert (await http.get(server.make_url("/readyz"))).status == 200
    assert made == ["somewhere"] and not (tmp_path / "data" / "collab.db").exists()


async def test_a_bus_is_handed_in(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[str] = []

    class MyBus(LocalBus):
        def __init__(self, where: str) -> None:
            super().__init__(LocalExchange())
            started.append(where)

    values = run(snippet("docs/adapters.md", "A bus", "python"), MyBus=MyBus, create_app=create_app, Settings=Settings)
    async with TestServer(values["app"]) as server, aiohttp.ClientSession() as http:
        assert (await http.get(server.make_url("/readyz"))).status == 200
    assert started == ["somewhere"]


async def test_the_route_of_django_issues_a_token(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_JWT_SECRET", SECRET)
    tokens(modules)
    configure()
    from django.test import RequestFactory

    view = run(snippet("docs/security.md", "2. A route that issues tokens", "python", 2))["token"]
    request = RequestFactory().get("/collab-token")
    groups = SimpleNamespace(all=lambda: [SimpleNamespace(name="team-a")])
    request.user = SimpleNamespace(
        pk=17, is_authenticated=True, groups=groups, get_full_name=lambda: "", get_username=lambda: "Ada"
    )
    response = view(request)
    assert response["Content-Type"] == "text/plain" and "no-store" in response["Cache-Control"]
    granted = await grant_of(response.content.decode(), "team-a/plan")
    assert (granted.access, granted.user, granted.name) == (Access.WRITE, "17", "Ada")
    assert (await grant_of(response.content.decode(), "handbook")).access is Access.READ
    request.user = SimpleNamespace(is_authenticated=False)
    assert view(request).status_code == 302


async def test_the_route_of_fastapi_issues_a_token(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_JWT_SECRET", SECRET)
    tokens(modules)
    modules("users", User=SimpleNamespace, current_user=lambda: ADA)
    app = run(snippet("docs/security.md", "2. A route that issues tokens", "python", 3))["app"]
    status, headers, body = await ask(app, "GET", "/collab-token")
    assert status == 200 and headers["content-type"].startswith("text/plain"), body
    assert (await grant_of(body.decode(), "team-a/plan")).user == "17"


async def test_the_endpoint_of_fastapi_answers_the_server(modules: Any) -> None:
    modules("users", user_of_session={"session-1": ADA}.get)
    app = run(snippet("docs/security.md", "Asking the application instead", "python"))["app"]
    # What the document says that the server posts is what the endpoint takes.
    question = snippet("docs/security.md", "Asking the application instead", "json")
    status, _, body = await ask(app, "POST", "/collab/access", question.encode(), {"Content-Type": "application/json"})
    assert (status, json.loads(body)) == (401, {"reason": "sign in again"})
    async with TestServer(as_aiohttp(app)) as server:
        made = make_authenticator(AuthOptions(auth_url=str(server.make_url("/collab/access"))))
        assert made is not None
        await made.start()
        try:
            granted = await made.authenticate(AccessRequest("session-1", "team-a/plan", "192.0.2.1"))
            assert (granted.access, granted.user, granted.name) == (Access.WRITE, "17", "Ada")
            with pytest.raises(Unauthenticated) as unknown:
                await made.authenticate(AccessRequest("session-2", "team-a/plan", "192.0.2.1"))
            assert unknown.value.public == "sign in again"
            with pytest.raises(Forbidden) as foreign:
                await made.authenticate(AccessRequest("session-1", "team-b/plan", "192.0.2.1"))
            assert foreign.value.public == "this document is not shared with you"
        finally:
            await made.close()
