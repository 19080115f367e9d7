"""Fair shares of the loop: tenants that use more of it than their part wait for the others.

Strategy: what the messages and the turns of a tenant cost is charged to its ``Share``, and fades within a second or
so. While tenants give the loop something to do, those that have used more than an equal part of that are *ahead*; all
with connections here count, whether or not they do anything now. In one turn of the loop a tenant that is ahead gets a
tenth of a millisecond for the messages that come. Then its sockets are not read; they wait in a row, and as many as fit
into such a time are taken in each turn of the loop. The turns of its rooms end behind those of the others, for as long.
While there is such a tenant, the first edit of the others after quiet ends the turn of its room at once. So a storm
makes its own messages late, and nothing is lost. On a loop that has little to do, or that one tenant has for itself,
nobody waits.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

MESSAGES_SECONDS: Final = 0.000_1
TURNS_SECONDS: Final = 0.000_1
"""What a tenant that is ahead gets in one turn of the loop."""

# Seconds in which what was used fades to a third, and between two looks at who is ahead.
_FADE: Final = 1.0
_LOOK: Final = 0.05

# The part of the loop's time from which on it counts as busy, and below which what somebody has used is forgotten. The
# loop takes about as long again for what is charged to nobody: reading sockets, and the kernel.
_BUSY: Final = 0.05
_LEAST: Final = 0.000_1


class Place:
    """A place in the row of those that wait for a tenant's share; ``cancel`` it to be called no more."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Give the place up."""
        self.call = None


class Share:
    """What one tenant has used of the loop's time lately.

    Attributes:
        seconds: how much that is, as it was at the last look or charge.
        connections: how many its tenant has open here.
        ahead: whether it has used more than its part, so that it waits for the others.
        spent, spent_on_turns: what it has used of this turn of the loop while it was ahead, for messages that came and
            for turns of its rooms.
    """

    __slots__ = ("_at", "_row", "_shares", "ahead", "connections", "seconds", "spent", "spent_on_turns")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._at = 0.0
        self._row: deque[Place] = deque()
        self.seconds = self.spent = self.spent_on_turns = 0.0
        self.connections = 0
        self.ahead = False

    @property
    def waits(self) -> bool:
        """Whether its messages wait for the next turn of the loop, or behind others of its own."""
        return self.ahead and (self.spent > MESSAGES_SECONDS or bool(self._row))

    @property
    def first(self) -> bool:
        """Whether its edits need not wait for the end of the loop's turn: others are ahead, and it is not."""
        return self._shares.crowded and not self.ahead

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._row)

    def wait(self, call: Callable[[], object]) -> Place:
        """Call back when what waits has its turn; it raises nothing, and charges what it does."""
        place = Place(call)
        self._row.append(place)
        self._shares.plan()
        return place

    def charge(self, seconds: float, now: float) -> None:
        """Add what a message of it has cost; ``now`` is of ``perf_counter``."""
        self.spent += seconds
        self._add(seconds, now)

    def charge_turn(self, seconds: float, now: float) -> None:
        """Add what the turn of a room of it has cost."""
        self.spent_on_turns += seconds
        self._add(seconds, now)

    def _add(self, seconds: float, now: float) -> None:
        self.fade(now)
        self.seconds += seconds
        self._shares.charged(self, now)

    def begin_turn(self) -> None:
        """Note that a turn of the loop begins."""
        self.spent = self.spent_on_turns = 0.0

    def serve(self) -> bool:
        """Call back as many as fit into a turn of the loop; tell whether others still wait."""
        row = self._row
        until = perf_counter() + MESSAGES_SECONDS
        for _ in range(len(row)):  # who waits again meanwhile has had its turn
            # Not by what is charged: to read what has come takes as long again.
            if perf_counter() > until:
                break
            call = row.popleft().call
            if call is not None:
                call()
        return bool(row)

    def count(self, connections: int) -> None:
        """Note how many connections its tenant has open now."""
        self._shares.present += (connections > 0) - (self.connections > 0)
        self.connections = connections

    def fade(self, now: float) -> None:
        """Forget a part of what was used before."""
        if now > self._at:
            self.seconds *= math.exp((self._at - now) / _FADE)
            self._at = now


class Shares:
    """The shares of all tenants on this node.

    Attributes:
        present: how many of them have connections.
        crowded: whether any of them was ahead when somebody looked last.
    """

    def __init__(self) -> None:
        self.present = 0
        self.crowded = False
        self._active: dict[Share, None] = {}
        self._next_look = 0.0
        self._planned = False

    def share(self) -> Share:
        """Make a share, of which nothing is used."""
        return Share(self)

    def charged(self, share: Share, now: float) -> None:
        """Go on after something was charged."""
        self._active[share] = None
        if now >= self._next_look:
            self._look(now)
        if share.ahead:
            self.plan()

    def plan(self) -> None:
        """Begin anew with the next turn of the loop."""
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._new_turn)

    def _new_turn(self) -> None:
        self._planned = False
        left = False
        for share in list(self._active):
            share.begin_turn()
            left = share.serve() or left
        if left:
            self.plan()

    def _look(self, now: float) -> None:
        """Find those that are ahead."""
        self._next_look = now + _LOOK
        total = 0.0
        for share in list(self._active):
            share.fade(now)
            if share.seconds < _LEAST and not share.waiting:
                del self._active[share]
                share.ahead = False
            total += share.seconds
        tenants = max(self.present, len(self._active))
        contended = tenants > 1 and total > _BUSY * _FADE
        fair = total / max(1, tenants)
        self.crowded = False
        for share in self._active:
            if contended and share.seconds > fair:
                if not share.ahead:
                    share.begin_turn()  # what it has used before it had to wait does not count
                share.ahead = self.crowded = True
            else:
                share.ahead = False
