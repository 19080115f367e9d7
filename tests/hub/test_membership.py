"""The heartbeat of a node: what it shows, what it compares, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import pytest

from collab.errors import ConfigurationError, StoreUnavailable
from collab.hub import hub as hub_module
from collab.hub.membership import CLOCK_SECONDS, WHY, Membership, NodeFacts, read_settings
from collab.protocol.sync import SyncUpdate
from collab.storage.membership import LOST_BEATS, Node
from collab.storage.memory import MemoryStorage, MemoryStore
from tests.hub.conftest import StartNode
from tests.support.author import Author
from tests.support.waiting import eventually, happens

OPEN = {"authentication": "none"}
CLOSED = {"authentication": "tokens", "tokens": "1f2e"}


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Nodes on one storage, whose clock the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.storage = MemoryStorage()

    def store(self) -> MemoryStore:
        return MemoryStore(self.storage, clock=self.clock)

    def node(self, prefix: str, **settings: str) -> Membership:
        return Membership(self.store(), NodeFacts("1.2.3", "process", settings), lambda: 7, prefix, self.clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "collab.nodes"]


async def test_a_heartbeat_says_what_a_node_is() -> None:
    cluster = Cluster()
    one = cluster.node("one", stateless="relay")
    one.facts.connections = lambda: 3
    await one.join()
    one.listens("http://0.0.0.0:1234")
    assert one.due, "where it listens is told soon"
    await one.beat()
    (found,) = await cluster.store().list_nodes()
    assert found.name == one.name and found.name.startswith("one-")
    assert found[2:9] == ("1.2.3", "process", '{"stateless": "relay"}', 7, 3, 5.0, 1e9)
    assert found.address.startswith("http://") and found.address.endswith(":1234") and "0.0.0.0" not in found.address
    assert one.alive == 1 and not one.due
    one.listens("https://[::1]:1")
    assert one.facts.address == "https://[::1]:1"
    await one.leave()
    assert await cluster.store().list_nodes() == []
    assert cluster.node("one").name != one.name, "one that comes back is another one"


async def test_a_node_that_falls_silent_counts_as_gone_and_is_forgotten() -> None:
    cluster = Cluster()
    one, two = cluster.node("one"), cluster.node("two")
    await one.join()
    await two.join()
    assert two.alive == 2
    cluster.clock.now += LOST_BEATS * 5.0
    await two.beat()
    assert two.alive == 1
    assert [node.alive for node in await cluster.store().list_nodes()] == [False, True]
    cluster.clock.now += 3_600.0
    await two.beat()
    assert [node.name for node in await cluster.store().list_nodes()] == [two.name]


async def test_a_heartbeat_that_cannot_be_stored_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    away: list[bool] = []

    async def travel() -> None:
        await asyncio.sleep(0)
        if away[-1]:
            raise StoreUnavailable("it is away")

    one = Membership(MemoryStore(travel=travel), NodeFacts(), lambda: 0, "one")
    with caplog.at_level(logging.INFO, "collab.nodes"):
        for now in (True, True, True, False, False):
            away.append(now)
            await one.beat()
        away.append(True)
        await one.leave()
    assert lines(caplog) == [
        "other nodes are not shown that this one lives: it is away",
        "other nodes are shown again that this one lives",
    ]


async def test_a_clock_that_is_wrong_is_told_once_and_when_it_is_right_again(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    ahead = 0.0
    one = Membership(cluster.store(), NodeFacts(), lambda: 0, "one", lambda: cluster.clock() + ahead)
    with caplog.at_level(logging.INFO, "collab.nodes"):
        for seconds in (0.0, CLOCK_SECONDS, 3_600.0, 3_600.0):
            ahead = seconds
            await one.beat()
        assert (one.ahead, one.clock_is_wrong) == (3_600.0, "3600 s ahead of that of the database")
        ahead = -90.0
        await one.beat()
        assert (one.ahead, one.clock_is_wrong) == (-90.0, "90 s behind that of the database")
        ahead = 0.0
        await one.beat()
        assert (one.ahead, one.clock_is_wrong) == (0.0, None)
    wrong = "the clock of this machine is 3600 s ahead of that of the database"
    assert lines(caplog) == [
        f"{wrong}: tokens are taken for expired, or for not valid yet",
        "the clock of this machine agrees with that of the database again",
    ]


async def test_a_heartbeat_that_took_long_says_nothing_of_the_clock() -> None:
    cluster = Cluster()
    seen = iter((0.0, 30.0))  # before and after: the storage has noted a moment between them
    one = Membership(cluster.store(), NodeFacts(), lambda: 0, "one", lambda: cluster.clock() - 10.0 + next(seen))
    await one.beat()
    assert one.ahead == 0.0


async def test_what_should_be_alike_is_told_once_with_both_values(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    one = cluster.node("one", max_document_bytes="1000", stateless="relay", unknown="1")
    two = cluster.node("two", max_document_bytes="2000", stateless="relay", unknown="2")
    three = cluster.node("three", max_document_bytes="2000", stateless="off")
    for node in (one, two, three):
        node.facts.address = "http://here:1"
        cluster.clock.now += 1.0
        await node.join()
    for _ in range(3):
        await one.beat()
    told = lines(caplog)
    assert len(told) == 2, "nodes that are changed one after the other are one difference"
    assert told[0].startswith(
        f"max_document_bytes is 1000 here and 2000 on the node {two.name} (http://here:1); it should be the same on all"
    )
    assert told[1].startswith(f"stateless is relay here and off on the node {three.name}")
    caplog.clear()
    cluster.clock.now += 1_000.0
    await one.beat()
    await cluster.node("four", stateless="other").join()
    await one.beat()
    (told_later,) = lines(caplog)
    assert told_later.startswith("stateless is relay here and other on the node four")


@pytest.mark.parametrize("settings", ["", "[]", '"text"', '{"max_document_bytes": 7}', '{"history_days": "long"}'])
async def test_what_another_release_says_of_itself_does_no_harm(
    settings: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    other = Node("other", "", "9", "bus", settings, 0, 0, 5.0)
    await cluster.store().beat(other)
    assert all(isinstance(value, str) for value in read_settings(other).values())
    one = cluster.node("one", max_document_bytes="1", **OPEN)
    await one.join()
    await one.beat()
    assert lines(caplog) == [] and one.history(7.0) == 7.0


@pytest.mark.parametrize(
    ("there", "here", "refused"),
    [(CLOSED, OPEN, True), (OPEN, CLOSED, False), (CLOSED, CLOSED, False), (OPEN, OPEN, False), ({}, OPEN, False)],
)
async def test_a_node_that_would_let_everybody_in_beside_one_that_does_not_is_refused(
    there: dict[str, str], here: dict[str, str], refused: bool
) -> None:
    cluster = Cluster()
    first, second = cluster.node("first", **there), cluster.node("second", **here)
    await first.join()
    if not refused:
        await second.join()
        return
    with pytest.raises(ConfigurationError) as caught:
        await second.join()
    assert first.name in str(caught.value) and "same authentication" in str(caught.value)
    assert [node.name for node in await cluster.store().list_nodes()] == [first.name]
    await first.leave()
    await second.join()
    await first.join()


async def test_a_node_that_died_keeps_nobody_out() -> None:
    cluster = Cluster()
    await cluster.node("first", **CLOSED).join()
    cluster.clock.now += LOST_BEATS * 5.0
    await cluster.node("second", **OPEN).join()


async def test_history_is_kept_for_the_node_that_wants_most() -> None:
    cluster = Cluster()
    one, two = cluster.node("one", history_days="1"), cluster.node("two", history_days="30")
    await one.join()
    assert one.history(86_400.0) == 86_400.0
    await two.join()
    await one.beat()
    assert one.history(86_400.0) == 30 * 86_400.0
    assert two.history(30 * 86_400.0) == 30 * 86_400.0
    await two.leave()
    await one.beat()
    assert one.history(86_400.0) == 86_400.0


def test_each_difference_is_explained() -> None:
    assert all(why and not why.endswith(".") for why in WHY.values())
    assert json.loads(json.dumps(dict(WHY))) == dict(WHY)


# In a hub


async def test_a_hub_shows_that_it_lives_and_leaves_when_it_stops(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_SIGN_OF_LIFE", 0.02)
    node = await start_node()
    other = await start_node()
    assert [each.alive for each in await other.store.list_nodes()] == [True, True]
    live, member, box = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    node.hub.membership.listens("http://127.0.0.1:1234")

    async def shown() -> dict[str, tuple[int, str]]:
        return {each.name: (each.documents, each.address) for each in await other.store.list_nodes()}

    async def told() -> bool:
        return (await shown())[node.hub.membership.name] == (1, "http://127.0.0.1:1234")

    await eventually(told, "what is new")
    await node.stop()
    assert list(await shown()) == [other.hub.membership.name]


async def test_a_hub_that_must_not_serve_starts_nothing(start_node: StartNode) -> None:
    await start_node(node=NodeFacts(settings=CLOSED))
    with pytest.raises(ConfigurationError):
        await start_node(node=NodeFacts(settings=OPEN))


async def test_a_hub_prunes_nothing_that_another_node_wants_to_keep(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.01)
    other = await start_node(node=NodeFacts(settings={"history_days": "30", "trash_days": "20"}))
    asked: list[float] = []
    trashed: list[float] = []
    node = await start_node(
        history=60.0, trash=60.0, node=NodeFacts(settings={"history_days": "0.0007", "trash_days": "0.0007"})
    )
    prune = node.store._store.prune

    async def noting(*, before: float, trash_before: float, **given: Any) -> int:
        asked.append(time.time() - before)
        trashed.append(time.time() - trash_before)
        return int(await prune(before=before, trash_before=trash_before, **given))

    monkeypatch.setattr(node.store._store, "prune", noting)
    await happens(lambda: len(asked) > 1, "it looks for what may go")
    assert min(asked) > 29 * 86_400.0
    assert 19 * 86_400.0 < min(trashed) < 21 * 86_400.0
    await other.stop()
    await node.hub.membership.beat()
    asked.clear()
    trashed.clear()
    await happens(lambda: len(asked) > 1, "it looks again")
    assert max(asked[1:]) < 100.0 and max(trashed[1:]) < 100.0
