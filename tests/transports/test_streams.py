"""``/streams/docs`` over the whole application: every method and status, live readers, and who may do what.

Strategy: users are those of a table, each shows the own name as the token. What is in the protocol's bytes is in
tests/protocol/test_streams.py, what becomes of the log in tests/hub/test_streaming.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from yarl import URL

from collab.app import DRAIN, GUARD, HUB, READERS
from collab.auth.access import AccessRequest, Grant
from collab.protocol import streams as protocol
from collab.protocol.session import Access
from collab.protocol.streams import decode_frames, encode_frames
from collab.transports.http.streams import live as live_module
from tests.support.author import Author
from tests.support.waiting import happens
from tests.support.wsclient import STEP1, step1, update
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Connect, Control, Table, control, http

__all__ = ["control", "http"]

READ, WRITE, ADMIN = Access.READ, Access.WRITE, Access.ADMIN
OCTETS = {"Content-Type": "application/octet-stream"}


class Got:
    """An answer, whole."""

    def __init__(self, answer: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, body

    @property
    def code(self) -> str:
        error = json.loads(self.body)["error"]
        assert error.keys() == {"code", "message"} and error["message"]
        assert self.headers["Content-Type"].startswith("application/json")
        return f"{self.status} {error['code']}"

    @property
    def offset(self) -> str:
        return self.headers["Stream-Next-Offset"]

    @property
    def updates(self) -> list[bytes]:
        return decode_frames(self.body) if self.body else []

    @property
    def text(self) -> str:
        author = Author(0)
        for each in self.updates:
            author.read(each)
        return str(author.text)


class Stream:
    """Reads the events of an answer as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.author = Author(0)
        self.offset = ""
        self.events: list[tuple[str, Any]] = []
        self.comments = 0
        self.ended = False
        self.changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        kind, data = "", []
        try:
            async for line in self.answer.content:
                text = line.decode().rstrip("\n")
                if text.startswith("event:"):
                    kind = text[6:].strip()
                elif text.startswith("data:"):
                    data.append(text[5:].strip())
                elif text.startswith(":"):
                    self.comments += 1
                elif not text and kind:
                    self._take(kind, "".join(data))
                    kind, data = "", []
                self.changed.set()
        finally:
            self.ended = True
            self.changed.set()

    def _take(self, kind: str, data: str) -> None:
        if kind == "data":
            payload = base64.b64decode(data, validate=True)
            self.events.append((kind, decode_frames(payload)))
            for each in decode_frames(payload):
                self.author.read(each)
        else:
            told = json.loads(data)
            self.events.append((kind, told))
            self.offset = told["streamNextOffset"]

    @property
    def text(self) -> str:
        return str(self.author.text)

    async def until(self, fact: Callable[[], object], what: str) -> None:
        await happens(fact, f"{what}; had {self.events}", 20.0)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.answer.close()


class Api:
    """Asks the server for streams as a user."""

    def __init__(self, served: Served, http: aiohttp.ClientSession) -> None:
        self.served, self.http = served, http

    def url(self, name: str, **query: str) -> URL:
        return URL(f"{self.served.url}/streams/docs/{name}", encoded=True).update_query(query)

    async def __call__(
        self,
        method: str,
        name: str = "d",
        *,
        body: bytes | None = None,
        user: str = "root",
        headers: Any = None,
        **query: str,
    ) -> Got:
        sent = {"Authorization": f"Bearer {user}"} if user else {}
        if body is not None:
            sent |= OCTETS
        async with self.http.request(
            method, self.url(name, **query), data=body, headers=sent | (headers or {}), allow_redirects=False
        ) as answer:
            return Got(answer, await answer.read())

    async def post(self, *updates: bytes, name: str = "d", user: str = "root", **headers: str) -> Got:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self("POST", name, body=encode_frames(updates), user=user, headers=given)

    @asynccontextmanager
    async def events(
        self, name: str = "d", user: str = "root", headers: Any = None, **query: str
    ) -> AsyncIterator[Stream]:
        sent = {"Authorization": f"Bearer {user}"} | (headers or {})
        query = {"offset": "-1", "live": "sse"} | query
        answer = await self.http.get(self.url(name, **query), headers=sent)
        assert answer.status == 200, await answer.text()
        stream = Stream(answer)
        try:
            yield stream
        finally:
            await stream.close()


@pytest.fixture
def table() -> Table:
    table = Table()
    table.rights["ada", "d"] = WRITE
    table.rights["rea", "d"] = READ
    return table


@pytest.fixture
async def served(serve: Serve, table: Table) -> Served:
    return await serve(authenticator=table)


@pytest.fixture
async def api(served: Served, http: aiohttp.ClientSession) -> Api:
    api = Api(served, http)
    assert (await api("PUT")).status == 201
    return api


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let live readers end soon."""
    monkeypatch.setattr(live_module, "LIVE_SECONDS", 0.3)


def readers(served: Served) -> int:
    return len(served.app[READERS])


# Documents


async def test_the_life_of_a_document(served: Served, http: aiohttp.ClientSession) -> None:
    api = Api(served, http)
    for method in ("GET", "HEAD", "DELETE"):
        assert (await api(method, "new")).status == 404
    assert (await api("POST", "new", body=b"\x02\x00\x00")).code == "404 DOCUMENT_NOT_FOUND"
    created = await api("PUT", "new")
    assert (created.status, created.body) == (201, b"")
    assert created.headers["Location"] == "/streams/docs/new"
    assert created.headers["Content-Type"] == "application/octet-stream"
    again = await api("PUT", "new", headers=OCTETS)
    assert (again.status, again.offset) == (200, created.offset)
    head = await api("HEAD", "new")
    assert (head.status, head.offset, head.headers["Cache-Control"]) == (200, created.offset, "no-store")
    assert (await api("DELETE", "new")).status == 204
    for method in ("GET", "DELETE"):
        assert (await api(method, "new")).code == "404 DOCUMENT_NOT_FOUND"
    fresh = await api("PUT", "new")
    assert fresh.status == 201 and fresh.offset != created.offset


async def test_other_methods_are_refused(api: Api) -> None:
    for query in ({}, {"awareness": "default"}):
        for method in ("PATCH", "OPTIONS", "PROPFIND"):
            refused = await api(method, **query)
            assert refused.code == "405 INVALID_REQUEST"
            assert refused.headers["Allow"] == "DELETE, GET, HEAD, POST, PUT"


async def test_names_have_slashes_and_no_dots(api: Api) -> None:
    for name in ("a/b", "%C3%A4%20b", "a%2F%2Fb"):
        assert (await api("PUT", name)).status == 201
    assert (await api("HEAD", "a%2Fb")).status == 200
    for name in ("a%2F..%2Fb", "%2E%2E", "a%2F.", "%FF", "%00", "x" * 513, "%20"):
        for method in ("GET", "PUT", "POST", "DELETE"):
            assert (await api(method, name, body=None if method == "GET" else b"")).code == "400 INVALID_REQUEST"


async def test_a_document_is_created_without_content(api: Api) -> None:
    assert (await api("PUT", "x", body=b"abc")).code == "400 INVALID_REQUEST"
    refused = await api("PUT", "x", headers={"Content-Type": "application/json"})
    assert refused.code == "409 CONFLICT"
    assert (await api("HEAD", "x")).status == 404


# Reading


async def test_what_was_posted_is_read_by_its_offsets(api: Api) -> None:
    author, offsets = Author(1), [(await api("HEAD")).offset]
    for letter in "abc":
        posted = await api.post(author.type(letter))
        assert (posted.status, posted.body) == (204, b"")
        offsets.append(posted.offset)
    assert offsets == sorted(offsets)
    for at, offset in enumerate(offsets):
        got = await api("GET", offset=offset)
        assert got.status == 200 and got.headers["Stream-Up-To-Date"] == "true"
        assert got.updates == author.updates[at:] and got.offset == offsets[-1]
        assert got.headers["Content-Type"] == "application/octet-stream"
    whole = await api("GET")
    assert whole.text == "abc" and whole.headers["Cache-Control"] == "no-store"
    now = await api("GET", offset="now")
    assert (now.status, now.body, now.headers["Stream-Up-To-Date"]) == (200, b"", "true")
    assert "ETag" not in now.headers


async def test_what_a_client_has_is_not_sent_again(api: Api) -> None:
    await api.post(Author(1).type("a"))
    tag = (await api("GET", offset="-1")).headers["ETag"]
    again = await api("GET", offset="-1", headers={"If-None-Match": tag})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    await api.post(Author(2).type("b"))
    more = await api("GET", offset="-1", headers={"If-None-Match": tag})
    assert more.status == 200 and more.headers["ETag"] != tag


async def test_parameters_that_do_not_fit_are_refused(api: Api) -> None:
    for query in (
        {"offset": "0"},
        {"offset": ""},
        {"offset": "x" * 1_000},
        {"live": "sse"},
        {"live": "long-poll"},
        {"offset": "-1", "live": "yes"},
        {"awareness": ""},
        {"awareness": "x" * 65},
        {"awareness": "a\nb"},
    ):
        assert (await api("GET", **query)).code == "400 INVALID_REQUEST"
    async with api.http.get(f"{api.url('d')}?offset=now&offset=-1", headers={"Authorization": "Bearer root"}) as answer:
        assert answer.status == 400
    # What is no parameter of the protocol is left alone: extensions may have some.
    assert (await api("GET", offset="now", timeout="5")).status == 200


async def test_offsets_that_lead_nowhere_are_gone(api: Api) -> None:
    await api.post(Author(1).type("a"))
    old = (await api("HEAD")).offset
    await api("DELETE")
    await api("PUT")
    for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
        assert (await api("GET", offset=old, **live)).code == "410 OFFSET_EXPIRED"
    assert (await api("GET", offset=f"{'9' * 16}_{'9' * 16}_snapshot")).code == "404 SNAPSHOT_NOT_FOUND"


async def test_a_snapshot_is_found_and_read(serve: Serve, http: aiohttp.ClientSession) -> None:
    api = Api(served := await serve(compact_rows=2, compact_bytes=1, compact_ratio=0.0), http)
    await api("PUT", user="")
    found = await api("GET", user="", offset="snapshot", token="ada&eve")
    assert found.status == 307 and found.headers["Cache-Control"] == "private, max-age=5"
    assert URL(found.headers["Location"]).query == {"offset": "-1", "token": "ada&eve"}
    author = Author(1)
    for letter in "abcd":
        await api.post(author.type(letter), user="")
    await happens(lambda: served.app[HUB].rooms["d"].persistence.snapshot_seq == 4, "a snapshot of all")
    found = await api("GET", user="", offset="snapshot")
    offset = URL(found.headers["Location"]).query["offset"]
    assert offset.endswith("_snapshot")
    snapshot = await api("GET", user="", offset=offset)
    reader = Author(0)
    reader.read(snapshot.body)
    for each in (await api("GET", user="", offset=snapshot.offset)).updates:
        reader.read(each)
    assert str(reader.text) == "abcd"


# Long-poll


async def test_a_long_poll_is_answered_by_what_is_there(api: Api) -> None:
    author = Author(1)
    await api.post(author.type("a"))
    got = await api("GET", offset="-1", live="long-poll")
    assert got.status == 200 and got.updates == author.updates and got.headers["Stream-Up-To-Date"] == "true"
    assert int(got.headers["Stream-Cursor"]) > 3_000_000


@pytest.mark.parametrize("start", ["now", "offset"])
async def test_a_long_poll_waits_for_what_comes(api: Api, served: Served, start: str) -> None:
    author = Author(1)
    end = (await api.post(author.type("a"))).offset
    waiting = asyncio.create_task(api("GET", offset=end if start == "offset" else "now", live="long-poll"))
    await happens(lambda: readers(served), "a reader")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    posted = await api.post(author.type("b"))
    got = await waiting
    assert got.updates == author.updates[1:] and got.offset == posted.offset
    assert readers(served) == 0


async def test_a_long_poll_ends_when_nothing_comes(api: Api, served: Served, quick: None) -> None:
    got = await api("GET", offset="now", live="long-poll")
    assert (got.status, got.body, got.headers["Stream-Up-To-Date"]) == (204, b"", "true")
    assert got.offset == (await api("HEAD")).offset
    cursor = int(got.headers["Stream-Cursor"])
    ahead = await api("GET", offset="now", live="long-poll", cursor=str(cursor + 500))
    assert int(ahead.headers["Stream-Cursor"]) > cursor + 500
    assert served.app[READERS].counts.opened == {"long-poll": 2, "sse": 0}


async def test_a_long_poll_is_told_that_its_document_has_gone(api: Api, served: Served) -> None:
    waiting = asyncio.create_task(api("GET", offset="now", live="long-poll"))
    await happens(lambda: readers(served), "a reader")
    await api("DELETE")
    assert (await waiting).code == "404 DOCUMENT_NOT_FOUND"


# Server-sent events


async def test_events_come_as_they_are_committed(api: Api, served: Served) -> None:
    author = Author(1)
    await api.post(author.type("a"))
    async with api.events() as stream:
        headers = stream.answer.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Stream-SSE-Data-Encoding"] == "base64"
        assert headers["X-Accel-Buffering"] == "no" and headers["Cache-Control"] == "no-store"
        await stream.until(lambda: stream.text == "a", "what was there")
        for letter in "bcd":
            await api.post(author.type(letter))
        await stream.until(lambda: stream.text == "abcd", "what came")
        assert [kind for kind, _ in stream.events] == ["data", "control"] * (len(stream.events) // 2)
        assert all(told["upToDate"] and told["streamCursor"] for kind, told in stream.events if kind == "control")
        assert stream.offset == (await api("GET", offset="-1")).offset
        assert served.app[READERS].counts.events == 3
    await happens(lambda: not readers(served), "its end", 20.0)


async def test_the_first_event_says_where_the_reader_stands(api: Api) -> None:
    async with api.events(offset="now") as stream:
        await stream.until(lambda: stream.events, "the first event")
        ((kind, told),) = stream.events
        assert kind == "control" and told["upToDate"] is True
        assert told["streamNextOffset"] == (await api("HEAD")).offset


async def test_an_answer_of_events_ends_and_is_gone_on_with(api: Api, quick: None) -> None:
    author = Author(1)
    async with api.events() as stream:
        await api.post(author.type("a"))
        await stream.until(lambda: stream.ended, "its end")
        assert stream.text == "a"
    await api.post(author.type("b"))
    async with api.events(offset=stream.offset) as rest:
        await rest.until(lambda: rest.events, "what came meanwhile")
        assert rest.events[0] == ("data", author.updates[1:])


async def test_a_comment_keeps_the_connection_alive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "KEEP_ALIVE_SECONDS", 0.05)
    async with api.events(offset="now") as stream:
        await stream.until(lambda: stream.comments >= 3, "comments")
        assert len(stream.events) == 1
        await api.post(Author(1).type("a"))
        await stream.until(lambda: stream.text == "a", "what came")


async def read_raw(served: Served, head: str, until: bytes) -> bytes:
    """Send a request, and read until some bytes have come or the connection ends."""
    assert served.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    try:
        writer.write(head.encode())
        found = b""
        async with asyncio.timeout(20):
            while until not in found and (data := await reader.read(65536)):
                found += data
        return found
    finally:
        writer.close()


async def test_a_proxy_that_speaks_http_1_0_gets_no_chunks(api: Api, served: Served, quick: None) -> None:
    head = "GET /streams/docs/d?offset=now&live=sse&token=root HTTP/1.0\r\nHost: x\r\n\r\n"
    reading = asyncio.create_task(read_raw(served, head, b"no such bytes"))
    await happens(lambda: readers(served), "a reader")
    await api.post(Author(1).type("a"))
    _, _, body = (await reading).partition(b"\r\n\r\n")
    events = [block for block in body.decode().split("\n\n") if block]
    assert [block.split("\n")[0] for block in events] == ["event: control", "event: data", "event: control"]


async def test_a_client_that_reads_slowly_costs_nothing_and_misses_nothing(
    serve: Serve, http: aiohttp.ClientSession
) -> None:
    api = Api(served := await serve(outbox_bytes=32 * 1024), http)
    await api("PUT", user="")
    author = Author(1)
    assert served.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port, limit=1024)
    writer.write(b"GET /streams/docs/d?offset=-1&live=sse HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    await happens(lambda: readers(served), "a reader")
    counts, sent = served.app[READERS].counts, 0
    while not counts.behind:
        await api.post(author.type("x" * 200_000), user="")
        sent += 200_000
        assert sent < 40_000_000
    for _ in range(5):
        await api.post(author.type("y" * 200_000), user="")
    ((told,),) = [[facts() for _, facts in served.app[READERS].describe()]]
    assert told.waiting < 2_000_000 and told.members[0][1].state.value == "lagging"
    found, events = Author(0), b""
    async with asyncio.timeout(60):
        while len(str(found.text)) < sent + 1_000_000:
            events += await reader.read(1 << 20)
            *whole, events = events.split(b"\n\n")
            for block in whole:
                if block.startswith(b"event: data"):
                    lines = [line.removeprefix(b"data:") for line in block.split(b"\n")[1:]]
                    for each in decode_frames(base64.b64decode(b"".join(lines))):
                        found.read(each)
    assert str(found.text) == str(author.text)
    writer.close()


# Beside sockets


async def test_sockets_and_streams_edit_the_same_document(api: Api, served: Served, connect: Connect) -> None:
    client = await connect(f"{served.ws('d')}?token=root")
    await client.send(step1())
    await client.expect_sync(STEP1)
    async with api.events() as stream:
        socket_author, post_author = Author(1), Author(2)
        await client.send(update(socket_author.type("from a socket ")))
        await stream.until(lambda: stream.text == "from a socket ", "the edit of the socket")
        await api.post(post_author.type("posted"))

        await happens(lambda: any(b"posted" in frame for frame in client.frames), "the post on the socket")
        await stream.until(lambda: "posted" in stream.text, "the post")


# Posts


async def test_posts_that_are_malformed_are_refused(api: Api) -> None:
    assert (await api("POST", body=b"")).code == "400 INVALID_REQUEST"
    assert (await api("POST", body=b"\x05ab")).code == "400 INVALID_REQUEST"
    assert (await api.post(b"\x01\x02\x03")).code == "400 INVALID_REQUEST"
    refused = await api("POST", body=b"\x02\x00\x00", headers={"Content-Type": "application/json"})
    assert refused.code == "409 CONFLICT"
    for stream in ({}, {"awareness": "default"}, {"awareness": "cursors"}):
        async with api.http.post(
            api.url("d", **stream),
            data=b"\x02\x00\x00",
            headers={"Authorization": "Bearer root"},
            skip_auto_headers=["Content-Type"],
        ) as got:
            assert got.status == 400 and "content type" in (await got.json())["error"]["message"]
    for headers in ({"Producer-Id": "p"}, {"Producer-Epoch": "0", "Producer-Seq": "0"}):
        assert (await api("POST", body=b"\x02\x00\x00", headers=headers)).code == "400 INVALID_REQUEST"
    assert (await api("GET")).body == b""


async def test_a_post_of_too_many_updates_is_refused_for_good(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 429 its sender would send it again for ever."""
    monkeypatch.setattr(protocol, "MAX_FRAMES", 3)
    assert (await api("POST", body=b"\x02\x00\x00" * 3)).status == 204
    assert (await api("POST", body=b"\x02\x00\x00" * 4)).code == "413 PAYLOAD_TOO_LARGE"


async def test_a_post_may_be_too_large(serve: Serve, http: aiohttp.ClientSession) -> None:
    api = Api(await serve(max_message_bytes=100_000, max_document_bytes=150_000), http)
    await api("PUT", user="")
    author = Author(1)
    assert (await api.post(Author(2).type("x" * 200_000), user="")).code == "413 PAYLOAD_TOO_LARGE"
    assert (await api.post(author.type("x" * 90_000), user="")).status == 204
    assert (await api.post(author.type("y" * 90_000), user="")).code == "413 PAYLOAD_TOO_LARGE"


async def test_what_its_producer_is_told_of_a_post(api: Api, served: Served) -> None:
    author = Author(1)

    async def post(update: bytes, epoch: int, seq: int) -> tuple[int, str | None, str | None]:
        got = await api.post(update, Producer_Id="d-1", Producer_Epoch=str(epoch), Producer_Seq=str(seq))
        assert got.status == 403 or got.offset
        return got.status, got.headers.get("Producer-Epoch"), got.headers.get("Producer-Seq")

    assert await post(author.type("a"), 0, 0) == (200, "0", "0")
    assert await post(author.type("b"), 0, 1) == (200, "0", "1")
    assert await post(author.updates[0], 0, 0) == (204, "0", "1")
    assert await post(author.type("c"), 2, 0) == (200, "2", "0")
    assert await post(author.type("d"), 1, 5) == (403, "2", None)
    assert (await api("GET")).text == "abc"
    counts = served.app[READERS].counts
    assert counts.posts == {"new": 3, "repeated": 1, "refused": 1} and counts.updates == 5


async def test_closing_a_document_leaves_it_open(api: Api) -> None:
    # The stock client does this when it leaves.
    producer = {"Producer-Id": "d-1", "Producer-Epoch": "0", "Producer-Seq": "7"}
    closed = await api("POST", body=b"", headers={"Stream-Closed": "true", **producer})
    assert closed.status == 204 and "Stream-Closed" not in closed.headers and closed.headers["Producer-Seq"] == "7"
    assert (await api.post(Author(1).type("a"), Stream_Closed="true")).status == 204
    assert (await api.post(Author(2).type("b"))).status == 204
    assert "Stream-Closed" not in (await api("HEAD")).headers


# Who may do what


async def test_access_is_asked_for_each_method(api: Api) -> None:
    post = encode_frames([Author(1).type("a")])
    for method, body in (("GET", None), ("HEAD", None), ("PUT", None), ("POST", post), ("DELETE", None)):
        for user, status in (("", 401), ("nobody", 401), ("eve", 403)):
            got = await api(method, body=body, user=user)
            assert got.status == status
            assert method == "HEAD" or got.code in ("401 UNAUTHORIZED", "403 FORBIDDEN")
            assert status != 401 or got.headers["WWW-Authenticate"] == "Bearer"
    for method, body, statuses in (
        ("GET", None, (200, 200, 200)),
        ("HEAD", None, (200, 200, 200)),
        ("PUT", None, (200, 200, 200)),
        ("POST", post, (403, 204, 204)),
        ("DELETE", None, (403, 403, 204)),
    ):
        for user, status in zip(("rea", "ada", "root"), statuses, strict=True):
            assert (await api(method, body=body, user=user)).status == status
    assert (await api("PUT", user="rea")).code == "403 FORBIDDEN"
    assert (await api("PUT", user="ada")).status == 201


async def test_a_producer_is_never_told_what_it_would_repeat_for_ever(api: Api) -> None:
    # It takes each 403 for a newer life of itself, and sends the same again at once.
    producer = {"Producer_Id": "d-1", "Producer_Epoch": "0", "Producer_Seq": "0"}
    for user in ("rea", "eve"):
        assert (await api.post(Author(1).type("a"), user=user, **producer)).code == "401 FORBIDDEN"
    # And after a 409 it waits for what it believes to be under way.
    refused = await api(
        "POST",
        body=b"\x02\x00\x00",
        headers={"Content-Type": "text/plain", "Producer-Id": "d-1"} | {"Producer-Epoch": "0", "Producer-Seq": "0"},
    )
    assert refused.code == "400 CONFLICT"


async def test_a_token_may_stand_in_the_address(api: Api) -> None:
    assert (await api("GET", user="", token="rea")).status == 200


class Soon(Table):
    """Grants access that ends soon."""

    seconds = 0.4

    async def authenticate(self, request: AccessRequest) -> Grant:
        grant = await super().authenticate(request)
        return Grant(grant.access, grant.user, grant.name, time.time() + self.seconds)


async def test_a_reader_ends_with_its_access(serve: Serve, http: aiohttp.ClientSession) -> None:
    api = Api(served := await serve(authenticator=Soon()), http)
    await api("PUT")
    polling = asyncio.create_task(api("GET", offset="now", live="long-poll"))
    async with api.events() as stream:
        await stream.until(lambda: stream.ended, "its end")
    assert (await polling).code == "401 UNAUTHORIZED"
    assert not served.app[HUB].rooms["d"].readers


async def test_readers_are_connections_and_are_kicked(
    api: Api, served: Served, control: Control, http: aiohttp.ClientSession
) -> None:
    async with api.events(user="rea") as stream, api.events(user="ada") as other:
        polling = asyncio.create_task(api("GET", user="rea", offset="now", live="long-poll"))
        await happens(lambda: readers(served) == 3, "the readers")

        async def listed(**query: str) -> list[dict[str, Any]]:
            url = URL(f"{served.url}/api/v1/connections").with_query(query)
            async with http.get(url, headers={"Authorization": "Bearer root"}) as answer:
                found: list[dict[str, Any]] = (await answer.json())["connections"]
                return found

        everyone = await listed()
        assert [each["protocol"] for each in everyone] == ["streams"] * 3
        assert sorted(each["users"][0] for each in everyone) == ["ada", "rea", "rea"]
        assert everyone[0]["documents"][0]["name"] == "d"
        assert len(await listed(document="d")) == 3 and len(await listed(user="ada")) == 1
        (ada,) = await listed(user="ada")
        assert (await control.done({"action": "kick", "connection": ada["id"]}))["ended"] == 1
        await other.until(lambda: other.ended, "its end")
        assert not stream.ended
        assert (await control.done({"action": "kick", "user": "rea", "seconds": 60}))["ended"] == 2
        await stream.until(lambda: stream.ended, "its end")
        assert (await polling).status == 503
        assert (await api("GET", user="rea")).code == "403 FORBIDDEN"
        assert await listed() == []


async def test_a_reader_whose_access_is_taken_back_ends(
    api: Api, served: Served, table: Table, control: Control
) -> None:
    async with api.events(user="rea") as stream, api.events(user="ada") as other:
        await happens(lambda: readers(served) == 2, "the readers")
        del table.rights["rea", "d"]
        assert (await control.done({"action": "check", "document": "d"}))["ended"] == 1
        await stream.until(lambda: stream.ended, "its end")
        await api.post(Author(1).type("a"))
        await other.until(lambda: other.text == "a", "what came")


async def test_readers_count_as_connections(serve: Serve, http: aiohttp.ClientSession) -> None:
    served = await serve(max_connections_per_document=2, max_connections_per_user=1, authenticator=(table := Table()))
    api = Api(served, http)
    await api("PUT")
    for user in ("ada", "bob", "eve"):
        table.rights[user, "d"] = READ
    async with api.events(user="ada"):
        assert (await api("GET", user="ada", offset="now", live="sse")).code == "503 UNAVAILABLE"
        async with api.events(user="bob"):
            assert (await api("GET", user="eve", offset="now", live="sse")).code == "429 RATE_LIMITED"
    assert (await api("GET", user="eve")).status == 200


async def test_a_reload_ends_readers_and_they_come_back(api: Api, control: Control) -> None:
    await api.post(Author(1).type("a"))
    async with api.events() as stream:
        await stream.until(lambda: stream.text == "a", "the beginning")
        await control.done({"action": "reload", "document": "d"})
        await stream.until(lambda: stream.ended, "its end")
    async with api.events(offset=stream.offset) as again:
        await again.until(lambda: again.events, "an answer")
        assert again.events[0][1]["upToDate"] is True


async def test_a_document_that_has_another_name_is_gone_under_the_old_one(api: Api, control: Control) -> None:
    async with api.events() as stream:
        await stream.until(lambda: stream.events, "the beginning")
        assert (await control.patch("d", {"name": "e"}))[0] == 200
        await stream.until(lambda: stream.ended, "its end")
    assert (await api("GET", offset=stream.offset)).code == "404 DOCUMENT_NOT_FOUND"
    assert (await api("GET", "e", offset=stream.offset)).status == 200


async def test_a_server_that_stops_ends_its_readers(api: Api, served: Served) -> None:
    polling = asyncio.create_task(api("GET", offset="now", live="long-poll"))
    async with api.events() as stream:
        await happens(lambda: readers(served) == 2, "the readers")
        await served.app[DRAIN]()
        await stream.until(lambda: stream.ended, "its end")
    refused = await polling
    assert refused.code == "503 UNAVAILABLE" and refused.headers["Retry-After"] == "1"
    assert (await api("GET", offset="now", live="sse")).code == "503 UNAVAILABLE"


# Rates and origins


async def test_requests_that_come_too_fast_are_answered_later(
    serve: Serve, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table()
    api = Api(
        served := await serve(max_requests_per_second=0.2, authenticator=table, trusted_proxies="127.0.0.1"), http
    )
    address = {"X-Forwarded-For": "203.0.113.9"}
    slept: list[float] = []
    limits = served.app[GUARD].limits
    real = limits.request_pause

    def pause(*arguments: Any) -> float | None:
        seconds = real(*arguments)
        slept.append(-1.0 if seconds is None else seconds)
        return 0.0 if seconds else seconds

    monkeypatch.setattr(limits, "request_pause", pause)
    found = [await api("PUT", headers=address) for _ in range(6)]
    assert [got.status for got in found] == [201, 200, 200, 200, 429, 429]
    assert found[-1].code == "429 RATE_LIMITED" and found[-1].headers["Retry-After"]
    assert slept[:2] == [0.0, 0.0] and 4 < slept[2] <= 5 and 9 < slept[3] <= 10 and slept[4:] == [-1.0, -1.0]


async def test_pages_of_other_origins_are_told_in_the_protocols_words(
    served: Served, http: aiohttp.ClientSession
) -> None:
    api = Api(served, http)
    refused = await api("GET", headers={"Origin": "https://evil.example"})
    assert refused.code == "403 FORBIDDEN"


async def test_pages_may_read_and_send_the_headers_of_the_protocol(serve: Serve, http: aiohttp.ClientSession) -> None:
    origin = {"Origin": "https://app.example"}
    api = Api(await serve(allowed_origins=("https://app.example",)), http)
    got = await api("PUT", user="", headers=origin)
    exposed = {name.strip().lower() for name in got.headers["Access-Control-Expose-Headers"].split(",")}
    assert exposed == {"location", protocol.NEXT_OFFSET.lower()}
    asked = await api("OPTIONS", user="", headers=origin | {"Access-Control-Request-Method": "POST"})
    allowed = {name.strip().lower() for name in asked.headers["Access-Control-Allow-Headers"].split(",")}
    assert {name.lower() for name in protocol.HEADERS_OF_CLIENTS} <= allowed
