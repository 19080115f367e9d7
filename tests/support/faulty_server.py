"""``collab serve`` in which a call on the way of an edit fails now and then, by chance: run it as
``python -m tests.support.faulty_server OPTIONS``. Each fault is a line on standard error that begins with ``MARK``.
SIGUSR2 makes it write there how each member stands and where each task waits.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
from types import FrameType
from typing import Any

from collab.cli import main
from collab.hub.member import Member
from tests.support.faults import PARTS, Fault

MARK = "injected: "

# How often a part is chosen, and the number of its calls among which the one that fails is drawn. A part with fewer
# calls than that is left whole.
CHANCE = 1 / 400
CALLS = 80


def make_faulty(part: str) -> None:
    """Let the calls within a part of the way fail by chance, from now on."""
    owner, method = PARTS[part]
    original = getattr(owner, method)

    def by_chance(*arguments: Any, **options: Any) -> Any:
        if random.random() >= CHANCE:
            return original(*arguments, **options)
        error = random.choice((MemoryError, RuntimeError))
        number = random.randrange(CALLS)
        fault = Fault(owner, method, number, error)
        try:
            with fault:
                return getattr(owner, method)(*arguments, **options)
        finally:
            if fault.hit:
                print(f"{MARK}{error.__name__} at call {number} of {part}", file=sys.stderr, flush=True)

    setattr(owner, method, by_chance)


def tell(signum: int, frame: FrameType | None) -> None:
    """Write how everything stands."""
    for member in [one for one in gc.get_objects() if isinstance(one, Member)]:
        waiting = member.outbox.waiting()
        print(f"{member.encoder}: {member.state}, {waiting} bytes wait, {member.delivery}", file=sys.stderr)
    for task in asyncio.all_tasks(asyncio.get_event_loop()):
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, tell)
    for part in PARTS:
        make_faulty(part)
    sys.argv.insert(1, "serve")
    main()
