"""Who has inserted and who has deleted which clocks of a document.

Strategy: both are maps of ranges to the numbers of marks. A mark says who, with what note, and from when to when. What
one person writes without a long pause has one mark, so that hours of typing cost some bytes
(``collab.history.encoding``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from collab.history.ranges import RangeMap

PAUSE_SECONDS: Final = 300.0
"""What somebody writes after a longer pause has a mark of its own."""
LONGEST_SECONDS: Final = 3_600.0
"""So long is the time of one mark at most: who asks when something was written is told the hour."""


class Row(NamedTuple):
    """A row of the log for the history: ``data`` is a v1 update, ``at`` unix seconds, ``author`` who has sent it."""

    seq: int
    data: bytes
    at: float
    author: str | None = None
    on_behalf_of: str | None = None
    label: str | None = None


class Owner(NamedTuple):
    """Whose a client ID is from ``clock`` on (docs/decisions/0024); ``author`` None: each row says it."""

    author: str | None
    clock: int


class Who(NamedTuple):
    """Who has made an edit; ``author`` None is unknown."""

    author: str | None
    on_behalf_of: str | None = None
    label: str | None = None


UNKNOWN: Final = Who(None)


@dataclass(slots=True)
class Mark:
    """Who has made edits, and when: the first and the last of them, in unix seconds, to the second.

    It is the same object while more of them come.
    """

    who: Who
    first: int
    last: int


@dataclass(slots=True)
class Attribution:
    """Who has inserted and who has deleted what, after row ``seq``; the numbers in the maps are places in ``marks``.

    Clocks that are in none of the maps were inserted, or deleted, by rows that nobody has looked at.
    """

    seq: int = 0
    marks: list[Mark] = field(default_factory=list)
    insertions: RangeMap = field(default_factory=RangeMap)
    deletions: RangeMap = field(default_factory=RangeMap)


class Marks:
    """Gives marks to edits that come in the order of their rows.

    Args:
        marks: those that are there, to which others are added.
    """

    def __init__(self, marks: list[Mark]) -> None:
        self._marks = marks
        self._last = {mark.who: number for number, mark in enumerate(marks)}

    def number(self, who: Who, at: float) -> int:
        """Return the number of the mark for an edit; clocks of nodes differ, so the time may go back a little."""
        second = int(at)
        number = self._last.get(who)
        if number is not None:
            mark = self._marks[number]
            close = mark.first - PAUSE_SECONDS <= second <= mark.last + PAUSE_SECONDS
            if close and second - mark.first <= LONGEST_SECONDS:
                if second > mark.last:
                    mark.last = second
                elif second < mark.first:
                    mark.first = second
                return number
        number = self._last[who] = len(self._marks)
        self._marks.append(Mark(who, second, second))
        return number
