"""The history of documents: versions, what happened, what changed, who wrote what, and the way back.

    async with History("ws://127.0.0.1:1234", token=...) as history:
        version = await history.make_version("notes", "Sent to Grace")
        ...
        await history.restore("notes", version=version)

Strategy: each method is a request to the HTTP API (docs/history.md), whose answer becomes a plain value with types.
Lists are read page by page, as they are used. What changes something is sent with a key, so that it is done once
although it is repeated when no answer comes.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, TypeVar

from collab.client.http import ApiUser
from collab.content.edits import Format
from collab.errors import RequestRefused

T = TypeVar("T")

# Versions in one request of an import, and about how many bytes of them: a server compacts each.
_PORTION: Final = 100
_PORTION_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a document.

    Attributes:
        id: names it for good.
        number: the number of the log after which it is the state; None: it comes from another system.
        kind: a "named" one stays until somebody deletes it; the others are "automatic".
        reason: why it is there: "made", "imported", "pause", "restore", "reset" or "agent".
        name: None for automatic ones.
        description: what else is said of it.
        author: the user who has made it; None if nobody was signed in.
        at: when it was made; of an automatic one, the time of its last edit.
        author_name: what the author is called, if it is a guest.
    """

    id: int
    number: int | None
    kind: str
    reason: str
    name: str | None
    description: str | None
    author: str | None
    at: datetime
    author_name: str | None = None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """A part of the versions of a document, those of the newest states first; ``next`` is None at the end."""

    versions: list[Version]
    next: str | None


@dataclass(frozen=True, slots=True)
class OldVersion:
    """A version of another system.

    Attributes:
        name: what people call it.
        update: all that the document held then, a Yjs update (v1).
        at: when that was; with its offset.
        description: what else is said of it.
        author: who has made it, by the other system.
    """

    name: str
    update: bytes
    at: datetime
    description: str | None = None
    author: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that could not be imported: its place, from 1, its name, and why; ``code`` is for programs."""

    line: int
    name: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of versions: how many were made, were there already, and could not be imported, and why."""

    created: int
    existed: int
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class EntryAuthor:
    """Somebody who has a part in an entry; ``edits`` are rows of the log, and a user of None is not known.

    ``name`` is what a guest is called; None for all others.
    """

    user: str | None
    on_behalf_of: str | None
    edits: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class EntryVersion:
    """A version within an entry."""

    id: int
    number: int
    kind: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened in one sitting.

    Attributes:
        first, last: the numbers of its rows.
        started_at, ended_at: their times.
        authors: who has a part in it, the one with the most edits first.
        other_edits: edits of further authors, where they are too many to be named.
        edits: how many rows it has.
        bytes: of their updates.
        summary: a short sentence in English.
        versions: some of those of its numbers, the newest first.
        marks: "pruned", "reset", "restored".
    """

    first: int
    last: int
    started_at: datetime
    ended_at: datetime
    authors: list[EntryAuthor]
    other_edits: int
    edits: int
    bytes: int
    summary: str
    versions: list[EntryVersion]
    marks: list[str]


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """A part of a timeline, the newest entries first.

    Attributes:
        entries: the entries.
        next: for the page behind it; None at the end.
        head: the number of the newest row.
        behind: how many of the newest rows are in no entry yet.
        reaches: the lowest number from which on everything can be read.
    """

    entries: list[Entry]
    next: str | None
    head: int
    behind: int
    reaches: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the log; ``update`` is a Yjs update (v1).

    ``author_name`` is what the author is called, if it is a guest.
    """

    number: int
    at: datetime
    author: str | None
    on_behalf_of: str | None
    label: str | None
    update: bytes
    author_name: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Who has done something, with what note, and from when to when; an author of None is not known.

    ``author_name`` is what the author is called, if it is a guest.
    """

    author: str | None
    on_behalf_of: str | None
    label: str | None
    first: datetime
    last: datetime
    author_name: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Clocks of a client ID of Yjs, from ``clock`` on, with the mark of who has done it."""

    client: int
    clock: int
    length: int
    mark: Mark


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who wrote what, up to the row ``number``: what was inserted, and what was deleted."""

    number: int
    inserted: list[Range]
    deleted: list[Range]


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a text that one person has written.

    Attributes:
        insert: a string, or ``{"embed": ...}``.
        attributes: its formats.
        inserted: who has written it; None: that is not known, or it was there before.
        deleted: who has deleted it; None: it is there.
    """

    insert: str | dict[str, Any]
    attributes: dict[str, Any]
    inserted: Mark | None
    deleted: Mark | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed between two numbers, for programs that show it with Yjs.

    Attributes:
        base: the state before, a Yjs update (v1).
        update: what leads from there to the state behind, with what was deleted on the way.
        prev_snapshot, snapshot: the two states as Yjs snapshots (v1).
        state_vector: of the state behind.
        inserted, deleted: who has done what of it.
    """

    base: bytes
    update: bytes
    prev_snapshot: bytes
    snapshot: bytes
    state_vector: bytes
    inserted: list[Range]
    deleted: list[Range]


@dataclass(frozen=True, slots=True)
class Rewound:
    """What became of a restore, or of an undo.

    Attributes:
        changed: whether there was anything to do.
        before: the newest number before it: restore this one to take it back.
        number: the newest number when it was stored.
    """

    changed: bool
    before: int
    number: int


class Keep:
    """What is not given stays as it is."""


KEEP: Final = Keep()


class History(ApiUser):
    """The history of the documents of a server. Use it as ``async with History(url) as history:``.

    Every method raises `RequestRefused` if the server refuses (its ``code`` says why), `NotAnswered` if there is no
    answer in time, and `InvalidDocumentName`. An ``AccessDenied`` of a function that gives tokens is raised as it is.
    The arguments are those of `ApiUser`.
    """

    # Versions

    async def versions(self, name: str, *, kind: Literal["named", "automatic"] | None = None) -> AsyncIterator[Version]:
        """Give the versions of a document, those of the newest states first, those of other systems last."""
        cursor = None
        while True:
            page = await self.version_page(name, kind=kind, cursor=cursor)
            for version in page.versions:
                yield version
            if (cursor := page.next) is None:
                return

    async def version_page(
        self,
        name: str,
        *,
        kind: Literal["named", "automatic"] | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> VersionPage:
        """Return a page of the versions of a document.

        Args:
            name: of the document.
            kind: only those of a kind.
            cursor: the ``next`` of the page before.
            limit: how many, 500 at most.
        """
        said = await self._api.json("GET", "versions", name, query={"kind": kind, "cursor": cursor, "limit": limit})
        return _read(lambda: VersionPage([_version(each) for each in said["versions"]], said["next"]))

    async def make_version(
        self, name: str, title: str, *, description: str | None = None, number: int | None = None
    ) -> Version:
        """Give what a document holds now, or held after a row, a name. It needs write access.

        Args:
            name: of the document.
            title: what people call the version, up to 200 characters.
            description: what else is said of it, up to 2,000 characters.
            number: of the log; None: the newest one.
        """
        body = _given(name=title, description=description, number=number)
        said = await self._api.json("POST", "versions", name, body=body, key=_new_key())
        return _read(lambda: _version(said))

    async def import_version(
        self,
        name: str,
        title: str,
        update: bytes,
        at: datetime,
        *,
        description: str | None = None,
        author: str | None = None,
    ) -> Version:
        """Bring a version of another system along. It needs admin access.

        Args:
            name: of the document.
            title: what people call the version.
            update: all that the document held then, a Yjs update (v1).
            at: when that was; with its offset.
            description, author: what else is said of it.
        """
        body = _given(name=title, description=description, update=_base64(update), at=_shown(at), author=author)
        said = await self._api.json("POST", "versions", name, body=body, key=_new_key())
        return _read(lambda: _version(said))

    async def import_versions(self, name: str, versions: Iterable[OldVersion]) -> Imported:
        """Bring many versions of another system along. It needs admin access.

        They are sent some MiB at a time. One of the same name and time that was imported before is left as it is, so an
        import that broke off is done again from its beginning.
        """
        created = existed = before = 0
        failures: list[Failure] = []
        for lines in _portions(versions):
            answer = await self._api.send("POST", "import-versions", name, lines=b"".join(lines))
            said = _read(partial(_imported, answer, before))
            created, existed, before = created + said.created, existed + said.existed, before + len(lines)
            failures += said.failures
        return Imported(created, existed, failures)

    async def version(self, name: str, version: int) -> Version:
        """Return what is said of a version, by its id."""
        said = await self._api.json("GET", "version", name, query={"id": version})
        return _read(lambda: _version(said))

    async def change_version(
        self,
        name: str,
        version: Version | int,
        *,
        title: str | None = None,
        description: str | None | Keep = KEEP,
    ) -> Version:
        """Change what is said of a version; an automatic one that gets a name is kept. It needs write access.

        Args:
            name: of the document.
            version: which one, or its id.
            title: another name; None: it stays.
            description: another description; None takes it away. Without it, it stays.
        """
        body = _given(name=title)
        if not isinstance(description, Keep):
            body["description"] = description
        said = await self._api.json("PATCH", "version", name, query={"id": _id(version)}, body=body)
        return _read(lambda: _version(said))

    async def delete_version(self, name: str, version: Version | int) -> None:
        """Delete a version; the document stays as it is. It needs admin access."""
        await self._api.json("DELETE", "version", name, query={"id": _id(version)}, repeated="version_not_found")

    # What it held

    async def read(
        self,
        name: str,
        *,
        version: Version | int | None = None,
        number: int | None = None,
        format: Format | str = Format.JSON,
        root: str | None = None,
    ) -> Any:
        """Return what a document held, in a format of ``GET /content``.

        Args:
            name: of the document.
            version: which one, or its id.
            number: instead of a version, the state after this number of the log; with neither it is the present one.
            format: "json", "text", "delta", "markdown", "html", "prosemirror" or "excalidraw".
            root: the name of the root that is shown; None where the format shows all, or there is one.

        Returns:
            What JSON says, or a string for text, Markdown and HTML.
        """
        query = {"version": _id_or_none(version), "number": number, "format": Format(format).value, "root": root}
        found = await self._api.send("GET", "content", name, query=query)
        if Format(format) in (Format.TEXT, Format.MARKDOWN, Format.HTML):
            return found.decode("utf-8", "replace")
        return _read(lambda: json.loads(found))

    async def read_update(self, name: str, *, version: Version | int | None = None, number: int | None = None) -> bytes:
        """Return what a document held as a Yjs update (v1): ``pycrdt.Doc().apply_update(update)``; see `read`."""
        query = {"version": _id_or_none(version), "number": number}
        return await self._api.send("GET", "updates", name, query=query)

    async def copy(self, name: str, to: str, *, version: Version | int | None = None) -> None:
        """Make a new document that holds what a version holds; without one, what the document holds now.

        It needs write access to the new document.
        """
        body = _given(name=to, version=_id_or_none(version))
        await self._api.json("POST", "copies", name, body=body, key=_new_key())

    # What happened

    async def timeline(self, name: str) -> AsyncIterator[Entry]:
        """Give what happened to a document, the newest first."""
        cursor = None
        while True:
            page = await self.timeline_page(name, cursor=cursor)
            for entry in page.entries:
                yield entry
            if (cursor := page.next) is None:
                return

    async def timeline_page(self, name: str, *, cursor: str | None = None, limit: int = 100) -> TimelinePage:
        """Return a page of the timeline of a document.

        Args:
            name: of the document.
            cursor: the ``next`` of the page before.
            limit: how many entries, 500 at most.
        """
        said = await self._api.json("GET", "timeline", name, query={"cursor": cursor, "limit": limit})
        return _read(
            lambda: TimelinePage(
                [_entry(each) for each in said["entries"]], said["next"], said["head"], said["behind"], said["reaches"]
            )
        )

    async def rows(self, name: str, start: int = 0, end: int | None = None) -> AsyncIterator[Row]:
        """Give the rows of the log behind the number ``start``, up to ``end``, one by one; None: the newest."""
        while True:
            found = await self.some_rows(name, start, end)
            for row in found:
                yield row
            if not found:
                return
            start = found[-1].number

    async def some_rows(self, name: str, start: int = 0, end: int | None = None) -> list[Row]:
        """Return the first rows behind the number ``start``, up to ``end``: as many as one answer has, or none."""
        found = await self._api.send("GET", "rows", name, query={"from": start, "to": end})
        return _read(lambda: [_row(json.loads(line)) for line in found.splitlines()])

    async def changes(self, name: str, start: int, end: int | None = None) -> Changes:
        """Return what the rows behind ``start`` have changed, up to ``end``: for Yjs, with snapshots."""
        said = await self._changes(name, start, end, "update", None)
        return _read(lambda: _changes_of(said))

    async def changed_text(
        self, name: str, start: int, end: int | None = None, *, root: str | None = None
    ) -> list[Run]:
        """Return a text with what was inserted and deleted behind ``start``, up to ``end``.

        Without a root it is the one that there is.
        """
        said = await self._changes(name, start, end, "text", root)
        return _read(lambda: _runs(said))

    async def changed_prosemirror(
        self, name: str, start: int, end: int | None = None, *, root: str | None = None
    ) -> dict[str, Any]:
        """Return a rich text as ProseMirror JSON; ``ychange`` marks say what was added and removed, and by whom."""
        said = await self._changes(name, start, end, "prosemirror", root)
        return _read(lambda: dict(said["prosemirror"]))

    async def diff(self, name: str, start: int, end: int | None = None, *, root: str | None = None) -> str:
        """Return what changed in a text as a unified diff; empty if nothing has."""
        query = {"from": start, "to": end, "format": "diff", "root": root}
        return (await self._api.send("GET", "changes", name, query=query)).decode("utf-8", "replace")

    async def _changes(self, name: str, start: int, end: int | None, format: str, root: str | None) -> Any:
        query = {"from": start, "to": end, "format": format, "root": root}
        return await self._api.json("GET", "changes", name, query=query)

    # Who wrote what

    async def attribution(self, name: str) -> Attribution:
        """Return who wrote what in a document, by ranges of IDs."""
        said = await self._api.json("GET", "attribution", name)
        return _read(lambda: Attribution(said["number"], *_ranges(said)))

    async def who_wrote(self, name: str, root: str) -> list[Run]:
        """Return a text in runs, each with who has written it."""
        said = await self._api.json("GET", "attribution", name, query={"root": root, "format": "text"})
        return _read(lambda: _runs(said))

    # The way back

    async def restore(
        self,
        name: str,
        *,
        version: Version | int | None = None,
        number: int | None = None,
        root: str | None = None,
        element: str | None = None,
        on_behalf_of: str | None = None,
        label: str | None = None,
    ) -> Rewound:
        """Make a document what it was. Everybody sees it arrive. It needs write access.

        Args:
            name: of the document.
            version: what this version holds.
            number: what it held after this number of the log. There is a version or a number.
            root: only this root.
            element: only this element of the root: what has this ``id``, or this key in a map.
            on_behalf_of, label: recorded with it.
        """
        body = _given(
            version=_id_or_none(version),
            number=number,
            root=root,
            element=element,
            on_behalf_of=on_behalf_of,
            label=label,
        )
        said = await self._api.json("POST", "restore", name, body=body, key=_new_key())
        return _read(lambda: _rewound(said))

    async def undo(
        self,
        name: str,
        author: str,
        *,
        start: int | None = None,
        since: datetime | None = None,
        end: int | None = None,
        edited_on_behalf_of: str | None = None,
        on_behalf_of: str | None = None,
        label: str | None = None,
    ) -> Rewound:
        """Take back what one user has done, and leave what others have done. It needs write access.

        Args:
            name: of the document.
            author: the user.
            start: only edits behind this number of the log.
            since: instead, only those since this time; with its offset. There is one of the two.
            end: only those up to this number.
            edited_on_behalf_of: only those that were made for this user.
            on_behalf_of, label: recorded with it.
        """
        body = _given(
            author=author,
            to=end,
            since=None if since is None else _shown(since),
            edited_on_behalf_of=edited_on_behalf_of,
            on_behalf_of=on_behalf_of,
            label=label,
        )
        if start is not None:
            body["from"] = start
        said = await self._api.json("POST", "undo", name, body=body, key=_new_key())
        return _read(lambda: _rewound(said))


# What answers say


def _read(made: Callable[[], T]) -> T:
    """Return what is made of an answer; raises `RequestRefused` for one that is not as described."""
    try:
        return made()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RequestRefused(f"the answer is not as this client knows it: {error!r}") from None


def _version(said: Mapping[str, Any]) -> Version:
    return Version(
        said["id"],
        said["number"],
        said["kind"],
        said["reason"],
        said["name"],
        said["description"],
        said["author"],
        datetime.fromisoformat(said["at"]),
        said.get("author_name"),  # a server of an older release does not say it
    )


def _entry(said: Mapping[str, Any]) -> Entry:
    return Entry(
        first=said["from"],
        last=said["to"],
        started_at=datetime.fromisoformat(said["started_at"]),
        ended_at=datetime.fromisoformat(said["ended_at"]),
        authors=[
            EntryAuthor(each["user"], each["on_behalf_of"], each["edits"], each.get("name")) for each in said["authors"]
        ],
        other_edits=said["other_edits"],
        edits=said["edits"],
        bytes=said["bytes"],
        summary=said["summary"],
        versions=[EntryVersion(each["id"], each["number"], each["kind"], each["name"]) for each in said["versions"]],
        marks=list(said["marks"]),
    )


def _row(said: Mapping[str, Any]) -> Row:
    return Row(
        said["number"],
        _time(said["at"]),
        said["author"],
        said["on_behalf_of"],
        said["label"],
        base64.b64decode(said["update"]),
        said.get("author_name"),
    )


def _marks(said: Mapping[str, Any]) -> list[Mark]:
    return [
        Mark(
            each["author"],
            each["on_behalf_of"],
            each["label"],
            _time(each["first"]),
            _time(each["last"]),
            each.get("author_name"),
        )
        for each in said["marks"]
    ]


def _ranges(said: Mapping[str, Any]) -> tuple[list[Range], list[Range]]:
    marks = _marks(said)
    return _flat(said["inserted"], marks), _flat(said["deleted"], marks)


def _flat(said: Sequence[Any], marks: Sequence[Mark]) -> list[Range]:
    return [
        Range(client, clock, length, marks[mark])
        for client, flat in said
        for clock, length, mark in zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
    ]


def _runs(said: Mapping[str, Any]) -> list[Run]:
    marks = _marks(said)

    def find(number: int | None) -> Mark | None:
        return None if number is None else marks[number]

    return [
        Run(each["insert"], each.get("attributes", {}), find(each.get("inserted")), find(each.get("deleted")))
        for each in said["runs"]
    ]


def _changes_of(said: Mapping[str, Any]) -> Changes:
    inserted, deleted = _ranges(said)
    return Changes(
        base=base64.b64decode(said["base"]),
        update=base64.b64decode(said["update"]),
        prev_snapshot=base64.b64decode(said["prev_snapshot"]),
        snapshot=base64.b64decode(said["snapshot"]),
        state_vector=base64.b64decode(said["state_vector"]),
        inserted=inserted,
        deleted=deleted,
    )


def _rewound(said: Mapping[str, Any]) -> Rewound:
    return Rewound(said["changed"], said["before"], said["number"])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _imported(answer: bytes, before: int) -> Imported:
    said = json.loads(answer)
    failures = [Failure(before + each["line"], each["name"], each["code"], each["detail"]) for each in said["failures"]]
    return Imported(said["created"], said["existed"], failures)


# What requests say


def _portions(versions: Iterable[OldVersion]) -> Iterator[list[bytes]]:
    """Give versions as lines of JSON, as many as one request has: the server tells all failures of so many."""
    lines: list[bytes] = []
    nbytes = 0
    for version in versions:
        said = _given(
            name=version.name,
            at=_shown(version.at),
            description=version.description,
            author=version.author,
            update=_base64(version.update),
        )
        lines.append(json.dumps(said).encode() + b"\n")
        nbytes += len(lines[-1])
        if len(lines) >= _PORTION or nbytes >= _PORTION_BYTES:
            yield lines
            lines, nbytes = [], 0
    if lines:
        yield lines


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _id(version: Version | int) -> int:
    return version.id if isinstance(version, Version) else version


def _id_or_none(version: Version | int | None) -> int | None:
    return None if version is None else _id(version)


def _shown(at: datetime) -> str:
    """Write a time; raises ValueError for one without an offset, which nobody knows how to read."""
    if at.tzinfo is None:
        raise ValueError("a time needs its offset, as in datetime.now(UTC)")
    return at.isoformat()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _new_key() -> str:
    return str(uuid.uuid4())
