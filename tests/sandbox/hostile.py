"""Jobs that go wrong in every way that a job can, importable by a sandbox process."""

from __future__ import annotations

import os
import re
import signal
import time


def hang() -> None:
    """Never return."""
    while True:
        time.sleep(3600)


def hang_visibly(path: str) -> None:
    """Make a file, then never return."""
    with open(path, "w"):
        hang()


def spin_holding_the_lock() -> None:
    """Never return and never let a Python signal handler run: exponential matching inside of one C call."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def crash() -> None:
    """Die as on a stack overflow."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    """Die as by abort, without a signal."""
    os._exit(3)


def eat() -> int:
    """Ask for more memory than there is."""
    return len(bytearray(8 << 30))


def panic() -> None:
    """Make the library panic (C2 in docs/decisions/0002: an empty struct list of a client that the document knows)."""
    from typing import Any

    import pycrdt

    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.apply_update(bytes.fromhex("0101050004010174016100"))
    document.apply_update(bytes.fromhex("0100050000"))


def limits() -> dict[str, tuple[int, int]]:
    """Tell the limits of this process."""
    import resource

    return {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_AS", "RLIMIT_STACK", "RLIMIT_CORE")}


def modules() -> list[str]:
    """Tell which modules this process has loaded."""
    import sys

    return sorted(sys.modules)


def unpicklable() -> object:
    """Return what cannot travel."""
    return lambda: None
