"""The tests of calls that are done once."""

from __future__ import annotations

import asyncio

import pytest

from collab.errors import DocumentNotFound, KeyBusy, KeyReused, StoreRefused
from collab.storage.calls import MAX_ANSWER_BYTES
from collab.storage.records import CallKey, CallState
from collab.storage.store import Store
from collab.testing.storage import OnStorage, OpenStore, data_of, rows

ASKED = b"a" * 32
OTHER = b"b" * 32


def attempt(number: int, key: bytes = b"k" * 32) -> CallKey:
    """Make the key of one attempt."""
    return CallKey(key, f"{number:032d}")


class CallsConformance(OnStorage):
    """The promise of :class:`collab.storage.calls.Calls`. Run it as a part of ``StoreConformance``."""

    async def test_of_several_attempts_one_does_the_call(self, store: Store, open_store: OpenStore) -> None:
        async with open_store() as other:
            states = await asyncio.gather(
                *(each.begin_call(attempt(at), ASKED) for at, each in enumerate((store, other, store, other)))
            )
            assert sum([state.mine for state in states]) == 1
            assert [state for state in states if not state.mine] == [CallState()] * 3
            mine = attempt(next(at for at, state in enumerate(states) if state.mine))
            assert not await other.finish_call(attempt(9), 201, b"not mine")
            assert await store.finish_call(mine, 201, b"answer")
            assert await other.begin_call(attempt(5), ASKED) == CallState(status=201, answer=b"answer")
            # Another key is another call, and both are there for a store that is opened later.
            assert (await other.begin_call(attempt(6, b"l" * 32), ASKED)).mine
        assert (await store.begin_call(attempt(7), ASKED)).answer == b"answer"
        assert await store.begin_call(attempt(8, b"l" * 32), ASKED) == CallState()

    async def test_a_key_is_for_one_request(self, store: Store) -> None:
        assert (await store.begin_call(attempt(1), ASKED)).mine
        with pytest.raises(KeyReused):
            await store.begin_call(attempt(2), OTHER)
        await store.finish_call(attempt(1), 200, b"")
        with pytest.raises(KeyReused):
            await store.begin_call(attempt(3), OTHER)
        assert await store.begin_call(attempt(4), ASKED) == CallState(status=200, answer=b"")

    async def test_a_call_that_has_failed_is_begun_anew(self, store: Store) -> None:
        assert (await store.begin_call(attempt(1), ASKED)).mine
        await store.abandon_call(attempt(2))
        assert await store.begin_call(attempt(2), ASKED) == CallState()
        await store.abandon_call(attempt(1))
        assert (await store.begin_call(attempt(3), OTHER)).mine
        assert not await store.finish_call(attempt(1), 200, b"too late")

    async def test_what_a_call_has_created_is_taken_up_by_the_next_attempt(self, store: Store) -> None:
        assert (await store.begin_call(attempt(1), ASKED)).mine
        created = await store.create("d", rows=rows(b"1"), call=attempt(1))
        await store.abandon_call(attempt(1))
        assert await store.begin_call(attempt(2), ASKED) == CallState(mine=True, document_id=created.id)
        assert await store.finish_call(attempt(2), 201, b"answer")
        assert await store.begin_call(attempt(3), ASKED) == CallState(status=201, answer=b"answer")

    async def test_creating_for_a_call_that_is_not_ones_own_creates_nothing(self, store: Store) -> None:
        assert (await store.begin_call(attempt(1), ASKED)).mine
        with pytest.raises(KeyBusy):
            await store.create("d", rows=rows(b"1"), call=attempt(2))
        with pytest.raises(DocumentNotFound):
            await store.describe("d")
        await store.finish_call(attempt(1), 200, b"")
        with pytest.raises(KeyBusy):
            await store.create("d", call=attempt(1))
        assert await data_of(store, "d") == []

    async def test_an_answer_has_a_bound(self, store: Store) -> None:
        assert (await store.begin_call(attempt(1), ASKED)).mine
        with pytest.raises(StoreRefused):
            await store.finish_call(attempt(1), 200, bytes(MAX_ANSWER_BYTES + 1))
        assert await store.finish_call(attempt(1), 200, bytes(MAX_ANSWER_BYTES))
        assert (await store.begin_call(attempt(2), ASKED)).answer == bytes(MAX_ANSWER_BYTES)
