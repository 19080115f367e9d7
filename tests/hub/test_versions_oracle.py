"""Versions against real yjs: whatever was pruned and thinned, each is what yjs held then.

Strategy: random sessions of three yjs clients (``tests/node/yjs_fuzz.mjs``), with every kind of content, undo and edits
made offline. What they send goes into a log on SQLite as a room writes it. Meanwhile snapshots are made, named versions
are made and pinned, and what is old is pruned and thinned. A fourth client only watches: what it shows after a row is
what the state after this row has to give.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from collab.adapters import make_store
from collab.engine.document import Document
from collab.errors import HistoryGone
from collab.hub.versions import CompactsInThread, Versions, Which
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, Appended, Snapshot
from collab.storage.store import Store
from collab.update.compact import compact
from tests.support.needs import size
from tests.support.node import NodeScript
from tests.support.sqlite import migrated

pytestmark = pytest.mark.node

STEP1, STEP2, UPDATE = 0, 1, 2
WRITERS, WATCHER = 3, 3
STEPS = 40


class Played:
    """One session: the clients in Node, the server's part, and what the watcher has seen after each row."""

    def __init__(self, script: NodeScript, store: Store, seed: int) -> None:
        self.script = script
        self.store = store
        self.seed = seed
        self.name = f"session {seed}"
        self.choose = random.Random(seed)
        self.versions = Versions(store, CompactsInThread(), clock=lambda: float(self.rows))
        self.document = Document()
        self.document_id: int | None = None
        self.rows = 0
        self.seen: dict[int, dict[str, Any]] = {}
        self.named: dict[int, int] = {}

    def ask(self, *command: Any) -> Any:
        [answer] = self.script.call([list(command)])
        return answer

    async def play(self) -> None:
        self.script.call([["open", self.seed, self.seed, False]])
        for _ in range(WRITERS + 1):
            self.ask("client", self.seed, self.choose.random() < 0.5, None)
        online = set(range(WRITERS + 1))
        for client in online:
            await self.connect(client)
        for _ in range(STEPS):
            client = self.choose.randrange(WRITERS)
            action = self.choose.random()
            if action < 0.6:
                frames = self.ask("edit", self.seed, client, self.choose.randint(1, 4))
                await self.take(frames if client in online else [])
            elif action < 0.7 and client in online:
                online.discard(client)
                self.ask("drop", self.seed, client)
            elif action < 0.8 and client not in online:
                online.add(client)
                await self.connect(client)
            elif self.rows:
                await self.tidy_up(action)

    async def connect(self, client: int) -> None:
        frames = self.ask("connect", self.seed, client)
        vector = self.document.encode_state_vector()
        theirs = next(bytes.fromhex(data) for kind, data in frames if kind == STEP1)
        missing = self.document.encode_state_as_update(theirs)
        answers = [[STEP1, vector.hex()], [STEP2, missing.hex()]]
        await self.take([*frames, *self.ask("receive", self.seed, client, answers)])

    async def take(self, frames: list[list[Any]]) -> None:
        """Take what a client has sent, and let all others have it until nobody has anything to say."""
        for kind, data in frames:
            if kind == STEP1:
                continue
            self.document.apply_update(bytes.fromhex(data))
            turn = self.document.flush()
            if turn is None:
                continue
            for row in turn.rows:
                await self.append(row.data)
            said: list[list[Any]] = []
            for client in range(WRITERS + 1):
                said += self.ask("receive", self.seed, client, [[UPDATE, turn.delta.hex()]])
            if not said:
                self.seen[self.rows] = self.ask("view", self.seed, WATCHER, False)
            await self.take(said)

    async def append(self, data: bytes) -> None:
        rows = (seal_row(data, float(self.rows + 1), "somebody"),)
        (outcome,) = await self.store.append([Append(self.name, self.document_id, rows)])
        assert isinstance(outcome, Appended)
        self.document_id, self.rows = outcome.document_id, outcome.last_seq

    async def tidy_up(self, action: float) -> None:
        """Make a snapshot or a version, or remove what is old."""
        assert self.document_id is not None
        if action < 0.88:
            made = compact(self.document.encode_state_as_update())
            vector = self.document.encode_state_vector()
            snapshot = Snapshot(self.rows, made.data, made.index, vector, float(self.rows))
            await self.store.write_snapshot(self.document_id, seal_snapshot(snapshot))
        elif action < 0.95:
            number = self.choose.randint(max(1, self.rows - 3), self.rows)
            try:
                self.named[(await self.versions.make(self.name, "v", number=number)).id] = number
            except HistoryGone:
                return
        else:
            before = float(self.choose.randint(0, self.rows))
            await self.versions.pin_due(before, ())
            while await self.store.prune(before=before, limit=3):
                pass
            await self.store.thin_snapshots(limit=2)

    async def check(self) -> tuple[int, int]:
        """Compare all states with what the watcher saw; give how many were compared, and how many are gone."""
        compared = gone = 0
        for number, seen in self.seen.items():
            try:
                state = await self.versions.state(self.name, Which(number=number))
            except HistoryGone:
                gone += 1
                continue
            compared += self.same(state.document, seen)
        for version_id, number in self.named.items():
            state = await self.versions.state(self.name, Which(version=version_id))
            assert state.number == number
            if number in self.seen:
                compared += self.same(state.document, self.seen[number])
        return compared, gone

    def same(self, document: Document, seen: dict[str, Any]) -> int:
        shown = self.ask("reader", [document.encode_state_as_update().hex()], True, False, False)
        assert {**seen, "deletes": ""} == {**shown, "deletes": ""}, f"session {self.seed}"
        return 1


async def test_every_version_is_what_yjs_held_then(tmp_path: Path) -> None:
    store = make_store(migrated(tmp_path))
    await store.open()
    compared = gone = pinned = 0
    try:
        with NodeScript("yjs_fuzz.mjs") as script:
            for seed in range(1, 1 + size(10, small=4)):
                played = Played(script, store, seed)
                await played.play()
                one, other = await played.check()
                compared, gone, pinned = compared + one, gone + other, pinned + played.versions.pinned
                script.call([["close", seed]])
    finally:
        await store.close()
    # Sessions in which nothing was pruned or pinned would show little.
    assert compared > gone > 0 and pinned > 0, (compared, gone, pinned)
