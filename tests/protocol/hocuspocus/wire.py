"""A Hocuspocus socket without a socket, for tests: frames in, what comes of them out as short texts.

Strategy: `Wire` stands for the whole server around a connection. It performs what the connection asks for as a
transport does, in order, and answers as a test says: granted, denied, opened. The frames that it is given are built by
the test's own codec, and those of the server are read by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from collab.errors import (
    CollabError,
    Forbidden,
)
from collab.protocol import events
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
from collab.protocol.hocuspocus.connection import Channel, Connection, Limits
from collab.protocol.messages import Message
from collab.protocol.session import Access, Session, State
from collab.protocol.session import Event as Step
from tests.support.hocuspocus import auth, parse

MIB = 1024 * 1024
LIMITS = Limits(documents=200, waiting_bytes=5 * MIB, stateless=True, stateless_bytes=10)

PING, PONG = b"\x09", b"\x0a"


class Client(Session):
    """A session that remembers its steps."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps: list[Step] = []
        super().__init__()

    def on(self, event: Step) -> None:
        super().on(event)
        self.steps.append(event)


class Document(Channel):
    """A channel that remembers the sessions it has had."""

    __slots__ = ("sessions",)

    def __init__(self, address: bytes) -> None:
        self.sessions: list[Client] = []
        super().__init__(address)

    def new_session(self) -> Session:
        self.sessions.append(Client())
        return self.sessions[-1]


Event: TypeAlias = events.Event[Document]
Question: TypeAlias = Authenticate[Document] | Open[Document] | Renew[Document]


def shown(payload: bytes) -> str:
    """Say what a frame to the client is."""
    if payload == PONG:
        return "pong"
    address, number, fields = parse(payload)
    match number, *fields:
        case 2, 0:
            text = "token?"
        case 2, 1, str(reason):
            text = f"denied: {reason}"
        case 2, 2, str(scope):
            text = f"let in: {scope}"
        case 7, str(reason):
            text = f"closed: {reason}"
        case _:
            text = f"type {number}: {fields}"
    return f"{address} {text}"


def described(message: Message) -> str:
    """Say what a message for a room is; payloads of tests are short texts or binary."""
    fields = (field.decode(errors="backslashreplace") if isinstance(field, bytes) else field for field in message)
    return " ".join(map(str, (type(message).__name__, *fields)))


def read(event: Event) -> str:
    """Say what an event is."""
    match event:
        case Deliver(channel, message):
            return f"deliver {channel.address.decode()} {described(message)}"
        case Authenticate(channel, _, token, name):
            return f"authenticate {channel.address.decode()} {token!r} for {name}"
        case Renew(channel, _, token):
            return f"renew {channel.address.decode()} {token!r}"
        case Open(channel) | Join(channel) | Leave(channel) | Ignored(channel):
            return f"{type(event).__name__.lower()} {channel.address.decode()}"
        case Note(channel, error):
            return f"note {channel.address.decode() if channel else 'socket'} {type(error).__name__}"
        case Send(payload) | Control(payload):
            return f"{type(event).__name__.lower()} {shown(payload)}"
        case RefuseUnread(channel, answer):
            return f"refuse unread {'answer' if answer else 'update'} {channel.address.decode()}"
        case Drain():
            return "drain"
        case Retry(seconds, exact):
            return f"retry in {seconds}" + (" exactly" if exact else "")
        case ConfirmClose(address, seconds):
            return f"confirm {address.decode()} in {seconds}"
        case Close(code, error):
            return f"close {code.code}" + (f" {type(error).__name__}" if error else "")


class Wire:
    """A socket's connection and the server around it.

    Attributes:
        protocol: the connection.
        made: every channel that it has made.
        questions: what it has asked for and was not told yet.
        stale: the questions of sessions that have been left since.
        inside: the sessions that are in their rooms.
        left: every session that it has left.
        closed: how the socket was closed.
        delivered: every message that reached a room, with its address.
    """

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.protocol: Connection[Document] = Connection(self._make, limits)
        self.made: list[Document] = []
        self.questions: list[Question] = []
        self.stale: list[Question] = []
        self.inside: list[Session] = []
        self.left: list[Session] = []
        self.closed: Close | None = None
        self.delivered: list[tuple[str, Message]] = []

    def _make(self, address: bytes) -> Document:
        self.made.append(Document(address))
        return self.made[-1]

    def __getitem__(self, address: str) -> Document:
        return self.protocol.channels[address.encode()]

    def state(self, address: str) -> State:
        return self[address].session.state

    @property
    def waiting(self) -> int:
        """How many frames wait; what was counted must be what is there."""
        waiting = self.protocol._waiting
        frames = [one for address in self.protocol.channels for one in waiting.of(address)]
        assert (waiting.frames, waiting.nbytes) == (len(frames), sum(map(len, frames)))
        return len(frames)

    def perform(self, steps: Sequence[Event]) -> list[str]:
        """Perform events as a transport does, in their order, and say what they were."""
        for step in steps:
            match step:
                case Authenticate() | Open() | Renew():
                    self.questions.append(step)
                case Join(_, session):
                    session.on(Step.OPENED)
                    self.inside.append(session)
                case Leave(channel, session):
                    self.left.append(session)
                    if session in self.inside:
                        self.end(session)
                    self.stale += [one for one in self.questions if one.session is session]
                    self.questions = [one for one in self.questions if one.session is not session]
                case Deliver(channel, message):
                    self.delivered.append((channel.address.decode(), message))
                case Close():
                    self.closed = self.closed or step
                case _:
                    pass
        return [read(step) for step in steps]

    def end(self, session: Session) -> None:
        """Do what a room does with a session that leaves it."""
        self.inside.remove(session)
        session.on(Step.ENDED)

    # The client

    def send(self, *frames: bytes) -> list[str]:
        """Give in frames of the client."""
        said = []
        for one in frames:
            assert not self.protocol.full, "the socket is not read now"
            said += self.perform(self.protocol.receive(one))
        return said

    def unread(self, head: bytes, size: int = 100 * MIB) -> list[str]:
        """Tell of a message that was not read."""
        return self.perform(self.protocol.unread(head, size))

    # The server

    def asked(self, address: str, kind: type[Question] | None = None) -> Question:
        """Take the open question for an address, to answer it."""
        found = next(
            one
            for one in self.questions
            if one.channel.address == address.encode() and (kind is None or isinstance(one, kind))
        )
        self.questions.remove(found)
        return found

    def grant(self, address: str, access: Access = Access.WRITE, author: str | None = None) -> list[str]:
        question = self.asked(address, Authenticate)
        return self.perform(self.protocol.granted(question.channel, question.session, access, author))

    def opened(self, address: str) -> list[str]:
        """Tell that the document is open; what waits is not taken yet."""
        question = self.asked(address, Open)
        return self.perform(self.protocol.opened(question.channel, question.session))

    def next(self, address: str) -> list[str] | None:
        """Take one frame that waits."""
        channel = self[address]
        steps = self.protocol.next_waiting(channel, channel.session)
        return None if steps is None else self.perform(steps)

    def catch_up(self, address: str) -> list[str]:
        """Take what waits, until the channel is ready or its session has ended."""
        channel, session, said = self[address], self[address].session, []
        while (steps := self.protocol.next_waiting(channel, session)) is not None:
            said += self.perform(steps) + self.relieve()
        return said

    def relieve(self) -> list[str]:
        return self.perform(self.protocol.relieve())

    def open(self, address: str) -> list[str]:
        """Tell that the document is open, and take what waits."""
        return [*self.opened(address), *self.relieve(), *self.catch_up(address)]

    def deny(self, address: str, error: CollabError) -> list[str]:
        """Tell that a step of an admission has failed; when it is to be tried again, the question stays."""
        question = self.asked(address)
        steps = self.protocol.denied(question.channel, question.session, error)
        if any(isinstance(step, Retry) for step in steps):
            self.questions.append(question)
        return self.perform(steps)

    def renewed(self, address: str, access: Access) -> list[str]:
        question = self.asked(address, Renew)
        return self.perform(self.protocol.renewed(question.channel, question.session, access))

    def renewal_denied(self, address: str, error: CollabError) -> list[str]:
        question = self.asked(address, Renew)
        return self.perform(self.protocol.renewal_denied(question.channel, question.session, error))

    def failed(self, address: str, error: CollabError) -> list[str]:
        """Tell that the room has refused a message."""
        return self.perform(self.protocol.failed(self[address], self[address].session, error))

    def ended(self, address: str, error: CollabError) -> list[str]:
        """Tell that the room has ended the session; it has left the room by then."""
        channel, session = self[address], self[address].session
        self.end(session)
        return self.perform(self.protocol.ended(channel, session, error))

    def expired(self, address: str) -> list[str]:
        return self.perform(self.protocol.expired(self[address]))

    def confirm(self, address: str) -> list[str]:
        return self.perform(self.protocol.confirm_close(address.encode()))

    def close(self) -> list[str]:
        return self.perform(self.protocol.close())

    # All at once

    def let_in(self, address: str, access: Access = Access.WRITE) -> list[str]:
        """Answer whatever is asked for an address by yes."""
        return self.grant(address, access) + self.open(address)

    def join(self, address: str = "d", access: Access = Access.WRITE) -> Document:
        """Open a document as a client does that has shown a good token, and return its channel."""
        self.send(auth(address, "good"))
        self.let_in(address, access)
        assert self[address].ready
        return self[address]

    def be_denied(self, address: str = "d") -> Document:
        """Show a token that is no good."""
        self.send(auth(address, "bad"))
        self.deny(address, Forbidden("no"))
        assert self.state(address) is State.DENIED
        return self[address]


def snapshot(wire: Wire) -> object:
    """All that a connection knows."""
    protocol = wire.protocol
    return (
        [
            (c, c.session, c.session.state, c.ready, c.held, c.dropped, list(protocol._waiting.of(c.address)))
            for c in wire.made
        ],
        list(protocol.channels.items()),
        (protocol._waiting.frames, protocol._waiting.nbytes),
        set(protocol._unproven),
        list(protocol._departed),
        protocol.established,
    )
