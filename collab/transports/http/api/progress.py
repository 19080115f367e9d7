"""How an import is answered: at its end, or meanwhile by lines that tell how far it has come.

Strategy: an import takes the body piece by piece, as it comes. Those who do not read what they are told are not waited
for, since they may be sending all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

from aiohttp import hdrs, web
from pydantic import Field

from collab.errors import CollabError, InternalError, is_refusal
from collab.telemetry import get_logger, shown_text
from collab.transports.http.answers import BODY_SECONDS, choose_media
from collab.transports.http.api.importing import MAX_FAILURES, Failure
from collab.transports.http.api.route import JSON, NDJSON, Answer, Model, Raw, json_response
from collab.transports.http.bodies import coming
from collab.transports.problems import HEADERS, BadRequest, code_of

_log = get_logger("http")

# Bytes of a body that are worked on before it is looked whether there is something to tell.
_CHUNK: Final = 16 * 1024
# Seconds and documents after which it is told how far an import has come.
_TELL_SECONDS: Final = 1.0
_TELL_DOCUMENTS: Final = 1_000
# Failures in one line of that: with the longest names less than a connection takes without being read.
_TOLD: Final = 20


class Importing(Protocol):
    """An import; see ``collab.transports.http.api.importing.Import``."""

    lines: int
    created: int
    existed: int
    failed: int
    failures: list[Failure]

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        ...

    async def end(self) -> None:
        """Take the end of the stream."""
        ...


class Imported(Model):
    """What became of what a stream holds: documents, or versions of one."""

    lines: int = Field(description="How many there are in the stream.")
    created: int
    existed: int = Field(description="Those that were there already, and were left as they are.")
    failed: int
    failures: list[Failure] = Field(description=f"The first {MAX_FAILURES} of those that failed.")


class Progress(Imported):
    """How far an import has come: a line of the answer. The failures are those since the line before."""

    end: bool = Field(description="Whether this is the last line.")
    code: str | None = Field(None, description="In the last line: what has ended the import, as in problem details.")
    detail: str | None = None


IMPORTED: Final = Answer(
    200,
    f"What became of them; with `Accept: {NDJSON}` a stream of lines, one about every second, each with the same "
    "fields and what failed since the line before. The last one has `end`, and `code` and `detail` where the import "
    "was ended by something.",
    Imported,
    raw=Raw(NDJSON),
)

ACCEPTS: Final[Mapping[str, str]] = {"Accept": f"`{NDJSON}` for a stream that tells how far it has come."}


async def answer_import(request: web.Request, done: Importing) -> web.StreamResponse:
    """Import the body of a request, and answer as the client wants it; raises what ends the import."""
    if choose_media(request.headers.getall(hdrs.ACCEPT, ()), (JSON, NDJSON)) == NDJSON:
        return await _tell(request, done)
    async for chunk in _chunks(request):
        await done.feed(chunk)
    await done.end()
    return json_response(
        Imported(
            lines=done.lines,
            created=done.created,
            existed=done.existed,
            failed=done.failed,
            failures=done.failures,
        )
    )


async def _tell(request: web.Request, done: Importing) -> web.StreamResponse:
    """Import, and tell meanwhile how far it has come; what ends it is told in the last line."""
    response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: NDJSON, hdrs.VARY: hdrs.ACCEPT})
    # What ends an import leaves the rest of its body unread: it would be read as the next request.
    response.force_close()
    await response.prepare(request)
    await response.write(_progress(done))
    loop = asyncio.get_running_loop()
    told_at, told = loop.time(), 0
    error: Exception | None = None
    try:
        async for chunk in _chunks(request):
            await done.feed(chunk)
            if loop.time() - told_at < _TELL_SECONDS and done.lines - told < _TELL_DOCUMENTS:
                continue
            transport = request.transport
            if transport is not None and not transport.get_write_buffer_size():
                told_at, told = loop.time(), done.lines
                await response.write(_progress(done))
        await done.end()
    except (BadRequest, CollabError) as found:
        error = found
    except ConnectionError:
        raise
    except Exception as found:
        _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=found)
        error = InternalError(str(found))
    if isinstance(error, CollabError) and not is_refusal(error) and not isinstance(error, InternalError):
        _log.error("%s %s failed", request.method, shown_text(request.path), exc_info=error)
    while len(done.failures) > _TOLD:
        await response.write(_progress(done))
    await response.write(_progress(done, end=True, error=error))
    await response.write_eof()
    return response


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; raises ``BadRequest`` for what comes too slowly."""
    loop = asyncio.get_running_loop()
    until = loop.time() + BODY_SECONDS
    while True:
        async with coming(until):
            chunk = await request.content.readany()
        if not chunk:
            return
        began = loop.time()
        for begin in range(0, len(chunk), _CHUNK):
            yield chunk[begin : begin + _CHUNK]
        # The time for the work on it is not the sender's.
        until += loop.time() - began + len(chunk) / 1024


def _progress(done: Importing, *, end: bool = False, error: Exception | None = None) -> bytes:
    """Make a line, with the next failures that were not told yet."""
    failures, done.failures = done.failures[:_TOLD], done.failures[_TOLD:]
    fields: dict[str, Any] = {
        "lines": done.lines,
        "created": done.created,
        "existed": done.existed,
        "failed": done.failed,
        "failures": failures,
        "end": end,
    }
    if isinstance(error, BadRequest):
        fields |= {"code": error.code, "detail": str(error)}
    elif isinstance(error, CollabError):
        fields |= {"code": code_of(error), "detail": error.public}
    return Progress(**fields).model_dump_json(exclude_unset=True).encode() + b"\n"
