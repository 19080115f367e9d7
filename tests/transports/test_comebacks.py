"""A client that comes back on a new socket while the old one is still open, over real sockets in this process.

Strategy: the old socket answers no ping, as one whose line hangs. Addresses are told by a proxy that is trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio

from collab.hub.room import LiveRoom
from collab.transports.sockets import connection as connection_module
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.waiting import eventually, happens
from tests.support.wsclient import (
    AWARENESS,
    EMPTY_UPDATE,
    QUERY_AWARENESS,
    RawClient,
    awareness,
    awareness_entries,
    parse,
    step2,
)
from tests.transports.conftest import Serve, Served, on_every_server

CLIENT = 77
HERE, THERE = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}

Connect = Callable[..., Awaitable[RawClient]]
Silent = Callable[..., Awaitable[aiohttp.ClientWebSocketResponse]]


@pytest.fixture
async def served(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setattr(connection_module, "_SILENT_SECONDS", 0.1)
    return await serve(behind_proxy=True, trusted_proxies="127.0.0.1", insecure=True)


@pytest_asyncio.fixture
async def silent() -> AsyncIterator[Silent]:
    """Give what opens a socket that answers no ping."""
    sockets = []  # one that is forgotten is closed
    async with aiohttp.ClientSession() as session:

        async def open_socket(url: str, *frames: bytes, headers: dict[str, str]) -> aiohttp.ClientWebSocketResponse:
            socket = await session.ws_connect(url, autoping=False, headers=headers)
            sockets.append(socket)
            for frame in frames:
                await socket.send_bytes(frame)
            return socket

        yield open_socket


@pytest_asyncio.fixture
async def join() -> AsyncIterator[Connect]:
    """Give what opens a client that shows a state, if it is given one, and has been answered."""
    clients: list[RawClient] = []

    async def open_client(served: Served, *shows: tuple[int, int, str], headers: dict[str, str]) -> RawClient:
        client = RawClient(served.ws("d"))
        clients.append(client)
        await client.connect(headers)
        if shows:
            await client.send(awareness(*shows))
        await client.send(step2(EMPTY_UPDATE))
        await client.barrier()
        return client

    yield open_client
    for client in clients:
        await client.close()


def told(client: RawClient) -> list[tuple[int, int, str]]:
    frames = [frame for frame in map(parse, client.frames) if frame.type == AWARENESS]
    return [entry for frame in frames for entry in awareness_entries(frame.payload)]


@on_every_server
async def test_who_comes_from_the_same_address_has_the_id_of_a_silent_socket(
    served: Served, silent: Silent, join: Connect
) -> None:
    await silent(served.ws("d"), awareness((CLIENT, 1, "1")), step2(EMPTY_UPDATE), headers=HERE)
    watcher = await join(served, headers=THERE)
    await watcher.until(lambda: (CLIENT, 1, "1") in told(watcher), "the old state")
    back = await join(served, (CLIENT, 1, "1"), headers=HERE)
    await back.until(lambda: (CLIENT, 1, "null") in told(back), "it may announce itself")
    await back.send(awareness((CLIENT, 2, "2")))
    await watcher.until(lambda: (CLIENT, 2, "2") in told(watcher), "the new state")
    assert not any(entry[2] == "null" for entry in told(watcher))


async def test_one_that_claims_while_the_old_socket_is_known_to_be_silent_does_not_wait(
    served: Served, silent: Silent, join: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    note_silent = LiveRoom.note_silent

    def note(live: LiveRoom, member: object) -> None:
        noted.append(1)
        note_silent(live, member)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveRoom, "note_silent", note)
    await silent(served.ws("d"), awareness((CLIENT, 1, "1")), step2(EMPTY_UPDATE), headers=HERE)
    watcher = await join(served, headers=THERE)
    await watcher.until(lambda: (CLIENT, 1, "1") in told(watcher), "the old state")
    other = await join(served, (CLIENT, 5, '"other"'), headers=THERE)
    await happens(lambda: noted, "the old socket is silent")
    monkeypatch.setattr(connection_module, "_SILENT_SECONDS", 1_000.0)  # no other second is waited for
    back = await join(served, (CLIENT, 1, "1"), headers=HERE)
    await back.until(lambda: (CLIENT, 1, "null") in told(back), "it may announce itself")
    assert not any(entry[2] == "null" for entry in told(other))


@on_every_server
async def test_who_answers_keeps_its_id(served: Served, silent: Silent, join: Connect, below: str) -> None:
    owner = await silent(served.ws("d"), awareness((CLIENT, 1, "1")), step2(EMPTY_UPDATE), headers=HERE)
    watcher = await join(served, headers=THERE)
    await watcher.until(lambda: (CLIENT, 1, "1") in told(watcher), "its state")
    claimant = await join(served, (CLIENT, 1, "1"), headers=HERE)

    pings = 0

    async def answer() -> None:
        nonlocal pings
        async for message in owner:
            if message.type is aiohttp.WSMsgType.PING:
                await owner.pong(message.data)
                pings += 1
            elif below != "aiohttp" and message.data == bytes((QUERY_AWARENESS,)):
                # No ping of ours reaches it there.
                await owner.send_bytes(awareness((CLIENT, 1, "1")))
                pings += 1

    async def probed() -> bool:
        await claimant.send(awareness((CLIENT, 9, '"claimed"')))
        return pings > 2

    # Each ping but the first says that the probe before it has ended, because something was heard.
    answering = asyncio.create_task(answer())
    await eventually(probed, "it is probed")
    await watcher.barrier()
    await claimant.barrier()
    assert told(watcher)[-1] == (CLIENT, 1, "1")
    assert not any(entry[2] == "null" for entry in told(claimant))
    answering.cancel()


async def test_every_document_of_a_silent_socket_is_given_up(served: Served, silent: Silent) -> None:
    names = ("a", "b")
    frames = [
        frame
        for name in names
        for frame in (hocuspocus.auth(name), hocuspocus.step1(name), hocuspocus.awareness(name, (CLIENT, 1, "1")))
    ]
    socket = await silent(served.hocuspocus, *frames, headers=HERE)
    shown = {name: False for name in names}
    while not all(shown.values()):
        data = (await socket.receive(10)).data
        found = hocuspocus.parse(data)
        if found.type == hocuspocus.AWARENESS and found.address in names:
            shown[found.address] = True
    back = RawHocuspocus(served.hocuspocus)
    await back.connect(HERE)
    try:
        for name in names:
            await back.send(hocuspocus.auth(name), hocuspocus.step1(name), hocuspocus.awareness(name, (CLIENT, 1, "1")))
        for name in names:
            asked = hocuspocus.awareness(name, (CLIENT, 1, "null"))
            await back.until(lambda asked=asked: asked in back.frames, f"it may announce itself in {name}")
    finally:
        await back.close()


async def test_a_defect_in_giving_a_presence_up_ends_the_silent_socket(
    served: Served, silent: Silent, join: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("the test")

    monkeypatch.setattr(LiveRoom, "note_silent", fails)
    owner = await silent(served.ws("d"), awareness((CLIENT, 1, "1")), step2(EMPTY_UPDATE), headers=HERE)
    watcher = await join(served, headers=THERE)
    await watcher.until(lambda: (CLIENT, 1, "1") in told(watcher), "its state")
    await join(served, (CLIENT, 2, "2"), headers=HERE)
    while (message := await owner.receive(10)).type is not aiohttp.WSMsgType.CLOSE:
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.PING)
    assert message.data == 4500
