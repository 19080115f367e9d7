"""What systemd hears of a service, on a socket such as it opens."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collab.systemd import Notifier
from tests.support.server import ServerProcess, collab_command
from tests.transports.test_tls import make_certificate

SECONDS = 60.0

ALIVE = "WATCHDOG=1"


class Listener:
    """The socket of systemd, which reads all the time, as systemd does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._heard: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(65536):
            self._heard.put(message.decode().split("\n"))

    def hear(self, wanted: str = "") -> list[str]:
        """Give the lines of the next message, which must have ``wanted``; signs of life count where they are wanted."""
        while True:
            try:
                lines = self._heard.get(timeout=SECONDS)
            except queue.Empty:
                raise AssertionError(f"{wanted or 'anything'} was not heard within {SECONDS} s") from None
            if lines != [ALIVE] or wanted == ALIVE:
                assert not wanted or wanted in lines, f"heard {lines} instead of {wanted}"
                return lines

    def waiting(self) -> list[list[str]]:
        """Give all that was said up to now and was not taken yet."""
        self._say(b"mark")
        found = []
        while (lines := self._heard.get(timeout=SECONDS)) != ["mark"]:
            found.append(lines)
        return found

    def close(self) -> None:
        self._say(b"")
        self._thread.join()
        self._socket.close()

    def _say(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.connect(self._socket.getsockname())
            other.send(message)


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@collab-test-{os.getpid()}-{time.time_ns()}"
    made = Listener(address)
    yield made
    made.close()


def test_where_nobody_listens_nothing_is_said() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"}):
        notifier = Notifier.from_environment(environment)
        assert environment == {}
        notifier.ready("serving")
        notifier.stopping()
        with notifier.reloading():
            pass


def test_each_thing_is_one_message(listener: Listener) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "HOME": "/"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/"}, "what this process starts must not speak for it"
    notifier.ready("serving on\nhttp://127.0.0.1:1234")
    assert listener.hear() == ["READY=1", "STATUS=serving on http://127.0.0.1:1234"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with notifier.reloading():
        first, second = listener.hear()
        assert first == "RELOADING=1" and int(second.removeprefix("MONOTONIC_USEC=")) >= before
    assert listener.hear() == ["READY=1"]
    notifier.stopping()
    assert listener.hear() == ["STOPPING=1"]


async def test_signs_of_life_come_from_the_loop_and_end_with_the_block(listener: Listener) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier.from_environment(environment)
    async with notifier.alive():
        for _ in range(3):
            await asyncio.to_thread(listener.hear, ALIVE)
        listener.waiting()
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is to stand still
        assert listener.waiting() == []
        await asyncio.to_thread(listener.hear, ALIVE)
    listener.waiting()
    await asyncio.sleep(0.1)
    assert listener.waiting() == []


async def test_the_watchdog_of_another_process_is_left_alone(listener: Listener) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    async with Notifier.from_environment(environment).alive():
        await asyncio.sleep(0.05)
    assert listener.waiting() == []


def test_a_socket_that_has_gone_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready()
    notifier.stopping()
    assert [record.message for record in caplog.records] == [
        "systemd cannot be told READY=1: [Errno 2] No such file or directory"
    ]
    again = Listener(str(tmp_path / "gone"))
    notifier.ready()
    again.close()
    (tmp_path / "gone").unlink()
    notifier.ready()
    assert len(caplog.records) == 2


@pytest.mark.server
@pytest.mark.slow
def test_a_server_says_when_it_serves_reads_again_and_stops(listener: Listener, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "server")
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    with ServerProcess(tmp_path, *options, environment=environment) as server:
        ready, status = listener.hear("READY=1")
        assert status == f"STATUS=serving on {server.url}"
        os.kill(server.pid, signal.SIGHUP)
        listener.hear("RELOADING=1")
        assert listener.hear() == ["READY=1"]
        listener.hear(ALIVE)
        assert server.terminate() == 0
        assert listener.hear() == ["STOPPING=1", "STATUS=stopping, within 20 s"]


@pytest.mark.server
def test_a_server_that_cannot_start_never_says_that_it_is_ready(listener: Listener, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = collab_command(
            "serve", "--port", port, "--data-dir", str(tmp_path), environment={"NOTIFY_SOCKET": listener.address}
        )
    assert done.returncode == 1, done.stderr
    assert [line for lines in listener.waiting() for line in lines if line != ALIVE] == []


@pytest.mark.server
@pytest.mark.slow
def test_of_several_workers_the_parent_alone_speaks(listener: Listener, tmp_path: Path, postgres_url: str) -> None:
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    with ServerProcess(
        tmp_path, "--workers", "2", "--migrate", database_url=postgres_url, environment=environment
    ) as server:
        assert listener.hear("READY=1")[1] == f"STATUS=2 workers serve on {server.url}"
        os.kill(server.pid, signal.SIGHUP)
        listener.hear("RELOADING=1")
        assert listener.hear() == ["READY=1"]
        listener.hear(ALIVE)
        assert server.terminate() == 0
        listener.hear("STOPPING=1")
        assert [line for lines in listener.waiting() for line in lines if line != ALIVE] == []
