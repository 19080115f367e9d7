"""The bus of one process: nothing to tell with one node, and a real bus for several nodes in one process.

Strategy: nodes of one process meet at a ``LocalExchange``. What is published is put into the queue of each node that
has subscribed and handed over in a later turn of the loop, so that nobody is called from within their own call, as
with a bus behind a socket. A simulation of a cluster and the fast tests run on it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import NamedTuple

from collab.cluster.bus import BusCounts, BusListener, BusMessage
from collab.telemetry import RateLimited, get_logger

MAX_WAITING = 10_000
"""Messages that wait for one node; past it they are dropped, as the port allows."""


class LocalExchange:
    """Where the nodes of one process meet."""

    def __init__(self) -> None:
        self.nodes: dict[str, LocalBus] = {}
        self._numbers = itertools.count(1)

    def new_name(self) -> str:
        """Return a name that no node here has had."""
        return f"local-{next(self._numbers)}"


class Came(NamedTuple):
    """A node has subscribed to a topic that another had, or has."""

    topic: str
    node: str


class Went(NamedTuple):
    """A node has ended its subscription to a topic."""

    topic: str
    node: str


Waiting = BusMessage | Came | Went | str
"""What waits for a node; a text is the name of a node that has gone."""


class LocalBus:
    """One node's end; see ``collab.cluster.bus.Bus`` for the promise.

    Args:
        exchange: where the other nodes are; None for a node that stays alone.

    Attributes:
        counts: what this end has done.
    """

    trouble = None
    presence_seconds = 0.0
    row_bytes = 64 * 1024

    def __init__(self, exchange: LocalExchange | None = None) -> None:
        self._exchange = LocalExchange() if exchange is None else exchange
        self._node = self._exchange.new_name()
        self._topics: set[str] = set()
        self._waiting: deque[Waiting] = deque()
        self._listener: BusListener | None = None
        self._handle: asyncio.Handle | None = None
        self._limited = RateLimited(get_logger("bus"))
        self.counts = BusCounts()
        self._told = 0  # of those that were dropped

    @property
    def node(self) -> str:
        """The name of this node."""
        return self._node

    @property
    def others(self) -> int:
        """How many other nodes are at the exchange."""
        return len(self._exchange.nodes) - (self._node in self._exchange.nodes)

    @property
    def steady(self) -> bool:
        """False: it knows of its own process only, and others may write to the same store."""
        return False

    def wanted(self, topic: str) -> bool:
        """Tell whether another node at the exchange has subscribed to a topic."""
        return any(topic in other._topics for other in self._exchange.nodes.values() if other is not self)

    async def start(self, listener: BusListener) -> None:
        """Come to the exchange."""
        self._listener = listener
        self._exchange.nodes[self._node] = self
        for topic in self._topics:
            self._meet(topic)

    async def close(self) -> None:
        """Leave the exchange; the others hear of it."""
        if self._exchange.nodes.pop(self._node, None) is not None:
            for other in self._exchange.nodes.values():
                other._put(self._node)
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._listener = None

    def subscribe(self, topic: str) -> None:
        """Hear what is published on ``topic``."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._meet(topic)

    def unsubscribe(self, topic: str) -> None:
        """Hear nothing more of ``topic``."""
        if topic in self._topics:
            self._topics.discard(topic)
            if self._node in self._exchange.nodes:
                for other in self._exchange.nodes.values():
                    if other is not self and topic in other._topics:
                        other._put(Went(topic, self._node))

    def publish(self, topic: str, payload: bytes) -> None:
        """Put a message into the queues of those who have subscribed."""
        if self._node not in self._exchange.nodes:
            return
        self.counts.published += 1
        for other in self._exchange.nodes.values():
            if other is not self and topic in other._topics:
                other._put(BusMessage(topic, self._node, payload))

    def _meet(self, topic: str) -> None:
        if self._node in self._exchange.nodes:
            for other in self._exchange.nodes.values():
                if other is not self and topic in other._topics:
                    other._put(Came(topic, self._node))
                    self._put(Came(topic, other._node))

    def _put(self, what: Waiting) -> None:
        """Let what is to be told wait for the next turn of the loop."""
        if isinstance(what, BusMessage) and len(self._waiting) >= MAX_WAITING:
            self.counts.dropped += 1
            self._limited.warning("dropped", "messages of other nodes are dropped: %d wait", len(self._waiting))
            return
        self._waiting.append(what)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._handle = None
        waiting, self._waiting = self._waiting, deque()
        for what in waiting:
            if self._listener is None:
                return  # closed meanwhile
            if isinstance(what, BusMessage):
                if what.topic in self._topics:
                    self.counts.received += 1
                    self._listener.receive(what)
            elif isinstance(what, Came):
                if what.topic in self._topics:
                    self._listener.joined(what.topic, what.node)
            elif isinstance(what, Went):
                if what.topic in self._topics:
                    self._listener.left(what.topic, what.node)
            else:
                self._listener.gone(what)
        if self.counts.dropped != self._told and self._listener is not None:
            self._told = self.counts.dropped
            self._listener.missed()
