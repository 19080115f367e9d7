"""The lines for a shell, run by a shell.

Strategy: ``collab`` on PATH is the command of this checkout. What stands for the reader's own (a directory, a database,
a secret) is replaced, and ports are free ones; all else is run word for word. A line that serves is run until it says
that it listens, and is then told to stop.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collab.cli import control, doctor, status
from collab.doctor.findings import failed, ok
from collab.errors import CollabError
from collab.hub.people import Place, Seen
from collab.storage.records import Instruction, Kind, NodeReport, Reports
from tests.auth.makers import SECRET
from tests.support.needs import demand
from tests.support.postgres import PostgresServer
from tests.support.server import READY, ServerProcess, collab_command
from tests.support.snippets import ROOT, snippet
from tests.support.wsclient import text_update

pytestmark = [pytest.mark.server, pytest.mark.slow]


class Shell:
    """Run lines in a directory of the test's own; ``replaced`` is what stands for the reader's own."""

    def __init__(self, directory: Path, **replaced: str) -> None:
        demand("server")
        self.directory = directory
        self.replaced = replaced
        programs = directory / "bin"
        programs.mkdir()
        (programs / "collab").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m collab "$@"\n')
        (programs / "collab").chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COLLAB_")}
        self.environment = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "COLLAB_PORT": "0",
            "COLLAB_DATA_DIR": str(directory / "data"),
            "COLLAB_DRAIN_DELAY_SECONDS": "0",
        }

    def lines(self, text: str) -> list[str]:
        """Give the commands of a snippet, with the reader's own put in."""
        for word, own in {"--port 1234": "--port 0", **self.replaced}.items():
            text = text.replace(word, own)
        return [line for line in text.splitlines() if shlex.split(line, comments=True)]

    def run(self, text: str) -> list[str]:
        """Run the commands one after the other; give what each has printed. Each must succeed."""
        lines = self.lines(text)
        return [self.serve(line) if " serve" in line.partition(" #")[0] else self.command(line) for line in lines]

    def command(self, line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, line: str) -> str:
        """Run a command that serves until it listens, and stop it; give its log."""
        process = subprocess.Popen(
            ["sh", "-c", f"exec env {line}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            log = process.communicate(timeout=60)[1]
            assert READY.match(first), f"{line}\n{first}{log}"
            assert process.returncode == 0, f"{line}\n{log}"
        finally:
            process.kill()
            process.wait()
        return log


def add_document(shell: Shell, name: str) -> None:
    """Put a document into the database, as an import does."""
    (shell.directory / "old.yjs").write_bytes(text_update(1, "hello"))
    done = collab_command(
        *("documents", "import", name, str(shell.directory / "old.yjs")), "--data-dir", str(shell.directory / "data")
    )
    assert done.returncode == 0, done.stderr


def test_the_database_is_migrated_and_both_stores_serve(empty_postgres_url: str, tmp_path: Path) -> None:
    own = {"/var/lib/collab": str(tmp_path / "var"), "postgresql://collab:secret@db/collab": empty_postgres_url}
    shell = Shell(tmp_path, **own)
    shell.run(snippet("docs/operations.md", "Running it", "sh"))
    assert (tmp_path / "var" / "collab.db").exists() and not (tmp_path / "data").exists()


def test_a_node_serves_and_one_behind_a_pooler_has_another_way(
    pooled_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    # Of one database: the pooler's own name of it is the last part before the question mark.
    database = pooled_url.partition("@/")[2].partition("?")[0]
    own = {
        "postgresql://collab:secret@pooler:6432/collab": shlex.quote(pooled_url),
        "postgresql://collab:secret@db/collab": shlex.quote(postgres_server.url(database)),
    }
    shell = Shell(tmp_path, **own)
    (log,) = shell.run(snippet("docs/scaling.md", "Several nodes", "sh"))
    assert "is down" not in log
    (listed,) = shell.run(snippet("docs/scaling.md", "Who is there", "sh"))
    assert listed.startswith("STATE"), "the server has stopped, and left the list"
    (log,) = shell.run(snippet("docs/scaling.md", "How nodes hear of each other", "sh"))
    assert "is down" not in log, "the way past the pooler is taken"


def test_workers_serve(postgres_url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, **{"postgresql://collab:secret@db/collab": postgres_url})
    (log,) = shell.run(snippet("docs/scaling.md", "All cores of one machine", "sh"))
    assert "4 workers serve" in log


def test_it_serves_behind_a_proxy(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.run("collab keygen --out collab")
    (log,) = shell.run(snippet("docs/operations.md", "Behind a proxy", "sh"))
    assert "ERROR" not in log


def test_hooks_are_loaded(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    (tmp_path / "search.py").write_text(snippet("docs/hooks.md", "A first hook", "python"))
    (log,) = shell.run(snippet("docs/hooks.md", "A first hook", "sh"))
    assert "hooks: Index" in log and "ERROR" not in log


def test_documents_are_listed_shown_taken_out_and_put_back(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    add_document(shell, "notes/plan")
    listed, shown, *_ = shell.run(snippet("docs/operations.md", "Documents from the command line", "sh"))
    assert "notes/plan" in listed and "notes/plan" in shown
    assert (tmp_path / "plan.yjs").stat().st_size >= len(text_update(1, "hello"))


def test_a_running_server_is_told_what_operators_want(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with ServerProcess(tmp_path / "data") as server:
        server.wait_for_log(lambda line: re.search(r"this server is [\w-]+$", line))
        for said in shell.run(snippet("docs/operations.md", "Kick, check access again, reload", "sh")):
            assert re.fullmatch(r"[\w-]+: 0 sessions ended\n", said), said
    assert "reload, document 'notes/plan'" not in server.stderr, "nobody had it open"


def test_log_levels_are_changed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shell = Shell(tmp_path, PID=str(server.pid))
        *told, signalled = shell.run(snippet("docs/operations.md", "Log levels at run time", "sh"))
        assert [line.partition(": ")[2] for line in told] == [
            "the log level of collab.journal is debug\n",
            "the log level of collab is debug\n",
            "the log level of collab is default\n",
        ]
        assert signalled == ""
        server.wait_for_log(lambda line: line.endswith("the log level of collab is debug for 600 s"))


def test_the_doctor_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = snippet("docs/operations.md", "What is wrong: collab doctor", "")
    with ServerProcess(tmp_path / "data") as server:
        shell = Shell(tmp_path, **{"https://collab.example": server.url})
        short, long, as_json = shell.run(snippet("docs/operations.md", "What is wrong: collab doctor", "sh"))
    assert short.splitlines()[0] == lines.splitlines()[0]
    assert "WebSocket" in long and "WebSocket" not in short and json.loads(as_json)["well"] is True
    table = ROOT.joinpath("docs/operations.md").read_text(encoding="utf-8").partition("| check | looks at |")[2]
    for line in long.splitlines():
        assert f"`{line[9:23].strip()}`" in table, line
    doctor._print(ok("configuration", "the options fit together"))
    role = "the role collab may not read and write log"
    grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO collab"
    doctor._print(failed("database", role, grant))
    assert capsys.readouterr().out == lines


def test_the_state_of_all_servers_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path / "data") as server:
        shell = Shell(tmp_path, **{"https://collab.example": server.url, "--interval 10": "--once"})
        shell.environment["COLLAB_PORT"] = str(server.port)
        *shown, picture, sample = shell.run(
            snippet("docs/operations.md", "How it is now: collab status and collab top", "sh")
        )
    assert all(said.startswith("servers: 1, ready: 1, ") for said in shown) and len(shown) == 2
    assert "sorted by edits" in picture and json.loads(sample)["silent"] == []
    lines = snippet("docs/operations.md", "How it is now: collab status and collab top", "").splitlines()
    view = status.View("server", "http://127.0.0.1:1234", connections=53, rooms=31, queue_bytes=0)
    rows = [line.split() for line in lines[3:5]]
    for row, edits, acknowledged, lag, memory in zip(
        rows, (12.4, 0.8), (0.021, 0.018), (0.0041, 0.003), (137573171, 121634816), strict=True
    ):
        view.nodes.append(
            {
                "name": row[-2],
                "address": row[-1],
                "version": row[-3],
                "alive": True,
                "ready": True,
                "degraded": False,
                "connections": int(row[1]),
                "rooms": int(row[2]),
                "edits_per_second": edits,
                "acknowledgement_p99": acknowledged,
                "loop_lag_p99": lag,
                "queue_bytes": 0,
                "memory_bytes": memory,
            }
        )
    view.findings.append(status.Finding(False, lines[6][7:], lines[7][10:]))
    status._print(view)
    assert capsys.readouterr().out.splitlines() == lines


def test_connections_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(tmp_path)
    head, line = snippet("docs/operations.md", "Connections", "").splitlines()
    with ServerProcess(tmp_path / "data"):
        *listed, as_json = shell.run(snippet("docs/operations.md", "Connections", "sh"))
    assert [said.splitlines() for said in listed] == [[head]] * 3
    assert json.loads(as_json) == {"connections": [], "silent": [], "more": False}
    at = datetime(2026, 11, 29, 10, tzinfo=UTC).timestamp()
    places = [Place("notes/plan", "write", False)]
    node = "5c1f00a2b94e7d33-9f3a2c"
    control._print_connections([Seen(node, 17, ["17"], "203.0.113.7", "y-websocket", at, places, 1, 0)])
    assert capsys.readouterr().out.splitlines() == [head, line]


def test_what_is_printed_of_an_instruction_is_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    lines = snippet("docs/operations.md", "Kick, check access again, reload", "").splitlines()
    nodes = [re.fullmatch(r"([\w-]+): (\d+) sessions ended", line) for line in lines]
    reports = tuple([NodeReport(found[1], int(found[2])) for found in nodes if found])
    instruction = Instruction(Kind.KICK, user="17")
    control._print(instruction, Reports(reports, (lines[-1].rpartition(" ")[2],)))
    printed = capsys.readouterr()
    assert (printed.out + printed.err).splitlines() == lines
    with pytest.raises(CollabError, match="no server has answered"):
        control._print(instruction, Reports((), ()))


def test_documents_are_verified_and_repaired(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    add_document(shell, "notes/plan")
    shell.run(snippet("docs/operations.md", "Damaged bytes", "sh"))


def test_a_configuration_file_is_read(empty_postgres_url: str, tmp_path: Path) -> None:
    """The file is the one that stands above the line; its database is a real one here."""
    text = snippet("docs/configuration.md", "A file", "toml")
    assert text.startswith("# collab.toml\n")
    options = tomllib.loads(text)
    (tmp_path / "collab.toml").write_text(text.replace(options["database_url"], empty_postgres_url))
    shell = Shell(tmp_path)
    # What the environment says would be more than the file.
    for name in ("PORT", "DATA_DIR"):
        del shell.environment[f"COLLAB_{name}"]
    (tmp_path / "collab.toml").write_text((tmp_path / "collab.toml").read_text().replace("port = 4321", "port = 0"))
    collab_command("migrate", "--database-url", empty_postgres_url)
    shell.run(snippet("docs/configuration.md", "A file", "sh"))


def test_keys_are_made_and_tokens_and_servers_take_them(tmp_path: Path) -> None:
    shell = Shell(tmp_path, **{"COLLAB_JWT_SECRET=...": f"COLLAB_JWT_SECRET='{SECRET}'"})
    secret, _ = shell.run(snippet("docs/security.md", "1. A key", "sh"))
    assert len(secret.strip()) >= 32
    assert "PRIVATE KEY" in (tmp_path / "collab.private.pem").read_text()
    shell.run(snippet("docs/security.md", "1. A key", "sh", 2))
    (token,) = shell.run(snippet("docs/security.md", "1. A key", "sh", 3))
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token.strip().splitlines()[-1])


def test_a_database_is_saved_and_restored(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    add_document(shell, "notes/plan")
    _, made, checked, restored = shell.run(snippet("docs/operations.md", "Backup and restore", "sh"))
    assert "1 documents with 1 rows" in made and "whole" in checked and "restored 1 documents" in restored
    (listed,) = shell.run("collab documents list --data-dir elsewhere")
    assert "notes/plan" in listed


MAKE = [
    snippet("README.md", "collab", "sh"),
    snippet("docs/quickstart.md", "The server", "sh"),
    snippet("docs/benchmarks.md", "Benchmarks", "sh"),
]


def test_make_knows_what_it_is_asked_for() -> None:
    """Only what it would do: the tests run on what `make test` has set up, and `make bench` takes an hour."""
    targets = {target for text in MAKE for target in re.findall(r"^make (\S+)", text, re.MULTILINE)}
    assert targets == {"run", "test", "bench"}
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert {"run": "collab serve", "test": "pytest", "bench": "collab bench"}[target] in done.stdout


def test_what_is_installed_is_what_is_imported() -> None:
    """The registries are not asked: the names must be those of the imports, and of this distribution."""
    assert snippet("docs/operations.md", "Traces", "sh") == "pip install 'collab-server[tracing]'\n"
    asked = shlex.split(snippet("docs/quickstart.md", "Your own page", "sh"))
    imported = re.findall(r" from '([^']+)'", snippet("docs/quickstart.md", "Your own page", "js"))
    assert asked == ["npm", "install", *imported]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    *_, wanted = shlex.split(snippet("docs/adapters.md", "Running the suite", "sh"))
    assert wanted == f"{project['name']}[testing]" and "testing" in project["optional-dependencies"]


def test_deleted_documents_are_listed_restored_and_erased(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for _ in range(2):  # two documents, one after the other, under one name
        add_document(shell, "notes/plan")
        shell.run("collab documents delete notes/plan")
    listed = shell.command("collab documents trash --prefix notes/ --json")
    older = min(json.loads(line)["id"] for line in listed.splitlines())
    shell.replaced["--id 17"] = f"--id {older}"
    shown, _, _, _ = shell.run(snippet("docs/operations.md", "Deleted documents", "sh"))
    assert shown.count("notes/plan") == 2
    (left,) = shell.run("collab documents list")
    assert "notes/old-plan" in left and "notes/plan" not in left
