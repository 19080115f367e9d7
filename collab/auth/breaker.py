"""A circuit breaker: whoever does not answer is left alone for a while.

Strategy: failures in a row open it; open, it lets nothing through; after a pause it lets one question
through, and that one decides. Only silence and gateway errors count as failures (the caller says
which): an answer, even a wrong one, shows that asking costs nobody time, and if wrong answers counted,
one client with a token on which the application stumbles could shut everybody out.
"""

from __future__ import annotations

from collections.abc import Callable


class CircuitBreaker:
    """Count failures in a row and say whether to ask. Each ``permits`` that is true is followed by one of the others.

    States: closed (``_opened_at`` is None), open, and half-open, which is open after the pause.
    """

    def __init__(self, failures: int, pause: float, clock: Callable[[], float]) -> None:
        """Open after ``failures`` in a row, for ``pause`` seconds of ``clock``."""
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    def permits(self) -> bool:
        """Tell whether to ask now; when half-open, one asks for all."""
        if self._opened_at is None:
            return True
        if self._probing or self._clock() - self._opened_at < self._pause:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Note an answer: closed."""
        self._failures = 0
        self._opened_at = None
        self._probing = False

    def failed(self) -> bool:
        """Note a failure; tell whether it has just opened."""
        self._failures += 1
        if self._opened_at is None:
            if self._failures < self._limit:
                return False
            self._opened_at = self._clock()
            return True
        if self._probing:
            self._probing = False
            self._opened_at = self._clock()
        return False

    def abandoned(self) -> None:
        """Note that the question was given up before an answer: the next one may ask."""
        self._probing = False
