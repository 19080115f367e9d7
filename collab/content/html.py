"""Rich text as HTML.

Strategy: out of the tree comes what Tiptap would render, of known elements and attributes alone, everything escaped.
HTML that comes in is read as browsers read it (`justhtml`), and then only what is known is taken from it: so there is
nothing to be cleaned. Scripts, styles, frames and their content are left out; of attributes the few are taken that
elements of the tree have; of links and images those whose addresses run nothing (`collab.content.schema.safe_link`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from justhtml import JustHTML

from collab.content.edits import MAX_MARKUP, MAX_TREE_DEPTH
from collab.content.merging import seen
from collab.content.schema import MARKS, Coverage, safe_image, safe_link
from collab.content.tree import Element, Node, Piece, TextNode, check, joined
from collab.content.values import check_text, units
from collab.errors import InvalidEdit

_MARK_TAGS: Final = {
    "bold": "strong",
    "italic": "em",
    "strike": "s",
    "underline": "u",
    "highlight": "mark",
    "code": "code",
}
_TAG_MARKS: Final = {
    "strong": "bold",
    "b": "bold",
    "em": "italic",
    "i": "italic",
    "s": "strike",
    "del": "strike",
    "strike": "strike",
    "u": "underline",
    "ins": "underline",
    "mark": "highlight",
    "code": "code",
    "kbd": "code",
    "samp": "code",
    "tt": "code",
}
# What is left out with all that it holds.
_LEFT_OUT: Final = frozenset(
    (
        *("script", "style", "template", "head", "title", "iframe", "frame", "frameset", "noframes", "noscript"),
        *("object", "embed", "applet", "svg", "math", "audio", "video", "canvas", "select", "textarea", "datalist"),
        *("base", "link", "meta", "param", "source", "track", "area", "map", "xmp", "plaintext", "noembed"),
    )
)
# What is in a line; every other element begins a block.
_INLINE: Final = frozenset(
    (
        *_TAG_MARKS,
        *("a", "abbr", "acronym", "bdi", "bdo", "big", "br", "cite", "data", "dfn", "font", "img", "label", "nobr"),
        *("output", "q", "rp", "rt", "ruby", "small", "span", "sub", "sup", "time", "var", "wbr", "button", "input"),
    )
)
_SPACES: Final = re.compile(r"[ \t\n\f\r]+")
_LANGUAGE: Final = re.compile(r"(?:^|\s)(?:language|lang)-(\S+)")


# Out


def to_html(nodes: Sequence[Node]) -> str:
    """Return a tree as HTML: what it holds that is not known is shown by its content."""
    return "".join(map(_block, seen(nodes, Coverage.HTML)))


def _block(node: Node) -> str:
    if isinstance(node, TextNode):
        return "<p>" + _inline([node]) + "</p>"
    name, attributes = node.name, node.attributes
    if name == "paragraph":
        return f"<p>{_inline(node.children)}</p>"
    if name == "heading":
        level = attributes.get("level", 1)
        return f"<h{level}>{_inline(node.children)}</h{level}>"
    if name == "codeBlock":
        language = attributes.get("language")
        opening = f'<code class="language-{escape(language)}">' if isinstance(language, str) and language else "<code>"
        # A line break at the beginning is not part of a <pre> when it is read.
        return f"<pre>{opening}{escape(_code(node), quote=False)}</code></pre>"
    if name == "horizontalRule":
        return "<hr>"
    if name in ("hardBreak", "image"):
        return _inline([node])
    inner = "".join(map(_block, node.children))
    if name == "bulletList":
        return f"<ul>{inner}</ul>"
    if name == "orderedList":
        start = attributes.get("start", 1)
        return f'<ol start="{start}">{inner}</ol>' if start != 1 else f"<ol>{inner}</ol>"
    if name == "listItem":
        return f"<li>{inner}</li>"
    if name == "taskList":
        return f'<ul data-type="taskList">{inner}</ul>'
    if name == "taskItem":
        checked = "true" if attributes.get("checked") is True else "false"
        return f'<li data-type="taskItem" data-checked="{checked}">{inner}</li>'
    if name == "blockquote":
        return f"<blockquote>{inner}</blockquote>"
    if name == "table":
        return f"<table><tbody>{inner}</tbody></table>"
    if name == "tableRow":
        return f"<tr>{inner}</tr>"
    tag = "th" if name == "tableHeader" else "td"
    spans = "".join(
        f' {span}="{attributes[span]}"' for span in ("colspan", "rowspan") if type(attributes.get(span)) is int
    )
    return f"<{tag}{spans}>{inner}</{tag}>"


def _code(node: Element) -> str:
    return "".join(
        "\n" if isinstance(child, Element) else "".join(piece.content for piece in child.pieces)
        for child in node.children
    )


def _inline(nodes: Iterable[Node]) -> str:
    parts: list[str] = []
    open_: list[tuple[str, Any]] = []
    for node in nodes:
        if isinstance(node, Element):
            _close(parts, open_, 0)
            parts.append("<br>" if node.name == "hardBreak" else _image(node))
            continue
        for piece in node.pieces:
            wanted = [(name, piece.attributes[name]) for name in MARKS if name in piece.attributes]
            common = 0
            while common < min(len(open_), len(wanted)) and open_[common] == wanted[common]:
                common += 1
            _close(parts, open_, common)
            for name, value in wanted[common:]:
                opening = _opening(name, value)
                if opening:
                    parts.append(opening)
                    open_.append((name, value))
            parts.append(escape(piece.content, quote=False))
    _close(parts, open_, 0)
    return "".join(parts)


def _opening(name: str, value: Any) -> str:
    if name != "link":
        return f"<{_MARK_TAGS[name]}>"
    href = safe_link(value.get("href")) if isinstance(value, dict) else None
    if href is None:
        return ""
    title = value.get("title")
    return f'<a href="{escape(href)}"' + (f' title="{escape(title)}">' if title else ">")


def _close(parts: list[str], open_: list[tuple[str, Any]], keep: int) -> None:
    while len(open_) > keep:
        name, _ = open_.pop()
        parts.append(f"</{'a' if name == 'link' else _MARK_TAGS[name]}>")


def _image(node: Element) -> str:
    source = safe_image(node.attributes.get("src"))
    if source is None:
        return escape(str(node.attributes.get("alt") or ""), quote=False)
    others = "".join(
        f' {name}="{escape(value)}"'
        for name in ("alt", "title")
        if isinstance(value := node.attributes.get(name), str) and value
    )
    return f'<img src="{escape(source)}"{others}>'


# In


def from_html(text: Any) -> list[Node]:
    """Return HTML as a tree, in Tiptap's names; raises InvalidEdit for what is no text or too large."""
    text = check_text(text, "the HTML")
    if units(text) > MAX_MARKUP:
        raise InvalidEdit(f"the HTML has more than {MAX_MARKUP} UTF-16 units")
    return check(read_html(text), "the HTML")


def read_html(text: str) -> list[Node]:
    """Return HTML as a tree; see `from_html`."""
    parsed: Any = JustHTML(text.replace("\0", "\ufffd"), sanitize=False, fragment=True)
    reader = _Reader()
    reader.blocks(parsed.root, 0)
    return reader.done()


class _Reader:
    """Takes blocks from elements; what stands in a line gathers into a paragraph."""

    def __init__(self, shared_depth: int = 0) -> None:
        self.nodes: list[Node] = []
        self.line = _InlineReader()

    def done(self) -> list[Node]:
        self.flush()
        return self.nodes

    def flush(self) -> None:
        """End the paragraph that is open."""
        children = self.line.done()
        self.line = _InlineReader()
        if children:
            self.nodes.append(Element("paragraph", {}, children))

    def blocks(self, parent: Any, depth: int) -> None:
        if depth > MAX_TREE_DEPTH:
            raise InvalidEdit(f"the HTML nests more than {MAX_TREE_DEPTH} deep")
        for child in parent.children or ():
            name = child.name
            if name == "#text":
                self.line.text(child.data or "", {})
            elif name in _LEFT_OUT or name.startswith(("#", "!")):
                continue
            elif name in _INLINE and not _has_block(child):
                self.line.element(child, {}, depth)
            else:
                self.flush()
                self.block(child, name, depth)

    def block(self, element: Any, name: str, depth: int) -> None:
        if re.fullmatch("h[1-6]", name):
            self.nodes.append(Element("heading", {"level": int(name[1])}, _line(element, depth)))
        elif name == "p" and not _has_block(element):
            self.nodes.append(Element("paragraph", {}, _line(element, depth)))
        elif name == "pre":
            self.nodes.append(_pre(element, depth))
        elif name == "hr":
            self.nodes.append(Element("horizontalRule"))
        elif name in ("ul", "ol", "menu", "dir"):
            self.nodes += _list(element, name, depth)
        elif name == "li":
            self.nodes.append(Element("bulletList", {}, [Element("listItem", {}, _filled(_inner(element, depth)))]))
        elif name == "blockquote":
            self.nodes.append(Element("blockquote", {}, _filled(_inner(element, depth))))
        elif name == "table":
            self.nodes += _table(element, depth)
        else:
            self.blocks(element, depth + 1)
            self.flush()


def _inner(element: Any, depth: int) -> list[Node]:
    """Return the blocks in an element."""
    reader = _Reader()
    reader.blocks(element, depth + 1)
    return reader.done()


def _filled(nodes: list[Node]) -> list[Node]:
    """Return what a list item, quote or cell holds: they need a block."""
    return nodes or [Element("paragraph")]


def _has_block(element: Any) -> bool:
    """Tell whether a block is in an element."""
    stack = list(element.children or ())
    while stack:
        child = stack.pop()
        if child.name.startswith(("#", "!")) or child.name in _LEFT_OUT:
            continue
        if child.name not in _INLINE:
            return True
        stack += child.children or ()
    return False


def _line(element: Any, depth: int) -> list[Node]:
    """Return what stands in the lines of an element; blocks in it are its text."""
    reader = _InlineReader()
    reader.children(element, {}, depth)
    return reader.done()


def _pre(element: Any, depth: int) -> Element:
    """Return preformatted text as a block of code, its language from the class of the code in it."""
    classes = [element.attrs.get("class")]
    classes += [child.attrs.get("class") for child in element.children or () if child.name == "code"]
    attributes = {}
    for given in classes:
        found = _LANGUAGE.search(given or "")
        if found:
            attributes = {"language": found.group(1)}
    text = _all_text(element)
    # Browsers leave out the line break behind the tag, and editors write one at the end.
    text = text[:-1] if text.endswith("\n") else text
    return Element("codeBlock", attributes, [TextNode([Piece(text)])] if text else [])


def _all_text(element: Any) -> str:
    parts: list[str] = []
    stack = [element]
    while stack:
        here = stack.pop()
        if here.name == "#text":
            parts.append(here.data or "")
        elif here.name == "br":
            parts.append("\n")
        elif here.name not in _LEFT_OUT:
            stack += reversed(here.children or ())
    return "".join(parts)


def _list(element: Any, name: str, depth: int) -> list[Node]:
    if depth > MAX_TREE_DEPTH:
        raise InvalidEdit(f"the HTML nests more than {MAX_TREE_DEPTH} deep")
    items = [child for child in element.children or () if child.name not in _LEFT_OUT and not _is_space(child)]
    tasks = element.attrs.get("data-type") == "taskList" or (
        bool(items) and all(child.name == "li" and _task(child) is not None for child in items)
    )
    children: list[Node] = []
    for item in items:
        if item.name == "li":
            inner = _inner(item, depth)
            checked = _task(item)
        else:
            # A list in a list without an item, as some write it: it belongs to the item before.
            holder = _Holder([item])
            inner, checked = _inner(holder, depth), None
            last = children[-1] if children else None
            if isinstance(last, Element) and item.name in ("ul", "ol"):
                last.children += inner
                continue
        if tasks:
            children.append(Element("taskItem", {"checked": True} if checked else {}, _filled(inner)))
        else:
            children.append(Element("listItem", {}, _filled(inner)))
    if not children:
        return []
    if tasks:
        return [Element("taskList", {}, children)]
    if name != "ol":
        return [Element("bulletList", {}, children)]
    start = element.attrs.get("start") or ""
    number = int(start) if re.fullmatch(r"[0-9]{1,9}", start) else 1
    return [Element("orderedList", {"start": number} if number != 1 else {}, children)]


class _Holder:
    """An element that holds others."""

    name = "div"

    def __init__(self, children: list[Any]) -> None:
        self.children = children
        self.attrs: dict[str, str] = {}


def _is_space(node: Any) -> bool:
    return (
        node.name.startswith("!") or node.name == "#comment" or (node.name == "#text" and not (node.data or "").strip())
    )


def _task(item: Any) -> bool | None:
    """Tell whether a list item is ticked; None if it is none to be ticked."""
    if item.attrs.get("data-type") == "taskItem" or "data-checked" in item.attrs:
        return bool(item.attrs.get("data-checked") == "true")
    here = item
    for _ in range(3):  # <li><label><input>, <li><p><input>
        inner = [child for child in here.children or () if not _is_space(child)]
        if not inner:
            return None
        if inner[0].name == "input":
            return "checked" in inner[0].attrs if inner[0].attrs.get("type") == "checkbox" else None
        here = inner[0]
        if here.name not in ("p", "label", "span"):
            return None
    return None


def _table(element: Any, depth: int) -> list[Node]:
    rows: list[Node] = []
    stack = list(reversed(element.children or ()))
    outside: list[Node] = []
    while stack:
        child = stack.pop()
        if child.name in ("thead", "tbody", "tfoot"):
            stack += reversed(child.children or ())
        elif child.name == "tr":
            cells: list[Node] = []
            for cell in child.children or ():
                if cell.name in ("td", "th"):
                    attributes = {}
                    for span in ("colspan", "rowspan"):
                        given = cell.attrs.get(span) or ""
                        if re.fullmatch("[0-9]{1,3}", given) and int(given) > 1:
                            attributes[span] = int(given)
                    kind = "tableHeader" if cell.name == "th" else "tableCell"
                    cells.append(Element(kind, attributes, _filled(_inner(cell, depth))))
            if cells:
                rows.append(Element("tableRow", {}, cells))
        elif child.name == "caption":
            outside += _inner(child, depth)
    return [*outside, Element("table", {}, rows)] if rows else outside


class _InlineReader:
    """Gathers texts, line breaks and images; spaces as browsers show them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.pieces: list[Piece] = []
        self.space = True  # whether a space would be none, as at the beginning of a line

    def done(self) -> list[Node]:
        self._trim()
        self._close()
        while self.nodes and isinstance(self.nodes[-1], Element) and self.nodes[-1].name == "hardBreak":
            # A line break at the end of a block is not shown.
            self.nodes.pop()
        return self.nodes

    def children(self, element: Any, marks: dict[str, Any], depth: int) -> None:
        for child in element.children or ():
            if child.name == "#text":
                self.text(child.data or "", marks)
            elif not child.name.startswith(("#", "!")) and child.name not in _LEFT_OUT:
                self.element(child, marks, depth + 1)

    def element(self, element: Any, marks: dict[str, Any], depth: int) -> None:
        if depth > 2 * MAX_TREE_DEPTH:
            raise InvalidEdit(f"the HTML nests more than {2 * MAX_TREE_DEPTH} deep")
        name = element.name
        if name == "br":
            self._trim()
            self._close()
            self.nodes.append(Element("hardBreak"))
            self.space = True
        elif name == "img":
            source = safe_image(element.attrs.get("src"))
            if source is not None:
                attributes = {"src": source}
                attributes.update({key: value for key in ("alt", "title") if (value := element.attrs.get(key))})
                self._close()
                self.nodes.append(Element("image", attributes))
                self.space = False
        elif name == "a" and (href := safe_link(element.attrs.get("href"))):
            title = element.attrs.get("title")
            self.children(element, {**marks, "link": {"href": href, **({"title": title} if title else {})}}, depth)
        elif name in _TAG_MARKS:
            self.children(element, {**marks, _TAG_MARKS[name]: {}}, depth)
        elif name in ("input", "wbr"):
            pass
        else:
            self.children(element, marks, depth)

    def text(self, text: str, marks: dict[str, Any]) -> None:
        text = _SPACES.sub(" ", text)
        if self.space:
            text = text.lstrip(" ")
        if not text:
            return
        self.space = text.endswith(" ")
        self.pieces.append(Piece(text, marks))

    def _trim(self) -> None:
        """Take the space off that ends a line."""
        while self.pieces and self.pieces[-1].content.endswith(" "):
            last = self.pieces.pop()
            text = last.content.rstrip(" ")
            if text:
                self.pieces.append(Piece(text, last.attributes))

    def _close(self) -> None:
        pieces = joined(self.pieces)
        if pieces:
            self.nodes.append(TextNode(pieces))
        self.pieces = []
