"""Webhooks of a node on a store in memory, with receivers that are real servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any, cast

import pytest

from collab.errors import StoreUnavailable
from collab.hub.member import Member
from collab.outbound import Outbound
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    DELETED,
    GIVE_UP_SECONDS,
    JOINED,
    KINDS,
    LEFT,
    RESTORED,
    Attempt,
    Happened,
)
from collab.testing.storage import AT, put
from collab.webhooks import service as module
from collab.webhooks.messages import Content
from collab.webhooks.receivers import Receiver as Wanted
from collab.webhooks.receivers import read_keys
from collab.webhooks.service import WebhookOptions, Webhooks
from tests.support.waiting import eventually, happens
from tests.support.webhooks import SECRET, Receiver
from tests.webhooks.test_people import member


class Clock:
    """The clock of the storage: real, and set forward by a test."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Node:
    """A node on a storage that others may share: what its hub would say is said by the test."""

    def __init__(self, storage: MemoryStorage, clock: Clock, name: str, **options: Any) -> None:
        self.down = False
        self.lost_settles = 0

        async def travel() -> None:
            await asyncio.sleep(0)
            if self.down:
                raise StoreUnavailable("away")

        self.store = MemoryStore(storage, clock=clock, travel=travel)
        self.name = name
        self.options = WebhookOptions(
            **{"interval": 0.1, "disable_after": 3_600.0, "lease": 0.6, "first_pause": 0.05, **options}
        )
        self.clock = clock
        self.webhooks: Webhooks | None = None

    async def start(self, *receivers: Receiver, wanted: Sequence[dict[str, Any]] = ({},)) -> Node:
        told = []
        for number, receiver in enumerate(receivers):
            outbound = Outbound(receiver.url, option="it", danger="", timeout=20.0, max_bytes=65_536)
            given = wanted[number % len(wanted)]
            told.append((Wanted(f"r{number}", receiver.url, read_keys([SECRET], "it"), **given), outbound))

        async def read(*_: Any) -> Content:
            raise AssertionError("nobody wants content")

        self.webhooks = Webhooks(self.store, told, read, self.name, self.options, time.time, Random(1))
        first = self.store.storage.webhooks._lease is None
        await self.webhooks.start()
        # What is there before anybody delivers for the first time is told to nobody.
        await happens(lambda: self.counts.delivering or not first, "it delivers")
        return self

    @property
    def counts(self) -> Any:
        assert self.webhooks is not None
        return self.webhooks.counts

    async def edit(self, name: str, document_id: int | None = None) -> int:
        """Commit a row, as a room does."""
        appended = await put(self.store, name, b"x", document_id=document_id)
        assert self.webhooks is not None
        self.webhooks.committed(appended.document_id)
        return appended.document_id

    async def die(self) -> None:
        """End as a process does that is killed."""
        assert self.webhooks is not None
        await self.webhooks.tasks.close()
        self.webhooks._closed = True
        for _, outbound in self.webhooks._receivers:
            await outbound.close()


Start = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(module, "_LOOK", 0.1)
    monkeypatch.setattr(module, "_EXPIRE", 0.1)
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    storage = MemoryStorage()
    nodes: list[Node] = []

    def node(name: str = "one", **options: Any) -> Node:
        nodes.append(Node(storage, clock, name, **options))
        return nodes[-1]

    yield node
    for each in nodes:
        each.down = False
        if each.webhooks is not None:
            await each.webhooks.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@contextlib.contextmanager
def errors(caplog: pytest.LogCaptureFixture) -> Any:
    """Give the lines that are loud."""
    lines: list[str] = []
    with caplog.at_level(logging.ERROR):
        yield lines
    lines += [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_edits_of_one_document_are_told_together(make: Start, receiver: Receiver) -> None:
    node = await make().start(receiver)
    document_id = await node.edit("d")
    for _ in range(9):
        await node.edit("d", document_id)
    await receiver.until(lambda: receiver.of("d", CHANGED), "the change")
    (created,) = receiver.of("d", CREATED)
    (changed,) = receiver.of("d", CHANGED)
    assert created.data["document_id"] == document_id and receiver.abouts()[0] == (CREATED, "d")
    assert (changed.data["from"], changed.data["to"]) == (1, 10)
    await node.edit("d", document_id)
    await receiver.until(lambda: len(receiver.of("d", CHANGED)) == 2, "the next change")
    assert receiver.of("d", CHANGED)[1].data["from"] == 11


async def test_a_document_is_told_in_order_while_its_receiver_has_trouble(make: Start, receiver: Receiver) -> None:
    node = await make().start(receiver)
    receiver.replies = [500, 200, 500, 500, 200]
    made = await node.store.create("d")
    await node.store.delete("d", AT)
    await node.store.restore(made.id, at=AT)
    await node.store.create("other")
    await receiver.until(lambda: len(receiver.taken) == 4, "all of it")
    assert [kind for kind, name in receiver.abouts() if name == "d"] == [CREATED, DELETED, RESTORED]
    assert len(receiver.asked) == 7 and len(set(receiver.asked)) == 4
    await happens(lambda: node.counts.attempts == {"refused": 3, "delivered": 4, "unanswered": 0}, "counted")


async def test_one_document_in_trouble_holds_up_no_other_and_no_other_receiver(make: Start) -> None:
    async with Receiver() as poisoned, Receiver() as fine:
        node = await make(first_pause=60.0).start(poisoned, fine)
        poisoned.replies = [500]
        await node.store.create("first")
        await poisoned.until(lambda: poisoned.asked, "it is asked")
        for number in range(5):
            await node.store.create(f"d{number}")
        await poisoned.until(lambda: len(poisoned.taken) == 5, "the others")
        await fine.until(lambda: len(fine.taken) == 6, "all")
        assert (CREATED, "first") not in poisoned.abouts()


async def test_a_receiver_that_is_back_gets_at_once_what_waits(make: Start, receiver: Receiver) -> None:
    node = await make(first_pause=0.3).start(receiver)
    receiver.always = 503
    for number in range(12):
        await node.store.create(f"d{number}")
    await receiver.until(lambda: len(receiver.asked) >= 3, "it is asked")
    await happens(lambda: any(state.failing_since for state in node.counts.states), "seen as failing")
    assert node.counts.pending == 12 and node.counts.oldest_seconds >= 0
    receiver.always = 200
    await receiver.until(lambda: len(receiver.taken) == 12, "all of it")
    await happens(lambda: node.counts.pending == 0, "nothing waits")
    assert node.counts.states[0].failing_since is None


async def test_receivers_get_what_they_want(make: Start) -> None:
    async with Receiver() as notes, Receiver() as people:
        wanted = ({"kinds": (CREATED,), "prefix": "notes/"}, {"kinds": (JOINED, LEFT)})
        node = await make().start(notes, people, wanted=wanted)
        await node.edit("other/a")
        await node.edit("notes/a")
        ada = member("ada", "Ada")
        node.webhooks.joined("other/a", None, ada)
        await people.until(lambda: people.taken, "who has come")
        await notes.until(lambda: notes.taken, "what was created")
        assert people.taken[0].data["user"] == "ada" and people.taken[0].data["node"] == "one"
        await happens(lambda: node.counts.states and not node.counts.pending, "it is noted")
        node.webhooks.left("other/a", None, ada)
        await node.webhooks.close()
        assert notes.abouts() == [(CREATED, "notes/a")]
        states = await node.store.deliveries(receiver="r1", state="pending")
        assert [each.kind for each in states] == [LEFT], "told at the end, for the next node to deliver"


async def test_nobody_is_followed_where_nobody_wants_it(make: Start, receiver: Receiver) -> None:
    node = await make().start(receiver, wanted=[{"kinds": (CREATED,)}])
    ada = cast(Member, member("ada"))
    node.webhooks.joined("d", None, ada)
    node.webhooks.left("d", None, ada)
    assert node.webhooks._people.take(over=True) == []


async def test_two_nodes_deliver_each_event_once(make: Start, receiver: Receiver) -> None:
    one, two = await make("one").start(receiver), await make("two").start(receiver)
    ids = [await node.edit(f"d{number}") for number, node in enumerate((one, two) * 5)]
    assert len(set(ids)) == 10
    await receiver.until(lambda: len(receiver.taken) == 20, "all of it")
    assert sorted([one.counts.delivering, two.counts.delivering]) == [False, True]
    assert len(set(receiver.asked)) == len(receiver.asked) == 20


async def test_another_node_goes_on_when_the_one_that_delivers_dies(make: Start, receiver: Receiver) -> None:
    one = await make("one").start(receiver)
    await happens(lambda: one.counts.delivering, "it delivers")
    receiver.always = 503
    document_id = await one.edit("d")
    await receiver.until(lambda: receiver.asked, "it is asked")
    two = await make("two").start(receiver)
    # It dies with a delivery that waits and an edit that it has not marked.
    await put(one.store, "unmarked", b"x")
    await one.die()
    receiver.always = 200
    await happens(lambda: two.counts.delivering, "the other one delivers")
    await receiver.until(lambda: receiver.of("d", CREATED) and receiver.of("unmarked", CHANGED), "what was left")
    await two.edit("d", document_id)
    await receiver.until(lambda: any(each.data["to"] == 2 for each in receiver.of("d", CHANGED)), "the change")
    assert [message.type for message in receiver.of("d")][:2] == [CREATED, CHANGED]


async def test_a_node_that_leaves_hands_over_at_once(make: Start, receiver: Receiver) -> None:
    one = await make("one", lease=3_600.0).start(receiver)
    await happens(lambda: one.counts.delivering, "it delivers")
    two = await make("two", lease=3_600.0).start(receiver)
    await one.edit("d")
    await one.webhooks.close()
    await receiver.until(lambda: receiver.of("d", CHANGED), "the other one delivers")
    assert two.counts.delivering and not one.counts.delivering


async def test_a_node_that_has_lost_the_lease_stops(make: Start, receiver: Receiver) -> None:
    one = await make("one").start(receiver)
    await happens(lambda: one.counts.delivering, "it delivers")
    one.down = True
    await happens(lambda: not one.counts.delivering, "it stops by itself")
    two = await make("two").start(receiver)
    await happens(lambda: two.counts.delivering, "the other one delivers")
    one.down = False
    await two.edit("d")
    await receiver.until(lambda: receiver.of("d", CHANGED), "the change")
    assert not one.counts.delivering and len(receiver.asked) == 2


async def test_what_cannot_be_noted_now_is_noted_later(make: Start, receiver: Receiver) -> None:
    node = await make(lease=3_600.0).start(receiver)
    await happens(lambda: node.counts.delivering, "it delivers")
    document_id = await node.edit("d")
    node.webhooks.joined("d", document_id, member("ada"))
    node.down = True
    await asyncio.sleep(0.3)  # some looks that fail
    assert receiver.taken == []
    node.down = False
    await receiver.until(lambda: receiver.of("d", CHANGED) and receiver.of("d", JOINED), "all of it")
    assert node.webhooks.tasks.failing == {}


async def test_what_is_taken_while_the_store_is_away_is_not_brought_again(make: Start, receiver: Receiver) -> None:
    node = await make(lease=3_600.0).start(receiver)
    going = asyncio.Event()

    async def hold(request: Any) -> Any:
        node.down = True
        going.set()
        from aiohttp import web

        return web.Response()

    receiver.replies = [hold]
    await node.store.create("d")
    await going.wait()
    await receiver.until(lambda: receiver.taken, "it is taken")
    await asyncio.sleep(0.3)
    node.down = False
    await node.store.create("e")
    await receiver.until(lambda: receiver.of("e"), "the next one")
    assert receiver.abouts() == [(CREATED, "d"), (CREATED, "e")]


async def test_a_receiver_that_fails_for_long_is_disabled_loudly_and_enabled_again(
    make: Start, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    node = await make(disable_after=3_600.0).start(receiver)
    receiver.always = 500
    with errors(caplog) as lines:
        await node.store.create("d")

        async def failing() -> bool:
            return any(state.failing_since is not None for state in await node.store.receivers())

        # That it was refused is counted before it is stored, and how long it fails counts from there.
        await eventually(failing, "it is noted that it fails")
        assert node.counts.attempts["refused"]
        clock.ahead += 3_700.0
        await happens(lambda: node.counts.disabled, "it is disabled")
        asked = len(receiver.asked)
        await node.store.create("not told")
        await asyncio.sleep(0.3)
        assert len(receiver.asked) <= asked + 1
    assert [line for line in lines if "THE RECEIVER r0 IS DISABLED" in line and "enable r0" in line]
    receiver.always = 200
    await node.store.enable_receiver("r0")
    await receiver.until(lambda: receiver.taken, "what waited")
    await node.store.create("told")
    await receiver.until(lambda: (CREATED, "told") in receiver.abouts(), "what comes now")
    assert (CREATED, "not told") not in receiver.abouts()


async def test_410_disables_at_once(make: Start, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    node = await make().start(receiver)
    receiver.always = 410
    with errors(caplog) as lines:
        await node.store.create("d")
        await happens(lambda: node.counts.disabled, "it is disabled")
        await node.store.create("e")
    assert [line for line in lines if "it has answered 410" in line]
    assert len(await node.store.deliveries()) == 1


async def test_what_nobody_takes_in_a_day_is_given_up_and_can_be_sent_again(
    make: Start, receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    node = await make(disable_after=30 * 86_400.0).start(receiver)
    receiver.always = 500
    with errors(caplog) as lines:
        await node.store.create("d")
        await happens(lambda: node.counts.attempts["refused"], "it is refused")
        clock.ahead += GIVE_UP_SECONDS + 10
        await happens(lambda: node.counts.given_up, "it is given up")
    assert [line for line in lines if "1 deliveries to the receiver r0 were given up" in line]
    receiver.always = 200
    assert await node.store.resend_failed("r0", 0.0) == 1
    await receiver.until(lambda: receiver.taken, "sent again")
    assert len(set(receiver.asked)) == 1, "under the same id"


async def test_what_finds_no_room_is_counted_and_told(
    make: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from collab.storage import webhooks as bounds

    monkeypatch.setattr(bounds, "MAX_PENDING", 2)
    node = await make(first_pause=60.0).start(receiver)
    await happens(lambda: node.counts.states, "it has looked")
    receiver.always = 500
    with errors(caplog) as lines:
        for number in range(5):
            await node.store.create(f"d{number}")
        await happens(lambda: node.counts.dropped == 3, "counted")
    assert [line for line in lines if "events for the receiver r0 were dropped" in line]


async def test_documents_of_before_are_told_only_when_they_change(make: Start, receiver: Receiver) -> None:
    node = make()
    old = (await put(node.store, "old", b"x", b"y")).document_id
    await node.start(receiver)
    await node.edit("new")
    await receiver.until(lambda: receiver.of("new", CHANGED), "the new one")
    await node.edit("old", old)
    await receiver.until(lambda: receiver.of("old", CHANGED), "the old one")
    assert [message.type for message in receiver.of("old")] == [CHANGED]
    assert receiver.of("old")[0].data["from"] == 3


async def test_more_documents_than_one_transaction_tells_are_all_told(
    make: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TOLD", 3)
    monkeypatch.setattr(module, "_PAGE", 4)
    node = make()
    await node.store.claim_delivery("before", 0.01)
    for number in range(11):
        await put(node.store, f"d{number}", b"x")
    await node.start(receiver)
    await receiver.until(lambda: len(receiver.taken) == 22, "all of it")


async def test_a_defect_in_delivery_is_started_again(
    make: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make(lease=3_600.0)
    settle, failed = node.store.settle, 0

    async def broken(*given: Any) -> bool:
        nonlocal failed
        failed += 1
        if failed == 1:
            raise RuntimeError("a defect")
        done: bool = await settle(*given)
        return done

    monkeypatch.setattr(node.store, "settle", broken)
    await node.start(receiver)
    await node.store.create("d")
    await happens(lambda: failed == 2, "it is delivered and noted")
    assert receiver.abouts() == [(CREATED, "d")] * 2, "once more, because the first time was not noted"


def test_all_kinds_are_in_the_test() -> None:
    assert {JOINED, LEFT, CREATED, CHANGED, DELETED, RESTORED} < set(KINDS)
    assert Attempt(1, True).pause == 0.0 and Happened(JOINED, None, ("a",), {}).lane < 0
