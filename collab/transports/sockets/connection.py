"""One client's socket: runs what its protocol asks for.

Strategy: the protocol (``collab.protocol.*.connection``) decides everything, as a state machine that runs nothing; this
performs its events. Tasks ask for access and open documents, and what came of it is fed back in. Usual messages go to
their room while the socket is read, without a task and without waiting. What a client can ask for as often as it likes
is answered only as fast as it reads: such answers are held back in order (``Drain``), and the socket is not read on.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, assert_never, cast

from aiohttp import WSMessage, WSMsgType, web
from aiohttp._websocket.models import WSMessageTextBytes

from collab.audit import Kind, Who
from collab.auth.access import Grant
from collab.engine.room import read_only_notice
from collab.errors import (
    AccessDenied,
    AccessExpired,
    CollabError,
    DocumentTooLarge,
    InternalError,
    Kicked,
    LimitExceeded,
    Overloaded,
    PeerTooSlow,
    QuotaExceeded,
    forget_frames,
    is_refusal,
)
from collab.hub.member import Checked, ConnectionFacts, Encoder, Member
from collab.hub.room import SLICED, LiveRoom
from collab.hub.shares import Share
from collab.hub.slices import FREE, Usage, own_turn
from collab.limits.limits import Meter, Pace, Ticket, Turn
from collab.limits.questions import MAX_UNANSWERED
from collab.net import Peer
from collab.protocol import events
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.ended import ENDED
from collab.protocol.events import (
    Authenticate,
    Close,
    ConfirmClose,
    Control,
    Deliver,
    Drain,
    Event,
    Ignored,
    Join,
    Leave,
    Note,
    Open,
    RefuseUnread,
    Renew,
    Retry,
    Send,
    WireProtocol,
)
from collab.protocol.messages import CloseCode, Stateless
from collab.protocol.session import Access, Copy, Session, State
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.telemetry import ConnectionLog
from collab.transports.sockets.context import Context
from collab.transports.sockets.frames import PING, binary_frame, pong_frame
from collab.transports.sockets.intake import Intake, Unread
from collab.transports.sockets.outbox import SocketOutbox
from collab.transports.sockets.wire_log import Described, LoggedOutbox, WireLog

# Seconds that one small message may cost; then the others get their turn before the next one.
_LONG = 0.001

# Seconds between looks at a full outbox on which an answer waits.
_DRAIN_PAUSE = 0.05

# Seconds within which a probed client must have sent anything at all, its pong at the least.
_PROBE_SECONDS = 5.0

# Seconds after which its presence is given to a client that claims it, as its own on a new socket.
_SILENT_SECONDS = 1.0

# Seconds that a message may be on its way below a server that gives whole ones only: 16 MiB at 28 KB/s, which is the
# most that such servers take by default.
_UNSEEN_SECONDS = 600.0

# Seconds before the end of what was granted in which a client may fetch a fresh token.
_TOKEN_LEAD = 30.0

# Seconds between two questions about a session whose access cannot be decided, at the least.
_LEAST_CHECK = 1.0

# How much is counted at a time of what comes: a message costs nothing of it.
_COUNTED_MESSAGES = 16
_COUNTED_BYTES = 64 * 1024

# Bytes a second that must come of a message whose place others wait for, and of what a client sends before it is
# let in: few lines in use are slower, and whoever takes his time must not keep others out.
_BRISK = 32 * 1024

# Characters of a token that is kept while its session lives, to be asked about again. Longer ones are none that anybody
# needs (a header has less), and what many clients make this process keep must have a bound.
_KEPT_TOKEN = 8 * 1024

_CUT = CloseCode(1013, "others need the place: show a token sooner, come back later")

Result = TypeVar("Result")


class _Arriving(NamedTuple):
    """A message that is not whole: its number, since when it is seen, and what had come of it by then."""

    begun: int
    since: float
    arrived: int


class SocketChannel(events.Channel):
    """A channel with what this node holds for it.

    Attributes:
        connection: its socket.
        live: the room, from the moment in which its session has joined it.
        task: asks for access and opens the document; None when that is done.
        renewal: looks at a token that came while the session is live; None when that is done.
        asking, expiry: when its client is asked for a fresh token, and when its access ends.
        checking: when somebody is asked again what its client may do, with what it has shown.
        token: what its client has shown for what it was granted, so that it can be asked about again; None for one
            that is too long to be kept, or while nothing is granted.
    """

    __slots__ = ()

    # The slots themselves are the subclasses': two bases with slots of their own cannot be mixed.
    connection: Connection[Any]
    live: LiveRoom | None
    task: asyncio.Task[None] | None
    renewal: asyncio.Task[None] | None
    asking: asyncio.TimerHandle | None
    expiry: asyncio.TimerHandle | None
    checking: asyncio.TimerHandle | None
    token: str | None

    @property
    @abstractmethod
    def name(self) -> str:
        """The document's name for the log."""


CHANNEL_SLOTS = ("asking", "checking", "connection", "expiry", "live", "renewal", "task", "token")

AnyChannel = TypeVar("AnyChannel", bound=SocketChannel)


class SocketMember(Member):
    """A member whose client is on a socket."""

    __slots__ = ("channel",)

    def __init__(self, encoder: Encoder, channel: SocketChannel) -> None:
        connection = channel.connection
        super().__init__(encoder, connection.outbox, connection)
        self.channel: SocketChannel | None = channel  # None when the session has left it
        if connection.peer.counted:
            self.address = connection.peer.key


class Accepted(NamedTuple):
    """A socket behind its handshake; ``number`` names it in the log."""

    transport: asyncio.Transport
    intake: Intake
    number: int
    peer: Peer


class Connection(Generic[AnyChannel]):
    """One client's socket.

    Attributes:
        protocol: what its wire protocol says; made by ``open``.
        outbox: the way to the client.
        document_name: the document that the whole socket is for, if there is one.
        peer: who is at the other end.
        refused: why nothing can be done here, whatever token is shown; found before ``open``.
        ticket: the place that the socket takes; None until it has one.
        wire: the log of its frames; None while nobody wants it.
        meter: what its client sends is counted with; None if nothing is.
        busy: the pump is not waiting for a message, but works on one, or waits for something of ours.
        slowed: the pump waits because the client has sent too much.
        heard_at: when the last sweep saw that something had arrived since the one before.
        messages, nbytes, awareness: what was received since ``account``, without the bytes that the intake has counted.
        usage: what its messages have cost of this process' time.
    """

    protocol_name: ClassVar[str]
    """The name of the wire protocol, for the log."""

    waits: ClassVar[bool]
    """Whether a document can wait for its turn on an open socket; else its client comes back."""

    text_close: ClassVar[CloseCode]
    """How a client that sends text frames is closed."""

    protocol: WireProtocol[AnyChannel]

    __slots__ = (
        "_admissions",
        "_answered",
        "_arrived",
        "_arriving",
        "_budget",
        "_confirmations",
        "_failure",
        "_held",
        "_intake",
        "_number",
        "_opened_at",
        "_probe",
        "_probed_with",
        "_seen",
        "_silent",
        "_stateless",
        "_untried",
        "_waited",
        "awareness",
        "busy",
        "context",
        "document_name",
        "heard_at",
        "messages",
        "meter",
        "nbytes",
        "outbox",
        "peer",
        "pinged",
        "protocol",
        "refused",
        "slowed",
        "ticket",
        "usage",
        "wire",
    )

    def __init__(self, context: Context, accepted: Accepted) -> None:
        transport, intake, number, peer = accepted
        self.context = context
        self._number = number
        self.peer = peer
        self.wire = WireLog(number, self.peer.address, self.describe) if context.logs_wire else None
        self.outbox = self._make_outbox(transport)
        self.document_name: str | None = None
        self.refused: AccessDenied | None = None
        self.ticket: Ticket | None = None
        self.messages = self.nbytes = self.awareness = 0
        self._arrived = 0  # bytes of messages that are put together, since they were counted
        self.meter: Meter | None = None
        self.usage = Usage()
        self._budget = 0
        self._admissions = 0  # tasks that ask and open
        self._answered: asyncio.Future[None] | None = None  # the end of one of them, while somebody waits for it
        self._waited = 0
        self._opened_at = asyncio.get_running_loop().time()
        self.busy = True
        self.slowed = False
        self.heard_at = 0.0
        self.pinged = False
        self._intake: Intake | None = intake
        self._seen = -1  # bytes that had come by the last sweep
        self._arriving: _Arriving | None = None
        intake.attach(self)
        self._held: deque[Event[AnyChannel]] | None = None  # events behind a ``Drain``
        self._failure: tuple[AnyChannel, Session, CollabError] | None = None  # of a message that was taken
        self._untried: Deliver[AnyChannel] | None = None  # was refused for the size of its document, when it was taken
        self._stateless: Pace | None = None
        self._confirmations: dict[bytes, asyncio.TimerHandle] | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._probed_with = (0, 0)  # bytes that had come by then, and that waited to be written
        self._silent = False  # was probed, and nothing has come for a while

    def _make_outbox(self, transport: asyncio.Transport) -> SocketOutbox:
        mark, pacer = self.context.options.outbox_bytes, self.context.pacer
        if self.wire is None:
            return SocketOutbox(transport, mark, pacer)
        return LoggedOutbox(transport, mark, pacer, self.wire)

    @abstractmethod
    async def open(self, request: web.Request) -> None:
        """Do what comes before the first message is read."""

    @staticmethod
    @abstractmethod
    def describe(frame: bytes) -> Described:
        """Say what a frame is, for the log of the wire."""

    @property
    def number(self) -> int:
        """The number that names this connection in the log of this node."""
        return self._number

    def facts(self) -> ConnectionFacts:
        """Say what operators may know of this connection."""
        members = [
            (channel.name, channel.session)
            for channel in self.protocol.channels_open
            if channel.live is not None and isinstance(channel.session, Member)
        ]
        return ConnectionFacts(
            self._number,
            self.protocol_name,
            self.peer.address,
            self._opened_at,
            self.outbox.waiting(),
            members,
            self.received,
        )

    @property
    def closing(self) -> bool:
        """Whether nothing more is written: the socket is being closed, or is lost."""
        return self.outbox.closing

    # Reading

    def expect(self, budget: int) -> None:
        """Let the next ``budget`` small messages be taken as they are parsed; 0 leaves them to the pump."""
        self._budget = budget

    def take(self, message: WSMessage | WSMessageTextBytes) -> bool:
        """Take a small message at once, if the pump waits for one; called while the socket is read.

        False leaves the message to the pump: it is no data, it is large, the budget is used up, or it is not a usual
        message of a document that is open. It is also False when the room has refused the message: then the pump finds
        the refusal in place of the message, and does not take the message a second time. A defect of ours closes the
        socket at once.
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
        usage = self.usage
        if (
            len(data) > SLICED
            or self.outbox.closing
            or self.context.hub.stopping
            or (usage.seconds > FREE and usage.heavy)
        ):
            return False
        channel: AnyChannel | None = None
        try:
            delivered = self.protocol.receive_live(data)
            if delivered is None:
                return False
            channel, received, _ = delivered
            live, session = channel.live, channel.session
            assert live is not None and isinstance(session, Member)  # the session has joined
            if type(received) is AwarenessUpdate:
                self.awareness += 1  # never long: ``SLICED`` is less than what counts as that
            elif (type(received) is not SyncUpdate or session.copy is not Copy.CURRENT) and live.is_long(
                received, session
            ):
                return False
            usage.share = share = live.share
            began = perf_counter()
            live.receive(session, received)
            now = perf_counter()
            usage.charge(now - began, now)
            if share is not None and share.first:
                self.context.hub.end_turn_now(live)
        except Exception as error:
            if channel is not None and is_refusal(error):
                if type(error) is DocumentTooLarge:
                    self._untried = Deliver(channel, received, len(data))
                else:
                    self._failure = (channel, session, error)
                return False
            self.fail(error, channel)
            return True
        self._budget = budget - 1 if now - began < _LONG else 0
        self.messages += 1
        self.nbytes += len(data)
        return True

    async def receive(self, data: bytes) -> None:
        """Take one message that was left to the pump, or go on after one that was refused when it was taken.

        A large one is let go of as soon as its content stands apart.

        Raises:
            Exception: a defect of ours; the socket cannot go on.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            await self.run(self.protocol.failed(*failure))
            return
        if self._untried is not None:
            untried, self._untried = self._untried, None
            await self._give(untried)
            return
        steps = self.protocol.receive(data)
        del data
        await self.run(steps)
        while not self.closing:
            if self.protocol.full:
                await self._make_room()
            elif self._asks_too_much:
                self._answered = asyncio.get_running_loop().create_future()
                await self._answered
            else:
                return

    async def pass_over(self, message: Unread) -> None:
        """Go on after a message was not read, because it is larger than its client may send."""
        await self.run(self.protocol.unread(*message))

    @property
    def share(self) -> Share | None:
        """What the tenant of its last message has of the loop's time."""
        return self.usage.share

    def may_send(self, head: bytes) -> bool | None:
        """Tell whether a large message that begins with ``head`` may come; None while this is being decided."""
        return False if self.outbox.closing else self.protocol.may_send(head)

    @property
    def received(self) -> int:
        """How many bytes have come from the client, whole messages or not."""
        return 0 if self._intake is None else self._intake.nbytes

    @property
    def unseen_seconds(self) -> float:
        """Seconds for which a message may be on its way without a byte of it being seen here."""
        return 0.0 if self.outbox.pings else _UNSEEN_SECONDS

    @property
    def held_up(self) -> bool:
        """Whether nothing is read from the client now, or something of it is being worked on.

        Not while an answer waits for the client to read: that is its own silence.
        """
        return self._held is None and (self.busy or (self._intake is not None and self._intake.stopped))

    def wait_for_message(self) -> None:
        """Note that the pump waits for a message: a large one may come."""
        self.busy = False
        if self._intake is not None and self._intake.state is not None:
            self._intake.try_again()

    @property
    def _asks_too_much(self) -> bool:
        """Whether a client that was let in nowhere waits for so many answers that it is not read on."""
        return self._admissions >= MAX_UNANSWERED and self.ticket is not None and not self.ticket.let_in

    async def _make_room(self) -> None:
        """Wait until an admission has gone on: what waits for the documents of this socket is all that may wait."""
        tasks = [channel.task for channel in self.protocol.channels_open if channel.task is not None]
        await self.run(self.protocol.relieve())
        if tasks and not self.closing:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    @property
    def due(self) -> bool:
        """Whether so much was received that it is time to ``account`` for it."""
        return self.messages >= _COUNTED_MESSAGES or self.nbytes >= _COUNTED_BYTES

    def account(self) -> float:
        """Account for what was received; return the seconds for which nothing more is to be read.

        Raises:
            Overloaded: the client sends far too much.
        """
        messages, nbytes, awareness = self.messages, self.nbytes, self.awareness
        self.messages = self.nbytes = self.awareness = 0
        counts = self.context.counts[self.protocol_name]
        counts.messages += messages
        if self.meter is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        if self.closing:
            pause = self.meter.slow(now, nbytes, messages)
        else:
            pause = self.meter.count(now, messages, nbytes, awareness)
        counts.pauses += pause > 0
        return pause

    def arrived(self, fragments: int, nbytes: int) -> float:
        """Count what came of a message that is not whole; return the seconds for which nothing more is to be read.

        A client that sends far too many fragments is closed.
        """
        self.messages += fragments
        self._arrived += nbytes
        pause = 0.0
        if self._arrived >= _COUNTED_BYTES:
            arrived, self._arrived = self._arrived, 0
            if self.meter is not None:
                pause = self.meter.slow(asyncio.get_running_loop().time(), arrived)
        if self.messages >= _COUNTED_MESSAGES:
            try:
                pause = max(pause, self.account())
            except Overloaded as error:
                self.fail(error)
        return pause

    # Performing events

    async def run(self, steps: Iterable[Event[AnyChannel]]) -> None:
        """Perform events in their order; return when none of them is held back."""
        for step in steps:
            if type(step) is Deliver:
                await self._give(step)
            elif type(step) is Close and step.refused:
                await self._pause_refusal()
                self.perform((step,))
            else:
                self.perform((step,))
        while self._held is not None:
            await self._drained()
            held, self._held = self._held, None
            self.perform(held)

    def perform(self, steps: Iterable[Event[AnyChannel]]) -> None:
        """Perform events that need no waiting; those behind a ``Drain`` are held back until ``run`` goes on."""
        for step in steps:
            if type(step) is Leave:
                self._leave(step.channel, step.session)
            elif type(step) is Note:
                self.note(step.error, step.channel)
            elif self._held is not None:
                self._held.append(step)
            elif type(step) is Drain:
                if self.outbox.waiting() > self.outbox.mark and not self.closing:
                    self._held = deque()
            else:
                self._perform(step)

    def _perform(self, step: Event[AnyChannel]) -> None:
        match step:
            case Send(payload):
                self.outbox.write(binary_frame(payload))
            case Control(payload):
                self.outbox.write_control(binary_frame(payload))
            case Close(code, error):
                if error is not None:
                    self.note(error, None)
                self.outbox.close(code)
            case Authenticate(channel):
                if not self.closing:
                    self._spawn_admission(step)
            case Renew(channel, session, token):
                if channel.renewal is not None:
                    channel.renewal.cancel()  # a newer token is what counts
                work = self._renew(channel, session, token)
                channel.renewal = self.context.tasks.spawn(work, "renewing a token")
            case ConfirmClose(address, seconds):
                self._plan_confirmation(address, seconds)
            case RefuseUnread(channel, answer):
                if channel.live is not None:
                    assert isinstance(channel.session, Member)
                    channel.live.refuse_unread(channel.session, answer=answer)
            case Ignored(channel):
                to = self.log(channel.name, _user_of(channel))
                self.context.limited.debug("unknown type", "unknown message type ignored", to=to)
            case Leave() | Note() | Drain() | Deliver() | Open() | Join() | Retry():
                raise InternalError(f"{type(step).__name__} has no place here")
            case _:
                assert_never(step)

    def _perform_now(self, ask: Callable[[], Iterable[Event[AnyChannel]]]) -> None:
        """Ask the protocol what follows on what a timer or the hub says, and do it.

        A defect of ours ends this socket, and neither the timer's loop nor the hub's work for others.
        """
        try:
            self.perform(ask())
        except Exception as error:
            self.fail(error)
        if self._held is not None:
            # Nobody waits here for the client to read on, and it may never send a frame again.
            self.context.tasks.spawn(self.run(()), "answering a client that reads slowly")

    async def _give(self, step: Deliver[AnyChannel]) -> None:
        """Hand a message to a room, letting the loop go on in between if it is large."""
        channel, message, _ = step
        live, session = channel.live, channel.session
        if live is None or self.outbox.closing:
            return
        assert isinstance(session, Member)
        try:
            self.usage.share = live.share
            if type(message) is AwarenessUpdate:
                self.awareness += 1
            if live.is_long(message, session):
                await live.receive_in_slices(session, message, self.usage)
                if self._intake is not None:
                    self._intake.worked_on()
                return
            if type(message) is Stateless:
                await self._pace_stateless()
                hooks = self.context.hub.hooks
                if hooks is not None and hooks.decides_on_messages:
                    await hooks.until_room(live.name)
                    if channel.live is not live or channel.session is not session or self.outbox.closing:
                        return  # the session has ended meanwhile
            if self.usage.heavy:
                await own_turn(self.usage)
                if channel.live is not live or channel.session is not session or self.outbox.closing:
                    return  # the session has ended meanwhile
            began = perf_counter()
            try:
                live.receive(session, message)
            finally:
                now = perf_counter()
                self.usage.charge(now - began, now)
            if live.share is not None and live.share.first:
                self.context.hub.end_turn_now(live)
        except DocumentTooLarge as error:
            await self._try_larger(step, error)
        except Exception as error:
            await self._failed(channel, session, error)

    async def _try_larger(self, step: Deliver[AnyChannel], refusal: DocumentTooLarge) -> None:
        """Take an update all the same if what it overwrites, or was overwritten before, makes up for its size."""
        channel, message, _ = step
        live, session = channel.live, channel.session
        assert live is not None and isinstance(session, Member) and isinstance(message, (SyncUpdate, SyncStep2))
        try:
            size = await live.size_with(message[0])
            if channel.live is not live or channel.session is not session or self.outbox.closing:
                return  # the session has ended meanwhile
            if size is None:
                raise refusal
            await live.receive_in_slices(session, message, self.usage, size=size)
        except Exception as error:
            await self._failed(channel, session, error)

    async def _failed(self, channel: AnyChannel, session: Session, error: Exception) -> None:
        """Go on after a message was not taken, or close the socket because of a defect."""
        if is_refusal(error):
            await self.run(self.protocol.failed(channel, session, error))
        else:
            self.fail(error, channel)

    async def _pace_stateless(self) -> None:
        """Wait while a client sends more stateless messages than it may: it is read more slowly, and none is lost.

        Raises:
            Overloaded: the client sends far too many.
        """
        now = asyncio.get_running_loop().time()
        if self._stateless is None:
            flood_seconds = 0.0 if self.meter is None else self.context.guard.limits.bounds.flood_seconds
            self._stateless = Pace("stateless messages", self.context.options.stateless_rate, flood_seconds, now)
        pause = self._stateless.count(now)
        if pause:
            self.context.counts[self.protocol_name].pauses += 1
            await asyncio.sleep(pause)

    async def _drained(self) -> None:
        """Wait until the client has read most of what waits for it, or is gone."""
        outbox = self.outbox
        while outbox.waiting() > outbox.mark and not outbox.closing:  # noqa: ASYNC110 - a transport has one watcher of its marks
            await asyncio.sleep(_DRAIN_PAUSE)

    async def _pause_refusal(self) -> None:
        """Wait before a refusal that the client has asked for again and again."""

    def _plan_confirmation(self, address: bytes, seconds: float) -> None:
        planned = self._confirmations
        if planned is None:
            planned = self._confirmations = {}
        elif (before := planned.pop(address, None)) is not None:
            before.cancel()  # once is enough
        planned[address] = asyncio.get_running_loop().call_later(seconds, self._confirm, address)

    def _confirm(self, address: bytes) -> None:
        if self._confirmations is not None:
            self._confirmations.pop(address, None)
            self._perform_now(partial(self.protocol.confirm_close, address))

    # Admission

    def _spawn_admission(self, step: Authenticate[AnyChannel]) -> None:
        task = step.channel.task = self.context.tasks.spawn(self.admit(step), "admitting a client")
        self._admissions += 1
        task.add_done_callback(self._admitted)

    def _admitted(self, task: asyncio.Task[None]) -> None:
        self._admissions -= 1
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(None)

    async def admit(self, step: Authenticate[AnyChannel]) -> None:
        """Ask for access, open the document, join it, hand over what waits."""
        channel, session, token, name = step
        try:
            await self._admit(channel, session, token, name)
        except Exception as error:
            self.fail(error, channel)
        finally:
            if channel.task is not None and channel.task is asyncio.current_task():
                channel.task = None
            if self._intake is not None:
                self._intake.go_on()  # a large message may have waited for it

    async def _admit(self, channel: AnyChannel, session: Session, token: str, name: str) -> None:
        admission = self.context.admission
        assert isinstance(session, Member) and self.ticket is not None
        checks = admission.checks
        grant = await self._try(channel, session, partial(self._ask, token, name))
        if grant is None:
            return
        steps = self.protocol.granted(channel, session, grant.access, grant.user)
        if not steps:
            return  # the session is over
        if told := [step for step in steps if type(step) is not Open]:  # which is what comes now
            await self.run(told)
        turn = Turn() if self.waits else None
        try:
            while True:
                opened = await self._try(channel, session, partial(self._open, name, grant, turn))
                if opened is None or self.outbox.closing:
                    return
                live, left, over = opened
                # From the last check to the join nothing is awaited: an empty room may leave memory at any time.
                if self._held is None:
                    break
                await self.run(())
            session.access = left.access
            for step in self.protocol.opened(channel, session):
                if type(step) is Join:
                    admission.join(live, session, grant)
                    if turn is not None:
                        turn.used()
                    channel.live = live
                    self.usage.share = live.share
                    self._note_granted(channel, token, grant)
                    self.context.guard.audit.sign_in(partial(self._who, grant.user), name, grant.access)
                else:
                    self.perform((step,))
            if over is not None:
                self._tell_over(live, session, over)
        finally:
            if turn is not None:
                turn.give_back()
        if admission.checks != checks:
            # What was answered may not be so any more, and it was not here when the others were looked at.
            channel.renewal = self.context.tasks.spawn(self._check_late(session), "checking access again")
        while (waiting := self.protocol.next_waiting(channel, session)) is not None:
            await self.run(waiting)

    async def _open(self, name: str, grant: Grant, turn: Turn | None) -> tuple[LiveRoom, Grant, QuotaExceeded | None]:
        """Open a document that may be joined at once; say what is left of the grant, and why it is less."""
        admission = self.context.admission
        assert self.ticket is not None
        live = admission.find_open(name)
        if live is None:
            live = await admission.open_for(name, grant, self.peer, self)
        left, over = admission.limit(live, grant)
        admission.check(live, left, self.ticket, turn)
        return live, left, over

    def _tell_over(self, live: LiveRoom, session: Member, over: QuotaExceeded | None) -> None:
        """Tell a client why it may only read, or that it may write again."""
        session.refusal = None if over is None else over.public
        if over is not None and session.state is not State.CLOSED:
            live.members.send(session, read_only_notice(session, over.public))

    async def _ask(self, token: str, name: str) -> Grant:
        if self.refused is not None:
            raise self.refused
        assert self.ticket is not None
        admission = self.context.admission
        grant = admission.everybodys
        if grant is None:
            grant = await admission.ask(self.peer, token, name, self.ticket)
        admission.count(self.ticket, self, grant)
        return grant

    async def _try(
        self, channel: AnyChannel, session: Session, attempt: Callable[[], Awaitable[Result]]
    ) -> Result | None:
        """Make an attempt, again and again if the protocol says so; None if it was denied."""
        while True:
            try:
                return await attempt()
            except InternalError:
                raise
            except CollabError as error:
                steps = self.protocol.denied(channel, session, error)
            retry = next((step for step in steps if type(step) is Retry), None)
            await self.run(step for step in steps if step is not retry)
            if retry is None:
                return None
            await asyncio.sleep(retry.seconds * (1.0 if retry.exact else self.context.random.uniform(0.5, 1.0)))

    async def _renew(self, channel: AnyChannel, session: Session, token: str) -> None:
        """Look at a token that a live client has sent."""
        try:
            await self._look_at(channel, session, token)
        except Exception as error:
            self.fail(error, channel)
        finally:
            if channel.renewal is asyncio.current_task():
                channel.renewal = None

    async def _look_at(self, channel: AnyChannel, session: Session, token: str) -> None:
        try:
            grant = await self._ask(token, channel.name)
            await self._ask_to_create(channel, session, grant)
        except InternalError:
            raise
        except CollabError as error:
            await self.run(self.protocol.renewal_denied(channel, session, error))
            return
        await self._regrant(channel, session, token, grant)

    async def _ask_to_create(self, channel: AnyChannel, session: Session, grant: Grant) -> None:
        """Ask whether a client may create the document that it could only read until now, if it is not there."""
        if channel.live is not None and session.access is Access.READ:
            await self.context.admission.ask_to_create(channel.live, grant, self.peer, self)

    async def _regrant(self, channel: AnyChannel, session: Session, token: str, grant: Grant) -> bool:
        """Let a live session do what was granted now; return whether that is something else than before."""
        live, before = channel.live, session.access
        if channel.session is not session or not channel.joined or live is None:
            return False
        assert isinstance(session, Member) and self.ticket is not None
        left, over = self.context.admission.limit(live, grant, session)
        self.context.admission.renew(live, session, left, self.ticket)
        session.granted = grant.access
        self._note_granted(channel, token, grant)
        await self._change_access(channel, session, left.access, over)
        return session.access is not before

    async def _change_access(
        self, channel: AnyChannel, session: Member, access: Access, over: QuotaExceeded | None
    ) -> None:
        """Let a live session do something else, and tell its client; ``over`` is why it may only read."""
        live, before = channel.live, session.access
        assert live is not None
        await self.run(self.protocol.renewed(channel, session, access))
        if channel.session is not session or not channel.joined:
            return
        if (over is None) is not (session.refusal is None):
            self._tell_over(live, session, over)
        if before is Access.READ and access is not Access.READ:
            await live.settle()
            if channel.session is session and channel.joined:
                live.ask_again(session)  # for what it has edited in vain

    async def follow_quota(self, member: Member) -> None:
        """Let a session do what its tenant's quotas allow now."""
        channel = self._channel_of(member)
        if channel is None or channel.session is not member or not channel.joined or channel.live is None:
            return
        try:
            grant = Grant(member.granted, member.author)
            left, over = self.context.admission.limit(channel.live, grant, member)
            if left.access is not member.access:
                await self._change_access(channel, member, left.access, over)
        except Exception as error:
            self.fail(error, channel)

    async def check_access(self, member: Member) -> Checked:
        """Ask again what a session may do, with the token that it has shown last, and let it do that."""
        channel = self._channel_of(member)
        if channel is None:
            return Checked.SAME  # it has left
        if channel.renewal is not None and channel.renewal is not asyncio.current_task():
            await asyncio.wait([channel.renewal])  # it has shown another one, which may count from now on
        return await self._check_access(channel, member)

    async def _check_access(self, channel: AnyChannel, member: Member) -> Checked:
        token, admission = channel.token, self.context.admission
        if channel.session is not member or not channel.joined or self.ticket is None or admission.open_to_all:
            return Checked.SAME
        if token is None:
            # It shows its token again when it comes back.
            assert channel.live is not None
            channel.live.end(member, Kicked("its token is too long to be kept, so it is asked for again"))
            return Checked.ENDED
        try:
            grant = await admission.ask_again(self.peer, token, channel.name, self.ticket)
            await self._ask_to_create(channel, member, grant)
        except InternalError:
            raise
        except CollabError as error:
            if channel.session is not member or not channel.joined:
                return Checked.SAME
            if isinstance(error, AccessExpired):
                await self.run(self.protocol.expired(channel))
                return Checked.ENDED
            await self.run(self.protocol.renewal_denied(channel, member, error))
            return Checked.UNDECIDED if error.retryable else Checked.ENDED
        return Checked.CHANGED if await self._regrant(channel, member, token, grant) else Checked.SAME

    async def _check_late(self, member: Member) -> None:
        channel = self._channel_of(member)
        assert channel is not None
        try:
            await self._check_access(channel, member)
        except Exception as error:
            self.fail(error, channel)
        finally:
            if channel.renewal is asyncio.current_task():
                channel.renewal = None

    def _note_granted(self, channel: AnyChannel, token: str, grant: Grant) -> None:
        """Keep what is needed while a session lives: the token, to ask again, and when its access ends."""
        channel.token = token if len(token) <= _KEPT_TOKEN else None
        _forget_expiry(channel)
        if grant.expires_at is not None or grant.check_at is not None:
            self._watch_expiry(channel, grant)

    def _watch_expiry(self, channel: AnyChannel, grant: Grant) -> None:
        """Ask for a fresh token in time, and end what was granted when it runs out."""
        when = self.context.admission.when_expired
        channel.asking = when(grant, partial(self._expiring, channel), _TOKEN_LEAD)
        channel.expiry = when(grant, partial(self._expired, channel))
        if grant.check_at is not None:
            again = max(_LEAST_CHECK, grant.check_at - self.context.hub.clock())
            channel.checking = self.context.admission.when_to_check(grant, partial(self._check_due, channel, again))

    def _check_due(self, channel: AnyChannel, again: float) -> None:
        """Ask again what a client may do; ``again`` seconds later once more, unless the answer says otherwise."""
        session = channel.session
        assert isinstance(session, Member)
        channel.checking = asyncio.get_running_loop().call_later(again, partial(self._check_due, channel, again))
        if channel.renewal is None:  # else it is being asked about just now
            channel.renewal = self.context.tasks.spawn(self._check_late(session), "checking access again")

    def _expiring(self, channel: AnyChannel) -> None:
        self._perform_now(partial(self.protocol.expiring, channel))

    def _expired(self, channel: AnyChannel) -> None:
        self._perform_now(partial(self.protocol.expired, channel))

    # As the client of its members

    def end(self, member: Member, error: CollabError) -> None:
        """Tell the client that a session is over, and why."""
        channel = self._channel_of(member)
        if channel is not None:
            self._perform_now(partial(self._ended, channel, member, error))

    def _ended(self, channel: AnyChannel, member: Member, error: CollabError) -> Iterable[Event[AnyChannel]]:
        self.context.guard.audit.note(error, self._who(member.author), channel.name)
        return self.protocol.ended(channel, member, error)

    def _channel_of(self, member: Member) -> AnyChannel | None:
        assert isinstance(member, SocketMember)
        return cast(AnyChannel | None, member.channel)  # a channel of this connection, which made it

    def probe(self) -> None:
        """Ping at once, and cut the connection if nothing is heard within seconds; once is enough meanwhile.

        If nothing is heard within one second, its rooms hear that it is silent, and again with each call from then on.
        """
        loop = asyncio.get_running_loop()
        if self._probe is None:
            self._probed_with = (self.received, self.outbox.waiting())
            self._ask_for_life()
            self._probe = loop.call_later(_SILENT_SECONDS, self._probe_unanswered)
        elif self._silent and not self._heard_since_probe:
            loop.call_soon(self._tell_silent)

    def _ask_for_life(self) -> None:
        """Send what a client that lives answers: a ping, or where none reaches it a question for its presence."""
        if self.outbox.pings:
            self.outbox.write_control(PING)
            return
        for channel in self.protocol.channels_open:
            if channel.live is not None and isinstance(channel.session, Member):
                self.outbox.write_control(channel.session.encoder.encode(QueryAwareness()))

    @property
    def _heard_since_probe(self) -> bool:
        """Whether anything has come since the probe, or could not come; as in ``sweep``."""
        received, waiting = self._probed_with
        return self.received != received or self.outbox.waiting() < waiting or self.held_up

    def _probe_unanswered(self) -> None:
        self._probe = None
        if not self._heard_since_probe:
            self._silent = True
            loop = asyncio.get_running_loop()
            self._probe = loop.call_later(_PROBE_SECONDS - _SILENT_SECONDS, self._probe_over)
            self._tell_silent()

    def _tell_silent(self) -> None:
        for channel in list(self.protocol.channels_open):
            if channel.live is not None and isinstance(channel.session, Member):
                try:
                    channel.live.note_silent(channel.session)
                except Exception as error:
                    self.fail(error, channel)

    def _probe_over(self) -> None:
        self._probe = None
        self._silent = False
        if not self._heard_since_probe:
            self.outbox.abort()

    def note_unseen(self, member: Member, error: CollabError) -> None:
        """Write into the logs why its presence is not shown."""
        channel = self._channel_of(member)
        if channel is not None:
            self.note(error, channel)

    def note_refused(self, member: Member, what: str) -> None:
        """Write the attempt to the audit log."""
        channel = self._channel_of(member)
        if channel is not None:
            self.context.guard.audit.read_only(what, self._who(member.author), channel.name)

    # Liveness

    def sweep(self, now: float, ping: float) -> None:
        """Keep a silent client's watchdog fed, ping one that says nothing, cut off one that is dead.

        A socket that waits for what will never come, because an end has failed half-way, is closed.

        Raises:
            PeerTooSlow, InternalError: the socket has to be closed.
        """
        outbox = self.outbox
        if outbox.closing:
            if outbox.stuck:
                outbox.close_again(self.protocol.close_code(InternalError("it could not be closed before")))
            return
        self._check_rooms()
        received = self.received
        # What comes before a client is let in is bounded, so the time for it is bounded too.
        allowed = min(received, self.context.gate.other) / _BRISK
        if now - self._opened_at >= self.context.options.auth + allowed:
            self.perform(self.protocol.overdue())
        self._watch_arriving(now, 2 * ping)
        waited, self._waited = self._waited, outbox.waiting()
        # One that takes what waits for it lives, though a ping would have to wait behind all that. So does one of
        # which any bytes come, or whose bytes wait for us: its answer to a ping stands behind them.
        if received != self._seen or self._waited < waited or self.held_up:
            self._seen, self.heard_at, self.pinged = received, now, False
        elif now - self.heard_at >= 2 * ping and self.pinged:
            outbox.abort()
            return
        elif now - self.heard_at >= ping and not self.pinged:
            self.pinged = True
            outbox.write_control(PING)
        # Past the mark more bytes would not tell it more: it has all those still to read.
        if outbox.quiet:
            message = self.protocol.keepalive()
            if message is not None:
                outbox.write_control(binary_frame(message))
        outbox.quiet = True

    def _check_rooms(self) -> None:
        """See that no session waits for a room whose end has begun.

        Raises:
            InternalError: one does: there was no memory to tell it, say.
        """
        for channel in list(self.protocol.channels_open):
            live = channel.live
            if live is not None and live.ending:
                self.context.hub.end_again(live)
                if channel.live is live:
                    raise InternalError(f"nobody could tell this client that {channel.name!r} has ended")

    def _watch_arriving(self, now: float, grace: float) -> None:
        """End a client whose message comes too slowly.

        Raises:
            PeerTooSlow: see there.
        """
        intake, before = self._intake, self._arriving
        if intake is None or not intake.partial or intake.held or (self.busy and not self.slowed):
            self._arriving = None  # nothing of it is read now, and not because of what the client sends
        elif before is None or before.begun != intake.begun:
            self._arriving = _Arriving(intake.begun, now, intake.arrived)
        else:
            # Whoever takes a place that others wait for has to be brisk.
            rate = _BRISK if intake.crowded else self.context.options.min_rate
            seconds, came = now - before.since, intake.arrived - before.arrived
            if seconds > grace and came < rate * (seconds - grace):
                raise PeerTooSlow(f"{came} bytes of a message in {seconds:.0f} s")

    def pong(self, payload: bytes) -> None:
        """Answer a ping."""
        self.outbox.write_control(pong_frame(payload))

    # Ends

    def fail(self, error: Exception, channel: AnyChannel | None = None) -> None:
        """Close the whole socket because of a refusal, or of a defect of ours, which is logged with its traceback.

        Args:
            error: why.
            channel: whose message or admission it was, if that is known.
        """
        try:
            self.note(error, channel)
        finally:
            if not self.outbox.closing:
                self.outbox.closing, self.outbox.direct = True, None  # should the rest fail, the next sweep closes it
                self.outbox.close_again(self.protocol.close_code(error))

    def cut(self) -> None:
        """End a connection that has shown no token for too long, while others need its place."""
        reason = "too many connections that have not authenticated"
        self.context.guard.audit.write(Kind.LIMIT, "unauthenticated", reason, self._who(None))
        self.outbox.cut(_CUT)  # at once: those who do this on purpose would keep the place by not answering

    def leave(self) -> None:
        """Leave all rooms, and let go of everything: the socket has ended.

        No cycle of references and no timer is left, so memory is given back now: what is only in a cycle stays until
        the collector comes to it, which is seldom.
        """
        self.outbox.closing, self.outbox.direct = True, None
        counts = self.context.counts[self.protocol_name]
        counts.messages += self.messages
        counts.received += self.received
        self._held = self._failure = self._untried = None
        protocol, self.protocol = self.protocol, ENDED
        for step in protocol.close():
            try:
                self.perform((step,))
            except Exception as error:
                self.note(error, None)  # the other documents are left all the same
        for timer in (*(self._confirmations or {}).values(), self._probe):
            if timer is not None:
                timer.cancel()
        self._confirmations = self._probe = None
        self.refused = None  # its traceback leads here, once it was raised
        self._intake = None
        self.outbox.release()

    def _leave(self, channel: AnyChannel, session: Session) -> None:
        """Give up what is held for a session."""
        assert isinstance(session, SocketMember)
        live, channel.live = channel.live, None
        session.channel = None
        if channel.asking is not None or channel.expiry is not None or channel.checking is not None:
            _forget_expiry(channel)
        for task in (channel.task, channel.renewal):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        channel.task = channel.renewal = channel.token = None
        if live is not None:
            live.leave(session)

    # The log

    def note(self, error: Exception, channel: AnyChannel | None) -> None:
        """Write into the logs why something was refused, or has failed."""
        name = self.document_name if channel is None else channel.name
        user = self._user(channel)
        limited, log = self.context.limited, self.log(name, user)
        if is_refusal(error):
            self.context.guard.audit.note(error, self._who(user), name)
            option = error.option if isinstance(error, LimitExceeded) else None
            if option is None:
                limited.info(type(error).__name__, "refused: %s", error, to=log)
            else:
                # It keeps out what somebody has written, for good: an operator may want to raise the bound.
                text = "refused for good: %s; %s says how much there may be"
                limited.warning(type(error).__name__, text, error, option, to=log)
            forget_frames(error)  # nobody asks where a refusal came from
        else:
            limited.error(type(error).__name__, "failed", to=log, exc_info=error)

    def _who(self, user: str | None) -> Who:
        return Who(user, self.peer.address, self.protocol_name, self._number)

    def _user(self, channel: AnyChannel | None) -> str | None:
        """Name the user of a channel; of the whole connection where all its channels have one."""
        if channel is not None:
            return _user_of(channel)
        users = {user for each in self.protocol.channels_open if (user := _user_of(each)) is not None}
        return users.pop() if len(users) == 1 else None

    def log(self, document_name: str | None = None, user: str | None = None) -> ConnectionLog:
        """Return a logger for this connection; made when needed, most never log."""
        return ConnectionLog(self._number, self.peer.address, document_name or self.document_name, user=user)


def _user_of(channel: AnyChannel | None) -> str | None:
    """Name the user whose session a channel has, if somebody was let in there."""
    session = None if channel is None else channel.session
    return session.author if isinstance(session, Member) else None


def _forget_expiry(channel: AnyChannel) -> None:
    """Wait no longer for the end of what was granted."""
    for timer in (channel.asking, channel.expiry, channel.checking):
        if timer is not None:
            timer.cancel()
    channel.asking = channel.expiry = channel.checking = None
