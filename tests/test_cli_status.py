"""``collab status`` and ``collab top``: what they print of a running server, of one that is down, and to whom."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collab.cli import run
from collab.cli.server import Server
from collab.errors import ConfigurationError
from collab.settings import options
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.slow]

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty directory, without the developer's options."""
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.delenv("COLLAB_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("open")) as server:
        yield server


def told(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = run([*words])
    found = capfd.readouterr()
    return code, found.out, found.err


async def test_a_running_server_is_shown(server: ServerProcess, capfd: pytest.CaptureFixture[str]) -> None:
    async with LiveClient(f"{server.ws_url}/busy") as client:
        await client.until_synced()
        client.text().insert(0, "hello")
        await client.barrier()
        code, out, err = told(capfd, "status", "--url", server.url)
        assert (code, err) == (0, ""), out
        assert out.startswith("servers: 1, ready: 1, connections: 1, documents open: 1, waiting to be stored: ")
        assert "WRONG" not in out and out.splitlines()[3].startswith("ready ")
        code, out, _ = told(capfd, "status", "--port", str(server.port), "--json")
        facts = json.loads(out)
        assert (code, facts["well"], facts["from"], facts["connections"]) == (0, True, "server", 1)
        assert facts["nodes"][0]["ready"] is True and facts["nodes"][0]["queue_bytes"] == 0
        code, out, _ = told(capfd, "top", "--once", "--port", str(server.port), "--sort", "size")
        assert code == 0 and "sorted by size" in out and "busy" in out and "127.0.0.1" in out and "y-websocket" in out
        code, out, _ = told(capfd, "top", "--once", "--json", "--url", server.url, "--search", "BUS")
        (line,) = out.splitlines()
        sample = json.loads(line)
        assert code == 0 and [room["name"] for room in sample["rooms"]] == ["busy"]
        assert len(sample["connections"]) == 1 and sample["silent"] == []


def test_where_no_server_answers_the_database_is_looked_at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path / "data") as server:
        port, data = str(server.port), str(server.data_dir)
        server.kill()
    Path("content.yjs").write_bytes(bytes(2))
    assert run(["documents", "import", "kept", "content.yjs", "--data-dir", data]) == 0
    code, out, _ = told(capfd, "status", "--port", port, "--data-dir", data)
    assert code == 1 and "by the database" in out and "documents stored: 1" in out
    assert f"WRONG  no answer from http://127.0.0.1:{port}" in out and "-> collab doctor" in out
    code, out, _ = told(capfd, "status", "--port", port, "--data-dir", data, "--json")
    facts = json.loads(out)
    assert (code, facts["well"], facts["from"], facts["documents"]) == (1, False, "database", 1)
    (node,) = facts["nodes"]
    assert node["ready"] is None and node["memory_bytes"] is None, "what nobody knows is not said"
    code, out, _ = told(capfd, "status", "--port", port, "--data-dir", str(tmp_path / "none"))
    assert code == 1 and "neither a server nor the database has answered" in out and "WRONG  the database: " in out
    code, out, err = told(capfd, "top", "--port", port)
    assert (code, out) == (1, "") and err.startswith("collab: no answer from ")


def test_the_figures_are_for_admins_of_all_documents(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path / "data", environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        where = ["--url", server.url, "--data-dir", str(server.data_dir)]
        tokens = {}
        for documents in ("*=admin", "*=write", "a=admin"):
            make = ["token", "--user", "u", "--document", documents, "--secret", SECRET]
            tokens[documents] = told(capfd, *make)[1].strip()
        for token in (None, tokens["*=write"], tokens["a=admin"], "nonsense"):
            words = [] if token is None else ["--token", token]
            code, out, _ = told(capfd, "status", *where, *words)
            assert code == 0 and "by the database" in out and "only a part is shown" in out
            assert "COLLAB_TOKEN" in out and (token is None or token not in out)
            code, out, err = told(capfd, "top", "--url", server.url, "--once", *words)
            assert (code, out) == (1, "") and "COLLAB_TOKEN" in err
        code, out, _ = told(capfd, "status", *where, "--token", tokens["*=admin"])
        assert code == 0 and "ready: 1" in out


def test_top_is_driven_by_keys(server: ServerProcess) -> None:
    with on_terminal("top", "--url", server.url, "--interval", "1000") as screen:
        screen.until("sorted by edits")
        screen.press("s")
        screen.until("sorted by stored")
        screen.press("x ")  # nothing, and a look now
        screen.press("q")
        assert screen.end() == 0


def test_top_goes_on_when_the_server_comes_back(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data") as server,
        on_terminal("top", "--url", server.url, "--interval", "0.5") as screen,
    ):
        screen.until("1 servers")
        server.kill()
        screen.until("no answer from")
        screen.forget()
        server.start()
        screen.until("ready")
        screen.press("q")
        assert screen.end() == 0


def test_what_is_no_server_is_refused() -> None:
    for url in ("ftp://a", "collab.example", "http://", "http://a:port", "http://u:p@a", "http://a?b", "http://[::1"):
        with pytest.raises(ConfigurationError):
            Server.at(url, None, 1.0)
    assert Server.at("https://a.example/collab/", None, 1.0).url == "https://a.example:443/collab"
    assert run(["status", "--url", "http://127.0.0.1:1", "--token", "a\nb"]) == 2
    assert run(["top", "--sort", "beauty"]) == 2


class Screen:
    """A program on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self._process, self._terminal, self._seen = process, terminal, b""

    def until(self, text: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text.encode() not in self._seen:
            assert time.monotonic() < deadline and self._process.poll() is None, (text, self._seen[-2_000:])
            with contextlib.suppress(OSError):
                self._seen += os.read(self._terminal, 65_536)

    def forget(self) -> None:
        self._seen = b""

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def end(self, seconds: float = 60.0) -> int:
        deadline = time.monotonic() + seconds
        while (code := self._process.poll()) is None:
            assert time.monotonic() < deadline, self._seen[-2_000:]
            with contextlib.suppress(OSError):  # what is drawn has to be read, or it stands still
                if select.select([self._terminal], [], [], 0.1)[0]:
                    self._seen += os.read(self._terminal, 65_536)
        return code


@contextlib.contextmanager
def on_terminal(*words: str) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    environment: dict[str, Any] = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "collab", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
