"""The frames of one socket that wait until their address may be served."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class WaitingFrames:
    """The frames of one socket that wait until their address may be served.

    What a provider sends before it has been let in is kept in order for each address, within bounds
    for the whole socket (by default those of Hocuspocus itself).

    Args:
        max_bytes: how much may wait.

    Attributes:
        frames, nbytes: how much waits in all.
    """

    __slots__ = ("_max_bytes", "_queues", "frames", "nbytes")

    MAX_BYTES = 5 * 1024 * 1024
    MAX_FRAMES = 1_000
    MAX_ADDRESSES = 100

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._queues: dict[bytes, deque[bytes]] = {}
        self.frames = 0
        self.nbytes = 0

    @property
    def full(self) -> bool:
        """Whether more waits than a socket may have waiting."""
        return self.nbytes > self._max_bytes or self.frames > self.MAX_FRAMES

    def crowded_by(self, frame: bytes) -> bool:
        """Tell whether, with this frame, more than half of what may wait would."""
        return self.nbytes + len(frame) > self._max_bytes // 2 or self.frames >= self.MAX_FRAMES // 2

    def put(self, address: bytes, frame: bytes) -> None:
        """Let a frame wait behind the others of its address."""
        queue = self._queues.get(address)
        if queue is None:
            queue = self._queues[address] = deque()
        queue.append(frame)
        self.frames += 1
        self.nbytes += len(frame)

    def pop(self, address: bytes) -> bytes | None:
        """Remove and return the first frame of an address; None if none waits."""
        queue = self._queues.get(address)
        if queue is None:
            return None
        frame = queue.popleft()
        if not queue:
            del self._queues[address]
        self.frames -= 1
        self.nbytes -= len(frame)
        return frame

    def of(self, address: bytes) -> Iterable[bytes]:
        """Give what waits for an address, in order."""
        return self._queues.get(address, ())

    def pop_all(self, address: bytes) -> list[bytes]:
        """Remove and return all frames of an address, in order."""
        frames = list(self._queues.pop(address, ()))
        self.frames -= len(frames)
        self.nbytes -= sum(map(len, frames))
        return frames
