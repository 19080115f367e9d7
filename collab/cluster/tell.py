"""Tell the nodes of a cluster that the store has changed, from a process that is none of them, such as a command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

from collab.cluster.bus import Bus, BusMessage
from collab.cluster.messages import Look, encode_node_message

# Seconds for a connection beyond those of ``Bus.start``: on a busy machine what is said before it would be lost.
_CONNECT_SECONDS = 2.0
_PAUSE = 0.02


class Deaf:
    """A listener that hears nothing; what somebody wants to hear, a subclass overrides."""

    def receive(self, message: BusMessage) -> None:
        pass

    def joined(self, topic: str, node: str) -> None:
        pass

    def left(self, topic: str, node: str) -> None:
        pass

    def gone(self, node: str) -> None:
        pass

    def missed(self) -> None:
        pass


@contextlib.asynccontextmanager
async def telling(bus: Bus) -> AsyncIterator[Callable[[Iterable[str]], None]]:
    """Connect to the bus, so that nodes can be told at once, and leave it at the end.

    Gives a function that lets each node that has one of these documents open look at the store now; others have nothing
    to see. ``bus`` is started and closed here. If it cannot be reached nobody is told, and nodes look by themselves
    later.
    """

    def tell(topics: Iterable[str]) -> None:
        for topic in topics:
            bus.publish(topic, encode_node_message(Look()))

    try:
        await bus.start(Deaf())
        until = asyncio.get_running_loop().time() + _CONNECT_SECONDS
        while bus.trouble is not None and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - a bus calls nobody
            await asyncio.sleep(_PAUSE)
        yield tell
    finally:
        await bus.close()
