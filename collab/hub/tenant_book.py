"""What is known of tenants in the store: how they stand to their quotas, and what their documents take.

Strategy: it needs no rooms, so the command line has the same answers as the API. Documents are looked up in pages of
the catalogue. In the order of names those of a tenant lie together, so all tenants are found by one look for each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from collab.errors import NoSuchTenant
from collab.storage.records import DocumentSummary
from collab.storage.store import Store
from collab.storage.tenants import NO_TENANT, QUOTAS, Quota, TenantRecord, is_tenant, month_of, tenant_of_name
from collab.telemetry import shown_name

REST: Final = 50.0
"""For so many times as long as looking at the documents of a tenant took, nobody looks again."""

SURVEY_SECONDS: Final = 3_600.0
"""Seconds between looks at all tenants, and how old what is known of one may be then."""

# What open sessions may go on for, beyond a quota.
_BEYOND: Final = 1.1

# Quotas of what edits and clients use up; the others bound what is opened and created.
_USED_UP: Final = frozenset({"bytes_stored", "bytes_sent", "edits", "connection_minutes"})

# Documents that are looked at in one query, and tenants.
_PAGE: Final = 200
_TENANTS: Final = 500

# Documents up to which somebody who asks for a tenant gets them counted now, and how old an answer may be.
_AT_ONCE: Final = 2_000
_FRESH: Final = 10.0

# Behind all names of a tenant.
_LAST: Final = "/\U0010ffff"


class Level(Enum):
    """How a tenant stands to its quotas."""

    OK = "ok"
    OVER = "over"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TenantOptions:
    """How tenants are told apart, and what each may use.

    Attributes:
        by_claim: a claim says whose a document is; else its name does.
        defaults: the quotas of tenants that have none of their own; what is missing has no bound.
    """

    by_claim: bool = False
    defaults: Mapping[str, int] = field(default_factory=dict)


class Standing(NamedTuple):
    """How a tenant stands.

    Attributes:
        record: what is known of it.
        quota: what counts for it; None: no bound.
        over: the quotas that are used up.
        level: what follows.
    """

    record: TenantRecord
    quota: dict[str, int | None]
    over: tuple[str, ...]
    level: Level


class Book:
    """The tenants of a store.

    Args:
        store: where usage is kept.
        options: see ``TenantOptions``.
        clock: wall-clock time in Unix seconds.
    """

    def __init__(self, store: Store, options: TenantOptions, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._options = options
        self._clock = clock

    def month(self) -> int:
        """Give the number of this month."""
        return month_of(self._clock())

    def stand(self, record: TenantRecord) -> Standing:
        """Say how a tenant stands, by what is known of it."""
        quota = self.quota_of(record)
        used = used_of(record)
        over, stopped = [], False
        for name, bound in quota.items():
            if bound is None:
                continue
            if used[name] > bound if name == "documents" else used[name] >= bound:
                over.append(name)
                stopped = stopped or (name in _USED_UP and used[name] > bound * _BEYOND)
        level = Level.STOPPED if stopped else Level.OVER if over else Level.OK
        return Standing(record, quota, tuple(over), level)

    def quota_of(self, record: TenantRecord) -> dict[str, int | None]:
        """Give the quotas that count for a tenant."""
        own: Quota = record.quota or {}
        defaults = self._options.defaults
        return {name: own[name] if name in own else defaults.get(name) for name in QUOTAS}

    async def find(self, tenant: str, month: int | None = None) -> Standing:
        """Say how a tenant stands, with the counters of a month; of one that is not large it is counted now.

        Raises:
            NoSuchTenant: nothing is known of it.
            StoreUnavailable.
        """
        if not is_tenant(tenant):
            raise NoSuchTenant(f"{tenant[:100]!r} is no tenant")
        now = self._clock()
        record = await self._record(tenant, month)
        if (
            record is None
            or record.documents is None
            or (record.documents <= _AT_ONCE and (record.measured_at or 0.0) < now - _FRESH)
        ):
            measured = await self.measure(tenant, most=_AT_ONCE)
            if measured is not None and (measured[0] or record is not None):
                await self._store.note_measured(tenant, *measured, now)
                record = await self._record(tenant, month)
        if record is None:
            raise NoSuchTenant(f"nothing is known of the tenant {tenant!r}")
        return self.stand(record)

    async def _record(self, tenant: str, month: int | None) -> TenantRecord | None:
        """Read what is known of a tenant; the counters of this month decide how it stands."""
        shown = month_of(self._clock()) if month is None else month
        return (await self._store.tenants_named(shown, [tenant])).get(tenant)

    async def page(self, after: str | None, limit: int, month: int | None = None) -> list[Standing]:
        """List tenants by their names; raises StoreUnavailable."""
        shown = month_of(self._clock()) if month is None else month
        return [self.stand(record) for record in await self._store.tenants(shown, after=after, limit=limit)]

    async def set_quota(self, tenant: str, quota: Quota) -> None:
        """Replace a tenant's own quotas; servers follow with their next look, within ten seconds or so.

        Raises:
            NoSuchTenant: this can name no tenant.
            StoreUnavailable.
        """
        if not is_tenant(tenant):
            raise NoSuchTenant(f"{tenant[:100]!r} is no tenant")
        await self._store.set_quota(tenant, quota or None)

    async def measure(self, tenant: str, most: int | None = None) -> tuple[int, int] | None:
        """Count the documents of a tenant and their bytes; None if there are more than ``most``."""
        count = nbytes = 0
        async for page in self._documents(tenant):
            count += len(page)
            nbytes += sum(summary.stored_bytes for summary in page)
            if most is not None and count > most:
                return None
            await asyncio.sleep(0)
        return count, nbytes

    async def _documents(self, tenant: str) -> AsyncIterator[list[DocumentSummary]]:
        """Give the documents of a tenant, in pages."""
        if self._options.by_claim:
            last = 0
            while found := await self._store.documents_of(tenant, last, _PAGE):
                last = found[-1].document.id
                yield found
            return
        # Names that begin with "/" or have none have no tenant, and lie between those of others.
        after: str | None = None
        prefix = "" if tenant == NO_TENANT else f"{tenant}/"
        while found := await self._store.list_documents(after=after, prefix=prefix, limit=_PAGE):
            after = found[-1].document.name
            yield [each for each in found if tenant_of_name(each.document.name) == tenant]
            if not prefix and (skipped := tenant_of_name(after)) != NO_TENANT:
                after = skipped + _LAST

    async def look_at_all(self) -> None:
        """Measure every tenant that nobody has measured for an hour."""
        after: str | None = None
        while page := await self._store.tenants(0, after=after, limit=_TENANTS):
            after = page[-1].tenant
            for record in page:
                await self._refresh(record)
        if self._options.by_claim:
            return
        after = None
        while found := await self._store.list_documents(after=after, limit=1):
            after = found[0].document.name
            tenant = tenant_of_name(after)
            if tenant != NO_TENANT:
                after = tenant + _LAST
            known = await self._store.tenants_named(0, [tenant])
            await self._refresh(known.get(tenant, TenantRecord(tenant)))

    async def _refresh(self, record: TenantRecord) -> None:
        if record.measured_at is not None and record.measured_at > self._clock() - SURVEY_SECONDS:
            return
        began = time.perf_counter()
        measured = await self.measure(record.tenant)
        assert measured is not None
        await self._store.note_measured(record.tenant, *measured, self._clock())
        await asyncio.sleep((time.perf_counter() - began) * REST)


def used_of(record: TenantRecord) -> dict[str, float]:
    """Give what a tenant has used, by the names of the quotas."""
    return {
        "documents": record.documents or 0,
        "bytes_stored": record.nbytes or 0,
        "bytes_sent": record.bytes_sent,
        "edits": record.edits,
        "connection_minutes": record.connection_ms / 60_000.0,
        "connections": record.connections,
    }


def shown_quota(tenant: str, quota: Quota) -> str:
    """Say in the audit which quotas a tenant was given."""
    own = ", ".join(f"{name}={'none' if bound is None else bound}" for name, bound in quota.items())
    return f"{shown_name(tenant)}: {own or 'those of the server'}"
