"""The port of tenants: what each has used, its own quotas, and whose a document is.

Strategy: servers count in memory and add what they have counted every few seconds, in one call for all tenants. The
calls of a node have numbers, so one whose outcome nobody knows is made again and counts once. Counters are kept by
months of UTC. How many documents a tenant has, and how many bytes they take, is no counter: a server looks that up in
the catalogue, and notes here what it has found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from collab.errors import InvalidQuota
from collab.storage.records import DocumentSummary

QUOTAS: Final = ("documents", "bytes_stored", "bytes_sent", "edits", "connection_minutes", "connections")
"""The names of the quotas."""

MAX_TENANT_BYTES: Final = 512
"""The longest tenant, in UTF-8: as a name of a document may be."""

MAX_QUOTA: Final = 2**53 - 1
"""The largest quota: JavaScript reads it as it was written."""

NO_TENANT: Final = "-"
"""The tenant of documents that have none: those without ``/`` in their names."""

NEWS_SECONDS: Final = 60.0
"""What a node has said of its connections counts for so long."""

Quota = Mapping[str, int | None]
"""Bounds by the names of ``QUOTAS``; None: no bound. What is missing has the server's default."""


class Counted(NamedTuple):
    """What a node has counted for a tenant since it added counts last.

    Attributes:
        tenant: whose it is.
        edits: updates that held something new.
        bytes_sent: bytes that were sent to its clients.
        connection_ms: milliseconds for which connections were open, added up.
        connections: how many are open now.
        peak: how many were open at the same time, at most.
    """

    tenant: str
    edits: int = 0
    bytes_sent: int = 0
    connection_ms: int = 0
    connections: int = 0
    peak: int = 0


class TenantRecord(NamedTuple):
    """What is known of a tenant.

    Attributes:
        tenant: its name.
        edits, bytes_sent, connection_ms, peak: of one month; see ``Counted``. The peak is that of all nodes together.
        connections: open now, on all nodes.
        documents, nbytes: its documents when they were counted last, and what they take; None: they never were.
        measured_at: when that was, in Unix seconds.
        quota: its own quotas; None: it has none.
    """

    tenant: str
    edits: int = 0
    bytes_sent: int = 0
    connection_ms: int = 0
    peak: int = 0
    connections: int = 0
    documents: int | None = None
    nbytes: int | None = None
    measured_at: float | None = None
    quota: Quota | None = None


class Tenants(Protocol):
    """Keep what tenants use, and their quotas.

    All of it is durable when a call returns. Errors are those of :class:`collab.storage.store.Store`.
    """

    async def add_usage(self, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        """Add what a node has counted, in one transaction; nothing if the node has added this batch already.

        The batches of a node have growing numbers. ``connections`` replaces what the node has said before, and the peak
        of the month grows to the node's peak and the connections of all other nodes.
        """

    async def tenants(self, month: int, *, after: str | None = None, limit: int = 100) -> list[TenantRecord]:
        """List tenants behind ``after`` in the order of the bytes of their names, with their counters of a month."""

    async def tenants_named(self, month: int, names: Sequence[str]) -> dict[str, TenantRecord]:
        """Read those of some tenants that are known."""

    async def set_quota(self, tenant: str, quota: Quota | None) -> None:
        """Replace a tenant's own quotas, which makes it known; None takes them away."""

    async def note_measured(self, tenant: str, documents: int, nbytes: int, at: float) -> None:
        """Note what a tenant's documents take, which makes it known."""

    async def give_documents(self, tenant: str, document_ids: Sequence[int]) -> None:
        """Note whose documents are; those that belong to somebody already stay with them."""

    async def tenant_of(self, document_id: int) -> str | None:
        """Tell whose a document is; None where nobody has noted it."""

    async def documents_of(self, tenant: str, after: int, limit: int) -> list[DocumentSummary]:
        """List living documents that were given to a tenant, with ids above ``after``, in their order."""


def month_of(at: float) -> int:
    """Give the number of the month of a time in Unix seconds."""
    when = datetime.fromtimestamp(at, UTC)
    return when.year * 12 + when.month - 1


def show_month(month: int) -> str:
    """Show the number of a month as ``YYYY-MM``."""
    year, index = divmod(month, 12)
    return f"{year:04}-{index + 1:02}"


def read_month(text: str) -> int:
    """Read ``YYYY-MM``; raises ValueError."""
    year, dash, month = text.partition("-")
    if not (dash and len(year) == 4 and len(month) == 2 and text.isascii() and (year + month).isdecimal()):
        raise ValueError("a month is YYYY-MM")
    if not 1 <= int(month) <= 12 or int(year) < 1970:
        raise ValueError("there is no such month")
    return int(year) * 12 + int(month) - 1


def is_tenant(text: str) -> bool:
    """Tell whether a text can name a tenant: 1 to 512 bytes of UTF-8, without ``/`` and control characters."""
    if not text or "/" in text or any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 for each in text):
        return False
    try:
        return len(text.encode()) <= MAX_TENANT_BYTES
    except UnicodeEncodeError:
        return False


def tenant_of_name(name: str) -> str:
    """Give the tenant of a document by its name: what stands before the first ``/``."""
    tenant, slash, _ = name.partition("/")
    return tenant if slash and is_tenant(tenant) else NO_TENANT


def check_quota(quota: Mapping[str, object]) -> dict[str, int | None]:
    """Check quotas that somebody has given.

    Raises:
        InvalidQuota: a name is none, or a bound is no whole number from 0 to ``MAX_QUOTA``, nor None.
    """
    checked: dict[str, int | None] = {}
    for name, bound in quota.items():
        if name not in QUOTAS:
            raise InvalidQuota(f"{name[:100]!r} is no quota: there are {', '.join(QUOTAS)}")
        if bound is not None and (type(bound) is not int or not 0 <= bound <= MAX_QUOTA):
            raise InvalidQuota(f"the quota {name} is a whole number from 0 to {MAX_QUOTA}, or null for no bound")
        checked[name] = bound
    return checked


def encode_quota(quota: Quota | None) -> bytes | None:
    """Write quotas as they are stored."""
    return json.dumps(dict(quota)).encode() if quota else None


def decode_quota(data: bytes | None) -> dict[str, int | None] | None:
    """Read stored quotas; what a newer release has put there is left out."""
    if data is None:
        return None
    found = json.loads(bytes(data))
    return {name: found[name] for name in QUOTAS if name in found} or None
