"""How much room is left on the disks that a server writes to.

Strategy: each place is looked at every ten seconds, in a thread, because a network file system may not answer. What is
found is told by metrics, whose alerts come hours before; by ``/readyz``; and once in the log, before nothing can be
saved any more.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from collab.telemetry import get_logger

_log = get_logger("disks")

LITTLE_DISK: Final = 100 * 1024 * 1024
"""Bytes: where less is free, somebody has to make room before nothing can be saved."""

DATABASE: Final = "database"
AUDIT: Final = "audit log"
"""What is kept on disks."""

LOOK_SECONDS: Final = 10.0
"""Seconds between two looks."""

# Times as much has to be free until it would be told again in the log.
_ENOUGH: Final = 2


class Room(NamedTuple):
    """What is left of a disk, and how large it is, in bytes."""

    free: int
    size: int


class Disks:
    """The disks of a server.

    Args:
        places: directories on them, by what is kept there. Of two on one disk the first one is looked at.

    Attributes:
        rooms: what is left, as it was looked at last, by what is kept there.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = dict(places)
        self._told: set[str] = set()
        self._unread: dict[str, str] = {}
        self.rooms: dict[str, Room] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def state(self, kept: str) -> str:
        """Say what is wrong with a disk, or "ok"."""
        if kept in self._unread:
            return f"cannot be read: {self._unread[kept]}"
        room = self.rooms.get(kept)
        return "ok" if room is None or room.free >= LITTLE_DISK else f"{room.free >> 20} MiB are free"

    async def look(self) -> None:
        """Look at all of them."""
        if not self._places:
            return
        self.rooms, self._unread = await asyncio.to_thread(self._read)
        for kept, room in self.rooms.items():
            if room.free < LITTLE_DISK and kept not in self._told:
                self._told.add(kept)
                _log.warning(
                    "%d MiB are free on the disk of the %s: make room before it is full", room.free >> 20, kept
                )
            elif room.free >= _ENOUGH * LITTLE_DISK and kept in self._told:
                self._told.discard(kept)
                _log.info("%d MiB are free on the disk of the %s", room.free >> 20, kept)

    async def watch(self) -> None:
        """Look again and again; run it where there is something to look at."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def _read(self) -> tuple[dict[str, Room], dict[str, str]]:
        rooms: dict[str, Room] = {}
        unread: dict[str, str] = {}
        seen: set[int] = set()
        for kept, place in self._places.items():
            try:
                device = place.stat().st_dev
                usage = shutil.disk_usage(place)
            except OSError as error:
                unread[kept] = error.strerror or str(error)
                continue
            if device not in seen:
                rooms[kept] = Room(usage.free, usage.total)
            seen.add(device)
        return rooms, unread
