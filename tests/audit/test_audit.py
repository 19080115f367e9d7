"""What is written into the audit, how often, and what is kept of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import pytest

from collab.audit import Act, Audit, Group, Kind, Outcome, Who
from collab.audit.audit import MAX_KEPT
from collab.audit.entries import ABOUT, encode_entry
from collab.errors import Overloaded, StoreUnavailable, Unauthenticated
from collab.hub.audits import Audits, Wanted
from collab.hub.questions import Answers
from collab.protocol.session import Access
from tests.support.log_lines import PAGE

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxNyJ9.c2lnbmF0dXJlLW9mLWl0"


def newest(audit: Audit, group: Group | None = None) -> list[Any]:
    return sorted(audit.newest(group), key=lambda entry: entry.number)


def test_the_table_of_kinds_is_the_list_of_kinds() -> None:
    part = PAGE.read_text(encoding="utf-8").partition("\n## The audit log\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z-]+) \| (.+) \|$", part, re.MULTILINE)
    assert rows == [(kind.value, about.group.value, about.when) for kind, about in ABOUT.items()]
    assert list(ABOUT) == list(Kind)


def test_an_entry_holds_no_secret_and_no_text_that_is_long_or_forges_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    audit = Audit()
    hostile = Who("u\n" + "x" * 5_000, "203.0.113.7", "http", None, "\ud800", f"id\n?token={JWT}")
    audit.act(
        Act(Kind.KICK, "d\ncollab: x" + "y" * 5_000, f"\x1b[2J token={JWT} " + "z" * 5_000), Outcome.SUCCESS, hostile
    )
    audit.note(Unauthenticated(f"no good: {JWT}"), hostile, "d\r\nforged")
    for entry in newest(audit):
        line = encode_entry(entry, "node")
        assert line.isascii() and line.count(b"\n") == 1 and len(line) < 6_000
        assert JWT.encode() not in line
        json.loads(line)["collab.on_behalf_of"].encode()
    assert "\n" not in caplog.text.rstrip("\n").replace("\nINFO", "") and JWT not in caplog.text
    assert newest(audit)[0].detail.startswith("\\x1b[2J token=*** zzz") and newest(audit)[0].detail.endswith("…")


def test_refusals_have_a_rate_and_actions_have_none() -> None:
    audit = Audit()
    for number in range(200):
        audit.note(Unauthenticated("no token"), Who(address="203.0.113.7"))
        audit.note(Overloaded("full"), Who(address="203.0.113.7"))
        audit.act(Act(Kind.DOCUMENT_DELETED, f"d{number}"), Outcome.SUCCESS)
        audit.act(Act(Kind.DOCUMENT_DELETED, f"d{number}"), Outcome.FAILURE)
        audit.sign_in(lambda: Who("ada"), "d", Access.WRITE)
    counts = audit.entries
    assert 40 <= counts[Group.REFUSAL] < 100 and 20 <= counts[Group.SIGN_IN] < 60
    assert 220 <= counts[Group.ACTION] < 260, "what has failed has a rate"
    assert audit.refusals == {"Unauthenticated": 200} and audit.limits == {"Overloaded": 200}
    audit.flush()
    told = [entry for entry in newest(audit) if entry.left_out]
    assert sum(entry.left_out for entry in told) == 5 * 200 - sum(counts.values()) + len(told)
    assert "Overloaded: " in "".join(entry.detail for entry in told)


def test_sign_ins_are_left_out_and_lists_are_noted_once_a_minute_of_each_user() -> None:
    audit = Audit()
    audit.sign_ins = False
    audit.sign_in(lambda: Who("ada"), "d", Access.WRITE)
    for _ in range(10):
        for user in ("root", "ada"):
            audit.act(Act(Kind.CONNECTIONS_LISTED), Outcome.SUCCESS, Who(user))
        audit.act(Act(Kind.DOCUMENTS_EXPORTED), Outcome.SUCCESS, Who("root"))
    assert audit.entries == {Group.READ: 12}


def test_a_flood_of_refusals_leaves_actions_in_memory() -> None:
    audit = Audit()
    audit.act(Act(Kind.KICK), Outcome.SUCCESS)
    for number in range(3 * MAX_KEPT):
        audit.write(Kind.LIMIT, f"sort {number % 500}", "too much", Who(address="203.0.113.7"))
    assert len(newest(audit, Group.REFUSAL)) == MAX_KEPT
    assert [entry.kind for entry in newest(audit, Group.ACTION)] == [Kind.KICK]


def test_how_an_action_has_ended_is_noted() -> None:
    audit = Audit()
    with audit.acting(Act(Kind.DOCUMENT_DELETED, "a"), Who("ada")):
        pass
    with pytest.raises(StoreUnavailable), audit.acting(Act(Kind.DOCUMENT_DELETED, "b"), Who("ada")):
        raise StoreUnavailable("the store is away")
    with pytest.raises(KeyError), audit.acting(Act(Kind.DOCUMENT_DELETED, "c"), Who("ada")):
        raise KeyError("the content of somebody")
    with pytest.raises(KeyboardInterrupt), audit.acting(Act(Kind.DOCUMENT_DELETED, "d"), Who("ada")):
        raise KeyboardInterrupt
    with audit.acting(Act(Kind.DOCUMENT_DELETED, "e"), Who("ada")) as act:
        act.nothing = True
    assert [(entry.document, entry.outcome.value, entry.detail) for entry in newest(audit)] == [
        ("a", "success", ""),
        ("b", "failure", "the store is away"),
        ("c", "failure", "failed (KeyError)"),
        ("d", "unknown", ""),
    ]


# Of all nodes


class Bus:
    """Asks some nodes in one process, through JSON."""

    def __init__(self) -> None:
        self.nodes: dict[str, Audits] = {}
        self.silent: tuple[str, ...] = ()

    async def ask(self, asked: Mapping[str, Any]) -> Answers:
        said = {name: node.answer(json.loads(json.dumps(asked))) for name, node in self.nodes.items()}
        return Answers(
            json.loads(json.dumps({name: one for name, one in said.items() if one is not None})), self.silent
        )


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def audits(bus: Bus) -> dict[str, Audit]:
    clock = Clock()
    made = {name: Audit(clock) for name in ("a", "b")}
    for name, audit in made.items():
        bus.nodes[name] = Audits(audit, name, bus)  # type: ignore[arg-type]
    for number in range(50):
        clock.now += number % 3  # some have one time
        audit = made["ab"[number % 5 == 0]]
        audit.act(Act(Kind.DOCUMENT_DELETED, f"d{number}", "x" * 250), Outcome.SUCCESS, Who(f"u{number % 2}"))
    made["b"].note(Unauthenticated("no token"), Who(address="203.0.113.7", connection=7), "d1")
    return made


@pytest.mark.parametrize("limit", [1, 7, 200])
async def test_pages_hold_all_entries_of_all_nodes_the_newest_first(
    audits: dict[str, Audit], bus: Bus, limit: int
) -> None:
    found, before = [], None
    while True:
        page = await bus.nodes["a"].page(Wanted(), before, limit)
        assert len(page.items) <= limit
        found += page.items
        before = page.following
        if before is None:
            break
    assert len(found) == 51 and found == sorted(found, key=lambda told: told.place, reverse=True)
    assert {told.document for told in found} == {f"d{number}" for number in range(50)}
    refusal = next(told for told in found if told.kind == "sign-in-refused")
    assert (refusal.connection, refusal.outcome, refusal.address) == ("b-7", "failure", "203.0.113.7")


async def test_what_does_not_fit_into_an_answer_comes_with_later_pages(
    audits: dict[str, Audit], bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.hub.questions.FULL", 2_000)
    found, before, pages = [], None, 0
    while pages == 0 or before is not None:
        page = await bus.nodes["b"].page(Wanted(), before, 200)
        found, before, pages = found + page.items, page.following, pages + 1
    assert len(found) == 51 and pages > 10 and found == sorted(found, key=lambda told: told.place, reverse=True)


async def test_entries_are_chosen(audits: dict[str, Audit], bus: Bus) -> None:
    audits["a"].act(Act(Kind.KICK, target="u0"), Outcome.SUCCESS, Who("root", on_behalf_of="boss"))

    async def count(**wanted: Any) -> int:
        return len((await bus.nodes["a"].page(Wanted(**wanted), None, 200)).items)

    assert await count(kind="kick") == 1 and await count(kind="actions") == 51 and await count(kind="refusals") == 1
    assert await count(user="u1") == 25 and await count(user="u0") == 26, "the kick was of this one"
    assert await count(user="boss") == 1 and await count(document="d1") == 2
    assert await count(since=1_049.0) == 3
    bus.silent = ("c",)
    assert (await bus.nodes["a"].page(Wanted(), None, 1)).silent == ("c",)
    assert bus.nodes["a"].answer({"kind": "audit", "wanted": {"colour": "red"}, "before": None, "limit": 1}) is None
    assert bus.nodes["a"].answer({"kind": "presence"}) is None
