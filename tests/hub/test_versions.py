"""Versions and timelines of a hub: what is kept when history goes, on one node and on two."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from collab.adapters import make_store
from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import (
    DamagedDocument,
    DocumentNotFound,
    HistoryGone,
    NoSuchVersion,
    StoreUnavailable,
    UpdateError,
)
from collab.hub import hub as hub_module
from collab.hub import timeline as timeline_module
from collab.hub.compaction import CompactionPolicy
from collab.hub.timeline import Timelines
from collab.hub.versions import CompactsInThread, HistoryOptions, Versions, Which
from collab.protocol.sync import SyncUpdate
from collab.storage import timeline as stored_timeline
from collab.storage.checksums import seal_row
from collab.storage.memory import MemoryStore
from collab.storage.records import Append
from collab.storage.versions import Kind, Reason
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author
from tests.support.waiting import eventually

WHEN = 1_700_000_000.0


async def type_text(node: Node, name: str, *texts: str, client: int = 7) -> None:
    """Type texts, one a row."""
    live, member, _ = await node.join(name)
    author = Author(client)
    for text in texts:
        live.receive(member, SyncUpdate(author.type(text)))
        await node.write(live)
    live.leave(member)


async def text_of(versions: Versions, name: str, which: Which) -> str:
    state = await versions.state(name, which)
    reader = Author(0)
    reader.read(state.document.encode_state_as_update())
    return str(reader.text)


async def test_a_version_is_of_what_was_typed_a_moment_ago(start_node: StartNode) -> None:
    node = await start_node()
    live, member, _ = await node.join("d")
    author = Author(7)
    live.receive(member, SyncUpdate(author.type("one")))
    version = await node.hub.versions.make("d", "v", author="ann")
    assert (version.seq, version.author) == (1, "ann")
    live.receive(member, SyncUpdate(author.type("two")))
    await node.write(live)
    assert await text_of(node.hub.versions, "d", Which(version=version.id)) == "one"
    assert await text_of(node.hub.versions, "d", Which(number=2)) == str(author.text)


async def test_what_cannot_be_read(start_node: StartNode) -> None:
    versions = (await start_node()).hub.versions
    with pytest.raises(DocumentNotFound):
        await versions.make("none", "v")
    node = await start_node()
    await type_text(node, "d", "one")
    versions = node.hub.versions
    for number in (2, 10**9, -1):
        with pytest.raises(HistoryGone):
            await versions.state("d", Which(number=number))
    with pytest.raises(NoSuchVersion):
        await versions.state("d", Which(version=1))
    with pytest.raises(UpdateError):
        await versions.import_("d", "v", b"\1\1", WHEN)


async def test_pruning_pins_a_named_version_and_leaves_it_readable(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.02)
    node = await start_node(history=1e-6, compaction=CompactionPolicy(rows=2, nbytes=1 << 30, ratio=0.0))
    await type_text(node, "d", "one")
    version = await node.hub.versions.make("d", "kept")
    document_id = (await node.store.describe("d")).document.id

    async def pruned() -> bool:
        rows = await node.store.rows_after(document_id, 0, 1)
        return not rows or rows[0].seq > 1

    clients = itertools.count(100)

    async def typed_and_pruned() -> bool:
        await type_text(node, "d", "more", client=next(clients))
        return await pruned()

    await eventually(typed_and_pruned, "the first row is pruned")
    assert node.hub.versions.pinned == 1
    with pytest.raises(HistoryGone):
        await node.hub.versions.state("d", Which(number=1))
    assert await text_of(node.hub.versions, "d", Which(version=version.id)) == "one"
    page = (await node.hub.timelines.page("d")).page
    assert page.reaches > 1 and page.entries[-1].first >= 1


async def test_a_pinned_state_that_is_damaged_is_not_shown(start_node: StartNode) -> None:
    node = await start_node()
    await type_text(node, "d", "one", "two")
    version = await node.hub.versions.make("d", "v", number=1)
    (due,) = [each for each in await node.hub.versions.list("d")]
    document_id = (await node.store.describe("d")).document.id
    state = await node.hub.versions._state_of(
        (await node.hub.versions.state("d", Which(number=1))).document, 1, WHEN, gc=True
    )
    damaged = type(state)(1, state.data + b"x", state.index, state.state_vector, WHEN, state.checksum)
    assert due == version and await node.store.pin_version(document_id, version.id, damaged)
    with pytest.raises(DamagedDocument):
        await node.hub.versions.state("d", Which(version=version.id))


async def test_the_number_of_a_time_is_found(start_node: StartNode) -> None:
    node = await start_node()
    authors = [Author(client).type("x") for client in range(1, 10)]
    rows = tuple(seal_row(update, WHEN + 10 * at, None) for at, update in enumerate(authors, 1))
    await node.store.append([Append("d", None, rows)])
    versions = node.hub.versions
    found = [await versions.number_at("d", WHEN + at) for at in (0, 9.9, 10, 15, 50, 89, 90, 1e9)]
    assert found == [0, 0, 1, 1, 5, 8, 9, 9]


async def test_an_imported_version_is_read_from_its_own_state(start_node: StartNode) -> None:
    node = await start_node()
    await type_text(node, "d", "now")
    author = Author(9)
    author.type("then")
    version = await node.hub.versions.import_("d", "old", author.updates[-1], WHEN, author="bob")
    assert (version.seq, version.at, version.author) == (0, WHEN, "bob")
    assert await text_of(node.hub.versions, "d", Which(version=version.id)) == "then"


async def test_automatic_versions_are_left_out_where_the_store_is_away_or_the_settings_say_so(
    start_node: StartNode,
) -> None:
    node = await start_node(histories=HistoryOptions(spacing=600.0))
    await type_text(node, "d", "one")
    document_id = (await node.store.describe("d")).document.id

    async def away(*_: Any) -> None:
        raise StoreUnavailable("switched off by the test")

    node.store.make_automatic = away
    await node.hub.versions.note(document_id, 1, Reason.AGENT)
    del node.store.make_automatic
    assert await node.hub.versions.list("d") == []
    await node.hub.versions.note(document_id, 1, Reason.AGENT)
    assert [each.kind for each in await node.hub.versions.list("d")] == [Kind.AUTOMATIC]
    off = Versions(node.store, CompactsInThread(), options=HistoryOptions())
    await off.note(document_id, 1, Reason.AGENT)
    assert not off.begins_to_edit(document_id, 0.0)


async def test_a_program_begins_to_edit_once_in_a_while(start_node: StartNode) -> None:
    node = await start_node(histories=HistoryOptions(spacing=600.0))
    versions = node.hub.versions
    times = (0.0, 1.0, 599.0, 1_199.0, 1_200.0)
    assert [versions.begins_to_edit(1, at) for at in times] == [True, False, False, True, False]
    assert not versions.begins_to_edit(None, 0.0)


async def test_timelines_are_filled_for_what_this_node_writes_and_for_what_it_finds(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline_module, "_PAUSE", 0.01)
    monkeypatch.setattr(timeline_module, "PAUSE_SECONDS", 0.0)
    # Written before there was a server.
    node = await start_node()
    await node.stop()
    author = Author(3)
    store = make_store(node.store._store._backend.url)
    await store.open()
    await store.append([Append("old", None, (seal_row(author.type("x"), WHEN, "ann"),))])
    await store.close()
    node = await start_node()
    await type_text(node, "new", "one", "two")
    for name, head in (("old", 1), ("new", 2)):
        document_id = (await node.store.describe(name)).document.id

        async def filled(document_id: int = document_id, head: int = head) -> bool:
            return bool((await node.store.timeline(document_id)).summarised == head)

        await eventually(filled, f"the timeline of {name}")


async def test_who_asks_for_a_timeline_sees_the_newest_edits(start_node: StartNode) -> None:
    node = await start_node()
    await type_text(node, "d", "one")
    assert [each.edits for each in (await node.hub.timelines.page("d")).page.entries] == [1]
    await type_text(node, "d", "two", client=8)
    page = (await node.hub.timelines.page("d")).page
    assert [each.edits for each in page.entries] == [2] and page.summarised == page.head == 2


async def test_a_long_log_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_module, "_ROWS", 1_000)
    monkeypatch.setattr(timeline_module, "_PORTIONS", 2)
    store = MemoryStore()  # without a node, which would go on by itself
    await store.open()
    rows = tuple(seal_row(b"\0\0", WHEN + at, None) for at in range(3_500))
    await store.append([Append("d", None, rows)])
    timelines = Timelines(store, lambda: WHEN)
    page = (await timelines.page("d")).page
    assert (page.summarised, page.head) == (2_000, 3_500)
    page = (await timelines.page("d")).page
    assert page.summarised == page.head


@pytest.mark.parametrize("late", [False, True])
async def test_a_pause_becomes_a_version(start_node: StartNode, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    monkeypatch.setattr(timeline_module, "_PAUSE", 0.01)
    monkeypatch.setattr(timeline_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(stored_timeline, "PAUSE_SECONDS", 1.2 if late else 0.0)
    node = await start_node(histories=HistoryOptions(spacing=0.001))
    await type_text(node, "d", "one")
    found = await eventually(lambda: node.hub.versions.list("d"), "a version")
    assert [(each.seq, each.reason) for each in found] == [(1, Reason.PAUSE)]


async def test_two_nodes_have_the_same_versions(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one, two = await start_node(bus=LocalBus(exchange)), await start_node(bus=LocalBus(exchange))
    await type_text(one, "d", "one")
    version = await one.hub.versions.make("d", "v")
    await type_text(two, "d", "two", client=8)
    assert await text_of(two.hub.versions, "d", Which(version=version.id)) == "one"
    other = await two.hub.versions.make("d", "w")
    assert [each.id for each in await one.hub.versions.list("d")] == [other.id, version.id]
    await one.hub.versions.delete("d", version.id)
    with pytest.raises(NoSuchVersion):
        await two.hub.versions.state("d", Which(version=version.id))
    pages = await asyncio.gather(*[node.hub.timelines.page("d") for node in (one, two, one, two)])
    assert {page.page.entries[-1].last for page in pages} == {2}


async def test_a_long_tail_of_a_large_document_gets_a_snapshot(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.hub.compaction.most_rows", lambda nbytes: 5)
    node = await start_node(compaction=CompactionPolicy(rows=1, nbytes=1, ratio=100.0))
    await type_text(node, "d", *"abcdefgh")

    async def compacted() -> bool:
        return bool((await node.store.describe("d")).snapshot_seq >= 5)

    await eventually(compacted, "a snapshot")


def test_the_first_history_that_covers_a_name_counts() -> None:
    options = HistoryOptions(kept=(("a*", 10.0), ("ab", 20.0)))
    versions = Versions(None, CompactsInThread(), clock=lambda: 1_000.0, options=options)  # type: ignore[arg-type]
    assert [(each.pattern, each.before) for each in versions.histories()] == [("a*", 990.0), ("ab", 980.0)]
