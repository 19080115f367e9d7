"""What a live room does for its members: edits, large ones, joins, refusals."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import DecodeError, DocumentBusy, DocumentTooLarge, SandboxBusy, StoreUnavailable, UpdateError
from collab.hub.member import Member
from collab.hub.room import SLICED, LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, State
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.storage.records import LogRow
from collab.update.compact import Compacted
from tests.hub.conftest import Acknowledged, StartNode
from tests.support.author import Author, content
from tests.support.waiting import happens


async def test_an_edit_reaches_everybody_and_the_log_and_survives_a_restart(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, _, box_b = await node.join("d")
    author = Author(1)
    update = SyncUpdate(author.type("hello"))
    live.receive(a, update)
    await box_b.until(lambda: box_b.text() == "hello", "the edit arrives")
    assert box_a.text() == "hello", "the sender gets its echo"
    await live.persistence.durable()
    assert live.persistence.seq == 1
    assert [row.data for row in (await node.stored("d")).rows] == [update.update]
    assert await node.stop() == []
    again = await start_node()
    live, member, box = await again.join("d")
    live.receive(member, SyncStep1(b"\0"))
    assert box.text() == "hello"
    assert live.persistence.seq == 1


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
    assert content(live.room.document.encode_state_as_update()) == "x" * SLICED * 2


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


async def replaced(live: LiveRoom, member: Member, author: Author, text: str) -> None:
    """Take an update of a client that replaces all that it has written, as a connection does."""
    update = author.replace(text)
    try:
        live.receive(member, SyncUpdate(update))
    except DocumentTooLarge:
        size = await live.size_with(update)
        if size is None:
            raise
        await live.receive_in_slices(member, SyncUpdate(update), size=size)


async def test_what_is_overwritten_does_not_count_towards_the_size(start_node: StartNode) -> None:
    """6 KB in a document of at most 20 KB, replaced again and again: it is never larger than 6 KB."""
    node = await start_node(max_document_bytes=20_000)
    live, a, _ = await node.join("d")
    author = Author(1)
    for n in range(40):
        await replaced(live, a, author, f"{n % 10}" * 6_000)
        assert live.room.document.size - live.room.document.garbage <= 20_000
    await live.persistence.durable()
    assert live.ended is None
    await happens(lambda: live.room.document.size < 20_000, "a snapshot leaves out what is overwritten")
    # What is new and stays is refused all the same, for good.
    with pytest.raises(DocumentTooLarge):
        await replaced(live, a, author, "x" * 21_000)
    assert await node.stop() == []
    again = await start_node(max_document_bytes=20_000)
    live, member, box = await again.join("d")
    live.receive(member, SyncStep1(b"\0"))
    assert box.text() == "9" * 6_000


async def test_one_update_takes_the_place_of_another_in_a_full_document(start_node: StartNode) -> None:
    """What the update itself overwrites makes room for it; nothing is garbage before it is taken."""
    node = await start_node(max_document_bytes=20_000)
    live, a, _ = await node.join("d")
    author = Author(1)
    await replaced(live, a, author, "a" * 15_000)
    update = author.replace("b" * 15_000)
    assert live.room.is_full(update)
    tries = [asyncio.ensure_future(live.size_with(update)) for _ in range(3)]
    sizes = {await one for one in tries}
    assert len(sizes) == 1
    (size,) = sizes
    assert size is not None and 15_000 < size < 15_100
    assert live.room.is_full(update), "trying it has changed nothing"
    await live.receive_in_slices(a, SyncUpdate(update), size=size)
    assert not live.room.is_full(author.type("c"))


async def test_a_size_that_cannot_be_told_is_no_final_refusal(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node(max_document_bytes=20_000)
    live, a, _ = await node.join("d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.replace("a" * 1_000)))

    async def busy(data: bytes, gc: bool) -> Compacted:
        raise SandboxBusy("too many jobs wait")

    monkeypatch.setattr(node.sandbox, "compact", busy)
    with pytest.raises(DocumentBusy) as raised:
        await live.size_with(author.replace("b" * 30_000))
    assert raised.value.retryable
    with pytest.raises(UpdateError):
        await live.size_with(b"\xff" * 30_000)


async def test_a_storm_of_joins_shares_one_frame(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    author = Author(1)
    await live.receive_in_slices(a, SyncUpdate(author.type("x" * 65_536)))
    await live.persistence.durable()
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
        assert box.text() == "x" * 65_536 + "!"


async def test_a_contested_awareness_state_has_its_owner_probed(start_node: StartNode) -> None:
    node = await start_node()
    live, owner, owner_box = await node.join("d")
    _, claimant, _ = await node.join("d")
    live.receive(owner, AwarenessUpdate(encode_awareness([Entry(7, 1, b"{}")])))
    live.receive(claimant, AwarenessUpdate(encode_awareness([Entry(7, 2, b"{}")])))
    assert owner_box.probed == 1


async def test_one_that_syncs_again_is_asked_before_it_is_answered(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    live.receive(a, SyncUpdate(Author(1).type("x")))
    await box.until(lambda: len(box.verdicts()) == 2, "saved")
    before = len(box.messages)
    live.receive(a, SyncStep1(b"\0"))
    assert [type(message) for message in box.messages[before:]] == [SyncStep1, SyncStep2]
    assert a.unanswered == 1
    box.blocked, box.mark = True, 1
    live.receive(a, SyncStep2(EMPTY_UPDATE))
    await box.until(lambda: a.state is State.LAGGING, "its verdict was too much")
    before = len(box.messages)
    live.receive(a, SyncStep1(b"\0"))
    assert [type(message) for message in box.messages[before:]] == [SyncStep1], "asked at once, answered when it drains"


async def test_a_malformed_state_vector_is_refused_whether_its_client_reads_or_not(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box = await node.join("d")
    with pytest.raises(DecodeError):
        live.receive(a, SyncStep1(b"\x01"))
    box.blocked, box.mark = True, 1
    live.receive(a, SyncStep1(b"\0"))
    assert a.state is State.LAGGING
    with pytest.raises(DecodeError):
        live.receive(a, SyncStep1(b"\x01"))
    assert not a.asks


async def test_a_client_is_asked_for_what_it_holds_when_the_room_passes_the_gap(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    _, holder, box = await node.join("d", answer=False)
    author, other = Author(1), Author(2)
    missing = author.type("first ")
    other.read(missing)
    live.receive(holder, SyncStep2(other.type("second")))
    before = len(box.messages)
    live.receive(a, SyncUpdate(missing))
    await box.until(lambda: len(box.messages) == before + 3, "the edit, the question, and what was kept")
    assert [type(message) for message in box.messages[before:]] == [SyncUpdate, SyncStep1, SyncUpdate]
    assert box.text() == "first second"


async def test_rows_that_do_not_follow_wait_for_those_between(start_node: StartNode) -> None:
    node = await start_node()
    live, _, box = await node.join("d")
    author = Author(1)
    rows = [LogRow(number, author.type(f"{number} "), 0.0, None) for number in range(1, 5)]
    live.receive_stored(rows[:1] + rows[2:])
    assert live.persistence.seq == 1 and box.text() == "1 "
    live.receive_stored(rows)
    assert live.persistence.seq == 4 and box.text() == "1 2 3 4 "
    assert live.persistence.tail_rows == 4
