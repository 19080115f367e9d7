"""The commands for many documents: files that go out come in again, and whatever is wrong with them is told."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from collab.cli import run
from collab.settings import options
from tests.support.wsclient import text_update


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in an empty directory, without the developer's options."""
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.chdir(tmp_path)


def lines(*names: str) -> str:
    return "".join(
        json.dumps({"name": name, "title": f"T {name}", "update": base64.b64encode(text_update(7, name)).decode()})
        + "\n"
        for name in names
    )


def use(monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.setenv("COLLAB_DATA_DIR", directory)


@pytest.mark.parametrize("file", ["all.tar", "all.ndjson"])
def test_documents_go_out_and_come_in_equal(
    file: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["a/1", "a/2", "../b", "ü😀"]
    Path("lines").write_text(lines(*names))
    use(monkeypatch, "one")
    assert run(["documents", "import-many", "lines"]) == 0
    assert capfd.readouterr().err.endswith("4 documents created, 0 were there already, 0 failed\n")
    assert run(["documents", "export-many", file]) == 0
    assert capfd.readouterr().err.endswith(f"exported 4 documents to {file}\n")
    assert Path(file).read_bytes()[257:262] == b"ustar" if file.endswith("tar") else True

    use(monkeypatch, "two")
    assert run(["documents", "import-many", file]) == 0
    assert run(["documents", "import-many", file]) == 0
    assert capfd.readouterr().err.endswith("0 documents created, 4 were there already, 0 failed\n")
    assert run(["documents", "export-many", "-"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [one["name"] for one in found[:-1]] == sorted(names, key=str.encode)
    for one in found[:-1]:
        assert base64.b64decode(one["update"]) == text_update(7, one["name"]) and one["title"] == f"T {one['name']}"
    assert found[-1] == {"end": True, "documents": 4, "failed": 0}


def test_a_part_goes_out(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Path("lines").write_text(lines("a/1", "a/2", "a/3", "b"))
    assert run(["documents", "import-many", "lines"]) == 0
    capfdbinary.readouterr()
    assert run(["documents", "export-many", "-", "--prefix", "a/", "--after", "a/1", "--format", "tar"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capfdbinary.readouterr().out)) as archive:
        files = [archive.extractfile(member) for member in archive if member.name.endswith(".json")]
        heads = [json.loads(file.read()) for file in files if file is not None]
    assert [head.get("name") for head in heads] == ["a/2", "a/3", None]
    assert run(["documents", "export-many", "-", "--format", "zip"]) == 2
    assert b"--format is ndjson or tar" in capfdbinary.readouterr().err


def test_what_fails_is_told_by_name_and_the_others_come_in(capfd: pytest.CaptureFixture[str]) -> None:
    Path("lines").write_text(lines("a") + '{"name": "b\\u001b", "update": "AAAB"}\n' + lines("c"))
    assert run(["documents", "import-many", "lines"]) == 1
    told = capfd.readouterr().err
    assert "collab: document 2 (b\\x1b): invalid_update: " in told
    assert told.endswith("2 documents created, 0 were there already, 1 failed\n")
    assert run(["documents", "import-many", "lines"]) == 1
    assert capfd.readouterr().err.endswith("0 documents created, 2 were there already, 1 failed\n")


def test_a_file_that_breaks_off_is_told_with_what_came_before(capfd: pytest.CaptureFixture[str]) -> None:
    Path("lines").write_text(lines("a", "b"))
    assert run(["documents", "import-many", "lines"]) == 0
    assert run(["documents", "export-many", "all.tar"]) == 0
    capfd.readouterr()
    cut = Path("all.tar").read_bytes()[:-1024]
    Path("cut.tar").write_bytes(cut)
    assert run(["documents", "import-many", "cut.tar"]) == 1
    (complaint,) = capfd.readouterr().err.splitlines()
    assert complaint.startswith("collab: cut.tar: the archive breaks off")
    assert complaint.endswith("0 documents created, 2 were there already, 0 failed before")
    assert run(["documents", "import-many", "missing.tar"]) == 1
    assert "cannot read missing.tar" in capfd.readouterr().err


def test_a_terminal_is_shown_how_far_it_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    Path("lines").write_text(text := lines("a", "b"))
    assert run(["documents", "import-many", "lines"]) == 0
    size = len(text.encode())
    assert f"[{'#' * 30}] {size} of {size}  2 documents" in capsys.readouterr().err
    assert run(["documents", "export-many", "all.tar"]) == 0
    assert f"[{'#' * 15}{'-' * 15}] 1 of 2  a" in capsys.readouterr().err
