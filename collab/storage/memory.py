"""Documents in the memory of this process: for tests, for trying out, and for simulations of several nodes.

Strategy: :class:`MemoryStorage` stands for the database, :class:`MemoryStore` for one node's connection to it. A
step on the storage is a plain function that does all or nothing before the loop gets another turn, so it needs no
locks: it is a transaction. The way to the storage and back takes turns of the loop, as it does with a database.
What a batch means is read from the same functions as on the databases (:mod:`collab.storage.batch`).
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, DocumentRenamed, StoreRefused
from collab.storage.attributions import KeptAttribution, check_size
from collab.storage.batch import encode_name, make_plan, outcomes, unknown_names
from collab.storage.checksums import is_damaged_snapshot, is_verified
from collab.storage.control import KEPT_SECONDS, MAX_INSTRUCTIONS, PAGE
from collab.storage.membership import FORGET_SECONDS, Heartbeat, Node
from collab.storage.memory_calls import MemoryCalls
from collab.storage.memory_history import KeptHistory, MemoryHistory
from collab.storage.memory_tenants import MemoryTenants
from collab.storage.memory_webhooks import MemoryWebhooks
from collab.storage.metadata import merge_metadata
from collab.storage.producers import MAX_PRODUCERS, PRODUCER_SECONDS, NewProducer, ProducerNumbers
from collab.storage.records import (
    KEEP,
    MAX_ROW_BYTES,
    Append,
    AppendOutcome,
    CallKey,
    CallState,
    ClientOwner,
    DocumentSummary,
    Head,
    Instruction,
    Keep,
    LoadedDocument,
    LogRow,
    NewGuest,
    NewOwner,
    NewRow,
    NodeReport,
    PendingChange,
    PendingUpdate,
    Reports,
    Scalar,
    Snapshot,
    StoredDocument,
    StoredInstruction,
)
from collab.storage.spacing import superfluous
from collab.storage.tenants import Counted, Quota, TenantRecord
from collab.storage.timeline import Page, Summarised
from collab.storage.versions import History, Kind, NewVersion, Reason, Unpinned, Version, history_of
from collab.storage.webhooks import (
    CREATED,
    DELETED,
    ERASED,
    RENAMED,
    RESET,
    RESTORED,
    VERSION_MADE,
    Attempt,
    Delivery,
    Expired,
    Happened,
    Looked,
    ReceiverState,
    Subscription,
)

_Result = TypeVar("_Result")


async def one_turn() -> None:
    """Let everything else on the loop run once."""
    await asyncio.sleep(0)


class MemoryStore:
    """The :class:`~collab.storage.store.Store` in memory; each method is described in its ports.

    It keeps the whole promise as long as the process lives: what was returned for is in the storage, whatever becomes
    of this store. A store is one writer's, so each node of a process gets its own, on one storage::

        storage = MemoryStorage()
        nodes = [create_app(settings, store=MemoryStore(storage)) for _ in range(3)]

    A node that is to die without closing loses its store and keeps the storage; the next one gets a new store on it.

    No call ends within the step of the loop that makes it, as none does on a database: every call but :meth:`close`
    awaits ``travel`` twice, on the way to the storage and on the way back, and is done in one step between the two. So
    a call that is cancelled, or whose ``travel`` raises, was done or not, and an append in that state is repeated with
    the same batch object. Nothing here reads a clock or waits, but through the parameters.

    Args:
        storage: what several stores share; by default this store's own.
        clock: wall-clock time in Unix seconds, for documents that are created without rows.
        travel: awaited on each way, by default one turn of the loop. A simulation may wait here, or raise
            ``StoreUnavailable``: on the way there nothing was done, on the way back everything was.
    """

    def __init__(
        self,
        storage: MemoryStorage | None = None,
        *,
        clock: Callable[[], float] = time.time,
        travel: Callable[[], Awaitable[None]] = one_turn,
    ) -> None:
        self.storage = MemoryStorage() if storage is None else storage
        self._clock = clock
        self._travel = travel
        self._closed = False
        # The batch whose answer has not arrived, and the answer; the list itself, so that its identity stays taken.
        self._doubt: tuple[Sequence[Append], list[AppendOutcome]] | None = None

    async def _call(self, step: Callable[[], _Result]) -> _Result:
        if self._closed:
            raise RuntimeError("the store is closed")
        await self._travel()
        result = step()
        await self._travel()
        return result

    async def open(self) -> None:
        """Do nothing: there is no schema."""
        await self._call(lambda: None)

    async def close(self) -> None:
        """Refuse calls from now on; those under way are finished. The storage stays as it is."""
        self._closed = True

    async def ping(self) -> None:
        """Return: the storage is there."""
        await self._call(lambda: None)

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write a batch in one step."""

        def step() -> list[AppendOutcome]:
            if self._doubt is None or self._doubt[0] is not batch:
                self._doubt = (batch, self.storage.append(batch))
            return self._doubt[1]

        answer = await self._call(step)
        self._doubt = None
        return answer

    async def append_next(self, document_id: int, seq: int, row: NewRow, *, reset: bool = False) -> bool:
        """Write one row if nothing came before it."""

        def step() -> bool:
            written = self.storage.append_next(document_id, seq, row)
            if written and reset:
                self._note(RESET, document_id, changed=True)
            return written

        return await self._call(step)

    async def attend(self) -> None:
        """Do nothing: the storage cannot go back."""
        await self._call(lambda: None)

    async def changed(self) -> bool:
        """Give True: looking costs nothing here."""
        return await self._call(lambda: True)

    @property
    def beat_seconds(self) -> float:
        """Often: it costs nothing here."""
        return 5.0

    async def beat(self, node: Node) -> Heartbeat:
        """Note a heartbeat; the others are of this process, and made on purpose."""
        return Heartbeat(0, await self._call(lambda: self.storage.beat(node, self._clock())))

    async def leave(self, name: str) -> None:
        """Forget a server."""
        await self._call(lambda: self.storage.nodes.pop(name, None))

    async def list_nodes(self) -> list[Node]:
        """List the servers."""
        return await self._call(lambda: self.storage.list_nodes(self._clock()))

    async def load(self, name: str) -> LoadedDocument | None:
        """Read the newest snapshot and the rows after it."""
        return await self._call(lambda: self.storage.load(name))

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``seq``."""
        return await self._call(lambda: self.storage.rows_after(document_id, seq, limit))

    async def heads(self, names: Sequence[str]) -> dict[str, Head]:
        """Read where the logs of documents stand."""
        return await self._call(lambda: self.storage.heads(names))

    async def load_pending(self, document_id: int) -> list[PendingUpdate]:
        """Read the pending updates of a document."""
        return await self._call(lambda: self.storage.load_pending(document_id))

    async def client_owners(self, document_id: int, after: int, limit: int) -> list[ClientOwner]:
        """Give whose client IDs are."""
        return await self._call(lambda: self.storage.client_owners(document_id, after, limit))

    async def guest_names(self, document_id: int, authors: Collection[str] | None = None) -> dict[str, str]:
        """Give what guests are called."""
        return await self._call(lambda: self.storage.guest_names(document_id, authors))

    async def keep_guest(self, document_id: int, guest: NewGuest) -> None:
        """Keep the name of a guest."""
        await self._call(lambda: self.storage.keep_guest(document_id, guest))

    async def producer(self, document_id: int, key: bytes) -> ProducerNumbers | None:
        """Give the highest numbers of a producer."""
        return await self._call(lambda: self.storage.producer(document_id, key))

    async def attribution(self, document_id: int) -> KeptAttribution | None:
        """Give who wrote what in a document."""
        return await self._call(lambda: self.storage.attribution(document_id))

    async def keep_attribution(self, document_id: int, kept: KeptAttribution) -> bool:
        """Keep who wrote what in a document."""
        check_size(kept)
        return await self._call(lambda: self.storage.keep_attribution(document_id, kept))

    async def add_usage(self, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        """Add what a node has counted."""
        await self._call(lambda: self.storage.tenants.add_usage(self._clock(), node, batch, month, counted))

    async def tenants(self, month: int, *, after: str | None = None, limit: int = 100) -> list[TenantRecord]:
        """List tenants."""
        return await self._call(lambda: self.storage.tenants.tenants(self._clock(), month, after, limit))

    async def tenants_named(self, month: int, names: Sequence[str]) -> dict[str, TenantRecord]:
        """Read some tenants."""
        return await self._call(lambda: self.storage.tenants.named(self._clock(), month, names))

    async def set_quota(self, tenant: str, quota: Quota | None) -> None:
        """Replace a tenant's own quotas."""
        await self._call(lambda: self.storage.tenants.set_quota(tenant, quota))

    async def note_measured(self, tenant: str, documents: int, nbytes: int, at: float) -> None:
        """Note what a tenant's documents take."""
        await self._call(lambda: self.storage.tenants.note_measured(tenant, documents, nbytes, at))

    async def give_documents(self, tenant: str, document_ids: Sequence[int]) -> None:
        """Note whose documents are."""
        await self._call(lambda: self.storage.give_documents(tenant, document_ids))

    async def tenant_of(self, document_id: int) -> str | None:
        """Tell whose a document is."""
        return await self._call(lambda: self.storage.tenant_of(document_id))

    async def documents_of(self, tenant: str, after: int, limit: int) -> list[DocumentSummary]:
        """List documents that were given to a tenant."""
        return await self._call(lambda: self.storage.documents_of(tenant, after, limit))

    async def find_gaps(self, document_ids: Sequence[int]) -> set[int]:
        """Find none: nobody removes anything by hand here."""
        return await self._call(set)

    async def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Read what rebuilds the state after row ``seq``."""
        return await self._call(lambda: self.storage.load_at(document_id, seq))

    async def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        """Keep a snapshot unless one as new is there."""
        return await self._call(lambda: self.storage.write_snapshot(document_id, snapshot))

    @asynccontextmanager
    async def claim_snapshot(self, document_id: int) -> AsyncIterator[bool]:
        """Claim the work on the next snapshot."""
        claims = self.storage.claims
        got = await self._call(lambda: document_id not in claims)
        got = got and document_id not in claims  # somebody else may have claimed it on the way back
        if got:
            claims.add(document_id)
        try:
            yield got
        finally:
            if got:
                claims.discard(document_id)

    async def prune(
        self,
        *,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        """Remove what no state since ``before`` needs."""

        def step() -> int:
            self.storage.forget_producers(self._clock() - PRODUCER_SECONDS)
            return self.storage.prune(before, limit, spare, trash_before, histories)

        return await self._call(step)

    async def thin_snapshots(self, *, limit: int, spare: Collection[int] = ()) -> int:
        """Remove snapshots that nobody misses."""
        return await self._call(lambda: self.storage.thin_snapshots(limit, spare))

    async def note_damage(self, document_id: int, *, rows: Sequence[int] = (), snapshots: Sequence[int] = ()) -> None:
        """Note what was found to be damaged."""
        await self._call(lambda: self.storage.note_damage(document_id, rows, snapshots))

    async def create(
        self,
        name: str,
        *,
        gc: bool = True,
        rows: Sequence[NewRow] = (),
        title: str | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        over_tombstone: bool = True,
        call: CallKey | None = None,
    ) -> StoredDocument:
        """Create a document, in the place of a tombstone too."""
        new = StoredDocument(0, name, 0, gc, 0.0, 0.0, title=title, metadata=merge_metadata({}, metadata or {}))

        def step() -> StoredDocument:
            created = self.storage.create(new, rows, over_tombstone, call, self._clock())
            self._note(CREATED, created.id, changed=created.head_seq > 0)
            return created

        return await self._call(step)

    async def delete(self, name: str, at: float) -> int:
        """Set the tombstone."""

        def step() -> int:
            document_id = self.storage.delete(name, at)
            self._note(DELETED, document_id)
            return document_id

        return await self._call(step)

    async def rename(self, name: str, new_name: str, at: float) -> int:
        """Move the name, and leave a tombstone."""

        def step() -> int:
            document_id = self.storage.rename(name, new_name, at)
            self._note(RENAMED, document_id, {"previous": name}, before=(name,))
            return document_id

        return await self._call(step)

    async def instruct(self, instruction: Instruction) -> int:
        """Keep an instruction."""
        return await self._call(lambda: self.storage.instruct(instruction, self._clock()))

    async def instructions(self, after: int) -> list[StoredInstruction]:
        """Give what has not lapsed."""
        return await self._call(lambda: self.storage.instructions(after, self._clock()))

    async def report(self, numbers: Sequence[int], report: NodeReport) -> None:
        """Keep what a node has done."""
        await self._call(lambda: self.storage.report(numbers, report))

    async def answer(self, number: int, node: str, data: bytes) -> None:
        """Keep what a node answers."""
        await self._call(lambda: self.storage.answer(number, node, data))

    async def answers(self, number: int) -> dict[str, bytes]:
        """Give what the nodes have answered."""
        return await self._call(lambda: self.storage.answers(number))

    async def reports(self, number: int) -> Reports:
        """Give what the nodes have done."""
        return await self._call(lambda: self.storage.reports(number, self._clock()))

    async def set_title(self, name: str, title: str | None) -> None:
        """Set the title."""
        await self._call(lambda: self.storage.change(name, title, {}))

    async def change(
        self, name: str, *, title: str | None | Keep = KEEP, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Set the title, and merge own keys."""
        await self._call(lambda: self.storage.change(name, title, metadata or {}))

    async def list_documents(
        self, *, after: str | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents by the bytes of their names."""
        return await self._call(lambda: self.storage.list_documents(after, prefix, limit))

    async def count_documents(self, *, after: str | None = None, prefix: str = "") -> int:
        """Count living documents."""
        return await self._call(lambda: self.storage.count_documents(after, prefix))

    async def list_recent(
        self, *, after: tuple[float, str] | None = None, prefix: str = "", limit: int = 100
    ) -> list[DocumentSummary]:
        """List living documents by the time of their last edit."""
        return await self._call(lambda: self.storage.list_recent(after, prefix, limit))

    async def describe(self, name: str) -> DocumentSummary:
        """Summarise one document."""
        return await self._call(lambda: self.storage.describe(name))

    async def describe_id(self, document_id: int) -> DocumentSummary:
        """Summarise the document with an id."""
        return await self._call(lambda: self.storage.describe_id(document_id))

    async def list_trash(
        self,
        *,
        name: str | None = None,
        prefix: str = "",
        since: float | None = None,
        before: float | None = None,
        after: tuple[float, int] | None = None,
        limit: int = 100,
    ) -> list[DocumentSummary]:
        """List deleted documents that can be restored."""
        return await self._call(lambda: self.storage.list_trash(name, prefix, since, before, after, limit))

    async def restore(self, document_id: int, new_name: str | None = None, *, at: float) -> StoredDocument:
        """Take the tombstone away."""

        def step() -> StoredDocument:
            restored = self.storage.restore(document_id, new_name, at)
            self._note(RESTORED, document_id, changed=True)
            return restored

        return await self._call(step)

    async def erase(self, document_id: int) -> None:
        """Remove all that is kept of a deleted document."""

        def step() -> None:
            found = self.storage.document(document_id)
            self.storage.erase(document_id)
            self.storage.webhooks.erase(document_id)
            if found is not None:
                self.storage.webhooks.note_end(Happened(ERASED, document_id, (found.name,), {}), self._clock())

        await self._call(step)

    async def skeleton(self, name: str) -> bytes | None:
        """Read the skeleton of a name."""
        return await self._call(lambda: self.storage.skeletons.get(encode_name(name)))

    async def replace_skeleton(self, name: str, was: bytes | None, by: bytes) -> bool:
        """Replace the skeleton of a name."""
        return await self._call(lambda: self.storage.replace_skeleton(name, was, by))

    def _note(
        self,
        kind: str,
        document_id: int,
        data: Mapping[str, Any] | None = None,
        *,
        before: tuple[str, ...] = (),
        changed: bool = False,
    ) -> None:
        """Let receivers of webhooks be told what the step does."""
        document = self.storage.document(document_id)
        assert document is not None
        happened = Happened(kind, document_id, (document.name, *before), {"seq": document.head_seq} | dict(data or {}))
        self.storage.webhooks.note(happened, self._clock(), changed=changed)

    async def claim_delivery(self, node: str, seconds: float) -> bool:
        """Take or renew the lease."""
        return await self._call(lambda: self.storage.webhooks.claim(node, seconds, self._clock()))

    async def release_delivery(self, node: str) -> None:
        """End the lease."""
        await self._call(lambda: self.storage.webhooks.release(node))

    async def subscribe(self, node: str, subscriptions: Sequence[Subscription]) -> bool:
        """Keep the receivers."""
        return await self._call(lambda: self.storage.webhooks.subscribe(node, subscriptions, self._clock()))

    async def mark_changed(self, document_ids: Collection[int]) -> None:
        """Mark documents."""
        await self._call(lambda: self.storage.webhooks.mark(document_ids, self._clock()))

    async def mark_missed(self, node: str, after: int, limit: int) -> Looked | None:
        """Mark documents whose head is past their cursor."""
        return await self._call(lambda: self.storage.webhooks.mark_missed(node, after, limit, self._clock()))

    async def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int]) -> int | None:
        """Keep deliveries for documents that were marked."""
        return await self._call(lambda: self.storage.webhooks.tell_changed(node, seconds, limit, busy, self._clock()))

    async def tell_people(self, events: Sequence[Happened]) -> None:
        """Keep deliveries."""
        await self._call(lambda: self.storage.webhooks.tell_people(events, self._clock()))

    async def due(self, receiver: str, limit: int, busy: Collection[int]) -> list[Delivery]:
        """Give deliveries that are to be made."""
        return await self._call(lambda: self.storage.webhooks.due(receiver, limit, busy, self._clock()))

    async def settle(self, node: str, attempts: Sequence[Attempt], disable: Collection[str] = ()) -> bool:
        """Keep what became of attempts."""
        return await self._call(lambda: self.storage.webhooks.settle(node, attempts, disable, self._clock()))

    async def expire(self, node: str, disable_after: float) -> Expired | None:
        """Do what time does."""
        return await self._call(lambda: self.storage.webhooks.expire(node, disable_after, self._clock()))

    async def receivers(self) -> list[ReceiverState]:
        """Tell how receivers stand."""
        return await self._call(self.storage.webhooks.receivers)

    async def deliveries(
        self, *, receiver: str | None = None, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """Give deliveries."""
        return await self._call(lambda: self.storage.webhooks.deliveries(receiver, state, before, limit))

    async def resend(self, number: int) -> Delivery:
        """Let one delivery wait again."""
        return await self._call(lambda: self.storage.webhooks.resend(number, self._clock()))

    async def resend_failed(self, receiver: str, since: float) -> int:
        """Let deliveries wait again."""
        return await self._call(lambda: self.storage.webhooks.resend_failed(receiver, since, self._clock()))

    async def enable_receiver(self, receiver: str) -> None:
        """Enable a receiver."""
        await self._call(lambda: self.storage.webhooks.enable(receiver, self._clock()))

    async def make_version(self, document_id: int, seq: int, new: NewVersion) -> Version:
        """Give a number a name."""

        def step() -> Version:
            version = self.storage.history.make(document_id, seq, new)
            data = {"version": version.id, "name": version.name, "number": version.seq, "author": version.author}
            self._note(VERSION_MADE, document_id, data)
            return version

        return await self._call(step)

    async def make_automatic(
        self, document_id: int, seq: int, reason: Reason, at: float, spacing: float
    ) -> Version | None:
        """Note a number."""
        return await self._call(lambda: self.storage.history.make_automatic(document_id, seq, reason, at, spacing))

    async def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        """Keep a version from elsewhere."""
        return await self._call(lambda: self.storage.history.import_version(document_id, new, state))

    async def versions(
        self,
        document_id: int,
        *,
        kind: Kind | None = None,
        after: tuple[int, float, int] | None = None,
        between: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[Version]:
        """List versions."""
        return await self._call(lambda: self.storage.history.versions(document_id, kind, after, between, limit))

    async def version(self, document_id: int, version_id: int) -> Version:
        """Give one version."""
        return await self._call(lambda: self.storage.history.version(document_id, version_id))

    async def change_version(
        self,
        document_id: int,
        version_id: int,
        *,
        name: str | Keep = KEEP,
        description: str | None | Keep = KEEP,
    ) -> Version:
        """Change the texts of a version."""
        return await self._call(lambda: self.storage.history.change(document_id, version_id, name, description))

    async def delete_version(self, document_id: int, version_id: int) -> None:
        """Forget a version."""
        await self._call(lambda: self.storage.history.delete(document_id, version_id))

    async def load_version(
        self, document_id: int, version_id: int
    ) -> tuple[Version, tuple[Snapshot | None, list[LogRow]]]:
        """Give a version with its state."""
        return await self._call(lambda: self.storage.history.load(document_id, version_id))

    async def unpinned(
        self, *, before: float, histories: Sequence[History] = (), after: int = 0, limit: int = 100
    ) -> list[Unpinned]:
        """List versions that hold up pruning."""
        return await self._call(lambda: self.storage.history.unpinned(before, histories, after, limit))

    async def pin_version(self, document_id: int, version_id: int, state: Snapshot) -> bool:
        """Keep the state of a version."""
        return await self._call(lambda: self.storage.history.pin(document_id, version_id, state))

    async def summarise(
        self, document_id: int, *, now: float, spacing: float | None, limit: int = 1_000
    ) -> Summarised | None:
        """Put the next rows into entries."""
        return await self._call(lambda: self.storage.history.summarise(document_id, now, spacing, limit))

    async def timeline(self, document_id: int, *, before: int | None = None, limit: int = 100) -> Page:
        """Give entries."""
        return await self._call(lambda: self.storage.history.timeline(document_id, before, limit))

    async def unsummarised(self, after: int, limit: int) -> tuple[list[int], int | None]:
        """Find documents with rows in no entry."""
        return await self._call(lambda: self.storage.history.unsummarised(after, limit))

    async def begin_call(self, call: CallKey, request: bytes) -> CallState:
        """Begin a call, or tell what became of it."""
        return await self._call(lambda: self.storage.calls.begin(call, request, self._clock()))

    async def finish_call(self, call: CallKey, status: int, answer: bytes) -> bool:
        """Keep the answer of a call."""
        return await self._call(lambda: self.storage.calls.finish(call, status, answer))

    async def abandon_call(self, call: CallKey) -> None:
        """End an attempt."""
        await self._call(lambda: self.storage.calls.abandon(call))


@dataclass(slots=True)
class _Kept:
    """A document with what is kept of it: rows without a gap and snapshots, both in the order of their numbers."""

    name: bytes  # that which it had, on a tombstone whose name was given away
    document: StoredDocument
    rows: list[LogRow] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    damage: set[tuple[str, int]] = field(default_factory=set)
    pending: dict[bytes, PendingUpdate] = field(default_factory=dict)
    trashed: bool = False
    owners: dict[int, ClientOwner] = field(default_factory=dict)
    producers: dict[bytes, NewProducer] = field(default_factory=dict)
    history: KeptHistory = field(default_factory=KeptHistory)
    attribution: KeptAttribution | None = None
    guests: dict[str, str] = field(default_factory=dict)
    tenant: str | None = None

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return self.document.deleted_at is not None

    def add(self, rows: Sequence[NewRow]) -> None:
        """Add ``rows``, with the next numbers."""
        document = self.document
        self.rows += [LogRow(seq, *row) for seq, row in enumerate(rows, document.head_seq + 1)]
        newest = max([document.updated_at, *(row.at for row in rows)])
        self.document = replace(document, head_seq=document.head_seq + len(rows), updated_at=newest)

    def between(self, after: int, last: int) -> list[LogRow]:
        """Give the rows with numbers above ``after`` up to ``last``, as far as they are kept."""
        pruned = self.document.head_seq - len(self.rows)
        return self.rows[max(after - pruned, 0) : max(last - pruned, 0)]

    def newest_snapshot(self, up_to: int) -> tuple[Snapshot | None, tuple[int, ...]]:
        """Give the newest whole snapshot with a number up to ``up_to``, and the numbers of newer ones."""
        passed_over: list[int] = []
        for snapshot in reversed(self.snapshots):
            if snapshot.seq <= up_to:
                if not is_damaged_snapshot(snapshot):
                    return snapshot, tuple(passed_over)
                passed_over.append(snapshot.seq)
        return None, tuple(passed_over)

    def summary(self) -> DocumentSummary:
        """Count what is kept."""
        head = self.document.head_seq
        snapshot = self.snapshots[-1] if self.snapshots else None
        tail = self.between(snapshot.seq if snapshot else 0, head)
        return DocumentSummary(
            document=self.document,
            snapshot_seq=snapshot.seq if snapshot else 0,
            snapshot_bytes=len(snapshot.data) if snapshot else 0,
            snapshot_at=snapshot.at if snapshot else None,
            tail_rows=len(tail),
            tail_bytes=sum(len(row.data) for row in tail),
            log_rows=len(self.rows),
        )

    def prune(self, before: float, limit: int) -> int:
        """Remove at most ``limit`` rows and snapshots that no state since ``before`` needs; give their number."""
        if self.deleted:
            rows, snapshots, owners = len(self.rows), len(self.snapshots), len(self.owners)
            self.pending.clear()
            self.damage.clear()
            self.producers.clear()
            self.history.clear()
            self.attribution = self.tenant = None
            self.guests.clear()
            self.document = replace(self.document, title=None, metadata={})
        else:
            owners = 0
            head = self.document.head_seq
            last_old = next((row.seq - 1 for row in self.rows if row.at >= before), head)
            whole = [each for each in self.snapshots if is_verified(each.checksum) and not is_damaged_snapshot(each)]
            # Two stay, whatever their age: should one be damaged, the other one and the rows after it say the same.
            needed = self.history.needs()
            last_old = last_old if needed is None else min(last_old, needed)
            base = next((each for each in reversed(whole[:-1]) if each.seq <= last_old), None)
            if base is None or self.damage:
                return 0
            self.history.forget_before(base.seq)
            rows, snapshots = len(self.between(0, base.seq)), self.snapshots.index(base)
        # Rows before snapshots: rows that lost the snapshot before them would rebuild nothing.
        rows = min(rows, limit)
        snapshots = min(snapshots, limit - rows)
        owners = min(owners, limit - rows - snapshots)
        del self.rows[:rows]
        del self.snapshots[:snapshots]
        for client in list(self.owners)[:owners]:
            del self.owners[client]
        return rows + snapshots + owners


class MemoryStorage:
    """What the stores on it share: all documents, with their rows and snapshots.

    Each method is one step of a :class:`MemoryStore`, described in the ports. Names are kept in UTF-8, which is
    how they are compared and ordered.

    Attributes:
        claims: documents of which a store makes a snapshot.
        nodes: servers by their names, as they were with their last heartbeats.
        calls: those that are done once.
        skeletons: by the names that they belong to.
        webhooks: receivers, and what they are still to be told.
        history: what is done with versions and timelines.
        tenants: what they have used.
    """

    def __init__(self) -> None:
        self.claims: set[int] = set()
        self.nodes: dict[str, Node] = {}
        self.calls = MemoryCalls()
        self.webhooks = MemoryWebhooks(self)
        self.history = MemoryHistory(self)
        self.tenants = MemoryTenants()
        self.skeletons: dict[bytes, bytes] = {}
        self._ids: dict[int, _Kept] = {}
        self._names: dict[bytes, _Kept] = {}
        self._sorted: list[bytes] = []
        self._last_id = 0
        self._last_pending = 0
        self._last_instruction = 0
        self._instructions: dict[int, tuple[float, float, Instruction]] = {}  # when it came, and when it lapses
        self._reports: dict[int, dict[str, NodeReport]] = {}
        self._answers: dict[int, dict[str, bytes]] = {}

    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write a batch."""
        # First all that can fail: a batch is written whole or not at all.
        batch = [replace(entry, rows=tuple(map(_as_kept, entry.rows))) for entry in batch]
        names = unknown_names(batch)
        for name, at in names.items():
            if name not in self._names:
                self._add(name, StoredDocument(0, name.decode(), 0, True, at, at))
        living = {name: kept for name in names if not (kept := self._names[name]).deleted}
        plan = make_plan(batch, {name: kept.document.id for name, kept in living.items()})
        heads: dict[int, int] = {}
        for document_id in plan.documents:
            found = self._ids.get(document_id)
            if found is not None and not found.deleted:
                self._add_owners(found, plan.owners(document_id))
                for _, guest in plan.guests(document_id):
                    found.guests.setdefault(guest.author, guest.name)
                self._add_producers(found, plan.producers(document_id))
                found.add(plan.rows(document_id))
                if plan.keeps_deleted(document_id):
                    found.document = replace(found.document, gc=False)
                for position in plan.documents[document_id]:
                    self._change_pending(found, batch[position].pending)
                heads[document_id] = found.document.head_seq
        return outcomes(plan, heads)

    def document(self, document_id: int) -> StoredDocument | None:
        """Give a document or a tombstone."""
        kept = self._ids.get(document_id)
        return None if kept is None else kept.document

    def kept(self, document_id: int) -> _Kept | None:
        """Give all that is kept of a document or a tombstone."""
        return self._ids.get(document_id)

    def all_kept(self) -> list[_Kept]:
        """Give all documents and tombstones in the order of their ids."""
        return list(self._ids.values())

    def ids_after(self, document_id: int, limit: int) -> list[int]:
        """Give the ids of documents above ``document_id``, in order."""
        return [each for each in self._ids if each > document_id][:limit]

    def rows_of(self, document_id: int, after: int, last: int) -> list[LogRow]:
        """Give the rows with numbers above ``after`` up to ``last``, as far as they are kept."""
        kept = self._ids.get(document_id)
        return [] if kept is None else kept.between(after, last)

    def append_next(self, document_id: int, seq: int, row: NewRow) -> bool:
        """Write one row if nothing came before it."""
        if len(row.data) > MAX_ROW_BYTES:
            raise StoreRefused(f"{len(row.data)} bytes at once are more than the store takes ({MAX_ROW_BYTES})")
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted or kept.document.head_seq != seq:
            return False
        kept.add([_as_kept(row)])
        return True

    def beat(self, node: Node, now: float) -> list[Node]:
        """Note a heartbeat; give all servers."""
        known = self.nodes.get(node.name)
        self.nodes[node.name] = node._replace(since=now if known is None else known.since, beat_at=now)
        self.nodes = {name: each for name, each in self.nodes.items() if now - each.beat_at < FORGET_SECONDS}
        return self.list_nodes(now)

    def list_nodes(self, now: float) -> list[Node]:
        """Give the servers in the order in which they came."""
        found = [node._replace(silent=max(0.0, now - node.beat_at)) for node in self.nodes.values()]
        return sorted(found, key=lambda node: (node.since, node.name))

    def load(self, name: str) -> LoadedDocument | None:
        """Give the newest snapshot and the rows after it."""
        kept = self._names.get(encode_name(name))
        if kept is None:
            return None
        _require_living(kept)
        head = kept.document.head_seq
        snapshot, passed_over = kept.newest_snapshot(head)
        rows = kept.between(snapshot.seq if snapshot else 0, head)
        return LoadedDocument(kept.document, snapshot, rows, passed_over, tuple(kept.pending.values()))

    def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Give up to ``limit`` rows with numbers above ``seq``."""
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted:
            return []
        return kept.between(seq, kept.document.head_seq)[: max(limit, 0)]

    def heads(self, names: Sequence[str]) -> dict[str, Head]:
        """Give where the logs of documents stand."""
        found = ((name, self._names.get(encode_name(name))) for name in names)
        return {
            name: Head(
                kept.document.id,
                kept.document.head_seq,
                kept.deleted,
                sum([update.number for update in kept.pending.values()]),
                kept.document.renamed_to,
            )
            for name, kept in found
            if kept is not None
        }

    def load_pending(self, document_id: int) -> list[PendingUpdate]:
        """Give the pending updates of a document."""
        kept = self._ids.get(document_id)
        return [] if kept is None or kept.deleted else list(kept.pending.values())

    def client_owners(self, document_id: int, after: int, limit: int) -> list[ClientOwner]:
        """Give whose client IDs are."""
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted:
            return []
        return [kept.owners[client] for client in sorted(kept.owners) if client > after][:limit]

    def guest_names(self, document_id: int, authors: Collection[str] | None) -> dict[str, str]:
        """Give what guests are called."""
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted:
            return {}
        return {author: name for author, name in kept.guests.items() if authors is None or author in authors}

    def keep_guest(self, document_id: int, guest: NewGuest) -> None:
        """Keep the name of a guest."""
        kept = self._ids.get(document_id)
        if kept is not None and not kept.deleted:
            kept.guests.setdefault(guest.author, guest.name)

    def producer(self, document_id: int, key: bytes) -> ProducerNumbers | None:
        """Give the highest numbers of a producer."""
        kept = self._ids.get(document_id)
        found = None if kept is None or kept.deleted else kept.producers.get(key)
        return None if found is None else ProducerNumbers(found.epoch, found.seq)

    def attribution(self, document_id: int) -> KeptAttribution | None:
        """Give who wrote what in a document."""
        kept = self._ids.get(document_id)
        return None if kept is None or kept.deleted else kept.attribution

    def keep_attribution(self, document_id: int, made: KeptAttribution) -> bool:
        """Keep an attribution that is newer than the one there."""
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted or made.seq > kept.document.head_seq:
            return False
        if kept.attribution is not None and kept.attribution.seq >= made.seq:
            return False
        kept.attribution = made
        return True

    def give_documents(self, tenant: str, document_ids: Sequence[int]) -> None:
        """Note whose documents are that belong to nobody."""
        for document_id in document_ids:
            kept = self._ids.get(document_id)
            if kept is not None and kept.tenant is None:
                kept.tenant = tenant

    def tenant_of(self, document_id: int) -> str | None:
        """Tell whose a document is."""
        kept = self._ids.get(document_id)
        return None if kept is None else kept.tenant

    def documents_of(self, tenant: str, after: int, limit: int) -> list[DocumentSummary]:
        """List living documents that were given to a tenant."""
        given = [each for each in self._ids.values() if each.tenant == tenant and not each.deleted]
        return [each.summary() for each in given if each.document.id > after][:limit]

    def _add_producers(self, kept: _Kept, producers: Sequence[NewProducer]) -> None:
        for producer in producers:
            before = kept.producers.get(producer.key)
            if before is None or producer.numbers > before.numbers:
                kept.producers[producer.key] = producer
        if len(kept.producers) > MAX_PRODUCERS:
            oldest = sorted(kept.producers.values(), key=lambda each: each.at)
            for producer in oldest[: len(oldest) - MAX_PRODUCERS]:
                del kept.producers[producer.key]

    def forget_producers(self, before: float) -> None:
        """Forget the numbers of producers that were used last before a time."""
        for kept in self._ids.values():
            kept.producers = {key: each for key, each in kept.producers.items() if each.at >= before}

    def _add_owners(self, kept: _Kept, owners: Sequence[tuple[int, NewOwner]]) -> None:
        """Keep whose client IDs are, before the rows are added among which they have places."""
        for place, (client, author, at, clock, _) in owners:
            seq = kept.document.head_seq + place
            kept.owners.setdefault(client, ClientOwner(client, author, round(at * 1e6) / 1e6, clock, seq))

    def _change_pending(self, kept: _Kept, change: PendingChange | None) -> None:
        if change is None:
            return
        for key in change.settled:
            kept.pending.pop(key, None)
        for update in change.added:
            if update.key not in kept.pending:
                self._last_pending += 1
                at = round(update.at * 1e6) / 1e6
                kept.pending[update.key] = update._replace(data=bytes(update.data), at=at, number=self._last_pending)

    def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Give the newest snapshot up to ``seq``, and the rows from there to it."""
        kept = self._ids.get(document_id)
        if kept is None:
            return None
        snapshot, _ = kept.newest_snapshot(seq)
        base = snapshot.seq if snapshot else 0
        rows = kept.between(base, seq)
        return (snapshot, rows) if len(rows) == seq - base else None

    def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        """Keep a snapshot unless one as new is there."""
        if max(len(snapshot.data), len(snapshot.index), len(snapshot.state_vector)) > MAX_ROW_BYTES:
            raise StoreRefused(f"a snapshot of {len(snapshot.data)} bytes is more than the store takes")
        kept = self._ids.get(document_id)
        if kept is None or kept.deleted or kept.document.head_seq < snapshot.seq:
            return False
        if kept.snapshots and kept.snapshots[-1].seq >= snapshot.seq:
            return False
        kept.snapshots.append(snapshot)
        return True

    def create(
        self, new: StoredDocument, rows: Sequence[NewRow], over_tombstone: bool, call: CallKey | None, now: float
    ) -> StoredDocument:
        """Create a document as ``new`` says, taking its name from a tombstone."""
        size = sum(len(row.data) for row in rows)
        if size > MAX_ROW_BYTES:
            raise StoreRefused(f"{size} bytes at once are more than the store takes ({MAX_ROW_BYTES})")
        encoded = encode_name(new.name)
        found = self._names.get(encoded)
        if found is not None and not found.deleted:
            raise DocumentExists(f"document {new.name!r} exists")
        if found is not None and not over_tombstone:
            _require_living(found)
        if call is not None:
            self.calls.check(call)
        rows = [_as_kept(row) for row in rows]
        at = rows[0].at if rows else now
        kept = self._add(encoded, replace(new, created_at=at, updated_at=at))
        kept.add(rows)
        if call is not None:
            self.calls.note_created(call, kept.document.id)
        return kept.document

    def delete(self, name: str, at: float) -> int:
        """Set the tombstone."""
        kept = self._names.get(encode_name(name))
        if kept is None or kept.deleted:
            raise DocumentNotFound(f"there is no document {name!r}")
        kept.document, kept.trashed = replace(kept.document, deleted_at=at), True
        return kept.document.id

    def list_trash(
        self,
        name: str | None,
        prefix: str,
        since: float | None,
        before: float | None,
        after: tuple[float, int] | None,
        limit: int,
    ) -> list[DocumentSummary]:
        """Give what is in the trash, what was deleted last first."""
        beginning, exactly = encode_name(prefix), None if name is None else encode_name(name)
        found: list[tuple[float, int, _Kept]] = []
        for kept in self._ids.values():
            at = kept.document.deleted_at
            if (
                kept.trashed
                and at is not None
                and kept.name.startswith(beginning)
                and exactly in (None, kept.name)
                and (since is None or at >= since)
                and (before is None or at < before)
                and (after is None or (at, kept.document.id) < after)
            ):
                found.append((at, kept.document.id, kept))
        found.sort(reverse=True)
        return [kept.summary() for _, _, kept in found[:limit]]

    def restore(self, document_id: int, new_name: str | None, at: float) -> StoredDocument:
        """Take the tombstone away, and free the name of others."""
        kept = self._ids.get(document_id)
        if kept is None or not kept.trashed:
            raise DocumentNotFound(f"no document with the id {document_id} is in the trash")
        name = kept.document.name if new_name is None else new_name
        encoded, old = encode_name(name), kept.name
        there = self._names.get(encoded)
        if there is not None and not there.deleted:
            raise DocumentExists(f"document {name!r} exists")
        if there is None:
            insort(self._sorted, encoded)
        had_its_name = self._names.get(old) is kept
        kept.name, kept.trashed = encoded, False
        kept.document = replace(kept.document, name=name, deleted_at=None)
        self._names[encoded] = kept
        if had_its_name and old != encoded:
            self._leave_tombstone(old, document_id, at)
        return kept.document

    def erase(self, document_id: int) -> None:
        """Remove all that is kept of a deleted document."""
        kept = self._ids.get(document_id)
        if kept is None:
            raise DocumentNotFound(f"there is no document with the id {document_id}")
        if not kept.deleted:
            raise DocumentExists(f"the document with the id {document_id} lives: delete it first")
        kept.trashed = False
        kept.prune(0.0, len(kept.rows) + len(kept.snapshots) + len(kept.owners))
        self.calls.erase(document_id)
        self._forget_nameless(kept)

    def replace_skeleton(self, name: str, was: bytes | None, by: bytes) -> bool:
        """Replace a skeleton if it is the one that is known."""
        encoded = encode_name(name)
        if self.skeletons.get(encoded) != was:
            return False
        self.skeletons[encoded] = bytes(by)
        return True

    def rename(self, name: str, new_name: str, at: float) -> int:
        """Move the name, and leave a tombstone."""
        encoded = encode_name(new_name)
        kept = self._find(name)
        there = self._names.get(encoded)
        if there is not None and not there.deleted:
            raise DocumentExists(f"document {new_name!r} exists")
        old = kept.name
        if there is None:
            insort(self._sorted, encoded)
        kept.name, kept.document = encoded, replace(kept.document, name=new_name)
        self._names[encoded] = kept
        self._leave_tombstone(old, kept.document.id, at)
        return kept.document.id

    def _leave_tombstone(self, name: bytes, document_id: int, at: float) -> None:
        """Leave a tombstone under the name, which is there, of a document that has another one now."""
        self._add(name, StoredDocument(0, name.decode(), 0, True, at, at, at, renamed_to=document_id))

    def instruct(self, instruction: Instruction, now: float) -> int:
        """Keep an instruction; forget what has lapsed."""
        for number in [number for number, (_, lapses, _) in self._instructions.items() if lapses <= now]:
            del self._instructions[number]
            self._reports.pop(number, None)
            self._answers.pop(number, None)
        if len(self._instructions) >= MAX_INSTRUCTIONS:
            raise StoreRefused(f"{MAX_INSTRUCTIONS} instructions of the last minutes are kept already")
        if instruction.document is not None:
            encode_name(instruction.document)
        self._last_instruction += 1
        lapses = now + max(KEPT_SECONDS, instruction.seconds)
        self._instructions[self._last_instruction] = (now, lapses, instruction)
        return self._last_instruction

    def instructions(self, after: int, now: float) -> list[StoredInstruction]:
        """Give what has not lapsed, in the order of the numbers."""
        found = [
            StoredInstruction(number, max(0.0, now - at), lapses - now, instruction)
            for number, (at, lapses, instruction) in self._instructions.items()
            if number > after and lapses > now
        ]
        return found[:PAGE]

    def report(self, numbers: Sequence[int], report: NodeReport) -> None:
        """Keep what a node has done."""
        for number in numbers:
            if number in self._instructions:
                self._reports.setdefault(number, {})[report.node] = report

    def answer(self, number: int, node: str, data: bytes) -> None:
        """Keep what a node answers."""
        if number in self._instructions:
            self._answers.setdefault(number, {})[node] = data

    def answers(self, number: int) -> dict[str, bytes]:
        """Give what the nodes have answered, in the order of their names."""
        return dict(sorted(self._answers.get(number, {}).items()))

    def reports(self, number: int, now: float) -> Reports:
        """Give what the nodes have done, and who lives and has done nothing."""
        found = self._reports.get(number, {})
        silent = [node.name for node in self.list_nodes(now) if node.alive and node.name not in found]
        return Reports(tuple(sorted(found.values())), tuple(sorted(silent)))

    def change(self, name: str, title: str | None | Keep, metadata: Mapping[str, object]) -> None:
        """Set the title, and merge own keys."""
        kept = self._find(name)
        merged = merge_metadata(kept.document.metadata, metadata)
        kept.document = replace(kept.document, metadata=merged)
        if not isinstance(title, Keep):
            kept.document = replace(kept.document, title=title)

    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        """List living documents in the order of their names."""
        return [kept.summary() for kept in islice(self._behind(after, prefix), limit)]

    def count_documents(self, after: str | None, prefix: str) -> int:
        """Count them."""
        return sum(1 for _ in self._behind(after, prefix))

    def _behind(self, after: str | None, prefix: str) -> Iterator[_Kept]:
        encoded = encode_name(prefix)
        begin = bisect_left(self._sorted, encoded)
        if after is not None:
            begin = max(begin, bisect_right(self._sorted, encode_name(after)))
        for position in range(begin, len(self._sorted)):
            name = self._sorted[position]
            if not name.startswith(encoded):
                break
            kept = self._names[name]
            if not kept.deleted:
                yield kept

    def list_recent(self, after: tuple[float, str] | None, prefix: str, limit: int) -> list[DocumentSummary]:
        """List living documents, those that were edited last first."""

        def place(at: float, name: bytes) -> tuple[float, bytes]:
            return -at, name

        encoded = encode_name(prefix)
        found = [(place(kept.document.updated_at, kept.name), kept) for kept in self._names.values()]
        begin = None if after is None else place(after[0], encode_name(after[1]))
        chosen = [
            (where, kept)
            for where, kept in found
            if not kept.deleted and kept.name.startswith(encoded) and (begin is None or where > begin)
        ]
        return [kept.summary() for _, kept in sorted(chosen, key=lambda each: each[0])[:limit]]

    def describe(self, name: str) -> DocumentSummary:
        """Summarise one document."""
        return self._find(name).summary()

    def describe_id(self, document_id: int) -> DocumentSummary:
        """Summarise the document with an id."""
        kept = self._ids.get(document_id)
        if kept is None or self._names[kept.name] is not kept:
            raise DocumentNotFound(f"there is no document with the id {document_id}")
        _require_living(kept)
        return kept.summary()

    def thin_snapshots(self, limit: int, spare: Collection[int] = ()) -> int:
        """Remove at most ``limit`` snapshots that nobody misses."""
        removed = 0
        for kept in self._ids.values():
            whole = all(is_verified(each.checksum) for each in kept.snapshots)
            if kept.damage or not whole or kept.document.id in spare:
                continue

            def bytes_between(after: int, last: int, kept: _Kept = kept) -> int:
                return sum(len(row.data) for row in kept.between(after, last))

            sizes = [(each.seq, len(each.data)) for each in kept.snapshots]
            gone = superfluous(sizes, bytes_between)[: limit - removed]
            kept.snapshots = [each for each in kept.snapshots if each.seq not in gone]
            removed += len(gone)
        return removed

    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        """Remove at most ``limit`` rows and snapshots, document by document in the order of their ids."""
        removed = 0
        for kept in list(self._ids.values()):
            if removed >= limit:
                break
            if kept.document.id in spare:
                continue
            deleted_at = kept.document.deleted_at
            if kept.trashed and deleted_at is not None and deleted_at >= trash_before:
                continue
            kept.trashed = False
            removed += kept.prune(history_of(kept.document.name, before, histories), limit - removed)
            self._forget_nameless(kept)
        return removed

    def _forget_nameless(self, kept: _Kept) -> None:
        """Forget a tombstone whose name was given away: it has done its work when its content is gone."""
        if kept.deleted and not (kept.rows or kept.snapshots or kept.owners or self._names[kept.name] is kept):
            del self._ids[kept.document.id]

    def note_damage(self, document_id: int, rows: Sequence[int], snapshots: Sequence[int]) -> None:
        """Note what was found to be damaged."""
        kept = self._ids.get(document_id)
        if kept is not None:
            kept.damage |= {("row", seq) for seq in rows} | {("snapshot", seq) for seq in snapshots}

    def _find(self, name: str) -> _Kept:
        kept = self._names.get(encode_name(name))
        if kept is None:
            raise DocumentNotFound(f"there is no document {name!r}")
        _require_living(kept)
        return kept

    def _add(self, name: bytes, document: StoredDocument) -> _Kept:
        """Keep a new document under an id that no other had."""
        self._last_id += 1
        kept = _Kept(name, replace(document, id=self._last_id))
        self._ids[self._last_id] = kept
        if name not in self._names:
            insort(self._sorted, name)
        self._names[name] = kept
        return kept


def _as_kept(row: NewRow) -> NewRow:
    """Give a row with the precision in which it is kept, and with bytes that nobody else can change."""
    return NewRow(bytes(row.data), round(row.at * 1e6) / 1e6, row.author, row.checksum, row.note)


def _require_living(kept: _Kept) -> None:
    if kept.document.renamed_to is not None:
        raise DocumentRenamed(f"document {kept.document.name!r} was renamed")
    if kept.deleted:
        raise DocumentDeleted(f"document {kept.document.name!r} is deleted")
