"""A session with the way to its client.

Strategy: the hub writes finished bytes and never waits. An ``Encoder`` stands for "this wire
protocol, addressed like this": members with equal encoders receive the very same bytes object. An
``Outbox`` is one client's socket or stream; it says when it is past its mark, and then the member
gets no live frames until it has drained and one catch-up has brought it level. A ``Client`` is told
what cannot be said by a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

from collab.errors import CollabError
from collab.hub.line import Line
from collab.hub.long_frames import LongFrame
from collab.protocol.messages import Message
from collab.protocol.session import Access, Session, State
from collab.protocol.sync import SyncStep2, SyncUpdate


class Encoder(Protocol):
    """Turn messages into the bytes that go onto a socket."""

    def encode(self, message: Message) -> bytes:
        """Return the whole of what is written for one message, framing included."""
        ...

    def encode_head(self, kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
        """Return what is written before an update of ``size`` bytes, for a message of this kind; nothing is behind."""
        ...


SMALL: Final = 8 * 1024
"""Bytes below which a frame is small: an outbox has nothing to decide on it."""


class Outbox(Protocol):
    """One client's socket: bounded by a mark, written without waiting.

    Promise: what is written goes out whole and in order, or the client is gone.
    """

    mark: int
    """Bytes waiting past which the client counts as slow."""

    direct: Callable[[bytes], object] | None
    """Writes a small frame at once, as ``write`` would; None while that has something to decide.

    For a loop over many: whoever uses it notes that the outbox is not ``quiet``, and looks at ``buffered``. Should it
    raise a RuntimeError the client is gone, and ``write`` sees to that."""

    buffered: Callable[[], int]
    """Tells how many bytes wait in this process while there is ``direct``."""

    quiet: bool
    """Whether nothing that its client sees was written for a while."""

    def write(self, data: bytes) -> int:
        """Write ``data`` and return how many bytes now wait in this process; 0 if the client is gone."""
        ...

    def write_long(self, frame: LongFrame) -> int:
        """Write a frame that is put together as it leaves; the whole of it waits until then."""
        ...

    def waiting(self) -> int:
        """Return how many bytes wait in this process."""
        ...

    @property
    def line(self) -> Line:
        """What is known of the line to the client."""
        ...

    def fill(self, size: int) -> None:
        """Write about ``size`` bytes that the client does not see, to find out how fast the line is."""
        ...

    def measure(self, done: Callable[[], object]) -> None:
        """Call ``done`` once the client has read everything written so far, or is gone."""
        ...


class Checked(Enum):
    """What became of a session whose access was asked about again."""

    SAME = "same"
    CHANGED = "changed"
    ENDED = "ended"
    UNDECIDED = "undecided"  # nobody has answered; it goes on as before


class MemberFacts(Protocol):
    """What operators may know of somebody on a document."""

    @property
    def author(self) -> str | None:
        """Whose token it has shown; None where nobody has said."""
        ...

    @property
    def access(self) -> Access:
        """What it may do."""
        ...

    @property
    def state(self) -> State:
        """Where it stands."""
        ...


class ConnectionFacts(NamedTuple):
    """What operators may know of a connection.

    Attributes:
        number: names it in the log of this node.
        protocol: the name of its wire protocol.
        address: of its client.
        opened_at: when its handshake ended, in the loop's seconds.
        waiting: bytes that wait for it in this process.
        members: its sessions that have joined, or what it reads, with the names of their documents.
        received: bytes that have come from the client, behind the handshake.
    """

    number: int
    protocol: str
    address: str
    opened_at: float
    waiting: int
    members: Sequence[tuple[str, MemberFacts]]
    received: int = 0


class Client(Protocol):
    """One client's connection, which tells the client in its own protocol what the hub has decided."""

    @property
    def number(self) -> int:
        """The number that names the connection in the log of this node."""
        ...

    def facts(self) -> ConnectionFacts:
        """Say what operators may know of the connection."""
        ...

    async def check_access(self, member: Member) -> Checked:
        """Ask again what this session may do, with the token that it has shown last, and let it do that."""
        ...

    async def follow_quota(self, member: Member) -> None:
        """Let a session do what its tenant's quotas allow now; one that may write again is asked what it has edited."""
        ...

    @property
    def received(self) -> int:
        """How many bytes have come from the client, whole messages or not."""
        ...

    @property
    def unseen_seconds(self) -> float:
        """Seconds for which a message may be on its way without a byte of it being seen here; 0 where all are seen."""
        ...

    @property
    def held_up(self) -> bool:
        """Whether nothing is read from the client now, or something of it is being worked on: it need not be silent."""
        ...

    def end(self, member: Member, error: CollabError) -> None:
        """Tell the client that this session is over, and why."""
        ...

    def probe(self) -> None:
        """Find out soon whether the client still lives, and end its connection if not."""
        ...

    def note_unseen(self, member: Member, error: CollabError) -> None:
        """Note that the presence of this session is not shown, and why."""
        ...

    def note_refused(self, member: Member, what: str) -> None:
        """Note that this session may only read and has tried to send ``what`` ("an edit")."""
        ...


class BringsLevel(Protocol):
    """What sends a member all that it lacks, in pieces (``hub.delivery``)."""

    task: asyncio.Task[None] | None
    """Runs it."""

    def asked(self, state_vector: bytes) -> Generator[None, None, bool]:
        """Hear that the member asks again; False if nothing that was planned fits.

        A generator that yields about every millisecond.
        """
        ...

    def renumbered(self) -> None:
        """Hear that the log is another one than before."""
        ...


class Member(Session):
    """A session on a live room.

    Attributes:
        encoder, outbox, client: how its client is written to and told.
        since: while it lags, the state vector (v1 bytes) of what it was last sent, or has asked with.
        since_version: the document's version then; with nothing new since, there is nothing to catch up.
        asks: whether a SyncStep1 of its own waits until it has caught up.
        owed: acknowledgements that it has not been told yet, because it lags; a byte each.
        stalled_at: when its outbox was last seen to shrink, in the loop's seconds.
        stalled_with: how many bytes waited then.
        heard_with: how many bytes had come from it then.
        since_seq: while it lags, a row of the log such that it was sent all rows up to it; None when nobody knows.
        since_turn: the turn of its room's presence in which it began to lag, or to receive; -1 while it does neither.
        delivery: brings it level while it is RECEIVING.
        withholds, withheld: whether one acknowledgement is to be kept from it until it has everything it has asked for,
            and whether one is. A Hocuspocus provider takes itself for synced when all that it has sent is acknowledged.
        meanwhile: while what it lacks is put together in slices, the frames of updates that others are sent; else None.
        allowance: while it is RECEIVING, bytes that may wait for it without anything else being kept from it.
        joined_at: when it joined its room, in Unix seconds.
        granted: what its client was granted; its ``access`` may be less while a quota is used up.
        has_asked: whether it has sent a SyncStep1.
        claims_after: other nodes are told of no claim of it before that, in the loop's seconds.
    """

    __slots__ = (
        "allowance",
        "asks",
        "claims_after",
        "client",
        "delivery",
        "encoder",
        "granted",
        "has_asked",
        "heard_with",
        "joined_at",
        "meanwhile",
        "outbox",
        "owed",
        "since",
        "since_seq",
        "since_turn",
        "since_version",
        "stalled_at",
        "stalled_with",
        "withheld",
        "withholds",
    )

    def __init__(self, encoder: Encoder, outbox: Outbox, client: Client) -> None:
        super().__init__()
        self.encoder = encoder
        self.outbox = outbox
        self.client = client
        self.since: bytes | None = None
        self.since_version = 0
        self.asks = self.has_asked = False
        self.owed: bytearray | None = None
        self.joined_at = 0.0
        self.granted = Access.WRITE
        self.claims_after = 0.0
        self.stalled_at = 0.0
        self.stalled_with = 0
        self.heard_with = 0
        self.since_seq: int | None = None
        self.since_turn = -1
        self.delivery: BringsLevel | None = None
        self.allowance = 0
        self.meanwhile: list[bytes] | None = None
        self.withholds = self.withheld = False

    @property
    def takes(self) -> bool:
        """Whether it is sent what is no update of the document: not while it lags, or what is under way is too much."""
        state = self.state
        return state is State.LIVE or (state is State.RECEIVING and self.outbox.waiting() <= self.allowance)
