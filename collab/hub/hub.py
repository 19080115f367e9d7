"""All rooms that live on this node.

Strategy: a room is opened once however many ask for it at the same time, ends its turns in one sweep
with all others, and leaves memory when nobody has been there for a while. The hub owns every task
that runs beside the connections, and the one way down: ``drain``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from collab.audit import Audit
from collab.cluster.bus import Bus
from collab.cluster.messages import ALL_NODES, Posted
from collab.engine import kept
from collab.engine.budget import Budget
from collab.engine.comebacks import DistantClaim
from collab.engine.departed import Unloaded
from collab.engine.document import Document
from collab.engine.room import Room
from collab.engine.visitors import Somebody
from collab.errors import (
    CollabError,
    DamagedDocument,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    DocumentReloaded,
    DocumentRenamed,
    InternalError,
    PeerTooSlow,
    SandboxError,
    ServerStopping,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
    StoreWentBack,
    forget_frames,
    is_refusal,
)
from collab.hub import delivery, frames
from collab.hub.activity import Activity
from collab.hub.agents import Agents
from collab.hub.attributing import Attributing
from collab.hub.audits import Audits
from collab.hub.compaction import CompactionPolicy, Compactor
from collab.hub.control import Control
from collab.hub.counts import TOLD, HubCounts
from collab.hub.healing import Healing
from collab.hub.hooks import HookCalls
from collab.hub.loading import damaged, read_document
from collab.hub.member import Member
from collab.hub.membership import Membership, NodeFacts
from collab.hub.named_presence import NamedStreams
from collab.hub.people import People
from collab.hub.quarantine import Quarantine
from collab.hub.questions import Facts, Questions
from collab.hub.readers import Reader
from collab.hub.rebuilding import Rebuilding
from collab.hub.replication import Replication, is_shorter, lacks_rows, renamed
from collab.hub.resetting import Resetting
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.stream_presence import Visitors
from collab.hub.tasks import Tasks, retrieve
from collab.hub.tenant_book import TenantOptions
from collab.hub.tenants import Tenants
from collab.hub.timeline import Timelines
from collab.hub.trash import Trash
from collab.hub.turns import Turns
from collab.hub.versions import HistoryOptions, Versions
from collab.protocol.messages import Stateless
from collab.protocol.names import covers
from collab.protocol.session import State
from collab.sandbox.port import Sandbox
from collab.storage.journal import Journal
from collab.storage.records import Appended, Instruction, Kind, LoadedDocument, NewRow, Reports
from collab.storage.store import Measured, Store
from collab.storage.versions import Reason
from collab.telemetry import RateLimited, get_logger, shown_name
from collab.telemetry.tracing import span

_log = get_logger("room")
_limited = RateLimited(_log)

# Seconds between looks at members that lag. A drained outbox is idle for half of it on average.
_LAG_SWEEP = 0.05

# Seconds between sweeps for idle rooms and unanswered questions, and between looks at the heads of the log.
_SWEEP = 1.0

# Seconds between looks whether a heartbeat is due, by which servers on one database see each other.
_SIGN_OF_LIFE = 5.0

# Seconds between counts of the rows behind the newest snapshots of all rooms. It costs a look into an index for each
# row, and finds only what people remove by hand.
_COUNT = 60.0

# Seconds between looks at how large the store is.
_MEASURE = 60.0

# Seconds that the last look at the heads may take when the server stops.
_LAST_LOOK = 2.0

# Seconds after which the clocks of awareness states that have left are forgotten.
_FORGET = 60.0

# Log rows that one portion of pruning removes, and seconds between looks for more to remove.
_PRUNE_ROWS = 500
_PRUNE_PAUSE = 300.0

# Snapshots that one portion of thinning removes, each a copy of a document, and seconds between looks for more.
_PRUNE_SNAPSHOTS = 8
_THIN_PAUSE = 3_600.0

# Seconds before a compaction that has failed is tried again, twice as long each time; the log is complete without it.
# One document may be too large for the sandbox, and must not keep it from all the others.
_COMPACTION_PAUSE = 60.0
_LONGEST_COMPACTION_PAUSE = 3_600.0

# Seconds before a snapshot is tried again of which another node is making one, or that it has overtaken.
_COMPACTION_LOOK = 2.0

# Seconds in which hooks are still told what waits at the end of a drain, and the part of what is left that this may be.
_HOOKS = 2.0
_HOOKS_SHARE = 1 / 4

# Seconds that snapshots may take at the end of a drain; everything is durable by then.
_SHORTEN = 5.0

# Idle rooms that are compacted at the same time; the rest of the sandbox is for busy ones.
_UNLOADING = 2

# Seconds in which a document that is damaged is not read again: its clients all come back every few seconds.
_DAMAGED_PAUSE = 5.0

# Damaged documents that are remembered; those that were asked for longest ago are forgotten.
_MAX_DAMAGED = 1_000

# Documents whose trouble is remembered for /readyz: their names are clients' text, so their number has a bound.
MAX_TROUBLED = 1_000

DAY = 86_400.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class HubOptions:
    """What a hub is told by the settings; times in seconds, sizes in bytes, rates in bytes a second."""

    batch_window: float
    history: float
    trash: float
    max_document_bytes: int
    max_awareness_bytes: int
    max_awareness_ids: int
    max_pending_bytes: int
    slow_seconds: float
    sync_timeout: float
    min_rate: float
    idle_seconds: float
    compaction: CompactionPolicy
    keep_deleted: tuple[str, ...] = ()
    histories: HistoryOptions = field(default_factory=HistoryOptions)
    node: NodeFacts = field(default_factory=NodeFacts)
    tenants: TenantOptions | None = None


class _Asked(NamedTuple):
    """A member that owes an answer: how many it has given, since when, and what had come from it by then."""

    answered: int
    since: float
    received: int


class Watcher(Protocol):
    """Hears what happens to the documents of this node. Each call only notes it: it does not wait, and never raises."""

    def committed(self, document_id: int) -> None:
        """Hear that rows of a document were committed."""
        ...

    def joined(self, document: str, document_id: int | None, member: Member) -> None:
        """Hear that a session has joined a document, which may not be stored yet."""
        ...

    def left(self, document: str, document_id: int | None, member: Member) -> None:
        """Hear that a session has ended, whether or not it had joined."""
        ...


class Presence(NamedTuple):
    """Who is in a document: how many sessions this node has on it, and all awareness states as an awareness update."""

    connections: int
    awareness: bytes | None


class Hub:
    """The rooms of this node.

    Args:
        store: the log; open while the hub runs.
        journal: its writer; started and closed by the hub.
        sandbox: where compaction runs.
        options: see ``HubOptions``.
        bus: what this node tells other nodes, and hears of them; started and closed by the hub.
        clock: wall-clock time in Unix seconds, for the rows.
        monotonic, worked: see ``Turns``.

    Attributes:
        counts: what it has done so far.
        draining: the node is about to stop, and new clients belong elsewhere; everything is served as ever.
        stopping: nothing more is taken.
        trash: what becomes of deleted documents.
        versions, timelines: what documents were, and what happened to them.
        quarantine: documents that stay closed for a while.
        activity: which documents are busy, and what stands inside of one.
        answering: what else answers questions of other nodes, and of this one (``questions``).
        hooks: Python code that is told of documents; None without any. Set it before ``start``.
        watcher: hears what happens to documents; None where nobody wants to know.
        tenants: what tenants use, and their quotas; None where they are not told apart.
        troubled: names of documents that cannot be served for a reason of their own; at most ``MAX_TROUBLED``.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        sandbox: Sandbox,
        options: HubOptions,
        bus: Bus,
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        self.store = store
        self._sandbox = sandbox
        self.journal = journal
        self.clock = clock
        self.monotonic = monotonic
        self.audit = Audit(clock)
        self.tasks = Tasks()
        self.draining = False
        self.stopping = False
        self.hooks: HookCalls | None = None
        self.troubled: set[str] = set()
        self.watcher: Watcher | None = None
        self.rooms: dict[str, LiveRoom] = {}
        # Documents that could not be read when somebody asked last, and until when nobody looks again.
        self.damaged: dict[str, tuple[DamagedDocument, float]] = {}
        self.slow_seconds = options.slow_seconds
        self.min_rate = options.min_rate
        self._options = options
        self.counts = HubCounts()
        self._compactor = Compactor(
            store, sandbox, options.compaction, clock, lambda: self.healing.running, self.counts
        )
        self._opening: dict[str, asyncio.Task[LiveRoom]] = {}
        self._idle: dict[LiveRoom, None] = {}
        self._unloading = asyncio.Semaphore(_UNLOADING)
        self._leaving: set[LiveRoom] = set()  # those that are being dropped, or wait for it
        self._turns = Turns(options.batch_window, worked, monotonic)
        self.touch = self._turns.touch  # without a call in between: each message asks
        self.end_turn_now = self._turns.end_now
        self.bus = bus
        self.membership = Membership(store, options.node, lambda: len(self.rooms), bus.node, clock)
        self.agents = Agents(self)
        self.visitors = Visitors(self)
        self.named = NamedStreams(self)
        self.people = People(self)
        self.activity = Activity(self)
        self.answering: list[Callable[[Facts], Awaitable[Facts | None]]] = []
        self.questions = Questions(
            bus,
            self.membership.name,
            store.list_nodes,
            lambda: self.membership.nodes,
            self.tasks,
            self._answer,
        )
        self.audits = Audits(self.audit, self.membership.name, self.questions)
        self.agents.questions = self.visitors.questions = self.questions
        self.named.questions = self.people.questions = self.activity.questions = self.questions
        self.people.rate = self.activity.receives
        self.control = Control(self)
        self.resetting = Resetting(store, sandbox, self, clock)
        rebuilding = Rebuilding(store, sandbox)
        self.attributing = Attributing(store, sandbox, rebuilding)
        self.trash = Trash(
            store, lambda: self.membership.trash(options.trash), self, self._let_all_forget, clock, self.resetting
        )
        self._replication = Replication(store, bus, self.rooms, self.tasks, self.control.told, self.counts)
        self._replication.questions, self._replication.named = self.questions, self.named
        self._replication.visitors = self.visitors
        self.versions = Versions(store, sandbox, self, clock, options.histories, rebuilding)
        self.timelines = Timelines(store, clock, options.histories.spacing)
        self.resetting.before_reset = partial(self.versions.note, reason=Reason.RESET)
        self.healing: Healing = Healing(store, journal, self.rooms, self.tasks, self._replication, clock)
        self.tenants = None if options.tenants is None else Tenants(self, store, options.tenants)
        if self.tenants is not None:
            journal.tenant = self.tenants.whose
        self._attends = False
        self._gaps: set[int] = set()  # documents of which rows waited when they were live last
        self.frames_budget = Budget(frames.NODE_BYTES)
        self.pieces_budget = Budget(delivery.NODE_BYTES)
        self._kept_budget = Budget(kept.NODE_BYTES)
        self.quarantine = Quarantine()
        self._departed = Unloaded()
        self._evicted: set[str] = set()  # not opened again yet; the journal may hold entries of them
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

    def keeps_deleted(self, name: str) -> bool:
        """Tell whether the settings say that a document keeps its deleted content."""
        return any(covers(pattern, name) for pattern in self._options.keep_deleted)

    async def start(self) -> None:
        """Start the journal, the bus and the background work.

        Raises:
            ConfigurationError: this node must not serve beside the others that are there.
        """
        get_logger().info("this server is %s", self.membership.name)
        with contextlib.suppress(StoreUnavailable):  # a full disk, say: what is stored can be served, and it comes back
            await self._attend()
        await self.membership.join()
        await self.journal.start()
        await self._replication.start()
        with contextlib.suppress(StoreUnavailable):  # whom an operator keeps out, before anybody comes
            await self.control.look()
        self.tasks.supervise(self._sweep_forever, "sweep of rooms")
        self.tasks.supervise(self._prune_forever, "prune")
        self.tasks.supervise(self.timelines.fill_forever, "timelines")
        self.tasks.supervise(self._poll_forever, "look at the heads of the log")
        if isinstance(self.store, Measured):
            self.tasks.supervise(partial(self._measure_forever, self.store), "look at the size of the store")
        if self.tenants is not None:
            self.tasks.supervise(self.tenants.run, "usage of tenants")
            self.tasks.supervise(self.tenants.survey, "look at all tenants")
        self.tasks.supervise(self._show_life_forever, "show other nodes that this one lives")

    # Opening

    async def open(self, name: str) -> LiveRoom:
        """Return the live room of a document, loading the document if it is not in memory.

        A document that does not exist yet is opened empty, and stored with its first edit. The room is in memory, or
        has ended, when this returns. It may leave memory after the next await, for as long as nobody is in it.

        Raises:
            StoreUnavailable, DocumentDeleted, ServerStopping.
            DamagedDocument: what is stored of it cannot be read until somebody has repaired it.
            DocumentBusy: its room has failed again and again; it may be opened later.
        """
        while True:
            if self.stopping:
                raise ServerStopping("the server is stopping")
            live = self.rooms.get(name)
            if live is not None:
                if not live.ending:
                    return live
                self.end_again(live)  # its end has failed half-way, and nobody may be left whose sweep goes on with it
            self.check_closed(name)
            # Shielded: others may wait for the same document when this one's client goes away. The task has no name
            # here: it holds what it raises, whose frames would hold the task.
            live = await asyncio.shield(self._loading(name))
            # Between its end and now the room may have left memory: nobody was in it, and a sweep came first.
            if live.ended is not None or self.rooms.get(name) is live:
                return live

    def check_closed(self, name: str) -> None:
        """Raise ``DocumentBusy`` if a document is closed for a while: by an operator, or since it has failed."""
        if not self.quarantine:
            return
        left, by = self.quarantine.closed(name, self.now())
        if by == "operator":
            public = "an operator has closed the document for a while"
            raise DocumentBusy(f"an operator has closed {name!r}, for {left:.0f} s more", public=public)
        if by is not None:
            raise DocumentBusy(f"document {name!r} has failed too often, it is closed for {left:.0f} s more")

    def find_open(self, name: str) -> LiveRoom | None:
        """Return the live room of a document if it is in memory and may be joined at once; else ``open`` it."""
        live = self.rooms.get(name)
        return None if live is None or live.ending or self.stopping else live

    async def open_existing(self, name: str) -> LiveRoom:
        """Return the live room of a document that exists.

        Raises:
            DocumentNotFound: there is none.
            CollabError: as ``open``, or what the room has ended with.
        """
        live = await self.open(name)
        if live.ended is not None:
            raise live.ended
        if not live.exists:
            raise DocumentNotFound(f"there is no document {name!r}")
        return live

    def _loading(self, name: str) -> asyncio.Task[LiveRoom]:
        task = self._opening.get(name)
        if task is None:
            task = self._opening[name] = self.tasks.spawn(self._load(name), f"opening {shown_name(name)}", awaited=True)
            task.add_done_callback(lambda task: self._loaded(name, task))
        return task

    def _loaded(self, name: str, task: asyncio.Task[LiveRoom]) -> None:
        self._opening.pop(name, None)
        error = retrieve(task)
        if (error is None and not task.cancelled()) or isinstance(error, DocumentDeleted):
            self.troubled.discard(name)
        elif error is not None and not isinstance(error, StoreUnavailable | ServerStopping):
            self._note_trouble(name)

    def _note_trouble(self, name: str) -> None:
        """Remember that a document cannot be served, until it is opened again."""
        if len(self.troubled) < MAX_TROUBLED:
            self.troubled.add(name)

    async def _load(self, name: str) -> LiveRoom:
        started = self.now()
        if name in self._evicted:
            # What its clients were told, or are about to be, must be in the log that is read.
            await self.journal.until_answered(name)
            self._evicted.discard(name)
        generation = None
        while generation != self.healing.generation:  # else it may be of a log that is not there any more
            generation = self.healing.generation
            try:
                loaded, document = await self._read(name)
            except StoreWentBack as error:
                self.healing.begin(error)
                raise
        rows = [] if loaded is None else loaded.rows
        if document.waiting:
            assert loaded is not None
            self._gaps.add(loaded.document.id)
            _limited.error(
                "gap",
                "the log of %s has a gap: %d rows wait for what it does not hold. The document is open with all that "
                "is whole, and its clients are asked for the rest; no snapshot is made of it until then",
                shown_name(name),
                len(document.waiting),
                to=_log,
            )
        departed = self._departed.take(name)
        room = Room(
            document,
            max_document_bytes=self._options.max_document_bytes,
            max_awareness_bytes=self._options.max_awareness_bytes,
            max_awareness_ids=self._options.max_awareness_ids,
            departed=departed,
            fresh=departed is None,
            max_kept_bytes=self._options.max_pending_bytes,
            kept_budget=self._kept_budget,
        )
        live = LiveRoom(self, name, room, loaded)
        live.idle_since = self.now()
        if self.tenants is not None:
            await self.tenants.enter(live)
        self.rooms[name] = live
        self._idle[live] = None
        self._replication.opened(live)
        self.counts.loads.observe(self.now() - started)
        if self.hooks is not None:
            self.hooks.loaded(live, self.now() - started)
        if loaded is not None:
            live.load_kept(loaded.pending)
        _log.debug(
            "opened %s: %d bytes, %d rows behind its snapshot, %.0f ms",
            shown_name(name),
            document.size,
            len(rows),
            (self.now() - started) * 1000,
        )
        return live

    async def _read(self, name: str) -> tuple[LoadedDocument | None, Document]:
        """Read a document from the store; what is damaged is noted, there and in the log.

        Raises:
            DamagedDocument: it cannot be read until it is repaired; clients that come again soon are told so unread.
        """
        known = self.damaged.get(name)
        if known is not None and self.now() < known[1]:
            raise DamagedDocument(str(known[0]), name=name, rows=known[0].rows, snapshots=known[0].snapshots)
        loaded = None
        try:
            with span("load document", {"collab.document": name}) as current:
                loaded = await self.store.load(name)
                document = await in_slices(read_document(name, loaded))
                current.set_attribute("collab.rows", 0 if loaded is None else len(loaded.rows))
        except (DamagedDocument, StoreDamaged) as error:
            found = error if isinstance(error, DamagedDocument) else damaged(name, why=str(error))
            self.damaged.pop(name, None)
            self.damaged[name] = (found, self.now() + _DAMAGED_PAUSE)
            if len(self.damaged) > _MAX_DAMAGED:
                del self.damaged[next(iter(self.damaged))]
            _limited.error(f"damaged {name}", "damaged: %s", found, to=_log)
            if loaded is not None:
                await self._note_damage(loaded.document.id, found.rows, (*loaded.passed_over, *found.snapshots))
            forget_frames(error)
            raise found from None
        self.damaged.pop(name, None)
        if loaded is not None and loaded.passed_over:
            line = (
                "snapshot %s of %s is damaged: it was read from the one before and the rows after that. Repair it: %s"
            )
            numbers = ", ".join(map(str, loaded.passed_over))
            repair = "collab documents repair NAME"
            _limited.error(f"damaged {name}", line, numbers, shown_name(name), repair, to=_log)
            await self._note_damage(loaded.document.id, (), loaded.passed_over)
        return loaded, document

    async def _note_damage(self, document_id: int, rows: Sequence[int], snapshots: Sequence[int]) -> None:
        # Else pruning might remove what the document can be rebuilt from. A store that cannot write now prunes neither.
        with contextlib.suppress(StoreUnavailable):
            await self.store.note_damage(document_id, rows=rows, snapshots=sorted(set(snapshots)))

    def evict(self, live: LiveRoom, error: CollabError) -> None:
        """End a room whose document is gone or cannot go on; the next open reads the store again.

        Should there be no memory for that, the sweep of sockets, or who opens it next, lets ``end_again`` do the rest.
        """
        live.ending = True
        if isinstance(error, DocumentRenamed | DocumentReloaded):
            live.end_turn(self.now())  # the document goes on, and so does what was taken of it
            if live.ended is not None:
                return
            if isinstance(error, DocumentRenamed):
                self.tasks.spawn(self._follow_renamed(live.name, error.new_name), "following a new name")
        if isinstance(error, DocumentDeleted) and (live.persistence.uncommitted or live.room.pending):
            # Its clients were sent what the store will not take: for the next document of this name that is gone too.
            work = self.resetting.keep(live.name, live.room.document)
            self.tasks.spawn(work, f"remembering what was in {shown_name(live.name)}")
        try:
            if isinstance(error, DocumentDeleted | DocumentReloaded):
                _log.info("closed %s to its clients: %s", shown_name(live.name), error)
            else:
                self._note_failure(live, error)
                self._note_trouble(live.name)
        finally:  # without memory the log says nothing, and its clients have to hear of it all the same
            try:
                self._forget_room(live)
                self._evicted.add(live.name)
            finally:
                live.end_all(error)
        self.counts.evictions[type(error).__name__] += 1

    async def reload(self, name: str) -> int:
        """Drop a room, so that it is read from the store again; return how many sessions it had, which come back.

        What was found to be damaged, or has failed too often, is tried again at once.

        Raises:
            StoreUnavailable: the store does not hold what the room does, or cannot be read now; the room goes on.
        """
        self.damaged.pop(name, None)
        self.quarantine.forgive(name)
        while (opening := self._opening.get(name)) is not None:
            await asyncio.wait([opening])  # it may have been read before
        live = self.rooms.get(name)
        if live is None:
            return 0
        document_id, seq = live.persistence.document_id, live.persistence.seq
        head = (await self.store.heads([name])).get(name)
        if document_id is not None and is_shorter(head, document_id, seq):
            self.healing.begin(lacks_rows(live))
        if self.healing.running:
            raise StoreUnavailable("what is open may be the last copy of what the database lacks")
        count = len(live.room.sessions)
        if live.ended is None:
            self.evict(live, DocumentReloaded(f"document {name!r} is read again"))
        return count

    async def close_document(self, name: str, seconds: float) -> int:
        """Close a document on this node for so long; return how many sessions it had.

        Raises:
            StoreUnavailable: as ``reload``; nobody new is let in all the same.
        """
        self.quarantine.close(name, self.now() + seconds)
        return await self.reload(name)

    def release_document(self, name: str) -> None:
        """Let a document be opened again at once, whoever has closed it."""
        self.damaged.pop(name, None)
        self.quarantine.release(name)

    @property
    def closed_documents(self) -> int:
        """How many documents stay closed on this node now."""
        return self.quarantine.count(self.now())

    def failed(self, live: LiveRoom, error: BaseException) -> None:
        """End a room that a defect has left in a state that nobody knows: its members come back at once.

        What memory holds may be in no log and on no way into it. The document is read again, and its members bring
        what the log lacks.
        """
        live.ending = True
        told = InternalError(f"document {live.name!r} has failed and is read again")
        told.__cause__ = error
        self.evict(live, told)

    def end_again(self, live: LiveRoom) -> None:
        """Go on with the end of a room that has failed half-way; harmless for one that has ended well."""
        if self.rooms.get(live.name) is live:
            self._forget_room(live)
            self._evicted.add(live.name)
        live.end_all(live.ended or InternalError(f"document {live.name!r} could not be ended before"))

    def _note_failure(self, live: LiveRoom, error: CollabError) -> None:
        """Say that a room has failed; if it fails too often, that its document stays closed, and nothing until then."""
        pause = self.quarantine.failed(live.name, self.now())
        after = f"; it has failed too often and stays closed for {pause:.0f} s" if pause else ""
        name, cause = shown_name(live.name), error.__cause__
        _log.error("closed %s to its clients: %s%s", name, error, after, exc_info=cause)

    def _forget_room(self, live: LiveRoom, *, stored: bool = False) -> None:
        if self.rooms.get(live.name) is live:
            del self.rooms[live.name]
            self.counts.add_room(live.updates, live.persistence.turns)
        self._idle.pop(live, None)
        self._lagging.pop(live, None)
        if self.tenants is not None:
            self.tenants.forget_room(live)
        awareness = live.room.awareness
        self._departed.put(live.name, awareness.departed, len(awareness))
        live.frames.clear()
        live.room.forget_kept()
        if live.follower is not None:
            live.follower.left(stored=stored)
        self._replication.closed(live)

    # Slow members

    @property
    def slow_members(self) -> int:
        """How many members get no live frames until they have drained."""
        return sum(len(live.catch_up) for live in self._lagging)

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
            if not live.catch_up:
                self._lagging.pop(live, None)
        if self._lagging and self._lag_timer is None:
            self._lag_timer = self.loop.call_later(_LAG_SWEEP, self._look_at_lagging)

    async def presence(self, names: Sequence[str]) -> dict[str, Presence]:
        """Tell who is in each of these documents, as far as this node knows.

        It knows the awareness states of other nodes' sessions where it has the document open itself.
        """
        found = {}
        for name in names:
            live = self.rooms.get(name)
            states = None if live is None else live.room.awareness.everything()
            found[name] = Presence(0 if live is None else len(live.room.sessions), states)
        return found

    # Other nodes

    def committed(self, live: LiveRoom, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Tell other nodes of rows that were committed, and make a snapshot if it is time for one."""
        if self.bus.others:
            self._replication.committed(live, outcome, rows)
        if self.hooks is not None:
            self.hooks.committed(live.name, outcome, [row.author for row in rows])
        if rows:
            if self.tenants is not None:
                nbytes = sum([len(row.data) for row in rows])
                self.tenants.committed(live, outcome.document_id, outcome.first_seq, nbytes)
            self.timelines.changed(outcome.document_id)
            if self.watcher is not None:
                self.watcher.committed(outcome.document_id)
        self.consider_compaction(live)

    def hurry_shared(self, live: LiveRoom) -> None:
        """Let what the room has given to the journal be committed sooner if another node has its document open."""
        if self.bus.wanted(live.name):
            self.journal.hurry_shared(self._turns.window.busy)

    def joined(self, live: LiveRoom, member: Member) -> None:
        """Let it be known that a session has joined."""
        if self.tenants is not None:
            self.tenants.joined(live, member.client)
        if self.hooks is not None:
            self.hooks.joined(live, member)
        if self.watcher is not None:
            self.watcher.joined(live.name, live.persistence.document_id, member)

    def left(self, live: LiveRoom, member: Member) -> None:
        """Let it be known that a session has ended."""
        if self.tenants is not None:
            self.tenants.left(live, member.client)
        if self.hooks is not None:
            self.hooks.left(live, member)
        if self.watcher is not None:
            self.watcher.left(live.name, live.persistence.document_id, member)

    def reads(self, live: LiveRoom, reader: Reader) -> None:
        """Let it be known that somebody reads a document as a stream."""
        if self.tenants is not None:
            self.tenants.joined(live, reader)

    def has_read(self, live: LiveRoom, reader: Reader) -> None:
        """Let it be known that a reader has ended."""
        if self.tenants is not None:
            self.tenants.left(live, reader)

    def overtaken(self, live: LiveRoom) -> None:
        """Have the rows that another node has written, from the bus or from the log."""
        self._replication.overtaken(live)

    def went_back(self, live: LiveRoom) -> None:
        """Compare the rooms with the database, which lacks rows of this one."""
        self.healing.begin(lacks_rows(live))

    def publish_awareness(self, live: LiveRoom, update: bytes, people: Mapping[int, Somebody]) -> None:
        """Tell other nodes what has changed in the awareness states of this node; ``people`` are its visitors."""
        self._replication.awareness(live, update, people)

    def ask_there(self, live: LiveRoom, clients: bytes) -> None:
        """Let other nodes ask clients of theirs to announce themselves."""
        self._replication.ask_there(live, clients)

    def publish_claim(self, live: LiveRoom, claim: DistantClaim) -> None:
        """Tell other nodes that a session of this one claims an ID that one of them shows."""
        self._replication.claim(live, claim)

    def publish_posted(self, name: str, posted: Posted) -> None:
        """Tell other nodes what a named presence stream of a document has."""
        self._replication.posted(name, posted)

    def publish_stateless(self, live: LiveRoom, message: Stateless) -> None:
        """Pass a stateless message on to other nodes."""
        self._replication.stateless(live.name, message)

    def send_stateless(self, name: str, message: Stateless) -> None:
        """Send a stateless message to everybody on a document whose protocol has them, on all nodes."""
        live = self.rooms.get(name)
        if live is not None and live.ended is None:
            live.members.relay(message)
        self._replication.stateless(name, message)

    async def _answer(self, asked: Facts) -> Facts | None:
        """Answer a question that all nodes were asked."""
        said = self.agents.answer(asked) or self.visitors.answer(asked) or self.named.answer(asked)
        said = said or self.audits.answer(asked)
        for answer in (self.people.answer, self.activity.answer, *self.answering):
            if said is not None:
                break
            said = await answer(asked)
        return said

    async def may_create(self, name: str, user: str | None) -> None:
        """Ask the hooks whether a user may create a document; raises ``Refused`` and ``HookUnavailable``."""
        if self.hooks is not None:
            await self.hooks.may_create(name, user)

    async def before_delete(self, name: str, user: str | None, *, erase: bool) -> None:
        """Ask the hooks whether a user may delete a document that is there; raises as ``may_create``."""
        if self.hooks is None or not self.hooks.decides_on_deletion:
            return
        try:
            await self.store.describe(name)
        except (DocumentNotFound, DocumentDeleted):
            return  # the store says so to the one who deletes
        await self.hooks.before_delete(name, user, erase=erase)

    def created(self, name: str, document_id: int, rows: Sequence[NewRow] = ()) -> None:
        """Let those who have opened a document that was not there see that it is, and what it holds.

        On other nodes too, which else would see it when they look.
        """
        if self.hooks is not None and rows:
            self.hooks.committed(name, Appended(document_id, 1, len(rows)), [row.author for row in rows])
        self.damaged.pop(name, None)
        live = self.rooms.get(name)
        if live is not None and live.persistence.document_id is None:
            self._replication.read(live, TOLD)
        self._replication.tell_to_look(name)

    def deleted(self, name: str, document_id: int) -> None:
        """Send everybody away from a document that was deleted, here and on other nodes."""
        self.damaged.pop(name, None)
        live = self.rooms.get(name)
        if live is not None and live.persistence.document_id in (None, document_id):
            live.refused(DocumentDeleted(f"document {name!r} is deleted"))
        self._replication.deleted(name, document_id)

    async def written(self, name: str, document_id: int, seq: int, author: str | None = None) -> None:
        """Read what was written of a document by a row, if it is live here; others are told to."""
        if self.hooks is not None:
            self.hooks.committed(name, Appended(document_id, seq, seq), [author])
        self._replication.written(name, document_id, seq)
        live = self.rooms.get(name)
        if live is not None and live.persistence.document_id in (None, document_id):
            await self._replication.until_read(live, seq)

    async def until_read(self, live: LiveRoom, seq: int) -> None:
        """Let a room read what the log holds up to a row; return without it if the store cannot be read now."""
        await self._replication.until_read(live, seq)

    def renamed(self, name: str, document_id: int, new_name: str) -> None:
        """Send everybody away from the old name of a document, here and on other nodes."""
        for each in (name, new_name):
            self.damaged.pop(each, None)
        live = self.rooms.get(name)
        if live is not None and live.persistence.document_id in (None, document_id):
            live.refused(renamed(name, new_name))
        self._replication.renamed(name, document_id, new_name)
        self.created(new_name, document_id)

    async def _follow_renamed(self, name: str, new_name: str | None) -> None:
        """Let those who have opened the new name already see what was on its way into the log under the old one."""
        await self.journal.until_answered(name)
        if new_name is not None:
            self._replication.tell_to_look(new_name)
        self._replication.missed()

    async def _let_all_forget(self, name: str) -> Reports:
        """Let all nodes drop what they have of a document that was deleted, and wait until they say so."""
        return await self.control.give(Instruction(Kind.RELOAD, document=name))

    def tell_nodes(self) -> None:
        """Let the other nodes look for instructions now."""
        self._replication.tell_to_look(ALL_NODES)

    @property
    def generation(self) -> int:
        """How often the store was found to be an older one."""
        return self.healing.generation

    async def until_stored(self, name: str) -> None:
        """Return when everything that was taken of a document is in the store; at once if it is not live."""
        live = self.rooms.get(name)
        if live is not None:
            live.end_turn(self.now())
            await live.persistence.durable()

    async def _poll_forever(self) -> None:
        while True:
            await self._replication.until_due()
            try:
                if not (await self._look(self._replication.poll) or self.control.behind):
                    continue
                if await self._look(self.control.look):
                    self.tell_nodes()  # nobody has told this one, and others look as seldom
            except StoreUnavailable:
                continue  # the journal says so, and the next look finds what this one has missed

    async def _look(self, look: Callable[[], Awaitable[_Result]]) -> _Result | None:
        """Take a look at the store, and do what is to be done if it went back; raises ``StoreUnavailable``."""
        if self.healing.running:
            return None
        try:
            return await look()
        except StoreWentBack as error:
            self.healing.begin(error)
            return None

    async def _attend(self) -> None:
        await self.store.attend()
        self._attends = True

    async def _show_life_forever(self) -> None:
        counted = self.now()
        while True:
            if self.now() - counted >= _COUNT:
                counted = self.now()
                with contextlib.suppress(StoreUnavailable):
                    await self._look(self._replication.look_for_gaps)
            with contextlib.suppress(StoreUnavailable):  # as above
                if not self._attends:
                    await self._attend()
            if self.membership.due:
                await self.membership.beat()
                self._replication.note_others(self.membership.others)
            await self.membership.pause(_SIGN_OF_LIFE)

    async def _measure_forever(self, store: Measured) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable, StoreRefused):  # what it was stays the best that is known
                self.counts.store_bytes = await store.nbytes()
            await asyncio.sleep(_MEASURE)

    # Background work

    def idle(self, live: LiveRoom) -> None:
        """Note that a room has no members; it leaves memory after a while."""
        self._idle[live] = None

    async def _sweep_forever(self) -> None:
        forgotten = self.now()
        asked: dict[Member, _Asked] = {}
        while True:
            await asyncio.sleep(_SWEEP)
            self.counts.fold()
            now = self.now()
            for live in list(self._idle):
                if live.occupied:
                    self._idle.pop(live, None)
                # One whose document does not exist has nothing that would have to be read again.
                elif (
                    now - live.idle_since >= self._options.idle_seconds * live.exists
                    and not _busy(live)
                    and live not in self._leaving
                ):
                    self._idle.pop(live, None)
                    self._leaving.add(live)
                    self.tasks.spawn(self._unload(live), f"unloading {shown_name(live.name)}")
            self.agents.sweep(now)
            self.visitors.sweep(now)
            self.named.sweep(now)
            forget = now - forgotten >= _FORGET
            if forget:
                forgotten = now
                self.quarantine.forget(now)
                self._departed.pass_minute()
                self._evicted = {name for name in self._evicted if self.journal.holds(name)}
            asked = await self._sweep_rooms(now, asked, forget)

    async def _sweep_rooms(self, now: float, asked: dict[Member, _Asked], forget: bool) -> dict[Member, _Asked]:
        """End members that leave a SyncStep1 unanswered; free what is kept for storms of joins.

        An answer takes its time on a slow line, behind whatever else its client has to send: as long as bytes come
        at ``min_rate`` at least, none is missing.
        """
        still: dict[Member, _Asked] = {}
        timeout = self._options.sync_timeout
        started = self.now()
        for live in list(self.rooms.values()):
            live.frames.clear_unused()
            if forget:
                live.room.awareness.forget()
            for member in list(live.members):
                if member.unanswered and member.state is State.LIVE:
                    client = member.client
                    before = asked.get(member)
                    if before is None or before.answered != member.answered or client.held_up:
                        before = _Asked(member.answered, now, client.received)
                    elif now - before.since >= timeout + client.unseen_seconds:
                        came = client.received - before.received
                        if came < self.min_rate * (now - before.since):
                            text = f"SyncStep1 unanswered for {now - before.since:.0f} s, in which {came} bytes came"
                            live.end(member, PeerTooSlow(text))
                            continue
                        before = _Asked(member.answered, now, client.received)
                    still[member] = before
            if self.now() - started > 0.002:
                await asyncio.sleep(0)
                started = self.now()
        return still

    async def _unload(self, live: LiveRoom) -> None:
        """Drop an idle room, with a snapshot first when its tail is worth one."""
        try:
            await self._unload_in_turn(live)
        finally:
            # One that is opened and left again while it waits does not wait twice.
            self._leaving.discard(live)

    async def _unload_in_turn(self, live: LiveRoom) -> None:
        # Hundreds may go idle in one second: they wait here, not in the sandbox's short queue.
        async with self._unloading:
            if (
                not live.occupied
                and self._compactor.worth_it_when_idle(live)
                and not self._replication.shares(live)  # the last node that has it open does it
                and self.now() >= live.compact_after
                and not live.compacting
            ):
                await self._compact(live)
        if live.occupied or _busy(live) or live.ended is not None or not await self._is_stored(live):
            if not live.occupied and live.ended is None:
                self._idle[live] = None
            return
        self._forget_room(live, stored=True)
        self.counts.unloaded += 1
        _log.debug("unloaded %s", shown_name(live.name))

    async def _is_stored(self, live: LiveRoom) -> bool:
        """Tell whether the log still holds what was stored of a room, whose memory may be the last copy."""
        document_id, seq = live.persistence.document_id, live.persistence.seq
        if document_id is None or self.healing.running:
            return not self.healing.running
        try:
            head = (await self.store.heads([live.name])).get(live.name)
        except StoreWentBack as error:
            self.healing.begin(error)
            return False
        except StoreUnavailable:
            return False
        if is_shorter(head, document_id, seq):
            self.healing.begin(lacks_rows(live))
            return False
        return not (live.occupied or _busy(live) or self.healing.running)

    def consider_compaction(self, live: LiveRoom) -> None:
        """Make a snapshot of a room whose tail has grown long in proportion to its last one."""
        if (
            not live.compacting
            and live.ended is None
            and not self.stopping
            and not self.healing.running
            and self._compactor.due(live)
            and self.now() >= live.compact_after
        ):
            live.compacting = True
            self.tasks.spawn(self._compact(live), f"compacting {shown_name(live.name)}")

    def _consider_again(self, live: LiveRoom, at: float) -> None:
        if self.rooms.get(live.name) is live and live.compact_after == at:
            live.compact_after = 0.0  # a timer may come a moment too early
            self.consider_compaction(live)

    async def reduce(self, live: LiveRoom, document: Document, state_vector: bytes) -> bytes:
        """Give what a state vector lacks of a document, without its content."""
        try:
            return await self._sandbox.skeleton([document.encode_state_as_update()], state_vector)
        except SandboxError as error:
            raise DocumentBusy(f"what an old copy of {live.name!r} says cannot be reduced: {error}") from None

    async def measure(self, live: LiveRoom, update: bytes) -> int:
        """Tell how large a document would be with an update, when what is of no use any more is gone."""
        return await self._compactor.measure(live, update)

    async def compact_now(self, name: str) -> bool:
        """Make a snapshot of a document because somebody asks; return False if another node is making one.

        Or if rows came in between, or are missing. It is brought into memory for that.

        Raises:
            DocumentNotFound, DocumentDeleted, DamagedDocument, DocumentBusy, StoreUnavailable, ServerStopping.
        """
        live = await self.open_existing(name)
        if live.compacting or live.room.document.waiting:
            return False
        live.compacting = True
        try:
            with live.visited():
                live.end_turn(self.now())
                await live.persistence.durable()
                return await self._compactor.compact(live, shared=self._replication.shares(live))
        except SandboxError as error:
            public = "no snapshot can be made now, come back later"
            raise DocumentBusy(f"no snapshot of {name!r}: {error}", public=public) from None
        finally:
            live.compacting = False

    async def _compact(self, live: LiveRoom) -> None:
        live.compacting = True
        try:
            live.end_turn(self.now())
            done = await self._compactor.compact(live, shared=not self.stopping and self._replication.shares(live))
            live.compact_pause = 0.0
            if done and not self.stopping:
                # The rows of it are there now; the next but one snapshot lets them go.
                name = live.name
                self.tasks.spawn(self.attributing.after_snapshot(name), f"attributing {shown_name(name)}")
            if not done:
                live.compact_after = at = self.now() + _COMPACTION_LOOK
                self.loop.call_at(at, self._consider_again, live, at)
        except Exception as error:
            self.counts.failed_compactions += 1
            live.compact_pause = min(max(_COMPACTION_PAUSE, 2 * live.compact_pause), _LONGEST_COMPACTION_PAUSE)
            live.compact_after = self.now() + live.compact_pause
            if not is_refusal(error):
                raise
            _log.warning("no snapshot of %s for now: %s", shown_name(live.name), error)
        finally:
            live.compacting = False
        self.consider_compaction(live)  # edits have come meanwhile, and they may have been the last

    async def _prune_forever(self) -> None:
        """Remove what the history settings no longer want, in portions that hold no lock for long."""
        rows, trash_before, thinned = 0, 0.0, float("-inf")
        while True:
            try:
                if not rows:
                    trash_before = self.trash.oldest
                    await self.trash.keep_skeletons(trash_before)
                before = self.clock() - self.membership.history(self._options.history)
                histories = self.versions.histories()
                if not rows:
                    await self.versions.pin_due(before, histories)
                rows = await self.store.prune(
                    before=before,
                    limit=_PRUNE_ROWS,
                    spare=self._with_gaps(),
                    trash_before=trash_before,
                    histories=histories,
                )
                if not rows and self.now() - thinned >= _THIN_PAUSE:
                    rows = await self.store.thin_snapshots(limit=_PRUNE_SNAPSHOTS, spare=self._with_gaps())
                    thinned = thinned if rows else self.now()
            except StoreUnavailable:
                rows = 0
            await asyncio.sleep(0.05 if rows else _PRUNE_PAUSE)

    def _with_gaps(self) -> set[int]:
        """Give the documents of which rows wait, so that nothing is removed of them."""
        for live in self.rooms.values():
            document_id = live.persistence.document_id
            if document_id is not None:
                (self._gaps.add if live.room.document.waiting else self._gaps.discard)(document_id)
        return self._gaps

    # The way down

    async def drain(self, seconds: float) -> list[str]:
        """Stop: take nothing more, store everything, then send away the clients that are still there.

        Returns:
            The names of documents of which something could not be stored within
            ``seconds``.
        """
        deadline = self.now() + seconds
        self.draining = self.stopping = True
        # Memory may be the last copy of what the database has lost since the last look.
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(min(_LAST_LOOK, seconds)):
                await self._look(self._replication.poll)
                await self._look(self._replication.look_for_gaps)
        self._turns.end_all(self.now())
        unsaved = await self.journal.close(seconds)
        rooms = list(self.rooms.values())
        alone = [live for live in rooms if not self._replication.shares(live)]
        for live in rooms:
            live.persistence.give_up()
            live.end_all(ServerStopping("the server is stopping"))
            self._forget_room(live)
        self._turns.close()
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        if self.hooks is not None:
            await self.hooks.drain(min(_HOOKS, (deadline - self.now()) * _HOOKS_SHARE))
        if self.tenants is not None:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(min(_LAST_LOOK, max(0.0, deadline - self.now()))):
                    await self.tenants.close()
        await self.tasks.close()
        await self._replication.close()
        await self.membership.leave()
        if not unsaved:
            await self._shorten_tails(alone, min(_SHORTEN, (deadline - self.now()) / 2))
        return unsaved

    async def _shorten_tails(self, rooms: list[LiveRoom], seconds: float) -> None:
        """Make snapshots of the longest tails, so that whoever opens these documents next need not read them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                for live in sorted(rooms, key=lambda live: live.persistence.tail_bytes, reverse=True):
                    if not live.persistence.uncommitted and self._compactor.worth_it_when_leaving(live):
                        await self._compact(live)


def _busy(live: LiveRoom) -> bool:
    """Tell whether something of a room is on its way: to its members or into the log."""
    return live.dirty or live.taking_kept or live.persistence.uncommitted > 0
