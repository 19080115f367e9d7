"""Answers of the streams: bytes with where they end, and errors as the specification tells them.

Strategy: handlers raise what is wrong, as everywhere, and ``answering`` makes the answer of it. An error has the code
of the HTTP API (``transports.problems``) first, and the table here says which one of this protocol that is. Which
status a refusal has is decided by what the stock client does with it: its producer takes every 403 for a newer life of
itself and sends the same again at once, for ever, and waits for ever after a 409. So a producer is told neither.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import hdrs, web

from collab.errors import AccessError, CollabError, InternalError, OffsetExpired, is_refusal
from collab.protocol import streams
from collab.protocol.streams import Batch, Code, encode_error
from collab.telemetry import get_logger, shown_text
from collab.transports import problems
from collab.transports.problems import BadRequest

_log = get_logger("http")

HEADERS: Final = MappingProxyType(
    {
        # What a document says is for those who may read it, and these may be others in a moment.
        hdrs.CACHE_CONTROL: "no-store",
        "X-Content-Type-Options": "nosniff",
    }
)
"""What every answer carries."""

_RETRY_SECONDS: Final = 1.0

# Bytes of an answer that are written in one go.
_PORTION: Final = 256 * 1024

_CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "unauthenticated": Code.UNAUTHORIZED,
        "access_expired": Code.UNAUTHORIZED,
        "access_not_yet": Code.UNAUTHORIZED,
        "forbidden": Code.FORBIDDEN,
        "kept_out": Code.FORBIDDEN,
        "document_not_found": Code.DOCUMENT_NOT_FOUND,
        "document_deleted": Code.DOCUMENT_NOT_FOUND,
        "too_large": Code.TOO_LARGE,
        "unsupported_media_type": Code.CONFLICT,
        "too_many_requests": Code.RATE_LIMITED,
        "internal": Code.INTERNAL_ERROR,
        "unavailable": Code.UNAVAILABLE,
        "outcome_unknown": Code.UNAVAILABLE,
        "document_damaged": Code.UNAVAILABLE,
    }
)
"""Which code each one of the HTTP API is here; all others are INVALID_REQUEST."""


class Refusal(Exception):
    """What is wrong with a request and has a code of this protocol alone.

    Args:
        code: see there.
        reason: a sentence for its sender.
        headers: more headers of the answer.
    """

    def __init__(self, code: Code, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.headers = headers or {}


def check_type(request: web.Request) -> None:
    """Check that a request with a body says of what type it is; a wrong one is refused where the body is read.

    Raises:
        BadRequest: it says nothing. The protocol of Durable Streams wants a content type, and a page
            may send a body without one to any server without asking that first.
    """
    if request.can_read_body and hdrs.CONTENT_TYPE not in request.headers:
        raise BadRequest(f"the content type is missing; it is {streams.MEDIA}")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def code_of(problem: str) -> Code:
    """Give the code for one of the HTTP API."""
    return _CODES.get(problem, Code.INVALID_REQUEST)


def refuse(
    code: Code,
    message: str,
    *,
    status: int | None = None,
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Make the answer that tells an error."""
    response = web.Response(
        body=encode_error(code, message), status=status or code.status, content_type="application/json", headers=HEADERS
    )
    if response.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if response.status in (429, 503):
        response.headers[hdrs.RETRY_AFTER] = str(math.ceil(_RETRY_SECONDS if retry_after is None else retry_after))
    response.headers.update(headers or {})
    return response


def answering(handler: Handler) -> Handler:
    """Turn what ``handler`` raises on purpose into errors of this protocol."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as error:
            return _told(request, refuse(error.code, str(error), headers=error.headers))
        except BadRequest as error:
            status = 408 if error.code == "slow_body" else None
            code = code_of(error.code)
            told = refuse(code, str(error), status=status, retry_after=error.retry_after, headers=error.headers)
            return _told(request, told)
        except CollabError as error:
            code = _code_of_error(error)
            if not is_refusal(error):
                _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=error)
            elif code.status >= 500:
                _log.warning("%s %s: %s", request.method, shown_text(request.path), error)
            return _told(request, refuse(code, error.public))
        except (web.HTTPException, ConnectionError):
            raise  # an answer already, or nobody is there to read one
        except Exception as error:
            _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=error)
            return _told(request, refuse(Code.INTERNAL_ERROR, InternalError.public))

    return answer


def _code_of_error(error: CollabError) -> Code:
    if isinstance(error, OffsetExpired):
        return Code.OFFSET_EXPIRED
    code = code_of(problems.code_of(error))
    if code is Code.INTERNAL_ERROR and isinstance(error, AccessError):
        return Code.UNAVAILABLE  # ended by an operator: its client may come back at once
    return code


def _told(request: web.Request, response: web.Response) -> web.Response:
    """Tell a producer no status on which it would send the same again for ever."""
    if request.method == hdrs.METH_POST and streams.PRODUCER_ID in request.headers:
        if response.status == 403 and streams.PRODUCER_EPOCH not in response.headers:
            response.set_status(401)
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        elif response.status == 409:
            response.set_status(400)
    return response


async def octets(
    request: web.Request, batch: Batch, headers: Mapping[str, str], *, status: int = 200
) -> web.StreamResponse:
    """Answer with the bytes of a batch, as fast as the client reads, and with where they end."""
    told = {**HEADERS, **headers, streams.NEXT_OFFSET: batch.offset}
    if batch.up_to_date:
        told[streams.UP_TO_DATE] = "true"
    if status == 204:
        return web.Response(status=204, headers=told)
    return await send(request, batch.payload, told)


async def send(request: web.Request, data: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Answer with bytes, as fast as the client reads."""
    if len(data) <= _PORTION or request.method == hdrs.METH_HEAD:
        return web.Response(body=data, content_type=streams.MEDIA, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_type = streams.MEDIA
    response.content_length = len(data)
    await response.prepare(request)
    view = memoryview(data)
    for begin in range(0, len(view), _PORTION):
        await response.write(view[begin : begin + _PORTION])
    await response.write_eof()
    return response
