"""What is durable, and when members are told so."""

from __future__ import annotations

import logging

import pytest

from collab.errors import DocumentDeleted, StoreUnavailable
from collab.hub import replication as replication_module
from collab.hub.room import LiveRoom
from collab.protocol.messages import LocalVersion, SyncStatus
from collab.protocol.session import Event
from collab.protocol.sync import SyncStep1, SyncUpdate
from tests.hub.conftest import Acknowledged, Box, StartNode
from tests.support.author import Author


async def test_saved_is_said_after_the_commit_and_once_an_update(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    _, _, other = await node.join("d")
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author = Author(1)
    first = author.type("a")
    node.store.down = True
    for update in (first, b"\xff", author.type("b"), first):
        live.receive(a, SyncUpdate(update))
        live.end_turn(node.hub.now())
    await box.until(lambda: node.journal.failing, "the store is missed")
    assert box.verdicts() == [True] and other.text() == "ab", "editing goes on, nothing is called saved"
    node.store.down = False
    await box.until(lambda: len(box.verdicts()) == 5, "all verdicts")
    assert box.verdicts() == [True, True, False, True, True], "in the order of the updates"
    assert len((await node.stored("d")).rows) == 2
    assert box.text() == "ab"


async def test_a_version_is_told_after_the_commit_and_asked_again_by_one_that_could_not_be_told(
    start_node: StartNode,
) -> None:
    node = await start_node()
    live, a, box = await node.join("d")
    _, b, other = await node.join("d")

    def told(box: Box) -> list[int]:
        return [message.version for message in box.messages if isinstance(message, LocalVersion)]

    live.receive(a, LocalVersion(0))
    live.receive(b, LocalVersion(0))
    await box.until(lambda: told(box) == told(other) == [0], "nothing is awaited")
    author = Author(1)
    node.store.down = True
    for version in (1, 2):
        live.receive(a, SyncUpdate(author.type("a")))
        live.receive(a, LocalVersion(version))
        live.end_turn(node.hub.now())
    live.receive(b, LocalVersion(1))
    await box.until(lambda: node.journal.failing, "the store is missed")
    assert other.text() == "aa" and told(box) == told(other) == [0]
    live.receive(a, LocalVersion(2))
    assert told(box) == [0, 0], "it is told that the server lives"
    b.on(Event.LAGGED)
    node.store.down = False
    await box.until(lambda: told(box) == [0, 0, 1, 2], "each after its commit")
    assert box.text() == "aa" and len((await node.stored("d")).rows) == 2
    assert told(other) == [0], "it lags"
    b.on(Event.CAUGHT_UP)
    live.receive(b, LocalVersion(1))
    await box.until(lambda: told(other) == [0, 1], "it has asked again")


async def test_what_one_client_alone_has_sent_it_gets_back_with_the_verdict_in_one_write(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    _, b, other = await node.join("d", kind=Acknowledged)
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author, second = Author(1), Author(2)
    alone = author.type("a")
    live.receive(a, SyncUpdate(alone))
    live.end_turn(node.hub.now())
    assert other.updates()[-1] == alone and alone not in box.updates(), "others have it at once"
    await box.until(lambda: alone in box.updates(), "the echo")
    assert box.writes[-1] == [SyncStatus(True), SyncUpdate(alone)]

    # In a turn of two authors, each has something to learn.
    live.receive(a, SyncUpdate(author.type("b")))
    live.receive(b, SyncUpdate(second.type("x")))
    live.end_turn(node.hub.now())
    assert box.updates()[-1] == other.updates()[-1] != alone
    await other.until(lambda: other.text() == box.text() and len(box.verdicts()) == 3, "the verdict")
    assert box.writes[-1] == [SyncStatus(True)]

    # An echo that waits goes out before what others have sent since.
    first, then = author.type("p"), second.type("q")
    for member, update in ((a, first), (b, then)):
        live.receive(member, SyncUpdate(update))
        live.end_turn(node.hub.now())
    assert box.updates()[-2:] == [first, then] and len(box.verdicts()) == 3
    await other.until(lambda: len(box.verdicts()) == 4, "the verdict")
    assert box.writes[-1] == [SyncStatus(True)] and box.updates()[-1] == then

    # While the store is down nobody knows when the verdict comes.
    node.store.down = True
    live.receive(a, SyncUpdate(author.type("c")))
    await box.until(lambda: node.journal.failing, "the store is missed")
    late = author.type("d")
    live.receive(a, SyncUpdate(late))
    live.end_turn(node.hub.now())
    assert box.updates()[-1] == late and len(box.verdicts()) == 4


async def test_what_follows_a_commit_never_overtakes_what_waited_for_it(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author = Author(1)
    # A turn for each: rows, nothing but a refusal, rows again; both commits fall into one batch.
    for update in (author.type("a"), b"\xff", author.type("b")):
        live.receive(a, SyncUpdate(update))
        live.end_turn(node.hub.now())
    await box.until(lambda: len(box.verdicts()) == 4, "all verdicts")
    assert box.verdicts() == [True, True, False, True]


async def test_updates_refused_for_good_are_not_called_saved(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("kept")))
    await box.until(lambda: len(box.verdicts()) == 2, "the first is saved")
    await node.store.delete("d", 1.0)
    live.receive(a, SyncUpdate(author.type("lost")))
    await box.until(lambda: box.ended, "the tombstone is met")
    assert isinstance(box.ended, DocumentDeleted) and box.verdicts() == [True, True, False]


async def test_while_the_store_is_away_editing_goes_on_and_everything_is_written_once_after(
    start_node: StartNode,
) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, _, box_b = await node.join("d")
    author = Author(1)
    node.store.down = True
    for letter in "abc":
        live.receive(a, SyncUpdate(author.type(letter)))
        await box_b.until(lambda letter=letter: box_b.text().endswith(letter), "live editing goes on")
    await box_a.until(lambda: node.journal.failing, "the failure is seen")
    assert live.persistence.seq == 0
    with pytest.raises(StoreUnavailable):
        await node.hub.open("another")
    node.store.down = False
    await box_a.until(lambda: live.persistence.seq and not live.persistence.uncommitted, "written")
    reader = Author(0)
    assert [reader.read(row.data) for row in (await node.stored("d")).rows][-1] == "abc"
    assert sum(len(row.data) for row in (await node.stored("d")).rows) < 200


async def test_a_deleted_document_ends_its_room_at_the_next_write_and_stays_deleted(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("x")))
    await box_a.until(lambda: live.persistence.seq == 1, "stored")
    await node.store.delete("d", 1.0)
    live.receive(a, SyncUpdate(author.type("y")))
    await box_a.until(lambda: box_a.ended, "the room ends")
    assert isinstance(box_a.ended, DocumentDeleted)
    with pytest.raises(DocumentDeleted):
        await node.hub.open("d")
    await node.store.create("d")
    again, member, box = await node.join("d")
    again.receive(member, SyncStep1(b"\0"))
    assert box.text() == ""


async def test_who_has_left_is_told_nothing_of_its_updates(
    start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    _, b, other = await node.join("d")
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    node.store.full = True
    live.receive(a, SyncUpdate(Author(1).type("a")))
    live.end_turn(node.hub.now())  # its echo waits for the commit
    written = len(box.writes)
    live.leave(a)
    live.leave(a)
    live.receive(b, SyncUpdate(Author(2).type("b")))
    live.end_turn(node.hub.now())
    node.store.full = False
    with caplog.at_level(logging.DEBUG, "collab.journal"):
        await live.persistence.durable()
    await other.until(lambda: sorted(other.text()) == ["a", "b"], "what it sent is kept")
    assert len(box.writes) == written
    assert live.persistence.seq == 2
    assert [record.getMessage() for record in caplog.records if "committed" in record.message][
        -1
    ] == "committed 'd' 2..2"


async def test_one_that_waits_for_the_store_no_more_harms_nobody(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    author = Author(1)
    node.store.full = True
    futures = []
    for letter in "abc":
        live.receive(a, SyncUpdate(author.type(letter)))
        live.end_turn(node.hub.now())
        futures.append(live.persistence.durable())
    futures[1].cancel()
    node.store.full = False
    assert [await futures[0], await futures[2]] == [1, 3]
    assert await live.persistence.durable() == 3


async def test_no_number_is_durable_while_memory_holds_more_than_the_log_up_to_it(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot with that number would hold a row that comes later."""
    # Nobody looks by the clock: the row of the other node is found when it has been overtaken, and not before.
    monkeypatch.setattr(replication_module, "_LOOK", 3600.0)
    one, two = await start_node(), await start_node()
    live, a, box = await one.join("d")
    other, b, _ = await two.join("d")
    live.receive(a, SyncUpdate(Author(1).type("1")))
    await box.until(lambda: live.persistence.seq == 1, "stored")
    other.receive(b, SyncUpdate(Author(2).type("2")))
    await box.until(lambda: other.persistence.seq == 2, "stored by the other node")
    found: list[int | None] = []
    overtaken = one.hub.overtaken

    def look(room: LiveRoom) -> None:
        overtaken(room)
        asked = room.persistence.durable()
        found.append(asked.result() if asked.done() else None)

    one.hub.overtaken = look  # type: ignore[method-assign]
    live.receive(a, SyncUpdate(Author(3).type("3")))
    await box.until(lambda: live.persistence.seq == 3, "all are read")
    assert found == [None]
    assert await live.persistence.durable() == 3
