"""The y-websocket protocol over aiohttp: one socket, one session on one document.

Strategy: the pump reads messages and hands them to the live room without waiting in between; the
room writes finished frames straight to the transport. aiohttp does the handshake, the parsing and
the closing; everything that is sent goes around it, because it would frame a broadcast once for each
socket. Heartbeats are one sweep over all sockets instead of timers for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aiohttp import WSMessage, WSMsgType, web
from aiohttp._websocket.models import WSMessageTextBytes

from collab.errors import CollabError, InvalidDocumentName
from collab.hub.hub import Hub
from collab.hub.live import SLICED, LiveRoom
from collab.hub.member import Member
from collab.hub.tasks import Tasks
from collab.protocol import ywebsocket
from collab.protocol.session import State
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.protocol.wire import CloseCode, Message
from collab.telemetry import ConnectionLog, RateLimited, get_logger
from collab.transports.eager import EagerWebSocketResponse
from collab.transports.frames import PING, binary_frame, pong_frame

_log = get_logger("connection")

MAX_NAME_BYTES = 512

# A flooding client would hold the loop, because reading a queued message does not suspend: after
# this many messages the clock is read, after this many seconds the others get their turn.
_BUDGET_MESSAGES = 16
_BUDGET_SECONDS = 0.002

# Seconds that a client gets to answer a close before its connection is cut.
_CLOSE_SECONDS = 5.0

# Seconds within which a probed client must have sent anything at all, its pong at the least.
_PROBE_SECONDS = 5.0

_KEEPALIVE = binary_frame(ywebsocket.KEEPALIVE)


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What the sockets are told by the settings; times in seconds, sizes in bytes."""

    max_message_bytes: int
    outbox_bytes: int
    keepalive: float
    ping: float


class YWebSocketEncoder:
    """Encode for every y-websocket client: there is no address, so all of them share this one."""

    def encode(self, message: Message) -> bytes:
        """Return one whole WebSocket frame."""
        return binary_frame(ywebsocket.encode(message))


_ENCODER = YWebSocketEncoder()


class Connection:
    """One client's socket; the outbox of its session.

    Attributes:
        mark: bytes waiting past which the client counts as slow.
        heard: something arrived since the last sweep; ``heard_at`` is when the last sweep saw that.
        quiet: nothing but keepalives was written since the last sweep.
    """

    __slots__ = (
        "_buffered",
        "_budget",
        "_number",
        "_sockets",
        "_transport",
        "_write",
        "_ws",
        "closing",
        "heard",
        "heard_at",
        "live",
        "mark",
        "member",
        "name",
        "peer",
        "pinged",
        "quiet",
    )

    def __init__(
        self, sockets: WebSockets, ws: web.WebSocketResponse, transport: asyncio.Transport, number: int, peer: str
    ) -> None:
        self._sockets = sockets
        self._ws = ws
        self._transport = transport
        self._write = transport.write
        self._buffered = transport.get_write_buffer_size
        self._number = number
        self.peer = peer
        self.name: str | None = None
        self.mark = sockets.options.outbox_bytes
        self.closing = False
        self.live: LiveRoom | None = None
        self.member: Member | None = None
        self._budget = 0
        self.heard = True
        self.heard_at = 0.0
        self.pinged = False
        self.quiet = False

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
        live, member, data = self.live, self.member, message.data
        if live is None or member is None or len(data) > SLICED or self._sockets.stopping:
            return False
        if member.state is State.CLOSED:
            return False
        try:
            decoded = ywebsocket.decode(data)
            if decoded is None:
                return False
            live.receive(member, decoded)
        except Exception:
            return False
        self._budget = budget - 1
        self.heard = True
        return True

    # As the outbox of a member

    def write(self, data: bytes) -> int:
        """Write finished bytes; return how many wait in this process."""
        if self.closing:
            return 0
        self.quiet = False
        try:
            self._write(data)
        except RuntimeError:
            # uvloop's word for a connection that was lost in this turn of the loop; the pump hears of it in
            # the next one. Nobody else's frame may be lost over it.
            self.closing = True
            return 0
        return self._buffered()

    def waiting(self) -> int:
        """Return how many bytes wait in this process."""
        return self._buffered()

    def end(self, member: Member, error: CollabError) -> None:
        """Close the socket with the code by which y-websocket understands ``error``."""
        self.close_soon(ywebsocket.close_code(error))

    def probe(self) -> None:
        """Ping at once, and cut the connection if nothing is heard within seconds."""
        loop = asyncio.get_running_loop()
        self._send_control(PING)
        loop.call_later(_PROBE_SECONDS, self._probe_over, loop.time())

    def _probe_over(self, probed_at: float) -> None:
        if not self.heard and self.heard_at < probed_at:
            self.abort()

    # Liveness

    def sweep(self, now: float, ping: float) -> None:
        """Keep a silent client's watchdog fed, ping one that says nothing, cut off one that is dead."""
        if self.closing:
            return
        if self.heard:
            self.heard, self.heard_at, self.pinged = False, now, False
        elif now - self.heard_at >= 2 * ping and self.pinged:
            self.abort()
            return
        elif now - self.heard_at >= ping and not self.pinged:
            self.pinged = True
            self._send_control(PING)
        # Past the mark more bytes would not tell it more: it has all those still to read.
        if self.quiet:
            self._send_control(_KEEPALIVE)
        self.quiet = True

    def _send_control(self, frame: bytes) -> None:
        # A peer that sends pings and reads nothing gets no pongs past the mark.
        if not self.closing and self._buffered() <= self.mark:
            quiet = self.quiet
            self.write(frame)
            self.quiet = quiet  # no client sees these but the keepalive, which is sent in silence only

    def pong(self, payload: bytes) -> None:
        """Answer a ping."""
        self._send_control(pong_frame(payload))

    # Closing

    def close_soon(self, code: CloseCode) -> None:
        """Begin to close the socket; nothing more is written to it."""
        if not self.closing:
            self.closing = True
            self._sockets.tasks.spawn(self._close(code), "closing a socket")

    async def close(self, code: CloseCode) -> None:
        """Close the socket and wait until it is."""
        if not self.closing:
            self.closing = True
            await self._close(code)

    async def _close(self, code: CloseCode) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._ws.close(code=code.code, message=code.reason.encode())
        except TimeoutError:
            pass
        finally:
            self._transport.abort()

    def abort(self) -> None:
        """Cut the connection: the peer is dead, so there is nobody to be polite to."""
        self.closing = True
        self._transport.abort()

    def log(self) -> ConnectionLog:
        """Return a logger for this connection; made when needed, most never log."""
        return ConnectionLog(self._number, self.peer, self.name)


class WebSockets:
    """The y-websocket endpoint: accepts sockets, runs their pumps and sweeps over them.

    Args:
        hub: the rooms.
        options: see ``WebSocketOptions``.
    """

    def __init__(self, hub: Hub, options: WebSocketOptions) -> None:
        self.options = options
        self.tasks = Tasks()
        self._hub = hub
        self._limited = RateLimited(_log)
        self._connections: dict[Connection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._numbers = itertools.count(1)

    @property
    def stopping(self) -> bool:
        """Whether the server drains: nothing more is taken from the sockets."""
        return self._hub.stopping

    def start(self) -> None:
        """Start the sweep; call it on the loop."""
        self.tasks.spawn(self._sweep_forever(), "sweep of sockets")

    async def close(self) -> None:
        """Wait for the sockets that are closing, cut the rest, end the sweep."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._empty.wait()
        for connection in list(self._connections):
            connection.abort()
        await self.tasks.close()
        self._limited.flush()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket from its handshake to its end."""
        ws = EagerWebSocketResponse(
            max_msg_size=self.options.max_message_bytes, autoping=False, compress=False, timeout=_CLOSE_SECONDS
        )
        await ws.prepare(request)
        transport = request.transport
        if transport is None:
            return ws
        connection = Connection(self, ws, transport, next(self._numbers), request.remote or "")
        self._connections[connection] = None
        self._empty.clear()
        live: LiveRoom | None = None
        member = Member(_ENCODER, connection)
        try:
            connection.name = document_name(request)
            live = await self._hub.open(connection.name)
            if live.ended is not None:
                raise live.ended
            if not connection.closing:
                live.join(member)
                connection.live, connection.member = live, member
                ws.take = connection.take
                await self._pump(ws, connection, live, member)
        except CollabError as error:
            self._limited.info(type(error).__name__, "refused: %s", error, to=connection.log())
            await connection.close(ywebsocket.close_code(error))
        except ConnectionError:
            pass  # the peer has gone
        except Exception as error:
            self._limited.error(type(error).__name__, "failed", to=connection.log(), exc_info=error)
            await connection.close(ywebsocket.close_code(error))
        finally:
            if live is not None and member in live.room.sessions:
                live.leave(member)
            connection.closing = True
            del self._connections[connection]
            if not self._connections:
                self._empty.set()
        return ws

    async def _pump(self, ws: EagerWebSocketResponse, connection: Connection, live: LiveRoom, member: Member) -> None:
        """Hand the client's messages to the room until the socket ends.

        Raises:
            CollabError: the client sent what it may not; the socket is still open.
        """
        loop_time = asyncio.get_running_loop().time
        receive = ws.receive
        decode = ywebsocket.decode
        hub = self._hub
        count, burst = 0, 0.0
        while True:
            # Not while messages wait: what is parsed when one is fetched comes after it.
            connection.expect(0 if ws.queued else _BUDGET_MESSAGES)
            message = await receive()
            connection.expect(0)
            kind = message.type
            connection.heard = True
            if kind is WSMsgType.BINARY:
                if member.state is State.CLOSED or hub.stopping:
                    continue  # the socket is closing; what is not taken is sent again after the reconnect
                decoded = decode(message.data)
                if decoded is None:
                    self._limited.debug("unknown type", "unknown message type ignored", to=connection.log())
                elif len(message.data) > SLICED and isinstance(decoded, (SyncUpdate, SyncStep2)):
                    await live.receive_in_slices(member, decoded)
                else:
                    live.receive(member, decoded)
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
                self._limited.info("text frame", "refused: text frame", to=connection.log())
                await connection.close(ywebsocket.CLOSE_TEXT)
                return
            else:
                if kind is WSMsgType.ERROR:
                    self._limited.info("websocket", "refused: %s", message.data, to=connection.log())
                return

    async def _sweep_forever(self) -> None:
        # Twice within the shorter of the two times, so that neither is ever passed by more than half.
        interval = min(self.options.keepalive, self.options.ping) / 2
        loop_time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(interval)
            self._limited.flush()  # a flood that has ended is counted too
            started = now = loop_time()
            for connection in list(self._connections):
                connection.sweep(now, self.options.ping)
                if loop_time() - started > _BUDGET_SECONDS:
                    await asyncio.sleep(0)
                    started = loop_time()


def document_name(request: web.Request) -> str:
    """Return the document name in a request's path, percent-decoded.

    The undecoded path is read, because what is not UTF-8 must be refused rather than replaced.

    Raises:
        InvalidDocumentName: empty, longer than 512 bytes, not UTF-8, or with a NUL in it, which
            PostgreSQL cannot keep in a text.
    """
    resource = request.match_info.route.resource
    assert resource is not None
    prefix = resource.canonical.partition("{")[0]
    raw = unquote_to_bytes(request.rel_url.raw_path)[len(prefix.encode()) :]
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidDocumentName("document name: not UTF-8") from None
    if not 0 < len(raw) <= MAX_NAME_BYTES or "\0" in name:
        raise InvalidDocumentName(f"document name of {len(raw)} bytes, or with a NUL")
    return name
