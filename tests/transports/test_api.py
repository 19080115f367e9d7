"""``/api/v1/documents`` over the whole application, with real clients in the documents."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import Forbidden, Unauthenticated
from collab.protocol.session import Access
from collab.transports.http.api.cursors import decode_cursor
from collab.transports.problems import BadRequest
from tests.support.api import told
from tests.support.wsclient import LiveClient, RawClient, awareness, step2, text_update
from tests.transports.conftest import Serve, Served


class Api:
    """A client of the listing that gives status and body."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def __call__(self, method: str, path: str = "", body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["json"] = body
        async with self._session.request(method, f"{self.url}/api/v1/documents{path}", **options) as response:
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await told(response)

    async def names(self, query: str = "", **options: Any) -> list[str]:
        status, page = await self("GET", query, **options)
        assert status == 200, page
        return [document["name"] for document in page["documents"]]


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


@pytest.fixture
def api(served: Served, session: aiohttp.ClientSession) -> Api:
    return Api(session, served.url)


async def write(served: Served, name: str, text: str = "hello") -> None:
    """Put a text into a document, and return when it is stored."""
    async with LiveClient(served.ws(name)) as client:
        await client.until_synced()
        client.text().insert(0, text)
        await client.barrier()
    await served.app[HUB].rooms[name].persistence.durable()


async def test_a_document_is_listed_with_its_dates_its_size_and_who_is_in_it(served: Served, api: Api) -> None:
    assert await api("GET") == (200, {"documents": [], "next": None})
    ada = json.dumps({"user": {"name": "Ada", "color": "#0067a8", "colorLight": "#0067a833"}, "cursor": None})
    async with RawClient(served.ws("text/notes")) as client:
        await client.send(step2(text_update(7, "hello")), awareness((7, 1, ada)), awareness((8, 1, '{"user": 1}')))
        await client.barrier()
        await served.app[HUB].rooms["text/notes"].persistence.durable()
        status, page = await api("GET")
        assert status == 200
        (document,) = page["documents"]
        assert document["participants"] == [{"name": "Ada", "color": "#0067a8"}]
        assert document["connections"] == 1
    created, updated = (datetime.fromisoformat(document[key]) for key in ("created_at", "updated_at"))
    assert created.tzinfo is not None and created <= updated
    assert list(document) == [
        *("name", "title", "metadata", "access", "created_at", "updated_at", "bytes", "participants", "connections")
    ]
    assert document["access"] == "admin", "nobody has to show a token here"
    assert (document["name"], document["title"], document["bytes"]) == (
        "text/notes",
        None,
        len(text_update(7, "hello")),
    )
    assert await api("GET", "/text/notes") == (200, await one(api, "text/notes"))


async def one(api: Api, name: str) -> Any:
    return next(document for document in (await api("GET"))[1]["documents"] if document["name"] == name)


async def test_pages_follow_each_other_by_name(served: Served, api: Api) -> None:
    for name in ("a", "text/1", "text/2 ä%?", "text/3", "z"):
        assert (await api("POST", "", {"name": name}))[0] == 201
    status, first = await api("GET", "?limit=2&prefix=text/")
    assert [document["name"] for document in first["documents"]] == ["text/1", "text/2 ä%?"]
    status, second = await api("GET", "", params={"limit": "2", "prefix": "text/", "cursor": first["next"]})
    assert [document["name"] for document in second["documents"]] == ["text/3"] and second["next"] is None
    assert await api.names() == ["a", "text/1", "text/2 ä%?", "text/3", "z"]


async def test_a_title_is_shown_instead_of_nothing_else_changes(served: Served, api: Api) -> None:
    await write(served, "text/ä b")
    before = await one(api, "text/ä b")
    status, changed = await api("PATCH", "/text/%C3%A4%20b", {"title": "  Minutes ✓ "})
    assert (status, changed) == (200, {**before, "title": "Minutes ✓"})
    assert await one(api, "text/ä b") == changed
    assert (await api("PATCH", "/text/%C3%A4%20b", {"title": None}))[1] == before


async def test_a_title_may_come_at_once_after_the_first_edit(served: Served, api: Api) -> None:
    async with LiveClient(served.ws("fresh")) as client:
        await client.until_synced()
        client.text().insert(0, "x")
        await client.barrier()
        assert (await api("PATCH", "/fresh", {"title": "Fresh"}))[0] == 200


async def test_deleting_ends_the_document_for_everybody_in_it(served: Served, api: Api) -> None:
    async with LiveClient(served.ws("gone"), keep=True) as client:
        await client.until_synced()
        client.text().insert(0, "x")
        await client.barrier()
        await served.app[HUB].rooms["gone"].persistence.durable()
        assert await api("DELETE", "/gone") == (204, None)
        assert await client.expect_close() == 4404
    assert await api.names() == []
    assert (await api("DELETE", "/gone"))[0] == 404
    assert (await api("GET", "/gone"))[0] == 410
    assert (await api("PATCH", "/gone", {"title": "x"}))[0] == 410
    assert (await api("POST", "", {"name": "gone", "title": "again"}))[0] == 201
    assert (await one(api, "gone"))["title"] == "again"


async def test_creating_what_lives_is_a_conflict(api: Api) -> None:
    status, document = await api("POST", "", {"name": "new", "title": "New"})
    assert (status, document["name"], document["title"], document["bytes"]) == (201, "new", "New", 0)
    assert await api("POST", "", {"name": "new"}) == (409, "the document exists already")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "?limit=0", None, 400),
        ("GET", "?limit=1001", None, 400),
        ("GET", "?limit=" + "9" * 5000, None, 400),
        ("GET", "?limit=ten", None, 400),
        ("GET", "/nothing", None, 404),
        ("GET", "/" + "x" * 513, None, 400),
        ("GET", "/%FF", None, 400),
        ("PATCH", "/nothing", {"title": "x"}, 404),
        ("PATCH", "/nothing", {"title": ""}, 400),
        ("PATCH", "/nothing", {"title": "x" * 201}, 400),
        ("PATCH", "/nothing", {"title": "two\nlines"}, 400),
        ("PATCH", "/nothing", {"title": "\ud800"}, 400),
        ("PATCH", "/nothing", {"title": 1}, 400),
        ("PATCH", "/nothing", {}, 400),
        ("POST", "", {}, 400),
        ("POST", "", {"name": ""}, 400),
        ("POST", "", {"name": "a\0b"}, 400),
        ("POST", "", {"name": "\ud800"}, 400),
        ("POST", "", [], 400),
        ("PATCH", "/nothing", {"title": "x", "more": "x" * 20_000}, 413),
        ("POST", "", {"name": "x", "update": "!"}, 400),
        ("POST", "", {"name": "x", "update": "AAE="}, 400),
        ("POST", "", {"name": "x", "metadata": {"a": []}}, 400),
        ("POST", "", {"name": "x", "metadata": {"a": "x" * 4_090, "b": "x"}}, 400),
        ("POST", "", {"name": "x", "metadata": {"k" * 65: 1}}, 400),
        ("POST", "", {"name": "x", "metadata": {f"k{n}": n for n in range(33)}}, 400),
        ("PATCH", "/nothing", {"metadata": {"a": {}}}, 400),
        ("PATCH", "/nothing", {"metadata": {"a": 1}}, 404),
        ("PATCH", "/nothing", {"metadata": {"a": 1}, "name": "x"}, 400),
        ("PUT", "/x", [], 400),
        ("PUT", "/x", {"name": "x"}, 400),
        ("PUT", "/x", {"update": "AAE="}, 400),
        ("DELETE", "/nothing?erase=perhaps", None, 400),
        ("DELETE", "/nothing?erase=true", None, 404),
        ("GET", "?order=bytes", None, 400),
        ("GET", "?order=size&cursor=bmE", None, 400),
        ("GET", "?order=size&cursor=c2EgYQ", None, 400),
        ("GET", "?order=size&cursor=dTEuMCBh", None, 400),
        ("GET", "?order=updated&cursor=bmE", None, 400),
        ("GET", "?order=updated&cursor=dW5hbiBh", None, 400),
        ("GET", "?cursor=dTEuMCBh", None, 400),
        ("DELETE", "/nothing", None, 404),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_sentence(
    api: Api, method: str, path: str, body: Any, status: int
) -> None:
    found, answer = await api(method, path, body)
    assert found == status and isinstance(answer, str)


@pytest.mark.parametrize("data", [b"{", b"[" * 9000, b"\xff", b""])
async def test_what_is_no_json_is_refused(api: Api, data: bytes) -> None:
    assert (await api("POST", data=data, headers={"Content-Type": "application/json"}))[0] == 400


async def test_what_a_foreign_page_could_send_unasked_is_refused(api: Api) -> None:
    form = json.dumps({"name": "evil"}).encode()
    assert (await api("POST", data=form, headers={"Content-Type": "text/plain"}))[0] == 415
    assert await api.names() == []


async def test_a_hostile_awareness_state_is_nobody(served: Served, api: Api) -> None:
    states = [
        '{"user":' * 500 + "1" + "}" * 500,
        '{"user":{"name":"\\ud800"}}',
        json.dumps({"user": {"name": "x" * 5000}}),
    ]
    async with RawClient(served.ws("busy")) as client:
        await client.send(step2(text_update(7, "x")))
        await client.send(*(awareness((number, 1, state)) for number, state in enumerate(states, 10)))
        await client.barrier()
        await served.app[HUB].rooms["busy"].persistence.durable()
        assert (await one(api, "busy"))["participants"] == [{"name": "?", "color": ""}]


async def test_the_largest_are_listed_first(served: Served, api: Api) -> None:
    for name, text in (("a", "hello" * 4), ("b", "hello" * 100), ("c/1", "hello"), ("c/2", "hello" * 10)):
        await write(served, name, text)
    assert await api.names("?order=size") == ["b", "c/2", "a", "c/1"]
    assert await api.names("?order=size&prefix=c/") == ["c/2", "c/1"]
    found, cursor = [], ""
    for _ in range(4):
        page = (await api("GET", f"?order=size&limit=1{cursor}"))[1]
        found += [(each["name"], each["bytes"]) for each in page["documents"]]
        cursor = f"&cursor={page['next']}"
    assert [name for name, _ in found] == ["b", "c/2", "a", "c/1"] and page["next"] is None
    assert [size for _, size in found] == sorted([size for _, size in found], reverse=True)


class Scripted:
    """Grant to the token ``<access>:<prefix>`` what begins with the prefix."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        access, _, prefix = request.token.partition(":")
        if access not in ("admin", "write", "read"):
            raise Unauthenticated("no token")
        if not request.document_name.startswith(prefix):
            raise Forbidden("not yours")
        return Grant(Access(access), "ada")


async def test_each_token_sees_and_does_what_it_may(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, (await serve(authenticator=Scripted())).url)

    def bearer(token: str) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {token}"}}

    unknown = (401, "a valid token is needed")
    assert await api("GET", **bearer("nonsense")) == unknown, "although there is nothing to list"
    root, writer, reader = bearer("admin:"), bearer("write:a/"), bearer("read:a/")
    for name in ("a/1", "a/2", "b/1"):
        assert (await api("POST", "", {"name": name}, **root))[0] == 201
    assert await api.names(**root) == ["a/1", "a/2", "b/1"]
    assert await api.names(**reader) == ["a/1", "a/2"]
    assert [(await api("GET", "/a/1", **token))[1]["access"] for token in (root, writer, reader)] == [
        *("admin", "write", "read")
    ]
    assert {one["access"] for one in (await api("GET", **writer))[1]["documents"]} == {"write"}
    page = (await api("GET", "?limit=2", **bearer("read:b/")))[1]
    assert page["documents"] == [], "both are left out, and there is more"
    with pytest.raises(BadRequest):
        decode_cursor("n", page["next"])  # it shows nothing of them
    recent = (await api("GET", "?limit=1&order=updated", **bearer("read:a/")))[1]
    assert recent["documents"] == []
    with pytest.raises(BadRequest):
        decode_cursor("u", recent["next"])
    assert await api.names(f"?order=updated&cursor={recent['next']}", **bearer("read:a/")) == ["a/2", "a/1"]
    assert await api.names(f"?limit=2&cursor={page['next']}", **bearer("read:b/")) == ["b/1"]
    for token in (writer, reader):
        assert (await api("GET", "?order=size", **token))[0] == 403, "it is a look at all documents"
    assert await api.names("?order=size", **root) == ["a/1", "a/2", "b/1"]
    assert await api("GET") == (401, "a token is needed")
    assert await api("GET", **bearer("nonsense")) == unknown
    assert (await api("GET", "/a/1"))[0] == 401
    for token, patch, delete in ((reader, 403, 403), (writer, 200, 403), (root, 200, 204)):
        assert (await api("GET", "/a/1", **token))[0] == 200
        assert (await api("PATCH", "/a/1", {"title": "x"}, **token))[0] == patch
        assert (await api("DELETE", "/a/1", **token))[0] == delete
    assert (await api("GET", "/b/1", **writer))[0] == 403
    assert (await api("POST", "", {"name": "b/2"}, **writer))[0] == 403
    assert (await api("POST", "", {"name": "a/3"}, **reader))[0] == 403
    assert (await api("POST", "", {"name": "a/3"}, **writer))[0] == 201
