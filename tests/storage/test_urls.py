"""Database URLs: what is understood, what is refused, and that passwords never show."""

from __future__ import annotations

from pathlib import Path

import pytest

from collab.errors import ConfigurationError
from collab.storage.urls import parse_database_url


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (None, "here/collab.db"),
        ("", "here/collab.db"),
        ("sqlite:///path/file.db", "path/file.db"),
        ("sqlite:////absolute/file.db", "/absolute/file.db"),
        ("sqlite+aiosqlite:///file.db", "file.db"),
        ("SQLite:///a%20b.db", "a b.db"),
    ],
)
def test_sqlite_files(text: str | None, path: str) -> None:
    url = parse_database_url(text, "here")
    assert url.backend == "sqlite" and url.path == Path(path)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:s3cr%20t@host:5432/db",
        "postgres://user:s3cr%20t@host:5432/db",
        "postgresql+asyncpg://user:s3cr%20t@host:5432/db",
    ],
)
def test_postgresql_as_people_write_it(text: str) -> None:
    url = parse_database_url(text)
    assert url.backend == "postgresql" and url.path is None
    assert url.dsn == "postgresql://user:s3cr%20t@host:5432/db"
    assert str(url) == "postgresql://user:***@host:5432/db"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:s3cret@host/db",
        "postgresql://user:s3cret:s3cret@host/db",
        "postgresql://user:s3cret@s3cret@host/db",
        "postgresql://host/db?password=s3cret&sslmode=require",
        "postgresql://user@host/db?sslpassword=s3cret",
    ],
)
def test_passwords_do_not_show(text: str) -> None:
    url = parse_database_url(text)
    assert "s3cret" not in str(url) and "s3cret" not in repr(url)
    assert "s3cret" in url.dsn


@pytest.mark.parametrize(
    "text",
    [
        "mysql://user:s3cret@host/db",
        "user:s3cret@host/db",
        "postgresql:user:s3cret@host",
        "postgresql://user:s3cret@[host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file.db?password=s3cret",
        "sqlite://host/file.db",
        "/just/a/path.db",
    ],
)
def test_what_is_not_understood_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_database_url(text)
    assert "s3cret" not in str(caught.value)
