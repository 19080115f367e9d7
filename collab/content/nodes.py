"""Write a tree into shared XML, so that what is equal stays.

Strategy: siblings that are equal stay as they are, those that belong together (`collab.content.matching`) are changed
inside: attributes by name, children in the same way, texts by their difference. The rest is deleted and made anew, from
the last sibling to the first, so that no index moves.
"""

from __future__ import annotations

from typing import Any

import pycrdt

from collab.content.difference import Hunk, compare
from collab.content.matching import pair
from collab.content.shared import nodes
from collab.content.structures import Writer
from collab.content.texts import write_text
from collab.content.tree import Element, Keys, Node, TextNode, joined, text_of
from collab.content.values import check_writable, same

Parent = pycrdt.XmlFragment | pycrdt.XmlElement


def write_nodes(parent: Parent, target: list[Node], writer: Writer) -> None:
    """Make XML show a tree, in the transaction that is open."""
    _write(parent, nodes(parent), target, Keys(), writer)


def _write(parent: Parent, current: list[Node], target: list[Node], keys: Keys, writer: Writer) -> None:
    hunks = compare([keys.of(node) for node in current], [keys.of(node) for node in target], writer.work)
    if not hunks:
        return
    children = list(parent.children)
    changes: list[Hunk] = []
    for hunk in hunks:
        at, new_at = hunk.start, hunk.new_start
        found = pair(current[hunk.start : hunk.stop], target[hunk.new_start : hunk.new_stop], writer.work)
        for i, j in found:
            old, new = hunk.start + i, hunk.new_start + j
            if old > at or new > new_at:
                changes.append(Hunk(at, old, new_at, new))
            _change(children[old], current[old], target[new], keys, writer)
            at, new_at = old + 1, new + 1
        if hunk.stop > at or hunk.new_stop > new_at:
            changes.append(Hunk(at, hunk.stop, new_at, hunk.new_stop))
    for change in reversed(changes):
        if change.stop > change.start:
            del parent.children[change.start : change.stop]
        for offset, node in enumerate(target[change.new_start : change.new_stop]):
            _make(parent, change.start + offset, node, writer)
            writer.inserted()


def _change(shared: Any, current: Node, target: Node, keys: Keys, writer: Writer) -> None:
    """Make a node show another one of its name."""
    if isinstance(current, TextNode):
        assert isinstance(target, TextNode)
        write_text(shared, target.pieces, writer.work)
        return
    assert isinstance(target, Element)
    for name in current.attributes:
        if name not in target.attributes:
            del shared.attributes[name]
    for name, value in target.attributes.items():
        if name not in current.attributes or not same(current.attributes[name], value):
            shared.attributes[name] = check_writable(value, "an attribute")
    _write(shared, current.children, target.children, keys, writer)


def _make(parent: Parent, at: int, node: Node, writer: Writer) -> None:
    """Insert a new node among the children of another one."""
    writer.made()
    if isinstance(node, TextNode):
        pieces = joined(node.pieces)
        plainly = all(piece.is_text and not piece.attributes for piece in pieces)
        text = parent.children.insert(at, pycrdt.XmlText(text_of(pieces) if plainly else ""))
        if not plainly:
            write_text(text, pieces, writer.work)
        return
    element = parent.children.insert(at, pycrdt.XmlElement(node.name))
    for name, value in node.attributes.items():
        element.attributes[name] = check_writable(value, "an attribute")
    for number, child in enumerate(node.children):
        _make(element, number, child, writer)
