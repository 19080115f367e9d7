"""Instructions in SQL: which servers are silent, what lapses, what a later release has written; renaming at once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import text

from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, StoreRefused
from collab.storage import sql_control
from collab.storage.control import KEPT_SECONDS, PAGE
from collab.storage.membership import Node
from collab.storage.records import Append, Instruction, Kind, NewRow, NodeReport
from collab.storage.sql import SqlStore
from tests.support.stores import OpenStore


async def run(store: SqlStore, statement: str) -> None:
    """Run a statement of the test's own on the store's database."""

    def execute(connection: Any) -> None:
        connection.execute(text(statement))

    await store._backend.run(execute, "write")


async def test_servers_that_live_and_have_said_nothing_are_named(store: SqlStore) -> None:
    for name in ("one", "two", "gone"):
        await store.beat(Node(name, "", "", "", "{}", 0, 0, period=5.0))
    number = await store.instruct(Instruction(Kind.CHECK))
    assert (await store.reports(number)).silent == ("gone", "one", "two")
    await store.report([number], NodeReport("one"))
    await store.report([number], NodeReport("two", done=False))
    found = await store.reports(number)
    assert found.silent == ("gone",) and not found.complete
    await run(store, "UPDATE nodes SET beat_at = beat_at - 21 WHERE name = 'gone'")
    found = await store.reports(number)
    assert found.silent == () and not found.complete, "one is at it"
    await store.report([number], NodeReport("two"))
    assert (await store.reports(number)).complete
    await store.beat(Node("gone", "", "", "", "{}", 0, 0, period=5.0))
    assert (await store.reports(number)).silent == ("gone",)
    await store.leave("gone")
    assert (await store.reports(number)).complete, "it was stopped"


async def test_what_has_lapsed_is_not_given_and_goes_with_its_reports(store: SqlStore) -> None:
    old = await store.instruct(Instruction(Kind.CHECK))
    kept = await store.instruct(Instruction(Kind.KICK, user="u", seconds=2 * KEPT_SECONDS))
    for number in (old, kept):
        await store.report([number], NodeReport("one", 1))
        await store.answer(number, "one", b"x")
    later = f"lapses_at - {KEPT_SECONDS + 1}"
    await run(store, f"UPDATE instructions SET lapses_at = {later}, at = at - {KEPT_SECONDS + 1}")
    (found,) = await store.instructions(0)
    assert found.number == kept and found.age > KEPT_SECONDS and KEPT_SECONDS - 60 < found.left < KEPT_SECONDS
    newest = await store.instruct(Instruction(Kind.CHECK))
    assert (await store.reports(old)).reports == ()
    assert len((await store.reports(kept)).reports) == 1
    assert (await store.answers(old), await store.answers(kept)) == ({}, {"one": b"x"})
    assert newest > kept > old


async def test_so_many_are_kept_and_no_more(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_control, "MAX_INSTRUCTIONS", 2)
    for _ in range(2):
        await store.instruct(Instruction(Kind.CHECK))
    with pytest.raises(StoreRefused, match="instructions"):
        await store.instruct(Instruction(Kind.CHECK))
    await run(store, "UPDATE instructions SET lapses_at = 0")
    await store.instruct(Instruction(Kind.CHECK))


async def test_what_a_later_release_has_written_is_given_as_unknown(store: SqlStore) -> None:
    number = await store.instruct(Instruction(Kind.CHECK))
    await run(store, "UPDATE instructions SET kind = 'dance'")
    (found,) = await store.instructions(0)
    assert found.number == number and found.instruction is None


async def test_so_many_are_given_at_once(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_control, "PAGE", 2)
    numbers = [await store.instruct(Instruction(Kind.CHECK)) for _ in range(3)]
    assert [stored.number for stored in await store.instructions(0)] == numbers[:2]
    assert [stored.number for stored in await store.instructions(numbers[1])] == numbers[2:]
    assert PAGE > 2


@pytest.mark.slow
async def test_who_renames_at_once_never_waits_in_a_circle(store: SqlStore, open_another: OpenStore) -> None:
    """A document may get another name while somebody waits for it."""
    dice = random.Random(1)
    done = 0
    async with open_another() as other:

        async def rename(turn: int) -> None:
            nonlocal done
            old, new = dice.sample("abc", 2)
            await asyncio.sleep(dice.random() * 0.004)
            try:
                await dice.choice((store, other)).rename(f"{old}{turn}", f"{new}{turn}", 1.0)
                done += 1
            except (DocumentDeleted, DocumentExists, DocumentNotFound):
                pass

        for turn in range(60):
            await store.append([Append(f"{name}{turn}", None, (NewRow(b"x", 1.0),)) for name in "ab"])
            await asyncio.gather(*[rename(turn) for _ in range(8)])
    assert done > 60
