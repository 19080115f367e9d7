"""Attacks on what all share: sockets, time, memory. Those who keep within the bounds must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import jwt
import psutil
import pytest
import pytest_asyncio

from tests.hostile import endless
from tests.hostile.endless import ENDLESS, HTTP, PART, POST
from tests.support import hocuspocus
from tests.support.handshake import upgrade
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, RawClient, converge, step2, text_update, update

SECRET = "a secret of the tests, long enough for HS256"
UNAUTHENTICATED = 200
HEADER_SECONDS = 2.0
MESSAGES = 50  # a second, and ten seconds' worth at once
FLOOD_SECONDS = 3.0

OPTIONS = {
    "--max-unauthenticated": UNAUTHENTICATED,
    "--header-seconds": HEADER_SECONDS,
    "--http-idle-seconds": 3,
    "--slow-seconds": 2,
    "--max-messages-per-second": MESSAGES,
    "--flood-seconds": FLOOD_SECONDS,
}

UPGRADE = upgrade("/hocuspocus")


@pytest.fixture(scope="module", autouse=True)
def enough_files() -> Iterator[None]:
    """Let this process have as many sockets as its attacks open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4_096
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = [part for option, value in OPTIONS.items() for part in (option, str(value))]
    with ServerProcess(
        tmp_path_factory.mktemp("limited"), *options, environment={"COLLAB_JWT_SECRET": SECRET}
    ) as server:
        yield server


def token(user: str) -> str:
    claims = {"sub": user, "documents": {"*": "write"}, "exp": int(time.time()) + 3_600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def url(server: ServerProcess, name: str, user: str) -> str:
    return f"{server.document_url(name)}?token={token(user)}"


class Honest:
    """Two people who edit one document; ``check`` that they still do, over the sockets that they have."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self._server = server
        self.people = [LiveClient(url(server, name, f"honest {number}")) for number in range(2)]

    async def edit(self) -> None:
        ada, bob = self.people
        bob.text().insert(0, "still ")
        await converge([ada], lambda client: str(client.text()), str(bob.text()))
        assert all(client.open and client.connects == 1 for client in self.people)

    async def check(self) -> None:
        await self.edit()
        async with LiveClient(url(self._server, "somebody else's", "newcomer")) as newcomer:
            await newcomer.until_synced()


@pytest_asyncio.fixture
async def honest(limited: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Honest]:
    made = Honest(limited, request.node.name)
    async with made.people[0], made.people[1]:
        for client in made.people:
            await client.until_synced()
        await made.check()
        yield made
        await made.check()
        assert limited.running


class Sockets:
    """Connections that are no clients of anything."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.gone = 0

    async def open(self, count: int, first: bytes = b"") -> list[asyncio.StreamWriter]:
        """Open ``count`` and send the ``first`` bytes on each; ``gone`` counts those that the server has ended."""
        opened = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
            writer.write(first)
            self._writers.append(writer)
            self._tasks.append(asyncio.create_task(self._until_gone(reader)))
            opened.append(writer)
        return opened

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.gone += 1

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)


@pytest_asyncio.fixture
async def sockets(limited: ServerProcess) -> AsyncIterator[Sockets]:
    made = Sockets(limited)
    yield made
    await made.close()


def held(server: ServerProcess) -> int:
    """Count the connections that the server holds."""
    return sum(found.status == psutil.CONN_ESTABLISHED for found in psutil.Process(server.pid).net_connections("tcp4"))


async def test_two_thousand_sockets_that_never_authenticate(
    limited: ServerProcess, honest: Honest, sockets: Sockets
) -> None:
    for _ in range(20):
        await sockets.open(100, UPGRADE)
        await honest.check()
    await happens(lambda: sockets.gone >= 2_000 - UNAUTHENTICATED, "those that waited longest are gone")
    assert held(limited) <= UNAUTHENTICATED + len(honest.people) + 1
    async with RawHocuspocus(limited.hocuspocus_url) as client:
        await client.send(hocuspocus.auth("d", token("late")))
        granted = await client.find_type("d", hocuspocus.AUTH)
        assert granted.fields[0] == hocuspocus.AUTHENTICATED, "there is room for who shows a token"
    await asyncio.to_thread(limited.wait_for_log, lambda line: "collab.audit: limit: too many connections" in line)


async def test_connections_that_say_nothing(limited: ServerProcess, honest: Honest, sockets: Sockets) -> None:
    await sockets.open(UNAUTHENTICATED + 100)
    await happens(lambda: sockets.gone >= 100, "those past the bound are gone at once")
    await honest.check()
    await happens(lambda: sockets.gone == UNAUTHENTICATED + 100, "the others in time")
    await asyncio.to_thread(limited.wait_for_log, lambda line: f"no request within {HEADER_SECONDS:g} s" in line)


async def test_headers_that_trickle_in(honest: Honest, sockets: Sockets) -> None:
    """As slowloris does: the request is never whole, and never idle either."""
    slow = await sockets.open(150, b"GET /healthz HTTP/1.1\r\nHost: x\r\n")

    async def trickle() -> None:
        while True:
            for writer in slow:
                writer.write(b"X: x\r\n")
            await asyncio.sleep(0.2)

    trickling = asyncio.create_task(trickle())
    await honest.check()
    await happens(lambda: sockets.gone == 150, "all are cut")
    trickling.cancel()
    await asyncio.wait([trickling])


async def test_headers_without_end_and_bodies_that_nobody_wants(sockets: Sockets) -> None:
    await sockets.open(5, b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(5_000)))
    await sockets.open(5, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 200_000)
    await sockets.open(5, b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1_000)
    await happens(lambda: sockets.gone == 15, "all are refused and closed")


async def test_a_connection_that_is_kept_alive_and_not_used(honest: Honest, sockets: Sockets) -> None:
    await sockets.open(50, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await happens(lambda: sockets.gone == 50, "all are closed")


async def test_answers_that_nobody_reads(limited: ServerProcess, honest: Honest) -> None:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.connect((limited.host, limited.port))
    raw.setblocking(False)
    asked = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
    loop = asyncio.get_running_loop()

    async def ask_for_ever() -> None:
        while True:
            await loop.sock_sendall(raw, asked)

    with contextlib.closing(raw), pytest.raises(ConnectionError):
        await ask_for_ever()
    await asyncio.to_thread(limited.wait_for_log, lambda line: "nothing of an answer taken" in line)


async def test_a_flood_beside_people_who_type(limited: ServerProcess) -> None:
    """The flood gets what its bound allows, and not a message more; what the others type arrives all the same."""
    people = [LiveClient(url(limited, f"room {number // 2}", f"typist {number}")) for number in range(20)]
    watcher = RawClient(url(limited, "flooded", "watcher"))
    flooder = RawClient(url(limited, "flooded", "flooder"))
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for client in (*people, watcher, flooder):
            await stack.enter_async_context(client)
        for client in people:
            await client.until_synced()
        await watcher.expect_sync(0)
        await watcher.send(step2(b"\0\0"))
        await flooder.expect_sync(0)
        await flooder.send(step2(text_update(1, "first")))
        await flooder.barrier()

        began = loop.time()
        # Fifty times the bound for a minute: what is not read waits in the kernel, and then with the sender.
        sent = 50 * MESSAGES * 60
        flooder.burst(*(update(text_update(number, "x" * 40)) for number in range(2, 102)), *[b"\x03"] * sent)
        rounds = 0
        typed: list[list[str]] = [[] for _ in range(10)]
        while flooder.close_code is None:
            rounds += 1
            for number, client in enumerate(people):
                client.text().insert(0, f"{number}.{rounds} ")
                typed[number // 2] = sorted([*typed[number // 2], f"{number}.{rounds}"])
            for room, words in enumerate(typed):
                await converge(
                    people[2 * room : 2 * room + 2], lambda client: sorted(str(client.text()).split()), words
                )
        took = loop.time() - began
        assert (flooder.close_code, flooder.close_reason) == (1013, "you send too many messages, come back later")
        assert rounds > 1, "nobody typed meanwhile"
        assert took >= FLOOD_SECONDS, "it was read more slowly before it was closed"
        answered = sum(frame[:1] == b"\x01" for frame in flooder.frames)
        assert answered <= MESSAGES * 10 + MESSAGES * took + 16
        assert all(client.open and client.connects == 1 for client in people)
        await watcher.barrier()


async def test_a_client_cannot_choose_the_address_it_is_counted_by(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No proxy is trusted here, so the header is nothing but text of the client."""
    with ServerProcess(
        tmp_path_factory.mktemp("direct"),
        "--max-connections-per-user",
        "1",
        "--log-level",
        "info",
        environment={"COLLAB_JWT_SECRET": SECRET},
    ) as server:
        first = await RawClient(url(server, "d", "ada")).connect({"X-Forwarded-For": "203.0.113.7"})
        await first.expect_sync(0)
        second = await RawClient(url(server, "d", "ada")).connect({"X-Forwarded-For": "198.51.100.9"})
        assert await second.expect_close() == 1013
        line = await asyncio.to_thread(server.wait_for_log, lambda line: "collab.audit: limit" in line)
        assert "address=127.0.0.1" in line and "203.0.113.7" not in server.stderr
        await first.close()
        await second.close()


# What becomes of each endless message: those of small frames are a flood, the large one is too large in the end.
ENDS = {
    "empty fragments": 1013,
    "fragments of one byte": 1013,
    "fragments of 900 bytes": 1013,
    "large fragments": 4413,
    "control frames between": 1013,
    "a text": 1003,
    "pings": 1013,
    "messages of one byte": 1013,
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_message_that_never_ends_beside_people_who_type(
    limited: ServerProcess, honest: Honest, kind: str
) -> None:
    first, again = ENDLESS[kind]
    block = again * (PART // len(again))

    async def flood(number: int) -> int:
        async with RawClient(url(limited, f"endless {number}", f"flooder {number}")) as flooder:
            await flooder.expect_sync(0)
            transport = flooder.transport
            transport.write(first)
            while flooder.close_code is None:
                if transport.get_write_buffer_size() < PART:
                    transport.write(block)
                await asyncio.sleep(0.005)
            transport.abort()
            return flooder.close_code

    floods = [asyncio.create_task(flood(number)) for number in range(3)]
    rounds = 0
    while not all(task.done() for task in floods):
        await honest.edit()
        rounds += 1
        await asyncio.sleep(0.05)  # within their own limits
    assert set(await asyncio.gather(*floods)) == {ENDS[kind]}
    assert rounds, "nobody typed meanwhile"


async def test_a_message_that_is_kept_half_by_next_to_nothing(tmp_path: Path) -> None:
    """Empty fragments, and frames between the fragments, are no progress of the message."""
    options = ("--ping-seconds", "0.5", "--insecure")
    with ServerProcess(tmp_path, *options, environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        async with RawClient(url(server, "half", "ada")) as slow:
            await slow.expect_sync(0)
            slow.cut(endless.frame(0x02, b"\0\2" + b"x" * 100_000))
            while slow.close_code is None:
                # More than the 1 KiB a second that would do, and none of it of the message.
                slow.cut(endless.frame(0x00, b"") + endless.frame(0x89, b"x" * 125) * 5)
                await asyncio.sleep(0.1)
            assert slow.close_code == 4508


async def test_bodies_that_never_come(honest: Honest, sockets: Sockets) -> None:
    """No token, no waiting: each is told so at once, and keeps nobody out."""
    await sockets.open(UNAUTHENTICATED + 100, POST + b"Content-Length: 1000\r\n\r\n{")
    await honest.check()
    await happens(lambda: sockets.gone == UNAUTHENTICATED + 100, "the end of all")


@pytest.mark.parametrize("kind", [kind for kind in HTTP if kind not in ("pipelined requests", "empty lines")])
async def test_requests_that_never_end_beside_people_who_type(honest: Honest, sockets: Sockets, kind: str) -> None:
    first, again = HTTP[kind]
    writers = await sockets.open(3, first)
    while sockets.gone < 3:
        for writer in writers:
            if not writer.transport.is_closing() and writer.transport.get_write_buffer_size() < PART:
                writer.write(again * (PART // len(again)))
        await honest.edit()
        await asyncio.sleep(0.05)  # within their own limits


async def test_a_websocket_whose_first_frames_come_with_a_long_request(limited: ServerProcess) -> None:
    """The request is parsed in parts, and what came behind it is the socket's."""
    reader, writer = await asyncio.open_connection(limited.host, limited.port)
    cookies = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1_000) for number in range(10))
    frames = b"".join(endless.frame(0x89, b"%d" % number) for number in range(400))
    writer.write(UPGRADE[:-2] + cookies + b"\r\n" + frames)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    for number in range(400):
        pong = await reader.readexactly(2 + len(str(number)))
        assert pong == bytes((0x8A, len(str(number)))) + b"%d" % number
    writer.close()


async def test_many_requests_in_one_write_are_answered_in_their_order(limited: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection(limited.host, limited.port)
    paths = [b"/healthz" if number % 3 else b"/nothing" for number in range(600)]
    writer.write(b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100 + b"\r\n\r\n" for path in paths))
    for path in paths:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split(b" ")[1] == (b"200" if path == b"/healthz" else b"404")
        [length] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()
