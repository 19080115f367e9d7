"""Which files a SQLite database consists of, and whether they are still under their names.

Strategy: SQLite works on open files and does not look at their names again. When somebody removes or replaces the
database or the log beside it, commits go on into a file without a name, and are gone when the process ends. The
device and the inode under each name tell, at the cost of an ``os.stat`` for each.

A process that was killed leaves its log beside the database, and the next one finds it there. If the database was
replaced in between, that log is not its own. So a note beside the files says which ones were used together last.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import NamedTuple

_Identity = tuple[int, int] | None
"""Device and inode of a file; None if there is none."""

# Bytes of a note at most; one has about a hundred.
_NOTE = 1_000


class Files(NamedTuple):
    """What is under the names of a database: the database itself, its write-ahead log, and the index of that."""

    database: _Identity
    wal: _Identity
    shm: _Identity


class Place:
    """The names of a database's files; ``path`` may be a symbolic link, which SQLite follows once, when it opens."""

    def __init__(self, path: str) -> None:
        self.path = path
        real = os.path.realpath(path)
        self.wal = real + "-wal"
        self.shm = real + "-shm"
        self._note = real + ".files"

    def look(self) -> Files:
        """Give what is under the names now."""
        return Files(_identity(self.path), _identity(self.wal), _identity(self.shm))

    def holds(self, files: Files) -> bool:
        """Tell whether what is committed into ``files`` can be found under the names: the database and its log.

        After each commit, so it leaves out the index, which holds nothing of its own.
        """
        try:
            database, wal = os.stat(self.path), os.stat(self.wal)
        except OSError:
            return False
        return (database.st_dev, database.st_ino) == files.database and (wal.st_dev, wal.st_ino) == files.wal

    def set_aside(self, old: Files) -> str | None:
        """Take the log of a database that is gone away from beside the one that is in its place now.

        SQLite would read it into the new database, and damage that. It is renamed, because it may hold the last edits
        of the ``old`` one. Give its new name; None if the log beside the new database is not the old one.
        """
        now = self.look()
        name = None
        if old.wal is not None and now.wal == old.wal:
            name = f"{self.wal}.replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
            os.rename(self.wal, name)
        if old.shm is not None and now.shm == old.shm:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.shm)  # it says nothing that is not in the log
        return name

    def note(self, files: Files) -> None:
        """Note which files are used together, for whoever opens the database when this process was killed.

        Where that cannot be written, in a directory that may only be read, there is no note.
        """
        if files == self._noted():
            return
        new = f"{self._note}.{os.getpid()}"
        with contextlib.suppress(OSError):
            try:
                with open(new, "w", encoding="ascii") as file:
                    json.dump(files, file)
                os.replace(new, self._note)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(new)
                raise

    def drop_note(self) -> None:
        """Forget which files were used together, if SQLite has removed the log: nothing is left to be mistaken."""
        if self.look().wal is None:
            with contextlib.suppress(OSError):
                os.unlink(self._note)

    def set_aside_noted(self) -> str | None:
        """Do what :meth:`set_aside` does for the files that were used together last."""
        noted = self._noted()
        if noted is None or self.look().database in (None, noted.database):
            return None
        return self.set_aside(noted)

    def _noted(self) -> Files | None:
        """Read the note; None if there is none, or none that can be read."""
        try:
            with open(self._note, encoding="ascii") as file:
                found = [None if one is None else (int(one[0]), int(one[1])) for one in json.loads(file.read(_NOTE))]
            return Files(*found)
        except (OSError, ValueError, TypeError, LookupError):
            return None


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
