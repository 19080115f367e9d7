"""The tests of webhooks: what is written for receivers, in which order, by whom, and when it goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from collab.authorship import Note
from collab.errors import NoSuchWebhook
from collab.storage import webhooks
from collab.storage.checksums import seal_row
from collab.storage.records import Append
from collab.storage.store import Store
from collab.storage.timeline import restore_label
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    DELETED,
    ERASED,
    JOINED,
    KINDS,
    RENAMED,
    RESET,
    RESTORED,
    VERSION_RESTORED,
    Attempt,
    Delivery,
    Happened,
    Looked,
    Subscription,
)
from collab.testing.storage import AT, SECONDS, OnStorage, OpenStore, put, rows, written

ALL = Subscription("all", KINDS, "")
NODE = "one"
LEASE = 60.0


async def told(store: Store, *subscriptions: Subscription) -> None:
    """Let one node deliver, to a receiver of everything unless others are named."""
    assert await store.claim_delivery(NODE, LEASE)
    assert await store.subscribe(NODE, subscriptions or (ALL,))


async def tell(store: Store, busy: tuple[int, ...] = ()) -> None:
    """Tell of all that is marked."""
    async with asyncio.timeout(SECONDS):
        while await store.tell_changed(NODE, 0.0, 50, busy):
            pass


async def look(store: Store) -> int:
    """Look at all documents; give how many were marked."""
    after, found = 0, 0
    async with asyncio.timeout(SECONDS):
        while True:
            looked = await store.mark_missed(NODE, after, 2)
            assert looked is not None
            found += looked.found
            if looked.last is None:
                return found
            after = looked.last


async def waiting(store: Store, receiver: str = "all") -> list[Delivery]:
    """Give what waits for a receiver, in order."""
    return (await store.deliveries(receiver=receiver, state="pending", limit=1_000))[::-1]


async def said(store: Store, receiver: str = "all") -> list[tuple[str, str, dict[str, Any]]]:
    """Give kinds, names and data of what waits for a receiver, in order."""
    return [(each.kind, each.name, each.data) for each in await waiting(store, receiver)]


async def kinds(store: Store, receiver: str = "all") -> list[str]:
    """Give the kinds of what waits for a receiver, in order."""
    return [each.kind for each in await waiting(store, receiver)]


def change(first: int, last: int, *authors: str, on_behalf_of: tuple[str, ...] = ()) -> dict[str, Any]:
    """Give the data of a change."""
    return {
        "from": first,
        "to": last,
        "authors": list(authors),
        "on_behalf_of": list(on_behalf_of),
        "more_authors": False,
    }


class WebhooksConformance(OnStorage):
    """The promise of :class:`collab.storage.webhooks.Webhooks`. Run it as a part of ``StoreConformance``."""

    async def test_one_node_delivers_until_its_lease_ends(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as other:
            assert await store.claim_delivery(NODE, LEASE)
            assert await store.claim_delivery(NODE, LEASE) and await store.subscribe(NODE, (ALL,))
            assert await store.settle(NODE, ())
            for node in (store, other):
                assert not await node.subscribe("two", (ALL,)) and not await node.settle("two", ())
                assert await node.expire("two", 1.0) is None
            await put(store, "d", b"1")
            assert await other.mark_missed("two", 0, 10) is None
            assert await look(store) == 1 and await other.tell_changed("two", 0.0, 10, ()) is None
            assert await kinds(store) == []
            await store.release_delivery("two")
            assert await store.settle(NODE, ())
            await store.release_delivery(NODE)
            assert not await store.settle(NODE, ())
            assert await other.claim_delivery("two", LEASE) and await other.subscribe("two", (ALL,))
            assert not await store.settle(NODE, ())

    async def test_who_asks_while_another_node_has_the_lease_waits(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as other:
            nodes = [(each, f"node {at}") for at, each in enumerate((store, other))]
            taken = [await each.claim_delivery(node, LEASE) for each, node in nodes]
            # Storage that one server alone can use gives it to the last who asks.
            assert taken[0] and [await each.settle(node, ()) for each, node in nodes] == [not taken[1], taken[1]]

    async def test_edits_are_told_once_with_numbers_and_authors(self, store: Store, open_store: OpenStore) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1")).document_id
        async with open_store() as other:
            noted = seal_row(b"3", AT, "hal", Note("grace", "an agent"))
            for row in (*rows(b"2", author="ada"), noted, *rows(b"4", author="ada")):
                await written(other, [Append("d", document_id, (row,))])
            await other.mark_changed([document_id])
            await store.mark_changed([document_id])
        await tell(store)
        assert await said(store) == [
            (CREATED, "d", {"seq": 4}),
            (CHANGED, "d", change(1, 4, "ada", "hal", on_behalf_of=("grace",))),
        ]
        assert len({each.event for each in await waiting(store)}) == 2
        under_way = tuple([each.number for each in await waiting(store)])
        await tell(store, under_way)
        await store.mark_changed([document_id])
        await tell(store, under_way)
        assert len(await waiting(store)) == 2, "nothing has come since"

    async def test_a_new_document_is_told_at_once_and_its_edits_when_their_time_has_come(self, store: Store) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1")).document_id
        await store.mark_changed([document_id])
        for _ in range(2):
            await store.tell_changed(NODE, LEASE, 10, ())
            assert await kinds(store) == [CREATED]
        await tell(store)
        assert await kinds(store) == [CREATED, CHANGED]

    async def test_what_nobody_has_marked_is_found(self, store: Store) -> None:
        await told(store)
        ids = [(await put(store, f"d{number}", b"1")).document_id for number in range(5)]
        assert await look(store) == 5
        await tell(store)
        assert sorted(await kinds(store)) == [CHANGED] * 5 + [CREATED] * 5
        assert await look(store) == 0
        await put(store, "d3", b"2", document_id=ids[3])
        assert await look(store) == 1
        assert await store.mark_missed(NODE, max(ids), 10) == Looked(None, 0)

    async def test_documents_that_were_there_before_are_told_from_then_on(self, store: Store) -> None:
        old = (await put(store, "old", b"1", b"2")).document_id
        await told(store)
        assert await look(store) == 0
        await put(store, "old", b"3", document_id=old)
        await put(store, "new", b"1")
        assert await look(store) == 2
        await tell(store)
        found = [(kind, name) for kind, name, _ in await said(store)]
        assert sorted(found) == [(CHANGED, "new"), (CHANGED, "old"), (CREATED, "new")]
        assert (CHANGED, "old", change(3, 3)) in await said(store)

    async def test_changes_join_the_one_that_waits_last(self, store: Store) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1")).document_id

        async def edited(author: str, busy: tuple[int, ...] = ()) -> None:
            await written(store, [Append("d", document_id, rows(b"x", author=author))])
            await store.mark_changed([document_id])
            await tell(store, busy)

        await edited("ada")
        await edited("bob")
        (_, first) = await waiting(store)
        assert first.data == change(1, 3, "ada", "bob")
        await edited("cy", busy=(first.number,))
        assert [each.data for each in (await waiting(store))[1:]] == [change(1, 3, "ada", "bob"), change(4, 4, "cy")]
        second = (await waiting(store))[2]
        assert await store.settle(NODE, [Attempt(second.number, False, 500, "no", 0.0)])
        await edited("dan")
        assert [each.data for each in (await waiting(store))[2:]] == [change(4, 4, "cy"), change(5, 5, "dan")]
        await store.delete("d", AT)
        await store.restore(document_id, at=AT)
        await edited("eve")
        assert await kinds(store) == [CREATED, CHANGED, CHANGED, CHANGED, DELETED, RESTORED, CHANGED]

    async def test_rows_that_restore_a_state_are_told_behind_the_change(self, store: Store) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1", b"2")).document_id
        labels = [restore_label(1, None), "restored", restore_label(None, 7), "restore number=x", "restore"]
        for at, label in enumerate(labels):
            row = seal_row(b"%d" % at, AT, "ada", Note("grace" if at == 2 else None, label))
            await written(store, [Append("d", document_id, (row,))])
        await store.mark_changed([document_id])
        await tell(store)
        found = await said(store)
        assert found[1] == (CHANGED, "d", change(1, 7, "ada", on_behalf_of=("grace",)))
        expected = [(3, 1, None, None), (5, None, 7, "grace"), (7, None, None, None)]
        assert found[2:] == [
            (VERSION_RESTORED, "d", {"seq": seq, "number": n, "version": v, "author": "ada", "on_behalf_of": other})
            for seq, n, v, other in expected
        ]
        await store.mark_changed([document_id])
        await tell(store)
        assert len(await waiting(store)) == len(found), "told once"

    async def test_each_change_of_the_catalogue_writes_its_own(self, store: Store) -> None:
        await told(store)
        made = await store.create("a", rows=rows(b"1", author="ada"))
        await store.create("empty")
        assert await said(store) == [(CREATED, "a", {"seq": 1}), (CREATED, "empty", {"seq": 0})]
        await tell(store)
        assert (await said(store))[2:] == [(CHANGED, "a", change(1, 1, "ada"))]
        assert await store.append_next(made.id, 1, *rows(b"reset"), reset=True)
        assert not await store.append_next(made.id, 1, *rows(b"reset"), reset=True)
        await store.rename("a", "b", AT)
        await store.delete("b", AT)
        await store.restore(made.id, "c", at=AT)
        await store.delete("c", AT)
        assert (await said(store))[3:] == [
            (RESET, "a", {"seq": 2}),
            (RENAMED, "b", {"seq": 2, "previous": "a"}),
            (DELETED, "b", {"seq": 2}),
            (RESTORED, "c", {"seq": 2}),
            (DELETED, "c", {"seq": 2}),
        ]
        assert {each.document_id for each in await waiting(store) if each.name != "empty"} == {made.id}
        with pytest.raises(Exception, match="c"):
            await store.delete("c", AT)
        assert len(await waiting(store)) == 8, "what fails writes nothing"

    async def test_a_document_that_is_deleted_before_it_was_told_is_told_in_order(self, store: Store) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1")).document_id
        await store.mark_changed([document_id])
        await store.delete("d", AT)
        await tell(store)
        assert await kinds(store) == [CREATED, DELETED]
        await store.restore(document_id, at=AT)
        await tell(store)
        assert await kinds(store) == [CREATED, DELETED, RESTORED, CHANGED]

    async def test_what_is_erased_is_told_by_nothing_but_its_end(self, store: Store, open_store: OpenStore) -> None:
        await told(store)
        made = await store.create("d", rows=rows(b"1", author="ada"))
        other = await store.create("other")
        await tell(store)
        await store.tell_people([Happened(JOINED, made.id, ("d",), {"user": "ada"})])
        await store.delete("d", AT)
        for each in await waiting(store):
            await store.settle(NODE, [Attempt(each.number, True, 200)])
        async with open_store() as another:
            await another.erase(made.id)
        found = [(each.kind, each.name, each.document_id) for each in await store.deliveries()][::-1]
        assert found == [(CREATED, "other", other.id), (DELETED, "d", made.id), (ERASED, "d", made.id)]
        assert await look(store) == 0

    async def test_receivers_get_what_they_want(self, store: Store) -> None:
        some = Subscription("some", (CREATED, RENAMED), "notes/")
        people = Subscription("people", (JOINED,), "")
        await told(store, some, people)
        for name in ("notes/a", "other/a", "notes", "notes/ä"):
            await store.create(name)
        await store.rename("other/a", "notes/b", AT)
        await store.rename("notes/b", "else", AT)
        await store.tell_people([Happened(JOINED, None, ("new\ud83d",), {"user": "ada\ud83d"})])
        assert await said(store, "some") == [
            (CREATED, "notes/a", {"seq": 0}),
            (CREATED, "notes/ä", {"seq": 0}),
            (RENAMED, "notes/b", {"seq": 0, "previous": "other/a"}),
            (RENAMED, "else", {"seq": 0, "previous": "notes/b"}),
        ]
        (joined,) = await waiting(store, "people")
        assert joined.document_id is None and joined.data == {"user": "ada\ud83d"}
        await told(store, people)
        assert [state.subscription for state in await store.receivers()] == [people]
        assert await store.expire(NODE, LEASE) is not None
        assert await store.deliveries(receiver="some") == []
        assert len(await waiting(store, "people")) == 1

    async def test_a_lane_is_delivered_in_order(self, store: Store) -> None:
        await told(store)
        first, second = [await store.create(name) for name in ("a", "b")]
        await store.delete("a", AT)
        await store.delete("b", AT)

        async def due(*busy: int, limit: int = 10) -> list[tuple[str, str]]:
            return [(each.kind, each.name) for each in await store.due("all", limit, busy)]

        assert await due() == [(CREATED, "a"), (CREATED, "b")] and await due(limit=1) == [(CREATED, "a")]
        assert await due(first.id) == [(CREATED, "b")]
        one, two = await store.due("all", 10, ())
        assert await store.settle(NODE, [Attempt(one.number, False, None, "silent", LEASE), Attempt(two.number, True)])
        assert await due() == [(DELETED, "b")], "what is behind one that has to wait waits, too"
        assert await due(second.id) == []
        assert await store.due("none", 10, ()) == []

    async def test_what_became_of_attempts_is_kept(self, store: Store, open_store: OpenStore) -> None:
        await told(store)
        await store.create("d")
        (one,) = await store.due("all", 10, ())
        await store.settle(NODE, [Attempt(one.number, False, 503, "busy", LEASE)])
        async with open_store() as other:
            (seen,) = await other.deliveries(receiver="all")
            assert (seen.attempts, seen.status, seen.error, seen.state) == (1, 503, "busy", "pending")
            assert seen.due_at - one.due_at > LEASE / 2
            (state,) = await other.receivers()
            assert state.failing_since is not None and (state.pending, state.delivered) == (1, 0)
        await store.settle(NODE, [Attempt(one.number, True, 204)])
        (seen,) = await store.deliveries(state="delivered")
        assert (seen.status, seen.error, seen.attempts, seen.event) == (204, None, 1, one.event)
        (state,) = await store.receivers()
        assert (state.failing_since, state.pending, state.delivered, state.oldest_at) == (None, 0, 1, None)
        # Settled again by a node that was late: it is done.
        await store.settle(NODE, [Attempt(one.number, False, 500, "late", 0.0), Attempt(one.number + 1_000, True)])
        assert await store.due("all", 10, ()) == []

    async def test_deliveries_are_sent_again(self, store: Store) -> None:
        await told(store)
        for name in ("a", "b", "c"):
            await store.create(name)
        numbers = [each.number for each in await waiting(store)]
        await store.settle(NODE, [Attempt(numbers[0], True, 200)])
        again = await store.resend(numbers[0])
        assert (again.state, again.attempts, again.number) == ("pending", 0, numbers[0])
        assert [each.number for each in await store.due("all", 10, ())] == numbers
        await given_up(store)
        assert [each.state for each in await store.deliveries()] == ["failed"] * 3
        assert await store.resend_failed("all", (await store.deliveries())[0].at + 3_600.0) == 0
        assert await store.resend_failed("all", 0.0) == 3
        assert [each.number for each in await waiting(store)] == numbers
        for missing in (store.resend(numbers[-1] + 1_000), store.resend_failed("none", 0.0)):
            with pytest.raises(NoSuchWebhook):
                await missing

    async def test_deliveries_are_listed_newest_first(self, store: Store) -> None:
        await told(store, ALL, Subscription("other", (CREATED,), "b"))
        for name in ("a", "b", "c"):
            await store.create(name)
        listed = await store.deliveries()
        assert [(each.receiver, each.name) for each in listed if each.receiver == "all"] == [
            ("all", "c"),
            ("all", "b"),
            ("all", "a"),
        ]
        assert [each.name for each in await store.deliveries(receiver="other")] == ["b"]
        assert [each.number for each in await store.deliveries(limit=2)] == [each.number for each in listed[:2]]
        assert await store.deliveries(before=listed[1].number) == listed[2:]
        assert await store.deliveries(state="failed") == []

    async def test_who_fails_for_long_is_disabled_until_somebody_enables_it(self, store: Store) -> None:
        await told(store)
        await store.create("d")
        (one,) = await store.due("all", 10, ())
        await store.settle(NODE, [Attempt(one.number, False, None, "silent", LEASE)])
        expired = await store.expire(NODE, LEASE)
        assert expired is not None and expired.disabled == ()
        expired = await store.expire(NODE, 0.0)
        assert expired is not None and expired.disabled == ("all",)
        expired = await store.expire(NODE, 0.0)
        assert expired is not None and expired.disabled == ()
        await told(store)
        await store.create("not told")
        (state,) = await store.receivers()
        assert state.disabled_at is not None and [each.name for each in await waiting(store)] == ["d"]
        assert await store.due("all", 10, ()) == []
        await store.enable_receiver("all")
        (state,) = await store.receivers()
        assert (state.disabled_at, state.failing_since) == (None, None)
        assert [each.name for each in await store.due("all", 10, ())] == ["d"], "it is tried at once"
        assert await store.settle(NODE, (), disable=["all", "none"])
        assert (await store.receivers())[0].disabled_at is not None
        with pytest.raises(NoSuchWebhook):
            await store.enable_receiver("none")

    async def test_what_is_too_old_is_given_up(self, store: Store) -> None:
        await told(store)
        await store.create("d")
        expired = await store.expire(NODE, LEASE)
        assert expired is not None and expired.given_up == {}
        assert await given_up(store) == {"all": 1}
        (one,) = await store.deliveries(state="failed")
        assert one.name == "d" and await store.due("all", 10, ()) == []
        with bounds(LOG_SECONDS=0.0):
            await store.expire(NODE, LEASE)
        assert await store.deliveries() == []

    async def test_what_is_kept_has_a_bound(self, store: Store) -> None:
        await told(store)
        with bounds(MAX_PENDING=2):
            for name in ("a", "b", "c"):
                await store.create(name)
            await store.delete("a", AT)
        assert [each.name for each in await waiting(store)] == ["a", "b"]
        (state,) = await store.receivers()
        assert (state.pending, state.dropped) == (2, 2)
        await store.settle(NODE, [Attempt(each.number, True, 200) for each in await waiting(store)])
        with bounds(MAX_LOG=1):
            await store.expire(NODE, LEASE)
        assert [each.name for each in await store.deliveries()] == ["b"]

    async def test_nothing_is_written_where_nobody_is_told(self, store: Store) -> None:
        assert await store.claim_delivery(NODE, LEASE)
        made = await store.create("d", rows=rows(b"1"))
        await store.delete("d", AT)
        await store.restore(made.id, at=AT)
        await store.tell_people([Happened(JOINED, made.id, ("d",), {})])
        assert await store.deliveries() == [] and await store.receivers() == []

    async def test_edits_under_way_while_they_are_told_are_told_next(self, store: Store, open_store: OpenStore) -> None:
        await told(store)
        document_id = (await put(store, "d", b"1")).document_id
        async with open_store() as other:

            async def edit() -> None:
                for number in range(20):
                    await put(other, "d", b"%d" % number, document_id=document_id)
                    await other.mark_changed([document_id])

            await at_once(edit, lambda: tell(store))
        await tell(store)
        changes = [each.data for each in await waiting(store) if each.kind == CHANGED]
        assert changes[0]["from"] == 1 and changes[-1]["to"] == 21
        assert [each["from"] for each in changes[1:]] == [each["to"] + 1 for each in changes[:-1]]


@contextlib.contextmanager
def bounds(**given: float) -> Iterator[None]:
    """Let bounds of the port be others meanwhile: a store reads them from its module when it needs them."""
    before = {name: getattr(webhooks, name) for name in given}
    try:
        vars(webhooks).update(given)
        yield
    finally:
        vars(webhooks).update(before)


async def given_up(store: Store) -> dict[str, int]:
    """Let all that waits be given up; give how many, by receiver."""
    with bounds(GIVE_UP_SECONDS=0.0):
        expired = await store.expire(NODE, LEASE)
    assert expired is not None
    return expired.given_up


async def at_once(work: Callable[[], Awaitable[None]], beside: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again while something else is done."""
    task = asyncio.ensure_future(work())
    async with asyncio.timeout(SECONDS):
        while not task.done():
            await beside()
            await asyncio.sleep(0)
    await task
