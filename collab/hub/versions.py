"""Versions of documents: made, listed, read and kept; and the state after any number of a log.

Strategy: a version is a number of the log, so making one writes a row. Its state is rebuilt when somebody asks for it
(``collab.hub.rebuilding``).

A named version is pinned only when pruning is about to take what it needs. Automatic versions are noted by the
timeline (after a pause), and here before something that changes much at once.
"""

from __future__ import annotations

import asyncio
import builtins
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from collab.auth.guests import is_guest
from collab.content.edits import Format
from collab.engine.answers import collect, compare
from collab.engine.document import Document
from collab.engine.tags import name_state
from collab.errors import (
    CollabError,
    DamagedDocument,
    HistoryGone,
    LimitExceeded,
    SandboxError,
    StoreUnavailable,
)
from collab.hub.guests import guest_names
from collab.hub.loading import find_living
from collab.hub.rebuilding import Rebuilding, encode
from collab.hub.slices import apart, in_slices
from collab.hub.transfer import whole_update
from collab.sandbox.port import Sandbox
from collab.storage.checksums import beside_the_loop, seal_snapshot
from collab.storage.records import KEEP, Head, Keep, NewGuest, Snapshot
from collab.storage.store import Store
from collab.storage.versions import History, Kind, NewVersion, Reason, Unpinned, Version
from collab.telemetry import get_logger, shown_name
from collab.update.compact import Compacted, compact
from collab.update.parts import Parts

_log = get_logger("versions")

# Documents of which it is remembered when a program has begun to edit them.
_AGENTS: Final = 10_000

# Versions that are looked at in one query for those to be pinned.
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """What the settings say of the history; times in seconds.

    Attributes:
        spacing: between two automatic versions of a document, at least; None: there are none.
        kept: for documents that a pattern covers, how long history is kept instead of the usual; the first one counts.
    """

    spacing: float | None = None
    kept: tuple[tuple[str, float], ...] = ()


class Which(NamedTuple):
    """Which state of a document is meant: that of a version, or that after a number of its log."""

    version: int | None = None
    number: int | None = None


class State(NamedTuple):
    """A document as it was.

    Attributes:
        number: after which row; 0: it comes from elsewhere, or is empty.
        document: what it held.
        version: of which it is the state, if it was asked for.
    """

    number: int
    document: Document
    version: Version | None

    async def tag(self) -> str:
        """Name the state, as the state of a live document is named."""
        return await in_slices(apart(name_state(self.document)))

    async def lacking(self, state_vector: bytes) -> Parts:
        """Give what a client with this state vector (v1 bytes) lacks of it; raises ``DecodeError``."""
        compared = await in_slices(compare(self.document, state_vector))
        return await in_slices(apart(collect(self.document, compared)))


class Rooms(Protocol):
    """The documents that are live on this node."""

    async def until_stored(self, name: str) -> None:
        """Return when everything that was taken of a document is in the store; at once if it is not live."""
        ...


class Compacting(Protocol):
    """Compacts whole documents."""

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """See ``Sandbox.compact``."""
        ...


class CompactsInThread:
    """Compacts in a thread of this process, for a command line."""

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """See ``Sandbox.compact``."""
        return await asyncio.to_thread(compact, data, gc=gc)


class Versions:
    """The versions of documents, by the names of documents.

    Args:
        store: where they are kept.
        sandbox: where states are compacted before they are kept.
        rooms: those that are live on this node; None where there are none, as in a command line.
        clock: wall-clock time in Unix seconds.
        options: see ``HistoryOptions``.
        rebuilding: rebuilds states, together with others; None: for this alone.

    Attributes:
        pinned: how many versions this node has pinned.
    """

    def __init__(
        self,
        store: Store,
        sandbox: Compacting,
        rooms: Rooms | None = None,
        clock: Callable[[], float] = time.time,
        options: HistoryOptions | None = None,
        rebuilding: Rebuilding | None = None,
    ) -> None:
        self._store = store
        self._sandbox = sandbox
        self._rooms = rooms
        self._clock = clock
        self._options = HistoryOptions() if options is None else options
        self._rebuilding = Rebuilding(store) if rebuilding is None else rebuilding
        self._agents: OrderedDict[int, float] = OrderedDict()
        self.pinned = 0

    # What can be asked

    async def make(
        self,
        name: str,
        title: str,
        *,
        description: str | None = None,
        number: int | None = None,
        author: str | None = None,
        guest: NewGuest | None = None,
    ) -> Version:
        """Give what a document holds now, or held after a row, a name; ``guest`` says what its author is called.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            HistoryGone: there is no such number, its rows are pruned, or the document has no edit yet.
            TooManyVersions, LimitExceeded: there are too many, or a text is too long.
        """
        head = await self.stored(name)
        seq = head.seq if number is None else number
        new = NewVersion(title, description, author, self._clock())
        if guest is not None:
            await self._store.keep_guest(head.document_id, guest)
        version = await self._store.make_version(head.document_id, seq, new)
        _log.info("version %d of %s is number %d", version.id, shown_name(name), version.seq)
        return version

    async def import_(
        self,
        name: str,
        title: str,
        update: bytes,
        at: float,
        *,
        description: str | None = None,
        author: str | None = None,
    ) -> Version:
        """Keep a version that comes from another system, with its time and its author.

        Args:
            name: of the document, which may hold anything.
            title: the name of the version.
            update: all that the document held then, a whole v1 update.
            at: when that was, in Unix seconds.
            description, author: what else is said of it.

        Raises:
            UpdateError: the update is malformed, or builds on what is not in it.
            SandboxError: it cannot be compacted now.
            DocumentNotFound, DocumentDeleted, TooManyVersions, LimitExceeded, StoreRefused: as ``make``.
        """
        stored = (await self._store.describe(name)).document
        new = NewVersion(title, description, author, at)
        document = Document()
        await in_slices(document.apply_update_in_slices(await in_slices(whole_update(update)), stored=True))
        state = await self._state_of(document, 0, at, gc=stored.gc)
        return await self._store.import_version(stored.id, new, state)

    async def list(
        self,
        name: str,
        *,
        kind: Kind | None = None,
        after: tuple[int, float, int] | None = None,
        limit: int = 100,
    ) -> builtins.list[Version]:
        """List versions, those of the newest states first; see ``Store.versions``. Raises as ``Store.describe``."""
        head = await find_living(self._store, name)
        return await self._store.versions(head.document_id, kind=kind, after=after, limit=limit)

    async def between(self, document_id: int, first: int, last: int, limit: int) -> builtins.list[Version]:
        """List versions with numbers from ``first`` to ``last``, the newest states first."""
        return await self._store.versions(document_id, between=(first, last), limit=limit)

    async def guest_names(self, name: str, versions: builtins.list[Version]) -> dict[str, str]:
        """Read what the guests among the authors of versions are called."""
        if not any(each.author is not None and is_guest(each.author) for each in versions):
            return {}
        head = await find_living(self._store, name)
        return await guest_names(self._store, head.document_id, [each.author for each in versions])

    async def describe(self, name: str, version_id: int) -> Version:
        """Give one version; raises ``NoSuchVersion``, and as ``Store.describe``."""
        head = await find_living(self._store, name)
        return await self._store.version(head.document_id, version_id)

    async def change(
        self, name: str, version_id: int, *, title: str | Keep = KEEP, description: str | None | Keep = KEEP
    ) -> Version:
        """Change what is said of a version; one that gets a name is kept from then on.

        Raises: ``NoSuchVersion``, and as ``make``.
        """
        head = await find_living(self._store, name)
        return await self._store.change_version(head.document_id, version_id, name=title, description=description)

    async def delete(self, name: str, version_id: int) -> None:
        """Delete a version; the document and its log stay as they are. Raises as ``describe``."""
        head = await find_living(self._store, name)
        await self._store.delete_version(head.document_id, version_id)
        _log.info("deleted version %d of %s", version_id, shown_name(name))

    async def state(self, name: str, which: Which) -> State:
        """Rebuild what a document held.

        Raises:
            DocumentNotFound, DocumentDeleted, NoSuchVersion: there is no such document or version.
            HistoryGone: the rows are pruned, or were never there.
            DamagedDocument: what is stored cannot be read.
        """
        head = await find_living(self._store, name)
        if which.number is not None and which.number > head.seq:
            head = await self.stored(name)
        return await self.rebuild(name, head, which)

    async def rebuild(self, name: str, head: Head, which: Which) -> State:
        """Rebuild what a document held whose newest row is that of ``head``. Raises as ``state``."""
        if which.version is not None:
            version, document = await self._rebuilding.version(name, head.document_id, which.version)
            return State(version.seq, document, version)
        assert which.number is not None
        if not 0 <= which.number <= head.seq:
            raise HistoryGone(f"{name!r} has no row {which.number}")
        return State(which.number, await self._rebuilding.at(name, head.document_id, which.number), None)

    async def stored(self, name: str) -> Head:
        """Find a document when all of it that was taken on this node is stored. Raises as ``find_living``."""
        if self._rooms is not None:
            await self._rooms.until_stored(name)
        return await find_living(self._store, name)

    async def number_at(self, name: str, at: float) -> int:
        """Find the number of the last row that was written up to a time, in Unix seconds; 0: none was.

        Raises: as ``Store.describe``, and ``HistoryGone`` if the rows of that time are pruned.
        """
        head = await self.stored(name)
        oldest = await self._store.rows_after(head.document_id, 0, 1)
        if not oldest or oldest[0].at > at:
            if head.seq and (not oldest or oldest[0].seq > 1):
                raise HistoryGone(f"the rows of {name!r} of that time are pruned")
            return 0
        low, high = oldest[0].seq, head.seq
        while low < high:
            middle = (low + high + 1) // 2
            rows = await self._store.rows_after(head.document_id, middle - 1, 1)
            if rows and rows[0].at <= at:
                low = middle
            else:
                high = middle - 1
        return low

    # What happens by itself

    async def note(self, document_id: int, seq: int, reason: Reason) -> None:
        """Note the state after a row as an automatic version, before something changes much at once.

        That never hinders what it is done for: it is left out if the store cannot do it now.
        """
        if self._options.spacing is None or seq < 1:
            return
        try:
            await self._store.make_automatic(document_id, seq, reason, self._clock(), self._options.spacing)
        except CollabError as error:
            _log.warning("no version of document number %d is noted: %s", document_id, error)

    def begins_to_edit(self, document_id: int | None, now: float) -> bool:
        """Tell whether a program that edits a document over HTTP has not done so for the time between two versions."""
        spacing = self._options.spacing
        if document_id is None or spacing is None:
            return False
        last = self._agents.pop(document_id, None)
        self._agents[document_id] = now
        if len(self._agents) > _AGENTS:
            self._agents.popitem(last=False)
        return last is None or now - last >= spacing

    def histories(self) -> tuple[History, ...]:
        """Give since when history is kept for documents that have a time of their own."""
        now = self._clock()
        return tuple(History(pattern, now - seconds) for pattern, seconds in self._options.kept)

    async def pin_due(self, before: float, histories: Sequence[History]) -> int:
        """Keep the states of named versions beside the log that pruning is about to take; tell how many.

        One that cannot be kept now stays in the way of pruning, and is tried again the next time.

        Raises:
            StoreUnavailable: the store cannot be read or written now.
        """
        pinned = after = 0
        while page := await self._store.unpinned(before=before, histories=histories, after=after, limit=_PAGE):
            for each in page:
                after = each.version.id
                pinned += await self._pin(each)
        self.pinned += pinned
        return pinned

    async def _pin(self, due: Unpinned) -> bool:
        name, version = due.document_name, due.version
        try:
            stored = (await self._store.describe_id(due.document_id)).document
            document = await self._rebuilding.at(name, stored.id, version.seq)
            state = await self._state_of(document, version.seq, version.at, gc=stored.gc)
            return await self._store.pin_version(stored.id, version.id, state)
        except StoreUnavailable:
            raise
        except (SandboxError, LimitExceeded, DamagedDocument, HistoryGone) as error:
            _log.warning("version %d of %s is not kept beside the log yet: %s", version.id, shown_name(name), error)
        except CollabError as error:
            _log.info("version %d of %s is gone: %s", version.id, shown_name(name), error)
        return False

    # How it is done

    async def _state_of(self, document: Document, seq: int, at: float, *, gc: bool) -> Snapshot:
        data = await encode(document)
        compacted = await self._sandbox.compact(data, gc)
        unsealed = Snapshot(seq, compacted.data, compacted.index, document.encode_state_vector(), at)
        return await beside_the_loop(len(compacted.data), lambda: seal_snapshot(unsealed))


class Past:
    """Shows what documents held.

    Args:
        versions: rebuilds it.
        sandbox: where it is read.
    """

    def __init__(self, versions: Versions, sandbox: Sandbox) -> None:
        self._versions = versions
        self._sandbox = sandbox

    async def state(self, name: str, which: Which) -> State:
        """See ``Versions.state``."""
        return await self._versions.state(name, which)

    async def show(self, state: State, format: Format, root: str | None) -> bytes:
        """Read a state in a format: UTF-8, or JSON; raises what ``Sandbox.content`` raises."""
        return await self._sandbox.show(await encode(state.document), format, root)
