"""``collab serve`` whose clock jumps: run it as ``python -m tests.support.jumping_server OPTIONS``.

With SIGUSR2 the time of day is an hour later, and with the next one it is right again, as after a machine was
suspended, or by a time server that is wrong. It is put in the place of ``time.time`` before the server is
imported, which takes it from there.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

SECONDS = 3_600.0
"""How far it jumps."""

_true_time = time.time
_ahead = 0.0


def jumping_time() -> float:
    """Give the time of day as this process has it."""
    return _true_time() + _ahead


def jump(signum: int, frame: FrameType | None) -> None:
    """Go to the other one of the two times."""
    global _ahead
    _ahead = 0.0 if _ahead else SECONDS


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, jump)
    time.time = jumping_time
    from collab.cli import main

    sys.argv.insert(1, "serve")
    main()
