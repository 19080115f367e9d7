"""Restoring versions where there is no way back from row to row, and what is noted before."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pycrdt import Doc, Map

from collab.errors import HistoryGone, InvalidEdit, NoSuchVersion, WrongContentType
from collab.hub import hub as hub_module
from collab.hub.compaction import CompactionPolicy
from collab.hub.rewinding import Rewinding, Rewound
from collab.hub.versions import HistoryOptions, Which
from collab.sandbox.inline import InlineSandbox
from collab.storage.versions import Reason
from tests.hub.conftest import Node, StartNode
from tests.hub.test_editing import ANN, Edits
from tests.hub.test_versions import WHEN, text_of, type_text
from tests.support.author import Author
from tests.support.waiting import eventually


def rewinding_of(node: Node) -> Rewinding:
    return Rewinding(node.hub, Edits(node).editing, node.sandbox)


async def restored(node: Node, which: Which) -> str:
    """Restore a state; give what the document holds then."""
    done = await rewinding_of(node).restore("d", which, ANN)
    assert done.changed
    return await text_of(node.hub.versions, "d", Which(number=done.number))


async def label_of(node: Node, number: int) -> str | None:
    document_id = (await node.store.describe("d")).document.id
    (row,) = await node.store.rows_after(document_id, number - 1, 1)
    return None if row.note is None else row.note.label


async def test_a_pinned_version_whose_rows_are_gone_is_restored(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_PRUNE_PAUSE", 0.02)
    policy = CompactionPolicy(rows=2, nbytes=1 << 30, ratio=0.0)
    node = await start_node(sandbox=InlineSandbox(), history=1e-6, compaction=policy)
    await type_text(node, "d", "one")
    version = await node.hub.versions.make("d", "kept")
    clients = itertools.count(100)

    async def pinned() -> bool:
        await type_text(node, "d", "more", client=next(clients))
        return (await node.hub.versions.describe("d", version.id)).pinned

    await eventually(pinned, "the version is pinned")

    async def gone() -> bool:
        await type_text(node, "d", "more", client=next(clients))
        try:
            await node.hub.versions.state("d", Which(number=1))
        except HistoryGone:
            return True
        return False

    await eventually(gone, "the rows are pruned")
    for call in (
        rewinding_of(node).restore("d", Which(number=1), ANN),
        rewinding_of(node).changes("d", 1, None, "update", None),
        rewinding_of(node).undo("d", "ann", ANN, start=1),
        rewinding_of(node).undo("d", "ann", ANN, since=1.0),
    ):
        with pytest.raises(HistoryGone):
            await call
    assert await restored(node, Which(version=version.id)) == "one"


async def test_a_version_from_before_a_reset_comes_back_as_new_content(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox())
    await type_text(node, "d", "one", "two")
    version = await node.hub.versions.make("d", "v", number=1)
    await node.hub.resetting.reset("d")
    await type_text(node, "d", "new", client=9)
    assert await restored(node, Which(version=version.id)) == "one"
    assert await restored(node, Which(number=2)) == "onetwo"


async def test_an_imported_version_is_restored_with_roots_that_the_document_never_had(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox())
    await type_text(node, "d", "now")
    author = Author(7)  # the same client ID and clocks as what is there
    author.type("then")
    author.doc["meta"] = Map({"title": "old"})
    version = await node.hub.versions.import_("d", "v", author.doc.get_update(), WHEN)
    done = await rewinding_of(node).restore("d", Which(version=version.id), ANN)
    assert await label_of(node, done.number) == f"restore version={version.id}"
    state = await node.hub.versions.state("d", Which(number=done.number))
    reader = Author(0)
    reader.doc["meta"] = Map()
    reader.read(state.document.encode_state_as_update())
    assert (str(reader.text), reader.doc["meta"].to_py()) == ("then", {"title": "old"})
    assert not (await rewinding_of(node).restore("d", Which(version=version.id), ANN)).changed


async def test_a_root_that_is_of_another_type_is_not_exchanged(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox())
    await type_text(node, "d", "now")
    other: Doc[Any] = Doc()
    other["t"] = Map({"a": 1})
    version = await node.hub.versions.import_("d", "v", other.get_update(), WHEN)
    with pytest.raises(WrongContentType):
        await rewinding_of(node).restore("d", Which(version=version.id), ANN)


async def test_the_state_before_a_restore_and_an_undo_is_noted(start_node: StartNode) -> None:
    node = await start_node(sandbox=InlineSandbox(), histories=HistoryOptions(spacing=1e-9))
    await type_text(node, "d", "one", "two")
    rewinding = rewinding_of(node)

    async def noted(done: Rewound) -> bool:
        return [(each.seq, each.reason) for each in await node.hub.versions.list("d") if each.seq == done.before] == [
            (done.before, Reason.RESTORE)
        ]

    done = await rewinding.restore("d", Which(number=1), ANN)
    assert done.changed and await noted(done)
    assert await label_of(node, done.number) == "restore number=1"
    undone = await rewinding.undo("d", "ann", ANN, start=done.before)
    assert undone.changed and await noted(undone)
    assert await text_of(node.hub.versions, "d", Which(number=undone.number)) == "onetwo"
    assert not (await rewinding.restore("d", Which(number=2), ANN)).changed
    with pytest.raises(NoSuchVersion):
        await rewinding.restore("d", Which(version=10**6), ANN)
    with pytest.raises(HistoryGone):
        await rewinding.restore("d", Which(number=10**6), ANN)
    with pytest.raises(InvalidEdit):
        await rewinding.undo("d", "ann", ANN, start=2, end=1)
