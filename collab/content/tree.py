"""A rich text as a tree: elements with attributes and children, and texts with formats.

Strategy: all formats of rich text meet here, so each needs one way to this tree and one back. It is what a
`Y.XmlFragment` holds: an element has a name and attributes, which are any JSON; a text has pieces, whose attributes are
the marks of ProseMirror.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from collab.content.edits import MAX_NODES, MAX_TREE_DEPTH
from collab.content.values import key_of, same
from collab.errors import InvalidEdit


@dataclass(slots=True)
class Piece:
    """A string, or something that stands in a text (an embed), with the formats that it has.

    ``content`` is a string if ``is_text``, else any JSON.
    """

    content: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    is_text: bool = True


@dataclass(slots=True)
class TextNode:
    """A text: pieces, none of them empty, neighbours with different formats."""

    pieces: list[Piece] = field(default_factory=list)


@dataclass(slots=True)
class Element:
    """An element of a tree."""

    name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)


Node = Element | TextNode


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbours with the same formats, and leave out what is empty."""
    result: list[Piece] = []
    for piece in pieces:
        if piece.is_text and not piece.content:
            continue
        last = result[-1] if result else None
        if last is not None and last.is_text and piece.is_text and same(last.attributes, piece.attributes):
            result[-1] = Piece(last.content + piece.content, last.attributes)
        else:
            result.append(piece)
    return result


def text_of(pieces: Iterable[Piece]) -> str:
    """Return the text of pieces, without what is no text."""
    return "".join(piece.content for piece in pieces if piece.is_text)


def piece_key(pieces: Iterable[Piece]) -> str:
    """Return a string that two texts have in common when they are the same."""
    return key_of([[piece.content, piece.attributes, piece.is_text] for piece in joined(pieces)])


class Keys:
    """Numbers for subtrees: two have the same when they are equal. Exact, and each subtree is looked at once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._known: dict[int, int] = {}

    def of(self, node: Node) -> int:
        """Return the number of a subtree; the node must live as long as this."""
        known = self._known.get(id(node))
        if known is None:
            shape: Any
            if isinstance(node, TextNode):
                shape = piece_key(node.pieces)
            else:
                shape = (node.name, key_of(node.attributes), tuple(map(self.of, node.children)))
            known = self._known[id(node)] = self._numbers.setdefault(shape, len(self._numbers))
        return known


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield all nodes of a tree, each level before the one below; however deep it is."""
    level = list(nodes)
    while level:
        yield from level
        level = [child for node in level if isinstance(node, Element) for child in node.children]


def check(nodes: list[Node], what: str) -> list[Node]:
    """Return a tree whose size and depth are within the bounds; raises InvalidEdit."""
    left = MAX_NODES
    level: list[Node] = list(nodes)
    depth = 0
    while level:
        left -= len(level)
        depth += 1
        if left < 0:
            raise InvalidEdit(f"{what} has more than {MAX_NODES} elements and texts")
        if depth > MAX_TREE_DEPTH:
            raise InvalidEdit(f"{what} nests more than {MAX_TREE_DEPTH} deep")
        level = [child for node in level if isinstance(node, Element) for child in node.children]
    return nodes


def plain_text(nodes: Iterable[Node]) -> str:
    """Return the text of a tree: blocks in lines of their own, an empty line between paragraphs."""
    return "\n\n".join(part for part in map(block_text, nodes) if part is not None)


# Breaks of lines and what else is no block, in both ways of naming.
_BREAKS = ("hardBreak", "hard_break")
# Blocks that follow each other, or whose blocks do, without an empty line.
_ITEMS = ("listItem", "list_item", "taskItem", "task_item")
_CELLS = ("tableCell", "table_cell", "tableHeader", "table_header")
_ROWS = ("tableRow", "table_row")
_LISTS = ("bulletList", "bullet_list", "orderedList", "ordered_list", "taskList", "task_list", "table")
_TIGHT = frozenset((*_ITEMS, *_CELLS, *_LISTS))


def block_text(node: Node) -> str | None:
    """Return the text of one block; None for one that holds none, as a line across the page."""
    if isinstance(node, TextNode):
        return text_of(node.pieces)
    if node.name in _BREAKS:
        return "\n"
    if any(isinstance(child, TextNode) or child.name in _BREAKS for child in node.children):
        return "".join(block_text(child) or "" for child in node.children)
    if not node.children:
        return None if node.name in ("horizontalRule", "horizontal_rule", "image") else ""
    parts = [part for part in map(block_text, node.children) if part is not None]
    if node.name in _ROWS:
        return "\t".join(parts)
    return ("\n" if node.name in _TIGHT else "\n\n").join(parts)
