"""Look back at a document, restore it, and undo what one person has done.

Strategy: what changes a document is an edit like any other. It is computed in the sandbox from the log and from the
document as it is, under a client ID of its own, and taken in the turn of everybody else's edits: so it is relayed,
stored and can itself be restored. What people type while it is computed merges with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random, SystemRandom
from typing import NamedTuple

from collab.authorship import make_note
from collab.engine.answers import collect, compare
from collab.errors import DocumentNotFound, InvalidEdit, NoSuchContent
from collab.history.tasks import Changes, Restore, Show, Undo
from collab.hub.attributing import Attributing
from collab.hub.editing import Editing
from collab.hub.hub import Hub
from collab.hub.orders import ALWAYS, Sender
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.protocol.sync import EMPTY_UPDATE
from collab.sandbox.port import Sandbox

RESTORE, UNDO = "restore", "undo"
"""The labels of the rows, where their sender gives none."""


class Rewound(NamedTuple):
    """What became of a restore or an undo.

    Attributes:
        changed: whether there was anything to do.
        before: the newest number when it was computed; by it the document can be restored to what it was.
        number: the newest number after its commit.
    """

    changed: bool
    before: int
    number: int


class Rewinding:
    """Looks back, and rewinds.

    Args:
        hub: the rooms.
        editing: takes edits.
        attributing: reads the log.
        sandbox: where everything is computed.
        random: makes client IDs.
    """

    def __init__(
        self, hub: Hub, editing: Editing, attributing: Attributing, sandbox: Sandbox, random: Random | None = None
    ) -> None:
        self._hub = hub
        self._editing = editing
        self._attributing = attributing
        self._sandbox = sandbox
        self._random = SystemRandom() if random is None else random

    # What can be asked

    async def attribution(self, name: str, *, runs: bool, root: str | None = None, rich: bool = False) -> bytes:
        """Say who wrote what, as JSON: in ranges, or with ``runs`` a root in runs, or as ProseMirror JSON.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            NoSuchContent, WrongContentType: there is no such root, or it is none for that.
            SandboxError, StoreUnavailable, DamagedDocument.
        """
        document_id, head = await self._committed(name)
        kept = await self._attributing.bring_up(name, document_id, head)
        if kept is None:
            raise NoSuchContent("nothing was ever written in the document")
        document = await self._attributing.rebuild(name, document_id, kept.seq) if runs else None
        return await self._sandbox.look_back(Show(kept.data, document, root, rich))

    async def changes(self, name: str, start: int, end: int | None, format: str, root: str | None) -> bytes:
        """Say what rows (start, end] have changed, in a format of ``collab.history.tasks.FORMATS``.

        Raises: what ``attribution`` raises, and
            NoSuchContent: the history of that time is not kept, or there are no such numbers.
            DocumentTooLarge: too much has changed.
        """
        document_id, head = await self._committed(name)
        end = _within(start, end, head)
        base = await self._attributing.rebuild(name, document_id, start)
        rows = await self._attributing.rows(name, document_id, start, end)
        owners = await self._attributing.owners(document_id)
        return await self._sandbox.look_back(Changes(base, rows, owners, format, root))

    async def restore(
        self, name: str, number: int, sender: Sender, *, root: str | None = None, element: str | None = None
    ) -> Rewound:
        """Make a document what it was after a row, or only a root of it, or an element of that.

        Raises: what ``Editing.edit`` raises, and what ``changes`` raises.
        """

        async def compute(live: LiveRoom, document_id: int, head: int, client: int) -> bytes:
            _within(number, head, head)
            base = await self._attributing.rebuild(name, document_id, number)
            rows = await self._attributing.rows(name, document_id, number, head)
            return await self._sandbox.look_back(Restore(await _encode(live), base, rows, client, root, element))

        return await self._rewind(name, _labelled(sender, RESTORE), compute)

    async def undo(
        self,
        name: str,
        author: str,
        sender: Sender,
        *,
        start: int | None = None,
        end: int | None = None,
        since: float | None = None,
        on_behalf_of: str | None = None,
    ) -> Rewound:
        """Take back what an author has done in rows (start, end], or ``since`` a time in unix seconds.

        Raises: what ``restore`` raises.
        """

        async def compute(live: LiveRoom, document_id: int, head: int, client: int) -> bytes:
            first = start if start is not None else await self._number_at(document_id, head, since or 0.0)
            until = _within(first, end, head)
            base = await self._attributing.rebuild(name, document_id, first)
            rows = await self._attributing.rows(name, document_id, first, head)
            owners = await self._attributing.owners(document_id)
            return await self._sandbox.look_back(
                Undo(await _encode(live), base, rows, owners, author, on_behalf_of, until, client)
            )

        return await self._rewind(name, _labelled(sender, UNDO), compute)

    # How it is done

    async def _committed(self, name: str) -> tuple[int, int]:
        """Return the id of a document and the newest number, when everything that was taken is committed."""
        await self._hub.until_stored(name)
        return await self._attributing.head(name)

    async def _rewind(
        self, name: str, sender: Sender, compute: Callable[[LiveRoom, int, int, int], Awaitable[bytes]]
    ) -> Rewound:
        async with self._editing.visit(name, sender) as live:
            if not live.exists:
                raise DocumentNotFound(f"no document {name!r}")
            self._editing.admit(live, sender, ALWAYS)
            document_id, head = await self._committed(name)
            client = live.new_client_id(self._random)
            update = await compute(live, document_id, head, client) or EMPTY_UPDATE
            if update == EMPTY_UPDATE:
                return Rewound(False, head, head)
            await self._editing.take_and_store(live, update, sender, client)
            return Rewound(True, head, live.persistence.seq)

    async def _number_at(self, document_id: int, head: int, since: float) -> int:
        """Return the number of the last row before a time; rows lie in the order of their times, nearly."""
        rows = await self._attributing.first_row(document_id)
        low, high = rows - 1, head
        while low < high:
            middle = (low + high) // 2
            if await self._attributing.time_of(document_id, middle + 1) < since:
                low = middle + 1
            else:
                high = middle
        return low


def _within(start: int, end: int | None, head: int) -> int:
    """Check an interval of numbers; return its end."""
    last = head if end is None else end
    if max(start, last) > head:
        raise NoSuchContent(f"the newest number is {head}")
    if start > last:
        raise InvalidEdit("the interval ends before it begins")
    return last


def _labelled(sender: Sender, label: str) -> Sender:
    """Give the row of an edit its label, unless its sender has given another one."""
    note = sender.note
    if note is not None and note.label is not None:
        return sender
    return replace(sender, note=make_note(None if note is None else note.on_behalf_of, label))


async def _encode(live: LiveRoom) -> bytes:
    """Encode a document as it is; what is taken meanwhile may be in it or not."""
    document = live.room.document
    return (await in_slices(collect(document, await in_slices(compare(document, b"\0"))))).join()
