"""Documents that stay in the sandbox's process: what bounds them, and what is left when the process goes."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from pathlib import Path

import pytest

from collab.content.edits import Format, TextInsert
from collab.errors import DocumentTooLarge, SandboxBusy, SandboxCrashed, SandboxTimeout
from collab.sandbox import jobs, pool
from collab.sandbox.pool import ProcessSandbox
from collab.sandbox.port import Ending, Reading, Stay
from tests.sandbox.test_pool import gone, sandbox
from tests.support.author import Author
from tests.support.waiting import happens

TEXT = Reading(Format.TEXT, "t")


def process_of(box: ProcessSandbox) -> int:
    """Give the id of the process in which documents stay."""
    assert box._stay_slot.pool is not None
    (process,) = box._stay_slot.pool._pool_manager.worker_manager.workers
    return int(process)


async def read(stay: Stay) -> bytes:
    (shown,) = await stay.run([], [TEXT])
    assert isinstance(shown, bytes)
    return shown


async def test_stays_share_one_process_and_jobs_have_others() -> None:
    async with sandbox() as box:
        first, second = await box.stay(Author(1).type("a"), 1), await box.stay(Author(1).type("b"), 2)
        process = process_of(box)
        assert await box.run(jobs.ready) != process
        assert (await read(first), await read(second), process_of(box)) == (b"a", b"b", process)


def pages_taken(process: int) -> int:
    """Give how many pages of memory a process has been given by the system so far."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
async def test_an_edit_of_a_long_text_takes_no_new_memory_from_the_system() -> None:
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("x" * 1_000_000), 2)
        process = process_of(box)

        async def edit(times: int) -> None:
            for number in range(times):
                assert (await stay.run([], [TextInsert("t", 1_000 * number, "y")]))[0]

        await edit(10)
        before = pages_taken(process)
        await edit(20)
        # The text alone has 244 pages, and each edit reads it three times.
        assert pages_taken(process) - before < 20 * 50


async def test_a_process_that_is_killed_in_the_middle_ends_all_stays_and_the_next_ones_are_served() -> None:
    async with sandbox() as box:
        one, other = await box.stay(Author(1).type("one"), 1), await box.stay(Author(1).type("other"), 2)
        process = process_of(box)
        os.kill(process, signal.SIGSTOP)
        running = asyncio.ensure_future(one.run([], [TextInsert("t", 0, "x")]))
        await happens(lambda: box._running, "it runs")
        os.kill(process, signal.SIGKILL)
        with pytest.raises(SandboxCrashed):
            await running
        assert (one.ending, other.ending) == (Ending.FAILED, Ending.PROCESS)
        with pytest.raises(SandboxBusy):
            await other.run([], [TEXT])
        assert await read(await box.stay(Author(1).type("again"), 3)) == b"again"


async def test_a_process_that_dies_between_two_jobs_has_no_stays_any_more() -> None:
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("one"), 1)
        process = process_of(box)
        os.kill(process, signal.SIGKILL)
        await gone(process)
        with pytest.raises((SandboxBusy, SandboxCrashed)):
            await stay.run([], [TextInsert("t", 0, "x")])
        assert stay.over
        assert await read(await box.stay(Author(1).type("again"), 2)) == b"again"


@pytest.mark.slow
async def test_a_job_that_takes_too_long_costs_that_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STAY_JOB_SECONDS", 1.0)
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("one"), 1)
        process = process_of(box)
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(SandboxTimeout):
            await stay.run([], [TextInsert("t", 0, "x")])
        assert stay.over
        await gone(process)
        assert await read(await box.stay(Author(1).type("again"), 2)) == b"again"


async def test_the_stay_that_was_used_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_STAYS", 3)
    async with sandbox() as box:
        stays = [await box.stay(Author(1).type(f"{n}"), n + 1) for n in range(3)]
        assert await read(stays[0]) == b"0"
        stays.append(await box.stay(Author(1).type("3"), 4))
        assert [stay.ending for stay in stays] == [None, Ending.ROOM, None, None]
        with pytest.raises(SandboxBusy):
            await stays[1].run([], [TEXT])
        assert [await read(stay) for stay in (stays[0], stays[2], stays[3])] == [b"0", b"2", b"3"]


async def test_their_bytes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sandbox() as box:
        monkeypatch.setattr(pool, "STAY_SHARE", box._memory_bytes // 100_000)
        stays = [await box.stay(Author(1).type("x" * 30_000), n + 1) for n in range(3)]
        assert not any(stay.over for stay in stays)
        # What it was given since counts too.
        assert await stays[2].run([Author(9).type("y" * 20_000)], []) == []
        assert [stay.over for stay in stays] == [True, False, False]
        alone = await box.stay(Author(1).type("x" * 200_000), 9)
        assert [stay.over for stay in stays] == [True, True, True] and not alone.over
        assert len(await read(alone)) == 200_000
        monkeypatch.setattr(pool, "LARGEST_SHARE", box._memory_bytes // 100_000)
        with pytest.raises(DocumentTooLarge):
            await box.stay(Author(1).type("x" * 200_000), 10)
        assert not alone.over, "it is refused before it costs anybody anything"


async def test_a_stay_that_nobody_uses_ends_and_with_the_last_one_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STAY_IDLE_SECONDS", 0.3)
    async with sandbox() as box:
        stays = [await box.stay(Author(1).type(f"{n}"), n + 1) for n in range(2)]
        process = process_of(box)
        await happens(lambda: all(stay.ending is Ending.IDLE for stay in stays), "they have ended")
        await gone(process)
        assert await read(await box.stay(Author(1).type("again"), 9)) == b"again"


async def test_too_many_waiting_jobs_are_refused_and_cost_no_stay() -> None:
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("a"), 1)
        running = [asyncio.ensure_future(stay.run([], [TEXT])) for _ in range(pool.MAX_WAITING + 1)]
        await asyncio.sleep(0)
        with pytest.raises(SandboxBusy, match="wait for the sandbox"):
            await stay.run([], [TEXT])
        assert await asyncio.gather(*running) == [[b"a"]] * (pool.MAX_WAITING + 1)
        assert not stay.over


async def test_a_job_that_is_cancelled_ends_its_stay_and_the_next_is_served() -> None:
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("a"), 1)
        process = process_of(box)
        os.kill(process, signal.SIGSTOP)
        running = asyncio.ensure_future(stay.run([], [TEXT]))
        await happens(lambda: box._running, "it runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert stay.over, "nobody knows what was done"
        assert await read(await box.stay(Author(1).type("again"), 2)) == b"again"


async def test_what_the_library_does_wrong_replaces_the_process() -> None:
    async with sandbox() as box:
        stay = await box.stay(Author(1).type("a"), 1)
        process = process_of(box)
        with pytest.raises(SandboxCrashed):
            await stay.run([], ["no task at all"])  # type: ignore[list-item]
        await gone(process)
        assert await read(await box.stay(Author(1).type("again"), 2)) == b"again"


async def test_closing_stops_the_process() -> None:
    box = ProcessSandbox(1, 30.0, 1 << 30)
    stay = await box.stay(Author(1).type("a"), 1)
    process = process_of(box)
    await box.close()
    await gone(process)
    assert stay.ending is Ending.CLOSED
    with pytest.raises(SandboxBusy):
        await stay.run([], [TEXT])
