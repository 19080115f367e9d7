"""Work that takes long, done on the loop in slices: whoever has used least of the time goes first.

Strategy: a slice is about a millisecond, and in one turn of the loop there is one slice, however many have work to be
done. So those that send small messages wait for one slice, not for all that others have asked for. What each
client's messages have cost is counted (`Usage`): it waits that much longer for its turn, up to a second, when others
wait too. Nobody waits on a node that has nothing else to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from time import perf_counter
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from collab.hub.shares import Share

# What is forgiven of a client's time, a second in each second, and what it may have used before it waits for its turn
# with small messages too: a tenth of the time, and a paste.
_FORGIVEN: Final = 0.1
FREE: Final = 0.05
# Seconds that somebody waits for its turn at the most because of what it has used.
_LONGEST: Final = 1.0

# Seconds of work of a look at many things after which the loop gets its turn.
_PAUSED: Final = 0.002

Result = TypeVar("Result")


class Pauses:
    """Lets the loop go on when a look at many things has taken so much in one go; ``now`` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()

    async def if_due(self) -> None:
        """Give the loop its turn if it should have it."""
        if self._now() - self._began > _PAUSED:
            await asyncio.sleep(0)
            self._began = self._now()


class Usage:
    """What one client's messages have cost of this process' time.

    Attributes:
        seconds: how much that is, less what was forgiven by the time of the last charge.
        share: that of the tenant whom the last message concerned; None where nobody counts by tenants.
    """

    __slots__ = ("_charged_at", "seconds", "share")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.share: Share | None = None
        self._charged_at = 0.0

    def charge(self, seconds: float, now: float) -> None:
        """Add what a message has cost; ``now`` is of ``perf_counter``."""
        left = self.seconds - (now - self._charged_at) * _FORGIVEN
        self.seconds = left + seconds if left > 0.0 else seconds
        self._charged_at = now
        share = self.share
        if share is not None and seconds:
            share.charge(seconds, now)

    @property
    def heavy(self) -> bool:
        """Whether the client has used so much that it waits for its turn with every message."""
        if self.seconds <= FREE:
            return False
        self.charge(0.0, perf_counter())
        return self.seconds > FREE


class _Queue:
    """Those that wait for their turn on one loop.

    Attributes:
        working: how many have work that is not done.
    """

    __slots__ = ("_loop", "_numbers", "_planned", "_waiting", "working")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = 0
        self._planned = False
        self.working = 0

    async def turn(self, usage: Usage) -> None:
        """Wait for the turn of a client that has used so much."""
        now = perf_counter()
        usage.charge(0.0, now)
        turn = self._loop.create_future()
        self._numbers += 1
        used = usage.seconds if usage.share is None or not usage.share.ahead else usage.seconds + usage.share.seconds
        heappush(self._waiting, (now + min(used, _LONGEST), self._numbers, turn))
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        self._planned = False
        while self._waiting:
            turn = heappop(self._waiting)[2]
            if not turn.done():  # its task was cancelled
                turn.set_result(None)
                break
        if self._waiting:
            self._planned = True
            self._loop.call_soon(self._next)


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()


def _queue() -> _Queue:
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop)
    if queue is None:
        queue = _queues[loop] = _Queue(loop)
    return queue


async def own_turn(usage: Usage) -> None:
    """Wait for the turn of a client whose messages have cost so much."""
    await _queue().turn(usage)


def apart(work: Generator[None, None, Result]) -> Generator[None, None, Result]:
    """Return the same work with a pause before it: its first slice does not add to the last one of other work."""
    yield
    return (yield from work)


async def in_slices(work: Generator[None, None, Result], usage: Usage | None = None) -> Result:
    """Run a generator that yields about every millisecond to its end, letting the loop go on in between.

    Args:
        work: the generator.
        usage: what it costs is added there; without it, the work stands for itself.
    """
    queue = _queue()
    usage = Usage() if usage is None else usage
    queue.working += 1
    try:
        if queue.working > 1 or usage.heavy:
            await queue.turn(usage)
        while True:
            began = perf_counter()
            try:
                next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                now = perf_counter()
                usage.charge(now - began, now)
            if queue.working > 1:
                await queue.turn(usage)
            else:
                await asyncio.sleep(0)
    finally:
        queue.working -= 1
