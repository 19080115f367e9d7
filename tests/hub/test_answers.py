"""Answers to a SyncStep1 that take long: made in slices, one at a time, shared by those who ask the same."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from collab.engine.answers import WIDE
from collab.errors import DecodeError, LimitExceeded
from collab.hub.answers import Answered, Answers
from collab.hub.frames import Asked
from collab.hub.room import LiveRoom
from collab.protocol.lib0 import encode_var_uint
from collab.protocol.messages import SyncStatus
from collab.protocol.session import Access, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.update.parts import Piece
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.engine.test_answers import edits
from tests.hub.conftest import Acknowledged, Box, Node, StartNode
from tests.support.author import Author

CLIENTS = range(10_000, 10_000 + 4 * WIDE)


async def wide(node: Node) -> LiveRoom:
    """Open a document of many client IDs."""
    live, member, box = await node.join("d")
    live.receive(member, SyncUpdate(edits(CLIENTS)))
    live.end_turn(node.hub.now())
    await live.persistence.durable()
    return live


def clocks(box: Box) -> dict[int, int]:
    reader = Author(9)
    for update in box.updates():
        reader.read(update)
    return decode_state_vector(reader.doc.get_state())


def steps2(box: Box) -> list[bytes]:
    return [message.update for message in box.messages if isinstance(message, SyncStep2)]


async def test_who_asks_for_much_gets_all_of_it(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    question = SyncStep1(encode_state_vector({**dict.fromkeys(CLIENTS[::3], 2), 5: 1}))
    assert live.is_long(question, member)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await live.receive_in_slices(member, question)
    counting.cancel()
    assert turns > 5, "the loop went on"
    (update,) = steps2(box)
    assert clocks(box) == {client: 2 for client in CLIENTS if (client - CLIENTS[0]) % 3}
    assert live.frames._nbytes > len(update), "it is kept for those who ask the same, and counted with the question"
    kept = SyncStep1(encode_state_vector(dict.fromkeys(CLIENTS[::3], 2)))
    _, other, _ = await node.join("d")
    assert not live.is_long(SyncStep1(next(iter(live.frames._frames)).state_vector), other)
    assert len(next(iter(live.frames._frames)).state_vector) == len(kept.state_vector)


async def test_what_is_edited_meanwhile_reaches_the_one_who_asks(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    _, writer, _ = await node.join("d")
    asking = asyncio.ensure_future(live.receive_in_slices(member, SyncStep1(b"\0")))
    clock = 2
    while not asking.done():
        live.receive(writer, SyncUpdate(edits([CLIENTS[7]], clock)))
        live.end_turn(node.hub.now())
        clock += 2
        await asyncio.sleep(0)
    await asking
    assert clock > 10
    assert clocks(box) == {**dict.fromkeys(CLIENTS, 2), CLIENTS[7]: clock}
    assert not live.frames._nbytes, "of no one state of the document"


async def test_many_who_open_it_at_once_share_one_answer(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    live = await wide(node)
    made = 0
    deletes = live.room.document.deletes

    class Counting:
        def __init__(self) -> None:
            self.real = live.room.document

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def deletes(self) -> Generator[None, None, list[Piece]]:
            nonlocal made
            made += 1
            return deletes()

    monkeypatch.setattr(live.room, "document", Counting())
    joined = [await node.join("d") for _ in range(30)]
    await asyncio.gather(*(live.receive_in_slices(member, SyncStep1(b"\0")) for _, member, _ in joined))
    assert made <= 2
    assert len({id(steps2(box)[0]) for _, _, box in joined}) <= 30 and all(
        len(steps2(box)) == 1 for _, _, box in joined
    )


async def test_a_malformed_question_is_refused_as_ever(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    long = encode_var_uint(3_000) + b"\x05\x01" * 3_000
    assert live.is_long(SyncStep1(long + b"\0"), member)
    with pytest.raises(DecodeError):
        await live.receive_in_slices(member, SyncStep1(long + b"\0"))
    live.receive(member, SyncStep1(live.room.document.encode_state_vector()))
    assert len(steps2(box)) == 1 and live.ended is None


async def test_one_that_leaves_meanwhile_is_sent_nothing(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    asking = asyncio.ensure_future(live.receive_in_slices(member, SyncStep1(b"\0")))
    await asyncio.sleep(0)
    live.leave(member)
    await asking
    assert not steps2(box)


async def test_one_that_lags_meanwhile_gets_it_with_its_catch_up(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d")
    asking = asyncio.ensure_future(
        live.receive_in_slices(member, SyncStep1(encode_state_vector({5: 1, CLIENTS[0]: 2})))
    )
    await asyncio.sleep(0)
    box.held = 1 << 20
    live.hold_back(member)
    await asking
    assert member.state is State.LAGGING and not steps2(box)
    assert member.since == encode_state_vector({CLIENTS[0]: 2}) and member.asks
    box.held = 0
    await box.until(lambda: steps2(box), "the catch-up")
    assert clocks(box) == dict.fromkeys(CLIENTS[1:], 2)


async def test_a_client_whose_protocol_acknowledges_is_asked_first(start_node: StartNode) -> None:
    node = await start_node()
    live = await wide(node)
    _, member, box = await node.join("d", kind=Acknowledged)
    before = len(box.messages)
    await live.receive_in_slices(member, SyncStep1(b"\0"))
    sent = [type(message) for message in box.messages[before:]]
    assert [kind for kind in sent if kind is not SyncStatus] == [SyncStep1, SyncStep2]


async def test_a_reader_cannot_say_more_than_a_copy_can(start_node: StartNode) -> None:
    node = await start_node()
    live, member, box = await node.join("d")
    vector = encode_var_uint(60_000) + b"".join(
        encode_var_uint(client) + b"\1" for client in range(2**21, 2**21 + 60_000)
    )
    await live.receive_in_slices(member, SyncStep1(vector))
    assert len(steps2(box)) == 1, "one that may write can have been offline for long"
    member.access = Access.READ
    with pytest.raises(LimitExceeded):
        await live.receive_in_slices(member, SyncStep1(vector))
    await live.receive_in_slices(member, SyncStep1(encode_state_vector(dict.fromkeys(range(2**21, 2**21 + 5_000), 1))))
    assert len(steps2(box)) == 2


# Sharing


def question(name: bytes) -> Asked:
    return Asked(None, name, True)  # type: ignore[arg-type]


async def test_only_what_was_begun_later_answers_a_question() -> None:
    answers = Answers()
    made: list[bytes] = []
    going = asyncio.Event()

    async def make(name: bytes) -> Answered:
        made.append(name)
        number = len(made)
        await going.wait()
        return Answered(name, b"%b %d" % (name, number))

    async def ask(name: bytes) -> bytes:
        return (await answers.get(question(name), lambda: make(name))).frame

    first = asyncio.ensure_future(ask(b"a"))
    await asyncio.sleep(0)
    later = [asyncio.ensure_future(ask(b"a")) for _ in range(3)]
    other = asyncio.ensure_future(ask(b"b"))
    await asyncio.sleep(0)
    assert made == [b"a"], "one at a time"
    going.set()
    assert await asyncio.gather(first, *later, other) == [b"a 1", b"a 2", b"a 2", b"a 2", b"b 3"]
    assert answers._made is None, "nothing is kept when nobody waits"
    assert await ask(b"a") == b"a 4"


async def test_one_that_fails_is_no_answer_for_others() -> None:
    answers = Answers()

    async def fail() -> Answered:
        await asyncio.sleep(0)
        raise DecodeError("malformed")

    async def make() -> Answered:
        return Answered(b"", b"frame")

    failing = asyncio.ensure_future(answers.get(question(b"a"), fail))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(answers.get(question(b"a"), make))
    with pytest.raises(DecodeError):
        await failing
    assert (await waiting).frame == b"frame"
