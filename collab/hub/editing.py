"""Edits and reading without a session: how what comes over HTTP reaches a document, and what is told of it.

Strategy: an edit passes the same rules as one that comes on a socket, and ends in the same turn, row and frame; only
its sender is nobody's member. It is taken as a whole or not at all, since its sender can send what is missing. In the
step in which it is taken everything is asked once more that may have changed while it came or was computed: whether the
server stops, the store's backlog, the precondition, what the sender may do. Then a future tells of its commit.

Nothing is lost in between. From the step in which an edit is taken there are three ends: it is committed, the store
refuses it for good, or nobody can say (``OutcomeUnknown``), and an update may be sent again, for it is in the document
once however often it comes.

What is to be computed (a patch, a text edit, a replacement) is given to the document's ``Editor``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from random import Random, SystemRandom
from typing import Final, NamedTuple

from collab.content.edits import Edit, Format
from collab.engine.answers import collect, compare, takes_long
from collab.errors import (
    CollabError,
    DocumentBusy,
    DocumentNotFound,
    DocumentTooLarge,
    OutcomeUnknown,
    ServerStopping,
    StoreUnavailable,
    is_refusal,
)
from collab.hub.admission import Admission
from collab.hub.editors import Editor, Taken
from collab.hub.guests import guest_of
from collab.hub.hub import Hub
from collab.hub.orders import ALWAYS, Precondition, Sender
from collab.hub.persistence import Stored
from collab.hub.room import LiveRoom
from collab.hub.slices import Usage, in_slices
from collab.sandbox.port import Reading, Sandbox, Written
from collab.storage.versions import Reason
from collab.update.parts import Parts

# Seconds for a commit that an answer waits for. A store that is away comes back later than that, and the edit is
# committed then; its sender is not kept waiting so long.
COMMIT_SECONDS: Final = 30.0

# Bytes of a state vector and a delete set up to which the state is named after an edit in one step: some 0.5 ms.
_NAMED_AT_ONCE: Final = 512 * 1024

# Tries to read a document between two edits of others; then in one step, however long that is.
_TRIES: Final = 3

# Senders whose use of this process' time is remembered.
_SENDERS: Final = 1_000


class Edited(NamedTuple):
    """What became of an edit.

    Attributes:
        changed: whether anything of it was new.
        tag: the name of the state with it; None where naming it would have held up others.
        committed: whether it is known to be in the log.
        number: the newest number of the log when it was there: its own row, or a later one; None if not committed.
    """

    changed: bool
    tag: str | None
    committed: bool
    number: int | None


class Whole(NamedTuple):
    """What a document has, or what a state vector lacks of it: a v1 update, and the name of the document's state."""

    update: Parts
    tag: str


class Shown(NamedTuple):
    """What was read of a document.

    Attributes:
        value: UTF-8, or JSON.
        tag: the name of the state that it was read of.
        document: the number of the document in the store; None if none of it is stored yet.
        last: the row of the log up to which nothing is missing in it; it may hold more.
    """

    value: bytes
    tag: str
    document: int | None
    last: int


class Editing:
    """Edits and reading by the names of documents.

    Args:
        hub: the rooms.
        admission: the way into documents.
        sandbox: where edits are computed and contents read.
        random: makes client IDs.
    """

    def __init__(self, hub: Hub, admission: Admission, sandbox: Sandbox, random: Random | None = None) -> None:
        self._hub = hub
        self._admission = admission
        self._sandbox = sandbox
        self._random = SystemRandom() if random is None else random
        self._editors: dict[str, Editor] = {}
        self._usages: OrderedDict[str, Usage] = OrderedDict()

    # What can be asked

    async def apply(
        self, name: str, update: bytes, sender: Sender, condition: Precondition = ALWAYS, *, commit: bool = True
    ) -> Edited:
        """Apply a v1 update to a document; one that does not exist yet is created by it, as by an edit on a socket.

        The precondition counts where something of the update is new: one that is sent again, because its outcome was
        unknown, is in the document already, and that is said.

        Args:
            name: of the document.
            update: a v1 update that refers to nothing that the document lacks.
            sender: who sends it, who may write the document.
            condition: in which state the document has to be.
            commit: return after the commit; else when it was taken.

        Raises:
            UpdateError, UpdateIncomplete, PreconditionFailed, DocumentTooLarge, DocumentBusy, StoreUnavailable,
            ServerStopping, AccessError, DocumentError: nothing was taken.
            OutcomeUnknown: it was taken, and nobody knows whether it is or will be stored; it may be sent again.
            DocumentDeleted, StoreRefused: it will never be stored.
        """
        async with self.visit(name, sender) as live:
            taken = await self.take(live, update, sender, condition)
            return await self._until_stored(live, taken, commit=commit)

    async def edit(
        self, name: str, edit: Edit | Written, sender: Sender, condition: Precondition = ALWAYS, *, commit: bool = True
    ) -> Edited:
        """Compute an edit in the sandbox and apply it; what others change meanwhile merges.

        With a precondition that names states, it was computed for the state that it is applied to.

        Raises: what ``apply`` raises, what the edit is refused with, and
            EditOvertaken: others were quicker, again and again.
            SandboxError: it could not be computed; nothing was taken.
        """
        async with self.visit(name, sender) as live:
            # Before anything is computed; each is asked once more when the edit is taken.
            self.admit(live, sender, condition)
            taken = await self._editor(name).edit(live, edit, sender, condition)
            return await self._until_stored(live, taken, commit=commit)

    async def read(self, name: str, format: Format, root: str | None = None) -> Shown:
        """Read what a document holds in a format, of one root or of all that it shows.

        Raises:
            DocumentNotFound, and what ``LiveRoom``'s opening, the format and the sandbox raise.
        """
        async with self.visit(name) as live:
            _must_exist(live)
            # Before it is read: all that is in memory now is shown.
            document, last = live.persistence.document_id, live.persistence.seq
            value, tag = await self._editor(name).read(live, Reading(format, root))
            return Shown(value, tag, document, last)

    async def name_state(self, name: str) -> str:
        """Name the state of a document; raises DocumentNotFound, and what opening it raises."""
        async with self.visit(name) as live:
            _must_exist(live)
            await live.prepare_name()
            return live.name_state()

    async def whole(self, name: str, state_vector: bytes = b"\0") -> Whole:
        """Give what a document has and a client with this state vector (v1 bytes) lacks, and its delete set.

        Raises:
            DecodeError: the state vector is malformed.
            DocumentNotFound, and what opening it raises.
        """
        async with self.visit(name) as live:
            _must_exist(live)
            document = live.room.document
            if takes_long(document, state_vector):
                for _ in range(_TRIES):
                    await live.prepare_name()
                    version = document.version
                    parts = await in_slices(collect(document, await in_slices(compare(document, state_vector))))
                    if document.version == version:
                        return Whole(parts, live.name_state())
            # In one step: the parts of different moments would not be whole, and nothing is sent after them.
            await live.prepare_name()
            return Whole(document.collect_state_as_update(state_vector), live.name_state())

    async def take_and_store(self, live: LiveRoom, update: bytes, sender: Sender, client: int) -> None:
        """Take what was computed beside the editor, under a client ID of its own, and return after the commit.

        Raises: what ``apply`` raises.
        """
        taken = await self.take(live, update, sender, ALWAYS, client=client)
        await self._until_stored(live, taken, commit=True)

    @contextlib.asynccontextmanager
    async def visit(self, name: str, sender: Sender | None = None) -> AsyncIterator[LiveRoom]:
        """Open a document, and keep its room in memory meanwhile; ``sender`` wants to edit it."""
        if sender is None or not sender.asks:
            live = await self._admission.open(name)
        else:
            live = await self._admission.open_for(name, sender.grant, sender.peer)
        if live.ended is not None:
            raise _ended(live)
        with live.visited():
            yield live

    async def take(
        self,
        live: LiveRoom,
        update: bytes,
        sender: Sender,
        condition: Precondition,
        check: Callable[[], object] | None = None,
        client: int | None = None,
    ) -> Taken:
        """Apply an update to a live document.

        ``check`` is called with the other checks, in the step that takes it; ``client`` is the stay whose edit it is.
        """
        if condition.names:
            await live.prepare_name()

        def admit() -> None:
            self.admit(live, sender, condition)
            if check is not None:
                check()
            self._admission.count_new(live, sender.grant, sender.peer)

        document_id, seq = live.persistence.document_id, live.persistence.seq
        usage = self._usage(sender, live)
        receive = partial(
            live.receive_edit, update, sender.author, admit, usage, note=sender.note, server_client=client
        )
        try:
            new = await receive()
        except DocumentTooLarge:
            size = await live.size_with(update)
            if size is None:
                raise
            new = await receive(size=size)
        # Still in the step that has taken it.
        if new and document_id is not None and self._hub.versions.begins_to_edit(document_id, self._hub.clock()):
            work = self._hub.versions.note(document_id, seq, Reason.AGENT)
            self._hub.tasks.spawn(work, "noting what was before a program edits")
        return self.taken(live, new=new)

    async def take_posted(self, live: LiveRoom, update: bytes, sender: Sender, own: int | None) -> None:
        """Apply an update to a live document as ``take`` does, but keep what of it is not whole beside the document.

        ``own`` is the client ID of its sender, where that is known. Ask ``LiveRoom.when_stored`` for its commit.

        Raises:
            UpdateIncomplete: the whole part was taken, and there is no room to keep the rest.
            CollabError: nothing was taken.
        """

        def admit() -> None:
            self.admit(live, sender, ALWAYS)

        receive = partial(live.receive_posted, update, sender.author, admit, self._usage(sender, live), own=own)
        try:
            await receive()
        except DocumentTooLarge:
            size = await live.size_with(update)
            if size is None:
                raise
            await receive(size=size)

    def taken(self, live: LiveRoom, *, new: bool) -> Taken:
        """Say what is known of an edit in the step in which it was taken, or found to change nothing."""
        tag = live.name_state() if live.room.document.naming_bytes <= _NAMED_AT_ONCE else None
        return Taken(new, tag, live.when_stored())

    def admit(self, live: LiveRoom, sender: Sender, condition: Precondition) -> None:
        """Check that an edit may be taken now; nothing is awaited between this and the change.

        Raises:
            CollabError: it may not.
        """
        if self._hub.stopping:
            raise ServerStopping("the server is stopping")
        if live.ended is not None:
            raise _ended(live)
        self._admission.check_edit(live, sender.grant, recovers=sender.recovers)
        if self._hub.journal.full:
            raise StoreUnavailable("the backlog of edits that wait for the store is full")
        condition.check(live)
        live.persistence.meet(guest_of(sender.grant))

    async def _until_stored(self, live: LiveRoom, taken: Taken, *, commit: bool) -> Edited:
        if commit:
            await until_stored(live.name, taken.stored)
        stored = taken.stored.done() and taken.stored.exception() is None
        return Edited(taken.new, taken.tag, stored, live.persistence.newest if stored else None)

    def _editor(self, name: str) -> Editor:
        editor = self._editors.get(name)
        if editor is None:
            for other in [other for other, editor in self._editors.items() if editor.unused]:
                del self._editors[other]
            editor = self._editors[name] = Editor(self._hub, self, self._sandbox, self._random)
        return editor

    def _usage(self, sender: Sender, live: LiveRoom) -> Usage | None:
        """Give what the edits of a sender have cost; None for one that may be many."""
        key = sender.author if sender.author is not None else sender.peer.key if sender.peer.counted else None
        if key is None:
            return None
        usage = self._usages.pop(key, None) or Usage()
        usage.share = live.share
        self._usages[key] = usage
        if len(self._usages) > _SENDERS:
            self._usages.popitem(last=False)
        return usage


async def until_stored(name: str, stored: Stored) -> None:
    """Wait until an edit is committed, but not for longer than its sender is kept waiting.

    Raises:
        OutcomeUnknown: nobody knows yet.
        DocumentDeleted, StoreRefused: it will never be.
    """
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            await stored
    except TimeoutError:
        raise OutcomeUnknown(f"an edit of {name!r} was taken and is not committed after {COMMIT_SECONDS:g} s") from None


def _must_exist(live: LiveRoom) -> None:
    if not live.exists:
        raise DocumentNotFound(f"no document {live.name!r}")


def _ended(live: LiveRoom) -> CollabError:
    """Say why a room that has ended takes nothing; a defect of ours is only that it has to be opened again."""
    error = live.ended
    assert error is not None
    if is_refusal(error):
        return error
    return DocumentBusy(f"the room of {live.name!r} has failed and is read again")
