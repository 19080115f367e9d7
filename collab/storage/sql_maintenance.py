"""Maintenance of the SQL store; each method is described in its port.

The ports are :mod:`collab.storage.maintenance` and :mod:`collab.storage.people`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, Table, and_, cast, delete, exists, func, insert, or_, select, update

from collab.storage import sql_people
from collab.storage.attributions import KeptAttribution
from collab.storage.backend import Backend
from collab.storage.backfill import Backfill
from collab.storage.batch import encode_author, encode_note
from collab.storage.maintenance import Checksums, KeptEntry, KeptSnapshot
from collab.storage.people import Place, Trace
from collab.storage.pruning import pruning_lock
from collab.storage.records import ClientOwner, LogRow, NewRow, PendingUpdate, Snapshot, StoredDocument
from collab.storage.schema import (
    attributions,
    client_owners,
    damage,
    documents,
    log,
    pending,
    skeletons,
    snapshots,
    timeline,
    trash,
    version_states,
    versions,
    webhook_cursors,
    webhook_marks,
)
from collab.storage.sql import SqlStore, read_snapshot
from collab.storage.sql_catalogue import read_document_row
from collab.storage.sql_indexes import find_troubles, make_indexes
from collab.storage.sql_versions import read_state

_IS_IN_TRASH = documents.c.id == trash.c.document_id

_HAS_CONTENT = or_(
    and_(documents.c.deleted_at.is_(None), documents.c.name.is_not(None)), trash.c.document_id.is_not(None)
)

FILL_ROWS = 1_000
"""Rows whose checksums are written in one transaction: on SQLite a server's own writing waits for milliseconds."""


class SqlMaintenance(SqlStore):
    """The :class:`~collab.storage.maintenance.Maintenance` and :class:`~collab.storage.people.People` of a database."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._filling = Backfill(backend, "checksums")

    async def count(self) -> int:
        """Count documents."""
        query = select(func.count()).select_from(documents.outerjoin(trash, _IS_IN_TRASH)).where(_HAS_CONTENT)
        return await self._backend.run(lambda connection: connection.execute(query).scalar_one(), "read")

    async def documents_after(self, document_id: int, limit: int) -> list[StoredDocument]:
        """Read documents by their ids."""
        # In the trash with the name that it had.
        name = func.coalesce(trash.c.name, documents.c.name).label("name")
        columns = [name if column.name == "name" else column for column in documents.c]
        query = select(*columns).select_from(documents.outerjoin(trash, _IS_IN_TRASH))
        query = query.where(documents.c.id > document_id, _HAS_CONTENT)

        def read(connection: Connection) -> list[StoredDocument]:
            return [read_document_row(row) for row in connection.execute(query.order_by(documents.c.id).limit(limit))]

        return await self._backend.run(read, "read")

    async def kept_rows(self, document_id: int, after: int, limit: int) -> list[LogRow]:
        """Read rows as they are."""
        return await self._backend.run(
            lambda connection: self._rows(connection, document_id, after, None, limit), "read"
        )

    async def kept_snapshots(self, document_id: int) -> list[KeptSnapshot]:
        """List the snapshots."""
        columns = (snapshots.c.seq, func.length(snapshots.c.data), snapshots.c.at)
        query = select(*columns).where(snapshots.c.document_id == document_id).order_by(snapshots.c.seq)
        return await self._backend.run(
            lambda connection: [KeptSnapshot(*row) for row in connection.execute(query)], "read"
        )

    async def kept_snapshot(self, document_id: int, seq: int) -> Snapshot | None:
        """Read one snapshot as it is."""
        return await self._backend.run(lambda connection: read_snapshot(connection, document_id, seq), "read")

    async def replace_row(self, document_id: int, was: LogRow, by: NewRow) -> bool:
        """Replace a row."""
        same = _at(log, document_id, was.seq, was.data)
        values = {"data": by.data, "author": encode_author(by.author), "checksum": by.checksum, "at": by.at}
        values["on_behalf_of"], values["label"] = encode_note(by.note)
        return await self._backend.run(
            lambda connection: connection.execute(update(log).where(*same).values(values)).rowcount > 0, "write"
        )

    async def replace_snapshot(self, document_id: int, was: Snapshot, by: Snapshot | None) -> bool:
        """Replace or remove a snapshot."""
        same = _at(snapshots, document_id, was.seq, was.data)

        def write(connection: Connection) -> bool:
            self._backend.lock(connection, pruning_lock(document_id))
            if by is None:
                return connection.execute(delete(snapshots).where(*same)).rowcount > 0
            values = {
                "data": by.data,
                "index_data": by.index,
                "state_vector": by.state_vector,
                "at": by.at,
                "checksum": by.checksum,
            }
            return connection.execute(update(snapshots).where(*same).values(values)).rowcount > 0

        return await self._backend.run(write, "write")

    async def remove_pending(self, document_id: int, was: PendingUpdate) -> bool:
        """Remove a pending update."""
        same = (pending.c.document_id == document_id, pending.c.id == was.number)
        return await self._backend.run(
            lambda connection: connection.execute(delete(pending).where(*same)).rowcount > 0, "write"
        )

    async def pinned_versions(self, document_id: int) -> list[int]:
        """List pinned versions."""
        mine = (versions.c.document_id == document_id, versions.c.pinned)
        query = select(versions.c.id).where(*mine).order_by(versions.c.id)
        return await self._backend.run(lambda connection: list(connection.execute(query).scalars()), "read")

    async def kept_state(self, version_id: int) -> Snapshot | None:
        """Read the state of a version."""
        return await self._backend.run(lambda connection: read_state(connection, version_id), "read")

    async def kept_number(self, version_id: int) -> int | None:
        """Read the number of a version."""
        query = select(versions.c.seq).where(versions.c.id == version_id)
        return await self._backend.run(lambda connection: connection.execute(query).scalar(), "read")

    async def replace_state(self, document_id: int, version_id: int, was: Snapshot | None, by: Snapshot) -> bool:
        """Replace the state of a version."""
        part = version_states.c
        values = {
            "seq": by.seq,
            "at": by.at,
            "state_vector": by.state_vector,
            "index_data": by.index,
            "data": by.data,
            "checksum": by.checksum,
        }

        def write(connection: Connection) -> bool:
            pinned = (versions.c.id == version_id, versions.c.document_id == document_id, versions.c.pinned)
            if connection.execute(select(versions.c.id).where(*pinned).with_for_update()).first() is None:
                return False
            if was is not None:
                same = (part.version_id == version_id, cast(part.data, LargeBinary) == was.data)
                return connection.execute(update(version_states).where(*same).values(values)).rowcount > 0
            if connection.execute(select(part.version_id).where(part.version_id == version_id)).first() is not None:
                return False
            connection.execute(insert(version_states).values(version_id=version_id, document_id=document_id, **values))
            return True

        return await self._backend.run(write, "write")

    async def remove_owner(self, document_id: int, was: ClientOwner) -> bool:
        """Remove the owner of a client ID."""
        part = client_owners.c
        same = (part.document_id == document_id, part.client == was.client, part.seq == was.seq)
        return await self._backend.run(
            lambda connection: connection.execute(delete(client_owners).where(*same)).rowcount > 0, "write"
        )

    async def kept_entries(self, document_id: int, after: int, limit: int) -> list[KeptEntry]:
        """Read entries as they are."""
        part = timeline.c
        columns = (part.first_seq, part.last_seq, part.started_at, part.ended_at, part.nbytes)
        query = select(*columns, cast(part.data, LargeBinary)).where(
            part.document_id == document_id, part.first_seq > after
        )

        def read(connection: Connection) -> list[KeptEntry]:
            return [KeptEntry(*row) for row in connection.execute(query.order_by(part.first_seq).limit(limit))]

        return await self._backend.run(read, "read")

    async def remove_entry(self, document_id: int, was: KeptEntry) -> bool:
        """Remove an entry."""
        part = timeline.c
        same = (part.document_id == document_id, part.first_seq == was.first, part.last_seq == was.last)

        def write(connection: Connection) -> bool:
            self._backend.lock(connection, pruning_lock(document_id))
            mine = (*same, cast(part.data, LargeBinary) == was.data)
            return connection.execute(delete(timeline).where(*mine)).rowcount > 0

        return await self._backend.run(write, "write")

    async def add_entries(self, document_id: int, entries: Sequence[KeptEntry]) -> bool:
        """Add entries."""
        part = timeline.c

        def write(connection: Connection) -> bool:
            self._backend.lock(connection, pruning_lock(document_id))
            between = (part.first_seq <= entries[-1].last, part.last_seq >= entries[0].first)
            taken = select(exists().where(part.document_id == document_id, *between))
            if connection.execute(taken).scalar():
                return False
            names = ("first_seq", "last_seq", "started_at", "ended_at", "nbytes", "data")
            connection.execute(
                insert(timeline),
                [{"document_id": document_id, **dict(zip(names, each, strict=True))} for each in entries],
            )
            return True

        return bool(entries) and await self._backend.run(write, "write")

    async def kept_cursor(self, document_id: int) -> int | None:
        """Read a cursor."""
        query = select(webhook_cursors.c.seq).where(webhook_cursors.c.document_id == document_id)
        return await self._backend.run(lambda connection: connection.execute(query).scalar(), "read")

    async def replace_cursor(self, document_id: int, was: int, by: int) -> bool:
        """Replace a cursor."""
        same = (webhook_cursors.c.document_id == document_id, webhook_cursors.c.seq == was)
        return await self._backend.run(
            lambda connection: connection.execute(update(webhook_cursors).where(*same).values(seq=by)).rowcount > 0,
            "write",
        )

    async def kept_mark(self, document_id: int) -> float | None:
        """Read a mark."""
        query = select(webhook_marks.c.at).where(webhook_marks.c.document_id == document_id)
        return await self._backend.run(lambda connection: connection.execute(query).scalar(), "read")

    async def remove_mark(self, document_id: int, was: float) -> bool:
        """Remove a mark."""
        same = (webhook_marks.c.document_id == document_id, webhook_marks.c.at == was)
        return await self._backend.run(
            lambda connection: connection.execute(delete(webhook_marks).where(*same)).rowcount > 0, "write"
        )

    async def kept_skeletons(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Read skeletons as they are."""
        part = skeletons.c
        columns = [cast(column, LargeBinary) for column in (part.name, part.data)]
        query = select(*columns).where(part.name > after).order_by(part.name).limit(limit)
        return await self._backend.run(
            lambda connection: [(bytes(row[0]), bytes(row[1])) for row in connection.execute(query)], "read"
        )

    async def kept_attribution(self, document_id: int) -> KeptAttribution | None:
        """Read an attribution."""
        query = select(attributions.c.seq, attributions.c.data).where(attributions.c.document_id == document_id)

        def read(connection: Connection) -> KeptAttribution | None:
            row = connection.execute(query).first()
            return None if row is None else KeptAttribution(row.seq, bytes(row.data))

        return await self._backend.run(read, "read")

    async def remove_attribution(self, document_id: int, was: KeptAttribution) -> bool:
        """Remove an attribution."""
        same = _at(attributions, document_id, was.seq, was.data)
        return await self._backend.run(
            lambda connection: connection.execute(delete(attributions).where(*same)).rowcount > 0, "write"
        )

    async def damage_noted(self, document_id: int) -> bool:
        """Look for notes."""
        query = select(exists().where(damage.c.document_id == document_id))
        return await self._backend.run(lambda connection: bool(connection.execute(query).scalar()), "read")

    async def forget_damage(self, document_id: int) -> None:
        """Remove the notes."""

        def write(connection: Connection) -> None:
            connection.execute(delete(damage).where(damage.c.document_id == document_id))

        await self._backend.run(write, "write")

    async def find_troubles(self) -> list[str]:
        """Look at tables and indexes."""
        return await self._backend.run(find_troubles, "read")

    async def make_indexes(self) -> list[str]:
        """Make indexes."""
        return await self._backend.run(make_indexes, "write")

    async def filled_to(self) -> int:
        """Read the position of the job."""
        return await self._filling.position()

    async def fill(self, document_id: int, rows: Checksums, snapshots: Checksums, *, note: bool) -> None:
        """Write checksums in portions; the last one notes the position."""
        while len(rows) > FILL_ROWS:
            portion, rows = rows[:FILL_ROWS], rows[FILL_ROWS:]
            await self._backend.run(_filling(document_id, portion, ()), "write")
        last = _filling(document_id, rows, snapshots)
        if note:
            await self._filling.portion(document_id, last)
        elif rows or snapshots:
            await self._backend.run(last, "write")

    async def filled(self) -> None:
        """Finish the job."""
        await self._filling.finish()

    # People

    async def places_after(self, document_id: int, limit: int) -> list[Place]:
        """Read documents by their ids."""
        return await self._backend.run(lambda connection: sql_people.places(connection, document_id, limit), "read")

    async def edits_of(self, document_id: int, user: str, after: int, limit: int) -> list[LogRow]:
        """Read rows that name a user."""
        return await self._backend.run(
            lambda connection: sql_people.edits(connection, document_id, user, after, limit), "read"
        )

    async def traces_of(self, document_id: int, user: str) -> list[Trace]:
        """Read what else names a user."""
        return await self._backend.run(lambda connection: sql_people.traces(connection, document_id, user), "read")

    async def deliveries_of(self, user: str, after: int, limit: int) -> tuple[list[Trace], int | None]:
        """Read deliveries that name a user."""
        return await self._backend.run(lambda connection: sql_people.deliveries(connection, user, after, limit), "read")

    async def rename_in(self, document_id: int, user: str, to: str) -> dict[str, int]:
        """Change a document in portions."""

        def rows(connection: Connection, after: int) -> tuple[int, int | None]:
            return sql_people.rename_rows(connection, document_id, user, to, after)

        def sittings(connection: Connection, after: int) -> tuple[int, int | None]:
            return sql_people.rename_sittings(connection, document_id, user, to, after)

        # Most documents do not name the user, and a transaction that writes keeps others from SQLite.
        if not await self._backend.run(lambda connection: sql_people.is_named(connection, document_id, user), "read"):
            return {}
        # Rows and owners first: what is made of them later says the new name.
        found = {"edit": await self._in_portions(rows), "client_id": 0}
        while changed := await self._backend.run(
            lambda connection: sql_people.rename_owners(connection, document_id, user, to), "write"
        ):
            found["client_id"] += changed
        found["sitting"] = await self._in_portions(sittings)
        found |= await self._backend.run(
            lambda connection: sql_people.rename_few(connection, document_id, user, to), "write"
        )
        return {kind: number for kind, number in found.items() if number}

    async def rename_in_deliveries(self, user: str, to: str) -> int:
        """Change deliveries in portions."""
        return await self._in_portions(
            lambda connection, after: sql_people.rename_deliveries(connection, user, to, after)
        )

    async def _in_portions(self, change: Callable[[Connection, int], tuple[int, int | None]]) -> int:
        """Let ``change`` go on behind where it has ended, each time in a transaction of its own; add up its numbers."""
        total, after = 0, -1
        while True:
            changed, last = await self._backend.run(_behind(change, after), "write")
            total += changed
            if last is None:
                return total
            after = last


def _behind(
    change: Callable[[Connection, int], tuple[int, int | None]], after: int
) -> Callable[[Connection], tuple[int, int | None]]:
    return lambda connection: change(connection, after)


def _at(table: Table, document_id: int, seq: int, data: bytes) -> tuple[Any, ...]:
    return table.c.document_id == document_id, table.c.seq == seq, cast(table.c.data, LargeBinary) == data


def _filling(document_id: int, rows: Checksums, of_snapshots: Checksums) -> Any:
    def write(connection: Connection) -> None:
        for table, found in ((log, rows), (snapshots, of_snapshots)):
            for seq, checksum in found:
                mine = (table.c.document_id == document_id, table.c.seq == seq, table.c.checksum.is_(None))
                connection.execute(update(table).where(*mine).values(checksum=checksum))

    return write
