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


def create_plan(shell: Shell) -> None:
    """Have a document, whatever other tests have left: one that they have deleted is not there by a PUT."""
    address = "http://localhost:1234/api/v1/documents -H 'Content-Type: application/json'"
    shell.run(f'curl -s -X POST {address} -d \'{{"name": "notes/plan"}}\'')


def test_the_first_calls(shell: Shell) -> None:
    created, listed, changed, deleted = shell.run(snippet("docs/api.md", "First calls", "sh"))
    assert json.loads(created)["name"] == "notes/plan"
    assert [document["title"] for document in json.loads(listed)["documents"]] == ["The plan"]
    assert json.loads(changed)["title"] == "Plan B" and deleted == ""


def test_the_audit_is_listed(shell: Shell) -> None:
    actions, of_one = map(json.loads, shell.run(snippet("docs/api.md", "The newest entries of the audit", "sh")))
    assert actions["silent"] == of_one["silent"] == [] and of_one["entries"] == []
    assert {entry["outcome"] for entry in actions["entries"]} <= {"success", "failure"}


def test_documents_go_out_and_come_in(shell: Shell) -> None:
    address = "http://localhost:1234/api/v1/documents -H 'Content-Type: application/json'"
    shell.run(f'curl -s -X POST {address} -d \'{{"name": "notes/a"}}\'')
    _, imported, _, told = shell.run(snippet("docs/api.md", "Many documents", "sh"))
    begun, *_, ended = map(json.loads, told.splitlines())
    assert (begun["lines"], begun["end"], ended["end"]) == (0, False, True)
    for done in (json.loads(imported), ended):
        assert done["existed"] == done["lines"] >= 1 and done["failed"] == 0


def test_documents_are_seeded_copied_and_given_keys_of_their_own(shell: Shell) -> None:
    seeded, again, copied, repeated = map(json.loads, shell.run(snippet("docs/api.md", "Creating documents", "sh", 2)))
    assert seeded["title"] == again["title"] == "Seeded" and seeded["bytes"] > 0
    assert copied == repeated and copied["name"] == "notes/copy"
    changed, left = map(json.loads, shell.run(snippet("docs/api.md", "Own keys", "sh")))
    assert changed["metadata"] == {"owner": "u-17", "stars": 3} and left["metadata"] == {"owner": "u-17"}
    (largest,) = map(json.loads, shell.run(snippet("docs/api.md", "The largest documents", "sh")))
    sizes = [one["bytes"] for one in largest["documents"]]
    assert len(sizes) >= 2 and sizes == sorted(sizes, reverse=True)
    deleted, listed, restored, erased = shell.run(snippet("docs/api.md", "The trash", "sh"))
    (document,) = [one for one in json.loads(listed)["documents"] if one["name"] == "notes/copy"]
    assert deleted == "" and json.loads(restored)["name"] == "notes/copy"
    assert json.loads(erased) == {"erased": [document["id"]], "holding": []}


def test_a_document_begins_with_content(shell: Shell) -> None:
    (made,) = shell.run(snippet("docs/api.md", "Creating documents", "sh"))
    assert json.loads(made)["name"] == "notes/minutes"
    (read,) = shell.run("curl -s 'http://localhost:1234/api/v1/content/notes/minutes?root=default&format=markdown'")
    assert read == "# Minutes\n\n- first\n"


def test_content_is_written_read_changed_and_reset(shell: Shell) -> None:
    put, html, replaced, patched, markdown = shell.run(snippet("docs/api.md", "What `PUT` keeps", "sh"))
    assert [json.loads(said)["changed"] for said in (put, replaced, patched)] == [True, True, True]
    assert html == "<h1>Draft</h1>" and markdown == "# Final draft\n"
    _, applied = shell.run(snippet("docs/api.md", "Updates", "sh"))
    assert json.loads(applied) == {"changed": False, "committed": True, "number": 3}
    first, second = shell.run(snippet("docs/api.md", "Reset", "sh"))
    assert [json.loads(first), json.loads(second)] == [{"reset": 1}, {"reset": 2}]
    (empty,) = shell.run("curl -s http://localhost:1234/api/v1/content/notes/draft")
    assert "start" not in empty


def test_content_is_edited_and_read(shell: Shell) -> None:
    said = shell.run(snippet("docs/api.md", "Content", "sh"))
    edits = [json.loads(one) for one in said[:-1] if "changed" in one]
    assert edits == [{"changed": True, "committed": True, "number": number} for number in range(1, 5)]
    assert json.loads(said[1]) == {"text": "Hello, world"}
    assert said[-1] == "Hello, everybody"
    shown = json.loads(shell.run("curl -s http://localhost:1234/api/v1/content/notes/live")[0])
    assert shown["meta"] == {"status": "done", "tags": ["a"]}
    assert shell.run(snippet("docs/api.md", "States", "sh")) == ["412\n"]


def test_who_wrote_what_and_the_way_back(shell: Shell) -> None:
    _, shown, _, diff, restored = shell.run(snippet("docs/history.md", "Who wrote what", "sh"))
    assert json.loads(shown)["runs"] == [{"insert": "Once upon a time", "inserted": 0}]
    assert "-Once upon a time\n" in diff and "+Once upon a night\n" in diff
    assert json.loads(restored)["changed"]
    (text,) = shell.run("curl -s 'http://localhost:1234/api/v1/content/notes/story?format=text'")
    assert text == "Once upon a time"


def test_people_agents_messages_and_connections(shell: Shell) -> None:
    create_plan(shell)
    show, end = snippet("docs/api.md", "Agents", "sh").splitlines()
    shown = json.loads(shell.run(show)[0])
    assert shown["state"]["user"]["name"] == "Writer" and shown["client"] >= 1 << 52
    said, pages = map(json.loads, shell.run(snippet("docs/api.md", "Who is there", "sh")))
    described = json.loads(snippet("docs/api.md", "Who is there", "json"))
    assert said.keys() == described.keys() and [one["name"] for one in said["participants"]] == ["Writer"]
    assert said["participants"][0].keys() == described["participants"][0].keys()
    assert said["states"][0].keys() == described["states"][0].keys()
    assert [one["name"] for one in pages["documents"]] == ["notes/plan"]
    assert shell.run(snippet("docs/api.md", "Messages", "sh")) == [""] and json.loads(shell.run(end)[0]) == {
        "ended": True,
        "silent": [],
    }
    everything, some, kicked = map(json.loads, shell.run(snippet("docs/api.md", "Connections", "sh")))
    assert everything["connections"] == some["connections"] == [] and kicked["silent"] == []


def test_operators_see_all_of_it_as_written(shell: Shell) -> None:
    create_plan(shell)
    lines = map(json.loads, shell.run(snippet("docs/api.md", "Operating", "sh")))
    nodes, history, rooms, inside, log, verified, repaired, compacted = lines
    assert nodes["nodes"][0]["ready"] and history["nodes"] and "rooms" in rooms
    assert inside["name"] == "notes/plan" and "rows" in log and verified["whole"] and not repaired["done"]
    assert "made" in compacted


def test_an_error_looks_like_that(shell: Shell) -> None:
    (said,) = shell.run("curl -s http://localhost:1234/api/v1/documents/nothing")
    assert json.loads(said) == json.loads(snippet("docs/api.md", "Errors", "json"))


def test_the_table_of_codes_is_the_one_of_the_server() -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(code, str(kind.status), kind.meaning) for code, kind in KINDS.items()]


def test_a_script_uses_the_same_converters(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet("docs/api.md", "The same in a script", "python"), "a snippet", "exec"), {})
    assert capsys.readouterr().out == "<h1>Plan</h1><ul><li><p>the first</p></li></ul>\n"
