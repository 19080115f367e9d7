"""A hub on a real SQLite store, with members whose sockets are lists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collab.adapters import make_store
from collab.cluster.bus import Bus
from collab.cluster.local import LocalBus
from collab.errors import CollabError, StoreUnavailable
from collab.hub import hub as hub_module
from collab.hub import replication as replication_module
from collab.hub.compaction import CompactionPolicy
from collab.hub.hub import Hub, HubOptions
from collab.hub.line import Line
from collab.hub.long_frames import LongFrame
from collab.hub.member import Checked, ConnectionFacts, Member
from collab.hub.membership import TRASH_DAYS, NodeFacts
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, decode_awareness
from collab.protocol.messages import LocalVersion, Message, Stateless, SyncStatus
from collab.protocol.session import Access
from collab.protocol.sync import EMPTY_UPDATE, SyncStep2, SyncUpdate
from collab.sandbox.pool import ProcessSandbox
from collab.sandbox.port import Sandbox
from collab.storage.journal import Journal
from collab.storage.memory import MemoryStore
from collab.storage.records import Append, AppendOutcome, Head, LoadedDocument, LogRow
from collab.storage.urls import DatabaseUrl
from collab.transports.sockets.pacing import PORTION
from tests.support.author import Author
from tests.support.sessions import admit
from tests.support.sqlite import migrated

OPTIONS = HubOptions(
    batch_window=0.004,
    history=86_400.0,
    trash=30 * 86_400.0,
    max_document_bytes=1 << 20,
    max_awareness_bytes=65_536,
    max_awareness_ids=100,
    max_pending_bytes=1 << 20,
    slow_seconds=60.0,
    sync_timeout=60.0,
    min_rate=1024.0,
    idle_seconds=60.0,
    compaction=CompactionPolicy(rows=1 << 30, nbytes=1 << 30, ratio=0.5),
    node=NodeFacts(settings={TRASH_DAYS: "30"}),
)


def read(frame: LongFrame) -> list[bytes | memoryview]:
    """Read a long frame as a socket does."""
    cursor = frame.cursor()
    found: list[bytes | memoryview] = []
    while cursor.left:
        found += cursor.take(PORTION)
    return found


class Recorder:
    """An encoder that numbers messages instead of encoding them: members share it as they share a protocol."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def encode(self, message: Message) -> bytes:
        self.messages.append(message)
        size = len(message[0]) if len(message) and not isinstance(message, (SyncStatus, LocalVersion)) else 0
        return len(self.messages).to_bytes(4) + size.to_bytes(4) + bytes(size)

    def encode_head(self, kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
        self.messages.append(kind(b""))
        return len(self.messages).to_bytes(4) + size.to_bytes(4)

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
        self.number = 0
        self.places: list[tuple[str, Member]] = []
        self.checked = Checked.SAME
        self.checks = 0
        self.unseen: list[CollabError] = []
        self.received = 0
        self.held_up = False
        self.unseen_seconds = 0.0
        self.changed = asyncio.Event()
        self.line = Line()
        self.filled = 0
        self.rate = 0.0  # bytes a second that come through to the client; 0 is at once
        self.unread = 0

    direct = None  # each write is decoded
    quiet = False

    def fill(self, size: int) -> None:
        self.filled += size
        self.unread += size

    def measure(self, done: Callable[[], object]) -> None:
        unread, self.unread = self.unread, 0
        if self.rate:
            asyncio.get_running_loop().call_later(unread / self.rate, done)
        else:
            done()

    def write(self, data: bytes) -> int:
        self.writes.append(self._recorder.decode(data))
        self.messages += self.writes[-1]
        if self.blocked:
            self.held += len(data)
        self.unread += len(data)
        self.changed.set()
        return self.held

    def write_long(self, frame: LongFrame) -> int:
        at = int.from_bytes(frame.head[:4]) - 1
        kind = type(self._recorder.messages[at])
        assert kind is SyncStep2 or kind is SyncUpdate
        self._recorder.messages[at] = kind(frame.parts.join())
        return self.write(b"".join([bytes(buffer) for buffer in read(frame)]))

    def waiting(self) -> int:
        return self.held

    buffered = waiting

    def end(self, member: Member, error: CollabError) -> None:
        self.ended = error
        self.changed.set()

    def facts(self) -> ConnectionFacts:
        return ConnectionFacts(self.number, "y-websocket", "192.0.2.1", 0.0, self.held, list(self.places))

    async def check_access(self, member: Member) -> Checked:
        self.checks += 1
        await asyncio.sleep(0)
        return self.checked

    def probe(self) -> None:
        self.probed += 1

    def note_unseen(self, member: Member, error: CollabError) -> None:
        self.unseen.append(error)

    def note_refused(self, member: Member, what: str) -> None:
        self.refused += 1

    def updates(self) -> list[bytes]:
        return [m.update for m in self.messages if isinstance(m, (SyncUpdate, SyncStep2))]

    def verdicts(self) -> list[bool]:
        return [m.saved for m in self.messages if isinstance(m, SyncStatus)]

    def awareness(self) -> dict[int, tuple[int, str]]:
        """Give the clock and the state of each client, as the awareness updates that came have left them."""
        shown: dict[int, tuple[int, str]] = {}
        for message in self.messages:
            if isinstance(message, AwarenessUpdate):
                for client, clock, state in decode_awareness(message.payload):
                    shown[client] = (clock, state.decode())
        return shown

    def stateless(self) -> list[bytes]:
        return [m.payload for m in self.messages if isinstance(m, Stateless)]

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
    """The real store with switches.

    While ``down``, it answers as one that cannot be reached; while ``full``, only writing fails. While ``blind``, only
    the heads of the log cannot be read: then nothing is found by looking, and what is known of another node was heard.
    ``between`` is awaited by every reading of rows when they have been read, before they are given.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.down = False
        self.full = False
        self.blind = False
        self.loads = self.readings = self.looks = 0
        self.between: Callable[[], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        self._check(self.full)
        outcomes: list[AppendOutcome] = await self._store.append(batch)
        return outcomes

    async def load(self, name: str) -> LoadedDocument | None:
        self.loads += 1
        self._check()
        loaded: LoadedDocument | None = await self._store.load(name)
        return loaded

    async def heads(self, names: Sequence[str]) -> dict[str, Head]:
        self.looks += 1
        self._check(self.blind)
        heads: dict[str, Head] = await self._store.heads(names)
        return heads

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        self.readings += 1
        self._check()
        rows: list[LogRow] = await self._store.rows_after(document_id, seq, limit)
        if self.between is not None:
            await self.between()
        return rows

    def _check(self, also: bool = False) -> None:
        if self.down or also:
            raise StoreUnavailable("switched off by the test")


class Node:
    """One hub with everything below it."""

    def __init__(
        self,
        url: DatabaseUrl | None,
        backlog_bytes: int = 1 << 20,
        *,
        bus: Bus | None = None,
        sandbox: Sandbox | None = None,
        **options: Any,
    ) -> None:
        self.store = FaultyStore(MemoryStore() if url is None else make_store(url))
        self.journal = Journal(self.store, backlog_bytes=backlog_bytes, gather=0.001)
        self.sandbox = ProcessSandbox(1, 30.0, 2 << 30) if sandbox is None else sandbox
        self.hub = Hub(
            self.store, self.journal, self.sandbox, replace(OPTIONS, **options), LocalBus() if bus is None else bus
        )
        self.recorders: dict[type[Member], Recorder] = {}
        self.closed = False

    @property
    def recorder(self) -> Recorder:
        """The encoder of members whose protocol does not acknowledge."""
        return self.recorders.setdefault(Member, Recorder())

    async def start(self) -> None:
        await self.store.open()
        await self.hub.start()

    def keep_busy(self) -> None:
        """Make the hub take this node for busy from now on, so that rooms wait for their whole windows."""
        window = self.hub._turns.window
        window.measure(1.0, 0.0, 0.0)
        window.measure(2.0, 1.0, 0.0)
        window.measure_at = float("inf")

    async def stop(self) -> list[str]:
        unsaved = await self.hub.drain(5.0)
        await self.close()
        return unsaved

    async def close(self) -> None:
        """Close what a hub that has stopped does not close itself."""
        self.closed = True
        await self.sandbox.close()
        await self.store.close()

    async def join(
        self, name: str, *, answer: bool = True, kind: type[Member] = Member, access: Access = Access.WRITE
    ) -> tuple[LiveRoom, Member, Box]:
        live = await self.hub.open(name)
        recorder = self.recorders.setdefault(kind, Recorder())
        box = Box(recorder)
        member = kind(recorder, box, box)
        admit(member, access)
        box.places.append((name, member))
        live.join(member)
        if answer:
            live.receive(member, SyncStep2(EMPTY_UPDATE))
        return live, member, box

    async def write(self, live: LiveRoom) -> None:
        """End the turn of a room, and return when it is in the log."""
        live.end_turn(self.hub.now())
        await live.persistence.durable()

    async def stored(self, name: str) -> LoadedDocument:
        loaded = await self.store.load(name)
        assert loaded is not None
        return loaded


StartNode = Callable[..., Any]

SWEEP = hub_module._SWEEP
"""Seconds between two looks at everything, as a server takes them."""


@pytest.fixture(autouse=True)
def sweeps_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hubs look ten times as often: what a test waits for is then there in a tenth of the time."""
    monkeypatch.setattr(hub_module, "_SWEEP", SWEEP / 10)
    monkeypatch.setattr(replication_module, "_LOOK", SWEEP / 10)
    monkeypatch.setattr(replication_module, "_SHORTEST", 0.01)


@pytest.fixture
def url(tmp_path: Path) -> DatabaseUrl:
    return migrated(tmp_path)


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
        if not node.closed:
            node.store.down = node.store.full = False
            await (node.close() if node.hub.stopping else node.stop())
