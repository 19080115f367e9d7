"""``/versions``, ``/version`` and ``/timeline``: names for states of a document, and what happened to it.

Strategy: done in ``collab.hub.versions`` and ``collab.hub.timeline``; here it is decided who may, and what is shown.
What a version holds is read where the present content is read (``/content``, ``/updates``, ``/copies``). The name of a
document is the rest of a path, so versions, too, have resources of their own before the name.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import Field

from collab import audit
from collab.errors import DocumentTooLarge
from collab.hub.guests import guest_of
from collab.hub.hub import Hub
from collab.hub.slices import in_slices
from collab.hub.versions import Which
from collab.protocol.session import Access
from collab.storage.records import KEEP, Keep
from collab.storage.timeline import Entry, Share
from collab.storage.versions import Kind, Version
from collab.transports.http.answers import Permission
from collab.transports.http.api.creation import KEY_HEADER, MOST, Creation, Update, answer_with, decode_update
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import printable, read_time, show_time
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route, no_content
from collab.transports.http.api.route import json_response as answer
from collab.transports.problems import BadRequest

TAG: Final = "History"

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500

MAX_NAME: Final = 200
MAX_DESCRIPTION: Final = 2_000
"""Characters of what is said of a version."""

MAX_NUMBER: Final = 2**53 - 1
"""The largest number of a row or a version: JavaScript knows no larger ones exactly."""

# Versions that one entry of a timeline names.
_MAX_VERSIONS: Final = 20
# Entries that are described between two yields: about a millisecond with all their versions.
_ENTRIES: Final = 20

# Characters of a name of a user that are shown in an entry.
MAX_USER: Final = 255

_PROBLEMS: Final = ("document_not_found", "document_deleted", "version_not_found")

DATE_TIME: Final[dict[str, Any]] = {"format": "date-time"}

VersionId = Annotated[int, Field(ge=1, le=MAX_NUMBER, description="The `id` of the version.")]
VersionName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME,
        description=f"What people call it: up to {MAX_NAME} characters, without line breaks and control characters.",
    ),
]
Description = Annotated[
    str, Field(max_length=MAX_DESCRIPTION, description=f"What else is said of it: up to {MAX_DESCRIPTION} characters.")
]
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]


class WhichQuery(Query):
    """A state of the past; without it, the present one."""

    version: VersionId | None = Field(None, description="The `id` of a version: what the document held then.")
    number: int | None = Field(
        None, ge=0, le=MAX_NUMBER, description="A number of its log: what it held after that row. 0: nothing."
    )

    def which(self) -> Which | None:
        """Give the state that is meant; None for the present one. Raises ``BadRequest``."""
        if self.version is None and self.number is None:
            return None
        if self.version is not None and self.number is not None:
            raise BadRequest('"version" and "number" do not come together')
        return Which(self.version, self.number)


class DocumentVersion(Model):
    """A version of a document."""

    id: int = Field(ge=1)
    number: int | None = Field(description="The number of the log after which it is the state; null: it was imported.")
    kind: Literal["named", "automatic"] = Field(description="Named ones stay until somebody deletes them.")
    reason: Literal["made", "imported", "pause", "restore", "reset", "agent"] = Field(
        description="Why it is there: somebody has made it, or it comes from another system; after a pause in editing; "
        "before a restore, a reset, or the first edits of a program over HTTP."
    )
    name: str | None = Field(description="Null for automatic ones.")
    description: str | None
    author: str | None = Field(description="The user who has made it; null if nobody was signed in.")
    author_name: str | None = Field(description="What the author is called, if a guest has made it.")
    at: str = Field(
        description="When it was made; of an automatic one, the time of its last edit. RFC 3339 in UTC.",
        json_schema_extra=DATE_TIME,
    )


class VersionPage(Model):
    """A part of the versions of a document, those of the newest states first; imported ones are last."""

    versions: list[DocumentVersion]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")


class VersionsQuery(Query):
    """Which versions are listed."""

    kind: Literal["named", "automatic"] | None = Field(None, description="Only those of a kind.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many versions.")


class VersionQuery(Query):
    """Which version is meant."""

    id: VersionId


class NewVersion(Model):
    """A version that is made: of what the document holds now, of a number of its log, or of what it once was elsewhere.

    The last one has `update` and `at`. It is for moving here from another system, and for `admin`.
    """

    name: VersionName
    description: Description | None = None
    number: Number | None = Field(None, description="A number of the log; without it, the newest one.")
    update: Update | None = None
    at: str | None = Field(
        None,
        max_length=40,
        description="With `update`: when the document was like that, RFC 3339.",
        json_schema_extra=DATE_TIME,
    )
    author: Annotated[str, Field(max_length=MAX_USER)] | None = Field(
        None, description="With `update`: who has made it, by the other system."
    )


class VersionChange(Model):
    """What is changed about a version."""

    name: VersionName | None = Field(None, description="Another name. An automatic version with a name is a named one.")
    description: Description | None = Field(None, description="Another description; null takes it away.")


class EntryAuthor(Model):
    """Somebody who has a part in an entry."""

    user: str | None = Field(description="As the token named it; null: nobody was signed in, or the server did it.")
    name: str | None = Field(description="What a guest is called; null for all others.")
    on_behalf_of: str | None = Field(description="For whom it was done, as programs say it of edits over HTTP.")
    edits: int = Field(ge=1, description="Rows of the log; what is typed within some milliseconds is one.")


class EntryVersion(Model):
    """A version within an entry."""

    id: int = Field(ge=1)
    number: int = Field(ge=1)
    kind: Literal["named", "automatic"]
    name: str | None


class TimelineEntry(Model):
    """What happened in one sitting: rows of the log that follow on each other."""

    first: int = Field(ge=1, alias="from", description="The number of the first row.")
    last: int = Field(ge=1, alias="to", description="The number of the last one.")
    started_at: str = Field(description="RFC 3339 in UTC.", json_schema_extra=DATE_TIME)
    ended_at: str = Field(description="RFC 3339 in UTC.", json_schema_extra=DATE_TIME)
    authors: list[EntryAuthor] = Field(description="Who has a part in it, the one with the most edits first.")
    other_edits: int = Field(ge=0, description="Edits of further authors, where they are too many to be named.")
    edits: int = Field(ge=1, description="Rows of the log.")
    bytes: int = Field(ge=0, description="Bytes of their updates.")
    summary: str = Field(description="A short sentence in English, for people.")
    versions: list[EntryVersion] = Field(
        description=f"Up to {_MAX_VERSIONS} versions of its numbers, the newest first."
    )
    marks: list[Literal["pruned", "reset", "restored"]] = Field(
        description="`pruned`: its numbers cannot be read any more, but for pinned versions. `reset`: all content was "
        "taken away by it. `restored`: an older version was restored by it."
    )


class TimelinePage(Model):
    """A part of a timeline, the newest entries first."""

    entries: list[TimelineEntry]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")
    head: int = Field(ge=0, description="The number of the newest row.")
    behind: int = Field(
        ge=0,
        description="How many of the newest rows are in no entry yet; of an old document it may be all for a while.",
    )
    reaches: int = Field(ge=1, description="The lowest number from which on everything can be read.")


class TimelineQuery(Query):
    """Which part of a timeline."""

    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many entries.")


MAX_SMALL_BODY: Final = 64 * 1024
"""Bytes of a body that holds no update: only an administrator sends a longer one. JSON may write a character in twelve
bytes, and a text that is a little too long is told so."""


class VersionRoutes:
    """The handlers.

    Args:
        hub: has versions and timelines.
        permission: knows who asks.
        creation: does repeated calls once.
        max_document_bytes: how large an imported version may be.
    """

    def __init__(self, hub: Hub, permission: Permission, creation: Creation, max_document_bytes: int) -> None:
        self._hub = hub
        self._versions = hub.versions
        self._permission = permission
        self._creation = creation
        self._max_document_bytes = max_document_bytes

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        one = Answer(200, "The version.", DocumentVersion)
        return [
            Route(
                "GET",
                "/versions/{name}",
                self.list,
                "list_versions",
                TAG,
                "List the versions of a document.",
                [Answer(200, "A page of versions.", VersionPage)],
                query=VersionsQuery,
                access="read",
                problems=("document_not_found", "document_deleted"),
                description="What one holds is read by `GET /content/{name}?version=ID`, `/updates` in the same way.",
            ),
            Route(
                "POST",
                "/versions/{name}",
                self.make,
                "make_version",
                TAG,
                "Give a state of a document a name.",
                [Answer(201, "The new version.", DocumentVersion)],
                body=NewVersion,
                most=MOST,
                access="write; `admin` with `update`",
                problems=(
                    "document_not_found",
                    "document_deleted",
                    "history_gone",
                    "not_possible",
                    "invalid_update",
                    "too_large",
                    "key_reused",
                ),
                headers=KEY_HEADER,
                description="It stays until somebody deletes it, however long history is kept otherwise.",
            ),
            Route(
                "GET",
                "/version/{name}",
                self.show,
                "get_version",
                TAG,
                "Read what is said of a version.",
                [one],
                query=VersionQuery,
                access="read",
                problems=_PROBLEMS,
            ),
            Route(
                "PATCH",
                "/version/{name}",
                self.change,
                "change_version",
                TAG,
                "Change the name and the description of a version.",
                [one],
                query=VersionQuery,
                body=VersionChange,
                most=MAX_SMALL_BODY,
                access="write",
                problems=(*_PROBLEMS, "history_gone", "not_possible"),
            ),
            Route(
                "DELETE",
                "/version/{name}",
                self.delete,
                "delete_version",
                TAG,
                "Delete a version; the document stays as it is.",
                [Answer(204, "It is deleted.")],
                query=VersionQuery,
                access="admin",
                problems=_PROBLEMS,
            ),
            Route(
                "GET",
                "/timeline/{name}",
                self.timeline,
                "get_timeline",
                TAG,
                "Read what happened to a document: who has edited it, and when.",
                [Answer(200, "A page of the timeline.", TimelinePage)],
                query=TimelineQuery,
                access="read",
                problems=("document_not_found", "document_deleted"),
                description="Entries are sittings: they end with a pause of five minutes, when somebody else takes "
                "over after a minute, and after an hour. The newest one grows.",
            ),
        ]

    async def list(self, call: Call[VersionsQuery, NoBody]) -> web.Response:
        """Answer with a page of versions."""
        name, query = call.name, call.query
        await self._permission.require(call.request, name, Access.READ)
        after = None if query.cursor is None else _place(decode_cursor("v", query.cursor))
        kind = None if query.kind is None else Kind(query.kind)
        found = await self._versions.list(name, kind=kind, after=after, limit=query.limit + 1)
        page = found[: query.limit]
        following = encode_cursor("v", _place_of(page[-1])) if len(found) > query.limit else None
        guests = await self._versions.guest_names(name, page)
        return answer(VersionPage(versions=[_describe(each, guests) for each in page], next=following))

    async def make(self, call: Call[NoQuery, NewVersion]) -> web.Response:
        """Make a version, or import one."""
        name, request = call.name, call.request
        grant = await self._permission.require(request, name, Access.WRITE)
        if (request.content_length or 0) > MAX_SMALL_BODY:
            await self._permission.require(request, name, Access.ADMIN)
            self._creation.check_memory()
        body = await call.body(known=True)
        check_name(body.name)
        if body.update is not None:
            await self._permission.require(request, name, Access.ADMIN)
        elif body.at is not None or body.author is not None:
            raise BadRequest('"at" and "author" come with "update"')
        async with self._creation.once(request, grant, f"POST /versions/{name}", body) as once:
            if once.answer is None:
                if body.update is None:
                    version = await self._versions.make(
                        name,
                        body.name,
                        description=body.description,
                        number=body.number,
                        author=grant.user,
                        guest=guest_of(grant),
                    )
                else:
                    version = await self._import(name, body, body.update)
                once.finish(201, (await self._described(name, version)).model_dump_json().encode())
        assert once.answer is not None
        return answer_with(once.answer)

    async def _import(self, name: str, body: NewVersion, text: str) -> Version:
        if body.number is not None or body.at is None:
            raise BadRequest('"update" comes with "at", and without "number"')
        at = read_date(body.at)
        update = decode_update(text)
        if len(update) > self._max_document_bytes:
            raise DocumentTooLarge(f"{len(update)} bytes of a version of {name!r}")
        return await self._versions.import_(
            name, body.name, update, at, description=body.description, author=body.author
        )

    async def show(self, call: Call[VersionQuery, NoBody]) -> web.Response:
        """Answer with one version."""
        name = call.name
        await self._permission.require(call.request, name, Access.READ)
        return answer(await self._described(name, await self._versions.describe(name, call.query.id)))

    async def change(self, call: Call[VersionQuery, VersionChange]) -> web.Response:
        """Change what is said of a version."""
        name = call.name
        await self._permission.require(call.request, name, Access.WRITE)
        body = await call.body(known=True)
        title: str | Keep = KEEP
        if body.name is not None:
            title = body.name
            check_name(title)
        description = body.description if "description" in body.model_fields_set else KEEP
        if isinstance(title, Keep) and isinstance(description, Keep):
            raise BadRequest('"name" or "description" is missing')
        changed = await self._versions.change(name, call.query.id, title=title, description=description)
        return answer(await self._described(name, changed))

    async def _described(self, name: str, version: Version) -> DocumentVersion:
        return _describe(version, await self._versions.guest_names(name, [version]))

    async def delete(self, call: Call[VersionQuery, NoBody]) -> web.Response:
        """Delete a version."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        with self._permission.acting(
            call.request, audit.Act(audit.Kind.VERSION_DELETED, name, f"version {call.query.id}"), grant
        ):
            await self._versions.delete(name, call.query.id)
        return no_content()

    async def timeline(self, call: Call[TimelineQuery, NoBody]) -> web.Response:
        """Answer with a page of the timeline."""
        name, query = call.name, call.query
        await self._permission.require(call.request, name, Access.READ)
        before = None if query.cursor is None else _number(decode_cursor("l", query.cursor))
        document_id, page, guests = await self._hub.timelines.page(name, before=before, limit=query.limit + 1)
        entries = page.entries[: query.limit]
        versions: list[Version] = []
        if entries:
            most = _MAX_VERSIONS * len(entries)
            versions = await self._versions.between(document_id, entries[-1].first, entries[0].last, most)
        return answer(
            TimelinePage(
                entries=await in_slices(_describe_entries(entries, versions, page.reaches, guests)),
                next=encode_cursor("l", str(entries[-1].first)) if len(page.entries) > query.limit else None,
                head=page.head,
                behind=page.head - page.summarised,
                reaches=page.reaches,
            )
        )


def _describe(version: Version, guests: Mapping[str, str]) -> DocumentVersion:
    return DocumentVersion(
        id=version.id,
        number=version.seq or None,
        kind=version.kind.value,
        reason=version.reason.value,
        name=None if version.name is None else _text(version.name),
        description=None if version.description is None else _text(version.description),
        author=None if version.author is None else _text(version.author),
        author_name=None if version.author is None else guests.get(version.author),
        at=show_time(version.at),
    )


def _describe_entries(
    entries: Sequence[Entry], versions: Sequence[Version], reaches: int, guests: Mapping[str, str]
) -> Generator[None, None, list[TimelineEntry]]:
    """Describe entries, with their versions, both the newest first; yields about every millisecond."""
    found: list[TimelineEntry] = []
    places = [-version.seq for version in versions]
    for entry in entries:
        first, end = bisect_left(places, -entry.last), bisect_right(places, -entry.first)
        found.append(_describe_entry(entry, versions[first : min(end, first + _MAX_VERSIONS)], reaches, guests))
        if len(found) % _ENTRIES == 0:
            yield
    return found


def _describe_entry(
    entry: Entry, versions: Sequence[Version], reaches: int, guests: Mapping[str, str]
) -> TimelineEntry:
    marks: list[Literal["pruned", "reset", "restored"]] = []
    if entry.last < reaches:
        marks.append("pruned")
    if entry.mark == "reset":
        marks.append("reset")
    elif entry.mark:
        marks.append("restored")
    return TimelineEntry.model_validate(
        {
            "from": entry.first,
            "to": entry.last,
            "started_at": show_time(entry.started_at),
            "ended_at": show_time(entry.ended_at),
            "authors": [_author(share, guests) for share in entry.shares],
            "other_edits": entry.others,
            "edits": entry.edits,
            "bytes": entry.nbytes,
            "summary": summary(entry, guests),
            "versions": [
                EntryVersion(
                    id=each.id,
                    number=each.seq,
                    kind=each.kind.value,
                    name=None if each.name is None else _text(each.name),
                )
                for each in versions
            ],
            "marks": marks,
        }
    )


def _author(share: Share, guests: Mapping[str, str]) -> EntryAuthor:
    user, behalf = (None if text is None else _text(text) for text in (share.user, share.on_behalf_of))
    name = None if share.user is None else guests.get(share.user)
    return EntryAuthor(user=user, name=name, on_behalf_of=behalf, edits=share.edits)


def summary(entry: Entry, guests: Mapping[str, str]) -> str:
    """Say in a few words what happened, and who did it."""
    users = (share.on_behalf_of or share.user for share in entry.shares)
    people = list(dict.fromkeys(user and guests.get(user, user) for user in users))
    names = [printable(each) if each else "somebody" for each in people[:2]]
    more = len(people) - len(names) + bool(entry.others)
    who = ", ".join(names) + (f" and {more} more" if more else "")
    if entry.mark == "reset":
        return f"{who} reset the document"
    if entry.mark:
        return f"{who} restored an older version"
    return f"{who}: {entry.edits} {'edit' if entry.edits == 1 else 'edits'}"


def _text(text: str) -> str:
    """Make a text that every encoder takes."""
    return text.encode(errors="replace").decode()


def check_name(name: str) -> None:
    """Raise ``BadRequest`` for what is no name of a version."""
    if not name.strip() or not name.isprintable():
        raise BadRequest('"name" is a text that is not blank, without line breaks and control characters')


def read_date(text: str) -> float:
    """Read a time; raises ``BadRequest``."""
    try:
        at = datetime.fromisoformat(text)
        seconds = at.timestamp() if at.tzinfo is not None else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < 253_402_300_000:  # the year 9999, which can be shown
        raise BadRequest('"at" is a time as RFC 3339 has it, with its offset, from 1970 on')
    return seconds


def _place_of(last: Version) -> str:
    return f"{last.at!r} {last.seq} {last.id}"


def _place(text: str) -> tuple[int, float, int]:
    at, *numbers = text.split(" ")
    if len(numbers) != 2:
        raise BadRequest('"cursor" is the "next" of the page before')
    seq, version_id = map(_number, numbers)
    return seq, read_time(at), version_id


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadRequest('"cursor" is the "next" of the page before')
    return int(text)
