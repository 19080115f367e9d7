"""A document whose clients must not notice what one bad client does.

Strategy: before the attack the document has content, two healthy clients and a silent watcher. Each
attack comes over a socket of its own. Afterwards the document must read byte for byte as before, the
watcher must have seen none of the attack, and the healthy clients must go on syncing.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.server import ServerProcess
from tests.support.wsclient import (
    EMPTY_UPDATE,
    STEP1,
    STEP2,
    SYNC,
    UPDATE,
    Frame,
    LiveClient,
    RawClient,
    converge,
    parse,
    step1,
    step2,
)

# Client IDs of the healthy clients: hostile updates speak of clients 5, 6 and those of the fuzz corpus.
ADA, BOB = 9001, 9002


class Outcome(NamedTuple):
    """What became of a bad client: its close code (None: still open) and what it was sent after its attack."""

    close_code: int | None
    frames: list[Frame]

    @property
    def asked(self) -> int:
        """How often the server asked for what it lacks."""
        return sum(frame.type == SYNC and frame.kind == STEP1 for frame in self.frames)


class Ward:
    """One document under guard; ``content`` are updates that it holds before the attack."""

    def __init__(self, server: ServerProcess, name: str, *, ada: int = ADA) -> None:
        self.server = server
        self.name = name
        self.url = server.document_url(name)
        self.ada = LiveClient(self.url, client_id=ada)
        self.bob = LiveClient(self.url, client_id=BOB)
        self.watcher = RawClient(self.url)
        self.before = b""
        self._stack = contextlib.AsyncExitStack()
        self._seen = 0
        self._pid = server.pid

    async def __aenter__(self) -> Self:
        for client in (self.ada, self.bob):
            await self._stack.enter_async_context(client)
            await client.until_synced()
        self.ada.text().insert(0, "healthy")
        await converge([self.bob], lambda client: str(client.text()), "healthy")
        await self._stack.enter_async_context(self.watcher)
        await self.watcher.expect_sync(STEP1)
        await self.watcher.send(step2(EMPTY_UPDATE))
        await self.watcher.barrier()
        await self.remember()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if isinstance(error, Exception):
            error.add_note(self.server.report())

    async def remember(self) -> None:
        """Take the document as it is now for what must be there afterwards."""
        self.before = await self.read()
        await self.watcher.barrier()
        self._seen = len(self.watcher.frames)

    async def read(self) -> bytes:
        """Read the whole document as a newcomer gets it."""
        async with RawClient(self.url) as reader:
            await reader.send(step1())
            return await reader.expect_sync(STEP2)

    async def attack(self, *frames: bytes, answer: bool = True) -> Outcome:
        """Send frames over a socket of their own and see what comes of it.

        With ``answer`` the server's own step 1 is answered first, as every real client does.
        """
        async with RawClient(self.url) as bad:
            await bad.expect_sync(STEP1)
            if answer:
                await bad.send(step2(EMPTY_UPDATE))
                await bad.barrier()
            after = len(bad.frames)
            for frame in frames:
                await bad.send(frame)
            await bad.barrier_or_close()
            return Outcome(bad.close_code, [parse(frame) for frame in bad.frames[after:]])

    async def check_untouched(self) -> None:
        """Assert that the document is what it was and that nothing of the attack was relayed."""
        assert await self.read() == self.before
        await self.watcher.barrier()
        seen = [parse(frame) for frame in self.watcher.frames[self._seen :]]
        assert [frame for frame in seen if frame.type == SYNC and frame.kind == UPDATE] == []
        assert self.watcher.open

    async def check_unharmed(self) -> None:
        """Assert that the healthy clients still edit together and that the server is the same process."""
        assert self.server.running and self.server.pid == self._pid
        assert self.ada.open and self.bob.open
        assert (self.ada.connects, self.bob.connects) == (1, 1)
        self.bob.text().insert(0, "still ")
        await converge([self.ada], lambda client: str(client.text()), str(self.bob.text()))
        assert str(self.ada.text()).startswith("still ")
