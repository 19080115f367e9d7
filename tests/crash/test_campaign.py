"""A short form of the campaign (:mod:`tests.crash.campaign`), which is run at length by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crash.backups import Backup, PostgresBackup
from tests.crash.campaign import FAULTY, OPTIONS, Count, campaign, stores
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess

ROUNDS = 3


def check(count: Count) -> None:
    assert not count.lost and not count.faults, count
    assert count.rounds == ROUNDS and count.rollbacks == 1 and count.kills >= ROUNDS - 1
    assert count.acknowledged > 10 * ROUNDS


@pytest.mark.timeout(240)
async def test_three_rounds_on_sqlite(tmp_path: Path) -> None:
    with stores("sqlite", tmp_path) as (server, backup):
        check(await campaign(server, backup, ROUNDS, seed=4))


@pytest.mark.timeout(240)
async def test_three_rounds_on_postgresql(tmp_path: Path, postgres_server: PostgresServer, postgres_url: str) -> None:
    backup = PostgresBackup(postgres_server, urlsplit(postgres_url).path.lstrip("/"), tmp_path / "backup")
    check(await campaign(ServerProcess(tmp_path, *OPTIONS, database_url=postgres_url), backup, ROUNDS, seed=4))


@pytest.mark.timeout(240)
async def test_three_rounds_while_calls_fail_by_chance(tmp_path: Path) -> None:
    with stores("sqlite", tmp_path, program=FAULTY) as (server, backup):
        check(await campaign(server, backup, ROUNDS, seed=5))


class Forgetful(ServerProcess):
    """A server whose crashes cost the last rows of each document."""

    backup: Backup

    async def akill(self) -> None:
        await super().akill()
        await asyncio.to_thread(self.backup.remove_rows, None, 20)


@pytest.mark.timeout(240)
async def test_what_is_lost_is_named(tmp_path: Path) -> None:
    with stores("sqlite", tmp_path, Forgetful) as (server, backup):
        assert isinstance(server, Forgetful)
        server.backup = backup
        said: list[str] = []
        count = await campaign(server, backup, 2, seed=4, say=said.append)
        lost = {name for name, _ in count.lost}
        assert lost == set(count.saved), count
        assert any(line.startswith("LOST in campaign 0.0, looking at its export: [") for line in said)
