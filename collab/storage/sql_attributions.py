"""Kept attributions, in SQL: functions for one connection each; see :mod:`collab.storage.attributions`."""

from __future__ import annotations

import contextlib

from sqlalchemy import Connection, LargeBinary, bindparam, exists, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from collab.storage.attributions import KeptAttribution
from collab.storage.schema import attributions, documents
from collab.storage.sql_catalogue import LIVES

# Made once: to put it together takes longer than to run it.
_READ = select(attributions.c.seq, attributions.c.data).where(
    attributions.c.document_id == bindparam("document"), LIVES
)


def read(connection: Connection, document_id: int) -> KeptAttribution | None:
    """Read what is kept of a document that lives."""
    row = connection.execute(_READ, {"document": document_id}).first()
    return None if row is None else KeptAttribution(row.seq, bytes(row.data))


def keep(connection: Connection, document_id: int, kept: KeptAttribution) -> bool:
    """Put an attribution in the place of an older one."""
    living = exists().where(
        documents.c.id == document_id, documents.c.deleted_at.is_(None), documents.c.head_seq >= kept.seq
    )
    older = (attributions.c.document_id == document_id, attributions.c.seq < kept.seq)

    def replace() -> bool:
        statement = update(attributions).where(*older, living).values(seq=kept.seq, data=kept.data)
        return connection.execute(statement).rowcount > 0

    if replace():
        return True
    there = exists().where(attributions.c.document_id == document_id)
    new = {
        "document_id": literal(document_id, attributions.c.document_id.type),
        "seq": literal(kept.seq, attributions.c.seq.type),
        "data": literal(kept.data, LargeBinary()),
    }
    statement = insert(attributions).from_select(list(new), select(*new.values()).where(living, ~there))
    with contextlib.suppress(IntegrityError), connection.begin_nested():
        if connection.execute(statement).rowcount > 0:
            return True
    # Another node may have been quicker since the first look; its number may be lower.
    return replace()
