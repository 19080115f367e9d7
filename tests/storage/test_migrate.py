"""Migrations: from empty to the tables that the code has in mind, once, however many processes try."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from collab.adapters import make_store
from collab.errors import SchemaError, StoreUnavailable
from collab.storage import migrate
from collab.storage.backfill import Backfill
from collab.storage.migrate import _build, _next_migration, run_exclusively, scripts, upgrade
from collab.storage.postgresql import connect
from collab.storage.records import Append, Appended, NewRow
from collab.storage.schema import BASE_REVISION, BASE_TABLE, SCHEMA, metadata
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


def look(url: DatabaseUrl) -> set[str]:
    """Give the names of the tables."""
    return run_exclusively(url, lambda connection: set(inspect(connection).get_table_names()))


def test_upgrade_from_empty_makes_the_tables_and_again_does_nothing(empty: DatabaseUrl) -> None:
    assert upgrade(empty) is True
    assert upgrade(empty) is False
    assert look(empty) >= set(metadata.tables)


def test_models_match_the_migrations(empty: DatabaseUrl) -> None:
    upgrade(empty)
    # Raises with the differences if autogenerate would find any.
    run_exclusively(empty, lambda connection: command.check(config(connection)))


def test_downgrade_takes_back_what_came_since_the_base(empty: DatabaseUrl) -> None:
    upgrade(empty)
    run_exclusively(empty, lambda connection: command.downgrade(config(connection), BASE_REVISION))
    assert "compatibility" not in look(empty)
    assert upgrade(empty) is True
    assert upgrade(empty) is False


def test_schema_of_the_release_is_the_newest_migration() -> None:
    directory = Config()
    directory.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    assert ScriptDirectory.from_config(directory).get_current_head() == f"{SCHEMA:04}"


@pytest.mark.slow
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
            [sys.executable, "-c", program, text_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, answers
    # Each migration is a transaction of its own, so several may have had a part in it.
    assert "True\n" in [out for out, _ in answers]
    assert upgrade(empty) is False


async def test_store_on_an_empty_database_says_what_to_run(empty: DatabaseUrl) -> None:
    store = make_store(empty)
    with pytest.raises(SchemaError) as caught:
        await store.open()
    await store.close()
    assert str(caught.value).endswith(f"run: collab migrate --database-url '{empty}'")
    assert empty.path is None or not empty.path.exists(), "looking must not create the file"


async def opening(url: DatabaseUrl) -> str:
    """Open a store that must refuse, and give what it says."""
    store = make_store(url)
    with pytest.raises(SchemaError) as caught:
        await store.open()
    await store.close()
    return str(caught.value)


def say(url: DatabaseUrl, *statements: str) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    run_exclusively(url, work)


async def test_older_schema_says_what_to_run(empty: DatabaseUrl) -> None:
    await asyncio.to_thread(upgrade, empty)
    await asyncio.to_thread(say, empty, "DELETE FROM compatibility", "UPDATE schema_revision SET version_num = '0002'")
    said = await opening(empty)
    assert f"is on schema 2, this release needs schema {SCHEMA}; run: collab migrate --database-url" in said


async def test_newer_schema_that_this_release_may_use_is_used(empty: DatabaseUrl) -> None:
    await asyncio.to_thread(upgrade, empty)
    newer = f"INSERT INTO compatibility VALUES ({SCHEMA + 2}, {SCHEMA}, '0.1.0', 0)"
    column = "ALTER TABLE log ADD COLUMN added_later TEXT"
    await asyncio.to_thread(say, empty, newer, column, "CREATE TABLE added_later (id INTEGER)")
    assert await asyncio.to_thread(upgrade, empty) is False
    store = make_store(empty)
    await store.open()
    (outcome,) = await store.append([Append("d", None, (NewRow(b"1", 1.0),))])
    assert isinstance(outcome, Appended)
    loaded = await store.load("d")
    assert loaded is not None and [row.data for row in loaded.rows] == [b"1"]
    await store.close()


async def test_newer_schema_that_this_release_may_not_use_says_which_release_may(empty: DatabaseUrl) -> None:
    await asyncio.to_thread(upgrade, empty)
    newer = f"INSERT INTO compatibility VALUES ({SCHEMA + 5}, {SCHEMA + 4}, '7.8.9', 0)"
    await asyncio.to_thread(say, empty, newer)
    said = await opening(empty)
    assert f"is on schema {SCHEMA + 5}, which only releases from 7.8.9 on can use" in said
    assert "collab migrate" not in said, "which would refuse"
    with pytest.raises(SchemaError) as caught:
        await asyncio.to_thread(upgrade, empty)
    assert str(caught.value) == said


async def test_revision_that_no_release_has(empty: DatabaseUrl) -> None:
    await asyncio.to_thread(upgrade, empty)
    await asyncio.to_thread(say, empty, "DROP TABLE compatibility", f"UPDATE {BASE_TABLE} SET version_num = 'abcd'")
    said = await opening(empty)
    assert said == "the database is on schema abcd, which no release of collab has"
    with pytest.raises(SchemaError):
        await asyncio.to_thread(upgrade, empty)


# Migrations only add.


def described(connection: Connection) -> dict[str, dict[str, str]]:
    """Describe all tables: their columns, keys, indexes and constraints."""
    found: dict[str, dict[str, str]] = {}
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        parts = {
            f"column {column['name']}": f"{column['type']!r} {column['nullable']} {column['default']}"
            for column in inspector.get_columns(table)
        }
        parts["key"] = repr(inspector.get_pk_constraint(table))
        parts |= {f"index {index['name']}": repr(index) for index in inspector.get_indexes(table)}
        parts["others"] = repr(
            (
                inspector.get_unique_constraints(table),
                inspector.get_foreign_keys(table),
                inspector.get_check_constraints(table),
            )
        )
        found[table] = parts
    return found


def additions(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield what is wrong with the way from ``before`` to ``after``, for servers of the release before."""
    for table, parts in before.items():
        if table not in after:
            yield f"the table {table} is gone"
            continue
        for part, said in parts.items():
            if after[table].get(part) != said:
                yield f"{table}: {part} was {said}, is {after[table].get(part)}"
        for part in after[table].keys() - parts.keys():
            said = after[table][part]
            if part.startswith("column ") and not said.endswith(" True None"):
                yield f"{table}: the new {part} is not empty by itself, or must not be empty: {said}"
            if part.startswith("index ") and "'unique': 0" not in said and "'unique': False" not in said:
                yield f"{table}: the new {part} refuses rows"


def walk(url: DatabaseUrl, directory: Path) -> list[str]:
    """Do all migrations since the base one by one; give what is wrong with them."""
    wrong: list[str] = []
    run_exclusively(url, lambda connection: _next_migration(connection, directory))
    before = run_exclusively(url, described)
    while True:
        step = run_exclusively(url, lambda connection: _next_migration(connection, directory))
        if isinstance(step, list):
            asyncio.run(_build(url, step))
        after = run_exclusively(url, described)
        wrong += additions(before, after)
        before = after
        if step is False:
            return wrong


def test_migrations_only_add(empty: DatabaseUrl) -> None:
    if empty.path is not None:
        empty.path.parent.mkdir(parents=True)
    assert walk(empty, scripts()) == []


def test_indexes_of_migrations_are_declared_and_migrations_say_who_may_use_them() -> None:
    directory = Config()
    directory.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    later = [s for s in ScriptDirectory.from_config(directory).walk_revisions() if s.revision > BASE_REVISION]
    assert later
    for script in later:
        source = Path(script.path).read_text(encoding="utf-8").partition("def downgrade")[0]
        assert not re.search(r"\bop\.(create_index|execute|alter_|drop_|batch_|bulk_|rename_|get_bind)", source), (
            script.path
        )
        assert 0 < script.module.oldest_schema <= SCHEMA and script.module.oldest_release


FORBIDDEN = {
    "not null": 'op.add_column("log", sa.Column("x", sa.Text(), nullable=False, server_default="x"))',
    "default": 'op.add_column("log", sa.Column("x", sa.Text(), nullable=True, server_default="x"))',
    "column dropped": 'op.drop_column("documents", "title")',
    "table dropped": 'op.drop_table("writers")',
    "renamed": 'op.rename_table("writers", "authors")',
    "unique": 'op.create_index("uq_x", "log", ["at"], unique=True)',
    "type": 'op.execute("ALTER TABLE log RENAME COLUMN at TO moment")',
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the migrations, to which a test adds others."""
    made = tmp_path / "migrations"
    shutil.copytree(scripts(), made, ignore=shutil.ignore_patterns("__pycache__"))
    return made


def add(directory: Path, body: str = "pass", head: str = "") -> None:
    """Add a migration behind the newest one."""
    number = SCHEMA + 1
    lines = [
        "import sqlalchemy as sa",
        "from alembic import op",
        f"revision = '{number:04}'",
        f"down_revision = '{SCHEMA:04}'",
        "oldest_schema = 2",
        "oldest_release = '0.1.0'",
        head,
        "def upgrade():",
        f"    {body}",
    ]
    (directory / "versions" / f"{number:04}_added.py").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_migration_that_does_not_only_add_is_found(empty: DatabaseUrl, directory: Path, name: str) -> None:
    if empty.path is not None:
        empty.path.parent.mkdir(parents=True)
    add(directory, FORBIDDEN[name])
    assert walk(empty, directory) != []


# Interrupted, and beside running servers.


def test_each_migration_has_a_transaction_of_its_own(empty: DatabaseUrl, directory: Path) -> None:
    add(directory, "op.create_table('half', sa.Column('id', sa.Integer())); op.drop_table('never')")
    with pytest.raises(StoreUnavailable):
        upgrade(empty, directory)
    assert "half" not in look(empty) and "compatibility" in look(empty)
    assert upgrade(empty) is False, "what came before has stayed"
    add(directory, "op.create_table('half', sa.Column('id', sa.Integer()))")
    assert upgrade(empty, directory) is True
    assert "half" in look(empty)
    assert upgrade(empty, directory) is False


INDEX = "concurrent_indexes = [('ix_log_at', 'log', ('at',))]"


def test_index_is_built(empty: DatabaseUrl, directory: Path) -> None:
    add(directory, head=INDEX)
    assert upgrade(empty, directory) is True
    assert "index ix_log_at" in run_exclusively(empty, described)["log"]
    assert upgrade(empty, directory) is False


def test_index_is_built_while_a_server_writes_and_what_was_interrupted_is_built_again(
    postgres_url: str, directory: Path
) -> None:
    url = parse_database_url(postgres_url)
    add(directory, head=INDEX)

    async def interrupted() -> None:
        # An open transaction that has written holds the build up: it is cut off there.
        writer, builder = await connect(url), await connect(url)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO log (document_id, seq, at, data) VALUES (1, 1, 0, '')")
        await builder.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.PostgresError):
            await builder.execute("CREATE INDEX CONCURRENTLY ix_log_at ON log (at)")
        await transaction.commit()
        assert (
            await writer.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_log_at'::regclass") is False
        )
        await writer.close()
        await builder.close()

    asyncio.run(interrupted())

    async def both() -> list[bool]:
        # A transaction that has written is open when the build begins; rows go on being written meanwhile.
        writer, other = await connect(url), await connect(url)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("INSERT INTO log (document_id, seq, at, data) VALUES (1, 2, 0, '')")
        builds = [asyncio.create_task(asyncio.to_thread(upgrade, url, directory)) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CONCURRENTLY%' AND pid <> pg_backend_pid()"
        async with asyncio.timeout(30):
            while not await other.fetchval(waiting + " AND wait_event_type = 'Lock'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            await other.execute("INSERT INTO log (document_id, seq, at, data) VALUES (1, 3, 0, '')")
        await transaction.commit()
        await writer.close()
        await other.close()
        return await asyncio.gather(*builds)

    assert any(asyncio.run(both()))
    assert "index ix_log_at" in run_exclusively(url, described)["log"]
    assert upgrade(url, directory) is False


def test_a_migration_that_waits_for_a_backup_lets_servers_go_on(
    postgres_url: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = parse_database_url(postgres_url)
    add(directory, "op.add_column('log', sa.Column('added', sa.Integer(), nullable=True))")
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "LOCK_PAUSE", 0.1)

    async def work() -> None:
        backup, server = await connect(url), await connect(url)
        transaction = backup.transaction()
        await transaction.start()
        await backup.execute("LOCK TABLE log IN ACCESS SHARE MODE")
        monkeypatch.setattr(migrate, "LOCK_TRIES", 2)
        with pytest.raises(StoreUnavailable, match="run it again later"):
            await asyncio.to_thread(upgrade, url, directory)
        monkeypatch.setattr(migrate, "LOCK_TRIES", 1_000)
        migrating = asyncio.create_task(asyncio.to_thread(upgrade, url, directory))
        for seq in range(1, 6):
            async with asyncio.timeout(10):
                await server.execute(f"INSERT INTO log (document_id, seq, at, data) VALUES (1, {seq}, 0, '')")
            await asyncio.sleep(0.1)
        assert not migrating.done()
        await transaction.commit()
        assert await migrating is True
        await backup.close()
        await server.close()

    asyncio.run(work())
    assert "column added" in run_exclusively(url, described)["log"]


async def test_backfill_goes_on_where_it_was_interrupted(store: SqlStore) -> None:
    job = Backfill(store._backend, "test")
    assert await job.position() == 0

    def write(connection: Connection) -> None:
        connection.execute(text("UPDATE documents SET title = NULL"))

    def fail(connection: Connection) -> None:
        raise StoreUnavailable("cut off")

    await job.portion(7, write)
    with pytest.raises(StoreUnavailable):
        await job.portion(9, fail)
    assert await Backfill(store._backend, "test").position() == 7
    assert await Backfill(store._backend, "another").position() == 0
    await job.finish()
    assert await job.position() == 0
    await job.portion(3, write)
    assert await job.position() == 3


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
    store = make_store(url)
    for attempt in (store.open(), store.ping(), asyncio.to_thread(upgrade, url)):
        with pytest.raises(StoreUnavailable) as caught:
            await attempt
        assert "s3cret" not in str(caught.value)
    await store.close()
