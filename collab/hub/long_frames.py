"""Frames that are put together only while they leave."""

from __future__ import annotations

from typing import Final

from collab.update.parts import Cursor, Parts

LONG: Final = 256 * 1024
"""Bytes of an update above which its frame is not put together before it leaves."""


class LongFrame:
    """A frame of one long update: what stands before the update, and its parts.

    The parts are those of the document and are not copied, so a frame that nobody reads costs next to nothing. All
    who get the same can share one; each reads it with a cursor of its own.

    Attributes:
        head: what stands before the update, finished bytes.
        parts: the update.
    """

    __slots__ = ("head", "parts")

    def __init__(self, head: bytes, parts: Parts) -> None:
        self.head = head
        self.parts = parts

    def __len__(self) -> int:
        return len(self.head) + self.parts.nbytes

    @property
    def held(self) -> int:
        """How many bytes it takes, without what the document has too."""
        return len(self.head) + self.parts.held

    def cursor(self) -> Cursor:
        """Begin to read it."""
        return Cursor(self.parts, self.head)


Frame = bytes | LongFrame
"""What is written to a client for one message, framing included."""


def held_by(frame: Frame) -> int:
    """Return how many bytes of memory a frame takes, without what it shares with its document."""
    return len(frame) if isinstance(frame, bytes) else frame.held
