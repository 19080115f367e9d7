"""The tests of membership: heartbeats, goodbyes, and who is listed."""

from __future__ import annotations

from collab.storage.membership import LOST_BEATS, Node
from collab.storage.store import Store
from collab.testing.storage import OnStorage, OpenStore, data_of, put

ONE = Node("one", "http://ærø:1234/'\"", "1.2.3", "postgresql", '{"stateless": "relay"}', 7, 1 << 40, 5.0)
TWO = Node("two", "", "1.2.4", "redis", "{}", 0, 0, 5.0)


def described(nodes: list[Node]) -> list[Node]:
    """Give servers as they have described themselves, without what the storage has added."""
    return [node._replace(since=0.0, beat_at=0.0, silent=0.0) for node in nodes]


class MembershipConformance(OnStorage):
    """The promise of :class:`collab.storage.membership.Membership`. Run it as a part of ``StoreConformance``."""

    async def test_heartbeats_tell_who_is_there(self, store: Store, open_store: OpenStore) -> None:
        assert await store.list_nodes() == []
        assert store.beat_seconds > 0
        assert described((await store.beat(ONE)).nodes) == [ONE]
        async with open_store() as other, open_store() as command:
            assert described((await other.beat(TWO)).nodes) == [ONE, TWO]
            found = await command.list_nodes()
            assert described(found) == [ONE, TWO], "in the order in which they came"
            for node in found:
                assert 1e9 < node.since <= node.beat_at < 1e11 and 0 <= node.silent < LOST_BEATS * 5.0 and node.alive

    async def test_a_later_heartbeat_takes_the_place_of_the_one_before(self, store: Store) -> None:
        (first,) = (await store.beat(ONE)).nodes
        later = ONE._replace(address="http://elsewhere", documents=8, connections=0, settings="{}")
        (second,) = (await store.beat(later)).nodes
        assert described([second]) == [later]
        assert second.since == first.since and second.beat_at > first.beat_at

    async def test_a_server_that_leaves_is_listed_no_more(self, store: Store, open_store: OpenStore) -> None:
        await store.beat(ONE)
        async with open_store() as other:
            await other.beat(TWO)
            await store.leave("one")
            await store.leave("nobody")
            assert described(await other.list_nodes()) == [TWO]
        (first,) = await store.list_nodes()
        assert first.name == "two", "a store that is closed says no goodbye for its server"

    async def test_heartbeats_move_no_numbers_of_documents(self, store: Store) -> None:
        await store.attend()
        first = await put(store, "d", b"1")
        for number in range(2, 5):
            await store.beat(ONE)
            assert (await put(store, "d", b"%d" % number, document_id=first.document_id)).first_seq == number
        assert await data_of(store, "d") == [b"1", b"2", b"3", b"4"]
