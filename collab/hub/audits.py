"""The newest entries of the audit, of all nodes.

Strategy: each node keeps its own in memory (``collab.audit``) and tells those that are asked for, the newest first. The
one that is asked puts them in one order, by time, node and number, and gives a page. As with people
(``collab.hub.people``), a node that has more than it has told ends the page with what it has told last, so no page
leaves anything out. What a node kept ends with the node; the file has all of it.
"""

from __future__ import annotations

import heapq
from typing import Any, Final, NamedTuple

from collab.audit import Audit, Entry, Group
from collab.hub.questions import AnswerList, Answers, Facts, Questions

MAX_LIMIT: Final = 200
"""Entries in one page."""

_KIND: Final = "audit"

Place = tuple[float, str, int]
"""Where an entry stands among all: its time, its node, its number there."""


class Wanted(NamedTuple):
    """Which entries are wanted; None is any.

    Attributes:
        since: not before this, in Unix seconds.
        kind: the value of a kind, or of a group.
        user: who has done it, for whom it was done, or to whom.
        document: its name.
    """

    since: float | None = None
    kind: str | None = None
    user: str | None = None
    document: str | None = None


class Told(NamedTuple):
    """An entry as any node tells it; ``None`` for what is not known there.

    Attributes:
        at: in Unix seconds.
        node, number: which it is.
        kind, outcome, detail: as of an ``Entry``.
        user, on_behalf_of, target, address, document, protocol, request: as of an ``Entry`` and its ``Who``.
        connection: ``NODE-NUMBER``.
        trace: the trace in hexadecimal.
        left_out: how many entries like this were left out before it.
    """

    at: float
    node: str
    number: int
    kind: str
    outcome: str
    detail: str
    user: str | None
    on_behalf_of: str | None
    target: str | None
    address: str | None
    document: str | None
    protocol: str | None
    connection: str | None
    request: str | None
    trace: str | None
    left_out: int

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.at, self.node, self.number


class Page(NamedTuple):
    """A page; ``following`` is the place of its last entry if there are more, and ``silent`` as of ``Answers``."""

    items: list[Told]
    following: Place | None
    silent: tuple[str, ...]


class Audits:
    """Asks all nodes, and answers for this one.

    Args:
        audit: of this node.
        node: its name.
        questions: the way to the others.
    """

    def __init__(self, audit: Audit, node: str, questions: Questions) -> None:
        self._audit = audit
        self._node = node
        self._questions = questions

    async def page(self, wanted: Wanted, before: Place | None, limit: int) -> Page:
        """Give a page, the newest first, of those before a place; raises ``Overloaded``."""
        asked: Facts = {"kind": _KIND, "wanted": wanted._asdict(), "before": before, "limit": limit}
        return _merge(await self._questions.ask(asked), limit)

    def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of this node, or of another one; None to one that is not for this."""
        if asked.get("kind") != _KIND:
            return None
        try:
            wanted, limit = Wanted(**asked["wanted"]), min(MAX_LIMIT, max(1, int(asked["limit"])))
            before = None if asked["before"] is None else _read_place(asked["before"])
        except (KeyError, TypeError, ValueError):
            return None  # of another release
        groups = {group.value: group for group in Group}
        entries = self._audit.newest(groups.get(wanted.kind or ""))
        kind = None if wanted.kind in groups else wanted.kind
        found = (
            entry
            for entry in entries
            if _matches(entry, wanted, kind) and (before is None or (entry.at, self._node, entry.number) < before)
        )
        newest = heapq.nlargest(limit + 1, found, key=lambda entry: (entry.at, entry.number))
        told = AnswerList(limit)
        for entry in newest:
            if not told.add(_describe(entry)):
                break
        return told.facts()


def _matches(entry: Entry, wanted: Wanted, kind: str | None) -> bool:
    who = entry.who
    return (
        (wanted.since is None or entry.at >= wanted.since)
        and (kind is None or entry.kind.value == kind)
        and (wanted.document is None or entry.document == wanted.document)
        and (wanted.user is None or wanted.user in (who.user, who.on_behalf_of, entry.target))
    )


def _describe(entry: Entry) -> Facts:
    who = entry.who
    return {
        "at": entry.at,
        "number": entry.number,
        "kind": entry.kind.value,
        "outcome": entry.outcome.value,
        "detail": entry.detail,
        "user": who.user,
        "on_behalf_of": who.on_behalf_of,
        "target": entry.target,
        "address": who.address or None,
        "document": entry.document,
        "protocol": who.protocol,
        "connection": who.connection,
        "request": who.request,
        "trace": None if entry.trace is None else entry.trace[0],
        "left_out": entry.left_out,
    }


def _merge(answers: Answers, limit: int) -> Page:
    """Put the answers of all nodes together, the newest first."""
    found: list[Told] = []
    ends: list[Place] = []  # behind which a node has more
    read, silent = answers.read(_read_entries)
    for items, more_there in read.values():
        found += items
        if more_there and items:
            ends.append(items[-1].place)
    found = [told for told in found if not ends or told.place >= max(ends)]
    found.sort(key=lambda told: told.place, reverse=True)
    more = bool(ends) or len(found) > limit
    found = found[:limit]
    return Page(found, found[-1].place if more and found else None, silent)


def _read_entries(node: str, said: Facts) -> tuple[list[Told], bool]:
    return [_read(node, item) for item in said["items"]], bool(said.get("more"))


def _read(node: str, item: Facts) -> Told:
    connection = item["connection"]
    return Told(
        float(item["at"]),
        node,
        int(item["number"]),
        str(item["kind"]),
        str(item["outcome"]),
        str(item["detail"]),
        _text(item["user"]),
        _text(item["on_behalf_of"]),
        _text(item["target"]),
        _text(item["address"]),
        _text(item["document"]),
        _text(item["protocol"]),
        None if connection is None else f"{node}-{int(connection)}",
        _text(item["request"]),
        _text(item["trace"]),
        int(item["left_out"]),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _read_place(value: Any) -> Place:
    at, node, number = value
    return float(at), str(node), int(number)
