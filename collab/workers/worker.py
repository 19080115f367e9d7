"""One worker: the server itself, with a parent above it in place of a terminal.

Strategy: the pipes of the parent are taken away from the standard streams at once. What this process starts (the
sandbox) would inherit those, and hold them open after a crash, so the parent would not see the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from collab.app import Stop, serve
from collab.errors import CollabError, ConfigurationError
from collab.loop import run_loop
from collab.settings import Settings
from collab.telemetry import complain, configure, get_logger
from collab.workers import BEAT_SECONDS, LISTEN, MAX_LINE

_log = get_logger()


class Parent:
    """The parent as the worker knows it (``collab.app.Supervisor``).

    Args:
        number: of the worker.
        lines: what the parent writes.
        out: the file number to write to.
    """

    def __init__(self, number: int, lines: asyncio.StreamReader, out: int) -> None:
        self.number = number
        self._lines = lines
        self._out = out
        self._may_listen = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, stop: Stop) -> None:
        """Wait until all workers may listen, or until this one is to stop."""
        self._say(event="started")
        self._tasks = [asyncio.create_task(self._hear(stop)), asyncio.create_task(self._beat())]
        waits = [asyncio.create_task(event.wait()) for event in (self._may_listen, stop.asked)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()

    def listening(self, addresses: Sequence[str], metrics: str | None) -> None:
        """Tell the parent where this worker listens."""
        self._say(event="listening", addresses=[*addresses], metrics=metrics)

    async def close(self) -> None:
        """Hear and say nothing more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hear(self, stop: Stop) -> None:
        while line := await self._lines.readline():
            if line == LISTEN:
                self._may_listen.set()
        if not stop.asked.is_set():
            _log.error("the parent of the workers has died: stopping, for nobody would watch over this one")
            stop.ask(delayed=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._say(event="beat")

    def _say(self, **message: object) -> None:
        # A parent that stands still must not hold the worker up, and one that has died is noticed by its silence.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._out, json.dumps(message).encode() + b"\n")


async def work(number: int, source: int, out: int) -> int:
    """Serve as worker ``number``, with the parent at the other end of two pipes; return the exit code."""
    lines = asyncio.StreamReader(limit=MAX_LINE)
    pipe = os.fdopen(source, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe)
    os.set_blocking(out, False)
    parent = Parent(number, lines, out)
    try:
        line = await lines.readline()
        if not line:
            return 1  # the parent died first
        settings = Settings.model_validate_json(line)
        configure(settings.log_level, format=settings.log_format, worker=number)
        return await serve(settings, parent)
    finally:
        await parent.close()
        transport.close()


def main() -> NoReturn:
    """Run the worker whose number is the one argument, and exit as ``collab serve`` does."""
    source, out = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        code = run_loop(work(int(sys.argv[1]), source, out))
    except CollabError as error:
        complain(str(error) or error.public)
        code = 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        code = 130  # asked to stop before it had begun
    sys.exit(code)
