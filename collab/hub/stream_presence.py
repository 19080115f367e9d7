"""People who are in documents by HTTP requests: what they post is shown, and ends when nothing is posted any more.

Strategy: each client that posts is a visitor (``collab.engine.visitors``), kept here beside the room that shows it. No
request says that its client is still there, so a visitor lives for ``LIFETIME`` seconds after its last one: stock
clients post every 15 s. It renews its clock by itself, as any client does. When its room ends because the document is
read again, its client posts the next state within those 15 s.

A post may come to any node, before that has heard what the others were posted. Nodes tell whose the states of their
visitors are, so each can say whether a post is of the person whom another node shows, and of one person's states the
newest counts everywhere. One for an ID that a session of another node shows asks for it (``may_give``). While a node
does not answer, the post is refused as one that may come again. The end of a client is told to the others also where it
is not known to be shown: what it has posted before may have gone to another node. So is a post that says nothing new:
the node that shows the state shows it for longer.

A visitor has the rights of its user: it ends when these run out, when the user is kicked, and when the user is asked
about again and may not read any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from collab.cluster.bus import Bus
from collab.engine.awareness import ANOTHERS
from collab.engine.comebacks import DistantClaim
from collab.engine.visitors import AnothersClient, Somebody, Visitor
from collab.errors import (
    CollabError,
    DocumentBusy,
    LimitExceeded,
    forget_frames,
    is_refusal,
)
from collab.hub.agents import Caller, Recheck, TooOften, ask_again
from collab.hub.member import Checked
from collab.hub.questions import Facts, Questions
from collab.hub.room import LiveRoom, VisitorFacts
from collab.limits.limits import TokenBucket
from collab.protocol.awareness import NULL, Entry, decode_awareness, newest_entries
from collab.protocol.session import Access

LIFETIME: Final = 45.0
"""Seconds for which a state is shown after its last post: three posts of a stock client."""

MAX_OF_DOCUMENT: Final = 1_000
MAX_OF_PERSON: Final = 200
MAX_OF_NODE: Final = 20_000
"""Visitors of one document, of one user (or one address where nobody knows users) and of one node."""

MAX_ENTRIES: Final = 16
"""States in one post. A client posts its own one, and some more when a line comes back."""

# Seconds of states at the settings' rate that may come at once.
_BURST_SECONDS = 10.0

Key = tuple[str, int]
"""A document's name and a client ID."""


class Keeper(Protocol):
    """What is needed of the hub."""

    rooms: dict[str, LiveRoom]
    bus: Bus
    clock: Callable[[], float]

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    async def open_existing(self, name: str) -> LiveRoom:
        """Return the live room of a document that exists."""
        ...


class Poster(NamedTuple):
    """Who posts.

    Attributes:
        caller: as of an agent.
        address: what its address counts as; None for one that many may share.
    """

    caller: Caller
    address: str | None

    @property
    def author(self) -> str | None:
        """The user; None while nobody has said."""
        return self.caller.author


class TooManyVisitors(LimitExceeded):
    """There are as many visitors as there may be; later there may be room."""

    retryable = True


class _Held:
    """One visitor; times in the loop's seconds.

    It is kept until its lifetime ends, also when another node shows it: its posts go on to be counted.

    Attributes:
        until: the end of its lifetime.
        expires: the end of its access.
    """

    def __init__(self, visitor: Visitor, live: LiveRoom, facts: VisitorFacts, recheck: Recheck) -> None:
        self.visitor = visitor
        self.live = live
        self.facts = facts
        self.recheck = recheck
        self.until = self.expires = 0.0
        self.bucket: TokenBucket | None = None

    @property
    def access(self) -> Access:
        return self.facts.access


class Visitors:
    """The visitors of this node.

    Args:
        hub: see ``Keeper``.

    Attributes:
        questions: the way to the other nodes; set by the hub.
    """

    questions: Questions

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self._held: dict[Key, _Held] = {}
        self._of_document: Counter[str] = Counter()
        self._of_person: Counter[tuple[str | None, str | None]] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    # What is posted

    async def post(self, name: str, updates: Sequence[bytes], poster: Poster, rate: float = 0.0) -> LiveRoom:
        """Show what a person posts on a document; a state that says nothing new renews the lifetime of what is shown.

        Args:
            name: of the document, which exists.
            updates: awareness updates (y-protocols); of several states of one client the newest counts.
            poster: who posts.
            rate: states of one client in a second, in the long run; 0 for no bound.

        Returns:
            The room that shows it.

        Raises:
            DecodeError: an update is malformed; nothing was taken. Or a state is, and the others were.
            LimitExceeded: there are too many states; nothing was taken. Or one is too large, and the others were.
            AnothersClient: a client ID is shown by somebody else; the other states were taken.
            TooManyVisitors, TooOften: retryable.
            DocumentNotFound: there is no such document.
            DocumentBusy: it cannot be said now whose a client ID is.
            CollabError: as ``Hub.open``.
        """
        entries = _read(updates)
        live = await self._hub.open_existing(name)
        refused: CollabError | None = None
        for entry in entries:
            try:
                live = await self._post_one(live, entry, poster, rate)
            except CollabError as error:
                if not is_refusal(error):
                    raise
                forget_frames(error)
                refused = refused or error
        if refused is not None:
            raise refused
        return live

    async def _post_one(self, live: LiveRoom, entry: Entry, poster: Poster, rate: float) -> LiveRoom:
        key = (live.name, entry.client)
        moved = live.room.awareness.is_known_to_be(entry.client, poster)
        if not moved and live.room.awareness.may_be_elsewhere(entry.client):
            moved = await self._ask_for(live.name, entry, poster)
            live = await self._hub.open_existing(live.name)
        held = self._held.get(key)
        if held is not None and not held.visitor.is_one_with(poster):
            if held.visitor.shown:
                if entry.state == NULL:
                    return live
                raise AnothersClient("a client ID that another visitor shows", public=ANOTHERS)
            self._forget(held)  # it has gone elsewhere, or says nothing any more
            held = None
        if entry.state == NULL and not moved and (held is None or not held.visitor.shown):
            live.end_elsewhere(entry, poster)
            return live
        now = self._hub.now()
        if held is None:
            held = self._make(live, entry, poster)
        self._count(held, rate, now)
        self._show(held, live, entry, poster, moved=moved, now=now)
        return live

    def _make(self, live: LiveRoom, entry: Entry, poster: Poster) -> _Held:
        """Make a visitor that is not kept yet."""
        self._check_count(live.name, poster)
        caller = poster.caller
        visitor = Visitor(entry.client, caller.author, poster.address)
        return _Held(visitor, live, VisitorFacts(caller.access, self._hub.clock()), caller.recheck)

    def _count(self, held: _Held, rate: float, now: float) -> None:
        if not rate:
            return
        if held.bucket is None:
            held.bucket = TokenBucket(rate, max(1.0, rate * _BURST_SECONDS), now)
        if not held.bucket.try_consume(now):
            public = "presence changes too often, try again later"
            raise TooOften(f"more than {rate:g} states a second", 1 / rate, public)

    def _show(self, held: _Held, live: LiveRoom, entry: Entry, poster: Poster, *, moved: bool, now: float) -> None:
        """Let the room take a state, and keep its visitor while it is shown."""
        caller, visitor = poster.caller, held.visitor
        visitor.user, visitor.address = caller.user, poster.address
        if held.live is not live:
            held.live.end_visitor(visitor)
        held.live, held.recheck = live, caller.recheck
        held.facts = held.facts._replace(access=caller.access)
        refused = live.visit(visitor, held.facts, entry, moved=moved)
        key = (live.name, visitor.client)
        if not visitor.shown and (refused is not None or not live.room.awareness.may_be_elsewhere(visitor.client)):
            self._forget(held)
        else:
            held.expires = math.inf if caller.left is None else now + caller.left
            held.until = min(now + LIFETIME, held.expires)
            if key not in self._held:
                self._held[key] = held
                self._of_document[live.name] += 1
                self._of_person[_person(visitor)] += 1
        if refused is not None:
            raise refused

    def _check_count(self, name: str, poster: Poster) -> None:
        person = _person(poster)
        for count, most, what in (
            (self._of_document[name], MAX_OF_DOCUMENT, "on this document"),
            (self._of_person[person] if person != _ANYBODY else 0, MAX_OF_PERSON, "of this user"),
            (len(self._held), MAX_OF_NODE, "on this server"),
        ):
            if count >= most:
                raise TooManyVisitors(f"{count} visitors {what}", public=f"{most} people without a socket {what}")

    # Other nodes

    async def _ask_for(self, name: str, entry: Entry, poster: Poster) -> bool:
        """Ask the other nodes for a client ID that one of them shows; tell whether it is this person's.

        Raises:
            DocumentBusy: this cannot be said now.
            Overloaded: too much is asked of other nodes at a time.
        """
        asked = {
            "kind": "visitor",
            "name": name,
            "client": entry.client,
            "clock": entry.clock,
            "author": poster.author,
            "address": poster.address,
        }
        answers = await self.questions.ask(asked)
        if any(said.get("given") is True for said in answers.said.values()):
            return True
        if answers.silent and not any(said.get("shown") is True for said in answers.said.values()):
            raise DocumentBusy("a node does not say whose a client ID is", public="another server is silent")
        return False

    def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of another node; None to one that is not about visitors."""
        if asked.get("kind") == "end visitors":
            return {"ended": self.end_here(self.of(str(asked.get("name")), None))}
        if asked.get("kind") != "visitor":
            return None
        live = self._hub.rooms.get(str(asked.get("name")))
        client, clock = asked.get("client"), asked.get("clock")
        author, address = asked.get("author"), asked.get("address")
        if live is None or live.ended is not None or not isinstance(client, int) or not isinstance(clock, int):
            return {"shown": False, "given": False}
        claim = DistantClaim(client, clock, True, _text(author), _text(address))
        shown = client in live.room.awareness and not live.room.awareness.may_be_elsewhere(client)
        return {"shown": shown, "given": live.may_give(claim)}

    async def end_all(self, name: str) -> tuple[str, ...]:
        """End all visitors of a document, on all nodes; return which nodes were silent. Raises ``Overloaded``."""
        self.end_here(self.of(name, None))
        return (await self.questions.ask({"kind": "end visitors", "name": name})).silent

    def renew(self, live: LiveRoom, people: Mapping[int, Somebody]) -> None:
        """Renew the lifetimes of visitors whose clients have posted something on another node."""
        for client, person in people.items():
            held = self._held.get((live.name, client))
            if held is not None and held.live is live and held.visitor.is_one_with(person):
                held.until = min(self._hub.now() + LIFETIME, held.expires)

    # What happens here

    def _forget(self, held: _Held) -> None:
        visitor, name = held.visitor, held.live.name
        if self._held.get((name, visitor.client)) is held:
            del self._held[name, visitor.client]
            self._of_document -= Counter([name])  # which keeps what is above 0
            self._of_person -= Counter([_person(visitor)])
        held.live.end_visitor(visitor)

    def sweep(self, now: float) -> None:
        """End those of whom nothing was heard for too long; call it every second or so."""
        for held in list(self._held.values()):
            live = held.live
            if now >= held.until or live.ended is not None or self._hub.rooms.get(live.name) is not live:
                self._forget(held)
            elif not held.visitor.shown:
                live.end_visitor(held.visitor)  # it has gone to another node, or to a socket

    # What operators tell

    def of(self, document: str | None, user: str | None) -> list[Key]:
        """Give the visitors on a document, of a user; None stands for any."""
        return [
            key
            for key, held in self._held.items()
            if (document is None or key[0] == document) and (user is None or held.visitor.author == user)
        ]

    def end_here(self, keys: Iterable[Key]) -> int:
        """End these visitors; return how many were shown."""
        ended = 0
        for key in keys:
            held = self._held.get(key)
            if held is not None:
                ended += held.visitor.shown
                self._forget(held)
        return ended

    async def check(self, keys: Iterable[Key]) -> Counter[Checked]:
        """Ask again what the users of these visitors may do; end those that may not read any more."""
        return await ask_again(self._held, keys, self._forget, _note_access)


def _note_access(held: _Held, access: Access) -> None:
    held.facts = held.facts._replace(access=access)
    if held.visitor in held.live.visitors:
        held.live.visitors[held.visitor] = held.facts


_ANYBODY: Final = (None, None)


def _person(who: Visitor | Poster) -> tuple[str | None, str | None]:
    """Give by whom visitors are counted: a user, else an address, else nobody in particular."""
    return (who.author, None) if who.author is not None else (None, who.address)


def _read(updates: Sequence[bytes]) -> list[Entry]:
    entries: list[Entry] = []
    for update in updates:
        entries += decode_awareness(update, MAX_ENTRIES)
        if len(entries) > MAX_ENTRIES:
            reason = f"awareness: more than {MAX_ENTRIES} states in one request"
            raise LimitExceeded(reason, public=reason)
    return newest_entries(entries)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
