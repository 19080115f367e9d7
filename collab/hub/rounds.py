"""When idle members of a room are asked to announce themselves, because a client has come back that does not see them.

Strategy: one round serves all who have come back by then, and all who left before it. The first one is asked for at
once, the next one some seconds later. Members are asked a hundred at a time, and the loop goes on in between.

For those who have come back on other nodes there are rounds of their own, as many at most for all other nodes together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from collab.engine.room import Effect, Room
from collab.errors import CollabError
from collab.hub.tasks import Tasks
from collab.protocol.session import State
from collab.telemetry import shown_name

ASK_SECONDS: Final = 10.0
"""Seconds between two rounds. Clients renew their states by themselves every 15 s, and later for having been asked: so
this is at most half as much again as they say anyway."""

# Members that are asked in one turn of the loop: about half a millisecond.
_AT_ONCE: Final = 100


class Asking(Protocol):
    """What a round needs of a live room."""

    name: str
    room: Room
    ended: CollabError | None

    def perform(self, effects: Iterable[Effect]) -> None:
        """Do what the room asks for."""
        ...

    def renew_agents(self) -> bool:
        """Let agents announce themselves anew; tell whether there are any."""
        ...

    def ask_there(self, clients: bytes) -> None:
        """Let other nodes ask clients of theirs, ``Room.begin_round`` says which."""
        ...


class Rounds:
    """The rounds of one room.

    Args:
        tasks: run them.
        now: gives the loop's time in seconds.
        for_others: they are for those who have come back on other nodes.
    """

    __slots__ = ("_begun", "_for_others", "_now", "_running", "_tasks")

    def __init__(self, tasks: Tasks, now: Callable[[], float], *, for_others: bool = False) -> None:
        self._for_others = for_others
        self._tasks = tasks
        self._now = now
        self._begun = float("-inf")
        self._running = False

    def ask_soon(self, live: Asking) -> None:
        """Have a round now, or when enough time has passed since the last one; nothing happens if it is planned."""
        if self._running:
            return
        work = self._run(live)
        try:
            self._tasks.spawn(work, f"asking who is on {shown_name(live.name)}")
            self._running = True
        except BaseException:
            work.close()
            raise

    async def _run(self, live: Asking) -> None:
        try:
            while live.ended is None and (live.room.asked if self._for_others else live.room.lacking):
                await asyncio.sleep(max(0.0, self._begun + ASK_SECONDS - self._now()))
                await self._ask(live)
        finally:
            self._running = False

    async def _ask(self, live: Asking) -> None:
        if live.renew_agents():
            self._begun = self._now()
        here, there = live.room.begin_round_for_others() if self._for_others else live.room.begin_round()
        if there is not None:
            self._begun = self._now()
            live.ask_there(there)
        for count, effect in enumerate(here):
            if count == 0:
                self._begun = self._now()  # one in which nobody has to be asked is none
            elif count % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if live.ended is None and effect.session.state is not State.CLOSED:
                live.perform((effect,))
