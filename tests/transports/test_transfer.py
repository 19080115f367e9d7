"""``/api/v1/export`` and ``/api/v1/import``: many documents, exact, and whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.errors import StoreUnavailable
from collab.hub.transfer import Transfer
from collab.storage.checksums import seal_row
from collab.storage.records import NewRow
from tests.support.api import check, told
from tests.support.wsclient import LiveClient, RawClient, step2, text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_description import Anybody

NDJSON = "application/x-ndjson"


class Api:
    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session, self.url = session, f"{served.url}/api/v1"

    async def export(self, query: str = "") -> list[dict[str, Any]]:
        async with self._session.get(f"{self.url}/export{query}") as response:
            body = await response.read()
            check("GET", "/api/v1/export", response.status, response.headers["Content-Type"], body)
            return [json.loads(line) for line in body.splitlines()]

    async def import_(self, lines: list[Any], **options: Any) -> tuple[int, Any]:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return await self.post(text.encode(errors="surrogatepass"), **options)

    async def post(self, data: Any, kind: str = NDJSON, **headers: str) -> tuple[int, Any]:
        sent = {"Content-Type": kind, **headers}
        async with self._session.post(f"{self.url}/import", data=data, headers=sent) as response:
            return response.status, await told(response)


def line(name: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"name": name, "update": base64.b64encode(text_update(7, text)).decode(), **more}


async def read(served: Served, name: str) -> str:
    async with LiveClient(served.ws(name)) as client:
        await client.until_synced()
        return str(client.text())


async def test_a_thousand_documents_go_out_and_come_in_equal(serve: Serve, session: aiohttp.ClientSession) -> None:
    old = Api(session, await serve(max_new_documents_per_minute=1))
    lines = [line(f"d/{number:04}", f"text {number} ü😀", title=f"Number {number}") for number in range(1_000)]
    status, done = await old.import_(lines)
    assert (status, done) == (200, {"lines": 1_000, "created": 1_000, "existed": 0, "failed": 0, "failures": []})
    exported = await old.export()
    assert exported[-1] == {"end": True, "documents": 1_000, "failed": 0}
    assert [(one["name"], one["title"]) for one in exported[:-1]] == [(one["name"], one["title"]) for one in lines]

    other = await serve(max_new_documents_per_minute=1)
    new = Api(session, other)
    assert (await new.import_(exported))[1]["created"] == 1_000
    again = await new.export()
    assert [one["update"] for one in again[:-1]] == [one["update"] for one in exported[:-1]]
    assert await read(other, "d/0999") == "text 999 ü😀"
    assert (await new.import_(exported))[1] | {"lines": 0} == {
        "lines": 0, "created": 0, "existed": 1_000, "failed": 0, "failures": [],
    }  # fmt: skip


async def test_a_stream_that_broke_off_goes_on_behind_what_came(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve())
    await api.import_([line(f"a/{number}") for number in range(5)] + [line("b")])
    whole = await api.export("?prefix=a/")
    assert [one.get("name") for one in whole] == ["a/0", "a/1", "a/2", "a/3", "a/4", None]
    rest = await api.export(f"?prefix=a/&cursor={whole[2]['cursor']}")
    assert rest[:-1] == whole[3:-1] and rest[-1]["documents"] == 2


async def test_what_people_write_meanwhile_is_exported_as_far_as_it_is_committed(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve()
    api = Api(session, served)
    async with RawClient(served.ws("busy")) as client:
        await client.send(step2(text_update(7, "typed")))
        await client.barrier()
        await served.app[HUB].rooms["busy"].persistence.durable()
        (exported, _) = await api.export()
        assert base64.b64decode(exported["update"]) == text_update(7, "typed")


async def test_a_line_that_fails_hinders_no_other(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(max_document_bytes=100_000, max_message_bytes=100_000)
    # "x" of client 7 at clock 1, behind a character that is not there.
    gap = base64.b64encode(bytes((1, 1, 7, 1, 0x84, 7, 0, 1, 0x78, 0))).decode()
    bad: list[Any] = [
        {"name": " "},
        {"name": "x", "update": "no base64"},
        {"name": "x", "update": base64.b64encode(b"no update").decode()},
        {"name": "x", "update": gap},
        {"name": "x", "title": "a\nb"},
        {"update": ""},
        "{",
        '"text"',
        '{"name": "\\ud800"}',
        line("x", "y" * 100_001),
    ]
    lines = [part for number, one in enumerate(bad) for part in (one, line(f"good/{number}"))]
    status, done = await Api(session, served).import_(lines)
    assert status == 200 and (done["created"], done["failed"]) == (len(bad), len(bad)), done
    assert [one["line"] for one in done["failures"]] == list(range(1, 2 * len(bad), 2))
    assert [one["code"] for one in done["failures"]] == [
        "invalid_name", "invalid_request", "invalid_update", "invalid_update", "invalid_request", "invalid_request",
        "invalid_request", "invalid_request", "invalid_request", "too_large",
    ]  # fmt: skip
    assert {one.get("name") for one in await Api(session, served).export()} == {
        *(f"good/{number}" for number in range(len(bad))), None,
    }  # fmt: skip


async def test_a_damaged_document_is_told_and_the_others_go_out(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    api = Api(session, served)
    await api.import_([line("a"), line("b")])
    broken = seal_row(text_update(7, "rotten"), 1.0, None)
    await served.app[HUB].store.create("damaged", rows=[NewRow(broken.data, broken.at, None, checksum=1)])
    exported = await api.export()
    assert [(one.get("name"), one.get("code")) for one in exported[:-1]] == [
        ("a", None), ("b", None), ("damaged", "document_damaged"),
    ]  # fmt: skip
    assert exported[-1] == {"end": True, "documents": 2, "failed": 1}
    # What could not be read is told again by an import of these lines, and makes no document.
    done = (await Api(session, await serve()).import_(exported))[1]
    assert (done["created"], done["failed"], done["failures"][0]["name"]) == (2, 1, "damaged")


async def test_a_store_that_goes_away_is_no_end(
    serve: Serve, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(session, await serve())
    await api.import_([line(name) for name in "abc"])
    real = Transfer.read

    async def away(self: Transfer, name: str) -> Any:
        if name == "c":
            raise StoreUnavailable("away")
        return await real(self, name)

    monkeypatch.setattr(Transfer, "read", away)
    assert [one.get("name", "end") for one in await api.export()] == ["a", "b"]

    async def refused(self: Transfer, *arguments: Any, **options: Any) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(Transfer, "write", refused)
    status, detail = await api.import_([line("d"), line("e")])
    assert status == 503 and "not available" in detail


async def test_bodies_that_are_no_lines_end(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(max_document_bytes=2_000, max_message_bytes=2_000)
    api = Api(session, served)
    assert (await api.post(b"{}", "application/json"))[0] == 415
    assert (await api.post(b"x" * 100_000))[0] == 413
    assert (await api.post(b"\n \n\n"))[1]["lines"] == 0
    # The last line needs no end, and lines may come in pieces.
    data = json.dumps(line("pieces")).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 50):
            yield data[at : at + 50]
            await asyncio.sleep(0)

    assert (await api.post(pieces()))[1]["created"] == 1


async def test_only_who_may_everything_may_take_everything(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve(authenticator=Anybody()))
    assert (await api.import_([line("a")]))[0] == 401
    assert (await api.import_([line("a")], Authorization="Bearer admin"))[1]["created"] == 1
    async with session.get(f"{api.url}/export") as response:
        assert response.status == 401
