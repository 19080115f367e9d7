"""``/audit``: the newest entries of the audit, of all nodes.

Strategy: they are asked for and put together by ``collab.hub.audits``; here it is decided who may see them. They name
users and addresses of all documents, so they are for the admins of all of these alone.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import AwareDatetime, BeforeValidator, Field

from collab.audit import Act, Group, Kind
from collab.hub.audits import MAX_LIMIT, Audits, Place, Told, Wanted
from collab.protocol.session import Access
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import read_time, show_time
from collab.transports.http.api.people import CONNECTIONS, DEFAULT_LIMIT, Date, Silent
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, Query, Route, json_response
from collab.transports.problems import BadRequest

_MAX_NAME: Final = 512
_MAX_TEXT: Final = 1_024

_KINDS: Final = frozenset({*map(str, Kind), *map(str, Group)})


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(value: str) -> str:
    """Let nothing pass that is another form of a time: the library would take a number for seconds."""
    if not _RFC3339.fullmatch(value):
        raise ValueError("it is no time such as 2026-05-04T09:14:07Z")
    return value


class AuditEntry(Model):
    """An entry of the audit."""

    at: Date = Field(description="When, RFC 3339 in UTC.")
    kind: str = Field(description="What it is of: a kind of docs/operations.md, such as `document-deleted`.")
    outcome: Literal["success", "failure", "unknown"] = Field(
        description="How it has ended; `unknown` where its sender has gone before that."
    )
    detail: str = Field(description="More of it, for people; may be empty.")
    user: str | None = Field(description="Who has done it, as the token says; null where nobody has said.")
    on_behalf_of: str | None = Field(description="For whom a back end has done it, as that says.")
    target: str | None = Field(description="The user to whom it was done.")
    address: str | None = Field(description="Of the client.")
    document: str | None = Field(description="The name of the document.")
    protocol: str | None = Field(description="`http`, `streams`, `y-websocket` or `hocuspocus`.")
    connection: str | None = Field(description="`NODE-NUMBER`, as a kick takes it; null without a socket.")
    node: str = Field(description="The server that has noted it.")
    request: str | None = Field(description="The header `X-Request-ID` of its request.")
    trace: str | None = Field(description="The trace that it is a part of.")
    left_out: int = Field(ge=0, description="How many entries like this were left out before it.")


class AuditPage(Model):
    """A part of the newest entries."""

    entries: list[AuditEntry]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")
    silent: Silent


class AuditQuery(Query):
    """Which entries are wanted."""

    since: Annotated[AwareDatetime, BeforeValidator(_rfc3339)] | None = Field(
        None, description="Not before this, RFC 3339."
    )
    kind: str | None = Field(
        None,
        max_length=64,
        description="Only of this kind, or of this group: `actions`, `reads`, `refusals`, `sign-ins`.",
    )
    user: str | None = Field(
        None,
        max_length=_MAX_TEXT,
        description="Only what this user has done, what was done on behalf of this user, or to this user.",
    )
    document: str | None = Field(None, max_length=_MAX_NAME, description="Only of this document.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many there are in a page.")


class AuditRoutes:
    """The handler."""

    def __init__(self, audits: Audits, permission: Permission) -> None:
        self._audits = audits
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the route."""
        return [
            Route(
                "GET",
                "/audit",
                self.list,
                "list_audit",
                CONNECTIONS,
                "List the newest entries of the audit, of all nodes.",
                [Answer(200, "A page of entries, the newest first.", AuditPage)],
                query=AuditQuery,
                access="admin of all documents",
                description="Each node keeps the newest thousand of each group in memory, for as long as it runs. "
                "The file of `--audit-log` has all of them, and what the command line has done.",
            )
        ]

    async def list(self, call: Call[AuditQuery, NoBody]) -> web.Response:
        """Answer with a page of entries."""
        query = call.query
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        if query.kind is not None and query.kind not in _KINDS:
            raise BadRequest(f"there is no kind {query.kind!r}")
        before = None if query.cursor is None else _place(decode_cursor("a", query.cursor))
        wanted = Wanted(_seconds(query.since), query.kind, query.user, query.document)
        with self._permission.acting(call.request, Act(Kind.AUDIT_READ), grant):
            page = await self._audits.page(wanted, before, query.limit)
        following = None if page.following is None else encode_cursor("a", _text(page.following))
        return json_response(
            AuditPage(entries=[_entry(told) for told in page.items], next=following, silent=[*page.silent])
        )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _entry(told: Told) -> AuditEntry:
    outcome = told.outcome if told.outcome in ("success", "failure") else "unknown"
    facts = told._asdict() | {"at": show_time(told.at), "outcome": outcome}
    del facts["number"]
    return AuditEntry(**facts)


def _text(place: Place) -> str:
    at, node, number = place
    return f"{at!r} {number} {node}"


def _place(text: str) -> Place:
    at, _, rest = text.partition(" ")
    number, _, node = rest.partition(" ")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise BadRequest('"cursor" is the "next" of the page before')
    return read_time(at), node, int(number)
