"""Every snippet of README.md and of docs/ is run by a test, or stands here with the reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import snippets as module
from tests.support.snippets import DOCUMENTS, Key, snippets, taken

NOT_RUN = {
    Key("README.md", "How it is built", ""): "a drawing of the layers; lint-imports checks the layers",
    Key("docs/architecture.md", "Layers", ""): "a drawing of the layers; lint-imports checks the layers",
}
"""Snippets that nothing runs, each with the reason."""


def test_every_snippet_is_run_or_says_why_not() -> None:
    run = {key for _, key in taken()}
    there = {key for document in DOCUMENTS for key in snippets(document)}
    missing = there - run - NOT_RUN.keys()
    assert sorted(missing) == [], "nothing runs these: take them in a test (tests/support/snippets.py)"
    assert sorted(NOT_RUN.keys() - there) == [], "these are there no more"
    assert sorted(NOT_RUN.keys() & run) == [], "these are run"


def test_every_snippet_that_a_test_takes_is_there() -> None:
    assert [(place, key) for place, key in taken() if key not in snippets(key.document)] == []


def test_a_snippet_that_somebody_adds_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(
        "# Title\n\n```sh\nls\n```\n\n## Part\n\n- item\n\n  ```sh\n  pwd\n\n    x\n  ```\n\n```sh\n# no heading\n```\n"
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert snippets("page.md") == {
        Key("page.md", "Title", "sh"): "ls\n",
        Key("page.md", "Part", "sh"): "pwd\n\n  x\n",
        Key("page.md", "Part", "sh", 2): "# no heading\n",
    }
    with pytest.raises(AssertionError, match="no such snippet"):
        module.snippet("page.md", "Part", "js")
