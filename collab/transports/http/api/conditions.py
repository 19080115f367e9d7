"""``ETag``, ``If-Match`` and ``If-None-Match`` (RFC 9110) for the states of documents, and what is said of an edit.

Strategy: the tag of a document is the name of its state (``LiveRoom.name_state``), in quotation marks. It is one for
all formats and roots: a client that has read one of them can say with it what an edit is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from collab.auth.access import Grant
from collab.authorship import MAX_NOTE_BYTES, make_note
from collab.errors import LimitExceeded
from collab.hub.editing import Edited
from collab.hub.orders import ANY, Precondition, Sender
from collab.transports.guard.guard import Guard
from collab.transports.http.api.route import Answer, Model, Query, json_response
from collab.transports.problems import HEADERS, BadRequest

READS: Final[Mapping[str, str]] = {"If-None-Match": "Answer 304 if the state is still one of these `ETag`s."}
"""The request headers of what reads a document."""

WRITES: Final[Mapping[str, str]] = {
    "If-Match": "Edit only if the state is one of these `ETag`s; `*` for a document that exists.",
    "If-None-Match": "Edit only if the state is none of these `ETag`s; `*` for a document that does not exist yet.",
}
"""The request headers of what edits a document."""

ETAG: Final[Mapping[str, str]] = {
    "ETag": "The state of the document: another one after each change, the same on every node."
}

PROBLEMS: Final = (
    "document_deleted",
    "precondition_failed",
    "invalid_update",
    "conflict",
    "update_incomplete",
    "content_not_found",
    "not_possible",
    "document_damaged",
    "outcome_unknown",
    "refused",
)
"""The problem codes of what edits a document."""

# Tags of one header; nobody means so many.
_MAX_TAGS = 100

_TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


Noted = Annotated[str | None, Field(max_length=MAX_NOTE_BYTES)]


class EditQuery(Query):
    """When an edit is answered, and what is recorded with it."""

    wait: Literal["committed", "applied"] = Field(
        "committed",
        description="Answer after the commit, or as soon as it was taken and relayed: then a crash may lose it.",
    )
    on_behalf_of: Noted = Field(None, description="The user for whom the sender makes it; up to 255 bytes of UTF-8.")
    label: Noted = Field(None, description="The name of the tool that makes it; up to 255 bytes of UTF-8.")


class EditResult(Model):
    """What became of an edit."""

    changed: bool = Field(description="Whether anything of it was new to the document.")
    committed: bool = Field(description="Whether it is known to be stored.")
    number: int | None = Field(
        description="The newest number of the log when it was stored: its own row, or a later one. Null if it is not."
    )


EDITED: Final = Answer(
    200,
    "It was taken. Without an `ETag`, naming the state of such a large document would have held up others.",
    EditResult,
    ETAG,
)


def read_condition(request: web.Request) -> Precondition:
    """Read the precondition of an edit; raises ``BadRequest``."""
    match = _read_tags(request, hdrs.IF_MATCH, weak=False)
    return Precondition(match, _read_tags(request, hdrs.IF_NONE_MATCH, weak=True))


def has_it(request: web.Request, tag: str) -> bool:
    """Tell whether the sender of a request has this state already, so that 304 is the answer."""
    tags = _read_tags(request, hdrs.IF_NONE_MATCH, weak=True)
    return tags is not None and (ANY in tags or tag in tags)


def quoted(tag: str) -> dict[str, str]:
    """Give the header that tells a state."""
    return {hdrs.ETAG: f'"{tag}"'}


def not_modified(tag: str) -> web.Response:
    """Make the answer that says that nothing has changed."""
    return web.Response(status=304, headers={**HEADERS, **quoted(tag)})


async def head(request: web.Request, media: str, tag: str) -> web.StreamResponse:
    """Answer HEAD: nothing is put together, so the length is not said."""
    response = web.StreamResponse(headers={**HEADERS, **quoted(tag), hdrs.VARY: hdrs.ACCEPT})
    response.content_type = media
    await response.prepare(request)
    await response.write_eof()
    return response


def edited(result: Edited) -> web.Response:
    """Make the answer to an edit."""
    headers = {} if result.tag is None else quoted(result.tag)
    said = EditResult(changed=result.changed, committed=result.committed, number=result.number)
    return json_response(said, headers=headers)


def sender(request: web.Request, query: EditQuery, guard: Guard, grant: Grant) -> Sender:
    """Say who sends an edit; raises ``BadRequest``."""
    try:
        note = make_note(query.on_behalf_of, query.label)
    except LimitExceeded as error:
        raise BadRequest(error.public) from None
    return Sender(guard.peer(request), grant, note)


def _read_tags(request: web.Request, header: str, *, weak: bool) -> frozenset[str] | None:
    """Read a list of tags; weak ones count only where the comparison is weak (RFC 9110, 8.8.3.2)."""
    values = request.headers.getall(header, ())
    if not values:
        return None
    text = ", ".join(values).strip()
    if text == ANY:
        return frozenset({ANY})
    tags: set[str] = set()
    at = count = 0
    while at < len(text) or not count:
        found = _TAG.match(text, at)
        count += 1
        if found is None or count > _MAX_TAGS:
            raise BadRequest(f"{header} is not a list of up to {_MAX_TAGS} entity tags in quotation marks, or *")
        # A tag of somebody's that is "*" is none of ours.
        if (weak or not found[1]) and found[2] != ANY:
            tags.add(found[2])
        at = found.end()
    return frozenset(tags)
