"""Large frames in portions, so that no storm of joins stops the loop.

Strategy: the kernel takes megabytes of a socket at once, about a millisecond each, and a hundred sockets
that drain at the same time would all be filled again in one turn of the loop (70 ms were measured for
150 joins of a 20 MB document). So a large frame stays with its connection and goes out portion by
portion, a bounded number of them in each turn, to whoever has taken the last one. What is written to
that socket meanwhile waits behind the frame: one frame is never torn by another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from collab.hub.line import Traffic
from collab.telemetry import RateLimited, get_logger

_limited = RateLimited(get_logger())

PORTION = 256 * 1024
_PORTIONS_A_TURN = 8

# Seconds until the next look when no socket has room: from the time in which a local peer has read a
# portion to what even a fast line needs for one.
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.02


class Paced(Protocol):
    """A connection with something to send in portions."""

    def send_portion(self) -> bool:
        """Write one portion if the last one is gone; tell whether it was written."""
        ...

    @property
    def has_portions(self) -> bool:
        """Whether portions are left."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...


class Pacer:
    """Gives connections their turns at sending portions.

    Attributes:
        traffic: counts what is sent.
    """

    def __init__(self) -> None:
        self._waiting: deque[Paced] = deque()
        self._pause = _SHORTEST_PAUSE
        self._handle: asyncio.Handle | None = None
        self.traffic = Traffic()

    def add(self, connection: Paced) -> None:
        """Give turns to ``connection`` until it has no portions left."""
        self._waiting.append(connection)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def close(self) -> None:
        """Give no more turns."""
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        self._handle = None
        written = 0
        for _ in range(len(self._waiting)):
            connection = self._waiting.popleft()
            try:
                written += connection.send_portion()
            except Exception as error:
                _limited.error("portion", "sending to a client failed", exc_info=error)
                connection.abort()  # half a frame cannot be mended, and the others must have their turns
                continue
            if connection.has_portions:
                self._waiting.append(connection)
            if written == _PORTIONS_A_TURN:
                break
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if written:
            self._pause = _SHORTEST_PAUSE
            self._handle = loop.call_soon(self._turn)
        else:
            self._handle = loop.call_later(self._pause, self._turn)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
