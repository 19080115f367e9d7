"""``/content/{name}``: what a document holds, in formats that programs know; replaced by difference or changed in part.

Strategy: the formats are ``collab.content``'s, and are read and written in the sandbox; here stands which media type is
which format, and how edits are written in JSON. A body that may be long is not even parsed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal

from aiohttp import hdrs, web
from pydantic import Field, JsonValue, ValidationError

from collab.content import edits
from collab.content.edits import Batch, Format, Patch, Replace, RootType
from collab.hub.editing import Editing
from collab.hub.versions import Past
from collab.protocol.session import Access
from collab.sandbox.port import Written
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission, choose_media
from collab.transports.http.api import conditions
from collab.transports.http.api.conditions import EditQuery
from collab.transports.http.api.route import (
    JSON,
    Answer,
    AnyRoute,
    Call,
    Model,
    NoBody,
    Raw,
    Route,
    invalid,
)
from collab.transports.http.api.updates import send_parts
from collab.transports.http.api.versions import WhichQuery
from collab.transports.http.bodies import LongBodies
from collab.transports.problems import BadRequest
from collab.update.parts import Parts

TAG: Final = "Content"

MEDIA: Final[dict[Format, str]] = {
    Format.JSON: JSON,
    Format.TEXT: "text/plain",
    Format.MARKDOWN: "text/markdown",
    Format.HTML: "text/html",
    Format.PROSEMIRROR: "application/vnd.prosemirror+json",
    Format.DELTA: "application/vnd.quill.delta+json",
    Format.EXCALIDRAW: "application/vnd.excalidraw+json",
}
"""The media types of the formats; the first is given to those who take anything."""

JSON_PATCH: Final = "application/json-patch+json"

MAX_EDITS_BYTES: Final = 256 * 1024
"""Bytes of edits in JSON, which are parsed in the process that serves; for more there are PUT and JSON Patch."""

MAX_CONTENT_BYTES: Final = 32 * 1024 * 1024
"""Bytes of content or of a JSON Patch, unless messages may not have so many."""

# Characters of the name of a root in an address, whose line has a bound.
_MAX_ROOT: Final = 256

_FORMATS: Final = {media: format for format, media in MEDIA.items()}

# A page that was written by anybody must be nothing but text in a browser.
_POLICY: Final = "default-src 'none'; sandbox; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

Root = Annotated[str, Field(max_length=edits.MAX_NAME, description="The name of the root.")]
PathTo = Annotated[
    list[Annotated[str, Field(max_length=edits.MAX_NAME)] | Annotated[int, Field(ge=0)]],
    Field(
        max_length=edits.MAX_PATH,
        description="Where the type lies below the root: keys of maps, indices of arrays and of children of XML.",
    ),
]
Units = Annotated[int, Field(ge=0, le=1 << 32, description="In UTF-16 code units, as Yjs and JavaScript count.")]
Attributes = dict[str, JsonValue]


class Insert(Model):
    """Insert a string into a text."""

    op: Literal["insert"]
    root: Root
    path: PathTo = []
    at: Units
    text: str
    attributes: Attributes | None = Field(None, description="Its formats; without them those of what is before it.")

    def edit(self) -> edits.TextInsert:
        """Give what the sandbox is told."""
        return edits.TextInsert(self.root, self.at, self.text, self.attributes, tuple(self.path))


class Delete(Model):
    """Delete a part of a text."""

    op: Literal["delete"]
    root: Root
    path: PathTo = []
    at: Units
    length: Units

    def edit(self) -> edits.TextDelete:
        """Give what the sandbox is told."""
        return edits.TextDelete(self.root, self.at, self.length, tuple(self.path))


class ReplacePassage(Model):
    """Replace a passage that is in a text, or in a rich text, just once."""

    op: Literal["replace"]
    root: Root
    path: PathTo = []
    passage: str
    text: str

    def edit(self) -> edits.TextReplace:
        """Give what the sandbox is told."""
        return edits.TextReplace(self.root, self.passage, self.text, tuple(self.path))


class FormatText(Model):
    """Give a part of a text formats; null takes one off."""

    op: Literal["format"]
    root: Root
    path: PathTo = []
    at: Units
    length: Units
    attributes: Attributes

    def edit(self) -> edits.TextFormat:
        """Give what the sandbox is told."""
        return edits.TextFormat(self.root, self.at, self.length, self.attributes, tuple(self.path))


class Append(Model):
    """Append values to an array."""

    op: Literal["append"]
    root: Root
    path: PathTo = []
    values: list[JsonValue] = Field(max_length=100_000)
    shared: bool = Field(False, description="Make objects and lists shared types, which can be edited in part.")

    def edit(self) -> edits.ArrayAppend:
        """Give what the sandbox is told."""
        return edits.ArrayAppend(self.root, tuple(self.values), tuple(self.path), self.shared)


OneEdit = Annotated[Insert | Delete | ReplacePassage | FormatText | Append, Field(discriminator="op")]


class Edits(Model):
    """Edits that are made together: each sees what those before it did; if one cannot be made, none is."""

    edits: list[OneEdit] = Field(min_length=1, max_length=edits.MAX_OPERATIONS)


class ReadQuery(WhichQuery):
    """What is shown of a document."""

    root: str | None = Field(
        None,
        max_length=_MAX_ROOT,
        description="The name of a root. Without it: all roots in JSON, the one that holds the format in others.",
    )
    format: Literal["json", "text", "delta", "prosemirror", "html", "markdown", "excalidraw"] | None = Field(
        None, description="The format by its name, instead of `Accept`."
    )


class ReplaceQuery(EditQuery):
    """What is replaced in a document."""

    root: str | None = Field(None, max_length=_MAX_ROOT, description="The name of a root; see reading.")
    type: Literal["text", "map", "array", "xml"] | None = Field(
        None, description="What the root is made as, if it is empty. Without it the content decides."
    )
    shared: bool = Field(False, description="Make new objects and lists of JSON shared types.")


class PatchQuery(EditQuery):
    """How a document is patched."""

    shared: bool = Field(False, description="Make new objects and lists of a JSON Patch shared types.")


class ContentRoutes:
    """The handlers.

    Args:
        editing: does what is asked.
        permission: says who may do what.
        guard: knows who has sent a request.
        bodies: reads content.
        past: reads what documents held.
    """

    def __init__(self, editing: Editing, permission: Permission, guard: Guard, bodies: LongBodies, past: Past) -> None:
        self._editing = editing
        self._permission = permission
        self._guard = guard
        self._bodies = bodies
        self._past = past

    def routes(self) -> list[AnyRoute]:
        """Give the routes of this part."""
        most = min(MAX_CONTENT_BYTES, self._bodies.largest)
        return [
            Route(
                "GET",
                "/content/{name}",
                self.show,
                "get_content",
                TAG,
                "Read what a document holds, or has held, in the format that `Accept` names.",
                [
                    Answer(200, "The content.", Raw(*MEDIA.values()), conditions.ETAG),
                    Answer(304, "The document is still in a state that `If-None-Match` names.", None, conditions.ETAG),
                ],
                query=ReadQuery,
                access="read",
                problems=(
                    "document_not_found",
                    "document_deleted",
                    "content_not_found",
                    "version_not_found",
                    "history_gone",
                    "not_possible",
                    "not_acceptable",
                    "too_large",
                    "document_damaged",
                ),
                headers={"Accept": "Formats by their media types; JSON if anything will do.", **conditions.READS},
            ),
            Route(
                "PUT",
                "/content/{name}",
                self.replace,
                "replace_content",
                TAG,
                "Replace what a root shows, by difference.",
                [conditions.EDITED],
                query=ReplaceQuery,
                raw=Raw(*MEDIA.values(), description="The content, in the format that the content type names."),
                most=most,
                access="write",
                problems=conditions.PROBLEMS,
                headers=conditions.WRITES,
                description=(
                    "What stays equal keeps its identity, its cursors and its marks; what people type meanwhile "
                    "merges. The same content twice changes nothing."
                ),
            ),
            Route(
                "PATCH",
                "/content/{name}",
                self.change,
                "change_content",
                TAG,
                "Change a part of a document: edits of texts and arrays, or a JSON Patch.",
                [conditions.EDITED],
                query=PatchQuery,
                body=Edits,
                raw=Raw(JSON_PATCH, description="Edits, or a JSON Patch (RFC 6902) whose paths begin with a root."),
                most=most,
                access="write",
                problems=conditions.PROBLEMS,
                headers=conditions.WRITES,
            ),
        ]

    async def show(self, call: Call[ReadQuery, NoBody]) -> web.StreamResponse:
        """Answer with the content in a format."""
        name, request = call.name, call.request
        await self._permission.require(request, name, Access.READ)
        if call.query.format is None:
            format = choose_format(request.headers.getall(hdrs.ACCEPT, ()))
        else:
            format = Format(call.query.format)
        which = call.query.which()
        state = None if which is None else await self._past.state(name, which)
        tag = await (self._editing.name_state(name) if state is None else state.tag())
        if conditions.has_it(request, tag):
            return conditions.not_modified(tag)
        if request.method == hdrs.METH_HEAD:
            return await conditions.head(request, MEDIA[format], tag)
        if state is None:
            shown = await self._editing.read(name, format, call.query.root)
            body, tag = shown.value, shown.tag
        else:
            body = await self._past.show(state, format, call.query.root)
        headers = {**conditions.quoted(tag), hdrs.VARY: hdrs.ACCEPT}
        if format is Format.HTML:
            headers["Content-Security-Policy"] = _POLICY
        charset = "utf-8" if MEDIA[format].startswith("text/") else None
        return await send_parts(request, Parts((body,)), headers, MEDIA[format], charset)

    async def replace(self, call: Call[ReplaceQuery, NoBody]) -> web.Response:
        """Replace what a root shows by the body."""
        query = call.query
        kind = None if query.type is None else RootType(query.type)
        return await self._edit(
            call.request,
            call.name,
            query,
            tuple(MEDIA.values()),
            lambda media, data: Written(Replace(query.root, _FORMATS[media], None, kind, query.shared), data),
        )

    async def change(self, call: Call[PatchQuery, Edits]) -> web.Response:
        """Make the edits of the body."""

        def read(media: str, data: bytes) -> Written | Batch:
            if media == JSON_PATCH:
                return Written(Patch((), call.query.shared), data)
            try:
                found = Edits.model_validate_json(data)
            except ValidationError as error:
                raise invalid(error, "the body") from None
            return Batch(tuple(one.edit() for one in found.edits))

        return await self._edit(call.request, call.name, call.query, (JSON, JSON_PATCH), read)

    async def _edit(
        self,
        request: web.Request,
        name: str,
        query: EditQuery,
        media: tuple[str, ...],
        read: Callable[[str, bytes], Written | Batch],
    ) -> web.Response:
        grant = await self._permission.require(request, name, Access.WRITE)
        condition = conditions.read_condition(request)
        sender = conditions.sender(request, query, self._guard, grant)
        if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
            raise BadRequest("the charset is UTF-8", "unsupported_media_type")
        small = request.method == hdrs.METH_PATCH and request.content_type == JSON
        most = MAX_EDITS_BYTES if small else MAX_CONTENT_BYTES
        async with self._bodies.read(request, media, most) as data:
            edit = read(request.content_type, data)
            commit = query.wait == "committed"
            return conditions.edited(await self._editing.edit(name, edit, sender, condition, commit=commit))


def choose_format(accepts: Iterable[str]) -> Format:
    """Choose the format that a client likes best, by RFC 9110, 12.5.1.

    Raises:
        BadRequest: none of them.
    """
    found = choose_media(accepts, _FORMATS)
    if found is None:
        raise BadRequest(f"there are {', '.join(_FORMATS)}", "not_acceptable")
    return _FORMATS[found]
