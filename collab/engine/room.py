"""One document with the sessions that are on it: messages in, effects out, one turn at a time.

Strategy: ``receive`` changes the document and the awareness states at once and answers the sender
where the protocol wants an answer; what concerns everybody gathers until ``end_turn``, which gives
one delta and one awareness update for the room. The room knows no clock, no socket and no wire
protocol: whoever runs it performs the effects and decides when a turn ends.

Asking back, without loops and without loss (an update that refers to what the room lacks): the
whole part is taken, the rest dropped, and then

- while a SyncStep1 to that client is unanswered, nothing is asked: frames are in order, so the
  coming SyncStep2 contains the rest;
- else it is asked once, by a SyncStep1;
- a SyncStep2 that is not whole is never answered by a question: a client can hold pending structs
  whose author is gone, and asking would never end. What blocks it is remembered, and asked for
  when the room passes it.

Every SyncStep2 and SyncUpdate of a client whose protocol acknowledges gets one verdict, in the order
in which they came. An update that is not whole holds back its own and all that follow, until a
SyncStep2 that the room has asked for brings the rest. A SyncStep2 that is not whole holds back
nothing by itself: a client's own edits never refer to what it has not got, so they are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from collab.engine.awareness import AwarenessStates
from collab.engine.document import NEW, Document, Row, Taken
from collab.errors import CollabError, DocumentTooLarge, Forbidden, LimitExceeded, UpdateError
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness, encode_awareness
from collab.protocol.session import Access, Event, Session
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.wire import Message, PermissionDenied, Stateless

# Verdicts that may wait behind an update that is not whole. The SyncStep2 that ends it is asked for
# at once, so only a client that leaves it out comes near.
_MAX_HELD = 10_000

READ_ONLY = "read-only: this change was not taken"


class Send(NamedTuple):
    """Send a message to one session."""

    session: Session
    message: Message


class Probe(NamedTuple):
    """Find out soon whether a session's connection still lives: another one claims its state."""

    session: Session


class Refused(NamedTuple):
    """Note that a session which may only read has tried to write; its client is told by other means."""

    session: Session


Effect = Send | Probe | Refused


class Verdict(NamedTuple):
    """What became of one update: it was taken (or said nothing new), or it was refused."""

    session: Session
    saved: bool


class TurnEnd(NamedTuple):
    """What one turn leaves to be done.

    Attributes:
        delta: a v1 update for every session, the authors' included; None when nothing changed.
        rows: the same content for the journal, cut where the author changes.
        verdicts: what to tell sessions once the rows, and all rows before them, are durable: one
            an update, in the order in which a session's updates came.
        awareness: an awareness update for every session, or None.
        effects: questions to sessions whose earlier answer had to wait.
        author: the session that has sent all of ``delta``; None when nothing changed or several took part.
    """

    delta: bytes | None
    rows: tuple[Row, ...]
    verdicts: list[Verdict]
    awareness: bytes | None
    effects: Sequence[Effect]
    author: Session | None


_SEVERAL = Session()


class Room:
    """A document live on this node, with its participants.

    ``pending`` says whether ``end_turn`` has anything to give.

    Args:
        document: the document, already loaded.
        max_document_bytes: the encoded size past which updates with anything new are refused.
        max_awareness_bytes: how many bytes of awareness state one session may own.
        max_awareness_ids: how many client IDs one session may own.
    """

    __slots__ = (
        "_author",
        "_blocked",
        "_max_document_bytes",
        "_verdicts",
        "awareness",
        "document",
        "pending",
        "sessions",
    )

    def __init__(
        self, document: Document, *, max_document_bytes: int, max_awareness_bytes: int, max_awareness_ids: int
    ) -> None:
        self.document = document
        self.awareness = AwarenessStates(max_bytes=max_awareness_bytes, max_ids=max_awareness_ids)
        self.sessions: dict[Session, None] = {}
        self._max_document_bytes = max_document_bytes
        self._verdicts: list[Verdict] = []
        self._blocked: dict[Session, None] = {}
        self._author: Session | None = None  # of the turn so far
        self.pending = False

    def join(self, session: Session) -> list[Effect]:
        """Add a session; it is asked for what the room lacks and told who is here.

        The server's own SyncStep1 is what brings a client's offline edits in: y-websocket queues
        nothing while it is offline.
        """
        session.on(Event.OPENED)
        self.sessions[session] = None
        effects: list[Effect] = [self._ask(session)]
        states = self.awareness.everything()
        if states is not None:
            effects.append(Send(session, AwarenessUpdate(states)))
        return effects

    def leave(self, session: Session) -> None:
        """Remove a session; the next turn tells the others which awareness states went with it."""
        session.on(Event.ENDED)
        self.sessions.pop(session, None)
        self._blocked.pop(session, None)
        self.awareness.leave(session)
        if self.awareness.changed:
            self.pending = True

    def receive(self, session: Session, message: Message) -> Sequence[Effect]:
        """Take one message of a session.

        Returns:
            What the message asks for at once. What concerns the room waits for ``end_turn``.

        An update of a session that ``acknowledges`` is refused by a verdict and raises nothing.

        Raises:
            DecodeError: the message, or the update or state vector in it, is malformed; nothing
                of it was taken.
            LimitExceeded: it would pass a bound; nothing of it was taken.
            Forbidden: the session may only read, and the message is for those who may write.
        """
        if type(message) is SyncUpdate or type(message) is SyncStep2:
            update = message[0]
            answer = type(message) is SyncStep2
            if session.access is Access.READ:
                return self._refuse_reader(session, update, answer=answer)
            document = self.document
            try:
                if document.size + len(update) > self._max_document_bytes:
                    self.check_size(update)
                taken = document.take(update, session.author)
            except (UpdateError, LimitExceeded) as error:
                return self.refused(session, error, answer=answer)
            if taken is NEW and not answer and session.held is None:  # the usual case
                if session.acknowledges:
                    self._verdicts.append(Verdict(session, True))
                if self._author is not session:
                    self._author = session if self._author is None else _SEVERAL
                self.pending = True
                return ()
            return self.taken(session, taken, answer=answer)
        if type(message) is SyncStep1:
            return (*self.ask_again(session), Send(session, SyncStep2(self.document.step2(message.state_vector))))
        if type(message) is AwarenessUpdate:
            back, contested = self.awareness.apply(session, message.payload)
            if self.awareness.changed:
                self.pending = True
            effects: list[Effect] = [Probe(owner) for owner in contested]
            if back:
                effects.append(Send(session, AwarenessUpdate(encode_awareness(back))))
                if session.acknowledges:
                    # Hocuspocus providers 4 take the next clock upon that, but say so only when asked.
                    effects.append(Send(session, QueryAwareness()))
            return effects
        if type(message) is Stateless:
            if session.access is Access.READ:
                raise Forbidden("stateless message of a session that may only read")
            return [Send(other, message) for other in self.sessions if other.stateless and other is not session]
        states = self.awareness.everything()  # QueryAwareness
        return () if states is None else (Send(session, AwarenessUpdate(states)),)

    def ask_again(self, session: Session) -> Sequence[Effect]:
        """Give what goes before the answer to a SyncStep1: a question, if none is open to one that acknowledges.

        A Hocuspocus provider that syncs again (``forceSync``) counts itself unsaved until what it answers
        to a SyncStep1 of the server is acknowledged.
        """
        return (self._ask(session),) if session.acknowledges and not session.unanswered else ()

    def refused(self, session: Session, error: CollabError, *, answer: bool) -> Sequence[Effect]:
        """Go on after an update was not taken: tell the session, if its protocol can, else raise ``error``."""
        if not session.acknowledges:
            raise error
        if answer:
            self._answered(session)
        self._judge(session, saved=False)
        return ()

    def _refuse_reader(self, session: Session, update: bytes, *, answer: bool) -> Sequence[Effect]:
        # What Hocuspocus does: an update is always refused, a SyncStep2 only if it holds anything new.
        # A y-websocket client is told by its own protocol's message, and only when it has changed something.
        try:
            known = self.document.knows(update)
        except UpdateError as error:
            return self.refused(session, error, answer=answer)
        return self.refused_reader(session, answer=answer, known=known)

    def refused_reader(self, session: Session, *, answer: bool, known: bool) -> Sequence[Effect]:
        """Go on after an update of a session that may only read; ``known`` says that it holds nothing new."""
        if answer:
            self._answered(session)
        if session.acknowledges:
            saved = known and answer
            self._judge(session, saved=saved)
            return () if saved else (Refused(session),)
        return () if known else (Refused(session), Send(session, PermissionDenied(READ_ONLY)))

    def _judge(self, session: Session, *, saved: bool) -> None:
        held = session.held
        if held is None:
            self._verdicts.append(Verdict(session, saved))
            self.pending = True
            return
        held.append(saved)
        if len(held) > _MAX_HELD:
            raise LimitExceeded(
                f"{len(held)} updates behind one that is not whole",
                public="too many updates behind one that is not whole",
            )

    def _answered(self, session: Session) -> None:
        # An answer to a question that the server never put is not counted.
        session.answered = min(session.answered + 1, session.asked)

    def check_size(self, update: bytes) -> None:
        """Refuse an update that would make the document too large, unless it says nothing new.

        Raises:
            DocumentTooLarge: the document has no room for what the update adds.
            UpdateError: the update is malformed.
        """
        if self.would_pass_bound(update) and not self.document.knows(update):
            raise self.too_large(update)

    def would_pass_bound(self, update: bytes) -> bool:
        """Tell whether the document would be too large if all of the update were new."""
        return self.document.size + len(update) > self._max_document_bytes

    def too_large(self, update: bytes) -> DocumentTooLarge:
        """Return the error for an update that the document has no room for."""
        return DocumentTooLarge(f"document of {self.document.size} bytes, update of {len(update)} bytes")

    def taken(self, session: Session, taken: Taken, *, answer: bool) -> Sequence[Effect]:
        """Go on after an update of ``session`` was taken by the document.

        ``receive`` does this by itself; call it when the document took a large update in slices.

        Args:
            taken: what the document said of it.
            answer: whether the update came in a SyncStep2.
        """
        if taken.new:
            self.joined(session)
        if session.acknowledges:
            if session.held is not None and answer and taken.missing is None and session.unanswered:
                held, session.held = session.held, None
                self._verdicts += [Verdict(session, saved) for saved in held]
            elif session.held is None and taken.missing is not None and not answer:
                session.held = []
            self._judge(session, saved=True)
        if answer:
            self._answered(session)
            if taken.missing is not None:
                session.blocked = taken.missing
                self._blocked[session] = None
        elif taken.missing is not None and not session.unanswered:
            return (self._ask(session),)
        return ()

    def joined(self, session: Session) -> None:
        """Note that something of ``session`` has joined the turn; ``taken`` does so for one that is still here."""
        self.pending = True
        self._author = session if self._author is None or self._author is session else _SEVERAL

    def _ask(self, session: Session) -> Send:
        session.asked += 1
        return Send(session, SyncStep1(self.document.state_vector()))

    def end_turn(self) -> TurnEnd:
        """Give what the turn has gathered, and begin the next one."""
        self.pending = False
        verdicts = self._verdicts
        if verdicts:
            self._verdicts = []
        awareness = self.awareness.flush() if self.awareness.changed else None
        turn = self.document.flush()
        if turn is None:
            return TurnEnd(None, (), verdicts, awareness, (), None)
        author, self._author = self._author, None
        effects = self._ask_unblocked() if self._blocked else ()
        return TurnEnd(turn.delta, turn.rows, verdicts, awareness, effects, None if author is _SEVERAL else author)

    def _ask_unblocked(self) -> list[Effect]:
        effects: list[Effect] = []
        for session in list(self._blocked):
            if session.blocked is not None and self.document.lacks(*session.blocked):
                continue
            session.blocked = None
            del self._blocked[session]
            if not session.unanswered:
                effects.append(self._ask(session))
        return effects
