"""``/api/documents``: which documents there are, and their titles, creation and deletion.

Strategy: everything here is answered from the store's columns and from the rooms that are live on this node;
no document is read for it, so a listing of a thousand documents costs one query. What a document is for is
not the server's business: an application that has kinds of documents puts them into the beginning of the
names, as the pages in ``web_demo`` do, and lists by ``prefix``.

The title is a copy too. In a document that many edit at once the title belongs into the document, where it is
merged like all else; but only a CRDT library could read it there, and none runs in a serving process. So
whoever renames a document says so here as well, and a listing has something to show.

    GET    /api/documents?prefix=&after=&limit=    200 {"documents": [...], "next": name or null}
    POST   /api/documents          {"name", "title"?}    201, 409, 429, 503
    GET    /api/documents/{name}                   200, 404, 410
    PATCH  /api/documents/{name}   {"title"}       200, 404, 410
    PATCH  /api/documents/{name}   {"name"}        200, 404, 409, 410: it has another name from then on
    DELETE /api/documents/{name}                   204, 404

A document is ``{"name", "title", "access", "created_at", "updated_at", "bytes", "participants": [{"name",
"color"}], "connections"}``: ``access`` is what the one who asks may do with it, times are RFC 3339 in UTC,
``bytes`` what opening it reads, and the last two tell who is in it now, on this node.

With authentication each request carries ``Authorization: Bearer``, and the authenticator is asked about each
document that it touches: reading shows it, writing creates it and sets its title, only ``admin`` deletes it, and
gives it another name (``admin`` for both names). A listing
leaves out what may not be read, so a page may hold fewer than ``limit`` documents and still have a ``next``.

Creating counts in ``max_new_documents_per_minute`` as joining a document that is not there does: past it the
answer is 429 with ``Retry-After``; and while the server is short of memory, 503. Nothing else here makes a document.

Bodies and errors are as in ``answers``; no other origin's page can send PATCH or DELETE without asking first either.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from collab.errors import AccessDenied, DocumentBusy, Unauthenticated
from collab.hub.admission import Admission
from collab.hub.documents import Documents
from collab.hub.hub import Hub, Presence
from collab.protocol.awareness import decode_awareness
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.storage.records import DocumentSummary
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import HEADERS, BadRequest, Permission, answering, encodable, json_answer
from collab.transports.requests import bearer_token, document_name

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_TITLE = 200
"""Characters of a title, after white space at its ends is gone."""

# A listing shows a few faces, whatever the size of a room; and whoever keeps a book in its awareness state
# is shown without a name rather than parsed at every listing.
_MAX_PARTICIPANTS = 8
_MAX_STATE_BYTES = 4 * 1024
_MAX_PERSON_TEXT = 64

# What Retry-After says while the server is short of memory.
_MEMORY_SECONDS = 60

# The name that is asked about when there is nothing to list: a token that is no good is told so all the same.
_ANY_NAME = "any"

# Questions about access that one listing has open at a time: an authenticator may be another server.
_QUESTIONS = 8


def add_document_routes(
    app: web.Application, documents: Documents, hub: Hub, admission: Admission, guard: Guard
) -> None:
    """Serve ``/api/documents``; ``documents`` does what is asked, ``hub`` knows who is where, ``guard`` who asks."""
    handlers = _Handlers(documents, hub, Permission(admission, guard), guard)
    app.router.add_get("/api/documents", answering(handlers.list))
    app.router.add_post("/api/documents", answering(handlers.create))
    one = r"/api/documents/{name:[\s\S]+}"
    app.router.add_get(one, answering(handlers.show))
    app.router.add_patch(one, answering(handlers.change))
    app.router.add_delete(one, answering(handlers.delete))


class _Handlers:
    """The handlers."""

    def __init__(self, documents: Documents, hub: Hub, permission: Permission, guard: Guard) -> None:
        self._documents = documents
        self._hub = hub
        self._permission = permission
        self._guard = guard

    async def list(self, request: web.Request) -> web.Response:
        """Answer with a page of documents in the order of their names; ``next`` is the ``after`` of the following."""
        limit = _limit(request.query.get("limit"))
        prefix, after = request.query.get("prefix", ""), request.query.get("after")
        for text in (prefix, after or ""):
            encodable(text)
        found = await self._documents.list(after=after, prefix=prefix, limit=limit + 1)
        page = found[:limit]
        access = await self._access(request, [summary.document.name for summary in page])
        presence = await self._hub.presence(list(access))
        return json_answer(
            {
                "documents": [
                    _describe(summary, access[summary.document.name], presence[summary.document.name])
                    for summary in page
                    if summary.document.name in access
                ],
                "next": page[-1].document.name if len(found) > limit else None,
            }
        )

    async def show(self, request: web.Request) -> web.Response:
        """Answer with one document as it stands in the listing."""
        name = document_name(request)
        access = (await self._permission.require(request, name, Access.READ)).access
        return await self._answer(await self._documents.describe(name), access)

    async def create(self, request: web.Request) -> web.Response:
        """Create an empty document, also in the place of a deleted one."""
        body = await self._permission.read_body(request)
        name = body.get("name")
        if not isinstance(name, str):
            raise BadRequest('"name" is missing')
        check_document_name(name)
        grant = await self._permission.require(request, name, Access.WRITE)
        title = _title(body["title"]) if body.get("title") is not None else None
        peer, limits = self._guard.peer(request), self._guard.limits
        try:
            limits.check_load(open_already=False)
            # One that exists already, or cannot be stored, is not counted.
            with limits.creating(peer, grant.user, asyncio.get_running_loop().time()):
                summary = await self._documents.create(name, title=title)
        except DocumentBusy as error:
            self._guard.audit.note(error, peer.address, name)
            status, pause = (503, _MEMORY_SECONDS) if limits.memory.past_mark else (429, limits.creation_pause)
            raise BadRequest(error.public, status, {"Retry-After": str(math.ceil(pause))}) from None
        return await self._answer(summary, grant.access, 201)

    async def change(self, request: web.Request) -> web.Response:
        """Set the title, null takes it away; or give the document another name."""
        name = document_name(request)
        access = (await self._permission.require(request, name, Access.WRITE)).access
        body = await self._permission.read_body(request, known=True)
        if "name" in body:
            return await self._rename(request, name, body)
        if "title" not in body:
            raise BadRequest('"title" or "name" is missing')
        title = None if body["title"] is None else _title(body["title"])
        return await self._answer(await self._documents.set_title(name, title), access)

    async def _rename(self, request: web.Request, name: str, body: dict[str, Any]) -> web.Response:
        new_name = body["name"]
        if not isinstance(new_name, str) or "title" in body:
            raise BadRequest('"name" is a text, and comes without a "title"')
        check_document_name(new_name)
        await self._permission.require(request, name, Access.ADMIN)
        access = (await self._permission.require(request, new_name, Access.ADMIN)).access
        return await self._answer(await self._documents.rename(name, new_name), access)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete the document: who is in it is told, and nobody brings it back by coming with an old copy."""
        name = document_name(request)
        await self._permission.require(request, name, Access.ADMIN)
        await self._documents.delete(name)
        return web.Response(status=204, headers=HEADERS)

    async def _access(self, request: web.Request, names: Sequence[str]) -> dict[str, Access]:
        """Return what the request's sender may do with those documents that it may read."""
        if self._permission.open:
            return dict.fromkeys(names, Access.ADMIN)
        if not bearer_token(request):
            raise Unauthenticated("no token", public="a token is needed")
        questions = asyncio.Semaphore(_QUESTIONS)

        async def ask(name: str) -> Access | None:
            async with questions:
                try:
                    return (await self._permission.grant(request, name)).access
                except Unauthenticated:
                    raise  # the token is no good, whatever the document
                except AccessDenied:
                    return None

        # None is left to run when another one fails.
        with self._guard.waiting(request):
            answers = await asyncio.gather(*map(ask, names or [_ANY_NAME]), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return {name: answer for name, answer in zip(names, answers, strict=False) if isinstance(answer, Access)}

    async def _answer(self, summary: DocumentSummary, access: Access, status: int = 200) -> web.Response:
        name = summary.document.name
        return json_answer(_describe(summary, access, (await self._hub.presence([name]))[name]), status)


def _describe(summary: DocumentSummary, access: Access, presence: Presence) -> dict[str, Any]:
    document = summary.document
    return {
        "name": document.name,
        "title": document.title,
        "access": access.value,
        "created_at": _time(document.created_at),
        "updated_at": _time(document.updated_at),
        "bytes": summary.snapshot_bytes + summary.tail_bytes,
        "participants": _participants(presence.awareness),
        "connections": presence.connections,
    }


def _participants(payload: bytes | None) -> list[dict[str, str]]:
    """Say who shows itself in a room: the awareness states with ``user: {name, color}``, by client ID.

    The texts are what clients say; they are cut to a length, and whoever shows them must escape them.
    """
    found: list[dict[str, str]] = []
    for entry in sorted(decode_awareness(payload)) if payload else ():
        if len(found) == _MAX_PARTICIPANTS:
            break
        if len(entry.state) > _MAX_STATE_BYTES:
            continue
        try:
            state = json.loads(entry.state)
        except (ValueError, RecursionError):
            continue
        user = state.get("user") if isinstance(state, dict) else None
        if not isinstance(user, dict) or not isinstance(user.get("name"), str):
            continue
        color = user.get("color")
        found.append(
            {
                "name": _printable(user["name"]),
                "color": _printable(color) if isinstance(color, str) else "",
            }
        )
    return found


def _printable(text: str) -> str:
    # Lone surrogates pass json.loads and fail every encoder.
    return text[:_MAX_PERSON_TEXT].encode(errors="replace").decode()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise BadRequest(f'"limit" is a number from 1 to {MAX_LIMIT}')
    return int(text)


def _title(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest('"title" is a text that is not empty, or null')
    title = value.strip()
    encodable(title)
    if len(title) > MAX_TITLE or not title.isprintable():
        raise BadRequest(f'"title" has at most {MAX_TITLE} characters, and no line breaks or control characters')
    return title
