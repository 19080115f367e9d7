"""What other nodes write and say of the documents that are live here.

Strategy: the log is the truth. A node hears on the bus which rows were written elsewhere, and takes those that follow
on what it holds; from a commit whose numbers do not follow, from what it may have missed and by looking at the heads of
the log now and then it learns that there are others, and reads them. Awareness states of other nodes' sessions belong
to their node here (``Owner``), so one that goes takes them along. Stateless messages pass through. Nothing is published
of a document that no other node has open.

Two nodes that have come to one document, or may have missed something, tell each other what they hold (``Held``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, assert_never

from collab.cluster.bus import Bus, BusMessage
from collab.cluster.messages import (
    ALL_NODES,
    Answer,
    Asked,
    Awareness,
    Claimed,
    Committed,
    Deleted,
    Held,
    Look,
    NodeMessage,
    Posted,
    Question,
    Renamed,
    Row,
    Rows,
    Stateless,
    Visited,
    VisitedBy,
    decode_node_message,
    encode_node_message,
)
from collab.engine.comebacks import DistantClaim
from collab.engine.visitors import Somebody
from collab.errors import (
    CollabError,
    DamagedDocument,
    DecodeError,
    DocumentDeleted,
    DocumentRenamed,
    StoreUnavailable,
    StoreWentBack,
)
from collab.hub.counts import GAP, LOOK, TOLD, HubCounts
from collab.hub.early import EarlyRows
from collab.hub.loading import check_rows, damaged
from collab.hub.named_presence import NamedStreams
from collab.hub.questions import Questions
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.stream_presence import Visitors
from collab.hub.tasks import Tasks
from collab.protocol import messages
from collab.protocol.awareness import Entry, decode_awareness, encode_awareness, newest_entries
from collab.protocol.session import Owner
from collab.storage.records import Appended, Head, LogRow, NewRow
from collab.storage.store import Store
from collab.telemetry import RateLimited, get_logger, shown_name

_log = get_logger("room")
_limited = RateLimited(get_logger("bus"))

# Once when it is seen, then every ten minutes: it may be a rolling restart, or stay so for days.
_rarely = RateLimited(_log, per_second=1 / 600, burst=1)

# Rows read from the log at once when another node has written.
_ROWS = 500

# Seconds after a row that another node has written, for which it is taken to have the document open still.
_SHARED = 30.0

# Documents whose heads are looked at in one query.
_HEADS = 500

# Seconds between looks at the heads of the log: while the bus cannot say that it loses nothing, or servers write that
# are not on it; while it can; and at least, however often something may have been missed.
_LOOK = 1.0
_RARE_LOOK = 10.0
_SHORTEST = 0.2

# Seconds for which rows that have come too early wait for those before them: what was said at the same time has come
# by then, on either bus.
_HOLE = 0.15

_NO_STATES = encode_awareness(())


class Replication:
    """The connection of this node's rooms with those of other nodes.

    Args:
        store: the log.
        bus: started and closed by this.
        rooms: the hub's own, by name.
        tasks: the hub's own.
        told: called when operators have told all nodes something, which is in the store.
        counts: the hub's own.

    Attributes:
        questions: what nodes ask each other; set by the hub before the start.
        named: the named presence streams; as well.
        visitors: people without a socket; as well.
    """

    questions: Questions
    named: NamedStreams
    visitors: Visitors

    def __init__(
        self,
        store: Store,
        bus: Bus,
        rooms: Mapping[str, LiveRoom],
        tasks: Tasks,
        told: Callable[[], None],
        counts: HubCounts,
    ) -> None:
        self._store = store
        self._bus = bus
        self._rooms = rooms
        self._tasks = tasks
        self._told = told
        self._counts = counts
        self._reading: dict[LiveRoom, bool] = {}  # whether more was written since its rows were asked for
        self._readers: dict[LiveRoom, list[asyncio.Future[None]]] = {}  # who waits for the end of that
        self._nodes: dict[LiveRoom, dict[str, Owner]] = {}  # other nodes that have shown states in a room
        # Whether the next look is due although nobody has written since the last one: it has left something out.
        self._look_again = True
        # While rooms are compared with a database that went back: what is read now says nothing of their numbers.
        self.suspended = False
        self._others = 0  # servers that write to the database and are not on the bus
        self._asked = asyncio.Event()  # for a look at the heads
        self._unsent: dict[LiveRoom, list[_Presence]] = {}  # what is gathered
        self._sending: asyncio.TimerHandle | None = None
        self._sent_at = float("-inf")
        self._early = EarlyRows()
        self._foreign: dict[LiveRoom, float] = {}  # when another node was last seen to have written
        self._waits: dict[LiveRoom, asyncio.TimerHandle] = {}  # until the log is read for rows that are still missing

    async def start(self) -> None:
        """Connect to the bus."""
        self._bus.subscribe(ALL_NODES)
        self.questions.start()
        await self._bus.start(self)

    async def close(self) -> None:
        """Leave the bus; what was said is sent."""
        if self._sending is not None:
            self._sending.cancel()
            self._send_presence()
        for wait in self._waits.values():
            wait.cancel()
        await self._bus.close()

    # What this node tells

    def opened(self, live: LiveRoom) -> None:
        """Hear of a document that is live here from now on; who has it elsewhere says what they hold."""
        self._look_again = True  # what was written while it was being read may be known as seen already
        self._bus.subscribe(live.name)

    def closed(self, live: LiveRoom) -> None:
        """Hear nothing more of a document that has left memory."""
        self._nodes.pop(live, None)
        self._foreign.pop(live, None)
        self._forget_early(live)
        if self._rooms.get(live.name) in (live, None):
            self._bus.unsubscribe(live.name)

    def shares(self, live: LiveRoom) -> bool:
        """Tell whether another node may have a document open.

        One that is not on the bus shows itself by its rows before it is seen in the table of nodes.
        """
        if self._others > 0 or self._bus.wanted(live.name):
            return True
        return asyncio.get_running_loop().time() < self._foreign.get(live, float("-inf")) + _SHARED

    def committed(self, live: LiveRoom, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Tell the others what was committed, or where to look for it; go on with rows that have waited for it."""
        self._take_own(live, outcome, rows)
        if not self._bus.wanted(live.name):
            return
        document_id, first, last = outcome
        if last < first:
            self._publish(live, Look())  # kept beside the log
        elif last - first + 1 == len(rows) and sum([len(row.data) for row in rows]) <= self._bus.row_bytes:
            self._publish(live, Rows(document_id, first, tuple([Row(row.data, row.at, row.author) for row in rows])))
        else:
            self._publish(live, Committed(document_id, last))

    def awareness(self, live: LiveRoom, update: bytes, people: Mapping[int, Somebody]) -> None:
        """Tell the others what has changed in the awareness states of this node; ``people`` are its visitors."""
        if not self._bus.wanted(live.name):
            return
        if not self._bus.presence_seconds:
            self._publish_presence(live, _Presence(update, people))
            return
        self._unsent.setdefault(live, []).append(_Presence(update, people))
        if self._sending is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), self._sent_at + self._bus.presence_seconds)
            self._sending = loop.call_at(at, self._send_presence)

    def _send_presence(self) -> None:
        """Publish what was gathered, each client's newest state once."""
        self._sending = None
        self._sent_at = asyncio.get_running_loop().time()
        unsent, self._unsent = self._unsent, {}
        for live, gathered in unsent.items():
            self._publish_presence(live, gathered[0] if len(gathered) == 1 else _merge(gathered))

    def _publish_presence(self, live: LiveRoom, presence: _Presence) -> None:
        """Publish the states of sessions, and those of visitors with whose they are."""
        update, people = presence
        if not people:
            self._publish(live, Awareness(update))
            return
        entries = decode_awareness(update)
        visited = [entry for entry in entries if entry.client in people]
        if visited:
            by = tuple([VisitedBy(entry.client, *people[entry.client]) for entry in visited])
            self._publish(live, Visited(encode_awareness(visited), by))
        if len(visited) < len(entries):
            rest = [entry for entry in entries if entry.client not in people]
            self._publish(live, Awareness(encode_awareness(rest)))

    def ask_there(self, live: LiveRoom, clients: bytes) -> None:
        """Ask clients of other nodes to announce themselves, for somebody here does not see them."""
        self._publish(live, Asked(clients))

    def claim(self, live: LiveRoom, claim: DistantClaim) -> None:
        """Tell the node that shows a client ID that a session of this one claims it."""
        self._publish(live, Claimed(*claim))

    def posted(self, name: str, posted: Posted) -> None:
        """Tell the others what a named presence stream of a document has."""
        if self._bus.wanted(name):
            self._bus.publish(name, encode_node_message(posted))

    def stateless(self, name: str, message: messages.Stateless) -> None:
        """Pass a stateless message of a document on to the others."""
        if self._bus.wanted(name):
            self._bus.publish(name, encode_node_message(Stateless(message.payload)))

    def written(self, name: str, document_id: int, seq: int) -> None:
        """Tell the others up to which row a document was written beside the rooms."""
        if self._bus.wanted(name):
            self._bus.publish(name, encode_node_message(Committed(document_id, seq)))

    def deleted(self, name: str, document_id: int) -> None:
        """Tell the others that a document was deleted."""
        if self._bus.wanted(name):
            self._bus.publish(name, encode_node_message(Deleted(document_id)))

    def renamed(self, name: str, document_id: int, new_name: str) -> None:
        """Tell the others that a document has another name."""
        if self._bus.wanted(name):
            # Behind it the other one, for nodes of a release that does not know this.
            for message in (Renamed(document_id, new_name), Deleted(document_id)):
                self._bus.publish(name, encode_node_message(message))

    def tell_to_look(self, topic: str) -> None:
        """Let the nodes that have a document open look at the store; or, of ``ALL_NODES``, at what operators say."""
        if self._bus.wanted(topic):
            self._bus.publish(topic, encode_node_message(Look()))

    def _publish(self, live: LiveRoom, message: NodeMessage) -> None:
        self._bus.publish(live.name, encode_node_message(message))

    # What this node hears (``cluster.bus.BusListener``)

    def receive(self, heard: BusMessage) -> None:
        """Take a message of another node; one that cannot be taken is logged."""
        live = self._rooms.get(heard.topic)
        if live is None:  # no document has the name of another topic
            if not self.questions.receive(heard) and heard.topic == ALL_NODES:
                self._told()  # whatever is said there: the store has it
            return
        if live.ended is not None:
            return
        try:
            message = decode_node_message(heard.payload)
            if message is not None:
                self._handle(live, heard.sender, message)
        except CollabError as error:
            # Of another release, or not of ours: it proves nothing, so nothing is lost with it.
            _limited.warning("message", "a message of the node %s is left out: %s", heard.sender, error)
        except Exception as error:
            _limited.error("failed", "a message of the node %s failed", heard.sender, exc_info=error)

    def _handle(self, live: LiveRoom, sender: str, message: NodeMessage) -> None:
        match message:
            case Rows(document_id, seq, rows):
                self._take_rows(live, document_id, seq, rows)
            case Committed(document_id, seq):
                self._head_is(live, document_id, seq)
            case Awareness(update):
                live.receive_awareness_of(self._node(live, sender), update)
            case Held(held, seq, update):
                if held is not None:
                    self._head_is(live, held, seq)
                live.receive_awareness_of(self._node(live, sender), update, whole=True)
            case Look():
                self.missed()
            case Asked(update):
                live.receive_asked(update)
            case Claimed(client, clock, first, author, address):
                live.receive_claim(DistantClaim(client, clock, first, author, address))
            case Visited(update, people):
                known = {client: Somebody(author, address) for client, author, address in people}
                self.visitors.renew(live, known)
                live.receive_awareness_of(self._node(live, sender), update, known)
            case Posted():
                self.named.receive(live, message)
            case Question() | Answer():
                pass  # these have topics of their own
            case Stateless(payload):
                live.members.relay(messages.Stateless(payload))
            case Deleted(document_id):
                if live.persistence.document_id == document_id:
                    live.refused(DocumentDeleted(f"document {live.name!r} is deleted"))
            case Renamed(document_id, new_name):
                if live.persistence.document_id == document_id:
                    live.refused(renamed(live.name, new_name))
            case _:
                assert_never(message)

    def _node(self, live: LiveRoom, name: str) -> Owner:
        nodes = self._nodes.setdefault(live, {})
        node = nodes.get(name)
        if node is None:
            node = nodes[name] = Owner()
        return node

    def joined(self, topic: str, node: str) -> None:
        """Tell a node that has come to a document what this one holds of it."""
        live = self._rooms.get(topic)
        if live is not None and live.ended is None:
            visited, people = live.room.awareness.list_visitors()
            if visited is not None:
                self._publish_presence(live, _Presence(visited, people))
            own = live.room.awareness.own() or _NO_STATES
            self._publish(live, Held(live.persistence.document_id, live.persistence.seq, own))
            for posted in self.named.held(live):
                self._publish(live, posted)

    def left(self, topic: str, node: str) -> None:
        """Remove the awareness states of a node that has a document open no more.

        It has said so of each of them before; but that may be lost, and nobody else would ever remove them.
        """
        live = self._rooms.get(topic)
        owner = None if live is None else self._nodes.get(live, {}).pop(node, None)
        if live is not None and owner is not None:
            live.leave_awareness_of(owner)

    def gone(self, node: str) -> None:
        """Remove the awareness states of a node that has gone."""
        for live, nodes in list(self._nodes.items()):
            owner = nodes.pop(node, None)
            if owner is not None:
                live.leave_awareness_of(owner)

    def missed(self) -> None:
        """Look at the heads of the log soon."""
        self._look_again = True
        self._asked.set()

    # Rows of other nodes

    def _take_rows(self, live: LiveRoom, document_id: int, seq: int, rows: tuple[Row, ...]) -> None:
        """Take rows that have come with a message if they follow on what memory holds; else read the log."""
        persistence = live.persistence
        if persistence.document_id is None:
            self.read(live, TOLD)
            return
        if persistence.document_id != document_id or seq + len(rows) <= persistence.seq + 1:
            return
        found = [LogRow(seq + at, row.data, row.at, row.author) for at, row in enumerate(rows)]
        if seq > persistence.seq + 1 or live in self._reading or self.suspended:
            self._keep_early(live, found)
            return
        try:
            live.receive_stored(found)
        except DecodeError:
            self.read(live, GAP)  # the bus proves nothing, not even that it is damaged there
            raise
        self._take_early(live)

    @property
    def _patient(self) -> bool:
        """Whether what is missing is most likely under way on the bus."""
        return self._bus.steady and not self._others and not self.suspended

    def overtaken(self, live: LiveRoom) -> None:
        """Hear that rows of this node were given numbers behind those of others, just before ``committed``."""
        self._note_foreign(live)
        if not (self._patient and self._bus.others):
            self.read(live, GAP)

    def _note_foreign(self, live: LiveRoom) -> None:
        """Note that another node has written, if that can only be one that is not on the bus."""
        if not self._bus.others:
            self._foreign[live] = asyncio.get_running_loop().time()

    def _take_own(self, live: LiveRoom, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Note this node's own rows: they may follow on what is missing, and others may have waited for them."""
        first = outcome.first_seq
        if outcome.last_seq < first:
            return
        if first <= live.persistence.seq + 1:
            self._take_early(live)
        elif self._patient:
            own = [LogRow(first + at, row.data, row.at, row.author) for at, row in enumerate(rows)]
            self._keep_early(live, own)

    def _keep_early(self, live: LiveRoom, rows: list[LogRow]) -> None:
        """Keep rows until those before them come; read the log if that takes too long."""
        if not self._patient or not self._early.keep(live, rows):
            self.read(live, GAP)
        elif live not in self._waits and live not in self._reading:
            loop = asyncio.get_running_loop()
            self._waits[live] = loop.call_later(_HOLE, self._read_late, live)

    def _read_late(self, live: LiveRoom) -> None:
        del self._waits[live]
        if live in self._early and live.ended is None:
            self.read(live, GAP)

    def _take_early(self, live: LiveRoom) -> None:
        """Take rows that have waited, as far as nothing is missing before them."""
        if live not in self._early or live in self._reading or self.suspended:
            return
        rows = self._early.take(live)
        if live not in self._early and live in self._waits:
            self._waits.pop(live).cancel()
        if rows:
            try:
                live.receive_stored(rows)
            except DecodeError as error:
                self.read(live, GAP)  # as above
                _limited.warning("message", "rows of other nodes are left out: %s", error)

    def _forget_early(self, live: LiveRoom) -> None:
        self._early.drop(live)
        wait = self._waits.pop(live, None)
        if wait is not None:
            wait.cancel()

    def _head_is(self, live: LiveRoom, document_id: int, seq: int) -> None:
        known = live.persistence.document_id
        if known is None or (known == document_id and seq > live.persistence.seq):
            self.read(live, TOLD)

    def read(self, live: LiveRoom, why: str) -> None:
        """Read what the log holds and memory does not; once more if that is under way.

        ``why`` is one of ``CATCH_UPS``, for what is found.
        """
        if live in self._reading:
            self._reading[live] = True  # what is being read may not hold it yet
        else:
            self._reading[live] = False
            self._tasks.spawn(self._read(live, why), f"reading rows of {shown_name(live.name)}")

    async def until_read(self, live: LiveRoom, seq: int) -> None:
        """Read what the log holds up to a row; return without it if the store cannot be read now."""
        while live.ended is None and live.persistence.seq < seq:
            self.read(live, TOLD)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.setdefault(live, []).append(done)
            await done
            if live.persistence.seq < seq and (self.suspended or self._look_again):
                return

    async def _read(self, live: LiveRoom, why: str) -> None:
        """Read what the log holds after ``seq``."""
        try:
            while live.ended is None:
                self._reading[live] = False
                if not await self._read_some(live, why) and not self._reading[live]:
                    break
        except (DocumentDeleted, DamagedDocument) as error:
            live.refused(error)
        except DecodeError as error:
            # Of a row that has no checksum: nobody's message is at fault.
            live.refused(damaged(live.name, why=f"a row behind number {live.persistence.seq}: {error}"))
        except StoreUnavailable:
            # The next look at the heads finds the gap again; until the store is back there is none.
            self._look_again = True
            self._forget_early(live)
            name = shown_name(live.name)
            _limited.warning("rows", "rows of another node wait for the store: %s", name, to=_log)
        finally:
            del self._reading[live]
            for done in self._readers.pop(live, ()):
                if not done.done():
                    done.set_result(None)
        if live.ended is None:
            self._take_early(live)
            if live in self._early and live not in self._waits:
                self._keep_early(live, [])  # something else is missing by now

    async def _read_some(self, live: LiveRoom, why: str) -> bool:
        """Read one portion of rows; return whether there may be more."""
        persistence, store = live.persistence, self._store
        epoch = persistence.epoch
        if persistence.document_id is None:
            loaded = await store.load(live.name)
            if loaded is None or self._is_stale(live, epoch):
                return False
            if persistence.document_id is None:
                persistence.document_id = loaded.document.id
                persistence.note_gc(loaded.document.gc)
        document_id, before = persistence.document_id, persistence.seq
        rows: list[LogRow] = await store.rows_after(document_id, before, _ROWS)
        if self._is_stale(live, epoch):
            return False
        if rows and rows[0].seq > persistence.seq + 1:
            # Pruned: the store was out of reach for longer than its history. The snapshot says the same.
            loaded = await store.load(live.name)
            if self._is_stale(live, epoch):
                return False
            if loaded is None or loaded.document.id != document_id:
                raise DocumentDeleted(f"document {live.name!r} is deleted")
            if loaded.snapshot is not None and loaded.snapshot.seq > persistence.seq:
                live.receive_snapshot(loaded.snapshot)
            rows = loaded.rows
        await in_slices(check_rows(live.name, rows))
        if rows:
            self._note_foreign(live)
            taken = persistence.seq
            live.receive_stored(rows)
            if persistence.seq > taken:
                self._counts.catch_ups[why] += 1
        return len(rows) >= _ROWS and persistence.seq > before

    def _read_kept(self, live: LiveRoom, head: Head) -> None:
        """Read the updates that are kept beside the log, for others have changed them, or this node has."""
        live.persistence.kept_numbers = head.pending
        if head.pending:
            self._tasks.spawn(self._load_kept(live, head.document_id), f"reading updates of {shown_name(live.name)}")

    async def _load_kept(self, live: LiveRoom, document_id: int) -> None:
        epoch = live.persistence.epoch
        try:
            kept = await self._store.load_pending(document_id)
        except StoreUnavailable:
            live.persistence.kept_numbers, self._look_again = -1, True
            return
        # Not of a room that has left memory meanwhile: nobody would ever forget it.
        if not self._is_stale(live, epoch) and self._rooms.get(live.name) is live:
            live.load_kept(kept)

    def _is_stale(self, live: LiveRoom, epoch: int) -> bool:
        """Tell whether what was read may be of a log that is not there any more; then it is read again later."""
        stale = self.suspended or live.persistence.epoch != epoch
        if stale:
            self._look_again = True
        return stale

    async def until_due(self) -> None:
        """Return when the heads of the log should be looked at again.

        On a steady bus something is heard of all that is written, but of what the command line does.
        """
        rarely = self._bus.steady and not self._others
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RARE_LOOK if rarely else _LOOK):
                await self._asked.wait()
                await asyncio.sleep(_SHORTEST)  # more may be missed at the same time
        self._asked.clear()

    async def poll(self) -> bool:
        """Look for rows and deletions of which nothing was heard: call it when ``until_due`` returns.

        Returns whether anybody may have written since the last look.

        The bus may lose what it was told, and a command line or another server that works on the database may be on
        none. Rooms without members are looked at as well: the next one who comes is to find the document as it is.

        Raises:
            StoreUnavailable: the store cannot be read now.
            StoreWentBack: an older state of it is there, or rows were removed from it by hand.
        """
        if not (await self._store.changed() or self._look_again):
            return False
        self._look_again = False
        try:
            await self._look_at_heads()
        except BaseException:
            self._look_again = True
            raise
        return True

    async def _look_at_heads(self) -> None:
        rooms = [(live, live.persistence.document_id, live.persistence.seq) for live in self._rooms.values()]
        if not rooms:
            await self._store.ping()  # it may have gone back all the same, and lets nobody in before that is noticed
        for begin in range(0, len(rooms), _HEADS):
            portion = rooms[begin : begin + _HEADS]
            heads = await self._store.heads([live.name for live, _, _ in portion])
            if self.suspended:
                self._look_again = True
                return
            for live, document_id, seq in portion:
                head = heads.get(live.name)
                # Not of a room that was opened meanwhile, or has just learned which document it is.
                same = self._rooms.get(live.name) is live and live.persistence.document_id == document_id
                if same and head is not None and document_id is not None and head.renamed_to == document_id:
                    live.refused(renamed(live.name))  # its own commits say nothing of that
                elif not same or live.persistence.uncommitted:  # its own commit is about to tell
                    self._look_again = True
                elif document_id is not None and is_shorter(head, document_id, seq):
                    raise lacks_rows(live)
                elif head is not None:
                    self._compare(live, head)
                    if head.pending != live.persistence.kept_numbers and live.ended is None:
                        self._read_kept(live, head)

    async def look_for_gaps(self) -> None:
        """Count the rows of the logs of all rooms, which nobody but a person can have removed: call it now and then.

        Raises:
            StoreUnavailable: the store cannot be read now.
            StoreWentBack: rows were removed by hand.
        """
        rooms = {
            live.persistence.document_id: live
            for live in self._rooms.values()
            if live.persistence.document_id is not None and not live.persistence.gapped
        }
        ids = list(rooms)
        for begin in range(0, len(ids), _HEADS):
            gaps = await self._store.find_gaps(ids[begin : begin + _HEADS])
            if self.suspended:
                return
            for document_id in gaps:
                live = rooms[document_id]
                if live.persistence.document_id == document_id and live.ended is None:
                    raise StoreWentBack(f"the log of {shown_name(live.name)} lacks rows in the middle")

    def note_others(self, seen: int) -> None:
        """Note how many other servers write to the database, and warn when one of them is not heard on the bus."""
        others = max(0, seen - self._bus.others)
        before, self._others = self._others, others
        if others:
            _rarely.warning(
                "others",
                "%d other server%s to the same database and cannot be heard: edits made there arrive here about a "
                "second late, and presence does not arrive at all",
                others,
                "s write" if others > 1 else " writes",
            )
        elif before:
            _log.info("no server writes to the database any more that cannot be heard")

    def _compare(self, live: LiveRoom, head: Head) -> None:
        persistence = live.persistence
        if head.renamed_to is not None and persistence.document_id is None:
            live.refused(renamed(live.name))
        elif head.deleted or persistence.document_id not in (None, head.document_id):
            live.refused(DocumentDeleted(f"document {live.name!r} is deleted"))
        elif persistence.document_id is None or head.seq > persistence.seq:
            self.read(live, LOOK)


class _Presence(NamedTuple):
    """An awareness update of this node, and whose its visitors are among those in it, by client ID."""

    update: bytes
    people: Mapping[int, Somebody]


def _merge(gathered: Iterable[_Presence]) -> _Presence:
    """Return one with the newest entry of each client."""
    entries: list[Entry] = []
    people: dict[tuple[int, int], Somebody] = {}  # by ID and clock: a client may have gone to a socket meanwhile
    for update, by in gathered:
        own = decode_awareness(update)
        entries += own
        people.update({entry[:2]: by[entry.client] for entry in own if entry.client in by})
    newest = newest_entries(entries)
    known = {entry.client: people[entry[:2]] for entry in newest if entry[:2] in people}
    return _Presence(encode_awareness(newest), known)


def renamed(name: str, new_name: str | None = None) -> DocumentRenamed:
    """Make the error for a document that has another name now; ``new_name`` None if that is not known here."""
    return DocumentRenamed(f"document {name!r} was renamed", new_name=new_name)


def is_shorter(head: Head | None, document_id: int, seq: int) -> bool:
    """Tell whether the log of a document that has had ``seq`` rows has fewer now."""
    return head is None or (head.document_id == document_id and head.seq < seq)


def lacks_rows(live: LiveRoom) -> StoreWentBack:
    """Make the error for a log that is shorter than it was."""
    return StoreWentBack(f"the log of {shown_name(live.name)} lacks rows that were in it")
