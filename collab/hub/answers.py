"""Answers that take long to make: one at a time in a room, shared by those who asked the same before it was begun.

Strategy: a document of many client IDs is opened by many at once, as any other. One that asks while an answer is being
made may have missed what was taken in meanwhile, so it is given the next one, which serves all who wait by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from collab.hub.frames import Asked
from collab.hub.long_frames import Frame


class Answered(NamedTuple):
    """A frame, and the state vector that it answers, without what the document does not know."""

    vector: bytes
    frame: Frame


class _Made(NamedTuple):
    """An answer, what was asked, and how many had asked when it was begun."""

    asked: Asked
    begun: int
    answered: Answered


class Answers:
    """The answers of one room that are being made."""

    __slots__ = ("_asked", "_lock", "_made", "_waiting")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._asked = 0
        self._waiting = 0
        self._made: _Made | None = None

    async def get(self, asked: Asked, make: Callable[[], Awaitable[Answered]]) -> Answered:
        """Return what ``make`` gives, or what it gave to another one who asked the same, if it was begun after this."""
        self._asked += 1
        number = self._asked
        self._waiting += 1
        try:
            async with self._lock:
                made = self._made
                if made is None or made.asked != asked or made.begun < number:
                    self._made = None
                    begun = self._asked
                    made = self._made = _Made(asked, begun, await make())
                return made.answered
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._made = None
