"""``/export`` and ``/import``: many documents as one stream, out of one server and into another.

Strategy: a stream is lines of JSON or a tar archive (``collab.hub.archives``). Going out, documents are read one after
the other as the client takes them, and the last line says that it was the last, so a stream that broke off is noticed;
each document has the cursor that goes on behind it. Coming in, one document is in memory at a time
(``collab.transports.http.api.importing``). Whoever asks for it is told meanwhile how far it has come; those who do not
read that are not waited for, since they may be sending all the time.

Both are for those who are ``admin`` for all documents. They do not count in the rate of new documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from collab.errors import CollabError, InternalError, StoreUnavailable, is_refusal
from collab.hub.archives import LineReader, LineWriter, Reader, TarReader, TarWriter, Writer
from collab.hub.transfer import Export, Failed, Transfer
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name, shown_text
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import ALL_DOCUMENTS, BODY_SECONDS, Permission, choose_media
from collab.transports.http.api.creation import check_memory
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import show_time
from collab.transports.http.api.importing import MAX_FAILURES, Failure, Import
from collab.transports.http.api.route import (
    JSON,
    NDJSON,
    Answer,
    AnyRoute,
    Call,
    Model,
    NoBody,
    NoQuery,
    Query,
    Raw,
    Route,
    json_response,
)
from collab.transports.http.bodies import check_media, coming
from collab.transports.problems import HEADERS, BadRequest, code_of

_log = get_logger("http")

TAR: Final = "application/x-tar"

TAG: Final = "Many documents"

COUNT: Final = "X-Total-Count"
"""The header that says how many documents an export is going to have."""

# Bytes of a body that are worked on before it is looked whether there is something to tell.
_CHUNK: Final = 16 * 1024
# Seconds and documents after which it is told how far an import has come.
_TELL_SECONDS: Final = 1.0
_TELL_DOCUMENTS: Final = 1_000
# Failures in one line of that: with the longest names less than a connection takes without being read.
_TOLD: Final = 20


class ExportQuery(Query):
    """Which documents, and how."""

    prefix: str = Field("", max_length=512, description="Only names that begin with this.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `cursor` of the last document that came.")
    format: Literal["ndjson", "tar"] | None = Field(
        None, description="Lines of JSON or a tar archive, instead of `Accept`."
    )


class Imported(Model):
    """What became of the documents of a stream."""

    lines: int = Field(description="Documents of the stream.")
    created: int
    existed: int = Field(description="Documents that were there already, and were left as they are.")
    failed: int
    failures: list[Failure] = Field(description=f"The first {MAX_FAILURES} of those that failed.")


class Progress(Imported):
    """How far an import has come: a line of the answer. The failures are those since the line before."""

    end: bool = Field(description="Whether this is the last line.")
    code: str | None = Field(None, description="In the last line: what has ended the import, as in problem details.")
    detail: str | None = None


class TransferRoutes:
    """The handlers."""

    def __init__(self, transfer: Transfer, permission: Permission, guard: Guard, max_document_bytes: int) -> None:
        self._transfer = transfer
        self._permission = permission
        self._guard = guard
        self._max_document_bytes = max_document_bytes

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/export",
                self.export,
                "export_documents",
                TAG,
                "Export documents as lines of JSON, or as a tar archive.",
                [
                    Answer(
                        200,
                        'Each line is `{"name", "title", "metadata", "gc", "created_at", "updated_at", "cursor", '
                        '"update"}`; `update` is a Yjs update (v1) as base64. A document that cannot be read is '
                        '`{"name", "code", "detail", "cursor"}`. The last line is '
                        '`{"end": true, "documents", "failed"}`; without it the '
                        "stream broke off, and goes on behind the last cursor that came. In an archive each document "
                        "is `STEM.json`, which is such a line without `update`, and `STEM.yjs`, the update; the last "
                        "member is `end.json`.",
                        Raw(NDJSON, TAR),
                        {COUNT: "How many documents there were to be exported when it began."},
                    )
                ],
                query=ExportQuery,
                access="admin of all documents",
                headers={"Accept": f"`{TAR}` for an archive."},
            ),
            Route(
                "POST",
                "/import",
                self.import_,
                "import_documents",
                TAG,
                "Import documents from lines of JSON, or from a tar archive.",
                [
                    Answer(
                        200,
                        f"What became of the documents; with `Accept: {NDJSON}` a stream of lines, one about every "
                        "second, each with the same fields and what failed since the line before. The last one has "
                        "`end`, and `code` and `detail` where the import was ended by something.",
                        Imported,
                        raw=Raw(NDJSON),
                    )
                ],
                raw=Raw(
                    NDJSON,
                    TAR,
                    description='Lines of an export, or `{"name", "update"?, "title"?, "metadata"?, "gc"?}`; or an '
                    "archive with members as in an export. Their number has no bound. A document that is there "
                    "already is left as it is, so the same may be sent again.",
                ),
                access="admin of all documents",
                headers={"Accept": f"`{NDJSON}` for a stream that tells how far it has come."},
            ),
        ]

    async def export(self, call: Call[ExportQuery, NoBody]) -> web.StreamResponse:
        """Send documents as the client takes them."""
        request, query = call.request, call.query
        after = None if query.cursor is None else decode_cursor("n", query.cursor)
        media = choose_media(request.headers.getall(hdrs.ACCEPT, ()), (NDJSON, TAR)) or NDJSON
        if query.format is not None:
            media = TAR if query.format == "tar" else NDJSON
        await self._permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
        writer: Writer = TarWriter() if media == TAR else LineWriter()
        export = Export(self._transfer, prefix=query.prefix, after=after)
        headers = {
            **HEADERS,
            hdrs.CONTENT_TYPE: media,
            hdrs.VARY: hdrs.ACCEPT,
            COUNT: str(await export.count()),
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        try:
            async with aclosing(export_pieces(export, writer)) as pieces:
                async for piece in pieces:
                    await response.write(piece)
        except StoreUnavailable as error:
            # The status has gone out already: what tells of it is that the last line does not come.
            _log.warning("an export ends before its end: %s", error)
        await response.write_eof()
        return response

    async def import_(self, call: Call[NoQuery, NoBody]) -> web.StreamResponse:
        """Create the documents of the body."""
        request = call.request
        check_media(request, (NDJSON, TAR))
        await self._permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
        most = self._max_document_bytes
        reader: Reader = TarReader(most) if request.content_type == TAR else LineReader(most)
        done = Import(self._transfer, reader, lambda: check_memory(self._guard))
        with self._guard.long_body(request):
            if choose_media(request.headers.getall(hdrs.ACCEPT, ()), (JSON, NDJSON)) == NDJSON:
                return await self._tell(request, done)
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

    async def _tell(self, request: web.Request, done: Import) -> web.StreamResponse:
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


async def export_pieces(
    export: Export, writer: Writer, step: Callable[[str], None] = lambda name: None
) -> AsyncGenerator[bytes, None]:
    """Give the bytes of an export, piece by piece.

    Args:
        export: reads the documents.
        writer: makes bytes of them.
        step: is told the name of each document.

    Raises:
        StoreUnavailable: there is no end then.
    """
    async for each in export.documents():
        if isinstance(each, Failed):
            _log.warning("the export goes on without %s: %s", shown_name(each.name), each.error)
            head: dict[str, Any] = {"name": each.name, "code": code_of(each.error), "detail": each.error.public}
            pieces = writer.failed({**head, "cursor": encode_cursor("n", each.name)})
        else:
            document = each.document
            head = {
                "name": document.name,
                "title": document.title,
                "metadata": dict(document.metadata),
                "gc": document.gc,
                "created_at": show_time(document.created_at),
                "updated_at": show_time(document.updated_at),
                "cursor": encode_cursor("n", document.name),
            }
            pieces = writer.document(head, each.update, document.updated_at)
        for piece in pieces:
            yield piece
        step(head["name"])
    for piece in writer.end(export.done, export.failed):
        yield piece


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


def _progress(done: Import, *, end: bool = False, error: Exception | None = None) -> bytes:
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
