"""Named presence streams of hubs on one real store: posts, readers, bounds, their hour, and copies on other nodes.

Strategy: readers are those of ``test_stream_presence``, which keep what they are handed. Time is let pass by giving the
sweep a later one. Nodes are hubs on one bus, which lets a test lose what is said.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from collab.cluster.messages import Posted
from collab.errors import DecodeError, DocumentReloaded, LimitExceeded
from collab.hub import named_presence
from collab.hub.documents import Documents
from collab.hub.named_presence import HOUR, MAX_POST, NamedCursor, NamedStream, StreamNotFound
from collab.hub.presence_tail import PresenceStart, decode_position, encode_position
from collab.hub.room import LiveRoom
from collab.hub.stream_presence import LIFETIME
from collab.protocol.streams import Batch, Begin
from tests.hub.conftest import Node, StartNode
from tests.hub.test_agents import created
from tests.hub.test_replication import Nodes, Steady
from tests.support.waiting import eventually, happens

ONE, TWO, THREE = b"\x01a", b"\x02bb", b"\x03ccc"
TORN = b"\x01\x02\x03"  # a frame, and a length with nothing behind it


async def opened(node: Node, name: str = "d") -> LiveRoom:
    live: LiveRoom = await node.hub.open(name)
    return live


async def post(node: Node, data: bytes, stream: str = "cursors") -> NamedStream:
    found: NamedStream = await node.hub.named.post(await opened(node), stream, data)
    return found


async def content(node: Node, stream: str = "cursors") -> list[bytes] | None:
    """Give what a node has of a stream, in the order of all nodes; None if it has no such stream."""
    found = await node.hub.named.find(await opened(node), stream)
    return None if found is None else sorted(item.data for item in found.items)


class Reader:
    """A reader that keeps what it is handed."""

    def __init__(self, stream: NamedStream, start: PresenceStart = Begin.BEGINNING, at: float = 0.0) -> None:
        self.cursor = NamedCursor(stream, stream.begin(start, at))
        self.batches: list[Batch] = []
        self.takes = True
        self.woken = 0

    def push(self, batch: Batch) -> bool:
        if self.takes:
            self.batches.append(batch)
        return self.takes

    def wake(self) -> None:
        self.woken += 1

    async def all(self) -> list[bytes]:
        """Read to the end, and give what was read at once each time."""
        found = []
        while (batch := await self.cursor.read()).payload:
            found.append(batch.payload)
            if batch.up_to_date:
                break
        return found


@pytest.fixture
def nodes(start_node: StartNode) -> Nodes:
    return Nodes(start_node)


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    found: Node = await start_node()
    await created(found)
    return found


async def test_a_stream_is_created_once_and_has_what_is_posted(node: Node) -> None:
    live = await opened(node)
    assert await node.hub.named.find(live, "cursors") is None
    assert await node.hub.named.create(live, "cursors") and not await node.hub.named.create(live, "cursors")
    stream = await post(node, ONE)
    assert await node.hub.named.find(live, "cursors") is stream
    await post(node, TWO, "other")
    assert await content(node) == [ONE] and await content(node, "other") == [TWO]
    assert (node.hub.named.count, node.hub.named.nbytes) == (2, 5)


async def test_readers_that_are_level_share_what_comes(node: Node) -> None:
    stream = await post(node, ONE)
    readers = [Reader(stream), Reader(stream, Begin.NOW, node.hub.now())]
    for reader in readers:
        assert await reader.all() == [ONE] and reader.cursor.attach(reader)
    late = Reader(stream, Begin.NOW, node.hub.now() + LIFETIME + 1)
    assert await late.all() == [], "whoever has posted that is not there any more"
    assert late.cursor.attach(late)
    slow = Reader(stream)
    await slow.all()
    slow.takes = False
    assert slow.cursor.attach(slow)
    await post(node, TWO)
    await post(node, THREE)
    for reader in (*readers, late):
        assert [batch.payload for batch in reader.batches] == [TWO, THREE]
    assert readers[0].batches == readers[1].batches == late.batches
    slow.cursor.detach()
    assert await slow.all() == [TWO + THREE] and slow.batches == []
    again = Reader(stream, decode_position(late.batches[0].offset))
    assert await again.all() == [THREE]
    late.cursor.detach()
    await post(node, ONE)
    assert len(late.batches) == 2 and not late.cursor.attach(late), "there is more to be read"


async def test_what_cannot_be_read_as_frames_ends_what_is_told_at_once(node: Node) -> None:
    for data in (ONE, TORN, TWO, b"\xff", THREE):
        stream = await post(node, data)
    assert await Reader(stream).all() == [ONE + TORN, TWO + b"\xff", THREE]


async def test_a_reader_with_a_position_of_another_copy_begins_anew(node: Node) -> None:
    stream = await post(node, ONE)
    end = stream.end
    for other in (end._replace(epoch=end.epoch + 1), end._replace(number=end.number + 1)):
        assert await Reader(stream, other).all() == [ONE]
    assert await Reader(stream, end).all() == []
    assert decode_position(encode_position(end)) == end


async def test_the_end_of_a_stream_is_told_to_its_readers(node: Node) -> None:
    live, stream = await opened(node), await post(node, ONE)
    reader = Reader(stream)
    await reader.all()
    assert reader.cursor.attach(reader)
    assert not await node.hub.named.delete(live, "other")
    assert await node.hub.named.delete(live, "cursors") and not await node.hub.named.delete(live, "cursors")
    assert reader.woken == 1 and await content(node) is None
    with pytest.raises(StreamNotFound):
        await reader.cursor.read()
    reader.cursor.detach()
    assert not reader.cursor.attach(reader)
    assert (node.hub.named.count, node.hub.named.nbytes) == (0, 0)
    again = await post(node, TWO)
    assert again.end.epoch > stream.end.epoch and await content(node) == [TWO]


async def test_it_ends_an_hour_after_the_last_post(node: Node) -> None:
    stream = await post(node, ONE)
    node.hub.named.sweep(stream.touched + HOUR - 10)
    assert await content(node) == [ONE]
    node.hub.named.sweep(stream.touched + HOUR + 10)
    assert await content(node) is None and stream.gone
    live = await opened(node)
    await node.hub.named.create(live, "cursors")
    found = await node.hub.named.find(live, "cursors")
    assert found is not None
    found.touched -= HOUR - 10
    await node.hub.named.create(live, "cursors")
    assert node.hub.now() - found.touched < 10, "its hour begins again"


async def test_it_outlives_the_room_and_not_the_document(node: Node) -> None:
    await post(node, ONE)
    await node.hub.reload("d")
    assert await content(node) == [ONE]
    documents = Documents(node.hub.store, node.hub)
    await documents.delete("d")
    await created(node)
    assert await content(node) is None, "another document has the name"
    assert (node.hub.named.count, node.hub.named.nbytes) == (0, 0)


async def test_everything_has_bounds(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    live = await opened(node)
    with pytest.raises(LimitExceeded, match="a post"):
        await post(node, bytes(MAX_POST + 1))
    assert await content(node) is None, "a post that is refused creates nothing"
    monkeypatch.setattr(named_presence, "MAX_STREAMS", 2)
    await post(node, ONE, "a")
    await node.hub.named.create(live, "b")
    for work in (lambda: post(node, ONE, "c"), lambda: node.hub.named.create(live, "c")):
        with pytest.raises(LimitExceeded, match="at most"):
            await work()
    monkeypatch.setattr(named_presence, "MAX_ITEMS", 3)
    for data in (TWO, THREE):
        await post(node, data, "b")
    reader = Reader(await post(node, TWO, "b"))
    assert await content(node, "a") == [] and await content(node, "b") == [TWO, TWO, THREE], "the oldest goes first"
    monkeypatch.setattr(named_presence, "MAX_BYTES", 7)
    stream = await post(node, TWO, "b")
    assert await content(node, "b") == [TWO, TWO] and node.hub.named.nbytes == 6
    assert await reader.all() == [TWO + TWO], "who is behind begins with what is there"
    assert stream.nbytes == 6


async def test_a_node_forgets_the_documents_that_nobody_has_posted_to_for_longest(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = Documents(node.hub.store, node.hub)
    for name in ("e", "f"):
        await documents.create(name)
    monkeypatch.setattr(named_presence, "NODE_STREAMS", 2)
    for name in ("d", "e", "d", "f"):
        await node.hub.named.post(await opened(node, name), "s", ONE)
    assert sorted(node.hub.named._documents) == ["d", "f"]
    monkeypatch.setattr(named_presence, "NODE_BYTES", 5)
    await node.hub.named.post(await opened(node, "f"), "s", TWO)
    assert sorted(node.hub.named._documents) == ["f"] and node.hub.named.count == 1


# Other nodes


@pytest.mark.parametrize("bus", [None, Steady])
async def test_every_node_answers_the_same(nodes: Nodes, bus: Any) -> None:
    more = {} if bus is None else {"bus": bus}
    one, two = await nodes.start(**more), await nodes.start(**more)
    await created(one)
    await post(one, ONE)
    assert await content(two) == [ONE], "a node that has just opened the document asks"
    reader = Reader(await post(two, TWO))
    await reader.all()
    assert reader.cursor.attach(reader)
    await post(one, THREE)
    await happens(lambda: [batch.payload for batch in reader.batches] == [THREE], "it is handed on")
    for each in (one, two):
        await eventually(_has(each, [ONE, TWO, THREE]), "all of it")
    assert await two.hub.named.create(await opened(two), "other")
    await eventually(_has(one, [], "other"), "the other stream")
    assert not await one.hub.named.create(await opened(one), "other")
    assert await one.hub.named.delete(await opened(one), "cursors")
    assert await content(two) is None, "it is deleted everywhere"
    late = await nodes.start(**more)
    assert await content(late) is None and await content(late, "other") == []


def _has(node: Node, expected: list[bytes] | None, stream: str = "cursors") -> Any:
    async def look() -> bool:
        return await content(node, stream) == expected

    return look


async def test_a_stream_that_was_created_a_moment_ago_on_another_node_is_found(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    await post(one, ONE, "known")
    assert await content(two, "known") == [ONE] and await content(two) is None
    monkeypatch.setattr(one.hub, "publish_posted", lambda name, posted: None)  # what it tells is still on its way
    await post(one, TWO)
    assert await content(two) == [TWO], "the next request of its client may go to the other node"


async def test_a_node_that_has_left_the_document_asks_again(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    await post(two, ONE)
    two.hub.evict(await opened(two), DocumentReloaded("a test"))
    await post(one, TWO)  # which the other one does not hear
    assert await content(two) == [ONE, TWO]


async def test_one_that_may_have_missed_something_is_told_all(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    await post(two, TWO, "other")
    await eventually(_has(one, [TWO], "other"), "it hears of posts")
    one.hub.named._hub = _Silent(one.hub)
    await post(one, ONE)
    copies = two.hub.named._documents["d"].streams  # to ask for it would help
    assert "cursors" not in copies
    one.hub._replication.joined("d", "a node")
    await happens(lambda: "cursors" in copies and copies["cursors"].items, "it was told")
    found = await two.hub.named.find(await opened(two), "cursors")
    assert found is not None
    one.hub._replication.joined("d", "a node")
    await post(two, THREE, "other")
    await eventually(_has(one, [TWO, THREE], "other"), "both have said all")
    assert await content(two) == [ONE], "and what it has says nothing the second time"


class _Silent:
    """A hub whose posts are lost on the bus."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def publish_posted(self, name: str, posted: Posted) -> None:
        return None


async def test_a_silent_node_is_asked_again_later(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    await post(one, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(one.hub.named, "answer", lambda asked: None)
        patch.setattr(one.hub.named, "held", lambda live: [])
        await post(two, TWO)
    assert await content(two) == [TWO]
    two.hub.named._documents["d"].ask_at = 0.0
    assert await content(two) == [ONE, TWO]


async def test_what_no_node_would_say_is_left_out(node: Node) -> None:
    live = await opened(node)
    named, document_id = node.hub.named, live.persistence.document_id
    assert document_id is not None
    good = Posted(document_id, "s", "n", 1, 0, ONE)
    for bad in (
        good._replace(stream=""),
        good._replace(stream="x" * 65),
        good._replace(origin=""),
        good._replace(origin="n" * 101),
        good._replace(data=bytes(MAX_POST + 1)),
    ):
        with pytest.raises(DecodeError):
            named.receive(live, bad)
    named.receive(live, good._replace(document_id=document_id + 1))
    named.receive(live, good._replace(age=int(HOUR)))
    assert named.count == 0
    document = named._documents["d"]
    data = b64encode(ONE).decode()
    unread: list[dict[str, Any]] = [
        {"streams": []},
        {"streams": {"s": {}}},
        {"streams": {"s": {"age": 1, "items": [["n", 1, data]]}}},
        {"streams": {"s": {"age": float("nan"), "items": []}}},
        {"streams": {"": {"age": 1, "items": []}}},
        {"streams": {"s": {"age": 1, "items": [["n", "x", data, 1]]}}},
        {"streams": {"s": {"age": 1, "items": [["n", 1, "ä", 1]]}}},
    ]
    for said in unread:
        named._merge("d", document, said)
    assert named.nbytes == 0
    named._merge("d", document, {"streams": {"s": {"age": 1, "items": [["n", 1, data, 1], ["n", 1, data, 1]]}}})
    assert await content(node, "s") == [ONE]
