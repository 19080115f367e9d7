"""Whose client IDs are, from members to the store: on one node, on two, and after a backup was restored.

What decides is tested in ``tests/engine/test_first_use.py``.
"""

from __future__ import annotations

from collab.hub.room import LiveRoom
from collab.protocol.session import Access
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.storage.records import ClientOwner
from tests.hub.conftest import Acknowledged, Box, Node, StartNode
from tests.hub.test_healing import Backup, backup, healed
from tests.support.author import Author
from tests.support.gone import Gone
from tests.support.waiting import happens

__all__ = ["backup"]  # a fixture


class Person:
    """A signed-in member that types, with a client ID of its own."""

    def __init__(self, node: Node, live: LiveRoom, member: Acknowledged, box: Box, client: int) -> None:
        self.node, self.live, self.member, self.box = node, live, member, box
        self.author = Author(client)

    @classmethod
    async def join(cls, node: Node, name: str | None, client: int, document: str = "d") -> Person:
        live, member, box = await node.join(document, kind=Acknowledged, access=Access.WRITE)
        assert isinstance(member, Acknowledged)
        member.identify(name)
        return cls(node, live, member, box, client)

    async def save(self, text: str = "a") -> None:
        """Type, and wait until it is in the log."""
        self.live.receive(self.member, SyncUpdate(self.author.type(text)))
        await self.node.write(self.live)


async def owners(node: Node, name: str = "d") -> list[tuple[int, str | None, int, int]]:
    """Give what the store knows: client, user, number of the row, first clock."""
    loaded = await node.stored(name)
    found: list[ClientOwner] = await node.store.client_owners(loaded.document.id, -1, 99)
    return [(owner.client, owner.author, owner.seq, owner.clock) for owner in found]


async def test_ids_are_stored_with_the_rows_that_decide(start_node: StartNode) -> None:
    node = await start_node()
    ann, bob, guest = [await Person.join(node, name, client) for client, name in ((1, "ann"), (2, "bob"), (3, None))]
    for person in (bob, ann, guest, ann, bob):
        await person.save()
    assert await owners(node) == [(1, "ann", 2, 0), (2, "bob", 1, 0)]
    loaded = await node.stored("d")
    (first, *_) = await node.store.client_owners(loaded.document.id, -1, 99)
    assert first.at == loaded.rows[1].at


async def test_ids_of_one_turn_have_the_rows_of_their_users(start_node: StartNode) -> None:
    node = await start_node()
    node.keep_busy()
    ann, bob = await Person.join(node, "ann", 1), await Person.join(node, "bob", 2)
    for person in (ann, bob):
        person.live.receive(person.member, SyncUpdate(person.author.type("a")))
    await node.write(ann.live)
    assert await owners(node) == [(1, "ann", 1, 0), (2, "bob", 2, 0)]


async def test_what_was_kept_and_what_a_step_2_brings_decide_nothing(start_node: StartNode) -> None:
    node, gone = await start_node(), Gone(client=100)
    ann, bob = await Person.join(node, "ann", 1), await Person.join(node, "bob", 2)
    ann.live.receive(ann.member, SyncUpdate(gone.rest))
    await node.write(ann.live)
    bob.live.receive(bob.member, SyncStep2(gone.missing))
    await bob.box.until(lambda: bob.box.text() == gone.whole, "what was kept is taken")
    await node.write(bob.live)
    rows = (await node.stored("d")).rows
    assert [row.author for row in rows] == ["bob", "ann"] and await owners(node) == []


async def test_a_row_of_another_node_decides_nothing_here(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    nobody, reader = await Person.join(one, None, 1), await Person.join(two, "bob", 2)
    await nobody.save("from the other node")
    await reader.save()
    await reader.box.until(lambda: "other" in reader.box.text(), "the second node has read it")
    await reader.save()
    assert await owners(two) == [(2, "bob", 2, 0)]
    assert [use.client for use in reader.live.room.first_uses()] == [2]


async def test_the_first_node_decides_and_the_other_one_changes_nothing(start_node: StartNode) -> None:
    one, two = await start_node(), await start_node()
    ann, eve = await Person.join(one, "ann", 1), await Person.join(two, "eve", 1)
    await ann.save("a")
    eve.author.read(ann.author.updates[-1])
    await eve.box.until(lambda: eve.box.text() == "a", "the second node has read it")
    await eve.save("b")
    assert await owners(two) == await owners(one) == [(1, "ann", 1, 0)]


async def test_ids_are_decided_once_for_each_time_that_a_document_is_in_memory(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    ann = await Person.join(node, "ann", 1)
    await ann.save()
    ann.live.leave(ann.member)
    await happens(lambda: "d" not in node.hub.rooms, "the room leaves memory")
    again = await Person.join(node, "bob", 1)  # the same copy, and somebody else is signed in
    again.author = ann.author
    await again.save()
    assert await owners(node) == [(1, "ann", 1, 0)]


async def test_a_database_that_went_back_is_told_again(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    ann, bob, eve = [await Person.join(node, name, client) for client, name in ((1, "ann"), (2, "bob"), (3, "eve"))]
    await ann.save("old")
    backup.keep()
    await bob.save("new")
    await bob.save("newer")
    # What only another one sends again keeps its owner, and makes none for who has sent it.
    eve.live.receive(eve.member, SyncStep2(bob.author.updates[-1]))
    backup.restore()
    await ann.save("newest")
    await healed(node)
    (_, healing, *_) = (await node.stored("d")).rows
    assert healing.author is None
    assert await owners(node) == [(1, "ann", 1, 0), (2, "bob", healing.seq, 0)]


async def test_a_database_without_owners_is_told_again_where_no_row_is_lost(
    start_node: StartNode, backup: Backup
) -> None:
    node = await start_node()
    ann = await Person.join(node, "ann", 1)
    await ann.save()
    backup.run("DELETE FROM client_owners", "DELETE FROM writers")
    await ann.save()
    await healed(node)
    assert (1, "ann") in [owner[:2] for owner in await owners(node)]
    assert len((await node.stored("d")).rows) == 2
