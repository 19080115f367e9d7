"""``/api/v1/export`` and ``/api/v1/import``: many documents, exact, and whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.errors import StoreUnavailable
from collab.hub.transfer import Transfer
from collab.storage.checksums import seal_row
from collab.storage.memory import MemoryStore
from collab.storage.records import NewRow
from tests.support.api import check, told
from tests.support.wsclient import LiveClient, RawClient, step2, text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_description import Anybody

NDJSON = "application/x-ndjson"
TAR = "application/x-tar"


class Api:
    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self._session, self.url = session, f"{served.url}/api/v1"

    async def export(self, query: str = "") -> list[dict[str, Any]]:
        async with self._session.get(f"{self.url}/export{query}") as response:
            body = await response.read()
            check("GET", "/api/v1/export", response.status, response.headers["Content-Type"], body)
            return [json.loads(line) for line in body.splitlines()]

    async def archive(self, query: str = "", **headers: str) -> tuple[bytes, str]:
        """Return an archive, and how many documents it was going to have."""
        async with self._session.get(f"{self.url}/export{query}", headers=headers) as response:
            body = await response.read()
            check("GET", "/api/v1/export", response.status, response.headers["Content-Type"], body)
            assert response.content_type == TAR
            return body, response.headers["X-Total-Count"]

    async def import_(self, lines: list[Any], **options: Any) -> tuple[int, Any]:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        return await self.post(text.encode(errors="surrogatepass"), **options)

    async def post(self, data: Any, kind: str = NDJSON, **headers: str) -> tuple[int, Any]:
        sent = {"Content-Type": kind, **headers}
        data = io.BytesIO(data) if isinstance(data, bytes) else data
        async with self._session.post(f"{self.url}/import", data=data, headers=sent) as response:
            return response.status, await told(response)

    async def watch(self, data: Any, kind: str = NDJSON) -> list[dict[str, Any]]:
        """Import, and return the lines that tell how far it has come."""
        status, body = await self.post(data, kind, Accept=NDJSON)
        assert status == 200
        return [json.loads(one) for one in body.splitlines()]


def heads(archive: bytes) -> list[dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        files = [opened.extractfile(member) for member in opened if member.name.endswith(".json")]
        return [json.loads(file.read()) for file in files if file is not None]


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
    archive, count = await old.archive("?format=tar")
    assert count == "1000"

    other = await serve(store=MemoryStore(), max_new_documents_per_minute=1)
    new = Api(session, other)
    assert (await new.post(archive, TAR))[1]["created"] == 1_000
    exported = await new.export()
    assert exported[-1] == {"end": True, "documents": 1_000, "failed": 0}
    found = [{key: one[key] for key in ("name", "title", "update")} for one in exported[:-1]]
    assert found == [{"name": one["name"], "title": one["title"], "update": one["update"]} for one in lines]
    assert await read(other, "d/0999") == "text 999 ü😀"


async def test_the_same_again_changes_nothing(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve())
    lines = [line(name) for name in ("a", "b", "c")]
    await api.import_(lines)
    archive, _ = await api.archive(Accept=TAR)
    await api.import_([line("d")])
    before = await api.export()
    for data, kind in ((archive, TAR), ("".join(map(json.dumps, lines[:1])).encode(), NDJSON)):
        done = (await api.post(data, kind))[1]
        assert (done["created"], done["existed"], done["failed"]) == (0, done["lines"], 0)
    assert await api.export() == before


async def test_a_name_that_comes_twice_in_one_import_is_told(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve())
    await api.import_([line("there")])
    for far in (0, 200):  # in one piece, and in another one
        between = [line(f"{far}/{number}") for number in range(far)]
        first = line(f"twice/{far}", "first")
        status, done = await api.import_([first, *between, line(f"twice/{far}", "second"), line("there")])
        assert status == 200 and (done["created"], done["existed"], done["failed"]) == (1 + far, 1, 1)
        (failure,) = done["failures"]
        assert (failure["line"], failure["name"], failure["code"]) == (2 + far, f"twice/{far}", "document_exists")
        (kept, _) = await api.export(f"?prefix=twice/{far}")
        assert kept["update"] == first["update"], "the first one stays"


async def test_an_import_tells_how_far_it_has_come(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve())
    sent = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, 2_000, 500):
            yield b"".join(b'{"name": "d/%d"}\n{"name": " "}\n' % number for number in range(begin, begin + 500, 20))
            if begin == 1_000:
                await asyncio.wait_for(sent.wait(), 60)  # the server has told something before all was sent

    headers = {"Content-Type": NDJSON, "Accept": f"{NDJSON}, application/json;q=0.5"}
    async with session.post(f"{api.url}/import", data=pieces(), headers=headers) as response:
        assert response.content_type == NDJSON
        told_lines = [json.loads(await response.content.readline())]
        sent.set()
        told_lines += [json.loads(one) async for one in response.content]
    assert told_lines[0] == {"lines": 0, "created": 0, "existed": 0, "failed": 0, "failures": [], "end": False}
    assert [one["end"] for one in told_lines] == [False] * (len(told_lines) - 1) + [True]
    assert told_lines[-1] | {"failures": []} == {
        "lines": 200,
        "created": 100,
        "existed": 0,
        "failed": 100,
        "failures": [],
        "end": True,
    }
    assert [one["line"] for each in told_lines for one in each["failures"]] == list(range(2, 202, 2))
    assert all(len(each["failures"]) <= 20 for each in told_lines)


async def test_what_ends_an_import_is_told_in_its_last_line(
    serve: Serve, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(session, await serve())
    await api.import_([line("a"), line("b")])
    archive, _ = await api.archive("?format=tar")
    whole = (await api.watch(archive, TAR))[-1]
    assert whole == {"lines": 2, "created": 0, "existed": 2, "failed": 0, "failures": [], "end": True}
    # The end of the archive is missing, so documents may be missing too.
    cut = (await api.watch(archive[:-1024], TAR))[-1]
    assert (cut["end"], cut["existed"], cut["code"]) == (True, 2, "invalid_request") and "breaks off" in cut["detail"]
    status, detail = await api.post(archive[:-1024], TAR)
    assert status == 400 and "breaks off" in detail and "behind document 2" in detail

    async def away(self: Transfer, *arguments: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(Transfer, "write", away)
    assert (await api.watch(json.dumps(line("c")).encode()))[-1]["code"] == "unavailable"

    async def defect(self: Transfer, *arguments: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Transfer, "write", defect)
    last = (await api.watch(json.dumps(line("c")).encode()))[-1]
    assert (last["code"], last["end"]) == ("internal", True) and "defect" not in last["detail"]


async def test_an_archive_that_is_hostile_is_refused_and_what_came_before_stays(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    api = Api(session, await serve())
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for name, data in (("a.json", b'{"name": "../../a"}'), ("a.yjs", text_update(7, "kept"))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("b.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    status, detail = await api.post(file.getvalue(), TAR)
    assert status == 400 and "a link" in detail
    # A name of a document is no path, whatever it looks like.
    assert [one.get("name") for one in await api.export()] == ["../../a", None]
    # What grows when it is unpacked is not unpacked.
    status, detail = await api.post(gzip.compress(bytes(10_000_000)), TAR, **{"Content-Encoding": "gzip"})
    assert status == 415 and "compressed" in detail


async def test_a_stream_that_broke_off_goes_on_behind_what_came(serve: Serve, session: aiohttp.ClientSession) -> None:
    api = Api(session, await serve())
    await api.import_([line(f"a/{number}") for number in range(5)] + [line("b")])
    whole = await api.export("?prefix=a/")
    assert [one.get("name") for one in whole] == ["a/0", "a/1", "a/2", "a/3", "a/4", None]
    rest = await api.export(f"?prefix=a/&cursor={whole[2]['cursor']}")
    assert rest[:-1] == whole[3:-1] and rest[-1]["documents"] == 2
    archive, count = await api.archive(f"?prefix=a/&format=tar&cursor={whole[2]['cursor']}")
    assert count == "2"
    assert [one.get("name") for one in heads(archive)] == ["a/3", "a/4", None]
    assert heads(archive)[0]["cursor"] == whole[3]["cursor"]


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
        "invalid_name",
        "invalid_request",
        "invalid_update",
        "invalid_update",
        "invalid_request",
        "invalid_request",
        "invalid_request",
        "invalid_request",
        "invalid_request",
        "too_large",
    ]
    assert {one.get("name") for one in await Api(session, served).export()} == {
        *(f"good/{number}" for number in range(len(bad))),
        None,
    }


async def test_a_damaged_document_is_told_and_the_others_go_out(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    api = Api(session, served)
    await api.import_([line("a"), line("b")])
    broken = seal_row(text_update(7, "rotten"), 1.0, None)
    await served.app[HUB].store.create("damaged", rows=[NewRow(broken.data, broken.at, None, checksum=1)])
    exported = await api.export()
    assert [(one.get("name"), one.get("code")) for one in exported[:-1]] == [
        ("a", None),
        ("b", None),
        ("damaged", "document_damaged"),
    ]
    assert exported[-1] == {"end": True, "documents": 2, "failed": 1}
    # What could not be read is told again by an import of these lines, and makes no document.
    other = Api(session, await serve())
    done = (await other.import_(exported))[1]
    assert (done["created"], done["failed"], done["failures"][0]["name"]) == (2, 1, "damaged")
    archive, _ = await api.archive("?format=tar")
    done = (await other.post(archive, TAR))[1]
    assert (done["existed"], done["failed"]) == (2, 1)
    assert (done["failures"][0]["name"], done["failures"][0]["code"]) == ("damaged", "not_possible")


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
