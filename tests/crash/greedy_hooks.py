"""Hooks that take memory, for servers of the tests; what they do depends on the document whose rows are stored."""

from __future__ import annotations

import asyncio
import time

from collab.hooks import Hooks, Rows, Server

IN_LOOP, IN_THREAD, LEAK = "greedy/loop", "greedy/thread", "greedy/leak"

LEAKED = 32 << 20
"""Bytes that are kept for each call that leaks."""

HOLDS = 1.0
"""Seconds for which a thread keeps all memory before it fails."""


def take_all(seconds: float) -> None:
    """Take memory until there is none, keep it for some time, and fail."""
    held: list[bytearray] = []
    size = 64 << 20
    while True:
        try:
            held.append(bytearray(size))
        except MemoryError:
            if size <= 512:
                time.sleep(seconds)
                raise
            size //= 4


class Greedy(Hooks):
    """Takes all memory, in the loop or in a thread, or keeps more with each call."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    async def stored(self, event: Rows, server: Server) -> None:
        if event.name == IN_LOOP:
            take_all(0.0)
        elif event.name == IN_THREAD:
            await asyncio.to_thread(take_all, HOLDS)
        elif event.name == LEAK:
            self.kept.append(b"x" * LEAKED)
