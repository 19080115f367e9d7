"""``/documents``: which documents there are, with titles, own keys and dates; creation, renaming and deletion.

Strategy: everything here is answered from the store's columns and from the rooms that are live on this node;
no document is read for it, so a listing of a thousand documents costs one query. What a document is for is
not the server's business: an application that has kinds of documents puts them into the beginning of the
names, as the pages in ``web_demo`` do, and lists by ``prefix``.

The title is a copy too. In a document that many edit at once the title belongs into the document, where it is
merged like all else; but only a CRDT library could read it there, and none runs in a serving process. So
whoever renames a document says so here as well, and a listing has something to show.

No index has the order of the sizes, so a listing by them looks at all documents under its prefix (``hub.largest``). It
is for those who administer all documents.

With authentication the authenticator is asked about each document of a listing, which leaves out what may not be read.
So a page may hold fewer than ``limit`` documents and still have a ``next``.

Creating counts in ``max_new_documents_per_minute`` as joining a document that is not there does (``creation``).
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound
from collab.hub import trash
from collab.hub.documents import Documents
from collab.hub.guests import guest_of
from collab.hub.hub import Hub, Presence
from collab.protocol.awareness import decode_awareness
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.storage.records import KEEP, DocumentSummary, Keep
from collab.telemetry import shown_name
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.creation import (
    CREATION_PROBLEMS,
    KEY_HEADER,
    MOST,
    MOST_UNNAMED,
    Content,
    Creation,
    Metadata,
    SmallUpdate,
    Update,
    answer_with,
    check_content,
)
from collab.transports.http.api.cursors import MAX_CURSOR, Cursors
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route, no_content
from collab.transports.http.api.route import json_response as answer
from collab.transports.problems import BadRequest

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_TITLE = 200
"""Characters of a title, after white space at its ends is gone."""

TAG = "Documents"

# A listing shows a few faces, whatever the size of a room; and whoever keeps a book in its awareness state
# is shown without a name rather than parsed at every listing.
_MAX_PARTICIPANTS = 8
_MAX_STATE_BYTES = 4 * 1024
_MAX_PERSON_TEXT = 64

_MAX_NAME = 512

# No size of a document has as many.
_SIZE_DIGITS = 20

Name = Annotated[
    str,
    # The rule itself (``collab.protocol.names``) has a code and a reason of its own.
    Field(
        description="The name of a document: 1 to 512 bytes of UTF-8 without NUL, and not white space alone.",
        json_schema_extra={"minLength": 1, "maxLength": _MAX_NAME},
    ),
]
Title = Annotated[
    str,
    Field(
        max_length=4 * MAX_TITLE,
        description=f"What listings show: up to {MAX_TITLE} characters, without line breaks and control characters.",
    ),
]


class Person(Model):
    """Somebody who shows up in a document, as the client says."""

    name: str
    color: str


class Document(Model):
    """A document."""

    name: Name
    title: str | None = Field(description="What listings show; null where nobody has said it.")
    metadata: Metadata
    access: Literal["read", "write", "admin"] = Field(description="What whoever asks may do with it.")
    created_at: str = Field(
        description="When it was created, RFC 3339 in UTC.", json_schema_extra={"format": "date-time"}
    )
    updated_at: str = Field(
        description="When it was edited last, RFC 3339 in UTC.", json_schema_extra={"format": "date-time"}
    )
    bytes: int = Field(ge=0, description="Bytes that are read to open it.")
    participants: list[Person] = Field(
        description=f"Up to {_MAX_PARTICIPANTS} of those who show themselves in it now, on this node."
    )
    connections: int = Field(ge=0, description="How many sessions this node has on it.")


class DocumentPage(Model):
    """A part of a list."""

    documents: list[Document]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")


class ListQuery(Query):
    """Which documents are listed."""

    order: Literal["name", "updated", "size"] = Field(
        "name",
        description="By the bytes of the name; or those that were edited last first, where a document that is edited "
        "meanwhile moves to the front; or the largest first, for `admin` of all documents.",
    )

    prefix: str = Field("", max_length=_MAX_NAME, description="Only names that begin with this.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many documents are looked at.")


class NewDocument(Model):
    """A document to be created."""

    name: Name
    title: Title | None = None
    metadata: Metadata | None = None
    update: SmallUpdate | None = None
    content: Content | None = None


class WantedDocument(Model):
    """How a document is created if it is not there."""

    title: Title | None = None
    metadata: Metadata | None = None
    update: Update | None = None
    content: Content | None = None


class Change(Model):
    """What is changed about a document: its title and own keys, or its name."""

    title: Title | None = Field(None, description="Another title; null takes it away.")
    metadata: Metadata | None = Field(None, description="Own keys that change; null takes one away.")
    name: Name | None = Field(None, description="Another name; alone, and for `admin` of both names.")


class DeleteQuery(Query):
    """How a document is deleted."""

    erase: bool = Field(
        False,
        description="Erase it for good, with all that is in the trash of its name, instead of keeping it in the trash.",
    )


class Erased(Model):
    """What was erased for good."""

    erased: list[int] = Field(description="The ids of the documents whose content is gone.")
    holding: list[str] = Field(
        description="Nodes that live and have not said that they have let go of it; they find out when they look."
    )


class DocumentRoutes:
    """The handlers.

    Args:
        documents: does what is asked.
        hub: knows who is where.
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
        one = Answer(200, "The document.", Document)
        created = Answer(201, "The new document.", Document)
        return [
            Route(
                "GET",
                "/documents",
                self.list,
                "list_documents",
                TAG,
                "List documents by their names, by the time of the last edit, or by their size.",
                [Answer(200, "A page of documents.", DocumentPage)],
                query=ListQuery,
                access="any; documents that may not be read are left out; by size: admin of all documents",
                description="A page may hold fewer documents than `limit`, even none, and still have a `next`.",
            ),
            Route(
                "POST",
                "/documents",
                self.create,
                "create_document",
                TAG,
                "Create a document, empty or with content, also in the place of a deleted one.",
                [created],
                body=NewDocument,
                most=MOST_UNNAMED,
                check=check_content,
                access="write",
                problems=(*CREATION_PROBLEMS, "document_deleted", "invalid_update", "not_possible"),
                headers=KEY_HEADER,
                description="Content, title and own keys are there at once, or none of them.",
            ),
            Route(
                "PUT",
                "/documents/{name}",
                self.ensure,
                "ensure_document",
                TAG,
                "Create a document if there is none; one that is there is left as it is.",
                [Answer(200, "It was there, and is as it was.", Document), created],
                body=WantedDocument,
                most=MOST,
                check=check_content,
                access="write",
                problems=(
                    "document_deleted",
                    "invalid_update",
                    "not_possible",
                    "refused",
                    "too_many_requests",
                    "too_large",
                ),
                description="However many do this at the same time, the content is there once. So clients never seed. "
                "A document that was deleted stays deleted: POST creates it anew.",
            ),
            Route(
                "GET",
                "/documents/{name}",
                self.show,
                "get_document",
                TAG,
                "Describe a document.",
                [one],
                access="read",
                problems=("document_not_found", "document_deleted"),
            ),
            Route(
                "PATCH",
                "/documents/{name}",
                self.change,
                "change_document",
                TAG,
                "Set title and own keys of a document, or give it another name.",
                [one],
                body=Change,
                access="write; `admin` of both names for another name",
                problems=("document_not_found", "document_deleted", "document_exists", "document_damaged"),
                description="Under another name a document keeps its content and history. Who is in it is told to go.",
            ),
            Route(
                "DELETE",
                "/documents/{name}",
                self.delete,
                "delete_document",
                TAG,
                "Delete a document.",
                [
                    Answer(200, "It is erased for good, on all nodes.", Erased),
                    Answer(202, "It is erased for good; a node may still show it for some seconds.", Erased),
                    Answer(204, "It is deleted, and in the trash."),
                ],
                query=DeleteQuery,
                access="admin",
                problems=("document_not_found", "document_deleted", "refused"),
                description="Who is in it is told to go, and nobody brings it back by coming with an old copy.",
            ),
        ]

    async def list(self, call: Call[ListQuery, NoBody]) -> web.Response:
        """Answer with a page of documents."""
        query = call.query
        if query.order == "name":
            name = None if query.cursor is None else self._cursors.decode("n", query.cursor)
            found = await self._documents.list(after=name, prefix=query.prefix, limit=query.limit + 1)
        elif query.order == "size":
            await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
            size = None if query.cursor is None else self._size_place(query.cursor)
            found = await self._documents.largest.list(after=size, prefix=query.prefix, limit=query.limit + 1)
        else:
            place = None if query.cursor is None else self._time_place(query.cursor)
            found = await self._documents.recent(after=place, prefix=query.prefix, limit=query.limit + 1)
        page = found[: query.limit]
        names = [summary.document.name for summary in page]
        access = await self._permission.readable(call.request, names)
        presence = await self._hub.presence([*access])
        return answer(
            DocumentPage(
                documents=[
                    describe(summary, access[summary.document.name], presence[summary.document.name])
                    for summary in page
                    if summary.document.name in access
                ],
                next=self._cursor(query.order, page[-1]) if len(found) > query.limit else None,
            )
        )

    async def show(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with one document as it stands in the listing."""
        name = call.name
        access = (await self._permission.require(call.request, name, Access.READ)).access
        return await self._answer(await self._documents.describe(name), access)

    async def create(self, call: Call[NoQuery, NewDocument]) -> web.Response:
        """Create a document, also in the place of a deleted one."""
        body = await call.body()
        check_document_name(body.name)
        grant = await self._permission.require(call.request, body.name, Access.WRITE)
        title = None if body.title is None else read_title(body.title)
        content = self._creation.read_content(body.update, body.content)
        async with self._creation.once(call.request, grant, "POST /documents", body) as once:
            if once.answer is None:
                await self._permission.admit_new(call.request, body.name, grant)
                with self._creation.counted(call.request, grant, body.name):
                    # Nothing is computed for what would be refused; that is decided when it is created.
                    if content is not None:
                        await self._must_be_free(body.name)
                    update = await self._creation.make(content)
                    summary = await self._documents.create(
                        body.name, title=title, metadata=body.metadata, update=update, author=grant.user, call=once
                    )
                    if update is not None:
                        await self._documents.name_guest(summary.document.id, guest_of(grant))
                self._permission.created(grant, summary.document)
                once.finish(201, await self._body(summary, grant.access))
        assert once.answer is not None
        return answer_with(once.answer)

    async def ensure(self, call: Call[NoQuery, WantedDocument]) -> web.Response:
        """Create a document if there is none."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.WRITE)
        self._creation.check_memory()
        body = await call.body(known=True)
        title = None if body.title is None else read_title(body.title)
        content = self._creation.read_content(body.update, body.content)
        try:
            # One that is there is not counted, and needs neither room nor content.
            return await self._answer(await self._documents.describe(name), grant.access)
        except DocumentNotFound:
            pass
        await self._permission.admit_new(call.request, name, grant)
        with self._creation.counted(call.request, grant, name):
            update = await self._creation.make(content)
            ensured = await self._documents.ensure(name, update, title=title, metadata=body.metadata, author=grant.user)
            if ensured.created and update is not None:
                await self._documents.name_guest(ensured.summary.document.id, guest_of(grant))
        if ensured.created:
            self._permission.created(grant, ensured.summary.document)
        return await self._answer(ensured.summary, grant.access, 201 if ensured.created else 200)

    async def _must_be_free(self, name: str) -> None:
        """Raise DocumentExists if there is a document of this name; another one may come at any time."""
        try:
            await self._documents.describe(name)
        except (DocumentNotFound, DocumentDeleted):
            return
        raise DocumentExists(f"there is a document {name!r}")

    async def change(self, call: Call[NoQuery, Change]) -> web.Response:
        """Set title and own keys, null takes them away; or give the document another name."""
        name = call.name
        access = (await self._permission.require(call.request, name, Access.WRITE)).access
        body = await call.body(known=True)
        if body.name is not None:
            if body.model_fields_set != {"name"}:
                raise BadRequest('"name" comes alone')
            return await self._rename(call.request, name, body.name)
        title: str | None | Keep = KEEP
        if "title" in body.model_fields_set:
            title = None if body.title is None else read_title(body.title)
        elif body.metadata is None:
            raise BadRequest('"title", "metadata" or "name" is missing')
        return await self._answer(await self._documents.change(name, title=title, metadata=body.metadata), access)

    async def _rename(self, request: web.Request, name: str, new_name: str) -> web.Response:
        check_document_name(new_name)
        await self._permission.require(request, name, Access.ADMIN)
        grant = await self._permission.require(request, new_name, Access.ADMIN)
        with self._permission.acting(request, Act(Kind.DOCUMENT_RENAMED, name, f"to {shown_name(new_name)}"), grant):
            renamed = await self._documents.rename(name, new_name)
        return await self._answer(renamed, grant.access)

    async def delete(self, call: Call[DeleteQuery, NoBody]) -> web.Response:
        """Delete the document: who is in it is told, and nobody brings it back by coming with an old copy."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        kind = Kind.DOCUMENT_ERASED if call.query.erase else Kind.DOCUMENT_DELETED
        with self._permission.acting(call.request, Act(kind, name), grant):
            if call.query.erase:
                return answer_erased(await self._hub.trash.erase(name, user=grant.user))
            await self._documents.delete(name, user=grant.user)
        return no_content()

    async def _answer(self, summary: DocumentSummary, access: Access, status: int = 200) -> web.Response:
        return answer(await described(self._hub, summary, access), status)

    def _cursor(self, order: str, last: DocumentSummary) -> str:
        document = last.document
        if order == "name":
            return self._cursors.encode("n", document.name)
        if order == "size":
            return self._cursors.encode("s", f"{last.stored_bytes} {document.name}")
        return self._cursors.encode("u", f"{document.updated_at!r} {document.name}")

    def _size_place(self, cursor: str) -> tuple[int, str]:
        size, space, name = self._cursors.decode("s", cursor).partition(" ")
        return read_size(size if space else ""), name

    def _time_place(self, cursor: str) -> tuple[float, str]:
        at, space, name = self._cursors.decode("u", cursor).partition(" ")
        return read_time(at if space else ""), name

    async def _body(self, summary: DocumentSummary, access: Access) -> bytes:
        return (await described(self._hub, summary, access)).model_dump_json().encode()


async def described(hub: Hub, summary: DocumentSummary, access: Access) -> Document:
    """Describe a document for somebody who has ``access``, with those who are in it now."""
    name = summary.document.name
    return describe(summary, access, (await hub.presence([name]))[name])


def answer_erased(erased: trash.Erased) -> web.Response:
    """Tell what was erased; 202 where a node has not said that it has let go of it."""
    return answer(Erased(erased=erased.ids, holding=list(erased.holding)), 202 if erased.holding else 200)


def describe(summary: DocumentSummary, access: Access, presence: Presence) -> Document:
    """Describe a document for somebody who has ``access``."""
    document = summary.document
    return Document(
        name=document.name,
        title=document.title,
        metadata=dict(document.metadata),
        access=access.value,
        created_at=show_time(document.created_at),
        updated_at=show_time(document.updated_at),
        bytes=summary.stored_bytes,
        participants=_participants(presence.awareness),
        connections=presence.connections,
    )


def _participants(payload: bytes | None) -> list[Person]:
    """Say who shows itself in a room: the awareness states with ``user: {name, color}``, by client ID.

    The texts are what clients say; they are cut to a length, and whoever shows them must escape them.
    """
    found: list[Person] = []
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
        found.append(Person(name=printable(user["name"]), color=printable(color) if isinstance(color, str) else ""))
    return found


def printable(text: str) -> str:
    """Cut what a client says of a person to a length, and make it a text that every encoder takes."""
    # Lone surrogates pass json.loads and fail every encoder.
    return text[:_MAX_PERSON_TEXT].encode(errors="replace").decode()


def show_time(seconds: float) -> str:
    """Show Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> float:
    """Read the time in a cursor; raises ``BadRequest``."""
    try:
        at = float(text)
    except ValueError:
        at = math.nan
    if not math.isfinite(at):
        raise BadRequest('"cursor" is the "next" of the page before')
    return at


def read_size(text: str) -> int:
    """Read the size in a cursor; raises ``BadRequest``."""
    if not (text.isascii() and text.isdecimal() and len(text) < _SIZE_DIGITS):
        raise BadRequest('"cursor" is the "next" of the page before')
    return int(text)


def read_title(value: str) -> str:
    """Read a title; raises ``BadRequest``."""
    title = value.strip()
    if not title:
        raise BadRequest('"title" is a text that is not empty, or null')
    if len(title) > MAX_TITLE or not title.isprintable():
        raise BadRequest(f'"title" has at most {MAX_TITLE} characters, and no line breaks or control characters')
    return title
