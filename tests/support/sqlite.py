"""SQLite databases on the newest schema: migrated once in a process, then copied."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

from collab.storage.migrate import upgrade
from collab.storage.urls import DatabaseUrl, parse_database_url


def migrated(directory: Path) -> DatabaseUrl:
    """Make the database file of a new server in ``directory`` unless it is there, and return its URL."""
    url = parse_database_url(None, directory)
    assert url.path is not None
    url.path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), url.path.open("xb") as file:
        file.write(_content())
    return url


@functools.cache
def _content() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        url = parse_database_url(None, Path(directory))
        upgrade(url)
        assert url.path is not None
        beside = {path.name for path in url.path.parent.iterdir()} - {url.path.name}
        assert not beside, f"the database is not in one file: {beside}"
        return url.path.read_bytes()
