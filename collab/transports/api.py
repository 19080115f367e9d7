"""``/api/documents``: which documents there are, and their titles, creation and deletion.

Strategy: everything here is answered from the store's columns and from the rooms that are live on this node;
no document is read for it, so a listing of a thousand documents costs one query. What a document is for is
not the server's business: an application that has kinds of documents puts them into the beginning of the
names, as the pages in ``web_demo`` do, and lists by ``prefix``.

The title is a copy too. In a document that many edit at once the title belongs into the document, where it is
merged like all else; but only a CRDT library could read it there, and none runs in a serving process. So
whoever renames a document says so here as well, and a listing has something to show.

    GET    /api/documents?prefix=&after=&limit=    200 {"documents": [...], "next": name or null}
    POST   /api/documents          {"name", "title"?}    201, 409
    GET    /api/documents/{name}                   200, 404, 410
    PATCH  /api/documents/{name}   {"title"}       200, 404, 410
    DELETE /api/documents/{name}                   204, 404

A document is ``{"name", "title", "access", "created_at", "updated_at", "bytes", "participants": [{"name",
"color"}], "connections"}``: ``access`` is what the one who asks may do with it, times are RFC 3339 in UTC,
``bytes`` what opening it reads, and the last two tell who is in it now, on this node.

With authentication each request carries ``Authorization: Bearer``, and the authenticator is asked about each
document that it touches: reading shows it, writing creates and names it, only ``admin`` deletes it. A listing
leaves out what may not be read, so a page may hold fewer than ``limit`` documents and still have a ``next``.

Bodies need the content type ``application/json``: no other origin's page can send that, or PATCH or DELETE,
without asking first, and nobody here answers that question. An error is ``{"error": sentence}``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from aiohttp import web

from collab.auth.access import AccessRequest, Authenticator, Grant, OpenAccess
from collab.errors import (
    AccessDenied,
    AccessUnavailable,
    CollabError,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    Forbidden,
    InvalidDocumentName,
    StoreUnavailable,
    Unauthenticated,
)
from collab.hub.hub import Hub
from collab.hub.live import LiveRoom
from collab.protocol.awareness import decode_awareness
from collab.protocol.session import Access
from collab.protocol.wire import check_document_name
from collab.storage.store import DocumentSummary
from collab.telemetry import get_logger, shown_name
from collab.transports.guard import Guard
from collab.transports.ywebsocket import bearer_token, document_name

_log = get_logger("http")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_BODY_BYTES = 16 * 1024
MAX_TITLE = 200
"""Characters of a title, after white space at its ends is gone."""

# A listing shows a few faces, whatever the size of a room; and whoever keeps a book in its awareness state
# is shown without a name rather than parsed at every listing.
_MAX_PARTICIPANTS = 8
_MAX_STATE_BYTES = 4 * 1024
_MAX_PERSON_TEXT = 64

_HEADERS = MappingProxyType({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

_STATUS: MappingProxyType[type[CollabError], int] = MappingProxyType(
    {
        InvalidDocumentName: 400,
        Unauthenticated: 401,
        AccessDenied: 403,
        DocumentNotFound: 404,
        DocumentExists: 409,
        DocumentDeleted: 410,
        AccessUnavailable: 503,
        StoreUnavailable: 503,
    }
)

# Questions about access that one listing has open at a time: an authenticator may be another server.
_QUESTIONS = 8

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _BadRequest(Exception):
    """What is wrong with the request, as a sentence for its sender."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def add_api_routes(app: web.Application, hub: Hub, authenticator: Authenticator, guard: Guard) -> None:
    """Serve ``/api/documents`` from the store and the rooms of ``hub``.

    With ``OpenAccess`` everybody may do everything here. ``guard`` tells who asks.
    """
    documents = _Documents(hub, authenticator, guard)
    app.router.add_get("/api/documents", _answering(documents.list))
    app.router.add_post("/api/documents", _answering(documents.create))
    one = r"/api/documents/{name:[\s\S]+}"
    app.router.add_get(one, _answering(documents.show))
    app.router.add_patch(one, _answering(documents.change))
    app.router.add_delete(one, _answering(documents.delete))


def _answering(handler: _Handler) -> _Handler:
    """Turn what ``handler`` raises on purpose into an answer with its status and public text."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except _BadRequest as error:
            return _json({"error": str(error)}, error.status)
        except CollabError as error:
            status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
            if status >= 500:
                _log.warning("%s %s: %s", request.method, shown_name(request.path), error)
            response = _json({"error": error.public}, status)
            if status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response

    return answer


class _Documents:
    """The handlers."""

    def __init__(self, hub: Hub, authenticator: Authenticator, guard: Guard) -> None:
        self._hub = hub
        self._authenticator = authenticator
        self._open = isinstance(authenticator, OpenAccess)
        self._guard = guard

    async def list(self, request: web.Request) -> web.Response:
        """Answer with a page of documents in the order of their names; ``next`` is the ``after`` of the following."""
        limit = _limit(request.query.get("limit"))
        prefix, after = request.query.get("prefix", ""), request.query.get("after")
        for text in (prefix, after or ""):
            _encodable(text)
        found = await self._hub.store.list_documents(after=after, prefix=prefix, limit=limit + 1)
        page = found[:limit]
        access = await self._access(request, [summary.document.name for summary in page])
        return _json(
            {
                "documents": [
                    self._describe(summary, access[summary.document.name])
                    for summary in page
                    if summary.document.name in access
                ],
                "next": page[-1].document.name if len(found) > limit else None,
            }
        )

    async def show(self, request: web.Request) -> web.Response:
        """Answer with one document as it stands in the listing."""
        name = document_name(request)
        access = await self._require(request, name, Access.READ)
        return _json(self._describe(await self._hub.store.describe(name), access))

    async def create(self, request: web.Request) -> web.Response:
        """Create an empty document, also in the place of a deleted one."""
        body = await _body(request)
        name = body.get("name")
        if not isinstance(name, str):
            raise _BadRequest('"name" is missing')
        _encodable(name)
        check_document_name(name)
        access = await self._require(request, name, Access.WRITE)
        title = _title(body["title"]) if body.get("title") is not None else None
        await self._hub.store.create(name)
        if title is not None:
            await self._hub.store.set_title(name, title)
        _log.info("created %s", shown_name(name))
        return _json(self._describe(await self._hub.store.describe(name), access), 201)

    async def change(self, request: web.Request) -> web.Response:
        """Set the title; null takes it away."""
        name = document_name(request)
        body = await _body(request)
        if "title" not in body:
            raise _BadRequest('"title" is missing')
        title = None if body["title"] is None else _title(body["title"])
        access = await self._require(request, name, Access.WRITE)
        live = self._hub.rooms.get(name)
        if live is not None:
            # A document that was begun a moment ago is stored in a moment.
            await live.settled()
        await self._hub.store.set_title(name, title)
        return _json(self._describe(await self._hub.store.describe(name), access))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete the document: who is in it is told, and nobody brings it back by coming with an old copy."""
        name = document_name(request)
        await self._require(request, name, Access.ADMIN)
        await self._hub.store.delete(name, time.time())
        _log.info("deleted %s", shown_name(name))
        live = self._hub.rooms.get(name)
        if live is not None and live.ended is None:
            self._hub.evict(live, DocumentDeleted(f"document {name!r} is deleted"))
        return web.Response(status=204, headers=_HEADERS)

    async def _grant(self, request: web.Request, name: str) -> Grant:
        peer = self._guard.peer(request).address
        return await self._authenticator.authenticate(AccessRequest(bearer_token(request), name, peer))

    async def _require(self, request: web.Request, name: str, needed: Access) -> Access:
        """Let the request go on if its sender has at least this access to the document; return what it has."""
        if self._open:
            return Access.ADMIN
        try:
            access = (await self._grant(request, name)).access
            if needed is not Access.READ and access is not Access.ADMIN and access is not needed:
                raise Forbidden(f"{needed.value} access is needed", public=f"this needs {needed.value} access")
        except AccessDenied as error:
            self._guard.audit.note(error, self._guard.peer(request).address, name)
            raise
        return access

    async def _access(self, request: web.Request, names: Sequence[str]) -> dict[str, Access]:
        """Return what the request's sender may do with those documents that it may read."""
        if self._open:
            return dict.fromkeys(names, Access.ADMIN)
        if not bearer_token(request):
            raise Unauthenticated("no token", public="a token is needed")
        questions = asyncio.Semaphore(_QUESTIONS)

        async def ask(name: str) -> Access | None:
            async with questions:
                try:
                    return (await self._grant(request, name)).access
                except AccessDenied:
                    return None

        answers = await asyncio.gather(*map(ask, names))
        return {name: access for name, access in zip(names, answers, strict=True) if access is not None}

    def _describe(self, summary: DocumentSummary, access: Access) -> dict[str, Any]:
        document = summary.document
        live = self._hub.rooms.get(document.name)
        return {
            "name": document.name,
            "title": document.title,
            "access": access.value,
            "created_at": _time(document.created_at),
            "updated_at": _time(document.updated_at),
            "bytes": summary.snapshot_bytes + summary.tail_bytes,
            "participants": [] if live is None else _participants(live),
            "connections": 0 if live is None else len(live.room.sessions),
        }


def _participants(live: LiveRoom) -> list[dict[str, str]]:
    """Say who shows itself in a room: the awareness states with ``user: {name, color}``, by client ID.

    The texts are what clients say; they are cut to a length, and whoever shows them must escape them.
    """
    payload = live.room.awareness.everything()
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
        raise _BadRequest(f'"limit" is a number from 1 to {MAX_LIMIT}')
    return int(text)


def _encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRequest("a parameter is not UTF-8") from None


def _title(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _BadRequest('"title" is a text that is not empty, or null')
    title = value.strip()
    _encodable(title)
    if len(title) > MAX_TITLE or not title.isprintable():
        raise _BadRequest(f'"title" has at most {MAX_TITLE} characters, and no line breaks or control characters')
    return title


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise _BadRequest("the content type is application/json", 415)
    data = bytearray()
    async for chunk in request.content.iter_chunked(MAX_BODY_BYTES):
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _BadRequest(f"a body has at most {MAX_BODY_BYTES} bytes", 413)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise _BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _BadRequest("the body is a JSON object")
    return body


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers=_HEADERS)
