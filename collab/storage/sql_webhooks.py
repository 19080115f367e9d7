"""Webhooks in SQL: functions for one connection each; see :mod:`collab.storage.webhooks`.

Strategy: as in :mod:`collab.storage.sql`, which runs them. Times are the database's own. Whoever writes deliveries of a
document locks its cursor first, so their numbers are in the order of what happened, whichever node it was on. Locks of
several marks or cursors are taken in the order of the documents' ids.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from collab.errors import NoSuchWebhook
from collab.storage import webhooks as bounds
from collab.storage.batch import decode_author
from collab.storage.records import StoredDocument
from collab.storage.schema import (
    documents,
    log,
    webhook_cursors,
    webhook_deliveries,
    webhook_lease,
    webhook_marks,
    webhook_receivers,
)
from collab.storage.sql_control import read_time
from collab.storage.timeline import RESTORE, read_restore_label
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    KEPT_ERASED,
    VERSION_RESTORED,
    Attempt,
    Delivery,
    Expired,
    Happened,
    ReceiverState,
    Subscription,
    merge_changes,
    new_event,
    say_changed,
    say_restored,
)

Clock = ColumnElement[float]

_LEASE = "delivery"

# For the two databases alike. A mark that is about to be removed by a transaction is waited for, and is there again
# afterwards: DO NOTHING would see it and go.
_MARK = text(
    "INSERT INTO webhook_marks (document_id, at) VALUES (:document_id, :at) "
    "ON CONFLICT (document_id) DO UPDATE SET at = webhook_marks.at"
)
_MEET = text("INSERT INTO webhook_cursors (document_id, seq) VALUES (:document_id, 0) ON CONFLICT DO NOTHING")
# Those that were there before anybody was told of anything.
_ADOPT = text(
    "INSERT INTO webhook_cursors (document_id, seq) SELECT id, head_seq FROM documents WHERE id > :after "
    "AND id <= :last AND id <= :base AND NOT EXISTS (SELECT 1 FROM webhook_cursors WHERE document_id = documents.id) "
    "ORDER BY id ON CONFLICT DO NOTHING"
)

_deliveries = webhook_deliveries.c
_waiting = _deliveries.done_at.is_(None)


# The lease, and who is told


def claim(connection: Connection, clock: Clock, node: str, seconds: float, *, shared: bool) -> bool:
    """Take or renew the lease; without ``shared`` storage whoever had it is gone."""
    at = read_time(connection, clock)
    row = connection.execute(select(webhook_lease).where(webhook_lease.c.name == _LEASE).with_for_update()).first()
    if row is None:
        base = connection.execute(select(func.coalesce(func.max(documents.c.id), 0))).scalar_one()
        values = {"name": _LEASE, "node": node, "until": at + seconds, "base_id": base}
        try:
            with connection.begin_nested():
                connection.execute(insert(webhook_lease).values(values))
        except IntegrityError:
            return False  # another node was quicker
        return True
    if row.node != node and row.until > at and shared:
        return False
    connection.execute(update(webhook_lease).values(node=node, until=at + seconds))
    part = webhook_receivers.c
    connection.execute(update(webhook_receivers).where(part.seen_at < at - bounds.SEEN_SECONDS).values(seen_at=at))
    return True


def release(connection: Connection, node: str) -> None:
    """End the lease of a node."""
    connection.execute(update(webhook_lease).where(webhook_lease.c.node == node).values(until=0.0))


def _held(connection: Connection, node: str, at: float) -> Row[Any] | None:
    """Give the lease if a node holds it, locked so that it cannot be lost before this transaction ends."""
    mine = (webhook_lease.c.name == _LEASE, webhook_lease.c.node == node, webhook_lease.c.until > at)
    return connection.execute(select(webhook_lease).where(*mine).with_for_update()).first()


def subscribe(connection: Connection, clock: Clock, node: str, subscriptions: Sequence[Subscription]) -> bool:
    """Write the receivers; deliveries of those that are no more go with ``expire``."""
    at = read_time(connection, clock)
    if _held(connection, node, at) is None:
        return False
    part = webhook_receivers.c
    connection.execute(delete(webhook_receivers).where(part.name.not_in([each.name for each in subscriptions])))
    known = set(connection.execute(select(part.name)).scalars())
    for each in subscriptions:
        values = {"kinds": ",".join(each.kinds), "prefix": each.prefix.encode(), "seen_at": at}
        if each.name in known:
            connection.execute(update(webhook_receivers).where(part.name == each.name).values(values))
        else:
            connection.execute(insert(webhook_receivers).values(name=each.name, dropped=0, **values))
    return True


def _subscription(row: Row[Any]) -> Subscription:
    kinds = tuple(row.kinds.split(",")) if row.kinds else ()
    return Subscription(row.name, kinds, bytes(row.prefix).decode(errors="replace"))


def _active(connection: Connection, at: float) -> list[Subscription]:
    """Give the receivers that are told of what happens now."""
    part = webhook_receivers.c
    there = (part.disabled_at.is_(None), part.seen_at > at - bounds.GIVE_UP_SECONDS)
    return [_subscription(row) for row in connection.execute(select(webhook_receivers).where(*there))]


# What happens


def note(connection: Connection, clock: Clock, happened: Happened, *, changed: bool = False) -> None:
    """Write what the transaction does with a document that lives, or lived until now; ``changed``: it has new rows."""
    at = read_time(connection, clock)
    receivers = _active(connection, at)
    if not receivers:
        return
    document_id = happened.document_id
    assert document_id is not None
    _meet(connection, receivers, at, _base(connection), [document_id])
    _lock_cursors(connection, [document_id])
    if happened.kind != CREATED:  # else it was told by that
        _write(connection, receivers, at, [happened])
    if changed:
        connection.execute(_MARK, {"document_id": document_id, "at": at})


def note_created(connection: Connection, clock: Clock, document: StoredDocument) -> None:
    """Write that a document was created."""
    data = {"seq": document.head_seq}
    note(
        connection,
        clock,
        Happened(CREATED, document.id, (document.name,), data),
        changed=document.head_seq > 0,
    )


def note_end(connection: Connection, clock: Clock, happened: Happened) -> None:
    """Write what the transaction does with a document that is gone already: nobody is told that it was created."""
    at = read_time(connection, clock)
    if receivers := _active(connection, at):
        assert happened.document_id is not None
        _lock_cursors(connection, [happened.document_id])
        _write(connection, receivers, at, [happened])


def erase(connection: Connection, document_id: int) -> None:
    """Remove what deliveries say of a document, beside that it was deleted."""
    gone = (_deliveries.lane == document_id, _deliveries.kind.not_in(KEPT_ERASED))
    connection.execute(delete(webhook_deliveries).where(*gone))


def tell_people(connection: Connection, clock: Clock, events: Sequence[Happened]) -> None:
    """Write what no transaction is about."""
    at = read_time(connection, clock)
    if receivers := _active(connection, at):
        _write(connection, receivers, at, events)


def _base(connection: Connection) -> int:
    """Give the last id of a document that was there before anybody was told of anything."""
    query = select(webhook_lease.c.base_id).where(webhook_lease.c.name == _LEASE)
    base: int | None = connection.execute(query).scalar()
    return 0 if base is None else base


def _meet(
    connection: Connection,
    receivers: Sequence[Subscription],
    at: float,
    base: int,
    document_ids: Sequence[int],
    *conditions: ColumnElement[bool],
) -> None:
    """Give documents cursors that have none, if the conditions hold, and tell that they were created."""
    known = exists().where(webhook_cursors.c.document_id == documents.c.id)
    found = select(documents.c.id, documents.c.name, documents.c.head_seq).where(
        documents.c.id.in_(document_ids), documents.c.name.is_not(None), not_(known), *conditions
    )
    for row in connection.execute(found.order_by(documents.c.id)).all():
        if not connection.execute(_MEET, {"document_id": row.id}).rowcount:
            continue  # another transaction has told of it
        if row.id <= base:
            connection.execute(
                update(webhook_cursors).where(webhook_cursors.c.document_id == row.id).values(seq=row.head_seq)
            )
        else:
            names = (row.name.decode(errors="replace"),)
            _write(connection, receivers, at, [Happened(CREATED, row.id, names, {"seq": row.head_seq})])


def _lock_cursors(connection: Connection, document_ids: Sequence[int]) -> dict[int, int]:
    """Lock cursors until the transaction ends, and read them."""
    part = webhook_cursors.c
    query = select(part.document_id, part.seq).where(part.document_id.in_(document_ids)).order_by(part.document_id)
    return {row.document_id: row.seq for row in connection.execute(query.with_for_update())}


def _write(
    connection: Connection,
    receivers: Sequence[Subscription],
    at: float,
    events: Iterable[Happened],
    busy: Collection[int] = (),
) -> None:
    """Write the deliveries of events."""
    room: dict[str, int] = {}
    dropped: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for happened in events:
        event = new_event()
        for receiver in receivers:
            if not receiver.wants(happened.kind, *happened.names):
                continue
            if happened.kind == CHANGED and _join(connection, receiver.name, happened, busy):
                continue
            if receiver.name not in room:
                room[receiver.name] = bounds.MAX_PENDING - _count_waiting(connection, receiver.name)
            if room[receiver.name] <= 0:
                dropped[receiver.name] = dropped.get(receiver.name, 0) + 1
                continue
            room[receiver.name] -= 1
            rows.append(
                {
                    "receiver": receiver.name,
                    "event": event,
                    "kind": happened.kind,
                    "lane": happened.lane,
                    "name": happened.names[0].encode(errors="replace"),
                    "data": _encode(happened.data),
                    "at": at,
                    "queued_at": at,
                    "attempts": 0,
                    "due_at": at,
                    "delivered": False,
                }
            )
    if rows:
        connection.execute(insert(webhook_deliveries), rows)
    part = webhook_receivers.c
    for name, count in dropped.items():
        connection.execute(update(webhook_receivers).where(part.name == name).values(dropped=part.dropped + count))


def _count_waiting(connection: Connection, receiver: str) -> int:
    """Count what waits for a receiver, as far as it matters."""
    some = select(_deliveries.id).where(_deliveries.receiver == receiver, _waiting).limit(bounds.MAX_PENDING).subquery()
    count: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return count


def _join(connection: Connection, receiver: str, happened: Happened, busy: Collection[int]) -> bool:
    """Let a change join the delivery that waits behind all others of its lane, if that is one, too."""
    mine = (_deliveries.receiver == receiver, _deliveries.lane == happened.lane, _waiting)
    query = select(_deliveries.id, _deliveries.kind, _deliveries.attempts, _deliveries.data).where(*mine)
    last = connection.execute(query.order_by(_deliveries.id.desc()).limit(1)).first()
    if last is None or last.kind != CHANGED or last.attempts or last.id in busy:
        return False
    joined = merge_changes(_decode(last.data), happened.data)
    values = {"data": _encode(joined), "name": happened.names[0].encode(errors="replace")}
    connection.execute(update(webhook_deliveries).where(_deliveries.id == last.id).values(values))
    return True


# Changes


def mark(connection: Connection, clock: Clock, document_ids: Collection[int]) -> None:
    """Mark documents."""
    at = read_time(connection, clock)
    connection.execute(_MARK, [{"document_id": each, "at": at} for each in sorted(document_ids)])


class Found(NamedTuple):
    """A look at a part of all documents: its last id, those past their cursor, whether some have none, or are gone."""

    last: int
    past: list[int]
    work: bool


def find_missed(connection: Connection, after: int, limit: int) -> Found | None:
    """Look at a part of all documents; None if there are no more."""
    page = select(documents.c.id).where(documents.c.id > after).order_by(documents.c.id).limit(limit).subquery()
    last: int | None = connection.execute(select(func.max(page.c.id))).scalar()
    if last is None:
        return None
    joined = documents.outerjoin(webhook_cursors, webhook_cursors.c.document_id == documents.c.id)
    query = select(documents.c.id).select_from(joined)
    living = (documents.c.id > after, documents.c.id <= last, documents.c.deleted_at.is_(None))
    past = or_(webhook_cursors.c.seq.is_(None), documents.c.head_seq > webhook_cursors.c.seq)
    found = list(connection.execute(query.where(*living, past).order_by(documents.c.id)).scalars())
    gone = [exists().where(*_gone(table, after, last)) for table in (webhook_cursors, webhook_marks)]
    left = connection.execute(select(literal(1)).where(or_(*gone))).first() is not None
    return Found(last, found, bool(found) or left)


def _gone(table: Table, after: int, last: int) -> list[ColumnElement[bool]]:
    """Choose what belongs to documents that are gone: an older release that prunes leaves it behind."""
    there = exists().where(documents.c.id == table.c.document_id).correlate(table)
    return [table.c.document_id > after, table.c.document_id <= last, not_(there)]


def mark_missed(
    connection: Connection, clock: Clock, node: str, after: int, last: int, found: Sequence[int]
) -> int | None:
    """Mark documents that were found; those that were there before anybody was told of anything get their cursors."""
    at = read_time(connection, clock)
    lease = _held(connection, node, at)
    if lease is None:
        return None
    for table in (webhook_cursors, webhook_marks):
        connection.execute(delete(table).where(*_gone(table, after, last)))
    connection.execute(_ADOPT, {"after": after, "last": last, "base": lease.base_id})
    part = webhook_cursors.c
    known = select(part.document_id, part.seq).where(part.document_id.in_(found))
    cursors = {row.document_id: row.seq for row in connection.execute(known)}
    heads = select(documents.c.id, documents.c.head_seq).where(documents.c.id.in_(found)).order_by(documents.c.id)
    marked = [
        {"document_id": row.id, "at": at} for row in connection.execute(heads) if row.head_seq > cursors.get(row.id, -1)
    ]
    if marked:
        connection.execute(_MARK, marked)
    return len(marked)


def has_marks(connection: Connection, clock: Clock, seconds: float) -> bool:
    """Tell whether there is anything to be told: a look that writes nothing."""
    return connection.execute(select(literal(1)).where(exists().where(_is_due(clock, seconds)))).first() is not None


def _is_due(at: float | Clock, seconds: float) -> ColumnElement[bool]:
    known = exists().where(webhook_cursors.c.document_id == webhook_marks.c.document_id).correlate(webhook_marks)
    return or_(webhook_marks.c.at <= at - seconds, not_(known))


def tell_changed(
    connection: Connection, clock: Clock, node: str, seconds: float, limit: int, busy: Collection[int]
) -> int | None:
    """Write what lies between cursors and heads of marked documents, and move the cursors."""
    at = read_time(connection, clock)
    lease = _held(connection, node, at)
    if lease is None:
        return None
    marks = webhook_marks.c
    chosen = select(marks.document_id).where(_is_due(at, seconds)).order_by(marks.at).limit(limit)
    ids = sorted(connection.execute(chosen).scalars())
    if not ids:
        return 0
    # First the marks: what is committed from here on is marked anew, however long that has to wait.
    locked = select(marks.document_id, marks.at).where(marks.document_id.in_(ids)).order_by(marks.document_id)
    due = [row.document_id for row in connection.execute(locked.with_for_update()) if row.at <= at - seconds]
    connection.execute(delete(webhook_marks).where(marks.document_id.in_(due)))
    receivers = _active(connection, at)
    _meet(connection, receivers, at, lease.base_id, ids, documents.c.deleted_at.is_(None))
    cursors = _lock_cursors(connection, due)
    living = (documents.c.id.in_(list(cursors)), documents.c.deleted_at.is_(None), documents.c.name.is_not(None))
    query = select(documents.c.id, documents.c.name, documents.c.head_seq).where(*living).order_by(documents.c.id)
    for row in connection.execute(query).all():
        if row.head_seq <= cursors[row.id]:
            continue
        data = _read_change(connection, row.id, cursors[row.id] + 1, row.head_seq)
        names = (row.name.decode(errors="replace"),)
        happened = [Happened(CHANGED, row.id, names, data)]
        happened += [
            Happened(VERSION_RESTORED, row.id, names, said)
            for said in _read_restored(connection, row.id, cursors[row.id] + 1, row.head_seq)
        ]
        _write(connection, receivers, at, happened, busy)
        mine = webhook_cursors.c.document_id == row.id
        connection.execute(update(webhook_cursors).where(mine).values(seq=row.head_seq))
    return len(ids)


def _read_change(connection: Connection, document_id: int, first: int, last: int) -> dict[str, Any]:
    """Say which rows have come, and whose the newest ones are."""
    looked = max(first, last - bounds.AUTHOR_ROWS + 1)
    mine = (log.c.document_id == document_id, log.c.seq >= looked, log.c.seq <= last)
    authors: set[str] = set()
    others: set[str] = set()
    for author, other in connection.execute(select(log.c.author, log.c.on_behalf_of).where(*mine).distinct()):
        authors |= {text for text in [decode_author(author)] if text is not None}
        others |= {text for text in [decode_author(other)] if text is not None}
    return say_changed(first, last, authors, others, more=looked > first)


def _read_restored(connection: Connection, document_id: int, first: int, last: int) -> list[dict[str, Any]]:
    """Say which of the rows restore an older state, in their order."""
    begins = RESTORE.encode()
    mine = (log.c.document_id == document_id, log.c.seq >= first, log.c.seq <= last)
    # All labels that begin so; the next larger ones begin with another last letter.
    labelled = (log.c.label >= begins, log.c.label < begins[:-1] + bytes([begins[-1] + 1]))
    query = select(log.c.seq, log.c.author, log.c.on_behalf_of, log.c.label).where(*mine, *labelled)
    found = connection.execute(query.order_by(log.c.seq.desc()).limit(bounds.MAX_RESTORED)).all()
    return [
        say_restored(row.seq, decode_author(row.author), decode_author(row.on_behalf_of), restored)
        for row in reversed(found)
        if (restored := read_restore_label(decode_author(row.label))) is not None
    ]


# Deliveries


def due(connection: Connection, clock: Clock, receiver: str, limit: int, busy: Collection[int]) -> list[Delivery]:
    """Read the first delivery that waits of each lane, if it is due."""
    at = read_time(connection, clock)
    before = webhook_deliveries.alias("before")
    blocked = exists().where(
        before.c.receiver == _deliveries.receiver,
        before.c.lane == _deliveries.lane,
        before.c.done_at.is_(None),
        before.c.id < _deliveries.id,
    )
    enabled = exists().where(webhook_receivers.c.name == receiver, webhook_receivers.c.disabled_at.is_(None))
    mine = and_(_deliveries.receiver == receiver, _waiting, _deliveries.due_at <= at, enabled, not_(blocked))
    query = select(webhook_deliveries).where(mine, _deliveries.lane.not_in(list(busy)))
    return [_delivery(row) for row in connection.execute(query.order_by(_deliveries.id).limit(limit))]


def settle(
    connection: Connection, clock: Clock, node: str, attempts: Sequence[Attempt], disable: Collection[str]
) -> bool:
    """Note what became of attempts."""
    at = read_time(connection, clock)
    if _held(connection, node, at) is None:
        return False
    part = webhook_receivers.c
    went_well: dict[str, bool] = {}
    numbers = [each.number for each in attempts]
    found = select(_deliveries.id, _deliveries.receiver).where(_deliveries.id.in_(numbers))
    names = {row.id: row.receiver for row in connection.execute(found)}
    # Before the deliveries, as operators do who enable one.
    touched = select(part.name).where(part.name.in_(sorted({*names.values(), *disable}))).order_by(part.name)
    connection.execute(touched.with_for_update()).all()
    for each in attempts:
        name = names.get(each.number)
        if name is None:
            continue  # erased meanwhile
        went_well[name] = went_well.get(name, False) or each.delivered
        values: dict[str, Any] = {"status": each.status, "error": None if each.error is None else each.error.encode()}
        if each.delivered:
            values |= {"done_at": at, "delivered": True}
        else:
            values |= {"attempts": _deliveries.attempts + 1, "due_at": at + each.pause}
        connection.execute(update(webhook_deliveries).where(_deliveries.id == each.number, _waiting).values(values))
    for name, well in sorted(went_well.items()):
        mine = (part.name == name, part.failing_since.is_not(None) if well else part.failing_since.is_(None))
        connection.execute(update(webhook_receivers).where(*mine).values(failing_since=None if well else at))
    _disable(connection, at, part.name.in_(sorted(disable)))
    return True


def _disable(connection: Connection, at: float, condition: ColumnElement[bool]) -> list[str]:
    part = webhook_receivers.c
    statement = update(webhook_receivers).where(condition, part.disabled_at.is_(None)).values(disabled_at=at)
    return sorted(connection.execute(statement.returning(part.name)).scalars())


def expire(connection: Connection, clock: Clock, node: str, disable_after: float) -> Expired | None:
    """Do what time does, at most one portion of each."""
    at = read_time(connection, clock)
    if _held(connection, node, at) is None:
        return None
    disabled = _disable(connection, at, webhook_receivers.c.failing_since <= at - disable_after)
    old = (
        select(_deliveries.id)
        .where(_waiting, _deliveries.queued_at <= at - bounds.GIVE_UP_SECONDS)
        .limit(bounds.PORTION)
    )
    ids = list(connection.execute(old).scalars())
    given_up: dict[str, int] = {}
    if ids:
        statement = update(webhook_deliveries).where(_deliveries.id.in_(ids)).values(done_at=at)
        for name in connection.execute(statement.returning(_deliveries.receiver)).scalars():
            given_up[name] = given_up.get(name, 0) + 1
    removed = 0
    known = list(connection.execute(select(webhook_receivers.c.name)).scalars())
    removed += _remove(connection, _deliveries.receiver.not_in(known))
    removed += _remove(connection, _deliveries.done_at <= at - bounds.LOG_SECONDS)
    for name in known:
        done = (_deliveries.receiver == name, _deliveries.done_at.is_not(None))
        past = select(_deliveries.id).where(*done).order_by(_deliveries.id.desc()).offset(bounds.MAX_LOG).limit(1)
        last: int | None = connection.execute(past).scalar()
        if last is not None:
            removed += _remove(connection, and_(*done, _deliveries.id <= last))
    return Expired(given_up, tuple(disabled), len(ids) == bounds.PORTION or removed >= bounds.PORTION)


def _remove(connection: Connection, condition: ColumnElement[bool]) -> int:
    chosen = select(_deliveries.id).where(condition).limit(bounds.PORTION).subquery()
    return connection.execute(delete(webhook_deliveries).where(_deliveries.id.in_(select(chosen.c.id)))).rowcount


# For operators


def receivers(connection: Connection) -> list[ReceiverState]:
    """Read how receivers stand."""
    counts: dict[tuple[str, str], int] = {}
    oldest: dict[str, float] = {}
    waiting = select(_deliveries.receiver, func.count(), func.min(_deliveries.queued_at)).where(_waiting)
    for name, count, at in connection.execute(waiting.group_by(_deliveries.receiver)):
        counts[name, "pending"], oldest[name] = count, at
    done = select(_deliveries.receiver, _deliveries.delivered, func.count()).where(_deliveries.done_at.is_not(None))
    for name, delivered, count in connection.execute(done.group_by(_deliveries.receiver, _deliveries.delivered)):
        counts[name, "delivered" if delivered else "failed"] = count
    return [
        ReceiverState(
            _subscription(row),
            row.failing_since,
            row.disabled_at,
            counts.get((row.name, "pending"), 0),
            oldest.get(row.name),
            counts.get((row.name, "delivered"), 0),
            counts.get((row.name, "failed"), 0),
            row.dropped,
        )
        for row in connection.execute(select(webhook_receivers).order_by(webhook_receivers.c.name))
    ]


def list_deliveries(
    connection: Connection, receiver: str | None, state: str | None, before: int | None, limit: int
) -> list[Delivery]:
    """List deliveries, the newest first."""
    conditions: list[ColumnElement[bool]] = []
    if receiver is not None:
        conditions.append(_deliveries.receiver == receiver)
    if state == "pending":
        conditions.append(_waiting)
    elif state is not None:
        conditions += [_deliveries.done_at.is_not(None), _deliveries.delivered.is_(state == "delivered")]
    if before is not None:
        conditions.append(_deliveries.id < before)
    query = select(webhook_deliveries).where(*conditions).order_by(_deliveries.id.desc()).limit(limit)
    return [_delivery(row) for row in connection.execute(query)]


def resend(connection: Connection, clock: Clock, number: int) -> Delivery:
    """Let one delivery wait again."""
    again = _again(read_time(connection, clock))
    statement = update(webhook_deliveries).where(_deliveries.id == number).values(again)
    row = connection.execute(statement.returning(webhook_deliveries)).first()
    if row is None:
        raise NoSuchWebhook(f"no delivery {number} is kept")
    return _delivery(row)


def resend_failed(connection: Connection, clock: Clock, receiver: str, since: float) -> int:
    """Let all deliveries of a receiver wait again that were given up."""
    _require(connection, receiver)
    failed = (_deliveries.receiver == receiver, _deliveries.done_at >= since, _deliveries.delivered.is_(False))
    statement = update(webhook_deliveries).where(*failed).values(_again(read_time(connection, clock)))
    return connection.execute(statement).rowcount


def _again(at: float) -> dict[str, Any]:
    return {"done_at": None, "delivered": False, "attempts": 0, "due_at": at, "queued_at": at}


def enable(connection: Connection, clock: Clock, receiver: str) -> None:
    """Enable a receiver, and let what waits for it be tried at once."""
    at = read_time(connection, clock)
    _require(connection, receiver)
    mine = webhook_receivers.c.name == receiver
    connection.execute(update(webhook_receivers).where(mine).values(disabled_at=None, failing_since=None, seen_at=at))
    late = (_deliveries.receiver == receiver, _waiting, _deliveries.due_at > at)
    connection.execute(update(webhook_deliveries).where(*late).values(due_at=at))


def _require(connection: Connection, receiver: str) -> None:
    there = select(webhook_receivers.c.name).where(webhook_receivers.c.name == receiver).with_for_update()
    if connection.execute(there).first() is None:
        raise NoSuchWebhook(f"there is no receiver {receiver!r}")


def _encode(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _decode(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        number=row.id,
        receiver=row.receiver,
        event=row.event,
        kind=row.kind,
        lane=row.lane,
        name=bytes(row.name).decode(errors="replace"),
        data=_decode(row.data),
        at=row.at,
        attempts=row.attempts,
        due_at=row.due_at,
        done_at=row.done_at,
        delivered=row.delivered,
        status=row.status,
        error=None if row.error is None else bytes(row.error).decode(errors="replace"),
    )
