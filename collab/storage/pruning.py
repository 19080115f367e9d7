"""Pruning of the SQL store: which rows and snapshots nobody needs any more, and their removal in portions.

Strategy: each portion is one transaction, so one that is cut off has removed nothing. It locks its document against
other nodes that prune it, and against those who note damage or replace snapshots; then it looks once more at what it
goes by. Appends wait for none of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    update,
)

from collab.storage.backend import Backend
from collab.storage.batch import encode_name
from collab.storage.membership import FORGET_SECONDS
from collab.storage.schema import (
    OF_DOCUMENT,
    client_owners,
    damage,
    documents,
    guests,
    log,
    nodes,
    pending,
    producers,
    snapshots,
    trash,
    versions,
    writers,
)
from collab.storage.spacing import superfluous
from collab.storage.sql_catalogue import under
from collab.storage.versions import History, Kind

PRUNE_PAGE = 500
"""Documents looked at in one query for something to prune."""


def pruning_lock(document_id: int) -> str:
    """Name the lock of those who prune a document, and of those who change what pruning goes by."""
    return f"prune {document_id}"


def needed(document_id: ColumnElement[int]) -> Any:
    """Give the query for the lowest number that a named version needs the log for; NULL if none does."""
    mine = (versions.c.document_id == document_id, versions.c.kind == Kind.NAMED.value, versions.c.pinned.is_(False))
    return select(func.min(versions.c.seq)).where(*mine)


def kept_since(before: float, histories: Sequence[History]) -> ColumnElement[float]:
    """Give the expression for the time since which every state of a document is kept (``versions.history_of``)."""
    if not histories:
        return literal(before)
    cases = []
    for each in histories:
        prefix, star, _ = each.pattern.partition("*")
        same = and_(true(), *under(documents.c.name, prefix)) if star else documents.c.name == encode_name(each.pattern)
        cases.append((and_(documents.c.name.is_not(None), same), literal(each.before)))
    return case(*cases, else_=literal(before))


Prunable = tuple[list[tuple[int, int | None]], int | None]


def find_prunable(
    after: int, before: float, trash_before: float, histories: Sequence[History] = ()
) -> Callable[[Connection], Prunable]:
    """Look at a page of documents for what may go.

    Gives the documents with something to remove, each with the number of the snapshot that its history is to begin
    with (None: deleted, all may go), and the last id that was looked at (None: there are no more documents). Documents
    that are in the trash since ``trash_before`` or later are kept.
    """

    def read(connection: Connection) -> Prunable:
        first_kept = (
            select(log.c.seq)
            .where(log.c.document_id == documents.c.id, log.c.at >= kept_since(before, histories))
            .order_by(log.c.seq)
            .limit(1)
            .correlate(documents)
            .scalar_subquery()
        )
        page = (
            select(
                documents.c.id,
                documents.c.name,
                documents.c.deleted_at,
                func.coalesce(first_kept - 1, documents.c.head_seq).label("last_old"),
            )
            .where(documents.c.id > after)
            .order_by(documents.c.id)
            .limit(PRUNE_PAGE)
            .cte("page")
        )

        def edge(of: Any, table: Table, *conditions: ColumnElement[bool]) -> Any:
            chosen = select(of(table.c.seq)).where(table.c.document_id == page.c.id, *conditions)
            return chosen.correlate(page).scalar_subquery()

        newest_but_one = (
            select(snapshots.c.seq)
            .where(snapshots.c.document_id == page.c.id, snapshots.c.checksum.is_not(None))
            .order_by(snapshots.c.seq.desc())
            .limit(1)
            .offset(1)
            .correlate(page)
            .scalar_subquery()
        )
        possible = (
            snapshots.c.checksum.is_not(None),
            snapshots.c.seq <= page.c.last_old,
            snapshots.c.seq <= newest_but_one,
            # A named version that is not pinned needs all from the snapshot before it on.
            snapshots.c.seq <= func.coalesce(needed(page.c.id).correlate(page).scalar_subquery(), page.c.last_old),
        )
        query = select(
            page.c.id,
            page.c.name,
            page.c.deleted_at,
            edge(func.max, snapshots, *possible).label("base"),
            exists().where(damage.c.document_id == page.c.id).correlate(page).label("damaged"),
            edge(func.min, snapshots).label("oldest_snapshot"),
            edge(func.min, log).label("oldest_row"),
            exists().where(pending.c.document_id == page.c.id).correlate(page).label("waiting"),
            select(trash.c.deleted_at)
            .where(trash.c.document_id == page.c.id)
            .correlate(page)
            .scalar_subquery()
            .label("trashed_at"),
            exists().where(client_owners.c.document_id == page.c.id).correlate(page).label("owned"),
        ).order_by(page.c.id)
        work: list[tuple[int, int | None]] = []
        last = None
        for row in connection.execute(query):
            last = row.id
            if row.deleted_at is not None:
                if row.trashed_at is not None and row.trashed_at >= trash_before:
                    continue
                if (
                    row.name is None
                    or row.trashed_at is not None
                    or row.waiting
                    or row.owned
                    or row.oldest_row is not None
                    or row.oldest_snapshot is not None
                ):
                    work.append((row.id, None))
            elif (
                row.base is not None
                and not row.damaged
                and (row.oldest_snapshot < row.base or (row.oldest_row is not None and row.oldest_row <= row.base))
            ):
                work.append((row.id, row.base))
        return work, last

    return read


def remove(
    backend: Backend,
    document_id: int,
    base: int | None,
    budget: int,
    trash_before: float = math.inf,
    *,
    wait: bool = False,
) -> Callable[[Connection], int]:
    """Remove at most ``budget`` rows and snapshots of one document, up to ``base`` or, when deleted, all; owners count.

    Nothing while another node does the same (unless ``wait``), or if it was there in between, or restored.
    """

    def remove_first(
        connection: Connection, table: Table, left: int, *conditions: ColumnElement[bool], by: str = "seq"
    ) -> int:
        if left <= 0:
            return 0
        mine, number = table.c.document_id == document_id, table.c[by]
        chosen = select(number).where(mine, *conditions).order_by(number).limit(left).subquery()
        return connection.execute(delete(table).where(mine, number.in_(select(chosen.c[by])))).rowcount

    def is_founded(connection: Connection) -> bool:
        """Tell whether ``base`` and a snapshot after it are there, nothing is damaged, and no version needs more."""
        lowest = connection.execute(needed(literal(document_id))).scalar()
        if lowest is not None and lowest < base:
            return False
        damaged = exists().where(damage.c.document_id == document_id)
        mine = (snapshots.c.document_id == document_id, snapshots.c.checksum.is_not(None), snapshots.c.seq >= base)
        found = select(snapshots.c.seq).where(*mine, not_(damaged)).order_by(snapshots.c.seq).limit(2)
        numbers = connection.execute(found).scalars().all()
        return len(numbers) == 2 and numbers[0] == base

    def leave_trash(connection: Connection) -> bool:
        """Take the document out of the trash before anything of it goes; False if it is to stay."""
        trashed_at = connection.execute(select(trash.c.deleted_at).where(trash.c.document_id == document_id)).scalar()
        living = (documents.c.id == document_id, documents.c.deleted_at.is_(None))
        if (trashed_at is not None and trashed_at >= trash_before) or connection.execute(
            select(documents.c.id).where(*living)
        ).first():
            return False
        connection.execute(delete(trash).where(trash.c.document_id == document_id))
        said = (documents.c.id == document_id, or_(documents.c.title.is_not(None), documents.c.metadata.is_not(None)))
        connection.execute(update(documents).where(*said).values(title=None, metadata=None))
        return True

    def write(connection: Connection) -> int:
        # What was read before may not be so any more, and what is read from here on stays: see ``pruning_lock``.
        if not backend.lock(connection, pruning_lock(document_id), wait=wait):
            return 0
        # Rows before snapshots: rows that lost the snapshot before them would rebuild nothing.
        if base is not None:
            if not is_founded(connection):
                return 0
            automatic = (versions.c.document_id == document_id, versions.c.kind == Kind.AUTOMATIC.value)
            connection.execute(delete(versions).where(*automatic, versions.c.seq < base))
            removed = remove_first(connection, log, budget, log.c.seq <= base)
            return removed + remove_first(connection, snapshots, budget - removed, snapshots.c.seq < base)
        if not leave_trash(connection):
            return 0
        removed = remove_first(connection, log, budget)
        removed += remove_first(connection, snapshots, budget - removed)
        removed += remove_first(connection, client_owners, budget - removed, by="client")
        for table in OF_DOCUMENT:
            connection.execute(delete(table).where(table.c.document_id == document_id))
        # A tombstone whose name was given away has done its work when its content is gone.
        left = [exists().where(table.c.document_id == document_id) for table in (log, snapshots, client_owners)]
        gone = (documents.c.id == document_id, documents.c.name.is_(None), *map(not_, left))
        connection.execute(delete(documents).where(*gone))
        return removed

    return write


def find_thinnable(after: int) -> Callable[[Connection], list[tuple[int, int]]]:
    """Look for documents with ids above ``after`` that have more snapshots than always stay.

    Gives their ids, ascending, each with the number of its newest snapshot; at most ``PRUNE_PAGE``.
    """

    def read(connection: Connection) -> list[tuple[int, int]]:
        part = snapshots.c
        query = (
            select(part.document_id, func.max(part.seq).label("newest"))
            .where(part.document_id > after)
            .group_by(part.document_id)
            .having(func.count() > 3)
            .order_by(part.document_id)
            .limit(PRUNE_PAGE)
        )
        return [(row.document_id, row.newest) for row in connection.execute(query)]

    return read


def thin(backend: Backend, document_id: int, limit: int) -> Callable[[Connection], int]:
    """Remove at most ``limit`` snapshots of one document that nobody misses (``collab.storage.spacing``).

    Nothing while somebody prunes it, where damage was noted, and where a snapshot has no checksum.
    """

    def write(connection: Connection) -> int:
        if not backend.lock(connection, pruning_lock(document_id), wait=False):
            return 0
        part = snapshots.c
        damaged = exists().where(damage.c.document_id == document_id)
        query = select(part.seq, func.length(part.data).label("nbytes"), part.checksum)
        found = connection.execute(query.where(part.document_id == document_id, not_(damaged)).order_by(part.seq)).all()
        if any(row.checksum is None for row in found):
            return 0

        def bytes_between(after: int, last: int) -> int:
            rows = (log.c.document_id == document_id, log.c.seq > after, log.c.seq <= last)
            total = connection.execute(select(func.sum(func.length(log.c.data))).where(*rows)).scalar()
            return 0 if total is None else int(total)

        numbers = superfluous([(row.seq, row.nbytes) for row in found], bytes_between)[:limit]
        if numbers:
            connection.execute(delete(snapshots).where(part.document_id == document_id, part.seq.in_(numbers)))
        return len(numbers)

    return write


def remove_leftovers(
    before: float, used_before: float, own: str, now: ColumnElement[float]
) -> Callable[[Connection], None]:
    """Remove rows of writers, nodes and producers that have ended, and what is left of documents that are gone.

    An older release leaves pending updates, rows of the trash, and names of guests behind.
    """

    def write(connection: Connection) -> None:
        connection.execute(delete(writers).where(writers.c.at < before, writers.c.id != own))
        connection.execute(delete(producers).where(producers.c.at < used_before))
        connection.execute(delete(nodes).where(nodes.c.beat_at < now - FORGET_SECONDS))
        for table in (pending, trash, guests):
            there = exists().where(documents.c.id == table.c.document_id)
            connection.execute(delete(table).where(not_(there)))

    return write


def remove_owners_left(after: int) -> Callable[[Connection], int]:
    """Remove the owners of client IDs of documents that are gone: an older release that prunes leaves them behind.

    Looks at one page of documents with ids above ``after``, each of which is one look into the index, however many
    owners it has. Gives the last id, 0 if there are no more.
    """

    def write(connection: Connection) -> int:
        owned = client_owners.c.document_id
        page = select(func.min(owned).label("id"), literal(1).label("count")).where(owned > after).cte(recursive=True)
        following = select(func.min(owned)).where(owned > page.c.id).scalar_subquery()
        page = page.union_all(
            select(following, page.c.count + 1).where(page.c.id.is_not(None), page.c.count < PRUNE_PAGE)
        )
        there = exists().where(documents.c.id == page.c.id)
        found = connection.execute(select(page.c.id, there.label("there")).where(page.c.id.is_not(None))).all()
        for row in found:
            if not row.there:
                connection.execute(delete(client_owners).where(owned == row.id))
        return max([row.id for row in found]) if len(found) == PRUNE_PAGE else 0

    return write
