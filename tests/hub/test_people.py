"""Who is in documents and which connections there are, asked of hubs on one real store.

Strategy: members are the test's own, whose sockets say what it wants; pages are compared with one large page.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from typing import Any

import pytest

from collab.engine.agents import agent_id
from collab.errors import Overloaded
from collab.hub import people as people_module
from collab.hub import questions as questions_module
from collab.hub.control import check_instruction, until_reported
from collab.hub.member import ConnectionFacts, Member
from collab.hub.people import MAX_DOCUMENTS, MAX_SESSIONS, MAX_STATE, People, Place, Seen, read_connections, read_state
from collab.hub.questions import MAX_ANSWER, Answers
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, Event
from collab.storage.records import Instruction, Kind, StoredInstruction
from tests.hub.conftest import Box, Node, StartNode
from tests.hub.test_agents import created, show
from tests.hub.test_replication import Nodes
from tests.support.sessions import admit
from tests.support.waiting import happens

READ = Access.READ


@pytest.fixture
def nodes(start_node: StartNode) -> Nodes:
    return Nodes(start_node)


class Sockets:
    """The connections of a node, by their numbers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.boxes: list[Box] = []
        node.hub.people.sockets = lambda: [box.facts for box in self.boxes]

    async def join(
        self,
        name: str,
        user: str | None = None,
        state: str | None = None,
        client: int = 1,
        access: Access = Access.WRITE,
    ) -> Member:
        live, member, box = await self.node.join(name, access=access, answer=False)
        member.author = user
        box.number = len(self.boxes) + 1
        self.boxes.append(box)
        if state is not None:
            live.receive(member, AwarenessUpdate(encode_awareness([Entry(client, 1, state.encode())])))
        return member

    async def join_too(self, box: Box, name: str, user: str) -> None:
        """Let a socket open one more document."""
        live = await self.node.hub.open(name)
        member = Member(self.node.recorder, box, box)
        admit(member, Access.WRITE, user)
        box.places.append((name, member))
        live.join(member)


async def started(nodes: Nodes, count: int = 2) -> list[Sockets]:
    return [Sockets(await nodes.start()) for _ in range(count)]


def people(node: Sockets) -> People:
    found: People = node.node.hub.people
    return found


def name_of(node: Sockets) -> str:
    name: str = node.node.hub.membership.name
    return name


async def test_who_is_in_a_document_is_told_by_every_node(nodes: Nodes) -> None:
    one, two = await started(nodes)
    await created(one.node)
    await one.join("d", "ada", '{"user":{"name":"Ada","color":"#123"},"cursor":3}')
    await two.join("d", "bob", '{"user":{"name":"Bob"}}', 2, access=READ)
    await two.join("d")
    await two.join("e", "eve")
    await show(two.node)
    for node in (one, two):
        present, silent = await people(node).present("d")
        assert silent == () and present.complete and present.sessions == 4
        shown = {(person.name, person.user): person for person in present.people}
        ada, bob, bot = shown["Ada", "ada"], shown["Bob", "bob"], shown["Ada", "ada"]
        agent = next(person for person in present.people if person.agent is not None)
        assert (agent.agent, agent.protocol, agent.access, agent.connection) == ("bot", "agent", "write", None)
        assert agent.node == name_of(two) and agent.clients == [agent_id("d", "ada", "bot")]
        ada = next(person for person in present.people if person.connection == f"{name_of(one)}-1")
        assert (ada.user, ada.name, ada.color, ada.clients) == ("ada", "Ada", "#123", [1])
        assert (ada.protocol, ada.access) == ("y-websocket", "write") and abs(ada.since - time.time()) < 60
        assert (bob.connection, bob.access, bob.color) == (f"{name_of(two)}-1", "read", None)
        assert shown[None, None].clients == [] and bot.protocol in ("agent", "y-websocket")
        states = {state.client: state.state for state in present.states}
        assert states == {
            1: {"user": {"name": "Ada", "color": "#123"}, "cursor": 3},
            2: {"user": {"name": "Bob"}},
            agent_id("d", "ada", "bot"): {"user": {"name": "Ada", "sub": "ada"}},
        }
        nobody, silent = await people(node).present("nobody")
        assert (nobody.sessions, nobody.people, nobody.states, silent) == (0, [], [], ())


async def test_pages_of_documents_leave_nobody_out(nodes: Nodes) -> None:
    one, two = await started(nodes)
    for number in range(12):
        await (one if number % 3 else two).join(f"a/{number:02}", f"user {number}")
    await one.join("a/00")
    await one.join("b")
    whole = await people(one).list_present("a/", None, 200)
    assert [present.name for present in whole.items] == [f"a/{number:02}" for number in range(12)]
    assert whole.items[0].sessions == 2 and whole.following is None and whole.silent == ()
    for limit in (1, 5, 12):
        found: list[Any] = []
        after = None
        while True:
            page = await people(two).list_present("a/", after, limit)
            assert len(page.items) <= limit
            found += page.items
            if (after := page.following) is None:
                break
        assert found == whole.items
    everywhere = await people(one).list_present("", None, 200)
    assert [present.name for present in everywhere.items][-1] == "b"


async def test_a_page_ends_where_a_node_has_more_than_fits(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await started(nodes)
    for number in range(10):
        await (one if number % 2 else two).join(f"{number}", "x" * 100)
    whole = await people(one).list_present("", None, 200)
    monkeypatch.setattr(questions_module, "FULL", 500)
    found: list[Any] = []
    after, pages = None, 0
    while True:
        page = await people(one).list_present("", after, 200)
        found += page.items
        pages += 1
        if (after := page.following) is None:
            break
    assert found == whole.items and pages > 2


async def test_connections_are_told_by_every_node_in_one_order(nodes: Nodes) -> None:
    one, two = await started(nodes)
    for number in range(5):
        await one.join("d", f"user {number % 2}", access=READ if number else Access.ADMIN)
        await two.join("d" if number else "e", "user 1")
    await one.join("e", "user 7")
    await one.join_too(one.boxes[0], "e", "user 7")
    one.boxes[0].held = 77
    whole = await people(two).list_connections(None, None, None, None, 200)
    assert whole.following is None and whole.silent == ()
    names = sorted([name_of(one), name_of(two)])
    assert [seen.id for seen in whole.items] == [
        f"{name}-{number + 1}" for name in names for number in range(6 if name == name_of(one) else 5)
    ]
    first = next(seen for seen in whole.items if seen.id == f"{name_of(one)}-1")
    assert (first.users, first.address, first.protocol) == (["user 0", "user 7"], "192.0.2.1", "y-websocket")
    assert first.documents == [Place("d", "admin", False), Place("e", "write", False)]
    assert (first.open, first.waiting) == (2, 77)
    for limit in (1, 3, 11):
        found: list[Seen] = []
        after = None
        while True:
            page = await people(one).list_connections(None, None, None, after, limit)
            found += page.items
            if (after := page.following) is None:
                break
        assert [seen.id for seen in found] == [seen.id for seen in whole.items]

    async def ids(document: str | None = None, user: str | None = None, node: str | None = None) -> set[str]:
        page = await people(one).list_connections(document, user, node, None, 200)
        return {seen.id for seen in page.items}

    assert await ids(node=name_of(two)) == {f"{name_of(two)}-{number + 1}" for number in range(5)}
    assert await ids(user="user 7") == {f"{name_of(one)}-{number}" for number in (1, 6)}
    assert await ids(document="e") == {f"{name_of(one)}-{number}" for number in (1, 6)} | {f"{name_of(two)}-1"}
    assert await ids("e", "user 7") == {f"{name_of(one)}-{number}" for number in (1, 6)}
    assert await ids("e", "user 0") == set(), "it is on another document"
    assert await ids("nobody") == await ids(user="nobody") == await ids(node="nobody") == set()
    page = await people(one).list_connections("e", None, name_of(one), None, 200)
    assert [seen.documents for seen in page.items] == [[Place("e", "write", False)]] * 2, "no other document of it"


async def test_one_that_reads_too_slowly_is_shown_as_that(nodes: Nodes) -> None:
    (one,) = await started(nodes, 1)
    member = await one.join("d")
    member.on(Event.LAGGED)
    page = await people(one).list_connections(None, None, None, None, 1)
    assert page.items[0].documents == [Place("d", "write", True)]


@pytest.mark.parametrize("after", ["", "x", "-1", "x-", "x-١", "x-1" * 60])
async def test_what_is_no_place_to_go_on_is_refused(nodes: Nodes, after: str) -> None:
    (one,) = await started(nodes, 1)
    with pytest.raises(ValueError):
        await people(one).list_connections(None, None, None, after, 1)


# Nodes that say nothing


async def test_who_does_not_answer_is_named(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "ANSWER_SECONDS", 0.3)
    one, two = await started(nodes)
    await one.join("d", "ada")
    await two.join("d", "bob")
    two.node.hub.questions.receive = lambda heard: True  # it stands still
    two.node.hub._replication.questions.receive = two.node.hub.questions.receive
    present, silent = await people(one).present("d")
    assert [person.user for person in present.people] == ["ada"] and silent == (name_of(two),)
    page = await people(one).list_connections(None, None, None, None, 10)
    assert len(page.items) == 1 and page.silent == (name_of(two),)
    one.node.store.down = True  # then the last heartbeat says who lives
    await one.node.hub.membership.beat()
    one.node.hub.membership.nodes = await two.node.store._store.list_nodes()
    monkeypatch.setattr(one.node.store, "list_nodes", _down, raising=False)
    one.node.hub.questions._alive = _down
    assert (await people(one).present("d"))[1] == (name_of(two),)


async def _down() -> Any:
    from collab.errors import StoreUnavailable

    raise StoreUnavailable("switched off by the test")


async def test_a_node_without_a_bus_is_silent(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "ANSWER_SECONDS", 0.2)
    one, two = Sockets(await start_node()), Sockets(await start_node())
    await one.join("d", "ada")
    assert (await people(one).present("d"))[1] == (name_of(two),)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"items": 7},
        {"items": [{}]},
        {"items": [7]},
        {"items": [{"name": "d", "sessions": "x", "people": [], "states": [], "complete": True}]},
        {"items": [{"name": "d", "sessions": 1, "people": [{"number": 1}], "states": [], "complete": True}]},
    ],
)
def test_an_answer_of_another_release_is_no_answer(said: Any) -> None:
    answers = Answers({"a": said, "b": {"items": [], "more": False}}, ("c",))
    assert people_module._merge_presence(answers, 10).silent == ("a", "c")
    assert people_module._merge_connections(answers, 10).silent == ("a", "c")


async def test_a_question_of_a_later_release_is_not_answered(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "ANSWER_SECONDS", 0.1)
    one, two = await started(nodes)
    answers = await one.node.hub.questions.ask({"kind": "dance"})
    assert answers == ({}, (name_of(two),))


async def test_too_many_questions_at_a_time_are_refused(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_module, "_WAITING", 3)
    monkeypatch.setattr(questions_module, "ANSWER_SECONDS", 0.2)
    one, two = await started(nodes)
    two.node.hub._replication.questions.receive = lambda heard: True
    same = [asyncio.create_task(people(one).present("d")) for _ in range(50)]
    others = [asyncio.create_task(people(one).present(f"e{number}")) for number in range(2)]
    await asyncio.sleep(0)
    await happens(lambda: one.node.hub.questions._waiting == 3, "they are asked")
    with pytest.raises(Overloaded):
        await people(one).present("one more")
    assert len({id(found) for found in await asyncio.gather(*same, *others)}) == 52
    await people(one).present("one more")


@pytest.mark.parametrize(
    "payload",
    [
        b"\x18",
        b"\x18\x01\x02{}{}",
        b"\x18\x01\x01{",
        b"\x18\x01\x02[]",
        b"\x18\x01\x04null",
        b"\x19\x01\x02{}",
        b"\x19\x01\x01x",
    ],
)
async def test_what_cannot_be_read_harms_nothing(nodes: Nodes, payload: bytes) -> None:
    from collab.cluster.messages import QUESTIONS, answers_topic

    one, two = await started(nodes)
    bus = next(bus for bus in nodes.exchange.nodes.values() if bus.node == two.node.hub.bus.node)
    for topic in (QUESTIONS, answers_topic(one.node.hub.bus.node)):
        bus.publish(topic, payload)
    await one.join("d", "ada")
    present, silent = await people(two).present("d")
    assert present.sessions == 1 and silent == ()


# Bounds


async def test_an_answer_has_a_bound_whatever_people_show(nodes: Nodes) -> None:
    one, two = await started(nodes)
    wide = '{"user":{"name":"' + "\U0001f600" * 400 + '","color":"\\ud800"},"x":"' + "ä" * 900 + '"}'
    for number in range(MAX_SESSIONS + 20):
        await one.join("d", "\U0001f600" * 500, wide, number + 1)
    present, silent = await people(two).present("d")
    assert silent == () and present.sessions == MAX_SESSIONS + 20 and not present.complete
    assert 0 < len(present.people) < MAX_SESSIONS and 0 < len(present.states) < MAX_SESSIONS
    for answer in (
        await people(one).answer({"kind": "presence", "prefix": "", "limit": 200}),
        await people(one).answer({"kind": "connections", "limit": 200}),
    ):
        assert len(json.dumps(answer)) < MAX_ANSWER
    assert present.people[0].name == "\U0001f600" * 100 and present.people[0].color == "?"


async def test_of_a_socket_with_many_documents_some_are_shown(nodes: Nodes) -> None:
    (one,) = await started(nodes, 1)
    member = await one.join("d", "ada")
    one.boxes[0].places += [(f"d{number}", member) for number in range(100)]
    (seen,) = (await people(one).list_connections(None, None, None, None, 1)).items
    assert len(seen.documents) == MAX_DOCUMENTS and seen.open == 101


async def test_many_connections_leave_the_loop_its_turns(nodes: Nodes) -> None:
    (one,) = await started(nodes, 1)
    facts = ConnectionFacts(1, "y-websocket", "192.0.2.1", 0.0, 0, [])
    one.node.hub.people.sockets = lambda: [
        lambda number=number: facts._replace(number=number) for number in range(1, 20_001)
    ]
    asking = asyncio.create_task(people(one).list_connections(None, "nobody", None, None, 10))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5 and asking.result().items == []


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ('{"a":[1,2.5,true,null,"ä"]}', {"a": [1, 2.5, True, None, "ä"]}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud800"', "?"),
        ('{"\\udc00":1}', {"?": 1}),
        ("1e999", None),
        ("[-1e999]", [None]),
        ("9" * 4_301, None),
        ("[" * 2_000 + "]" * 2_000, None),
        ("[" * 300 + "]" * 300, None),
        ('{"a":' * 64 + "1" + "}" * 64, None),
        ("[" * 3 + "]" * 3, [[[]]]),
        ('"' + "x" * MAX_STATE + '"', None),
        ('"' + "x" * (MAX_STATE - 2) + '"', "x" * (MAX_STATE - 2)),
    ],
)
def test_states_are_shown_as_json_that_anybody_can_encode(state: str, shown: Any) -> None:
    found = read_state(Entry(1, 1, state.encode()))
    assert found == shown
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


# What commands ask for


async def test_a_command_is_told_by_every_node_through_the_store(nodes: Nodes) -> None:
    one, two = await started(nodes)
    for number in range(3):
        await one.join("d", "ada")
        await two.join("e", f"user {number}")
    store = one.node.store
    for instruction, count in (
        (Instruction(Kind.LIST), 6),
        (Instruction(Kind.LIST, document="d"), 3),
        (Instruction(Kind.LIST, user="user 1"), 1),
    ):
        number = await store.instruct(instruction)
        one.node.hub.control.told()
        reports = await until_reported(store, number, one.node.hub.tell_nodes)
        assert reports.complete and len(reports.reports) == 2
        found, more, unread = read_connections(await store.answers(number))
        assert len(found) == count and not more and unread == ()


async def test_an_old_question_is_answered_no_more(nodes: Nodes) -> None:
    (one,) = await started(nodes, 1)
    stored = StoredInstruction(1_000_000, 61.0, 500.0, Instruction(Kind.LIST))
    await one.node.hub.control._follow(stored)
    assert await one.node.store.answers(1_000_000) == {} and one.node.hub.control.followed["connections"] == 1


@pytest.mark.parametrize(
    "data", [b"", b"x", zlib.compress(b"x"), zlib.compress(b"{}"), zlib.compress(b'{"items":[7]}')]
)
def test_an_answer_that_cannot_be_read_is_named(data: bytes) -> None:
    good = zlib.compress(b'{"items":[],"more":true}')
    assert read_connections({"b": data, "a": good}) == ([], True, ("b",))


def test_a_command_may_not_ask_for_one_connection() -> None:
    with pytest.raises(ValueError):
        check_instruction(Instruction(Kind.LIST, connection="node-1"))
