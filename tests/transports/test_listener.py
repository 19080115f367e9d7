"""A socket that stops listening for good listens anew: on uvloop, where one failure is enough for that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from collab.app import make_guard
from collab.hub.tasks import Tasks
from collab.loop import run_loop
from collab.settings import Settings
from collab.transports.guard import door as door_module
from collab.transports.guard.door import Door, DoorOptions, Listener
from collab.transports.guard.listening import listen
from collab.transports.guard.tls import Certificate
from tests.transports.test_tls import make_certificate

# Seconds in which a socket has to be well again; two looks and a busy machine.
SOON = 10.0


class Place:
    """A door with one socket, in a real loop.

    Attributes:
        failures: how many calls for a protocol fail for want of memory.
        options: SO_KEEPALIVE and TCP_NODELAY of the connection that was answered last.
    """

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._certificate = certificate
        self.failures = 0
        self.options: list[int] = []
        self.address: tuple[str, int] = ("", 0)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Listener]:
        async def answer(request: web.BaseRequest) -> web.Response:
            assert request.transport is not None
            connected = request.transport.get_extra_info("socket")
            self.options = [
                connected.getsockopt(*option)
                for option in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY))
            ]
            return web.Response(text="here")

        runner, tasks = web.ServerRunner(web.Server(answer)), Tasks()
        await runner.setup()
        door = Door(make_guard(Settings(), authenticated=False), DoorOptions(60, 60, 60, 0))
        make = door.protocol

        def protocol(server: web.Server) -> door_module._Handler:
            if self.failures:
                self.failures -= 1
                raise MemoryError
            return make(server)

        door.protocol = protocol  # type: ignore[method-assign]
        (sock,) = await listen(("127.0.0.1",), 0)
        self.address = sock.getsockname()
        listener = Listener(runner, door, sock, None if self._certificate is None else self._certificate.context)
        await listener.start()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        tasks.supervise(door.watch, "watch")
        try:
            yield listener
        finally:
            await tasks.close()
            await runner.cleanup()

    async def ask(self, tls: ssl.SSLContext | None = None) -> bytes:
        """Give the answer to a request; nothing if the connection is cut."""
        async with asyncio.timeout(SOON):
            reader, writer = await asyncio.open_connection(*self.address, ssl=tls)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()


def test_after_a_failure_connections_are_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "collab")
    place = Place()

    async def work() -> None:
        async with place.open():
            assert b"here" in await place.ask()
            place.failures = 1
            assert await place.ask() == b"", "it is cut, though nobody else comes"
            assert b"here" in await place.ask()
            place.failures = 1
            answers = await asyncio.gather(*(place.ask() for _ in range(20)))
            assert [b"here" in answer for answer in answers].count(False) == 1, "those behind it have waited"

    run_loop(work())
    assert [message.split(" ", 1)[1] for message in caplog.messages] == [
        "takes no connections any more, and listens anew"
    ] * 2


@pytest.mark.parametrize("run", [run_loop, asyncio.run])
def test_connections_are_kept_alive_and_send_at_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    place = Place()

    async def work() -> None:
        async with place.open():
            assert b"here" in await place.ask()

    run(work())
    assert all(place.options) and len(place.options) == 2


def test_a_socket_that_the_loop_has_closed_listens_anew() -> None:
    place = Place()

    async def work() -> None:
        async with place.open() as listener:
            assert listener._server is not None
            listener._server.close()  # as after an error of the system
            assert b"here" in await place.ask()

    run_loop(work())


def test_with_tls_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "collab")
    cert, key = make_certificate(tmp_path, "server")
    place, tls = Place(Certificate(cert, key)), ssl.create_default_context(cafile=str(cert))

    async def work() -> None:
        async with place.open():
            place.failures = 1
            lost = asyncio.create_task(place.ask(tls))
            await asyncio.sleep(0)
            while place.failures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert b"here" in await place.ask(tls), "the next one has shown that nobody is taken"
            with contextlib.suppress(ConnectionError):
                assert await lost == b""
            caplog.clear()
            monkeypatch.setattr(door_module, "_QUIET_TLS_LOOKS", 2)
            place.failures = 1
            with contextlib.suppress(ConnectionError):
                assert await place.ask(tls) == b"", "when a handshake would be over"
            assert b"here" in await place.ask(tls)

    run_loop(work())
    assert not caplog.messages, "a handshake that has failed looks the same"


def test_a_socket_that_is_well_is_left_alone_and_ends_with_its_listener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "collab")
    place = Place()

    async def work() -> None:
        async with place.open() as listener:
            server = listener._server
            silent = socket.create_connection(place.address)
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                assert b"here" in await place.ask()
                await asyncio.sleep(0.2)
            assert listener._server is server
            silent.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(place.address)

    run_loop(work())
    assert not caplog.messages
