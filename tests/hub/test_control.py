"""What operators tell all nodes: hubs on one real store, with the bus of one process between them, and without one.

Strategy: while a store is ``blind``, no look at the heads of the log succeeds, so what is followed was heard on the
bus; nodes without a bus in common find everything by looking.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from collab.cluster.bus import BusMessage
from collab.cluster.local import LocalBus, LocalExchange
from collab.cluster.messages import ALL_NODES, Renamed, decode_node_message
from collab.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentReloaded,
    DocumentRenamed,
    InvalidDocumentName,
    KeptOut,
    Kicked,
    StoreUnavailable,
)
from collab.hub import control as control_module
from collab.hub.control import MAX_KEPT_OUT_SECONDS, Control, check_instruction, describe
from collab.hub.documents import Documents
from collab.hub.member import Checked, Member
from collab.protocol.sync import SyncUpdate
from collab.storage.records import Append, Instruction, Kind, NewRow, NodeReport, Reports, StoredInstruction
from tests.hub.conftest import Node, StartNode
from tests.support.author import Author, content
from tests.support.waiting import eventually, happens

KICK, CHECK, RELOAD = Kind.KICK, Kind.CHECK, Kind.RELOAD


class Nodes:
    """Two nodes, which hear each other or not."""

    def __init__(self, one: Node, two: Node) -> None:
        self.one, self.two = one, two


@pytest.fixture(params=["over the bus", "by looking"])
async def nodes(request: pytest.FixtureRequest, start_node: StartNode) -> Nodes:
    exchange = LocalExchange()
    buses = [LocalBus(exchange), LocalBus(exchange if request.param == "over the bus" else None)]
    one, two = [await start_node(bus=bus) for bus in buses]
    if request.param == "over the bus":
        two.store.blind = True
    return Nodes(one, two)


async def signed_in(node: Node, name: str, user: str | None, number: int = 0) -> Any:
    live, member, box = await node.join(name)
    member.author = user
    box.number = number
    return live, member, box


async def told(node: Node, instruction: Instruction, expected: int = 2) -> dict[str, NodeReport]:
    """Tell all nodes; give what each reports, when so many have."""
    number_before = max([stored.number for stored in await node.store.instructions(0)], default=0)
    giving = asyncio.create_task(node.hub.control.give(instruction))

    async def all_of_them() -> Reports | None:
        for stored in await node.store.instructions(number_before):
            reports: Reports = await node.store.reports(stored.number)
            if len(reports.reports) == expected and all(report.done for report in reports.reports):
                return reports
        return None

    reports = await eventually(all_of_them, "the reports")
    await giving
    return {report.node: report for report in reports.reports}


# Kick


async def test_a_user_is_sent_away_on_every_node_and_document(nodes: Nodes) -> None:
    here = await signed_in(nodes.one, "a", "ada")
    there = [await signed_in(nodes.two, name, "ada") for name in ("b", "c")]
    other = await signed_in(nodes.two, "b", "bob")
    nobody = await signed_in(nodes.one, "a", None)
    found = await told(nodes.one, Instruction(KICK, user="ada"))
    for _, _, box in (here, *there):
        assert isinstance(box.ended, Kicked)
    assert other[2].ended is None and nobody[2].ended is None
    assert found[nodes.one.hub.membership.name].ended == 1 and found[nodes.two.hub.membership.name].ended == 2
    # They may come back.
    nodes.two.hub.control.check("ada", "b")


async def test_everybody_on_a_document_is_sent_away_and_nobody_else(nodes: Nodes) -> None:
    gone = [await signed_in(node, "a", user) for node in (nodes.one, nodes.two) for user in ("ada", None)]
    stays = await signed_in(nodes.two, "b", "ada")
    found = await told(nodes.one, Instruction(KICK, document="a"))
    assert all(isinstance(box.ended, Kicked) for _, _, box in gone) and stays[2].ended is None
    assert sorted(report.ended for report in found.values()) == [2, 2]


async def test_one_connection_is_sent_away_by_its_node_and_number(nodes: Nodes) -> None:
    first, second = [await signed_in(nodes.two, "a", "ada", number) for number in (7, 17)]
    same_number = await signed_in(nodes.one, "a", "ada", 17)
    await told(nodes.one, Instruction(KICK, connection=f"{nodes.two.hub.membership.name}-17"))
    assert isinstance(second[2].ended, Kicked)
    assert first[2].ended is None and same_number[2].ended is None


async def test_a_user_is_kept_out_for_as_long_as_was_said_and_let_in_by_the_next_kick(nodes: Nodes) -> None:
    await told(nodes.one, Instruction(KICK, user="ada", seconds=600))
    for node in (nodes.one, nodes.two):
        with pytest.raises(KeptOut):
            node.hub.control.check("ada", "any")
        node.hub.control.check("bob", "any")
        node.hub.control.check(None, "any")
    await told(nodes.two, Instruction(KICK, user="ada"))
    for node in (nodes.one, nodes.two):
        node.hub.control.check("ada", "any")
    # Out of one document alone.
    await told(nodes.one, Instruction(KICK, user="ada", document="a", seconds=600))
    for node in (nodes.one, nodes.two):
        node.hub.control.check("ada", "b")
        with pytest.raises(KeptOut):
            node.hub.control.check("ada", "a")


async def test_the_time_of_being_kept_out_ends(nodes: Nodes) -> None:
    await told(nodes.one, Instruction(KICK, user="ada", seconds=0.3))

    async def free() -> bool:
        for node in (nodes.one, nodes.two):
            try:
                node.hub.control.check("ada", "any")
            except KeptOut:
                return False
        return True

    await eventually(free, "ada may come back")
    assert nodes.one.hub.control._kept_out == {}


async def test_a_node_that_starts_later_keeps_users_out_too(nodes: Nodes, start_node: StartNode) -> None:
    await told(nodes.one, Instruction(KICK, user="ada", seconds=600))
    await told(nodes.one, Instruction(KICK, user="bob", seconds=600))
    await told(nodes.one, Instruction(KICK, user="bob"))
    later = await start_node()
    with pytest.raises(KeptOut):
        later.hub.control.check("ada", "any")
    later.hub.control.check("bob", "any")


# Checking access again


async def test_each_session_is_asked_about_and_what_became_of_it_is_counted(nodes: Nodes) -> None:
    sessions = [await signed_in(node, "a", "ada") for node in (nodes.one, nodes.two) for _ in range(4)]
    for (_, _, box), checked in zip(sessions, list(Checked) * 2, strict=True):
        box.checked = checked
    other = await signed_in(nodes.two, "a", "bob")
    elsewhere = await signed_in(nodes.two, "b", "ada")
    forgotten: list[str] = []
    for node in (nodes.one, nodes.two):
        node.hub.control.on_check = lambda: forgotten.append("all")
    found = await told(nodes.one, Instruction(CHECK, user="ada", document="a"))
    assert set(found.values()) == {NodeReport(node.hub.membership.name, 1, 1, 1) for node in (nodes.one, nodes.two)}
    assert [box.checks for _, _, box in sessions] == [1] * 8
    assert other[2].checks == elsewhere[2].checks == 0
    assert forgotten == ["all"] * 2


async def test_a_node_that_still_asks_says_that_it_has_heard(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.0)
    _, member, box = await signed_in(nodes.two, "a", "ada")
    go_on = asyncio.Event()

    async def slowly(asked: Member) -> Checked:
        assert asked is member
        await go_on.wait()
        return Checked.ENDED

    box.check_access = slowly
    number = await nodes.one.store.instruct(Instruction(CHECK))
    nodes.one.hub.tell_nodes()

    async def heard() -> bool:
        return NodeReport(nodes.two.hub.membership.name, done=False) in (await nodes.one.store.reports(number)).reports

    await eventually(heard, "it has heard it")
    assert not (await control_module.until_reported(nodes.one.store, number, nodes.one.hub.tell_nodes)).complete
    go_on.set()

    async def done() -> bool:
        return NodeReport(nodes.two.hub.membership.name, 1) in (await nodes.one.store.reports(number)).reports

    await eventually(done, "it has done it")


async def test_a_defect_in_one_session_is_counted_and_stops_no_other(nodes: Nodes) -> None:
    _, _, bad = await signed_in(nodes.one, "a", "ada")
    _, _, good = await signed_in(nodes.one, "a", "ada")

    async def fail(member: Member) -> Checked:
        raise RuntimeError("a defect")

    bad.check_access = fail
    found = await told(nodes.one, Instruction(CHECK))
    assert found[nodes.one.hub.membership.name] == NodeReport(nodes.one.hub.membership.name, 0, 0, 1)
    assert good.checks == 1


# Reload


async def test_a_document_is_read_again_on_every_node_that_has_it_open(nodes: Nodes) -> None:
    nodes.two.store.blind = False
    author = Author(7)
    live, member, box = await nodes.one.join("a")
    live.receive(member, SyncUpdate(author.type("hello")))
    await nodes.one.write(live)
    elsewhere = await nodes.two.join("a")
    bystander = await nodes.two.join("b")
    found = await told(nodes.one, Instruction(RELOAD, document="a"))
    assert isinstance(box.ended, DocumentReloaded) and isinstance(elsewhere[2].ended, DocumentReloaded)
    assert bystander[2].ended is None
    assert [report.ended for report in found.values()] == [1, 1]
    for node in (nodes.one, nodes.two):
        assert "a" not in node.hub.rooms
        assert (await node.hub.open("a")).room.document.size > 0
        assert node.hub.counts.evictions["DocumentReloaded"] == 1


async def test_what_was_taken_a_moment_ago_is_stored_before_a_document_is_read_again(start_node: StartNode) -> None:
    node = await start_node()
    author = Author(7)
    live, member, _ = await node.join("a")
    for text in ("one ", "two ", "three"):
        live.receive(member, SyncUpdate(author.type(text)))
    assert await node.hub.reload("a") == 1
    _, _, box = await node.join("a")
    live = await node.hub.open("a")
    reader = Author(0)
    reader.read(live.room.document.encode_state_as_update())
    assert str(reader.text) == str(author.text)
    assert await node.hub.reload("b") == 0


async def test_a_document_that_the_store_lacks_is_not_dropped(start_node: StartNode) -> None:
    node = await start_node()
    live, member, box = await node.join("a")
    live.receive(member, SyncUpdate(Author(7).type("x")))
    await node.write(live)
    node.store.blind = True
    with pytest.raises(StoreUnavailable):
        await node.hub.reload("a")
    assert (await told(node, Instruction(RELOAD, document="a"), 1))[node.hub.membership.name].undecided == 1
    assert box.ended is None and node.hub.rooms["a"] is live
    node.store.blind = False
    live.persistence.seq += 100  # as if the log had had more
    with pytest.raises(StoreUnavailable):
        await node.hub.reload("a")
    assert node.hub.healing.times == 1


async def test_a_document_that_was_closed_for_its_failures_is_tried_again(start_node: StartNode) -> None:
    node = await start_node()
    for _ in range(3):
        live, _, _ = await node.join("a")
        node.hub.failed(live, RuntimeError("a defect"))
    with pytest.raises(Exception, match="failed too often"):
        await node.hub.open("a")
    await node.hub.reload("a")
    await node.hub.open("a")


# Renaming


def documents(node: Node) -> Documents:
    return Documents(node.store, node.hub)


async def test_a_renamed_document_goes_on_under_its_new_name_on_every_node(nodes: Nodes) -> None:
    nodes.two.store.blind = False
    author = Author(7)
    live, member, box = await nodes.one.join("old")
    live.receive(member, SyncUpdate(author.type("hello ")))
    await nodes.one.write(live)
    there = await nodes.two.join("old")
    early = await nodes.two.join("new")  # has opened the new name while there was nothing
    document_id = live.persistence.document_id
    live.receive(member, SyncUpdate(author.type("world")))  # in the turn that is under way
    renamed = await documents(nodes.one).rename("old", "new")
    assert (renamed.document.name, renamed.document.id) == ("new", document_id)
    assert isinstance(box.ended, DocumentRenamed)
    await there[2].until(lambda: isinstance(there[2].ended, DocumentRenamed), "the other node has heard of it")
    await early[2].until(lambda: early[2].text() == str(author.text), "those who were there see it")
    for node in (nodes.one, nodes.two):
        with pytest.raises(DocumentDeleted):
            await node.hub.open("old")
        opened = await node.hub.open("new")
        assert opened.persistence.document_id == document_id


async def test_a_commit_under_way_elsewhere_goes_where_the_document_is(nodes: Nodes) -> None:
    nodes.two.store.blind = False
    author = Author(7)
    live, member, _ = await nodes.two.join("old")
    live.receive(member, SyncUpdate(author.type("hello ")))
    await nodes.two.write(live)
    nodes.two.store.full = True  # what it takes now waits in its journal
    live.receive(member, SyncUpdate(author.type("world")))
    live.end_turn(nodes.two.hub.now())
    await documents(nodes.one).rename("old", "new")
    await documents(nodes.one).create("old")
    await nodes.one.join("new")
    nodes.two.store.full = False

    async def there() -> bool:
        loaded = await nodes.one.store.load("new")
        return loaded is not None and loaded.document.head_seq == 2

    await eventually(there, "the row is in the document")
    other = await nodes.one.store.load("old")
    assert other is not None and [content(row.data) for row in other.rows] == [""]  # what had this name is gone there

    async def seen() -> bool:
        found = Author(0)
        found.read((await nodes.one.hub.open("new")).room.document.encode_state_as_update())
        return str(found.text) == str(author.text)

    await eventually(seen, "those who have it open see it")


async def test_a_name_that_is_taken_is_refused_and_nobody_is_sent_away(start_node: StartNode) -> None:
    node = await start_node()
    for name in ("a", "b"):
        await documents(node).create(name)
    _, _, box = await node.join("a")
    with pytest.raises(DocumentExists):
        await documents(node).rename("a", "b")
    for bad in ("", " ", "x" * 513, "a\0b"):
        with pytest.raises(InvalidDocumentName):
            await documents(node).rename("a", bad)
    assert box.ended is None
    # One that was begun a moment ago is stored first.
    live, member, _ = await node.join("fresh")
    live.receive(member, SyncUpdate(Author(7).type("x")))
    assert (await documents(node).rename("fresh", "other")).document.head_seq == 1


async def test_nodes_of_the_release_before_are_told_that_it_is_deleted(start_node: StartNode) -> None:
    exchange = LocalExchange()
    node = await start_node(bus=LocalBus(exchange))
    heard: list[BusMessage] = []

    class Listener:
        def receive(self, message: BusMessage) -> None:
            heard.append(message)

        def joined(self, topic: str, node: str) -> None:
            pass

        gone = missed = joined

    listening = LocalBus(exchange)
    await listening.start(Listener())  # type: ignore[arg-type]
    listening.subscribe("a")
    created = await documents(node).create("a")
    await documents(node).rename("a", "b")
    await happens(lambda: len(heard) >= 2, "both messages")
    first, second = [decode_node_message(message.payload) for message in heard[-2:]]
    assert first == Renamed(created.document.id, "b")
    assert second is not None and type(second).__name__ == "Deleted" and second[0] == created.document.id
    await listening.close()


# What is left alone, bounded, or told again


@pytest.mark.parametrize(
    "instruction",
    [
        Instruction(KICK),
        Instruction(KICK, user=""),
        Instruction(KICK, user="x" * 1025),
        Instruction(KICK, connection="ä-1"),
        Instruction(KICK, connection="a" * 65),
        Instruction(KICK, user="u", seconds=-1),
        Instruction(KICK, user="u", seconds=MAX_KEPT_OUT_SECONDS + 1),
        Instruction(KICK, user="u", seconds=float("nan")),
        Instruction(KICK, document="d", seconds=5),
        Instruction(KICK, user="u", connection="a-1", seconds=5),
        Instruction(CHECK, user="u", seconds=5),
        Instruction(RELOAD),
        Instruction(RELOAD, document="d", user="u"),
        Instruction(RELOAD, document="d", connection="a-1"),
    ],
)
async def test_an_instruction_that_says_too_little_or_too_much_is_not_given(
    instruction: Instruction, start_node: StartNode
) -> None:
    node = await start_node()
    with pytest.raises(ValueError, match="."):
        await node.hub.control.give(instruction)
    assert await node.store.instructions(0) == []


def test_a_document_of_no_name_is_refused() -> None:
    with pytest.raises(InvalidDocumentName):
        check_instruction(Instruction(KICK, document="a\0b"))


def test_what_is_told_can_be_read_in_the_log() -> None:
    instruction = Instruction(KICK, "d\n", "u", "node-1", 5.0)
    assert describe(instruction) == "kick, user 'u', document 'd\\n', connection node-1, kept out for 5 s"


async def test_whatever_is_said_on_the_topic_of_all_nodes_only_makes_a_node_look(start_node: StartNode) -> None:
    exchange = LocalExchange()
    node = await start_node(bus=LocalBus(exchange))
    _, _, box = await signed_in(node, "a", "ada")
    stranger = LocalBus(exchange)
    await stranger.start(node.hub._replication)
    for payload in (b"", b"\xff" * 100, b"\x08\x01\x01a", b"\x04\x01", b"kick"):
        stranger.publish(ALL_NODES, payload)
    await told(node, Instruction(KICK, user="bob"), 1)
    assert box.ended is None
    await stranger.close()


class _Later:
    """A keeper whose store gives what the test says."""

    def __init__(self, node: Node, stored: list[StoredInstruction]) -> None:
        self.store, self.rooms, self.tasks = self, node.hub.rooms, node.hub.tasks
        self.generation = 0
        self.membership, self.agents, self.people = node.hub.membership, node.hub.agents, node.hub.people
        self.visitors, self.audit = node.hub.visitors, node.hub.audit
        self.given = stored
        self.asked: list[int] = []
        self.reported: list[int] = []
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def tell_nodes(self) -> None:
        pass

    async def reload(self, name: str) -> int:
        return 0

    async def instructions(self, after: int) -> list[StoredInstruction]:
        self.asked.append(after)
        return [stored for stored in self.given if stored.number > after]

    async def report(self, numbers: list[int], report: NodeReport) -> None:
        self.reported += numbers


async def test_each_instruction_is_followed_once_also_one_that_commits_late(start_node: StartNode) -> None:
    node = await start_node()
    kick = Instruction(KICK, user="ada")
    keeper = _Later(node, [StoredInstruction(5, 0.0, 600.0, kick)])
    control = Control(keeper)  # type: ignore[arg-type]
    assert control.behind
    await control.look()
    await control.look()
    assert keeper.reported == [5] and not control.behind
    keeper.given.insert(0, StoredInstruction(4, 0.0, 600.0, kick))  # its transaction was open
    await control.look()
    assert keeper.reported == [5, 4]
    keeper.time = 100.0
    await control.look()
    await control.look()
    assert keeper.asked[-1] == 5, "what is long done is not read again"
    # In a database that went back, numbers are given once more.
    keeper.generation, keeper.given = 1, [StoredInstruction(3, 0.0, 600.0, kick)]
    await control.look()
    assert keeper.reported == [5, 4, 3]


async def test_an_instruction_of_a_later_release_is_left_alone_and_an_old_one_not_reported(
    start_node: StartNode,
) -> None:
    node = await start_node()
    _, _, box = await signed_in(node, "a", "ada")
    given = [
        StoredInstruction(1, 0.0, 600.0, None),
        StoredInstruction(2, 500.0, 100.0, Instruction(KICK, user="ada")),
    ]
    keeper = _Later(node, given)
    control = Control(keeper)  # type: ignore[arg-type]
    await control.look()
    assert keeper.reported == [] and isinstance(box.ended, Kicked), "a node that stood still acts all the same"
    assert control.followed == {kind.value: int(kind is KICK) for kind in Kind}


async def test_thousands_of_sessions_leave_the_loop_its_turns(start_node: StartNode) -> None:
    node = await start_node()
    boxes = [(await signed_in(node, f"d{number % 50}", "ada"))[2] for number in range(2_000)]
    longest, before = 0.0, time.perf_counter()
    kicking = asyncio.create_task(node.hub.control.give(Instruction(KICK, user="ada")))
    turns = 0
    while any(box.ended is None for box in boxes):
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, before, turns = max(longest, now - before), now, turns + 1
    await kicking
    assert turns > 5, "it was done in slices"
    assert all(isinstance(box.ended, Kicked) for box in boxes)


async def test_what_cannot_be_read_now_is_followed_later(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    _, _, box = await signed_in(node, "a", "ada")
    broken = True

    async def instructions(after: int) -> list[StoredInstruction]:
        if broken:
            raise StoreUnavailable("switched off by the test")
        found: list[StoredInstruction] = await node.store._store.instructions(after)
        return found

    monkeypatch.setattr(node.store, "instructions", instructions, raising=False)
    await node.store.instruct(Instruction(KICK, user="ada"))
    node.hub.control.told()
    await happens(lambda: node.hub.control.behind, "it has looked in vain")
    assert box.ended is None
    broken = False
    await box.until(lambda: box.ended is not None, "it is followed")
    await node.store.append([Append("x", None, (NewRow(b"\0\0", 1.0),))])


async def test_a_node_that_finds_an_instruction_by_looking_tells_the_others(start_node: StartNode) -> None:
    exchange = LocalExchange()
    one, two = [await start_node(bus=LocalBus(exchange)) for _ in range(2)]
    two.store.blind = True
    _, _, box = await signed_in(two, "a", "ada")
    # As by a command whose message was lost.
    await one.store.instruct(Instruction(KICK, user="ada"))
    await box.until(lambda: box.ended is not None, "it was told by the one that looks")
