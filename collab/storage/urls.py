"""Database URLs as people write them.

Strategy: a URL is read once, here, into a value whose text form has no password, so that whoever logs
it or puts it into an error cannot give one away. :mod:`collab.storage.addresses` reads what PostgreSQL's may hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from collab.errors import ConfigurationError
from collab.storage.addresses import Address, read_address

DEFAULT_FILE = "collab.db"
"""The name of the SQLite file in the data directory."""

_SQLITE = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")
_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where the documents are stored. ``str()`` and ``repr()`` never show a password."""

    backend: Literal["sqlite", "postgresql"]
    path: Path | None
    """The file, on SQLite."""
    dsn: str = field(repr=False)
    """On PostgreSQL the URL with its password, as libpq takes it; on SQLite the path."""
    shown: str
    address: Address | None = field(default=None, repr=False)
    """What the URL says of the servers and of the way to them, on PostgreSQL."""

    def __str__(self) -> str:
        return self.shown


def parse_database_url(text: str | None, data_dir: str | Path = "data") -> DatabaseUrl:
    """Read a database URL; None or empty text is the SQLite file in ``data_dir``.

    ``sqlite:///relative/file.db``, ``sqlite:////absolute/file.db``; ``postgresql://user:password@host:port/database``,
    with several hosts and the parameters of libpq that :mod:`collab.storage.addresses` lists. Raises
    ``ConfigurationError`` without repeating the URL.
    """
    if not text:
        return _sqlite(Path(data_dir) / DEFAULT_FILE)
    scheme, colon, _ = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme in _SQLITE:
        return _read_sqlite(text)
    if colon and scheme in _POSTGRESQL:
        return _read_postgresql(text)
    raise ConfigurationError(
        "the database URL begins with sqlite:/// or postgresql://"
        + (f", not with {scheme}:" if colon and scheme.replace("+", "").isalnum() else "")
    )


def _sqlite(path: Path) -> DatabaseUrl:
    return DatabaseUrl(backend="sqlite", path=path, dsn=str(path), shown=f"sqlite:///{quote(str(path))}")


def _read_sqlite(text: str) -> DatabaseUrl:
    parts = urlsplit(text)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or len(path) < 2 or path == "/:memory:":
        raise ConfigurationError(
            "a SQLite URL names a file: sqlite:///relative/file.db, or sqlite:////absolute/file.db with four slashes"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError("a SQLite URL takes no parameters after its path")
    return _sqlite(Path(path[1:]))


def _read_postgresql(text: str) -> DatabaseUrl:
    rest = text.partition(":")[2]
    address, shown = read_address(rest)
    return DatabaseUrl(backend="postgresql", path=None, dsn=f"postgresql:{rest}", shown=shown, address=address)
