"""Edits without a session: the rules of sockets, the precondition in the step that takes them, the commit."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from typing import Any

import pytest

from collab.auth.access import Grant, OpenAccess
from collab.authorship import make_note
from collab.cluster.bus import Bus
from collab.cluster.local import LocalBus, LocalExchange
from collab.content.edits import Format, Replace, TextInsert, TextReplace
from collab.errors import (
    AccessExpired,
    CollabError,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    DocumentTooLarge,
    Forbidden,
    OutcomeUnknown,
    PreconditionFailed,
    SandboxCrashed,
    ServerStopping,
    StoreUnavailable,
    UpdateError,
    UpdateIncomplete,
)
from collab.hub import editing as editing_module
from collab.hub import replication
from collab.hub.admission import Admission
from collab.hub.editing import Editing
from collab.hub.orders import ANY, Precondition, Sender
from collab.hub.room import LiveRoom
from collab.limits.limits import Bounds, Limits
from collab.limits.memory import Memory
from collab.net import Peer
from collab.protocol.session import Access
from collab.protocol.sync import SyncUpdate
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.pool import ProcessSandbox
from collab.update.merge import merge_updates
from tests.hub.conftest import Acknowledged, Node, StartNode
from tests.support.author import Author, content
from tests.support.waiting import happens

PEER = Peer("203.0.113.7", "203.0.113.7", True, False, True, "collab.example")
ANN = Sender(PEER, Grant(Access.WRITE, "ann"))
BOB = Sender(PEER, Grant(Access.ADMIN, "bob"))


def match(*tags: str | None) -> Precondition:
    return Precondition(match=frozenset(str(tag) for tag in tags))


def unless(*tags: str | None) -> Precondition:
    return Precondition(none_match=frozenset(str(tag) for tag in tags))


class Edits:
    """A node with what edits its documents."""

    def __init__(self, node: Node, bounds: Bounds | None = None, memory: Memory | None = None) -> None:
        self.node = node
        self.hub = node.hub
        limits = Limits(Bounds() if bounds is None else bounds, memory)
        self.editing = Editing(node.hub, Admission(node.hub, OpenAccess(), limits), node.sandbox)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.editing, name)

    async def text(self, name: str) -> str:
        return content((await self.editing.whole(name)).update.join())

    async def stored_text(self, name: str) -> str:
        stored = await self.node.stored(name)
        rows = [] if stored.snapshot is None else [stored.snapshot.data]
        return content(merge_updates([*rows, *(row.data for row in stored.rows)]))


@pytest.fixture
async def edits(start_node: StartNode) -> Edits:
    return Edits(await start_node(sandbox=InlineSandbox()))


def stay_process(sandbox: ProcessSandbox) -> int:
    """Give the id of the process in which documents stay."""
    pool = sandbox._stay_slot.pool
    assert pool is not None
    (process,) = pool._pool_manager.worker_manager.workers
    return int(process)


# Updates


async def test_an_update_is_committed_with_its_author_and_relayed(edits: Edits) -> None:
    live, member, box = await edits.node.join("d")
    edited = await edits.apply("d", Author(1).type("hello"), ANN)
    assert edited.changed and edited.committed and edited.tag == live.name_state() and edited.number == 1
    assert box.text() == "hello"
    rows = (await edits.node.stored("d")).rows
    assert [(content(row.data), row.author) for row in rows] == [("hello", "ann")]


async def test_edits_of_several_senders_in_one_turn_are_rows_of_their_own(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), batch_window=0.05)
    node.keep_busy()
    edits = Edits(node)
    live, member, box = await node.join("d", kind=Acknowledged)
    live.receive(member, SyncUpdate(Author(3).type("c")))
    await node.write(live)
    first, second = Author(1).type("a"), Author(2).type("b")
    await asyncio.gather(edits.apply("d", first, ANN), edits.apply("d", second, BOB))
    assert [row.author for row in (await node.stored("d")).rows] == [None, "ann", "bob"]
    assert node.hub.rooms["d"].persistence.turns == 2, "both were of one turn"
    assert box.verdicts() == [True, True], "the members' own acknowledgements are not disturbed"


async def test_an_update_that_is_known_changes_nothing_and_is_answered_after_what_came_before(edits: Edits) -> None:
    update = Author(1).type("once")
    assert (await edits.apply("d", update, ANN)).changed
    again = await edits.apply("d", update, ANN, match("of another state"))
    assert not again.changed and again.committed, "it may be sent again, whatever the state was"
    assert again.number == 1, "the row that has it"
    assert len((await edits.node.stored("d")).rows) == 1
    edits.node.store.full = True
    author = Author(2)
    update = author.type("more")
    first = asyncio.ensure_future(edits.apply("d", update, ANN))
    await happens(lambda: edits.node.journal.failing, "the store is full")
    second = asyncio.ensure_future(edits.apply("d", update, ANN))
    await asyncio.sleep(0.02)
    assert not first.done() and not second.done()
    edits.node.store.full = False
    assert (await first).committed and not (await second).changed
    assert await edits.stored_text("d") in ("oncemore", "moreonce")


async def test_one_that_waits_only_until_it_is_taken_is_answered_before_the_commit(edits: Edits) -> None:
    await edits.apply("d", b"\0\0", ANN)
    edits.node.store.full = True
    edited = await edits.apply("d", Author(1).type("x"), ANN, commit=False)
    assert edited.changed and not edited.committed and edited.number is None
    edits.node.store.full = False
    await happens(lambda: edits.hub.rooms["d"].persistence.document_id, "committed")
    assert await edits.stored_text("d") == "x"


async def test_what_is_not_whole_is_refused_and_nothing_of_it_taken_or_kept(edits: Edits) -> None:
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    other = Author(2).type("other")
    live = await edits.hub.open("d")
    with pytest.raises(UpdateIncomplete) as caught:
        await edits.apply("d", merge_updates([second, other]), ANN)
    assert caught.value.missing == (1, 0)
    assert live.room.document.version == 0 and live.room.kept is None and not live.exists
    assert (await edits.apply("d", merge_updates([first, second, other]), ANN)).changed
    assert sorted(await edits.text("d")) == sorted("abother")
    # A delete of what is not there is not whole either.
    del author.text[0:2]
    late = Author(9)
    late.type("zz")
    del late.text[0:1]
    with pytest.raises(UpdateIncomplete):
        await edits.apply("d", late.updates[-1], ANN)
    assert (await edits.apply("d", author.updates[-1], ANN)).changed


@pytest.mark.parametrize("bad", [b"", b"\1", bytes.fromhex("01010500"), b"\xff" * 30, b"\0\0\0"])
async def test_a_malformed_update_is_refused(edits: Edits, bad: bytes) -> None:
    with pytest.raises(UpdateError):
        await edits.apply("d", bad, ANN)
    assert not (await edits.hub.open("d")).exists


async def test_a_long_update_is_taken_in_slices_and_the_loop_turns(edits: Edits) -> None:
    author = Author(1)
    updates = [author.type(letter) for letter in "abcdefghij" * 2_000]
    del author.text[0:1]
    long = merge_updates([merge_updates(updates[at : at + 100]) for at in range(0, len(updates), 100)])
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    assert (await edits.apply("d", long, ANN)).changed
    ticking.cancel()
    assert turns > 10
    assert await edits.text("d") == "abcdefghij" * 2_000


async def test_who_may_only_read_or_whose_time_is_over_is_refused(edits: Edits) -> None:
    update = Author(1).type("x")
    with pytest.raises(Forbidden):
        await edits.apply("d", update, Sender(PEER, Grant(Access.READ, "eve")))
    with pytest.raises(AccessExpired):
        await edits.apply("d", update, Sender(PEER, Grant(Access.WRITE, "eve", None, edits.hub.clock() - 1)))
    assert not (await edits.hub.open("d")).exists


async def test_new_documents_are_counted_and_others_not(start_node: StartNode) -> None:
    edits = Edits(await start_node(sandbox=InlineSandbox()), Bounds(new_documents=1))
    assert (await edits.apply("a", Author(1).type("x"), ANN)).changed
    with pytest.raises(DocumentBusy):
        await edits.apply("b", Author(1).type("x"), ANN)
    assert not (await edits.hub.open("b")).exists
    assert (await edits.apply("a", Author(2).type("y"), ANN)).changed
    assert not (await edits.apply("b", b"\0\0", ANN)).changed, "an update without news creates nothing"
    assert (
        await edits.apply("b", Author(1).type("x"), Sender(dataclasses.replace(PEER, counted=False), BOB.grant))
    ).changed


async def test_a_document_that_would_be_too_large_is_refused_unless_it_gets_smaller(start_node: StartNode) -> None:
    edits = Edits(await start_node(sandbox=InlineSandbox(), max_document_bytes=20_000))
    author = Author(1)
    await edits.apply("d", author.type("x" * 15_000), ANN)
    with pytest.raises(DocumentTooLarge):
        await edits.apply("d", Author(2).type("y" * 6_000), ANN)
    assert (await edits.apply("d", author.replace("z" * 9_000), ANN)).changed, "what it deletes makes up for it"
    assert await edits.text("d") == "z" * 9_000


async def test_a_full_backlog_refuses_what_is_new(start_node: StartNode) -> None:
    edits = Edits(await start_node(sandbox=InlineSandbox(), backlog_bytes=10_000))
    update = Author(1).type("known")
    await edits.apply("d", update, ANN)
    edits.node.store.full = True
    await edits.apply("d", Author(2).type("y" * 20_000), ANN, commit=False)
    await happens(lambda: edits.node.journal.full, "full")
    for edit in (edits.apply("d", Author(3).type("z"), ANN), edits.edit("d", TextInsert("t", 0, "z"), ANN)):
        with pytest.raises(StoreUnavailable, match="backlog"):
            await edit
    assert not (await edits.apply("d", update, ANN, commit=False)).changed
    edits.node.store.full = False
    await happens(lambda: not edits.node.journal.backlog, "written")
    assert (await edits.apply("d", Author(3).type("z"), ANN)).committed


async def test_short_of_memory_only_what_is_open_is_edited(start_node: StartNode) -> None:
    memory = Memory(mark=1)
    edits = Edits(await start_node(sandbox=InlineSandbox()), memory=memory)
    await edits.apply("open", Author(1).type("x"), ANN)
    memory.used = 2
    assert (await edits.apply("open", Author(2).type("y"), ANN)).changed
    with pytest.raises(DocumentBusy):
        await edits.apply("other", Author(1).type("x"), ANN)


async def test_a_commit_that_does_not_come_in_time_is_said_honestly(
    edits: Edits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing_module, "COMMIT_SECONDS", 0.05)
    await edits.apply("d", Author(1).type("a"), ANN)
    edits.node.store.full = True
    author = Author(2)
    update = author.type("b")
    with pytest.raises(OutcomeUnknown):
        await edits.apply("d", update, ANN)
    monkeypatch.undo()
    edits.node.store.full = False
    again = await edits.apply("d", update, ANN)
    assert not again.changed and again.committed
    assert sorted(await edits.stored_text("d")) == ["a", "b"]


async def test_a_document_that_is_deleted_while_an_edit_waits_for_its_commit(edits: Edits) -> None:
    await edits.apply("d", Author(1).type("a"), ANN)
    live = edits.hub.rooms["d"]
    edits.node.store.full = True
    waiting = asyncio.ensure_future(edits.apply("d", Author(2).type("b"), ANN))
    await happens(lambda: edits.node.journal.failing, "it waits")
    document_id = await edits.node.store.delete("d", 1.0)
    edits.hub.deleted("d", document_id)
    assert live.ended is not None
    edits.node.store.full = False
    with pytest.raises(DocumentDeleted):
        await waiting
    for ask in (
        edits.apply("d", Author(3).type("c"), ANN),
        edits.text("d"),
        edits.edit("d", TextInsert("t", 0, "c"), ANN),
    ):
        with pytest.raises(DocumentDeleted):
            await ask


async def test_a_room_that_fails_while_an_edit_waits_for_its_turn_leaves_it_unknown(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), batch_window=10.0)
    node.keep_busy()
    edits = Edits(node)
    live, member, _ = await node.join("d")
    live.flushed_at = node.hub.now()
    waiting = asyncio.ensure_future(edits.apply("d", Author(2).type("b"), ANN))
    await happens(lambda: live.room.document.version, "it is taken")
    node.hub.failed(live, RuntimeError("for the test"))
    with pytest.raises(OutcomeUnknown):
        await waiting
    assert (await edits.apply("d", Author(2).type("b"), ANN)).committed
    assert await edits.stored_text("d") == "b"


async def test_a_server_that_stops_takes_no_more_and_keeps_what_it_has_answered(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox())
    edits = Edits(node)
    node.store.full = True
    waiting = asyncio.ensure_future(edits.apply("d", Author(2).type("b"), ANN))
    await happens(lambda: node.journal.failing, "it waits")
    stopping = asyncio.ensure_future(node.hub.drain(10.0))
    await happens(lambda: node.journal.closed, "it stops")
    with pytest.raises(ServerStopping):
        await edits.apply("d", Author(3).type("c"), ANN)
    node.store.full = False
    assert await stopping == []
    assert (await waiting).committed
    await node.sandbox.close()
    await node.store.close()


async def test_an_edit_that_a_stopping_server_could_not_store_is_unknown(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node(sandbox=InlineSandbox())
    edits = Edits(node)
    node.store.full = True
    waiting = asyncio.ensure_future(edits.apply("d", Author(2).type("b"), ANN))
    await happens(lambda: node.journal.failing, "it waits")
    assert await node.hub.drain(0.2) == ["d"]
    with pytest.raises(OutcomeUnknown):
        await waiting
    await node.sandbox.close()
    await node.store.close()


async def test_a_room_is_not_unloaded_while_a_call_is_under_way_and_is_afterwards(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), idle_seconds=0.0)
    edits = Edits(node)
    await edits.apply("d", Author(1).type("a"), ANN)
    await happens(lambda: "d" not in node.hub.rooms, "unloaded behind the call")
    node.store.full = True
    waiting = asyncio.ensure_future(edits.apply("d", Author(2).type("b"), ANN))
    await happens(lambda: node.journal.failing, "it waits")
    live = node.hub.rooms["d"]
    await asyncio.sleep(0.5)
    assert node.hub.rooms["d"] is live
    node.store.full = False
    assert (await waiting).committed
    await happens(lambda: "d" not in node.hub.rooms, "unloaded")
    assert sorted(await edits.text("d")) == ["a", "b"]


# Preconditions


async def test_the_name_of_a_state_is_of_the_state_and_not_of_the_way_to_it(start_node: StartNode) -> None:
    edits = Edits(await start_node(sandbox=InlineSandbox(), idle_seconds=0.0))
    a, b = Author(1), Author(2)
    one, two = a.type("one"), b.type("two")
    a.read(two)
    del a.text[0:2]
    tags = []
    for name, updates in (("x", [one, two, a.updates[-1]]), ("y", [merge_updates([two, one]), a.updates[-1]])):
        for update in updates:
            tag = (await edits.apply(name, update, ANN)).tag
        tags.append(tag)
    assert tags[0] == tags[1] is not None
    await happens(lambda: not edits.hub.rooms, "both have left memory, with snapshots")
    assert (await edits.node.stored("x")).snapshot is not None
    assert [await edits.name_state(name) for name in ("x", "y")] == tags, "the same behind a snapshot"
    seen = {tags[0]}
    for letter in "abc":
        tag = (await edits.apply("x", Author(ord(letter)).type(letter), ANN)).tag
        assert tag not in seen
        seen.add(tag)


async def test_a_precondition_is_checked_in_the_step_that_takes_the_edit(edits: Edits) -> None:
    author = Author(1)
    tag = (await edits.apply("d", author.type("a"), ANN)).tag
    with pytest.raises(PreconditionFailed):
        await edits.apply("d", author.type("b"), ANN, match("0" * 32))
    assert await edits.text("d") == "a"
    live, member, _ = await edits.node.join("d")
    # A long one is read in slices; somebody types meanwhile.
    long = Author(3)
    for _ in range(3_000):
        long.type("x")
    update = merge_updates([merge_updates(long.updates[at : at + 100]) for at in range(0, 3_000, 100)])
    taking = asyncio.ensure_future(edits.apply("d", update, ANN, match(tag)))
    for _ in range(4):
        await asyncio.sleep(0)
    assert not taking.done()
    live.receive(member, SyncUpdate(Author(4).type("typed")))
    with pytest.raises(PreconditionFailed):
        await taking
    assert sorted(await edits.text("d")) == sorted("atyped")
    now = await edits.name_state("d")
    assert (await edits.apply("d", update, ANN, match("other", now))).changed


async def test_preconditions_about_whether_a_document_exists(edits: Edits) -> None:
    update = Author(1).type("a")
    with pytest.raises(PreconditionFailed):
        await edits.apply("d", update, ANN, match(ANY))
    assert (await edits.apply("d", update, ANN, unless(ANY))).changed
    tag = await edits.name_state("d")
    for condition in (unless(ANY), unless(tag), match("x"), Precondition(frozenset({ANY}), frozenset({tag}))):
        for edit in (
            edits.apply("d", Author(2).type("b"), ANN, condition),
            edits.edit("d", TextInsert("t", 0, "b"), ANN, condition),
        ):
            with pytest.raises(PreconditionFailed):
                await edit
    assert (await edits.apply("d", Author(2).type("b"), ANN, match(ANY))).changed
    assert (await edits.apply("d", Author(3).type("c"), ANN, unless(tag))).changed


async def test_of_many_that_come_with_one_state_one_is_taken(edits: Edits) -> None:
    tag = (await edits.apply("d", Author(1).type("-"), ANN)).tag
    results = await asyncio.gather(
        *(edits.apply("d", Author(2 + n).type(str(n)), ANN, match(tag)) for n in range(10)),
        *(edits.edit("d", TextInsert("t", 0, str(n)), ANN, match(tag)) for n in range(10)),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 19
    assert len(await edits.text("d")) == 2


# Reading


async def test_reading_gives_the_state_and_its_name(edits: Edits) -> None:
    with pytest.raises(DocumentNotFound):
        await edits.whole("d")
    with pytest.raises(DocumentNotFound):
        await edits.read("d", Format.TEXT, "t")
    with pytest.raises(DocumentNotFound):
        await edits.name_state("d")
    author = Author(1)
    tag = (await edits.apply("d", author.type("abc"), ANN)).tag
    vector = author.doc.get_state()
    whole = await edits.whole("d")
    assert (content(whole.update.join()), whole.tag) == ("abc", tag)
    document = (await edits.node.stored("d")).document.id
    assert await edits.read("d", Format.TEXT, "t") == (b"abc", tag, document, 1)
    author.type("def")
    edited = await edits.apply("d", author.updates[-1], ANN)
    lacking = await edits.whole("d", vector)
    reader = Author(0)
    assert len(lacking.update.join()) < len((await edits.whole("d")).update.join())
    reader.read(merge_updates(author.updates[:1]))
    assert reader.read(lacking.update.join()) == "abcdef" and lacking.tag == edited.tag
    for bad in (b"", b"\1", b"\xff" * 9):
        with pytest.raises(CollabError):
            await edits.whole("d", bad)


async def test_a_wide_document_is_read_whole_while_others_write(edits: Edits) -> None:
    live, member, _ = await edits.node.join("d")
    for client in range(1, 800):
        live.receive(member, SyncUpdate(Author(client).type("x")))
    author = Author(1_000)
    stop = False

    async def write() -> None:
        while not stop:
            live.receive(member, SyncUpdate(author.type("y")))
            await asyncio.sleep(0)

    writing = asyncio.ensure_future(write())
    for _ in range(5):
        whole = await edits.whole("d")
        text = content(whole.update.join())
        assert text.count("x") == 799 and set(text) == set("xy")
    stop = True
    await writing
    assert (await edits.whole("d")).tag == live.name_state()


# Edits that are computed


async def test_an_edit_is_computed_and_stored_with_its_author(edits: Edits) -> None:
    await edits.apply("d", Author(1).type("hello"), ANN)
    _, _, box = await edits.node.join("d")
    edited = await edits.edit("d", TextReplace("t", "hell", "Jell"), BOB)
    assert edited.changed and edited.committed and edited.tag == await edits.name_state("d")
    assert await edits.text("d") == await edits.stored_text("d") == "Jello"
    assert [row.author for row in (await edits.node.stored("d")).rows] == ["ann", "bob"]
    reader = Author(0)
    reader.read((await edits.whole("d")).update.join())
    assert str(reader.text) == "Jello"
    assert not (await edits.edit("d", Replace("t", Format.TEXT, "Jello"), ANN)).changed
    with pytest.raises(CollabError, match="passage"):
        await edits.edit("d", TextReplace("t", "absent", "x"), ANN)
    assert await edits.text("d") == "Jello"


async def test_a_document_gets_one_client_id_for_all_edits_of_a_stay(edits: Edits) -> None:
    await edits.edit("d", TextInsert("t", 0, "a"), ANN)
    for _ in range(20):
        await edits.edit("d", TextInsert("t", 0, "b"), ANN)
    await asyncio.gather(*(edits.edit("d", TextInsert("t", 0, "c"), BOB) for _ in range(20)))
    live = edits.hub.rooms["d"]
    assert live.room.document.clients == 1
    assert sorted(await edits.text("d")) == sorted("a" + "b" * 20 + "c" * 20)


async def test_what_others_type_reaches_the_stay_and_merges(edits: Edits) -> None:
    live, member, box = await edits.node.join("d")
    author = Author(1)
    for n in range(30):
        live.receive(member, SyncUpdate(author.type(f"{n} ")))
        edit = asyncio.ensure_future(edits.edit("d", TextReplace("t", f"{n} ", f"[{n}]"), ANN))
        await asyncio.sleep(0)
        live.receive(member, SyncUpdate(author.type("+")))
        await edit
        for update in box.updates():
            author.read(update)
    text = str(author.text)
    assert text.replace("+", "") == "".join(f"[{n}]" for n in range(30)) and text.count("+") == 30
    assert await edits.text("d") == text
    assert live.room.document.clients == 2
    assert (await edits.read("d", Format.TEXT, "t"))[:2] == (text.encode(), live.name_state())


async def test_the_stay_goes_on_when_its_room_was_unloaded(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), idle_seconds=0.0)
    edits = Edits(node)
    for n in range(4):
        await edits.edit("d", TextInsert("t", 0, "x"), ANN)
        await happens(lambda: "d" not in node.hub.rooms, "unloaded")
        await edits.apply("d", Author(n + 1).type("y"), ANN)
        await happens(lambda: "d" not in node.hub.rooms, "unloaded")
    await edits.edit("d", TextInsert("t", 4, "|"), ANN)
    assert sorted(await edits.text("d")) == sorted("xxxxyyyy|")
    assert edits.hub.rooms["d"].room.document.clients == 5, "four of others, and one for all edits"


async def test_the_stay_is_over_when_the_document_is_another_one(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), idle_seconds=0.0)
    edits = Edits(node)
    await edits.edit("d", TextInsert("t", 0, "old"), ANN)
    await happens(lambda: "d" not in node.hub.rooms, "unloaded")
    await node.store.delete("d", 1.0)
    await node.store.create("d")
    await edits.edit("d", TextInsert("t", 0, "new"), ANN)
    assert await edits.text("d") == "new"
    # And when its room has failed, with something that may be in no log.
    live = node.hub.rooms["d"]
    node.hub.failed(live, RuntimeError("for the test"))
    await edits.edit("d", TextInsert("t", 0, "er "), ANN)
    assert await edits.text("d") == "er new"
    assert node.hub.rooms["d"].room.document.clients == 2


async def test_an_edit_that_is_computed_and_not_taken_is_in_nobody(
    edits: Edits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stay has it, so the stay is over; those behind it are computed again."""
    await edits.edit("d", TextInsert("t", 0, "a"), ANN)
    take, refused = edits.editing.take, 0

    async def refusing(live: LiveRoom, update: bytes, sender: Sender, *rest: Any) -> Any:
        nonlocal refused
        if sender is BOB:
            refused += 1
            raise StoreUnavailable("for the test")
        return await take(live, update, sender, *rest)

    monkeypatch.setattr(edits.editing, "take", refusing)
    results = await asyncio.gather(
        *(edits.edit("d", TextInsert("t", 0, letter), BOB if letter == "B" else ANN) for letter in "bBcd"),
        return_exceptions=True,
    )
    assert [isinstance(result, StoreUnavailable) for result in results] == [False, True, False, False]
    assert refused == 1
    assert sorted(await edits.text("d")) == ["a", "b", "c", "d"]
    assert edits.hub.rooms["d"].room.document.clients == 2
    assert (await edits.read("d", Format.TEXT, "t")).value.decode() == await edits.text("d")


async def test_a_precondition_holds_for_the_state_an_edit_was_computed_for(edits: Edits) -> None:
    live, member, _ = await edits.node.join("d")
    author = Author(1)
    live.receive(member, SyncUpdate(author.type("a")))
    for _ in range(20):
        tag = await edits.name_state("d")
        assert (await edits.edit("d", TextInsert("t", 0, "x"), ANN, match(tag))).changed
        # Somebody types while it is computed.
        tag = await edits.name_state("d")
        edit = asyncio.ensure_future(edits.edit("d", TextInsert("t", 0, "NO"), ANN, match(tag)))
        for _ in range(3):
            await asyncio.sleep(0)
        live.receive(member, SyncUpdate(author.type("y")))
        try:
            await edit
            text = await edits.text("d")
            assert text.startswith("NO")
        except PreconditionFailed:
            pass
    text = await edits.text("d")
    assert text.count("x") == 20 and text.count("y") == 20


async def test_a_crash_costs_the_edits_of_its_job_and_not_the_document(start_node: StartNode) -> None:
    node = await start_node()
    assert isinstance(node.sandbox, ProcessSandbox)
    edits = Edits(node)
    await edits.edit("d", TextInsert("t", 0, "a"), ANN)
    live, member, _ = await node.join("d")
    process = stay_process(node.sandbox)
    os.kill(process, signal.SIGSTOP)
    edit = asyncio.ensure_future(edits.edit("d", TextInsert("t", 0, "lost"), ANN))
    await happens(lambda: node.sandbox._running, "it runs")
    os.kill(process, signal.SIGKILL)
    with pytest.raises(SandboxCrashed):
        await edit
    live.receive(member, SyncUpdate(Author(1).type("typed")))
    assert (await edits.edit("d", TextInsert("t", 0, "b"), ANN)).committed
    assert sorted(await edits.text("d")) == sorted("abtyped")
    assert live.room.document.clients == 3, "the client ID of a stay that is over is never used again"


# Two nodes


async def test_edits_on_two_nodes_of_one_document_reach_both(start_node: StartNode) -> None:
    exchange = LocalExchange()
    buses: list[Bus] = [LocalBus(exchange), LocalBus(exchange)]
    here, there = [Edits(await start_node(sandbox=InlineSandbox(), bus=bus)) for bus in buses]
    _, _, box = await there.node.join("d")
    for n in range(10):
        await asyncio.gather(
            here.edit("d", TextInsert("t", 0, "h"), ANN),
            there.edit("d", TextInsert("t", 0, "t"), BOB),
            here.apply("d", Author(n + 1).type("a"), ANN),
        )

    def level() -> bool:
        a, b = here.hub.rooms["d"], there.hub.rooms["d"]
        return a.name_state() == b.name_state() and a.persistence.seq == b.persistence.seq

    await happens(level, "both hold the same")
    assert sorted(await here.text("d")) == sorted("h" * 10 + "t" * 10 + "a" * 10)
    assert box.text() == await there.text("d") == await here.text("d") == await here.stored_text("d")
    assert here.hub.rooms["d"].room.document.clients == 12
    tag = await here.name_state("d")
    assert (await there.edit("d", TextInsert("t", 0, "!"), BOB, match(tag))).changed, (
        "a state has one name on all nodes"
    )


async def test_the_number_of_an_edit_counts_rows_of_other_nodes_that_nobody_has_told_of(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks by the clock: the row of the other node is found when it has been overtaken, and not before.
    monkeypatch.setattr(replication, "_LOOK", 3600.0)
    here, there = [Edits(await start_node(sandbox=InlineSandbox())) for _ in range(2)]
    await here.apply("d", Author(1).type("a"), ANN)
    await there.read("d", Format.TEXT, "t")
    assert (await here.apply("d", Author(2).type("b"), ANN)).number == 2
    shown = await there.read("d", Format.TEXT, "t")
    assert (shown.value, shown.last) == (b"a", 1), "it says that it is older"
    assert (await there.apply("d", Author(3).type("c"), BOB)).number == 3
    await happens(lambda: there.hub.rooms["d"].persistence.seq == 3, "all rows are read")
    shown = await there.read("d", Format.TEXT, "t")
    assert (len(shown.value), shown.last) == (3, 3)


async def test_rows_say_for_whom_an_edit_was_made_and_the_client_id_of_a_stay_is_nobodys(edits: Edits) -> None:
    sender = Sender(PEER, Grant(Access.WRITE, "back end"), make_note("ann", "importer"))
    await edits.edit("d", TextInsert("t", 0, "a"), sender)
    await edits.apply("d", Author(1).type("b"), sender)
    await edits.edit("d", TextInsert("t", 0, "c"), BOB)
    stored = await edits.node.stored("d")
    noted = [(row.author, row.note) for row in stored.rows]
    assert noted == [("back end", make_note("ann", "importer"))] * 2 + [("bob", None)]
    assert [use.author for use in edits.hub.rooms["d"].room.first_uses()] == [None], "the stay's, and not twice"
