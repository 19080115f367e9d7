"""Resets of documents that people have open, and new documents under the names of old ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import DocumentDeleted, DocumentNotFound, UpdateError
from collab.hub.documents import Documents
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.update.reset import RESERVED, is_marker, number_of
from collab.update.state_vector import decode_state_vector
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author
from tests.support.waiting import eventually, happens


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    started: Node = await start_node()
    return started


@pytest.fixture
def documents(node: Node) -> Documents:
    return Documents(node.store, node.hub, resetting=node.hub.resetting)


async def text(node: Node, name: str) -> str:
    """Give the text of a document as a client sees it that has just come."""
    live, member, box = await node.join(name)
    live.receive(member, SyncStep1(b"\0"))
    found = box.text()
    live.leave(member)
    return found


async def bring(node: Node, name: str, *updates: bytes) -> str:
    """Come with an old copy, and give what the document shows then."""
    live, member, _ = await node.join(name, answer=False)
    for at, update in enumerate(updates):
        message = SyncUpdate(update) if at else SyncStep2(update)
        if live.is_long(message, member):
            await live.receive_in_slices(member, message)
        else:
            live.receive(member, message)
    await node.write(live)
    live.leave(member)
    return await text(node, name)


def markers(node: Node, name: str) -> list[int]:
    vector = decode_state_vector(node.hub.rooms[name].room.document.encode_state_vector())
    return sorted(number_of(client) for client in vector if is_marker(client))


async def until_text(node: Node, name: str, wanted: str) -> None:
    async def look() -> bool:
        return await text(node, name) == wanted

    await eventually(look, f"{name} shows {wanted}", 10)


# A new document under an old name


async def test_an_old_copy_brings_nothing_into_a_new_document_of_its_name(documents: Documents, node: Node) -> None:
    old = Author(1).type("old content")
    await documents.create("d", update=old)
    await documents.delete("d")
    await documents.create("d", update=Author(1).type("new"))
    assert await text(node, "d") == "new"
    assert await bring(node, "d", old) == "new"


async def test_an_old_copy_brings_nothing_where_the_content_is_gone_by_now(documents: Documents, node: Node) -> None:
    author = Author(1)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(author.type("old content")))
    await node.write(live)
    await documents.delete("d")
    await node.hub.trash.erase("d")
    remains = await node.store.skeleton("d")
    assert remains is not None and b"old" not in remains
    await documents.create("d")
    assert await bring(node, "d", author.doc.get_update()) == ""
    assert await bring(node, "d", Author(2).type("typed later")) == "typed later"


async def test_what_was_relayed_while_a_document_was_deleted_is_gone_too(documents: Documents, node: Node) -> None:
    """Its clients have it, although the store has never taken it."""
    author = Author(1)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(author.type("old")))
    delete = node.store.delete

    async def hindered(name: str, at: float) -> int:
        document_id: int = await delete(name, at)
        live.receive(member, SyncUpdate(author.type(" and relayed")))
        live.end_turn(node.hub.now())
        return document_id

    node.store.delete = hindered  # type: ignore[attr-defined]
    await documents.delete("d")
    await eventually(lambda: node.store.skeleton("d"), "it is remembered", 10)
    await documents.create("d")
    assert await bring(node, "d", author.doc.get_update()) == ""


async def test_a_name_may_have_had_many_documents(documents: Documents, node: Node) -> None:
    copies = []
    for at in range(4):
        author = Author(100 + at)
        await documents.create("d", update=author.type(f"content {at}"))
        live = await node.hub.open("d")  # what was given has IDs of its own there: clients have those
        copies.append(live.room.document.encode_state_as_update())
        await documents.delete("d")
    await documents.create("d", update=Author(1).type("new"))
    for copy in copies:
        assert await bring(node, "d", copy) == "new"
    assert markers(node, "d") == [1, 2, 3, 4]


async def test_of_a_new_document_without_predecessor_the_bytes_are_kept(documents: Documents, node: Node) -> None:
    update = Author(1).type("x")
    await documents.create("d", update=update)
    assert [row.data for row in (await node.stored("d")).rows] == [update]


async def test_a_document_in_which_nothing_ever_was_leaves_nothing(documents: Documents, node: Node) -> None:
    update = Author(1).type("x")
    for _ in range(2):
        await documents.create("d")
        await documents.delete("d")
        await node.hub.trash.erase("d")
    await documents.create("d", update=update)
    assert [row.data for row in (await node.stored("d")).rows] == [update]


async def test_a_part_of_a_document_is_no_content_in_the_place_of_another_one(documents: Documents, node: Node) -> None:
    author = Author(1)
    author.type("a")
    part = author.type("b")
    await documents.create("d", update=author.doc.get_update())
    await documents.delete("d")
    with pytest.raises(UpdateError):
        await documents.create("d", update=part)
    with pytest.raises(DocumentDeleted):
        await documents.describe("d")


async def test_a_document_may_be_created_again_from_what_was_exported(documents: Documents, node: Node) -> None:
    author = Author(1)
    author.type("kept ")
    exported = author.type("content") and author.doc.get_update()
    await documents.create("d", update=exported)
    await documents.delete("d")
    await documents.create("d", update=exported)
    assert await text(node, "d") == "kept content"
    assert await bring(node, "d", exported) == "kept content"


# A name that documents take and leave


async def test_what_a_renamed_document_holds_does_not_come_back_under_its_old_name(
    documents: Documents, node: Node
) -> None:
    old = Author(1).type("moved")
    await documents.create("d", update=old)
    await documents.rename("d", "e")
    await documents.create("d", update=Author(2).type("new"))
    assert await bring(node, "d", old) == "new"
    assert await text(node, "e") == "moved"


async def test_a_document_that_takes_a_name_keeps_its_content_and_gets_nothing_of_the_one_before(
    documents: Documents, node: Node
) -> None:
    old, mine = Author(1).type("old"), Author(2).type("mine")
    await documents.create("d", update=old)
    await documents.create("e", update=mine)
    await documents.delete("d")
    await documents.rename("e", "d")
    assert await text(node, "d") == "mine"
    assert await bring(node, "d", old) == "mine"


async def test_a_copy_takes_the_name_of_what_it_is_a_copy_of(documents: Documents, node: Node) -> None:
    update = Author(1).type("same")
    await documents.create("d", update=update)
    await documents.create("copy", update=update)
    await documents.delete("d")
    before = (await node.stored("copy")).document.head_seq
    await documents.rename("copy", "d")
    assert (await node.stored("d")).document.head_seq == before  # it has all of it
    assert await bring(node, "d", update) == "same"


async def test_a_document_that_is_restored_where_another_one_was_keeps_its_content(
    documents: Documents, node: Node
) -> None:
    """Copies of the one that was there between have its IDs among those that are gone."""
    old = Author(1).type("restored")
    await documents.create("d", update=old)
    await documents.delete("d")
    await documents.create("d", update=Author(2).type("between"))
    between = (await node.hub.open("d")).room.document.encode_state_as_update()
    assert await bring(node, "d", old) == "between"
    await documents.delete("d")
    first = (await node.store.list_trash(name="d"))[-1].document
    await node.hub.trash.restore("d", first.id)
    assert await text(node, "d") == "restored"
    assert await bring(node, "d", between, old) == "restored"


async def test_a_document_that_is_restored_where_none_was_between_stays_as_it_was(
    documents: Documents, node: Node
) -> None:
    author = Author(1)
    await documents.create("d", update=author.type("restored"))
    before = await node.stored("d")
    await documents.delete("d")
    await node.hub.trash.restore("d")
    assert (await node.stored("d")).rows == before.rows
    author.type(", and more")
    assert await bring(node, "d", author.doc.get_update()) == "restored, and more"


async def test_a_document_that_is_restored_under_another_name_does_not_come_back_under_the_old_one(
    documents: Documents, node: Node
) -> None:
    old = Author(1).type("restored")
    await documents.create("d", update=old)
    await documents.delete("d")
    await node.hub.trash.restore("d", new_name="e")
    await documents.create("d")
    assert await bring(node, "d", old) == ""
    assert await text(node, "e") == "restored"


# Resets


async def test_people_see_a_reset_and_go_on(documents: Documents, node: Node) -> None:
    author = Author(1)
    live, member, box = await node.join("d")
    live.receive(member, SyncUpdate(author.type("before")))
    done = await documents.resetting.reset("d", content=Author(9).type("after"), author="somebody")
    rows = (await node.stored("d")).rows
    assert done == (1, rows[-1].seq) and rows[-1].author == "somebody"
    for update in box.updates():
        author.doc.apply_update(update)
    assert str(author.text) == "after"
    live.receive(member, SyncUpdate(author.type(", and on")))
    await node.write(live)
    assert await text(node, "d") == "after, and on"
    assert await bring(node, "d", Author(1).type("before")) == "after, and on"
    assert live.ended is None


async def test_a_reset_may_leave_nothing(documents: Documents, node: Node) -> None:
    old = Author(1).type("before")
    await documents.create("d", update=old)
    await documents.resetting.reset("d")
    assert await bring(node, "d", old) == ""
    assert markers(node, "d") == [1]


async def test_what_was_not_stored_yet_is_reset_too(start_node: StartNode) -> None:
    node = await start_node(batch_window=30.0)
    documents = Documents(node.store, node.hub, resetting=node.hub.resetting)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("typed a moment ago")))
    await documents.resetting.reset("d")
    assert await text(node, "d") == ""


async def test_there_must_be_a_document_to_reset(documents: Documents, node: Node) -> None:
    with pytest.raises(DocumentNotFound):
        await documents.resetting.reset("d")
    await documents.create("d")
    await documents.delete("d")
    with pytest.raises(DocumentDeleted):
        await documents.resetting.reset("d")


async def test_new_content_must_be_whole_and_well_formed(documents: Documents, node: Node) -> None:
    await documents.create("d", update=Author(1).type("kept"))
    author = Author(2)
    author.type("a")
    for content in (author.type("b"), b"\1\1", b"nonsense"):
        with pytest.raises(UpdateError):
            await documents.resetting.reset("d", content=content)
    assert await text(node, "d") == "kept"


async def test_what_is_written_meanwhile_stays(documents: Documents, node: Node) -> None:
    """The row of a reset finds its place behind edits that come while it is computed."""
    await documents.create("d", update=Author(1).type("before"))
    live, member, _ = await node.join("d")
    tries = 0
    append_next = node.store.append_next

    async def hindered(document_id: int, seq: int, row: Any, *, reset: bool) -> bool:
        nonlocal tries
        tries += 1
        if tries <= 3:
            live.receive(member, SyncUpdate(Author(10 + tries).type(str(tries))))
            await node.write(live)
        written: bool = await append_next(document_id, seq, row, reset=reset)
        return written

    node.store.append_next = hindered  # type: ignore[attr-defined]
    await documents.resetting.reset("d", content=Author(9).type("after"))
    assert tries == 4
    await live.persistence.durable()
    assert sorted(await text(node, "d")) == sorted("after123")


async def test_of_two_resets_at_once_the_later_replaces_the_earlier(start_node: StartNode) -> None:
    """On two nodes: each has a number of its own, so neither passes for the other."""
    exchange = LocalExchange()
    nodes = [await start_node(bus=LocalBus(exchange)) for _ in range(2)]
    services = [Documents(node.store, node.hub, resetting=node.hub.resetting) for node in nodes]
    old = Author(1).type("before")
    await services[0].create("d", update=old)
    for node in nodes:
        await node.join("d")
    contents = [Author(5).type(f"reset {at}") for at in range(4)]
    rounds = [services[at % 2].resetting.reset("d", content=content) for at, content in enumerate(contents)]
    done = await asyncio.gather(*rounds)
    assert sorted(number for number, _ in done) == [1, 2, 3, 4]
    last = done.index(max(done))
    for node in nodes:
        await until_text(node, "d", f"reset {last}")
        assert markers(node, "d") == [1, 2, 3, 4]
        assert await bring(node, "d", old) == f"reset {last}"


async def test_what_is_of_no_use_any_more_leaves_memory_with_the_next_snapshot(
    documents: Documents, node: Node
) -> None:
    await documents.create("d", update=Author(1).type("x" * 100_000))
    live, _, _ = await node.join("d")
    await documents.resetting.reset("d")
    await happens(lambda: live.room.document.size < 1000, "the content is gone", 10)
    assert await text(node, "d") == ""


# Client IDs of resets


async def test_a_client_cannot_take_the_numbers_of_resets(documents: Documents, node: Node) -> None:
    await documents.create("d", update=Author(1).type("x"))
    live, member, _ = await node.join("d")
    with pytest.raises(UpdateError):
        live.receive(member, SyncUpdate(Author(RESERVED + 4 * 100).type("y")))
    assert await text(node, "d") == "x"


async def test_clients_heal_a_reset_that_the_log_has_lost(documents: Documents, node: Node) -> None:
    """What is in order is taken from clients: a backup may be older than a reset that they have seen."""
    await documents.create("d", update=Author(1).type("x"))
    for at in range(3):
        await documents.resetting.reset("d", content=Author(1).type(f"reset {at}"))
    state = (await node.hub.open("d")).room.document.encode_state_as_update()
    await documents.create("e", update=Author(1).type("x"))
    assert await bring(node, "e", state) == "reset 2"


# Strict resets


async def test_after_a_strict_reset_an_old_copy_brings_not_even_what_was_never_seen(
    documents: Documents, node: Node
) -> None:
    author = Author(1)
    await documents.create("d", update=author.type("seen"))
    await documents.resetting.reset("d", content=Author(2).type("new"), strict=True)
    clients = decode_state_vector((await node.hub.open("d")).room.document.encode_state_vector())
    assert any(is_marker(client, strict=True) for client in clients)
    old = author.doc.get_state()
    author.type(" unseen")
    live, member, box = await node.join("d", answer=False)
    live.receive(member, SyncStep1(author.doc.get_state()))
    message = SyncStep2(author.doc.get_update(old))
    assert live.is_long(message, member)
    await live.receive_in_slices(member, message)
    await node.write(live)
    for update in box.updates():
        author.doc.apply_update(update)
    assert await text(node, "d") == str(author.text) == "new"
    # What its client writes from now on is taken; it refers to what was left out.
    author.text.insert(0, "typed ")
    await live.receive_in_slices(member, SyncUpdate(author.updates[-1]))
    await node.write(live)
    assert await text(node, "d") == str(author.text) == "typed new"
    assert node.hub.rooms["d"].room.kept is None


async def test_an_old_copy_that_is_read_from_disk_late_is_met_by_a_strict_reset_too(
    documents: Documents, node: Node
) -> None:
    """y-indexeddb beside a provider that connects at once: what it reads is sent as one update."""
    author = Author(1)
    await documents.create("d", update=author.type("seen"))
    await documents.resetting.reset("d", strict=True)
    author.type(" unseen")
    live, member, box = await node.join("d", answer=False)
    live.receive(member, SyncStep1(b"\0"))
    await live.receive_in_slices(member, SyncStep2(EMPTY_UPDATE))
    await live.receive_in_slices(member, SyncUpdate(author.doc.get_update()))
    other = Author(2)
    for update in box.updates():
        other.doc.apply_update(update)
    await live.receive_in_slices(member, SyncUpdate(other.type("typed")))
    await node.write(live)
    assert await text(node, "d") == "typed"


async def test_a_copy_that_has_seen_a_strict_reset_brings_everything(documents: Documents, node: Node) -> None:
    await documents.create("d", update=Author(1).type("seen"))
    await documents.resetting.reset("d", content=Author(2).type("new"), strict=True)
    author = Author(3)
    author.doc.apply_update((await node.hub.open("d")).room.document.encode_state_as_update())
    before = author.doc.get_state()
    author.type(" offline")
    live, member, _ = await node.join("d", answer=False)
    live.receive(member, SyncStep1(before))
    message = SyncStep2(author.doc.get_update(before))
    assert not live.is_long(message, member)
    live.receive(member, message)
    await node.write(live)
    assert await text(node, "d") == "new offline"
