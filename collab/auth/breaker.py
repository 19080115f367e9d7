"""A circuit breaker: whoever does not answer is left alone for a while.

Strategy: failures in a row open it; open, it lets nothing through; after a pause it lets one question
through, and that one decides. Only silence and gateway errors count as failures (the caller says
which): an answer, even a wrong one, shows that asking costs nobody time, and if wrong answers counted,
one client with a token on which the application stumbles could shut everybody out. For the same reason
a question that was never asked is none.

A question may also be one on which the application is silent because somebody has made it so. Therefore
failures of one address alone shut out that address alone, until another one meets the same. And when it
is open for all, a client that fails cannot use up the tries of the others: besides the one try that anybody
may have after each pause, two at a time are for addresses that have not failed since it opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RESERVED_TRIES = 2
"""Tries at a time for addresses that have not failed: next to nothing for an application that is down."""

MAX_FAILED = 10_000
"""Addresses that are remembered as failed. Past it there are no tries of their own for new ones until it closes."""


@dataclass(frozen=True, slots=True)
class Try:
    """A question that may be asked; say then how it went.

    Attributes:
        address: who asks.
        number: of the opening in which it is a try; None while there is none for this address.
        reserved: it is one that is kept for those who have not failed.
    """

    address: str
    number: int | None = None
    reserved: bool = False


class CircuitBreaker:
    """Count failures in a row and say whether to ask.

    States: closed (``_opened_at`` is None), open, and half-open, which is open after the pause.
    """

    def __init__(self, failures: int, pause: float, clock: Callable[[], float]) -> None:
        """Open after ``failures`` in a row, for ``pause`` seconds of ``clock``."""
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._failed: set[str] = set()  # addresses of the failures in a row
        self._opened_at: float | None = None
        self._openings = 0
        self._tried_at = 0.0  # when the pause before the next try of anybody began
        self._probing = False
        self._reserved = 0

    @property
    def only(self) -> str | None:
        """The address that alone is shut out when it is open; None for all."""
        return next(iter(self._failed)) if len(self._failed) == 1 else None

    def refuses(self, address: str) -> bool:
        """Tell whether a question from an address is not to be asked now."""
        return self._try(address) is None

    def permit(self, address: str) -> Try | None:
        """Let a question from an address be asked now, or not; if so, tell afterwards how it went."""
        permitted = self._try(address)
        if permitted is not None and permitted.number is not None:
            if permitted.reserved:
                self._reserved += 1
            else:
                self._probing = True
        return permitted

    def _try(self, address: str) -> Try | None:
        opened_at, now = self._opened_at, self._clock()
        if opened_at is None or self.only not in (None, address):
            return Try(address)
        if now - opened_at < self._pause:
            return None
        if not self._probing and now - self._tried_at >= self._pause:
            return Try(address, self._openings)
        fresh = address not in self._failed and len(self._failed) < MAX_FAILED
        return Try(address, self._openings, True) if fresh and self._reserved < RESERVED_TRIES else None

    def succeeded(self) -> None:
        """Note an answer: closed."""
        self._failures = 0
        self._failed.clear()
        self._opened_at = None
        self._probing = False
        self._reserved = 0

    def failed(self, tried: Try) -> bool:
        """Note a failure; tell whether it has just opened, or is just open for more than one address."""
        self._failures += 1
        before = self.only
        if len(self._failed) < MAX_FAILED:
            self._failed.add(tried.address)
        if self._opened_at is None:
            if self._failures < self._limit:
                return False
            self._openings += 1
            self._opened_at = self._tried_at = self._clock()
            return True
        if self._ended(tried) and not tried.reserved:
            self._tried_at = self._clock()
        return before != self.only

    def abandoned(self, tried: Try) -> None:
        """Note that the question was given up before an answer: the next one may ask."""
        self._ended(tried)

    def _ended(self, tried: Try) -> bool:
        """Take back the place of a try; False if it was none of this opening."""
        if self._opened_at is None or tried.number != self._openings:
            return False
        if tried.reserved:
            self._reserved -= 1
        else:
            self._probing = False
        return True
