"""How long a client that is refused for good waits to hear so.

Strategy: y-websocket 3.0 knows no close code that means "never again" and comes back 100 ms after each
socket that was open at all, for ever, from every tab. So whoever asks the same again and again is told
more and more slowly, which costs nobody anything who is let in or asks something else.
"""

from __future__ import annotations

from collections import OrderedDict

# A person who mistypes a token hears at once; the third refusal in a row is the first to wait.
_FREE = 2
_FIRST = 0.5
_LONGEST = 5.0

# Seconds after which a question is as good as new, and how many are remembered.
_FORGET = 60.0
_QUESTIONS = 10_000


class Refusals:
    """Counts refusals by who asks for what."""

    def __init__(self) -> None:
        self._of: OrderedDict[int, tuple[int, float]] = OrderedDict()

    def count(self, peer: str, question: str, now: float) -> float:
        """Count one refusal and return the seconds that the client is to wait for it.

        Args:
            peer: the client's address.
            question: what it has asked for, token included; only its hash is kept.
            now: the time in seconds.
        """
        key = hash((peer, question))
        count, last = self._of.pop(key, (0, now))
        count = 1 if now - last > _FORGET else count + 1
        self._of[key] = count, now
        if len(self._of) > _QUESTIONS:
            self._of.popitem(last=False)
        if count <= _FREE:
            return 0.0
        return min(_FIRST * 2.0 ** min(count - _FREE - 1, 30), _LONGEST)
