"""Sockets that are read only when it is their turn: those of tenants that are ahead of the others.

Strategy: the loop reads every socket on which something has come, in one go, however many there are: 150 clients that
type at the same time are 5 ms in which nobody else is heard. So a socket whose tenant is ahead is taken off the loop
after each read. It waits in an epoll of its own. The loop watches that one for all of them, and ``OPENED`` of those on
which something has come are read in each turn of the loop, one after the other.

Where there is no epoll (it is Linux's), and for sockets whose bytes are not those of the client (TLS), nobody is
parked: they are read as they come, and then wait in the row of their tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Final

OPENED: Final = 3
"""Sockets that are read in one turn of the loop: 0.1 ms, and as long again for one message of each."""

_Call = Callable[[], object]


class Parking:
    """The sockets of a node that are parked."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._poll: select.epoll | None = None
        self._watching: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def park(self, fd: int, call: _Call) -> bool:
        """Call once when something has come on a socket, and it is its turn; False if that cannot be watched."""
        if self._poll is None:
            if not hasattr(select, "epoll"):
                return False
            self._poll = select.epoll()
        events = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
        try:
            try:
                self._poll.modify(fd, events)
            except FileNotFoundError:
                self._poll.register(fd, events)
        except OSError:
            return False
        self._calls[fd] = call
        if self._watching is None:
            self._watching = asyncio.get_running_loop()
            self._watching.add_reader(self._poll.fileno(), self._open)
        return True

    def leave(self, fd: int, call: _Call) -> None:
        """Call no more; harmless if another socket has got the number meanwhile."""
        if self._calls.get(fd) != call:
            return
        del self._calls[fd]
        if self._poll is not None:
            with contextlib.suppress(OSError):  # it is closed already, and was forgotten with that
                self._poll.unregister(fd)
        self._rest()

    def _open(self) -> None:
        assert self._poll is not None
        for fd, _ in self._poll.poll(0, OPENED):
            call = self._calls.pop(fd, None)
            if call is not None:
                call()
        self._rest()

    def _rest(self) -> None:
        """Watch nothing while nobody is parked."""
        if not self._calls and self._watching is not None and self._poll is not None:
            self._watching.remove_reader(self._poll.fileno())
            self._watching = None
