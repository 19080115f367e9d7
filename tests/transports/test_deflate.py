"""permessage-deflate: agreed to where it is safe, large frames compressed once, and nothing unpacked past its bound."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from collab.app import create_app
from collab.settings import Settings
from collab.transports.sockets import deflate as module
from collab.transports.sockets.deflate import RESPONSE, Deflater, accepts, deflate_frame, is_old_safari
from collab.transports.sockets.frames import binary_frame, is_one_binary_frame, payload_of, ping_frame
from tests.support import wsclient
from tests.support.blocking import BlockingWebSocket

MAX_MESSAGE = 1_000_000
LARGE = "lorem ipsum " * 20_000


@pytest_asyncio.fixture(params=["large"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    settings = Settings(data_dir=tmp_path, insecure=True, compression=request.param, max_message_bytes=MAX_MESSAGE)
    server = TestServer(create_app(settings), host="127.0.0.1")
    await server.start_server()
    yield f"ws://127.0.0.1:{server.port}/ws/d"
    await server.close()


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff")


@pytest.mark.parametrize(
    ("offers", "taken"),
    [
        ("permessage-deflate; client_max_window_bits", True),
        ("permessage-deflate", True),
        ("x-webkit-deflate-frame, permessage-deflate ; server_no_context_takeover", True),
        ("permessage-deflate; client_max_window_bits=10; client_no_context_takeover", True),
        ("permessage-deflate; server_max_window_bits=10", False),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", False),
        ("permessage-deflate; something_else", False),
        ("x-webkit-deflate-frame", False),
        ("", False),
        (None, False),
    ],
)
def test_an_offer_is_taken_if_it_needs_no_smaller_window(offers: str | None, taken: bool) -> None:
    assert accepts(offers) is taken


MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 15_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
LINUX = "Mozilla/5.0 (X11; Linux x86_64"


@pytest.mark.parametrize(
    ("agent", "old"),
    [
        (MAC + "Version/15.6 Safari/605.1.15", True),
        (MAC + "Version/16.0 Safari/605.1.15", False),
        (IPHONE + "Version/15.6 Mobile/15E148 Safari/604.1", True),
        (IPHONE + "CriOS/104.0 Mobile/15E148 Safari/604.1", True),
        (IPAD + "CriOS/104.0 Mobile/15E148 Safari/604.1", False),
        (LINUX + ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36", False),
        (LINUX + "; rv:120.0) Gecko/20100101 Firefox/120.0", False),
        ("", False),
    ],
)
def test_safari_before_16_gets_nothing_compressed(agent: str, old: bool) -> None:
    assert is_old_safari(agent) is old
    assert Deflater().trusts("192.0.2.1", agent) is not old


def test_a_compressed_frame_is_one_that_stands_for_itself() -> None:
    for size in (10, 1_000, 200_000):
        payload = b"lorem ipsum " * size
        frame = deflate_frame(binary_frame(payload))
        assert frame[0] == 0xC2 and inflate(bytes(payload_of(frame))) == payload
        assert len(frame) < len(payload) / 2 or size == 10
        assert not is_one_binary_frame(frame)
    noise = binary_frame(os.urandom(20_000))
    assert deflate_frame(noise) is noise, "what grows no smaller is sent as it is"
    assert is_one_binary_frame(noise) and not is_one_binary_frame(noise + noise)
    assert not is_one_binary_frame(ping_frame(b"1234"))


async def test_a_frame_is_compressed_once_for_all_who_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deflater = Deflater()
    frames = [binary_frame(b"lorem ipsum " * 30_000 + b"%d" % number) for number in range(20)]
    first = deflater.compress(frames[0])
    assert not first.done() and deflater.compress(frames[0]) is first
    assert await first == deflate_frame(frames[0]) and deflater.compress(frames[0]) is first
    small = deflater.compress(binary_frame(b"x" * 10_000))
    assert small.done()
    for frame in frames:
        await deflater.compress(frame)
    assert len(deflater._kept) == 16
    monkeypatch.setattr(module, "_KEPT_BYTES", 1)
    await deflater.compress(frames[0])
    assert len(deflater._kept) == 1
    deflater.forget()
    assert not deflater._kept
    for number in range(10_001):
        deflater.distrust(f"address {number}", "agent")
    assert deflater.trusts("address 0", "agent") and not deflater.trusts("address 1", "agent")
    deflater.close()


async def test_large_frames_are_compressed_for_those_who_agree_and_order_is_kept(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        plain = await session.ws_connect(url)
        packed = await session.ws_connect(url, compress=15)
        assert not plain.compress and packed.compress == 15
        assert packed._response.headers["Sec-WebSocket-Extensions"] == RESPONSE
        for socket in (plain, packed):
            await socket.send_bytes(wsclient.step2(wsclient.EMPTY_UPDATE))
            await socket.receive_bytes()
        updates = [wsclient.text_update(number, text) for number, text in enumerate((LARGE, "a", LARGE + "b", "c"), 1)]
        for update in updates:
            await packed.send_bytes(wsclient.update(update))
            await asyncio.sleep(0.01)
        for socket in (plain, packed):
            reader = wsclient.LiveClient("")
            while len(str(reader.text())) < 2 * len(LARGE) + 3:
                frame = await asyncio.wait_for(socket.receive_bytes(), 20)
                if frame[0] == wsclient.SYNC:
                    reader.doc.apply_update(wsclient.parse(frame).payload)
        await plain.close()
        await packed.close()


@pytest.mark.parametrize("url", ["off"], indirect=True)
async def test_nothing_is_agreed_to_where_it_is_switched_off(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15) as socket:
        assert not socket.compress


def offered(port: int) -> BlockingWebSocket:
    return BlockingWebSocket(port, "/ws/d", "Sec-WebSocket-Extensions: permessage-deflate\r\n")


def masked(payload: bytes) -> bytes:
    """A compressed binary frame of a client, masked with zeros."""
    return b"\xc2\xff" + len(payload).to_bytes(8) + bytes(4) + payload


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\xff" * 50, 1002), (zlib.compress(bytes(50_000_000), 9)[2:-4], 1009)],
    ids=["garbage", "a bomb"],
)
async def test_what_a_message_may_become_is_bounded_before_it_is_unpacked(url: str, payload: bytes, code: int) -> None:
    port = int(url.split(":")[2].split("/")[0])

    def send() -> int:
        socket = offered(port)
        socket.write(masked(payload))
        code = socket.read_close()
        socket.cut()
        return code

    assert await asyncio.to_thread(send) == code


async def test_a_client_that_could_not_read_a_compressed_frame_gets_no_more(url: str) -> None:
    async with aiohttp.ClientSession(headers={"User-Agent": "strange"}) as session:
        async with session.ws_connect(url, compress=15) as socket:
            assert socket.compress
            await socket.close(code=1002)
        async with session.ws_connect(url, compress=15) as socket:
            assert socket.compress, "it had got none"
            await socket.send_bytes(wsclient.step2(wsclient.EMPTY_UPDATE))
            await socket.send_bytes(wsclient.update(wsclient.text_update(1, LARGE)))
            while len(await asyncio.wait_for(socket.receive_bytes(), 20)) < len(LARGE):
                pass
            await socket.close(code=1002)

        async def declined() -> bool:
            async with session.ws_connect(url, compress=15) as socket:
                return not socket.compress

        async with asyncio.timeout(10):
            while not await declined():  # noqa: ASYNC110 - the server learns of the close a moment later
                await asyncio.sleep(0.02)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15) as socket:
        assert socket.compress, "another one"
