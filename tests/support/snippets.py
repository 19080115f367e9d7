"""The snippets of the documents, for tests that run them.

Strategy: a test takes a snippet by the heading that it stands under (`snippet`) and does with it what a reader of the
document would do. The arguments of such a call are literals, so `taken` finds in the source of all tests which snippets
are run, and `tests/docs/test_every.py` names those that nothing runs.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
"""The documents whose snippets are run, as paths from the root of the repository."""

_FENCE = re.compile(r"^( *)```(\S*)")
_HEADING = re.compile(r"^#+ (.*)$")


class Key(NamedTuple):
    """Where a snippet stands. ``number`` counts from 1 those of one language under one heading.

    ``language`` is the word behind the fence, empty where there is none.
    """

    document: str
    heading: str
    language: str
    number: int = 1


@functools.cache
def snippets(document: str) -> dict[Key, str]:
    """Give all snippets of a document, each with its lines as they are between the fences."""
    found: dict[Key, str] = {}
    heading, opened, lines = "", None, list[str]()
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if opened is not None:
            if line.strip() != "```":
                lines.append(line.removeprefix(opened[1]))
                continue
            same = [key for key in found if (key.heading, key.language) == (heading, opened[2])]
            found[Key(document, heading, opened[2], len(same) + 1)] = "".join(f"{text}\n" for text in lines)
            opened, lines = None, []
        elif fence is not None:
            opened = fence
        elif (title := _HEADING.match(line)) is not None:
            heading = title[1]
    assert opened is None, f"{document}: the last fence is not closed"
    return found


def snippet(document: str, heading: str, language: str, number: int = 1) -> str:
    """Give one snippet; call it with literals, so that `taken` sees it."""
    key = Key(document, heading, language, number)
    assert key in snippets(document), f"no such snippet: {key}; there are {[*snippets(document)]}"
    return snippets(document)[key]


def taken() -> Iterator[tuple[str, Key]]:
    """Yield each call of `snippet` in the tests, as a place and the snippet that it takes."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "snippet(" not in source or "node_modules" in path.parts:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "snippet":
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield place, Key(*(ast.literal_eval(argument) for argument in node.args))
