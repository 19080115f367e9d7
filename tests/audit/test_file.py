"""The file of the audit: whole lines, whoever else writes, renames, fills the disk, or was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from collab.audit import file as file_module
from collab.audit.file import AuditFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_stays_as_it_is(path: Path) -> None:
    AuditFile(path).append(b"{}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    AuditFile(path).append(b"{}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_bytes() == b"{}\n{}\n"


def test_a_file_that_was_renamed_or_removed_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = AuditFile(Path(path.name))
    file.append(b"1\n")
    path.rename(path.with_suffix(".1"))
    monkeypatch.chdir("/")  # the path was relative
    file.append(b"2\n")
    path.unlink()
    file.append(b"3\n")
    assert path.with_suffix(".1").read_bytes() == b"1\n" and path.read_bytes() == b"3\n"
    # As copytruncate does.
    os.truncate(path, 0)
    file.append(b"4\n")
    assert path.read_bytes() == b"4\n"


def test_what_a_full_disk_cuts_is_not_in_the_file(path: Path) -> None:
    file = AuditFile(path)
    file.append(b"1\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError) as refused:
            file.append(b"x" * (2 << 20) + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG and path.read_bytes() == b"1\n"
    file.append(b"2\n")
    assert path.read_bytes() == b"1\n2\n"


def test_a_line_that_somebody_was_killed_in_is_ended(path: Path) -> None:
    path.write_bytes(b'{"half')
    AuditFile(path).append(b"{}\n")
    assert path.read_bytes() == b'{"half\n{}\n'


def test_lines_of_several_writers_stay_whole(path: Path) -> None:
    def write(letter: bytes) -> None:
        file = AuditFile(path)
        for _ in range(50):
            file.append(letter * 9_000 + b"\n")
        file.close()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 150 and {len(line) for line in lines} == {9_000}
    assert {bytes(set(line)) for line in lines} == {b"a", b"b", b"c"}


def test_one_who_was_stopped_with_the_lock_is_not_waited_for_without_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LOCK_SECONDS", 0.05)
    file = AuditFile(path)
    file.append(b"1\n")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process has locked it"):
            file.append(b"2\n")
    file.append(b"3\n")
    assert path.read_bytes() == b"1\n3\n"


@pytest.mark.parametrize("what", ["directory", "pipe", "device", "missing"])
def test_what_is_no_file_is_refused(path: Path, what: str) -> None:
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    path = {"device": Path("/dev/null"), "missing": path / "audit.jsonl"}.get(what, path)
    with pytest.raises(OSError):
        AuditFile(path).open()
