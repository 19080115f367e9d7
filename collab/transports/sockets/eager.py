"""A WebSocketResponse whose messages can be taken while the socket is read.

Strategy: aiohttp puts each message into a queue and wakes the task that waits for it. With many quiet
rooms nearly every message comes alone, and that waking (a future, a turn of the loop, a task's step)
costs more than all that the server does with the message. So the queue first offers a message to
``take``; what that refuses goes the usual way, and as long as anything is queued nothing is offered,
so the order is kept.

This leans on private names of aiohttp (``_prepare_hook``, ``_reader``, ``_parser``, the ``_buffer`` of the queue and
others), which is why aiohttp is pinned to one version; ``tests/transports/test_websocket.py`` shows what a new one
changes.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from aiohttp import WSMessage, web
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import (
    CONNECTION,
    DATE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    SERVER,
    UPGRADE,
)
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, WS_KEY

from collab.transports.sockets.deflate import RESPONSE, accepts
from collab.transports.sockets.intake import Gate, Intake

# As aiohttp's own queue: it pauses reading above twice this many bytes.
_QUEUE_BYTES = 2**16


# A token of RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Take = Callable[[WSMessage | WSMessageTextBytes], bool]


class _EagerQueue(WebSocketDataQueue):
    """Offers each message to ``take`` before it queues it."""

    __slots__ = ("intake", "take")

    # Not the response, which holds this queue: they would be a cycle.
    take: Take | None
    intake: Intake | None

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None:
        intake = self.intake
        if intake is not None and intake.state is not None and intake.claims:
            claimed = intake.claim(data)
            if claimed is not None:
                # Offered as well, though it may be too large: nothing may be taken before it.
                if self.take is not None and not self._buffer and self.take(claimed):
                    intake.worked_on()
                else:
                    super().feed_data(claimed, len(claimed.data) if type(claimed.data) is bytes else 0)
                return
        take = self.take
        if take is None or self._buffer or not take(data):
            super().feed_data(data, size)


class EagerWebSocketResponse(web.WebSocketResponse):
    """As ``web.WebSocketResponse``; whoever is named to ``offer_to`` is asked first.

    Attributes:
        intake: what stands before the parser, from ``prepare`` on.
    """

    __slots__ = ("_gate", "_offers_deflate", "intake")

    intake: Intake

    def __init__(self, *, timeout: float, gate: Gate, deflate: bool = False) -> None:
        # The parser takes less than its bound, and gets nothing larger.
        size = gate.largest + 1
        super().__init__(timeout=timeout, max_msg_size=size, autoping=False, autoclose=False, compress=False)
        self._gate = gate
        self._offers_deflate = deflate

    def offer_to(self, take: Take) -> None:
        """From now on ask ``take`` first, which tells whether it has taken the message.

        It runs inside the parser: it must not raise, nor wait.
        """
        queue = self._reader
        assert isinstance(queue, _EagerQueue)
        queue.take = take

    def release(self) -> None:
        """Let go of what reads: nothing more is received.

        Where reading has failed, the reader holds the error, whose traceback holds this.
        """
        queue = self._reader
        if isinstance(queue, _EagerQueue):
            queue.intake = None
            self.intake.release()
            del self.intake
        self._reader = self._parser = self._exception = None

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Do nothing: the connection sends the close frame, and knows when its code has been read.

        aiohttp calls this when it cannot go on reading, and closes at once; with bytes of the client still
        unread the kernel would reset the connection, and the client would never see the code.
        """
        return False

    @property
    def queued(self) -> bool:
        """Whether messages that were not taken wait to be received."""
        queue = self._reader
        return isinstance(queue, _EagerQueue) and bool(queue._buffer)

    @property
    def deflates(self) -> bool:
        """Whether both sides have agreed to permessage-deflate."""
        return bool(self._compress)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Shake hands, and begin to read.

        As the method that it replaces, in one go, and without aiohttp's writer of frames, which nobody uses and every
        socket would keep.

        Raises:
            HTTPBadRequest: the request is none for a WebSocket.
        """
        if self._payload_writer is not None:
            return self._payload_writer
        self._loop = request._loop
        self._shake_hands(request)
        self._keep_alive = False
        if request._protocol.transport is None:
            raise ConnectionResetError("Connection lost")
        self._req = request
        writer = self._payload_writer = request._payload_writer
        await request._prepare_hook(self)
        version = request.version
        await writer.write_headers(f"HTTP/{version.major}.{version.minor} 101 {self._reason}", self._headers)
        writer.send_headers()
        self._begin(request)
        await writer.drain()
        return writer

    def _shake_hands(self, request: web.BaseRequest) -> None:
        """Check a request by RFC 6455, section 4.2.1, as aiohttp does, and fill the headers of the answer."""
        asked, told = request.headers, self._headers
        if asked.get(UPGRADE, "").lower().strip() != "websocket":
            raise web.HTTPBadRequest(
                text=f'No WebSocket UPGRADE hdr: {asked.get(UPGRADE)}\n Can "Upgrade" only to "WebSocket".'
            )
        if not request._message.upgrade:
            raise web.HTTPBadRequest(text=f"No CONNECTION upgrade hdr: {asked.get(CONNECTION)}")
        # A browser closes a socket whose server chooses none of the subprotocols that were offered. None of them means
        # anything here, so the first one is as good as any.
        protocol = _first_protocol(request)
        version = asked.get(SEC_WEBSOCKET_VERSION, "")
        if version not in ("13", "8", "7"):
            raise web.HTTPBadRequest(text=f"Unsupported version: {version}")
        key = asked.get(SEC_WEBSOCKET_KEY, "")
        try:
            whole = len(a2b_base64(key)) == 16
        except ValueError:
            whole = False
        if not whole:
            raise web.HTTPBadRequest(text=f"Handshake error: {key!r}")
        told[UPGRADE] = "websocket"
        told[CONNECTION] = "upgrade"
        told[SEC_WEBSOCKET_ACCEPT] = b2a_base64(sha1(key.encode() + WS_KEY).digest(), newline=False).decode()  # noqa: S324
        if protocol:
            self._ws_protocol = told[SEC_WEBSOCKET_PROTOCOL] = protocol
        # aiohttp itself would agree to compression that depends on the messages before.
        if self._offers_deflate and accepts(asked.get(SEC_WEBSOCKET_EXTENSIONS)):
            told[SEC_WEBSOCKET_EXTENSIONS] = RESPONSE
            self._compress = 15
        told[DATE] = rfc822_formatted_time()
        told[SERVER] = SERVER_SOFTWARE

    def _begin(self, request: web.BaseRequest) -> None:
        """Let what comes from now on be read as frames, into our queue; there is no heartbeat to start."""
        assert self._loop is not None
        queue = _EagerQueue(request._protocol, _QUEUE_BYTES, loop=self._loop)
        queue.take = None
        self._reader = queue
        parser = WebSocketReader(
            queue, self._max_msg_size, compress=bool(self._compress), decode_text=self._decode_text
        )
        self._parser = parser
        self.intake = queue.intake = Intake(self._gate, queue, parser)
        protocol: Any = request._protocol
        protocol.set_parser(self.intake)
        protocol.keep_alive(False)
        # Nothing on this connection is read as a request any more: 2 KB that every idle socket would keep.
        protocol._parser = None
        protocol._messages = ()
        protocol._cache.clear()


def _first_protocol(request: web.BaseRequest) -> str:
    """Give the first subprotocol that a client offers (RFC 6455, section 11.3.4); empty for none.

    Raises:
        HTTPBadRequest: it is no token.
    """
    name = request.headers.get(SEC_WEBSOCKET_PROTOCOL, "").partition(",")[0].strip()
    if name and not _TOKEN.fullmatch(name):
        raise web.HTTPBadRequest(text="Sec-WebSocket-Protocol is malformed\n")
    return name
