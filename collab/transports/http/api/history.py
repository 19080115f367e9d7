"""``/attribution``, ``/changes``, ``/rows``, ``/restore``, ``/undo``: who wrote what, what changed, and the way back.

Strategy: all of it is read and computed below (``collab.hub.rewinding``), in sandbox processes, and what is shown comes
from there as JSON already: a large document has hundreds of thousands of ranges. Here it is decided who may.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from aiohttp import hdrs, web
from pydantic import AwareDatetime, Field

from collab.audit import Act, Kind
from collab.history.tasks import Shown
from collab.hub.attributing import MAX_PORTION_BYTES, MAX_PORTION_ROWS
from collab.hub.rewinding import Rewinding
from collab.hub.versions import Which
from collab.protocol.session import Access
from collab.telemetry import shown_text
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import GZIP, Permission, takes_gzip
from collab.transports.http.api import conditions
from collab.transports.http.api.conditions import EditQuery, Noted
from collab.transports.http.api.creation import KEY_HEADER, Creation, answer_with
from collab.transports.http.api.route import JSON, NDJSON, Answer, AnyRoute, Call, Model, NoBody, Query, Raw, Route
from collab.transports.http.api.updates import send_parts
from collab.transports.http.api.versions import VersionId
from collab.transports.problems import BadRequest
from collab.update.parts import Parts

TAG: Final = "History"

DIFF: Final = "text/x-diff"

_MAX_ROOT: Final = 256
_MAX_ELEMENT: Final = 256
_MAX_USER: Final = 1_024
_MOST: Final = 1 << 53

Number = Annotated[int, Field(ge=0, lt=_MOST)]

_PROBLEMS: Final = (
    "document_not_found",
    "document_deleted",
    "content_not_found",
    "history_gone",
    "not_possible",
    "too_large",
    "document_damaged",
)
_ROWS_PROBLEMS: Final = (
    "document_not_found",
    "document_deleted",
    "history_gone",
    "not_possible",
    "document_damaged",
)


class AttributionQuery(Query):
    """How it is shown who wrote what."""

    root: str | None = Field(
        None, max_length=_MAX_ROOT, description="The name of a root that is shown in runs; without it, ranges of IDs."
    )
    format: Literal["ranges", "text", "prosemirror"] | None = Field(
        None, description="`ranges` without a root, `text` with one; `prosemirror` for rich texts, with marks."
    )


class ChangesQuery(Query):
    """Between which numbers of the log, and how changes are shown."""

    start: Number = Field(alias="from", description="The number after which changes count; 0 is before the first one.")
    end: Number | None = Field(None, alias="to", description="The number up to which they count; the newest without.")
    root: str | None = Field(None, max_length=_MAX_ROOT, description="The name of a root; without it the one there is.")
    format: Literal["update", "prosemirror", "text", "diff"] = Field(
        "update",
        description=(
            "`update`: for yjs in a browser, with two snapshots. `prosemirror`: ProseMirror JSON with `ychange` marks. "
            "`text`: runs. `diff`: a unified diff of a text."
        ),
    )


class RowsQuery(Query):
    """Between which numbers of the log."""

    start: Number = Field(alias="from", description="The number after which rows are given; 0 is before the first one.")
    end: Number | None = Field(None, alias="to", description="The number of the last one; the newest without.")


class RestoreBody(Model):
    """What is restored, and what is recorded with it."""

    number: Number | None = Field(
        None, description="The number of the log that is gone back to; 0 is before the first one."
    )
    version: VersionId | None = Field(None, description="Instead of `number`: the `id` of a version that is restored.")
    root: str | None = Field(None, max_length=_MAX_ROOT, description="Only this root.")
    element: str | None = Field(
        None,
        max_length=_MAX_ELEMENT,
        description="Only this element of the root: what has this `id`, or this key in a map. Needs `root`.",
    )
    on_behalf_of: Noted = Field(None, description="The user for whom the sender does it.")
    label: Noted = Field(None, description="Instead of `restore number=N version=ID`.")


class UndoBody(Model):
    """Whose edits are taken back, and what is recorded with it."""

    author: str = Field(max_length=_MAX_USER, description="The user whose edits are taken back.")
    edited_on_behalf_of: Noted = Field(None, description="Only those that were made for this user.")
    start: Number | None = Field(None, alias="from", description="Only those after this number.")
    end: Number | None = Field(None, alias="to", description="Only those up to this number.")
    since: AwareDatetime | None = Field(
        None, strict=False, description="Only those since this time, instead of `from`."
    )
    on_behalf_of: Noted = Field(None, description="The user for whom the sender does it.")
    label: Noted = Field(None, description="Instead of `undo`.")


class Rewound(Model):
    """What became of it."""

    changed: bool = Field(description="Whether there was anything to do.")
    before: int = Field(description="The newest number before it: restore this one to take it back.")
    number: int = Field(description="The newest number when it was stored.")


class HistoryRoutes:
    """The handlers.

    Args:
        rewinding: does what is asked.
        permission: says who may do what.
        guard: knows who has sent a request.
        creation: does calls once.
    """

    def __init__(self, rewinding: Rewinding, permission: Permission, guard: Guard, creation: Creation) -> None:
        self._rewinding = rewinding
        self._permission = permission
        self._guard = guard
        self._creation = creation

    def routes(self) -> list[AnyRoute]:
        """Give the routes of this part."""
        done = [Answer(200, "It was done, and this is stored.", Rewound)]
        problems = tuple(dict.fromkeys((*_PROBLEMS, *conditions.PROBLEMS, "key_reused")))
        return [
            Route(
                "GET",
                "/attribution/{name}",
                self.attribution,
                "get_attribution",
                TAG,
                "Read who wrote what in a document.",
                [Answer(200, "Marks, and what they are of.", Raw(JSON))],
                query=AttributionQuery,
                access="read",
                problems=_PROBLEMS,
                description=(
                    "`marks` say who, with what note, and from when to when, in unix seconds; an author that is null "
                    "is unknown, and `author_name` is what a guest is called. `inserted` and `deleted` are lists of "
                    "`[client, [clock, length, mark, ...]]`; runs name marks by their places, too. A long answer is "
                    "compressed for clients that take gzip."
                ),
            ),
            Route(
                "GET",
                "/changes/{name}",
                self.changes,
                "get_changes",
                TAG,
                "Read what changed between two numbers of the log, and who has done it.",
                [Answer(200, "The changes, in the format that was asked for.", Raw(JSON, DIFF))],
                query=ChangesQuery,
                access="read",
                problems=_PROBLEMS,
                description=(
                    "As `update` there are `base` (the state at `from`), `update`, `prev_snapshot`, `snapshot` and "
                    "`state_vector` in base64, with `marks`, `inserted` and `deleted` as in the attribution."
                ),
            ),
            Route(
                "GET",
                "/rows/{name}",
                self.rows,
                "get_rows",
                TAG,
                "Read the rows of the log one by one, as for a film of a document's life.",
                [Answer(200, "The first rows of the interval, in order; none if it is empty.", Raw(NDJSON))],
                query=RowsQuery,
                access="read",
                problems=_ROWS_PROBLEMS,
                description=(
                    'Each line is `{"number", "at", "author", "author_name", "on_behalf_of", "label", "update"}`: '
                    "`at` in unix seconds, `author_name` what a guest is called, `update` a Yjs update (v1) in base64. "
                    f"An answer has up to {MAX_PORTION_ROWS:,} rows and {MAX_PORTION_BYTES >> 20} MiB of updates; a "
                    "longer row comes alone. Ask for the next ones with `from` as the last number that came. They "
                    "build on the state at the first `from`, which `/updates` gives."
                ),
            ),
            Route(
                "POST",
                "/restore/{name}",
                self.restore,
                "restore_state",
                TAG,
                "Make a document, or a part of it, what it was at a number of the log, or as a version of it.",
                done,
                body=RestoreBody,
                access="write",
                problems=(*problems, "version_not_found"),
                headers=KEY_HEADER,
                description=(
                    "It is an edit like any other: everybody sees it arrive, goes on, and it can be taken back. "
                    "There is either a `number` or a `version`. The state before it is noted as an automatic version."
                ),
            ),
            Route(
                "POST",
                "/undo/{name}",
                self.undo,
                "undo_edits",
                TAG,
                "Take back what one user has done, and leave what others have done.",
                done,
                body=UndoBody,
                access="write",
                problems=problems,
                headers=KEY_HEADER,
            ),
        ]

    async def attribution(self, call: Call[AttributionQuery, NoBody]) -> web.StreamResponse:
        """Answer who wrote what."""
        await self._permission.require(call.request, call.name, Access.READ)
        query = call.query
        format = query.format or ("ranges" if query.root is None else "text")
        found = await self._rewinding.attribution(
            call.name, runs=format != "ranges", root=query.root, rich=format == "prosemirror"
        )
        return await _send(call.request, found, JSON)

    async def changes(self, call: Call[ChangesQuery, NoBody]) -> web.StreamResponse:
        """Answer what changed."""
        await self._permission.require(call.request, call.name, Access.READ)
        query = call.query
        found = await self._rewinding.changes(call.name, query.start, query.end, query.format, query.root)
        if query.format == "diff":
            return await _send(call.request, found, DIFF, charset="utf-8")
        return await _send(call.request, found, JSON)

    async def rows(self, call: Call[RowsQuery, NoBody]) -> web.StreamResponse:
        """Answer with the first rows of an interval."""
        await self._permission.require(call.request, call.name, Access.READ)
        found = await self._rewinding.rows(call.name, call.query.start, call.query.end)
        return await send_parts(call.request, Parts((found,)), content_type=NDJSON)

    async def restore(self, call: Call[EditQuery, RestoreBody]) -> web.Response:
        """Restore; answer after the commit."""
        name, request = call.name, call.request
        grant = await self._permission.require(request, name, Access.WRITE)
        body = await call.body(known=True)
        if body.element is not None and body.root is None:
            raise BadRequest('"element" needs a "root"')
        if (body.number is None) == (body.version is None):
            raise BadRequest('there is a "number" or a "version"')
        which = Which(body.version, body.number)
        query = EditQuery(wait="committed", on_behalf_of=body.on_behalf_of, label=body.label)
        sender = conditions.sender(request, query, self._guard, grant)
        async with self._creation.once(request, grant, f"POST /restore {name}", body) as once:
            if once.answer is None:
                act = Act(Kind.STATE_RESTORED, name, _which(which, body.root))
                with self._permission.acting(request, act, grant, on_behalf_of=body.on_behalf_of):
                    done = await self._rewinding.restore(name, which, sender, root=body.root, element=body.element)
                    act.nothing = not done.changed
                once.finish(200, Rewound(**done._asdict()).model_dump_json().encode())
        assert once.answer is not None
        return answer_with(once.answer)

    async def undo(self, call: Call[EditQuery, UndoBody]) -> web.Response:
        """Undo what one user has done; answer after the commit."""
        name, request = call.name, call.request
        grant = await self._permission.require(request, name, Access.WRITE)
        body = await call.body(known=True)
        if (body.start is None) == (body.since is None):
            raise BadRequest('there is a "from" or a "since"')
        query = EditQuery(wait="committed", on_behalf_of=body.on_behalf_of, label=body.label)
        sender = conditions.sender(request, query, self._guard, grant)
        async with self._creation.once(request, grant, f"POST /undo {name}", body) as once:
            if once.answer is None:
                act = Act(Kind.EDITS_UNDONE, name, target=body.author)
                with self._permission.acting(request, act, grant, on_behalf_of=body.on_behalf_of):
                    done = await self._rewinding.undo(
                        name,
                        body.author,
                        sender,
                        start=body.start,
                        end=body.end,
                        since=None if body.since is None else body.since.timestamp(),
                        on_behalf_of=body.edited_on_behalf_of,
                    )
                    act.nothing = not done.changed
                once.finish(200, Rewound(**done._asdict()).model_dump_json().encode())
        assert once.answer is not None
        return answer_with(once.answer)


async def _send(
    request: web.Request, shown: Shown, content_type: str, charset: str | None = None
) -> web.StreamResponse:
    """Send what the history shows, compressed if it is that and the client takes it."""
    data = shown.data
    headers: dict[str, str] = {}
    if shown.gzipped:
        headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        if takes_gzip(request):
            headers[hdrs.CONTENT_ENCODING] = GZIP
        else:
            data = await asyncio.to_thread(shown.plain)
    return await send_parts(request, Parts((data,)), headers, content_type=content_type, charset=charset)


def _which(which: Which, root: str | None) -> str:
    state = f"number {which.number}" if which.version is None else f"version {which.version}"
    return state if root is None else f"{state}, the root {shown_text(root)}"
