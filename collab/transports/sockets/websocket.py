"""WebSockets over aiohttp: accepting them, reading them, and sweeping over all of them.

Strategy: a pump reads messages and hands them to its connection without waiting in between; rooms
write finished frames straight to the transport. aiohttp does the handshake, the parsing and the
closing; everything that is sent goes around it, because it would frame a broadcast once for each
socket. Heartbeats are one sweep over all sockets instead of timers for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import zlib
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from typing import Any

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web
from aiohttp.hdrs import SEC_WEBSOCKET_KEY, UPGRADE, USER_AGENT

from collab.errors import ServerStopping
from collab.hub.member import ConnectionFacts
from collab.limits.limits import Meter
from collab.protocol.messages import CloseCode
from collab.telemetry.tracing import begin_task
from collab.transports.requests import forget_head
from collab.transports.sockets.connection import Accepted, Connection
from collab.transports.sockets.context import Context
from collab.transports.sockets.counts import SocketCounts
from collab.transports.sockets.eager import EagerWebSocketResponse
from collab.transports.sockets.intake import COUNTED, UNREAD
from collab.transports.sockets.outbox import CLOSE_SECONDS

# A flooding client would hold the loop, because reading a queued message does not suspend: after
# this many messages the clock is read, after this many seconds the others get their turn.
_BUDGET_MESSAGES = 16
_BUDGET_SECONDS = 0.002

# Seconds in which what a client still sends is dropped when its messages cannot be read any more.
_DROP_SECONDS = 1.0

# Sockets that are closed at once when the server stops, and seconds until the next group. Their clients come back at
# once, to another node or to the next server: each asks for its documents, so all in one moment would be a storm.
_GROUP = 10
_GROUP_PAUSE = 0.05
# How a client closes that cannot read a frame.
_UNREADABLE = 1002


class WebSockets:
    """All sockets of this node: accepts them, runs their pumps and sweeps over them.

    Args:
        context: what they share.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connections: dict[Connection[Any], None] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False

    def start(self) -> None:
        """Start the sweep; call it on the loop."""
        self._context.tasks.supervise(self._sweep_forever, "sweep of sockets")

    async def close(self, spread: float, answers: float, hurried: asyncio.Event) -> None:
        """Take no more sockets, close all in small groups, cut those that do not answer, end the sweep.

        Those whose turn has not come are served as ever.

        Args:
            spread: seconds within which all are closed; with few sockets it takes less.
            answers: seconds that the last of them get to answer.
            hurried: once it is set, there are no pauses between the groups.
        """
        self._closing = True
        connections = list(self._connections)
        size = max(_GROUP, math.ceil(len(connections) * _GROUP_PAUSE / max(spread, _GROUP_PAUSE)))
        for begin in range(0, len(connections), size):
            if begin and not hurried.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hurried.wait(), _GROUP_PAUSE)
            for connection in connections[begin : begin + size]:
                connection.outbox.close(connection.protocol.close_code(ServerStopping()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(answers, CLOSE_SECONDS)):
                await self._empty.wait()
        for connection in list(self._connections):
            connection.outbox.abort()
        self._context.pacer.close()
        if self._context.deflater is not None:
            self._context.deflater.close()
        await self._context.tasks.close()
        self._context.limited.flush()

    def handler(self, kind: type[Connection[Any]]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the aiohttp handler that serves one socket of ``kind`` from its handshake to its end."""
        self._context.counts[kind.protocol_name]  # from the start, with nothing in it
        # No coroutine of its own: it would cost every socket its frame.
        return self._context.guard.sockets(partial(self._handle, kind))

    def counted(self) -> dict[str, SocketCounts]:
        """Give what the sockets of each protocol have brought until now, by its name.

        In one go, for a socket that ends meanwhile would be counted twice or not at all; 10,000 sockets take some
        milliseconds.
        """
        found = {name: copy(counts) for name, counts in self._context.counts.items()}
        for connection in self._connections:
            counts = found[connection.protocol_name]
            counts.open += 1
            counts.messages += connection.messages
            counts.received += connection.received
            counts.held += connection.outbox.held()
        return found

    def describe(self) -> list[tuple[int, Callable[[], ConnectionFacts]]]:
        """Give the number of each socket that is open, and what says who it is."""
        return [(connection.number, connection.facts) for connection in self._connections if not connection.closing]

    async def _handle(self, kind: type[Connection[Any]], request: web.Request) -> web.StreamResponse:
        if SEC_WEBSOCKET_KEY in request.headers and UPGRADE not in request.headers:
            self._context.limited.warning(
                "no upgrade",
                "a client wants a WebSocket, and a proxy has taken its header Upgrade away: let it pass Upgrade and "
                "Connection on, by HTTP/1.1 (docs/operations.md, Behind a proxy)",
            )
            raise web.HTTPBadRequest(text="a proxy has taken away the header Upgrade, which a WebSocket needs\n")
        deflater, agent = self._context.deflater, request.headers.get(USER_AGENT, "")
        peer = self._context.guard.peer(request)
        deflates = deflater is not None and deflater.trusts(peer.address, agent)
        ws = EagerWebSocketResponse(gate=self._context.gate, timeout=CLOSE_SECONDS, deflate=deflates)
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            ws.release()
            return ws
        ws.headers.clear()  # they have been sent; half a KiB that every idle socket would keep
        connection = kind(self._context, Accepted(transport, ws.intake, next(self._context.numbers), peer))
        if ws.deflates:
            connection.outbox.deflater = deflater
        self._connections[connection] = None
        self._context.counts[kind.protocol_name].opened += 1
        self._empty.clear()
        limits, loop = self._context.guard.limits, asyncio.get_running_loop()
        traced = begin_task("connection", {"network.protocol.name": kind.protocol_name}, request.headers)
        try:
            # All in one coroutine: another one would cost every idle socket its frame.
            try:
                if self._closing or self._context.stopping:
                    raise ServerStopping("the server is stopping")
                exempt = limits.exempts(peer)
                if not exempt:
                    limits.add_pending(connection, connection.cut, loop.time())
                connection.ticket = limits.add_connection(peer, loop.time())
                connection.refused = self._context.guard.refusal(request, peer)
                await connection.open(request)
                forget_head(request)
                if connection.wire is None:
                    ws.offer_to(connection.take)
                connection.meter = None if exempt else Meter(limits.bounds, loop.time())
                await self._pump(ws, connection)
            except Exception as error:
                connection.fail(error)
            await self._pump(ws, connection)  # one that was refused still has to answer the close frame
        finally:
            ws.release()
            if deflater is not None and connection.outbox.deflated and connection.outbox.close_code == _UNREADABLE:
                deflater.distrust(peer.address, agent)
            if connection.ticket is None or not connection.ticket.let_in:
                limits.remove_pending(connection)
            if connection.ticket is not None:
                limits.remove_connection(connection.ticket, loop.time())
            del self._connections[connection]
            if not self._connections:
                self._empty.set()
            connection.leave()
            if traced is not None:
                traced.set_attribute("collab.close_code", ws.close_code or 0)
                traced.end()
        return ws

    async def _pump(self, ws: EagerWebSocketResponse, connection: Connection[Any]) -> None:
        """Hand the client's messages to its connection until the socket ends.

        One that sends more than its meter allows is read more slowly: what it has sent waits in the kernel,
        and then with itself.

        Raises:
            Overloaded: the client sends far too much; the socket is still open.
            Exception: a defect of ours; the socket is still open.
        """
        context = self._context
        count, burst = 0, 0.0
        while True:
            # Not while messages wait: what is parsed when one is fetched comes after it.
            if ws.queued:
                connection.expect(0)
            else:
                connection.expect(_BUDGET_MESSAGES)
                connection.wait_for_message()
            message = await ws.receive()
            connection.expect(0)
            connection.busy = True
            kind = message.type
            connection.messages += 1
            if connection.wire is not None:
                connection.wire.received(message)
            if kind is WSMsgType.BINARY:
                if connection.closing or context.stopping:
                    count += 1
                    if not count % _BUDGET_MESSAGES:
                        await asyncio.sleep(0)
                    continue  # the socket is closing; what is not taken is sent again after the reconnect
                size = len(message.data)
                if message.extra is not COUNTED:
                    connection.nbytes += size
                work = connection.receive(message.data)
                del message  # the coroutine alone has it, and lets go of it if it is large
                await work
                del work  # a socket may be silent for hours from now on
                ws.intake.worked_on()
                count += 1
                if count >= _BUDGET_MESSAGES:
                    count = 0
                    loop = asyncio.get_running_loop()
                    if loop.time() - burst > _BUDGET_SECONDS:
                        await asyncio.sleep(0)
                        burst = loop.time()
            elif kind is UNREAD:
                if not connection.closing:
                    await connection.pass_over(message.data)
            elif kind is WSMsgType.PING:
                connection.pong(message.data)
            elif kind is WSMsgType.PONG:
                connection.outbox.ponged(message.data)
            elif kind is WSMsgType.TEXT:
                if not connection.closing:
                    self._context.limited.info("text frame", "refused: text frame", to=connection.log())
                    connection.outbox.close(connection.text_close)
            elif kind is WSMsgType.CLOSE:
                connection.outbox.closed_by_client(message.data)
                return
            elif kind is WSMsgType.ERROR and not isinstance(message.data, (WebSocketError, zlib.error)):
                raise message.data  # nothing of the client's: the reader has failed
            elif kind is WSMsgType.ERROR and not connection.closing:
                # What follows cannot be read any more, the client's own close frame neither: it is dropped for
                # a while, so that ours is not overtaken by a reset.
                self._context.limited.info("websocket", "refused: %s", message.data, to=connection.log())
                code = WSCloseCode.PROTOCOL_ERROR if isinstance(message.data, zlib.error) else message.data.code
                connection.outbox.close(CloseCode(code, "message not readable"))
                await asyncio.sleep(_DROP_SECONDS)
                return
            else:
                connection.messages -= 1  # the end of the socket, which the client has not sent
                return
            if connection.due:
                pause = connection.account()
                if pause:
                    connection.slowed = True
                    await asyncio.sleep(pause)
                    connection.slowed = False

    async def _sweep_forever(self) -> None:
        # Twice within the shortest of the times, so that none is ever passed by more than half.
        interval = min(self._context.options.keepalive, self._context.options.ping, self._context.options.auth) / 2
        loop_time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(interval)
            self._context.limited.flush()  # a flood that has ended is counted too
            if self._context.deflater is not None:
                self._context.deflater.forget()
            started = now = loop_time()
            for connection in list(self._connections):
                try:
                    connection.sweep(now, self._context.options.ping)
                except Exception as error:
                    connection.fail(error)  # the others must be swept on
                if loop_time() - started > _BUDGET_SECONDS:
                    await asyncio.sleep(0)
                    started = loop_time()
