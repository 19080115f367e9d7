"""Damaged rows and snapshots: found, told as what they are, and never served."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from collab.engine.document import Document, at_once
from collab.engine.kept import make_key
from collab.errors import DamagedDocument, DocumentDeleted, StoreDamaged
from collab.hub import hub as hub_module
from collab.hub.hub import Hub
from collab.hub.loading import find_damaged, read_document, take_pending
from collab.protocol.sync import SyncUpdate
from collab.storage.checksums import row_checksum, seal_snapshot
from collab.storage.records import LoadedDocument, LogRow, PendingUpdate, Snapshot, StoredDocument
from tests.hub.conftest import StartNode
from tests.support.author import Author, content
from tests.support.waiting import eventually

STORED = StoredDocument(7, "d", 3, True, 0.0, 0.0)


def log(*words: str) -> list[LogRow]:
    author = Author(1)
    updates = [author.type(word) for word in words]
    return [LogRow(seq, data, 0.0, None, row_checksum(data, None)) for seq, data in enumerate(updates, 1)]


def snapshot_of(rows: list[LogRow]) -> Snapshot:
    document = at_once(Document.load(None, None, [row.data for row in rows]))
    return seal_snapshot(Snapshot(rows[-1].seq, document.encode_state_as_update(), b"", b"", 0.0))


def failure(loaded: LoadedDocument) -> DamagedDocument:
    with pytest.raises(DamagedDocument) as caught:
        at_once(read_document("d", loaded))
    return caught.value


def test_whole_document_is_read() -> None:
    rows = log("a", "b", "c")
    for loaded in (
        LoadedDocument(STORED, None, rows),
        LoadedDocument(STORED, snapshot_of(rows[:2]), rows[2:]),
        LoadedDocument(STORED, snapshot_of(rows[:1]), rows[1:], (2,)),
        LoadedDocument(STORED, None, rows, (2, 1)),
        LoadedDocument(STORED, None, [row._replace(checksum=None) for row in rows]),
        LoadedDocument(STORED, None, [row._replace(checksum=1 << 40) for row in rows]),
    ):
        assert content(at_once(read_document("d", loaded)).encode_state_as_update()) == "abc"
    assert at_once(read_document("d", None)).version == 0


def test_damaged_rows_are_named_with_what_to_do() -> None:
    rows = log("a", "b", "c")
    rows[1] = rows[1]._replace(data=rows[1].data[:-1] + b"!")
    error = failure(LoadedDocument(STORED, None, rows))
    assert (error.name, error.rows, error.snapshots) == ("d", (2,), ())
    assert "'d' cannot be read: row 2 of its log is damaged" in str(error)
    assert "collab documents verify" in str(error) and "collab documents repair" in str(error)
    assert error.retryable and error.public == "the document cannot be read now, try again later"
    rows[2] = rows[2]._replace(author="somebody else")
    assert failure(LoadedDocument(STORED, None, rows)).rows == (2, 3)


def test_rows_without_checksum_that_are_no_updates_are_damaged() -> None:
    rows = [row._replace(checksum=None) for row in log("a", "b", "c")]
    rows[1] = rows[1]._replace(data=b"\xff\xff")
    assert failure(LoadedDocument(STORED, None, rows)).rows == (2,)


def test_snapshot_without_checksum_that_is_no_update_is_damaged() -> None:
    rows = log("a", "b", "c")
    loaded = LoadedDocument(STORED, Snapshot(2, b"\xff\xff\xff", b"", b"", 0.0), rows[2:])
    error = failure(loaded)
    assert (error.rows, error.snapshots) == ((), (2,))


def test_snapshot_that_was_passed_over_and_is_needed_is_named() -> None:
    rows = log("a", "b", "c")
    for left in (rows[2:], []):
        error = failure(LoadedDocument(STORED, None, left, (2,)))
        assert (error.rows, error.snapshots) == ((), (2,))


def test_many_numbers_are_counted() -> None:
    rows = [LogRow(seq, b"", 0.0, None, 1) for seq in range(1, 3_001)]
    slices, yields = find_damaged(rows), 0
    while True:
        try:
            next(slices)
            yields += 1
        except StopIteration as end:
            assert end.value == list(range(1, 3_001))
            break
    assert yields >= 2
    assert "19, 20 and 2980 more" in str(failure(LoadedDocument(STORED, None, rows)))


# In a hub.


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path / "collab.db", timeout=10)
    connection.execute(statement)
    connection.commit()
    connection.close()


async def write(node: Any, name: str, *words: str, snapshots: tuple[int, ...] = ()) -> None:
    live, member, box = await node.join(name)
    author = Author(1)
    for number, word in enumerate(words, 1):
        live.receive(member, SyncUpdate(author.type(word)))
        await node.write(live)
        if number in snapshots:
            await node.hub._compactor.compact(live)
    live.leave(member)
    await box.until(lambda: name not in node.hub.rooms, "it has left memory")


async def test_document_with_a_damaged_row_is_closed_and_others_go_on(
    start_node: StartNode, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module.Compactor, "worth_it_when_idle", lambda self, live: False)
    node = await start_node(idle_seconds=0.0)
    await write(node, "d", "a", "b", "c")
    await write(node, "other", "x")
    change(tmp_path, "CREATE TABLE kept AS SELECT * FROM log")
    change(tmp_path, "UPDATE log SET data = X'00' || data WHERE seq = 2")
    for _ in range(3):
        with pytest.raises(DamagedDocument) as caught:
            await node.hub.open("d")
        assert caught.value.rows == (2,)
    assert node.store.loads == 3, "it is not read each time that a client comes"
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "'d'" in said.getMessage() and "row 2" in said.getMessage()
    _, _, box = await node.join("other")
    assert box.ended is None
    assert node.hub.damaged.keys() == {"d"}
    change(tmp_path, "UPDATE log SET data = (SELECT data FROM kept WHERE kept.seq = 2) WHERE seq = 2")
    monkeypatch.setattr(Hub, "now", lambda self: self.loop.time() + 100.0)
    await node.join("d")
    assert node.hub.damaged == {}


async def test_damaged_snapshot_is_replaced_by_the_rows_and_the_next_one(
    start_node: StartNode, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module.Compactor, "worth_it_when_idle", lambda self, live: False)
    node = await start_node(idle_seconds=0.0)
    await write(node, "d", "a", "b", "c", "d", snapshots=(1, 3))
    change(tmp_path, "UPDATE snapshots SET data = CAST(data || 'x' AS BLOB) WHERE seq = 3")
    live, member, box = await node.join("d")
    assert content(live.room.document.encode_state_as_update()) == "abcd"
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "snapshot 3 of 'd' is damaged" in said.getMessage()
    assert [(row.kind, row.seq) for row in await noted(node)] == [("snapshot", 3)]
    live.receive(member, SyncUpdate(Author(2).type("e")))
    await node.write(live)
    await node.hub._compactor.compact(live)
    stored = await node.stored("d")
    assert stored.snapshot is not None and stored.snapshot.seq == 5 and stored.passed_over == ()


async def noted(node: Any) -> Any:
    from collab.storage.schema import damage

    return await node.store._store._backend.run(lambda connection: connection.execute(damage.select()).all(), "read")


async def test_damaged_row_of_another_node_ends_the_room_with_its_reason(
    start_node: StartNode, tmp_path: Path, url: Any
) -> None:
    one = await start_node()
    live, _, box = await one.join("d")
    author = Author(1)
    live.receive(_, SyncUpdate(author.type("a")))
    await one.write(live)
    one.store.blind = True
    two = await start_node()
    other, member, box_2 = await two.join("d")
    for word in "bc":
        other.receive(member, SyncUpdate(author.type(word)))
        await two.write(other)
    change(tmp_path, "UPDATE log SET data = CAST(X'00' || data AS BLOB) WHERE seq = 2")
    one.store.blind = False
    await box.until(lambda: box.ended, "it is found")
    assert isinstance(box.ended, DamagedDocument) and box.ended.rows == (2,)
    assert box_2.ended is None
    # Without a checksum it is found by the reader.
    change(tmp_path, "UPDATE log SET checksum = NULL WHERE seq = 2")
    with pytest.raises(DamagedDocument):
        await one.hub.open("d")


async def test_file_that_is_damaged_itself_is_one_documents_trouble(start_node: StartNode) -> None:
    node = await start_node()

    async def load(name: str) -> None:
        raise StoreDamaged("SQLite: database disk image is malformed (SQLITE_CORRUPT)")

    node.store.load = load
    with pytest.raises(DamagedDocument, match="malformed"):
        await node.hub.open("d")


async def test_deleted_is_not_damaged(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    await write(node, "d", "a")
    await node.store.delete("d", 1.0)

    async def gone() -> bool:
        try:
            await node.hub.open("d")
        except DocumentDeleted:
            return True
        return False

    assert await eventually(gone, "it is gone")
    assert node.hub.damaged == {}


def kept(number: int, data: bytes) -> PendingUpdate:
    return PendingUpdate(make_key(data), data, 0.0, None, number)


def test_what_was_kept_is_taken_as_far_as_what_it_waited_for_has_come() -> None:
    author = Author(1)
    first, second, third, fourth, fifth = (author.type(letter) for letter in "abcde")
    document = Document()
    document.apply_update(first)
    broken = PendingUpdate(make_key(b"another"), fourth, 0.0, None, 3)
    # The third waits for the second, which stands behind it; the fifth for the fourth, which is damaged.
    take_pending(document, [kept(1, third), kept(2, second), broken, kept(4, fifth)])
    assert content(document.encode_state_as_update()) == "abc"
    assert document.flush() is None
