"""Tasks that are owned by somebody: none is lost, and what fails is logged once."""

from __future__ import annotations

import asyncio

import pytest

from collab.hub import tasks as tasks_module
from collab.hub.tasks import Tasks


async def fail() -> None:
    raise ValueError("a defect")


async def test_what_fails_and_nobody_awaits_is_logged_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    task = tasks.spawn(fail(), "some work")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "task some work failed" and record.exc_info is not None
    await tasks.close()


async def test_what_fails_and_is_awaited_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    with pytest.raises(ValueError, match="a defect"):
        await tasks.spawn(fail(), "some work", awaited=True)
    await tasks.close()
    assert caplog.records == []


async def test_closing_cancels_what_runs_and_waits_for_its_end(caplog: pytest.LogCaptureFixture) -> None:
    tasks, ended = Tasks(), False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    task = tasks.spawn(work(), "some work")
    await asyncio.sleep(0)
    await tasks.close()
    assert task.cancelled() and ended and caplog.records == []
    await tasks.close()


async def test_work_that_is_supervised_starts_again_and_is_named_until_it_runs_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(tasks_module, "_LONGEST_PAUSE", 0.02)
    tasks, begun, goes_on = Tasks(), 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 4:
            raise OSError("no file descriptor is left")
        assert tasks.failing == {"work": "OSError"}, "it does not count as well at once"
        goes_on.set()
        await asyncio.Event().wait()

    tasks.supervise(work, "work")
    async with asyncio.timeout(20):
        await goes_on.wait()
        while tasks.failing:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.001)
    assert [record.getMessage() for record in caplog.records] == [
        "the task work has failed and starts again in 0 s" for _ in range(3)
    ]
    assert all(record.exc_info for record in caplog.records)
    await tasks.close()


async def test_supervised_work_ends_with_its_owner() -> None:
    tasks, ended = Tasks(), False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    tasks.supervise(work, "work")
    await asyncio.sleep(0)
    await tasks.close()
    assert ended and tasks.failing == {}
