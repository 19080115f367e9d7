"""What of one document is durable, and telling members so.

Strategy: a turn is handed to the journal, and then broadcast in the same breath. So the order of the log is the order
in which members saw it, and nobody sees what is not on its way into the log. Numbers tell what of the log is in memory:
``seq`` is the last row up to which nothing is missing. A commit whose numbers do not follow on it means that another
node has written; the room is told, and reads the rows between. Acknowledgements wait for the commit of their turn, and
of all turns before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol
from weakref import ref

from collab.authorship import FirstUse
from collab.engine.kept import KeptChange
from collab.engine.room import Ack, TurnEnd
from collab.errors import CollabError, DocumentDeleted, OutcomeUnknown, PeerTooSlow, StoreRefused
from collab.hub.member import Member
from collab.hub.members import Members
from collab.protocol.messages import LocalVersion, SyncStatus
from collab.protocol.session import Session, State
from collab.storage.checksums import row_checksum
from collab.storage.journal import Journal
from collab.storage.producers import NewProducer
from collab.storage.records import (
    Append,
    Appended,
    AppendOutcome,
    LoadedDocument,
    NewGuest,
    NewOwner,
    NewRow,
    PendingChange,
    PendingUpdate,
)
from collab.telemetry import get_logger, shown_name

_log = get_logger("journal")

# Acknowledgements that are written at once, and those that may wait for a client that does not read: it must have
# sent as many updates meanwhile.
_ACKS = 1_000
_MAX_OWED = 1 << 20

# Acknowledgements of updates of which nothing is to be stored, that may wait for a commit. Of edits there are as many
# as the backlog of the journal allows.
_MAX_WAITING = 100_000

# Bytes of an update whose echo may wait for its commit: it is kept in memory until then.
_LATE_ECHO = 4 * 1024

# Guests of a document whose names are remembered: of those beyond, a name may be given to the store again, or never.
_MOST_GUESTS = 1_000

_SAVED, _REFUSED = SyncStatus(True), SyncStatus(False)

_Waiting = deque[tuple[int, list[Ack], bytes]]

Stored = asyncio.Future[None]
"""Is done when an edit is in the log, or raises why nobody can say that."""

# Shared by all rooms in which nothing was acknowledged yet: an empty deque has 600 bytes. It is never added to.
_NOTHING: _Waiting = deque()
# The same for guests, of whom most rooms have none.
_NOBODY: dict[str, NewGuest] = {}


class Listener(Protocol):
    """The room whose rows are written."""

    def committed(self, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Go on after rows were committed, or what is kept beside them."""
        ...

    def overtaken(self) -> None:
        """Read the rows of another node that came between."""
        ...

    def went_back(self) -> None:
        """Compare memory with a log that lacks rows that were in it."""
        ...

    def refused(self, error: CollabError) -> None:
        """End the room: the store will not take what its members were sent."""
        ...

    def failed(self, error: BaseException) -> None:
        """End the room: it is in a state that nobody knows."""
        ...

    def end(self, member: Member, error: CollabError) -> None:
        """End one session and say why."""
        ...


def make_change(kept: KeptChange, at: float) -> PendingChange:
    """Make the record of the store for what changes among the updates that are kept; ``at`` in unix seconds."""
    added = [PendingUpdate(update.key, update.data, at, update.author) for update in kept.added]
    return PendingChange(tuple(added), kept.settled)


def make_owners(first_uses: Iterable[FirstUse], at: float, row: int = 0) -> tuple[NewOwner, ...]:
    """Make the records of the store for what the row at the place ``row`` decides; ``at`` in unix seconds."""
    return tuple([NewOwner(client, author, at, clock, row) for client, clock, author in first_uses])


def settle(calls: list[Stored], error: CollabError | None) -> None:
    """Resolve futures, or let them raise; those that nobody waits for any more are passed over."""
    for call in calls:
        if call.done():
            continue
        if error is None:
            call.set_result(None)
        else:
            call.set_exception(error)
            call.exception()  # whoever it was for may have gone


class Persistence:
    """The rows of one live document on their way into the log.

    Attributes:
        document_id: its number in the store; None until its first row is stored.
        gc: whether deleted content may be dropped by compaction; None while nobody has looked: a document that was not
            there when it was opened may have been created by somebody else before its first row was stored.
        unmarked: the settings say that deleted content is kept, and the store may not know it yet.
        seq: the last row of the log up to which memory holds everything.
        tail_rows, tail_bytes: what the log holds behind the newest snapshot.
        snapshot_bytes: the size of that snapshot.
        snapshot_seq: the row up to which the snapshot below the document in memory goes; 0 while there is none.
        kept_numbers: the sum of the numbers of the updates that were kept beside the log when it was looked at last.
        uncommitted: how many turns are with the journal.
        gapped: whether the log is known to lack rows behind its newest snapshot.
        epoch: how often the log was found to be another one than before, so that numbers from before say nothing.
    """

    __slots__ = (
        "_calls",
        "_clock",
        "_durable",
        "_guests",
        "_journal",
        "_keeps_deleted",
        "_listener",
        "_lost",
        "_members",
        "_met",
        "_name",
        "_turns",
        "_unacknowledged",
        "_waiting",
        "_unechoed",
        "_written",
        "document_id",
        "epoch",
        "gapped",
        "gc",
        "kept_numbers",
        "seq",
        "snapshot_bytes",
        "snapshot_seq",
        "tail_bytes",
        "tail_rows",
        "uncommitted",
        "unmarked",
    )

    def __init__(
        self,
        name: str,
        loaded: LoadedDocument | None,
        members: Members,
        listener: Listener,
        journal: Journal,
        clock: Callable[[], float],
        *,
        keeps_deleted: bool = False,
    ) -> None:
        self._name = name
        self._keeps_deleted = self.unmarked = keeps_deleted
        self._members = members
        self._listener = ref(listener)  # it holds this, and a room that leaves memory must leave it at once
        self._journal = journal
        self._clock = clock
        self.document_id: int | None = None
        self.gc: bool | None = False if keeps_deleted else None
        self.seq = self.tail_rows = self.tail_bytes = self.snapshot_bytes = self.snapshot_seq = self.epoch = 0
        self.gapped = False
        self.kept_numbers = 0
        self._read_numbers(loaded)
        self.uncommitted = 0
        self._turns = 0
        self._written = 0  # the number of the last row that a commit of ours was given in this epoch
        # The number of a turn, its acknowledgements, and what the member of the first gets back with it.
        self._unacknowledged = _NOTHING
        self._waiting = 0  # acknowledgements in it of what was not to be stored, since it was empty or shortened
        self._unechoed: Session | None = None
        self._lost = False  # memory holds what the log never will
        # Edits that no session has sent wait for the commit of a turn: its number, and who waits.
        self._calls: deque[tuple[int, list[Stored]]] | None = None
        # What guests are called: those whose first row is still to come, and those whose name the store was given.
        self._met = self._guests = _NOBODY
        # How many commits are still to come, who waits for them, and whether nothing was read in between.
        self._durable: list[tuple[int, asyncio.Future[int | None], bool]] = []

    def _read_numbers(self, loaded: LoadedDocument | None) -> None:
        if loaded is None:
            return
        rows, snapshot = loaded.rows, loaded.snapshot
        self.document_id = loaded.document.id
        self.note_gc(loaded.document.gc)
        self.seq = rows[-1].seq if rows else loaded.document.head_seq
        self.tail_rows = len(rows)
        self.tail_bytes = sum(len(row.data) for row in rows)
        self.snapshot_bytes = 0 if snapshot is None else len(snapshot.data)
        self.snapshot_seq = 0 if snapshot is None else snapshot.seq
        self.kept_numbers = sum([update.number for update in loaded.pending])
        self.gapped = len(rows) < loaded.document.head_seq - (0 if snapshot is None else snapshot.seq)

    def note_gc(self, stored: bool) -> None:
        """Note what the store says of the document: whether compaction may drop its deleted content."""
        self.gc = stored and not self._keeps_deleted
        self.unmarked = stored and self._keeps_deleted

    # Guests

    def meet(self, guest: NewGuest | None) -> None:
        """Note what somebody is called who may edit from now on; None: the name is not kept.

        The store is given it with the guest's first row, so nothing is kept of guests who only read.
        """
        if guest is None or guest.author in self._guests:
            return
        if self._met is _NOBODY:
            self._met, self._guests = {}, {}
        self._met[guest.author] = guest
        if len(self._met) > _MOST_GUESTS:
            del self._met[next(iter(self._met))]

    def guests(self) -> tuple[NewGuest, ...]:
        """Give the guests whose names the store was given, for a log that has lost them."""
        return tuple([guest._replace(row=0) for guest in self._guests.values()])

    def _introduce(self, authors: Iterable[str | None]) -> tuple[NewGuest, ...]:
        """Take the guests out who have sent something now; ``authors`` are in the order of the rows."""
        found: list[NewGuest] = []
        for place, author in enumerate(authors):
            guest = None if author is None else self._met.pop(author, None)
            if guest is not None:
                found.append(guest._replace(row=place))
                self._guests[guest.author] = guest
                if len(self._guests) > _MOST_GUESTS:
                    del self._guests[next(iter(self._guests))]
        return tuple(found)

    # Turns

    def echoes_late(self, end: TurnEnd, delta: bytes) -> bool:
        """Tell whether the author of a turn gets its echo with the acknowledgement; call it before the broadcast.

        What one client alone has sent, over a protocol that acknowledges, it is sent back with the acknowledgement, in
        one write: its author knows it all, and in small rooms the writes are what costs. Should the author lag
        or leave before the commit, it misses nothing; should others write meanwhile, it has its echo before theirs.
        """
        acks, author = end.acks, end.author
        late = (
            len(acks) == 1
            and acks[0].session is author
            and author.state is State.LIVE
            and len(delta) <= _LATE_ECHO
            and self._journal.failing is None
        )
        if self._unechoed is not None and not (late and self._unechoed is author):
            self.echo_now()
        return late

    def store(self, end: TurnEnd, producers: tuple[NewProducer, ...] = (), received: float | None = None) -> None:
        """Give a turn's rows, what changes among the updates that are kept, and ``producers`` to the journal.

        ``received`` is when the first edit of the turn has come, as for the journal.
        """
        if self._journal.closed:
            self._lost = True  # its client was not told that it is saved, and sends it again
            return
        at = self._clock()
        made: list[NewRow] = []
        owners: tuple[NewOwner, ...] = ()
        for data, author, note, first_uses in end.rows:
            if first_uses:
                owners += make_owners(first_uses, at, len(made))
            made.append(NewRow(data, at, author, row_checksum(data, author), note))
        rows = tuple(made)
        pending = None if end.kept is None else make_change(end.kept, at)
        guests: tuple[NewGuest, ...] = ()
        if self._met:
            waiting = () if pending is None else pending.added
            guests = self._introduce([*(row.author for row in rows), *(update.author for update in waiting)])
        entry = Append(self._name, self.document_id, rows, pending, not self.unmarked, owners, producers, guests)
        done = self._done(rows, self._turns + 1)
        self.uncommitted += 1
        self._turns += 1
        if end.acks:
            self._wait_for_commit(end.acks, b"")
        self._journal.append(entry, done, received)

    def echo_later(self, end: TurnEnd, echo: bytes) -> None:
        """Send ``echo`` to the author of the turn that was just stored, with the acknowledgement.

        Nothing can have committed it yet: the journal calls back in a later turn of the loop.
        """
        if self._unacknowledged and self._unacknowledged[-1][1] is end.acks:
            self._unechoed = end.author
            self._unacknowledged[-1] = (self._turns, end.acks, echo)

    def _wait_for_commit(self, acks: list[Ack], echo: bytes) -> None:
        if self._unacknowledged is _NOTHING:
            self._unacknowledged = deque()
        self._unacknowledged.append((self._turns, acks, echo))

    def echo_now(self) -> None:
        """Send the echoes that wait for a commit: their author is about to get what came after."""
        self._unechoed = None
        waiting, self._unacknowledged = self._unacknowledged, deque()
        for turn, acks, echo in waiting:
            self._unacknowledged.append((turn, acks, b""))
            author = acks[0].session
            if echo and author.state is State.LIVE:
                assert isinstance(author, Member)
                self._members.write(author, echo)

    def _done(self, rows: tuple[NewRow, ...], turn: int) -> Callable[[AppendOutcome], None]:
        return partial(self._committed, rows, turn, self.seq, self.epoch)

    def _committed(self, rows: tuple[NewRow, ...], turn: int, before: int, epoch: int, outcome: AppendOutcome) -> None:
        """Go on after the journal has committed one turn's rows, or was refused them for good.

        ``before`` and ``epoch`` are as they were when the journal was given them: the log held rows up to there.
        """
        self.uncommitted -= 1
        try:
            self._note_outcome(rows, turn, before if epoch == self.epoch else None, outcome)
        except Exception as error:
            if (listener := self._listener()) is not None:
                listener.failed(error)

    def _note_outcome(self, rows: tuple[NewRow, ...], turn: int, before: int | None, outcome: AppendOutcome) -> None:
        if isinstance(outcome, (DocumentDeleted, StoreRefused)):
            while self._unacknowledged and self._unacknowledged[0][0] <= turn:
                self._tell_all([ack._replace(saved=False) for ack in self._unacknowledged.popleft()[1]])
            self._report_durable(None)
            self._report_stored(turn, outcome)
            if (listener := self._listener()) is not None:
                listener.refused(outcome)
            return
        if _log.isEnabledFor(10):
            _log.debug("committed %s %d..%d", shown_name(self._name), outcome.first_seq, outcome.last_seq)
        # A number that was given before is given again only where rows were removed. Soon the head of the log is as
        # high as it was, and nobody can see it there any more.
        went_back = (
            before is not None
            and outcome.document_id == self.document_id
            and outcome.first_seq <= max(before, self._written)
        )
        if before is not None:
            self._written = outcome.last_seq
            self.unmarked = False
        self.document_id = outcome.document_id
        self.tail_rows += len(rows)
        self.tail_bytes += sum(len(row.data) for row in rows)
        follows = outcome.first_seq == self.seq + 1
        if follows:
            self.seq = outcome.last_seq
        self._report_durable(outcome.last_seq if follows else None)
        listener = self._listener()
        if listener is not None and went_back:
            listener.went_back()
        elif listener is not None and not follows:
            listener.overtaken()
        while self._unacknowledged and self._unacknowledged[0][0] <= turn:
            _, acks, echo = self._unacknowledged.popleft()
            self._tell_all(acks, echo)
        if not self._unacknowledged:
            self._waiting = 0
        if self._calls is not None:
            self._report_stored(turn, None)
        if listener is not None:
            listener.committed(outcome, rows)

    @property
    def newest(self) -> int:
        """The highest number that is known: what was taken here and is committed has this number, or a lower one.

        It is above ``seq`` while rows of other nodes, which came between, are not read yet.
        """
        return max(self.seq, self._written)

    @property
    def turns(self) -> int:
        """The number of the last turn that was given to the journal."""
        return self._turns

    def healed(self, rows: tuple[NewRow, ...], turn: int) -> Callable[[AppendOutcome], None]:
        """Count rows that hold what the log has lost, and the turns up to ``turn``; give what is to be called."""
        self.uncommitted += 1
        return self._done(rows, turn)

    # When something is durable

    def durable(self) -> asyncio.Future[int | None]:
        """Return a future of the log's number at which everything taken until now is durable.

        Its result is None when memory did not hold all rows up to that number, and no other, when this was called:
        rows of another node came between, read by now or not, or the store has refused the document. Nor is it known
        when something has come after the journal was closed.
        """
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if self.uncommitted:
            self._durable.append((self.uncommitted, future, not self._lost))
        else:
            future.set_result(None if self._lost or self._written > self.seq else self.seq)
        return future

    def _report_durable(self, seq: int | None) -> None:
        """Count one commit against the futures that wait; entries of one room commit in order."""
        if not self._durable:
            return
        waiting, self._durable = self._durable, []
        for left, future, follows in waiting:
            if left > 1:
                self._durable.append((left - 1, future, follows))
            elif not future.done():
                future.set_result(seq if follows else None)

    def tell_when_stored(self, calls: list[Stored]) -> None:
        """Resolve futures when everything that was given to the journal until now is committed.

        They raise what the store has refused it with, or OutcomeUnknown where nobody will hear of a commit.
        """
        if self._lost:
            settle(calls, OutcomeUnknown("it came after the journal was closed"))
        elif not self.uncommitted:
            settle(calls, None)
        else:
            if self._calls is None:
                self._calls = deque()
            self._calls.append((self._turns, calls))
            self._journal.hurry()

    def give_up(self) -> None:
        """Tell those who wait for a commit that nobody will hear of it, because the journal is closed."""
        self._report_stored(self._turns, OutcomeUnknown("the journal was closed before the commit"))

    def _report_stored(self, turn: int, error: CollabError | None) -> None:
        while self._calls and self._calls[0][0] <= turn:
            settle(self._calls.popleft()[1], error)
        if not self._calls:
            self._calls = None

    # Rows of other nodes

    def note_stored(self, seq: int, new_bytes: int) -> None:
        """Note that memory holds the log up to ``seq``, whose row said ``new_bytes`` of news (0: it was known)."""
        self.seq = seq
        if new_bytes:
            self.tail_rows += 1
            self.tail_bytes += new_bytes
        # Who waits for a number has looked at the document without this row.
        self._durable = [(left, future, False) for left, future, _ in self._durable]

    def note_snapshot(self, seq: int, nbytes: int) -> None:
        """Note that memory holds the log up to ``seq``, read from the snapshot with that number."""
        self.note_stored(seq, 0)
        self.tail_rows, self.tail_bytes, self.snapshot_bytes = 0, 0, nbytes

    def renumber(self, loaded: LoadedDocument | None) -> None:
        """Take document and numbers from the log as it is now, None if it has no such document; memory holds it all."""
        self.document_id = None
        self.gapped = False
        self.seq = self.tail_rows = self.tail_bytes = self.snapshot_bytes = self.snapshot_seq = self._written = 0
        self._read_numbers(loaded)
        self.epoch += 1
        self._durable = [(left, future, False) for left, future, _ in self._durable]

    # Acknowledgements

    def acknowledge(self, acks: list[Ack]) -> None:
        """Tell members what became of updates of which nothing is to be stored, after what was taken before them."""
        if not self.uncommitted:
            self._waiting = 0
            self._tell_all(acks)
            return
        self._wait_for_commit(acks, b"")
        self._waiting += len(acks)
        if self._waiting > _MAX_WAITING and (listener := self._listener()) is not None:
            # Of many that arrive while the store is away, the last is most likely one of those who send the most.
            session = acks[-1].session
            assert isinstance(session, Member)
            listener.end(session, PeerTooSlow(f"{self._waiting} updates that say nothing wait for the store"))
            self._shorten()

    def _shorten(self) -> None:
        """Forget acknowledgements of sessions that have ended."""
        self._waiting = 0
        waiting, self._unacknowledged = self._unacknowledged, deque()
        for turn, acks, echo in waiting:
            left = acks if echo else [ack for ack in acks if ack.session.state is not State.CLOSED]
            if left:
                self._unacknowledged.append((turn, left, echo))

    def _tell_all(self, acks: list[Ack], echo: bytes = b"") -> None:
        """Tell members what became of their updates, in order; ``echo`` goes to the one member behind its one."""
        if len(acks) == 1:  # the usual case in many small rooms
            session, saved, version = acks[0]
            if version is not None:
                self._tell_version(acks[0], echo)
                return
            if not saved:
                self._members.counts.refused_updates += 1
            if session.state is State.LIVE:
                assert isinstance(session, Member)
                self._members.write(session, session.encoder.encode(_SAVED if saved else _REFUSED) + echo)
                return
        of_member: dict[Session, bytearray] = {}
        for ack in acks:
            member, saved, version = ack
            if version is not None:
                self._tell_version(ack)
                continue
            if not saved:
                self._members.counts.refused_updates += 1
            if member.state is not State.CLOSED:
                of_member.setdefault(member, bytearray()).append(saved)
        for session, owed in of_member.items():
            assert isinstance(session, Member)
            self._tell(session, owed)

    def _tell_version(self, ack: Ack, echo: bytes = b"") -> None:
        """Tell a member that its version is saved. One that lags is not kept waiting for it: its client asks again."""
        session, saved, version = ack
        versions = session.versions
        assert isinstance(session, Member) and versions is not None and version is not None
        told = saved and session.takes
        versions.settle(version, told=told)
        if not told:
            return
        # The echo is an update: to one that is sent a document in pieces it comes with these.
        said = session.encoder.encode(LocalVersion(version))
        self._members.write(session, said + echo if session.state is State.LIVE else said)

    def tell_owed(self, member: Member) -> None:
        """Tell a member what it is owed since it has lagged."""
        if member.withheld and member.state is State.LIVE:
            member.withheld = False
            member.owed = bytearray((True,)) + (member.owed or b"")
        if member.owed is not None and member.takes:
            owed, member.owed = member.owed, None
            self._tell(member, owed)

    def _tell(self, member: Member, acks: bytearray) -> None:
        """Write acknowledgements, a byte each, or keep them while the member lags: it could make any number wait."""
        if member.withholds and True in acks:
            acks.remove(True)
            member.withholds, member.withheld = False, True
        if member.takes:
            frames = (member.encoder.encode(_REFUSED), member.encoder.encode(_SAVED))
            while acks and member.takes:
                self._members.write(member, b"".join([frames[saved] for saved in acks[:_ACKS]]))
                del acks[:_ACKS]
        if not acks:
            return
        if member.owed is None:
            member.owed = acks
        else:
            member.owed += acks
        if len(member.owed) > _MAX_OWED and (listener := self._listener()) is not None:
            listener.end(member, PeerTooSlow(f"{len(member.owed)} updates whose outcome it does not read"))
