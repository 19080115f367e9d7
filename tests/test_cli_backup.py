"""The commands backup and restore: what they say, and what they refuse."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from collab.adapters import make_store
from collab.cli import run
from collab.settings import options
from collab.storage.checksums import seal_row
from collab.storage.records import Append
from tests.support.author import Author
from tests.support.sqlite import migrated


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A database with a document of three rows, a minute apart, in the directory ``one``."""
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.chdir(tmp_path)

    async def fill() -> None:
        store = make_store(migrated(Path("one")))
        await store.open()
        author = Author(5)
        rows = tuple(
            seal_row(author.type(text), 1_767_225_600.0 + 60 * at, "ann")
            for at, text in enumerate(("one", "two", "three"))
        )
        await store.append([Append("d", None, rows)])
        await store.close()

    asyncio.run(fill())


def command(*arguments: str, data: str = "one") -> int:
    return run([*arguments, "--data-dir", data])


def test_a_backup_and_a_restore_say_what_they_did(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("backup", "b.bak") == 0
    size = Path("b.bak").stat().st_size
    assert capfd.readouterr().out == f"1 documents with 3 rows are in b.bak: {size} bytes\n"
    assert command("restore", "b.bak", "--check") == 0
    assert capfd.readouterr().out.startswith("1 documents with 3 rows, whole, made 20")
    assert command("restore", "b.bak", data="two") == 0
    assert capfd.readouterr().out == "restored 1 documents with 3 rows\n"
    assert command("restore", "b.bak", data="two") == 1
    assert "--replace" in capfd.readouterr().err
    assert command("restore", "b.bak", "--replace", "--json", data="two") == 0
    assert json.loads(capfd.readouterr().out)["rows"]["log"] == 3


def test_all_of_it_as_of_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("backup", "b.bak", "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["file"] == "b.bak" and facts["sealed"] is False and facts["rows"]["documents"] == 1
    assert command("restore", "b.bak", "--at", "2026-01-01T00:01:30Z", data="two") == 0
    assert "1 without their later rows" in capfd.readouterr().out
    assert command("documents", "show", "d", "--json", data="two") == 0
    assert json.loads(capfd.readouterr().out)["content"] == {"t": "onetwo"}
    assert command("restore", "b.bak", "--at", "yesterday", data="three") == 2
    assert command("restore", "b.bak", "--at", "2100-01-01", data="three") == 1
    assert "made before the time" in capfd.readouterr().err


def test_through_a_pipe_and_sealed(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("key").write_bytes(b"k" * 32)
    assert command("backup", "-", "--key-file", "key") == 0
    out, err = capfdbinary.readouterr()
    assert b"1 documents with 3 rows are in standard output" in err and b"three" not in out
    Path("b.bak").write_bytes(out)
    with Path("b.bak").open("rb") as source:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": source}))
        assert command("restore", "-", "--key-file", "key", data="two") == 0
    for arguments, said in (
        ((), b"--key-file"),
        (("--key-file", "none"), b"cannot read none"),
        (("--key-file", "b.bak"), b"another key"),
    ):
        capfdbinary.readouterr()
        assert command("restore", "b.bak", *arguments, data="three") == 1
        assert said in capfdbinary.readouterr().err
    Path("key").write_bytes(b"short")
    assert command("backup", "other.bak", "--key-file", "key") == 2
    assert b"openssl rand" in capfdbinary.readouterr().err and not Path("other.bak").exists()


def test_single_documents(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("backup", "b.bak") == 0
    assert command("migrate", data="two") == 0
    for result in ("1 documents created, 0 got a version", "0 documents created, 1 got a version"):
        capfd.readouterr()
        assert command("restore", "b.bak", "--prefix", "d", data="two") == 0
        assert result in capfd.readouterr().out
    assert command("restore", "b.bak", "--prefix", "x", "--json", data="two") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == {"created": 0, "version": 0, "failed": 0}
    assert command("restore", "b.bak", "--prefix", "d", "--replace", data="two") == 2


def test_what_cannot_be_saved_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert command("backup", "b.bak", data="none") == 2
    assert "there is no database" in capfd.readouterr().err and not Path("none").exists()
    assert command("backup", "no/b.bak") == 1
    assert "cannot write no/b.bak" in capfd.readouterr().err
    Path("text").write_text("hello")
    assert command("restore", "text", data="two") == 1
    assert "not a backup" in capfd.readouterr().err
