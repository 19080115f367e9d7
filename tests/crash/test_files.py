"""The files of the SQLite database are moved away, removed or replaced under a server with clients that edit."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.crash.load import Load
from tests.crash.stored import SqliteLog
from tests.crash.test_kill import until_stored
from tests.crash.test_outage import edits_pass, until_readiness
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

NAMES = ("files 0", "files 1")

GONE = "the database file was removed or replaced, try again later"


def move_files(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in source.glob("collab.db*"):
        if not path.name.endswith(".lock"):
            shutil.move(path, target / path.name)


async def test_files_that_are_moved_away_and_back_under_load(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with ServerProcess(data) as server, Load(server, NAMES, clients=2, seed=7) as load:
        await load.until_made(30)
        move_files(data, tmp_path / "away")
        answer = await until_readiness(server, 503)
        assert answer["checks"]["store"] == GONE
        await edits_pass(load)
        async with LiveClient(server.document_url("another")) as newcomer:
            assert await newcomer.expect_close() == 1013
        assert not (data / "collab.db").exists()
        move_files(tmp_path / "away", data)
        await until_readiness(server, 200)
        await load.stop()
        await load.converged()
        await until_stored(SqliteLog(data / "collab.db"), load)
        errors = [line for line in server.log_lines if " ERROR " in line and "was removed or replaced" in line]
        assert any("collab.store" in line for line in errors) and len(errors) == 2, "one of the journal, too"
        assert await server.aterminate() == 0
        await server.astart()
        await load.converged()
