"""How often something may happen: a token bucket.

Strategy: one small object for each thing that is limited, asked with the loop's time, so that it needs
no task and no clock of its own.
"""

from __future__ import annotations


class TokenBucket:
    """``rate`` things a second in the long run, ``burst`` at once.

    Args:
        rate: tokens that come back each second; more than 0.
        burst: tokens that the bucket holds when it is full, which it is at first.
        now: the time in seconds.
    """

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = now

    def take(self, now: float, count: float = 1.0) -> float:
        """Take ``count`` tokens, on credit if need be; return the seconds until the debt is paid, 0 without one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate) - count
        self._filled_at = now
        return 0.0 if self._tokens >= 0 else -self._tokens / self._rate
