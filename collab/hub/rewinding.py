"""Look back at a document, restore it, and undo what one person has done.

Strategy: what changes a document is an edit like any other. It is computed in the sandbox from the log and from the
document as it is, under a client ID of its own, and taken in the turn of everybody else's edits: so it is relayed,
stored and can itself be restored. What people type while it is computed merges with it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random, SystemRandom
from typing import Final, NamedTuple

from collab.authorship import make_note
from collab.engine.answers import collect, compare
from collab.errors import (
    DocumentNotFound,
    DocumentTooLarge,
    HistoryGone,
    InvalidEdit,
    NoSuchContent,
)
from collab.history.rows import Rows
from collab.history.tasks import Changes, Restore, Show, Shown, Undo
from collab.hub.attributing import Attributing
from collab.hub.editing import Editing
from collab.hub.hub import Hub
from collab.hub.orders import ALWAYS, Sender
from collab.hub.rebuilding import encode
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.versions import Versions, Which
from collab.protocol.sync import EMPTY_UPDATE
from collab.sandbox.port import Sandbox
from collab.storage.records import Head
from collab.storage.timeline import restore_label
from collab.storage.versions import Reason

UNDO: Final = "undo"
"""The label of the row of an undo, where its sender gives none."""


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


class Target(NamedTuple):
    """What a document is restored to.

    Attributes:
        base: what it held, a v1 update.
        rows: those since then; None: what is restored is new content.
        label: of the row that restores it, where its sender gives none.
    """

    base: bytes
    rows: Rows | None
    label: str


async def find_target(
    versions: Versions, attributing: Attributing, name: str, head: Head, which: Which, *, resets: int, whole: bool
) -> Target:
    """Read what is needed to restore a state.

    It comes back as new content where there is no way back from row to row: the rows since then are pruned or too many,
    it is of another system, or all content was taken out since then.

    Args:
        versions, attributing: read it.
        name: of the document.
        head: its newest row.
        which: the state.
        resets: how often the document was reset.
        whole: it is not only for one element, which always comes back as new content.

    Raises: as ``Versions.state``.
    """
    state = await versions.rebuild(name, head, which)
    imported = which.version is not None and state.number == 0
    rows = None
    if whole and not imported and state.document.resets == resets:
        try:
            rows = await attributing.rows(name, head.document_id, state.number, head.seq)
        except (HistoryGone, DocumentTooLarge):
            rows = None
    label = restore_label(None if imported else state.number, which.version)
    return Target(await encode(state.document), rows, label)


class Rewinding:
    """Looks back, and rewinds.

    Args:
        hub: the rooms.
        editing: takes edits.
        sandbox: where everything is computed.
        random: makes client IDs.
    """

    def __init__(self, hub: Hub, editing: Editing, sandbox: Sandbox, random: Random | None = None) -> None:
        self._editing = editing
        self._attributing = hub.attributing
        self._versions = hub.versions
        self._sandbox = sandbox
        self._random = SystemRandom() if random is None else random

    # What can be asked

    async def attribution(self, name: str, *, runs: bool, root: str | None = None, rich: bool = False) -> Shown:
        """Say who wrote what, as JSON: in ranges, or with ``runs`` a root in runs, or as ProseMirror JSON.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            NoSuchContent, WrongContentType: there is no such root, or it is none for that.
            HistoryGone: the rows are gone, and nobody has looked at them before.
            SandboxError, StoreUnavailable, DamagedDocument.
        """
        head = await self._versions.stored(name)
        kept = await self._attributing.bring_up(name, head.document_id, head.seq)
        if kept is None:
            if head.seq:
                raise HistoryGone(f"no row of {name!r} is kept")
            raise NoSuchContent("nothing was ever written in the document")
        document = await self._attributing.rebuild(name, head.document_id, kept.seq) if runs else None
        guests = await self._attributing.guests(head.document_id)
        return await self._sandbox.show_history(Show(kept.data, document, root, rich, guests))

    async def changes(self, name: str, start: int, end: int | None, format: str, root: str | None) -> Shown:
        """Say what rows (start, end] have changed, in a format of ``collab.history.tasks.FORMATS``.

        Raises: what ``attribution`` raises, and
            HistoryGone: the history of that time is not kept, or there are no such numbers.
            InvalidEdit: the interval ends before it begins.
            DocumentTooLarge: too much has changed.
        """
        head = await self._versions.stored(name)
        end = _within(start, end, head.seq)
        base = await self._attributing.rebuild(name, head.document_id, start)
        rows = await self._attributing.rows(name, head.document_id, start, end)
        owners = await self._attributing.owners(head.document_id)
        guests = await self._attributing.guests(head.document_id)
        return await self._sandbox.show_history(Changes(base, rows, owners, format, root, guests))

    async def rows(self, name: str, start: int, end: int | None) -> bytes:
        """Give the first rows of (start, end] as lines of JSON; whoever wants more asks for those behind the last one.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            HistoryGone: the history of that time is not kept, or there are no such numbers.
            InvalidEdit: the interval ends before it begins.
            StoreUnavailable, DamagedDocument.
        """
        head = await self._versions.stored(name)
        return await self._attributing.lines(name, head.document_id, start, _within(start, end, head.seq))

    async def restore(
        self, name: str, which: Which, sender: Sender, *, root: str | None = None, element: str | None = None
    ) -> Rewound:
        """Make a document what it was, or only a root of it, or an element of that.

        Raises: what ``Editing.edit`` raises, and what ``Versions.state`` raises.
        """

        async def compute(live: LiveRoom, head: Head, client: int) -> tuple[bytes, str]:
            resets = live.room.document.resets
            target = await find_target(
                self._versions, self._attributing, name, head, which, resets=resets, whole=element is None
            )
            task = Restore(await _encode(live), target.base, target.rows, client, root, element)
            return await self._sandbox.look_back(task), target.label

        return await self._rewind(name, sender, compute)

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

        async def compute(live: LiveRoom, head: Head, client: int) -> tuple[bytes, str]:
            first = start
            if first is None:
                first = await self._versions.number_at(name, math.nextafter(since or 0.0, -math.inf))
            until = _within(first, end, head.seq)
            base = await self._attributing.rebuild(name, head.document_id, first)
            rows = await self._attributing.rows(name, head.document_id, first, head.seq)
            owners = await self._attributing.owners(head.document_id)
            task = Undo(await _encode(live), base, rows, owners, author, on_behalf_of, until, client)
            return await self._sandbox.look_back(task), UNDO

        return await self._rewind(name, sender, compute)

    # How it is done

    async def _rewind(
        self, name: str, sender: Sender, compute: Callable[[LiveRoom, Head, int], Awaitable[tuple[bytes, str]]]
    ) -> Rewound:
        sender = replace(sender, recovers=True)
        async with self._editing.visit(name, sender) as live:
            if not live.exists:
                raise DocumentNotFound(f"no document {name!r}")
            self._editing.admit(live, sender, ALWAYS)
            head = await self._versions.stored(name)
            client = live.new_client_id(self._random)
            update, label = await compute(live, head, client)
            if not update or update == EMPTY_UPDATE:
                return Rewound(False, head.seq, head.seq)
            await self._versions.note(head.document_id, head.seq, Reason.RESTORE)
            await self._editing.take_and_store(live, update, _labelled(sender, label), client)
            return Rewound(True, head.seq, live.persistence.newest)


def _within(start: int, end: int | None, head: int) -> int:
    """Check an interval of numbers; return its end."""
    last = head if end is None else end
    if max(start, last) > head:
        raise HistoryGone(f"the newest number is {head}")
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
