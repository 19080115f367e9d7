"""Rich text in the formats of text: what a document shows in one, and what it becomes when it is to show another.

Strategy: a format is a way to write a tree and a way to read one, and says what it can express. Whether a block of a
document is the same as one that was read is decided by writing and reading it: so a document that is written back as it
was read does not change, whatever the format leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from collab.content.difference import Work
from collab.content.edits import Dialect, Format
from collab.content.html import from_html, to_html
from collab.content.markdown import from_markdown, to_markdown
from collab.content.merging import from_text, merge
from collab.content.schema import Coverage, dialect_of, fit, has_images_in_lines, used_names
from collab.content.tree import Node, check, plain_text
from collab.content.values import check_text


class _Formatting(NamedTuple):
    write: Callable[[Sequence[Node]], str]
    read: Callable[[Any], list[Node]]
    coverage: Coverage


def _read_text(value: Any) -> list[Node]:
    return check(from_text(check_text(value, "the text")), "the text")


_FORMATS: Final = {
    Format.MARKDOWN: _Formatting(to_markdown, from_markdown, Coverage.MARKDOWN),
    Format.HTML: _Formatting(to_html, from_html, Coverage.HTML),
    Format.TEXT: _Formatting(plain_text, _read_text, Coverage.TEXT),
}


class RichText:
    """A text in a format, read and ready to be put into a document.

    Raises InvalidEdit when it cannot be read.
    """

    def __init__(self, format: Format, value: Any, dialect: Dialect | None) -> None:
        self._format = _FORMATS[format]
        self._value = value
        self._target = self._format.read(value)
        self._dialect = dialect

    def over(self, current: list[Node], work: Work) -> list[Node]:
        """Return what a document becomes that holds ``current``."""
        write, read, coverage = self._format
        if current and write(current) == self._value:
            return current
        dialect = dialect_of(current) or self._dialect or Dialect.TIPTAP
        images_in_lines = has_images_in_lines(current, dialect)
        used = used_names(current)

        def fitted(nodes: list[Node]) -> list[Node]:
            return fit(nodes, images_in_lines, dialect, used)

        target = fitted(self._target)
        # What is written in the same way is the same; only what else is there has to be read for being compared.
        known = {write([node]): [node] for node in target}

        def look(node: Node) -> list[Node]:
            text = write([node])
            if not text:
                return []
            return known.get(text) or fitted(read(text))

        return merge(current, target, coverage, look, dialect, work)


def show(format: Format, nodes: list[Node]) -> str:
    """Return what a document shows in a format of text."""
    return _FORMATS[format].write(nodes)
