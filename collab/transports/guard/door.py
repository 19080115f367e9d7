"""The listening sockets, and connections before and beside a WebSocket: none may stand there for nothing.

Strategy: aiohttp reads requests well within bounds of size, and closes a connection that is idle after an
answer; it has no time for the first request to come, none for an answer to be read, and no bound for the
number of connections. A subclass of its protocol tells the door what becomes of each: one that has sent
no whole request is cut when its time is over, or when too many others wait like it; one that waits for its body
or for a decision on access goes in the same way; one whose answer is not read is cut when it has taken nothing
for a while. What has become a WebSocket is not seen here again.

aiohttp parses all that one read of a socket gives (256 KiB) in one go, and reads as fast as it can what nobody
wants. 43,000 chunks of a body take a third of a second. So the parser is given a small part in each turn of the
loop, and a connection that sends more than requests need is read more slowly.

aiohttp bounds each line of a head and their number, which together is megabytes. A line may be long, because a
browser sends all cookies of an address in one; a bound for the whole head keeps such heads from filling the memory.

A socket that is closed with bytes that nobody has read resets its connection, and the other end loses the answer that
it has not read so far. So what comes behind an answer is read and thrown away, for a bounded time (RFC 9112, section
9.6). Where its end can be found cheaply, the connection goes on. A body in chunks, and what is no request, is not
parsed for that: its connection is closed.

A socket that listens can stop doing so for good. libuv, below uvloop, takes a connection and then asks the loop; if
that fails before the loop has taken it over (there is no memory for it, say), libuv keeps it and looks at the socket no
more. After some errors of the system uvloop closes the socket without a word. So the door looks at its sockets too, and
lets one that takes no connections listen anew. Those that wait meanwhile are kept by the system.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from collab.audit import Kind, Who
from collab.limits.limits import TokenBucket
from collab.telemetry import get_logger
from collab.transports.guard.guard import Guard
from collab.transports.guard.listening import BACKLOG, shown
from collab.transports.guard.peers import Remote
from collab.transports.http.http_log import HttpLog
from collab.transports.requests import Head

# Seconds for a TLS handshake from its beginning to its end; asyncio would give it 60. It has few bytes, and nobody
# hears of them one by one; on a line that is busy with an upload each of its three round trips takes seconds.
_TLS_SECONDS = 30.0

# Seconds for which what comes behind an answer is thrown away, so that its sender gets to see the answer; some read it
# only when they have sent everything. And seconds in which nothing comes, after which nothing more is waited for.
LINGERING_SECONDS = 30.0
LINGERING_QUIET_SECONDS = 5.0

# The same behind what is no request, if nothing more has come so far: nearly always that was all.
_NO_REQUEST_QUIET_SECONDS = 0.9

# Bytes that are parsed in one turn of the loop: at most 1 ms, where each chunk of a body holds one byte. Nearly every
# request is smaller.
_SLICE = 4 * 1024

# Bytes a second of a connection that is no WebSocket, and at once: a hundred requests of a page, or a body.
_RATE = 64 * 1024
_AT_ONCE = 64 * 1024

# Bytes of one line of a head: a name and its value, or the address with its query. Node, on which the reference servers
# run, takes 16 KiB for the whole head.
_LINE = 16 * 1024

# Bytes of a whole head, and of what stands before it.
_HEAD = 64 * 1024

# Of a body that its sender may send, and that does not come in chunks.
_LONG_SLICE = 64 * 1024

# As for a socket (``collab.limits.limits``).
_BURST_SECONDS = 4.0

_LOOK_SECONDS = 0.5

# Looks at a socket in a row without a new connection, after which it has to be well: a loop that was busy for long
# may look before it takes what has come meanwhile.
_QUIET_LOOKS = 2

# The same for a connection with TLS, which the door sees only when its handshake is over.
_QUIET_TLS_LOOKS = int(_TLS_SECONDS / _LOOK_SECONDS) + 4

_log = get_logger("http")


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
        self._streaming: dict[_Handler, tuple[int, float]] = {}  # as above, of answers that have places of their own
        self._lingering: dict[_Handler, tuple[int, float]] = {}  # bytes thrown away when last seen, and since when
        self._lost: dict[_Handler, Callable[[], None]] = {}  # what hears of the end of those
        self._open: dict[_Handler, str] = {}  # with what is counted as its address
        self._by_address: dict[str, int] = {}
        self._listeners: list[Listener] = []
        self._log = HttpLog()
        guard.on_request = self.asked
        guard.on_wait = self.waits
        guard.on_body = self.reads_body
        guard.on_stream = self.streams

    async def watch(self) -> None:
        """Look after the connections; run it supervised, for the bounds must go on to hold."""
        loop_time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for listener in tuple(self._listeners):
                await listener.look()
            self._look(loop_time())

    def _look(self, now: float) -> None:
        options = self._options
        while self._unread:
            handler, since = next(iter(self._unread.items()))
            if now - since < options.head:
                break
            self._guard.audit.write(
                Kind.LIMIT, "no request", f"no request within {options.head:g} s", Who(address=handler.address)
            )
            handler.cut()
        for handler, (thrown, since) in list(self._lingering.items()):
            if handler.thrown != thrown:
                self._lingering[handler] = (handler.thrown, now)
            elif now - since >= handler.patience:
                handler.end_lingering()
        for answers in (self._answering, self._streaming):
            for handler, (waited, since) in list(answers.items()):
                waiting = handler.waiting()
                if waiting != waited or not waiting:
                    answers[handler] = (waiting, now)
                elif now - since >= options.slow:
                    self._guard.audit.write(
                        Kind.LIMIT,
                        "slow reader",
                        f"nothing of an answer taken for {options.slow:g} s",
                        Who(address=handler.address),
                    )
                    handler.cut()

    # What its sockets and connections say

    def listens(self, listener: Listener, listens: bool) -> None:
        """Look after a socket that listens from now on, or no more."""
        if listens:
            self._listeners.append(listener)
        elif listener in self._listeners:
            self._listeners.remove(listener)

    def opened(self, handler: _Handler) -> None:
        """Let a connection in, or cut it."""
        now = asyncio.get_running_loop().time()
        limits = self._guard.limits
        remote = self._guard.remote(handler.address)
        if remote.address is not None and not remote.loopback and not remote.proxy:
            key = remote.key
            if 0 < self._options.per_address <= self._by_address.get(key, 0):
                self._guard.audit.write(
                    Kind.LIMIT,
                    "address",
                    f"{self._options.per_address} requests at a time from {key}",
                    Who(address=key),
                )
                handler.cut()
                return
            self._count_address(handler, key)
        self._unread[handler] = now
        if self._spares(remote):
            return
        if 0 < limits.bounds.unauthenticated <= len(self._answering):
            self._guard.audit.write(Kind.LIMIT, "requests", "too many requests at a time", Who(address=handler.address))
            handler.cut()
        else:
            limits.add_pending(handler, handler.cut, now)

    def asked(self, handler: web.RequestHandler, upgrade: bool) -> None:
        """Note that a whole request is there: a WebSocket's, or one with an answer."""
        if not isinstance(handler, _Handler):
            return
        self._guard.limits.remove_pending(handler)
        self._unread.pop(handler, None)
        if upgrade:
            self._forget_address(handler)
        else:
            self._answering[handler] = (0, 0.0)

    def waits(self, handler: web.RequestHandler, waits: bool) -> None:
        """Note that a request waits for its body or a decision, or that this is over: meanwhile it goes for others.

        One of a proxy goes too: a proxy waits with it for nobody else.
        """
        if not isinstance(handler, _Handler) or handler.transport is None:
            return
        if waits:
            self._answering.pop(handler, None)
            if not self._guard.limits.bounds.exempt_local:
                self._guard.limits.add_pending(handler, handler.cut, asyncio.get_running_loop().time())
        else:
            self._guard.limits.remove_pending(handler)
            self._answering[handler] = (0, 0.0)

    def reads_body(self, handler: web.RequestHandler, begins: bool) -> None:
        """Read a connection as fast as a socket while the body of a request comes, which may be long."""
        if isinstance(handler, _Handler):
            handler.hurry(self._guard.limits.bounds.bytes if begins else None)

    def streams(self, handler: web.RequestHandler, lost: Callable[[], None] | None) -> None:
        """Note that an answer goes on for as long as its client reads, and call ``lost`` if that goes; None: it ends.

        It has a place of its own in the limits, as a socket has, and is none of the requests of its address.
        """
        if not isinstance(handler, _Handler) or handler.transport is None:
            return
        if lost is not None:
            self._answering.pop(handler, None)
            self._forget_address(handler)
            self._streaming[handler] = (0, 0.0)
            self._lost[handler] = lost
        elif self._streaming.pop(handler, None) is not None:
            del self._lost[handler]
            self._answering[handler] = (0, 0.0)
            remote = self._guard.remote(handler.address)
            if remote.address is not None and not remote.loopback and not remote.proxy:
                self._count_address(handler, remote.key)

    def spares(self, handler: _Handler) -> bool:
        """Tell whether a connection is read as fast as it sends."""
        return self._spares(self._guard.remote(handler.address))

    def answered(self, handler: _Handler) -> None:
        """Note that an answer has gone out: the connection is idle, and aiohttp sees to its end."""
        if self._answering.pop(handler, None) is not None and not self.spares(handler):
            self._guard.limits.add_pending(handler, handler.cut, asyncio.get_running_loop().time())

    def lingers(self, handler: _Handler, lingers: bool) -> None:
        """Note that what comes is thrown away from now on, or no more."""
        if lingers:
            self._lingering[handler] = (handler.thrown, asyncio.get_running_loop().time())
        else:
            self._lingering.pop(handler, None)

    def throws(self, handler: _Handler) -> None:
        """Read what is thrown away as fast as the body of somebody who may send it."""
        handler.hurry(self._guard.limits.bounds.bytes)

    def _spares(self, remote: Remote) -> bool:
        """Tell whether a connection does not go for others when places are short: a proxy's, which many use."""
        if remote.proxy:
            return True
        return self._guard.limits.bounds.exempt_local and (remote.address is None or remote.loopback)

    def lost(self, handler: _Handler) -> None:
        """Forget a connection."""
        self._guard.limits.remove_pending(handler)
        self._unread.pop(handler, None)
        self._answering.pop(handler, None)
        self._lingering.pop(handler, None)
        self._forget_address(handler)
        self._streaming.pop(handler, None)
        lost = self._lost.pop(handler, None)
        if lost is not None:
            lost()

    def _count_address(self, handler: _Handler, key: str) -> None:
        self._open[handler] = key
        self._by_address[key] = self._by_address.get(key, 0) + 1

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
            lingering_time=LINGERING_SECONDS,
            max_line_size=_LINE,
            max_field_size=_LINE,
            access_log=None,
            logger=self._log,
        )


class _Handler(web.RequestHandler):
    """aiohttp's protocol, which tells the door what becomes of it."""

    __slots__ = (
        "_body",
        "_bucket",
        "_door",
        "_drops",
        "_garbled",
        "_head",
        "_heads",
        "_hurries",
        "_lingers",
        "_rest",
        "_slice",
        "_taken",
        "_timer",
        "begun",
        "thrown",
    )

    def __init__(self, server: web.Server, *, door: Door, **options: Any) -> None:
        super().__init__(server, **options)
        self._door = door
        self.begun = False  # it has had a connection
        self._rest = b""  # what was read of the socket and not given to the parser
        self._taken = 0  # bytes that it was given, until there is a bucket
        self._heads = 0  # heads that were whole
        self._head = 0  # bytes of one that is not; its first slice may hold the end of what came before
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request
        self._bucket: TokenBucket | None = None
        self._slice = _SLICE
        self._hurries = False  # the body of a request comes that may be long
        self._lingers = False  # an answer has gone out, and what belongs to its request still comes
        self._garbled = False  # what came was no request
        self._drops = False  # nothing of that is parsed, so this connection has no other request
        self.thrown = 0  # bytes of it
        self._timer: asyncio.Handle | None = None  # until the parser is given more

    @property
    def address(self) -> str:
        """The other end, as text; empty for a Unix socket."""
        peername = self.peername  # kept by aiohttp; the transport would make it anew each time
        return str(peername[0]) if isinstance(peername, tuple) and peername else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # As aiohttp does it, without what is done already: a socket has its options from the listener, and the door has
        # a time for the first request.
        self.begun = True
        assert self._manager is not None
        self.transport = cast(asyncio.Transport, transport)
        self._manager.connection_made(self, self.transport)
        self._task_handler = self._loop.create_task(self.start())
        self._door.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.lost(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rest = b""
        body, self._body = self._body, EMPTY_PAYLOAD  # it holds this
        super().connection_lost(exc)
        if self._lingers and not body.is_eof():
            body.feed_eof()  # aiohttp waits for it

    # Reading

    def data_received(self, data: bytes) -> None:
        # A WebSocket's intake has bounds of its own. Without data aiohttp asks its parser to go on.
        if self._upgraded and not self._rest:
            super().data_received(data)
            return
        if not data:
            if not self._drops:
                self._parse(data)
            return
        if self._timer is None:
            size = len(data)
            if size <= self._slice and not self._rest and self._bucket is None and not (self._drops or self._lingers):
                # The usual: a request that comes whole. As ``_take`` would do it.
                self._taken += size
                if self._taken <= _AT_ONCE:
                    self._parse(data)
                    return
                self._taken -= size
            self._rest += data
            self._take()
        else:
            self._rest += data

    def _take(self) -> None:
        """Give the parser a part of what was read."""
        if self._upgraded:
            rest, self._rest = self._rest, b""
            self._parse(rest)
            return
        size = len(self._rest) if self._drops else self._slice
        part, self._rest = self._rest[:size], self._rest[size:]
        pause = self._pause(len(part))
        if self._lingers:
            self.thrown += len(part)
        if not self._drops:
            self._parse(part)
        if (pause or self._rest) and self.transport is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(pause, self._go_on) if pause else loop.call_soon(self._go_on)
            self._pause_transport_reading()

    def _parse(self, data: bytes) -> None:
        """Give ``data`` to the parser, and refuse a request whose head does not end."""
        super().data_received(data)
        if self._upgraded:
            self._body = EMPTY_PAYLOAD  # what comes now is the WebSocket's
            if self._messages and not isinstance(self._messages[-1][0], Head):
                asked: Any = Head(self._messages[-1][0])
                self._messages[-1] = (asked, EMPTY_PAYLOAD)
        elif self._request_count != self._heads:
            self._heads, self._head = self._request_count, 0
            if self._lingers:
                self._lingers = False
                self._door.lingers(self, False)
                self.hurry(None)
            message, self._body = self._messages[-1] if self._messages else (None, EMPTY_PAYLOAD)
            if isinstance(message, _ErrInfo):
                self._drop(message)
        elif self._body.is_eof():
            self._head += len(data)
            if self._head > _HEAD:
                self._refuse(f"a head of more than {_HEAD} bytes")

    def _refuse(self, reason: str) -> None:
        """Answer in place of a request that does not become whole, as aiohttp answers one that it cannot read."""
        error = HttpProcessingError(code=431, message=reason)
        self._messages.append((_ErrInfo(error.code, error, reason), EMPTY_PAYLOAD))
        self._drop(self._messages[-1][0])
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop(self, message: Any) -> None:
        """Parse nothing more; ``message`` is the last one, and what comes is its body, which does not end."""
        self._drops = self._garbled = True
        self._body = StreamReader(self, _SLICE, loop=asyncio.get_running_loop())
        self._messages[-1] = (message, self._body)

    def _linger(self, request: web.BaseRequest) -> None:
        """Throw away what comes: the answer has gone out before the body of its request was read."""
        self._lingers = True
        if request._message.chunked:
            self._drops = True
        self._body._exception = None  # a chunk that is none, say; aiohttp would cut the connection for it
        self._door.lingers(self, True)
        self._door.throws(self)
        if self._timer is not None:  # for a slower pace
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_soon(self._go_on)

    @property
    def patience(self) -> float:
        """Seconds in which something has to come, for more of it to be thrown away."""
        return _NO_REQUEST_QUIET_SECONDS if self._garbled and not self.thrown else LINGERING_QUIET_SECONDS

    def end_lingering(self) -> None:
        """Wait for nothing more of the body: nothing has come for some time, or it has come to its end."""
        self._door.lingers(self, False)
        if self._lingers and not self._body.is_eof():
            self.close()
            self._body.feed_eof()

    def _pause(self, nbytes: int) -> float:
        """Count what the parser is given; return the seconds for which it is given nothing more."""
        now = asyncio.get_running_loop().time()
        if self._bucket is not None:
            return self._bucket.consume(now, nbytes)
        self._taken += nbytes
        if self._taken > _AT_ONCE and not self._hurries:
            if self._door.spares(self):
                self._taken = 0
            else:
                self._bucket = TokenBucket(_RATE, 0.0, now)
        return 0.0

    def hurry(self, rate: float | None) -> None:
        """Read what comes at ``rate`` bytes a second (0: as fast as it comes), or as usual again (None)."""
        self._hurries = rate is not None
        self._taken = 0
        self._slice = _SLICE
        self._bucket = None
        if rate is not None:
            if self._current_request is not None and not self._current_request._message.chunked:
                self._slice = _LONG_SLICE
            if rate and not self._door.spares(self):
                self._bucket = TokenBucket(rate, rate * _BURST_SECONDS, asyncio.get_running_loop().time())

    def _go_on(self) -> None:
        self._timer = None
        if self._reading_paused or self._buffer_paused:
            return  # aiohttp says when it wants more
        if self._rest:
            self._take()
        if self._timer is None and not (self._reading_paused or self._buffer_paused):
            super()._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        # aiohttp wants more. It gets what was read before.
        if self._timer is not None:
            return
        if self._rest:
            self._timer = asyncio.get_running_loop().call_soon(self._go_on)
        else:
            super()._resume_transport_reading()

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        # Called behind every answer, whether or not there is a log of them.
        self._door.answered(self)
        # Else another request has come behind it, and so all of this one.
        if request.content is self._body and not self._body.is_eof() and self.transport is not None:
            self._linger(request)

    def waiting(self) -> int:
        """Return how many bytes of answers wait in this process."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def cut(self) -> None:
        """End the connection at once."""
        self._door.lost(self)
        if self.transport is not None:
            self.transport.abort()


class Listener(web.BaseSite):
    """A socket of a runner whose connections pass a door, which looks after it.

    Args:
        runner: set up already.
        door: its own; several sockets may have one.
        sock: bound, from ``listen``; closed with the listener.
        context: for TLS; None for none.
    """

    __slots__ = ("_called", "_door", "_made", "_name", "_quiet", "_sock", "_unsure")

    def __init__(
        self, runner: web.BaseRunner, door: Door, sock: socket.socket, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(runner, ssl_context=context, backlog=BACKLOG)
        # Its connections have these from it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._door = door
        self._sock = sock
        self._name = f"{'http' if context is None else 'https'}://{shown(sock.getsockname())}"
        self._called = False  # the loop has asked for a protocol since the last look
        self._unsure = False  # the last one that it has asked for has had no connection so far
        self._made: _Handler | None = None  # that one; None while it is made
        self._quiet = 0  # looks in a row without a call, while something is not as it should be

    @property
    def name(self) -> str:
        """Where it listens, as ``http://HOST:PORT``."""
        return self._name

    async def start(self) -> None:
        """Begin to take connections."""
        await super().start()
        await self._listen()
        self._door.listens(self, True)

    async def stop(self) -> None:
        """Take no more connections."""
        self._door.listens(self, False)
        try:
            await super().stop()
        finally:
            self._sock.close()

    async def look(self) -> None:
        """Listen anew if connections are not taken any more; call it every half a second."""
        called, self._called = self._called, False
        if self._unsure and self._made is not None and self._made.begun:
            self._unsure, self._made = False, None
        waits = not called and _is_readable(self._sock)
        if called or not (waits or self._unsure):
            self._quiet = 0
            return
        self._quiet += 1
        patience = _QUIET_LOOKS if waits or self._ssl_context is None else _QUIET_TLS_LOOKS
        if self._quiet < patience:
            return
        if waits or self._ssl_context is None:
            _log.warning("%s takes no connections any more, and listens anew", self._name)
        assert self._server is not None
        self._server.close()
        await self._listen()

    async def _listen(self) -> None:
        self._unsure, self._made, self._quiet = False, None, 0
        # The loop closes the socket that it is given. Those who wait for their connection stay with this one.
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._sock.dup(),
            ssl=self._ssl_context,
            ssl_handshake_timeout=_TLS_SECONDS if self._ssl_context is not None else None,
            backlog=self._backlog,
        )

    def _protocol(self) -> _Handler:
        # Noted first: all that follows may fail, here and in the loop.
        self._called = self._unsure = True
        self._made = None
        server = self._runner.server
        assert server is not None, "a runner is set up before its sites"
        self._made = handler = self._door.protocol(server)
        return handler


def _is_readable(sock: socket.socket) -> bool:
    """Tell whether a connection waits at a socket that listens."""
    if not hasattr(select, "poll"):  # Windows, where numbers of sockets may be as large as they like
        return bool(select.select((sock,), (), (), 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
