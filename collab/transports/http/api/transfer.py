"""``/export`` and ``/import``: many documents as lines of JSON, out of one server and into another.

Strategy: a line is a document (NDJSON). Going out, documents are read one after the other as the client takes them, and
the last line says that it was the last, so a stream that broke off is noticed; each line has the cursor that goes on
behind it. Coming in, one line is in memory at a time. A document that is there already is left as it is, so an import
that broke off is sent again from the beginning. What fails is told by name and hinders nothing else.

Both are for those who are ``admin`` for all documents. They do not count in the rate of new documents.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import Field, ValidationError

from collab.errors import (
    CollabError,
    DamagedDocument,
    DocumentDeleted,
    DocumentNotFound,
    StoreUnavailable,
    is_refusal,
)
from collab.hub.transfer import Exported, Transfer
from collab.protocol.session import Access
from collab.protocol.sync import EMPTY_UPDATE
from collab.telemetry import get_logger, shown_name
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import ALL_DOCUMENTS, BODY_SECONDS, Permission
from collab.transports.http.api.creation import Metadata, check_memory, decode_update
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import Name, Title, read_title, show_time
from collab.transports.http.api.route import (
    Answer,
    AnyRoute,
    Call,
    Model,
    NoBody,
    NoQuery,
    Query,
    Raw,
    Route,
    invalid,
    json_response,
)
from collab.transports.http.bodies import coming
from collab.transports.problems import HEADERS, BadRequest, code_of

_log = get_logger("http")

NDJSON: Final = "application/x-ndjson"

TAG: Final = "Many documents"

# Names that are read from the store at once.
_PAGE = 200

# Failures that are told by name; the others are counted.
_MAX_FAILURES = 1_000

# How the last line of an export begins; an import passes over it.
_END = "end"
_LAST = b'{"end":'

# Bytes of a line beside the document in it.
_LINE_BYTES = 16 * 1024


class ExportQuery(Query):
    """Which documents."""

    prefix: str = Field("", max_length=512, description="Only names that begin with this.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `cursor` of the last line that came.")


class Line(Model):
    """A document in a line of an export, as an import takes it; what an import does not need it passes over."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: Name
    update: str | None = Field(None, description="A whole Yjs update (v1) as base64; null: an empty document.")
    title: Title | None = None
    metadata: Metadata | None = None
    gc: bool = Field(True, description="Whether compaction removes deleted content.")
    code: str | None = Field(None, description="What an export says of a document that it could not read.")


class Failure(Model):
    """A line that could not be imported."""

    line: int = Field(description="From 1.")
    name: str | None = Field(description="The name of the document, if it could be read.")
    code: str = Field(description="As in problem details.")
    detail: str


class Imported(Model):
    """What became of the lines."""

    lines: int
    created: int
    existed: int = Field(description="Documents that were there already, and were left as they are.")
    failed: int
    failures: list[Failure] = Field(description=f"The first {_MAX_FAILURES} of those that failed.")


class TransferRoutes:
    """The handlers."""

    def __init__(self, transfer: Transfer, permission: Permission, guard: Guard, max_document_bytes: int) -> None:
        self._transfer = transfer
        self._permission = permission
        self._guard = guard
        self._max_line = 4 * (max_document_bytes // 3 + 1) + _LINE_BYTES

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/export",
                self.export,
                "export_documents",
                TAG,
                "Export documents as lines of JSON.",
                [
                    Answer(
                        200,
                        'Each line is `{"name", "title", "metadata", "gc", "created_at", "updated_at", "update", '
                        '"cursor"}`; `update` is a Yjs update (v1) as base64. A document that cannot be read is '
                        '`{"name", "code", "detail", "cursor"}`. The last line is '
                        '`{"end": true, "documents", "failed"}`; without it the '
                        "stream broke off, and goes on behind the last cursor that came.",
                        Raw(NDJSON),
                    )
                ],
                query=ExportQuery,
                access="admin of all documents",
            ),
            Route(
                "POST",
                "/import",
                self.import_,
                "import_documents",
                TAG,
                "Import documents from lines of JSON.",
                [Answer(200, "What became of the lines.", Imported)],
                raw=Raw(
                    NDJSON,
                    description='Lines of an export, or `{"name", "update"?, "title"?, "metadata"?, "gc"?}`. Their '
                    "number has no bound. A document that is there already is left as it is, so the same lines may "
                    "be sent again.",
                ),
                access="admin of all documents",
            ),
        ]

    async def export(self, call: Call[ExportQuery, NoBody]) -> web.StreamResponse:
        """Send documents as the client takes them."""
        query = call.query
        after = None if query.cursor is None else decode_cursor("n", query.cursor)
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        names = await self._transfer.names(after=after, prefix=query.prefix, limit=_PAGE)
        response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: NDJSON})
        await response.prepare(call.request)
        try:
            await self._send(names, query.prefix, response)
        except StoreUnavailable as error:
            # The status has gone out already: what tells of it is that the last line does not come.
            _log.warning("an export ends before its end: %s", error)
        await response.write_eof()
        return response

    async def _send(self, names: list[str], prefix: str, response: web.StreamResponse) -> None:
        documents = failed = 0
        while names:
            for name in names:
                try:
                    line = _exported(await self._transfer.read(name))
                    documents += 1
                except (DocumentNotFound, DocumentDeleted):
                    continue  # since it was listed
                except DamagedDocument as error:
                    _log.warning("the export goes on without %s: %s", shown_name(name), error)
                    line = {"name": name, "code": code_of(error), "detail": error.public}
                    failed += 1
                await response.write(_line({**line, "cursor": encode_cursor("n", name)}))
            names = await self._transfer.names(after=names[-1], prefix=prefix, limit=_PAGE)
        await response.write(_line({_END: True, "documents": documents, "failed": failed}))

    async def import_(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Create a document for each line."""
        request = call.request
        if request.content_type != NDJSON:
            raise BadRequest(f"the content type is {NDJSON}", "unsupported_media_type")
        await self._permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
        number = created = existed = failed = 0
        failures: list[Failure] = []
        with self._guard.long_body(request):
            async for text in self._lines(request):
                if text.startswith(_LAST):
                    continue
                number += 1
                name: str | None = None
                try:
                    check_memory(self._guard)
                    line = _read_line(text)
                    name = line.name
                    if line.code is not None:
                        raise BadRequest(f"it could not be exported: {line.code}", "not_possible")
                    title = None if line.title is None else read_title(line.title)
                    update = EMPTY_UPDATE if line.update is None else decode_update(line.update)
                    if await self._transfer.write(name, update, title=title, metadata=line.metadata, gc=line.gc):
                        created += 1
                    else:
                        existed += 1
                    continue
                except BadRequest as error:
                    if error.code == "unavailable":
                        raise  # nothing that follows would fare better
                    code, detail = error.code, str(error)
                except CollabError as error:
                    code, detail = code_of(error), error.public
                    if not is_refusal(error) or code == "unavailable":
                        raise
                failed += 1
                if len(failures) < _MAX_FAILURES:
                    failures.append(Failure(line=number, name=name, code=code, detail=detail))
        return json_response(Imported(lines=number, created=created, existed=existed, failed=failed, failures=failures))

    async def _lines(self, request: web.Request) -> AsyncIterator[bytes]:
        """Yield the lines that are not blank; raises ``BadRequest`` for what comes too slowly, or a line too long."""
        loop, rest = asyncio.get_running_loop(), bytearray()
        until = loop.time() + BODY_SECONDS
        while chunk := await _read_until(request, until):
            began = loop.time()
            # Only what has come is looked through and copied: a line may be as long as a document.
            *ends, last = chunk.split(b"\n")
            for end in ends:
                rest += end
                if rest.strip():
                    yield bytes(rest)
                rest = bytearray()
            rest += last
            if len(rest) > self._max_line:
                reason = f"a line has at most {self._max_line} bytes"
                raise BadRequest(reason, "too_large", headers={"Connection": "close"})
            # The time for the work on the lines is not the sender's.
            until += loop.time() - began + len(chunk) / 1024
        if rest.strip():
            yield bytes(rest)


async def _read_until(request: web.Request, until: float) -> bytes:
    """Read more of a body, nothing at its end; raises ``BadRequest`` when it has not come by then."""
    async with coming(until):
        return await request.content.readany()


def _exported(exported: Exported) -> dict[str, Any]:
    document = exported.document
    return {
        "name": document.name,
        "title": document.title,
        "metadata": dict(document.metadata),
        "gc": document.gc,
        "created_at": show_time(document.created_at),
        "updated_at": show_time(document.updated_at),
        "update": base64.b64encode(exported.update).decode(),
    }


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _read_line(text: bytes) -> Line:
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        raise invalid(error, "the line") from None
