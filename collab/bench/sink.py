"""A server that does nothing but fan out, to find the generator's own ceiling.

Strategy: one asyncio Protocol. Each client's first step 1 is answered with the empty document; from then
on every data frame is unmasked by dropping its (zero) key, and what came for a room within two
milliseconds is written to each of its clients in one piece. Nothing is read, merged or kept. Run as
``python -m collab.bench.sink``; prints ``listening on ws://HOST:PORT`` and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections import defaultdict
from typing import cast

import uvloop

from collab.protocol.sync import EMPTY_UPDATE, STEP1, SyncStep2
from collab.protocol.ywebsocket import codec

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# One write a client and two milliseconds: the sink must be cheaper than what it measures.
_GATHER = 0.002
_BINARY, _CLOSE = 0x82, 0x88
_STEP_1 = bytes((codec.SYNC, STEP1))
_STEP_2 = codec.encode(SyncStep2(EMPTY_UPDATE))
_EMPTY_STEP_2 = bytes((_BINARY, len(_STEP_2))) + _STEP_2


class Room:
    """The clients of one document, and what is about to be written to all of them."""

    def __init__(self) -> None:
        self.clients: set[Sink] = set()
        self.gathered: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Take a whole frame for everybody."""
        if not self.gathered:
            asyncio.get_running_loop().call_later(_GATHER, self.flush)
        self.gathered.append(piece)

    def flush(self) -> None:
        """Write what has gathered to every client, in one piece."""
        whole = b"".join(self.gathered)
        self.gathered.clear()
        for client in self.clients:
            client.transport.write(whole)


class Sink(asyncio.Protocol):
    """One client's socket; ``rooms`` makes the room of a document that is asked for first."""

    transport: asyncio.Transport

    def __init__(self, rooms: defaultdict[bytes, Room]) -> None:
        self._rooms = rooms
        self._room: Room | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._room is not None:
            self._room.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if self._room is None:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            self._upgrade(data[:end])
            data = data[end + 4 :]
        pos, size = 0, len(data)
        while size - pos >= 8:
            length = data[pos + 1] & 127
            if length > 125:  # a bench run sends nothing so long
                self.transport.abort()
                return
            stop = pos + 6 + length
            if stop > size:
                break
            self._handle(data[pos], data[pos + 6 : stop])
            pos = stop
        self._rest = data[pos:]

    def _handle(self, opcode: int, payload: bytes) -> None:
        assert self._room is not None
        if opcode == _CLOSE:
            self.transport.close()
        elif opcode == _BINARY and payload[:2] == _STEP_1:
            self.transport.write(_EMPTY_STEP_2)
            self._room.clients.add(self)
        elif opcode == _BINARY:
            self._room.add(bytes((_BINARY, len(payload))) + payload)

    def _upgrade(self, head: bytes) -> None:
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        name = head.split(b" ", 2)[1]
        self._room = self._rooms[name]
        accept = base64.b64encode(hashlib.sha1((key[1] if key else b"") + _GUID, usedforsecurity=False).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


async def serve() -> None:
    """Serve on a free port of 127.0.0.1 until cancelled."""
    rooms: defaultdict[bytes, Room] = defaultdict(Room)
    server = await asyncio.get_running_loop().create_server(lambda: Sink(rooms), "127.0.0.1", 0, backlog=1024)
    print(f"listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
