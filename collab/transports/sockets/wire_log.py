"""The log of the wire, at DEBUG: one line a frame, ``<`` from a client and ``>`` to it.

Strategy: a line names the connection, the document, the kind of the message and its size in bytes, and never content or
a token. Nothing of this is on the way of a message while DEBUG is off: a connection has a ``WireLog``, and an outbox
that writes to it, only when it is on at the moment in which the connection begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

from aiohttp import WSMessage, WSMsgType
from aiohttp._websocket.models import WSMessageTextBytes

from collab.hub.long_frames import LongFrame
from collab.protocol.messages import CloseCode
from collab.telemetry import ConnectionLog
from collab.transports.sockets.frames import payload_of
from collab.transports.sockets.intake import Unread
from collab.transports.sockets.outbox import Pacer, SocketOutbox

_BINARY = 0x82
_CONTROL = {0x89: "Ping", 0x8A: "Pong"}


class Described(NamedTuple):
    """What a line says of a message: the document if the frame names one, and the kind of the message."""

    document_name: str | None
    kind: str


Describe = Callable[[bytes], Described]


class WireLog:
    """Write the lines of one connection.

    It does not hold the connection, because the connection's outbox holds it.

    Args:
        number: names the connection in the log.
        address: of the client.
        describe: says what a binary frame of either direction is.

    Attributes:
        document_name: the document that the whole socket is for, once it is known; frames that name none are for it.
    """

    __slots__ = ("_address", "_describe", "_number", "document_name")

    def __init__(self, number: int, address: str, describe: Describe) -> None:
        self._number = number
        self._address = address
        self._describe = describe
        self.document_name: str | None = None

    def received(self, message: WSMessage | WSMessageTextBytes) -> None:
        """Write a line for what has come, if it is a frame."""
        kind, data = message.type, message.data
        if type(data) is Unread:
            self._line("<", self._describe(data.head), data.size)
        elif kind is WSMsgType.BINARY:
            self._line("<", self._describe(data), len(data))
        elif kind is WSMsgType.TEXT:
            self._line("<", Described(None, "text"), len(data if isinstance(data, bytes) else data.encode()))
        elif kind is WSMsgType.PING or kind is WSMsgType.PONG:
            self._line("<", Described(None, kind.name.capitalize()), len(data))
        elif kind is WSMsgType.CLOSE:
            self._close_line("<", CloseCode(data, message.extra or "") if data else None)

    def sent(self, data: bytes) -> None:
        """Write a line for each of the whole frames that are sent behind each other."""
        for opcode, payload in split_frames(data):
            described = self._describe(payload) if opcode == _BINARY else Described(None, _CONTROL[opcode])
            self._line(">", described, len(payload))

    def begun(self, frame: LongFrame) -> None:
        """Write a line for a binary frame that is put together as it leaves."""
        head = payload_of(frame.head)
        self._line(">", self._describe(bytes(head)), len(head) + frame.parts.nbytes)

    def filled(self, size: int) -> None:
        """Write a line for pongs that nobody has asked for."""
        self._line(">", Described(None, "Pongs to measure the line"), size)

    def closed(self, code: CloseCode | None) -> None:
        """Write a line for a close frame that is sent."""
        self._close_line(">", code)

    def _close_line(self, mark: str, code: CloseCode | None) -> None:
        size = 0 if code is None else 2 + len(code.reason.encode())
        self._line(mark, Described(None, "Close" if code is None else f"Close {code.code}"), size)

    def _line(self, mark: str, described: Described, size: int) -> None:
        log = ConnectionLog(self._number, self._address, described.document_name or self.document_name)
        log.debug("%s %s, %d bytes", mark, described.kind, size)


class LoggedOutbox(SocketOutbox):
    """An outbox that writes a line for each frame that it sends."""

    __slots__ = ("_wire",)

    def __init__(self, transport: asyncio.Transport, mark: int, pacer: Pacer, wire: WireLog) -> None:
        super().__init__(transport, mark, pacer)
        self._wire = wire

    def _find_direct(self) -> None:
        """Return None: each frame has its line."""

    def write(self, data: bytes) -> int:
        """Write finished frames, with a line for each."""
        if not self.closing:
            self._wire.sent(data)
        return super().write(data)

    def write_long(self, frame: LongFrame) -> int:
        """Write a frame that is put together as it leaves, with a line for it."""
        if not self.closing:
            self._wire.begun(frame)
        return super().write_long(frame)

    def fill(self, size: int) -> None:
        """Write what the client does not see, with one line for all of it."""
        self._wire.filled(size)
        super().fill(size)

    def _write_close(self, code: CloseCode | None) -> None:
        self._wire.closed(code)
        super()._write_close(code)


def split_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split what a server writes, whole unmasked frames behind each other, into opcodes with FIN and payloads."""
    pos = 0
    while pos < len(data):
        opcode, size = data[pos], data[pos + 1]
        pos += 2
        if size > 125:
            wide = 2 if size == 126 else 8
            size = int.from_bytes(data[pos : pos + wide])
            pos += wide
        yield opcode, data[pos : pos + size]
        pos += size
