"""What the rooms of one node have done since it started.

Strategy: what happens with each edit is counted once for a turn or a broadcast, or taken from what a room knows anyhow
(``LiveRoom.updates``, ``Persistence.turns``): counting may cost no more than a percent of an edit. The numbers of rooms
that are over are added here.
"""

from __future__ import annotations

from collections import Counter

from collab.telemetry.counters import SHORT_SECONDS, SIZES, Histogram, NotedHistogram

TOLD, GAP, LOOK = "told", "gap", "look"
CATCH_UPS = (TOLD, GAP, LOOK)
"""Why rows of other nodes are read from the log: a message says where they are and does not hold them; rows are missing
between those that have come; or a look at the heads of the log has found them."""


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
        turn_bytes: bytes of the update that each turn has brought.
        joins: sessions that have joined a room.
        returns: of these, those whose client had something of the document already.
        propagations: seconds from the first message of a turn to when what it has brought was written to all members.
        node_propagations: seconds from the end of a turn on another node to when its rows were written to members here,
            by the clocks of both machines; for each row.
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
        catch_ups: how often such rows were read from the log, by why; see ``CATCH_UPS``.
        store_bytes: how large the store was when it was looked at last; None where it does not say.
        hooks: see ``HookCounts``.
    """

    __slots__ = (
        "catch_ups",
        "compactions",
        "delivered_bytes",
        "deliveries",
        "evictions",
        "failed_compactions",
        "held_back",
        "hooks",
        "joins",
        "loads",
        "node_propagations",
        "propagations",
        "refused_updates",
        "returns",
        "rows_of_others",
        "snapshots_of_others",
        "store_bytes",
        "turn_bytes",
        "turns",
        "unloaded",
        "updates",
    )

    def __init__(self) -> None:
        self.turns = self.updates = self.joins = self.returns = 0
        self.deliveries = self.delivered_bytes = self.refused_updates = 0
        self.held_back = self.unloaded = self.failed_compactions = self.rows_of_others = 0
        self.snapshots_of_others = 0
        self.store_bytes: int | None = None
        self.evictions: Counter[str] = Counter()
        self.catch_ups: Counter[str] = Counter()
        self.turn_bytes = NotedHistogram(SIZES)
        self.propagations = NotedHistogram(SHORT_SECONDS)
        self.node_propagations = NotedHistogram()
        self.loads = Histogram()
        self.compactions = Histogram()
        self.hooks = HookCounts()

    def fold(self) -> None:
        """Count what was noted; call it about once a second."""
        self.turn_bytes.fold()
        self.propagations.fold()
        self.node_propagations.fold()

    def add_room(self, updates: int, turns: int) -> None:
        """Count what a room has brought that is over."""
        self.updates += updates
        self.turns += turns
