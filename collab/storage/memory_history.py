"""Versions and timelines in memory: see :mod:`collab.storage.versions` and :mod:`collab.storage.timeline`.

Strategy: as in :mod:`collab.storage.memory`: each method is one step, so it is a transaction. What is kept of a
document lies with the document; here is what is done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from collab.errors import DocumentNotFound, HistoryGone, NoSuchVersion, StoreRefused, TooManyVersions
from collab.storage.records import MAX_ROW_BYTES, Keep, LogRow, Snapshot, StoredDocument
from collab.storage.timeline import MAX_ENTRIES, Entry, Page, RowFacts, Summarised, closing, fold, reaching
from collab.storage.versions import (
    MAX_AUTOMATIC,
    MAX_NAMED,
    History,
    Kind,
    NewVersion,
    Reason,
    Unpinned,
    Version,
    history_of,
    is_near,
    keep_state,
    named,
)


@dataclass(slots=True)
class KeptHistory:
    """What a document has beside its log: versions and states by their ids, and entries in order."""

    versions: dict[int, Version] = field(default_factory=dict)
    states: dict[int, Snapshot] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def needs(self) -> int | None:
        """Give the lowest number that a named version needs the log for."""
        found = [each.seq for each in self.versions.values() if each.kind is Kind.NAMED and not each.pinned]
        return min(found, default=None)

    def forget_before(self, seq: int) -> None:
        """Forget automatic versions whose rows have gone."""
        gone = [each.id for each in self.versions.values() if each.kind is Kind.AUTOMATIC and each.seq < seq]
        for version_id in gone:
            del self.versions[version_id]

    def clear(self) -> None:
        """Forget all of it."""
        self.versions.clear()
        self.states.clear()
        self.entries.clear()


class Kept(Protocol):
    """A document with what is kept of it, as far as it is read here."""

    document: StoredDocument
    rows: list[LogRow]
    snapshots: list[Snapshot]
    history: KeptHistory

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        ...

    def between(self, after: int, last: int) -> list[LogRow]:
        """Give the rows with numbers above ``after`` up to ``last``, as far as they are kept."""
        ...


class Documents(Protocol):
    """The documents of the storage."""

    def kept(self, document_id: int) -> Kept | None:
        """Give all that is kept of a document or a tombstone."""
        ...

    def all_kept(self) -> Sequence[Kept]:
        """Give all documents and tombstones in the order of their ids."""
        ...

    def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Give what rebuilds the state after row ``seq``."""
        ...


class MemoryHistory:
    """The versions and timelines of a storage."""

    def __init__(self, storage: Documents) -> None:
        self._storage = storage
        self._last_id = 0

    def _living(self, document_id: int) -> Kept:
        kept = self._storage.kept(document_id)
        if kept is None or kept.deleted:
            raise DocumentNotFound(f"there is no document with the id {document_id}")
        return kept

    def _version(self, kept: Kept, version_id: int) -> Version:
        found = kept.history.versions.get(version_id)
        if found is None:
            raise NoSuchVersion(f"there is no version with the id {version_id}")
        return found

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _check_number(self, kept: Kept, seq: int) -> None:
        if not 0 < seq <= kept.document.head_seq or self._storage.load_at(kept.document.id, seq) is None:
            raise HistoryGone(f"the state after row {seq} cannot be rebuilt")

    def _check_room(self, kept: Kept) -> None:
        count = sum(1 for each in kept.history.versions.values() if each.kind is Kind.NAMED)
        if count >= MAX_NAMED:
            raise TooManyVersions(f"document number {kept.document.id} has {count} named versions")

    def make(self, document_id: int, seq: int, new: NewVersion) -> Version:
        """Give a number a name."""
        kept = self._living(document_id)
        self._check_number(kept, seq)
        self._check_room(kept)
        automatic = [
            each.id for each in kept.history.versions.values() if each.seq == seq and each.kind is Kind.AUTOMATIC
        ]
        version_id = automatic[0] if automatic else self._next_id()
        at = round(new.at * 1e6) / 1e6
        version = Version(
            version_id, seq, Kind.NAMED, Reason.MADE, new.name, new.description, new.author, at, pinned=False
        )
        kept.history.versions[version_id] = version
        return version

    def make_automatic(self, document_id: int, seq: int, reason: Reason, at: float, spacing: float) -> Version | None:
        """Note a number, if that is worth it."""
        kept = self._living(document_id)
        others, at = kept.history.versions.values(), round(at * 1e6) / 1e6
        if not 0 < seq <= kept.document.head_seq or self._storage.load_at(document_id, seq) is None:
            return None
        automatic = [each for each in others if each.kind is Kind.AUTOMATIC]
        if any(each.seq == seq for each in others) or any(is_near(at, each.at, spacing) for each in automatic):
            return None
        for each in sorted(automatic, key=lambda each: each.place)[: max(0, len(automatic) + 1 - MAX_AUTOMATIC)]:
            del kept.history.versions[each.id]
        version = Version(self._next_id(), seq, Kind.AUTOMATIC, reason, None, None, None, at, pinned=False)
        kept.history.versions[version.id] = version
        return version

    def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        """Keep a version from elsewhere."""
        kept = self._living(document_id)
        _check_size(state)
        self._check_room(kept)
        at = round(new.at * 1e6) / 1e6
        texts = (new.name, new.description, new.author)
        version = Version(self._next_id(), 0, Kind.NAMED, Reason.IMPORTED, *texts, at, pinned=True)
        kept.history.versions[version.id] = version
        kept.history.states[version.id] = keep_state(state)
        return version

    def versions(
        self,
        document_id: int,
        kind: Kind | None,
        after: tuple[int, float, int] | None,
        between: tuple[int, int] | None,
        limit: int,
    ) -> list[Version]:
        """List versions."""
        kept = self._storage.kept(document_id)
        if kept is None or kept.deleted:
            return []
        found = [
            each
            for each in kept.history.versions.values()
            if kind in (None, each.kind)
            and (after is None or each.place < after)
            and (between is None or between[0] <= each.seq <= between[1])
        ]
        return sorted(found, key=lambda each: each.place, reverse=True)[:limit]

    def version(self, document_id: int, version_id: int) -> Version:
        """Give one version."""
        return self._version(self._living(document_id), version_id)

    def change(self, document_id: int, version_id: int, name: str | Keep, description: str | None | Keep) -> Version:
        """Change the texts of a version."""
        kept = self._living(document_id)
        found = self._version(kept, version_id)
        version = named(found, name, description)
        if version.kind is not found.kind:
            self._check_number(kept, version.seq)
            self._check_room(kept)
        kept.history.versions[version_id] = version
        return version

    def delete(self, document_id: int, version_id: int) -> None:
        """Forget a version."""
        kept = self._living(document_id)
        del kept.history.versions[self._version(kept, version_id).id]
        kept.history.states.pop(version_id, None)

    def load(self, document_id: int, version_id: int) -> tuple[Version, tuple[Snapshot | None, list[LogRow]]]:
        """Give a version with its state."""
        kept = self._living(document_id)
        version = self._version(kept, version_id)
        if version.pinned:
            return version, (kept.history.states[version_id], [])
        found = self._storage.load_at(document_id, version.seq)
        if found is None:
            raise HistoryGone(f"the state after row {version.seq} is gone")
        return version, found

    def unpinned(self, before: float, histories: Sequence[History], after: int, limit: int) -> list[Unpinned]:
        """List versions that hold up pruning."""
        found: list[Unpinned] = []
        for kept in self._storage.all_kept():
            if kept.deleted:
                continue
            since = history_of(kept.document.name, before, histories)
            for each in kept.history.versions.values():
                following = kept.between(each.seq, each.seq + 1)
                old = not following or following[0].at < since
                newer = sum(1 for snapshot in kept.snapshots if snapshot.seq > each.seq)
                if each.kind is Kind.NAMED and not each.pinned and each.id > after and old and newer > 1:
                    found.append(Unpinned(kept.document.id, kept.document.name, each))
        return sorted(found, key=lambda each: each.version.id)[:limit]

    def pin(self, document_id: int, version_id: int, state: Snapshot) -> bool:
        """Keep the state of a version."""
        _check_size(state)
        kept = self._storage.kept(document_id)
        found = None if kept is None or kept.deleted else kept.history.versions.get(version_id)
        if kept is None or found is None or found.pinned or found.seq != state.seq:
            return False
        kept.history.versions[version_id] = found._replace(pinned=True)
        kept.history.states[version_id] = keep_state(state)
        return True

    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        """Put the next rows into entries."""
        kept = self._storage.kept(document_id)
        if kept is None or kept.deleted:
            return None
        entries = kept.history.entries
        last = entries[-1] if entries else None
        rows = kept.between(0 if last is None else last.last, kept.document.head_seq)[:limit]
        folded = fold(last, (RowFacts(row.seq, row.at, row.author, len(row.data), row.note) for row in rows))
        del entries[-1:]
        entries += folded.entries
        del entries[: max(0, len(entries) - MAX_ENTRIES)]
        left = kept.document.head_seq - rows[-1].seq if rows else 0
        pauses, open_until = closing(folded.pauses, entries[-1] if entries else None, left, now)
        for seq, at in pauses if spacing is not None else ():
            self.make_automatic(document_id, seq, Reason.PAUSE, at, spacing or 0.0)
        return Summarised(left, open_until)

    def timeline(self, document_id: int, before: int | None, limit: int) -> Page:
        """Give entries."""
        kept = self._living(document_id)
        entries = kept.history.entries
        found = [each for each in entries if before is None or each.first < before]
        head = kept.document.head_seq
        oldest = kept.rows[0].seq if kept.rows else None
        reaches = reaching(oldest, [each.seq for each in kept.snapshots], head)
        return Page(found[::-1][:limit], reaches, entries[-1].last if entries else 0, head)

    def unsummarised(self, after: int, limit: int) -> tuple[list[int], int | None]:
        """Find documents with rows in no entry."""
        page = [kept for kept in self._storage.all_kept() if kept.document.id > after and not kept.deleted][:limit]
        found = [kept.document.id for kept in page if _summarised(kept) < kept.document.head_seq]
        return found, page[-1].document.id if len(page) == limit else None


def _summarised(kept: Kept) -> int:
    return kept.history.entries[-1].last if kept.history.entries else 0


def _check_size(state: Snapshot) -> None:
    if max(len(state.data), len(state.index), len(state.state_vector)) > MAX_ROW_BYTES:
        raise StoreRefused(f"a state of {len(state.data)} bytes is more than the store takes")
