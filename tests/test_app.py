"""The application as others build it: with a store that is handed in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from collab.app import create_app, make_guard, warn
from collab.limits.memory import MARK_SHARE, machine_memory
from collab.settings import Settings
from collab.storage.memory import MemoryStorage, MemoryStore
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, converge


@contextlib.asynccontextmanager
async def serving(settings: Settings, store: MemoryStore) -> AsyncIterator[str]:
    """Serve an application; give the address of its documents."""
    async with TestServer(create_app(settings, store=store), host="127.0.0.1") as server:
        yield f"ws://127.0.0.1:{server.port}/ws"


class Watched(MemoryStore):
    """The memory store, noting when it is opened and closed."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(storage)
        self.life: list[str] = []

    async def open(self) -> None:
        self.life.append("open")
        await super().open()

    async def close(self) -> None:
        self.life.append("close")
        await super().close()


async def test_a_store_that_is_handed_in_takes_the_place_of_the_database(tmp_path: Path) -> None:
    storage = MemoryStorage()
    store = Watched(storage)
    # The database of the settings is not even looked at.
    settings = Settings(data_dir=tmp_path / "data", database_url="nothing://that/is/known", migrate=True)
    async with serving(settings, store) as url:
        assert store.life == ["open"]
        async with LiveClient(f"{url}/d") as client:
            await client.until_synced()
            text = client.text()
            text += "kept in memory"
            await happens(lambda: head(storage) == 1, "the row")
    assert store.life == ["open", "close"]
    assert os.listdir(tmp_path) == []
    async with serving(settings, MemoryStore(storage)) as url, LiveClient(f"{url}/d") as client:
        await client.until(lambda: str(client.text()) == "kept in memory", "what the first server stored")


async def test_several_applications_of_one_process_share_a_storage(tmp_path: Path) -> None:
    storage = MemoryStorage()
    settings = Settings(data_dir=tmp_path)
    async with (
        serving(settings, MemoryStore(storage)) as one,
        serving(settings, MemoryStore(storage)) as two,
        LiveClient(f"{one}/d", client_id=1) as first,
        LiveClient(f"{two}/d", client_id=2) as second,
    ):
        await first.until_synced()
        await second.until_synced()
        # A node without a bus learns what another one wrote when it writes itself.
        for writer, written in ((first, "a"), (second, "b"), (first, "c")):
            text = writer.text()
            text += written
            rows = "abc".index(written) + 1
            await happens(lambda rows=rows: head(storage) == rows, f"row {rows}")  # type: ignore[misc]
            expected = set("abc"[:rows])
            await converge([writer], lambda client: set(str(client.text())), expected)


def head(storage: MemoryStorage) -> int:
    """Give the number of the newest row."""
    loaded = storage.load("d")
    return loaded.document.head_seq if loaded else 0


def test_workers_share_the_memory_of_the_machine_unless_marks_are_set() -> None:
    there_is = machine_memory()
    for workers in (1, 4):
        memory = make_guard(Settings(workers=workers), authenticated=False).limits.memory
        memory.used = int(there_is // workers * MARK_SHARE)
        assert not memory.past_mark
        memory.used += 1
        assert memory.past_mark
    memory = make_guard(
        Settings(workers=4, memory_mark_bytes=there_is, memory_limit_bytes=0), authenticated=False
    ).limits.memory
    memory.used = there_is
    assert not memory.past_mark


def test_files_with_secrets_that_everybody_can_read_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / name for name in ("key.pem", "receivers.toml", "signing.jwk")]
    for path in files:
        path.touch()
    settings = Settings(tls_key=files[0], webhooks_file=files[1], signing_keys=(files[2], tmp_path / "missing"))
    for mode, warned in ((0o640, []), (0o644, files)):
        for path in files:
            path.chmod(mode)
        caplog.clear()
        warn(settings, authenticated=True)
        lines = [record.getMessage() for record in caplog.records if "everybody on this machine" in record.message]
        line = "everybody on this machine can read {}, which holds secrets: chmod o-r"
        assert lines == [line.format(path) for path in warned]
