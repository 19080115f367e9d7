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
from collab.transports.door import Door, DoorOptions

ADA, BOB, PROXY = "203.0.113.7", "198.51.100.9", "10.0.0.5"


class Wire(asyncio.Transport):
    """A connection from ``address``."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 40_000)})
        self.cut = False

    def abort(self) -> None:
        self.cut = True

    def close(self) -> None:
        self.cut = True

    def is_closing(self) -> bool:
        return self.cut

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


class Street:
    """A door, and whoever comes to it."""

    def __init__(self, **options: object) -> None:
        settings = Settings(behind_proxy=True, trusted_proxies=PROXY, **options)
        self.door = Door(
            make_guard(settings, authenticated=True), DoorOptions(15, 75, 60, settings.max_connections_per_address)
        )

        async def answer(request: web.BaseRequest) -> web.Response:
            raise AssertionError("no request is sent here")

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
