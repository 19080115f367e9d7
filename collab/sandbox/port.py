"""The port of the sandbox: where work runs that needs time or a real CRDT."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from collab.content.edits import Edit, Format, Patch, Replace
from collab.errors import CollabError
from collab.history.packed import PackedRows
from collab.history.tasks import Question, Shown
from collab.history.tasks import Task as HistoryTask
from collab.update.compact import Compacted

MAX_REBUILT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a snapshot and rows that are rebuilt here: to hand over more holds up the caller longer than it spares."""


class Reading(NamedTuple):
    """What is wanted of a document: its content in a format, of one root or of all that the format shows."""

    format: Format
    root: str | None = None


class Written(NamedTuple):
    """An edit whose value is still as it came: a text in UTF-8, or JSON. Decoding may take long, so it is done there.

    Attributes:
        edit: the edit, without its value, or without its operations.
        data: the value of a `Replace`, or the list of operations of a `Patch`.
    """

    edit: Replace | Patch
    data: bytes


Task = Edit | Written | Reading
"""What is done with a document that stays."""

Outcome = bytes | CollabError
"""What came of a task, or why it was refused.

Of an edit it is its v1 update, empty if it changes nothing. Of a reading it is what was read: text in UTF-8, or JSON.
"""


class Ending(StrEnum):
    """Why a document does not stay loaded any longer."""

    RELEASED = "released"
    """Who used it has ended it: the document is another one now, or an edit of it was not taken."""
    IDLE = "idle"
    """Nobody has used it for long."""
    ROOM = "room"
    """It has made room for others."""
    FAILED = "failed"
    """A job on it has failed, and may have left anything behind."""
    PROCESS = "process"
    """The process in which it was has gone, because of a job on another document."""
    CLOSED = "closed"
    """The sandbox is closed."""


class Stay(Protocol):
    """One document that stays loaded in a process, so that a task costs what it changes and not the whole document.

    **Promise.** The document is the one that was loaded, with all updates that were given and all edits that were made
    since. All edits of a stay are of one client ID, clock after clock; so who makes edits gives all of them to the
    document, in order, or ends the stay. A stay ends by itself when its process dies, or has to make room for others.
    A client ID is never used again after its stay.

    Attributes:
        client_id: of whom the edits are.
        ending: why the stay has ended; None while it goes on.
        over: whether the stay has ended.
    """

    client_id: int

    @property
    def ending(self) -> Ending | None:
        """See above."""
        ...

    @property
    def over(self) -> bool:
        """See above."""
        ...

    async def run(self, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """Add v1 updates of others to the document, then do tasks in order, each with what those before it changed.

        A task that is refused changes nothing, and its outcome is a CollabError.

        Raises SandboxBusy when nothing was done, because the stay is over, too much waits or the sandbox is closed;
        SandboxTimeout and SandboxCrashed, after which the stay is over.
        """
        ...

    def end(self) -> None:
        """End the stay; harmless when called again."""
        ...


class Sandbox(Protocol):
    """Run jobs on whole documents.

    **Promise.** A job gives its result or raises, within a bounded time, and harms nothing else: neither the loop that
    waits for it, nor the memory of the process that serves. The same arguments give the same result.
    """

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document (`collab.update.compact.compact`) and make its index.

        Raises UpdateError when ``data`` is no update; SandboxTimeout, SandboxCrashed, and SandboxBusy when too
        many jobs wait or the sandbox is closed.
        """
        ...

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return what a document shows in a format, as values that JSON can hold (`collab.sandbox.jobs.content`).

        Raises what `compact` raises, UnreadableContent for a document that the library cannot read, and ContentError
        when there is no such root, or it is none for the format.
        """
        ...

    async def show(self, data: bytes, format: Format, root: str | None = None) -> bytes:
        """Return what `content` does, encoded: a text in UTF-8, or JSON. So the caller has no long list of values."""
        ...

    async def make(self, edit: Edit, client_id: int) -> bytes:
        """Make a document of content: the v1 update of an edit of an empty one, by ``client_id``.

        Raises what `content` raises; ContentError when the edit cannot be made.
        """
        ...

    async def stay(self, data: bytes, client_id: int) -> Stay:
        """Load a whole document, a v1 update, so that it stays; its edits will be of ``client_id``.

        The ID is random, as yjs makes them (32 bits), in no state vector of the document, and no other stay's ever.
        Of the documents that stay only so many are kept: the one that was used longest ago goes first.

        Raises what `content` raises.
        """
        ...

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """Make the update that resets a document, and others that had its name (`collab.update.reset.reset_update`).

        With ``known``, an encoded state vector, only what that lacks, and the whole delete set: for the log in which
        the document is. Raises what `compact` raises, and LimitExceeded where there is no number for another reset.
        """
        ...

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """Make of whole documents what remains without their content (`collab.update.reset.skeleton`).

        With ``known``, an encoded state vector, only what that lacks. Raises what `compact` raises.
        """
        ...

    async def find_hazard(self, data: bytes) -> str | None:
        """Tell why yjs would throw on a whole document, now or later (`collab.update.hazards.find_hazard`).

        Raises what `compact` raises.
        """
        ...

    async def show_history(self, question: Question) -> Shown:
        """Answer what is asked of the history of a document (`collab.sandbox.jobs.show_history`).

        Raises as `look_back`.
        """
        ...

    async def look_back(self, task: HistoryTask) -> bytes:
        """Make something of the history of a document (`collab.sandbox.jobs.look_back`).

        Raises what `compact` and that raise, DocumentTooLarge when the document is too large for it.
        """
        ...

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        """Rebuild what a document held, exactly, with its index (`collab.engine.rebuilt.rebuild`).

        None if it is not whole. Unless the caller is ``patient``, it waits for no long job: the caller can do the same,
        and only wants to spare its loop.

        Raises SandboxBusy when it cannot begin soon, or too many wait, or has more than ``MAX_REBUILT_BYTES``;
        SandboxTimeout, SandboxCrashed.
        """
        ...

    async def close(self) -> None:
        """Stop; jobs that run end with SandboxBusy. Harmless when called again."""
        ...
