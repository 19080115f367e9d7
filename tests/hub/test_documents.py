"""Creating, naming and deleting documents on a real store, with and without rooms that are live."""

from __future__ import annotations

import asyncio

import pytest

from collab.adapters import make_store
from collab.engine.kept import make_key
from collab.errors import (
    DamagedDocument,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocumentName,
    InvalidMetadata,
    StoreUnavailable,
)
from collab.hub.documents import Documents
from collab.protocol.session import State
from collab.protocol.sync import SyncStep1, SyncUpdate
from collab.storage.checksums import seal_row
from collab.storage.records import Append, PendingChange, PendingUpdate
from collab.storage.urls import DatabaseUrl
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author, content


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


# Own keys, order, copies, and what is there once


async def test_title_and_own_keys_are_there_with_the_content(documents: Documents) -> None:
    created = await documents.create("d", title="D", metadata={"kind": "note"}, update=Author(1).type("x"))
    assert (created.document.title, created.document.metadata) == ("D", {"kind": "note"})
    changed = await documents.change("d", metadata={"kind": None, "n": 1})
    assert (changed.document.title, changed.document.metadata) == ("D", {"n": 1})
    changed = await documents.change("d", title=None, metadata={"m": 2.5})
    assert (changed.document.title, changed.document.metadata) == (None, {"n": 1, "m": 2.5})
    with pytest.raises(InvalidMetadata, match="text"):
        await documents.change("d", title="not this", metadata={"n": [1]})
    assert await documents.describe("d") == changed
    with pytest.raises(InvalidMetadata):
        await documents.create("e", metadata={"": 1})
    with pytest.raises(DocumentNotFound):
        await documents.describe("e")


async def test_documents_are_listed_by_time(node: Node) -> None:
    now = 0.0
    documents = Documents(node.store, clock=lambda: now)
    for number, name in enumerate("cadbe"):
        now = float(number // 2)
        await documents.create(f"p/{name}", update=Author(1).type("x"))
    await documents.create("other")
    found = await documents.recent(prefix="p/")
    assert [each.document.name for each in found] == [f"p/{letter}" for letter in "ebdac"]
    assert await documents.recent(prefix="p/", after=(1.0, "p/b"), limit=2) == found[2:4]


async def test_a_copy_holds_what_is_committed_and_can_be_merged_later(documents: Documents, node: Node) -> None:
    author = Author(1)
    await documents.create("d", title="D", metadata={"n": 1}, gc=False, update=author.type("hello "))
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(author.replace("world")))
    await node.write(live)
    copied = (await documents.copy("d", "e", author="ada")).document
    assert (copied.title, copied.metadata, copied.gc, copied.head_seq) == ("D", {"n": 1}, False, 1)
    (row,) = (await node.stored("e")).rows
    assert row.author == "ada"
    # To the byte what the log says: struct for struct, with what was deleted.
    assert row.data == live.room.document.encode_state_as_update()
    assert content(row.data) == "world"
    live.receive(member, SyncUpdate(author.type("!")))
    await node.write(live)
    assert [row.data for row in (await node.stored("e")).rows] == [row.data]
    with pytest.raises(DocumentExists):
        await documents.copy("d", "e")
    with pytest.raises(DocumentNotFound):
        await documents.copy("none", "f")
    with pytest.raises(InvalidDocumentName):
        await documents.copy("d", " ")
    await documents.create("empty")
    assert (await documents.copy("empty", "empty too")).document.head_seq == 0
    await documents.delete("d")
    with pytest.raises(DocumentDeleted):
        await documents.copy("d", "f")


async def test_a_copy_holds_the_turn_that_is_under_way_on_this_node(node: Node) -> None:
    documents = Documents(node.store, node.hub)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("just now")))
    await documents.copy("d", "e")
    assert content((await node.stored("e")).rows[0].data) == "just now"


async def test_a_copy_takes_what_waited_and_has_what_it_waited_for(node: Node) -> None:
    """A server was killed between the commit of what came and that of what waited for it."""
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    waiting = PendingUpdate(make_key(second), second, 1.0, None)
    await node.store.append([Append("d", None, (seal_row(first, 1.0, None),), PendingChange((waiting,), ()))])
    await Documents(node.store).copy("d", "e")
    assert content((await node.stored("e")).rows[0].data) == "ab"


async def test_a_document_with_a_gap_is_not_copied(node: Node) -> None:
    author = Author(1)
    author.type("a")
    await node.store.append([Append("d", None, (seal_row(author.type("b"), 1.0, None),))])
    with pytest.raises(DamagedDocument, match="gap"):
        await Documents(node.store).copy("d", "e")
    with pytest.raises(DocumentNotFound):
        await Documents(node.store).describe("e")


async def test_a_document_that_is_there_is_left_as_it_is(documents: Documents, node: Node) -> None:
    summary, created = await documents.ensure("d", Author(1).type("seed"), title="D", metadata={"n": 1})
    assert created and summary.document.title == "D"
    again, created = await documents.ensure("d", Author(2).type("seed"), title="other")
    assert not created and again == summary
    assert [content(row.data) for row in (await node.stored("d")).rows] == ["seed"]
    await documents.delete("d")
    with pytest.raises(DocumentDeleted):
        await documents.ensure("d", Author(1).type("seed"))
    await documents.create("d")
    assert not (await documents.ensure("d", Author(1).type("seed"))).created


async def test_ten_who_seed_at_once_give_the_content_once(database: DatabaseUrl) -> None:
    stores = [make_store(database) for _ in range(2)]
    try:
        for store in stores:
            await store.open()
        for number in range(5):
            name = f"d{number}"
            calls = [
                Documents(stores[at % 2]).ensure(name, Author(at + 1).type("seed"), title=f"{at}") for at in range(10)
            ]
            ensured = await asyncio.gather(*calls)
            assert sum([each.created for each in ensured]) == 1
            assert len({each.summary.document.title for each in ensured}) == 1
            loaded = await stores[0].load(name)
            assert loaded is not None and [content(row.data) for row in loaded.rows] == ["seed"]
    finally:
        for store in stores:
            await store.close()
