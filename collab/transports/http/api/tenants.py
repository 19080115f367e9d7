"""``/tenants`` and ``/quotas``: what tenants use, and what they may.

Strategy: all of it is in the store, so any node answers for all of them. It shows all tenants of the server, so it
needs ``admin`` for all documents.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.hub.hub import Hub
from collab.hub.tenant_book import Standing, shown_quota, used_of
from collab.hub.tenants import Tenants
from collab.protocol.session import Access
from collab.storage.tenants import MAX_QUOTA, check_quota, read_month, show_month
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import DEFAULT_LIMIT, MAX_LIMIT, show_time
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, Query, Route
from collab.transports.http.api.route import json_response as answer
from collab.transports.problems import BadRequest

TAG = "Tenants"


class TenantUsage(Model):
    """What a tenant uses now, and has used in a month of UTC."""

    documents: int = Field(ge=0, description="Documents now.")
    bytes_stored: int = Field(ge=0, description="Bytes that they take now.")
    connections: int = Field(ge=0, description="Connections now, on all nodes.")
    bytes_sent: int = Field(ge=0, description="Bytes sent to clients in the month.")
    edits: int = Field(ge=0, description="Edits in the month.")
    connection_minutes: float = Field(ge=0, description="Minutes in the month in which connections were open.")
    peak_connections: int = Field(ge=0, description="Most connections at a time in the month.")


class TenantQuota(Model):
    """Bounds of what a tenant may use; null: no bound."""

    documents: int | None = Field(None, ge=0, le=MAX_QUOTA)
    bytes_stored: int | None = Field(None, ge=0, le=MAX_QUOTA)
    bytes_sent: int | None = Field(None, ge=0, le=MAX_QUOTA, description="In a month.")
    edits: int | None = Field(None, ge=0, le=MAX_QUOTA, description="In a month.")
    connection_minutes: int | None = Field(None, ge=0, le=MAX_QUOTA, description="In a month.")
    connections: int | None = Field(None, ge=0, le=MAX_QUOTA)


class Tenant(Model):
    """A tenant."""

    tenant: str = Field(description="Its name; `-` has all documents that belong to no tenant.")
    state: str = Field(
        description="`ok`; `over` a quota, so that new sessions are read-only; `stopped`: over a quota by more than a "
        "tenth, so that nobody's edits are taken.",
        json_schema_extra={"enum": ["ok", "over", "stopped"]},
    )
    over: list[str] = Field(description="The quotas that are used up.")
    usage: TenantUsage
    quota: TenantQuota = Field(description="The bounds that count.")
    own_quota: TenantQuota | None = Field(
        description="Its own bounds; those that are absent are the server's defaults. Null: it has none."
    )
    measured_at: str | None = Field(description="When its documents were counted, RFC 3339 in UTC; null: never.")


class TenantList(Model):
    """A part of the tenants."""

    tenants: list[Tenant]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")
    month: str = Field(description="Whose counters these are, `YYYY-MM` in UTC.")


class MonthQuery(Query):
    """Whose counters are shown."""

    month: str | None = Field(None, max_length=7, description="`YYYY-MM` in UTC; this month if it is not given.")


class TenantsQuery(MonthQuery):
    """Which tenants are listed."""

    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many are listed.")


class TenantRoutes:
    """The handlers.

    Args:
        hub: knows the tenants.
        permission: knows who asks.
    """

    def __init__(self, hub: Hub, permission: Permission) -> None:
        self._hub = hub
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        access = "admin of all documents"
        return [
            Route(
                "GET",
                "/tenants",
                self.list,
                "list_tenants",
                TAG,
                "List tenants by their names, with what they use.",
                [Answer(200, "A page of tenants.", TenantList)],
                query=TenantsQuery,
                access=access,
                problems=("not_offered",),
            ),
            Route(
                "GET",
                "/tenants/{name}",
                self.show,
                "show_tenant",
                TAG,
                "Read what a tenant uses, and its quotas.",
                [Answer(200, "The tenant.", Tenant)],
                query=MonthQuery,
                access=access,
                problems=("not_offered", "tenant_not_found", "invalid_name"),
            ),
            Route(
                "PUT",
                "/quotas/{name}",
                self.set_quota,
                "set_quota",
                TAG,
                "Replace a tenant's own quotas.",
                [Answer(200, "The tenant.", Tenant)],
                body=TenantQuota,
                access=access,
                problems=("not_offered", "tenant_not_found", "invalid_name"),
                description="A bound that is null is none for this tenant; one that is absent is the server's default. "
                "An empty object takes all of them away. All nodes follow within about ten seconds.",
            ),
        ]

    def _tenants(self) -> Tenants:
        if self._hub.tenants is None:
            raise BadRequest("this server counts no tenants (--tenants)", "not_offered")
        return self._hub.tenants

    async def list(self, call: Call[TenantsQuery, NoBody]) -> web.Response:
        """Answer with a page of tenants."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        book, query = self._tenants().book, call.query
        month = _month(query.month)
        after = None if query.cursor is None else decode_cursor("n", query.cursor)
        found = await book.page(after, query.limit + 1, month)
        page = found[: query.limit]
        return answer(
            TenantList(
                tenants=[show(standing) for standing in page],
                next=encode_cursor("n", page[-1].record.tenant) if len(found) > query.limit else None,
                month=show_month(book.month() if month is None else month),
            )
        )

    async def show(self, call: Call[MonthQuery, NoBody]) -> web.Response:
        """Answer with one tenant."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        return answer(show(await self._tenants().book.find(call.name, _month(call.query.month))))

    async def set_quota(self, call: Call[MonthQuery, TenantQuota]) -> web.Response:
        """Replace a tenant's own quotas."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        quota = check_quota((await call.body(known=True)).model_dump(exclude_unset=True))
        tenants, name = self._tenants(), call.name
        with self._permission.acting(call.request, Act(Kind.QUOTA_SET, detail=shown_quota(name, quota)), grant):
            await tenants.set_quota(name, quota)
        return answer(show(await tenants.book.find(name)))


def show(standing: Standing) -> Tenant:
    """Describe a tenant."""
    record, used = standing.record, used_of(standing.record)
    own = record.quota
    return Tenant(
        tenant=record.tenant,
        state=standing.level.value,
        over=list(standing.over),
        usage=TenantUsage(
            documents=int(used["documents"]),
            bytes_stored=int(used["bytes_stored"]),
            connections=record.connections,
            bytes_sent=record.bytes_sent,
            edits=record.edits,
            connection_minutes=round(used["connection_minutes"], 3),
            peak_connections=record.peak,
        ),
        quota=TenantQuota(**standing.quota),
        own_quota=None if own is None else TenantQuota(**own),
        measured_at=None if record.measured_at is None else show_time(record.measured_at),
    )


def _month(text: str | None) -> int | None:
    try:
        return None if text is None else read_month(text)
    except ValueError as error:
        raise BadRequest(f'"month": {error}') from None
