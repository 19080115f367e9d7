"""What an ASGI server says, as requests of ours, and what is written, as messages of ASGI; without a server."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab.app import HUB
from collab.asgi import Collab, create_app
from collab.protocol.messages import CloseCode
from collab.settings import Settings
from collab.transports.asgi import exchange
from collab.transports.asgi.pipe import BodyPipe, FramePipe
from collab.transports.asgi.scope import MOST_HEAD, BadScope, read_scope
from collab.transports.sockets.frames import binary_frame, close_frame, ping_frame, pong_frame
from tests.support.needs import size
from tests.support.sqlite import migrated
from tests.support.waiting import happens
from tests.support.wsclient import SYNC, parse, step2, text_update, update


def scope_of(kind: str = "http", **more: Any) -> dict[str, Any]:
    """Give a scope as a server makes it for a plain request."""
    scope: dict[str, Any] = {
        "type": kind,
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
    }
    return {**scope, **more}


# The scope


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path", "mount", "below"),
    [
        ("", "/ws/a", b"/ws/a", "", "/ws/a"),
        ("", "/ws/a/b", b"/ws/a%2Fb", "", "/ws/a%2Fb"),
        ("", "/ws/\ufffd", b"/ws/%FF", "", "/ws/%FF"),
        ("", "/ws/\xe4", b"/ws/%C3%A4", "", "/ws/%C3%A4"),
        ("", "/ws/\xe4", None, "", "/ws/%C3%A4"),
        ("", "/ws/a b", b"/ws/a%20b?x=1", "", "/ws/a%20b"),
        # The mount is a part of the path (ASGI since 2023), or was taken off it (before).
        ("/collab", "/collab/ws/a/b", b"/collab/ws/a%2Fb", "/collab", "/ws/a%2Fb"),
        ("/collab", "/ws/a/b", b"/collab/ws/a%2Fb", "/collab", "/ws/a%2Fb"),
        ("/collab", "/ws/a/b", b"/ws/a%2Fb", "/collab", "/ws/a%2Fb"),
        ("/collab/", "/collab/", b"/collab/", "/collab", "/"),
        ("/collab", "/collab", b"/collab", "/collab", "/"),
        ("/collab", "/collaborate", b"/collaborate", "/collab", "/collaborate"),
        ("/\xe4", "/\xe4/ws/x", b"/%C3%A4/ws/x", "/%C3%A4", "/ws/x"),
        # A framework has rewritten the path.
        ("", "/new", b"/old", "", "/new"),
    ],
)
def test_the_path_is_what_stands_below_the_mount(
    root_path: str, path: str, raw_path: bytes | None, mount: str, below: str
) -> None:
    asked = read_scope(scope_of(root_path=root_path, path=path, raw_path=raw_path))
    assert (asked.root_path, asked.message.path) == (mount, below)
    assert asked.message.url.raw_path == below


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a b", b"x")],
        [(b"a", b"x\r\nb: y")],
        [(b"a", b"x\ny")],
        [(b"a", b"\x00")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"9" * 30)],
        [(b"host", b"a"), (b"host", b"b")],
        [(b"", b"x")],
        [(b"a", b"x" * MOST_HEAD)],
        [(b"a%d" % n, b"x" * 1000) for n in range(100)],
    ],
)
def test_headers_that_could_be_taken_for_something_else_are_refused(headers: Sequence[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadScope) as refused:
        read_scope(scope_of(headers=headers))
    assert refused.value.status in (400, 431)


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "\ud800"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(BadScope):
        read_scope(scope_of(method=method))


def test_how_a_request_was_framed_is_not_passed_on() -> None:
    headers = [
        (b"connection", b"keep-alive, x"),
        (b"transfer-encoding", b"chunked"),
        (b"expect", b"100-continue"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers"),
        (b"x-mine", b"yes"),
    ]
    asked = read_scope(scope_of(method="POST", headers=headers))
    assert dict(asked.message.headers) == {"x-mine": "yes"}
    assert asked.has_body and not asked.message.chunked and not asked.message.upgrade


@settings(max_examples=size(400, small=60), deadline=None)
@given(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=4),
    st.lists(st.text(max_size=5), max_size=3),
)
def test_whatever_a_server_says_is_a_request_or_is_refused(
    path: str, raw: bytes, query: bytes, headers: list[tuple[bytes, bytes]], subprotocols: list[str]
) -> None:
    for kind in ("http", "websocket"):
        scope = scope_of(kind, path=path, raw_path=raw, query_string=query, headers=headers, subprotocols=subprotocols)
        try:
            message = read_scope(scope).message
        except BadScope:
            continue
        assert message.path.startswith("/") and message.path.isascii()
        assert not any(character in message.path for character in " \r\n\x00")
        assert all("\n" not in value and "\r" not in value for value in message.headers.values())


# The pipe


class Sent(list[Any]):
    """What an ASGI server was given; ``held`` lets it take nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, message: Any) -> None:
        await self.go_on.wait()
        self.append(dict(message))


class Heard(asyncio.Protocol):
    """Notes what a transport tells its protocol."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard.append("lost")


async def accepted(sent: Sent) -> tuple[FramePipe, Heard]:
    pipe, heard = FramePipe(scope_of("websocket"), sent), Heard()
    pipe.set_protocol(heard)
    pipe.begin(101, [("Sec-WebSocket-Protocol", "collab")])
    return pipe, heard


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("portion", [None, 1, 7, 65_536])
async def test_frames_become_messages_however_they_are_cut(length: int, portion: int | None) -> None:
    if portion is not None and portion < 10 and length > 70_000:
        portion = 4_099
    sent = Sent()
    pipe, _ = await accepted(sent)
    payload = bytes(n % 251 for n in range(length))
    frames = binary_frame(payload) + pong_frame(b"nobody asked") + binary_frame(b"behind")
    for begin in range(0, len(frames), portion or len(frames)):
        pipe.write(frames[begin : begin + (portion or len(frames))])
    pipe.write(close_frame(CloseCode(4400, "enough")))
    pipe.close()
    await pipe.ended.wait()
    assert sent == [
        {"type": "websocket.accept", "subprotocol": "collab", "headers": []},
        {"type": "websocket.send", "bytes": payload},
        {"type": "websocket.send", "bytes": b"behind"},
        {"type": "websocket.close", "code": 4400, "reason": "enough"},
    ]
    assert pipe.get_write_buffer_size() == 0


async def test_a_frame_for_all_is_copied_once_and_its_portions_never() -> None:
    sents = [Sent(), Sent()]
    frame = binary_frame(b"x" * 600_000)
    for sent in sents:
        pipe, _ = await accepted(sent)
        for begin in range(0, len(frame), 262_144):
            pipe.write(memoryview(frame)[begin : begin + 262_144])
        pipe.write(small := binary_frame(b"small"))
        assert small
        pipe.close()
        await pipe.ended.wait()
    assert [len(message["bytes"]) for message in sents[0][1:]] == [600_000, 5]
    assert sents[0][1]["bytes"] is sents[1][1]["bytes"] or sents[0][1]["bytes"] == sents[1][1]["bytes"]


async def test_a_ping_is_answered_when_all_before_it_was_taken() -> None:
    sent = Sent()
    pipe, heard = await accepted(sent)
    await happens(lambda: len(sent) == 1, "the accept")
    sent.go_on.clear()
    pipe.write(binary_frame(b"before"))
    pipe.write(ping_frame(b"7"))
    await asyncio.sleep(0)
    assert heard.heard == [] and pipe.get_write_buffer_size() > 0
    sent.go_on.set()
    await happens(lambda: heard.heard, "the pong")
    assert heard.heard == [b"\x8a\x81\x00\x00\x00\x007"]
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    pipe.abort()


async def test_a_server_that_takes_nothing_holds_its_writer_back() -> None:
    sent = Sent()
    sent.go_on.clear()
    pipe, heard = BodyPipe(scope_of(), sent), Heard()
    pipe.set_protocol(heard)
    pipe.begin(200, [])
    for _ in range(20):
        pipe.write(b"x" * 10_000)
    assert heard.heard == ["pause"] and pipe.get_write_buffer_size() == 200_000
    sent.go_on.set()
    pipe.finish()
    await pipe.ended.wait()
    await happens(lambda: "lost" in heard.heard, "the end")
    assert heard.heard == ["pause", "resume", "lost"]
    assert sent[0] == {"type": "http.response.start", "status": 200, "headers": []}
    bodies = sent[1:]
    assert b"".join(message["body"] for message in bodies) == b"x" * 200_000
    assert len(bodies) < 10, "small parts that wait behind each other go together"
    assert [message["more_body"] for message in bodies] == [True] * (len(bodies) - 1) + [False]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("after close")])
async def test_a_server_that_fails_ends_the_connection(error: Exception) -> None:
    async def fail(message: Any) -> None:
        raise error

    pipe, heard = BodyPipe(scope_of(), fail), Heard()
    pipe.set_protocol(heard)
    pipe.begin(200, [])
    await happens(pipe.is_closing, "the end")
    pipe.write(b"nobody takes it")
    assert pipe.get_write_buffer_size() == 0
    pipe.close()
    await happens(lambda: heard.heard == ["lost"], "the word of it")


async def test_a_header_of_ours_cannot_end_early() -> None:
    pipe = BodyPipe(scope_of(), Sent())
    with pytest.raises(ValueError, match="control character"):
        pipe.begin(200, [("x", "a\r\nset-cookie: b")])


# The application


class Host:
    """Stands for an ASGI server."""

    def __init__(self, app: Collab) -> None:
        self.app = app

    async def ask(
        self, *, body: Sequence[bytes] = (), leaves: bool = False, **scope: Any
    ) -> tuple[int, Mapping[str, str], bytes, int]:
        """Send a request; give status, headers, body, and how many messages of its own body were fetched before."""
        sent, parts, fetched = Sent(), list(body), 0
        answered = asyncio.Event()

        async def receive() -> Any:
            nonlocal fetched
            if parts:
                fetched += not sent
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
            if not leaves:
                await answered.wait()
            return {"type": "http.disconnect"}

        async with asyncio.timeout(30):
            await self.app(scope_of(**scope), receive, sent)
        answered.set()
        start = sent[0]
        assert sent[-1]["more_body"] is False
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, b"".join(message["body"] for message in sent[1:]), fetched


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    migrated(tmp_path)
    app = create_app(Settings(data_dir=tmp_path))
    async with app.lifespan():
        yield Host(app)


async def test_an_answer_says_nothing_of_its_framing(host: Host) -> None:
    status, headers, body, _ = await host.ask(path="/healthz")
    assert status == 200 and json.loads(body)["status"] == "ok"
    assert not {"connection", "transfer-encoding", "date", "server"} & headers.keys()
    assert headers["content-length"] == str(len(body))
    status, headers, body, _ = await host.ask(path="/healthz", method="HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0


async def test_a_body_is_fetched_when_its_sender_may_send_it(host: Host) -> None:
    sent = [(b"content-type", b"text/html"), (b"content-length", b"9"), (b"host", b"localhost")]
    path = "/api/v1/updates/d"
    status, _, _, fetched = await host.ask(method="POST", path=path, headers=sent, body=[b"abc"] * 3)
    assert status == 415 and fetched == 0
    made = text_update(1, "hello")
    for parts in ([made], [made[:3], b"", made[3:]]):
        headers = [(b"content-type", b"application/octet-stream"), (b"host", b"localhost")]
        headers.append((b"transfer-encoding", b"chunked"))
        status, _, text, fetched = await host.ask(method="POST", path=path, headers=headers, body=parts)
        assert status < 300, text
        assert fetched == len(parts)


async def test_a_body_that_does_not_end_is_bounded(host: Host) -> None:
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked"), (b"host", b"localhost")]
    status, _, _, fetched = await host.ask(
        method="POST", path="/api/v1/documents", headers=headers, body=[b" " * 4096] * 10_000
    )
    assert status == 413 and fetched < 1_000
    # What is compressed is not unpacked, so that a small body cannot become a large one.
    headers.append((b"content-encoding", b"gzip"))
    packed = gzip.compress(b'{"name": "small"}')
    status, _, _, _ = await host.ask(method="POST", path="/api/v1/documents", headers=headers, body=[packed])
    assert status in (400, 415)


async def test_what_is_left_of_a_body_is_thrown_away_before_the_end_of_the_answer(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an ASGI server does not reset the connection, with which the answer would be lost; for a bounded time."""
    monkeypatch.setattr(exchange, "LINGERING_QUIET_SECONDS", 0.1)

    async def ask(parts: Iterator[bytes], **scope: Any) -> tuple[int, int]:
        sent, taken = Sent(), 0

        async def receive() -> Any:
            nonlocal taken
            part = next(parts, None)
            if part is None:
                await asyncio.Event().wait()
            taken += 1
            whole = len(sent) >= 2 and int(dict(sent[0]["headers"])[b"content-length"]) == len(sent[1]["body"])
            assert whole and sent[-1]["more_body"], "the answer is there, but for its end"
            return {"type": "http.request", "body": part, "more_body": part != b"last"}

        headers = [(b"transfer-encoding", b"chunked"), (b"host", b"localhost")]
        async with asyncio.timeout(30):
            await host.app(scope_of(method="POST", path="/nothing", headers=headers, **scope), receive, sent)
        assert [message.get("more_body") for message in sent][-1] is False
        return sent[0]["status"], taken

    assert await ask(iter([b"a", b"b", b"last"])) == (404, 3)
    assert await ask(iter([b"a", b"b"])) == (404, 2), "nothing more comes"
    monkeypatch.setattr(exchange, "_LINGERING_BYTES", 10_000)
    assert await ask(itertools.repeat(bytes(1_000))) == (404, 10), "it does not end"
    assert await ask(iter([b"last"]), http_version="2") == (404, 0), "a stream ends by itself"


async def test_a_client_that_leaves_ends_a_request_that_waits_for_its_body(host: Host) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100"), (b"host", b"localhost")]
    sent = Sent()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async with asyncio.timeout(20):
        await host.app(scope_of(method="POST", path="/api/v1/documents", headers=headers), receive, sent)
    assert sent == [], "nobody is there to read an answer"


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("::1", 1), 200),
        (("192.0.2.7", 1), 403),
        (("::ffff:192.0.2.7", 1), 403),
        (None, 403),
        (("testclient", 1), 403),
        (("", 0), 403),
    ],
)
async def test_without_authentication_a_client_must_be_known_to_be_on_this_machine(
    host: Host, client: tuple[str, int] | None, status: int
) -> None:
    assert (await host.ask(path="/api/v1/documents", client=client))[0] == status


async def test_bad_requests_and_pages_of_others_are_answered(host: Host) -> None:
    assert (await host.ask(path="/healthz", headers=[(b"a b", b"")]))[0] == 400
    origin = [(b"host", b"localhost"), (b"origin", b"https://elsewhere.example")]
    assert (await host.ask(path="/api/v1/documents", headers=origin))[0] == 403
    assert (await host.ask(path="/nowhere"))[0] == 404
    with pytest.raises(Exception, match="neither http, websocket nor lifespan"):
        await host.app({"type": "mail"}, Sent(), Sent())  # type: ignore[arg-type]


async def test_a_socket_that_its_server_has_lost_leaves_nothing(host: Host) -> None:
    messages: asyncio.Queue[Any] = asyncio.Queue()
    sent = Sent()
    scope = scope_of("websocket", scheme="ws", path="/ws/d", raw_path=b"/ws/d")
    task = asyncio.create_task(host.app(scope, messages.get, sent))
    await messages.put({"type": "websocket.connect"})
    await messages.put({"type": "websocket.receive", "bytes": step2(b"\x00\x00")})
    await messages.put({"type": "websocket.receive", "bytes": update(text_update(9, "x")), "text": None})
    await happens(lambda: len(sent) > 2, "the echo")
    assert parse(sent[1]["bytes"]).type == SYNC
    rooms = host.app.app[HUB].rooms
    assert len(rooms["d"].room.sessions) == 1
    await messages.put({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(20):
        await task
    assert len(rooms["d"].room.sessions) == 0


async def test_a_socket_whose_server_stops_it_leaves_nothing(host: Host) -> None:
    messages: asyncio.Queue[Any] = asyncio.Queue()
    sent = Sent()
    scope = scope_of("websocket", scheme="ws", path="/ws/d", raw_path=b"/ws/d")
    task = asyncio.create_task(host.app(scope, messages.get, sent))
    await messages.put({"type": "websocket.connect"})
    await happens(lambda: len(sent) > 1, "the first message")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await happens(lambda: not host.app.app[HUB].rooms["d"].room.sessions, "its end")
