"""What has ended leaves memory by itself: no reference cycle waits for the collector.

Strategy: a server has millions of objects and collects rarely, so what only the collector could free stays for a
long time, and whoever connects and goes in a loop fills the memory with it. Here the collector is off. Connections
are opened and ended in every way, and then nothing of ours and nothing of the library's may be left of them, neither
in a cycle nor held by a timer. The clients are of another make (``tests.support.blocking``) and run in a thread, so
all that is found is the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import pytest
import pytest_asyncio
from aiohttp import web
from multidict import CIMultiDictProxy

from collab.app import GUARD, HUB, create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import AccessDenied
from collab.hub import delivery
from collab.limits import questions
from collab.protocol.session import Access
from collab.settings import Settings
from collab.telemetry import configure
from collab.transports.guard.door import Door, DoorOptions, Listener
from collab.transports.guard.listening import listen
from tests.hostile.endless import POST, frame
from tests.support import hocuspocus as hp
from tests.support import wsclient as y
from tests.support.blocking import BlockingSocket, BlockingWebSocket
from tests.support.waiting import happens

pytestmark = pytest.mark.slow

# Connections of a kind; an object that stays of each of them is found among those that stay once, and among what a
# dozen tasks of the server wait for.
TIMES = 30

# From so many on, objects of a kind stay for each connection: fewer are of the server's own tasks and of its sandbox.
STAY = 12

# Seconds until what has ended must have let go. Less than the five in which a closing connection would be cut: a
# timer that waits for that must not keep it.
SOON = 4.0

MAX_MESSAGE_BYTES = 1_000_000

# Messages of a kind on one socket; more than the few closed addresses that a socket remembers for a while.
REPEATS = 100

_numbers = itertools.count(1)

ENDINGS: list[Callable[[int], None]] = []
REPEATED: list[Callable[[int, int], BlockingSocket]] = []


def ending(end: Callable[[int], None]) -> Callable[[int], None]:
    """Add a way to open a connection to a port, and to end it."""
    ENDINGS.append(end)
    return end


def repeated(repeat: Callable[[int, int], BlockingSocket]) -> Callable[[int, int], BlockingSocket]:
    """Add something that is done a number of times over one connection to a port, which is returned open."""
    REPEATED.append(repeat)
    return repeat


async def decide(request: AccessRequest) -> Grant:
    """Decide by the name of the document, or by the token."""
    kind = request.document_name.partition(" ")[0]
    if kind == "secret" or request.token == "bad":
        raise AccessDenied("not this one")
    if kind == "broken":
        raise ValueError("the application has a defect")
    if kind == "slow":
        await asyncio.sleep(0.5)
    access = {"read": Access.READ, "admin": Access.ADMIN}.get(request.token, Access.WRITE)
    expires = {"short": time.time() + 0.05, "long": time.time() + 3_600}.get(kind)
    return Grant(access, "ada", expires_at=expires)


class Served:
    """The application behind its door, as ``collab serve`` runs it."""

    def __init__(self, runner: web.AppRunner, app: web.Application) -> None:
        self._runner = runner
        self.hub = app[HUB]
        self.port: int = runner.addresses[0][1]

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those that are open."""
        server = self._runner.server
        assert server is not None
        return server.connections

    async def all_ended(self) -> None:
        """Wait until no connection is left, nor anybody in a room."""
        await happens(lambda: not self.connections, "the end of all connections")
        await happens(lambda: not any(live.occupied for live in self.hub.rooms.values()), "empty rooms")


@pytest.fixture(scope="module", autouse=True)
def shorter_waits() -> Iterator[None]:
    """Let the server wait as it does, but not for seconds, twenty times over: it is the same waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_NEVER_PONGS", 0.2)  # for a client that answers no ping, as those here
        patch.setattr(questions, "FIRST_WAIT", 0.01)
        patch.setattr(questions, "LONGEST_WAIT", 0.05)  # for the refusal of a wrong token
        yield


@contextlib.asynccontextmanager
async def serving(data_dir: Path, *, idle_seconds: float = 3_600) -> AsyncIterator[Served]:
    settings = Settings(
        data_dir=data_dir,
        idle_seconds=idle_seconds,
        max_message_bytes=MAX_MESSAGE_BYTES,
        insecure=True,
        # All come from one address, as one user, faster than anybody does.
        max_new_connections_per_second=0,
        max_new_documents_per_minute=0,
    )
    app = create_app(settings, decide)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        door = Door(app[GUARD], DoorOptions(head=15, idle=75, slow=60, per_address=0))
        [sock] = await listen(("127.0.0.1",), 0)
        await Listener(runner, door, sock).start()
        app[HUB].tasks.supervise(door.watch, "watch of the door")
        served = Served(runner, app)
        await asyncio.to_thread(_make_documents, served.port)
        yield served
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("garbage")) as served:
        yield served


def _make_documents(port: int) -> None:
    """Make a document, one that does not fit into the buffers of a socket, one that is sent in pieces, one deleted."""
    for name, size in (
        ("d", 1),
        ("large", 600_000),
        ("large", 600_000),
        ("larger", 800_000),
        ("larger", 800_000),
        ("deleted", 1),
    ):
        client = has_joined(port, name, "admin")
        client.send(hp.update(name, edit(size)))
        client.read_until(of_type(hp.SYNC_STATUS))
        client.close()
    request(port, "DELETE /api/v1/documents/deleted", 204, "Authorization: Bearer admin\r\n")


# Clients of y-websocket


def opened(port: int, name: str = "d", headers: str = "") -> BlockingWebSocket:
    return BlockingWebSocket(port, f"/ws/{name.replace(' ', '%20')}", headers)


def joined(port: int, name: str = "d") -> BlockingWebSocket:
    client = opened(port, name)
    client.send(y.step2(y.EMPTY_UPDATE), y.step1())
    client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.STEP2)))
    return client


def edit(size: int = 1) -> bytes:
    return y.text_update(1_000 + next(_numbers), "x" * size)


@ending
def y_closes(port: int) -> None:
    joined(port).close()


@ending
def y_goes(port: int) -> None:
    client = joined(port)
    client.end()
    client.read_to_the_end()


@ending
def y_is_cut(port: int) -> None:
    joined(port).cut()


@ending
def y_is_cut_before_it_says_anything(port: int) -> None:
    opened(port).cut()


@ending
def y_is_cut_within_a_message(port: int) -> None:
    client = joined(port)
    client.write(b"\x82\xfe\x10\x00" + bytes(4) + b"the first bytes of many")
    client.cut()


@ending
def y_edits(port: int) -> None:
    client, number = joined(port), next(_numbers)
    client.send(y.update(edit()))
    client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.UPDATE)))
    client.send(y.awareness((number, 1, "{}")))
    client.read_until(lambda data: data[:1] == bytes((y.AWARENESS,)))
    client.close()


@ending
def y_edits_and_is_cut(port: int) -> None:
    client = joined(port)
    client.send(y.update(edit()), y.awareness((next(_numbers), 1, "{}")))
    client.cut()


@ending
def y_makes_a_large_edit(port: int) -> None:
    client = joined(port, "large")
    client.send(y.update(edit(50_000)))
    client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.UPDATE)))
    client.close()


@ending
def y_is_slowed_in_a_message_and_goes(port: int) -> None:
    """The server waits for the end of its pause, and for the next turn with the other one."""
    client = joined(port)
    client.write(frame(0x02, b"\0\2") + frame(0x00, b"x") * 6_000)
    client.cut()
    client = joined(port)
    client.write(frame(0x02, b"\0\2") + frame(0x00, b"") * 200)
    client.cut()


@ending
def y_reads_nothing(port: int) -> None:
    client = joined(port, "large")
    client.send(*[y.step1()] * 20)
    client.cut()


@ending
def y_is_cut_while_its_line_is_measured(port: int) -> None:
    client = opened(port, "larger")
    client.send(y.step2(y.EMPTY_UPDATE), y.step1())
    client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.STEP1)))
    client.cut()


@ending
def y_asks_again_and_closes_while_its_line_is_measured(port: int) -> None:
    client = opened(port, "larger")
    client.send(y.step2(y.EMPTY_UPDATE), *[y.step1()] * 20, y.update(edit()))
    client.ping()
    client.close()


@ending
def y_is_pinged(port: int) -> None:
    client = joined(port)
    client.ping()
    client.close()


@ending
def y_is_taken_for_another(port: int) -> None:
    # Two claim one awareness ID, so the first is probed.
    number = next(_numbers)
    first, second = joined(port), joined(port)
    first.send(y.awareness((number, 1, "{}")))
    second.read_until(lambda data: data[:1] == bytes((y.AWARENESS,)))
    second.send(y.awareness((number, 2, "{}")))
    second.ping()
    first.close()
    second.close()


@ending
def y_malformed(port: int) -> None:
    client = joined(port)
    client.send(b"\x00\x02\x05abc")
    assert client.be_closed() == 1007


@ending
def y_malformed_update(port: int) -> None:
    client = joined(port)
    client.send(y.update(edit()[:-1]))
    assert client.be_closed() == 1007


@ending
def y_malformed_large_update(port: int) -> None:
    client = joined(port)
    client.send(y.update(edit(50_000)[:-1]))
    assert client.be_closed() == 1007


@ending
def y_too_many_awareness_ids(port: int) -> None:
    client = joined(port)
    clock = next(_numbers)  # a later one than of those who were here before
    client.send(y.awareness(*((number, clock, "{}") for number in range(1, 200))))
    client.read_until(lambda data: data[:1] == bytes((y.AUTH,)))
    client.close()


@ending
def y_update_that_is_not_whole(port: int) -> None:
    # It refers to what the server lacks, is asked for that, and never answers.
    client, first = joined(port), next(_numbers)
    client.send(y.update(b"\x01\x01" + y.varuint(100_000 + first) + b"\x05\x04\x01\x04text\x01x\x00"))
    client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.STEP1)))
    client.close()


@ending
def y_malformed_and_cut(port: int) -> None:
    client = joined(port)
    client.send(b"\x00\x02\x05abc")
    client.read_close()
    client.cut()


@ending
def y_sends_text(port: int) -> None:
    client = joined(port)
    client.send_text("hello")
    client.be_closed()


@ending
def y_sends_no_websocket(port: int) -> None:
    client = joined(port)
    client.write(b"\xff" * 100)
    assert client.read_close() == 1002
    client.cut()


@ending
def y_sends_too_much(port: int) -> None:
    client = joined(port)
    client.send(bytes(MAX_MESSAGE_BYTES + 1))
    assert client.read_close() == 1008
    client.cut()


@ending
def y_bad_name(port: int) -> None:
    BlockingWebSocket(port, f"/ws/%FF{next(_numbers)}").be_closed()


@ending
def y_denied(port: int) -> None:
    opened(port, f"secret {next(_numbers)}").be_closed()


@ending
def y_denied_by_its_origin(port: int) -> None:
    opened(port, f"d?{next(_numbers)}", "Origin: https://elsewhere.example\r\n").be_closed()


@ending
def y_not_decided(port: int) -> None:
    opened(port, "broken").be_closed()


@ending
def y_runs_out(port: int) -> None:
    opened(port, "short").be_closed()


@ending
def y_goes_before_it_runs_out(port: int) -> None:
    joined(port, "long").close()


@ending
def y_goes_while_it_is_decided(port: int) -> None:
    opened(port, "slow").cut()


@ending
def y_deleted_document(port: int) -> None:
    opened(port, f"deleted?{next(_numbers)}").be_closed()


# Clients of Hocuspocus


def socket(port: int, headers: str = "") -> BlockingWebSocket:
    return BlockingWebSocket(port, "/hocuspocus", headers)


def of_type(number: int, kind: int | None = None) -> Callable[[bytes], bool]:
    def accept(data: bytes) -> bool:
        frame = hp.parse(data)
        return frame.type == number and (kind is None or frame.fields[0] == kind)

    return accept


def has_joined(port: int, name: str = "d", token: str = "") -> BlockingWebSocket:
    client = socket(port)
    join(client, name, token)
    return client


def join(client: BlockingWebSocket, name: str, token: str = "") -> None:
    client.send(hp.auth(name, token), hp.step1(name), hp.step2(name, y.EMPTY_UPDATE))
    client.read_until(of_type(hp.SYNC, y.STEP2))
    client.read_until(of_type(hp.SYNC_STATUS))


def be_denied(client: BlockingWebSocket, name: str, token: str = "") -> None:
    client.send(hp.auth(name, token), hp.step1(name))
    client.read_until(of_type(hp.AUTH, hp.PERMISSION_DENIED))


@ending
def h_closes(port: int) -> None:
    has_joined(port).close()


@ending
def h_goes(port: int) -> None:
    client = has_joined(port)
    client.end()
    client.read_to_the_end()


@ending
def h_is_cut(port: int) -> None:
    has_joined(port).cut()


@ending
def h_is_cut_before_it_says_anything(port: int) -> None:
    socket(port).cut()


@ending
def h_edits(port: int) -> None:
    client = has_joined(port)
    client.send(hp.update("d", edit()))
    client.read_until(of_type(hp.SYNC_STATUS))
    client.send(hp.awareness("d", (next(_numbers), 1, "{}")))
    client.read_until(of_type(hp.AWARENESS))
    client.close()


@ending
def h_edits_and_is_cut(port: int) -> None:
    client = has_joined(port)
    client.send(hp.update("d", edit()))
    client.cut()


@ending
def h_reads_nothing(port: int) -> None:
    client = has_joined(port, "large")
    client.send(*[hp.step1("large")] * 20)
    client.cut()


@ending
def h_closes_a_document_while_its_line_is_measured(port: int) -> None:
    client = has_joined(port, "d")
    client.send(hp.auth("larger", ""), hp.step1("larger"), hp.step2("larger", y.EMPTY_UPDATE))
    client.read_until(lambda data: data.startswith(b"\x06larger") and of_type(hp.SYNC, y.STEP1)(data))
    client.send(hp.close("larger"))
    client.cut()


@ending
def h_has_many_documents(port: int) -> None:
    client = socket(port)
    for number in range(5):
        join(client, f"one of {number}")
    client.close()


@ending
def h_closes_a_document(port: int) -> None:
    client = has_joined(port)
    client.send(hp.close("d"))
    client.read_until(of_type(hp.CLOSE))
    client.close()


@ending
def h_closes_and_opens_a_document(port: int) -> None:
    client = has_joined(port)
    client.send(hp.close("d"), hp.auth("d"), hp.step1("d"))
    client.read_until(of_type(hp.SYNC, y.STEP2))
    client.close()


@ending
def h_closes_what_it_never_opened(port: int) -> None:
    client = has_joined(port)
    client.send(hp.close("another"))
    client.read_until(of_type(hp.CLOSE))
    client.close()


@ending
def h_closes_documents_and_goes(port: int) -> None:
    client = has_joined(port)
    client.send(*(hp.close(f"another {number}") for number in range(5)))
    client.close()


@ending
def h_denied(port: int) -> None:
    client = socket(port)
    be_denied(client, "secret 1")
    client.close()


@ending
def h_denied_over_and_over(port: int) -> None:
    client = has_joined(port)
    for number in range(5):
        be_denied(client, f"secret {number % 2}")
    client.close()


@ending
def h_denied_by_its_origin(port: int) -> None:
    client = socket(port, "Origin: https://elsewhere.example\r\n")
    be_denied(client, "a")
    be_denied(client, "b")
    client.close()


@ending
def h_not_decided(port: int) -> None:
    client = socket(port)
    client.send(hp.auth("broken"))
    client.be_closed()


@ending
def h_not_decided_beside_another(port: int) -> None:
    client = has_joined(port)
    client.send(hp.auth("broken"), hp.step1("broken"))
    client.ping()
    client.close()


@ending
def h_deleted_document(port: int) -> None:
    client = socket(port)
    be_denied(client, "deleted")
    client.close()


@ending
def h_malformed(port: int) -> None:
    client = has_joined(port)
    client.send(hp.frame("d", hp.SYNC, b"\x07"))
    client.read_until(of_type(hp.AUTH, hp.PERMISSION_DENIED))
    client.close()


@ending
def h_malformed_update(port: int) -> None:
    client = has_joined(port)
    client.send(hp.update("d", edit()[:-1]), hp.update("d", edit(50_000)[:-1]))
    client.read_until(of_type(hp.SYNC_STATUS, 0))
    client.read_until(of_type(hp.SYNC_STATUS, 0))
    client.close()


@ending
def h_reader_that_writes(port: int) -> None:
    client = has_joined(port, token="read")
    client.send(hp.update("d", edit()), hp.update("d", edit(50_000)), hp.stateless("d", "x"))
    client.read_until(of_type(hp.SYNC_STATUS, 0))
    client.read_until(of_type(hp.SYNC_STATUS, 0))
    client.close()


@ending
def h_stateless_that_is_too_long(port: int) -> None:
    client = has_joined(port)
    client.send(hp.stateless("d", "x" * 70_000))
    client.read_until(of_type(hp.STATELESS))
    client.close()


@ending
def h_unreadable(port: int) -> None:
    client = has_joined(port)
    client.send(b"")
    client.be_closed()


@ending
def h_sends_text(port: int) -> None:
    client = has_joined(port)
    client.send_text("hello")
    client.be_closed()


@ending
def h_broadcasts(port: int) -> None:
    client = has_joined(port)
    client.send(hp.broadcast_stateless("d", "x"))
    client.read_until(of_type(hp.CLOSE))
    client.close()


@ending
def h_too_many_before_authentication(port: int) -> None:
    client = socket(port)
    client.send(*(hp.step2(f"another {number}", y.EMPTY_UPDATE) for number in range(200)))
    client.be_closed()


@ending
def h_renews_its_token(port: int) -> None:
    client = has_joined(port)
    client.send(hp.auth("d", "read"))
    client.read_until(of_type(hp.AUTH))
    client.close()


@ending
def h_renews_its_token_and_is_denied(port: int) -> None:
    client = has_joined(port)
    be_denied(client, "d", "bad")
    client.close()


@ending
def h_runs_out(port: int) -> None:
    client = socket(port)
    client.send(hp.auth("short"), hp.step1("short"))
    client.be_closed()


@ending
def h_goes_before_it_runs_out(port: int) -> None:
    has_joined(port, "long").close()


@ending
def h_goes_while_it_is_decided(port: int) -> None:
    client = socket(port)
    client.send(hp.auth("slow"), hp.step1("slow"))
    client.ping()
    client.cut()


@ending
def h_shows_another_token_while_it_is_decided(port: int) -> None:
    client = socket(port)
    client.send(hp.auth("slow", "one"), hp.step1("slow"), hp.auth("slow", "two"))
    client.ping()
    client.close()


# Requests


@ending
def http_sends_no_request(port: int) -> None:
    client = BlockingSocket(port)
    client.write(b"GET /ws/d HTTP")
    client.cut()


@ending
def http_waits_for_a_body_and_goes(port: int) -> None:
    client = BlockingSocket(port)
    client.write(POST.replace(b"Host: x", b"Host: 127.0.0.1:%d" % port) + b"Content-Length: 1000\r\n\r\n{")
    client.cut()


@ending
def http_sends_much_and_goes(port: int) -> None:
    client = BlockingSocket(port)
    chunks = b"1\r\nx\r\n" * 40_000
    with contextlib.suppress(ConnectionError):
        client.write(POST.replace(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked") + b"\r\n" + chunks)
    client.cut()


@ending
def http_is_answered(port: int) -> None:
    request(port, "GET /healthz", 200)


@ending
def http_is_denied(port: int) -> None:
    request(port, "GET /api/v1/documents/secret%20x", 403)


@ending
def http_is_no_websocket(port: int) -> None:
    request(port, "GET /ws/d", 400)


@ending
def http_is_no_http(port: int) -> None:
    client = BlockingSocket(port)
    client.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert client.read_to_the_end().startswith(b"HTTP/1.0 400 ")


def request(port: int, line: str, status: int, headers: str = "") -> None:
    client = BlockingSocket(port)
    client.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{headers}\r\n".encode())
    answer = client.read_to_the_end()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]


# What a socket can repeat as often as it likes


def repeats(client: BlockingWebSocket, *messages: bytes, times: int, answered: Callable[[bytes], bool]) -> None:
    for _ in range(times):
        client.send(*messages)
        client.read_until(answered)


@repeated
def y_asks(port: int, times: int) -> BlockingSocket:
    client = joined(port)
    repeats(client, y.step1(), times=times, answered=lambda data: data[:2] == bytes((y.SYNC, y.STEP2)))
    return client


@repeated
def y_edits_on(port: int, times: int) -> BlockingSocket:
    client = joined(port)
    for _ in range(times):
        client.send(y.update(edit()), y.awareness((1, next(_numbers), "{}")))
        client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.UPDATE)))
    client.ping()
    return client


@repeated
def y_pings(port: int, times: int) -> BlockingSocket:
    client = joined(port)
    for _ in range(times):
        client.ping()
    return client


@repeated
def y_shows_what_is_malformed(port: int, times: int) -> BlockingSocket:
    client = joined(port)
    for _ in range(times):
        number = next(_numbers)
        client.send(y.awareness((number, 1, "{")), b"\x01", y.awareness((number, 2, "{}"), (number + 1, 1, "{")))
        client.send(y.awareness((number, 2, "null")), y.update(edit()))
        client.read_until(lambda data: data[:2] == bytes((y.SYNC, y.UPDATE)))
    return client


@repeated
def h_edits_on(port: int, times: int) -> BlockingSocket:
    client = has_joined(port)
    for _ in range(times):
        client.send(hp.update("d", edit()), hp.awareness("d", (2, next(_numbers), "{}")))
    for _ in range(times):
        client.read_until(of_type(hp.SYNC_STATUS))
    return client


@repeated
def h_closes_what_is_not_open(port: int, times: int) -> BlockingSocket:
    client = has_joined(port)
    client.send(*(hp.close(f"another {number}") for number in range(times)))
    for _ in range(times):
        client.read_until(of_type(hp.CLOSE))
    return client


@repeated
def h_comes_and_goes(port: int, times: int) -> BlockingSocket:
    client = socket(port)
    repeats(client, hp.auth("d"), hp.close("d"), hp.auth("d"), hp.close("d"), times=times, answered=of_type(hp.AUTH))
    return client


@repeated
def h_is_denied_and_closes(port: int, times: int) -> BlockingSocket:
    client = has_joined(port)
    for number in range(times):
        be_denied(client, f"secret {number}")
        client.send(hp.close(f"secret {number}"))
    return client


@repeated
def h_is_malformed_and_comes_back(port: int, times: int) -> BlockingSocket:
    client = socket(port)
    refused = of_type(hp.AUTH, hp.PERMISSION_DENIED)
    repeats(client, hp.auth("d"), hp.frame("d", hp.SYNC, b"\x07"), times=times, answered=refused)
    return client


@repeated
def h_broadcasts_and_comes_back(port: int, times: int) -> BlockingSocket:
    client = socket(port)
    repeats(client, hp.auth("d"), hp.broadcast_stateless("d", ""), times=times, answered=of_type(hp.CLOSE))
    return client


@repeated
def h_renews_its_token_for_ever(port: int, times: int) -> BlockingSocket:
    client = has_joined(port)
    for number in range(times):
        client.send(hp.auth("d", "read" if number % 2 else "admin"), hp.auth("d", "" if number % 2 else "read"))
        client.ping()
    return client


@repeated
def h_shows_one_token_after_the_other(port: int, times: int) -> BlockingSocket:
    client = socket(port)
    for number in range(times):
        client.send(hp.auth("slow", str(number)))
        client.ping()
    return client


# What is counted

OURS = ("collab.", "aiohttp.")
THE_LOOPS = ("uvloop", "asyncio", "_asyncio")

# What a document holds, whose client IDs were there, what the journal has written last, what is due of its timeline,
# and the last job of the sandbox, is no connection's. Nor are the newest entries of the audit, of which there are a
# thousand of each group at most.
_OF_A_DOCUMENT = (
    *("collab.engine.document", "collab.engine.kept", "collab.engine.tail", "collab.engine.departed"),
    *("collab.storage", "collab.authorship", "collab.hub.timeline", "collab.history"),
    "collab.audit.entries",
)


# What a task that waits has: one of each at most.
_OF_A_WAIT = frozenset(
    {"_asyncio.Future", "_asyncio.FutureIter", "uvloop.loop.TimerHandle", "uvloop.loop.UVTimer", "uvloop.loop.Handle"}
)


def left(least: int, modules: tuple[str, ...]) -> dict[str, int]:
    """Return the types of which ``least`` objects stay; what was there before is frozen and not looked at."""
    kinds = Counter(type(one) for one in gc.get_objects())
    # The server's own tasks sleep, look and sleep again: what each of them waits for is newer than itself.
    waiting = len(asyncio.all_tasks())
    for kind in kinds:
        if f"{kind.__module__}.{kind.__qualname__}" in _OF_A_WAIT:
            kinds[kind] -= waiting
    return {
        f"{kind.__module__}.{kind.__qualname__}": count
        for kind, count in kinds.items()
        if count >= least
        and (kind.__module__.startswith(modules) or issubclass(kind, (FrameType, TracebackType)))
        and not kind.__module__.startswith(_OF_A_DOCUMENT)
    }


async def expect_nothing_left(least: int, modules: tuple[str, ...] = OURS + THE_LOOPS) -> None:
    """Wait until next to nothing is left."""
    with contextlib.suppress(AssertionError):
        await happens(lambda: not left(least, modules), "nothing left", SOON)
    assert left(least, modules) == {}


@pytest.fixture(scope="module", autouse=True)
def thawed() -> Iterator[None]:
    """Let the collector see again what was frozen here, but once: all that is collected of tests is among it."""
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Keep the collector off, and what is there already out of ``gc.get_objects``, also afterwards: see `thawed`.

    Every line of the log is written, as ``collab serve --log-level debug`` does, and by nobody else: pytest keeps
    the records, and they hold what is told.
    """
    handlers = logging.getLogger().handlers
    others, handlers[:] = list(handlers), []
    configure("debug", io.StringIO())
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        handlers[:] = others


async def check_ending(served: Served, end: Callable[[int], None], modules: tuple[str, ...] = OURS + THE_LOOPS) -> None:
    def several(times: int) -> None:
        for _ in range(times):
            end(served.port)

    await asyncio.to_thread(several, 2)  # what is made once, the first time
    await served.all_ended()
    with without_collector():
        await asyncio.to_thread(several, TIMES)
        await served.all_ended()
        await expect_nothing_left(STAY, modules)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
async def test_a_connection_that_has_ended_leaves_nothing_behind(served: Served, end: Callable[[int], None]) -> None:
    await check_ending(served, end)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("repeat", REPEATED, ids=lambda repeat: repeat.__name__)
async def test_what_an_open_socket_repeats_leaves_nothing_behind(
    served: Served, repeat: Callable[[int, int], BlockingSocket]
) -> None:
    (await asyncio.to_thread(repeat, served.port, 2)).cut()
    await served.all_ended()
    with without_collector():
        client = await asyncio.to_thread(repeat, served.port, REPEATS)
        await expect_nothing_left(REPEATS // 2)
    client.cut()
    await served.all_ended()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/ws/d", "/hocuspocus"])
async def test_a_socket_that_is_open_keeps_nothing_of_its_request(served: Served, path: str) -> None:
    client = await asyncio.to_thread(BlockingWebSocket, served.port, path, "X-Marked: kept for nothing\r\n")
    (handler,) = served.connections

    def kept() -> list[object]:
        found = [one for one in gc.get_objects() if isinstance(one, CIMultiDictProxy) and "X-Marked" in one]
        return [*found, *filter(None, (handler._parser, handler._messages, handler._cache))]

    await happens(lambda: not kept(), "the end of what is not needed any more")
    client.cut()
    await served.all_ended()


async def test_documents_that_have_left_memory_leave_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path, idle_seconds=0) as served:

        def come_and_go(times: int) -> None:
            for number in range(times):
                client = has_joined(served.port, f"{times} {number}")
                client.send(hp.update(f"{times} {number}", edit()))  # so there is a snapshot to make
                client.read_until(of_type(hp.SYNC_STATUS))
                client.close()
                joined(served.port, f"{times} {number}").close()

        await asyncio.to_thread(come_and_go, 2)
        await happens(lambda: not served.hub.rooms, "an empty memory")
        with without_collector():
            await asyncio.to_thread(come_and_go, TIMES)
            await happens(lambda: not served.hub.rooms, "an empty memory")
            await expect_nothing_left(STAY)


def test_on_the_loop_of_asyncio_nothing_of_ours_stays_either(tmp_path: Path) -> None:
    # Its transports are cycles by themselves, and it keeps the timers that were cancelled.
    async def check() -> None:
        async with serving(tmp_path) as served:
            for end in (
                y_closes,
                y_malformed,
                y_runs_out,
                h_closes,
                h_closes_documents_and_goes,
                h_goes_while_it_is_decided,
                h_runs_out,
                http_is_answered,
            ):
                await check_ending(served, end, OURS)

    asyncio.run(check())
