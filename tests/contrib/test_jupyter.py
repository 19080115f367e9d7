"""The store for jupyter-collaboration: under its rooms, and under its own server as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pycrdt
import pytest
from pycrdt.store import SQLiteYStore, YDocNotFound
from pycrdt.websocket import YRoom
from traitlets.config import Config

from collab.contrib.jupyter import CollabYStore, SharedLog
from collab.errors import StoreUnavailable, UpdateError
from tests.support.author import Author
from tests.support.waiting import eventually, happens

ROOT = Path(__file__).resolve().parents[2]
PATH = ".notebook:0c8e7a4e.y"


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Config]:
    yield Config({"CollabYStore": {"db_path": str(tmp_path / "a file #1%.db")}})
    await SharedLog.close_all()


@pytest.fixture
async def on_postgresql(postgres_url: str) -> AsyncIterator[Config]:
    yield Config({"CollabYStore": {"database_url": postgres_url}})
    await SharedLog.close_all()


def make(config: Config, path: str = PATH, **options: Any) -> CollabYStore:
    return CollabYStore(path=path, config=config, **options)


async def text_of(config: Config, path: str = PATH, root: str = "t") -> str:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    text = document.get(root, type=pycrdt.Text)
    await make(config, path).apply_updates(document)
    return str(text)


@asynccontextmanager
async def room(store: Any) -> AsyncIterator[YRoom]:
    """Run a room as Jupyter does: started, loaded, ready."""
    made = YRoom(ready=False, ystore=store)
    try:
        async with made:
            try:
                await store.apply_updates(made.ydoc)
            except YDocNotFound:
                await store.encode_state_as_update(made.ydoc)
            made.ready = True
            await made.ydoc_observed.wait()
            yield made
    except* AttributeError:
        pass  # theirs: a room that is stopped with updates under way looks at a task group that it has not any more
    finally:
        made._update_send_stream.close()
        made._update_receive_stream.close()


async def test_a_document_that_was_never_written_is_not_there(config: Config) -> None:
    store = make(config)
    with pytest.raises(YDocNotFound):
        await store.apply_updates(pycrdt.Doc())
    with pytest.raises(YDocNotFound):
        [item async for item in store.read()]


async def test_what_is_written_is_committed_and_read_in_its_order(config: Config) -> None:
    store, ada = make(config), Author(1)
    updates = [ada.type(word) for word in ("one ", "two ", "three")]
    before = time.time()
    async with store:
        for update in updates:
            await store.write(update)
        await store.write(b"\0\0")
        read = [item async for item in store.read()]
    assert [(data, metadata) for data, metadata, _ in read] == [(update, b"") for update in updates]
    assert [at for *_, at in read] == sorted(at for *_, at in read) and before - 1 <= read[0][2] <= time.time() + 1
    assert await text_of(config) == "one two three"
    with pytest.raises(YDocNotFound):
        await text_of(config, ".notebook:another.y")


async def test_what_no_client_could_read_is_not_stored(config: Config) -> None:
    with pytest.raises(UpdateError):
        await make(config).write(b"\1\1\1\1\1\1\1")


async def test_a_room_that_ends_takes_no_edit_with_it(config: Config) -> None:
    async with room(make(config)) as first:
        text = first.ydoc.get("t", type=pycrdt.Text)
        for number in range(100):
            text += f"{number} "
        # The block ends in the step of the last edit: most writes have not begun.
    expected = "".join(f"{number} " for number in range(100))
    await happens(lambda: not any(log.waiting for log in opened()), "the commits")
    assert await text_of(config) == expected


def opened() -> list[Any]:
    return [task.result()._journal for task in SharedLog._open.values()]


async def test_a_room_that_begins_again_does_not_write_the_whole_document_again(config: Config) -> None:
    async with room(make(config)) as first:
        first.ydoc.get("t", type=pycrdt.Text).insert(0, "x" * 10_000)
        await happens(lambda: not first._update_receive_stream.statistics().current_buffer_used, "the edit")
    for _ in range(3):
        store = make(config)
        async with room(store) as again:
            await store.encode_state_as_update(again.ydoc)  # what Jupyter does when a file has changed on disk
    sizes = [len(data) async for data, *_ in make(config).read()]
    assert sum(size > 10_000 for size in sizes) == 1, sizes


async def test_the_log_is_compacted_and_pruned(config: Config, tmp_path: Path) -> None:
    config.CollabYStore.update(compact_rows=50, history_days=0.0)
    store, ada = make(config), Author(1)
    for _ in range(500):
        await store.write(ada.type("word "))

    async def rows() -> list[Any]:
        with sqlite3.connect(tmp_path / "a file #1%.db") as database:
            return database.execute("SELECT count(*) FROM updates").fetchall()

    async def few() -> bool:
        items = [item async for item in store.read()]
        return len(items) < 200

    await eventually(few, "the log is pruned")
    assert await text_of(config) == "word " * 500
    # What is left begins with the state before it: Jupyter's timeline applies one after the other.
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    text = document.get("t", type=pycrdt.Text)
    async for data, *_ in store.read():
        document.apply_update(data)
    assert str(text) == "word " * 500


async def test_documents_share_one_log_and_commits(config: Config) -> None:
    authors = {f".notebook:{number}.y": Author(number + 1) for number in range(20)}
    stores = {path: make(config, path) for path in authors}
    await asyncio.gather(*(stores[path].write(author.type(path)) for path, author in authors.items()))
    assert len(SharedLog._open) == 1
    for path in authors:
        assert await text_of(config, path) == path


async def test_two_processes_on_one_file_are_refused_with_what_to_do(config: Config, tmp_path: Path) -> None:
    await make(config).write(Author(1).type("x"))
    code = (
        "import asyncio, sys, pycrdt\n"
        "from collab.contrib import jupyter\n"
        "jupyter._LOCK_SECONDS = 0.1\n"
        "store = jupyter.CollabYStore(path='x')\n"
        "store.db_path = sys.argv[1]\n"
        "asyncio.run(store.apply_updates(pycrdt.Doc()))"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, config.CollabYStore.db_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "StoreUnavailable: another server (process" in done.stderr and "(db_path)" in done.stderr, done.stderr


async def test_a_database_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "later"
    place.touch()
    config = Config({"CollabYStore": {"db_path": str(place / "x.db")}})
    with pytest.raises(StoreUnavailable):
        await make(config).apply_updates(pycrdt.Doc())
    place.unlink()
    place.mkdir()
    await make(config).write(Author(1).type("x"))
    assert await text_of(config) == "x"
    await SharedLog.close_all()


async def test_postgresql_keeps_them_too(on_postgresql: Config) -> None:
    config = on_postgresql
    async with room(make(config)) as first:
        first.ydoc.get("t", type=pycrdt.Text).insert(0, "in the database")
    await happens(lambda: not any(log.waiting for log in opened()), "the commits")
    assert await text_of(config) == "in the database"
    await SharedLog.close_all()
    assert await text_of(config) == "in the database"


async def test_another_server_on_the_same_document_loses_nothing_and_is_named(
    on_postgresql: Config, caplog: pytest.LogCaptureFixture
) -> None:
    config = on_postgresql
    ours, ada, bob = make(config), Author(1), Author(2)
    await ours.write(ada.type("a"))
    log = ours._shared
    assert log is not None
    # As another process would have it.
    tail = log.tails.pop(PATH)
    await ours.write(bob.type("b"))
    log.tails[PATH] = tail
    await ours.write(ada.type("c"))
    assert "another server writes the document" in caplog.text
    assert sorted(await text_of(config)) == ["a", "b", "c"]


async def test_their_own_store_is_what_is_replaced(config: Config, tmp_path: Path) -> None:
    """The interface is theirs: what their store is asked for, ours is asked for too."""
    theirs = {name for name in dir(SQLiteYStore) if not name.startswith("_")}
    own = {
        *("db_path", "lock", "path", "checkpoint_interval", "cleanup_when_db_size_above", "document_ttl"),
        *("db_initialized", "register_compression_callbacks", "squash_after_inactivity_of"),
        *("squash_history_older_than", "squash_no_more_often_than"),
    }
    assert theirs - own <= set(dir(CollabYStore))


# Under Jupyter's own server


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", f"--config={folder / 'config.json'}"],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "JUPYTER_PLATFORM_DIRS": "1"},
        )


@asynccontextmanager
async def jupyter(folder: Path, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run Jupyter's server with our store; it is killed at the end."""
    settings = {
        "ServerApp": {
            "jpserver_extensions": {"jupyter_server_ydoc": True, "jupyter_server_fileid": True},
            "token": "",
            "password": "",
            "disable_check_xsrf": True,
            "allow_root": True,
            "open_browser": False,
            "port": port,
            "port_retries": 0,
            "root_dir": str(folder / "files"),
        },
        "YDocExtension": {"ystore_class": "collab.contrib.jupyter.CollabYStore", "document_save_delay": 0.1},
        "CollabYStore": {"db_path": str(folder / "log.db")},
        "BaseFileIdManager": {"db_path": str(folder / "ids.db")},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    process = start(folder)
    try:
        async with aiohttp.ClientSession() as http:

            async def answers() -> bool:
                assert process.poll() is None, (folder / "log.txt").read_text()
                try:
                    return (await http.get(f"http://127.0.0.1:{port}/api")).status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await eventually(answers, "Jupyter")
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def opened_file(port: int, path: str) -> AsyncIterator[tuple[pycrdt.Doc[Any], Any]]:
    """Open a text file as a browser does, and give the document and its text."""
    async with aiohttp.ClientSession() as http:
        about = {"format": "text", "type": "file"}
        async with http.put(f"http://127.0.0.1:{port}/api/collaboration/session/{path}", json=about) as answer:
            session = await answer.json()
        room = f"text:file:{session['fileId']}"
        address = f"ws://127.0.0.1:{port}/api/collaboration/room/{room}?sessionId={session['sessionId']}"
        document: pycrdt.Doc[Any] = pycrdt.Doc()
        text = document.get("source", type=pycrdt.Text)
        async with http.ws_connect(address) as socket:
            sent: list[asyncio.Task[None]] = []
            subscription = document.observe(
                lambda event: sent.append(
                    asyncio.ensure_future(socket.send_bytes(pycrdt.create_update_message(event.update)))
                )
            )
            await socket.send_bytes(pycrdt.create_sync_message(document))

            async def receive() -> None:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY and message.data[0] == pycrdt.YMessageType.SYNC:
                        reply = pycrdt.handle_sync_message(message.data[1:], document)
                        if reply is not None:
                            await socket.send_bytes(reply)

            receiving = asyncio.create_task(receive())
            try:
                yield document, text
                await asyncio.gather(*sent)
            finally:
                document.unobserve(subscription)
                receiving.cancel()
                await asyncio.wait([receiving])


@pytest.mark.server
@pytest.mark.slow
async def test_under_jupyter_an_edit_survives_the_death_of_the_server(
    tmp_path: Path, unused_tcp_port: int, config: Config
) -> None:
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "notes.txt"
    file.write_text("on disk")
    async with jupyter(tmp_path, unused_tcp_port) as server:
        async with opened_file(unused_tcp_port, "notes.txt") as (_, text):
            await happens(lambda: str(text) == "on disk", "the file")
            text += ", and written together"
            await happens(lambda: file.read_text() == "on disk, and written together", "the file is saved")
        server.send_signal(signal.SIGKILL)
    async with jupyter(tmp_path, unused_tcp_port) as server:
        async with opened_file(unused_tcp_port, "notes.txt") as (_, text):
            await happens(lambda: str(text) == "on disk, and written together", "the document")
        # It ends as it should: nothing of ours holds it up.
        server.send_signal(signal.SIGTERM)
        await happens(lambda: server.poll() is not None, "the end")
    said = (tmp_path / "log.txt").read_text()
    assert "loaded from the ystore CollabYStore" in said and "Traceback" not in said, said
    config.CollabYStore.db_path = str(tmp_path / "log.db")
    with sqlite3.connect(tmp_path / "log.db") as database:
        ((name,),) = database.execute("SELECT name FROM documents").fetchall()
    assert await text_of(config, bytes(name).decode(), "source") == "on disk, and written together"
