"""What the rooms of one node have done since it started.

Strategy: what happens with each edit is counted once for a turn or a broadcast, or taken from what a room knows anyhow
(``LiveRoom.updates``, ``Persistence.turns``): counting may cost no more than a percent of an edit. The numbers of rooms
that are over are added here.
"""

from __future__ import annotations

from collections import Counter

from collab.telemetry.counters import Histogram


class HookCounts:
    """What Python hooks were asked and told, by the names of their methods.

    Attributes:
        calls: calls that have ended in time, whatever came of them.
        failures: calls that have raised what they may not, or given what is no answer.
        timeouts: calls that were given up.
        dropped: events and messages that no hook was told, because too much waited or a hook has failed.
        waiting: events, messages and questions that wait, or are under way.
        seconds: how long the calls took.
    """

    __slots__ = ("calls", "dropped", "failures", "seconds", "timeouts", "waiting")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.waiting = 0
        self.seconds = Histogram()


class HubCounts:
    """The counts of one hub, each added to where it happens.

    Attributes:
        turns: turns that have brought edits to the journal, of rooms that are over.
        updates: updates of clients that held something new, of rooms that are over.
        deliveries: frames that were written to members.
        delivered_bytes: bytes of those frames.
        held_back: how often a member began to lag.
        loads: seconds in which documents came from the store into memory.
        unloaded: documents that left memory because nobody was there.
        refused_updates: updates whose clients were told that they are not saved, where their protocol can say so.
        evictions: rooms that were ended before their members left, by the name of the error.
        compactions: seconds in which snapshots were made and stored.
        failed_compactions: snapshots that could not be made.
        snapshots_of_others: snapshots that other nodes have made and rooms here have taken.
        rows_of_others: rows of the log that other nodes have written and rooms here have taken.
        hooks: see ``HookCounts``.
    """

    __slots__ = (
        "compactions",
        "delivered_bytes",
        "deliveries",
        "evictions",
        "failed_compactions",
        "held_back",
        "hooks",
        "loads",
        "refused_updates",
        "rows_of_others",
        "snapshots_of_others",
        "turns",
        "unloaded",
        "updates",
    )

    def __init__(self) -> None:
        self.turns = self.updates = 0
        self.deliveries = self.delivered_bytes = self.refused_updates = 0
        self.held_back = self.unloaded = self.failed_compactions = self.rows_of_others = 0
        self.snapshots_of_others = 0
        self.evictions: Counter[str] = Counter()
        self.loads = Histogram()
        self.compactions = Histogram()
        self.hooks = HookCounts()

    def add_room(self, updates: int, turns: int) -> None:
        """Count what a room has brought that is over."""
        self.updates += updates
        self.turns += turns
