"""The commands for versions, and documents as they were, on a database that no server uses."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.cli import run
from collab.storage.checksums import seal_row
from collab.storage.records import Append
from collab.storage.versions import Reason
from tests.support.author import Author
from tests.support.sqlite import migrated

WHEN = 1_767_225_600.0
"""2026-01-01, in UTC."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database with a document of three rows, a minute apart, and an automatic version of the first one."""

    async def fill() -> None:
        store = make_store(migrated(tmp_path))
        await store.open()
        author = Author(5)
        rows = tuple(
            seal_row(author.type(text), WHEN + 60 * at, "ann") for at, text in enumerate(("one", "two", "three"))
        )
        await store.append([Append("d", None, rows)])
        document_id = (await store.describe("d")).document.id
        await store.make_automatic(document_id, 1, Reason.PAUSE, WHEN, 1.0)
        await store.close()

    asyncio.run(fill())
    return tmp_path


def command(directory: Path, *arguments: str) -> int:
    return run([*arguments, "--data-dir", str(directory)])


def test_versions_are_made_listed_renamed_and_deleted(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "versions", "make", "d", "final \u202e", "--description", "as it was sent") == 0
    made = capsys.readouterr()
    assert "is number 3" in made.err
    named = int(made.out)
    assert command(directory, "versions", "list", "d") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "NUMBER", "KIND", "REASON", "AT", "NAME"]
    assert first.split()[:4] == [str(named), "3", "named", "made"] and "\u202e" not in first and "final" in first
    assert second.split()[1:] == ["1", "automatic", "pause", "2026-01-01T00:00:00Z", "-"]
    automatic = second.split()[0]
    assert command(directory, "versions", "rename", "d", automatic, "begun") == 0
    assert command(directory, "versions", "list", "d", "--named", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["number"], each["name"], each["description"]) for each in found] == [
        (3, "final \u202e", "as it was sent"),
        (1, "begun", None),
    ]
    assert command(directory, "versions", "delete", "d", automatic) == 0
    assert command(directory, "versions", "delete", "d", automatic) == 1
    assert "no version" in capsys.readouterr().err
    assert command(directory, "versions", "make", "d", "v", "--number", "4") == 1
    assert command(directory, "versions", "make", "none", "v") == 1
    assert command(directory, "versions", "list", "none") == 1


def test_a_document_is_shown_as_it_was(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "versions", "make", "d", "v", "--number", "2") == 0
    version = capsys.readouterr().out.strip()
    for arguments, number, text in (
        (("--at", "2026-01-01T00:00:30Z"), 1, "one"),
        (("--at", "2026-01-01T00:01:00"), 2, "onetwo"),
        (("--at", "2026-01-01T02:00:00+01:00"), 3, "onetwothree"),
        (("--version", version), 2, "onetwo"),
    ):
        assert command(directory, "documents", "show", "d", "--json", *arguments) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["number"], shown["content"]) == (number, {"t": text})
    assert command(directory, "documents", "show", "d", "--at", "2025-12-31") == 0
    assert "after row 0" in capsys.readouterr().out
    for wrong in (("--at", "yesterday"), ("--at", "2026-01-01", "--version", version)):
        assert command(directory, "documents", "show", "d", *wrong) == 2
    assert command(directory, "documents", "show", "d", "--version", "99") == 1


def test_versions_are_imported_from_lines(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    author = Author(9)
    lines = [
        {
            "name": f"old {number}",
            "at": f"2019-0{number}-01T00:00:00Z",
            "author": "bob",
            "update": base64.b64encode(author.type(f"{number}") if number == 1 else author.doc.get_update()).decode(),
            "of the other system": number,
        }
        for number in (1, 2)
    ]
    wrong = [{"name": "x", "at": "2019-01-01T00:00:00Z", "update": "AQE="}, {"name": "x"}, {**lines[0], "at": "then"}]
    file = directory / "versions.ndjson"
    file.write_text("\n".join(json.dumps(line) for line in [*lines, *wrong]))
    assert command(directory, "versions", "import", "d", str(file)) == 1
    said = capsys.readouterr().err
    assert "2 versions imported, 0 were there already, 3 failed" in said
    assert all(text in said for text in ("version 3 (x): invalid_update: ", "version 4: ", "version 5 (old 1): "))
    file.write_text("\n".join(json.dumps(line) for line in lines))
    assert command(directory, "versions", "import", "d", str(file)) == 0
    assert "0 versions imported, 2 were there already" in capsys.readouterr().err
    assert command(directory, "versions", "list", "d", "--json", "--named") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["at"], each["author"], each["number"]) for each in found] == [
        ("old 2", "2019-02-01T00:00:00Z", "bob", None),
        ("old 1", "2019-01-01T00:00:00Z", "bob", None),
    ]
    assert command(directory, "documents", "show", "d", "--json", "--version", str(found[1]["id"])) == 0
    assert json.loads(capsys.readouterr().out)["content"] == {"t": "1"}
    assert command(directory, "versions", "import", "none", str(file)) == 1


def test_a_document_is_restored(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def content() -> dict[str, str]:
        assert command(directory, "documents", "show", "d", "--json") == 0
        found: dict[str, str] = json.loads(capsys.readouterr().out)["content"]
        return found

    assert command(directory, "versions", "make", "d", "v", "--number", "2") == 0
    version = capsys.readouterr().out.strip()
    assert command(directory, "versions", "restore", "d", "--version", version) == 0
    done = capsys.readouterr()
    assert done.out.strip() == "3" and "by row 4" in done.err
    assert content() == {"t": "onetwo"}
    assert command(directory, "versions", "restore", "d", "--version", version) == 0
    assert capsys.readouterr().out == ""
    assert command(directory, "versions", "list", "d", "--json") == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed[0]["number"], listed[0]["reason"]) == (3, "restore")
    assert command(directory, "versions", "restore", "d", "--number", "3", "--root", "t") == 0
    capsys.readouterr()
    assert content() == {"t": "onetwothree"}
    for wrong in ((), ("--number", "1", "--version", version), ("--number", "1", "--element", "e")):
        assert command(directory, "versions", "restore", "d", *wrong) == 2
    for gone in (("--number", "99"), ("--version", "99"), ("--number", "1", "--root", "none")):
        assert command(directory, "versions", "restore", "d", *gone) == 1
    assert command(directory, "versions", "restore", "none", "--number", "1") == 1
