"""Webhooks in memory: see :mod:`collab.storage.webhooks`.

Strategy: as in :mod:`collab.storage.memory`: each method is one step, so it is a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from collab.errors import NoSuchWebhook
from collab.storage import webhooks as bounds
from collab.storage.records import LogRow, StoredDocument
from collab.storage.timeline import read_restore_label
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    KEPT_ERASED,
    VERSION_RESTORED,
    Attempt,
    Delivery,
    Expired,
    Happened,
    Looked,
    ReceiverState,
    Subscription,
    merge_changes,
    new_event,
    say_changed,
    say_restored,
)


class Documents(Protocol):
    """The documents of the storage, as far as receivers are told of them."""

    def ids_after(self, document_id: int, limit: int) -> list[int]:
        """Give the ids of documents above ``document_id``, in order."""
        ...

    def document(self, document_id: int) -> StoredDocument | None:
        """Give a document or a tombstone."""
        ...

    def rows_of(self, document_id: int, after: int, last: int) -> list[LogRow]:
        """Give the rows with numbers above ``after`` up to ``last``, as far as they are kept."""
        ...


@dataclass(slots=True)
class _Receiver:
    subscription: Subscription
    seen_at: float
    failing_since: float | None = None
    disabled_at: float | None = None
    dropped: int = 0


class MemoryWebhooks:
    """The receivers and deliveries of a storage.

    Args:
        documents: those of the storage.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._lease: tuple[str, float] | None = None
        self._base = 0
        self._receivers: dict[str, _Receiver] = {}
        self._cursors: dict[int, int] = {}
        self._marks: dict[int, float] = {}
        self._deliveries: dict[int, Delivery] = {}
        self._queued: dict[int, float] = {}
        self._last = 0

    # The lease, and who is told

    def claim(self, node: str, seconds: float, now: float) -> bool:
        """Take or renew the lease."""
        if self._lease is None:
            self._base = max(self._documents.ids_after(0, 1 << 60), default=0)
        elif self._lease[0] != node and self._lease[1] > now:
            return False
        self._lease = node, now + seconds
        for receiver in self._receivers.values():
            receiver.seen_at = now
        return True

    def release(self, node: str) -> None:
        """End the lease of a node."""
        if self._lease is not None and self._lease[0] == node:
            self._lease = node, 0.0

    def _held(self, node: str, now: float) -> bool:
        return self._lease is not None and self._lease[0] == node and self._lease[1] > now

    def subscribe(self, node: str, subscriptions: Sequence[Subscription], now: float) -> bool:
        """Keep the receivers."""
        if not self._held(node, now):
            return False
        known, self._receivers = self._receivers, {}
        for each in subscriptions:
            receiver = self._receivers[each.name] = known.get(each.name, _Receiver(each, now))
            receiver.subscription, receiver.seen_at = each, now
        return True

    def _active(self, now: float) -> list[_Receiver]:
        there = self._receivers.values()
        return [each for each in there if each.disabled_at is None and each.seen_at > now - bounds.GIVE_UP_SECONDS]

    # What happens

    def note(self, happened: Happened, now: float, *, changed: bool = False) -> None:
        """Keep what is done with a document that lives, or lived until now."""
        assert happened.document_id is not None
        if not self._active(now):
            return
        self._meet(happened.document_id, now)
        if happened.kind != CREATED:
            self._write([happened], now)
        if changed:
            self.mark([happened.document_id], now)

    def note_end(self, happened: Happened, now: float) -> None:
        """Keep what is done with a document that is gone already."""
        self._write([happened], now)

    def erase(self, document_id: int) -> None:
        """Forget what deliveries say of a document, and how far it was told."""
        gone = [
            number
            for number, each in self._deliveries.items()
            if each.lane == document_id and each.kind not in KEPT_ERASED
        ]
        for number in gone:
            self._forget(number)
        self.forget_cursor(document_id)

    def forget_cursor(self, document_id: int) -> None:
        """Forget how far a document was told."""
        self._cursors.pop(document_id, None)
        self._marks.pop(document_id, None)

    def tell_people(self, events: Sequence[Happened], now: float) -> None:
        """Keep events that nothing else is about."""
        self._write(events, now)

    def _meet(self, document_id: int, now: float) -> None:
        document = self._documents.document(document_id)
        if document_id in self._cursors or document is None:
            return
        self._cursors[document_id] = document.head_seq if document_id <= self._base else 0
        if document_id > self._base:
            self._write([Happened(CREATED, document_id, (document.name,), {"seq": document.head_seq})], now)

    def _write(self, events: Iterable[Happened], now: float, busy: Collection[int] = ()) -> None:
        for happened in events:
            event = new_event()
            for receiver in self._active(now):
                name = receiver.subscription.name
                if not receiver.subscription.wants(happened.kind, *happened.names):
                    continue
                if happened.kind == CHANGED and self._join(name, happened, busy):
                    continue
                if len(self._waiting(name)) >= bounds.MAX_PENDING:
                    receiver.dropped += 1
                    continue
                self._last += 1
                self._queued[self._last] = now
                self._deliveries[self._last] = Delivery(
                    self._last,
                    name,
                    event,
                    happened.kind,
                    happened.lane,
                    happened.names[0],
                    _copied(happened.data),
                    now,
                    0,
                    now,
                    None,
                    False,
                    None,
                    None,
                )

    def _waiting(self, receiver: str) -> list[Delivery]:
        return [each for each in self._deliveries.values() if each.receiver == receiver and each.done_at is None]

    def _join(self, receiver: str, happened: Happened, busy: Collection[int]) -> bool:
        lane = [each for each in self._waiting(receiver) if each.lane == happened.lane]
        if not lane or lane[-1].kind != CHANGED or lane[-1].attempts or lane[-1].number in busy:
            return False
        joined = merge_changes(lane[-1].data, happened.data)
        self._deliveries[lane[-1].number] = lane[-1]._replace(data=joined, name=happened.names[0])
        return True

    # Changes

    def mark(self, document_ids: Collection[int], now: float) -> None:
        """Mark documents."""
        for document_id in document_ids:
            self._marks.setdefault(document_id, now)

    def mark_missed(self, node: str, after: int, limit: int, now: float) -> Looked | None:
        """Mark documents whose head is past their cursor."""
        ids = self._documents.ids_after(after, limit)
        if not ids:
            return Looked(None, 0)
        if not self._held(node, now):
            return None
        for document_id in [each for each in self._cursors if after < each <= ids[-1] and each not in ids]:
            self.forget_cursor(document_id)
        for document_id in ids:
            document = self._documents.document(document_id)
            if document_id <= self._base and document is not None:
                self._cursors.setdefault(document_id, document.head_seq)
        missed = [document_id for document_id in ids if self._is_past(document_id)]
        self.mark(missed, now)
        return Looked(ids[-1], len(missed))

    def _is_past(self, document_id: int) -> bool:
        document = self._documents.document(document_id)
        return (
            document is not None
            and document.deleted_at is None
            and (document_id not in self._cursors or document.head_seq > self._cursors[document_id])
        )

    def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int], now: float) -> int | None:
        """Keep what lies between cursors and heads of marked documents, and move the cursors."""
        if not self._held(node, now):
            return None
        in_order = sorted(self._marks.items(), key=lambda each: each[1])
        chosen = [(each, at) for each, at in in_order if at <= now - seconds or each not in self._cursors][:limit]
        for document_id, at in chosen:
            due = at <= now - seconds
            if due:
                del self._marks[document_id]
            document = self._documents.document(document_id)
            if document is None or document.deleted_at is not None:
                continue
            self._meet(document_id, now)
            cursor = self._cursors[document_id]
            if due and document.head_seq > cursor:
                self._cursors[document_id] = document.head_seq
                data = self._read_change(document_id, cursor + 1, document.head_seq)
                happened = [Happened(CHANGED, document_id, (document.name,), data)]
                for said in self._read_restored(document_id, cursor, document.head_seq):
                    happened.append(Happened(VERSION_RESTORED, document_id, (document.name,), said))
                self._write(happened, now, busy)
        return len(chosen)

    def _read_change(self, document_id: int, first: int, last: int) -> dict[str, Any]:
        looked = max(first, last - bounds.AUTHOR_ROWS + 1)
        rows = self._documents.rows_of(document_id, looked - 1, last)
        authors = {row.author for row in rows if row.author is not None}
        others = {row.note.on_behalf_of for row in rows if row.note is not None and row.note.on_behalf_of is not None}
        return say_changed(first, last, authors, others, more=looked > first)

    def _read_restored(self, document_id: int, after: int, last: int) -> list[dict[str, Any]]:
        found = []
        for row in self._documents.rows_of(document_id, after, last):
            note = row.note
            restored = None if note is None else read_restore_label(note.label)
            if note is not None and restored is not None:
                found.append(say_restored(row.seq, row.author, note.on_behalf_of, restored))
        return found[-bounds.MAX_RESTORED :]

    # Deliveries

    def due(self, receiver: str, limit: int, busy: Collection[int], now: float) -> list[Delivery]:
        """Give the first delivery that waits of each lane, if it is due."""
        known = self._receivers.get(receiver)
        if known is None or known.disabled_at is not None:
            return []
        first: dict[int, Delivery] = {}
        for each in self._waiting(receiver):
            first.setdefault(each.lane, each)
        found = [each for each in first.values() if each.due_at <= now and each.lane not in busy]
        return sorted(found)[:limit]

    def settle(self, node: str, attempts: Sequence[Attempt], disable: Collection[str], now: float) -> bool:
        """Keep what became of attempts."""
        if not self._held(node, now):
            return False
        went_well: dict[str, bool] = {}
        for attempt in attempts:
            found = self._deliveries.get(attempt.number)
            if found is None:
                continue
            went_well[found.receiver] = went_well.get(found.receiver, False) or attempt.delivered
            if found.done_at is None:
                found = found._replace(status=attempt.status, error=attempt.error)
                if attempt.delivered:
                    found = found._replace(done_at=now, delivered=True)
                else:
                    found = found._replace(attempts=found.attempts + 1, due_at=now + attempt.pause)
                self._deliveries[attempt.number] = found
        for name, well in went_well.items():
            if (receiver := self._receivers.get(name)) is not None:
                receiver.failing_since = None if well else receiver.failing_since or now
        for name in disable:
            if (receiver := self._receivers.get(name)) is not None and receiver.disabled_at is None:
                receiver.disabled_at = now
        return True

    def expire(self, node: str, disable_after: float, now: float) -> Expired | None:
        """Do what time does."""
        if not self._held(node, now):
            return None
        disabled = []
        for name, receiver in sorted(self._receivers.items()):
            since = receiver.failing_since
            if since is not None and since <= now - disable_after and receiver.disabled_at is None:
                receiver.disabled_at = now
                disabled.append(name)
        given_up: dict[str, int] = {}
        for number, each in list(self._deliveries.items()):
            if each.done_at is None and self._queued[number] <= now - bounds.GIVE_UP_SECONDS:
                self._deliveries[number] = each._replace(done_at=now)
                given_up[each.receiver] = given_up.get(each.receiver, 0) + 1
        kept: dict[str, int] = {}
        for number, each in sorted(self._deliveries.items(), reverse=True):
            old = False
            if each.done_at is not None:
                kept[each.receiver] = kept.get(each.receiver, 0) + 1
                old = each.done_at <= now - bounds.LOG_SECONDS or kept[each.receiver] > bounds.MAX_LOG
            if old or each.receiver not in self._receivers:
                self._forget(number)
        return Expired(given_up, tuple(disabled), False)

    def _forget(self, number: int) -> None:
        del self._deliveries[number], self._queued[number]

    # For operators

    def receivers(self) -> list[ReceiverState]:
        """Tell how receivers stand."""
        found = []
        for name, receiver in sorted(self._receivers.items()):
            waiting = [self._queued[each.number] for each in self._waiting(name)]
            done = [each for each in self._deliveries.values() if each.receiver == name and each.done_at is not None]
            delivered = sum([each.delivered for each in done])
            found.append(
                ReceiverState(
                    receiver.subscription,
                    receiver.failing_since,
                    receiver.disabled_at,
                    len(waiting),
                    min(waiting, default=None),
                    delivered,
                    len(done) - delivered,
                    receiver.dropped,
                )
            )
        return found

    def deliveries(self, receiver: str | None, state: str | None, before: int | None, limit: int) -> list[Delivery]:
        """Give deliveries, the newest first."""
        found = [
            each
            for number, each in self._deliveries.items()
            if receiver in (None, each.receiver) and state in (None, each.state) and (before is None or number < before)
        ]
        return sorted(found, reverse=True)[:limit]

    def resend(self, number: int, now: float) -> Delivery:
        """Let one delivery wait again."""
        if number not in self._deliveries:
            raise NoSuchWebhook(f"no delivery {number} is kept")
        self._queued[number] = now
        found = self._deliveries[number]._replace(done_at=None, delivered=False, attempts=0, due_at=now)
        self._deliveries[number] = found
        return found

    def resend_failed(self, receiver: str, since: float, now: float) -> int:
        """Let all deliveries of a receiver wait again that were given up."""
        self._require(receiver)
        failed = [
            each.number
            for each in self._deliveries.values()
            if each.receiver == receiver
            and each.state == "failed"
            and each.done_at is not None
            and each.done_at >= since
        ]
        for number in failed:
            self.resend(number, now)
        return len(failed)

    def enable(self, receiver: str, now: float) -> None:
        """Enable a receiver, and let what waits for it be tried at once."""
        known = self._require(receiver)
        known.disabled_at = known.failing_since = None
        known.seen_at = now
        for each in self._waiting(receiver):
            self._deliveries[each.number] = each._replace(due_at=min(each.due_at, now))

    def _require(self, receiver: str) -> _Receiver:
        if receiver not in self._receivers:
            raise NoSuchWebhook(f"there is no receiver {receiver!r}")
        return self._receivers[receiver]


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(data))
    return copied
