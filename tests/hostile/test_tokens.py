"""Wrong tokens by the thousand, on a server that asks the application: whoever has a right one gets in beside them.

The application is under the test's control and counts what it is asked; each of the senders has an address of its own
on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from collab.auth.endpoint import MAX_CONNECTIONS
from collab.limits.questions import AT_A_TIME, FREE, MAX_UNANSWERED
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import RawClient

SOCKETS, FRAMES = 10, 999
GOOD = "good"

# Seconds that the application thinks about a wrong token: long enough that all can be under way that may.
SLOW = 0.05


class Application:
    """Decides by the token; notes whom it was asked about, in order, and answers when it may.

    Attributes:
        asked: (token, address) of each question.
        under_way: how many questions of each address wait for their answer.
        most: the most there were, by address.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.answering = asyncio.Event()
        self.answering.set()
        app = web.Application()
        app.router.add_post("/access", self._handle)
        self.server = TestServer(app)

    async def _handle(self, request: web.Request) -> web.Response:
        question = await request.json()
        token, address = question["token"], question["client_address"]
        self.asked.append((token, address))
        self.under_way[address] += 1
        self.most[address] = max(self.most[address], self.under_way[address])
        if not token.startswith(GOOD):
            await asyncio.sleep(SLOW)
            await self.answering.wait()
        self.under_way[address] -= 1
        if token.startswith(GOOD):
            return web.json_response({"user": token, "access": "write", "expires_in": 600})
        return web.json_response({"reason": "who?"}, status=401)

    def bad(self, address: str) -> int:
        return sum(1 for token, asker in self.asked if asker == address and not token.startswith(GOOD))


@pytest_asyncio.fixture
async def application() -> AsyncIterator[Application]:
    made = Application()
    await made.server.start_server()
    yield made
    made.answering.set()
    await made.server.close()


@pytest_asyncio.fixture
async def asking(application: Application, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Run a server for each test: an application that has gone would be left alone."""
    url = f"http://127.0.0.1:{application.server.port}/access"
    server = ServerProcess(tmp_path, "--auth-url", url, "--auth-timeout-seconds", "60")
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.close)


def address_of(number: int) -> str:
    return f"127.0.1.{number}"


async def sign_in(server: ServerProcess, document: str, address: str, token: str = GOOD) -> None:
    """Open a document with a right token, over a socket of its own."""
    async with RawHocuspocus(server.hocuspocus_url, local=address) as client:
        await client.send(hocuspocus.auth(document, token))
        answer = await client.find_type(document, hocuspocus.AUTH)
        assert answer.fields[0] == hocuspocus.AUTHENTICATED, answer


def wrong(number: int) -> list[bytes]:
    return [hocuspocus.auth(f"d{frame}", f"bad {number} {frame}") for frame in range(FRAMES)]


async def test_ten_sockets_of_wrong_tokens_beside_honest_sign_ins(
    asking: ServerProcess, application: Application
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        attackers = [
            await stack.enter_async_context(RawHocuspocus(asking.hocuspocus_url, local=address_of(number)))
            for number in range(1, SOCKETS + 1)
        ]
        for number, attacker in enumerate(attackers):
            attacker.burst(*wrong(number))
        await happens(lambda: len(application.asked) >= 2 * MAX_CONNECTIONS, "the wrong ones are asked about")
        for number in range(20):
            before = len(application.asked)
            await sign_in(asking, f"honest {number}", address_of(200 + number))
            at = application.asked.index((GOOD, address_of(200 + number)))
            assert at - before <= MAX_CONNECTIONS, "it had its turn before all those that wait"
        for attacker in attackers:
            assert attacker.open
            await attacker.vanish()  # it is not read on, so nobody would answer its close
    for number in range(1, SOCKETS + 1):
        assert application.most[address_of(number)] <= AT_A_TIME
        assert 0 < application.bad(address_of(number)) < FRAMES / 4, "wrong tokens cost time"
    assert "left alone" not in asking.stderr
    assert asking.running


async def test_wrong_tokens_cost_their_sender_more_and_more(asking: ServerProcess, application: Application) -> None:
    loop = asyncio.get_running_loop()
    took = []
    async with RawHocuspocus(asking.hocuspocus_url, local=address_of(1)) as client:
        assert await client.join("mine", GOOD) == hocuspocus.READ_WRITE
        for number in range(FREE + 6):
            before = loop.time()
            await client.send(hocuspocus.auth(f"d{number}", f"bad {number}"))
            assert await client.denied(f"d{number}") == "who?"
            took.append(loop.time() - before)
        assert took[-2] >= 0.5 and took[-1] >= 1.0, took
        # Somebody else at the same address has a right one.
        before = len(application.asked)
        await sign_in(asking, "neighbour", address_of(1))
        assert application.asked[before:] == [(GOOD, address_of(1))]
        assert client.open


async def test_the_same_wrong_token_is_not_asked_about_again_at_once(
    asking: ServerProcess, application: Application
) -> None:
    async with RawHocuspocus(asking.hocuspocus_url, local=address_of(1)) as client:
        for number in range(1, 4):
            await client.send(hocuspocus.auth("d", "bad"))
            await client.until(lambda: len(client.got("d", hocuspocus.AUTH)) == number, "the same answer")  # noqa: B023
    assert application.asked == [("bad", address_of(1))]


async def test_a_socket_that_was_let_in_nowhere_is_read_no_further_than_its_bound(
    asking: ServerProcess, application: Application
) -> None:
    application.answering.clear()
    async with RawHocuspocus(asking.hocuspocus_url, local=address_of(1)) as client:
        client.burst(*wrong(0)[:MAX_UNANSWERED], b"\x09")  # a ping of the protocol behind them
        await happens(lambda: application.under_way[address_of(1)] == AT_A_TIME, "a few are asked about")
        await sign_in(asking, "other", address_of(2))
        assert client.frames == [], "the ping was not read"
        application.answering.set()
        await client.until(lambda: bytes((hocuspocus.PONG,)) in client.frames, "it is read on")
        assert application.most[address_of(1)] <= AT_A_TIME


async def test_many_sockets_with_one_wrong_token_each(asking: ServerProcess, application: Application) -> None:
    """The way of y-websocket; and one that leaves before it is answered holds its place until it is."""
    application.answering.clear()
    clients = [RawClient(f"{asking.document_url('d')}?token=bad{number}", local=address_of(1)) for number in range(100)]
    await asyncio.gather(*(client.connect() for client in clients))
    await happens(lambda: application.under_way[address_of(1)] == MAX_CONNECTIONS // 2, "half of the places")
    for client in clients[:50]:
        await client.vanish()
    await sign_in(asking, "honest", address_of(2))
    assert application.most[address_of(1)] == MAX_CONNECTIONS // 2
    # One who shares their address has its turn as any socket has, and not behind them all.
    neighbour = asyncio.create_task(sign_in(asking, "neighbour", address_of(1)))
    application.answering.set()
    await neighbour
    assert application.asked.index((GOOD, address_of(1))) <= 100 + 2
    assert [await client.expect_close() for client in clients[50:]] == [4401] * 50
    for client in clients:
        await client.close()


async def test_requests_with_wrong_tokens(asking: ServerProcess, application: Application) -> None:
    application.answering.clear()
    connector = aiohttp.TCPConnector(local_addr=(address_of(1), 0), limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> int:
            headers = {"Authorization": f"Bearer bad{number}"}
            async with session.get(f"{asking.url}/api/v1/documents/d", headers=headers) as response:
                return response.status

        requests = [asyncio.create_task(ask(number)) for number in range(80)]
        await happens(lambda: application.under_way[address_of(1)] == MAX_CONNECTIONS // 2, "half of the places")
        await sign_in(asking, "honest", address_of(2))
        application.answering.set()
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await asyncio.gather(*requests) == [401] * 80
        assert loop.time() - before >= 1.0, "those behind the first fifty are told later"
