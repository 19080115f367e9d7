"""Documents whose rooms keep failing: they stay closed for a while, longer each time.

Strategy: a room that fails once was unlucky (memory ran out), so its members may come back at once. One that fails
again and again meets something that is in the document itself, and opening it costs everybody on this node. Operators
close documents on purpose, for a time that they say.
"""

from __future__ import annotations

from typing import NamedTuple

# So many failures within so many seconds close a document.
_FAILURES = 3
_WITHIN = 60.0

# Seconds for which it is closed then; twice as long at each failure that follows, up to the longest.
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 600.0

# Seconds after the last failure, or the last pause, in which a document counts as one that fails.
_MEMORY = 600.0


class _Record(NamedTuple):
    failures: tuple[float, ...]  # times of the last ones
    pause: float  # of the last time that it was closed; 0: never
    until: float  # when it may be opened again


class Quarantine:
    """The documents that have failed on this node; times in seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._closed: dict[str, float] = {}  # by operators, and until when

    def __len__(self) -> int:
        return len(self._records) + len(self._closed)

    def failed(self, name: str, now: float) -> float:
        """Note a failure; return for how many seconds the document is closed (0: not at all)."""
        self.forget(now)
        record = self._records.get(name, _Record((), 0.0, now))
        failures = (*record.failures, now)[-_FAILURES:]
        pause = record.pause
        if pause:
            pause = min(pause * 2, _LONGEST_PAUSE)
        elif len(failures) == _FAILURES and now - failures[0] <= _WITHIN:
            pause = _FIRST_PAUSE
        self._records[name] = _Record(failures, pause, now + pause)
        return pause

    def close(self, name: str, until: float) -> None:
        """Close a document because an operator wants it; the last time that was said counts."""
        self._closed[name] = until

    def left(self, name: str, now: float) -> float:
        """Tell for how many seconds a document stays closed."""
        return self.closed(name, now)[0]

    def closed(self, name: str, now: float) -> tuple[float, str | None]:
        """Tell for how many seconds a document stays closed, and why: "operator", "failures" or None."""
        by_operator = self._closed.get(name, now) - now
        record = self._records.get(name)
        by_failures = 0.0 if record is None else record.until - now
        if by_operator > 0 and by_operator >= by_failures:
            return by_operator, "operator"
        return (by_failures, "failures") if by_failures > 0 else (0.0, None)

    def count(self, now: float) -> int:
        """Count the documents that are closed now."""
        names = {*self._closed, *self._records}
        return sum([self.left(name, now) > 0 for name in names])

    def forgive(self, name: str) -> None:
        """Forget that a document has failed: somebody says that it is repaired."""
        self._records.pop(name, None)

    def release(self, name: str) -> None:
        """Let a document be opened again at once, whoever has closed it."""
        self.forgive(name)
        self._closed.pop(name, None)

    def forget(self, now: float) -> None:
        """Forget documents that have not failed for long, and those whose time is over."""
        self._closed = {name: until for name, until in self._closed.items() if until > now}
        for name in [name for name, record in self._records.items() if now - record.until > _MEMORY]:
            del self._records[name]
