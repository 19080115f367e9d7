"""The loop that commands and servers run on."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop

from collab.loop import run_loop


async def kind() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_it_is_uvloop_where_there_is_one_and_asyncios_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(run_loop(kind()), uvloop.Loop)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert issubclass(run_loop(kind()), asyncio.SelectorEventLoop)


def test_a_thread_that_works_in_python_lets_the_loop_go_on_within_a_millisecond() -> None:
    async def interval() -> float:
        return sys.getswitchinterval()

    before = sys.getswitchinterval()
    try:
        assert run_loop(interval()) <= 0.001
    finally:
        sys.setswitchinterval(before)
