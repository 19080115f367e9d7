"""What a journal has done since it started."""

from __future__ import annotations

from collab.telemetry.counters import ENTRIES, Histogram, NotedHistogram


class JournalCounts:
    """The counts of one journal, each added to where it happens.

    Attributes:
        entries: entries that were committed, or refused for good.
        batches: how many of them each commit had.
        nbytes: bytes of the rows in them.
        commits: seconds of the offer to the store that was answered, for each batch.
        retries: offers to the store that have failed, after which the same batch was offered again.
        answered: seconds from the receipt of the oldest edit in a batch to the answer, with which authors are told that
            they are saved; counted for each entry of the batch, of which none has waited longer.
    """

    __slots__ = ("answered", "batches", "commits", "entries", "nbytes", "retries")

    def __init__(self) -> None:
        self.entries = self.nbytes = self.retries = 0
        self.batches = NotedHistogram(ENTRIES)
        self.commits = NotedHistogram()
        self.answered = Histogram()

    def fold(self) -> None:
        """Count what was noted."""
        self.batches.fold()
        self.commits.fold()
