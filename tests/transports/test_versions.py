"""``/api/v1/versions``, ``/version``, ``/timeline``, and the present content's addresses with a state of the past."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import pytest
from pycrdt import Doc, Text

from collab.auth.access import AccessRequest, Grant
from collab.protocol.session import Access as AccessKind
from tests.support.api import told
from tests.support.wsclient import LiveClient, text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_description import Anybody


class Api:
    """Calls the API of a server, and compares each answer with the description."""

    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session = session
        self._base = f"{served.url}/api/v1"

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        call = self._session.request(method, f"{self._base}{path}", json=body, headers=headers)
        async with call as response:
            return response.status, await told(response)

    async def type(self, name: str, *texts: str, user: str = "") -> None:
        """Set the text of a document to one after the other, each by an edit of its own."""
        for text in texts:
            path = f"{self._base}/content/{name}?root=text&type=text{user}"
            async with self._session.put(path, data=text, headers={"Content-Type": "text/plain"}) as response:
                assert response.status == 200, await response.text()

    async def text(self, path: str) -> str:
        """Read a text."""
        async with self._session.get(f"{self._base}{path}", headers={"Accept": "text/plain"}) as response:
            assert response.status == 200, await response.text()
            return await response.text()

    async def bytes(self, path: str) -> bytes:
        """Read bytes."""
        async with self._session.get(f"{self._base}{path}") as response:
            assert response.status == 200, await response.text()
            return await response.read()


@pytest.fixture
async def api(serve: Serve, session: aiohttp.ClientSession) -> Api:
    return Api(session, await serve(auto_version_minutes=0))


def text_of(update: bytes) -> str:
    document: Doc[Any] = Doc()
    text = document.get("text", type=Text)
    document.apply_update(update)
    return str(text)


async def test_what_a_version_holds_is_read_in_every_form(api: Api) -> None:
    await api.type("a/b", "one", "one two")
    status, made = await api("POST", "/versions/a/b", {"name": "first", "description": "as it began"})
    assert (status, made["name"], made["number"], made["kind"], made["reason"]) == (201, "first", 2, "named", "made")
    await api.type("a/b", "something else")
    query = f"version={made['id']}"
    assert await api.text(f"/content/a/b?{query}&root=text") == "one two"
    assert await api("GET", f"/content/a%2Fb?{query}") == (200, {"text": "one two"})
    assert text_of(await api.bytes(f"/updates/a/b?{query}")) == "one two"
    assert [await api.text(f"/content/a/b?number={number}&root=text") for number in (1, 2, 3)] == [
        "one",
        "one two",
        "something else",
    ]
    assert await api("GET", "/content/a/b?number=0") == (200, {})
    status, copied = await api("POST", "/copies/a/b", {"name": "copy", "version": made["id"]})
    assert (status, copied["name"]) == (201, "copy")
    assert await api.text("/content/copy?root=text") == "one two"
    assert await api.text("/content/a/b?root=text") == "something else"


async def test_a_state_of_the_past_has_the_name_of_the_same_state_of_the_present(
    api: Api, session: aiohttp.ClientSession
) -> None:
    await api.type("d", "one")
    base = api._base
    async with session.get(f"{base}/content/d") as response:
        tag = response.headers["ETag"]
    await api.type("d", "two")
    async with session.get(f"{base}/content/d?number=1") as response:
        assert response.headers["ETag"] == tag
    for path in (f"{base}/content/d?number=1", f"{base}/updates/d?number=1"):
        async with session.get(path, headers={"If-None-Match": tag}) as response:
            assert response.status == 304
        async with session.head(path) as response:
            assert (response.status, response.headers["ETag"]) == (200, tag)


async def test_versions_are_listed_changed_and_deleted(api: Api) -> None:
    await api.type("d", "1", "2", "3")
    made = [(await api("POST", "/versions/d", {"name": f"v{n}", "number": n}))[1] for n in (2, 1, 3)]
    status, page = await api("GET", "/versions/d?limit=2")
    assert status == 200 and page["versions"] == [made[2], made[0]]
    status, rest = await api("GET", f"/versions/d?limit=2&cursor={page['next']}")
    assert rest == {"versions": [made[1]], "next": None}
    assert (await api("GET", "/versions/d?kind=automatic"))[1]["versions"] == []
    one = f"/version/d?id={made[0]['id']}"
    assert await api("GET", one) == (200, made[0])
    changed = made[0] | {"name": "other", "description": "said"}
    assert await api("PATCH", one, {"name": "other", "description": "said"}) == (200, changed)
    assert await api("PATCH", one, {"description": None}) == (200, changed | {"description": None})
    assert await api("DELETE", one) == (204, None)
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"name": "x"})):
        assert (await api(method, one, body))[0] == 404
    assert (await api("GET", f"/content/d?version={made[0]['id']}"))[0] == 404


async def test_a_call_that_is_repeated_makes_one_version(api: Api) -> None:
    await api.type("d", "1")
    headers = {"Idempotency-Key": "k"}
    first = await api("POST", "/versions/d", {"name": "v"}, **headers)
    assert await api("POST", "/versions/d", {"name": "v"}, **headers) == first
    assert (await api("POST", "/versions/d", {"name": "w"}, **headers))[0] == 422
    assert len((await api("GET", "/versions/d"))[1]["versions"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/versions/d", {"name": "v", "number": 9}, 410),
        ("POST", "/versions/d", {"name": " "}, 400),
        ("POST", "/versions/d", {"name": "a\nb"}, 400),
        ("POST", "/versions/d", {"name": "x" * 201}, 400),
        ("POST", "/versions/d", {"name": "v", "at": "2026-01-01T00:00:00Z"}, 400),
        ("POST", "/versions/d", {"name": "v", "update": "AAA="}, 400),
        ("POST", "/versions/d", {"name": "v", "update": "AAA=", "at": "yesterday"}, 400),
        ("POST", "/versions/d", {"name": "v", "update": "AAA=", "at": "2026-01-01T00:00:00"}, 400),
        ("POST", "/versions/d", {"name": "v", "update": "AQEB", "at": "2026-01-01T00:00:00Z"}, 400),
        ("POST", "/versions/empty", {"name": "v"}, 410),
        ("POST", "/versions/none", {"name": "v"}, 404),
        ("PATCH", "/version/d?id=1", {}, 400),
        ("GET", "/version/d", None, 400),
        ("GET", "/versions/d?cursor=x", None, 400),
        ("GET", "/timeline/d?cursor=x", None, 400),
        ("GET", "/versions/none", None, 404),
        ("GET", "/timeline/none", None, 404),
        ("GET", "/content/d?version=1&number=1", None, 400),
        ("GET", "/content/d?number=99", None, 410),
        ("GET", "/content/d?version=99", None, 404),
        ("GET", "/content/d?number=-1", None, 400),
        ("GET", "/updates/d?number=99", None, 410),
        ("POST", "/copies/d", {"name": "c", "version": 99}, 404),
    ],
)
async def test_what_is_refused(api: Api, method: str, path: str, body: Any, status: int) -> None:
    await api.type("d", "1")
    assert (await api("POST", "/documents", {"name": "empty"}))[0] == 201
    assert (await api(method, path, body))[0] == status


async def test_a_version_is_imported_with_its_time_and_author(api: Api) -> None:
    await api.type("d", "now")
    update = base64.b64encode(text_update(7, "then")).decode()
    body = {"name": "old", "update": update, "at": "2019-05-01T12:00:00+02:00", "author": "bob"}
    status, made = await api("POST", "/versions/d", body)
    assert status == 201
    assert (made["number"], made["reason"], made["author"], made["at"]) == (
        None,
        "imported",
        "bob",
        "2019-05-01T10:00:00.000Z",
    )
    assert "then" in str(await api("GET", f"/content/d?version={made['id']}"))
    assert (await api("GET", "/versions/d"))[1]["versions"] == [made]


async def test_a_timeline_tells_what_happened(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=Access())
    api = Api(session, served)
    await api.type("d", "1", "2", user="&token=ann")
    await api.type("d", "3", user="&token=bob&on_behalf_of=cyd")
    made = (await api("POST", "/versions/d?token=ann", {"name": "v", "number": 2}))[1]
    assert (await api("POST", "/reset/d?token=admin", {}))[0] == 200
    await api.type("d", "4", user="&token=ann")
    status, page = await api("GET", "/timeline/d?token=read")
    assert status == 200
    assert [(each["from"], each["to"], each["edits"], each["marks"]) for each in page["entries"]] == [
        (5, 5, 1, []),
        (4, 4, 1, ["reset"]),
        (1, 3, 3, []),
    ]
    assert page["entries"][2]["authors"] == [
        {"user": "ann", "name": None, "on_behalf_of": None, "edits": 2},
        {"user": "bob", "name": None, "on_behalf_of": "cyd", "edits": 1},
    ]
    assert page["entries"][2]["summary"] == "ann, cyd: 3 edits"
    assert page["entries"][1]["summary"] == "u-1 reset the document"
    named = [each for each in page["entries"][2]["versions"] if each["kind"] == "named"]
    assert named == [{"id": made["id"], "number": 2, "kind": "named", "name": "v"}]
    assert (page["head"], page["behind"], page["reaches"], page["next"]) == (5, 0, 1, None)
    first = (await api("GET", "/timeline/d?token=read&limit=1"))[1]
    rest = (await api("GET", f"/timeline/d?token=read&limit=9&cursor={first['next']}"))[1]
    assert first["entries"] + rest["entries"] == page["entries"]


async def test_programs_and_resets_leave_automatic_versions(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(auto_version_minutes=1e-9)
    api = Api(session, served)
    async with LiveClient(served.ws("d")) as client:
        await client.until_synced()
        client.text().insert(0, "typed")
        await client.barrier()
        async with session.patch(
            f"{served.url}/api/v1/content/d",
            json={"edits": [{"op": "replace", "root": "text", "passage": "typed", "text": "by a program"}]},
        ) as response:
            assert response.status == 200, await response.text()
        assert (await api("POST", "/reset/d", {}))[0] == 200
    found = (await api("GET", "/versions/d"))[1]["versions"]
    assert [(each["number"], each["reason"], each["kind"]) for each in found] == [
        (2, "reset", "automatic"),
        (1, "agent", "automatic"),
    ]
    assert await api.text(f"/content/d?version={found[1]['id']}&root=text") == "typed"
    status, named = await api("PATCH", f"/version/d?id={found[0]['id']}", {"name": "before it was reset"})
    assert (status, named["kind"], named["reason"]) == (200, "named", "reset")


class Access(Anybody):
    """Lets everybody write as who they say they are, or only read."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if request.token in ("ann", "bob"):
            return Grant(AccessKind.WRITE, request.token)
        if request.token == "read":
            return Grant(AccessKind.READ, "reader")
        return await super().authenticate(request)


async def test_readers_see_writers_make_and_administrators_delete(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve(authenticator=Access()))
    await api.type("d", "1", user="&token=ann")
    assert (await api("POST", "/versions/d?token=read", {"name": "v"}))[0] == 403
    status, made = await api("POST", "/versions/d?token=ann", {"name": "v"})
    assert (status, made["author"]) == (201, "ann")
    one = f"/version/d?id={made['id']}"
    assert (await api("GET", "/versions/d?token=read"))[1]["versions"] == [made]
    assert (await api("GET", f"{one}&token=read"))[0] == 200
    assert (await api("PATCH", f"{one}&token=read", {"name": "w"}))[0] == 403
    assert (await api("PATCH", f"{one}&token=bob", {"name": "w"}))[0] == 200
    assert (await api("DELETE", f"{one}&token=ann"))[0] == 403
    update = {"name": "v", "update": "AAA=", "at": "2026-01-01T00:00:00Z"}
    assert (await api("POST", "/versions/d?token=ann", update))[0] == 403
    assert (await api("POST", "/versions/d?token=admin", update))[0] == 201
    assert (await api("DELETE", f"{one}&token=admin"))[0] == 204
    for path in ("/versions/d", "/timeline/d", one):
        assert (await api("GET", path))[0] == 401
