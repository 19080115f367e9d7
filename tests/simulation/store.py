"""The store of the simulation: the memory store, with every fault that its port allows, and what watches its log.

Strategy: ``MemoryStore.travel`` is awaited on each way to the storage and back. Waiting there is a slow store, and an
answer that is old when it arrives; raising there is one that is away, with nothing done on the way there and everything
done on the way back (an ambiguous commit). The storage itself notes what each row holds when it is written, so that an
acknowledgement can be compared with the log in the moment in which it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random

from collab.errors import StoreUnavailable
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.records import Append, Appended, AppendOutcome
from collab.update import read_update


class Held:
    """What updates hold: clocks of structs and of deletes, by client.

    Attributes:
        structs, deletes: pairs of client and clock.
    """

    __slots__ = ("deletes", "structs")

    def __init__(self) -> None:
        self.structs: set[tuple[int, int]] = set()
        self.deletes: set[tuple[int, int]] = set()

    def add(self, update: bytes) -> None:
        """Add what an update holds."""
        read = read_update(update, stored=True)
        for section in read.sections:
            if section.count:
                self.structs.update([(section.client, clock) for clock in range(section.clock, section.end)])
        for entry in read.deletes:
            pairs = zip(entry.ranges[::2], entry.ranges[1::2], strict=True)
            self.deletes.update([(entry.client, at) for clock, count in pairs for at in range(clock, clock + count)])

    def with_updates(self, updates: Iterable[bytes]) -> Held:
        """Give what is here and in these updates."""
        made = Held()
        made.structs, made.deletes = set(self.structs), set(self.deletes)
        for update in updates:
            made.add(update)
        return made

    def __le__(self, other: Held) -> bool:
        return self.structs <= other.structs and self.deletes <= other.deletes

    def lacks(self, other: Held) -> str:
        """Say what of ``other`` is not here."""
        return f"structs {sorted(other.structs - self.structs)}, deletes {sorted(other.deletes - self.deletes)}"


class WatchedStorage(MemoryStorage):
    """The storage; notes what its rows hold.

    Attributes:
        held: what the log of each document holds, by name.
        on_rows: called for each row as it is written, with the document's name, its number and its bytes.
    """

    def __init__(self, on_rows: Callable[[str, int, bytes], None]) -> None:
        super().__init__()
        self.held: dict[str, Held] = {}
        self.on_rows = on_rows

    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write a batch."""
        found = super().append(batch)
        for entry, outcome in zip(batch, found, strict=True):
            if isinstance(outcome, Appended):
                held = self.held.setdefault(entry.name, Held())
                for number, row in enumerate(entry.rows, outcome.first_seq):
                    held.add(row.data)
                    self.on_rows(entry.name, number, row.data)
        return found


class Way:
    """The way of one node to the storage, and how bad it is.

    Attributes:
        away: whether every call fails.
        latency: seconds of one way at most, as long as nothing is wrong.
        fails: chance that one way fails: nothing was done on the way there, everything on the way back.
        slow: chance that one way takes seconds.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.away = False
        self.latency = 0.002
        self.fails = self.slow = 0.0

    async def travel(self) -> None:
        """Go one way."""
        chance = self._random.random
        wait = 0.0002 + chance() * self.latency
        if chance() < self.slow:
            wait += chance() ** 2 * 4.0
        await asyncio.sleep(wait)
        if self.away or chance() < self.fails:
            raise StoreUnavailable("the simulated store is away")


def new_store(storage: WatchedStorage, way: Way, clock: Callable[[], float]) -> MemoryStore:
    """Make the store of one node."""
    return MemoryStore(storage, clock=clock, travel=way.travel)
