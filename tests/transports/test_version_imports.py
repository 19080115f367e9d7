"""``/api/v1/import-versions``: many versions of another system, exact, and whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import SandboxBusy, SandboxCrashed
from collab.hub.versions import Versions
from collab.protocol.session import Access as AccessKind
from collab.storage.versions import MAX_NAMED
from tests.support.api import told
from tests.support.stores import backend  # noqa: F401
from tests.support.wsclient import text_update
from tests.transports.conftest import Serve, Served

NDJSON = "application/x-ndjson"


class People:
    """Lets everybody in; what he may is his token."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        return Grant(AccessKind(request.token or "admin"), "u")


class Api:
    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session, self._url = session, f"{served.url}/api/v1"

    async def import_(self, lines: Any, path: str = "d", kind: str = NDJSON, **headers: str) -> tuple[int, Any]:
        if isinstance(lines, list):
            lines = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode()
        data = io.BytesIO(lines) if isinstance(lines, bytes) else lines
        url, sent = f"{self._url}/import-versions/{path}", {"Content-Type": kind, **headers}
        async with self._session.post(url, data=data, headers=sent) as response:
            return response.status, await told(response)

    async def versions(self) -> list[dict[str, Any]]:
        async with self._session.get(f"{self._url}/versions/d?kind=named&limit=500") as response:
            found: list[dict[str, Any]] = (await told(response))["versions"]
            return found

    async def text(self, version: int) -> str:
        async with self._session.get(f"{self._url}/content/d?version={version}&format=text&root=text") as response:
            assert response.status == 200
            return await response.text()

    async def begin(self) -> None:
        url = f"{self._url}/content/d?root=text&type=text"
        async with self._session.put(url, data="now", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 200


def line(number: int, **changes: Any) -> dict[str, Any]:
    update = base64.b64encode(text_update(7, f"text {number}")).decode()
    at = f"2019-05-01T12:{number // 60:02}:{number % 60:02}+02:00"
    return {"name": f"old {number}", "at": at, "author": "bob", "update": update} | changes


@pytest.fixture
def database(backend: str, request: pytest.FixtureRequest) -> dict[str, str]:  # noqa: F811
    """The options of the database under test; not asynchronous, for migrating runs a loop of its own."""
    return {"database_url": request.getfixturevalue("postgres_url")} if backend == "postgresql" else {}


@pytest.fixture
async def served(serve: Serve, database: dict[str, str]) -> Served:
    return await serve(authenticator=People(), max_document_bytes=1 << 20, **database)


@pytest.fixture
async def api(served: Served, session: aiohttp.ClientSession) -> Api:
    api = Api(session, served)
    await api.begin()
    return api


async def test_versions_come_in_with_their_times_and_may_be_sent_again(api: Api) -> None:
    lines = [line(number, description="of the wiki", more=1) for number in range(60)]
    done = {"lines": 60, "created": 60, "existed": 0, "failed": 0, "failures": []}
    assert await api.import_(lines) == (200, done)
    found = {each["name"]: each for each in await api.versions()}
    assert len(found) == 60
    one = found["old 17"]
    assert (one["number"], one["reason"], one["author"], one["at"], one["description"]) == (
        None, "imported", "bob", "2019-05-01T10:00:17.000Z", "of the wiki",
    )  # fmt: skip
    assert await api.text(one["id"]) == "text 17"
    # As it was sent, and with more behind it: only that is new.
    again = await api.import_([*lines, line(60), line(60)])
    assert again == (200, {"lines": 62, "created": 1, "existed": 61, "failed": 0, "failures": []})
    assert len(await api.versions()) == 61


async def test_a_line_that_fails_is_told_by_name_and_hinders_no_other(api: Api) -> None:
    lines = [
        line(0),
        line(1, update="AQE="),
        line(2, update="not base64"),
        line(3, at="yesterday"),
        line(4, name="two\nlines"),
        line(5, name="x" * 201),
        {"name": "nothing else"},
        "no JSON",
        line(6, update=base64.b64encode(bytes((1 << 20) + 1)).decode()),
        "",
        line(7),
    ]
    status, said = await api.import_(lines)
    assert (status, said["lines"], said["created"], said["failed"]) == (200, 10, 2, 8)
    assert [(each["line"], each["name"], each["code"]) for each in said["failures"]] == [
        (2, "old 1", "invalid_update"),
        (3, "old 2", "invalid_request"),
        (4, "old 3", "invalid_request"),
        (5, "two\nlines", "invalid_request"),
        (6, None, "invalid_request"),
        (7, None, "invalid_request"),
        (8, None, "invalid_request"),
        (9, "old 6", "too_large"),
    ]
    assert all(each["detail"] for each in said["failures"])
    assert [each["name"] for each in await api.versions()] == ["old 7", "old 0"]


async def test_more_than_a_document_may_have_are_told(api: Api) -> None:
    status, said = await api.import_([line(number) for number in range(MAX_NAMED + 3)])
    assert (status, said["created"], said["failed"]) == (200, MAX_NAMED, 3)
    assert {each["code"] for each in said["failures"]} == {"not_possible"}


async def test_who_asks_for_it_is_told_meanwhile(served: Served, session: aiohttp.ClientSession, api: Api) -> None:
    heard = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(line(0)).encode() + b"\nno JSON\n"
        await asyncio.wait_for(heard.wait(), 60)
        yield json.dumps(line(1)).encode()

    url, headers = f"{served.url}/api/v1/import-versions/d", {"Content-Type": NDJSON, "Accept": NDJSON}
    async with session.post(url, data=body(), headers=headers) as response:
        assert response.status == 200
        first = json.loads(await response.content.readline())
        heard.set()
        lines = [first, *[json.loads(one) async for one in response.content]]
    assert first["end"] is False and first["created"] == 0
    assert [one["end"] for one in lines[1:]] == [False] * (len(lines) - 2) + [True]
    assert (lines[-1]["created"], lines[-1]["failed"]) == (2, 1)
    assert [each["line"] for one in lines for each in one["failures"]] == [2]


async def test_what_ends_it_is_told_and_what_came_before_stays(api: Api) -> None:
    long = line(1, update="A" * (3 << 20))
    status, said = await api.import_([line(0), long, line(2)])
    assert (status, said) == (413, "a line has at most 1414488 bytes (behind version 1)")
    assert [each["name"] for each in await api.versions()] == ["old 0"]
    assert (await api.import_([line(0), line(2)]))[1]["created"] == 1


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_sandbox_without_room_ends_it_and_one_that_crashes_does_not(
    api: Api, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = served.app[HUB].versions._sandbox
    compact, errors = sandbox.compact, [SandboxCrashed("it died"), SandboxBusy("too much waits")]

    async def failing(data: bytes, gc: bool) -> Any:
        if errors and (b"text 1" in data or b"text 3" in data):
            raise errors.pop(0)
        return await compact(data, gc)

    monkeypatch.setattr(sandbox, "compact", failing)
    status, said = await api.import_([line(number) for number in range(5)])
    assert (status, said) == (503, SandboxBusy.public)
    assert sorted(each["name"] for each in await api.versions()) == ["old 0", "old 2"]
    status, said = await api.import_([line(number) for number in range(5)])
    assert (status, said["created"], said["existed"]) == (200, 3, 2)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_who_may_and_what_is_no_stream(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Versions.import_

    async def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr(Versions, "import_", never)
    for token in ("read", "write"):
        status, said = await api.import_([line(0)], Authorization=f"Bearer {token}")
        assert (status, said) == (403, "this needs admin access")
    assert (await api.import_([line(0)], "none"))[0] == 404
    assert (await api.import_([line(0)], kind="application/json"))[0] == 415
    monkeypatch.setattr(Versions, "import_", kept)
    assert (await api.import_(b""))[1]["lines"] == 0
