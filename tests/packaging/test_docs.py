"""What comments and documents point to exists: files, decisions, tests."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

# Built or installed, so not there in a fresh clone.
_NOT_OURS = ("node_modules", "dist")

# A path below docs/, or a Markdown file anywhere, from the root of the repository.
_CITED = re.compile(r"(?<![\w/.-])(?:docs/[\w./-]*\w|[\w./-]+\.md)\b")
_SCRIPT_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|<!--.*?-->", re.DOTALL)


def sources(*suffixes: str) -> list[Path]:
    found = [
        path
        for folder in ("collab", "tests", "migrations", "web_demo")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and not set(_NOT_OURS) & set(path.relative_to(ROOT).parts)
    ]
    assert found
    return found


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and docstrings of a Python file, each with its line."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        # Strings that stand alone: docstrings, and those behind a constant.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def exists(cited: str) -> bool:
    """Tell whether a path from the root exists; of a decision its number is enough."""
    number = re.fullmatch(r"docs/decisions/(\d{4})", cited)
    if number:
        return len(list(DECISIONS.glob(f"{number[1]}-*.md"))) == 1
    return (ROOT / cited).exists()


@pytest.mark.slow
def test_comments_cite_what_is_in_the_repository() -> None:
    cited = [
        (f"{path.relative_to(ROOT)}:{line}", name)
        for path in sources(".py")
        if _CITED.search(path.read_text(encoding="utf-8"))  # most cite nothing, and to read their prose takes long
        for line, text in prose(path)
        for name in _CITED.findall(text)
    ]
    assert [where for where in cited if not exists(where[1])] == []
    # Else the pattern would find nothing, and all would be well for ever.
    assert any(name.startswith("docs/decisions/") for _, name in cited)


def test_scripts_and_what_builds_them_cite_what_is_in_the_repository() -> None:
    texts = {
        path: " ".join(_SCRIPT_COMMENT.findall(path.read_text(encoding="utf-8")))
        for path in sources(".mjs", ".js", ".ts", ".tsx", ".css", ".html")
    }
    texts |= {path: path.read_text(encoding="utf-8") for path in (ROOT / "pyproject.toml", ROOT / "Makefile")}
    cited = [(str(path.relative_to(ROOT)), name) for path, text in texts.items() for name in _CITED.findall(text)]
    assert [where for where in cited if not exists(where[1])] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\((?!https?:)([^)\s]*)\)", text)]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_decision_says_what_it_should_and_its_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem[:4]}: ")
    parts = ["**Context.**", "**Decision.**", "**Consequences.**", "**Tests.**"]
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    files = re.findall(r"`((?:collab|tests|docs)/[\w./-]+)`", text)
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert any(name.startswith("tests/") for name in re.findall(r"`(tests/[\w./-]+)`", text[places[-1] :]))
    assert len([line for line in text.splitlines() if line[:1] != "|"]) <= 45, (
        "a page is about a screen, and its tables"
    )


def test_every_decision_is_listed_once_and_numbers_are_not_used_twice() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[\d{4}\]\((\S+)\)", index, re.MULTILINE) == [page.name for page in PAGES]
    numbers = [page.name[:4] for page in PAGES]
    assert numbers == [f"{number:04}" for number in range(1, len(PAGES) + 1)]
