"""``/api/v1/content`` and ``/api/v1/updates`` over the whole application, with real clients in the documents."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from pycrdt import Map

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import Unauthenticated, UnreadableContent
from collab.protocol.session import Access
from tests.sandbox.test_conformance import HOOK
from tests.support.api import check
from tests.support.author import Author, content
from tests.support.wsclient import LiveClient
from tests.transports.conftest import Serve, Served

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/json-patch+json"}


class Said(NamedTuple):
    status: int
    body: Any
    headers: Any

    @property
    def etag(self) -> str:
        return str(self.headers["ETag"])

    @property
    def code(self) -> str:
        return str(self.body["code"])


class Api:
    """A client that gives status, body and headers, each compared with the description."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def __call__(self, method: str, path: str, body: Any = None, /, **headers: str) -> Said:
        options: dict[str, Any] = {"headers": {key.replace("_", "-"): value for key, value in headers.items()}}
        if isinstance(body, bytes | str):
            options["data"] = io.BytesIO(body if isinstance(body, bytes) else body.encode())
        elif body is not None:
            options["json"] = body
        async with self._session.request(method, f"{self.url}/api/v1/{path}", **options) as response:
            data = await response.read()
            check(method, response.url.path, response.status, response.headers.get("Content-Type", ""), data)
            assert response.headers["Cache-Control"] == "no-store"
            body = json.loads(data) if "json" in response.content_type and data else data
            return Said(response.status, body, response.headers)

    async def text(self, name: str, root: str = "t") -> str:
        said = await self("GET", f"content/{name}?root={root}", Accept="text/plain")
        assert said.status == 200, said
        return str(said.body.decode())

    async def apply(self, name: str, update: bytes, **headers: str) -> Said:
        return await self("POST", f"updates/{name}", update, **{**OCTETS, **headers})

    async def edit(self, name: str, *edits: dict[str, Any], **headers: str) -> Said:
        return await self("PATCH", f"content/{name}", {"edits": edits}, **headers)


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


@pytest.fixture
def api(served: Served, session: aiohttp.ClientSession) -> Api:
    return Api(session, served.url)


def insert(at: int, text: str, root: str = "t") -> dict[str, Any]:
    return {"op": "insert", "root": root, "at": at, "text": text}


async def test_an_update_is_applied_relayed_and_given_again(served: Served, api: Api) -> None:
    author = Author(7)
    async with LiveClient(served.ws("a/b")) as client:
        await client.until_synced()
        said = await api.apply("a/b", author.type("hello"))
        assert (said.status, said.body) == (200, {"changed": True, "committed": True, "number": 1})
        await client.until(lambda: str(client.text("t")) == "hello", "it is relayed")
    shown = await api("GET", "updates/a%2Fb")
    assert (shown.status, content(shown.body), shown.etag) == (200, "hello", said.etag)
    again = await api.apply("a/b", author.updates[0])
    assert again.body == {"changed": False, "committed": True, "number": 1} and again.etag == said.etag
    vector = base64.urlsafe_b64encode(author.doc.get_state()).decode().rstrip("=")
    assert (await api("GET", f"updates/a/b?state_vector={vector}")).body == b"\0\0"
    await api.apply("a/b", author.type(" world"))
    lacking = await api("GET", f"updates/a/b?state_vector={vector}")
    reader = Author(0)
    reader.read(author.updates[0])
    assert reader.read(lacking.body) == "hello world" and len(lacking.body) < len(author.doc.get_update())


async def test_long_content_is_given_as_it_is_and_as_it_was(api: Api) -> None:
    author = Author(7)
    long = "ä long text, " * 20_000
    await api.apply("d", author.type(long))
    await api.apply("d", author.type("and more"))
    for query, text in (("", long + "and more"), ("number=1&", long)):
        shown = await api("GET", f"content/d?{query}root=t", Accept="text/plain")
        assert (shown.status, shown.body.decode()) == (200, text)
        assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert int(shown.headers["Content-Length"]) == len(text.encode())
        shown = await api("GET", f"content/d?{query}root=t&format=json")
        assert (shown.status, shown.body) == (200, text)


async def test_what_is_refused_says_why_with_a_code(api: Api) -> None:
    assert (await api("GET", "updates/nothing")).code == "document_not_found"
    assert (await api("GET", "content/nothing")).code == "document_not_found"
    assert (await api.apply("d", b"\1")).code == "invalid_update"
    author = Author(1)
    author.type("a")
    said = await api.apply("d", author.type("b"))
    assert (said.status, said.code) == (409, "update_incomplete")
    assert (await api("GET", "content/d")).code == "document_not_found", "nothing of it was taken"
    assert (await api("POST", "updates/d", b"\0\0", Content_Type="text/plain")).status == 415
    for vector in ("!", "AA", "zzzzz", "a" * 6_001):
        assert (await api("GET", f"updates/d?state_vector={vector}")).status in (400, 404)
    await api.apply("d", author.updates[0])
    for vector in ("!", "zzzz", "a" * 6_000):
        assert (await api("GET", f"updates/d?state_vector={vector}")).code == "invalid_request"
    assert (await api("GET", "content/d?root=absent")).code == "content_not_found"
    assert (await api("GET", "content/d", Accept="image/png")).code == "not_acceptable"
    assert (await api("PUT", "content/d?root=t", "x", Content_Type="image/png")).status == 415
    assert (await api("PUT", "content/d?root=t", b"\xff", Content_Type="text/plain")).status == 422
    assert (await api("PUT", "content/d?root=t", "x", Content_Type="text/plain; charset=latin-1")).status == 415
    assert (await api("PUT", "content/d?root=m", "{", Content_Type="application/json")).status == 422
    assert (await api("PUT", "content/d?root=m", '{"a": NaN}', Content_Type="application/json")).status == 422
    assert (await api("PATCH", "content/d", "{}", **PATCH)).status == 422
    assert (await api.edit("d")).code == "invalid_request"
    assert (await api.edit("d", {"op": "explode"})).code == "invalid_request"
    assert (await api.edit("d", {"op": "replace", "root": "t", "passage": "zz", "text": "y"})).code == "conflict"
    assert (await api.edit("d", insert(99, "x"))).status == 422
    assert (await api.edit("d", insert(0, "x"), insert(99, "x"))).status == 422
    assert await api.text("d") == "a"


async def test_a_document_that_was_deleted_is_gone(api: Api) -> None:
    await api.apply("d", Author(1).type("a"))
    await api("DELETE", "documents/d")
    for said in (
        await api.apply("d", Author(2).type("b")),
        await api.edit("d", insert(0, "x")),
        await api("GET", "updates/d"),
        await api("GET", "content/d"),
        await api("PUT", "content/d?root=t", "x", Content_Type="text/plain"),
    ):
        assert (said.status, said.code) == (410, "document_deleted")


async def test_content_is_edited_and_shown_in_formats(served: Served, api: Api) -> None:
    async with LiveClient(served.ws("d")) as client:
        await client.until_synced()
        first = await api.edit("d", insert(0, "Hello"), {"op": "append", "root": "list", "values": [1, {"a": "b"}]})
        assert (first.status, first.body) == (200, {"changed": True, "committed": True, "number": 1})
        await client.until(lambda: str(client.text("t")) == "Hello", "it is relayed")
        client.text("t").insert(5, " you")
        await client.barrier()
        said = await api.edit(
            "d",
            {"op": "replace", "root": "t", "passage": "Hello", "text": "Hallo"},
            {"op": "delete", "root": "t", "at": 5, "length": 1},
            {"op": "format", "root": "t", "at": 0, "length": 5, "attributes": {"bold": True}},
        )
        assert said.status == 200, said
        await client.until(lambda: str(client.text("t")) == "Halloyou", "it is relayed")
    shown = await api("GET", "content/d")
    assert shown.body["list"] == [1, {"a": "b"}] and shown.etag == said.etag
    assert shown.headers["Content-Type"].startswith("application/json")
    assert "Accept" in shown.headers["Vary"]
    assert await api.text("d") == "Halloyou"
    assert (await api("GET", "content/d?root=list")).body == [1, {"a": "b"}]
    assert (await api("GET", "content/d?root=t&format=text", Accept="application/json")).body == b"Halloyou"
    delta = await api("GET", "content/d?root=t", Accept="application/vnd.quill.delta+json;q=0.9, text/*;q=0.1")
    assert delta.body == [{"insert": "Hallo", "attributes": {"bold": True}}, {"insert": "you"}]


async def test_put_replaces_by_difference_and_the_same_twice_changes_nothing(served: Served, api: Api) -> None:
    async with LiveClient(served.ws("d")) as client:
        await client.until_synced()
        client.text("t").insert(0, "The quick brown fox jumps")
        await client.barrier()
        said = await api("PUT", "content/d?root=t", "The quick red fox jumps", Content_Type="text/plain")
        assert (said.status, said.body["changed"]) == (200, True)
        await client.until(lambda: str(client.text("t")) == "The quick red fox jumps", "it is relayed")
        again = await api("PUT", "content/d?root=t", "The quick red fox jumps", Content_Type="text/plain")
        assert not again.body["changed"] and again.etag == said.etag
        value = {"title": "x", "tags": ["a", "b"]}
        assert (await api("PUT", "content/d?root=meta&shared=true", value)).body["changed"]
        assert not (await api("PUT", "content/d?root=meta&shared=true", value)).body["changed"]
        await client.until(lambda: "title" in client.doc.get("meta", type=Map), "it is relayed")
    assert (await api("GET", "content/d?root=meta")).body == value
    patch = json.dumps(
        [{"op": "replace", "path": "/meta/title", "value": "y"}, {"op": "add", "path": "/meta/tags/-", "value": "c"}]
    )
    said = await api("PATCH", "content/d", patch, **PATCH)
    assert said.status == 200, said
    assert (await api("GET", "content/d?root=meta")).body == {"title": "y", "tags": ["a", "b", "c"]}
    # The first test fails, so nothing of it is done.
    patch = json.dumps([{"op": "test", "path": "/meta/title", "value": "?"}, {"op": "remove", "path": "/meta/title"}])
    assert (await api("PATCH", "content/d", patch, **PATCH)).code == "conflict"
    assert (await api("GET", "content/d?root=meta")).body["title"] == "y"


async def test_preconditions(api: Api) -> None:
    assert (await api.edit("d", insert(0, "a"), If_Match="*")).code == "precondition_failed"
    first = await api.edit("d", insert(0, "a"), If_None_Match="*")
    assert first.status == 200
    for headers in (
        {"If_None_Match": "*"},
        {"If_Match": '"other"'},
        {"If_Match": f"W/{first.etag}"},
        {"If_None_Match": first.etag},
    ):
        assert (await api.edit("d", insert(0, "no"), **headers)).status == 412
        assert (await api("PUT", "content/d?root=t", "no", Content_Type="text/plain", **headers)).status == 412
        assert (await api.apply("d", Author(5).type("no"), **headers)).status == 412
    for header in ("", "x", '"a" "b"', '"a', ", ".join(['"a"'] * 101)):
        assert (await api.edit("d", insert(0, "no"), If_Match=header)).code == "invalid_request", header
    second = await api.edit("d", insert(0, "b"), If_Match=f'"other", {first.etag}')
    assert second.status == 200 and second.etag != first.etag
    assert (await api.edit("d", insert(0, "c"), If_Match=first.etag)).status == 412
    assert await api.text("d") == "ba"
    for resource in ("content/d?root=t", "updates/d"):
        assert (await api("GET", resource, If_None_Match=first.etag)).status == 200
        same = await api("GET", resource, If_None_Match=f"W/{second.etag}")
        assert (same.status, same.body, same.etag) == (304, b"", second.etag)
        head = await api("HEAD", resource)
        assert (head.status, head.etag) == (200, second.etag) and "Content-Length" not in head.headers


async def test_one_may_wait_only_until_it_is_taken(served: Served, api: Api) -> None:
    for n, said in enumerate(
        (
            await api("POST", "updates/d?wait=applied", Author(1).type("a"), **OCTETS),
            await api("PATCH", "content/d?wait=applied", {"edits": [insert(0, "b")]}),
            await api("PUT", "content/d?wait=applied&root=t", "c", Content_Type="text/plain"),
        )
    ):
        assert said.status == 200 and said.body["changed"], n
    assert (await api("POST", "updates/d?wait=never", b"\0\0", **OCTETS)).status == 400
    await served.app[HUB].until_stored("d")
    assert await api.text("d") == "c"


class Tokens:
    """Who may do what, by token."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if not request.token:
            raise Unauthenticated("no token")
        return Grant(Access(request.token), request.token)


async def test_reading_needs_read_and_editing_write(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=Tokens())
    api = Api(session, served.url)
    update = Author(1).type("a")
    for token, write, read in ((None, 401, 401), ("read", 403, 200), ("write", 200, 200), ("admin", 200, 200)):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if token == "read":
            assert (await api.apply("d", update, Authorization="Bearer write")).status == 200
        assert (await api.apply("d", Author(9).type("b"), **headers)).status == write
        assert (await api.edit("d", insert(0, "c"), **headers)).status == write
        assert (await api("PUT", "content/d?root=u", "d", Content_Type="text/plain", **headers)).status == write
        for resource in ("updates/d", "content/d"):
            assert (await api("GET", resource, **headers)).status == read
    rows = (await served.app[HUB].store.load("d")).rows
    assert {row.author for row in rows} == {"write", "admin"}


async def test_a_long_body_comes_whole_and_is_bounded(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(max_message_bytes=3 << 20, max_arriving_bytes=1 << 20)
    api = Api(session, served.url)
    long = Author(1).type("x" * (2 << 20))
    said = await asyncio.gather(*(api.apply(f"d{n}", long) for n in range(6)))
    assert [one.status for one in said] == [200] * 6
    shown = await api("GET", "updates/d0")
    assert shown.body == long
    assert len(await api.text("d3")) == 2 << 20
    assert (await api.apply("e", b"\0" * (4 << 20))).code == "too_large"
    assert (await api("PUT", "content/d0?root=t", "y" * (2 << 20), Content_Type="text/plain")).status == 200
    assert (await api("PATCH", "content/d0", {"edits": [insert(0, "y" * 300_000)]})).code == "too_large"

    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"\0" * 100_000

    async with session.post(
        f"{served.url}/api/v1/updates/e", data=chunked(), headers={"Content-Type": "application/octet-stream"}
    ) as response:
        assert response.status == 413


async def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from collab.transports.http import bodies

    monkeypatch.setattr(bodies, "_GRACE", 0.3)
    served = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(
        b"POST /api/v1/updates/d HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Length: 100000\r\n\r\n" + b"\0" * 100
    )
    async with asyncio.timeout(20):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_document_keeps_its_identity_for_those_who_type(served: Served, api: Api) -> None:
    """What people type while it is edited over HTTP is all there, on every side."""
    clients = [await LiveClient(served.ws("d")).connect() for _ in range(3)]
    try:
        for client in clients:
            await client.until_synced()

        async def type(client: LiveClient, letter: str) -> None:
            for _ in range(40):
                client.text("t").insert(0, letter)
                await asyncio.sleep(0.002)

        async def patch() -> None:
            for _ in range(40):
                assert (await api.edit("d", insert(0, "P"))).status == 200

        await asyncio.gather(
            *(type(client, letter) for client, letter in zip(clients, "abc", strict=True)), patch(), patch()
        )
        for client in clients:
            await client.barrier()
        expected = sorted("P" * 80 + "a" * 40 + "b" * 40 + "c" * 40)
        for client in clients:
            await client.until(lambda client=client: sorted(str(client.text("t"))) == expected, "all of it")
        assert len({str(client.text("t")) for client in clients} | {await api.text("d")}) == 1
    finally:
        for client in clients:
            await client.close()


async def test_a_document_that_the_library_cannot_read_is_refused_for_good(api: Api) -> None:
    """Clients can read it, and its updates pass; nothing of it gets better by waiting."""
    assert (await api.apply("hook", HOOK)).status == 200
    refused = [
        await api("GET", "content/hook"),
        await api("PUT", "content/hook?root=t", "text", Content_Type="text/plain"),
        await api.edit("hook", insert(0, "text")),
        await api("PATCH", "content/hook", '[{"op": "add", "path": "/m/k", "value": 1}]', **PATCH),
    ]
    assert [(said.status, said.code) for said in refused] == [(422, "not_possible")] * 4
    assert {said.body["detail"] for said in refused} == {UnreadableContent("").public}
    assert (await api("GET", "updates/hook")).body == HOOK
    author = Author(7)
    assert (await api.apply("hook", author.type("more"))).status == 200
