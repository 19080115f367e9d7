"""The commands for tenants, on a database that no server uses."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from collab.adapters import make_store
from collab.cli import run
from collab.settings import Settings
from collab.storage.tenants import Counted, month_of
from tests.support.snippets import snippet
from tests.support.sqlite import migrated


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database with two tenants, one of which has used something."""

    async def fill() -> None:
        store = make_store(migrated(tmp_path))
        await store.open()
        for name in ("a/1", "a/2", "b/1", "loose"):
            await store.create(name)
        month = month_of(time.time())
        await store.add_usage("node", 1, month, [Counted("a", 7, 1_000, 90_000, 0, 3), Counted("b\u202e", 1)])
        await store.close()

    asyncio.run(fill())
    return tmp_path


def command(directory: Path, *arguments: str) -> int:
    return run(["tenants", *arguments, "--data-dir", str(directory), "--tenants", "name", "--quota-edits", "10"])


def test_tenants_are_listed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "list") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "STATE" and first.split() == ["ok", "0", "0", "1000", "7", "1.5", "0", "3", "a"]
    assert "\u202e" not in second
    assert command(directory, "list", "--json", "--month", "2020-01") == 0
    assert [json.loads(line)["usage"]["edits"] for line in capsys.readouterr().out.splitlines()] == [0, 0]
    assert command(directory, "list", "--month", "2020-1") == 2
    assert "a month is YYYY-MM" in capsys.readouterr().err


def test_a_tenant_is_counted_when_it_is_shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(directory, "show", "a") == 0
    shown = capsys.readouterr().out
    assert "documents                           2" in shown and "measured" in shown.lower()
    assert command(directory, "show", "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["usage"]["documents"] == 1
    assert command(directory, "show", "nobody") == 1
    assert "nobody" in capsys.readouterr().err


def test_quotas_are_set_one_by_one(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def quota(*arguments: str) -> dict[str, Any]:
        assert command(directory, "quota", "a", *arguments, "--json") == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    set_first = quota("edits=7", "documents=none")
    assert (set_first["state"], set_first["over"]) == ("over", ["edits"])
    assert set_first["own_quota"] == {"edits": 7, "documents": None}
    assert quota("edits=default")["own_quota"] == {"documents": None}
    assert quota("bytes_stored=5", "--reset")["own_quota"] == {"bytes_stored": 5}
    assert quota("--reset")["quota"]["edits"] == 10
    for wrong in ("edits", "edits=-1", "edits=1.5", "letters=3"):
        assert command(directory, "quota", "a", wrong) != 0
        assert wrong.partition("=")[0] in capsys.readouterr().err


def test_the_commands_of_the_documentation_work(directory: Path) -> None:
    for line in snippet("docs/tenants.md", "What is counted", "sh").splitlines():
        program, group, *arguments = shlex.split(line.replace("team-a", "a"))
        assert (program, group) == ("collab", "tenants") and command(directory, *arguments) == 0, line
    _, serve, *options = shlex.split(snippet("docs/tenants.md", "Tenants and quotas", "sh"))
    given = dict(zip([flag[2:].replace("-", "_") for flag in options[::2]], options[1::2], strict=True))
    settings = Settings.load(given, environ={})
    assert serve == "serve" and settings.quotas == {"documents": 1_000, "bytes_stored": 5_000_000_000}
