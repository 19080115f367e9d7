"""Looking whether what is stored of a document is whole, and putting in order what is not.

Strategy: both are done beside running servers, and by one, on its loop: whatever takes long is read in slices, or by
who is asked for that. ``verify`` reads every row and every snapshot. Where there is a checksum it is compared; where
there is none the bytes are read as an update. Then the document is put together as a server does. Only what has passed
all of this is given checksums (``fill``), because a checksum for bytes that nobody has read would certify damage.

``plan_repair`` says what would be done and ``carry_out`` does it. Numbers stay without gaps: an empty update takes the
place of a damaged row. Nothing is thrown away: the damaged bytes are written to files before anything changes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from collab.errors import CollabError, DecodeError, StoreDamaged
from collab.history.encoding import decode_attribution
from collab.hub import beside
from collab.hub.loading import is_damaged_pending, is_unreadable, read_document
from collab.hub.slices import in_slices
from collab.protocol.sync import EMPTY_STATE_VECTOR, EMPTY_UPDATE
from collab.storage.attributions import KeptAttribution
from collab.storage.checksums import (
    beside_the_loop,
    is_damaged,
    is_damaged_snapshot,
    row_checksum,
    seal_row,
    seal_snapshot,
    snapshot_checksum,
)
from collab.storage.maintenance import KeptEntry, Maintenance
from collab.storage.records import ClientOwner, LogRow, NewRow, PendingUpdate, Snapshot, StoredDocument
from collab.update.hazards import find_hazard
from collab.update.reader import find_poison_in_slices

_SHOWN = 10
"""Client IDs that are named in one sentence."""

PAGE = 200
"""Rows read at once."""

_LOOKS = 3
"""How often a document is looked at when rows seem to be missing: a running server may have pruned in between."""


@dataclass(slots=True)
class Report:
    """What was found of one document.

    Attributes:
        name, id: the document's.
        deleted: whether it is in the trash.
        rows, snapshots, nbytes: what is kept and was read.
        pending: how many updates wait for what the document lacks; they are no part of it.
        damaged_rows, damaged_snapshots, damaged_pending: numbers of what is not what was written.
        damaged_versions: ids of versions whose state, which is kept beside the log, is damaged or missing.
        damaged_attribution: whether it is damaged what is kept of who wrote what.
        unsound_owners: client IDs whose owner cannot be.
        unsound_entries: first numbers of entries of the timeline that cannot be.
        timeline_gaps: first and last number of rows that are kept and left out of the timeline.
        unsound_cursor: up to which row receivers of webhooks were told, if there is no such row.
        unsound_mark: since when webhooks have to be told, if that lies days ahead.
        kept: first and last number of rows that are there and follow on each other.
        left: what `plan_repair` has found that cannot be repaired, and why.
        missing: first and last number of rows that should be there and are not.
        unverified_rows, unverified_snapshots: how many have no checksum; an older release has written them.
        filled: how many of them were given one.
        noted: whether damage is noted, so that nothing of the document is pruned.
        problem: why the document cannot be put together though nothing of it seems damaged; None if it can.
        poison: rows and snapshots on which every yjs client stops sending, and why; an older release has taken them.
    """

    name: str
    id: int
    rows: int = 0
    snapshots: int = 0
    pending: int = 0
    nbytes: int = 0
    damaged_rows: list[int] = field(default_factory=list)
    damaged_snapshots: list[int] = field(default_factory=list)
    damaged_pending: list[int] = field(default_factory=list)
    damaged_versions: list[int] = field(default_factory=list)
    damaged_attribution: bool = False
    unsound_owners: list[int] = field(default_factory=list)
    unsound_entries: list[int] = field(default_factory=list)
    timeline_gaps: list[tuple[int, int]] = field(default_factory=list)
    unsound_cursor: int | None = None
    unsound_mark: float | None = None
    kept: list[tuple[int, int]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    unverified_rows: int = 0
    unverified_snapshots: int = 0
    filled: int = 0
    noted: bool = False
    problem: str | None = None
    poison: list[str] = field(default_factory=list)
    deleted: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        damaged = self.damaged_rows or self.damaged_snapshots or self.damaged_pending
        kept_beside = self.damaged_versions or self.damaged_attribution or self.unsound_owners
        timeline = self.unsound_entries or self.timeline_gaps
        webhooks = self.unsound_cursor is not None or self.unsound_mark is not None
        return not (damaged or kept_beside or timeline or webhooks or self.missing or self.problem)

    def facts(self) -> dict[str, Any]:
        """Give all of it for JSON."""
        return {**asdict(self), "whole": self.whole}

    def troubles(self) -> Iterator[str]:
        """Say what is wrong, a line each."""
        for what, numbers in (
            ("row", self.damaged_rows),
            ("snapshot", self.damaged_snapshots),
            ("pending update", self.damaged_pending),
            ("the state of version", self.damaged_versions),
        ):
            for number in numbers:
                yield f"{what} {number} is damaged"
        if self.damaged_attribution:
            yield "what is kept of who wrote what is damaged"
        if self.unsound_owners:
            shown = ", ".join(map(str, self.unsound_owners[:_SHOWN]))
            more = f" and {len(self.unsound_owners) - _SHOWN} more" if len(self.unsound_owners) > _SHOWN else ""
            yield f"the owner of client ID {shown}{more} is by a row that never was, or has a number that no client has"
        for number in self.unsound_entries:
            yield f"the entry of the timeline at row {number} is damaged"
        for first, last in self.timeline_gaps:
            yield f"the timeline leaves out {_rows(first, last)}"
        if self.unsound_cursor is not None:
            yield f"webhooks count as told of up to row {self.unsound_cursor}, which never was"
        if self.unsound_mark is not None:
            yield "webhooks are to be told in some days only"
        for first, last in self.missing:
            yield f"{_rows(first, last)} {'is' if first == last else 'are'} missing"
        if self.problem:
            yield self.problem
        for found in self.poison:
            yield f"{found}: clients of this document stop sending without a word; take what it holds into a new one"


def _rows(first: int, last: int) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}"


async def find_hazard_here(data: bytes) -> str | None:
    """Look for what a whole document holds on which yjs throws, at once: it takes a second for 100,000 structs."""
    return find_hazard(data)


async def verify(
    store: Maintenance,
    document: StoredDocument,
    *,
    fill: bool = False,
    note: bool = False,
    find_hazard: Callable[[bytes], Awaitable[str | None]] = find_hazard_here,
) -> Report:
    """Read all that is kept of a document; note what is damaged.

    With ``fill`` checksums are given to what has none, if nothing at all is wrong; with ``note`` it is kept in mind
    that this was done. ``find_hazard`` looks at the whole document. Beside a running server this is safe.
    """
    for _ in range(_LOOKS):
        try:
            report, rows, snapshots = await _look(store, document)
        except StoreDamaged as error:
            return Report(document.name, document.id, problem=f"the database itself is damaged: {error}")
        if not report.missing:
            break
    if report.deleted and not report.whole and not await _is_there(store, document):
        # Its content is being removed, in portions.
        return Report(document.name, document.id, deleted=True)
    if not (report.deleted or report.damaged_rows or report.damaged_snapshots or report.missing):
        try:
            whole = await in_slices(read_document(document.name, await store.load(document.name)))
            data = await beside_the_loop(whole.size, whole.encode_state_as_update)
            hazard = None if report.poison else await find_hazard(data)
            if hazard is not None:
                report.poison.append(f"the whole is poison for yjs ({hazard})")
        except CollabError as error:
            report.problem = str(error) or error.public
    if report.damaged_rows or report.damaged_snapshots:
        await store.note_damage(document.id, rows=report.damaged_rows, snapshots=report.damaged_snapshots)
    report.noted = await store.damage_noted(document.id)
    if fill and report.whole:
        await store.fill(document.id, rows, snapshots, note=note)
        report.filled = len(rows) + len(snapshots)
    return report


async def _is_there(store: Maintenance, document: StoredDocument) -> bool:
    """Tell whether a document is still in the trash."""
    return [each.id for each in await store.documents_after(document.id - 1, 1)] == [document.id]


async def _look(
    store: Maintenance, document: StoredDocument
) -> tuple[Report, list[tuple[int, int]], list[tuple[int, int]]]:
    """Read everything once; give the checksums of what has none too."""
    report = Report(document.name, document.id, deleted=document.deleted_at is not None)
    new_rows: list[tuple[int, int]] = []
    new_snapshots: list[tuple[int, int]] = []
    whole: list[int] = []
    for seq, *_ in await store.kept_snapshots(document.id):
        snapshot = await store.kept_snapshot(document.id, seq)
        if snapshot is None:
            continue
        report.snapshots += 1
        report.nbytes += len(snapshot.data)
        if await _bad_snapshot(snapshot):
            report.damaged_snapshots.append(seq)
            continue
        whole.append(seq)
        if poison := await in_slices(find_poison_in_slices(snapshot.data)):
            report.poison.append(f"snapshot {seq} is poison for yjs ({poison})")
        if snapshot.checksum is None:
            new_snapshots.append((seq, snapshot_checksum(snapshot)))
    expected: int | None = None
    kept: list[beside.Span] = []
    position = 0
    while position < document.head_seq:
        page = await store.kept_rows(document.id, position, PAGE)
        page = [row for row in page if row.seq <= document.head_seq]
        if not page:
            break
        for row, (bad, poison) in zip(page, await in_slices(_examine(page)), strict=True):
            if (
                expected is None
                and row.seq > 1
                and not any(seq >= row.seq - 1 for seq in whole + report.damaged_snapshots)
            ):
                report.missing.append((1, row.seq - 1))
            elif expected is not None and row.seq > expected:
                report.missing.append((expected, row.seq - 1))
            if expected == row.seq:
                kept[-1] = kept[-1]._replace(last=row.seq)
            else:
                kept.append(beside.Span(row.seq, row.seq))
            expected = row.seq + 1
            report.rows += 1
            report.nbytes += len(row.data)
            if bad:
                report.damaged_rows.append(row.seq)
                continue
            if poison:
                report.poison.append(f"row {row.seq} is poison for yjs ({poison})")
            if row.checksum is None:
                new_rows.append((row.seq, row_checksum(row.data, row.author)))
        position = page[-1].seq
    reached = max([expected - 1 if expected is not None else 0, *whole, *report.damaged_snapshots])
    if reached < document.head_seq:
        report.missing.append((reached + 1, document.head_seq))
    for update in await store.load_pending(document.id):
        report.pending += 1
        report.nbytes += len(update.data)
        if is_damaged_pending(update) or await in_slices(is_unreadable(update.data)):
            report.damaged_pending.append(update.number)
        elif poison := await in_slices(find_poison_in_slices(update.data)):
            report.poison.append(f"pending update {update.number} is poison for yjs ({poison})")
    for version in await store.pinned_versions(document.id):
        state = await store.kept_state(version)
        if state is None and version not in await store.pinned_versions(document.id):
            continue  # it was deleted meanwhile
        report.nbytes += 0 if state is None else len(state.data)
        if state is None or await _bad_snapshot(state):
            report.damaged_versions.append(version)
    attribution = await store.kept_attribution(document.id)
    report.damaged_attribution = attribution is not None and await _bad_attribution(attribution)
    report.kept = [(span.first, span.last) for span in kept]
    if not report.deleted:
        report.unsound_owners = await beside.find_unsound_owners(store, document)
        timeline = await beside.look_at_timeline(store, document, kept)
        report.unsound_entries = [entry.first for entry in timeline.unsound]
        report.timeline_gaps = [(gap.first, gap.last) for gap in timeline.gaps]
        report.unsound_cursor = await beside.find_unsound_cursor(store, document)
        report.unsound_mark = await beside.find_unsound_mark(store, document, time.time())
    report.unverified_rows, report.unverified_snapshots = len(new_rows), len(new_snapshots)
    return report, new_rows, new_snapshots


def _examine(rows: list[LogRow]) -> Generator[None, None, list[tuple[bool, str | None]]]:
    """Tell of each row whether it is damaged, and why it is poison if it is."""
    found: list[tuple[bool, str | None]] = []
    for place, row in enumerate(rows):
        if row.checksum is None:
            bad = yield from is_unreadable(row.data)
        else:
            bad = is_damaged(row)
        found.append((bad, None if bad else (yield from find_poison_in_slices(row.data))))
        if place % 20 == 19:
            yield
    return found


async def _bad_snapshot(snapshot: Snapshot) -> bool:
    if snapshot.checksum is None:
        return await in_slices(is_unreadable(snapshot.data))
    return await beside_the_loop(len(snapshot.data), lambda: is_damaged_snapshot(snapshot))


async def _bad_attribution(kept: KeptAttribution) -> bool:
    try:
        await beside_the_loop(len(kept.data), lambda: decode_attribution(kept.data))
    except DecodeError:
        return True
    return False


# Repair


class KeptState(NamedTuple):
    """The state of a version as it lies there; None: it is missing."""

    version: int
    state: Snapshot | None


class Gap(NamedTuple):
    """Rows that a timeline leaves out."""

    span: beside.Span


class Skeleton(NamedTuple):
    """What is remembered of documents of a name that are gone."""

    data: bytes


class Mark(NamedTuple):
    """Since when receivers of webhooks have to be told."""

    at: float


class Cursor(NamedTuple):
    """Up to which row receivers of webhooks were told."""

    seq: int


Kept = LogRow | Snapshot | PendingUpdate | KeptAttribution | KeptState | ClientOwner | KeptEntry | Gap | Cursor | Mark


class Step(NamedTuple):
    """One thing to be done: what is damaged, what takes its place (None: nothing), and what comes of it, in words."""

    was: Kept
    by: NewRow | Snapshot | Cursor | None
    text: str


async def plan_repair(store: Maintenance, document: StoredDocument, report: Report) -> list[Step]:
    """Say what has to be done about what ``report`` has found; what cannot be done is noted in ``report.left``."""
    steps: list[Step] = []
    whole = [seq for seq, *_ in await store.kept_snapshots(document.id) if seq not in report.damaged_snapshots]
    for seq in report.damaged_rows:
        found = await store.kept_rows(document.id, seq - 1, 1)
        if not found or found[0].seq != seq:
            continue
        text = f"row {seq}: set its {len(found[0].data)} bytes aside, put an empty update in its place"
        if any(each >= seq for each in whole):
            text += "; a later snapshot says what it said, only the history before that lacks it"
        else:
            text += "; what it said is missing until a client comes that holds it"
        steps.append(Step(found[0], seal_row(EMPTY_UPDATE, found[0].at, None), text))
    first = await store.kept_rows(document.id, 0, 1)
    oldest = first[0].seq if first else document.head_seq + 1
    for seq in report.damaged_snapshots:
        snapshot = await store.kept_snapshot(document.id, seq)
        if snapshot is None:
            continue
        text = f"snapshot {seq}: set its {len(snapshot.data)} bytes aside"
        before = max((each for each in whole if each < seq), default=0)
        by = None
        if any(each > seq for each in whole):
            text += " and remove it; a later snapshot is whole"
        elif oldest <= before + 1:
            text += " and remove it; what comes before it and the rows after that say the same"
        else:
            text += ", put an empty one in its place; "
            text += f"all before row {seq + 1} is missing until a client comes that holds it"
            by = seal_snapshot(Snapshot(seq, EMPTY_UPDATE, b"", EMPTY_STATE_VECTOR, snapshot.at))
        steps.append(Step(snapshot, by, text))
    for update in await store.load_pending(document.id):
        if update.number in report.damaged_pending:
            text = f"pending update {update.number}: set its {len(update.data)} bytes aside and remove it"
            steps.append(Step(update, None, f"{text}; what it said is missing until a client comes that holds it"))
    attribution = await store.kept_attribution(document.id)
    if report.damaged_attribution and attribution is not None:
        text = f"who wrote what: set its {len(attribution.data)} bytes aside and remove it"
        steps.append(Step(attribution, None, f"{text}; it is made anew from the rows that are kept"))
    return [*steps, *await _plan_beside(store, document, report)]


async def _plan_beside(store: Maintenance, document: StoredDocument, report: Report) -> list[Step]:
    """Say what has to be done about what is kept beside the log."""
    steps: list[Step] = []
    for version in report.damaged_versions:
        made = await beside.remake_state(store, document, version)
        if made.state is None:
            report.left.append(f"the state of version {version} cannot be made anew: {made.why}")
            continue
        was = await store.kept_state(version)
        text = f"version {version}: " + ("" if was is None else f"set the {len(was.data)} bytes of its state aside, ")
        compared = was is not None and was.checksum is not None
        text += "make it anew from the rows and snapshots that are kept"
        text += "; it is what was written, by its checksum" if compared else "; nothing is left to compare it with"
        steps.append(Step(KeptState(version, was), made.state, text))
    for owner in await beside.owners_of(store, document.id, report.unsound_owners):
        text = f"client ID {owner.client}: set its owner aside and remove it"
        steps.append(Step(owner, None, f"{text}; the next edit of that client says whose it is"))
    if report.unsound_entries or report.timeline_gaps:
        kept = [beside.Span(*span) for span in report.kept]
        timeline = await beside.look_at_timeline(store, document, kept)
        for entry in timeline.unsound:
            text = f"the entry of the timeline at row {entry.first}: set it aside and remove it"
            steps.append(Step(entry, None, f"{text}; rows that are kept and in no other entry are summarised anew"))
        for gap in timeline.gaps:
            steps.append(Step(Gap(gap), None, f"the timeline: summarise {_rows(*gap)} from the log"))
    if report.unsound_cursor is not None:
        oldest = report.kept[0][0] if report.kept else document.head_seq + 1
        text = f"webhooks: they are told again of all from row {oldest} on, for nobody knows what they were told of"
        steps.append(Step(Cursor(report.unsound_cursor), Cursor(min(oldest - 1, document.head_seq)), text))
    if report.unsound_mark is not None:
        text = "webhooks: set aside when they are to be told, and remove it; a server tells them within minutes"
        steps.append(Step(Mark(report.unsound_mark), None, text))
    return steps


async def carry_out(store: Maintenance, document: StoredDocument, steps: list[Step], directory: Path) -> list[Path]:
    """Keep what is replaced or removed in files below ``directory``, then do the steps; give the files.

    Raises ``CollabError`` if a file cannot be written; nothing has changed from that step on.
    """
    kept: list[Path] = []
    for was, by, _ in steps:
        if not (isinstance(was, Gap) or (isinstance(was, KeptState) and was.state is None)):
            kept.append(await asyncio.to_thread(_keep, directory, document, was))
        if isinstance(was, KeptAttribution):
            await store.remove_attribution(document.id, was)
        elif isinstance(was, KeptState):
            assert isinstance(by, Snapshot)
            await store.replace_state(document.id, was.version, was.state, by)
        elif isinstance(was, ClientOwner):
            await store.remove_owner(document.id, was)
        elif isinstance(was, KeptEntry):
            await store.remove_entry(document.id, was)
        elif isinstance(was, Gap):
            await store.add_entries(document.id, await beside.entries_for(store, document, was.span))
        elif isinstance(was, Mark):
            await store.remove_mark(document.id, was.at)
        elif isinstance(was, Cursor):
            assert isinstance(by, Cursor)
            await store.replace_cursor(document.id, was.seq, by.seq)
        elif isinstance(was, PendingUpdate):
            await store.remove_pending(document.id, was)
        elif isinstance(was, Snapshot):
            assert by is None or isinstance(by, Snapshot)
            await store.replace_snapshot(document.id, was, by)
        else:
            assert isinstance(by, NewRow)
            await store.replace_row(document.id, was, by)
    await store.forget_damage(document.id)
    return kept


async def keep_skeleton(store: Maintenance, name: str, was: bytes, directory: Path) -> Path:
    """Keep a skeleton that cannot be read in a file, and put an empty one in its place; give the file.

    It cannot be made anew: what it was made of is gone. So a document that is created under the name cannot be reset
    against old copies of those before it. Raises ``CollabError`` if the file cannot be written.
    """
    document = StoredDocument(0, name, 0, True, 0.0, 0.0)
    path = await asyncio.to_thread(_keep, directory, document, Skeleton(was))
    await store.replace_skeleton(name, was, EMPTY_UPDATE)
    return path


def _keep(directory: Path, document: StoredDocument, was: Kept | Skeleton) -> Path:
    """Write what is damaged to a new file, with all that is known of it; it is on the disk when this returns."""
    kind = _WORDS[type(was)]
    number: int
    if isinstance(was, Skeleton):
        return _write_aside(
            directory,
            f"skeleton-{crc32(document.name.encode())}",
            {"name": document.name, "kind": kind, "data": _text(was.data)},
        )
    assert not isinstance(was, Gap)
    if isinstance(was, KeptState):
        number = was.version
        assert was.state is not None
        was = was.state
    elif isinstance(was, PendingUpdate):
        number = was.number
    elif isinstance(was, ClientOwner):
        number = was.client
    elif isinstance(was, KeptEntry):
        number = was.first
    elif isinstance(was, Mark):
        number = 0
    else:
        number = was.seq
    about: dict[str, Any] = {"name": document.name, "document_id": document.id, "kind": kind, "seq": number}
    if isinstance(was, ClientOwner):
        about |= was._asdict()
    elif isinstance(was, KeptEntry):
        about |= was._asdict() | {"data": _text(was.data)}
    elif not isinstance(was, (Cursor, Mark)):
        about |= {"data": _text(was.data)}
    if isinstance(was, (LogRow, Snapshot, PendingUpdate, Mark)):
        about |= {"at": was.at}
    if isinstance(was, PendingUpdate):
        about |= {"author": was.author, "key": _text(was.key)}
    elif isinstance(was, Snapshot):
        about |= {"checksum": was.checksum}
        about |= {"index": _text(was.index), "state_vector": _text(was.state_vector)}
    elif isinstance(was, LogRow):
        about |= {"author": was.author, "checksum": was.checksum}
    return _write_aside(directory, f"{document.id}-{kind}-{number}", about)


def _write_aside(directory: Path, stem: str, about: dict[str, Any]) -> Path:
    """Write a new file; it is on the disk when this returns."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for copy in range(1, 1_000):
            path = directory / f"{stem}{'' if copy == 1 else f'-{copy}'}.json"
            try:
                file = path.open("x", encoding="utf-8")
            except FileExistsError:
                continue
            with file:
                json.dump(about, file)
                file.flush()
                os.fsync(file.fileno())
            return path
    except OSError as error:
        raise CollabError(f"cannot keep what is damaged in {directory}: {error.strerror or error}") from None
    raise CollabError(f"{directory} holds too many files {stem}")


_WORDS: dict[type, str] = {
    LogRow: "row",
    Snapshot: "snapshot",
    PendingUpdate: "pending",
    KeptAttribution: "attribution",
    KeptState: "version",
    ClientOwner: "client",
    KeptEntry: "timeline",
    Cursor: "webhooks",
    Mark: "webhooks-mark",
    Skeleton: "skeleton",
}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
