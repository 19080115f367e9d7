"""The y-websocket protocol on a socket: what its document and token are, and how its frames are written.

Strategy: the document is opened before the first message is read, in the coroutine that serves the socket. What the
protocol says stands in ``collab.protocol.ywebsocket.connection``.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from collab.protocol.events import Authenticate
from collab.protocol.messages import Message
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.protocol.ywebsocket import codec
from collab.protocol.ywebsocket.connection import Connection as Protocol
from collab.transports.requests import bearer_token, raw_document_name
from collab.transports.sockets.connection import CHANNEL_SLOTS, Accepted, Connection, SocketChannel, SocketMember
from collab.transports.sockets.context import Context
from collab.transports.sockets.frames import binary_frame, binary_head
from collab.transports.sockets.wire_log import Described


class YWebSocketEncoder:
    """Encode for every y-websocket client: there is no address, so all of them share this one."""

    def encode(self, message: Message) -> bytes:
        """Return one whole WebSocket frame."""
        return binary_frame(codec.encode(message))

    def encode_head(self, kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
        """Return what stands before an update of ``size`` bytes in one whole WebSocket frame."""
        head = codec.encode_head(kind, size)
        return binary_head(len(head) + size) + head


_ENCODER = YWebSocketEncoder()


class YWebSocketChannel(SocketChannel):
    """The one channel of a socket."""

    __slots__ = CHANNEL_SLOTS

    def __init__(self, connection: YWebSocketConnection) -> None:
        self.connection = connection
        self.live = self.task = self.renewal = self.asking = self.expiry = self.checking = self.token = None
        super().__init__()

    def new_session(self) -> SocketMember:
        """Return a member whose frames have no address."""
        return SocketMember(_ENCODER, self)

    @property
    def name(self) -> str:
        """The document in the path, once it is found to be a name."""
        return self.connection.document_name or ""


class YWebSocketConnection(Connection[YWebSocketChannel]):
    """One client's socket."""

    protocol_name = "y-websocket"
    waits = False
    text_close = codec.CLOSE_TEXT

    __slots__ = ("_attempt",)

    def __init__(self, context: Context, accepted: Accepted) -> None:
        super().__init__(context, accepted)
        self._attempt = ""
        self.protocol: Protocol[YWebSocketChannel] = Protocol(YWebSocketChannel(self))

    async def open(self, request: web.Request) -> None:
        """Open the document that the path names, for what the token allows."""
        token = bearer_token(request)
        # The address has no token any more (guard.hiding), and another token is another attempt.
        self._attempt = f"{request.raw_path} {token}"
        steps = self.protocol.open(raw_document_name(request), token)
        self.document_name = self.protocol.name
        if self.wire is not None:
            self.wire.document_name = self.document_name
        for step in steps:
            if type(step) is Authenticate:
                # Not in a task: there is nothing else to be done for this socket.
                await self.admit(step)
            else:
                await self.run((step,))
        self._attempt = ""

    async def _pause_refusal(self) -> None:
        refusals, now = self.context.refusals, asyncio.get_running_loop().time()
        await asyncio.sleep(refusals.count(self.peer.address, self._attempt, now))

    @staticmethod
    def describe(frame: bytes) -> Described:
        """Say what a frame is; the document is the socket's."""
        return Described(None, codec.describe(frame))
