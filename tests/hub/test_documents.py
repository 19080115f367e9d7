"""Creating, naming and deleting documents on a real store, with and without rooms that are live."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocumentName,
    StoreUnavailable,
)
from collab.hub.documents import Documents
from collab.protocol.session import State
from collab.protocol.sync import SyncStep1, SyncUpdate
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    started: Node = await start_node()
    return started


@pytest.fixture(params=[True, False], ids=["with rooms", "without rooms"])
def documents(node: Node, request: pytest.FixtureRequest) -> Documents:
    """The service of a server, and that of a command line beside it."""
    return Documents(node.store, node.hub if request.param else None, lambda: 1_000.0)


async def test_documents_are_created_listed_and_described(documents: Documents, node: Node) -> None:
    update = Author(1).type("hello")
    one = await documents.create("a/one", title="One", update=update)
    two = await documents.create("b/two", gc=False)
    assert (one.document.title, one.document.gc, one.document.head_seq) == ("One", True, 1)
    assert (two.document.title, two.document.gc, two.document.head_seq) == (None, False, 0)
    (row,) = (await node.stored("a/one")).rows
    assert (row.data, row.at, row.author) == (update, 1_000.0, None)
    assert await documents.list() == [one, two]
    assert await documents.list(prefix="b/") == await documents.list(after="a/one") == [two]
    assert await documents.list(limit=1) == [one]
    assert await documents.describe("a/one") == one
    with pytest.raises(DocumentExists):
        await documents.create("a/one")
    with pytest.raises(DocumentNotFound):
        await documents.describe("none")
    with pytest.raises(InvalidDocumentName):
        await documents.create(" ")
    assert len(await documents.list()) == 2


async def test_a_title_is_set_and_taken_away(documents: Documents) -> None:
    await documents.create("d")
    assert (await documents.set_title("d", "A title")).document.title == "A title"
    assert (await documents.set_title("d", None)).document.title is None
    with pytest.raises(DocumentNotFound):
        await documents.set_title("none", "x")
    await documents.delete("d")
    with pytest.raises(DocumentDeleted):
        await documents.set_title("d", "x")


async def test_a_document_that_was_begun_a_moment_ago_can_be_named(start_node: StartNode) -> None:
    node = await start_node(batch_window=30.0)
    node.keep_busy()
    documents = Documents(node.store, node.hub)
    live, member, box = await node.join("d")
    for _ in range(19):
        await node.join("d")
    live.flushed_at = node.hub.now()  # the edit waits for the window of a busy room
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await asyncio.sleep(0)
    assert live.dirty
    async with asyncio.timeout(20):
        summary = await documents.set_title("d", "Begun")
    assert summary.document.title == "Begun" and summary.document.head_seq == 1
    assert box.text() == "x"


async def test_naming_waits_for_the_store(node: Node) -> None:
    documents = Documents(node.store, node.hub)
    live, member, box = await node.join("d")
    node.store.full = True
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await box.until(lambda: node.journal.failing, "it is missed")
    naming = asyncio.ensure_future(documents.set_title("d", "Begun"))
    await asyncio.sleep(0.05)
    assert not naming.done()
    node.store.full = False
    assert (await naming).document.title == "Begun"


async def test_deleting_sends_everybody_away_and_nobody_brings_it_back(node: Node) -> None:
    documents = Documents(node.store, node.hub)
    live, member, box = await node.join("d")
    _, other, other_box = await node.join("d")
    _, _, stays = await node.join("other")
    update = Author(1).type("x")
    live.receive(member, SyncUpdate(update))
    await node.write(live)
    live.receive(other, SyncUpdate(Author(2).type("not written yet")))
    live.end_turn(node.hub.now())
    await documents.delete("d")
    for one, its_box in ((member, box), (other, other_box)):
        assert one.state is State.CLOSED and isinstance(its_box.ended, DocumentDeleted)
    assert isinstance(live.ended, DocumentDeleted) and "d" not in node.hub.rooms and stays.ended is None
    with pytest.raises(DocumentDeleted):
        await node.hub.open("d")
    with pytest.raises(DocumentNotFound):
        await documents.delete("d")
    with pytest.raises(DocumentDeleted):
        await documents.describe("d")
    assert [summary.document.name for summary in await documents.list()] == []


async def test_a_store_that_does_not_delete_leaves_everybody_where_they_are(node: Node) -> None:
    documents = Documents(node.store, node.hub)
    live, member, box = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)

    async def fails(name: str, at: float) -> int:
        raise StoreUnavailable("for the test")

    node.store.delete = fails
    with pytest.raises(StoreUnavailable):
        await documents.delete("d")
    assert box.ended is None and node.hub.rooms["d"] is live
    with pytest.raises(DocumentNotFound):
        await Documents(node.store._store, node.hub).delete("nobody has it")
    assert box.ended is None


async def test_a_document_that_was_open_before_it_was_created_is_the_same(node: Node, documents: Documents) -> None:
    """Somebody looks at a name that nothing is stored under, and meanwhile it is imported."""
    live, member, box = await node.join("d")
    await documents.create("d", update=Author(1).type("imported"))
    await box.until(lambda: box.text() == "imported", "who looks at it is shown it")
    live.receive(member, SyncUpdate(Author(2).type("!")))
    await node.write(live)
    assert [row.seq for row in (await node.stored("d")).rows] == [1, 2]


async def test_a_deleted_documents_name_is_free_for_whoever_creates_it_on_purpose(
    node: Node, documents: Documents
) -> None:
    live, member, box = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("old")))
    await node.write(live)
    await documents.delete("d")
    await box.until(lambda: box.ended, "sent away")
    created = await documents.create("d", update=Author(2).type("new"))
    assert created.document.id != live.persistence.document_id
    again, member, box = await node.join("d")
    again.receive(member, SyncStep1(b"\0"))
    assert box.text() == "new"
