"""Long reading leaves the interpreter to others, and waits for nobody where nobody wants it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.storage.pauses import SLICE_ROWS, Pauses
from collab.storage.postgresql import PostgresBackend
from collab.storage.records import Append, NewRow
from collab.storage.sql import SqlStore
from collab.storage.urls import parse_database_url
from tests.support.sqlite import migrated


class Machine:
    """Clocks that the test sets, and what was slept."""

    def __init__(self) -> None:
        self.now = self.work = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pauses(self) -> Pauses:
        return Pauses(lambda: self.now, lambda: self.work, self.sleep)

    def pass_by(self, seconds: float, work: float) -> None:
        self.now += seconds
        self.work += work


def test_a_slice_that_had_to_wait_is_followed_by_a_pause_as_long() -> None:
    machine = Machine()
    pauses = machine.pauses()
    machine.pass_by(0.0008, work=0.0007)
    pauses()
    assert machine.slept == []
    machine.pass_by(0.0012, work=0.0006)
    pauses()
    assert machine.slept == [pytest.approx(0.0012)]
    machine.pass_by(0.0006, work=0.0006)  # the pause is not a part of the next slice
    pauses()
    assert len(machine.slept) == 1


def test_a_pause_is_short_however_long_a_slice_has_waited_for_a_disk() -> None:
    machine = Machine()
    pauses = machine.pauses()
    machine.pass_by(3.0, work=0.0006)
    pauses()
    assert machine.slept == [0.002]


async def test_rows_are_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(migrated(tmp_path))
    assert isinstance(store, SqlStore)
    await store.open()
    count = 3 * SLICE_ROWS + 1
    await store.append([Append("d", None, tuple(NewRow(b"%d" % number, 1.0) for number in range(count)))])
    paused: list[None] = []
    monkeypatch.setattr(store._backend, "pauses", lambda: lambda: paused.append(None))
    monkeypatch.setattr("collab.storage.sql.PAGE_ROWS", 2 * SLICE_ROWS)
    rows = await store.rows_after(1, 0, 1_000)
    assert [row.data for row in rows] == [b"%d" % number for number in range(count)]
    assert len(paused) == 3
    await store.close()


async def test_on_postgresql_the_loop_goes_on_between_slices(postgres_url: str) -> None:
    store = SqlStore(PostgresBackend(parse_database_url(postgres_url)))
    await store.open()
    await store.append([Append("d", None, tuple(NewRow(b"r", 1.0) for _ in range(10 * SLICE_ROWS)))])
    await store.rows_after(1, 0, 1)
    pauses, loop = store._backend.pauses(), asyncio.get_running_loop()
    gone_on: list[None] = []

    def pause() -> None:
        before = len(gone_on)
        loop.call_soon(gone_on.append, None)
        pauses()
        assert len(gone_on) == before + 1

    store._backend.pauses = lambda: pause  # type: ignore[method-assign]
    assert len(await store.rows_after(1, 0, 1_000)) == 10 * SLICE_ROWS
    assert len(gone_on) == 9
    await store.close()
