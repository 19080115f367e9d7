"""What the sandbox is asked of the history of a document, and its answers; plain values that can be pickled."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from collab.errors import InvalidEdit
from collab.history.attribution import Attribution, Owner
from collab.history.emptying import empty, encode_snapshot
from collab.history.encoding import decode_attribution, encode_attribution
from collab.history.ranges import RangeMap
from collab.history.rows import Rows, data_of
from collab.history.showing import Shower, unified_diff
from collab.history.tracing import Tracer, trace
from collab.update.merge import merge_read_updates
from collab.update.reader import read_update
from collab.update.state_vector import encode_state_vector

FORMATS = ("update", "prosemirror", "text", "diff")
"""What changes can be shown as."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Add rows to a kept attribution; the answer is the new one, encoded.

    Attributes:
        kept: what is kept, for the row before the first one; None: nothing.
        base: the document after that row, a v1 update.
        rows: those that follow.
        owners: whose client IDs are.
    """

    kept: bytes | None
    base: bytes
    rows: Rows
    owners: Mapping[int, Owner]

    @property
    def nbytes(self) -> int:
        """The bytes of documents and rows in it."""
        return len(self.base) + self.rows.nbytes


@dataclass(frozen=True, slots=True)
class Show:
    """Show an attribution; the answer is JSON.

    Attributes:
        kept: the attribution, encoded.
        document: the document after the same row, a v1 update; None: only ranges are wanted.
        root: which root to show in runs.
        rich: as ProseMirror JSON.
        guests: what guests are called, by their users.
    """

    kept: bytes
    document: bytes | None = None
    root: str | None = None
    rich: bool = False
    guests: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of documents and rows in it."""
        return len(self.document or b"")


@dataclass(frozen=True, slots=True)
class Changes:
    """Say what rows have changed; the answer is JSON.

    Attributes:
        base: the document before the first row, a v1 update.
        rows: those of the interval.
        owners: whose client IDs are.
        format: one of ``FORMATS``.
        root: which root to show, where the format shows one.
        guests: what guests are called, by their users.
    """

    base: bytes
    rows: Rows
    owners: Mapping[int, Owner]
    format: str = "update"
    root: str | None = None
    guests: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of documents and rows in it."""
        return len(self.base) + self.rows.nbytes


@dataclass(frozen=True, slots=True)
class Restore:
    """Make a document what it was; the answer is the update that does it, empty if there is nothing to do.

    Attributes:
        live: the document now, a v1 update; it may be ahead of the rows.
        base: the document as it shall be.
        rows: those since then; None: there are none, or they are not needed. It comes back as new content then.
        client_id: whose the edit is; the document has never seen it.
        root: the root that is restored; None: all.
        element: the element of the root that alone is restored, by its id; None: all of it.
    """

    live: bytes
    base: bytes
    rows: Rows | None
    client_id: int
    root: str | None = None
    element: str | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of documents and rows in it."""
        return len(self.live) + len(self.base) + (0 if self.rows is None else self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class Undo:
    """Take back what somebody has done; the answer is the update that does it, empty if there is nothing to do.

    Attributes:
        live: the document now, a v1 update; it may be ahead of the rows.
        base: the document before the interval.
        rows: those since then, also behind the interval.
        owners: whose client IDs are.
        author: whose edits are taken back.
        on_behalf_of: only those made for this user; None: all.
        until: the number of the last row of the interval.
        client_id: whose the edit is; the document has never seen it.
    """

    live: bytes
    base: bytes
    rows: Rows
    owners: Mapping[int, Owner]
    author: str
    on_behalf_of: str | None
    until: int
    client_id: int

    @property
    def nbytes(self) -> int:
        """The bytes of documents and rows in it."""
        return len(self.live) + len(self.base) + self.rows.nbytes


Question = Show | Changes
"""What is asked of the history, and shown to whoever asks."""

Task = Advance | Restore | Undo
"""What is made of the history, in bytes that the server keeps or applies."""

LONG_BYTES: Final = 32 * 1024
"""An answer that is longer is compressed: it takes fewer steps from the sandbox to the server, and from there on."""

# Most of the gain for a sixth of the time that the best level takes.
_LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer to a question.

    Attributes:
        data: JSON or a diff, in UTF-8.
        gzipped: it is compressed, by gzip (RFC 1952).
    """

    data: bytes
    gzipped: bool = False

    def plain(self) -> bytes:
        """Return it without compression; takes a while, with the interpreter free for others."""
        return gzip.decompress(self.data) if self.gzipped else self.data


def answer(question: Question) -> Shown:
    """Answer a question, compressed if the answer is long; raises what ``show`` and ``changes`` raise."""
    data = show(question) if isinstance(question, Show) else changes(question)
    return Shown(gzip.compress(data, _LEVEL, mtime=0), True) if len(data) > LONG_BYTES else Shown(data)


def advance(task: Advance) -> bytes:
    """Do the task; raises UpdateError, and DecodeError when what is kept is damaged."""
    kept = None if task.kept is None else decode_attribution(task.kept)
    return encode_attribution(trace(task.base, task.rows, task.owners, kept))


def show(task: Show) -> bytes:
    """Do the task; raises DecodeError, NoSuchContent, WrongContentType."""
    attribution = decode_attribution(task.kept)
    if task.document is None:
        return _json({"number": attribution.seq, **_described(attribution, task.guests)})
    tracer = Tracer(task.document, {}, Attribution())
    shower = Shower(tracer.items, attribution, gone=False)
    root = shower.root(task.root)
    shown: dict[str, Any] = {"number": attribution.seq, **_named(attribution, task.guests)}
    if task.rich:
        shown["prosemirror"] = shower.prosemirror(root)
    else:
        shown["runs"] = shower.text_runs(root)
    return _json(shown)


def changes(task: Changes) -> bytes:
    """Do the task; raises UpdateError, NoSuchContent, WrongContentType, InvalidEdit."""
    tracer = Tracer(task.base, task.owners, Attribution())
    vector = tracer.items.vector()
    tracer.follow(task.rows)
    found = tracer.attribution
    if task.format == "update":
        return _json({**_updates(task, tracer, vector), **_described(found, task.guests)})
    shower = Shower(tracer.items, found, gone=True)
    root = shower.root(task.root)
    if task.format == "prosemirror":
        return _json({"prosemirror": shower.prosemirror(root), **_named(found, task.guests)})
    if task.format == "text":
        return _json({"runs": shower.text_runs(root), **_named(found, task.guests)})
    if task.format != "diff":
        raise InvalidEdit(f"changes are shown as {', '.join(FORMATS)}")
    shower.text_runs(root)  # refuses what is no text
    return unified_diff(*shower.texts(root), ("before", "after")).encode(errors="replace")


def _updates(task: Changes, tracer: Tracer, vector: Mapping[int, int]) -> dict[str, Any]:
    """Return both states and both snapshots."""
    found = tracer.attribution
    update = merge_read_updates([read_update(data, stored=True) for data in data_of(task.rows)])
    # A node that has both come and gone would be shown as an empty one.
    update = empty(update, found.insertions.common(found.deletions))
    deleted = RangeMap()
    for ranges in (tracer.before, found.deletions):
        deleted.add_all((client, start, end, 0) for client, start, end, _ in ranges)
    return {
        "base": _base64(task.base),
        "update": _base64(update),
        "state_vector": _base64(encode_state_vector(tracer.items.vector())),
        "prev_snapshot": _base64(encode_snapshot(vector, tracer.before)),
        "snapshot": _base64(encode_snapshot(tracer.items.vector(), deleted)),
    }


def _described(attribution: Attribution, guests: Mapping[str, str]) -> dict[str, Any]:
    return {
        **_named(attribution, guests),
        "inserted": _flat(attribution.insertions),
        "deleted": _flat(attribution.deletions),
    }


def _flat(ranges: RangeMap) -> list[list[Any]]:
    """Return clock, length and mark of all ranges of each client in one list: half as long as a list for each."""
    found: list[list[Any]] = []
    for client in ranges.clients:
        starts, ends, marks = ranges.columns(client)
        flat = [0] * (3 * len(starts))
        flat[0::3] = starts
        flat[1::3] = [end - start for start, end in zip(starts, ends, strict=True)]
        flat[2::3] = marks
        found.append([client, flat])
    return found


def _named(attribution: Attribution, guests: Mapping[str, str]) -> dict[str, Any]:
    users = {mark.who.author: None for mark in attribution.marks if mark.who.author is not None}
    return {
        "users": list(users),
        "marks": [
            {
                "author": mark.who.author,
                "author_name": None if mark.who.author is None else guests.get(mark.who.author),
                "on_behalf_of": mark.who.on_behalf_of,
                "label": mark.who.label,
                "first": mark.first,
                "last": mark.last,
            }
            for mark in attribution.marks
        ],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only write as an escape
        return json.dumps(value, separators=(",", ":")).encode()
