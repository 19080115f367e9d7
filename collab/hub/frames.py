"""Finished answers that several members may ask for: kept for a storm of joins, and never for long.

Strategy: whoever opens a document for the first time asks the same, so a storm of them should cost one frame. But a
client can ask for as many different ones as it likes, each as large as the document. So what is kept is bounded for
each room and for the node, and what was made longest ago goes first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collab.engine.budget import Budget
from collab.hub.long_frames import Frame, held_by
from collab.hub.member import Encoder

ROOM_BYTES: Final = 32 * 1024 * 1024
NODE_BYTES: Final = 128 * 1024 * 1024
"""Bytes of frames, and of what was asked, that are kept for one room and for all. One frame larger than that is kept
alone, until the next. A long frame counts without what it shares with its document."""


class Asked(NamedTuple):
    """What a frame answers: all that ``state_vector`` lacks, as a SyncStep2 if ``asks``, for members of one kind."""

    encoder: Encoder
    state_vector: bytes
    asks: bool


class Frames:
    """The frames that are kept of one room, all of one state of its document.

    Args:
        budget: what the rooms of this node keep together.
    """

    __slots__ = ("_budget", "_frames", "_nbytes", "_used", "_version")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._frames: dict[Asked, Frame] = {}
        self._nbytes = 0
        self._used = False
        self._version = -1

    def get(self, asked: Asked, version: int) -> Frame | None:
        """Return the frame if it is kept, of the document's state ``version``; frames of another one are forgotten."""
        if self._version != version:
            self.clear()
            self._version = version
        self._used = True
        return self._frames.get(asked)

    def keep(self, asked: Asked, frame: Frame) -> None:
        """Keep a frame of the state that was asked for last."""
        self._frames[asked] = frame
        self._count(_size(asked, frame))
        for old in list(self._frames):
            if old is asked or (self._nbytes <= ROOM_BYTES and self._budget.nbytes <= self._budget.limit):
                break
            self._count(-_size(old, self._frames.pop(old)))

    def clear_unused(self) -> None:
        """Forget everything if nothing was asked for since the last call."""
        if not self._used:
            self.clear()
        self._used = False

    def clear(self) -> None:
        """Forget everything."""
        self._count(-self._nbytes)
        self._frames = {}

    def _count(self, nbytes: int) -> None:
        self._nbytes += nbytes
        self._budget.nbytes += nbytes


def _size(asked: Asked, frame: Frame) -> int:
    return len(asked.state_vector) + held_by(frame)
