"""Who wrote what, what changed, restoring and undoing over HTTP: who may, what is refused, what clients see."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from typing import Any

import aiohttp
import pytest
from pycrdt import Doc, Text

from collab.auth.access import AccessRequest, Grant
from collab.errors import Unauthenticated
from collab.hub.attributing import MAX_PORTION_BYTES, MAX_PORTION_ROWS
from collab.protocol.session import Access as AccessKind
from tests.support.api import told
from tests.support.wsclient import LiveClient
from tests.transports.conftest import Serve, Served


class People:
    """Lets everybody in whose token is a name; ``reader`` may only read."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if not request.token:
            raise Unauthenticated("no token", public="a token is needed")
        return Grant(AccessKind.READ if request.token == "reader" else AccessKind.WRITE, request.token)


class Api:
    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session = session
        self._url = f"{served.url}/api/v1"

    async def get(self, path: str, token: str = "ada", **query: Any) -> Any:
        async with self._session.get(f"{self._url}/{path}", params={"token": token, **query}) as response:
            body = await told(response) if response.content_type != "text/x-diff" else await response.text()
            return body if response.status == 200 else response.status

    async def post(self, path: str, token: str = "ada", key: str | None = None, **body: Any) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        sent = self._session.post(f"{self._url}/{path}", params={"token": token}, json=body, headers=headers)
        async with sent as response:
            answer = await told(response)
            return answer if response.status in (200, 201) else response.status


def ranges(found: list[Any]) -> list[tuple[int, int, int, int]]:
    """Give client, clock, length and mark of each range."""
    return [(client, *flat[at : at + 3]) for client, flat in found for at in range(0, len(flat), 3)]


async def type_as(served: Served, name: str, who: str, at: int, text: str, delete: int = 0) -> int:
    """Type into a document as a person would, and leave; give the client ID."""
    async with LiveClient(f"{served.ws(name)}?token={who}") as client:
        await client.until_synced()
        if delete:
            del client.text()[at : at + delete]
        client.text().insert(at, text)
        await client.barrier()
        return client.doc.client_id


async def test_who_wrote_what_and_what_changed(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    ada = await type_as(served, "d", "ada", 0, "one two\n")
    number = (await api.get("attribution/d"))["number"]
    bob = await type_as(served, "d", "bob", 0, "ONE", delete=3)
    found = await api.get("attribution/d", "reader")
    authors = [mark["author"] for mark in found["marks"]]
    assert {(client, authors[mark]) for client, _, _, mark in ranges(found["inserted"])} == {(ada, "ada"), (bob, "bob")}
    assert [(client, clock, n, authors[mark]) for client, clock, n, mark in ranges(found["deleted"])] == [
        (ada, 0, 3, "bob")
    ]
    shown = await api.get("attribution/d", root="text")
    assert [(run["insert"], authors[run["inserted"]]) for run in shown["runs"]] == [("ONE", "bob"), (" two\n", "ada")]

    changes = await api.get("changes/d", **{"from": number})
    assert changes["users"] == ["bob"]
    assert [change[:3] for change in ranges(changes["deleted"])] == [(ada, 0, 3)]
    doc: Doc[Any] = Doc(skip_gc=True)
    text = doc.get("text", type=Text)
    doc.apply_update(base64.b64decode(changes["base"]))
    assert str(text) == "one two\n"
    doc.apply_update(base64.b64decode(changes["update"]))
    assert str(text) == "ONE two\n"
    assert await api.get("changes/d", **{"from": number}, format="diff") == (
        "--- before\n+++ after\n@@ -1 +1 @@\n-one two\n+ONE two\n"
    )
    runs = (await api.get("changes/d", **{"from": number}, format="text"))["runs"]
    assert [(run["insert"], "inserted" in run, "deleted" in run) for run in runs] == [
        ("one", False, True),
        ("ONE", True, False),
        (" two\n", False, False),
    ]
    assert await api.get("changes/d", **{"from": 0, "to": number + 99}) == 410
    assert await api.get("changes/d", **{"from": number, "to": 0}) == 422
    assert await api.get("changes/none", **{"from": 0}) == 404
    assert await api.get("attribution/d", root="none") == 404
    assert await api.get("attribution/d", "", root="text") == 401


async def test_a_long_answer_comes_whole(serve: Serve, session: aiohttp.ClientSession) -> None:
    """Answers above 256 KiB leave in portions, as the same bytes with the same headers."""
    served = await serve(authenticator=People())
    api = Api(session, served)
    lines = [f"línea {number} " + "á" * 5_000 for number in range(40)]
    await type_as(served, "d", "ada", 0, "\n".join(lines))
    changes = await api.get("changes/d", **{"from": 0})
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    doc.apply_update(base64.b64decode(changes["update"]))
    assert str(text).split("\n") == lines
    (mark,) = changes["marks"]
    assert mark["author"] == "ada"
    url = f"{served.url}/api/v1/changes/d"
    query = {"token": "ada", "from": 0, "format": "diff"}
    for coding in ("identity", "gzip;q=0", "br"):
        async with session.get(url, params=query, headers={"Accept-Encoding": coding}) as response:
            body = await response.read()
            assert response.headers["Content-Type"] == "text/x-diff; charset=utf-8"
            assert "Content-Encoding" not in response.headers
            assert int(response.headers["Content-Length"]) == len(body) > 256 * 1024
            assert [line[1:] for line in body.decode().splitlines()[3:-1]] == lines


async def test_a_long_answer_is_compressed_for_who_takes_that(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "short", "ada", 0, "one")
    number = (await api.get("attribution/short"))["number"]
    await type_as(served, "long", "ada", 0, "".join(f"{number} " for number in range(20_000)))
    long = {"changes/long": {"from": 0}, "attribution/long": {"root": "text"}}
    short = {"changes/short": {"from": 0, "to": number}, "attribution/short": {}}
    for path, query in (long | short).items():
        told: dict[str, tuple[str | None, str | None, int, bytes]] = {}
        for coding in ("", "deflate, gzip;q=0.5"):
            asked = session.get(
                f"{served.url}/api/v1/{path}",
                params={"token": "ada", **query},
                headers={"Accept-Encoding": coding},
                auto_decompress=False,
            )
            async with asked as response:
                headers = response.headers
                body = await response.read()
                told[coding] = headers.get("Content-Encoding"), headers.get("Vary"), len(body), body
        plain, packed = told.values()
        if path in short:
            assert plain == packed and packed[0] is None
            continue
        assert (plain[0], packed[0]) == (None, "gzip")
        assert all("Accept-Encoding" in (vary or "") for _, vary, _, _ in (plain, packed))
        assert gzip.decompress(packed[3]) == plain[3] and json.loads(plain[3])
        assert packed[2] < plain[2] / 2


async def test_a_restore_is_seen_by_those_who_have_it_open_and_can_be_restored(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "d", "ada", 0, "good")
    number = (await api.get("attribution/d"))["number"]
    await type_as(served, "d", "bob", 0, "bad", delete=4)
    async with LiveClient(f"{served.ws('d')}?token=bob") as client:
        await client.until_synced()
        assert await api.post("restore/d", "reader", number=number) == 403
        done = await api.post("restore/d", key="k", number=number)
        assert done["changed"] and done["number"] > done["before"] >= number
        await client.until(lambda: str(client.text()) == "good", "what was restored")
        assert await api.post("restore/d", key="k", number=number) == done  # done once
        assert not (await api.post("restore/d", number=number))["changed"]
        client.text().insert(4, "!")
        await client.barrier()
        changes = await api.get("changes/d", **{"from": done["before"], "to": done["number"]})
        (mark,) = changes["marks"]
        assert (mark["author"], mark["label"]) == ("ada", f"restore number={number}")
        again = await api.post("restore/d", "bob", number=done["before"], label="back", on_behalf_of="zoe")
        assert again["changed"]
        await client.until(lambda: str(client.text()) == "bad", "what was there before")
    assert await api.post("restore/d", number=10_000) == 410
    assert await api.post("restore/d", version=10_000) == 404
    assert await api.post("restore/d") == await api.post("restore/d", number=0, version=1) == 400
    assert await api.post("restore/d", number=0, element="e") == 400
    assert await api.post("restore/d", number=0, root="none") == 404
    assert await api.post("restore/none", number=0) == 404


async def test_a_version_is_restored_by_its_id(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(auto_version_minutes=1e-9)
    api = Api(session, served)
    await type_as(served, "d", "", 0, "good")
    made = await api.post("versions/d", name="v")
    await type_as(served, "d", "", 0, "bad", delete=4)
    async with LiveClient(served.ws("d")) as client:
        await client.until_synced()
        done = await api.post("restore/d", version=made["id"])
        await client.until(lambda: str(client.text()) == "good", "what was restored")
    listed = (await api.get("versions/d", kind="automatic"))["versions"]
    assert [(each["number"], each["reason"]) for each in listed if each["number"] == done["before"]] == [
        (done["before"], "restore")
    ]
    entry = (await api.get("timeline/d"))["entries"][0]
    assert (entry["marks"], entry["from"]) == (["restored"], done["number"])


async def test_what_one_person_did_is_undone(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "d", "ada", 0, "ada ")
    await type_as(served, "d", "bob", 4, "bob ")
    await type_as(served, "d", "ada", 8, "again")
    assert (await api.post("undo/d", "zoe", author="nobody", **{"from": 0}))["changed"] is False
    assert await api.post("undo/d", author="bob") == 400
    done = await api.post("undo/d", author="bob", since="2020-01-01T00:00:00Z")
    assert done["changed"]
    async with LiveClient(f"{served.ws('d')}?token=zoe") as client:
        await client.until_synced()
        assert str(client.text()) == "ada again"
    # The undoing was ada's, and is undone.
    assert (await api.post("undo/d", author="ada", **{"from": done["before"]}))["changed"]
    async with LiveClient(f"{served.ws('d')}?token=zoe") as client:
        await client.until_synced()
        assert str(client.text()) == "ada bob again"


async def test_a_part_is_restored(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    url = f"{served.url}/api/v1/content/d"

    async def put(value: Any) -> None:
        params = {"token": "ada", "root": "elements", "type": "array", "shared": "true"}
        async with session.put(url, params=params, json=value) as response:
            assert response.status == 200, await response.text()

    async def shown() -> Any:
        async with session.get(url, params={"token": "ada"}) as response:
            return (await response.json())["elements"]

    one, two = {"id": "one", "x": 1}, {"id": "two", "x": 2}
    await put([one, two])
    number = (await api.get("attribution/d"))["number"]
    await put([{"id": "two", "x": 3}, {"id": "three", "x": 4}])
    await type_as(served, "d", "bob", 0, "text")
    assert (await api.post("restore/d", number=number, root="elements", element="one"))["changed"]
    assert {each["id"] for each in await shown()} == {"one", "two", "three"}
    assert (await api.post("restore/d", number=number, root="elements", element="two"))["changed"]
    assert two in await shown()
    assert await api.post("restore/d", number=number, root="elements", element="four") == 404
    assert (await api.post("restore/d", number=number, root="elements"))["changed"]
    assert await shown() == [one, two]
    async with LiveClient(f"{served.ws('d')}?token=zoe") as client:
        await client.until_synced()
        assert str(client.text()) == "text"  # another root stays


async def test_a_restore_while_many_type_converges_and_loses_nothing_of_what_comes_then(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "d", "ada", 0, "start ")
    number = (await api.get("attribution/d"))["number"]
    await type_as(served, "d", "bob", 0, "wrong ")
    clients = [await LiveClient(f"{served.ws('d')}?token=user{n}").connect() for n in range(6)]
    try:
        for client in clients:
            await client.until_synced()
        typing = True

        async def type_on(client: LiveClient, sign: str) -> None:
            while typing:
                client.text().insert(0, sign)
                await client.barrier()

        tasks = [asyncio.create_task(type_on(client, sign)) for client, sign in zip(clients, "abcdef", strict=True)]
        done = await api.post("restore/d", number=number)
        typing = False
        await asyncio.gather(*tasks)
        assert done["changed"]
        for client, sign in zip(clients, "ABCDEF", strict=True):
            client.text().insert(0, sign)
            await client.barrier()
        await clients[0].until(lambda: len({str(each.text()) for each in clients}) == 1, "the same text")
        text = str(clients[0].text())
        assert all(sign in text for sign in "ABCDEF")
        assert "start " in text and "wrong" not in text
    finally:
        for client in clients:
            await client.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest) -> dict[str, str]:
    """The options of a server on this database."""
    return {"database_url": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}


async def read_rows(api: Api, start: int, end: int) -> list[dict[str, Any]]:
    """Read all rows of an interval, in as many calls as it takes."""
    found: list[dict[str, Any]] = []
    while start < end:
        portion = [json.loads(line) for line in (await api.get("rows/d", **{"from": start, "to": end})).splitlines()]
        assert 0 < len(portion) <= MAX_PORTION_ROWS
        assert len(portion) == 1 or sum(len(row["update"]) for row in portion) * 3 / 4 <= MAX_PORTION_BYTES
        found += portion
        start = portion[-1]["number"]
    return found


async def test_the_rows_of_a_document_are_read_one_by_one(
    serve: Serve, session: aiohttp.ClientSession, where: dict[str, str]
) -> None:
    served = await serve(authenticator=People(), **where)
    api = Api(session, served)
    began = time.time()
    await type_as(served, "d", "ada", 0, "one")
    await type_as(served, "d", "bob", 3, " two")
    middle = (await api.get("attribution/d"))["number"]
    # Two rows that do not fit into one answer, and one that is longer than an answer.
    for size in (MAX_PORTION_BYTES * 2 // 3, MAX_PORTION_BYTES * 2 // 3, MAX_PORTION_BYTES + 1):
        await type_as(served, "d", "ada", 7, "x" * size)
    head = (await api.get("attribution/d"))["number"]
    rows = await read_rows(api, 0, head)
    assert [row["number"] for row in rows] == list(range(1, head + 1))
    assert [row["author"] for row in rows if row["number"] in (1, middle, head)] == ["ada", "bob", "ada"]
    assert all(began - 1 <= row["at"] <= time.time() + 1 for row in rows)
    doc: Doc[Any] = Doc()
    text = doc.get("text", type=Text)
    for row in rows:
        doc.apply_update(base64.b64decode(row["update"]))
        if row["number"] == middle:
            assert str(text) == "one two"
    assert len(str(text)) > 2 * MAX_PORTION_BYTES


async def test_the_note_of_a_row_is_told(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "d", "ada", 0, "one")
    number = (await api.get("attribution/d"))["number"]
    await api.post("restore/d", "bob", number=0, on_behalf_of="zoe")
    (row,) = await read_rows(api, number, number + 1)
    assert (row["author"], row["on_behalf_of"], row["label"]) == ("bob", "zoe", "restore number=0")


async def test_rows_that_are_not_there_are_refused(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=People())
    api = Api(session, served)
    await type_as(served, "d", "ada", 0, "one")
    head = (await api.get("attribution/d"))["number"]
    assert await api.get("rows/d", "reader", **{"from": head}) is None
    assert await api.get("rows/d", **{"from": 0, "to": head + 1}) == 410
    assert await api.get("rows/d", **{"from": head, "to": 0}) == 422
    assert await api.get("rows/d", **{"from": -1}) == 400
    assert await api.get("rows/none", **{"from": 0}) == 404
    assert await api.get("rows/d", "", **{"from": 0}) == 401
