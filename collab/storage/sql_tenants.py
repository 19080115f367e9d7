"""Tenants in SQL: functions for one connection each; see :mod:`collab.storage.tenants`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from collab.storage.batch import encode_name
from collab.storage.records import DocumentSummary
from collab.storage.schema import (
    documents,
    tenant_batches,
    tenant_connections,
    tenant_documents,
    tenant_usage,
    tenants,
)
from collab.storage.sql_catalogue import summaries
from collab.storage.tenants import NEWS_SECONDS, Counted, Quota, TenantRecord, decode_quota, encode_quota

_DAY = 86_400.0


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _ensure(connection: Connection, table: Table, key: Sequence[str], values: Mapping[str, Any]) -> None:
    """Insert a row unless there is one with this key."""
    connection.execute(_insert(connection, table).values(values).on_conflict_do_nothing(index_elements=key))


def _put(connection: Connection, table: Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Insert a row, or set ``values`` of the one that is there."""
    statement = _insert(connection, table).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))


def add_usage(
    connection: Connection, now: float, node: str, batch: int, month: int, counted: Sequence[Counted]
) -> None:
    """Add what a node has counted, unless it has done so already."""
    last = connection.execute(select(tenant_batches.c.batch).where(tenant_batches.c.node == node)).scalar()
    if last is not None and last >= batch:
        return
    _put(connection, tenant_batches, {"node": node}, {"batch": batch, "at": now})
    # Always in this order, so that two nodes do not wait for each other.
    for each in sorted(counted, key=lambda each: each.tenant.encode()):
        _add(connection, now, node, month, each)
    stale = now - _DAY
    connection.execute(delete(tenant_batches).where(tenant_batches.c.at < stale))
    connection.execute(delete(tenant_connections).where(tenant_connections.c.at < stale))


def _add(connection: Connection, now: float, node: str, month: int, each: Counted) -> None:
    tenant = encode_name(each.tenant)
    _ensure(connection, tenants, ["tenant"], {"tenant": tenant})
    usage = tenant_usage.c
    none = {"edits": 0, "bytes_sent": 0, "connection_ms": 0, "peak": 0}
    _ensure(connection, tenant_usage, ["tenant", "month"], {"tenant": tenant, "month": month, **none})
    others = select(func.coalesce(func.sum(tenant_connections.c.connections), 0)).where(
        tenant_connections.c.tenant == tenant, tenant_connections.c.node != node, _is_news(now)
    )
    peak = int(connection.execute(others).scalar_one()) + each.peak
    connection.execute(
        update(tenant_usage)
        .where(usage.tenant == tenant, usage.month == month)
        .values(
            edits=usage.edits + each.edits,
            bytes_sent=usage.bytes_sent + each.bytes_sent,
            connection_ms=usage.connection_ms + each.connection_ms,
            peak=case((usage.peak < peak, peak), else_=usage.peak),
        )
    )
    place = {"tenant": tenant, "node": node}
    if each.connections:
        _put(connection, tenant_connections, place, {"connections": each.connections, "at": now})
    else:
        own = and_(tenant_connections.c.tenant == tenant, tenant_connections.c.node == node)
        connection.execute(delete(tenant_connections).where(own))


def _is_news(now: float) -> ColumnElement[bool]:
    return tenant_connections.c.at > now - NEWS_SECONDS


def read(
    connection: Connection,
    now: float,
    month: int,
    *,
    after: str | None = None,
    limit: int | None = None,
    names: Iterable[str] | None = None,
) -> list[TenantRecord]:
    """Read tenants, in the order of their names."""
    open_now = (
        select(func.coalesce(func.sum(tenant_connections.c.connections), 0))
        .where(tenant_connections.c.tenant == tenants.c.tenant, _is_news(now))
        .correlate(tenants)
        .scalar_subquery()
    )
    usage = tenant_usage.c
    query = select(
        tenants, usage.edits, usage.bytes_sent, usage.connection_ms, usage.peak, open_now.label("connections")
    ).select_from(tenants.outerjoin(tenant_usage, and_(usage.tenant == tenants.c.tenant, usage.month == month)))
    if after is not None:
        query = query.where(tenants.c.tenant > encode_name(after))
    if names is not None:
        query = query.where(tenants.c.tenant.in_([encode_name(name) for name in names]))
    return [
        TenantRecord(
            row.tenant.decode(errors="backslashreplace"),
            row.edits or 0,
            row.bytes_sent or 0,
            row.connection_ms or 0,
            row.peak or 0,
            int(row.connections),
            row.documents,
            row.nbytes,
            row.measured_at,
            decode_quota(row.quota),
        )
        for row in connection.execute(query.order_by(tenants.c.tenant).limit(limit))
    ]


def set_quota(connection: Connection, tenant: str, quota: Quota | None) -> None:
    """Replace a tenant's own quotas."""
    _put(connection, tenants, {"tenant": encode_name(tenant)}, {"quota": encode_quota(quota)})


def note_measured(connection: Connection, tenant: str, count: int, nbytes: int, at: float) -> None:
    """Note what a tenant's documents take."""
    values = {"documents": count, "nbytes": nbytes, "measured_at": at}
    _put(connection, tenants, {"tenant": encode_name(tenant)}, values)


def give_documents(connection: Connection, tenant: str, document_ids: Sequence[int]) -> None:
    """Note whose documents are that belong to nobody."""
    for document_id in sorted(document_ids):
        values = {"document_id": document_id, "tenant": encode_name(tenant)}
        _ensure(connection, tenant_documents, ["document_id"], values)


def tenant_of(connection: Connection, document_id: int) -> str | None:
    """Tell whose a document is."""
    query = select(tenant_documents.c.tenant).where(tenant_documents.c.document_id == document_id)
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found).decode(errors="backslashreplace")


def documents_of(connection: Connection, tenant: str, after: int, limit: int) -> list[DocumentSummary]:
    """List living documents that were given to a tenant."""
    chosen = (
        select(documents)
        .select_from(documents.join(tenant_documents, tenant_documents.c.document_id == documents.c.id))
        .where(
            tenant_documents.c.tenant == encode_name(tenant),
            tenant_documents.c.document_id > after,
            documents.c.name.is_not(None),
            documents.c.deleted_at.is_(None),
        )
    )
    return summaries(connection, chosen, limit, (documents.c.id, False))
