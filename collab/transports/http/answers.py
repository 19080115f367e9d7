"""What the HTTP API has in common: who may ask, JSON in, JSON out, and every refusal as a status and a sentence.

Strategy: handlers raise what is wrong, as everywhere, and ``answering`` makes the answer of it, so that an error
has one status and one wording on all addresses. Bodies need the content type ``application/json``: no other
origin's page can send that without asking first. An error is ``{"error": sentence}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web

from collab.auth.access import Grant
from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessNotYet,
    AccessUnavailable,
    CollabError,
    DamagedDocument,
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocumentName,
    KeptOut,
    StoreUnavailable,
    Unauthenticated,
    is_refusal,
)
from collab.hub.admission import Admission
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name
from collab.transports.guard.guard import Guard
from collab.transports.requests import bearer_token

_log = get_logger("http")

MAX_BODY_BYTES = 16 * 1024

BODY_SECONDS = 15.0
"""Seconds for a body to be there, and for each KiB of it that has come a second more: so all bodies end."""

ALL_DOCUMENTS: Final = "*"
"""What is asked about where something concerns all documents: the pattern of the claim ``documents`` that covers all.
No other name or pattern there can cover it."""

HEADERS = MappingProxyType({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

_STATUS: MappingProxyType[type[CollabError], int] = MappingProxyType(
    {
        InvalidDocumentName: 400,
        Unauthenticated: 401,
        AccessExpired: 401,
        AccessNotYet: 401,
        AccessDenied: 403,
        KeptOut: 403,
        DocumentNotFound: 404,
        DocumentExists: 409,
        DocumentDeleted: 410,
        AccessUnavailable: 503,
        StoreUnavailable: 503,
        DamagedDocument: 503,
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
            if not is_refusal(error):
                _log.error("%s %s failed", request.method, shown_name(request.path), exc_info=error)
            elif status >= 500:
                _log.warning("%s %s: %s", request.method, shown_name(request.path), error)
            response = json_answer({"error": error.public}, status)
            if status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response

    return answer


def json_answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """Make an answer that nobody keeps."""
    return web.json_response(body, status=status, headers=HEADERS)


async def _read(request: web.Request) -> bytearray:
    data = bytearray()
    until = asyncio.get_running_loop().time() + BODY_SECONDS
    try:
        async with asyncio.timeout_at(until) as deadline:
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    raise BadRequest(f"a body has at most {MAX_BODY_BYTES} bytes", 413)
                deadline.reschedule(until + len(data) / 1024)
    except TimeoutError:
        # The rest is not waited for: with more requests behind it, it would be read as one of them.
        raise BadRequest("the body comes too slowly", 408, {"Connection": "close"}) from None
    except ConnectionError as error:
        # Nobody reads the answer. But aiohttp keeps an error that goes further in a cycle with the request, and the
        # request's stream keeps this one.
        error.__traceback__ = None
        raise BadRequest("the connection was lost", headers={"Connection": "close"}) from None
    return data


def encodable(text: str) -> None:
    """Check that a text can be sent on: JSON and addresses can hold half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("a parameter is not UTF-8") from None


class Permission:
    """Ask what the sender of a request may do with a document."""

    def __init__(self, admission: Admission, guard: Guard) -> None:
        self._admission = admission
        self._guard = guard

    @property
    def open(self) -> bool:
        """Whether everybody may do everything."""
        return self._admission.open_to_all

    async def grant(self, request: web.Request, name: str) -> Grant:
        """Give what the sender is granted; raises what ``Admission.ask`` raises."""
        return await self._admission.ask(self._guard.peer(request), bearer_token(request), name)

    async def require(self, request: web.Request, name: str, needed: Access) -> Grant:
        """Let the request go on if its sender has at least this access to the document.

        Raises:
            AccessDenied: not so; the audit log has it.
            AccessUnavailable: this cannot be decided now.
        """
        with self.noting(request, name), self._guard.waiting(request):
            return await self._admission.require(self._guard.peer(request), bearer_token(request), name, needed)

    async def read_body(self, request: web.Request, *, known: bool = False) -> dict[str, Any]:
        """Read the JSON object that a request brings, after a look at its token.

        Nothing of a body is waited for that comes without a good token, as far as a token can be checked without a
        document. ``known`` says that the token was good for a document already.

        Raises:
            BadRequest: it is something else, larger than ``MAX_BODY_BYTES``, or comes too slowly; or its address has
                too many requests whose bodies are waited for.
            AccessDenied: the token is not good; the audit log has it.
            AccessUnavailable: this cannot be decided now.
        """
        if request.content_type != "application/json":
            raise BadRequest("the content type is application/json", 415)
        if not known:
            with self.noting(request), self._guard.waiting(request):
                await self._admission.check_token(self._guard.peer(request), bearer_token(request))
        with self._guard.body(request) as may_wait:
            if not may_wait:
                raise BadRequest("too many requests from your address at a time", 429, {"Retry-After": "1"})
            data = await _read(request)
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise BadRequest("the body is not JSON") from None
        if not isinstance(body, dict):
            raise BadRequest("the body is a JSON object")
        return body

    @contextlib.contextmanager
    def noting(self, request: web.Request, name: str | None = None) -> Iterator[None]:
        """Write into the audit log what is refused meanwhile."""
        try:
            yield
        except AccessDenied as error:
            self._guard.audit.note(error, self._guard.peer(request).address, name)
            raise
