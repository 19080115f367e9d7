"""The client IDs of sessions that have ended: whose they are, and the clocks that others know of them.

Strategy: a table in the order of leaving. A client that comes back has to go on from the clock at which its state was
removed, for y-protocols keeps the clock and takes only a greater one. And its ID is still its user's: else anybody
could take it, with a clock far ahead, while a line is down. Nobody can make the table grow past its bounds, and what
one user leaves pushes out nothing of another one, as long as the table is not full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

MINUTES: Final = 10
"""How long an ID is kept: longer than a line is down as a rule."""

_OF_ONE_USER: Final = 200
_IN_ALL: Final = 10_000


class Left(NamedTuple):
    """What is known of a client ID that nobody shows any more.

    Attributes:
        clock: of the removal that the others have been told.
        user: who had shown it; None for nobody in particular.
        turn: the last turn of its room that its client may have been told of.
        minute: when that was, in minutes of the table's own count.
        sure: this node has let the user in; else a state that another node has told says so.
    """

    clock: int
    user: str | None
    turn: int
    minute: int
    sure: bool = True


class Departed:
    """The client IDs of one document whose sessions have ended.

    Attributes:
        turn: the last turn in which one of them has left.
    """

    __slots__ = ("_clients", "_minute", "_of_user", "turn")

    def __init__(self) -> None:
        self._clients: dict[int, Left] = {}
        self._of_user: dict[str, dict[int, None]] = {}
        self._minute = 0
        self.turn = 0

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, client: int) -> Left | None:
        """Return what is known of an ID; None if nothing is."""
        return self._clients.get(client)

    def since(self, turn: int) -> Iterator[tuple[int, Left]]:
        """Give the IDs that have left in a turn or later."""
        for client, left in reversed(self._clients.items()):
            if left.turn < turn:
                return
            yield client, left

    def add(self, client: int, clock: int, user: str | None, turn: int = 0, *, sure: bool = True) -> None:
        """Note that a client has left, as ``Left`` has it; its ID is not in the table."""
        self._clients[client] = Left(clock, user, turn, self._minute, sure)
        self.turn = max(self.turn, turn)
        if user is not None:
            own = self._of_user.setdefault(user, {})
            own[client] = None
            if len(own) > _OF_ONE_USER:
                self.remove(next(iter(own)))
        if len(self._clients) > _IN_ALL:
            self.remove(next(iter(self._clients)))

    def remove(self, client: int) -> Left | None:
        """Forget an ID, because its client is back; return what was known of it, None if it is not in the table."""
        left = self._clients.pop(client, None)
        if left is not None and (user := left.user) is not None:
            own = self._of_user[user]
            del own[client]
            if not own:
                del self._of_user[user]
        return left

    def pass_minute(self) -> None:
        """Note that a minute has passed, and forget what is too old."""
        self._minute += 1
        while self._clients:
            client, left = next(iter(self._clients.items()))
            if self._minute - left.minute < MINUTES:
                return
            self.remove(client)


class Unloaded:
    """The client IDs of documents that are not in memory, by document name: their clients may come back within minutes.

    Past the bound those of the documents that left memory first are forgotten.
    """

    __slots__ = ("_count", "_kept")

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Departed, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, name: str, departed: Departed, more: int = 0) -> None:
        """Keep the IDs of a document that leaves memory; ``more`` are about to be added."""
        size = len(departed) + more
        if not size:
            return
        self.take(name)
        self._kept[name] = departed, size
        self._count += size
        while self._count > _IN_ALL and len(self._kept) > 1:
            self.take(next(iter(self._kept)))

    def take(self, name: str) -> Departed | None:
        """Remove and return the IDs of a document; None if there are none."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return None
        self._count -= kept[1]
        return kept[0]

    def pass_minute(self) -> None:
        """Note that a minute has passed, and forget what is too old."""
        for name, (departed, _) in list(self._kept.items()):
            departed.pass_minute()
            if not departed:
                self.take(name)
