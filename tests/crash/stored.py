"""The log as it lies in the database, read beside the server and not through any code of it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pycrdt import Array, Doc

from tests.support.postgres import PostgresServer

COMMITTED = re.compile(r"committed '([^']*)' (\d+)\.\.(\d+)")


class StoredLog(Protocol):
    """All rows of the log, by document name: number and bytes in the order of their numbers."""

    def rows(self) -> dict[str, list[tuple[int, bytes]]]: ...


class SqliteLog:
    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> dict[str, list[tuple[int, bytes]]]:
        if not self._path.exists():
            return {}
        # Not read-only: after a crash the first reader must be able to recover the WAL.
        connection = sqlite3.connect(self._path, timeout=20)
        try:
            found = connection.execute(
                "SELECT CAST(d.name AS TEXT), l.seq, l.data FROM log l JOIN documents d ON d.id = l.document_id"
                " WHERE d.name IS NOT NULL ORDER BY l.document_id, l.seq"
            ).fetchall()
        finally:
            connection.close()
        return _grouped(found)


class PostgresLog:
    def __init__(self, server: PostgresServer, database: str) -> None:
        self._server = server
        self._database = database

    def rows(self) -> dict[str, list[tuple[int, bytes]]]:
        text = self._server.sql(
            "SELECT convert_from(d.name, 'UTF8'), l.seq, encode(l.data, 'hex') FROM log l"
            " JOIN documents d ON d.id = l.document_id WHERE d.name IS NOT NULL ORDER BY l.document_id, l.seq",
            self._database,
        )
        lines = (line.split("|") for line in text.splitlines())
        return _grouped((name, int(seq), bytes.fromhex(data)) for name, seq, data in lines)

    def everything(self) -> dict[str, list[tuple[int, bytes]]]:
        """Give the rows, and behind them with number 0 the updates that wait for others, all of one moment."""
        text = self._server.sql(
            "SELECT name, seq, data FROM (SELECT document_id, seq, encode(data, 'hex') AS data, 0 AS part FROM log"
            " UNION ALL SELECT document_id, 0, encode(data, 'hex'), 1 FROM pending) AS stored"
            " JOIN (SELECT id, convert_from(name, 'UTF8') AS name FROM documents WHERE name IS NOT NULL) AS named"
            " ON named.id = document_id ORDER BY document_id, part, seq",
            self._database,
        )
        lines = (line.split("|") for line in text.splitlines())
        return _grouped((name, int(seq), bytes.fromhex(data)) for name, seq, data in lines)


def _grouped(found: Iterable[tuple[str, int, bytes]]) -> dict[str, list[tuple[int, bytes]]]:
    rows: dict[str, list[tuple[int, bytes]]] = {}
    for name, seq, data in found:
        rows.setdefault(name, []).append((seq, data))
    return rows


async def read(log: StoredLog) -> dict[str, list[tuple[int, bytes]]]:
    return await asyncio.to_thread(log.rows)


def reported(log_lines: Sequence[str]) -> dict[str, int]:
    """The last number of each document of which the server has reported that it is committed."""
    last: dict[str, int] = {}
    for line in log_lines:
        if match := COMMITTED.search(line):
            last[match[1]] = max(last.get(match[1], 0), int(match[3]))
    return last


def tokens(updates: Iterable[bytes], root: str = "tokens") -> list[str]:
    """What the updates hold in their array of tokens."""
    doc: Doc[Any] = Doc()
    for data in updates:
        doc.apply_update(data)
    array: Array[Any] = doc.get(root, type=Array)
    return array.to_py() or []
