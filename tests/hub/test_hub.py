"""The life of rooms on a real store: opening, leaving memory, the way down."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import PeerTooSlow, ServerStopping
from collab.hub import hub as hub_module
from collab.hub.hub import Presence
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import State
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from tests.hub.conftest import Acknowledged, Box, StartNode
from tests.support.author import Author, content
from tests.support.waiting import eventually, happens


async def test_looking_at_a_document_stores_nothing(start_node: StartNode) -> None:
    node = await start_node()
    await node.join("looked at")
    assert await node.store.list_documents() == []


async def test_a_document_is_opened_once_however_many_ask(start_node: StartNode) -> None:
    node = await start_node()
    rooms = await asyncio.gather(*(node.hub.open("d") for _ in range(20)))
    assert len({id(live) for live in rooms}) == 1
    assert node.store.loads == 1


async def test_a_question_left_open_ends_the_session(start_node: StartNode) -> None:
    node = await start_node(sync_timeout=0.3)
    _, _, mute = await node.join("d", answer=False)
    _, answers, box = await node.join("d")
    await mute.until(lambda: mute.ended, "its time is over")
    assert isinstance(mute.ended, PeerTooSlow)
    assert box.ended is None
    assert answers.state is State.LIVE


async def test_an_idle_document_leaves_memory_with_a_snapshot(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    live, a, box = await node.join("d")
    author = Author(1)
    for letter in "abcdef":
        live.receive(a, SyncUpdate(author.type(letter)))
        await live.persistence.durable()
        live.end_turn(0.0)
        await live.persistence.durable()
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
    assert again.persistence.seq == stored.document.head_seq


async def test_draining_stores_everything_then_ends_every_session(start_node: StartNode) -> None:
    node = await start_node(batch_window=10.0)
    node.keep_busy()
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
        assert content(live.room.document.encode_state_as_update()) == "ab"


async def test_draining_names_what_could_not_be_stored(start_node: StartNode) -> None:
    node = await start_node()
    live, member, _ = await node.join("unlucky")
    node.store.down = True
    live.receive(member, SyncUpdate(Author(1).type("lost with the store")))
    assert await node.hub.drain(0.3) == ["unlucky"]
    await node.sandbox.close()
    await node.store.close()


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


async def test_what_comes_while_the_journal_closes_is_in_no_snapshot(start_node: StartNode) -> None:
    """It is never written: in a snapshot it would be there for who opens the document next, and for no other node."""
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("x" * 40_000)))
    await node.write(live)
    node.store.full = True
    live.receive(a, SyncUpdate(author.type("in time ")))
    live.end_turn(node.hub.now())
    stopping = asyncio.ensure_future(node.hub.drain(10.0))
    await happens(lambda: node.journal.closed, "it closes")
    assert not stopping.done()
    live.receive(a, SyncUpdate(author.type("too late")))
    await box.until(lambda: not live.dirty, "its turn has ended")
    node.store.full = False
    assert await stopping == []
    assert box.verdicts() == [True, True, True], "nobody was told that it is saved"
    stored = await node.stored("d")
    assert stored.document.head_seq == 2
    reader = Author(0)
    for update in ([] if stored.snapshot is None else [stored.snapshot.data]) + [row.data for row in stored.rows]:
        reader.read(update)
    assert str(reader.text) == "x" * 40_000 + "in time "
    await node.sandbox.close()
    await node.store.close()


async def test_presence_tells_who_is_where(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    await node.join("d")
    await node.join("quiet")
    states = encode_awareness([Entry(7, 1, b"{}")])
    live.receive(a, AwarenessUpdate(states))
    assert await node.hub.presence(["d", "quiet", "none"]) == {
        "d": Presence(2, states),
        "quiet": Presence(1, None),
        "none": Presence(0, None),
    }


async def test_an_idle_document_that_somebody_opens_again_stays(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    live, a, _ = await node.join("d")
    live.receive(a, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    live.leave(a)
    unloading = asyncio.ensure_future(node.hub._unload(live))
    await asyncio.sleep(0)
    again, b, box = await node.join("d")
    await unloading
    await asyncio.sleep(0.3)  # some sweeps
    assert again is live and node.hub.rooms["d"] is live
    live.receive(b, SyncStep1(b"\0"))
    assert box.text() == "x"


async def test_a_document_that_is_opened_and_left_while_it_waits_to_leave_memory_waits_once(
    start_node: StartNode,
) -> None:
    """Snapshots take their time: a task for each time that people come and go would be a queue without a bound."""
    node = await start_node(idle_seconds=0.0)
    for _ in range(hub_module._UNLOADING):
        await node.hub._unloading.acquire()
    for _ in range(4):
        live, member, box = await node.join("d")
        live.receive(member, SyncUpdate(Author(1).type("x")))
        await node.write(live)
        live.leave(member)
        await asyncio.sleep(2.5 * hub_module._SWEEP)
        waiting = [task for task in node.hub.tasks._running if task.get_name() == "unloading 'd'"]
        assert len(waiting) == 1
    for _ in range(hub_module._UNLOADING):
        node.hub._unloading.release()
    await box.until(lambda: "d" not in node.hub.rooms, "unloaded")
    assert not node.hub._leaving and not node.hub._idle


async def test_an_idle_document_waits_for_its_last_edit_to_be_stored(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    live, a, box = await node.join("d")
    node.store.full = True
    live.receive(a, SyncUpdate(Author(1).type("x")))
    live.leave(a)
    await node.hub._unload(live)  # which had been planned a moment before
    live.end_turn(node.hub.now())
    await node.hub._unload(live)
    await asyncio.sleep(0.3)  # some sweeps
    assert node.hub.rooms["d"] is live
    node.store.full = False
    await box.until(lambda: "d" not in node.hub.rooms, "unloaded")
    assert content((await node.stored("d")).snapshot.data) == "x"  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["bytes come", "its message is worked on", "none are seen"])
async def test_a_question_waits_while_its_answer_is_on_the_way(start_node: StartNode, how: str) -> None:
    node = await start_node(sync_timeout=0.3, min_rate=1_000.0)
    _, _, box = await node.join("d", answer=False)
    _, _, trickling = await node.join("d", answer=False)
    began = node.hub.now()
    while node.hub.now() - began < 4:
        trickling.received += 10  # 200 a second
        if how == "bytes come":
            box.received += 500
        elif how == "none are seen":
            box.unseen_seconds = 60.0
        else:
            box.held_up = True
        await asyncio.sleep(0.05)
    assert box.ended is None
    assert isinstance(trickling.ended, PeerTooSlow), "a trickle is no answer"
    box.held_up, box.unseen_seconds = False, 0.0
    await box.until(lambda: box.ended, "now nothing comes")


@pytest.mark.slow
async def test_a_member_that_answers_now_and_then_is_not_taken_for_silent(start_node: StartNode) -> None:
    node = await start_node(sync_timeout=0.5)
    live, a, box = await node.join("d", kind=Acknowledged, answer=False)
    began = node.hub.now()
    while node.hub.now() - began < 1.5:
        live.receive(a, SyncStep2(EMPTY_UPDATE))
        live.receive(a, SyncStep1(b"\0"))  # upon which it is asked again
        assert a.unanswered == 1
        await asyncio.sleep(0.05)
    assert box.ended is None
    await box.until(lambda: box.ended, "now it is silent")
    assert isinstance(box.ended, PeerTooSlow)


async def test_history_is_pruned_in_the_background(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.05)
    node = await start_node(idle_seconds=0.0, history=0.0)
    author, number = Author(1), None
    for letter in "xy":
        live, a, box = await node.join("d")
        live.receive(a, SyncUpdate(author.type(letter)))
        await node.write(live)
        number = live.persistence.document_id
        live.leave(a)
        await box.until(lambda: "d" not in node.hub.rooms, "unloaded, with a snapshot")

    async def pruned() -> bool:
        return [row.seq for row in await node.store.rows_after(number, 0, 9)] == [2]

    await eventually(pruned, "of the rows only what follows on the older of two snapshots is left")
    assert content((await node.stored("d")).snapshot.data) == "xy"  # type: ignore[union-attr]


async def test_the_frames_kept_for_joins_are_dropped_when_nobody_joins(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d")
    live.receive(a, SyncStep1(b"\0"))
    assert node.hub.frames_budget.nbytes
    await box.until(lambda: not node.hub.frames_budget.nbytes, "two sweeps")


async def test_the_clocks_of_states_that_have_left_are_forgotten(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_FORGET", 0.3)
    node = await start_node()
    live, a, box = await node.join("d")
    for state in (b"{}", b"null"):
        live.receive(a, AwarenessUpdate(encode_awareness([Entry(7, 1, state)])))
        live.end_turn(node.hub.now())
    assert live.room.awareness.departed
    await box.until(lambda: not live.room.awareness.departed, "forgotten")


async def test_a_client_id_stays_its_users_while_the_document_is_not_in_memory(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node(idle_seconds=0.0)
    live, ann, _ = await node.join("d")
    ann.author = "ann"
    live.receive(ann, AwarenessUpdate(encode_awareness([Entry(7, 5, b"{}")])))
    live.receive(ann, SyncUpdate(Author(1).type("x")))
    live.leave(ann)
    await happens(lambda: "d" not in node.hub.rooms, "unloaded")
    again, bob, box = await node.join("d")
    assert again is not live and not node.hub._departed
    bob.author = "bob"
    again.receive(bob, AwarenessUpdate(encode_awareness([Entry(7, 6, b"{}")])))
    assert not again.room.awareness.changed
    assert len(box.unseen) == 1
    monkeypatch.setattr(hub_module, "_FORGET", 0.01)
    again.leave(bob)
    await happens(lambda: not node.hub._departed, "some minutes later it is forgotten")


async def test_a_room_that_leaves_memory_before_anybody_hears_of_it_is_opened_again(start_node: StartNode) -> None:
    """A sweep may come between the end of loading and who waits for it; a document that is not stored is not kept."""
    node = await start_node()
    left: list[LiveRoom] = []
    load = node.hub._load

    async def leaving(name: str) -> LiveRoom:
        live: LiveRoom = await load(name)
        if not left:
            left.append(live)
            # Behind the end of this task, and before whoever has asked for it goes on.
            asyncio.get_running_loop().call_soon(node.hub._forget_room, live)
        return live

    node.hub._load = leaving
    live = await node.hub.open("d")
    assert left and live is not left[0] and node.hub.rooms["d"] is live
