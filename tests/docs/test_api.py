"""What docs/api.md says of the HTTP API: its lines for a shell, and the table of codes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from collab.transports.problems import KINDS
from tests.docs.test_shell import Shell
from tests.support.server import ServerProcess
from tests.support.snippets import ROOT, snippet

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a server to which everybody may say everything."""
    directory = tmp_path_factory.mktemp("api")
    with ServerProcess(directory / "served") as server:
        yield Shell(directory, **{"http://localhost:1234": server.url})


def test_the_first_calls(shell: Shell) -> None:
    created, listed, changed, deleted = shell.run(snippet("docs/api.md", "First calls", "sh"))
    assert json.loads(created)["name"] == "notes/plan"
    assert [document["title"] for document in json.loads(listed)["documents"]] == ["The plan"]
    assert json.loads(changed)["title"] == "Plan B" and deleted == ""


def test_documents_go_out_and_come_in(shell: Shell) -> None:
    address = "http://localhost:1234/api/v1/documents -H 'Content-Type: application/json'"
    shell.run(f'curl -s -X POST {address} -d \'{{"name": "a"}}\'')
    _, imported = shell.run(snippet("docs/api.md", "Many documents", "sh"))
    done = json.loads(imported)
    assert done["existed"] == done["lines"] >= 1 and done["failed"] == 0


def test_an_error_looks_like_that(shell: Shell) -> None:
    (said,) = shell.run("curl -s http://localhost:1234/api/v1/documents/nothing")
    assert json.loads(said) == json.loads(snippet("docs/api.md", "Errors", "json"))


def test_the_table_of_codes_is_the_one_of_the_server() -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(code, str(kind.status), kind.meaning) for code, kind in KINDS.items()]
