"""Visitors of hubs on one real store: what they post, their lifetime, their rights, other nodes, and rooms that end.

Strategy: what people see is read from the awareness of members, and from the stream. Time is let pass by giving the
sweep a later one. Two nodes are two hubs on one bus.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from collab.cluster.local import LocalBus
from collab.engine.agents import FIRST_ID
from collab.engine.visitors import AnothersClient
from collab.errors import (
    AccessExpired,
    AccessUnavailable,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    Forbidden,
    LimitExceeded,
)
from collab.hub import stream_presence
from collab.hub.agents import Caller, TooOften
from collab.hub.documents import Documents
from collab.hub.presence_tail import (
    Position,
    PresenceCursor,
    PresenceStart,
    PresenceTail,
    decode_position,
    encode_position,
)
from collab.hub.stream_presence import LIFETIME, MAX_ENTRIES, Poster, TooManyVisitors
from collab.protocol.awareness import AwarenessUpdate, Entry, User, decode_awareness, encode_awareness
from collab.protocol.session import Access
from collab.protocol.streams import Batch, Begin
from collab.storage.records import Instruction, Kind
from tests.hub.conftest import Box, Node, StartNode
from tests.hub.test_agents import Rights, created
from tests.hub.test_replication import Nodes, Steady
from tests.support.waiting import happens

ADA = 5
HOME = "192.0.2.1"


def poster(
    author: str | None = "ada",
    address: str | None = HOME,
    left: float | None = None,
    rights: Rights | None = None,
    access: Access = Access.WRITE,
) -> Poster:
    user = None if author is None else User(author, author.title())
    return Poster(Caller(author, user, access, left, Rights() if rights is None else rights), address)


def said(*entries: tuple[int, int, str]) -> bytes:
    return encode_awareness(Entry(client, clock, state.encode()) for client, clock, state in entries)


async def post(
    node: Node, clock: int, state: str = "{}", client: int = ADA, name: str = "d", rate: float = 0.0, **who: Any
) -> None:
    await node.hub.visitors.post(name, [said((client, clock, state))], poster(**who), rate)


def seen(box: Box, client: int = ADA) -> Any:
    """Give what a member sees of a client; None if nothing."""
    return json.loads(box.awareness().get(client, (0, "null"))[1])


async def all_see(boxes: list[Box], clock: int | None) -> None:
    """Wait until all members see the state of this clock, which says so itself; or nothing."""
    for box in boxes:
        await box.until(lambda: (seen(box) or {}).get("clock") == clock, f"clock {clock}")  # noqa: B023


def room(node: Node) -> Any:
    return node.hub.rooms["d"]


class Dear(LocalBus):
    """A bus on which presence is gathered, so requests overtake it."""

    presence_seconds = 0.1


@pytest.fixture
def nodes(start_node: StartNode) -> Nodes:
    return Nodes(start_node)


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    found: Node = await start_node(idle_seconds=0.2)
    await created(found)
    return found


async def test_what_is_posted_is_seen_until_nothing_is_posted_any_more(node: Node) -> None:
    live, _, box = await node.join("d")
    await post(node, 1, '{"x":1}')
    await box.until(lambda: seen(box) == {"x": 1, "user": {"sub": "ada", "name": "Ada"}}, "the visitor")
    now = node.hub.now()
    node.hub.visitors.sweep(now + LIFETIME - 1)
    assert len(node.hub.visitors) == 1 and live.visitors
    node.hub.visitors.sweep(now + LIFETIME + 1)
    await box.until(lambda: seen(box) is None, "its end")
    assert len(node.hub.visitors) == 0 and not live.visitors
    assert not node.hub.visitors._of_document and not node.hub.visitors._of_person


async def test_a_state_that_is_known_renews_its_lifetime(node: Node) -> None:
    await post(node, 1)
    (held,) = node.hub.visitors._held.values()
    held.until = node.hub.now() + 20.0
    await post(node, 1)
    assert held.until > node.hub.now() + LIFETIME - 5
    node.hub.visitors.sweep(node.hub.now())
    assert len(node.hub.visitors) == 1


async def test_null_ends_it_at_once(node: Node) -> None:
    _, _, box = await node.join("d")
    await post(node, 1)
    await box.until(lambda: seen(box), "the visitor")
    await post(node, 2, "null", author="eve")
    await post(node, 2, "null")
    await box.until(lambda: seen(box) is None, "its end")
    assert len(node.hub.visitors) == 0
    await post(node, 3, "null")
    assert len(node.hub.visitors) == 0 and box.awareness()[ADA][0] == 2


async def test_a_client_that_has_nothing_to_show_is_nobody(node: Node) -> None:
    """An awareness that no application has touched has clock 0, which y-protocols takes from nobody."""
    await post(node, 0)
    assert len(node.hub.visitors) == 0 and not room(node).occupied


async def test_a_room_with_a_visitor_alone_stays_in_memory(node: Node) -> None:
    await post(node, 1)
    live = room(node)
    live.idle_since = float("-inf")
    sweeps = node.hub.now() + 1.0
    await happens(lambda: node.hub.now() > sweeps, "some sweeps")
    assert node.hub.rooms["d"] is live
    await post(node, 2, "null")
    await happens(lambda: "d" not in node.hub.rooms, "it leaves memory")


async def test_there_is_none_where_there_is_no_document(node: Node) -> None:
    with pytest.raises(DocumentNotFound):
        await post(node, 1, name="e")
    await Documents(node.hub.store, node.hub).delete("d")
    with pytest.raises((DocumentNotFound, DocumentDeleted)):
        await post(node, 1)
    assert len(node.hub.visitors) == 0


async def test_what_is_malformed_leaves_nothing(node: Node) -> None:
    good = said((ADA, 1, "{}"))
    many = said(*[(client, 1, "{}") for client in range(MAX_ENTRIES + 1)])
    for bad, error in ((b"", DecodeError), (b"\x01", DecodeError), (good + b"x", DecodeError), (many, LimitExceeded)):
        with pytest.raises(error):
            await node.hub.visitors.post("d", [good, bad], poster())
        assert len(node.hub.visitors) == 0 and "d" not in node.hub.rooms, "and nothing was read for it"


async def test_a_state_that_cannot_be_shown_costs_nothing_but_itself(node: Node) -> None:
    _, _, box = await node.join("d")
    for state, error in (("{", DecodeError), ('"' + "x" * 70_000 + '"', LimitExceeded)):
        with pytest.raises(error):
            await node.hub.visitors.post("d", [said((6, 1, state)), said((ADA, 1, "{}"))], poster())
        assert list(node.hub.visitors._held) == [("d", ADA)]
    await box.until(lambda: seen(box), "the other state of the same request")
    with pytest.raises(LimitExceeded, match="for agents"):
        await post(node, 1, client=FIRST_ID)


async def test_of_several_states_of_one_client_the_newest_counts(node: Node) -> None:
    _, _, box = await node.join("d")
    await node.hub.visitors.post("d", [said((ADA, 2, '{"x":2}')), said((ADA, 1, '{"x":1}'))], poster())
    await box.until(lambda: seen(box), "the visitor")
    assert seen(box)["x"] == 2


async def test_another_user_or_address_cannot_post_for_it(node: Node) -> None:
    await post(node, 1)
    await post(node, 1, client=7, author=None)
    for client, who in (
        (ADA, {"author": "eve"}),
        (ADA, {"author": None}),
        (7, {"author": None, "address": "192.0.2.2"}),
        (7, {"author": "eve"}),
    ):
        with pytest.raises(AnothersClient):
            await post(node, 9, client=client, **who)
    assert room(node).room.awareness.clock_of(ADA) == room(node).room.awareness.clock_of(7) == 1
    await post(node, 2, address="192.0.2.2")
    await post(node, 2, client=7, author=None)
    assert room(node).room.awareness.clock_of(ADA) == room(node).room.awareness.clock_of(7) == 2


async def test_there_are_so_many_at_most(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for what, most in (
        ("MAX_OF_DOCUMENT", "on this document"),
        ("MAX_OF_PERSON", "of this user"),
        ("MAX_OF_NODE", "on this server"),
    ):
        for author in ("ada", None):
            with monkeypatch.context() as patch:
                patch.setattr(stream_presence, what, 2)
                for client in (1, 2):
                    await post(node, 1, client=client, author=author)
                with pytest.raises(TooManyVisitors, match=most):
                    await post(node, 1, client=3, author=author)
                await post(node, 2, client=1, author=author)
                node.hub.visitors.end_here([("d", 1)])
                await post(node, 1, client=3, author=author)
                assert node.hub.visitors.end_here(node.hub.visitors.of("d", None)) == 2
                for _ in range(10):  # the IDs are free for the next ones
                    room(node).room.awareness.forget()


async def test_one_that_changes_too_often_is_told_when_it_may_again(node: Node) -> None:
    with pytest.raises(TooOften) as caught:
        for clock in range(1, 100):
            await post(node, clock, rate=4.0)
    assert caught.value.seconds == 0.25
    await post(node, 1, client=6, rate=4.0)


async def test_it_lasts_no_longer_than_the_access_of_its_user(node: Node) -> None:
    await post(node, 1, left=10.0)
    node.hub.visitors.sweep(node.hub.now() + 9)
    assert len(node.hub.visitors) == 1
    node.hub.visitors.sweep(node.hub.now() + 11)
    assert len(node.hub.visitors) == 0


async def test_it_is_among_the_people(node: Node) -> None:
    await post(node, 1, '{"user":{"name":"x","color":"#123"}}', access=Access.READ)
    present, silent = await node.hub.people.present("d")
    (person,) = present.people
    assert (person.protocol, person.user, person.name, person.color, person.clients, person.access) == (
        "streams",
        "ada",
        "Ada",
        "#123",
        [ADA],
        "read",
    )
    assert person.connection is None and person.agent is None and silent == () and present.sessions == 1
    assert [shown.client for shown in present.states] == [ADA]


# What operators tell


@pytest.mark.parametrize(
    ("instruction", "ends"),
    [
        (Instruction(Kind.KICK, user="ada"), True),
        (Instruction(Kind.KICK, document="d"), True),
        (Instruction(Kind.KICK, user="eve"), False),
        (Instruction(Kind.KICK, document="e", user="ada"), False),
        (Instruction(Kind.KICK, document="d", connection="x-1"), False),
    ],
)
async def test_a_kick_ends_it_with_the_sessions_of_its_user(node: Node, instruction: Instruction, ends: bool) -> None:
    await post(node, 1)
    reports = await node.hub.control.give(instruction)
    assert reports.reports[0].ended == ends and len(node.hub.visitors) == (not ends)


@pytest.mark.parametrize(
    ("access", "report"),
    [
        (Access.WRITE, (0, 0, 0)),
        (Access.READ, (0, 1, 0)),
        (Forbidden("no"), (1, 0, 0)),
        (AccessExpired("no"), (1, 0, 0)),
        (AccessUnavailable("later"), (0, 0, 1)),
    ],
)
async def test_its_access_is_asked_about_again(node: Node, access: Any, report: tuple[int, int, int]) -> None:
    rights = Rights()
    rights.access = access
    await post(node, 1, rights=rights)
    reports = await node.hub.control.give(Instruction(Kind.CHECK, user="ada"))
    assert reports.reports[0][1:4] == report and rights.asked == 1
    assert len(node.hub.visitors) == 1 - report[0]
    if isinstance(access, Access):
        assert next(iter(room(node).visitors.values())).access is access


# Rooms that end


@pytest.mark.parametrize("how", ["deleted", "renamed", "reloaded", "failed"])
async def test_it_goes_with_its_room(node: Node, how: str) -> None:
    await post(node, 1)
    documents = Documents(node.hub.store, node.hub)
    if how == "deleted":
        await documents.delete("d")
    elif how == "renamed":
        await documents.rename("d", "e")
    elif how == "reloaded":
        await node.hub.reload("d")
    else:
        node.hub.failed(room(node), RuntimeError("a defect"))
    await happens(lambda: len(node.hub.visitors) == 0, "it is forgotten")
    if how in ("reloaded", "failed"):
        await post(node, 2)
        _, _, box = await node.join("d")
        await box.until(lambda: seen(box), "its client has posted again")


# Other nodes


async def test_it_is_seen_on_all_nodes_and_goes_with_its_own(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, there = await two.join("d")
    await post(one, 1)
    await there.until(lambda: seen(there), "the visitor")
    _, _, late = await two.join("d")
    await late.until(lambda: seen(late), "the visitor, for a newcomer")
    await one.stop()
    await there.until(lambda: seen(there) is None, "it goes with its node")


@pytest.mark.parametrize("bus", [None, Steady])
@pytest.mark.parametrize("author", ["ada", None])
async def test_its_requests_may_come_to_another_node_each_time(nodes: Nodes, bus: Any, author: str | None) -> None:
    more = {} if bus is None else {"bus": bus}
    one, two, three = [await nodes.start(**more) for _ in range(3)]
    await created(one)
    boxes: list[Box] = [(await each.join("d"))[2] for each in (one, two, three)]
    for clock, each in enumerate((one, two, one, two, two, three, one), 1):
        await post(each, clock, f'{{"clock":{clock}}}', author=author)
        await all_see(boxes, clock)
        assert [bool(room(node).visitors) for node in (one, two, three) if node is each] == [True]
    for box in boxes:
        told = [message.payload for message in box.messages if isinstance(message, AwarenessUpdate)]
        assert not any(payload.endswith(b"null") for payload in told), "nobody has seen it leave"
    # And its end is told to any.
    await post(two, 8, "null", author=author)
    await all_see(boxes, None)


@pytest.mark.parametrize("bus", [LocalBus, Dear])
@pytest.mark.parametrize("author", ["ada", None])
async def test_its_requests_may_overtake_what_nodes_tell_each_other(nodes: Nodes, bus: Any, author: str | None) -> None:
    one, two, three = [await nodes.start(bus=bus) for _ in range(3)]
    await created(one)
    boxes: list[Box] = [(await each.join("d"))[2] for each in (one, two, three)]
    clock = 0
    for way in ((one, two), (one,), (two, one, two, three), (three, one)):
        for each in way:
            clock += 1
            await post(each, clock, f'{{"clock":{clock}}}', author=author)
        await all_see(boxes, clock)
    assert [len(room(node).visitors) for node in (one, two, three)].count(1) >= 1
    for box in boxes:
        told = [message.payload for message in box.messages if isinstance(message, AwarenessUpdate)]
        assert not any(payload.endswith(b"null") for payload in told), "nobody has seen it leave"
    # Its end is posted before all nodes have heard of its last state.
    await post(two, clock + 1, f'{{"clock":{clock + 1}}}', author=author)
    await post(three, clock + 2, "null", author=author)
    await all_see(boxes, None)
    await happens(lambda: not any(room(node).visitors for node in (one, two, three)), "no node has it")


async def test_a_client_that_nobody_has_heard_of_yet_may_leave_by_another_node(nodes: Nodes) -> None:
    one, two, three = [await nodes.start(bus=Dear) for _ in range(3)]
    await created(one)
    boxes: list[Box] = [(await each.join("d"))[2] for each in (one, two, three)]
    await post(one, 1, '{"clock":1}')
    await post(two, 2, "null")
    await boxes[0].until(lambda: boxes[0].awareness().get(ADA) == (2, "null"), "its end")
    await post(two, 3, '{"clock":3}')
    await all_see(boxes, 3)
    assert not any(box.awareness()[ADA][0] == 1 for box in boxes[1:])


async def test_a_post_that_says_nothing_new_renews_its_lifetime_on_the_other_node(nodes: Nodes) -> None:
    one, two = await nodes.start(bus=Dear), await nodes.start(bus=Dear)
    await created(one)
    _, _, there = await two.join("d")
    await post(one, 1, '{"clock":1}', left=20.0)
    await there.until(lambda: seen(there), "the visitor")
    (held,) = one.hub.visitors._held.values()
    held.until = soon = one.hub.now() + 5.0  # what is over may be swept away before anybody renews it
    with pytest.raises(TooOften):
        for _ in range(100):
            await post(two, 1, '{"clock":1}', rate=4.0)
    await happens(lambda: held.until > soon, "it is renewed")
    assert held.until <= one.hub.now() + 20.0, "but no longer than its access lasts"
    assert held.visitor.shown and not any(held.visitor.shown for held in two.hub.visitors._held.values())


async def test_another_person_cannot_move_it_to_another_node(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, there = await two.join("d")
    await post(one, 1)
    await there.until(lambda: seen(there), "the visitor")
    with pytest.raises(AnothersClient):
        await post(two, 2, '{"x":1}', author="eve")
    await post(two, 2, "null", author="eve")
    await post(two, 2, '{"x":2}')
    await there.until(lambda: seen(there).get("x") == 2, "its own post")
    with pytest.raises(AnothersClient):
        await post(two, 3, author="eve")


async def test_a_node_that_is_silent_makes_it_come_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, there = await two.join("d")
    live, member, _ = await one.join("d")
    member.author = "ada"
    live.receive(member, AwarenessUpdate(said((ADA, 1, "{}"))))
    await there.until(lambda: seen(there) is not None, "its client, with a socket")
    with monkeypatch.context() as patch:
        patch.setattr(one.hub.visitors, "answer", lambda asked: None)
        with pytest.raises(DocumentBusy):
            await post(two, 2)
    await post(two, 2, '{"x":2}')
    await there.until(lambda: (seen(there) or {}).get("x") == 2, "it came again")


async def test_its_client_may_go_to_a_socket_of_another_node_and_back(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, here = await one.join("d")
    await post(one, 1)
    await here.until(lambda: seen(here), "the visitor")
    live, member, box = await two.join("d", answer=False)
    member.author = "ada"
    await happens(lambda: ADA in live.room.awareness, "the visitor is known there")
    live.receive(member, AwarenessUpdate(said((ADA, 2, '{"socket":true}'))))
    await box.until(lambda: box.awareness()[ADA][1] == "null", "its client is asked to announce itself")
    live.receive(member, AwarenessUpdate(said((ADA, 3, '{"socket":true}'))))
    await here.until(lambda: (seen(here) or {}).get("socket"), "it has a socket now")
    assert not room(one).visitors or not next(iter(room(one).visitors)).shown
    await post(one, 4, '{"again":true}')
    await here.until(lambda: (seen(here) or {}).get("again"), "it posts again")
    assert not member.awareness
    await box.until(lambda: (seen(box) or {}).get("again"), "all see the same")


async def test_all_of_a_document_are_ended_on_all_nodes(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, box = await one.join("d")
    await post(one, 1)
    await post(two, 1, client=6, author="bob")
    await box.until(lambda: seen(box) and seen(box, 6), "both")
    assert await two.hub.visitors.end_all("d") == ()
    await box.until(lambda: seen(box) is None and seen(box, 6) is None, "their end")


# The stream


class Reader:
    """A reader that keeps what it is handed, for as long as the test lets it."""

    def __init__(self, tail: PresenceTail, start: PresenceStart = Begin.NOW) -> None:
        self.cursor = PresenceCursor(tail, start)
        self.batches: list[Batch] = []
        self.takes = True
        self.woken = 0

    def push(self, batch: Batch) -> bool:
        if self.takes:
            self.batches.append(batch)
        return self.takes

    def wake(self) -> None:
        self.woken += 1

    async def level(self) -> bytes:
        """Read to the end, and wait there; give what was read."""
        batch = await self.cursor.read()
        assert batch.up_to_date and self.cursor.attach(self)
        return batch.payload


def end_turn(node: Node) -> None:
    room(node).end_turn(node.hub.now())


async def test_readers_begin_with_all_and_are_handed_what_changes(node: Node) -> None:
    await post(node, 1, client=1)
    end_turn(node)
    tail = room(node).open_presence()
    readers = [Reader(tail, start) for start in (Begin.NOW, Begin.BEGINNING, Begin.NOW)]
    for reader in readers:
        assert await reader.level() == frame(room(node).room.awareness.everything())
    await post(node, 1, '{"x":1}', client=2, author=None)
    end_turn(node)
    (batch,) = readers[0].batches
    assert batch.payload == frame(said((2, 1, '{"x":1}'))) and batch.up_to_date
    assert all(reader.batches == [batch] for reader in readers), "all of them share its bytes"
    for reader in readers:
        reader.cursor.detach()
        assert (await reader.cursor.read()).payload == b"", "it has moved on"
    await post(node, 2, client=1)
    end_turn(node)
    assert all(reader.batches == [batch] for reader in readers)
    assert all([not reader.cursor.attach(reader) for reader in readers]), "there is more to be read"
    again = Reader(tail, decode_position(batch.offset))
    (entry,) = decode_awareness((await again.level())[1:])
    assert entry[:2] == (1, 2), "and so it begins from the offset that it was told"


async def test_a_slow_reader_gets_the_newest_state_of_each_once(node: Node) -> None:
    await node.join("d")
    tail = room(node).open_presence()
    slow = Reader(tail)
    assert await slow.level() == b""
    begin = tail.end
    slow.takes = False
    for clock in range(1, 21):
        await post(node, clock, f'{{"x":{clock}}}', author=None)
        end_turn(node)
    slow.cursor.detach()
    newest = frame(said((ADA, 20, '{"x":20}')))
    assert tail.read(begin) is tail.read(begin)
    assert await slow.level() == newest and slow.batches == []
    await post(node, 21, "null", author=None)
    end_turn(node)
    assert tail.read(begin).payload == frame(said((ADA, 21, "null")))
    assert tail.read(Begin.NOW).payload == b"", "who begins hears of nobody who has left"
    for other in (begin._replace(epoch=begin.epoch + 1), begin._replace(number=tail.end.number + 9)):
        assert tail.read(other).payload == frame(said((ADA, 21, "null"))), "who has read elsewhere does"


async def test_an_offset_is_of_one_room_in_one_memory(node: Node) -> None:
    await post(node, 1)
    tail = room(node).open_presence()
    before = tail.read(Begin.NOW).offset
    await node.hub.reload("d")
    await post(node, 2, '{"x":2}')
    other = room(node).open_presence()
    assert other.read(Begin.NOW).offset > before
    assert other.read(decode_position(before)).payload == frame(room(node).room.awareness.everything())


@pytest.mark.parametrize("text", ["", "snapshot", "0_0", "-2", "NOW", "1" * 37, "٣" * 20 + "_" + "0" * 16])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_position(text)
    assert "offset" in caught.value.public
    assert decode_position("-1") is Begin.BEGINNING and decode_position("now") is Begin.NOW
    assert decode_position(encode_position(Position(3, 4))) == Position(3, 4)


def frame(update: bytes | None) -> bytes:
    assert update is not None and len(update) < 128
    return bytes([len(update)]) + update
