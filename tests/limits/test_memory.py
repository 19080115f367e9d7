"""The memory of the process: what cannot be read now is read later, and nobody takes the last figure for a new one."""

from __future__ import annotations

import psutil
import pytest

from collab.limits.memory import Memory


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), psutil.AccessDenied()])
async def test_memory_that_cannot_be_read_for_a_moment_is_read_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    memory = Memory(limit=1)
    await memory.measure(0.0)
    used = memory.used
    assert used > 1 and memory.past_limit and memory.unread is None

    def fails(process: psutil.Process) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "memory_info", fails)
        await memory.measure(1.0)
    assert memory.unread == type(error).__name__
    assert memory.past_limit, "the last figure stands"
    assert any("cannot be read" in record.getMessage() for record in caplog.records)
    await memory.measure(2.0)
    assert memory.unread is None
