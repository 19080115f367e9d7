"""Tenants in memory: see :mod:`collab.storage.tenants`; each method is one step, so it is a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from collab.storage.tenants import NEWS_SECONDS, Counted, Quota, TenantRecord


@dataclass(slots=True)
class _Tenant:
    """A tenant: its counters by months, and its connections by nodes with the time when they were told."""

    record: TenantRecord
    usage: dict[int, Counted] = field(default_factory=dict)
    nodes: dict[str, tuple[int, float]] = field(default_factory=dict)

    def open_at(self, now: float, but: str | None = None) -> int:
        """Count the connections on all nodes but one."""
        news = [count for node, (count, at) in self.nodes.items() if node != but and at > now - NEWS_SECONDS]
        return sum(news)

    def shown(self, month: int, now: float) -> TenantRecord:
        """Give what is known, with the counters of a month."""
        used = self.usage.get(month, Counted(self.record.tenant))
        return self.record._replace(
            edits=used.edits,
            bytes_sent=used.bytes_sent,
            connection_ms=used.connection_ms,
            peak=used.peak,
            connections=self.open_at(now),
        )


class MemoryTenants:
    """The tenants of a storage."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._batches: dict[str, int] = {}

    def _known(self, tenant: str) -> _Tenant:
        return self._tenants.setdefault(tenant, _Tenant(TenantRecord(tenant)))

    def add_usage(self, now: float, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        """Add what a node has counted, unless it has done so already."""
        if self._batches.get(node, batch - 1) >= batch:
            return
        self._batches[node] = batch
        for each in counted:
            tenant = self._known(each.tenant)
            before = tenant.usage.get(month, Counted(each.tenant))
            tenant.usage[month] = Counted(
                each.tenant,
                before.edits + each.edits,
                before.bytes_sent + each.bytes_sent,
                before.connection_ms + each.connection_ms,
                0,
                max(before.peak, tenant.open_at(now, node) + each.peak),
            )
            tenant.nodes[node] = (each.connections, now)

    def tenants(self, now: float, month: int, after: str | None, limit: int) -> list[TenantRecord]:
        """List tenants."""
        behind = b"" if after is None else after.encode()
        names = sorted((name for name in self._tenants if name.encode() > behind), key=str.encode)
        return [self._tenants[name].shown(month, now) for name in names[:limit]]

    def named(self, now: float, month: int, names: Sequence[str]) -> dict[str, TenantRecord]:
        """Read some tenants."""
        return {name: self._tenants[name].shown(month, now) for name in names if name in self._tenants}

    def set_quota(self, tenant: str, quota: Quota | None) -> None:
        """Replace a tenant's own quotas."""
        known = self._known(tenant)
        known.record = known.record._replace(quota=dict(quota) if quota else None)

    def note_measured(self, tenant: str, documents: int, nbytes: int, at: float) -> None:
        """Note what a tenant's documents take."""
        known = self._known(tenant)
        known.record = known.record._replace(documents=documents, nbytes=nbytes, measured_at=at)
