"""The listening socket, and connections before and beside a WebSocket: none may stand there for nothing.

Strategy: aiohttp reads requests well within bounds of size, and closes a connection that is idle after an
answer; it has no time for the first request to come, none for an answer to be read, and no bound for the
number of connections. A subclass of its protocol tells the door what becomes of each: one that has sent
no whole request is cut when its time is over, or when too many others wait like it; one whose answer is
not read is cut when it has taken nothing for a while. What has become a WebSocket is not seen here again.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from collab.transports.addresses import Address, key_of, parse_address
from collab.transports.audit import LIMIT
from collab.transports.guard import Guard
from collab.transports.http_log import HttpLog

# Seconds for what a client may take with its part of a TLS handshake; asyncio would give it 60.
_TLS_SECONDS = 10.0

# Seconds for which a body that nothing has asked for is read, so that its sender gets to see the answer.
_LINGERING_SECONDS = 5.0

_BACKLOG = 4096

_LOOK_SECONDS = 0.5


class DoorOptions(NamedTuple):
    """Times in seconds.

    Attributes:
        head: for the first request line and its headers to be there.
        idle: without a request after an answer.
        slow: in which nothing of an answer is taken.
        per_address: connections at a time of one address that are no WebSockets; 0 for no bound.
    """

    head: float
    idle: float
    slow: float
    per_address: int


class Door:
    """What stands before the sockets of one runner.

    Args:
        guard: whose limits count.
        options: see there.
    """

    def __init__(self, guard: Guard, options: DoorOptions) -> None:
        self._guard = guard
        self._options = options
        self._unread: dict[_Handler, float] = {}  # no whole request so far, and since when; oldest first
        self._answering: dict[_Handler, tuple[int, float]] = {}  # bytes last seen to wait, and since when
        self._open: dict[_Handler, str] = {}  # with what is counted as its address
        self._by_address: dict[str, int] = {}
        self._log = HttpLog()
        guard.on_request = self.asked

    async def watch(self) -> None:
        """Look after the connections; run it as a task of its own."""
        loop_time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look(loop_time())

    def _look(self, now: float) -> None:
        options = self._options
        while self._unread:
            handler, since = next(iter(self._unread.items()))
            if now - since < options.head:
                break
            self._guard.audit.write(LIMIT, "no request", f"no request within {options.head:g} s", handler.address)
            handler.cut()
        for handler, (waited, since) in list(self._answering.items()):
            waiting = handler.waiting()
            if waiting != waited or not waiting:
                self._answering[handler] = (waiting, now)
            elif now - since >= options.slow:
                self._guard.audit.write(
                    LIMIT, "slow reader", f"nothing of an answer taken for {options.slow:g} s", handler.address
                )
                handler.cut()

    # What its connections say

    def opened(self, handler: _Handler) -> None:
        """Let a connection in, or cut it."""
        now = asyncio.get_running_loop().time()
        limits = self._guard.limits
        address = parse_address(handler.address)
        local = address is None or address.is_loopback
        if address is not None and not local and not self._guard.is_proxy(address):
            key = key_of(address)
            if 0 < self._options.per_address <= self._by_address.get(key, 0):
                self._guard.audit.write(
                    LIMIT, "address", f"{self._options.per_address} requests at a time from {key}", key
                )
                handler.cut()
                return
            self._open[handler] = key
            self._by_address[key] = self._by_address.get(key, 0) + 1
        self._unread[handler] = now
        if self._spared(address):
            return
        if 0 < limits.bounds.unauthenticated <= len(self._answering):
            self._guard.audit.write(LIMIT, "requests", "too many requests at a time", handler.address)
            handler.cut()
        else:
            limits.wait(handler, handler.cut, now)

    def asked(self, handler: web.RequestHandler, upgrade: bool) -> None:
        """Note that a whole request is there: a WebSocket's, or one with an answer."""
        if not isinstance(handler, _Handler):
            return
        self._guard.limits.settle(handler)
        self._unread.pop(handler, None)
        if upgrade:
            self._forget_address(handler)
        else:
            self._answering[handler] = (0, 0.0)

    def answered(self, handler: _Handler) -> None:
        """Note that an answer has gone out: the connection is idle, and aiohttp sees to its end."""
        if self._answering.pop(handler, None) is not None and not self._spared(parse_address(handler.address)):
            self._guard.limits.wait(handler, handler.cut, asyncio.get_running_loop().time())

    def _spared(self, address: Address | None) -> bool:
        """Tell whether a connection goes for others when places are short: not a proxy's, which many use."""
        if address is not None and self._guard.is_proxy(address):
            return True
        return self._guard.limits.bounds.spare_local and (address is None or address.is_loopback)

    def lost(self, handler: _Handler) -> None:
        """Forget a connection."""
        self._guard.limits.settle(handler)
        self._unread.pop(handler, None)
        self._answering.pop(handler, None)
        self._forget_address(handler)

    def _forget_address(self, handler: _Handler) -> None:
        key = self._open.pop(handler, None)
        if key is None:
            return
        left = self._by_address[key] - 1
        if left:
            self._by_address[key] = left
        else:
            del self._by_address[key]

    def protocol(self, server: web.Server) -> _Handler:
        """Make the protocol of one connection."""
        return _Handler(
            server,
            door=self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._options.idle,
            lingering_time=_LINGERING_SECONDS,
            access_log=None,
            logger=self._log,
        )


class _Handler(web.RequestHandler):
    """aiohttp's protocol, which tells the door what becomes of it."""

    __slots__ = ("_door",)

    def __init__(self, server: web.Server, *, door: Door, **options: Any) -> None:
        super().__init__(server, **options)
        self._door = door

    @property
    def address(self) -> str:
        """The other end, as text; empty for a Unix socket."""
        peername = None if self.transport is None else self.transport.get_extra_info("peername")
        return str(peername[0]) if isinstance(peername, tuple) and peername else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._door.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.lost(self)
        super().connection_lost(exc)

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        # Called behind every answer, whether or not there is a log of them.
        self._door.answered(self)

    def waiting(self) -> int:
        """Return how many bytes of answers wait in this process."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def cut(self) -> None:
        """End the connection at once."""
        self._door.lost(self)
        if self.transport is not None:
            self.transport.abort()


class Listener(web.BaseSite):
    """A TCP socket of a runner whose connections pass a door.

    Args:
        runner: set up already.
        door: its own.
        host, port: where to listen; port 0 takes a free one.
        context: for TLS; None for none.
    """

    __slots__ = ("_door", "_host", "_port")

    def __init__(
        self, runner: web.BaseRunner, door: Door, host: str, port: int, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(runner, ssl_context=context, backlog=_BACKLOG)
        self._door = door
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"{'https' if self._ssl_context else 'http'}://{self._host}:{self._port}"

    async def start(self) -> None:
        """Begin to take connections.

        Raises:
            OSError: the address cannot be listened on.
        """
        await super().start()
        server = self._runner.server
        assert server is not None, "a runner is set up before its sites"
        self._server = await asyncio.get_running_loop().create_server(
            partial(self._door.protocol, server),
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=_TLS_SECONDS if self._ssl_context is not None else None,
            backlog=self._backlog,
        )
