"""``collab doctor --url`` through proxies that are wrong in one thing each, before a real server."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from collab.doctor.findings import Finding, State
from collab.doctor.public import look_from_outside
from tests.auth.makers import SECRET
from tests.doctor.certificates import Authority
from tests.support.server import ServerProcess

pytestmark = pytest.mark.server

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    secret = {"COLLAB_JWT_SECRET": SECRET}
    with ServerProcess(tmp_path_factory.mktemp("server"), environment=secret) as started:
        yield started


class Proxy:
    """Passes bytes on; the head of each request is changed first, and bytes of the server may be kept back.

    Args:
        port: of the server.
        head: changes the head of a request; an answer that begins with ``HTTP/`` is given in place of the server's.
        keeps: whether what follows the answer to an upgrade is kept back.
    """

    def __init__(self, port: int, head: Change = lambda head: head, *, keeps: bool = False) -> None:
        self._port, self._head, self._keeps = port, head, keeps

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down: asyncio.StreamWriter | None = None
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade" not in asked.lower():  # one request for each connection
                asked = asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            head = self._head(asked)
            if head.startswith(b"HTTP/"):
                writer.write(head)
                return
            up, down = await asyncio.open_connection("127.0.0.1", self._port)
            down.write(head)
            answer = await up.readuntil(b"\r\n\r\n")
            writer.write(answer)
            back = _keep(up) if self._keeps and b" 101 " in answer else _pump(up, writer)
            await asyncio.wait(
                [asyncio.create_task(_pump(reader, down)), asyncio.create_task(back)],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, down):
                if each is not None:
                    each.close()


async def _keep(reader: asyncio.StreamReader) -> None:
    while await reader.read(65_536):
        pass


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        await handle(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if served:
            await asyncio.wait(served, timeout=30)


async def look(url: str, clock: Callable[[], float] = time.time) -> dict[str, Finding]:
    return {finding.check: finding async for finding in look_from_outside(url, clock)}


def without(name: bytes) -> Change:
    def change(head: bytes) -> bytes:
        return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(name + b":"))

    return change


def with_host(name: bytes) -> Change:
    def change(head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        return b"\r\n".join(b"Host: " + name if line.lower().startswith(b"host:") else line for line in lines)

    return change


def answering(text: bytes, where: bytes = b"") -> Change:
    return lambda head: text if where in head.partition(b"\r\n")[0] else head


async def test_a_good_proxy_and_a_server_without_one_are_well(server: ServerProcess) -> None:
    async with listening(Proxy(server.port)) as port:
        for address in (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{server.port}/"):
            found = await look(address)
            assert [(each, finding.state) for each, finding in found.items()] == [
                ("request", State.OK),
                ("WebSocket", State.OK),
            ], found


@pytest.mark.parametrize(
    ("head", "check", "text", "advice"),
    [
        (without(b"upgrade"), "WebSocket", "takes the header Upgrade away", "by HTTP/1.1"),
        (answering(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", b"hocus"), "WebSocket", "leads nowhere", "/ws/"),
        (answering(b"HTTP/1.1 502 x\r\nContent-Length: 0\r\n\r\n"), "request", "does not reach", "address"),
        (answering(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"), "request", "not as collab does", "path"),
        (answering(b"HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nhello"), "request", "not as collab does", "path"),
        (answering(b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n"), "request", "wants a sign-in", "tokens"),
        (
            answering(b"HTTP/1.1 301 x\r\nLocation: https://b\r\nContent-Length: 0\r\n\r\n"),
            "request",
            "sends elsewhere: https://b",
            "give that address",
        ),
        (with_host(b"inside"), "WebSocket", "closed with 4403", "keep Host"),
    ],
)
async def test_what_a_proxy_does_wrong_is_named(
    server: ServerProcess, head: Change, check: str, text: str, advice: str
) -> None:
    async with listening(Proxy(server.port, head)) as port:
        found = await look(f"http://127.0.0.1:{port}")
    assert found[check].state is State.FAILED and text in found[check].text, found
    assert advice in found[check].advice
    assert (check == "WebSocket") == ("request" in found and found["request"].state is State.OK)


async def test_bytes_that_are_kept_back_are_named(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.doctor.public._PONG_SECONDS", 0.5)
    async with listening(Proxy(server.port, keeps=True)) as port:
        found = await look(f"http://127.0.0.1:{port}")
    assert "bytes are kept back" in found["WebSocket"].text and "buffering" in found["WebSocket"].advice


async def test_a_clock_that_is_wrong_is_named(server: ServerProcess) -> None:
    found = await look(server.url, lambda: time.time() - 3_600)
    assert found["clock"].state is State.WARNING and "3600 s" in found["clock"].text.replace("3599", "3600")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("collab.example", "is no address"),
        ("https://does-not-exist.invalid", "cannot be looked up"),
        ("http://127.0.0.1:1", "Connect"),
    ],
)
async def test_an_address_that_leads_nowhere_is_named(url: str, text: str) -> None:
    (finding,) = (await look(url)).values()
    assert finding.check == "address" and text in finding.text, finding
    assert finding.advice


@pytest.mark.parametrize(
    ("name", "days", "trusted", "text"),
    [
        ("127.0.0.1", 90, True, ""),
        ("another.example", 90, True, "not for 127.0.0.1"),
        ("127.0.0.1", -1, True, "has run out"),
        ("127.0.0.1", 90, False, "nobody who is trusted here"),
    ],
)
async def test_a_certificate_that_browsers_refuse_is_named(
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    days: float,
    trusted: bool,
    text: str,
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue(name, days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if trusted:
        # What SSL_CERT_FILE does before the program starts.
        made = ssl.create_default_context(cafile=str(authority.cert))
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", made)
    async with listening(Proxy(server.port), context) as port:
        found = await look(f"https://127.0.0.1:{port}")
        assert ("TLS" in found) == bool(text), found
        if text:
            assert found["TLS"].state is State.FAILED and text in found["TLS"].text and found["TLS"].advice
        else:
            # The server sees neither https nor the proxy's name: this one keeps Host and says nothing of TLS.
            assert found["request"].state is State.OK
        plain = await look(f"http://127.0.0.1:{port}")
        assert plain["address"].state is State.FAILED
    no_tls = await look(f"https://127.0.0.1:{server.port}")
    assert "no TLS at this port" in no_tls["TLS"].text
