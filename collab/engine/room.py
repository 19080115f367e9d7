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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from collab.engine.awareness import AwarenessStates
from collab.engine.document import NEW, Document, Row, Taken
from collab.errors import DocumentTooLarge
from collab.protocol.awareness import AwarenessUpdate, encode_awareness
from collab.protocol.session import Event, Session
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.wire import Message


class Send(NamedTuple):
    """Send a message to one session."""

    session: Session
    message: Message


class Probe(NamedTuple):
    """Find out soon whether a session's connection still lives: another one claims its state."""

    session: Session


Effect = Send | Probe


class TurnEnd(NamedTuple):
    """What one turn leaves to be done.

    Attributes:
        delta: a v1 update for every session, the authors' included; None when nothing changed.
        rows: the same content for the journal, cut where the author changes.
        acknowledge: sessions to be told "saved" once the rows are durable, one entry an update,
            in the order in which the updates came.
        awareness: an awareness update for every session, or None.
        effects: questions to sessions whose earlier answer had to wait.
    """

    delta: bytes | None
    rows: tuple[Row, ...]
    acknowledge: list[Session]
    awareness: bytes | None
    effects: Sequence[Effect]


class Room:
    """A document live on this node, with its participants.

    ``pending`` says whether ``end_turn`` has anything to give.

    Args:
        document: the document, already loaded.
        max_document_bytes: the encoded size past which updates with anything new are refused.
        max_awareness_bytes: how many bytes of awareness state one session may own.
        max_awareness_ids: how many client IDs one session may own.
    """

    __slots__ = ("_acknowledge", "_blocked", "_max_document_bytes", "awareness", "document", "pending", "sessions")

    def __init__(
        self, document: Document, *, max_document_bytes: int, max_awareness_bytes: int, max_awareness_ids: int
    ) -> None:
        self.document = document
        self.awareness = AwarenessStates(max_bytes=max_awareness_bytes, max_ids=max_awareness_ids)
        self.sessions: dict[Session, None] = {}
        self._max_document_bytes = max_document_bytes
        self._acknowledge: list[Session] = []
        self._blocked: dict[Session, None] = {}
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

        Raises:
            DecodeError: the message, or the update or state vector in it, is malformed; nothing
                of it was taken.
            LimitExceeded: it would pass a bound; nothing of it was taken.
        """
        if type(message) is SyncUpdate:
            update = message[0]
            document = self.document
            if document.size + len(update) > self._max_document_bytes:
                self.check_size(update)
            taken = document.take(update, session.author)
            if taken is NEW and not session.acknowledges:  # the usual case
                self.pending = True
                return ()
            return self.taken(session, taken, answer=False)
        if type(message) is SyncStep2:
            self.check_size(message.update)
            return self.taken(session, self.document.take(message.update, session.author), answer=True)
        if type(message) is SyncStep1:
            return (Send(session, SyncStep2(self.document.step2(message.state_vector))),)
        if type(message) is AwarenessUpdate:
            back, contested = self.awareness.apply(session, message.payload)
            if self.awareness.changed:
                self.pending = True
            effects: list[Effect] = [Probe(owner) for owner in contested]
            if back:
                effects.append(Send(session, AwarenessUpdate(encode_awareness(back))))
            return effects
        states = self.awareness.everything()  # QueryAwareness
        return () if states is None else (Send(session, AwarenessUpdate(states)),)

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
            self.pending = True
        if session.acknowledges and (answer or taken.missing is None):
            self._acknowledge.append(session)
            self.pending = True
        if answer:
            # An answer to a question that the server never put is not counted.
            session.answered = min(session.answered + 1, session.asked)
            if taken.missing is not None:
                session.blocked = taken.missing
                self._blocked[session] = None
        elif taken.missing is not None and not session.unanswered:
            return (self._ask(session),)
        return ()

    def _ask(self, session: Session) -> Send:
        session.asked += 1
        return Send(session, SyncStep1(self.document.state_vector()))

    def end_turn(self) -> TurnEnd:
        """Give what the turn has gathered, and begin the next one."""
        self.pending = False
        acknowledge = self._acknowledge
        if acknowledge:
            self._acknowledge = []
        awareness = self.awareness.flush() if self.awareness.changed else None
        turn = self.document.flush()
        if turn is None:
            return TurnEnd(None, (), acknowledge, awareness, ())
        return TurnEnd(turn.delta, turn.rows, acknowledge, awareness, self._ask_unblocked() if self._blocked else ())

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
