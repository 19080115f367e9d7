"""Generators that do their work in slices, run to their end at once."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def run(slices: Generator[None, None, Result]) -> Result:
    """Run all slices and return what the generator returns."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: Result = stop.value
            return result
