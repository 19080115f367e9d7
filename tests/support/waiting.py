"""Waiting for a fact, where nothing tells when it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Between two looks; short beside everything that is waited for.
_PAUSE = 0.02


async def eventually(look: Callable[[], Awaitable[T | None]], what: str, seconds: float = 60.0) -> T:
    """Look again and again until something true is seen, and return it.

    Raises AssertionError with ``what`` and what was seen last when it does not come within ``seconds``.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s; the last look gave {seen!r}")
        await asyncio.sleep(_PAUSE)


async def happens(fact: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """As ``eventually``, for a fact of this process that can be looked at without waiting."""

    async def look() -> bool:
        return bool(fact())

    await eventually(look, what, seconds)
