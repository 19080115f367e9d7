"""``/trash`` and ``/copies``: deleted documents, which can be restored or erased for good, and copies.

Strategy: all of it is done in ``collab.hub``; here it is decided who may. A deleted document is its administrators'
alone: who may only read or write a document sees nothing of what it was.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.engine import document as engine
from collab.hub.documents import Documents
from collab.hub.hub import Hub
from collab.hub.versions import Which
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.storage.records import DocumentSummary, StoredDocument
from collab.telemetry import shown_name
from collab.transports.http.answers import Permission
from collab.transports.http.api.creation import CREATION_PROBLEMS, KEY_HEADER, Creation, Metadata, answer_with
from collab.transports.http.api.cursors import MAX_CURSOR, Cursors
from collab.transports.http.api.documents import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Document,
    Erased,
    Name,
    answer_erased,
    described,
    read_time,
    show_time,
)
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route
from collab.transports.http.api.route import json_response as answer
from collab.transports.http.api.versions import VersionId
from collab.transports.problems import BadRequest

TAG = "Deleted documents and copies"

_MAX_ID = 2**63 - 1


class TrashQuery(Query):
    """Which deleted documents are listed."""

    prefix: str = Field("", max_length=512, description="Only documents whose name began with this.")
    name: str | None = Field(None, max_length=512, description="Only documents that had exactly this name.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many documents are looked at.")


class DeletedDocument(Model):
    """A document in the trash."""

    id: int = Field(ge=1, description="Tells it from others that had its name.")
    name: Name
    title: str | None
    metadata: Metadata
    created_at: str = Field(description="RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    updated_at: str = Field(description="RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    deleted_at: str = Field(description="RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    bytes: int = Field(ge=0, description="Bytes that are read to open it.")


class DeletedPage(Model):
    """A part of the trash."""

    documents: list[DeletedDocument]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")


class Restoration(Model):
    """Which document is restored, and how it is called."""

    id: int | None = Field(
        None, ge=1, le=_MAX_ID, description="Which one; null: that which had the name and was deleted last."
    )
    name: Name | None = Field(None, description="Another name, for when its own is taken.")


class EraseQuery(Query):
    """Which deleted documents are erased."""

    id: int | None = Field(None, ge=1, le=_MAX_ID, description="Only this one; else all that had the name.")


class NewCopy(Model):
    """A copy to be made."""

    name: Name
    version: VersionId | None = Field(None, description="The `id` of a version: the copy holds what that holds.")


class TrashRoutes:
    """The handlers.

    Args:
        documents: makes copies.
        hub: keeps the trash, and knows who is where.
        permission: knows who asks.
        creation: counts new documents, and does repeated calls once.
        cursors: says where a list goes on, and shows nothing of documents that its reader may not see.
    """

    def __init__(
        self, documents: Documents, hub: Hub, permission: Permission, creation: Creation, cursors: Cursors
    ) -> None:
        self._documents = documents
        self._hub = hub
        self._permission = permission
        self._creation = creation
        self._cursors = cursors

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/trash",
                self.list,
                "list_trash",
                TAG,
                "List deleted documents that can be restored, what was deleted last first.",
                [Answer(200, "A page of the trash.", DeletedPage)],
                query=TrashQuery,
                access="any; only documents for which whoever asks is `admin` are listed",
                description="A page may hold fewer documents than `limit`, even none, and still have a `next`.",
            ),
            Route(
                "POST",
                "/trash/{name}",
                self.restore,
                "restore_document",
                TAG,
                "Restore a deleted document.",
                [Answer(200, "It lives again.", Document)],
                body=Restoration,
                access="admin, of the new name too",
                problems=("document_not_found", "document_exists"),
                description="It is the same document, with its content and history: who has an old copy merges.",
            ),
            Route(
                "DELETE",
                "/trash/{name}",
                self.erase,
                "erase_document",
                TAG,
                "Erase deleted documents for good.",
                [
                    Answer(200, "They are erased, on all nodes.", Erased),
                    Answer(202, "They are erased; a node may still show one for some seconds.", Erased),
                ],
                query=EraseQuery,
                access="admin",
                problems=("document_not_found", "document_deleted"),
                description="A document that lives under the name is left alone. Nothing brings back what is erased; "
                "old copies meet the tombstone, which stays.",
            ),
            Route(
                "POST",
                "/copies/{name}",
                self.copy,
                "copy_document",
                TAG,
                "Copy a document, as it is or as a version of it was.",
                [Answer(201, "The copy.", Document)],
                body=NewCopy,
                access="read of the document, write of the copy",
                problems=(
                    *CREATION_PROBLEMS,
                    "document_not_found",
                    "document_deleted",
                    "document_damaged",
                    "version_not_found",
                    "history_gone",
                ),
                headers=KEY_HEADER,
                description="It holds what is committed now, with title and own keys. Its history begins anew.",
            ),
        ]

    async def list(self, call: Call[TrashQuery, NoBody]) -> web.Response:
        """Answer with a page of what can be restored."""
        query = call.query
        after = None if query.cursor is None else _place(self._cursors.decode("t", query.cursor))
        found = await self._hub.trash.list(name=query.name, prefix=query.prefix, after=after, limit=query.limit + 1)
        page = found[: query.limit]
        names = list(dict.fromkeys(summary.document.name for summary in page))
        access = await self._permission.readable(call.request, names)
        return answer(
            DeletedPage(
                documents=[_describe(summary) for summary in page if access.get(summary.document.name) is Access.ADMIN],
                next=self._cursors.encode("t", _place_of(page[-1].document)) if len(found) > query.limit else None,
            )
        )

    async def restore(self, call: Call[NoQuery, Restoration]) -> web.Response:
        """Restore a document."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        body = await call.body(known=True)
        if body.name is not None:
            check_document_name(body.name)
            grant = await self._permission.require(call.request, body.name, Access.ADMIN)
        act = Act(Kind.DOCUMENT_RESTORED, name, "" if body.name is None else f"as {shown_name(body.name)}")
        with self._permission.acting(call.request, act, grant):
            summary = await self._hub.trash.restore(name, body.id, body.name)
        return answer(await described(self._hub, summary, grant.access))

    async def erase(self, call: Call[EraseQuery, NoBody]) -> web.Response:
        """Erase what is in the trash."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        with self._permission.acting(call.request, Act(Kind.DOCUMENT_ERASED, name, "in the trash"), grant):
            return answer_erased(await self._hub.trash.erase(name, call.query.id, living=False))

    async def copy(self, call: Call[NoQuery, NewCopy]) -> web.Response:
        """Create a document with what another one holds."""
        name = call.name
        await self._permission.require(call.request, name, Access.READ)
        body = await call.body(known=True)
        check_document_name(body.name)
        grant = await self._permission.require(call.request, body.name, Access.WRITE)
        async with self._creation.once(call.request, grant, f"POST /copies/{name}", body) as once:
            if once.answer is None:
                await self._permission.admit_new(call.request, body.name, grant)
                with self._creation.counted(call.request, grant, body.name):
                    read = None if body.version is None else partial(self._read_version, name, body.version)
                    summary = await self._documents.copy(name, body.name, author=grant.user, call=once, read=read)
                self._permission.created(grant, summary.document)
                document = await described(self._hub, summary, grant.access)
                once.finish(201, document.model_dump_json().encode())
        assert once.answer is not None
        return answer_with(once.answer)

    async def _read_version(self, name: str, version_id: int) -> tuple[StoredDocument, engine.Document]:
        state = await self._hub.versions.state(name, Which(version=version_id))
        return (await self._documents.describe(name)).document, state.document


def _describe(summary: DocumentSummary) -> DeletedDocument:
    document = summary.document
    assert document.deleted_at is not None
    return DeletedDocument(
        id=document.id,
        name=document.name,
        title=document.title,
        metadata=dict(document.metadata),
        created_at=show_time(document.created_at),
        updated_at=show_time(document.updated_at),
        deleted_at=show_time(document.deleted_at),
        bytes=summary.stored_bytes,
    )


def _place_of(last: StoredDocument) -> str:
    return f"{last.deleted_at!r} {last.id}"


def _place(text: str) -> tuple[float, int]:
    at, _, number = text.partition(" ")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise BadRequest('"cursor" is the "next" of the page before')
    return read_time(at), int(number)
