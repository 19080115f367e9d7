"""What a client can send for ever, over WebSockets and over HTTP, and what those who edit notice of it.

    python -m tests.hostile.endless [--sockets 3] [--seconds 5] [NAME ...]

Strategy: a server with a secret, two clients in one document, and beside them a process that sends one of these on some
sockets as fast as it can. Each row has the 99th percentile of the time from an edit to its arrival at the other client
before, meanwhile and afterwards, and what of its core the server used and how much memory it had. The tests of the same
attacks are in test_limits.py and test_http.py: there no time is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import secrets
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

import jwt
import psutil

from tests.support.handshake import upgrade
from tests.support.server import ServerProcess
from tests.support.wsclient import EMPTY_UPDATE, STEP1, RawClient, step2, text_update, update

SECRET = secrets.token_hex(32)

PART = 256 * 1024
"""Bytes that are written at once: what the server reads at once."""


def frame(first: int, payload: bytes, size: int | None = None) -> bytes:
    """Frame as a client does, under a mask of zeros; ``size`` announces more than there is."""
    size = len(payload) if size is None else size
    if size < 126:
        head = bytes((0x80 | size,))
    elif size < 65_536:
        head = b"\xfe" + struct.pack("!H", size)
    else:
        head = b"\xff" + struct.pack("!Q", size)
    return bytes((first,)) + head + bytes(4) + payload


_BEGUN = frame(0x02, b"\0\2")

ENDLESS = {
    "empty fragments": (_BEGUN, frame(0x00, b"")),
    "fragments of one byte": (_BEGUN, frame(0x00, b"x")),
    "fragments of 900 bytes": (_BEGUN, frame(0x00, b"x" * 900)),
    "large fragments": (_BEGUN, frame(0x00, b"x" * 65_536)),
    "control frames between": (_BEGUN, frame(0x00, b"") + frame(0x89, b"") + frame(0x8A, b"x" * 100)),
    "a text": (frame(0x01, b"ab"), frame(0x00, b"x")),
    "pings": (b"", frame(0x89, b"")),
    "messages of one byte": (b"", frame(0x82, b"\3")),
}
"""On a WebSocket: what is sent first, and what again and again."""

POST = b"POST /api/v1/documents HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

HTTP = {
    "chunks of one byte": (POST + _CHUNKED, b"1\r\nx\r\n"),
    "chunks of one byte that nobody wants": (_GET + _CHUNKED, b"1\r\nx\r\n"),
    "chunks with extensions": (_GET + _CHUNKED, b"1;" + b"e" * 60 + b"\r\nx\r\n"),
    "a body of 100 GB": (POST + b"Content-Length: 100000000000\r\n\r\n", b"x" * 1_024),
    "pipelined requests": (b"", _GET + b"\r\n"),
    "empty lines": (b"", b"\r\n"),
    "headers": (_GET, b"X: x\r\n"),
}
"""The same on a connection that is no WebSocket."""

_WARM_UP = 0.5


def token(user: str) -> str:
    claims = {"sub": user, "documents": {"*": "write"}, "exp": int(time.time()) + 3_600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def attack(port: int, first: bytes, again: bytes, sockets: int, seconds: float, begun: Event) -> None:
    """Send ``first`` and then ``again`` for so long on so many sockets, and anew where the server has ended one."""
    until = time.monotonic() + seconds
    block = again * (PART // len(again))

    def read(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(PART):
                pass

    def run() -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
                connection.settimeout(until - time.monotonic())
                connection.sendall(first)
                threading.Thread(target=read, args=(connection,), daemon=True).start()
                while time.monotonic() < until:
                    connection.sendall(block)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(sockets)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join(seconds + 1)


class Pair:
    """Two clients of one document, one of which types."""

    def __init__(self, server: ServerProcess) -> None:
        url = f"{server.document_url('calm')}?token={token('ada')}"
        self._typist, self._reader = RawClient(url), RawClient(url)
        self._strokes = 0

    async def connect(self) -> None:
        for client in (self._typist, self._reader):
            await client.connect()
            await client.expect_sync(STEP1)
            await client.send(step2(EMPTY_UPDATE))
            await client.barrier()

    async def close(self) -> None:
        await self._typist.close()
        await self._reader.close()

    async def p99(self, seconds: float) -> float:
        """Type for so long, a key after the other has arrived; return the 99th percentile in milliseconds."""
        loop_time = asyncio.get_running_loop().time
        found, until = [], loop_time() + seconds
        while loop_time() < until:
            self._strokes += 1
            edit = update(text_update(self._strokes, "x"))
            seen, began = len(self._reader.frames), loop_time()
            await self._typist.send(edit)
            await self._reader.until(lambda seen=seen: len(self._reader.frames) > seen, "an edit")  # type: ignore[misc]
            found.append((loop_time() - began) * 1_000)
            await asyncio.sleep(0.01)
        self._typist.frames.clear()
        self._reader.frames.clear()
        return sorted(found)[int(len(found) * 0.99)]


async def measure(server: ServerProcess, names: Sequence[str], sockets: int, seconds: float) -> None:
    """Print a row for each attack."""
    process, spawn = psutil.Process(server.pid), multiprocessing.get_context("spawn")
    pair = Pair(server)
    await pair.connect()
    print(f"{'':40}{'p99 ms: before':>16}{'meanwhile':>11}{'after':>8}{'CPU':>7}{'MiB':>6}")
    for name in names:
        first, again = (ENDLESS | HTTP)[name]
        if name in ENDLESS:
            first = upgrade(f"/ws/attacked?token={token('attacked')}") + first
        before = await pair.p99(seconds / 2)
        begun = spawn.Event()
        attacker = spawn.Process(target=attack, args=(server.port, first, again, sockets, seconds + _WARM_UP, begun))
        attacker.start()
        await asyncio.to_thread(begun.wait)
        await asyncio.sleep(_WARM_UP)
        used, since = process.cpu_times(), time.monotonic()
        meanwhile = await pair.p99(seconds)
        now = process.cpu_times()
        share = (now.user + now.system - used.user - used.system) / (time.monotonic() - since)
        memory = process.memory_info().rss >> 20
        await asyncio.to_thread(attacker.join)
        after = await pair.p99(seconds / 2)
        print(f"{name:40}{before:16.1f}{meanwhile:11.1f}{after:8.1f}{share:7.0%}{memory:6}", flush=True)
    await pair.close()


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.endless", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *ENDLESS, *HTTP], metavar="NAME")
    parser.add_argument("--sockets", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="collab-endless-") as directory,
        ServerProcess(Path(directory), environment={"COLLAB_JWT_SECRET": SECRET}) as server,
    ):
        asyncio.run(measure(server, chosen.names or [*ENDLESS, *HTTP], chosen.sockets, chosen.seconds))


if __name__ == "__main__":
    main()
