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
