"""The port of the bus: how the nodes of one cluster tell each other where to look.

Strategy: **the bus never proves anything.** A node that hears "row 17 was written" reads the log, unless the row itself
came along and follows on what it holds; a node that hears nothing finds the row a little later by looking at the log.
So a message that is lost, repeated or late costs latency and never data, and an adapter may drop messages rather than
wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class BusMessage(NamedTuple):
    """What a node hears: ``payload`` was published on ``topic`` by the node ``sender``."""

    topic: str
    sender: str
    payload: bytes


@dataclass(slots=True)
class BusCounts:
    """What one end of a bus has done.

    Attributes:
        published, received: messages of this node, and of others for it.
        dropped: messages that were not sent, or not handed over, because too much waited.
        damaged: what came and could not be read.
        holes: how often something of another node was found to be missing.
        reconnects: how often the connection came back.
    """

    published: int = 0
    received: int = 0
    dropped: int = 0
    damaged: int = 0
    holes: int = 0
    reconnects: int = 0


class BusListener(Protocol):
    """What a bus calls back: on the loop that called ``start``, never from within a call to the bus.

    Each call must be short and must not raise.
    """

    def receive(self, message: BusMessage) -> None:
        """Take a message of another node."""
        ...

    def joined(self, topic: str, node: str) -> None:
        """Tell a node what it has to know of a topic, to which both have subscribed.

        Called when it has subscribed, when this node has while the other had already, and again whenever either of
        them may have missed something that the other has said.
        """
        ...

    def left(self, topic: str, node: str) -> None:
        """Forget what a node has told of a topic, to which it has not subscribed any more.

        What it has said at the end may have been lost. Called again, or for one that was never there, it means no more.
        """
        ...

    def gone(self, node: str) -> None:
        """Forget a node: it has left, or nothing was heard of it for the adapter's time.

        Called once, after the last message of it. One that was only cut off may come back, and is new then.
        """
        ...

    def missed(self) -> None:
        """Look at the log: something that was published may never arrive."""
        ...


class Bus(Protocol):
    """One node's end of the bus.

    **Promise.** A message reaches each other node that has subscribed to its topic at most once, and never the node
    that has published it. Messages of one sender on one topic arrive in the order in which they were published, as long
    as its connection lives; between senders, and between topics, there is no order. Messages may be lost. An adapter
    that crosses a network finds out that it may have lost some, and calls ``missed``, within about two seconds.

    **Bounds.** ``publish``, ``subscribe`` and ``unsubscribe`` never wait and never raise for a network's sake. What
    waits to be sent is bounded; past the bound the adapter drops messages, counts them, and logs that.
    """

    @property
    def node(self) -> str:
        """The name of this node, unique in the cluster and new with each start."""
        ...

    @property
    def others(self) -> int:
        """How many other nodes are there now, as far as this one knows."""
        ...

    @property
    def steady(self) -> bool:
        """Whether what the other nodes publish arrives, or ``missed`` is called: nobody has to look at the log for it.

        False while the adapter cannot say that: it is not connected, or a node is silent.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """What is wrong now, in words that everybody may read; None while nothing is."""
        ...

    @property
    def counts(self) -> BusCounts:
        """What this end has done."""
        ...

    @property
    def row_bytes(self) -> int:
        """Bytes of rows that are worth being carried in one message; larger ones are better read from the log."""
        ...

    @property
    def presence_seconds(self) -> float:
        """Seconds in which presence is gathered before it is published: what one message costs on this bus."""
        ...

    def wanted(self, topic: str) -> bool:
        """Tell whether another node may have subscribed to a topic; if not, nobody would hear."""
        ...

    async def start(self, listener: BusListener) -> None:
        """Connect.

        Does not fail because others are down: the bus comes into being later then, by itself.
        """
        ...

    async def close(self) -> None:
        """Leave the cluster and release everything; harmless without ``start`` and when called again."""
        ...

    def subscribe(self, topic: str) -> None:
        """Hear what is published on ``topic`` from now on, or a little later; a second call changes nothing."""
        ...

    def unsubscribe(self, topic: str) -> None:
        """Hear nothing more of ``topic``; harmless when it was not subscribed to."""
        ...

    def publish(self, topic: str, payload: bytes) -> None:
        """Tell the other nodes that have subscribed to ``topic``."""
        ...
