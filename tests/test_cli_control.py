"""The commands that tell running servers something: what is printed where, and the exit codes.

What they do to clients is in ``tests/interop/test_control.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from collab.cli import run
from collab.hub import control
from collab.settings import options
from tests.support.server import ServerProcess
from tests.support.wsclient import RawClient, step2, text_update


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty directory, without the developer's options."""
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.chdir(tmp_path)


def create(name: str, text: str) -> None:
    Path("content.yjs").write_bytes(text_update(1, text))
    assert run(["documents", "import", name, "content.yjs"]) == 0


def test_a_document_is_renamed(capfd: pytest.CaptureFixture[str]) -> None:
    create("a", "hello")
    create("b", "other")
    capfd.readouterr()
    assert run(["documents", "rename", "a", "ä b"]) == 0
    assert capfd.readouterr().err.endswith("\nrenamed 'a' to 'ä b'\n")
    assert run(["documents", "show", "ä b"]) == 0
    assert "1 rows ever, 1 kept" in capfd.readouterr().out
    for words, complaint in [
        (["a", "c"], "collab: document 'a' was renamed"),
        (["none", "c"], "collab: there is no document 'none'"),
        (["b", "ä b"], "collab: document 'ä b' exists"),
        (["b", ""], "collab: document name of 0 bytes"),
    ]:
        assert run(["documents", "rename", *words]) == 1, words
        assert capfd.readouterr().err.splitlines()[-1].startswith(complaint), words


@pytest.mark.parametrize(
    "words",
    [
        ["kick"],
        ["kick", "--user", "u", "--seconds", "-1"],
        ["kick", "--user", "u", "--seconds", "1e9"],
        ["kick", "--user", ""],
        ["kick", "--document", "d", "--seconds", "5"],
        ["kick", "--connection", "ä"],
    ],
)
def test_what_says_too_little_or_too_much_is_asked_for_in_a_wrong_way(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    create("a", "hello")
    capfd.readouterr()
    assert run(words) == 2
    found = capfd.readouterr()
    assert found.out == "" and found.err.startswith("collab: ") and found.err.count("\n") == 1


def test_where_no_server_runs_it_fails(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    create("a", "hello")
    capfd.readouterr()
    assert run(["kick", "--document", "a"]) == 1
    assert "no server has answered" in capfd.readouterr().err
    assert run(["documents", "reload", "a", "--json"]) == 1
    assert json.loads(capfd.readouterr().out) == {"nodes": [], "silent": []}


@pytest.mark.server
async def test_a_running_server_acts_and_what_it_has_done_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with ServerProcess(tmp_path / "data") as server:
        client = await RawClient(server.document_url("a")).connect()
        await client.send(step2(text_update(1, "hello")))
        await client.barrier()
        given = ["--data-dir", str(tmp_path / "data")]
        capfd.readouterr()
        assert await asyncio.to_thread(run, ["kick", "--document", "a", *given]) == 0
        assert await client.expect_close() == 4503
        node, _, done = capfd.readouterr().out.partition(": ")
        assert done == "1 sessions ended\n" and f"this server is {node}" in server.stderr
        await client.close()
        client = await RawClient(server.document_url("a")).connect()
        await client.barrier()
        assert await asyncio.to_thread(run, ["documents", "reload", "a", "--json", *given]) == 0
        assert await client.expect_close() == 4502
        assert json.loads(capfd.readouterr().out) == {
            "nodes": [{"node": node, "ended": 1, "changed": 0, "undecided": 0, "done": True}],
            "silent": [],
        }
        await client.close()


@pytest.mark.server
async def test_log_levels_of_a_running_server_are_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame = re.compile(r" DEBUG +collab\.connection: .* < ")
    async with ServerProcess(tmp_path / "data") as server:
        given = ["--data-dir", str(tmp_path / "data")]

        async def edit(name: str) -> None:
            async with RawClient(server.document_url(name)) as client:
                await client.barrier()

        async def log(*words: str) -> str:
            capfd.readouterr()
            assert await asyncio.to_thread(run, ["log-level", *words, *given]) == 0
            return capfd.readouterr().out

        await edit("quiet")
        assert "the log level of collab.connection is debug\n" in await log("debug", "--logger", "collab.connection")
        await edit("loud")
        await asyncio.to_thread(server.wait_for_log, lambda line: frame.search(line) and "'loud'" in line)
        answer = json.loads(await log("default", "--logger", "collab.connection", "--json"))
        assert answer["silent"] == [] and [node["done"] for node in answer["nodes"]] == [True]
        await edit("quiet again")
        # For a short time: it ends by itself.
        await log("debug", "--seconds", "3")
        over = "the log level of collab is as at the start: its time is over"
        await asyncio.to_thread(server.wait_for_log, lambda line: over in line)
        await edit("still quiet")
        # A signal does it too, where no database can be asked.
        os.kill(server.pid, signal.SIGUSR1)
        await asyncio.to_thread(server.wait_for_log, lambda line: "collab is debug for 600 s" in line)
        await edit("loud by signal")
        await asyncio.to_thread(server.wait_for_log, lambda line: frame.search(line) and "'loud by signal'" in line)
        os.kill(server.pid, signal.SIGUSR1)
        off = "the log level of collab is as at the start"
        await asyncio.to_thread(server.wait_for_log, lambda line: line.rstrip().endswith(off))
        await edit("quiet at last")
        assert await server.aterminate() == 0
        assert not [line for line in server.stderr.splitlines() if frame.search(line) and "quiet" in line]


@pytest.mark.parametrize(
    "words",
    [
        ["loud"],
        ["debug", "--logger", "sqlalchemy.engine"],
        ["debug", "--logger", "collab.\n"],
        ["debug", "--seconds", "0"],
        ["debug", "--seconds", "1e6"],
        ["debug", "--seconds", "nan"],
    ],
)
def test_what_is_no_log_level_is_asked_for_in_a_wrong_way(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    create("a", "hello")
    assert run(["log-level", *words]) == 2
    assert capfd.readouterr().out == ""


@pytest.mark.server
async def test_the_connections_of_a_running_server_are_listed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with ServerProcess(tmp_path / "data") as server:
        client = await RawClient(server.document_url("notes/\u00e4")).connect()
        other = await RawClient(server.document_url("b")).connect()
        for each in (client, other):
            await each.send(step2(text_update(1, "hello")))
            await each.barrier()
        given = ["--data-dir", str(tmp_path / "data")]
        capfd.readouterr()
        assert await asyncio.to_thread(run, ["connections", *given]) == 0
        head, *lines = capfd.readouterr().out.splitlines()
        assert head.split() == ["CONNECTION", "SINCE", "PROTOCOL", "ADDRESS", "WAITING", "USER", "DOCUMENTS"]
        shown = [line.split() for line in lines]
        assert [words[2:] for words in shown] == [
            ["y-websocket", "127.0.0.1", "0", "-", "'notes/\u00e4'", "(admin)"],
            ["y-websocket", "127.0.0.1", "0", "-", "'b'", "(admin)"],
        ]
        assert await asyncio.to_thread(run, ["connections", "--document", "b", "--json", *given]) == 0
        found = json.loads(capfd.readouterr().out)
        (seen,) = found["connections"]
        assert found["silent"] == [] and found["more"] is False
        assert seen["id"] == shown[1][0] and f"this server is {seen['node']}" in server.stderr
        assert (seen["users"], seen["open"], seen["waiting_bytes"]) == ([], 1, 0)
        assert seen["documents"] == [{"document": "b", "access": "admin", "lagging": False}]
        assert await asyncio.to_thread(run, ["connections", "--node", "another", "--json", *given]) == 0
        assert json.loads(capfd.readouterr().out)["connections"] == []
        # The first column is what a kick takes.
        assert await asyncio.to_thread(run, ["kick", "--connection", seen["id"], *given]) == 0
        assert await other.expect_close() == 4503 and client.open
        for each in (client, other):
            await each.close()


def test_connections_where_no_server_runs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    create("a", "hello")
    capfd.readouterr()
    assert run(["connections"]) == 1
    assert "no server has answered" in capfd.readouterr().err
    assert run(["connections", "--json"]) == 1
    assert json.loads(capfd.readouterr().out) == {"connections": [], "silent": [], "more": False}
    assert run(["connections", "--user", ""]) == 2
