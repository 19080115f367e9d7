"""A room that lives on this node: it performs what the room asks for and makes it durable.

Strategy: everything here happens on the loop and, but for opening and reading foreign rows, without
waiting. One turn gives one delta; it is encoded and framed once for each kind of member and handed
to the journal in the same breath, so the order of the log is the order in which members saw it.
Numbers tell what of the log is in memory: ``seq`` is the last row up to which nothing is missing,
and a commit whose numbers do not follow on it means that another node has written, whose rows are
then read from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from collab.engine.room import Effect, Probe, Refused, Room, TurnEnd, Verdict
from collab.errors import (
    CollabError,
    DocumentDeleted,
    LimitExceeded,
    PeerTooSlow,
    StoreRefused,
    StoreUnavailable,
    UpdateError,
)
from collab.hub.member import Encoder, Member
from collab.hub.tasks import Tasks
from collab.protocol.awareness import AwarenessUpdate
from collab.protocol.session import Access, Event, Session, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.update import decode_state_vector
from collab.protocol.wire import Message, SyncStatus
from collab.storage.journal import Journal
from collab.storage.store import Append, AppendOutcome, LogRow, NewRow, Store
from collab.telemetry import get_logger, shown_name

_log = get_logger("room")
_journal_log = get_logger("journal")

# Bytes of an update above which it is read in slices, so that no turn of the loop takes more than
# a few milliseconds (20 to 46 ms were measured for 300 KB read at once).
SLICED = 32 * 1024

# Verdicts that are written at once, and those that may wait for a client that does not read: it must have
# sent as many updates meanwhile.
_VERDICTS = 1_000
_MAX_OWED = 1 << 20

# Bytes of an update whose echo may wait for its commit: it is kept in memory until then.
_LATE_ECHO = 4 * 1024

_SAVED, _REFUSED = SyncStatus(True), SyncStatus(False)

# Rows read from the log at once when another node has written.
_ROWS = 500


Result = TypeVar("Result")


async def in_slices(work: Generator[None, None, Result]) -> Result:
    """Run a generator that yields about every millisecond to its end, letting the loop go on in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        await asyncio.sleep(0)


def _backlog_full() -> StoreUnavailable:
    return StoreUnavailable("the backlog of edits that wait for the store is full")


class Keeper(Protocol):
    """What a live room needs of the hub that keeps it."""

    store: Store
    journal: Journal
    tasks: Tasks
    clock: Callable[[], float]
    slow_seconds: float
    drained: bool

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    def touch(self, live: LiveRoom) -> None:
        """End the room's turn soon."""
        ...

    def idle(self, live: LiveRoom) -> None:
        """Note that the room has no members."""
        ...

    def evict(self, live: LiveRoom, error: CollabError) -> None:
        """End the room and forget it."""
        ...

    def consider_compaction(self, live: LiveRoom) -> None:
        """Make a snapshot if the tail is long enough."""
        ...

    def watch_lagging(self, live: LiveRoom) -> None:
        """Call ``catch_up_lagging`` now and then while a member lags."""
        ...


class LiveRoom:
    """One document live on this node.

    Attributes:
        name: the document's name.
        document_id: its number in the store; None until its first row is stored.
        gc: whether deleted content may be dropped by compaction.
        room: the document, the awareness states and the sessions.
        seq: the last row of the log up to which memory holds everything.
        tail_rows, tail_bytes: what the log holds behind the newest snapshot.
        snapshot_bytes: the size of that snapshot.
        uncommitted: how many turns are with the journal.
        ended: why the room is over; None while it lives.
        flushed_at: when its last turn ended, in the loop's seconds.
    """

    __slots__ = (
        "_frames",
        "_frames_used",
        "_frames_version",
        "_groups",
        "_hub",
        "_lagging",
        "_reading",
        "_settled",
        "_turns",
        "_unechoed",
        "_unsettled",
        "compact_after",
        "compacting",
        "dirty",
        "document_id",
        "ended",
        "flushed_at",
        "gc",
        "idle_since",
        "name",
        "room",
        "seq",
        "snapshot_bytes",
        "tail_bytes",
        "tail_rows",
        "uncommitted",
    )

    def __init__(self, hub: Keeper, name: str, room: Room) -> None:
        self._hub = hub
        self.name = name
        self.room = room
        self.document_id: int | None = None
        self.gc = True
        self.seq = 0
        self.tail_rows = 0
        self.tail_bytes = 0
        self.snapshot_bytes = 0
        self.uncommitted = 0
        self.ended: CollabError | None = None
        self.flushed_at = 0.0
        self.dirty = False
        self.compacting = False
        self.compact_after = 0.0
        self.idle_since = 0.0
        self._groups: dict[Encoder, dict[Member, None]] = {}
        self._lagging: dict[Member, None] = {}
        self._frames: dict[tuple[Encoder, bytes], bytes] = {}
        self._frames_version = -1
        self._frames_used = False
        self._turns = 0
        # The number of a turn, its verdicts, and what the member of the first gets back with it.
        self._unsettled: deque[tuple[int, list[Verdict], bytes]] = deque()
        self._unechoed: Session | None = None
        self._settled: list[tuple[int, asyncio.Future[int | None]]] = []
        self._reading = False

    # Members

    @property
    def members(self) -> Iterable[Member]:
        """All members, in the order in which they joined their group."""
        return (member for group in self._groups.values() for member in group)

    @property
    def lagging(self) -> bool:
        """Whether a member waits for its catch-up."""
        return bool(self._lagging)

    @property
    def exists(self) -> bool:
        """Whether the document is stored, or will be with what it holds."""
        return self.document_id is not None or self.room.document.version > 0

    @property
    def occupied(self) -> bool:
        """Whether anybody is here."""
        return bool(self.room.sessions)

    def join(self, member: Member) -> None:
        """Add a member and begin to sync with it."""
        self._groups.setdefault(member.encoder, {})[member] = None
        self.perform(self.room.join(member))

    def leave(self, member: Member) -> None:
        """Remove a member whose connection has ended; a second call does nothing."""
        if member.state is State.CLOSED:
            return
        group = self._groups[member.encoder]
        del group[member]
        if not group:
            del self._groups[member.encoder]
        self._lagging.pop(member, None)
        self.room.leave(member)
        if self.room.pending:
            self._hub.touch(self)
        if not self.room.sessions:
            self.idle_since = self._hub.now()
            self._hub.idle(self)

    def receive(self, member: Member, message: Message) -> None:
        """Take one message of a member; see ``Room.receive`` for what it raises.

        Raises:
            StoreUnavailable: the journal's backlog is full and the message holds something new.
        """
        room = self.room
        if isinstance(message, SyncStep1):
            self._answer(member, message.state_vector)
            return
        if self._hub.journal.full and isinstance(message, (SyncUpdate, SyncStep2)):
            self._check_backlog(member, message.update)
        effects = room.receive(member, message)
        if effects:
            self.perform(effects)
        if room.pending and not self.dirty:
            self._hub.touch(self)

    def _check_backlog(self, member: Member, update: bytes) -> None:
        if member.access is Access.READ:
            return  # refused all the same, and not for this
        try:
            known = self.room.document.knows(update)
        except UpdateError:
            return  # the room says so in the session's own way
        if not known:
            raise _backlog_full()

    async def receive_in_slices(self, member: Member, message: SyncUpdate | SyncStep2) -> None:
        """Take a large update, letting the loop go on between the slices; else as ``receive``."""
        answer = type(message) is SyncStep2
        try:
            effects = await self._take_in_slices(member, message.update, answer=answer)
        except (UpdateError, LimitExceeded) as error:
            effects = () if member.state is State.CLOSED else self.room.refused(member, error, answer=answer)
        self.perform(effects)
        if not self.dirty and self.room.pending:
            self._hub.touch(self)

    async def _take_in_slices(self, member: Member, update: bytes, *, answer: bool) -> Sequence[Effect]:
        room, document = self.room, self.room.document
        reads = member.access is Access.READ
        full, large = self._hub.journal.full, room.would_pass_bound(update)
        if full or large or reads:
            known = await in_slices(document.knows_in_slices(update))
            if reads:
                return () if member.state is State.CLOSED else room.refused_reader(member, answer=answer, known=known)
            if not known:
                raise _backlog_full() if full else room.too_large(update)
        taken = await in_slices(document.take_in_slices(update, member.author))
        if taken.new:
            room.joined(member)
            if not self.dirty:
                self._hub.touch(self)
        if member.state is State.CLOSED:
            return ()  # its socket ended meanwhile; what it sent is taken all the same
        return room.taken(member, taken, answer=answer)

    # Sending

    def perform(self, effects: Iterable[Effect]) -> None:
        """Do what the room asks for."""
        for effect in effects:
            member = effect.session
            assert isinstance(member, Member)
            if isinstance(effect, Probe):
                member.outbox.probe()
            elif isinstance(effect, Refused):
                member.outbox.note_refused(member)
            elif member.state is State.LIVE or type(effect.message) is SyncStep1:
                # One that lags gets all awareness states with its catch-up; of SyncStep1 only one
                # is ever open. So nothing that a client asks for can make its outbox grow.
                self._send(member, member.encoder.encode(effect.message))

    def _send(self, member: Member, frame: bytes) -> None:
        if member.outbox.write(frame) > member.outbox.mark and member.state is State.LIVE:
            self._lag(member)

    def _answer(self, member: Member, state_vector: bytes) -> None:
        """Answer a SyncStep1; members that ask the same in one state of the document share the frame."""
        document = self.room.document
        if member.state is State.LAGGING:
            decode_state_vector(state_vector)  # a malformed one is refused now
            self.perform(self.room.ask_again(member))
            member.since, member.asks = state_vector, True
            return
        if self._frames_version != document.version:
            self._frames = {}
            self._frames_version = document.version
        frame = self._frames.get((member.encoder, state_vector))
        self._frames_used = True
        if frame is None:
            frame = member.encoder.encode(SyncStep2(document.step2(state_vector)))
            self._frames[member.encoder, state_vector] = frame
        self.perform(self.room.ask_again(member))
        self._send(member, frame)

    def drop_frames(self) -> None:
        """Forget the frames kept for joins if nobody has joined since the last call.

        An open document should cost its own size, not twice; a storm of joins should cost one frame.
        """
        if not self._frames_used:
            self._frames = {}
        self._frames_used = False

    def _broadcast(self, message: Message, absent: Session | None = None) -> bytes:
        """Send a message to everybody but ``absent``; return the frame that was not sent."""
        live, unsent = State.LIVE, b""
        for encoder, group in self._groups.items():
            frame = encoder.encode(message)
            if absent in group:
                unsent = frame
            slow: list[Member] = []
            for member in group:
                if member.state is live and member is not absent:
                    outbox = member.outbox
                    if outbox.write(frame) > outbox.mark:
                        slow.append(member)
            for member in slow:
                self._lag(member)
        return unsent

    # Members that read slowly

    def _lag(self, member: Member) -> None:
        member.on(Event.LAGGED)
        member.since = self.room.document.state_vector()
        member.since_version = self.room.document.version
        member.stalled_at = self._hub.now()
        member.stalled_with = member.outbox.waiting()
        self._lagging[member] = None
        self._hub.watch_lagging(self)

    def catch_up_lagging(self, now: float) -> None:
        """Bring members level whose outbox has drained; end those that take nothing for too long."""
        updates: dict[bytes, bytes] = {}
        for member in list(self._lagging):
            waiting = member.outbox.waiting()
            if waiting <= member.outbox.mark // 4:
                self._catch_up(member, updates)
            elif waiting < member.stalled_with:
                member.stalled_at, member.stalled_with = now, waiting
            elif now - member.stalled_at > self._hub.slow_seconds:
                self.end(member, PeerTooSlow(f"{waiting} bytes wait, none taken for {now - member.stalled_at:.0f} s"))

    def _catch_up(self, member: Member, updates: dict[bytes, bytes]) -> None:
        """Send all that came since the member began to lag, or since what it asks for, and all awareness states."""
        assert member.since is not None
        since, member.since = member.since, None
        asks, member.asks = member.asks, False
        del self._lagging[member]
        member.on(Event.CAUGHT_UP)
        if asks or member.since_version != self.room.document.version:
            update = updates.get(since)
            if update is None:
                update = updates[since] = self.room.document.step2(since)
            self._send(member, member.encoder.encode(SyncStep2(update) if asks else SyncUpdate(update)))
        states = self.room.awareness.everything()
        if states is not None:
            self._send(member, member.encoder.encode(AwarenessUpdate(states)))
        if member.owed is not None and member.state is State.LIVE:
            owed, member.owed = member.owed, None
            self._tell(member, owed)

    # Verdicts

    def _acknowledge(self, verdicts: list[Verdict], echo: bytes = b"") -> None:
        """Tell members what became of their updates, in order; ``echo`` goes to the one member behind its one."""
        if len(verdicts) == 1:  # the usual case in many small rooms
            session, saved = verdicts[0]
            if session.state is State.LIVE:
                assert isinstance(session, Member)
                self._send(session, session.encoder.encode(_SAVED if saved else _REFUSED) + echo)
                return
        of_member: dict[Session, bytearray] = {}
        for member, saved in verdicts:
            if member.state is not State.CLOSED:
                of_member.setdefault(member, bytearray()).append(saved)
        for session, owed in of_member.items():
            assert isinstance(session, Member)
            self._tell(session, owed)

    def _tell(self, member: Member, verdicts: bytearray) -> None:
        """Write verdicts, a byte each, or keep them while the member lags: it could make any number of them wait."""
        if member.state is State.LIVE:
            frames = (member.encoder.encode(_REFUSED), member.encoder.encode(_SAVED))
            while verdicts and member.state is State.LIVE:
                self._send(member, b"".join([frames[saved] for saved in verdicts[:_VERDICTS]]))
                del verdicts[:_VERDICTS]
        if not verdicts:
            return
        if member.owed is None:
            member.owed = verdicts
        else:
            member.owed += verdicts
        if len(member.owed) > _MAX_OWED:
            self.end(member, PeerTooSlow(f"{len(member.owed)} updates whose verdicts it does not read"))

    # Turns and the log

    def end_turn(self, now: float) -> None:
        """End the room's turn: broadcast what it gathered and give it to the journal."""
        self.dirty = False
        self.flushed_at = now
        end = self.room.end_turn()
        if end.delta is not None:
            self._pass_on(end, end.delta)
        elif not self.uncommitted:
            if end.verdicts:
                self._acknowledge(end.verdicts)
        elif end.verdicts:
            # Nothing of these is to be stored, but what was taken before them is.
            self._unsettled.append((self._turns, end.verdicts, b""))
        if end.awareness is not None:
            self._broadcast(AwarenessUpdate(end.awareness))
        if end.effects:
            self.perform(end.effects)

    def _pass_on(self, end: TurnEnd, delta: bytes) -> None:
        """Broadcast what is new, and give it to the journal.

        What one client alone has sent, over a protocol that acknowledges, it is sent back with the verdict, in
        one write: its author knows it all, and in small rooms the writes are what costs. Should the author lag
        or leave before the commit, it misses nothing; should others write meanwhile, it has its echo before theirs.
        """
        message, verdicts, author = SyncUpdate(delta), end.verdicts, end.author
        late = (
            len(verdicts) == 1
            and verdicts[0].session is author
            and author.state is State.LIVE
            and len(delta) <= _LATE_ECHO
            and self._hub.journal.failing is None
        )
        if self._unechoed is not None and not (late and self._unechoed is author):
            self._echo_now()
        echo = self._broadcast(message, author if late else None)
        if late:
            self._unechoed = author
        if self._hub.drained:
            return  # a large update that was still being read; its client sends it again
        at = self._hub.clock()
        rows = tuple([NewRow(row.data, at, row.author) for row in end.rows])
        self.uncommitted += 1
        self._turns += 1
        if verdicts:
            self._unsettled.append((self._turns, verdicts, echo))
        entry = Append(self.name, self.document_id, rows)
        self._hub.journal.append(entry, partial(self._committed, rows, self._turns))

    def _echo_now(self) -> None:
        """Send the echoes that wait for a commit: their author is about to get what came after."""
        self._unechoed = None
        waiting, self._unsettled = self._unsettled, deque()
        for turn, verdicts, echo in waiting:
            self._unsettled.append((turn, verdicts, b""))
            author = verdicts[0].session
            if echo and author.state is State.LIVE:
                assert isinstance(author, Member)
                self._send(author, echo)

    def _committed(self, rows: tuple[NewRow, ...], turn: int, outcome: AppendOutcome) -> None:
        """Go on after the journal has committed one turn's rows, or was refused them for good."""
        self.uncommitted -= 1
        if isinstance(outcome, (DocumentDeleted, StoreRefused)):
            while self._unsettled and self._unsettled[0][0] <= turn:
                self._acknowledge([Verdict(verdict.session, False) for verdict in self._unsettled.popleft()[1]])
            self._settle(None)
            if self.ended is None:
                self._hub.evict(self, outcome)
            return
        if _journal_log.isEnabledFor(10):
            _journal_log.debug("committed %s %d..%d", shown_name(self.name), outcome.first_seq, outcome.last_seq)
        self.document_id = outcome.document_id
        self.tail_rows += len(rows)
        self.tail_bytes += sum(len(row.data) for row in rows)
        if outcome.first_seq == self.seq + 1:
            self.seq = outcome.last_seq
            self._settle(outcome.last_seq)
        else:
            self._settle(None)
            self._read_foreign()
        while self._unsettled and self._unsettled[0][0] <= turn:
            _, verdicts, echo = self._unsettled.popleft()
            self._acknowledge(verdicts, echo)
        self._hub.consider_compaction(self)

    def settled(self) -> asyncio.Future[int | None]:
        """Return a future of the log's number at which everything taken until now is durable.

        Its result is None when that number is not known to follow on what memory holds: rows of
        another node came between, or the store has refused the document.
        """
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if self.uncommitted:
            self._settled.append((self.uncommitted, future))
        else:
            future.set_result(self.seq)
        return future

    def _settle(self, seq: int | None) -> None:
        """Count one commit against the futures that wait; entries of one room commit in order."""
        if not self._settled:
            return
        waiting, self._settled = self._settled, []
        for left, future in waiting:
            if left > 1:
                self._settled.append((left - 1, future))
            elif not future.done():
                future.set_result(seq)

    def _read_foreign(self) -> None:
        if not self._reading:
            self._reading = True
            self._hub.tasks.spawn(self._integrate_foreign(), f"reading rows of {shown_name(self.name)}")

    async def _integrate_foreign(self) -> None:
        """Read what the log holds after ``seq`` until nothing new is there; our own rows say nothing new."""
        try:
            while self.ended is None and self.document_id is not None:
                rows = await self._hub.store.rows_after(self.document_id, self.seq, _ROWS)
                if not rows:
                    return
                self._take_stored(rows)
        except StoreUnavailable:
            # The next commit finds the gap again; until the store is back there is none.
            _log.warning("rows of another node wait for the store: %s", shown_name(self.name))
        finally:
            self._reading = False

    def _take_stored(self, rows: list[LogRow]) -> None:
        self.end_turn(self._hub.now())  # what is taken from here on is in the log already
        for row in rows:
            if row.seq != self.seq + 1:
                break
            if self.room.document.take(row.data, row.author).new:
                self.tail_rows += 1
                self.tail_bytes += len(row.data)
            self.seq = row.seq
        end = self.room.end_turn()
        if end.delta is not None:
            self._echo_now()
            self._broadcast(SyncUpdate(end.delta))
        self.perform(end.effects)

    # Ends

    def end(self, member: Member, error: CollabError) -> None:
        """End one session and say why; the others learn of its awareness states in the next turn."""
        self.leave(member)
        member.outbox.end(member, error)

    def end_all(self, error: CollabError) -> None:
        """End the room: every session is told why, and nothing more is taken."""
        self.ended = error
        for member in list(self.members):
            self.end(member, error)
