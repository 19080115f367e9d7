"""The direct way past an outbox: there while nothing is to be decided, and at no other time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from collab.hub.member import SMALL
from collab.protocol.messages import CloseCode
from collab.transports.sockets.deflate import SMALLEST
from collab.transports.sockets.frames import binary_frame
from collab.transports.sockets.outbox import SocketOutbox
from collab.transports.sockets.pacing import PORTION, Pacer
from collab.transports.sockets.wire_log import Described, LoggedOutbox, WireLog
from tests.support.waiting import happens


class Line:
    """A connection to this process: what its outbox writes to, and what comes out at the other end."""

    def __init__(self, transport: asyncio.Transport, reader: asyncio.StreamReader, pacer: Pacer) -> None:
        self.transport = transport
        self.reader = reader
        self.pacer = pacer
        self.outbox = SocketOutbox(transport, 1 << 20, pacer)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.put_nowait(cast(asyncio.Transport, transport))  # uvloop's is no subclass

    server = await loop.create_server(Accepting, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 22)
    pacer = Pacer()
    transport = await accepted.get()
    yield Line(transport, reader, pacer)
    pacer.close()
    transport.abort()
    writer.close()
    server.close()


async def test_a_small_frame_takes_the_same_way_directly(line: Line) -> None:
    frame = binary_frame(b"x" * 100)
    assert line.outbox.direct is not None
    line.outbox.direct(frame)
    line.outbox.write(frame)
    assert line.outbox.buffered() == 0
    assert await line.reader.readexactly(2 * len(frame)) == 2 * frame


def test_a_frame_that_may_be_compressed_is_not_small() -> None:
    assert SMALL <= SMALLEST


async def test_there_is_no_direct_way_while_a_large_frame_is_on_its_way(line: Line) -> None:
    large, small = binary_frame(bytes(3 * PORTION)), binary_frame(b"behind")
    line.outbox.write(large)
    assert line.outbox.direct is None, "it would stand in the middle of the large one"
    line.outbox.write(small)
    assert await line.reader.readexactly(len(large) + len(small)) == large + small
    await happens(lambda: line.outbox.direct is not None, "the direct way")


@pytest.mark.parametrize("end", ["close", "cut", "abort", "closed_by_client", "release"])
async def test_there_is_none_once_it_is_closing(line: Line, end: str) -> None:
    arguments = {"close": (CloseCode(1001, ""),), "cut": (CloseCode(1001, ""),), "closed_by_client": (1000,)}
    getattr(line.outbox, end)(*arguments.get(end, ()))
    assert line.outbox.closing and line.outbox.direct is None
    assert line.outbox.write(binary_frame(b"late")) == 0


async def test_an_outbox_that_writes_a_line_for_each_frame_has_none(line: Line) -> None:
    wire = WireLog(1, "192.0.2.1", lambda frame: Described(None, "Update"))
    assert LoggedOutbox(line.transport, 1 << 20, line.pacer, wire).direct is None
