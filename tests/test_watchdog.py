"""A loop that stands still is told with its stack, counted, and ended past a limit."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path

import aiohttp
import pytest

from collab.telemetry.loop_lag import EXIT_CODE, STALL_SECONDS, LoopLag, Watchdog
from tests.support import blocking_hooks
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import RawClient, step2, text_update

HOOKS = ("--hooks", f"{blocking_hooks.__name__}:Blocking", "--log-format", "json")


async def stall(server: ServerProcess, seconds: float) -> RawClient:
    """Let the loop of a server stand still: a row is stored, and the hook is told of it."""
    client = await RawClient(server.document_url(f"{blocking_hooks.BLOCKS}{seconds:g}")).connect()
    await client.send(step2(text_update(1, "x")))
    return client


@pytest.mark.server
async def test_a_stall_is_told_with_what_stalls_and_the_server_goes_on(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, *HOOKS) as server:
        client = await stall(server, 3.0)
        await asyncio.to_thread(server.wait_for_log, lambda line: "has stood still" in line)
        await asyncio.to_thread(server.wait_for_log, lambda line: "stood still for" in line and "goes on" in line)
        await client.barrier()
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as answer:
            assert "\ncollab_loop_stalls_total 1.0\n" in await answer.text()
        await client.close()
        assert await server.aterminate() == 0
        lines = [json.loads(line) for line in server.log_lines]
    (told,) = [line for line in lines if "has stood still" in line["message"]]
    assert (told["log.level"], told["log.logger"]) == ("error", "collab.loop")
    assert "in stand_still\n    time.sleep(seconds)" in told["collab.stack"]
    assert blocking_hooks.BLOCKS in told["message"], "the task says for which document"


@pytest.mark.server
async def test_past_the_limit_the_process_ends(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, *HOOKS, "--stall-limit-seconds", "2") as server:
        client = await stall(server, 3_600.0)
        assert await asyncio.to_thread(server.wait, 60) == EXIT_CODE
        last = json.loads(server.log_lines[-1])
        assert last["log.level"] == "critical" and "the process ends with exit code 70" in last["message"]
        assert "in stand_still\n" in last["collab.stack"]
        await client.close()


class Stalled:
    """A loop in another thread, which stands still until the test lets it go on."""

    def __init__(self, limit: float = 0.0, look: float = 0.01) -> None:
        self.lag, self.ended = LoopLag(), threading.Event()
        self.codes: list[int] = []
        self.go_on, self.done_looking, self._watched = threading.Event(), threading.Event(), threading.Event()
        self.watchdog = Watchdog(self.lag, limit, end=self._end, look=look)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        # Else the loop might stand still before anybody watches it.
        assert self._watched.wait(60)

    def _end(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()

    def _run(self) -> None:
        self.loop.run_until_complete(self._live())
        self.loop.close()

    async def _live(self) -> None:
        self.done = asyncio.Event()
        task = asyncio.create_task(self.lag.watch())
        self.watchdog.start()
        await asyncio.sleep(0)
        assert self.lag.looks == 1
        self._watched.set()
        await asyncio.to_thread(self.done_looking.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.done.wait()
        self.watchdog.close()

    def stall(self) -> None:
        self.loop.call_soon_threadsafe(self.go_on.wait)

    def close(self) -> None:
        self.go_on.set()
        self.done_looking.set()
        self.loop.call_soon_threadsafe(self.done.set)
        self._thread.join()


async def test_a_stall_is_told_once_with_its_stack_and_then_its_end(caplog: pytest.LogCaptureFixture) -> None:
    stalled = Stalled()
    try:
        stalled.stall()
        await happens(lambda: "has stood still" in caplog.text, "the line")
        stalled.go_on.set()
        await happens(lambda: "goes on" in caplog.text, "the end of the stall")
        assert stalled.lag.stalls == 1
    finally:
        stalled.close()
    (told,) = [record for record in caplog.records if "has stood still" in record.getMessage()]
    assert told.stack_info is not None and "in wait" in told.stack_info and "in a callback" in told.getMessage()


async def test_a_log_that_cannot_be_written_does_not_keep_the_process(caplog: pytest.LogCaptureFixture) -> None:
    blocked, release = threading.Event(), threading.Event()

    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            blocked.set()
            release.wait(60)

    stalled, handler = Stalled(limit=2 * STALL_SECONDS), Full()
    logger = logging.getLogger("collab.loop")
    logger.addHandler(handler)
    try:
        stalled.stall()
        assert await asyncio.to_thread(stalled.ended.wait, 60), "it ends all the same"
        assert blocked.is_set() and stalled.codes == [EXIT_CODE]
    finally:
        logger.removeHandler(handler)
        release.set()
        stalled.close()


async def test_neither_a_loop_that_turns_nor_one_that_has_ended_is_late() -> None:
    stalled = Stalled(limit=0.5, look=0.05)
    await asyncio.to_thread(time.sleep, 1.0)
    turned = not stalled.ended.is_set()
    stalled.done_looking.set()
    await asyncio.to_thread(time.sleep, 1.0)
    ended = not stalled.ended.is_set()
    stalled.close()
    assert turned and ended
