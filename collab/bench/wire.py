"""The two protocols that the generator speaks, each as one small class behind one interface.

Strategy: both are "address, type, y-protocols payload"; y-websocket has the document in the URL and
an empty address, Hocuspocus has one fixed URL and the document's name before every message. So a wire
only says where to connect, what to send first, and which bytes stand before a message; what they mean
is said by the codecs that the server uses. One connection carries one document.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol
from urllib.parse import quote

from collab.protocol.hocuspocus import codec as hocuspocus
from collab.protocol.hocuspocus.codec import ServerMessage
from collab.protocol.messages import Message
from collab.protocol.sync import EMPTY_STATE_VECTOR, SyncStep1
from collab.protocol.ywebsocket import codec as ywebsocket

# The provider's version that is shown with a token.
_VERSION = "4.7.0"

_STEP_1 = SyncStep1(EMPTY_STATE_VECTOR)


class Wire(Protocol):
    """How the messages of one document travel on one WebSocket."""

    def target(self, path: str, query: str, document: str) -> str:
        """Return the request target (path and query) of the upgrade for ``document``."""

    def prefix(self, document: str) -> bytes:
        """Return the bytes before the type of every message of ``document``."""

    def greeting(self, document: str) -> list[bytes]:
        """Return the payloads that a client sends when the socket is open, in order."""

    def encode(self, message: Message) -> bytes:
        """Encode a message, without its prefix."""

    def decode(self, payload: bytes, pos: int) -> ServerMessage | None:
        """Decode what the server has sent, from behind its prefix on; None for a type that a client need not know.

        Raises DecodeError.
        """

    def token(self) -> bytes:
        """Return the message, without its prefix, that answers a request for a token."""


class YWebsocketWire:
    """y-websocket 3: the document's name is the end of the URL's path."""

    def target(self, path: str, query: str, document: str) -> str:
        """Put the name behind the path, as the npm client does."""
        return f"{path.rstrip('/')}/{quote(document)}" + (f"?{query}" if query else "")

    def prefix(self, document: str) -> bytes:
        """Return no bytes: the socket has one document only."""
        return b""

    def greeting(self, document: str) -> list[bytes]:
        """Return step 1 with the empty state vector."""
        return [self.encode(_STEP_1)]

    def encode(self, message: Message) -> bytes:
        """Encode a message."""
        return ywebsocket.encode(message)

    def decode(self, payload: bytes, pos: int) -> ServerMessage | None:
        """Decode what the server has sent."""
        return ywebsocket.decode_from_server(payload)

    def token(self) -> bytes:
        """Raise AssertionError: the token stands in the URL, and no server of this protocol asks for it."""
        raise AssertionError("y-websocket has no token request")


class HocuspocusWire:
    """Hocuspocus 4: every message begins with the document's name; Auth comes first."""

    def __init__(self, token: str = "") -> None:
        self._token = token

    def target(self, path: str, query: str, document: str) -> str:
        """Return the fixed path."""
        return (path or "/") + (f"?{query}" if query else "")

    def prefix(self, document: str) -> bytes:
        """Return the address: the name as a varString."""
        return hocuspocus.prefix(document.encode())

    def greeting(self, document: str) -> list[bytes]:
        """Return Auth with the token, then step 1 with the empty state vector, as the provider does."""
        address = self.prefix(document)
        return [address + self.token(), address + self.encode(_STEP_1)]

    def encode(self, message: Message) -> bytes:
        """Encode a message."""
        return hocuspocus.encode(message)

    def decode(self, payload: bytes, pos: int) -> ServerMessage | None:
        """Decode what the server has sent."""
        return hocuspocus.decode_from_server(payload, pos)

    def token(self) -> bytes:
        """Return Auth with the token."""
        return hocuspocus.encode_token(self._token, _VERSION)


class WireName(StrEnum):
    """The protocols by the names that the command line takes."""

    Y_WEBSOCKET = "y-websocket"
    HOCUSPOCUS = "hocuspocus"


def choose_wire(name: WireName, token: str = "") -> Wire:
    """Return the wire of that name; ``token`` is used by Hocuspocus only (y-websocket has it in the URL)."""
    return HocuspocusWire(token) if name is WireName.HOCUSPOCUS else YWebsocketWire()
