"""The parent alone: when workers are replaced, killed and given up. The workers are small programs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.transports.guard import listening
from collab.workers import LISTEN, supervisor
from collab.workers.supervisor import Place, Supervisor, check_workers, worker_command
from tests.support.waiting import happens

pytestmark = [pytest.mark.server, pytest.mark.slow]

# What a worker says until it serves; then it does what its life says. Its settings are noted, for a test to look at.
PROGRAM = """
import json, os, signal, sys, time
number, directory, life = sys.argv[1:]
line = sys.stdin.readline()
say = lambda **message: print(json.dumps(message), flush=True)
with open(f"{directory}/{number}", "a") as lives:
    lives.write(json.dumps([os.getpid(), json.loads(line)]) + chr(10))
lived = sum(1 for _ in open(f"{directory}/{number}"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
say(event="started")
if number == "1" and life == "leaves" and 1 < lived <= 4:
    os._exit(3)
assert sys.stdin.readline() == "listen\\n"
say(event="listening", addresses=["http://127.0.0.1:1"], metrics=None)
if number == "1" and lived <= {"dies": 3, "leaves": 1}.get(life, 0):
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
if number == "1" and life == "hangs" and lived == 1:
    time.sleep(600)
if number == "1" and life == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(0.05)
    say(event="beat")
"""


class Family:
    """A parent and its small workers."""

    def __init__(self, directory: Path, life: str, **settings: object) -> None:
        self.directory = directory
        self._settings = Settings(workers=2, port=1, database_url="postgresql://nowhere/none", **settings)
        self._life = life

    def command(self, number: int) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(number), str(self.directory), self._life]

    def lives(self, number: int) -> list[tuple[int, dict[str, object]]]:
        file = self.directory / str(number)
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def start(self) -> asyncio.Task[int]:
        return asyncio.create_task(Supervisor(self._settings, self.command).run())


async def stop(running: asyncio.Task[int]) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return await asyncio.wait_for(running, 60)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab")
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(supervisor, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "_LATE_SECONDS", 0.5)


async def test_one_that_dies_young_again_and_again_is_replaced_after_growing_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    family = Family(tmp_path, "dies", migrate=True)
    running = family.start()
    await happens(lambda: len(family.lives(1)) == 4, "the fourth one")
    await happens(lambda: caplog.messages.count("worker 1 serves again") == 3, "it serves")
    died = [text for text in caplog.messages if "has died" in text]
    pauses = ("0.1", "0.2", "0.2")
    assert died == [f"worker 1 has died (SIGKILL): it is replaced in {pause} s" for pause in pauses]
    assert len(family.lives(2)) == 1, "the other one goes on"
    assert capsys.readouterr().out == "collab listening on http://127.0.0.1:1\n", "told once"
    # Only the first one migrates.
    assert [settings["migrate"] for _, settings in family.lives(1)] == [True, False, False, False]
    assert [settings["migrate"] for _, settings in family.lives(2)] == [False]
    assert await stop(running) == 0


async def test_one_that_was_old_enough_is_replaced_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "OLD_SECONDS", 0.1)
    family = Family(tmp_path, "dies")
    running = family.start()
    await happens(lambda: len(family.lives(1)) == 4, "the fourth one")
    await happens(lambda: caplog.messages.count("worker 1 serves again") == 3, "it serves")
    assert "worker 1 has died (SIGKILL): it is replaced now" in caplog.messages
    assert await stop(running) == 0


async def test_one_that_dies_with_its_first_word_is_replaced_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    family = Family(tmp_path, "leaves")
    running = family.start()
    await happens(lambda: "worker 1 serves again" in caplog.messages, "the fifth one serves")
    assert len(family.lives(1)) == 5 and len(family.lives(2)) == 1
    assert sum("worker 1 has died (exit code 3)" in text for text in caplog.messages) == 3
    assert await stop(running) == 0


async def test_what_is_told_to_one_that_has_died_is_lost() -> None:
    place = Place(1)
    place.tell(LISTEN)
    place.process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=asyncio.subprocess.PIPE)
    assert await place.process.wait() == 0 and place.process.stdin is not None
    place.process.stdin.close()
    place.tell(LISTEN)
    place.signal(signal.SIGTERM)


async def test_one_that_hangs_is_killed_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family = Family(tmp_path, "hangs")
    running = family.start()
    await happens(lambda: "worker 1 serves again" in caplog.messages, "another one serves")
    assert "worker 1 hangs and is killed" in caplog.messages
    assert not any("worker 2" in text for text in caplog.messages)
    assert await stop(running) == 0


async def test_one_that_does_not_stop_is_killed_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    family = Family(tmp_path, "deaf", drain_seconds=1.0)
    running = family.start()
    await happens(lambda: "2 workers serve" in caplog.messages, "both serve")
    assert await stop(running) == 1
    assert "worker 1 has not stopped in time and is killed" in caplog.messages


async def test_a_program_that_cannot_be_started_ends_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(workers=2, database_url="postgresql://nowhere/none")
    code = await Supervisor(settings, lambda number: [str(tmp_path / "missing")]).run()
    assert code == 1
    assert "worker 1 has ended (exit code 1) before it served: all are stopped" in capsys.readouterr().err


async def test_the_settings_reach_a_worker_as_they_were_given(tmp_path: Path) -> None:
    given = Settings(
        workers=2,
        database_url="postgresql://user:hunter2@nowhere/none",
        host=("::1", "127.0.0.1"),
        jwt_keys=(tmp_path / "key.pem",),
        allowed_origins=("https://app.example",),
        memory_mark_bytes=0,
    )
    read = Settings.model_validate_json(given.model_dump_json(exclude_unset=True))
    assert read == given and read.model_fields_set == given.model_fields_set
    assert "hunter2" not in " ".join(worker_command(1))


def test_where_workers_cannot_serve_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(workers=4, database_url="postgresql://nowhere/none")
    check_workers(settings)
    assert not caplog.messages
    monkeypatch.setattr(sys, "platform", "darwin")
    check_workers(settings)
    assert "all new connections to one of the workers" in caplog.text
    monkeypatch.delattr(listening.socket, "SO_REUSEPORT")
    with pytest.raises(ConfigurationError, match="cannot"):
        check_workers(settings)
    with pytest.raises(ConfigurationError, match="--workers 4 needs PostgreSQL"):
        check_workers(Settings(workers=4))


def test_a_worker_looks_for_modules_where_its_parent_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])
    assert worker_command(3) == [sys.executable, "-m", "collab.workers", "3"]
    # A command that was installed must not find a json.py of the directory that it was started in.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert worker_command(3) == [sys.executable, "-P", "-m", "collab.workers", "3"]
