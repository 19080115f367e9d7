"""Model clients: they speak both protocols byte by byte, keep a document and the presence of the others, and remember.

Strategy: what the stock providers do, as far as a server can see it. The codecs are those of the tests, which stand
there a second time on purpose. The document is pycrdt's, another implementation than the server's. The frames of the
server are read in the moment in which it writes them, so what it acknowledges can be compared with the log before
anything else happens; the client acts on them when they arrive.
"""

from __future__ import annotations

import json
from collections import deque
from random import Random
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

from pycrdt import Doc, Text

from tests.simulation.sockets import Link
from tests.simulation.store import Held
from tests.support import hocuspocus as h
from tests.support import wsclient as y

ROOT: Final = "t"

_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10

EMPTY: Final = b"\x00\x00"


class World(Protocol):
    """What a client needs of the simulation."""

    held: dict[str, Held]
    random: Random

    def event(self, *what: object) -> None:
        """Note what happens."""

    def fail(self, why: str) -> None:
        """Note that a promise was broken."""

    def left(self, person: Person) -> None:
        """Hear that a person's connection has ended."""


class _Frame(NamedTuple):
    """A frame of the server: where it ends in its stream."""

    end: int
    opcode: int
    payload: bytes


class Presence:
    """The awareness of y-protocols: the newest clock and state of each client."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.clocks: dict[int, int] = {client: 0}  # as the constructor leaves it; nobody shows a state with the clock 0
        self.states: dict[int, str] = {}

    def show(self, state: str | None) -> None:
        """Set the own state."""
        self.clocks[self.client] = self.clocks[self.client] + 1
        if state is None:
            self.states.pop(self.client, None)
        else:
            self.states[self.client] = state

    def apply(self, payload: bytes) -> list[int]:
        """Take an awareness update; return the clients that it has changed, which the providers send on."""
        changed = []
        for client, clock, state in y.awareness_entries(payload):
            before = self.clocks.get(client)
            current = 0 if before is None else before
            if not (current < clock or (current == clock and state == "null" and client in self.states)):
                continue
            if state != "null":
                self.states[client] = state
            elif client == self.client and client in self.states:
                clock += 1  # nobody else removes the own state: it is announced again
            else:
                self.states.pop(client, None)
            self.clocks[client] = clock
            if before is not None or state != "null":
                changed.append(client)
        return changed

    def forget_others(self) -> None:
        """Show only oneself, as while offline; the clocks stay."""
        own = self.states.get(self.client)
        self.states = {} if own is None else {self.client: own}

    def entries(self, clients: list[int]) -> list[tuple[int, int, str]]:
        """Give entries to be sent."""
        return [(client, self.clocks.get(client, 0), self.states.get(client, "null")) for client in clients]


class Person:
    """One user with one document open, over connections that come and go.

    Attributes:
        name, document: who, and of what.
        doc, text: its copy.
        presence: what it knows of the others.
        connection: the one that it has now.
        wanted: whether it wants to be online.
        acked: all that was acknowledged to it.
        heard: stateless messages that came, with how often.
        protocol: ``y`` or ``h``.
    """

    def __init__(self, world: World, client: int, document: str, protocol: str) -> None:
        self.world = world
        self.name = f"{protocol}{client}"
        self.address = f"10.1.{client >> 8 & 255}.{client & 255}"
        self.document = document
        self.protocol = protocol
        self.presence = Presence(client)
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text: Text = self.doc.get(ROOT, type=Text)
        self.connection: Connection | None = None
        self.wanted = True
        self.acked = Held()
        self.heard: dict[str, int] = {}
        self._edited: bytes = b""
        self._subscription = self.doc.observe(self._note)

    def _note(self, event: Any) -> None:
        self._edited = event.update

    @property
    def online(self) -> bool:
        """Whether it has a connection on which it is synced."""
        return self.connection is not None and self.connection.synced

    # What a person does

    def type(self, at: int, text: str) -> None:
        """Insert text."""
        self.text.insert(at, text)
        self._send_edit()

    def delete(self, at: int, count: int) -> None:
        """Delete text."""
        del self.text[at : at + count]
        self._send_edit()

    def _send_edit(self) -> None:
        update, self._edited = self._edited, b""
        self.world.event("edit", self.name, crc32(update))
        if update and self.connection is not None:
            self.connection.send_update(update)

    def show(self, state: str | None) -> None:
        """Show a state to the others, or leave."""
        self.presence.show(state)
        self.world.event("show", self.name, state)
        if self.connection is not None:
            self.connection.send_presence([self.presence.client])

    def renew(self) -> None:
        """Announce the own state anew, with the next clock."""
        state = self.presence.states.get(self.presence.client)
        if state is not None:
            self.show(state)

    # What comes

    def take_update(self, update: bytes) -> None:
        """Take an update of the server."""
        self.world.event("update", self.name, crc32(update))
        if update != EMPTY:
            self.doc.apply_update(update)
        self._edited = b""

    def take_presence(self, payload: bytes) -> None:
        """Take an awareness update, and pass on what it has changed, as both providers do."""
        changed = self.presence.apply(payload)
        self.world.event("presence", self.name, crc32(payload), changed)
        if changed and self.connection is not None:
            self.connection.send_presence(changed)

    def disconnected(self, why: str) -> None:
        """Hear that the connection has ended."""
        self.world.event("disconnected", self.name, why)
        self.connection = None
        self.presence.forget_others()
        self.world.left(self)

    def content(self) -> str:
        """Give the text."""
        return str(self.text)


class Connection:
    """One connection of a person, from its handshake to its end (``sockets.Peer``)."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.link: Link | None = None
        self.open = False  # behind the handshake
        self.joined = False  # may send
        self.synced = False
        self.over = False
        self._unread = b""
        self._made = 0  # bytes that the server has written, and of those that have arrived
        self._got = 0
        self._frames: deque[_Frame] = deque()
        self._head = 0

    def begin(self, link: Link) -> None:
        """Ask for the WebSocket."""
        self.link = link
        path = f"/ws/{self.person.document}" if self.person.protocol == "y" else "/hocuspocus"
        link.send(
            f"GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    # Bytes of the server

    def written(self, data: bytes) -> None:
        """Read what the server writes, in the moment in which it does."""
        self._made += len(data)
        data = self._unread + data
        pos = 0
        if not self._head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._unread = data
                return
            pos = end + 4
            self._head = self._made - len(data) + pos
            self._frames.append(_Frame(self._head, -1, data[9:12]))
        while len(data) - pos >= 2:
            size, begin = data[pos + 1], pos + 2
            if size == 126:
                size, begin = int.from_bytes(data[begin : begin + 2]), begin + 2
            elif size == 127:
                size, begin = int.from_bytes(data[begin : begin + 8]), begin + 8
            if len(data) < begin + size:
                break
            payload = data[begin : begin + size]
            opcode = data[pos] & 0x0F
            pos = begin + size
            self._frames.append(_Frame(self._made - len(data) + pos, opcode, payload))
            if opcode == _BINARY:
                self.seen(payload)
        self._unread = data[pos:]

    def seen(self, payload: bytes) -> None:
        """Look at a message that the server has just written."""

    def received(self, data: bytes) -> None:
        """Act on what has arrived."""
        self._got += len(data)
        while self._frames and self._frames[0].end <= self._got and not self.over:
            _, opcode, payload = self._frames.popleft()
            if opcode == _BINARY:
                self.take(payload)
            elif opcode == _PING:
                self._send_frame(_PONG, payload)
            elif opcode == _CLOSE:
                self._send_frame(_CLOSE, payload[:2])
                self._end(f"closed {int.from_bytes(payload[:2])} {payload[2:].decode()}")
            elif opcode < 0:
                if payload != b"101":
                    self._end(f"refused {payload.decode()}")
                    return
                self.open = True
                self.opened()

    def lost(self) -> None:
        """Hear that the connection is gone."""
        self._end("lost")

    def _end(self, why: str) -> None:
        if not self.over:
            self.over = True
            assert self.link is not None
            self.link.end()
            self.person.disconnected(why)

    def leave(self) -> None:
        """Close politely."""
        self._send_frame(_CLOSE, (1001).to_bytes(2))
        self._end("left")

    def vanish(self) -> None:
        """Be gone without a word."""
        if not self.over:
            self.over = True
            assert self.link is not None
            self.link.vanish()
            self.person.disconnected("vanished")

    def send(self, payload: bytes) -> None:
        """Send one message."""
        self._send_frame(_BINARY, payload)

    def _send_frame(self, opcode: int, payload: bytes) -> None:
        assert self.link is not None
        if self.over:
            return
        head = bytes((0x80 | opcode,))
        size = len(payload)
        if size < 126:
            head += bytes((0x80 | size,))
        elif size < 1 << 16:
            head += bytes((0x80 | 126,)) + size.to_bytes(2)
        else:
            head += bytes((0x80 | 127,)) + size.to_bytes(8)
        self.link.send(head + bytes(4) + payload)  # masked as clients must, with the key that changes nothing

    # What each protocol says

    def opened(self) -> None:
        """Go on after the handshake."""

    def take(self, payload: bytes) -> None:
        """Act on a message."""

    def send_update(self, update: bytes) -> None:
        """Send an edit, if it may be sent yet."""

    def send_presence(self, clients: list[int]) -> None:
        """Send awareness states."""


class YConnection(Connection):
    """As ``y-websocket`` does it."""

    def opened(self) -> None:
        self.joined = True
        self.send(y.step1(self.person.doc.get_state()))
        own = self.person.presence
        if own.client in own.states:
            self.send_presence([own.client])

    def take(self, payload: bytes) -> None:
        frame = y.parse(payload)
        if frame.type == y.AWARENESS:
            self.person.take_presence(frame.payload)
        elif frame.type == y.QUERY_AWARENESS:
            self.send_presence(list(self.person.presence.states))
        elif frame.type == y.AUTH:
            self.person.world.fail(f"{self.person.name} was denied: {frame.payload!r}")
        elif frame.kind == y.STEP1:
            self.send(y.step2(self.person.doc.get_update(frame.payload)))
        else:
            self.person.take_update(frame.payload)
            self.synced = self.synced or frame.kind == y.STEP2

    def send_update(self, update: bytes) -> None:
        if self.joined:
            self.send(y.update(update))

    def send_presence(self, clients: list[int]) -> None:
        if self.joined:
            self.send(y.awareness(*self.person.presence.entries(clients)))


class HConnection(Connection):
    """As ``@hocuspocus/provider`` does it; it is told what became of each of its updates, in their order."""

    def __init__(self, person: Person) -> None:
        super().__init__(person)
        self.owed: deque[bytes] = deque()

    def opened(self) -> None:
        self.send(h.auth(self.person.document, "", h.VERSION))

    def seen(self, payload: bytes) -> None:
        if h.parse_type(payload) != h.SYNC_STATUS:
            return
        person = self.person
        saved = h.parse(payload).fields[0]
        if not self.owed:
            person.world.fail(f"{person.name} got an acknowledgement of nothing")
            return
        update = self.owed.popleft()
        if not saved:
            person.world.fail(f"an update of {person.name} was refused")
            return
        said = Held()
        said.add(update)
        person.world.event("acknowledged", person.name, len(said.structs), len(said.deletes))
        log = person.world.held.get(person.document) or Held()
        if not said <= log:
            log = log.with_updates(person.world.kept_beside(person.document))  # what waits for edits that come later
        if not said <= log:
            person.world.fail(f"acknowledged to {person.name} and not in the log: {log.lacks(said)}")
        person.acked.structs |= said.structs
        person.acked.deletes |= said.deletes

    def take(self, payload: bytes) -> None:
        frame, person = h.parse(payload), self.person
        if frame.type == h.PING:
            self.send(bytes((h.PONG,)))
        elif frame.type == h.AWARENESS:
            (data,) = frame.fields
            assert isinstance(data, bytes)
            person.take_presence(data)
        elif frame.type == h.AUTH and frame.fields[0] == h.AUTHENTICATED:
            self.joined = True
            self.send(h.step1(person.document, person.doc.get_state()))
            if person.presence.client in person.presence.states:
                self.send_presence([person.presence.client])
        elif frame.type == h.AUTH and frame.fields[0] == h.PERMISSION_DENIED:
            person.world.fail(f"{person.name} was denied: {frame.fields[1]!r}")
        elif frame.type == h.QUERY_AWARENESS:
            self.send_presence(list(person.presence.states))
        elif frame.type == h.STATELESS:
            said = str(frame.fields[0])
            person.heard[said] = person.heard.get(said, 0) + 1
            if person.heard[said] > 1:
                person.world.fail(f"{person.name} got the stateless message {said} more than once")
        elif frame.type == h.CLOSE:
            self._end(f"closed: {frame.fields[0]!r}")
        elif frame.type == h.SYNC:
            kind, data = frame.fields
            assert isinstance(data, bytes)
            if kind == h.STEP1:
                self._send_owed(h.step2, person.doc.get_update(data))
            else:
                person.take_update(data)
                self.synced = self.synced or kind == h.STEP2

    def _send_owed(self, make: Any, update: bytes) -> None:
        if not self.over:
            self.owed.append(update)
            self.send(make(self.person.document, update))

    def send_update(self, update: bytes) -> None:
        if self.joined:
            self._send_owed(h.update, update)

    def send_presence(self, clients: list[int]) -> None:
        if self.joined:
            self.send(h.awareness(self.person.document, *self.person.presence.entries(clients)))

    def send_stateless(self, text: str) -> None:
        """Send a message that goes to everybody else."""
        if self.joined:
            self.send(h.stateless(self.person.document, text))


def new_connection(person: Person) -> Connection:
    """Make a connection of the person's protocol."""
    return YConnection(person) if person.protocol == "y" else HConnection(person)


def state_of(person: Person, number: int) -> str:
    """Make an awareness state."""
    return json.dumps({"name": person.name, "cursor": number})
