"""Members that read slowly: held back, brought level by one catch-up, or ended."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import PeerTooSlow
from collab.hub import persistence
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, QueryAwareness, encode_awareness
from collab.protocol.session import State
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from tests.hub.conftest import Acknowledged, Box, Node, StartNode
from tests.support.author import Author, content


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


async def test_a_slow_member_is_told_who_has_left_meanwhile(start_node: StartNode) -> None:
    """Its client would show them for as long as nobody renews them, which is half a minute."""
    node = await start_node()
    live, a, box_a = await node.join("d")
    _, b, _ = await node.join("d")
    _, early, _ = await node.join("d")
    _, slow, box = await node.join("d")
    live.receive(early, AwarenessUpdate(encode_awareness([Entry(7, 1, b"{}")])))
    live.receive(b, AwarenessUpdate(encode_awareness([Entry(8, 1, b"{}")])))
    live.receive(a, AwarenessUpdate(encode_awareness([Entry(9, 1, b"{}")])))
    live.leave(early)
    await box.until(lambda: box.awareness() == {7: (1, "null"), 8: (1, "{}"), 9: (1, "{}")}, "all are shown")
    live.receive(a, AwarenessUpdate(encode_awareness([Entry(9, 2, b"{}")])))
    await box.until(lambda: box.awareness()[9] == (2, "{}"), "some turns later")
    box.blocked = True
    live.receive(a, SyncUpdate(Author(1).type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    live.leave(b)
    await box_a.until(lambda: box_a.awareness()[8] == (1, "null"), "the others are told")
    before = len(box.messages)
    box.blocked, box.held = False, 0
    await box.until(lambda: slow.state is State.LIVE, "it has drained")
    told = [message for message in box.messages[before:] if isinstance(message, AwarenessUpdate)]
    assert told == [AwarenessUpdate(encode_awareness([Entry(9, 2, b"{}"), Entry(8, 1, b"null")]))]


@pytest.mark.parametrize("turn", ["insert", "delete"])
async def test_one_that_begins_to_lag_in_the_middle_of_a_turn_misses_nothing_of_it(
    start_node: StartNode, turn: str
) -> None:
    """Its socket is full with another document, and what is not an update is the first to find that."""
    node = await start_node()
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    author = Author(1)
    live.receive(a, SyncUpdate(author.type("abc")))
    live.receive(a, AwarenessUpdate(encode_awareness([Entry(9, 1, b"{}")])))
    await box.until(lambda: box.text() == "abc" and isinstance(box.messages[-1], AwarenessUpdate), "all of it")
    box.blocked, box.held = True, box.mark
    if turn == "insert":
        live.receive(a, SyncUpdate(author.type("d")))
    else:
        del author.text[1:2]
        live.receive(a, SyncUpdate(author.updates[-1]))
    live.receive(slow, QueryAwareness())
    assert slow.state is State.LAGGING
    live.end_turn(node.hub.now())
    box.blocked, box.held = False, 0
    await box.until(lambda: slow.state is State.LIVE, "it has drained")
    assert box.text() == ("abcd" if turn == "insert" else "ac")


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


@pytest.mark.parametrize("how", ["bytes come", "its message is worked on"])
async def test_a_member_whose_line_is_busy_with_what_it_sends_is_not_ended(start_node: StartNode, how: str) -> None:
    node = await start_node(slow_seconds=0.2, min_rate=1_000.0)
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    box.blocked = True
    live.receive(a, SyncUpdate(Author(1).type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    began = node.hub.now()
    while node.hub.now() - began < 1:
        if how == "bytes come":
            box.received += 1_000
        else:
            box.held_up = True
        await asyncio.sleep(0.05)
    assert box.ended is None
    box.held_up = False
    await box.until(lambda: box.ended, "now nothing comes")
    assert isinstance(box.ended, PeerTooSlow)


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


async def with_a_late_echo(start_node: StartNode) -> tuple[Node, LiveRoom, tuple[Member, Box], Member]:
    """Give a room with one whose echo comes with its acknowledgement, and another."""
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    _, b, _ = await node.join("d")
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    return node, live, (a, box), b


async def test_one_that_lags_before_its_echo_has_come_is_brought_level_without_it(start_node: StartNode) -> None:
    node, live, (a, box), b = await with_a_late_echo(start_node)
    author, second = Author(1), Author(2)
    live.receive(a, SyncUpdate(author.type("a")))
    live.end_turn(node.hub.now())
    box.blocked = True
    live.receive(b, SyncUpdate(second.type("x" * (box.mark + 1))))
    live.end_turn(node.hub.now())
    assert a.state is State.LAGGING
    live.receive(b, SyncUpdate(second.type("y")))
    await live.persistence.durable()
    box.blocked, box.held = False, 0
    await box.until(lambda: len(box.verdicts()) == 2, "told after the catch-up")
    for update in box.updates():
        author.read(update)
    assert str(author.text) == content(live.room.document.encode_state_as_update())


async def test_one_whose_echo_makes_it_lag_misses_nothing_of_the_turn_that_follows(start_node: StartNode) -> None:
    node, live, (a, box), b = await with_a_late_echo(start_node)
    author, second = Author(1), Author(2)
    live.receive(a, SyncUpdate(author.type("a")))
    live.end_turn(node.hub.now())
    box.blocked, box.held = True, box.mark
    live.receive(b, SyncUpdate(second.type("y")))
    live.end_turn(node.hub.now())
    assert a.state is State.LAGGING, "the echo of its own edit was one frame too much"
    box.blocked, box.held = False, 0
    await box.until(lambda: a.state is State.LIVE, "it has drained")
    for update in box.updates():
        author.read(update)
    assert str(author.text) == content(live.room.document.encode_state_as_update())


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
    await live.persistence.durable()
    await box.until(lambda: a.owed is not None and len(a.owed) == 2_501, "all are committed")
    assert len(box.verdicts()) == 1
    box.blocked, box.held = False, 0
    await box.until(lambda: len(box.verdicts()) == 2_502, "told after the catch-up")
    assert all(box.verdicts())


@pytest.mark.slow
async def test_one_that_takes_a_little_now_and_then_is_slow_and_not_dead(start_node: StartNode) -> None:
    node = await start_node(slow_seconds=0.3)
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    box.blocked = True
    live.receive(a, SyncUpdate(Author(1).type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    began = node.hub.now()
    while node.hub.now() - began < 1.0:
        box.held -= 1
        await asyncio.sleep(0.02)
    assert box.ended is None and slow.state is State.LAGGING
    await box.until(lambda: box.ended, "now it takes nothing")
    assert isinstance(box.ended, PeerTooSlow)


async def test_a_quarter_of_the_mark_is_drained(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    box.blocked = True
    live.receive(a, SyncUpdate(Author(1).type("x" * 11_000)))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    for held, state in ((box.mark // 4 + 1, State.LAGGING), (box.mark // 4, State.LIVE)):
        box.held = held
        live.catch_up_lagging(node.hub.now())
        assert slow.state is state


async def test_those_who_began_to_lag_together_share_one_catch_up(start_node: StartNode) -> None:
    node = await start_node()
    live, a, box_a = await node.join("d")
    slow = [await node.join("d") for _ in range(3)]
    author = Author(1)
    for _, _, box in slow:
        box.blocked = True
    live.receive(a, SyncUpdate(author.type("x" * 11_000)))
    await box_a.until(lambda: all(member.state is State.LAGGING for _, member, _ in slow), "they are past their mark")
    live.receive(a, SyncUpdate(author.type("y")))
    await box_a.until(lambda: box_a.text().endswith("y"), "the others go on")
    encoded = live.room.document.encode_state_as_update
    seen: list[bytes] = []
    for _, _, box in slow:
        box.blocked, box.held = False, 0
    live.catch_up_lagging(node.hub.now())
    for _, member, box in slow:
        assert member.state is State.LIVE and box.text() == "x" * 11_000 + "y"
        seen.append(box.updates()[-1])
    assert len({id(update) for update in seen}) == 1 and len(seen[0]) < len(encoded())
    assert not live.catch_up


async def test_where_nothing_has_changed_there_is_nothing_to_catch_up(start_node: StartNode) -> None:
    node = await start_node()
    live, a, _ = await node.join("d")
    _, slow, box = await node.join("d")
    live.receive(a, SyncUpdate(Author(1).type("x")))
    await box.until(lambda: box.text() == "x", "all have it")
    box.blocked, box.mark = True, 10
    live.receive(a, AwarenessUpdate(encode_awareness([Entry(9, 1, b'"a state"')])))
    await box.until(lambda: slow.state is State.LAGGING, "it is past its mark")
    live.receive(slow, QueryAwareness())
    before = len(box.messages)
    box.blocked, box.held = False, 0
    await box.until(lambda: slow.state is State.LIVE, "it has drained")
    assert [type(message) for message in box.messages[before:]] == [AwarenessUpdate], "all states, and once"


async def test_one_that_sends_what_says_nothing_while_the_store_is_away_is_ended(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "_MAX_WAITING", 50)
    node = await start_node()
    live, writer, box = await node.join("d", kind=Acknowledged)
    _, empty, other = await node.join("d", kind=Acknowledged)
    await box.until(lambda: box.verdicts() and other.verdicts(), "the verdicts on the empty SyncStep2s")
    author = Author(1)
    for _ in range(2):
        for _ in range(40):
            live.receive(empty, SyncUpdate(EMPTY_UPDATE))
        live.receive(writer, SyncUpdate(author.type("in between")))
        await node.write(live)
    assert len(other.verdicts()) == 81 and other.ended is None, "while the store answers they do not add up"
    node.store.down = True
    live.receive(writer, SyncUpdate(author.type("kept")))
    await box.until(lambda: node.journal.failing, "the store is missed")
    for _ in range(60):
        if other.ended is None:
            live.receive(empty, SyncUpdate(EMPTY_UPDATE))
            await asyncio.sleep(0)
            live.end_turn(node.hub.now())
    assert isinstance(other.ended, PeerTooSlow) and box.ended is None
    assert live.persistence._waiting == 0
    assert sum(len(acks) for _, acks, _ in live.persistence._unacknowledged) == 1, "those of the writer alone"
    node.store.down = False
    await box.until(lambda: len(box.verdicts()) == 4, "saved, and told so")


async def test_one_that_never_reads_what_became_of_its_updates_is_ended(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "_MAX_OWED", 50)
    node = await start_node()
    live, a, box = await node.join("d", kind=Acknowledged)
    await box.until(box.verdicts, "the verdict on the empty SyncStep2")
    author = Author(1)
    box.blocked = True
    live.receive(a, SyncUpdate(author.type("x" * (box.mark + 1))))
    await box.until(lambda: a.state is State.LAGGING, "its echo was too much")
    for _ in range(49):
        live.receive(a, SyncUpdate(author.type("y")))
    await node.write(live)
    await box.until(lambda: a.owed is not None and len(a.owed) == 50, "as many as may wait")
    assert box.ended is None
    live.receive(a, SyncUpdate(author.type("z")))
    await box.until(lambda: box.ended, "one too many")
    assert isinstance(box.ended, PeerTooSlow)
