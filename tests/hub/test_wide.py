"""Documents of many client IDs: nothing that one member asks for, or lacks, is put together in one go.

Strategy: what works in one go is forbidden here, so every answer has to be made in slices; how much a slice may be is
tested where it is made. Others edit in every turn of the loop in between, and nothing of that may be missing.
"""

from __future__ import annotations

import asyncio

import pytest

from collab.engine.answers import WIDE, takes_long
from collab.engine.document import Document
from collab.hub import catch_up as catch_up_module
from collab.hub import delivery as delivery_module
from collab.hub import room as room_module
from collab.hub.long_frames import Frame
from collab.hub.member import Encoder, Member
from collab.hub.room import LiveRoom
from collab.protocol.session import State
from collab.protocol.sync import SyncStep1, SyncUpdate
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.engine.test_answers import edits
from tests.hub.conftest import Box, Node, StartNode
from tests.hub.test_answers import CLIENTS, clocks, steps2, wide
from tests.support.author import Author

ALL = dict.fromkeys(CLIENTS, 2)
NEARLY_ALL = {client: 2 for client in CLIENTS if client % 50}


@pytest.fixture(autouse=True)
def nothing_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(document: Document, vector: bytes = b"\0") -> bytes:
        assert vector == b"\0", "an answer of many client IDs in one go"
        return whole(document)  # for a snapshot

    def frame_since(live: LiveRoom, encoder: Encoder, vector: bytes, *, asks: bool) -> Frame:
        assert not takes_long(live.room.document, vector), "an answer of many client IDs in one go"
        return framed(live, encoder, vector, asks=asks)

    def decode(vector: bytes) -> dict[int, int]:
        assert len(vector) <= 2 * 1024, "a long state vector in one go"
        return real(vector)

    whole, framed = Document.encode_state_as_update, LiveRoom.frame_since
    real = delivery_module.decode_state_vector
    monkeypatch.setattr(Document, "encode_state_as_update", encode)
    monkeypatch.setattr(LiveRoom, "frame_since", frame_since)
    monkeypatch.setattr(delivery_module, "_DECODED", 2 * 1024)
    for module in (delivery_module, room_module):
        monkeypatch.setattr(module, "decode_state_vector", decode)


def with_what_it_has(vector: dict[int, int], box: Box) -> dict[int, int]:
    """Return the clocks of a client that had some and was sent the rest."""
    reader = Author(9)
    if vector:
        reader.read(edits(list(vector)))
    for update in box.updates():
        reader.read(update)
    return decode_state_vector(reader.doc.get_state())


class Typing:
    """Somebody who edits in every turn of the loop, in a room of its own clocks."""

    def __init__(self, node: Node, live: LiveRoom, writer: Member) -> None:
        self._node, self._live, self._writer = node, live, writer
        self.clock = 2
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self._live.receive(self._writer, SyncUpdate(edits([CLIENTS[7]], self.clock)))
            self._live.end_turn(self._node.hub.now())
            self.clock += 2
            await asyncio.sleep(0)

    async def stop(self) -> dict[int, int]:
        """Stop; return the clocks that everybody must have now."""
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self.clock > 20, "it was edited meanwhile"
        return {**ALL, CLIENTS[7]: self.clock}


async def lags(live: LiveRoom, member: Member, box: Box) -> None:
    box.held = 1 << 20
    live.hold_back(member)
    assert member.state is State.LAGGING


async def test_a_catch_up_is_made_in_slices_and_what_comes_meanwhile_follows(start_node: StartNode) -> None:
    """Issue 11: catch-ups of documents of 50,000 client IDs held the loop for 75 ms."""
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    await live.receive_in_slices(member, SyncStep1(encode_state_vector({})))
    await lags(live, member, box)
    _, writer, _ = await node.join("d")
    typing = Typing(node, live, writer)
    await asyncio.sleep(0)
    box.held = 0
    await box.until(lambda: member.state is State.LIVE, "the catch-up")
    expected = await typing.stop()
    await box.until(lambda: clocks(box) == expected, "all of it")
    assert member.meanwhile is None


@pytest.mark.parametrize("asks", [{}, NEARLY_ALL], ids=["all", "some"])
async def test_one_that_asks_while_it_lags_is_answered_in_slices(start_node: StartNode, asks: dict[int, int]) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    await lags(live, member, box)
    _, writer, _ = await node.join("d")
    typing = Typing(node, live, writer)
    await live.receive_in_slices(member, SyncStep1(encode_state_vector(asks)))
    assert not steps2(box)
    box.held = 0
    await box.until(lambda: steps2(box), "the answer")
    expected = await typing.stop()
    assert len(steps2(box)) == 1
    await box.until(lambda: with_what_it_has(asks, box) == expected, "all of it")


@pytest.mark.parametrize("rate", [0.0, 30_000.0], ids=["a fast line", "a slow line"])
@pytest.mark.parametrize("vector", [{}, NEARLY_ALL], ids=["all", "some"])
async def test_what_is_large_is_sent_and_what_comes_meanwhile_follows(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, rate: float, vector: dict[int, int]
) -> None:
    for module in (delivery_module, room_module, catch_up_module):
        monkeypatch.setattr(module, "LARGE", 300)
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    if rate:
        box.rate = rate
        box.line.pongs = True
        box.line.measured(int(rate), 1.0, node.hub.now(), sure=True)
    _, writer, _ = await node.join("d")
    typing = Typing(node, live, writer)
    await live.receive_in_slices(member, SyncStep1(encode_state_vector(vector)))
    await live.receive_in_slices(member, SyncStep1(encode_state_vector({**vector, 5: 1})))  # it asks again
    await box.until(lambda: member.state is State.LIVE, "the answer")
    expected = await typing.stop()
    await box.until(lambda: with_what_it_has(vector, box) == expected, "all of it")
    assert len(steps2(box)) in (1, 2)


async def test_a_large_edit_that_comes_meanwhile_follows_too(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    _, writer, _ = await node.join("d")
    await lags(live, member, box)
    live.receive(writer, SyncUpdate(edits([CLIENTS[7]], 2)))
    live.end_turn(node.hub.now())
    box.line.measured(10_000_000, 1.0, node.hub.now(), sure=True)  # it is not probed, so one frame is made
    make, large = live.make_frame, range(70_000, 70_000 + 2 * WIDE)

    async def interrupted(*args: object, **kwargs: object) -> object:
        made = await make(*args, **kwargs)  # type: ignore[arg-type]
        if member.meanwhile is not None and large[0] not in live.room.document._clocks:
            monkeypatch.setattr("collab.engine.document.LARGE_DELTA", 1_000)
            await live.receive_in_slices(writer, SyncUpdate(edits(large)))
            live.end_turn(node.hub.now())
            monkeypatch.setattr("collab.engine.document.LARGE_DELTA", 1 << 20)
        return made

    monkeypatch.setattr(LiveRoom, "make_frame", lambda self, *args, **kwargs: interrupted(*args, **kwargs))
    box.held = 0
    expected = {**ALL, CLIENTS[7]: 4, **dict.fromkeys(large, 2)}
    await box.until(lambda: with_what_it_has(ALL, box) == expected, "both")
    assert member.state is State.LIVE


async def test_a_join_after_many_have_edited_is_told_the_state_vector_in_slices(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    document = live.room.document
    assert not document.is_settled
    await live.settle()
    assert document.is_settled
    more = range(70_000, 70_000 + 2 * WIDE)
    _, writer, _ = await node.join("d")
    await live.receive_in_slices(writer, SyncUpdate(edits(more)))
    assert document.is_settled, "whoever brings many waits for it"
