"""A transport without a socket: what aiohttp's protocol writes to it becomes messages of ASGI.

Strategy: to the handlers, the outbox of a socket and the streams this is a transport like any other, with a number of
bytes that wait, marks of flow control, and an end. One task hands messages to the ASGI server, one after the other, and
only while there are some; a server that awaits its client holds it back, and so the bytes wait here, where the rules
for slow clients see them.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from collab.telemetry import RateLimited, get_logger
from collab.transports.sockets.frames import payload_of

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]

_limited = RateLimited(get_logger("asgi"))

# Marks of flow control, in bytes: as those of uvloop, but for the low one.
_HIGH: Final = 64 * 1024
_LOW: Final = 16 * 1024

# Small parts of a body that wait behind each other are sent in one message, up to so many bytes.
_JOINED: Final = 64 * 1024

# Left to the ASGI server: how a body and a connection are framed, and what it adds to each answer itself.
_NOT_PASSED_ON: Final = frozenset(
    {
        "connection",
        "date",
        "keep-alive",
        "sec-websocket-accept",
        "server",
        "transfer-encoding",
        "upgrade",
    }
)

# Bytes of the answer to a handshake that is refused.
_REFUSAL: Final = 64 * 1024

# RFC 9110, section 5.5: what could end a header early.
_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Pipe(asyncio.Transport):
    """The connection of one request.

    Args:
        scope: of the request.
        send: hands a message to the ASGI server.

    Attributes:
        ended: set when nothing more is sent.
    """

    def __init__(self, scope: Mapping[str, Any], send: Send) -> None:
        client = scope.get("client")
        # One that is not told is no address of this machine either.
        peer = (str(client[0]), int(client[1] or 0)) if client and client[0] else ("", 0)
        secure = scope.get("scheme") in ("https", "wss")
        super().__init__(
            {
                "peername": peer,
                "pings": False,
                "scope": scope,
                "sockname": scope.get("server"),
                "sslcontext": secure or None,
            }
        )
        self._send = send
        self._protocol: asyncio.Protocol | None = None
        self._queue: deque[tuple[Message, int]] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._high, self._low = _HIGH, _LOW
        self._full = False
        self._closing = False
        self._over = False
        self._reading: asyncio.Event | None = None  # cleared while nothing is to be read; None while nobody asked
        self.ended = asyncio.Event()

    # As aiohttp sees it

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Note who is to be told of flow control and of the end."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give it."""
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        """Whether nothing more is taken."""
        return self._closing or self._over

    def is_reading(self) -> bool:
        """Whether the next message of the client may be fetched."""
        return self._reading is None or self._reading.is_set()

    def pause_reading(self) -> None:
        """Fetch nothing more of the client."""
        if self._reading is None:
            self._reading = asyncio.Event()
        self._reading.clear()

    def resume_reading(self) -> None:
        """Fetch what comes again."""
        if self._reading is not None:
            self._reading.set()

    def get_write_buffer_size(self) -> int:
        """Give how many bytes wait that the ASGI server has not taken."""
        return self._waiting

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the marks of flow control, the low one first."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks of flow control, in bytes."""
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def can_write_eof(self) -> bool:
        """Tell that there is no half of an end."""
        return False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take what is to be sent."""
        raise NotImplementedError

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Take several parts."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Send what waits, then end."""
        if not self._closing:
            self._closing = True
            self.resume_reading()
            if self._task is None:
                self._end()

    def abort(self) -> None:
        """Send nothing more."""
        self._closing = True
        self._drop()
        if self._task is None:
            self._end()

    # As the exchange sees it

    def begin(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        raise NotImplementedError

    def finish(self) -> None:
        """End the answer, which is whole."""
        raise NotImplementedError

    async def readable(self) -> None:
        """Wait until something may be fetched of the client."""
        if self._reading is not None:
            await self._reading.wait()

    def lost(self) -> None:
        """Hear that the client has gone."""
        self.abort()

    # Sending

    def _put(self, message: Message, size: int) -> None:
        self._queue.append((message, size))
        self._waiting += size
        if self._waiting > self._high and not self._full and self._protocol is not None:
            self._full = True
            self._protocol.pause_writing()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Hand over what waits."""
        try:
            while self._queue:
                message, size = self._next()
                await self._hand_over(message)
                if not self._over:
                    self._taken(size)
        except OSError:
            self._drop()  # the word of ASGI for a client that has gone
        except Exception as error:
            # Servers say the same by errors of their own; a defect looks no different, so it is told.
            _limited.warning("send", "the ASGI server takes nothing more of a connection: %r", error)
            self._drop()
        finally:
            self._task = None
            if self._closing:
                self._end()

    def _next(self) -> tuple[Message, int]:
        return self._queue.popleft()

    async def _hand_over(self, message: Message) -> None:
        await self._send(message)

    def _taken(self, size: int) -> None:
        self._waiting -= size
        if self._full and self._waiting <= self._low and self._protocol is not None:
            self._full = False
            self._protocol.resume_writing()

    def _drop(self) -> None:
        """Forget what waits: nothing of it can be sent."""
        self._over = True
        self._queue.clear()
        self._waiting = 0
        self.resume_reading()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _end(self) -> None:
        self.ended.set()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)


class BodyPipe(Pipe):
    """The answer of an HTTP request: what is written is its body.

    Args:
        scope, send: see there.

    Attributes:
        before_end: awaited when all of the answer was handed over but its end; None if nothing is.
    """

    def __init__(self, scope: Mapping[str, Any], send: Send) -> None:
        super().__init__(scope, send)
        self.before_end: Callable[[], Awaitable[None]] | None = None

    def begin(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self._put({"type": "http.response.start", "status": status, "headers": encode_headers(headers)}, 0)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take a part of the body."""
        if data and not self.is_closing():
            self._put({"type": "http.response.body", "body": bytes(data), "more_body": True}, len(data))

    def finish(self) -> None:
        """End the answer, which is whole."""
        if not self.is_closing():
            last = self._queue[-1][0] if self._queue else None
            if last is not None and "more_body" in last:
                last["more_body"] = False
            else:
                self._put({"type": "http.response.body", "body": b"", "more_body": False}, 0)
            self.close()

    async def _hand_over(self, message: Message) -> None:
        before_end = self.before_end
        if before_end is not None and message.get("more_body") is False:
            if message["body"]:
                await self._send({**message, "more_body": True})
                message["body"] = b""
            await before_end()
        await self._send(message)

    def _next(self) -> tuple[Message, int]:
        message, size = self._queue.popleft()
        if message.get("more_body") and self._queue and size < _JOINED:
            parts = [message["body"]]
            while self._queue and message["more_body"] and size + self._queue[0][1] <= _JOINED:
                following, more = self._queue.popleft()
                parts.append(following["body"])
                size += more
                message["more_body"] = following["more_body"]
            message["body"] = b"".join(parts)
        return message, size


class FramePipe(Pipe):
    """A WebSocket: what is written are frames of a server (RFC 6455), and each message of them is one of ASGI.

    A message of ASGI is whole, so a frame that comes in portions is gathered. A ping is answered here, when the ASGI
    server has taken all that was written before it; pings to the client are that server's own business.

    Args:
        scope, send: see there.
    """

    def __init__(self, scope: Mapping[str, Any], send: Send) -> None:
        super().__init__(scope, send)
        self.accepted: bool | None = None
        self._tells_why = "websocket.http.response" in (scope.get("extensions") or {})
        self._refusal = b""
        self._part: bytearray | None = None  # of a frame that is not whole
        self._portions: tuple[bytes, int] | None = None  # of which frame portions come, and how much has come

    def begin(self, status: int, headers: Headers) -> None:
        """Accept the socket, or refuse it."""
        told = _by_name(headers)
        self.accepted = status == 101
        if self.accepted:
            self._put({"type": "websocket.accept", "subprotocol": told.get("sec-websocket-protocol"), "headers": []}, 0)
        elif self._tells_why:
            # An address that is no WebSocket's may have answered well.
            status = status if status >= 400 else 426
            kept = [
                told_by for told_by in told.items() if told_by[0] not in ("content-length", "sec-websocket-protocol")
            ]
            self._put({"type": "websocket.http.response.start", "status": status, "headers": encode_headers(kept)}, 0)
        else:
            self._put({"type": "websocket.close", "code": 1008}, 0)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take frames, or a part of one."""
        if self.is_closing():
            return
        if not self.accepted:
            # One message at the end, because Granian takes no more; what says why is short.
            self._refusal += data[: _REFUSAL - len(self._refusal)]
        elif self._part is None and type(data) is bytes and _is_one_message(data):
            self._put(*_message_of(data))
        elif self._part is None and isinstance(data, memoryview) and self._is_portion(data):
            return
        else:
            self._gather(data)

    def finish(self) -> None:
        """End the answer to a socket that was refused."""
        if not self.accepted and not self.is_closing():
            if self._tells_why:
                body = bytes(self._refusal)
                self._put({"type": "websocket.http.response.body", "body": body, "more_body": False}, len(body))
            self.close()

    def lost(self) -> None:
        """Hear that the client has gone; how it has said so comes behind this, as a frame."""
        self._drop()

    def _is_portion(self, data: memoryview[Any]) -> bool:
        """Take a portion of a finished frame that others are sent too: it is neither gathered nor copied for each.

        The outbox writes the portions of a frame in order, and nothing in between.
        """
        whole = data.obj
        if type(whole) is not bytes:
            return False
        if self._portions is None:
            if not _is_one_message(whole) or data != memoryview(whole)[: len(data)]:
                return False
            self._portions = (whole, len(data))
        else:
            self._portions = (whole, self._portions[1] + len(data))
        if self._portions[1] == len(whole):
            self._portions = None
            self._put(*_message_of(whole))
        return True

    def _gather(self, data: bytes | bytearray | memoryview[Any]) -> None:
        part = self._part
        if part is None:
            part = self._part = bytearray()
        part += data
        pos = 0
        while (behind := _end_of_frame(part, pos)) <= len(part):
            head = pos + {126: 4, 127: 10}.get(part[pos + 1], 2)
            self._put_frame(part[pos], bytes(memoryview(part)[head:behind]))
            pos = behind
        if pos == len(part):
            self._part = None
        elif pos:
            self._part = part[pos:]

    def _put_frame(self, first: int, payload: bytes) -> None:
        if first == _BINARY:
            self._put({"type": "websocket.send", "bytes": payload}, len(payload))
        elif first == _PING:
            self._put({"type": _PINGED, "bytes": payload}, len(payload))
        elif first == _CLOSE:
            code = int.from_bytes(payload[:2]) if payload else 1000
            self._put({"type": "websocket.close", "code": code, "reason": payload[2:].decode()}, 0)
        # A pong was asked for by nobody: the ASGI server answers its client's pings.

    async def _hand_over(self, message: Message) -> None:
        if message["type"] != _PINGED:
            await self._send(message)
        elif isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(client_head(_PONG, len(message["bytes"])) + message["bytes"])


_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A

# In the queue in the place of a ping; no server is given it.
_PINGED: Final = "collab.pinged"


# The frame that was written last, and its message: a room writes the same object to all its members.
_last: tuple[bytes, tuple[Message, int]] = (b"", ({}, 0))


def _message_of(frame: bytes) -> tuple[Message, int]:
    """Give the message of a frame that is one whole binary message, and its size."""
    global _last
    if _last[0] is not frame:
        _last = (frame, ({"type": "websocket.send", "bytes": bytes(payload_of(frame))}, len(frame)))
    return _last[1]


def _by_name(headers: Headers) -> dict[str, str]:
    """Give headers by their names in lower case."""
    return {name.lower(): value for name, value in headers}


def _is_one_message(data: bytes) -> bool:
    return data[0] == _BINARY and _end_of_frame(data, 0) == len(data)


def _end_of_frame(data: bytes | bytearray, pos: int) -> int:
    """Give where the frame ends that begins at ``pos``; a place behind ``data`` if its header is not whole."""
    if len(data) < pos + 2:
        return len(data) + 1
    size = data[pos + 1]
    if size < 126:
        return pos + 2 + size
    wide = 2 if size == 126 else 8
    if len(data) < pos + 2 + wide:
        return len(data) + 1
    return pos + 2 + wide + int.from_bytes(data[pos + 2 : pos + 2 + wide])


def client_head(first: int, size: int) -> bytes:
    """Return what stands before ``size`` bytes of payload in a client's frame, with the mask that changes nothing."""
    if size < 126:
        return bytes((first, 0x80 | size)) + _NO_MASK
    if size < 65536:
        return bytes((first, 0x80 | 126)) + size.to_bytes(2) + _NO_MASK
    return bytes((first, 0x80 | 127)) + size.to_bytes(8) + _NO_MASK


_NO_MASK: Final = bytes(4)


def encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Encode the headers of an answer, without those that are the ASGI server's.

    Raises:
        ValueError: one could end early.
    """
    found = []
    for name, value in headers:
        name = name.lower()
        if name in _NOT_PASSED_ON:
            continue
        if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
            raise ValueError(f"a control character in the header {name[:40]!r}")
        found.append((name.encode(), value.encode()))
    return found
