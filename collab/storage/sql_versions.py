"""Versions in SQL: functions for one connection each; see :mod:`collab.storage.versions`.

Strategy: as in :mod:`collab.storage.sql`, which runs them. Who makes a version of a number, and who pins one, takes the
lock of those who prune: so a version never comes to stand for rows that are just going.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Select,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from collab.errors import DocumentNotFound, HistoryGone, NoSuchVersion, StoreRefused, TooManyVersions
from collab.storage.backend import Backend
from collab.storage.batch import decode_author, encode_author
from collab.storage.pruning import kept_since, pruning_lock
from collab.storage.records import MAX_ROW_BYTES, Keep, Snapshot
from collab.storage.schema import documents, log, snapshots, version_states, versions
from collab.storage.versions import (
    MAX_AUTOMATIC,
    MAX_NAMED,
    History,
    Kind,
    NewVersion,
    Reason,
    Unpinned,
    Version,
    is_near,
    named,
)

_COLUMNS = (
    versions.c.id,
    versions.c.seq,
    versions.c.kind,
    versions.c.reason,
    versions.c.name,
    versions.c.description,
    versions.c.author,
    versions.c.at,
    versions.c.pinned,
)


def make(connection: Connection, backend: Backend, document_id: int, seq: int, new: NewVersion) -> Version:
    """Give a number a name."""
    backend.lock(connection, pruning_lock(document_id))
    head = _require_living(connection, document_id)
    if not _is_number(connection, document_id, seq, head):
        raise HistoryGone(f"the state after row {seq} cannot be rebuilt")
    _check_room(connection, document_id)
    values = {
        "kind": Kind.NAMED.value,
        "reason": Reason.MADE.value,
        "name": encode_author(new.name),
        "description": encode_author(new.description),
        "author": encode_author(new.author),
        "at": round(new.at * 1e6) / 1e6,
    }
    mine = (versions.c.document_id == document_id, versions.c.seq == seq, versions.c.kind == Kind.AUTOMATIC.value)
    automatic = connection.execute(select(versions.c.id).where(*mine).limit(1)).scalar()
    if automatic is not None:
        connection.execute(update(versions).where(versions.c.id == automatic).values(values))
        return read(connection, document_id, automatic)
    return _insert(connection, {"document_id": document_id, "seq": seq, "pinned": False, **values})


def make_automatic(
    connection: Connection, backend: Backend, document_id: int, seq: int, reason: Reason, at: float, spacing: float
) -> Version | None:
    """Note a number, if that is worth it."""
    backend.lock(connection, pruning_lock(document_id))
    head = _require_living(connection, document_id)
    at = round(at * 1e6) / 1e6
    mine = versions.c.document_id == document_id
    if connection.execute(select(versions.c.id).where(mine, versions.c.seq == seq).limit(1)).first() is not None:
        return None
    chosen = select(versions.c.id, versions.c.at).where(mine, versions.c.kind == Kind.AUTOMATIC.value)
    automatic = connection.execute(chosen.order_by(versions.c.seq, versions.c.at, versions.c.id)).all()
    if any(is_near(at, each.at, spacing) for each in automatic):
        return None
    if not _is_number(connection, document_id, seq, head):
        return None
    gone = [each.id for each in automatic[: max(0, len(automatic) + 1 - MAX_AUTOMATIC)]]
    if gone:
        connection.execute(delete(versions).where(versions.c.id.in_(gone)))
    return _insert(
        connection,
        {
            "document_id": document_id,
            "seq": seq,
            "kind": Kind.AUTOMATIC.value,
            "reason": reason.value,
            "at": at,
            "pinned": False,
        },
    )


def import_version(
    connection: Connection, backend: Backend, document_id: int, new: NewVersion, state: Snapshot
) -> Version:
    """Keep a version from elsewhere."""
    backend.lock(connection, pruning_lock(document_id))
    _require_living(connection, document_id)
    _check_room(connection, document_id)
    version = _insert(
        connection,
        {
            "document_id": document_id,
            "seq": 0,
            "kind": Kind.NAMED.value,
            "reason": Reason.IMPORTED.value,
            "name": encode_author(new.name),
            "description": encode_author(new.description),
            "author": encode_author(new.author),
            "at": round(new.at * 1e6) / 1e6,
            "pinned": True,
        },
    )
    _insert_state(connection, document_id, version.id, state)
    return version


def list_versions(
    connection: Connection,
    document_id: int,
    kind: Kind | None,
    after: tuple[int, float, int] | None,
    between: tuple[int, int] | None,
    limit: int,
) -> list[Version]:
    """List versions of a document that lives."""
    part = versions.c
    living = exists().where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
    conditions: list[ColumnElement[bool]] = [part.document_id == document_id, living]
    if kind is not None:
        conditions.append(part.kind == kind.value)
    if after is not None:
        seq, at, version_id = after
        same = and_(part.seq == seq, or_(part.at < at, and_(part.at == at, part.id < version_id)))
        conditions += [part.seq <= seq, or_(part.seq < seq, same)]
    if between is not None:
        conditions.append(part.seq.between(*between))
    query: Select[Any] = select(*_COLUMNS).where(*conditions)
    query = query.order_by(part.seq.desc(), part.at.desc(), part.id.desc()).limit(limit)
    return [_version(row) for row in connection.execute(query)]


def read(connection: Connection, document_id: int, version_id: int) -> Version:
    """Read one version."""
    mine = (versions.c.id == version_id, versions.c.document_id == document_id)
    query: Select[Any] = select(*_COLUMNS).where(*mine)
    row = connection.execute(query).first()
    if row is None:
        _require_living(connection, document_id)
        raise NoSuchVersion(f"there is no version with the id {version_id}")
    return _version(row)


def read_of_living(connection: Connection, document_id: int, version_id: int) -> Version:
    """Read one version of a document that lives."""
    _require_living(connection, document_id)
    return read(connection, document_id, version_id)


def change(
    connection: Connection,
    backend: Backend,
    document_id: int,
    version_id: int,
    name: str | Keep,
    description: str | None | Keep,
) -> Version:
    """Change the texts of a version."""
    backend.lock(connection, pruning_lock(document_id))
    head = _require_living(connection, document_id)
    found = read(connection, document_id, version_id)
    version = named(found, name, description)
    if version.kind is not found.kind:
        if not _is_number(connection, document_id, version.seq, head):
            raise HistoryGone(f"the state after row {version.seq} cannot be rebuilt")
        _check_room(connection, document_id)
    values = {
        "kind": version.kind.value,
        "name": encode_author(version.name),
        "description": encode_author(version.description),
    }
    connection.execute(update(versions).where(versions.c.id == version_id).values(values))
    return version


def remove(connection: Connection, document_id: int, version_id: int) -> None:
    """Remove a version and its state."""
    _require_living(connection, document_id)
    mine = (versions.c.id == version_id, versions.c.document_id == document_id)
    if not connection.execute(delete(versions).where(*mine)).rowcount:
        raise NoSuchVersion(f"there is no version with the id {version_id}")
    connection.execute(delete(version_states).where(version_states.c.version_id == version_id))


def read_state(connection: Connection, version_id: int) -> Snapshot | None:
    """Read the state of a pinned version; None if it was deleted meanwhile."""
    part = version_states.c
    columns = [
        cast(column, LargeBinary).label(column.name) for column in (part.data, part.index_data, part.state_vector)
    ]
    query = select(part.seq, *columns, part.at, part.checksum).where(part.version_id == version_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    return Snapshot(row.seq, row.data, row.index_data, row.state_vector, row.at, row.checksum)


def unpinned(
    connection: Connection, before: float, histories: Sequence[History], after: int, limit: int
) -> list[Unpinned]:
    """List versions that hold up pruning."""
    following = select(log.c.at).where(log.c.document_id == versions.c.document_id, log.c.seq == versions.c.seq + 1)
    newer = (
        select(snapshots.c.seq)
        .where(
            snapshots.c.document_id == versions.c.document_id,
            snapshots.c.seq > versions.c.seq,
            snapshots.c.checksum.is_not(None),
        )
        .order_by(snapshots.c.seq)
        .limit(1)
        .offset(1)
    )
    since = kept_since(before, histories)
    query: Select[Any] = (
        select(documents.c.id.label("document_id"), documents.c.name.label("document_name"), *_COLUMNS)
        .select_from(versions.join(documents, documents.c.id == versions.c.document_id))
        .where(
            versions.c.id > after,
            versions.c.pinned.is_(False),
            versions.c.kind == Kind.NAMED.value,
            documents.c.deleted_at.is_(None),
            func.coalesce(following.correlate(versions).scalar_subquery(), literal(float("-1e300"))) < since,
            newer.correlate(versions).scalar_subquery().is_not(None),
        )
        .order_by(versions.c.id)
        .limit(limit)
    )
    return [
        Unpinned(row.document_id, row.document_name.decode(errors="replace"), _version(row))
        for row in connection.execute(query)
    ]


def pin(connection: Connection, backend: Backend, document_id: int, version_id: int, state: Snapshot) -> bool:
    """Keep the state of a version."""
    backend.lock(connection, pruning_lock(document_id))
    living = exists().where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
    mine = (versions.c.id == version_id, versions.c.document_id == document_id, versions.c.seq == state.seq)
    pinned = update(versions).where(*mine, versions.c.pinned.is_(False), living).values(pinned=True)
    if not connection.execute(pinned).rowcount:
        return False
    _insert_state(connection, document_id, version_id, state)
    return True


def check_size(state: Snapshot) -> None:
    """Raise ``StoreRefused`` if a state is larger than the store can hold."""
    if max(len(state.data), len(state.index), len(state.state_vector)) > MAX_ROW_BYTES:
        raise StoreRefused(f"a state of {len(state.data)} bytes is more than the store takes")


def _version(row: Row[Any]) -> Version:
    return Version(
        row.id,
        row.seq,
        Kind(row.kind),
        Reason(row.reason),
        decode_author(row.name),
        decode_author(row.description),
        decode_author(row.author),
        row.at,
        row.pinned,
    )


def _insert(connection: Connection, values: dict[str, Any]) -> Version:
    row = connection.execute(insert(versions).values(values).returning(*_COLUMNS)).one()
    return _version(row)


def _insert_state(connection: Connection, document_id: int, version_id: int, state: Snapshot) -> None:
    connection.execute(
        insert(version_states).values(
            version_id=version_id,
            document_id=document_id,
            seq=state.seq,
            at=state.at,
            state_vector=state.state_vector,
            index_data=state.index,
            data=state.data,
            checksum=state.checksum,
        )
    )


def _require_living(connection: Connection, document_id: int) -> int:
    """Give the number of the newest row of a document that lives."""
    mine = (documents.c.id == document_id, documents.c.deleted_at.is_(None))
    head: int | None = connection.execute(select(documents.c.head_seq).where(*mine)).scalar()
    if head is None:
        raise DocumentNotFound(f"there is no document with the id {document_id}")
    return head


def _is_number(connection: Connection, document_id: int, seq: int, head: int) -> bool:
    """Tell whether the state after row ``seq`` can be rebuilt: pruning takes the oldest rows first."""
    if not 0 < seq <= head:
        return False
    below = (snapshots.c.document_id == document_id, snapshots.c.seq <= seq)
    base: int = connection.execute(select(func.coalesce(func.max(snapshots.c.seq), 0)).where(*below)).scalar_one()
    oldest = connection.execute(select(func.min(log.c.seq)).where(log.c.document_id == document_id)).scalar()
    return base == seq or (oldest is not None and oldest <= base + 1)


def _check_room(connection: Connection, document_id: int) -> None:
    mine = (versions.c.document_id == document_id, versions.c.kind == Kind.NAMED.value)
    count: int = connection.execute(select(func.count()).where(*mine)).scalar_one()
    if count >= MAX_NAMED:
        raise TooManyVersions(f"document number {document_id} has {count} named versions")
