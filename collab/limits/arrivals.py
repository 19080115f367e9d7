"""How much of large messages may be on its way into this process, of all sockets together.

Strategy: what has come of a message that is not whole yet lies in memory, and nobody can use it. So the bytes that
have come are counted, not those that were announced: whoever announces much and sends little takes little. Past the
bound a socket is not read on, and its bytes wait in the kernel and then with the client. The message that came first
always goes on, else many that are half there would wait for each other for ever. So the bound is passed by one message
at the most.
"""

from __future__ import annotations

from typing import Protocol


class Arrival(Protocol):
    """A message that is on its way."""

    def go_on(self) -> None:
        """Try to take again what waits; called when there may be room, and not at once taken."""
        ...


class Arrivals:
    """The large messages on their way.

    Args:
        max_bytes: how much of them may be in memory.

    Attributes:
        nbytes: how much there is.
    """

    __slots__ = ("_arriving", "_counted", "_max_bytes", "_waiting", "nbytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._counted: dict[Arrival, int] = {}
        self._arriving: dict[Arrival, None] = {}  # those that are not whole yet, the first to come first
        self._waiting: dict[Arrival, None] = {}
        self.nbytes = 0

    @property
    def short(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiting)

    def add(self, arrival: Arrival, count: int) -> bool:
        """Count ``count`` more bytes of a message; False if there is no room, and then ``go_on`` is called later."""
        if self.nbytes + count > self._max_bytes and self._counted:
            # What is whole is being worked on, and makes room soon.
            whole = len(self._counted) > len(self._arriving)
            if whole or next(iter(self._arriving)) is not arrival:
                self._waiting[arrival] = None
                return False
        self._counted[arrival] = self._counted.get(arrival, 0) + count
        self._arriving[arrival] = None
        self.nbytes += count
        return True

    def whole(self, arrival: Arrival) -> None:
        """Note that a message is there; it counts until ``remove``, when it was worked on."""
        self._arriving.pop(arrival, None)
        self._wake()

    def remove(self, arrival: Arrival) -> None:
        """Forget a message that was worked on, or given up; a second call does nothing."""
        if not self._counted:
            return  # nobody waits then
        self._waiting.pop(arrival, None)
        self._arriving.pop(arrival, None)
        self.nbytes -= self._counted.pop(arrival, 0)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for arrival in waiting:
            arrival.go_on()
