"""WebSockets over aiohttp: what both wire protocols share.

Strategy: a pump reads messages and hands them to its connection without waiting in between; rooms
write finished frames straight to the transport. aiohttp does the handshake, the parsing and the
closing; everything that is sent goes around it, because it would frame a broadcast once for each
socket. Heartbeats are one sweep over all sockets instead of timers for each. What a message means,
and how a client is refused, is the business of the two subclasses of ``Connection``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.models import WSMessageTextBytes

from collab.auth.access import AccessRequest, Authenticator, Grant
from collab.errors import AccessDenied, CollabError, DocumentNotFound, ServerStopping
from collab.hub.hub import Hub
from collab.hub.live import SLICED, LiveRoom
from collab.hub.member import Member
from collab.hub.tasks import Tasks
from collab.protocol.awareness import User
from collab.protocol.session import Access
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.protocol.wire import CloseCode, Message
from collab.telemetry import ConnectionLog, RateLimited, get_logger, shown_name
from collab.transports.audit import LIMIT
from collab.transports.eager import EagerWebSocketResponse
from collab.transports.frames import PING, close_frame, pong_frame
from collab.transports.guard import Guard
from collab.transports.limits import Meter, Ticket
from collab.transports.pacing import PORTION, Pacer
from collab.transports.refusals import Refusals

_log = get_logger("connection")

# A flooding client would hold the loop, because reading a queued message does not suspend: after
# this many messages the clock is read, after this many seconds the others get their turn.
_BUDGET_MESSAGES = 16
_BUDGET_SECONDS = 0.002

# Seconds that a client gets to answer a close before its connection is cut.
_CLOSE_SECONDS = 5.0

# Seconds in which what a client still sends is dropped when its messages cannot be read any more.
_DROP_SECONDS = 1.0

# Seconds between looks at a full outbox on which an answer waits.
_DRAIN_PAUSE = 0.05

# Seconds within which a probed client must have sent anything at all, its pong at the least.
_PROBE_SECONDS = 5.0

# Bytes that a client may send between two looks at how much it sends; messages are looked at by the budget.
_SETTLE_BYTES = 64 * 1024

_CUT = CloseCode(1013, "others need the place: show a token sooner, come back later")


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What the sockets are told by the settings; times in seconds, sizes in bytes."""

    max_message_bytes: int
    outbox_bytes: int
    keepalive: float
    ping: float
    auth: float
    max_documents: int
    max_waiting_bytes: int
    stateless: bool
    max_stateless_bytes: int
    stateless_rate: float
    stamp_users: bool


class Accepted(NamedTuple):
    """A socket behind its handshake; ``number`` names it in the log."""

    transport: asyncio.Transport
    number: int
    request: web.Request


class Connection(ABC):
    """One client's socket, in one wire protocol.

    Attributes:
        mark: bytes waiting past which the client counts as slow.
        heard: something arrived since the last sweep; ``heard_at`` is when the last sweep saw that.
        quiet: nothing but keepalives was written since the last sweep.
        client: who is at the other end; ``peer`` is its address.
        refused: why nothing can be done here, whatever token is shown; found before ``open``.
        ticket: the place that the socket takes; None until it has one.
        messages, nbytes, awareness: what was received since ``settle``; for ``awareness`` the wire
            protocol counts.
    """

    text_close: ClassVar[CloseCode]
    """How a client that sends text frames is closed."""

    __slots__ = (
        "_buffered",
        "_budget",
        "_number",
        "_portions",
        "_portions_size",
        "_transport",
        "_waited",
        "_write",
        "awareness",
        "client",
        "closing",
        "heard",
        "heard_at",
        "mark",
        "messages",
        "nbytes",
        "peer",
        "pinged",
        "quiet",
        "refused",
        "request",
        "sockets",
        "ticket",
    )

    def __init__(self, sockets: WebSockets, accepted: Accepted) -> None:
        transport, number, request = accepted
        self.sockets = sockets
        self._transport = transport
        self._write = transport.write
        self._buffered = transport.get_write_buffer_size
        self._number = number
        self.request = request
        self.client = sockets.guard.peer(request)
        self.peer = self.client.address
        self.refused: AccessDenied | None = None
        self.ticket: Ticket | None = None
        self.messages = self.nbytes = self.awareness = 0
        self.mark = sockets.options.outbox_bytes
        self.closing = False
        self._budget = 0
        self._portions: deque[memoryview] | None = None  # of a large frame, and what was written behind it
        self._portions_size = 0
        self._waited = 0
        self.heard = True
        self.heard_at = 0.0
        self.pinged = False
        self.quiet = False

    # What a wire protocol decides

    @abstractmethod
    async def open(self) -> None:
        """Do what comes before the first message is read.

        Raises:
            CollabError: the client is refused.
        """

    @abstractmethod
    def take_small(self, data: bytes) -> bool:
        """Take a small message at once; False, or any exception, leaves it to ``receive`` as if untouched."""

    @abstractmethod
    async def receive(self, data: bytes) -> None:
        """Take one message.

        Raises:
            CollabError: the client sent what it may not, and the whole socket is over for it.
        """

    @abstractmethod
    def leave(self) -> None:
        """Leave all rooms: the socket has ended."""

    @abstractmethod
    def close_code(self, error: BaseException) -> CloseCode:
        """Return the close code by which the client understands ``error``."""

    @abstractmethod
    def keepalive_frame(self) -> bytes | None:
        """Return a frame that feeds the client's watchdog and does nothing else."""

    @property
    def document_name(self) -> str | None:
        """The document that the whole socket is for, if there is one."""
        return None

    def overdue(self, now: float) -> CloseCode | None:
        """Return how to close a client that has not done in time what it must do."""
        return None

    # Reading

    def expect(self, budget: int) -> None:
        """Let the next ``budget`` small messages be taken as they are parsed; 0 leaves them to the pump."""
        self._budget = budget

    def take(self, message: WSMessage | WSMessageTextBytes) -> bool:
        """Take a small message at once, if the pump waits for one; called while the socket is read.

        False leaves the message to the pump: it is no data, it is large, the budget is used up, or
        it is wrong in some way, which the pump will find again (nothing of it was taken) and can say.
        """
        if self._budget <= 0:
            return False
        # Nothing may overtake a message that is left to the pump, so the rest of the budget is void.
        # The parser can hold back frames behind it, and parses those in the very moment in which the
        # pump fetches this one from the queue, before the pump can handle it.
        budget, self._budget = self._budget, 0
        if message.type is not WSMsgType.BINARY:
            return False
        data = message.data
        if len(data) > SLICED or self.sockets.stopping or self.closing:
            return False
        try:
            if not self.take_small(data):
                return False
        except Exception:
            return False
        self._budget = budget - 1
        self.heard = True
        self.messages += 1
        self.nbytes += len(data)
        return True

    def settle(self, meter: Meter, now: float) -> float:
        """Account for what was received; return the seconds for which nothing more is to be read.

        Raises:
            Overloaded: the client sends far too much.
        """
        pause = meter.settle(now, self.messages, self.nbytes, self.awareness)
        self.messages = self.nbytes = self.awareness = 0
        return pause

    # Writing

    def write(self, data: bytes) -> int:
        """Write a finished frame; return how many bytes wait in this process."""
        if self.closing:
            return 0
        self.quiet = False
        if self._portions is not None or len(data) > 2 * PORTION:
            return self._write_in_portions(data)
        try:
            self._write(data)
        except RuntimeError:
            self._lost()
            return 0
        return self._buffered()

    def _lost(self) -> None:
        # uvloop's word for a connection that was lost in this turn of the loop; the pump hears of it in
        # the next one. Nobody else's frame may be lost over it.
        self.closing = True

    def waiting(self) -> int:
        """Return how many bytes wait in this process."""
        return self._buffered() + self._portions_size

    def _write_in_portions(self, data: bytes) -> int:
        view = memoryview(data)
        if self._portions is None:
            self._portions = deque()
            self.sockets.pacer.add(self)
        for begin in range(0, len(data), PORTION):
            self._portions.append(view[begin : begin + PORTION])
        self._portions_size += len(data)
        return self.waiting()

    @property
    def has_portions(self) -> bool:
        """Whether a large frame, or what came behind it, is still to be written."""
        return self._portions is not None

    def send_portion(self) -> bool:
        """Write the next portion if the transport has taken the last one."""
        if self.closing:
            self._portions, self._portions_size = None, 0
            return False
        if self._portions is None or self._buffered():
            return False
        portion = self._portions.popleft()
        self._portions_size -= len(portion)
        try:
            self._write(portion)
        except RuntimeError:
            self._lost()
        if not self._portions:
            self._portions = None
        return True

    async def drained(self) -> None:
        """Wait until the client has read most of what waits for it.

        Call it before an answer that a client can ask for as often as it likes: one that reads nothing is
        not read any further either, and is taken for dead in the end.
        """
        while self.waiting() > self.mark and not self.closing:  # noqa: ASYNC110 - a transport has one watcher of its marks
            await asyncio.sleep(_DRAIN_PAUSE)

    # As the outbox of its members

    def probe(self) -> None:
        """Ping at once, and cut the connection if nothing is heard within seconds."""
        loop = asyncio.get_running_loop()
        self.send_control(PING)
        loop.call_later(_PROBE_SECONDS, self._probe_over, loop.time())

    def _probe_over(self, probed_at: float) -> None:
        if not self.heard and self.heard_at < probed_at:
            self.abort()

    # Liveness

    def sweep(self, now: float, ping: float) -> None:
        """Keep a silent client's watchdog fed, ping one that says nothing, cut off one that is dead."""
        if self.closing:
            return
        code = self.overdue(now)
        if code is not None:
            self.close(code)
            return
        waited, self._waited = self._waited, self.waiting()
        # One that takes what waits for it lives, though a ping would have to wait behind all that.
        if self.heard or self._waited < waited:
            self.heard, self.heard_at, self.pinged = False, now, False
        elif now - self.heard_at >= 2 * ping and self.pinged:
            self.abort()
            return
        elif now - self.heard_at >= ping and not self.pinged:
            self.pinged = True
            self.send_control(PING)
        # Past the mark more bytes would not tell it more: it has all those still to read.
        if self.quiet:
            frame = self.keepalive_frame()
            if frame is not None:
                self.send_control(frame)
        self.quiet = True

    def send_control(self, frame: bytes) -> None:
        """Write a frame that is not missed: a peer that sends pings and reads nothing gets no pongs past the mark."""
        if not self.closing and self.waiting() <= self.mark:
            quiet = self.quiet
            self.write(frame)
            self.quiet = quiet  # no client sees these but the keepalive, which is sent in silence only

    def pong(self, payload: bytes) -> None:
        """Answer a ping."""
        self.send_control(pong_frame(payload))

    # Closing

    def close(self, code: CloseCode) -> None:
        """Send a close frame; nothing more is written, and what still comes is dropped until the client's own.

        Not closed at once: with bytes of the client still unread, the kernel would reset the connection,
        which overtakes the close frame, and the client would never see its code.
        """
        if self.closing:
            return
        self.closing = True
        if self._portions is not None:
            self._transport.abort()  # else the close frame would stand in the middle of another
            return
        with contextlib.suppress(RuntimeError):
            self._write(close_frame(code))
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)

    def closed_by_client(self, code: int | None) -> None:
        """Answer the client's close frame, if it is no answer itself, and close the connection."""
        if not self.closing and self._portions is None:
            with contextlib.suppress(RuntimeError):
                # A close frame without a code is answered by one.
                self._write(close_frame(CloseCode(code, "") if code else None))
        self.closing = True
        if self._buffered():  # a client that has closed need not read the rest
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._transport.abort)
        self._transport.close()

    def cut(self) -> None:
        """End a connection that has shown no token for too long, while others need its place."""
        reason = "too many connections that have not authenticated"
        self.sockets.guard.audit.write(LIMIT, "unauthenticated", reason, self.peer)
        self.close(_CUT)
        self._transport.close()  # at once: those who do this on purpose would keep the place by not answering

    def abort(self) -> None:
        """Cut the connection: the peer is dead, so there is nobody to be polite to."""
        self.closing = True
        self._transport.abort()

    # For the wire protocols

    async def authenticate(self, token: str, document_name: str) -> Grant:
        """Ask what the client may do with a document.

        Raises:
            AccessDenied, AccessUnavailable.
            Overloaded: the user has too many connections.
            DocumentBusy: the document would have to be loaded, for which there is no memory now.
        """
        if self.refused is not None:
            raise self.refused
        grant = await self.sockets.authenticator.authenticate(AccessRequest(token, document_name, self.peer))
        limits = self.sockets.guard.limits
        if grant.user is not None and self.ticket is not None:
            limits.identify(self.ticket, grant.user, asyncio.get_running_loop().time())
        limits.settle(self)
        limits.check_load(document_name in self.sockets.hub.rooms)
        return grant

    def check_enter(self, live: LiveRoom, grant: Grant) -> None:
        """Check that a room can be joined with what was granted.

        Raises:
            CollabError: the room has ended.
            DocumentNotFound: there is no such document, and the client may not make it.
            DocumentBusy: too many have it open, or the client has made too many.
        """
        if live.ended is not None:
            raise live.ended
        if grant.access is Access.READ and not live.exists:
            raise DocumentNotFound(f"{shown_name(live.name)} does not exist, and its client may only read")
        if self.ticket is not None:
            members = len(live.room.sessions)
            self.sockets.guard.limits.check_join(
                self.ticket, grant.user, members, not (live.exists or members), asyncio.get_running_loop().time()
            )

    def identify(self, member: Member, grant: Grant) -> None:
        """Note who the client is, for the journal and for its awareness states."""
        member.author = grant.user
        stamped = self.sockets.options.stamp_users and grant.user is not None
        member.user = User(grant.user, grant.name or grant.user) if stamped and grant.user is not None else None

    def when_expired(self, grant: Grant, then: Callable[[], None], lead: float = 0.0) -> asyncio.TimerHandle | None:
        """Call ``then`` when what was granted runs out, ``lead`` seconds (a third of its time at most) before."""
        if grant.expires_at is None:
            return None
        left = grant.expires_at - self.sockets.hub.clock()
        return asyncio.get_running_loop().call_later(max(0.0, left - min(lead, left / 3)), then)

    async def give(self, live: LiveRoom, member: Member, message: Message, size: int) -> None:
        """Hand a message of ``size`` bytes to a room, letting the loop go on in between if it is large."""
        if size > SLICED and isinstance(message, (SyncUpdate, SyncStep2)):
            await live.receive_in_slices(member, message)
        else:
            live.receive(member, message)

    def log(self, document_name: str | None = None) -> ConnectionLog:
        """Return a logger for this connection; made when needed, most never log."""
        return ConnectionLog(self._number, self.peer, document_name)


class WebSockets:
    """All sockets of this node: accepts them, runs their pumps and sweeps over them.

    Args:
        hub: the rooms.
        authenticator: decides who may do what.
        guard: decides who may come at all, and how much each may have.
        options: see ``WebSocketOptions``.
    """

    def __init__(self, hub: Hub, authenticator: Authenticator, guard: Guard, options: WebSocketOptions) -> None:
        self.hub = hub
        self.authenticator = authenticator
        self.guard = guard
        self.options = options
        self.tasks = Tasks()
        self.pacer = Pacer()
        self.refusals = Refusals()
        self.limited = RateLimited(_log)
        self._connections: dict[Connection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._numbers = itertools.count(1)

    @property
    def stopping(self) -> bool:
        """Whether the server drains: nothing more is taken from the sockets."""
        return self.hub.stopping

    def start(self) -> None:
        """Start the sweep; call it on the loop."""
        self.tasks.spawn(self._sweep_forever(), "sweep of sockets")

    async def close(self) -> None:
        """Close all sockets, cut those that do not answer, end the sweep."""
        for connection in list(self._connections):
            connection.close(connection.close_code(ServerStopping()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._empty.wait()
        for connection in list(self._connections):
            connection.abort()
        self.pacer.close()
        await self.tasks.close()
        self.limited.flush()

    def handler(self, kind: type[Connection]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the aiohttp handler that serves one socket of ``kind`` from its handshake to its end."""
        # No coroutine of its own: it would cost every socket its frame.
        return self.guard.sockets(partial(self._handle, kind))

    async def _handle(self, kind: type[Connection], request: web.Request) -> web.StreamResponse:
        ws = EagerWebSocketResponse(max_msg_size=self.options.max_message_bytes, timeout=_CLOSE_SECONDS)
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            return ws
        ws.headers.clear()  # they have been sent; half a KiB that every idle socket would keep
        connection = kind(self, Accepted(transport, next(self._numbers), request))
        self._connections[connection] = None
        self._empty.clear()
        limits, client, loop_time = self.guard.limits, connection.client, asyncio.get_running_loop().time
        try:
            # All in one coroutine: another one would cost every idle socket its frame.
            try:
                if self.stopping:
                    raise ServerStopping("the server is stopping")
                if not limits.spares(client):
                    limits.wait(connection, connection.cut, loop_time())
                connection.ticket = limits.enter(client, loop_time())
                connection.refused = self.guard.refusal(request, client)
                await connection.open()
                ws.take = connection.take
                await self._pump(ws, connection, self.guard.meter(client, loop_time()))
            except CollabError as error:
                self.guard.audit.note(error, connection.peer, connection.document_name)
                self.limited.info(type(error).__name__, "refused: %s", error, to=connection.log())
                connection.close(connection.close_code(error))
            except ConnectionError:
                raise
            except Exception as error:
                self.limited.error(type(error).__name__, "failed", to=connection.log(), exc_info=error)
                connection.close(connection.close_code(error))
            await self._pump(ws, connection, None)  # one that was refused still has to answer the close frame
        except ConnectionError:
            pass  # the peer has gone
        finally:
            connection.leave()
            connection.closing = True
            transport.close()
            limits.settle(connection)
            if connection.ticket is not None:
                limits.leave(connection.ticket, loop_time())
            del self._connections[connection]
            if not self._connections:
                self._empty.set()
        return ws

    async def _pump(self, ws: EagerWebSocketResponse, connection: Connection, meter: Meter | None) -> None:
        """Hand the client's messages to its connection until the socket ends.

        One that sends more than ``meter`` allows is read more slowly: what it has sent waits in the kernel,
        and then with itself.

        Raises:
            CollabError: the client sent what it may not; the socket is still open.
        """
        loop_time = asyncio.get_running_loop().time
        receive = ws.receive
        hub = self.hub
        count, burst = 0, 0.0
        while True:
            # Not while messages wait: what is parsed when one is fetched comes after it.
            connection.expect(0 if ws.queued else _BUDGET_MESSAGES)
            message = await receive()
            connection.expect(0)
            kind = message.type
            connection.heard = True
            connection.messages += 1
            if kind is WSMsgType.BINARY:
                if connection.closing or hub.stopping:
                    count += 1
                    if not count % _BUDGET_MESSAGES:
                        await asyncio.sleep(0)
                    continue  # the socket is closing; what is not taken is sent again after the reconnect
                await connection.receive(message.data)
                connection.nbytes += len(message.data)
                count += 1
                if count >= _BUDGET_MESSAGES:
                    count = 0
                    now = loop_time()
                    if now - burst > _BUDGET_SECONDS:
                        await asyncio.sleep(0)
                        burst = loop_time()
            elif kind is WSMsgType.PING:
                connection.pong(message.data)
            elif kind is WSMsgType.PONG:
                pass
            elif kind is WSMsgType.TEXT:
                if not connection.closing:
                    self.limited.info("text frame", "refused: text frame", to=connection.log())
                    connection.close(connection.text_close)
            elif kind is WSMsgType.CLOSE:
                connection.closed_by_client(message.data)
                return
            elif kind is WSMsgType.ERROR and isinstance(message.data, WebSocketError) and not connection.closing:
                # What follows cannot be read any more, the client's own close frame neither: it is dropped for
                # a while, so that ours is not overtaken by a reset.
                self.limited.info("websocket", "refused: %s", message.data, to=connection.log())
                too_big = f"a message has at most {self.options.max_message_bytes} bytes"
                reason = too_big if message.data.code == WSCloseCode.MESSAGE_TOO_BIG else "message not readable"
                connection.close(CloseCode(message.data.code, reason))
                await asyncio.sleep(_DROP_SECONDS)
                return
            else:
                return
            if meter is not None and (connection.messages >= _BUDGET_MESSAGES or connection.nbytes >= _SETTLE_BYTES):
                pause = connection.settle(meter, loop_time())
                if pause:
                    await asyncio.sleep(pause)
                    connection.heard = True  # it may well have been, and nobody listened

    async def _sweep_forever(self) -> None:
        # Twice within the shortest of the times, so that none is ever passed by more than half.
        interval = min(self.options.keepalive, self.options.ping, self.options.auth) / 2
        loop_time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(interval)
            self.limited.flush()  # a flood that has ended is counted too
            started = now = loop_time()
            for connection in list(self._connections):
                connection.sweep(now, self.options.ping)
                if loop_time() - started > _BUDGET_SECONDS:
                    await asyncio.sleep(0)
                    started = loop_time()
