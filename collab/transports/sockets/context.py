"""What all sockets of one node share."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from collab.hub.admission import Admission
from collab.hub.hub import Hub
from collab.hub.tasks import Tasks
from collab.limits.refusals import Refusals
from collab.protocol.hocuspocus.connection import Limits as HocuspocusLimits
from collab.telemetry import RateLimited, get_logger
from collab.transports.guard.guard import Guard
from collab.transports.sockets.counts import SocketCounts
from collab.transports.sockets.deflate import Deflater
from collab.transports.sockets.intake import Gate
from collab.transports.sockets.outbox import Pacer

_log = get_logger("connection")


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What the sockets are told by the settings; times in seconds, sizes in bytes, rates in bytes a second."""

    min_rate: float
    outbox_bytes: int
    keepalive: float
    ping: float
    auth: float
    stateless_rate: float
    hocuspocus: HocuspocusLimits


@dataclass(frozen=True, slots=True)
class Context:
    """What a connection needs of its node.

    Attributes:
        hub: the rooms.
        admission: the way into them.
        guard: decides who may come at all, and how much each may have.
        options: see ``WebSocketOptions``.
        pacer: gives large frames their turns.
        gate: how much may come in one message, and in all that are on their way.
        random: spreads what clients would else do in step.
        tasks: what runs beside the sockets.
        deflater: compresses large frames; None where nothing is compressed.
        refusals: counts who is refused the same again and again.
        limited: the log at a bounded rate.
        counts: what the sockets have brought that have ended, and what those that are open have accounted for; by the
            name of their protocol.
        numbers: names each connection of this node, whatever it speaks.
    """

    hub: Hub
    admission: Admission
    guard: Guard
    options: WebSocketOptions
    pacer: Pacer
    gate: Gate
    random: Random
    deflater: Deflater | None = None
    tasks: Tasks = field(default_factory=Tasks)
    refusals: Refusals = field(default_factory=Refusals)
    limited: RateLimited = field(default_factory=lambda: RateLimited(_log))
    counts: defaultdict[str, SocketCounts] = field(default_factory=lambda: defaultdict(SocketCounts))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def stopping(self) -> bool:
        """Whether the server drains: nothing more is taken from the sockets."""
        return self.hub.stopping

    @property
    def logs_wire(self) -> bool:
        """Whether connections that begin now log each frame."""
        return _log.isEnabledFor(logging.DEBUG)
