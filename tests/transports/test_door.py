"""The door with connections from addresses that a test on one machine does not have.

Strategy: the door's own protocols with a transport of the test's own. What needs real sockets is in
tests/hostile/test_limits.py; there everybody comes from this machine, whose address is not counted.
"""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web

from collab.app import make_guard
from collab.settings import Settings
from collab.transports.guard.door import _AT_ONCE as AT_ONCE
from collab.transports.guard.door import _SLICE as SLICE
from collab.transports.guard.door import Door, DoorOptions
from tests.support.waiting import happens

ADA, BOB, PROXY = "203.0.113.7", "198.51.100.9", "10.0.0.5"


class Wire(asyncio.Transport):
    """A connection from ``address``."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40_000)})
        self.cut = False
        self.reading = True
        self.written = b""

    def abort(self) -> None:
        self.cut = True

    def close(self) -> None:
        self.cut = True

    def is_closing(self) -> bool:
        return self.cut

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Street:
    """A door, and whoever comes to it."""

    def __init__(self, **options: object) -> None:
        settings = Settings(behind_proxy=True, trusted_proxies=PROXY, **options)
        self.door = Door(
            make_guard(settings, authenticated=True), DoorOptions(15, 75, 60, settings.max_connections_per_address)
        )

        async def answer(request: web.BaseRequest) -> web.Response:
            self.asked += 1
            async for _ in request.content.iter_any():
                pass
            return web.Response(text=str(self.asked))

        self.asked = 0

        self._server = web.Server(answer)
        self.handlers: dict[Wire, web.RequestHandler] = {}

    def come(self, address: str) -> Wire:
        wire = Wire(address)
        handler = self.handlers[wire] = self.door.protocol(self._server)
        handler.connection_made(wire)
        return wire

    def go(self, wire: Wire) -> None:
        self.handlers.pop(wire).connection_lost(None)

    def leave(self) -> None:
        for wire in list(self.handlers):
            self.go(wire)


async def test_connections_of_one_address_that_are_no_websockets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    street = Street(max_connections_per_address=2)
    first, second, third = (street.come(ADA) for _ in range(3))
    assert [wire.cut for wire in (first, second, third)] == [False, False, True]
    assert caplog.messages == [f"limit: 2 requests at a time from {ADA} (address={ADA})"]
    assert not street.come(BOB).cut, "another address"
    assert not any(street.come(address).cut for address in [PROXY] * 5 + ["127.0.0.1"] * 5), "many use these"
    street.go(first)
    assert not street.come(ADA).cut, "its place is free"
    street.door.asked(street.handlers[second], True)
    assert not street.come(ADA).cut, "a WebSocket has a place of its own"
    assert street.come(ADA).cut
    street.leave()


async def test_without_that_bound_there_is_none() -> None:
    street = Street(max_connections_per_address=0, max_unauthenticated=0)
    assert not any(street.come(ADA).cut for _ in range(50))
    street.leave()


async def test_those_that_have_said_nothing_go_in_the_order_in_which_they_came() -> None:
    street = Street(max_unauthenticated=3)
    wires = [street.come(f"192.0.2.{number}") for number in range(5)]
    assert [wire.cut for wire in wires] == [True, True, False, False, False]
    street.leave()


async def test_one_that_waits_for_its_body_goes_for_others_and_keeps_nobody_out() -> None:
    street = Street(max_unauthenticated=3)
    waiting = [street.come(f"192.0.2.{number}") for number in range(3)]
    for wire in waiting:
        street.door.asked(street.handlers[wire], False)
        street.door.waits(street.handlers[wire], True)
    proxied = street.come(PROXY)
    street.door.asked(street.handlers[proxied], False)
    street.door.waits(street.handlers[proxied], True)
    assert [wire.cut for wire in (*waiting, proxied)] == [True, False, False, False], "the first goes for the fourth"
    newcomer = street.come(BOB)
    assert not newcomer.cut and waiting[1].cut
    street.door.waits(street.handlers[waiting[2]], False)
    assert [street.come(ADA).cut for _ in range(2)] == [False, False]
    assert not waiting[2].cut, "it does not wait any more"
    street.door.waits(street.handlers[waiting[0]], False)  # it was cut meanwhile, and is not taken up again
    street.leave()
    assert not street.door._answering


@pytest.mark.parametrize(
    "flood",
    [b"1\r\nx\r\n", b"1;" + b"e" * 60 + b"\r\nx\r\n", b"x" * 64],
    ids=["chunks", "chunks with extensions", "a body"],
)
async def test_little_is_parsed_in_a_turn_and_what_is_much_is_read_more_slowly(flood: bytes) -> None:
    street = Street()
    wire = street.come(ADA)
    handler = street.handlers[wire]
    length = b"Content-Length: 1000000000" if flood[0:1] == b"x" else b"Transfer-Encoding: chunked"
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + flood * (2 * AT_ONCE // len(flood))
    handler.data_received(data)
    given = [SLICE]
    assert len(handler._rest) == len(data) - SLICE and not wire.reading
    while len(handler._rest) > len(data) - AT_ONCE:
        before = len(handler._rest)
        await asyncio.sleep(0)
        given.append(before - len(handler._rest))
    assert max(given) <= SLICE
    handler.data_received(b"behind")  # what was on its way
    rest = len(handler._rest)
    for _ in range(10):
        await asyncio.sleep(0)
    assert rest - len(handler._rest) <= 2 * SLICE, "its time has not come"
    timer = handler._timer
    street.leave()
    assert timer is None or timer.cancelled()


async def test_a_proxy_is_read_as_fast_as_it_sends() -> None:
    street = Street()
    wire = street.come(PROXY)
    handler = street.handlers[wire]
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000 + b"\r\n\r\n"
    count = 4 * AT_ONCE // len(request)
    handler.data_received(request * count)
    while street.asked < count:
        await asyncio.sleep(0)
        assert not isinstance(handler._timer, asyncio.TimerHandle), "each slice follows in the next turn"
    await happens(lambda: wire.written.count(b"HTTP/1.1 200") == count, "all answers")
    assert wire.written.endswith(str(count).encode()) and wire.reading
    street.leave()


async def test_an_answer_that_goes_on_has_a_place_of_its_own_and_hears_of_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    street = Street(max_connections_per_address=2, max_unauthenticated=3)
    heard: list[str] = []
    readers = [street.come(ADA) for _ in range(2)]
    for number, wire in enumerate(readers):
        street.door.asked(street.handlers[wire], False)
        street.door.streams(street.handlers[wire], lambda number=number: heard.append(f"lost {number}"))
    first, second = street.come(ADA), street.come(ADA)
    assert not first.cut and not second.cut, "it counts among the requests of its address no more"
    for wire in (first, second):
        street.door.asked(street.handlers[wire], False)
    assert not street.come(BOB).cut, "nor among those that are answered"
    # One that ends is a request again, until it is answered.
    street.door.streams(street.handlers[readers[0]], None)
    street.go(first)
    assert street.come(ADA).cut
    street.go(readers[0])
    street.go(readers[1])
    assert heard == ["lost 1"]
    street.leave()


async def test_an_answer_that_goes_on_and_is_not_read_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    street = Street()
    wire = street.come(ADA)
    heard: list[str] = []
    street.door.asked(street.handlers[wire], False)
    street.door.streams(street.handlers[wire], lambda: heard.append("lost"))
    wire.get_write_buffer_size = lambda: 1_000  # type: ignore[method-assign]
    for now in (100.0, 130.0):
        street.door._look(now)
        assert not wire.cut
    street.door._look(161.0)
    assert wire.cut and heard == ["lost"]
    assert "nothing of an answer taken for 60 s" in caplog.text
    street.leave()
