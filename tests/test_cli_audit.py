"""What commands append to the file of ``--audit-log``, and a server that is told to open it anew."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from collab.audit import Kind, Outcome, Who
from collab.audit.entries import encode_entry, make_entry
from collab.audit.file import AuditFile
from collab.cli.commands import app
from tests.support.server import ServerProcess
from tests.support.snippets import snippet
from tests.support.waiting import happens
from tests.test_cli import Terminal, collab, own_surroundings, update_of

__all__ = ["collab", "own_surroundings"]

# Commands with a database that change nothing and show nothing of anybody but names, sizes and dates of documents.
UNAUDITED = {
    *("documents copy", "documents list", "documents trash", "documents verify", "nodes", "status"),
    *("versions list", "versions make", "versions rename", "webhooks list", "tenants list", "tenants show"),
}
# The first three have all options, the last one shows the file.
SERVERS = {"serve", "doctor", "health", "audit"}


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


def test_the_file_is_shown(collab: Terminal, tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl")
    for number, who in enumerate((Who("17", "203.0.113.7"), Who("18"), Who("root", on_behalf_of="17"))):
        act = (Kind.DOCUMENT_DELETED, Outcome.SUCCESS, f"\x1b[2J {number}", who, f"d\u2028{number}")
        file.append(encode_entry(make_entry(1777886047.3125 + number, number, *act), "node"))
    file.append(b'{"torn\n[1]\n')
    option = ("--audit-log", "audit.jsonl")
    assert collab("audit", *option) == 0
    assert collab.out.decode().splitlines()[0] == (
        r"2026-05-04T09:14:07.312Z document-deleted: \x1b[2J 0 "
        r"(user '17', from '203.0.113.7', document 'd\u20280', node 'node')"
    )
    assert collab.out.count(b"\n") == 3 and collab.err == "collab: 2 lines of audit.jsonl are no entries\n"

    def numbers(*arguments: str) -> list[str]:
        assert collab("audit", *option, "--json", *arguments) == 0
        return [json.loads(line)["collab.document"][-1] for line in collab.out.splitlines()]

    assert numbers("--user", "17") == ["0", "2"] and numbers("--last", "1") == ["2"]
    assert numbers("--document", "d\u20281", "--kind", "actions") == ["1"] and numbers("--kind", "kick") == []
    assert numbers("--since", "2026-05-04T09:14:08Z") == ["1", "2"]
    assert collab("audit") == 2 and "COLLAB_AUDIT_LOG" in collab.complaint
    assert collab("audit", *option, "--kind", "delete") == 2 and "there is no kind 'delete'" in collab.complaint
    assert collab("audit", "--audit-log", "missing") == 1 and "cannot read missing" in collab.complaint


def test_the_commands_of_the_handbook_show_it(
    collab: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setenv("COLLAB_AUDIT_LOG", str(path))
    entry = make_entry(1777886047.0, 1, Kind.DOCUMENT_DELETED, Outcome.SUCCESS, "", Who("17"))
    AuditFile(path).append(encode_entry(entry, None))
    chosen, of_user, followed = snippet("docs/operations.md", "The audit log", "sh").splitlines()
    for line in (chosen.replace("/var/log/collab/audit.jsonl", str(path)), of_user, followed.replace("--follow", "")):
        assert collab(*shlex.split(line, comments=True)[1:]) == 0
        assert collab.out.startswith(b"2026-05-04T09:14:07.000Z document-deleted: ")


@pytest.mark.server
def test_what_comes_is_followed_through_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)

    def write(number: int) -> None:
        entry = make_entry(1777886047.0, number, Kind.KICK, Outcome.SUCCESS, f"number {number}")
        file.append(encode_entry(entry, None))

    write(1)
    command = [sys.executable, "-m", "collab", "audit", "--follow", "--audit-log", str(path)]
    # A shell lets what it runs in the background ignore SIGINT, and its children as well.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as followed:
        assert followed.stdout is not None
        try:
            assert "number 1" in followed.stdout.readline()
            write(2)
            assert "number 2" in followed.stdout.readline()
            path.rename(tmp_path / "audit.jsonl.1")
            write(3)
            assert "number 3" in followed.stdout.readline()
        finally:
            followed.send_signal(signal.SIGINT)
    assert followed.returncode == 130


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
