"""Whether the tables and indexes of a database are there and sound, and making indexes that are not.

Strategy: what should be there is what ``schema`` says. SQLite is asked by ``PRAGMA integrity_check``, which reads all
pages; PostgreSQL knows itself which indexes are not valid (one that was built beside traffic, and failed). An index
holds nothing that its table does not, so it can be made anew; a table cannot.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Index, inspect, text

from collab.storage.schema import metadata

MOST: Final = 20
"""Troubles that SQLite is asked for; one page that is damaged makes many."""

_INVALID: Final = text(
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid "
    "WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY(:tables) "
    "AND NOT (i.indisvalid AND i.indisready) ORDER BY c.relname"
)


def find_troubles(connection: Connection) -> list[str]:
    """Say what is wrong with the tables and indexes, a sentence each."""
    there = set(inspect(connection).get_table_names())
    troubles = [f"the table {name} is missing" for name in sorted(metadata.tables.keys() - there)]
    troubles += [f"the index {index.name} is missing" for index in _missing(connection, there)]
    if connection.dialect.name == "sqlite":
        found = connection.execute(text(f"PRAGMA integrity_check({MOST})")).scalars()
        return troubles + [f"SQLite: {line}" for line in found if line != "ok"]
    return troubles + [f"the index {name} is not valid" for name in _invalid(connection)]


def make_indexes(connection: Connection) -> list[str]:
    """Make the indexes that are missing, and anew those that are not sound; say which.

    On PostgreSQL a table cannot be written meanwhile, and on SQLite nothing can.
    """
    made: list[str] = []
    for index in _missing(connection, set(inspect(connection).get_table_names())):
        index.create(connection)
        made.append(f"the index {index.name} was missing and is made")
    if connection.dialect.name == "sqlite":
        found = [line for line in connection.execute(text(f"PRAGMA integrity_check({MOST})")).scalars() if line != "ok"]
        if any(" index " in line for line in found):
            connection.execute(text("REINDEX"))
            made.append("all indexes are made anew")
        return made
    for name in _invalid(connection):
        connection.execute(text(f"REINDEX INDEX {connection.dialect.identifier_preparer.quote(name)}"))
        made.append(f"the index {name} was not valid and is made anew")
    return made


def _missing(connection: Connection, tables: set[str]) -> list[Index]:
    looking = inspect(connection)
    found: list[Index] = []
    for table in metadata.sorted_tables:
        if table.name in tables:
            there = {index["name"] for index in looking.get_indexes(table.name)}
            found += [index for index in table.indexes if index.name not in there]
    return sorted(found, key=lambda index: str(index.name))


def _invalid(connection: Connection) -> list[str]:
    return list(connection.execute(_INVALID, {"tables": list(metadata.tables)}).scalars())
