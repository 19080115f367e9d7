"""Documents that begin with content in formats that programs know, and resets to such content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from collab.transports.http.api.creation import MAX_PARTS, MAX_PARTS_BYTES
from tests.support.api import told
from tests.support.wsclient import LiveClient
from tests.transports.conftest import Serve, Served


class Api:
    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session, self._url = session, f"{served.url}/api/v1"

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            return response.status, await told(response)

    async def read(self, path: str, accept: str) -> Any:
        status, content = await self("GET", f"/content/{path}", Accept=accept)
        assert status == 200, content
        return content


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    served = await serve(max_new_documents_per_minute=0)
    async with aiohttp.ClientSession() as session:
        yield Api(session, served)


MARKDOWN = "# Plan\n\nFirst **this**, then:\n\n- one\n- two 😀\n"


async def test_a_document_begins_with_content_of_several_roots_and_formats(api: Api) -> None:
    content = [
        {"root": "prosemirror", "format": "markdown", "value": MARKDOWN},
        {"root": "code", "format": "text", "value": "print('ü😀')"},
        {"root": "settings", "format": "json", "value": {"theme": "dark", "sizes": [1, 2]}},
        {"root": "list", "format": "json", "value": [1, "two", None]},
    ]
    status, made = await api("POST", "/documents", {"name": "a", "title": "A", "content": content})
    assert (status, made["title"]) == (201, "A") and made["bytes"] > 0
    assert (await api.read("a?root=prosemirror", "text/markdown")).decode() == MARKDOWN
    assert await api.read("a", "application/json") == {
        "prosemirror": await api.read("a?root=prosemirror", "application/json"),
        "code": "print('ü😀')",
        "settings": {"theme": "dark", "sizes": [1, 2]},
        "list": [1, "two", None],
    }
    assert (await api("POST", "/documents", {"name": "a", "content": content}))[0] == 409
    assert (await api("POST", "/documents", {"name": "empty", "content": []}))[0] == 201


async def test_ten_that_seed_at_once_give_the_content_once(serve: Serve) -> None:
    served = await serve(max_new_documents_per_minute=0)
    async with aiohttp.ClientSession() as session, LiveClient(served.ws("seeded")) as client:
        api = Api(session, served)
        await client.until_synced()
        body = {"content": [{"root": "content", "format": "text", "value": "once"}]}
        answers = await asyncio.gather(*[api("PUT", "/documents/seeded", body) for _ in range(10)])
        assert sorted(status for status, _ in answers) == [200] * 9 + [201]
        await client.until(lambda: str(client.text("content")) == "once")
        # Those who come later change nothing either, whatever they bring.
        assert (await api("PUT", "/documents/seeded", body))[0] == 200
        assert await api.read("seeded", "application/json") == {"content": "once"}


async def test_no_content_is_made_for_a_document_that_is_there(api: Api) -> None:
    """It could not be made, so a call that tries to would be refused for that."""
    assert (await api("PUT", "/documents/there", {}))[0] == 201
    body = {"content": [{"root": "x", "format": "prosemirror", "value": {"type": "doc", "content": "none"}}]}
    assert (await api("PUT", "/documents/new", body))[0] == 422
    assert (await api("POST", "/documents", {"name": "new", **body}))[0] == 422
    assert (await api("PUT", "/documents/there", body))[0] == 200
    assert (await api("POST", "/documents", {"name": "there", **body}))[0] == 409
    assert (await api("DELETE", "/documents/there"))[0] == 204
    assert (await api("PUT", "/documents/there", body))[0] == 410
    assert (await api("POST", "/documents", {"name": "there", **body}))[0] == 422
    # A body that is not as described is refused all the same.
    assert (await api("POST", "/documents", {"name": "there"}))[0] == 201
    assert (await api("PUT", "/documents/there", {**body, "update": "AAA="}))[0] == 400


async def test_a_reset_puts_content_in_the_place_of_the_old(api: Api) -> None:
    old = {"root": "content", "format": "text", "value": "old"}
    await api(
        "POST", "/documents", {"name": "a", "content": [old, {"root": "gone", "format": "json", "value": {"a": 1}}]}
    )
    new = [{"root": "content", "format": "text", "value": "new"}]
    assert await api("POST", "/reset/a", {"content": new}) == (200, {"reset": 1})
    # What remains of the old map are the names of its keys, which nobody sees.
    assert await api.read("a", "application/json") == {"content": "new", "gone": {}}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"content": [{"root": "r", "format": "text", "value": 7}]}, 422, "text"),
        ({"content": [{"root": "r", "format": "word", "value": ""}]}, 400, "format"),
        ({"content": [{"root": "r", "format": "text"}]}, 400, "value"),
        ({"content": [{"root": "r", "format": "text", "value": "x"}] * 2}, 400, "twice"),
        ({"content": [{"root": "r", "format": "text", "value": "x"}], "update": "AAA="}, 400, "without"),
        ({"content": [{"root": "r" * 10_000, "format": "text", "value": "x"}]}, 400, "root"),
        (
            {"content": [{"root": f"r{number}", "format": "json", "value": 1} for number in range(MAX_PARTS + 1)]},
            400,
            "content",
        ),
        ({"content": [{"root": "r", "format": "text", "value": "x" * MAX_PARTS_BYTES}]}, 413, "content"),
        (
            {"content": [{"root": "r", "format": "prosemirror", "value": {"type": "doc", "content": [{"type": 7}]}}]},
            422,
            "",
        ),
    ],
)
async def test_content_that_cannot_be_written_makes_no_document(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    for method, path, more in (("PUT", "/documents/a", {}), ("POST", "/documents", {"name": "a"})):
        found, said = await api(method, path, {**body, **more})
        assert found == status and code in said, said
    assert (await api("GET", "/documents/a"))[0] == 404
