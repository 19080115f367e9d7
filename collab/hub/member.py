"""A session with the way to its client.

Strategy: the hub writes finished bytes and never waits. An ``Encoder`` stands for "this wire
protocol, addressed like this": members with equal encoders receive the very same bytes object. An
``Outbox`` is one client's socket or stream; it says when it is past its mark, and then the member
gets no live frames until it has drained and one catch-up has brought it level.
"""

from __future__ import annotations

from typing import Protocol

from collab.errors import CollabError
from collab.protocol.session import Session
from collab.protocol.wire import Message


class Encoder(Protocol):
    """Turn messages into the bytes that go onto a socket."""

    def encode(self, message: Message) -> bytes:
        """Return the whole of what is written for one message, framing included."""
        ...


class Outbox(Protocol):
    """One client's socket: bounded by a mark, written without waiting.

    Promise: what is written goes out whole and in order, or the client is gone.
    """

    mark: int
    """Bytes waiting past which the client counts as slow."""

    def write(self, data: bytes) -> int:
        """Write ``data`` and return how many bytes now wait in this process; 0 if the client is gone."""
        ...

    def waiting(self) -> int:
        """Return how many bytes wait in this process."""
        ...

    def end(self, member: Member, error: CollabError) -> None:
        """Tell the client that this session is over, in its own protocol, and why."""
        ...

    def probe(self) -> None:
        """Find out soon whether the client still lives, and end its connection if not."""
        ...

    def note_refused(self, member: Member) -> None:
        """Note that this session may only read and has tried to write."""
        ...


class Member(Session):
    """A session on a live room.

    Attributes:
        encoder, outbox: how its client is written to.
        since: while it lags, the state vector (v1 bytes) of what it was last sent, or has asked with.
        since_version: the document's version then; with nothing new since, there is nothing to catch up.
        asks: whether a SyncStep1 of its own waits until it has caught up.
        owed: verdicts on its updates that it has not been told yet, because it lags; a byte each.
        stalled_at: when its outbox was last seen to shrink, in the loop's seconds.
        stalled_with: how many bytes waited then.
    """

    __slots__ = ("asks", "encoder", "outbox", "owed", "since", "since_version", "stalled_at", "stalled_with")

    def __init__(self, encoder: Encoder, outbox: Outbox) -> None:
        super().__init__()
        self.encoder = encoder
        self.outbox = outbox
        self.since: bytes | None = None
        self.since_version = 0
        self.asks = False
        self.owed: bytearray | None = None
        self.stalled_at = 0.0
        self.stalled_with = 0
