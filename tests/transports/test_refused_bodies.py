"""A body that is refused: its sender reads the answer, however it sends, and no reset comes in between.

Strategy: real sockets, and a client that reads only when it has sent everything, as simple clients do. The server must
throw away what still comes (RFC 9112, section 9.6): a socket that is closed with unread bytes resets its
connection, and with that the other end loses what it has not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collab.asgi import create_app
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from tests.support.asgi import ASGI_SERVERS, AsgiServer
from tests.support.server import ServerProcess
from tests.transports.test_tls import make_certificate

pytestmark = [pytest.mark.server, pytest.mark.slow]

MIB = 1 << 20

LIMIT = 64 * 1024

PATHS = {
    "streams": ("POST", "/streams/docs/doc", "application/octet-stream", 413),
    "updates": ("POST", "/api/v1/updates/doc", "application/octet-stream", 413),
    "health": ("GET", "/healthz", "text/plain", 200),
    "unknown": ("POST", "/nothing/here", "text/plain", 404),
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    # Its own machine is not spared its limits there, as nobody is on the network.
    options = ("--insecure", "--max-message-bytes", str(LIMIT), "--max-unauthenticated-bytes", str(LIMIT))
    with ServerProcess(tmp_path_factory.mktemp("server"), *options) as server:
        yield server.port


def head(path: str, size: int | None) -> bytes:
    method, address, media, _ = PATHS[path]
    framing = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    return f"{method} {address} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\n{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def send(
    port: int, first: bytes, parts: Iterator[bytes], pause: float = 0.0, tls: ssl.SSLContext | None = None
) -> bytes:
    """Send everything, then read; give the first line of the answer."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        if tls is not None:
            sock = stack.enter_context(tls.wrap_socket(sock, server_hostname="127.0.0.1"))
        sock.sendall(first)
        for part in parts:
            sock.sendall(part)
            time.sleep(pause)
        answer = b""
        while b"\r\n" not in answer:
            data = sock.recv(65536)
            if not data:
                break
            answer += data
        return answer.split(b"\r\n")[0]


def status(line: bytes) -> int:
    assert line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), line
    return int(line.split()[1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_at_once(port: int, path: str, chunked: bool) -> None:
    size, part = 20 * MIB, bytes(MIB)
    parts = (*(chunk(part) for _ in range(20)), b"0\r\n\r\n") if chunked else (part,) * 20
    assert status(send(port, head(path, None if chunked else size), iter(parts))) == PATHS[path][3]


@pytest.mark.parametrize("path", ["streams", "unknown"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_comes_slowly(port: int, path: str, chunked: bool) -> None:
    """It takes longer than a connection that sends nothing is kept."""
    part = bytes(LIMIT)
    parts = (*(chunk(part) for _ in range(14)), b"0\r\n\r\n") if chunked else (part,) * 14
    assert status(send(port, head(path, None if chunked else 14 * LIMIT), iter(parts), 0.5)) == PATHS[path][3]


def test_chunks_of_one_byte(port: int) -> None:
    parts = (chunk(b"x") * 100_000 for _ in range(20))
    assert status(send(port, head("streams", None), parts)) == 413


def test_a_head_that_is_too_long(port: int) -> None:
    lines = (f"X-{number}: {'x' * 8_000}\r\n".encode() * 20 for number in range(50))
    assert status(send(port, b"GET / HTTP/1.1\r\nHost: x\r\n", lines)) == 431


def test_what_is_no_request(port: int) -> None:
    assert status(send(port, b"\x00\x01\x02\r\n\r\n", iter((bytes(MIB),) * 20))) == 400
    assert status(send(port, head("unknown", None), iter((b"zzz\r\n", *(bytes(MIB),) * 20)))) in (400, 404)


def test_a_connection_goes_on_behind_a_body_whose_end_is_known(port: int) -> None:
    """Also where requests come behind each other without a pause, and some bodies are read and others are not."""
    asked = [("streams", 5 * MIB), ("health", 0), ("unknown", 100), ("streams", LIMIT + 1), ("health", 3)]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        for path, size in asked:
            sock.sendall(head(path, size) + bytes(size))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    found = [int(number) for number in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]
    assert found == [*(PATHS[path][3] for path, _ in asked), 200]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_does_not_come_is_not_waited_for(port: int, chunked: bool) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(head("unknown", None if chunked else MIB) + (b"5\r\nabc" if chunked else b"abc"))
        began, answer = time.monotonic(), b""
        while data := sock.recv(65536):
            answer += data
        assert status(answer.split(b"\r\n")[0]) == 404
        assert 4 < time.monotonic() - began < 20


def test_behind_what_is_no_request_nearly_nothing_is_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(b"\x00\x01\x02\r\n\r\n")
        began = time.monotonic()
        while sock.recv(65536):
            pass
        assert time.monotonic() - began < 4


def test_a_body_that_does_not_end_ends(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(head("unknown", None))
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            while time.monotonic() - began < 60:
                sock.sendall(chunk(bytes(1000)))
                time.sleep(0.1)
        assert 25 < time.monotonic() - began < 50


def test_over_tls(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "server")
    options = ("--insecure", "--tls-cert", str(cert), "--tls-key", str(key), "--max-message-bytes", str(LIMIT))
    tls = ssl.create_default_context(cafile=str(cert))
    with ServerProcess(tmp_path, *options, "--max-unauthenticated-bytes", str(LIMIT)) as server:
        for chunked in (False, True):
            part = bytes(MIB)
            parts = (*(chunk(part) for _ in range(20)), b"0\r\n\r\n") if chunked else (part,) * 20
            first = head("streams", None if chunked else 20 * MIB)
            assert status(send(server.port, first, iter(parts), tls=tls)) == 413


@pytest.mark.parametrize("name", ASGI_SERVERS)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["streams", "unknown"])
async def test_below_an_asgi_server(name: str, path: str, chunked: bool) -> None:
    settings = Settings(insecure=True, max_message_bytes=LIMIT, max_unauthenticated_bytes=LIMIT)
    app = create_app(settings, store=MemoryStore())
    server = AsgiServer(name, app)
    await server.start_server()
    try:
        part = bytes(LIMIT)
        for count, pause in ((320, 0.0), (14, 0.1)):
            parts = (*(chunk(part) for _ in range(count)), b"0\r\n\r\n") if chunked else (part,) * count
            first = head(path, None if chunked else count * LIMIT)
            assert status(await asyncio.to_thread(send, server.port, first, iter(parts), pause)) == PATHS[path][3]
    finally:
        await server.close()
