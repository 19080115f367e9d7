"""The published clients of both protocols on three nodes: they edit, show themselves, and tell what they hold.

Strategy: Hocuspocus providers of all versions are on every node and keep the books of what they were told to be saved
(:mod:`tests.crash.test_hocuspocus`); a y-websocket client of another version is on each node. One more comes and goes
with each fault: it is to find the whole document, and to leave no ghost. Equal snapshots (state vector and delete set)
are equal documents.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.chaos.cluster import Node
from tests.crash.stored import StoredLog, read
from tests.crash.test_hocuspocus import VERSIONS, Providers
from tests.interop.agent import GENERATION, Agent, Client

# Edits of each provider in a second, and the seconds between two of a y-websocket client.
EDITS = 6
PAUSE = 0.15

YWEBSOCKET = ("3.0", "3.1", "4")
"""The version on each of the nodes."""

_VISITOR = "3.1"


@dataclass
class Seen:
    """What all clients hold at one moment: ``lacking`` and ``strangers`` say in words what is not as it should be."""

    lacking: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join([words("; ".join(found)) for found in (self.lacking, self.strangers) if found])


class Clients:
    """All clients of one document; use as an async context manager.

    Attributes:
        name: the document.
        saved: the tokens that a provider was told to be saved.
    """

    def __init__(self, nodes: Sequence[Node], name: str) -> None:
        self.name = name
        self._nodes = nodes
        lines = {f"{node.name} ": node.server.hocuspocus_url for node in nodes}
        self._providers = Providers(lines, [name], EDITS, presence=True)
        self._agents = {generation: Agent(generation) for generation in dict.fromkeys(GENERATION.values())}
        self._typing: dict[str, Client] = {}  # by what they show
        self._visitor: tuple[str, Client] | None = None
        self._visitors = 0
        self._pushed: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._resting = False
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for process in (self._providers, *self._agents.values()):
            await self._stack.enter_async_context(process)
        for node, version in zip(self._nodes, YWEBSOCKET, strict=True):
            who = f"{node.name} y-websocket {version}"
            self._typing[who] = await self._open(who, version, node)
        await self.change_visitor(self._nodes[0])
        self._task = asyncio.create_task(self._type())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._stack.__aexit__(kind, error, trace)

    async def _open(self, who: str, version: str, node: Node) -> Client:
        agent = self._agents[GENERATION[version]]
        client = await agent.open(who, version, node.server.ws_url, self.name)
        await client.present({"who": who})
        return client

    async def change_visitor(self, node: Node) -> None:
        """Let the visitor go, and another one come to this node."""
        if self._visitor is not None:
            await self._visitor[1].close()
        self._visitors += 1
        who = f"visitor {self._visitors}"
        self._visitor = who, await self._open(who, _VISITOR, node)

    async def _type(self) -> None:
        number = 0
        loop = asyncio.get_running_loop()
        again = loop.time() + 1.0
        while True:
            if loop.time() >= again and not self._resting:
                again = loop.time() + 1.0
                self._providers.more()
            for who, client in self._typing.items():
                number += not self._resting
                if not self._resting:
                    self._pushed.append(f"{who}:{number}")
                    await client.edit("push", values=[f"{who}:{number}"])
            await asyncio.sleep(PAUSE)

    @property
    def saved(self) -> set[str]:
        return self._providers.saved[self.name]

    def more(self) -> None:
        """Let everybody edit, until :meth:`rest`."""
        self._resting = False
        self._providers.more()

    async def rest(self) -> None:
        """Let nobody edit any more; return when nobody does."""
        self._resting = True
        self._providers.rest()
        await self._providers.state(brief=True)

    async def until_saved(self, more: int) -> None:
        """Wait until the providers were told that so many more tokens are saved."""
        await self._providers.until_saved(more)

    def _present(self) -> list[str]:
        assert self._visitor is not None
        providers = [f"{node.name} {version}" for node in self._nodes for version in VERSIONS]
        return sorted([*providers, *self._typing, self._visitor[0]])

    async def look(self) -> Seen:
        """Compare what all clients hold, while nobody edits."""
        assert self._visitor is not None
        seen = Seen()
        state = await self._providers.state(brief=True)
        made = state["made"][self.name]
        if state["waiting"]:
            seen.lacking.append(f"{state['waiting']} updates are not acknowledged")
        snapshots: Counter[str] = Counter()
        for one in state["clients"]:
            snapshots[one["snapshot"]] += 1
            self._compare(seen, f"provider {one['version']}", one["count"], made, one["present"])
            if one["unsynced"]:
                seen.lacking.append(f"provider {one['version']} has unsynced changes")
        for who, client in (*self._typing.items(), self._visitor):
            shown = await client.state()
            snapshots[shown["snapshot"]] += 1
            present = sorted(str(value.get("who")) for value in shown["states"].values())
            self._compare(seen, who, len(shown["array"]), len(self._pushed), present)
        if len(snapshots) > 1:
            seen.lacking.append(f"{len(snapshots)} different documents: {sorted(snapshots.values())} clients")
        return seen

    def _compare(self, seen: Seen, who: str, count: int, wanted: int, present: list[str]) -> None:
        if count != wanted:
            seen.lacking.append(f"{who} has {count} of {wanted} edits")
        if present != self._present():
            here, there = Counter(present), Counter(self._present())
            seen.strangers.append(f"{who} misses {sorted(there - here)} and sees the ghosts {sorted(here - there)}")

    async def unstored(self, log: StoredLog) -> set[str]:
        """Give the tokens that were called saved by now and are in no row of the log.

        What refers to edits that have not come yet is acknowledged and kept beside the log, so this is for a moment in
        which nothing is on its way, or it names what may be kept.
        """
        saved = set(self.saved)
        data = b"\0".join(row for _, row in (await read(log)).get(self.name, ()))
        return {token for token in saved if _encoded(token) not in data}


def _encoded(token: str) -> bytes:
    """Give a text as it stands in an update: 119 is a text, its length comes before it."""
    text = token.encode()
    return bytes((119, len(text))) + text


def words(text: str) -> str:
    """Shorten what is to be shown in a line."""
    return text if len(text) < 600 else text[:600] + " ..."
