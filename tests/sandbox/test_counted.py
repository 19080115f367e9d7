"""The sandbox that counts: every job once, by what became of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, get_args

import pytest

from collab.content.edits import Format, Replace
from collab.errors import CollabError, SandboxBusy, SandboxCrashed, SandboxTimeout, UpdateError
from collab.history import tasks
from collab.history.packed import PackedRows
from collab.history.rows import Rows
from collab.sandbox.counted import (
    COMPACTION,
    CONTENT,
    CRASHED,
    DONE,
    FAILED,
    KINDS,
    TIMED_OUT,
    CountedSandbox,
)
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.port import Ending, Reading
from collab.update.compact import Compacted
from tests.support.author import Author


class Scripted:
    """A sandbox that raises what it is told, or waits."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.closed = False
        self.go = asyncio.Event()
        self.go.set()

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Compacted(data, bytes([gc]))

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        if self.error is not None:
            raise self.error
        return {"data": data, "format": format, "root": root}

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SandboxTimeout("late"), TIMED_OUT),
        (SandboxCrashed("dead"), CRASHED),
        (SandboxBusy("full"), FAILED),
        (UpdateError("no update"), FAILED),
        (asyncio.CancelledError(), FAILED),
    ],
)
async def test_what_a_job_raises_is_counted_and_passed_on(error: BaseException, outcome: str) -> None:
    inner = Scripted()
    sandbox = CountedSandbox(inner)
    inner.error = error
    with pytest.raises(type(error)):
        await sandbox.compact(b"", True)
    with pytest.raises(type(error)):
        await sandbox.content(b"")
    assert (dict(sandbox.jobs), sandbox.under_way) == ({(COMPACTION, outcome): 1, (CONTENT, outcome): 1}, 0)


async def test_results_and_arguments_are_passed_on() -> None:
    inner = Scripted()
    sandbox = CountedSandbox(inner)
    assert await sandbox.compact(b"x", True) == Compacted(b"x", b"\x01")
    assert await sandbox.content(b"y") == {"data": b"y", "format": Format.JSON, "root": None}
    assert await sandbox.content(b"y", Format.TEXT, "r") == {"data": b"y", "format": Format.TEXT, "root": "r"}
    assert dict(sandbox.jobs) == {(COMPACTION, DONE): 1, (CONTENT, DONE): 2}
    await sandbox.close()
    assert inner.closed


async def test_each_kind_of_job_is_counted_by_itself() -> None:
    sandbox = CountedSandbox(InlineSandbox())
    data, row = Author(1).type("a"), Rows()
    history = {
        tasks.Advance: tasks.Advance(None, data, row, {}),
        tasks.Show: tasks.Show(b""),
        tasks.Changes: tasks.Changes(data, row, {}),
        tasks.Restore: tasks.Restore(data, data, None, 7),
        tasks.Undo: tasks.Undo(data, data, row, {}, "ann", None, 1, 7),
    }
    assert history.keys() == {*get_args(tasks.Task), *get_args(tasks.Question)}
    await sandbox.compact(data, True)
    await sandbox.content(data)
    await sandbox.make(Replace("t", Format.TEXT, "a"), 7)
    await (await sandbox.stay(data, 7)).run([], [])
    await sandbox.reset([data], None, False, None)
    await sandbox.skeleton([data], None)
    await sandbox.find_hazard(data)
    assert await sandbox.rebuild(data, b"", PackedRows(0, 0, ())) is not None
    for task in history.values():
        with contextlib.suppress(CollabError):
            await (sandbox.show_history(task) if isinstance(task, tasks.Question) else sandbox.look_back(task))
    assert {kind: 1 for kind, _ in sandbox.jobs.elements()} == dict.fromkeys(KINDS, 1)
    assert sandbox.jobs.total() == len(KINDS)


async def test_a_job_is_under_way_until_it_has_ended() -> None:
    inner = Scripted()
    sandbox = CountedSandbox(inner)
    inner.go.clear()
    jobs = [asyncio.create_task(sandbox.compact(b"", False)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (sandbox.under_way, dict(sandbox.jobs)) == (2, {})
    jobs[0].cancel()
    inner.go.set()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert (sandbox.under_way, dict(sandbox.jobs)) == (0, {(COMPACTION, FAILED): 1, (COMPACTION, DONE): 1})


async def test_documents_that_stay_are_counted_until_they_end_by_themselves() -> None:
    sandbox = CountedSandbox(InlineSandbox())
    first, second = Author(1), Author(2)
    data = [first.type("a"), second.type("b")]
    stays = [await sandbox.stay(each, number) for number, each in enumerate(data, 7)]
    assert (sandbox.loaded, sandbox.staying, sandbox.staying_bytes) == (2, 2, sum(map(len, data)))
    more = first.type("more")
    assert await stays[0].run([more], [Reading(Format.TEXT, "t")] * 2) == [b"amore"] * 2
    assert (sandbox.tasks, sandbox.staying_bytes) == (2, sum(map(len, [*data, more])))
    assert sandbox.ended.total() == 0
    stays[0].end()
    second.type("lost")
    with pytest.raises(SandboxBusy):
        await stays[1].run([second.type("c")], [])
    assert dict(sandbox.ended) == {Ending.RELEASED: 1, Ending.FAILED: 1}
    assert (sandbox.loaded, sandbox.staying, sandbox.staying_bytes) == (2, 0, 0)
    with pytest.raises(UpdateError):
        await sandbox.stay(b"", 9)
    assert sandbox.loaded == 2, "it was not loaded"
