"""One socket of the Hocuspocus protocol: frames in, events out.

Strategy: a channel is one address with its session. Frames of a channel that is not ready wait in order, while the
one who runs this asks for access and opens the document (``Authenticate``, ``Open``) and feeds the answers back in;
so an address that is slow or refused holds up no other. When a channel is ready, its messages are delivered as they
come.

How a session ends decides how its client is told. What may pass by coming back (this node stops, the store is down,
too slow) closes the socket, upon which the provider reconnects and all its documents are asked for again. What will
not pass is said under its address by PermissionDenied, which leaves the other documents alone and the client free to
show another token; providers never ask again by themselves, so nothing else is said like that. A document that is
refused for now, while nothing is wrong with the socket, is held: its client is told nothing, and its admission is tried
again until it is let in.

Nothing here waits or knows the time. The answers of ``granted``, ``denied``, ``opened`` and so on name the session
that was asked for: an answer that comes when the channel has another one, or was left, means nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar, assert_never

from collab.errors import (
    AccessExpired,
    AddressError,
    AwarenessError,
    CollabError,
    DamagedDocument,
    DecodeError,
    DocumentBusy,
    InternalError,
    LimitExceeded,
    MessageTooLarge,
    ProtocolError,
    ServerStopping,
)
from collab.protocol import events
from collab.protocol.awareness import UNREADABLE, AwarenessUpdate, QueryAwareness, read_awareness
from collab.protocol.events import (
    Authenticate,
    Close,
    ConfirmClose,
    Control,
    Deliver,
    Drain,
    Ignored,
    Join,
    Leave,
    Note,
    Open,
    RefuseUnread,
    Renew,
    Retry,
    Send,
)
from collab.protocol.hocuspocus import codec
from collab.protocol.hocuspocus.codec import BroadcastStateless, Token
from collab.protocol.hocuspocus.waiting import WaitingFrames
from collab.protocol.messages import CloseCode, LocalVersion, PermissionDenied, Stateless, SyncStatus, notice
from collab.protocol.session import Access, Event, Session, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate, decode_sync

# Seconds between attempts to open a document while the store cannot be reached and other documents of
# the socket go on; the reasons for the numbers are those of any back-off.
_RETRY_FIRST = 0.5
_RETRY_LAST = 10.0

# Seconds after a client's CLOSE until it is answered, unless it has opened the document again: the new
# provider of that name would take the answer for its own end. A page that does so sends both at once.
_CLOSED_AFTER = 0.05

# Updates under a denied address that are remembered, to be acknowledged should it be let in.
_MAX_DROPPED = 5_000

# Bytes of a stateless message before its text, at most: its type and a length.
_HEAD = 9

# Addresses that were closed of late, under which providers 2 send one more awareness message.
_MAX_DEPARTED = 20


class Limits(NamedTuple):
    """What one socket may do; sizes in bytes.

    Attributes:
        documents: how many channels it may have at a time.
        waiting_bytes: how much may wait for channels that are not ready.
        stateless: whether stateless messages are relayed at all.
        stateless_bytes: how large one may be.
    """

    documents: int
    waiting_bytes: int
    stateless: bool
    stateless_bytes: int


class Channel(events.Channel):
    """One address of a socket.

    Attributes:
        address: as the client writes it, in UTF-8.
        prefix: what every frame under the address begins with.
        ready: nothing waits any more, so messages are delivered as they come.
        held: it waits for what will pass, and its admission is tried again.
        dropped: updates that came while it was denied or held.
        pause: seconds until the step of its admission that is under way is tried again, should it fail.
    """

    __slots__ = ("address", "dropped", "held", "pause", "prefix", "ready")

    def __init__(self, address: bytes, prefix: bytes | None = None) -> None:
        self.address = address
        self.prefix = codec.prefix(address) if prefix is None else prefix
        self.ready = False
        self.held = False
        self.dropped = 0
        self.pause = _RETRY_FIRST
        super().__init__()

    @property
    def name(self) -> str:
        """The document's name for the log; an address may be no valid one."""
        return self.address.decode().partition("\0")[0]


AnyChannel = TypeVar("AnyChannel", bound=Channel)


class Connection(events.WireProtocol[AnyChannel]):
    """The state of one socket.

    Args:
        make_channel: makes the channel for an address.
        limits: what the socket may do.

    Attributes:
        channels: by address.
        established: whether any document was ever opened here.
    """

    __slots__ = (
        "_departed",
        "_last",
        "_limits",
        "_make_channel",
        "_unproven",
        "_waiting",
        "channels",
        "established",
    )

    def __init__(self, make_channel: Callable[[bytes], AnyChannel], limits: Limits) -> None:
        self._make_channel = make_channel
        self._limits = limits
        self._waiting = WaitingFrames(limits.waiting_bytes)
        self._unproven: set[bytes] = set()  # addresses that have shown no token
        self._departed: dict[bytes, None] = {}
        self._last: AnyChannel | None = None  # the one that spoke last; most sockets have only one
        self.channels: dict[bytes, AnyChannel] = {}
        self.established = False

    @property
    def channels_open(self) -> Iterable[AnyChannel]:
        """The channels of this socket."""
        return self.channels.values()

    # What the client sends

    def receive(self, frame: bytes) -> Sequence[events.Event[AnyChannel]]:
        """Take one binary frame; while ``full`` is true afterwards, none may follow."""
        if frame == codec.PONG:
            return ()
        if frame == codec.PING:
            return (Control(codec.PONG),)
        out: list[events.Event[AnyChannel]] = []
        self._receive(frame, out)
        if self._waiting.full:
            out += self.relieve()
        return out

    def receive_live(self, frame: bytes) -> Deliver[AnyChannel] | None:
        """Take a sync or awareness message of a ready channel; None leaves any other frame to ``receive``."""
        if not self.established:
            return None  # no document was opened yet, so no channel is ready
        channel = self._last
        if channel is not None and frame.startswith(channel.prefix):
            pos = len(channel.prefix)
        else:
            try:
                address, pos = codec.read_address(frame)
            except AddressError:
                return None
            channel = self.channels.get(address)
        if channel is None or not channel.ready or pos == len(frame):
            return None
        kind = frame[pos]
        message: SyncStep1 | SyncStep2 | SyncUpdate | AwarenessUpdate
        try:
            if kind == codec.SYNC:
                message = decode_sync(frame, pos + 1)
            elif kind == codec.AWARENESS:
                message = read_awareness(frame, pos + 1)
            else:
                return None
        except DecodeError:
            return None
        self._last = channel
        return Deliver(channel, message, len(frame))

    def may_send(self, head: bytes) -> bool | None:
        """Let edits of a client come that may write their document, whatever their size."""
        try:
            address, pos = codec.read_address(head)
        except AddressError:
            return False
        channel = self.channels.get(address)
        if channel is None or channel.held or not codec.is_edit(head, pos):
            return False  # of a document that is held all is asked for when its turn comes
        if channel.ready:
            return channel.session.access is not Access.READ
        state = channel.session.state
        return None if channel.joined or state is State.AUTHENTICATING or state is State.JOINING else False

    def unread(self, head: bytes, size: int) -> Sequence[events.Event[AnyChannel]]:
        """Refuse a message that was not read; the other documents of the socket go on."""
        out: list[events.Event[AnyChannel]] = []
        try:
            address, pos = codec.read_address(head)
        except AddressError as error:
            return (_close(error),)
        channel = self.channels.get(address)
        if codec.is_awareness(head, pos) and channel is not None and channel.session.state is not State.ARRIVED:
            # A client tells its presence anew within seconds. Its edits, and its other documents, have no part in it.
            return (Deliver(channel, UNREADABLE, size),) if channel.ready else ()
        if channel is None or channel.held or channel.session.state in (State.ARRIVED, State.DENIED):
            if not codec.is_edit(head, pos):
                return (_close(LimitExceeded(f"message of {size} bytes before authentication")),)
            if channel is None:
                channel = self._add(address, out)
            if channel is not None and channel.dropped < _MAX_DROPPED:
                # Nothing is lost: should it be let in, it is asked for all that the document lacks.
                channel.dropped += 1
        elif not codec.is_edit(head, pos):
            text = f"message of {size} bytes that is no edit"
            out += self.failed(channel, channel.session, LimitExceeded(text, public=MessageTooLarge.public))
        elif channel.joined and channel.session.access is Access.READ:
            out.append(RefuseUnread(channel, codec.is_step2(head, pos)))
        else:
            out += self.failed(channel, channel.session, MessageTooLarge(f"message of {size} bytes or more"))
        return out

    def _receive(self, frame: bytes, out: list[events.Event[AnyChannel]]) -> None:
        try:
            address, pos = codec.read_address(frame)
        except AddressError as error:
            # Nobody can say what else of this socket is meant.
            out.append(_close(error))
            return
        channel = self.channels.get(address)
        if channel is None:
            if address in self._departed:
                if frame[pos : pos + 1] == bytes((codec.AWARENESS,)):
                    return
                if codec.is_step2(frame, pos):
                    # It answers a question of the session that was closed, so whoever sends it does not know
                    # of its end: made, destroyed and made again before the socket was open, the first one's
                    # CLOSE has come behind the second one's Auth. After a reconnect only the second is there.
                    out.append(_close(LimitExceeded("a SyncStep2 behind the CLOSE of its document")))
                    return
            channel = self._add(address, out)
            if channel is None:
                return
        if channel.ready:
            self._handle(channel, frame, out)
        else:
            self._wait(channel, frame, out)

    def _add(self, address: bytes, out: list[events.Event[AnyChannel]]) -> AnyChannel | None:
        if len(self.channels) >= self._limits.documents:
            reason = f"more than {self._limits.documents} documents on one connection"
            out.append(Note(None, LimitExceeded(reason)))
            out.append(Control(codec.prefix(address) + codec.encode(PermissionDenied(reason))))
            return None
        self._unproven.add(address)
        if len(self._unproven) > WaitingFrames.MAX_ADDRESSES:
            out.append(_close(LimitExceeded(f"{len(self._unproven)} documents before authentication")))
            return None
        channel = self.channels[address] = self._make_channel(address)
        return channel

    # What waits

    def _wait(self, channel: AnyChannel, frame: bytes, out: list[events.Event[AnyChannel]]) -> None:
        """Take a message for a channel that is not ready yet."""
        pos = len(channel.prefix)
        kind = frame[pos] if pos < len(frame) else None
        state = channel.session.state
        if channel.held or state is State.ARRIVED or state is State.DENIED:
            if kind == codec.CLOSE:
                self._waiting.pop_all(channel.address)  # it came before
                self._detach(channel, out)
                return
            if kind == codec.AUTH:
                self._receive_token(channel, frame, out)
                return
            if state is State.ARRIVED and codec.is_step1(frame, pos):
                self._waiting.put(channel.address, frame)
                self._present(channel, "", out)
                return
        if state is State.AUTHENTICATING and kind == codec.AUTH and not self._closes(channel):
            self._receive_token(channel, frame, out)
            return
        self._waiting.put(channel.address, frame)
        if channel.held or state is State.DENIED:
            self._thin_out(channel)

    def _closes(self, channel: AnyChannel) -> bool:
        """Tell whether a CLOSE waits: what comes behind it is for the next session."""
        pos = len(channel.prefix)
        return any(frame[pos : pos + 1] == codec.CLOSE_REQUEST for frame in self._waiting.of(channel.address))

    def _thin_out(self, channel: AnyChannel) -> None:
        """Keep of what waits for a denied or held channel its last SyncStep1 and awareness message.

        People type on in such a document. Nothing is lost: should it be let in, both sides tell each other
        what they lack, and then the updates that were dropped here are acknowledged.
        """
        pos = len(channel.prefix)
        last: dict[bytes, bytes] = {}
        for frame in self._waiting.pop_all(channel.address):
            kind = frame[pos : pos + 1]
            if kind == bytes((codec.AWARENESS,)) or codec.is_step1(frame, pos):
                last.pop(kind, None)
                last[kind] = frame
            elif kind == bytes((codec.SYNC,)) and channel.dropped < _MAX_DROPPED:
                channel.dropped += 1
        for kind, frame in last.items():
            # A held client tells its presence anew within seconds; what waits of a denied one gives way anyhow.
            presence = channel.held and kind == bytes((codec.AWARENESS,))
            if not (presence and self._waiting.crowded_by(frame)):
                self._waiting.put(channel.address, frame)

    @property
    def full(self) -> bool:
        """Whether more waits than may: no frame is to be given in until an admission has gone on.

        Call ``relieve`` after each answer that was fed back in, and after each ``next_waiting``.
        """
        return self._waiting.full

    def relieve(self) -> Sequence[events.Event[AnyChannel]]:
        """Make room among the waiting frames, or end a socket whose client was let in nowhere."""
        if not self._waiting.full:
            return ()
        for channel in self.channels.values():
            if channel.session.state is State.DENIED:
                self._waiting.pop_all(channel.address)
            elif channel.held:
                self._thin_out(channel)
        if not self._waiting.full:
            return ()
        admitted = (State.JOINING, State.LIVE, State.LAGGING, State.RECEIVING)
        opening = (channel for channel in self.channels.values() if not (channel.ready or channel.held))
        if any(channel.session.state in admitted for channel in opening):
            return ()  # these were let in: the socket is not read until their documents are open
        frames, nbytes = self._waiting.frames, self._waiting.nbytes
        return (_close(LimitExceeded(f"{nbytes} bytes in {frames} messages before authentication")),)

    # Admission

    def _receive_token(self, channel: AnyChannel, frame: bytes, out: list[events.Event[AnyChannel]]) -> None:
        """Look at the token that a client shows, in place of one that is being looked at, which may take for ever."""
        try:
            token = _decode_token(channel, frame)
        except (DecodeError, LimitExceeded) as error:
            self._deny(channel, error, out)
            return
        self._unproven.discard(channel.address)
        if channel.session.state in (State.AUTHENTICATING, State.JOINING):
            self._leave(channel, out)
            channel.session = channel.new_session()
        # Since 4.0, which says so with its token, it tells nobody of a clock that it was made to take.
        channel.session.quiet = token.version is not None
        self._present(channel, token.token, out)

    def _present(self, channel: AnyChannel, token: str, out: list[events.Event[AnyChannel]]) -> None:
        channel.session.on(Event.PRESENTED)
        channel.pause = _RETRY_FIRST
        channel.held = False
        try:
            name = codec.document_name(channel.address)
        except CollabError as error:
            self._deny(channel, error, out)
            return
        out.append(Authenticate(channel, channel.session, token, name))

    def granted(
        self, channel: AnyChannel, session: Session, access: Access, author: str | None
    ) -> Sequence[events.Event[AnyChannel]]:
        """Go on with a session whose token is good; nothing if it is over."""
        if session.state is not State.AUTHENTICATING:
            return ()
        session.grant(access, author)
        channel.pause = _RETRY_FIRST
        self._unproven.discard(channel.address)
        return (Drain(), Open(channel, session))

    def opened(self, channel: AnyChannel, session: Session) -> Sequence[events.Event[AnyChannel]]:
        """Go on with a session whose document is open and may be joined; then call ``next_waiting`` until it is None.

        The room must be joined at once: an empty one may leave memory at any time.
        """
        if session.state is not State.JOINING:
            return ()
        self.established = True
        channel.held = False
        if channel.dropped and session.access is not Access.READ:
            # The answer to the SyncStep1 that the client is about to be sent holds them all.
            session.held = [True] * channel.dropped
        channel.dropped = 0
        # Not before: providers 2 that have got any message come back at once and for ever when the
        # socket is closed, because the store is down, say; without one they wait longer each time.
        return (self._send(channel, codec.encode_authenticated(session.access)), Join(channel, session))

    def denied(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after a step of an admission has failed: try it again, or refuse the session."""
        if session.state not in (State.AUTHENTICATING, State.JOINING):
            return ()
        out: list[events.Event[AnyChannel]] = []
        retry = self._patience(channel, error)
        if retry is None:
            self._deny(channel, error, out)
            return out
        out.append(Note(channel, error))
        if isinstance(error, AccessExpired):
            out.append(Control(channel.prefix + codec.TOKEN_REQUEST))
        self._hold(channel, out)
        if self._has(channel, session):
            out.append(retry)
        return out

    def _patience(self, channel: AnyChannel, error: CollabError) -> Retry | None:
        """Say when the step that has failed with ``error`` is tried again; None if its session is over."""
        if not error.retryable or isinstance(error, (ServerStopping, InternalError)):
            return None
        if isinstance(error, DocumentBusy):
            if error.wait is not None:
                return Retry(error.wait, exact=True)
        elif isinstance(error, AccessExpired) and (
            # Only another token helps. Providers since 3.3 can be asked for it; the others show it when they come back.
            channel.session.state is State.JOINING or channel.pause >= _RETRY_LAST or len(self.channels) == 1
        ):
            return None
        elif not isinstance(error, DamagedDocument) and not any(
            # Beside one that is damaged others may be about to be let in: they must not lose their socket for it.
            other.ready or other.held
            for other in self.channels.values()
            if other is not channel
        ):
            return None  # nobody is harmed when the socket is closed, and providers come back later and later
        seconds = channel.pause
        channel.pause = min(2 * seconds, _RETRY_LAST)
        return Retry(seconds)

    def _hold(self, channel: AnyChannel, out: list[events.Event[AnyChannel]]) -> None:
        """Let a document wait for what will pass; of what its client sends meanwhile only the newest is kept."""
        if channel.held:
            return
        channel.held = True
        behind = self._from_next_start(channel)
        self._thin_out(channel)
        for frame in behind:
            self._receive(frame, out)

    def _deny(self, channel: AnyChannel, error: CollabError, out: list[events.Event[AnyChannel]]) -> None:
        """Refuse a session over something that its client has sent."""
        out += (Note(channel, error), Drain())
        self._refuse(channel, error, out)

    def next_waiting(self, channel: AnyChannel, session: Session) -> Sequence[events.Event[AnyChannel]] | None:
        """Take the first of what has waited for a channel that has joined; None when it is ready, or has ended."""
        if not self._has(channel, session) or not channel.joined:
            return None
        frame = self._waiting.pop(channel.address)
        if frame is None:
            channel.ready = True
            return None
        out: list[events.Event[AnyChannel]] = []
        self._handle(channel, frame, out)
        return out

    # What is live

    def _handle(self, channel: AnyChannel, frame: bytes, out: list[events.Event[AnyChannel]]) -> None:
        """Take a message for a session that has joined its room; its errors are the session's alone."""
        try:
            message = self._decode(frame, len(channel.prefix))
            match message:
                case SyncStep1() | SyncStep2() | SyncUpdate() | AwarenessUpdate() | QueryAwareness():
                    out.append(Deliver(channel, message, len(frame)))
                case Stateless():
                    self._relay(channel, message, len(frame), out)
                case Token(token):
                    out.append(Renew(channel, channel.session, token))
                case codec.Close():
                    self._detach(channel, out)
                case BroadcastStateless():
                    self._reset(channel, out)
                case SyncStatus() | PermissionDenied() | LocalVersion() | None:  # a client's frames say only the last
                    out.append(Ignored(channel))
                case _:
                    assert_never(message)
        except AwarenessError:
            out.append(Deliver(channel, UNREADABLE, len(frame)))
        except (DecodeError, LimitExceeded) as error:
            out += self.failed(channel, channel.session, error)

    def _decode(self, frame: bytes, pos: int) -> codec.ClientMessage | None:
        if (
            frame[pos : pos + 1] == bytes((codec.STATELESS,))
            and len(frame) - pos > self._limits.stateless_bytes + _HEAD
        ):
            return Stateless(frame[pos + 1 :])  # refused for its length, so nothing of it is looked at
        return codec.decode(frame, pos)

    def _relay(self, channel: AnyChannel, message: Stateless, size: int, out: list[events.Event[AnyChannel]]) -> None:
        if not self._limits.stateless:
            out.append(Note(channel, ProtocolError("a stateless message, which are turned off here")))
            return
        length = len(message.payload)
        # A reader's is the room's to refuse, whatever its size.
        if length > self._limits.stateless_bytes and channel.session.access is not Access.READ:
            # The document's edits have no part in it, and PermissionDenied would keep them out for good.
            reason = f"a stateless message has at most {self._limits.stateless_bytes} bytes"
            out.append(Note(channel, LimitExceeded(f"stateless message of {length} bytes", public=reason)))
            out.append(Control(channel.prefix + codec.encode(notice("stateless message not relayed", reason))))
            return
        out.append(Deliver(channel, message, size))

    def _reset(self, channel: AnyChannel, out: list[events.Event[AnyChannel]]) -> None:
        """End the session of a client that sends what only servers send each other, as Hocuspocus does."""
        out += (Note(channel, ProtocolError("BroadcastStateless from a client")), Drain())
        behind = self._from_next_start(channel)
        self._remove(channel, out)
        out.append(self._send(channel, codec.CLOSED_FOR_BROADCAST))
        for frame in behind:
            self._receive(frame, out)

    def _detach(self, channel: AnyChannel, out: list[events.Event[AnyChannel]]) -> None:
        """Close one document, as its client has asked for."""
        out.append(Drain())
        # A page that closes a document and opens it again at once has sent both by now.
        behind = self._waiting.pop_all(channel.address)
        self._remove(channel, out)
        address = channel.address
        self._departed.pop(address, None)
        self._departed[address] = None
        if len(self._departed) > _MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]
        out.append(ConfirmClose(address, _CLOSED_AFTER))
        for frame in behind:
            self._receive(frame, out)

    def confirm_close(self, address: bytes) -> Sequence[events.Event[AnyChannel]]:
        """Answer a client's CLOSE, unless it has opened the document again."""
        return () if address in self.channels else (Send(codec.prefix(address) + codec.CLOSED_BY_CLIENT),)

    def renewed(self, channel: AnyChannel, session: Session, access: Access) -> Sequence[events.Event[AnyChannel]]:
        """Go on after a token that a live client has sent was found good; only a changed scope is worth an answer."""
        if not self._has(channel, session) or session.access is access:
            return ()
        session.access = access
        return (self._send(channel, codec.encode_authenticated(access)),)

    def renewal_denied(
        self, channel: AnyChannel, session: Session, error: CollabError
    ) -> Sequence[events.Event[AnyChannel]]:
        """Go on after a token that a live client has sent was refused; what cannot be decided leaves all as it is."""
        out: list[events.Event[AnyChannel]] = [Note(channel, error)]
        if not error.retryable and self._has(channel, session):
            self._refuse(channel, error, out)
        return out

    def failed(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the room has refused a message that was delivered: the session is over."""
        if not self._has(channel, session):
            return ()
        out: list[events.Event[AnyChannel]] = []
        self._deny(channel, error, out)
        return out

    # Ends

    def ended(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the room has ended a session."""
        if not self._has(channel, session):
            return ()
        out: list[events.Event[AnyChannel]] = []
        self._refuse(channel, error, out)
        return out

    def expiring(self, channel: AnyChannel) -> Sequence[events.Event[AnyChannel]]:
        """Ask for a fresh token, some time before what was granted runs out."""
        return (Control(channel.prefix + codec.TOKEN_REQUEST),)

    def expired(self, channel: AnyChannel) -> Sequence[events.Event[AnyChannel]]:
        """End what was granted: its time is over."""
        error = AccessExpired("the token has expired")
        # Providers before 3.3 cannot be asked; coming back they show what their token function gives. Other documents
        # of the socket come back with it: PermissionDenied under the address alone would keep this one out for good.
        return (Note(channel, error), Close(codec.socket_close_code(error)))

    def overdue(self) -> Sequence[events.Event[AnyChannel]]:
        """Close a socket on which nothing was opened in time; one whose token is good may wait for its turn."""
        waits = any(channel.held and channel.session.state is State.JOINING for channel in self.channels.values())
        return () if self.established or waits else (Close(codec.CLOSE_UNAUTHENTICATED),)

    def close_code(self, error: BaseException) -> CloseCode:
        """Return how the whole socket is closed because of ``error``."""
        return codec.socket_close_code(error)

    def keepalive(self) -> bytes | None:
        """Return an empty awareness update under any address: the client's watchdog is the socket's."""
        for channel in self.channels.values():
            return channel.prefix + codec.KEEPALIVE
        return None

    def close(self) -> Sequence[events.Event[AnyChannel]]:
        """Leave all documents: the socket has ended."""
        out: list[events.Event[AnyChannel]] = []
        for channel in list(self.channels.values()):
            self._remove(channel, out)
        return out

    def _has(self, channel: AnyChannel, session: Session) -> bool:
        """Tell whether a session is not over: what is said of another one means nothing any more."""
        return channel.session is session and self.channels.get(channel.address) is channel

    def _remove(self, channel: AnyChannel, out: list[events.Event[AnyChannel]]) -> None:
        """Forget a channel; its session is over."""
        self._leave(channel, out)
        self._waiting.pop_all(channel.address)
        self._unproven.discard(channel.address)
        self.channels.pop(channel.address, None)

    def _leave(self, channel: AnyChannel, out: list[events.Event[AnyChannel]]) -> None:
        """End a channel's session: it is over, whatever is still answered for it."""
        channel.ready = channel.held = False
        if channel is self._last:
            self._last = None
        out.append(Leave(channel, channel.session))
        if not channel.joined and channel.session.state is not State.CLOSED:
            channel.session.on(Event.ENDED)  # the room sees to one that has joined it

    def _refuse(self, channel: AnyChannel, error: CollabError, out: list[events.Event[AnyChannel]]) -> None:
        """End one session and say why: by closing the socket if coming back may help, else under its address."""
        code = codec.close_code(error)
        if code is not None:
            out.append(Close(code))
            return
        behind = self._from_next_start(channel)
        if channel.session.state in (State.AUTHENTICATING, State.JOINING):
            channel.session.on(Event.DENIED)
        self._leave(channel, out)
        # The next token gets a session of its own, so that a late answer for this one cannot count for it.
        channel.session = channel.new_session()
        channel.session.on(Event.PRESENTED)
        channel.session.on(Event.DENIED)
        self._thin_out(channel)
        out.append(self._send(channel, codec.encode(PermissionDenied(error.public))))
        for frame in behind:
            self._receive(frame, out)

    def _from_next_start(self, channel: AnyChannel) -> list[bytes]:
        """Remove and return what waits from the next CLOSE or Auth on: what is refused before does not concern it."""
        pos = len(channel.prefix)
        frames = self._waiting.pop_all(channel.address)
        starts = (codec.CLOSE_REQUEST, bytes((codec.AUTH,)))
        start = next((at for at, frame in enumerate(frames) if frame[pos : pos + 1] in starts), len(frames))
        for frame in frames[:start]:
            self._waiting.put(channel.address, frame)
        return frames[start:]

    def _send(self, channel: AnyChannel, body: bytes) -> Send:
        return Send(channel.prefix + body)


def _decode_token(channel: Channel, frame: bytes) -> Token:
    message = codec.decode(frame, len(channel.prefix))
    assert isinstance(message, Token)  # the frame's type is Auth
    return message


def _close(error: CollabError) -> Close:
    return Close(codec.socket_close_code(error), error)
