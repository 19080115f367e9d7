"""`docs/data-protection.md`: the commands, word for word, and that no place that names people is left out."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path

import pytest
from sqlalchemy import LargeBinary

from collab.adapters import make_maintenance
from collab.cli import run
from collab.storage.schema import metadata
from collab.storage.urls import DatabaseUrl
from tests.storage.test_people import fill
from tests.support.snippets import ROOT, snippet
from tests.support.sqlite import migrated

# Columns that hold who somebody is, alone or among other things.
PEOPLE = {"author", "on_behalf_of", "invited_by", "user_id", "user", "label"}


def page() -> str:
    return (ROOT / "docs" / "data-protection.md").read_text()


def test_each_column_that_names_people_stands_there() -> None:
    columns = {f"{table.name}.{name}" for table in metadata.sorted_tables for name in PEOPLE & {*table.c.keys()}}
    assert columns >= {"log.author", "versions.author", "pending.author", "client_owners.author"}
    text = page()
    missing = [name for name in sorted(columns) if f"`{name}`" not in text]
    # Of this table all columns but the IDs say whose something is.
    assert missing == ["client_owners.author"] and "`client_owners`" in text


def test_each_table_with_bytes_is_known_to_name_people_or_not() -> None:
    """A new table is looked at by whoever adds it."""
    named = {found.partition(".")[0] for found in re.findall(r"^\|.*\| `(\w+(?:\.\w+)?)`", page(), re.MULTILINE)}
    named |= {"calls", "producers", "instructions"}
    without = {
        "documents",
        "snapshots",
        "version_states",
        "trash",
        "skeletons",  # names and content of documents
        "webhook_receivers",  # beginnings of names of documents
        "tenants",
        "tenant_usage",
        "tenant_connections",
        "tenant_documents",  # names of tenants: parts of names of documents, or what a claim calls a customer
        "instruction_answers",  # gone within minutes; who is where, for whoever has asked
    }
    holding = {
        table.name
        for table in metadata.sorted_tables
        if any(isinstance(column.type, LargeBinary) for column in table.c)
    }
    assert holding <= named | without, holding - named - without


@pytest.fixture
def url(tmp_path: Path) -> DatabaseUrl:
    return migrated(tmp_path)


def lines(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.splitlines()]


def test_a_user_is_exported_and_erased_as_it_is_written_there(
    url: DatabaseUrl, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write() -> None:
        store = make_maintenance(url)
        await store.open()
        await fill(store, "notes/plan", user="17")
        await store.close()

    asyncio.run(write())
    monkeypatch.chdir(tmp_path)
    own = ["--data-dir", str(tmp_path)]
    (export,) = lines(snippet("docs/data-protection.md", "Export one person's data", "sh"))
    assert run([*export, *own]) == 0
    written = [json.loads(line) for line in (tmp_path / "user-17.jsonl").read_text().splitlines()]
    shown = [
        json.loads(line) for line in snippet("docs/data-protection.md", "Export one person's data", "").splitlines()
    ]
    for example in shown:
        first = next(line for line in written if line["kind"] == example["kind"])
        assert first.keys() == example.keys()
    text = page()
    assert [kind for kind in {line["kind"] for line in written} if f"| `{kind}` |" not in text] == []
    (erase,) = lines(snippet("docs/data-protection.md", "Erase one person's data", "sh"))
    assert run([*erase, *own]) == 0
    capsys.readouterr()
    assert run(["people", "export", "17", *own]) == 0
    assert capsys.readouterr().out == ""
