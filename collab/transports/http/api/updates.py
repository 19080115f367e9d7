"""``/updates/{name}``: documents as Yjs updates, for programs that have a CRDT of their own.

Strategy: no CRDT is needed here. What is read is put together from what the document in memory is made of, and leaves
in portions; what comes is read and merged like an update on a socket, and is there for everybody at once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from pydantic import Field

from collab.hub.editing import Editing
from collab.hub.versions import Past
from collab.protocol.session import Access
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission
from collab.transports.http.api import conditions
from collab.transports.http.api.conditions import EditQuery
from collab.transports.http.api.route import OCTETS, Answer, AnyRoute, Call, NoBody, Raw, Route
from collab.transports.http.api.versions import WhichQuery
from collab.transports.http.bodies import LongBodies
from collab.transports.problems import HEADERS, BadRequest
from collab.update.parts import Cursor, Parts

TAG: Final = "Content"

# Bytes of an answer that are written in one go: a portion is copied twice, and rooms wait for it.
_PORTION: Final = 64 * 1024

# Characters of a state vector. Proxies take lines of 8 KiB; for a longer vector the whole document is as good.
_MAX_VECTOR: Final = 6_000


class UpdateQuery(WhichQuery):
    """What is wanted of a document."""

    state_vector: str = Field(
        "",
        max_length=_MAX_VECTOR,
        pattern="^[A-Za-z0-9_-]*={0,2}$",
        description="A Yjs state vector in base64url: only what it lacks is given. Without it, the whole document.",
    )


class UpdateRoutes:
    """The handlers.

    Args:
        editing: does what is asked.
        permission: says who may do what.
        guard: knows who has sent a request.
        bodies: reads updates.
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
        return [
            Route(
                "GET",
                "/updates/{name}",
                self.show,
                "get_update",
                TAG,
                "Read a document as a Yjs update (v1), as it is or was: all of it, or what a state vector lacks.",
                [
                    Answer(200, "The update, with the whole delete set.", Raw(OCTETS), conditions.ETAG),
                    Answer(304, "The document is still in a state that `If-None-Match` names.", None, conditions.ETAG),
                ],
                query=UpdateQuery,
                access="read",
                problems=(
                    "document_not_found",
                    "document_deleted",
                    "document_damaged",
                    "version_not_found",
                    "history_gone",
                ),
                headers=conditions.READS,
            ),
            Route(
                "POST",
                "/updates/{name}",
                self.apply,
                "apply_update",
                TAG,
                "Apply a Yjs update (v1).",
                [conditions.EDITED],
                query=EditQuery,
                raw=Raw(OCTETS, description="A v1 update, as `Y.encodeStateAsUpdate` gives it."),
                most=self._bodies.largest,
                access="write",
                problems=conditions.PROBLEMS,
                headers=conditions.WRITES,
                description=(
                    "It is merged and relayed like an edit on a socket, and creates a document that does not exist. "
                    "It is taken as a whole or not at all: one that refers to what the document lacks is refused. The "
                    "same update may be sent again, and is in the document once; `If-Match` counts only where "
                    "something of it is new."
                ),
            ),
        ]

    async def show(self, call: Call[UpdateQuery, NoBody]) -> web.StreamResponse:
        """Answer with what a state vector lacks."""
        name, request = call.name, call.request
        await self._permission.require(request, name, Access.READ)
        vector = _read_vector(call.query.state_vector)
        which = call.query.which()
        state = None if which is None else await self._past.state(name, which)
        tag = await (self._editing.name_state(name) if state is None else state.tag())
        if conditions.has_it(request, tag):
            return conditions.not_modified(tag)
        if request.method == hdrs.METH_HEAD:
            return await conditions.head(request, OCTETS, tag)
        if state is not None:
            return await send_parts(request, await state.lacking(vector), conditions.quoted(tag))
        whole = await self._editing.whole(name, vector)
        return await send_parts(request, whole.update, conditions.quoted(whole.tag))

    async def apply(self, call: Call[EditQuery, NoBody]) -> web.Response:
        """Apply the update that is the body."""
        name, request = call.name, call.request
        grant = await self._permission.require(request, name, Access.WRITE)
        condition = conditions.read_condition(request)
        sender = conditions.sender(request, call.query, self._guard, grant)
        async with self._bodies.read(request, (OCTETS,)) as update:
            commit = call.query.wait == "committed"
            return conditions.edited(await self._editing.apply(name, update, sender, condition, commit=commit))


async def send_parts(
    request: web.Request,
    parts: Parts,
    headers: Mapping[str, str] | None = None,
    content_type: str = OCTETS,
    charset: str | None = None,
) -> web.StreamResponse:
    """Send what is put together as it leaves, as fast as the client reads, with rooms in between."""
    headers = {**HEADERS, **(headers or {})}
    if parts.nbytes <= _PORTION:
        return web.Response(body=parts.join(), content_type=content_type, charset=charset, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_type = content_type
    if charset is not None:
        response.charset = charset
    response.content_length = parts.nbytes
    await response.prepare(request)
    cursor = Cursor(parts)
    while cursor.left:
        await response.write(b"".join(cursor.take(_PORTION)))
        await asyncio.sleep(0)  # a client that reads fast never makes it wait
    await response.write_eof()
    return response


def _read_vector(text: str) -> bytes:
    if not text:
        return b"\0"
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the state vector is not base64url") from None
