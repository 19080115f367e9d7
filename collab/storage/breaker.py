"""A circuit breaker for connections: a server that cannot be had is left alone for a moment.

Strategy: one failure opens it. While it is open, those who ask are told at once why there is no connection. When the
pause is over, one attempt is let through, and that one decides: it closes the breaker, or the pause begins again, twice
as long. A part of each pause is left to chance, so that nodes that have lost the same server do not come back to it in
step. However many clients ask, a node makes about one attempt a second then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Final

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 1.0
"""Seconds between attempts, twice as long each time. The longest one is short: it is added to what a client waits for
after the server has come back."""


class Breaker:
    """Says whether to connect; ``clock`` gives seconds, and ``random`` spreads the attempts of many nodes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, random: Random | None = None) -> None:
        self._clock = clock
        self._random = Random() if random is None else random
        self._why: str | None = None  # why it is open
        self._pause = FIRST_PAUSE
        self._until = 0.0
        self._trying = False

    def refuses(self) -> str | None:
        """Tell why not to connect now; if None, connect, and say how it went."""
        if self._why is None:
            return None
        if self._trying or self._clock() < self._until:
            return self._why
        self._trying = True
        return None

    def failed(self, why: str) -> None:
        """Note that there is no connection to be had."""
        if self._why is not None and not self._trying and self._clock() < self._until:
            return  # of an attempt that had begun before it was opened
        self._pause = FIRST_PAUSE if self._why is None else min(2 * self._pause, LONGEST_PAUSE)
        self._why = why
        self._until = self._clock() + self._pause * self._random.uniform(0.5, 1.0)
        self._trying = False

    def succeeded(self) -> None:
        """Note that there is a connection."""
        self._why = None
        self._trying = False

    def abandoned(self) -> None:
        """Note that an attempt was given up before anything was known."""
        self._trying = False
