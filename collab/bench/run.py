"""What a scenario is given, and what it gives: figures.

Strategy: a scenario is one coroutine that takes a Bench (where, whose process, how long) and returns a flat
dictionary of figures, ready for a table or for JSON.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from collab.bench.connection import Target
from collab.bench.load import Progress, silent
from collab.bench.process import ServerProcess

Figures = dict[str, Any]

COMMIT_PAUSE = 0.1
"""Seconds after the last delivery: a journal that gathers for some milliseconds still has to commit."""

GENERATOR_LIMIT = 0.9
"""The generator is no witness of the server any more when it needs more of its core than this."""


@dataclass(slots=True)
class Bench:
    """Where a scenario runs and for how long."""

    target: Target
    server: ServerProcess | None = None
    seconds: float = 5.0
    progress: Progress = silent
    restart: Callable[[], Awaitable[tuple[Target, ServerProcess | None]]] | None = None
    verify: bool = True
    url: str = ""
    wire: str = "y-websocket"
    token: str = ""
    name: str = field(default_factory=lambda: f"bench-{secrets.token_hex(4)}")
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def document(self, what: str) -> str:
        """Return a document name that no other run has."""
        return f"{self.name}-{what}-{secrets.token_hex(3)}"


def note_cpu(figures: Figures, cpu: float | None, deliveries: int, seconds: float | None = None) -> None:
    """Add to ``figures`` the CPU seconds of the server, how many that are for 1,000 deliveries, and of one core."""
    figures["server_cpu_s"] = cpu
    figures["cpu_ms_per_1000"] = None if cpu is None or not deliveries else cpu * 1e6 / deliveries
    if seconds is not None:
        figures["core_share"] = None if cpu is None else cpu / seconds
