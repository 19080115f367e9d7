"""What ends a process that had no memory. Real servers that have none are in tests/crash/test_hooks.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from collab.limits import exhaustion
from collab.limits.exhaustion import Exhaustion


class Watched(Exhaustion):
    """One whose thread a test runs itself, look by look; it notes why the process would end."""

    def __init__(self) -> None:
        super().__init__(lambda: None, lambda: self.progress)
        self.progress: object = None
        self.why: list[str] = []

    def _finish(self, why: str) -> None:
        self.why.append(why)

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self._look()
            await asyncio.sleep(0)
            if self.why:
                return


@pytest.fixture
async def watched() -> Watched:
    return Watched()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether there is memory: one flag."""
    there = [True]
    monkeypatch.setattr(exhaustion, "_is_memory_there", lambda: there[0])
    yield there


def test_memory_is_there() -> None:
    assert exhaustion._is_memory_there()


async def test_a_process_ends_when_there_was_no_memory_for_ten_seconds(watched: Watched, memory: list[bool]) -> None:
    memory[0] = False
    await watched.look(19)
    memory[0] = True
    await watched.look()
    memory[0] = False
    await watched.look(19)
    assert not watched.why, "not in a row"
    await watched.look()
    assert watched.why == [exhaustion._NO_MEMORY]


async def test_a_server_that_goes_on_is_left_alone(
    watched: Watched, memory: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "collab")
    await watched.look(100)
    memory[0] = False
    await watched.look()
    memory[0] = True
    for number in range(100):
        watched.progress = number
        await watched.look()
    assert not watched.why
    assert [message.split(",")[0] for message in caplog.messages] == [
        "there was no memory for a moment; it is looked at whether the server goes on",
        "the server goes on",
    ]


async def test_a_journal_that_writes_nothing_ends_the_process(watched: Watched, memory: list[bool]) -> None:
    watched.progress = "as ever"
    await watched.look(200)
    assert not watched.why, "nothing was wrong before"
    memory[0] = False
    await watched.look()
    memory[0] = True
    await watched.look(200)
    assert watched.why == [exhaustion._UNWRITTEN]


async def test_a_loop_that_does_not_answer_ends_the_process(watched: Watched, memory: list[bool]) -> None:
    memory[0] = False
    await watched.look()
    memory[0] = True
    for _ in range(25):
        watched._look()  # and the loop does not turn
    assert watched.why[0] == exhaustion._SILENT


async def test_a_failure_of_the_loop_for_want_of_memory_is_noticed_and_any_other_is_shown(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    watched._handle(loop, {"message": "x", "exception": ValueError("shown")})
    assert "shown" in caplog.text
    watched._handle(loop, {"message": "x", "exception": MemoryError(), "transport": None})
    await watched.look()
    assert not watched.why, "one connection was lost"
    watched._handle(loop, {"message": "x", "exception": MemoryError(), "handle": object()})
    await watched.look()
    assert watched.why == [exhaustion._LOST]
