"""Published npm clients in a Node process, driven from a test.

Strategy: the clients run in ``tests/node/interop_agent.mjs`` and do nothing of their own; a test
tells them one line at a time, because the test is also who starts, stops and kills the server.
One process holds one generation of Yjs, so clients 3.0 and 3.1 share one and 4 has its own.
What speaks with such a process (`NodeAgent`) serves the Hocuspocus providers, too.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

from tests.support.node_process import NodeProcess

GENERATION = {"3.0": "yjs13", "3.1": "yjs13", "4": "yjs14"}
VERSIONS = tuple(GENERATION)


class NodeAgent(NodeProcess):
    """One Node process with any number of clients; use as an async context manager.

    Answers may come in any order, so one client may wait while another is told what it waits for.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        super().__init__(script, *arguments)
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, op: str, **arguments: Any) -> Any:
        """Have the agent do one thing and return its answer; its errors are raised as AssertionError."""
        assert self._process is not None and self._process.stdin is not None
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._process.stdin.write(json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n")
        return await asyncio.wait_for(answer, 60)

    async def together(self, updates: Sequence[str]) -> dict[str, Any]:
        """What a single Yjs shows that was given all these updates (base64)."""
        shown: dict[str, Any] = await self.ask("together", updates=list(updates))
        return shown

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            answer = self._answers.pop(message["id"])
            if answer.done():
                continue
            if "error" in message:
                answer.set_exception(AssertionError(message["error"]))
            else:
                answer.set_result(message["value"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AssertionError("the Node process ended:\n" + self.stderr))


class Agent(NodeAgent):
    """A process of y-websocket clients of one generation of Yjs."""

    def __init__(self, generation: str) -> None:
        super().__init__("interop_agent.mjs", generation)

    def client(self, key: str) -> Client:
        return Client(self, key)

    async def open(self, key: str, version: str | None = None, url: str = "", name: str = "", **more: Any) -> Client:
        """Make a document and, when a version is given, connect it by that version's provider."""
        if version is not None:
            more |= {"version": version, "url": url, "name": name}
        await self.ask("open", key=key, **more)
        return Client(self, key)


class DocumentClient:
    """What every client in an agent can do, whatever its protocol; the methods are the agent's operations."""

    def __init__(self, agent: NodeAgent, key: str) -> None:
        self.agent = agent
        self.key = key

    async def edit(self, edit: str, **arguments: Any) -> None:
        """Do one of the edits of ``tests/node/lib/content.mjs``."""
        await self.agent.ask("edit", key=self.key, edit=edit, args=arguments)

    async def apply(self, update: bytes) -> None:
        """Apply an update that has come by another way than the provider, as from another tab."""
        await self.agent.ask("apply", key=self.key, update=base64.b64encode(update).decode())

    async def keep_on(self, disk: str) -> None:
        """Read the copy that a disk has, as y-indexeddb does, and keep the document there from now on."""
        await self.agent.ask("keepOn", key=self.key, disk=disk)

    async def state(self) -> dict[str, Any]:
        state: dict[str, Any] = await self.agent.ask("state", key=self.key)
        return state

    async def progress(self) -> dict[str, Any]:
        """Give ``length`` of the root text, ``synced``, and ``opens`` of the socket: little, however large the text."""
        progress: dict[str, Any] = await self.agent.ask("progress", key=self.key)
        return progress

    async def large(self, name: str, size: int, seed: int = 1) -> str:
        """Put noise of so many bytes under a name; return its digest."""
        digest: str = await self.agent.ask("large", key=self.key, name=name, size=size, seed=seed)
        return digest

    async def until_large(self, name: str, want: str) -> None:
        """Wait until a value put there by :meth:`large` is here."""
        await self.agent.ask("untilLarge", key=self.key, name=name, want=want)

    async def until(self, **want: Any) -> dict[str, Any]:
        """Wait until these parts of the state are as given; return the state."""
        state: dict[str, Any] = await self.agent.ask("until", key=self.key, want=want)
        return state

    async def encode(self) -> str:
        update: str = await self.agent.ask("encode", key=self.key)
        return update

    async def present(self, value: Any) -> None:
        await self.agent.ask("present", key=self.key, value=value)


class Client(DocumentClient):
    """One y-websocket client."""

    async def received(self) -> list[str]:
        frames: list[str] = await self.agent.ask("received", key=self.key)
        return frames

    async def connect(self) -> None:
        await self.agent.ask("connect", key=self.key)

    async def disconnect(self) -> None:
        await self.agent.ask("disconnect", key=self.key)

    async def vanish(self) -> None:
        await self.agent.ask("vanish", key=self.key)

    async def close(self) -> None:
        await self.agent.ask("close", key=self.key)


CONTENT = ("text", "map", "array", "xml", "snapshot")


def content(state: dict[str, Any], parts: Sequence[str] = CONTENT) -> dict[str, Any]:
    """The parts of a state that all clients of a document must share."""
    return {part: state[part] for part in parts}


async def converge(
    clients: Sequence[DocumentClient], parts: Sequence[str] = CONTENT, seconds: float = 30.0
) -> dict[str, Any]:
    """Wait until all clients have seen every edit and deletion of all, and return what they share.

    Each client has its own edits, so equal snapshots (state vector and delete set) say that nobody
    lacks anything; the content must be equal then, at once.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        states = [await client.state() for client in clients]
        if len({state["snapshot"] for state in states}) == 1:
            break
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"no convergence within {seconds} s:\n" + "\n".join(map(repr, states)))
        await asyncio.sleep(0.01)
    first, *others = (content(state, parts) for state in states)
    for client, other in zip(clients[1:], others, strict=True):
        assert other == first, f"{client.key} differs from {clients[0].key} though both saw everything"
    return first
