"""The pauses between two attempts to connect: exponential, with full jitter.

After a restart of the server all its clients come back. With full jitter (a pause anywhere between nothing and a limit
that doubles) they come evenly, and the first of them at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

_MAX_DOUBLINGS: Final = 30


@dataclass
class Backoff:
    """Pauses in seconds.

    Args:
        first: the limit of the first pause.
        last: the limit that no pause passes.
        random: gives numbers; tests hand in one with a seed.
    """

    first: float = 0.5
    last: float = 30.0
    random: random.Random = field(default_factory=random.Random)
    _attempts: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last:
            raise ValueError("a back-off has a first limit above 0, and a last one that is not smaller")

    @property
    def attempts(self) -> int:
        """How many pauses were given since the last `reset`."""
        return self._attempts

    def next(self) -> float:
        """Return the next pause."""
        limit = min(self.last, self.first * 2 ** min(self._attempts, _MAX_DOUBLINGS))
        self._attempts += 1
        return self.random.uniform(0.0, limit)

    def reset(self) -> None:
        """Begin with short pauses again: it has worked."""
        self._attempts = 0
