"""Readers that are level, of each stream that a document has: one that fails costs none of the others.

Strategy: three streams, three readers each, of which the one in the middle fails. What a reader is handed in the usual
cases stands with the tests of each stream.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from collab.auth.access import Grant
from collab.hub.named_presence import NamedCursor
from collab.hub.presence_tail import PresenceCursor
from collab.hub.readers import Cursor, LevelReaders
from collab.hub.readers import Reader as InList
from collab.hub.streaming import DocumentCursor
from collab.protocol.session import Access
from collab.protocol.streams import Batch, Begin
from collab.protocol.sync import SyncUpdate
from tests.hub.conftest import Node, StartNode
from tests.hub.test_agents import created
from tests.hub.test_stream_presence import end_turn, post
from tests.support.author import Author
from tests.support.waiting import happens

Change = Callable[[], Awaitable[object]]


class Reader:
    """A reader of which the test says how it takes what comes."""

    def __init__(self, cursor: Cursor, *, fails: bool = False, takes: bool = True) -> None:
        self.cursor = cursor
        self.fails = fails
        self.takes = takes
        self.batches: list[Batch] = []
        self.woken = 0

    def push(self, batch: Batch) -> bool:
        if self.fails:
            raise RuntimeError("a defect")
        if self.takes:
            self.batches.append(batch)
        return self.takes

    def wake(self) -> None:
        self.woken += 1

    async def level(self) -> None:
        while not (await self.cursor.read()).up_to_date or not self.cursor.attach(self):
            pass


async def _granted() -> Grant:
    return Grant(Access.READ)


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    found: Node = await start_node()
    await created(found)
    return found


async def stream_of(node: Node, kind: str) -> tuple[Callable[[], Cursor], LevelReaders, Change]:
    """Give what makes cursors of a stream, those of its readers that are level, and what changes it."""
    live, member, _ = await node.join("d")
    if kind == "presence":
        tail = live.open_presence()
        clocks = iter(range(1, 9))

        async def show() -> None:
            await post(node, next(clocks))
            end_turn(node)

        return lambda: PresenceCursor(tail, Begin.NOW), tail.level, show
    if kind == "named":
        stream = await node.hub.named.post(live, "cursors", b"\1a")
        make = lambda: NamedCursor(stream, stream.begin(Begin.NOW, node.hub.now()))  # noqa: E731
        return make, stream.level, lambda: node.hub.named.post(live, "cursors", b"\1b")
    log, author = live.open_tail(), Author(7)
    assert log is not None
    live.readers[InList(7, "d", "192.0.2.1", Grant(Access.READ), _granted)] = None  # rows are kept for such

    async def write() -> None:
        live.receive(member, SyncUpdate(author.type("a")))
        await node.write(live)

    unasked: Any = None  # it reads what the end of the log does not have
    return lambda: DocumentCursor(unasked, node.hub, live, log, Begin.NOW), log.level, write


@pytest.mark.parametrize("kind", ["document", "presence", "named"])
async def test_a_reader_that_fails_costs_none_of_the_others(
    node: Node, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, level, change = await stream_of(node, kind)
    readers = [Reader(make()), Reader(make(), fails=True), Reader(make(), takes=False), Reader(make())]
    for reader in readers:
        await reader.level()
    with caplog.at_level(logging.ERROR, "collab.streams"):
        await change()
        await happens(lambda: readers[3].batches, "the last one is told")
    first, failing, slow, last = readers
    assert first.batches == last.batches and len(first.batches) == 1
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]
    assert failing.woken == 1 and slow.woken == 0, "one that is slow wakes itself"
    await change()
    await happens(lambda: len(last.batches) == 2, "both are told again")
    assert len(first.batches) == 2 and failing.woken == 1 and slow.batches == [], "who is not level is told nothing"
    failing.fails = False
    for late in (failing, slow):
        late.cursor.detach()
        late.takes = True
        await late.level()
    await change()
    await happens(lambda: len(last.batches) == 3, "all are level again")
    assert failing.batches == slow.batches == last.batches[2:]
    for reader in readers:
        reader.cursor.detach()
        reader.cursor.detach()
    assert not level
