"""Deleted documents on real stores with rooms that are live: restoring, erasing for good, skeletons."""

from __future__ import annotations

import asyncio

import pytest

from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    DocumentRenamed,
    InvalidDocumentName,
    StoreUnavailable,
)
from collab.hub import control as control_module
from collab.hub import hub as hub_module
from collab.hub.documents import Documents
from collab.hub.membership import NodeFacts
from collab.hub.trash import Trash
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.update.reader import read_update
from collab.update.reset import RESERVED
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author
from tests.support.waiting import eventually, happens


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    started: Node = await start_node()
    return started


@pytest.fixture
async def pair(start_node: StartNode) -> tuple[Node, Node]:
    """Two nodes that hear each other, and so look at the heads of the log every ten seconds only."""
    exchange = LocalExchange()
    one, two = [await start_node(bus=LocalBus(exchange)) for _ in range(2)]
    return one, two


async def begun(node: Node, name: str, author: Author, text: str = "hello ") -> int:
    """Write a document by a client that stays; give its id."""
    live, member, _ = await node.join(name)
    live.receive(member, SyncUpdate(author.type(text)))
    await node.write(live)
    assert live.persistence.document_id is not None
    return live.persistence.document_id


async def shown(node: Node, name: str) -> str:
    """Join a document, and give what it is."""
    live, member, box = await node.join(name)
    live.receive(member, SyncStep1(b"\0"))
    live.leave(member)
    return box.text()


# Restoring


async def test_who_comes_with_an_old_copy_of_a_restored_document_merges(pair: tuple[Node, Node]) -> None:
    one, two = pair
    author = Author(1)
    document_id = await begun(one, "d", author)
    await Documents(one.store, one.hub).delete("d")
    offline = author.type("offline ")
    with pytest.raises(DocumentDeleted):
        await one.hub.open("d")
    restored = await one.hub.trash.restore("d")
    assert (restored.document.id, restored.document.head_seq) == (document_id, 1)
    # Somebody has gone on with it before the old copy comes, on another node.
    live, member, _ = await two.join("d")
    live.receive(member, SyncUpdate(Author(2).type("meanwhile ")))
    await two.write(live)
    back, old, box = await one.join("d", answer=False)
    old_copy = author.doc.get_update()
    back.receive(old, SyncStep1(author.doc.get_state()))
    back.receive(old, SyncStep2(old_copy))
    await one.write(back)
    for update in box.updates():
        author.read(update)
    await box.until(lambda: back.persistence.seq == 3, "both rows are there")
    texts = {await shown(one, "d"), str(author.text)}
    assert len(texts) == 1 and {"hello ", "offline ", "meanwhile "} == {f"{word} " for word in texts.pop().split()}
    assert [row.seq for row in (await one.stored("d")).rows] == [1, 2, 3]
    assert offline in old_copy or len(old_copy) > len(offline)


async def test_those_who_have_its_new_name_open_see_what_is_restored_there(pair: tuple[Node, Node]) -> None:
    one, two = pair
    await begun(one, "d", Author(1), "old")
    documents = Documents(one.store, one.hub)
    await documents.delete("d")
    await documents.create("d", update=Author(2).type("new"))
    _, _, here = await one.join("e")
    _, _, there = await two.join("e")
    with pytest.raises(DocumentExists):
        await one.hub.trash.restore("d")
    restored = await one.hub.trash.restore("d", new_name="e")
    assert restored.document.name == "e"
    for box in (here, there):
        await box.until(lambda box=box: box.text() == "old", "they see it")
    assert await shown(two, "d") == "new"


async def test_of_several_the_one_is_restored_that_is_chosen(node: Node) -> None:
    documents, trash = Documents(node.store, node.hub), node.hub.trash
    ids = []
    for text in ("first", "second", "third"):
        ids.append((await documents.create("d", update=Author(1).type(text))).document.id)
        await documents.delete("d")
    assert [each.document.id for each in await trash.list(name="d")] == ids[::-1]
    with pytest.raises(DocumentNotFound):
        await trash.restore("d", ids[0] + 1_000)
    with pytest.raises(DocumentNotFound):
        await trash.restore("other", ids[0])
    with pytest.raises(InvalidDocumentName):
        await trash.restore("d", new_name=" ")
    assert (await trash.restore("d", ids[0])).document.id == ids[0]
    assert await shown(node, "d") == "first"
    assert (await trash.restore("d", new_name="e")).document.id == ids[2]


async def test_what_is_too_old_is_not_in_the_trash(node: Node) -> None:
    now = 1_000_000.0
    trash = Trash(node.store, lambda: 100.0, clock=lambda: now)
    await Documents(node.store, clock=lambda: now - 101.0).create("old")
    for name, ago in (("old", 101.0), ("new", 99.0)):
        documents = Documents(node.store, clock=lambda ago=ago: now - ago)  # type: ignore[misc]
        if ago < 100.0:
            await documents.create(name)
        await documents.delete(name)
    assert [each.document.name for each in await trash.list()] == ["new"]
    with pytest.raises(DocumentNotFound):
        await trash.restore("old")
    await trash.restore("new")


async def test_nothing_is_restored_beside_a_server_that_takes_it_away(node: Node, start_node: StartNode) -> None:
    await Documents(node.store, node.hub).create("d")
    await Documents(node.store, node.hub).delete("d")
    older = await start_node(node=NodeFacts(settings={"history_days": "1"}))
    with pytest.raises(StoreUnavailable, match="older release"):
        await node.hub.trash.restore("d")
    await older.stop()
    await node.hub.trash.restore("d")


async def test_what_has_been_in_the_trash_for_long_enough_goes(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.05)
    node = await start_node(trash=0.0, node=NodeFacts(settings={"trash_days": "0"}))
    document_id = await begun(node, "d", Author(1))
    await Documents(node.store, node.hub).delete("d")
    assert await node.hub.trash.list() == []

    async def gone() -> bool:
        return await node.store.load_at(document_id, 1) is None

    await eventually(gone, "its content is gone")


# Erasing


async def test_nobody_has_what_was_erased_when_that_returns(pair: tuple[Node, Node]) -> None:
    one, two = pair
    author = Author(1)
    document_id = await begun(one, "d", author, "secret")
    _, _, there = await two.join("d")
    await there.until(lambda: "d" in two.hub.rooms, "open on both")
    # The message that it is deleted is lost.
    one.hub._replication.deleted = lambda name, document_id: None  # type: ignore[method-assign]
    erased = await one.hub.trash.erase("d")
    assert erased == ([document_id], ())
    assert "d" not in two.hub.rooms and "d" not in one.hub.rooms
    for node in (one, two):
        with pytest.raises(DocumentDeleted):
            await node.hub.open("d")
    assert await one.store.load_at(document_id, 1) is None
    assert await one.hub.trash.list() == []
    with pytest.raises(DocumentNotFound):
        await one.hub.trash.restore("d")
    again = await one.hub.trash.erase("d")
    assert again.ids == [document_id], "once more does no harm"


async def test_a_node_that_is_silent_is_named(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.2)
    one, two = pair
    await begun(one, "d", Author(1), "secret")

    async def fails(after: int) -> list[object]:
        raise StoreUnavailable("for the test")

    two.store.instructions = fails
    await one.hub.membership.beat()
    assert (await one.hub.trash.erase("d")).holding == (two.hub.membership.name,)
    del two.store.instructions
    # It has heard of it, and cannot see whether what it holds is in the log.
    await begun(one, "e", Author(1), "secret")
    await two.join("e")
    two.store.blind = True
    one.hub._replication.deleted = lambda name, document_id: None  # type: ignore[method-assign]
    assert (await one.hub.trash.erase("e")).holding == (two.hub.membership.name,)
    two.store.blind = False


async def test_all_that_is_kept_of_a_name_is_erased_or_one_alone(node: Node) -> None:
    documents, trash = Documents(node.store, node.hub), node.hub.trash
    ids = []
    for text in ("first", "second", "third"):
        ids.append((await documents.create("d", update=Author(1).type(text))).document.id)
        if text != "third":
            await documents.delete("d")
    assert (await trash.erase("d", ids[1])).ids == [ids[1]]
    assert [each.document.id for each in await trash.list(name="d")] == [ids[0]]
    assert (await trash.erase("d", living=False)).ids == [ids[0]]
    assert await shown(node, "d") == "third"
    with pytest.raises(DocumentNotFound):
        await trash.erase("d", ids[2])  # it lives
    with pytest.raises(DocumentNotFound):
        await trash.erase("d", living=False)
    assert (await trash.erase("d")).ids == [ids[2]]
    with pytest.raises(DocumentNotFound):
        await trash.erase("never")
    await documents.create("a")
    await documents.rename("a", "b")
    with pytest.raises(DocumentRenamed):
        await trash.erase("a")
    assert (await documents.describe("b")).document.name == "b"


async def test_edits_under_way_are_not_in_what_was_erased(node: Node) -> None:
    live, member, box = await node.join("d")
    author = Author(1)
    live.receive(member, SyncUpdate(author.type("one")))
    await node.write(live)
    document_id = live.persistence.document_id
    assert document_id is not None
    live.receive(member, SyncUpdate(author.type("two")))
    erasing = asyncio.create_task(node.hub.trash.erase("d"))
    live.receive(member, SyncUpdate(author.type("three")))
    await erasing
    await box.until(lambda: box.ended, "sent away")
    assert await node.store.rows_after(document_id, 0, 9) == []
    assert await node.store.load_at(document_id, 1) is None


# Skeletons


def clocks(skeleton: bytes | None) -> dict[int, int]:
    """Give the clients in a skeleton, and how many clocks of each are in it, but for those of resets."""
    sections = read_update(skeleton or b"\0\0").sections
    return {section.client: section.end for section in sections if section.client < RESERVED}


async def test_a_skeleton_is_kept_before_the_content_goes(node: Node) -> None:
    documents = Documents(node.store, node.hub)
    trash = Trash(node.store, lambda: 0.0)
    await begun(node, "d", Author(1), "first")
    await documents.delete("d")
    await trash.erase("d")
    first = await node.store.skeleton("d")
    assert first is not None and clocks(first) == {1: 5} and b"first" not in first
    for client in (2, 3):
        await documents.create("d")
        await begun(node, "d", Author(client), "a text")
        await documents.delete("d")
    # By age: they are kept, and then pruning takes the content.
    await trash.keep_skeletons(1e12)
    kept = await node.store.skeleton("d")
    assert kept is not None and clocks(kept) == {1: 5, 2: 6, 3: 6} and b"a text" not in kept
    await trash.keep_skeletons(1e12)
    assert await node.store.skeleton("d") == kept, "twice is once"
    while await node.store.prune(before=0.0, limit=9):
        pass
    await trash.keep_skeletons(1e12)
    assert await node.store.skeleton("d") == kept


async def test_a_deleted_document_that_is_damaged_goes_without_a_skeleton(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await begun(node, "d", Author(1))
    await Documents(node.store, node.hub).delete("d")
    load_at = node.store.load_at

    async def damaged(document_id: int, seq: int) -> object:
        snapshot, rows = await load_at(document_id, seq)
        return snapshot, [row._replace(data=b"\1") for row in rows]

    node.store.load_at = damaged
    trash = Trash(node.store, lambda: 0.0)
    await trash.erase("d")
    assert await node.store.skeleton("d") is None
    assert "no skeleton" in caplog.text
    await happens(lambda: True, "nothing else")
