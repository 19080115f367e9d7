"""The writer of the audit: it waits for a disk, and nobody waits for it; what it loses is counted and said."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collab.audit import Audit
from collab.audit import writer as writer_module
from collab.audit.entries import Act, Group, Kind, Outcome, Who, make_entry
from collab.audit.writer import AuditWriter
from collab.errors import ConfigurationError, Unauthenticated


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    directory.mkdir()
    return directory


@pytest.fixture
def writer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuditWriter]:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 8)
    monkeypatch.setattr(writer_module, "_RESERVED", 2)
    writer = AuditWriter(directory / "audit.jsonl", "node", retry_seconds=0.01)
    writer.start()
    yield writer
    writer.close(5)


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.005)


def entries(directory: Path, name: str = "audit.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_bytes().splitlines()]


def entry(kind: Kind, number: int = 1) -> Any:
    return make_entry(
        1777886047.3125, number, kind, Outcome.SUCCESS, f"number {number}", Who("17", "203.0.113.7"), "plan"
    )


def test_entries_are_written_as_the_log_in_json_is(writer: AuditWriter, directory: Path) -> None:
    assert writer.put(entry(Kind.DOCUMENT_DELETED))
    assert writer.close(5) == [] and writer.written == 1 and writer.waiting == 0
    (found,) = entries(directory)
    assert found.pop("process.pid") > 0
    assert found == {
        "@timestamp": "2026-05-04T09:14:07.312Z",
        "log.level": "info",
        "message": "number 1",
        "ecs.version": "8.17.0",
        "log.logger": "collab.audit",
        "service.name": "collab",
        "service.node.name": "node",
        "event.kind": "event",
        "event.dataset": "collab.audit",
        "event.action": "document-deleted",
        "event.outcome": "success",
        "collab.group": "actions",
        "user.id": "17",
        "client.address": "203.0.113.7",
        "collab.document": "plan",
    }
    assert not writer.put(entry(Kind.DOCUMENT_DELETED)) and writer.lost[Group.ACTION] == 1


def test_it_goes_on_in_a_new_file_when_it_is_told_to(writer: AuditWriter, directory: Path) -> None:
    writer.put(entry(Kind.KICK))
    until(lambda: writer.written == 1)
    (directory / "audit.jsonl").rename(directory / "audit.jsonl.1")
    writer.reopen()
    until(lambda: (directory / "audit.jsonl").exists())
    assert len(entries(directory, "audit.jsonl.1")) == 1 and entries(directory) == []


def test_what_cannot_be_written_waits_and_what_finds_no_place_is_counted(
    writer: AuditWriter, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = directory.rename(directory.with_name("away"))
    taken = [writer.put(entry(Kind.SIGN_IN_REFUSED, number)) for number in range(10)]
    assert taken == [True] * 6 + [False] * 4, "two places are kept for actions"
    taken = [writer.put(entry(Kind.DOCUMENT_DELETED, number)) for number in range(5)]
    assert taken == [True] * 2 + [False] * 3
    until(lambda: writer.failing)
    assert writer.lost == {Group.REFUSAL: 4, Group.ACTION: 3}
    assert any(" cannot be written, and " in text and "No such file" in text for text in caplog.messages)
    away.rename(directory)
    until(lambda: writer.written == 9)
    *found, lost = entries(directory)
    assert [one["event.action"] for one in found] == ["sign-in-refused"] * 6 + ["document-deleted"] * 2
    assert lost["event.action"] == "entries-lost" and lost["message"] == "not in this file: 3 actions, 4 refusals"
    assert any("is written again; 7 entries were lost" in text for text in caplog.messages)


def test_actions_that_find_no_place_are_in_the_log(
    writer: AuditWriter, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    directory.rename(directory.with_name("away"))
    audit = Audit()
    audit.write_to(writer)
    for number in range(10):
        audit.act(Act(Kind.DOCUMENT_DELETED, f"d{number}"), Outcome.SUCCESS, Who("ada"))
        audit.note(Unauthenticated("no token"), Who(address="203.0.113.7"))
    audit.close(0)
    lines = [text for text in caplog.messages if "document deleted" in text]
    assert sorted(lines) == [f"document deleted (user='ada' document='d{number}')" for number in range(10)]
    assert "sign-in refused" not in caplog.text
    assert any("are not in" in text for text in caplog.messages)


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--audit-log .*: No such file or directory"):
        AuditWriter(tmp_path / "missing" / "audit.jsonl").start()
