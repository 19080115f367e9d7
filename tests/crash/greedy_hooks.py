"""Hooks that take memory, for servers of the tests; what they do depends on the document whose rows are stored."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from collab.hooks import Hooks, Rows, Server

IN_LOOP, IN_THREAD, LEAK = "greedy/loop", "greedy/thread", "greedy/leak"

LOSE_CALL, LOSE_ANSWER = "greedy/lose/call", "greedy/lose/answer"
"""There is no memory for a call of the loop: it fails, or tells nobody that something has happened."""

LEAKED = 32 << 20
"""Bytes that are kept for each call that leaks."""

HOLDS = "holds="
"""In the name of a document: the seconds for which a thread keeps all memory."""

TAKEN, FREED = "greedy has taken all memory", "greedy has given all memory back"
"""Written to standard error."""

# Bytes that are taken at a time in the end. Such small ones come from the interpreter's own pools, which are then
# empty too.
_LEAST = 64

_TAKEN, _FREED = f"{TAKEN}\n".encode(), f"{FREED}\n".encode()


def take_all(seconds: float) -> None:
    """Take memory until there is none, take also what others give back for ``seconds``, and fail."""
    held: list[bytes] = []
    until: float | None = None
    size = 64 << 20
    while True:
        try:
            held.append(bytes(size))
        except MemoryError:
            if size > _LEAST:
                size //= 2
                continue
            now = time.monotonic()
            if until is None:
                os.write(2, _TAKEN)
                until = now + seconds
            elif now >= until:
                held.clear()
                os.write(2, _FREED)
                raise
            if seconds:
                time.sleep(0.001)


def take_all_once() -> None:
    """Take all memory for long enough to be noticed."""
    with contextlib.suppress(MemoryError):
        take_all(1.0)


def fail() -> None:
    """Be a call of the loop for which there is no memory."""
    raise MemoryError


async def lose_answer() -> None:
    """Let a task wait for what has happened, and leave it so."""
    loop = asyncio.get_running_loop()
    happened: asyncio.Future[None] = loop.create_future()
    tasks.append(asyncio.create_task(_wait(happened)))
    await asyncio.sleep(0)
    call_soon = loop.call_soon
    loop.call_soon = lambda *args, **options: fail()  # type: ignore[assignment]
    try:
        happened.set_result(None)
    finally:
        loop.call_soon = call_soon  # type: ignore[method-assign]


async def _wait(happened: asyncio.Future[None]) -> None:
    await happened


tasks: list[asyncio.Task[None]] = []


class Greedy(Hooks):
    """Takes all memory, in the loop or in a thread, or keeps more with each call."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def stored(self, event: Rows, server: Server) -> None:
        if event.name == IN_LOOP:
            take_all(0.0)
        elif event.name.startswith(IN_THREAD):
            _, _, seconds = event.name.partition(HOLDS)
            await asyncio.to_thread(take_all, float(seconds))
        elif event.name == LEAK:
            self.kept.append(b"x" * LEAKED)
        elif event.name == LOSE_CALL:
            asyncio.get_running_loop().call_soon(fail)
        elif event.name == LOSE_ANSWER:
            await asyncio.to_thread(take_all_once)
            await lose_answer()
