"""``/export`` and ``/import``: many documents as one stream, out of one server and into another.

Strategy: a stream is lines of JSON or a tar archive (``collab.hub.archives``). Going out, documents are read one after
the other as the client takes them, and the last line says that it was the last, so a stream that broke off is noticed;
each document has the cursor that goes on behind it. Coming in, one document is in memory at a time
(``collab.transports.http.api.importing``). Whoever asks for it is told meanwhile how far it has come
(``collab.transports.http.api.progress``).

Both are for those who are ``admin`` for all documents. They do not count in the rate of new documents.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from collab.audit import Act, Kind
from collab.errors import StoreUnavailable
from collab.hub.archives import LineReader, LineWriter, Reader, TarReader, TarWriter, Writer
from collab.hub.transfer import Export, Failed, Transfer
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import ALL_DOCUMENTS, Permission, choose_media
from collab.transports.http.api.creation import check_memory
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import show_time
from collab.transports.http.api.importing import Import
from collab.transports.http.api.progress import ACCEPTS, IMPORTED, answer_import
from collab.transports.http.api.route import (
    NDJSON,
    Answer,
    AnyRoute,
    Call,
    NoBody,
    NoQuery,
    Query,
    Raw,
    Route,
)
from collab.transports.http.bodies import check_media
from collab.transports.problems import HEADERS, code_of

_log = get_logger("http")

TAR: Final = "application/x-tar"

TAG: Final = "Many documents"

COUNT: Final = "X-Total-Count"
"""The header that says how many documents an export is going to have."""


class ExportQuery(Query):
    """Which documents, and how."""

    prefix: str = Field("", max_length=512, description="Only names that begin with this.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `cursor` of the last document that came.")
    format: Literal["ndjson", "tar"] | None = Field(
        None, description="Lines of JSON or a tar archive, instead of `Accept`."
    )


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
                [IMPORTED],
                raw=Raw(
                    NDJSON,
                    TAR,
                    description='Lines of an export, or `{"name", "update"?, "title"?, "metadata"?, "gc"?}`; or an '
                    "archive with members as in an export. Their number has no bound. A document that is there "
                    "already is left as it is, so the same may be sent again.",
                ),
                access="admin of all documents",
                headers=ACCEPTS,
            ),
        ]

    async def export(self, call: Call[ExportQuery, NoBody]) -> web.StreamResponse:
        """Send documents as the client takes them."""
        request, query = call.request, call.query
        after = None if query.cursor is None else decode_cursor("n", query.cursor)
        media = choose_media(request.headers.getall(hdrs.ACCEPT, ()), (NDJSON, TAR)) or NDJSON
        if query.format is not None:
            media = TAR if query.format == "tar" else NDJSON
        grant = await self._permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
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
        act = Act(Kind.DOCUMENTS_EXPORTED, detail=_shown_prefix(query.prefix))
        try:
            with self._permission.acting(request, act, grant):
                async with aclosing(export_pieces(export, writer)) as pieces:
                    async for piece in pieces:
                        await response.write(piece)
                act.detail += f": {export.done}"
        except StoreUnavailable as error:
            # The status has gone out already: what tells of it is that the last line does not come.
            _log.warning("an export ends before its end: %s", error)
        await response.write_eof()
        return response

    async def import_(self, call: Call[NoQuery, NoBody]) -> web.StreamResponse:
        """Create the documents of the body."""
        request = call.request
        check_media(request, (NDJSON, TAR))
        grant = await self._permission.require(request, ALL_DOCUMENTS, Access.ADMIN)
        most = self._max_document_bytes
        reader: Reader = TarReader(most) if request.content_type == TAR else LineReader(most)
        done = Import(self._transfer, reader, lambda: check_memory(self._guard))
        act = Act(Kind.DOCUMENTS_IMPORTED)
        with self._guard.long_body(request), self._permission.acting(request, act, grant):
            answer = await answer_import(request, done)
            act.detail = f"{done.created} documents created"
            return answer


def _shown_prefix(prefix: str) -> str:
    return f"documents that begin with {shown_name(prefix)}" if prefix else "all documents"


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
