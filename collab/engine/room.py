"""One document with the sessions that are on it: messages in, effects out, one turn at a time.

Strategy: every rule of a room is decided here, for small updates and for large ones by the same code.
``receive`` changes the document and the awareness states at once and returns effects for what is to be
done at once; what concerns everybody gathers until ``end_turn``, which gives one delta and one awareness
update for the room. The room knows no clock, no socket and no wire protocol: the hub performs the
effects and decides when a turn ends.

Asking back, without loops and without loss (an update that refers to what the room lacks): the
whole part is taken, the rest is kept beside the document (``kept.py``) until what it waits for has come, and

- while a SyncStep1 to that client is unanswered, nothing is asked: frames are in order, so the
  coming SyncStep2 contains the rest;
- else it is asked once, by a SyncStep1;
- a SyncStep2 that is not whole is never answered by a question: a client can hold pending structs
  whose author is gone, and asking would never end. What blocks it is remembered, and asked for
  when the room passes it.

Every SyncStep2 and SyncUpdate of a client whose protocol acknowledges gets one acknowledgement, in the order
in which they came: saved once all of it is durable, what is kept included; refused if there was no room to
keep the rest of a SyncStep2. So nothing waits for what may never come. Only a session that has sent updates which
nobody has read, or which there was no room to keep, is told nothing before the SyncStep2 that holds them
(``Session.held``).

Whose a client ID is (docs/decisions/0024): the user of the session whose Update has used it first. A SyncStep2, what
was kept and what other nodes say decide nothing, and of the sessions only those of a known user do. The store has the
last word, so nothing is read of it for that.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, assert_never

from collab.authorship import FirstUse, Note
from collab.engine.agents import Agent
from collab.engine.awareness import Ask, AwarenessStates, Idle, Taken
from collab.engine.budget import Budget
from collab.engine.comebacks import DistantClaim
from collab.engine.departed import Departed
from collab.engine.document import NEW, Applied, Document, Row, at_once
from collab.engine.kept import NODE_BYTES, KeptChange, KeptUpdate, KeptUpdates, covers
from collab.engine.visitors import Person, Somebody, Visitor
from collab.errors import (
    CollabError,
    DecodeError,
    DocumentTooLarge,
    LimitExceeded,
    StoreUnavailable,
    UpdateError,
    UpdateIncomplete,
)
from collab.protocol.awareness import AwarenessUpdate, Entry, QueryAwareness, encode_awareness
from collab.protocol.messages import LocalVersion, Message, PermissionDenied, Stateless, SyncStatus, notice
from collab.protocol.session import Access, Copy, Event, Owner, Session, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.versions import Versions
from collab.update.reset import has_marker

# Acknowledgements that may wait for the SyncStep2 that a session was asked for. Only a client that leaves it out comes
# near.
_MAX_HELD = 10_000

# Bytes that a client that may only read can say beyond all that the document holds: it may have a copy with edits that
# were never taken. An update with any of them is refused anyway, so nothing larger is read.
_STRANGE_VECTOR = 256 * 1024
_STRANGE_UPDATE = 64 * 1024
MAX_KEPT_BYTES: Final = 1024 * 1024
"""Bytes of updates that wait for what their document lacks, if nothing else is said."""

_MOST_FIRST_USES: Final = 4096
"""Client IDs of which a room remembers whose they are: some 200 bytes each. Past that the oldest are forgotten; should
their clients come back, the store is told once more."""

READ_ONLY = "read-only: this change was not taken"

READ_ONLY_NOW = "read-only"

UNSEEN = "presence not shown"


def presence_notice(session: Session, reason: str) -> Message:
    """Make what tells a client that its presence is not shown, by a message that ends nothing in its protocol.

    Hocuspocus providers hand a stateless message to their application, and give up a document upon PermissionDenied;
    y-websocket clients write that into the console and go on.
    """
    if session.stateless:
        return notice(UNSEEN, reason)
    return PermissionDenied(f"{UNSEEN}: {reason}")


def read_only_notice(session: Session, reason: str) -> Message:
    """Make what tells a client why it may only read, in the same way."""
    return notice(READ_ONLY_NOW, reason) if session.stateless else PermissionDenied(reason)


class Send(NamedTuple):
    """Send a message to one session."""

    session: Session
    message: Message


class Answer(NamedTuple):
    """Answer a SyncStep1 by a SyncStep2 with what ``state_vector`` (v1 bytes) lacks, ``question`` before it.

    Sessions that ask the same of one state of the document can share the answer. A state vector that cannot be
    read is the session's fault, as a message that ``receive`` refuses.
    """

    session: Session
    state_vector: bytes
    question: SyncStep1 | None


class Relay(NamedTuple):
    """Send a stateless message to every session whose protocol has them, but not to the one that has sent it."""

    session: Session
    message: Stateless


class Probe(NamedTuple):
    """Find out soon whether a session's connection still lives: another one claims its state."""

    session: Session


class Claim(NamedTuple):
    """Tell the other nodes that a session claims its client's ID, which one of them shows, with this clock.

    Not for each state of it: its client may move ten times a second. ``first``: it shows nothing else yet.
    """

    session: Session
    client: int
    clock: int
    first: bool


class Returned(NamedTuple):
    """Note that a session's client has come back: perform what ``Room.begin_round`` gives soon, but not too often."""

    session: Session


class Unseen(NamedTuple):
    """Note that a session's presence is not shown, and why; its client is told by a message."""

    session: Session
    error: CollabError


class Refused(NamedTuple):
    """Note that a session which may only read has tried to send ``what``; its client is told by other means."""

    session: Session
    what: str


class Unkept(NamedTuple):
    """Note that of an update ``nbytes`` are lost which wait for what the room lacks: there was no room to keep them."""

    session: Session
    nbytes: int


Effect = Send | Answer | Relay | Probe | Claim | Returned | Unseen | Refused | Unkept


def announce_again(session: Session, entries: Sequence[Entry]) -> Sequence[Effect]:
    """Make a client announce itself anew, by ``null`` for its own ID."""
    told = Send(session, AwarenessUpdate(encode_awareness(entries)))
    if not session.quiet:
        return (told,)
    session.queried = True
    return (told, Send(session, QueryAwareness()))


class Ack(NamedTuple):
    """What became of one update: it was saved (or said nothing new), or it was refused.

    With a ``version`` it is about all updates of a client that counts them itself, and of no single one.
    """

    session: Session
    saved: bool
    version: int | None = None


class Round(NamedTuple):
    """What asks idle clients to announce themselves.

    Attributes:
        here: what is to be done for those of this node.
        there: what the other nodes have to be told (``Room.receive_asked``); None when there is nothing.
    """

    here: Iterator[Effect]
    there: bytes | None


def _round(idle: Idle) -> Round:
    return Round(
        (effect for session, entry in idle.here for effect in announce_again(session, (entry,))),
        idle.there,
    )


class TurnEnd(NamedTuple):
    """What one turn leaves to be done.

    Attributes:
        delta: a v1 update for every session, the authors' included; None when nothing changed.
        rows: the same content for the journal, cut where the author changes.
        acks: what to tell sessions once the rows, and all rows before them, are durable: one
            an update, in the order in which a session's updates came.
        awareness: an awareness update for every session, or None.
        own_awareness: what of it other nodes have to hear: the states of this node's sessions, or None.
        effects: questions to sessions whose earlier answer had to wait.
        author: the session that has sent all of ``delta``; None when nothing changed or several took part.
        before: the state vector before the turn, if ``delta`` is large; else None.
        people: whose visitors of this node have changed states in ``own_awareness``, by client ID.
        kept: what changes among the updates that are kept, to be stored together with the rows; None if nothing does.
    """

    delta: bytes | None
    rows: tuple[Row, ...]
    acks: list[Ack]
    awareness: bytes | None
    own_awareness: bytes | None
    effects: Sequence[Effect]
    author: Session | None
    before: bytes | None = None
    kept: KeptChange | None = None
    people: Mapping[int, Somebody] = MappingProxyType({})


_SEVERAL = Session()


class Room:
    """A document live on this node, with its participants.

    Args:
        document: the document, already loaded.
        max_document_bytes: the encoded size past which updates with anything new are refused, unless they are known to
            fit.
        max_awareness_bytes: how many bytes of awareness state one session may own.
        max_awareness_ids: how many client IDs one session may own.
        departed: the client IDs that were here when the room was in memory before.
        fresh: nobody knows who was here before.
        max_kept_bytes: how much of updates that are not whole is kept.
        kept_budget: what all rooms of the node keep of them.

    Attributes:
        document, awareness: what is here; changed by the room alone.
        kept: updates that wait for what the document lacks; None while there was none.
        max_document_bytes: see above.
        sessions: who is here, in the order in which they joined.
        pending: whether ``end_turn`` has anything to give.
    """

    __slots__ = (
        "_acks",
        "_author",
        "_blocked",
        "_first_uses",
        "_kept_budget",
        "_max_kept_bytes",
        "awareness",
        "document",
        "kept",
        "max_document_bytes",
        "pending",
        "sessions",
    )

    def __init__(
        self,
        document: Document,
        *,
        max_document_bytes: int,
        max_awareness_bytes: int,
        max_awareness_ids: int,
        departed: Departed | None = None,
        fresh: bool = False,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        kept_budget: Budget | None = None,
    ) -> None:
        self.document = document
        self.awareness = AwarenessStates(
            max_bytes=max_awareness_bytes, max_ids=max_awareness_ids, departed=departed, fresh=fresh
        )
        self.sessions: dict[Session, None] = {}
        self.max_document_bytes = max_document_bytes
        self._max_kept_bytes = max_kept_bytes
        self._kept_budget = Budget(NODE_BYTES) if kept_budget is None else kept_budget
        self.kept: KeptUpdates | None = None
        self._acks: list[Ack] = []
        self._blocked: dict[Session, None] = {}
        self._author: Session | None = None  # of the turn so far
        self._first_uses: dict[int, FirstUse] = {}
        self.pending = False

    def join(self, session: Session) -> list[Effect]:
        """Add a session; it is asked for what the room lacks and told who is here.

        The server's own SyncStep1 is what brings a client's offline edits in: y-websocket queues
        nothing while it is offline.
        """
        session.on(Event.OPENED)
        self.sessions[session] = None
        effects: list[Effect] = [Send(session, self._ask(session))]
        states = self.awareness.everything()
        if states is not None:
            effects.append(Send(session, AwarenessUpdate(states)))
        return effects

    def leave(self, session: Session) -> Sequence[Effect]:
        """Remove a session; the next turn tells the others which awareness states went with it."""
        session.on(Event.ENDED)
        self.sessions.pop(session, None)
        self._blocked.pop(session, None)
        return self.leave_awareness(session)

    # Messages of sessions

    def receive(self, session: Session, message: Message, *, backlog_full: bool = False) -> Sequence[Effect]:
        """Take one message of a session.

        An update above some 2 KB is better given to ``receive_in_slices``.

        Args:
            session: the one that has sent it.
            message: the message.
            backlog_full: nothing new can be kept now, because too much waits for the store.

        Returns:
            What the message asks for at once. What concerns the room waits for ``end_turn``.

        A malformed update of a session that ``acknowledges`` is refused by its acknowledgement and raises nothing. Nor
        does trouble with awareness, which costs presence only.

        Raises:
            DecodeError: the message, or the update in it, is malformed; nothing of it was taken.
            LimitExceeded: it would pass a bound; nothing of it was taken.
            StoreUnavailable: it holds something new, and ``backlog_full``.
        """
        if isinstance(message, (SyncUpdate, SyncStep2)):
            update = message[0]
            if backlog_full or session.access is Access.READ or session.known is not None or self.is_full(update):
                return at_once(self.receive_in_slices(session, message, backlog_full=backlog_full))
            answer = type(message) is SyncStep2
            try:
                taken = self.document.apply_update(update, session.author)
            except UpdateError as error:
                return self._refuse(session, error, answer=answer)
            if taken is NEW and not answer and session.held is None:  # the usual case
                if session.introduces:
                    self._note_first_use(session)
                if session.acknowledges:
                    self._acks.append(Ack(session, True))
                if self._author is not session:
                    self._author = session if self._author is None else _SEVERAL
                self.pending = True
                return ()
            return self._taken(session, taken, answer=answer)
        if isinstance(message, AwarenessUpdate):
            return self._receive_awareness(session, message.payload)
        match message:
            case SyncStep1(state_vector):
                self.note_copy(session, state_vector)
                # A Hocuspocus provider that syncs again (``forceSync``) counts itself unsaved until what it answers
                # to a SyncStep1 of the server is acknowledged.
                question = self._ask(session) if session.acknowledges and not session.unanswered else None
                return (Answer(session, state_vector, question),)
            case QueryAwareness():
                states = self.awareness.everything()
                return () if states is None else (Send(session, AwarenessUpdate(states)),)
            case Stateless():
                if session.access is Access.READ:
                    return (Refused(session, "a stateless message"),)
                return (Relay(session, message),)
            case LocalVersion(version):
                versions = session.versions = session.versions or Versions()
                told = versions.ask(version)
                self._confirm_version(session, versions)
                return () if told is None else (Send(session, LocalVersion(told)),)
            case SyncStatus() | PermissionDenied():
                return ()  # these two are only for clients, and no client's frame is decoded as one of them
            case _:
                assert_never(message)

    def note_copy(self, session: Session, state_vector: bytes) -> None:
        """Note, from what a session says that its client has, whether that is an old copy (``Copy``)."""
        strict = self.document.strict
        if strict is not None:
            session.copy = Copy.CURRENT if has_marker(state_vector, strict) else Copy.OLD

    def is_dated(self, session: Session, update: bytes) -> Generator[None, None, bool]:
        """Tell whether an update of a session comes from a copy from before a strict reset, so it is to be reduced.

        A generator that yields about every millisecond. Raises UpdateError when it is malformed.
        """
        if session.copy is Copy.CURRENT or session.access is Access.READ:
            return False
        return session.copy is Copy.OLD or (yield from self.document.repeats_replaced(update))

    def check_question(self, session: Session, message: SyncStep1) -> None:
        """Refuse a SyncStep1 of a session that may only read, if it says more than a copy of the document can.

        A client that may write can hold edits of any number of client IDs that nobody else has seen.

        Raises:
            LimitExceeded.
        """
        size, own = len(message.state_vector), len(self.document.encode_state_vector())
        if session.access is Access.READ and size > own + _STRANGE_VECTOR:
            raise LimitExceeded(
                f"state vector of {size} bytes of a client that may only read, where the document's has {own}",
                public="this state vector says more than the document has",
            )

    def receive_in_slices(
        self, session: Session, message: SyncUpdate | SyncStep2, *, backlog_full: bool = False, size: int | None = None
    ) -> Generator[None, None, Sequence[Effect]]:
        """Take an update as ``receive`` does, in a generator that yields about every millisecond.

        ``size`` is known to be how large the document is with it, when what is overwritten and deleted is gone; it was
        found to be small enough.

        Other messages may be taken, turns ended and the session closed between the slices; what is taken joins the
        turn at once, at the end.
        """
        update, answer = message[0], type(message) is SyncStep2
        document, reads = self.document, session.access is Access.READ
        if reads and len(update) > document.size + _STRANGE_UPDATE:
            return self._refuse_reader(session, answer=answer, known=False)
        try:
            full = size is None and self.is_full(update)
            if (told := session.known) is not None and (yield from document.repeats(update, told)):
                session.strange = True
            if reads or backlog_full or full:
                known = yield from document.contains_update_in_slices(update)
                if session.state is State.CLOSED:
                    return ()
                if reads:
                    return self._refuse_reader(session, answer=answer, known=known)
                if not known and backlog_full:
                    raise StoreUnavailable("the backlog of edits that wait for the store is full")
                if not known:
                    # Raised for every protocol: what people write from here on would build on what is not taken.
                    held = document.size - document.garbage
                    raise DocumentTooLarge(f"document of {held} bytes, update of {len(update)} bytes")
            taken = yield from document.apply_update_in_slices(update, session.author)
            if size is not None:
                document.garbage = max(0, document.size - size)
        except UpdateError as error:
            return () if session.state is State.CLOSED else self._refuse(session, error, answer=answer)
        return self._taken(session, taken, answer=answer)

    def receive_edit_in_slices(
        self,
        update: bytes,
        author: str | None,
        admit: Callable[[], object],
        *,
        note: Note | None = None,
        server_client: int | None = None,
        size: int | None = None,
    ) -> Generator[None, None, bool]:
        """Take an update that no session has sent, all of it or nothing; return whether anything of it was new.

        A generator that yields about every millisecond. Nothing of the update is kept beside the document: whoever has
        sent it hears what is missing, and can send that.

        Args:
            update: a v1 update.
            author: who has sent it, as the journal records it.
            admit: called where something is new, in the step in which it is taken; refuses it by raising.
            note: what the edit says of itself beside its author.
            server_client: the client ID, if it is one of the server's own, under which the edits of several are made.
            size: as for ``receive_in_slices``.

        Raises:
            UpdateError, UpdateIncomplete, DocumentTooLarge, and what ``admit`` raises; nothing was taken then.
        """
        document = self.document

        def check() -> None:
            if size is None and self.is_full(update):
                held = document.size - document.garbage
                raise DocumentTooLarge(f"document of {held} bytes, update of {len(update)} bytes")
            admit()

        taken = yield from document.apply_update_in_slices(update, author, note, admit=check)
        if taken.new:
            if server_client is not None:
                self.note_server_client(server_client)
            if size is not None:
                document.garbage = max(0, document.size - size)
            self.pending = True
            self._author = _SEVERAL
        return taken.new

    def receive_posted_in_slices(
        self,
        update: bytes,
        author: str | None,
        admit: Callable[[], object],
        *,
        own: int | None = None,
        size: int | None = None,
    ) -> Generator[None, None, bool]:
        """Take an update of a client that posts each once and hears of nothing that the document lacks.

        As ``receive_edit_in_slices``, but what refers to what the document lacks is kept beside it, as on a socket: the
        client may have lost an earlier update, and sends those that follow all the same. Whether anything of it was
        new, or is kept from now on, is returned.

        Args:
            update, author, admit, size: as for ``receive_edit_in_slices``.
            own: the client ID of the one who posts, where that is known.

        Raises:
            UpdateIncomplete: the whole part was taken, and there is no room to keep the rest.
            UpdateError, DocumentTooLarge, and what ``admit`` raises; nothing was taken then.
        """
        document = self.document

        def check() -> None:
            if size is None and self.is_full(update):
                held = document.size - document.garbage
                raise DocumentTooLarge(f"document of {held} bytes, update of {len(update)} bytes")
            admit()

        taken = yield from document.apply_update_in_slices(update, author, admit=check, partly=True)
        if taken.new:
            if size is not None:
                document.garbage = max(0, document.size - size)
            self.pending = True
            self._author = _SEVERAL
            # As in ``_taken``: of an update that is not whole others may have gone before in the turn.
            if taken is NEW and own is not None and author is not None:
                self._note_own_use(own, author)
        if taken.rest is None:
            return taken.new
        kept = self._open_kept()
        saved = kept.add(taken.rest, author)
        kept.note_clocks(taken.rest.missing, document.lacks)
        self.pending = self.pending or kept.changed
        if not saved:
            raise UpdateIncomplete("there is no room to keep the rest of an update", missing=taken.missing)
        return taken.new or kept.changed

    def _note_own_use(self, client: int, author: str) -> None:
        """Note that a client ID is a user's, if the update that was just taken is the first to use it."""
        clock = self.document.find_used(client)
        if (
            clock is not None
            and client not in self._first_uses
            and not self.awareness.is_of_another_user(client, author)
        ):
            self._decide(FirstUse(client, clock, author))

    def is_full(self, update: bytes) -> bool:
        """Tell whether the document may become too large by an update; see ``Document.garbage`` for what counts."""
        return self.document.size - self.document.garbage + len(update) > self.max_document_bytes

    def refuse_unread(self, session: Session, *, answer: bool) -> Sequence[Effect]:
        """Refuse an edit of a session that may only read, which was too large to be read; ``answer``: a SyncStep2."""
        return self._refuse_reader(session, answer=answer, known=False)

    def recover(self) -> bool:
        """Go on after a defect in taking a message; return False if part of an update was taken, so that it cannot.

        What was taken as a whole goes with the next turn, whatever else of its message failed.
        """
        self.pending = True
        return not self.document.torn

    def receive_awareness_in_slices(
        self, session: Session, message: AwarenessUpdate
    ) -> Generator[None, None, Sequence[Effect]]:
        """Take an awareness update of more than ``awareness.LARGE`` bytes, as ``receive_in_slices`` takes an edit."""
        try:
            taken = yield from self.awareness.apply_in_slices(session, message.payload)
        except (DecodeError, LimitExceeded) as error:
            return () if session.state is State.CLOSED else self._hide(session, error)
        return () if session.state is State.CLOSED else self._after_awareness(session, taken)

    def _receive_awareness(self, session: Session, payload: bytes) -> Sequence[Effect]:
        try:
            taken = self.awareness.apply(session, payload)
        except (DecodeError, LimitExceeded) as error:
            return self._hide(session, error)
        return self._after_awareness(session, taken)

    def _after_awareness(self, session: Session, taken: Taken) -> Sequence[Effect]:
        """Go on after an awareness update was taken."""
        back, contested, refused, _ = taken
        if self.awareness.changed:
            self.pending = True
        effects: list[Effect] = []
        for owner in contested:
            if isinstance(owner, Session):
                effects.append(Probe(owner))
            elif session.own is not None and (claim := self.awareness.comebacks.find_claim(session.own)) is not None:
                effects.append(Claim(claim.session, session.own, claim.clock, not claim.session.awareness))
        if back:
            effects += announce_again(session, back)
        if self.awareness.comebacks.noted:
            effects += self._note_returned(session)
        if refused is not None:
            effects += self._hide(session, refused)
        elif session.awareness:
            session.unseen = False  # it shows something; an echo of what others show says nothing of that
        return effects

    def _note_returned(self, session: Session) -> Sequence[Effect]:
        comebacks = self.awareness.comebacks
        if not comebacks.noted:
            return ()
        comebacks.noted = False
        return (Returned(session),)

    def note_silent(self, session: Session) -> Sequence[Effect]:
        """Go on after nothing was heard of a session for a while, though it was probed.

        Its client may have come back on another socket: that one has its presence then. The session goes on.
        """
        asks = self.awareness.yield_ids(session)
        if self.awareness.changed:
            self.pending = True
        return self._ask_claimants(asks)

    def _ask_claimants(self, asks: Sequence[Ask]) -> Sequence[Effect]:
        effects: list[Effect] = []
        for session, entry in asks:
            effects += announce_again(session, (entry,))
            effects += self._note_returned(session)
        return effects or ()

    def begin_round(self) -> Round:
        """Ask the clients to announce themselves whom those who have come back do not see else."""
        return _round(self.awareness.begin_round())

    def begin_round_for_others(self) -> Round:
        """Ask those of this node for whom other nodes have asked."""
        return _round(self.awareness.begin_round_for_others())

    def _hide(self, session: Session, error: CollabError) -> Sequence[Effect]:
        """Tell a session, once for each time that it begins, that its presence is not shown; the document goes on."""
        if session.unseen:
            return ()
        session.unseen = True
        return (Unseen(session, error), Send(session, presence_notice(session, error.public)))

    def _refuse(self, session: Session, error: CollabError, *, answer: bool) -> Sequence[Effect]:
        """Go on after an update was not taken: tell the session, if its protocol can, else raise ``error``."""
        if not session.acknowledges:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        if answer:
            self._answered(session)
        self._acknowledge(session, saved=False)
        return ()

    def _refuse_reader(self, session: Session, *, answer: bool, known: bool) -> Sequence[Effect]:
        # What Hocuspocus does: an update is always refused, a SyncStep2 only if it holds anything new.
        # A y-websocket client is told by its own protocol's message, and only when it has changed something.
        if answer:
            self._answered(session)
        if (versions := session.versions) is not None:
            versions.unsaved = versions.unsaved or not known
            self._confirm_version(session, versions)
        refused = Refused(session, "an edit")
        if session.acknowledges:
            saved = known and answer
            self._acknowledge(session, saved=saved)
            return () if saved else (refused,)
        return () if known else (refused, Send(session, PermissionDenied(session.refusal or READ_ONLY)))

    def _taken(self, session: Session, taken: Applied, *, answer: bool) -> Sequence[Effect]:
        """Go on after an update of ``session`` was taken by the document."""
        if taken.new:
            self.pending = True
            self._author = session if self._author is None or self._author is session else _SEVERAL
            # Of an update that is not whole others may have gone before in the turn, and its next one tells as much.
            if taken is NEW and session.introduces and not answer:
                self._note_first_use(session)
        saved, unkept, versions = True, None, session.versions
        if taken.rest is not None:
            kept = self._open_kept()
            saved = kept.add(taken.rest, session.author)
            kept.note_clocks(taken.rest.missing, self.document.lacks)
            self.pending = self.pending or kept.changed
            if not saved and not answer:
                unkept = taken.rest.spans  # the answer to a question, which is open or comes now, has to hold them
        if session.state is State.CLOSED:
            return ()  # its socket has ended meanwhile; what it sent is taken all the same
        if session.acknowledges:
            if session.held is not None and answer and session.unanswered:
                # Whole or not: a client's own edits never refer to what it has not got, so all of them are here now.
                held, session.held = session.held, None
                self._acks += [Ack(session, self._became(each, taken, saved=saved)) for each in held]
            if unkept is not None and session.held is None:
                session.held = []
            self._acknowledge(session, saved=saved if unkept is None else unkept)
        effects: list[Effect] = []
        if taken.rest is not None and not saved and answer:
            effects.append(Unkept(session, len(taken.rest.data)))
            if versions is not None:
                versions.unsaved = True
        if answer:
            self._answered(session)
            if taken.missing is not None:
                session.blocked = taken.missing
                self._blocked[session] = None
        elif taken.missing is not None and not session.unanswered:
            effects.append(Send(session, self._ask(session)))
        if versions is not None:
            self._confirm_version(session, versions)
        return effects or ()

    # Whose client IDs are

    def _note_first_use(self, session: Session) -> None:
        """Note that a client ID is a session's user's, if its Update, which was just taken, is the first to use it.

        Its client's own ID is the one that it shows or announces in awareness. Where that is known no other one counts:
        an Update may hold what its client was given by others. A client that says nothing there has the one ID of its
        first Update that holds structs of one client alone.
        """
        client = session.announced if session.own is None else session.own
        if client is None:
            client = self.document.only_used()
        if client is None or session.author is None:
            return
        clock = self.document.find_used(client)
        if clock is None:
            return
        if client not in self._first_uses:
            if self.awareness.is_anothers(client, session):
                return
            self._decide(FirstUse(client, clock, session.author))
        session.uses = client
        session.introduces = False  # until it shows another one (``Session.note_own``)

    def note_server_client(self, client: int) -> None:
        """Note that a client ID is the server's, by its edit that was just taken: each row says whose it is.

        Call it in the same step in which the document has taken the edit, as something new and whole.
        """
        clock = self.document.find_used(client)
        if clock is not None and client not in self._first_uses:
            self._decide(FirstUse(client, clock, None))

    def _decide(self, first_use: FirstUse) -> None:
        self.document.note_first_use(first_use)
        self._first_uses[first_use.client] = first_use
        if len(self._first_uses) > _MOST_FIRST_USES:
            del self._first_uses[next(iter(self._first_uses))]

    def first_uses(self) -> list[FirstUse]:
        """Return what was found here of whose client IDs are; a store that went back may have lost it."""
        return list(self._first_uses.values())

    def _confirm_version(self, session: Session, versions: Versions) -> None:
        version = versions.confirm(whole=not session.unanswered)
        if version is not None:
            self._acks.append(Ack(session, True, version))
            self.pending = True

    def _became(self, held: bool | array[int], answer: Applied, *, saved: bool) -> bool:
        """Tell whether an update is saved, of which an answer that was just taken has to tell."""
        if isinstance(held, bool):
            return held
        rest, lacking = answer.rest, array("Q")
        for at in range(0, len(held), 4):
            kind, client, _, end = held[at : at + 4]
            if self.document.lacks(client, end - 1):
                lacking.extend((kind, client, end - 1, end))
        return saved and (
            not lacking or (rest is not None and (not rest.spans or covers(rest.spans, lacking)))  # or too many to tell
        )

    def _acknowledge(self, session: Session, *, saved: bool | array[int]) -> None:
        held = session.held
        if held is None:
            assert isinstance(saved, bool)
            self._acks.append(Ack(session, saved))
            self.pending = True
            return
        held.append(saved)
        if len(held) > _MAX_HELD:
            raise LimitExceeded(
                f"{len(held)} updates, and no answer to the question what its client has",
                public="too many updates before the answer to a SyncStep1",
            )

    def _answered(self, session: Session) -> None:
        if session.copy is Copy.OLD:
            session.copy = Copy.LATE
        # An answer to a question that the server never put is not counted.
        session.answered = min(session.answered + 1, session.asked)

    def ask_again(self, session: Session) -> Sequence[Effect]:
        """Ask a session for what the room lacks, unless an answer of it is to come anyhow."""
        return () if session.unanswered else (Send(session, self._ask(session)),)

    def _ask(self, session: Session) -> SyncStep1:
        session.asked += 1
        return SyncStep1(self.document.encode_state_vector())

    # Updates that wait

    def _open_kept(self) -> KeptUpdates:
        if self.kept is None:
            self.kept = KeptUpdates(self._max_kept_bytes, self._kept_budget)
        return self.kept

    def load_kept(self, updates: Sequence[KeptUpdate]) -> None:
        """Keep updates that the store keeps; call it when the room is made, and when another node has kept some."""
        self._open_kept().load(updates)

    def forget_kept(self) -> None:
        """Forget what is kept, because the room leaves memory; the store has it."""
        if self.kept is not None:
            self.kept.clear()

    def find_kept(self) -> KeptUpdate | None:
        """Give an update that may wait no more, for ``receive_kept``; None if there is none."""
        return None if self.kept is None else self.kept.find_ready()

    def receive_kept(self, update: KeptUpdate) -> Generator[None, None, bool]:
        """Take an update that has waited; return whether all of it is in the document now.

        A generator that yields about every millisecond. Raises UpdateError if it is malformed. What cannot be
        taken is forgotten.
        """
        kept = self._open_kept()
        try:
            taken = yield from self.document.apply_update_in_slices(update.data, update.author, stored=True)
        except Exception:
            kept.drop(update.key)
            raise
        if taken.new:
            self._author = _SEVERAL
        if taken.rest is None:
            kept.settle(update.key)
        else:
            kept.wait(update, taken.rest, self.document.lacks)
        self.pending = True
        return taken.rest is None

    # What other nodes say

    def receive_stored(self, update: bytes, author: str | None) -> bool:
        """Take a row that another node has written to the log; return whether it held anything new.

        What of it is not whole, because the log has a gap, waits in the document.
        """
        taken = self.document.apply_stored(update, author)
        if taken.new:
            self.pending = True
            self._author = _SEVERAL
        return taken.new

    def receive_waiting(self) -> bool:
        """Take rows of the log that have waited for what has come since; return whether that brought anything."""
        new = self.document.apply_waiting()
        if new:
            self.pending = True
            self._author = _SEVERAL
        return new

    def receive_awareness_of(
        self, node: Owner, payload: bytes, people: Mapping[int, Somebody] | None = None, *, whole: bool = False
    ) -> tuple[Sequence[Effect], CollabError | None]:
        """Take awareness states of another node's sessions, which ``node`` stands for; all of them if ``whole``.

        ``people`` says whose they are, if they are those of visitors.

        Return what is to be done, and why a state was left out, if one was.

        Raises:
            DecodeError: it is malformed; nothing was taken.
        """
        awareness = self.awareness
        taken = awareness.replace(node, payload) if whole else awareness.apply(node, payload, people or {})
        if self.awareness.changed:
            self.pending = True
        return self._ask_claimants(taken.asks), taken.refused

    def receive_claim(self, claim: DistantClaim) -> Sequence[Effect]:
        """Judge what a session of another node claims: what ``Claim`` has told there."""
        probed = self.awareness.judge_distant(claim)
        if self.awareness.changed:
            self.pending = True
        return () if probed is None else (Probe(probed),)

    def receive_asked(self, payload: bytes) -> None:
        """Take which clients another node asks to announce themselves: begin a round for others soon if ``asked``.

        Raises:
            DecodeError: it is malformed.
        """
        self.awareness.note_asked(payload)

    @property
    def lacking(self) -> bool:
        """Whether somebody here does not see all others, and a round would help."""
        return self.awareness.comebacks.lacking

    @property
    def asked(self) -> bool:
        """Whether somebody on another node does not see all those of this one."""
        return self.awareness.comebacks.asked

    # Agents of this node

    def show_agent(self, agent: Agent, state: bytes, at: float, known: int = 0) -> None:
        """Show a state for an agent; see ``AwarenessStates.show_agent``."""
        self.awareness.show_agent(agent, state, at, known)
        self.pending = True

    def renew_agent(self, agent: Agent, at: float) -> None:
        """Show once more what an agent shows, which is ``shown``."""
        self.awareness.renew_agent(agent, at)
        self.pending = True

    # Visitors

    def visit(
        self, visitor: Visitor, entry: Entry, *, moved: bool = False
    ) -> tuple[Sequence[Effect], CollabError | None]:
        """Take what a visitor of this node posts; see ``AwarenessStates.visit``.

        Return what is to be done, and why its state is not shown, if that is so.
        """
        taken = self.awareness.visit(visitor, entry, moved=moved)
        self.awareness.comebacks.noted = False  # ``lacking`` tells it
        if self.awareness.changed:
            self.pending = True
        effects: list[Effect] = [Probe(owner) for owner in taken.contested if isinstance(owner, Session)]
        return effects, taken.refused

    def note_end(self, entry: Entry, person: Person) -> bool:
        """Note the end of a visitor's client that nobody is known to show; see ``AwarenessStates.note_end``."""
        return self.awareness.note_end(entry, person)

    def may_give(self, claim: DistantClaim) -> tuple[bool, Sequence[Effect]]:
        """Tell whether a visitor of another node may have an ID that is shown here, and what is to be done."""
        given, probed = self.awareness.may_give(claim)
        if self.awareness.changed:
            self.pending = True
        return given, () if probed is None else (Probe(probed),)

    def leave_awareness(self, owner: Owner) -> Sequence[Effect]:
        """Remove the awareness states of an owner that has gone; the next turn tells the room."""
        asks = self.awareness.leave(owner)
        if self.awareness.changed:
            self.pending = True
        return self._ask_claimants(asks) if asks else ()

    # Turns

    @property
    def gathered(self) -> bool:
        """Whether a turn has anything to end: what ``end_turn`` would give, or change."""
        return bool(
            self.pending
            or self._acks
            or self.awareness.changed
            or self.kept is not None
            or self._blocked
            or self.document.in_turn
        )

    def end_turn(self) -> TurnEnd:
        """Give what the turn has gathered, and begin the next one."""
        self.pending = False
        acks = self._acks
        if acks:
            self._acks = []
        awareness, own_awareness = self.awareness.flush()
        people = self.awareness.take_told()
        kept = None
        if self.kept is not None:
            self.kept.note_clocks(self.document.list_turn_clients(), self.document.lacks)
            kept = self.kept.flush()
        turn = self.document.flush()
        if turn is None:
            return TurnEnd(None, (), acks, awareness, own_awareness, (), None, None, kept, people)
        author, self._author = self._author, None
        effects = self._ask_unblocked() if self._blocked else ()
        author = None if author is _SEVERAL else author
        return TurnEnd(
            turn.delta, turn.rows, acks, awareness, own_awareness, effects, author, turn.before, kept, people
        )

    def _ask_unblocked(self) -> list[Effect]:
        effects: list[Effect] = []
        for session in list(self._blocked):
            if session.blocked is not None and self.document.lacks(*session.blocked):
                continue
            session.blocked = None
            del self._blocked[session]
            if not session.unanswered:
                effects.append(Send(session, self._ask(session)))
        return effects
