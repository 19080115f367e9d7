"""Live readers of a document's streams: what they stand in, and what operators may know and do of them.

Strategy: a reader pulls. It holds a cursor, which is a position and no queue, so one that is slow costs nothing while
it is slow. Only a reader that is level is told at once: all of those are handed the same batch, in the step in which it
comes, and write its bytes. One that cannot take it reads on by its cursor later.

A reader is no session: it asks nothing, shows nothing and sends nothing. But it is a connection, so it is in the lists
of connections, counts in their bounds, and can be kicked or asked about again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from collab.auth.access import Grant
from collab.errors import AccessDenied, AccessExpired, AccessUnavailable, CollabError
from collab.hub.member import Checked, ConnectionFacts
from collab.protocol.session import Access, State
from collab.protocol.streams import Batch
from collab.telemetry import RateLimited, get_logger

_limited = RateLimited(get_logger("streams"))


class Sink(Protocol):
    """A reader that waits at the end of a stream."""

    def push(self, batch: Batch) -> bool:
        """Take what has come, without waiting; False if it cannot now, and will read it by its cursor."""
        ...

    def wake(self) -> None:
        """Hear that the cursor is not at the end any more, and is to be read."""
        ...


class Cursor(Protocol):
    """Where a reader stands in a stream; one for each reader.

    ``read`` and ``attach`` take turns: a reader reads until a batch is ``up_to_date``, attaches itself, and detaches
    itself before it reads again.
    """

    async def read(self) -> Batch:
        """Give what follows on the position, in portions, and move on; an empty batch at the end.

        Raises:
            CollabError: it cannot be read, now or for ever.
        """
        ...

    def attach(self, sink: Sink) -> bool:
        """Hand what comes from now on to ``sink``, which moves the position on; False if there is more to be read."""
        ...

    def detach(self) -> None:
        """Hand it nothing more; a second call does nothing."""
        ...


class LevelReaders:
    """The readers of one stream that are level: all are handed one batch, and one that fails costs none of the others.

    A reader that cannot take a batch is not level any more, and attaches itself again when it is.
    """

    __slots__ = ("_sinks",)

    def __init__(self) -> None:
        self._sinks: dict[Sink, None] = {}

    def __bool__(self) -> bool:
        return bool(self._sinks)

    def attach(self, sink: Sink) -> None:
        """Hand it what comes."""
        self._sinks[sink] = None

    def detach(self, sink: Sink) -> None:
        """Hand it nothing more; a second call does nothing."""
        self._sinks.pop(sink, None)

    def push(self, batch: Batch) -> None:
        """Hand a batch to all of them."""
        for sink in list(self._sinks):
            try:
                taken = sink.push(batch)
            except Exception as error:
                _limited.error("write", "a reader could not be told what came", exc_info=error)
                taken = False
                sink.wake()
            if not taken:
                self._sinks.pop(sink, None)

    def wake(self) -> None:
        """Let all of them find out that the end of the stream is not where it was; none is level any more."""
        sinks, self._sinks = self._sinks, {}
        for sink in sinks:
            sink.wake()


class Reader:
    """One live reader of a document, for as long as its request lasts.

    Attributes:
        number: names it in the log of this node, among the numbers of sockets.
        document_name: what it reads.
        address: of its client.
        author: whose token it has shown; None where nobody has said.
        access: what it may do with the document; READ is enough.
        opened_at: when it began, in the loop's seconds.
        state: LIVE, LAGGING while it reads on, or CLOSED.
        ended: why it is over; None while it is not.
        waiting: gives the bytes that wait for it in this process.
    """

    __slots__ = (
        "__weakref__",
        "_asks",
        "_changed",
        "_wakes",
        "access",
        "address",
        "author",
        "document_name",
        "ended",
        "number",
        "opened_at",
        "state",
        "waiting",
    )

    protocol_name = "streams"

    def __init__(
        self, number: int, document_name: str, address: str, grant: Grant, asks: Callable[[], Awaitable[Grant]]
    ) -> None:
        self.number = number
        self.document_name = document_name
        self.address = address
        self.author = grant.user
        self.access: Access = grant.access
        self.opened_at = asyncio.get_running_loop().time()
        self.state = State.LIVE
        self.ended: CollabError | ConnectionError | None = None
        self.waiting: Callable[[], int] = _nothing
        self._asks = asks
        self._wakes: Callable[[], None] = _done
        self._changed: Callable[[Grant], None] = _ignored

    def on_end(self, wakes: Callable[[], None]) -> None:
        """Call ``wakes`` when it is over."""
        self._wakes = wakes

    def on_grant(self, changed: Callable[[Grant], None]) -> None:
        """Call ``changed`` with what it is granted, when that was asked about again."""
        self._changed = changed

    def end(self, error: CollabError | ConnectionError) -> None:
        """End it; a second call does nothing. Its client comes back, and is answered what is so then."""
        if self.ended is None:
            self.ended = error
            self.state = State.CLOSED
            self._wakes()

    def expired(self) -> None:
        """End it because what was granted has run out."""
        self.end(AccessExpired("the access ran out while a stream was read"))

    def facts(self) -> ConnectionFacts:
        """Say what operators may know of it."""
        members = [] if self.state is State.CLOSED else [(self.document_name, self)]
        return ConnectionFacts(self.number, self.protocol_name, self.address, self.opened_at, self.waiting(), members)

    async def check_access(self) -> Checked:
        """Ask again what it may do, with the token that it has shown."""
        try:
            grant = await self._asks()
        except (AccessDenied, AccessExpired) as error:
            self.end(error)
            return Checked.ENDED
        except AccessUnavailable:
            return Checked.UNDECIDED
        except CollabError as error:  # kept out, or not yet
            self.end(error)
            return Checked.ENDED
        if self.state is State.CLOSED:
            return Checked.ENDED
        changed = (grant.access, grant.user) != (self.access, self.author)
        self.access, self.author = grant.access, grant.user
        self._changed(grant)
        return Checked.CHANGED if changed else Checked.SAME


def _nothing() -> int:
    return 0


def _done() -> None:
    return None


def _ignored(grant: Grant) -> None:
    return None
