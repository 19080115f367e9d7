"""Clients that edit without rest and come back whenever the server goes away.

Each edit puts one token that exists nowhere else into an array, so what was lost or came twice can be
told by name at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pycrdt import Array, Doc, Map

from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient

# 100 edits a second and client: the server gathers several into each commit, and the test itself keeps up.
PAUSE = 0.01


class Load:
    """``clients`` live clients on each document; :meth:`stop` ends the editing, leaving the block the clients.

    Every second client comes by ``line``, if there is one. ``pause`` is the longest time between two edits of a client,
    in seconds.

    Attributes:
        made: the tokens that were put into each document, by its name.
    """

    def __init__(
        self,
        server: ServerProcess,
        names: Sequence[str],
        clients: int,
        seed: int,
        *,
        line: SlowLine | None = None,
        pause: float = PAUSE,
    ) -> None:
        self.names = list(names)

        def address(name: str, number: int) -> str:
            url = server.document_url(name)
            return through(line, url) if line is not None and number % 2 else url

        self.clients = {name: [LiveClient(address(name, i), keep=True) for i in range(clients)] for name in names}
        self._pause = pause
        self.made: dict[str, list[str]] = {name: [] for name in names}
        self._random = random.Random(seed)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for name, clients in self.clients.items():
            for i, client in enumerate(clients):
                await client.connect()
                self._tasks.append(asyncio.create_task(self._edit(client, name, i)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        for clients in self.clients.values():
            for client in clients:
                await client.close()

    async def stop(self) -> None:
        """End the editing; the clients stay."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def large(self, name: str, number: int, size: int) -> None:
        """Let a client make an edit of so many bytes."""
        doc = self.clients[name][number].doc
        token = f"{number}:{len(self.made[name])}:large"
        self.made[name].append(token)
        with doc.transaction():
            self._put(doc.get("tokens", type=Array), token)
            doc.get("large", type=Map)["plain"] = large_value(token, self._random.randbytes(size))

    async def until_made(self, more: int) -> None:
        """Wait until that many more edits were made in each document."""
        goal = {name: len(made) + more for name, made in self.made.items()}

        async def reached() -> bool:
            return all(len(self.made[name]) >= goal[name] for name in self.names)

        await eventually(reached, f"{more} more edits")

    async def converged(self) -> None:
        """Wait until every client has every token, and assert that it has each of them once."""
        for name, clients in self.clients.items():
            expected = sorted(self.made[name])
            for client in clients:
                await client.until(
                    lambda client=client, expected=expected: len(array(client)) >= len(expected),  # type: ignore[misc]
                    f"all {len(expected)} edits of {name}",
                    seconds=60.0,
                )
                assert sorted(array(client)) == expected
            assert len({tuple(array(client)) for client in clients}) == 1

    async def _edit(self, client: LiveClient, name: str, number: int) -> None:
        for n in range(1_000_000):
            token = f"{number}:{n}"
            self.made[name].append(token)
            self._put(client.doc.get("tokens", type=Array), token)
            # Offline a person edits too, but what piles up while the server starts need not be all of the load.
            await asyncio.sleep(self._pause * self._random.random() * (2 if client.open else 20))

    def _put(self, tokens: Array[Any], token: str) -> None:
        tokens.insert(self._random.randint(0, len(tokens)), token)


def array(client: LiveClient) -> list[str]:
    """The tokens that a client sees."""
    return tokens_of(client.doc)


def tokens_of(doc: Doc[Any]) -> list[str]:
    """The tokens that a document holds."""
    tokens: Array[Any] = doc.get("tokens", type=Array)
    return tokens.to_py() or []


def through(line: SlowLine, url: str) -> str:
    """The same address by another line."""
    return urlsplit(url)._replace(netloc=f"127.0.0.1:{line.port}").geturl()


def large_value(token: str, filling: bytes) -> bytes:
    """What a large edit puts into the map ``large`` beside its token: it shows whether it is whole."""
    body = f"{token}\n".encode() + filling
    return body + hashlib.sha256(body).digest()


def faults_of_large(doc: Doc[Any]) -> list[str]:
    """What is wrong with the large values of a document; nothing if each is whole and its token is there."""
    faults = []
    large: Map[Any] = doc.get("large", type=Map)
    for key, value in (large.to_py() or {}).items():
        token = value.partition(b"\n")[0].decode(errors="replace")
        if hashlib.sha256(value[:-32]).digest() != value[-32:]:
            faults.append(f"the large value {key!r} of {token!r} is not what was sent")
        elif token not in tokens_of(doc):
            faults.append(f"the large value {key!r} is there without its token {token!r}")
    return faults
