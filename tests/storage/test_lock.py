"""One server a SQLite file: the lock beside it, with processes of their own that hold it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collab.errors import StoreUnavailable
from collab.storage import lock as locks
from collab.storage.lock import lock_database
from tests.support.waiting import happens

PROGRAM = """
import asyncio, sys
from pathlib import Path
from collab.storage.lock import lock_database

async def main():
    lock = await lock_database(Path(sys.argv[1]))
    print("locked", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its input is closed or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


async def test_a_second_server_is_told_who_is_there_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "collab.db"
    with holder(path) as process:
        with pytest.raises(StoreUnavailable) as caught:
            await lock_database(path, seconds=0.3)
        for word in (str(path), f"process {process.pid}", "uvicorn --workers", "gunicorn", "--data-dir", "PostgreSQL"):
            assert word in str(caught.value)
        link = tmp_path / "link.db"
        link.symlink_to(path)
        with pytest.raises(StoreUnavailable):
            await lock_database(link, seconds=0.0)
    assert not path.exists(), "the lock is no database"


@pytest.mark.parametrize("killed", [True, False])
async def test_the_end_of_the_other_server_is_waited_for(
    tmp_path: Path, killed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "collab.db"
    with holder(path) as process, caplog.at_level(logging.INFO):
        waiting = asyncio.create_task(lock_database(path))
        await happens(lambda: caplog.records, "a line that says what it waits for")
        assert not waiting.done()
        assert caplog.records[0].getMessage() == (
            f"another server (process {process.pid}) uses {path}: waiting up to 30 s for its end"
        )
        if killed:
            process.kill()
        else:
            assert process.stdin is not None
            process.stdin.close()
        lock = await waiting
    assert caplog.records[-1].getMessage() == f"the other server has left {path}"
    lock.release()
    lock.release()
    (await lock_database(path, seconds=0.0)).release()


async def test_two_servers_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    lock = await lock_database(tmp_path / "collab.db")
    with pytest.raises(StoreUnavailable):
        await lock_database(tmp_path / "collab.db", seconds=0.0)
    lock.release()


async def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "collab.db"
    flock = fcntl.flock

    def removed(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / "collab.db.lock").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed)
    lock = await lock_database(path)
    with pytest.raises(StoreUnavailable):
        await lock_database(path, seconds=0.0)
    lock.release()


async def test_what_the_holder_has_not_written_is_not_shown(tmp_path: Path) -> None:
    lock = await lock_database(tmp_path / "collab.db")
    (tmp_path / "collab.db.lock").write_bytes(b"process \x1b[31m" * 50)
    with pytest.raises(StoreUnavailable, match="its process is not known"):
        await lock_database(tmp_path / "collab.db", seconds=0.0)
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
async def test_where_there_are_no_locks_a_warning_says_so(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*arguments: Any) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    (await lock_database(tmp_path / "collab.db")).release()
    assert "make sure yourself that one server alone uses it" in caplog.text


async def test_where_there_is_no_flock_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert locks._flock() is None
    (await lock_database(tmp_path / "collab.db")).release()
    assert "has no flock" in caplog.text


async def test_a_lock_that_cannot_be_taken_at_all_is_an_error_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot open .*: "):
        await lock_database(tmp_path / "file" / "collab.db")

    def flock(*arguments: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreUnavailable, match="cannot lock .*: input/output error"):
        await lock_database(tmp_path / "collab.db")
