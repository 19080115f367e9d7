"""Migrations: from empty to the tables that the code has in mind, once, however many processes try."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from collab.errors import SchemaError, StoreUnavailable
from collab.storage.migrate import run_exclusively, scripts, upgrade
from collab.storage.schema import SCHEMA_REVISION, metadata
from collab.storage.sql import SqlStore
from collab.storage.urls import DatabaseUrl, parse_database_url

PROCESSES = 4


@pytest.fixture
def empty(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> DatabaseUrl:
    """A database without any table; on SQLite not even a file, nor its directory."""
    if backend == "postgresql":
        return parse_database_url(request.getfixturevalue("empty_postgres_url"))
    return parse_database_url(None, tmp_path / "not" / "there")


def config(connection: Connection) -> Config:
    made = Config()
    made.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def test_upgrade_from_empty_makes_the_tables_and_again_does_nothing(empty: DatabaseUrl) -> None:
    assert upgrade(empty) is True
    assert upgrade(empty) is False
    tables: set[str] = set()

    def look(connection: Connection) -> None:
        tables.update(inspect(connection).get_table_names())

    run_exclusively(empty, look)
    assert tables >= set(metadata.tables)


def test_models_match_the_migrations(empty: DatabaseUrl) -> None:
    upgrade(empty)
    # Raises with the differences if autogenerate would find any.
    run_exclusively(empty, lambda connection: command.check(config(connection)))


def test_downgrade_removes_the_tables(empty: DatabaseUrl) -> None:
    upgrade(empty)
    run_exclusively(empty, lambda connection: command.downgrade(config(connection), "base"))
    tables: set[str] = set()

    def look(connection: Connection) -> None:
        tables.update(inspect(connection).get_table_names())

    run_exclusively(empty, look)
    assert not tables & set(metadata.tables)
    assert upgrade(empty) is True


def test_revision_of_the_release_is_the_newest_migration() -> None:
    directory = Config()
    directory.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    directory.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(directory).get_current_head() == SCHEMA_REVISION


def test_several_processes_upgrading_at_once(empty: DatabaseUrl) -> None:
    # Each says that it is ready and waits for the word, so that they really come at once.
    program = (
        "import sys\n"
        "from collab.storage.migrate import upgrade\n"
        "from collab.storage.urls import parse_database_url\n"
        "url = parse_database_url(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(upgrade(url))\n"
    )
    text_url = empty.dsn if empty.backend == "postgresql" else f"sqlite:///{empty.path}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, text_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, answers
    assert sorted(out.strip() for out, _ in answers) == ["False"] * (PROCESSES - 1) + ["True"]


async def test_store_on_an_empty_database_says_what_to_run(empty: DatabaseUrl) -> None:
    store = SqlStore(empty)
    with pytest.raises(SchemaError) as caught:
        await store.open()
    await store.close()
    assert str(caught.value).endswith(f"run: collab migrate --database-url '{empty}'")
    assert empty.path is None or not empty.path.exists(), "looking must not create the file"


async def test_store_on_another_schema_says_what_to_run(empty: DatabaseUrl) -> None:
    def set_revision(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))

    await asyncio.to_thread(upgrade, empty)
    await asyncio.to_thread(run_exclusively, empty, set_revision)
    store = SqlStore(empty)
    with pytest.raises(SchemaError, match="is on schema 0000, this release needs schema") as caught:
        await store.open()
    await store.close()
    assert "collab migrate" in str(caught.value)
    with pytest.raises(SchemaError, match="a newer release has migrated it"):
        await asyncio.to_thread(upgrade, empty)


@pytest.mark.parametrize(
    "text_url",
    [
        "postgresql://someone:s3cret@127.0.0.1:1/db",
        "postgresql://someone:s3cret@/db?host=/nowhere",
        "postgresql://someone:s3cret@host.invalid/db",
        "postgresql://someone@127.0.0.1:1/db?password=s3cret",
    ],
)
async def test_database_that_cannot_be_reached_is_unavailable_and_shows_no_password(text_url: str) -> None:
    url = parse_database_url(text_url)
    store = SqlStore(url)
    for attempt in (store.open(), store.ping(), asyncio.to_thread(upgrade, url)):
        with pytest.raises(StoreUnavailable) as caught:
            await attempt
        assert "s3cret" not in str(caught.value)
    await store.close()
