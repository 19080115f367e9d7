"""Agents of hubs on one real store: their lifetime, their rights, other nodes, and rooms that end.

Strategy: what people see is read from the awareness of members. Time is let pass by giving the sweep a later one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from collab.engine.agents import agent_id
from collab.errors import (
    AccessExpired,
    AccessUnavailable,
    CollabError,
    DecodeError,
    DocumentDeleted,
    DocumentNotFound,
    Forbidden,
    InternalError,
    LimitExceeded,
)
from collab.hub import agents as agents_module
from collab.hub.agents import RENEW_SECONDS, Caller, TooManyAgents, TooOften
from collab.hub.documents import Documents
from collab.protocol.awareness import AwarenessUpdate, Entry, User, encode_awareness
from collab.protocol.session import Access
from collab.storage.records import Instruction, Kind
from tests.hub.conftest import Box, Node, StartNode
from tests.hub.test_replication import Nodes, Steady
from tests.support.waiting import happens

STATE = b'{"user":{"name":"Bot"}}'
BOT = agent_id("d", "ada", "bot")


class Rights:
    """What the user of an agent may do, as the test says."""

    def __init__(self) -> None:
        self.access: Access | CollabError = Access.WRITE
        self.asked = 0

    async def __call__(self) -> Access:
        self.asked += 1
        if isinstance(self.access, CollabError):
            raise self.access
        return self.access


def caller(author: str | None = "ada", left: float | None = None, rights: Rights | None = None) -> Caller:
    user = None if author is None else User(author, author.title())
    return Caller(author, user, Access.WRITE, left, Rights() if rights is None else rights)


async def show(node: Node, ident: str = "bot", state: bytes = STATE, seconds: float = 60.0, **more: Any) -> Any:
    return await node.hub.agents.show("d", ident, state, seconds, caller(**more))


def seen(box: Box, client: int = BOT) -> str | None:
    """Give the name that a member sees."""
    _, state = box.awareness().get(client, (0, "null"))
    value = json.loads(state)
    return None if value is None else value["user"]["name"]


async def created(node: Node) -> None:
    await Documents(node.hub.store, node.hub).create("d")


@pytest.fixture
def nodes(start_node: StartNode) -> Nodes:
    return Nodes(start_node)


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    found: Node = await start_node(idle_seconds=0.2)
    await created(found)
    return found


async def test_an_agent_is_seen_until_its_lifetime_ends(node: Node) -> None:
    live, _, box = await node.join("d")
    shown = await show(node, seconds=60)
    assert shown.client == BOT and json.loads(shown.state) == {"user": {"name": "Ada", "sub": "ada"}}
    await box.until(lambda: seen(box) == "Ada", "the agent")
    now = node.hub.now()
    assert abs(shown.until - node.hub.clock() - 60) < 5
    node.hub.agents.sweep(now + 59)
    assert len(node.hub.agents) == 1 and live.agents
    node.hub.agents.sweep(now + 61)
    await box.until(lambda: seen(box) is None, "its end")
    assert len(node.hub.agents) == 0 and not live.agents


async def test_it_is_renewed_before_clients_take_it_for_gone(node: Node) -> None:
    _, _, box = await node.join("d")
    await show(node)
    await box.until(lambda: seen(box), "the agent")
    clock = box.awareness()[BOT][0]
    node.hub.agents.sweep(node.hub.now() + RENEW_SECONDS - 3)
    node.hub.agents.sweep(node.hub.now() + RENEW_SECONDS)
    await box.until(lambda: box.awareness()[BOT][0] > clock, "a greater clock")
    assert seen(box) == "Ada"
    node.hub.agents.sweep(node.hub.now() + RENEW_SECONDS)
    assert not _room(node).room.pending, "once is enough"


def _room(node: Node) -> Any:
    return node.hub.rooms["d"]


async def test_what_it_shows_changes_and_its_lifetime_begins_again(node: Node) -> None:
    _, _, box = await node.join("d")
    await show(node, state=b'{"cursor":1}', author=None, seconds=1)
    client = agent_id("d", None, "bot")
    await show(node, state=b'{"cursor":2}', author=None, seconds=600)
    await box.until(lambda: box.awareness().get(client, (0, ""))[1] == '{"cursor":2}', "the new state")
    node.hub.agents.sweep(node.hub.now() + 500)
    assert len(node.hub.agents) == 1


async def test_an_end_is_told_at_once(node: Node) -> None:
    _, _, box = await node.join("d")
    await show(node)
    await box.until(lambda: seen(box), "the agent")
    assert await node.hub.agents.end("d", "bot", "eve") == (False, ()), "it is another user's"
    assert await node.hub.agents.end("d", "bot", "ada") == (True, ())
    await box.until(lambda: seen(box) is None, "its end")
    assert await node.hub.agents.end("d", "bot", "ada") == (False, ())


async def test_a_room_with_an_agent_alone_stays_in_memory(node: Node) -> None:
    await show(node)
    live = _room(node)
    live.idle_since = float("-inf")
    sweeps = node.hub.now() + 1.0
    await happens(lambda: node.hub.now() > sweeps, "some sweeps")
    assert node.hub.rooms["d"] is live
    await node.hub.agents.end("d", "bot", "ada")
    await happens(lambda: "d" not in node.hub.rooms, "it leaves memory")


async def test_there_is_none_where_there_is_no_document(node: Node) -> None:
    with pytest.raises(DocumentNotFound):
        await node.hub.agents.show("e", "bot", STATE, 60, caller())
    await Documents(node.hub.store, node.hub).delete("d")
    with pytest.raises(DocumentDeleted):
        await show(node)
    assert len(node.hub.agents) == 0


@pytest.mark.parametrize(("state", "error"), [(b"{", DecodeError), (b'"' + b"x" * 70_000 + b'"', LimitExceeded)])
async def test_a_state_that_cannot_be_shown_leaves_nothing(node: Node, state: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await show(node, state=state)
    assert len(node.hub.agents) == 0 and not _room(node).agents
    await show(node)
    with pytest.raises(error):
        await show(node, state=state)
    assert len(node.hub.agents) == 1 and _room(node).agents


async def test_there_are_so_many_at_most(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for what, most in (
        ("MAX_OF_DOCUMENT", "on this document"),
        ("MAX_OF_USER", "of this user"),
        ("MAX_OF_NODE", "on this server"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(agents_module, what, 2)
            await show(node, "a")
            await show(node, "b")
            with pytest.raises(TooManyAgents) as caught:
                await show(node, "c")
            assert caught.value.public == f"there are 2 agents {most} already"
            await show(node, "a")
            await node.hub.agents.end("d", "a", "ada")
            await show(node, "c")
            for ident in "bc":
                await node.hub.agents.end("d", ident, "ada")
    assert not node.hub.agents._of_document and not node.hub.agents._of_user


async def test_one_that_changes_too_often_is_told_when_it_may_again(node: Node) -> None:
    with pytest.raises(TooOften) as caught:
        for _ in range(100):
            await show(node)
    assert 0 < caught.value.seconds <= 0.25


async def test_it_lasts_no_longer_than_the_access_of_its_user(node: Node) -> None:
    shown = await show(node, seconds=600, left=10.0)
    assert shown.until - node.hub.clock() < 11
    node.hub.agents.sweep(node.hub.now() + 11)
    assert len(node.hub.agents) == 0


# What operators tell


@pytest.mark.parametrize(
    ("instruction", "ends"),
    [
        (Instruction(Kind.KICK, user="ada"), True),
        (Instruction(Kind.KICK, document="d"), True),
        (Instruction(Kind.KICK, document="d", user="ada"), True),
        (Instruction(Kind.KICK, user="eve"), False),
        (Instruction(Kind.KICK, document="e", user="ada"), False),
        (Instruction(Kind.KICK, document="d", connection="x-1"), False),
    ],
)
async def test_a_kick_ends_it_with_the_sessions_of_its_user(node: Node, instruction: Instruction, ends: bool) -> None:
    await show(node)
    reports = await node.hub.control.give(instruction)
    assert reports.reports[0].ended == ends and len(node.hub.agents) == (not ends)


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
    await show(node, rights=rights)
    reports = await node.hub.control.give(Instruction(Kind.CHECK, user="ada"))
    assert reports.reports[0][1:4] == report and rights.asked == 1
    assert len(node.hub.agents) == 1 - report[0]
    await node.hub.control.give(Instruction(Kind.CHECK, user="eve"))
    assert rights.asked == 1


# Rooms that end


async def test_it_is_there_again_when_its_document_is_read_again(node: Node) -> None:
    await show(node)
    for how in ("reload", "defect"):
        before = _room(node)
        if how == "reload":
            await node.hub.reload("d")
        else:
            node.hub.failed(before, RuntimeError("a defect"))
        assert "d" not in node.hub.rooms
        node.hub.agents._held[BOT].again_at = 0.0
        await happens(lambda before=before: node.hub.rooms.get("d", before) is not before, "it is opened again")
        _, member, box = await node.join("d")
        await box.until(lambda box=box: seen(box) == "Ada", "the agent")
        assert len(node.hub.agents) == 1
        _room(node).leave(member)


@pytest.mark.parametrize("how", ["deleted", "renamed"])
async def test_it_goes_with_its_document(node: Node, how: str) -> None:
    await show(node)
    documents = Documents(node.hub.store, node.hub)
    await (documents.delete("d") if how == "deleted" else documents.rename("d", "e"))
    await happens(lambda: len(node.hub.agents) == 0, "it is forgotten")


async def test_what_cannot_be_opened_now_is_tried_again(node: Node) -> None:
    await show(node)
    node.store.down = True
    node.hub.evict(_room(node), InternalError("a test"))
    await happens(lambda: node.hub.agents._held[BOT].again_at > 0, "it was tried")
    node.store.down = False
    node.hub.agents._held[BOT].again_at = 0.0
    await happens(lambda: BOT in node.hub.agents._held and node.hub.agents._held[BOT].agent.shown, "it is shown")


# Other nodes


async def test_it_is_seen_on_all_nodes_and_goes_with_its_own(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, here = await one.join("d")
    _, _, there = await two.join("d")
    await show(one)
    for box in (here, there):
        await box.until(lambda box=box: seen(box) == "Ada", "the agent")
    _, _, late = await two.join("d")
    await late.until(lambda: seen(late) == "Ada", "the agent, for a newcomer")
    await one.stop()
    await there.until(lambda: seen(there) is None, "it goes with its node")


@pytest.mark.parametrize("bus", [None, Steady])
async def test_its_caller_may_come_to_another_node_each_time(nodes: Nodes, bus: Any) -> None:
    more = {} if bus is None else {"bus": bus}
    one, two = await nodes.start(**more), await nodes.start(**more)
    await created(one)
    _, _, here = await one.join("d")
    _, _, there = await two.join("d")
    for turn, each in enumerate((one, two, one, two, two)):
        await show(each, state=b'{"user":{"name":"x"},"turn":%d}' % turn)
        for box in (here, there):
            await box.until(
                lambda box=box, turn=turn: f'"turn":{turn}' in box.awareness().get(BOT, (0, ""))[1], f"turn {turn}"
            )
    await happens(lambda: (len(one.hub.agents), len(two.hub.agents)) == (0, 1), "the first one has let go of it")
    assert all(
        state != "null"
        for box in (here, there)
        for message in box.messages
        if isinstance(message, AwarenessUpdate)
        for state in [message.payload[-4:].decode(errors="replace")]
    ), "nobody has seen it leave"
    # And its end is told to any.
    assert await one.hub.agents.end("d", "bot", "ada") == (True, ())
    for box in (here, there):
        await box.until(lambda box=box: seen(box) is None, "its end")


async def test_a_node_that_has_just_opened_the_document_shows_it_with_a_greater_clock(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, here = await one.join("d")
    await show(one)
    await here.until(lambda: seen(here), "the agent")
    two.hub.clock = lambda: 0.0  # the time there is wrong
    clock = here.awareness()[BOT][0]
    await show(two, state=b'{"user":{"name":"x"},"new":1}')
    await here.until(lambda: '"new":1' in here.awareness()[BOT][1], "the new state")
    assert here.awareness()[BOT][0] == clock + 1


async def test_a_session_of_another_node_cannot_take_it(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    await show(one)
    live, member, box = await two.join("d", answer=False)
    member.author = "ada"
    live.receive(member, AwarenessUpdate(encode_awareness([Entry(BOT, 1 << 30, b'{"user":{"name":"Eve"}}')])))
    assert len(box.unseen) == 1 and "for agents" in box.unseen[0].public
    await box.until(lambda: seen(box) == "Ada", "the agent of the other node")
    assert _room(one).room.awareness.everything() == _room(two).room.awareness.everything()


async def test_two_that_are_shown_at_once_become_one(nodes: Nodes) -> None:
    one, two = await nodes.start(), await nodes.start()
    await created(one)
    _, _, here = await one.join("d")
    _, _, there = await two.join("d")
    await asyncio.gather(show(one), show(two))

    async def settle() -> None:
        for node in (one, two):
            node.hub.agents.sweep(node.hub.now() + RENEW_SECONDS)
            await asyncio.sleep(0.1)

    await settle()
    await happens(lambda: len(one.hub.agents) + len(two.hub.agents) == 1, "one node has it")
    await happens(lambda: here.awareness()[BOT] == there.awareness()[BOT], "all see the same")
