"""Large messages and slow ones, over sockets: who may send how much, and how long it may take.

Strategy: clients write raw bytes, so that a frame comes in as many pieces and as slowly as a test says. The times of
the server are short, and a test waits for what must come, or watches for several of those times that nothing does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.engine.room import READ_ONLY
from collab.protocol.session import Access
from collab.transports.http import answers
from tests.support import hocuspocus as h
from tests.support import wsclient as y
from tests.support.api import told
from tests.support.hocuspocus import RawHocuspocus
from tests.support.wsclient import RawClient, text_update
from tests.transports.conftest import Serve, Served

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

KIB = 1024


def framed(payload: bytes) -> bytes:
    """One frame of the long form, masked with the key that changes nothing."""
    return b"\x82\xff" + len(payload).to_bytes(8) + bytes(4) + payload


async def trickle(client: RawClient, data: bytes, step: int, seconds: float) -> None:
    """Write so many bytes each 20 ms for some seconds, or until all are written or the server has closed."""
    until = asyncio.get_running_loop().time() + seconds
    while data and client.close_code is None and asyncio.get_running_loop().time() < until:
        client.cut(data[:step])
        data = data[step:]
        await asyncio.sleep(0.02)


def size_of(served: Served, name: str) -> int:
    live = served.app[HUB].rooms.get(name)
    return 0 if live is None else live.room.document.size


def slow_has_begun(served: Served) -> bool:
    """Whether a large message is on its way."""
    live = served.app[HUB].rooms.get("slow")
    return live is not None and any(member.client.received > 100 * KIB for member in live.members)


async def stored(served: Served, client: RawClient, name: str, size: int) -> None:
    await client.until(lambda: size_of(served, name) >= size, "the edit is taken")


async def decide(request: AccessRequest) -> Grant:
    if request.token.startswith("slow"):
        await asyncio.sleep(0.5)
    return Grant(Access.READ if request.token.endswith("reader") else Access.WRITE, "ada")


LARGE = text_update(5, "x" * 300 * KIB)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["a large frame", "a small frame"])
async def test_a_message_that_trickles_is_ended_and_a_slow_one_is_not(
    serve: Serve, connect: Connect, form: str
) -> None:
    served = await serve(ping_seconds=0.3, sync_timeout_seconds=0.3, min_bytes_per_second=1_000)
    data = framed(y.step2(LARGE))
    if form == "a small frame":
        update = y.step2(text_update(5, "x" * 30_000))
        data = b"\x82\xfe" + len(update).to_bytes(2) + bytes(4) + update
    slow, still = await connect(served.ws("d")), await connect(served.ws("d"))
    # No whole message comes from it, nor any answer to a ping, for many times what a silent client gets.
    async with asyncio.TaskGroup() as both:
        both.create_task(trickle(slow, data, 200, 3.0))
        both.create_task(trickle(still, data, 1, 20.0))
    assert still.close_code == 4508
    assert slow.close_code is None
    slow.cut(data[200 * 150 :])  # it has sent less than that
    await slow.close()


@pytest.mark.slow
async def test_what_takes_long_arrives(serve: Serve, connect: Connect) -> None:
    served = await serve(ping_seconds=0.3, sync_timeout_seconds=0.3, keepalive_seconds=0.3)
    client = await connect(served.ws("d"))
    await trickle(client, framed(y.step2(LARGE)), 3_000, 30.0)
    await stored(served, client, "d", len(LARGE) - 100)
    assert client.close_code is None


@pytest.mark.parametrize("token", ["writer", "slow writer"])
async def test_what_is_large_waits_until_its_document_is_open(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, token: str
) -> None:
    served = await serve(authenticator=decide, max_unauthenticated_bytes=10 * KIB)
    client = await connect(f"{served.ws('y')}?token={token.replace(' ', '%20')}")
    client.cut(framed(y.update(LARGE)))
    await stored(served, client, "y", len(LARGE) - 100)
    shared = await connect_hocuspocus(served.hocuspocus)
    shared.burst(h.auth("h", token), h.update("h", LARGE), h.update("h", text_update(6, "behind")))
    assert await shared.statuses("h", 2) == [1, 1]
    assert size_of(served, "h") > len(LARGE)


async def test_what_comes_before_any_token_is_asked_for_again(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=decide, max_unauthenticated_bytes=10 * KIB)
    shared = await connect_hocuspocus(served.hocuspocus)
    await shared.send(h.update("d", LARGE), h.auth("d", "writer"), h.step1("d"))
    await shared.find_sync("d", h.STEP1)
    assert size_of(served, "d") < 100, "nothing of it was kept"
    await shared.send(h.step2("d", LARGE))
    assert await shared.statuses("d", 2) == [1, 1], "the one that was dropped is acknowledged too"
    assert size_of(served, "d") >= len(LARGE) - 100
    assert shared.open


async def test_a_large_edit_of_a_reader_is_refused_and_the_reader_goes_on(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="collab.audit")
    served = await serve(authenticator=decide, max_unauthenticated_bytes=10 * KIB)
    writer = await connect(f"{served.ws('d')}?token=writer")
    await writer.send(y.step2(text_update(1, "here")))
    await writer.barrier()
    reader = await connect(f"{served.ws('d')}?token=reader")
    await reader.send(y.step2(LARGE))
    told = await reader.expect(lambda frame: frame.type == y.AUTH, "the refusal")
    assert told.payload.decode() == READ_ONLY
    await reader.barrier()
    shared = await connect_hocuspocus(served.hocuspocus)
    await shared.send(h.auth("d", "reader"), h.update("d", LARGE))
    assert await shared.statuses("d", 1) == [0]
    await shared.barrier_of("d")
    assert sum("an edit" in line for line in caplog.messages) == 2, "the audit log has both"
    assert size_of(served, "d") < 100


async def test_all_together_have_a_bound_and_everything_arrives(serve: Serve, connect: Connect) -> None:
    served = await serve(max_arriving_bytes=350 * KIB)
    clients = [await connect(served.ws(f"d{number}")) for number in range(4)]
    data = framed(y.update(LARGE))
    for client in clients:
        client.cut(data[: 200 * KIB])
    for client in reversed(clients):
        client.cut(data[200 * KIB :])
    for number, client in enumerate(clients):
        await stored(served, client, f"d{number}", len(LARGE) - 100)


@pytest.mark.slow
async def test_who_takes_the_place_of_others_has_to_be_brisk(serve: Serve, connect: Connect) -> None:
    served = await serve(max_arriving_bytes=350 * KIB, ping_seconds=0.5, min_bytes_per_second=10)
    slow, other = await connect(served.ws("slow")), await connect(served.ws("other"))
    data = framed(y.update(LARGE))
    slow.cut(data[: 200 * KIB])
    while not slow_has_begun(served):
        await other.barrier()
    other.cut(data)
    await asyncio.gather(trickle(slow, data[200 * KIB :], 2, 20.0), stored(served, other, "other", len(LARGE) - 100))
    assert slow.close_code == 4508


@pytest.mark.slow
async def test_what_is_sent_before_a_token_counts_as_time(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    served = await serve(auth_seconds=0.3)
    silent, sending = await connect_hocuspocus(served.hocuspocus), await connect_hocuspocus(served.hocuspocus)
    await trickle(sending, framed(h.update("d", text_update(1, "x" * 200_000))), 4_000, 10.0)  # a second
    await sending.send(h.auth("d", "x"))
    assert await sending.statuses("d", 1) == [1]
    assert await silent.expect_close() == 4408


async def test_a_body_that_trickles_is_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BODY_SECONDS", 0.3)
    served = await serve()

    async def body() -> object:
        yield b'{"name": "'
        await asyncio.sleep(60)

    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json"}
        async with session.post(f"{served.url}/api/v1/documents", data=body(), headers=headers) as response:
            assert (response.status, await told(response)) == (408, "the body comes too slowly")
