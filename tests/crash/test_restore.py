"""An older database under a server whose clients edit: backups, a replica that was behind, rows removed by hand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crash.backups import PostgresBackup, SqliteBackup
from tests.crash.load import Load
from tests.crash.stored import PostgresLog, SqliteLog, StoredLog, read, tokens
from tests.crash.test_hocuspocus import DOCUMENTS, Providers
from tests.crash.test_kill import until_stored
from tests.crash.test_outage import edits_pass, until_readiness, until_well
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient

NAMES = ("restored 0", "restored 1")


async def goes_back(
    server: ServerProcess, log: StoredLog, keep: Callable[[], None], restore: Callable[[], None], *arguments: str
) -> None:
    """Keep a backup under load, put it in the place of the database later, and look for every edit at the end."""
    async with (
        server,
        Load(server, NAMES, clients=2, seed=8) as load,
        LiveClient(server.document_url("quiet")) as quiet,
    ):
        quiet.text().insert(0, "in the backup")
        await load.until_made(20)
        await in_the_log(log, "quiet", 1)
        await asyncio.to_thread(keep)
        await until_well(server)  # a database that was stopped for it is asked again after a pause
        async with LiveClient(server.document_url("late")) as late:
            quiet.text().insert(0, "not ")
            late.text().insert(0, "begun after the backup")
            await load.until_made(40)
            await in_the_log(log, "quiet", 2)
            await in_the_log(log, "late", 1)
            await asyncio.to_thread(restore)
            line = await asyncio.to_thread(server.wait_for_log, lambda line: "the database has gone back" in line)
            assert " ERROR " in line and "collab.store" in line
            await asyncio.to_thread(server.wait_for_log, lambda line: "were compared with the database" in line)
            await edits_pass(load)
            await load.stop()
            await load.converged()
            answer = await until_readiness(server, 200)
            assert answer["checks"]["database"].startswith("went back ")
            await until_stored(log, load)
            assert quiet.open and quiet.connects == 1 and late.open
            assert all(client.connects == 1 for clients in load.clients.values() for client in clients)
            rows = await read(log)
            for name in (*NAMES, "quiet", "late"):
                assert [seq for seq, _ in rows[name]] == list(range(1, len(rows[name]) + 1))
            assert await server.aterminate() == 0
            late_text = str(late.text())
        assert "malformed" not in server.stderr and "wait for" not in server.stderr
        # Nobody is there who could bring anything again.
        for clients in load.clients.values():
            for client in clients:
                await client.close()
        await quiet.close()
        await server.astart()
        for name, text in (("quiet", "not in the backup"), ("late", late_text)):
            async with LiveClient(server.document_url(name)) as reader:
                await reader.until(lambda reader=reader, text=text: str(reader.text()) == text, text)  # type: ignore[misc]
        for name in NAMES:
            file = server.data_dir / "exported"
            done = await asyncio.to_thread(
                collab_command, "documents", "export", name, str(file), "--data-dir", str(server.data_dir), *arguments
            )
            assert done.returncode == 0 and "gap" not in done.stderr, done.stderr
            assert sorted(tokens([file.read_bytes()])) == sorted(load.made[name])


async def in_the_log(log: StoredLog, name: str, rows: int) -> None:
    async def there() -> bool:
        return len((await read(log)).get(name, ())) >= rows

    await eventually(there, f"{rows} rows of {name}")


@pytest.mark.parametrize("how", ["restored", "replaced", "removed"])
async def test_a_backup_on_sqlite(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    backup = SqliteBackup(data / "collab.db", tmp_path / "backup.db")
    await goes_back(ServerProcess(data), SqliteLog(backup.path), backup.keep, lambda: backup.restore(how))


async def test_pg_restore_clean(tmp_path: Path, postgres_server: PostgresServer, postgres_url: str) -> None:
    database = urlsplit(postgres_url).path.lstrip("/")
    backup = PostgresBackup(postgres_server, database, tmp_path / "backup")
    await goes_back(
        ServerProcess(tmp_path, database_url=postgres_url),
        PostgresLog(postgres_server, database),
        backup.keep,
        backup.restore,
        "--database-url",
        postgres_url,
    )


async def test_a_replica_takes_over_that_was_behind(tmp_path: Path, private_postgres: PostgresServer) -> None:
    data, behind = private_postgres.directory / "data", private_postgres.directory / "behind"

    def keep() -> None:
        private_postgres.stop()
        shutil.copytree(data, behind)
        private_postgres.start()

    def fail_over() -> None:
        private_postgres.kill()
        shutil.rmtree(data)
        behind.rename(data)
        (data / "postmaster.pid").unlink(missing_ok=True)
        private_postgres.start()

    await goes_back(
        ServerProcess(tmp_path, "--migrate", database_url=private_postgres.url()),
        PostgresLog(private_postgres, "postgres"),
        keep,
        fail_over,
        "--database-url",
        private_postgres.url(),
    )


async def test_rows_removed_by_hand_on_postgresql(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = urlsplit(postgres_url).path.lstrip("/")

    backup = PostgresBackup(postgres_server, database, tmp_path / "none")
    await goes_back(
        ServerProcess(tmp_path, database_url=postgres_url),
        PostgresLog(postgres_server, database),
        lambda: None,
        backup.remove_rows,
        "--database-url",
        postgres_url,
    )


async def test_rows_removed_by_hand_on_sqlite(tmp_path: Path) -> None:
    backup = SqliteBackup(tmp_path / "collab.db", tmp_path / "none")
    await goes_back(ServerProcess(tmp_path), SqliteLog(backup.path), lambda: None, backup.remove_rows)


async def stays_saved(
    server: ServerProcess, log: StoredLog, keep: Callable[[], object], restore: Callable[[], object]
) -> None:
    """Put backups in the place of the database under the published providers of all versions, then kill the server."""
    async with server, Providers(f"ws://{server.host}:{server.port}/hocuspocus", DOCUMENTS, 1_000) as providers:
        for times in range(1, 3):
            await providers.until_saved(30)
            await asyncio.to_thread(keep)
            await providers.until_saved(30)
            await asyncio.to_thread(restore)

            async def compared(times: int = times) -> bool:
                return server.stderr.count("were compared with the database") >= times

            await eventually(compared, "the comparison")
            await providers.until_saved(30)
        await server.akill()
        # Nobody can bring anything again now.
        await providers.until(lambda: providers.open == 0, "the end of each socket")
        rows = await read(log)
        for name in DOCUMENTS:
            assert providers.saved[name] <= set(tokens(data for _, data in rows[name])), "saved, and not in the store"
        await server.astart()
        await providers.stop()
        await providers.converged()


async def test_what_providers_were_told_is_saved_stays_on_sqlite(tmp_path: Path) -> None:
    backup = SqliteBackup(tmp_path / "collab.db", tmp_path / "backup.db")
    await stays_saved(ServerProcess(tmp_path), SqliteLog(backup.path), backup.keep, lambda: backup.restore("replaced"))


async def test_what_providers_were_told_is_saved_stays_on_postgresql(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = urlsplit(postgres_url).path.lstrip("/")
    backup = PostgresBackup(postgres_server, database, tmp_path / "backup")
    await stays_saved(
        ServerProcess(tmp_path, database_url=postgres_url),
        PostgresLog(postgres_server, database),
        backup.keep,
        backup.restore,
    )
