"""A defect of ours behind a socket: logged once, told as one, and nobody else's trouble.

Strategy: the whole application runs in this process, and one method of it fails over what holds a mark. Whatever
the place and the moment, its client is closed with 4500 (never refused, never told that the fault is its own), the
traceback is in the log once, no message is taken twice, and everybody else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import aiohttp
import pytest

from collab.app import HUB, make_guard
from collab.engine.room import Room
from collab.errors import DocumentDeleted, InternalError, InvalidTransition
from collab.hub.admission import Admission
from collab.hub.documents import Documents
from collab.hub.hub import Hub
from collab.hub.room import SLICED, LiveRoom
from collab.hub.tasks import Tasks
from collab.limits.limits import Limits
from collab.protocol.hocuspocus.connection import Connection as HocuspocusProtocol
from collab.protocol.session import Session
from collab.protocol.ywebsocket.connection import Connection as YWebSocketProtocol
from collab.settings import Settings
from collab.transports.guard.door import Door, DoorOptions
from collab.transports.http.http_log import HttpLog
from collab.transports.sockets.connection import Connection
from collab.transports.sockets.outbox import SocketOutbox
from tests.support import api
from tests.support.faults import Fault
from tests.support.hocuspocus import AUTH, PERMISSION_DENIED, SYNC_STATUS, RawHocuspocus, auth
from tests.support.hocuspocus import awareness as addressed_awareness
from tests.support.hocuspocus import close as close_document
from tests.support.hocuspocus import step1 as addressed_step1
from tests.support.hocuspocus import update as addressed_update
from tests.support.waiting import happens
from tests.support.wsclient import (
    EMPTY_UPDATE,
    LiveClient,
    RawClient,
    awareness,
    converge,
    step1,
    step2,
    text_update,
    update,
)
from tests.transports.conftest import Serve, Served
from tests.transports.test_hocuspocus import Scripted

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

MARK = "defective"
TOLD = (4500, "internal error, come back")

SMALL = text_update(66, MARK)
LARGE = text_update(66, MARK + "x" * (2 * SLICED))

DEFECTS = [
    RuntimeError("the defect"),
    AssertionError("the defect"),
    ConnectionResetError("the defect"),  # a bus that is away, say; not the client's connection
    InternalError("the defect"),
    InvalidTransition("the defect"),
]
ids = [type(error).__name__ for error in DEFECTS]


class Log:
    """What was logged of defects."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def errors(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.levelno >= logging.ERROR]

    async def expect_one(self, name: str | None, error: Exception) -> None:
        """There is one line, with the traceback of this error and the document's name."""
        await happens(self.errors, "the log line")
        (record,) = self.errors()
        assert record.name == "collab.connection"
        assert record.exc_info is not None and record.exc_info[1] is error
        assert error.__traceback__ is not None
        assert name is None or record.__dict__["document_name"] == name
        audited = [line.getMessage() for line in self._caplog.records if line.name == "collab.audit"]
        assert all(line.startswith("sign-in: ") for line in audited), "nobody was refused anything"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO)
    return Log(caplog)


class Broken:
    """A method that fails over messages with the mark; ``calls`` counts those."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, *, after: bool) -> None:
        self.calls = 0
        self._patch = monkeypatch
        self._error = error
        self._after = after

    def method(self, owner: type, name: str) -> None:
        """Break a plain method whose second argument is the message."""
        works = getattr(owner, name)

        def fails(this: Any, session: Session, message: Any, **options: Any) -> Any:
            if not self._is_marked(message):
                return works(this, session, message, **options)
            if self._after:
                works(this, session, message, **options)
            raise self._error

        self._patch.setattr(owner, name, fails)

    def generator(self, owner: type, name: str) -> None:
        works = getattr(owner, name)

        def fails(this: Any, session: Session, message: Any, **options: Any) -> Generator[None, None, Any]:
            marked = self._is_marked(message)
            if marked and not self._after:
                yield
                raise self._error
            result = yield from works(this, session, message, **options)
            if marked:
                raise self._error
            return result

        self._patch.setattr(owner, name, fails)

    def coroutine(self, owner: type, name: str) -> None:
        works = getattr(owner, name)

        async def fails(this: Any, session: Session, message: Any, *others: Any) -> None:
            marked = self._is_marked(message)
            if not marked or self._after:
                await works(this, session, message, *others)
            if marked:
                raise self._error

        self._patch.setattr(owner, name, fails)

    def _is_marked(self, message: Any) -> bool:
        marked = any(isinstance(part, bytes) and MARK.encode() in part for part in message)
        self.calls += marked
        return marked


async def told(client: RawClient) -> tuple[int, str | None]:
    return await client.expect_close(), client.close_reason


def refusals(client: RawHocuspocus) -> list[object]:
    return [one for one in client.got(number=AUTH) if one.fields[0] == PERMISSION_DENIED]


async def check_others(served: Served, others: list[LiveClient], *, taken: bool) -> None:
    """Everybody else goes on, and has what was taken once."""
    writer, reader = others
    mark = MARK if taken else ""
    await converge(others, lambda client: str(client.text())[: len(MARK)], mark)
    assert [client.close_code for client in others] == [None, None]
    writer.text().insert(0, "and on ")
    await reader.until(lambda: str(reader.text()).startswith("and on "), "the edit of the other")
    assert str(reader.text()).count(MARK) == taken
    assert len(served.app[HUB].rooms["d"].room.sessions) == 2, "the one that failed has left"


PLACES = ["Room.receive", "LiveRoom.receive"]


def break_small(broken: Broken, place: str) -> None:
    broken.method(*{"Room.receive": (Room, "receive"), "LiveRoom.receive": (LiveRoom, "receive")}[place])


def break_large(broken: Broken, place: str) -> None:
    if place == "Room.receive":
        broken.generator(Room, "receive_in_slices")
    else:
        broken.coroutine(LiveRoom, "receive_in_slices")


def case(size: str, place: str, moment: str, error: Exception) -> Any:
    name = f"{size} {place} {moment} {type(error).__name__}"
    return pytest.param(SMALL if size == "small" else LARGE, place, moment == "after", error, id=name)


# Every place and moment with one class, every class on both ways in: what is usual, and what is read in slices.
cases = pytest.mark.parametrize(
    ("data", "place", "after", "error"),
    [
        case(size, place, moment, error)
        for size in ("small", "large")
        for place in PLACES
        for moment in ("before", "after")
        for error in DEFECTS
        if error is DEFECTS[0] or (place, moment) == ("Room.receive", "after")
    ],
)


# Messages


@cases
async def test_over_a_message_of_y_websocket(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    data: bytes,
    place: str,
    after: bool,
    error: Exception,
) -> None:
    served = await serve()
    broken = Broken(monkeypatch, error, after=after)
    (break_large if data is LARGE else break_small)(broken, place)
    async with LiveClient(served.ws("d")) as writer, LiveClient(served.ws("d")) as reader:
        for client in (writer, reader):
            await client.until_synced()
        bad = await connect(served.ws("d"))
        await bad.expect_sync(0)
        await bad.send(step2(EMPTY_UPDATE))
        await bad.send(update(data), update(text_update(67, "behind it")))
        assert await told(bad) == TOLD
        await check_others(served, [writer, reader], taken=after)
        assert "behind it" not in str(writer.text())
    assert broken.calls == 1
    await log.expect_one("d", error)


@cases
async def test_over_a_message_of_hocuspocus(
    serve: Serve,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    data: bytes,
    place: str,
    after: bool,
    error: Exception,
) -> None:
    served = await serve()
    broken = Broken(monkeypatch, error, after=after)
    (break_large if data is LARGE else break_small)(broken, place)
    async with LiveClient(served.ws("d")) as writer, LiveClient(served.ws("d")) as reader:
        for client in (writer, reader):
            await client.until_synced()
        bad = await connect_hocuspocus(served.hocuspocus)
        await bad.join("d")
        await bad.join("other")
        await bad.send(addressed_update("d", data), addressed_update("d", text_update(67, "behind it")))
        assert await told(bad) == TOLD
        await check_others(served, [writer, reader], taken=after)
        assert "behind it" not in str(writer.text())
    assert broken.calls == 1
    assert len(bad.got("d", SYNC_STATUS)) <= 1
    assert refusals(bad) == []
    await log.expect_one("d", error)
    await happens(lambda: not served.app[HUB].rooms["other"].room.sessions, "the end of its other documents")


async def test_over_a_message_that_waits_for_its_document(
    serve: Serve,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
) -> None:
    served = await serve()
    error = RuntimeError("the defect")
    broken = Broken(monkeypatch, error, after=True)
    broken.method(LiveRoom, "receive")
    bad = await connect_hocuspocus(served.hocuspocus)
    bad.burst(auth("d"), addressed_step1("d"), addressed_update("d", SMALL), addressed_step1("d"))
    assert await told(bad) == TOLD
    assert broken.calls == 1
    assert refusals(bad) == []
    await log.expect_one("d", error)


@pytest.mark.parametrize("error", DEFECTS, ids=ids)
async def test_over_an_awareness_state(
    serve: Serve,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    error: Exception,
) -> None:
    served = await serve()
    broken = Broken(monkeypatch, error, after=False)
    broken.method(Room, "receive")
    good = await connect(served.ws("d"))
    bad = await connect(served.ws("d"))
    await bad.send(awareness((7, 1, f'"{MARK}"')))
    assert await told(bad) == TOLD
    await log.expect_one("d", error)
    other = await connect_hocuspocus(served.hocuspocus)
    await other.join("d")
    await other.send(addressed_awareness("d", (7, 1, f'"{MARK}"')))
    assert await told(other) == TOLD
    assert broken.calls == 2 and len(log.errors()) == 2
    await good.barrier()
    assert good.close_code is None


@pytest.mark.parametrize("method", ["receive_live", "receive"])
async def test_in_the_protocol_itself(
    serve: Serve,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    method: str,
) -> None:
    error = InvalidTransition("the defect")
    served = await serve()
    good = await connect(served.ws("d"))
    bad = await connect(served.ws("d"))
    await bad.barrier()
    other = await connect_hocuspocus(served.hocuspocus)
    await other.join("d")
    unknown = b"\x2a" + MARK.encode()  # is left to ``receive``

    for protocol in (YWebSocketProtocol, HocuspocusProtocol):
        works = getattr(protocol, method)

        def fails(this: Any, frame: bytes, works: Any = works) -> Any:
            if MARK.encode() in frame:
                raise error
            return works(this, frame)

        monkeypatch.setattr(protocol, method, fails)
    await bad.send(unknown)
    assert await told(bad) == TOLD
    await log.expect_one("d" if method == "receive_live" else None, error)
    await other.send(b"\x01d" + unknown)
    assert await told(other) == TOLD
    assert len(log.errors()) == 2
    await good.barrier()


async def test_in_the_reading_of_the_socket(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """aiohttp gives what is raised there to whoever reads on; it must not look like a client that has gone."""
    error = RuntimeError("the defect")
    served = await serve()
    good = await connect(served.ws("d"))
    bad = await connect(served.ws("d"))
    await bad.barrier()
    works = Connection.take

    def fails(this: Any, message: Any) -> bool:
        if MARK.encode() in message.data:
            raise error
        return works(this, message)

    monkeypatch.setattr(Connection, "take", fails)
    late = await connect(served.ws("d"))
    await late.barrier()
    await late.send(update(SMALL))
    assert await told(late) == TOLD
    await log.expect_one("d", error)
    for client in (good, bad):
        await client.barrier()


async def test_while_the_room_is_ended(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """A defect in telling one client does not keep the hub from telling the others."""
    error = RuntimeError("the defect")
    served = await serve()
    plain = await connect(served.ws("d"))
    await plain.barrier()
    await plain.send(update(text_update(1, "a")))
    await plain.barrier()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    await served.app[HUB].rooms["d"].persistence.durable()
    works = YWebSocketProtocol.ended
    failed = asyncio.Event()

    def fails(this: Any, *args: Any) -> Any:
        if failed.is_set():
            return works(this, *args)
        failed.set()
        raise error

    monkeypatch.setattr(YWebSocketProtocol, "ended", fails)
    live = served.app[HUB].rooms["d"]
    served.app[HUB].deleted("d", live.persistence.document_id or 0)
    assert await told(plain) == TOLD
    assert await client.denied("d") == "the document was deleted"
    assert [record.exc_info[1] for record in log.errors() if record.exc_info] == [error]


# Admission


@pytest.mark.parametrize(
    ("step", "error"),
    [("ask", DEFECTS[0]), ("join", DEFECTS[0]), *(("open", error) for error in DEFECTS)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_in_an_admission(
    serve: Serve,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    caplog: pytest.LogCaptureFixture,
    step: str,
    error: Exception,
) -> None:
    served = await serve(authenticator=Scripted())
    good = await connect(served.ws("good?token=write"))
    owner: type = Hub if step == "open" else Admission
    works = getattr(owner, step)

    def fails(this: Any, *args: Any) -> Any:
        if any(MARK in (what if isinstance(what, str) else getattr(what, "name", "")) for what in args):
            raise error
        return works(this, *args)

    monkeypatch.setattr(owner, step, fails)
    plain = await connect(served.ws(f"{MARK}?token=write"))
    assert await told(plain) == TOLD
    await log.expect_one(MARK, error)
    caplog.clear()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("other", "write")  # what may pass is tried again here, a defect is not
    await client.send(auth(MARK, "write"), addressed_update(MARK, SMALL))
    assert await told(client) == TOLD
    assert refusals(client) == []
    await log.expect_one(MARK, error)
    await good.send(step1())
    await good.expect_sync(1)


@pytest.mark.parametrize("error", DEFECTS, ids=ids)
async def test_in_a_renewal(
    serve: Serve,
    connect_hocuspocus: ConnectHocuspocus,
    monkeypatch: pytest.MonkeyPatch,
    log: Log,
    error: Exception,
) -> None:
    served = await serve(authenticator=Scripted())
    good = await connect_hocuspocus(served.hocuspocus)
    await good.join("d", "write")
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d", "write")
    works = Admission.ask

    async def fails(this: Admission, peer: Any, token: str, name: str, ticket: Any = None) -> Any:
        if token == MARK:
            raise error
        return await works(this, peer, token, name, ticket)

    monkeypatch.setattr(Admission, "ask", fails)
    await client.send(auth("d", MARK))
    assert await told(client) == TOLD
    assert refusals(client) == []
    await log.expect_one("d", error)
    await good.barrier_of("d")


# Timers


async def test_when_the_access_runs_out(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    error = RuntimeError("the defect")
    served = await serve(authenticator=Scripted())
    monkeypatch.setattr(YWebSocketProtocol, "expired", raising(error))
    client = await connect(served.ws("d?token=write:1"))
    assert await told(client) == TOLD, "access that has run out is not left to a client over a defect"
    await log.expect_one("d", error)


async def test_when_a_client_is_asked_for_a_token(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    error = RuntimeError("the defect")
    served = await serve(authenticator=Scripted())
    monkeypatch.setattr(HocuspocusProtocol, "expiring", raising(error))
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d", "write:1")
    assert await told(client) == TOLD
    await log.expect_one(None, error)


async def test_when_a_close_is_confirmed(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    error = RuntimeError("the defect")
    served = await serve()
    monkeypatch.setattr(HocuspocusProtocol, "confirm_close", raising(error))
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    await client.send(close_document("d"))
    assert await told(client) == TOLD
    await log.expect_one(None, error)


async def test_in_the_sweep_over_all_sockets(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    error = RuntimeError("the defect")
    served = await serve(keepalive_seconds=0.1)
    bad = await connect(served.ws("bad"))
    good = await connect(served.ws("good"))
    works = Connection.sweep

    def fails(this: Connection[Any], *args: Any) -> None:
        if this.document_name == "bad" and not this.closing:
            raise error
        works(this, *args)

    monkeypatch.setattr(Connection, "sweep", fails)
    assert await told(bad) == TOLD
    await log.expect_one("bad", error)
    seen = len(good.frames)
    await good.until(lambda: len(good.frames) > seen + 1, "more keepalives")


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*args: Any) -> Any:
        raise error

    return fails


# The end of a socket


async def test_when_a_document_is_left(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """The other documents of the socket are left all the same."""
    error = RuntimeError("the defect")
    served = await serve()
    client = await connect_hocuspocus(served.hocuspocus)
    for name in ("first", MARK, "last"):
        await client.join(name)
    rooms = served.app[HUB].rooms
    works = LiveRoom.leave

    def fails(this: LiveRoom, member: Any) -> None:
        if this.name == MARK:
            raise error
        works(this, member)

    monkeypatch.setattr(LiveRoom, "leave", fails)
    await client.close()
    await happens(lambda: not rooms["first"].room.sessions and not rooms["last"].room.sessions, "both are left")
    await log.expect_one(None, error)
    monkeypatch.setattr(LiveRoom, "leave", works)


async def test_when_the_socket_of_y_websocket_is_left(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    error = RuntimeError("the defect")
    served = await serve()
    client = await connect(served.ws("d"))
    await client.barrier()
    monkeypatch.setattr(LiveRoom, "leave", raising(error))
    await client.close()
    await log.expect_one("d", error)


# What is no defect


async def test_a_refusal_of_a_room_is_no_defect(
    serve: Serve,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    log: Log,
) -> None:
    served = await serve()
    plain = await connect(served.ws("d"))
    await plain.expect_sync(0)
    await plain.send(update(SMALL[:-1]))
    assert await told(plain) == (1007, "malformed update")
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    await client.send(addressed_step1("d", b"\x7f"))
    assert await client.denied("d") == "malformed message"
    assert client.close_code is None
    assert log.errors() == []


async def test_a_refusal_concerns_the_session_whose_message_it_was(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """Between a message that is refused while the socket is read and the pump's turn, the hub may end the session."""
    served = await serve()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    live = served.app[HUB].rooms["d"]
    works = LiveRoom.receive

    def ended_meanwhile(this: LiveRoom, member: Any, message: Any) -> None:
        try:
            works(this, member, message)
        finally:
            if any(isinstance(part, bytes) and MARK.encode() in part for part in message):
                live.end(member, DocumentDeleted("deleted by the test"))

    monkeypatch.setattr(LiveRoom, "receive", ended_meanwhile)
    await client.send(addressed_step1("d", b"\x7f" + MARK.encode()))
    assert await client.denied("d") == "the document was deleted"
    await client.join("other")
    assert len(refusals(client)) == 1
    assert client.close_code is None
    assert log.errors() == []


# What looks after all connections


@pytest.mark.parametrize("what", ["door", "guard"])
async def test_what_keeps_the_bounds_goes_on(monkeypatch: pytest.MonkeyPatch, log: Log, what: str) -> None:
    error = RuntimeError("the defect")
    guard = make_guard(Settings(), authenticated=True)
    door = Door(guard, DoorOptions(15, 75, 60, 10))
    monkeypatch.setattr(f"collab.transports.guard.{what}._LOOK_SECONDS", 0.001)
    rounds = 0

    def look(*args: Any) -> None:
        nonlocal rounds
        rounds += 1
        if rounds <= 2:
            raise error

    owner, method = (Door, "_look") if what == "door" else (Limits, "sweep")
    monkeypatch.setattr(owner, method, look)
    monkeypatch.setattr("collab.hub.tasks._FIRST_PAUSE", 0.001)
    tasks = Tasks()
    tasks.supervise(door.watch if what == "door" else guard.watch, "watch")
    await happens(lambda: rounds > 3, "more looks")
    await tasks.close()
    assert [record.exc_info[1] for record in log.errors() if record.exc_info] == [error, error]


# HTTP


@pytest.mark.parametrize("error", [InternalError("s3cret"), InvalidTransition("s3cret"), RuntimeError("s3cret")])
async def test_a_defect_behind_the_api_is_told_as_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log: Log, error: Exception
) -> None:
    served = await serve()
    monkeypatch.setattr(Documents, "describe", raising(error))
    async with aiohttp.ClientSession() as session, session.get(f"{served.url}/api/v1/documents/d") as response:
        assert response.status == 500
        assert await api.told(response) == "internal error, come back"
    (record,) = log.errors()
    assert record.name == "collab.http" and record.exc_info is not None and record.exc_info[1] is error


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (RuntimeError("x"), True),
        (ConnectionRefusedError("x"), True),
        (ConnectionError("x"), True),
        (BrokenPipeError("x"), False),
        (ConnectionResetError("x"), False),
        (ConnectionAbortedError("x"), False),
    ],
)
def test_a_peer_that_has_gone_is_no_defect_and_a_refused_connection_is_no_peer(
    log: Log, error: Exception, logged: bool
) -> None:
    HttpLog().exception("Error handling request", exc_info=error)
    assert [record.exc_info[1] for record in log.errors() if record.exc_info] == ([error] if logged else [])


# What runs when a session is ended because of a defect.
ENDING = [
    (Hub, "evict"),
    (LiveRoom, "end_all"),
    (LiveRoom, "end"),
    (Connection, "end"),
    (Connection, "fail"),
    (SocketOutbox, "close"),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a generator that is being closed
@pytest.mark.parametrize(("owner", "method"), ENDING, ids=[f"{owner.__name__}.{method}" for owner, method in ENDING])
async def test_a_client_is_closed_though_its_end_has_no_memory_at_any_call(
    serve: Serve, owner: type, method: str
) -> None:
    """A socket that stayed open after that would wait for ever for answers that nobody gives."""
    served = await serve(keepalive_seconds=0.1)
    hub, places, hit = served.app[HUB], 0, True
    while hit:
        name = f"d{places}"
        async with RawHocuspocus(served.hocuspocus) as told, RawClient(served.ws(name)) as plain:
            await told.join(name)
            await plain.expect_sync(0)
            live = hub.rooms[name]
            with Fault(owner, method, places, MemoryError) as fault, contextlib.suppress(MemoryError):
                if method == "fail":
                    for member in list(live.members):
                        with contextlib.suppress(MemoryError):
                            member.client.fail(RuntimeError("a defect"))
                else:
                    hub.failed(live, RuntimeError("a defect"))
            hit = fault.hit
            for client in (told, plain):
                await client.until(lambda: client.close_code is not None, f"it is closed, place {places}")  # noqa: B023
                assert client.close_code == TOLD[0]
        # It comes back should the sweep find the old room still there.
        async with LiveClient(served.ws(name), keep=True) as again:
            await again.until_synced()
        places += 1
    assert places >= 3, "the walk has found nothing to walk"
