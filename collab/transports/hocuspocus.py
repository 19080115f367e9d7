"""The Hocuspocus protocol on a socket: many documents, each under an address of its own.

Strategy: a channel is one address with its session. What comes for a channel that is not live yet waits
in order, while one task for each channel asks for access, opens the document and hands over what waits;
so an address that is slow or refused holds up no other. Once a channel is live its messages go the same
way as those of y-websocket: straight to the room, while the socket is read.

How a session ends decides how its client is told. What may pass by coming back (this node stops, the
store is down, too slow) closes the socket, upon which the provider reconnects and all its documents are
asked for again. What will not pass is said under its address by PermissionDenied, which leaves the other
documents alone and the client free to show another token.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from collab.auth.access import Grant
from collab.errors import AccessExpired, CollabError, DecodeError, LimitExceeded, ServerStopping
from collab.hub.live import LiveRoom
from collab.hub.member import Member
from collab.protocol import hocuspocus
from collab.protocol.awareness import AwarenessUpdate
from collab.protocol.hocuspocus import BroadcastStateless, ClientMessage, Close, Token, WaitingFrames
from collab.protocol.session import Access, Event, State
from collab.protocol.sync import decode_sync
from collab.protocol.wire import CloseCode, Message, PermissionDenied, Stateless, SyncStatus
from collab.transports.audit import LIMIT
from collab.transports.frames import binary_frame
from collab.transports.limits import TokenBucket
from collab.transports.websocket import Accepted, Connection, WebSockets

_PONG = binary_frame(hocuspocus.PONG)

# Seconds between attempts to open a document while the store cannot be reached and other documents of
# the socket go on; the reasons for the numbers are those of any back-off.
_RETRY_FIRST = 0.5
_RETRY_LAST = 10.0

# Seconds after a client's CLOSE until it is answered, unless it has opened the document again: the new
# provider of that name would take the answer for its own end. A page that does so sends both at once.
_CLOSED_AFTER = 0.05

# Seconds before the end of what was granted in which a provider may fetch a fresh token.
_TOKEN_LEAD = 30.0

# Updates under a denied address that are remembered, to be acknowledged should it be let in.
_MAX_DROPPED = 5_000

# Addresses that were closed of late, under which providers 2 send one more awareness message.
_MAX_DEPARTED = 20

Result = TypeVar("Result")


class HocuspocusEncoder:
    """Encode for all clients that have a document under the same address."""

    __slots__ = ("__weakref__", "_refused", "_saved", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._saved = binary_frame(prefix + hocuspocus.encode(SyncStatus(True)))
        self._refused = binary_frame(prefix + hocuspocus.encode(SyncStatus(False)))

    def encode(self, message: Message) -> bytes:
        """Return one whole WebSocket frame."""
        if type(message) is SyncStatus:
            return self._saved if message.saved else self._refused
        return binary_frame(self.prefix + hocuspocus.encode(message))

    def frame(self, body: bytes) -> bytes:
        """Return ``body`` under this address as one whole WebSocket frame."""
        return binary_frame(self.prefix + body)


_encoders: WeakValueDictionary[bytes, HocuspocusEncoder] = WeakValueDictionary()


def _encoder(address: bytes) -> HocuspocusEncoder:
    encoder = _encoders.get(address)
    if encoder is None:
        encoder = _encoders[address] = HocuspocusEncoder(hocuspocus.prefix(address))
    return encoder


class HocuspocusMember(Member):
    """A member whose protocol says "saved" and knows stateless messages."""

    acknowledges = True
    stateless = True

    __slots__ = ()


class Channel:
    """One address of a socket; the outbox of its member.

    Attributes:
        address: as the client writes it, in UTF-8.
        member: its session; a new one after each end that leaves the channel.
        live: the room, from the moment in which the session has joined it.
        ready: nothing waits any more, so messages go straight to the room.
        task: asks for access and opens the document; None when that is done.
        asking, expiry: when its client is asked for a fresh token, and when its access ends.
        dropped: updates that came while it was denied.
        renewal: looks at a token that came while the session is live; None when that is done.
    """

    __slots__ = (
        "_connection",
        "address",
        "asking",
        "dropped",
        "encoder",
        "expiry",
        "live",
        "mark",
        "member",
        "ready",
        "renewal",
        "task",
        "waiting",
        "write",
    )

    def __init__(self, connection: HocuspocusConnection, address: bytes) -> None:
        self._connection = connection
        self.address = address
        self.encoder = _encoder(address)
        self.mark = connection.mark
        # All channels of a socket share what waits for it.
        self.write = connection.write
        self.waiting = connection.waiting
        self.member = HocuspocusMember(self.encoder, self)
        self.live: LiveRoom | None = None
        self.ready = False
        self.task: asyncio.Task[None] | None = None
        self.renewal: asyncio.Task[None] | None = None
        self.dropped = 0
        self.asking: asyncio.TimerHandle | None = None
        self.expiry: asyncio.TimerHandle | None = None

    def forget_expiry(self) -> None:
        """Wait no longer for the end of what was granted."""
        for timer in (self.asking, self.expiry):
            if timer is not None:
                timer.cancel()
        self.asking = self.expiry = None

    @property
    def name(self) -> str:
        """The document's name for the log; an address may be no valid one."""
        return self.address.decode().partition("\0")[0]

    def end(self, member: Member, error: CollabError) -> None:
        """Tell the client that this session is over, and why."""
        self._connection.sockets.guard.audit.note(error, self._connection.peer, self.name)
        self._connection.refuse(self, error)

    def probe(self) -> None:
        """Find out soon whether the client still lives."""
        self._connection.probe()

    def note_refused(self, member: Member, what: str = "an edit") -> None:
        """Write the attempt to the audit log."""
        connection = self._connection
        connection.sockets.guard.audit.read_only(what, connection.peer, member.author, self.name, "hocuspocus")


class HocuspocusConnection(Connection):
    """One client's socket with its channels.

    Attributes:
        channels: by address.
    """

    text_close = hocuspocus.CLOSE_UNREADABLE

    __slots__ = (
        "_departed",
        "_established",
        "_last",
        "_opened_at",
        "_stateless",
        "_unproven",
        "_waiting_frames",
        "channels",
    )

    def __init__(self, sockets: WebSockets, accepted: Accepted) -> None:
        super().__init__(sockets, accepted)
        self.channels: dict[bytes, Channel] = {}
        self._last: Channel | None = None  # the one that spoke last; most sockets have only one
        self._waiting_frames = WaitingFrames(sockets.options.max_waiting_bytes)
        self._unproven: set[bytes] = set()  # addresses that have shown no token
        self._departed: dict[bytes, asyncio.TimerHandle] = {}  # with when each is told so
        self._opened_at = asyncio.get_running_loop().time()
        self._established = False  # whether any document was ever granted
        self._stateless: TokenBucket | None = None

    # As a connection

    async def open(self) -> None:
        """Do nothing: the client says what it wants."""

    def take_small(self, data: bytes) -> bool:
        """Take a small message of a live channel while the socket is read."""
        channel = self._last
        if channel is not None and data.startswith(channel.encoder.prefix):
            pos = len(channel.encoder.prefix)
        else:
            address, pos = hocuspocus.read_address(data)
            channel = self.channels[address]
        live, kind = channel.live, data[pos]
        if not channel.ready or kind > hocuspocus.AWARENESS or live is None:
            return False
        if kind == hocuspocus.SYNC:
            live.receive(channel.member, decode_sync(data, pos + 1))
        else:
            self.awareness += 1
            live.receive(channel.member, hocuspocus.decode_awareness(data, pos + 1))
        self._last = channel
        return True

    async def receive(self, data: bytes) -> None:
        """Take one message.

        Raises:
            AddressError: it is for no document; nobody can say what else of this socket is meant.
            CollabError: the whole socket is over.
        """
        if data == hocuspocus.PONG:
            return
        if data == hocuspocus.PING:
            self.send_control(_PONG)
            return
        address, pos = hocuspocus.read_address(data)
        channel = self.channels.get(address)
        if channel is None:
            if address in self._departed:
                if data[pos : pos + 1] == bytes((hocuspocus.AWARENESS,)):
                    return
                if hocuspocus.is_step2(data, pos):
                    # It answers a question of the session that was closed, so whoever sends it does not know
                    # of its end: made, destroyed and made again before the socket was open, the first one's
                    # CLOSE has come behind the second one's Auth. After a reconnect only the second is there.
                    raise LimitExceeded("a SyncStep2 behind the CLOSE of its document")
            channel = self._add(address)
            if channel is None:
                return
        if channel.ready:
            await self._handle(channel, data, pos)
        else:
            await self._wait(channel, data, pos)

    def leave(self) -> None:
        """Leave all rooms."""
        for channel in list(self.channels.values()):
            self._remove(channel)

    def close_code(self, error: BaseException) -> CloseCode:
        """Return the code for an error that ends the socket."""
        if isinstance(error, LimitExceeded):
            return hocuspocus.close_code(error) or hocuspocus.CLOSE_RESET
        return hocuspocus.close_code(error) or hocuspocus.CLOSE_FAILED

    def keepalive_frame(self) -> bytes | None:
        """Return an empty awareness update under any address: the watchdog is the socket's."""
        for channel in self.channels.values():
            return channel.encoder.frame(hocuspocus.KEEPALIVE)
        return None

    def overdue(self, now: float) -> CloseCode | None:
        """Close a socket on which nothing was granted within ``--auth-seconds``."""
        if self._established or now - self._opened_at < self.sockets.options.auth:
            return None
        return hocuspocus.CLOSE_UNAUTHENTICATED

    # Channels

    def _add(self, address: bytes) -> Channel | None:
        limit = self.sockets.options.max_documents
        if len(self.channels) >= limit:
            reason = f"more than {limit} documents on one connection"
            self.sockets.guard.audit.write(LIMIT, "documents", reason, self.peer)
            self.sockets.limited.info("documents", "refused: %s", reason, to=self.log())
            self.send_control(_encoder(address).frame(hocuspocus.encode(PermissionDenied(reason))))
            return None
        self._unproven.add(address)
        if len(self._unproven) > WaitingFrames.MAX_ADDRESSES:
            raise LimitExceeded(f"{len(self._unproven)} documents before authentication")
        channel = self.channels[address] = Channel(self, address)
        return channel

    def _remove(self, channel: Channel) -> None:
        """Forget a channel; its session is over."""
        self._end_session(channel)
        self._waiting_frames.take_all(channel.address)
        if channel.member.state is not State.CLOSED:
            channel.member.on(Event.ENDED)
        self._unproven.discard(channel.address)
        self.channels.pop(channel.address, None)

    def _end_session(self, channel: Channel) -> None:
        channel.ready = False
        if channel is self._last:
            self._last = None
        live, channel.live = channel.live, None
        if live is not None:
            live.leave(channel.member)
        channel.forget_expiry()
        for task in (channel.task, channel.renewal):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        channel.task = channel.renewal = None

    def refuse(self, channel: Channel, error: Exception) -> None:
        """End one session and say why: by closing the socket if coming back may help, else under its address."""
        code = hocuspocus.close_code(error)
        if code is None and not isinstance(error, CollabError):
            code = hocuspocus.CLOSE_FAILED
        if code is not None:
            self.close(code)
            return
        assert isinstance(error, CollabError)
        self._end_session(channel)
        if channel.member.state is State.CLOSED:
            channel.member = HocuspocusMember(channel.encoder, channel)
            channel.member.on(Event.PRESENTED)
        channel.member.on(Event.DENIED)
        self._thin_out(channel)
        self.write(channel.encoder.encode(PermissionDenied(error.public)))

    # What waits

    async def _wait(self, channel: Channel, frame: bytes, pos: int) -> None:
        """Take a message for a channel that is not live yet."""
        kind = frame[pos] if pos < len(frame) else None
        state = channel.member.state
        if state is State.ARRIVED or state is State.DENIED:
            if kind == hocuspocus.CLOSE:
                self._waiting_frames.take_all(channel.address)  # it came before
                await self._detach(channel)
                return
            if kind == hocuspocus.AUTH:
                try:
                    message = hocuspocus.decode(frame, pos)
                except (DecodeError, LimitExceeded) as error:
                    await self.drained()
                    channel.member.on(Event.PRESENTED)
                    self._note(channel, error)
                    self.refuse(channel, error)
                    return
                assert isinstance(message, Token)
                self._unproven.discard(channel.address)
                self._present(channel, message.token)
                return
            if state is State.ARRIVED and hocuspocus.is_step1(frame, pos):
                self._present(channel, "")
        waiting = self._waiting_frames
        if state is State.AUTHENTICATING and kind == hocuspocus.AUTH and not self._closes(channel):
            await self._present_again(channel, frame, pos)
            return
        waiting.put(channel.address, frame)
        if state is State.DENIED:
            self._thin_out(channel)
        while waiting.full:
            await self._relieve()

    def _closes(self, channel: Channel) -> bool:
        """Tell whether a CLOSE waits: what comes behind it is for the next session."""
        pos = len(channel.encoder.prefix)
        return any(
            frame[pos : pos + 1] == bytes((hocuspocus.CLOSE,)) for frame in self._waiting_frames.of(channel.address)
        )

    async def _present_again(self, channel: Channel, frame: bytes, pos: int) -> None:
        """Look at a newer token instead of the one that is being looked at, which may take for ever."""
        try:
            message = hocuspocus.decode(frame, pos)
        except (DecodeError, LimitExceeded) as error:
            await self.drained()
            self._note(channel, error)
            self.refuse(channel, error)
            return
        assert isinstance(message, Token)
        if channel.task is not None:
            channel.task.cancel()
        channel.member = HocuspocusMember(channel.encoder, channel)
        self._present(channel, message.token)

    def _thin_out(self, channel: Channel) -> None:
        """Keep of what waits for a denied channel its last SyncStep1 and awareness message.

        People type on in a document that is denied. Nothing is lost: should it be let in, both sides tell
        each other what they lack, and then the updates that were dropped here are acknowledged.
        """
        pos = len(channel.encoder.prefix)
        last: dict[bytes, bytes] = {}
        for frame in self._waiting_frames.take_all(channel.address):
            kind = frame[pos : pos + 1]
            if kind == bytes((hocuspocus.AWARENESS,)) or hocuspocus.is_step1(frame, pos):
                last[kind] = frame
            elif kind == bytes((hocuspocus.SYNC,)) and channel.dropped < _MAX_DROPPED:
                channel.dropped += 1
        for frame in last.values():
            self._waiting_frames.put(channel.address, frame)

    async def _relieve(self) -> None:
        """Make room among the waiting frames.

        Raises:
            LimitExceeded: all that waits was sent without permission.
        """
        before = self._waiting_frames.frames
        for channel in self.channels.values():
            if channel.member.state is State.DENIED:
                self._waiting_frames.take_all(channel.address)
        if self._waiting_frames.frames < before:
            return
        joining = [
            channel.task
            for channel in self.channels.values()
            if channel.task is not None and channel.member.state in (State.JOINING, State.LIVE, State.LAGGING)
        ]
        if not joining:
            raise LimitExceeded(
                f"{self._waiting_frames.nbytes} bytes in {self._waiting_frames.frames} messages before authentication"
            )
        # These were let in: the socket is not read until their documents are open.
        await asyncio.wait(joining, return_when=asyncio.FIRST_COMPLETED)

    def _present(self, channel: Channel, token: str) -> None:
        channel.member.on(Event.PRESENTED)
        channel.task = self.sockets.tasks.spawn(self._admit(channel, channel.member, token), "admitting a client")

    async def _admit(self, channel: Channel, member: Member, token: str) -> None:
        """Ask for access, open the document, join it, hand over what waits."""
        try:
            name = hocuspocus.document_name(channel.address)
            grant = await self._patiently(channel, lambda: self.authenticate(token, name))
            member.grant(grant.access, grant.user)
            await self.drained()
            live = await self._patiently(channel, lambda: self.sockets.hub.open(name))
            # From here to the join nothing is awaited: an empty room may leave memory at any time.
            if self.closing:
                return
            self.check_enter(live, grant)
            self._established = True
            self._unproven.discard(channel.address)
            # Not before: providers 2 that have got any message come back at once and for ever when the
            # socket is closed, because the store is down, say; without one they wait longer each time.
            self.write(channel.encoder.frame(hocuspocus.encode_authenticated(grant.access)))
            self.identify(member, grant)
            live.join(member)
            channel.live = live
            self._watch_expiry(channel, grant)
            if channel.dropped and grant.access is not Access.READ:
                # The answer to the SyncStep1 that the client has just been sent holds them all.
                member.held = [True] * channel.dropped
            channel.dropped = 0
            while member.state is not State.CLOSED:
                frame = self._waiting_frames.take(channel.address)
                if frame is None:
                    channel.ready, channel.task = True, None
                    return
                await self._handle(channel, frame, len(channel.encoder.prefix))
        except Exception as error:
            self._note(channel, error)
            if self.channels.get(channel.address) is not channel:
                self.close(self.close_code(error))
            elif member is channel.member:
                await self.drained()
                behind = self._from_next_start(channel)
                self.refuse(channel, error)
                for frame in behind:
                    await self.receive(frame)

    def _from_next_start(self, channel: Channel) -> list[bytes]:
        """Remove and return what waits from the next CLOSE or Auth on: what is refused before does not concern it."""
        pos = len(channel.encoder.prefix)
        frames = self._waiting_frames.take_all(channel.address)
        starts = (bytes((hocuspocus.CLOSE,)), bytes((hocuspocus.AUTH,)))
        start = next((at for at, frame in enumerate(frames) if frame[pos : pos + 1] in starts), len(frames))
        for frame in frames[:start]:
            self._waiting_frames.put(channel.address, frame)
        return frames[start:]

    async def _patiently(self, channel: Channel, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Try again what may succeed later, while other documents of the socket go on; alone, it fails."""
        delay = _RETRY_FIRST
        while True:
            try:
                return await attempt()
            except CollabError as error:
                alone = not any(other.ready for other in self.channels.values())
                if not error.retryable or isinstance(error, ServerStopping) or alone:
                    raise
                self._note(channel, error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, _RETRY_LAST)

    # What is live

    async def _handle(self, channel: Channel, frame: bytes, pos: int) -> None:
        """Take a message for a session that has joined its room; its errors are the session's alone."""
        live, member = channel.live, channel.member
        if live is None or self.closing:
            return
        try:
            message = hocuspocus.decode(frame, pos)
            if message is None:
                self.sockets.limited.debug("unknown type", "unknown message type ignored", to=self.log(channel.name))
            elif isinstance(message, (Token, Close, BroadcastStateless, Stateless)):
                await self._handle_own(channel, live, message)
            else:
                if type(message) is AwarenessUpdate:
                    self.awareness += 1
                await self.give(live, member, message, len(frame))
        except CollabError as error:
            await self.drained()
            if channel.member is member:
                self._note(channel, error)
                self.refuse(channel, error)

    async def _handle_own(self, channel: Channel, live: LiveRoom, message: ClientMessage) -> None:
        """Take a message that only this protocol has."""
        if isinstance(message, Token):
            if channel.renewal is not None:
                channel.renewal.cancel()  # a newer token is what counts
            channel.renewal = self.sockets.tasks.spawn(
                self._renew(channel, channel.member, message.token), "renewing a token"
            )
        elif isinstance(message, Close):
            await self._detach(channel)
        elif isinstance(message, Stateless):
            await self._relay(channel, live, message)
        else:
            self.sockets.limited.info("broadcast", "refused: BroadcastStateless", to=self.log(channel.name))
            await self.drained()
            behind = self._from_next_start(channel)
            self._remove(channel)
            self.write(channel.encoder.frame(hocuspocus.CLOSED_FOR_BROADCAST))
            for frame in behind:
                await self.receive(frame)

    async def _detach(self, channel: Channel) -> None:
        """Close one document, as its client has asked for."""
        await self.drained()
        # A page that closes a document and opens it again at once has sent both by now.
        behind = self._waiting_frames.take_all(channel.address)
        self._remove(channel)
        loop = asyncio.get_running_loop()
        if (told := self._departed.pop(channel.address, None)) is not None:
            told.cancel()  # once is enough
        self._departed[channel.address] = loop.call_later(_CLOSED_AFTER, self._say_closed, channel)
        if len(self._departed) > _MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        for frame in behind:
            await self.receive(frame)

    def _say_closed(self, channel: Channel) -> None:
        if channel.address not in self.channels:
            self.write(channel.encoder.frame(hocuspocus.CLOSED_BY_CLIENT))

    async def _renew(self, channel: Channel, member: Member, token: str) -> None:
        """Look at a token that a live client has sent; only a changed scope is worth an answer."""
        try:
            grant = await self.authenticate(token, channel.name)
        except CollabError as error:
            self._note(channel, error)
            # What cannot be decided now leaves things as they are.
            if not error.retryable and member is channel.member:
                self.refuse(channel, error)
            return
        finally:
            if channel.renewal is asyncio.current_task():
                channel.renewal = None
        if member.state is State.CLOSED:
            return
        self.identify(member, grant)
        self._watch_expiry(channel, grant)
        if member.access is not grant.access:
            member.access = grant.access
            self.write(channel.encoder.frame(hocuspocus.encode_authenticated(grant.access)))

    def _watch_expiry(self, channel: Channel, grant: Grant) -> None:
        """Ask for a fresh token in time, and end what was granted when it runs out."""
        channel.forget_expiry()
        channel.asking = self.when_expired(grant, partial(self._ask_for_token, channel), _TOKEN_LEAD)
        channel.expiry = self.when_expired(grant, partial(self._expire, channel))

    def _ask_for_token(self, channel: Channel) -> None:
        self.send_control(channel.encoder.frame(hocuspocus.TOKEN_REQUEST))

    def _expire(self, channel: Channel) -> None:
        error = AccessExpired("the token has expired")
        self._note(channel, error)
        if any(other.live is not None for other in self.channels.values() if other is not channel):
            self.refuse(channel, error)
        else:
            # Providers before 3.3 cannot be asked; coming back they show what their token function gives.
            self.close(hocuspocus.CLOSE_EXPIRED)

    async def _relay(self, channel: Channel, live: LiveRoom, message: Stateless) -> None:
        options = self.sockets.options
        if not options.stateless or channel.member.access is Access.READ:
            why = "stateless messages are off" if not options.stateless else "the session may only read"
            self.sockets.limited.info("stateless", "stateless message not relayed: %s", why, to=self.log(channel.name))
            if options.stateless:
                channel.note_refused(channel.member, "a stateless message")
            return
        if len(message.payload) > options.max_stateless_bytes:
            raise LimitExceeded(
                f"stateless message of {len(message.payload)} bytes",
                public=f"a stateless message has at most {options.max_stateless_bytes} bytes",
            )
        now = asyncio.get_running_loop().time()
        if self._stateless is None:
            self._stateless = TokenBucket(options.stateless_rate, options.stateless_rate, now)
        # A client that sends too many is read more slowly, and none is lost.
        pause = self._stateless.take(now)
        if pause:
            await asyncio.sleep(pause)
        live.receive(channel.member, message)

    def _note(self, channel: Channel, error: Exception) -> None:
        self.sockets.guard.audit.note(error, self.peer, channel.name)
        limited, log = self.sockets.limited, self.log(channel.name)
        if isinstance(error, CollabError):
            limited.info(type(error).__name__, "refused: %s", error, to=log)
        else:
            limited.error(type(error).__name__, "failed", to=log, exc_info=error)
