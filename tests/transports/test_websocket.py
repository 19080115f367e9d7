"""The y-websocket endpoint, over real sockets in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from collab.app import HUB
from collab.hub.room import SLICED
from collab.transports.sockets.eager import EagerWebSocketResponse
from collab.transports.sockets.websocket import _BUDGET_MESSAGES
from tests.support import raw_http
from tests.support.handshake import UPGRADE, upgrade
from tests.support.wsclient import (
    AWARENESS,
    LiveClient,
    RawClient,
    awareness,
    awareness_entries,
    step1,
    step2,
    text_update,
    update,
)
from tests.transports.conftest import Serve, on_every_server

Connect = Callable[[str], Awaitable[RawClient]]


@on_every_server
async def test_the_server_speaks_first_so_that_offline_edits_come_in(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve()).ws("d"))
    assert await client.expect_sync(0) == b"\x00"


@on_every_server
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("plain", "plain"),
        ("notes/%C3%A4%20b", "notes/ä b"),
        ("a%2Fb", "a/b"),
        ("a//b/", "a//b/"),
        ("x?token=secret", "x"),
        ("e" * 512, "e" * 512),
        ("%25", "%"),
    ],
)
async def test_a_name_is_everything_behind_the_prefix(serve: Serve, connect: Connect, path: str, name: str) -> None:
    served = await serve()
    client = await connect(served.ws(path))
    await client.expect_sync(0)
    assert list(served.app[HUB].rooms) == [name]


@on_every_server
@pytest.mark.parametrize("path", ["", "e" * 513, "%FF", "%00", "%C3%A4" * 257, "%20", "%09%E2%80%83"])
async def test_a_bad_name_is_refused_for_good(serve: Serve, connect: Connect, path: str) -> None:
    served = await serve()
    client = await connect(served.ws(path))
    assert await client.expect_close() == 4400
    assert not served.app[HUB].rooms


@on_every_server
async def test_mounted_below_a_prefix_the_name_is_the_same(serve: Serve, connect: Connect) -> None:
    served = await serve(prefix="/pre/fix")
    client = await connect(served.ws("a/b"))
    await client.expect_sync(0)


@on_every_server
async def test_a_burst_in_one_packet_keeps_its_order_beyond_the_budget(serve: Serve) -> None:
    served = await serve()
    async with LiveClient(served.ws("d"), client_id=7) as writer, LiveClient(served.ws("d")) as reader:
        await writer.until_synced()
        await reader.until_synced()
        text = writer.text()
        for n in range(_BUDGET_MESSAGES * 20):
            text += f"{n} "
            if n == _BUDGET_MESSAGES * 10:
                text += "y" * SLICED  # read in slices, while those behind it wait
        await reader.until(lambda: str(reader.text()) == str(text), "everything, in order")


@on_every_server
async def test_small_messages_are_taken_without_waking_the_pump(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[object] = []
    receive = EagerWebSocketResponse.receive

    async def counted(self: EagerWebSocketResponse) -> object:
        message = await receive(self)
        woken.append(message)
        return message

    monkeypatch.setattr(EagerWebSocketResponse, "receive", counted)
    # On a busy machine any message may last long, and the pump is given the next one.
    monkeypatch.setattr("collab.transports.sockets.connection._LONG", 60.0)
    client = await connect((await serve()).ws("d"))
    await client.barrier()  # what comes while the socket is opened is left to the pump
    woken.clear()
    for n in range(1, 6):
        await client.send(awareness((n, 1, "{}")))
        await client.barrier()
    assert not woken
    await client.close()


@on_every_server
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", 1007),
        (b"\x00", 1007),
        (b"\x00\x02\x05abc", 1007),
        (b"\x00\x09\x00", 1007),
        (b"\xff" * 12, 1007),
        (update(text_update(5, "hello")[:-1]), 1007),
        (update(b"\x01\x00\x05\x00\x00"), 1007),
        (b"\x00\x00\x01\xff", 1007),
    ],
)
async def test_what_is_malformed_or_too_much_closes_its_sender_alone(
    serve: Serve, connect: Connect, frame: bytes, code: int
) -> None:
    served = await serve()
    bad = await connect(served.ws("d"))
    await bad.expect_sync(0)
    async with LiveClient(served.ws("d")) as good:
        await good.until_synced()
        await bad.send(frame)
        assert await bad.expect_close() == code
        good.text().insert(0, "unharmed")
        await good.barrier()
        assert good.close_code is None
        assert served.app[HUB].rooms["d"].room.document.size > 10


@on_every_server
async def test_a_text_frame_is_refused(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve()).ws("d"))
    await client.expect_sync(0)
    await client.send_text("hello")
    assert await client.expect_close() == 1003


@on_every_server
async def test_unknown_types_are_ignored(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve()).ws("d"))
    await client.send(b"\x2a\x00\x01\x02")
    await client.send(b"\x02\x00\x00")
    await client.barrier()
    assert client.close_code is None


@on_every_server
async def test_an_edit_over_the_limit_is_4413(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve(max_message_bytes=2_000)).ws("d"))
    await client.expect_sync(0)
    await client.send(step2(text_update(5, "x" * 3_000)))
    assert await client.expect_close() == 4413
    assert client.close_reason == "the message is too large"


@on_every_server
async def test_what_is_no_edit_and_over_the_limit_is_1008(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve(max_unauthenticated_bytes=2_000)).ws("d"))
    await client.expect_sync(0)
    await client.send(step1(bytes(3_000)))
    assert await client.expect_close() == 1008


@on_every_server
async def test_presence_over_the_limit_costs_presence_only(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve(max_unauthenticated_bytes=2_000)).ws("d"))
    await client.expect_sync(0)
    await client.send(awareness((1, 1, "x" * 3_000)), update(text_update(1, "x")))
    await client.expect_sync(2)
    assert client.close_code is None


@on_every_server
async def test_a_frame_that_announces_more_than_there_is_is_1009(serve: Serve, connect: Connect, below: str) -> None:
    client = await connect((await serve()).ws("d"))
    await client.expect_sync(0)
    client.cut(b"\x82\xff" + (1 << 41).to_bytes(8) + bytes(4))
    if below == "hypercorn":
        # It counts the bytes that have come, and not those that are announced: more than its 16 MiB have to come.
        client.cut(bytes((16 << 20) + 1))
    assert await client.expect_close() == 1009


@on_every_server
async def test_silent_clients_are_kept_alive(serve: Serve, connect: Connect) -> None:
    client = await connect((await serve(keepalive_seconds=0.4)).ws("d"))
    frame = await client.expect(lambda frame: frame.type == AWARENESS, "the keepalive")
    assert frame.payload == b"\x00"


@pytest.mark.slow
async def test_who_answers_no_ping_is_cut_off_and_its_presence_with_it(serve: Serve, connect: Connect) -> None:
    served = await serve(ping_seconds=0.5)
    async with aiohttp.ClientSession() as session:
        dead = await session.ws_connect(served.ws("d"), autoping=False)
        await dead.send_bytes(step2(b"\x00\x00"))
        await dead.send_bytes(awareness((77, 1, "{}")))
        watcher = await connect(served.ws("d"))
        await watcher.expect(
            lambda frame: frame.type == AWARENESS and (77, 1, "{}") in awareness_entries(frame.payload), "its state"
        )
        await watcher.expect(
            lambda frame: frame.type == AWARENESS and (77, 1, "null") in awareness_entries(frame.payload), "its end"
        )
        assert watcher.close_code is None, "one that answers pings lives on"
        await dead.close()


@on_every_server
async def test_pings_are_answered(serve: Serve) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(served.ws("d"), autoping=False)
        await socket.ping(b"are you there")
        while (message := await socket.receive(20)).type is not aiohttp.WSMsgType.PONG:
            assert message.type is aiohttp.WSMsgType.BINARY
        assert message.data == b"are you there"
        await socket.close()


async def test_other_methods_and_plain_requests_are_refused_as_http(serve: Serve) -> None:
    served = await serve()
    address = f"{served.url}/ws/d"
    async with aiohttp.ClientSession() as session:
        for method, status in (("POST", 405), ("PUT", 405), ("HEAD", 405), ("GET", 400)):
            async with session.request(method, address) as response:
                assert response.status == status, method
        headers = {name: value for name, value in UPGRADE.items() if name != "Sec-WebSocket-Key"}
        async with session.get(address, headers=headers) as response:
            assert response.status == 400, "no key"
    assert not served.app[HUB].rooms


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", "h2c"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "12"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ\xe4="),
    ],
)
async def test_a_handshake_that_is_none_is_refused_as_http(serve: Serve, name: str, value: str) -> None:
    served = await serve()
    lines = [f"{one}: {other}\r\n" for one, other in {**UPGRADE, name: value}.items()]
    raw = "".join(("GET /ws/d HTTP/1.1\r\nHost: x\r\n", *lines, "\r\n")).encode("latin-1")
    assert (await raw_http.request("127.0.0.1", served.server.port or 0, raw)).status == 400
    assert not served.app[HUB].rooms


async def test_a_handshake_is_answered_as_rfc_6455_says(serve: Serve) -> None:
    served = await serve()
    answer = await raw_http.request("127.0.0.1", served.server.port or 0, upgrade("/ws/d"))
    assert answer.status == 101
    assert {name: answer.headers[name] for name in ("upgrade", "connection", "sec-websocket-accept")} == {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    assert set(answer.headers) - {""} == {"upgrade", "connection", "sec-websocket-accept", "date", "server"}


async def test_the_first_subprotocol_is_taken(serve: Serve) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        for offered in (("collab",), ("b", "c"), ("!x", "y")):
            socket = await session.ws_connect(served.ws("d"), protocols=offered)
            assert socket.protocol == offered[0]
            await socket.close()
        malformed = {**UPGRADE, "Sec-WebSocket-Protocol": "a b"}
        async with session.get(f"{served.url}/ws/d", headers=malformed) as response:
            assert response.status == 400


async def test_a_proxy_that_takes_the_upgrade_away_is_named(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = await serve()
    headers = {name: value for name, value in UPGRADE.items() if name != "Upgrade"}
    async with aiohttp.ClientSession() as session:
        for _ in range(20):
            async with session.get(f"{served.url}/ws/d", headers=headers) as response:
                assert response.status == 400 and "Upgrade" in await response.text()
    warnings = [record for record in caplog.records if "Upgrade" in record.getMessage()]
    assert 0 < len(warnings) < 20


@on_every_server
async def test_a_client_that_vanishes_in_the_middle_of_a_frame_harms_nobody(serve: Serve, connect: Connect) -> None:
    served = await serve()
    async with LiveClient(served.ws("d")) as good:
        await good.until_synced()
        bad = await connect(served.ws("d"))
        await bad.expect_sync(0)
        bad.cut(b"\x82\xfe\x10\x00\x00\x00\x00\x00\x00\x02")
        await asyncio.sleep(0)
        await bad.vanish()
        good.text().insert(0, "x")
        await good.barrier()
        live = served.app[HUB].rooms["d"]
        while len(live.room.sessions) > 1:  # its end is seen within the test's own time limit
            await good.barrier()
