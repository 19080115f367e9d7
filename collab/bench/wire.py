"""The two protocols that the generator speaks, each as one small class behind one interface.

Strategy: both are "address, type, y-protocols payload"; y-websocket has the document in the URL and
an empty address, Hocuspocus has one fixed URL and the document's name before every message. So a wire
only says where to connect, what to send first, and which bytes stand before a payload; reading and
writing of what follows is the same code for both. One connection carries one document.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol
from urllib.parse import quote

from collab.errors import ProtocolError
from collab.protocol.lib0 import encode_var_bytes, encode_var_string, read_var_string, read_var_uint

SYNC, AWARENESS, AUTH = 0, 1, 2
STEP_1, STEP_2, UPDATE = 0, 1, 2

EMPTY_STATE_VECTOR = b"\x00"


class Wire(Protocol):
    """How the messages of one document travel on one WebSocket."""

    def target(self, path: str, query: str, document: str) -> str:
        """Return the request target (path and query) of the upgrade for ``document``."""

    def prefix(self, document: str) -> bytes:
        """Return the bytes before the type of every message of ``document``."""

    def greeting(self, document: str) -> list[bytes]:
        """Return the payloads that a client sends when the socket is open, in order."""

    def read_other(self, kind: int, body: bytes) -> bytes | None:
        """Look at a message that is neither sync nor awareness; return an answer without its prefix, or None.

        Raises ProtocolError when the server refused the client.
        """


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
        return [bytes((SYNC, STEP_1)) + encode_var_bytes(EMPTY_STATE_VECTOR)]

    def read_other(self, kind: int, body: bytes) -> bytes | None:
        """Raise on a denied permission (type 2), ignore every other type."""
        if kind == AUTH:
            raise ProtocolError(f"the server refused the client: {read_var_string(body, 1)[0]}")
        return None


class HocuspocusWire:
    """Hocuspocus 4: every message begins with the document's name; Auth comes first."""

    _TOKEN, _DENIED = 0, 1

    def __init__(self, token: str = "") -> None:
        self._token = token

    def target(self, path: str, query: str, document: str) -> str:
        """Return the fixed path."""
        return (path or "/") + (f"?{query}" if query else "")

    def prefix(self, document: str) -> bytes:
        """Return the address: the name as a varString."""
        return encode_var_string(document)

    def _auth(self) -> bytes:
        return bytes((AUTH, self._TOKEN)) + encode_var_string(self._token) + encode_var_string("4.7.0")

    def greeting(self, document: str) -> list[bytes]:
        """Return Auth with the token, then step 1 with the empty state vector, as the provider does."""
        address = self.prefix(document)
        step1 = bytes((SYNC, STEP_1)) + encode_var_bytes(EMPTY_STATE_VECTOR)
        return [address + self._auth(), address + step1]

    def read_other(self, kind: int, body: bytes) -> bytes | None:
        """Answer a token request, raise on a denied permission or a closed document, ignore the rest."""
        if kind == AUTH:
            sort, pos = read_var_uint(body, 0)
            if sort == self._DENIED:
                raise ProtocolError(f"the server refused the client: {read_var_string(body, pos)[0]}")
            return self._auth() if sort == self._TOKEN else None
        if kind == 7:  # CLOSE
            raise ProtocolError(f"the server closed the document: {read_var_string(body, 0)[0]}")
        return None


class WireName(StrEnum):
    """The protocols by the names that the command line takes."""

    Y_WEBSOCKET = "y-websocket"
    HOCUSPOCUS = "hocuspocus"


def choose_wire(name: WireName, token: str = "") -> Wire:
    """Return the wire of that name; ``token`` is used by Hocuspocus only (y-websocket has it in the URL)."""
    return HocuspocusWire(token) if name is WireName.HOCUSPOCUS else YWebsocketWire()
