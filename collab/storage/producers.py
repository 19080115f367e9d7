"""The numbers of those who post updates, and retry: what a store keeps of them, and for how long.

Strategy: a producer counts its requests (``Producer-Seq``) within a life of its own (``Producer-Epoch``). The highest
numbers of each are kept for each document, in the transaction of the rows that came with them, so they say the truth
after any crash. They are small, bounded in number, and go when nobody has used them for a while. What is forgotten
costs nothing but an answer that says "new" instead of "repeated": an update is in its document once in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_PRODUCERS: Final = 1_000
"""Producers of one document whose numbers are kept; past that those go that were used longest ago."""

PRODUCER_SECONDS: Final = 7 * 86_400.0
"""Seconds after which the numbers of a producer that is not used any more are forgotten."""

USED_SECONDS: Final = 3_600.0
"""The time of the last use is noted when it is so much later than what is noted: it stands in an index."""


class NewProducer(NamedTuple):
    """The numbers of a producer that come with an append: higher ones, epoch first, stay whatever comes.

    ``key`` (16 bytes) is made of the producer's name by the caller and names it within its document; ``at`` is unix
    seconds. ``first`` says that nothing was known of it, so that it may be one too many.
    """

    key: bytes
    epoch: int
    seq: int
    at: float
    first: bool = False

    @property
    def numbers(self) -> tuple[int, int]:
        """What decides which of two are the higher ones."""
        return self.epoch, self.seq


class ProducerNumbers(NamedTuple):
    """The highest numbers of a producer, as kept."""

    epoch: int
    seq: int


def highest(producers: Iterable[NewProducer]) -> list[NewProducer]:
    """Give the highest numbers of each producer."""
    found: dict[bytes, NewProducer] = {}
    for producer in producers:
        before = found.get(producer.key)
        if before is None or producer.numbers > before.numbers:
            first = producer.first or (before is not None and before.first)
            found[producer.key] = producer._replace(first=first)
    return list(found.values())
