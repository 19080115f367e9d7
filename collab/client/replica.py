"""The document of a client: a ``pycrdt.Doc``, the edits that are made in it, and the updates that come for it.

Strategy: an observer sees each transaction. What this client made is numbered and kept as bytes until it is sent; past
a bound the bytes are dropped and made again from the document, so a long time without a server costs no memory. What
comes is read by our own reader before the library gets it (docs/decisions/0009), and given to the library only when
all that it refers to is there: the library loses updates that come out of order (docs/decisions/0034). The server
sends such updates on purpose, when a large document has to come in pieces.

Nothing here waits or knows a socket. Each method that touches the document is called with its lock held, where it has
one (`LockedDoc`).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, cast

import pycrdt

from collab.content.shape import mend_pairs
from collab.errors import ProtocolError, UnreadableContent, UpdateError
from collab.protocol.sync import EMPTY_STATE_VECTOR, EMPTY_UPDATE
from collab.update import Update, decode_state_vector, read_update
from collab.update.merge import merge_read_updates

MAX_WAITING_BYTES: Final = 1 << 20
MAX_WAITING: Final = 1_000
"""Edits, and their bytes, that are kept to be sent. Past it what is lacking is made again from the document."""

MAX_HELD_BYTES: Final = 256 << 20
"""Bytes of updates that wait for others on which they depend."""


def new_client_id() -> int:
    """Return a random client ID of 32 bits, as Yjs draws it."""
    return secrets.randbits(32)


class LockedDoc(pycrdt.Doc[Any]):
    """A document that several threads may use: each transaction waits until no other thread is in one.

    Reads are transactions too. A block ``with doc.transaction():`` is never mixed with what others do, nor with what
    comes from the server, so keep it short: as long as it lasts, nothing of this document is sent or taken.
    """

    def __init__(self, *, client_id: int | None = None, skip_gc: bool | None = None, guid: str | None = None) -> None:
        self.lock = threading.RLock()
        if client_id is None:
            client_id = new_client_id()
        super().__init__(client_id=client_id, skip_gc=skip_gc, guid=guid)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is within a transaction of the document."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return self._txn is not None
        finally:
            self.lock.release()

    def transaction(self, origin: Any = None) -> pycrdt.Transaction:
        """Begin a transaction, or join the one that this thread is in; see ``pycrdt.Doc.transaction``."""
        return _LockedTransaction(self, super().transaction, origin)  # type: ignore[return-value]


class _LockedTransaction:
    """A transaction of the library between the taking of the lock and its release."""

    def __init__(self, doc: LockedDoc, begin: Callable[[Any], pycrdt.Transaction], origin: Any) -> None:
        self._doc, self._begin, self._origin = doc, begin, origin
        self._entered: list[pycrdt.Transaction] = []

    def __enter__(self) -> pycrdt.Transaction:
        self._doc.lock.acquire()
        try:
            transaction = self._begin(self._origin)
            transaction.__enter__()
        except BaseException:
            self._doc.lock.release()
            raise
        self._entered.append(transaction)
        return transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._entered.pop().__exit__(kind, error, trace)
        finally:
            self._doc.lock.release()


class Replica:
    """A document with what is to be sent of it, and what waits to be taken.

    Args:
        doc: is observed until `close`.
        edited: is called after each edit, in the thread that has made it, within its transaction.

    Attributes:
        edits: the number of the last edit; 0 for none.
    """

    def __init__(self, doc: pycrdt.Doc[Any], edited: Callable[[], None]) -> None:
        self.doc = doc
        state = doc.get_state()
        # What the document brings along counts as an edit: nobody knows whether the server has it.
        self.edits = 0 if doc.get_update() == EMPTY_UPDATE else 1
        self._vector = decode_state_vector(state)
        self._edited = edited
        self._mutex = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._base: bytes | None = None  # the state vector before all that was dropped; None if nothing was
        self._before = EMPTY_STATE_VECTOR  # the one before the first edit that waits
        self._held: list[Update] = []
        self._taking: int | None = None
        self._subscription: pycrdt.Subscription | None = doc.observe(self._observe)

    @property
    def waits(self) -> bool:
        """Whether there are edits to be sent."""
        return bool(self._waiting) or self._base is not None

    def close(self) -> None:
        """Stop watching the document; it stays usable."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self.doc.unobserve(subscription)

    # What this client makes

    def _observe(self, event: pycrdt.TransactionEvent) -> None:
        if self._taking == threading.get_ident():
            return
        update = event.update
        if update == EMPTY_UPDATE:
            return
        with self._mutex:
            self.edits += 1
            if self._base is None:
                if not self._waiting:
                    self._before = cast(Any, event).before_state  # which the library's types lack
                self._waiting.append(update)
                self._waiting_bytes += len(update)
                if len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
                    self._base = self._before
                    self._drop()
        self._edited()

    def _drop(self) -> None:
        self._waiting = []
        self._waiting_bytes = 0

    def state(self) -> bytes:
        """Return the state vector (v1), to ask the server for what it lacks."""
        state = self.doc.get_state()
        self._vector = decode_state_vector(state)
        return state

    def answer(self, state_vector: bytes) -> tuple[bytes, int]:
        """Return the update that a state vector of the server lacks, and the number up to which it has the edits.

        Nothing waits after this.

        Raises:
            UpdateError: the state vector cannot be read.
        """
        with self._mutex:
            self._drop()
            self._base = None
            number = self.edits
        return self._since(state_vector), number

    def next_edit(self) -> tuple[bytes, int] | None:
        """Return one update of all edits that wait, and the number of the last one; None if none waits."""
        with self._mutex:
            waiting, base, number = self._waiting, self._base, self.edits
            self._drop()
            self._base = None
        if base is not None:
            return self._since(base), number
        if not waiting:
            return None
        read = [read_update(update, stored=True) for update in waiting]
        self._note(read)
        return (waiting[0] if len(waiting) == 1 else merge_read_updates(read)), number

    def _since(self, state_vector: bytes) -> bytes:
        try:
            update = self.doc.get_update(state_vector)
        except ValueError as error:
            raise UpdateError(f"a state vector that pycrdt cannot read: {error}") from None
        self.state()
        return update

    # What comes

    def take(self, update: Update, *, synced: bool) -> bool:
        """Take an update that was read; return whether the document has changed, or may have.

        With ``synced`` it is the one with which the document is to have everything.

        Raises:
            UnreadableContent: the library cannot take it. The document is of no use after that.
            ProtocolError: too much waits for what does not come.
        """
        if not self._lacks([update]):
            self._apply(mend_pairs(update.data) if synced and not self._vector else update.data)
            self._note([update])
            taken = True
        else:
            self._held.append(update)
            taken = False
        # What a server keeps beside its document may come with the rest; the library keeps it in the same way.
        if self._held and (synced or not self._lacks(self._held)):
            held, self._held = self._held, []
            self._apply(held[0].data if len(held) == 1 else merge_read_updates(held))
            self._note(held)
            taken = True
            if synced:
                self.state()
        if sum(len(held.data) for held in self._held) > MAX_HELD_BYTES:
            raise ProtocolError("too many updates wait for others that have not come")
        return taken

    def lose_held(self) -> None:
        """Drop what waits for others: the socket has ended, and what is lacking is asked for anew."""
        self._held = []

    def _apply(self, data: bytes) -> None:
        self._taking = threading.get_ident()
        try:
            self.doc.apply_update(data)
        except (ValueError, RuntimeError) as error:
            raise UnreadableContent(f"pycrdt cannot take an update: {error}") from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise UnreadableContent(f"pycrdt has failed on an update: {error}") from None
        finally:
            self._taking = None

    def _lacks(self, updates: list[Update]) -> bool:
        """Tell whether updates refer to something that is neither in the document nor in them."""
        known = self._vector
        ends: dict[int, int] = {}
        for client, clock, end in sorted(_sections(updates)):
            reach = ends.get(client, known.get(client, 0))
            if clock > reach:
                return True
            ends[client] = max(reach, end)

        def lacks(client: int, clock: int) -> bool:
            return clock >= ends.get(client, known.get(client, 0))

        for update in updates:
            for section in update.sections:
                if any(lacks(client, clock) for _, client, clock in section.references):
                    return True
            for entry in update.deletes:
                ranges = entry.ranges
                if any(lacks(entry.client, ranges[at] + ranges[at + 1] - 1) for at in range(0, len(ranges), 2)):
                    return True
        return False

    def _note(self, updates: Iterable[Update]) -> None:
        vector = self._vector
        for client, _, end in _sections(updates):
            if end > vector.get(client, 0):
                vector[client] = end


def _sections(updates: Iterable[Update]) -> list[tuple[int, int, int]]:
    """Return client, clock and end of what updates hold, without the gaps that they declare."""
    return [
        (section.client, section.clock, section.end)
        for update in updates
        for section in update.sections
        if section.count
    ]
