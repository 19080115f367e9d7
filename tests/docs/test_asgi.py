"""The pages about ASGI servers and FastAPI: their snippets, served as a reader would serve them."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
from packaging.requirements import Requirement
from starlette.requests import HTTPConnection

from collab.asgi import beside
from collab.auth.access import Grant
from collab.protocol.session import Access
from tests.docs.test_python import run
from tests.support.asgi import AsgiServer
from tests.support.django import configure
from tests.support.snippets import ROOT, snippet
from tests.support.sqlite import migrated
from tests.support.wsclient import LiveClient, RawClient, step1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be in an empty folder, in which the database of the snippets is migrated."""
    monkeypatch.chdir(tmp_path)
    migrated(tmp_path / "data")
    yield tmp_path


@contextlib.asynccontextmanager
async def served(app: Any, command: str | None = None) -> AsyncIterator[str]:
    """Serve an application by uvicorn, with the options of a command on a page."""
    options = {}
    if command is not None:
        program, where, *rest = shlex.split(command)
        assert (program, where) == ("uvicorn", "main:app")
        assert rest[0] == "--timeout-graceful-shutdown" and len(rest) == 2
        options["timeout_graceful_shutdown"] = int(rest[1])
    server = AsgiServer("uvicorn", app, **options)
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()


async def edits(url: str) -> None:
    async with LiveClient(url) as one, LiveClient(url) as two:
        one.text().insert(0, "hello")
        await two.until(lambda: str(two.text()) == "hello", "what the other has typed")


async def test_an_application_of_its_own(here: Path) -> None:
    app = run(snippet("docs/asgi.md", "As an application of its own", "python"))["app"]
    async with served(app, snippet("docs/asgi.md", "As an application of its own", "sh")) as address:
        await edits(f"ws://{address}/ws/d")


async def test_in_django(here: Path) -> None:
    configure()
    values = run(snippet("docs/asgi.md", "Mounted", "python"))
    assert values["beside"] is beside
    async with served(values["application"]) as address:
        await edits(f"ws://{address}/collab/ws/d")
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/") as response:
            assert (response.status, await response.text()) == (200, "home")


async def test_in_fastapi(here: Path) -> None:
    app = run(snippet("docs/fastapi.md", "Mount it", "python"))["app"]

    @app.post("/sign-in")
    async def sign_in(request: HTTPConnection) -> None:
        request.session["user"] = "ada"

    async with (
        served(app, snippet("docs/fastapi.md", "Mount it", "sh")) as address,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        async with session.post(f"http://{address}/sign-in") as response:
            cookie = {"Cookie": f"session={response.cookies['session'].value}"}
        for headers, document, status in (
            (cookie, "ada%2Fnotes", 404),
            (cookie, "other", 404),
            ({}, "other", 403),
        ):
            async with session.get(f"http://{address}/collab/api/v1/documents/{document}", headers=headers) as response:
                assert response.status == status, document
        client = RawClient(f"ws://{address}/collab/ws/ada%2Fnotes")
        await client.connect(cookie)
        await client.send(step1())
        await client.barrier()
        await client.close()


async def test_the_function_that_asks_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    users = ModuleType("users")
    ada = SimpleNamespace(id="17", name="Ada")

    async def find_user(session: str | None) -> Any:
        return ada if session == "s1" else None

    async def may_edit(user: Any, document: str) -> bool:
        return document == "hers"

    vars(users).update(User=SimpleNamespace, find_user=find_user, may_edit=may_edit)
    monkeypatch.setitem(sys.modules, "users", users)
    values = run(snippet("docs/fastapi.md", "authorize", "python"))
    authorize = values["authorize"]
    known = HTTPConnection({"type": "websocket", "headers": [(b"cookie", b"session=s1")]})
    grant = await authorize(known, "hers")
    assert isinstance(grant, Grant) and (grant.access, grant.user, grant.name) == (Access.WRITE, "17", "Ada")
    assert grant.check_at is not None and 50 < grant.check_at - time.time() <= 60
    assert (await authorize(known, "another")).access is Access.READ
    with pytest.raises(values["HTTPException"]) as refused:
        await authorize(HTTPConnection({"type": "websocket", "headers": []}), "hers")
    assert refused.value.status_code == 401


def test_what_is_installed_is_there() -> None:
    command, verb, *wanted = shlex.split(snippet("docs/fastapi.md", "In FastAPI or Starlette", "sh"))
    assert (command, verb) == ("pip", "install")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = Requirement(wanted[0])
    assert ours.name == project["name"] and ours.extras <= project["optional-dependencies"].keys()
    for name in (Requirement(text).name for text in wanted[1:]):
        __import__(name)


def test_the_figures_are_made_by_a_command() -> None:
    python, option, module, *rest = shlex.split(snippet("docs/benchmarks.md", "Below ASGI servers", "sh"))
    assert (python, option, rest) == ("python", "-m", ["--write"])
    assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()
