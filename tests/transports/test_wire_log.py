"""The log of the wire at DEBUG: a line a frame with connection, document, kind and size, and no content or token."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from collab.app import HUB
from collab.protocol.messages import CloseCode
from collab.transports.sockets.frames import binary_frame, close_frame, pong_frame
from collab.transports.sockets.outbox import SocketOutbox
from collab.transports.sockets.pacing import PORTION
from collab.transports.sockets.wire_log import LoggedOutbox, split_frames
from tests.support.hocuspocus import RawHocuspocus, auth, awareness, close, query_awareness, stateless, step1, update
from tests.support.snippets import snippet
from tests.support.waiting import happens
from tests.support.wsclient import EMPTY_UPDATE, RawClient, step2, text_update
from tests.support.wsclient import awareness as plain_awareness
from tests.support.wsclient import update as plain_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_hocuspocus import Scripted

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

SECRET = "s3cret"

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


class Line(NamedTuple):
    mark: str
    kind: str
    size: int
    document_name: str | None


class Log:
    """The lines of the wire that were written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def text(self) -> str:
        return self._caplog.text

    def lines(self) -> list[Line]:
        found = []
        for record in self._caplog.records:
            match = re.fullmatch(r"\[(\d+) 127\.0\.0\.1(?: '(.*)')?\] ([<>]) (.*), (\d+) bytes", record.getMessage())
            if match is None:
                continue
            number, name, mark, kind, size = match.groups()
            assert record.name == "collab.connection" and record.levelno == logging.DEBUG
            values = record.__dict__
            assert (str(values["connection"]), values["peer"], values["document_name"]) == (number, "127.0.0.1", name)
            found.append(Line(mark, kind, int(size), name))
        return found

    async def until(self, line: Line) -> None:
        await happens(lambda: line in self.lines(), f"the line {line}; there are {self.lines()}")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.DEBUG, "collab")
    return Log(caplog)


def outboxes(served: Served) -> list[SocketOutbox]:
    members = [member for live in served.app[HUB].rooms.values() for member in live.members]
    return [member.outbox for member in members if isinstance(member.outbox, SocketOutbox)]


async def test_a_session_of_y_websocket_is_a_line_a_frame(serve: Serve, connect: Connect, log: Log) -> None:
    served = await serve()
    client = await connect(served.ws("notes/%C3%A4?token=" + SECRET))
    edit, name = text_update(1, SECRET), "notes/ä"
    await client.send(step2(EMPTY_UPDATE), plain_update(edit), plain_awareness((7, 1, f'{{"x":"{SECRET}"}}')), b"\x03")
    await client.send(b"\x02", b"\x2a" + SECRET.encode())
    await client.barrier()
    await client.close()
    shown = len(plain_awareness((7, 1, f'{{"x":"{SECRET}"}}')))
    await log.until(Line(">", "Close 1000", 2, name))
    lines = log.lines()
    assert lines[0] == Line(">", "SyncStep1", 4, name), "the server speaks first"
    assert [line for line in lines if line.mark == "<"] == [
        Line("<", "SyncStep2", 5, name),
        Line("<", "SyncUpdate", len(plain_update(edit)), name),
        Line("<", "Awareness", shown, name),
        Line("<", "QueryAwareness", 1, name),
        Line("<", "Auth", 1, name),
        Line("<", "unknown type 42", 7, name),
        Line("<", "SyncStep1", 4, name),
        Line("<", "Close 1000", 2, name),
    ]
    assert Line(">", "SyncUpdate", len(plain_update(edit)), name) in lines
    assert Line(">", "Awareness", shown, name) in lines
    assert SECRET not in log.text


async def test_a_session_of_hocuspocus_is_a_line_a_frame(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, log: Log
) -> None:
    served = await serve(authenticator=Scripted())
    client = await connect_hocuspocus(served.hocuspocus)
    other = await connect_hocuspocus(served.hocuspocus)
    await other.join("d", f"write:{2**20}")
    log._caplog.clear()
    edit, address = text_update(1, SECRET), f"d\0{SECRET}-session"
    prefix = len(address.encode()) + 1
    await client.join(address, f"write:{2**20}")
    await client.send(update(address, edit), awareness(address, (7, 1, f'{{"x":"{SECRET}"}}')))
    await client.send(stateless(address, SECRET), query_awareness(address))
    assert await client.statuses(address, 1) == [1]
    await other.until(lambda: any(SECRET.encode() in frame[-10:] for frame in other.frames), "the stateless message")
    await client.send(auth("denied", "deny"))
    assert await client.denied("denied") == "not this one"
    await client.send(close(address), b"\x09", b"\x0a", b"\x7f")
    await client.expect_close()
    lines = log.lines()
    sent = [line for line in lines if line.mark == "<" and not line.kind.startswith("Close ")]
    assert sent == [
        Line("<", "Auth", len(auth(address, f"write:{2**20}", "4.8.0")), "d"),
        Line("<", "SyncStep1", len(step1(address)), "d"),
        Line("<", "SyncUpdate", len(update(address, edit)), "d"),
        Line("<", "Awareness", len(awareness(address, (7, 1, f'{{"x":"{SECRET}"}}'))), "d"),
        Line("<", "Stateless", len(stateless(address, SECRET)), "d"),
        Line("<", "QueryAwareness", prefix + 1, "d"),
        Line("<", "Auth", len(auth("denied", "deny")), "denied"),
        Line("<", "CLOSE", prefix + 1, "d"),
        Line("<", "Ping message", 1, None),
        Line("<", "Pong message", 1, None),
        Line("<", "unreadable address", 1, None),
    ]
    for line in (
        Line(">", "Auth", prefix + 2 + 11, "d"),
        Line(">", "SyncStep1", prefix + 4, "d"),
        Line(">", "SyncStatus", prefix + 2, "d"),
        Line(">", "SyncUpdate", len(update(address, edit)), "d"),
        Line(">", "Stateless", len(stateless("d", SECRET)), "d"),
        Line(">", "Auth", len("denied") + 1 + 2 + len("not this one") + 1, "denied"),
        Line(">", "Pong message", 1, None),
    ):
        assert line in lines, line
    assert any(line.mark == ">" and line.kind == "Close 4401" for line in lines)
    for content in (SECRET, str(2**20), "not this one"):
        assert content not in log.text


async def test_a_refused_client_is_a_line_with_its_code(serve: Serve, connect: Connect, log: Log) -> None:
    served = await serve(authenticator=Scripted())
    client = await connect(served.ws("d?token=deny"))
    assert await client.expect_close() == 4403
    await log.until(Line("<", "Close 1000", 2, "d"))
    assert log.lines() == [Line(">", "Close 4403", 2 + len("not this one"), "d"), Line("<", "Close 1000", 2, "d")]
    client = await connect(served.ws("%20?token=write"))
    assert await client.expect_close() == 4400
    assert [line.document_name for line in log.lines()][2:3] == [None], "it is no name"


async def test_control_frames_and_texts_are_lines(serve: Serve, log: Log) -> None:
    served = await serve()
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(served.ws("d"), autoping=False)
        await socket.ping(SECRET.encode())
        while (await socket.receive(20)).type is not aiohttp.WSMsgType.PONG:
            pass
        await socket.pong(b"ab")
        await socket.send_str("ä")
        while (await socket.receive(20)).type is not aiohttp.WSMsgType.CLOSE:
            pass
        await socket.close()
    await log.until(Line("<", "Close 1000", 2, "d"))
    lines = log.lines()
    for line in (
        Line("<", "Ping", 6, "d"),
        Line(">", "Pong", 6, "d"),
        Line("<", "Pong", 2, "d"),
        Line("<", "text", 2, "d"),
        Line(">", "Close 1003", 2 + len("binary frames only"), "d"),
    ):
        assert line in lines, line
    assert SECRET not in log.text


async def test_a_ping_of_the_server_and_a_keepalive_are_lines(serve: Serve, connect: Connect, log: Log) -> None:
    served = await serve(keepalive_seconds=0.2, ping_seconds=0.2)
    await connect(served.ws("d"))
    await log.until(Line(">", "Awareness", 3, "d"))
    await log.until(Line(">", "Ping", 0, "d"))
    await log.until(Line("<", "Pong", 0, "d"))


async def test_a_close_without_a_code_is_a_line(serve: Serve, connect: Connect, log: Log) -> None:
    served = await serve()
    client = await connect(served.ws("d"))
    client.cut(b"\x88\x80" + bytes(4))
    await client.until(lambda: client.close_code is not None, "the answer")
    assert [line for line in log.lines() if line.kind == "Close"] == [
        Line("<", "Close", 0, "d"),
        Line(">", "Close", 0, "d"),
    ]


async def test_a_large_frame_that_leaves_in_portions_is_one_line(serve: Serve, connect: Connect, log: Log) -> None:
    served = await serve()
    client = await connect(served.ws("d"))
    edit = text_update(1, SECRET * (PORTION // 2))
    assert len(edit) > 2 * PORTION
    await client.send(step2(edit))
    await client.expect_sync(2)  # the echo; asked for before, one frame would be both
    await client.barrier()
    size = len(step2(edit))
    assert log.lines().count(Line("<", "SyncStep2", size, "d")) == 1
    # The echo and the answer to the step 1.
    await happens(lambda: sum(line.size == size for line in log.lines()) == 3, "both large frames")
    assert Line(">", "SyncUpdate", size, "d") in log.lines() and Line(">", "SyncStep2", size, "d") in log.lines()
    assert SECRET not in log.text


async def test_frames_that_are_written_together_are_a_line_each(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, log: Log
) -> None:
    served = await serve()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    edit = text_update(1, "a")
    # What one client alone has sent comes back in one write with its acknowledgement.
    await client.send(update("d", edit))
    await client.find_sync("d", 2)
    await client.statuses("d", 1)
    last = [line for line in log.lines() if line.mark == ">"][-2:]
    assert last == [Line(">", "SyncStatus", 4, "d"), Line(">", "SyncUpdate", len(update("d", edit)), "d")]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
async def test_nothing_is_logged_and_nothing_looked_at_while_debug_is_off(
    serve: Serve,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    caplog: pytest.LogCaptureFixture,
    level: int,
) -> None:
    caplog.set_level(level, "collab")
    served = await serve()
    client = await connect(served.ws("d"))
    other = await connect_hocuspocus(served.hocuspocus)
    await other.join("d")
    await client.send(plain_update(text_update(1, "a")))
    await client.barrier()
    assert [type(outbox) for outbox in outboxes(served)] == [SocketOutbox, SocketOutbox]
    assert Log(caplog).lines() == []
    assert not [record for record in caplog.records if record.name == "collab.connection"]


async def test_it_is_on_for_the_connections_that_begin_while_it_is_on(
    serve: Serve, connect: Connect, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve()
    early = await connect(served.ws("d"))
    await early.barrier()
    assert [type(outbox) for outbox in outboxes(served)] == [LoggedOutbox]
    caplog.set_level(logging.INFO, "collab")
    late = await connect(served.ws("d"))
    await late.barrier()
    assert [type(outbox) for outbox in outboxes(served)] == [LoggedOutbox, SocketOutbox]
    caplog.set_level(logging.DEBUG, "collab")
    before = len(log.lines())
    await late.barrier()
    assert len(log.lines()) == before
    await early.barrier()
    assert log.lines()[before:] == [Line("<", "SyncStep1", 4, "d"), Line(">", "SyncStep2", 5, "d")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_frames_are_found_whatever_their_size(size: int) -> None:
    payload = bytes(size)
    code = CloseCode(1000, "bye")
    data = binary_frame(payload) + pong_frame(b"x") + binary_frame(b"y") + close_frame(code)
    assert list(split_frames(data)) == [(0x82, payload), (0x8A, b"x"), (0x82, b"y"), (0x88, b"\x03\xe8bye")]


def test_the_documentation_says_how_to_turn_it_on() -> None:
    text = DOCS.read_text()
    assert "--log-level debug" in text and 'getLogger("collab.connection").setLevel(logging.DEBUG)' in text
    examples = snippet("docs/operations.md", "The log of the wire", "").splitlines()
    assert len(examples) >= 2
    for line in examples:
        assert re.fullmatch(r"\[\d+ \S+ '\S+'\] [<>] \w+, \d+ bytes", line)
