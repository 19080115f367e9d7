"""``/api/v1/trash``, ``/copies`` and what creates documents, over the whole application on each database.

Real clients are in the documents: what they see is what counts.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import aiohttp
import pytest
from pycrdt import Doc, Text

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import Forbidden, Unauthenticated
from collab.protocol.session import Access
from collab.storage import sql_calls
from tests.support.api import told
from tests.support.wsclient import LiveClient
from tests.transports.conftest import Serve, Served


class Api:
    """A client of the API that gives status and body."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            options["json"] = body
        async with self._session.request(method, f"{self.url}/api/v1{path}", **options) as response:
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await told(response)


@pytest.fixture(params=["sqlite", "postgresql"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "sqlite":
        return {}
    return {"database_url": request.getfixturevalue("postgres_url")}


@pytest.fixture
async def served(serve: Serve, options: dict[str, Any]) -> Served:
    return await serve(**options)


@pytest.fixture
def api(served: Served, session: aiohttp.ClientSession) -> Api:
    return Api(session, served.url)


def content(text: str, client: int = 9) -> str:
    """Make an update with a text in the root that clients here use, in base64."""
    doc: Doc[Any] = Doc(client_id=client)
    doc["text"] = Text(text)
    return base64.b64encode(doc.get_update()).decode()


async def shown(served: Served, name: str) -> str:
    """Open a document as a new client, and give its text."""
    async with LiveClient(served.ws(name)) as client:
        await client.until_synced()
        return str(client.text())


# What creates


async def test_a_document_is_created_with_content_and_own_keys(served: Served, api: Api) -> None:
    body = {"name": "d", "title": "D", "metadata": {"kind": "note", "n": 1}, "update": content("seed")}
    status, document = await api("POST", "/documents", body)
    assert (status, document["title"], document["metadata"]) == (201, "D", {"kind": "note", "n": 1})
    assert await shown(served, "d") == "seed"
    status, document = await api("PATCH", "/documents/d", {"metadata": {"n": None, "open": True}})
    assert (status, document["metadata"], document["title"]) == (200, {"kind": "note", "open": True}, "D")
    status, document = await api("PATCH", "/documents/d", {"metadata": {"kind": None}, "title": None})
    assert (status, document["metadata"], document["title"]) == (200, {"open": True}, None)
    assert (await api("GET", "/documents"))[1]["documents"] == [document]
    # Not half of it, if a part cannot be kept.
    assert (await api("POST", "/documents", {**body, "name": "e", "metadata": {"k": "x" * 4_096}}))[0] == 400
    assert (await api("GET", "/documents/e"))[0] == 404


async def test_ten_who_seed_while_people_have_it_open_give_the_content_once(served: Served, api: Api) -> None:
    async with LiveClient(served.ws("d")) as early:
        await early.until_synced()
        answers = await asyncio.gather(
            *(api("PUT", "/documents/d", {"update": content("seed", 10 + n), "title": f"{n}"}) for n in range(10))
        )
        assert sorted(status for status, _ in answers) == [200] * 9 + [201]
        assert len({document["title"] for _, document in answers}) == 1
        await early.until(lambda: str(early.text()) == "seed", "who has it open sees it")
        early.text().insert(4, "!")
        await early.barrier()
    assert (await api("PUT", "/documents/d", {"update": content("seed", 99)}))[0] == 200
    assert await shown(served, "d") == "seed!"
    assert (await api("DELETE", "/documents/d"))[0] == 204
    assert (await api("PUT", "/documents/d", {"update": content("seed")}))[0] == 410, (
        "by accident it does not come back"
    )
    assert (await api("PUT", "/documents/empty", {}))[0] == 201
    assert (await api("PUT", "/documents/empty", {}))[0] == 200


async def test_a_call_with_a_key_is_done_once(served: Served, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"headers": {"Idempotency-Key": "key 1"}}
    body = {"name": "d", "update": content("seed")}
    answers = await asyncio.gather(*(api("POST", "/documents", body, **key) for _ in range(5)))
    assert {status for status, _ in answers} == {201} and all(document == answers[0][1] for _, document in answers)
    assert (await api("POST", "/documents", body))[0] == 409
    assert (await api("POST", "/documents", {"name": "other"}, **key))[0] == 422
    status, copied = await api("POST", "/copies/d", {"name": "copy"}, **key)
    assert status == 201
    # Once more, although it was deleted since: the first answer.
    await api("DELETE", "/documents/copy")
    assert await api("POST", "/copies/d", {"name": "copy"}, **key) == (201, copied)
    assert (await api("GET", "/documents/copy"))[0] == 410
    # What has failed is tried again.
    for expected in (409, 201):
        assert (await api("POST", "/copies/d", {"name": "d" if expected == 409 else "e"}, **key_of(expected)))[
            0
        ] == expected
    for wrong in ("", "x" * 256, "ä"):
        assert (await api("POST", "/documents", {"name": "f"}, headers={"Idempotency-Key": wrong}))[0] == 400
    # After a day it is another call.
    monkeypatch.setattr(sql_calls, "KEPT_SECONDS", 0.0)
    assert (await api("POST", "/documents", {"name": "g"}, **key))[0] == 201


def key_of(number: int) -> dict[str, Any]:
    return {"headers": {"Idempotency-Key": f"key of {number}"}}


async def test_a_repeat_counts_in_no_rate(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(max_new_documents_per_minute=1, insecure=True, authenticator=Scripted())
    api = Api(session, served.url)
    token = {"Authorization": "Bearer admin:"}
    for number in range(3):
        status, _ = await api("POST", "/documents", {"name": "d"}, headers={"Idempotency-Key": "k", **token})
        assert status == 201, number
    assert (await api("POST", "/documents", {"name": "e"}, headers=token))[0] == 429
    assert (await api("POST", "/copies/d", {"name": "e"}, headers=token))[0] == 429
    assert (await api("PUT", "/documents/e", {}, headers=token))[0] == 429
    assert (await api("PUT", "/documents/d", {}, headers=token))[0] == 200


# Copies


async def test_a_copy_is_another_document(served: Served, api: Api) -> None:
    body = {"name": "d", "title": "D", "metadata": {"n": 1}, "update": content("one")}
    await api("POST", "/documents", body)
    async with LiveClient(served.ws("d")) as client:
        await client.until_synced()
        client.text().insert(3, " two")
        await client.barrier()
        status, copied = await api("POST", "/copies/d", {"name": "copies/d ä"})
        assert (status, copied["name"], copied["title"], copied["metadata"]) == (201, "copies/d ä", "D", {"n": 1})
        client.text().insert(0, "zero ")
        await client.barrier()
    assert await shown(served, "copies/d%20%C3%A4") == "one two"
    assert (await api("POST", "/copies/d", {"name": "copies/d ä"}))[0] == 409
    assert (await api("POST", "/copies/none", {"name": "e"}))[0] == 404
    assert (await api("POST", "/copies/d", {"name": " "}))[0] == 400


# Restoring and erasing


async def test_a_deleted_document_is_restored_and_old_copies_merge(served: Served, api: Api) -> None:
    await api("POST", "/documents", {"name": "notes/d", "title": "D", "update": content("one")})
    async with LiveClient(served.ws("notes/d"), keep=True) as client:
        await client.until_synced()
        assert (await api("DELETE", "/documents/notes/d"))[0] == 204
        assert await client.expect_close() == 4404
        old_copy = client
    old_copy.text().insert(3, " offline")
    status, page = await api("GET", "/trash?prefix=notes/")
    assert status == 200 and page["next"] is None
    (deleted,) = page["documents"]
    assert (deleted["name"], deleted["title"]) == ("notes/d", "D") and deleted["bytes"] > 0
    status, document = await api("POST", "/trash/notes/d", {})
    assert (status, document["name"], document["title"]) == (200, "notes/d", "D")
    assert (await api("GET", "/trash"))[1]["documents"] == []
    returning = LiveClient(served.ws("notes/d"))
    returning.doc.apply_update(old_copy.doc.get_update())
    async with returning as client:
        await client.until_synced()
        await client.barrier()
    assert await shown(served, "notes/d") == "one offline"
    assert (await api("POST", "/trash/notes/d", {}))[0] == 404


async def test_predecessors_are_chosen_by_their_ids(served: Served, api: Api) -> None:
    for text in ("first", "second"):
        await api("POST", "/documents", {"name": "d", "update": content(text)})
        await api("DELETE", "/documents/d")
    await api("POST", "/documents", {"name": "d", "update": content("third")})
    _, first = await api("GET", "/trash?name=d&limit=1")
    _, second = await api("GET", "/trash", params={"name": "d", "limit": "1", "cursor": first["next"]})
    (newer,), (older,) = first["documents"], second["documents"]
    assert second["next"] is None and newer["id"] > older["id"]
    assert (await api("POST", "/trash/d", {"id": older["id"]}))[0] == 409
    assert (await api("POST", "/trash/d", {"id": older["id"], "name": "e"}))[1]["name"] == "e"
    assert await shown(served, "e") == "first"
    assert await api("DELETE", f"/trash/d?id={newer['id']}") == (200, {"erased": [newer["id"]], "holding": []})
    assert (await api("DELETE", "/trash/d"))[0] == 404
    assert await shown(served, "d") == "third"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/trash?limit=0", None, 400),
        ("GET", "/trash?cursor=bmE", None, 400),
        ("GET", "/trash?cursor=dDEuMCA", None, 400),
        ("GET", "/trash?cursor=dG5hbiAx", None, 400),
        ("GET", "/trash?cursor=dDEuMCAxMjM0NTY3ODkwMTIzNDU2Nzg5MA", None, 400),
        ("POST", "/trash/none", {}, 404),
        ("POST", "/trash/none", {"id": 0}, 400),
        ("POST", "/trash/none", {"id": 2**63}, 400),
        ("POST", "/trash/none", {"name": ""}, 400),
        ("POST", "/trash/none", [], 400),
        ("DELETE", "/trash/none", None, 404),
        ("DELETE", "/trash/none?id=x", None, 400),
        ("POST", "/copies/none", {}, 400),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, method: str, path: str, body: Any, status: int) -> None:
    assert (await api(method, path, body))[0] == status


async def test_what_was_erased_is_nowhere(served: Served, api: Api) -> None:
    key = {"headers": {"Idempotency-Key": "k"}}
    secret = {"name": "d", "title": "secret title", "metadata": {"key": "secret"}, "update": content("secret")}
    await api("POST", "/documents", secret, **key)
    await api("DELETE", "/documents/d")
    await api("POST", "/documents", {**secret, "title": "again"})
    async with LiveClient(served.ws("d"), keep=True) as client:
        await client.until_synced()
        status, erased = await api("DELETE", "/documents/d?erase=true")
        assert status == 200 and len(erased["erased"]) == 2 and erased["holding"] == []
        assert await client.expect_close() == 4404
    assert "d" not in served.app[HUB].rooms
    for method, path, body in (
        ("GET", "/documents", None),
        ("GET", "/documents/d", None),
        ("GET", "/trash", None),
        ("POST", "/trash/d", {}),
        ("POST", "/copies/d", {"name": "e"}),
        ("PUT", "/documents/d", {}),
    ):
        status, said = await api(method, path, body)
        assert "secret" not in repr(said) and status in (200, 404, 410), path
    assert (await api("POST", "/documents", secret, **key))[0] == 410
    assert (await api("POST", "/documents", {"name": "other"}, **key))[0] == 410
    status, document = await api("POST", "/documents", {"name": "d"})
    assert (status, document["title"], document["metadata"]) == (201, None, {})
    assert await shown(served, "d") == ""


async def test_two_nodes_do_all_of_it_as_one(serve: Serve, session: aiohttp.ClientSession, postgres_url: str) -> None:
    nodes = [await serve(database_url=postgres_url) for _ in range(2)]
    one, two = apis = [Api(session, node.url) for node in nodes]
    async with LiveClient(nodes[1].ws("d"), keep=True) as there:
        await there.until_synced()
        answers = await asyncio.gather(
            *(apis[n % 2]("PUT", "/documents/d", {"update": content("seed", 10 + n)}) for n in range(10))
        )
        assert sorted(status for status, _ in answers) == [200] * 9 + [201]
        await there.until(lambda: str(there.text()) == "seed", "who has it open on the other node sees it")
        key = {"headers": {"Idempotency-Key": "k"}}
        copies = await asyncio.gather(*(each("POST", "/copies/d", {"name": "copy"}, **key) for each in apis * 3))
        assert copies == [copies[0]] * 6 and copies[0][0] == 201
        assert (await one("DELETE", "/documents/d"))[0] == 204
        assert await there.expect_close() == 4404
    there.text().insert(4, " offline")
    assert (await one("POST", "/trash/d", {"name": "e"}))[0] == 200
    returning = LiveClient(nodes[1].ws("e"), keep=True)
    returning.doc.apply_update(there.doc.get_update())
    async with returning:
        await returning.until_synced()
        await returning.barrier()
        async with LiveClient(nodes[0].ws("e")) as here:
            await here.until(lambda: str(here.text()) == "seed offline", "the old copy has merged, for all nodes")
        status, erased = await one("DELETE", "/documents/e?erase=true")
        assert (status, erased["holding"]) == (200, [])
        assert "e" not in nodes[1].app[HUB].rooms, "the other node has let go of it"
        assert await returning.expect_close() == 4404
    assert (await two("GET", "/documents/e"))[0] == 410
    assert (await two("GET", "/trash"))[1]["documents"] == []
    assert await shown(nodes[1], "copy") == "seed"


# Who may


class Scripted:
    """Grant to the token ``<access>:<prefix>`` what begins with the prefix."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        access, _, prefix = request.token.partition(":")
        if access not in ("admin", "write", "read"):
            raise Unauthenticated("no token")
        if not request.document_name.startswith(prefix):
            raise Forbidden("not yours")
        return Grant(Access(access), f"{access} of {prefix}")


async def test_each_token_does_what_it_may(
    serve: Serve, session: aiohttp.ClientSession, options: dict[str, Any]
) -> None:
    served = await serve(authenticator=Scripted(), **options)
    api = Api(session, served.url)

    def bearer(token: str) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {token}"}}

    root, admin, writer, reader = bearer("admin:"), bearer("admin:a/"), bearer("write:a/"), bearer("read:a/")
    for name in ("a/1", "b/1"):
        assert (await api("POST", "/documents", {"name": name}, **root))[0] == 201
        assert (await api("DELETE", f"/documents/{name}", **root))[0] == 204
    assert [each["name"] for each in (await api("GET", "/trash", **root))[1]["documents"]] == ["b/1", "a/1"]
    assert [each["name"] for each in (await api("GET", "/trash", **admin))[1]["documents"]] == ["a/1"]
    for token in (writer, reader):
        assert (await api("GET", "/trash", **token))[1]["documents"] == []
        assert (await api("POST", "/trash/a/1", {}, **token))[0] == 403
        assert (await api("DELETE", "/trash/a/1", **token))[0] == 403
        assert (await api("DELETE", "/documents/a/1?erase=true", **token))[0] == 403
    assert (await api("GET", "/trash"))[0] == 401
    assert (await api("POST", "/trash/a/1", {"name": "b/2"}, **admin))[0] == 403
    assert (await api("POST", "/trash/b/1", {}, **admin))[0] == 403
    assert (await api("POST", "/trash/a/1", {}, **admin))[1]["access"] == "admin"
    assert (await api("PUT", "/documents/a/2", {}, **reader))[0] == 403
    assert (await api("PUT", "/documents/a/2", {}, **writer))[0] == 201
    assert (await api("POST", "/copies/a/1", {"name": "a/3"}, **reader))[0] == 403
    assert (await api("POST", "/copies/a/1", {"name": "b/3"}, **writer))[0] == 403
    assert (await api("POST", "/copies/b/1", {"name": "a/3"}, **writer))[0] == 403
    assert (await api("POST", "/copies/a/1", {"name": "a/3"}, **writer))[1]["access"] == "write"
    # A key is one user's: another one with the same key gets nothing of what was answered.
    key = {"Idempotency-Key": "k"}
    for token, expected in ((root, 201), (admin, 409)):
        headers = {**token["headers"], **key}
        assert (await api("POST", "/documents", {"name": "a/4"}, headers=headers))[0] == expected
    # And who may not write any more gets no answer again.
    headers = {**bearer("read:a/")["headers"], **key}
    assert (await api("POST", "/documents", {"name": "a/4"}, headers=headers))[0] == 403
