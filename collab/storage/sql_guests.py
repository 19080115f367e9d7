"""Names of guests, in SQL: functions for one connection each; see :class:`collab.storage.log.Log`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, LargeBinary, bindparam, cast, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from collab.storage.batch import decode_author, encode_author, encode_guest
from collab.storage.records import NewGuest
from collab.storage.schema import documents, guests
from collab.storage.sql_catalogue import LIVES

_ASKED: Final = 500
"""Guests that are asked for in one query; each is a parameter of it."""

# Made once: to put a statement together takes longer than to run it.
_ALL: Final = select(cast(guests.c.author, LargeBinary), cast(guests.c.name, LargeBinary)).where(
    guests.c.document_id == bindparam("document"), LIVES
)
_SOME: Final = _ALL.where(guests.c.author.in_(bindparam("authors", expanding=True)))


def read(connection: Connection, document_id: int, authors: Collection[str] | None) -> dict[str, str]:
    """Read the names of guests on a document that lives, of all or of those among ``authors``."""
    here = {"document": document_id}
    if authors is None:
        rows = list(connection.execute(_ALL, here))
    else:
        asked, rows = [encode_author(author) for author in authors], []
        for first in range(0, len(asked), _ASKED):
            rows += connection.execute(_SOME, {**here, "authors": asked[first : first + _ASKED]})
    found = ((decode_author(author), decode_author(name)) for author, name in rows)
    return {author: name for author, name in found if author is not None and name is not None}


def keep(connection: Connection, document_id: int, guest: NewGuest) -> None:
    """Keep the name of a guest on a document that lives, if none is known."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    author, name, invited_by = encode_guest(guest)
    new = {
        "document_id": documents.c.id,
        "author": literal(author, guests.c.author.type),
        "name": literal(name, guests.c.name.type),
        "invited_by": literal(invited_by, guests.c.invited_by.type),
        "seq": documents.c.head_seq,
    }
    living = select(*new.values()).where(documents.c.id == document_id, documents.c.deleted_at.is_(None))
    connection.execute(insert(guests).from_select(list(new), living).on_conflict_do_nothing())
