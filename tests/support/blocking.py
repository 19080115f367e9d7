"""A WebSocket client of blocking sockets, which leaves nothing in memory that a test could take for the server's.

Strategy: a test that counts what a server in its own process leaves behind cannot use a client that is made of the
same library. This one is driven from a thread and keeps a socket and some bytes; nothing in it is cyclic. Whatever
has to happen before a test may go on is waited for by reading, so that no step depends on time.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
from collections.abc import Callable

# A fact that does not come within this time does not come.
PATIENCE = 30.0

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


class BlockingSocket:
    """A TCP connection to this machine."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more comes, as a client that still reads."""
        self.socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End the connection with a reset, which the server sees at once, whatever it still has to write."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_to_the_end(self) -> bytes:
        """Read until the server has closed; close too, and return what came."""
        read = self._rest
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65_536):
                read += data
        self.socket.close()
        return read

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            try:
                data = self.socket.recv(65_536)
            except BaseException:
                self.socket.close()
                raise
            if not data:
                self.socket.close()
                raise EOFError
            self._rest += data
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


class BlockingWebSocket(BlockingSocket):
    """A WebSocket; nothing is answered by itself."""

    def __init__(self, port: int, path: str, headers: str = "") -> None:
        """Open it; ``headers`` are further lines of the request, each with its line end."""
        super().__init__(port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def send(self, *messages: bytes) -> None:
        """Send binary messages in one write."""
        self.write(b"".join(_frame(_BINARY, message) for message in messages))

    def send_text(self, text: str) -> None:
        self.write(_frame(_TEXT, text.encode()))

    def ping(self) -> None:
        """Send a ping and wait for its pong, which comes behind all that the server had to say before."""
        self.write(_frame(_PING, b"?"))
        while self._receive() != (_PONG, b"?"):
            pass

    def read_until(self, accept: Callable[[bytes], object]) -> bytes:
        """Read binary messages until one is accepted, and return it."""
        while True:
            kind, data = self._receive()
            if kind == _CLOSE:
                self.socket.close()
                raise AssertionError(f"closed with {data!r} instead")
            if kind == _BINARY and accept(data):
                return data

    def read_close(self) -> int:
        """Read until the server's close frame and return its code."""
        while True:
            kind, data = self._receive()
            if kind == _CLOSE:
                return int.from_bytes(data[:2], "big")

    def close(self) -> None:
        """Close as a client does that is left: with a close frame, which is answered."""
        self.write(_frame(_CLOSE, struct.pack("!H", 1000)))
        assert self.read_close() == 1000
        self.read_to_the_end()

    def be_closed(self) -> int:
        """Answer the server's close frame, read to the end and return the code."""
        code = self.read_close()
        with contextlib.suppress(ConnectionError):
            self.write(_frame(_CLOSE, struct.pack("!H", code)))
        self.read_to_the_end()
        return code

    def _receive(self) -> tuple[int, bytes]:
        first, size = self._exactly(2)
        if size == 126:
            size = int.from_bytes(self._exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self._exactly(8), "big")
        return first & 0x0F, self._exactly(size)


def _frame(kind: int, data: bytes) -> bytes:
    """Make a frame as clients do, under a mask of zeros."""
    if len(data) < 126:
        size = bytes((0x80 | len(data),))
    elif len(data) < 65_536:
        size = b"\xfe" + struct.pack("!H", len(data))
    else:
        size = b"\xff" + struct.pack("!Q", len(data))
    return bytes((0x80 | kind,)) + size + bytes(4) + data
