"""Database URLs as people write them.

Strategy: a URL is read once, here, into a value whose text form has no password, so that whoever logs
it or puts it into an error cannot give one away. What follows the host is the database driver's
business (asyncpg reads the whole URL itself: several hosts, ``sslmode``, ``host=/socket/dir`` ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from collab.errors import ConfigurationError

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
    """What the driver is given: on PostgreSQL the URL with its password, on SQLite the path."""
    shown: str

    def __str__(self) -> str:
        return self.shown


def parse_database_url(text: str | None, data_dir: str | Path = "data") -> DatabaseUrl:
    """Read a database URL; None or empty text is the SQLite file in ``data_dir``.

    ``sqlite:///relative/file.db``, ``sqlite:////absolute/file.db``; ``postgresql://user:password@host:port/database``,
    with any parameter of libpq that asyncpg knows. Raises ``ConfigurationError`` without repeating the URL.
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
    dsn = f"postgresql:{rest}"
    try:
        parts = urlsplit(dsn)
        _ = parts.username  # only its reading can fail
    except ValueError:
        raise ConfigurationError(
            "the PostgreSQL URL cannot be read; percent-encode special characters in the password"
        ) from None
    if not rest.startswith("//"):
        raise ConfigurationError("a PostgreSQL URL has the form postgresql://user:password@host/database")
    address = parts.netloc
    if "@" in address:
        user, _, host = address.rpartition("@")
        name, colon, _ = user.partition(":")
        address = f"{name}:***@{host}" if colon else f"{name}@{host}"
    # sslpassword, and password as a parameter, are as secret as the one in front of the host.
    query = urlencode(
        [(key, "***" if "password" in key.lower() else value) for key, value in parse_qsl(parts.query)], safe="/*"
    )
    shown = f"postgresql://{address}{parts.path}" + (f"?{query}" if query else "")
    return DatabaseUrl(backend="postgresql", path=None, dsn=dsn, shown=shown)
