"""The description of the HTTP API: valid, complete and readable."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from collab import errors
from collab.auth.access import AccessRequest, Grant
from collab.errors import Unauthenticated
from collab.protocol.session import Access
from collab.storage.webhooks import KINDS as KINDS_OF_EVENTS
from collab.transports.http.api.page import render
from collab.transports.http.api.route import PREFIX
from collab.transports.problems import KINDS, code_of
from tests.support.api import check_event, description, told
from tests.support.errors import every_error
from tests.support.snippets import ROOT
from tests.transports.conftest import Serve

OPERATIONS = [(method, path) for path, operations in description()["paths"].items() for method in operations]


def test_the_description_is_valid() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(description()).iter_errors()] == []


async def test_every_route_is_described_and_every_description_is_served(serve: Serve) -> None:
    served = await serve()
    routes = {
        (route.method, re.sub(r"\{(\w+)(:[^}]*)?\}", r"{\1}", route.resource.canonical))
        for route in served.app.router.routes()
        if route.resource is not None
        and route.resource.canonical.startswith((PREFIX, "/.well-known/"))
        and route.method not in ("*", "HEAD")
    } - {("GET", f"{PREFIX}/openapi.json")}
    assert routes == {(method.upper(), path) for method, path in OPERATIONS}


def test_every_event_of_webhooks_is_described() -> None:
    described = description()["webhooks"]
    assert [*described] == [*KINDS_OF_EVENTS]
    schemas = description()["components"]["schemas"]
    for kind, operations in described.items():
        reference = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert schemas[reference.rsplit("/", 1)[1]]["properties"]["type"]["const"] == kind
        with pytest.raises(AssertionError):
            check_event({"type": kind, "timestamp": "2026-11-30T09:30:00.250Z", "data": {"document": "d"}})


async def test_the_description_and_its_page_are_served_without_a_token(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve("/below", jwt_secret="s" * 32)
    async with session.get(f"{served.url}{PREFIX}/openapi.json") as response:
        assert response.status == 200 and await response.json() == description()
    async with session.get(f"{served.url}/api/docs") as response:
        policy, page = response.headers["Content-Security-Policy"], await response.text()
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.findall(r"(?:src|href)=[\"'](?!#|v1/openapi.json)", page), "it loads nothing"
    for code in KINDS:
        assert f"<code>{code}</code>" in page
    for link in re.findall(r"href='#([^']+)'", page):
        assert f"id='{link}'" in page or f'id="{link}"' in page, link
    for method, path in OPERATIONS:
        assert f"<span class='method'>{method.upper()}</span><code>{path}</code>" in page


def test_the_page_escapes_what_it_shows() -> None:
    evil = description() | {"info": {"title": "<script>x</script>", "description": "`<b>`", "version": "1"}}
    page = render(evil)
    assert "<script" not in page and "<b>" not in page and "<code>&lt;b&gt;</code>" in page


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "unknown_resource"),
        ("GET", "/api/v1/documents/", 404, "unknown_resource"),
        ("PUT", "/api/v1/documents", 405, "method_not_allowed"),
        ("PROPFIND", "/api/v1/documents/a", 405, "method_not_allowed"),
        ("GET", "/api/v1/control", 405, "method_not_allowed"),
        ("GET", "/api/v1/documents?lmit=5", 400, "invalid_request"),
        ("GET", "/api/v1/documents?limit=5&limit=6", 400, "invalid_request"),
        ("GET", "/api/v1/documents?cursor=%C3%A4", 400, "invalid_request"),
        ("GET", "/api/v1/documents?cursor=AAAA", 400, "invalid_request"),
        ("GET", "/api/v1/documents/%20", 400, "invalid_name"),
    ],
)
async def test_what_asks_for_nothing_that_is_here_is_told_as_a_problem(
    serve: Serve, session: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    served = await serve()
    async with session.request(method, served.url + path) as response:
        problem = await response.json()
        assert (response.status, problem["code"], problem["status"]) == (status, code, status)
        assert response.content_type == "application/problem+json"
        assert await told(response) == problem["detail"]
        if status == 405:
            assert "GET" in response.headers["Allow"] or "POST" in response.headers["Allow"]


async def test_a_name_may_have_slashes_either_way(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    name = "team/notes ü/%2F/openapi.json"
    async with session.post(f"{served.url}{PREFIX}/documents", json={"name": name}) as response:
        assert response.status == 201
    for address in (quote(name, safe="/"), quote(name, safe="")):
        async with session.get(f"{served.url}{PREFIX}/documents/{address}", allow_redirects=False) as response:
            assert (await told(response))["name"] == name


def test_every_error_that_may_be_told_has_a_code() -> None:
    # Those that no request of the API can meet: they end a start, a session, a stream, or are defects.
    without = {
        errors.CollabError,
        errors.ConfigurationError,
        errors.CannotListen,
        errors.ProtocolError,
        errors.InternalError,
        errors.InvalidTransition,
        errors.AccessError,
        errors.Kicked,
        errors.DocumentError,
        errors.StoreError,
        errors.SchemaError,
        errors.OffsetExpired,
    }
    told_so = {kind for kind in every_error() if code_of(kind.__new__(kind)) == "internal"}
    assert told_so == without


class Anybody:
    """Lets whoever has the token ``admin`` do everything."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if request.token != "admin":
            raise Unauthenticated("another token", public="a valid token is needed")
        return Grant(Access.ADMIN, "u-1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("authenticator", "token", "options"),
    [
        (None, None, ("--phases=coverage,fuzzing", "--max-examples=10")),
        (Anybody(), "admin", ("--phases=fuzzing", "--max-examples=10")),
        # Who comes without a good token waits for each answer.
        (Anybody(), None, ("--phases=fuzzing", "--max-examples=1")),
    ],
    ids=["open", "token", "none"],
)
async def test_whatever_is_asked_is_answered_as_described(
    serve: Serve, tmp_path: Path, authenticator: Anybody | None, token: str | None, options: tuple[str, ...]
) -> None:
    served = await serve(authenticator=authenticator, max_new_documents_per_minute=0)
    run = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{served.url}{PREFIX}/openapi.json",
        "--checks=all",
        # Rules between fields and about what exists are beyond a schema, and 401 is right without a token.
        "--exclude-checks=positive_data_acceptance,ignored_auth",
        *options,
        "--seed=1",
        "--no-color",
        *(("--header", f"Authorization: Bearer {token}") if token else ()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.support.exploring"},
    )
    output = (await run.communicate())[0].decode()
    assert run.returncode == 0, output[-8_000:]
    assert re.search(r"([1-9]\d+) generated, \1 passed", output), output[-2_000:]
