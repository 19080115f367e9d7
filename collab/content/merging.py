"""What a rich text becomes when a format that cannot say everything of it is to show something else.

Strategy: Markdown knows no colours, no comments, no embedded videos, and HTML as it is written here few more. So what
the document holds is first seen through the format (`canonical`, `seen`), and compared with what it shall look like.
Blocks that look the same stay as they are, with all that the format does not see. Blocks that belong together get what
the format says, and keep what it cannot say: attributes, marks of text that stays, elements that are not seen at all.
The result is a whole tree, which is then written by exact difference (`collab.content.nodes`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from collab.content.difference import Hunk, Work, compare, compare_texts
from collab.content.edits import Dialect
from collab.content.matching import pair
from collab.content.schema import (
    BLOCKS,
    INLINES,
    PARTS,
    TEXTBLOCKS,
    Coverage,
    camel_mark,
    camel_name,
    canonical_attributes,
    canonical_mark,
    canonical_piece,
    own_key,
    own_mark,
    spoken,
)
from collab.content.tree import Element, Keys, Node, Piece, TextNode, block_text, joined, text_of
from collab.content.values import same

Look = Callable[[Node], list[Node]]
"""Return what a format shows of a block: as its reader gives it, in Tiptap's names."""


def merge(
    current: Sequence[Node],
    target: Sequence[Node],
    coverage: Coverage,
    look: Look,
    dialect: Dialect,
    work: Work,
) -> list[Node]:
    """Return the tree that looks like ``target`` in a format and is otherwise what the document holds.

    Args:
        current: what the document holds.
        target: what the format shall show, in Tiptap's names, as its reader gives it.
        coverage: what the format can say.
        look: how a block of the document is seen.
        dialect: the names for what is new.
        work: may be spent on differences.
    """
    return _Merger(coverage, look, dialect, work).blocks(current, target)


def _is_empty(node: Node) -> bool:
    return isinstance(node, Element) and camel_name(node.name) == "paragraph" and not node.children


def seen(nodes: Sequence[Node], coverage: Coverage) -> list[Node]:
    """Return a tree as a format sees it: known elements alone, in Tiptap's names, with what the format can say."""
    return [block for node in nodes for block in _seen_block(node, coverage)]


def from_text(text: str) -> list[Node]:
    """Return plain text as paragraphs: an empty line ends one, a single line break stays one."""
    paragraphs: list[Node] = []
    for part in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        children: list[Node] = []
        for number, line in enumerate(part.strip("\n").split("\n")):
            if number:
                children.append(Element("hardBreak"))
            if line:
                children.append(TextNode([Piece(line)]))
        paragraphs.append(Element("paragraph", {}, children))
    return paragraphs if text else []


def _seen_block(node: Node, coverage: Coverage) -> list[Node]:
    if coverage is Coverage.TEXT:
        text = block_text(node)
        return from_text(text) if text else [Element("paragraph")] if text == "" else []
    if isinstance(node, TextNode):
        inline = _seen_inline([node], coverage)
        return [Element("paragraph", {}, inline)] if inline else []
    name = camel_name(node.name)
    if name in TEXTBLOCKS:
        return [Element(name, canonical_attributes(node, coverage), _seen_inline(node.children, coverage))]
    if name in BLOCKS:
        children = [block for child in node.children for block in _seen_block(child, coverage)]
        return [Element(name, canonical_attributes(node, coverage), children)]
    if name in INLINES:
        return [Element(name, canonical_attributes(node, coverage))]
    if any(isinstance(child, TextNode) for child in node.children):
        inline = _seen_inline(node.children, coverage)
        return [Element("paragraph", {}, inline)] if inline else []
    return [block for child in node.children for block in _seen_block(child, coverage)]


def _seen_inline(nodes: Sequence[Node], coverage: Coverage) -> list[Node]:
    """Return what a format sees in a line: texts are joined, and what is not known is its content."""
    found: list[Node] = []
    for node in nodes:
        if isinstance(node, TextNode):
            pieces = [canonical_piece(piece, coverage) for piece in node.pieces if piece.is_text]
            last = found[-1] if found else None
            if isinstance(last, TextNode):
                found[-1] = TextNode(joined([*last.pieces, *pieces]))
            elif pieces:
                found.append(TextNode(joined(pieces)))
        elif camel_name(node.name) in INLINES:
            found.append(Element(camel_name(node.name), canonical_attributes(node, coverage)))
        else:
            for inner in _seen_inline(node.children, coverage):
                last = found[-1] if found else None
                if isinstance(inner, TextNode) and isinstance(last, TextNode):
                    found[-1] = TextNode(joined([*last.pieces, *inner.pieces]))
                else:
                    found.append(inner)
    return found


def _are_alike(node: Node, view: Node) -> bool:
    """Tell whether a part of what is seen of a block is what is seen of a child of it."""
    return isinstance(node, Element) and isinstance(view, Element) and camel_name(node.name) == view.name


class _Merger:
    def __init__(self, coverage: Coverage, look: Look, dialect: Dialect, work: Work) -> None:
        self.coverage = coverage
        self.look = look
        self.dialect = dialect
        self.work = work
        self.keys = Keys()
        self._alive: list[Node] = []

    def key(self, node: Node) -> int:
        # A key is remembered by the node's identity, so the node has to stay.
        self._alive.append(node)
        return self.keys.of(node)

    def blocks(
        self, current: Sequence[Node], target: Sequence[Node], views: list[list[Node]] | None = None
    ) -> list[Node]:
        """Merge siblings; ``views`` is what is seen of each that is there, where that is known."""
        if views is None:
            views = [self._view(node) for node in current]
        flat = [block for view in views for block in view]
        matched: dict[int, int] = {}
        at = new_at = 0
        hunks = compare([self.key(node) for node in flat], [self.key(node) for node in target], self.work)
        for hunk in hunks:
            matched.update((at + i, new_at + i) for i in range(hunk.start - at))
            at, new_at = hunk.stop, hunk.new_stop
        matched.update((at + i, new_at + i) for i in range(len(flat) - at))
        first = [0] * (len(views) + 1)
        for number, view in enumerate(views):
            first[number + 1] = first[number] + len(view)
        # Where in the target each node that stays lies; one that is seen as several stays whole or not at all.
        places: dict[int, tuple[int, int]] = {}
        for number, view in enumerate(views):
            found = [matched.get(first[number] + offset) for offset in range(len(view))]
            start = found[0] if found else None
            if start is not None and found == list(range(start, start + len(view))):
                places[number] = (start, start + len(view))
        kept = dict(places)
        self._pair_rest(current, target, views, places)
        return self._put_together(current, target, views, places, kept)

    def _view(self, node: Node) -> list[Node]:
        """Return what the format shows of a node; parts of lists and tables are not shown by themselves."""
        if isinstance(node, Element) and camel_name(node.name) in PARTS:
            return _seen_block(node, self.coverage)
        return self.look(node)

    def _pair_rest(
        self,
        current: Sequence[Node],
        target: Sequence[Node],
        views: Sequence[Sequence[Node]],
        places: dict[int, tuple[int, int]],
    ) -> None:
        """Find which of the nodes between those that stay become which."""
        borders = [(-1, (0, 0)), *sorted(places.items()), (len(current), (len(target), len(target)))]
        for (before, (_, low)), (behind, (high, _)) in zip(borders, borders[1:], strict=False):
            free = [
                (number, as_seen)
                for number in range(before + 1, behind)
                if (as_seen := self._changeable(current[number], views[number])) is not None
            ]
            for i, j in pair([as_seen for _, as_seen in free], target[low:high], self.work):
                places[free[i][0]] = (low + j, low + j + 1)

    def _changeable(self, node: Node, view: Sequence[Node]) -> Node | None:
        """Return how a node is seen that can become what a format says of it; None if it cannot."""
        if not isinstance(node, Element) or camel_name(node.name) not in BLOCKS | INLINES:
            return None
        if not view and _is_empty(node):
            return Element("paragraph")  # Markdown does not show it; text that comes may use it
        if len(view) != 1 or not isinstance(view[0], Element) or view[0].name != camel_name(node.name):
            return None
        return view[0]

    def _put_together(
        self,
        current: Sequence[Node],
        target: Sequence[Node],
        views: Sequence[Sequence[Node]],
        places: dict[int, tuple[int, int]],
        kept: dict[int, tuple[int, int]],
    ) -> list[Node]:
        result: list[Node] = []
        at = 0
        for number, node in enumerate(current):
            if number in places:
                start, stop = places[number]
                result += spoken(target[at:start], self.dialect)
                at = stop
                result.append(node if number in kept else self._block(node, target[start], views[number]))
            elif not views[number]:
                result.append(node)  # the format cannot say it, so it cannot take it away
        return result + spoken(target[at:], self.dialect)

    def _block(self, node: Node, target: Node, view: Sequence[Node]) -> Node:
        assert isinstance(node, Element) and isinstance(target, Element)
        attributes = self._attributes(node, target)
        if camel_name(node.name) in TEXTBLOCKS:
            return Element(node.name, attributes, self._line(node.children, target.children))
        parts = view[0].children if view and isinstance(view[0], Element) else []
        views = None
        if len(parts) == len(node.children) and all(map(_are_alike, node.children, parts)):
            views = [[part] for part in parts]
        return Element(node.name, attributes, self.blocks(node.children, target.children, views))

    def _attributes(self, node: Element, target: Element) -> dict[str, Any]:
        """Return the attributes that a node has, with what the format says of it."""
        name = camel_name(node.name)
        attributes = dict(node.attributes)
        before = canonical_attributes(node, self.coverage)
        for element, key in self.coverage.attributes:
            if element != name or same(before.get(key), target.attributes.get(key)):
                continue
            for own in (key, own_key(name, key, Dialect.PROSEMIRROR)):
                attributes.pop(own, None)
            if key in target.attributes:
                attributes[own_key(name, key, self.dialect)] = target.attributes[key]
        return attributes

    # Lines: texts and what stands in them

    def _line(self, current: Sequence[Node], target: Sequence[Node]) -> list[Node]:
        """Return the children of a block that holds text."""
        signs = _Signs(self.keys, self._alive)
        old, new = _Line(signs), _Line(signs)
        for node in current:
            old.add(node, self.coverage)
        for node in target:
            new.add(node, self.coverage)
        result = _Output()
        at = new_at = 0
        hunks = compare_texts(old.text, new.text, self.work)
        for hunk in [*hunks, Hunk(len(old.text), len(old.text), len(new.text), len(new.text))]:
            self._keep(old, new, at, hunk.start, new_at, result)
            # What is not seen stays, though the text around it goes.
            for place in range(hunk.start, hunk.stop):
                for node in old.unseen.get(place, ()):
                    result.put(node)
            self._add(new, hunk.new_start, hunk.new_stop, result)
            at, new_at = hunk.stop, hunk.new_stop
        for node in old.unseen.get(len(old.text), ()):
            result.put(node)
        return result.done()

    def _keep(self, old: _Line, new: _Line, at: int, stop: int, new_at: int, result: _Output) -> None:
        """Put what both have in common: what is there, with the marks that the format says."""
        shift = new_at - at
        while at < stop:
            for node in old.unseen.get(at, ()):
                result.put(node)
            here, there = old.entries[at], new.entries[at + shift]
            end = at + 1
            if isinstance(here, _Part):
                # An element that the format sees as its text: it stays if all of that does.
                end = min(stop, at - here.offset + here.size)
                if here.offset == 0 and end - at == here.size:
                    result.put(here.node)
                else:
                    self._add(new, at + shift, end + shift, result)
            elif isinstance(here, Element):
                result.put(here)
            else:
                while (
                    end < stop
                    and end not in old.unseen
                    and old.entries[end] is here
                    and new.entries[end + shift] is there
                ):
                    end += 1
                assert isinstance(there, dict)
                result.put(Piece(old.text[at:end], self._marks(here, there)))
            at = end

    def _add(self, new: _Line, start: int, stop: int, result: _Output) -> None:
        """Put what is new, in the names of the dialect."""
        while start < stop:
            entry = new.entries[start]
            end = start + 1
            if isinstance(entry, dict):
                while end < stop and new.entries[end] is entry:
                    end += 1
                result.put(Piece(new.text[start:end], self._marks({}, entry)))
            else:
                assert isinstance(entry, Element)
                result.put(spoken([entry], self.dialect)[0])
            start = end

    def _marks(self, own: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """Return the marks of a text: those that the format cannot say, and those that it says."""
        marks = {name: value for name, value in own.items() if camel_mark(name) not in self.coverage.marks}
        for name, value in wanted.items():
            held = [key for key in own if camel_mark(key) == name and same(canonical_mark(name, own[key]), value)]
            if held:
                marks.update((key, own[key]) for key in held)
            else:
                marks[own_mark(name, self.dialect)] = value
        return marks


class _Part:
    """One character of an element that a format sees as its text."""

    __slots__ = ("node", "offset", "size")

    def __init__(self, node: Element, offset: int, size: int) -> None:
        self.node = node
        self.offset = offset
        self.size = size


class _Signs:
    """Signs for elements that stand in a line: halves of surrogate pairs, which no text holds."""

    def __init__(self, keys: Keys, alive: list[Node]) -> None:
        self._keys = keys
        self._alive = alive
        self._numbers: dict[int, int] = {}

    def sign(self, seen_as: Element) -> str:
        self._alive.append(seen_as)
        number = self._numbers.setdefault(self._keys.of(seen_as), len(self._numbers))
        # Beyond, some different ones have the same sign: no text is lost, one is taken for the other.
        return chr(0xD800 + number % 2048)


class _Line:
    """A line as a string, with what each character of it is.

    Attributes:
        text: elements are one sign each.
        entries: of each character the marks of its text, the element, or a part of one.
        unseen: what stands before a character and is not seen by the format.
    """

    def __init__(self, signs: _Signs) -> None:
        self._signs = signs
        self._parts: list[str] = []
        self.entries: list[dict[str, Any] | Element | _Part] = []
        self.unseen: dict[int, list[Node]] = {}

    @property
    def text(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def add(self, node: Node, coverage: Coverage) -> None:
        if isinstance(node, TextNode):
            for piece in node.pieces:
                if piece.is_text:
                    self._parts.append(piece.content)
                    self.entries += [piece.attributes] * len(piece.content)
                else:
                    self.unseen.setdefault(len(self.entries), []).append(TextNode([piece]))
            return
        if camel_name(node.name) in INLINES:
            self._parts.append(self._signs.sign(Element(camel_name(node.name), canonical_attributes(node, coverage))))
            self.entries.append(node)
            return
        text = "".join(
            self._signs.sign(inner) if isinstance(inner, Element) else text_of(inner.pieces)
            for inner in _seen_inline(node.children, coverage)
        )
        if not text:
            self.unseen.setdefault(len(self.entries), []).append(node)
        self._parts.append(text)
        self.entries += [_Part(node, offset, len(text)) for offset in range(len(text))]


class _Output:
    """The children of a block, put one behind the other."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._pieces: list[Piece] = []

    def put(self, node: Node | Piece) -> None:
        if isinstance(node, Piece):
            self._pieces.append(node)
        elif isinstance(node, TextNode):
            self._pieces += node.pieces
        else:
            self._close()
            self._nodes.append(node)

    def _close(self) -> None:
        pieces = joined(self._pieces)
        if pieces:
            self._nodes.append(TextNode(pieces))
        self._pieces = []

    def done(self) -> list[Node]:
        self._close()
        return self._nodes
