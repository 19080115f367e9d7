"""The command line as its users meet it: what is printed where, and the exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from pycrdt import Array, Doc, Map, Text

from collab.adapters import make_store
from collab.cli import run
from collab.settings import options
from collab.storage.urls import parse_database_url
from tests.support.server import ServerProcess
from tests.support.wsclient import RawClient


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty directory, without the developer's options."""
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.delenv("COLLAB_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


class Terminal:
    """Run commands and keep what they wrote."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._monkeypatch = monkeypatch
        self.out = b""
        self.err = ""

    def __call__(self, *arguments: str, stdin: bytes = b"") -> int:
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        code = run(list(arguments))
        sys.stdout.flush()
        captured = self._capture.readouterr()
        self.out, self.err = captured.out, captured.err.decode()
        return code

    @property
    def complaint(self) -> str:
        """The one line on standard error that an error is allowed."""
        assert self.out == b""
        assert self.err.startswith("collab: ") and self.err.count("\n") == 1, self.err
        return self.err.strip()


@pytest.fixture
def collab(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capfdbinary, monkeypatch)


def update_of(text: str = "hello", client: int = 7) -> bytes:
    document: Doc[Text] = Doc(client_id=client)
    document["content"] = Text(text)
    return document.get_update()


def text_of(update: bytes) -> str:
    document: Doc[Text] = Doc()
    document.apply_update(update)
    return str(document.get("content", type=Text))


# --- the command line itself


def test_version_is_that_of_the_package(collab: Terminal) -> None:
    assert collab("--version") == 0
    assert collab.out == f"{version('collab-server')}\n".encode()
    assert collab("version") == 0
    assert collab.out.decode().strip() == version("collab-server")


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "collab", "version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version("collab-server")


def test_serve_has_a_flag_for_every_option(collab: Terminal) -> None:
    assert collab("serve", "--help") == 0
    written = " ".join(collab.out.decode().split())
    for option in options():
        assert re.search(rf"{option.flag}\b", written), option.flag
        assert f"[{option.env}" in written, option.env
    assert "--config" in written


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve", "--prot", "1"), "--port"),
        (("bogus",), "No such command 'bogus'"),
        (("documents", "show"), "NAME"),
        (("serve", "--port", "http"), "--port: must be a valid integer, not 'http'"),
        (("serve", "--host", "0.0.0.0"), "is not a loopback address"),
        (("serve", "--host", "0.0.0.0", "--jwt-secret", "hunter2" * 8), "without TLS"),
        (("serve", "--jwt-secret", "hunter2"), "the secret"),
        (("serve", "--jwt-keys", "none.pem"), "cannot read"),
        (("serve", "--tls-cert", "none.pem", "--tls-key", "none.key"), "cannot read none.pem or none.key"),
        (("serve", "--trusted-proxies", "::1"), "--trusted-proxies goes with --behind-proxy"),
        (("token", "--user", "ada", "--document", "notes"), "--document takes NAME=ACCESS"),
        (("serve", "--config", "none.toml"), "cannot read the configuration file none.toml"),
        (
            ("migrate", "--database-url", "mysql://u:hunter2@h/d"),
            "the database URL begins with sqlite:/// or postgresql://",
        ),
        (("documents", "list"), "there is no database data/collab.db; collab serve and collab migrate make one"),
    ],
)
def test_what_is_asked_for_in_a_wrong_way_is_one_line_and_exit_2(
    collab: Terminal, arguments: tuple[str, ...], expected: str
) -> None:
    assert collab(*arguments) == 2
    assert expected in collab.complaint
    assert "hunter2" not in collab.err


def test_options_come_from_the_environment_and_the_file_too(
    collab: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLLAB_DATA_DIR", str(tmp_path / "by-environment"))
    assert collab("migrate") == 0
    assert (tmp_path / "by-environment" / "collab.db").is_file()
    monkeypatch.delenv("COLLAB_DATA_DIR")
    (tmp_path / "c.toml").write_text('data_dir = "by-file"')
    assert collab("migrate", "--config", "c.toml") == 0
    assert (tmp_path / "by-file" / "collab.db").is_file()
    monkeypatch.setenv("COLLAB_DATADIR", "x")
    assert collab("migrate") == 2
    assert "did you mean COLLAB_DATA_DIR?" in collab.complaint


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``collab serve`` where it belongs, in a process of its own: it takes over signals and may not end."""
    command = [sys.executable, "-m", "collab", "serve", "--log-level", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.server
def test_serve_says_when_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"collab: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.server
async def test_serve_writes_json_and_nothing_else(tmp_path: Path) -> None:
    options = ("--log-format", "json", "--log-level", "debug")
    async with ServerProcess(tmp_path, *options) as server:
        async with RawClient(server.document_url("notes/a")) as client:
            await client.send(b"\x00\x02\x01\xff")  # no update
            assert await client.expect_close() == 1007
        await asyncio.to_thread(server.wait_for_log, lambda line: "refused: " in line)
        assert await server.aterminate() == 0
        lines = [json.loads(line) for line in server.stderr.splitlines()]
    assert all({"@timestamp", "log.level", "log.logger", "message"} <= line.keys() for line in lines)
    (refused,) = [line for line in lines if line["message"].startswith("refused: ")]
    assert (
        refused["log.level"],
        refused["log.logger"],
        refused["client.address"],
        refused["collab.document"],
    ) == (
        "info",
        "collab.connection",
        "127.0.0.1",
        "notes/a",
    )
    assert any(line["message"] == f"this server is {refused['service.node.name']}" for line in lines)
    frames = [line for line in lines if line["message"].startswith(("< ", "> "))]
    assert {frame["collab.connection"] for frame in frames} == {refused["collab.connection"]}


@pytest.mark.server
def test_serve_complains_in_json_where_logs_are_json() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = serve("--log-format", "json", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["message"].startswith("cannot listen on 127.0.0.1") and line["log.level"] == "error"


@pytest.mark.server
def test_serve_says_when_its_port_for_metrics_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("--port", "0", "--metrics-port", str(port), "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, ""), "nobody was served before"
    assert done.stderr == (
        f"collab: cannot listen for metrics on 127.0.0.1 port {port} (--metrics-port): Address already in use\n"
    )


@pytest.mark.server
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--port", "7654", "--metrics-port", "7654"), "--metrics-port and --port are both 7654"),
        (
            ("--port", "7654", "--metrics-port", "7654", "--metrics-host", "0.0.0.0"),
            "--metrics-port and --port are both 7654",
        ),
        (("--port", "0", "--metrics-host", "::1"), "--metrics-host goes with --metrics-port"),
        (("--metrics-port", "65536"), "--metrics-port: must be less than or equal to 65535, not '65536'"),
    ],
)
def test_serve_says_where_metrics_cannot_be(options: tuple[str, ...], complaint: str) -> None:
    done = serve(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"collab: {complaint}") and done.stderr.count("\n") == 1


def test_serve_on_postgresql_says_what_to_run_when_the_schema_is_not_current(empty_postgres_url: str) -> None:
    done = serve("--port", "0", "--database-url", empty_postgres_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "run: collab migrate" in done.stderr


@pytest.mark.parametrize("command", [("migrate",), ("documents", "list")])
def test_a_database_that_does_not_answer_is_one_line_without_its_password(
    collab: Terminal, command: tuple[str, ...]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://user:hunter2@127.0.0.1:{unused.getsockname()[1]}/db"
        assert collab(*command, "--database-url", url, "--log-level", "error") == 1
    assert "hunter2" not in collab.complaint


def test_bench_is_delegated_with_its_options(collab: Terminal) -> None:
    assert collab("bench", "--help") == 0
    assert "collab bench" in collab.out.decode()
    assert collab("bench", "--nonsense") == 2
    assert "nonsense" in collab.complaint


# --- documents


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_documents_are_listed_by_name_time_and_size(
    collab: Terminal, backend: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if backend == "postgresql":
        monkeypatch.setenv("COLLAB_DATABASE_URL", request.getfixturevalue("postgres_url"))
    for name, length in (("c", 10), ("a", 1_000), ("d", 100), ("b", 10_000)):
        Path("in.bin").write_bytes(update_of("x" * length))
        assert collab("documents", "import", name, "in.bin") == 0, collab.err

    def listed(*options: str) -> list[str]:
        assert collab("documents", "list", "--json", *options) == 0, collab.err
        return [json.loads(line)["name"] for line in collab.out.splitlines()]

    assert listed() == listed("--order", "name") == ["a", "b", "c", "d"]
    assert listed("--order", "updated") == ["b", "d", "a", "c"]
    assert listed("--order", "size") == ["b", "a", "d", "c"]
    assert listed("--order", "size", "--limit", "2") == ["b", "a"] and listed("--limit", "3") == ["a", "b", "c"]
    assert listed("--order", "size", "--prefix", "d") == ["d"]
    assert collab("documents", "list", "--order", "size") == 0
    head, first, *_ = collab.out.decode().splitlines()
    assert head.split() == ["BYTES", "ROWS", "UPDATED", "NAME"]
    assert first.endswith("  b") and int(first.split()[0]) > 10_000
    assert collab("documents", "list", "--order", "bytes") == 2


def test_what_is_remembered_of_names_is_verified_and_repaired(collab: Terminal) -> None:
    Path("in.bin").write_bytes(update_of("x"))
    assert collab("documents", "import", "d", "in.bin") == 0, collab.err
    assert collab("documents", "verify") == 0
    with contextlib.closing(sqlite3.connect("data/collab.db")) as database, database:
        database.execute("INSERT INTO skeletons (name, data, at) VALUES (?, ?, 1.0)", ("gone/ä".encode(), b"\x01\xff"))
    assert collab("documents", "verify") == 1
    said = "the database: what is remembered of documents that had the name 'gone/ä' and are gone is damaged"
    assert said in collab.out.decode()
    assert collab("documents", "verify", "d") == 0, "it is no part of a document"
    assert collab("documents", "repair", "--dry-run") == 1 and said in collab.out.decode()
    assert collab("documents", "verify") == 1
    assert collab("documents", "repair") == 0 and "kept in" in collab.out.decode()
    assert collab("documents", "verify") == 0 and collab.out == b""


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_the_life_of_a_document(
    collab: Terminal, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "postgresql":
        monkeypatch.setenv("COLLAB_DATABASE_URL", request.getfixturevalue("postgres_url"))
    update = update_of("grüße")
    Path("in.bin").write_bytes(update)
    assert collab("documents", "import", "notes/ä b", "in.bin") == 0, collab.err

    assert collab("documents", "list") == 0
    lines = collab.out.decode().splitlines()
    assert len(lines) == 2 and lines[1].endswith("  notes/ä b")
    assert collab("documents", "list", "--json", "--prefix", "notes/") == 0
    assert json.loads(collab.out)["head_seq"] == 1
    assert collab("documents", "list", "--json", "--prefix", "other/") == 0
    assert collab.out == b""

    assert collab("documents", "show", "notes/ä b") == 0
    shown = collab.out.decode()
    assert "notes/ä b" in shown and f"{len(update)} bytes as one update" in shown and "1 rows ever" in shown

    assert collab("documents", "export", "notes/ä b", "out.bin") == 0, collab.err
    assert text_of(Path("out.bin").read_bytes()) == "grüße"
    assert collab("documents", "export", "notes/ä b", "-") == 0
    assert collab.out == Path("out.bin").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".bin") == ["in.bin", "out.bin"]
    assert Path("out.bin").stat().st_mode == Path("in.bin").stat().st_mode

    assert collab("documents", "delete", "notes/ä b") == 0
    for command in (("show", "notes/ä b"), ("export", "notes/ä b", "-"), ("delete", "notes/ä b")):
        assert collab("documents", *command) == 1, command
        assert "notes/ä b" in collab.complaint
    assert collab("documents", "list", "--json") == 0
    assert collab.out == b""

    assert collab("documents", "import", "notes/ä b", "-", stdin=update_of("again")) == 0, collab.err
    assert collab("documents", "export", "notes/ä b", "-") == 0
    assert text_of(collab.out) == "again"


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_deleted_documents_are_listed_restored_and_erased(
    collab: Terminal, backend: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if backend == "postgresql":
        monkeypatch.setenv("COLLAB_DATABASE_URL", request.getfixturevalue("postgres_url"))
    for text in ("first", "second"):
        assert collab("documents", "import", "notes/d", "-", stdin=update_of(text)) == 0, collab.err
        assert collab("documents", "delete", "notes/d") == 0
    assert collab("documents", "trash") == 0
    assert [line.split()[-1] for line in collab.out.decode().splitlines()] == ["NAME", "notes/d", "notes/d"]
    assert collab("documents", "trash", "--json", "--prefix", "notes/") == 0
    found = [json.loads(line) for line in collab.out.splitlines()]
    assert [each["name"] for each in found] == ["notes/d"] * 2
    # The second one begins with what remains of the first: its IDs.
    assert found[0]["bytes"] > found[1]["bytes"] == len(update_of("first"))
    assert collab("documents", "trash", "--json", "--prefix", "other/") == 0
    assert collab.out == b""

    # Where deleted documents are not kept, or not for so long, none is there.
    assert collab("documents", "trash", "--trash-days", "0", "--json") == 0
    assert collab.out == b""
    assert collab("documents", "restore", "notes/d", "--trash-days", "0") == 1
    assert "notes/d" in collab.complaint

    assert collab("documents", "restore", "notes/d") == 0, collab.err
    assert collab("documents", "export", "notes/d", "-") == 0
    assert text_of(collab.out) == "second"
    older = str(found[1]["id"])
    assert collab("documents", "restore", "notes/d", "--id", older) == 1
    assert "exists" in collab.complaint
    assert collab("documents", "restore", "notes/d", "--id", older, "--as", "notes/old") == 0, collab.err
    assert collab("documents", "export", "notes/old", "-") == 0
    assert text_of(collab.out) == "first"

    assert collab("documents", "erase", "notes/old", stdin=b"n\n") == 130
    assert collab("documents", "export", "notes/old", "-") == 0
    assert collab("documents", "erase", "notes/old", "--yes") == 0, collab.err
    assert "erased 'notes/old'" in collab.err
    assert collab("documents", "show", "notes/old") == 1
    assert collab("documents", "trash", "--json") == 0
    assert collab.out == b""
    assert collab("documents", "erase", "never", "--yes") == 1
    assert "never" in collab.complaint
    assert collab("documents", "restore", "notes/old") == 1


def test_a_document_is_copied_and_shown_with_its_title_and_own_keys(collab: Terminal, tmp_path: Path) -> None:
    assert collab("documents", "import", "d", "-", "--no-gc", stdin=update_of("text")) == 0, collab.err

    async def name_it() -> None:
        store = make_store(parse_database_url(None, tmp_path / "data"))
        await store.open()
        await store.change("d", title="Title\n", metadata={"kind": "ä\x07", "n": 1})
        await store.close()

    asyncio.run(name_it())
    assert collab("documents", "copy", "d", "e") == 0, collab.err
    assert collab("documents", "show", "e", "--json") == 0
    shown = json.loads(collab.out)
    assert (shown["title"], shown["metadata"], shown["gc"]) == ("Title\n", {"kind": "ä\x07", "n": 1}, False)
    assert collab("documents", "show", "e") == 0
    lines = collab.out.decode().splitlines()
    assert any(line.startswith("title") and "Title" in line for line in lines)
    assert any(line.startswith("metadata") and '"kind": "ä' in line and "\x07" not in line for line in lines)
    assert collab("documents", "export", "e", "-") == 0
    assert text_of(collab.out) == "text"
    for wrong in (("d", "e"), ("none", "f"), ("d", " ")):
        assert collab("documents", "copy", *wrong) == 1, wrong
        assert collab.complaint


def test_show_json_has_the_content(collab: Terminal) -> None:
    document: Doc[object] = Doc(client_id=9)
    document["content"] = Text("hello")
    document["state"] = Map({"done": True, "tags": Array(["a", 1.0])})
    assert collab("documents", "import", "d", "-", stdin=document.get_update()) == 0, collab.err
    assert collab("documents", "show", "d", "--json") == 0, collab.err
    shown = json.loads(collab.out)
    assert (shown["name"], shown["head_seq"], shown["gc"]) == ("d", 1, True)
    content = json.dumps(shown["content"])
    for part in ("hello", "done", "tags"):
        assert part in content


def test_import_keeps_deleted_content_when_asked(collab: Terminal) -> None:
    assert collab("documents", "import", "d", "-", "--no-gc", stdin=update_of()) == 0
    assert collab("documents", "show", "d") == 0
    assert "gc=off" in collab.out.decode()


def test_an_empty_document_can_be_imported_and_exported(collab: Terminal) -> None:
    empty: Doc[Text] = Doc()
    assert collab("documents", "import", "d", "-", stdin=empty.get_update()) == 0, collab.err
    assert collab("documents", "export", "d", "-") == 0
    assert collab.out == b"\x00\x00"


def test_import_takes_no_name_that_is_in_use(collab: Terminal) -> None:
    assert collab("documents", "import", "d", "-", stdin=update_of("first")) == 0
    assert collab("documents", "import", "d", "-", stdin=update_of("second")) == 1
    assert "'d'" in collab.complaint
    assert collab("documents", "export", "d", "-") == 0
    assert text_of(collab.out) == "first"


def not_whole() -> bytes:
    document: Doc[Text] = Doc(client_id=7)
    document["content"] = text = Text("first")
    before = document.get_state()
    text += " second"
    return document.get_update(before)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "standard input: it is not a Yjs v1 update"),
        (b"not an update", "standard input: it is not a Yjs v1 update"),
        (update_of()[:-1], "standard input: it is not a Yjs v1 update"),
        (update_of() + b"\x00", "standard input: it is not a Yjs v1 update"),
        (not_whole(), "standard input: it is not a whole document: it builds on clock 0 of client 7"),
    ],
)
def test_import_refuses_what_is_malformed_or_not_whole_and_writes_nothing(
    collab: Terminal, data: bytes, expected: str
) -> None:
    assert collab("documents", "import", "d", "-", stdin=data) == 1
    assert expected in collab.complaint
    assert not Path("data").exists()


def test_import_refuses_what_is_too_large(collab: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAB_MAX_DOCUMENT_BYTES", "1024")
    assert collab("documents", "import", "d", "-", stdin=update_of("x" * 2_000)) == 1
    assert "--max-document-bytes allows 1024" in collab.complaint


@pytest.mark.parametrize("name", ["", " ", "\t\u2003", "x" * 513, "ä" * 257, "a\0b", "\udcff"])
def test_a_name_that_no_client_can_ask_for_is_refused(collab: Terminal, name: str) -> None:
    assert collab("documents", "import", name, "-", stdin=update_of()) == 1
    assert "document name" in collab.complaint


def test_a_name_of_512_bytes_and_control_characters_is_shown_on_one_line(collab: Terminal) -> None:
    name = "a\n\x1b[31m" + "x" * (512 - 7)
    assert collab("documents", "import", name, "-", stdin=update_of()) == 0, collab.err
    assert collab("documents", "list") == 0
    assert collab.out.count(b"\n") == 2
    assert b"\x1b" not in collab.out
    assert collab("documents", "export", name, "-") == 0


def test_the_list_goes_beyond_a_page(collab: Terminal) -> None:
    for number in range(3):
        assert collab("documents", "import", f"d{number}", "-", stdin=update_of()) == 0
    assert collab("documents", "list", "--json") == 0
    assert [json.loads(line)["name"] for line in collab.out.splitlines()] == ["d0", "d1", "d2"]


def test_files_that_cannot_be_read_or_written_are_one_line(collab: Terminal) -> None:
    assert collab("documents", "import", "d", "none.bin") == 1
    assert "cannot read none.bin: No such file or directory" in collab.complaint
    assert collab("documents", "import", "d", "-", stdin=update_of()) == 0
    assert collab("documents", "export", "d", "none/out.bin") == 1
    assert "cannot write none/out.bin: No such file or directory" in collab.complaint
    assert collab("documents", "show", "other") == 1
    assert "other" in collab.complaint


def test_a_reader_that_leaves_is_no_error_worth_a_traceback(collab: Terminal) -> None:
    for number in range(3):
        assert collab("documents", "import", f"{number}" * 500, "-", stdin=update_of()) == 0
    command = [sys.executable, "-m", "collab", "documents", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None and listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
        assert listing.wait(timeout=60) == 1


# --- access


@pytest.mark.server
def test_a_token_made_here_is_what_a_server_with_that_secret_lets_in(tmp_path: Path) -> None:
    secret = "a secret of the tests, long enough for HS256"
    made = subprocess.run(
        [sys.executable, "-m", "collab", "token", "--user", "ada", "--document", "notes/*=write"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLLAB_JWT_SECRET": secret},
    ).stdout.strip()

    async def closed(url: str) -> int | None:
        async with RawClient(url) as client:
            await client.until(lambda: client.frames or client.close_code is not None, "a greeting or the close")
            return client.close_code

    async def play(server: ServerProcess) -> None:
        assert await closed(f"{server.document_url('notes/a')}?token={made}") is None
        assert await closed(f"{server.document_url('letters/a')}?token={made}") == 4403
        assert await closed(server.document_url("notes/a")) == 4401

    with ServerProcess(tmp_path / "data", environment={"COLLAB_JWT_SECRET": secret}) as server:
        asyncio.run(play(server))
        assert "no authentication" not in server.stderr
        assert secret not in server.stderr and made not in server.stderr


def test_keygen_makes_a_key_that_serve_takes(collab: Terminal, tmp_path: Path) -> None:
    assert collab("keygen", "--out", "collab") == 0
    assert (tmp_path / "collab.public.pem").is_file()
    assert collab("serve", "--host", "0.0.0.0", "--jwt-keys", "collab.public.pem") == 2
    assert "without TLS" in collab.complaint, "the key was taken, and authentication is on"
    assert collab("serve", "--host", "0.0.0.0", "--jwt-keys", "collab.private.pem") == 2
    assert "private" in collab.complaint


@pytest.mark.server
def test_a_server_that_is_open_says_so_and_what_to_set(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        line = server.wait_for_log(lambda line: "no authentication" in line)
        assert "WARNING" in line and "this machine alone" in line and "COLLAB_JWT_SECRET" in line
    with ServerProcess(tmp_path / "other", "--host", "0.0.0.0", "--insecure") as server:
        assert server.host == "0.0.0.0"
        assert "whoever reaches it" in server.wait_for_log(lambda line: "no authentication" in line)


@pytest.mark.server
@pytest.mark.parametrize("way", ["flag", "flags", "variable"])
def test_a_server_listens_on_several_addresses(tmp_path: Path, way: str) -> None:
    hosts = {"flag": ["::"], "flags": ["127.0.0.2", "::1"], "variable": ["127.0.0.1", "[::1]"]}[way]
    options = [] if way == "variable" else [part for host in hosts for part in ("--host", host)]
    environment = {"COLLAB_HOST": ",".join(hosts)} if way == "variable" else {}
    options += ["--insecure", "--metrics-port", "0", "--metrics-host", "::"]
    with ServerProcess(tmp_path, *options, environment=environment) as server:
        places = ["127.0.0.1", "[::1]"] if way == "flag" else [host.strip("[]") for host in hosts]
        for place in places:
            place = place.strip("[]")
            with contextlib.closing(http.client.HTTPConnection(place, server.port, timeout=10)) as connection:
                connection.request("GET", "/healthz", headers={"Host": "localhost"})
                assert connection.getresponse().status == 200
        server.terminate()
        lines = [line for line in server.stdout.splitlines() if "listening" in line]
        shown = ["[::]", "0.0.0.0"] if way == "flag" else [f"[{host}]" if ":" in host else host for host in places]
        assert lines == [f"collab listening on http://{host}:{server.port}" for host in shown]


# --- verify and repair


def harm(statement: str) -> None:
    connection = sqlite3.connect("data/collab.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_verify_and_repair(collab: Terminal, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert collab("documents", "import", name, "-", stdin=update_of(name)) == 0
    assert collab("documents", "verify") == 0
    assert collab.out == b"" and "2 rows and snapshots read, 0 documents damaged" in collab.err

    harm("UPDATE log SET data = X'00' || data WHERE document_id = 1")
    assert collab("documents", "verify") == 1
    assert collab.out.decode() == "a: row 1 is damaged\n"
    assert collab("documents", "verify", "b") == 0
    assert collab("documents", "verify", "--json") == 1
    facts = [json.loads(line) for line in collab.out.decode().splitlines()]
    assert [(each["name"], each["whole"], each["damaged_rows"]) for each in facts] == [
        ("a", False, [1]),
        ("b", True, []),
    ]
    for command in (("export", "a", "-"), ("show", "a", "--json")):
        assert collab("documents", *command) == 1
        assert "'a' cannot be read: row 1 of its log is damaged" in collab.complaint
        assert "collab documents repair a" in collab.complaint

    assert collab("documents", "repair", "--dry-run") == 1
    stated = collab.out.decode()
    assert "a: row 1: set its" in stated and not Path("data/damaged").exists()
    assert collab("documents", "verify") == 1, "nothing has changed"
    assert collab("documents", "repair", "a", "--aside", "kept") == 0
    assert collab.out.decode().startswith(stated)
    (kept,) = Path("kept").iterdir()
    assert json.loads(kept.read_text())["name"] == "a"
    assert collab("documents", "verify") == 0
    assert collab("documents", "export", "a", "-") == 0
    assert collab("documents", "export", "b", "-") == 0 and text_of(collab.out) == "b"


def test_repair_says_what_it_could_not_do(collab: Terminal) -> None:
    assert collab("documents", "import", "a", "-", stdin=update_of()) == 0
    harm("DELETE FROM log")
    assert collab("documents", "repair", "a") == 1
    assert collab.out.decode() == "a: not repaired: row 1 is missing\n"


def test_repair_of_what_is_whole_forgets_that_it_was_noted(collab: Terminal) -> None:
    assert collab("documents", "import", "a", "-", stdin=update_of()) == 0
    harm("INSERT INTO damage VALUES (1, 'row', 1, 0)")
    assert collab("documents", "verify") == 0
    assert collab.out.decode() == "a: is whole, and noted as damaged: collab documents repair forgets that\n"
    assert collab("documents", "repair") == 0
    assert collab("documents", "verify") == 0 and collab.out == b""


def test_verify_fill_gives_checksums_and_goes_on_where_it_was_interrupted(collab: Terminal) -> None:
    for name in ("a", "b"):
        assert collab("documents", "import", name, "-", stdin=update_of(name)) == 0
    harm("UPDATE log SET checksum = NULL")
    assert collab("documents", "verify") == 0
    assert "2 without a checksum, of an older release" in collab.err
    harm("INSERT INTO backfills VALUES ('checksums', 1, 0, NULL)")
    assert collab("documents", "verify", "--fill") == 0
    assert "going on behind document number 1" in collab.err and "1 checksums filled in" in collab.err
    assert collab("documents", "verify", "--fill") == 0
    assert "1 checksums filled in" in collab.err and "going on" not in collab.err
    assert collab("documents", "verify") == 0 and "without" not in collab.err


def test_verify_of_what_is_not_there(collab: Terminal) -> None:
    assert collab("migrate") == 0
    assert collab("documents", "verify", "nowhere") == 1
    assert "there is no document 'nowhere'" in collab.err


def test_verify_shows_a_bar_on_a_terminal(collab: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collab("documents", "import", "a", "-", stdin=update_of()) == 0
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert collab("documents", "verify") == 0
    assert f"[{'#' * 30}] 1 of 1" in collab.err
