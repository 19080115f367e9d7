"""Who has come to a document on this node, and who has left it.

Strategy: a user with three tabs is there once, and one whose connection breaks is back within seconds. So the sessions
of each user on each document are counted, the first one is told at once, and the end of the last one only when nobody
has come back meanwhile. All of it is in memory: a node that dies tells of nobody who leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from collab.hub.member import Member
from collab.storage.webhooks import JOINED, LEFT, Happened

LEFT_SECONDS: Final = 10.0
"""After so long without a session a user has left. Clients that lose their connection come back sooner."""

MAX_EVENTS: Final = 10_000
"""Events that may wait for the store; what comes then is dropped, and counted."""


class _Place(NamedTuple):
    """A user on a document: ``user`` None stands for all who have not said who they are."""

    document: str
    user: str | None


class People:
    """The people on the documents of this node.

    Args:
        node: the name of this node.
        now: seconds of the loop.

    Attributes:
        dropped: events that found no room.
    """

    def __init__(self, node: str, now: Callable[[], float]) -> None:
        self.dropped = 0
        self._node = node
        self._now = now
        self._members: dict[Member, tuple[_Place, str | None]] = {}
        self._counts: dict[_Place, int] = {}
        self._leaving: dict[_Place, tuple[float, int | None, str | None]] = {}
        self._events: list[Happened] = []

    def joined(self, document: str, document_id: int | None, member: Member) -> None:
        """Note that a session has joined its room."""
        place = _Place(document, member.author)
        shown = None if member.user is None else member.user.name
        self._members[member] = place, shown
        count = self._counts[place] = self._counts.get(place, 0) + 1
        if count == 1 and self._leaving.pop(place, None) is None:
            self._add(JOINED, place, document_id, shown)

    def left(self, document: str, document_id: int | None, member: Member) -> None:
        """Note that a session has ended; one that has not joined changes nothing."""
        found = self._members.pop(member, None)
        if found is None:
            return
        place, shown = found
        self._counts[place] -= 1
        if not self._counts[place]:
            del self._counts[place]
            self._leaving[place] = self._now(), document_id, shown

    def take(self, *, over: bool = False) -> list[Happened]:
        """Give what is to be told, once; with ``over`` also of those who may still come back."""
        before = self._now() - LEFT_SECONDS
        for place, (at, document_id, shown) in list(self._leaving.items()):
            if not over and at > before:
                break  # they are in the order in which they left
            del self._leaving[place]
            self._add(LEFT, place, document_id, shown)
        events, self._events = self._events, []
        return events

    def put_back(self, events: list[Happened]) -> None:
        """Keep what could not be stored."""
        self._events[:0] = events
        self.dropped += max(0, len(self._events) - MAX_EVENTS)
        del self._events[MAX_EVENTS:]

    def _add(self, kind: str, place: _Place, document_id: int | None, shown: str | None) -> None:
        if len(self._events) >= MAX_EVENTS:
            self.dropped += 1
            return
        data = {"user": place.user, "name": shown, "node": self._node}
        self._events.append(Happened(kind, document_id, (place.document,), data))
