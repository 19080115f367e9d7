"""The port of versions: numbers of a document's log that have a name, or were noted by themselves.

Strategy: a version costs a small row, for the log can be read up to any number. Only when pruning wants the rows that a
named version needs, its state is kept beside the log: it is **pinned**. The store computes no state. So pruning stops
before a named version that is not pinned, and whoever runs it pins those that are in its way (``unpinned``,
``pin_version``). Automatic versions hold up nothing: they go with their rows.

A version may also come from another system. It is no number of this log (0), and is pinned from the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from collab.errors import LimitExceeded
from collab.protocol.names import covers
from collab.storage.records import KEEP, Keep, LogRow, Snapshot

MAX_NAMED: Final = 1_000
"""Named versions of one document, imported ones included. Each may come to hold a whole copy."""

MAX_AUTOMATIC: Final = 1_000
"""Automatic versions of one document; the oldest ones go for newer ones."""

MAX_NAME_BYTES: Final = 800
MAX_DESCRIPTION_BYTES: Final = 8_000
"""Bytes of UTF-8 of what is said of a version: 200 and 2,000 of the longest characters."""


class Kind(StrEnum):
    """Who has made a version."""

    NAMED = "named"
    AUTOMATIC = "automatic"


class Reason(StrEnum):
    """Why there is a version."""

    MADE = "made"
    """Somebody has made it: a named one."""
    IMPORTED = "imported"
    """It comes from another system: a named one, too."""
    PAUSE = "pause"
    """Nobody has edited for a while after it."""
    RESTORE = "restore"
    """An older version was restored after it."""
    RESET = "reset"
    """The document was reset after it."""
    AGENT = "agent"
    """A program has begun to edit over HTTP after it."""


class Version(NamedTuple):
    """A version as kept.

    Attributes:
        id: names it in its storage, and is never used again.
        seq: the number of the log after which it is the state; 0: it was imported.
        kind: who has made it.
        reason: why it is there.
        name: what people call it; None for automatic ones, until somebody names it.
        description: what else they say of it.
        author: who has made it; of an imported one, who is said to have.
        at: unix seconds: when a named one was made, the time of the last edit in an automatic one.
        pinned: whether its state is kept beside the log.
    """

    id: int
    seq: int
    kind: Kind
    reason: Reason
    name: str | None
    description: str | None
    author: str | None
    at: float
    pinned: bool

    @property
    def place(self) -> tuple[int, float, int]:
        """Where it stands in listings, which begin with the greatest."""
        return self.seq, self.at, self.id


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that somebody makes; see ``Version``.

    Raises:
        LimitExceeded: a text is too long.
    """

    name: str
    description: str | None
    author: str | None
    at: float

    def __post_init__(self) -> None:
        check_texts(self.name, self.description)


class Unpinned(NamedTuple):
    """A named version that pruning will want the rows of, with its document."""

    document_id: int
    document_name: str
    version: Version


class History(NamedTuple):
    """For documents that a pattern covers, every state since ``before`` (unix seconds) can be rebuilt.

    A pattern is a name, or the beginning of names with a ``*`` behind (``collab.protocol.names.covers``).
    """

    pattern: str
    before: float


def check_texts(name: str | Keep | None, description: str | Keep | None) -> None:
    """Raise ``LimitExceeded`` if a text is longer than a version may have; lone surrogates are no text."""
    for what, text, most in (("name", name, MAX_NAME_BYTES), ("description", description, MAX_DESCRIPTION_BYTES)):
        if isinstance(text, str) and len(text.encode(errors="replace")) > most:
            said = f"the {what} of a version has at most {most} bytes of UTF-8"
            raise LimitExceeded(said, public=said)


class Versions(Protocol):
    """Keep versions of documents.

    A version goes with the content of its document when that was deleted, and not before: it outlives renaming and
    the trash. Durable as the catalogue is: when a method returns. Of a document that lives, every state that a named
    version stands for can be read as long as there is the version, whatever is pruned.

    Methods with a ``document_id`` raise ``DocumentNotFound`` for a tombstone and an unknown id; those with the id of a
    version ``NoSuchVersion`` where this document has none with it.
    """

    async def make_version(self, document_id: int, seq: int, new: NewVersion) -> Version:
        """Give a number of the log a name. Receivers of webhooks are told in the same transaction.

        An automatic version of the number becomes the named one, and keeps its id.

        Raises ``HistoryGone`` if the state after row ``seq`` cannot be rebuilt, or there is no such row;
        ``TooManyVersions`` if there are ``MAX_NAMED``.
        """
        ...

    async def make_automatic(
        self, document_id: int, seq: int, reason: Reason, at: float, spacing: float
    ) -> Version | None:
        """Note a number of the log, whose newest row is of the time ``at``.

        Returns None, and changes nothing, if the number has a version, there is an automatic one less than ``spacing``
        seconds away from ``at``, or its state cannot be rebuilt. Of more than ``MAX_AUTOMATIC`` the oldest go.
        """
        ...

    async def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        """Keep a version that comes from elsewhere, with its state; ``state.seq`` is 0.

        Raises ``TooManyVersions`` as above, ``StoreRefused`` if the state is larger than the store can hold.
        """
        ...

    async def versions(
        self,
        document_id: int,
        *,
        kind: Kind | None = None,
        after: tuple[int, float, int] | None = None,
        between: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[Version]:
        """List versions, the greatest ``place`` first; imported ones are last.

        Only those of a ``kind``; those with places below ``after``; those with numbers from the first to the last of
        ``between``. A tombstone has none.
        """
        ...

    async def version(self, document_id: int, version_id: int) -> Version:
        """Read one version."""
        ...

    async def change_version(
        self,
        document_id: int,
        version_id: int,
        *,
        name: str | Keep = KEEP,
        description: str | None | Keep = KEEP,
    ) -> Version:
        """Change what is said of a version. An automatic one that gets a name is a named one from then on.

        Raises ``LimitExceeded`` if a text is too long; ``TooManyVersions`` and ``HistoryGone`` as ``make_version``.
        """
        ...

    async def delete_version(self, document_id: int, version_id: int) -> None:
        """Remove a version, and its state."""
        ...

    async def load_version(
        self, document_id: int, version_id: int
    ) -> tuple[Version, tuple[Snapshot | None, list[LogRow]]]:
        """Read a version with what rebuilds its state, as ``Log.load_at`` gives it.

        Of a pinned one that is its state, as it is: the caller compares its checksum. Raises ``HistoryGone`` for an
        automatic one whose rows are being pruned.
        """
        ...

    async def unpinned(
        self, *, before: float, histories: Sequence[History] = (), after: int = 0, limit: int = 100
    ) -> list[Unpinned]:
        """List named versions that hold up pruning, by their ids, from above ``after``.

        ``before`` and ``histories`` are those that ``Log.prune`` is called with. It may list more than those.
        """
        ...

    async def pin_version(self, document_id: int, version_id: int, state: Snapshot) -> bool:
        """Keep the state of a version beside the log; ``state.seq`` is its number. Tell whether this has changed it.

        False too if there is no such version any more. Raises ``StoreRefused`` if it is larger than the store can hold.
        """
        ...


def named(version: Version, name: str | Keep, description: str | None | Keep) -> Version:
    """Give a version with other texts; one that has a name is a named one."""
    check_texts(name, description)
    if not isinstance(name, Keep):
        version = version._replace(name=name, kind=Kind.NAMED)
    return version if isinstance(description, Keep) else version._replace(description=description)


def is_near(at: float, other: float, spacing: float) -> bool:
    """Tell whether two automatic versions are too near to each other."""
    return abs(at - other) < spacing


def keep_state(state: Snapshot) -> Snapshot:
    """Give a state with bytes that nobody else can change."""
    parts = (state.data, state.index, state.state_vector)
    data, index, vector = (bytes(part) for part in parts)
    return replace(state, data=data, index=index, state_vector=vector)


def history_of(name: str, before: float, histories: Sequence[History]) -> float:
    """Give the time since which every state of a document is kept: of the first pattern that covers its name."""
    return next((each.before for each in histories if covers(each.pattern, name)), before)
