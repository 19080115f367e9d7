"""Where tests put their files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support import scratch


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_files_are_in_memory_if_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "ROOM", 1)
    scratch.choose()
    # For this process, and for those that it starts.
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(tmp_path), str(tmp_path))


def test_a_small_memory_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "ROOM", 1 << 60)
    scratch.choose()
    assert "TMPDIR" not in os.environ and tempfile.gettempdir() != str(tmp_path)


def test_a_system_without_such_a_place_has_its_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path / "missing")
    scratch.choose()
    assert "TMPDIR" not in os.environ


def test_the_callers_choice_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch, "ROOM", 1)
    scratch.choose()
    assert tempfile.gettempdir() == str(tmp_path)


def test_the_path_of_a_socket_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    made = scratch.short_directory("collab-test-")
    try:
        assert len(str(made)) < 40
    finally:
        made.rmdir()
