"""What commands append to the file of ``--audit-log``, and a server that is told to open it anew."""

from __future__ import annotations

import json
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import pytest
import typer

from collab.cli.commands import app
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.test_cli import Terminal, collab, own_surroundings, update_of

__all__ = ["collab", "own_surroundings"]

# Commands with a database that change nothing and show nothing of anybody but names, sizes and dates of documents.
UNAUDITED = {
    *("documents copy", "documents list", "documents trash", "documents verify", "nodes"),
    *("versions list", "versions make", "versions rename", "webhooks list"),
}
SERVERS = {"serve", "doctor", "health"}  # they have all options


def commands(group: Any, prefix: str = "") -> dict[str, set[str]]:
    """Give the names of all commands, each with the names of its options."""
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = {parameter.name for parameter in command.params}
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_each_command_on_the_database_is_written_or_known_to_need_no_entry() -> None:
    found = commands(typer.main.get_command(app)).items()
    on_database = {name for name, options in found if "database_url" in options and name not in SERVERS}
    assert {name for name, options in found if "audit_log" in options} - SERVERS == on_database - UNAUDITED


def test_what_commands_do_is_in_the_file(collab: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setenv("COLLAB_AUDIT_LOG", str(path))
    monkeypatch.setenv("LOGNAME", "somebody-else")
    (tmp_path / "a.yjs").write_bytes(update_of("secret words"))
    assert collab("documents", "import", "a", "a.yjs") == 0
    assert collab("documents", "list") == 0
    assert collab("documents", "show", "a") == 0
    assert collab("documents", "delete", "a") == 0
    assert collab("documents", "delete", "a") == 1
    assert collab("documents", "restore", "a") == 0
    assert collab("people", "erase", "17", "--yes") == 0
    assert collab("backup", "all.backup") == 0
    assert collab("kick", "--user", "17") == 1, "no server has answered"
    found = lines(path)
    assert [(one["event.action"], one["event.outcome"], one.get("collab.document")) for one in found] == [
        ("documents-imported", "success", "a"),
        ("document-deleted", "success", "a"),
        ("document-deleted", "failure", "a"),
        ("document-restored", "success", "a"),
        ("people-erased", "success", None),
        ("backup-made", "success", None),
        ("kick", "failure", None),
    ]
    assert {one["collab.protocol"] for one in found} == {"command"}
    assert {one["user.name"] for one in found} == {pwd.getpwuid(os.getuid()).pw_name}
    assert found[4]["user.target.id"] == "17" and found[4]["message"] == "0 documents: nothing"
    assert b"secret words" not in path.read_bytes()


def test_nothing_is_done_where_it_cannot_be_written(collab: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.yjs").write_bytes(update_of())
    assert collab("documents", "import", "a", "a.yjs") == 0
    assert collab("documents", "delete", "a", "--audit-log", "missing/audit.jsonl") == 2
    assert "missing/audit.jsonl cannot be opened: No such file or directory" in collab.complaint
    assert collab("documents", "delete", "a") == 0, "it was there"


@pytest.mark.server
async def test_a_server_opens_its_file_anew_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with ServerProcess(tmp_path / "data", "--audit-log", str(path)) as server:
        await happens(path.read_bytes, "the first entry")
        path.rename(tmp_path / "audit.jsonl.1")
        os.kill(server.pid, signal.SIGHUP)
        await happens(path.exists, "a new file")
        assert any("SIGHUP: the audit log" in line for line in server.log_lines)
        assert server.terminate() == 0
    assert [one["event.action"] for one in lines(tmp_path / "audit.jsonl.1")] == ["audit-begun"]
    assert [one["event.action"] for one in lines(path)] == ["audit-ended"]
