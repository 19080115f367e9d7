"""The agents of this node: participants without a socket, which a back end shows for some time.

Strategy: what an agent shows is kept here until its lifetime ends, beside the room that shows it. Its room stays in
memory meanwhile; when it ends because the document is read again, the agent is shown in the next one. An agent is
renewed like a client that has a socket, for clients drop what says nothing for 30 s. It goes with its node: the others
remove it as they remove that node's sessions.

A caller may come to another node the next time. That one asks the others for the clock of the agent, and shows it with
a greater one, upon which the node before it lets go of it. An end is told to all nodes in the same way.

An agent has the rights of its user: it ends when these run out, when the user is kicked, and when the user is asked
about again and may not read any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol, TypeVar

from collab.cluster.bus import Bus
from collab.engine.agents import TICKS, Agent
from collab.errors import (
    AccessExpired,
    CollabError,
    DocumentDeleted,
    LimitExceeded,
    Overloaded,
    is_refusal,
)
from collab.hub.member import Checked
from collab.hub.questions import Facts, Questions
from collab.hub.room import AgentFacts, LiveRoom
from collab.hub.tasks import Tasks
from collab.protocol.awareness import User
from collab.protocol.session import Access
from collab.telemetry import RateLimited, get_logger, shown_name

_limited = RateLimited(get_logger("room"))

MAX_SECONDS: Final = 3_600.0
"""The longest lifetime; an agent that goes on is shown again before its end."""

RENEW_SECONDS: Final = 12.0
"""Clients drop a state that was not renewed for 30 s; they renew their own every 15 s."""

MAX_OF_DOCUMENT: Final = 50
MAX_OF_USER: Final = 200
MAX_OF_NODE: Final = 2_000
"""Agents of one document, one user and one node."""

MAX_IDENT_BYTES: Final = 128
"""Bytes of UTF-8 of the name of an agent."""

# States in the long run, in a second, and at once: more would take the clock ahead of the time.
_RATE: Final = TICKS
_BURST: Final = 20.0

# Seconds between attempts to show an agent again whose room has ended.
_AGAIN: Final = 2.0


class Keeper(Protocol):
    """What is needed of the hub."""

    rooms: dict[str, LiveRoom]
    bus: Bus
    tasks: Tasks
    clock: Callable[[], float]

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    async def open_existing(self, name: str) -> LiveRoom:
        """Return the live room of a document that exists."""
        ...


Recheck = Callable[[], Awaitable[Access]]
"""Asks again what the user of an agent, or a visitor, may do with its document; raises as ``Admission.ask``."""


K = TypeVar("K")
S = TypeVar("S", bound="Shown")


class Shown(Protocol):
    """Somebody without a socket who is kept for as long as it is shown."""

    @property
    def recheck(self) -> Recheck | None:
        """Asks again what its user may do; None before it is shown."""
        ...

    @property
    def access(self) -> Access:
        """What its user may do, as far as is known."""
        ...


async def ask_again(
    held: Mapping[K, S], keys: Iterable[K], end: Callable[[S], None], note: Callable[[S, Access], None]
) -> Counter[Checked]:
    """Ask again what the users of some who have no socket may do.

    Args:
        held: all of them; they may come and go meanwhile.
        keys: of those who are asked about.
        end: called with one that may not read any more.
        note: called with one that may do something else than before, and what.

    Returns:
        What became of how many; one that may do the same is not counted.
    """
    counts: Counter[Checked] = Counter()
    for key in keys:
        one = held.get(key)
        if one is None or one.recheck is None:
            continue
        try:
            access = await one.recheck()
        except CollabError as error:
            if not is_refusal(error):
                raise
            if error.retryable and not isinstance(error, AccessExpired):
                counts[Checked.UNDECIDED] += 1
            elif held.get(key) is one:
                end(one)
                counts[Checked.ENDED] += 1
        else:
            if held.get(key) is one and access is not one.access:
                note(one, access)
                counts[Checked.CHANGED] += 1
        await asyncio.sleep(0)
    return counts


class Caller(NamedTuple):
    """Who shows an agent.

    Attributes:
        author, user: as a session has them.
        access: what the caller may do with the document.
        left: seconds until that runs out; None for never.
        recheck: see there.
    """

    author: str | None
    user: User | None
    access: Access
    left: float | None
    recheck: Recheck


class AgentShown(NamedTuple):
    """What became of an agent: its client ID, the Unix seconds at which it ends, and what it shows."""

    client: int
    until: float
    state: bytes


class _Held:
    """One agent; times in the loop's seconds."""

    def __init__(self, agent: Agent, live: LiveRoom) -> None:
        self.agent = agent
        self.live = live
        self.facts = AgentFacts(Access.READ, 0.0)
        self.recheck: Recheck | None = None
        self.state = b""  # as it was given
        self.until = self.renew_at = self.again_at = 0.0
        self.tokens = _BURST
        self.counted_at = float("-inf")
        self.showing = False

    @property
    def access(self) -> Access:
        return self.facts.access

    def count(self, now: float) -> float:
        """Count a state; return the seconds until there may be one, 0 if there may be now."""
        tokens = min(_BURST, self.tokens + min(now - self.counted_at, _BURST) * _RATE)
        if tokens < 1:
            return (1 - tokens) / _RATE
        self.tokens, self.counted_at = tokens - 1, now
        return 0.0


class TooManyAgents(LimitExceeded):
    """There are as many agents as there may be; later there may be room."""

    retryable = True


class TooOften(LimitExceeded):
    """Somebody without a socket changes what it shows more often than it may.

    Args:
        message: for the operator's log.
        seconds: until it may again.
        public: what its sender is told.
    """

    retryable = True

    def __init__(self, message: str, seconds: float, public: str) -> None:
        super().__init__(message, public=public)
        self.seconds = seconds


class Agents:
    """The agents of this node.

    Args:
        hub: see ``Keeper``.

    Attributes:
        questions: the way to the other nodes; set by the hub.
    """

    questions: Questions

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self._held: dict[int, _Held] = {}  # by client ID, which is of one document
        self._of_document: Counter[str] = Counter()
        self._of_user: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    # What callers ask for

    async def show(self, name: str, ident: str, state: bytes, seconds: float, caller: Caller) -> AgentShown:
        """Show an agent on a document for some time, in the place of what it has shown before.

        Args:
            name: of the document, which exists.
            ident: tells the agents of one user on the document apart; 1 to ``MAX_IDENT_BYTES`` bytes of UTF-8.
            state: JSON text in UTF-8.
            seconds: its lifetime from now on, ``MAX_SECONDS`` at most; less where the caller's access ends before that.
            caller: see there.

        Raises:
            DecodeError: the state is malformed.
            LimitExceeded: the state is too large.
            TooManyAgents, TooOften: retryable; there are as many as there may be, or it changes too often.
            DocumentNotFound: there is no such document.
            CollabError: as ``Hub.open``.
        """
        agent = Agent(name, caller.author, ident, caller.user)
        held = self._held.get(agent.client)
        if held is None:
            self._check_count(agent)
        known = 0
        if held is None or not held.agent.shown:
            known = await self._ask_clock(agent)
        live = await self._hub.open_existing(name)
        held = self._held.get(agent.client)  # somebody else may have shown it meanwhile
        if held is None:
            self._check_count(agent)
            held = _Held(agent, live)
        now = self._hub.now()
        if pause := held.count(now):
            public = f"an agent may change {_RATE} times a second"
            raise TooOften(f"{ident!r} changes more than {_RATE} times a second", pause, public)
        held.agent.user = caller.user
        before = held.live
        since = held.facts.since if held.agent.shown else self._hub.clock()
        facts = AgentFacts(caller.access, since)
        if before is not live:
            before.end_agent(held.agent)
        try:
            live.show_agent(held.agent, facts, state, known)
        except CollabError:
            if before is not live and held.agent.client in self._held:
                self._forget(held)
            raise
        held.live, held.facts, held.recheck, held.state = live, facts, caller.recheck, state
        left = seconds if caller.left is None else min(seconds, caller.left)
        held.until, held.renew_at = now + left, now + RENEW_SECONDS
        if agent.client not in self._held:
            self._held[agent.client] = held
            self._of_document[name] += 1
            self._of_user[agent.author] += 1
        return AgentShown(agent.client, self._hub.clock() + left, held.agent.state)

    async def end(self, name: str, ident: str, author: str | None) -> tuple[bool, tuple[str, ...]]:
        """End an agent, whichever node shows it; return whether one did, and which nodes were silent.

        Raises ``Overloaded``: too much is asked of other nodes at a time; it has ended here then.
        """
        agent = Agent(name, author, ident)
        ended = self.end_here(agent.client)
        answers = await self.questions.ask({"kind": "end agent", "client": agent.client})
        return ended or any(said.get("ended") is True for said in answers.said.values()), answers.silent

    def _check_count(self, agent: Agent) -> None:
        for count, most, what in (
            (self._of_document[agent.document], MAX_OF_DOCUMENT, "on this document"),
            (self._of_user[agent.author], MAX_OF_USER, "of this user"),
            (len(self._held), MAX_OF_NODE, "on this server"),
        ):
            if count >= most:
                raise TooManyAgents(f"{count} agents {what}", public=f"there are {most} agents {what} already")

    async def _ask_clock(self, agent: Agent) -> int:
        """Ask the others for the last clock of an agent; 0 where none knows it, or too much is asked."""
        if not self._hub.bus.others:
            return 0
        try:
            answers = await self.questions.ask(
                {"kind": "clock of agent", "name": agent.document, "client": agent.client}
            )
        except Overloaded:
            return 0  # the time is a good clock too
        clocks = [said.get("clock") for said in answers.said.values()]
        return max((clock for clock in clocks if isinstance(clock, int) and 0 <= clock < 1 << 50), default=0)

    # What other nodes ask

    def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of another node; None to one that is not about agents."""
        client = asked.get("client")
        if not isinstance(client, int):
            return None
        if asked.get("kind") == "end agent":
            return {"ended": self.end_here(client)}
        if asked.get("kind") == "clock of agent":
            live = self._hub.rooms.get(str(asked.get("name")))
            return {"clock": 0 if live is None else live.room.awareness.clock_of(client)}
        return None

    # What happens here

    def end_here(self, client: int) -> bool:
        """End an agent of this node; tell whether there was one."""
        held = self._held.get(client)
        if held is None:
            return False
        shown = held.agent.shown
        self._forget(held)
        return shown

    def _forget(self, held: _Held) -> None:
        agent = held.agent
        if self._held.pop(agent.client, None) is None:
            return
        self._of_document -= Counter([agent.document])  # which keeps what is above 0
        self._of_user -= Counter([agent.author])
        held.live.end_agent(agent)

    def sweep(self, now: float) -> None:
        """Do what is due: end, renew, show again; call it every second or so."""
        for held in list(self._held.values()):
            agent, live = held.agent, held.live
            if now >= held.until:
                self._forget(held)
            elif live.ended is not None or self._hub.rooms.get(agent.document) is not live:
                if isinstance(live.ended, DocumentDeleted):
                    self._forget(held)
                elif now >= held.again_at and not held.showing:
                    held.again_at, held.showing = now + _AGAIN, True
                    self._hub.tasks.spawn(self._show_again(held), f"showing an agent on {shown_name(agent.document)}")
            elif not agent.shown:
                self._forget(held)  # another node shows it now
            elif now >= held.renew_at:
                held.renew_at = now + RENEW_SECONDS
                live.renew_agent(agent)

    async def _show_again(self, held: _Held) -> None:
        """Show an agent in the room that has come in the place of the one before."""
        agent = held.agent
        try:
            live = await self._hub.open_existing(agent.document)
            if self._held.get(agent.client) is held and not agent.shown:
                live.show_agent(agent, held.facts, held.state)
                held.live = live
        except CollabError as error:
            if not is_refusal(error):
                raise
            if not error.retryable:
                self._forget(held)
            _limited.info("again", "an agent on %s is not shown now: %s", shown_name(agent.document), error)
        finally:
            held.showing = False

    # What operators tell

    def of(self, document: str | None, user: str | None) -> list[int]:
        """Give the client IDs of the agents on a document, of a user; None stands for any."""
        return [
            client
            for client, held in self._held.items()
            if (document is None or held.agent.document == document) and (user is None or held.agent.author == user)
        ]

    async def check(self, clients: Iterable[int]) -> Counter[Checked]:
        """Ask again what the users of these agents may do; end those that may not read any more."""
        return await ask_again(self._held, clients, self._forget, _note_access)


def _note_access(held: _Held, access: Access) -> None:
    held.facts = held.facts._replace(access=access)
    if held.agent in held.live.agents:
        held.live.agents[held.agent] = held.facts
