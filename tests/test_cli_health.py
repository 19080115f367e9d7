"""The health check of a container: it asks the server that the same options describe."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, collab_command
from tests.transports.test_tls import make_certificate

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_server_that_lives_is_said_to_live(tmp_path: Path, host: str) -> None:
    options = ("--host", host, "--insecure") if host != "127.0.0.1" else ()
    with ServerProcess(tmp_path, *options) as server:
        same = {"COLLAB_HOST": host, "COLLAB_PORT": str(server.port)}
        for more in ((), ("--ready",)):
            done = collab_command("health", *more, environment=same)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            assert "\n" not in done.stdout.strip()
        assert server.terminate() == 0
        done = collab_command("health", environment=same)
        assert done.returncode == 1 and "no answer from " in done.stderr


def test_it_speaks_tls_where_the_server_does(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "server")
    same = {"COLLAB_TLS_CERT": str(cert), "COLLAB_TLS_KEY": str(key)}
    with ServerProcess(tmp_path, environment=same) as server:
        assert collab_command("health", "--port", str(server.port), environment=same).returncode == 0
        done = collab_command("health", "--port", str(server.port))
        assert done.returncode == 1, "the port does not speak plain http"


def test_a_server_that_is_not_ready_lives(tmp_path: Path) -> None:
    """While it drains, it is healthy and wants no new clients."""
    with ServerProcess(tmp_path, drain_delay=8.0) as server:
        os.kill(server.pid, signal.SIGTERM)
        server.wait_for_log(lambda line: "stopping: not ready any more" in line)
        assert collab_command("health", "--port", str(server.port)).returncode == 0
        done = collab_command("health", "--port", str(server.port), "--ready")
        assert done.returncode == 1
        assert "/readyz answers 503: " in done.stderr and "draining" in done.stderr
        server.kill()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers, as a server whose loop stands still."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def other() -> Iterator[int]:
    """A port on which something else than HTTP speaks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220 mail.example\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_silence_is_no_health(silent: int) -> None:
    done = collab_command("health", "--port", str(silent), "--timeout", "0.3")
    assert done.returncode == 1 and "timed out" in done.stderr


def test_another_program_is_no_health(other: int) -> None:
    done = collab_command("health", "--port", str(other))
    assert done.returncode == 1 and "no answer from" in done.stderr and "220 mail.example" in done.stderr
