"""The event loop that commands and servers run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def run_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work`` on uvloop where there is one (not on Windows), else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)
