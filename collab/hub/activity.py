"""Which documents are busy or large on all nodes, and what stands inside of one.

Strategy: rooms and sockets know what they have done so far. While somebody asks, all of them are looked at every few
seconds, in slices; a rate is the difference between a look some seconds ago and now. While nobody asks nothing is
looked at, so this costs those who edit nothing. Each node puts its rooms in order and tells the first of them, and the
one that is asked puts the answers together (``collab.hub.questions``).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from collab.errors import DamagedDocument
from collab.hub.member import ConnectionFacts
from collab.hub.membership import Membership
from collab.hub.people import People
from collab.hub.quarantine import Quarantine
from collab.hub.questions import FRESH, AnswerList, Answers, Facts, Questions
from collab.hub.room import LiveRoom
from collab.hub.slices import Pauses
from collab.protocol.session import State

ORDERS: Final = ("edits", "stored", "size", "sessions", "waiting", "name")
"""How rooms can be put in order: by edits or stored bytes a second, bytes in memory, sessions, waiting bytes, name."""

MAX_ROOMS: Final = 200
"""Rooms in one answer."""

MAX_SEARCH: Final = 200
"""Characters of a text that is looked for."""

# Seconds for which everything is looked at after somebody has asked.
_WATCHED: Final = 60.0

# Characters of what a node says about a document that it cannot read.
_TEXT: Final = 500


class Keeper(Protocol):
    """What is needed of the hub."""

    rooms: dict[str, LiveRoom]
    membership: Membership
    people: People
    troubled: set[str]
    damaged: dict[str, tuple[DamagedDocument, float]]
    quarantine: Quarantine

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...


class Room(NamedTuple):
    """A document in memory, as all nodes that have it open show it together.

    Attributes:
        name: of the document.
        number: of the newest row that is in memory; None of a document that is not stored.
        nbytes: its size in memory, the largest of the nodes.
        sessions, readers: how many there are.
        edits, stored, rows: updates of clients, bytes and rows of the log, a second; None while that is not known.
        waiting: bytes that wait for its clients.
        slow: clients that read too slowly.
        uncommitted: turns that are on their way into the log.
        pending: updates that wait for what the document lacks.
        nodes: those that have it open and have told of it.
    """

    name: str
    number: int | None
    nbytes: int
    sessions: int
    readers: int
    edits: float | None
    stored: float | None
    rows: float | None
    waiting: int
    slow: int
    uncommitted: int
    pending: int
    nodes: tuple[str, ...]


class Rooms(NamedTuple):
    """Rooms in order: ``total`` is how many match, on each node for itself; ``following`` is as in a ``Page``."""

    items: list[Room]
    total: int
    following: str | None
    silent: tuple[str, ...]


class _Seen(NamedTuple):
    """What a room had done by a look."""

    updates: int
    seq: int
    tail_bytes: int


class _Look(NamedTuple):
    at: float
    rooms: dict[str, _Seen]
    received: dict[int, int]


class Activity:
    """What this node knows of its rooms, and what it asks the others.

    Args:
        hub: see ``Keeper``.

    Attributes:
        questions: the way to the other nodes; set by the hub.
    """

    questions: Questions

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self._watched_until = float("-inf")
        self._looks: deque[_Look] = deque(maxlen=2)

    # Looking

    async def look(self) -> None:
        """Note what rooms and sockets have done so far, if somebody has asked in the last minute."""
        if self._hub.now() > self._watched_until:
            self._looks.clear()
            return
        at, pause = self._hub.now(), Pauses(self._hub.now)
        rooms: dict[str, _Seen] = {}
        for live in list(self._hub.rooms.values()):
            log = live.persistence
            rooms[live.name] = _Seen(live.updates, log.seq, log.tail_bytes)
            await pause.if_due()
        received: dict[int, int] = {}
        for describe in list(self._hub.people.sockets()):
            told = describe()
            received[told.number] = told.received
            await pause.if_due()
        self._looks.append(_Look(at, rooms, received))

    def watch(self) -> None:
        """Look for the next minute."""
        self._watched_until = self._hub.now() + _WATCHED

    def receives(self, told: ConnectionFacts) -> float | None:
        """Give the bytes a second that come from a connection; None if that is not known yet."""
        self.watch()
        before = self._before
        if before is None:
            return None
        # One that has come since then has begun with nothing.
        return round((told.received - before.received.get(told.number, 0)) / max(self._hub.now() - before.at, 1.0), 3)

    @property
    def _before(self) -> _Look | None:
        return self._looks[0] if self._looks else None

    # What is asked

    async def list_rooms(self, order: str, search: str, node: str | None, after: str | None, limit: int) -> Rooms:
        """Give the first rooms in one of ``ORDERS``, on one node or on all; raises ``Overloaded``.

        By their names they go on behind ``after``. In the other orders each node tells twice as many as are wanted: a
        document that is far down on one node may be shown without that node's part.
        """
        asked = {"kind": "rooms", "order": order, "search": search, "node": node, "after": after, "limit": limit}
        return _merge(await self.questions.ask(asked, fresh=FRESH), order, limit)

    async def inside(self, name: str) -> Answers:
        """Give what each node has of a document in memory; raises ``Overloaded``."""
        return await self.questions.ask({"kind": "inside", "name": name}, fresh=FRESH)

    # What is answered

    async def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of this node, or of another one; None to one that is for somebody else."""
        if asked.get("kind") == "rooms":
            return await self._answer_rooms(asked)
        if asked.get("kind") == "inside":
            return self._inside(str(asked.get("name")))
        return None

    async def _answer_rooms(self, asked: Facts) -> Facts:
        self.watch()
        node, order, after = asked.get("node"), asked.get("order"), asked.get("after")
        limit, search = _limit(asked.get("limit")), str(asked.get("search") or "").casefold()
        if node is not None and node != self._hub.membership.name:
            return AnswerList(0).facts() | {"total": 0}
        chosen = [live for live in list(self._hub.rooms.values()) if search in live.name.casefold()]
        if order == "name":
            chosen.sort(key=lambda live: live.name)
            begin = 0 if after is None else sum([live.name <= str(after) for live in chosen])
            found = chosen[begin : begin + limit + 1]
        else:
            limit *= 2
            found = await self._first(chosen, str(order), limit)
        told = AnswerList(limit)
        for live in found:
            if not told.add(self._describe(live)):
                break
        return told.facts() | {"total": len(chosen)}

    async def _first(self, chosen: Iterable[LiveRoom], order: str, limit: int) -> list[LiveRoom]:
        pause = Pauses(self._hub.now)
        values: list[tuple[float, str, LiveRoom]] = []
        for live in chosen:
            values.append((self._value(live, order), live.name, live))
            await pause.if_due()
        return [live for _, _, live in heapq.nsmallest(limit, values, key=lambda each: (-each[0], each[1]))]

    def _value(self, live: LiveRoom, order: str) -> float:
        if order == "size":
            return live.room.document.size
        if order == "sessions":
            return len(live.room.sessions)
        if order == "waiting":
            return _waiting(live)
        edits, stored, _ = self._rates(live)
        # Before there are rates, those that have been edited at all come first.
        return (edits if order == "edits" else stored) or min(live.updates, 1) * 1e-9

    def _rates(self, live: LiveRoom) -> tuple[float | None, float | None, float | None]:
        """Give the edits, stored bytes and rows a second of a room."""
        before = self._before
        if before is None:
            return None, None, None
        log, seconds = live.persistence, max(self._hub.now() - before.at, 1.0)
        then = before.rooms.get(live.name)
        if then is None:  # it was opened since then
            return live.updates / seconds, None, None
        edits, rows, stored = live.updates - then.updates, log.seq - then.seq, log.tail_bytes - then.tail_bytes
        # It has left memory and come back; or a snapshot has shortened the tail.
        return (
            edits / seconds if edits >= 0 else None,
            stored / seconds if stored >= 0 else None,
            rows / seconds if rows >= 0 else None,
        )

    def _describe(self, live: LiveRoom) -> Facts:
        edits, stored, rows = self._rates(live)
        log, kept = live.persistence, live.room.kept
        return {
            "name": live.name,
            "number": None if log.document_id is None else log.seq,
            "bytes": live.room.document.size,
            "sessions": len(live.room.sessions),
            "readers": len(live.readers),
            "edits": _rounded(edits),
            "stored": _rounded(stored),
            "rows": _rounded(rows),
            "waiting": _waiting(live),
            "slow": len(live.catch_up),
            "uncommitted": log.uncommitted,
            "pending": 0 if kept is None else len(kept),
        }

    def _inside(self, name: str) -> Facts:
        hub, now = self._hub, self._hub.now()
        damaged = hub.damaged.get(name)
        seconds, by = hub.quarantine.closed(name, now)
        facts: Facts = {
            "open": False,
            "closed_seconds": round(seconds, 1),
            "closed_by": by,
            "troubled": name in hub.troubled,
            "damaged": None if damaged is None else str(damaged[0])[:_TEXT],
        }
        live = hub.rooms.get(name)
        if live is None or live.ended is not None:
            return facts
        described = self._describe(live)
        log, document, kept = live.persistence, live.room.document, live.room.kept
        return facts | {
            "open": True,
            "number": described["number"],
            "bytes": document.size,
            "clients": document.clients,
            "sessions": described["sessions"],
            "readers": described["readers"],
            "agents": len(live.agents),
            "visitors": len(live.visitors),
            "edits": described["edits"],
            "waiting_bytes": described["waiting"],
            "slow_members": described["slow"],
            "uncommitted": log.uncommitted,
            "pending_updates": described["pending"],
            "pending_bytes": 0 if kept is None else kept.nbytes,
            "waiting_rows": len(document.waiting),
            "tail_rows": log.tail_rows,
            "tail_bytes": log.tail_bytes,
            "snapshot_number": log.snapshot_seq,
            "compacting": live.compacting,
            "idle_seconds": None if live.occupied else round(max(0.0, now - live.idle_since), 1),
        }


def _waiting(live: LiveRoom) -> int:
    return sum([member.outbox.waiting() for member in live.members if member.state is not State.CLOSED])


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


def _limit(limit: Any) -> int:
    return min(MAX_ROOMS, limit) if isinstance(limit, int) and limit > 0 else MAX_ROOMS


def _merge(answers: Answers, order: str, limit: int) -> Rooms:
    """Put the answers of all nodes together."""
    found: dict[str, Room] = {}
    ends: list[str] = []
    told, silent = answers.read(_read_rooms)
    for rooms, _, more in told.values():
        if order == "name" and more and rooms:
            ends.append(rooms[-1].name)
        for room in rooms:
            before = found.get(room.name)
            found[room.name] = room if before is None else _join(before, room)
    items = sorted(found.values(), key=lambda room: (_key(room, order), room.name))
    total = sum(count for _, count, _ in told.values())
    if order != "name":
        return Rooms(items[:limit], total, None, silent)
    # What follows there may lie before what other nodes have told.
    items = [room for room in items if not ends or room.name <= min(ends)]
    more = bool(ends) or len(items) > limit
    items = items[:limit]
    return Rooms(items, total, items[-1].name if more and items else None, silent)


def _key(room: Room, order: str) -> float:
    value: Mapping[str, float | None] = {
        "name": 0,
        "edits": room.edits,
        "stored": room.stored,
        "size": room.nbytes,
        "sessions": room.sessions,
        "waiting": room.waiting,
    }
    return -(value[order] or 0)


def _join(a: Room, b: Room) -> Room:
    return Room(
        a.name,
        max([number for number in (a.number, b.number) if number is not None], default=None),
        max(a.nbytes, b.nbytes),
        a.sessions + b.sessions,
        a.readers + b.readers,
        _sum(a.edits, b.edits),
        _most(a.stored, b.stored),  # of the one log that they have in common
        _most(a.rows, b.rows),
        a.waiting + b.waiting,
        a.slow + b.slow,
        a.uncommitted + b.uncommitted,
        max(a.pending, b.pending),
        a.nodes + b.nodes,
    )


def _known(*values: float | None) -> Iterator[float]:
    return (value for value in values if value is not None)


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None and b is None else sum(_known(a, b))


def _most(a: float | None, b: float | None) -> float | None:
    return max(_known(a, b), default=None)


def _read_rooms(node: str, said: Facts) -> tuple[list[Room], int, bool]:
    """Read the rooms of a node, how many match there, and whether there are more."""
    return [_read(node, item) for item in said["items"]], int(said["total"]), bool(said.get("more"))


def _read(node: str, item: Mapping[str, Any]) -> Room:
    number = item["number"]
    return Room(
        name=str(item["name"]),
        number=None if number is None else int(number),
        nbytes=int(item["bytes"]),
        sessions=int(item["sessions"]),
        readers=int(item["readers"]),
        edits=_read_rate(item["edits"]),
        stored=_read_rate(item["stored"]),
        rows=_read_rate(item["rows"]),
        waiting=int(item["waiting"]),
        slow=int(item["slow"]),
        uncommitted=int(item["uncommitted"]),
        pending=int(item["pending"]),
        nodes=(node,),
    )


def _read_rate(value: Any) -> float | None:
    return None if value is None else float(value)
