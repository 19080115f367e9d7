"""The Hocuspocus protocol on a socket: its channels, and how their frames are written.

Strategy: what the protocol says stands in ``collab.protocol.hocuspocus.connection``. All clients that have a document
under the same address share an encoder, and so the bytes that they are sent.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from aiohttp import web

from collab.errors import AddressError
from collab.protocol.hocuspocus import codec
from collab.protocol.hocuspocus.connection import Channel
from collab.protocol.hocuspocus.connection import Connection as Protocol
from collab.protocol.messages import Message, SyncStatus
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.transports.sockets.connection import CHANNEL_SLOTS, Accepted, Connection, SocketChannel, SocketMember
from collab.transports.sockets.context import Context
from collab.transports.sockets.frames import binary_frame, binary_head
from collab.transports.sockets.wire_log import Described


class HocuspocusEncoder:
    """Encode for all clients that have a document under the same address."""

    __slots__ = ("__weakref__", "_refused", "_saved", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._saved = binary_frame(prefix + codec.encode(SyncStatus(True)))
        self._refused = binary_frame(prefix + codec.encode(SyncStatus(False)))

    def encode(self, message: Message) -> bytes:
        """Return one whole WebSocket frame."""
        if type(message) is SyncStatus:
            return self._saved if message.saved else self._refused
        return binary_frame(self.prefix + codec.encode(message))

    def encode_head(self, kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
        """Return what stands before an update of ``size`` bytes in one whole WebSocket frame."""
        head = self.prefix + codec.encode_head(kind, size)
        return binary_head(len(head) + size) + head


_encoders: WeakValueDictionary[bytes, HocuspocusEncoder] = WeakValueDictionary()


def _encoder(address: bytes) -> HocuspocusEncoder:
    encoder = _encoders.get(address)
    if encoder is None:
        encoder = _encoders[address] = HocuspocusEncoder(codec.prefix(address))
    return encoder


class HocuspocusMember(SocketMember):
    """A member whose protocol says "saved" and knows stateless messages."""

    acknowledges = True
    stateless = True

    __slots__ = ()


class HocuspocusChannel(Channel, SocketChannel):
    """One address of a socket."""

    __slots__ = (*CHANNEL_SLOTS, "encoder")

    def __init__(self, connection: HocuspocusConnection, address: bytes) -> None:
        self.connection = connection
        self.encoder = _encoder(address)
        self.live = self.task = self.renewal = self.asking = self.expiry = self.checking = self.token = None
        super().__init__(address, self.encoder.prefix)

    def new_session(self) -> HocuspocusMember:
        """Return a member whose frames begin with the address."""
        return HocuspocusMember(self.encoder, self)


class HocuspocusConnection(Connection[HocuspocusChannel]):
    """One client's socket with its channels."""

    protocol_name = "hocuspocus"
    waits = True
    text_close = codec.CLOSE_UNREADABLE

    __slots__ = ()

    def __init__(self, context: Context, accepted: Accepted) -> None:
        super().__init__(context, accepted)
        self.protocol: Protocol[HocuspocusChannel] = Protocol(self._make_channel, context.options.hocuspocus)

    def _make_channel(self, address: bytes) -> HocuspocusChannel:
        return HocuspocusChannel(self, address)

    async def open(self, request: web.Request) -> None:
        """Do nothing: the client says what it wants."""

    @staticmethod
    def describe(frame: bytes) -> Described:
        """Say what a frame is and which document it is for."""
        if frame in (codec.PING, codec.PONG):
            return Described(None, "Ping message" if frame == codec.PING else "Pong message")
        try:
            address, pos = codec.read_address(frame)
        except AddressError:
            return Described(None, "unreadable address")
        return Described(address.decode().partition("\0")[0], codec.describe(frame, pos))
