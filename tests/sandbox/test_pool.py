"""The sandbox: whatever a job does to its process, the next one is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from collab.errors import SandboxBusy, SandboxCrashed, SandboxTimeout, UnreadableContent, UpdateError
from collab.history.packed import PackedRows
from collab.protocol.lib0 import encode_var_uint
from collab.sandbox import jobs
from collab.sandbox.pool import MAX_WAITING, ProcessSandbox
from collab.sandbox.port import MAX_REBUILT_BYTES
from collab.update.compact import compact
from tests.sandbox import hostile

MEMORY = 1 << 30
# A text "t" of client 5: "ab", and the same with "b" deleted.
AB = bytes.fromhex("010105000401017402616200")
AB_DELETED = bytes.fromhex("01010500040101740261620105010101")


@contextlib.asynccontextmanager
async def sandbox(workers: int = 1, seconds: float = 30.0) -> AsyncIterator[ProcessSandbox]:
    box = ProcessSandbox(workers, seconds, MEMORY)
    try:
        yield box
    finally:
        await box.close()


async def gone(pid: int) -> None:
    """Wait until a process is no more."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)


async def made(path: Path) -> None:
    """Wait until a file is there."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)

    await asyncio.to_thread(wait)


async def test_a_process_starts_with_the_first_job_and_stays() -> None:
    async with sandbox() as box:
        first = await box.run(jobs.ready)
        assert first != os.getpid()
        assert await box.run(jobs.ready) == first


@pytest.mark.parametrize("job", [hostile.hang, hostile.spin_holding_the_lock])
@pytest.mark.slow
async def test_a_job_that_hangs_is_killed_and_the_next_one_served(job: Callable[[], None]) -> None:
    async with sandbox(seconds=1.0) as box:
        first = await box.run(jobs.ready)
        with pytest.raises(SandboxTimeout, match="longer than 1 seconds"):
            await box.run(job)
        await gone(first)
        assert (await box.compact(AB, True)).data == AB


@pytest.mark.parametrize(
    ("job", "cause"),
    [
        (hostile.crash, "signal 11"),
        (hostile.leave, "exit code 3"),
        (hostile.eat, "MemoryError"),
        (hostile.panic, "PanicException"),
        (hostile.unpicklable, "exit code 1"),
    ],
)
async def test_a_job_that_crashes_costs_that_job(job: Callable[[], Any], cause: str) -> None:
    async with sandbox() as box:
        first = await box.run(jobs.ready)
        with pytest.raises(SandboxCrashed, match=cause):
            await box.run(job)
        await gone(first)
        assert (await box.compact(AB, True)).data == AB


async def test_a_refused_document_keeps_the_process() -> None:
    async with sandbox() as box:
        first = await box.run(jobs.ready)
        with pytest.raises(UpdateError):
            await box.compact(b"\x01\x00\x05\x00\x00", True)
        assert await box.run(jobs.ready) == first


async def test_a_process_whose_server_is_gone_ends_by_itself() -> None:
    async with sandbox() as box:
        with pytest.raises(SandboxCrashed, match="signal 14"):
            await box.run(jobs.limited, 0.2, hostile.spin_holding_the_lock)


@pytest.mark.slow
async def test_jobs_run_side_by_side_and_a_hanging_one_holds_up_nobody() -> None:
    async with sandbox(workers=2, seconds=3.0) as box:
        hanging = asyncio.create_task(box.run(hostile.hang))
        for _ in range(10):
            assert (await box.compact(AB, True)).data == AB
        assert not hanging.done()
        with pytest.raises(SandboxTimeout):
            await hanging


@pytest.mark.slow
async def test_the_loop_turns_while_processes_start_and_work() -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.005)
            turns += 1

    async with sandbox(seconds=1.0) as box:
        ticking = asyncio.create_task(tick())
        with pytest.raises(SandboxTimeout):
            await box.run(hostile.spin_holding_the_lock)
        ticking.cancel()
    # Two hundred on a quiet machine; a loop that waited for the job would have turned once.
    assert turns > 10


async def test_too_many_waiting_jobs_are_refused() -> None:
    async with sandbox(seconds=1.0) as box:
        running = [asyncio.create_task(box.run(hostile.hang)) for _ in range(MAX_WAITING + 1)]
        await asyncio.sleep(0)
        with pytest.raises(SandboxBusy, match="wait for the sandbox"):
            await box.run(jobs.ready)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert (await box.compact(AB, True)).data == AB


async def test_rebuilding_waits_neither_for_a_process_to_start_nor_for_a_long_job(tmp_path: Path) -> None:
    rows = PackedRows(0, 0, ())
    async with sandbox() as box:
        with pytest.raises(SandboxBusy, match="not started yet"):
            await box.rebuild(AB, b"", rows)
        assert box._starting is not None
        await box._starting  # it was started for the next one
        assert await box.rebuild(AB, b"", rows) == compact(AB)
        long = asyncio.create_task(box.run(hostile.hang_visibly, str(tmp_path / "begun")))
        await made(tmp_path / "begun")
        with pytest.raises(SandboxBusy, match="no process was free"):
            await box.rebuild(AB, b"", rows)
        long.cancel()
        await asyncio.wait([long])
        with pytest.raises(SandboxBusy, match="bytes are rebuilt by"):
            await box.rebuild(AB, b"", PackedRows(1, MAX_REBUILT_BYTES, ()))


async def test_closing_ends_a_process_that_is_started_for_the_next_job() -> None:
    async with sandbox() as box:
        with pytest.raises(SandboxBusy, match="not started yet"):
            await box.rebuild(AB, b"", PackedRows(0, 0, ()))
        started = box._starting
    assert started is not None and started.done()


async def test_a_cancelled_job_leaves_the_sandbox_serving(tmp_path: Path) -> None:
    async with sandbox() as box:
        first = await box.run(jobs.ready)
        task = asyncio.create_task(box.run(hostile.hang_visibly, str(tmp_path / "begun")))
        await made(tmp_path / "begun")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone(first)
        assert (await box.compact(AB, True)).data == AB


async def test_closing_ends_processes_and_running_jobs(tmp_path: Path) -> None:
    box = ProcessSandbox(2, 30.0, MEMORY)
    first = await box.run(jobs.ready)
    task = asyncio.create_task(box.run(hostile.hang_visibly, str(tmp_path / "begun")))
    await made(tmp_path / "begun")
    await box.close()
    with pytest.raises(SandboxBusy, match="closed"):
        await task
    await gone(first)
    with pytest.raises(SandboxBusy, match="closed"):
        await box.run(jobs.ready)


async def test_a_sandbox_that_was_never_used_closes() -> None:
    await ProcessSandbox(1, 1.0, MEMORY).close()


async def test_a_process_has_its_limits_and_loads_the_library_only_for_content() -> None:
    async with sandbox() as box:
        limits = await box.run(hostile.limits)
        assert limits["RLIMIT_AS"][0] == MEMORY
        assert limits["RLIMIT_STACK"][0] == jobs.STACK_BYTES
        assert limits["RLIMIT_CORE"][0] == 0
        assert (await box.compact(AB_DELETED, True)).data != AB_DELETED
        loaded = await box.run(hostile.modules)
        assert not [name for name in loaded if name.startswith("pycrdt")]
        assert await box.content(AB) == {"t": "ab"}


async def test_a_chain_of_nested_types_costs_one_content_view() -> None:
    """C1 (docs/decisions/0002): 33,000 maps in each other overflow an ordinary stack, when freed at the latest."""
    count = 33_000
    structs = [b"\x27\x01\x01m\x01k\x01"]
    structs += [b"\x27\x00\x05" + encode_var_uint(clock) + b"\x01k\x01" for clock in range(count - 1)]
    chain = b"\x01" + encode_var_uint(count) + b"\x05\x00" + b"".join(structs) + b"\x00"
    async with sandbox() as box:
        with pytest.raises(UnreadableContent):
            await box.content(chain)
        assert (await box.compact(chain, True)).data == chain
        assert await box.content(AB) == {"t": "ab"}


@pytest.mark.slow
def test_it_works_on_the_loop_of_the_server() -> None:
    """uvloop handles signals and child processes in its own way."""

    async def main() -> None:
        async with sandbox(seconds=1.0) as box:
            with pytest.raises(SandboxCrashed):
                await box.run(hostile.crash)
            with pytest.raises(SandboxTimeout):
                await box.run(hostile.hang)
            assert (await box.compact(AB, True)).data == AB

    uvloop.run(main())
