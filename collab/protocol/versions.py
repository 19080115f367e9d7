"""What Y-Sweet's client asks about its own edits, and what it may be told.

Strategy: that client counts its edits, and asks after each, and when it has heard nothing for two seconds, whether all
up to a number are saved (``messages.LocalVersion``). The number is sent back to it when everything that had come before
the question is durable. Two things stand in the way of that. Edits that were made offline come behind the first
question, in the answer to the server's SyncStep1, so a question waits while such an answer is to come. And a client
that hears nothing for three seconds after a question takes the server for dead, once it has had an answer. So one that
asks the same again is told the last number that was saved, which it knows already.
"""

from __future__ import annotations

# Answers to one client that may wait for commits: while the store is away it may ask any number of questions.
_MAX_UNDER_WAY = 16


class Versions:
    """The questions and answers of one session.

    Attributes:
        unsaved: something of the client was not taken, so no version is saved any more.
    """

    __slots__ = ("_asked", "_told", "_under_way", "_waits", "unsaved")

    def __init__(self) -> None:
        self._asked = self._told = -1
        self._under_way = 0
        self._waits = False  # the last question is not on its way to an answer
        self.unsaved = False

    def ask(self, version: int) -> int | None:
        """Take a question; return what is told at once, None for nothing. Call ``confirm`` then."""
        if version != self._asked:
            self._waits = self._under_way < _MAX_UNDER_WAY
            self._asked = version if self._waits else -1  # then it asks again
            if self._waits:
                return None
        # Before its first answer a client waits for as long as it takes.
        return None if self._told < 0 else self._told

    def confirm(self, *, whole: bool) -> int | None:
        """Return the version that is to be told once what was taken until now is durable; None if there is none now.

        ``whole`` says that the client owes no answer to a SyncStep1. What was returned is to be given to ``settle``.
        """
        if not self._waits or not whole or self.unsaved:
            return None
        self._waits = False
        self._under_way += 1
        return self._asked

    def settle(self, version: int, *, told: bool) -> None:
        """Note what became of a version: its client is told now, or cannot be, and asks again."""
        self._under_way -= 1
        if told:
            self._told = max(self._told, version)
        else:
            self._asked, self._waits = -1, False
