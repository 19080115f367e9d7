"""A script of ``tests/node`` as a process beside the test's own loop.

Strategy: one class starts it, reads its lines and what it prints as errors, and ends it; what the lines
mean is for the subclass to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tests.support.node import find_node, installed_packages


class NodeProcess(ABC):
    """One Node process; use as an async context manager. It ends when its standard input does."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._command = (script, *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: list[str] = []

    async def __aenter__(self) -> Self:
        script, *arguments = self._command
        self._process = await asyncio.create_subprocess_exec(
            find_node()[0],
            str(installed_packages() / script),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await asyncio.gather(*self._tasks)
        if self._stderr and isinstance(error, Exception):
            error.add_note("node said:\n" + "".join(self._stderr[-30:]))

    def freeze(self) -> None:
        """Stop the process where it is, as a phone does with what is in the background, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on; harmless if it was not frozen."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def stderr(self) -> str:
        """What Node printed, warnings of the clients among it."""
        return "".join(self._stderr)

    @abstractmethod
    async def _read(self) -> None:
        """Read the lines of standard output to their end."""

    async def _read_errors(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._stderr.append(line.decode(errors="replace"))
