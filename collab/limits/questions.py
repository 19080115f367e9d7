"""How many questions about access one sender may have under way, and what wrong tokens cost it.

Strategy: a token is right or wrong only after it was looked at, and many people may be behind one address. So nobody
pays before the answer for what others of the address have sent: a wrong token makes its *refusal* late, and a right one
is answered at once. A socket is one sender, so its wrong tokens delay its next questions. Both begin after some that
are free, grow with each wrong token, stay bounded, and are forgotten with time.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

AT_A_TIME = 8
"""Questions of one socket under way at a time; the others of its documents wait for these."""

MAX_UNANSWERED = 16
"""Documents for which a socket that was let in to none may have asked; it is not read on until one was answered. It
costs nobody time who is let in: the next questions of the socket would only wait."""

MAX_LATE = 1_000
"""Refusals of the whole node that are late at a time; past it they are said at once, for each holds a socket."""

FIRST_WAIT = 0.25
LONGEST_WAIT = 5.0
"""Seconds that the first wrong token costs that is not free, and that one costs at most."""

FREE = 20
FORGIVEN = 0.2
DOUBLED = 1.0
"""Of one socket: wrong tokens that are free, that are forgotten each second, and after which the wait is doubled. A
person may mistype, and a page may ask too early."""

FREE_OF_ADDRESS = 50
FORGIVEN_OF_ADDRESS = 2.0
DOUBLED_OF_ADDRESS = 10.0
"""The same of one address, behind which there may be a company whose sign-ins have run out over night."""

_DOUBLINGS = math.ceil(math.log2(LONGEST_WAIT / FIRST_WAIT))

_AGAIN = 0.1
"""What the same token counts when it is wrong for another document of the same socket: a sign-in that has run out is
shown for each document of a page, which may have 190."""

_REMEMBERED = 16
"""Wrong tokens of one socket that are remembered, by their hashes."""


class WrongTokens:
    """The wrong tokens of one sender, and the seconds that they cost it.

    Args:
        free: how many cost nothing.
        forgiven: how many are forgotten each second.
        doubled: after how many more the wait is twice as long.
        now: the time in seconds.
    """

    __slots__ = ("_at", "_count", "_doubled", "_forgiven", "_free", "_until")

    def __init__(self, free: float, forgiven: float, doubled: float, now: float) -> None:
        self._free = free
        self._forgiven = forgiven
        self._doubled = doubled
        self._count = 0.0
        self._at = self._until = now

    def count(self, now: float, weight: float = 1.0) -> float:
        """Count one more; return the seconds that its sender is to wait."""
        # No more are remembered than make the longest wait, so that they are forgotten in bounded time.
        most = self._free + self._doubled * _DOUBLINGS + 1.0
        count = max(0.0, self._count - (now - self._at) * self._forgiven) + weight
        self._count, self._at = min(count, most), now
        if self._count <= self._free:
            return 0.0
        doublings = max(0.0, (self._count - self._free - 1.0) / self._doubled)
        seconds = min(LONGEST_WAIT, FIRST_WAIT * math.exp2(doublings))
        self._until = now + seconds
        return seconds

    def owed(self, now: float) -> float:
        """Return the seconds that are left of the last wait."""
        return max(0.0, self._until - now)


def wrong_tokens_of_address(now: float) -> WrongTokens:
    """Return what counts the wrong tokens of an address."""
    return WrongTokens(FREE_OF_ADDRESS, FORGIVEN_OF_ADDRESS, DOUBLED_OF_ADDRESS, now)


class Questions:
    """What one socket asks."""

    __slots__ = ("_refused", "_turns", "_under_way", "_wrong")

    def __init__(self) -> None:
        self._under_way = 0
        # Most sockets never need any of these, and an empty queue has 600 bytes.
        self._turns: deque[asyncio.Future[None]] | None = None
        self._wrong: WrongTokens | None = None
        self._refused: dict[int, None] | None = None

    async def begin(self) -> None:
        """Wait until one more question may be asked, and for what is owed for wrong tokens; ``end`` is to follow."""
        if self._under_way < AT_A_TIME:
            self._under_way += 1
        else:
            await self._turn()
        now = asyncio.get_running_loop().time()
        if self._wrong is not None and (owed := self._wrong.owed(now)):
            try:
                await asyncio.sleep(owed)
            except BaseException:
                self.end()
                raise

    def end(self) -> None:
        """Let the next question be asked."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._turns = None
        self._under_way -= 1

    def count_wrong(self, token: str, now: float) -> None:
        """Note that a token was refused, or that its sender did not wait for the answer."""
        if self._wrong is None or self._refused is None:
            self._wrong, self._refused = WrongTokens(FREE, FORGIVEN, DOUBLED, now), {}
        key = hash(token)
        known = key in self._refused
        self._wrong.count(now, _AGAIN if known else 1.0)
        self._refused.pop(key, None)
        self._refused[key] = None  # behind the others
        if len(self._refused) > _REMEMBERED:
            del self._refused[next(iter(self._refused))]

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._turns is None:
            self._turns = deque()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.end()  # its turn had come in the same moment
            raise
