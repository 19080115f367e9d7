"""Every snippet of the guide to the Python client, run against a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collab.client.sync import read_text, replace_text
from tests.auth.makers import SECRET
from tests.support.server import ServerProcess
from tests.support.snippets import snippet

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
GUIDE = "docs/python-client.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("guide")) as server:
        yield server


def run(text: str, server: ServerProcess, **environment: str) -> str:
    """Run a snippet as a program and return what it prints."""
    assert "ws://127.0.0.1:1234" in text
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text.replace("ws://127.0.0.1:1234", server.hocuspocus_url)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_is_installed_under_its_name() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert snippet("docs/python-client.md", "Python client", "sh") == "pip install collab-server\n"
    assert 'name = "collab-server"' in project


def test_the_readme(server: ServerProcess) -> None:
    text = snippet("README.md", "Use it", "python")
    assert run(text, server) == ""
    assert read_text(server.hocuspocus_url, "my-first-document") == "hello from Python"


def test_a_live_document(server: ServerProcess) -> None:
    text = snippet("docs/python-client.md", "A live document", "python")
    assert run(text, server) == "Hello from Python. \n"


def test_one_line_each(server: ServerProcess) -> None:
    text = snippet("docs/python-client.md", "One line each", "python")
    shown = "# Title\nThe second draft."
    assert run(text, server) == f"{shown}\n{ {'content': shown} }\n"


def test_without_asyncio(server: ServerProcess) -> None:
    text = snippet("docs/python-client.md", "Without asyncio", "python")
    assert run(text, server) == "Figures of today: 42\n"


def test_many_documents(server: ServerProcess) -> None:
    run(snippet("docs/python-client.md", "Many documents", "python"), server)
    assert read_text(server.hocuspocus_url, "reports/tuesday") == "as quiet as Monday"


def test_tokens(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        text = snippet("docs/python-client.md", "Tokens", "python")
        printed = run(text, server, COLLAB_JWT_SECRET=SECRET).splitlines()
    assert printed == ["read", "the token is not a JWT"]
    for line in printed:
        assert f"# {line}" in text


def test_offline_and_saved(server: ServerProcess) -> None:
    text = snippet("docs/python-client.md", "Saved, offline, and what can go wrong", "python")
    assert run(text, server) == ""
    assert read_text(server.hocuspocus_url, "journal") == "written offline"


def test_presence(server: ServerProcess) -> None:
    printed = run(snippet("docs/python-client.md", "Presence", "python"), server)
    assert printed == ""  # its own changes came before it listened


def test_rich_text(server: ServerProcess) -> None:
    text = snippet("docs/python-client.md", "Markdown, HTML, and rich text", "python")
    assert run(text, server) == "# News\n\nIt is sunny today.\n\n"


def test_history(server: ServerProcess) -> None:
    printed = run(snippet("docs/python-client.md", "History", "python"), server).splitlines()
    assert printed[0] == "1 Sent to Grace" and printed[-1] == "We pay 100."
    assert "-We pay 100." in printed and "+We pay 1000." in printed
    assert printed[-4:-1] == ["'We pay 100' None", "'0' None", "'.' None"]
    assert read_text(server.hocuspocus_url, "contract") == "We pay 1000."


def test_documents(server: ServerProcess) -> None:
    replace_text(server.hocuspocus_url, "large", "content", "x" * 10_000)
    replace_text(server.hocuspocus_url, "small", "content", "x")
    said = run(snippet("docs/python-client.md", "Documents", "python"), server)
    printed = [line.split()[:2] for line in said.splitlines()]
    sizes = [int(size) for size, _ in printed]
    assert sizes == sorted(sizes, reverse=True) and {"large", "small"} <= {name for _, name in printed}


def test_events(server: ServerProcess) -> None:
    assert run(snippet("docs/python-client.md", "Events", "python"), server) == "synced\n"
