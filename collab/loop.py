"""The event loop that commands and servers run on.

Strategy: uvloop's, with two things mended. A thread that has a result hands it to the loop by ``call_soon_threadsafe``.
If there is no memory for that moment, the result is lost, and the task that awaits it waits for ever. So the
thread tries again. And a thread that works in Python (thousands of rows become objects when a document is read) keeps
the loop waiting for up to 5 ms each time that the loop has something to do. Here it is a tenth of a millisecond, since
uvloop gives the interpreter's lock back after each socket that it reads, and has to win it anew for the next one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

# How often a thread tries to reach the loop while there is no memory, and the seconds between two tries. A server that
# gets no memory for so long has ended before (``collab.limits.exhaustion``).
_TRIES: Final = 3_000
_PAUSE: Final = 0.01

# Seconds after which a thread has to let the loop go on.
_SWITCH: Final = 0.000_1


def run_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work`` on uvloop where there is one (not on Windows), else on asyncio's loop."""
    sys.setswitchinterval(_SWITCH)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)

    class Loop(uvloop.Loop):
        """uvloop's, which threads reach also when there is no memory for a moment."""

        def call_soon_threadsafe(
            self,
            callback: Callable[[*_Arguments], object],
            *args: *_Arguments,
            context: Context | None = None,
        ) -> asyncio.Handle:
            call = super().call_soon_threadsafe
            if asyncio._get_running_loop() is self:  # its own thread must not wait for others
                return call(callback, *args, context=context)
            return persistently(call, callback, *args, context=context)

    return uvloop.run(work, loop_factory=Loop)


def persistently(call: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
    """Make a call again while there is no memory for it, for up to 30 s; blocks, so never on the loop.

    Raises:
        MemoryError: there was none in all that time.
    """
    for _ in range(_TRIES - 1):
        try:
            return call(*args, **options)
        except MemoryError:
            time.sleep(_PAUSE)
    return call(*args, **options)
