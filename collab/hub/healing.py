"""What this node does when an older state of the database is there: it writes again what it still has in memory.

Strategy: a backup was restored, a replica took over that was behind, or rows were removed by hand. The store recognises
that by its own row, which each append moves on (``Log.attend``); numbers of documents prove nothing, for other nodes
fill them again. Then nothing is written until every open room was compared with the log that is there now: what
the log lacks becomes one row of it, without an author; what memory lacks is relayed. Rooms are found again by their
names, because an id may be another document's now. Turns that waited for the journal are covered by such a row, and
are acknowledged with it.

Documents that nobody has open are as the older state has them, until a client comes that holds more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from collab.engine.document import Document
from collab.engine.kept import KeptChange
from collab.errors import DamagedDocument, DocumentDeleted, DocumentExists, StoreUnavailable
from collab.hub.loading import read_document
from collab.hub.persistence import make_change, make_owners
from collab.hub.replication import Replication
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.tasks import Tasks
from collab.storage.checksums import seal_row
from collab.storage.journal import Done, Journal
from collab.storage.records import Append, Appended, AppendOutcome, LoadedDocument
from collab.storage.store import Store
from collab.telemetry import RateLimited, get_logger, shown_name

_log = get_logger("store")
_limited = RateLimited(_log)

# Seconds between tries while the database cannot be read or written.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Healing:
    """Compares the rooms of this node with a database that went back.

    Args:
        store, journal, rooms, tasks, replication, clock: the hub's own.

    Attributes:
        times: how often the database was found to have gone back.
        documents: how many documents lacked something, which was written again.
        running: whether the rooms are being compared now; ids and numbers of a room prove nothing meanwhile.
        generation: grows when the database is taken as it is; what was loaded before may be of the former one.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        rooms: Mapping[str, LiveRoom],
        tasks: Tasks,
        replication: Replication,
        clock: Callable[[], float],
    ) -> None:
        self.times = 0
        self.documents = 0
        self.running = False
        self.generation = 0
        self._store = store
        self._journal = journal
        self._rooms = rooms
        self._tasks = tasks
        self._replication = replication
        self._clock = clock
        journal.on_back = self.begin

    def begin(self, error: StoreUnavailable) -> None:
        """Compare all rooms, because of ``error``; does nothing while that is under way."""
        if self.running:
            return
        self.running = self._replication.suspended = True
        self.times += 1
        self._journal.pause()
        _log.error(
            "the database has gone back: %s. Nothing is called saved until the %d open documents were compared with "
            "it; what it lacks of them is written again",
            error,
            len(self._rooms),
        )
        self._tasks.supervise(self._run, "compare the rooms with a database that went back")

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                compared, healed = await self._compare_all()
                break
            except StoreUnavailable as error:
                _limited.warning("wait", "the comparison with the database waits: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self.running = self._replication.suspended = False
        _log.warning(
            "%d open documents were compared with the database; %d of them are written again", compared, healed
        )

    async def _compare_all(self) -> tuple[int, int]:
        await self._journal.hold()
        await self._store.attend()
        self.generation += 1
        rooms = list(self._rooms.values())
        healed = 0
        for live in rooms:
            if live.ended is not None:
                continue
            try:
                healed += await self._compare(live)
            except StoreUnavailable:
                raise
            except Exception as error:
                live.failed(error)  # a defect in one room must not keep the journal from all others
        for name in self._journal.held_names():
            live_now = self._rooms.get(name)
            if live_now is None or live_now.ended is not None:
                # Of a room that is over: nobody was told that it is saved, and under its id may be another document.
                _call_all(self._journal.take(name), DocumentDeleted(f"{shown_name(name)} is not open any more"))
        self._journal.release()
        return len(rooms), healed

    async def _compare(self, live: LiveRoom) -> bool:
        """Compare one room; return whether the log lacks something of it, which is put before all that waits."""
        journal, name = self._journal, live.name
        try:
            loaded = await self._load(live)
        except DocumentDeleted as error:
            live.refused(error)
            return False
        log = await self._read(name, loaded)
        # All that memory holds, and whom to tell when it is stored: both before the next wait.
        live.end_turn(asyncio.get_running_loop().time())
        update = live.room.document.encode_state_as_update(log.encode_state_vector())
        covered, turn_number = journal.take(name), live.persistence.turns
        await in_slices(log.apply_update_in_slices(update, stored=True))
        log.apply_waiting()
        turn = log.flush()
        if live.ended is not None:
            _call_all(covered, DocumentDeleted(f"{shown_name(name)} is not open any more"))
            return False
        live.receive_log(log, loaded)
        persistence = live.persistence
        journal.readdress(name, persistence.document_id)
        # What is kept beside the document went back, too; the store passes over what it has.
        kept = live.room.kept.everything() if live.room.kept is not None else ()
        now = self._clock()
        # So did whose client IDs are, and what guests are called; of these, too, it passes over what it has.
        owners = make_owners(live.room.first_uses(), now) if live.exists else ()
        guests = persistence.guests() if live.exists else ()
        if turn is None and not kept and not owners and not guests:
            if covered and persistence.document_id is not None:
                _call_all(covered, _nothing_after(persistence.document_id, persistence.seq))
            return False
        rows = () if turn is None else (seal_row(turn.delta, now, None),)
        pending = make_change(KeptChange(kept, ()), now) if kept else None
        committed = persistence.healed(rows, turn_number)

        def done(outcome: AppendOutcome) -> None:
            committed(outcome)
            if isinstance(outcome, Appended):
                outcome = _nothing_after(outcome.document_id, outcome.last_seq)
            _call_all(covered, outcome)

        entry = Append(name, persistence.document_id, rows, pending, not persistence.unmarked, owners, guests=guests)
        journal.put_first(entry, done)
        if turn is None:
            return False
        self.documents += 1
        _limited.warning(
            "healed",
            "healed %s: the database lacked %d bytes of it, which are written again",
            shown_name(name),
            len(turn.delta),
        )
        return True

    async def _load(self, live: LiveRoom) -> LoadedDocument | None:
        """Read what the log has of a room; raises ``DocumentDeleted`` if that very document was deleted."""
        while True:
            try:
                return await self._store.load(live.name)
            except DocumentDeleted:
                head = (await self._store.heads([live.name])).get(live.name)
                known = live.persistence.document_id
                if head is not None and head.deleted and known in (None, head.document_id, head.renamed_to):
                    raise
                # The tombstone is of an older document of this name: ours was created after this state was kept.
                try:
                    await self._store.create(live.name, gc=live.persistence.gc is not False)
                except DocumentExists:
                    continue

    async def _read(self, name: str, loaded: LoadedDocument | None) -> Document:
        try:
            return await in_slices(read_document(name, loaded))
        except DamagedDocument as error:
            _log.error("all of a document is written again: %s", error)
            return Document()


def _nothing_after(document_id: int, seq: int) -> Appended:
    """Make the outcome of rows that were not written, because what they say is in the rows up to ``seq``."""
    return Appended(document_id, seq + 1, seq)


def _call_all(covered: Sequence[Done], outcome: AppendOutcome) -> None:
    for done in covered:
        done(outcome)
