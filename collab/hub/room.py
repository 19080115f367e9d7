"""A room that lives on this node: it performs what the room of the engine asks for.

Strategy: everything here happens on the loop and without waiting, but for reading large updates. One turn gives one
delta; it is handed to the journal, then encoded and framed once for each kind of member in the same breath. So the
order of the log is the order in which members saw it. What is durable, who lags and what other nodes say stand in their
own modules; the hub opens, ends and unloads rooms.

A defect, or memory that has run out, in the middle of any of this may leave something in memory that is neither in the
log nor on its way there, and it would count as known from then on. So such a room is ended as it is (``failed``): its
members come back, the document is read from the log, and they bring what the log lacks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeGuard, assert_never
from weakref import ref

from collab.authorship import Note
from collab.cluster.bus import Bus
from collab.engine.agents import Agent
from collab.engine.answers import collect, compare, takes_long
from collab.engine.awareness import LARGE as LARGE_AWARENESS
from collab.engine.budget import Budget
from collab.engine.comebacks import DistantClaim
from collab.engine.document import Document, at_once
from collab.engine.kept import KeptUpdate
from collab.engine.room import (
    Answer,
    Claim,
    Effect,
    Probe,
    Refused,
    Relay,
    Returned,
    Room,
    Send,
    TurnEnd,
    Unkept,
    Unseen,
)
from collab.engine.tags import name_state
from collab.engine.visitors import Person, Somebody, Visitor
from collab.errors import CollabError, InternalError, OutcomeUnknown, UpdateError, is_refusal
from collab.hub.answers import Answered, Answers
from collab.hub.catch_up import CatchUp
from collab.hub.counts import HubCounts
from collab.hub.delivery import Delivery, Shared
from collab.hub.frames import Asked, Frames
from collab.hub.line import LARGE
from collab.hub.loading import is_damaged_pending
from collab.hub.long_frames import LONG, Frame, LongFrame
from collab.hub.member import Encoder, Member
from collab.hub.members import Members
from collab.hub.persistence import Persistence, Stored, settle
from collab.hub.presence_tail import PresenceTail
from collab.hub.readers import Reader
from collab.hub.rounds import Rounds
from collab.hub.shares import Share
from collab.hub.slices import Usage, in_slices, own_turn
from collab.hub.tail import Tail
from collab.hub.tasks import Tasks
from collab.protocol import messages
from collab.protocol.awareness import NULL, AwarenessUpdate, Entry, encode_awareness
from collab.protocol.messages import Message
from collab.protocol.session import Access, Copy, Event, Owner, Session, State
from collab.protocol.sync import EMPTY_STATE_VECTOR, EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.storage.journal import Journal
from collab.storage.producers import NewProducer
from collab.storage.records import Appended, LoadedDocument, LogRow, NewRow, PendingUpdate, Snapshot
from collab.storage.store import Store
from collab.telemetry import RateLimited, get_logger, shown_name
from collab.update import decode_state_vector
from collab.update.parts import Parts

if TYPE_CHECKING:
    from collab.hub.tenants import Account

_log = get_logger("room")
_limited = RateLimited(_log)

# Seconds of pause for each byte of a kept update that was read again and still waits: so much as a tenth of a core for
# whoever sends what it waits for bit by bit.
_PAUSE_FOR_BYTE = 1e-6

# Seconds between what other nodes are told of the claims of one member: as long as they wait for a sign of life.
_CLAIM_SECONDS = 1.0

# Bytes of an update above which it is read in slices. It is work that costs time, not bytes: 28 KB of text are taken in
# 0.03 ms, in one slice; 2 KB can be 500 deletes or 250 clients, which take 1 to 3 ms, and 32 KB were 20 to 60 ms.
SLICED = 2 * 1024


class Follower(Protocol):
    """Somebody who is given what each turn of a room brings; it raises nothing."""

    def follow(self, delta: bytes) -> None:
        """Take a v1 update that was relayed to the members, or is about to be."""
        ...

    def left(self, *, stored: bool) -> None:
        """Hear that the room leaves memory, or has ended; ``stored``: all that it holds is in the log."""
        ...


class MessageHooks(Protocol):
    """Those who may decide on stateless messages (``hub.hooks``); it raises nothing and never waits."""

    @property
    def decides_on_messages(self) -> bool:
        """Whether stateless messages are to be given to ``relay``."""
        ...

    def relay(self, live: LiveRoom, member: Member, message: messages.Stateless) -> None:
        """Take a stateless message of a member; relay it here and to other nodes later, or not."""
        ...


LongMessage = SyncUpdate | SyncStep2 | AwarenessUpdate | SyncStep1
"""A message that may be so large that it is taken in slices."""


class Keeper(Protocol):
    """What a live room needs of the hub that keeps it."""

    journal: Journal
    bus: Bus
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    counts: HubCounts
    slow_seconds: float
    frames_budget: Budget
    pieces_budget: Budget
    min_rate: float
    store: Store
    tasks: Tasks

    @property
    def hooks(self) -> MessageHooks | None:
        """Those who may decide on stateless messages; None if there is nobody."""
        ...

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    def keeps_deleted(self, name: str) -> bool:
        """Tell whether the settings say that a document keeps its deleted content."""
        ...

    def touch(self, live: LiveRoom) -> None:
        """End the room's turn soon."""
        ...

    def idle(self, live: LiveRoom) -> None:
        """Note that the room has no members."""
        ...

    async def measure(self, live: LiveRoom, update: bytes) -> int:
        """Tell how large a document would be with an update, compacted."""
        ...

    async def reduce(self, live: LiveRoom, document: Document, state_vector: bytes) -> bytes:
        """Give what a state vector lacks of a document, without its content."""
        ...

    def evict(self, live: LiveRoom, error: CollabError) -> None:
        """End the room and forget it."""
        ...

    def failed(self, live: LiveRoom, error: BaseException) -> None:
        """End the room and forget it, for a defect has left it in an unknown state."""
        ...

    def committed(self, live: LiveRoom, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Go on after rows were committed, or what is kept beside them."""
        ...

    def hurry_shared(self, live: LiveRoom) -> None:
        """Let what the room has given to the journal be committed sooner if another node has its document open."""
        ...

    def joined(self, live: LiveRoom, member: Member) -> None:
        """Let it be known that a session has joined."""
        ...

    def left(self, live: LiveRoom, member: Member) -> None:
        """Let it be known that a session has ended."""
        ...

    def reads(self, live: LiveRoom, reader: Reader) -> None:
        """Let it be known that somebody reads the document as a stream."""
        ...

    def has_read(self, live: LiveRoom, reader: Reader) -> None:
        """Let it be known that a reader has ended."""
        ...

    def consider_compaction(self, live: LiveRoom) -> None:
        """Make a snapshot if it is time for one."""
        ...

    def overtaken(self, live: LiveRoom) -> None:
        """Read the rows that another node has written."""
        ...

    def went_back(self, live: LiveRoom) -> None:
        """Compare the rooms with a database that lacks rows of this one."""
        ...

    def watch_lagging(self, live: LiveRoom) -> None:
        """Call ``catch_up_lagging`` now and then while a member lags."""
        ...

    def ask_there(self, live: LiveRoom, clients: bytes) -> None:
        """Let other nodes ask clients of theirs to announce themselves."""
        ...

    def publish_claim(self, live: LiveRoom, claim: DistantClaim) -> None:
        """Tell other nodes what a session of this one claims."""
        ...

    def publish_awareness(self, live: LiveRoom, update: bytes, people: Mapping[int, Somebody]) -> None:
        """Tell other nodes what has changed in the awareness states of this node; ``people`` are its visitors."""
        ...

    def publish_stateless(self, live: LiveRoom, message: messages.Stateless) -> None:
        """Pass a stateless message on to other nodes."""
        ...


class AgentFacts(NamedTuple):
    """What an agent of this node may do, and when it came, in Unix seconds."""

    access: Access
    since: float


class VisitorFacts(NamedTuple):
    """What a visitor of this node may do, and when it came, in Unix seconds."""

    access: Access
    since: float


class LiveRoom:
    """One document live on this node.

    Attributes:
        name: the document's name.
        room: the document, the awareness states and the sessions.
        members: the sessions with the ways to their clients.
        agents: the agents of this node; one that another node has taken over is here for a moment.
        readers: those that read it as a stream; they are no sessions.
        visitors: the visitors of this node; one that has gone to another node is here for a moment.
        presence: what those are given who read the presence as a stream; None until somebody does.
        tail: the end of its log, for those; None while there were none.
        persistence: what of it is durable.
        catch_up: the members that lag.
        dirty: its turn is about to end.
        flushed_at: when its last turn ended, in the loop's seconds.
        touched_at: when the first message of the turn was taken, in seconds of ``monotonic``; None while there is none.
        ended: why the room is over; None while it lives.
        ending: its end has begun, and may have failed half-way.
        idle_since: when its last member left, in the loop's seconds.
        compacting, compact_after: whether a snapshot is being made, and before which time none is tried.
        compact_pause: seconds for which none was tried after the last failure; 0 after a success.
        taking_kept: updates that were kept are being read again.
        shared, pieces_budget: what was made for members that are sent it in pieces; what all rooms have of that.
        frames: finished answers that several members may ask for.
        follower: is given what each turn brings; None while nobody wants it.
        account, share: what its tenant uses, and has of the loop's time; None where that is not counted.
        counted: the updates, and the bytes sent, that its tenant's account has; None when the room is over.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_calls",
        "_from_log",
        "_held",
        "_hub",
        "_receiving",
        "_rounds",
        "_producers",
        "_rounds_for_others",
        "_tag",
        "_trying",
        "_visits",
        "account",
        "agents",
        "catch_up",
        "compact_after",
        "compact_pause",
        "compacting",
        "counted",
        "dirty",
        "ended",
        "ending",
        "flushed_at",
        "follower",
        "frames",
        "idle_since",
        "members",
        "name",
        "persistence",
        "pieces_budget",
        "readers",
        "presence",
        "room",
        "share",
        "shared",
        "tail",
        "taking_kept",
        "touched_at",
        "visitors",
    )

    def __init__(self, hub: Keeper, name: str, room: Room, loaded: LoadedDocument | None = None) -> None:
        self._hub = hub
        self.name = name
        self.room = room
        self.members = Members(partial(_slow, ref(self)), partial(_broken, ref(self)), hub.counts)
        self.persistence = Persistence(
            name, loaded, self.members, self, hub.journal, hub.clock, keeps_deleted=hub.keeps_deleted(name)
        )
        self.catch_up = CatchUp(
            room, self.members, self.persistence, hub.now, hub.slow_seconds, hub.min_rate, partial(_deliver, ref(self))
        )
        self.agents: dict[Agent, AgentFacts] = {}
        self.readers: dict[Reader, None] = {}
        self.visitors: dict[Visitor, VisitorFacts] = {}
        self.presence: PresenceTail | None = None
        self.tail: Tail | None = None
        self.ended: CollabError | None = None
        self.ending = False
        self.flushed_at = 0.0
        self.touched_at: float | None = None
        self.dirty = False
        self.compacting = False
        self.compact_after = 0.0
        self.compact_pause = 0.0
        self.idle_since = 0.0
        self.account: Account | None = None
        self.share: Share | None = None
        self.counted: tuple[int, int] | None = (0, 0)
        self.shared = Shared(hub.tasks)
        self.pieces_budget = hub.pieces_budget
        self.taking_kept = False
        self._receiving = 0
        self._from_log = room.document.version  # changes that no client of this room has made
        self._trying: asyncio.Lock | None = None
        self.frames = Frames(hub.frames_budget)
        self.follower: Follower | None = None
        self._visits = 0
        self._calls: list[Stored] | None = None  # edits of the turn so far that no session has sent
        self._producers: tuple[NewProducer, ...] = ()  # of the turn so far
        self._tag = (-1, "")  # the name of the state at a version of the document
        self._held: list[Member] | None = None
        self._answers: Answers | None = None
        self._rounds = Rounds(hub.tasks, hub.now)
        self._rounds_for_others = Rounds(hub.tasks, hub.now, for_others=True)

    # Members

    @property
    def exists(self) -> bool:
        """Whether the document is stored, or will be with what it holds."""
        return self.persistence.document_id is not None or self.room.document.version > 0

    @property
    def occupied(self) -> bool:
        """Whether anybody is here, a session, an agent or a visitor, or something reads or edits the document."""
        return bool(self.room.sessions or self.agents or self.visitors) or self._visits > 0

    @contextlib.contextmanager
    def visited(self) -> Iterator[None]:
        """Keep the room in memory meanwhile, as a session does that says nothing."""
        self._visits += 1
        try:
            yield
        finally:
            self._visits -= 1
            self._note_idle()

    @contextlib.contextmanager
    def read_by(self, reader: Reader) -> Iterator[None]:
        """Have a reader for as long as the block lasts; it is ended with the room."""
        self.readers[reader] = None
        self._hub.reads(self, reader)
        try:
            with self.visited():
                yield
        finally:
            del self.readers[reader]
            self._hub.has_read(self, reader)

    def open_tail(self) -> Tail | None:
        """Give the end of the log, and follow it from now on; None if nothing of the document is stored."""
        document_id = self.persistence.document_id
        if document_id is not None and (self.tail is None or self.tail.document_id != document_id):
            self.tail = Tail(document_id, self.persistence.seq)
        return self.tail

    def _note_idle(self) -> None:
        if not self.occupied and self.ended is None:
            self.idle_since = self._hub.now()
            self._hub.idle(self)

    @property
    def updates(self) -> int:
        """How many updates of clients have held something new."""
        return self.room.document.version - self._from_log

    def join(self, member: Member) -> None:
        """Add a member and begin to sync with it; one that cannot be added is not here."""
        self.members.add(member)
        member.joined_at = self._hub.clock()
        try:
            self.perform(self.room.join(member))
        except BaseException:
            self.leave(member)
            raise
        if member.state is not State.CLOSED:
            self._hub.counts.joins += 1
            self._hub.joined(self, member)

    def leave(self, member: Member) -> None:
        """Remove a member whose connection has ended; a second call does nothing."""
        if member.state is State.CLOSED:
            return
        self.members.remove(member)
        self.catch_up.forget(member)
        self._stop_delivery(member)
        try:
            if effects := self.room.leave(member):
                self.perform(effects)
        except Exception as error:
            self.failed(error)  # the others would see its awareness states for ever
        self._hub.left(self, member)
        self._touch_if_pending()
        self._note_idle()

    # Agents

    def show_agent(self, agent: Agent, facts: AgentFacts, state: bytes, known: int = 0) -> None:
        """Show a state for an agent; see ``Room.show_agent`` for the arguments and what it raises."""
        self.room.show_agent(agent, state, self._hub.clock(), known)
        self.agents[agent] = facts
        self._touch_if_pending()

    def renew_agent(self, agent: Agent) -> None:
        """Let clients see an agent anew that is shown here."""
        self.room.renew_agent(agent, self._hub.clock())
        self._touch_if_pending()

    def renew_agents(self) -> bool:
        """Let all clients see the agents anew, also those that have just come back; tell whether there are any."""
        at, there = self._hub.clock(), False
        for agent in self.agents:
            if agent.shown:
                self.room.renew_agent(agent, at)
                there = True
        self._touch_if_pending()
        return there

    def end_agent(self, agent: Agent) -> None:
        """Let an agent be seen no more; harmless for one that is not here."""
        if self.agents.pop(agent, None) is None:
            return
        self.leave_awareness_of(agent)
        self._note_idle()

    # Visitors

    def visit(self, visitor: Visitor, facts: VisitorFacts, entry: Entry, *, moved: bool = False) -> CollabError | None:
        """Take what a visitor posts; return why it is not shown, if that is so. See ``Room.visit`` for ``moved``.

        One that shows nothing is not here.
        """
        try:
            effects, refused = self.room.visit(visitor, entry, moved=moved)
            self.perform(effects)
        except Exception as error:
            self._recover(error)
            raise
        finally:
            self._touch_if_pending()
        if moved and entry.state != NULL and self.room.awareness.may_be_elsewhere(entry.client):
            self._tell_visited(entry, visitor)  # it says nothing new, but the other node is to show it longer
        if self.room.lacking:
            self._rounds.ask_soon(self)
        if visitor.shown:
            self.visitors[visitor] = facts
        elif self.visitors.pop(visitor, None) is not None:
            self._note_idle()
        return refused

    def end_elsewhere(self, entry: Entry, person: Person) -> None:
        """Take the end of a visitor's client that is not shown here, and tell the others of it: one may show it."""
        if self.room.note_end(entry, person):
            self._tell_visited(entry, person)

    def _tell_visited(self, entry: Entry, person: Person) -> None:
        """Tell other nodes what a visitor has posted, of which this one shows nothing."""
        if self._hub.bus.others:
            people = {entry.client: Somebody(person.author, person.address)}
            self._hub.publish_awareness(self, encode_awareness([entry]), people)

    def may_give(self, claim: DistantClaim) -> bool:
        """Tell whether a visitor of another node may have an ID that is shown here."""
        given, effects = self.room.may_give(claim)
        self.perform(effects)
        self._touch_if_pending()
        return given

    def end_visitor(self, visitor: Visitor) -> None:
        """Let a visitor be seen no more; harmless for one that is not here."""
        if self.visitors.pop(visitor, None) is None:
            return
        self.leave_awareness_of(visitor)
        self._note_idle()

    def open_presence(self) -> PresenceTail:
        """Return what those are given who read the presence as a stream."""
        if self.presence is None:
            self.presence = PresenceTail(self.room.awareness, self._hub.clock())
        return self.presence

    def receive(self, member: Member, message: Message) -> None:
        """Take one message of a member; see ``Room.receive`` for what it raises."""
        room = self.room
        try:
            effects = room.receive(member, message, backlog_full=self._hub.journal.full)
            if effects:
                self.perform(effects)
            if room.pending and not self.dirty:
                self._hub.touch(self)
        except BaseException as error:
            self._recover(error)
            raise

    def is_long(self, message: Message, member: Member) -> TypeGuard[LongMessage]:
        """Tell whether a message is better given to ``receive_in_slices``."""
        if isinstance(message, (SyncUpdate, SyncStep2)):
            return len(message[0]) > SLICED or member.copy is not Copy.CURRENT
        if isinstance(message, SyncStep1):
            document = self.room.document
            if not takes_long(document, message.state_vector):
                return False
            return self.frames.get(Asked(member.encoder, message.state_vector, True), document.version) is None
        return isinstance(message, AwarenessUpdate) and len(message.payload) > LARGE_AWARENESS

    async def settle(self) -> None:
        """Make ready that a member can be told the document's state vector, where many clients have edited."""
        document = self.room.document
        if not document.is_settled:
            await in_slices(document.settle_state_vector())

    async def receive_in_slices(
        self, member: Member, message: LongMessage, usage: Usage | None = None, *, size: int | None = None
    ) -> None:
        """Take a large message, letting the loop go on between the slices; else as ``receive``.

        ``usage`` is what the messages of its client have cost; see ``Room.receive_in_slices`` for ``size``.
        """
        if isinstance(message, SyncStep1):
            await self._answer_in_slices(member, message, usage)
            return
        if isinstance(message, AwarenessUpdate):
            work = self.room.receive_awareness_in_slices(member, message)
        else:
            if member.copy is not Copy.CURRENT:
                message = await self._reduce(member, message, usage)
            work = self.room.receive_in_slices(member, message, backlog_full=self._hub.journal.full, size=size)
        with self._taking():
            self.perform(await in_slices(work, usage))
        await self.settle()

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        """Take something that may be long within this context."""
        try:
            yield
        except BaseException as error:
            # A task that is cancelled between two slices leaves nothing behind: what is taken joins at the end.
            if not isinstance(error, asyncio.CancelledError):
                self._recover(error)
            raise
        finally:
            self._touch_if_pending()

    async def _reduce(
        self, member: Member, message: SyncUpdate | SyncStep2, usage: Usage | None
    ) -> SyncUpdate | SyncStep2:
        """Take away the content of what a client says that has a copy from before a strict reset.

        Its IDs are taken all the same: what its client writes later refers to them. What is not whole is dropped.

        Raises:
            DocumentBusy: this cannot be done now.
        """
        document = self.room.document
        try:
            if not await in_slices(self.room.is_dated(member, message[0]), usage):
                return message
            tried = document.copy()
            known = document.encode_state_vector()
            await in_slices(tried.apply_update_in_slices(message[0]), usage)
        except UpdateError:
            return message  # it is refused when it is taken
        if tried.flush() is None:
            return type(message)(EMPTY_UPDATE)
        return type(message)(await self._hub.reduce(self, tried, known))

    # Edits that no session has sent

    async def receive_edit(
        self,
        update: bytes,
        author: str | None,
        admit: Callable[[], object],
        usage: Usage | None = None,
        *,
        note: Note | None = None,
        server_client: int | None = None,
        size: int | None = None,
    ) -> bool:
        """Take an update that no session has sent, all of it or nothing; return whether anything of it was new.

        A long one is read in slices. The step in which it is taken ends with this call, so what is asked of the room
        next is about the state with it. See ``Room.receive_edit_in_slices`` for the arguments and what it raises.
        """
        work = self.room.receive_edit_in_slices(
            update, author, admit, note=note, server_client=server_client, size=size
        )
        return await self._receive_unsent(update, work, usage)

    async def receive_posted(
        self,
        update: bytes,
        author: str | None,
        admit: Callable[[], object],
        usage: Usage | None = None,
        *,
        own: int | None = None,
        size: int | None = None,
    ) -> bool:
        """Take an update that no session has sent, and keep what of it is not whole; as ``receive_edit`` otherwise.

        See ``Room.receive_posted_in_slices`` for the arguments and what it raises.
        """
        work = self.room.receive_posted_in_slices(update, author, admit, own=own, size=size)
        return await self._receive_unsent(update, work, usage)

    async def _receive_unsent(self, update: bytes, work: Generator[None, None, bool], usage: Usage | None) -> bool:
        with self._taking():
            if len(update) > SLICED:
                return await in_slices(work, usage)
            if usage is not None and (usage.heavy or (self.share is not None and self.share.waits)):
                await own_turn(usage)
            began = perf_counter()
            new = at_once(work)
            if usage is not None:
                now = perf_counter()
                usage.charge(now - began, now)
            return new

    def note_producer(self, producer: NewProducer) -> None:
        """Have the numbers of a producer stored with the turn, in which something of it was taken."""
        if self.room.pending and self.ended is None:
            self._producers += (producer,)

    def new_client_id(self, random: Random) -> int:
        """Make a client ID as yjs does, which the document has never seen."""
        while True:
            client = random.getrandbits(32)
            if client and self.room.document.lacks(client, 0):
                return client

    def when_stored(self) -> Stored:
        """Return a future that is done when everything that was taken until now is in the log.

        It raises what the store has refused it with, and OutcomeUnknown where nobody will hear of its commit.
        """
        call: Stored = asyncio.get_running_loop().create_future()
        if self.ended is not None:
            settle([call], OutcomeUnknown(f"the room of {self.name!r} has ended: {self.ended}"))
        elif not self.room.pending:
            self.persistence.tell_when_stored([call])
        elif self._calls is None:
            self._calls = [call]
        else:
            self._calls.append(call)
        return call

    def name_state(self) -> str:
        """Name the state that the document is in, in one step; ``prepare_name`` makes that a short one."""
        version, tag = self._tag
        if version != self.room.document.version:
            tag = at_once(name_state(self.room.document))
            self._tag = (self.room.document.version, tag)
        return tag

    async def prepare_name(self) -> None:
        """Make ready that the state of the document can be named, letting the loop go on between the slices.

        What is taken meanwhile makes it a longer step again, by what that has changed.
        """
        document = self.room.document
        if self._tag[0] != document.version:
            version = document.version
            tag = await in_slices(name_state(document))
            if document.version == version:
                self._tag = (version, tag)

    async def size_with(self, update: bytes) -> int | None:
        """Tell how large the document would be with an update that was refused for its size; None if that is too large.

        What is overwritten and deleted, by it too, does not count, for no snapshot holds it. One update at a time is
        tried on each document.

        Raises:
            UpdateError: it is malformed.
            DocumentBusy: it cannot be said now.
        """
        if self._trying is None:
            self._trying = asyncio.Lock()
        async with self._trying:
            size = await self._hub.measure(self, update)
        return size if size <= self.room.max_document_bytes else None

    def refuse_unread(self, member: Member, *, answer: bool) -> None:
        """Refuse an edit of a member that may only read, which was too large to be read; ``answer``: a SyncStep2."""
        self.perform(self.room.refuse_unread(member, answer=answer))
        self._touch_if_pending()

    def _recover(self, error: BaseException) -> None:
        """Go on after a defect in taking a message: it harms its sender alone, unless it has left a part of it here."""
        if is_refusal(error) or self.ended is not None:
            return
        if self.room.recover():
            self.dirty = False  # planning its turn may be what has failed; two turns do no harm
            self._hub.touch(self)
        else:
            self.failed(error)

    def _touch_if_pending(self) -> None:
        if self.room.pending and not self.dirty and self.ended is None:
            self._hub.touch(self)

    def ask_again(self, member: Member) -> None:
        """Ask a member for what the document lacks: it may write from now on, and has edited before."""
        self.perform(self.room.ask_again(member))

    # Performing what the room asks for

    def perform(self, effects: Iterable[Effect]) -> None:
        """Do what the room asks for."""
        for effect in effects:
            member = effect.session
            assert isinstance(member, Member)
            match effect:
                case Send(_, message):
                    # One that lags gets all awareness states with its catch-up; of SyncStep1 only one
                    # is ever open. So nothing that a client asks for can make its outbox grow.
                    if member.takes or type(message) is SyncStep1:
                        self.members.send(member, message)
                case Answer(_, state_vector, question):
                    self._answer(member, state_vector, question)
                case Relay(_, message):
                    if (hooks := self._hub.hooks) is not None and hooks.decides_on_messages:
                        hooks.relay(self, member, message)
                    else:
                        self.members.relay(message, member)
                        self._hub.publish_stateless(self, message)
                case Probe():
                    member.client.probe()
                case Claim(_, client, clock, first):
                    self._claim(member, DistantClaim(client, clock, first, member.author, member.address))
                case Returned():
                    self._rounds.ask_soon(self)
                case Unseen(_, error):
                    member.client.note_unseen(member, error)
                case Refused(_, what):
                    member.client.note_refused(member, what)
                case Unkept(_, nbytes):
                    _limited.warning(
                        "unkept",
                        "%d bytes of an update of %s wait for what it lacks, and there is no room to keep them",
                        nbytes,
                        shown_name(self.name),
                    )
                case _:
                    assert_never(effect)

    async def _answer_in_slices(self, member: Member, message: SyncStep1, usage: Usage | None) -> None:
        """Answer a SyncStep1 for which there is much to be compared, letting the loop go on between the slices."""
        await self.settle()
        self.room.check_question(member, message)
        vector, fits, delivery = message.state_vector, False, member.delivery
        frame: Frame = b""
        if delivery is not None:
            fits = await in_slices(delivery.asked(vector), usage)
        if delivery is None or member.delivery is None:
            vector, frame = await self.make_frame(member.encoder, vector, asks=True, usage=usage)
        if member.state is not State.CLOSED:
            fits = fits and member.delivery is delivery
            for effect in self.room.receive(member, SyncStep1(vector)):
                assert isinstance(effect, Answer)
                self._answer(member, vector, effect.question, frame, fits=fits)

    async def make_frame(
        self, encoder: Encoder, state_vector: bytes, *, asks: bool, usage: Usage | None = None
    ) -> Answered:
        """Make the frame with all that ``state_vector`` lacks, letting the loop go on between the slices.

        What is taken meanwhile may be in it, or not.

        Raises:
            DecodeError: the state vector is malformed.
        """
        document = self.room.document
        kept = self.frames.get(Asked(encoder, state_vector, asks), document.version)
        if kept is not None:
            return Answered(state_vector, kept)
        if self._answers is None:
            self._answers = Answers()

        async def make() -> Answered:
            version = document.version
            compared = await in_slices(compare(document, state_vector), usage)
            frame = _framed(encoder, await in_slices(collect(document, compared), usage), asks=asks)
            asked = Asked(encoder, compared.vector, asks)
            if version == document.version and self.frames.get(asked, version) is None:
                self.frames.keep(asked, frame)
            return Answered(compared.vector, frame)

        return await self._answers.get(Asked(encoder, state_vector, asks), make)

    def _answer(
        self,
        member: Member,
        state_vector: bytes,
        question: SyncStep1 | None,
        ready: Frame = b"",
        *,
        fits: bool | None = None,
    ) -> None:
        """Answer a SyncStep1; members that ask the same in one state of the document share the frame.

        ``ready`` is the frame, where it was made already; the state vector was found to be well-formed then. ``fits``
        is what the delivery has said that is under way.
        """
        answer: Frame = b""
        if not member.has_asked:
            member.has_asked = True
            self._hub.counts.returns += state_vector != EMPTY_STATE_VECTOR
        if member.state is State.LAGGING:
            if not ready:
                decode_state_vector(state_vector)  # a malformed one is refused now
            member.since, member.since_seq, member.asks = state_vector, None, True
        elif member.delivery is None:
            answer = ready or self.frame_since(member.encoder, state_vector, asks=True)
        elif at_once(member.delivery.asked(state_vector)) if fits is None else fits:
            member.withholds = not member.withheld
        else:
            # It has less than it had said: nothing that was planned fits.
            self._stop_delivery(member)
            self.deliver(member, state_vector, None, asks=True, whole=True)
        if question is not None:
            self.members.send(member, question)
        if len(answer) > LARGE:
            self.deliver(member, state_vector, None, asks=True)
        elif answer:
            self.members.write(member, answer)

    def frame_since(self, encoder: Encoder, state_vector: bytes, *, asks: bool) -> Frame:
        """Return the frame with all that ``state_vector`` lacks, a SyncStep2 if it was asked for."""
        document = self.room.document
        asked = Asked(encoder, state_vector, asks)
        frame = self.frames.get(asked, document.version)
        if frame is None:
            if document.size > LONG:
                frame = _framed(encoder, document.collect_state_as_update(state_vector), asks=asks)
            else:
                update = document.encode_state_as_update(state_vector)
                frame = encoder.encode(SyncStep2(update) if asks else SyncUpdate(update))
            self.frames.keep(asked, frame)
        return frame

    # Clients that come back

    def note_silent(self, member: Member) -> None:
        """Go on after nothing was heard of a member for a while, though it was probed."""
        self.perform(self.room.note_silent(member))
        self._touch_if_pending()

    def _claim(self, member: Member, claim: DistantClaim) -> None:
        """Tell the other nodes what a member claims, once a second however often its client moves."""
        now = self._hub.now()
        if now >= member.claims_after:
            member.claims_after = now + _CLAIM_SECONDS
            self._hub.publish_claim(self, claim)

    # Members that lack more than their line may take at once

    def deliver(self, member: Member, state_vector: bytes, seq: int | None, *, asks: bool, whole: bool = False) -> None:
        """Bring a member level with what is here, in pieces; see ``Delivery`` for the arguments."""
        if member.state is not State.RECEIVING:
            member.on(Event.RECEIVES)
        if member.since_turn < 0:
            member.since_turn = self.room.awareness.comebacks.turn
        delivery = Delivery(
            self,
            self._hub.store,
            member,
            state_vector,
            seq,
            asks=asks,
            whole=whole,
            patience=self._hub.slow_seconds,
        )
        member.delivery = delivery
        member.withholds = asks and not member.withheld
        member.allowance = -1  # while its line is measured nothing passes: on a fast one all comes in the usual order
        self._receiving += 1
        delivery.task = self._hub.tasks.spawn(delivery.run(), f"sending {shown_name(self.name)} in pieces")

    def send_piece(self, member: Member, frame: Frame, *, last: bool) -> None:
        """Send a member the next piece of what it lacks; after the last one it is level, and gets everything."""
        first, waited = member.allowance < 0, member.outbox.waiting()
        meanwhile, member.meanwhile = member.meanwhile, None
        if last:
            member.on(Event.CAUGHT_UP)
            member.delivery = member.known = None
            member.withholds = False
        else:
            member.allowance = waited + len(frame) + member.outbox.mark
        self.members.write(member, frame)
        for update in (meanwhile or ()) if last else ():
            self.members.write(member, update)  # also if it lags now, as one that was sent all of this
        if first or last:
            # What was kept from it meanwhile; behind a piece also what could not pass it.
            states = self.room.awareness.everything_since(member.since_turn)
            if last:
                member.since_turn = -1
            if states is not None and member.takes:
                self.members.send(member, AwarenessUpdate(states))
            self.persistence.tell_owed(member)

    def delivered(self) -> None:
        """Note that a delivery has ended."""
        self._receiving -= 1
        if not self._receiving:
            self.shared.clear()

    def _stop_delivery(self, member: Member) -> None:
        delivery, member.delivery, member.known, member.meanwhile = member.delivery, None, None, None
        if delivery is not None and delivery.task is not None and delivery.task is not asyncio.current_task():
            delivery.task.cancel()

    def _broadcast_turn(
        self,
        end: TurnEnd,
        delta: bytes,
        absent: Session | None,
        seq: int | None,
        presence: AwarenessUpdate | None = None,
    ) -> bytes:
        """Send what a turn brought to every live member, and ``presence`` behind it unless the delta is a large one.

        ``seq`` is the last row that all of them have been sent, None when that cannot be said.
        """
        if self.follower is not None:
            self.follower.follow(delta)
        if end.before is None:
            return self.members.broadcast(SyncUpdate(delta), absent, presence)
        for member in list(self.members):
            if member.state is State.LIVE:
                self.deliver(member, end.before, seq, asks=False)
            elif member.meanwhile is not None:
                member.meanwhile.append(member.encoder.encode(SyncUpdate(delta)))
        return b""

    # Members that read slowly

    def hold_back(self, member: Member) -> None:
        """Send a member no live frames until it has drained."""
        if self._held is not None:
            self._held.append(member)
            return
        self._hub.counts.held_back += 1
        self.catch_up.lag(member)
        self._hub.watch_lagging(self)

    def _hold_until_sent(self) -> list[Member]:
        """Hold nobody back until a turn has been sent: the document counts it as sent already.

        What is written before it, such as an echo, may be a frame too much for a member, which would miss the turn.
        """
        self._held = []
        return self._held

    def _hold_back_all(self, held: list[Member]) -> None:
        """Hold back those whose outbox has passed its mark while a turn was sent."""
        self._held = None
        for member in held:
            if member.state is State.LIVE:
                self.hold_back(member)

    def catch_up_lagging(self, now: float) -> None:
        """Bring members level whose outbox has drained; end those that take nothing for too long."""
        try:
            for member, error in list(self.catch_up.sweep(now)):
                self.end(member, error)
        except Exception as error:
            self.failed(error)

    # Turns

    def end_turn(self, now: float) -> None:
        """End the room's turn: give what it gathered to the journal and broadcast it. A defect ends the room."""
        self.dirty = False
        self.flushed_at = now
        if self.ended is not None:
            return
        try:
            self._end_turn()
        except Exception as error:
            self.failed(error)

    def _end_turn(self) -> None:
        end = self.room.end_turn()
        producers, self._producers = self._producers, ()
        received, self.touched_at = self.touched_at, None
        presence = None if end.awareness is None else AwarenessUpdate(end.awareness)
        if end.delta is not None:
            # The journal first: what members have been sent is on its way into the log, whatever happens then.
            held = self._hold_until_sent()
            late = self.persistence.echoes_late(end, end.delta)
            self.persistence.store(end, producers, received)
            if self._hub.bus.others:
                self._hub.hurry_shared(self)
            echo = self._broadcast_turn(end, end.delta, end.author if late else None, self.persistence.seq, presence)
            if end.before is None:
                presence = None  # it is sent
            if echo:
                self.persistence.echo_later(end, echo)
            self._hold_back_all(held)
            counts = self._hub.counts
            counts.turn_bytes.note(len(end.delta))
            if received is not None:
                counts.propagations.note(self._hub.monotonic() - received)
        elif end.kept is not None:
            self.persistence.store(end, producers, received)
        elif end.acks:
            self.persistence.acknowledge(end.acks)
        if self._calls is not None:
            self.persistence.tell_when_stored(self._calls)
            self._calls = None
        if presence is not None:
            self.members.broadcast(presence)
        if end.awareness is not None:
            if self.presence is not None:
                self.presence.publish(end.awareness)
            if end.own_awareness is not None and self._hub.bus.others:
                self._hub.publish_awareness(self, end.own_awareness, end.people)
        if end.effects:
            self.perform(end.effects)
        if self.room.document.waiting and end.delta is not None:
            self._take_waiting()
        if self.room.kept is not None:
            self.take_kept()

    # What the journal says (``persistence.Listener``)

    def committed(self, outcome: Appended, rows: tuple[NewRow, ...]) -> None:
        """Tell the hub, and readers, that rows are durable."""
        if self.tail is not None and outcome.last_seq == self.persistence.seq:  # else the log is read, up to there too
            self.tail.add(outcome.first_seq, rows, keep=bool(self.readers))
        self._hub.committed(self, outcome, rows)

    def overtaken(self) -> None:
        """Have the rows read that another node has written."""
        self._hub.overtaken(self)

    def went_back(self) -> None:
        """Have the rooms compared with the database, which lacks rows of this one."""
        self._hub.went_back(self)

    def refused(self, error: CollabError) -> None:
        """End the room: the document is gone, or the store will not take what its members were sent."""
        if self.ended is None:
            self._hub.evict(self, error)

    def failed(self, error: BaseException) -> None:
        """End the room: a defect has left it in a state that nobody knows."""
        if self.ended is None:
            self._hub.failed(self, error)

    # What other nodes say

    def receive_stored(self, rows: list[LogRow]) -> None:
        """Take rows of the log, and relay what they hold; those that memory holds already are passed over."""
        with self._alone():
            persistence, counts = self.persistence, self._hub.counts
            seq = persistence.seq
            written: list[float] = []
            for row in rows:
                if row.seq > persistence.seq + 1:
                    break
                if row.seq > persistence.seq:
                    new = self._receive_from_log(row.data, row.author)
                    written.append(row.at)
                    persistence.note_stored(row.seq, len(row.data) if new else 0)
            self._relay_stored(seq)
            counts.rows_of_others += len(written)
            now = self._hub.clock()
            for at in written:
                counts.node_propagations.note(max(0.0, now - at))  # the clock of another machine may be ahead
            if self.tail is not None and rows:
                known = rows[: max(0, persistence.seq + 1 - rows[0].seq)]
                self.tail.add(rows[0].seq, known, keep=bool(self.readers))
                self.tail.moved(persistence.seq)
        self._hub.consider_compaction(self)

    def receive_snapshot(self, snapshot: Snapshot) -> None:
        """Take a snapshot in the place of rows that the log has no more, and relay what it holds."""
        with self._alone():
            seq = self.persistence.seq
            self._receive_from_log(snapshot.data, None)
            self.persistence.note_snapshot(snapshot.seq, len(snapshot.data))
            self._relay_stored(seq)
            if self.tail is not None:
                self.tail.moved(self.persistence.seq)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Take what is in the log already: the turn before ends first, and a defect ends the room."""
        now = self._hub.now()
        if self.room.gathered or self._calls is not None or self._producers:
            self.end_turn(now)
        self.flushed_at = now  # what comes is sent at once, and counts as a turn
        try:
            yield
        except BaseException as error:
            if not is_refusal(error):
                self.failed(error)
            raise

    def _relay_stored(self, seq: int | None) -> None:
        end = self.room.end_turn()
        if end.delta is not None:
            held = self._hold_until_sent()
            self.persistence.echo_now()
            self._broadcast_turn(end, end.delta, None, seq)
            self._hold_back_all(held)
        self.perform(end.effects)
        if self.room.document.waiting and end.delta is not None:
            self._take_waiting()
        if self.room.kept is not None:
            self.take_kept()

    def _receive_from_log(self, update: bytes, author: str | None) -> bool:
        """Take what no client has sent; return whether it held anything new."""
        version = self.room.document.version
        new = self.room.receive_stored(update, author)
        self._from_log += self.room.document.version - version
        return new

    def _take_waiting(self) -> None:
        """Take rows of the log that have waited, now that something has come."""
        version = self.room.document.version
        new = self.room.receive_waiting()
        self._from_log += self.room.document.version - version
        if new:
            self._relay_stored(None)  # these rows have low numbers, and their members lack them all the same
        if not self.room.document.waiting:
            _log.warning("the log of %s is whole again", shown_name(self.name))

    # Updates that are kept until what they wait for has come

    def load_kept(self, updates: Iterable[PendingUpdate]) -> None:
        """Keep what the store keeps beside the log; what is damaged is left out, and stays in the store."""
        found = list(updates)
        whole = [update for update in found if not is_damaged_pending(update)]
        if len(whole) < len(found):
            _limited.error(
                "damaged kept",
                "%d updates that wait for what %s lacks are damaged and left out. Look with: collab documents verify",
                len(found) - len(whole),
                shown_name(self.name),
            )
        if whole:
            self.room.load_kept([KeptUpdate.stored(update.key, update.data, update.author) for update in whole])
            self.take_kept()

    def take_kept(self) -> None:
        """Take kept updates for which what they waited for has come, if there are any; call it after a turn."""
        if not self.taking_kept and self.ended is None and self.room.find_kept() is not None:
            work = self._take_kept()
            try:
                self._hub.tasks.spawn(work, f"taking what was kept of {shown_name(self.name)}")
                self.taking_kept = True
            except BaseException:
                work.close()
                raise

    async def _take_kept(self) -> None:
        try:
            while self.ended is None and (kept := self.room.find_kept()) is not None:
                try:
                    whole = await in_slices(self.room.receive_kept(kept))
                except UpdateError as error:
                    _limited.error("kept", "an update that %s kept is left out: %s", shown_name(self.name), error)
                    continue
                self._touch_if_pending()
                await asyncio.sleep(0 if whole else len(kept.data) * _PAUSE_FOR_BYTE)
        except Exception as error:
            self._recover(error)
            raise
        finally:
            self.taking_kept = False

    def receive_log(self, log: Document, loaded: LoadedDocument | None) -> None:
        """Take what the log holds and memory does not, and number rows by the log as it is now.

        ``log`` is the document that it makes, ``loaded`` what was read of it.
        """
        with self._alone():
            document = self.room.document
            document.waiting = log.waiting
            self.load_kept(() if loaded is None else loaded.pending)
            self._receive_from_log(log.encode_state_as_update(document.encode_state_vector()), None)
            self.persistence.renumber(loaded)
            for member in self.members:
                member.since_seq = None
                if member.delivery is not None:
                    member.delivery.renumbered()
            self._relay_stored(None)
            if self.tail is not None:
                self.tail.renumbered(self.persistence.document_id, self.persistence.seq)

    def receive_awareness_of(
        self, node: Owner, update: bytes, people: Mapping[int, Somebody] | None = None, *, whole: bool = False
    ) -> None:
        """Take awareness states of another node's sessions, all of them if ``whole``; ``people`` as for the room.

        Raises:
            DecodeError: it is malformed, or a state in it, which was left out.
        """
        try:
            effects, refused = self.room.receive_awareness_of(node, update, people, whole=whole)
            self.perform(effects)
        finally:
            self._touch_if_pending()
        if self.room.lacking:
            self._rounds.ask_soon(self)
        if refused is not None:
            raise refused

    def receive_claim(self, claim: DistantClaim) -> None:
        """Take what a session of another node claims."""
        self.perform(self.room.receive_claim(claim))
        self._touch_if_pending()

    def receive_asked(self, clients: bytes) -> None:
        """Take which clients another node asks to announce themselves; raises ``DecodeError``."""
        self.room.receive_asked(clients)
        if self.room.asked:
            self._rounds_for_others.ask_soon(self)

    def ask_there(self, clients: bytes) -> None:
        """Let other nodes ask clients of theirs to announce themselves."""
        self._hub.ask_there(self, clients)

    def leave_awareness_of(self, node: Owner) -> None:
        """Remove the awareness states of another node's sessions, or of an agent."""
        self.perform(self.room.leave_awareness(node))
        self._touch_if_pending()

    # Ends

    def end(self, member: Member, error: CollabError) -> None:
        """End one session and say why; the others learn of its awareness states in the next turn."""
        self.leave(member)
        member.client.end(member, error)

    def end_all(self, error: CollabError) -> None:
        """End the room: every session is told why, and nothing more is taken.

        A session that cannot be told costs none of the others.
        """
        self.ended = error
        for member in list(self.members):
            try:
                self.end(member, error)
            except Exception as defect:
                _limited.error("end", "a session of %s did not end well", shown_name(self.name), exc_info=defect)
        for reader in list(self.readers):
            try:
                reader.end(error)
            except Exception as defect:
                _limited.error("end", "a reader of %s did not end well", shown_name(self.name), exc_info=defect)
        try:
            if self._calls is not None:
                settle(self._calls, OutcomeUnknown(f"the room of {self.name!r} has ended: {error}"))
                self._calls = None
            for owner in (*self.agents, *self.visitors):
                self.room.leave_awareness(owner)
            # No turn ends any more, and other nodes must not show for ever who was here.
            _, own = self.room.awareness.flush()
            if own is not None and self._hub.bus.others:
                self._hub.publish_awareness(self, own, self.room.awareness.take_told())
        except Exception as defect:
            _limited.error("end", "awareness of %s did not end well", shown_name(self.name), exc_info=defect)


def _framed(encoder: Encoder, update: Parts, *, asks: bool) -> Frame:
    """Frame an update, a SyncStep2 if it was asked for; a long one is put together as it leaves."""
    if update.nbytes <= LONG:
        whole = update.join()
        return encoder.encode(SyncStep2(whole) if asks else SyncUpdate(whole))
    return LongFrame(encoder.encode_head(SyncStep2 if asks else SyncUpdate, update.nbytes), update)


def _deliver(live: ref[LiveRoom], member: Member, state_vector: bytes, seq: int | None, asks: bool) -> None:
    room = live()  # weak as in ``_slow``
    if room is not None:
        room.deliver(member, state_vector, seq, asks=asks)


def _slow(live: ref[LiveRoom], member: Member) -> None:
    # Weak, because the room holds its members: without a cycle it leaves memory at once.
    room = live()
    if room is not None:
        room.hold_back(member)


def _broken(live: ref[LiveRoom], member: Member, error: Exception) -> None:
    room = live()
    if room is not None:
        _limited.error("write", "writing to a session of %s failed", shown_name(room.name), exc_info=error)
        room.end(member, InternalError("writing has failed"))
