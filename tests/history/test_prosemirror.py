"""Rich texts in author colours: what y-prosemirror itself renders of two snapshots, in JSON that its schema takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collab.history.attribution import Attribution, Owner, Row
from collab.history.encoding import encode_attribution
from collab.history.rows import Rows
from collab.history.tasks import Changes, Show, changes, show
from collab.history.tracing import trace
from collab.update.compact import compact
from collab.update.merge import merge_updates
from tests.support.node import DOCS_PACKAGES, NodeScript

pytestmark = pytest.mark.node

SESSIONS, STEPS = 12, 25
OWNERS = {100: Owner("ada", 0), 101: Owner("bob", 0)}


def rows_of(played: list[tuple[str, str]]) -> list[Row]:
    return [Row(at, bytes.fromhex(data), 1_000.0 * at, author) for at, (author, data) in enumerate(played, 1)]


def after(rows: list[Row]) -> bytes:
    """A document after rows, collected as a snapshot is."""
    return compact(merge_updates([row.data for row in rows])).data if rows else b"\0\0"


def users_of(node: dict[str, Any]) -> set[str | None]:
    """All users that changes in a document are charged to."""
    found = {change["user"] for change in [node.get("attrs", {}).get("ychange")] if change}
    found |= {mark["attrs"]["user"] for mark in node.get("marks", []) if mark["type"] == "ychange"}
    return found.union(*map(users_of, node.get("content", [])))


def test_changes_are_what_y_prosemirror_renders() -> None:
    with NodeScript("prosemirror.mjs", packages=DOCS_PACKAGES) as script:
        met = 0
        for played in script.call([["play", seed, STEPS] for seed in range(SESSIONS)]):
            rows = rows_of(played)
            for a, b in ((0, len(rows)), (len(rows) // 3, len(rows)), (len(rows) // 2, len(rows) // 2 + 3)):
                base, between = after(rows[:a]), Rows(rows[a:b])
                ours = json.loads(changes(Changes(base, between, OWNERS, "prosemirror")))["prosemirror"]
                given = json.loads(changes(Changes(base, between, OWNERS)))
                snapshots = [given[key] for key in ("base", "update", "prev_snapshot", "snapshot")]
                read, rendered = script.call([["read", ours], ["render", *snapshots]])
                assert read == rendered
                assert users_of(ours) <= {"ada", "bob"}
                met += "removed" in json.dumps(ours)
        assert met > SESSIONS


def test_who_wrote_what_is_a_document_of_the_schema() -> None:
    with NodeScript("prosemirror.mjs", packages=DOCS_PACKAGES) as script:
        for played in script.call([["play", seed, STEPS] for seed in range(100, 100 + SESSIONS)]):
            rows = rows_of(played)
            kept = encode_attribution(trace(b"\0\0", rows, OWNERS, Attribution()))
            ours = json.loads(show(Show(kept, after(rows), None, rich=True)))["prosemirror"]
            assert users_of(ours) == {"ada", "bob"}
            empty = json.loads(changes(Changes(after(rows), Rows(), OWNERS)))
            snapshots = [empty[key] for key in ("base", "update", "prev_snapshot", "snapshot")]
            read, rendered = script.call([["read", ours], ["render", *snapshots]])
            assert without_changes(read) == rendered


def without_changes(node: Any) -> Any:
    """Leave out who has changed what, and join texts that are alike then."""
    if "content" not in node and "marks" not in node and "attrs" not in node:
        return node
    node = dict(node)
    if "attrs" in node:
        node["attrs"] = {key: None if key == "ychange" else value for key, value in node["attrs"].items()}
    marks = [mark for mark in node.pop("marks", []) if mark["type"] != "ychange"]
    if marks:
        node["marks"] = marks
    children: list[Any] = []
    for child in map(without_changes, node.pop("content", [])):
        last = children[-1] if children else {}
        if child["type"] == last.get("type") == "text" and child.get("marks") == last.get("marks"):
            last["text"] += child["text"]
        else:
            children.append(child)
    if children:
        node["content"] = children
    return node
