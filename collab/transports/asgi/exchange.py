"""One request of an ASGI server, served by aiohttp's handlers.

Strategy: a subclass of aiohttp's protocol that reads no bytes of HTTP. It is given the head of a request as a message
(``scope``), a body that comes from ``receive``, and a transport that makes messages of what is written (``pipe``). So
each handler is the one that the aiohttp server has, and a WebSocket has the same intake, pump, limits and outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict

from collab.transports.asgi.pipe import BodyPipe, FramePipe, Message, Pipe, Send, client_head, encode_headers
from collab.transports.asgi.scope import Asked, BadScope, Scope, read_scope
from collab.transports.guard.door import LINGERING_QUIET_SECONDS, LINGERING_SECONDS
from collab.transports.http.http_log import HttpLog

Receive = Callable[[], Awaitable[Message]]

# Bytes of a message that the intake is given at a time, as if they were read of a socket.
_READ: Final = 64 * 1024

# Bytes of a body that wait to be read by a handler: aiohttp's own are more, and these are beside the ASGI server's.
_BODY: Final = 64 * 1024

# Bytes of a body that are thrown away behind an answer: about what a socket of ours would read in the same time.
_LINGERING_BYTES: Final = 256 * 1024 * 1024

_TEXT, _BINARY, _CLOSE = 0x81, 0x82, 0x88


class _Writer(StreamWriter):
    """Writes an answer to a pipe, which frames nothing: the ASGI server does."""

    def __init__(self, exchange: Exchange, pipe: Pipe, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(exchange, loop)
        self._pipe = pipe

    def enable_chunking(self) -> None:
        """Do nothing."""

    def send_headers(self) -> None:
        """Do nothing: they are on their way."""

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Begin the answer."""
        self._pipe.begin(int(status_line.split(" ", 2)[1]), headers.items())

    def set_eof(self) -> None:
        """Note that the answer has no body."""
        super().set_eof()
        self._pipe.finish()

    async def write_eof(self, chunk: bytes = b"") -> None:
        """End the answer."""
        await super().write_eof(chunk)
        self._pipe.finish()


class _Body(StreamReader):
    """A body that is fetched when somebody reads it: nothing is of a request that is refused by its head."""

    __slots__ = ("fetch",)

    fetch: Callable[[], object] | None

    async def _wait(self, func_name: str) -> None:
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch()
        await super()._wait(func_name)


class Exchange(web.RequestHandler):
    """Serves one request.

    Args:
        server: the application's, from aiohttp's runner.
        pipe: where the answer goes.
        root_path: where the application is mounted.

    Attributes:
        root_path: see above; `collab.transports.requests.public_path` asks for it.
        on_lost: called when the client has gone; None if nobody wants to hear of it.
    """

    __slots__ = ("on_lost", "root_path")

    def __init__(self, server: web.Server, pipe: Pipe, root_path: str) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None, logger=_LOG)  # type: ignore[arg-type]
        self.root_path = root_path
        self.on_lost: Callable[[], None] | None = None
        # As ``connection_made``, without the task that would wait for bytes, and the timer for the first of them.
        self.transport = pipe
        pipe.set_protocol(self)
        server.connection_made(self, pipe)

    async def respond(self, asked: Asked, body: StreamReader, pipe: Pipe) -> None:
        """Call the handler and write its answer."""
        task = self._task_handler = asyncio.current_task()
        assert self._manager is not None
        self._manager.requests_count += 1
        assert task is not None and self._request_factory is not None and self._request_handler is not None
        request = self._request_factory(asked.message, body, self, _Writer(self, pipe, self._loop), task)
        try:
            await self._handle_request(request, None, self._request_handler)
        except ConnectionError:
            pass  # nobody reads it any more
        finally:
            request._task = None  # type: ignore[assignment]  # as aiohttp breaks the cycle
            self._task_handler = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Hear that the client has gone, or that all is done."""
        lost, self.on_lost = self.on_lost, None
        if lost is not None:
            lost()
        super().connection_lost(exc)

    # aiohttp would tell its parser, which has nothing here.

    def pause_reading(self) -> None:
        """Read no more of the body, or of the socket."""
        self._reading_paused = True
        self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on."""
        self._reading_paused = False
        if not self._buffer_paused:
            self._resume_transport_reading()


_LOG: Final[Any] = HttpLog()


def hear_of_lost(handler: web.RequestHandler, lost: Callable[[], None] | None) -> None:
    """Note what is to be called when the client of an answer that goes on has gone (``Guard.on_stream``)."""
    if isinstance(handler, Exchange):
        handler.on_lost = lost


async def serve_http(server: web.Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one HTTP request."""
    try:
        asked = read_scope(scope)
    except BadScope as error:
        await refuse_http(send, error.status, str(error))
        return
    pipe = BodyPipe(scope, send)
    exchange = Exchange(server, pipe, asked.root_path)
    reading: asyncio.Task[None] | None = None

    def fetch() -> None:
        nonlocal reading
        reading = asyncio.get_running_loop().create_task(_fetch(body, pipe, receive))

    body: StreamReader = EMPTY_PAYLOAD
    if asked.has_body:
        body = _Body(exchange, _BODY, loop=exchange._loop)
        body.fetch = fetch

        async def before_end() -> None:
            if not body.is_eof():
                await _throw_away(body, reading, receive)

        if scope.get("http_version") in ("1.0", "1.1"):  # a stream of HTTP/2 ends by itself
            pipe.before_end = before_end
    else:
        fetch()  # behind what nobody reads comes the end of the connection
    try:
        await exchange.respond(asked, body, pipe)
        if not pipe.is_closing():
            pipe.abort()  # what has begun is not whole, and must not seem so
        await pipe.ended.wait()
    finally:
        if reading is not None:
            await _stop(reading)
        pipe.abort()
        exchange.connection_lost(None)


async def _fetch(body: StreamReader, pipe: Pipe, receive: Receive) -> None:
    """Fetch the body, then wait for the client to go."""
    try:
        while not pipe.is_closing():
            await pipe.readable()
            message = await receive()
            if message["type"] == "http.disconnect":
                pipe.lost()
                return
            if body.is_eof():
                continue
            body.feed_data(message.get("body") or b"")
            if not message.get("more_body"):
                body.feed_eof()
    except Exception:
        pipe.abort()
        raise


async def _throw_away(body: StreamReader, reading: asyncio.Task[None] | None, receive: Receive) -> None:
    """Take what is left of a body that nobody reads, for a bounded time.

    Some ASGI servers close the connection behind an answer that ends before its request does. The other end then loses
    what it has not read of the answer (``collab.transports.guard.door``).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGERING_SECONDS):
            if reading is not None:
                async with asyncio.timeout(LINGERING_QUIET_SECONDS):
                    await asyncio.wait({reading})  # one more message: it sees that the answer is whole
            left = _LINGERING_BYTES
            while not body.is_eof() and left > 0:
                async with asyncio.timeout(LINGERING_QUIET_SECONDS):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    return
                left -= len(message.get("body") or b"")
                if not message.get("more_body"):
                    body.feed_eof()


async def serve_websocket(server: web.Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket, from its handshake to its end."""
    if (await receive())["type"] != "websocket.connect":
        return
    try:
        asked = read_scope(scope)
    except BadScope as error:
        await refuse_websocket(scope, send, error.status, str(error))
        return
    pipe = FramePipe(scope, send)
    exchange = Exchange(server, pipe, asked.root_path)
    exchange._upgraded = True
    exchange._parser = None
    reading = asyncio.get_running_loop().create_task(_read(exchange, pipe, receive))
    try:
        await exchange.respond(asked, EMPTY_PAYLOAD, pipe)
        pipe.close()
        await pipe.ended.wait()
    finally:
        await _stop(reading)
        pipe.abort()
        exchange.connection_lost(None)


async def _read(exchange: Exchange, pipe: FramePipe, receive: Receive) -> None:
    """Give the intake what the client sends, as frames."""
    try:
        while True:
            await pipe.readable()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                _hear_end(exchange, pipe, message.get("code") or _NO_CODE)
                return
            data, first = message.get("bytes"), _BINARY
            if data is None:
                data, first = (message.get("text") or "").encode("utf-8", "surrogatepass"), _TEXT
            del message
            await _feed(exchange, pipe, first, data)
            del data
    except Exception:
        pipe.abort()
        raise


async def _feed(exchange: Exchange, pipe: FramePipe, first: int, data: bytes) -> None:
    """Give the intake one message; a long one as fast as it is taken."""
    head = client_head(first, len(data))
    if len(data) < _READ:
        exchange.data_received(head + data)
        return
    exchange.data_received(head)
    for begin in range(0, len(data), _READ):
        await pipe.readable()
        exchange.data_received(data[begin : begin + _READ])


def _hear_end(exchange: Exchange, pipe: FramePipe, code: int) -> None:
    """Tell the socket how its client has ended it: by a close frame, or not at all."""
    pipe.lost()
    if code == _NO_CODE:
        exchange.data_received(client_head(_CLOSE, 0))
    elif _may_be_sent(code):
        exchange.data_received(client_head(_CLOSE, 2) + code.to_bytes(2))
    else:
        pipe.abort()


# Stands for a close frame without a code (RFC 6455, section 7.4.1).
_NO_CODE: Final = 1005


def _may_be_sent(code: int) -> bool:
    """Tell whether a code may stand in a close frame (RFC 6455, section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


async def _stop(task: asyncio.Task[None]) -> None:
    """End a task that fetches; what it has failed with is raised."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def refuse_http(send: Send, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    """Answer a request that does not get as far as a handler."""
    body = f"{status}: {reason}\n".encode()
    told = (("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))), *headers)
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(told)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse_websocket(scope: Scope, send: Send, status: int, reason: str) -> None:
    """Refuse a handshake, with a status where the ASGI server can tell it."""
    pipe = FramePipe(scope, send)
    pipe.begin(status, [("content-type", "text/plain; charset=utf-8")])
    pipe.write(f"{status}: {reason}\n".encode())
    pipe.finish()
    await pipe.ended.wait()
