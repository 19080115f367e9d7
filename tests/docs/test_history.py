"""What docs/history.md shows: its lines for a shell, an entry of a timeline, and settings."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

import pytest

from collab.settings import Settings
from tests.docs.test_python_client import run
from tests.docs.test_shell import Shell
from tests.support.server import ServerProcess
from tests.support.snippets import snippet

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("history") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def shell(server: ServerProcess) -> Shell:
    """A shell beside a server, whose commands work on the same database."""
    return Shell(server.data_dir.parent, **{"http://localhost:1234": server.url})


def test_history_is_made_and_read(shell: Shell, server: ServerProcess) -> None:
    first, made, second, listed, past, told = shell.run(snippet("docs/history.md", "History", "sh"))
    assert json.loads(first)["committed"] and json.loads(second)["committed"]
    assert json.loads(listed)["versions"][-1] == json.loads(made) or json.loads(made) in json.loads(listed)["versions"]
    assert json.loads(made)["name"] == "Sent to Grace" and past == "First draft"
    entry, described = json.loads(told)["entries"][0], json.loads(snippet("docs/history.md", "The timeline", "json"))
    assert entry.keys() == described.keys() and entry["to"] == described["to"]
    assert entry["versions"][-1].keys() == described["versions"][0].keys()
    assert entry["authors"][0].keys() == described["authors"][0].keys()
    assert run(snippet("docs/history.md", "History", "python"), server) == "Sent to Grace First draft\n"
    lines, shown = shell.run(snippet("docs/history.md", "What it held", "sh"))
    assert "Sent to Grace" in lines and json.loads(shown)["content"] == {"text": "Second draft"}
    (before,) = shell.run(snippet("docs/history.md", "Restore", "sh"))
    (number,) = shell.run("collab versions list notes/history --json | head -n 1")
    assert before == f"{json.loads(number)['number']}\n"
    (shown,) = shell.run("collab documents show notes/history --json")
    assert json.loads(shown)["content"] == {"text": "First draft"}
    (imported,) = map(json.loads, shell.run(snippet("docs/history.md", "Moving here from another system", "sh")))
    assert (imported["reason"], imported["author"], imported["number"]) == ("imported", "ada", None)
    _, said = shell.run(snippet("docs/history.md", "Moving here from another system", "sh", 2))
    many = json.loads(said)
    assert (many["lines"], many["created"], many["existed"]) == (2, 1, 0)
    assert [(each["line"], each["name"], each["code"]) for each in many["failures"]] == [
        (2, "In June", "invalid_request")
    ]


def test_documents_have_a_time_of_their_own() -> None:
    settings = Settings(**tomllib.loads(snippet("docs/history.md", "How long history is kept", "toml")))
    assert settings.history_days_for == ("contracts/*=3650", "scratch/*=1")
