"""The port of membership: which servers are on the storage.

Strategy: a server shows with a heartbeat that it lives, and says in it what others may want to know. Nothing depends on
it that must not be lost: a heartbeat that cannot be stored is followed by the next one.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

LOST_BEATS = 4
"""Heartbeats that a server may miss before it counts as gone: a database that is restarted costs two or three."""

FORGET_SECONDS = 3_600.0
"""After these a server that has died is forgotten; until then people can see that it was there."""


class Node(NamedTuple):
    """A server, as it has described itself with its last heartbeat.

    ``name`` is its own and new with each start; ``address`` is where it listens, for people; ``bus`` how it hears of
    others; ``settings`` a JSON object of what should be alike on all of them; ``documents`` and ``connections`` are how
    many it has open; ``period`` is in seconds, in which the next heartbeat is to come. The storage adds, by its own
    clock, ``since`` and ``beat_at``, the Unix seconds of the first heartbeat and of the last one, and ``silent``, the
    seconds since then.
    """

    name: str
    address: str
    version: str
    bus: str
    settings: str
    documents: int
    connections: int
    period: float
    since: float = 0.0
    beat_at: float = 0.0
    silent: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its next heartbeats may still come."""
        return self.silent < LOST_BEATS * self.period


class Heartbeat(NamedTuple):
    """What a server learns with its heartbeat.

    ``others`` are the other servers that have shown signs of life since its last heartbeat, those of older releases
    included, which describe themselves nowhere; ``nodes`` are all that are described, this one included.
    """

    others: int
    nodes: list[Node]


class Membership(Protocol):
    """Say which servers are on the storage.

    Errors are those of :class:`collab.storage.store.Store`.
    """

    @property
    def beat_seconds(self) -> float:
        """How often ``beat`` is to be called: rarely where there is one server only, and each call costs a write."""
        ...

    async def beat(self, node: Node) -> Heartbeat:
        """Show that this server lives, with what it says of itself, and look who else does; see ``beat_seconds``."""

    async def leave(self, name: str) -> None:
        """Forget a server that ends; harmless if it is not known."""

    async def list_nodes(self) -> list[Node]:
        """List the servers in the order in which they came.

        Those that have died are listed as well, for about an hour.
        """
