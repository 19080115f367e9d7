"""An older state of the database under hubs with open documents: backups are restored, rows are removed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from collab.engine.document import Document, at_once
from collab.errors import DocumentDeleted, InternalError, StoreUnavailable, StoreWentBack
from collab.hub import healing as healing_module
from collab.hub import hub as hub_module
from collab.hub.compaction import CompactionPolicy
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.storage.journal import Journal
from collab.storage.records import Append, LoadedDocument, NewRow
from collab.storage.urls import DatabaseUrl
from collab.telemetry import RateLimited, get_logger
from tests.hub.conftest import SWEEP, Acknowledged, Box, Node, StartNode
from tests.support.author import Author, content
from tests.support.waiting import happens


@pytest.fixture(autouse=True)
def a_budget_of_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing_module, "_limited", RateLimited(get_logger("store")))
    monkeypatch.setattr(hub_module, "_limited", RateLimited(get_logger("room")))


class Backup:
    """A backup of the database, and putting it back as ``sqlite3 collab.db '.restore backup.db'`` does."""

    def __init__(self, url: DatabaseUrl) -> None:
        assert url.path is not None
        self._path = url.path
        self._copy = url.path.with_suffix(".backup")

    def keep(self) -> None:
        _copy(self._path, self._copy)

    def restore(self) -> None:
        _copy(self._copy, self._path)

    def run(self, *statements: str) -> None:
        """Do something by hand."""
        with contextlib.closing(sqlite3.connect(self._path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)


def _copy(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


@pytest.fixture
def backup(url: DatabaseUrl) -> Backup:
    return Backup(url)


class Typist:
    """A member that types, and is told what is saved."""

    def __init__(self, node: Node, live: LiveRoom, member: Member, box: Box, client: int) -> None:
        self.node, self.live, self.member, self.box = node, live, member, box
        self.author = Author(client)
        self.typed = ""
        self.edits = 0

    @classmethod
    async def join(cls, node: Node, name: str = "d", client: int = 1) -> Typist:
        live, member, box = await node.join(name, kind=Acknowledged)
        return cls(node, live, member, box, client)

    def type(self, text: str) -> None:
        self.live.receive(self.member, SyncUpdate(self.author.type(text)))
        self.typed += text
        self.edits += 1

    async def save(self, text: str) -> None:
        """Type, and wait until all is called saved."""
        self.type(text)
        await self.saved()

    async def saved(self) -> None:
        """Wait until all is called saved; the answer to the first question, which was empty, counts too."""
        await self.box.until(lambda: len(self.box.verdicts()) == self.edits + 1, "all is called saved")
        assert all(self.box.verdicts())


def text_of(loaded: LoadedDocument | None) -> str:
    """The text that a log holds; all of it must be whole."""
    assert loaded is not None
    snapshot = loaded.snapshot
    rows = [row.data for row in loaded.rows]
    document = at_once(Document.load(*((snapshot.data, snapshot.index) if snapshot else (None, None)), rows))
    assert not document.waiting
    reader = Author(0)
    reader.read(document.encode_state_as_update())
    return str(reader.text)


async def healed(node: Node, times: int = 1) -> None:
    await happens(lambda: node.hub.healing.times >= times and not node.hub.healing.running, "it is compared")
    assert node.hub.healing.times == times
    for live in node.hub.rooms.values():
        await node.write(live)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR and "gone back" in r.getMessage()]


async def test_what_a_restored_backup_lacks_is_written_again(
    start_node: StartNode, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    one = await Typist.join(node)
    quiet = await Typist.join(node, "quiet", 2)
    for typist in (one, quiet):
        await typist.save("old ")
    backup.keep()
    for typist in (one, quiet):
        await typist.save("new ")
    backup.restore()
    # In the same breath, before anybody has looked: its batch meets the older state.
    await one.save("newest")
    await healed(node)
    assert text_of(await node.store.load("d")) == "old new newest"
    assert text_of(await node.store.load("quiet")) == "old new ", "nobody has written it since"
    for name in ("d", "quiet"):
        rows = (await node.stored(name)).rows
        assert [row.seq for row in rows] == [1, 2], "one row for all that was lost, and nothing twice"
        assert rows[1].author is None
    assert len(errors(caplog)) == 1 and "2 open documents" in errors(caplog)[0]
    assert node.hub.healing.documents == 2
    assert one.box.ended is None and quiet.box.ended is None
    await one.save("!")
    assert one.live.persistence.seq == 3
    await node.stop()
    again = await start_node()
    assert text_of(await again.store.load("d")) == "old new newest!"


async def test_a_defect_in_comparing_one_document_ends_it_and_no_other(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    poor, well = await Typist.join(node, "poor", 1), await Typist.join(node, "well", 2)
    for typist in (poor, well):
        await typist.save("old ")
    backup.keep()
    for typist in (poor, well):
        await typist.save("new")
    read = healing_module.read_document

    def fails(name: str, loaded: LoadedDocument | None) -> Any:
        if name == "poor":
            raise RuntimeError("a defect")
        return read(name, loaded)

    monkeypatch.setattr(healing_module, "read_document", fails)
    backup.restore()
    await healed(node)
    assert isinstance(poor.box.ended, InternalError) and well.box.ended is None
    assert text_of(await node.store.load("well")) == "old new"
    again = await Typist.join(node, "poor", 1)
    again.live.receive(again.member, SyncUpdate(poor.author.doc.get_update()))
    await again.box.until(lambda: len(again.box.verdicts()) == 2, "saved")
    assert text_of(await node.store.load("poor")) == "old new", "who comes back has brought what the log lacked"


async def test_a_comparison_that_fails_by_a_defect_starts_again(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("old ")
    backup.keep()
    await one.save("new")
    attend, times = node.store.attend, 0

    async def fails() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise RuntimeError("a defect")
        await attend()

    monkeypatch.setattr(node.store, "attend", fails)
    backup.restore()
    await one.save("est")
    await healed(node)
    assert times == 2 and text_of(await node.store.load("d")) == "old newest" and not node.hub.tasks.failing


async def test_a_restore_is_noticed_although_nobody_writes(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("old ")
    backup.keep()
    await one.save("new")
    one.live.leave(one.member)
    backup.restore()
    await healed(node)
    assert text_of(await node.store.load("d")) == "old new"


async def test_a_restore_that_lacks_nothing_writes_nothing(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("old")
    backup.keep()
    backup.run("UPDATE writers SET batch = 0")
    await healed(node)
    assert len((await node.stored("d")).rows) == 1 and node.hub.healing.documents == 0
    backup.run("UPDATE writers SET batch = -1")
    await one.save(" new")
    await healed(node, 2)
    assert text_of(await node.store.load("d")) == "old new"
    assert len((await node.stored("d")).rows) == 2


async def test_a_document_under_the_same_number_gets_nothing_of_it(start_node: StartNode, backup: Backup) -> None:
    """After the restore the number of a document that it lacks is given to another one, with as many rows."""
    node, other = await start_node(), await start_node()
    first = await Typist.join(node, "first", 1)
    await first.save("1")
    backup.keep()
    lost = await Typist.join(node, "lost", 2)
    await lost.save("of the lost one")
    number = lost.live.persistence.document_id
    node.store.down = True
    backup.restore()
    stranger = await Typist.join(other, "stranger", 3)
    for n in range(9):
        await stranger.save(f"{n}")
    assert stranger.live.persistence.document_id == number
    lost.type(", and more")
    node.store.down = False
    await lost.saved()
    await healed(node)
    assert lost.live.persistence.document_id != number
    assert text_of(await node.store.load("lost")) == "of the lost one, and more"
    assert text_of(await node.store.load("stranger")) == "012345678"
    assert lost.box.text() == "of the lost one, and more"


async def test_turns_that_wait_are_covered_and_told_once_and_those_that_come_meanwhile_follow(
    start_node: StartNode, backup: Backup
) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    backup.keep()
    await one.save("b")
    node.store.full = True
    for letter in "cde":
        one.type(letter)
        one.live.end_turn(node.hub.now())
    backup.restore()
    load = node.store.load
    loads = 0

    async def slow(name: str) -> Any:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise StoreUnavailable("away once more")
        loaded = await load(name)
        for letter in "fg":
            one.type(letter)
            one.live.end_turn(node.hub.now())
        return loaded

    node.store.load = slow
    node.store.full = False
    await one.saved()
    await healed(node)
    node.store.load = load
    assert text_of(await node.store.load("d")) == "abcdefg"
    rows = (await node.stored("d")).rows
    assert len(rows) == 2, "what was typed before the comparison is in its row"
    await one.save("h")
    log = one.live.persistence
    assert (log.seq, log.uncommitted, node.journal.backlog) == (3, 0, 0)


async def test_turns_after_the_comparison_go_to_the_document_that_it_has_found(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    backup.keep()
    one = await Typist.join(node)
    await one.save("a")
    cut = healing_module.in_slices

    async def slow(work: Any) -> Any:
        result = await cut(work)
        if not isinstance(result, Document):
            one.type("b")
            one.live.end_turn(node.hub.now())
        return result

    monkeypatch.setattr(healing_module, "in_slices", slow)
    backup.restore()
    await happens(lambda: node.hub.healing.times, "noticed")
    await one.saved()
    await healed(node)
    loaded = await node.stored("d")
    assert text_of(loaded) == "ab" and len(loaded.rows) == 2


async def test_what_another_node_has_written_to_the_older_state_is_taken(start_node: StartNode, backup: Backup) -> None:
    node, other = await start_node(), await start_node()
    one, two = await Typist.join(node, client=1), await Typist.join(other, client=2)
    await one.save("a")
    await two.box.until(lambda: two.box.text() == "a", "known there")
    backup.keep()
    await one.save("b")
    await two.box.until(lambda: two.live.persistence.seq == 2, "known there, too")
    node.store.down = True
    backup.restore()
    await healed(other)
    await two.save("X")
    node.store.down = False
    await healed(node)
    await one.box.until(lambda: sorted(one.box.text()) == sorted("abX"), "relayed")
    assert sorted(text_of(await node.store.load("d"))) == sorted("abX")
    assert one.live.persistence.seq == two.live.persistence.seq == 3, "the first to compare has written all"


async def test_a_tombstone_of_an_older_document_of_the_name_does_not_end_the_newer_one(
    start_node: StartNode, backup: Backup
) -> None:
    node = await start_node()
    await node.store.create("d")
    await node.store.delete("d", 1.0)
    backup.keep()
    await node.store.create("d")
    one = await Typist.join(node)
    await one.save("of the newer one")
    backup.restore()
    await healed(node)
    assert one.box.ended is None
    assert text_of(await node.store.load("d")) == "of the newer one"


async def test_a_document_that_was_deleted_meanwhile_stays_deleted(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    backup.run("UPDATE documents SET deleted_at = 1", "UPDATE writers SET batch = 0")
    one.type("b")
    await one.box.until(lambda: one.box.ended, "ended")
    assert isinstance(one.box.ended, DocumentDeleted)
    await happens(lambda: not node.hub.healing.running, "done")


@pytest.mark.parametrize("what", ["rows", "document"])
async def test_rows_that_were_removed_by_hand_are_written_again(
    start_node: StartNode, backup: Backup, what: str
) -> None:
    """The writer's row knows nothing of it; the head of the log does."""
    node = await start_node()
    one = await Typist.join(node)
    for letter in "abcdef":
        await one.save(letter)
    if what == "rows":
        backup.run("DELETE FROM log WHERE seq > 2", "UPDATE documents SET head_seq = 2")
    else:
        backup.run("DELETE FROM log", "DELETE FROM documents")
    await healed(node)
    assert text_of(await node.store.load("d")) == "abcdef"
    await one.save("g")
    assert text_of(await node.store.load("d")) == "abcdefg" and one.box.ended is None


async def test_rows_that_were_removed_are_noticed_although_as_many_follow_at_once(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody looks at the head of the log, it is higher than ever."""
    monkeypatch.setattr(hub_module, "_SWEEP", 3600.0)
    node = await start_node()
    one = await Typist.join(node)
    for letter in "abcd":
        await one.save(letter)
    assert one.live.persistence.seq == 4
    backup.run("DELETE FROM log WHERE seq > 2", "UPDATE documents SET head_seq = 2")
    for letter in "efg":
        await one.save(letter)
    await healed(node)
    assert text_of(await node.store.load("d")) == "abcdefg"


async def test_rows_that_were_removed_under_commits_on_their_way_are_noticed(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory knew of none of the removed rows when what takes their numbers was given to the journal."""
    monkeypatch.setattr(hub_module, "_SWEEP", 3600.0)
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    append, first = node.store.append, True

    async def removing(*arguments: Any, **options: Any) -> Any:
        nonlocal first
        outcomes = await append(*arguments, **options)
        if first:
            first = False
            one.type("c")
            one.live.end_turn(node.hub.now())
            backup.run("DELETE FROM log WHERE seq > 1", "UPDATE documents SET head_seq = 1")
        return outcomes

    monkeypatch.setattr(node.store, "append", removing)
    await one.save("b")
    await healed(node)
    assert text_of(await node.store.load("d")) == "abc"


@pytest.mark.parametrize("stops", [False, True])
async def test_rows_that_were_removed_in_the_middle_are_found_by_counting(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    if not stops:
        monkeypatch.setattr(hub_module, "_COUNT", 0.05)
        monkeypatch.setattr(hub_module, "_SIGN_OF_LIFE", 0.05)
    node = await start_node()
    one = await Typist.join(node)
    for letter in "abcdef":
        await one.save(letter)
    backup.run("DELETE FROM log WHERE seq IN (2, 3)")
    if not stops:
        await healed(node)
        await asyncio.sleep(0.3)
        assert node.hub.healing.times == 1, "the numbers stay away, which is known"
    await node.stop()
    again = await start_node()
    assert node.hub.healing.documents == 1
    assert text_of(await again.store.load("d")) == "abcdef"


async def test_nothing_is_pruned_of_a_document_with_rows_that_wait(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    rows = await write_letters(node, "abcdef")
    live = node.hub.rooms["d"]
    await node.hub._compactor.compact(live)
    one = Author(1)
    for row in rows:
        one.read(row)
    live.receive(next(iter(live.members)), SyncUpdate(one.type("g")))
    await node.write(live)
    live.receive(next(iter(live.members)), SyncUpdate(one.type("h")))
    await node.write(live)
    await node.stop()
    backup.run("DELETE FROM log WHERE seq = 7")
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.02)
    node = await start_node(history=-1e9)
    live, member, box = await node.join("d")
    assert node.hub._with_gaps() == {live.persistence.document_id}
    live.leave(member)
    node.hub._forget_room(live)
    assert node.hub._with_gaps() == {live.persistence.document_id}, "it is known when nobody has it open"


async def test_a_room_leaves_memory_only_when_the_log_holds_it(start_node: StartNode, backup: Backup) -> None:
    node = await start_node(idle_seconds=0.0)
    one = await Typist.join(node)
    for letter in "ab":
        await one.save(letter)
    node.store.changed = _never
    await node.hub._replication.poll()
    backup.run("DELETE FROM log WHERE seq > 1", "UPDATE documents SET head_seq = 1")
    one.live.leave(one.member)
    await happens(lambda: not node.hub.rooms, "it leaves memory")
    assert node.hub.healing.times == 1
    assert text_of(await node.store.load("d")) == "ab"


async def _never() -> bool:
    return False


async def test_a_room_stays_in_memory_while_nobody_can_tell_what_the_log_holds(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    one = await Typist.join(node)
    await one.save("a")
    node.store.blind = True
    one.live.leave(one.member)
    await asyncio.sleep(0.5)
    assert node.hub.rooms == {"d": one.live}
    node.store.blind = False
    await happens(lambda: not node.hub.rooms, "it leaves memory")


async def test_a_server_that_stops_writes_what_was_lost_since_its_last_look(
    start_node: StartNode, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    backup.keep()
    await one.save("b")
    monkeypatch.setattr(hub_module, "_SWEEP", 60.0)  # no look from now on but the last one
    await asyncio.sleep(SWEEP / 5)
    backup.restore()
    assert await node.stop() == []
    again = await start_node()
    assert text_of(await again.store.load("d")) == "ab"


async def test_a_snapshot_that_was_begun_before_is_not_written_after(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    one = await Typist.join(node)
    for letter in "abc":
        await one.save(letter)
    backup.keep()
    compact = node.sandbox.compact

    async def slow(data: bytes, gc: bool) -> Any:
        compacted = await compact(data, gc)
        backup.run("DELETE FROM log WHERE seq > 1", "UPDATE documents SET head_seq = 1")
        await healed(node)
        await one.save("d")
        await one.save("e")
        return compacted

    node.sandbox.compact = slow  # type: ignore[method-assign]
    await node.hub._compactor.compact(one.live)
    loaded = await node.stored("d")
    assert loaded.snapshot is None and text_of(loaded) == "abcde"


async def test_entries_of_rooms_that_are_over_are_written_nowhere(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    node.store.full = True
    one.type("b")
    one.live.end_turn(node.hub.now())
    node.hub.evict(one.live, DocumentDeleted("for the test"))
    backup.run("UPDATE writers SET batch = 0")
    node.store.full = False
    await healed(node)
    assert text_of(await node.store.load("d")) == "a" and node.journal.backlog == 0


async def test_a_document_that_is_opened_meanwhile_is_read_again(start_node: StartNode, backup: Backup) -> None:
    node, other = await start_node(), await start_node()
    there = await Typist.join(other)
    await there.save("a")
    backup.keep()
    await there.save("b")
    await other.stop()
    load = node.store.load
    loads = 0

    async def slow(name: str) -> Any:
        nonlocal loads
        loads += 1
        loaded = await load(name)
        if loads == 1:
            backup.restore()
            backup.run("UPDATE writers SET batch = -1")
            await healed(node)
        return loaded

    node.store.load = slow
    one = await Typist.join(node)
    assert loads == 2 and one.live.persistence.seq == 1


async def test_the_first_note_in_the_database_is_made_later_when_it_cannot_be_written(
    url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_SIGN_OF_LIFE", 0.05)
    node = Node(url)
    attend = node.store.attend
    failed = 0

    async def full() -> None:
        nonlocal failed
        failed += 1
        if failed < 3:
            raise StoreUnavailable("the disk is full")
        await attend()

    node.store.attend = full
    await node.start()
    await happens(lambda: node.store._store._backend.writer.attends, "noted")
    await node.stop()


# A log with a gap


async def write_letters(node: Node, letters: str) -> list[bytes]:
    one = await Typist.join(node)
    for letter in letters:
        await one.save(letter)
    return [row.data for row in (await node.stored("d")).rows]


async def test_a_log_with_a_gap_is_opened_and_filled_by_who_has_the_rest(
    start_node: StartNode, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    rows = await write_letters(node, "abcdef")
    await node.stop()
    backup.run("DELETE FROM log WHERE seq IN (3, 4)")
    node = await start_node(compaction=CompactionPolicy(rows=1, nbytes=1, ratio=0.0))
    live, member, box = await node.join("d", kind=Acknowledged, answer=False)
    assert "has a gap: 2 rows wait" in caplog.text
    question = next(message for message in box.messages if isinstance(message, SyncStep1))
    assert question.state_vector == b"\x01\x01\x02", "what is whole: two letters of client 1"
    live.receive(member, SyncStep1(b"\0"))
    assert box.text() == "ab"
    live.receive(member, SyncStep2(b"\0\0"))
    # Somebody else writes meanwhile. No snapshot is made.
    other = Author(9)
    live.receive(member, SyncUpdate(other.type("X")))
    await node.write(live)
    assert len(live.room.document.waiting) == 2 and (await node.stored("d")).snapshot is None
    await node.hub._compact(live)
    assert (await node.stored("d")).snapshot is None
    assert not node.hub._compactor.worth_it_when_idle(live) and not node.hub._compactor.worth_it_when_leaving(live)
    # Only what was missing: what had waited is taken from the log, relayed, and not written again.
    live.receive(member, SyncUpdate(rows[2]))
    live.receive(member, SyncUpdate(rows[3]))
    await node.write(live)
    await box.until(lambda: sorted(box.text()) == sorted("abcdefX"), "whole, and relayed")
    assert live.room.document.waiting == [] and "is whole again" in caplog.text
    assert box.ended is None and all(box.verdicts())
    numbers = [row.seq for row in await node.store.rows_after(live.persistence.document_id, 0, 99)]
    assert numbers[:5] == [1, 2, 5, 6, 7] and len(numbers) in (6, 7)
    await node.stop()
    node = await start_node()
    loaded = await node.store.load("d")
    assert sorted(text_of(loaded)) == sorted("abcdefX")


async def test_rows_of_another_node_that_are_not_whole_wait_for_the_rest(start_node: StartNode, backup: Backup) -> None:
    node, other = await start_node(), await start_node()
    one = await Typist.join(node)
    await one.save("a")
    live, _, box = await other.join("d")
    author = one.author
    first, second = author.type("b"), author.type("c")
    document = (await node.stored("d")).document
    backup.run("UPDATE documents SET head_seq = 3")
    with contextlib.closing(sqlite3.connect(backup._path)) as connection, connection:
        connection.execute(
            "INSERT INTO log (document_id, seq, at, author, data) VALUES (?, 2, 1.0, NULL, ?)", (document.id, second)
        )
        connection.execute(
            "INSERT INTO log (document_id, seq, at, author, data) VALUES (?, 3, 1.0, NULL, ?)", (document.id, first)
        )
    await box.until(lambda: live.persistence.seq == 3, "read")
    assert content(live.room.document.encode_state_as_update()) == "abc" and live.room.document.waiting == []
    assert len([message for message in box.messages if isinstance(message, SyncUpdate)]) == 2, "relayed"


async def test_the_journal_alone_tries_again(url: DatabaseUrl) -> None:
    """Without anybody who compares, an older state is a failure like any other."""

    class Back:
        tries = 0

        async def append(self, batch: Any) -> Any:
            self.tries += 1
            if self.tries == 1:
                raise StoreWentBack("for the test")
            return [DocumentDeleted("gone") for _ in batch]

    store: Any = Back()
    journal = Journal(store, backlog_bytes=1)
    await journal.start()
    outcomes: list[Any] = []
    journal.append(Append("d", None, (NewRow(b"", 1.0),)), outcomes.append)
    await happens(lambda: outcomes, "an answer")
    assert await journal.close(1.0) == []


async def test_what_says_nothing_new_is_acknowledged_with_what_was_written_again(
    start_node: StartNode, backup: Backup
) -> None:
    """Its turn is over, and no turn of its own is to come: it waits for the row that heals the log."""
    node = await start_node()
    one = await Typist.join(node)
    await one.save("a")
    backup.keep()
    await one.save("b")
    known = one.author.updates[0]
    release = node.journal.release

    def late() -> None:
        one.live.receive(one.member, SyncUpdate(known))
        one.edits += 1
        one.live.end_turn(node.hub.now())
        release()

    node.journal.release = late  # type: ignore[method-assign]
    backup.restore()
    await one.saved()
    await healed(node)
    assert text_of(await node.store.load("d")) == "ab"
