"""What webhooks of this node have done, and how its receivers stand: plain numbers, which metrics read."""

from __future__ import annotations

from collections import Counter

from collab.storage.webhooks import ReceiverState

OUTCOMES = ("delivered", "refused", "unanswered")
"""What can become of an attempt: taken, answered with something else than 2xx, or not answered."""


class WebhookCounts:
    """Numbers of one node.

    Attributes:
        attempts: by outcome.
        given_up: deliveries that were too old.
        dropped: events that were not written, because too many waited.
        delivering: whether this node is the one that delivers.
        states: how receivers stood when this node last looked; none while another node delivers.
        seen_at: when that was, in Unix seconds.
    """

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.given_up = 0
        self.dropped = 0
        self.delivering = False
        self.states: list[ReceiverState] = []
        self.seen_at = 0.0

    @property
    def pending(self) -> int:
        """Deliveries that wait, of all receivers."""
        return sum([state.pending for state in self.states])

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest of them had waited when this node last looked."""
        oldest = [self.seen_at - state.oldest_at for state in self.states if state.oldest_at is not None]
        return max([0.0, *oldest])

    @property
    def disabled(self) -> int:
        """Receivers that are disabled."""
        return sum([state.disabled_at is not None for state in self.states])
