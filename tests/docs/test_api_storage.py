"""What docs/api-parts/storage.md says of creating, own keys and the trash: its lines for a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.docs.test_shell import Shell
from tests.support.server import ServerProcess
from tests.support.snippets import snippet

pytestmark = [pytest.mark.server, pytest.mark.slow]

PAGE = "docs/api-parts/storage.md"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a server to which everybody may say everything."""
    directory = tmp_path_factory.mktemp("api")
    with ServerProcess(directory / "served") as server:
        yield Shell(directory, **{"http://localhost:1234": server.url})


def test_documents_are_seeded_named_deleted_and_restored(shell: Shell) -> None:
    created, again, copied, repeated = map(json.loads, shell.run(snippet(PAGE, "Creating documents", "sh")))
    assert created["title"] == again["title"] == "Seeded" and created["bytes"] > 0
    assert copied == repeated and copied["name"] == "notes/copy"
    changed, left = map(json.loads, shell.run(snippet(PAGE, "Own keys", "sh")))
    assert changed["metadata"] == {"owner": "u-17", "stars": 3} and left["metadata"] == {"owner": "u-17"}
    deleted, listed, restored, erased = shell.run(snippet(PAGE, "The trash", "sh"))
    (document,) = json.loads(listed)["documents"]
    assert deleted == "" and document["name"] == "notes/copy"
    assert json.loads(restored)["name"] == "notes/copy"
    assert json.loads(erased) == {"erased": [document["id"]], "holding": []}
