"""What all HTTP handlers have in common: who may ask, JSON in, JSON out, and every refusal as problem details.

Strategy: handlers raise what is wrong, as everywhere, and ``answering`` makes the answer of it, so that an error
has one code and one wording on all addresses (``collab.transports.problems``). Bodies need a content type that no other
origin's page can send without asking first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

from aiohttp import hdrs, web

from collab.audit import Act
from collab.auth.access import Grant
from collab.errors import AccessDenied, CollabError, InternalError, Unauthenticated, is_refusal
from collab.hub.admission import Admission
from collab.hub.agents import Caller
from collab.protocol.session import Access
from collab.storage.records import StoredDocument
from collab.telemetry import get_logger, shown_text
from collab.transports.guard.guard import Guard
from collab.transports.http.bodies import check_media, coming, too_large
from collab.transports.problems import KINDS, BadRequest, code_of, problem
from collab.transports.requests import bearer_token

_log = get_logger("http")

MAX_BODY_BYTES = 16 * 1024

BODY_SECONDS = 15.0
"""Seconds for a body to be there, and for each KiB of it that has come a second more: so all bodies end."""

GZIP: Final = "gzip"
"""The content coding of RFC 1952."""

ALL_DOCUMENTS: Final = "*"
"""What is asked about where something concerns all documents: the pattern of the claim ``documents`` that covers all.
No other name or pattern there can cover it."""

# The name that is asked about when there is nothing to list: a token that is no good is told so all the same.
_ANY_NAME = "any"

# Questions about access that one listing has open at a time: an authenticator may be another server.
_QUESTIONS = 8

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(handler: Handler) -> Handler:
    """Turn what ``handler`` raises on purpose into problem details."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadRequest as error:
            return problem(
                error.code, str(error), retry_after=error.retry_after, errors=error.errors, headers=error.headers
            )
        except CollabError as error:
            code = code_of(error)
            if not is_refusal(error):
                _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=error)
            elif KINDS[code].status >= 500:
                _log.warning("%s %s: %s", request.method, shown_text(request.path), error)
            return problem(code, error.public)
        except (web.HTTPException, ConnectionError):
            raise  # an answer already, or nobody is there to read one
        except Exception as error:
            _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=error)
            return problem("internal", InternalError.public)

    return answer


def takes_gzip(request: web.Request) -> bool:
    """Tell whether a client says that it takes answers compressed by gzip (RFC 9110, 12.5.3)."""
    accepts = ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ()))
    return GZIP in accepts.lower() and choose_media((accepts,), (GZIP,)) is not None


def choose_media(accepts: Iterable[str], offered: Iterable[str]) -> str | None:
    """Choose the media type that a client likes best, by RFC 9110, 12.5.1; None if it likes none of them.

    Of those that it likes equally the first one that is ``offered`` is taken, and that one where it says nothing.
    """
    ranges: dict[str, float] = {}
    for part in ",".join(accepts).split(","):
        media, *parameters = part.strip().lower().split(";")
        if not media.strip():
            continue
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.strip().partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        ranges[media.strip()] = quality if 0.0 <= quality <= 1.0 else 0.0
    if not ranges:
        ranges["*/*"] = 1.0
    best, found = 0.0, None
    for media in offered:
        quality = ranges.get(media, ranges.get(media.partition("/")[0] + "/*", ranges.get("*/*", 0.0)))
        if quality > best:
            best, found = quality, media
    return found


async def _read(request: web.Request, most: int) -> bytearray:
    data = bytearray()
    until = asyncio.get_running_loop().time() + BODY_SECONDS
    async with coming(until) as deadline:
        async for chunk in request.content.iter_any():
            data += chunk
            if len(data) > most:
                raise too_large(most)
            deadline.reschedule(until + len(data) / 1024)
    return data


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
            grant = await self._admission.require(self._guard.peer(request), bearer_token(request), name, needed)
        if name != ALL_DOCUMENTS:
            self._guard.about(request, name)
        return grant

    async def admit_new(self, request: web.Request, name: str, grant: Grant) -> None:
        """Check that a document may be created; raises ``QuotaExceeded``, and the audit log has it."""
        with self.noting(request, name):
            await self._admission.admit_new(name, grant)

    def created(self, grant: Grant, document: StoredDocument) -> None:
        """Note a document that a call has created for its tenant."""
        self._admission.created(grant, document)

    def caller(self, request: web.Request, name: str, grant: Grant) -> Caller:
        """Give what an agent needs of the sender, who was granted this for the document."""
        return self._admission.caller(self._guard.peer(request), bearer_token(request), name, grant)

    async def check_token(self, request: web.Request) -> None:
        """Let the request go on if it brings a good token, as far as that can be told without a document.

        Raises:
            AccessDenied: it brings none where one is needed, or it is not good; the audit log has it.
            AccessUnavailable: this cannot be decided now.
        """
        with self.noting(request), self._guard.waiting(request):
            if not self.open and self._shows_nothing(request):
                raise Unauthenticated("no token", public="a token is needed")
            await self._admission.check_token(self._guard.peer(request), bearer_token(request))

    def _shows_nothing(self, request: web.Request) -> bool:
        """Tell whether nothing says who has sent the request."""
        peer = self._guard.peer(request)
        return not bearer_token(request) and peer.browser is None and peer.scope is None

    async def readable(self, request: web.Request, names: Sequence[str]) -> dict[str, Access]:
        """Return what the request's sender may do with those documents that it may read."""
        if self.open:
            return dict.fromkeys(names, Access.ADMIN)
        if self._shows_nothing(request):
            raise Unauthenticated("no token", public="a token is needed")
        questions = asyncio.Semaphore(_QUESTIONS)

        async def ask(name: str) -> Access | None:
            async with questions:
                try:
                    return (await self.grant(request, name)).access
                except Unauthenticated:
                    raise  # the token is no good, whatever the document
                except AccessDenied:
                    return None

        # None is left to run when another one fails.
        with self._guard.waiting(request):
            answers = await asyncio.gather(*map(ask, names or [_ANY_NAME]), return_exceptions=True)
        for given in answers:
            if isinstance(given, BaseException):
                raise given
        return {name: given for name, given in zip(names, answers, strict=False) if isinstance(given, Access)}

    async def read_body(
        self, request: web.Request, content_types: tuple[str, ...], *, most: int = MAX_BODY_BYTES, known: bool = False
    ) -> bytearray:
        """Read the body of a request, after a look at its token.

        Nothing of a body is waited for that comes without a good token, as far as a token can be checked without a
        document. ``known`` says that the token was good for a document already.

        Raises:
            BadRequest: its content type is none of these, it is compressed, larger than ``most`` bytes, or comes too
                slowly; or its address has too many requests whose bodies are waited for.
            AccessDenied: the token is not good; the audit log has it.
            AccessUnavailable: this cannot be decided now.
        """
        check_media(request, content_types)
        if not known:
            with self.noting(request), self._guard.waiting(request):
                await self._admission.check_token(self._guard.peer(request), bearer_token(request))
        with self._guard.body(request):
            return await _read(request, most)

    @contextlib.contextmanager
    def noting(self, request: web.Request, name: str | None = None) -> Iterator[None]:
        """Write into the audit log what is refused meanwhile."""
        try:
            yield
        except AccessDenied as error:
            self._guard.audit.note(error, self._guard.who(request), name)
            raise

    def acting(
        self,
        request: web.Request,
        act: Act,
        grant: Grant,
        *,
        protocol: str = "http",
        on_behalf_of: str | None = None,
    ) -> AbstractContextManager[Act]:
        """Do what the sender, who was granted this, has asked for; then the audit has how it has ended."""
        who = self._guard.who(request, grant.user, protocol=protocol, on_behalf_of=on_behalf_of)
        return self._guard.audit.acting(act, who)
