"""Members whose line cannot take at once what they lack: groups of rows, pieces that stay pending, or one message."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from collab.engine import document as document_module
from collab.errors import InternalError, PeerTooSlow
from collab.hub import catch_up as catch_up_module
from collab.hub import delivery as delivery_module
from collab.hub import line as line_module
from collab.hub import room as room_module
from collab.hub.line import Line
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.lib0 import encode_var_uint
from collab.protocol.messages import SyncStatus
from collab.protocol.session import State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.update import pieces as pieces_module
from tests.hub.conftest import Acknowledged, Box, StartNode
from tests.support.author import Author
from tests.support.build import reader_of

# Bytes a second of a line that is slow for the sizes of these tests: a message of 3 KB, pieces of 2 KB.
SLOW = 200_000.0


@pytest.fixture(autouse=True)
def all_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take some KB for large: what takes a minute on a real line takes a tenth of a second."""
    for module in (delivery_module, room_module, catch_up_module):
        monkeypatch.setattr(module, "LARGE", 2_000)
    monkeypatch.setattr(document_module, "LARGE_DELTA", 2_000)
    monkeypatch.setattr(line_module, "SMALLEST_PIECE", 1_024)
    monkeypatch.setattr(line_module, "WHOLE_SECONDS", 0.015)
    monkeypatch.setattr(line_module, "PIECE_SECONDS", 0.0104)
    monkeypatch.setattr(delivery_module, "_NEVER_PONGS", 0.05)
    monkeypatch.setattr(pieces_module, "_RUN", 500)
    monkeypatch.setattr(pieces_module, "_LONG", 100)


def slow(box: Box, rate: float = SLOW) -> Box:
    """Make a client's line slow, and known to be."""
    box.rate = rate
    box.line.pongs = True
    box.line.measured(int(rate), 1.0, asyncio.get_running_loop().time(), sure=True)
    return box


def words(size: int, seed: int = 1) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice("abcdefghij ") for _ in range(size))


class Fixture:
    """A document that a member fills, turn by turn, and what its rows are."""

    def __init__(self, node: object, live: LiveRoom, member: Member) -> None:
        self.node, self.live, self.member = node, live, member
        self.author = Author(1)

    async def type(self, *texts: str) -> None:
        for text in texts:
            self.live.receive(self.member, SyncUpdate(self.author.type(text)))
            await self.node.write(self.live)  # type: ignore[attr-defined]

    @property
    def text(self) -> str:
        return str(self.author.text)


async def fill(start_node: StartNode, *texts: str, **options: object) -> Fixture:
    node = await start_node(**options)
    live, member, _ = await node.join("d")
    document = Fixture(node, live, member)
    await document.type(*texts)
    return document


async def join(
    document: Fixture, change: Callable[[Box], object] = slow, kind: type[Member] = Member
) -> tuple[Member, Box]:
    _, member, box = await document.node.join("d", kind=kind)  # type: ignore[attr-defined]
    change(box)
    return member, box


def sizes(box: Box) -> list[int]:
    return [len(update) for update in box.updates()]


def synced(box: Box) -> bool:
    return any(isinstance(message, SyncStep2) for message in box.messages)


async def test_a_fast_line_gets_one_message_after_it_was_measured(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(1_000, seed) for seed in range(9)])
    member, box = await join(document, lambda box: None)
    document.live.receive(member, SyncStep1(b"\0"))
    assert member.state is State.RECEIVING and box.updates() == []
    await box.until(lambda: member.state is State.LIVE, "it has drained")
    assert [type(message) for message in box.messages] == [SyncStep1, SyncStep2]
    assert box.text() == document.text and box.filled > 0
    filled = box.filled
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.messages) == 3, "again")
    assert box.filled == filled, "what was measured is remembered"


async def test_a_slow_line_gets_groups_of_rows_each_a_state_that_existed(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document)
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    *groups, last = box.messages[1:]
    assert {type(group) for group in groups} == {SyncUpdate} and isinstance(last, SyncStep2)
    assert len(groups) > 5 and max(sizes(box)) < 3_100
    client = Author(0)
    for update in box.updates():
        assert len(client.read(update)) % 500 == 0 and document.text.startswith(str(client.text))
    assert str(client.text) == document.text


async def test_a_turn_that_is_made_of_several_rows_stays_together(start_node: StartNode) -> None:
    document = await fill(start_node, words(100))
    live = document.live
    _, other, _ = await document.node.join("d")  # type: ignore[attr-defined]
    document.member.author, other.author = "ann", "bob"
    second = Author(2)
    for seed in range(20):
        live.receive(document.member, SyncUpdate(document.author.type(words(300, seed))))
        live.receive(other, SyncUpdate(second.type(words(300, seed))))
        await document.node.write(live)  # type: ignore[attr-defined]
        await asyncio.sleep(0.002)
    assert (await document.node.stored("d")).document.head_seq == 41  # type: ignore[attr-defined]
    member, box = await join(document)
    live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    client = Author(0)
    seen = set()
    for update in box.updates():
        seen.add(len(client.read(update)) % 600)
    assert seen == {100} and len(box.updates()) > 4


async def test_what_comes_meanwhile_is_in_the_last_message_and_awareness_and_acknowledgements_pass(
    start_node: StartNode,
) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(20)])
    live = document.live
    member, box = await join(document, lambda box: slow(box, 100_000), kind=Acknowledged)
    live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.updates()) == 1, "the first group")
    live.receive(document.member, AwarenessUpdate(encode_awareness([Entry(9, 1, b"{}")])))
    own = Author(7)
    live.receive(member, SyncUpdate(own.type("own")))
    await document.type("live")
    await box.until(lambda: box.awareness() and box.verdicts(), "both")
    assert member.state is State.RECEIVING and not synced(box)
    assert "live" not in box.text()
    # A provider takes itself for synced when all is acknowledged: one acknowledgement is kept to the end.
    assert box.verdicts() == [True]
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert sorted(box.text()) == sorted(document.text + "own") and "live" in box.text()
    assert box.verdicts() == [True, True]
    kinds = [type(message) for message in box.messages]
    assert kinds.index(SyncStep2) < len(kinds) - 1 - kinds[::-1].index(SyncStatus)
    await document.type(" again")
    assert "again" in box.text(), "live again"
    assert member.known is None and member.delivery is None


async def test_a_line_that_is_found_to_be_fast_gets_the_rest_at_once(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document)
    box.rate = 0.0
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert len(box.updates()) == 2 and box.text() == document.text


async def test_one_that_comes_back_gets_what_it_lacks_from_the_snapshot_or_the_log(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    has = reader_of(document.live.room.document.encode_state_as_update()).doc.get_state()
    await document.node.hub._compact(document.live)  # type: ignore[attr-defined]
    assert document.live.persistence.snapshot_seq == 40
    await document.type(*[words(500, seed) for seed in range(50, 70)])
    for vector in (has, b"\x01\x01\x64"):
        member, box = await join(document)
        document.live.receive(member, SyncStep1(vector))
        await box.until(lambda member=member: member.state is State.LIVE, "it has everything")
        assert len(box.updates()) > 3 and max(sizes(box)) < 3_100
        client = reader_of(document.live.room.document.encode_state_as_update()) if vector != has else None
        assert client is None or str(client.text) == document.text
    assert sum(sizes(box)) < len(document.text) + 3_000


async def without_log(document: Fixture) -> None:
    """Leave a newcomer nothing but the snapshot: the log holds only what is behind the one before."""
    node = document.node
    await node.hub._compact(document.live)  # type: ignore[attr-defined]
    await document.type("!")
    await node.hub._compact(document.live)  # type: ignore[attr-defined]
    await node.store.prune(before=node.hub.clock() + 60, limit=10_000)  # type: ignore[attr-defined]
    (row,) = await node.store.rows_after(document.live.persistence.document_id, 0, 9)  # type: ignore[attr-defined]
    assert row.seq == document.live.persistence.seq


async def test_a_newcomer_to_a_snapshot_gets_pieces_that_stay_pending(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    await without_log(document)
    member, box = await join(document, lambda box: slow(box, 100_000))
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.updates()) > 2, "pieces")
    assert box.text() == "" and not synced(box)
    await document.type("live")
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    *pieces, last, step2 = box.updates()
    assert len(pieces) > 5
    client = Author(0)
    for piece in pieces:
        assert client.read(piece) == ""
    assert client.read(last) == document.text[:-4], "the state that was cut"
    assert client.read(step2) == document.text
    assert [type(message) for message in box.messages].count(SyncStep2) == 1


async def test_one_that_has_another_source_gets_one_message(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    await without_log(document)
    whole = document.live.room.document.encode_state_as_update()
    member, box = await join(document, lambda box: slow(box, 100_000))
    document.live.receive(member, SyncStep1(b"\0"))
    document.live.receive(member, SyncUpdate(whole))  # its own store was slower than its socket
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert box.updates() == [whole]
    member, box = await join(document, lambda box: slow(box, 100_000))
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.updates()) == 2, "pieces")
    document.live.receive(member, SyncUpdate(whole))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert box.updates()[-1] == whole and len(box.updates()) in (3, 4)


async def test_one_that_has_not_answered_gets_no_pieces(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "_ANSWER_SECONDS", 0.2)
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    await without_log(document)
    for answers in (False, True):
        _, member, box = await document.node.join("d", answer=False)  # type: ignore[attr-defined]
        slow(box, 100_000)
        document.live.receive(member, SyncStep1(b"\0"))
        await asyncio.sleep(0.05)
        assert box.updates() == []
        if answers:
            document.live.receive(member, SyncStep2(b"\0\0"))
        await box.until(lambda member=member: member.state is State.LIVE, "it has everything")
        assert (len(box.updates()) > 5) is answers


async def test_a_large_live_update_is_sent_in_pieces_to_slow_members_and_whole_to_others(start_node: StartNode) -> None:
    document = await fill(start_node, "some")
    fast, fast_box = await join(document, lambda box: None)
    member, box = await join(document)
    for one in (fast, member):
        document.live.receive(one, SyncStep1(b"\0"))
    before = [len(one.updates()) for one in (fast_box, box)]
    await document.type(words(20_000))
    assert member.state is State.RECEIVING
    await box.until(lambda: member.state is State.LIVE and fast.state is State.LIVE, "both have it")
    assert len(fast_box.updates()) == before[0] + 1 and fast_box.text() == document.text
    assert len(box.updates()) > before[1] + 5 and max(sizes(box)) < 3_100
    client = Author(0)
    assert {client.read(update) for update in box.updates()} == {"some", document.text}


async def test_a_catch_up_that_is_large_is_sent_in_groups(start_node: StartNode) -> None:
    document = await fill(start_node, "some")
    member, box = await join(document)
    document.live.receive(member, SyncStep1(b"\0"))
    box.mark, box.blocked = 100, True
    await document.type(words(500))
    assert member.state is State.LAGGING
    await document.type(*[words(500, seed) for seed in range(20)])
    before = len(box.updates())
    box.mark, box.blocked, box.held = 10_000, False, 0
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert len(box.updates()) > before + 4 and box.text() == document.text and synced(box) is not False


async def test_asking_again_is_answered_by_the_last_message(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document)
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.updates()) == 2, "groups")
    document.live.receive(member, SyncStep1(reader_of(*box.updates()).doc.get_state()))
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert [type(message) for message in box.messages].count(SyncStep2) == 1 and box.text() == document.text


async def test_one_that_has_less_than_it_said_gets_everything_in_one_message(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document)
    document.live.receive(member, SyncStep1(b"\x01\x01\x64"))
    await box.until(lambda: len(box.updates()) == 1, "a group")
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert box.updates()[-1] == document.live.room.document.encode_state_as_update()


async def test_where_the_store_cannot_be_read_everything_is_sent_in_one_message(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    document.node.store.down = True  # type: ignore[attr-defined]
    member, box = await join(document)
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert len(box.updates()) == 1 and box.text() == document.text


async def test_members_that_ask_the_same_share_what_was_made(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(20)])
    reads = 0
    store = document.node.store  # type: ignore[attr-defined]

    async def count() -> None:
        nonlocal reads
        reads += 1

    store.between = count
    boxes = [await join(document) for _ in range(5)]
    (first, alone_box), *others = boxes
    document.live.receive(first, SyncStep1(b"\0"))
    await alone_box.until(lambda: first.state is State.LIVE, "one alone")
    alone, reads = reads, 0
    for member, _ in others:  # at the same time: who begins late finds less to share
        document.live.receive(member, SyncStep1(b"\0"))
    for member, box in boxes:
        await box.until(lambda member=member: member.state is State.LIVE, "it has everything")
        assert box.text() == document.text
    assert reads < 2 * alone
    store.between = None
    await box.until(lambda: not document.live.shared._kept, "nothing is kept when nobody asks")


async def test_one_socket_has_one_piece_on_its_line_at_a_time(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(20)])
    first, box = await join(document)
    _, second, _ = await document.node.join("d")  # type: ignore[attr-defined]
    second.outbox = box
    most, under_way = 0, 0
    measure, write = box.measure, box.write

    def writes(data: bytes) -> int:
        nonlocal most, under_way
        if len(data) > 500:
            under_way += 1
            most = max(most, under_way)
        return write(data)

    def measures(done: Callable[[], object]) -> None:
        def arrived() -> None:
            nonlocal under_way
            under_way = 0
            done()

        measure(arrived)

    box.write, box.measure = writes, measures  # type: ignore[method-assign]
    for member in (first, second):
        document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: first.state is second.state is State.LIVE, "both have everything")
    assert most == 1


async def test_one_that_takes_nothing_is_ended_and_one_that_leaves_costs_nothing_more(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)], slow_seconds=0.1)
    _, box = await join(document)
    box.rate, box.blocked = 1.0, True
    member = list(document.live.members)[-1]
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: box.ended, "its time is over")
    assert isinstance(box.ended, PeerTooSlow) and member.state is State.CLOSED
    member, box = await join(document)
    box.rate = 1.0
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: len(box.updates()) == 1, "a group is under way")
    document.live.leave(member)
    await box.until(lambda: not document.live._receiving, "it has ended")
    assert len(box.updates()) == 1


@pytest.mark.parametrize("what", ["making a piece", "writing it"])
async def test_a_defect_in_sending_pieces_ends_the_member(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document)
    other, others = await join(document, lambda box: None)

    async def fails(*arguments: object) -> None:
        raise RuntimeError("a defect")

    def closed(data: bytes) -> int:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        if what == "making a piece":
            patch.setattr(delivery_module.Delivery, "_join", fails)
        document.live.receive(member, SyncStep1(b"\0"))
        if what == "writing it":
            patch.setattr(box, "write", closed)
        await box.until(lambda: box.ended, "it comes back, and is not left without anything")
    assert isinstance(box.ended, InternalError) and member.state is State.CLOSED
    await others.until(lambda: not document.live._receiving, "its delivery has ended")
    document.live.receive(other, SyncStep1(b"\0"))
    await others.until(lambda: other.state is State.LIVE and synced(others), "the other has everything")
    assert others.text() == document.text


async def test_one_that_answers_no_ping_gets_one_message(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    _, member, box = await document.node.join("d")  # type: ignore[attr-defined]
    box.rate = 1.0
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert len(box.updates()) == 1 and not box.line.pongs


def test_what_is_known_of_a_line() -> None:
    line, smallest = Line(), line_module.SMALLEST_PIECE
    assert not line.known(0.0) and line.takes_whole(smallest, 0.0) and not line.takes_whole(10_000, 0.0)
    assert line.piece() == smallest
    line.measured(1_000_000, 0.5, 10.0, sure=False)
    assert line.known(69.0) and not line.known(71.0)
    assert line.takes_whole(30_000, 10.0) and not line.takes_whole(30_001, 10.0)
    assert line.piece() == 8_192, "half of what it seems to take, and a power of two"
    line.measured(1_000_000, 0.5, 10.0, sure=True)
    assert line.piece() == 16_384


def test_a_node_that_sends_very_much_takes_lines_for_fast() -> None:
    traffic = line_module.Traffic()
    line = Line(traffic)
    line.measured(10_000, 1.0, 100.0, sure=False)
    assert not traffic.is_busy(100.0) and not line.takes_whole(1_000_000, 100.0)
    traffic.sent += 13_000_000
    assert traffic.is_busy(100.1) and line.takes_whole(1_000_000, 100.1)
    line.measured(10_000, 1.0, 100.1, sure=True)
    assert not line.takes_whole(1_000_000, 100.2), "that was no probe"
    traffic.sent += 5_000_000
    assert traffic.is_busy(100.6) and traffic.is_busy(101.0)
    traffic.sent += 5_000_000
    assert not traffic.is_busy(101.2), "10 MB/s are not very much"
    traffic.sent += 1_000_000_000
    assert not traffic.is_busy(200.0), "nobody knows when that was"


async def test_in_a_storm_lines_are_not_measured(start_node: StartNode) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    member, box = await join(document, lambda box: setattr(box, "rate", 1_000.0))
    box.line.traffic.is_busy(document.node.hub.now())  # type: ignore[attr-defined]
    box.line.traffic.sent += 1_000_000_000
    document.live.receive(member, SyncStep1(b"\0"))
    await box.until(lambda: member.state is State.LIVE, "it has everything")
    assert len(box.updates()) == 1 and box.filled == 0


async def test_what_is_cut_is_bounded_for_the_node_and_further_members_get_one_message(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await fill(start_node, *[words(500, seed) for seed in range(40)])
    await without_log(document)
    budget = document.node.hub.pieces_budget  # type: ignore[attr-defined]
    budget.limit = 3 * len(document.live.room.document.encode_state_as_update())
    boxes = []
    for clock in (0, 0, 300, 600, 900):  # two ask the same
        member, box = await join(document, lambda box: slow(box, 100_000))
        document.live.receive(member, SyncStep1(bytes([1, 1]) + encode_var_uint(clock) if clock else b"\0"))
        boxes.append((member, box, clock))
    await boxes[0][1].until(lambda: len(boxes[0][1].updates()) > 2, "pieces")
    most = budget.nbytes
    for member, box, _ in boxes:
        await box.until(lambda member=member: member.state is State.LIVE, "it has everything")
        most = max(most, budget.nbytes)
    assert 0 < most <= budget.limit
    assert [len(box.updates()) > 2 for _, box, _ in boxes] == [True, True, False, False, False]
    for _, box, clock in boxes:
        client = Author(0)
        if clock:
            client.read(document.author.doc.get_update())
        for update in box.updates():
            client.read(update)
        assert str(client.text) == document.text
    await boxes[0][1].until(lambda: budget.nbytes == 0, "nothing is held any more")
