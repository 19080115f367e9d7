"""Places for questions: so many are asked at a time, and no sender keeps the others from asking.

Strategy: a question takes a place before it is asked and gives it back with its answer. An address may hold no more
places than are free. So one that has none finds one at once, however many the others would like to have: of 32 one
address alone gets 16, ten get three each. Questions that cannot have a place wait. Each address has its turn, in it
each socket has its turn, and the questions of a socket have theirs in their order. Few may wait. When there are too
many, the address that has most of them loses one, which is told to come back later.

Waiting is no question yet: no time-out of an answer runs, and nothing of it counts for or against the one who is asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from collab.errors import AccessUnavailable

MAX_WAITING = 1_000
"""Questions that wait, of all: a second or two of an application that answers 500 to 1,000 a second."""

MAX_WAITING_PER_ADDRESS = 500
"""Of one address: half, for a server may have the clients of a whole company behind one address."""

MAX_WAITING_PER_SOCKET = 100
"""Of one socket: as many documents as it may name without any token."""

PLACES_PER_SOCKET = 8
"""That one socket holds at a time: a page of 100 documents has asked in 13 times the time of one answer."""

_TOO_MANY = "too many questions about access wait already"

_Waiting = deque["asyncio.Future[bool]"]


@dataclass(slots=True)
class _Sender:
    """What one address holds and what of it waits; by socket, None being all that comes without one."""

    held: int = 0
    waiting: int = 0
    held_by: dict[Hashable, int] = field(default_factory=dict)
    queues: OrderedDict[Hashable, _Waiting] = field(default_factory=OrderedDict)


class Place:
    """One question's place; ``release`` it when there is an answer, or none will come."""

    __slots__ = ("_address", "_places", "_socket")

    def __init__(self, places: Places, address: str, socket: Hashable) -> None:
        self._places: Places | None = places
        self._address = address
        self._socket = socket

    def release(self) -> None:
        """Give the place to the next; harmless when called again."""
        places, self._places = self._places, None
        if places is not None:
            places._give_back(self._address, self._socket)


class Places:
    """The places of one who is asked.

    Args:
        count: how many questions are asked at a time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting = 0
        self._senders: dict[str, _Sender] = {}
        self._turns: OrderedDict[str, None] = OrderedDict()  # addresses with questions that wait, the next one first
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many questions wait for a place."""
        return self._waiting

    async def take(self, address: str, socket: Hashable = None) -> Place:
        """Wait for a place.

        Args:
            address: what is counted as one address.
            socket: stands for the sender's socket; None for a request without one: all of an address are as one socket.

        Raises:
            AccessUnavailable: too many wait already, or nothing is asked any more.
        """
        if self._closed:
            raise AccessUnavailable("access is no longer decided: closing")
        sender = self._senders.get(address)
        if sender is None:
            sender = self._senders[address] = _Sender()
        try:
            # Nobody who could have a place waits, so this one overtakes nobody.
            if self._may_have(sender, socket):
                self._hold(sender, socket)
            else:
                await self._wait(sender, address, socket)
        finally:
            self._forget(sender, address)
        return Place(self, address, socket)

    def close(self) -> None:
        """Send away all who wait, and whoever comes."""
        self._closed = True
        for sender in self._senders.values():
            for queue in sender.queues.values():
                for turn in queue:
                    if not turn.done():
                        turn.set_result(False)

    def _may_have(self, sender: _Sender, socket: Hashable) -> bool:
        if sender.held >= self._free:
            return False
        return socket is None or sender.held_by.get(socket, 0) < PLACES_PER_SOCKET

    def _hold(self, sender: _Sender, socket: Hashable) -> None:
        self._free -= 1
        sender.held += 1
        sender.held_by[socket] = sender.held_by.get(socket, 0) + 1

    async def _wait(self, sender: _Sender, address: str, socket: Hashable) -> None:
        queue = sender.queues.get(socket)
        if queue is not None and socket is not None and len(queue) >= MAX_WAITING_PER_SOCKET:
            raise AccessUnavailable(f"{len(queue)} questions of one connection wait already")
        if sender.waiting >= MAX_WAITING_PER_ADDRESS:
            raise AccessUnavailable(f"{sender.waiting} questions from {address} wait already")
        if self._waiting >= MAX_WAITING:
            self._make_room(sender, address)
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        sender.queues.setdefault(socket, deque()).append(turn)
        sender.waiting += 1
        self._waiting += 1
        self._turns.setdefault(address)
        try:
            got = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(sender, address, socket, turn)
            elif turn.result():
                self._give_back(address, socket)  # it had its place in the same moment
            raise
        if not got:
            raise AccessUnavailable("access is no longer decided: closing" if self._closed else _TOO_MANY)

    def _make_room(self, sender: _Sender, address: str) -> None:
        """Take the place in the queue from the newest question of the address that has most of them.

        Raises:
            AccessUnavailable: that would be the newcomer's own.
        """
        longest = max(self._turns, key=lambda one: self._senders[one].waiting)
        most = self._senders[longest]
        if most.waiting <= sender.waiting + 1:
            raise AccessUnavailable(_TOO_MANY)
        socket = max(most.queues, key=lambda one: len(most.queues[one]))
        turn = most.queues[socket][-1]
        self._remove(most, longest, socket, turn)
        if not turn.cancelled():
            turn.set_result(False)

    def _remove(self, sender: _Sender, address: str, socket: Hashable, turn: asyncio.Future[bool]) -> None:
        """Take a question out of its queue, if it is still there."""
        queue = sender.queues.get(socket)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del sender.queues[socket]
        sender.waiting -= 1
        self._waiting -= 1
        if not sender.waiting:
            del self._turns[address]
        self._forget(sender, address)

    def _forget(self, sender: _Sender, address: str) -> None:
        if not sender.held and not sender.waiting and self._senders.get(address) is sender:
            del self._senders[address]

    def _give_back(self, address: str, socket: Hashable) -> None:
        sender = self._senders[address]
        self._free += 1
        sender.held -= 1
        sender.held_by[socket] -= 1
        if not sender.held_by[socket]:
            del sender.held_by[socket]
        while not self._closed and (turn := self._next()) is not None:
            turn.set_result(True)
        self._forget(sender, address)

    def _next(self) -> asyncio.Future[bool] | None:
        """Give one place to the next question that may have it; None if none may."""
        for address in self._turns:
            sender = self._senders[address]
            if sender.held >= self._free:
                continue
            for socket in sender.queues:
                if not self._may_have(sender, socket):
                    continue
                turn = next((one for one in sender.queues[socket] if not one.done()), None)
                if turn is None:
                    continue  # their senders have gone, and take them out
                self._turns.move_to_end(address)
                sender.queues.move_to_end(socket)
                self._hold(sender, socket)
                self._remove(sender, address, socket, turn)
                return turn
        return None
