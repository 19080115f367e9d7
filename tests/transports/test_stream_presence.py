"""``/streams/docs/{name}?awareness=`` over the whole application, beside clients of both socket protocols.

Strategy: users are those of a table, each shows the own name as the token. Bodies are encoded, and events decoded, by
code of the tests alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.engine.agents import FIRST_ID
from collab.hub import named_presence
from collab.hub import stream_presence as presence_module
from collab.protocol.session import Access
from collab.transports.http.streams import live as live_module
from tests.support.hocuspocus import awareness as addressed
from tests.support.waiting import eventually, happens
from tests.support.wsclient import awareness as y_awareness
from tests.support.wsclient import awareness_entries, take_varbytes, varbytes
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Client, Control, Provider, Table, client, control, http, provider
from tests.transports.test_people import Api, api, seen

__all__ = ["api", "client", "control", "http", "provider"]

READ, WRITE = Access.READ, Access.WRITE
OCTETS = "application/octet-stream"
ADA = 5


def states(*entries: tuple[int, int, str]) -> bytes:
    """Give a body with one awareness update."""
    return varbytes(take_varbytes(y_awareness(*entries), 1)[0])


def entries_of(body: bytes) -> list[tuple[int, int, str]]:
    found, pos = [], 0
    while pos < len(body):
        update, pos = take_varbytes(body, pos)
        found += awareness_entries(update)
    return found


class Streams:
    """Asks for the awareness streams of the document ``a`` as a user."""

    def __init__(self, served: Served, http: aiohttp.ClientSession) -> None:
        self._served, self._http = served, http
        self.headers: dict[str, str] = {}

    def options(self, user: str, stream: str, name: str, params: dict[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        return {
            "url": f"{self._served.url}/streams/docs/{name}",
            "headers": headers,
            "params": {"awareness": stream} | params,
        }

    async def __call__(
        self,
        method: str,
        body: bytes | None = None,
        user: str = "ada",
        *,
        stream: str = "default",
        name: str = "a",
        media: str = OCTETS,
        **params: str,
    ) -> tuple[int, Any]:
        options = self.options(user, stream, name, params)
        if body is not None:
            options["headers"] |= {"Content-Type": media}
        async with self._http.request(method, data=body, **options) as answer:
            self.headers = dict(answer.headers)
            data = await answer.read()
            if answer.status >= 400 and method != "HEAD":
                told = json.loads(data)["error"]
                return answer.status, (told["code"], told["message"])
            return answer.status, data

    async def post(self, clock: int, state: str = "{}", user: str = "ada", client: int = ADA) -> tuple[int, Any]:
        return await self("POST", states((client, clock, state)), user)

    async def open(self, user: str = "ada", *, stream: str = "default", **params: str) -> Events:
        options = self.options(user, stream, "a", {"live": "sse", "offset": "now"} | params)
        answer = await self._http.get(**options)
        assert answer.status == 200, await answer.text()
        return Events(answer)


class Events:
    """An SSE answer that is read as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.payloads: list[bytes] = []
        self.controls: list[dict[str, Any]] = []
        self.ended = False
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        kind, data = "", ""
        async for raw in self.answer.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                data += line[5:].strip()
            elif not line and kind:
                if kind == "control":
                    self.controls.append(json.loads(data))
                else:
                    self.payloads.append(base64.b64decode(data, validate=True))
                kind, data = "", ""
        self.ended = True

    def shown(self, client: int = ADA) -> Any:
        """Give what was told last of a client; None if it was removed, or never there."""
        found = None
        for payload in self.payloads:
            for entry, _, state in entries_of(payload):
                if entry == client:
                    found = json.loads(state)
        return found

    async def until_shown(self, fact: Callable[[Any], object], what: str, client: int = ADA) -> None:
        await happens(lambda: fact(self.shown(client)), what)

    def close(self) -> None:
        self._task.cancel()
        self.answer.close()


@pytest.fixture
def table() -> Table:
    table = Table()
    table.rights["ada", "a"] = WRITE
    table.rights["rea", "a"] = READ
    return table


@pytest.fixture
async def served(serve: Serve, table: Table) -> Served:
    return await serve(authenticator=table)


@pytest.fixture
async def streams(served: Served, http: aiohttp.ClientSession, api: Api) -> Streams:
    return Streams(served, http)  # the document is there


Open = Callable[..., Awaitable[Events]]


@pytest.fixture
async def events(streams: Streams) -> AsyncIterator[Open]:
    opened: list[Events] = []

    async def open_events(user: str = "ada", **more: Any) -> Events:
        found = await streams.open(user, **more)
        opened.append(found)
        return found

    yield open_events
    for each in opened:
        each.close()


# What sockets and requests see of each other


async def test_sockets_and_requests_see_each_other(
    streams: Streams, events: Open, client: Client, provider: Provider
) -> None:
    bob, rea = await client("bob"), await provider("rea", READ)
    await bob.send(y_awareness((7, 1, '{"cursor":1}')))
    await rea.send(addressed("a", (8, 1, '{"cursor":2}')))
    await bob.barrier()
    await rea.barrier_of("a")
    reader = await events()
    await happens(lambda: reader.shown(7) and reader.shown(8), "those who are here are told first")
    assert reader.shown(7) == {"cursor": 1, "user": {"sub": "bob", "name": "Bob"}}
    assert (await streams.post(1, '{"cursor":3,"user":{"name":"Mallory"}}'))[0] == 204
    assert streams.headers["Stream-Next-Offset"] and streams.headers["Cache-Control"] == "no-store"
    stamped = {"cursor": 3, "user": {"name": "Ada", "sub": "ada"}}
    await reader.until_shown(lambda state: state == stamped, "the post")
    await happens(lambda: seen(bob, ADA) == stamped, "the post, on a socket")
    await bob.send(y_awareness((7, 2, '{"cursor":4}')))
    await reader.until_shown(lambda state: state["cursor"] == 4, "a change on a socket", 7)
    await streams.post(2, "null")
    await happens(lambda: seen(bob, ADA) is None, "its end")
    await reader.until_shown(lambda state: state is None, "its end")
    await bob.close()
    await reader.until_shown(lambda state: state is None, "the end of a socket", 7)


async def test_who_has_posted_is_among_the_people_and_who_reads_among_the_connections(
    streams: Streams, events: Open, api: Api
) -> None:
    await streams.post(1, '{"user":{"color":"#123"}}')
    await events("rea")
    (person,) = (await api.present())["participants"]
    assert {key: person[key] for key in ("name", "color", "clients", "protocol", "access", "agent", "user")} == {
        "name": "Ada",
        "color": "#123",
        "clients": [ADA],
        "protocol": "streams",
        "access": "write",
        "agent": None,
        "user": "ada",
    }
    assert person["connection"] is None and person["node"]
    status, listed = await api("GET", "connections", params={"document": "a"})
    assert status == 200
    assert [(each["protocol"], each["users"]) for each in listed["connections"]] == [("streams", ["rea"])]


# Reading


async def test_a_read_gives_all_states_and_where_to_go_on(streams: Streams) -> None:
    assert await streams("GET") == (200, b"")
    await streams.post(1, "{}", client=1)
    await streams.post(1, "{}", "rea", client=2)

    async def both() -> bool:
        return len(entries_of((await streams("GET", offset="-1"))[1])) == 2

    await eventually(both, "both states")
    offset = streams.headers["Stream-Next-Offset"]
    assert streams.headers["Stream-Up-To-Date"] == "true" and streams.headers["Content-Type"] == OCTETS
    assert await streams("GET", offset=offset) == (200, b"")
    assert streams.headers["Stream-Next-Offset"] == offset
    assert await streams("GET", offset="now") == (200, b""), "as the specification says of a reader that does not wait"
    begin = streams.headers["Stream-Next-Offset"]
    status, body = await streams("GET", offset=begin, live="long-poll")
    assert status == 200 and len(entries_of(body)) == 2, "one that goes on from there is told who is here"
    assert streams.headers["Stream-Next-Offset"] == offset > begin
    await streams.post(2, '{"x":1}', client=1)
    status, body = await streams("GET", offset=offset, live="long-poll")
    assert status == 200 and [entry[:2] for entry in entries_of(body)] == [(1, 2)]
    assert streams.headers["Stream-Cursor"] and streams.headers["Stream-Next-Offset"] > offset
    elsewhere = f"{1:020d}_{7:016d}"
    assert len(entries_of((await streams("GET", offset=elsewhere))[1])) == 2, "an offset of another memory"


async def test_a_long_poll_waits_for_what_comes(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.create_task(streams("GET", offset="now", live="long-poll"))
    await asyncio.sleep(0.05)
    assert (await streams.post(1, '{"x":1}', "rea"))[0] == 204
    status, body = await waiting
    assert status == 200 and [entry[:2] for entry in entries_of(body)] == [(ADA, 1)]
    offset = streams.headers["Stream-Next-Offset"]
    status, body = await streams("GET", offset="now", live="long-poll")
    assert status == 200 and [entry[:2] for entry in entries_of(body)] == [(ADA, 1)], "who begins is told who is here"
    monkeypatch.setattr(live_module, "LIVE_SECONDS", 0.05)
    assert await streams("GET", offset=offset, live="long-poll") == (204, b"")
    assert streams.headers["Stream-Next-Offset"] == offset and streams.headers["Stream-Up-To-Date"] == "true"


async def test_events_say_where_to_go_on(streams: Streams, events: Open) -> None:
    reader = await events("rea")
    await happens(lambda: reader.controls, "a control event although nobody is here")
    assert reader.payloads == [] and reader.controls[0]["upToDate"] is True and reader.controls[0]["streamCursor"]
    headers = reader.answer.headers
    assert headers["Content-Type"].startswith("text/event-stream") and headers["X-Accel-Buffering"] == "no"
    assert headers["Stream-SSE-Data-Encoding"] == "base64"
    await streams.post(1, '{"x":1}')
    await reader.until_shown(lambda state: state, "the post")
    reader.close()
    await streams.post(2, '{"x":2}')
    again = await events("rea", offset=reader.controls[-1]["streamNextOffset"])
    await again.until_shown(lambda state: state, "what came meanwhile")
    assert again.shown()["x"] == 2 and len(again.payloads) == 1


async def test_all_readers_who_are_level_get_the_same_events(streams: Streams, events: Open) -> None:
    readers = [await events(user) for user in ("ada", "rea", "ada")]
    await happens(lambda: all(reader.controls for reader in readers), "they are level")
    for clock in range(1, 4):
        await streams.post(clock, f'{{"x":{clock}}}')
        await happens(lambda: all((each.shown() or {}).get("x") == clock for each in readers), "the post")  # noqa: B023
    assert readers[0].payloads == readers[1].payloads == readers[2].payloads


# What is refused


async def test_what_cannot_be_shown_is_refused_with_the_reason(
    streams: Streams, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.rights["eve", "a"] = WRITE
    await streams.post(1)
    for status, code, answer in (
        (400, "INVALID_REQUEST", await streams("POST", b"")),
        (400, "INVALID_REQUEST", await streams("POST", b"\x01\x02\x03")),
        (400, "INVALID_REQUEST", await streams("POST", varbytes(b"\x01"))),
        (400, "INVALID_REQUEST", await streams.post(2, "{", client=6)),
        (409, "CONFLICT", await streams.post(9, "{}", "eve")),
        (409, "CONFLICT", await streams("POST", states((6, 1, "{}")), media="text/plain")),
        (413, "PAYLOAD_TOO_LARGE", await streams.post(2, '"' + "x" * 65_536 + '"', client=6)),
        (413, "PAYLOAD_TOO_LARGE", await streams("POST", bytes(1 << 20))),
        (413, "PAYLOAD_TOO_LARGE", await streams("POST", states(*[(each, 1, "{}") for each in range(40)]))),
        (409, "CONFLICT", await streams.post(1, client=FIRST_ID)),
        (400, "INVALID_REQUEST", await streams("GET", offset="snapshot")),
        (400, "INVALID_REQUEST", await streams("GET", live="sse")),
        (400, "INVALID_REQUEST", await streams("GET", live="websocket", offset="now")),
        (400, "INVALID_REQUEST", await streams("GET", stream="x" * 65)),
        (401, "UNAUTHORIZED", await streams.post(3, "{}", "")),
        (401, "UNAUTHORIZED", await streams("GET", user="nobody")),
        (403, "FORBIDDEN", await streams("GET", name="b")),
        (403, "FORBIDDEN", await streams("DELETE", user="rea")),
    ):
        assert (answer[0], answer[1][0]) == (status, code), answer
    assert [entry[:2] for entry in entries_of((await streams("GET"))[1])] == [(ADA, 1)]
    monkeypatch.setattr(presence_module, "MAX_OF_PERSON", 1)
    status, (code, reason) = await streams.post(1, client=6)
    assert (status, code) == (429, "RATE_LIMITED") and "of this user" in reason
    assert int(streams.headers["Retry-After"]) > 0


async def test_who_posts_too_often_is_told_to_wait(
    serve: Serve, http: aiohttp.ClientSession, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(authenticator=table, max_awareness_per_second=0.2)
    streams = Streams(served, http)
    async with http.put(f"{served.url}/streams/docs/a", headers={"Authorization": "Bearer ada"}) as answer:
        assert answer.status == 201
    assert [(await streams.post(clock))[0] for clock in (1, 2, 3)] == [204, 204, 429]
    assert streams.headers["Retry-After"] == "5"


async def test_without_its_document_there_is_no_stream(streams: Streams, api: Api) -> None:
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        for stream in ("default", "cursors"):
            status, told = await streams(
                method, b"\x01\x02\x03" if method == "POST" else None, "root", name="never", stream=stream
            )
            assert status == 404 and (method == "HEAD" or told[0] == "DOCUMENT_NOT_FOUND"), (method, stream, told)
    await streams.post(1)
    await streams("PUT", stream="cursors")
    assert (await api("DELETE", "documents/a"))[0] == 204
    for stream in ("default", "cursors"):
        for method in ("GET", "PUT"):
            assert (await streams(method, user="root", stream=stream))[1][0] == "DOCUMENT_NOT_FOUND"


async def test_the_default_stream_is_there_as_long_as_the_document(
    streams: Streams, events: Open, client: Client
) -> None:
    bob = await client("bob")
    await bob.send(y_awareness((7, 1, "{}")))
    await streams.post(1)
    reader = await events("rea")
    await happens(lambda: reader.shown(7) is not None and reader.shown() is not None, "both")
    assert await streams("PUT") == (200, b"")
    status, _ = await streams("HEAD")
    assert status == 200 and streams.headers["Stream-Next-Offset"] and streams.headers["Content-Type"] == OCTETS
    assert await streams("DELETE") == (204, b"")
    await reader.until_shown(lambda state: state is None, "it ends those who have no socket")
    assert reader.shown(7) is not None and (await streams("HEAD"))[0] == 200


# What ends


async def test_a_kick_ends_what_a_user_shows_and_reads(streams: Streams, events: Open, control: Control) -> None:
    reader, other = await events("ada"), await events("rea")
    await streams.post(1)
    await other.until_shown(lambda state: state, "the post")
    report = await control.done({"action": "kick", "user": "ada", "seconds": 60})
    assert report["ended"] == 2
    await happens(lambda: reader.ended, "its stream ends")
    await other.until_shown(lambda state: state is None, "its presence ends")
    assert not other.ended
    status, (code, _) = await streams.post(2)
    assert (status, code) == (403, "FORBIDDEN"), "while it is kept out"


async def test_access_that_is_taken_back_ends_both(
    streams: Streams, events: Open, control: Control, table: Table
) -> None:
    reader, other = await events("ada"), await events("rea")
    await streams.post(1)
    await other.until_shown(lambda state: state, "the post")
    del table.rights["ada", "a"]
    assert (await control.done({"action": "check", "document": "a"}))["ended"] == 2
    await happens(lambda: reader.ended, "its stream ends")
    await other.until_shown(lambda state: state is None, "its presence ends")


async def test_what_happens_to_the_document_ends_its_readers(
    served: Served, streams: Streams, events: Open, api: Api
) -> None:
    reader = await events("rea")
    await streams.post(1)
    await reader.until_shown(lambda state: state, "the post")
    await served.app[HUB].reload("a")
    await happens(lambda: reader.ended, "its stream ends")
    assert reader.shown() is None or reader.ended
    again = await events("rea", offset=reader.controls[-1]["streamNextOffset"])
    await streams.post(2)
    await again.until_shown(lambda state: state is not None, "it is there again with the next post")


# Named streams


async def test_a_named_stream_has_what_is_posted_as_it_is(streams: Streams, events: Open) -> None:
    assert (await streams("GET", stream="cursors"))[1][0] == "STREAM_NOT_FOUND"
    assert (await streams("PUT", stream="cursors"))[0] == 201 and (await streams("PUT", stream="cursors"))[0] == 200
    reader = await events("rea", stream="cursors")
    for body in (b"\x01a", b"\x01\x02\x03"):
        assert (await streams("POST", body, "rea", stream="cursors"))[0] == 204
    end = streams.headers["Stream-Next-Offset"]
    await happens(lambda: reader.payloads == [b"\x01a", b"\x01\x02\x03"], "both, each as an event of its own")
    assert reader.controls[-1]["streamNextOffset"] == end
    assert await streams("GET", stream="cursors") == (200, b"\x01a\x01\x02\x03")
    assert streams.headers["Stream-Next-Offset"] == end
    assert (await streams("POST", b"\x01b", stream="other"))[0] == 204, "a post creates it"
    assert await streams("GET", stream="other") == (200, b"\x01b")
    assert await streams("GET", stream="cursors", offset=end) == (200, b"")
    assert await streams("GET", stream="cursors", offset="now") == (200, b"")
    begin = streams.headers["Stream-Next-Offset"]
    assert await streams("GET", stream="cursors", offset=begin) == (200, b"\x01a\x01\x02\x03"), "of those here now"
    assert entries_of((await streams("GET"))[1]) == [], "and the presence of the document knows nothing of it"
    assert (await streams("DELETE", user="rea", stream="cursors"))[0] == 403
    assert (await streams("DELETE", stream="cursors"))[0] == 204
    await happens(lambda: reader.ended, "its reader ends")
    for method in ("GET", "DELETE"):
        assert (await streams(method, stream="cursors"))[1][0] == "STREAM_NOT_FOUND"
    assert (await streams("HEAD", stream="cursors"))[0] == 404
    # Its client comes back, and another post creates it anew.
    assert (await streams("POST", b"\x01c", stream="cursors"))[0] == 204
    again = await events("rea", stream="cursors", offset=end)
    await happens(lambda: again.payloads == [b"\x01c"], "from its beginning")


async def test_a_long_poll_hears_of_the_end_of_a_named_stream(streams: Streams) -> None:
    await streams("PUT", stream="cursors")
    waiting = asyncio.create_task(streams("GET", stream="cursors", offset="now", live="long-poll"))
    await asyncio.sleep(0.05)
    assert (await streams("DELETE", stream="cursors"))[0] == 204
    assert (await waiting)[1][0] == "STREAM_NOT_FOUND"


async def test_named_streams_have_bounds(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (b"", bytes(named_presence.MAX_POST + 1)):
        assert (await streams("POST", body, stream="s"))[0] in (400, 413)
    assert (await streams("GET", stream="s"))[0] == 404
    monkeypatch.setattr(named_presence, "MAX_STREAMS", 1)
    assert (await streams("PUT", stream="s"))[0] == 201
    status, (code, reason) = await streams("PUT", stream="t")
    assert (status, code) == (429, "RATE_LIMITED") and "at most" in reason
