"""What tenants use on this node, their quotas, and what follows from them.

Strategy: a tenant is the part of a name before the first ``/``, or what a claim says of the one who has created the
document. A room knows its tenant's ``Account``. Nothing is counted with an edit: rooms count updates and bytes anyhow,
and a task takes the differences every few seconds, adds them to the store in one call, and reads back what all nodes
have added. So a node that is killed loses what it has counted in these seconds, and a quota is noticed so much later.
Documents and bytes are looked up in the catalogue, of tenants in which something has changed, for at most a fiftieth of
the time; what is committed here meanwhile is added.

A tenant that has used up a quota is *over* it: sessions that are opened then can only read. Those that were open go on
until a tenth more is used; then nobody's edits are taken (*stopped*), as of a session that may only read, and what
clients have typed in vain is asked for when the tenant is below its quotas again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from collab.auth.access import Grant
from collab.errors import QuotaExceeded, StoreUnavailable
from collab.hub.shares import Share, Shares
from collab.hub.tenant_book import REST, SURVEY_SECONDS, Book, Level, Standing, TenantOptions
from collab.protocol.session import Access
from collab.storage.records import StoredDocument
from collab.storage.store import Store
from collab.storage.tenants import NO_TENANT, Counted, Quota, TenantRecord, is_tenant, month_of, tenant_of_name
from collab.telemetry import get_logger, shown_name

if TYPE_CHECKING:
    from collab.hub.hub import Hub
    from collab.hub.member import Member
    from collab.hub.room import LiveRoom

_log = get_logger("tenants")

FLUSH_SECONDS: Final = 10.0
"""Seconds between two additions to the store: what a node that is killed has not added is lost."""


# Seconds for which an account is kept that nobody needs, and how old an answer about such a tenant may be.
_KEPT: Final = 60.0

# Tenants that are asked about in one query, and documents whose tenant is looked up in one go.
_NAMES: Final = 500

# Documents whose tenant is to be found: bytes of answers about others are not counted.
_ANSWERED: Final = 5_000


class Account:
    """What one tenant uses on this node.

    Attributes:
        tenant: whose it is.
        share: of the loop's time.
        record: what the store knew when it was asked last.
        level, over: how it stands to its quotas, by that.
        rooms: how many rooms of it are in memory.
    """

    __slots__ = (
        "_at",
        "_open",
        "_peak",
        "_ms",
        "bytes_sent",
        "created",
        "edits",
        "grown",
        "level",
        "measure_after",
        "over",
        "read_at",
        "record",
        "rooms",
        "share",
        "tenant",
        "used_at",
    )

    def __init__(self, tenant: str, share: Share, now: float) -> None:
        self.tenant = tenant
        self.share = share
        self.record = TenantRecord(tenant)
        self.level = Level.OK
        self.over: tuple[str, ...] = ()
        self.rooms = 0
        self.read_at = float("-inf")
        self.used_at = now
        self.measure_after = float("-inf")
        self.grown = self.created = 0  # since its documents were measured
        self.edits = self.bytes_sent = 0  # of rooms that are over, and what was not added yet
        self._open: dict[object, int] = {}
        self._peak = 0
        self._ms = 0.0
        self._at = now

    def opened(self, connection: object, now: float) -> None:
        """Count a session of a connection; those of one connection count once."""
        self._tick(now)
        self._open[connection] = self._open.get(connection, 0) + 1
        self._peak = max(self._peak, len(self._open))
        self.share.count(len(self._open))

    def closed(self, connection: object, now: float) -> None:
        """Count a session no longer; harmless for one that was not counted."""
        self._tick(now)
        left = self._open.get(connection, 0) - 1
        if left > 0:
            self._open[connection] = left
        else:
            self._open.pop(connection, None)
        self.share.count(len(self._open))

    @property
    def connections(self) -> int:
        """How many connections it has here."""
        return len(self._open)

    def _tick(self, now: float) -> None:
        self._ms += (now - self._at) * 1_000.0 * len(self._open)
        self._at = now

    def take(self, now: float) -> Counted:
        """Give what was counted since the last call."""
        self._tick(now)
        ms = int(self._ms)
        counted = Counted(self.tenant, self.edits, self.bytes_sent, ms, len(self._open), self._peak)
        self.edits = self.bytes_sent = 0
        self._ms -= ms
        self._peak = len(self._open)
        return counted


class Tenants:
    """The tenants of a node.

    Args:
        hub: its rooms.
        store: where usage is kept.
        options: see ``TenantOptions``.

    Attributes:
        options: see above.
        book: what is known of tenants beside what is open here.
        shares: of the loop's time.
        refused: how often somebody was refused an edit, or could only read, because of a quota.
    """

    def __init__(self, hub: Hub, store: Store, options: TenantOptions) -> None:
        self.options = options
        self.book = Book(store, options, hub.clock)
        self.shares = Shares()
        self.refused = 0
        self._hub = hub
        self._store = store
        self._accounts: dict[str, Account] = {}
        self._batch = 0
        self._unsent: tuple[int, list[Counted]] | None = None  # the month and the counts of a batch that has failed
        self._given: dict[str, set[int]] = {}  # documents whose tenant is to be noted
        self._answered: dict[str, int] = {}  # bytes of answers about documents whose tenant is to be found

    def levels(self) -> dict[str, int]:
        """Count the tenants here by how they stand to their quotas."""
        found = {level.value: 0 for level in Level}
        for account in self._accounts.values():
            found[account.level.value] += 1
        return found

    # Accounts

    def account(self, tenant: str) -> Account:
        """Give the account of a tenant."""
        now = self._hub.now()
        found = self._accounts.get(tenant)
        if found is None:
            found = self._accounts[tenant] = Account(tenant, self.shares.share(), now)
        found.used_at = now
        return found

    def tenant_for(self, name: str, claimed: str | None) -> str:
        """Tell whose a new document is, by its name or by what a claim says."""
        if not self.options.by_claim:
            return tenant_of_name(name)
        return claimed if claimed is not None and is_tenant(claimed) else NO_TENANT

    async def prepare(self, name: str, tenant: str | None = None) -> None:
        """Read what is known of the tenant of a document that somebody is about to open or create.

        ``tenant`` is what the claim says. Where the store does not answer, nothing is known, and nobody is refused.
        """
        account = self.account(self.tenant_for(name, tenant))
        if account.read_at < self._hub.now() - _KEPT:
            try:
                await self._read([account])
            except StoreUnavailable:
                return

    def whose(self, name: str) -> str:
        """Tell whose an open document is, as far as that is known."""
        live = self._hub.rooms.get(name)
        account = None if live is None else live.account
        return tenant_of_name(name) if account is None else account.tenant

    async def enter(self, live: LiveRoom) -> None:
        """Find out whose the document of a new room is."""
        if not self.options.by_claim:
            self._give(live, tenant_of_name(live.name))
            return
        document_id = live.persistence.document_id
        if document_id is None:
            return
        try:
            tenant = await self._store.tenant_of(document_id)
        except StoreUnavailable:
            return
        if tenant is not None:
            await self.prepare(live.name, tenant)
            self._give(live, tenant)

    def claim(self, live: LiveRoom, grant: Grant) -> None:
        """Give a document that belongs to nobody to the tenant of a client that may write it."""
        if live.account is None and self.options.by_claim and grant.access is not Access.READ:
            tenant = self.tenant_for(live.name, grant.tenant)
            self._give(live, tenant)
            for member in live.members:
                self.joined(live, member.client)
            if live.persistence.document_id is not None:
                self._given.setdefault(tenant, set()).add(live.persistence.document_id)

    def created(self, grant: Grant, document: StoredDocument) -> None:
        """Note whose a document is that was created by a call."""
        account = self.account(self.tenant_for(document.name, grant.tenant))
        account.created += 1
        if self.options.by_claim:
            self._given.setdefault(account.tenant, set()).add(document.id)

    def _give(self, live: LiveRoom, tenant: str) -> None:
        account = live.account = self.account(tenant)
        live.share = account.share
        account.rooms += 1

    # What happens to rooms

    def joined(self, live: LiveRoom, connection: object) -> None:
        """Count a session, or a reader."""
        if live.account is not None:
            live.account.opened(connection, self._hub.now())

    def left(self, live: LiveRoom, connection: object) -> None:
        """Count it no longer."""
        if live.account is not None:
            live.account.closed(connection, self._hub.now())

    def committed(self, live: LiveRoom, document_id: int, first: int, nbytes: int) -> None:
        """Count what was committed of a document until its tenant's documents are measured again."""
        account = live.account
        if account is not None:
            account.grown += nbytes
            if first == 1:
                account.created += 1
                if self.options.by_claim:
                    self._given.setdefault(account.tenant, set()).add(document_id)

    def forget_room(self, live: LiveRoom) -> None:
        """Count what a room has brought that is over."""
        account = live.account
        if account is not None and live.counted is not None:
            self._take_from(live, account)
            live.counted = None  # its sessions still have to be counted no longer
            account.rooms -= 1
            account.used_at = self._hub.now()

    def _take_from(self, live: LiveRoom, account: Account) -> None:
        if live.counted is not None:
            edits, sent = live.updates, live.members.sent
            account.edits += edits - live.counted[0]
            account.bytes_sent += sent - live.counted[1]
            live.counted = (edits, sent)

    def answered(self, name: str, nbytes: int) -> None:
        """Count the bytes of an answer about a document that is there, over plain HTTP.

        Whose a document is that is not open is looked up with the next ``flush``, where a claim says it.
        """
        live = self._hub.rooms.get(name)
        if live is not None and live.account is not None:
            live.account.bytes_sent += nbytes
        elif not self.options.by_claim:
            self.account(tenant_of_name(name)).bytes_sent += nbytes
        elif name in self._answered or len(self._answered) < _ANSWERED:
            self._answered[name] = self._answered.get(name, 0) + nbytes

    async def _find_answered(self) -> None:
        """Find out whose the documents are that answers were about."""
        names = list(self._answered)[:_NAMES]
        heads = await self._store.heads(names)
        for name in names:
            head = heads.get(name)
            if head is not None:
                tenant = await self._store.tenant_of(head.document_id)
                self.account(tenant or NO_TENANT).bytes_sent += self._answered[name]
            del self._answered[name]  # else it is gone, or was never there

    # Quotas

    def check(self, live: LiveRoom, *, already: bool = False) -> None:
        """Check that edits of a session may be taken; ``already``: it was open, and could write, before.

        Raises:
            QuotaExceeded: the tenant has used up a quota.
        """
        account = live.account
        if account is not None:
            self._check(account, creates=not live.exists, already=already)

    def check_new(self, name: str, tenant: str | None) -> None:
        """Check that a document may be created; call ``prepare`` before. ``tenant`` is what the claim says.

        Raises:
            QuotaExceeded: the tenant has used up a quota.
        """
        self._check(self.account(self.tenant_for(name, tenant)), creates=True, already=False)

    def _check(self, account: Account, *, creates: bool, already: bool) -> None:
        if already:
            if account.level is not Level.STOPPED:
                return
            over = account.over
        else:
            standing = self.standing(account)
            over = standing.over
            bound = standing.quota["documents"]
            if creates and not over and bound is not None and (standing.record.documents or 0) >= bound:
                over = ("documents",)
        if over:
            self.refused += 1
            names = " and ".join(over).replace("_", " ")
            raise QuotaExceeded(
                f"tenant {account.tenant!r} is over its quota of {names}",
                public=f"read-only: the tenant has used up its quota of {names}",
            )

    def standing(self, account: Account) -> Standing:
        """Say how a tenant stands, with what was counted here since."""
        record = account.record
        if record.documents is not None or account.created:
            record = record._replace(
                documents=(record.documents or 0) + account.created, nbytes=(record.nbytes or 0) + account.grown
            )
        record = record._replace(connections=max(record.connections, account.connections))
        return self.book.stand(record)

    # What is asked

    async def set_quota(self, tenant: str, quota: Quota) -> None:
        """Replace a tenant's own quotas; this node follows at once, the others with their next look.

        Raises:
            NoSuchTenant: this can name no tenant.
            StoreUnavailable.
        """
        await self.book.set_quota(tenant, quota)
        account = self._accounts.get(tenant)
        if account is not None:
            await self._read([account])
            self._follow(account)

    # Adding up

    async def run(self) -> None:
        """Add what is counted to the store, again and again."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except StoreUnavailable as error:
                _log.debug("what tenants use is added later: %s", error)

    async def flush(self) -> None:
        """Add what was counted, read what others have added, and do what follows from it.

        Raises:
            StoreUnavailable: it is counted with the next call.
        """
        await self._note_given()
        await self._find_answered()
        await self._send()
        accounts = list(self._accounts.values())
        for begin in range(0, len(accounts), _NAMES):
            await self._read(accounts[begin : begin + _NAMES])
        for account in accounts:
            if account.grown or account.created or (account.rooms and account.record.documents is None):
                await self._measure_now(account)
            self._follow(account)
        self._drop()

    async def close(self) -> None:
        """Add what was counted, for the last time.

        Raises:
            StoreUnavailable: it is lost.
        """
        await self._send()
        await self._note_given()

    async def _send(self) -> None:
        if self._unsent is not None:
            await self._add(*self._unsent)  # the same batch: it may be there
        for live in self._hub.rooms.values():
            if live.account is not None:
                self._take_from(live, live.account)
        now = self._hub.now()
        counted = []
        for account in self._accounts.values():
            record = account.record
            if not (record.documents or record.edits or account.edits or account.created):
                continue  # names that somebody has only asked for leave nothing behind
            told = record.connections or account.connections
            each = account.take(now)
            if any(each[1:]) or told:
                counted.append(each)
        if counted:
            self._batch += 1
            await self._add(month_of(self._hub.clock()), counted)

    async def _add(self, month: int, counted: list[Counted]) -> None:
        self._unsent = (month, counted)
        await self._store.add_usage(self._hub.membership.name, self._batch, month, counted)
        self._unsent = None

    async def _note_given(self) -> None:
        while self._given:
            tenant, document_ids = next(iter(self._given.items()))
            await self._store.give_documents(tenant, sorted(document_ids))
            left = self._given[tenant] - document_ids
            if left:
                self._given[tenant] = left
            else:
                del self._given[tenant]

    async def _read(self, accounts: Sequence[Account]) -> None:
        names = [account.tenant for account in accounts]
        found = await self._store.tenants_named(month_of(self._hub.clock()), names)
        now = self._hub.now()
        for account in accounts:
            account.record = found.get(account.tenant, TenantRecord(account.tenant))
            account.read_at = now

    def _drop(self) -> None:
        """Forget accounts that nobody needs."""
        old = self._hub.now() - _KEPT
        for tenant, account in list(self._accounts.items()):
            if not account.rooms and not account.connections and account.used_at < old and self._unsent is None:
                del self._accounts[tenant]

    def _follow(self, account: Account) -> None:
        """Do what follows from how a tenant stands now."""
        standing = self.standing(account)
        before, account.level, account.over = account.level, standing.level, standing.over
        if before is standing.level:
            return
        name = shown_name(account.tenant)
        if standing.level is Level.OK:
            _log.info("tenant %s is within its quotas again", name)
        else:
            what = "edits are not taken" if standing.level is Level.STOPPED else "new sessions are read-only"
            _log.warning("tenant %s is over its quota of %s: %s", name, ", ".join(standing.over), what)
        if standing.level is Level.STOPPED or before is not Level.OK:
            for live in list(self._hub.rooms.values()):
                if live.account is account:
                    for member in list(live.members):
                        self._hub.tasks.spawn(self._apply(live, member), "following a quota")

    async def _apply(self, live: LiveRoom, member: Member) -> None:
        """Let a session write, or not, as the quotas are now."""
        await member.client.follow_quota(member)

    # Measuring

    async def _measure_now(self, account: Account) -> None:
        now = self._hub.now()
        if now < account.measure_after:
            return
        grown, created, began = account.grown, account.created, time.perf_counter()
        measured = await self.book.measure(account.tenant)
        assert measured is not None
        took = time.perf_counter() - began
        account.measure_after = now + max(FLUSH_SECONDS / 2, took * REST)
        if measured[0] or account.record.documents is not None:
            await self._store.note_measured(account.tenant, *measured, self._hub.clock())
        account.grown -= grown
        account.created -= created
        account.record = account.record._replace(documents=measured[0], nbytes=measured[1])

    async def survey(self) -> None:
        """Look at all tenants once in an hour: at those that nobody has open, and those that were there before."""
        while True:
            try:
                await self.book.look_at_all()
            except StoreUnavailable as error:
                _log.debug("tenants are looked at later: %s", error)
            await asyncio.sleep(SURVEY_SECONDS)
