"""What the HTTP API has in common: who may ask, JSON in, JSON out, and every refusal as a status and a sentence.

Strategy: handlers raise what is wrong, as everywhere, and ``answering`` makes the answer of it, so that an error
has one status and one wording on all addresses. Bodies need the content type ``application/json``: no other
origin's page can send that without asking first. An error is ``{"error": sentence}``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
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
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name
from collab.transports.guard import Guard
from collab.transports.ywebsocket import bearer_token

_log = get_logger("http")

MAX_BODY_BYTES = 16 * 1024

HEADERS = MappingProxyType({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

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

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(Exception):
    """What is wrong with the request, as a sentence for its sender."""

    def __init__(self, reason: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or {}


def answering(handler: Handler) -> Handler:
    """Turn what ``handler`` raises on purpose into an answer with its status and public text."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            response = json_answer({"error": str(error)}, error.status)
            response.headers.update(error.headers)
            return response
        except CollabError as error:
            status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
            if status >= 500:
                _log.warning("%s %s: %s", request.method, shown_name(request.path), error)
            response = json_answer({"error": error.public}, status)
            if status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response

    return answer


def json_answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """Make an answer that nobody keeps."""
    return web.json_response(body, status=status, headers=HEADERS)


async def read_body(request: web.Request) -> dict[str, Any]:
    """Read the JSON object that a request brings.

    Raises:
        BadRequest: it is something else, or larger than ``MAX_BODY_BYTES``.
    """
    if request.content_type != "application/json":
        raise BadRequest("the content type is application/json", 415)
    data = bytearray()
    async for chunk in request.content.iter_chunked(MAX_BODY_BYTES):
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise BadRequest(f"a body has at most {MAX_BODY_BYTES} bytes", 413)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is a JSON object")
    return body


def encodable(text: str) -> None:
    """Check that a text can be sent on: JSON and addresses can hold half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("a parameter is not UTF-8") from None


class Permission:
    """Ask what the sender of a request may do with a document; with ``OpenAccess``, everything."""

    def __init__(self, authenticator: Authenticator, guard: Guard) -> None:
        self.open = isinstance(authenticator, OpenAccess)
        self._authenticator = authenticator
        self._guard = guard

    async def grant(self, request: web.Request, name: str) -> Grant:
        """Give what the authenticator grants; raises what it raises."""
        if self.open:
            return Grant(Access.ADMIN)
        peer = self._guard.peer(request).address
        return await self._authenticator.authenticate(AccessRequest(bearer_token(request), name, peer))

    async def require(self, request: web.Request, name: str, needed: Access) -> Grant:
        """Let the request go on if its sender has at least this access to the document.

        Raises:
            AccessDenied: not so; the audit log has it.
            AccessUnavailable: this cannot be decided now.
        """
        with self.noting(request, name):
            grant = await self.grant(request, name)
            if needed is not Access.READ and grant.access is not Access.ADMIN and grant.access is not needed:
                raise Forbidden(f"{needed.value} access is needed", public=f"this needs {needed.value} access")
            return grant

    @contextlib.contextmanager
    def noting(self, request: web.Request, name: str) -> Iterator[None]:
        """Write into the audit log what is refused meanwhile."""
        try:
            yield
        except AccessDenied as error:
            self._guard.audit.note(error, self._guard.peer(request).address, name)
            raise
