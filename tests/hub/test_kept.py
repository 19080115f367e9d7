"""Updates that wait for what nobody has sent yet: durable before they are acknowledged, taken when the rest comes."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from collab.adapters import make_maintenance
from collab.cluster.local import LocalBus, LocalExchange
from collab.engine.kept import OVERHEAD
from collab.errors import DocumentDeleted
from collab.hub import room as room_module
from collab.hub.compaction import CompactionPolicy
from collab.hub.documents import Documents
from collab.hub.maintenance import carry_out, plan_repair, verify
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.storage.records import PendingUpdate
from collab.storage.urls import DatabaseUrl
from collab.telemetry import RateLimited, get_logger
from collab.update.merge import merge_updates
from tests.hub.conftest import Acknowledged, Node, StartNode
from tests.support.author import Author, content
from tests.support.gone import Gone
from tests.support.waiting import eventually, happens


@pytest.fixture(autouse=True)
def a_budget_of_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "_limited", RateLimited(get_logger("room")))


async def pending(node: Node, name: str = "d") -> list[PendingUpdate]:
    loaded = await node.store.load(name)
    return [] if loaded is None else list(loaded.pending)


async def until_pending(node: Node, count: int, name: str = "d") -> list[PendingUpdate]:
    async def look() -> tuple[list[PendingUpdate]] | None:
        found = await pending(node, name)
        return (found,) if len(found) == count else None

    (found,) = await eventually(look, f"{count} updates wait in the store", 20.0)
    return found


async def keep(node: Node, gone: Gone, name: str = "d") -> None:
    """Let somebody come who holds what waits, and leave when it is called saved."""
    live, member, box = await node.join(name, answer=False, kind=Acknowledged)
    live.receive(member, SyncStep2(gone.rest))
    await box.until(lambda: box.verdicts() == [True], "it is acknowledged")
    live.leave(member)


async def text_of(node: Node, name: str = "d") -> str:
    live = await node.hub.open(name)
    return content(live.room.document.encode_state_as_update())


async def test_what_waits_is_acknowledged_when_it_is_in_the_store_and_holds_back_nothing(start_node: StartNode) -> None:
    node, gone, own = await start_node(), Gone(), Author(1)
    live, member, box = await node.join("d", answer=False, kind=Acknowledged)
    _, _, other = await node.join("d")
    node.store.full = True
    live.receive(member, SyncStep2(gone.rest))
    live.receive(member, SyncUpdate(own.type("a")))
    await other.until(lambda: other.text() == "a", "what is whole is relayed at once")
    assert box.verdicts() == [] and await pending(node) == []
    node.store.full = False
    await box.until(lambda: box.verdicts() == [True, True], "both are acknowledged")
    (kept,) = await pending(node)
    assert kept.data == gone.rest and other.text() == "a"
    for letter in "bcd":
        live.receive(member, SyncUpdate(own.type(letter)))
    await box.until(lambda: box.verdicts() == [True] * 5, "its edits are acknowledged")
    live.receive(member, SyncStep2(gone.rest))
    await box.until(lambda: box.verdicts() == [True] * 6, "again")
    assert await pending(node) == [kept], "what is kept is not written twice"
    assert content(merge_updates([row.data for row in (await node.stored("d")).rows])) == "abcd"


@pytest.mark.parametrize("letters", ["rest", "r" * 100_000], ids=["small", "in slices"])
async def test_what_waits_outlives_its_sender_the_room_and_the_server(start_node: StartNode, letters: str) -> None:
    node, gone = await start_node(idle_seconds=0.0), Gone(letters=letters)
    live, member, box = await node.join("d", answer=False, kind=Acknowledged)
    member.author = "holder"
    await live.receive_in_slices(member, SyncStep2(gone.rest))
    await box.until(lambda: box.verdicts() == [True], "it is acknowledged")
    live.leave(member)
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    assert node.hub._kept_budget.nbytes == 0
    again = await start_node()
    assert await text_of(again) == ""
    live, member, _ = await again.join("d")
    _, _, other = await again.join("d")
    live.receive(member, SyncUpdate(gone.missing))
    await other.until(lambda: other.text() == gone.whole, "the others see all of it")
    await until_pending(again, 0)
    rows = (await again.stored("d")).rows
    assert [(row.data, row.author) for row in rows] == [(gone.missing, None), (gone.rest, "holder")]
    assert again.hub._kept_budget.nbytes == 0


async def test_what_has_come_before_the_document_is_opened_again_is_taken_then(start_node: StartNode) -> None:
    node, gone = await start_node(idle_seconds=0.0), Gone()
    await keep(node, gone)
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    # As a release writes it that knows of nothing that waits.
    author, plain = Author(5), await start_node()
    await plain.store.delete("d", 1.0)
    await plain.store.create("d")
    await keep(node, gone)
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    await plain.stop()
    live, member, box = await node.join("d", kind=Acknowledged)
    live.room.forget_kept()
    live.receive(member, SyncUpdate(gone.missing))
    live.receive(member, SyncUpdate(author.type("!")))
    await box.until(lambda: len(box.verdicts()) == 3, "saved")
    live.leave(member)
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    assert len(await pending(node)) == 1
    live = await node.hub.open("d")
    await until_pending(node, 0)
    assert content(live.room.document.encode_state_as_update()) in (gone.whole + "!", "!" + gone.whole)


async def test_a_node_takes_what_another_one_has_kept_and_forgotten(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one = await start_node(idle_seconds=0.0, bus=LocalBus(exchange))
    two = await start_node(bus=LocalBus(exchange))
    gone = Gone()
    live, member, box = await two.join("d")
    own = Author(1)
    live.receive(member, SyncUpdate(own.type("a")))
    await two.write(live)
    await keep(one, gone)
    await happens(lambda: "d" not in one.hub.rooms, "the room leaves memory")
    await box.until(lambda: live.room.kept is not None and len(live.room.kept) == 1, "the other one learns of it")
    live.receive(member, SyncUpdate(gone.missing))
    await until_pending(two, 0)
    assert set(await text_of(two)) == set("a" + gone.whole)
    assert len(live.room.kept or ()) == 0


async def test_both_nodes_may_take_it(start_node: StartNode) -> None:
    exchange = LocalExchange()
    nodes = [await start_node(bus=LocalBus(exchange)) for _ in range(2)]
    gone = Gone()
    rooms = [(await node.join("d"))[0] for node in nodes]
    await keep(nodes[0], gone)
    await happens(lambda: rooms[1].room.kept is not None and len(rooms[1].room.kept) == 1, "the other one learns of it")
    live, member, _ = await nodes[1].join("d")
    live.receive(member, SyncUpdate(gone.missing))
    for room in rooms:
        await happens(lambda room=room: not room.room.kept, "it is taken")
        document = room.room.document
        await happens(lambda d=document: content(d.encode_state_as_update()) == gone.whole, "all of it is here")
    await until_pending(nodes[0], 0)
    again = await start_node()
    assert await text_of(again) == gone.whole


async def test_what_is_over_the_bound_is_refused_and_nothing_else(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node, own = await start_node(max_pending_bytes=2 * OVERHEAD), Author(1)
    live, member, box = await node.join("d", answer=False, kind=Acknowledged)
    for client in (10, 20):
        live.receive(member, SyncUpdate(Gone(client).rest))
        live.receive(member, SyncUpdate(own.type("a")))
    await box.until(lambda: box.verdicts() == [True, True], "what was not kept waits for the answer to the question")
    assert len(await pending(node)) == 1
    live.receive(member, SyncStep2(merge_updates([own.doc.get_update(), Gone(20).rest])))
    await box.until(lambda: box.verdicts() == [True, True, False, True, False], "which holds it, and is not kept")
    warnings = [r.getMessage() for r in caplog.records if "no room to keep" in r.getMessage()]
    assert len(warnings) == 1
    assert box.ended is None and await text_of(node) == "aa"


async def test_a_snapshot_is_made_and_holds_nothing_that_waits(start_node: StartNode) -> None:
    node = await start_node(compaction=CompactionPolicy(rows=5, nbytes=1 << 30, ratio=0.0))
    gone, own = Gone(), Author(1)
    await keep(node, gone)
    live, member, _ = await node.join("d")
    for _ in range(6):
        live.receive(member, SyncUpdate(own.type("a")))
        await node.write(live)

    async def look() -> Any:
        return (await node.stored("d")).snapshot

    snapshot = await eventually(look, "there is a snapshot", 20.0)
    assert content(snapshot.data) == own.text.to_py()[: len(content(snapshot.data))]
    assert len(await pending(node)) == 1
    live.receive(member, SyncUpdate(gone.missing))
    await until_pending(node, 0)


async def test_a_document_of_nothing_but_what_waits_can_be_deleted(start_node: StartNode) -> None:
    node, gone = await start_node(), Gone()
    await keep(node, gone)
    summary = await node.store.describe("d")
    assert summary.document.head_seq == 0
    _, _, box = await node.join("d")
    await Documents(node.store, node.hub).delete("d")
    await box.until(lambda: isinstance(box.ended, DocumentDeleted), "its clients are told")
    while await node.store.prune(before=0.0, limit=100):
        pass
    assert await node.store.load_pending(summary.document.id) == []


async def test_what_went_back_with_the_database_is_kept_again(start_node: StartNode, url: DatabaseUrl) -> None:
    assert url.path is not None
    node, gone, own = await start_node(), Gone(), Author(1)
    live, member, box = await node.join("d", kind=Acknowledged)
    live.receive(member, SyncUpdate(own.type("a")))
    await box.until(lambda: len(box.verdicts()) == 2, "saved")
    copy = sqlite3.connect(url.path.with_suffix(".backup"))
    with contextlib.closing(copy), contextlib.closing(sqlite3.connect(url.path)) as database:
        database.backup(copy)
        await keep(node, gone)
        copy.backup(database)
        live.receive(member, SyncStep2(Gone(200).rest))
        await box.until(lambda: len(box.verdicts()) == 3, "saved")
    assert box.verdicts()[-1] and node.hub.healing.times == 1
    found = await until_pending(node, 2)
    assert {update.data for update in found} == {gone.rest, Gone(200).rest}
    live.receive(member, SyncUpdate(gone.missing))
    await until_pending(node, 1)


async def test_what_is_damaged_is_left_out_named_and_removed_by_repair(
    start_node: StartNode, url: DatabaseUrl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert url.path is not None
    node, gone, own = await start_node(idle_seconds=0.0), Gone(), Author(1)
    await keep(node, gone)
    await keep(node, Gone(200))
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    with contextlib.closing(sqlite3.connect(url.path)) as database, database:
        database.execute("UPDATE pending SET data = x'00' WHERE id = (SELECT min(id) FROM pending)")
    live, member, box = await node.join("d", kind=Acknowledged)
    assert [r for r in caplog.records if r.levelno == logging.ERROR and "damaged" in r.getMessage()]
    live.receive(member, SyncUpdate(own.type("a")))
    await box.until(lambda: box.verdicts() == [True, True], "the document is open")
    store = make_maintenance(url)
    document = (await store.describe("d")).document
    report = await verify(store, document)
    assert (report.whole, report.pending, len(report.damaged_pending)) == (False, 2, 1)
    assert list(report.troubles()) == [f"pending update {report.damaged_pending[0]} is damaged"]
    steps = await plan_repair(store, document, report)
    assert len(steps) == 1 and "set its 1 bytes aside" in steps[0].text
    (path,) = await carry_out(store, document, steps, tmp_path / "aside")
    aside = json.loads(path.read_text())
    assert (aside["kind"], aside["seq"], aside["data"]) == ("pending", report.damaged_pending[0], "AA==")
    report = await verify(store, document)
    assert report.whole and report.pending == 1
    await store.close()
