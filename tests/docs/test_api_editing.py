"""What docs/api-parts/editing.md says of content and states: its lines for a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.docs.test_shell import Shell
from tests.support.server import ServerProcess
from tests.support.snippets import snippet

pytestmark = [pytest.mark.server, pytest.mark.slow]

PAGE = "docs/api-parts/editing.md"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a server to which everybody may say everything."""
    directory = tmp_path_factory.mktemp("api")
    with ServerProcess(directory / "served") as server:
        yield Shell(directory, **{"http://localhost:1234": server.url})


def test_content_is_edited_and_read(shell: Shell) -> None:
    said = shell.run(snippet(PAGE, "Content", "sh"))
    assert [json.loads(one) for one in said[:-1] if "changed" in one] == [{"changed": True, "committed": True}] * 4
    assert json.loads(said[1]) == {"text": "Hello, world"}
    assert said[-1] == "Hello, everybody"
    shown = json.loads(shell.run("curl -s http://localhost:1234/api/v1/content/notes/live")[0])
    assert shown["meta"] == {"status": "done", "tags": ["a"]}
    assert shell.run(snippet(PAGE, "States", "sh")) == ["412\n"]
