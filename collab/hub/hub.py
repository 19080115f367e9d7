"""All rooms that live on this node.

Strategy: a room is opened once however many ask for it at the same time, ends its turns in one sweep
with all others, and leaves memory when nobody has been there for a while. The hub owns every task
that runs beside the connections, and the one way down: ``drain``.

When a turn ends: the first edit after quiet goes at the end of the loop's own turn, so it is never
delayed; edits that follow within the room's window travel together when it is over. The window grows
with the number of members, because sending is the cost (about 5 us a frame and socket) and latency
is what small rooms want: a quarter of the full window at five members, all of it from about twenty on,
half as much again for a hundred. When a node spends most of its time on ending turns, all windows
stretch, to 25 ms at the most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from collab.engine.document import Document
from collab.engine.room import Room
from collab.errors import CollabError, DocumentDeleted, PeerTooSlow, ServerStopping, StoreUnavailable
from collab.hub.compaction import CompactionPolicy, Compactor
from collab.hub.live import LiveRoom, in_slices
from collab.hub.member import Member
from collab.hub.tasks import Tasks
from collab.protocol.session import State
from collab.sandbox.pool import Sandbox
from collab.storage.journal import Journal
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("room")

# Members at which a room's window is the full one, and how much longer it is for a crowd, from how many on.
_FULL_WINDOW_MEMBERS = 20
_CROWD = 0.5
_CROWD_MEMBERS = 100

# Seconds over which the time spent on ending turns is measured, the share of it above which this node
# counts as busy, and how far the windows stretch then. Twice the window is nearly half the sending; what
# a crowd loses in latency, it would lose many times over in a queue.
_MEASURE = 0.05
_BUSY = 0.4
_LONGEST_STRETCH = 32.0
_LONGEST_WINDOW = 0.025

# Seconds between looks at members that lag. A drained outbox is idle for half of it on average.
_LAG_SWEEP = 0.05

# Seconds between sweeps for idle rooms and unanswered questions.
_SWEEP = 1.0

# Seconds after which the clocks of awareness states that have left are forgotten.
_FORGET = 60.0

# Log rows that one portion of pruning removes, and seconds between looks for more to remove.
_PRUNE_ROWS = 500
_PRUNE_PAUSE = 300.0

# Seconds before a compaction that has failed is tried again; the log is complete without it.
_COMPACTION_PAUSE = 60.0

# Seconds that snapshots may take at the end of a drain; everything is durable by then.
_SHORTEN = 5.0

# Idle rooms that are compacted at the same time; the rest of the sandbox is for busy ones.
_UNLOADING = 2

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class HubOptions:
    """What a hub is told by the settings; times in seconds, sizes in bytes."""

    batch_window: float
    history: float
    max_document_bytes: int
    max_awareness_bytes: int
    max_awareness_ids: int
    slow_seconds: float
    sync_timeout: float
    idle_seconds: float
    compaction: CompactionPolicy


class Hub:
    """The rooms of this node.

    Args:
        store: the log; open while the hub runs.
        journal: its writer; started and closed by the hub.
        sandbox: where compaction runs.
        clock: wall-clock time in Unix seconds, for the rows.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        sandbox: Sandbox,
        options: HubOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.journal = journal
        self.clock = clock
        self.tasks = Tasks()
        self.stopping = False
        self.drained = False
        self.rooms: dict[str, LiveRoom] = {}
        self.slow_seconds = options.slow_seconds
        self._options = options
        self._compactor = Compactor(store, sandbox, options.compaction, clock)
        self._opening: dict[str, asyncio.Task[LiveRoom]] = {}
        self._idle: dict[LiveRoom, None] = {}
        self._unloading = asyncio.Semaphore(_UNLOADING)
        self._dirty: list[LiveRoom] = []
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._stretch = 1.0
        self._busy = 0.0
        self._measured_at = 0.0
        self._lagging: dict[LiveRoom, None] = {}
        self._lag_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which everything here runs."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def now(self) -> float:
        """Return the loop's time in seconds, for intervals."""
        return self.loop.time()

    async def start(self) -> None:
        """Start the journal and the background work."""
        await self.journal.start()
        self.tasks.spawn(self._sweep_forever(), "sweep")
        self.tasks.spawn(self._prune_forever(), "prune")

    # Opening

    async def open(self, name: str) -> LiveRoom:
        """Return the live room of a document, loading the document if it is not in memory.

        A document that does not exist yet is opened empty, and stored with its first edit.

        Raises:
            StoreUnavailable, DocumentDeleted, ServerStopping.
        """
        if self.stopping:
            raise ServerStopping("the server is stopping")
        live = self.rooms.get(name)
        if live is not None:
            return live
        task = self._opening.get(name)
        if task is None:
            task = self._opening[name] = self.tasks.spawn(self._load(name), f"opening {shown_name(name)}", awaited=True)
            task.add_done_callback(lambda _: self._opening.pop(name, None))
        # Shielded: others may wait for the same document when this one's client goes away.
        return await asyncio.shield(task)

    async def _load(self, name: str) -> LiveRoom:
        started = self.now()
        loaded = await self.store.load(name)
        snapshot = None if loaded is None else loaded.snapshot
        rows = [] if loaded is None else loaded.rows
        document = await in_slices(
            Document.load(
                None if snapshot is None else snapshot.data,
                None if snapshot is None else snapshot.index,
                [row.data for row in rows],
            )
        )
        room = Room(
            document,
            max_document_bytes=self._options.max_document_bytes,
            max_awareness_bytes=self._options.max_awareness_bytes,
            max_awareness_ids=self._options.max_awareness_ids,
        )
        live = LiveRoom(self, name, room)
        if loaded is not None:
            live.document_id = loaded.document.id
            live.gc = loaded.document.gc
            live.seq = loaded.document.head_seq if rows == [] else rows[-1].seq
            live.tail_rows = len(rows)
            live.tail_bytes = sum(len(row.data) for row in rows)
            live.snapshot_bytes = 0 if snapshot is None else len(snapshot.data)
        live.idle_since = self.now()
        self.rooms[name] = live
        self._idle[live] = None
        _log.debug(
            "opened %s: %d bytes, %d rows behind its snapshot, %.0f ms",
            shown_name(name),
            document.size,
            len(rows),
            (self.now() - started) * 1000,
        )
        return live

    def evict(self, live: LiveRoom, error: CollabError) -> None:
        """End a room whose document is gone or cannot go on; the next open reads the store again."""
        _log.log(
            logging.INFO if isinstance(error, DocumentDeleted) else logging.ERROR,
            "closed %s to its clients: %s",
            shown_name(live.name),
            error,
        )
        live.end_all(error)
        self._forget_room(live)

    def _forget_room(self, live: LiveRoom) -> None:
        if self.rooms.get(live.name) is live:
            del self.rooms[live.name]
        self._idle.pop(live, None)
        self._lagging.pop(live, None)

    # Turns

    def touch(self, live: LiveRoom) -> None:
        """Let the room's turn end soon: it has something for its members."""
        if live.dirty:
            return
        live.dirty = True
        self._dirty.append(live)
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self.loop.call_soon(self._end_turns)

    def _window(self, live: LiveRoom) -> float:
        members = len(live.room.sessions)
        window = self._options.batch_window * min(
            members / _FULL_WINDOW_MEMBERS, 1.0 + min(_CROWD, members / _CROWD_MEMBERS * _CROWD)
        )
        return window if self._stretch == 1.0 else max(window, min(window * self._stretch, _LONGEST_WINDOW))

    def _measure(self, started: float) -> None:
        """Stretch all windows while ending turns takes most of the time, and let them go back after."""
        now = self.now()
        self._busy += now - started
        elapsed = now - self._measured_at
        if elapsed >= _MEASURE:
            share = self._busy / elapsed
            if share > _BUSY:
                self._stretch = min(self._stretch * 2, _LONGEST_STRETCH)
            elif share < _BUSY / 2 and self._stretch > 1.0:
                self._stretch /= 2
            self._busy, self._measured_at = 0.0, now

    def _end_turns(self) -> None:
        """End the turn of every touched room whose window is over; the rest wait for one timer."""
        self._turn_scheduled = False
        now = self.now()
        dirty, self._dirty = self._dirty, []
        next_due = float("inf")
        for live in dirty:
            due = live.flushed_at + self._window(live)
            if due <= now or self.stopping:
                live.end_turn(now)
            else:
                self._dirty.append(live)
                next_due = min(next_due, due)
        self._measure(now)
        if self._dirty and (self._timer is None or self._timer_due > next_due):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = next_due
            self._timer = self.loop.call_at(next_due, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._end_turns()

    # Slow members

    def watch_lagging(self, live: LiveRoom) -> None:
        """Look after a room in which a member has begun to lag."""
        self._lagging[live] = None
        if self._lag_timer is None:
            self._lag_timer = self.loop.call_later(_LAG_SWEEP, self._look_at_lagging)

    def _look_at_lagging(self) -> None:
        self._lag_timer = None
        now = self.now()
        for live in list(self._lagging):
            live.catch_up_lagging(now)
            if not live.lagging:
                self._lagging.pop(live, None)
        if self._lagging and self._lag_timer is None:
            self._lag_timer = self.loop.call_later(_LAG_SWEEP, self._look_at_lagging)

    # Background work

    def idle(self, live: LiveRoom) -> None:
        """Note that a room has no members; it leaves memory after a while."""
        self._idle[live] = None

    async def _sweep_forever(self) -> None:
        forgotten = self.now()
        asked: dict[Member, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(_SWEEP)
            now = self.now()
            for live in list(self._idle):
                if live.occupied:
                    self._idle.pop(live, None)
                elif now - live.idle_since >= self._options.idle_seconds and not live.uncommitted and not live.dirty:
                    self._idle.pop(live, None)
                    self.tasks.spawn(self._unload(live), f"unloading {shown_name(live.name)}")
            forget = now - forgotten >= _FORGET
            if forget:
                forgotten = now
            asked = await self._sweep_rooms(now, asked, forget)

    async def _sweep_rooms(
        self, now: float, asked: dict[Member, tuple[int, float]], forget: bool
    ) -> dict[Member, tuple[int, float]]:
        """End members that leave a SyncStep1 unanswered; free what is kept for storms of joins.

        ``asked`` holds how many answers each silent member had given when it was first seen, and when.
        """
        still: dict[Member, tuple[int, float]] = {}
        started = self.now()
        for live in list(self.rooms.values()):
            live.drop_frames()
            if forget:
                live.room.awareness.forget()
            for member in list(live.members):
                if member.unanswered and member.state is State.LIVE:
                    answered, since = asked.get(member, (-1, now))
                    if answered != member.answered:
                        answered, since = member.answered, now
                    if now - since >= self._options.sync_timeout:
                        live.end(member, PeerTooSlow(f"SyncStep1 unanswered for {now - since:.0f} s"))
                    else:
                        still[member] = (answered, since)
            if self.now() - started > 0.002:
                await asyncio.sleep(0)
                started = self.now()
        return still

    async def _unload(self, live: LiveRoom) -> None:
        """Drop an idle room, with a snapshot first when its tail is worth one."""
        # Hundreds may go idle in one second: they wait here, not in the sandbox's short queue.
        async with self._unloading:
            if (
                not live.occupied
                and self._compactor.worth_it_when_idle(live)
                and self.now() >= live.compact_after
                and not live.compacting
            ):
                await self._compact(live)
        if live.occupied or live.uncommitted or live.dirty or live.ended is not None:
            if not live.occupied and live.ended is None:
                self._idle[live] = None
            return
        self._forget_room(live)
        _log.debug("unloaded %s", shown_name(live.name))

    def consider_compaction(self, live: LiveRoom) -> None:
        """Make a snapshot of a room whose tail has grown long in proportion to its last one."""
        if (
            not live.compacting
            and live.ended is None
            and not self.stopping
            and self._compactor.due(live)
            and self.now() >= live.compact_after
        ):
            live.compacting = True
            self.tasks.spawn(self._compact(live), f"compacting {shown_name(live.name)}")

    async def _compact(self, live: LiveRoom) -> None:
        live.compacting = True
        try:
            live.end_turn(self.now())
            await self._compactor.compact(live)
        except CollabError as error:
            live.compact_after = self.now() + _COMPACTION_PAUSE
            _log.warning("no snapshot of %s for now: %s", shown_name(live.name), error)
        finally:
            live.compacting = False
        self.consider_compaction(live)  # edits have come meanwhile, and they may have been the last

    async def _prune_forever(self) -> None:
        """Remove what the history settings no longer want, in portions that hold no lock for long."""
        while True:
            try:
                rows = await self.store.prune(before=self.clock() - self._options.history, limit=_PRUNE_ROWS)
            except StoreUnavailable:
                rows = 0
            await asyncio.sleep(0.05 if rows else _PRUNE_PAUSE)

    # The way down

    async def drain(self, seconds: float) -> list[str]:
        """Stop: take nothing more, store everything, then send the clients away.

        Returns:
            The names of documents of which something could not be stored within
            ``seconds``.
        """
        deadline = self.now() + seconds
        self.stopping = True
        self._end_turns()
        unsaved = await self.journal.close(seconds)
        self.drained = True
        rooms = list(self.rooms.values())
        for live in rooms:
            live.end_all(ServerStopping("the server is stopping"))
        self.rooms.clear()
        for timer in (self._timer, self._lag_timer):
            if timer is not None:
                timer.cancel()
        await self.tasks.close()
        if not unsaved:
            await self._shorten_tails(rooms, min(_SHORTEN, (deadline - self.now()) / 2))
        return unsaved

    async def _shorten_tails(self, rooms: list[LiveRoom], seconds: float) -> None:
        """Make snapshots of the longest tails, so that whoever opens these documents next need not read them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                for live in sorted(rooms, key=lambda live: live.tail_bytes, reverse=True):
                    if not live.uncommitted and self._compactor.worth_it_when_leaving(live):
                        await self._compact(live)
