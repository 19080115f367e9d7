"""Exporting and erasing a user by the command line, on a database that servers may be using."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
import typer

from collab.adapters import make_store
from collab.authorship import DELETED_USER, Note
from collab.cli import run
from collab.storage.checksums import seal_row
from collab.storage.records import Append, Appended
from collab.storage.sql_maintenance import SqlMaintenance
from collab.storage.urls import DatabaseUrl
from collab.storage.versions import NewVersion
from tests.support.author import Author
from tests.support.sqlite import migrated

WHEN = 1_767_225_600.0
"""2026-01-01, in UTC."""


def fill(url: DatabaseUrl, *names: str) -> None:
    """Write documents, each with an edit of Ada, one of Bob for Ada, and a version of Ada's."""

    async def work() -> None:
        store = make_store(url)
        await store.open()
        for client, name in enumerate(names, 5):
            author = Author(client)
            rows = (
                seal_row(author.type("a"), WHEN, "ada"),
                seal_row(author.type("b"), WHEN + 60, "bob", Note("ada", "by hand")),
            )
            (outcome,) = await store.append([Append(name, None, rows)])
            assert isinstance(outcome, Appended)
            await store.make_version(outcome.document_id, 1, NewVersion("first", None, "ada", WHEN))
        await store.close()

    asyncio.run(work())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    fill(migrated(tmp_path), "one", "two")
    return tmp_path


def command(directory: Path, *arguments: str) -> int:
    return run([*arguments, "--data-dir", str(directory)])


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_everything_of_a_user_is_written_as_lines_of_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "documents", "delete", "two") == 0
    capsys.readouterr()
    assert command(directory, "people", "export", "ada") == 0
    shown = capsys.readouterr()
    found = lines(shown.out)
    assert [line["kind"] for line in found] == ["edit", "edit", "version"] * 2
    first, second, version, *others = found
    size = first.pop("bytes")
    assert first == {"kind": "edit", "document": "one", "id": 1, "number": 1, "at": "2026-01-01T00:00:00Z"}
    assert isinstance(size, int) and size > 10
    assert (second["sent_by"], second["on_behalf_of"], second["label"]) == ("bob", "ada", "by hand")
    assert (version["name"], version["number"]) == ("first", 1)
    assert all(line["document"] == "two" and line["deleted"] is True for line in others)
    assert "wrote 4 edits, 2 versions of 'ada' to standard output" in shown.err


def test_the_content_of_edits_is_written_where_it_is_wanted(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ada.jsonl"
    assert command(directory, "people", "export", "ada", "--content", "--out", str(file)) == 0
    assert capsys.readouterr().out == ""
    edits = [line for line in lines(file.read_text()) if line["kind"] == "edit"]
    assert base64.b64decode(str(edits[0]["update"])) == Author(5).type("a")


def test_a_user_who_was_erased_is_nowhere_any_more(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "people", "erase", "ada", "--yes", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"user": "ada", "documents": 2, "changed": {"edit": 4, "version": 2}, "done": True}
    assert command(directory, "people", "export", "ada") == 0
    shown = capsys.readouterr()
    assert shown.out == "" and "wrote nothing of 'ada'" in shown.err
    assert command(directory, "people", "export", DELETED_USER) == 0
    assert len(lines(capsys.readouterr().out)) == 6
    assert command(directory, "people", "erase", "ada", "--yes") == 0
    assert "erased 'ada' from 0 documents: nothing" in capsys.readouterr().err
    assert command(directory, "documents", "verify") == 0


def test_nothing_is_done_without_a_yes(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda text, abort: (_ for _ in ()).throw(typer.Abort()))
    assert command(directory, "people", "erase", "ada") == 130
    capsys.readouterr()
    assert command(directory, "people", "export", "ada") == 0
    assert len(lines(capsys.readouterr().out)) == 6


def test_who_stands_for_the_erased_cannot_be_erased(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "people", "erase", DELETED_USER, "--yes") == 2
    assert "stands for those who are erased already" in capsys.readouterr().err


@pytest.mark.parametrize("times", [1, 100])
def test_what_is_written_meanwhile_is_erased_too_or_told(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Ada goes on typing: behind what was looked through already."""
    looked = SqlMaintenance.rename_in_deliveries
    left = times

    async def meanwhile(store: SqlMaintenance, user: str, to: str) -> int:
        nonlocal left
        if left:
            left -= 1
            row = seal_row(Author(100 + left).type("more"), WHEN, user)
            await store.append([Append("one", None, (row,))])
        return await looked(store, user, to)

    monkeypatch.setattr(SqlMaintenance, "rename_in_deliveries", meanwhile)
    assert command(directory, "people", "erase", "ada", "--yes") == int(times > 1)
    shown = capsys.readouterr().err
    assert ("'ada' is still written about" in shown) is (times > 1)
    assert "erased 'ada' from 2 documents" in shown


@pytest.mark.postgres
def test_on_postgresql_too(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    from collab.storage.urls import parse_database_url

    fill(parse_database_url(postgres_url), "one")
    assert run(["people", "erase", "ada", "--yes", "--database-url", postgres_url]) == 0
    assert "erased 'ada' from 1 documents: 2 edits, 1 versions" in capsys.readouterr().err
    assert run(["people", "export", "ada", "--database-url", postgres_url]) == 0
    assert capsys.readouterr().out == ""
