"""Calls that are done once: on real stores of two nodes."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import DocumentDeleted, DocumentExists, KeyBusy, KeyReused, StoreUnavailable
from collab.hub import idempotency
from collab.hub.documents import Documents
from collab.hub.idempotency import Answer, Call, Once
from collab.hub.trash import Trash
from collab.storage import sql_calls
from collab.storage.store import Store
from tests.support.author import Author
from tests.support.stores import OpenStore


async def create(store: Store, name: str, key: str | None, request: bytes = b"request") -> Answer:
    """Create a document as a handler of HTTP does."""
    async with Once(store).call("ada", "POST /documents", key, request) as call:
        if call.answer is None:
            summary = await Documents(store).create(name, update=Author(1).type("x"), call=call)
            call.finish(201, b"%d" % summary.document.id)
        assert call.answer is not None
        return call.answer


async def test_calls_with_one_key_create_once_on_two_nodes(store: Store, open_another: OpenStore) -> None:
    async with open_another() as other:
        answers = await asyncio.gather(*(create(each, "d", "key") for each in (store, other) for _ in range(5)))
    assert len(set(answers)) == 1 and answers[0].status == 201
    assert (await store.describe("d")).document.head_seq == 1
    assert await create(store, "d", "key") == answers[0]


async def test_a_key_is_one_users_on_one_route_for_one_request(store: Store) -> None:
    await create(store, "d", "key")
    with pytest.raises(KeyReused):
        await create(store, "d", "key", b"another request")
    for user, route in (("bob", "POST /documents"), ("ada", "POST /copies"), (None, "POST /documents")):
        async with Once(store).call(user, route, "key", b"request") as call:
            assert call.answer is None and call.key is not None
    with pytest.raises(DocumentExists):
        await create(store, "d", None)
    async with Once(store).call("ada", "x", None, b"") as call:
        assert call.key is None and call.answer is None


async def test_what_fails_leaves_nothing(store: Store) -> None:
    await Documents(store).create("d")
    for _ in range(2):
        with pytest.raises(DocumentExists):
            await create(store, "d", "key")
    await Documents(store).delete("d")
    assert (await create(store, "d", "key")).status == 201


async def test_a_call_that_was_cut_off_behind_its_creation_is_taken_up(store: Store) -> None:
    once, documents = Once(store), Documents(store)
    with pytest.raises(RuntimeError):
        async with once.call("ada", "POST /documents", "key", b"request") as call:
            created = await documents.create("d", call=call)
            raise RuntimeError("the process dies")
    answer = await create(store, "d", "key")
    assert answer == (201, b"%d" % created.document.id)
    with pytest.raises(RuntimeError):
        async with once.call("ada", "POST /copies", "key", b"request") as call:
            copied = await documents.copy("d", "e", call=call)
            raise RuntimeError("once more")
    async with once.call("ada", "POST /copies", "key", b"request") as call:
        assert (await documents.copy("d", "e", call=call)).document.id == copied.document.id


async def test_an_attempt_whose_process_has_died_lapses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 0.1)
    once = Once(store)
    running = once.call("ada", "POST /documents", "key", b"request")
    first = await running.__aenter__()
    with pytest.raises(KeyBusy):
        await create(store, "d", "key")
    monkeypatch.setattr(sql_calls, "RUNNING_SECONDS", 0.0)
    answer = await create(store, "d", "key")
    # The first one was only slow, and comes too late for everything.
    with pytest.raises(KeyBusy):
        await Documents(store).create("e", call=first)
    first.finish(500, b"late")
    await running.__aexit__(None, None, None)
    assert await create(store, "d", "key") == answer


async def test_keys_are_kept_for_a_day_and_have_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(store, "a", "one")
    monkeypatch.setattr(sql_calls, "MAX_CALLS", 1)
    with pytest.raises(KeyBusy):
        await create(store, "b", "two")
    assert (await create(store, "a", "one")).status == 201
    monkeypatch.setattr(sql_calls, "KEPT_SECONDS", 0.0)
    assert (await create(store, "b", "two")).status == 201


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*given: object) -> bool:
        raise StoreUnavailable("for the test")

    with monkeypatch.context() as patched:
        patched.setattr(store, "finish_call", fails)
        answer = await create(store, "d", "key")
    monkeypatch.setattr(sql_calls, "RUNNING_SECONDS", 0.0)
    assert await create(store, "d", "key") == answer


async def test_who_repeats_a_call_whose_document_was_erased_is_told(store: Store) -> None:
    await create(store, "d", "key")
    await Trash(store, lambda: 0.0).erase("d")
    for request in (b"request", b"another request"):
        with pytest.raises(DocumentDeleted):
            await create(store, "d", "key", request)


async def test_a_block_that_gives_no_answer_keeps_none(store: Store) -> None:
    async with Once(store).call("ada", "POST /documents", "key", b"request") as call:
        assert isinstance(call, Call)
    assert (await create(store, "d", "key", b"another request")).status == 201
