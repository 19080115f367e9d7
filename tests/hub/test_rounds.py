"""Rounds in which idle members are asked to announce themselves: when, how many at a time, and at what rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from collab.errors import DocumentBusy
from collab.hub import rounds as rounds_module
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.hub.rounds import ASK_SECONDS
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.sync import EMPTY_UPDATE, SyncStep2
from tests.hub.conftest import Box, Node, StartNode
from tests.support.waiting import happens

ANN = 7


def says(client: int, clock: int, state: str = "{}") -> AwarenessUpdate:
    return AwarenessUpdate(encode_awareness([Entry(client, clock, state.encode())]))


class Pauses:
    """Stands for asyncio in the module: pauses are noted, and last until the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Event()
        self.over.set()
        self.then: Callable[[int], object] = lambda count: None

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.then(len(self.asked))
        await asyncio.sleep(0)
        if seconds:
            await self.over.wait()


@pytest.fixture
async def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    made = Pauses()
    monkeypatch.setattr(rounds_module, "asyncio", SimpleNamespace(sleep=made.sleep))
    return made


async def shown(node: Node, client: int, clock: int = 1) -> tuple[LiveRoom, Member, Box]:
    """Join and show a state, as clients do: before anything is answered."""
    live, member, box = await node.join("d", answer=False)
    live.receive(member, says(client, clock))
    live.receive(member, SyncStep2(EMPTY_UPDATE))
    live.end_turn(node.hub.now())
    return live, member, box


def asked(box: Box, client: int) -> int:
    return sum(isinstance(message, AwarenessUpdate) and message == says(client, 1, "null") for message in box.messages)


def settled(live: LiveRoom) -> bool:
    return not live._rounds._running


async def test_idle_members_are_asked_once_when_somebody_comes_back(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)
    others = [await shown(node, 10 + at) for at in range(5)]
    before = [asked(box, 10 + at) for at, (_, _, box) in enumerate(others)]
    live.leave(ann)
    live.end_turn(node.hub.now())
    _, _, box = await shown(node, ANN)
    await happens(lambda: settled(live), "the round is over")
    assert [asked(box, 10 + at) for at, (_, _, box) in enumerate(others)] == [count + 1 for count in before]
    assert asked(box, 10) == 0, "nobody else hears of it"
    assert pauses.asked == [0.0]


async def test_the_next_round_waits_and_serves_all_who_come_until_then(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)
    _, _, idle = await shown(node, 10)
    live.leave(ann)
    _, ann, _ = await shown(node, ANN)
    await happens(lambda: settled(live), "the first round")
    first = asked(idle, 10)
    pauses.over.clear()
    for _ in range(3):
        live.leave(ann)
        _, ann, _ = await shown(node, ANN)
    await happens(lambda: len(pauses.asked) > 1, "the second one is planned")
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked(idle, 10) == first
    assert len(pauses.asked) == 2 and ASK_SECONDS - 5 < pauses.asked[1] <= ASK_SECONDS
    pauses.over.set()
    await happens(lambda: settled(live), "the second round")
    assert asked(idle, 10) == first + 1


async def test_a_round_in_which_nobody_is_asked_delays_no_other(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)
    for _ in range(3):
        live.leave(ann)
        live.end_turn(node.hub.now())
        _, ann, _ = await shown(node, ANN)
        await happens(lambda: settled(live), "the round is over")
    assert pauses.asked == [0.0, 0.0, 0.0]


async def test_many_are_asked_a_hundred_at_a_time(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)
    others = [await shown(node, 1_000 + at) for at in range(250)]
    before = [asked(box, 1_000 + at) for at, (_, _, box) in enumerate(others)]
    live.leave(ann)
    live.end_turn(node.hub.now())

    def meanwhile(count: int) -> None:
        """See that a hundred were asked, and let one leave who was not."""
        if count == 2:
            assert sum(asked(box, 1_000 + at) - before[at] for at, (_, _, box) in enumerate(others)) == 100
            live.leave(others[-1][1])

    pauses.then = meanwhile
    await shown(node, ANN)
    await happens(lambda: settled(live), "the round is over")
    assert pauses.asked == [0.0, 0.0, 0.0]
    got = [asked(box, 1_000 + at) - before[at] for at, (_, _, box) in enumerate(others)]
    assert got == [1] * 249 + [0]


async def test_a_round_ends_with_its_room(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)
    _, _, idle = await shown(node, 10)
    before = asked(idle, 10)
    live.leave(ann)
    await shown(node, ANN)
    live.end_all(DocumentBusy("the test"))
    live.ended = DocumentBusy("the test")
    await happens(lambda: settled(live), "the round is over")
    assert asked(idle, 10) == before


async def test_a_round_that_cannot_be_begun_leaves_nothing_behind(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    live, ann, _ = await shown(node, ANN)

    def fails(*_: object) -> None:
        raise MemoryError("the test")

    with monkeypatch.context() as patch:
        patch.setattr(node.hub.tasks, "spawn", fails)
        with pytest.raises(MemoryError):
            live._rounds.ask_soon(live)
    assert settled(live)


async def test_a_silent_member_gives_its_presence_to_who_claims_it(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, old, old_box = await shown(node, ANN)
    _, _, other = await shown(node, 10)
    _, new, new_box = await node.join("d", answer=False)
    old.address = new.address = "192.0.2.7"
    live.receive(new, says(ANN, 1))
    assert old_box.probed == 1
    live.end_turn(node.hub.now())
    gone = len(other.messages)
    live.note_silent(old)
    assert asked(new_box, ANN) == 1
    live.receive(new, says(ANN, 2, '"back"'))
    live.end_turn(node.hub.now())
    live.leave(old)
    await happens(lambda: settled(live), "the round is over")
    assert other.awareness()[ANN] == (2, '"back"')
    assert says(ANN, 1, "null") not in other.messages[gone:]


async def test_who_has_claimed_an_id_is_asked_when_its_old_socket_ends(start_node: StartNode, pauses: Pauses) -> None:
    node = await start_node()
    live, old, _ = await shown(node, ANN)
    _, new, new_box = await node.join("d", answer=False)
    live.receive(new, says(ANN, 1))
    live.leave(old)
    assert asked(new_box, ANN) == 1
