"""What the formats of text know of rich text: names of elements and marks, and what links may be.

Strategy: editors name the same things in two ways, Tiptap in camel case and the basic schema of ProseMirror in snake
case, with other names for two marks. Here all is in Tiptap's names; a `Dialect` translates, and which one a document
speaks is seen by what is in it. An element that is not named here is shown by its content and otherwise left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final

from collab.content.edits import Dialect
from collab.content.tree import Element, Node, Piece, TextNode, joined, walk

BLOCKS: Final = frozenset(
    (
        "paragraph",
        "heading",
        "bulletList",
        "orderedList",
        "listItem",
        "taskList",
        "taskItem",
        "blockquote",
        "codeBlock",
        "horizontalRule",
        "table",
        "tableRow",
        "tableCell",
        "tableHeader",
    )
)
INLINES: Final = frozenset(("hardBreak", "image"))
TEXTBLOCKS: Final = frozenset(("paragraph", "heading", "codeBlock"))
LISTS: Final = frozenset(("bulletList", "orderedList", "taskList"))
ITEMS: Final = frozenset(("listItem", "taskItem"))
PARTS: Final = frozenset(("listItem", "taskItem", "tableRow", "tableCell", "tableHeader"))
"""Blocks that stand in others of certain kinds alone."""
CELLS: Final = frozenset(("tableCell", "tableHeader"))
MARKS: Final = ("link", "bold", "italic", "strike", "underline", "highlight", "code")
"""The marks that formats know, from the outermost to the innermost."""

_SNAKE: Final = {name: re.sub("([A-Z])", lambda found: "_" + found.group().lower(), name) for name in BLOCKS | INLINES}
_SNAKE_MARKS: Final = {"bold": "strong", "italic": "em"}
_CAMEL: Final = {snake: camel for camel, snake in _SNAKE.items()}
_CAMEL_MARKS: Final = {snake: camel for camel, snake in _SNAKE_MARKS.items()}
# (element, attribute) in Tiptap's names -> what the other dialect calls it.
_SNAKE_ATTRIBUTES: Final = {("orderedList", "start"): "order", ("codeBlock", "language"): "params"}
_CAMEL_ATTRIBUTES: Final = {(name, other): here for (name, here), other in _SNAKE_ATTRIBUTES.items()}

# An attribute that says no more than its absence does.
_DEFAULTS: Final = {
    ("orderedList", "start"): 1,
    ("taskItem", "checked"): False,
    ("tableCell", "colspan"): 1,
    ("tableCell", "rowspan"): 1,
    ("tableHeader", "colspan"): 1,
    ("tableHeader", "rowspan"): 1,
    ("codeBlock", "language"): "",
    ("image", "alt"): "",
    ("image", "title"): "",
}

_HASHED: Final = re.compile(r"(.*)(--[a-zA-Z0-9+/=]{8})", re.DOTALL)


class Coverage(Enum):
    """What a format can say: attributes of elements in Tiptap's names, and marks."""

    MARKDOWN = "markdown"
    HTML = "html"
    TEXT = "text"

    @property
    def attributes(self) -> frozenset[tuple[str, str]]:
        """The (element, attribute) pairs."""
        return _COVERED[self]

    @property
    def marks(self) -> frozenset[str]:
        """The marks."""
        return frozenset() if self is Coverage.TEXT else frozenset(MARKS)


_IN_MARKDOWN: Final = (
    ("heading", "level"),
    ("orderedList", "start"),
    ("taskItem", "checked"),
    ("codeBlock", "language"),
    ("image", "src"),
    ("image", "alt"),
    ("image", "title"),
)
_COVERED: Final = {
    Coverage.TEXT: frozenset[tuple[str, str]](),
    Coverage.MARKDOWN: frozenset(_IN_MARKDOWN),
    Coverage.HTML: frozenset(
        (
            *_IN_MARKDOWN,
            *((cell, span) for cell in CELLS for span in ("colspan", "rowspan")),
        )
    ),
}


def camel_name(name: str) -> str:
    """Return Tiptap's name of an element."""
    return _CAMEL.get(name, name)


def camel_mark(name: str) -> str:
    """Return Tiptap's name of a mark, without the hash that marks have which may overlap themselves."""
    name = mark_name(name)
    return _CAMEL_MARKS.get(name, name)


def mark_name(attribute: str) -> str:
    """Return the name of the mark that an attribute of a text stands for (``yattr2markname`` of y-prosemirror)."""
    found = _HASHED.fullmatch(attribute)
    return found.group(1) if found else attribute


def canonical(nodes: Iterable[Node], coverage: Coverage | None = None) -> list[Node]:
    """Return a tree in Tiptap's names, without attributes that say nothing.

    With a ``coverage`` also without attributes and marks that the format cannot say.
    """
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, TextNode):
            result.append(TextNode(joined(canonical_piece(piece, coverage) for piece in node.pieces)))
            continue
        name = camel_name(node.name)
        result.append(Element(name, canonical_attributes(node, coverage), canonical(node.children, coverage)))
    return result


def canonical_piece(piece: Piece, coverage: Coverage | None) -> Piece:
    """Return a piece with Tiptap's names of marks; see `canonical`."""
    marks: dict[str, Any] = {}
    for key, value in piece.attributes.items():
        name = camel_mark(key)
        if coverage is None or name in coverage.marks:
            marks[name] = canonical_mark(name, value)
    return Piece(piece.content, marks, piece.is_text)


def canonical_mark(name: str, value: Any) -> Any:
    """Return what formats can say of a mark: of a link where it goes and its title, of others nothing."""
    if name not in MARKS:
        return value
    if name == "link" and isinstance(value, dict):
        kept = {key: value[key] for key in ("href", "title") if isinstance(value.get(key), str)}
        if kept.get("title") == "":
            del kept["title"]
        return kept
    return {}


def canonical_attributes(element: Element, coverage: Coverage | None) -> dict[str, Any]:
    """Return an element's attributes in Tiptap's names; see `canonical`."""
    name = camel_name(element.name)
    kept: dict[str, Any] = {}
    for key, value in element.attributes.items():
        here = _CAMEL_ATTRIBUTES.get((name, key), key)
        if coverage is not None and (name, here) not in coverage.attributes:
            continue
        value = _normal(name, here, value)
        if value is not None and _DEFAULTS.get((name, here), _NOTHING) != value:
            kept[here] = value
    if name == "heading" and coverage is not None and coverage is not Coverage.TEXT:
        kept.setdefault("level", 1)
    return kept


_NOTHING: Final = object()


def _normal(name: str, key: str, value: Any) -> Any:
    """Return an attribute as a format says it: numbers that were written as strings are numbers."""
    if key in ("level", "start", "colspan", "rowspan"):
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if type(value) is not int:
            return None
        return min(max(value, 1), 6) if key == "level" else value
    if key == "checked" and name == "taskItem":
        return value is True or value == "true"
    return value


def own_key(element: str, key: str, dialect: Dialect) -> str:
    """Return what a dialect calls an attribute that has Tiptap's name."""
    return _SNAKE_ATTRIBUTES.get((element, key), key) if dialect is Dialect.PROSEMIRROR else key


def own_mark(name: str, dialect: Dialect) -> str:
    """Return what a dialect calls a mark that has Tiptap's name."""
    return _SNAKE_MARKS.get(name, name) if dialect is Dialect.PROSEMIRROR else name


def spoken(nodes: Iterable[Node], dialect: Dialect) -> list[Node]:
    """Return a tree that has Tiptap's names in the names of a dialect."""
    if dialect is Dialect.TIPTAP:
        return list(nodes)
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, TextNode):
            result.append(
                TextNode(
                    [
                        Piece(
                            piece.content,
                            {own_mark(key, dialect): value for key, value in piece.attributes.items()},
                            piece.is_text,
                        )
                        for piece in node.pieces
                    ]
                )
            )
        else:
            attributes = {own_key(node.name, key, dialect): value for key, value in node.attributes.items()}
            result.append(Element(_SNAKE.get(node.name, node.name), attributes, spoken(node.children, dialect)))
    return result


def dialect_of(nodes: Iterable[Node]) -> Dialect | None:
    """Return the dialect that a tree speaks; None if nothing in it tells."""
    for node in walk(nodes):
        if isinstance(node, TextNode):
            for piece in node.pieces:
                names = {mark_name(key) for key in piece.attributes}
                if names & set(_CAMEL_MARKS):
                    return Dialect.PROSEMIRROR
                if names & set(_SNAKE_MARKS):
                    return Dialect.TIPTAP
        elif "_" in node.name and node.name in _CAMEL:
            return Dialect.PROSEMIRROR
        elif node.name in _SNAKE and _SNAKE[node.name] != node.name:
            return Dialect.TIPTAP
    return None


def fit(nodes: Sequence[Node], images_in_lines: bool, dialect: Dialect, used: frozenset[str]) -> list[Node]:
    """Return a tree that a format has read as editors' schemas want it.

    An editor deletes for everybody what does not fit its schema. So images stand in lines or between blocks, whichever
    the document does; an item of a list begins with a paragraph; code has no marks; and in ProseMirror's dialect there
    is nothing but what its basic schema has, or what the document uses already.

    Args:
        nodes: in Tiptap's names.
        images_in_lines: whether images are part of lines.
        dialect: which one the document speaks.
        used: elements and marks that it uses, in Tiptap's names.
    """
    return _Fitter(images_in_lines, dialect, used).blocks(nodes)


_BASIC_MARKS: Final = frozenset(("bold", "italic", "code", "link"))


class _Fitter:
    def __init__(self, images_in_lines: bool, dialect: Dialect, used: frozenset[str]) -> None:
        self.images_in_lines = images_in_lines
        if dialect is Dialect.PROSEMIRROR:
            self.marks = _BASIC_MARKS | used
            self.has_tasks = "taskList" in used
        else:
            self.marks = (frozenset(MARKS) - {"highlight"}) | used
            self.has_tasks = True

    def blocks(self, nodes: Sequence[Node]) -> list[Node]:
        return [block for node in nodes for block in self.block(node)]

    def block(self, node: Node) -> list[Node]:
        if isinstance(node, TextNode):
            return [Element("paragraph", {}, self.line([node]))]
        if node.name == "codeBlock":
            return [Element(node.name, node.attributes, _bare(node.children))]
        if node.name == "image":
            return [Element("paragraph", {}, [node])] if self.images_in_lines else [node]
        if node.name in TEXTBLOCKS:
            return self._textblock(node)
        children = self.blocks(node.children)
        name = node.name
        attributes = node.attributes
        if name in ITEMS:
            if not (children and isinstance(children[0], Element) and children[0].name == "paragraph"):
                children.insert(0, Element("paragraph"))
            if name == "taskItem" and not self.has_tasks:
                children[0] = _with_box(children[0], attributes.get("checked") is True)
                name, attributes = "listItem", {}
        elif name in CELLS or name == "blockquote":
            children = children or [Element("paragraph")]
        if name == "taskList" and not self.has_tasks:
            name = "bulletList"
        return [Element(name, attributes, children)]

    def _textblock(self, node: Element) -> list[Node]:
        children = self.line(node.children)
        if self.images_in_lines or not any(isinstance(one, Element) and one.name == "image" for one in children):
            return [Element(node.name, node.attributes, children)]
        blocks: list[Node] = []
        run: list[Node] = []
        for child in [*children, None]:
            if child is not None and not (isinstance(child, Element) and child.name == "image"):
                run.append(child)
                continue
            while run and isinstance(run[-1], Element) and run[-1].name == "hardBreak":
                run.pop()
            if trimmed := _trimmed(run):
                blocks.append(Element(node.name, node.attributes, trimmed))
            run = []
            if child is not None:
                blocks.append(child)
        return blocks

    def line(self, nodes: Sequence[Node]) -> list[Node]:
        return [
            TextNode(joined(Piece(piece.content, self._kept(piece.attributes)) for piece in node.pieces))
            if isinstance(node, TextNode)
            else node
            for node in nodes
        ]

    def _kept(self, marks: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in marks.items() if name in self.marks}


def _trimmed(nodes: list[Node]) -> list[Node]:
    """Return a line that was beside an image, without spaces and line breaks at its beginning and end."""
    while nodes and isinstance(nodes[0], Element) and nodes[0].name == "hardBreak":
        nodes = nodes[1:]
    trimmed = list(nodes)
    for at, strip in ((0, str.lstrip), (-1, str.rstrip)):
        end = trimmed[at] if trimmed else None
        if isinstance(end, TextNode) and end.pieces:
            pieces = list(end.pieces)
            pieces[at] = Piece(strip(pieces[at].content, " "), pieces[at].attributes)
            trimmed[at] = TextNode(joined(pieces))
    return [node for node in trimmed if not isinstance(node, TextNode) or node.pieces]


def _bare(nodes: Sequence[Node]) -> list[Node]:
    """Return lines as one text without marks."""
    text = "".join(
        "".join(piece.content for piece in node.pieces if piece.is_text) if isinstance(node, TextNode) else "\n"
        for node in nodes
    )
    return [TextNode([Piece(text)])] if text else []


def _with_box(paragraph: Node, checked: bool) -> Node:
    assert isinstance(paragraph, Element)
    box = "[x] " if checked else "[ ] "
    first = paragraph.children[0] if paragraph.children else None
    if isinstance(first, TextNode):
        return Element("paragraph", {}, [TextNode(joined([Piece(box), *first.pieces])), *paragraph.children[1:]])
    return Element("paragraph", {}, [TextNode([Piece(box)]), *paragraph.children])


def used_names(nodes: Iterable[Node]) -> frozenset[str]:
    """Return the elements and marks that a tree uses, in Tiptap's names."""
    found: set[str] = set()
    for node in walk(nodes):
        if isinstance(node, TextNode):
            found.update(camel_mark(key) for piece in node.pieces for key in piece.attributes)
        else:
            found.add(camel_name(node.name))
    return frozenset(found)


def has_images_in_lines(nodes: Iterable[Node], dialect: Dialect) -> bool:
    """Tell whether images are part of lines, as the document has them, or as its dialect does."""
    level = list(nodes)
    while level:
        below: list[Node] = []
        for node in level:
            if isinstance(node, Element):
                if any(isinstance(child, Element) and camel_name(child.name) == "image" for child in node.children):
                    return camel_name(node.name) in TEXTBLOCKS
                below += node.children
        if any(isinstance(node, Element) and camel_name(node.name) == "image" for node in level):
            return False
        level = below
    return dialect is Dialect.PROSEMIRROR


_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_SCHEMES: Final = frozenset(("http", "https", "mailto", "tel", "sms", "ftp", "ftps", "xmpp", "matrix", "geo"))
_IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/=]*", re.IGNORECASE)
# What browsers take out of an address before they look at its scheme.
_IGNORED: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u00ad\u200b-\u200f\u2028\u2029\ufeff]")


def safe_link(address: Any) -> str | None:
    """Return the address of a link, None where following it could run a program (``javascript:``, say)."""
    if not isinstance(address, str):
        return None
    bare = _IGNORED.sub("", address)
    scheme = _SCHEME.match(bare)
    if scheme is not None and scheme.group(1).lower() not in _SCHEMES:
        return None
    # A colon that no scheme stands before, and yet before any slash: nothing that an address should begin with.
    if scheme is None and ":" in bare.split("/")[0].split("?")[0].split("#")[0]:
        return None
    return address.strip()


def safe_image(address: Any) -> str | None:
    """Return the address of an image: as of a link, or a picture within the address itself."""
    if isinstance(address, str) and _IMAGE.fullmatch(address.strip()):
        return address.strip()
    link = safe_link(address)
    scheme = _SCHEME.match(_IGNORED.sub("", link)) if link is not None else None
    return None if scheme is not None and scheme.group(1).lower() not in ("http", "https") else link
