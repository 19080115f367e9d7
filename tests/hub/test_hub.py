"""The life of rooms on a real store."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import (
    DocumentDeleted,
    DocumentTooLarge,
    PeerTooSlow,
    ServerStopping,
    StoreUnavailable,
    UpdateError,
)
from collab.hub.compaction import CompactionPolicy
from collab.hub.live import SLICED
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.wire import SyncStatus
from tests.hub.conftest import Acknowledged, Box, StartNode
from tests.support.author import Author, content


async def test_an_edit_reaches_everybody_and_the_log_and_survives_a_restart(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, _, box_b = await node.join("d")
    author = Author(1)
    update = SyncUpdate(author.type("hello"))
    live.receive(a, update)
    await box_b.until(lambda: box_b.text() == "hello", "the edit arrives")
    assert box_a.text() == "hello", "the sender gets its echo"
    await live.settled()
    assert live.seq == 1
    assert [row.data for row in (await node.stored("d")).rows] == [update.update]
    assert await node.stop() == []
    again = await start_node()
    live, member, box = await again.join("d")
    live.receive(member, SyncStep1(b"\0"))
    assert box.text() == "hello"
    assert live.seq == 1


async def test_looking_at_a_document_stores_nothing(start_node: StartNode) -> None:
    node = await start_node()
    await node.join("looked at")
    assert await node.store.list_documents() == []


async def test_a_document_is_opened_once_however_many_ask(start_node: StartNode) -> None:
    node = await start_node()
    rooms = await asyncio.gather(*(node.hub.open("d") for _ in range(20)))
    assert len({id(live) for live in rooms}) == 1
    assert node.store.loads == 1


async def test_edits_within_the_window_of_a_busy_room_travel_together(start_node: StartNode) -> None:
    node = await start_node(batch_window=0.2)
    live, a, _ = await node.join("d")
    boxes = [(await node.join("d"))[2] for _ in range(19)]
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("1")))
    await boxes[0].until(lambda: boxes[0].updates(), "the first edit after quiet is not delayed")
    first = live.flushed_at
    for letter in "2345":
        live.receive(a, SyncUpdate(author.type(letter)))
        await asyncio.sleep(0)
    await boxes[0].until(lambda: len(boxes[0].updates()) > 1, "the others follow")
    assert boxes[0].text() == "12345"
    assert len(boxes[0].updates()) == 2
    assert live.flushed_at - first >= 0.19
    await live.settled()
    assert len((await node.stored("d")).rows) == 2


async def test_a_large_update_is_taken_in_slices_and_others_go_on(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, b, _ = await node.join("d")
    big, small = Author(1), Author(2)
    for n in range(SLICED // 2):
        big.text.insert(0, f"{n % 10}")  # single structs, as typing backwards makes them
    update = SyncStep2(big.doc.get_update())
    assert len(update.update) > SLICED
    reading = asyncio.ensure_future(live.receive_in_slices(a, update))
    await asyncio.sleep(0)
    assert not reading.done()
    live.receive(b, SyncUpdate(small.type("between")))
    await box_a.until(lambda: "between" in box_a.text(), "the small one overtakes")
    await reading
    await box_a.until(lambda: len(box_a.text()) == SLICED // 2 + 7, "the large one follows")
    with pytest.raises(UpdateError):
        await live.receive_in_slices(a, SyncUpdate(update.update[:-1]))


async def test_a_slow_member_is_held_back_and_brought_level_by_one_catch_up(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, slow, box = await node.join("d")
    author = Author(1)
    box.blocked = True
    live.receive(a, SyncUpdate(author.type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    for letter in "abc":
        live.receive(a, SyncUpdate(author.type(letter)))
        await box_a.until(lambda letter=letter: box_a.text().endswith(letter), "the others go on")
    live.receive(a, AwarenessUpdate(encode_awareness([Entry(9, 1, b"{}")])))
    await box_a.until(lambda: isinstance(box_a.messages[-1], AwarenessUpdate), "awareness too")
    before = len(box.messages)
    assert box.text() == "x" * 11_000
    box.blocked, box.held = False, 0
    await box.until(lambda: slow.state is State.LIVE, "it has drained")
    assert [type(message) for message in box.messages[before:]] == [SyncUpdate, AwarenessUpdate]
    assert box.text() == box_a.text()
    live.receive(a, SyncUpdate(author.type("d")))
    await box.until(lambda: box.text().endswith("abcd"), "live again")


async def test_what_a_lagging_member_asks_is_answered_once_when_it_has_drained(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    author = Author(1)
    box.blocked = True
    live.receive(a, SyncUpdate(author.type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    before = len(box.messages)
    for _ in range(50):
        live.receive(slow, SyncStep1(b"\0"))
    assert len(box.messages) == before, "asking does not make its outbox grow"
    box.blocked, box.held = False, 0
    await box.until(lambda: slow.state is State.LIVE, "it has drained")
    assert [type(message) for message in box.messages[before:]] == [SyncStep2]


async def test_a_member_that_takes_nothing_is_ended_in_the_end(start_node: StartNode) -> None:
    node = await start_node(slow_seconds=0.3)
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    box.blocked = True
    live.receive(a, SyncUpdate(Author(1).type("x" * 11_000)))
    await box.until(lambda: box.ended, "its time is over")
    assert isinstance(box.ended, PeerTooSlow)
    assert slow.state is State.CLOSED
    assert slow not in live.room.sessions


async def test_a_question_left_open_ends_the_session(start_node: StartNode) -> None:
    node = await start_node(sync_timeout=0.3)
    _, _, mute = await node.join("d", answer=False)
    _, answers, box = await node.join("d")
    await mute.until(lambda: mute.ended, "its time is over")
    assert isinstance(mute.ended, PeerTooSlow)
    assert box.ended is None
    assert answers.state is State.LIVE


async def test_a_storm_of_joins_shares_one_frame(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    author = Author(1)
    await live.receive_in_slices(a, SyncUpdate(author.type("x" * SLICED * 2)))
    await live.settled()
    joined = [await node.join("d") for _ in range(5)]
    encoded = len(node.recorder.messages)
    for _, member, box in joined:
        box.blocked = True
        live.receive(member, SyncStep1(b"\0"))
    assert len(node.recorder.messages) == encoded + 1
    assert all(member.state is State.LAGGING for _, member, _ in joined)
    live.receive(a, SyncUpdate(author.type("!")))
    for _, member, box in joined:
        box.blocked, box.held = False, 0
        await box.until(lambda member=member: member.state is State.LIVE, "caught up")
        assert box.text() == "x" * SLICED * 2 + "!"


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


async def test_one_that_lags_before_its_echo_has_come_is_brought_level_without_it(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    _, b, _ = await node.join("d")
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author, second = Author(1), Author(2)
    live.receive(a, SyncUpdate(author.type("a")))
    live.end_turn(node.hub.now())
    box.blocked = True
    live.receive(b, SyncUpdate(second.type("x" * (box.mark + 1))))
    live.end_turn(node.hub.now())
    assert a.state is State.LAGGING
    live.receive(b, SyncUpdate(second.type("y")))
    await live.settled()
    box.blocked, box.held = False, 0
    await box.until(lambda: len(box.verdicts()) == 2, "told after the catch-up")
    for update in box.updates():
        author.read(update)
    assert str(author.text) == content(live.room.document.encode())


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


async def test_verdicts_wait_for_a_member_that_lags_and_come_once_it_has_caught_up(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author = Author(1)
    box.blocked = True
    live.receive(a, SyncUpdate(author.type("x" * (box.mark + 1))))
    await box.until(lambda: a.state is State.LAGGING, "its echo was too much")
    for _ in range(2_500):
        live.receive(a, SyncUpdate(author.type("y")))
    await live.settled()
    await box.until(lambda: a.owed is not None and len(a.owed) == 2_501, "all are committed")
    assert len(box.verdicts()) == 1
    box.blocked, box.held = False, 0
    await box.until(lambda: len(box.verdicts()) == 2_502, "told after the catch-up")
    assert all(box.verdicts())


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


async def test_a_readers_large_step_2_is_refused_in_slices_too(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    author = Author(1)
    await live.receive_in_slices(a, SyncUpdate(author.type("x" * SLICED * 2)))
    known = author.doc.get_update()
    author.type("y" * SLICED * 2)
    _, reader, box = await node.join("d", kind=Acknowledged, access=Access.READ)
    await live.receive_in_slices(reader, SyncStep2(known))
    await live.receive_in_slices(reader, SyncStep2(author.doc.get_update()))
    await live.receive_in_slices(reader, SyncUpdate(b"\xff" * SLICED * 2))
    await box.until(lambda: len(box.verdicts()) == 4, "a verdict each")
    assert box.verdicts() == [True, True, False, False]
    assert box.refused == 1, "what is malformed is no attempt to write"
    assert content(live.room.document.encode()) == "x" * SLICED * 2


async def test_an_idle_document_leaves_memory_with_a_snapshot(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    live, a, box = await node.join("d")
    author = Author(1)
    for letter in "abcdef":
        live.receive(a, SyncUpdate(author.type(letter)))
        await live.settled()
        live.end_turn(0.0)
        await live.settled()
    live.leave(a)
    await box.until(lambda: "d" not in node.hub.rooms, "unloaded")
    stored = await node.stored("d")
    assert stored.snapshot is not None
    assert stored.snapshot.seq == stored.document.head_seq
    assert stored.rows == []
    assert content(stored.snapshot.data) == "abcdef"
    again, member, box = await node.join("d")
    again.receive(member, SyncStep1(b"\0"))
    assert box.text() == "abcdef"
    assert again.seq == stored.document.head_seq


async def test_compaction_waits_for_a_tail_and_the_room_goes_on_meanwhile(start_node: StartNode) -> None:
    node = await start_node(compaction=CompactionPolicy(rows=50, nbytes=1 << 30, ratio=0.5))
    live, a, box = await node.join("d")
    author = Author(1)
    for n in range(400):
        live.receive(a, SyncUpdate(author.type(str(n % 10))))
        await asyncio.sleep(0.001)
    await box.until(lambda: live.snapshot_bytes and not live.compacting, "a snapshot is made")
    live.receive(a, SyncUpdate(author.type("end")))
    await live.settled()
    live.end_turn(0.0)
    await live.settled()
    text = "".join(str(n % 10) for n in range(400)) + "end"
    assert box.text() == text
    assert content(live.room.document.encode()) == text
    stored = await node.stored("d")
    assert stored.snapshot is not None
    assert stored.snapshot.seq + len(stored.rows) == stored.document.head_seq
    assert live.tail_rows < 400
    late, member, late_box = await node.join("d")
    late.receive(member, SyncStep1(b"\0"))
    assert late_box.text() == text


async def test_rows_of_another_node_are_found_at_the_next_commit_and_relayed(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    live_1, a, box_1 = await one.join("d")
    live_2, b, box_2 = await two.join("d")
    here, there = Author(1), Author(2)
    live_1.receive(a, SyncUpdate(here.type("one")))
    await box_1.until(lambda: live_1.seq == 1, "stored by the first node")
    live_2.receive(b, SyncUpdate(there.type("two")))
    await box_2.until(lambda: live_2.seq == 2, "the second node reads what it missed")
    await box_2.until(lambda: sorted(box_2.text()) == sorted("onetwo"), "and relays it")
    live_1.receive(a, SyncUpdate(here.type("!")))
    await box_1.until(lambda: live_1.seq == 3, "and the other way round")
    await box_1.until(lambda: sorted(box_1.text()) == sorted("onetwo!"), "relayed")
    assert [row.seq for row in (await one.stored("d")).rows] == [1, 2, 3], "what was read is not stored again"


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
    assert live.seq == 0
    with pytest.raises(StoreUnavailable):
        await node.hub.open("another")
    node.store.down = False
    await box_a.until(lambda: live.seq and not live.uncommitted, "written")
    reader = Author(0)
    assert [reader.read(row.data) for row in (await node.stored("d")).rows][-1] == "abc"
    assert sum(len(row.data) for row in (await node.stored("d")).rows) < 200


async def test_past_the_backlog_new_edits_are_refused_and_old_ones_are_not(start_node: StartNode) -> None:
    node = await start_node(backlog_bytes=10_000)
    live, a, box = await node.join("d")
    author = Author(1)
    node.store.down = True
    known = SyncUpdate(author.type("x" * 12_000))
    live.receive(a, known)
    await box.until(lambda: node.journal.full, "the backlog is full")
    with pytest.raises(StoreUnavailable):
        live.receive(a, SyncUpdate(author.type("y")))
    with pytest.raises(StoreUnavailable):
        await live.receive_in_slices(a, SyncUpdate(author.type("z" * SLICED)))
    live.receive(a, SyncStep2(known.update))  # a client that only comes back is not sent away
    live.receive(a, SyncStep1(b"\0"))
    assert box.text() == "x" * 12_000


async def test_a_deleted_document_ends_its_room_at_the_next_write_and_stays_deleted(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("x")))
    await box_a.until(lambda: live.seq == 1, "stored")
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


async def test_a_document_too_large_for_an_update_refuses_it_in_slices_too(start_node: StartNode) -> None:
    node = await start_node(max_document_bytes=100_000)
    live, a, box = await node.join("d")
    author = Author(1)
    kept = SyncUpdate(author.type("x" * 60_000))
    await live.receive_in_slices(a, kept)
    with pytest.raises(DocumentTooLarge):
        await live.receive_in_slices(a, SyncUpdate(author.type("y" * 60_000)))
    await live.receive_in_slices(a, SyncStep2(kept.update))
    await box.until(lambda: box.text() == "x" * 60_000, "what it holds stays readable")


async def test_draining_stores_everything_then_ends_every_session(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    boxes: list[Box] = []
    for n in range(20):
        live, member, box = await node.join(f"d{n}")
        author = Author(n + 1)
        live.receive(member, SyncUpdate(author.type("a")))
        await asyncio.sleep(0)
        live.receive(member, SyncUpdate(author.type("b")))  # waits for the window
        boxes.append(box)
    assert await node.stop() == []
    assert all(isinstance(box.ended, ServerStopping) for box in boxes)
    with pytest.raises(ServerStopping):
        await node.hub.open("d0")
    again = await start_node()
    for n in range(20):
        live = await again.hub.open(f"d{n}")
        assert content(live.room.document.encode()) == "ab"


async def test_draining_names_what_could_not_be_stored(start_node: StartNode) -> None:
    node = await start_node()
    live, member, _ = await node.join("unlucky")
    node.store.down = True
    live.receive(member, SyncUpdate(Author(1).type("lost with the store")))
    assert await node.hub.drain(0.3) == ["unlucky"]
    await node.sandbox.close()
    await node.store.close()


async def test_a_contested_awareness_state_has_its_owner_probed(start_node: StartNode) -> None:
    node = await start_node()
    live, owner, owner_box = await node.join("d")
    _, claimant, _ = await node.join("d")
    live.receive(owner, AwarenessUpdate(encode_awareness([Entry(7, 1, b"{}")])))
    live.receive(claimant, AwarenessUpdate(encode_awareness([Entry(7, 2, b"{}")])))
    assert owner_box.probed == 1


async def test_a_long_tail_is_shortened_when_the_server_stops(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("long")
    _, b, _ = await node.join("short")
    author = Author(1)
    for _ in range(50):
        live.receive(a, SyncUpdate(author.type("x" * 1_000)))
        await asyncio.sleep(0)
    node.hub.rooms["short"].receive(b, SyncUpdate(Author(2).type("y")))
    assert await node.stop() == []
    again = await start_node()
    long, short = await again.stored("long"), await again.stored("short")
    assert long.snapshot is not None and long.rows == []
    assert content(long.snapshot.data) == "x" * 50_000
    assert short.snapshot is None and len(short.rows) == 1
