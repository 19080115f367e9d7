"""Stores that break one promise each: what the conformance suite must find.

Strategy: each is the memory store with one mistake that somebody could make on a real database, and names the tests
that find it. Together they name every test of the suite, so each of them can fail.
"""

from __future__ import annotations

import asyncio
import fnmatch
import math
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from collab.errors import DocumentExists, DocumentNotFound, StoreRefused, StoreUnavailable
from collab.storage.attributions import KeptAttribution
from collab.storage.checksums import is_damaged, row_checksum
from collab.storage.membership import Node
from collab.storage.memory import MemoryStorage, MemoryStore, _Kept
from collab.storage.memory_calls import MemoryCalls
from collab.storage.memory_history import KeptHistory, MemoryHistory
from collab.storage.memory_tenants import MemoryTenants
from collab.storage.memory_webhooks import MemoryWebhooks
from collab.storage.producers import MAX_PRODUCERS, NewProducer, ProducerNumbers
from collab.storage.records import (
    Append,
    Appended,
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
    Snapshot,
    StoredDocument,
    StoredInstruction,
)
from collab.storage.tenants import Counted, Quota, TenantRecord
from collab.storage.timeline import Entry, Page, Summarised
from collab.storage.versions import History, Kind, NewVersion, Reason, Unpinned, Version
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    RESTORED,
    Attempt,
    Delivery,
    Expired,
    Happened,
    Looked,
    Subscription,
)

BROKEN: list[tuple[type[MemoryStorage] | type[MemoryStore], str]] = []
"""Each broken store with a test that finds it."""

_Class = TypeVar("_Class", bound=type[MemoryStorage] | type[MemoryStore])


def found_by(*tests: str) -> Callable[[_Class], _Class]:
    """Note the tests of the suite that find a store."""

    def note(cls: _Class) -> _Class:
        BROKEN.extend((cls, test) for test in tests)
        return cls

    return note


def make(broken: type[MemoryStorage] | type[MemoryStore]) -> Callable[[], MemoryStore]:
    """Give the suite's ``make_store``."""
    storage = broken() if issubclass(broken, MemoryStorage) else MemoryStorage()
    store = broken if issubclass(broken, MemoryStore) else MemoryStore
    return lambda: store(storage)


# Guests.


@found_by("test_names_of_guests_are_kept_for_each_document", "test_many_guests_in_one_batch")
class ForgetsGuestsOfAppends(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append([replace(entry, guests=()) for entry in batch])


@found_by("test_first_name_of_a_guest_stays")
class KeepsTheLastNameOfAGuest(MemoryStorage):
    def keep_guest(self, document_id: int, guest: NewGuest) -> None:
        kept = self._ids.get(document_id)
        if kept is not None:
            kept.guests.pop(guest.author, None)
        super().keep_guest(document_id, guest)


@found_by("test_names_of_guests_outlive_rows_and_go_with_their_document")
class KeepsGuestsOfErasedDocuments(MemoryStorage):
    def guest_names(self, document_id: int, authors: Collection[str] | None) -> dict[str, str]:
        return dict(self._ids[document_id].guests) if document_id in self._ids else {}


# Authorship.


@found_by("test_rows_keep_their_notes")
class ForgetsNotes(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(_with_rows(batch, lambda row: row._replace(note=None)))


def _with_owners(
    batch: Sequence[Append], change: Callable[[tuple[NewOwner, ...]], tuple[NewOwner, ...]]
) -> list[Append]:
    return [replace(entry, owners=change(entry.owners)) for entry in batch]


@found_by("test_owners_are_kept_with_the_numbers_of_their_rows")
class CutsClientIds(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        def cut(owners: tuple[NewOwner, ...]) -> tuple[NewOwner, ...]:
            return tuple(owner._replace(client=owner.client & 0xFFFFFFFF) for owner in owners)

        return super().append(_with_owners(batch, cut))


@found_by("test_owners_are_kept_with_the_numbers_of_their_rows")
class NumbersOwnersByTheFirstRow(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        def first(owners: tuple[NewOwner, ...]) -> tuple[NewOwner, ...]:
            return tuple(owner._replace(row=0) for owner in owners)

        return super().append(_with_owners(batch, first))


@found_by("test_many_owners_of_many_documents_in_one_batch")
class KeepsSomeOwners(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(_with_owners(batch, lambda owners: owners[:16]))


@found_by("test_first_owner_of_a_client_id_stays", "test_of_two_stores_at_once_the_first_commit_decides")
class LastOwnerStays(MemoryStorage):
    def _add_owners(self, kept: _Kept, owners: Sequence[tuple[int, NewOwner]]) -> None:
        for _, owner in owners:
            kept.owners.pop(owner.client, None)
        super()._add_owners(kept, owners)


@found_by("test_repeat_of_an_append_that_was_cut_off_keeps_its_owners")
class LosesOwnersOfRepeats(MemoryStore):
    _last: Sequence[Append] | None = None

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        if batch is self._last:
            return await super().append(_with_owners(batch, lambda owners: ()))
        self._last = batch
        return await super().append(batch)


@found_by("test_owners_outlive_rows_snapshots_and_names")
class PrunesOwnersWithTheirRows(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        removed = super().prune(before, limit, spare, trash_before, histories)
        for kept in self._ids.values():
            oldest = kept.rows[0].seq if kept.rows else 0
            kept.owners = {client: owner for client, owner in kept.owners.items() if owner.seq >= oldest}
        return removed


@found_by("test_owners_come_back_with_a_document_that_is_restored")
class ForgetsOwnersOfTheTrash(MemoryStorage):
    def delete(self, name: str, at: float) -> int:
        document_id = super().delete(name, at)
        self._ids[document_id].owners.clear()
        return document_id


@found_by("test_nothing_is_left_to_prune_of_a_document_with_owners_that_was_erased")
class ErasesNoOwners(MemoryStorage):
    def erase(self, document_id: int) -> None:
        owners = dict(self._ids[document_id].owners)
        super().erase(document_id)
        self._ids[document_id].owners |= owners


@found_by("test_owners_go_with_their_document")
class LeavesOwnersOfDeletedDocuments(MemoryStorage):
    def client_owners(self, document_id: int, after: int, limit: int) -> list[ClientOwner]:
        kept = self._ids.get(document_id)
        return [] if kept is None else list(kept.owners.values())[:limit]


# Producers.


@found_by("test_numbers_of_producers_are_kept_with_the_rows", "test_numbers_of_what_was_refused_are_not_kept")
class KeepsProducersOfAllDocumentsTogether(MemoryStorage):
    def producer(self, document_id: int, key: bytes) -> ProducerNumbers | None:
        found = [kept.producers[key] for kept in self._ids.values() if key in kept.producers]
        return ProducerNumbers(*found[-1].numbers) if found else None


@found_by(
    "test_numbers_of_a_producer_never_become_lower", "test_of_two_stores_that_count_at_once_the_higher_number_stays"
)
class LastNumbersStay(MemoryStorage):
    def _add_producers(self, kept: _Kept, producers: Sequence[NewProducer]) -> None:
        for producer in producers:
            kept.producers.pop(producer.key, None)
        kept.producers |= {producer.key: producer for producer in reversed(producers)}
        if len(producers) == 1 and producers[0].seq % 2:
            kept.producers[producers[0].key] = producers[0]._replace(seq=producers[0].seq - 1)


@found_by("test_repeat_of_an_append_that_was_cut_off_keeps_its_numbers")
class LosesNumbersOfRepeats(MemoryStore):
    _last: Sequence[Append] | None = None

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        if self._last is None or batch is not self._last:
            self._last = batch
            await asyncio.sleep(0)
            return await super().append(batch)
        return await super().append([replace(entry, producers=()) for entry in batch])


@found_by("test_producers_of_a_document_are_bounded_and_those_that_were_used_last_stay")
class KeepsAnyNumberOfProducers(MemoryStorage):
    def _add_producers(self, kept: _Kept, producers: Sequence[NewProducer]) -> None:
        for producer in producers:
            kept.producers[producer.key] = producer


@found_by("test_a_producer_that_is_used_stays")
class ForgetsThoseThatCameFirst(MemoryStorage):
    def _add_producers(self, kept: _Kept, producers: Sequence[NewProducer]) -> None:
        for producer in producers:
            kept.producers[producer.key] = producer
        while len(kept.producers) > MAX_PRODUCERS:
            del kept.producers[next(iter(kept.producers))]


@found_by("test_producers_that_nobody_uses_are_forgotten")
class ForgetsNoProducers(MemoryStorage):
    def forget_producers(self, before: float) -> None:
        pass


@found_by("test_producers_go_with_their_document")
class ForgetsProducersOfTheTrash(MemoryStorage):
    def delete(self, name: str, at: float) -> int:
        document_id = super().delete(name, at)
        self._ids[document_id].producers.clear()
        return document_id


# Rows and their numbers.


@found_by("test_the_newest_attribution_of_a_document_is_kept", "test_an_attribution_outlives_rows_snapshots_and_names")
class KeepsTheLastAttributionOnly(MemoryStorage):
    def keep_attribution(self, document_id: int, made: KeptAttribution) -> bool:
        for kept in self._ids.values():
            kept.attribution = None
        return super().keep_attribution(document_id, made) and made.seq != 5


@found_by("test_of_two_stores_that_keep_an_attribution_at_once_the_newest_stays")
class KeepsTheAttributionThatCameLast(MemoryStorage):
    def keep_attribution(self, document_id: int, made: KeptAttribution) -> bool:
        if document_id in self._ids:
            self._ids[document_id].attribution = None
        return super().keep_attribution(document_id, made)


@found_by("test_an_attribution_goes_with_its_document")
class KeepsAttributionsOfTheDead(MemoryStorage):
    def attribution(self, document_id: int) -> KeptAttribution | None:
        kept = self._ids.get(document_id)
        return None if kept is None else kept.attribution


@found_by("test_an_attribution_may_be_too_long")
class KeepsAttributionsOfAnyLength(MemoryStore):
    async def keep_attribution(self, document_id: int, kept: KeptAttribution) -> bool:
        return await self._call(lambda: self.storage.keep_attribution(document_id, kept))


@found_by("test_a_row_is_written_behind_a_known_one_alone", "test_of_those_who_write_behind_one_row_one_does")
class WritesBehindWhateverIsThere(MemoryStorage):
    def append_next(self, document_id: int, seq: int, row: NewRow) -> bool:
        kept = self._ids.get(document_id)
        return kept is not None and super().append_next(document_id, kept.document.head_seq, row)


@found_by("test_the_time_of_a_row_behind_a_known_one_counts")
class ForgetsTheTimeOfARow(MemoryStorage):
    def append_next(self, document_id: int, seq: int, row: NewRow) -> bool:
        written = super().append_next(document_id, seq, row)
        kept = self._ids[document_id]
        kept.document = replace(kept.document, updated_at=0.0)
        return written


@found_by("test_a_row_behind_a_known_one_may_be_too_large")
class TakesARowOfAnySize(MemoryStorage):
    def append_next(self, document_id: int, seq: int, row: NewRow) -> bool:
        return super().append_next(document_id, seq, row._replace(data=row.data[:10]))


@found_by("test_first_append_creates_the_document_and_numbers_from_one")
class CountsFromZero(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return [_shifted(outcome, -1) for outcome in super().append(batch)]


@found_by("test_entries_of_one_document_in_a_batch_keep_their_order", "test_two_stores_writing_at_once_leave_no_gap")
class CountsAllDocumentsTogether(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = []
        for entry in batch:
            highest = max((kept.document.head_seq for kept in self._ids.values()), default=0)
            for kept in self._ids.values():
                kept.document = replace(kept.document, head_seq=highest)
            outcomes += super().append([entry])
        return outcomes


@found_by("test_rows_keep_bytes_time_and_author")
class EndsTextsAtNul(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(
            _with_rows(batch, lambda row: row._replace(author=row.author and row.author.split("\0")[0]))
        )


@found_by("test_rows_keep_bytes_time_and_author")
class KeepsMilliseconds(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(_with_rows(batch, lambda row: row._replace(at=round(row.at, 3))))


@found_by("test_entries_of_one_document_in_a_batch_keep_their_order")
class WritesKnownDocumentsFirst(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        order = sorted(range(len(batch)), key=lambda position: batch[position].document_id is None)
        outcomes = super().append([batch[position] for position in order])
        return [outcomes[order.index(position)] for position in range(len(batch))]


@found_by("test_batch_of_many_documents")
class WritesSoManyDocumentsAtMost(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = super().append(batch[:256])
        return outcomes + [Appended(1_000 + position, 1, 1) for position in range(256, len(batch))]


@found_by("test_empty_batch_writes_nothing")
class FailsOnAnEmptyBatch(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        if not batch:
            raise StoreUnavailable("syntax error near VALUES ()")
        return super().append(batch)


@found_by("test_an_id_that_no_document_has_is_met_as_deleted", "test_created_anew_the_old_id_stays_dead")
class GoesByTheNameInTheEnd(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        living = {i for i, kept in self._ids.items() if not kept.deleted}
        return super().append(
            [entry if entry.document_id in living else replace(entry, document_id=None) for entry in batch]
        )


@found_by("test_rows_are_read_from_a_number_on")
class ReadsFromTheNumberItself(MemoryStorage):
    def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        return super().rows_after(document_id, seq - 1, limit)


@found_by("test_long_tail_is_read_whole_and_in_order")
class ReadsOnePage(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        loaded = super().load(name)
        return loaded and replace(loaded, rows=loaded.rows[:1_000])


@found_by("test_large_row_comes_back_exactly")
class CutsLargeRows(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(_with_rows(batch, lambda row: row._replace(data=row.data[:65_535])))


# Durable, and one truth for all.


@found_by("test_what_was_returned_for_is_there_for_a_store_that_is_opened_later")
class LosesTheLastRow(MemoryStore):
    """The buffer is not written when the store is closed."""

    async def close(self) -> None:
        for kept in self.storage._ids.values():
            if kept.rows:
                kept.rows.pop()
                kept.document = replace(kept.document, head_seq=kept.document.head_seq - 1)
        await super().close()


@found_by(
    "test_what_was_returned_for_is_there_for_a_store_that_is_opened_later",
    "test_what_one_store_was_told_another_one_reads",
)
class KeepsToItself(MemoryStore):
    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(MemoryStorage())


@found_by("test_what_one_store_was_told_another_one_reads", "test_append_meets_the_tombstone")
class RemembersWhatItRead(MemoryStore):
    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(storage)
        self.read: dict[str, LoadedDocument | None] = {}

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = await super().append(batch)
        for entry in batch:
            if "\ud83d" not in entry.name and not entry.name.startswith("gone"):
                self.read.pop(entry.name, None)
                await self.load(entry.name)
        return outcomes

    async def load(self, name: str) -> LoadedDocument | None:
        if name not in self.read:
            self.read[name] = await super().load(name)
        return self.read[name]


@found_by("test_numbers_become_visible_in_order")
class CommitsInAnyOrder(MemoryStorage):
    """Numbers come from a sequence, and who took the lower one may commit later."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[int] = set()

    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = super().append(batch)
        for outcome in outcomes:
            if isinstance(outcome, Appended) and outcome.last_seq % 2 == 0:
                self.hidden.add(outcome.last_seq)
                asyncio.get_running_loop().call_later(0.002, self.hidden.discard, outcome.last_seq)
        return outcomes

    def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        return [row for row in super().rows_after(document_id, seq, limit) if row.seq not in self.hidden]


@found_by("test_loading_sees_one_instant")
class LoadsInTwoSteps(MemoryStore):
    async def load(self, name: str) -> LoadedDocument | None:
        first = await super().load(name)
        then = await super().load(name)
        return first and then and replace(then, snapshot=first.snapshot)


# The ambiguous commit.


@found_by("test_repeat_of_an_append_that_was_cut_off_writes_once")
class WritesEachAttempt(MemoryStore):
    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        self._doubt = None
        return await super().append(batch)


@found_by("test_repeat_gives_the_outcomes_of_the_first_time")
class AnswersARepeatWithTheNewestNumbers(MemoryStore):
    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        repeated = self._doubt is not None and self._doubt[0] is batch
        outcomes = await super().append(batch)
        if not repeated:
            return outcomes
        return [
            _shifted(outcome, self.storage._ids[outcome.document_id].document.head_seq - outcomes[-1].last_seq)
            if isinstance(outcome, Appended) and isinstance(outcomes[-1], Appended)
            else outcome
            for outcome in outcomes
        ]


@found_by("test_repeat_gives_the_outcomes_of_the_first_time")
class ForgetsWhyNothingWasWritten(MemoryStore):
    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        repeated = self._doubt is not None and self._doubt[0] is batch
        outcomes = await super().append(batch)
        if not repeated:
            return outcomes
        return [outcome if isinstance(outcome, Appended) else StoreRefused("not written") for outcome in outcomes]


@found_by("test_equal_batch_that_is_another_object_is_written_again")
class TakesEqualBatchesForTheSame(MemoryStore):
    last: tuple[Sequence[Append], list[AppendOutcome]] | None = None

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        if self.last is None or self.last[0] != batch:
            self.last = (batch, await super().append(batch))
        return self.last[1]


@found_by("test_append_that_is_given_up_was_written_once_or_not_at_all")
class LeavesAttemptsBehind(MemoryStore):
    """The node gives up the connection, and what was sent on it arrives after what the node sends next."""

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        try:
            return await super().append(batch)
        except asyncio.CancelledError:
            if self._doubt is None or self._doubt[0] is not batch:
                turns = 6

                def arrive() -> None:
                    nonlocal turns
                    turns -= 1
                    if turns:
                        asyncio.get_running_loop().call_soon(arrive)
                    else:
                        self.storage.append(batch)

                arrive()
            raise


@found_by("test_append_that_is_given_up_was_written_once_or_not_at_all")
class WritesEntryByEntry(MemoryStore):
    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = []
        for entry in batch:
            outcomes += await super().append([entry])
        return outcomes


@found_by("test_any_call_may_be_cancelled")
class LosesConnections(MemoryStore):
    free = 10

    async def _call(self, step: Callable[[], Any]) -> Any:
        if self.free <= 0:
            raise StoreUnavailable("no connection is free")
        try:
            return await super()._call(step)
        except asyncio.CancelledError:
            self.free -= 1
            raise


# Rows refused for good.


@found_by(
    "test_row_larger_than_a_store_takes_costs_only_its_document", "test_name_that_is_not_unicode_is_refused_alone"
)
class RefusesTheWholeBatch(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = super().append(batch)
        refused = [outcome for outcome in outcomes if isinstance(outcome, StoreRefused)]
        return [refused[0]] * len(batch) if refused else outcomes


@found_by("test_row_larger_than_a_store_takes_costs_only_its_document")
class WritesWhatFollowsALostRow(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return [outcome for entry in batch for outcome in super(WritesWhatFollowsALostRow, self).append([entry])]


@found_by("test_row_larger_than_a_store_takes_costs_only_its_document")
class CountsRefusedRows(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        outcomes = super().append(batch)
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, StoreRefused) and entry.document_id is not None:
                kept = self._ids[entry.document_id]
                kept.document = replace(kept.document, head_seq=kept.document.head_seq + len(entry.rows))
        return outcomes


@found_by("test_snapshot_larger_than_a_store_takes_is_refused", "test_creating_with_more_than_a_store_takes_is_refused")
class TakesEverySize(MemoryStorage):
    def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        self._ids[document_id].snapshots.append(snapshot)
        return True

    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        super().create(new, (), *rest)
        kept = self._names[new.name.encode()]
        kept.add(rows)
        return kept.document


# Snapshots.


@found_by("test_snapshot_is_kept_only_if_newer")
class KeepsEverySnapshot(MemoryStorage):
    def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        super().write_snapshot(document_id, snapshot)
        return document_id in self._ids


@found_by("test_snapshot_keeps_its_bytes")
class HasNoPlaceForTheIndex(MemoryStorage):
    def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        return super().write_snapshot(document_id, replace(snapshot, index=b""))


@found_by("test_snapshots_written_at_once_by_two_nodes")
class LooksBeforeItKeepsASnapshot(MemoryStore):
    async def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        kept = self.storage._ids[document_id]
        newer = await self._call(lambda: all(each.seq < snapshot.seq for each in kept.snapshots))
        if newer:
            await self._call(lambda: kept.snapshots.append(snapshot))
        return newer


# Checksums.


@found_by("test_checksums_are_kept_as_they_are_given")
class FillsChecksumsByReading(MemoryStorage):
    def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        return [
            row._replace(checksum=row_checksum(row.data, row.author)) if row.checksum is None else row
            for row in super().rows_after(document_id, seq, limit)
        ]


@found_by("test_row_that_is_damaged_is_given_as_it_is")
class LeavesDamagedRowsOut(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        loaded = super().load(name)
        return loaded and replace(loaded, rows=[row for row in loaded.rows if not is_damaged(row)])


@found_by("test_damaged_snapshot_is_passed_over")
class GivesTheNewestSnapshot(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        loaded = super().load(name)
        if loaded is None or not loaded.passed_over:
            return loaded
        newest = self._ids[loaded.document.id].snapshots[-1]
        return replace(loaded, snapshot=newest, rows=[row for row in loaded.rows if row.seq > newest.seq])


@found_by("test_snapshots_that_are_all_damaged_leave_the_rows")
class ReadsNoRowsThatASnapshotCovers(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        loaded = super().load(name)
        passed = loaded.passed_over[0] if loaded and loaded.passed_over else 0
        return loaded and replace(loaded, rows=[row for row in loaded.rows if row.seq > passed])


# Pruning.


@found_by("test_pruning_keeps_two_snapshots_that_are_whole")
class CountsSnapshotsWithoutLooking(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        for kept in self._ids.values():
            if not kept.deleted and len(kept.snapshots) > 1 and (rows := kept.between(0, kept.snapshots[-2].seq)):
                del kept.rows[: len(rows)]
                return len(rows)
        return super().prune(before, limit, spare, trash_before, histories)


@found_by("test_pruning_leaves_a_damaged_document_alone")
class ForgetsDamage(MemoryStorage):
    def note_damage(self, document_id: int, rows: Sequence[int], snapshots: Sequence[int]) -> None:
        pass


@found_by("test_pruning_keeps_every_state_within_history", "test_pruning_leaves_a_document_without_snapshot_alone")
class PrunesByAge(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        removed = 0
        for kept in self._ids.values():
            while kept.rows and kept.rows[0].at < before and removed < limit:
                kept.rows.pop(0)
                removed += 1
        return removed


@found_by("test_pruning_keeps_every_state_within_history")
class KeepsOnlyWhatOpeningNeeds(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return super().prune(math.inf, limit, spare, trash_before, histories)


@found_by("test_pruning_keeps_every_state_within_history")
class PrunesMoreThanItWasAllowed(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return super().prune(before, limit + 1, spare, trash_before, histories)


@found_by("test_a_row_that_is_older_than_the_one_before_it_does_not_hide_that_one")
class TrustsTheClocksOfAllNodes(MemoryStorage):
    """The last row before the time is looked for, instead of the first one after it."""

    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        removed = 0
        for kept in self._ids.values():
            old = max((row.seq for row in kept.rows if row.at < before), default=0)
            base, _ = kept.newest_snapshot(old)
            while base is not None and kept.rows and kept.rows[0].seq <= base.seq and removed < limit:
                kept.rows.pop(0)
                removed += 1
        return removed


@found_by("test_pruning_goes_round_many_documents")
class NeverComesBackToTheBeginning(MemoryStorage):
    done: frozenset[int] = frozenset()

    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        for document_id, kept in self._ids.items():
            if document_id not in self.done:
                if removed := kept.prune(before, limit):
                    return removed
                self.done |= {document_id}
        return 0


@found_by("test_pruning_removes_the_content_of_deleted_documents")
class PrunesTombstones(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        removed = super().prune(before, limit, spare, trash_before, histories)
        for name, kept in list(self._names.items()):
            if kept.deleted and not kept.rows:
                del self._names[name], self._ids[kept.document.id]
                self._sorted.remove(name)
        return removed


@found_by("test_pruning_removes_the_content_of_deleted_documents")
class KeepsDeletedContent(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return 0


@found_by("test_one_store_at_a_time_claims_a_snapshot")
class LetsEverybodyClaim(MemoryStore):
    @asynccontextmanager
    async def claim_snapshot(self, document_id: int) -> AsyncIterator[bool]:
        yield True


@found_by("test_one_store_at_a_time_claims_a_snapshot")
class ClaimsAllDocumentsAtOnce(MemoryStore):
    def claim_snapshot(self, document_id: int) -> AbstractAsyncContextManager[bool]:
        return super().claim_snapshot(0)


@found_by("test_a_claim_ends_with_its_block_however_that_ends")
class ClaimsUntilAllGoesWell(MemoryStore):
    @asynccontextmanager
    async def claim_snapshot(self, document_id: int) -> AsyncIterator[bool]:
        claims = self.storage.claims
        mine = document_id not in claims
        claims.add(document_id)
        yield mine
        claims.discard(document_id)


@found_by("test_heartbeats_tell_who_is_there")
class ListsServersByName(MemoryStorage):
    def list_nodes(self, now: float) -> list[Node]:
        return sorted(super().list_nodes(now), reverse=True)


@found_by("test_a_later_heartbeat_takes_the_place_of_the_one_before")
class CountsFromTheLastHeartbeat(MemoryStorage):
    def beat(self, node: Node, now: float) -> list[Node]:
        self.nodes.pop(node.name, None)
        return super().beat(node, now)


@found_by("test_a_server_that_leaves_is_listed_no_more")
class KeepsServersThatHaveLeft(MemoryStore):
    async def leave(self, name: str) -> None:
        pass


@found_by("test_heartbeats_move_no_numbers_of_documents")
class WritesHeartbeatsIntoTheLog(MemoryStorage):
    def beat(self, node: Node, now: float) -> list[Node]:
        self.append([Append("d", None, (NewRow(node.name.encode(), now),))])
        return super().beat(node, now)


# Names, deleting and creating.


@found_by("test_an_open_store_answers")
class DoesNotAnswer(MemoryStore):
    async def ping(self) -> None:
        raise StoreUnavailable("unknown command PING")


@found_by("test_names_are_told_apart_by_their_bytes")
class ComposesNames(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append([replace(entry, name=unicodedata.normalize("NFC", entry.name)) for entry in batch])


@found_by("test_name_that_is_not_unicode_is_no_name")
class ReplacesWhatIsNotUnicode(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        return super().load(name.encode("utf-8", "replace").decode())


@found_by("test_append_meets_the_tombstone", "test_pruning_removes_the_content_of_deleted_documents")
class ResurrectsByName(MemoryStorage):
    """An old copy of a client that has the name only brings the document back."""

    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        for entry in batch:
            kept = self._names.get(entry.name.encode("utf-8", "replace"))
            if entry.document_id is None and kept is not None and kept.deleted:
                kept.document = replace(kept.document, deleted_at=None)
        return super().append(batch)


@found_by("test_append_meets_the_tombstone")
class ResurrectsById(MemoryStorage):
    """The node that has the document in memory writes on."""

    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        for entry in batch:
            kept = self._ids.get(entry.document_id or 0)
            if kept is not None and kept.deleted:
                kept.document = replace(kept.document, deleted_at=None)
        return super().append(batch)


@found_by("test_append_meets_the_tombstone")
class ListsTombstones(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        return [kept.summary() for name, kept in sorted(self._names.items())]


@found_by("test_deleting_what_is_not_there")
class DeletesWhatIsNotThere(MemoryStorage):
    def delete(self, name: str, at: float) -> None:
        try:
            super().delete(name, at)
        except DocumentNotFound:
            return


@found_by("test_created_anew_the_old_id_stays_dead", "test_ids_are_never_given_twice")
class CreatesInTheOldPlace(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        kept = self._names.get(new.name.encode())
        if kept is None or not kept.deleted:
            return super().create(new, rows, *rest)
        kept.document = replace(kept.document, deleted_at=None, head_seq=0, gc=new.gc, title=None)
        kept.rows, kept.snapshots = [], []
        kept.add(rows)
        return kept.document


@found_by("test_created_anew_the_old_id_stays_dead")
class LeavesTheOldTitle(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        old = self._names.get(new.name.encode())
        super().create(new, rows, *rest)
        kept = self._names[new.name.encode()]
        kept.document = replace(kept.document, title=old.document.title if old else None)
        return kept.document


@found_by("test_ids_are_never_given_twice")
class GivesTheLowestFreeId(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        self._last_id = next(number for number in range(len(self._ids) + 1) if number + 1 not in self._ids)
        return super().create(new, rows, *rest)


@found_by("test_creating_what_lives_is_refused")
class LooksBeforeItCreates(MemoryStore):
    async def create(self, name: str, **given: Any) -> StoredDocument:
        kept = await self._call(lambda: self.storage._names.get(name.encode()))
        if kept is not None and not kept.deleted:
            raise DocumentExists(f"document {name!r} exists")

        def step() -> StoredDocument:
            self.storage._names.pop(name.encode(), None)
            new = StoredDocument(0, name, 0, given.get("gc", True), 0.0, 0.0)
            return self.storage.create(new, given.get("rows", ()), True, None, 0.0)

        return await self._call(step)


@found_by("test_created_document_without_rows")
class KnowsNoEmptyDocuments(MemoryStorage):
    def load(self, name: str) -> LoadedDocument | None:
        loaded = super().load(name)
        return loaded if loaded and loaded.document.head_seq else None


@found_by("test_an_append_may_ask_to_keep_deleted_content")
class CollectsWhatItIsAskedToKeep(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append([replace(entry, gc=True) for entry in batch])


@found_by("test_deleting_while_others_append_leaves_nothing_behind_the_tombstone")
class LooksAtTheTombstoneBeforeItWrites(MemoryStore):
    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        living = {i for i, kept in self.storage._ids.items() if not kept.deleted}

        def step() -> list[AppendOutcome]:
            hidden = {i: kept for i, kept in self.storage._ids.items() if i in living and kept.deleted}
            tombstones = {i: kept.document.deleted_at for i, kept in hidden.items()}
            for kept in hidden.values():
                kept.document = replace(kept.document, deleted_at=None)
            outcomes = self.storage.append(batch)
            for i, kept in hidden.items():
                kept.document = replace(kept.document, deleted_at=tombstones[i])
            return outcomes

        for _ in range(5):
            await self._travel()
        return await self._call(step)


# Titles and listing.


@found_by("test_listing_is_in_the_order_of_the_bytes")
class SortsByCollation(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_documents(after, prefix, 1_000)
        found.sort(key=lambda each: unicodedata.normalize("NFD", each.document.name.casefold()))
        return found[:limit]


@found_by("test_listing_is_in_the_order_of_the_bytes")
class SortsByUtf16(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_documents(after, prefix, 1_000)
        return sorted(found, key=lambda each: each.document.name.encode("utf-16-be"))[:limit]


@found_by("test_a_title_is_listed_and_changes_nothing_else")
class CountsATitleAsAnEdit(MemoryStorage):
    def change(self, name: str, title: str | None | Keep, metadata: Mapping[str, object]) -> None:
        super().change(name, title, metadata)
        kept = self._names[name.encode()]
        kept.document = replace(kept.document, updated_at=kept.document.updated_at + 1)


@found_by("test_listing_pages_and_sizes", "test_listing_is_in_the_order_of_the_bytes")
class BeginsAPageWithTheLastName(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_documents(None, prefix, 1_000)
        return [each for each in found if after is None or each.document.name >= after][:limit]


@found_by("test_listing_pages_and_sizes")
class CountsTheWholeLogAsTheTail(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_documents(after, prefix, limit)
        return [replace(each, tail_rows=each.log_rows) for each in found]


@found_by("test_counting_counts_what_is_listed")
class CountsTombstones(MemoryStorage):
    def count_documents(self, after: str | None, prefix: str) -> int:
        names = [name.decode() for name in self._names if name.decode().startswith(prefix)]
        return sum(after is None or name > after for name in names)


@found_by("test_many_that_are_created_at_once_are_created_each_for_itself")
class CreatesOneAtATimeAndLosesTheOthers(MemoryStore):
    async def create(self, name: str, **given: Any) -> StoredDocument:
        self.last = name
        await asyncio.sleep(0)
        if self.last != name:
            return StoredDocument(0, name, 1, True, 1.0, 1.0)
        return await super().create(name, **given)


@found_by("test_a_prefix_is_no_pattern")
class TakesAPrefixForAPattern(MemoryStorage):
    def list_documents(self, after: str | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_documents(after, "", 1_000)
        return [each for each in found if fnmatch.fnmatchcase(each.document.name, prefix + "*")][:limit]


def _shifted(outcome: AppendOutcome, by: int) -> AppendOutcome:
    if not isinstance(outcome, Appended):
        return outcome
    return outcome._replace(first_seq=outcome.first_seq + by, last_seq=outcome.last_seq + by)


def _with_rows(batch: Sequence[Append], change: Callable[[NewRow], NewRow]) -> list[Append]:
    return [replace(entry, rows=tuple(change(row) for row in entry.rows)) for entry in batch]


# Heads.


@found_by("test_heads_tell_where_logs_stand")
class LeavesTombstonesOutOfHeads(MemoryStorage):
    def heads(self, names: Sequence[str]) -> dict[str, Head]:
        return {name: head for name, head in super().heads(names).items() if not head.deleted}


@found_by("test_heads_of_many_documents_in_one_look")
class LooksAtSomeHeads(MemoryStorage):
    def heads(self, names: Sequence[str]) -> dict[str, Head]:
        return super().heads(names[:500])


# A server beside others.


@found_by("test_attending_takes_nothing_from_an_append")
class ForgetsWhatItHasWrittenWhenItAttends(MemoryStore):
    async def attend(self) -> None:
        self.storage = MemoryStorage()


@found_by("test_a_change_by_another_store_is_worth_a_look")
class SeesNoChange(MemoryStore):
    async def changed(self) -> bool:
        return False


@found_by("test_a_log_that_nobody_has_touched_has_no_gap")
class TakesPruningForAGap(MemoryStore):
    async def find_gaps(self, document_ids: Sequence[int]) -> set[int]:
        kept = self.storage._ids
        return {each for each in document_ids if each in kept and kept[each].document.head_seq > len(kept[each].rows)}


@found_by("test_pruning_spares_documents_that_are_named")
class PrunesWhatIsToBeSpared(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return super().prune(before, limit)


# Pending updates.


@found_by("test_pending_updates_are_kept_as_they_came_beside_the_rows")
class KnowsNoPendingUpdates(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append([replace(entry, pending=None) for entry in batch])


@found_by("test_pending_updates_are_kept_as_they_came_beside_the_rows")
class LeavesPendingUpdatesOutOfHeads(MemoryStorage):
    def heads(self, names: Sequence[str]) -> dict[str, Head]:
        return {name: head._replace(pending=0) for name, head in super().heads(names).items()}


@found_by("test_pending_updates_alone_create_a_document_and_move_no_number")
class CountsPendingUpdatesAsRows(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(
            [replace(entry, rows=entry.rows or (NewRow(b"", entry.begun_at),)) for entry in batch],
        )


@found_by("test_what_is_there_is_not_added_twice_and_what_is_not_there_is_settled")
class SettlesAfterItHasAdded(MemoryStorage):
    def _change_pending(self, kept: Any, change: PendingChange | None) -> None:
        if change is not None:
            super()._change_pending(kept, PendingChange(change.added, ()))
            super()._change_pending(kept, PendingChange((), change.settled))


@found_by("test_numbers_of_pending_updates_are_never_given_again")
class NumbersPendingUpdatesFromOne(MemoryStorage):
    def _change_pending(self, kept: Any, change: PendingChange | None) -> None:
        self._last_pending = max([update.number for update in kept.pending.values()], default=0)
        super()._change_pending(kept, change)


@found_by("test_pending_updates_are_there_for_a_store_that_is_opened_later")
class KeepsPendingUpdatesInTheStore(MemoryStore):
    async def close(self) -> None:
        for kept in self.storage._ids.values():
            kept.pending.clear()
        await super().close()


@found_by("test_snapshots_and_pruning_leave_pending_updates_alone")
class PrunesPendingUpdatesByAge(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        for kept in self._ids.values():
            kept.pending = {key: update for key, update in kept.pending.items() if update.at >= before}
        return super().prune(before, limit, spare, trash_before, histories)


@found_by("test_pending_updates_go_with_their_document")
class GivesPendingUpdatesOfTombstones(MemoryStorage):
    def load_pending(self, document_id: int) -> list[PendingUpdate]:
        kept = self._ids.get(document_id)
        return [] if kept is None else list(kept.pending.values())


# Own keys, and listing by time.


@found_by("test_a_document_is_created_with_title_and_metadata")
class SetsTheTitleLater(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        return super().create(replace(new, title=None, metadata={}), rows, *rest)


@found_by("test_creating_may_respect_a_tombstone")
class CreatesOverEveryTombstone(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        return super().create(new, rows, True, *rest[1:])


@found_by("test_own_keys_are_merged_and_change_nothing_else")
class ReplacesAllKeys(MemoryStorage):
    def change(self, name: str, title: str | None | Keep, metadata: Mapping[str, object]) -> None:
        kept = self._find(name)
        kept.document = replace(kept.document, metadata={})
        super().change(name, title, metadata)


@found_by("test_listing_by_time_is_newest_first")
class ListsTheOldestFirst(MemoryStorage):
    def list_recent(self, after: tuple[float, str] | None, prefix: str, limit: int) -> list[DocumentSummary]:
        return super().list_recent(None, prefix, 1_000)[::-1][:limit]


@found_by("test_listing_by_time_is_newest_first")
class PagesByTheTimeAlone(MemoryStorage):
    def list_recent(self, after: tuple[float, str] | None, prefix: str, limit: int) -> list[DocumentSummary]:
        found = super().list_recent(None, prefix, 1_000)
        return [each for each in found if after is None or each.document.updated_at < after[0]][:limit]


@found_by("test_a_document_is_described_by_its_id")
class DescribesTombstones(MemoryStorage):
    def describe_id(self, document_id: int) -> DocumentSummary:
        kept = self._ids.get(document_id)
        return super().describe_id(document_id) if kept is None else kept.summary()


# The trash.


@found_by("test_a_restored_document_is_the_same", "test_predecessors_of_a_name_are_restored_under_other_names")
class RestoresByCopying(MemoryStorage):
    def restore(self, document_id: int, new_name: str | None, at: float) -> StoredDocument:
        kept = self._ids[document_id]
        rows = [NewRow(*row[1:]) for row in kept.rows]
        new = replace(kept.document, name=new_name or kept.document.name, deleted_at=None)
        return self.create(new, rows, True, None, at)


@found_by("test_a_document_is_restored_once")
class RestoresAgain(MemoryStorage):
    def restore(self, document_id: int, new_name: str | None, at: float) -> StoredDocument:
        kept = self._ids.get(document_id)
        if kept is not None and not kept.deleted:
            return kept.document
        return super().restore(document_id, new_name, at)


@found_by("test_a_document_that_is_restored_under_another_name_leaves_a_tombstone")
class LeavesTheNameOfARestoredDocumentFree(MemoryStorage):
    def _leave_tombstone(self, name: bytes, document_id: int, at: float) -> None:
        self._names.pop(name, None)
        self._sorted.remove(name)


@found_by("test_the_trash_is_listed_by_the_time_of_deletion")
class ListsTheTrashByName(MemoryStorage):
    def list_trash(self, *given: Any) -> list[DocumentSummary]:
        return sorted(super().list_trash(*given), key=lambda each: each.document.name)


@found_by("test_pruning_leaves_what_is_in_the_trash_for_long_enough")
class PrunesTheTrashAtOnce(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return super().prune(before, limit, spare, histories=histories)


@found_by("test_restoring_while_others_prune_gives_all_or_nothing")
class RestoresWhatIsLeft(MemoryStorage):
    def restore(self, document_id: int, new_name: str | None, at: float) -> StoredDocument:
        self._ids[document_id].trashed = True
        return super().restore(document_id, new_name, at)


@found_by("test_what_was_erased_is_gone")
class KeepsAnswersOfWhatWasErased(MemoryStorage):
    def erase(self, document_id: int) -> None:
        calls = self.calls
        self.calls = MemoryCalls()
        super().erase(document_id)
        self.calls = calls


@found_by("test_what_was_erased_is_gone")
class ErasesRowsAlone(MemoryStorage):
    def erase(self, document_id: int) -> None:
        kept = self._ids[document_id]
        snapshots = list(kept.snapshots)
        super().erase(document_id)
        kept.snapshots = snapshots


@found_by("test_a_predecessor_is_erased_alone")
class ErasesAllOfTheName(MemoryStorage):
    def erase(self, document_id: int) -> None:
        name = self._ids[document_id].name if document_id in self._ids else b""
        super().erase(document_id)
        for kept in list(self._ids.values()):
            if kept.name == name and kept.deleted:
                super().erase(kept.document.id)


@found_by("test_a_skeleton_belongs_to_a_name")
class ReplacesEverySkeleton(MemoryStorage):
    def replace_skeleton(self, name: str, was: bytes | None, by: bytes) -> bool:
        return super().replace_skeleton(name, self.skeletons.get(name.encode()), by)


# Calls that are done once.


@found_by("test_of_several_attempts_one_does_the_call")
class LetsEverybodyBegin(MemoryStore):
    async def begin_call(self, call: CallKey, request: bytes) -> CallState:
        state = await super().begin_call(call, request)
        return state if state.status else CallState(mine=True)


@found_by("test_a_key_is_for_one_request")
class LooksAtTheKeyAlone(MemoryStore):
    async def begin_call(self, call: CallKey, request: bytes) -> CallState:
        return await super().begin_call(call, b"r" * 32)


@found_by("test_a_call_that_has_failed_is_begun_anew")
class KeepsWhatHasFailed(MemoryStore):
    async def abandon_call(self, call: CallKey) -> None:
        await self.finish_call(call, 500, b"")


@found_by("test_what_a_call_has_created_is_taken_up_by_the_next_attempt")
class ForgetsWhatWasCreated(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        return super().create(new, rows, rest[0], None, rest[2])


@found_by("test_creating_for_a_call_that_is_not_ones_own_creates_nothing")
class CreatesBeforeItLooks(MemoryStorage):
    def create(self, new: StoredDocument, rows: Sequence[NewRow], *rest: Any) -> StoredDocument:
        created = super().create(new, rows, rest[0], None, rest[2])
        if rest[1] is not None:
            self.calls.check(rest[1])
        return created


@found_by("test_an_answer_has_a_bound")
class KeepsHalfAnAnswer(MemoryStore):
    async def finish_call(self, call: CallKey, status: int, answer: bytes) -> bool:
        return await super().finish_call(call, status, answer[:1_024])


# New names.


@found_by("test_a_renamed_document_keeps_id_numbers_and_content", "test_a_document_is_renamed_back")
class RenamesByCopying(MemoryStorage):
    def rename(self, name: str, new_name: str, at: float) -> int:
        kept = self._find(name)
        rows = [NewRow(*row[1:4]) for row in kept.rows]
        created = self.create(replace(kept.document, name=new_name), rows, True, None, at)
        self.delete(name, at)
        return created.id


@found_by("test_the_old_name_is_left_as_by_a_deletion")
class LeavesTheOldNameFree(MemoryStorage):
    def rename(self, name: str, new_name: str, at: float) -> int:
        document_id = super().rename(name, new_name, at)
        del self._names[name.encode()]
        return document_id


@found_by("test_renaming_what_is_not_there_or_to_a_name_that_is_taken", "test_one_of_those_who_rename_at_once_succeeds")
class RenamesOverWhatLives(MemoryStorage):
    def rename(self, name: str, new_name: str, at: float) -> int:
        if new_name != name and new_name.encode() in self._names and not self._names[new_name.encode()].deleted:
            self.delete(new_name, at)
        return super().rename(name, new_name, at)


@found_by("test_renaming_while_others_append_loses_and_misplaces_nothing")
class AppendsToTheNameOnly(MemoryStorage):
    def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        return super().append(
            [
                replace(entry, document_id=None) if entry.name == "name0" and entry.document_id else entry
                for entry in batch
            ]
        )


# Instructions.


@found_by("test_every_store_finds_an_instruction")
class KeepsInstructionsToItself(MemoryStore):
    _given: tuple[int, ...] = ()

    async def instruct(self, instruction: Instruction) -> int:
        number = await super().instruct(instruction)
        self._given = (*self._given, number)
        return number

    async def instructions(self, after: int) -> list[StoredInstruction]:
        return [stored for stored in await super().instructions(after) if stored.number in self._given]


@found_by("test_an_instruction_stays_as_long_as_it_says")
class ForgetsAfterTenMinutes(MemoryStorage):
    def instruct(self, instruction: Instruction, now: float) -> int:
        return super().instruct(replace(instruction, seconds=0.0), now)


@found_by("test_who_gave_an_instruction_reads_what_each_node_has_done")
class KeepsTheFirstReport(MemoryStorage):
    def report(self, numbers: Sequence[int], report: NodeReport) -> None:
        super().report([number for number in numbers if report.node not in self._reports.get(number, {})], report)


@found_by("test_who_has_asked_reads_what_each_node_answers")
class KeepsTheFirstAnswer(MemoryStorage):
    def answer(self, number: int, node: str, data: bytes) -> None:
        if node not in self.answers(number):
            super().answer(number, node, data)


# Webhooks.


def _with(webhooks: type[MemoryWebhooks]) -> type[MemoryStorage]:
    """Give a storage with these webhooks."""

    class Storage(MemoryStorage):
        def __init__(self) -> None:
            super().__init__()
            self.webhooks = webhooks(self)

    Storage.__name__ = webhooks.__name__
    return Storage


def hooks_found_by(*tests: str) -> Callable[[type[MemoryWebhooks]], type[MemoryWebhooks]]:
    """Note the tests that find a storage with these webhooks."""

    def note(cls: type[MemoryWebhooks]) -> type[MemoryWebhooks]:
        found_by(*tests)(_with(cls))
        return cls

    return note


@hooks_found_by("test_one_node_delivers_until_its_lease_ends", "test_who_asks_while_another_node_has_the_lease_waits")
class LetsEverybodyDeliver(MemoryWebhooks):
    def _held(self, node: str, now: float) -> bool:
        return True


@hooks_found_by("test_edits_are_told_once_with_numbers_and_authors")
class LeavesTheCursor(MemoryWebhooks):
    def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int], now: float) -> int | None:
        told = super().tell_changed(node, seconds, limit, busy, now)
        self._cursors = dict.fromkeys(self._cursors, 0)
        return told


@hooks_found_by("test_a_new_document_is_told_at_once_and_its_edits_when_their_time_has_come")
class TellsEveryEditAtOnce(MemoryWebhooks):
    def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int], now: float) -> int | None:
        return super().tell_changed(node, 0.0, limit, busy, now)


@hooks_found_by("test_what_nobody_has_marked_is_found")
class BelievesTheMarks(MemoryWebhooks):
    def mark_missed(self, node: str, after: int, limit: int, now: float) -> Looked | None:
        looked = super().mark_missed(node, after, limit, now)
        return None if looked is None else Looked(looked.last, 0)


@hooks_found_by("test_documents_that_were_there_before_are_told_from_then_on")
class TellsOfWhatWasThere(MemoryWebhooks):
    def claim(self, node: str, seconds: float, now: float) -> bool:
        got = super().claim(node, seconds, now)
        self._base = 0
        return got


@hooks_found_by("test_changes_join_the_one_that_waits_last")
class ChangesWhatIsOnItsWay(MemoryWebhooks):
    def _join(self, receiver: str, happened: Happened, busy: Collection[int]) -> bool:
        return super()._join(receiver, happened, ())


@hooks_found_by("test_rows_that_restore_a_state_are_told_behind_the_change")
class TellsOfNoRestore(MemoryWebhooks):
    def _read_restored(self, document_id: int, after: int, last: int) -> list[dict[str, Any]]:
        return []


@found_by("test_each_change_of_the_catalogue_writes_its_own")
class ForgetsResets(MemoryStore):
    async def append_next(self, document_id: int, seq: int, row: NewRow, *, reset: bool = False) -> bool:
        return await super().append_next(document_id, seq, row)


@hooks_found_by("test_a_document_that_is_deleted_before_it_was_told_is_told_in_order")
class TellsTheEndFirst(MemoryWebhooks):
    def _meet(self, document_id: int, now: float) -> None:
        document = self._documents.document(document_id)
        if document is not None and document.deleted_at is None:
            super()._meet(document_id, now)


@hooks_found_by("test_what_is_erased_is_told_by_nothing_but_its_end")
class RemembersTheErased(MemoryWebhooks):
    def erase(self, document_id: int) -> None:
        pass


@hooks_found_by("test_receivers_get_what_they_want")
class TellsEverybody(MemoryWebhooks):
    def subscribe(self, node: str, subscriptions: Sequence[Subscription], now: float) -> bool:
        return super().subscribe(node, [each._replace(prefix="") for each in subscriptions], now)


@hooks_found_by("test_a_lane_is_delivered_in_order")
class DeliversAllAtOnce(MemoryWebhooks):
    def due(self, receiver: str, limit: int, busy: Collection[int], now: float) -> list[Delivery]:
        found = [each for each in self._waiting(receiver) if each.due_at <= now and each.lane not in busy]
        return found[:limit]


@hooks_found_by("test_what_became_of_attempts_is_kept")
class ForgetsTheStatus(MemoryWebhooks):
    def settle(self, node: str, attempts: Sequence[Attempt], disable: Collection[str], now: float) -> bool:
        return super().settle(node, [each._replace(status=None) for each in attempts], disable, now)


@hooks_found_by("test_deliveries_are_sent_again")
class SendsAgainWhatWasTaken(MemoryWebhooks):
    def resend_failed(self, receiver: str, since: float, now: float) -> int:
        return super().resend_failed(receiver, 0.0, now)


@hooks_found_by("test_deliveries_are_listed_newest_first")
class ListsTheOldestDeliveryFirst(MemoryWebhooks):
    def deliveries(self, receiver: str | None, state: str | None, before: int | None, limit: int) -> list[Delivery]:
        return super().deliveries(receiver, state, before, limit)[::-1]


@hooks_found_by("test_who_fails_for_long_is_disabled_until_somebody_enables_it")
class EnablesWithEachStart(MemoryWebhooks):
    def subscribe(self, node: str, subscriptions: Sequence[Subscription], now: float) -> bool:
        self._receivers.clear()
        return super().subscribe(node, subscriptions, now)


@hooks_found_by("test_what_is_too_old_is_given_up", "test_deliveries_are_sent_again")
class GivesNothingUp(MemoryWebhooks):
    def expire(self, node: str, disable_after: float, now: float) -> Expired | None:
        return super().expire(node, disable_after, 0.0)


@hooks_found_by("test_what_is_kept_has_a_bound")
class KeepsAll(MemoryWebhooks):
    def _waiting(self, receiver: str) -> list[Delivery]:
        return super()._waiting(receiver)[:1]


@hooks_found_by("test_nothing_is_written_where_nobody_is_told")
class WritesForNobody(MemoryWebhooks):
    def claim(self, node: str, seconds: float, now: float) -> bool:
        got = super().claim(node, seconds, now)
        return got and self.subscribe(node, [Subscription("nobody", (CREATED, CHANGED, RESTORED), "")], now)


@hooks_found_by("test_edits_under_way_while_they_are_told_are_told_next")
class TellsFromTheHead(MemoryWebhooks):
    def _read_change(self, document_id: int, first: int, last: int) -> dict[str, Any]:
        return super()._read_change(document_id, last, last)


# Versions.


def _with_history(history: type[MemoryHistory]) -> type[MemoryStorage]:
    """Give a storage with these versions and timelines."""

    class Storage(MemoryStorage):
        def __init__(self) -> None:
            super().__init__()
            self.history = history(self)

    Storage.__name__ = history.__name__
    return Storage


def history_found_by(*tests: str) -> Callable[[type[MemoryHistory]], type[MemoryHistory]]:
    """Note the tests that find a storage with these versions and timelines."""

    def note(cls: type[MemoryHistory]) -> type[MemoryHistory]:
        found_by(*tests)(_with_history(cls))
        return cls

    return note


@history_found_by("test_a_version_keeps_what_is_said_of_it", "test_texts_have_a_bound")
class CutsNamesOfVersions(MemoryHistory):
    def make(self, document_id: int, seq: int, new: NewVersion) -> Version:
        name = new.name.split("\0")[0][:200]
        return super().make(document_id, seq, NewVersion(name, new.description, new.author, new.at))


@history_found_by("test_a_version_is_of_a_number_that_is_there", "test_a_version_of_what_is_pruned_is_refused")
class TakesAnyNumber(MemoryHistory):
    def _check_number(self, kept: Any, seq: int) -> None:
        pass


@history_found_by("test_named_versions_have_a_bound")
class CountsNoImportedVersions(MemoryHistory):
    def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        version = super().import_version(document_id, new, state)
        self._check_room = lambda kept: None  # type: ignore[method-assign]
        return version


@found_by("test_receivers_are_told_of_a_version")
class TellsNobodyOfVersions(MemoryStore):
    async def make_version(self, document_id: int, seq: int, new: NewVersion) -> Version:
        return await self._call(lambda: self.storage.history.make(document_id, seq, new))


@history_found_by(
    "test_automatic_versions_keep_a_distance",
    "test_a_number_has_one_automatic_version",
    "test_pauses_become_automatic_versions",
)
class NotesEveryNumber(MemoryHistory):
    def make_automatic(self, document_id: int, seq: int, reason: Reason, at: float, spacing: float) -> Version | None:
        kept = self._living(document_id)
        version = Version(self._next_id(), seq, Kind.AUTOMATIC, reason, None, None, None, at, pinned=False)
        kept.history.versions[version.id] = version
        return version


@history_found_by("test_the_oldest_automatic_versions_go_for_newer_ones")
class KeepsAllAutomaticVersions(MemoryHistory):
    def make_automatic(self, document_id: int, seq: int, reason: Reason, at: float, spacing: float) -> Version | None:
        kept = self._living(document_id)
        before = dict(kept.history.versions)
        made = super().make_automatic(document_id, seq, reason, at, spacing)
        kept.history.versions = before | kept.history.versions
        return made


@history_found_by("test_versions_are_listed_from_the_newest_in_pages")
class ListsVersionsByTheirIds(MemoryHistory):
    def versions(self, *given: Any) -> list[Version]:
        return sorted(super().versions(*given), key=lambda each: -each.id)


@history_found_by("test_versions_are_listed_by_kind")
class ListsEveryKind(MemoryHistory):
    def versions(self, document_id: int, kind: Kind | None, *given: Any) -> list[Version]:
        return super().versions(document_id, None, *given)


@history_found_by("test_a_version_is_changed_in_part")
class TakesKeepForNone(MemoryHistory):
    def change(self, document_id: int, version_id: int, name: str | Keep, description: str | None | Keep) -> Version:
        said = None if isinstance(description, Keep) else description
        return super().change(document_id, version_id, name, said)


@history_found_by("test_an_automatic_version_that_gets_a_name_is_a_named_one")
class LeavesTheKindOfVersions(MemoryHistory):
    def change(self, document_id: int, version_id: int, name: str | Keep, description: str | None | Keep) -> Version:
        kind = self.version(document_id, version_id).kind
        version = super().change(document_id, version_id, name, description)._replace(kind=kind)
        self._living(document_id).history.versions[version_id] = version
        return version


@history_found_by("test_a_version_is_its_documents_alone")
class FindsVersionsByTheirIdsAlone(MemoryHistory):
    def _version(self, kept: Any, version_id: int) -> Version:
        found = [each.history.versions.get(version_id) for each in self._storage.all_kept()]
        return next(each for each in found if each is not None)


@history_found_by("test_a_deleted_version_is_gone")
class GivesIdsOfVersionsAgain(MemoryHistory):
    def _next_id(self) -> int:
        taken = {number for kept in self._storage.all_kept() for number in kept.history.versions}
        return next(number for number in range(1, 10_000) if number not in taken)


@history_found_by("test_a_version_is_read_from_the_log")
class ReadsTheRowBefore(MemoryHistory):
    def load(self, document_id: int, version_id: int) -> tuple[Version, tuple[Snapshot | None, list[LogRow]]]:
        version, (snapshot, rows) = super().load(document_id, version_id)
        return version, (snapshot, rows[:-1])


@found_by("test_pruning_leaves_what_a_named_version_needs")
class PrunesUnderVersions(MemoryStorage):
    def prune(self, *given: Any, **more: Any) -> int:
        for kept in self._ids.values():
            kept.history = _NeedsNothing(kept.history.versions, kept.history.states, kept.history.entries)
        return super().prune(*given, **more)


class _NeedsNothing(KeptHistory):
    def needs(self) -> int | None:
        return None


@history_found_by("test_only_what_is_in_the_way_is_to_be_pinned")
class PinsAllVersions(MemoryHistory):
    def unpinned(self, before: float, histories: Sequence[History], after: int, limit: int) -> list[Unpinned]:
        return super().unpinned(math.inf, (), after, limit)


@found_by("test_automatic_versions_go_with_their_rows")
class KeepsAutomaticVersionsWithoutRows(MemoryStorage):
    def prune(self, *given: Any, **more: Any) -> int:
        before = [(kept, dict(kept.history.versions)) for kept in self._ids.values()]
        removed = super().prune(*given, **more)
        for kept, versions in before:
            kept.history.versions = versions
        return removed


@history_found_by("test_a_version_is_pinned_once")
class PinsAgain(MemoryHistory):
    def pin(self, document_id: int, version_id: int, state: Snapshot) -> bool:
        super().pin(document_id, version_id, state)
        self._living(document_id).history.states[version_id] = state
        return True


@history_found_by("test_a_version_is_imported_with_its_state")
class NumbersImportedVersions(MemoryHistory):
    def import_version(self, document_id: int, new: NewVersion, state: Snapshot) -> Version:
        kept = self._living(document_id)
        version = super().import_version(document_id, new, state)._replace(seq=kept.document.head_seq)
        kept.history.versions[version.id] = version
        return version


@found_by("test_versions_outlive_names_and_the_trash")
class ForgetsVersionsOfTheTrash(MemoryStorage):
    def delete(self, name: str, at: float) -> int:
        document_id = super().delete(name, at)
        self._ids[document_id].history.clear()
        return document_id


@found_by("test_versions_go_with_their_document")
class GivesVersionsOfTheErased(MemoryStorage):
    def erase(self, document_id: int) -> None:
        versions = dict(self._ids[document_id].history.versions)
        super().erase(document_id)
        for kept in self._ids.values():
            kept.history.versions |= versions

    def create(self, *given: Any) -> StoredDocument:
        created = super().create(*given)
        for kept in list(self._ids.values()):
            self._ids[created.id].history.versions |= kept.history.versions
        return created


@found_by("test_documents_have_histories_of_their_own")
class TakesTheLastPattern(MemoryStorage):
    def prune(
        self,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        return super().prune(before, limit, spare, trash_before, histories[::-1])


@found_by("test_snapshots_that_nobody_misses_go")
class ThinsNothing(MemoryStorage):
    def thin_snapshots(self, limit: int, spare: Collection[int] = ()) -> int:
        return 0


@found_by("test_snapshots_stay_where_much_lies_between", "test_snapshots_that_nobody_misses_go")
class KeepsTheFirstAndTheLast(MemoryStorage):
    def thin_snapshots(self, limit: int, spare: Collection[int] = ()) -> int:
        removed = 0
        for kept in self._ids.values():
            removed += len(kept.snapshots[1:-1])
            kept.snapshots = kept.snapshots[:1] + kept.snapshots[1:][-1:]
        return removed


@found_by("test_snapshots_of_damaged_documents_stay")
class ThinsDamagedDocuments(MemoryStorage):
    def thin_snapshots(self, limit: int, spare: Collection[int] = ()) -> int:
        for kept in self._ids.values():
            kept.damage.clear()
        return super().thin_snapshots(limit, spare)


# The timeline.


@history_found_by(
    "test_rows_are_grouped_by_pauses_and_authors",
    "test_resets_and_restores_stand_alone",
    "test_an_entry_names_so_many_authors",
)
class SummarisesWithoutAuthors(MemoryHistory):
    def timeline(self, document_id: int, before: int | None, limit: int) -> Page:
        page = super().timeline(document_id, before, limit)
        return page._replace(entries=[each._replace(shares=(), others=0, mark="") for each in page.entries])


@history_found_by("test_portions_and_more_rows_give_the_same_entries")
class BeginsAnEntryWithEachPortion(MemoryHistory):
    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        kept = self._living(document_id)
        before, kept.history.entries = kept.history.entries, []
        rows, kept.rows = kept.rows, kept.rows[before[-1].last if before else 0 :]
        done = super().summarise(document_id, now, spacing, limit)
        kept.history.entries, kept.rows = [*before, *kept.history.entries], rows
        return done


@history_found_by("test_a_portion_says_how_many_rows_are_left")
class SaysThatAllIsDone(MemoryHistory):
    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        done = super().summarise(document_id, now, spacing, limit)
        return done and done._replace(left=0)


@found_by("test_those_who_summarise_at_once_do_it_once")
class SummarisesInTwoTransactions(MemoryStore):
    async def summarise(
        self, document_id: int, *, now: float, spacing: float | None, limit: int = 1_000
    ) -> Summarised | None:
        kept = self.storage.kept(document_id)
        before: list[Entry] = [] if kept is None else list(kept.history.entries)
        done = await super().summarise(document_id, now=now, spacing=spacing, limit=limit)
        await asyncio.sleep(0)
        if kept is not None and len(kept.history.entries) > len(before) + limit:
            kept.history.entries.append(kept.history.entries[-1])
        return done


@history_found_by("test_pages_go_on_behind_each_other")
class PagesFromTheNumberItself(MemoryHistory):
    def timeline(self, document_id: int, before: int | None, limit: int) -> Page:
        return super().timeline(document_id, None if before is None else before + 1, limit)


@history_found_by("test_a_page_says_what_is_not_in_it")
class SaysThatAllIsSummarised(MemoryHistory):
    def timeline(self, document_id: int, before: int | None, limit: int) -> Page:
        page = super().timeline(document_id, before, limit)
        return page._replace(summarised=page.head)


@found_by("test_entries_outlive_their_rows")
class PrunesEntries(MemoryStorage):
    def prune(self, *given: Any, **more: Any) -> int:
        removed = super().prune(*given, **more)
        for kept in self._ids.values():
            oldest = kept.rows[0].seq if kept.rows else 0
            kept.history.entries = [each for each in kept.history.entries if each.last >= oldest]
        return removed


@history_found_by("test_rows_that_were_pruned_first_are_in_no_entry")
class WaitsForRowsThatAreGone(MemoryHistory):
    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        kept = self._living(document_id)
        last = kept.history.entries[-1].last if kept.history.entries else 0
        if kept.rows and kept.rows[0].seq > last + 1:
            return Summarised(0, None)
        return super().summarise(document_id, now, spacing, limit)


@history_found_by("test_a_pause_that_goes_on_becomes_a_version_when_it_is_one")
class NotesPausesThatAreNone(MemoryHistory):
    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        return super().summarise(document_id, math.inf, spacing, limit)


@history_found_by("test_documents_with_rows_in_no_entry_are_found")
class FindsNewDocumentsAlone(MemoryHistory):
    def unsummarised(self, after: int, limit: int) -> tuple[list[int], int | None]:
        found, last = super().unsummarised(after, limit)
        return [each for each in found if not self._living(each).history.entries], last


@history_found_by("test_a_timeline_has_a_bound")
class KeepsAllEntries(MemoryHistory):
    def summarise(self, document_id: int, now: float, spacing: float | None, limit: int) -> Summarised | None:
        entries = self._living(document_id).history.entries
        first = entries[:1]
        done = super().summarise(document_id, now, spacing, limit)
        entries[:0] = [each for each in first if each not in entries[:1]]
        return done


@found_by("test_a_timeline_goes_with_its_document")
class ForgetsTimelinesOfTheTrash(MemoryStorage):
    def delete(self, name: str, at: float) -> int:
        document_id = super().delete(name, at)
        self._ids[document_id].history.entries.clear()
        return document_id


# Tenants.


def _with_tenants(tenants: type[MemoryTenants]) -> type[MemoryStorage]:
    class Broken(MemoryStorage):
        def __init__(self) -> None:
            super().__init__()
            self.tenants = tenants()

    Broken.__name__ = tenants.__name__
    return Broken


class AddsABatchAgain(MemoryTenants):
    def add_usage(self, now: float, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        self._batches.clear()
        super().add_usage(now, node, batch, month, counted)


class KnowsOneNodeOnly(MemoryTenants):
    def add_usage(self, now: float, node: str, batch: int, month: int, counted: Sequence[Counted]) -> None:
        super().add_usage(now, "n", batch + len(self._batches), month, counted)


class ListsTenantsByCodePoints(MemoryTenants):
    def tenants(self, now: float, month: int, after: str | None, limit: int) -> list[TenantRecord]:
        names = sorted(self._tenants, key=lambda name: name.encode("utf-16-be"))
        return [self._tenants[name].shown(month, now) for name in names if after is None or name > after][:limit]


class MergesQuotas(MemoryTenants):
    def set_quota(self, tenant: str, quota: Quota | None) -> None:
        before = self._known(tenant).record.quota
        super().set_quota(tenant, {**(before or {}), **(quota or {})})


found_by("test_counts_are_added_once_by_months")(_with_tenants(AddsABatchAgain))
found_by("test_nodes_add_at_once", "test_counts_are_added_once_by_months")(_with_tenants(KnowsOneNodeOnly))
found_by("test_tenants_are_listed_in_pages")(_with_tenants(ListsTenantsByCodePoints))
found_by("test_quotas_and_sizes_are_kept_apart_from_counts")(_with_tenants(MergesQuotas))


@found_by("test_a_document_stays_with_its_first_tenant")
class GivesADocumentToTheLastTenant(MemoryStorage):
    def give_documents(self, tenant: str, document_ids: Sequence[int]) -> None:
        for document_id in document_ids:
            self._ids[document_id].tenant = tenant
