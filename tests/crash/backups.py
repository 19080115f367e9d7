"""Older states of a database, put under a running server: backups, and rows removed by hand."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Protocol

from tests.support.postgres import PostgresServer, find_binaries

# More rows than any document of a test has.
_ALL = 1_000_000


class Backup(Protocol):
    """One backup of one database. All methods block.

    Attributes:
        hows: the ways in which it can be restored.
    """

    hows: tuple[str, ...]

    def keep(self) -> None:
        """Make the backup, in the place of the one before."""

    def restore(self, how: str = "restored") -> None:
        """Put the backup in the place of the database; once for each :meth:`keep`."""

    def remove_rows(self, names: Iterable[str] | None = None, rows: int = _ALL) -> None:
        """Remove so many of the last rows of these documents, or of all, and what was made from them.

        The first row of a document stays.
        """


class SqliteBackup:
    """A backup of the file ``path`` in ``file``, which must be on the same file system."""

    hows: tuple[str, ...] = ("restored", "replaced", "removed")

    def __init__(self, path: Path, file: Path) -> None:
        self.path = path
        self._file = file

    def keep(self) -> None:
        self._file.unlink(missing_ok=True)
        _copy(self.path, self._file)

    def restore(self, how: str = "restored") -> None:
        if how == "restored":
            _copy(self._file, self.path)
        elif how == "replaced":
            self._file.rename(self.path)
        else:
            for file in self.path.parent.glob(f"{self.path.name}*"):
                if file.suffix != ".lock":
                    file.unlink()
            new = self.path.with_name("new")
            shutil.copy(self._file, new)
            new.rename(self.path)

    def remove_rows(self, names: Iterable[str] | None = None, rows: int = _ALL) -> None:
        with closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as connection:
            statements = _removal(names, rows, lambda name: f"X'{name}'")
            connection.executescript(f"BEGIN IMMEDIATE; {statements}; COMMIT")


class PostgresBackup:
    """A backup of one database in ``file``, by the tools of PostgreSQL."""

    hows: tuple[str, ...] = ("restored",)

    def __init__(self, server: PostgresServer, database: str, file: Path) -> None:
        self._server = server
        self._database = database
        self._options = ["-h", str(server.directory), "-U", "postgres", "-d", database]
        self._bin = find_binaries()
        self._file = str(file)

    def keep(self) -> None:
        self._run("pg_dump", "-Fc", "-Z0", "-f", self._file)

    def restore(self, how: str = "restored") -> None:
        assert how == "restored"
        self._run("pg_restore", "--clean", self._file)

    def remove_rows(self, names: Iterable[str] | None = None, rows: int = _ALL) -> None:
        statements = _removal(names, rows, lambda name: f"'\\x{name}'::bytea")
        self._server.sql(f"BEGIN; LOCK TABLE documents; {statements}; COMMIT", self._database)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run([str(self._bin / name), *self._options, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source, timeout=20)) as old, closing(sqlite3.connect(target, timeout=20)) as new:
        old.backup(new)


def _removal(names: Iterable[str] | None, rows: int, literal: Callable[[str], str]) -> str:
    """The statements, with a literal of bytes made from its hexadecimal digits."""
    chosen = "" if names is None else f" AND d.name IN ({', '.join(literal(name.encode().hex()) for name in names)})"
    gone = "SELECT 1 FROM documents d WHERE d.id = document_id AND seq > 1 AND seq > d.head_seq - " + str(rows) + chosen
    return (
        f"DELETE FROM log WHERE EXISTS ({gone}); "
        f"DELETE FROM snapshots WHERE EXISTS ({gone}); "
        "UPDATE documents SET head_seq = (SELECT max(seq) FROM log WHERE document_id = documents.id)"
        " WHERE EXISTS (SELECT 1 FROM log WHERE document_id = documents.id)"
    )
