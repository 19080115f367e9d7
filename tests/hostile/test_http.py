"""HTTP requests and connections that are no proper WebSocket: refused plainly, and nobody else notices."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.hostile.ward import Ward
from tests.support.handshake import UPGRADE
from tests.support.raw_http import request
from tests.support.server import ServerProcess
from tests.support.wsclient import EMPTY_UPDATE, STEP1, RawClient, step2, text_update, update, varuint


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/ws/name", "/healthz", "/readyz", "/"])
async def test_a_wrong_method_is_refused(server: ServerProcess, method: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, server.url + path) as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("missing", UPGRADE)
async def test_an_upgrade_without_its_headers_is_refused(ward: Ward, missing: str) -> None:
    headers = {key: value for key, value in UPGRADE.items() if key != missing}
    url = ward.server.url + "/ws/name"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert 400 <= response.status < 500
        assert "Traceback" not in await response.text()


@pytest.mark.parametrize(
    "headers", [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "short"}, {"Upgrade": "h2c"}]
)
async def test_an_upgrade_with_wrong_headers_is_refused(ward: Ward, headers: dict[str, str]) -> None:
    url = ward.server.url + "/ws/name"
    async with aiohttp.ClientSession() as session, session.get(url, headers=UPGRADE | headers) as response:
        assert 400 <= response.status < 500


@pytest.mark.parametrize("path", ["/ws", "/nothing", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/healthz/x"])
async def test_an_unknown_path_is_not_found(server: ServerProcess, path: str) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    status = (await reader.read()).split(b" ", 2)[1]
    writer.close()
    await writer.wait_closed()
    assert status in (b"404", b"403", b"400")


@pytest.mark.parametrize(
    "name", ["", "x" * 513, "ä" * 257, "%FF%FE", "a%00b", "%"], ids=["empty", "513", "514", "latin", "nul", "percent"]
)
async def test_a_name_that_is_none_is_refused_for_good(ward: Ward, name: str) -> None:
    """The socket is opened and closed with 4400: a refused upgrade would look like a lost network."""
    reader, writer = await asyncio.open_connection(ward.server.host, ward.server.port)
    lines = [f"GET /ws/{name} HTTP/1.1", "Host: x", *(f"{key}: {value}" for key, value in UPGRADE.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    if name == "%":
        # A percent sign with nothing behind it stands for itself, or is no request at all.
        assert head.split(b" ", 2)[1] in (b"101", b"400")
    elif head.split(b" ", 2)[1] == b"101":
        close = await reader.readexactly(4)
        assert close[0] == 0x88
        assert int.from_bytes(close[2:4], "big") == 4400
    else:
        # What is not even a request target (raw bytes in it) is refused by the HTTP parser.
        assert head.split(b" ", 2)[1] == b"400"
        assert name == "ä" * 257
    writer.close()
    await writer.wait_closed()


async def test_a_name_of_512_bytes_is_a_name(server: ServerProcess) -> None:
    for name in ("x" * 512, "ä" * 256, "/"):
        async with RawClient(server.document_url(name)) as client:
            await client.expect_sync(STEP1)


async def test_a_client_that_vanishes_in_the_middle_of_a_frame_is_forgotten(ward: Ward) -> None:
    data = update(text_update(5, "never finished"))
    for cut in (1, 2, 5, 8, len(data)):
        # Header of a masked binary frame of that length, and only some of it.
        frame = bytes([0x82, 0x80 | len(data)]) + b"\x00\x00\x00\x00" + data
        bad = await RawClient(ward.url).connect()
        await bad.expect_sync(STEP1)
        bad.cut(frame[:cut])
        await bad.vanish()
    await ward.check_untouched()


async def test_a_client_that_vanishes_in_the_middle_of_everything_is_forgotten(ward: Ward) -> None:
    for i in range(30):
        bad = await RawClient(ward.url).connect()
        if i % 3:
            await bad.expect_sync(STEP1)
        if i % 3 == 2:
            await bad.send(step2(EMPTY_UPDATE))
            await bad.send(b"\x01" + b"\x09\x01" + varuint(1000 + i) + b"\x01\x04" + b'"me"')
        await bad.vanish()
    await ward.check_untouched()
    # Nobody is left behind in the list of those present.
    async with RawClient(ward.url) as newcomer:
        await newcomer.send(b"\x03")
        await newcomer.barrier()
        assert not any(b'"me"' in frame for frame in newcomer.frames)


@pytest.mark.parametrize(
    ("frame", "codes"),
    [
        pytest.param(bytes([0xF2, 0x80, 0, 0, 0, 0]), (1002, 1006), id="reserved bits"),
        pytest.param(bytes([0x8B, 0x80, 0, 0, 0, 0]), (1002, 1003, 1006), id="unknown opcode"),
        pytest.param(bytes([0x09, 0x80, 0, 0, 0, 0]), (1002, 1006), id="fragmented ping"),
        pytest.param(bytes([0x82, 3, 0, 0, 1]) + b"\0", (1002,), id="unmasked"),
        pytest.param(bytes([0x82, 126, 1, 0]) + b"\3" * 256, (1002,), id="unmasked, longer"),
        pytest.param(bytes([0x89, 0]), (1002,), id="unmasked ping"),
        pytest.param(bytes([0x82, 0xFF]) + b"\x7f" + b"\xff" * 7 + b"\0" * 4, (1009, 1002, 1006), id="2^63 bytes"),
    ],
)
async def test_a_broken_websocket_frame_ends_that_connection(ward: Ward, frame: bytes, codes: tuple[int, ...]) -> None:
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        bad.cut(frame)
        assert await bad.expect_close() in codes
    await ward.check_untouched()
    async with RawClient(ward.server.hocuspocus_url) as bad:
        bad.cut(frame)
        assert await bad.expect_close() in codes


async def test_a_request_that_is_no_http_is_refused(server: ServerProcess) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELO there\r\n\r\n", b"\x00" * 64 + b"\r\n\r\n"):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(garbage)
        writer.write_eof()
        answer = await reader.read()
        assert answer == b"" or answer.split(b" ", 2)[1] == b"400"
        writer.close()
        await writer.wait_closed()
    assert server.running


async def test_requests_that_are_none_cannot_flood_the_log(server: ServerProcess) -> None:
    bad_request = b"GET /ws/\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n"
    upgrade = b"GET /ws/gone HTTP/1.1\r\nHost: x\r\n" + b"".join(
        f"{key}: {value}\r\n".encode() for key, value in UPGRADE.items()
    )
    lines = len(server.log_lines)
    for sent in [bad_request] * 60 + [upgrade + b"\r\n"] * 60:
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(sent)
        await writer.drain()
        # Reset, not closed: the server meets a dead connection in the middle of its handshake.
        writer.transport.abort()
    # All of them were handled when one that came after them is, and its socket is greeted.
    async with RawClient(server.document_url("after the flood")) as client:
        await client.expect_sync(STEP1)
    fresh = server.log_lines[lines:]
    assert len(fresh) <= 30, fresh[:40]
    assert not any("Traceback" in line for line in fresh)


COOKIES = "Cookie: " + "; ".join(f"session{number}={'x' * 990}" for number in range(15))
"""What a browser sends to an address on which many programs have left something: 15 KB in one line."""


async def _status(server: ServerProcess, raw: str) -> int:
    return (await request(server.host, server.port, raw)).status


@pytest.mark.parametrize("path", ["/ws/cookies", "/hocuspocus", "/healthz", "/api/v1/documents"])
async def test_a_line_of_15_kilobytes_is_taken(server: ServerProcess, path: str) -> None:
    lines = ["Host: localhost"]
    if path in ("/ws/cookies", "/hocuspocus"):
        lines += [f"{key}: {value}" for key, value in UPGRADE.items()]
    good = 101 if len(lines) > 1 else 200
    for target, cookies in ((path, [COOKIES]), (f"{path}?token={'x' * 15_000}", [])):
        assert await _status(server, "\r\n".join([f"GET {target} HTTP/1.1", *lines, *cookies, "", ""])) == good, target


@pytest.mark.parametrize("again", [False, True], ids=["the first request", "a later one"])
async def test_a_head_has_bounds(ward: Ward, again: bool) -> None:
    """Of a line, and of all lines together: on a connection that has had an answer too."""
    reader, writer = await asyncio.open_connection(ward.server.host, ward.server.port)

    async def answered() -> int:
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        await reader.readexactly(int(length.split(b":")[1]))
        return int(head.split(b" ")[1])

    if again:
        body = b" " * 10_000 + b'{"name": "heads"}'
        head = "POST /api/v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert await answered() == 201
    for number in range(4):
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{COOKIES}\r\nX: {'x' * 15_000}\r\n\r\n".encode())
        assert await answered() == 200, number
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + f"X: {'x' * 15_000}\r\n".encode() * 5)
    assert await answered() == 431
    assert await reader.read() == b"", "and it is closed"
    writer.close()
    assert await _status(ward.server, f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 17_000}\r\n\r\n") == 400
    await ward.check_untouched()
