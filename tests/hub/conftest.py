"""A hub on a real SQLite store, with members whose sockets are lists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collab.errors import CollabError, StoreUnavailable
from collab.hub.compaction import CompactionPolicy
from collab.hub.hub import Hub, HubOptions
from collab.hub.live import LiveRoom
from collab.hub.member import Member
from collab.protocol.session import Access
from collab.protocol.sync import EMPTY_UPDATE, SyncStep2, SyncUpdate
from collab.protocol.wire import Message, SyncStatus
from collab.sandbox.pool import Sandbox
from collab.storage import migrate
from collab.storage.journal import Journal
from collab.storage.sql import open_store
from collab.storage.store import Append, AppendOutcome, LoadedDocument
from collab.storage.urls import DatabaseUrl, parse_database_url
from tests.support.author import Author

OPTIONS = HubOptions(
    batch_window=0.004,
    history=86_400.0,
    max_document_bytes=1 << 20,
    max_awareness_bytes=65_536,
    max_awareness_ids=100,
    slow_seconds=60.0,
    sync_timeout=60.0,
    idle_seconds=60.0,
    compaction=CompactionPolicy(rows=1 << 30, nbytes=1 << 30, ratio=0.5),
)


class Recorder:
    """An encoder that numbers messages instead of encoding them: members share it as they share a protocol."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def encode(self, message: Message) -> bytes:
        self.messages.append(message)
        size = len(message[0]) if len(message) and not isinstance(message, SyncStatus) else 0
        return len(self.messages).to_bytes(4) + size.to_bytes(4) + bytes(size)

    def decode(self, data: bytes) -> list[Message]:
        """Give the messages of what was written: one frame, or several joined."""
        found, pos = [], 0
        while pos < len(data):
            found.append(self.messages[int.from_bytes(data[pos : pos + 4]) - 1])
            pos += 8 + int.from_bytes(data[pos + 4 : pos + 8])
        return found


class Acknowledged(Member):
    """A member whose protocol says "saved"."""

    acknowledges = True
    stateless = True


class Box:
    """An outbox that keeps what it is given, and holds it back for as long as the test says."""

    mark = 10_000

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.messages: list[Message] = []
        self.writes: list[list[Message]] = []
        self.held = 0
        self.blocked = False
        self.ended: CollabError | None = None
        self.probed = self.refused = 0
        self.changed = asyncio.Event()

    def write(self, data: bytes) -> int:
        self.writes.append(self._recorder.decode(data))
        self.messages += self.writes[-1]
        if self.blocked:
            self.held += len(data)
        self.changed.set()
        return self.held

    def waiting(self) -> int:
        return self.held

    def end(self, member: Member, error: CollabError) -> None:
        self.ended = error
        self.changed.set()

    def probe(self) -> None:
        self.probed += 1

    def note_refused(self, member: Member) -> None:
        self.refused += 1

    def updates(self) -> list[bytes]:
        return [m.update for m in self.messages if isinstance(m, (SyncUpdate, SyncStep2))]

    def verdicts(self) -> list[bool]:
        return [m.saved for m in self.messages if isinstance(m, SyncStatus)]

    def text(self) -> str:
        reader = Author(0)
        for update in self.updates():
            reader.read(update)
        return str(reader.text)

    async def until(self, fact: Callable[[], object], what: str) -> None:
        async with asyncio.timeout(20):
            while not fact():
                self.changed.clear()
                # Not everything that a test waits for is written to this box.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.02)


class FaultyStore:
    """The real store with a switch: while ``down``, it answers as one that cannot be reached."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.down = False
        self.loads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        self._check()
        outcomes: list[AppendOutcome] = await self._store.append(batch)
        return outcomes

    async def load(self, name: str) -> LoadedDocument | None:
        self.loads += 1
        self._check()
        loaded: LoadedDocument | None = await self._store.load(name)
        return loaded

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("switched off by the test")


class Node:
    """One hub with everything below it."""

    def __init__(self, url: DatabaseUrl, backlog_bytes: int = 1 << 20, **options: Any) -> None:
        self.store = FaultyStore(open_store(url))
        self.journal = Journal(self.store, backlog_bytes=backlog_bytes, gather=0.001)
        self.sandbox = Sandbox(1, 30.0, 2 << 30)
        self.hub = Hub(self.store, self.journal, self.sandbox, replace(OPTIONS, **options))
        self.recorder = Recorder()

    async def start(self) -> None:
        await self.store.open()
        await self.hub.start()

    async def stop(self) -> list[str]:
        unsaved = await self.hub.drain(5.0)
        await self.sandbox.close()
        await self.store.close()
        return unsaved

    async def join(
        self, name: str, *, answer: bool = True, kind: type[Member] = Member, access: Access = Access.WRITE
    ) -> tuple[LiveRoom, Member, Box]:
        live = await self.hub.open(name)
        box = Box(self.recorder)
        member = kind(self.recorder, box)
        member.admit(access, None)
        live.join(member)
        if answer:
            live.receive(member, SyncStep2(EMPTY_UPDATE))
        return live, member, box

    async def stored(self, name: str) -> LoadedDocument:
        loaded = await self.store.load(name)
        assert loaded is not None
        return loaded


StartNode = Callable[..., Any]


@pytest.fixture
def url(tmp_path: Path) -> DatabaseUrl:
    url = parse_database_url(None, tmp_path)
    migrate.upgrade(url)
    return url


@pytest.fixture
async def start_node(url: DatabaseUrl) -> AsyncIterator[StartNode]:
    nodes: list[Node] = []

    async def start(**options: Any) -> Node:
        node = Node(url, **options)
        await node.start()
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        if not node.hub.stopping:
            node.store.down = False
            await node.stop()
