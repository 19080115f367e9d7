"""Work that is done in slices: generators that yield about every millisecond, and return what they have made."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_Result = TypeVar("_Result")


def at_once(slices: Generator[None, None, _Result]) -> _Result:
    """Run sliced work to its end, and return what it returns; on the loop of a server, ``in_slices`` lets others in."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _Result = stop.value
            return result
